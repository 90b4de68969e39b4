//! What muster keeps: the only SQL of the house.
//!
//! One writer takes batches, a few readers look on. Everything written here is either a *memory* (peers, addresses,
//! pool members, the running day: bounded, the oldest leaves first) or a *promise* (sequences, bindings, bans, revocations,
//! orders, relations, the catalogue, what waits in the outbox: bounded, a newcomer is refused rather than a held one
//! forgotten, and synced to disk before the call returns).
//!
//! The database is a file of SQLite, or PostgreSQL by URL. `repository` is what both are asked for, `session` how; a file
//! per topic has the SQL, one text for both where they understand the same.
//!
//! No call retries. [`StoreError::is_transient`] tells which failure may be tried again with the same writes.

mod bans;
mod bindings;
mod changes;
mod days;
mod error;
mod orders;
mod outbox;
mod peers;
mod plans;
mod pool;
mod postgres;
mod read;
mod relations;
mod repository;
mod resources;
mod revocations;
mod seqs;
mod session;
mod sqlite;
#[cfg(test)]
mod testing;
mod write;

use std::{fmt, ops::Deref, time::Duration};

use protocol::{PeerId, Timestamp, bans::Ban, catalogue::ResourceQuery, revocations::Held};
use serde::{Deserialize, Serialize};

pub use self::{
    bans::BANS_KEPT_MAX,
    bindings::Binding,
    changes::{
        CHANGES_MAX, CatalogueChange, Change, Changed, RECEIPT_ID_BYTES_MAX, RECEIPTS_MAX, Receipt, SOURCE_BYTES_MAX,
    },
    days::DAY_BYTES_MAX,
    error::{OpenError, StoreError},
    outbox::{
        DETAIL_BYTES_MAX, Destination, Fate, MESSAGE_ID_BYTES_MAX, OUTBOX_ENDED_MAX, OUTBOX_NEXT_BYTES_MAX,
        OUTBOX_NEXT_MAX, OUTBOX_READ_MAX, OutboxFilter, OutboxRow, OutboxTotal, Outgoing, SUBJECT_BYTES_MAX,
    },
    peers::{ADDRESS_BYTES_MAX, ADDRESSES_PER_PEER_MAX, AddressRow, PeerRow, TEXT_BYTES_MAX},
    plans::{PlanChange, PlanRow},
    pool::{EVIDENCE_BYTES_MAX, MEMBER_ADDRESSES_MAX, MemberRow},
    read::Rows,
    relations::{RELATIONS_MAX, RelationRow},
    resources::{Listing, RESOURCES_READ_MAX, ResourceRow, Sight, StandingRow},
    revocations::REVOCATIONS_KEPT_MAX,
    seqs::{SEQ_MAX, SEQS_MAX},
    sqlite::{Copied, Examined, Opened, SetAside, copy_database},
    write::{Applied, Refusal, RefusedWrite, WRITES_MAX, Write},
};

use self::repository::{Database, Repository as _};

/// How much is kept, and how long a call may wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the database is: empty for a file among the data, or a `postgresql://` URL.
    pub url: DatabaseUrl,
    /// Peers kept, 1 to 1,000,000. Past it the one seen longest ago leaves, with its addresses.
    pub peers_max: u32,
    /// Pool members remembered, 1 to 1,000. Past it the one that answered longest ago leaves, seeds last.
    pub members_max: u32,
    /// DIDs with a remembered key, 1 to 1,000,000. Past it a new one is refused until stale ones were forgotten.
    pub bindings_max: u32,
    /// Resources kept, 1 to 10,000,000. Past it a new one is refused. Of as many that were removed it is remembered that
    /// they were; past it the oldest is forgotten.
    pub resources_max: u32,
    /// The same of one creator, 1 to 10,000,000.
    pub resources_per_creator_max: u32,
    /// Messages that may wait, 1 to 10,000,000. At it the oldest search results make room; past it what would put
    /// another is refused whole. What other members tell us has half of it, each of them an eighth.
    pub outbox_max: u32,
    /// Connections that read at the same time, 1 to 64. Each is a thread.
    pub readers: u32,
    /// Longest wait for a lock of the database, 1 ms to 1 min. Then the call fails as busy.
    #[serde(with = "protocol::time::text")]
    pub busy_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: DatabaseUrl::default(),
            // About 20 MB with eight addresses each: a federation of this size still fits the smallest machine.
            peers_max: 10_000,
            // Six times the largest pool, so that a month's acquaintances outlive a bad day.
            members_max: 64,
            bindings_max: 10_000,
            // A thousand organisations with a hundred each.
            resources_max: 100_000,
            // One large organisation is not to fill the catalogue of all.
            resources_per_creator_max: 20_000,
            // A day away from the bus at one message a second.
            outbox_max: 100_000,
            // The admin page, the actors and one to spare.
            readers: 3,
            busy_timeout: Duration::from_secs(5),
        }
    }
}

