//! The sessions of an indexer: who is here, under which name, and with which record.
//!
//! A beat costs one look-up by peer id and writes a few numbers; nothing is cloned, and nothing grows with the number of
//! sessions. What is searched for comes from verified records alone: what a heartbeat says of itself is shown to operators
//! and is never a hit.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use rand::{Rng, RngExt, seq::IteratorRandom as _};
use thiserror::Error;

use crate::{
    behaviour::Offence,
    dht::{NameClaim, PidValue},
    gate::{DRAINED_WAIT, spread_secs},
    identity::{Did, peer_id_of},
    json::JsonError,
    names::{self, NameError, Part},
    offload::Stay,
    record::PeerRecord,
    signed::{CLOCK_SKEW, Claimed, SignedObject, Verified},
    suggestions::{IndexerBook, KEPT_MAX},
    time::{Mono, Now},
    wire::{AddrInfo, ChallengeAnswer, Heartbeat, HeartbeatResponse, PublishReceipt, RefusalCode, Refused},
    witness,
};

/// A session ends when its last heartbeat is this old: six ticks, of which any one keeps it.
pub const LIFE: Duration = Duration::from_secs(120);

/// Challenges answered in one beat: a node asks for three, and more would make the answer dearer than the question.
pub const CHALLENGES_MAX: usize = 8;

/// Pins of identities kept at least: those of peers that left are the first to go, after more than an hour of arrivals at
/// the rate of the profile `public`.
pub const PINS_MIN: usize = 65_536;

/// A record that was sent to be verified is asked for again after this time: the verifier may have been restarted.
pub const VERIFY_PATIENCE: Duration = Duration::from_secs(10);

/// A binding that is in use is told again after this, so that what is kept of it does not go stale.
pub const BIND_AGAIN_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// The shortest time between two puts of one peer, changed addresses and failures included.
pub const PUT_PAUSE: Duration = Duration::from_secs(10);

/// Who is refused for want of room is told to return between this and twice as much later.
const FULL_WAIT_SECS: u64 = 30;

/// What is wrong with a DID.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DidFault {
    /// It is none.
    #[error("got no DID, expected did:key:z… or a UUID")]
    Malformed,
    /// It is the `did:key` of another key.
    #[error("got the DID of another key")]
    NotTheKeys,
    /// The peer had another one.
    #[error("got another DID than before, expected \"{held}\"")]
    Changed {
        /// The one that it had.
        held: Arc<str>,
    },
    /// It is bound to the first key that was seen for it, which is another's.
    #[error("got a DID that is bound to {to}")]
    Bound {
        /// Whose it is.
        to: PeerId,
    },
}

impl DidFault {
    fn offence(&self) -> Option<Offence> {
        (*self != Self::Malformed).then_some(Offence::ChangedDid)
    }

    fn code(&self) -> RefusalCode {
        if *self == Self::Malformed { RefusalCode::Invalid } else { RefusalCode::NotYours }
    }
}

/// Why a heartbeat is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BeatError {
    /// It names another peer than the connection's.
    #[error("got a heartbeat of {got}, expected one of the connection's own peer")]
    NotYours {
        /// Whom it names.
        got: PeerId,
    },
    /// Its name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Its DID is not the peer's.
    #[error(transparent)]
    Did(#[from] DidFault),
    /// Every session is taken; those that exist are served on.
    #[error("every one of {max_nodes} sessions is taken")]
    Full {
        /// Capacity.
        max_nodes: u32,
        /// Whole seconds.
        retry_after: u64,
        /// Others that may have room.
        alternatives: Vec<AddrInfo>,
    },
    /// Its operator lets the nodes go; sessions that exist are served until they have gone.
    #[error("this indexer lets its nodes go and takes no new ones")]
    Drained {
        /// Whole seconds.
        retry_after: u64,
        /// Others that may have room.
        alternatives: Vec<AddrInfo>,
    },
}

impl BeatError {
    /// The refusal in the words of the wire, of the question with this `seq`.
    #[must_use]
    pub fn refusal(&self, seq: u64) -> Refused {
        let code = match self {
            Self::NotYours { .. } => RefusalCode::NotYours,
            Self::Name(_) => RefusalCode::Invalid,
            Self::Did(fault) => fault.code(),
            Self::Full { .. } | Self::Drained { .. } => RefusalCode::Busy,
        };
        let mut refused = Refused::new(code, self.to_string());
        refused.seq = Some(seq);
        if let Self::Full { retry_after, alternatives, .. } | Self::Drained { retry_after, alternatives } = self {
            refused.retry_after = Some(*retry_after);
            refused.alternatives.clone_from(alternatives);
        }
        refused
    }

    /// What the connection's peer is to be blamed for.
    #[must_use]
    pub fn offence(&self) -> Option<Offence> {
        match self {
            Self::Did(fault) => fault.offence(),
            Self::NotYours { .. } | Self::Name(_) | Self::Full { .. } | Self::Drained { .. } => None,
        }
    }
}

/// Why a record is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// It cannot even be looked at.
    #[error(transparent)]
    Malformed(#[from] JsonError),
    /// It is another peer's.
    #[error("got the record of {got}, expected one of the connection's own peer")]
    NotYours {
        /// Whose it is.
        got: PeerId,
    },
    /// A newer one, or another one of this number, was accepted before.
    #[error("got seq {got}, expected more than {held}")]
    Stale {
        /// Its own.
        got: u64,
        /// The newest accepted.
        held: u64,
    },
    /// Its DID is not the peer's: an identity violation.
    #[error(transparent)]
    Did(#[from] DidFault),
    /// The peer has no session, or no longer.
    #[error("got a record of a peer without a session")]
    NoSession,
}

impl RecordError {
    /// What the connection's peer is to be blamed for.
    #[must_use]
    pub fn offence(&self) -> Option<Offence> {
        match self {
            Self::Did(fault) => fault.offence(),
            Self::Malformed(_) | Self::NotYours { .. } | Self::Stale { .. } | Self::NoSession => None,
        }
    }
}

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

/// The values that only the peer can sign and only its referent puts, beside the record itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values {
    /// Of `/pid/<peer id>`.
    pub pid: Verified<PidValue>,
    /// The claim in `/name/<name>`.
    pub name: Verified<NameClaim>,
}

impl Values {
    /// They say of the record's peer what the record says.
    fn belong_to(&self, record: &PeerRecord) -> bool {
        let Self { pid, name } = self;
        let is_pid = pid.peer_id == record.peer_id && pid.did == record.did;
        let is_name = name.peer_id == record.peer_id && name.did == record.did;
        is_pid && is_name && names::normal(&name.name) == names::normal(&record.name)
    }

    fn are_alive(&self, now: Timestamp) -> bool {
        now < self.pid.expiry_date && now < self.name.expiry_date
    }
}

/// One peer's values, due to be put into the DHT.
#[derive(Clone, Debug)]
pub struct Put {
    /// Of `/node/<did>`.
    pub record: Arc<Verified<PeerRecord>>,
    /// The others, if the peer sent them.
    pub values: Option<Arc<Values>>,
}

/// A session that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    /// Whose it was.
    pub peer: PeerId,
    /// As it said last.
    pub name: String,
    /// As it said last.
    pub did: String,
    /// It was an indexer's.
    pub is_indexer: bool,
}

/// What one call of [`Registry::collect`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Sessions that ended.
    pub departed: Vec<Departed>,
    /// There may be more: call again.
    pub is_partial: bool,
}

/// A session as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Whose.
    pub peer: PeerId,
    /// The record's name, or what the heartbeat says.
    pub name: String,
    /// The record's DID, or what the heartbeat says.
    pub did: String,
    /// The peer is an indexer.
    pub is_indexer: bool,
    /// We are its referent.
    pub is_referent: bool,
    /// When it began.
    pub since: Mono,
    /// The last heartbeat.
    pub last_seen: Mono,
    /// Heartbeats.
    pub beats: u64,
    /// Number of the record held.
    pub record_seq: Option<u64>,
    /// When that expires.
    pub record_expires: Option<Timestamp>,
}

/// When a peer's values were put, and when they may be again.
#[derive(Clone, Debug, Default)]
struct Puts {
    seq: Option<u64>,
    at: Option<Mono>,
    /// Half of the life that was left at the last put is over.
    not_before: Mono,
    /// More than the date changed since, or the last put failed.
    is_urgent: bool,
    due: Option<Mono>,
}

impl Puts {
    fn due_for(&self, record: &PeerRecord, now: Mono) -> Option<Mono> {
        if self.seq == Some(record.seq) {
            return None;
        }
        let earliest = match self.at {
            None => now,
            Some(at) if self.is_urgent => at + PUT_PAUSE,
            Some(_) => self.not_before,
        };
        Some(earliest.max(now))
    }

    fn done(&mut self, record: &PeerRecord, now: Now) {
        let left = Duration::try_from(record.expiry_date.duration_since(now.wall)).unwrap_or_default();
        let not_before = now.mono + left / 2;
        *self = Self { seq: Some(record.seq), at: Some(now.mono), not_before, is_urgent: false, due: None };
    }

