//! Whether an indexer is caught lying: one sequential test for each way of checking its word.
//!
//! # Why a score is not enough
//! A score is a weighted sum. One that lies about its fill and does all else well has 75 of 100 and stays above the threshold
//! of its first hour, 22.5, whatever it says. Yet an honest indexer never says such a thing, so the question is not how much
//! a lie weighs but how sure it is.
//!
//! # The test
//! For each [`Check`] there is a rate q at which an honest indexer passes it at the least, its own misfortunes and those of
//! the network included, and a lower one r of a liar. A check that is passed adds ln(r ÷ q), one that is not
//! ln((1 - r) ÷ (1 - q)). Sums of these above 0 are kept (Page, Continuous inspection schemes, 1954), so that a long good
//! past buys no lie. For whoever passes with probability p ≥ q the mean of e^step is at most 1:
//! p · r ÷ q + (1 - p) · (1 - r) ÷ (1 - q) falls in p and is 1 at q. So e^sum is a supermartingale from each start, and by
//! Ville's inequality an honest indexer is caught within n checks with probability ≤ n · e^-[`SURE`] ≈ n · 10^-9. Sums fade
//! with the half-life of all evidence, which only makes them smaller.
//!
//! One that never passes a check of its own word is caught by the tenth, one that fails every second by the 26th, and no check
//! decides alone.
//!
//! The bound wants failures of an honest one that do not hang together. Where they may, something else bounds them: a record in
//! the DHT is asked for minutes apart, so that a split passes before it convicts; the words of one round of witnesses are one
//! check; what most members fail at the same time is not written down at all ([`super::Book`]); and what rests on another's
//! word, testimony and spot checks, has a sum for each of those others, at most a third of [`SURE`]. Each of them may lie, so
//! those by whom it is borne out count as much: the sums go as far below 0, and it takes three more against it than for it while
//! all is fresh, or four.
//!
//! # What follows
//! The score of one that is caught is 0, until every sum has fallen below half of [`SURE`]: after a half-life without
//! anything new, or by as many good checks where it may not be left.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

/// Sum at which one is caught: ln 10^9, cut.
pub const SURE: f64 = 20.7;

/// Below this share of [`SURE`] one that was caught is so no longer.
const RELEASED: f64 = 0.5;

/// What rests on one other's word is at most this share of [`SURE`] either way, rounded up so that three of them reach it.
const OF_ONE: f64 = 0.334;

/// Others of whose words sums are kept, each way: more than a pool has. Past it the least is forgotten.
const OTHERS_MAX: usize = 32;

/// A sum that faded to less than this is none.
const SUM_MIN: f64 = 0.01;

/// One way of checking what an indexer says or does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// It finds us, whom it serves.
    OwnId,
    /// It holds the record that we gave it.
    Record,
    /// It finds our record in the DHT, where it is.
    Dht,
    /// Its fill rate fits its sessions.
    Fill,
    /// Peers that its record names are connected to it.
    Spot,
    /// Others hear the same of it.
    Witnesses,
    /// What it says of others is what most say.
    Testimony,
    /// It answers within three quarters of the worst round trip while others are quick.
    Pace,
    /// It has tokens for the nodes that it claims.
    Presence,
}

impl Check {
    /// Its word in views.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OwnId => "own id",
            Self::Record => "record",
            Self::Dht => "DHT",
            Self::Fill => "fill",
            Self::Spot => "spot checks",
            Self::Witnesses => "witnesses",
            Self::Testimony => "testimony",
            Self::Pace => "pace",
            Self::Presence => "presence",
        }
    }

    /// How often an honest one passes at the least, and a liar.
    const fn rates(self) -> (f64, f64) {
        match self {
            // Its own word: a restart, a split or a lost record fails a check now and then.
            Self::OwnId | Self::Record | Self::Fill | Self::Presence => (0.95, 0.60),
            // Asked for seldom, so that fewer must do: nine in half an hour, with what fades meanwhile.
            Self::Dht => (0.95, 0.30),
            // The word of others, of whom a fifth may be in league against it; the pace of a link that loses a fifth of its
            // packets.
            Self::Spot | Self::Witnesses | Self::Testimony | Self::Pace => (0.80, 0.30),
        }
    }

    /// What a check that is passed adds, below 0, and what one that is not adds.
    fn steps(self) -> (f64, f64) {
        let (honest, liar) = self.rates();
        ((liar / honest).ln(), ((1.0 - liar) / (1.0 - honest)).ln())
    }
}

/// The sums of one indexer. Bounded: one for each [`Check`], and for 32 others each way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Suspicions {
    sums: BTreeMap<Check, f64>,
    /// What it said of each other.
    testimony: Vec<OfOne>,
    /// What each other said of it.
    spots: Vec<OfOne>,
    is_caught: bool,
}

/// What speaks against it by one other's word; below 0 for it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct OfOne {
    #[serde(with = "crate::wire::text")]
    other: PeerId,
    sum: f64,
}

impl Suspicions {
    /// Its score is 0.
    #[must_use]
    pub fn is_caught(&self) -> bool {
        self.is_caught
    }