/// A URL with a password in it, perhaps: it is handed on and never shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl Deref for DatabaseUrl {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<String> for DatabaseUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl From<&str> for DatabaseUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(if self.0.is_empty() { "a file" } else { "a URL" })
    }
}

/// The database, open. All methods may be called at the same time.
///
/// Of a file the caller holds the folder's lock: two processes on one file are not this crate's to prevent. A server is
/// asked for a lock.
#[derive(Debug)]
pub struct Store {
    database: Database,
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
        write::apply(&self.database, writes, &self.settings).await
    }

    /// The next sequence to sign with for `did`: the stored one plus one or unix milliseconds, whichever is greater,
    /// on the disk before it is returned.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::SeqsFull`] for a new DID past [`SEQS_MAX`], [`StoreError::SeqSpent`] past [`SEQ_MAX`].
    pub async fn next_seq(&self, did: &str, now: Timestamp) -> Result<u64, StoreError> {
        seqs::next(&self.database, did, now).await
    }

    /// Raises the stored sequence of `did` to at least `seq`, on the disk, and tells the stored one.
    ///
    /// # Errors
    /// Those of [`Store::next_seq`].
    pub async fn raise_seq(&self, did: &str, seq: u64) -> Result<u64, StoreError> {
        seqs::raise_to(&self.database, did, seq).await
    }

    /// The stored sequence of `did`, if it ever had one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn seq(&self, did: &str) -> Result<Option<u64>, StoreError> {
        seqs::read(&mut self.database.reader().await?.session(), did).await
    }

    /// The key that `did` is bound to, base64, if it is bound.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn binding(&self, did: &str) -> Result<Option<String>, StoreError> {
        bindings::read(&mut self.database.reader().await?.session(), did).await
    }

    /// Every binding, at most `bindings_max`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn bindings(&self) -> Result<Rows<Binding>, StoreError> {
        bindings::read_all(&mut self.database.reader().await?.session(), self.settings.bindings_max).await
    }

    /// The remembered pool: those to go back to first, the best scores first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remembered_members(&self) -> Result<Rows<MemberRow>, StoreError> {
        pool::read_all(&mut self.database.reader().await?.session(), self.settings.members_max).await
    }

    /// At most `limit` known peers with their addresses, the last seen first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn peers(&self, limit: u32) -> Result<Rows<PeerRow>, StoreError> {
        let limit = limit.min(self.settings.peers_max);
        peers::read_all(&mut self.database.reader().await?.session(), limit).await
    }

    /// One known peer with its addresses.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn peer(&self, peer: &PeerId) -> Result<Option<PeerRow>, StoreError> {
        peers::read_one(&mut self.database.reader().await?.session(), peer).await
    }

    /// Forgets at most `at_most` peers not seen since `before`, the oldest first, and tells how many.
    /// Peers that were only heard of count as never seen.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_stale(&self, before: Timestamp, at_most: u32) -> Result<u64, StoreError> {
        peers::forget_stale(&self.database, before, at_most).await
    }

    /// Forgets at most `at_most` bindings not seen since `before`, the oldest first, and tells how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_stale_bindings(&self, before: Timestamp, at_most: u32) -> Result<u64, StoreError> {
        bindings::forget_stale(&self.database, before, at_most).await
    }

    /// Every ban, in force or over for less than a day, by peer; at most [`BANS_KEPT_MAX`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn bans(&self) -> Result<Rows<Ban>, StoreError> {
        bans::read_all(&mut self.database.reader().await?.session()).await
    }

    /// Forgets at most `at_most` bans that ended before `before`, the oldest first, and tells how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_ended_bans(&self, before: Timestamp, at_most: u32) -> Result<u64, StoreError> {
        bans::forget_ended(&self.database, before, at_most).await
    }

    /// Every revocation that is kept, by peer; at most [`REVOCATIONS_KEPT_MAX`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn revocations(&self) -> Result<Rows<Held>, StoreError> {
        revocations::read_all(&mut self.database.reader().await?.session()).await
    }

    /// Since when the order to drain is in force, if it is.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn drained_since(&self) -> Result<Option<Timestamp>, StoreError> {
        orders::read_drain(&mut self.database.reader().await?.session()).await
    }

    /// The day that goes on, as it was written down last.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn running_day(&self) -> Result<Option<String>, StoreError> {
        days::read(&mut self.database.reader().await?.session()).await
    }

    /// What peers are to us, by peer; at most [`RELATIONS_MAX`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn relations(&self) -> Result<Rows<RelationRow>, StoreError> {
        relations::read_all(&mut self.database.reader().await?.session()).await
    }

    /// Makes the changes in one transaction, in their order, each whole or not at all, and tells what became of each.
    /// Those that are done are on the disk when this returns.
    ///
    /// # Errors
    /// None of the changes is made then, unless the server went away in the middle of it ([`StoreError::Away`]): whoever
    /// asks again asks for the same, and a [`Receipt`] makes it one change.
    pub async fn change(&self, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
        changes::change(&self.database, changes, &self.settings).await
    }

    /// One resource, or what is left of it if it was removed.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn resource(&self, creator: &PeerId, id: &str) -> Result<Option<ResourceRow>, StoreError> {
        resources::read_one(&mut self.database.reader().await?.session(), creator, id).await
    }

    /// The same with what partners were told of it last.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn standing(&self, creator: &PeerId, id: &str) -> Result<Option<StandingRow>, StoreError> {
        resources::read_standing(&mut self.database.reader().await?.session(), creator, id).await
    }

    /// Resources that were not removed, by creator and id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn resources(&self, listing: &Listing) -> Result<Rows<ResourceRow>, StoreError> {
        resources::list(&mut self.database.reader().await?.session(), listing).await
    }

    /// At most `limit` resources, and [`RESOURCES_READ_MAX`], that contain the text of the query and may be seen: those
    /// first that have it in their name, then by the rank of the index, then by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn find_resources(
        &self,
        sight: &Sight,
        query: &ResourceQuery,
        limit: u32,
    ) -> Result<Rows<ResourceRow>, StoreError> {
        resources::find(&mut self.database.reader().await?.session(), sight, query, limit).await
    }

    /// Forgets at most `at_most` removed resources of whose end we heard before `before`, the oldest first, and tells how
    /// many. An older text of them would be taken for news again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_removed(&self, before: Timestamp, at_most: u32) -> Result<u64, StoreError> {
        resources::forget_removed(&self.database, before, at_most).await
    }

    /// What waits for a destination, in its order: at most `limit` messages after the id `after`, and
    /// [`OUTBOX_NEXT_MAX`], and of those at least one and no more than have [`OUTBOX_NEXT_BYTES_MAX`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn outbox_next(
        &self,
        destination: &Destination,
        after: u64,
        limit: u32,
    ) -> Result<Rows<OutboxRow>, StoreError> {
        outbox::next(&mut self.database.reader().await?.session(), destination, after, limit).await
    }

    /// The same of one subject.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn outbox_next_of(
        &self,
        destination: &Destination,
        subject: &str,
        after: u64,
        limit: u32,
    ) -> Result<Rows<OutboxRow>, StoreError> {
        outbox::next_of(&mut self.database.reader().await?.session(), destination, subject, after, limit).await
    }

    /// Every destination for which something waits, that first which waits longest.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn outbox_waiting(&self) -> Result<Rows<OutboxTotal>, StoreError> {
        outbox::totals(&mut self.database.reader().await?.session()).await
    }

    /// The planner sessions that are open now, by peer; at most [`protocol::planner::SESSIONS_MAX`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn plans(&self, now: Timestamp) -> Result<Rows<PlanRow>, StoreError> {
        plans::read_all(&mut self.database.reader().await?.session(), now).await
    }

    /// For whom steps of plans wait, whether or not their sessions are still open.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn plans_waiting(&self) -> Result<Vec<PeerId>, StoreError> {
        plans::waiting(&mut self.database.reader().await?.session()).await
    }

    /// Messages and their fates, the newest first, without their payloads.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn outbox(&self, filter: &OutboxFilter) -> Result<Rows<OutboxRow>, StoreError> {
        outbox::list(&mut self.database.reader().await?.session(), filter).await
    }

    /// Gives up at most `at_most` messages that wait for peers since before `before`, the oldest first, and tells how
    /// many. What waits for the bus waits on.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn expire_outbox(&self, before: Timestamp, at: Timestamp, at_most: u32) -> Result<u64, StoreError> {
        outbox::expire(&self.database, before, at, at_most).await
    }

    /// Forgets at most `at_most` messages whose fate came before `before`, the oldest first, and tells how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_outbox(&self, before: Timestamp, at_most: u32) -> Result<u64, StoreError> {
        outbox::forget(&self.database, before, at_most).await
    }

    /// Forgets at most `at_most` receipts of before `before`, the oldest first, and tells how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_receipts(&self, before: Timestamp, at_most: u32) -> Result<u64, StoreError> {
        changes::forget_receipts(&self.database, before, at_most).await
    }

    /// Whether the database answers: one row is read, and no write has failed for good.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.database.ping().await
    }

    /// Closes every connection after the calls under way, and folds the log into the file.
    /// Later calls fail.
    pub async fn close(&self) {
        self.database.close().await;
    }
}
