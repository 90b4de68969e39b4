//! The one owner of all evidence, and the judge.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use super::{
    Facts, Observation, Score, Settings,
    evidence::{Evidence, faded, is_sane},
    score,
};
use crate::time::{Mono, Now};

/// Peers whose last sign of life tells whether we ourselves are cut off; more than any pool has.
const OUTCOMES_MAX: usize = 64;

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
    pub(super) entries: BTreeMap<PeerId, Evidence>,
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
