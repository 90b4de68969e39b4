//! How much a peer may ask for, and what becomes of one that asks for more or signs falsely.
//!
//! Requests are counted per peer and kind over a sliding minute. Above the limit the answer is a time to wait; only a peer
//! that goes on, above twice the limit, earns a strike. Three strikes are a ban. A ban for asking too much closes that kind
//! alone and never heartbeats; a ban for a false signature or a changed DID closes everything.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::{
    bans::{Ban, Left, Origin, later},
    time::{Mono, Now},
    wire::{Protocol, RefusalCode, Refused},
};

/// The minute over which requests are counted.
pub const WINDOW: Duration = Duration::from_secs(60);

/// How long one strike counts.
pub const STRIKE_LIFE: Duration = Duration::from_secs(3600);

/// So many living strikes are a ban.
pub const STRIKES_MAX: usize = 3;

/// The first ban; each further one lasts twice as long.
pub const BAN_FIRST: Duration = Duration::from_secs(600);

/// No ban lasts longer.
pub const BAN_LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A peer is a repeat offender until its last ban has been over for so long.
pub const BAN_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// Whoever counts is seen every second or more often; one that was not for so long did not run.
const PAUSE: Duration = Duration::from_secs(5);

/// What waited in the sockets during a pause is taken in within this.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Slots of one window: finer costs memory per peer, coarser lets a peer wait longer than it must.
const SLOTS: usize = 12;

/// Seconds of one slot.
const SLOT_SECS: u64 = WINDOW.as_secs() / SLOTS as u64;

/// A slot counts to 65,535, so no limit is higher; the profile `load` stays below it.
pub(crate) const LIMIT_MAX: u32 = u16::MAX as u32;

/// Entries looked at to find room for one more peer: enough to pass over banned ones, few enough for the hot path.
const LOOKS_MAX: usize = 16;

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Heartbeats, probes included.
    Heartbeat,
    /// Published records, and leaves.
    Publish,
    /// Look-ups, questions for candidates and to witnesses, audits.
    Get,
    /// Searches.
    Search,
    /// Bandwidth probes.
    Bandwidth,
}

impl Kind {
    /// Every kind, in the order of their counters.
    pub const ALL: [Self; 5] = [Self::Heartbeat, Self::Publish, Self::Get, Self::Search, Self::Bandwidth];

    /// As which kind a request of this protocol counts.
    ///
    /// Nothing for hello, one of which fits on a connection, and for results, which are asked for.
    #[must_use]
    pub const fn of(protocol: Protocol) -> Option<Self> {
        match protocol {
            Protocol::Heartbeat => Some(Self::Heartbeat),
            Protocol::Publish | Protocol::Leave => Some(Self::Publish),
            Protocol::Get | Protocol::Candidates | Protocol::Witness | Protocol::Audit => Some(Self::Get),
            Protocol::Search => Some(Self::Search),
            Protocol::Bandwidth => Some(Self::Bandwidth),
            // Events are counted by the member that takes them, whichever its role; see [`crate::event`].
            // Echoes count for nothing unless we sent the beacon.
            Protocol::Hello
            | Protocol::SearchResponse
            | Protocol::Echo
            | Protocol::Revoke
            | Protocol::Revocations
            | Protocol::Event(_) => None,
        }
    }
}

/// How much one peer may ask for in a minute, before the profile's factor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Heartbeats: a node sends at most 5, nudges and restarts included.
    pub heartbeats: u32,
    /// Records.
    pub publishes: u32,
    /// Look-ups.
    pub gets: u32,
    /// Searches.
    pub searches: u32,
    /// Bandwidth probes: a node makes one in 15 beats.
    pub bandwidth_probes: u32,
    /// Peers remembered; above it the one whose memory would end first is forgotten. At least twice `max_nodes`, or a peer
    /// under its limit may be forgotten and start anew.
    pub peers_max: usize,
}

impl Settings {
    /// The limits in the order of [`Kind::ALL`].
    pub(crate) fn requests(&self) -> [u32; Kind::ALL.len()] {
        [self.heartbeats, self.publishes, self.gets, self.searches, self.bandwidth_probes]
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { heartbeats: 8, publishes: 10, gets: 50, searches: 20, bandwidth_probes: 4, peers_max: 32_768 }
    }
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It may be served.
    Pass,
    /// It is over the limit.
    RetryAfter {
        /// Whole seconds after which one more passes.
        secs: u64,
        /// More than twice the limit came: whoever serves the stream had better close it.
        flood: bool,
    },
    /// The peer is banned from this kind, or from everything.
    Banned {
        /// Whole seconds until the ban ends.
        secs: u64,
        /// This very request was the one too many: the ban is to be written down.
        is_new: bool,
    },
}

