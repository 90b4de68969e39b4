//! What a database is asked for, whichever it is: a turn to write in, a connection to read with.

use crate::{StoreError, postgres, session::Session, sqlite};

/// One database: the only one that writes is ourselves.
pub(crate) trait Repository {
    /// Waits for the writer and begins a transaction. A durable one is on the disk when it ended; another may be lost
    /// with the machine's power, never with the process.
    fn turn(&self, is_durable: bool) -> impl Future<Output = Result<Turn<'_>, StoreError>> + Send;

    /// A connection that reads what was committed.
    fn reader(&self) -> impl Future<Output = Result<Reader<'_>, StoreError>> + Send;

    /// Whether it answers, and may still be written.
    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Closes every connection after the calls under way. Later calls fail.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// The database of a store.
#[derive(Debug)]
pub(crate) enum Database {
    Sqlite(Box<sqlite::Sqlite>),
    Postgres(Box<postgres::Postgres>),
}

impl Repository for Database {
    async fn turn(&self, is_durable: bool) -> Result<Turn<'_>, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.turn(is_durable).await,
            Self::Postgres(postgres) => postgres.turn(is_durable).await,
        }
    }

    async fn reader(&self) -> Result<Reader<'_>, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.reader().await,
            Self::Postgres(postgres) => postgres.reader().await,
        }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.ping().await,
            Self::Postgres(postgres) => postgres.ping().await,
        }
    }

    async fn close(&self) {
        match self {
            Self::Sqlite(sqlite) => sqlite.close().await,
            Self::Postgres(postgres) => postgres.close().await,
        }
    }
}

#[cfg(test)]
impl crate::Store {
    /// The file's side of it.
    pub(crate) fn sqlite(&self) -> &sqlite::Sqlite {
        match &self.database {
            Database::Sqlite(sqlite) => sqlite,
            Database::Postgres(_) => panic!("got a server, expected a file"),
        }
    }
}

/// A transaction under way. Dropped without its end, it is undone.
pub(crate) enum Turn<'a> {
    Sqlite(sqlite::Turn<'a>),
    Postgres(postgres::Turn<'a>),
}

impl Turn<'_> {
    pub(crate) fn session(&mut self) -> Session<'_> {
        match self {
            Self::Sqlite(turn) => Session::Sqlite(turn.connection()),
            Self::Postgres(turn) => {
                let (connection, patience) = turn.connection();
                Session::Postgres { connection, patience }
            }
        }
    }

    /// Commits, or undoes what a failed `outcome` began.
    pub(crate) async fn end<T: Send>(self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        match self {
            Self::Sqlite(turn) => turn.end(outcome).await,
            Self::Postgres(turn) => turn.end(outcome).await,
        }
    }
}

/// A connection to read with.
pub(crate) enum Reader<'a> {
    Sqlite(sqlite::Reader<'a>),
    Postgres(postgres::Reader),
}

impl Reader<'_> {
    pub(crate) fn session(&mut self) -> Session<'_> {
        match self {
            Self::Sqlite(reader) => reader.session(),
            Self::Postgres(reader) => reader.session(),
        }
    }
}