    /// What is held against it, 0 to [`SURE`].
    #[must_use]
    pub fn of(&self, check: Check) -> f64 {
        self.sums.get(&check).copied().unwrap_or(0.0)
    }

    /// Every check that holds something against it, and how much: above 0, at most [`SURE`].
    pub fn sums(&self) -> impl Iterator<Item = (Check, f64)> + '_ {
        self.sums.iter().map(|(check, sum)| (*check, *sum))
    }

    /// What it said of `about` was what most said, or not.
    pub(super) fn testify(&mut self, about: PeerId, good: bool) {
        let sum = of_others(&mut self.testimony, about, Check::Testimony, good);
        self.weigh(Check::Testimony, sum);
    }

    /// `by`, whom its record names, is connected to it, or not.
    pub(super) fn spot(&mut self, by: PeerId, good: bool) {
        let sum = of_others(&mut self.spots, by, Check::Spot, good);
        self.weigh(Check::Spot, sum);
    }

    fn weigh(&mut self, check: Check, sum: f64) {
        self.is_caught |= sum >= SURE;
        self.set(check, sum.clamp(0.0, SURE));
    }

    /// Adds checks: so many failed, and then so many passed. One may count less than 1.
    pub(super) fn add(&mut self, check: Check, good: f64, bad: f64) {
        let (passed, failed) = check.steps();
        let doubted = (self.of(check) + bad * failed).min(SURE);
        self.is_caught |= doubted >= SURE;
        self.set(check, doubted + good * passed);
    }

    /// It was proved by audits.
    pub(super) fn prove(&mut self, check: Check) {
        self.is_caught = true;
        self.set(check, SURE);
    }

    /// What was proved does not hold any more.
    pub(super) fn clear(&mut self, check: Check) {
        self.set(check, 0.0);
    }

    /// Takes over what is worse in the other. Two runs of checks are not one, so their sums are not added.
    pub(super) fn join(&mut self, other: &Self) {
        for (check, sum) in other.sums() {
            let worse = self.of(check).max(sum);
            self.sums.insert(check, worse);
        }
        self.is_caught |= other.is_caught;
    }

    /// All sums are multiplied by `factor`, 0 to 1.
    pub(super) fn fade(&mut self, factor: f64) {
        for sum in self.sums.values_mut() {
            *sum *= factor;
        }
        for others in [&mut self.testimony, &mut self.spots] {
            others.iter_mut().for_each(|other| other.sum *= factor);
            others.retain(|other| other.sum.abs() >= SUM_MIN);
        }
        self.settle();
    }

    /// The sums are finite and in their range.
    pub(super) fn is_sane(&self) -> bool {
        let others = || self.testimony.iter().chain(&self.spots);
        self.sums.values().all(|sum| (0.0..=SURE).contains(sum))
            && others().all(|other| other.sum.abs() <= OF_ONE * SURE)
            && self.testimony.len() <= OTHERS_MAX
            && self.spots.len() <= OTHERS_MAX
    }

    fn set(&mut self, check: Check, sum: f64) {
        self.sums.insert(check, sum);
        self.settle();
    }

    fn settle(&mut self) {
        self.sums.retain(|_, sum| *sum >= SUM_MIN);
        self.is_caught &= self.sums.values().any(|sum| *sum >= RELEASED * SURE);
    }
}

