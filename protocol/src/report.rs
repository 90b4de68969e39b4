//! What a member did in a day: what its figures were, what was wrong and for how long, and how often what happened.
//!
//! A report is made of the samples that alerts are made of, and of what the counters counted since the day began. Where
//! members keep copies of each other's content, or vote, there are counters of it, and they are in it; so far there are
//! none.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    alerts::{Alert, Change, Sample, Severity, Topic},
    time::{Mono, Now},
};

/// Counters at one time, each by its name. There are as many as the program names, and never more.
pub type Counts = BTreeMap<&'static str, u64>;

/// What a figure was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// At its least.
    pub least: f64,
    /// The mean of its samples.
    pub mean: f64,
    /// At its most.
    pub most: f64,
}

/// What was wrong, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// How often it began or became worse; 0 for what was wrong before the day began.
    pub raised: u32,
    /// How bad it was at its worst.
    pub worst: Severity,
    /// For how long in all, in milliseconds, to the nearest sample.
    pub lasted_ms: u64,
}

/// A day, or the part of it that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end, or now.
    pub to: Timestamp,
    /// Looks that it is made of.
    pub samples: u32,
    /// Each figure in the unit of its topic; what could not be measured is absent.
    pub figures: BTreeMap<Topic, Spread>,
    /// What was wrong.
    pub alerts: BTreeMap<Topic, Trouble>,
    /// How often what happened.
    pub counts: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Tally {
    least: f64,
    most: f64,
    sum: f64,
    samples: u32,
}

impl Tally {
    fn spread(&self) -> Spread {
        Spread { least: self.least, mean: self.sum / f64::from(self.samples.max(1)), most: self.most }
    }
}

/// A day as it is written down at a look, for whoever goes on with it in another life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    from: Timestamp,
    /// The look: what came after it is not in here.
    to: Timestamp,
    samples: u32,
    tallies: BTreeMap<Topic, Tally>,
    troubles: BTreeMap<Topic, Trouble>,
    /// What was counted in the day.
    counts: BTreeMap<String, u64>,
    /// The counters as they stood, and the start of the process whose they are: those of another begin at nothing.
    counters: BTreeMap<String, u64>,
    process: Timestamp,
}

impl Kept {
    /// What there is to report of it, where nobody goes on with it.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            from: self.from,
            to: self.to,
            samples: self.samples,
            figures: self.tallies.iter().map(|(topic, tally)| (*topic, tally.spread())).collect(),
            alerts: self.troubles.clone(),
            counts: self.counts.clone(),
        }
    }

    /// How much of a day of this length is over; nothing where all of it is, or where it is still to come since the clock
    /// was set back.
    #[must_use]
    pub fn elapsed(&self, every: Duration, now: Timestamp) -> Option<Duration> {
        let elapsed = Duration::try_from(now.duration_since(self.from)).ok()?;
        (elapsed < every).then_some(elapsed)
    }
}

/// A day that goes on. Bounded by the topics and the counters that there are.
#[derive(Clone, Debug)]
pub struct Day {
    from: Timestamp,
    /// The counters as they stood when this life of the day began.
    counters: BTreeMap<String, u64>,
    /// What was counted in its lives before.
    counted: BTreeMap<String, u64>,
    samples: u32,
    tallies: BTreeMap<Topic, Tally>,
    troubles: BTreeMap<Topic, Trouble>,
    /// What is wrong since the last sample, and when that was.
    raised: BTreeMap<Topic, Severity>,
    looked: Mono,
}

impl Day {
    /// A day begins now, with the counters as they stand and nothing known to be wrong.
    #[must_use]
    pub fn new(now: Now, counts: &Counts) -> Self {
        Self {
            from: now.wall,
            counters: named(counts),
            counted: BTreeMap::new(),
            samples: 0,
            tallies: BTreeMap::new(),
            troubles: BTreeMap::new(),
            raised: BTreeMap::new(),
            looked: now.mono,
        }
    }

    /// The day after this one: what is wrong goes on to be.
    #[must_use]
    pub fn next(&self, now: Now, counts: &Counts) -> Self {
        Self { raised: self.raised.clone(), ..Self::new(now, counts) }
    }

