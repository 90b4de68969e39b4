//! What the tree shows of itself: plain data, read by the admin endpoint and by the command line.

mod trace;

use std::collections::BTreeMap;

use jiff::Timestamp;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use protocol::{
    alerts::{Alert, Severity, Topic},
    bans::{Ban, Origin},
    relation::Relation,
    report::Report,
    revocations::Held,
    score::Explained,
    wire::Role,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::trace::{AskedView, WaterfallView};

/// How one actor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActorState {
    /// Its `pre_start` runs.
    Starting,
    /// It handles messages or waits for one.
    Running,
    /// It has been in one handler for longer than is sane.
    Stuck,
    /// It failed and waits for its restart.
    Waiting,
    /// It ended and will not return.
    Stopped,
}

impl ActorState {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stuck => "stuck",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
        }
    }
}

/// One actor's vitals.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ActorView {
    /// Path in the tree: `root/node/pool/heartbeat/<peer id>`.
    pub name: String,
    /// What sort of actor: `heartbeat`.
    pub kind: String,
    /// Path of its supervisor; empty for the root.
    pub parent: String,
    /// How it is.
    pub state: ActorState,
    /// Counts its lives, from 1.
    pub incarnation: u64,
    /// Age of this life.
    pub uptime_ms: u64,
    /// Restarts since it was first started.
    pub restarts: u64,
    /// Why the last life ended.
    pub last_error: Option<String>,
    /// Messages handled in all lives.
    pub handled: u64,
    /// Messages sent and not yet handled.
    pub in_flight: u64,
    /// The most there ever were.
    pub in_flight_max: u64,
    /// Messages refused because the mailbox was full.
    pub shed: u64,
    /// How long the present handler has been running; 0 when idle.
    pub busy_ms: u64,
    /// Half of the handlers took no longer, microseconds.
    pub handle_p50_us: u64,
    /// 99 of 100 handlers took no longer, microseconds.
    pub handle_p99_us: u64,
    /// Half of the messages waited no longer, microseconds.
    pub wait_p50_us: u64,
    /// 99 of 100 messages waited no longer, microseconds.
    pub wait_p99_us: u64,
}

/// Where a member stands in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// No indexer has answered yet.
    Joining,
    /// Some answered; the own record was not yet read back.
    Joined,
    /// At least `min_indexer` answer and the own record was read back through another.
    Whole,
    /// Fewer than `min_indexer` answer.
    Isolated,
    /// On its way out.
    Leaving,
}

/// One member's overview.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StatusView {
    /// Its name.
    pub name: String,
    /// Its peer id.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub peer_id: PeerId,
    /// Its DID.
    pub did: String,
    /// Program version.
    pub version: String,
    /// What it is.
    #[schemars(schema_with = "shape::role")]
    pub role: Role,
    /// Network it belongs to.
    pub network_id: String,
    /// Rules about addresses: `public`, `local` or `load`.
    pub profile: String,
    /// Where it stands.
    pub standing: Standing,
    /// It can do its job.
    pub ready: bool,
    /// Why not, or what else an operator should know; each with its remedy.
    pub reasons: Vec<String>,
    /// Full addresses it listens on.
    #[schemars(with = "Vec<String>")]
    pub listen: Vec<Multiaddr>,
    /// Start of the process.
    pub born_at: Timestamp,
    /// Age of the process.
    pub uptime_ms: u64,
    /// Members of the pool.
    pub pool_members: u32,
    /// Members that answered their last beat.
    pub pool_answering: u32,
    /// Configured least.
    pub pool_min: u32,
    /// Configured target.
    pub pool_max: u32,
    /// Best-scored member, which represents this node in search.
    pub referent: Option<String>,
    /// Nodes with a session here.
    pub sessions: u32,
    /// Most sessions.
    pub max_nodes: u32,
    /// Other indexers whose `IndexerRecord` is held here and unexpired.
    pub indexers_known: u32,
    /// Open connections.
    pub connections: u32,
    /// `seq` of the own record, 0 before the first.
    pub record_seq: u64,
    /// The database answers.
    pub store_ok: bool,
    /// It takes no new sessions and lets its nodes go.
    #[serde(default)]
    pub drained: bool,
    /// Fingerprints of the pre-shared keys that it runs with, that in force first.
    #[serde(default)]
    pub network_keys: Vec<String>,
}

