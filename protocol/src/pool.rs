//! The indexers that a member keeps heartbeats to: who joins, who is replaced, who stays, and who represents it.
//!
//! [`Pool`] is one state machine. [`Input`]s are facts with their time, [`Action`]s are what its actor does about them;
//! the actor decides nothing. A peer is either a member or known, never both, and never ourselves.
//!
//! Replace first, judge later: a member that is suspected keeps its restarts, while another joins at once.

mod choice;
mod settings;
#[cfg(test)]
mod tests;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use rand::{Rng, RngExt};

pub use self::{
    choice::{Choice, choose, quick_score, weight},
    settings::Settings,
    words::{Action, Event, Found, Input, Owner, Probed, Ranked, Reach, Shown, State, Why},
};
use crate::{
    addr::{Subnet, hearsay},
    heartbeat::{self, Rhythm, jittered},
    offload::FILL_HIGH,
    time::Mono,
    wire::AddrInfo,
};

/// After the first answer a member is asked for candidates at these times, while the pool has room.
const ASKS_AFTER: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// More candidates than that are not asked for: the wire's most.
const ASK_COUNT_MAX: usize = 10;

/// More addresses of one peer are not kept: a record's most.
const ADDRS_MAX: usize = 8;

/// More seeds than that are not read: it is more than anybody configures.
const SEEDS_MAX: usize = 64;

/// A candidate that only others spoke of is dropped after this many failed probes in a row and once nobody spoke of it
/// for [`HEARSAY_LIFE`]; earlier it would be heard of again and probed as if it were new.
const HEARSAY_FAILURES_MAX: u32 = 3;

/// A candidate of which nobody spoke for this long makes room for others.
const HEARSAY_LIFE: Duration = Duration::from_secs(600);

/// A remembered indexer is forgotten after this many failed probes in a row while others answered: some hours.
const REMEMBERED_FAILURES_MAX: u32 = 16;

/// Members that are asked whether they reach one that is suspected.
const OTHERS_ASKED: usize = 2;

/// Indexers that are kept though their restarts are used up, because others reach them: as many as a pool has members at
/// the most. Past it they go as others do.
const VOUCHED_MAX: usize = 16;

/// One whose key was revoked is not looked at again within this; it is refused in the greeting in any case.
const REVOKED_REST: Duration = Duration::from_secs(24 * 3_600);

/// A full one that asks us to move is let go unreplaced once in this time: several may ask at the same time, and a pool
/// that did what each of them wants would be left with one.
const LET_GO_EVERY: Duration = Duration::from_secs(60);

/// A replacement for one that has room and asks us to move is found within this: a probe, some questions and as many waits.
const MOVED_WITHIN: Duration = Duration::from_secs(60);

/// A probe whose outcome was lost with its actor is given up this long after its deadline.
const PROBE_LOST_AFTER: Duration = Duration::from_secs(2);

/// A successful probe is good for this many refreshes.
const REFRESHES_GOOD: u32 = 2;

/// How long the pause between probes of a peer that is away gets: a seed's, and any other's.
const SEED_PAUSE_MAX: Duration = Duration::from_secs(60);
const OTHER_PAUSE_MAX: Duration = Duration::from_secs(600);

/// At the latest after this time the pool looks at itself again.
const WAKE_MAX: Duration = Duration::from_secs(30);

/// Where a candidate was heard of; each source has its own bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Configured,
    Indexer(PeerId),
    Dht,
    Local,
    Inbound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    Joining { since: Mono },
    Answering,
    Suspect { since: Mono },
}

#[derive(Clone, Debug)]
struct Member {
    about: About,
    life: Life,
    sticky: bool,
    missed: u32,
    /// It asked us to move, or said that it goes.
    leaving: Option<Why>,
    /// Since when it has asked us to move, and until when we do not hear it: nobody came in its place.
    asked: Option<Mono>,
    deaf_until: Mono,
    is_busy: bool,
    is_told_referent: bool,
    low: Option<f64>,
}

/// What is kept of a peer whether it is a member or not.
#[derive(Clone, Debug)]
struct About {
    addrs: Vec<Multiaddr>,
    seed: bool,
    remembered: bool,
    source: Source,
    fill_rate: Option<f64>,
    rhythm: Rhythm,
    /// Others reach it while we do not: it is probed and not forgotten, until it answers or has failed for long.
    is_vouched: bool,
}

#[derive(Clone, Debug)]
struct Known {
    about: About,
    /// The last member, kept though its restarts are used up.
    kept: bool,
    probing: Option<Mono>,
    good: Option<Good>,
    /// Failed probes in a row.
    failures: u32,
    /// Pause after a failure; not kept to while nobody answers.
    not_before: Mono,
    /// It was evicted, or asked us to move; not kept to while nobody answers.
    rests_until: Mono,
    /// When it was last spoken of.
    heard: Mono,
    probed_last: Option<Mono>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Good {
    score: f64,
    at: Mono,
}

/// A growing pause.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    pause: Duration,
    at: Mono,
}

impl Backoff {
    fn first(pause: Duration, now: Mono, rng: &mut impl Rng) -> Self {
        Self { pause, at: now + pause + jittered(pause, 0.1, rng) }
    }

    fn next(self, most: Duration, now: Mono, rng: &mut impl Rng) -> Self {
        Self::first((self.pause * 2).min(most), now, rng)
    }
}

#[derive(Clone, Copy, Debug)]
struct Ladder {
    from: Mono,
    step: usize,
}

/// The pool of one member of the network.
#[derive(Clone, Debug)]
pub struct Pool {
    settings: Settings,
    beats: heartbeat::Settings,
    owner: Owner,
    members: BTreeMap<PeerId, Member>,
    known: BTreeMap<PeerId, Known>,
    referent: Option<PeerId>,
    referent_since: Mono,
    /// The referent answered a question that told it so.
    is_referent_confirmed: bool,
    lead: Option<(PeerId, Mono)>,
    reach: Reach,
    need: u32,
    ladder: Option<Ladder>,
    asked: VecDeque<Mono>,
    ask_all: bool,
    dht: Option<Backoff>,
    alone: Option<Backoff>,
    departed: Mono,
    excess_since: Option<Mono>,
    /// When one that asked us to move was last let go unreplaced.
    let_go: Option<Mono>,
    /// No probe that is under way began earlier; nothing where there was none.
    probing_since: Option<Mono>,
    /// Somebody may be kept as the last member. Both save a look at everybody known, at each fact.
    may_have_kept: bool,
    /// When something is due about those known, as it was seen last; nothing since anything about them changed.
    known_due: Option<(Mono, Option<Mono>)>,
    is_started: bool,
    out: Vec<Action>,
}

impl Pool {
    /// An empty pool, to be started by [`Input::Start`].
    #[must_use]
    pub fn new(settings: Settings, beats: heartbeat::Settings, owner: Owner) -> Self {
        Self {
            settings,
            beats,
            owner,
            members: BTreeMap::new(),
            known: BTreeMap::new(),
            referent: None,
            referent_since: Mono::ZERO,
            is_referent_confirmed: false,
            lead: None,
            reach: Reach::Joining,
            need: 0,
            ladder: None,
            asked: VecDeque::new(),
            ask_all: false,
            dht: None,
            alone: None,
            departed: Mono::ZERO,
            excess_since: None,
            let_go: None,
            probing_since: None,
            may_have_kept: false,
            known_due: None,
            is_started: false,
            out: Vec::new(),
        }
    }

