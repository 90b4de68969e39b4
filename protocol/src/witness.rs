//! Witnesses: what other peers say of an indexer, whom to ask, and what a word is worth.
//!
//! An indexer names up to [`OFFERED_MAX`] peers that have a session with it, the asker takes at least as many of its own
//! choice, and asks them and some of the named at once. Whoever cannot be reached, refuses, or knows nothing is no evidence either way.
//! Nobody proves anything by a word: colluders agree with each other. What is gained is that an indexer which tells us
//! other things than others is caught by those that we chose ourselves.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use rand::{Rng, RngExt};

use crate::{
    time::Mono,
    wire::{AddrInfo, HeartbeatResponse, WitnessReport},
};

/// Witnesses that an indexer offers in one answer.
pub const OFFERED_MAX: usize = 3;

/// Of those offered that are no members of our pool one is asked: to each a connection is made for the sake of one
/// question, and they were chosen by the accused.
const STRANGERS_MAX: usize = 1;

/// A witness answers within this, or is no evidence.
pub const WITHIN: Duration = Duration::from_secs(5);

/// What a witness heard longer ago is not told: a tick and a half, so that no fill rate is compared with one of before.
pub const FRESH: Duration = Duration::from_secs(30);

/// Who was heard within this was seen: longer than an `IndexerRecord` may speak of anybody (see [`crate::spot`]).
pub const SEEN_WITHIN: Duration = Duration::from_secs(15 * 60);

/// So long an indexer's `born_at` must have stood before others are asked about it: they hear of a restart a tick later.
pub const STEADY: Duration = Duration::from_secs(60);

/// One target is tried for others once in this time.
pub const TRY_EVERY: Duration = Duration::from_secs(10);

/// How far apart two fill rates may be: what a crowd changes within a tick.
const FILL_TOLERANCE: f64 = 0.25;

/// Targets tried within [`TRY_EVERY`]: six dials a second, beyond it nobody is tried for others.
const TARGETS_MAX: usize = 64;

/// Words of which a majority says something, and as many members of our pool have to stand against an indexer, whatever they
/// weigh: two in league convict nobody, with strangers or without.
const MAJORITY_MIN: usize = 3;

/// Witnesses whose agreement is remembered; past it the longest unheard is forgotten, and counts like a new one.
const STANDINGS_MAX: usize = 256;

/// What an indexer said of itself, for comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Said {
    /// Start of its process.
    pub born_at: Timestamp,
    /// 0 to 1.
    pub fill_rate: f64,
    /// Sessions.
    pub peer_count: u32,
    /// Capacity in sessions.
    pub max_nodes: u32,
}

impl From<&HeartbeatResponse> for Said {
    fn from(response: &HeartbeatResponse) -> Self {
        let HeartbeatResponse { born_at, fill_rate, peer_count, max_nodes, .. } = *response;
        Self { born_at, fill_rate, peer_count, max_nodes }
    }
}

/// Whether a report says the same as the indexer: the same `born_at`, and a fill rate within 0.25. Nothing when the
/// witness knows neither, or says what cannot be.
#[must_use]
pub fn agrees(said: &Said, report: &WitnessReport) -> Option<bool> {
    if !report.seen || report.fill_rate.is_some_and(|fill| !(0.0..=1.0).contains(&fill)) {
        return None;
    }
    let born = report.born_at.map(|born_at| born_at == said.born_at);
    let fill = report.fill_rate.map(|fill| (fill - said.fill_rate).abs() <= FILL_TOLERANCE);
    match (born, fill) {
        (None, None) => None,
        (born, fill) => Some(born.unwrap_or(true) && fill.unwrap_or(true)),
    }
}

/// Whether an indexer that offers no witness says so believably: it has no session but ours, and a fill rate to match.
#[must_use]
pub fn may_offer_none(said: &Said) -> bool {
    let alone = 1.0 / f64::from(said.max_nodes.max(1));
    said.peer_count <= 1 && (said.fill_rate - alone).abs() <= FILL_TOLERANCE
}

