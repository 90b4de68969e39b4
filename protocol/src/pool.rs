//! The indexers that a member keeps heartbeats to: who joins, who is replaced, who stays, and who represents it.
//!
//! [`Pool`] is one state machine. [`Input`]s are facts with their time, [`Action`]s are what its actor does about them;
//! the actor decides nothing. A peer is either a member or known, never both, and never ourselves.
//!
//! Replace first, judge later: a member that is suspected keeps its restarts, while another joins at once.

mod asking;
mod choice;
mod hearsay;
mod joining;
mod known;
mod probing;
mod referent;
mod settings;
#[cfg(test)]
mod tests;
mod words;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use libp2p_identity::PeerId;
use rand::Rng;

use self::known::{
    About, Backoff, Good, Known, Ladder, Life, Member, Peers, REFRESHES_GOOD, Source, best_first, is_full_member,
    is_usable_member, rank,
};
use crate::{
    heartbeat::{self, Rhythm},
    score::{Hold, Judged},
    session::LIFE,
    time::Mono,
    wire::AddrInfo,
};

pub use self::{
    choice::{Choice, choose, quick_score, weight},
    settings::{MAX_INDEXER_MAX, Settings},
    words::{Action, Event, Found, Input, Owner, Probed, Ranked, Reach, Shown, State, Why},
};

/// After the first answer a member is asked for candidates at these times, while the pool has room.
const ASKS_AFTER: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// More seeds than that are not read: it is more than anybody configures.
const SEEDS_MAX: usize = 64;

/// One whose key was revoked is not looked at again within this; it is refused in the greeting in any case.
const REVOKED_REST: Duration = Duration::from_secs(24 * 3_600);

/// A full one that asks us to move is let go unreplaced once in this time: several may ask at the same time, and a pool
/// that did what each of them wants would be left with one.
const LET_GO_EVERY: Duration = Duration::from_secs(60);

/// A replacement for one that has room and asks us to move is found within this: a probe, some questions and as many waits.
const MOVED_WITHIN: Duration = Duration::from_secs(60);

/// A probe whose outcome was lost with its actor is given up this long after its deadline.
const PROBE_LOST_AFTER: Duration = Duration::from_secs(2);

/// At the latest after this time the pool looks at itself again.
const WAKE_MAX: Duration = Duration::from_secs(30);