    /// As it is to be written down by a process that was started then.
    #[must_use]
    pub fn keep(&self, counts: &Counts, now: Now, process: Timestamp) -> Kept {
        let Report { from, to, samples, alerts, counts: counted, .. } = self.report(counts, now);
        let (tallies, counters) = (self.tallies.clone(), named(counts));
        Kept { from, to, samples, tallies, troubles: alerts, counts: counted, counters, process }
    }

    /// Puts what was kept of it before what this life has seen. For how long something was wrong in between is not known,
    /// and not counted.
    pub fn resume(&mut self, before: Kept, process: Timestamp) {
        self.from = before.from;
        self.samples = self.samples.saturating_add(before.samples);
        for (topic, earlier) in before.tallies {
            let tally = self.tallies.entry(topic).or_insert(Tally { sum: 0.0, samples: 0, ..earlier });
            tally.least = tally.least.min(earlier.least);
            tally.most = tally.most.max(earlier.most);
            tally.sum += earlier.sum;
            tally.samples = tally.samples.saturating_add(earlier.samples);
        }
        for (topic, earlier) in before.troubles {
            let trouble = self.trouble(topic, earlier.worst);
            trouble.raised = trouble.raised.saturating_add(earlier.raised);
            trouble.lasted_ms = trouble.lasted_ms.saturating_add(earlier.lasted_ms);
        }
        self.counted = before.counts;
        // All that another process counted is in there; all that this one did since its start is not.
        self.counters = if before.process == process { before.counters } else { BTreeMap::new() };
    }

    /// A look at everything, and what is wrong after it.
    pub fn sampled(&mut self, sample: &Sample, raised: &[Alert], now: Mono) {
        self.last_until(now);
        self.raised = raised.iter().map(|alert| (alert.topic, alert.severity)).collect();
        self.samples = self.samples.saturating_add(1);
        for (topic, figure) in &sample.figures {
            let tally = self.tallies.entry(*topic).or_insert(Tally {
                least: f64::INFINITY,
                most: f64::NEG_INFINITY,
                sum: 0.0,
                samples: 0,
            });
            tally.least = tally.least.min(*figure);
            tally.most = tally.most.max(*figure);
            tally.sum += figure;
            tally.samples = tally.samples.saturating_add(1);
        }
    }

    /// An alert was raised, became worse, or is over.
    pub fn told(&mut self, change: &Change) {
        if let Change::Raised(alert) = change {
            let trouble = self.trouble(alert.topic, alert.severity);
            trouble.raised = trouble.raised.saturating_add(1);
        }
    }

    /// What there is to report of it, until now.
    #[must_use]
    pub fn report(&self, counts: &Counts, now: Now) -> Report {
        let mut day = self.clone();
        day.last_until(now.mono);
        let of = |counts: &BTreeMap<String, u64>, name: &str| counts.get(name).copied().unwrap_or_default();
        // Only what there are counters of: what a newer or older program kept beside them is left behind.
        let in_day = |name: &str, count: u64| {
            let since = count.saturating_sub(of(&self.counters, name));
            of(&self.counted, name).saturating_add(since)
        };
        Report {
            from: self.from,
            to: now.wall,
            samples: day.samples,
            figures: day.tallies.iter().map(|(topic, tally)| (*topic, tally.spread())).collect(),
            alerts: day.troubles,
            counts: counts.iter().map(|(name, count)| ((*name).to_owned(), in_day(name, *count))).collect(),
        }
    }

    /// What was wrong at the last look was so until now.
    fn last_until(&mut self, now: Mono) {
        let lasted = now.since(std::mem::replace(&mut self.looked, now));
        for (topic, severity) in self.raised.clone() {
            let trouble = self.trouble(topic, severity);
            trouble.lasted_ms = trouble.lasted_ms.saturating_add(millis(lasted));
        }
    }

    fn trouble(&mut self, topic: Topic, severity: Severity) -> &mut Trouble {
        let trouble = self.troubles.entry(topic).or_insert(Trouble { raised: 0, worst: severity, lasted_ms: 0 });
        trouble.worst = trouble.worst.max(severity);
        trouble
    }
}