/// A ban in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BanView {
    /// Who.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub peer_id: PeerId,
    /// From what: `all`, `publish`, `get`, `search` or `bandwidth`.
    pub from: String,
    /// When it began.
    pub since: Timestamp,
    /// When it ends; nothing for one without end.
    pub until: Option<Timestamp>,
    /// Who made it: `rule` or `operator`.
    pub by: String,
    /// Why.
    pub reason: String,
    /// How many bans by a rule the peer had in its memory, this one included.
    pub offences: u32,
}

impl From<Ban> for BanView {
    fn from(ban: Ban) -> Self {
        let by = if ban.origin == Origin::Rule { "rule" } else { "operator" };
        Self {
            peer_id: ban.peer,
            from: ban.scope.name().to_owned(),
            since: ban.since,
            until: ban.until,
            by: by.to_owned(),
            reason: ban.reason,
            offences: ban.offences,
        }
    }
}

/// A revocation that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RevocationView {
    /// Whose key.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub peer_id: PeerId,
    /// The DID that went with it.
    pub did: String,
    /// When the key signed it.
    pub time: Timestamp,
    /// Why, as the signer said.
    pub reason: String,
    /// When it was heard here.
    pub heard: Timestamp,
    /// It is held until then, and anew each time the key is tried.
    pub until: Timestamp,
    /// `heard` of by others, `tried` here since, or `ours`: handed in by our own operators.
    pub weight: String,
}

impl From<&Held> for RevocationView {
    fn from(held: &Held) -> Self {
        Self {
            peer_id: held.revoke.peer_id,
            did: held.revoke.did.clone(),
            time: held.revoke.time,
            reason: held.revoke.reason.clone(),
            heard: held.heard,
            until: held.until,
            weight: held.weight.name().to_owned(),
        }
    }
}

/// A known peer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PeerView {
    /// The peer.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub peer_id: PeerId,
    /// Its name, empty while unknown.
    pub name: String,
    /// Its DID, empty while unknown.
    pub did: String,
    /// What it said it is.
    #[schemars(schema_with = "shape::role")]
    pub role: Role,
    /// Its program.
    pub agent: String,
    /// A connection is open.
    pub connected: bool,
    /// Last sign of life.
    pub last_seen: Option<Timestamp>,
    /// Fingerprints of the pre-shared keys that it holds, while it is connected.
    #[serde(default)]
    pub network_keys: Vec<String>,
    /// Its addresses and how they fared, best first.
    pub addrs: Vec<AddrView>,
}

/// One address of a peer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AddrView {
    /// The address.
    #[schemars(with = "String")]
    pub addr: Multiaddr,
    /// Dials that succeeded.
    pub succeeded: u32,
    /// Dials that failed since the last success.
    pub failed: u32,
}

/// A bin of the DHT's routing table: the peers whose keys begin as ours does, so far and no farther.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BinView {
    /// Leading bits that their keys have in common with ours: 0 is the farther half of all.
    pub common: u32,
    /// Those that stand in it, the least lately heard first.
    pub peers: Vec<TablePeerView>,
}

/// A peer of the routing table: an indexer that said hello.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TablePeerView {
    /// The peer.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub peer_id: PeerId,
    /// Its name, empty while unknown.
    pub name: String,
    /// A connection is open.
    pub connected: bool,
    /// Where it is asked.
    #[schemars(with = "Vec<String>")]
    pub addrs: Vec<Multiaddr>,
}

/// Whom a beacon reached, and how fast.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TraceView {
    /// The fastest first.
    pub reached: Vec<ReachedView>,
    /// Half of them took no longer, milliseconds; absent when nobody was reached.
    pub p50_ms: Option<f64>,
    /// 99 of 100 took no longer, milliseconds.
    pub p99_ms: Option<f64>,
    /// There were more than are counted.
    pub truncated: bool,
    /// For how long echoes were waited for, milliseconds.
    pub listened_ms: u64,
}

