//! The sessions of an indexer: who is here, under which name, and with which record.
//!
//! A beat costs one look-up by peer id and writes a few numbers; nothing is cloned, and nothing grows with the number of
//! sessions. What is searched for comes from verified records alone: what a heartbeat says of itself is shown to operators
//! and is never a hit.

#[cfg(test)]
mod tests;

mod faults;
mod held;
mod index;
mod pins;
mod puts;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use rand::{Rng, RngExt as _};

use crate::{
    gate::{DRAINED_WAIT, LEAVING_WAIT, spread_secs},
    names,
    record::PeerRecord,
    signed::{Claimed, SignedObject as _, Verified},
    suggestions::{IndexerBook, KEPT_MAX},
    time::{Mono, Now},
    wire::{AddrInfo, ChallengeAnswer, Heartbeat, HeartbeatResponse, PublishReceipt},
    witness,
};

pub use self::{
    faults::{BeatError, DidFault, RecordError},
    held::{Departed, SessionView},
    pins::{BIND_AGAIN_AFTER, PINS_MIN},
    puts::{PUT_PAUSE, Put, Values},
};
use self::{
    held::Session,
    pins::Pins,
    puts::{Puts, changed},
};

/// A session ends when its last heartbeat is this old: six ticks, of which any one keeps it.
pub const LIFE: Duration = Duration::from_secs(120);

/// Challenges answered in one beat: a node asks for three, and more would make the answer dearer than the question.
pub const CHALLENGES_MAX: usize = 8;

/// A record that was sent to be verified is asked for again after this time: the verifier may have been restarted.
pub const VERIFY_PATIENCE: Duration = Duration::from_secs(10);

/// Who is refused for want of room is told to return between this and twice as much later.
const FULL_WAIT_SECS: u64 = 30;

/// What is to be done with the record of a heartbeat or a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordStep {
    /// There was none.
    Absent,
    /// It brings nothing new; no signature needs to be verified.
    Unchanged,
    /// One at least as new is being verified already.
    Pending,
    /// It claims to be newer: verify it off the answer's path, then call [`Registry::record_verified`] or
    /// [`Registry::record_failed`].
    Verify {
        /// The number that it claims.
        seq: u64,
    },
    /// It is refused as it is; the beat itself stands.
    Rejected(RecordError),
}

/// What a beat did to the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It began one.
    Began,
    /// It kept one alive.
    Kept,
    /// It was a probe: no session was made, none was touched.
    Probed,
}

/// The answer to a heartbeat and what follows from it.
#[derive(Clone, Debug)]
pub struct Beat {
    /// Raw facts; `served_us`, the DHT's and `suggest_migrate` are for the caller to fill in.
    pub answer: HeartbeatResponse,
    /// What is to be done with the record.
    pub record: RecordStep,
    /// What became of the session.
    pub presence: Presence,
}

/// A verified record was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number, to be written down so that it never goes back.
    pub seq: u64,
    /// It is the first of this peer since its pin was forgotten, or since [`BIND_AGAIN_AFTER`]: the binding of peer and DID
    /// is to be written down too.
    pub is_first: bool,
    /// The values that came with it were taken; those that say something else than the record are not.
    pub has_values: bool,
}

/// What one call of [`Registry::collect`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Sessions that ended.
    pub departed: Vec<Departed>,
    /// There may be more: call again.
    pub is_partial: bool,
}

/// Our own record: an indexer is its own referent.
#[derive(Debug)]
struct Own {
    record: Arc<Verified<PeerRecord>>,
    values: Option<Arc<Values>>,
    normal_name: String,
    puts: Puts,
}

