//! What can go wrong while opening, reading and writing, in classes that a caller can act on.

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;
use tokio::time::timeout;

/// Why the database could not be opened. Nothing on the disk was changed then.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A folder is in the place of the file.
    #[error("database {path}: got a directory, expected a file")]
    IsDirectory {
        /// The database file.
        path: PathBuf,
    },
    /// A socket, pipe or device is in the place of the file.
    #[error("database {path}: got something that is not a regular file")]
    NotAFile {
        /// The database file.
        path: PathBuf,
    },
    /// The file is not SQLite's, and not a damaged one of ours.
    #[error("database {path}: the file is not an SQLite database")]
    NotADatabase {
        /// The database file.
        path: PathBuf,
    },
    /// An SQLite database with somebody else's tables.
    #[error("database {path}: it belongs to another program (it has a table {table})")]
    Foreign {
        /// The database file.
        path: PathBuf,
        /// One of its tables.
        table: String,
    },
    /// A newer muster wrote it.
    #[error("database {path}: got schema {found}, expected at most {known}: a newer muster wrote it")]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The newest migration that it holds.
        found: i64,
        /// The newest migration of this build.
        known: i64,
    },
    /// A migration that landed was changed afterwards.
    #[error("database {path}: migration {version} was applied in another form than this build's")]
    Altered {
        /// The database file.
        path: PathBuf,
        /// The migration.
        version: i64,
    },
    /// We may not read or write there.
    #[error("database: no permission to {wish} {path}")]
    Denied {
        /// The file or folder.
        path: PathBuf,
        /// `read`, `write to` and the like.
        wish: &'static str,
    },
    /// The path cannot be handed to SQLite.
    #[error("database {path:?}: the path is not UTF-8")]
    NotUtf8 {
        /// The database file.
        path: PathBuf,
    },
    /// The setting is no URL that can be used. Its words are never repeated: there may be a password in them.
    #[error("the database's URL cannot be used: {detail}")]
    BadUrl {
        /// What is wrong with it.
        detail: String,
    },
    /// No server answers there, or it takes nobody in.
    #[error("database {place}: no connection: {detail}")]
    Unreachable {
        /// Where, without the password.
        place: String,
        /// What the system or the server said.
        detail: String,
    },
    /// The server does not know the user, or the password is not its own.
    #[error("database {place}: the server refused the login: {detail}")]
    LoginRefused {
        /// Where, without the password.
        place: String,
        /// The server's words.
        detail: String,
    },
    /// The server has no database of this name.
    #[error("database {place}: the server has no database {name}")]
    NoSuchDatabase {
        /// Where, without the password.
        place: String,
        /// The name.
        name: String,
    },
    /// Another member keeps its tables there.
    #[error("database {place}: it is the database of member {owner}, and this is {own}")]
    AnotherMembers {
        /// Where, without the password.
        place: String,
        /// Its owner's peer id.
        owner: String,
        /// Ours.
        own: String,
    },
    /// Another process holds it.
    #[error("database {path}: another process has it locked")]
    Busy {
        /// The database file.
        path: PathBuf,
    },
    /// No room for it.
    #[error("database {path}: no space left on the disk")]
    DiskFull {
        /// The database file.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("database {path}: input/output error")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// SQLite refused for a reason that no class above covers.
    #[error("database {path}: {detail}")]
    Failed {
        /// The database file.
        path: PathBuf,
        /// SQLite's words.
        detail: String,
    },
}

impl OpenError {
    /// What its reader can do about it, one sentence without a full stop.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::IsDirectory { .. } | Self::NotAFile { .. } | Self::NotUtf8 { .. } => {
                "name another path in the settings, or move away what is there"
            }
            Self::NotADatabase { .. } | Self::Foreign { .. } => {
                "check path and URL in the settings; muster makes a new one where there is nothing"
            }
            Self::Newer { .. } => {
                "start the muster that wrote it, or begin anew: move the file away, or name another database"
            }
            Self::Altered { .. } => {
                "start the build that wrote it, or begin anew: move the file away, or name another database"
            }
            Self::BadUrl { .. } => "write store.url as postgresql://user:password@host:port/database",
            Self::Unreachable { .. } => "start the server, or correct host and port in store.url",
            Self::LoginRefused { .. } => "correct user and password in store.url, or let them in at the server",
            Self::NoSuchDatabase { .. } => "make the database, as with `createdb`, or correct its name in store.url",
            Self::AnotherMembers { .. } => {
                "name a database or schema of its own in store.url, or restore the key of the member that owns this one"
            }
            Self::Denied { .. } => "give the folder and its files to the user that runs muster (modes 0700 and 0600)",
            Self::Busy { .. } => "stop the other process",
            Self::DiskFull { .. } => "make room on the disk",
            Self::Io { .. } => "check the disk and the system's log",
            Self::Failed { .. } => "check the path and the system's log; move the file away to begin anew",
        }
    }

    /// Whether a server is away: it may come by itself.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether the disk failed, rather than a path, a permission or a version.
    #[must_use]
    pub const fn is_io(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}

