//! When an operator is told that something is wrong, and when that it is over: once each.
//!
//! A sample is judged against bounds of two kinds that cannot be mixed up: what may be at most, and what must be at least.
//! 1.2 times beyond a bound is critical, as page 7 of the design has it; for a least bound its mirror, the bound ÷ 1.2.
//! An alert is raised by two samples in a row beyond its bound and cleared by two within it, so that a figure that plays
//! around its bound rings once. What is known at once and does not play (isolation, a bus or a database that is away) needs
//! one sample. A figure that nobody could measure changes nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{score::SILENT_SHARE_MAX, time::text};

/// Beyond its bound by this factor an alert is critical.
const CRITICAL_FACTOR: f64 = 1.2;

/// Samples in a row that change what plays around its bound.
const IN_A_ROW: u8 = 2;

/// Samples kept: 8 h and 20 min of one each 30 s.
pub const HISTORY_MAX: usize = 1_000;

/// What may be alerted about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Share of the machine's processors in use, by anybody.
    Cpu,
    /// Share of the memory in use that we may have: the machine's or the container's.
    Memory,
    /// Share of the data's file system in use.
    Disk,
    /// Median round trip to our indexers, in milliseconds.
    Latency,
    /// Peers connected.
    Peers,
    /// Rows that wait in the outbox.
    Outbox,
    /// How long the last look into the database took, in milliseconds.
    DatabaseSlow,
    /// The database does not answer.
    Database,
    /// The bus is away.
    Bus,
    /// Fewer indexers answer than we need.
    Isolated,
    /// How far our clock is from the one on which our indexers agree, in milliseconds.
    Clock,
    /// Share of the peers asked lately that gave no answer: past a half it is our own link that is the trouble.
    SelfSuspect,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 12] = [
        Self::Cpu,
        Self::Memory,
        Self::Disk,
        Self::Latency,
        Self::Peers,
        Self::Outbox,
        Self::DatabaseSlow,
        Self::Database,
        Self::Bus,
        Self::Isolated,
        Self::Clock,
        Self::SelfSuspect,
    ];

    /// Its name, as it is shown and announced.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Latency => "latency",
            Self::Peers => "peers",
            Self::Outbox => "outbox",
            Self::DatabaseSlow => "database_slow",
            Self::Database => "database",
            Self::Bus => "bus",
            Self::Isolated => "isolated",
            Self::Clock => "clock",
            Self::SelfSuspect => "self_suspect",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Cpu => "see what uses the processors; another indexer process takes its share of the nodes",
            Self::Memory => "see what uses the memory; lower gate.max_nodes or give the machine more",
            Self::Disk => "make room on the file system of the data folder",
            Self::Latency => "see `muster indexers`: seeds that are nearer may be better",
            Self::Peers => "see `muster peers`; without other members nothing is found and nothing is kept",
            Self::Outbox => "see `muster outbox`: a partner or the bus does not take what waits",
            Self::DatabaseSlow => "see how the database's disk or server does",
            Self::Database => "see store.url and the server's log; what is acknowledged is not lost",
            Self::Bus => "see bus.url and the server's log; what is to be announced waits",
            Self::Isolated => "see `muster indexers` and network.seeds; is this machine connected?",
            Self::Clock => "set this machine's clock, and see that it is kept: others refuse what is 30 s off",
            Self::SelfSuspect => "see this machine's own link: most peers are silent at once, so nobody is blamed",
        }
    }

    fn is_known_at_once(self) -> bool {
        matches!(self, Self::Database | Self::Bus | Self::Isolated)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Beyond its bound.
    Warning,
    /// 1.2 times beyond its bound, or something that a member cannot do without.
    Critical,
}

/// What a figure may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Bound {
    /// How far beyond the bound a figure is; nothing while it is within.
    ///
    /// A bound of nothing at least is always kept. Of nothing at most everything else is critical.
    #[must_use]
    pub fn judge(self, figure: f64) -> Option<Severity> {
        let (is_beyond, is_far) = match self {
            Self::AtMost(most) => (figure > most, figure > most * CRITICAL_FACTOR),
            Self::AtLeast(least) => (figure < least, figure < least / CRITICAL_FACTOR),
        };
        match (is_beyond, is_far) {
            (false, _) => None,
            (true, false) => Some(Severity::Warning),
            (true, true) => Some(Severity::Critical),
        }
    }

    /// The figure that it stands at.
    #[must_use]
    pub const fn figure(self) -> f64 {
        match self {
            Self::AtMost(figure) | Self::AtLeast(figure) => figure,
        }
    }
}

