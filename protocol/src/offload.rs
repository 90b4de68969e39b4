//! Whom an indexer asks to move to another one, how many at a time, and where to.
//!
//! Three reasons, one state machine. *Over-full*: above 80 % of its capacity an indexer asks a few at a time. *Uneven*: it
//! has clearly more than its share of what it and the others carry, or another clearly less, and it asks for half of its
//! own excess at each step. *Drained*: its operator wants everybody to go, in batches.
//!
//! Why half, and only one's own excess: moving changes no mean, so the excesses of those above it are together what those
//! below it lack, and indexers that each hand on their own overshoot nothing between them. What they know of each other is a
//! beat old, but for the one that lacks most, so the mean is a little wrong while nodes are under way; what is left of an
//! excess after three halves, an eighth, is of that size. Who was asked and has not gone is counted as gone, and who went is
//! counted where it was sent until that indexer tells another load: one that says it is empty and takes nobody is sent its
//! share once, and no more.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p_identity::PeerId;
use rand::{Rng, RngExt};

use crate::{
    suggestions::IndexerBook,
    time::{Mono, Now},
    wire::{AddrInfo, HeartbeatResponse},
};

/// Above this fill nodes are asked to move, whatever the others carry.
pub const FILL_HIGH: f64 = 0.80;

/// Nodes asked at a time for being over-full.
pub const ASKED_AT_ONCE: usize = 5;

/// For one who was asked to go: three times 60 s. Then others are asked, and this one is left alone for as long.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Those with the most room, among which chance chooses a start.
const BEST: usize = 5;

/// Other indexers named to one who is to move: a second, should the first be out of its reach.
const NAMED: usize = 2;

/// With so many times its share an indexer hands nodes on: half of what F15 allows, for the others may be at 1 - that.
const OVER_SHARE: f64 = 1.10;

/// With less than this of its share an indexer is one to hand nodes to, by all that have more than theirs: as F10 asks.
const UNDER_SHARE: f64 = 0.85;

/// Part of its excess that an indexer asks for at one step.
const STEP: f64 = 0.5;

/// Part of its sessions that an indexer asks at one step at most, so that those who receive them are never rushed.
const RUSH: f64 = 0.10;

/// Part of its sessions that a drained indexer has asked at a time: gone in a minute or two, and nobody is rushed.
const DRAIN_AT_ONCE: f64 = 0.25;

/// For so long who went counts where it was sent while the load that is told there does not change: three times as long
/// as an `IndexerRecord` lives.
const BELIEVED: Duration = Duration::from_secs(30 * 60);

/// How old a load may be that an indexer told us with its answer: it told one with each of its last three.
pub const FRESH: Duration = Duration::from_secs(60);

/// A load is news for this part of a beat.
const NEWS: u32 = 8;

/// Indexers whose told loads are kept: a pool has at most a few tens.
pub const LOADS_MAX: usize = 256;

/// What an indexer carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Sessions.
    pub sessions: u32,
    /// Sessions that it can have; 0 for one that takes none.
    pub capacity: u32,
}

impl Load {
    /// Sessions ÷ capacity; 1 without capacity.
    #[must_use]
    pub fn fill(self) -> f64 {
        if self.capacity == 0 { 1.0 } else { f64::from(self.sessions) / f64::from(self.capacity) }
    }

    fn room(self) -> f64 {
        f64::from(self.capacity.saturating_sub(self.sessions))
    }
}

/// Another indexer and its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    /// Which.
    pub peer: PeerId,
    /// As last heard of.
    pub load: Load,
    /// When it told so itself; nothing of a load that a record says.
    pub told: Option<Mono>,
}

/// A session, as far as moving goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// Whose.
    pub peer: PeerId,
    /// When it began.
    pub since: Mono,
    /// It is an indexer's, which wants to know the others and is asked last and only by a drained one.
    pub is_indexer: bool,
    /// Its pool wants no more members. One that wants more takes an emptier indexer by itself, and loses nothing for it.
    pub is_settled: bool,
}

/// Loads that other indexers told us themselves, with their answers to our own beats. Bounded by [`LOADS_MAX`]: past it
/// whoever was not heard of for longest is forgotten.
#[derive(Debug, Default)]
pub struct Loads {
    told: BTreeMap<PeerId, (Mono, Load)>,
}

impl Loads {
    /// Takes up what one told.
    pub fn hear(&mut self, peer: PeerId, load: Load, now: Mono) {
        self.told.insert(peer, (now, load));
        if self.told.len() > LOADS_MAX {
            let oldest = self.told.iter().min_by_key(|(_, (at, _))| *at).map(|(peer, _)| *peer);
            self.told.retain(|peer, _| Some(*peer) != oldest);
        }
    }

    /// What one told and when, while it is fresh.
    #[must_use]
    pub fn fresh(&self, peer: &PeerId, now: Mono) -> Option<(Mono, Load)> {
        self.told.get(peer).filter(|(at, _)| now.since(*at) <= FRESH).copied()
    }

