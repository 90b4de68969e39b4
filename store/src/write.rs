//! The one writer: a connection behind a lock, a transaction per batch, and what a failure leaves of it.

use std::{collections::BTreeSet, sync::OnceLock};

use multiaddr::Multiaddr;
use protocol::{PeerId, Timestamp, bans::Ban, behaviour::Scope};
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use tracing::debug;

use crate::{
    AddressRow, MemberRow, PeerRow, Settings, StoreError, bans, bindings,
    bindings::Bound,
    orders, peers, pool,
    seqs::{self, SEQ_MAX, SEQS_MAX},
};

/// Most writes in one batch: about half a second of the writer, so that nobody waits longer for it.
pub const WRITES_MAX: usize = 4_096;

/// One thing to write down. Every write sets, none adds: writing it twice is writing it once.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// What is known of a peer. The addresses given are set, others that it has are kept.
    Peer(PeerRow),
    /// How one address fared. An unknown peer becomes one that was only heard of.
    Address {
        /// Whose.
        peer: PeerId,
        /// The address and its figures.
        address: AddressRow,
    },
    /// Removes a peer and its addresses.
    ForgetPeer(PeerId),
    /// A pool member as it stands.
    Member(MemberRow),
    /// Removes a pool member from memory.
    ForgetMember(PeerId),
    /// Raises the sequence of one of our own DIDs; a lower one changes nothing. A promise.
    RaiseSeq {
        /// Our own DID.
        did: String,
        /// At most [`SEQ_MAX`].
        seq: u64,
    },
    /// Binds a DID to the first key seen for it, or says that it was seen again. A promise.
    /// The time is kept to the day, so that saying it often costs nothing.
    Bind {
        /// A DID that does not name its key.
        did: String,
        /// Base64 of the key.
        pub_key: String,
        /// When.
        at: Timestamp,
    },
    /// A ban as it stands. A promise.
    Ban(Ban),
    /// Takes every ban of a peer back, those that are over included. A promise.
    LiftBan(PeerId),
    /// Gives one ban up. A promise, as all that is said of bans.
    ForgetBan {
        /// Whose.
        peer: PeerId,
        /// Which.
        scope: Scope,
    },
    /// The order to drain, given or taken back. A promise.
    Drain(Option<Timestamp>),
}

impl Write {
    /// Whether it has to be on the disk before its writer is answered.
    const fn is_promise(&self) -> bool {
        match self {
            Self::Peer(_) | Self::Address { .. } | Self::ForgetPeer(_) | Self::Member(_) | Self::ForgetMember(_) => {
                false
            }
            Self::RaiseSeq { .. }
            | Self::Bind { .. }
            | Self::Ban(_)
            | Self::LiftBan(_)
            | Self::ForgetBan { .. }
            | Self::Drain(_) => true,
        }
    }
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Writes that are in the database now.
    pub written: usize,
    /// Peers and members that left to keep within the settings' bounds.
    pub evicted: u64,
    /// Writes that were left out.
    pub refused: Vec<RefusedWrite>,
}

/// A write that was left out of its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedWrite {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// Why.
    pub why: Refusal,
}

/// Why a write was left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A text is empty that may not be, or over its bound.
    #[error("got {bytes} bytes of {field}, expected at most {max} and not none")]
    BadLength {
        /// Which text.
        field: &'static str,
        /// Its bytes.
        bytes: usize,
        /// Its bound.
        max: usize,
    },
    /// A promise would have to be forgotten to make room for this one.
    #[error("{table} is full at {max}")]
    Full {
        /// Which table.
        table: &'static str,
        /// Its bound.
        max: u32,
    },
    /// The DID is bound to another key: an identity violation.
    #[error("the DID is bound to another key ({held})")]
    OtherKey {
        /// The key that was first, base64.
        held: String,
    },
    /// The wire cannot carry it.
    #[error("sequence {got} is over {SEQ_MAX}")]
    SeqTooLarge {
        /// The sequence.
        got: u64,
    },
}

/// Whether a text has 1 to `max` bytes.
pub(crate) const fn check_length(field: &'static str, text: &str, max: usize) -> Result<(), Refusal> {
    let bytes = text.len();
    if bytes == 0 || bytes > max { Err(Refusal::BadLength { field, bytes, max }) } else { Ok(()) }
}