/// Every session of an indexer.
///
/// Bounded by `max_nodes` sessions and twice as many, at least [`PINS_MIN`], pins of identities. A restart forgets the
/// sessions; nodes bring them back with their next beat. Pins are exported with [`Stored`] and taken up with
/// [`Registry::recall`].
#[derive(Debug)]
pub struct Registry {
    max_nodes: u32,
    born_at: Timestamp,
    slots: Vec<Option<Session>>,
    free: Vec<u32>,
    by_peer: HashMap<PeerId, u32>,
    by_did: HashMap<Arc<str>, u32>,
    by_name: BTreeSet<(Arc<str>, u32)>,
    /// Names of those whose referent we are, in one row, for parts of names.
    named: Vec<(Arc<str>, u32)>,
    leases: BTreeSet<(Mono, u32)>,
    /// Sessions of indexers, for witnesses.
    indexers: Vec<u32>,
    puts: BTreeSet<(Mono, u32)>,
    pins: Pins,
    own: Option<Own>,
    is_drained: bool,
    is_leaving: bool,
}

impl Registry {
    /// No session yet, room for `max_nodes` (at least 1), of an indexer whose process began at `born_at`.
    #[must_use]
    pub fn new(max_nodes: u32, born_at: Timestamp) -> Self {
        let max_nodes = max_nodes.max(1);
        Self {
            max_nodes,
            born_at,
            slots: Vec::new(),
            free: Vec::new(),
            by_peer: HashMap::new(),
            by_did: HashMap::new(),
            by_name: BTreeSet::new(),
            named: Vec::new(),
            leases: BTreeSet::new(),
            indexers: Vec::new(),
            puts: BTreeSet::new(),
            pins: Pins::new(PINS_MIN.max(2 * max_nodes as usize)),
            own: None,
            is_drained: false,
            is_leaving: false,
        }
    }

    /// Answers a heartbeat that came from `from`, and keeps or begins its session unless it is a probe.
    ///
    /// `is_indexer` is what the peer said in its hello. The gate was asked before; capacity is checked here once more,
    /// because it is a promise.
    ///
    /// # Errors
    /// When the heartbeat is another's, its name or DID is not acceptable, there is no room for a new session, or it is one of
    /// a peer without a session while we leave.
    pub fn beat(
        &mut self,
        from: PeerId,
        heartbeat: &Heartbeat,
        is_indexer: bool,
        book: &IndexerBook,
        now: Now,
        rng: &mut impl Rng,
    ) -> Result<Beat, BeatError> {
        if heartbeat.peer_id != from {
            return Err(BeatError::NotYours { got: heartbeat.peer_id });
        }
        // A probe is not answered either: whoever sent it would take us for one to join.
        if self.is_leaving && self.live_slot(&from, now.mono).is_none() {
            return Err(self.leaving(&from, book, now, rng));
        }
        // Looked up before this very beat makes or touches a session, or the answer about the asker would prove nothing.
        let challenges = self.challenged(&heartbeat.challenges, now);
        let (slot, presence, record) = if heartbeat.probe {
            (self.live_slot(&from, now.mono), Presence::Probed, RecordStep::Absent)
        } else {
            let (slot, presence) = self.attend(from, heartbeat, is_indexer, book, now, rng)?;
            (Some(slot), presence, self.offered(slot, heartbeat, now.mono))
        };
        let need = KEPT_MAX.min(heartbeat.need as usize);
        // Only who challenges asks witnesses, and every other answer is the shorter for it.
        let is_challenge = !heartbeat.challenges.is_empty() && !heartbeat.probe;
        let witnesses = if is_challenge { self.witnesses(&from, rng) } else { Vec::new() };
        let answer = HeartbeatResponse {
            seq: heartbeat.seq,
            record_seq: slot.and_then(|slot| self.session(slot).record_seq()),
            served_us: 0,
            fill_rate: if self.is_drained { 1.0 } else { self.fill_rate() },
            peer_count: self.count(),
            // A drained indexer has room for those who are here and for nobody else.
            max_nodes: if self.is_drained { self.count() } else { self.max_nodes },
            born_at: self.born_at,
            challenges,
            dht_found: None,
            dht_payload: None,
            witnesses,
            suggestions: book.pick(need, &from, now.wall, rng),
            suggest_migrate: false,
        };
        Ok(Beat { answer, record, presence })
    }