/// Section `[alerts]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How often everything is looked at.
    #[serde(with = "text")]
    pub every: Duration,
    /// How often it is reported what happened.
    #[serde(with = "text")]
    pub report_every: Duration,
    /// Share of all processors, at most.
    pub cpu_max: f64,
    /// Share of the memory, at most.
    pub memory_max: f64,
    /// Share of the file system of the data, at most.
    pub disk_max: f64,
    /// Median round trip to our indexers, at most.
    #[serde(with = "text")]
    pub latency_max: Duration,
    /// Connected peers, at least; 0 for a member that is meant to be alone.
    pub peers_min: u32,
    /// Rows that wait in the outbox, at most.
    pub outbox_max: u64,
    /// A look into the database, at most.
    #[serde(with = "text")]
    pub database_max: Duration,
    /// Our clock may be so far from the one on which our indexers agree. 1.2 times that, where it is critical, is what
    /// others allow before they refuse what we sign ([`crate::signed::CLOCK_SKEW`]).
    #[serde(with = "text")]
    pub clock_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(30),
            report_every: Duration::from_secs(24 * 3_600),
            cpu_max: 0.80,
            memory_max: 0.85,
            disk_max: 0.90,
            latency_max: Duration::from_secs(1),
            peers_min: 3,
            outbox_max: 10_000,
            database_max: Duration::from_secs(1),
            clock_max: Duration::from_secs(25),
        }
    }
}

impl Settings {
    /// What the figure of a topic may be.
    #[must_use]
    pub fn bound(&self, topic: Topic) -> Bound {
        let millis = |span: Duration| span.as_secs_f64() * 1e3;
        match topic {
            Topic::Cpu => Bound::AtMost(self.cpu_max),
            Topic::Memory => Bound::AtMost(self.memory_max),
            Topic::Disk => Bound::AtMost(self.disk_max),
            Topic::Latency => Bound::AtMost(millis(self.latency_max)),
            Topic::Peers => Bound::AtLeast(f64::from(self.peers_min)),
            // Far below 2^53.
            #[expect(clippy::cast_precision_loss)]
            Topic::Outbox => Bound::AtMost(self.outbox_max as f64),
            Topic::DatabaseSlow => Bound::AtMost(millis(self.database_max)),
            Topic::Clock => Bound::AtMost(millis(self.clock_max)),
            // The rule by which nobody is judged: nothing to be set.
            Topic::SelfSuspect => Bound::AtMost(SILENT_SHARE_MAX),
            // 1 for away, 0 for there.
            Topic::Database | Topic::Bus | Topic::Isolated => Bound::AtMost(0.0),
        }
    }
}

/// One look at everything; what could not be measured is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// By topic, in the topic's unit; 1 for a thing that is away, 0 for one that is there.
    pub figures: BTreeMap<Topic, f64>,
}

impl Sample {
    /// With this figure, unless it is none.
    #[must_use]
    pub fn with(mut self, topic: Topic, figure: Option<f64>) -> Self {
        if let Some(figure) = figure.filter(|figure| figure.is_finite()) {
            self.figures.insert(topic, figure);
        }
        self
    }

    /// With a thing that is there or away, where it is wanted at all.
    #[must_use]
    pub fn with_away(self, topic: Topic, is_away: Option<bool>) -> Self {
        self.with(topic, is_away.map(|is_away| if is_away { 1.0 } else { 0.0 }))
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    /// What about.
    pub topic: Topic,
    /// How bad it is.
    pub severity: Severity,
    /// Since when.
    pub since: Timestamp,
    /// The last figure, in the topic's unit.
    pub figure: f64,
    /// What it may be.
    pub bound: f64,
    /// What to do.
    pub remedy: &'static str,
}

/// What is to be told.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is wrong since now, or worse or better than it was told.
    Raised(Alert),
    /// It is over.
    Cleared(Alert),
}

/// A topic's way between right and wrong.
#[derive(Clone, Copy, Debug, Default)]
struct Trend {
    beyond: u8,
    within: u8,
}

/// What is wrong now, and the samples of the last hours.
#[derive(Debug)]
pub struct Alerts {
    settings: Settings,
    trends: BTreeMap<Topic, Trend>,
    raised: BTreeMap<Topic, Alert>,
    history: VecDeque<(Timestamp, Sample)>,
}

