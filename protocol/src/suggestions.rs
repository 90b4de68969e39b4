//! The other indexers that an indexer knows: whom it suggests to nodes, and whom it expects to answer a search.
//!
//! The book holds the verified `IndexerRecord`s that have not expired. Of them 30 are drawn at each refresh, and the 10
//! that lie furthest apart are kept at hand, so that a beat that needs suggestions costs a choice among 10.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use rand::{
    Rng,
    seq::{IteratorRandom, SliceRandom},
};

use crate::{
    addr::Subnet,
    presence::audit::SUSPECTS_MAX,
    record::IndexerRecord,
    signed::Verified,
    time::{Mono, Now},
    wire::AddrInfo,
};

/// Indexers known: far above the networks that the design measures (1,000), and at most 8 MiB.
pub const KNOWN_MAX: usize = 4096;

/// Drawn at a refresh.
pub const FOUND_MAX: usize = 30;

/// Kept at hand, and the most that one answer suggests.
pub const KEPT_MAX: usize = 10;

/// Time between two refreshes of an indexer that knows others.
pub const REFRESH_EVERY: Duration = Duration::from_secs(120);

/// Time between two refreshes while nobody is known, or at the start.
pub const REFRESH_HURRIED: Duration = Duration::from_secs(2);

/// How long the start lasts.
pub const HURRY_FOR: Duration = Duration::from_secs(30);

/// Up to so many indexers, a change is seen by the very next search; above, within [`ROLL_AGE_MAX`], so that the lists
/// held by open searches stay few.
const ROLL_AT_ONCE_MAX: usize = 256;

/// How old the list of a large network may be.
const ROLL_AGE_MAX: Duration = Duration::from_secs(1);

/// Where an indexer was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Its record was found in the DHT.
    Dht,
    /// It told its record itself.
    Itself,
}

/// What became of a record that was shown to the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Learned {
    /// An indexer that was not known.
    New,
    /// A newer record of a known one.
    Renewed,
    /// Nothing new.
    Known,
    /// Our own.
    Own,
    /// It is over.
    Expired,
    /// There is no room: whoever is known stays, so a flood of newcomers displaces nobody.
    Full,
}

#[derive(Debug)]
struct Entry {
    record: Verified<IndexerRecord>,
    source: Source,
    subnet: Option<Subnet>,
    /// It said that it goes, or was found dead; a newer record brings it back.
    is_gone: bool,
}

impl Entry {
    fn is_suggestible(&self, now: Timestamp) -> bool {
        self.is_present() && !self.is_drained() && now < self.record.expiry_date
    }

    /// Without capacity it lets its nodes go and takes none; it still answers searches.
    fn is_drained(&self) -> bool {
        self.record.capacity == 0
    }

    fn is_present(&self) -> bool {
        !self.is_gone && !self.record.addrs.is_empty()
    }

    fn is_full(&self) -> bool {
        self.record.fill_rate >= 1.0
    }

    fn info(&self) -> AddrInfo {
        AddrInfo { id: self.record.peer_id, addrs: self.record.addrs.clone() }
    }
}

/// All other indexers known, and the few at hand. Bounded by [`KNOWN_MAX`]; a restart forgets it, the DHT fills it again.
#[derive(Debug)]
pub struct IndexerBook {
    me: PeerId,
    is_diverse: bool,
    hurried_from: Mono,
    refreshed: Option<Mono>,
    known: BTreeMap<PeerId, Entry>,
    /// They claim more than they have: not suggested, still expected to answer. Few, for an auditor has few suspects.
    exposed: BTreeSet<PeerId>,
    by_expiry: BTreeSet<(Timestamp, PeerId)>,
    kept: Vec<PeerId>,
    roll: Arc<[PeerId]>,
    /// When the roll was written, if nothing changed since.
    roll_is_current: bool,
    rolled: Mono,
}

