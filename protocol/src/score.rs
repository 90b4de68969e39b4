//! What an indexer is worth to this node, from the evidence that this node gathered itself.
//!
//! Evidence is one value per indexer and has one owner, the [`Book`]. Counts are Beta: a part of a score is
//! `(good + 1) / (good + bad + 2)`, and both counts fade with a half-life of 6 h. A part without evidence is left out
//! and the other weights are scaled to sum to 1: unknown is neither full marks nor guilt.
//!
//! # Confidence
//! Each part has a mean and a variance: counts those of the posterior Beta(good + 1, bad + 1) under a uniform prior,
//! variance `ab / ((a + b)² (a + b + 1))` (Gelman et al., Bayesian Data Analysis, 3rd edition, section 2.4 and table
//! A.1); uptime the same with one observation per minute; latency the squared mean deviation of the round trip over
//! the number of samples that its moving average spans; fill none. Parts are taken as independent, so the weighted sum
//! has the variance `Σ weight² × variance`, and the bounds are its mean ± 1.96 standard deviations (normal
//! approximation, 95 %), cut to 0 and 100. The number n of unexplained restarts is a Poisson count, with the bounds
//! n ± 1.96 √n: one crash lowers the score but is no proof of a habit, and evicts nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::time::{Mono, Now};

/// Two-sided 95 % of a normal distribution, in standard deviations.
const DEVIATIONS: f64 = 1.96;

/// Weight of a new round trip in the moving average, and of its deviation: those of RFC 6298.
const RTT_GAIN: f64 = 1.0 / 8.0;
const RTT_DEVIATION_GAIN: f64 = 1.0 / 4.0;

/// Samples that the moving average spans: (2 - gain) / gain.
const RTT_SAMPLES_MAX: u32 = 15;

/// Time that counts as one observation of uptime; neighbouring beats are no independent evidence.
const UPTIME_UNIT: Duration = Duration::from_secs(60);

/// A longer acquaintance in the database is nonsense: 100 years.
const TIME_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// Below this many faded observations nothing is known any more.
const OBSERVATIONS_MIN: f64 = 0.5;

/// What is wrong with each unexplained restart, as a share of the score.
const RESTART_PENALTY: f64 = 0.30;

/// What an exposure weighs in the two parts that rest on an indexer's word: more than the consistent beats that it sends
/// until the next audit, of which there are 30 in an epoch.
const EXPOSURE: f64 = 100.0;

/// Peers whose last sign of life tells whether we ourselves are cut off; more than any pool has.
const OUTCOMES_MAX: usize = 64;

/// How indexers are scored and judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// After this time an observation counts half.
    #[serde(with = "crate::time::text")]
    pub half_life: Duration,
    /// A round trip this long is worth nothing.
    #[serde(with = "crate::time::text")]
    pub rtt_worst: Duration,
    /// A longer gap between answers was not online.
    #[serde(with = "crate::time::text")]
    pub gap_max: Duration,
    /// The fill rate may differ by less than this from sessions ÷ capacity; 0 to 1.
    pub fill_tolerance: f64,
    /// Within this time of an announcement a restart is explained.
    #[serde(with = "crate::time::text")]
    pub announced_within: Duration,
    /// Threshold for a new acquaintance, 0 to 100.
    pub threshold_first: f64,
    /// By how much the threshold grows over `threshold_grows_over`, 0 to 100.
    pub threshold_growth: f64,
    /// See `threshold_growth`.
    #[serde(with = "crate::time::text")]
    pub threshold_grows_over: Duration,
    /// Threshold at the most, 0 to 100.
    pub threshold_max: f64,
    /// The threshold is at least this far below what a flawless indexer of the same fill would score.
    pub below_flawless: f64,
    /// Time between two judgements.
    #[serde(with = "crate::time::text")]
    pub judge_every: Duration,
    /// An indexer goes after this many judgements below the threshold in a row.
    pub judgements: u32,
    /// Nobody is judged who was online for less than this in all.
    #[serde(with = "crate::time::text")]
    pub online_min: Duration,
    /// Over this time failed probes are compared with answered ones.
    #[serde(with = "crate::time::text")]
    pub suspect_window: Duration,
    /// Most indexers whose evidence is kept; past it the longest unheard that is no member is forgotten.
    pub indexers_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            half_life: Duration::from_secs(6 * 3_600),
            rtt_worst: Duration::from_secs(4),
            gap_max: Duration::from_secs(120),
            fill_tolerance: 0.10,
            announced_within: Duration::from_secs(600),
            threshold_first: 20.0,
            threshold_growth: 60.0,
            threshold_grows_over: Duration::from_secs(24 * 3_600),
            threshold_max: 80.0,
            below_flawless: 15.0,
            judge_every: Duration::from_secs(20),
            judgements: 3,
            online_min: Duration::from_secs(120),
            suspect_window: Duration::from_secs(60),
            indexers_max: 256,
        }
    }
}

/// One part of a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Share of the time since first contact that it was online.
    Uptime,
    /// Own-id challenges answered right.
    Challenges,
    /// 1 - round trip ÷ the worst.
    Latency,
    /// 1 - fill rate.
    Fill,
    /// Ticks on which its sessions and its fill rate fitted together.
    FillConsistency,
    /// Witness reports that agree.
    Witnesses,
    /// DHT challenges that returned our own valid record.
    Dht,
}

impl Part {
    /// Every part; the weights sum to 1.
    pub const ALL: [Self; 7] =
        [Self::Uptime, Self::Challenges, Self::Latency, Self::Fill, Self::FillConsistency, Self::Witnesses, Self::Dht];

    /// Its share of a score that has all parts.
    #[must_use]
    pub const fn weight(self) -> f64 {
        match self {
            Self::Uptime | Self::Challenges => 0.20,
            Self::Latency | Self::Witnesses => 0.15,
            Self::Fill | Self::FillConsistency | Self::Dht => 0.10,
        }
    }

    /// Its word in views.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uptime => "uptime",
            Self::Challenges => "challenges",
            Self::Latency => "latency",
            Self::Fill => "fill",
            Self::FillConsistency => "fill_consistency",
            Self::Witnesses => "witnesses",
            Self::Dht => "dht",
        }
    }
}

/// One thing seen of an indexer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Observation {
    /// It answered a heartbeat believably.
    Answered {
        /// Round trip, its own time taken off.
        rtt: Duration,
        /// What it said, 0 to 1.
        fill_rate: f64,
        /// What it said.
        peer_count: u32,
        /// What it said.
        max_nodes: u32,
        /// Start of its process, as it said.
        born_at: Timestamp,
    },
    /// A heartbeat failed or its answer did not come.
    Missed,
    /// Challenges were answered.
    Challenged {
        /// How many rightly.
        good: u32,
        /// How many wrongly or not at all.
        bad: u32,
    },
    /// A DHT challenge was answered.
    Dht {
        /// With our own valid record.
        good: bool,
    },
    /// A witness reported.
    Witness {
        /// The same as the indexer says of itself.
        agrees: bool,
    },
    /// It said that it will restart.
    RestartAnnounced,
    /// An audit of its presence tokens proved that it claims far more nodes than it has.
    Exposed,
}

