//! The indexers that a member keeps heartbeats to: who joins, who is replaced, who stays, and who represents it.
//!
//! [`Pool`] is one state machine. [`Input`]s are facts with their time, [`Action`]s are what its actor does about them;
//! the actor decides nothing. A peer is either a member or known, never both, and never ourselves.
//!
//! Replace first, judge later: a member that is suspected keeps its restarts, while another joins at once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    time::Duration,
};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::{
    addr::{Rule, Subnet, hearsay},
    heartbeat::{self, Rhythm, jittered},
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

/// A probe whose outcome was lost with its actor is given up this long after its deadline.
const PROBE_LOST_AFTER: Duration = Duration::from_secs(2);

/// A successful probe is good for this many refreshes.
const REFRESHES_GOOD: u32 = 2;

/// How long the pause between probes of a peer that is away gets: a seed's, and any other's.
const SEED_PAUSE_MAX: Duration = Duration::from_secs(60);
const OTHER_PAUSE_MAX: Duration = Duration::from_secs(600);

/// At the latest after this time the pool looks at itself again.
const WAKE_MAX: Duration = Duration::from_secs(30);

/// How the pool is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// With fewer answering members than this, the node says that it is isolated; at least 1.
    pub min_indexer: u32,
    /// How many members a node wants; twice as many are the most there ever are, and what an indexer wants.
    pub max_indexer: u32,
    /// A member that did not answer for the first time after this long no longer counts, and others are sought.
    #[serde(with = "crate::time::text")]
    pub joining_within: Duration,
    /// A probe is answered within this time or failed.
    #[serde(with = "crate::time::text")]
    pub probe_within: Duration,
    /// Most probes at once.
    pub probes_max: u32,
    /// How long a good candidate waits for better ones that are being probed.
    #[serde(with = "crate::time::text")]
    pub settle: Duration,
    /// A candidate joins only with at least this quick score, 0 to 100.
    pub quick_score_min: f64,
    /// Good candidates that are kept warm while the pool is full.
    pub standby: u32,
    /// Time between two probes of a standby, and of a random departed indexer.
    #[serde(with = "crate::time::text")]
    pub refresh_every: Duration,
    /// Most candidates of which only others spoke.
    pub candidates_max: u32,
    /// Most of them from one source.
    pub candidates_per_source_max: u32,
    /// Most that are taken from one answer.
    pub candidates_per_answer_max: u32,
    /// Most questions for candidates within a minute.
    pub asks_per_minute: u32,
    /// Most indexers remembered over restarts.
    pub remembered_max: u32,
    /// First pause while nobody answers.
    #[serde(with = "crate::time::text")]
    pub backoff_first: Duration,
    /// Longest pause while nobody answers.
    #[serde(with = "crate::time::text")]
    pub backoff_max: Duration,
    /// Longest pause between two questions to the DHT while the pool has room.
    #[serde(with = "crate::time::text")]
    pub dht_every: Duration,
    /// Points by which another must lead to become the referent.
    pub referent_lead: f64,
    /// For how long it must lead.
    #[serde(with = "crate::time::text")]
    pub referent_lead_held: Duration,
    /// How long the first chosen referent may take to answer while another member answers already.
    #[serde(with = "crate::time::text")]
    pub referent_grace: Duration,
    /// How long more members than wanted are kept before the worst goes.
    #[serde(with = "crate::time::text")]
    pub excess_kept: Duration,
    /// How long one that asked us to move is left in peace.
    #[serde(with = "crate::time::text")]
    pub migrated_rest: Duration,
    /// How long an evicted one is not taken again, unless there is nobody else.
    #[serde(with = "crate::time::text")]
    pub evicted_rest: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            min_indexer: 1,
            max_indexer: 5,
            joining_within: Duration::from_secs(2),
            probe_within: Duration::from_secs(8),
            probes_max: 16,
            settle: Duration::from_millis(500),
            quick_score_min: 20.0,
            standby: 1,
            refresh_every: Duration::from_secs(60),
            candidates_max: 64,
            candidates_per_source_max: 16,
            candidates_per_answer_max: 10,
            asks_per_minute: 6,
            remembered_max: 32,
            backoff_first: Duration::from_secs(2),
            backoff_max: Duration::from_secs(30),
            dht_every: Duration::from_secs(120),
            referent_lead: 10.0,
            referent_lead_held: Duration::from_secs(300),
            referent_grace: Duration::from_secs(1),
            excess_kept: Duration::from_secs(300),
            migrated_rest: Duration::from_secs(600),
            evicted_rest: Duration::from_secs(1_800),
        }
    }
}

/// Whose pool it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Never in its own pool.
    pub peer_id: PeerId,
    /// It is an indexer, alone or beside a node: it wants twice `max_indexer` members.
    pub is_indexer: bool,
    /// Choices are spread over subnets.
    pub is_diverse: bool,
    /// Which addresses it believes of others.
    pub rule: Rule,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq)]
pub enum Probed {
    /// It said hello.
    Answered {
        /// Round trip.
        rtt: Duration,
        /// What its answer said, 0 to 1; absent when there was no answer body.
        fill_rate: Option<f64>,
    },
    /// It said that it has no room.
    Busy {
        /// When to ask again.
        retry_after: Duration,
        /// Others that may have room.
        alternatives: Vec<AddrInfo>,
    },
    /// It was reached and gave no answer that can be believed.
    Silent,
    /// It was not reached: nothing was sent.
    Unreachable,
}

/// An indexer that the DHT named.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Who and where.
    pub info: AddrInfo,
    /// What its `IndexerRecord` says, 0 to 1.
    pub fill_rate: Option<f64>,
}

/// A member's score, as the pool prefers by it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// The indexer.
    pub peer: PeerId,
    /// Lower bound of its score, 0 to 100.
    pub low: f64,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The node starts, once.
    Start {
        /// Good indexers of earlier lives, best first.
        remembered: Vec<AddrInfo>,
        /// Configured ones.
        seeds: Vec<AddrInfo>,
    },
    /// A member's heartbeat was sent.
    Sent {
        /// To whom.
        peer: PeerId,
    },
    /// A member answered.
    Answered {
        /// Who.
        peer: PeerId,
        /// The question told it that it is the referent.
        referent: bool,
        /// Other indexers.
        suggestions: Vec<AddrInfo>,
        /// It asks us to move.
        suggest_migrate: bool,
    },
    /// A member's answer did not come in time.
    Missed {
        /// Whose.
        peer: PeerId,
    },
    /// The connection to a member was reset or refused.
    Reset {
        /// Whose.
        peer: PeerId,
    },
    /// The last connection to a peer closed.
    Gone {
        /// Whose.
        peer: PeerId,
    },
    /// A member's heartbeat actor has ended: its restarts are used up.
    BudgetSpent {
        /// Whose.
        peer: PeerId,
    },
    /// A member said that it has no room, or that we ask too often.
    Busy {
        /// Who.
        peer: PeerId,
        /// When to ask again.
        retry_after: Duration,
        /// Others that may have room.
        alternatives: Vec<AddrInfo>,
    },
    /// A member said that it goes.
    Left {
        /// Who.
        peer: PeerId,
        /// Others that it names.
        alternatives: Vec<AddrInfo>,
    },
    /// A member answered a question for candidates.
    Candidates {
        /// Who.
        from: PeerId,
        /// Whom it named.
        candidates: Vec<AddrInfo>,
    },
    /// The DHT was asked.
    Dht {
        /// What it named.
        found: Vec<Found>,
    },
    /// The local network was heard.
    Local {
        /// Whom.
        found: Vec<AddrInfo>,
    },
    /// A peer that is an indexer, as its hello said, speaks to us.
    Inbound {
        /// Who.
        info: AddrInfo,
    },
    /// A probe came to its end.
    Probed {
        /// Who was probed.
        peer: PeerId,
        /// What was found.
        outcome: Probed,
    },
    /// The scores are new.
    Scores(Vec<Ranked>),
    /// A member was judged and goes.
    Evicted {
        /// Who.
        peer: PeerId,
    },
    /// Time went by; due at [`Pool::wake`].
    Tick,
}

/// Why a member is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its score.
    Evicted,
    /// It asked us to move.
    Migrated,
    /// It left.
    Left,
    /// There are more than wanted.
    Excess,
    /// Its place is needed for one that answers.
    Replaced,
}

impl Why {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Evicted => "evicted for its score",
            Self::Migrated => "asked us to move",
            Self::Left => "left",
            Self::Excess => "more members than wanted",
            Self::Replaced => "its place was needed",
        }
    }
}

/// How the node is reached through its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reach {
    /// No `min_indexer` members have answered yet.
    #[default]
    Joining,
    /// At least `min_indexer` members answer.
    Joined,
    /// Fewer than that answer, and once there were enough.
    Isolated,
}

/// Something for the journal.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A member answers, for the first time or again.
    Joined {
        /// Who.
        peer: PeerId,
    },
    /// A second answer was missed, or the connection was reset.
    Suspected {
        /// Who.
        peer: PeerId,
    },
    /// It is no member any more.
    Removed {
        /// Who.
        peer: PeerId,
        /// Why; absent when its restarts were used up.
        why: Option<Why>,
    },
    /// Its restarts are used up; it is kept and probed, because it is a seed or the last.
    Down {
        /// Who.
        peer: PeerId,
    },
    /// A candidate is kept warm.
    Standby {
        /// Who.
        peer: PeerId,
    },
    /// Another represents us in search.
    ReferentChanged {
        /// Who.
        to: PeerId,
    },
    /// See [`Reach`].
    Reached(Reach),
}