impl IndexerBook {
    /// An empty book of the indexer `me`; `is_diverse` as the profile says.
    #[must_use]
    pub fn new(me: PeerId, is_diverse: bool, started: Mono) -> Self {
        Self {
            me,
            is_diverse,
            hurried_from: started,
            refreshed: None,
            known: BTreeMap::new(),
            exposed: BTreeSet::new(),
            by_expiry: BTreeSet::new(),
            kept: Vec::new(),
            roll: Arc::new([]),
            roll_is_current: true,
            rolled: started,
        }
    }

    /// Takes in a verified record.
    pub fn learn(&mut self, record: Verified<IndexerRecord>, source: Source, now: Timestamp) -> Learned {
        let peer = record.peer_id;
        if peer == self.me {
            return Learned::Own;
        }
        if record.expiry_date <= now {
            return Learned::Expired;
        }
        self.forget_expired(now);
        let learned = match self.known.get(&peer) {
            Some(held) if record.seq <= held.record.seq => return Learned::Known,
            Some(held) => {
                self.by_expiry.remove(&(held.record.expiry_date, peer));
                self.roll_is_current &= !held.is_gone;
                let is_drained = record.capacity == 0;
                self.kept.retain(|kept| !is_drained || *kept != peer);
                Learned::Renewed
            }
            None if self.known.len() >= KNOWN_MAX => return Learned::Full,
            None => {
                self.roll_is_current = false;
                Learned::New
            }
        };
        let subnet = record.addrs.iter().find_map(Subnet::of_addr);
        self.by_expiry.insert((record.expiry_date, peer));
        self.known.insert(peer, Entry { record, source, subnet, is_gone: false });
        self.keep(peer, now);
        learned
    }

    /// Marks an indexer as gone: it said so, or others found it dead. It is neither suggested nor expected to answer
    /// until it returns or signs a newer record.
    pub fn gone(&mut self, peer: &PeerId) {
        self.set_gone(peer, true);
        self.kept.retain(|kept| kept != peer);
        self.fill_up();
    }

    /// An indexer that was marked as gone was met again.
    pub fn back(&mut self, peer: &PeerId, now: Timestamp) {
        if self.set_gone(peer, false) {
            self.keep(*peer, now);
        }
    }

    /// An indexer was met; when its record is not here it is looked for soon, so that it can be named to others.
    pub fn met(&mut self, peer: &PeerId, now: Mono) {
        if *peer != self.me && !self.known.contains_key(peer) {
            self.hurried_from = now;
        }
    }

    /// Every indexer that may be named to a node now.
    pub fn suggestible(&self, now: Timestamp) -> impl Iterator<Item = &Verified<IndexerRecord>> {
        self.known
            .values()
            .filter(move |entry| self.may_suggest(entry) && entry.is_suggestible(now))
            .map(|entry| &entry.record)
    }

    /// These were found to claim far more nodes than they have, and nobody else is held to any longer. [`SUSPECTS_MAX`] of
    /// them are taken; more than an auditor has.
    pub fn set_exposed(&mut self, exposed: impl IntoIterator<Item = PeerId>) {
        self.exposed = exposed.into_iter().take(SUSPECTS_MAX).collect();
        let (exposed, before) = (&self.exposed, self.kept.len());
        self.kept.retain(|kept| !exposed.contains(kept));
        for _ in self.kept.len()..before {
            self.fill_up();
        }
    }

    /// When indexers are to be looked for again: at once at the start, then every 2 s while none is known, in the first 30 s
    /// and in the 30 s after a stranger was met, then every 2 min.
    #[must_use]
    pub fn next_refresh(&self) -> Mono {
        let Some(refreshed) = self.refreshed else { return self.hurried_from };
        let is_hurried = self.kept.is_empty() || refreshed < self.hurried_from + HURRY_FOR;
        let is_hurried_anew = self.hurried_from > refreshed;
        if is_hurried_anew {
            return self.hurried_from.max(refreshed + REFRESH_HURRIED);
        }
        refreshed + if is_hurried { REFRESH_HURRIED } else { REFRESH_EVERY }
    }