impl Verdict {
    /// The refusal in the words of the wire; nothing for a request that passes.
    #[must_use]
    pub fn refusal(self) -> Option<Refused> {
        match self {
            Self::Pass => None,
            Self::RetryAfter { secs, .. } => {
                Some(Refused::new(RefusalCode::Limit, "too many requests in a minute").retry_after(secs))
            }
            Self::Banned { secs, .. } => Some(Refused::new(RefusalCode::Banned, "banned").retry_after(secs)),
        }
    }
}

/// What no honest program does; each is two strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Offence {
    /// It signed what does not verify.
    BadSignature,
    /// It came with another DID than before, or with another's.
    ChangedDid,
}

impl Offence {
    /// How many strikes it is worth.
    const fn strikes(self) -> usize {
        match self {
            Self::BadSignature | Self::ChangedDid => 2,
        }
    }

    /// In words.
    const fn words(self) -> &'static str {
        match self {
            Self::BadSignature => "a signature that does not verify",
            Self::ChangedDid => "a DID that is not its own",
        }
    }
}

/// What a ban closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Everything.
    All,
    /// Requests of one kind, for asking too much.
    Kind(Kind),
}

impl Scope {
    /// Every scope there is.
    pub const EVERY: [Self; 6] = [
        Self::All,
        Self::Kind(Kind::Heartbeat),
        Self::Kind(Kind::Publish),
        Self::Kind(Kind::Get),
        Self::Kind(Kind::Search),
        Self::Kind(Kind::Bandwidth),
    ];

    /// Its name, as it is kept and shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Kind(Kind::Heartbeat) => "heartbeat",
            Self::Kind(Kind::Publish) => "publish",
            Self::Kind(Kind::Get) => "get",
            Self::Kind(Kind::Search) => "search",
            Self::Kind(Kind::Bandwidth) => "bandwidth",
        }
    }

    /// The scope with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::EVERY.into_iter().find(|scope| scope.name() == name)
    }
}

/// Requests of one kind in the last minute, by slots of 5 s.
///
/// The current slot and the 11 before it count, so an event counts for 55 to 60 s: a peer that keeps to the limit in every
/// minute is never refused, and none passes more than the limit in any 55 s.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    counts: [u16; SLOTS],
    newest: u32,
    sum: u32,
}

impl Window {
    /// Forgets what is older than the window, then counts what is left.
    pub(crate) fn count(&mut self, now: Mono) -> u32 {
        let current = u32::try_from(now.since_start().as_secs() / SLOT_SECS).unwrap_or(u32::MAX);
        let passed = current.saturating_sub(self.newest);
        self.newest = self.newest.max(current);
        if passed as usize >= SLOTS {
            self.clear();
            return 0;
        }
        for slot in (current - passed + 1)..=current {
            self.sum -= u32::from(std::mem::take(&mut self.counts[slot as usize % SLOTS]));
        }
        self.sum
    }

    /// Counts one event in the slot that [`Window::count`] was last asked for.
    pub(crate) fn add(&mut self) {
        let slot = &mut self.counts[self.newest as usize % SLOTS];
        if let Some(count) = slot.checked_add(1) {
            *slot = count;
            self.sum += 1;
        }
    }

    fn clear(&mut self) {
        self.counts = [0; SLOTS];
        self.sum = 0;
    }

    /// Whole seconds until fewer than `limit` events count, at least one.
    pub(crate) fn secs_until_below(&self, limit: u32, now: Mono) -> u64 {
        let mut left = self.sum;
        let newest = u64::from(self.newest);
        let oldest = (newest + 1).saturating_sub(SLOTS as u64);
        let gone = (oldest..=newest).find(|slot| {
            left -= u32::from(self.counts[*slot as usize % SLOTS]);
            left < limit
        });
        let free_at = Mono::from_secs((gone.unwrap_or(newest) + SLOTS as u64) * SLOT_SECS);
        secs_ceil(free_at.since(now)).max(1)
    }
}

/// Whole seconds, rounded up.
fn secs_ceil(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// What is known of one peer and one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    passed: Window,
    refused: Window,
    banned_until: Mono,
}

/// What is known of one peer.
#[derive(Clone, Debug, Default)]
struct Entry {
    seen: Mono,
    lines: [Line; Kind::ALL.len()],
    /// When the living strikes were given; one more than fit here is a ban.
    strikes: [Option<Mono>; STRIKES_MAX - 1],
    banned_until: Mono,
    offences: u32,
    /// From here on the next ban is a first one again.
    forgiven: Mono,
}

