//! What muster keeps: the only SQL of the house.
//!
//! One writer takes batches, a few readers look on. Everything written here is either a *memory* (peers, addresses,
//! pool members: bounded, the oldest leaves first) or a *promise* (sequences, bindings, bans, orders: bounded, a newcomer
//! is refused rather than a held one forgotten, and synced to disk before the call returns).
//!
//! No call retries. [`StoreError::is_transient`] tells which failure may be tried again with the same writes.

mod bans;
mod bindings;
mod error;
mod open;
mod orders;
mod peers;
mod pool;
mod read;
mod seqs;
#[cfg(test)]
mod testing;
mod write;

use std::time::Duration;

use protocol::{PeerId, Timestamp, bans::Ban};
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;

pub use self::{
    bans::BANS_KEPT_MAX,
    bindings::Binding,
    error::{OpenError, StoreError},
    open::{Opened, SetAside},
    peers::{ADDRESS_BYTES_MAX, ADDRESSES_PER_PEER_MAX, AddressRow, PeerRow, TEXT_BYTES_MAX},
    pool::{EVIDENCE_BYTES_MAX, MEMBER_ADDRESSES_MAX, MemberRow},
    read::Rows,
    seqs::{SEQ_MAX, SEQS_MAX},
    write::{Applied, Refusal, RefusedWrite, WRITES_MAX, Write},
};

/// How much is kept, and how long a call may wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Peers kept, 1 to 1,000,000. Past it the one seen longest ago leaves, with its addresses.
    pub peers_max: u32,
    /// Pool members remembered, 1 to 1,000. Past it the one that answered longest ago leaves, seeds last.
    pub members_max: u32,
    /// DIDs with a remembered key, 1 to 1,000,000. Past it a new one is refused until stale ones were forgotten.
    pub bindings_max: u32,
    /// Connections that read at the same time, 1 to 64. Each is a thread.
    pub readers: u32,
    /// Longest wait for a lock of the database, 1 ms to 1 min. Then the call fails as busy.
    #[serde(with = "protocol::time::text")]
    pub busy_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // About 20 MB with eight addresses each: a federation of this size still fits the smallest machine.
            peers_max: 10_000,
            // Six times the largest pool, so that a month's acquaintances outlive a bad day.
            members_max: 64,
            bindings_max: 10_000,
            // The admin page, the actors and one to spare.
            readers: 3,
            busy_timeout: Duration::from_secs(5),
        }
    }
}

/// The database, open. All methods may be called at the same time.
///
/// The caller holds the folder's lock: two processes on one database are not this crate's to prevent.
#[derive(Debug)]
pub struct Store {
    writer: write::Writer,
    /// None in memory, where the one connection is the database.
    readers: Option<SqlitePool>,
    settings: Settings,
}

impl Store {
    /// Writes the whole batch in one transaction, in its order.
    ///
    /// Writes over a limit are left out and named in the answer; the others are written. A batch with a promise in it
    /// is on the disk when this returns; one of memories only may be lost with the machine's power, never with the process.
    ///
    /// # Errors
    /// Nothing of the batch is written then. See [`StoreError`]; after [`StoreError::Io`] every later write fails as well.
    pub async fn apply(&self, writes: &[Write]) -> Result<Applied, StoreError> {
        write::apply(&self.writer, writes, &self.settings).await
    }

    /// The next sequence to sign with for `did`: the stored one plus one or unix milliseconds, whichever is greater,
    /// on the disk before it is returned.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::SeqsFull`] for a new DID past [`SEQS_MAX`], [`StoreError::SeqSpent`] past [`SEQ_MAX`].
    pub async fn next_seq(&self, did: &str, now: Timestamp) -> Result<u64, StoreError> {
        seqs::next(&self.writer, did, now).await
    }

    /// Raises the stored sequence of `did` to at least `seq`, on the disk, and tells the stored one.
    ///
    /// # Errors
    /// Those of [`Store::next_seq`].
    pub async fn raise_seq(&self, did: &str, seq: u64) -> Result<u64, StoreError> {
        seqs::raise_to(&self.writer, did, seq).await
    }

    /// The stored sequence of `did`, if it ever had one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn seq(&self, did: &str) -> Result<Option<u64>, StoreError> {
        Ok(seqs::read(&mut *self.reader().await?, did).await?)
    }

    /// The key that `did` is bound to, base64, if it is bound.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn binding(&self, did: &str) -> Result<Option<String>, StoreError> {
        Ok(bindings::read(&mut *self.reader().await?, did).await?)
    }

    /// Every binding, at most `bindings_max`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn bindings(&self) -> Result<Rows<Binding>, StoreError> {
        Ok(bindings::read_all(&mut *self.reader().await?, self.settings.bindings_max).await?)
    }

    /// The remembered pool, best standing first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remembered_members(&self) -> Result<Rows<MemberRow>, StoreError> {
        Ok(pool::read_all(&mut *self.reader().await?, self.settings.members_max).await?)
    }

    /// At most `limit` known peers with their addresses, the last seen first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn peers(&self, limit: u32) -> Result<Rows<PeerRow>, StoreError> {
        let limit = limit.min(self.settings.peers_max);
        Ok(peers::read_all(&mut *self.reader().await?, limit).await?)
    }

    /// One known peer with its addresses.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn peer(&self, peer: &PeerId) -> Result<Option<PeerRow>, StoreError> {
        Ok(peers::read_one(&mut *self.reader().await?, peer).await?)
    }

    /// Forgets at most `at_most` peers not seen since `before`, the oldest first, and tells how many.
    /// Peers that were only heard of count as never seen.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_stale(&self, before: Timestamp, at_most: u32) -> Result<u64, StoreError> {
        peers::forget_stale(&self.writer, before, at_most).await
    }

    /// Forgets at most `at_most` bindings not seen since `before`, the oldest first, and tells how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_stale_bindings(&self, before: Timestamp, at_most: u32) -> Result<u64, StoreError> {
        bindings::forget_stale(&self.writer, before, at_most).await
    }

    /// Every ban, in force or over for less than a day, by peer; at most [`BANS_KEPT_MAX`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn bans(&self) -> Result<Rows<Ban>, StoreError> {
        Ok(bans::read_all(&mut *self.reader().await?).await?)
    }

    /// Forgets at most `at_most` bans that ended before `before`, the oldest first, and tells how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_ended_bans(&self, before: Timestamp, at_most: u32) -> Result<u64, StoreError> {
        bans::forget_ended(&self.writer, before, at_most).await
    }

    /// Since when the order to drain is in force, if it is.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn drained_since(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(orders::read_drain(&mut *self.reader().await?).await?)
    }

    /// Whether the database answers: one row is read, and no write has failed for good.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.writer.check_alive()?;
        sqlx::query("SELECT count(*) FROM seqs").fetch_one(&mut *self.reader().await?).await?;
        Ok(())
    }

    /// Closes every connection after the calls under way, and folds the log into the file.
    /// Later calls fail.
    pub async fn close(&self) {
        // Readers first: the last connection to close tidies up, and only the writer may.
        if let Some(readers) = &self.readers {
            readers.close().await;
        }
        self.writer.close().await;
    }
}
