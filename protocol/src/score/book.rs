//! The one owner of all evidence, and the judge.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use super::{
    Check, Decision, Entry, Explained, Facts, Ledger, Observation, Score, Settings, Verdict,
    evidence::{Evidence, faded, is_sane, is_slow},
    score,
};
use crate::{
    time::{Mono, Now},
    witness::{Standings, Testimony},
};

/// Peers whose last sign of life tells whether we ourselves are cut off; more than any pool has.
const OUTCOMES_MAX: usize = 256;

/// Share of the peers asked lately that may be silent before it is us whom we suspect.
pub const SILENT_SHARE_MAX: f64 = 0.5;

/// Of fewer peers nobody can say whose link it is that fails.
const COMPARED_MIN: usize = 2;

/// Members that fail the same check within this time fail it together: as long as a record in the DHT is asked for apart.
const FAILED_TOGETHER: Duration = Duration::from_secs(600);

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

/// Whether it is we who are cut off: when of the members asked lately more than half did not answer their last beat.
///
/// Each counts once, so that one dead peer that is asked more often does not outvote those that answer. Candidates do not
/// count: one that does not answer a probe may be gone for long, and tells nothing about our link (decision 0021).
#[derive(Clone, Debug, Default)]
pub struct SelfSuspect {
    outcomes: BTreeMap<PeerId, (Mono, bool)>,
}

impl SelfSuspect {
    /// A beat was answered or not.
    pub fn beaten(&mut self, peer: PeerId, answered: bool, now: Mono, settings: &Settings) {
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

    /// The share of the peers asked lately that did not answer: past [`SILENT_SHARE_MAX`] we suspect ourselves. Nothing
    /// while nobody was asked, or only one who is silent: nobody can say then whose link it is.
    #[must_use]
    pub fn silent_share(&self, now: Mono, settings: &Settings) -> Option<f64> {
        let recent = || self.outcomes.values().filter(|(at, _)| now.since(*at) <= settings.suspect_window);
        let (asked, silent) = (recent().count(), recent().filter(|(_, answered)| !answered).count());
        // At most OUTCOMES_MAX of them.
        #[expect(clippy::cast_precision_loss)]
        (asked >= COMPARED_MIN || asked > silent).then(|| silent as f64 / asked as f64)
    }
}

/// A member of the pool, as far as judging it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The indexer.
    pub peer: PeerId,
    /// What it may be evicted for.
    pub hold: Hold,
    /// It answers, and neither leaves nor asks us to move: one such stays, however bad.
    pub carries: bool,
}

/// What a member of the pool may be evicted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// A low score.
    Loose,
    /// A seed that did not hand us off: being caught lying.
    Seed,
    /// Such a seed, and without it too few would carry us: nothing.
    NeededSeed,
}

/// A member that goes, and the score that it goes for.
#[derive(Clone, Debug, PartialEq)]
pub struct Eviction {
    /// The indexer.
    pub peer: PeerId,
    /// The last of the judgements.
    pub score: Score,
}

/// What is known of one indexer: the ledger, what it adds up to, and how it is judged.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) ledger: Ledger,
    /// What a replay of the ledger gives, kept so that a score costs no replay.
    pub(super) evidence: Evidence,
    heard: Mono,
    is_member: bool,
    /// Judgements below the threshold in a row.
    below: u32,
    /// Until here others reach it, so that what we miss is our link's fault.
    excused_until: Mono,
    /// When it failed each check of its own word last.
    failed: BTreeMap<Check, Mono>,
}

impl Account {
    fn new(facts: Facts, now: Mono) -> Self {
        Self {
            ledger: Ledger::new(facts.clone(), now),
            evidence: Evidence::new(facts, now),
            heard: now,
            is_member: false,
            below: 0,
            excused_until: Mono::ZERO,
            failed: BTreeMap::new(),
        }
    }

    fn observe(&mut self, seen: &Observation, now: Mono, settings: &Settings) {
        self.heard = self.heard.max(now);
        self.evidence.observe(seen, now, settings);
        self.ledger.write(*seen, now, settings);
    }