impl Entry {
    fn banned_until(&self, kind: Option<Kind>) -> Mono {
        kind.map_or(self.banned_until, |kind| self.banned_until.max(self.lines[kind as usize].banned_until))
    }

    /// Gives strikes; the ban's length if these were too many.
    fn strike(&mut self, strikes: usize, now: Mono) -> Option<Duration> {
        for given in &mut self.strikes {
            given.take_if(|given| now.since(*given) >= STRIKE_LIFE);
        }
        for _ in 0..strikes {
            let Some(free) = self.strikes.iter_mut().find(|given| given.is_none()) else {
                self.strikes = Default::default();
                return Some(self.ban_length(now));
            };
            *free = Some(now);
        }
        None
    }

    fn ban_length(&mut self, now: Mono) -> Duration {
        if now >= self.forgiven {
            self.offences = 0;
        }
        let length = BAN_FIRST.saturating_mul(1 << self.offences.min(16)).min(BAN_LONGEST);
        self.offences = self.offences.saturating_add(1);
        self.forgiven = self.forgiven.max(now + length + BAN_MEMORY);
        length
    }

    fn close(&mut self, scope: Scope, until: Mono) {
        match scope {
            Scope::All => self.banned_until = until,
            Scope::Kind(kind) => self.lines[kind as usize].banned_until = until,
        }
    }

    /// When nothing that is known here matters any more.
    fn forget_at(&self) -> Mono {
        let strikes = self.strikes.iter().flatten().map(|given| *given + STRIKE_LIFE);
        let bans = (self.offences > 0).then_some(self.forgiven);
        strikes.chain(bans).fold(self.seen + WINDOW, Mono::max)
    }
}

fn limits(settings: &Settings, factor: u32) -> [u32; Kind::ALL.len()] {
    settings.requests().map(|requests| requests.saturating_mul(factor).min(LIMIT_MAX))
}

/// What every peer asked for lately, its strikes and its bans.
///
/// Bounded by `peers_max`. A restart forgets counts and strikes; bans are told when they are made, and taken up again with
/// [`Behaviour::restore`].
#[derive(Debug)]
pub struct Behaviour {
    limits: [u32; Kind::ALL.len()],
    peers_max: usize,
    entries: HashMap<PeerId, Entry>,
    /// One ticket per entry, due no later than the entry may be forgotten; looked at and put back when it was too early.
    tickets: BTreeSet<(Mono, PeerId)>,
    /// When we were last known to run; nothing before [`Behaviour::awake`] is called for the first time.
    awake: Option<Mono>,
    /// Until then nothing is counted.
    uncounted_until: Mono,
}

impl Behaviour {
    /// Nobody known; every limit times the profile's `factor`.
    #[must_use]
    pub fn new(settings: &Settings, factor: u32) -> Self {
        Self {
            limits: limits(settings, factor),
            peers_max: settings.peers_max.max(1),
            entries: HashMap::new(),
            tickets: BTreeSet::new(),
            awake: None,
            uncounted_until: Mono::default(),
        }
    }

    /// New limits; what was asked in the last minute still counts, and so do strikes and bans. `peers_max` stays.
    pub fn set_limits(&mut self, settings: &Settings, factor: u32) {
        self.limits = limits(settings, factor);
    }

    /// Says that we run. Once it was called it is to be called at least once a second.
    ///
    /// After a pause of 5 s (a suspended process, a stopped machine) requests of minutes come in at one time, and whoever
    /// sent them kept to the limits: for 2 s nothing is counted.
    pub fn awake(&mut self, now: Mono) {
        if self.awake.is_some_and(|last| now.since(last) >= PAUSE) {
            self.uncounted_until = now + CATCH_UP;
        }
        self.awake = Some(now);
    }

    /// How many requests of a kind pass in a minute.
    #[must_use]
    pub fn limit(&self, kind: Kind) -> u32 {
        self.limits[kind as usize]
    }

