//! A federation of real processes on this machine, to look at and to break.
//!
//! `muster demo` stays in the foreground and owns everything: the folder, its lock, the members (its children, one
//! process group) and the control socket that the verbs `kill`, `pause`, `resume`, `start` and `down` speak to.
//! Three things see to it that nothing is left behind:
//!
//! 1. the demo itself ends its members and removes its folder, on `down`, on Ctrl-C and on every error;
//! 2. [`watch`], a process that leads the members' group and waits for the demo's end of a pipe to close, does it when
//!    the demo was killed;
//! 3. every member asked the kernel to be killed with its parent ([`follow_parent`]), so it dies when both were killed,
//!    and the next demo verb sweeps the folder ([`state::Folder::find`]).

pub(crate) mod ask;
pub(crate) mod bus;
pub(crate) mod control;
pub(crate) mod federation;
pub(crate) mod member;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod samples;
pub(crate) mod state;
pub(crate) mod timeline;
pub(crate) mod watch;

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use state::Role;

use crate::cli::exit::{Exit, Failure};

/// Environment variable by which a member learns whose child it is; see [`follow_parent`].
pub(crate) const PARENT: &str = "MUSTER_DEMO_PARENT";

/// Who is in the demo, indexers first. Two names begin alike, so that a search for `par` has two hits.
pub(crate) const MEMBERS: [(&str, Role); 7] = [
    ("indexer-1", Role::Indexer),
    ("indexer-2", Role::Indexer),
    ("indexer-3", Role::Indexer),
    ("paris", Role::Node),
    ("lyon", Role::Node),
    ("parma", Role::Node),
    ("oslo", Role::Node),
];

/// The member that all others know from their configuration.
pub(crate) const SEED: &str = "indexer-1";

/// Why a demo, or a verb of it, could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nothing holds the lock of the folder.
    #[error("no demo is running{swept}")]
    NotRunning {
        /// Says that a dead demo's leftovers were removed, or nothing.
        swept: &'static str,
    },
    /// Somebody holds the lock.
    #[error("a demo is already running (process {pid}, folder {})", .folder.display())]
    AlreadyRunning {
        /// Who holds it, 0 when it did not say.
        pid: u32,
        /// Where.
        folder: PathBuf,
    },
    /// The demo holds its lock and has not written who its members are.
    #[error("the demo (process {pid}) is still making its members' keys")]
    Starting {
        /// The demo.
        pid: u32,
    },
    /// No such member.
    #[error("the demo has no member \"{name}\"; it has {}", .known.join(", "))]
    UnknownMember {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The demo understood and declined.
    #[error("{0}")]
    Refused(String),
    /// The folder is not ours alone.
    #[error("the folder {} {fault}", .path.display())]
    Unsafe {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// The demo did not answer on its socket.
    #[error("the demo (process {pid}) does not answer: {cause}")]
    Silent {
        /// The demo.
        pid: u32,
        /// What happened instead.
        cause: String,
    },
    /// A member's files could not be made.
    #[error("cannot make the files of {name}: {}", .failure.text().trim_end())]
    Files {
        /// Whose.
        name: String,
        /// Why.
        failure: Failure,
    },
    /// A member ended while the demo came up.
    #[error("{name} ended while it was starting ({how}); its last words:\n{log}")]
    MemberEnded {
        /// Who.
        name: String,
        /// Exit code or signal.
        how: String,
        /// The end of its log.
        log: String,
    },
    /// A member runs and does not answer.
    #[error("{name} has not answered at {admin} for {} s; its last words:\n{log}", .after.as_secs())]
    MemberSilent {
        /// Who.
        name: String,
        /// Where it should answer.
        admin: SocketAddr,
        /// How long it was waited for.
        after: Duration,
        /// The end of its log.
        log: String,
    },
    /// The machine said no.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The machine's words.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: what was tried when the machine said no.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    const fn exit(&self) -> Exit {
        match self {
            Self::NotRunning { .. } | Self::Starting { .. } | Self::Silent { .. } => Exit::Unreachable,
            Self::AlreadyRunning { .. } | Self::MemberEnded { .. } | Self::MemberSilent { .. } => Exit::Failed,
            Self::Files { failure, .. } => failure.exit,
            Self::Refused(_) => Exit::Refused,
            Self::UnknownMember { .. } => Exit::NotFound,
            Self::Unsafe { .. } => Exit::Configuration,
            Self::Io { .. } => Exit::InputOutput,
        }
    }

    const fn next(&self) -> Option<&'static str> {
        match self {
            Self::NotRunning { .. } => Some("start one in another terminal: muster demo"),
            Self::AlreadyRunning { .. } | Self::Silent { .. } => Some("end it: muster --demo down"),
            Self::Starting { .. } => Some("try again in a moment"),
            Self::Unsafe { .. } => Some("remove it, or set XDG_RUNTIME_DIR to a folder that is yours alone"),
            _ => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = Self::new(error.exit(), error.to_string());
        match error.next() {
            Some(next) => failure.next(next),
            None => failure,
        }
    }
}

/// This program as its user called it, for lines to be typed again.
pub(crate) fn own_name() -> String {
    std::env::args().next().unwrap_or_else(|| "muster".to_owned())
}

/// Ties the life of this process to its parent's when that is a demo; called first in `run`, on the main thread.
///
/// The kernel kills this process when the parent dies, however that dies and even when this process is stopped. A
/// parent that was gone before the kernel was asked shows as another parent, and this process ends at once. The
/// variable is another's business, and no reason not to run, when it is not a process id.
pub(crate) fn follow_parent() {
    let Some(parent) = std::env::var(PARENT).ok().and_then(|text| text.parse::<i32>().ok()) else { return };
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL) {
        // The log has not begun yet: that needs settings, and their reading is part of a life.
        anstream::eprintln!("cannot ask the kernel to end with the demo: {error}");
    }
    if nix::unistd::getppid().as_raw() != parent {
        std::process::exit(1);
    }
}