/// A member that a beacon reached.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReachedView {
    /// Who.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub peer_id: PeerId,
    /// Its name, empty while unknown.
    pub name: String,
    /// From sending the beacon to its echo, without the time that it was held back there, milliseconds.
    pub after_ms: f64,
}

/// How a member of the pool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// First answer not yet in.
    Joining,
    /// Answers.
    Answering,
    /// A second answer was missed, or the connection was reset.
    Suspect,
    /// Its restart budget is spent; kept because it is a seed or the last.
    Down,
    /// A known good candidate, kept warm.
    Standby,
}

/// One part of a score.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PartView {
    /// `uptime`, `latency`, …
    pub name: String,
    /// Weight before scaling, 0 to 1.
    pub weight: f64,
    /// 0 to 1; absent without evidence.
    pub value: Option<f64>,
    /// What the value rests on, in words.
    pub evidence: String,
}

/// One indexer of the pool.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct IndexerView {
    /// The indexer.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub peer_id: PeerId,
    /// Its name, empty while unknown.
    pub name: String,
    /// Where it is dialled.
    #[schemars(with = "Vec<String>")]
    pub addrs: Vec<Multiaddr>,
    /// How it does.
    pub state: MemberState,
    /// It is in the configuration.
    pub seed: bool,
    /// A seed that did not hand us off: it is evicted only once it is caught lying.
    pub sticky: bool,
    /// It represents this node in search.
    pub referent: bool,
    /// 0 to 100; absent without evidence.
    pub score: Option<f64>,
    /// Below this it goes.
    pub threshold: f64,
    /// What the score consists of.
    pub parts: Vec<PartView>,
    /// Last round trip, the indexer's own time taken off, milliseconds.
    pub rtt_ms: Option<f64>,
    /// What it last said.
    pub fill_rate: Option<f64>,
    /// What it last said.
    pub peer_count: Option<u32>,
    /// What it last said.
    pub max_nodes: Option<u32>,
    /// Start of its process.
    pub born_at: Option<Timestamp>,
    /// When it last answered.
    pub last_answer: Option<Timestamp>,
    /// Answers missed in a row.
    pub missed: u32,
    /// Beats answered.
    pub beats: u64,
    /// What the last bandwidth probe measured of the way from it to us, bytes per second.
    #[serde(default)]
    pub bytes_per_sec: Option<f64>,
}

/// Why an indexer has the score that it has.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ExplainView {
    /// Its name, empty while unknown.
    pub name: String,
    /// How it does in the pool; absent when it is no member any more.
    pub indexer: Option<IndexerView>,
    /// The score, the rules and every event: enough to compute it again. Absent while nothing was seen of it.
    #[schemars(with = "Option<BTreeMap<String, serde_json::Value>>")]
    pub explained: Option<Explained>,
}

/// What the scores of one indexer were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CurveView {
    /// Whose.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub peer_id: PeerId,
    /// One at each judgement, the oldest first; at most [`protocol::score::SAMPLES_MAX`].
    pub samples: Vec<ScoreView>,
}

/// A score at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScoreView {
    /// When it was judged.
    pub at: Timestamp,
    /// 0 to 100.
    pub value: f64,
    /// Lower end of its confidence interval, 0 to 100.
    pub low: f64,
    /// Upper end, 0 to 100: by this it is judged.
    pub high: f64,
    /// Below this the upper end may not be, 0 to 100.
    pub threshold: f64,
    /// Its parts by their names, each 0 to 1; those without evidence are absent.
    pub parts: BTreeMap<String, f64>,
}

/// One node's session at this indexer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SessionView {
    /// The node.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
    /// Its DID.
    pub did: String,
    /// It is an indexer itself.
    pub indexer: bool,
    /// This indexer represents it in search.
    pub referent: bool,
    /// When the session began.
    pub since: Timestamp,
    /// Last heartbeat.
    pub last_seen: Timestamp,
    /// `seq` of its record, 0 while none is held.
    pub record_seq: u64,
    /// Beats answered.
    pub beats: u64,
    /// What its last bandwidth probe measured of the way from it to us, bytes per second; absent after an hour.
    #[serde(default)]
    pub bytes_per_sec: Option<f64>,
    /// How long it took to answer our last ping before that, milliseconds.
    #[serde(default)]
    pub rtt_ms: Option<f64>,
}