    /// New rules. What follows from them is done at the next fact, and nobody is sent away at once for being one too many.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
        self.known_due = None;
    }

    /// Takes one fact and says what to do. Facts about peers that are no members any more change nothing.
    pub fn handle(&mut self, input: Input, now: Mono, rng: &mut impl Rng) -> Vec<Action> {
        self.known_due = None;
        self.take(input, now, rng);
        if self.is_started {
            self.settle(now, rng);
        }
        std::mem::take(&mut self.out)
    }

    /// When the next [`Input::Tick`] is due.
    #[must_use]
    pub fn wake(&self, now: Mono) -> Mono {
        let settings = &self.settings;
        let members = self.members.values().flat_map(|member| {
            let joining = match member.life {
                Life::Joining { since } => Some(since + settings.joining_within),
                _ => None,
            };
            [joining, member.asked.map(|asked| asked + MOVED_WITHIN)].into_iter().flatten()
        });
        let known = match self.known_due {
            Some((at, due)) if at == now => due,
            _ => self.known.values().filter_map(|known| self.due_after(known, now)).min(),
        };
        let pool = [
            self.ladder.and_then(|ladder| ASKS_AFTER.get(ladder.step).map(|after| ladder.from + *after)),
            self.dht.map(|backoff| backoff.at),
            self.alone.map(|backoff| backoff.at),
            Some(self.departed),
            self.excess_since.map(|since| since + settings.excess_kept),
            self.let_go.map(|at| at + LET_GO_EVERY),
            self.lead.map(|(_, since)| since + settings.referent_lead_held),
            self.referent.map(|_| self.referent_since + settings.referent_grace),
            self.asked.front().map(|first| *first + Duration::from_secs(60)),
        ];
        let times = members.chain(known).chain(pool.into_iter().flatten());
        times.filter(|time| *time > now).min().unwrap_or(now + WAKE_MAX).min(now + WAKE_MAX)
    }

    /// When something may be due about one that is known, after now.
    fn due_after(&self, known: &Known, now: Mono) -> Option<Mono> {
        let settings = &self.settings;
        let good = known.good.map(|good| [good.at + settings.settle, good.at + settings.refresh_every]);
        let probing = known.probing.map(|since| since + settings.probe_within + PROBE_LOST_AFTER);
        let allowed = known.about.rhythm.allowed_at(&self.beats);
        let times = good.into_iter().flatten().chain(probing).chain([known.not_before, known.rests_until, allowed]);
        times.filter(|time| *time > now).min()
    }

    /// How the node is reached.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// How many more indexers the pool wants.
    #[must_use]
    pub fn need(&self) -> u32 {
        self.need
    }

    /// The member that represents the node in search.
    #[must_use]
    pub fn referent(&self) -> Option<PeerId> {
        self.referent
    }

    /// Whether it is a member.
    #[must_use]
    pub fn is_member(&self, peer: &PeerId) -> bool {
        self.members.contains_key(peer)
    }

    /// Every member, sticky or not: what the judge is asked about.
    pub fn members(&self) -> impl Iterator<Item = (PeerId, bool)> + '_ {
        self.members.iter().map(|(peer, member)| (*peer, member.sticky))
    }

    /// Members that answer, best first; those that leave or ask us to move come last.
    #[must_use]
    pub fn answering(&self) -> Vec<PeerId> {
        let mut answering: Vec<(&PeerId, &Member)> = self.talking().collect();
        answering.sort_by(|(_, one), (_, other)| rank(other).total_cmp(&rank(one)));
        answering.sort_by_key(|(_, member)| member.leaving.is_some());
        answering.into_iter().map(|(peer, _)| *peer).collect()
    }

    /// The first of those.
    fn best(&self) -> Option<PeerId> {
        let order = |one: &Member, other: &Member| {
            (one.leaving.is_some().cmp(&other.leaving.is_some())).then_with(|| rank(other).total_cmp(&rank(one)))
        };
        self.talking().min_by(|(_, one), (_, other)| order(one, other)).map(|(peer, _)| *peer)
    }

    /// When a member, or a peer that was one, may beat: what a restarted heartbeat actor begins with.
    #[must_use]
    pub fn rhythm(&self, peer: &PeerId) -> Rhythm {
        let member = self.members.get(peer).map(|member| &member.about);
        let about = member.or_else(|| self.known.get(peer).map(|known| &known.about));
        about.map(|about| about.rhythm.clone()).unwrap_or_default()
    }

    /// The members, those that are down, and the standby.
    #[must_use]
    pub fn shown(&self, now: Mono) -> Vec<Shown> {
        let members = self.members.iter().map(|(peer, member)| {
            let state = match member.life {
                Life::Joining { .. } => State::Joining,
                Life::Answering => State::Answering,
                Life::Suspect { .. } => State::Suspect,
            };
            self.show(*peer, &member.about, state, member.sticky, member.missed)
        });
        let standby = self.standby(now);
        let known = self.known.iter().filter_map(|(peer, known)| {
            let is_down = !known.is_forgettable() && known.failures > 0;
            let state = match (standby.contains(peer), is_down) {
                (true, _) => State::Standby,
                (false, true) => State::Down,
                (false, false) => return None,
            };
            Some(self.show(*peer, &known.about, state, known.about.seed, known.failures))
        });
        members.chain(known).collect()
    }

    fn show(&self, peer: PeerId, about: &About, state: State, sticky: bool, missed: u32) -> Shown {
        let referent = self.referent == Some(peer);
        Shown { peer, addrs: about.addrs.clone(), state, seed: about.seed, sticky, referent, missed }
    }

    // What happened.

    fn take(&mut self, input: Input, now: Mono, rng: &mut impl Rng) {
        match input {
            Input::Start { remembered, seeds } => self.start(remembered, seeds, now),
            Input::Sent { peer } => {
                if let Some(member) = self.members.get_mut(&peer) {
                    member.about.rhythm.sent(now, &self.beats, rng);
                }
            }
            Input::Answered { peer, referent, suggestions, suggest_migrate, fill_rate } => {
                if let Some(member) = self.members.get_mut(&peer) {
                    member.about.fill_rate = Some(fill_rate);
                }
                let suggest_migrate = suggest_migrate && self.has_somewhere_to_go(&peer, &suggestions, now);
                self.answered(peer, referent, suggest_migrate, now, rng);
                if self.members.contains_key(&peer) {
                    let named: Vec<PeerId> = suggestions.iter().map(|info| info.id).collect();
                    self.hear(suggestions, Source::Indexer(peer), now, rng);
                    if suggest_migrate {
                        self.prefer(&named, now);
                    }
                }
            }
            Input::Missed { peer } => self.missed(peer, now, rng),
            Input::Reset { peer } => self.suspect(peer, now, rng),
            Input::Vouched { peer, answered, reach } => self.vouched(peer, answered, reach),
            Input::Gone { peer } => self.gone(&peer),
            Input::BudgetSpent { peer } => self.budget_spent(peer, now, rng),
            Input::Busy { peer, retry_after, alternatives } => self.busy(peer, retry_after, alternatives, now, rng),
            Input::Left { peer, alternatives } => self.left(peer, alternatives, now, rng),
            Input::Candidates { from, candidates } => {
                if self.members.contains_key(&from) {
                    self.hear(candidates, Source::Indexer(from), now, rng);
                }
            }
            Input::Dht { found } => {
                let most = self.settings.candidates_per_source_max as usize;
                for Found { info, fill_rate } in found.into_iter().take(most) {
                    self.hear_one(info, Source::Dht, fill_rate, now, rng);
                }
            }
            Input::Local { found } => self.hear(found, Source::Local, now, rng),
            Input::Inbound { info } => self.hear_one(info, Source::Inbound, None, now, rng),
            Input::Probed { peer, outcome } => self.probed(peer, outcome, now, rng),
            Input::Scores(scores) => {
                for Ranked { peer, low, is_condemned } in scores {
                    if let Some(member) = self.members.get_mut(&peer) {
                        member.low = Some(low);
                    } else if is_condemned {
                        self.rest(&peer, now);
                    }
                }
            }
            Input::Evicted { peer } => self.evicted(peer, now),
            Input::Revoked { peer } => self.revoked(peer, now),
            Input::Tick => {}
        }
    }

    fn start(&mut self, remembered: Vec<AddrInfo>, seeds: Vec<AddrInfo>, now: Mono) {
        if std::mem::replace(&mut self.is_started, true) {
            return;
        }
        self.departed = now + self.settings.refresh_every;
        let mut first = Vec::new();
        for info in remembered.into_iter().take(self.settings.remembered_max as usize) {
            first.extend(self.enter(info, false, true));
        }
        for info in seeds.into_iter().take(SEEDS_MAX) {
            first.extend(self.enter(info, true, false));
        }
        for peer in first {
            if self.wanted(now) > 0 {
                self.join(peer, now);
            }
        }
    }

    /// Seeds and remembered ones were chosen by ourselves, so their addresses are kept as they are. A peer named twice
    /// is told once.
    fn enter(&mut self, info: AddrInfo, seed: bool, remembered: bool) -> Option<PeerId> {
        if info.id == self.owner.peer_id {
            return None;
        }
        if let Some(known) = self.known.get_mut(&info.id) {
            known.about.seed |= seed;
            merge(&mut known.about.addrs, info.addrs);
            return None;
        }
        let mut known = Known::new(Source::Configured, None);
        known.about.seed = seed;
        known.about.remembered = remembered;
        merge(&mut known.about.addrs, info.addrs);
        self.known.insert(info.id, known);
        Some(info.id)
    }

    fn answered(&mut self, peer: PeerId, referent: bool, suggest_migrate: bool, now: Mono, rng: &mut impl Rng) {
        let was_alone = self.talking().next().is_none();
        // Of those that have room one is moved from at a time: what all of them want at once would turn the pool over.
        let is_moving = self
            .members
            .iter()
            .any(|(other, member)| *other != peer && member.leaving == Some(Why::Migrated) && !is_full_member(member));
        let Some(member) = self.members.get_mut(&peer) else { return };
        let was = std::mem::replace(&mut member.life, Life::Answering);
        member.about.is_vouched = false;
        member.missed = 0;
        member.is_busy = false;
        if was != Life::Answering {
            if self.ladder.is_none_or(|ladder| ladder.step >= ASKS_AFTER.len()) {
                self.ladder = Some(Ladder { from: now, step: 0 });
            }
            // One that left and came back is no longer leaving.
            member.leaving = member.leaving.filter(|why| *why != Why::Left);
            self.out.push(Action::Note(Event::Joined { peer }));
        }
        if suggest_migrate {
            // A seed first loses its stickiness; asked again, it is left like any other.
            if !std::mem::take(&mut member.sticky) && (is_full_member(member) || !is_moving) {
                member.leaving.get_or_insert(Why::Migrated);
                member.asked.get_or_insert(now);
            }
        } else {
            member.leaving = member.leaving.filter(|why| *why != Why::Migrated);
            member.asked = None;
        }
        if referent && self.referent == Some(peer) {
            self.is_referent_confirmed = true;
        }
        if was_alone {
            self.try_all_again(now);
        }
        if matches!(was, Life::Joining { .. }) {
            self.remember(peer);
            self.dht.get_or_insert_with(|| Backoff::first(self.settings.backoff_first, now, rng));
        }
    }

    /// Nobody is named to us, or at least one of them carries us or may. To go where nobody answers, or to one that we gave up
    /// for its score, would be to lose a member for nothing; so it would to leave one that has room for one that is a
    /// member already. Once we are on the way we go on.
    fn has_somewhere_to_go(&self, from: &PeerId, named: &[AddrInfo], now: Mono) -> bool {
        let Some(asker) = self.members.get(from) else { return false };
        let is_full = is_full_member(asker);
        if asker.deaf_until > now && !is_full {
            return false;
        }
        if asker.leaving.is_some() {
            return true;
        }
        let may = |info: &AddrInfo| match (self.members.get(&info.id), self.known.get(&info.id)) {
            (Some(member), _) => is_full && is_usable_member(member),
            (None, Some(known)) => known.is_open(now),
            (None, None) => info.id != self.owner.peer_id,
        };
        (is_full && named.is_empty()) || named.iter().take(self.settings.candidates_per_answer_max as usize).any(may)
    }

    /// One that asks us to move knows where there is room. A standby of our own would win by being at hand, and send us
    /// where we are asked to move again: it waits until those that were named had their probe.
    fn prefer(&mut self, named: &[PeerId], now: Mono) {
        if !named.iter().any(|peer| self.known.get(peer).is_some_and(|known| known.is_open(now))) {
            return;
        }
        let wait = now + self.settings.probe_within;
        for (peer, known) in &mut self.known {
            if named.contains(peer) {
                known.not_before = if known.failures == 0 { now } else { known.not_before };
            } else {
                known.good = None;
                known.not_before = known.not_before.max(wait);
            }
        }
    }

    /// What failed while nobody answered may have failed because of us.
    fn try_all_again(&mut self, now: Mono) {
        for known in self.known.values_mut() {
            known.failures = known.failures.min(1);
            known.not_before = known.not_before.min(now);
        }
    }

    fn remember(&mut self, peer: PeerId) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        if std::mem::replace(&mut member.about.remembered, true) {
            return;
        }
        self.out.push(Action::Remember { peer, addrs: member.about.addrs.clone() });
        let members = self.members.values().filter(|member| member.about.remembered).count();
        let others = self.known.values().filter(|known| known.about.remembered).count();
        if members + others <= self.settings.remembered_max as usize {
            return;
        }
        let departed = self.known.iter().filter(|(_, known)| known.about.remembered && !known.kept);
        if let Some(worst) = departed.max_by_key(|(_, known)| known.failures).map(|(peer, _)| *peer) {
            self.forget(worst);
        }
    }

    /// A member says where it listens: the next life may find it only there, as when a rotation of the network's key ends.
    fn lives_at(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        let before = member.about.addrs.clone();
        // What the operator wrote is kept, and that by which another was taken up stays first: its subnet counts.
        let kept = if member.about.seed { before.len() } else { before.len().min(1) };
        member.about.addrs.truncate(kept);
        merge(&mut member.about.addrs, addrs);
        merge(&mut member.about.addrs, before.clone());
        let is_new = member.about.addrs.iter().any(|addr| !before.contains(addr));
        if is_new && member.about.remembered {
            self.out.push(Action::Remember { peer, addrs: member.about.addrs.clone() });
        }
    }

    /// It is not taken up in the next life; a seed or a member stays in this one.
    fn forget(&mut self, peer: PeerId) {
        self.out.push(Action::Forget { peer });
        if let Some(known) = self.known.get_mut(&peer) {
            known.about.remembered = false;
            if !known.about.seed && !known.kept {
                self.known.remove(&peer);
            }
        }
    }

    /// A member that is silent on an open connection for the second time is frozen, whatever TCP says of it.
    fn missed(&mut self, peer: PeerId, now: Mono, rng: &mut impl Rng) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.missed = member.missed.saturating_add(1);
        if member.missed >= 2 {
            self.out.push(Action::Close { peer });
            self.suspect(peer, now, rng);
        }
    }

    fn suspect(&mut self, peer: PeerId, now: Mono, rng: &mut impl Rng) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        if matches!(member.life, Life::Suspect { .. }) {
            return;
        }
        member.life = Life::Suspect { since: now };
        self.ask_all = true;
        self.out.push(Action::Note(Event::Suspected { peer }));
        self.ask_others(peer, rng);
    }

    /// Replaced first, judged later: two others are asked whether they reach it, before it is forgotten.
    fn ask_others(&mut self, about: PeerId, rng: &mut impl Rng) {
        let mut ask: Vec<PeerId> = self.usable().map(|(peer, _)| *peer).filter(|peer| *peer != about).collect();
        while ask.len() > OTHERS_ASKED {
            ask.swap_remove(rng.random_range(0..ask.len()));
        }
        if !ask.is_empty() {
            self.out.push(Action::AskOthers { about, ask });
        }
    }

    /// Whom others reach is not gone: the fault is in our link, so it is kept and probed. Their word keeps a place among
    /// those that are known, and never one in the pool.
    fn vouched(&mut self, peer: PeerId, answered: u32, reach: u32) {
        let vouched = self.known.values().filter(|known| known.about.is_vouched).count();
        let member = self.members.get_mut(&peer).filter(|member| member.life != Life::Answering);
        let about = member.map(|member| &mut member.about);
        let lost = self.known.get_mut(&peer).filter(|known| known.failures > 0).map(|known| &mut known.about);
        let Some(about) = about.or(lost) else { return };
        about.is_vouched = reach > 0 && vouched < VOUCHED_MAX;
        self.out.push(Action::Note(Event::AskedOthers { peer, answered, reach }));
    }

    /// The last member is kept, and so is a seed: known as down, and probed until one of them answers.
    fn budget_spent(&mut self, peer: PeerId, now: Mono, rng: &mut impl Rng) {
        let Some(member) = self.members.remove(&peer) else { return };
        let is_kept = member.about.seed || self.members.is_empty();
        let event =
            if is_kept || member.about.is_vouched { Event::Down { peer } } else { Event::Removed { peer, why: None } };
        self.out.push(Action::Note(event));
        self.ask_all = true;
        if is_kept {
            // There is one last member, not a heap of those that were it in turn.
            self.release_kept(now);
        }
        self.may_have_kept |= is_kept;
        let mut known = Known { kept: is_kept, heard: now, ..Known::gone(member) };
        known.fail(self.settings.backoff_first, now, rng);
        self.keep(peer, known, now);
    }

    fn busy(&mut self, peer: PeerId, wait: Duration, others: Vec<AddrInfo>, now: Mono, rng: &mut impl Rng) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.about.rhythm.retry_after(wait, now);
        // One that answers and finds us too eager is still a member; one that has no room yet is none to count on.
        member.is_busy = member.life != Life::Answering;
        self.hear(others, Source::Indexer(peer), now, rng);
    }

    fn left(&mut self, peer: PeerId, others: Vec<AddrInfo>, now: Mono, rng: &mut impl Rng) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.leaving = Some(Why::Left);
        self.ask_all = true;
        self.hear(others, Source::Indexer(peer), now, rng);
    }

    fn evicted(&mut self, peer: PeerId, now: Mono) {
        let others = self.usable().filter(|(other, _)| **other != peer).count();
        let Some(member) = self.members.get_mut(&peer).filter(|member| !member.sticky && others > 0) else { return };
        if std::mem::take(&mut member.about.remembered) {
            self.out.push(Action::Forget { peer });
        }
        self.stop(peer, Why::Evicted, self.settings.evicted_rest, now);
    }

    /// Seed or not, and though it were the last: whoever holds its key may be a thief.
    fn revoked(&mut self, peer: PeerId, now: Mono) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.sticky = false;
            if std::mem::take(&mut member.about.remembered) {
                self.out.push(Action::Forget { peer });
            }
        } else if self.known.get_mut(&peer).is_some_and(|known| std::mem::take(&mut known.about.remembered)) {
            self.out.push(Action::Forget { peer });
        }
        self.stop(peer, Why::Revoked, REVOKED_REST, now);
        if let Some(known) = self.known.get_mut(&peer) {
            known.good = None;
            known.rests_until = known.rests_until.max(now + REVOKED_REST);
        }
    }

    /// What was seen of it still says that it would be evicted: it is not taken up again while others answer.
    fn rest(&mut self, peer: &PeerId, now: Mono) {
        if let Some(known) = self.known.get_mut(peer) {
            known.good = None;
            known.rests_until = known.rests_until.max(now + self.settings.evicted_rest);
        }
    }

    fn probed(&mut self, peer: PeerId, outcome: Probed, now: Mono, rng: &mut impl Rng) {
        let Some(known) = self.known.get_mut(&peer) else { return };
        if known.probing.take().is_none() {
            return;
        }
        // What was not sent does not count: a node alone must not use its ceiling up on indexers that are away.
        if outcome != Probed::Unreachable {
            known.about.rhythm.probed(now, &self.beats);
        }
        match outcome {
            Probed::Answered { rtt, fill_rate } => {
                let score = quick_score(rtt, fill_rate);
                known.about.fill_rate = fill_rate.or(known.about.fill_rate);
                if score < self.settings.quick_score_min {
                    return self.probe_failed(peer, now, rng);
                }
                let was_good = known.good.replace(Good { score, at: now }).is_some();
                known.failures = 0;
                known.about.is_vouched = false;
                known.not_before = now;
                if !was_good && self.need == 0 {
                    self.out.push(Action::Note(Event::Standby { peer }));
                }
            }
            Probed::Busy { retry_after, alternatives } => {
                known.about.rhythm.retry_after(retry_after, now);
                known.good = None;
                self.hear(alternatives, Source::Indexer(peer), now, rng);
            }
            Probed::Silent | Probed::Unreachable => self.probe_failed(peer, now, rng),
        }
    }

    fn probe_failed(&mut self, peer: PeerId, now: Mono, rng: &mut impl Rng) {
        let is_alone = self.talking().next().is_none();
        let Some(known) = self.known.get_mut(&peer) else { return };
        known.probing = None;
        known.good = None;
        let (failures, pause) = (known.failures, self.settings.backoff_first);
        known.fail(pause, now, rng);
        known.about.is_vouched &= known.failures < REMEMBERED_FAILURES_MAX;
        if known.about.seed || known.kept || known.about.is_vouched {
            return;
        }
        // When nobody answers, the fault may be ours, and nobody is forgotten for it.
        if known.about.remembered {
            if is_alone {
                known.failures = failures.max(1);
            } else if known.failures >= REMEMBERED_FAILURES_MAX {
                self.forget(peer);
            }
        } else if known.failures >= HEARSAY_FAILURES_MAX && now.since(known.heard) >= HEARSAY_LIFE {
            self.known.remove(&peer);
        }
    }

    // Who is heard of.

    fn hear(&mut self, infos: Vec<AddrInfo>, source: Source, now: Mono, rng: &mut impl Rng) {
        for info in infos.into_iter().take(self.settings.candidates_per_answer_max as usize) {
            self.hear_one(info, source, None, now, rng);
        }
    }

    fn hear_one(&mut self, info: AddrInfo, source: Source, fill: Option<f64>, now: Mono, rng: &mut impl Rng) {
        let AddrInfo { id, addrs } = info;
        if id == self.owner.peer_id {
            return;
        }
        let addrs = hearsay(&id, &addrs, &self.owner.rule);
        if self.members.contains_key(&id) {
            if source == Source::Inbound {
                self.lives_at(id, addrs);
            }
            return;
        }
        let fill = fill.filter(|fill| (0.0..=1.0).contains(fill));
        if let Some(known) = self.known.get_mut(&id) {
            let is_new = if source == Source::Inbound && !known.about.seed {
                renew(&mut known.about.addrs, addrs)
            } else {
                merge(&mut known.about.addrs, addrs)
            };
            known.about.fill_rate = fill.or(known.about.fill_rate);
            known.heard = now;
            // One that others still speak of is not left for longer than a departed one.
            let again = known.probed_last.map_or(now, |last| last + self.settings.refresh_every);
            known.not_before = known.not_before.min(again.max(now));
            // It speaks, so it is worth another try; the ceiling of its rhythm bounds how often.
            if is_new || source == Source::Inbound {
                known.failures = 0;
                known.not_before = known.not_before.min(now);
            }
            if is_new {
                self.try_again(now, rng);
            }
            return;
        }
        // One that speaks to us is connected, and needs no address.
        if (addrs.is_empty() && source != Source::Inbound) || !self.make_room(source, now) {
            return;
        }
        let mut known = Known { heard: now, ..Known::new(source, fill) };
        merge(&mut known.about.addrs, addrs);
        self.known.insert(id, known);
        self.try_again(now, rng);
    }

    /// Any new address starts the pauses of a lonely node again; it never puts the next step off, else a stream of
    /// strangers could keep us from our seeds.
    fn try_again(&mut self, now: Mono, rng: &mut impl Rng) {
        if let Some(before) = self.alone {
            let first = Backoff::first(self.settings.backoff_first, now, rng);
            self.alone = Some(Backoff { at: first.at.min(before.at), ..first });
        }
    }

    /// Room for one more that somebody spoke of. When there is none, one that failed or of which nobody spoke for long
    /// makes room; else the newcomer is not taken, so that nobody talks the others out.
    fn make_room(&mut self, source: Source, now: Mono) -> bool {
        let hearsay = || self.known.iter().filter(|(_, known)| known.is_hearsay());
        let from_source = hearsay().filter(|(_, known)| known.about.source == source).count();
        let has_source_room = from_source < self.settings.candidates_per_source_max as usize;
        if has_source_room && hearsay().count() < self.settings.candidates_max as usize {
            return true;
        }
        let is_old = |known: &Known| now.since(known.heard) >= HEARSAY_LIFE && now >= known.rests_until;
        // What was sent lately is not forgotten, or the ceiling would not hold.
        let is_idle = |known: &Known| known.probing.is_none() && known.about.rhythm.is_idle(now, &self.beats);
        let may_go = |known: &Known| is_idle(known) && (known.failures > 0 || is_old(known));
        let worst = hearsay()
            .filter(|(_, known)| may_go(known) && (has_source_room || known.about.source == source))
            .max_by_key(|(_, known)| (known.failures, now.since(known.heard)))
            .map(|(peer, _)| *peer);
        worst.is_some_and(|peer| self.known.remove(&peer).is_some())
    }

    // What follows.

    fn settle(&mut self, now: Mono, rng: &mut impl Rng) {
        self.give_probes_up(now, rng);
        self.give_moves_up(now);
        self.let_leavers_go(now);
        self.admit(now);
        self.let_excess_go(now);
        self.mind_reach(now, rng);
        let at_hand = self.probe(now, rng);
        self.ask(at_hand, now, rng);
        self.mind_referent(now);
        self.tell_need(now);
    }

    fn give_probes_up(&mut self, now: Mono, rng: &mut impl Rng) {
        let most = self.settings.probe_within + PROBE_LOST_AFTER;
        let is_lost_since = |since: Mono| now.since(since) >= most;
        if !self.probing_since.is_some_and(is_lost_since) {
            return;
        }
        let is_lost = |known: &Known| known.probing.is_some_and(is_lost_since);
        let lost: Vec<PeerId> = self.known.iter().filter(|(_, known)| is_lost(known)).map(|(peer, _)| *peer).collect();
        for peer in lost {
            if let Some(known) = self.known.get_mut(&peer) {
                known.about.rhythm.probed(now, &self.beats);
            }
            self.probe_failed(peer, now, rng);
        }
        self.probing_since = self.known.values().filter_map(|known| known.probing).min();
    }

    /// Whoever has room and asks us to move stays when nobody came in its place: it must not keep others from asking.
    fn give_moves_up(&mut self, now: Mono) {
        for member in self.members.values_mut().filter(|member| !is_full_member(member)) {
            if member.asked.is_some_and(|asked| now.since(asked) >= MOVED_WITHIN) {
                member.leaving = member.leaving.filter(|why| *why != Why::Migrated);
                member.asked = None;
                member.deaf_until = now + self.settings.migrated_rest;
            }
        }
    }

    /// One that leaves goes as soon as others carry us, and so does a full one that asks us to move. One that has room
    /// asks for the sake of evenness: it goes once another has taken its place, so that no pool shrinks for that.
    fn let_leavers_go(&mut self, now: Mono) {
        let leavers: Vec<(PeerId, Why, bool)> = self
            .members
            .iter()
            .filter_map(|(peer, member)| member.leaving.map(|why| (*peer, why, is_full_member(member))))
            .collect();
        for (peer, why, is_full) in leavers {
            let carriers = self.usable().filter(|(_, member)| why != Why::Migrated || !member.about.seed).count();
            if carriers < self.settings.min_indexer.max(1) as usize {
                continue;
            }
            if why == Why::Migrated && self.usable().count() < self.target() {
                if !is_full || self.let_go.is_some_and(|at| now.since(at) < LET_GO_EVERY) {
                    continue;
                }
                self.let_go = Some(now);
            }
            let rest = if why == Why::Migrated { self.settings.migrated_rest } else { self.settings.backoff_first };
            self.stop(peer, why, rest, now);
        }
    }

    /// Good candidates join, best first, while more members are wanted.
    fn admit(&mut self, now: Mono) {
        loop {
            let wanted = self.wanted(now);
            if wanted == 0 {
                return;
            }
            let good = self.good(now);
            let Some((peer, at)) = good.first().copied() else { return };
            let probing = self.probing();
            // Better ones may follow: not when all are taken anyway, and not when nobody carries us.
            let waits = good.len() + probing > wanted
                && probing > 0
                && now.since(at) < self.settings.settle
                && self.usable().next().is_some();
            if waits || !self.make_place(now) {
                return;
            }
            self.join(peer, now);
        }
    }

    /// Under the hard bound there is a place. At it, the longest suspected makes one, or one that never answered.
    fn make_place(&mut self, now: Mono) -> bool {
        if self.members.len() < self.members_max() {
            return true;
        }
        let weak = self.members.iter().filter_map(|(peer, member)| match member.life {
            Life::Suspect { since } => Some((0, since, *peer)),
            Life::Joining { since } if self.is_stale(member, now) => Some((1, since, *peer)),
            _ => None,
        });
        let Some((_, _, peer)) = weak.min() else { return false };
        self.stop(peer, Why::Replaced, self.settings.backoff_first, now);
        true
    }

    fn join(&mut self, peer: PeerId, now: Mono) {
        let Some(known) = self.known.remove(&peer) else { return };
        let mut about = known.about;
        if known.probing.is_some() {
            about.rhythm.probed(now, &self.beats);
        }
        about.rhythm.restarted();
        let referent = self.lacks_referent(now);
        if referent {
            self.appoint(peer, now);
        }
        self.out.push(Action::Start {
            peer,
            addrs: about.addrs.clone(),
            sticky: about.seed,
            referent,
            rhythm: about.rhythm.clone(),
        });
        let member = Member {
            sticky: about.seed,
            about,
            life: Life::Joining { since: now },
            missed: 0,
            leaving: None,
            asked: None,
            deaf_until: Mono::ZERO,
            is_busy: false,
            is_told_referent: referent,
            low: None,
        };
        self.members.insert(peer, member);
    }

    /// Nobody represents us and nobody could: the next to join is told so with its first question.
    fn lacks_referent(&self, now: Mono) -> bool {
        let referent = self.referent.and_then(|referent| self.members.get(&referent));
        referent.is_none_or(|member| !is_usable_member(member) && !self.has_grace(member, now))
            && self.usable().next().is_none()
    }

    fn stop(&mut self, peer: PeerId, why: Why, rest: Duration, now: Mono) {
        let Some(member) = self.members.remove(&peer) else { return };
        self.out.push(Action::Stop { peer, why });
        self.out.push(Action::Note(Event::Removed { peer, why: Some(why) }));
        let known = Known { rests_until: now + rest, heard: now, ..Known::gone(member) };
        self.keep(peer, known, now);
    }

    /// A member that is none any more is known on; one of which only others spoke takes no more room than the rest.
    fn keep(&mut self, peer: PeerId, known: Known, now: Mono) {
        if !known.is_hearsay() || self.make_room(known.about.source, now) {
            self.known.insert(peer, known);
        }
    }

    /// More members than wanted are kept for a while, since some may yet fail; then the worst goes.
    fn let_excess_go(&mut self, now: Mono) {
        let is_full = self.usable().count() >= self.target();
        let idle = self.members.iter().find(|(_, member)| is_full && self.is_stale(member, now));
        if let Some(peer) = idle.map(|(peer, _)| *peer) {
            self.stop(peer, Why::Excess, self.settings.refresh_every, now);
        }
        if self.usable().count() <= self.target() {
            self.excess_since = None;
            return;
        }
        if now.since(*self.excess_since.get_or_insert(now)) < self.settings.excess_kept {
            return;
        }
        let may_go = self.usable().filter(|(peer, member)| !member.sticky && self.referent != Some(**peer));
        let worst = may_go.min_by(|(_, one), (_, other)| rank(one).total_cmp(&rank(other))).map(|(peer, _)| *peer);
        self.excess_since = None;
        if let Some(peer) = worst {
            self.stop(peer, Why::Excess, self.settings.refresh_every, now);
        }
    }

    fn mind_reach(&mut self, now: Mono, rng: &mut impl Rng) {
        let answering = self.talking().count();
        let reach = match (answering >= self.settings.min_indexer.max(1) as usize, self.reach) {
            (true, _) => Reach::Joined,
            (false, Reach::Joining) => Reach::Joining,
            (false, _) => Reach::Isolated,
        };
        if std::mem::replace(&mut self.reach, reach) != reach {
            self.out.push(Action::Note(Event::Reached(reach)));
        }
        if answering > 0 {
            self.release_kept(now);
        }
        if answering > 0 || self.held(now) > 0 {
            self.alone = None;
        } else if self.alone.is_none() {
            self.alone = Some(Backoff::first(self.settings.backoff_first, now, rng));
            self.dht = Some(Backoff { pause: self.settings.backoff_first, at: now });
        }
    }

    /// Once somebody answers, the last one of before is kept only if it is worth it for itself.
    fn release_kept(&mut self, now: Mono) {
        if !std::mem::take(&mut self.may_have_kept) {
            return;
        }
        let kept: Vec<PeerId> = self.known.iter().filter(|(_, known)| known.kept).map(|(peer, _)| *peer).collect();
        for peer in kept {
            let Some(mut known) = self.known.remove(&peer) else { continue };
            known.kept = false;
            self.keep(peer, known, now);
        }
    }

    /// Starts the probes that are worth it; tells how many candidates are at hand, where that is known.
    fn probe(&mut self, now: Mono, rng: &mut impl Rng) -> Option<usize> {
        let is_lonely_step = self.alone.is_some_and(|backoff| now >= backoff.at);
        if is_lonely_step {
            self.alone = self.alone.map(|backoff| backoff.next(self.settings.backoff_max, now, rng));
        }
        let (mut chosen, at_hand) =
            if is_lonely_step { (self.everybody(now), None) } else { self.worth_probing(now, rng) };
        if chosen.is_empty() {
            return at_hand;
        }
        self.probing_since.get_or_insert(now);
        self.known_due = None;
        chosen.truncate((self.settings.probes_max as usize).saturating_sub(self.probing()));
        for peer in chosen {
            let Some(known) = self.known.get_mut(&peer) else { continue };
            known.probing = Some(now);
            known.probed_last = Some(now);
            self.out.push(Action::Probe { peer, addrs: known.about.addrs.clone() });
        }
        None
    }

    /// While nobody answers, everybody is worth a probe: seeds first, then remembered ones, the longest unprobed first.
    fn everybody(&self, now: Mono) -> Vec<PeerId> {
        let mut all: Vec<_> = self.known.iter().filter(|(_, known)| self.is_allowed(known, now)).collect();
        all.sort_by_key(|(_, known)| (!known.about.seed, !known.about.remembered, known.probed_last));
        all.into_iter().map(|(peer, _)| *peer).collect()
    }

    fn worth_probing(&mut self, now: Mono, rng: &mut impl Rng) -> (Vec<PeerId>, Option<usize>) {
        if self.alone.is_some() {
            return (self.untried(now), None);
        }
        let wanted = self.wanted(now);
        let (mut good, mut down, mut probing, mut due) = (Vec::new(), Vec::new(), 0, None);
        for (peer, known) in &self.known {
            probing += usize::from(known.probing.is_some());
            good.extend(known.good.filter(|_| self.is_at_hand(known, now)).map(|good| (*peer, good)));
            down.extend(self.is_down_and_worth_it(known, now).then_some(*peer));
            due = [due, self.due_after(known, now)].into_iter().flatten().min();
        }
        self.known_due = Some((now, due));
        let more = match wanted {
            0 => (self.settings.standby as usize).saturating_sub(good.len() + probing),
            wanted => (wanted + 2).saturating_sub(good.len() + probing),
        };
        let at_hand = Some(good.len() + probing);
        let mut chosen = self.stale_standby(&best_first(good), now);
        chosen.extend(down);
        chosen.extend(self.departed(now, rng));
        if more > 0 {
            chosen.extend(self.candidates(more, now, rng));
        }
        if chosen.len() > 1 {
            let mut seen = BTreeSet::new();
            chosen.retain(|peer| seen.insert(*peer));
        }
        (chosen, at_hand)
    }

    /// While nobody answers, the growing pause is for those that failed before.
    fn untried(&self, now: Mono) -> Vec<PeerId> {
        let is_untried = |known: &Known| known.failures == 0 && known.good.is_none() && self.is_due(known, now);
        self.known.iter().filter(|(_, known)| is_untried(known)).map(|(peer, _)| *peer).collect()
    }

    fn stale_standby(&self, good: &[(PeerId, Mono)], now: Mono) -> Vec<PeerId> {
        let is_stale = |(peer, at): &&(PeerId, Mono)| {
            now.since(*at) >= self.settings.refresh_every
                && self.known.get(peer).is_some_and(|known| self.is_allowed(known, now))
        };
        good.iter().take(self.settings.standby as usize).filter(is_stale).map(|(peer, _)| *peer).collect()
    }

    fn is_down_and_worth_it(&self, known: &Known, now: Mono) -> bool {
        (known.about.seed || known.about.is_vouched) && known.failures > 0 && self.is_due(known, now)
    }

    /// A random departed one is tried now and then, so that two halves of a network find each other again.
    fn departed(&mut self, now: Mono, rng: &mut impl Rng) -> Option<PeerId> {
        if now < self.departed {
            return None;
        }
        self.departed = now + self.settings.refresh_every + jittered(self.settings.refresh_every, 0.1, rng);
        let may = |known: &Known| {
            known.about.remembered
                && !self.is_good(known, now)
                && known.rests_until <= now
                && self.is_allowed(known, now)
        };
        let all: Vec<PeerId> = self.known.iter().filter(|(_, known)| may(known)).map(|(peer, _)| *peer).collect();
        (!all.is_empty()).then(|| all[rng.random_range(0..all.len())])
    }

    /// Those that we chose ourselves come first; among those that others named chance decides, weighted by their room.
    /// Our own that failed come last, so that a memory full of the dead holds nobody up.
    fn candidates(&self, count: usize, now: Mono, rng: &mut impl Rng) -> Vec<PeerId> {
        let is_open = |known: &Known| !self.is_good(known, now) && self.is_due(known, now);
        let open = self.known.iter().filter(|(_, known)| is_open(known));
        let (hearsay, mut own): (Vec<_>, Vec<_>) = open.partition(|(_, known)| known.is_hearsay());
        own.sort_by_key(|(_, known)| (known.failures, !known.about.seed));
        let (fresh, failed): (Vec<_>, Vec<_>) = own.into_iter().partition(|(_, known)| known.failures == 0);
        let choices: Vec<Choice> = hearsay
            .into_iter()
            .map(|(peer, known)| Choice {
                peer: *peer,
                fill_rate: known.about.fill_rate,
                subnet: known.about.addrs.first().and_then(Subnet::of_addr),
            })
            .collect();
        let ids = |own: Vec<(&PeerId, &Known)>| own.into_iter().map(|(peer, _)| *peer).collect::<Vec<_>>();
        let mut chosen = ids(fresh);
        chosen.extend(choose(&choices, count, self.owner.is_diverse, rng));
        chosen.extend(ids(failed));
        chosen.truncate(count);
        chosen
    }

    fn ask(&mut self, at_hand: Option<usize>, now: Mono, rng: &mut impl Rng) {
        while self.asked.front().is_some_and(|first| now.since(*first) >= Duration::from_secs(60)) {
            self.asked.pop_front();
        }
        let is_step_due = self.climb(now);
        let wanted = self.wanted(now);
        let at_hand = at_hand.unwrap_or_else(|| self.at_hand(now));
        let lacks_standby = wanted == 0 && at_hand < self.settings.standby as usize && self.asked.is_empty();
        let ask_all = std::mem::take(&mut self.ask_all) && wanted > at_hand;
        let mut members: Vec<PeerId> = self.talking().map(|(peer, _)| *peer).collect();
        let mut left = (self.settings.asks_per_minute as usize).saturating_sub(self.asked.len());
        if !ask_all {
            left = left.min(usize::from((is_step_due && wanted > 0) || lacks_standby));
        }
        while members.len() > left {
            members.swap_remove(rng.random_range(0..members.len()));
        }
        if !members.is_empty() {
            self.asked.extend(std::iter::repeat_n(now, members.len()));
            let count = (wanted + 2).min(ASK_COUNT_MAX) as u32;
            self.out.push(Action::AskCandidates { members, count });
        }
        self.ask_dht(wanted > at_hand, now, rng);
    }

    /// Whether a step of the ladder of questions is reached.
    fn climb(&mut self, now: Mono) -> bool {
        let Some(ladder) = &mut self.ladder else { return false };
        let before = ladder.step;
        while ASKS_AFTER.get(ladder.step).is_some_and(|after| now >= ladder.from + *after) {
            ladder.step += 1;
        }
        ladder.step > before
    }

    fn ask_dht(&mut self, is_lacking: bool, now: Mono, rng: &mut impl Rng) {
        let Some(backoff) = self.dht.filter(|backoff| now >= backoff.at) else { return };
        self.dht = Some(backoff.next(self.settings.dht_every, now, rng));
        if is_lacking {
            self.out.push(Action::AskDht);
        }
    }

    // The referent.

    fn mind_referent(&mut self, now: Mono) {
        let best = self.best();
        match (self.referent.and_then(|referent| self.members.get(&referent)), best) {
            (Some(member), _) if is_usable_member(member) => self.mind_lead(best, now),
            (Some(member), Some(_)) if self.has_grace(member, now) => {}
            // One that leaves goes on representing us while there is no other.
            (_, Some(best)) if self.referent != Some(best) => self.change_referent(best, now),
            (_, Some(_)) => {}
            (Some(_), None) => {}
            (None, None) => self.referent = None,
        }
        self.tell_former_referents();
    }

    /// The first chosen one may still answer.
    fn has_grace(&self, member: &Member, now: Mono) -> bool {
        matches!(member.life, Life::Joining { .. })
            && member.leaving.is_none()
            && !member.is_busy
            && now.since(self.referent_since) < self.settings.referent_grace
    }

    fn mind_lead(&mut self, best: Option<PeerId>, now: Mono) {
        let low = |peer: Option<PeerId>| peer.and_then(|peer| self.members.get(&peer)).and_then(|member| member.low);
        let leads = match (low(best), low(self.referent)) {
            (Some(best), Some(own)) => best - own >= self.settings.referent_lead,
            _ => false,
        };
        let Some(leader) = best.filter(|_| leads) else {
            self.lead = None;
            return;
        };
        let since = self.lead.filter(|(peer, _)| *peer == leader).map_or(now, |(_, since)| since);
        self.lead = Some((leader, since));
        if now.since(since) >= self.settings.referent_lead_held {
            self.change_referent(leader, now);
        }
    }

    fn change_referent(&mut self, peer: PeerId, now: Mono) {
        self.appoint(peer, now);
        if let Some(member) = self.members.get_mut(&peer) {
            member.is_told_referent = true;
            self.out.push(Action::SetReferent { peer, referent: true });
            self.out.push(Action::Nudge { peer });
        }
    }

    fn appoint(&mut self, peer: PeerId, now: Mono) {
        self.referent = Some(peer);
        self.referent_since = now;
        self.is_referent_confirmed = false;
        self.lead = None;
        self.out.push(Action::Note(Event::ReferentChanged { to: peer }));
    }

    /// The former referent is told once the new one knows, so that the node is found at every moment; one that does
    /// not answer hears it whenever it hears anything.
    fn tell_former_referents(&mut self) {
        for (peer, member) in &mut self.members {
            let is_former = member.is_told_referent && self.referent != Some(*peer);
            let is_talking = member.life == Life::Answering;
            if !is_former || (is_talking && !self.is_referent_confirmed) {
                continue;
            }
            member.is_told_referent = false;
            self.out.push(Action::SetReferent { peer: *peer, referent: false });
            if is_talking {
                self.out.push(Action::Nudge { peer: *peer });
            }
        }
    }

    fn tell_need(&mut self, now: Mono) {
        let need = u32::try_from(self.wanted(now)).unwrap_or(u32::MAX);
        if std::mem::replace(&mut self.need, need) != need {
            self.out.push(Action::SetNeed { need });
        }
    }

    // Counting.

    fn members_max(&self) -> usize {
        self.settings.max_indexer.max(1) as usize * 2
    }

    fn target(&self) -> usize {
        if self.owner.is_indexer { self.members_max() } else { self.members_max() / 2 }
    }

    /// Members that answer.
    fn talking(&self) -> impl Iterator<Item = (&PeerId, &Member)> {
        self.members.iter().filter(|(_, member)| member.life == Life::Answering)
    }

    /// Members that answer and stay.
    fn usable(&self) -> impl Iterator<Item = (&PeerId, &Member)> {
        self.members.iter().filter(|(_, member)| is_usable_member(member))
    }

    /// Members to count on: those that answer, and those that were just asked for the first time.
    fn held(&self, now: Mono) -> usize {
        let is_fresh = |member: &&Member| {
            matches!(member.life, Life::Joining { .. }) && member.leaving.is_none() && !self.is_stale(member, now)
        };
        self.usable().count() + self.members.values().filter(is_fresh).count()
    }

    fn wanted(&self, now: Mono) -> usize {
        self.target().saturating_sub(self.held(now))
    }

    /// It was started and there is still no answer, or it has no room.
    fn is_stale(&self, member: &Member, now: Mono) -> bool {
        match member.life {
            Life::Joining { since } => member.is_busy || now.since(since) >= self.settings.joining_within,
            _ => false,
        }
    }

    /// Its rhythm allows a probe, and none is under way.
    fn is_allowed(&self, known: &Known, now: Mono) -> bool {
        known.probing.is_none() && known.about.rhythm.allowed_at(&self.beats) <= now
    }

    fn is_due(&self, known: &Known, now: Mono) -> bool {
        self.is_allowed(known, now) && known.not_before.max(known.rests_until) <= now
    }

    fn is_good(&self, known: &Known, now: Mono) -> bool {
        let most = self.settings.refresh_every * REFRESHES_GOOD;
        known.good.is_some_and(|good| now.since(good.at) < most)
    }

    /// A candidate whose connection closed is not warm any more, whoever closed it: it is probed again before it counts.
    /// Members notice by their heartbeats.
    fn gone(&mut self, peer: &PeerId) {
        if let Some(known) = self.known.get_mut(peer) {
            known.good = None;
        }
    }

    fn probing(&self) -> usize {
        self.known.values().filter(|known| known.probing.is_some()).count()
    }

    /// Candidates that are good, and those that are being probed, once for each.
    fn at_hand(&self, now: Mono) -> usize {
        let each = |known: &Known| usize::from(known.probing.is_some()) + usize::from(self.is_at_hand(known, now));
        self.known.values().map(each).sum()
    }

    /// Its probe went well and is not too old, and its rhythm allows a beat.
    fn is_at_hand(&self, known: &Known, now: Mono) -> bool {
        self.is_good(known, now) && known.about.rhythm.allowed_at(&self.beats) <= now
    }

    /// Candidates whose probe went well and is not too old, best first, with the time of their probe.
    fn good(&self, now: Mono) -> Vec<(PeerId, Mono)> {
        let good = self.known.iter().filter(|(_, known)| self.is_at_hand(known, now));
        best_first(good.filter_map(|(peer, known)| known.good.map(|good| (*peer, good))).collect())
    }

    fn standby(&self, now: Mono) -> Vec<PeerId> {
        self.good(now).into_iter().take(self.settings.standby as usize).map(|(peer, _)| peer).collect()
    }
}