/// Whether a text that may be empty has at most `max` bytes.
pub(crate) const fn check_length_max(field: &'static str, text: &str, max: usize) -> Result<(), Refusal> {
    let bytes = text.len();
    if bytes > max { Err(Refusal::BadLength { field, bytes, max }) } else { Ok(()) }
}

/// The addresses as text, if all are short enough.
pub(crate) fn check_address(address: &Multiaddr) -> Result<String, Refusal> {
    let text = address.to_string();
    check_length("address", &text, peers::ADDRESS_BYTES_MAX)?;
    Ok(text)
}

pub(crate) async fn apply(writer: &Writer, writes: &[Write], settings: &Settings) -> Result<Applied, StoreError> {
    if writes.len() > WRITES_MAX {
        return Err(StoreError::TooMany { got: writes.len(), max: WRITES_MAX });
    }
    if writes.is_empty() {
        return Ok(Applied::default());
    }
    let mut turn = writer.turn(writes.iter().any(Write::is_promise)).await?;
    let outcome = apply_all(turn.connection(), writes, settings).await;
    turn.end(outcome).await
}

async fn apply_all(
    connection: &mut SqliteConnection,
    writes: &[Write],
    settings: &Settings,
) -> Result<Applied, sqlx::Error> {
    let mut applied = Applied::default();
    for (index, write) in writes.iter().enumerate() {
        match apply_one(connection, write, settings).await? {
            Ok(()) => applied.written += 1,
            Err(why) => applied.refused.push(RefusedWrite { index, why }),
        }
    }
    // Bounds last and once: a batch may pass them for as long as its transaction lasts.
    let has_addresses = |write: &Write| match write {
        Write::Peer(row) if !row.addresses.is_empty() => Some(row.peer),
        Write::Address { peer, .. } => Some(*peer),
        _ => None,
    };
    for peer in writes.iter().filter_map(has_addresses).collect::<BTreeSet<_>>() {
        peers::prune_addresses(connection, &peer).await?;
    }
    if writes.iter().any(|write| matches!(write, Write::Peer(_) | Write::Address { .. })) {
        applied.evicted += peers::prune(connection, settings.peers_max).await?;
    }
    if writes.iter().any(|write| matches!(write, Write::Member(_))) {
        applied.evicted += pool::prune(connection, settings.members_max).await?;
    }
    Ok(applied)
}

async fn apply_one(
    connection: &mut SqliteConnection,
    write: &Write,
    settings: &Settings,
) -> Result<Result<(), Refusal>, sqlx::Error> {
    match write {
        Write::Peer(row) => peers::write(connection, row).await,
        Write::Address { peer, address } => peers::write_heard(connection, peer, address).await,
        Write::ForgetPeer(peer) => peers::forget(connection, peer).await.map(Ok),
        Write::Member(row) => pool::write(connection, row).await,
        Write::ForgetMember(peer) => pool::forget(connection, peer).await.map(Ok),
        Write::RaiseSeq { did, seq } => raise(connection, did, *seq).await,
        Write::Bind { did, pub_key, at } => bind(connection, did, pub_key, *at, settings.bindings_max).await,
        Write::Ban(ban) => bans::write(connection, ban).await,
        Write::LiftBan(peer) => bans::lift(connection, peer).await.map(Ok),
        Write::ForgetBan { peer, scope } => bans::forget(connection, peer, *scope).await.map(Ok),
        Write::Drain(since) => orders::write_drain(connection, *since).await.map(Ok),
    }
}

async fn raise(connection: &mut SqliteConnection, did: &str, seq: u64) -> Result<Result<(), Refusal>, sqlx::Error> {
    if let Err(refusal) = check_length("did", did, peers::TEXT_BYTES_MAX) {
        return Ok(Err(refusal));
    }
    if seq > SEQ_MAX {
        return Ok(Err(Refusal::SeqTooLarge { got: seq }));
    }
    let held = seqs::raise(connection, did, seq).await?;
    Ok(held.map(|_| ()).ok_or(Refusal::Full { table: "seqs", max: SEQS_MAX }))
}

