//! `muster man`: the manual's pages, one per verb.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    Context,
    exit::{Exit, Failure},
    help::command,
};

/// Flags of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where they go; made where there is none. Pages that are there already are written anew.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    dir: PathBuf,
    pages: usize,
}

/// Writes the pages.
pub(super) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let pages = write(&args.dir).map_err(|cause| {
        Failure::new(Exit::InputOutput, format!("cannot write pages into {}", args.dir.display()))
            .why(cause.to_string())
            .next("choose another folder, or correct its permissions")
    })?;
    context.output.one(&Written { dir: args.dir.clone(), pages }, |written| {
        let dir = written.dir.display();
        format!("{} pages are in {dir}\nnext: man {dir}/muster.1", written.pages)
    })
}

fn write(dir: &Path) -> std::io::Result<usize> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(command(), dir)?;
    Ok(fs::read_dir(dir)?
        .filter_map(Result::ok)
        .filter(|entry| entry.path().extension().is_some_and(|it| it == "1"))
        .count())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_verb_has_its_page() {
        let folder = tempfile::tempdir().unwrap();
        let pages = write(&folder.path().join("man1")).unwrap();
        assert!(pages > command().get_subcommands().count(), "{pages}");
        let page = fs::read_to_string(folder.path().join("man1/muster-partner-add.1")).unwrap();
        assert!(page.contains("partner"), "{page}");
        assert_eq!(write(&folder.path().join("man1")).unwrap(), pages, "a second time is no other");
    }
}
