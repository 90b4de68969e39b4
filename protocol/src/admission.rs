//! Whether a node's heartbeats are taken, from evidence about the node alone.
//!
//! Not from how full we are, how many others there are, or whose neighbour it is: an indexer that judges a node by its own
//! circumstances refuses honest ones. A node that keeps in touch and keeps to the rules is taken at any age; one that
//! breaks the rules, or comes and goes every few minutes, is refused for a while, with the time to come back.
//!
//! | part | weight | evidence |
//! |---|---|---|
//! | uptime | 0.40 | time between beats that was online ÷ all of it; gaps over 2 min were not |
//! | throughput | 0.20 | of its bandwidth probes, as we measured them: measured ÷ what is enough, at most 1 |
//! | latency | 0.20 | of our pings, which nobody can answer before they come: 1 - round trip ÷ 4 s, 0 to 1 |
//! | conduct | 0.20 | beats within the rules, (good + 1) ÷ (good + bad + 2) |
//!
//! score = 100 × Σ weight × part × max(0, 1 - 0.30 × n), where n counts false signatures and changed DIDs. A part without
//! evidence is left out, and the other weights are scaled to sum to 1. Threshold: the least of 60 and 20 + 40 × age ÷ 24 h.
//! Counts fade with a half-life of 6 h, n with one of 1 h, as long as a strike lives.
//!
//! # Why a working link refuses nobody
//! Throughput and latency count only beside uptime and for an hour. A probe slower than [`crate::bandwidth::WITHIN`]
//! measures nothing, so a measured throughput is worth 0.5 at least, and a latency comes with it. An honest node has an
//! uptime of 1 and no n. With conduct unknown it has (0.40 + 0.20 × 0.5 + 0) ÷ 0.80 = 62.5 of 100 at the least; with a known
//! one, of at least 2/3, 63.3. Both are above the highest threshold, however late our own pings are under load.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use libp2p_identity::PeerId;

use crate::{
    time::Mono,
    wire::{RefusalCode, Refused},
};

/// A gap longer than this was not online: six ticks, as long as a session lives.
pub const GAP_MAX: Duration = Duration::from_secs(120);

/// A longer gap is an absence and not a flaw: who was off for the night is not judged by it.
pub const ABSENCE: Duration = Duration::from_secs(600);

/// After this time an observation counts half.
pub const HALF_LIFE: Duration = Duration::from_secs(6 * 3_600);

/// After this time an offence counts half.
pub const OFFENCE_HALF_LIFE: Duration = Duration::from_secs(3_600);

/// A node is remembered for this long after its last beat: eight half-lives.
pub const MEMORY: Duration = Duration::from_secs(48 * 3_600);

/// A throughput that is enough, bytes per second: a record of 16 KiB and its answer in a tick, ten times over.
pub const THROUGHPUT_ENOUGH: f64 = 16_384.0;

/// Who is refused comes back after this: soon enough for its uptime not to suffer from our own refusal.
pub const WAIT_SECS: u64 = 60;

/// A link counts as it was measured within this: in a dozen bandwidth probes, or not at all.
pub const LINK_FRESH: Duration = Duration::from_secs(3_600);

/// A round trip this long is worth nothing.
const RTT_WORST_SECS: f64 = 4.0;

/// Weight of a new measurement in its moving average, that of RFC 6298.
const GAIN: f64 = 1.0 / 8.0;

/// What each offence takes from the score, as a share of it.
const OFFENCE_PENALTY: f64 = 0.30;

/// Less time, or fewer beats, than this is no evidence.
const OBSERVED_MIN_SECS: f64 = 60.0;
const COUNTED_MIN: f64 = 1.0;

/// Entries looked at to find room for one more.
const LOOKS_MAX: usize = 16;

/// How a beat was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Conduct {
    /// Within the rules.
    Good,
    /// Too early, malformed, or in another's name.
    Bad,
}

/// Below the threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TooLow {
    /// What it has, 0 to 100.
    pub score: f64,
    /// What it should have.
    pub threshold: f64,
}

impl TooLow {
    /// The refusal in the words of the wire.
    #[must_use]
    pub fn refusal(self) -> Refused {
        let Self { score, threshold } = self;
        let detail =
            format!("this node's presence, link and conduct are worth {score:.0} here, expected {threshold:.0}");
        Refused::new(RefusalCode::Busy, detail).retry_after(WAIT_SECS)
    }
}

/// One measurement of the link to a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Of its bandwidth probe, bytes per second.
    pub bytes_per_sec: f64,
    /// Of our ping; nothing before the first was answered.
    pub rtt: Option<Duration>,
}

