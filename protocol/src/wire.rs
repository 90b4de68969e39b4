//! The messages of every stream protocol and gossip topic, exactly as page `docs/protocol.md` names them.
//!
//! Signed objects travel inside other messages as [`RawValue`], so that their text is kept as it came.

use jiff::Timestamp;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Error as _, IgnoredAny},
};
use serde_json::value::RawValue;

use crate::{
    catalogue::ResourceQuery,
    event::{EVENT_BYTES_MAX, Verb},
    trace::Traceparent,
};

/// One protocol over libp2p streams: JSON values, but for bandwidth probes, whose bytes mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// One exchange per connection, before anything else.
    Hello,
    /// Long-lived, one question and one answer per tick.
    Heartbeat,
    /// Records until closed, each answered by a receipt.
    Publish,
    /// One look-up.
    Get,
    /// One exchange: a member says that it goes.
    Leave,
    /// One exchange: addresses of other indexers.
    Candidates,
    /// One request, many results.
    Search,
    /// Results for a query that came by gossip.
    SearchResponse,
    /// One exchange: what a peer sees of an indexer.
    Witness,
    /// One exchange: presence tokens for an auditor.
    Audit,
    /// Bytes there and back, by which either side measures the link; see [`crate::bandwidth`].
    Bandwidth,
    /// One exchange: a member says that a beacon reached it; see [`crate::beacon`].
    Echo,
    /// One exchange: a key is to be believed no longer; see [`crate::revocations`].
    Revoke,
    /// One exchange: a page of the revocations that somebody holds.
    Revocations,
    /// Events between nodes, each answered once it is kept; see [`crate::event`].
    Event(Verb),
}

impl Protocol {
    /// Every protocol, in the order of `docs/protocol.md`.
    pub const ALL: [Self; 23] = [
        Self::Hello,
        Self::Heartbeat,
        Self::Publish,
        Self::Get,
        Self::Leave,
        Self::Candidates,
        Self::Search,
        Self::SearchResponse,
        Self::Witness,
        Self::Audit,
        Self::Bandwidth,
        Self::Echo,
        Self::Revoke,
        Self::Revocations,
        Self::Event(Verb::Create),
        Self::Event(Verb::Update),
        Self::Event(Verb::Delete),
        Self::Event(Verb::Search),
        Self::Event(Verb::Verify),
        Self::Event(Verb::Considers),
        Self::Event(Verb::Planner),
        Self::Event(Verb::Admiralty),
        Self::Event(Verb::Minio),
    ];