    /// Indexers were looked for; draws anew whom to keep at hand.
    pub fn refreshed(&mut self, now: Now, rng: &mut impl Rng) {
        self.refreshed = Some(now.mono);
        self.forget_expired(now.wall);
        let suggestible = self.known.values().filter(|entry| self.may_suggest(entry) && entry.is_suggestible(now.wall));
        let mut found = suggestible.sample(rng, FOUND_MAX);
        found.shuffle(rng);
        found.sort_by_key(|entry| entry.is_full());
        let (first, rest) = if self.is_diverse { one_per_subnet(found) } else { (found, Vec::new()) };
        self.kept = first.iter().chain(&rest).take(KEPT_MAX).map(|entry| entry.record.peer_id).collect();
    }

    /// Up to `need` indexers at hand, in random order with the full ones last; never `asker`, never ourselves.
    ///
    /// Allocates nothing when none is needed.
    #[must_use]
    pub fn pick(&self, need: usize, asker: &PeerId, now: Timestamp, rng: &mut impl Rng) -> Vec<AddrInfo> {
        if need == 0 {
            return Vec::new();
        }
        let kept = self.kept.iter().filter(|peer| *peer != asker).filter_map(|peer| self.known.get(peer));
        let mut at_hand: Vec<_> = kept.filter(|entry| entry.is_suggestible(now)).collect();
        at_hand.shuffle(rng);
        at_hand.sort_by_key(|entry| entry.is_full());
        at_hand.into_iter().take(need).map(Entry::info).collect()
    }

    /// Everybody who should answer a search now, sorted, without ourselves.
    pub fn roll(&mut self, now: Now) -> Arc<[PeerId]> {
        self.forget_expired(now.wall);
        let is_due = self.known.len() <= ROLL_AT_ONCE_MAX || now.mono >= self.rolled + ROLL_AGE_MAX;
        if !self.roll_is_current && is_due {
            let present = self.known.iter().filter(|(_, entry)| !entry.is_gone);
            self.roll = present.map(|(peer, _)| *peer).collect();
            self.roll_is_current = true;
            self.rolled = now.mono;
        }
        Arc::clone(&self.roll)
    }

    /// The record of one indexer, with where it was heard of.
    #[must_use]
    pub fn get(&self, peer: &PeerId) -> Option<(&Verified<IndexerRecord>, Source)> {
        self.known.get(peer).map(|entry| (&entry.record, entry.source))
    }

    /// Every record held, by peer, from the first one after `after`; at most as many as the caller takes.
    pub fn records(&self, after: Option<PeerId>) -> impl Iterator<Item = (&Verified<IndexerRecord>, Source)> {
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let range = self.known.range((start, std::ops::Bound::Unbounded));
        range.map(|(_, entry)| (&entry.record, entry.source))
    }

    /// Indexers known, gone ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// No other indexer is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn set_gone(&mut self, peer: &PeerId, is_gone: bool) -> bool {
        let Some(entry) = self.known.get_mut(peer).filter(|entry| entry.is_gone != is_gone) else { return false };
        entry.is_gone = is_gone;
        self.roll_is_current = false;
        true
    }

    /// Keeps one more at hand while there is room, so that nobody waits for the next refresh.
    fn keep(&mut self, peer: PeerId, now: Timestamp) {
        let is_welcome = |entry: &&Entry| self.may_suggest(entry) && entry.is_suggestible(now);
        let Some(entry) = self.known.get(&peer).filter(is_welcome) else { return };
        if self.kept.len() < KEPT_MAX && !self.kept.contains(&peer) && self.is_apart(entry) {
            self.kept.push(peer);
        }
    }

    /// Fills the place of one that went, in no better order than that of their ids until the next refresh.
    fn fill_up(&mut self) {
        let present =
            self.known.iter().filter(|(_, entry)| self.may_suggest(entry) && entry.is_present() && !entry.is_drained());
        let spare = present.filter(|(peer, entry)| !self.kept.contains(peer) && self.is_apart(entry));
        if let Some(peer) = spare.map(|(peer, _)| *peer).next().filter(|_| self.kept.len() < KEPT_MAX) {
            self.kept.push(peer);
        }
    }

    fn may_suggest(&self, entry: &Entry) -> bool {
        !self.exposed.contains(&entry.record.peer_id)
    }

    fn is_apart(&self, entry: &Entry) -> bool {
        let mut others = self.kept.iter().filter_map(|peer| self.known.get(peer));
        !self.is_diverse || entry.subnet.is_none() || others.all(|other| other.subnet != entry.subnet)
    }

    fn forget_expired(&mut self, now: Timestamp) {
        while let Some((_, peer)) = self.by_expiry.first().copied().filter(|(expiry, _)| *expiry <= now) {
            self.by_expiry.pop_first();
            self.known.remove(&peer);
            self.kept.retain(|kept| *kept != peer);
            self.roll_is_current = false;
        }
    }
}