    /// What is to be done with a record that a peer published outside a heartbeat.
    #[must_use]
    pub fn offer(&self, from: &PeerId, text: &str) -> RecordStep {
        match self.by_peer.get(from) {
            Some(slot) => self.judge(*slot, text),
            None => RecordStep::Rejected(RecordError::NoSession),
        }
    }

    /// Takes a verified record into its peer's session, and its values if it came with some that agree with it.
    ///
    /// The same text again is taken as what it is, held already; values that were missing are added to it.
    ///
    /// # Errors
    /// When it is not the peer's, not newer, violates a binding, or its session is gone.
    pub fn record_verified(
        &mut self,
        peer: &PeerId,
        record: impl Into<Arc<Verified<PeerRecord>>>,
        values: Option<Arc<Values>>,
        now: Now,
    ) -> Result<Stored, RecordError> {
        let record = record.into();
        let slot = *self.by_peer.get(peer).ok_or(RecordError::NoSession)?;
        self.record_failed(peer, record.seq);
        if record.peer_id != *peer {
            return Err(RecordError::NotYours { got: record.peer_id });
        }
        let values = values.filter(|values| values.belong_to(&record));
        let has_values = values.is_some();
        let session = self.session(slot);
        if session.record.as_ref().is_some_and(|held| *held == record) {
            self.add_values(slot, values, now.mono);
            return Ok(Stored { seq: record.seq, is_first: false, has_values });
        }
        self.check_seq(session, record.seq)?;
        if !session.did.is_empty() && session.did != record.did {
            return Err(DidFault::Changed { held: session.did.as_str().into() }.into());
        }
        self.pins.check(peer, &record.did)?;
        let is_first = self.pins.note(*peer, &record.did, record.seq, now.mono);
        let stored = Stored { seq: record.seq, is_first, has_values };
        self.hold(slot, record, values, now.mono);
        Ok(stored)
    }

    /// A record that was to be verified is not valid; the next one of its number is looked at again.
    pub fn record_failed(&mut self, peer: &PeerId, seq: u64) {
        if let Some(session) = self.by_peer.get(peer).and_then(|slot| self.slots[*slot as usize].as_mut()) {
            session.asked.take_if(|(asked, _)| *asked == seq);
        }
    }

    /// The receipt for a published record.
    #[must_use]
    pub fn receipt(&self, peer: &PeerId, seq: u64, result: Result<Stored, &RecordError>) -> PublishReceipt {
        let record_seq = self.by_peer.get(peer).and_then(|slot| self.session(*slot).record_seq()).unwrap_or_default();
        let reason = result.err().map(ToString::to_string);
        PublishReceipt { seq, accepted: reason.is_none(), reason, record_seq }
    }

    /// Takes up a pin that was written down, before the first beat.
    pub fn recall(&mut self, peer: PeerId, did: &str, seq: u64, now: Mono) {
        self.pins.note(peer, did, seq, now);
    }

    /// What is kept says that the DID of this peer's record is another's: its session ends, and the DID is that one's again.
    pub fn disown(&mut self, peer: &PeerId, did: &str, owner: PeerId, now: Mono) -> Option<Departed> {
        self.pins.forget(peer);
        self.pins.note(owner, did, 0, now);
        self.leave(peer)
    }

    /// Lets nobody in who has no session, or takes newcomers again.
    pub fn set_drained(&mut self, is_drained: bool) {
        self.is_drained = is_drained;
    }

    /// Lets nobody in who has no session, for good: we go in a moment, and say so to those who have one. What those are
    /// answered stays true, for a restart shall cost no score.
    pub fn set_leaving(&mut self) {
        self.is_leaving = true;
    }

    /// Whether we leave.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// The newest number ever accepted from a peer that is still remembered.
    #[must_use]
    pub fn newest_seq(&self, peer: &PeerId) -> Option<u64> {
        self.pins.seq(peer)
    }