async fn bind(
    connection: &mut SqliteConnection,
    did: &str,
    pub_key: &str,
    at: Timestamp,
    max: u32,
) -> Result<Result<(), Refusal>, sqlx::Error> {
    let lengths = check_length("did", did, peers::TEXT_BYTES_MAX)
        .and_then(|()| check_length("pub_key", pub_key, peers::TEXT_BYTES_MAX));
    if let Err(refusal) = lengths {
        return Ok(Err(refusal));
    }
    Ok(match bindings::bind(connection, did, pub_key, at, max).await? {
        Bound::ToThis => Ok(()),
        Bound::ToOther(held) => Err(Refusal::OtherKey { held }),
        Bound::NoRoom => Err(Refusal::Full { table: "bindings", max }),
    })
}

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
        begun.map_err(|error| self.noted(error.into()))?;
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
            self.link = Some(Link::new(options.connect().await?));
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

    pub(crate) const fn connection(&self) -> &SqliteConnection {
        &self.connection
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
    pub(crate) async fn end<T>(mut self, outcome: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        let committed = match outcome {
            Ok(value) => sqlx::query("COMMIT").execute(&mut self.link.connection).await.map(|_| value),
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
                Err(self.writer.noted(error.into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use tempfile::TempDir;

    use super::*;
    use crate::{
        Store,
        testing::{at, peer, peer_row},
    };

    async fn on_disk(temp: &TempDir) -> Store {
        Store::open(&temp.path().join("muster.db"), &Settings::default(), at(0)).await.unwrap().store
    }

    #[tokio::test]
    async fn a_batch_has_a_bound() {
        let store = Store::in_memory(&Settings::default()).await.unwrap();
        assert_eq!(store.apply(&[]).await.unwrap(), Applied::default());
        let full = vec![Write::ForgetPeer(peer(1)); WRITES_MAX];
        assert_eq!(store.apply(&full).await.unwrap().written, WRITES_MAX);
        let over = vec![Write::ForgetPeer(peer(1)); WRITES_MAX + 1];
        assert!(
            matches!(store.apply(&over).await.unwrap_err(), StoreError::TooMany { got, .. } if got == WRITES_MAX + 1)
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn readers_see_whole_batches_while_the_writer_writes() {
        let temp = TempDir::new().unwrap();
        let store = Arc::new(on_disk(&temp).await);
        let is_done = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (store, is_done) = (Arc::clone(&store), Arc::clone(&is_done));
                tokio::spawn(async move {
                    let mut reads = 0;
                    while !is_done.load(Ordering::Relaxed) || reads == 0 {
                        let count = store.peers(1_000).await.unwrap().rows.len();
                        assert!(count.is_multiple_of(10), "half a batch: {count}");
                        store.ping().await.unwrap();
                        reads += 1;
                    }
                })
            })
            .collect();
        for batch in 0..40 {
            let writes: Vec<Write> = (0..10).map(|n| Write::Peer(peer_row(batch * 10 + n))).collect();
            store.apply(&writes).await.unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.await.unwrap();
        }
        assert_eq!(store.peers(1_000).await.unwrap().rows.len(), 400);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn writers_at_the_same_time_all_succeed() {
        let temp = TempDir::new().unwrap();
        let store = Arc::new(on_disk(&temp).await);
        let writers: Vec<_> = (0..8)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    for _ in 0..25 {
                        store.next_seq("did", at(0)).await.unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        // 0 is the first of the 200.
        assert_eq!(store.seq("did").await.unwrap(), Some(199));
    }

    #[tokio::test]
    async fn a_full_disk_fails_the_batch_and_not_the_next() {
        let temp = TempDir::new().unwrap();
        let store = on_disk(&temp).await;
        let mut link = store.writer.lock().await.unwrap();
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
        let settings = Settings { busy_timeout: std::time::Duration::from_millis(10), ..Settings::default() };
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
            let mut turn = store.writer.turn(false).await.unwrap();
            peers::write(turn.connection(), &peer_row(2)).await.unwrap().unwrap();
            drop(turn);
            assert_eq!(store.apply(&[Write::Peer(peer_row(3))]).await.unwrap().written, 1);
            assert_eq!(store.peers(10).await.unwrap().rows, [peer_row(3), peer_row(1)]);
        }
    }

    #[tokio::test]
    async fn after_the_disk_failed_nothing_is_written_again() {
        let store = Store::in_memory(&Settings::default()).await.unwrap();
        let turn = store.writer.turn(true).await.unwrap();
        let failed: Result<(), _> = Err(sqlx::Error::Io(std::io::Error::other("fsync failed")));
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