/// Whom to ask about `about`: up to [`OFFERED_MAX`] of those that we know ourselves, drawn by chance, and no more of
/// those that it offers than of our own, one stranger among them. Never ourselves, never itself, none twice.
#[must_use]
pub fn choose(
    offered: &[AddrInfo],
    known: &[PeerId],
    own: &PeerId,
    about: &PeerId,
    rng: &mut impl Rng,
) -> Vec<AddrInfo> {
    let is_other = |peer: &PeerId| peer != own && peer != about;
    let mut left: Vec<PeerId> = known.iter().copied().filter(is_other).collect();
    left.sort_unstable();
    left.dedup();
    let mut chosen: Vec<AddrInfo> = Vec::new();
    while chosen.len() < OFFERED_MAX && !left.is_empty() {
        let peer = left.swap_remove(rng.random_range(0..left.len()));
        chosen.push(AddrInfo { id: peer, addrs: Vec::new() });
    }
    let (most, mut strangers) = (2 * chosen.len(), 0);
    for info in offered.iter().take(OFFERED_MAX).filter(|info| is_other(&info.id)) {
        if chosen.len() == most || chosen.iter().any(|other| other.id == info.id) {
            continue;
        }
        let is_stranger = !known.contains(&info.id);
        if !is_stranger || strangers < STRANGERS_MAX {
            strangers += usize::from(is_stranger);
            chosen.push(info.clone());
        }
    }
    chosen
}

/// What a witness tells of an indexer that it hears, or would: raw facts, and only fresh ones. Never a score.
#[must_use]
pub fn report(seen: bool, heard: Option<(Mono, Timestamp, f64)>, connected: Option<bool>, now: Mono) -> WitnessReport {
    let fresh = heard.filter(|(at, ..)| now.since(*at) <= FRESH);
    WitnessReport {
        seen: seen || heard.is_some(),
        born_at: fresh.map(|(_, born_at, _)| born_at),
        fill_rate: fresh.map(|(.., fill_rate)| fill_rate),
        connected,
    }
}

/// One word about an indexer and how much it counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Testimony {
    /// Who says it.
    pub by: PeerId,
    /// The same as the indexer.
    pub agrees: bool,
    /// 0 to 1.
    pub weight: f64,
}

/// What came of asking several about one indexer.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// Their words.
    pub words: Vec<Testimony>,
    /// What most say, by the weight of their words: whether they agree with the indexer. Nothing of a draw, nor where fewer
    /// than three members of our pool stand against it.
    most: Option<bool>,
}

impl Round {
    fn of(words: Vec<Testimony>, is_member: impl Fn(&PeerId) -> bool) -> Self {
        let sum = |agrees: bool| words.iter().filter(|word| word.agrees == agrees).map(|word| word.weight).sum::<f64>();
        let (agreeing, disagreeing) = (sum(true), sum(false));
        let is_accused = words.iter().filter(|word| !word.agrees && is_member(&word.by)).count() >= MAJORITY_MIN;
        let most = (agreeing != disagreeing).then_some(agreeing > disagreeing).filter(|agrees| *agrees || is_accused);
        Self { words, most }
    }

    /// What most say of the indexer; nothing of fewer than three words.
    #[must_use]
    pub fn of_the_indexer(&self) -> Option<bool> {
        self.most.filter(|_| self.words.len() >= MAJORITY_MIN)
    }

    /// Each witness and whether it says what most say. Of two who differ the word of the indexer itself tells who is alone;
    /// where both differ from it nobody is. One says nothing about itself.
    pub fn of_the_witnesses(&self) -> impl Iterator<Item = (PeerId, bool)> + '_ {
        let most = match self.words.as_slice() {
            [one, other] => (one.agrees || other.agrees).then_some(true),
            _ => self.of_the_indexer(),
        };
        most.into_iter().flat_map(|most| self.words.iter().map(move |word| (word.by, word.agrees == most)))
    }
}