    /// Our own record, found as those of our sessions are, and put like them; newer ones replace it.
    pub fn set_own(&mut self, record: impl Into<Arc<Verified<PeerRecord>>>, values: Option<Arc<Values>>, now: Mono) {
        let record = record.into();
        let mut puts = self.own.take().map(|own| changed(own.puts, Some(&own.record), &record)).unwrap_or_default();
        puts.due = puts.due_for(&record, now);
        let normal_name = names::normal(&record.name);
        let values = values.filter(|values| values.belong_to(&record));
        self.own = Some(Own { record, values, normal_name, puts });
    }

    /// Ends the session of a peer that said that it leaves, or was told to go.
    pub fn leave(&mut self, peer: &PeerId) -> Option<Departed> {
        let slot = *self.by_peer.get(peer)?;
        self.remove(slot)
    }

    /// Ends sessions whose last heartbeat is 2 min old, looking at no more than `at_most`.
    pub fn collect(&mut self, now: Mono, at_most: usize) -> Collected {
        let mut collected = Collected::default();
        for _ in 0..at_most {
            let Some((due, slot)) = self.leases.first().copied().filter(|(due, _)| *due <= now) else {
                return collected;
            };
            let session = self.session_mut(slot);
            if session.is_live(now) {
                // It was heard since: its ticket moves to where the session ends if it is not heard again.
                session.lease = session.last_seen + LIFE;
                let lease = session.lease;
                self.leases.remove(&(due, slot));
                self.leases.insert((lease, slot));
            } else {
                collected.departed.extend(self.remove(slot));
            }
        }
        collected.is_partial = self.leases.first().is_some_and(|(due, _)| *due <= now);
        collected
    }

    /// Keeps or begins the session of a heartbeat.
    fn attend(
        &mut self,
        from: PeerId,
        heartbeat: &Heartbeat,
        is_indexer: bool,
        book: &IndexerBook,
        now: Now,
        rng: &mut impl Rng,
    ) -> Result<(u32, Presence), BeatError> {
        let live = self.live_slot(&from, now.mono);
        self.check_claims(&from, live, heartbeat)?;
        let (slot, presence) = match live {
            Some(slot) => (slot, Presence::Kept),
            None => {
                // One that ended and was not collected yet is no longer the same stay.
                self.leave(&from);
                if self.is_drained {
                    return Err(self.drained(&from, book, now, rng));
                }
                if self.count() >= self.max_nodes {
                    return Err(self.full(&from, book, now, rng));
                }
                (self.begin(from, now.mono), Presence::Began)
            }
        };
        let session = self.session_mut(slot);
        session.last_seen = now.mono;
        session.beats += 1;
        if std::mem::replace(&mut session.is_indexer, is_indexer) != is_indexer {
            self.list_indexer(slot, is_indexer);
        }
        let session = self.session_mut(slot);
        session.is_settled = heartbeat.need == 0;
        if session.name != heartbeat.name && !heartbeat.name.is_empty() {
            session.name.clone_from(&heartbeat.name);
        }
        if session.did.is_empty() {
            session.did.clone_from(&heartbeat.did);
        }
        if session.is_referent != heartbeat.referent {
            session.is_referent = heartbeat.referent;
            self.place_name(slot);
            self.schedule_put(slot, now.mono);
        }
        Ok((slot, presence))
    }

    /// Checks the name and the DID of a heartbeat where they differ from what is known; an empty one says nothing.
    fn check_claims(&self, from: &PeerId, live: Option<u32>, heartbeat: &Heartbeat) -> Result<(), BeatError> {
        let (name, did) = live.map_or(("", ""), |slot| {
            let session = self.session(slot);
            (session.name.as_str(), session.did.as_str())
        });
        if !heartbeat.name.is_empty() && heartbeat.name != name {
            names::check(&heartbeat.name)?;
        }
        if heartbeat.did.is_empty() || heartbeat.did == did {
            return Ok(());
        }
        if !did.is_empty() {
            return Err(DidFault::Changed { held: did.into() }.into());
        }
        Ok(self.pins.check(from, &heartbeat.did)?)
    }

    fn list_indexer(&mut self, slot: u32, is_indexer: bool) {
        self.indexers.retain(|listed| *listed != slot);
        if is_indexer {
            self.indexers.push(slot);
        }
    }