    /// As it were, had these facts been known before what the ledger has one by one. Of what it folded the suspicions stay.
    /// What was decided did not rest on them, and goes.
    fn upon(self, facts: Facts, away: Duration, now: Mono, settings: &Settings) -> Self {
        let began = self.ledger.began();
        let mut facts = faded(facts, away.saturating_sub(now.since(began)), settings);
        facts.suspicions.join(&self.ledger.base().suspicions);
        let mut account = Self { excused_until: self.excused_until, failed: self.failed, ..Self::new(facts, began) };
        for Entry { at, seen } in self.ledger.entries() {
            account.observe(seen, *at, settings);
        }
        account
    }

    fn score(&self, now: Mono, settings: &Settings) -> Option<Score> {
        score(&self.evidence.facts(now, settings), settings)
    }

    fn decide(&mut self, what: Decision, now: Mono, settings: &Settings) {
        let verdict = self.score(now, settings).as_ref().map(Verdict::from);
        self.ledger.decide(what, verdict, now);
    }
}

/// The one owner of all evidence.
#[derive(Clone, Debug, Default)]
pub struct Book {
    settings: Settings,
    pub(super) accounts: BTreeMap<PeerId, Account>,
    /// Those of the pool, whether anything was seen of them yet or not.
    members: BTreeSet<PeerId>,
    ourselves: SelfSuspect,
    witnesses: Standings,
}

impl Book {
    /// An empty book.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// The rules it goes by.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// New rules; the evidence stays. What was seen under the old ones is folded, since a replay knows one set of rules.
    pub fn set_settings(&mut self, settings: Settings) {
        let before = std::mem::replace(&mut self.settings, settings);
        for account in self.accounts.values_mut() {
            account.ledger.end_rules(&before);
        }
    }

    /// Writes one observation down. A missed answer is not held against anybody while we suspect ourselves, nor while
    /// others reach who did not answer us.
    pub fn observe(&mut self, peer: PeerId, observation: &Observation, now: Mono) {
        match observation {
            Observation::Answered { .. } => self.ourselves.beaten(peer, true, now, &self.settings),
            Observation::Missed => {
                self.ourselves.beaten(peer, false, now, &self.settings);
                if let Some(excuse) = self.excuse(&peer, now) {
                    return self.decide(&peer, excuse, now);
                }
            }
            _ => {}
        }
        if let Some(check) = self.common(&peer, observation, now) {
            return self.decide(&peer, Decision::ExcusedAsCommon { check }, now);
        }
        if !self.accounts.contains_key(&peer) && !self.make_room() {
            return;
        }
        let is_slow = self.is_slow_alone(&peer, observation);
        let (settings, is_member) = (&self.settings, self.members.contains(&peer));
        let fresh = || Account { is_member, ..Account::new(Facts::default(), now) };
        let account = self.accounts.entry(peer).or_insert_with(fresh);
        account.observe(observation, now, settings);
        if is_slow {
            account.observe(&Observation::Slow, now, settings);
        }
    }

    /// The check of its own word that it failed, where most members failed it lately: the fault may be ours, our clock's or
    /// our record's.
    fn common(&mut self, peer: &PeerId, observation: &Observation, now: Mono) -> Option<Check> {
        let check = match observation {
            Observation::Challenged { unfound: 1.., .. } => Check::OwnId,
            Observation::Recorded { good: false } => Check::Record,
            Observation::Dht { good: false } => Check::Dht,
            _ => return None,
        };
        if let Some(account) = self.accounts.get_mut(peer) {
            account.failed.insert(check, now);
        }
        let members = || self.accounts.values().filter(|account| account.is_member);
        let has_failed =
            |account: &&Account| account.failed.get(&check).is_some_and(|at| now.since(*at) <= FAILED_TOGETHER);
        (members().filter(has_failed).count() * 2 > members().count()).then_some(check)
    }

    /// Its answer was slow, and most other members are quick: else the fault may be in our own link.
    fn is_slow_alone(&self, peer: &PeerId, observation: &Observation) -> bool {
        let Observation::Answered { rtt, .. } = observation else { return false };
        if !is_slow(*rtt, &self.settings) {
            return false;
        }
        let is_quick = |account: &Account| {
            let trips = account.evidence.facts.round_trips;
            trips.is_some_and(|trips| trips.mean_secs < self.settings.rtt_worst.as_secs_f64() / 2.0)
        };
        let others = || self.accounts.iter().filter(|(other, account)| *other != peer && account.is_member);
        let quick = others().filter(|(_, account)| is_quick(account)).count();
        quick * 2 > others().count()
    }