    /// The indexers of `book` that can be named to a node: with what each told lately, else with what it signed.
    #[must_use]
    pub fn others(&self, book: &IndexerBook, now: Now) -> Vec<Other> {
        let others = book.suggestible(now.wall).map(|record| {
            let peer = record.peer_id;
            let signed = || Load { sessions: record.peer_count, capacity: record.capacity };
            let told = self.fresh(&peer, now.mono);
            Other { peer, load: told.map_or_else(signed, |(_, load)| load), told: told.map(|(at, _)| at) }
        });
        others.collect()
    }
}

#[derive(Clone, Debug)]
struct Asked {
    until: Mono,
    to: Vec<PeerId>,
    /// The last beat whose answer said so. Extra beats are none: one that is nudged is just joining another.
    told: Option<Mono>,
}

impl Asked {
    /// A beat went by since it was last told.
    fn is_next_beat(&self, now: Mono, every: Duration) -> bool {
        self.told.is_none_or(|told| now.since(told) >= every / 2)
    }
}

/// What one told last, and who went there since.
#[derive(Clone, Copy, Debug)]
struct Told {
    sessions: u32,
    sent: u32,
    at: Mono,
}

/// Why nodes are to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Drained,
    OverFull,
    Uneven,
}

/// Who is asked to move, and where to. Bounded by the sessions; a restart forgets it, and the next step asks anew.
#[derive(Debug)]
pub struct Offload {
    every: Duration,
    next: Mono,
    is_levelling: bool,
    asked: BTreeMap<PeerId, Asked>,
    /// Until when those are left alone who were asked and did not go. After that they are asked again once all others were.
    resting: BTreeMap<PeerId, Mono>,
    /// Of each indexer that could be named at the last step.
    told: BTreeMap<PeerId, Told>,
}