/// How often a witness agreed with the majority.
#[derive(Clone, Copy, Debug)]
struct Standing {
    with: f64,
    against: f64,
    at: Mono,
}

impl Standing {
    /// 1 for one that is new or always with the majority. Squared, so that one whose word stands against the others'
    /// every second time counts a quarter.
    fn weight(self) -> f64 {
        let share = (self.with + 1.0) / (self.with + self.against + 1.0);
        share * share
    }

    fn faded(self, now: Mono, half_life: Duration) -> Self {
        let half_lives = now.since(self.at).as_secs_f64() / half_life.as_secs_f64().max(f64::MIN_POSITIVE);
        let factor = 0.5_f64.powf(half_lives);
        Self { with: self.with * factor, against: self.against * factor, at: self.at.max(now) }
    }
}

/// What the words of witnesses are worth: those that often stand against the majority lose weight, and win it back.
#[derive(Clone, Debug, Default)]
pub struct Standings {
    by_peer: BTreeMap<PeerId, Standing>,
}

impl Standings {
    /// Weighs the reports of one round, and then writes down who stood with the majority; a draw has none, and one witness
    /// is its own, which says nothing about it. `is_member` tells the members of our pool from strangers.
    pub fn round(
        &mut self,
        reports: &[(PeerId, bool)],
        is_member: impl Fn(&PeerId) -> bool,
        now: Mono,
        half_life: Duration,
    ) -> Round {
        let weighed = |(by, agrees): &(PeerId, bool)| Testimony {
            by: *by,
            agrees: *agrees,
            weight: self.weight(by, now, half_life),
        };
        let round = Round::of(reports.iter().map(weighed).collect(), is_member);
        if let Some(most) = round.most.filter(|_| round.words.len() > 1) {
            for word in &round.words {
                self.note(word.by, word.agrees == most, now, half_life);
            }
        }
        round
    }

    /// How much the word of this witness counts, 0 to 1; a new one's counts in full.
    #[must_use]
    pub fn weight(&self, peer: &PeerId, now: Mono, half_life: Duration) -> f64 {
        self.by_peer.get(peer).map_or(1.0, |standing| standing.faded(now, half_life).weight())
    }

    fn note(&mut self, peer: PeerId, is_with: bool, now: Mono, half_life: Duration) {
        if !self.by_peer.contains_key(&peer) && self.by_peer.len() >= STANDINGS_MAX {
            let oldest = self.by_peer.iter().min_by_key(|(_, standing)| standing.at).map(|(peer, _)| *peer);
            oldest.and_then(|peer| self.by_peer.remove(&peer));
        }
        let fresh = Standing { with: 0.0, against: 0.0, at: now };
        let standing = self.by_peer.entry(peer).or_insert(fresh);
        *standing = standing.faded(now, half_life);
        standing.with += f64::from(u8::from(is_with));
        standing.against += f64::from(u8::from(!is_with));
    }
}

/// What a witness does about a target that it is asked to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trying {
    /// Say hello to it now, and tell the outcome with [`Tries::ended`].
    Now,
    /// It was tried a moment ago, with this outcome.
    Lately(bool),
    /// It is being tried, or too many are: there is nothing to tell.
    NotNow,
}

#[derive(Clone, Copy, Debug)]
struct Try {
    at: Mono,
    reached: Option<bool>,
}

/// Whom we tried for others: each target at most once in [`TRY_EVERY`], so that nobody makes us knock for him.
#[derive(Clone, Debug, Default)]
pub struct Tries {
    targets: BTreeMap<PeerId, Try>,
}

