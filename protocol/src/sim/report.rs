//! What a run leaves: its log's hash, what was broken, what followed when, and how members did over time.

use std::time::Duration;

use super::check::{Met, Violation};

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Heartbeats.
    Beat,
    /// Answers to heartbeats.
    Answer,
    /// Probes and their answers.
    Probe,
    /// Hellos and refusals of them.
    Hello,
    /// Openings of streams.
    Stream,
    /// Questions for candidates and their answers.
    Candidates,
    /// Words of leaving.
    Leave,
    /// Questions to witnesses and their answers.
    Witness,
    /// Questions for tokens and their answers.
    Audit,
    /// Puts and looks of the DHT, to each holder and back; routing is not played.
    Dht,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Beat,
        Self::Answer,
        Self::Probe,
        Self::Hello,
        Self::Stream,
        Self::Candidates,
        Self::Leave,
        Self::Witness,
        Self::Audit,
        Self::Dht,
    ];

    /// Its word in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Beat => "heartbeats",
            Self::Answer => "answers",
            Self::Probe => "probes",
            Self::Hello => "hellos",
            Self::Stream => "streams opened",
            Self::Candidates => "candidates",
            Self::Leave => "leaves",
            Self::Witness => "witnesses",
            Self::Audit => "audits",
            Self::Dht => "DHT",
        }
    }
}

/// Messages and their bytes, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    counts: [(u64, u64); Kind::ALL.len()],
}

impl Traffic {
    pub(super) fn count(&mut self, kind: Kind, bytes: usize) {
        let (messages, sum) = &mut self.counts[kind as usize];
        *messages += 1;
        *sum += bytes as u64;
    }

    pub(super) fn count_many(&mut self, kind: Kind, messages: usize, bytes: usize) {
        let (count, sum) = &mut self.counts[kind as usize];
        *count += messages as u64;
        *sum += bytes as u64;
    }

    /// Messages and bytes of one kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> (u64, u64) {
        self.counts[kind as usize]
    }

    /// Messages and bytes in all.
    #[must_use]
    pub fn all(&self) -> (u64, u64) {
        self.counts.iter().fold((0, 0), |(messages, bytes), (more, and)| (messages + more, bytes + and))
    }

    /// What was counted after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.counts;
        for (count, before) in counts.iter_mut().zip(&earlier.counts) {
            *count = (count.0 - before.0, count.1 - before.1);
        }
        Self { counts }
    }
}

/// How members did at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Duration,
    /// Sessions of each indexer, in the order of [`Outcome::indexers`]; nothing where it does not run.
    pub sessions: Vec<Option<u32>>,
    /// Answering members in the pools of running nodes: the least, the mean and the most.
    pub pooled: (f64, f64, f64),
    /// Score of each indexer as running honest nodes see it, the mean; nothing where nobody knows it.
    pub scores: Vec<Option<f64>>,
    /// Messages and bytes so far.
    pub traffic: Traffic,
}

/// What a run left.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// SHA-256 of the log.
    pub hash: String,
    /// Lines of the log.
    pub lines: u64,
    /// The log, where it was kept.
    pub log: Option<String>,
    /// Events played.
    pub events: u64,
    /// Members at the end.
    pub members: usize,
    /// What was broken.
    pub violations: Vec<Violation>,
    /// Expectations, in the scenario's order.
    pub met: Vec<Met>,
    /// The indexers' names.
    pub indexers: Vec<String>,
    /// At most [`super::SAMPLES_MAX`] samples.
    pub samples: Vec<Sample>,
    /// Messages and bytes.
    pub traffic: Traffic,
}

impl Outcome {
    /// Nothing was broken, and everything expected followed.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.violations.is_empty() && self.met.iter().all(|met| met.failed.is_none())
    }
}
