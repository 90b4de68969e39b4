//! The one writer of a file: a connection behind a lock, a transaction per batch, and what a failure leaves of it.

use std::sync::OnceLock;

use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use tracing::debug;

use crate::{StoreError, error};

/// The connection that writes, and whether it may go on.
#[derive(Debug)]
pub(crate) struct Writer {
    state: Mutex<State>,
    /// The first failure of the disk. What was lost then is not known, so no later write may succeed.
    dead: OnceLock<String>,
}

#[derive(Debug)]
struct State {
    /// None after `close`, and for the moment of a reconnect.
    link: Option<Link>,
    /// How to connect anew; none in memory, where a new connection is an empty database.
    options: Option<SqliteConnectOptions>,
    is_closed: bool,
}

/// A connection, and what has to be known of it.
#[derive(Debug)]
pub(crate) struct Link {
    connection: SqliteConnection,
    /// What `synchronous` was set to: full for a promise, normal otherwise.
    is_durable: Option<bool>,
    /// A transaction began and was not seen to end: its caller failed, or was dropped.
    is_suspect: bool,
}

impl Writer {
    pub(crate) fn new(connection: SqliteConnection, options: Option<SqliteConnectOptions>) -> Self {
        let state = State { link: Some(Link::new(connection)), options, is_closed: false };
        Self { state: Mutex::new(state), dead: OnceLock::new() }
    }

    pub(crate) fn check_alive(&self) -> Result<(), StoreError> {
        match self.dead.get() {
            Some(detail) => Err(StoreError::Io { detail: detail.clone() }),
            None => Ok(()),
        }
    }

    /// Waits for the writer and begins a transaction that holds the write lock from its start: one that begins as a
    /// reader and writes later fails whenever another wrote in between.
    pub(crate) async fn turn(&self, is_durable: bool) -> Result<Turn<'_>, StoreError> {
        let mut link = self.lock().await?;
        let begun = link.begin(is_durable).await;
        begun.map_err(|error| self.noted(error::of_sqlite(error)))?;
        Ok(Turn { writer: self, link })
    }

    /// The connection, with no transaction under way.
    pub(crate) async fn lock(&self) -> Result<MappedMutexGuard<'_, Link>, StoreError> {
        let mut state = self.state.lock().await;
        // Asked with the lock held: whoever held it before may have met a failing disk.
        self.check_alive()?;
        let recovered = state.recover().await;
        recovered.map_err(|error| self.noted(error))?;
        MutexGuard::try_map(state, |state| state.link.as_mut()).map_err(|_| StoreError::Closed)
    }

    pub(crate) async fn close(&self) {
        let mut state = self.state.lock().await;
        state.is_closed = true;
        if let Some(link) = state.link.take() {
            close(link.connection).await;
        }
    }

    /// Remembers a failure of the disk.
    fn noted(&self, error: StoreError) -> StoreError {
        if let StoreError::Io { detail } = &error {
            self.dead.get_or_init(|| detail.clone());
        }
        error
    }
}

impl State {
    /// Ends what a failed or dropped turn left open. SQLite ends some failed transactions by itself and leaves others,
    /// so a new connection is the only state that is known; memory has but the one, and rolls back.
    async fn recover(&mut self) -> Result<(), StoreError> {
        if self.is_closed {
            return Err(StoreError::Closed);
        }
        if self.link.as_ref().is_some_and(|link| !link.is_suspect) {
            return Ok(());
        }
        if let Some(options) = &self.options {
            if let Some(link) = self.link.take() {
                close(link.connection).await;
            }
            self.link = Some(Link::new(options.connect().await.map_err(error::of_sqlite)?));
        } else if let Some(link) = &mut self.link {
            link.roll_back().await;
            link.is_suspect = false;
        }
        Ok(())
    }
}

impl Link {
    const fn new(connection: SqliteConnection) -> Self {
        Self { connection, is_durable: None, is_suspect: false }
    }

    pub(crate) const fn connection_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    async fn begin(&mut self, is_durable: bool) -> Result<(), sqlx::Error> {
        self.is_suspect = true;
        if self.is_durable != Some(is_durable) {
            // It can be changed between transactions only.
            let pragma = if is_durable { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            sqlx::query(pragma).execute(&mut self.connection).await?;
            self.is_durable = Some(is_durable);
        }
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        Ok(())
    }

    async fn roll_back(&mut self) {
        // It fails where SQLite ended the transaction by itself, which is what was wanted.
        let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
    }
}

async fn close(connection: SqliteConnection) {
    // What failed to close was not going to be used again.
    if let Err(error) = connection.close().await {
        debug!(%error, "closing the database");
    }
}

/// A transaction under way. Dropped without its end, it is undone.
pub(crate) struct Turn<'a> {
    writer: &'a Writer,
    link: MappedMutexGuard<'a, Link>,
}