impl Event {
    /// Its word in the journal.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Joined { .. } => "member_joined",
            Self::Suspected { .. } => "member_suspected",
            Self::Removed { .. } => "member_removed",
            Self::Down { .. } => "member_down",
            Self::Standby { .. } => "standby_ready",
            Self::ReferentChanged { .. } => "referent_changed",
            Self::Reached(Reach::Isolated) => "isolated",
            Self::Reached(_) => "joined",
        }
    }

    /// The peer that it is about.
    #[must_use]
    pub const fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Joined { peer }
            | Self::Suspected { peer }
            | Self::Removed { peer, .. }
            | Self::Down { peer }
            | Self::Standby { peer }
            | Self::ReferentChanged { to: peer } => Some(*peer),
            Self::Reached(_) => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joined { .. } => "answers",
            Self::Suspected { .. } => "suspected: another takes its place, it keeps its restarts",
            Self::Removed { why: Some(why), .. } => why.name(),
            Self::Removed { why: None, .. } => "its restarts are used up",
            Self::Down { .. } => "its restarts are used up; kept and probed",
            Self::Standby { .. } => "probed and kept warm",
            Self::ReferentChanged { .. } => "represents this node in search",
            Self::Reached(Reach::Isolated) => "too few indexers answer",
            Self::Reached(_) => "enough indexers answer",
        })
    }
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start a heartbeat actor.
    Start {
        /// To whom.
        peer: PeerId,
        /// Where to dial it; may be empty when it is connected.
        addrs: Vec<Multiaddr>,
        /// It may not be evicted.
        sticky: bool,
        /// The first question tells it that it is the referent.
        referent: bool,
        /// When it may beat.
        rhythm: Rhythm,
    },
    /// Stop its heartbeat actor, saying `Leave` unless it left itself.
    Stop {
        /// Whose.
        peer: PeerId,
        /// Why.
        why: Why,
    },
    /// Its heartbeat goes at once.
    Nudge {
        /// Whose.
        peer: PeerId,
    },
    /// Its next questions tell it that it is the referent, or that it is not.
    SetReferent {
        /// Whose.
        peer: PeerId,
        /// It is.
        referent: bool,
    },
    /// Every question tells this `need` from now on.
    SetNeed {
        /// How many more indexers the pool wants.
        need: u32,
    },
    /// Ask each of these members for candidates.
    AskCandidates {
        /// Whom.
        members: Vec<PeerId>,
        /// How many, 1 to 10.
        count: u32,
    },
    /// Ask the DHT for indexers.
    AskDht,
    /// Say hello and send one heartbeat with `probe`, and tell the outcome.
    Probe {
        /// To whom.
        peer: PeerId,
        /// Where; may be empty when it is connected.
        addrs: Vec<Multiaddr>,
    },
    /// Write it down for the next life.
    Remember {
        /// Whom.
        peer: PeerId,
        /// Where.
        addrs: Vec<Multiaddr>,
    },
    /// Strike it out.
    Forget {
        /// Whom.
        peer: PeerId,
    },
    /// Write it into the journal.
    Note(Event),
}

/// How a peer of the pool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// First answer not yet in.
    Joining,
    /// Answers.
    Answering,
    /// A second answer was missed, or the connection was reset.
    Suspect,
    /// Its restarts are used up; kept because it is a seed or the last.
    Down,
    /// A known good candidate, kept warm.
    Standby,
}

