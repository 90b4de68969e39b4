//! What was seen of one indexer, and the numbers that it leaves behind.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use super::{Check, Settings, Suspicions};
use crate::time::Mono;

/// Weight of a new round trip in the moving average, and of its deviation: those of RFC 6298.
const RTT_GAIN: f64 = 1.0 / 8.0;
const RTT_DEVIATION_GAIN: f64 = 1.0 / 4.0;

/// Samples that the moving average spans: (2 - gain) / gain.
const RTT_SAMPLES_MAX: u32 = 15;

/// A longer acquaintance in the database is nonsense: 100 years.
const TIME_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// An answer that takes this share of the worst round trip is slow.
const SLOW: f64 = 0.75;

/// Below this many faded observations nothing is known any more.
const OBSERVATIONS_MIN: f64 = 0.5;

/// One thing seen of an indexer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
        /// Those of the wrong ones that say that it does not know us; the others tell a time that cannot be, which a clock that
        /// was set may be the reason of.
        #[serde(default)]
        unfound: u32,
    },
    /// A DHT challenge was answered.
    Dht {
        /// With our own valid record.
        good: bool,
    },
    /// A witness reported.
    Witness {
        /// Who; the indexer itself when it offered none though it could have.
        #[serde(with = "crate::wire::text")]
        by: PeerId,
        /// The same as the indexer says of itself.
        agrees: bool,
        /// How much its word counts, 0 to 1.
        weight: f64,
    },
    /// It was given our record.
    Recorded {
        /// Its answer says that it holds it.
        good: bool,
    },
    /// At least three witnesses told of it at the same time.
    Witnessed {
        /// Most, by the weight of their words, say the same as it.
        good: bool,
    },
    /// As a witness of another it said what most said, or not.
    Testified {
        /// Of whom.
        #[serde(with = "crate::wire::text")]
        about: PeerId,
        /// The same as the majority of at least three, or, of two who differ, the same as the other itself.
        good: bool,
    },
    /// Its answer took three quarters of the worst round trip or more, and most other members were quick.
    Slow,
    /// A peer that its record names was asked whether it is connected to it. A challenge like its own: is what it says of
    /// its sessions true?
    Spot {
        /// Who was asked.
        #[serde(with = "crate::wire::text")]
        by: PeerId,
        /// It is connected; otherwise it has not seen it for longer than the record can be old.
        good: bool,
    },
    /// In how many subnets the peers lie that it named lately: shown, and no part of the score.
    Spread {
        /// Peers with an IP address.
        peers: u32,
        /// Different /24 (IPv6 /48) among them.
        subnets: u32,
    },
    /// A bandwidth probe came back: shown, and no part of the score.
    Bandwidth {
        /// Of the way back, bytes per second.
        bytes_per_sec: f64,
    },
    /// It said that it will restart.
    RestartAnnounced,
    /// Audits of its presence tokens proved that it claims far more nodes than it has.
    Exposed,
    /// After that, audits found that its claims fit again.
    Cleared,
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { rtt, fill_rate, peer_count, max_nodes, .. } => write!(
                f,
                "answered in {:.1} ms: {peer_count} of {max_nodes} sessions, fill rate {fill_rate:.3}",
                rtt.as_secs_f64() * 1e3
            ),
            Self::Missed => f.write_str("did not answer"),
            Self::Challenged { good, bad, .. } => write!(f, "challenges: {good} answered rightly, {bad} not"),
            Self::Dht { good: true } => f.write_str("found our record in the DHT"),
            Self::Dht { good: false } => f.write_str("did not find our record in the DHT, where it was"),
            Self::Witness { by, agrees, weight } => {
                let word = if *agrees { "agrees" } else { "disagrees" };
                write!(f, "witness {by} {word}, weight {weight:.2}")
            }
            Self::Recorded { good: true } => f.write_str("took our record"),
            Self::Recorded { good: false } => f.write_str("does not hold the record that we gave it"),
            Self::Witnessed { good: true } => f.write_str("most witnesses say the same as it"),
            Self::Witnessed { good: false } => f.write_str("most witnesses say otherwise than it"),
            Self::Testified { about, good: true } => write!(f, "said of {about} what most said"),
            Self::Testified { about, good: false } => write!(f, "said of {about} what most did not say"),
            Self::Slow => f.write_str("was slow while others were quick"),
            Self::Spot { by, good: true } => write!(f, "spot check: {by}, which its record names, is connected to it"),
            Self::Spot { by, good: false } => write!(f, "spot check: {by}, which its record names, has not seen it"),
            Self::Spread { peers, subnets } => write!(f, "the {peers} peers that it named lie in {subnets} subnets"),
            Self::Bandwidth { bytes_per_sec } => write!(f, "sent 64 KiB back at {:.0} kB/s", bytes_per_sec / 1e3),
            Self::RestartAnnounced => f.write_str("said that it restarts"),
            Self::Exposed => f.write_str("claims far more nodes than it has, as audits of its tokens proved"),
            Self::Cleared => f.write_str("has tokens for the nodes that it claims again"),
        }
    }
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
    pub(super) fn mean(self) -> f64 {
        (self.good + 1.0) / (self.good + self.bad + 2.0)
    }

    pub(super) fn variance(self) -> f64 {
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

    pub(super) fn is_known(self) -> bool {
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
    /// What speaks for its being a liar.
    #[serde(default)]
    pub suspicions: Suspicions,
}

/// The evidence about one indexer, with the times that the next observation is measured from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Evidence {
    pub(super) facts: Facts,
    /// Until here the counts have faded.
    faded_to: Mono,
    /// First contact, in this life of the process, less `facts.age` of earlier lives.
    since: Option<Mono>,
    /// Last answer.
    online_to: Option<Mono>,
    /// First and last miss since then.
    missed: Option<(Mono, Mono)>,
    announced: Option<Mono>,
}