/// What measurements of a link add up to.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Measured {
    at: Mono,
    last: Link,
    /// Moving averages of the parts, 0 to 1: of parts and not of figures, so that no single figure outweighs the others.
    throughput: f64,
    latency: Option<f64>,
}

impl Measured {
    fn new(link: Link, at: Mono) -> Self {
        let throughput = (link.bytes_per_sec / THROUGHPUT_ENOUGH).clamp(0.0, 1.0);
        let latency = link.rtt.map(|rtt| (1.0 - rtt.as_secs_f64() / RTT_WORST_SECS).clamp(0.0, 1.0));
        Self { at, last: link, throughput, latency }
    }

    fn next(self, link: Link, at: Mono) -> Self {
        let new = Self::new(link, at);
        if !self.is_fresh(at) {
            return new;
        }
        let average = |held: f64, new: f64| held + GAIN * (new - held);
        let latency = match (self.latency, new.latency) {
            (Some(held), Some(new)) => Some(average(held, new)),
            (held, new) => new.or(held),
        };
        Self { throughput: average(self.throughput, new.throughput), latency, ..new }
    }

    fn is_fresh(&self, now: Mono) -> bool {
        now.since(self.at) <= LINK_FRESH
    }
}

/// What is known of one node.
#[derive(Clone, Debug, Default)]
struct Evidence {
    first: Mono,
    seen: Mono,
    faded: Mono,
    online_secs: f64,
    observed_secs: f64,
    good: f64,
    bad: f64,
    offences: f64,
    link: Option<Measured>,
}

impl Evidence {
    fn met(now: Mono) -> Self {
        Self { first: now, seen: now, faded: now, ..Self::default() }
    }

    fn fade(&mut self, now: Mono) {
        let elapsed = now.since(self.faded).as_secs_f64();
        let left = |half_life: Duration| 0.5_f64.powf(elapsed / half_life.as_secs_f64());
        let kept = left(HALF_LIFE);
        for count in [&mut self.online_secs, &mut self.observed_secs, &mut self.good, &mut self.bad] {
            *count *= kept;
        }
        self.offences *= left(OFFENCE_HALF_LIFE);
        self.faded = self.faded.max(now);
    }

    fn beat(&mut self, conduct: Conduct, now: Mono) {
        self.fade(now);
        let gap = now.since(self.seen);
        if gap <= ABSENCE {
            self.observed_secs += gap.as_secs_f64();
            self.online_secs += if gap <= GAP_MAX { gap.as_secs_f64() } else { 0.0 };
        }
        match conduct {
            Conduct::Good => self.good += 1.0,
            Conduct::Bad => self.bad += 1.0,
        }
        self.seen = now;
    }

    /// The parts with evidence: weight and value.
    fn parts(&self) -> impl Iterator<Item = (f64, f64)> {
        let uptime = (self.observed_secs >= OBSERVED_MIN_SECS).then(|| self.online_secs / self.observed_secs);
        // Who was away for long is known by nothing yet: not by its link alone either.
        let link = self.link.filter(|link| uptime.is_some() && link.is_fresh(self.faded));
        let (throughput, latency) = (link.map(|link| link.throughput), link.and_then(|link| link.latency));
        let counted = self.good + self.bad;
        let conduct = (counted >= COUNTED_MIN).then(|| (self.good + 1.0) / (counted + 2.0));
        let parts = [(0.40, uptime), (0.20, throughput), (0.20, latency), (0.20, conduct)];
        parts.into_iter().filter_map(|(weight, part)| Some((weight, part?.clamp(0.0, 1.0))))
    }

    /// 0 to 100; nothing without any evidence.
    fn score(&self) -> Option<f64> {
        let (weights, sum) =
            self.parts().fold((0.0, 0.0), |(weights, sum), (weight, part)| (weights + weight, sum + weight * part));
        let factor = (1.0 - OFFENCE_PENALTY * self.offences).max(0.0);
        (weights > 0.0).then(|| 100.0 * sum / weights * factor)
    }

    fn threshold(&self, now: Mono) -> f64 {
        let age_hours = now.since(self.first).as_secs_f64() / 3_600.0;
        (20.0 + 40.0 * age_hours / 24.0).min(60.0)
    }
}

/// What is known of every node. Bounded by the number that it is made with: past it a node is forgotten that was not heard
/// of for long. A restart forgets it, in everybody's favour.
#[derive(Debug)]
pub struct Admission {
    nodes_max: usize,
    nodes: HashMap<PeerId, Evidence>,
    /// One ticket per node, due no later than it may be forgotten; put back when it was too early.
    tickets: BTreeSet<(Mono, PeerId)>,
}