    /// Counts a request and says what to answer. To be asked once per request, of peers that said hello only.
    pub fn observe(&mut self, peer: PeerId, kind: Kind, now: Mono) -> Verdict {
        // What waited may come before the call that is to say that we run again.
        if self.awake.is_some() {
            self.awake(now);
        }
        let limit = self.limit(kind);
        let is_uncounted = now < self.uncounted_until;
        let entry = self.entry(peer, now);
        if let Some(wait) = left(entry.banned_until(Some(kind)), now) {
            return Verdict::Banned { secs: secs_ceil(wait), is_new: false };
        }
        if is_uncounted {
            return Verdict::Pass;
        }
        let line = &mut entry.lines[kind as usize];
        if line.passed.count(now) < limit {
            line.passed.add();
            return Verdict::Pass;
        }
        line.refused.count(now);
        line.refused.add();
        let secs = line.passed.secs_until_below(limit, now);
        let flood = line.passed.sum + line.refused.sum > 2 * limit;
        // A heartbeat is never worth a strike: a peer that cannot be counted out cannot flap either.
        if !flood || kind == Kind::Heartbeat {
            return Verdict::RetryAfter { secs, flood };
        }
        line.refused.clear();
        let Some(length) = entry.strike(1, now) else { return Verdict::RetryAfter { secs, flood } };
        entry.close(Scope::Kind(kind), now + length);
        Verdict::Banned { secs: length.as_secs(), is_new: true }
    }

    /// Notes an offence; the ban, if it was one too many.
    pub fn offend(&mut self, peer: PeerId, offence: Offence, now: Now) -> Option<Ban> {
        let entry = self.entry(peer, now.mono);
        let length = entry.strike(offence.strikes(), now.mono)?;
        entry.close(Scope::All, now.mono + length);
        self.ban(&peer, Scope::All, offence.words(), now)
    }

    /// The ban for asking too much that [`Verdict::Banned`] told of, to be written down.
    #[must_use]
    pub fn rate_ban(&self, peer: &PeerId, kind: Kind, now: Now) -> Option<Ban> {
        self.ban(peer, Scope::Kind(kind), "too many requests", now)
    }

    fn ban(&self, peer: &PeerId, scope: Scope, reason: &str, now: Now) -> Option<Ban> {
        let entry = self.entries.get(peer)?;
        let until = match scope {
            Scope::All => entry.banned_until,
            Scope::Kind(kind) => entry.lines[kind as usize].banned_until,
        };
        Some(Ban {
            peer: *peer,
            scope,
            since: now.wall,
            until: Some(later(now.wall, left(until, now.mono)?)),
            offences: entry.offences,
            origin: Origin::Rule,
            reason: reason.to_owned(),
        })
    }

    /// How long the peer is still banned: from everything, or with a kind from that kind too.
    ///
    /// Asking makes no entry.
    #[must_use]
    pub fn banned(&self, peer: &PeerId, kind: Option<Kind>, now: Mono) -> Option<Duration> {
        self.entries.get(peer).and_then(|entry| left(entry.banned_until(kind), now))
    }

    /// Takes up rules' bans that were written down. One that is over makes the next one longer none the less, until it is
    /// forgiven; none becomes longer than a day.
    pub fn restore<'a>(&mut self, bans: impl IntoIterator<Item = &'a Ban>, now: Now) {
        for ban in bans.into_iter().filter(|ban| ban.origin == Origin::Rule) {
            let Some(forgiven) = ban.until.and_then(|until| until.checked_add(BAN_MEMORY).ok()) else { continue };
            let memory = forgiven.duration_since(now.wall);
            if !memory.is_positive() {
                continue;
            }
            let forgiven = now.mono + memory.unsigned_abs().min(BAN_LONGEST + BAN_MEMORY);
            let entry = self.entry(ban.peer, now.mono);
            if let Left::For(left) = ban.left(now.wall) {
                entry.close(ban.scope, now.mono + left);
            }
            entry.offences = entry.offences.max(ban.offences).max(1);
            entry.forgiven = entry.forgiven.max(forgiven);
        }
    }

    /// An operator takes every ban of the peer back: its strikes and its past are forgotten with them.
    pub fn forgive(&mut self, peer: &PeerId) {
        let Some(entry) = self.entries.get_mut(peer) else { return };
        let seen = entry.seen;
        let passed = entry.lines.map(|line| Line { passed: line.passed, ..Line::default() });
        *entry = Entry { seen, lines: passed, ..Entry::default() };
    }

    /// Forgets peers of which nothing matters any more, looking at no more than `at_most`; how many it forgot.
    pub fn collect(&mut self, now: Mono, at_most: usize) -> usize {
        let before = self.entries.len();
        for _ in 0..at_most {
            match self.tickets.first() {
                Some((due, _)) if *due <= now => self.forget_first(),
                _ => break,
            };
        }
        before - self.entries.len()
    }

    /// Peers remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nobody is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn entry(&mut self, peer: PeerId, now: Mono) -> &mut Entry {
        if self.entries.len() >= self.peers_max && !self.entries.contains_key(&peer) {
            self.make_room();
        }
        let entry = self.entries.entry(peer).or_insert_with(|| {
            self.tickets.insert((now + WINDOW, peer));
            Entry::default()
        });
        entry.seen = now;
        entry
    }

    fn make_room(&mut self) {
        let mut looks = 0;
        while self.entries.len() >= self.peers_max && !self.tickets.is_empty() {
            looks += 1;
            if !self.forget_first() && looks >= LOOKS_MAX {
                // Every one looked at was worth keeping, yet the bound holds.
                if let Some((_, peer)) = self.tickets.pop_first() {
                    self.entries.remove(&peer);
                }
            }
        }
    }

    /// Takes the first ticket; forgets its peer, or puts the ticket back to when that may be done.
    fn forget_first(&mut self) -> bool {
        let Some((due, peer)) = self.tickets.pop_first() else { return false };
        match self.entries.get(&peer).map(Entry::forget_at) {
            Some(forget_at) if forget_at > due => {
                self.tickets.insert((forget_at, peer));
                false
            }
            _ => self.entries.remove(&peer).is_some(),
        }
    }
}

