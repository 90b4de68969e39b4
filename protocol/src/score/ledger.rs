//! The events behind a score, kept so that anybody can compute it again, elsewhere and to the last bit.
//!
//! A [`Ledger`] is everything that was known at one time, its base, and what was seen since, each with its time. At
//! [`ENTRIES_MAX`] the older half is folded into the base by the very steps that a replay would take, so folding changes
//! no bit of any score. Decisions stand beside the events: what was decided, and the score, bounds and threshold that it
//! rested on.
//!
//! The same bits come out wherever the same arithmetic is done: additions, multiplications and square roots are exact by
//! IEEE 754, a power of one half is the platform's. JSON keeps every bit, for floats are written in as many digits as it
//! takes and read exactly.

use std::{collections::VecDeque, fmt};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use super::{Check, Facts, Observation, Score, Settings, evidence::Evidence, score};
use crate::time::{Mono, Now};

/// Observations kept one by one: half an hour of beats, challenges and witnesses of a member, in some 20 KiB.
pub const ENTRIES_MAX: usize = 256;

/// Decisions kept: the judgements of a bad day. Past it the oldest goes.
pub const DECISIONS_MAX: usize = 32;

/// One observation and its time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Since the start of our process.
    pub at: Mono,
    /// What was seen.
    pub seen: Observation,
}

/// What a decision rested on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The score, 0 to 100.
    pub value: f64,
    /// Its lower bound, 0 to 100.
    pub low: f64,
    /// Its upper bound, 0 to 100.
    pub high: f64,
    /// Below this the upper bound may not be, 0 to 100.
    pub threshold: f64,
}

impl From<&Score> for Verdict {
    fn from(score: &Score) -> Self {
        Self { value: score.value, low: score.low, high: score.high, threshold: score.threshold }
    }
}

/// What was decided about an indexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Its upper bound was below the threshold.
    Below {
        /// Judgements of this kind in a row.
        in_a_row: u32,
        /// So many and it goes.
        needed: u32,
    },
    /// Its upper bound was no longer below the threshold.
    Above,
    /// It went for its score.
    Evicted,
    /// It answered, for the first time or again, and is a member.
    Joined,
    /// A second answer was missed, or the connection was reset.
    Suspected,
    /// It is no member any more, for another reason than its score.
    Removed,
    /// It represents us from here on.
    Referent,
    /// Others were asked whether they reach it.
    AskedOthers {
        /// How many gave an answer.
        answered: u32,
        /// How many of them reach it.
        reach: u32,
    },
    /// A missed answer was not written down: most peers do not answer, so the fault may be ours.
    ExcusedByOurselves,
    /// A missed answer was not written down: others reach it, so the fault is in the link between us.
    ExcusedByOthers,
    /// A failed check was not written down: most members failed it lately, so the fault may be ours.
    ExcusedAsCommon {
        /// Which.
        check: Check,
    },
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below { in_a_row, needed } => {
                write!(f, "judged below the threshold, {in_a_row} of {needed} in a row")
            }
            Self::Above => f.write_str("judged no longer below the threshold"),
            Self::Evicted => f.write_str("evicted for its score"),
            Self::Joined => f.write_str("answers and is a member"),
            Self::Suspected => f.write_str("suspected"),
            Self::Removed => f.write_str("no member any more"),
            Self::Referent => f.write_str("represents us in search"),
            Self::AskedOthers { answered, reach } => write!(f, "{reach} of {answered} others reach it"),
            Self::ExcusedByOurselves => f.write_str("missed answers excused: most peers do not answer us"),
            Self::ExcusedByOthers => f.write_str("missed answers excused: others reach it"),
            Self::ExcusedAsCommon { check } => {
                write!(f, "failed the check of {} as most members did: excused", check.name())
            }
        }
    }
}

/// A decision, when it was taken, and what it rested on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// Since the start of our process.
    pub at: Mono,
    /// After so many observations, those before our process not counted.
    pub after: u64,
    /// What.
    pub what: Decision,
    /// The score then; absent when there was no evidence.
    pub verdict: Option<Verdict>,
}

/// Everything behind the score of one indexer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    base: Evidence,
    /// Observations that the base holds, changes of the rules among them.
    folded: u64,
    entries: VecDeque<Entry>,
    decisions: VecDeque<Decided>,
}

impl Ledger {
    /// Nothing was seen yet beside what `facts` hold at `now`.
    #[must_use]
    pub fn new(facts: Facts, now: Mono) -> Self {
        Self { base: Evidence::new(facts, now), folded: 0, entries: VecDeque::new(), decisions: VecDeque::new() }
    }