impl Admission {
    /// Nobody is known; at most `nodes_max` will be.
    #[must_use]
    pub fn new(nodes_max: usize) -> Self {
        Self { nodes_max: nodes_max.max(1), nodes: HashMap::new(), tickets: BTreeSet::new() }
    }

    /// Notes a beat, also one that was refused: who is refused and goes on beating keeps in touch.
    pub fn beat(&mut self, peer: PeerId, conduct: Conduct, now: Mono) {
        self.node(peer, now).beat(conduct, now);
    }

    /// Notes a false signature or a changed DID.
    pub fn offended(&mut self, peer: PeerId, now: Mono) {
        let node = self.node(peer, now);
        node.fade(now);
        node.offences += 1.0;
    }

    /// Notes a measurement of a node's link. One that is no figure is left out.
    pub fn measured(&mut self, peer: PeerId, link: Link, now: Mono) {
        if !link.bytes_per_sec.is_finite() {
            return;
        }
        let node = self.node(peer, now);
        node.link = Some(node.link.map_or_else(|| Measured::new(link, now), |held| held.next(link, now)));
    }

    /// The last measurement of a node's link, if it still counts.
    #[must_use]
    pub fn link(&self, peer: &PeerId, now: Mono) -> Option<Link> {
        self.nodes.get(peer)?.link.filter(|link| link.is_fresh(now)).map(|link| link.last)
    }

    /// Whether the node's heartbeats are taken. Who is unknown, or of whom there is no evidence, is taken.
    ///
    /// # Errors
    /// When its score is below its threshold.
    pub fn judge(&mut self, peer: &PeerId, now: Mono) -> Result<(), TooLow> {
        let Some(node) = self.nodes.get_mut(peer) else { return Ok(()) };
        node.fade(now);
        let threshold = node.threshold(now);
        match node.score() {
            Some(score) if score < threshold => Err(TooLow { score, threshold }),
            _ => Ok(()),
        }
    }

    /// Forgets those of whom nothing matters any more, looking at no more than `at_most`.
    pub fn collect(&mut self, now: Mono, at_most: usize) {
        for _ in 0..at_most {
            match self.tickets.first() {
                Some((due, _)) if *due <= now => self.forget_first(),
                _ => break,
            };
        }
    }

    /// An operator forgave it.
    pub fn forgive(&mut self, peer: &PeerId) {
        if let Some(node) = self.nodes.get_mut(peer) {
            *node = Evidence::met(node.seen);
        }
    }

