//! The log in files: a new one each day or hour, and no more of them than an operator wants.
//!
//! A thread of its own writes them. When the disk is slower than the log, lines are lost and the daemon is not held up.

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt as _, path::Path};

use tracing_appender::{
    non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard},
    rolling::{RollingFileAppender, Rotation},
};

use crate::{
    cli::exit::{Exit, Failure},
    config::{LogRotation, LogSettings},
};

/// Lines that wait for the disk: some seconds of a member that is asked for everything.
const LINES_MAX: usize = 8_192;

/// The files: `muster.2026-05-01.log`, and with the hour behind the day where they are hourly.
const NAME: (&str, &str) = ("muster", "log");

/// Begins to write files into this folder; they are whole as soon as the guard is dropped.
///
/// # Errors
/// When the folder or the first file cannot be made.
pub(super) fn open(folder: &Path, settings: &LogSettings) -> Result<(NonBlocking, WorkerGuard), Failure> {
    let failed = |why: String| {
        Failure::new(Exit::Configuration, format!("cannot write the log into {}", folder.display()))
            .why(why)
            .next("correct log.folder or the permissions and start again")
    };
    // What a log tells of others is the operator's alone.
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|cause| failed(cause.to_string()))?;
    let rotation = match settings.rotate {
        LogRotation::Daily => Rotation::DAILY,
        LogRotation::Hourly => Rotation::HOURLY,
    };
    let files = usize::try_from(settings.files_max.max(1)).unwrap_or(usize::MAX);
    let (prefix, suffix) = NAME;
    let appender = RollingFileAppender::builder()
        .rotation(rotation)
        .filename_prefix(prefix)
        .filename_suffix(suffix)
        .max_log_files(files)
        .build(folder)
        .map_err(|cause| failed(cause.to_string()))?;
    Ok(NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX).lossy(true).thread_name("log").finish(appender))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn settings(files_max: u32) -> LogSettings {
        LogSettings { files_max, ..LogSettings::default() }
    }

    #[test]
    fn no_more_files_are_kept_than_wanted_and_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        fs::create_dir(&logs).unwrap();
        for day in 1..=5 {
            fs::write(logs.join(format!("muster.2020-01-0{day}.log")), "old").unwrap();
        }
        fs::write(logs.join("notes.txt"), "mine").unwrap();
        let (mut lines, guard) = open(&logs, &settings(3)).unwrap();
        writeln!(lines, "a line").unwrap();
        drop(guard);
        let mut names: Vec<String> =
            fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names.len(), 4, "three files of the log and another's: {names:?}");
        assert!(names.contains(&"notes.txt".to_owned()), "{names:?}");
        let newest = names.iter().rfind(|name| name.starts_with("muster.")).unwrap();
        assert!(!newest.contains("2020"), "{names:?}");
        assert_eq!(fs::read_to_string(logs.join(newest)).unwrap(), "a line\n");
    }

    #[test]
    fn a_folder_that_is_made_is_the_operators_alone() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("a/b");
        drop(open(&logs, &settings(1)).unwrap());
        assert_eq!(fs::metadata(&logs).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let failure = open(&file.join("logs"), &settings(1)).unwrap_err();
        assert_eq!(failure.exit, Exit::Configuration);
        assert!(failure.next.is_some_and(|next| next.contains("log.folder")));
    }
}