    fn excuse(&self, peer: &PeerId, now: Mono) -> Option<Decision> {
        if self.is_self_suspect(now) {
            return Some(Decision::ExcusedByOurselves);
        }
        let is_vouched = self.accounts.get(peer).is_some_and(|account| now < account.excused_until);
        is_vouched.then_some(Decision::ExcusedByOthers)
    }

    /// What was decided elsewhere about an indexer that is known here, with the score as it stands.
    pub fn decide(&mut self, peer: &PeerId, what: Decision, now: Mono) {
        if let Some(account) = self.accounts.get_mut(peer) {
            account.decide(what, now, &self.settings);
        }
    }

    /// Others were asked whether they reach an indexer that does not answer us. When one of them does, the fault is in
    /// our link: what it misses is not held against it for `suspect_window`.
    pub fn asked_others(&mut self, peer: &PeerId, answered: u32, reach: u32, now: Mono) {
        self.decide(peer, Decision::AskedOthers { answered, reach }, now);
        if let Some(account) = self.accounts.get_mut(peer).filter(|_| reach > 0) {
            account.excused_until = now + self.settings.suspect_window;
        }
    }

    /// Witnesses reported on an indexer, at the same time: who, and whether it says the same as the indexer. Each word
    /// counts as much as its witness was in agreement with the others so far.
    pub fn witnessed(&mut self, indexer: PeerId, reports: &[(PeerId, bool)], now: Mono) {
        let members = &self.members;
        let round = self.witnesses.round(reports, |by| members.contains(by), now, self.settings.half_life);
        for Testimony { by, agrees, weight } in &round.words {
            self.observe(indexer, &Observation::Witness { by: *by, agrees: *agrees, weight: *weight }, now);
        }
        if let Some(good) = round.of_the_indexer() {
            self.observe(indexer, &Observation::Witnessed { good }, now);
        }
        // Of those that are indexers and known here the word is also evidence about themselves.
        for (by, good) in round.of_the_witnesses() {
            if self.accounts.contains_key(&by) {
                self.observe(by, &Observation::Testified { about: indexer, good }, now);
            }
        }
    }

    /// Who is a member now: their evidence is never forgotten for want of room, and a verdict on others begins anew.
    pub fn set_members(&mut self, members: &BTreeSet<PeerId>) {
        self.members.clone_from(members);
        for (peer, account) in &mut self.accounts {
            account.is_member = members.contains(peer);
            if !account.is_member {
                account.below = 0;
            }
        }
    }

    /// See [`SelfSuspect::silent_share`].
    #[must_use]
    pub fn silent_share(&self, now: Mono) -> Option<f64> {
        self.ourselves.silent_share(now, &self.settings)
    }

    /// More than half of the peers asked lately did not answer: nobody is judged, nothing missed is written down.
    #[must_use]
    pub fn is_self_suspect(&self, now: Mono) -> bool {
        self.ourselves.is_suspect(now, &self.settings)
    }

    /// The score with its explanation; nothing without any evidence.
    #[must_use]
    pub fn score(&self, peer: &PeerId, now: Mono) -> Option<Score> {
        self.accounts.get(peer)?.score(now, &self.settings)
    }

    /// What was seen of it would have it evicted, were it a member judged now. Nobody is while we suspect ourselves.
    #[must_use]
    pub fn is_condemned(&self, peer: &PeerId, now: Mono) -> bool {
        let Some(account) = self.accounts.get(peer).filter(|_| !self.is_self_suspect(now)) else { return false };
        let facts = account.evidence.facts(now, &self.settings);
        score(&facts, &self.settings).is_some_and(|score| is_below(&facts, &score, &self.settings))
    }