/// The pool of one member of the network.
#[derive(Clone, Debug)]
pub struct Pool {
    settings: Settings,
    beats: heartbeat::Settings,
    owner: Owner,
    members: BTreeMap<PeerId, Member>,
    known: Peers,
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
    /// No probe that is under way began earlier; it may be older than all of them, or than none.
    probing_since: Option<Mono>,
    /// Somebody may be kept as the last member. Both save a look at everybody known, at each fact.
    may_have_kept: bool,
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
            known: Peers::default(),
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
            is_started: false,
            out: Vec::new(),
        }
    }

    /// New rules. What follows from them is done at the next fact, and nobody is sent away at once for being one too many.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
        self.known.stir();
    }

    /// Takes one fact and says what to do. Facts about peers that are no members any more change nothing.
    pub fn handle(&mut self, input: Input, now: Mono, rng: &mut impl Rng) -> Vec<Action> {
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
        let known = match self.known.seen(now) {
            Some(seen) => seen.due,
            None => self.known.awake().filter_map(|(_, known)| self.due_after(known, now)).min(),
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
        let good = known.good.map(|good| [good.at + settings.settle, good.at + self.standby_every()]);
        let probing = known.probing.map(|since| since + settings.probe_within + PROBE_LOST_AFTER);
        let allowed = known.about.rhythm.allowed_at(&self.beats);
        let times = good.into_iter().flatten().chain(probing).chain([known.not_before, known.rests_until, allowed]);
        times.filter(|time| *time > now).min()
    }

    /// Nothing is due about it, and nothing will be until something about it changes.
    fn is_idle(known: &Known, beats: &heartbeat::Settings, now: Mono) -> bool {
        let is_settled = known.good.is_none() && known.probing.is_none();
        let is_hearsay = !known.about.seed && !known.about.is_vouched;
        let times = [known.not_before, known.rests_until, known.about.rhythm.allowed_at(beats)];
        is_settled && is_hearsay && times.into_iter().all(|time| time <= now)
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

    /// Every member: what the judge is asked about.
    pub fn members(&self) -> impl Iterator<Item = Judged> + '_ {
        let usable = self.usable().count();
        self.members.iter().map(move |(peer, member)| {
            let carries = is_usable_member(member);
            let others = usable - usize::from(carries);
            let hold = match member.sticky {
                false => Hold::Loose,
                true if others < self.without_seed_min() => Hold::NeededSeed,
                true => Hold::Seed,
            };
            Judged { peer: *peer, hold, carries }
        })
    }

    /// So many others have to carry us before one that still answers is left.
    fn carriers_min(&self) -> usize {
        self.settings.min_indexer.max(1) as usize
    }

    /// So many others have to carry us before a seed is evicted: those of a full pool are enough, for nobody comes in its place
    /// while it stays.
    fn without_seed_min(&self) -> usize {
        self.carriers_min().min(self.target().saturating_sub(1).max(1))
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
            Input::Remembered { remembered } => self.recall(remembered, now),
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
                        self.condemned(&peer, now);
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
        member.heard = now;
        if was != Life::Answering {
            if self.ladder.is_none_or(|ladder| ladder.step >= ASKS_AFTER.len()) {
                self.ladder = Some(Ladder { from: now, step: 0 });
            }
            // One that left and came back is no longer leaving.
            member.leaving = member.leaving.filter(|why| *why != Why::Left);
            self.out.push(Action::Note(Event::Joined { peer }));
        }
        if suggest_migrate {
            // A seed that hands us off is left like any other.
            member.sticky = false;
            if is_full_member(member) || !is_moving {
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
        for (peer, known) in self.known.iter_mut() {
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
        for (_, known) in self.known.iter_mut() {
            known.failures = known.failures.min(1);
            known.not_before = known.not_before.min(now);
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
        let is_out = wait >= LIFE || (!member.is_busy && now + wait >= member.heard + LIFE);
        self.hear(others, Source::Indexer(peer), now, rng);
        // Whoever is to wait for longer than a session lives has none there: it was banned, its key was revoked, or it is put
        // off again and again.
        if is_out {
            self.suspect(peer, now, rng);
        }
    }

    fn left(&mut self, peer: PeerId, others: Vec<AddrInfo>, now: Mono, rng: &mut impl Rng) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.leaving = Some(Why::Left);
        self.ask_all = true;
        self.hear(others, Source::Indexer(peer), now, rng);
    }

    fn evicted(&mut self, peer: PeerId, now: Mono) {
        let others = self.usable().filter(|(other, _)| **other != peer).count();
        let without_seed_min = self.without_seed_min();
        let Some(member) = self.members.get_mut(&peer) else { return };
        if others < if member.sticky { without_seed_min } else { 1 } {
            return;
        }
        // A seed is in the settings, and would be joined at the next start as if nothing had been seen of it.
        if !member.about.seed && std::mem::take(&mut member.about.remembered) {
            self.out.push(Action::Disown { peer });
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
        self.put_to_rest(&peer, REVOKED_REST, now);
        self.give_probe_up(&peer, now);
    }

    /// What was seen of it still says that it would be evicted: it is not taken up again while others answer.
    fn condemned(&mut self, peer: &PeerId, now: Mono) {
        self.put_to_rest(peer, self.settings.evicted_rest, now);
        if self.talking().next().is_some() {
            self.give_probe_up(peer, now);
        }
    }

    fn put_to_rest(&mut self, peer: &PeerId, rest: Duration, now: Mono) {
        if let Some(known) = self.known.get_mut(peer) {
            known.good = None;
            known.rests_until = known.rests_until.max(now + rest);
        }
    }

    /// An answer that is on its way would make it good again.
    fn give_probe_up(&mut self, peer: &PeerId, now: Mono) {
        if let Some(known) = self.known.get_mut(peer).filter(|known| known.probing.is_some()) {
            known.probing = None;
            known.about.rhythm.probed(now, &self.beats);
        }
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

    /// Nobody represents us and nobody could: the next to join is told so with its first question.
    fn lacks_referent(&self, now: Mono) -> bool {
        let referent = self.referent.and_then(|referent| self.members.get(&referent));
        referent.is_none_or(|member| !is_usable_member(member) && !self.has_grace(member, now))
            && self.usable().next().is_none()
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
        known.good.is_some_and(|good| now < self.good_until(good))
    }

    fn good_until(&self, good: Good) -> Mono {
        // Never before the next probe has had its time, whatever is set.
        let probed_again = self.standby_every() + self.settings.probe_within;
        good.at + (self.settings.refresh_every * REFRESHES_GOOD).max(probed_again)
    }

    /// As often as is wished and the ceiling of beats to one indexer leaves room for one more.
    fn standby_every(&self) -> Duration {
        let most = self.beats.ceiling.saturating_sub(1).max(1);
        self.settings.standby_every.max(self.beats.ceiling_within / most)
    }

    /// A candidate whose connection closed is not warm any more, whoever closed it: it is probed again before it counts.
    /// Members notice by their heartbeats.
    fn gone(&mut self, peer: &PeerId) {
        let is_warm = self.known.get(peer).is_some_and(|known| known.good.is_some());
        if is_warm && let Some(known) = self.known.get_mut(peer) {
            known.good = None;
        }
    }

    fn probing(&self) -> usize {
        self.known.awake().filter(|(_, known)| known.probing.is_some()).count()
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
