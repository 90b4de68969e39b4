//! The one writer of a database: a connection that holds the lock of its member, a transaction per batch.

use std::time::Duration;

use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{MappedMutexGuard, Mutex, MutexGuard},
    time::timeout,
};
use tracing::debug;

use super::connect;
use crate::{StoreError, error};

/// Says goodbye to a server that may be frozen.
const GOODBYE: Duration = Duration::from_millis(200);

/// The connection that writes, or how to get one.
pub(crate) struct Writer {
    state: Mutex<State>,
    patience: Duration,
}

struct State {
    /// None after `close`, and when there was no connection to be had.
    link: Option<Link>,
    options: PgConnectOptions,
    /// Whose database it has to be.
    own: String,
    is_closed: bool,
}

/// A connection, and what has to be known of it.
struct Link {
    connection: PgConnection,
    /// A transaction began and was not seen to end, or the connection failed.
    is_suspect: bool,
}

impl Writer {
    pub(super) fn new(connection: PgConnection, options: PgConnectOptions, own: String, patience: Duration) -> Self {
        let link = Some(Link { connection, is_suspect: false });
        Self { state: Mutex::new(State { link, options, own, is_closed: false }), patience }
    }

    /// Waits for the writer and begins a transaction. What it brings is synced before its end is told only when it is
    /// to be durable: a server that loses its power may lose the last of the rest.
    pub(super) async fn turn(&self, is_durable: bool) -> Result<Turn<'_>, StoreError> {
        let state = self.state.lock().await;
        match self.begin(state, is_durable).await {
            Begun::Ready(link) => Ok(Turn { link, patience: self.patience }),
            // The connection died while nobody looked, as after every restart of the server: once more with a new one.
            Begun::Stale(state) => match self.begin(state, is_durable).await {
                Begun::Ready(link) => Ok(Turn { link, patience: self.patience }),
                Begun::Stale(_) => Err(StoreError::Away { detail: "the connection is lost each time".to_owned() }),
                Begun::Failed(error) => Err(error),
            },
            Begun::Failed(error) => Err(error),
        }
    }

    async fn begin<'a>(&'a self, mut state: MutexGuard<'a, State>, is_durable: bool) -> Begun<'a> {
        let is_held = state.link.as_ref().is_some_and(|link| !link.is_suspect);
        if let Err(error) = state.recover(self.patience).await {
            return Begun::Failed(error);
        }
        let begin = if is_durable {
            "BEGIN; SET LOCAL synchronous_commit = on"
        } else {
            "BEGIN; SET LOCAL synchronous_commit = off"
        };
        let Some(link) = &mut state.link else { return Begun::Failed(StoreError::Closed) };
        link.is_suspect = true;
        let begun = error::in_time(self.patience, sqlx::raw_sql(begin).execute(&mut link.connection)).await;
        match begun {
            Ok(_) => match MutexGuard::try_map(state, |state| state.link.as_mut()) {
                Ok(link) => Begun::Ready(link),
                Err(_) => Begun::Failed(StoreError::Closed),
            },
            Err(StoreError::Away { detail }) if is_held => {
                debug!(detail, "the connection to the database is stale");
                Begun::Stale(state)
            }
            Err(error) => Begun::Failed(error),
        }
    }

    /// Whether the writer has its connection and its lock.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        self.turn(false).await?.end(Ok(())).await
    }

    pub(super) async fn close(&self) {
        let mut state = self.state.lock().await;
        state.is_closed = true;
        if let Some(link) = state.link.take() {
            close(link.connection).await;
        }
    }
}

enum Begun<'a> {
    Ready(MappedMutexGuard<'a, Link>),
    /// A connection that was thought to be sound is not.
    Stale(MutexGuard<'a, State>),
    Failed(StoreError),
}

impl State {
    /// Ends what a failed or dropped turn left open: with its connection, which is the only state that is known.
    async fn recover(&mut self, patience: Duration) -> Result<(), StoreError> {
        if self.is_closed {
            return Err(StoreError::Closed);
        }
        if self.link.as_ref().is_some_and(|link| !link.is_suspect) {
            return Ok(());
        }
        if let Some(link) = self.link.take() {
            close(link.connection).await;
        }
        let mut connection = error::in_time(patience, self.options.connect()).await?;
        // Somebody else may have taken the database meanwhile, or put another in its place.
        connect::retake(&mut connection, &self.own, patience).await?;
        self.link = Some(Link { connection, is_suspect: false });
        Ok(())
    }
}

async fn close(connection: PgConnection) {
    // What failed to close was not going to be used again; dropped, it is closed without words.
    match timeout(GOODBYE, connection.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "closing the database"),
        Err(_) => debug!("the database did not say goodbye"),
    }
}

/// A transaction under way. Dropped without its end, it is undone.
pub(crate) struct Turn<'a> {
    link: MappedMutexGuard<'a, Link>,
    patience: Duration,
}

impl Turn<'_> {
    pub(crate) fn connection(&mut self) -> (&mut PgConnection, Duration) {
        (&mut self.link.connection, self.patience)
    }

    /// Commits, or undoes what a failed `outcome` began. When the server goes away in the middle of it, nobody knows
    /// which it was: whoever asks again has to ask for the same.
    pub(crate) async fn end<T>(mut self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        let committed = match outcome {
            Ok(value) => {
                let done = error::in_time(self.patience, sqlx::raw_sql("COMMIT").execute(&mut self.link.connection));
                done.await.map(|_| value)
            }
            Err(error) => Err(error),
        };
        let is_over = match &committed {
            Ok(_) => true,
            // Nothing can be said to a server that is not there.
            Err(StoreError::Away { .. }) => false,
            Err(_) => {
                let rollback = sqlx::raw_sql("ROLLBACK").execute(&mut self.link.connection);
                error::in_time(self.patience, rollback).await.is_ok()
            }
        };
        self.link.is_suspect = !is_over;
        committed
    }
}