/// One verified record.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RecordView {
    /// The peer.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub peer_id: PeerId,
    /// Its DID.
    pub did: String,
    /// Its name.
    pub name: String,
    /// Not valid from here on.
    pub expiry_date: Timestamp,
    /// Its `seq`.
    pub seq: u64,
    /// Where it was found: `own`, `session`, `indexer` or `dht`.
    pub source: String,
    /// The record exactly as it was signed.
    pub record: Box<RawValue>,
}

/// What to look for: exactly one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Wanted {
    /// A peer id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_id: Option<String>,
    /// A DID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub did: Option<String>,
    /// A name or a part of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its waterfall is wanted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trace: bool,
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Every indexer asked has answered.
    Complete,
    /// Nothing came for the idle time.
    Idle,
    /// The total time was over.
    TimedOut,
    /// The most results were shown.
    Limit,
    /// The same user began another search.
    Replaced,
    /// The asker closed it.
    Closed,
    /// The indexers that had not said their last word are gone.
    Lost,
    /// No indexer could be asked.
    Isolated,
}

/// One step of a running search.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SearchView {
    /// A verified peer that matches.
    Hit {
        /// Its record.
        #[serde(flatten)]
        hit: RecordView,
        /// Since the search began, milliseconds.
        after_ms: f64,
    },
    /// Where its time went, for whoever wants to know; before the last word.
    Trace {
        /// Who was asked when.
        #[serde(flatten)]
        trace: WaterfallView,
    },
    /// The last word.
    End {
        /// Why.
        ended: Ended,
        /// Hits shown.
        hits: u32,
        /// Indexers asked.
        asked: u32,
        /// Indexers that answered.
        answered: u32,
        /// Indexers that did not answer in time.
        timed_out: u32,
        /// Hits were left out at a limit.
        truncated: bool,
        /// Since the search began, milliseconds.
        took_ms: f64,
    },
}

/// One step of a running search for resources.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ResourceStep {
    /// A verified resource that matches.
    Hit {
        /// The search's.
        query_id: String,
        /// Its creator.
        #[serde(with = "text")]
        #[schemars(with = "String")]
        peer_id: PeerId,
        /// The resource exactly as it was signed.
        resource: Box<RawValue>,
        /// Since the search began, milliseconds.
        elapsed_ms: f64,
    },
    /// Where its time went, for whoever wants to know; before the last word.
    Trace {
        /// Who was asked when.
        #[serde(flatten)]
        trace: WaterfallView,
    },
    /// The last word.
    Ended {
        /// The search's.
        query_id: String,
        /// Why.
        reason: Ended,
        /// Resources found.
        hits: u32,
        /// Peers asked on a stream of their own; 0 by gossip, for nobody knows how many it reaches.
        asked: u32,
        /// Peers that answered to the end.
        answered: u32,
        /// Peers that said no.
        refused: u32,
        /// Peers that were not reached, or not heard to the end in time.
        timed_out: u32,
        /// Resources were left out at a limit.
        truncated: bool,
        /// Since the search began, milliseconds.
        elapsed_ms: f64,
    },
}

/// Something that happened, for timelines.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EventView {
    /// Counts this process's events, from 1.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// `member_suspected`, `member_joined`, `referent_changed`, `actor_restarted`, …
    pub kind: String,
    /// The peer or actor it is about.
    pub subject: String,
    /// In words.
    pub detail: String,
}

/// What the rules' own types look like from outside; `protocol` describes nothing but itself.
mod shape {
    use protocol::{
        alerts::{Severity, Topic},
        relation::Relation,
    };
    use schemars::{Schema, SchemaGenerator, json_schema};