impl Tries {
    /// Somebody asks us to try `target`, which we knew before.
    pub fn begin(&mut self, target: PeerId, now: Mono) -> Trying {
        self.targets.retain(|_, tried| now.since(tried.at) < TRY_EVERY);
        match self.targets.get(&target) {
            Some(Try { reached: Some(reached), .. }) => Trying::Lately(*reached),
            Some(Try { reached: None, .. }) => Trying::NotNow,
            None if self.targets.len() >= TARGETS_MAX => Trying::NotNow,
            None => {
                self.targets.insert(target, Try { at: now, reached: None });
                Trying::Now
            }
        }
    }

    /// It was reached, or not.
    pub fn ended(&mut self, target: &PeerId, reached: bool) {
        if let Some(tried) = self.targets.get_mut(target) {
            tried.reached = Some(reached);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::heartbeat::testing::peer;

    const HALF_LIFE: Duration = Duration::from_secs(6 * 3_600);

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn said() -> Said {
        Said { born_at: wall(0), fill_rate: 0.5, peer_count: 250, max_nodes: 500 }
    }

    fn told(born: Option<i64>, fill_rate: Option<f64>) -> WitnessReport {
        WitnessReport { seen: true, born_at: born.map(wall), fill_rate, connected: None }
    }

    fn info(number: u16) -> AddrInfo {
        AddrInfo { id: peer(number), addrs: Vec::new() }
    }

    #[test]
    fn a_report_agrees_by_the_same_start_and_a_fill_rate_within_a_quarter() {
        let check =
            |born, fill, expected| assert_eq!(agrees(&said(), &told(born, fill)), expected, "{born:?} {fill:?}");
        check(Some(0), Some(0.5), Some(true));
        check(Some(0), Some(0.75), Some(true));
        check(Some(0), Some(0.76), Some(false));
        check(Some(0), Some(0.25), Some(true));
        check(Some(1), Some(0.5), Some(false));
        check(Some(0), None, Some(true));
        check(None, Some(0.9), Some(false));
        check(None, None, None);
        check(Some(0), Some(1.5), None);
        check(Some(0), Some(f64::NAN), None);
    }

    #[test]
    fn g12_a_witness_that_did_not_see_it_is_no_evidence() {
        assert_eq!(agrees(&said(), &WitnessReport { seen: false, ..told(Some(1), Some(0.0)) }), None);
    }

    #[test]
    fn who_offers_no_witness_must_be_alone() {
        let check = |peer_count, fill_rate, expected| {
            assert_eq!(may_offer_none(&Said { peer_count, fill_rate, ..said() }), expected);
        };
        check(1, 0.002, true);
        check(0, 0.0, true);
        check(1, 0.3, false);
        check(2, 0.004, false);
    }

    #[test]
    fn g12_the_accused_never_chooses_most_of_its_witnesses() {
        let mut rng = StdRng::seed_from_u64(7);
        let (own, about) = (peer(1), peer(2));
        let offered: Vec<AddrInfo> = [1, 2, 10, 11, 12, 13].map(info).into();
        for known in 0..8u16 {
            let known: Vec<PeerId> = (0..known).map(|number| peer(20 + number)).chain([own, about]).collect();
            let chosen = choose(&offered, &known, &own, &about, &mut rng);
            let its = chosen.iter().filter(|info| offered.contains(info)).count();
            assert!(its * 2 <= chosen.len(), "{chosen:?}");
            assert!(chosen.len() <= 2 * OFFERED_MAX);
            assert!(chosen.iter().all(|info| info.id != own && info.id != about));
        }
        assert!(choose(&offered, &[], &own, &about, &mut rng).is_empty(), "its word alone is worth nothing");
        let twice = choose(&[info(20)], &[peer(20), peer(20), peer(21)], &own, &about, &mut rng);
        assert_eq!(twice.len(), 2, "nobody is asked twice: {twice:?}");
    }

    #[test]
    fn one_connection_at_most_is_made_for_a_round() {
        let mut rng = StdRng::seed_from_u64(7);
        let (own, about, known) = (peer(1), peer(2), [20, 21, 22, 23].map(peer));
        let mut asked = |offered: [u16; 3]| {
            let chosen = choose(&offered.map(info), &known, &own, &about, &mut rng);
            let strangers: Vec<PeerId> =
                chosen.iter().map(|info| info.id).filter(|peer| !known.contains(peer)).collect();
            (chosen.len(), strangers)
        };
        assert_eq!(asked([10, 11, 12]), (4, vec![peer(10)]));
        for _ in 0..20 {
            let (all, strangers) = asked([20, 21, 10]);
            assert_eq!(strangers, [peer(10)], "members that it offers keep nobody out");
            assert!((4..=6).contains(&all));
        }
        assert_eq!(asked([1, 2, 2]), (3, vec![]));
    }

    #[test]
    fn only_what_is_fresh_is_told() {
        let heard = Some((Mono::from_secs(100), wall(0), 0.5));
        let at = report(false, heard, None, Mono::from_secs(130));
        assert_eq!((at.seen, at.born_at, at.fill_rate), (true, Some(wall(0)), Some(0.5)));
        let past = report(false, heard, None, Mono::from_secs(131));
        assert_eq!((past.seen, past.born_at, past.fill_rate), (true, None, None));
        assert!(!report(false, None, None, Mono::ZERO).seen);
    }

    #[test]
    fn who_often_stands_against_the_majority_loses_weight_and_wins_it_back() {
        let mut standings = Standings::default();
        for second in 0..20 {
            let now = Mono::from_secs(second);
            standings.round(&[(peer(1), true), (peer(2), true), (peer(3), false)], |_| true, now, HALF_LIFE);
        }
        let now = Mono::from_secs(20);
        assert_eq!(standings.weight(&peer(1), now, HALF_LIFE), 1.0);
        assert!(standings.weight(&peer(3), now, HALF_LIFE) < 0.01);
        assert_eq!(standings.weight(&peer(4), now, HALF_LIFE), 1.0, "nothing is known of a new one");
        let later = now + HALF_LIFE * 10;
        assert!(standings.weight(&peer(3), later, HALF_LIFE) > 0.95, "old sins fade");
    }

    #[test]
    fn what_a_round_says_of_the_indexer_and_of_its_witnesses() {
        let round = |words: &[bool]| {
            let reports: Vec<(PeerId, bool)> = (1..).map(peer).zip(words.iter().copied()).collect();
            let round = Standings::default().round(&reports, |_| true, Mono::ZERO, HALF_LIFE);
            let with = round.of_the_witnesses().filter(|(_, is_with)| *is_with).count();
            let against = round.of_the_witnesses().count() - with;
            (round.of_the_indexer(), with, against)
        };
        assert_eq!(round(&[false]), (None, 0, 0), "word against word");
        assert_eq!(round(&[true]), (None, 0, 0), "nobody to differ from");
        assert_eq!(round(&[true, true]), (None, 2, 0), "two are too few to speak of it");
        assert_eq!(round(&[true, false]), (None, 1, 1), "its own word tells who is alone");
        assert_eq!(round(&[false, false]), (None, 0, 0), "word against words");
        assert_eq!(round(&[true, false, false]), (None, 0, 0), "two convict nobody");
        assert_eq!(round(&[true, true, false]), (Some(true), 2, 1));
        assert_eq!(round(&[false, false, false]), (Some(false), 3, 0));
        assert_eq!(round(&[true, false, false, false]), (Some(false), 3, 1));
        assert_eq!(round(&[true, true, false, false]), (None, 0, 0), "a draw");
        assert_eq!(round(&[true, true, true, false, false, false]), (None, 0, 0));
    }

    #[test]
    fn strangers_speak_for_an_indexer_and_convict_none() {
        let says = |agrees: bool, strangers: u16| {
            let reports: Vec<(PeerId, bool)> = (1..=4).map(|number| (peer(number), agrees)).collect();
            let is_member = |by: &PeerId| (1 + strangers..=4).any(|number| peer(number) == *by);
            Standings::default().round(&reports, is_member, Mono::ZERO, HALF_LIFE).of_the_indexer()
        };
        assert_eq!((says(false, 1), says(false, 2)), (Some(false), None));
        assert_eq!((says(true, 1), says(true, 4)), (Some(true), Some(true)));
    }

    #[test]
    fn three_heads_are_as_many_when_one_of_them_weighs_nothing() {
        let mut standings = Standings::default();
        for second in 0..20 {
            standings.round(
                &[(peer(1), false), (peer(2), true), (peer(3), true)],
                |_| true,
                Mono::from_secs(second),
                HALF_LIFE,
            );
        }
        let mut says = |words: [(u16, bool); 4]| {
            let reports = words.map(|(number, agrees)| (peer(number), agrees));
            standings.round(&reports, |_| true, Mono::from_secs(20), HALF_LIFE).of_the_indexer()
        };
        assert_eq!(says([(1, true), (2, false), (3, false), (4, true)]), None, "heavier, and two");
        assert_eq!(says([(1, false), (2, false), (3, false), (4, true)]), Some(false));
    }

    #[test]
    fn one_witness_and_a_draw_say_nothing_about_witnesses() {
        let mut standings = Standings::default();
        standings.round(&[(peer(1), false)], |_| true, Mono::ZERO, HALF_LIFE);
        standings.round(&[(peer(1), false), (peer(2), true)], |_| true, Mono::ZERO, HALF_LIFE);
        assert_eq!(standings.weight(&peer(1), Mono::ZERO, HALF_LIFE), 1.0);
        assert_eq!(standings.weight(&peer(2), Mono::ZERO, HALF_LIFE), 1.0);
    }

    #[test]
    fn standings_are_bounded() {
        let mut standings = Standings::default();
        for number in 0..2 * STANDINGS_MAX as u16 {
            let now = Mono::from_secs(u64::from(number));
            standings.round(&[(peer(2 * number), true), (peer(2 * number + 1), true)], |_| true, now, HALF_LIFE);
        }
        assert_eq!(standings.by_peer.len(), STANDINGS_MAX);
    }

    #[test]
    fn a_target_is_tried_once_in_ten_seconds() {
        let mut tries = Tries::default();
        assert_eq!(tries.begin(peer(1), Mono::ZERO), Trying::Now);
        assert_eq!(tries.begin(peer(1), Mono::from_secs(1)), Trying::NotNow, "under way");
        tries.ended(&peer(1), true);
        assert_eq!(tries.begin(peer(1), Mono::from_millis(9_999)), Trying::Lately(true));
        assert_eq!(tries.begin(peer(1), Mono::from_secs(10)), Trying::Now);
        assert_eq!(tries.begin(peer(2), Mono::from_secs(10)), Trying::Now, "another target");
    }

    #[test]
    fn few_targets_are_tried_at_a_time() {
        let mut tries = Tries::default();
        for number in 0..TARGETS_MAX as u16 {
            assert_eq!(tries.begin(peer(number), Mono::ZERO), Trying::Now);
        }
        assert_eq!(tries.begin(peer(999), Mono::ZERO), Trying::NotNow);
        assert_eq!(tries.begin(peer(999), Mono::from_secs(10)), Trying::Now);
    }

    proptest! {
        #[test]
        fn a_weight_is_a_share(rounds in proptest::collection::vec(proptest::collection::vec(any::<bool>(), 0..7), 0..40)) {
            let mut standings = Standings::default();
            for (second, words) in rounds.iter().enumerate() {
                let reports: Vec<(PeerId, bool)> = (0u16..).map(peer).zip(words.iter().copied()).collect();
                for word in standings.round(&reports, |_| true, Mono::from_secs(second as u64 * 120), HALF_LIFE).words {
                    prop_assert!((0.0..=1.0).contains(&word.weight), "{word:?}");
                }
            }
        }
    }
}