impl Offload {
    /// Nobody is asked; a step is made once per beat, `every` so long.
    #[must_use]
    pub fn new(every: Duration) -> Self {
        Self {
            every,
            next: Mono::ZERO,
            is_levelling: false,
            asked: BTreeMap::new(),
            resting: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// Whether it is time for the next step.
    #[must_use]
    pub fn is_due(&self, now: Mono) -> bool {
        now >= self.next
    }

    /// Where this peer is asked to move to, best first; nothing when it is not asked.
    #[must_use]
    pub fn asked(&self, peer: &PeerId) -> Option<&[PeerId]> {
        self.asked.get(peer).map(|asked| asked.to.as_slice())
    }

    /// Writes into the answer to `peer` that it should move, if it is asked to and `book` knows where to. One that wants no
    /// other indexer (`is_settled`) at the beat after it was told has nowhere to go: all whom we name are in its pool, or
    /// another indexer's word came first. It stays; it is left alone, and others are asked.
    ///
    /// Nothing else is suggested along with it: whoever moves elsewhere would be asked to move on.
    pub fn suggest(
        &mut self,
        peer: &PeerId,
        is_settled: bool,
        book: &IndexerBook,
        answer: &mut HeartbeatResponse,
        now: Mono,
    ) {
        self.heard(peer, is_settled, now);
        let to = self.asked(peer).unwrap_or_default().iter().filter(|to| *to != peer);
        let infos: Vec<AddrInfo> = to
            .filter_map(|to| book.get(to))
            .map(|(record, _)| AddrInfo { id: record.peer_id, addrs: record.addrs.clone() })
            .collect();
        if infos.is_empty() {
            return;
        }
        answer.suggest_migrate = true;
        answer.suggestions = infos;
        self.told(peer, now);
    }

    fn told(&mut self, peer: &PeerId, now: Mono) {
        if let Some(asked) = self.asked.get_mut(peer).filter(|asked| asked.is_next_beat(now, self.every)) {
            asked.told = Some(now);
        }
    }

    fn heard(&mut self, peer: &PeerId, is_settled: bool, now: Mono) {
        let is_over = |asked: &Asked| asked.told.is_some() && asked.is_next_beat(now, self.every);
        if is_settled && self.asked.get(peer).is_some_and(is_over) {
            self.asked.remove(peer);
            self.resting.insert(*peer, now + PATIENCE);
        }
    }

    /// How many are asked now.
    #[must_use]
    pub fn asked_now(&self) -> usize {
        self.asked.len()
    }

    /// A session ended: its peer need not be asked any more.
    pub fn gone(&mut self, peer: &PeerId) {
        self.resting.remove(peer);
        let to = self.asked.remove(peer).and_then(|asked| asked.to.first().copied());
        if let Some(told) = to.and_then(|to| self.told.get_mut(&to)) {
            told.sent = told.sent.saturating_add(1);
        }
    }

    /// One step: gives up on those who do not go, and asks as many more as there should be.
    ///
    /// `own` is what we carry, `others` what those carry that can be named to a node; `stays` are our sessions.
    pub fn step(
        &mut self,
        own: Load,
        others: &[Other],
        stays: impl Iterator<Item = Stay>,
        is_drained: bool,
        now: Mono,
        rng: &mut impl Rng,
    ) {
        self.lose_patience(now);
        let others = &self.believed(others, now);
        let share = Share::of(own, others, is_drained);
        if !is_drained && self.awaits_news(others, &share, now) {
            return;
        }
        self.next = now + self.every;
        let Some((why, most)) = self.reason(own, others, &share, is_drained, rng) else {
            self.asked.clear();
            self.resting.clear();
            return;
        };
        let more = most.saturating_sub(self.asked.len());
        if more == 0 {
            return;
        }
        for peer in self.chosen(stays, why, more, now, rng) {
            let to = self.named(why, own, others, &share, rng);
            if !to.is_empty() {
                self.asked.insert(peer, Asked { until: now + PATIENCE, to, told: None });
            }
        }
    }

    /// Whether to wait, for a beat at most, until the one that lacks most has told its load anew. Nobody's changes as quickly:
    /// several of us fill it at once, and by what it told a beat ago each sees the mean too low and itself too full.
    fn awaits_news(&self, others: &[Other], share: &Share, now: Mono) -> bool {
        let lacking = others.iter().filter(|other| other.load.capacity > 0 && share.lack(other) > 0.0);
        let emptiest = lacking.max_by(|one, other| share.lack(one).total_cmp(&share.lack(other)));
        let told = emptiest.and_then(|emptiest| emptiest.told);
        let is_old = told.is_some_and(|told| now.since(told) > self.every / NEWS);
        let is_wanted = share.excess >= 1.0 && (self.is_levelling || share.is_uneven);
        // A load that would be forgotten by then is not waited for.
        let is_near = self.every * 2 <= FRESH && self.is_due(now) && now.since(self.next) < self.every;
        is_wanted && is_old && is_near
    }

    /// The loads with those who went there and do not show in them yet.
    fn believed(&mut self, others: &[Other], now: Mono) -> Vec<Other> {
        let before = std::mem::take(&mut self.told);
        let is_same = |told: &&Told, load: Load| told.sessions == load.sessions && now.since(told.at) < BELIEVED;
        let mut believed = Vec::with_capacity(others.len());
        for Other { peer, load, told: heard } in others.iter().copied() {
            let fresh = Told { sessions: load.sessions, sent: 0, at: now };
            let told = before.get(&peer).filter(|told| is_same(told, load)).copied().unwrap_or(fresh);
            let sessions = load.sessions.saturating_add(told.sent);
            believed.push(Other { peer, load: Load { sessions, ..load }, told: heard });
            self.told.insert(peer, told);
        }
        believed
    }

    fn lose_patience(&mut self, now: Mono) {
        let late: Vec<PeerId> =
            self.asked.iter().filter(|(_, asked)| asked.until <= now).map(|(peer, _)| *peer).collect();
        for peer in late {
            self.asked.remove(&peer);
            self.resting.insert(peer, now + PATIENCE);
        }
    }

    /// Why nodes are to move, if they are, and how many may be asked at the same time.
    fn reason(
        &mut self,
        own: Load,
        others: &[Other],
        share: &Share,
        is_drained: bool,
        rng: &mut impl Rng,
    ) -> Option<(Why, usize)> {
        if is_drained {
            self.is_levelling = false;
            let most = (f64::from(own.sessions) * DRAIN_AT_ONCE).ceil() as usize;
            return Some((Why::Drained, most.max(ASKED_AT_ONCE)));
        }
        self.is_levelling = share.excess >= 1.0 && (self.is_levelling || share.is_uneven);
        if self.is_levelling {
            let pending = self.asked.len();
            let wanted = (share.excess - pending as f64).max(0.0) * STEP;
            let rush = (f64::from(own.sessions) * RUSH).max(1.0);
            // An over-full indexer does not ask for less than it would without the others, nor for more than it has too much:
            // two that did would over-fill whoever joins, and have it ask some to come back.
            let least = if own.fill() > FILL_HIGH { ASKED_AT_ONCE.min(share.excess as usize) } else { 0 };
            return Some((Why::Uneven, (pending + by_chance(wanted.min(rush), rng)).max(least)));
        }
        let has_better = others.iter().any(|other| other.load.fill() < FILL_HIGH);
        (own.fill() > FILL_HIGH && has_better).then_some((Why::OverFull, ASKED_AT_ONCE))
    }

    /// Of those who may be asked the youngest, the oldest being the last, and those that were asked before later still. For
    /// evenness chance chooses among the younger half: several indexers ask at once, and their youngest are the same nodes.
    fn chosen(
        &self,
        stays: impl Iterator<Item = Stay>,
        why: Why,
        count: usize,
        now: Mono,
        rng: &mut impl Rng,
    ) -> Vec<PeerId> {
        let may = |stay: &Stay| match why {
            Why::Drained => true,
            Why::OverFull => !stay.is_indexer,
            Why::Uneven => !stay.is_indexer && stay.is_settled,
        };
        let rested = |stay: &Stay| self.resting.get(&stay.peer).copied();
        let is_free =
            |stay: &Stay| !self.asked.contains_key(&stay.peer) && rested(stay).is_none_or(|until| until <= now);
        let mut free: Vec<Stay> = stays.filter(|stay| may(stay) && is_free(stay)).collect();
        let order = |stay: &Stay| (stay.is_indexer, rested(stay), Reverse(stay.since), stay.peer);
        let among = if why == Why::Uneven { count.max(free.len().div_ceil(2)) } else { count };
        if among < free.len() {
            free.select_nth_unstable_by_key(among, order);
            free.truncate(among);
        }
        while free.len() > count {
            free.swap_remove(rng.random_range(0..free.len()));
        }
        free.into_iter().map(|stay| stay.peer).collect()
    }

    /// Where one is to move to.
    fn named(&self, why: Why, own: Load, others: &[Other], share: &Share, rng: &mut impl Rng) -> Vec<PeerId> {
        match why {
            Why::Uneven => {
                let sent = |peer: &PeerId| self.asked.values().filter(|asked| asked.to.first() == Some(peer)).count();
                let lacks = others.iter().map(|other| (other.peer, share.lack(other) - sent(&other.peer) as f64));
                drawn(lacks.collect(), rng)
            }
            Why::Drained => drawn(others.iter().map(|other| (other.peer, other.load.room())).collect(), rng),
            Why::OverFull => from_the_best(own, others, rng),
        }
    }
}

/// What each indexer should carry: as much of its capacity as every other one.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// The fill that all would have.
    fill: f64,
    /// What we carry above our share.
    excess: f64,
    is_uneven: bool,
}

impl Share {
    fn of(own: Load, others: &[Other], is_drained: bool) -> Self {
        let all = || others.iter().map(|other| other.load).chain((!is_drained).then_some(own));
        let (sessions, capacity) =
            all().filter(|load| load.capacity > 0).fold((0.0, 0.0), |(sessions, capacity), load| {
                (sessions + f64::from(load.sessions), capacity + f64::from(load.capacity))
            });
        if capacity == 0.0 || others.is_empty() {
            return Self { fill: 1.0, excess: 0.0, is_uneven: false };
        }
        let fill = sessions / capacity;
        let expected = fill * f64::from(own.capacity);
        let carried = f64::from(own.sessions);
        let lacking = others.iter().filter(|other| other.load.capacity > 0);
        let is_wanted = lacking.into_iter().any(|other| other.load.fill() < UNDER_SHARE * fill);
        let is_uneven = carried > OVER_SHARE * expected || (carried > expected && is_wanted);
        Self { fill, excess: carried - expected, is_uneven }
    }