    /// Its place in [`Protocol::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Hello => 0,
            Self::Heartbeat => 1,
            Self::Publish => 2,
            Self::Get => 3,
            Self::Leave => 4,
            Self::Candidates => 5,
            Self::Search => 6,
            Self::SearchResponse => 7,
            Self::Witness => 8,
            Self::Audit => 9,
            Self::Bandwidth => 10,
            Self::Echo => 11,
            Self::Revoke => 12,
            Self::Revocations => 13,
            Self::Event(verb) => 14 + verb as usize,
        }
    }

    /// Whether a member of this role takes it.
    #[must_use]
    pub const fn is_taken_by(self, role: Role) -> bool {
        match self {
            Self::Hello | Self::Leave | Self::Witness | Self::Echo | Self::Revoke | Self::Revocations => true,
            Self::Event(_) => role.node,
            _ => role.indexer,
        }
    }

    /// The libp2p protocol id.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Hello => "/opencloud/hello/1.0",
            Self::Heartbeat => "/opencloud/heartbeat/1.0",
            Self::Publish => "/opencloud/record/publish/1.0",
            Self::Get => "/opencloud/record/get/1.0",
            Self::Leave => "/opencloud/record/leave/1.0",
            Self::Candidates => "/opencloud/indexer/candidates/1.0",
            Self::Search => "/opencloud/search/peer/1.0",
            Self::SearchResponse => "/opencloud/search/peer/response/1.0",
            Self::Witness => "/opencloud/witness/1.0",
            Self::Audit => "/muster/audit/1.0",
            Self::Bandwidth => "/opencloud/probe/1.0",
            Self::Echo => "/muster/echo/1.0",
            Self::Revoke => "/muster/record/revoke/1.0",
            Self::Revocations => "/muster/record/revocations/1.0",
            Self::Event(Verb::Create) => "/opencloud/resource/create/1.0",
            Self::Event(Verb::Update) => "/opencloud/resource/update/1.0",
            Self::Event(Verb::Delete) => "/opencloud/resource/delete/1.0",
            Self::Event(Verb::Search) => "/opencloud/resource/search/1.0",
            Self::Event(Verb::Verify) => "/opencloud/resource/verify/1.0",
            Self::Event(Verb::Considers) => "/opencloud/resource/considers/1.0",
            Self::Event(Verb::Planner) => "/opencloud/resource/planner/1.0",
            Self::Event(Verb::Admiralty) => "/opencloud/config/admiralty/1.0",
            Self::Event(Verb::Minio) => "/opencloud/config/minio/1.0",
        }
    }

    /// The protocol with this id, if it is one of ours.
    #[must_use]
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.id() == id)
    }

    /// The most bytes that one value may have, its line feed not counted; of a bandwidth probe, all there are.
    #[must_use]
    pub const fn value_bytes_max(self) -> usize {
        match self {
            Self::Hello | Self::Leave | Self::Witness | Self::Echo | Self::Revoke => 4 * 1024,
            Self::Publish => 16 * 1024,
            Self::Heartbeat
            | Self::Candidates
            | Self::Search
            | Self::SearchResponse
            | Self::Audit
            | Self::Revocations => 64 * 1024,
            Self::Bandwidth => crate::bandwidth::PAYLOAD_BYTES,
            Self::Get => 256 * 1024,
            Self::Event(_) => EVENT_BYTES_MAX,
        }
    }
}

/// Topic on which indexers ask each other for peers by part of a name.
pub const TOPIC_SEARCH_PEER: &str = "oc-search-peer";

/// Topic on which nodes ask each other for resources.
pub const TOPIC_NODE_SEARCH: &str = "oc-node-search";

/// Topic on which indexers say that they come, go, or found another one dead.
pub const TOPIC_PRESENCE: &str = "oc-presence";

/// Topic of beacons, which every member hears.
pub const TOPIC_BEACON: &str = "muster-beacon";

/// Kademlia's protocol id in this network.
pub const KADEMLIA_PROTOCOL: &str = "/oc/kad/1.0.0";

/// The protocol version that this build speaks.
pub const VERSION: &str = "1.0";

/// Who a peer is and where it listens: `{"ID": …, "Addrs": […]}`, addresses without `/p2p/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddrInfo {
    /// The peer.
    #[serde(rename = "ID", with = "text")]
    pub id: PeerId,
    /// Where it says it can be reached.
    #[serde(rename = "Addrs", default)]
    pub addrs: Vec<Multiaddr>,
}

/// A broadcast that is answered by whoever hears it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// 128 random bits in hexadecimal.
    pub id: String,
    /// When it was sent.
    pub at: Timestamp,
}

/// The answer to a beacon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// The beacon's.
    pub id: String,
    /// Milliseconds from when it was heard to when this was written.
    pub held_ms: u64,
}

/// What a peer offers to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// It represents an organisation.
    #[serde(default)]
    pub node: bool,
    /// It answers heartbeats and searches.
    #[serde(default)]
    pub indexer: bool,
}

/// First words of both sides on every connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// `major.minor`; the major must agree.
    pub version: String,
    /// Must agree.
    pub network_id: String,
    /// Program and version, for people.
    #[serde(default)]
    pub agent: String,
    /// What the peer is.
    #[serde(default)]
    pub role: Role,
    /// It neither stores nor serves for others.
    #[serde(default)]
    pub light: bool,
    /// Protocol ids and topics that it understands.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Its DID.
    #[serde(default)]
    pub did: String,
    /// Fingerprints of the pre-shared keys that it holds, so that operators see when a rotation may end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_keys: Vec<String>,
    /// Start of its process.
    pub born_at: Timestamp,
    /// Its clock, now.
    pub time: Timestamp,
}