/// Why a call failed. Of a batch nothing is written then.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another connection held a lock for the whole of `busy_timeout`.
    #[error("database is locked")]
    Busy,
    /// The server is away: not reached, stopping, or silent for too long. Whether the last call came to its end is not
    /// known then; the same call may be made again.
    #[error("the database is away: {detail}")]
    Away {
        /// What the system or the server said.
        detail: String,
    },
    /// No room on the disk.
    #[error("no space left on the database's disk")]
    DiskFull,
    /// Descriptors or memory ran out.
    #[error("out of resources: {detail}")]
    Exhausted {
        /// SQLite's words.
        detail: String,
    },
    /// A read, write or sync of the disk failed. What the disk holds is not known any more: end the process (exit 74),
    /// never try again.
    #[error("input/output error of the database: {detail}")]
    Io {
        /// SQLite's words.
        detail: String,
    },
    /// The file is damaged. The next start sets it aside.
    #[error("the database is damaged: {detail}")]
    Corrupt {
        /// SQLite's words.
        detail: String,
    },
    /// More writes than one transaction may hold.
    #[error("got {got} writes in one batch, expected at most {max}")]
    TooMany {
        /// Writes given.
        got: usize,
        /// [`crate::WRITES_MAX`].
        max: usize,
    },
    /// A new DID past [`crate::SEQS_MAX`]: sequences are never forgotten to make room.
    #[error("sequences of {max} identities are held, no room for another")]
    SeqsFull {
        /// [`crate::SEQS_MAX`].
        max: u32,
    },
    /// The sequence is over [`crate::SEQ_MAX`], which the wire cannot carry.
    #[error("sequence {got} is over {max}")]
    SeqSpent {
        /// The sequence wanted.
        got: u64,
        /// [`crate::SEQ_MAX`].
        max: u64,
    },
    /// Empty, or longer than the column takes.
    #[error("got an identifier of {got} bytes, expected 1 to {max}")]
    BadDid {
        /// Its length.
        got: usize,
        /// [`crate::TEXT_BYTES_MAX`].
        max: usize,
    },
    /// [`crate::Store::close`] was called.
    #[error("the database is closed")]
    Closed,
    /// SQLite refused for a reason that no class above covers: a bug, or a file changed behind our back.
    #[error("database: {detail}")]
    Failed {
        /// SQLite's words.
        detail: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without anything being restarted.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Busy | Self::Away { .. } | Self::DiskFull | Self::Exhausted { .. })
    }

    /// Whether the process has to end with exit 74.
    #[must_use]
    pub const fn is_io(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}

/// SQLite's result codes that decide what to do; the low byte is the class, the rest the detail.
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const NO_MEMORY: i32 = 7;
const IO: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANNOT_OPEN: i32 = 14;
const NOT_A_DATABASE: i32 = 26;
/// The index of the log could not grow: SQLite says "input/output" and means a full disk.
const IO_SHARED_MEMORY_SIZE: i32 = IO | (19 << 8);
/// An allocation failed within an input or output.
const IO_NO_MEMORY: i32 = IO | (12 << 8);

/// The class of one of SQLite's result codes.
fn classify(code: i32, detail: String) -> StoreError {
    match (code, code & 0xff) {
        (IO_SHARED_MEMORY_SIZE, _) | (_, FULL) => StoreError::DiskFull,
        (IO_NO_MEMORY, _) | (_, NO_MEMORY | CANNOT_OPEN) => StoreError::Exhausted { detail },
        (_, BUSY | LOCKED) => StoreError::Busy,
        (_, IO) => StoreError::Io { detail },
        (_, CORRUPT | NOT_A_DATABASE) => StoreError::Corrupt { detail },
        _ => StoreError::Failed { detail },
    }
}