    pub(super) fn role(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": { "node": { "type": "boolean" }, "indexer": { "type": "boolean" } },
            "required": ["node", "indexer"],
        })
    }

    pub(super) fn topic(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": Topic::ALL.map(Topic::name) })
    }

    pub(super) fn severity(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": [Severity::Warning, Severity::Critical] })
    }

    pub(super) fn report(_: &mut SchemaGenerator) -> Schema {
        let time = || json_schema!({ "type": "string", "format": "date-time" });
        let count = || json_schema!({ "type": "integer", "minimum": 0 });
        let spread = json_schema!({
            "type": "object",
            "description": "What a figure was, in the unit of its topic.",
            "properties": {
                "least": { "type": "number" }, "mean": { "type": "number" }, "most": { "type": "number" },
            },
            "required": ["least", "mean", "most"],
        });
        let trouble = json_schema!({
            "type": "object",
            "description": "What was wrong: how often it began or became worse, how bad it was, for how long in all.",
            "properties": {
                "raised": count(),
                "worst": { "type": "string", "enum": [Severity::Warning, Severity::Critical] },
                "lasted_ms": count(),
            },
            "required": ["raised", "worst", "lasted_ms"],
        });
        json_schema!({
            "type": "object",
            "properties": {
                "from": time(),
                "to": time(),
                "samples": count(),
                "figures": { "type": "object", "additionalProperties": spread },
                "alerts": { "type": "object", "additionalProperties": trouble },
                "counts": { "type": "object", "additionalProperties": count() },
            },
            "required": ["from", "to", "samples", "figures", "alerts", "counts"],
        })
    }

    pub(super) fn last_report(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [report(generator), { "type": "null" }] })
    }

    pub(super) fn relation(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": Relation::ALL.map(Relation::name) })
    }
}

/// Events after one, and which journal they are from.
#[derive(Clone, Debug)]
pub struct FeedView {
    /// Which journal: a restart of the actor that keeps it begins another.
    pub journal: u64,
    /// The oldest event that is kept.
    pub oldest: u64,
    /// The last event.
    pub last: u64,
    /// Those after the one that was asked for, the oldest first.
    pub events: Vec<EventView>,
}

/// Peer ids as their usual text.
mod text {
    use libp2p_identity::PeerId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(peer: &PeerId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(peer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PeerId, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A resource, as it is held.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ResourceView {
    /// Whose it is.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub creator: PeerId,
    /// Its id there.
    pub id: String,
    /// Which version.
    pub version: u64,
    /// When it was written.
    pub updated_at: Timestamp,
    /// As its creator signed it.
    pub resource: Box<RawValue>,
}

impl ResourceView {
    /// The row as it is shown; nothing for a resource that is gone.
    pub(crate) fn of(row: ::store::ResourceRow) -> Option<Self> {
        let resource = RawValue::from_string(row.text?.to_string()).ok()?;
        let ::store::ResourceRow { creator, id, version, updated_at, .. } = row;
        Some(Self { creator, id, version, updated_at, resource })
    }
}

/// A page of resources.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ListedView {
    /// In their order.
    pub resources: Vec<ResourceView>,
    /// Names the next page; nothing after the last.
    pub next: Option<String>,
}

/// What was written down of a resource of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlacedView {
    /// Ourselves.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub creator: PeerId,
    /// Which.
    pub id: String,
    /// As which version.
    pub version: u64,
}

/// What a peer is to us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RelationView {
    /// Who.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub peer_id: PeerId,
    /// What we call it; may be empty.
    pub name: String,
    /// What it is.
    #[schemars(schema_with = "shape::relation")]
    pub relation: Relation,
    /// Since when.
    pub changed_at: Timestamp,
}

impl From<::store::RelationRow> for RelationView {
    fn from(row: ::store::RelationRow) -> Self {
        let ::store::RelationRow { peer, relation, name, changed_at, .. } = row;
        Self { peer_id: peer, name, relation, changed_at }
    }
}

/// Something that waits, or waited, for a partner or the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutboxView {
    /// Its number; the higher the newer.
    pub id: u64,
    /// A peer id, or `bus`.
    pub to: String,
    /// What for: the verb of an event.
    pub verb: String,
    /// What it is.
    pub datatype: String,
    /// In whose name.
    pub user: String,
    /// Bytes that wait; none once it has ended.
    pub bytes: u64,
    /// When it was written down.
    pub created_at: Timestamp,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// When it is tried again at the earliest, where it failed.
    pub next_at: Option<Timestamp>,
    /// `waiting`, `delivered`, `refused`, `expired`, `dropped`.
    pub fate: String,
    /// When that was so.
    pub ended_at: Option<Timestamp>,
    /// Why, where it failed.
    pub detail: String,
}