/// Adds one check to the sum of one other, and tells what all of them come to.
fn of_others(others: &mut Vec<OfOne>, other: PeerId, check: Check, good: bool) -> f64 {
    let (passed, failed) = check.steps();
    let step = if good { passed } else { failed };
    let before = others.iter().position(|known| known.other == other).map(|at| others.swap_remove(at).sum);
    let sum = (before.unwrap_or(0.0) + step).clamp(-OF_ONE * SURE, OF_ONE * SURE);
    if sum.abs() >= SUM_MIN {
        if others.len() >= OTHERS_MAX {
            let least =
                (0..others.len()).min_by(|one, next| others[*one].sum.abs().total_cmp(&others[*next].sum.abs()));
            least.map(|at| others.swap_remove(at));
        }
        others.push(OfOne { other, sum });
    }
    others.iter().map(|other| other.sum).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::testing::peer;

    const ALL: [Check; 9] = [
        Check::OwnId,
        Check::Record,
        Check::Dht,
        Check::Fill,
        Check::Spot,
        Check::Witnesses,
        Check::Testimony,
        Check::Pace,
        Check::Presence,
    ];

    /// How many checks it takes to be caught when each outcome is as `passes` says.
    fn caught_after(check: Check, passes: impl Fn(u32) -> bool) -> Option<u32> {
        let mut suspicions = Suspicions::default();
        (1..=1_000).find(|number| {
            let good = f64::from(u8::from(passes(*number)));
            suspicions.add(check, good, 1.0 - good);
            suspicions.is_caught()
        })
    }

    #[test]
    fn one_that_never_passes_is_caught_by_the_tenth_check_of_its_own_word() {
        assert_eq!(caught_after(Check::Dht, |_| false), Some(8));
        assert!(!is_caught_by_dht_challenges(8) && is_caught_by_dht_challenges(9), "with what fades between them");
        for check in [Check::OwnId, Check::Record, Check::Fill, Check::Presence] {
            assert_eq!(caught_after(check, |_| false), Some(10), "{check:?}");
            assert_eq!(caught_after(check, |number| number.is_multiple_of(2)), Some(25), "{check:?}");
            assert_eq!(caught_after(check, |number| !number.is_multiple_of(10)), None, "nine of ten are passed");
        }
        for check in [Check::Witnesses, Check::Pace] {
            assert_eq!(caught_after(check, |_| false), Some(17), "{check:?}");
        }
    }

    /// Whether so many failed ones four minutes apart catch it, when evidence has its usual half-life of 6 h.
    fn is_caught_by_dht_challenges(failed: u32) -> bool {
        let mut suspicions = Suspicions::default();
        for _ in 0..failed {
            suspicions.fade(0.5_f64.powf(4.0 / (6.0 * 60.0)));
            suspicions.add(Check::Dht, 0.0, 1.0);
        }
        suspicions.is_caught()
    }

    #[test]
    fn a_good_past_buys_no_lie() {
        for check in ALL {
            let after = |good: u32| caught_after(check, |number| number <= good).unwrap() - good;
            assert_eq!(after(500), after(0), "{check:?}");
        }
    }

    #[test]
    fn one_that_is_caught_is_released_below_half_and_not_above() {
        let mut suspicions = Suspicions::default();
        suspicions.prove(Check::Presence);
        suspicions.fade(0.51);
        assert!(suspicions.is_caught());
        suspicions.fade(0.51 / 0.53);
        assert!(!suspicions.is_caught(), "{suspicions:?}");
        assert!(suspicions.of(Check::Presence) > 9.0, "and it is not forgotten");
        suspicions.add(Check::Presence, 0.0, 5.0);
        assert!(!suspicions.is_caught());
        suspicions.add(Check::Presence, 0.0, 1.0);
        assert!(suspicions.is_caught());
    }

    #[test]
    fn what_rests_on_the_word_of_others_takes_three_of_them() {
        let run = |others: u32, tell: fn(&mut Suspicions, PeerId)| {
            let mut suspicions = Suspicions::default();
            for _ in 0..100 {
                (0..others).for_each(|other| tell(&mut suspicions, peer(other)));
            }
            assert!(suspicions.is_sane());
            suspicions.is_caught()
        };
        for tell in
            [|on: &mut Suspicions, other| on.testify(other, false), |on: &mut Suspicions, other| on.spot(other, false)]
        {
            assert!(!run(1, tell) && !run(2, tell));
            assert!(run(3, tell) && run(OTHERS_MAX as u32 + 10, tell));
        }
    }

    #[test]
    fn those_who_bear_it_out_count_as_much_as_those_who_do_not() {
        let is_caught = |against: u32, of: u32, tell: fn(&mut Suspicions, PeerId, bool)| {
            let mut suspicions = Suspicions::default();
            for _ in 0..100 {
                (0..of).for_each(|other| tell(&mut suspicions, peer(other), other >= against));
            }
            suspicions.is_caught()
        };
        for tell in [Suspicions::testify, Suspicions::spot] {
            // A fifth of the nodes that an indexer names may be in league against it; and whoever lies to one witness alone.
            assert!(!is_caught(4, 20, tell) && !is_caught(3, 6, tell) && !is_caught(5, 8, tell));
            assert!(is_caught(3, 3, tell) && is_caught(6, 8, tell) && is_caught(12, 20, tell));
        }
    }

    #[test]
    fn the_others_that_count_least_are_forgotten_first() {
        let mut suspicions = Suspicions::default();
        for _ in 0..100 {
            (0..OTHERS_MAX as u32).for_each(|other| suspicions.spot(peer(other), true));
        }
        (0..10).for_each(|other| suspicions.spot(peer(1_000 + other), false));
        assert_eq!(suspicions.of(Check::Spot), 0.0);
        assert!(
            suspicions.is_sane() && suspicions.spots.iter().filter(|other| other.sum < 0.0).count() >= OTHERS_MAX - 1
        );
    }

    #[test]
    fn what_faded_away_leaves_nothing() {
        let mut suspicions = Suspicions::default();
        suspicions.add(Check::Dht, 0.0, 1.0);
        suspicions.testify(peer(1), false);
        suspicions.fade(0.003);
        assert_eq!(suspicions, Suspicions::default());
    }

    proptest! {
        /// Checks of an honest one that passes as rarely as it may.
        #[test]
        fn an_honest_one_at_the_least_rate_is_not_caught(seed: u64, which in 0..ALL.len()) {
            let (mut rng, mut suspicions) = (StdRng::seed_from_u64(seed), Suspicions::default());
            let (honest, _) = ALL[which].rates();
            for _ in 0..40_000 {
                let good = f64::from(u8::from(rng.random_bool(honest)));
                suspicions.add(ALL[which], good, 1.0 - good);
                prop_assert!(!suspicions.is_caught());
                prop_assert!(suspicions.is_sane());
            }
        }
    }
}
