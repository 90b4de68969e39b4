//! What can go wrong while opening, reading and writing, in classes that a caller can act on.

use std::{io, path::PathBuf};

use thiserror::Error;

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
                "check the path in the settings; move the file away if muster is to make a new one"
            }
            Self::Newer { .. } => "start the muster that wrote it, or move the file away to begin anew",
            Self::Altered { .. } => "start the build that wrote it, or move the file away to begin anew",
            Self::Denied { .. } => "give the folder and its files to the user that runs muster (modes 0700 and 0600)",
            Self::Busy { .. } => "stop the other process",
            Self::DiskFull { .. } => "make room on the disk",
            Self::Io { .. } => "check the disk and the system's log",
            Self::Failed { .. } => "check the path and the system's log; move the file away to begin anew",
        }
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
        matches!(self, Self::Busy | Self::DiskFull | Self::Exhausted { .. })
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

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let detail = error.to_string();
        match error {
            sqlx::Error::Database(database) => {
                let code = database.code().and_then(|code| code.parse().ok()).unwrap_or_default();
                classify(code, detail)
            }
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::PoolClosed => Self::Closed,
            sqlx::Error::Io(_) => Self::Io { detail },
            _ => Self::Failed { detail },
        }
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
}