    /// What another carries below its share.
    fn lack(&self, other: &Other) -> f64 {
        self.fill * f64::from(other.load.capacity) - f64::from(other.load.sessions)
    }
}

/// A whole number whose mean is `wanted`, so that parts of a node are moved too, in time.
fn by_chance(wanted: f64, rng: &mut impl Rng) -> usize {
    let more = rng.random::<f64>() < wanted.fract();
    wanted.trunc() as usize + usize::from(more)
}

/// Up to [`NAMED`] drawn by weight, none twice, none without weight.
fn drawn(mut weights: Vec<(PeerId, f64)>, rng: &mut impl Rng) -> Vec<PeerId> {
    weights.retain(|(_, weight)| *weight > 0.0);
    let mut named = Vec::new();
    while named.len() < NAMED && !weights.is_empty() {
        let mut point = rng.random::<f64>() * weights.iter().map(|(_, weight)| weight).sum::<f64>();
        let at = weights.iter().position(|(_, weight)| {
            point -= weight;
            point < 0.0
        });
        named.push(weights.swap_remove(at.unwrap_or(weights.len() - 1)).0);
    }
    named
}

/// From a random start among the five with the lowest fill, so that movers spread.
fn from_the_best(own: Load, others: &[Other], rng: &mut impl Rng) -> Vec<PeerId> {
    let mut best: Vec<&Other> = others.iter().filter(|other| other.load.fill() < FILL_HIGH.min(own.fill())).collect();
    best.sort_by(|one, other| one.load.fill().total_cmp(&other.load.fill()));
    best.truncate(BEST);
    if best.is_empty() {
        return Vec::new();
    }
    let start = rng.random_range(0..best.len());
    let around: BTreeSet<usize> = (0..NAMED).map(|step| (start + step) % best.len()).collect();
    let first = best[start].peer;
    let rest = around.into_iter().filter(|at| *at != start).map(|at| best[at].peer);
    [first].into_iter().chain(rest).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    const BEAT: Duration = Duration::from_secs(20);

    fn peer(n: u32) -> PeerId {
        // A sha2-256 multihash: no key is needed to be moved.
        let digest = [&n.to_be_bytes()[..], &[0; 28]].concat();
        PeerId::from_bytes(&[&[0x12, 0x20][..], &digest].concat()).unwrap()
    }

    fn load(sessions: u32, capacity: u32) -> Load {
        Load { sessions, capacity }
    }

    fn other(n: u32, sessions: u32, capacity: u32) -> Other {
        Other { peer: peer(1_000 + n), load: load(sessions, capacity), told: None }
    }

    /// Settled nodes 0 to `count`, of which 0 is the oldest.
    fn stays(count: u32) -> impl Iterator<Item = Stay> {
        (0..count).map(|n| Stay {
            peer: peer(n),
            since: Mono::from_secs(u64::from(n)),
            is_indexer: false,
            is_settled: true,
        })
    }

    /// An indexer's offload and its chance.
    struct Bed {
        offload: Offload,
        rng: StdRng,
    }

    impl Bed {
        fn new() -> Self {
            Self { offload: Offload::new(BEAT), rng: StdRng::seed_from_u64(1) }
        }

        fn step(&mut self, own: Load, others: &[Other], at: u64) -> Vec<PeerId> {
            self.step_of(own, others, stays(own.sessions), false, at)
        }

        fn step_of(
            &mut self,
            own: Load,
            others: &[Other],
            stays: impl Iterator<Item = Stay>,
            is_drained: bool,
            at: u64,
        ) -> Vec<PeerId> {
            self.offload.step(own, others, stays, is_drained, Mono::from_secs(at), &mut self.rng);
            self.offload.asked.keys().copied().collect()
        }
    }

    fn peers(numbers: impl IntoIterator<Item = u32>) -> Vec<PeerId> {
        let mut peers: Vec<PeerId> = numbers.into_iter().map(peer).collect();
        peers.sort();
        peers
    }

    #[test]
    fn at_eighty_percent_nobody_is_asked_and_above_it_the_five_youngest_are() {
        let mut bed = Bed::new();
        // As full as the others: only the fill speaks.
        let others = [other(1, 79, 100), other(2, 80, 100)];
        assert_eq!(bed.step(load(80, 100), &others, 0), []);
        assert_eq!(bed.step(load(81, 100), &others, 20), peers(76..81));
        assert!(bed.offload.asked(&peer(80)).is_some_and(|to| to == [peer(1_001)]), "one at 0.80 has no room either");
        assert_eq!(bed.step(load(81, 100), &others, 40), peers(76..81), "no more than five at a time");
        assert_eq!(bed.step(load(80, 100), &others, 60), [], "it is all forgotten");
    }

    #[test]
    fn each_is_given_three_minutes_and_then_others_are_asked() {
        let mut bed = Bed::new();
        let others = [other(1, 79, 100)];
        assert_eq!(bed.step(load(81, 100), &others, 0), peers(76..81));
        assert_eq!(bed.step(load(81, 100), &others, 179), peers(76..81));
        assert_eq!(bed.step(load(81, 100), &others, 180), peers(71..76));
        assert_eq!(bed.step(load(81, 100), &others, 359), peers(71..76));
        assert_eq!(bed.step(load(81, 100), &others, 360), peers(66..71), "others before those that were asked");
        for at in 3..16 {
            bed.step(load(81, 100), &others, at * 180);
        }
        assert_eq!(bed.step(load(81, 100), &others, 16 * 180), peers([0].into_iter().chain(77..81)), "and then again");
    }

    #[test]
    fn one_that_stays_though_it_was_told_is_left_alone_and_another_is_asked() {
        let mut bed = Bed::new();
        let others = [other(1, 79, 100)];
        bed.step(load(81, 100), &others, 0);
        for (number, is_settled) in [(80, true), (79, false)] {
            for at in [1, 2, 21] {
                assert!(bed.offload.asked(&peer(number)).is_some(), "{number} at {at}");
                bed.offload.heard(&peer(number), is_settled, Mono::from_secs(at));
                bed.offload.told(&peer(number), Mono::from_secs(at));
            }
        }
        assert_eq!(bed.step(load(81, 100), &others, 40), peers(75..80), "79 seeks another and is waited for");
        assert_eq!(bed.step(load(81, 100), &others, 180), peers(71..76), "80 rests until 201");
        assert_eq!(bed.step(load(81, 100), &others, 360), peers(66..71), "all others come first");
    }

    #[test]
    fn an_over_full_one_asks_at_once_for_what_it_has_too_much_and_no_more() {
        // Two of 12 and a newcomer: each should carry 8, and five of each would make it 10 there.
        let mut bed = Bed::new();
        assert_eq!(bed.step(load(12, 14), &[other(1, 12, 14), other(2, 0, 14)], 0).len(), 4);
        let mut bed = Bed::new();
        assert_eq!(bed.step(load(95, 100), &[other(1, 0, 100)], 0).len(), 9, "a tenth of its sessions");
        let mut bed = Bed::new();
        assert_eq!(bed.step(load(13, 14), &[other(1, 0, 14)], 0).len(), ASKED_AT_ONCE);
    }

    #[test]
    fn a_step_awaits_the_load_of_the_one_that_lacks_most_but_no_longer_than_a_beat() {
        let mut bed = Bed::new();
        let heard = |at| [Other { told: Some(Mono::from_secs(at)), ..other(1, 0, 500) }, other(2, 100, 500)];
        assert_eq!(bed.step(load(100, 500), &heard(0), 0).len(), 10);
        assert_eq!(bed.step(load(90, 500), &heard(17), 20).len(), 10, "17.5 would be news");
        assert!(bed.offload.is_due(Mono::from_secs(21)));
        assert_ne!(bed.step(load(90, 500), &heard(21), 21).len(), 10);
        let before = bed.step(load(90, 500), &heard(21), 60).len();
        assert!(bed.step(load(90, 500), &heard(21), 61).len() > before, "it was due at 41");
        let mut bed = Bed::new();
        assert_eq!(bed.step(load(100, 500), &[other(1, 0, 500)], 0).len(), 10, "a record says no more than it says");
        let mut bed = Bed::new();
        bed.step_of(load(100, 500), &heard(0), stays(100), true, 10);
        assert_eq!(bed.offload.asked_now(), 25, "a drained one does not wait");
        let even = [Other { told: Some(Mono::ZERO), ..other(1, 99, 500) }, other(2, 99, 500)];
        bed.step_of(load(105, 500), &even, stays(105), false, 11);
        assert_eq!(bed.offload.asked_now(), 0, "nor does one that is drained no more");
    }

    #[test]
    fn where_nobody_has_room_nobody_is_asked() {
        let mut bed = Bed::new();
        for others in [&[][..], &[other(1, 95, 100)], &[other(1, 0, 0)]] {
            assert_eq!(bed.step(load(95, 100), others, 0), [], "{others:?}");
        }
    }

    #[test]
    fn movers_spread_over_the_five_best() {
        let mut rng = StdRng::seed_from_u64(5);
        let others: Vec<Other> = (0..10).map(|n| other(n, 10 * n, 100)).collect();
        let mut first = BTreeMap::<PeerId, u32>::new();
        for _ in 0..1_000 {
            let named = from_the_best(load(90, 100), &others, &mut rng);
            assert!(named.len() == 2 && named[0] != named[1]);
            *first.entry(named[0]).or_default() += 1;
        }
        assert_eq!(first.len(), 5);
        assert!(first.values().all(|count| (140..260).contains(count)), "{first:?}");
    }

    #[test]
    fn those_who_want_more_members_anyway_are_not_asked_for_balance() {
        let mut bed = Bed::new();
        let unsettled = stays(100).map(|stay| Stay { is_settled: false, ..stay });
        assert_eq!(bed.step_of(load(100, 500), &[other(1, 0, 500)], unsettled, false, 0), []);
        let indexers = stays(100).map(|stay| Stay { is_indexer: true, ..stay });
        assert_eq!(bed.step_of(load(100, 500), &[other(1, 0, 500)], indexers, false, 20), []);
    }

    #[test]
    fn an_even_load_moves_nobody_and_a_single_node_is_not_sent_to_and_fro() {
        let mut bed = Bed::new();
        assert_eq!(bed.step(load(109, 500), &[other(1, 91, 500)], 0), [], "nine percent above");
        assert_eq!(bed.step(load(1, 500), &[other(1, 0, 500)], 20), []);
        assert_eq!(bed.step(load(0, 500), &[other(1, 100, 500)], 40), []);
        assert_eq!(bed.step(load(100, 1_000), &[other(1, 10, 100)], 60), [], "even is what each can carry");
    }

    #[test]
    fn who_was_asked_and_has_not_gone_is_counted_as_gone() {
        let mut bed = Bed::new();
        let others = [other(1, 0, 500)];
        let first = bed.step(load(100, 500), &others, 0).len();
        assert_eq!(first, 10, "a tenth at a time");
        let mut last = first;
        for at in 1..8 {
            last = bed.step(load(100, 500), &others, at * 20).len();
            assert!(last <= 50, "the excess");
        }
        assert!(last >= 45, "{last}");
    }

    #[test]
    fn a_drained_indexer_asks_everybody_in_batches_indexers_last() {
        let mut bed = Bed::new();
        let (others, all) = ([other(1, 10, 500), other(2, 0, 0)], 40);
        let mixed = || stays(all).map(|stay| Stay { is_indexer: stay.since >= Mono::from_secs(38), ..stay });
        let asked = bed.step_of(load(all, 500), &others, mixed(), true, 0);
        assert_eq!(asked, peers(28..38), "a quarter, the youngest nodes");
        assert_eq!(bed.offload.asked(&peer(37)), Some(&[peer(1_001)][..]), "never to one that takes nobody");
        for peer in asked {
            bed.offload.gone(&peer);
        }
        let left = || mixed().filter(|stay| !(28..38).contains(&stay.since.since_start().as_secs()));
        assert_eq!(bed.step_of(load(30, 500), &others, left(), true, 20).len(), 8);
        // Taken back, it is all forgotten.
        assert_eq!(bed.step_of(load(30, 500), &[other(1, 30, 500)], left(), false, 40), []);
    }

    #[test]
    fn loads_that_are_told_are_believed_for_a_minute_and_bounded() {
        let mut loads = Loads::default();
        loads.hear(peer(1), load(1, 2), Mono::ZERO);
        assert_eq!(loads.fresh(&peer(1), Mono::from_secs(60)), Some((Mono::ZERO, load(1, 2))));
        assert_eq!(loads.fresh(&peer(1), Mono::from_millis(60_001)), None);
        for n in 2..=u32::try_from(LOADS_MAX).unwrap() + 1 {
            loads.hear(peer(n), load(1, 2), Mono::from_secs(1));
        }
        assert_eq!((loads.told.len(), loads.fresh(&peer(1), Mono::ZERO)), (LOADS_MAX, None));
    }

    /// Nodes that keep `places` members each, indexers that run the rule, and what passes between them, in whole seconds.
    ///
    /// A node beats to each of its members every 20 s; asked to move, it has joined the first indexer named two seconds
    /// later, and only then leaves. Indexers hear each other's loads every 20 s, so what they know is up to that old.
    struct Sim {
        at: u64,
        capacity: u32,
        indexers: Vec<Indexer>,
        /// Members of each node.
        nodes: Vec<Vec<usize>>,
        moving: BTreeSet<(u64, usize, usize, usize)>,
        moved: BTreeSet<usize>,
        moves: usize,
        rng: StdRng,
    }

    struct Indexer {
        offload: Offload,
        since: BTreeMap<usize, u64>,
        known: BTreeMap<usize, (Mono, Load)>,
        arrivals: Vec<u64>,
    }

    impl Sim {
        fn new(capacity: u32, loads: &[usize], seed: u64) -> Self {
            let mut sim = Self {
                at: 0,
                capacity,
                indexers: Vec::new(),
                nodes: Vec::new(),
                moving: BTreeSet::new(),
                moved: BTreeSet::new(),
                moves: 0,
                rng: StdRng::seed_from_u64(seed),
            };
            for (indexer, nodes) in loads.iter().enumerate() {
                sim.add_indexer();
                for _ in 0..*nodes {
                    sim.nodes.push(vec![indexer]);
                    let node = sim.nodes.len() - 1;
                    sim.indexers[indexer].since.insert(node, 0);
                }
            }
            sim
        }

        fn add_indexer(&mut self) {
            let (offload, since, known) = (Offload::new(BEAT), BTreeMap::new(), BTreeMap::new());
            self.indexers.push(Indexer { offload, since, known, arrivals: Vec::new() });
        }

        fn load(&self, indexer: usize) -> Load {
            load(u32::try_from(self.indexers[indexer].since.len()).unwrap(), self.capacity)
        }

        fn loads(&self) -> Vec<usize> {
            self.indexers.iter().map(|indexer| indexer.since.len()).collect()
        }

        /// Most and least, divided by the mean.
        fn spread(&self) -> (f64, f64) {
            let loads = self.loads();
            let mean = loads.iter().sum::<usize>() as f64 / loads.len() as f64;
            let of = |load: Option<&usize>| *load.unwrap() as f64 / mean;
            (of(loads.iter().max()), of(loads.iter().min()))
        }

        fn run(&mut self, secs: u64) {
            for _ in 0..secs {
                self.second();
            }
        }

        fn second(&mut self) {
            self.at += 1;
            let phase = |n: usize| n as u64 * 7 % 20;
            for one in 0..self.indexers.len() {
                if (self.at + phase(one)).is_multiple_of(20) {
                    for other in (0..self.indexers.len()).filter(|other| *other != one) {
                        let load = self.load(one);
                        self.indexers[other].known.insert(one, (Mono::from_secs(self.at), load));
                    }
                }
                if self.indexers[one].offload.is_due(Mono::from_secs(self.at)) {
                    self.step(one);
                }
            }
            for node in 0..self.nodes.len() {
                if (self.at + phase(node)).is_multiple_of(20) {
                    self.beat(node);
                }
            }
            self.arrive();
        }

        fn step(&mut self, one: usize) {
            let own = self.load(one);
            let indexer = &mut self.indexers[one];
            let told = |(other, (at, load)): (&usize, &(Mono, Load))| Other {
                peer: peer(*other as u32),
                load: *load,
                told: Some(*at),
            };
            let others: Vec<Other> = indexer.known.iter().map(told).collect();
            let stays = indexer.since.iter().map(|(node, since)| Stay {
                peer: peer(10_000 + *node as u32),
                since: Mono::from_secs(*since),
                is_indexer: false,
                is_settled: true,
            });
            indexer.offload.step(own, &others, stays, false, Mono::from_secs(self.at), &mut self.rng);
        }

        fn beat(&mut self, node: usize) {
            for from in self.nodes[node].clone() {
                let asked = self.indexers[from].offload.asked(&peer(10_000 + node as u32));
                let Some(to) = asked.map(<[PeerId]>::to_vec) else { continue };
                let joined = |to: &PeerId| (0..self.indexers.len()).find(|n| peer(*n as u32) == *to).unwrap();
                let to = to.iter().map(joined).find(|to| !self.nodes[node].contains(to));
                if let Some(to) = to {
                    self.moving.insert((self.at + 2, node, from, to));
                }
            }
        }

        fn arrive(&mut self) {
            while let Some((_, node, from, to)) = self.moving.first().copied().filter(|(at, ..)| *at <= self.at) {
                self.moving.pop_first();
                if self.nodes[node].contains(&to) || !self.nodes[node].contains(&from) {
                    continue;
                }
                self.nodes[node].push(to);
                self.indexers[to].since.insert(node, self.at);
                self.indexers[to].arrivals.push(self.at);
                self.nodes[node].retain(|member| *member != from);
                self.indexers[from].since.remove(&node);
                self.indexers[from].offload.gone(&peer(10_000 + node as u32));
                self.moved.insert(node);
                self.moves += 1;
            }
        }

        /// The most that arrived at one indexer within one beat.
        fn rush(&self) -> usize {
            let of_one = |arrivals: &Vec<u64>| {
                let within = |from: &u64| arrivals.iter().filter(|at| (*from..*from + 20).contains(*at)).count();
                arrivals.iter().map(within).max().unwrap_or_default()
            };
            self.indexers.iter().map(|indexer| of_one(&indexer.arrivals)).max().unwrap_or_default()
        }
    }

    #[test]
    fn f15_a_fourth_indexer_has_its_share_within_three_beats_and_less_than_a_third_moves() {
        for seed in 0..50 {
            let mut sim = Sim::new(500, &[100, 100, 100], seed);
            sim.run(40);
            assert_eq!(sim.moves, 0, "three even ones move nobody");
            sim.add_indexer();
            // A beat for the newcomer to be heard of, and then three.
            sim.run(20 + 60);
            let (most, _) = sim.spread();
            assert!(most <= 1.25, "seed {seed}: {:?}", sim.loads());
            sim.run(600);
            let (most, least) = sim.spread();
            assert!(most <= 1.15 && least >= 0.85, "seed {seed}: {:?}", sim.loads());
            assert!(sim.moved.len() <= 90, "seed {seed}: {} of 300 moved", sim.moved.len());
            assert_eq!(sim.loads().iter().sum::<usize>(), 300, "no session is lost, and nobody has two");
        }
    }

    #[test]
    fn f10_an_over_full_indexer_is_even_with_a_new_one_in_ten_minutes_without_a_rush() {
        for seed in 0..20 {
            let mut sim = Sim::new(500, &[450], seed);
            sim.add_indexer();
            sim.run(600);
            let (most, least) = sim.spread();
            assert!(most <= 1.15 && least >= 0.85, "seed {seed}: {:?}", sim.loads());
            assert!(sim.rush() <= 90, "seed {seed}: {} arrived within one beat", sim.rush());
            assert!(sim.moved.len() <= 260, "seed {seed}: {} of 450 moved", sim.moved.len());
        }
    }

    #[test]
    fn one_newcomer_among_many_is_filled_by_all_and_overrun_by_none() {
        let mut sim = Sim::new(500, &[100; 20], 3);
        sim.add_indexer();
        sim.run(600);
        let (most, least) = sim.spread();
        assert!(most <= 1.15 && (0.85..=1.0).contains(&least), "{:?}", sim.loads());
        assert!(*sim.loads().last().unwrap() <= 110, "{:?}", sim.loads());
    }

    #[test]
    fn one_that_takes_nobody_is_sent_its_share_once() {
        let mut bed = Bed::new();
        let others = [other(1, 0, 400), other(2, 200, 400)];
        // They come back each time, for it does not serve them.
        let (mut sent, sessions) = (0, 200);
        let asked = |bed: &mut Bed, sessions: u32, beat: u64| bed.step(load(sessions, 400), &others, 20 * beat);
        for beat in 0..80 {
            for peer in asked(&mut bed, sessions, beat) {
                bed.offload.gone(&peer);
                sent += 1;
            }
        }
        assert!((100..=205).contains(&sent), "{sent} were sent, expected at most as many as we have, once");
        let before = sent;
        for beat in 80..88 {
            sent += asked(&mut bed, sessions, beat).len();
        }
        assert!(sent - before <= 5, "{} more", sent - before);
    }

    #[test]
    fn a_load_that_is_told_anew_counts_instead_of_who_was_sent() {
        let mut offload = Offload::new(BEAT);
        let now = Mono::from_secs;
        offload.believed(&[other(1, 10, 400)], now(0));
        let to = vec![peer(1_001)];
        for n in 0..3 {
            offload.asked.insert(peer(n), Asked { until: now(180), to: to.clone(), told: None });
            offload.gone(&peer(n));
        }
        let believed =
            |offload: &mut Offload, told, at| offload.believed(&[other(1, told, 400)], now(at))[0].load.sessions;
        assert_eq!(believed(&mut offload, 10, 20), 13);
        assert_eq!(believed(&mut offload, 10, BELIEVED.as_secs() - 1), 13);
        assert_eq!(believed(&mut offload, 12, BELIEVED.as_secs() - 1), 12);
        assert_eq!(believed(&mut offload, 12, 2 * BELIEVED.as_secs()), 12);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        /// However unevenly some indexers begin, in ten minutes each carries its share within 15 %, and then nobody moves.
        #[test]
        fn loads_even_out_and_stay_so(loads in proptest::collection::vec(0usize..200, 2..9), seed: u64) {
            let mean = loads.iter().sum::<usize>() / loads.len();
            prop_assume!(mean >= 20);
            let mut sim = Sim::new(1_000, &loads, seed);
            sim.run(600);
            let (most, least) = sim.spread();
            prop_assert!(most <= 1.15 && least >= 0.80, "{:?} became {:?}", loads, sim.loads());
            let moves = sim.moves;
            sim.run(300);
            prop_assert!(sim.moves - moves <= 2, "{} moved again", sim.moves - moves);
            prop_assert_eq!(sim.loads().iter().sum::<usize>(), loads.iter().sum::<usize>());
        }
    }
}