/// Two counts that fade: for and against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Beta {
    /// Observations for.
    pub good: f64,
    /// Observations against.
    pub bad: f64,
}

impl Beta {
    fn mean(self) -> f64 {
        (self.good + 1.0) / (self.good + self.bad + 2.0)
    }

    fn variance(self) -> f64 {
        let (good, bad) = (self.good + 1.0, self.bad + 1.0);
        let all = good + bad;
        good * bad / (all * all * (all + 1.0))
    }

    fn add(&mut self, good: f64, bad: f64) {
        self.good += good;
        self.bad += bad;
    }

    fn faded(self, factor: f64) -> Self {
        Self { good: self.good * factor, bad: self.bad * factor }
    }

    fn is_known(self) -> bool {
        self.good + self.bad >= OBSERVATIONS_MIN
    }
}

/// A moving average of round trips.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundTrips {
    /// Average, seconds.
    pub mean_secs: f64,
    /// Mean deviation, seconds.
    pub deviation_secs: f64,
    /// Measurements, as many as the average spans.
    pub samples: u32,
}

impl RoundTrips {
    fn first(secs: f64) -> Self {
        Self { mean_secs: secs, deviation_secs: secs / 2.0, samples: 1 }
    }

    fn next(self, secs: f64) -> Self {
        let off = (secs - self.mean_secs).abs();
        Self {
            mean_secs: self.mean_secs + RTT_GAIN * (secs - self.mean_secs),
            deviation_secs: self.deviation_secs + RTT_DEVIATION_GAIN * (off - self.deviation_secs),
            samples: (self.samples + 1).min(RTT_SAMPLES_MAX),
        }
    }
}

/// Everything that a score is computed from, without any clock in it: what is kept, shown and recomputed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Time since first contact, while this node ran.
    pub age: Duration,
    /// Time that is known to be online or not.
    pub observed: Duration,
    /// Time online.
    pub online: Duration,
    /// Challenges.
    pub challenges: Beta,
    /// Ticks on which fill rate and sessions fitted.
    pub fill_consistency: Beta,
    /// Witness reports.
    pub witnesses: Beta,
    /// DHT challenges.
    pub dht: Beta,
    /// Unexplained changes of `born_at`, faded.
    pub restarts: f64,
    /// Start of its process.
    pub born_at: Option<Timestamp>,
    /// Round trips.
    pub round_trips: Option<RoundTrips>,
    /// Fill rate as it last said, 0 to 1.
    pub fill_rate: Option<f64>,
}

/// What the database keeps of one indexer's evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The indexer.
    #[serde(with = "crate::wire::text")]
    pub peer_id: PeerId,
    /// When it was written; what happened since then fades.
    pub saved_at: Timestamp,
    /// The evidence.
    pub facts: Facts,
}

/// The evidence about one indexer.
#[derive(Clone, Debug)]
struct Evidence {
    facts: Facts,
    /// Until here the counts have faded.
    faded_to: Mono,
    /// First contact, in this life of the process, less `facts.age` of earlier lives.
    since: Option<Mono>,
    /// Last answer.
    online_to: Option<Mono>,
    /// First and last miss since then.
    missed: Option<(Mono, Mono)>,
    announced: Option<Mono>,
    heard: Mono,
    is_member: bool,
    /// Judgements below the threshold in a row.
    below: u32,
}

impl Evidence {
    fn new(facts: Facts, now: Mono) -> Self {
        Self {
            facts,
            faded_to: now,
            since: None,
            online_to: None,
            missed: None,
            announced: None,
            heard: now,
            is_member: false,
            below: 0,
        }
    }

    /// The facts as they stand at `now`.
    fn facts(&self, now: Mono, settings: &Settings) -> Facts {
        let mut facts = faded(self.facts.clone(), now.since(self.faded_to), settings);
        facts.age += self.since.map_or(Duration::ZERO, |since| now.since(since));
        facts.observed += self.offline(now, settings);
        facts
    }

    /// The time up to `now` that it is known to be away and that is not yet written down: from its last answer to the
    /// last miss, for the time after that nobody asked. Without a miss in it a gap says nothing about the indexer.
    fn offline(&self, now: Mono, settings: &Settings) -> Duration {
        let Some((first, last)) = self.missed else { return Duration::ZERO };
        let until = if now.since(last) <= settings.gap_max { now } else { last };
        let gap = until.since(self.online_to.unwrap_or(first));
        if gap > settings.gap_max { gap } else { Duration::ZERO }
    }

    fn observe(&mut self, observation: &Observation, now: Mono, settings: &Settings) {
        let elapsed = now.since(self.faded_to);
        self.facts = faded(std::mem::take(&mut self.facts), elapsed, settings);
        self.faded_to = self.faded_to.max(now);
        self.heard = self.heard.max(now);
        match *observation {
            Observation::Answered { rtt, fill_rate, peer_count, max_nodes, born_at } => {
                let was_watched = self.answered(now, settings);
                self.born(born_at, was_watched, now, settings);
                let secs = rtt.as_secs_f64();
                self.facts.round_trips =
                    Some(self.facts.round_trips.map_or_else(|| RoundTrips::first(secs), |trips| trips.next(secs)));
                self.facts.fill_rate = Some(fill_rate);
                let fits = is_consistent(fill_rate, peer_count, max_nodes, settings);
                self.facts.fill_consistency.add(f64::from(u8::from(fits)), f64::from(u8::from(!fits)));
            }
            Observation::Missed => {
                // Without contact there is nothing to have been away from.
                if self.since.is_some() || self.facts.age > Duration::ZERO {
                    let first = self.missed.map_or(now, |(first, _)| first);
                    self.missed = Some((first, now));
                }
            }
            Observation::Challenged { good, bad } => self.facts.challenges.add(f64::from(good), f64::from(bad)),
            Observation::Dht { good } => self.facts.dht.add(f64::from(u8::from(good)), f64::from(u8::from(!good))),
            Observation::Witness { agrees } => {
                self.facts.witnesses.add(f64::from(u8::from(agrees)), f64::from(u8::from(!agrees)));
            }
            Observation::RestartAnnounced => self.announced = Some(now),
            Observation::Exposed => self.exposed(),
        }
    }