impl Evidence {
    pub(super) fn new(facts: Facts, now: Mono) -> Self {
        Self { facts, faded_to: now, since: None, online_to: None, missed: None, announced: None }
    }

    /// The time at which its counts are as they stand.
    pub(super) fn faded_to(&self) -> Mono {
        self.faded_to
    }

    /// The facts as they stand at `now`.
    pub(super) fn facts(&self, now: Mono, settings: &Settings) -> Facts {
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

    pub(super) fn observe(&mut self, observation: &Observation, now: Mono, settings: &Settings) {
        let elapsed = now.since(self.faded_to);
        self.facts = faded(std::mem::take(&mut self.facts), elapsed, settings);
        self.faded_to = self.faded_to.max(now);
        match *observation {
            Observation::Answered { rtt, fill_rate, peer_count, max_nodes, born_at } => {
                let was_watched = self.answered(now, settings);
                self.born(born_at, was_watched, now, settings);
                let secs = rtt.as_secs_f64();
                self.facts.round_trips =
                    Some(self.facts.round_trips.map_or_else(|| RoundTrips::first(secs), |trips| trips.next(secs)));
                self.facts.fill_rate = Some(fill_rate);
                let fits = is_consistent(fill_rate, peer_count, max_nodes, settings);
                self.facts.fill_consistency.add(one_if(fits), one_if(!fits));
                self.suspect(Check::Fill, fits);
                if !is_slow(rtt, settings) {
                    self.suspect(Check::Pace, true);
                }
            }
            Observation::Missed => {
                // Without contact there is nothing to have been away from.
                if self.since.is_some() || self.facts.age > Duration::ZERO {
                    let first = self.missed.map_or(now, |(first, _)| first);
                    self.missed = Some((first, now));
                }
            }
            Observation::Challenged { good, bad, unfound } => {
                self.facts.challenges.add(f64::from(good), f64::from(bad));
                self.facts.suspicions.add(Check::OwnId, f64::from(good), f64::from(unfound));
            }
            Observation::Dht { good } => {
                self.facts.dht.add(one_if(good), one_if(!good));
                self.suspect(Check::Dht, good);
            }
            Observation::Witness { agrees, weight, .. } => {
                self.facts.witnesses.add(weight * one_if(agrees), weight * one_if(!agrees));
            }
            Observation::Witnessed { good } => self.suspect(Check::Witnesses, good),
            Observation::Recorded { good } => self.suspect(Check::Record, good),
            Observation::Testified { about, good } => self.facts.suspicions.testify(about, good),
            Observation::Slow => self.suspect(Check::Pace, false),
            Observation::Spot { by, good } => {
                self.facts.challenges.add(one_if(good), one_if(!good));
                self.facts.suspicions.spot(by, good);
            }
            Observation::Spread { .. } | Observation::Bandwidth { .. } => {}
            Observation::RestartAnnounced => self.announced = Some(now),
            Observation::Exposed => self.facts.suspicions.prove(Check::Presence),
            Observation::Cleared => self.facts.suspicions.clear(Check::Presence),
        }
    }

    fn suspect(&mut self, check: Check, is_passed: bool) {
        self.facts.suspicions.add(check, one_if(is_passed), one_if(!is_passed));
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

pub(super) fn faded(mut facts: Facts, elapsed: Duration, settings: &Settings) -> Facts {
    let half_lives = elapsed.as_secs_f64() / settings.half_life.as_secs_f64().max(f64::MIN_POSITIVE);
    let factor = 0.5_f64.powf(half_lives);
    facts.challenges = facts.challenges.faded(factor);
    facts.fill_consistency = facts.fill_consistency.faded(factor);
    facts.witnesses = facts.witnesses.faded(factor);
    facts.dht = facts.dht.faded(factor);
    facts.restarts *= factor;
    facts.suspicions.fade(factor);
    facts
}

/// Whether a round trip is one that no working link has.
pub(super) fn is_slow(rtt: Duration, settings: &Settings) -> bool {
    rtt >= settings.rtt_worst.mul_f64(SLOW)
}

fn one_if(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn is_consistent(fill_rate: f64, peer_count: u32, max_nodes: u32, settings: &Settings) -> bool {
    let counted = if max_nodes == 0 { 1.0 } else { f64::from(peer_count) / f64::from(max_nodes) };
    (counted - fill_rate).abs() < settings.fill_tolerance
}

pub(super) fn is_sane(facts: &Facts) -> bool {
    let is_count = |count: f64| count.is_finite() && (0.0..1e9).contains(&count);
    let is_time = |time: Duration| time < TIME_MAX;
    let counts = [facts.challenges, facts.fill_consistency, facts.witnesses, facts.dht];
    counts.iter().all(|beta| is_count(beta.good) && is_count(beta.bad))
        && is_count(facts.restarts)
        && facts.suspicions.is_sane()
        && facts.fill_rate.is_none_or(|rate| (0.0..=1.0).contains(&rate))
        && facts.round_trips.is_none_or(|trips| is_count(trips.mean_secs) && is_count(trips.deviation_secs))
        && is_time(facts.age)
        && is_time(facts.observed)
        && facts.online <= facts.observed
}
