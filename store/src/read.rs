//! How rows come back: through a reader of the pool, or in memory through the one connection there is.

use std::ops::{Deref, DerefMut};

use sqlx::{Sqlite, SqliteConnection, pool::PoolConnection, sqlite::SqliteRow};
use tokio::sync::MappedMutexGuard;
use tracing::warn;

use crate::{Store, StoreError, write::Link};

/// Rows that could be read, and how many could not.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows<T> {
    /// In the order that the call promises.
    pub rows: Vec<T>,
    /// Rows left out because a column made no sense. They are logged, and kept in the database.
    pub skipped: usize,
}

impl<T> Rows<T> {
    /// Reads each row, and says once how many of `table` were left out.
    pub(crate) fn read(table: &'static str, rows: &[SqliteRow], read: impl Fn(&SqliteRow) -> Option<T>) -> Self {
        let read: Vec<T> = rows.iter().filter_map(read).collect();
        let skipped = rows.len() - read.len();
        if skipped > 0 {
            warn!(table, skipped, "rows of the database make no sense and were left out");
        }
        Self { rows: read, skipped }
    }
}

/// A connection to read with.
pub(crate) enum Reader<'a> {
    /// One of several.
    Pooled(PoolConnection<Sqlite>),
    /// The one that writes as well.
    Shared(MappedMutexGuard<'a, Link>),
}

impl Deref for Reader<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        match self {
            Self::Pooled(connection) => connection,
            Self::Shared(writer) => writer.connection(),
        }
    }
}

impl DerefMut for Reader<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        match self {
            Self::Pooled(connection) => connection,
            Self::Shared(writer) => writer.connection_mut(),
        }
    }
}

impl Store {
    pub(crate) async fn reader(&self) -> Result<Reader<'_>, StoreError> {
        match &self.readers {
            Some(readers) => Ok(Reader::Pooled(readers.acquire().await?)),
            None => Ok(Reader::Shared(self.writer.lock().await?)),
        }
    }
}