impl Turn<'_> {
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.link.connection
    }

    /// Commits, or undoes what a failed `outcome` began.
    pub(crate) async fn end<T>(mut self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        let committed = match outcome {
            Ok(value) => {
                let done = sqlx::query("COMMIT").execute(&mut self.link.connection).await;
                done.map(|_| value).map_err(error::of_sqlite)
            }
            Err(error) => Err(error),
        };
        match committed {
            Ok(value) => {
                self.link.is_suspect = false;
                Ok(value)
            }
            Err(error) => {
                // At once, so that no reader's file grows and no lock is held until the next turn.
                self.link.roll_back().await;
                Err(self.writer.noted(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tempfile::TempDir;

    use super::*;
    use crate::{
        Settings, Store, Write, peers,
        session::Session,
        testing::{at, peer_row},
    };

    async fn on_disk(temp: &TempDir) -> Store {
        Store::open(&temp.path().join("muster.db"), &Settings::default(), at(0)).await.unwrap().store
    }

    #[tokio::test]
    async fn a_full_disk_fails_the_batch_and_not_the_next() {
        let temp = TempDir::new().unwrap();
        let store = on_disk(&temp).await;
        let mut link = store.sqlite().writer.lock().await.unwrap();
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(link.connection_mut()).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}")))
            .execute(link.connection_mut())
            .await
            .unwrap();
        drop(link);
        let writes: Vec<Write> = (0..1_000).map(|n| Write::Peer(peer_row(n))).collect();
        let error = store.apply(&writes).await.unwrap_err();
        assert!(matches!(error, StoreError::DiskFull) && error.is_transient(), "{error:?}");
        assert_eq!(store.peers(10).await.unwrap().rows, [], "nothing of a failed batch is written");
        assert_eq!(store.apply(&writes).await.unwrap().written, 1_000);
    }

    #[tokio::test]
    async fn a_locked_database_is_busy_and_then_is_not() {
        let temp = TempDir::new().unwrap();
        let path = temp.path().join("muster.db");
        let settings = Settings { busy_timeout: std::time::Duration::from_millis(200), ..Settings::default() };
        let store = Store::open(&path, &settings, at(0)).await.unwrap().store;
        let mut other = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        let error = store.apply(&[Write::Peer(peer_row(1))]).await.unwrap_err();
        assert!(matches!(error, StoreError::Busy) && error.is_transient(), "{error:?}");
        assert_eq!(store.peers(1).await.unwrap().rows, [], "readers do not wait for a writer");
        sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
        assert_eq!(store.apply(&[Write::Peer(peer_row(1))]).await.unwrap().written, 1);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_leaves_no_transaction_behind() {
        let temp = TempDir::new().unwrap();
        for store in [Store::in_memory(&Settings::default()).await.unwrap(), on_disk(&temp).await] {
            store.apply(&[Write::Peer(peer_row(1))]).await.unwrap();
            let mut turn = store.sqlite().writer.turn(false).await.unwrap();
            peers::write(&mut Session::Sqlite(turn.connection()), &peer_row(2)).await.unwrap().unwrap();
            drop(turn);
            assert_eq!(store.apply(&[Write::Peer(peer_row(3))]).await.unwrap().written, 1);
            assert_eq!(store.peers(10).await.unwrap().rows, [peer_row(3), peer_row(1)]);
        }
    }

    #[tokio::test]
    async fn after_the_disk_failed_nothing_is_written_again() {
        let store = Store::in_memory(&Settings::default()).await.unwrap();
        let turn = store.sqlite().writer.turn(true).await.unwrap();
        let failed: Result<(), _> = Err(error::of_sqlite(sqlx::Error::Io(std::io::Error::other("fsync failed"))));
        assert!(turn.end(failed).await.unwrap_err().is_io());
        for error in [
            store.apply(&[Write::Peer(peer_row(1))]).await.unwrap_err(),
            store.next_seq("did", at(0)).await.unwrap_err(),
            store.ping().await.unwrap_err(),
        ] {
            assert!(error.is_io() && error.to_string().contains("fsync failed"), "{error}");
        }
    }
}