    /// What it says of itself was proved false, so that its numbers fitted each other and those that witnesses heard of it
    /// speaks for it no longer.
    fn exposed(&mut self) {
        let proved = Beta { good: 0.0, bad: EXPOSURE };
        self.facts.fill_consistency = proved;
        self.facts.witnesses = proved;
    }

    /// Writes the time since the last answer down. Tells whether we watched it all the while.
    fn answered(&mut self, now: Mono, settings: &Settings) -> bool {
        self.since.get_or_insert(now);
        let gap = self.online_to.map(|from| now.since(from));
        let offline = self.offline(now, settings);
        let was_watched = match gap {
            Some(gap) if gap <= settings.gap_max => {
                self.facts.online += gap;
                self.facts.observed += gap;
                true
            }
            _ => {
                self.facts.observed += offline;
                self.missed.is_some_and(|(_, last)| now.since(last) <= settings.gap_max)
            }
        };
        self.online_to = Some(now);
        self.missed = None;
        was_watched
    }

    /// A restart that we watched and that nobody announced counts against it; one behind our back may have been
    /// announced to others.
    fn born(&mut self, born_at: Timestamp, was_watched: bool, now: Mono, settings: &Settings) {
        if self.facts.born_at.is_some_and(|known| known != born_at) {
            let is_announced =
                self.announced.take().is_some_and(|announced| now.since(announced) <= settings.announced_within);
            if was_watched && !is_announced {
                self.facts.restarts += 1.0;
            }
        }
        self.facts.born_at = Some(born_at);
    }
}

fn faded(mut facts: Facts, elapsed: Duration, settings: &Settings) -> Facts {
    let half_lives = elapsed.as_secs_f64() / settings.half_life.as_secs_f64().max(f64::MIN_POSITIVE);
    let factor = 0.5_f64.powf(half_lives);
    facts.challenges = facts.challenges.faded(factor);
    facts.fill_consistency = facts.fill_consistency.faded(factor);
    facts.witnesses = facts.witnesses.faded(factor);
    facts.dht = facts.dht.faded(factor);
    facts.restarts *= factor;
    facts
}

fn is_consistent(fill_rate: f64, peer_count: u32, max_nodes: u32, settings: &Settings) -> bool {
    let counted = if max_nodes == 0 { 1.0 } else { f64::from(peer_count) / f64::from(max_nodes) };
    (counted - fill_rate).abs() < settings.fill_tolerance
}

/// What the value of a part rests on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Nothing was observed.
    Nothing,
    /// Time online of the time observed.
    Time {
        /// Online.
        online: Duration,
        /// In all.
        observed: Duration,
    },
    /// Faded counts for and against.
    Counts(Beta),
    /// A moving average of round trips.
    RoundTrips(RoundTrips),
    /// What the indexer says of itself.
    FillRate(f64),
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no evidence"),
            Self::Time { online, observed } => {
                write!(f, "online {} of {} s", online.as_secs(), observed.as_secs())
            }
            Self::Counts(Beta { good, bad }) => write!(f, "{good:.1} good, {bad:.1} bad"),
            Self::RoundTrips(trips) => write!(
                f,
                "{:.1} ms ± {:.1} over {} answers",
                trips.mean_secs * 1e3,
                trips.deviation_secs * 1e3,
                trips.samples
            ),
            Self::FillRate(rate) => write!(f, "fill rate {rate:.3}"),
        }
    }
}

/// One part of a score, explained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartScore {
    /// Which.
    pub part: Part,
    /// Before scaling, 0 to 1.
    pub weight: f64,
    /// 0 to 1; absent without evidence.
    pub value: Option<f64>,
    /// Of the value.
    pub variance: f64,
    /// What it rests on.
    pub basis: Basis,
}

/// A score with its explanation; the same facts always give the same score, to the last bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// 0 to 100.
    pub value: f64,
    /// Lower end of the confidence interval, 0 to 100: by this members are preferred.
    pub low: f64,
    /// Upper end, 0 to 100: by this members are judged.
    pub high: f64,
    /// What a flawless indexer of the same fill would score on the same parts, 0 to 100.
    pub flawless: f64,
    /// By what unexplained restarts multiply the score, 0 to 1.
    pub restart_factor: f64,
    /// Below this an indexer of this age goes, 0 to 100.
    pub threshold: f64,
    /// Every part, also those without evidence.
    pub parts: Vec<PartScore>,
}

/// The score that these facts give; nothing without any evidence.
#[must_use]
pub fn score(facts: &Facts, settings: &Settings) -> Option<Score> {
    let parts: Vec<PartScore> = Part::ALL.into_iter().map(|part| part_score(part, facts, settings)).collect();
    let known = || parts.iter().filter_map(|part| part.value.map(|value| (part, value)));
    let weights: f64 = known().map(|(part, _)| part.weight).sum();
    if weights <= 0.0 {
        return None;
    }
    let mean = known().map(|(part, value)| part.weight / weights * value).sum::<f64>();
    let variance = known().map(|(part, _)| (part.weight / weights).powi(2) * part.variance).sum::<f64>();
    let flawless = known()
        .map(|(part, value)| part.weight / weights * if part.part == Part::Fill { value } else { 1.0 })
        .sum::<f64>()
        * 100.0;
    let whole = |share: f64, restarts: f64| (100.0 * share * restart_factor(restarts)).clamp(0.0, 100.0);
    let (spread, restarts) = (DEVIATIONS * variance.sqrt(), facts.restarts);
    let restarts_spread = DEVIATIONS * restarts.sqrt();
    Some(Score {
        value: whole(mean, restarts),
        low: whole(mean - spread, restarts + restarts_spread),
        high: whole(mean + spread, restarts - restarts_spread),
        flawless,
        restart_factor: restart_factor(restarts),
        threshold: threshold(facts.age, flawless, settings),
        parts,
    })
}

fn restart_factor(restarts: f64) -> f64 {
    (1.0 - RESTART_PENALTY * restarts).clamp(0.0, 1.0)
}

/// Below this an indexer known for `age` goes, when a flawless one of the same fill would score `flawless`.
#[must_use]
pub fn threshold(age: Duration, flawless: f64, settings: &Settings) -> f64 {
    let grown = age.as_secs_f64() / settings.threshold_grows_over.as_secs_f64().max(f64::MIN_POSITIVE);
    let by_age = settings.threshold_first + settings.threshold_growth * grown.min(1.0);
    by_age.min(settings.threshold_max).min(flawless - settings.below_flawless).max(0.0)
}