impl Alerts {
    /// Nothing is wrong yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, trends: BTreeMap::new(), raised: BTreeMap::new(), history: VecDeque::new() }
    }

    /// What it judges by.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// New bounds. What is raised stays so until it is judged by them: an alert ends by what is seen, not by an order.
    pub fn set_settings(&mut self, settings: Settings) {
        for alert in self.raised.values_mut() {
            alert.bound = settings.bound(alert.topic).figure();
        }
        self.settings = settings;
    }

    /// Judges a sample, keeps it, and says what is to be told.
    ///
    /// A warning that becomes critical is raised again; one that is less bad is not, until it is over.
    pub fn take(&mut self, sample: Sample, now: Timestamp) -> Vec<Change> {
        let changes = sample.figures.iter().filter_map(|(topic, figure)| self.judge(*topic, *figure, now)).collect();
        if self.history.len() >= HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back((now, sample));
        changes
    }

    fn judge(&mut self, topic: Topic, figure: f64, now: Timestamp) -> Option<Change> {
        let bound = self.settings.bound(topic);
        let needed = if topic.is_known_at_once() { 1 } else { IN_A_ROW };
        let trend = self.trends.entry(topic).or_default();
        let Some(severity) = bound.judge(figure) else {
            *trend = Trend { beyond: 0, within: trend.within.saturating_add(1) };
            if trend.within < needed {
                return None;
            }
            return self.raised.remove(&topic).map(|alert| Change::Cleared(Alert { figure, ..alert }));
        };
        *trend = Trend { beyond: trend.beyond.saturating_add(1), within: 0 };
        let is_due = trend.beyond >= needed;
        match self.raised.get_mut(&topic) {
            Some(alert) => {
                alert.figure = figure;
                if severity <= alert.severity {
                    return None;
                }
                alert.severity = severity;
                Some(Change::Raised(alert.clone()))
            }
            None if is_due => {
                let (bound, remedy) = (bound.figure(), topic.remedy());
                let alert = Alert { topic, severity, since: now, figure, bound, remedy };
                self.raised.insert(topic, alert.clone());
                Some(Change::Raised(alert))
            }
            None => None,
        }
    }

    /// What is wrong now, the worst first.
    #[must_use]
    pub fn raised(&self) -> Vec<Alert> {
        let mut raised: Vec<Alert> = self.raised.values().cloned().collect();
        raised.sort_by_key(|alert| (std::cmp::Reverse(alert.severity), alert.since));
        raised
    }

    /// The samples kept, the oldest first; at most [`HISTORY_MAX`].
    pub fn history(&self) -> impl ExactSizeIterator<Item = &(Timestamp, Sample)> {
        self.history.iter()
    }
}