    /// Up to three peers that have a session here, from a random place on: indexers first, since they see other indexers
    /// and answer whoever the network knows; any others when there are too few of them.
    fn witnesses(&self, asker: &PeerId, rng: &mut impl Rng) -> Vec<AddrInfo> {
        let start = rng.random_range(0..=self.indexers.len());
        let indexers = self.indexers[start..].iter().chain(&self.indexers[..start]).copied();
        let mut chosen: Vec<u32> =
            indexers.filter(|slot| self.session(*slot).peer != *asker).take(witness::OFFERED_MAX).collect();
        if chosen.len() < witness::OFFERED_MAX {
            // Every session has a lease, so whoever is here can be found by one look-up.
            let first = self.leases.first().map_or(Mono::ZERO, |(due, _)| *due);
            let last = self.leases.last().map_or(Mono::ZERO, |(due, _)| *due);
            let slot = rng.random_range(0..=u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
            let pivot = (first + last.since(first).mul_f64(rng.random::<f64>()), slot);
            let all = self.leases.range(pivot..).chain(self.leases.range(..pivot));
            let others = all.map(|(_, slot)| *slot).filter(|slot| {
                let session = self.session(*slot);
                session.peer != *asker && !session.is_indexer
            });
            // Indexers are passed over, and there are fewer than three beside the asker.
            chosen.extend(others.take(witness::OFFERED_MAX - chosen.len()));
        }
        chosen.into_iter().map(|slot| self.address_of(slot)).collect()
    }

    fn address_of(&self, slot: u32) -> AddrInfo {
        let session = self.session(slot);
        let addrs = session.record.as_ref().map(|record| record.addrs.clone()).unwrap_or_default();
        AddrInfo { id: session.peer, addrs }
    }

    fn full(&self, asker: &PeerId, book: &IndexerBook, now: Now, rng: &mut impl Rng) -> BeatError {
        BeatError::Full {
            max_nodes: self.max_nodes,
            retry_after: rng.random_range(FULL_WAIT_SECS..=2 * FULL_WAIT_SECS),
            alternatives: book.pick(KEPT_MAX, asker, now.wall, rng),
        }
    }

    fn drained(&self, asker: &PeerId, book: &IndexerBook, now: Now, rng: &mut impl Rng) -> BeatError {
        let alternatives = book.pick(KEPT_MAX, asker, now.wall, rng);
        BeatError::Drained { retry_after: spread_secs(DRAINED_WAIT, rng), alternatives }
    }

    fn leaving(&self, asker: &PeerId, book: &IndexerBook, now: Now, rng: &mut impl Rng) -> BeatError {
        let alternatives = book.pick(KEPT_MAX, asker, now.wall, rng);
        BeatError::Leaving { retry_after: spread_secs(LEAVING_WAIT, rng), alternatives }
    }

    fn begin(&mut self, peer: PeerId, now: Mono) -> u32 {
        let session = Session {
            peer,
            name: String::new(),
            did: String::new(),
            is_indexer: false,
            is_referent: false,
            is_settled: false,
            since: now,
            last_seen: now,
            beats: 0,
            record: None,
            values: None,
            normal_name: None,
            named_at: None,
            asked: None,
            lease: now + LIFE,
            puts: Puts::default(),
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("there are no more slots than max_nodes")
        });
        self.leases.insert((session.lease, slot));
        self.slots[slot as usize] = Some(session);
        self.by_peer.insert(peer, slot);
        slot
    }

    fn remove(&mut self, slot: u32) -> Option<Departed> {
        self.unindex(slot);
        let session = self.slots[slot as usize].take()?;
        self.free.push(slot);
        self.by_peer.remove(&session.peer);
        self.leases.remove(&(session.lease, slot));
        if session.is_indexer {
            self.list_indexer(slot, false);
        }
        if let Some(due) = session.puts.due {
            self.puts.remove(&(due, slot));
        }
        Some(session.departed())
    }

