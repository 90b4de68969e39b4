//! What was found out about a member: the facts on which a diagnosis rests. Nothing here asks, and nothing judges.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use actors::view::{ActorView, AlertView, BridgeView, SampleView, StatusView};
use jiff::Timestamp;
use store::Examined;

use crate::{cli::exit::Failure, config::Settings, ports::Use};

/// What the daemon answered to one question, or why it did not.
pub(super) type Asked<T> = Result<T, String>;

/// All of them.
#[derive(Debug)]
pub(super) struct Facts {
    /// When they were gathered.
    pub(super) now: Timestamp,
    /// Version of this command.
    pub(super) version: String,
    /// The member's own folder.
    pub(super) files: Files,
    /// The member's process, as it answers.
    pub(super) daemon: Daemon,
}

/// What can be known from a member's folder.
#[derive(Debug)]
pub(super) enum Files {
    /// A daemon was named by its address: its folder may be on another machine.
    Elsewhere,
    /// The configuration tells where nothing is.
    Unusable(Failure),
    /// It was looked at.
    Seen(Box<FileFacts>),
}

/// A folder whose configuration can be used.
#[derive(Debug)]
pub(super) struct FileFacts {
    /// The configuration's file.
    pub(super) file: PathBuf,
    /// How many settings are set anywhere.
    pub(super) set: usize,
    /// What deserves a word.
    pub(super) warnings: Vec<String>,
    /// All settings.
    pub(super) settings: Settings,
    /// The folder of data.
    pub(super) data: Folder,
    /// The peer id of the identity.
    pub(super) identity: Result<String, Failure>,
    /// Fingerprint of the network's key; nothing in an open network.
    pub(super) network_key: Option<Result<String, Failure>>,
    /// The admin token: whether there is one.
    pub(super) token: Result<bool, Failure>,
    /// Who holds the folder.
    pub(super) lock: Lock,
    /// Its ports, where nobody holds the folder.
    pub(super) ports: Vec<Port>,
    /// The file system of the data.
    pub(super) disk: Asked<Disk>,
    /// Share of the host's memory in use, and what the member's process has of it.
    pub(super) memory: Memory,
    /// Open files of the member's process, or of this one, which may as many.
    pub(super) descriptors: Asked<Descriptors>,
    /// The database, where nobody holds the folder.
    pub(super) database: Database,
    /// Each seed, dialled.
    pub(super) seeds: Vec<Dialled>,
    /// Each server of the bus, dialled; none without a bus.
    pub(super) bus: Vec<Dialled>,
    /// Whether the admin endpoint answers those who show no token.
    pub(super) is_open: Asked<bool>,
}

/// A folder, or what is in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    /// Where.
    pub(super) path: PathBuf,
    /// How it is; nothing where there is none.
    pub(super) found: Asked<Option<Mode>>,
    /// The user that asks.
    pub(super) us: u32,
}

/// Whose a folder is and who may what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    /// It is a folder.
    pub(super) is_folder: bool,
    /// Its user.
    pub(super) owner: u32,
    /// Its permission bits.
    pub(super) bits: u32,
}

/// Who holds a member's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    /// Nobody.
    Free,
    /// This process, where it is told.
    Held(Option<u32>),
    /// It cannot be told.
    Unknown(String),
}

/// A port, tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// What for.
    pub(super) purpose: Use,
    /// Where.
    pub(super) address: SocketAddr,
    /// Whether it could be had.
    pub(super) state: PortState,
}

/// Whether a port could be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PortState {
    /// It could.
    Free,
    /// Somebody has it.
    Taken,
    /// The system says no.
    Refused(String),
}

/// A file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    /// Bytes that we may still use.
    pub(super) free: u64,
    /// Bytes in all.
    pub(super) total: u64,
}

/// The host's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Memory {
    /// Share in use, 0 to 1; nothing where the system does not tell.
    pub(super) share: Option<f64>,
    /// Bytes of the member's process.
    pub(super) own: Option<u64>,
}

/// Open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// How many are open; nothing where no process of the member runs.
    pub(super) open: Option<u64>,
    /// How many may be.
    pub(super) limit: u64,
}

/// The database, looked at from outside.
#[derive(Debug)]
pub(super) enum Database {
    /// A process holds it: only that one knows.
    InUse,
    /// The file.
    File {
        /// Where.
        path: PathBuf,
        /// What it is found to be, and how long that took.
        found: Result<(Examined, Duration), Failure>,
    },
    /// A server, dialled.
    Server(Vec<Dialled>),
}

/// An address that was dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dialled {
    /// As it is written, without users and passwords.
    pub(super) address: String,
    /// How long it took, or why it did not answer.
    pub(super) answered: Asked<Duration>,
}

/// The daemon.
#[derive(Debug)]
pub(super) enum Daemon {
    /// It was not looked for, for this reason.
    NotSought(String),
    /// None answers.
    Silent(Failure),
    /// One answers.
    Answers(Box<DaemonFacts>),
}

/// What a daemon says of itself.
#[derive(Debug)]
pub(super) struct DaemonFacts {
    /// Where it answers.
    pub(super) address: String,
    /// Every actor.
    pub(super) actors: Vec<ActorView>,
    /// The overview.
    pub(super) status: Asked<StatusView>,
    /// What is wrong.
    pub(super) alerts: Asked<Vec<AlertView>>,
    /// What was measured, the oldest first.
    pub(super) samples: Asked<Vec<SampleView>>,
    /// Its bus; nothing without one.
    pub(super) bus: Asked<Option<BridgeView>>,
}
