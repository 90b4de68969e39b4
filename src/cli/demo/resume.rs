//! `muster --demo resume NAME`: lets a stopped member go on.

use super::super::{
    exit::Failure,
    output::{Output, say},
};
use crate::demo::{
    control::{self, Request},
    own_name,
    state::Folder,
};

/// Who goes on.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the demo's member, for example indexer-2
    name: String,
}

/// Lets the process go on.
///
/// # Errors
/// When no demo runs, there is no such member, or it is not stopped.
pub(super) async fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let folder = Folder::usual();
    let demo = folder.find()?;
    let name = demo.member(Some(&args.name))?.name.clone();
    let (_, member) = control::ask(&folder, &demo, &Request::Resume { name: name.clone() }).await?;
    if output != Output::Table {
        return output.one(&member, |_| String::new());
    }
    say(&format!("{name} goes on; see how it stands: {} --demo --on {name} status", own_name()))
}