/// Why something was refused, in the words of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Another `network_id`.
    Network,
    /// Another major version.
    Version,
    /// No room now; `retry_after` tells when.
    Busy,
    /// Banned.
    Banned,
    /// Expired or from the future: perhaps a wrong clock, never a strike.
    Clock,
    /// Over a limit.
    Limit,
    /// No session, no record.
    UnknownPeer,
    /// Malformed or not valid.
    Invalid,
    /// It names another peer than the connection's.
    NotYours,
}

/// An answer that says no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which no.
    pub refused: RefusalCode,
    /// In words.
    #[serde(default)]
    pub detail: String,
    /// The `seq` of the request, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Whole seconds to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// Others that may have room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<AddrInfo>,
}

impl Refused {
    /// A refusal without further fields.
    #[must_use]
    pub fn new(refused: RefusalCode, detail: impl Into<String>) -> Self {
        Self { refused, detail: detail.into(), seq: None, retry_after: None, alternatives: Vec::new() }
    }

    /// The same, to be tried again after `secs` whole seconds.
    #[must_use]
    pub fn retry_after(mut self, secs: u64) -> Self {
        self.retry_after = Some(secs);
        self
    }
}

/// An answer: what was asked for, or a refusal.
///
/// It is a refusal when it has a `refused` field, and only then: an empty answer is never taken for one, nor a refusal
/// for an answer whose fields are all optional.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Answer<T> {
    /// No, and why.
    Refused(Refused),
    /// Yes.
    Given(T),
}

/// Read by hand, since what serde derives for untagged enums cannot hold an embedded text ([`RawValue`]).
impl<'de, T: DeserializeOwned> Deserialize<'de> for Answer<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(from)?;
        let answer = if is_refusal(text.get()) {
            serde_json::from_str(text.get()).map(Self::Refused)
        } else {
            serde_json::from_str(text.get()).map(Self::Given)
        };
        answer.map_err(D::Error::custom)
    }
}

fn is_refusal(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(default)]
        refused: Option<IgnoredAny>,
    }
    // Most answers are none, and say so without being read twice. An escape may hide the field's name.
    let may_be = text.contains("\"refused\"") || text.contains('\\');
    may_be && serde_json::from_str::<Probe>(text).is_ok_and(|probe| probe.refused.is_some())
}

/// One tick of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Echoed by the answer.
    pub seq: u64,
    /// The node's name.
    #[serde(default)]
    pub name: String,
    /// The node's DID.
    #[serde(default)]
    pub did: String,
    /// Must be the connection's.
    #[serde(with = "text")]
    pub peer_id: PeerId,
    /// Unix seconds.
    #[serde(default)]
    pub timestamp: i64,
    /// How many more indexers the pool wants; at least 1 while it moves from one to another.
    #[serde(default)]
    pub need: u32,
    /// The node's `PeerRecord` as it was signed, while its `seq` is not acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Box<RawValue>>,
    /// What the referent puts into the DHT for the node, sent with the record and to the referent only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<DhtValues>,
    /// Peers whose presence the indexer should tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "texts")]
    pub challenges: Vec<PeerId>,
    /// A DID that the indexer should look up in the DHT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge_did: Option<String>,
    /// This indexer is the one that represents the node in distributed search.
    #[serde(default)]
    pub referent: bool,
    /// An answer is wanted, a session is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probe: bool,
    /// The node's `PresenceToken` for this indexer, once per epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<Box<RawValue>>,
    /// The trace that it belongs to, where somebody traces it.
    #[serde(default, skip_serializing_if = "Traceparent::is_empty")]
    pub traceparent: Traceparent,
}

/// The signed values that a referent puts into the DHT beside the record itself.
///
/// Only the node's own key can sign them, and only its referent puts them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DhtValues {
    /// The value of `/pid/<peer id>`.
    pub pid: Box<RawValue>,
    /// The node's claim in `/name/<name>`.
    pub name: Box<RawValue>,
}