fn part_score(part: Part, facts: &Facts, settings: &Settings) -> PartScore {
    let (value, variance, basis) = match part {
        Part::Uptime => uptime(facts),
        Part::Challenges => counted(facts.challenges),
        Part::Latency => latency(facts, settings),
        Part::Fill => match facts.fill_rate {
            Some(rate) => (Some(1.0 - rate), 0.0, Basis::FillRate(rate)),
            None => (None, 0.0, Basis::Nothing),
        },
        Part::FillConsistency => counted(facts.fill_consistency),
        Part::Witnesses => counted(facts.witnesses),
        Part::Dht => counted(facts.dht),
    };
    PartScore { part, weight: part.weight(), value, variance, basis }
}

fn counted(counts: Beta) -> (Option<f64>, f64, Basis) {
    if !counts.is_known() {
        return (None, 0.0, Basis::Nothing);
    }
    (Some(counts.mean()), counts.variance(), Basis::Counts(counts))
}

fn uptime(facts: &Facts) -> (Option<f64>, f64, Basis) {
    let Facts { online, observed, .. } = *facts;
    if observed.is_zero() {
        return (None, 0.0, Basis::Nothing);
    }
    let units = |time: Duration| time.as_secs_f64() / UPTIME_UNIT.as_secs_f64();
    let counts = Beta { good: units(online), bad: units(observed.saturating_sub(online)) };
    (Some(online.as_secs_f64() / observed.as_secs_f64()), counts.variance(), Basis::Time { online, observed })
}

fn latency(facts: &Facts, settings: &Settings) -> (Option<f64>, f64, Basis) {
    let Some(trips) = facts.round_trips else { return (None, 0.0, Basis::Nothing) };
    let worst = settings.rtt_worst.as_secs_f64().max(f64::MIN_POSITIVE);
    let value = (1.0 - trips.mean_secs / worst).clamp(0.0, 1.0);
    let variance = (trips.deviation_secs / worst).powi(2) / f64::from(trips.samples.max(1));
    (Some(value), variance.min(0.25), Basis::RoundTrips(trips))
}

/// Whether it is we who are cut off: when of the peers asked lately more than half gave no answer at their last probe.
///
/// Each peer counts once, so that one dead peer that is asked more often does not outvote those that answer.
#[derive(Clone, Debug, Default)]
pub struct SelfSuspect {
    outcomes: BTreeMap<PeerId, (Mono, bool)>,
}

impl SelfSuspect {
    /// A heartbeat or a probe was answered or not.
    pub fn probed(&mut self, peer: PeerId, answered: bool, now: Mono, settings: &Settings) {
        self.outcomes.retain(|_, (at, _)| now.since(*at) <= settings.suspect_window);
        if self.outcomes.len() < OUTCOMES_MAX || self.outcomes.contains_key(&peer) {
            self.outcomes.insert(peer, (now, answered));
        }
    }

    /// More than half of the peers asked lately did not answer.
    #[must_use]
    pub fn is_suspect(&self, now: Mono, settings: &Settings) -> bool {
        let recent = || self.outcomes.values().filter(|(at, _)| now.since(*at) <= settings.suspect_window);
        let failed = recent().filter(|(_, answered)| !answered).count();
        failed * 2 > recent().count()
    }
}

/// A member of the pool, as far as judging it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The indexer.
    pub peer: PeerId,
    /// It may not be evicted.
    pub sticky: bool,
}

/// A member that goes, and the score that it goes for.
#[derive(Clone, Debug, PartialEq)]
pub struct Eviction {
    /// The indexer.
    pub peer: PeerId,
    /// The last of the judgements.
    pub score: Score,
}

/// The one owner of all evidence.
#[derive(Clone, Debug, Default)]
pub struct Book {
    settings: Settings,
    entries: BTreeMap<PeerId, Evidence>,
    ourselves: SelfSuspect,
}

impl Book {
    /// An empty book.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, entries: BTreeMap::new(), ourselves: SelfSuspect::default() }
    }

    /// The rules it goes by.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// New rules; the evidence stays.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Writes one observation down. A missed answer is not held against anybody while we suspect ourselves.
    pub fn observe(&mut self, peer: PeerId, observation: &Observation, now: Mono) {
        match observation {
            Observation::Answered { .. } => self.ourselves.probed(peer, true, now, &self.settings),
            Observation::Missed => {
                self.ourselves.probed(peer, false, now, &self.settings);
                if self.is_self_suspect(now) {
                    return;
                }
            }
            _ => {}
        }
        if !self.entries.contains_key(&peer) && !self.make_room() {
            return;
        }
        let settings = &self.settings;
        let entry = self.entries.entry(peer).or_insert_with(|| Evidence::new(Facts::default(), now));
        entry.observe(observation, now, settings);
    }

    /// A probe of a peer that is no member: it tells about ourselves only.
    pub fn probed(&mut self, peer: PeerId, answered: bool, now: Mono) {
        self.ourselves.probed(peer, answered, now, &self.settings);
    }

    /// Who is a member now: their evidence is never forgotten for want of room, and a verdict on others begins anew.
    pub fn set_members(&mut self, members: &BTreeSet<PeerId>) {
        for (peer, entry) in &mut self.entries {
            entry.is_member = members.contains(peer);
            if !entry.is_member {
                entry.below = 0;
            }
        }
    }

    /// More than half of the peers asked lately did not answer: nobody is judged, nothing missed is written down.
    #[must_use]
    pub fn is_self_suspect(&self, now: Mono) -> bool {
        self.ourselves.is_suspect(now, &self.settings)
    }

    /// The score with its explanation; nothing without any evidence.
    #[must_use]
    pub fn score(&self, peer: &PeerId, now: Mono) -> Option<Score> {
        score(&self.facts(peer, now)?, &self.settings)
    }

    /// The facts that the score is computed from.
    #[must_use]
    pub fn facts(&self, peer: &PeerId, now: Mono) -> Option<Facts> {
        self.entries.get(peer).map(|entry| entry.facts(now, &self.settings))
    }

    /// How many indexers it knows about.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// It knows about no indexer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// One judgement of the members: those that go, worst first. Never the last, never a sticky one, and nobody while
    /// we suspect ourselves.
    pub fn judge(&mut self, members: &[Judged], now: Mono) -> Vec<Eviction> {
        if self.is_self_suspect(now) {
            return Vec::new();
        }
        let mut condemned: Vec<Eviction> = members.iter().filter_map(|member| self.judge_one(*member, now)).collect();
        condemned.sort_by(|one, other| one.score.high.total_cmp(&other.score.high));
        condemned.truncate(members.len().saturating_sub(1));
        for eviction in &condemned {
            if let Some(entry) = self.entries.get_mut(&eviction.peer) {
                entry.below = 0;
            }
        }
        condemned
    }

    fn judge_one(&mut self, member: Judged, now: Mono) -> Option<Eviction> {
        let settings = &self.settings;
        let entry = self.entries.get_mut(&member.peer)?;
        let facts = entry.facts(now, settings);
        let score = score(&facts, settings)?;
        let is_below = !member.sticky && facts.online >= settings.online_min && score.high < score.threshold;
        entry.below = if is_below { entry.below.saturating_add(1) } else { 0 };
        (entry.below >= settings.judgements.max(1)).then_some(Eviction { peer: member.peer, score })
    }

    /// What the database keeps.
    #[must_use]
    pub fn rows(&self, now: Now) -> Vec<Row> {
        let row = |(peer, entry): (&PeerId, &Evidence)| Row {
            peer_id: *peer,
            saved_at: now.wall,
            facts: entry.facts(now.mono, &self.settings),
        };
        self.entries.iter().map(row).collect()
    }

    /// Takes up what the database kept, faded by the time that went by. Nonsense is left out.
    pub fn restore(&mut self, rows: Vec<Row>, now: Now) {
        for Row { peer_id, saved_at, facts } in rows {
            let away = Duration::try_from(now.wall.duration_since(saved_at)).unwrap_or_default();
            if !is_sane(&facts) || (!self.entries.contains_key(&peer_id) && !self.make_room()) {
                continue;
            }
            let facts = faded(facts, away, &self.settings);
            self.entries.insert(peer_id, Evidence::new(facts, now.mono));
        }
    }

    /// Room for one more: when full, the longest unheard that is no member is forgotten.
    fn make_room(&mut self) -> bool {
        if self.entries.len() < self.settings.indexers_max {
            return true;
        }
        let oldest = self.entries.iter().filter(|(_, entry)| !entry.is_member).min_by_key(|(_, entry)| entry.heard);
        match oldest.map(|(peer, _)| *peer) {
            Some(peer) => self.entries.remove(&peer).is_some(),
            None => false,
        }
    }
}