impl Known {
    fn new(source: Source, fill_rate: Option<f64>) -> Self {
        let about = About {
            addrs: Vec::new(),
            seed: false,
            remembered: false,
            source,
            fill_rate,
            rhythm: Rhythm::default(),
            is_vouched: false,
        };
        Self {
            about,
            kept: false,
            probing: None,
            good: None,
            failures: 0,
            not_before: Mono::ZERO,
            rests_until: Mono::ZERO,
            heard: Mono::ZERO,
            probed_last: None,
        }
    }

    fn gone(member: Member) -> Self {
        Self { about: member.about, ..Self::new(Source::Configured, None) }
    }

    /// Only others spoke of it.
    fn is_hearsay(&self) -> bool {
        self.is_forgettable() && !self.about.remembered
    }

    /// It did not fail, and we did not give it up a while ago.
    fn is_open(&self, now: Mono) -> bool {
        self.failures == 0 && self.rests_until <= now
    }

    /// It is worth no probes for its own sake once it failed.
    fn is_forgettable(&self) -> bool {
        !self.about.seed && !self.kept && !self.about.is_vouched
    }

    fn fail(&mut self, pause: Duration, now: Mono, rng: &mut impl Rng) {
        let most = if self.is_forgettable() { OTHER_PAUSE_MAX } else { SEED_PAUSE_MAX };
        let pause = pause.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + pause + jittered(pause, 0.1, rng);
    }
}

