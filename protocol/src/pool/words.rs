//! What a pool is told, what it says, and how it is shown.

use std::{fmt, time::Duration};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use crate::{addr::Rule, heartbeat::Rhythm, wire::AddrInfo};

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

/// An indexer's score, as the pool prefers by it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// The indexer.
    pub peer: PeerId,
    /// Lower bound of its score, 0 to 100.
    pub low: f64,
    /// It would be evicted for what was seen of it, were it a member.
    pub is_condemned: bool,
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
    /// What earlier lives remember is known only now: the node started without it.
    Remembered {
        /// Good indexers of those lives, best first.
        remembered: Vec<AddrInfo>,
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
        /// What it says of itself, 0 to 1; one that is drained says 1.
        fill_rate: f64,
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
    /// Others were asked whether they reach a member that is suspected, or was a member when it was asked about.
    Vouched {
        /// Whom.
        peer: PeerId,
        /// How many gave an answer.
        answered: u32,
        /// How many of them reach it.
        reach: u32,
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
    /// The local network was heard: hearsay that nobody signed.
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
    /// A peer's key said that it is to be believed no longer.
    Revoked {
        /// Whose.
        peer: PeerId,
    },
    /// Time went by; due at [`super::Pool::wake`].
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
    /// Its key was revoked.
    Revoked,
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
            Self::Revoked => "revoked by its own key",
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
    /// Others were asked whether they reach one that does not answer us.
    AskedOthers {
        /// Who does not answer.
        peer: PeerId,
        /// How many gave an answer.
        answered: u32,
        /// How many of them reach it.
        reach: u32,
    },
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
            Self::AskedOthers { .. } => "others_asked",
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
            | Self::AskedOthers { peer, .. }
            | Self::ReferentChanged { to: peer } => Some(*peer),
            Self::Reached(_) => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::AskedOthers { answered, reach, .. } = self {
            let fault = match (answered, reach) {
                (0, _) => "nobody could say",
                (_, 0) => "it is gone for others too",
                _ => "the fault is in our link to it",
            };
            return write!(f, "{reach} of {answered} others reach it: {fault}");
        }
        f.write_str(match self {
            Self::AskedOthers { .. } => "",
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
        /// A seed that did not hand us off: it is evicted only once it is caught lying.
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
    /// Close every connection to a member that is silent on it: it is frozen, and nothing should wait on it.
    Close {
        /// Whom.
        peer: PeerId,
    },
    /// Ask each of these members whether it reaches another, and tell how many do.
    AskOthers {
        /// Whom they should reach.
        about: PeerId,
        /// Whom to ask.
        ask: Vec<PeerId>,
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
    /// Write it down for the next life, or write it down anew: it has told us of further addresses.
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
    /// It was evicted: not one to go back to. What was seen of it is kept, so that a restart does not clear it.
    Disown {
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
    /// A seed that did not hand us off: it is evicted only once it is caught lying.
    pub sticky: bool,
    /// It represents this node in search.
    pub referent: bool,
    /// Answers missed in a row.
    pub missed: u32,
}
