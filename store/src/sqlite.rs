//! SQLite: one file, one writer, a few readers.

mod copy;
mod open;
mod writer;

use sqlx::{Sqlite as Driver, SqlitePool, pool::PoolConnection};
use tokio::sync::MappedMutexGuard;

pub(crate) use self::writer::Turn;
use self::writer::{Link, Writer};
pub use self::{
    copy::{Copied, copy_database},
    open::{Examined, Opened, SetAside},
};
use crate::{
    StoreError, error,
    repository::{self, Repository},
    session::{Session, values},
};

/// A file, or a database in memory.
#[derive(Debug)]
pub(crate) struct Sqlite {
    pub(crate) writer: Writer,
    /// None in memory, where the one connection is the database.
    readers: Option<SqlitePool>,
}

/// A connection to read with.
#[derive(Debug)]
pub(crate) enum Reader<'a> {
    /// One of several.
    Pooled(PoolConnection<Driver>),
    /// The one that writes as well.
    Shared(MappedMutexGuard<'a, Link>),
}

impl Reader<'_> {
    pub(crate) fn session(&mut self) -> Session<'_> {
        Session::Sqlite(match self {
            Self::Pooled(connection) => connection,
            Self::Shared(writer) => writer.connection_mut(),
        })
    }
}

impl Repository for Sqlite {
    async fn turn(&self, is_durable: bool) -> Result<repository::Turn<'_>, StoreError> {
        self.writer.turn(is_durable).await.map(repository::Turn::Sqlite)
    }

    async fn reader(&self) -> Result<repository::Reader<'_>, StoreError> {
        Ok(repository::Reader::Sqlite(match &self.readers {
            Some(readers) => Reader::Pooled(readers.acquire().await.map_err(error::of_sqlite)?),
            None => Reader::Shared(self.writer.lock().await?),
        }))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.writer.check_alive()?;
        self.reader().await?.session().fetch("SELECT count(*) AS n FROM seqs", values![]).await?;
        Ok(())
    }

    async fn close(&self) {
        // Readers first: the last connection to close tidies up, and only the writer may.
        if let Some(readers) = &self.readers {
            readers.close().await;
        }
        self.writer.close().await;
    }
}
