//! `muster --demo pause NAME`: stops a member's process with its connections open, as a frozen machine would.

use super::super::{
    exit::Failure,
    output::{Output, say},
};
use crate::demo::{
    control::{self, Request},
    own_name,
    state::Folder,
};

/// Whom to stop.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the demo's member, for example indexer-2
    name: String,
}

/// Stops the process.
///
/// # Errors
/// When no demo runs, there is no such member, or it is not running.
pub(super) async fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let folder = Folder::usual();
    let demo = folder.find()?;
    let name = demo.member(Some(&args.name))?.name.clone();
    let (_, member) = control::ask(&folder, &demo, &Request::Pause { name: name.clone() }).await?;
    if output != Output::Table {
        return output.one(&member, |_| String::new());
    }
    say(&format!("{name} is stopped with its connections open; the others find out by its silence"))?;
    say(&format!("watch them: {0} --demo indexers    let it go on: {0} --demo resume {name}", own_name()))
}