/// What an indexer found about a challenged peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeAnswer {
    /// The challenged peer.
    #[serde(with = "text")]
    pub peer_id: PeerId,
    /// It has a session here.
    pub found: bool,
    /// When it was last heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}

/// Raw facts of an indexer about itself, never a score.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeartbeatResponse {
    /// The request's.
    pub seq: u64,
    /// The newest `seq` of the asker's record held here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_seq: Option<u64>,
    /// Microseconds from the question read to the answer written.
    #[serde(default)]
    pub served_us: u64,
    /// Sessions ÷ capacity, 0 to 1.
    pub fill_rate: f64,
    /// Sessions.
    pub peer_count: u32,
    /// Capacity in sessions.
    pub max_nodes: u32,
    /// Start of the indexer's process.
    pub born_at: Timestamp,
    /// Answers to the challenges asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub challenges: Vec<ChallengeAnswer>,
    /// The challenged DID was in the DHT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dht_found: Option<bool>,
    /// The record found there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dht_payload: Option<Box<RawValue>>,
    /// Peers that see this indexer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<AddrInfo>,
    /// Other indexers, at most as many as needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suggestions: Vec<AddrInfo>,
    /// The indexer is over-full and asks the node to move.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suggest_migrate: bool,
}

/// What became of one published record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishReceipt {
    /// The record's.
    pub seq: u64,
    /// It is the newest now.
    pub accepted: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The newest `seq` held.
    pub record_seq: u64,
}

/// A look-up: exactly one of the three fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetValue {
    /// A DID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A peer.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text_option")]
    pub peer_id: Option<PeerId>,
    /// An exact name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Records found, by peer id.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GetResponse {
    /// At least one was found.
    pub found: bool,
    /// The records as they were signed; the key is the peer id's text.
    #[serde(default)]
    pub records: std::collections::BTreeMap<String, Box<RawValue>>,
}

/// A question for other indexers' addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidatesRequest {
    /// How many, 1 to 10; anything else means 3.
    #[serde(default)]
    pub count: u32,
}

/// Addresses of other indexers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidatesResponse {
    /// Never the asker, never the answerer.
    #[serde(default)]
    pub candidates: Vec<AddrInfo>,
}

/// The answer to a `Leave`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveAck {
    /// Heard.
    pub ok: bool,
}

/// The answer to a `Revoke`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeAck {
    /// It is held, since now or since before.
    pub ok: bool,
}

/// A question for the revocations that a peer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationsRequest {
    /// Those behind this peer id, by its bytes; all where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text_option")]
    pub after: Option<PeerId>,
}

/// A page of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RevocationsResponse {
    /// By peer id.
    #[serde(default)]
    pub revocations: Vec<HeldRevoke>,
    /// Others follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A revocation as its holder tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeldRevoke {
    /// The `Revoke` as it was signed.
    pub revoke: Box<RawValue>,
    /// Seconds for which its holder will hold it if its key stays quiet: whoever learns it here holds it no longer, so that
    /// it ends everywhere.
    pub left_s: u64,
}

/// A search from a node to one of its indexers: exactly one of the three criteria.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchPeerRequest {
    /// 128 random bits in hex, new for this hop.
    pub query_id: String,
    /// A peer.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text_option")]
    pub peer_id: Option<PeerId>,
    /// A DID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub did: Option<String>,
    /// A name or a part of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The trace that it belongs to, where somebody traces it.
    #[serde(default, skip_serializing_if = "Traceparent::is_empty")]
    pub traceparent: Traceparent,
}

/// The same among indexers, by gossip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchQuery {
    /// 128 random bits in hex, new for this hop.
    pub query_id: String,
    /// A peer.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text_option")]
    pub peer_id: Option<PeerId>,
    /// A DID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub did: Option<String>,
    /// A name or a part of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The indexer that asks; must be the gossip message's author.
    #[serde(with = "text")]
    pub emitter_id: PeerId,
    /// The trace that it belongs to, where somebody traces it.
    #[serde(default, skip_serializing_if = "Traceparent::is_empty")]
    pub traceparent: Traceparent,
}