    fn failed(&mut self, now: Mono) {
        *self = Self { seq: None, at: Some(now), not_before: now, is_urgent: true, due: self.due };
    }
}

#[derive(Debug)]
struct Session {
    peer: PeerId,
    name: String,
    did: String,
    is_indexer: bool,
    is_referent: bool,
    /// Its pool wants no more indexers.
    is_settled: bool,
    since: Mono,
    last_seen: Mono,
    beats: u64,
    record: Option<Arc<Verified<PeerRecord>>>,
    values: Option<Arc<Values>>,
    /// The record's name in its normal form, shared with the indexes.
    normal_name: Option<Arc<str>>,
    /// Where it stands in the list that parts of names are looked for in.
    named_at: Option<usize>,
    /// The record being verified, and since when.
    asked: Option<(u64, Mono)>,
    /// Its key in `leases`, never after its end.
    lease: Mono,
    puts: Puts,
}

impl Session {
    fn is_live(&self, now: Mono) -> bool {
        now < self.last_seen + LIFE
    }

    fn record_seq(&self) -> Option<u64> {
        self.record.as_ref().map(|record| record.seq)
    }

    /// The record as a hit: the session lives and the record is not over.
    fn hit(&self, now: Now) -> Option<&Arc<Verified<PeerRecord>>> {
        self.record.as_ref().filter(|record| self.is_live(now.mono) && is_valid(record, now.wall))
    }

    fn departed(self) -> Departed {
        Departed { peer: self.peer, name: self.name, did: self.did, is_indexer: self.is_indexer }
    }

    fn view(&self) -> SessionView {
        let record = self.record.as_ref();
        SessionView {
            peer: self.peer,
            name: record.map_or_else(|| self.name.clone(), |record| record.name.clone()),
            did: record.map_or_else(|| self.did.clone(), |record| record.did.clone()),
            is_indexer: self.is_indexer,
            is_referent: self.is_referent,
            since: self.since,
            last_seen: self.last_seen,
            beats: self.beats,
            record_seq: self.record_seq(),
            record_expires: record.map(|record| record.expiry_date),
        }
    }
}

/// Not over, as receivers see it: their clocks may differ.
fn is_valid(record: &PeerRecord, now: Timestamp) -> bool {
    now.duration_since(record.expiry_date).as_millis() < CLOCK_SKEW.as_millis() as i128
}

/// The DID and the newest number of one peer, remembered past its session.
#[derive(Debug)]
struct Pin {
    did: Arc<str>,
    seq: u64,
    noted: Mono,
    /// When it was last told that it is to be written down.
    told: Mono,
}

/// Who is bound to which DID. Bounded; the peer that was silent for longest is forgotten first.
#[derive(Debug, Default)]
struct Pins {
    by_peer: HashMap<PeerId, Pin>,
    /// Owners of UUIDs; a `did:key` is bound by itself.
    owners: HashMap<Arc<str>, PeerId>,
    by_age: BTreeSet<(Mono, PeerId)>,
    max: usize,
}

impl Pins {
    fn check(&self, peer: &PeerId, did: &str) -> Result<(), DidFault> {
        if let Some(pin) = self.by_peer.get(peer) {
            return if *pin.did == *did { Ok(()) } else { Err(DidFault::Changed { held: Arc::clone(&pin.did) }) };
        }
        match did.parse() {
            Ok(Did::Key(key)) if peer_id_of(&key) != *peer => Err(DidFault::NotTheKeys),
            Ok(_) => match self.owners.get(did) {
                Some(to) => Err(DidFault::Bound { to: *to }),
                None => Ok(()),
            },
            Err(_) => Err(DidFault::Malformed),
        }
    }

    /// Notes a checked DID and number; whether the binding is to be written down.
    fn note(&mut self, peer: PeerId, did: &str, seq: u64, now: Mono) -> bool {
        self.by_age.insert((now, peer));
        if let Some(pin) = self.by_peer.get_mut(&peer) {
            if pin.noted != now {
                self.by_age.remove(&(pin.noted, peer));
            }
            pin.noted = now;
            pin.seq = pin.seq.max(seq);
            let is_due = now.since(pin.told) >= BIND_AGAIN_AFTER;
            pin.told = if is_due { now } else { pin.told };
            return is_due;
        }
        let did: Arc<str> = did.into();
        if matches!(did.parse(), Ok(Did::Uuid(_))) {
            self.owners.insert(Arc::clone(&did), peer);
        }
        self.by_peer.insert(peer, Pin { did, seq, noted: now, told: now });
        while self.by_peer.len() > self.max {
            self.forget_oldest();
        }
        true
    }

    fn forget_oldest(&mut self) {
        if let Some((_, peer)) = self.by_age.first().copied() {
            self.forget(&peer);
        }
    }

    fn forget(&mut self, peer: &PeerId) {
        let Some(pin) = self.by_peer.remove(peer) else { return };
        self.by_age.remove(&(pin.noted, *peer));
        if self.owners.get(&pin.did) == Some(peer) {
            self.owners.remove(&pin.did);
        }
    }