/// What a failure of SQLite is to a caller.
pub(crate) fn of_sqlite(error: sqlx::Error) -> StoreError {
    let detail = error.to_string();
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().and_then(|code| code.parse().ok()).unwrap_or_default();
            classify(code, detail)
        }
        sqlx::Error::PoolTimedOut => StoreError::Busy,
        sqlx::Error::PoolClosed => StoreError::Closed,
        sqlx::Error::Io(_) => StoreError::Io { detail },
        _ => StoreError::Failed { detail },
    }
}

/// What a failure of PostgreSQL is to a caller. Its disk is not ours: that one fails is no reason to end the process.
pub(crate) fn of_postgres(error: sqlx::Error) -> StoreError {
    let detail = error.to_string();
    match error {
        sqlx::Error::Database(database) => classify_state(&database.code().unwrap_or_default(), detail),
        sqlx::Error::PoolClosed => StoreError::Closed,
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => StoreError::Away { detail },
        _ => StoreError::Failed { detail },
    }
}

/// The class of one of PostgreSQL's states; the first two characters are the class, the rest the detail.
fn classify_state(state: &str, detail: String) -> StoreError {
    match (state, state.get(..2).unwrap_or_default()) {
        // A statement took too long, a lock was not given, two waited for each other.
        ("57014" | "55P03", _) | (_, "40") => StoreError::Busy,
        ("53100", _) => StoreError::DiskFull,
        (_, "53") => StoreError::Exhausted { detail },
        // No connection, a server that stops or starts, one that only reads, a login that is no longer good, a database
        // that was taken away, a transaction that was idle for too long, the server's own disk.
        ("25006" | "25P03", _) | (_, "08" | "57" | "28" | "3D" | "58") => StoreError::Away { detail },
        _ => StoreError::Failed { detail },
    }
}

/// The answer of a server, or that it is away when there is none in time: one that is frozen would never give any.
pub(crate) async fn in_time<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match timeout(patience, answer).await {
        Ok(answer) => answer.map_err(of_postgres),
        Err(_) => Err(StoreError::Away { detail: format!("no answer within {patience:?}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_of_the_disk_has_its_class() {
        let class = |code| classify(code, String::new());
        // fsync of the file, fsync of the folder, write, read.
        for code in [IO, 1034, 1290, 778, 266] {
            assert!(class(code).is_io() && !class(code).is_transient(), "{code}");
        }
        for code in [BUSY, BUSY | (2 << 8), LOCKED, LOCKED | (1 << 8), FULL, IO_SHARED_MEMORY_SIZE, CANNOT_OPEN] {
            assert!(class(code).is_transient() && !class(code).is_io(), "{code}");
        }
        for code in [CORRUPT, CORRUPT | (1 << 8), NOT_A_DATABASE] {
            assert!(matches!(class(code), StoreError::Corrupt { .. }), "{code}");
        }
        assert!(matches!(class(1), StoreError::Failed { .. }));
    }

    #[test]
    fn each_failure_of_a_server_has_its_class_and_none_ends_the_process() {
        let class = |state| classify_state(state, String::new());
        for state in ["57014", "55P03", "40001", "40P01"] {
            assert!(matches!(class(state), StoreError::Busy), "{state}");
        }
        for state in ["08006", "57P01", "57P02", "57P03", "25006", "25P03", "28P01", "3D000", "58030"] {
            assert!(matches!(class(state), StoreError::Away { .. }), "{state}");
        }
        assert!(matches!(class("53100"), StoreError::DiskFull));
        assert!(matches!(class("53300"), StoreError::Exhausted { .. }));
        for state in ["57014", "40001", "08006", "58030", "53100", "53300"] {
            assert!(class(state).is_transient() && !class(state).is_io(), "{state}");
        }
        for state in ["42601", "XX001", ""] {
            assert!(matches!(class(state), StoreError::Failed { .. }), "{state}");
        }
        let gone = of_postgres(sqlx::Error::Io(io::ErrorKind::ConnectionReset.into()));
        assert!(gone.is_transient() && !gone.is_io());
    }
}