    /// Nodes remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Nobody is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn node(&mut self, peer: PeerId, now: Mono) -> &mut Evidence {
        if !self.nodes.contains_key(&peer) {
            self.make_room();
            self.tickets.insert((now + MEMORY, peer));
        }
        self.nodes.entry(peer).or_insert_with(|| Evidence::met(now))
    }

    fn make_room(&mut self) {
        let mut looks = 0;
        while self.nodes.len() >= self.nodes_max && !self.tickets.is_empty() {
            looks += 1;
            if !self.forget_first() && looks >= LOOKS_MAX {
                // Every one looked at was heard of lately, yet the bound holds.
                if let Some((_, peer)) = self.tickets.pop_first() {
                    self.nodes.remove(&peer);
                }
            }
        }
    }

    /// Takes the first ticket; forgets its node, or puts the ticket back to when that may be done.
    fn forget_first(&mut self) -> bool {
        let Some((due, peer)) = self.tickets.pop_first() else { return false };
        match self.nodes.get(&peer).map(|node| node.seen + MEMORY) {
            Some(forget_at) if forget_at > due => {
                self.tickets.insert((forget_at, peer));
                false
            }
            _ => self.nodes.remove(&peer).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::{bandwidth, testing::peer};

    const DAY: u64 = 86_400;

    /// What the slowest probe that is measured at all tells.
    fn slowest() -> f64 {
        bandwidth::PAYLOAD_BYTES as f64 / bandwidth::WITHIN.as_secs_f64()
    }

    fn link(bytes_per_sec: f64, millis: u64) -> Link {
        Link { bytes_per_sec, rtt: Some(Duration::from_millis(millis)) }
    }

    /// Beats every `every` seconds from `from` to `to`, each judged; how many were refused.
    fn beats(admission: &mut Admission, conduct: Conduct, every: u64, from: u64, to: u64) -> usize {
        (from..to)
            .step_by(usize::try_from(every).unwrap())
            .filter(|at| {
                let now = Mono::from_secs(*at);
                let is_refused = admission.judge(&peer(1), now).is_err();
                admission.beat(peer(1), conduct, now);
                is_refused
            })
            .count()
    }

    #[test]
    fn the_threshold_rises_for_a_day_and_then_stays() {
        let node = Evidence::met(Mono::ZERO);
        for (hours, threshold) in [(0, 20.0), (12, 40.0), (24, 60.0), (240, 60.0)] {
            assert_eq!(node.threshold(Mono::from_secs(hours * 3_600)), threshold);
        }
    }

    #[test]
    fn the_parts_weigh_what_the_design_says_and_one_without_evidence_is_left_out() {
        let mut node = Evidence { online_secs: 50.0, observed_secs: 100.0, ..Evidence::default() };
        assert_eq!(node.score(), Some(50.0), "uptime alone");
        node.good = 1_000_000.0;
        assert!((node.score().unwrap() - 100.0 * (0.2 + 0.2) / 0.6).abs() < 0.01);
        node.link = Some(Measured::new(link(THROUGHPUT_ENOUGH / 4.0, 2_000), Mono::ZERO));
        assert!((node.score().unwrap() - 100.0 * (0.2 + 0.2 + 0.1 + 0.05)).abs() < 0.01);
        node.offences = 2.0;
        assert!((node.score().unwrap() - 55.0 * 0.4).abs() < 0.01);
        assert_eq!(Evidence::default().score(), None);
    }

    #[test]
    fn g15_a_fast_link_is_worth_no_more_than_full_marks() {
        let online = Evidence { online_secs: 100.0, observed_secs: 100.0, ..Evidence::default() };
        let node = Evidence { link: Some(Measured::new(link(1e300, 0), Mono::ZERO)), ..online };
        assert_eq!(node.score(), Some(100.0));
        // Nor does one such figure outweigh those that follow.
        let mut measured = Measured::new(link(1e300, 0), Mono::ZERO);
        for second in 1..40 {
            measured = measured.next(link(0.0, 4_000), Mono::from_secs(second));
        }
        assert!(measured.throughput < 0.01 && measured.latency.unwrap() < 0.01);
        assert_eq!(measured.last, link(0.0, 4_000));
    }

    #[test]
    fn a_link_counts_for_an_hour_and_only_beside_uptime() {
        let mut admission = Admission::new(10);
        admission.measured(peer(1), link(f64::NAN, 0), Mono::ZERO);
        assert!(admission.is_empty(), "no figure, no entry");
        admission.measured(peer(1), link(8_192.0, 9_000), Mono::ZERO);
        let score = |admission: &mut Admission, at| {
            admission.nodes.get_mut(&peer(1)).and_then(|node| {
                node.fade(Mono::from_secs(at));
                node.score()
            })
        };
        assert_eq!(score(&mut admission, 0), None, "a link alone says nothing of a node");
        beats(&mut admission, Conduct::Good, 20, 0, 3_601);
        let with = score(&mut admission, 3_600).unwrap();
        let without = score(&mut admission, 3_601).unwrap();
        assert!((with - 70.0).abs() < 0.5 && without > 99.0, "{with} and {without}");
        assert_eq!(admission.link(&peer(1), Mono::from_secs(3_600)), Some(link(8_192.0, 9_000)));
        assert_eq!(admission.link(&peer(1), Mono::from_secs(3_601)), None);
        // An average of an hour ago is no part of a new one.
        admission.measured(peer(1), link(1e9, 0), Mono::from_secs(3_601));
        assert!(score(&mut admission, 3_601).unwrap() > 99.0);
    }

    #[test]
    fn one_that_comes_and_goes_every_few_minutes_is_refused_within_a_day_and_taken_when_it_stays() {
        let mut admission = Admission::new(10);
        assert_eq!(beats(&mut admission, Conduct::Good, 300, 0, 2 * 3_600), 0, "not at first");
        assert!(beats(&mut admission, Conduct::Good, 300, 2 * 3_600, DAY) > 0);
        assert_eq!(beats(&mut admission, Conduct::Good, 300, DAY, DAY + 3_600), 12, "each one");
        // Refused beats count as presence, so it earns its way back.
        beats(&mut admission, Conduct::Good, 60, DAY + 3_600, 2 * DAY);
        assert_eq!(beats(&mut admission, Conduct::Good, 20, 2 * DAY, 2 * DAY + 600), 0);
    }

    #[test]
    fn one_that_signs_falsely_again_and_again_is_refused_and_forgiven_in_time() {
        let mut admission = Admission::new(10);
        beats(&mut admission, Conduct::Good, 20, 0, DAY);
        let at = |secs| Mono::from_secs(DAY + secs);
        admission.offended(peer(1), at(0));
        assert!(admission.judge(&peer(1), at(0)).is_ok(), "once may be a bug");
        admission.offended(peer(1), at(1));
        let refused = admission.judge(&peer(1), at(1)).unwrap_err();
        assert!(refused.score < 41.0 && refused.threshold == 60.0);
        assert_eq!(refused.refusal().retry_after, Some(WAIT_SECS), "G14: never silence");
        assert!(beats(&mut admission, Conduct::Good, 60, DAY + 1, DAY + 7_200) > 0);
        assert!(admission.judge(&peer(1), at(7_200)).is_ok());
    }

    #[test]
    fn one_that_is_forgiven_is_taken_at_once() {
        let mut admission = Admission::new(10);
        beats(&mut admission, Conduct::Good, 300, 0, DAY);
        assert!(admission.judge(&peer(1), Mono::from_secs(DAY)).is_err());
        admission.forgive(&peer(1));
        assert!(admission.judge(&peer(1), Mono::from_secs(DAY)).is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_empties_itself() {
        let mut admission = Admission::new(10);
        for n in 0..100 {
            admission.beat(peer(n), Conduct::Good, Mono::from_secs(u64::from(n)));
            assert!(admission.len() <= 10 && admission.len() == admission.tickets.len());
        }
        admission.collect(Mono::from_secs(10) + MEMORY, 100);
        assert_eq!(admission.len(), 10);
        admission.collect(Mono::from_secs(100) + MEMORY, 100);
        assert!(admission.is_empty() && admission.tickets.is_empty());
        assert!(admission.judge(&peer(1), Mono::ZERO).is_ok(), "asking makes no entry");
        assert!(admission.is_empty());
    }

    /// What an honest node does next.
    #[derive(Clone, Debug)]
    enum Life {
        /// Beats, 20 to 110 s apart: at most four of five are lost.
        Beats(Vec<u64>),
        /// Is off for longer than any gap.
        Off(u64),
        /// Its link is measured: it works, however slowly, and however late our pings are.
        Measured(Link),
    }

    fn lives() -> impl Strategy<Value = Vec<Life>> {
        let life = prop_oneof![
            4 => proptest::collection::vec(20u64..110, 1..200).prop_map(Life::Beats),
            1 => (601u64..30 * DAY).prop_map(Life::Off),
            2 => (proptest::option::of(0u64..60_000), 0.0..6.0_f64).prop_map(|(millis, decades)| {
                let rtt = millis.map(Duration::from_millis);
                Life::Measured(Link { bytes_per_sec: slowest() * 10_f64.powf(decades), rtt })
            }),
        ];
        proptest::collection::vec(life, 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// G14: an honest node with a working link is never refused, at any age, among 1 to 1,000 others at any load. Load,
        /// size and subnets are no arguments of the rule; the others are there to show that they change nothing.
        #[test]
        fn g14_an_honest_node_with_a_working_link_is_never_refused(lives in lives(), others in 0u32..1_000) {
            let mut admission = Admission::new(32_768);
            for n in 2..2 + others {
                admission.beat(peer(n), Conduct::Bad, Mono::ZERO);
            }
            let mut at = 0;
            for life in lives {
                match life {
                    Life::Beats(gaps) => for gap in gaps {
                        at += gap;
                        prop_assert_eq!(admission.judge(&peer(1), Mono::from_secs(at)), Ok(()), "after {} s", at);
                        admission.beat(peer(1), Conduct::Good, Mono::from_secs(at));
                    },
                    Life::Off(secs) => at += secs,
                    Life::Measured(link) => admission.measured(peer(1), link, Mono::from_secs(at)),
                }
            }
        }

        /// Whoever comes and goes all day, or signs falsely twice an hour, is refused by the end of it.
        #[test]
        fn one_that_misbehaves_is_refused(gap in 121u64..600, offends: bool) {
            let mut admission = Admission::new(10);
            let every = if offends { 20 } else { gap };
            let mut refused = 0;
            for at in (0..DAY).step_by(usize::try_from(every).unwrap()) {
                let now = Mono::from_secs(at);
                refused += usize::from(admission.judge(&peer(1), now).is_err());
                admission.beat(peer(1), Conduct::Good, now);
                if offends && at % 1_200 < every {
                    admission.offended(peer(1), now);
                }
            }
            prop_assert!(refused > 0);
        }
    }
}