/// One peer that matches a search.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SearchHit {
    /// The peer.
    #[serde(with = "text")]
    pub peer_id: PeerId,
    /// Its DID.
    #[serde(default)]
    pub did: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its record as it was signed; absent only from legacy peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Box<RawValue>>,
}

/// Hits of a search, or its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SearchPeerResult {
    /// The request's.
    pub query_id: String,
    /// Peers that match.
    #[serde(default)]
    pub records: Vec<SearchHit>,
    /// Nothing follows from this answerer.
    #[serde(default)]
    pub last: bool,
    /// In the last value to the node: indexers asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<u32>,
    /// In the last value to the node: indexers that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<u32>,
    /// In the last value to the node: indexers that did not answer in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timed_out: Option<u32>,
    /// In the last value to the node: hits were left out at a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
}

/// The payload of an event that asks for resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceQuestion {
    /// 128 random bits in hex.
    pub query_id: String,
    /// What is looked for.
    pub query: ResourceQuery,
    /// The trace that it belongs to, where somebody traces it.
    #[serde(default, skip_serializing_if = "Traceparent::is_empty")]
    pub traceparent: Traceparent,
}

/// The payload of an event that answers such a question, in whole or in part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResourceAnswer {
    /// The question's.
    pub query_id: String,
    /// Resources as their creator, who is the answer's author, signed them.
    #[serde(default)]
    pub resources: Vec<Box<RawValue>>,
    /// Nothing follows from this author.
    #[serde(default)]
    pub last: bool,
    /// Resources were left out at a limit.
    #[serde(default)]
    pub truncated: bool,
}

/// An event was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventAck {
    /// Always; a no is a refusal.
    pub ok: bool,
}

/// A question about an indexer to a peer that may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessRequest {
    /// The indexer.
    #[serde(with = "text")]
    pub indexer_peer_id: PeerId,
    /// Say hello to it first, if you knew it before.
    #[serde(default, rename = "try", skip_serializing_if = "std::ops::Not::not")]
    pub is_try: bool,
}

/// What a witness sees of an indexer: raw facts, never a score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WitnessReport {
    /// The witness had something to do with it lately.
    #[serde(default)]
    pub seen: bool,
    /// Start of its process, as it said to the witness lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born_at: Option<Timestamp>,
    /// As it said to the witness lately, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill_rate: Option<f64>,
    /// The witness is connected to it, or with `try` reached it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
}

/// An auditor's question: whose tokens come first under this salt?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRequest {
    /// 32 random bytes in base64, new for each audit.
    pub salt: String,
    /// This epoch; tokens of it and the one before it are meant.
    pub epoch: u64,
}

/// The first tokens under the salt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AuditResponse {
    /// As they were signed, at most 32, each of another node.
    pub tokens: Vec<Box<RawValue>>,
}