impl From<::store::OutboxRow> for OutboxView {
    fn from(row: ::store::OutboxRow) -> Self {
        let to = match row.outgoing.destination {
            ::store::Destination::Bus => "bus".to_owned(),
            ::store::Destination::Peer(peer) | ::store::Destination::Plan(peer) => peer.to_string(),
        };
        Self {
            id: row.id,
            to,
            verb: row.outgoing.subject,
            datatype: row.outgoing.datatype,
            user: row.outgoing.user,
            bytes: row.bytes,
            created_at: row.created_at,
            attempts: row.attempts,
            next_at: row.next_at,
            fate: row.fate.name().to_owned(),
            ended_at: row.ended_at,
            detail: row.detail,
        }
    }
}

/// A planner session of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanView {
    /// With whom.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub peer_id: PeerId,
    /// Since when.
    pub opened_at: Timestamp,
    /// When it is over at the latest.
    pub ends_at: Timestamp,
    /// Steps that were fed to it.
    pub fed: u64,
    /// Steps for this peer that it has not taken.
    pub waiting: u64,
}

impl From<::store::PlanRow> for PlanView {
    fn from(row: ::store::PlanRow) -> Self {
        let ::store::PlanRow { peer, opened_at, fed, waiting } = row;
        Self { peer_id: peer, opened_at, ends_at: protocol::planner::ends_at(opened_at), fed, waiting }
    }
}

/// How the bus is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BridgeState {
    /// There is no connection.
    Away,
    /// There is a connection, and what is needed is being made there.
    Entering,
    /// Orders are taken and announcements told.
    Ready,
}

/// What the bus promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BusMode {
    /// Each message at least once.
    #[serde(rename = "jetstream")]
    JetStream,
    /// Each message at most once.
    Core,
}

/// The bus, as this member sees it. Counts are those since its bridge was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BridgeView {
    /// Where it is, without user and password.
    pub url: String,
    /// How it is.
    pub state: BridgeState,
    /// What it promises; absent while it is not ready.
    pub mode: Option<BusMode>,
    /// Name and version of the server.
    pub server: String,
    /// What went wrong last; empty when nothing is wrong.
    pub cause: String,
    /// Orders carried out.
    pub taken: u64,
    /// Orders that had been carried out before.
    pub repeated: u64,
    /// Orders put off.
    pub put_off: u64,
    /// Messages refused.
    pub refused: u64,
    /// Messages of members, ourselves included, that are meant for applications.
    pub own_ignored: u64,
    /// Announcements that the bus has.
    pub announced: u64,
    /// Announcements that never could be told.
    pub dropped: u64,
    /// Announcements of the last look that are still to be told.
    pub waiting: u64,
}

/// Something that an operator should know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AlertView {
    /// What about: `cpu`, `memory`, `disk`, `latency`, `peers`, `outbox`, `database_slow`, `database`, `bus`, `isolated`,
    /// `clock`, `self_suspect`.
    #[schemars(schema_with = "shape::topic")]
    pub topic: Topic,
    /// How bad it is.
    #[schemars(schema_with = "shape::severity")]
    pub severity: Severity,
    /// Since when.
    pub since: Timestamp,
    /// The last figure: a share (0 to 1), milliseconds or a number, as the topic has it; 1 for what is away.
    pub figure: f64,
    /// What it may be.
    pub bound: f64,
    /// What to do.
    pub remedy: String,
}

impl From<Alert> for AlertView {
    fn from(alert: Alert) -> Self {
        let Alert { topic, severity, since, figure, bound, remedy } = alert;
        Self { topic, severity, since, figure, bound, remedy: remedy.to_owned() }
    }
}

/// What a member did in its days.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReportView {
    /// The last whole day; nothing before the first is over.
    #[schemars(schema_with = "shape::last_report")]
    pub last: Option<Report>,
    /// The running one, until now.
    #[schemars(schema_with = "shape::report")]
    pub running: Report,
}

/// What was measured at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SampleView {
    /// When.
    pub at: Timestamp,
    /// By the topics of [`AlertView`]; what could not be measured is absent.
    pub figures: BTreeMap<String, f64>,
}
