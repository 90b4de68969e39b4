//! What answers look like, for the description of the API: values of the types themselves, so that none can be outdated.

use std::collections::BTreeMap;

use actors::view::{
    ActorState, ActorView, AddrView, AlertView, BanView, BinView, BridgeState, BridgeView, BusMode, CurveView, Ended,
    EventView, ExplainView, IndexerView, ListedView, MemberState, OutboxView, PartView, PeerView, PlacedView, PlanView,
    ReachedView, RecordView, RelationView, ReportView, ResourceStep, ResourceView, RevocationView, SampleView,
    ScoreView, SearchView, SessionView, Standing, StatusView, TablePeerView, TraceView,
};
use jiff::{SignedDuration, Timestamp};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use protocol::{
    alerts::{Severity, Topic},
    relation::Relation,
    report::{Report, Spread, Trouble},
    wire::Role,
};
use serde_json::value::RawValue;

use super::{keyring::TokenView, roles::Role as TokenRole, tokens::NewToken, trail::Entry};

/// An indexer.
pub(super) const INDEXER: &str = "12D3KooWAbEtX8DWy98D7SxNW4bLgU3vYxdEvsEk15AcwqKz7aHg";

/// A node.
pub(super) const NODE: &str = "12D3KooWSCufgHzV4fCwRijfH2k3abrpAJxTKxEvN1FDuRXA2U9x";

const DID: &str = "did:key:z6MkmM42vxfqZQsv4ehtTjFFxQ4sQKS2w6WR7emozFAn5cxu";

fn peer(text: &str) -> PeerId {
    text.parse().expect("an example names a peer")
}

fn addr() -> Multiaddr {
    "/ip4/192.0.2.7/tcp/4001".parse().expect("an example has an address")
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("an example is JSON")
}

/// So many seconds after noon of a day.
fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_767_268_800 + second)
}

/// Why a node is not ready.
pub(super) const ISOLATED: &str =
    "isolated: no indexer answers any more: check network.seeds, and that an indexer runs there";

pub(super) fn status() -> StatusView {
    StatusView {
        name: "paris".to_owned(),
        peer_id: peer(NODE),
        did: DID.to_owned(),
        version: "0.1.0".to_owned(),
        role: Role { node: true, indexer: false },
        network_id: "opencloud".to_owned(),
        profile: "public".to_owned(),
        standing: Standing::Whole,
        ready: true,
        reasons: Vec::new(),
        listen: vec![addr()],
        born_at: at(0),
        uptime_ms: 60_000,
        pool_members: 3,
        pool_answering: 3,
        pool_min: 1,
        pool_max: 5,
        referent: Some(INDEXER.to_owned()),
        sessions: 0,
        max_nodes: 0,
        indexers_known: 2,
        connections: 4,
        record_seq: 12,
        store_ok: true,
        drained: false,
        network_keys: vec!["0123456789abcdef".to_owned()],
    }
}

pub(super) fn actors() -> Vec<ActorView> {
    vec![ActorView {
        name: "root/node/pool".to_owned(),
        kind: "pool".to_owned(),
        parent: "root/node".to_owned(),
        state: ActorState::Running,
        incarnation: 2,
        uptime_ms: 60_000,
        restarts: 1,
        last_error: Some("an injected fault".to_owned()),
        handled: 420,
        in_flight: 0,
        in_flight_max: 3,
        shed: 0,
        busy_ms: 0,
        handle_p50_us: 12,
        handle_p99_us: 90,
        wait_p50_us: 8,
        wait_p99_us: 40,
    }]
}

pub(super) fn peers() -> Vec<PeerView> {
    vec![PeerView {
        peer_id: peer(INDEXER),
        name: "indexer-1".to_owned(),
        did: DID.to_owned(),
        role: Role { node: true, indexer: true },
        agent: "muster/0.1.0".to_owned(),
        connected: true,
        last_seen: Some(at(59)),
        network_keys: vec!["0123456789abcdef".to_owned()],
        addrs: vec![AddrView { addr: addr(), succeeded: 2, failed: 0 }],
    }]
}

