//! How a verb ends: one code per kind of end, and words that say what, why and what next.

use std::{
    fmt::Write as _,
    io,
    process::{ExitCode, Termination},
};

/// The exit codes of every verb; a contract for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// It was tried and did not work: a port in use, a folder in use.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// No daemon answers there.
    Unreachable = 3,
    /// There is nothing by that name.
    NotFound = 4,
    /// A token is missing or wrong.
    NotAllowed = 5,
    /// No answer in time.
    TimedOut = 6,
    /// Some answered, others did not.
    Partial = 7,
    /// The daemon, or a rule, says no: busy, away, or a file that is never overwritten.
    Refused = 8,
    /// A promise of ours is broken: the tree ended by itself.
    Internal = 70,
    /// The disk did not keep what it was given.
    InputOutput = 74,
    /// A local file or setting cannot be used.
    Configuration = 78,
    /// Interrupted from the terminal.
    Interrupted = 130,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// An end that is not good, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Failure {
    /// Its code.
    pub(crate) exit: Exit,
    /// What happened.
    pub(crate) what: String,
    /// Why, one line each.
    pub(crate) why: Vec<String>,
    /// What to do next.
    pub(crate) next: Option<String>,
}

impl Failure {
    /// An end with this code; `what` happened.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), why: Vec::new(), next: None }
    }

    /// Adds a reason.
    #[must_use]
    pub(crate) fn why(mut self, why: impl Into<String>) -> Self {
        self.why.push(why.into());
        self
    }

    /// Says what to do next.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The end of a verb that was interrupted from the terminal: silent, the person knows.
    pub(crate) fn interrupted() -> Self {
        Self::new(Exit::Interrupted, String::new())
    }

    /// The text for the terminal; empty when there is nothing to say.
    pub(crate) fn text(&self) -> String {
        if self.what.is_empty() {
            return String::new();
        }
        let mut text = format!("error: {}\n", self.what);
        for why in &self.why {
            let _ = writeln!(text, "  {}", why.replace('\n', "\n  "));
        }
        if let Some(next) = &self.next {
            let _ = writeln!(text, "next: {next}");
        }
        text
    }
}

/// Turns a write to the terminal that failed into an end of the verb.
pub(crate) fn unwritten(cause: &io::Error) -> Failure {
    // `muster peers | head -1` closes the pipe early: that is no failure of ours.
    if cause.kind() == io::ErrorKind::BrokenPipe {
        return Failure::new(Exit::Ok, String::new());
    }
    Failure::new(Exit::InputOutput, "cannot write to the terminal").why(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_next() {
        let failure = Failure::new(Exit::Configuration, "cannot use the key").why("it is empty").next("restore it");
        assert_eq!(failure.text(), "error: cannot use the key\n  it is empty\nnext: restore it\n");
    }

    #[test]
    fn an_interruption_is_silent() {
        assert_eq!(Failure::interrupted().text(), "");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        assert_eq!(unwritten(&io::ErrorKind::BrokenPipe.into()).exit, Exit::Ok);
        assert_eq!(unwritten(&io::ErrorKind::StorageFull.into()).exit, Exit::InputOutput);
    }

    #[test]
    fn the_reference_names_every_code() {
        const REFERENCE: &str = include_str!("../../docs/cli.md");
        let rows = REFERENCE.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse::<u8>().ok());
        let codes: Vec<u8> = rows.collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 70, 74, 78, 130]);
    }

    #[test]
    fn the_codes_are_those_that_scripts_know() {
        let codes = [
            (Exit::Ok, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Unreachable, 3),
            (Exit::NotFound, 4),
            (Exit::NotAllowed, 5),
            (Exit::TimedOut, 6),
            (Exit::Partial, 7),
            (Exit::Refused, 8),
            (Exit::Internal, 70),
            (Exit::InputOutput, 74),
            (Exit::Configuration, 78),
            (Exit::Interrupted, 130),
        ];
        for (exit, code) in codes {
            assert_eq!(exit as u8, code, "{exit:?}");
        }
    }
}
