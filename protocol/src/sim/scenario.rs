//! What is played: who is there, what happens to them and when, and what must follow. Read from TOML by the runner.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lie::Lying;
use crate::{behaviour, heartbeat, pool, profile::Profile, score};

/// A length of time or a point of the run, written as in settings: `"20s"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(#[serde(with = "crate::time::text")] pub Duration);

/// One scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, the file's.
    #[serde(default)]
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// What the state machines still lack to pass it; it is played on demand and is in no gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// How long it lasts.
    pub length: Span,
    /// How often expectations are looked at and samples are taken.
    #[serde(default = "every_second")]
    pub check_every: Span,
    /// The rules about addresses.
    #[serde(default)]
    pub profile: Profile,
    /// The network before anything happens to it.
    #[serde(default)]
    pub network: Network,
    /// The rules of pools.
    #[serde(default)]
    pub pool: pool::Settings,
    /// The rules of heartbeats.
    #[serde(default)]
    pub heartbeat: heartbeat::Settings,
    /// The rules of scores.
    #[serde(default)]
    pub score: score::Settings,
    /// The limits on one peer.
    #[serde(default)]
    pub behaviour: behaviour::Settings,
    /// Who is there.
    pub members: Vec<Group>,
    /// What happens, in any order.
    #[serde(default)]
    pub then: Vec<Step>,
    /// What must follow.
    #[serde(default)]
    pub expect: Vec<Expectation>,
}

fn every_second() -> Span {
    Span(Duration::from_secs(1))
}

/// How messages travel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Shortest time one way.
    pub latency_min: Span,
    /// What the distance adds at most: members stand at random places of a square.
    pub latency_span: Span,
    /// Mean of the exponential part that each message adds.
    pub jitter: Span,
    /// Share of packets lost, 0 to 1. The transport repeats them, so that loss is delay.
    pub loss: f64,
}

impl Default for Network {
    fn default() -> Self {
        let millis = |millis| Span(Duration::from_millis(millis));
        Self { latency_min: millis(2), latency_span: millis(60), jitter: millis(3), loss: 0.0 }
    }
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It represents an organisation.
    Node,
    /// It answers heartbeats.
    Indexer,
}

/// Members of one kind, named by the group and their number: `n0`, `n1`, …
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Letters only.
    pub name: String,
    /// How many.
    pub count: u32,
    /// What they are.
    pub role: Role,
    /// Capacity of an indexer in sessions.
    #[serde(default = "usual_max_nodes")]
    pub max_nodes: u32,
    /// The seeds of each: see [`Who`].
    #[serde(default)]
    pub seeds: Vec<Who>,
    /// Each has only so many of `seeds`, drawn at random; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeds_drawn: Option<u32>,
    /// When the first starts.
    #[serde(default)]
    pub start: Span,
    /// Over how long the others follow, at random.
    #[serde(default)]
    pub start_within: Span,
    /// They stand in so many subnets; each in its own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnets: Option<u32>,
    /// How far their clocks are before true time, in seconds.
    #[serde(default)]
    pub clock_ahead_secs: i64,
    /// How they lie from the start.
    #[serde(default)]
    pub lies: Vec<Lying>,
}

fn usual_max_nodes() -> u32 {
    crate::gate::Settings::default().max_nodes
}

/// Some members: a group's name (`"n"`), one (`"n3"`), or a range with its last (`"n0-9"`).
pub type Who = String;

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When.
    pub at: Span,
    /// To whom.
    #[serde(default)]
    pub who: Vec<Who>,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Happening {
    /// Their processes are killed: connections are reset at once.
    Kill,
    /// They start, with the key and the memory of before.
    Start,
    /// They leave politely, and end a second later.
    Leave,
    /// They do nothing; their connections stay open.
    Freeze,
    /// They go on.
    Thaw,
    /// Nothing passes between `who` and `from`, everybody else where that is empty.
    Cut {
        /// The cut's name, to heal it by.
        name: String,
        /// The other side.
        #[serde(default)]
        from: Vec<Who>,
        /// Only what `who` send is lost.
        #[serde(default)]
        one_way: bool,
    },
    /// A cut is over.
    Heal {
        /// Which.
        name: String,
    },
    /// So much of what they send and receive is lost, 0 to 1.
    Loss {
        /// Share of packets.
        share: f64,
    },
    /// Their clocks are set this far before true time, seconds.
    Clock {
        /// Behind it where negative.
        ahead_secs: i64,
    },
    /// They stop for a moment now and then, as a process without processor time does.
    Starve {
        /// Mean time between two stops; never again where zero.
        every: Span,
        /// Mean length of a stop.
        stall: Span,
    },
    /// They lie like this from now on; an empty list is honesty.
    Lie {
        /// How.
        lies: Vec<Lying>,
    },
    /// Their operator lets their nodes go, or takes that back; a new life of the process begins without it.
    Drain {
        /// Let them go.
        is_on: bool,
    },
    /// Notes who is in whose pool: `moved` counts from here.
    Mark,
}

/// What must follow. It is looked at every `check_every`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    /// From here on it is looked at.
    #[serde(default)]
    pub from: Span,
    /// It has been true once by then; without it, it is always true from `from` on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Span>,
    /// It stays true until then, from `by` on where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Span>,
    /// Of whom; those that do not run are passed over.
    #[serde(default)]
    pub who: Vec<Who>,
    /// What.
    #[serde(flatten)]
    pub what: Wanted,
}

/// What is true of some members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Wanted {
    /// Each has `min_indexer` members that answer, and its record is held by as many reachable indexers, two at most.
    Whole,
    /// Each has at least so many members that answer.
    Pooled {
        /// How many.
        least: u32,
    },
    /// Each says that too few indexers answer.
    Isolated,
    /// No running member has any of them in its pool.
    Unlisted,
    /// No running honest node has any of them answering in its pool.
    NotAnswering,
    /// Each of them answers in the pools of at most this share of the running honest members. One that was evicted is
    /// tried again after its rest, so that it is never nobody's.
    Shunned {
        /// 0 to 1.
        most: f64,
        /// Of those alone that heard it for so long in all: whoever met it lately is still finding out.
        #[serde(default)]
        heard_for: Span,
    },
    /// No running indexer has a session of any of them.
    Forgotten,
    /// The record of each is held by a running indexer or by the DHT.
    Resolvable,
    /// Every one of these indexers knows all the others that run.
    Acquainted,
    /// The fullest of these indexers has at most so many times their mean of sessions, the emptiest at least so many.
    Balanced {
        /// 1 is perfect.
        most: f64,
        /// Not looked at where absent.
        #[serde(default)]
        least: f64,
    },
    /// Of the nodes that were there at `mark`, at most this share gave up an indexer that runs.
    Moved {
        /// 0 to 1.
        most: f64,
    },
    /// Of the memberships that were there at `mark`, in indexers that run, at most this share was given up.
    GivenUp {
        /// 0 to 1.
        most: f64,
    },
    /// Each of these indexers has sessions within these bounds.
    Sessions {
        /// At least.
        least: u32,
        /// At most.
        most: u32,
    },
    /// No unexplained restart of any of them stands in any score.
    Unblemished,
}