/// The first of each subnet in front, the others behind; whoever has no subnet stands alone.
fn one_per_subnet(found: Vec<&Entry>) -> (Vec<&Entry>, Vec<&Entry>) {
    let mut seen = BTreeSet::new();
    found.into_iter().partition(|entry| entry.subnet.is_none_or(|subnet| seen.insert(subnet)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::identity::Keys;

    fn keys(n: u16) -> Keys {
        let mut seed = [7; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        Keys::from_seed(seed)
    }

    fn now(secs: u64) -> Now {
        Now { mono: Mono::from_secs(secs), wall: Timestamp::from_second(1_000_000 + secs as i64).unwrap() }
    }

    fn record(n: u16, seq: u64, fill_rate: f64, addr: &str, expires: u64) -> Verified<IndexerRecord> {
        let keys = keys(n);
        let record = IndexerRecord {
            peer_id: keys.peer_id(),
            addrs: if addr.is_empty() { Vec::new() } else { vec![addr.parse().unwrap()] },
            region: String::new(),
            capacity: 500,
            fill_rate,
            peer_count: 0,
            salt: String::new(),
            peers_digest: Vec::new(),
            born_at: now(0).wall,
            expiry_date: now(expires).wall,
            seq,
            pub_key: keys.pub_key().to_owned(),
        };
        Verified::sign(&record, &keys)
    }

    fn book(is_diverse: bool) -> IndexerBook {
        IndexerBook::new(keys(0).peer_id(), is_diverse, Mono::ZERO)
    }

    fn learn(book: &mut IndexerBook, n: u16, at: u64) -> Learned {
        let addr = format!("/ip4/10.{}.{}.1/tcp/4001", n / 256, n % 256);
        book.learn(record(n, 1, 0.5, &addr, at + 600), Source::Dht, now(at).wall)
    }

    fn picked(book: &IndexerBook, need: usize, asker: u16, at: u64, seed: u64) -> Vec<PeerId> {
        let mut rng = StdRng::seed_from_u64(seed);
        book.pick(need, &keys(asker).peer_id(), now(at).wall, &mut rng).into_iter().map(|info| info.id).collect()
    }

    #[test]
    fn an_exposed_indexer_is_not_suggested_and_still_expected_to_answer() {
        let mut book = book(false);
        learn(&mut book, 1, 0);
        learn(&mut book, 2, 0);
        book.set_exposed([keys(1).peer_id()]);
        assert_eq!(picked(&book, 5, 9, 0, 1), [keys(2).peer_id()]);
        // Neither a newer record nor a refresh brings it back.
        book.learn(record(1, 2, 0.5, "/ip4/10.0.0.1/tcp/1", 600), Source::Dht, now(1).wall);
        book.refreshed(now(1), &mut StdRng::seed_from_u64(1));
        assert_eq!(picked(&book, 5, 9, 1, 1), [keys(2).peer_id()]);
        assert_eq!(book.roll(now(1)).len(), 2);
        book.set_exposed([keys(2).peer_id()]);
        book.refreshed(now(1), &mut StdRng::seed_from_u64(1));
        assert_eq!(picked(&book, 5, 9, 1, 1), [keys(1).peer_id()], "what is told last is all that holds");
        book.set_exposed([]);
        book.refreshed(now(1), &mut StdRng::seed_from_u64(1));
        assert_eq!(picked(&book, 5, 9, 1, 1).len(), 2);
        book.set_exposed((0..2_000).map(|number| keys(number).peer_id()));
        assert_eq!(book.exposed.len(), SUSPECTS_MAX);
    }

    #[test]
    fn others_take_the_places_of_all_who_are_exposed_at_once() {
        let mut book = book(false);
        for n in 1..=20 {
            learn(&mut book, n, 0);
        }
        let exposed: Vec<PeerId> = book.kept[..3].to_vec();
        book.set_exposed(exposed.clone());
        assert_eq!(book.kept.len(), KEPT_MAX);
        assert!(book.kept.iter().all(|kept| !exposed.contains(kept)));
    }

    #[test]
    fn the_newest_record_of_each_is_known_until_it_expires() {
        let mut book = book(false);
        let show = |book: &mut IndexerBook, seq, expires, at| {
            book.learn(record(1, seq, 0.5, "/ip4/10.0.0.1/tcp/1", expires), Source::Dht, now(at).wall)
        };
        assert_eq!(show(&mut book, 5, 100, 0), Learned::New);
        assert_eq!(show(&mut book, 5, 100, 1), Learned::Known);
        assert_eq!(show(&mut book, 4, 200, 1), Learned::Known);
        assert_eq!(show(&mut book, 6, 150, 1), Learned::Renewed);
        assert_eq!(show(&mut book, 7, 100, 100), Learned::Expired);
        assert_eq!(book.roll(now(149)).len(), 1);
        assert_eq!(book.roll(now(150)).len(), 0);
        assert!(book.is_empty() && book.by_expiry.is_empty() && book.kept.is_empty());
        assert_eq!(learn(&mut book, 0, 0), Learned::Own);
    }

    #[test]
    fn as_many_as_needed_are_suggested_but_never_the_asker() {
        let mut book = book(false);
        for n in 1..=12 {
            learn(&mut book, n, 0);
        }
        for seed in 0..50 {
            for need in 0..=12 {
                let picked = picked(&book, need, 3, 1, seed);
                assert!(picked.len() == need.min(KEPT_MAX - 1), "the asker is one of the ten at hand");
                assert!(!picked.contains(&keys(3).peer_id()) && !picked.contains(&keys(0).peer_id()));
                assert_eq!(picked.iter().collect::<BTreeSet<_>>().len(), picked.len());
            }
        }
        assert!(picked(&book, 5, 3, 600, 1).is_empty(), "an expired one is not suggested");
    }

    #[test]
    fn a_refresh_lets_everybody_be_suggested_in_time() {
        let mut book = book(false);
        for n in 1..=60 {
            learn(&mut book, n, 0);
        }
        let mut rng = StdRng::seed_from_u64(2);
        let mut seen = BTreeSet::new();
        for round in 0..60 {
            book.refreshed(now(round), &mut rng);
            assert_eq!(book.kept.len(), KEPT_MAX);
            seen.extend(book.kept.iter().copied());
        }
        assert_eq!(seen.len(), 60);
    }

    #[test]
    fn suggestions_lie_apart_while_others_are_left_where_the_profile_asks_for_it() {
        let mut book = book(true);
        for n in 1..=20 {
            // Five subnets of four each.
            let addr = format!("/ip4/10.0.{}.{n}/tcp/1", n % 5);
            book.learn(record(n, 1, 0.5, &addr, 600), Source::Dht, now(0).wall);
        }
        assert_eq!(book.kept.len(), 5, "before a refresh one per subnet");
        let mut rng = StdRng::seed_from_u64(3);
        book.refreshed(now(1), &mut rng);
        let subnets: BTreeSet<_> = book.kept[..5].iter().map(|peer| book.known[peer].subnet).collect();
        assert_eq!((book.kept.len(), subnets.len()), (10, 5));
    }

    #[test]
    fn the_full_come_last_and_the_empty_can_win() {
        let mut book = book(false);
        for n in 1..=6 {
            let fill = if n <= 3 { 1.0 } else { 0.0 };
            book.learn(record(n, 1, fill, "/ip4/10.0.0.1/tcp/1", 600), Source::Dht, now(0).wall);
        }
        for seed in 0..20 {
            let first = picked(&book, 3, 0, 1, seed);
            assert!(first.iter().all(|peer| book.known[peer].record.fill_rate == 0.0));
        }
    }

    #[test]
    fn who_left_is_neither_suggested_nor_expected_until_it_returns() {
        let mut book = book(false);
        learn(&mut book, 1, 0);
        book.gone(&keys(1).peer_id());
        assert!(book.roll(now(1)).is_empty() && picked(&book, 1, 0, 1, 1).is_empty());
        assert_eq!(learn(&mut book, 1, 0), Learned::Known);
        assert!(book.roll(now(1)).is_empty(), "the record it left in the DHT does not bring it back");
        let newer = record(1, 2, 0.5, "/ip4/10.0.1.1/tcp/1", 600);
        assert_eq!(book.learn(newer, Source::Itself, now(2).wall), Learned::Renewed);
        assert_eq!((book.roll(now(2)).len(), picked(&book, 1, 0, 2, 1).len()), (1, 1));
        book.gone(&keys(1).peer_id());
        book.back(&keys(1).peer_id(), now(3).wall);
        assert_eq!((book.roll(now(3)).len(), picked(&book, 1, 0, 3, 1).len()), (1, 1));
    }

    #[test]
    fn another_one_takes_the_place_of_one_that_went() {
        let mut book = book(false);
        for n in 1..=12 {
            learn(&mut book, n, 0);
        }
        for (n, left) in [(1, 10), (2, 10), (3, 9)] {
            book.gone(&keys(n).peer_id());
            assert_eq!(picked(&book, 10, 0, 1, 1).len(), left);
            assert_eq!(book.kept.iter().collect::<BTreeSet<_>>().len(), left);
        }
    }

    #[test]
    fn without_addresses_it_is_expected_to_answer_but_not_suggested() {
        let mut book = book(false);
        book.learn(record(1, 1, 0.0, "", 600), Source::Dht, now(0).wall);
        assert_eq!(book.roll(now(1)).len(), 1);
        assert!(picked(&book, 1, 0, 1, 1).is_empty());
    }

    #[test]
    fn refreshes_hurry_at_the_start_and_while_nobody_is_known() {
        let mut rng = StdRng::seed_from_u64(4);
        let mut book = book(false);
        assert_eq!(book.next_refresh(), Mono::ZERO);
        book.refreshed(now(100), &mut rng);
        assert_eq!(book.next_refresh(), Mono::from_secs(102), "nobody is known");
        learn(&mut book, 1, 100);
        assert_eq!(book.next_refresh(), Mono::from_secs(220));
        book.refreshed(now(29), &mut rng);
        assert_eq!(book.next_refresh(), Mono::from_secs(31), "the start");
        book.refreshed(now(30), &mut rng);
        assert_eq!(book.next_refresh(), Mono::from_secs(150));
    }

    #[test]
    fn a_flood_of_newcomers_displaces_nobody() {
        let mut book = book(false);
        for n in 1..=4096 {
            assert_eq!(learn(&mut book, n, 0), Learned::New);
        }
        assert_eq!(learn(&mut book, 4097, 0), Learned::Full);
        assert_eq!(book.roll(now(1)).len(), KNOWN_MAX);
        assert!(book.roll(now(1)).is_sorted());
        book.gone(&keys(1).peer_id());
        assert_eq!(book.roll(now(1)).len(), KNOWN_MAX, "a large roll is written once a second");
        assert_eq!(book.roll(now(2)).len(), KNOWN_MAX - 1);
        assert_eq!(learn(&mut book, 4097, 600), Learned::New, "the expired made room");
    }
}