/// Peer ids as their usual base58 text.
pub(crate) mod text {
    use libp2p_identity::PeerId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(peer: &PeerId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(peer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PeerId, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

pub(crate) mod text_option {
    use libp2p_identity::PeerId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(peer: &Option<PeerId>, to: S) -> Result<S::Ok, S::Error> {
        match peer {
            Some(peer) => to.collect_str(peer),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PeerId>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.filter(|text| !text.is_empty()).map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

pub(crate) mod texts {
    use libp2p_identity::PeerId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(peers: &[PeerId], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(peers.iter().map(PeerId::to_string))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PeerId>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::json;

    fn read<T: DeserializeOwned>(text: &str) -> Answer<T> {
        json::parse(text.as_bytes(), 1024).unwrap()
    }

    #[test]
    fn a_refusal_is_told_from_an_answer_by_its_field() {
        let refusal = r#"{"refused":"busy","detail":"full","seq":7,"retry_after":30}"#;
        let Answer::Refused(refused) = read::<CandidatesResponse>(refusal) else { panic!("taken for an answer") };
        assert_eq!((refused.refused, refused.seq, refused.retry_after), (RefusalCode::Busy, Some(7), Some(30)));
        assert!(matches!(read::<CandidatesResponse>(r#"{"r\u0065fused":"busy"}"#), Answer::Refused(_)));
        assert!(matches!(read::<CandidatesResponse>("{}"), Answer::Given(_)));
        assert!(matches!(read::<CandidatesResponse>(r#"{"detail":"refused","refused":null}"#), Answer::Given(_)));
        assert!(matches!(read::<CandidatesResponse>(r#"{"unknown":{"refused":"busy"}}"#), Answer::Given(_)));
        assert!(json::parse::<Answer<CandidatesResponse>>(br#"{"refused":"no such code"}"#, 1024).is_err());
        assert!(json::parse::<Answer<CandidatesResponse>>(b"7", 1024).is_err());
    }

    #[test]
    fn an_answer_keeps_the_texts_within_it() {
        let text = r#"{"seq":1,"fill_rate":0.5,"peer_count":1,"max_nodes":2,"born_at":"2026-01-02T03:04:05Z","dht_payload":{ "b":1.0,"a":2 }}"#;
        let Answer::Given(answer) = read::<HeartbeatResponse>(text) else { panic!("taken for a refusal") };
        assert_eq!(answer.dht_payload.unwrap().get(), r#"{ "b":1.0,"a":2 }"#);
        let text = r#"{"found":true,"records":{"x":{"z":1 , "a":"\u00e9"}}}"#;
        let Answer::Given(answer) = read::<GetResponse>(text) else { panic!("taken for a refusal") };
        assert_eq!(answer.records["x"].get(), r#"{"z":1 , "a":"\u00e9"}"#);
    }

    #[test]
    fn what_is_written_of_an_answer_is_read_again() {
        let written =
            serde_json::to_string(&Answer::<CandidatesResponse>::Refused(Refused::new(RefusalCode::NotYours, "x")));
        assert!(
            matches!(read::<CandidatesResponse>(&written.unwrap()), Answer::Refused(refused) if refused.detail == "x")
        );
        let written = serde_json::to_string(&Answer::Given(CandidatesResponse::default())).unwrap();
        assert!(matches!(read::<CandidatesResponse>(&written), Answer::Given(_)));
    }

    #[test]
    fn g10_every_protocol_has_its_own_id_and_limit() {
        for protocol in Protocol::ALL {
            assert_eq!(Protocol::from_id(protocol.id()), Some(protocol));
            assert!((4 * 1024..=1024 * 1024).contains(&protocol.value_bytes_max()));
            assert_eq!(Protocol::ALL[protocol.index()], protocol);
        }
        assert_eq!(Protocol::from_id("/opencloud/hello/2.0"), None);
    }

    #[test]
    fn g43_a_heartbeat_never_tells_the_pool_and_an_old_peers_is_ignored() {
        let id = crate::identity::Keys::from_seed([1; 32]).peer_id();
        let old = format!(r#"{{"seq":1,"peer_id":"{id}","indexers_binded":["a","b"]}}"#);
        let heartbeat: Heartbeat = json::parse(old.as_bytes(), 1024).unwrap();
        assert!(!serde_json::to_string(&heartbeat).unwrap().contains("indexers_binded"));
        let full = Heartbeat {
            record: Some(RawValue::from_string("{}".to_owned()).unwrap()),
            values: Some(DhtValues {
                pid: RawValue::from_string("{}".to_owned()).unwrap(),
                name: RawValue::from_string("{}".to_owned()).unwrap(),
            }),
            challenges: vec![id],
            challenge_did: Some("did:key:zParis".to_owned()),
            probe: true,
            presence: Some(RawValue::from_string("{}".to_owned()).unwrap()),
            ..heartbeat
        };
        let told: std::collections::BTreeMap<String, serde_json::Value> =
            serde_json::from_str(&serde_json::to_string(&full).unwrap()).unwrap();
        // Whom it challenges is itself or one that it names; how many it needs is a number. Nothing lists its indexers.
        let fields =
            "challenge_did challenges did name need peer_id presence probe record referent seq timestamp values";
        assert_eq!(told.keys().map(String::as_str).collect::<Vec<_>>().join(" "), fields);
    }
}