fn best_first(mut good: Vec<(PeerId, Good)>) -> Vec<(PeerId, Mono)> {
    good.sort_by(|(_, one), (_, other)| other.score.total_cmp(&one.score));
    good.into_iter().map(|(peer, good)| (peer, good.at)).collect()
}

fn is_usable_member(member: &Member) -> bool {
    member.life == Life::Answering && member.leaving.is_none()
}

/// It says so itself.
fn is_full_member(member: &Member) -> bool {
    member.about.fill_rate.is_some_and(|fill_rate| fill_rate > FILL_HIGH)
}

/// An unknown score is neither praise nor guilt.
fn rank(member: &Member) -> f64 {
    member.low.unwrap_or(50.0)
}

/// Puts addresses that the peer itself names before older ones; tells whether one of them is new.
fn renew(addrs: &mut Vec<Multiaddr>, mut named: Vec<Multiaddr>) -> bool {
    let is_new = named.iter().any(|addr| !addrs.contains(addr));
    merge(&mut named, std::mem::take(addrs));
    *addrs = named;
    is_new
}

/// Adds addresses up to the most; tells whether one of them is new.
fn merge(addrs: &mut Vec<Multiaddr>, more: Vec<Multiaddr>) -> bool {
    let before = addrs.len();
    for addr in more {
        if addrs.len() < ADDRS_MAX && !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    addrs.len() > before
}