    fn seq(&self, peer: &PeerId) -> Option<u64> {
        self.by_peer.get(peer).map(|pin| pin.seq)
    }
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
            pins: Pins { max: PINS_MIN.max(2 * max_nodes as usize), ..Pins::default() },
            own: None,
            is_drained: false,
        }
    }

    /// Answers a heartbeat that came from `from`, and keeps or begins its session unless it is a probe.
    ///
    /// `is_indexer` is what the peer said in its hello. The gate was asked before; capacity is checked here once more,
    /// because it is a promise.
    ///
    /// # Errors
    /// When the heartbeat is another's, its name or DID is not acceptable, or there is no room for a new session.
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

    /// Values that are due to be put, the longest due first, marked as put; at most `at_most`.
    ///
    /// A peer's values are put when we become its referent or hold its first record, and then when a newer record is here
    /// and half of the life that the last put had left is over; at once, 10 s after the last put at the earliest, when
    /// more changed than number and date. The same number is never put twice unless [`Registry::put_failed`] said so.
    pub fn puts_due(&mut self, now: Now, at_most: usize) -> Vec<Put> {
        let mut due = Vec::new();
        if at_most > 0 {
            due.extend(self.own_put_due(now));
        }
        while due.len() < at_most {
            let Some((at, slot)) = self.puts.first().copied().filter(|(at, _)| *at <= now.mono) else { break };
            self.puts.remove(&(at, slot));
            let session = self.session_mut(slot);
            session.puts.due = None;
            let Some(record) = session.record.clone() else { continue };
            // What is over is not worth a put; the next record or session schedules its own.
            if session.is_live(now.mono) && now.wall < record.expiry_date {
                session.puts.done(&record, now);
                due.push(Put { record, values: alive(session.values.as_ref(), now.wall) });
            }
        }
        due
    }

    /// A put was not read back: the values are due again in 10 s.
    pub fn put_failed(&mut self, peer: &PeerId, seq: u64, now: Mono) {
        if let Some(own) = self.own.as_mut().filter(|own| own.record.peer_id == *peer && own.puts.seq == Some(seq)) {
            own.puts.failed(now);
            own.puts.due = own.puts.due_for(&own.record, now);
        }
        if let Some(slot) = self.by_peer.get(peer).copied()
            && self.session(slot).puts.seq == Some(seq)
        {
            self.session_mut(slot).puts.failed(now);
            self.schedule_put(slot, now);
        }
    }

    /// When the next put is due, if any is planned.
    #[must_use]
    pub fn next_put(&self) -> Option<Mono> {
        let own = self.own.as_ref().and_then(|own| own.puts.due);
        own.into_iter().chain(self.puts.first().map(|(due, _)| *due)).min()
    }

    /// The peer has a session that did not end.
    #[must_use]
    pub fn has_session(&self, peer: &PeerId, now: Mono) -> bool {
        self.live_slot(peer, now).is_some()
    }

    /// The record of a peer, ours included.
    #[must_use]
    pub fn by_peer(&self, peer: &PeerId, now: Now) -> Option<&Arc<Verified<PeerRecord>>> {
        let own = self.own_hit(now).filter(|own| own.record.peer_id == *peer).map(|own| &own.record);
        own.or_else(|| self.session(*self.by_peer.get(peer)?).hit(now))
    }

    /// The record with a DID, ours included.
    #[must_use]
    pub fn by_did(&self, did: &str, now: Now) -> Option<&Arc<Verified<PeerRecord>>> {
        let own = self.own_hit(now).filter(|own| own.record.did == did).map(|own| &own.record);
        own.or_else(|| self.session(*self.by_did.get(did)?).hit(now))
    }

    /// Records with exactly this name, upper and lower case being the same, ours included; at most `at_most`.
    #[must_use]
    pub fn by_name(&self, name: &str, now: Now, at_most: usize) -> Vec<Arc<Verified<PeerRecord>>> {
        let name: Arc<str> = names::normal(name).into();
        let own = self.own_hit(now).filter(|own| *own.normal_name == *name).map(|own| &own.record);
        let same = self.by_name.range((Arc::clone(&name), 0)..=(name, u32::MAX));
        let hits = same.filter_map(|(_, slot)| self.session(*slot).hit(now));
        own.into_iter().chain(hits).take(at_most).cloned().collect()
    }

    /// Records whose name contains a part, of those whose referent we are and ours; at most `at_most`, and whether any
    /// were left out.
    ///
    /// Every name is looked at, in one row: 20,000 of them take 0.1 to 0.3 ms, as long as verifying ten signatures.
    #[must_use]
    pub fn by_part(&self, part: &Part, now: Now, at_most: usize) -> (Vec<Arc<Verified<PeerRecord>>>, bool) {
        let own = self.own_hit(now).filter(|own| part.is_in_normal(&own.normal_name)).map(|own| &own.record);
        let matching = self.named.iter().filter(|(name, _)| part.is_in_normal(name));
        let hits = matching.filter_map(|(_, slot)| self.session(*slot).hit(now));
        let mut hits = own.into_iter().chain(hits);
        let found = hits.by_ref().take(at_most).cloned().collect();
        (found, hits.next().is_some())
    }

    /// Sessions, from the place `from` on, at most `at_most`; and where to go on, if there are more.
    #[must_use]
    pub fn views(&self, from: usize, at_most: usize) -> (Vec<SessionView>, Option<usize>) {
        let mut rest = self.slots.iter().enumerate().skip(from).filter_map(|(at, slot)| Some((at, slot.as_ref()?)));
        let views = rest.by_ref().take(at_most).map(|(_, session)| session.view()).collect();
        (views, rest.next().map(|(at, _)| at))
    }

    /// Peers with a session, drawn by chance, at most `at_most`: each as likely as any other.
    #[must_use]
    pub fn sample(&self, at_most: usize, now: Mono, rng: &mut impl Rng) -> Vec<PeerId> {
        let live = self.slots.iter().flatten().filter(|session| session.is_live(now));
        live.map(|session| session.peer).sample(rng, at_most)
    }

    /// Every session, as far as moving goes.
    pub fn stays(&self) -> impl Iterator<Item = Stay> + '_ {
        self.slots.iter().flatten().map(|session| Stay {
            peer: session.peer,
            since: session.since,
            is_indexer: session.is_indexer,
            is_settled: session.is_settled,
        })
    }

    /// One peer's session.
    #[must_use]
    pub fn view(&self, peer: &PeerId) -> Option<SessionView> {
        self.by_peer.get(peer).map(|slot| self.session(*slot).view())
    }

    /// Sessions, at most `max_nodes`.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.by_peer.len()).unwrap_or(u32::MAX)
    }

    /// Sessions ÷ capacity, 0 to 1.
    #[must_use]
    pub fn fill_rate(&self) -> f64 {
        f64::from(self.count()) / f64::from(self.max_nodes)
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

    /// Enters the DID and the name of the session's record.
    fn index(&mut self, slot: u32) {
        let Some(record) = self.session(slot).record.clone() else { return };
        let name: Arc<str> = names::normal(&record.name).into();
        self.by_did.insert(record.did.as_str().into(), slot);
        self.by_name.insert((Arc::clone(&name), slot));
        self.session_mut(slot).normal_name = Some(name);
        self.place_name(slot);
    }

    /// Takes back what [`Registry::index`] entered.
    fn unindex(&mut self, slot: u32) {
        let Some(session) = &mut self.slots[slot as usize] else { return };
        let Some(name) = session.normal_name.take() else { return };
        if let Some(record) = &session.record
            && self.by_did.get(record.did.as_str()) == Some(&slot)
        {
            self.by_did.remove(record.did.as_str());
        }
        self.by_name.remove(&(name, slot));
        self.place_name(slot);
    }

    /// Enters the name in the row of names, or takes it out, as it should be now.
    fn place_name(&mut self, slot: u32) {
        let session = self.session_mut(slot);
        let named_at = session.named_at.take();
        let wanted = session.normal_name.clone().filter(|_| session.is_referent);
        if let Some(at) = named_at {
            self.named.swap_remove(at);
            if let Some((_, moved)) = self.named.get(at) {
                let moved = *moved;
                self.session_mut(moved).named_at = Some(at);
            }
        }
        if let Some(name) = wanted {
            self.named.push((name, slot));
            let at = self.named.len() - 1;
            self.session_mut(slot).named_at = Some(at);
        }
    }

    fn schedule_put(&mut self, slot: u32, now: Mono) {
        let session = self.session_mut(slot);
        let record = session.record.as_ref().filter(|_| session.is_referent);
        let due = record.and_then(|record| session.puts.due_for(record, now));
        let before = std::mem::replace(&mut session.puts.due, due);
        if let Some(before) = before {
            self.puts.remove(&(before, slot));
        }
        if let Some(due) = due {
            self.puts.insert((due, slot));
        }
    }

    fn own_put_due(&mut self, now: Now) -> Option<Put> {
        let own = self.own.as_mut().filter(|own| own.puts.due.is_some_and(|due| due <= now.mono))?;
        own.puts.due = None;
        (now.wall < own.record.expiry_date).then(|| {
            own.puts.done(&own.record, now);
            Put { record: Arc::clone(&own.record), values: alive(own.values.as_ref(), now.wall) }
        })
    }

    fn own_hit(&self, now: Now) -> Option<&Own> {
        self.own.as_ref().filter(|own| is_valid(&own.record, now.wall))
    }

    fn challenged(&self, peers: &[PeerId], now: Now) -> Vec<ChallengeAnswer> {
        let answer = |peer: &PeerId| {
            let session = self.live_slot(peer, now.mono).map(|slot| self.session(slot));
            let last_seen = session.and_then(|session| now.wall.checked_sub(now.mono.since(session.last_seen)).ok());
            ChallengeAnswer { peer_id: *peer, found: session.is_some(), last_seen }
        };
        peers.iter().take(CHALLENGES_MAX).map(answer).collect()
    }

    fn live_slot(&self, peer: &PeerId, now: Mono) -> Option<u32> {
        self.by_peer.get(peer).copied().filter(|slot| self.session(*slot).is_live(now))
    }

    fn session(&self, slot: u32) -> &Session {
        self.slots[slot as usize].as_ref().expect("an indexed slot holds a session")
    }

    fn session_mut(&mut self, slot: u32) -> &mut Session {
        self.slots[slot as usize].as_mut().expect("an indexed slot holds a session")
    }
}

fn alive(values: Option<&Arc<Values>>, now: Timestamp) -> Option<Arc<Values>> {
    values.filter(|values| values.are_alive(now)).cloned()
}

/// The puts of a peer whose record becomes `new`: urgent when more changed than number and date.
fn changed(mut puts: Puts, old: Option<&Verified<PeerRecord>>, new: &PeerRecord) -> Puts {
    puts.is_urgent |= !old.is_none_or(|old| is_dated_anew(old, new));
    puts
}