    /// Every indexer that it knows about.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.accounts.keys().copied()
    }

    /// The facts that the score is computed from.
    #[must_use]
    pub fn facts(&self, peer: &PeerId, now: Mono) -> Option<Facts> {
        self.accounts.get(peer).map(|account| account.evidence.facts(now, &self.settings))
    }

    /// The score with every event behind it; nothing about an indexer that is not known.
    #[must_use]
    pub fn explain(&self, peer: &PeerId, now: Now) -> Option<Explained> {
        let account = self.accounts.get(peer)?;
        let score = account.score(now.mono, &self.settings);
        Some(Explained::new(*peer, account.ledger.clone(), score, now, &self.settings))
    }

    /// How many indexers it knows about.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// It knows about no indexer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// One judgement of the members: those that go, worst first. Never the last that carries us, a seed only as [`Hold`] says
    /// and by itself where it is the worst, for how many others carry us is known again at the next; and nobody while we
    /// suspect ourselves.
    pub fn judge(&mut self, members: &[Judged], now: Mono) -> Vec<Eviction> {
        if self.is_self_suspect(now) {
            return Vec::new();
        }
        let mut condemned: Vec<(Judged, Score)> =
            members.iter().filter_map(|member| Some((*member, self.judge_one(*member, now)?))).collect();
        let mut carriers = members.iter().filter(|member| member.carries).count();
        condemned.retain(|(member, _)| carriers > usize::from(member.carries));
        let is_seed = |(member, _): &(Judged, Score)| member.hold == Hold::Seed;
        condemned
            .sort_by(|one, other| one.1.high.total_cmp(&other.1.high).then_with(|| is_seed(one).cmp(&is_seed(other))));
        if condemned.first().is_some_and(is_seed) {
            condemned.truncate(1);
        } else {
            condemned.retain(|one| !is_seed(one));
        }
        condemned.retain(|(member, _)| {
            let others = carriers - usize::from(member.carries);
            if others > 0 {
                carriers = others;
            }
            others > 0
        });
        for (member, _) in &condemned {
            self.decide(&member.peer, Decision::Evicted, now);
            if let Some(account) = self.accounts.get_mut(&member.peer) {
                account.below = 0;
            }
        }
        condemned.into_iter().map(|(member, score)| Eviction { peer: member.peer, score }).collect()
    }

    /// The score for which it would go.
    fn judge_one(&mut self, member: Judged, now: Mono) -> Option<Score> {
        let settings = &self.settings;
        let account = self.accounts.get_mut(&member.peer)?;
        let facts = account.evidence.facts(now, settings);
        let score = score(&facts, settings)?;
        let is_protected = match member.hold {
            Hold::Loose => false,
            Hold::Seed => !facts.suspicions.is_caught(),
            Hold::NeededSeed => true,
        };
        let is_below = !is_protected && is_below(&facts, &score, settings);
        let (before, needed) = (account.below, settings.judgements.max(1));
        account.below = if is_below { before.saturating_add(1) } else { 0 };
        let in_a_row = account.below;
        if is_below && in_a_row <= needed {
            account.decide(Decision::Below { in_a_row, needed }, now, settings);
        } else if !is_below && before > 0 {
            account.decide(Decision::Above, now, settings);
        }
        (in_a_row >= needed).then_some(score)
    }

    /// What the database keeps.
    #[must_use]
    pub fn rows(&self, now: Now) -> Vec<Row> {
        let row = |(peer, account): (&PeerId, &Account)| Row {
            peer_id: *peer,
            saved_at: now.wall,
            facts: account.evidence.facts(now.mono, &self.settings),
        };
        self.accounts.iter().map(row).collect()
    }

    /// Takes up what the database kept, faded by the time that went by. Nonsense is left out. What was seen since this life
    /// began counts on top of it.
    pub fn restore(&mut self, rows: Vec<Row>, now: Now) {
        for Row { peer_id, saved_at, facts } in rows {
            let away = Duration::try_from(now.wall.duration_since(saved_at)).unwrap_or_default();
            if !is_sane(&facts) || (!self.accounts.contains_key(&peer_id) && !self.make_room()) {
                continue;
            }
            let account = match self.accounts.remove(&peer_id) {
                Some(seen) => seen.upon(facts, away, now.mono, &self.settings),
                None => Account::new(faded(facts, away, &self.settings), now.mono),
            };
            let is_member = self.members.contains(&peer_id);
            self.accounts.insert(peer_id, Account { is_member, ..account });
        }
    }

    /// Room for one more: when full, the longest unheard that is no member is forgotten.
    fn make_room(&mut self) -> bool {
        if self.accounts.len() < self.settings.indexers_max {
            return true;
        }
        let oldest =
            self.accounts.iter().filter(|(_, account)| !account.is_member).min_by_key(|(_, account)| account.heard);
        match oldest.map(|(peer, _)| *peer) {
            Some(peer) => self.accounts.remove(&peer).is_some(),
            None => false,
        }
    }
}

/// It was online for long enough to be judged, and even its upper bound is below the threshold.
fn is_below(facts: &Facts, score: &Score, settings: &Settings) -> bool {
    facts.online >= settings.online_min && score.high < score.threshold
}