pub(super) fn indexers() -> Vec<IndexerView> {
    vec![IndexerView {
        peer_id: peer(INDEXER),
        name: "indexer-1".to_owned(),
        addrs: vec![addr()],
        state: MemberState::Answering,
        seed: true,
        sticky: false,
        referent: true,
        score: Some(91.5),
        threshold: 20.0,
        parts: vec![PartView {
            name: "uptime".to_owned(),
            weight: 0.2,
            value: Some(1.0),
            evidence: "answered in 20 of 20 min".to_owned(),
        }],
        rtt_ms: Some(1.8),
        fill_rate: Some(0.1),
        peer_count: Some(50),
        max_nodes: Some(500),
        born_at: Some(at(-3_600)),
        last_answer: Some(at(59)),
        missed: 0,
        beats: 60,
        bytes_per_sec: Some(80e6),
    }]
}

pub(super) fn explained() -> ExplainView {
    ExplainView { name: "indexer-1".to_owned(), indexer: indexers().pop(), explained: None }
}

pub(super) fn sessions() -> Vec<SessionView> {
    vec![SessionView {
        peer_id: peer(NODE),
        name: "paris".to_owned(),
        did: DID.to_owned(),
        indexer: false,
        referent: true,
        since: at(0),
        last_seen: at(59),
        record_seq: 12,
        beats: 3,
        bytes_per_sec: None,
        rtt_ms: None,
    }]
}