/// What is left until a point, if it is not reached.
fn left(until: Mono, now: Mono) -> Option<Duration> {
    Some(until.since(now)).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::VecDeque;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn peer(n: u8) -> PeerId {
        // A sha2-256 multihash: no key is needed to count.
        PeerId::from_bytes(&[&[0x12, 0x20][..], &[n; 32]].concat()).unwrap()
    }

    fn behaviour() -> Behaviour {
        Behaviour::new(&Settings::default(), 1)
    }

    fn now(secs: u64) -> Now {
        Now { mono: Mono::from_secs(secs), wall: Timestamp::from_second(1_000_000 + secs as i64).unwrap() }
    }

    #[test]
    fn what_waited_while_we_did_not_run_is_not_counted() {
        let mut behaviour = behaviour();
        for secs in 0..=60 {
            behaviour.awake(Mono::from_secs(secs));
        }
        // A pause of two minutes: three times the limit comes at once, before anybody says that we run again.
        pass(&mut behaviour, Kind::Heartbeat, 24, Mono::from_secs(180));
        behaviour.awake(Mono::from_secs(180));
        behaviour.awake(Mono::from_secs(181));
        pass(&mut behaviour, Kind::Heartbeat, 24, Mono::from_millis(181_999));
        // From here on it counts again, and what passed uncounted is not held against the peer.
        pass(&mut behaviour, Kind::Heartbeat, 8, Mono::from_secs(182));
        let verdict = behaviour.observe(peer(1), Kind::Heartbeat, Mono::from_secs(182));
        assert_eq!(verdict, Verdict::RetryAfter { secs: 58, flood: false });
    }

    #[test]
    fn a_peer_that_is_banned_stays_so_after_a_pause_and_a_short_gap_is_none() {
        let mut behaviour = behaviour();
        behaviour.awake(Mono::from_secs(0));
        assert!(behaviour.offend(peer(2), Offence::BadSignature, now(0)).is_none());
        assert!(behaviour.offend(peer(2), Offence::BadSignature, now(0)).is_some());
        let verdict = behaviour.observe(peer(2), Kind::Get, Mono::from_secs(100));
        assert!(matches!(verdict, Verdict::Banned { is_new: false, .. }), "{verdict:?}");
        behaviour.awake(Mono::from_secs(110));
        behaviour.awake(Mono::from_secs(113));
        behaviour.awake(Mono::from_millis(117_999));
        pass(&mut behaviour, Kind::Heartbeat, 8, Mono::from_millis(117_999));
        let verdict = behaviour.observe(peer(1), Kind::Heartbeat, Mono::from_millis(117_999));
        assert!(matches!(verdict, Verdict::RetryAfter { .. }), "{verdict:?}");
    }

    fn pass(behaviour: &mut Behaviour, kind: Kind, times: u32, at: Mono) {
        for _ in 0..times {
            assert_eq!(behaviour.observe(peer(1), kind, at), Verdict::Pass);
        }
    }

    #[test]
    fn each_kind_passes_up_to_its_limit_and_not_past_it() {
        for (kind, limit) in [(Kind::Heartbeat, 8), (Kind::Publish, 10), (Kind::Get, 50), (Kind::Search, 20)] {
            for factor in [1, 10, 1000] {
                let mut behaviour = Behaviour::new(&Settings::default(), factor);
                pass(&mut behaviour, kind, limit * factor, Mono::from_secs(3));
                let past = behaviour.observe(peer(1), kind, Mono::from_secs(3));
                assert_eq!(past, Verdict::RetryAfter { secs: 57, flood: false }, "{kind:?} × {factor}");
                assert_eq!(behaviour.observe(peer(2), kind, Mono::from_secs(3)), Verdict::Pass);
            }
        }
    }

    #[test]
    fn g21_every_record_counts_whatever_stream_it_came_on() {
        let mut behaviour = behaviour();
        pass(&mut behaviour, Kind::Publish, 10, Mono::ZERO);
        let one_more = behaviour.observe(peer(1), Kind::Publish, Mono::from_secs(54));
        assert!(matches!(one_more, Verdict::RetryAfter { .. }));
    }

    #[test]
    fn whoever_waits_as_told_passes_and_not_a_second_earlier() {
        let mut behaviour = behaviour();
        pass(&mut behaviour, Kind::Heartbeat, 4, Mono::from_secs(7));
        pass(&mut behaviour, Kind::Heartbeat, 4, Mono::from_secs(33));
        let told = behaviour.observe(peer(1), Kind::Heartbeat, Mono::from_secs(40));
        assert_eq!(told, Verdict::RetryAfter { secs: 25, flood: false });
        assert_ne!(behaviour.observe(peer(1), Kind::Heartbeat, Mono::from_secs(64)), Verdict::Pass);
        pass(&mut behaviour, Kind::Heartbeat, 4, Mono::from_secs(65));
    }

    #[test]
    fn a_strike_needs_more_than_twice_the_limit() {
        let mut behaviour = behaviour();
        let at = Mono::from_secs(100);
        pass(&mut behaviour, Kind::Search, 20, at);
        for _ in 0..20 {
            let told = behaviour.observe(peer(1), Kind::Search, at);
            assert_eq!(told, Verdict::RetryAfter { secs: 60, flood: false });
        }
        let struck = behaviour.observe(peer(1), Kind::Search, at);
        assert_eq!(struck, Verdict::RetryAfter { secs: 60, flood: true });
        assert_eq!(behaviour.entries[&peer(1)].strikes.iter().flatten().count(), 1);
    }

    fn flood(behaviour: &mut Behaviour, kind: Kind, at: Mono) -> Verdict {
        let requests = 2 * behaviour.limit(kind) + 2 * (behaviour.limit(kind) + 1);
        for _ in 0..requests {
            let _ = behaviour.observe(peer(1), kind, at);
        }
        behaviour.observe(peer(1), kind, at)
    }

    #[test]
    fn a_rate_ban_closes_its_kind_alone() {
        let mut behaviour = behaviour();
        let at = Mono::from_secs(100);
        assert_eq!(flood(&mut behaviour, Kind::Search, at), Verdict::Banned { secs: 600, is_new: true });
        assert_eq!(behaviour.observe(peer(1), Kind::Search, at), Verdict::Banned { secs: 600, is_new: false });
        for kind in [Kind::Heartbeat, Kind::Publish, Kind::Get] {
            assert_eq!(behaviour.observe(peer(1), kind, at), Verdict::Pass);
        }
        assert_eq!(behaviour.banned(&peer(1), None, at), None);
        assert_eq!(behaviour.banned(&peer(1), Some(Kind::Search), at), Some(BAN_FIRST));
        assert_eq!(behaviour.observe(peer(1), Kind::Search, at + BAN_FIRST), Verdict::Pass);
    }

    #[test]
    fn g26_heartbeats_above_the_limit_are_never_a_ban() {
        let mut behaviour = behaviour();
        for secs in 0..1000 {
            let verdict = behaviour.observe(peer(1), Kind::Heartbeat, Mono::from_millis(secs * 10));
            assert!(!matches!(verdict, Verdict::Banned { .. }));
        }
        assert_eq!(behaviour.banned(&peer(1), Some(Kind::Heartbeat), Mono::from_secs(10)), None);
        pass(&mut behaviour, Kind::Heartbeat, 8, Mono::from_secs(70));
    }

    #[test]
    fn a_second_bad_signature_bans_from_everything() {
        let mut behaviour = behaviour();
        assert_eq!(behaviour.offend(peer(1), Offence::BadSignature, now(10)), None);
        assert_eq!(behaviour.observe(peer(1), Kind::Heartbeat, Mono::from_secs(10)), Verdict::Pass);
        let ban = behaviour.offend(peer(1), Offence::ChangedDid, now(20)).unwrap();
        assert_eq!((ban.scope, ban.until, ban.offences), (Scope::All, Some(now(620).wall), 1));
        for kind in Kind::ALL {
            let verdict = behaviour.observe(peer(1), kind, Mono::from_secs(619));
            assert_eq!(verdict, Verdict::Banned { secs: 1, is_new: false });
            assert_eq!(behaviour.observe(peer(2), kind, Mono::from_secs(619)), Verdict::Pass);
        }
        assert_eq!(behaviour.observe(peer(1), Kind::Heartbeat, Mono::from_secs(620)), Verdict::Pass);
    }

    #[test]
    fn g20_strikes_fade_in_an_hour_and_a_ban_wipes_them() {
        let mut behaviour = behaviour();
        assert_eq!(behaviour.offend(peer(1), Offence::BadSignature, now(0)), None);
        assert_eq!(behaviour.offend(peer(1), Offence::BadSignature, now(3600)), None, "the first has just faded");
        assert!(behaviour.offend(peer(1), Offence::BadSignature, now(7199)).is_some());
        // One more strike after the ban does not ban again.
        assert_eq!(behaviour.offend(peer(1), Offence::BadSignature, now(7800)), None);
    }

    #[test]
    fn bans_double_for_repeat_offenders_up_to_a_day_and_are_forgiven_after_one() {
        let mut behaviour = behaviour();
        let mut at = 0;
        for expected in [600, 1200, 2400, 4800, 9600, 19_200, 38_400, 76_800, 86_400, 86_400] {
            assert_eq!(behaviour.offend(peer(1), Offence::BadSignature, now(at)), None);
            let ban = behaviour.offend(peer(1), Offence::BadSignature, now(at)).unwrap();
            assert_eq!(ban.until, Some(now(at + expected).wall));
            at += expected;
        }
        at += BAN_MEMORY.as_secs();
        assert_eq!(behaviour.offend(peer(1), Offence::BadSignature, now(at)), None);
        assert_eq!(behaviour.offend(peer(1), Offence::BadSignature, now(at)).unwrap().until, Some(now(at + 600).wall));
    }

    #[test]
    fn p6_bans_and_the_past_of_a_repeater_survive_a_restart() {
        let mut before = behaviour();
        let _ = flood(&mut before, Kind::Get, Mono::from_secs(5));
        let rate = before.rate_ban(&peer(1), Kind::Get, now(5)).unwrap();
        before.offend(peer(2), Offence::BadSignature, now(5));
        let all = before.offend(peer(2), Offence::BadSignature, now(5)).unwrap();
        assert_eq!((rate.until, all.until), (Some(now(605).wall), Some(now(605).wall)));
        let mut after = behaviour();
        // The new process's monotonic clock starts again, two minutes later.
        let restarted = Now { mono: Mono::from_secs(1), wall: now(125).wall };
        after.restore([&rate, &all], restarted);
        assert_eq!(after.banned(&peer(1), Some(Kind::Get), restarted.mono), Some(Duration::from_secs(480)));
        assert_eq!(after.banned(&peer(1), None, restarted.mono), None);
        assert_eq!(after.banned(&peer(2), None, restarted.mono), Some(Duration::from_secs(480)));
        after.offend(peer(2), Offence::BadSignature, restarted);
        let again = after.offend(peer(2), Offence::BadSignature, restarted).unwrap();
        assert_eq!((again.until, again.offences), (Some(later(restarted.wall, 2 * BAN_FIRST)), 2));
    }

    #[test]
    fn a_ban_that_was_over_before_the_restart_still_doubles_the_next_until_it_is_forgiven() {
        let over = |ended: u64| {
            let mut behaviour = behaviour();
            let (since, until) = (now(0).wall, Some(now(600).wall));
            let reason = String::new();
            let ban = Ban { peer: peer(1), scope: Scope::All, since, until, offences: 3, origin: Origin::Rule, reason };
            let restarted = Now { mono: Mono::from_secs(1), wall: now(600 + ended).wall };
            behaviour.restore([&ban], restarted);
            assert_eq!(behaviour.banned(&peer(1), None, restarted.mono), None);
            behaviour.offend(peer(1), Offence::BadSignature, restarted);
            behaviour.offend(peer(1), Offence::BadSignature, restarted).unwrap().until.unwrap() - restarted.wall
        };
        assert_eq!(over(BAN_MEMORY.as_secs() - 1).get_seconds(), 4800, "the fourth");
        assert_eq!(over(BAN_MEMORY.as_secs()).get_seconds(), 600, "a first one again");
    }

    #[test]
    fn a_ban_read_back_is_at_most_a_day() {
        let mut behaviour = behaviour();
        let (since, until, reason) = (now(0).wall, Some(Timestamp::MAX), String::new());
        let ban = Ban { peer: peer(2), scope: Scope::All, since, until, offences: 1, origin: Origin::Rule, reason };
        let far = Ban { until: Some(now(50 * 86_400).wall), ..ban.clone() };
        behaviour.restore([&far], now(100));
        assert_eq!(behaviour.banned(&peer(2), None, Mono::from_secs(100)), Some(BAN_LONGEST));
    }

    #[test]
    fn whoever_is_forgiven_begins_anew() {
        let mut behaviour = behaviour();
        for _ in 0..3 {
            behaviour.offend(peer(1), Offence::BadSignature, now(0));
        }
        behaviour.forgive(&peer(1));
        behaviour.forgive(&peer(2));
        assert_eq!(behaviour.banned(&peer(1), None, Mono::ZERO), None);
        assert_eq!(behaviour.offend(peer(1), Offence::BadSignature, now(1)), None, "no strike is left");
        let ban = behaviour.offend(peer(1), Offence::BadSignature, now(1)).unwrap();
        assert_eq!((ban.until, ban.offences), (Some(now(601).wall), 1));
        assert_eq!(behaviour.len(), 1, "forgiving makes no entry");
    }

    #[test]
    fn g44_asking_about_an_unknown_peer_makes_no_entry() {
        let behaviour = behaviour();
        assert_eq!(behaviour.banned(&peer(1), Some(Kind::Heartbeat), Mono::from_secs(1)), None);
        assert!(behaviour.is_empty());
    }

    #[test]
    fn what_no_longer_matters_is_forgotten_in_bounded_steps() {
        let mut behaviour = behaviour();
        for n in 0..10 {
            let _ = behaviour.observe(peer(n), Kind::Heartbeat, Mono::from_secs(0));
        }
        behaviour.offend(peer(9), Offence::BadSignature, now(0));
        assert_eq!(behaviour.collect(Mono::from_millis(59_999), 100), 0);
        assert_eq!(behaviour.collect(Mono::from_secs(60), 4), 4, "no more than it may look at");
        assert!(behaviour.collect(Mono::from_secs(60), 100) >= 5);
        assert_eq!(behaviour.len(), 1, "a strike is kept for its hour");
        behaviour.collect(Mono::from_secs(3600), 100);
        assert!(behaviour.is_empty() && behaviour.tickets.is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_keeps_bans_before_idlers() {
        let mut behaviour = Behaviour::new(&Settings { peers_max: 10, ..Settings::default() }, 1);
        for _ in 0..2 {
            behaviour.offend(peer(0), Offence::BadSignature, now(0));
        }
        for n in 1..=200 {
            let _ = behaviour.observe(peer(n), Kind::Get, Mono::from_secs(1));
            assert!(behaviour.len() <= 10);
            assert_eq!(behaviour.len(), behaviour.tickets.len());
        }
        assert!(behaviour.banned(&peer(0), None, Mono::from_secs(1)).is_some());
        // When all of them are banned the bound holds none the less.
        for n in 1..=30 {
            for _ in 0..2 {
                behaviour.offend(peer(n), Offence::BadSignature, now(2));
            }
            assert!(behaviour.len() <= 10);
        }
    }

    proptest! {
        /// Against every single event: nobody who kept to the limit in the last 60 s is refused, and nobody passes more
        /// than the limit in any 55 s.
        #[test]
        fn the_window_is_exact_to_one_slot(gaps in proptest::collection::vec(0u64..20_000, 1..300)) {
            let mut behaviour = behaviour();
            let mut passed = VecDeque::new();
            let mut at = 0;
            for gap in gaps {
                at += gap;
                let within = |passed: &VecDeque<u64>, millis| passed.iter().filter(|then| at - **then < millis).count();
                match behaviour.observe(peer(1), Kind::Heartbeat, Mono::from_millis(at)) {
                    Verdict::Pass => {
                        prop_assert!(within(&passed, 55_000) < 8);
                        passed.push_back(at);
                    }
                    Verdict::RetryAfter { secs, .. } => {
                        prop_assert!(within(&passed, 60_000) >= 8);
                        prop_assert!((1..=60).contains(&secs));
                        let mut later = behaviour.entries[&peer(1)].clone();
                        prop_assert!(later.lines[0].passed.count(Mono::from_millis(at + secs * 1000)) < 8);
                    }
                    Verdict::Banned { .. } => prop_assert!(false, "a heartbeat was banned"),
                }
            }
        }
    }
}