fn named(counts: &Counts) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::alerts::{Alerts, Settings};

    fn at(secs: u64) -> Now {
        let wall = Timestamp::from_second(1_700_000_000 + i64::try_from(secs).unwrap()).unwrap();
        Now { mono: Mono::from_secs(secs), wall }
    }

    fn counts(searches: u64) -> Counts {
        Counts::from([("searches", searches)])
    }

    /// A day of these shares of the disk, one each 30 s.
    fn day(figures: &[f64]) -> (Day, Alerts) {
        let (mut day, mut alerts) = (Day::new(at(0), &counts(100)), Alerts::new(Settings::default()));
        for (number, figure) in (1..).zip(figures) {
            look(&mut day, &mut alerts, *figure, at(30 * number));
        }
        (day, alerts)
    }

    fn look(day: &mut Day, alerts: &mut Alerts, figure: f64, now: Now) {
        let sample = Sample::default().with(Topic::Disk, Some(figure));
        for change in alerts.take(sample.clone(), now.wall) {
            day.told(&change);
        }
        day.sampled(&sample, &alerts.raised(), now.mono);
    }

    #[test]
    fn a_report_tells_what_the_figures_were_and_what_was_counted_in_its_day() {
        let (day, _) = day(&[0.25, 0.5, 0.75]);
        let report = day.report(&counts(107), at(100));
        assert_eq!((report.from, report.to, report.samples), (at(0).wall, at(100).wall, 3));
        assert_eq!(report.figures, [(Topic::Disk, Spread { least: 0.25, mean: 0.5, most: 0.75 })].into());
        assert_eq!(report.counts, [("searches".to_owned(), 7)].into());
        assert!(report.alerts.is_empty());
    }

    #[test]
    fn what_was_wrong_is_told_with_how_often_how_bad_and_how_long() {
        // Raised by the second sample beyond its bound, critical is never reached, over by the second within.
        let (day, _) = day(&[0.95, 0.95, 0.95, 0.5, 0.5, 0.5]);
        let trouble = Trouble { raised: 1, worst: Severity::Warning, lasted_ms: 90_000 };
        assert_eq!(day.report(&counts(0), at(200)).alerts, [(Topic::Disk, trouble)].into());
    }

    #[test]
    fn what_is_wrong_over_midnight_lasts_on_both_days_and_begins_on_one() {
        let (mut first, mut alerts) = day(&[0.95, 0.95]);
        let next = first.next(at(90), &counts(5));
        let lasted = |day: &Day, now| {
            let trouble = day.report(&counts(5), now).alerts[&Topic::Disk];
            (trouble.raised, trouble.lasted_ms)
        };
        assert_eq!(lasted(&first, at(90)), (1, 30_000));
        assert_eq!(lasted(&next, at(100)), (0, 10_000));
        look(&mut first, &mut alerts, 0.95, at(90));
        assert_eq!(lasted(&first, at(90)), (1, 30_000), "nothing is counted twice");
    }

    #[test]
    fn an_empty_day_and_a_counter_that_began_anew_are_reported_as_nothing() {
        let report = Day::new(at(0), &counts(100)).report(&counts(3), at(0));
        assert_eq!((report.samples, report.figures.len(), report.counts["searches"]), (0, 0, 0));
    }

    /// The day as it comes back from where it was written.
    fn written(kept: &Kept) -> Kept {
        serde_json::from_str(&serde_json::to_string(kept).unwrap()).unwrap()
    }

    /// When the process of these tests was started, and the one after it.
    const PROCESS: Timestamp = Timestamp::UNIX_EPOCH;
    const NEXT: Timestamp = Timestamp::MAX;

    #[test]
    fn a_day_that_was_kept_goes_on_in_the_next_life_of_its_actor() {
        let (first, mut alerts) = day(&[0.25, 0.95, 0.95]);
        let kept = written(&first.keep(&counts(107), at(90), PROCESS));
        assert_eq!(kept.report(), first.report(&counts(107), at(90)));
        // 3 were counted while nobody had the day, 2 since.
        let mut second = Day::new(at(95), &counts(110));
        look(&mut second, &mut alerts, 0.5, at(120));
        second.resume(kept, PROCESS);
        let report = second.report(&counts(112), at(150));
        assert_eq!((report.from, report.to, report.samples), (at(0).wall, at(150).wall, 4));
        assert_eq!(report.counts["searches"], 12);
        let spread = report.figures[&Topic::Disk];
        assert_eq!((spread.least, spread.most), (0.25, 0.95));
        assert!((spread.mean - 0.6625).abs() < 1e-9, "{spread:?}");
        assert_eq!(report.alerts[&Topic::Disk].raised, 1);
    }

    #[test]
    fn what_the_next_process_counts_from_nothing_is_added() {
        let (first, _) = day(&[0.5]);
        let kept = written(&first.keep(&counts(107), at(30), PROCESS));
        let mut second = Day::new(at(60), &counts(2));
        second.resume(kept.clone(), NEXT);
        assert_eq!(second.report(&counts(5), at(90)).counts["searches"], 12);
        // A counter of another version of the program is not one of ours.
        let mut other = Day::new(at(60), &Counts::new());
        other.resume(kept, NEXT);
        assert!(other.report(&Counts::new(), at(90)).counts.is_empty());
    }

    #[test]
    fn a_kept_day_goes_on_until_its_end_and_not_before_its_beginning() {
        let (day, _) = day(&[0.5]);
        let kept = day.keep(&counts(100), at(30), PROCESS);
        let every = Duration::from_secs(86_400);
        assert_eq!(kept.elapsed(every, at(0).wall), Some(Duration::ZERO));
        assert_eq!(kept.elapsed(every, at(86_399).wall), Some(Duration::from_secs(86_399)));
        assert_eq!(kept.elapsed(every, at(86_400).wall), None);
        let before = at(0).wall - Duration::from_millis(1);
        assert_eq!(kept.elapsed(every, before), None);
    }

    proptest! {
        #[test]
        fn a_day_in_two_lives_is_the_day_in_one(
            figures in proptest::collection::vec(0.0..1.0_f64, 2..50),
            cut in 0_usize..50,
        ) {
            let (whole, _) = day(&figures);
            let end = at(30 * u64::try_from(figures.len()).unwrap());
            let mut life = Day::new(at(0), &counts(100));
            let mut alerts = Alerts::new(Settings::default());
            for (number, figure) in (1..).zip(&figures) {
                let now = at(30 * number);
                look(&mut life, &mut alerts, *figure, now);
                if usize::try_from(number).unwrap() == cut.min(figures.len() - 1) {
                    let kept = written(&life.keep(&counts(100 + number), now, PROCESS));
                    life = Day::new(now, &counts(100 + number));
                    life.resume(kept, PROCESS);
                }
            }
            let (one, two) = (whole.report(&counts(200), end), life.report(&counts(200), end));
            prop_assert_eq!((one.from, one.to, one.samples, &one.counts), (two.from, two.to, two.samples, &two.counts));
            for (topic, spread) in &one.figures {
                let other = two.figures[topic];
                prop_assert_eq!((spread.least, spread.most), (other.least, other.most));
                prop_assert!((spread.mean - other.mean).abs() < 1e-9);
            }
            for (topic, trouble) in &one.alerts {
                let other = two.alerts[topic];
                prop_assert_eq!((trouble.raised, trouble.worst), (other.raised, other.worst));
                // Until the next look nobody knows whether it went on.
                prop_assert!(other.lasted_ms <= trouble.lasted_ms && trouble.lasted_ms - other.lasted_ms <= 30_000);
            }
        }

        #[test]
        fn nothing_lasts_longer_than_its_day_and_the_mean_is_between(
            figures in proptest::collection::vec(0.0..1.0_f64, 1..50),
        ) {
            let (day, _) = day(&figures);
            let end = at(30 * u64::try_from(figures.len()).unwrap());
            let report = day.report(&counts(100), end);
            let spread = report.figures[&Topic::Disk];
            prop_assert!(spread.least <= spread.mean + 1e-9 && spread.mean <= spread.most + 1e-9);
            for trouble in report.alerts.values() {
                prop_assert!(trouble.lasted_ms <= 30_000 * figures.len() as u64);
            }
            let text = serde_json::to_string(&report).unwrap();
            prop_assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        }
    }
}