/// The two differ in nothing but number and date.
fn is_dated_anew(old: &PeerRecord, new: &PeerRecord) -> bool {
    let PeerRecord {
        name,
        did,
        pub_key,
        peer_id,
        api_url,
        stream_address,
        addrs,
        nats_address,
        wallet_address,
        capabilities,
        born_at,
        expiry_date: _,
        seq: _,
    } = new;
    old.name == *name
        && old.did == *did
        && old.pub_key == *pub_key
        && old.peer_id == *peer_id
        && old.api_url == *api_url
        && old.stream_address == *stream_address
        && old.addrs == *addrs
        && old.nats_address == *nats_address
        && old.wallet_address == *wallet_address
        && old.capabilities == *capabilities
        && old.born_at == *born_at
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{collections::BTreeMap, sync::OnceLock};

    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};
    use serde_json::value::RawValue;

    use super::*;
    use crate::{identity::Keys, record::IndexerRecord, suggestions::Source, wire::DhtValues};

    const UUID: &str = "0190b5a0-0000-7000-8000-000000000001";

    /// Keys, made once: deriving is what such tests cost.
    fn made(n: u8) -> &'static (Keys, String) {
        static KEYS: OnceLock<Vec<(Keys, String)>> = OnceLock::new();
        let make = |n| {
            let keys = Keys::from_seed([n; 32]);
            let did = keys.did().to_string();
            (keys, did)
        };
        &KEYS.get_or_init(|| (0..=255).map(make).collect())[usize::from(n)]
    }

    fn keys(n: u8) -> Keys {
        made(n).0.clone()
    }

    fn peer(n: u8) -> PeerId {
        made(n).0.peer_id()
    }

    fn did(n: u8) -> String {
        made(n).1.clone()
    }

    fn now(secs: u64) -> Now {
        Now { mono: Mono::from_secs(secs), wall: Timestamp::from_second(1_000_000 + secs as i64).unwrap() }
    }

    fn plain(n: u8, seq: u64, name: &str, expires: u64) -> PeerRecord {
        let keys = keys(n);
        PeerRecord {
            name: name.to_owned(),
            did: did(n),
            pub_key: keys.pub_key().to_owned(),
            peer_id: keys.peer_id(),
            api_url: String::new(),
            stream_address: String::new(),
            addrs: Vec::new(),
            nats_address: String::new(),
            wallet_address: String::new(),
            capabilities: Vec::new(),
            born_at: now(0).wall,
            expiry_date: now(expires).wall,
            seq,
        }
    }

    fn record(n: u8, seq: u64, name: &str, expires: u64) -> Verified<PeerRecord> {
        Verified::sign(&plain(n, seq, name, expires), &keys(n))
    }

    fn uuid_record(n: u8, seq: u64) -> Verified<PeerRecord> {
        Verified::sign(&PeerRecord { did: UUID.to_owned(), ..plain(n, seq, "paris", 120) }, &keys(n))
    }

    fn values(n: u8, name: &str, expires: u64) -> Values {
        let (keys, expiry_date) = (keys(n), now(expires).wall);
        let (did, pub_key, peer_id) = (did(n), keys.pub_key().to_owned(), keys.peer_id());
        let pid = PidValue { did: did.clone(), peer_id, seq: 1, expiry_date, pub_key: pub_key.clone() };
        let name = NameClaim { name: name.to_owned(), did, peer_id, seq: 1, expiry_date, pub_key };
        Values { pid: Verified::sign(&pid, &keys), name: Verified::sign(&name, &keys) }
    }

    fn heartbeat(n: u8) -> Heartbeat {
        Heartbeat {
            seq: 7,
            name: "paris".to_owned(),
            did: String::new(),
            peer_id: peer(n),
            timestamp: 0,
            need: 0,
            record: None,
            values: None,
            challenges: Vec::new(),
            challenge_did: None,
            referent: false,
            probe: false,
            presence: None,
            traceparent: crate::trace::Traceparent::Absent,
        }
    }

    fn referent(n: u8) -> Heartbeat {
        Heartbeat { referent: true, ..heartbeat(n) }
    }

    fn with(record: &Verified<PeerRecord>) -> Heartbeat {
        Heartbeat { record: Some(record.to_raw()), peer_id: record.peer_id, ..heartbeat(0) }
    }

    /// A registry with its book and its chance.
    struct Bed {
        registry: Registry,
        book: IndexerBook,
        rng: StdRng,
    }

    impl Bed {
        fn new(max_nodes: u32) -> Self {
            Self {
                registry: Registry::new(max_nodes, now(0).wall),
                book: IndexerBook::new(peer(255), false, Mono::ZERO),
                rng: StdRng::seed_from_u64(1),
            }
        }

        fn beat(&mut self, heartbeat: &Heartbeat, at: u64) -> Result<Beat, BeatError> {
            self.registry.beat(heartbeat.peer_id, heartbeat, false, &self.book, now(at), &mut self.rng)
        }

        fn store(&mut self, record: Verified<PeerRecord>, at: u64) -> Result<Stored, RecordError> {
            self.registry.record_verified(&record.peer_id.clone(), record, None, now(at))
        }

        /// A session whose referent we are, with a verified record of seq 1 that ends at 120 s.
        fn member(&mut self, n: u8, name: &str) {
            self.beat(&referent(n), 0).unwrap();
            self.store(record(n, 1, name, 120), 0).unwrap();
        }

        fn puts(&mut self, at: u64) -> Vec<u64> {
            self.registry.puts_due(now(at), 100).iter().map(|put| put.record.seq).collect()
        }
    }

    #[test]
    fn a_beat_begins_a_session_and_the_next_keeps_it() {
        let mut bed = Bed::new(10);
        let first = bed.beat(&heartbeat(1), 5).unwrap();
        assert_eq!(first.presence, Presence::Began);
        let answer = first.answer;
        assert_eq!((answer.seq, answer.peer_count, answer.max_nodes, answer.record_seq), (7, 1, 10, None));
        assert_eq!((answer.fill_rate, answer.born_at), (0.1, now(0).wall));
        assert_eq!(bed.beat(&heartbeat(1), 25).unwrap().presence, Presence::Kept);
        let view = bed.registry.view(&peer(1)).unwrap();
        assert_eq!((view.since, view.last_seen, view.beats), (now(5).mono, now(25).mono, 2));
    }

    #[test]
    fn a_sample_is_drawn_anew_of_those_that_are_here() {
        let mut bed = Bed::new(500);
        for n in 1..=40 {
            bed.beat(&heartbeat(n), u64::from(n)).unwrap();
        }
        let mut rng = StdRng::seed_from_u64(1);
        let mut draw = |at_most, at| bed.registry.sample(at_most, Mono::from_secs(at), &mut rng);
        let (one, other) = (draw(32, 40), draw(32, 40));
        let all = |drawn: &[PeerId]| drawn.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!((all(&one).len(), all(&other).len()), (32, 32), "none twice");
        assert_ne!(all(&one), all(&other), "another one each time");
        assert_eq!(draw(50, 40).len(), 40);
        assert_eq!(all(&draw(50, 20 + 120)), all(&(21..=40).map(peer).collect::<Vec<_>>()), "not those that are over");
        assert_eq!(draw(0, 40), []);
        let times = (0..1_000).filter(|_| draw(10, 40).contains(&peer(1))).count();
        assert!((200..300).contains(&times), "a quarter of the draws: {times}");
    }

    fn challenge(n: u8) -> Heartbeat {
        Heartbeat { challenges: vec![peer(n)], ..heartbeat(n) }
    }

    #[test]
    fn witnesses_are_named_to_whoever_challenges_and_never_the_asker() {
        let mut bed = Bed::new(10);
        let named = |bed: &mut Bed, heartbeat: &Heartbeat| -> BTreeSet<PeerId> {
            bed.beat(heartbeat, 1).unwrap().answer.witnesses.iter().map(|info| info.id).collect()
        };
        assert!(named(&mut bed, &challenge(1)).is_empty(), "nobody else is here");
        bed.beat(&heartbeat(2), 1).unwrap();
        assert_eq!(named(&mut bed, &challenge(1)), [peer(2)].into());
        assert!(named(&mut bed, &heartbeat(1)).is_empty(), "it does not ask");
        assert!(named(&mut bed, &Heartbeat { probe: true, ..challenge(1) }).is_empty(), "a probe has no session");
        for n in 3..=9 {
            bed.beat(&heartbeat(n), 1).unwrap();
        }
        let all: BTreeSet<PeerId> = (0..64).flat_map(|_| named(&mut bed, &challenge(1))).collect();
        assert_eq!(all.len(), 8, "chance names each of them");
        assert!(!all.contains(&peer(1)));
        assert_eq!(named(&mut bed, &challenge(1)).len(), witness::OFFERED_MAX);
    }

    #[test]
    fn indexers_are_the_first_witnesses_while_they_are_here() {
        let mut bed = Bed::new(20);
        for n in 1..=10 {
            bed.beat(&heartbeat(n), 1).unwrap();
        }
        for n in 11..=13 {
            bed.registry.beat(peer(n), &heartbeat(n), true, &bed.book, now(1), &mut bed.rng).unwrap();
        }
        let named = |bed: &mut Bed, n| -> BTreeSet<PeerId> {
            bed.beat(&challenge(n), 1).unwrap().answer.witnesses.iter().map(|info| info.id).collect()
        };
        assert_eq!(named(&mut bed, 1), [11, 12, 13].map(peer).into());
        bed.registry.leave(&peer(12));
        let rest = named(&mut bed, 1);
        assert!(rest.contains(&peer(11)) && rest.contains(&peer(13)) && rest.len() == 3, "{rest:?}");
        assert!(!rest.contains(&peer(12)));
    }

    #[test]
    fn g18_a_heartbeat_of_another_peer_is_not_yours() {
        let mut bed = Bed::new(10);
        let error = bed.registry.beat(peer(1), &heartbeat(2), false, &bed.book, now(0), &mut bed.rng).unwrap_err();
        assert_eq!(error, BeatError::NotYours { got: peer(2) });
        let refused = error.refusal(7);
        assert_eq!((refused.refused, refused.seq), (RefusalCode::NotYours, Some(7)));
        assert_eq!(bed.registry.count(), 0);
    }

    #[test]
    fn g26_g27_a_probe_makes_no_session_and_touches_none() {
        let mut bed = Bed::new(1);
        let probe = Heartbeat { probe: true, referent: true, ..with(&record(1, 1, "paris", 120)) };
        let beat = bed.beat(&probe, 0).unwrap();
        assert_eq!((beat.presence, beat.record), (Presence::Probed, RecordStep::Absent));
        assert_eq!((bed.registry.count(), beat.answer.peer_count), (0, 0));
        bed.member(1, "paris");
        let beat = bed.beat(&Heartbeat { referent: false, ..probe }, 100).unwrap();
        assert_eq!(beat.answer.record_seq, Some(1));
        let view = bed.registry.view(&peer(1)).unwrap();
        assert!(view.is_referent && view.last_seen == now(0).mono && view.beats == 1);
        let of_another = Heartbeat { probe: true, ..heartbeat(2) };
        assert_eq!(bed.beat(&of_another, 1).unwrap().answer.fill_rate, 1.0, "a full indexer answers probes");
    }

    #[test]
    fn g22_an_empty_did_or_name_never_erases_what_is_known() {
        let mut bed = Bed::new(10);
        bed.beat(&Heartbeat { did: did(1), ..heartbeat(1) }, 0).unwrap();
        bed.beat(&Heartbeat { name: String::new(), ..heartbeat(1) }, 20).unwrap();
        let view = bed.registry.view(&peer(1)).unwrap();
        assert_eq!((view.did, view.name.as_str()), (did(1), "paris"));
    }

    #[test]
    fn a_changed_did_is_refused_and_blamed_but_ends_no_session() {
        let mut bed = Bed::new(10);
        bed.beat(&Heartbeat { did: did(1), ..heartbeat(1) }, 0).unwrap();
        let error = bed.beat(&Heartbeat { did: UUID.to_owned(), ..heartbeat(1) }, 20).unwrap_err();
        assert_eq!(error, DidFault::Changed { held: did(1).into() }.into());
        assert_eq!(error.offence(), Some(Offence::ChangedDid));
        assert_eq!(bed.registry.view(&peer(1)).unwrap().last_seen, now(0).mono);
        let error = bed.beat(&Heartbeat { did: did(3), ..heartbeat(2) }, 20).unwrap_err();
        assert_eq!((&error, error.offence()), (&DidFault::NotTheKeys.into(), Some(Offence::ChangedDid)));
        let error = bed.beat(&Heartbeat { did: "paris".to_owned(), ..heartbeat(2) }, 20).unwrap_err();
        assert_eq!((&error, error.offence()), (&DidFault::Malformed.into(), None));
        assert_eq!(bed.registry.count(), 1);
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let mut bed = Bed::new(10);
        for name in ["a\nb".to_owned(), "x".repeat(65)] {
            let error = bed.beat(&Heartbeat { name, ..heartbeat(1) }, 0).unwrap_err();
            assert_eq!(error.refusal(7).refused, RefusalCode::Invalid);
        }
        assert!(bed.beat(&Heartbeat { name: "x".repeat(64), ..heartbeat(1) }, 0).is_ok());
    }

    #[test]
    fn g20_a_uuid_is_bound_to_its_first_key_past_the_session_and_over_a_restart() {
        let mut bed = Bed::new(10);
        bed.beat(&heartbeat(1), 0).unwrap();
        let stored = bed.store(uuid_record(1, 1), 0).unwrap();
        assert!(stored.is_first);
        bed.registry.leave(&peer(1));
        bed.beat(&heartbeat(2), 0).unwrap();
        let error = bed.store(uuid_record(2, 9), 0).unwrap_err();
        assert_eq!(error, DidFault::Bound { to: peer(1) }.into());
        assert_eq!(error.offence(), Some(Offence::ChangedDid));
        let error = bed.beat(&Heartbeat { did: UUID.to_owned(), ..heartbeat(3) }, 0).unwrap_err();
        assert_eq!(error, DidFault::Bound { to: peer(1) }.into());
        // The first peer cannot take another one either.
        bed.beat(&heartbeat(1), 0).unwrap();
        let error = bed.store(record(1, 2, "paris", 120), 0).unwrap_err();
        assert_eq!(error, DidFault::Changed { held: UUID.into() }.into());
        let mut restarted = Bed::new(10);
        restarted.registry.recall(peer(1), UUID, 1, Mono::ZERO);
        restarted.beat(&heartbeat(2), 0).unwrap();
        assert!(restarted.store(uuid_record(2, 9), 0).is_err());
    }

    #[test]
    fn g20_a_binding_in_use_is_told_again_each_day() {
        let mut bed = Bed::new(10);
        bed.beat(&heartbeat(1), 0).unwrap();
        let at =
            |seq, secs: u64| PeerRecord { expiry_date: now(secs + 120).wall, ..uuid_record(1, seq).value().clone() };
        let mut store = |seq, secs| {
            bed.beat(&heartbeat(1), secs).unwrap();
            bed.store(Verified::sign(&at(seq, secs), &keys(1)), secs).unwrap().is_first
        };
        assert!(store(1, 0));
        assert!(!store(2, 86_399));
        assert!(store(3, 86_400));
        assert!(!store(4, 86_401));
    }

    #[test]
    fn g20_a_did_that_is_kept_as_anothers_is_taken_back_from_who_came_first_after_a_restart() {
        let mut bed = Bed::new(10);
        bed.beat(&heartbeat(2), 0).unwrap();
        assert!(bed.store(uuid_record(2, 9), 0).unwrap().is_first);
        assert!(bed.registry.disown(&peer(2), UUID, peer(1), Mono::ZERO).is_some());
        assert!(!bed.registry.has_session(&peer(2), Mono::ZERO));
        bed.beat(&heartbeat(2), 1).unwrap();
        assert_eq!(bed.store(uuid_record(2, 10), 1), Err(DidFault::Bound { to: peer(1) }.into()));
        bed.beat(&heartbeat(1), 1).unwrap();
        assert!(bed.store(uuid_record(1, 1), 1).is_ok());
    }

    #[test]
    fn a_drained_indexer_serves_its_sessions_and_takes_no_new_one() {
        let mut bed = Bed::new(10);
        bed.beat(&heartbeat(1), 0).unwrap();
        bed.registry.set_drained(true);
        let beaten = bed.beat(&heartbeat(1), 20).unwrap();
        assert_eq!(beaten.presence, Presence::Kept);
        let answer = beaten.answer;
        assert_eq!((answer.fill_rate, answer.peer_count, answer.max_nodes), (1.0, 1, 1), "it says that it is full");
        let error = bed.beat(&heartbeat(2), 20).unwrap_err();
        let refused = error.refusal(7);
        assert_eq!((refused.refused, error.offence()), (RefusalCode::Busy, None));
        assert!(refused.retry_after.is_some_and(|secs| (60..=120).contains(&secs)));
        let probe = Heartbeat { probe: true, ..heartbeat(3) };
        assert_eq!(bed.beat(&probe, 20).unwrap().presence, Presence::Probed);
        assert!(bed.beat(&heartbeat(1), 200).is_err(), "one that was away for too long is a newcomer");
        bed.registry.set_drained(false);
        assert!(bed.beat(&heartbeat(2), 200).is_ok());
    }

    #[test]
    fn p5_an_accepted_number_never_goes_back() {
        let mut bed = Bed::new(10);
        bed.beat(&heartbeat(1), 0).unwrap();
        bed.store(record(1, 5, "paris", 120), 0).unwrap();
        let stale = |got, held| Err(RecordError::Stale { got, held });
        assert_eq!(bed.store(record(1, 4, "paris", 120), 0), stale(4, 5));
        assert_eq!(bed.store(record(1, 5, "london", 120), 0), stale(5, 5), "another one of the same number");
        assert!(bed.store(record(1, 5, "paris", 120), 0).is_ok(), "the same one again is what is held");
        bed.registry.leave(&peer(1));
        bed.beat(&heartbeat(1), 1).unwrap();
        assert_eq!(bed.store(record(1, 4, "paris", 120), 1), stale(4, 5));
        assert!(!bed.store(record(1, 5, "paris", 120), 1).unwrap().is_first);
        assert_eq!(bed.registry.newest_seq(&peer(1)), Some(5));
        let mut restarted = Bed::new(10);
        restarted.registry.recall(peer(1), &did(1), 5, Mono::ZERO);
        restarted.beat(&heartbeat(1), 0).unwrap();
        assert_eq!(restarted.store(record(1, 4, "paris", 120), 0), stale(4, 5));
        assert!(restarted.store(record(1, 6, "paris", 120), 0).is_ok());
    }

    #[test]
    fn pins_are_bounded_and_the_oldest_goes_first() {
        let mut pins = Pins { max: 3, ..Pins::default() };
        for n in 0..5 {
            assert!(pins.note(
                peer(n),
                &format!("0190b5a0-0000-7000-8000-00000000000{n}"),
                1,
                Mono::from_secs(n.into())
            ));
            assert!(!pins.note(peer(n), "ignored", 2, Mono::from_secs(n.into())));
        }
        assert_eq!((pins.by_peer.len(), pins.by_age.len(), pins.owners.len()), (3, 3, 3));
        assert_eq!((pins.seq(&peer(1)), pins.seq(&peer(2))), (None, Some(2)));
        pins.note(peer(2), "ignored", 1, Mono::from_secs(9));
        pins.note(peer(5), UUID, 1, Mono::from_secs(9));
        assert_eq!((pins.seq(&peer(2)), pins.seq(&peer(3))), (Some(2), None));
    }

    #[test]
    fn g24_a_session_lives_exactly_two_minutes_past_its_last_beat() {
        let mut bed = Bed::new(10);
        bed.member(1, "paris");
        bed.beat(&referent(1), 50).unwrap();
        bed.store(record(1, 2, "paris", 600), 50).unwrap();
        let just_before = Now { mono: Mono::from_millis(169_999), wall: now(169).wall };
        for at in [now(130), just_before] {
            assert_eq!(bed.registry.collect(at.mono, 10), Collected::default());
            assert!(bed.registry.has_session(&peer(1), at.mono));
            assert!(bed.registry.by_peer(&peer(1), at).is_some());
        }
        // At its end it is gone from every answer, collected or not.
        assert!(!bed.registry.has_session(&peer(1), now(170).mono));
        assert!(bed.registry.by_peer(&peer(1), now(170)).is_none());
        assert!(bed.registry.by_part(&Part::new("par").unwrap(), now(170), 10).0.is_empty());
        let departed = bed.registry.collect(now(170).mono, 10).departed;
        assert_eq!((departed.len(), departed[0].peer, bed.registry.count()), (1, peer(1), 0));
    }

    #[test]
    fn a_session_that_ended_and_was_not_collected_begins_anew() {
        let mut bed = Bed::new(1);
        bed.member(1, "paris");
        let beat = bed.beat(&heartbeat(1), 120).unwrap();
        assert_eq!((beat.presence, beat.answer.record_seq), (Presence::Began, None));
        assert_eq!(bed.registry.count(), 1);
    }

    #[test]
    fn collecting_looks_at_no_more_than_it_may() {
        let mut bed = Bed::new(100);
        for n in 0..10 {
            bed.beat(&heartbeat(n), 0).unwrap();
        }
        let first = bed.registry.collect(now(120).mono, 4);
        assert_eq!((first.departed.len(), first.is_partial), (4, true));
        let second = bed.registry.collect(now(120).mono, 6);
        assert_eq!((second.departed.len(), second.is_partial, bed.registry.count()), (6, false, 0));
    }

    #[test]
    fn g17_a_full_indexer_refuses_newcomers_and_keeps_whom_it_has() {
        let mut bed = Bed::new(2);
        let info = IndexerRecord {
            peer_id: peer(200),
            addrs: vec!["/ip4/10.0.0.1/tcp/1".parse().unwrap()],
            region: String::new(),
            capacity: 1,
            fill_rate: 0.0,
            peer_count: 0,
            salt: String::new(),
            peers_digest: Vec::new(),
            born_at: now(0).wall,
            expiry_date: now(600).wall,
            seq: 1,
            pub_key: keys(200).pub_key().to_owned(),
        };
        bed.book.learn(Verified::sign(&info, &keys(200)), Source::Dht, now(0).wall);
        bed.beat(&heartbeat(1), 0).unwrap();
        assert_eq!(bed.beat(&heartbeat(2), 0).unwrap().answer.fill_rate, 1.0);
        let refused = bed.beat(&heartbeat(3), 0).unwrap_err().refusal(7);
        assert_eq!((refused.refused, refused.alternatives[0].id), (RefusalCode::Busy, peer(200)));
        assert!((30..=60).contains(&refused.retry_after.unwrap()));
        for n in [1, 2] {
            assert_eq!(bed.beat(&heartbeat(n), 20).unwrap().presence, Presence::Kept);
        }
        let asking = Heartbeat { need: 3, ..heartbeat(1) };
        assert_eq!(bed.beat(&asking, 20).unwrap().answer.suggestions.len(), 1);
        bed.registry.leave(&peer(1));
        assert!(bed.beat(&heartbeat(3), 21).is_ok());
    }

    #[test]
    fn g12_challenges_are_answered_from_sessions_that_this_beat_did_not_make_and_bounded() {
        let mut bed = Bed::new(10);
        bed.beat(&heartbeat(1), 0).unwrap();
        bed.beat(&heartbeat(2), 90).unwrap();
        let challenges = vec![peer(3), peer(1), peer(2)];
        let answers = bed.beat(&Heartbeat { challenges: challenges.clone(), ..heartbeat(3) }, 110).unwrap().answer;
        let told: Vec<_> = answers.challenges.iter().map(|told| (told.found, told.last_seen)).collect();
        assert_eq!(told, [(false, None), (true, Some(now(0).wall)), (true, Some(now(90).wall))]);
        let answers = bed.beat(&Heartbeat { challenges, ..heartbeat(3) }, 120).unwrap().answer;
        assert_eq!((answers.challenges[0].found, answers.challenges[0].last_seen), (true, Some(now(110).wall)));
        assert_eq!((answers.challenges[1].found, answers.challenges[1].last_seen), (false, None));
        for (asked, answered) in [(8, 8), (9, 8)] {
            let many = Heartbeat { challenges: vec![peer(1); asked], ..heartbeat(3) };
            assert_eq!(bed.beat(&many, 120).unwrap().answer.challenges.len(), answered);
        }
    }

    #[test]
    fn a_record_is_verified_once_and_only_when_it_claims_to_be_newer() {
        let mut bed = Bed::new(10);
        let first = record(1, 5, "paris", 600);
        assert_eq!(bed.beat(&with(&first), 0).unwrap().record, RecordStep::Verify { seq: 5 });
        assert_eq!(bed.beat(&with(&first), 1).unwrap().record, RecordStep::Pending);
        assert_eq!(bed.beat(&with(&first), 10).unwrap().record, RecordStep::Verify { seq: 5 }, "patience is over");
        bed.store(first.clone(), 10).unwrap();
        assert_eq!(bed.beat(&with(&first), 11).unwrap().record, RecordStep::Unchanged);
        let older = bed.beat(&with(&record(1, 4, "paris", 600)), 12).unwrap();
        assert_eq!(older.record, RecordStep::Rejected(RecordError::Stale { got: 4, held: 5 }));
        assert_eq!(older.answer.record_seq, Some(5));
        let newer = with(&record(1, 6, "paris", 600));
        assert_eq!(bed.beat(&newer, 13).unwrap().record, RecordStep::Verify { seq: 6 });
        bed.registry.record_failed(&peer(1), 6);
        assert_eq!(bed.beat(&newer, 14).unwrap().record, RecordStep::Verify { seq: 6 });
    }

    #[test]
    fn g19_only_the_own_verified_record_is_taken_and_found() {
        let mut bed = Bed::new(10);
        let own = record(1, 1, "paris", 120);
        let beat = bed.beat(&Heartbeat { referent: true, did: did(1), ..with(&own) }, 0).unwrap();
        assert_eq!(beat.record, RecordStep::Verify { seq: 1 });
        assert!(bed.registry.by_peer(&peer(1), now(0)).is_none(), "what is not verified is no hit");
        assert!(bed.registry.by_name("paris", now(0), 10).is_empty());
        assert!(bed.registry.by_did(&did(1), now(0)).is_none());
        let of_another = Heartbeat { peer_id: peer(1), ..with(&record(2, 9, "paris", 120)) };
        let step = bed.beat(&of_another, 1).unwrap().record;
        assert_eq!(step, RecordStep::Rejected(RecordError::NotYours { got: peer(2) }));
        let error = bed.registry.record_verified(&peer(1), record(2, 9, "paris", 120), None, now(1)).unwrap_err();
        assert_eq!(error, RecordError::NotYours { got: peer(2) });
        let garbage = Heartbeat { record: Some(RawValue::from_string("[1]".to_owned()).unwrap()), ..heartbeat(1) };
        let step = bed.beat(&garbage, 2).unwrap().record;
        assert!(matches!(step, RecordStep::Rejected(RecordError::Malformed(_))), "the beat itself stands");
        bed.store(own, 2).unwrap();
        assert!(bed.registry.by_peer(&peer(1), now(2)).is_some());
    }

    #[test]
    fn a_publication_is_judged_as_a_beat_is_and_gets_a_receipt() {
        let mut bed = Bed::new(10);
        let first = record(1, 5, "paris", 120);
        let step = bed.registry.offer(&peer(1), first.text());
        assert_eq!(step, RecordStep::Rejected(RecordError::NoSession));
        assert_eq!(bed.store(first.clone(), 0), Err(RecordError::NoSession));
        bed.beat(&heartbeat(1), 0).unwrap();
        assert_eq!(bed.registry.offer(&peer(1), first.text()), RecordStep::Verify { seq: 5 });
        let stored = bed.store(first, 0);
        let receipt = bed.registry.receipt(&peer(1), 5, stored.as_ref().copied());
        assert!(receipt.accepted && receipt.record_seq == 5 && receipt.reason.is_none());
        let stored = bed.store(record(1, 4, "paris", 120), 0);
        let receipt = bed.registry.receipt(&peer(1), 4, stored.as_ref().copied());
        assert!(!receipt.accepted && receipt.record_seq == 5 && receipt.reason.is_some());
    }

    fn names_of(found: &[Arc<Verified<PeerRecord>>]) -> Vec<&str> {
        found.iter().map(|record| record.name.as_str()).collect()
    }

    #[test]
    fn peers_are_found_by_id_did_name_and_part() {
        let mut bed = Bed::new(10);
        bed.member(1, "Paris");
        bed.member(2, "paris");
        bed.beat(&heartbeat(3), 0).unwrap();
        bed.store(record(3, 1, "Le Paris", 120), 0).unwrap();
        let registry = &bed.registry;
        assert_eq!(registry.by_peer(&peer(3), now(1)).unwrap().peer_id, peer(3));
        assert_eq!(registry.by_did(&did(2), now(1)).unwrap().peer_id, peer(2));
        assert_eq!(names_of(&registry.by_name("PARIS", now(1), 10)), ["Paris", "paris"]);
        assert_eq!(names_of(&registry.by_name("PARIS", now(1), 1)), ["Paris"]);
        assert_eq!(names_of(&registry.by_name("par", now(1), 10)), Vec::<&str>::new());
        let part = Part::new("ARI").unwrap();
        let (found, is_truncated) = registry.by_part(&part, now(1), 2);
        assert_eq!((names_of(&found), is_truncated), (vec!["Paris", "paris"], false), "not whose referent is another");
        let (found, is_truncated) = registry.by_part(&part, now(1), 1);
        assert_eq!((found.len(), is_truncated), (1, true));
        bed.beat(&referent(3), 2).unwrap();
        bed.beat(&heartbeat(1), 2).unwrap();
        assert_eq!(names_of(&bed.registry.by_part(&part, now(2), 9).0), ["Le Paris", "paris"]);
    }

    #[test]
    fn a_new_name_replaces_the_old_one_everywhere() {
        let mut bed = Bed::new(10);
        bed.member(1, "paris");
        bed.store(record(1, 2, "london", 120), 1).unwrap();
        let registry = &bed.registry;
        assert!(registry.by_name("paris", now(1), 9).is_empty());
        assert!(registry.by_part(&Part::new("par").unwrap(), now(1), 9).0.is_empty());
        assert_eq!(names_of(&registry.by_part(&Part::new("lon").unwrap(), now(1), 9).0), ["london"]);
        assert_eq!((registry.by_name.len(), registry.named.len(), registry.by_did.len()), (1, 1, 1));
    }

    #[test]
    fn a_record_that_is_over_is_no_hit() {
        let mut bed = Bed::new(10);
        bed.member(1, "paris");
        bed.beat(&referent(1), 119).unwrap();
        let skewed = 120 + CLOCK_SKEW.as_secs();
        assert!(bed.registry.by_did(&did(1), now(skewed - 1)).is_some(), "receivers allow for a wrong clock");
        assert!(bed.registry.by_did(&did(1), now(skewed)).is_none());
        assert!(bed.registry.has_session(&peer(1), now(skewed).mono));
    }

    #[test]
    fn an_indexer_is_found_as_its_own_referent() {
        let mut bed = Bed::new(10);
        bed.registry.set_own(record(9, 1, "indexer-1", 120), None, Mono::ZERO);
        let registry = &bed.registry;
        assert!(registry.by_peer(&peer(9), now(1)).is_some() && registry.by_did(&did(9), now(1)).is_some());
        assert_eq!(registry.by_name("Indexer-1", now(1), 9).len(), 1);
        assert_eq!(registry.by_part(&Part::new("dexer").unwrap(), now(1), 9).0.len(), 1);
        assert_eq!(registry.count(), 0);
        assert_eq!(bed.puts(1), [1]);
        assert!(bed.puts(2).is_empty());
        bed.registry.set_own(record(9, 2, "indexer-1", 180), None, Mono::from_secs(30));
        assert_eq!(bed.registry.next_put(), Some(now(1).mono + Duration::from_millis(59_500)));
        assert_eq!(bed.puts(61), [2]);
        bed.registry.put_failed(&peer(9), 2, Mono::from_secs(62));
        assert!(bed.puts(71).is_empty());
        assert_eq!(bed.puts(72), [2]);
    }

    #[test]
    fn values_are_put_once_per_half_of_the_life_that_was_left() {
        let mut bed = Bed::new(10);
        bed.member(1, "paris");
        assert_eq!(bed.puts(0), [1], "at once, when we become the referent");
        assert!(bed.puts(59).is_empty());
        assert!(bed.puts(61).is_empty(), "the same number is not put twice");
        bed.beat(&referent(1), 66).unwrap();
        bed.store(record(1, 2, "paris", 186), 66).unwrap();
        assert_eq!(bed.puts(66), [2]);
        bed.store(record(1, 3, "paris", 200), 80).unwrap();
        assert_eq!(bed.registry.next_put(), Some(now(126).mono));
        assert!(bed.puts(125).is_empty());
        assert_eq!(bed.puts(126), [3]);
    }

    #[test]
    fn changed_addresses_are_put_soon_but_never_within_ten_seconds() {
        let mut bed = Bed::new(10);
        bed.member(1, "paris");
        bed.puts(0);
        let mut moved = plain(1, 2, "paris", 125);
        moved.addrs = vec!["/ip4/10.0.0.2/tcp/1".parse().unwrap()];
        bed.store(Verified::sign(&moved, &keys(1)), 5).unwrap();
        // A later record that changes nothing more does not take the haste away.
        bed.store(Verified::sign(&PeerRecord { seq: 3, ..moved }, &keys(1)), 6).unwrap();
        assert!(bed.puts(9).is_empty());
        assert_eq!(bed.puts(10), [3]);
    }

    #[test]
    fn only_the_referent_puts_and_a_new_one_takes_over_at_once() {
        let mut bed = Bed::new(10);
        bed.beat(&heartbeat(1), 0).unwrap();
        bed.store(record(1, 1, "paris", 600), 0).unwrap();
        assert_eq!((bed.puts(5), bed.registry.next_put()), (vec![], None));
        bed.beat(&referent(1), 10).unwrap();
        assert_eq!(bed.puts(10), [1]);
        bed.store(record(1, 2, "london", 600), 11).unwrap();
        bed.beat(&heartbeat(1), 12).unwrap();
        assert!(bed.puts(100).is_empty(), "another one's now");
        bed.beat(&referent(1), 110).unwrap();
        assert_eq!(bed.puts(110), [2]);
        bed.registry.leave(&peer(1));
        assert_eq!(bed.registry.next_put(), None);
    }

    #[test]
    fn a_failed_put_is_due_again_and_an_expired_record_is_not() {
        let mut bed = Bed::new(10);
        bed.member(1, "paris");
        bed.puts(0);
        bed.registry.put_failed(&peer(1), 9, Mono::from_secs(1));
        assert!(bed.puts(20).is_empty(), "that was another number");
        bed.registry.put_failed(&peer(1), 1, Mono::from_secs(20));
        assert!(bed.puts(29).is_empty());
        assert_eq!(bed.puts(30), [1]);
        bed.registry.put_failed(&peer(1), 1, Mono::from_secs(115));
        assert!(bed.puts(125).is_empty());
        assert_eq!(bed.registry.next_put(), None);
    }

    #[test]
    fn g30_however_often_the_referent_changes_one_put_is_planned() {
        let mut bed = Bed::new(10);
        bed.member(1, "paris");
        for at in 0..100 {
            bed.beat(&heartbeat(1), at).unwrap();
            assert!(bed.registry.puts.is_empty());
            bed.beat(&referent(1), at).unwrap();
            assert_eq!(bed.registry.puts.len(), 1);
        }
        assert_eq!(bed.puts(100), [1]);
        bed.beat(&heartbeat(1), 101).unwrap();
        bed.beat(&referent(1), 102).unwrap();
        assert_eq!((bed.puts(102), bed.registry.next_put()), (vec![], None), "its number was put");
    }

    #[test]
    fn g23_a_beat_copies_no_record() {
        let mut bed = Bed::new(10);
        for n in 1..=5 {
            bed.member(n, "paris");
        }
        let held = Arc::clone(bed.registry.by_peer(&peer(1), now(0)).unwrap());
        for n in 1..=5 {
            bed.beat(&referent(n), 20).unwrap();
        }
        assert_eq!(Arc::strong_count(&held), 2, "the session's and ours");
    }

    #[test]
    fn nothing_is_put_for_a_session_that_ended() {
        let mut bed = Bed::new(10);
        bed.beat(&referent(1), 0).unwrap();
        bed.store(record(1, 1, "paris", 600), 0).unwrap();
        assert!(bed.puts(120).is_empty());
        bed.beat(&referent(1), 121).unwrap();
        bed.store(record(1, 1, "paris", 600), 121).unwrap();
        assert_eq!(bed.puts(121), [1]);
    }

    #[test]
    fn puts_come_in_batches() {
        let mut bed = Bed::new(10);
        for n in 1..=5 {
            bed.member(n, "paris");
        }
        assert_eq!(bed.registry.puts_due(now(0), 0).len(), 0);
        assert_eq!(bed.registry.puts_due(now(0), 3).len(), 3);
        assert_eq!(bed.registry.puts_due(now(0), 3).len(), 2);
    }

    #[test]
    fn values_travel_with_their_record_and_must_agree_with_it() {
        let mut bed = Bed::new(10);
        bed.beat(&referent(1), 0).unwrap();
        let taken = bed.registry.record_verified(
            &peer(1),
            record(1, 1, "Paris", 120),
            Some(Arc::new(values(2, "paris", 120))),
            now(0),
        );
        assert!(!taken.unwrap().has_values, "another peer's");
        let put = bed.registry.puts_due(now(0), 1).remove(0);
        assert!(put.values.is_none());
        let taken = bed.registry.record_verified(
            &peer(1),
            record(1, 2, "Paris", 190),
            Some(Arc::new(values(1, "paris", 65))),
            now(60),
        );
        assert!(taken.unwrap().has_values);
        assert!(bed.registry.puts_due(now(60), 1).remove(0).values.is_some());
        bed.registry.put_failed(&peer(1), 2, Mono::from_secs(60));
        assert!(bed.registry.puts_due(now(70), 1).remove(0).values.is_none(), "they are over");
    }

    #[test]
    fn a_new_referent_asks_for_the_values_of_a_record_that_it_has() {
        let mut bed = Bed::new(10);
        let held = record(1, 1, "paris", 120);
        bed.beat(&heartbeat(1), 0).unwrap();
        bed.store(held.clone(), 0).unwrap();
        let raw = values(1, "paris", 120);
        let raw = DhtValues { pid: raw.pid.to_raw(), name: raw.name.to_raw() };
        let nudge = Heartbeat { referent: true, values: Some(raw), ..with(&held) };
        assert_eq!(bed.beat(&nudge, 10).unwrap().record, RecordStep::Verify { seq: 1 });
        assert_eq!(bed.beat(&nudge, 11).unwrap().record, RecordStep::Pending);
        assert_eq!(bed.puts(11), [1], "the record alone, meanwhile");
        let stored =
            bed.registry.record_verified(&peer(1), held, Some(Arc::new(values(1, "paris", 120))), now(12)).unwrap();
        assert!(stored.has_values && !stored.is_first);
        assert!(bed.puts(20).is_empty());
        assert!(bed.registry.puts_due(now(21), 1).remove(0).values.is_some());
        assert_eq!(bed.beat(&nudge, 22).unwrap().record, RecordStep::Unchanged);
    }

    #[test]
    fn views_come_in_pages() {
        let mut bed = Bed::new(10);
        for n in 1..=5 {
            bed.member(n, "paris");
        }
        bed.registry.leave(&peer(2));
        let (first, next) = bed.registry.views(0, 2);
        let (second, end) = bed.registry.views(next.unwrap(), 2);
        let peers: Vec<_> = first.iter().chain(&second).map(|view| view.peer).collect();
        assert_eq!((peers, end), (vec![peer(1), peer(3), peer(4), peer(5)], None));
    }

    /// Five peers and three records each, signed once: signing is what such tests cost.
    fn prepared(n: u8, at: u64) -> &'static Verified<PeerRecord> {
        static RECORDS: OnceLock<Vec<Verified<PeerRecord>>> = OnceLock::new();
        let records = RECORDS.get_or_init(|| {
            let names = ["paris", "Paris", "london"];
            (0..15).map(|at| record(at / 3, u64::from(at % 3) + 1, names[usize::from(at * 7 % 3)], 100_000)).collect()
        });
        &records[usize::from(n) * 3 + at as usize]
    }

    #[derive(Clone, Debug)]
    enum Step {
        Beat { peer: u8, referent: bool },
        Store { peer: u8, at: u64 },
        Leave { peer: u8 },
        Wait { secs: u64 },
        Collect { at_most: usize },
        Put,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0u8..5, any::<bool>()).prop_map(|(peer, referent)| Step::Beat { peer, referent }),
            3 => (0u8..5, 0u64..3).prop_map(|(peer, at)| Step::Store { peer, at }),
            1 => (0u8..5).prop_map(|peer| Step::Leave { peer }),
            2 => (0u64..70).prop_map(|secs| Step::Wait { secs }),
            1 => (0usize..4).prop_map(|at_most| Step::Collect { at_most }),
            1 => Just(Step::Put),
        ];
        proptest::collection::vec(step, 1..120)
    }

    /// What a session is, said simply.
    #[derive(Clone, Debug, Default)]
    struct Plain {
        last_seen: u64,
        referent: bool,
        record: Option<u64>,
    }

    proptest! {
        /// Random beats, records, leaves and expiries against a naive model: the same is found, and no index leaks.
        #[test]
        fn the_indexes_agree_with_a_naive_model(steps in steps()) {
            let mut bed = Bed::new(4);
            let mut model = BTreeMap::<u8, Plain>::new();
            let mut newest = BTreeMap::<u8, u64>::new();
            let mut at = 0;
            for step in steps {
                match step {
                    Step::Beat { peer, referent } => {
                        if model.get(&peer).is_some_and(|session| at - session.last_seen >= 120) {
                            model.remove(&peer);
                        }
                        let is_welcome = model.contains_key(&peer) || model.len() < 4;
                        let beat = bed.beat(&Heartbeat { referent, ..heartbeat(peer) }, at);
                        prop_assert_eq!(beat.is_ok(), is_welcome);
                        if is_welcome {
                            let session = model.entry(peer).or_default();
                            (session.last_seen, session.referent) = (at, referent);
                        }
                    }
                    Step::Store { peer, at: which } => {
                        let stored = bed.store(prepared(peer, which).clone(), at);
                        let newest = newest.entry(peer).or_default();
                        let is_taken = model.get(&peer).is_some_and(|session| match session.record {
                            Some(held) => which >= held,
                            None => which + 1 >= *newest,
                        });
                        prop_assert_eq!(stored.is_ok(), is_taken, "{:?}", stored);
                        if is_taken {
                            *newest = which + 1;
                            model.get_mut(&peer).unwrap().record = Some(which);
                        }
                    }
                    Step::Leave { peer: n } => {
                        prop_assert_eq!(bed.registry.leave(&peer(n)).is_some(), model.remove(&n).is_some());
                    }
                    Step::Wait { secs } => at += secs,
                    Step::Collect { at_most } => {
                        let collected = bed.registry.collect(now(at).mono, at_most);
                        prop_assert!(collected.departed.len() <= at_most);
                        for departed in collected.departed {
                            let n = (0..5).find(|n| peer(*n) == departed.peer).unwrap();
                            prop_assert!(model.remove(&n).is_some_and(|session| at - session.last_seen >= 120));
                        }
                    }
                    Step::Put => {
                        for put in bed.registry.puts_due(now(at), 2) {
                            let n = (0..5).find(|n| peer(*n) == put.record.peer_id).unwrap();
                            let session = &model[&n];
                            prop_assert!(session.referent && session.record == Some(put.record.seq - 1));
                        }
                    }
                }
                check(&bed.registry, &model, at)?;
            }
            let _ = bed.registry.collect(now(at + 120).mono, 100);
            let registry = &bed.registry;
            prop_assert!(registry.by_peer.is_empty() && registry.by_did.is_empty() && registry.by_name.is_empty());
            prop_assert!(registry.named.is_empty() && registry.leases.is_empty() && registry.puts.is_empty());
            prop_assert!(registry.slots.iter().all(Option::is_none) && registry.free.len() == registry.slots.len());
        }
    }

    fn check(registry: &Registry, model: &BTreeMap<u8, Plain>, at: u64) -> Result<(), TestCaseError> {
        prop_assert_eq!(registry.count() as usize, model.len());
        prop_assert_eq!(registry.leases.len(), model.len());
        prop_assert!(registry.slots.len() <= 4);
        let with_record = model.values().filter(|session| session.record.is_some());
        prop_assert_eq!(registry.by_name.len(), with_record.clone().count());
        prop_assert_eq!(registry.by_did.len(), with_record.clone().count());
        prop_assert_eq!(registry.named.len(), with_record.filter(|session| session.referent).count());
        let live = model.iter().filter(|(_, session)| at - session.last_seen < 120);
        let records = live.filter_map(|(n, session)| Some((session.referent, prepared(*n, session.record?))));
        let records: Vec<_> = records.collect();
        for n in 0..5 {
            let expected = records.iter().find(|(_, record)| record.peer_id == peer(n)).map(|(_, record)| record.seq);
            prop_assert_eq!(registry.by_peer(&peer(n), now(at)).map(|record| record.seq), expected);
            prop_assert_eq!(registry.by_did(&did(n), now(at)).map(|record| record.seq), expected);
        }
        for name in ["paris", "london"] {
            let exact = records.iter().filter(|(_, record)| record.name.eq_ignore_ascii_case(name));
            prop_assert_eq!(registry.by_name(name, now(at), 9).len(), exact.clone().count());
            let part = Part::new(&name[1..4]).unwrap();
            prop_assert_eq!(
                registry.by_part(&part, now(at), 9).0.len(),
                exact.filter(|(referent, _)| *referent).count()
            );
        }
        Ok(())
    }
}