    /// Writes one observation down; at the bound the older half becomes part of the base.
    pub fn write(&mut self, seen: Observation, at: Mono, settings: &Settings) {
        if self.entries.len() >= ENTRIES_MAX {
            self.fold(ENTRIES_MAX / 2, settings);
        }
        self.entries.push_back(Entry { at, seen });
    }

    /// Makes the oldest `count` observations part of the base. No score changes by it.
    pub fn fold(&mut self, count: usize, settings: &Settings) {
        for Entry { at, seen } in self.entries.drain(..count.min(self.entries.len())) {
            self.base.observe(&seen, at, settings);
            self.folded += 1;
        }
    }

    /// Other rules follow: what was seen by those of `before` becomes part of the base, and what was decided by them is
    /// computed no more. The change counts as one observation, which tells decisions before and after it apart.
    pub fn end_rules(&mut self, before: &Settings) {
        self.fold(usize::MAX, before);
        self.folded += 1;
    }

    /// Writes a decision down; at the bound the oldest goes. The same excuse twice in a row is one.
    pub fn decide(&mut self, what: Decision, verdict: Option<Verdict>, at: Mono) {
        let is_excuse =
            matches!(what, Decision::ExcusedByOurselves | Decision::ExcusedByOthers | Decision::ExcusedAsCommon { .. });
        if is_excuse && self.decisions.back().is_some_and(|last| last.what == what) {
            return;
        }
        if self.decisions.len() >= DECISIONS_MAX {
            self.decisions.pop_front();
        }
        self.decisions.push_back(Decided { at, after: self.count(), what, verdict });
    }

    /// Observations, those in the base included.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.folded + self.entries.len() as u64
    }

    /// What was seen since the base, oldest first.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// What was decided, oldest first.
    pub fn decisions(&self) -> impl ExactSizeIterator<Item = &Decided> {
        self.decisions.iter()
    }

    /// The facts that the base alone gives, as they stood when it was made.
    #[must_use]
    pub fn base(&self) -> &Facts {
        &self.base.facts
    }

    /// Where its entries begin: what was before is in the base.
    pub(super) fn began(&self) -> Mono {
        self.base.faded_to()
    }

    /// The score that a decision rested on, computed again; nothing when there was no evidence, or when events before
    /// and after it are one in the base by now.
    #[must_use]
    pub fn verdict(&self, decided: &Decided, settings: &Settings) -> Option<Verdict> {
        let since = usize::try_from(decided.after.checked_sub(self.folded)?).ok()?;
        let facts = self.evidence(since, settings).facts(decided.at, settings);
        score(&facts, settings).as_ref().map(Verdict::from)
    }

    /// What the base and the oldest `count` observations after it leave behind.
    pub(super) fn evidence(&self, count: usize, settings: &Settings) -> Evidence {
        let mut evidence = self.base.clone();
        for Entry { at, seen } in self.entries.iter().take(count) {
            evidence.observe(seen, *at, settings);
        }
        evidence
    }
}

/// The facts that a ledger gives at `now`: those of its owner, to the last bit.
#[must_use]
pub fn replay(ledger: &Ledger, now: Mono, settings: &Settings) -> Facts {
    ledger.evidence(usize::MAX, settings).facts(now, settings)
}

/// A score with everything that it rests on: whoever has this needs nothing else to compute it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// The indexer.
    #[serde(with = "crate::wire::text")]
    pub peer_id: PeerId,
    /// When it was asked for, for people.
    pub at: Timestamp,
    /// The same moment, since the start of our process.
    pub now: Mono,
    /// The rules.
    pub settings: Settings,
    /// The score; absent without evidence.
    pub score: Option<Score>,
    /// The events.
    pub ledger: Ledger,
}

impl Explained {
    /// Explains the score of a ledger at `now`.
    #[must_use]
    pub fn new(peer_id: PeerId, ledger: Ledger, score: Option<Score>, now: Now, settings: &Settings) -> Self {
        Self { peer_id, at: now.wall, now: now.mono, settings: settings.clone(), score, ledger }
    }

    /// The score that the events give, computed again.
    #[must_use]
    pub fn recomputed(&self) -> Option<Score> {
        score(&replay(&self.ledger, self.now, &self.settings), &self.settings)
    }

    /// The events give the score that is shown, and each decision whose events are still apart the one that it names.
    #[must_use]
    pub fn holds(&self) -> bool {
        let is_proved = |decided: &Decided| {
            let again = self.ledger.verdict(decided, &self.settings);
            again.is_none() || again == decided.verdict
        };
        self.recomputed() == self.score && self.ledger.decisions().all(is_proved)
    }

    /// When, in wall time, something happened at `at`.
    #[must_use]
    pub fn wall(&self, at: Mono) -> Timestamp {
        let ago = jiff::SignedDuration::try_from(self.now.since(at)).unwrap_or_default();
        self.at.checked_sub(ago).unwrap_or(self.at)
    }
}
