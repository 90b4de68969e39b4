//! What is written down, in batches: each is one transaction.

use std::collections::BTreeSet;

use multiaddr::Multiaddr;
use protocol::{PeerId, Timestamp, bans::Ban, behaviour::Scope, revocations::Held};

use crate::{
    AddressRow, Fate, MemberRow, PeerRow, RelationRow, Settings, StoreError, bans, bindings,
    bindings::Bound,
    days, orders, outbox, peers, pool, relations,
    repository::{Database, Repository as _},
    revocations,
    seqs::{self, SEQ_MAX, SEQS_MAX},
    session::Session,
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
    /// The day that goes on, in place of what was written of it before.
    Day(String),
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
    /// A revocation as it is held. A promise.
    Revocation(Held),
    /// Gives the revocation of a peer up. A promise, as all that is said of them.
    ForgetRevocation(PeerId),
    /// What a peer is to us; without a relation it is forgotten. A promise.
    Relation(RelationRow),
    /// A message that waits was tried in vain.
    OutboxTried {
        /// Which.
        id: u64,
        /// How often by now.
        attempts: u32,
        /// When it is tried again.
        next_at: Option<Timestamp>,
        /// What went wrong; cut at [`crate::DETAIL_BYTES_MAX`].
        detail: String,
    },
    /// A message waits no longer. Only the first end counts, and [`Fate::Waiting`] is none. A promise.
    OutboxEnded {
        /// Which.
        id: u64,
        /// How it ended.
        fate: Fate,
        /// When.
        at: Timestamp,
        /// What is to be known of it; cut at [`crate::DETAIL_BYTES_MAX`].
        detail: String,
    },
}

