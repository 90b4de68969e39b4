//! PostgreSQL: one connection that writes and holds the lock of its member, a few that read.
//!
//! The server may be away, frozen or locked for a while: every call ends within its time, as transient, and the next one
//! begins with a connection of its own if it has to.

mod connect;
#[cfg(test)]
mod tests;
mod writer;

use std::{fmt, time::Duration};

use sqlx::{PgPool, Postgres as Driver, pool::PoolConnection};

pub(crate) use self::writer::Turn;
use self::writer::Writer;
use crate::{
    StoreError, error,
    repository::{self, Repository},
    session::{Session, values},
};

/// The server ends what takes longer than `busy_timeout`. One that says nothing for this much longer is away.
const GRACE: Duration = Duration::from_secs(1);

/// A database of a server.
pub(crate) struct Postgres {
    /// Where, without the password.
    place: String,
    writer: Writer,
    readers: PgPool,
    /// How long one question may take until the server is away.
    patience: Duration,
}

impl fmt::Debug for Postgres {
    /// Options of connections show their password.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Postgres").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A connection to read with.
pub(crate) struct Reader {
    connection: PoolConnection<Driver>,
    patience: Duration,
}

impl Reader {
    pub(crate) fn session(&mut self) -> Session<'_> {
        Session::Postgres { connection: &mut self.connection, patience: self.patience }
    }
}

impl Repository for Postgres {
    async fn turn(&self, is_durable: bool) -> Result<repository::Turn<'_>, StoreError> {
        self.writer.turn(is_durable).await.map(repository::Turn::Postgres)
    }

    async fn reader(&self) -> Result<repository::Reader<'_>, StoreError> {
        let connection = error::in_time(self.patience, self.readers.acquire()).await?;
        Ok(repository::Reader::Postgres(Reader { connection, patience: self.patience }))
    }

    /// Asks the writer as well: it may be the only one that lost its server, or its lock.
    async fn ping(&self) -> Result<(), StoreError> {
        self.reader().await?.session().fetch("SELECT count(*) AS n FROM seqs", values![]).await?;
        self.writer.check().await
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