fn is_sane(facts: &Facts) -> bool {
    let is_count = |count: f64| count.is_finite() && (0.0..1e9).contains(&count);
    let is_time = |time: Duration| time < TIME_MAX;
    let counts = [facts.challenges, facts.fill_consistency, facts.witnesses, facts.dht];
    counts.iter().all(|beta| is_count(beta.good) && is_count(beta.bad))
        && is_count(facts.restarts)
        && facts.fill_rate.is_none_or(|rate| (0.0..=1.0).contains(&rate))
        && facts.round_trips.is_none_or(|trips| is_count(trips.mean_secs) && is_count(trips.deviation_secs))
        && is_time(facts.age)
        && is_time(facts.observed)
        && facts.online <= facts.observed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::heartbeat::testing::peer;

    const TICK: u64 = 20;

    fn hours(hours: u64) -> Duration {
        Duration::from_secs(hours * 3_600)
    }

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn answered(rtt_ms: u64, fill: f64) -> Observation {
        Observation::Answered {
            rtt: Duration::from_millis(rtt_ms),
            fill_rate: fill,
            peer_count: (fill * 500.0).round() as u32,
            max_nodes: 500,
            born_at: wall(0),
        }
    }

    fn born(second: i64) -> Observation {
        let Observation::Answered { rtt, fill_rate, peer_count, max_nodes, .. } = answered(20, 0.5) else { panic!() };
        Observation::Answered { rtt, fill_rate, peer_count, max_nodes, born_at: wall(second) }
    }

    fn value(book: &Book, part: Part, now: Mono) -> Option<f64> {
        let score = book.score(&peer(1), now)?;
        score.parts.iter().find(|scored| scored.part == part).unwrap().value
    }

    /// Peer 1 answers every tick from `from` until `to`; returns the time of the last answer.
    fn beats(book: &mut Book, from: u64, to: u64) -> Mono {
        for second in (from..=to).step_by(TICK as usize) {
            book.observe(peer(1), &answered(20, 0.5), Mono::from_secs(second));
        }
        Mono::from_secs(from + (to - from) / TICK * TICK)
    }

    /// Somebody else answers, so that we need not suspect ourselves.
    fn others_answer(book: &mut Book, now: Mono) {
        for number in 100..103 {
            book.probed(peer(number), true, now);
        }
    }

    #[test]
    fn the_weights_are_those_of_the_table_and_sum_to_one() {
        let weights: Vec<f64> = Part::ALL.iter().map(|part| part.weight()).collect();
        assert_eq!(weights, [0.20, 0.20, 0.15, 0.10, 0.10, 0.15, 0.10]);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn g11_what_was_not_measured_is_left_out_and_the_rest_is_rescaled() {
        let settings = Settings::default();
        assert_eq!(score(&Facts::default(), &settings), None, "nothing is known");
        let facts = Facts { fill_rate: Some(0.25), ..Facts::default() };
        let only_fill = score(&facts, &settings).unwrap();
        assert_eq!(only_fill.value, 75.0);
        assert!(only_fill.parts.iter().all(|part| part.value.is_some() == (part.part == Part::Fill)));
        let round_trips = Some(RoundTrips { mean_secs: 1.0, deviation_secs: 0.0, samples: 9 });
        let both = score(&Facts { round_trips, ..facts }, &settings).unwrap();
        assert!((both.value - 75.0).abs() < 1e-9, "0.10 and 0.15 scaled to 0.4 and 0.6");
        let unmeasured = Facts { challenges: Beta { good: 0.2, bad: 0.2 }, ..Facts::default() };
        assert_eq!(score(&unmeasured, &settings), None, "faded evidence is none");
    }

    #[test]
    fn g1_every_observation_is_in_the_one_book() {
        let mut book = Book::new(Settings { half_life: hours(1_000_000), ..Settings::default() });
        for second in 0..100 {
            book.observe(peer(1), &Observation::Challenged { good: 1, bad: 0 }, Mono::from_secs(second));
            book.observe(peer(1), &Observation::Dht { good: second % 2 == 0 }, Mono::from_secs(second));
            book.observe(peer(1), &Observation::Witness { agrees: false }, Mono::from_secs(second));
            let _copy = book.facts(&peer(1), Mono::from_secs(second));
        }
        let facts = book.facts(&peer(1), Mono::from_secs(99)).unwrap();
        assert!((facts.challenges.good - 100.0).abs() < 1e-3);
        assert!((facts.dht.good - 50.0).abs() < 1e-3 && (facts.dht.bad - 50.0).abs() < 1e-3);
        assert!((facts.witnesses.bad - 100.0).abs() < 1e-3);
    }

    #[test]
    fn g9_a_missed_answer_is_no_round_trip_of_zero() {
        let mut book = Book::default();
        book.observe(peer(1), &answered(2_000, 0.5), Mono::from_secs(0));
        let before = value(&book, Part::Latency, Mono::from_secs(0));
        for second in [20, 40, 60] {
            others_answer(&mut book, Mono::from_secs(second));
            book.observe(peer(1), &Observation::Missed, Mono::from_secs(second));
        }
        assert_eq!(value(&book, Part::Latency, Mono::from_secs(60)), before);
        book.observe(peer(2), &Observation::Missed, Mono::from_secs(60));
        assert_eq!(book.score(&peer(2), Mono::from_secs(60)), None, "one that never answered has no score");
    }

    #[test]
    fn uptime_counts_gaps_only_when_they_are_long_and_somebody_asked() {
        let gap = |length: u64, misses: &[u64]| {
            let mut book = Book::default();
            beats(&mut book, 0, 600);
            for miss in misses {
                others_answer(&mut book, Mono::from_secs(600 + miss));
                book.observe(peer(1), &Observation::Missed, Mono::from_secs(600 + miss));
            }
            book.observe(peer(1), &answered(20, 0.5), Mono::from_secs(600 + length));
            let facts = book.facts(&peer(1), Mono::from_secs(600 + length)).unwrap();
            (facts.online.as_secs(), facts.observed.as_secs())
        };
        assert_eq!(gap(120, &[20, 40]), (720, 720), "not longer than 2 × 60 s");
        assert_eq!(gap(121, &[20, 40, 60]), (600, 721), "longer");
        assert_eq!(gap(5_000, &[]), (600, 600), "nobody asked");
        assert_eq!(gap(5_000, &[20, 40, 140]), (600, 740), "nobody asked after the last miss");
    }

    #[test]
    fn an_absence_shows_before_it_ends() {
        let mut book = Book::default();
        beats(&mut book, 0, 600);
        assert_eq!(value(&book, Part::Uptime, Mono::from_secs(700)), Some(1.0), "nothing was missed yet");
        for second in [620, 640, 700, 800, 900, 1_000, 1_100, 1_200] {
            others_answer(&mut book, Mono::from_secs(second));
            book.observe(peer(1), &Observation::Missed, Mono::from_secs(second));
        }
        assert_eq!(value(&book, Part::Uptime, Mono::from_secs(1_200)), Some(0.5));
    }

    #[test]
    fn g12_the_penalty_for_restarts_fades_and_announced_ones_have_none() {
        let mut book = Book::default();
        for life in 0..4 {
            book.observe(peer(1), &born(life), Mono::from_secs(TICK * life as u64));
        }
        let now = Mono::from_secs(TICK * 3);
        assert!(book.score(&peer(1), now).unwrap().restart_factor < 0.11, "three unexplained restarts");
        let later = now + hours(24);
        assert!(book.score(&peer(1), later).unwrap().restart_factor > 0.94, "four half-lives later");

        let mut book = Book::default();
        book.observe(peer(1), &born(0), Mono::from_secs(0));
        book.observe(peer(1), &Observation::RestartAnnounced, Mono::from_secs(20));
        book.observe(peer(1), &born(1), Mono::from_secs(40));
        assert_eq!(book.score(&peer(1), Mono::from_secs(40)).unwrap().restart_factor, 1.0);
        book.observe(peer(1), &born(2), Mono::from_secs(60));
        let factor = book.score(&peer(1), Mono::from_secs(60)).unwrap().restart_factor;
        assert!((factor - 0.7).abs() < 1e-9, "one announcement explains one restart");
    }

    #[test]
    fn g12_one_crash_evicts_nobody_and_a_habit_does() {
        let crashes = |count: i64| {
            let mut book = Book::default();
            let age = 48 * 3_600;
            for second in (0..=age).step_by(TICK as usize) {
                let life = count - (age - second) as i64 / 600;
                book.observe(peer(1), &born(life.max(0)), Mono::from_secs(second));
            }
            book.score(&peer(1), Mono::from_secs(age)).unwrap()
        };
        let once = crashes(1);
        assert!(once.value < once.threshold && once.high >= once.threshold, "{once:?}");
        let habit = crashes(8);
        assert!(habit.high < habit.threshold, "{habit:?}");
    }

    #[test]
    fn a_restart_behind_our_back_is_no_guilt() {
        let mut book = Book::default();
        book.observe(peer(1), &born(0), Mono::from_secs(0));
        book.observe(peer(1), &born(1), Mono::from_secs(121));
        assert_eq!(book.score(&peer(1), Mono::from_secs(121)).unwrap().restart_factor, 1.0);
    }

    #[test]
    fn g12_an_old_sin_fades() {
        let mut book = Book::default();
        book.observe(peer(1), &Observation::Challenged { good: 0, bad: 20 }, Mono::from_secs(0));
        let at_once = value(&book, Part::Challenges, Mono::from_secs(0)).unwrap();
        let half = book.facts(&peer(1), Mono::ZERO + hours(6)).unwrap().challenges.bad;
        assert!((half - 10.0).abs() < 1e-9, "the half-life is exact");
        for tick in 1..=60 {
            book.observe(
                peer(1),
                &Observation::Challenged { good: 1, bad: 0 },
                Mono::ZERO + hours(24) + Duration::from_secs(tick * TICK),
            );
        }
        let later = value(&book, Part::Challenges, Mono::ZERO + hours(25)).unwrap();
        assert!(at_once < 0.05 && later > 0.95, "{at_once} {later}");
    }

    #[test]
    fn fading_in_steps_is_fading_at_once() {
        let settings = Settings::default();
        let facts = Facts { challenges: Beta { good: 40.0, bad: 3.0 }, restarts: 2.0, ..Facts::default() };
        let mut steps = facts.clone();
        for _ in 0..1_000 {
            steps = faded(steps, Duration::from_secs(36), &settings);
        }
        let at_once = faded(facts, hours(10), &settings);
        assert!((steps.challenges.good - at_once.challenges.good).abs() < 1e-9);
        assert!((steps.restarts - at_once.restarts).abs() < 1e-9);
    }

    #[test]
    fn the_threshold_grows_with_age_to_its_most() {
        let settings = Settings::default();
        let check = |age, flawless, expected: f64| {
            let got = threshold(age, flawless, &settings);
            assert!((got - expected).abs() < 1e-9, "{got} {expected}");
        };
        check(Duration::ZERO, 100.0, 20.0);
        check(hours(12), 100.0, 50.0);
        check(hours(24), 100.0, 80.0);
        check(hours(10_000), 100.0, 80.0);
        check(hours(24), 90.0, 75.0);
        check(hours(24), 10.0, 0.0);
    }

    /// A book in which peer 1 is old, bad and online, and peer 2 is a good one; and the time.
    fn old_and_bad() -> (Book, Mono) {
        let mut book = Book::default();
        let end = 30 * 3_600;
        for second in (0..=end).step_by(TICK as usize) {
            let now = Mono::from_secs(second);
            let lie = Observation::Answered {
                rtt: Duration::from_secs(3),
                fill_rate: 0.1,
                peer_count: 500,
                max_nodes: 500,
                born_at: wall(0),
            };
            book.observe(peer(1), &lie, now);
            book.observe(peer(1), &Observation::Challenged { good: 0, bad: 1 }, now);
            book.observe(peer(2), &answered(20, 0.5), now);
        }
        (book, Mono::from_secs(end))
    }

    fn members(sticky: bool) -> [Judged; 2] {
        [Judged { peer: peer(1), sticky }, Judged { peer: peer(2), sticky: false }]
    }

    #[test]
    fn g45_it_takes_three_judgements_in_a_row_to_evict() {
        let (mut book, now) = old_and_bad();
        for _ in 0..2 {
            assert_eq!(book.judge(&members(false), now), []);
        }
        let evicted = book.judge(&members(false), now);
        assert_eq!(evicted.len(), 1);
        assert_eq!(evicted[0].peer, peer(1));
        assert!(evicted[0].score.high < evicted[0].score.threshold);
        assert_eq!(book.judge(&members(false), now), [], "a new verdict begins anew");
    }

    #[test]
    fn an_indexer_that_was_exposed_goes_though_its_numbers_fit_each_other() {
        let mut book = Book::default();
        let end = 30 * 3_600;
        for second in (0..=end).step_by(TICK as usize) {
            book.observe(peer(1), &answered(20, 0.5), Mono::from_secs(second));
            book.observe(peer(2), &answered(20, 0.5), Mono::from_secs(second));
        }
        for _ in 0..3 {
            assert_eq!(book.judge(&members(false), Mono::from_secs(end)), []);
        }
        book.observe(peer(1), &Observation::Exposed, Mono::from_secs(end));
        // The beats of a whole epoch do not wash it off.
        for second in (end..end + 600).step_by(TICK as usize) {
            book.observe(peer(1), &answered(20, 0.5), Mono::from_secs(second));
            book.observe(peer(2), &answered(20, 0.5), Mono::from_secs(second));
        }
        let now = Mono::from_secs(end + 600);
        let gone: Vec<PeerId> =
            (0..3).flat_map(|_| book.judge(&members(false), now)).map(|eviction| eviction.peer).collect();
        assert_eq!(gone, [peer(1)]);
    }

    #[test]
    fn nobody_is_evicted_who_is_sticky_or_the_last_or_hardly_known() {
        let (mut book, now) = old_and_bad();
        for _ in 0..10 {
            assert_eq!(book.judge(&members(true), now), [], "sticky");
            assert_eq!(book.judge(&members(false)[..1], now), [], "the last");
        }
        let entry = book.entries.get_mut(&peer(1)).unwrap();
        entry.facts.online = Duration::from_secs(119);
        for _ in 0..10 {
            assert_eq!(book.judge(&members(false), now), [], "online for less than 2 × 60 s");
        }
        book.entries.get_mut(&peer(1)).unwrap().facts.online = Duration::from_secs(120);
        let verdicts: Vec<usize> = (0..3).map(|_| book.judge(&members(false), now).len()).collect();
        assert_eq!(verdicts, [0, 0, 1]);
    }

    #[test]
    fn at_least_one_member_stays_however_bad_all_are() {
        let (mut book, now) = old_and_bad();
        let all = [Judged { peer: peer(1), sticky: false }, Judged { peer: peer(3), sticky: false }];
        book.entries.insert(peer(3), book.entries[&peer(1)].clone());
        let evicted: usize = (0..3).map(|_| book.judge(&all, now).len()).sum();
        assert_eq!(evicted, 1);
    }

    #[test]
    fn when_most_probes_fail_we_suspect_ourselves_and_judge_nobody() {
        let (mut book, now) = old_and_bad();
        let before = book.facts(&peer(2), now);
        for number in [2, 3, 4] {
            book.probed(peer(number), false, now);
        }
        assert!(book.is_self_suspect(now), "3 of 4");
        for _ in 0..10 {
            assert_eq!(book.judge(&members(false), now), []);
        }
        book.observe(peer(2), &Observation::Missed, now);
        assert_eq!(book.facts(&peer(2), now), before, "no score is lost");
        book.probed(peer(3), true, now);
        assert!(!book.is_self_suspect(now), "exactly half is not more than half");
        assert!(!book.is_self_suspect(now + Duration::from_secs(61)), "nothing was asked lately");
    }

    #[test]
    fn one_dead_peer_asked_often_does_not_make_us_suspect_ourselves() {
        let (settings, mut ourselves) = (Settings::default(), SelfSuspect::default());
        for second in 0..20 {
            ourselves.probed(peer(1), false, Mono::from_secs(second), &settings);
        }
        assert!(ourselves.is_suspect(Mono::from_secs(20), &settings), "nobody else was asked");
        ourselves.probed(peer(2), true, Mono::from_secs(20), &settings);
        assert!(!ourselves.is_suspect(Mono::from_secs(20), &settings));
    }

    #[test]
    fn the_book_is_bounded_and_forgets_no_member() {
        let mut book = Book::new(Settings { indexers_max: 3, ..Settings::default() });
        book.observe(peer(1), &answered(20, 0.5), Mono::from_secs(1));
        book.set_members(&BTreeSet::from([peer(1)]));
        for number in 2..=4 {
            book.observe(peer(number), &answered(20, 0.5), Mono::from_secs(u64::from(number)));
        }
        assert_eq!(book.len(), 3);
        assert!(book.facts(&peer(1), Mono::from_secs(9)).is_some(), "the member stays though it is the oldest");
        assert!(book.facts(&peer(2), Mono::from_secs(9)).is_none());
        book.set_members(&(1..=4).map(peer).collect());
        book.observe(peer(5), &answered(20, 0.5), Mono::from_secs(9));
        assert_eq!(book.len(), 3);
        assert!(book.facts(&peer(5), Mono::from_secs(9)).is_none(), "nobody can go, so nobody comes");
    }

    #[test]
    fn evidence_survives_the_process_and_fades_meanwhile() {
        let mut book = Book::default();
        let end = beats(&mut book, 0, 7_200);
        book.observe(peer(1), &Observation::Challenged { good: 8, bad: 4 }, end);
        let rows = book.rows(Now { mono: end, wall: wall(7_200) });
        let text = serde_json::to_string(&rows).unwrap();
        let rows: Vec<Row> = serde_json::from_str(&text).unwrap();
        let mut next = Book::default();
        next.restore(rows, Now { mono: Mono::from_secs(5), wall: wall(7_200 + 6 * 3_600) });
        let facts = next.facts(&peer(1), Mono::from_secs(5)).unwrap();
        assert_eq!(facts.age, Duration::from_secs(7_200));
        assert_eq!(facts.online, Duration::from_secs(7_200), "our own absence is nobody's gap");
        assert!((facts.challenges.good - 4.0).abs() < 1e-9 && (facts.challenges.bad - 2.0).abs() < 1e-9);
        next.observe(peer(1), &born(99), Mono::from_secs(10));
        assert_eq!(next.score(&peer(1), Mono::from_secs(10)).unwrap().restart_factor, 1.0);
        assert_eq!(next.facts(&peer(1), Mono::from_secs(10)).unwrap().online, Duration::from_secs(7_200));
    }

    #[test]
    fn nonsense_rows_are_left_out() {
        let check = |change: fn(&mut Facts), expected| {
            let mut facts = Facts { observed: hours(2), online: hours(1), ..Facts::default() };
            change(&mut facts);
            let mut book = Book::default();
            book.restore(
                vec![Row { peer_id: peer(1), saved_at: wall(0), facts }],
                Now { mono: Mono::ZERO, wall: wall(0) },
            );
            assert_eq!(book.len(), expected);
        };
        check(|_| {}, 1);
        check(|facts| facts.challenges.bad = f64::NAN, 0);
        check(|facts| facts.restarts = -1.0, 0);
        check(|facts| facts.fill_rate = Some(2.0), 0);
        check(|facts| facts.online = hours(3), 0);
        check(|facts| facts.age = Duration::MAX, 0);
    }

    #[test]
    fn the_explanation_recomputes_the_score_to_the_last_bit() {
        let (book, now) = old_and_bad();
        let facts = book.facts(&peer(1), now).unwrap();
        let shown = book.score(&peer(1), now).unwrap();
        assert_eq!(score(&facts, book.settings()), Some(shown.clone()));
        let text: Vec<String> = shown.parts.iter().map(|part| part.basis.to_string()).collect();
        assert!(text.iter().all(|text| !text.is_empty()), "{text:?}");
    }

    #[test]
    fn more_evidence_makes_the_interval_narrower() {
        let width = |count: f64| {
            let facts = Facts { challenges: Beta { good: 3.0 * count, bad: count }, ..Facts::default() };
            let score = score(&facts, &Settings::default()).unwrap();
            score.high - score.low
        };
        assert!(width(1.0) > width(10.0) && width(10.0) > width(100.0));
    }

    prop_compose! {
        fn any_facts()(
            age in 0u64..10_000_000, observed in 0u64..10_000_000, share in 0.0..=1.0f64,
            counts in proptest::array::uniform8(0.0..2_000.0f64),
            restarts in 0.0..20.0f64,
            mean_secs in proptest::option::of(0.0..20.0f64), deviation_secs in 0.0..20.0f64, samples in 1u32..=15,
            fill_rate in proptest::option::of(0.0..=1.0f64),
        ) -> Facts {
            let beta = |at: usize| Beta { good: counts[at], bad: counts[at + 1] };
            let observed = Duration::from_secs(observed);
            Facts {
                age: Duration::from_secs(age),
                observed,
                online: observed.mul_f64(share).min(observed),
                challenges: beta(0),
                fill_consistency: beta(2),
                witnesses: beta(4),
                dht: beta(6),
                restarts,
                born_at: None,
                round_trips: mean_secs.map(|mean_secs| RoundTrips { mean_secs, deviation_secs, samples }),
                fill_rate,
            }
        }
    }

    proptest! {
        #[test]
        fn a_score_and_its_bounds_are_within_0_and_100(facts in any_facts()) {
            let Some(score) = score(&facts, &Settings::default()) else { return Ok(()) };
            prop_assert!(0.0 <= score.low && score.low <= score.value, "{score:?}");
            prop_assert!(score.value <= score.high && score.high <= 100.0, "{score:?}");
            prop_assert!((0.0..=80.0).contains(&score.threshold));
            prop_assert!(score.threshold <= (score.flawless - 15.0).max(0.0));
            for part in &score.parts {
                prop_assert!(part.value.is_none_or(|value| (0.0..=1.0).contains(&value)), "{part:?}");
            }
        }

        #[test]
        fn more_good_evidence_never_lowers_a_score_that_has_such_evidence(facts in any_facts(), more in 0.1..50.0f64) {
            prop_assume!(facts.challenges.is_known());
            let settings = Settings::default();
            let mut better = facts.clone();
            better.challenges.good += more;
            let (before, after) = (score(&facts, &settings).unwrap(), score(&better, &settings).unwrap());
            prop_assert!(after.value >= before.value - 1e-9);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        /// Two days: a fifth of the beats is lost, one restarts politely now and then and one crashes once a day, and
        /// our own uplink fails once.
        #[test]
        fn an_honest_indexer_at_any_fill_is_never_evicted(
            seed: u64, fill in 0.0..=1.0f64, rtt_ms in 1u64..400, uplink_down_at in 0u64..172_800,
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut book = Book::default();
            let (mut lives, mut crashes) = (0, 0);
            for second in (0..2 * 24 * 3_600).step_by(TICK as usize) {
                let now = Mono::from_secs(second);
                let is_down = (uplink_down_at..uplink_down_at + 600).contains(&second);
                for number in 1..=4 {
                    if is_down || rng.random_bool(0.2) {
                        book.observe(peer(number), &Observation::Missed, now);
                        continue;
                    }
                    if number == 1 && rng.random_bool(0.000_1) {
                        book.observe(peer(1), &Observation::RestartAnnounced, now);
                        lives += 1;
                    }
                    if number == 2 && rng.random_bool(0.000_2) {
                        crashes += 1;
                    }
                    let Observation::Answered { rtt, fill_rate, peer_count, max_nodes, .. } = answered(rtt_ms, fill)
                    else { unreachable!() };
                    let rtt = rtt.mul_f64(1.0 + rng.random::<f64>());
                    let born_at = wall([0, lives, crashes, 0, 0][number as usize]);
                    book.observe(peer(number), &Observation::Answered { rtt, fill_rate, peer_count, max_nodes, born_at }, now);
                    if number == 1 && rng.random_ratio(1, 5) {
                        book.observe(peer(number), &Observation::Challenged { good: 1, bad: 0 }, now);
                    }
                }
                let judged = [1, 2].map(|number| Judged { peer: peer(number), sticky: false });
                prop_assert_eq!(book.judge(&judged, now), vec![], "at {}", now);
            }
            let score = book.score(&peer(1), Mono::from_secs(2 * 24 * 3_600)).unwrap();
            prop_assert!(score.high >= score.threshold, "{score:?}");
        }
    }
}
