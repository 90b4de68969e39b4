//! Indexers that lie. A lie is a change to an answer that was true; a new kind is a variant and its line in [`Lie::tell`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wire::{HeartbeatResponse, WitnessReport};

/// One way of lying.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Lie {
    /// It says that it is this full, 0 to 1, and leaves its count of sessions as it is.
    Fill {
        /// What it says.
        rate: f64,
    },
    /// It says that it has so many times its sessions, and a fill rate that fits.
    Peers {
        /// By what it multiplies.
        times: f64,
    },
    /// It says of every challenged peer that it is here, now.
    AlwaysFound,
    /// It says of every challenged peer that it is not here.
    NeverFound,
    /// It takes no record and says so, so that whom it serves is not found.
    NoRecord,
    /// It answers late, and says that it took no time.
    SlowWalk {
        /// How late.
        #[serde(with = "crate::time::text")]
        by: Duration,
    },
    /// It answers late, and says that it worked all the while, so that its round trips look short.
    FalseServed {
        /// How late.
        #[serde(with = "crate::time::text")]
        by: Duration,
    },
    /// It gives no answer at all.
    Silent,
    /// It gives another start of its process with every answer.
    Reborn,
    /// It says of every record that it is asked for that the DHT does not have it.
    NoDht,
    /// As a witness it says of every other indexer that its process began just now.
    FalseWitness,
    /// As a witness it says so of the honest, and of other liars what is true.
    League,
}

/// A lie, all the time or by turns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lying {
    /// What it says.
    #[serde(flatten)]
    pub lie: Lie,
    /// It lies for so long, then is honest for `honest_for`; always where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lies_for: Option<super::scenario::Span>,
    /// See `lies_for`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub honest_for: Option<super::scenario::Span>,
}

impl Lying {
    /// Whether it lies at this time of the run.
    #[must_use]
    pub fn is_on(&self, at: Duration) -> bool {
        let (Some(lies), Some(honest)) = (self.lies_for, self.honest_for) else { return true };
        let period = (lies.0 + honest.0).as_nanos().max(1);
        at.as_nanos() % period < lies.0.as_nanos()
    }
}

impl Lie {
    /// Changes a true answer; returns how late it goes, or nothing when it does not go at all.
    pub(super) fn tell(&self, answer: &mut HeartbeatResponse, now: jiff::Timestamp) -> Option<Duration> {
        match *self {
            Self::Fill { rate } => answer.fill_rate = rate,
            Self::Peers { times } => {
                let told = (f64::from(answer.peer_count) * times).min(f64::from(answer.max_nodes)).max(0.0);
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to `max_nodes`")]
                let told = told as u32;
                answer.peer_count = told;
                answer.fill_rate = f64::from(told) / f64::from(answer.max_nodes.max(1));
            }
            Self::AlwaysFound | Self::NeverFound => {
                for challenge in &mut answer.challenges {
                    challenge.found = *self == Self::AlwaysFound;
                    challenge.last_seen = challenge.found.then_some(now);
                }
            }
            Self::NoRecord => answer.record_seq = None,
            Self::SlowWalk { by } => return Some(by),
            Self::FalseServed { by } => {
                answer.served_us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
                return Some(by);
            }
            Self::Silent => return None,
            Self::Reborn => answer.born_at = now,
            Self::NoDht => {
                answer.dht_found = answer.dht_found.map(|_| false);
                answer.dht_payload = None;
            }
            Self::FalseWitness | Self::League => {}
        }
        Some(Duration::ZERO)
    }

    /// Changes a true word about another indexer.
    pub(super) fn testify(&self, report: &mut WitnessReport, is_honest: bool, now: jiff::Timestamp) {
        if *self == Self::FalseWitness || (*self == Self::League && is_honest) {
            *report = WitnessReport { seen: true, born_at: Some(now), ..*report };
        }
    }
}
