//! The parts of a score, and what they add up to.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Beta, Facts, RoundTrips, Settings, Suspicions};

/// Two-sided 95 % of a normal distribution, in standard deviations.
const DEVIATIONS: f64 = 1.96;

/// Time that counts as one observation of uptime; neighbouring beats are no independent evidence.
const UPTIME_UNIT: Duration = Duration::from_secs(60);

/// What is wrong with each unexplained restart, as a share of the score.
const RESTART_PENALTY: f64 = 0.30;

/// One part of a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Share of the time since first contact that it was online.
    Uptime,
    /// Own-id challenges answered right, and spot checks that found what its record says.
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
    /// What speaks for its being a liar; one that is caught has a score of 0.
    #[serde(default)]
    pub suspicions: Suspicions,
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
    let honesty = if facts.suspicions.is_caught() { 0.0 } else { 1.0 };
    let whole = |share: f64, restarts: f64| (100.0 * share * restart_factor(restarts) * honesty).clamp(0.0, 100.0);
    let (spread, restarts) = (DEVIATIONS * variance.sqrt(), facts.restarts);
    let restarts_spread = DEVIATIONS * restarts.sqrt();
    Some(Score {
        value: whole(mean, restarts),
        low: whole(mean - spread, restarts + restarts_spread),
        high: whole(mean + spread, restarts - restarts_spread),
        flawless,
        restart_factor: restart_factor(restarts),
        suspicions: facts.suspicions.clone(),
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
