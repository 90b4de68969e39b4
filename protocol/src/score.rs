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

mod book;
mod evidence;
mod history;
mod ledger;
mod parts;
mod suspicion;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::{
    book::{Book, Eviction, Hold, Judged, Row, SILENT_SHARE_MAX, SelfSuspect},
    evidence::{Beta, Facts, Observation, RoundTrips},
    history::{CURVES_MAX, History, SAMPLES_MAX, Sample},
    ledger::{DECISIONS_MAX, Decided, Decision, ENTRIES_MAX, Entry, Explained, Ledger, Verdict, replay},
    parts::{Basis, Part, PartScore, Score, score, threshold},
    suspicion::{Check, SURE, Suspicions},
};

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