/// One peer of the pool, for views.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// The indexer.
    pub peer: PeerId,
    /// Where it is dialled.
    pub addrs: Vec<Multiaddr>,
    /// How it does.
    pub state: State,
    /// It is in the configuration.
    pub seed: bool,
    /// It may not be evicted.
    pub sticky: bool,
    /// It represents this node in search.
    pub referent: bool,
    /// Answers missed in a row.
    pub missed: u32,
}

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
            is_started: false,
            out: Vec::new(),
        }
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
        let members = self.members.values().filter_map(|member| match member.life {
            Life::Joining { since } => Some(since + settings.joining_within),
            _ => None,
        });
        let known = self.known.values().flat_map(|known| {
            let good = known.good.map(|good| [good.at + settings.settle, good.at + settings.refresh_every]);
            let probing = known.probing.map(|since| since + settings.probe_within + PROBE_LOST_AFTER);
            let allowed = known.about.rhythm.allowed_at(&self.beats);
            good.into_iter().flatten().chain(probing).chain([known.not_before, known.rests_until, allowed])
        });
        let pool = [
            self.ladder.and_then(|ladder| ASKS_AFTER.get(ladder.step).map(|after| ladder.from + *after)),
            self.dht.map(|backoff| backoff.at),
            self.alone.map(|backoff| backoff.at),
            Some(self.departed),
            self.excess_since.map(|since| since + settings.excess_kept),
            self.lead.map(|(_, since)| since + settings.referent_lead_held),
            self.referent.map(|_| self.referent_since + settings.referent_grace),
            self.asked.front().map(|first| *first + Duration::from_secs(60)),
        ];
        let times = members.chain(known).chain(pool.into_iter().flatten());
        times.filter(|time| *time > now).min().unwrap_or(now + WAKE_MAX).min(now + WAKE_MAX)
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
            let is_down = (known.about.seed || known.kept) && known.failures > 0;
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
            Input::Answered { peer, referent, suggestions, suggest_migrate } => {
                self.answered(peer, referent, suggest_migrate, now, rng);
                if self.members.contains_key(&peer) {
                    self.hear(suggestions, Source::Indexer(peer), now, rng);
                }
            }
            Input::Missed { peer } => self.missed(peer, now),
            Input::Reset { peer } => self.suspect(peer, now),
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
                for Ranked { peer, low } in scores {
                    if let Some(member) = self.members.get_mut(&peer) {
                        member.low = Some(low);
                    }
                }
            }
            Input::Evicted { peer } => self.evicted(peer, now),
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
        let Some(member) = self.members.get_mut(&peer) else { return };
        let was = std::mem::replace(&mut member.life, Life::Answering);
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
            if !std::mem::take(&mut member.sticky) {
                member.leaving.get_or_insert(Why::Migrated);
            }
        } else {
            member.leaving = member.leaving.filter(|why| *why != Why::Migrated);
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

    fn missed(&mut self, peer: PeerId, now: Mono) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.missed = member.missed.saturating_add(1);
        if member.missed >= 2 {
            self.suspect(peer, now);
        }
    }

    fn suspect(&mut self, peer: PeerId, now: Mono) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        if matches!(member.life, Life::Suspect { .. }) {
            return;
        }
        member.life = Life::Suspect { since: now };
        self.ask_all = true;
        self.out.push(Action::Note(Event::Suspected { peer }));
    }

    /// The last member is kept, and so is a seed: known as down, and probed until one of them answers.
    fn budget_spent(&mut self, peer: PeerId, now: Mono, rng: &mut impl Rng) {
        let Some(member) = self.members.remove(&peer) else { return };
        let is_kept = member.about.seed || self.members.is_empty();
        let event = if is_kept { Event::Down { peer } } else { Event::Removed { peer, why: None } };
        self.out.push(Action::Note(event));
        self.ask_all = true;
        if is_kept {
            // There is one last member, not a heap of those that were it in turn.
            self.release_kept(now);
        }
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
        if known.about.seed || known.kept {
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
        if id == self.owner.peer_id || self.members.contains_key(&id) {
            return;
        }
        let addrs = hearsay(&id, &addrs, &self.owner.rule);
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
        self.let_leavers_go(now);
        self.admit(now);
        self.let_excess_go(now);
        self.mind_reach(now, rng);
        self.probe(now, rng);
        self.ask(now, rng);
        self.mind_referent(now);
        self.tell_need(now);
    }

    fn give_probes_up(&mut self, now: Mono, rng: &mut impl Rng) {
        let most = self.settings.probe_within + PROBE_LOST_AFTER;
        let is_lost = |known: &Known| known.probing.is_some_and(|since| now.since(since) >= most);
        let lost: Vec<PeerId> = self.known.iter().filter(|(_, known)| is_lost(known)).map(|(peer, _)| *peer).collect();
        for peer in lost {
            if let Some(known) = self.known.get_mut(&peer) {
                known.about.rhythm.probed(now, &self.beats);
            }
            self.probe_failed(peer, now, rng);
        }
    }

    /// One that leaves or asks us to move goes as soon as others carry us.
    fn let_leavers_go(&mut self, now: Mono) {
        let leavers: Vec<(PeerId, Why)> =
            self.members.iter().filter_map(|(peer, member)| member.leaving.map(|why| (*peer, why))).collect();
        for (peer, why) in leavers {
            let carriers = self.usable().filter(|(_, member)| why != Why::Migrated || !member.about.seed).count();
            if carriers < self.settings.min_indexer.max(1) as usize {
                continue;
            }
            let rest = if why == Why::Migrated { self.settings.migrated_rest } else { self.settings.backoff_first };
            self.stop(peer, why, rest, now);
        }
    }

    /// Good candidates join, best first, while more members are wanted.
    fn admit(&mut self, now: Mono) {
        loop {
            let wanted = self.wanted(now);
            let good = self.good(now);
            let Some((peer, at)) = good.first().copied() else { return };
            let probing = self.known.values().filter(|known| known.probing.is_some()).count();
            // Better ones may follow: not when all are taken anyway, and not when nobody carries us.
            let waits = good.len() + probing > wanted
                && probing > 0
                && now.since(at) < self.settings.settle
                && self.usable().next().is_some();
            if wanted == 0 || waits || !self.make_place(now) {
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
        let kept: Vec<PeerId> = self.known.iter().filter(|(_, known)| known.kept).map(|(peer, _)| *peer).collect();
        for peer in kept {
            let Some(mut known) = self.known.remove(&peer) else { continue };
            known.kept = false;
            self.keep(peer, known, now);
        }
    }

    fn probe(&mut self, now: Mono, rng: &mut impl Rng) {
        let is_lonely_step = self.alone.is_some_and(|backoff| now >= backoff.at);
        if is_lonely_step {
            self.alone = self.alone.map(|backoff| backoff.next(self.settings.backoff_max, now, rng));
        }
        let probing = self.known.values().filter(|known| known.probing.is_some()).count();
        let free = (self.settings.probes_max as usize).saturating_sub(probing);
        let mut chosen = if is_lonely_step { self.everybody(now) } else { self.worth_probing(probing, now, rng) };
        chosen.truncate(free);
        for peer in chosen {
            let Some(known) = self.known.get_mut(&peer) else { continue };
            known.probing = Some(now);
            known.probed_last = Some(now);
            self.out.push(Action::Probe { peer, addrs: known.about.addrs.clone() });
        }
    }

    /// While nobody answers, everybody is worth a probe: seeds first, then remembered ones, the longest unprobed first.
    fn everybody(&self, now: Mono) -> Vec<PeerId> {
        let mut all: Vec<_> = self.known.iter().filter(|(_, known)| self.is_allowed(known, now)).collect();
        all.sort_by_key(|(_, known)| (!known.about.seed, !known.about.remembered, known.probed_last));
        all.into_iter().map(|(peer, _)| *peer).collect()
    }

    fn worth_probing(&mut self, probing: usize, now: Mono, rng: &mut impl Rng) -> Vec<PeerId> {
        if self.alone.is_some() {
            return self.untried(now);
        }
        let wanted = self.wanted(now);
        let good = self.good(now).len();
        let more = match wanted {
            0 => (self.settings.standby as usize).saturating_sub(good + probing),
            wanted => (wanted + 2).saturating_sub(good + probing),
        };
        let mut chosen = self.stale_standby(now);
        chosen.extend(self.down_seeds(now));
        chosen.extend(self.departed(now, rng));
        chosen.extend(self.candidates(more, now, rng));
        let mut seen = BTreeSet::new();
        chosen.retain(|peer| seen.insert(*peer));
        chosen
    }

    /// While nobody answers, the growing pause is for those that failed before.
    fn untried(&self, now: Mono) -> Vec<PeerId> {
        let is_untried = |known: &Known| known.failures == 0 && known.good.is_none() && self.is_due(known, now);
        self.known.iter().filter(|(_, known)| is_untried(known)).map(|(peer, _)| *peer).collect()
    }

    fn stale_standby(&self, now: Mono) -> Vec<PeerId> {
        let is_stale = |peer: &PeerId| {
            self.known.get(peer).is_some_and(|known| {
                self.is_allowed(known, now)
                    && known.good.is_some_and(|good| now.since(good.at) >= self.settings.refresh_every)
            })
        };
        self.standby(now).into_iter().filter(is_stale).collect()
    }

    fn down_seeds(&self, now: Mono) -> Vec<PeerId> {
        let is_due = |known: &Known| known.about.seed && known.failures > 0 && self.is_due(known, now);
        self.known.iter().filter(|(_, known)| is_due(known)).map(|(peer, _)| *peer).collect()
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
        let open = || self.known.iter().filter(|(_, known)| is_open(known));
        let mut own: Vec<(&PeerId, &Known)> = open().filter(|(_, known)| !known.is_hearsay()).collect();
        own.sort_by_key(|(_, known)| (known.failures, !known.about.seed));
        let (fresh, failed): (Vec<_>, Vec<_>) = own.into_iter().partition(|(_, known)| known.failures == 0);
        let choices: Vec<Choice> = open()
            .filter(|(_, known)| known.is_hearsay())
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

    fn ask(&mut self, now: Mono, rng: &mut impl Rng) {
        while self.asked.front().is_some_and(|first| now.since(*first) >= Duration::from_secs(60)) {
            self.asked.pop_front();
        }
        let is_step_due = self.climb(now);
        let wanted = self.wanted(now);
        let at_hand = self.good(now).len() + self.known.values().filter(|known| known.probing.is_some()).count();
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
        let best = self.answering().first().copied();
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

    /// Candidates whose probe went well and is not too old, best first, with the time of their probe.
    fn good(&self, now: Mono) -> Vec<(PeerId, Mono)> {
        let mut good: Vec<(PeerId, Good)> = self
            .known
            .iter()
            .filter(|(_, known)| self.is_good(known, now) && known.about.rhythm.allowed_at(&self.beats) <= now)
            .filter_map(|(peer, known)| known.good.map(|good| (*peer, good)))
            .collect();
        good.sort_by(|(_, one), (_, other)| other.score.total_cmp(&one.score));
        good.into_iter().map(|(peer, good)| (peer, good.at)).collect()
    }

    fn standby(&self, now: Mono) -> Vec<PeerId> {
        self.good(now).into_iter().take(self.settings.standby as usize).map(|(peer, _)| peer).collect()
    }
}

impl Known {
    fn new(source: Source, fill_rate: Option<f64>) -> Self {
        let about =
            About { addrs: Vec::new(), seed: false, remembered: false, source, fill_rate, rhythm: Rhythm::default() };
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
        !self.about.seed && !self.about.remembered && !self.kept
    }

    fn fail(&mut self, pause: Duration, now: Mono, rng: &mut impl Rng) {
        let most = if self.about.seed || self.kept { SEED_PAUSE_MAX } else { OTHER_PAUSE_MAX };
        let pause = pause.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + pause + jittered(pause, 0.1, rng);
    }
}

fn is_usable_member(member: &Member) -> bool {
    member.life == Life::Answering && member.leaving.is_none()
}

/// An unknown score is neither praise nor guilt.
fn rank(member: &Member) -> f64 {
    member.low.unwrap_or(50.0)
}

/// What one probe says of a candidate, 0 to 100: half for its latency, half for its room. Without an answer body there
/// is half of the latency's part.
#[must_use]
pub fn quick_score(rtt: Duration, fill_rate: Option<f64>) -> f64 {
    /// A round trip this long is worth nothing.
    const WORST_SECS: f64 = 4.0;
    let latency = (1.0 - rtt.as_secs_f64() / WORST_SECS).clamp(0.0, 1.0);
    match fill_rate {
        Some(fill_rate) => 50.0 * latency + 50.0 * (1.0 - fill_rate.clamp(0.0, 1.0)),
        None => 25.0 * latency,
    }
}

/// A candidate to choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The indexer.
    pub peer: PeerId,
    /// 0 to 1; half full where unknown.
    pub fill_rate: Option<f64>,
    /// Where it is.
    pub subnet: Option<Subnet>,
}

/// How likely an indexer of this fill is to be chosen: most when half full, and never nothing, so that an empty one
/// can always win.
#[must_use]
pub fn weight(fill_rate: Option<f64>) -> f64 {
    let fill = fill_rate.unwrap_or(0.5);
    (fill * (1.0 - fill)).max(0.05)
}

/// Chooses up to `count` by weight, none twice; with `is_diverse` none from a subnet already chosen while others are
/// left.
#[must_use]
pub fn choose(choices: &[Choice], count: usize, is_diverse: bool, rng: &mut impl Rng) -> Vec<PeerId> {
    // Sorting by u^(1/w) draws by weight without replacement (Efraimidis and Spirakis, 2006).
    let mut drawn: Vec<(f64, &Choice)> =
        choices.iter().map(|choice| (rng.random::<f64>().powf(1.0 / weight(choice.fill_rate)), choice)).collect();
    drawn.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let mut subnets = BTreeSet::new();
    let is_new = |choice: &Choice| !is_diverse || choice.subnet.is_none_or(|subnet| subnets.insert(subnet));
    let mut is_new = is_new;
    let (mut chosen, mut rest) = (Vec::new(), Vec::new());
    for (_, choice) in drawn {
        if is_new(choice) { chosen.push(choice.peer) } else { rest.push(choice.peer) }
    }
    chosen.extend(rest);
    chosen.truncate(count);
    chosen
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::heartbeat::testing::peer;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// The peer with this number at its own address, each in its own subnet.
    fn info(number: u16) -> AddrInfo {
        let [high, low] = number.to_be_bytes();
        AddrInfo { id: peer(number), addrs: vec![format!("/ip4/51.{high}.{low}.1/tcp/4001").parse().unwrap()] }
    }

    fn infos(numbers: impl IntoIterator<Item = u16>) -> Vec<AddrInfo> {
        numbers.into_iter().map(info).collect()
    }

    fn owner(number: u16, is_indexer: bool) -> Owner {
        Owner { peer_id: peer(number), is_indexer, is_diverse: true, rule: Rule::default() }
    }

    fn new_pool(number: u16, is_indexer: bool) -> Pool {
        Pool::new(Settings::default(), heartbeat::Settings::default(), owner(number, is_indexer))
    }

    /// One pool, its clock and its chance.
    struct Bench {
        pool: Pool,
        now: Mono,
        rng: StdRng,
    }

    impl Bench {
        fn new(remembered: impl IntoIterator<Item = u16>, seeds: impl IntoIterator<Item = u16>) -> (Self, Vec<Action>) {
            let mut bench =
                Self { pool: new_pool(999, false), now: Mono::from_secs(10), rng: StdRng::seed_from_u64(1) };
            let actions = bench.feed(Input::Start { remembered: infos(remembered), seeds: infos(seeds) });
            (bench, actions)
        }

        /// With these members, all of which answered.
        fn with(
            remembered: impl IntoIterator<Item = u16> + Clone,
            seeds: impl IntoIterator<Item = u16> + Clone,
        ) -> Self {
            let (mut bench, _) = Self::new(remembered.clone(), seeds.clone());
            for number in remembered.into_iter().chain(seeds) {
                bench.answered(number);
            }
            bench
        }

        fn feed(&mut self, input: Input) -> Vec<Action> {
            self.pool.handle(input, self.now, &mut self.rng)
        }

        fn wait(&mut self, time: Duration) -> Vec<Action> {
            let (end, mut actions) = (self.now + time, Vec::new());
            loop {
                self.now = self.pool.wake(self.now).min(end);
                actions.extend(self.feed(Input::Tick));
                if self.now == end {
                    return actions;
                }
            }
        }

        /// Waits until it is probed, for at most `time`.
        fn is_probed_within(&mut self, number: u16, time: Duration) -> bool {
            let end = self.now + time;
            while self.now < end {
                self.now = self.pool.wake(self.now).min(end);
                if probes(&self.feed(Input::Tick)).contains(&peer(number)) {
                    return true;
                }
            }
            false
        }

        fn answered(&mut self, number: u16) -> Vec<Action> {
            let peer = peer(number);
            let referent = self.pool.referent() == Some(peer);
            self.feed(Input::Answered { peer, referent, suggestions: Vec::new(), suggest_migrate: false })
        }

        fn migrate(&mut self, number: u16, suggestions: Vec<AddrInfo>) -> Vec<Action> {
            self.feed(Input::Answered { peer: peer(number), referent: false, suggestions, suggest_migrate: true })
        }

        fn probed(&mut self, number: u16, fill: f64) -> Vec<Action> {
            let outcome = Probed::Answered { rtt: Duration::from_millis(20), fill_rate: Some(fill) };
            self.feed(Input::Probed { peer: peer(number), outcome })
        }

        fn state(&self, number: u16) -> Option<State> {
            self.pool.shown(self.now).into_iter().find(|shown| shown.peer == peer(number)).map(|shown| shown.state)
        }

        fn is_member(&self, number: u16) -> bool {
            self.pool.is_member(&peer(number))
        }
    }

    fn started(actions: &[Action]) -> Vec<PeerId> {
        actions
            .iter()
            .filter_map(|action| if let Action::Start { peer, .. } = action { Some(*peer) } else { None })
            .collect()
    }

    fn stopped(actions: &[Action]) -> Vec<(PeerId, Why)> {
        let stopped =
            |action: &Action| if let Action::Stop { peer, why } = action { Some((*peer, *why)) } else { None };
        actions.iter().filter_map(stopped).collect()
    }

    fn probes(actions: &[Action]) -> Vec<PeerId> {
        actions
            .iter()
            .filter_map(|action| if let Action::Probe { peer, .. } = action { Some(*peer) } else { None })
            .collect()
    }

    fn position(actions: &[Action], wanted: &Action) -> Option<usize> {
        actions.iter().position(|action| action == wanted)
    }

    // Joining.

    #[test]
    fn the_pool_is_filled_from_memory_and_then_from_seeds() {
        let (_, actions) = Bench::new([1, 2], [2, 3]);
        assert_eq!(started(&actions), [1, 2, 3].map(peer), "each once");
        let (_, actions) = Bench::new(1..=7, [8]);
        assert_eq!(started(&actions), [1, 2, 3, 4, 5].map(peer), "at most as many as wanted");
        let sticky: Vec<bool> = Bench::new([1], [2])
            .1
            .iter()
            .filter_map(|action| if let Action::Start { sticky, .. } = action { Some(*sticky) } else { None })
            .collect();
        assert_eq!(sticky, [false, true]);
    }

    #[test]
    fn we_are_never_in_our_own_pool() {
        let (mut bench, actions) = Bench::new([999], [999, 1]);
        assert_eq!(started(&actions), [peer(1)]);
        bench.answered(1);
        bench.feed(Input::Candidates { from: peer(1), candidates: infos([999]) });
        bench.feed(Input::Inbound { info: info(999) });
        bench.feed(Input::Dht { found: vec![Found { info: info(999), fill_rate: None }] });
        bench.wait(secs(5));
        assert!(!bench.is_member(999) && !bench.pool.known.contains_key(&peer(999)));
    }

    #[test]
    fn members_that_do_not_answer_soon_do_not_hold_the_others_up() {
        let (mut bench, actions) = Bench::new(1..=5, [8]);
        assert_eq!(probes(&actions), [peer(8)], "a standby is made ready from the first moment");
        assert_eq!(started(&bench.probed(8, 0.5)), [], "memory has its chance");
        assert_eq!(bench.pool.need(), 0);
        assert_eq!(started(&bench.wait(secs(2))), [peer(8)], "memory is slow");
    }

    #[test]
    fn a_member_is_asked_for_candidates_after_its_first_answer_and_at_most_six_times_a_minute() {
        let (mut bench, _) = Bench::new([], [1]);
        bench.answered(1);
        let mut asked = Vec::new();
        let begin = bench.now;
        for _ in 0..600 {
            for action in bench.wait(Duration::from_millis(100)) {
                if let Action::AskCandidates { members, count } = action {
                    assert_eq!(members, [peer(1)]);
                    assert_eq!(count, 6, "need and two more");
                    asked.push(bench.now.since(begin).as_millis());
                }
            }
        }
        assert_eq!(asked, [500, 1_000, 2_000, 4_000, 8_000]);
        let mut bench = Bench::with([], [1, 2, 3, 4]);
        let mut asks = 0;
        for number in 1..=4 {
            bench.feed(Input::Reset { peer: peer(number) });
            bench.answered(number);
        }
        for action in bench.wait(secs(50)) {
            if let Action::AskCandidates { members, .. } = action {
                asks += members.len();
            }
        }
        assert!(asks <= 6, "{asks}");
    }

    #[test]
    fn candidates_are_probed_and_the_good_ones_join() {
        let mut bench = Bench::with([], [1]);
        let actions = bench.feed(Input::Candidates { from: peer(1), candidates: infos(2..=9) });
        let probed = probes(&actions);
        assert_eq!(probed.len(), 6, "need and two more");
        for peer in &probed[..2] {
            let outcome = Probed::Answered { rtt: secs(4), fill_rate: Some(0.7) };
            bench.feed(Input::Probed { peer: *peer, outcome });
            assert!(!bench.pool.is_member(peer), "a quick score of 15 is below 20");
        }
        for peer in &probed[2..] {
            let outcome = Probed::Answered { rtt: Duration::from_millis(20), fill_rate: Some(0.5) };
            bench.feed(Input::Probed { peer: *peer, outcome });
        }
        bench.wait(secs(1));
        assert_eq!(bench.pool.members.len(), 5);
        assert_eq!(bench.pool.need(), 0);
    }

    #[test]
    fn of_good_candidates_the_best_join() {
        let mut bench = Bench::with([], [1, 2, 3, 4]);
        let probed = probes(&bench.feed(Input::Candidates { from: peer(1), candidates: infos(11..=13) }));
        assert_eq!(probed.len(), 3);
        bench.probed(11, 0.9);
        bench.probed(12, 0.1);
        let actions = bench.probed(13, 0.5);
        assert_eq!(started(&actions), [peer(12)]);
        assert_eq!(bench.state(13), Some(State::Standby));
        assert_eq!(bench.state(11), None);
    }

    #[test]
    fn an_indexer_that_speaks_to_us_is_a_candidate_while_there_is_room() {
        let mut bench = Bench::with([], [1]);
        let unreachable = AddrInfo { id: peer(7), addrs: Vec::new() };
        assert_eq!(probes(&bench.feed(Input::Inbound { info: unreachable })), [peer(7)], "it is connected");
        assert_eq!(started(&bench.probed(7, 0.2)), [peer(7)]);
    }

    #[test]
    fn the_quick_score_is_half_latency_and_half_room() {
        let check = |rtt_ms, fill, expected: f64| {
            let got = quick_score(Duration::from_millis(rtt_ms), fill);
            assert!((got - expected).abs() < 1e-9, "{got} {expected}");
        };
        check(0, Some(0.0), 100.0);
        check(4_000, Some(1.0), 0.0);
        check(2_000, Some(0.5), 50.0);
        check(0, None, 25.0);
        check(9_000, Some(0.0), 50.0);
    }

    // Losing.

    #[test]
    fn a_standby_whose_connection_closed_is_none_until_it_is_probed_again() {
        let mut bench = Bench::with(1..=5, []);
        bench.feed(Input::Inbound { info: info(9) });
        bench.probed(9, 0.3);
        assert_eq!(bench.state(9), Some(State::Standby));
        bench.feed(Input::Gone { peer: peer(9) });
        assert_eq!(bench.state(9), None, "it may be dead");
        bench.feed(Input::Gone { peer: peer(2) });
        assert_eq!(bench.state(2), Some(State::Answering), "members notice by their heartbeats");
    }

    #[test]
    fn g2_g3_what_is_shown_is_a_copy_and_changes_nothing() {
        let bench = Bench::with(1..=3, []);
        let mut shown = bench.pool.shown(bench.now);
        shown.iter_mut().for_each(|shown| {
            shown.addrs.clear();
            shown.missed = 99;
        });
        shown.clear();
        let again = bench.pool.shown(bench.now);
        assert_eq!(again.len(), 3);
        assert!(again.iter().all(|shown| shown.missed == 0 && !shown.addrs.is_empty()));
    }

    #[test]
    fn g45_one_hiccup_removes_nobody_and_a_second_brings_the_standby() {
        let mut bench = Bench::with(1..=5, []);
        bench.feed(Input::Inbound { info: info(9) });
        bench.probed(9, 0.3);
        assert_eq!(bench.state(9), Some(State::Standby));
        assert_eq!(bench.feed(Input::Missed { peer: peer(2) }), []);
        assert_eq!(bench.state(2), Some(State::Answering));
        let actions = bench.feed(Input::Missed { peer: peer(2) });
        assert_eq!(started(&actions), [peer(9)], "at once");
        assert_eq!(bench.state(2), Some(State::Suspect), "it keeps its restarts");
        bench.answered(2);
        assert_eq!(bench.state(2), Some(State::Answering));
    }

    #[test]
    fn a_hiccup_between_answers_is_no_second_one() {
        let mut bench = Bench::with(1..=5, []);
        for _ in 0..5 {
            bench.feed(Input::Missed { peer: peer(2) });
            bench.answered(2);
        }
        assert_eq!(bench.state(2), Some(State::Answering));
    }

    #[test]
    fn g5_g6_what_happens_to_one_member_touches_no_other() {
        let ends: [fn(PeerId) -> Input; 5] = [
            |peer| Input::Reset { peer },
            |peer| Input::BudgetSpent { peer },
            |peer| Input::Evicted { peer },
            |peer| Input::Left { peer, alternatives: Vec::new() },
            |peer| Input::Busy { peer, retry_after: secs(9), alternatives: Vec::new() },
        ];
        for end in ends {
            for number in [2, 77] {
                let mut bench = Bench::with(1..=4, []);
                let before: Vec<Shown> = bench.pool.shown(bench.now);
                let actions = bench.feed(end(peer(number)));
                assert!(stopped(&actions).iter().all(|(peer, _)| *peer == super::tests::peer(number)), "{actions:?}");
                let others = |shown: &[Shown]| -> Vec<Shown> {
                    shown.iter().filter(|shown| shown.peer != peer(number)).cloned().collect()
                };
                assert_eq!(others(&before), others(&bench.pool.shown(bench.now)));
            }
        }
    }

    #[test]
    fn a_seed_stays_and_is_retried_until_it_returns() {
        let mut bench = Bench::with([1, 2], [3]);
        bench.feed(Input::Reset { peer: peer(3) });
        bench.feed(Input::BudgetSpent { peer: peer(3) });
        assert_eq!(bench.state(3), Some(State::Down));
        for _ in 0..5 {
            assert!(bench.is_probed_within(3, SEED_PAUSE_MAX + secs(7)));
            bench.feed(Input::Probed { peer: peer(3), outcome: Probed::Unreachable });
            assert_eq!(bench.state(3), Some(State::Down));
        }
        assert!(bench.is_probed_within(3, SEED_PAUSE_MAX + secs(7)));
        assert_eq!(started(&bench.probed(3, 0.5)), [peer(3)]);
    }

    #[test]
    fn the_last_member_is_kept_whatever_happens_to_it() {
        let mut bench = Bench::with([1], []);
        assert_eq!(bench.feed(Input::Evicted { peer: peer(1) }), []);
        assert_eq!(stopped(&bench.feed(Input::Left { peer: peer(1), alternatives: Vec::new() })), []);
        assert!(bench.is_member(1));
        bench.feed(Input::Reset { peer: peer(1) });
        bench.feed(Input::BudgetSpent { peer: peer(1) });
        assert_eq!(bench.state(1), Some(State::Down));
        assert_eq!(bench.pool.reach(), Reach::Isolated);
        bench.feed(Input::Inbound { info: info(2) });
        bench.probed(2, 0.5);
        assert_eq!(bench.state(1), Some(State::Down), "until another answers");
        bench.answered(2);
        assert_eq!(bench.pool.reach(), Reach::Joined);
    }

    #[test]
    fn an_evicted_member_is_stopped_forgotten_and_does_not_come_back_soon() {
        let mut bench = Bench::with([1, 2], []);
        let actions = bench.feed(Input::Evicted { peer: peer(2) });
        assert_eq!(stopped(&actions), [(peer(2), Why::Evicted)]);
        assert!(actions.contains(&Action::Forget { peer: peer(2) }));
        let again = bench.feed(Input::Candidates { from: peer(1), candidates: infos([2]) });
        assert_eq!(probes(&again), []);
        bench.feed(Input::Inbound { info: AddrInfo { id: peer(2), addrs: info(55).addrs } });
        assert!(!probes(&bench.wait(secs(1_700))).contains(&peer(2)));
    }

    #[test]
    fn a_sticky_member_is_not_evicted() {
        let mut bench = Bench::with([1], [2]);
        assert_eq!(bench.feed(Input::Evicted { peer: peer(2) }), []);
        assert!(bench.is_member(2));
    }

    #[test]
    fn one_that_leaves_goes_at_once_when_others_carry_us_and_its_alternatives_are_tried() {
        let mut bench = Bench::with([1, 2], []);
        let actions = bench.feed(Input::Left { peer: peer(1), alternatives: infos([5, 6]) });
        assert_eq!(stopped(&actions), [(peer(1), Why::Left)]);
        assert_eq!(probes(&actions).len(), 2);
    }

    #[test]
    fn the_only_one_that_leaves_is_kept_until_another_answers() {
        let mut bench = Bench::with([1], []);
        let actions = bench.feed(Input::Left { peer: peer(1), alternatives: infos([5]) });
        assert_eq!((stopped(&actions), probes(&actions)), (vec![], vec![peer(5)]));
        let actions = bench.probed(5, 0.5);
        assert_eq!((stopped(&actions), started(&actions)), (vec![], vec![peer(5)]));
        let referent = actions.iter().any(|action| matches!(action, Action::Start { referent: true, .. }));
        assert!(referent, "its first question says that it represents us");
        assert_eq!(stopped(&bench.answered(5)), [(peer(1), Why::Left)]);
    }

    #[test]
    fn a_busy_member_waits_and_another_is_sought() {
        let (mut bench, _) = Bench::new([], [1]);
        let alternatives = infos([5]);
        let actions = bench.feed(Input::Busy { peer: peer(1), retry_after: secs(30), alternatives });
        assert_eq!(probes(&actions), [peer(5)]);
        assert!(bench.is_member(1), "it keeps its turn");
        assert_eq!(bench.pool.rhythm(&peer(1)).due(&heartbeat::Settings::default()), bench.now + secs(30));
        bench.probed(5, 0.5);
        bench.answered(5);
        assert_eq!(bench.pool.referent(), Some(peer(5)));
    }

    #[test]
    fn a_busy_candidate_is_left_alone_for_as_long_as_it_says() {
        let mut bench = Bench::with([], [1]);
        bench.feed(Input::Candidates { from: peer(1), candidates: infos([5]) });
        let outcome = Probed::Busy { retry_after: secs(45), alternatives: Vec::new() };
        bench.feed(Input::Probed { peer: peer(5), outcome });
        assert!(!probes(&bench.wait(secs(44))).contains(&peer(5)));
        assert!(probes(&bench.wait(secs(2))).contains(&peer(5)));
    }

    // Moving.

    #[test]
    fn a_seed_that_asks_us_to_move_loses_its_stickiness_and_then_us() {
        let mut bench = Bench::with([1, 2], [3]);
        assert_eq!(stopped(&bench.migrate(3, vec![])), []);
        assert!(bench.pool.members().all(|(_, sticky)| !sticky));
        assert_eq!(stopped(&bench.migrate(3, vec![])), [(peer(3), Why::Migrated)]);
        assert!(!probes(&bench.wait(secs(590))).contains(&peer(3)), "it is left in peace");
    }

    #[test]
    fn a_move_is_obeyed_only_once_enough_others_that_are_no_seeds_answer() {
        let mut bench = Bench::with([1], [3]);
        assert_eq!(stopped(&bench.migrate(1, vec![])), [], "only a seed is left");
        let actions = bench.migrate(1, infos([5]));
        assert_eq!(probes(&actions), [peer(5)]);
        bench.probed(5, 0.2);
        assert_eq!(stopped(&bench.answered(5)), [(peer(1), Why::Migrated)]);
    }

    #[test]
    fn one_that_asks_us_to_move_carries_us_until_another_does_or_it_changes_its_mind() {
        let mut bench = Bench::with([1], []);
        bench.migrate(1, vec![]);
        assert_eq!(bench.pool.reach(), Reach::Joined);
        assert_eq!(bench.pool.answering(), [peer(1)]);
        assert_eq!(bench.pool.referent(), Some(peer(1)));
        bench.wait(secs(60));
        assert_eq!((bench.pool.reach(), bench.pool.need()), (Reach::Joined, 5));
        bench.answered(1);
        assert_eq!(bench.pool.need(), 4);
        bench.feed(Input::Inbound { info: info(2) });
        bench.probed(2, 0.5);
        assert_eq!(stopped(&bench.answered(2)), []);
    }

    #[test]
    fn a_full_pool_takes_suggestions_of_one_that_asks_us_to_move() {
        let mut bench = Bench::with([], 1..=5);
        bench.migrate(1, vec![]);
        let actions = bench.migrate(1, infos([7]));
        assert_eq!((stopped(&actions), probes(&actions)), (vec![], vec![peer(7)]));
        assert_eq!(started(&bench.probed(7, 0.1)), [peer(7)]);
        assert_eq!(bench.pool.members.len(), 6);
        assert_eq!(stopped(&bench.answered(7)), [(peer(1), Why::Migrated)]);
    }

    #[test]
    fn more_members_than_wanted_are_kept_a_while_and_then_the_worst_goes() {
        let mut bench = Bench::with(1..=5, []);
        bench.feed(Input::Inbound { info: info(9) });
        bench.probed(9, 0.3);
        bench.feed(Input::Reset { peer: peer(2) });
        bench.answered(9);
        bench.answered(2);
        assert_eq!(bench.pool.members.len(), 6);
        let ranked = |number| Ranked { peer: peer(number), low: f64::from(number) * 10.0 };
        bench.feed(Input::Scores((1..=9).map(ranked).collect()));
        assert_eq!(bench.pool.referent(), Some(peer(1)), "the worst of all represents us and stays");
        assert_eq!(stopped(&bench.wait(secs(299))), []);
        assert_eq!(stopped(&bench.wait(secs(2))), [(peer(2), Why::Excess)]);
    }

    // The referent.

    #[test]
    fn the_first_to_join_is_told_with_its_first_question_and_stays_when_it_answers_soon() {
        let (mut bench, actions) = Bench::new([1, 2], []);
        let told: Vec<bool> = actions
            .iter()
            .filter_map(|action| if let Action::Start { referent, .. } = action { Some(*referent) } else { None })
            .collect();
        assert_eq!(told, [true, false]);
        bench.answered(2);
        assert_eq!(bench.pool.referent(), Some(peer(1)));
        bench.answered(1);
        assert_eq!(bench.pool.referent(), Some(peer(1)));
    }

    #[test]
    fn one_that_answers_replaces_a_first_choice_that_does_not() {
        let (mut bench, _) = Bench::new([1, 2], []);
        bench.answered(2);
        let actions = bench.wait(secs(1));
        assert_eq!(bench.pool.referent(), Some(peer(2)));
        assert!(actions.contains(&Action::Nudge { peer: peer(2) }));
    }

    #[test]
    fn a_lost_referent_is_replaced_by_a_nudge_at_once() {
        let mut bench = Bench::with(1..=3, []);
        bench.feed(Input::Scores(vec![Ranked { peer: peer(3), low: 70.0 }, Ranked { peer: peer(2), low: 60.0 }]));
        let actions = bench.feed(Input::Reset { peer: peer(1) });
        assert!(actions.contains(&Action::SetReferent { peer: peer(3), referent: true }));
        assert!(actions.contains(&Action::Nudge { peer: peer(3) }));
        assert!(actions.contains(&Action::SetReferent { peer: peer(1), referent: false }));
        assert!(!actions.contains(&Action::Nudge { peer: peer(1) }), "it does not answer");
    }

    #[test]
    fn the_referent_changes_only_for_a_lead_of_ten_points_held_for_five_minutes() {
        let mut bench = Bench::with(1..=2, []);
        let score = |bench: &mut Bench, lead| {
            bench.feed(Input::Scores(vec![
                Ranked { peer: peer(1), low: 50.0 },
                Ranked { peer: peer(2), low: 50.0 + lead },
            ]))
        };
        score(&mut bench, 9.9);
        bench.wait(secs(1_000));
        assert_eq!(bench.pool.referent(), Some(peer(1)));
        score(&mut bench, 10.0);
        bench.wait(secs(299));
        score(&mut bench, 9.0);
        score(&mut bench, 10.0);
        bench.wait(secs(299));
        assert_eq!(bench.pool.referent(), Some(peer(1)), "the lead was interrupted");
        let actions = bench.wait(secs(1));
        assert_eq!(bench.pool.referent(), Some(peer(2)));
        let (told, nudged) = (Action::SetReferent { peer: peer(2), referent: true }, Action::Nudge { peer: peer(2) });
        assert!(position(&actions, &told).unwrap() < position(&actions, &nudged).unwrap());
        let former = Action::SetReferent { peer: peer(1), referent: false };
        assert_eq!(position(&actions, &former), None, "the former is told after the new one");
        let early =
            bench.feed(Input::Answered { peer: peer(2), referent: false, suggestions: vec![], suggest_migrate: false });
        assert_eq!(position(&early, &former), None, "that answer was to an earlier question");
        let actions = bench.answered(2);
        assert!(position(&actions, &former).unwrap() < position(&actions, &Action::Nudge { peer: peer(1) }).unwrap());
    }

    // Bounds.

    #[test]
    fn g28_no_source_fills_the_pool_or_the_memory() {
        let mut bench = Bench::with(1..=5, []);
        bench.feed(Input::Candidates { from: peer(1), candidates: infos(100..1_000) });
        assert_eq!(bench.pool.known.len(), 10, "from one answer");
        bench.feed(Input::Candidates { from: peer(1), candidates: infos(200..1_000) });
        assert_eq!(bench.pool.known.len(), 16, "from one source");
        for (nth, source) in (2..=5).enumerate() {
            let first = 2_000 + 100 * nth as u16;
            for from in [first, first + 10] {
                bench.feed(Input::Candidates { from: peer(source), candidates: infos(from..from + 10) });
            }
        }
        assert_eq!(bench.pool.known.len(), 64, "in all");
        bench.feed(Input::Candidates { from: peer(77), candidates: infos(5_000..5_010) });
        assert!(!bench.pool.known.contains_key(&peer(5_000)), "nobody asked it");
        assert_eq!(bench.pool.members.len(), 5, "nobody joined unprobed");
    }

    #[test]
    fn g28_failed_candidates_make_room_for_others() {
        let mut bench = Bench::with([], [1]);
        for first in [100, 110] {
            bench.feed(Input::Candidates { from: peer(1), candidates: infos(first..first + 10) });
        }
        assert_eq!(bench.pool.known.len(), 16);
        bench.feed(Input::Candidates { from: peer(1), candidates: infos([5]) });
        assert!(!bench.pool.known.contains_key(&peer(5)), "nobody failed yet");
        for (number, outcome) in [(100, Probed::Silent), (101, Probed::Unreachable)] {
            // As if chance had chosen it for a probe.
            bench.pool.known.get_mut(&peer(number)).unwrap().probing = Some(bench.now);
            bench.feed(Input::Probed { peer: peer(number), outcome });
        }
        bench.feed(Input::Candidates { from: peer(1), candidates: infos([5, 6]) });
        assert!(bench.pool.known.contains_key(&peer(5)) && !bench.pool.known.contains_key(&peer(101)));
        assert!(bench.pool.known.contains_key(&peer(100)), "it was asked a moment ago, which is remembered");
        assert!(!bench.pool.known.contains_key(&peer(6)));
    }

    #[test]
    fn a_dead_candidate_of_which_nobody_speaks_is_dropped() {
        let mut bench = Bench::with([], [1]);
        bench.feed(Input::Candidates { from: peer(1), candidates: infos([5]) });
        for _ in 0..40 {
            bench.feed(Input::Probed { peer: peer(5), outcome: Probed::Unreachable });
            bench.is_probed_within(5, secs(60));
        }
        assert!(!bench.pool.known.contains_key(&peer(5)));
    }

    #[test]
    fn a_stream_of_strangers_does_not_keep_a_lonely_node_from_its_seed() {
        let mut bench = Bench::with([], [1]);
        bench.feed(Input::Reset { peer: peer(1) });
        bench.feed(Input::BudgetSpent { peer: peer(1) });
        let mut probed = 0;
        for number in 100..160 {
            bench.feed(Input::Inbound { info: info(number) });
            bench.feed(Input::Probed { peer: peer(number), outcome: Probed::Silent });
            probed += probes(&bench.wait(secs(1))).iter().filter(|probed| **probed == peer(1)).count();
            bench.feed(Input::Probed { peer: peer(1), outcome: Probed::Unreachable });
        }
        assert!(probed >= 5, "{probed} in a minute: 2, 4, 8, 16 and 30 s apart at the least");
    }

    #[test]
    fn only_one_last_member_is_kept() {
        let (mut bench, _) = Bench::new([], []);
        for number in 1..=100 {
            bench.feed(Input::Inbound { info: info(number) });
            bench.probed(number, 0.2);
            bench.feed(Input::Reset { peer: peer(number) });
            bench.feed(Input::BudgetSpent { peer: peer(number) });
        }
        assert_eq!(bench.pool.known.values().filter(|known| known.kept).count(), 1);
        assert!(bench.pool.known.len() <= 65, "{}", bench.pool.known.len());
    }

    #[test]
    fn a_memory_full_of_the_dead_holds_nobody_up() {
        let mut bench = Bench::with([], [1]);
        for number in 100..132 {
            bench.pool.enter(info(number), false, true);
            bench.pool.known.get_mut(&peer(number)).unwrap().failures = 1;
        }
        let probed = probes(&bench.feed(Input::Candidates { from: peer(1), candidates: infos([5, 6]) }));
        assert!(probed.contains(&peer(5)) && probed.contains(&peer(6)), "{probed:?}");
    }

    #[test]
    fn a_candidate_that_moved_is_tried_where_it_says_it_is() {
        let mut bench = Bench::with(1..=5, []);
        let at =
            |port: u16| AddrInfo { id: peer(9), addrs: vec![format!("/ip4/51.9.9.9/tcp/{port}").parse().unwrap()] };
        for port in 1..=20 {
            bench.feed(Input::Inbound { info: at(port) });
        }
        let known = &bench.pool.known[&peer(9)];
        assert_eq!(known.about.addrs.len(), 8);
        assert_eq!(known.about.addrs[0], at(20).addrs[0]);
    }

    #[test]
    fn addresses_that_this_network_does_not_have_are_not_believed() {
        let mut bench = Bench::with([], [1]);
        let at = |addr: &str| AddrInfo { id: peer(5), addrs: vec![addr.parse().unwrap()] };
        for addr in ["/ip4/127.0.0.1/tcp/1", "/ip4/0.0.0.0/tcp/1", "/ip6/::1/tcp/1"] {
            bench.feed(Input::Candidates { from: peer(1), candidates: vec![at(addr)] });
            assert!(bench.pool.known.is_empty(), "{addr}");
        }
        bench.pool.owner.rule.is_local = true;
        bench.feed(Input::Candidates { from: peer(1), candidates: vec![at("/ip4/127.0.0.1/tcp/1")] });
        assert_eq!(bench.pool.known.len(), 1);
    }

    #[test]
    fn never_more_members_than_twice_the_target() {
        let (mut bench, _) = Bench::new(1..=5, []);
        for round in 0..6u16 {
            let lost: Vec<PeerId> = bench.pool.members().map(|(peer, _)| peer).collect();
            for peer in lost {
                bench.feed(Input::Reset { peer });
            }
            for number in 0..5 {
                let number = 100 + 10 * round + number;
                bench.feed(Input::Inbound { info: info(number) });
                bench.probed(number, 0.2);
                bench.answered(number);
            }
            assert!(bench.pool.members.len() <= 10);
            assert_eq!(bench.pool.answering().len(), 5, "the longest suspected made room");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut bench, _) = Bench::new([], []);
        let mut rows = BTreeSet::new();
        for number in 1..=60 {
            let mut actions = bench.feed(Input::Inbound { info: info(number) });
            actions.extend(bench.probed(number, 0.2));
            actions.extend(bench.answered(number));
            actions.extend(bench.feed(Input::Reset { peer: peer(number) }));
            actions.extend(bench.feed(Input::BudgetSpent { peer: peer(number) }));
            for action in actions {
                match action {
                    Action::Remember { peer, .. } => assert!(rows.insert(peer)),
                    Action::Forget { peer } => assert!(rows.remove(&peer)),
                    _ => {}
                }
            }
        }
        assert_eq!(rows.len(), 32);
    }

    // Choosing.

    #[test]
    fn g29_an_empty_indexer_can_be_chosen_and_a_half_full_one_most() {
        assert_eq!(weight(Some(0.0)), 0.05);
        assert_eq!(weight(Some(1.0)), 0.05);
        assert_eq!(weight(Some(0.5)), 0.25);
        assert_eq!(weight(None), 0.25);
        assert!((weight(Some(0.2)) - 0.16).abs() < 1e-12);
    }

    #[test]
    fn g29_choices_are_random_by_weight_and_not_a_sort() {
        let choice = |number, fill_rate| Choice { peer: peer(number), fill_rate: Some(fill_rate), subnet: None };
        let choices = [choice(1, 0.0), choice(2, 0.5), choice(3, 0.2)];
        let (mut rng, mut first) = (StdRng::seed_from_u64(5), [0u32; 3]);
        for _ in 0..20_000 {
            let chosen = choose(&choices, 1, false, &mut rng);
            first[choices.iter().position(|choice| choice.peer == chosen[0]).unwrap()] += 1;
        }
        let share = first.map(|count| f64::from(count) / 20_000.0);
        for (share, weight) in share.into_iter().zip([0.05, 0.25, 0.16]) {
            assert!((share - weight / 0.46).abs() < 0.02, "{share} {weight}");
        }
    }

    #[test]
    fn choices_are_spread_over_subnets_while_others_are_left() {
        let at = |number, addr: &str| {
            let subnet = Subnet::of_addr(&addr.parse().unwrap());
            Choice { peer: peer(number), fill_rate: None, subnet }
        };
        let near = |number| at(number, &format!("/ip4/51.1.1.{number}/tcp/1"));
        let choices = [near(1), near(2), near(3), at(4, "/ip4/51.1.2.1/tcp/1"), at(5, "/ip6/2001:db8:1::1/tcp/1")];
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let chosen = choose(&choices, 3, true, &mut rng);
            assert!(chosen.contains(&peer(4)) && chosen.contains(&peer(5)), "{chosen:?}");
            let all = choose(&choices, 9, true, &mut rng);
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 5, "none twice, none lost");
        }
    }

    // Whole networks in virtual time.

    struct Beat {
        rhythm: Rhythm,
        referent: bool,
        failures: VecDeque<Mono>,
        life: u64,
    }

    struct Peer {
        pool: Pool,
        beats: BTreeMap<PeerId, Beat>,
        memory: BTreeMap<PeerId, AddrInfo>,
        is_indexer: bool,
        is_up: bool,
        is_frozen: bool,
        seeds: Vec<AddrInfo>,
        wake_at: Mono,
        log: Vec<(Mono, Event)>,
        /// Beats and probes that reached somebody.
        sent: BTreeMap<PeerId, Vec<Mono>>,
    }

    enum Happens {
        Wake(u16),
        Beat(u16, PeerId, u64),
        Missed(u16, PeerId, u64),
        Lost(u16, PeerId),
        Feed(u16, Input),
    }

    impl Happens {
        fn whose(&self) -> u16 {
            match self {
                Self::Wake(number)
                | Self::Beat(number, ..)
                | Self::Missed(number, ..)
                | Self::Lost(number, _)
                | Self::Feed(number, _) => *number,
            }
        }
    }

    /// Every peer on a network without loss: 10 ms for an answer, refusals at once.
    struct World {
        now: Mono,
        rng: StdRng,
        peers: BTreeMap<u16, Peer>,
        agenda: BTreeMap<(Mono, u64), Happens>,
        count: u64,
        has_dht: bool,
    }

    impl World {
        fn new(seed: u64) -> Self {
            Self {
                now: Mono::from_secs(1),
                rng: StdRng::seed_from_u64(seed),
                peers: BTreeMap::new(),
                agenda: BTreeMap::new(),
                count: 0,
                has_dht: false,
            }
        }

        fn at(&mut self, after: Duration, what: Happens) {
            self.count += 1;
            self.agenda.insert((self.now + after, self.count), what);
        }

        fn start(&mut self, number: u16, is_indexer: bool, seeds: &[u16]) {
            let memory = self.peers.get(&number).map(|peer| peer.memory.clone()).unwrap_or_default();
            let remembered = memory.values().cloned().collect();
            let seeds = infos(seeds.iter().copied());
            let peer = Peer {
                pool: new_pool(number, is_indexer),
                beats: BTreeMap::new(),
                memory,
                is_indexer,
                is_up: true,
                is_frozen: false,
                seeds: seeds.clone(),
                wake_at: Mono::ZERO,
                log: Vec::new(),
                sent: BTreeMap::new(),
            };
            self.peers.insert(number, peer);
            self.feed(number, Input::Start { remembered, seeds });
        }

        fn number(&self, peer: PeerId) -> u16 {
            (1..2_000).find(|number| super::tests::peer(*number) == peer).unwrap()
        }

        fn target(&self, peer: PeerId) -> Option<(u16, &Peer)> {
            let number = self.number(peer);
            self.peers.get(&number).filter(|peer| peer.is_up).map(|peer| (number, peer))
        }

        /// Its connections are reset at once.
        fn kill(&mut self, number: u16) {
            self.peers.get_mut(&number).unwrap().is_up = false;
            let lost = peer(number);
            let numbers: Vec<u16> = self.peers.keys().copied().collect();
            for other in numbers {
                if self.peers[&other].is_up && self.peers[&other].beats.contains_key(&lost) {
                    self.at(Duration::ZERO, Happens::Lost(other, lost));
                }
            }
        }

        fn restart(&mut self, number: u16) {
            let (is_indexer, seeds) = {
                let peer = &self.peers[&number];
                (peer.is_indexer, peer.seeds.iter().map(|seed| self.number(seed.id)).collect::<Vec<_>>())
            };
            self.start(number, is_indexer, &seeds);
        }

        fn feed(&mut self, number: u16, input: Input) {
            let now = self.now;
            let rng = &mut self.rng;
            let Some(peer) = self.peers.get_mut(&number).filter(|peer| peer.is_up) else { return };
            let actions = peer.pool.handle(input, now, rng);
            for action in actions {
                self.act(number, action);
            }
            let peer = &self.peers[&number];
            assert_eq!(
                peer.pool.members().map(|(peer, _)| peer).collect::<BTreeSet<_>>(),
                peer.beats.keys().copied().collect(),
                "every member has its heartbeat and nobody else"
            );
            // The actor re-arms its one timer after every message.
            let wake_at = peer.pool.wake(now);
            if wake_at != peer.wake_at {
                self.peers.get_mut(&number).unwrap().wake_at = wake_at;
                self.at(wake_at.since(now), Happens::Wake(number));
            }
        }

        fn act(&mut self, number: u16, action: Action) {
            let now = self.now;
            let peer = self.peers.get_mut(&number).unwrap();
            match action {
                Action::Start { peer: to, referent, rhythm, .. } => {
                    let life = self.count;
                    let due = rhythm.due(&heartbeat::Settings::default()).since(now);
                    let beat = Beat { rhythm, referent, failures: VecDeque::new(), life };
                    assert!(peer.beats.insert(to, beat).is_none(), "started twice");
                    self.at(due, Happens::Beat(number, to, life));
                }
                Action::Stop { peer: to, .. } => assert!(peer.beats.remove(&to).is_some(), "stopped, not started"),
                Action::Nudge { peer: to } => {
                    let beat = peer.beats.get_mut(&to).expect("nudged, not started");
                    beat.rhythm.nudge();
                    let (due, life) = (beat.rhythm.due(&heartbeat::Settings::default()).since(now), beat.life);
                    self.at(due, Happens::Beat(number, to, life));
                }
                Action::SetReferent { peer: to, referent } => peer.beats.get_mut(&to).unwrap().referent = referent,
                Action::SetNeed { .. } => {}
                Action::AskCandidates { members, count } => {
                    for from in members {
                        let Some((_, asked)) = self.target(from).filter(|(_, asked)| !asked.is_frozen) else {
                            continue;
                        };
                        let known =
                            asked.pool.answering().into_iter().filter(|known| *known != super::tests::peer(number));
                        let candidates = infos(known.take(count as usize).map(|known| self.number(known)));
                        self.at(
                            Duration::from_millis(10),
                            Happens::Feed(number, Input::Candidates { from, candidates }),
                        );
                    }
                }
                Action::AskDht => {
                    let found = self.peers.iter().filter(|(_, peer)| self.has_dht && peer.is_up && peer.is_indexer);
                    let found = found.map(|(number, _)| Found { info: info(*number), fill_rate: None }).collect();
                    self.at(Duration::from_millis(30), Happens::Feed(number, Input::Dht { found }));
                }
                Action::Probe { peer: to, .. } => {
                    let (after, outcome) = match self.target(to) {
                        None => (1, Probed::Unreachable),
                        Some((_, probed)) if probed.is_frozen => (8_000, Probed::Silent),
                        Some(_) => (10, Probed::Answered { rtt: Duration::from_millis(10), fill_rate: Some(0.3) }),
                    };
                    if outcome != Probed::Unreachable {
                        self.sent(number, to);
                    }
                    let input = Input::Probed { peer: to, outcome };
                    self.at(Duration::from_millis(after), Happens::Feed(number, input));
                }
                Action::Remember { peer: to, addrs } => {
                    peer.memory.insert(to, AddrInfo { id: to, addrs });
                }
                Action::Forget { peer: to } => assert!(peer.memory.remove(&to).is_some()),
                Action::Note(event) => peer.log.push((now, event)),
            }
        }

        /// No indexer is asked more often than the ceiling allows.
        fn sent(&mut self, number: u16, to: PeerId) {
            let now = self.now;
            let sent = self.peers.get_mut(&number).unwrap().sent.entry(to).or_default();
            sent.push(now);
            if let [.., first, _, _, _, _, last] = sent[..] {
                assert!(last.since(first) >= secs(60) - Duration::from_millis(20), "six in {:?}", last.since(first));
            }
        }

        fn beat(&mut self, number: u16, to: PeerId, life: u64) {
            let (now, settings) = (self.now, heartbeat::Settings::default());
            let Some(beat) = self.peers.get(&number).filter(|peer| peer.is_up).and_then(|peer| peer.beats.get(&to))
            else {
                return;
            };
            if beat.life != life {
                return;
            }
            let due = beat.rhythm.due(&settings);
            if due > now {
                return self.at(due.since(now), Happens::Beat(number, to, life));
            }
            let referent = beat.referent;
            let (need, is_indexer) = (self.peers[&number].pool.need(), self.peers[&number].is_indexer);
            let Some((target, asked)) = self.target(to) else {
                return self.fail(number, to, Input::Reset { peer: to });
            };
            let is_frozen = asked.is_frozen;
            let others = asked.pool.answering().into_iter().filter(|known| *known != peer(number)).take(need as usize);
            let suggestions = infos(others.map(|known| self.number(known)));
            let target_is_indexer = asked.is_indexer;
            let beat = self.peers.get_mut(&number).unwrap().beats.get_mut(&to).unwrap();
            beat.rhythm.sent(now, &settings, &mut self.rng);
            let next = beat.rhythm.due(&settings).since(now);
            self.sent(number, to);
            self.feed(number, Input::Sent { peer: to });
            if is_frozen {
                return self.at(settings.answer_within, Happens::Missed(number, to, life));
            }
            let answered = Input::Answered { peer: to, referent, suggestions, suggest_migrate: false };
            self.at(Duration::from_millis(10), Happens::Feed(number, answered));
            if is_indexer && target_is_indexer {
                self.at(Duration::from_millis(5), Happens::Feed(target, Input::Inbound { info: info(number) }));
            }
            self.at(next, Happens::Beat(number, to, life));
        }

        /// The heartbeat actor ends with an error: 3 restarts within 90 s, first pause 1 s.
        fn fail(&mut self, number: u16, to: PeerId, input: Input) {
            let now = self.now;
            self.feed(number, input);
            self.count += 1;
            let life = self.count;
            let Some(beat) = self.peers.get_mut(&number).and_then(|peer| peer.beats.get_mut(&to)) else { return };
            beat.failures.retain(|failed| now.since(*failed) < secs(90));
            beat.failures.push_back(now);
            if beat.failures.len() > 3 {
                self.peers.get_mut(&number).unwrap().beats.remove(&to);
                return self.feed(number, Input::BudgetSpent { peer: to });
            }
            let pause = secs(1 << (beat.failures.len() - 1));
            beat.life = life;
            beat.rhythm.restarted();
            self.at(pause, Happens::Beat(number, to, life));
        }

        fn run(&mut self, time: Duration) {
            let end = self.now + time;
            while let Some(entry) = self.agenda.first_entry() {
                if entry.key().0 > end {
                    break;
                }
                let ((at, _), what) = entry.remove_entry();
                self.now = at;
                // A frozen process does what was due when it wakes.
                if self.peers.get(&what.whose()).is_some_and(|peer| peer.is_frozen && peer.is_up) {
                    self.at(Duration::from_millis(500), what);
                    continue;
                }
                match what {
                    Happens::Wake(number) if self.peers[&number].wake_at == at => self.feed(number, Input::Tick),
                    Happens::Wake(_) => {}
                    Happens::Beat(number, to, life) => self.beat(number, to, life),
                    Happens::Missed(number, to, life) => {
                        let beat = self.peers.get(&number).and_then(|peer| peer.beats.get(&to));
                        if beat.is_some_and(|beat| beat.life == life) {
                            self.fail(number, to, Input::Missed { peer: to });
                        }
                    }
                    Happens::Lost(number, to) => self.fail(number, to, Input::Reset { peer: to }),
                    Happens::Feed(number, input) => self.feed(number, input),
                }
            }
            self.now = end;
        }

        fn answering(&self, number: u16) -> BTreeSet<u16> {
            self.peers[&number].pool.answering().into_iter().map(|peer| self.number(peer)).collect()
        }

        fn reach(&self, number: u16) -> Reach {
            self.peers[&number].pool.reach()
        }
    }

    #[test]
    fn three_indexers_and_four_nodes_with_one_seed_converge_in_seconds() {
        for seed in 0..10 {
            let mut world = World::new(seed);
            world.start(1, true, &[]);
            for indexer in 2..=3 {
                world.start(indexer, true, &[1]);
            }
            for node in 11..=14 {
                world.start(node, false, &[1]);
            }
            world.run(secs(3));
            for indexer in 1..=3 {
                assert_eq!(world.answering(indexer).len(), 2, "seed {seed}");
            }
            for node in 11..=14 {
                assert_eq!(world.answering(node), BTreeSet::from([1, 2, 3]), "seed {seed}");
                let peer = &world.peers[&node];
                let referents: Vec<PeerId> =
                    peer.beats.iter().filter(|(_, beat)| beat.referent).map(|(peer, _)| *peer).collect();
                assert_eq!(referents, Vec::from_iter(peer.pool.referent()), "seed {seed}");
            }
        }
    }

    #[test]
    fn an_indexer_is_soon_linked_to_all_of_up_to_twice_max_indexer() {
        for seed in 0..5 {
            let mut world = World::new(seed);
            world.start(1, true, &[]);
            for indexer in 2..=10 {
                world.start(indexer, true, &[1]);
                world.run(Duration::from_millis(200));
            }
            world.run(secs(10));
            for indexer in 1..=10 {
                assert_eq!(world.answering(indexer).len(), 9, "seed {seed}, indexer {indexer}");
            }
            world.start(11, true, &[1]);
            world.run(secs(5));
            assert_eq!(world.answering(11).len(), 10, "seed {seed}");
        }
    }

    #[test]
    fn f1_a_killed_indexer_is_replaced_within_a_second() {
        let mut world = World::new(1);
        world.start(1, true, &[]);
        for indexer in 2..=7 {
            world.start(indexer, true, &[1]);
        }
        world.start(11, false, &[1]);
        world.run(secs(60));
        assert_eq!(world.answering(11).len(), 5);
        let referent = world.number(world.peers[&11].pool.referent().unwrap());
        world.kill(referent);
        world.run(secs(1));
        assert_eq!(world.answering(11).len(), 5);
        assert!(world.answering(11).contains(&world.number(world.peers[&11].pool.referent().unwrap())));
        world.run(secs(60));
        let shown = world.peers[&11].pool.shown(world.now);
        assert!(referent == 1 || shown.iter().all(|shown| shown.peer != peer(referent)), "the dead are not listed");
    }

    #[test]
    fn f2_when_all_indexers_are_gone_and_one_returns_the_node_is_home_within_one_step() {
        for seed in 0..20 {
            let mut world = World::new(seed);
            world.start(1, true, &[]);
            world.start(2, true, &[1]);
            world.start(3, true, &[1]);
            world.start(11, false, &[1]);
            world.run(secs(30));
            for indexer in 1..=3 {
                world.kill(indexer);
            }
            world.run(secs(60 + seed * 20));
            assert_eq!(world.reach(11), Reach::Isolated);
            world.restart(1 + (seed % 3) as u16);
            world.run(secs(34));
            assert_eq!(world.reach(11), Reach::Joined, "seed {seed}");
        }
    }

    #[test]
    fn f3_a_node_restarts_without_its_seed_from_what_it_remembers() {
        let mut world = World::new(1);
        world.start(1, true, &[]);
        world.start(2, true, &[1]);
        world.start(3, true, &[1]);
        world.start(11, false, &[1]);
        world.run(secs(30));
        world.kill(1);
        world.run(secs(24 * 3_600));
        assert_eq!(world.answering(11), BTreeSet::from([2, 3]));
        world.kill(11);
        world.restart(11);
        world.run(secs(1));
        assert_eq!(world.answering(11), BTreeSet::from([2, 3]));
    }

    #[test]
    fn f6_a_frozen_indexer_is_found_by_two_missed_answers() {
        let mut world = World::new(1);
        world.start(1, true, &[]);
        world.start(2, true, &[1]);
        world.start(11, false, &[1]);
        world.run(secs(30));
        world.peers.get_mut(&2).unwrap().is_frozen = true;
        world.run(secs(22 + 5 + 1 + 5 + 1));
        assert_eq!(world.answering(11), BTreeSet::from([1]));
        world.peers.get_mut(&2).unwrap().is_frozen = false;
        world.run(secs(90));
        assert_eq!(world.answering(11), BTreeSet::from([1, 2]), "and taken back when it wakes");
    }

    #[test]
    fn f14_halves_of_a_network_find_each_other_again() {
        let mut world = World::new(3);
        world.start(1, true, &[]);
        world.start(2, true, &[1]);
        world.start(11, false, &[1]);
        world.run(secs(30));
        // Cut off for longer than every timeout: to the node, indexer 2 is away and returns silently.
        world.kill(2);
        world.run(secs(3_600));
        let two = world.peers.get_mut(&2).unwrap();
        two.is_up = true;
        two.is_frozen = false;
        world.run(secs(70));
        assert!(world.answering(11).contains(&2));
    }

    #[test]
    fn the_dht_fills_what_members_do_not_know() {
        let mut world = World::new(1);
        world.has_dht = true;
        for indexer in 1..=5 {
            world.start(indexer, true, &[]);
        }
        world.start(11, false, &[1]);
        world.run(secs(20));
        assert_eq!(world.answering(11).len(), 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_network_that_is_left_alone_heals(
            seed: u64,
            steps in proptest::collection::vec((0u8..4, 1u16..=6, 0u64..40), 0..25),
        ) {
            let mut world = World::new(seed);
            world.start(1, true, &[]);
            for indexer in 2..=6 {
                world.start(indexer, true, &[1, 2]);
            }
            world.start(11, false, &[1, 2]);
            world.run(secs(5));
            for (step, indexer, wait) in steps {
                let (is_up, is_frozen) = (world.peers[&indexer].is_up, world.peers[&indexer].is_frozen);
                match step {
                    0 if is_up => world.kill(indexer),
                    1 if is_up => world.peers.get_mut(&indexer).unwrap().is_frozen = !is_frozen,
                    2 if !is_up => world.restart(indexer),
                    _ => {}
                }
                world.run(secs(wait));
            }
            for indexer in 1..=6 {
                world.peers.get_mut(&indexer).unwrap().is_frozen = false;
                if !world.peers[&indexer].is_up {
                    world.restart(indexer);
                }
            }
            world.run(secs(120));
            prop_assert!(world.answering(11).len() >= 5);
            for indexer in 1..=6 {
                prop_assert_eq!(world.answering(indexer).len(), 5, "indexer {}", indexer);
            }
            world.run(secs(900));
            prop_assert_eq!(world.answering(11).len(), 5, "more than wanted are not kept for ever");
        }
    }

    // Anything in any order.

    fn any_input() -> impl Strategy<Value = Input> {
        let number = || prop_oneof![4 => 1u16..=20, 1 => Just(999)];
        let who = move || number().prop_map(peer);
        let list = move || proptest::collection::vec(number(), 0..6).prop_map(infos);
        let outcome = prop_oneof![
            (0u64..6_000, proptest::option::of(0.0..=1.0f64))
                .prop_map(|(rtt, fill_rate)| Probed::Answered { rtt: Duration::from_millis(rtt), fill_rate }),
            (0u64..100, list()).prop_map(|(wait, alternatives)| Probed::Busy { retry_after: secs(wait), alternatives }),
            Just(Probed::Silent),
            Just(Probed::Unreachable),
        ];
        prop_oneof![
            1 => who().prop_map(|peer| Input::Sent { peer }),
            4 => (who(), any::<bool>(), list(), proptest::bool::weighted(0.1)).prop_map(
                |(peer, referent, suggestions, suggest_migrate)| Input::Answered {
                    peer, referent, suggestions, suggest_migrate
                }
            ),
            2 => who().prop_map(|peer| Input::Missed { peer }),
            2 => who().prop_map(|peer| Input::Reset { peer }),
            2 => who().prop_map(|peer| Input::BudgetSpent { peer }),
            1 => (who(), 0u64..100, list()).prop_map(|(peer, wait, alternatives)| Input::Busy {
                peer, retry_after: secs(wait), alternatives
            }),
            1 => (who(), list()).prop_map(|(peer, alternatives)| Input::Left { peer, alternatives }),
            1 => (who(), list()).prop_map(|(from, candidates)| Input::Candidates { from, candidates }),
            1 => list().prop_map(|found| Input::Local { found }),
            1 => list().prop_map(|found| Input::Dht {
                found: found.into_iter().map(|info| Found { info, fill_rate: Some(0.4) }).collect()
            }),
            1 => number().prop_map(|number| Input::Inbound { info: info(number) }),
            4 => (who(), outcome).prop_map(|(peer, outcome)| Input::Probed { peer, outcome }),
            1 => (who(), 0.0..=100.0f64).prop_map(|(peer, low)| Input::Scores(vec![Ranked { peer, low }])),
            1 => who().prop_map(|peer| Input::Evicted { peer }),
            2 => Just(Input::Tick),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_pool_keeps_its_promises(
            seed: u64,
            is_indexer: bool,
            inputs in proptest::collection::vec((any_input(), 0u64..20_000), 1..150),
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut pool, mut now) = (new_pool(999, is_indexer), Mono::ZERO);
            let seeds = [1, 2, 999].map(info).to_vec();
            let start = Input::Start { remembered: infos([3, 999]), seeds: seeds.clone() };
            let mut running = BTreeSet::new();
            let mut remembered = BTreeSet::from([peer(3)]);
            for (input, wait) in std::iter::once((start, 0)).chain(inputs) {
                now = now + Duration::from_millis(wait);
                if let Input::BudgetSpent { peer } = &input {
                    running.remove(peer);
                }
                let carried = pool.answering().len();
                let is_eviction = matches!(input, Input::Evicted { .. });
                for action in pool.handle(input, now, &mut rng) {
                    match action {
                        Action::Start { peer, .. } => prop_assert!(running.insert(peer), "started twice"),
                        Action::Stop { peer, .. } => prop_assert!(running.remove(&peer), "stopped, not started"),
                        Action::Nudge { peer } | Action::SetReferent { peer, .. } => {
                            prop_assert!(running.contains(&peer), "told, not started");
                        }
                        Action::AskCandidates { members, count } => {
                            prop_assert!((1..=10).contains(&count));
                            prop_assert!(members.iter().all(|member| running.contains(member)));
                        }
                        Action::Probe { peer, .. } => prop_assert!(!running.contains(&peer), "probed a member"),
                        Action::Remember { peer, .. } => prop_assert!(remembered.insert(peer)),
                        Action::Forget { peer } => prop_assert!(remembered.remove(&peer)),
                        Action::SetNeed { .. } | Action::AskDht | Action::Note(_) => {}
                    }
                }
                prop_assert_eq!(&running, &pool.members().map(|(peer, _)| peer).collect::<BTreeSet<_>>());
                prop_assert!(running.len() <= 10, "twice the target");
                prop_assert!(!running.contains(&peer(999)) && !pool.known.contains_key(&peer(999)), "ourselves");
                prop_assert!(running.iter().all(|peer| !pool.known.contains_key(peer)), "in two places");
                for seed in &seeds[..2] {
                    prop_assert!(running.contains(&seed.id) || pool.known.contains_key(&seed.id), "a seed is lost");
                }
                prop_assert!(pool.referent().is_none_or(|referent| running.contains(&referent)));
                prop_assert_eq!(pool.answering().is_empty() && pool.reach() == Reach::Joined, false);
                prop_assert!(!is_eviction || carried == 0 || !pool.answering().is_empty(), "evicted the last");
                let hearsay = pool.known.values().filter(|known| known.is_hearsay()).count();
                prop_assert!(hearsay <= 64);
                prop_assert!(pool.wake(now) > now && pool.wake(now) <= now + WAKE_MAX);
                prop_assert!(pool.asked.len() <= 6);
            }
        }
    }
}