pub(super) fn records() -> Vec<RecordView> {
    vec![RecordView {
        peer_id: peer(NODE),
        did: DID.to_owned(),
        name: "paris".to_owned(),
        expiry_date: at(120),
        seq: 12,
        source: "indexer".to_owned(),
        record: raw(r#"{"name":"paris"}"#),
    }]
}

pub(super) fn events() -> Vec<EventView> {
    vec![EventView {
        seq: 42,
        at: at(30),
        kind: "member_joined".to_owned(),
        subject: INDEXER.to_owned(),
        detail: "its first answer came".to_owned(),
    }]
}

pub(super) fn alerts() -> Vec<AlertView> {
    vec![AlertView {
        topic: Topic::Disk,
        severity: Severity::Warning,
        since: at(30),
        figure: 0.95,
        bound: 0.9,
        remedy: Topic::Disk.remedy().to_owned(),
    }]
}

pub(super) fn samples() -> Vec<SampleView> {
    let figures = BTreeMap::from([("cpu".to_owned(), 0.25), ("disk".to_owned(), 0.95)]);
    vec![SampleView { at: at(30), figures }]
}

pub(super) fn report() -> ReportView {
    let disk = Spread { least: 0.41, mean: 0.42, most: 0.43 };
    let isolated = Trouble { raised: 1, worst: Severity::Critical, lasted_ms: 30_000 };
    let running = Report {
        from: at(0),
        to: at(60),
        samples: 2,
        figures: [(Topic::Disk, disk)].into(),
        alerts: [(Topic::Isolated, isolated)].into(),
        counts: [("beats_answered".to_owned(), 3)].into(),
    };
    ReportView { last: None, running }
}

pub(super) fn bus() -> BridgeView {
    BridgeView {
        url: "nats://127.0.0.1:4222".to_owned(),
        state: BridgeState::Ready,
        mode: Some(BusMode::JetStream),
        server: "nats 2.10.0".to_owned(),
        cause: String::new(),
        taken: 7,
        repeated: 0,
        put_off: 0,
        refused: 0,
        own_ignored: 7,
        announced: 9,
        dropped: 0,
        waiting: 0,
    }
}

/// An event of a stream, as it travels.
fn told(name: &str, data: &impl serde::Serialize) -> String {
    format!("event: {name}\ndata: {}\n\n", serde_json::to_string(data).unwrap_or_default())
}

pub(super) fn search() -> String {
    let hit = SearchView::Hit { hit: records().remove(0), after_ms: 3.2 };
    let end = SearchView::End {
        ended: Ended::Complete,
        hits: 1,
        asked: 3,
        answered: 3,
        timed_out: 0,
        truncated: false,
        took_ms: 9.1,
    };
    told("hit", &hit) + &told("end", &end)
}

pub(super) fn feed() -> String {
    format!("id: 1767268800000000-42\n{}", told("happened", &events().remove(0)))
}

pub(super) fn searches() -> String {
    let query_id = "0193e4d2a6f47b0d8f8e2f0a4c1b7d55".to_owned();
    let hit = ResourceStep::Hit {
        query_id: query_id.clone(),
        peer_id: peer(NODE),
        resource: resource().resource,
        elapsed_ms: 3.2,
    };
    let end = ResourceStep::Ended {
        query_id,
        reason: Ended::Complete,
        hits: 1,
        asked: 2,
        answered: 2,
        refused: 0,
        timed_out: 0,
        truncated: false,
        elapsed_ms: 9.1,
    };
    told("hit", &hit) + &told("end", &end)
}

pub(super) fn resource() -> ResourceView {
    ResourceView {
        creator: peer(NODE),
        id: "farm-1".to_owned(),
        version: 7,
        updated_at: at(30),
        resource: raw(r#"{"id":"farm-1","kind":"compute","name":"Farm","access":"public"}"#),
    }
}

pub(super) fn resources() -> ListedView {
    ListedView { resources: vec![resource()], next: Some(format!("{NODE}/farm-1")) }
}

pub(super) fn placed() -> PlacedView {
    PlacedView { creator: peer(NODE), id: "farm-1".to_owned(), version: 7 }
}

pub(super) fn partners() -> Vec<RelationView> {
    vec![RelationView { peer_id: peer(NODE), name: "lyon".to_owned(), relation: Relation::Partner, changed_at: at(30) }]
}

pub(super) fn outbox() -> Vec<OutboxView> {
    vec![OutboxView {
        id: 9,
        to: NODE.to_owned(),
        verb: "create_resource".to_owned(),
        datatype: "compute".to_owned(),
        user: "jane".to_owned(),
        bytes: 512,
        created_at: at(0),
        attempts: 2,
        next_at: Some(at(60)),
        fate: "waiting".to_owned(),
        ended_at: None,
        detail: "it is not connected".to_owned(),
    }]
}

pub(super) fn plans() -> Vec<PlanView> {
    vec![PlanView { peer_id: peer(NODE), opened_at: at(0), ends_at: at(86_400), fed: 2, waiting: 1 }]
}

pub(super) fn curves() -> Vec<CurveView> {
    let parts = [("latency".to_owned(), 0.9), ("uptime".to_owned(), 1.0)].into();
    let sample = ScoreView { at: at(30), value: 91.5, low: 82.0, high: 96.0, threshold: 20.0, parts };
    vec![CurveView { peer_id: peer(INDEXER), samples: vec![sample] }]
}

pub(super) fn table() -> Vec<BinView> {
    let peers = vec![TablePeerView {
        peer_id: peer(INDEXER),
        name: "indexer-1".to_owned(),
        connected: true,
        addrs: vec![addr()],
    }];
    vec![BinView { common: 0, peers }]
}

pub(super) fn trace() -> TraceView {
    TraceView {
        reached: vec![ReachedView { peer_id: peer(NODE), name: "paris".to_owned(), after_ms: 3.5 }],
        p50_ms: Some(3.5),
        p99_ms: Some(3.5),
        truncated: false,
        listened_ms: 3_000,
    }
}

pub(super) fn bans() -> Vec<BanView> {
    vec![BanView {
        peer_id: peer(NODE),
        from: "all".to_owned(),
        since: at(0),
        until: Some(at(3_600)),
        by: "operator".to_owned(),
        reason: "too loud".to_owned(),
        offences: 0,
    }]
}

pub(super) fn revocation() -> RevocationView {
    RevocationView {
        peer_id: peer(NODE),
        did: DID.to_owned(),
        time: at(0),
        reason: "the disk was stolen".to_owned(),
        heard: at(2),
        until: at(400 * 24 * 3_600),
        weight: "ours".to_owned(),
    }
}

pub(super) fn revocations() -> Vec<RevocationView> {
    vec![revocation()]
}

/// The key of the test vectors, which is worth nothing.
pub(super) fn revoke() -> serde_json::Value {
    let keys = protocol::identity::Keys::from_seed([0x4d; 32]);
    let revoke = protocol::revocations::revoke(&keys, &keys.did().to_string(), "the disk was stolen", at(0));
    serde_json::to_value(revoke.to_raw()).unwrap_or_default()
}

pub(super) fn tokens() -> Vec<TokenView> {
    let of = |name: &str, role, created_at| TokenView { name: name.to_owned(), role, created_at };
    vec![of("admin", TokenRole::Admin, None), of("grafana", TokenRole::Reader, Some(at(30)))]
}

pub(super) fn new_token() -> NewToken {
    NewToken { name: "grafana".to_owned(), role: TokenRole::Reader, token: "0123456789abcdef".repeat(4) }
}

pub(super) fn audit() -> Vec<Entry> {
    vec![Entry {
        seq: 3,
        at: at(30),
        who: "ops".to_owned(),
        role: TokenRole::Operator,
        method: "PUT".to_owned(),
        path: "/api/v1/drain".to_owned(),
        status: 204,
    }]
}