    /// What is to be done with the record of a heartbeat, if it has one.
    fn offered(&mut self, slot: u32, heartbeat: &Heartbeat, now: Mono) -> RecordStep {
        let Some(record) = &heartbeat.record else { return RecordStep::Absent };
        let mut step = self.judge(slot, record.get());
        // A peer that makes us its referent sends the same record once more, for the values that come with it.
        let is_with_values = heartbeat.referent && heartbeat.values.is_some() && self.session(slot).values.is_none();
        if step == RecordStep::Unchanged && is_with_values {
            step = RecordStep::Verify { seq: self.session(slot).record_seq().unwrap_or_default() };
        }
        if let RecordStep::Verify { seq } = step {
            let asked = &mut self.session_mut(slot).asked;
            if asked.is_some_and(|(asked, at)| seq <= asked && now < at + VERIFY_PATIENCE) {
                return RecordStep::Pending;
            }
            *asked = Some((seq, now));
        }
        step
    }

    fn judge(&self, slot: u32, text: &str) -> RecordStep {
        let session = self.session(slot);
        let claimed = match Claimed::peek(text, PeerRecord::BYTES_MAX) {
            Ok(claimed) => claimed,
            Err(error) => return RecordStep::Rejected(error.into()),
        };
        if claimed.peer_id() != session.peer {
            return RecordStep::Rejected(RecordError::NotYours { got: claimed.peer_id() });
        }
        let seq = claimed.seq();
        match session.record_seq() {
            Some(held) if seq == held => RecordStep::Unchanged,
            Some(held) if seq < held => RecordStep::Rejected(RecordError::Stale { got: seq, held }),
            _ => RecordStep::Verify { seq },
        }
    }

    /// A number goes up, or comes again where no record is held.
    fn check_seq(&self, session: &Session, got: u64) -> Result<(), RecordError> {
        match (session.record_seq(), self.pins.seq(&session.peer)) {
            (Some(held), _) if got <= held => Err(RecordError::Stale { got, held }),
            (None, Some(held)) if got < held => Err(RecordError::Stale { got, held }),
            _ => Ok(()),
        }
    }

    /// Adds the values to the record that is held without them.
    fn add_values(&mut self, slot: u32, values: Option<Arc<Values>>, now: Mono) {
        let session = self.session_mut(slot);
        if values.is_some() && session.values.is_none() {
            session.values = values;
            // The record may have been put alone; its number is then put once more, with them.
            session.puts.seq = None;
            session.puts.is_urgent = true;
            self.schedule_put(slot, now);
        }
    }

    fn hold(&mut self, slot: u32, record: Arc<Verified<PeerRecord>>, values: Option<Arc<Values>>, now: Mono) {
        let is_named_anew = self.session(slot).record.as_ref().is_none_or(|held| held.name != record.name);
        if is_named_anew {
            self.unindex(slot);
        }
        let session = self.session_mut(slot);
        session.puts = changed(std::mem::take(&mut session.puts), session.record.as_deref(), &record);
        if session.did.is_empty() {
            session.did.clone_from(&record.did);
        }
        session.record = Some(record);
        session.values = values;
        if is_named_anew {
            self.index(slot);
        }
        self.schedule_put(slot, now);
    }

    fn challenged(&self, peers: &[PeerId], now: Now) -> Vec<ChallengeAnswer> {
        let answer = |peer: &PeerId| {
            let session = self.live_slot(peer, now.mono).map(|slot| self.session(slot));
            let last_seen = session.and_then(|session| now.wall.checked_sub(now.mono.since(session.last_seen)).ok());
            ChallengeAnswer { peer_id: *peer, found: session.is_some(), last_seen }
        };
        peers.iter().take(CHALLENGES_MAX).map(answer).collect()
    }

    fn session(&self, slot: u32) -> &Session {
        self.slots[slot as usize].as_ref().expect("an indexed slot holds a session")
    }

    fn session_mut(&mut self, slot: u32) -> &mut Session {
        self.slots[slot as usize].as_mut().expect("an indexed slot holds a session")
    }
}