impl Write {
    /// Whether it has to be on the disk before its writer is answered.
    const fn is_promise(&self) -> bool {
        match self {
            Self::Peer(_)
            | Self::Address { .. }
            | Self::ForgetPeer(_)
            | Self::Member(_)
            | Self::ForgetMember(_)
            | Self::Day(_)
            | Self::OutboxTried { .. } => false,
            Self::RaiseSeq { .. }
            | Self::Bind { .. }
            | Self::Ban(_)
            | Self::LiftBan(_)
            | Self::ForgetBan { .. }
            | Self::Drain(_)
            | Self::Revocation(_)
            | Self::ForgetRevocation(_)
            | Self::Relation(_)
            | Self::OutboxEnded { .. } => true,
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
    /// A text has the character NUL, which not every database can keep.
    #[error("got {field} with a NUL in it")]
    Nul {
        /// Which text.
        field: &'static str,
    },
    /// It is no removal of a resource.
    #[error("{why}")]
    BadRemoval {
        /// What is wrong with it.
        why: String,
    },
    /// More of something than one write may bring.
    #[error("got {got} {field}, expected at most {max}")]
    TooMany {
        /// Of what.
        field: &'static str,
        /// How many.
        got: usize,
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

impl Refusal {
    /// There will be room again by itself: what waits in the outbox goes in time. Of the catalogue nothing does.
    #[must_use]
    pub fn is_for_now(&self) -> bool {
        matches!(self, Self::Full { table, .. } if table.starts_with("outbox"))
    }
}

/// Whether a text has 1 to `max` bytes, and none of them is NUL.
pub(crate) fn check_length(field: &'static str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.is_empty() {
        return Err(Refusal::BadLength { field, bytes: 0, max });
    }
    check_length_max(field, text, max)
}

/// The same of a text that may be empty.
pub(crate) fn check_length_max(field: &'static str, text: &str, max: usize) -> Result<(), Refusal> {
    let bytes = text.len();
    if bytes > max {
        return Err(Refusal::BadLength { field, bytes, max });
    }
    if text.contains('\0') { Err(Refusal::Nul { field }) } else { Ok(()) }
}

/// How many bytes `bytes` are may not be more than `max`.
pub(crate) const fn check_bytes_max(field: &'static str, bytes: usize, max: usize) -> Result<(), Refusal> {
    if bytes > max { Err(Refusal::BadLength { field, bytes, max }) } else { Ok(()) }
}

/// The addresses as text, if all are short enough.
pub(crate) fn check_address(address: &Multiaddr) -> Result<String, Refusal> {
    let text = address.to_string();
    check_length("address", &text, peers::ADDRESS_BYTES_MAX)?;
    Ok(text)
}

pub(crate) async fn apply(database: &Database, writes: &[Write], settings: &Settings) -> Result<Applied, StoreError> {
    if writes.len() > WRITES_MAX {
        return Err(StoreError::TooMany { got: writes.len(), max: WRITES_MAX });
    }
    if writes.is_empty() {
        return Ok(Applied::default());
    }
    let mut turn = database.turn(writes.iter().any(Write::is_promise)).await?;
    let outcome = apply_all(&mut turn.session(), writes, settings).await;
    turn.end(outcome).await
}

async fn apply_all(session: &mut Session<'_>, writes: &[Write], settings: &Settings) -> Result<Applied, StoreError> {
    let mut applied = Applied::default();
    for (index, write) in writes.iter().enumerate() {
        match apply_one(session, write, settings).await? {
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
        peers::prune_addresses(session, &peer).await?;
    }
    if writes.iter().any(|write| matches!(write, Write::Peer(_) | Write::Address { .. })) {
        applied.evicted += peers::prune(session, settings.peers_max).await?;
    }
    if writes.iter().any(|write| matches!(write, Write::Member(_))) {
        applied.evicted += pool::prune(session, settings.members_max).await?;
    }
    if writes.iter().any(|write| matches!(write, Write::OutboxEnded { .. })) {
        outbox::prune_ended(session).await?;
    }
    Ok(applied)
}

async fn apply_one(
    session: &mut Session<'_>,
    write: &Write,
    settings: &Settings,
) -> Result<Result<(), Refusal>, StoreError> {
    match write {
        Write::Peer(row) => peers::write(session, row).await,
        Write::Address { peer, address } => peers::write_heard(session, peer, address).await,
        Write::ForgetPeer(peer) => peers::forget(session, peer).await.map(Ok),
        Write::Member(row) => pool::write(session, row).await,
        Write::ForgetMember(peer) => pool::forget(session, peer).await.map(Ok),
        Write::Day(day) => days::write(session, day).await,
        Write::RaiseSeq { did, seq } => raise(session, did, *seq).await,
        Write::Bind { did, pub_key, at } => bind(session, did, pub_key, *at, settings.bindings_max).await,
        Write::Ban(ban) => bans::write(session, ban).await,
        Write::LiftBan(peer) => bans::lift(session, peer).await.map(Ok),
        Write::ForgetBan { peer, scope } => bans::forget(session, peer, *scope).await.map(Ok),
        Write::Drain(since) => orders::write_drain(session, *since).await.map(Ok),
        Write::Revocation(held) => revocations::write(session, held).await,
        Write::ForgetRevocation(peer) => revocations::forget(session, peer).await.map(Ok),
        Write::Relation(row) => relations::write(session, row).await,
        Write::OutboxTried { id, attempts, next_at, detail } => {
            outbox::tried(session, *id, *attempts, *next_at, detail).await.map(Ok)
        }
        Write::OutboxEnded { id, fate, at, detail } => outbox::ended(session, *id, *fate, *at, detail).await.map(Ok),
    }
}

async fn raise(session: &mut Session<'_>, did: &str, seq: u64) -> Result<Result<(), Refusal>, StoreError> {
    if let Err(refusal) = check_length("did", did, peers::TEXT_BYTES_MAX) {
        return Ok(Err(refusal));
    }
    if seq > SEQ_MAX {
        return Ok(Err(Refusal::SeqTooLarge { got: seq }));
    }
    let held = seqs::raise(session, did, seq).await?;
    Ok(held.map(|_| ()).ok_or(Refusal::Full { table: "seqs", max: SEQS_MAX }))
}

async fn bind(
    session: &mut Session<'_>,
    did: &str,
    pub_key: &str,
    at: Timestamp,
    max: u32,
) -> Result<Result<(), Refusal>, StoreError> {
    let lengths = check_length("did", did, peers::TEXT_BYTES_MAX)
        .and_then(|()| check_length("pub_key", pub_key, peers::TEXT_BYTES_MAX));
    if let Err(refusal) = lengths {
        return Ok(Err(refusal));
    }
    Ok(match bindings::bind(session, did, pub_key, at, max).await? {
        Bound::ToThis => Ok(()),
        Bound::ToOther(held) => Err(Refusal::OtherKey { held }),
        Bound::NoRoom => Err(Refusal::Full { table: "bindings", max }),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::testing::{at, on_both, peer, peer_row};

    on_both! {
        async fn a_batch_has_a_bound(place) {
            let store = place.open().await;
            assert_eq!(store.apply(&[]).await.unwrap(), Applied::default());
            let full = vec![Write::ForgetPeer(peer(1)); WRITES_MAX];
            assert_eq!(store.apply(&full).await.unwrap().written, WRITES_MAX);
            let over = vec![Write::ForgetPeer(peer(1)); WRITES_MAX + 1];
            assert!(
                matches!(store.apply(&over).await.unwrap_err(), StoreError::TooMany { got, .. } if got == WRITES_MAX + 1)
            );
        }

        async fn readers_see_whole_batches_while_the_writer_writes(place) {
            let store = Arc::new(place.open().await);
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

        async fn writers_at_the_same_time_all_succeed(place) {
            let store = Arc::new(place.open().await);
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
    }
}