/// The middle of some figures; of an even number of them the lower of the two. Nothing of none.
#[must_use]
pub fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.retain(|figure| figure.is_finite());
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + secs).unwrap()
    }

    fn one(topic: Topic, figure: f64) -> Sample {
        Sample::default().with(topic, Some(figure))
    }

    fn alerts() -> Alerts {
        Alerts::new(Settings::default())
    }

    /// What is told of each sample of one topic: severities, or nothing for the end.
    fn told(topic: Topic, figures: &[f64]) -> Vec<(usize, Option<Severity>)> {
        let mut alerts = alerts();
        let mut told = Vec::new();
        for (number, figure) in figures.iter().enumerate() {
            for change in alerts.take(one(topic, *figure), at(number as i64 * 30)) {
                told.push(match change {
                    Change::Raised(alert) => (number, Some(alert.severity)),
                    Change::Cleared(_) => (number, None),
                });
            }
        }
        told
    }

    #[test]
    fn bounds_hold_at_their_figure_and_not_past_it() {
        let (most, least) = (Bound::AtMost(0.8), Bound::AtLeast(3.0));
        assert_eq!((most.judge(0.8), most.judge(0.801)), (None, Some(Severity::Warning)));
        assert_eq!((most.judge(0.96), most.judge(0.9601)), (Some(Severity::Warning), Some(Severity::Critical)));
        assert_eq!((least.judge(3.0), least.judge(2.99)), (None, Some(Severity::Warning)));
        assert_eq!((least.judge(2.5), least.judge(2.0)), (Some(Severity::Warning), Some(Severity::Critical)));
        assert_eq!(Bound::AtLeast(0.0).judge(0.0), None, "a member that is meant to be alone");
        assert_eq!(Bound::AtMost(0.0).judge(1.0), Some(Severity::Critical));
    }

    #[test]
    fn an_alert_is_raised_once_and_cleared_once() {
        let (warning, over) = (Some(Severity::Warning), None);
        assert_eq!(told(Topic::Cpu, &[0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1]), [(1, warning), (5, over)]);
    }

    #[test]
    fn a_figure_that_plays_around_its_bound_rings_once_or_never() {
        assert_eq!(told(Topic::Memory, &[0.9, 0.8, 0.9, 0.8, 0.9]), []);
        assert_eq!(told(Topic::Memory, &[0.9, 0.9, 0.8, 0.9, 0.8, 0.9]), [(1, Some(Severity::Warning))]);
    }

    #[test]
    fn what_gets_worse_is_told_again_and_what_gets_better_is_not() {
        let expected = [(1, Some(Severity::Warning)), (2, Some(Severity::Critical)), (6, None)];
        assert_eq!(told(Topic::Cpu, &[0.9, 0.9, 0.99, 0.9, 0.99, 0.1, 0.1]), expected);
    }

    #[test]
    fn what_is_away_is_told_at_once_and_so_is_its_return() {
        for topic in [Topic::Bus, Topic::Database, Topic::Isolated] {
            assert_eq!(told(topic, &[0.0, 1.0, 1.0, 0.0]), [(1, Some(Severity::Critical)), (3, None)], "{topic}");
        }
    }

    #[test]
    fn a_clock_is_critical_where_others_begin_to_refuse_what_it_signs() {
        let bound = Settings::default().bound(Topic::Clock);
        let allowed = crate::signed::CLOCK_SKEW.as_secs_f64() * 1e3;
        assert_eq!((bound.judge(25_000.0), bound.judge(25_001.0)), (None, Some(Severity::Warning)));
        assert_eq!(
            (bound.judge(allowed), bound.judge(allowed + 1.0)),
            (Some(Severity::Warning), Some(Severity::Critical))
        );
        assert_eq!(told(Topic::Clock, &[600_000.0, 600_000.0, 40.0, 40.0]), [(1, Some(Severity::Critical)), (3, None)]);
    }

    #[test]
    fn we_suspect_ourselves_while_more_than_half_are_silent_and_not_at_half() {
        let (critical, over) = (Some(Severity::Critical), None);
        assert_eq!(told(Topic::SelfSuspect, &[0.5, 0.5, 0.5]), []);
        assert_eq!(told(Topic::SelfSuspect, &[0.75, 0.75, 0.5, 0.0]), [(1, critical), (3, over)]);
    }

    #[test]
    fn what_nobody_could_measure_changes_nothing() {
        let mut alerts = alerts();
        for number in 0..2 {
            alerts.take(one(Topic::Disk, 0.95), at(number));
        }
        assert_eq!(alerts.raised().len(), 1);
        for number in 2..10 {
            let empty = Sample::default().with(Topic::Disk, None).with(Topic::Cpu, Some(f64::NAN));
            assert_eq!(alerts.take(empty, at(number)), []);
        }
        assert_eq!(alerts.raised().len(), 1);
    }

    #[test]
    fn the_worst_is_first_and_says_since_when_and_what_to_do() {
        let mut alerts = alerts();
        for number in 0..2 {
            alerts.take(one(Topic::Disk, 0.91), at(number));
        }
        alerts.take(Sample::default().with_away(Topic::Bus, Some(true)).with_away(Topic::Database, None), at(9));
        let raised = alerts.raised();
        assert_eq!(raised.iter().map(|alert| alert.topic).collect::<Vec<_>>(), [Topic::Bus, Topic::Disk]);
        assert_eq!((raised[1].since, raised[1].figure, raised[1].bound), (at(1), 0.91, 0.90));
        assert!(raised.iter().all(|alert| !alert.remedy.is_empty()));
    }

    #[test]
    fn the_history_is_bounded_and_loses_the_oldest() {
        let mut alerts = alerts();
        for number in 0..=HISTORY_MAX {
            alerts.take(one(Topic::Peers, 5.0), at(number as i64));
        }
        assert_eq!(alerts.history().len(), HISTORY_MAX);
        assert_eq!(alerts.history().next().unwrap().0, at(1));
    }

    #[test]
    fn the_median_is_one_of_the_figures() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0]), Some(1.0));
        assert_eq!(median(vec![9.0, 1.0, f64::NAN, 5.0]), Some(5.0));
    }

    #[test]
    fn every_topic_has_its_own_name() {
        let names: std::collections::BTreeSet<&str> = Topic::ALL.iter().map(|topic| topic.name()).collect();
        assert_eq!(names.len(), Topic::ALL.len());
        for topic in Topic::ALL {
            assert_eq!(serde_json::to_value(topic).unwrap(), topic.name());
        }
    }

    proptest! {
        /// Told changes alternate: raised (maybe worse), cleared, raised, …; what is raised is what was told last.
        #[test]
        fn what_is_told_and_what_is_shown_agree(figures in proptest::collection::vec(0.0..2.0_f64, 0..60)) {
            let mut alerts = alerts();
            let mut is_on = false;
            for (number, figure) in figures.iter().enumerate() {
                for change in alerts.take(one(Topic::Cpu, *figure), at(number as i64)) {
                    match change {
                        Change::Raised(alert) => {
                            prop_assert!(!is_on || alert.severity == Severity::Critical);
                            is_on = true;
                        }
                        Change::Cleared(_) => {
                            prop_assert!(is_on);
                            is_on = false;
                        }
                    }
                }
                prop_assert_eq!(alerts.raised().len(), usize::from(is_on));
            }
        }
    }
}
