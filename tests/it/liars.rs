//! Indexers that lie to a real node: made of the daemon's own transport, so that the lie is all that is wrong with them.

use std::{fs, sync::Arc, time::Duration};

use actors::{
    swarm::streams::{Inbound, Io, Patience},
    view::ExplainView,
};
use libp2p::Multiaddr;
use protocol::{
    PeerId, Timestamp, dht,
    identity::{Keys, PreSharedKey},
    record::{INDEXER_RECORD_LIFE, IndexerRecord, PEER_RECORD_LIFE, PeerRecord, digest, next_seq},
    score::{Check, Entry, Observation},
    signed::Verified,
    wire::{
        AuditRequest, AuditResponse, ChallengeAnswer, Heartbeat, HeartbeatResponse, Protocol, WitnessReport,
        WitnessRequest,
    },
    witness::SEEN_WITHIN,
};
use serde_json::value::RawValue;
use tokio::{runtime::Runtime, sync::mpsc};

use crate::{
    harness::{Federation, Member, PATIENCE, Spec, until, until_true},
    thin::{Network, Thin},
};

/// For an answer to be written.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// Between two beats a node may be silent for this long.
const SILENCE: Duration = Duration::from_secs(60);

/// How one lies; in everything else it answers as it should.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// It does not.
    None,
    /// It says that it is empty.
    Fill,
    /// It finds nobody whom it serves.
    NeverFound,
    /// It takes no record.
    NoRecord,
    /// It finds no record in the DHT.
    NoDht,
    /// As a witness it says of everybody else what nobody else says.
    Witness,
    /// It claims nodes that it does not have: of the tokens that an auditor counts it has none.
    Crowd,
}

/// A node's record, as it gave it last.
#[derive(Clone)]
struct Held {
    seq: u64,
    text: Box<RawValue>,
}

impl Held {
    fn of(question: &Heartbeat) -> Option<Self> {
        let text = question.record.clone()?;
        let record = Verified::<PeerRecord>::open(text.get(), Timestamp::now()).ok()?;
        Some(Self { seq: record.seq, text })
    }
}

impl Lie {
    fn answer(self, question: &Heartbeat, held: Option<&Held>, born_at: Timestamp) -> HeartbeatResponse {
        let challenges = question.challenges.iter().map(|peer| {
            let found = !matches!(self, Self::NeverFound);
            ChallengeAnswer { peer_id: *peer, found, last_seen: found.then(Timestamp::now) }
        });
        // Whoever holds the record can show it.
        let shown = held.filter(|_| question.challenge_did.is_some());
        HeartbeatResponse {
            seq: question.seq,
            record_seq: held.map(|held| held.seq).filter(|_| !matches!(self, Self::NoRecord)),
            served_us: 0,
            fill_rate: if matches!(self, Self::Fill) { 0.0 } else { 0.5 },
            peer_count: 50,
            max_nodes: 100,
            born_at,
            challenges: challenges.collect(),
            dht_found: shown.map(|_| !matches!(self, Self::NoDht)),
            dht_payload: shown.filter(|_| !matches!(self, Self::NoDht)).map(|held| held.text.clone()),
            witnesses: Vec::new(),
            suggestions: Vec::new(),
            suggest_migrate: false,
        }
    }
}

/// Whom one sees as a witness, and what it says of their start: all of a test began at one time.
#[derive(Clone)]
struct Eyes {
    sees: Arc<[PeerId]>,
    born_at: Timestamp,
}

impl Eyes {
    fn of(sees: &[PeerId]) -> Self {
        Self { sees: sees.into(), born_at: Timestamp::now() }
    }

    fn report(&self, lie: Lie, about: PeerId) -> WitnessReport {
        let seen = self.sees.contains(&about);
        // A restart that nobody else has seen.
        let born_at = if matches!(lie, Lie::Witness) { self.born_at + Duration::from_secs(30) } else { self.born_at };
        WitnessReport { seen, connected: Some(seen), born_at: seen.then_some(born_at), fill_rate: seen.then_some(0.5) }
    }
}

/// Answers every heartbeat on every stream until the test ends, and testifies that it is connected to these and saw nobody
/// else.
async fn serve(lie: Lie, eyes: Eyes, mut inbound: mpsc::Receiver<Inbound>) {
    while let Some(Inbound { protocol, stream, .. }) = inbound.recv().await {
        match protocol {
            Protocol::Audit => drop(tokio::spawn(show_no_tokens(stream))),
            Protocol::Witness => drop(tokio::spawn(testify(stream, lie, eyes.clone()))),
            _ => drop(tokio::spawn(answer_beats(stream, lie, eyes.born_at))),
        }
    }
}

async fn answer_beats(mut stream: Io, lie: Lie, born_at: Timestamp) {
    let mut held: Option<Held> = None;
    loop {
        let read = stream.read(Patience::idle(SILENCE), |value| serde_json::from_slice::<Heartbeat>(value.bytes));
        let Ok(Some(Ok(question))) = read.await else { return };
        held = Held::of(&question).or(held);
        let answer = lie.answer(&question, held.as_ref(), born_at);
        if stream.write(&answer, WRITE_WITHIN).await.is_err() {
            return;
        }
    }
}

async fn testify(mut stream: Io, lie: Lie, eyes: Eyes) {
    let read = stream.read(Patience::idle(SILENCE), |value| serde_json::from_slice::<WitnessRequest>(value.bytes));
    if let Ok(Some(Ok(asked))) = read.await {
        // Whoever asks has gone if this fails, and asks again.
        let _ = stream.write(&eyes.report(lie, asked.indexer_peer_id), WRITE_WITHIN).await;
    }
}

async fn show_no_tokens(mut stream: Io) {
    let read = stream.read(Patience::idle(SILENCE), |value| serde_json::from_slice::<AuditRequest>(value.bytes));
    if let Ok(Some(Ok(_))) = read.await {
        // Whoever audits has gone if this fails, and says so itself.
        let _ = stream.write(&AuditResponse::default(), WRITE_WITHIN).await;
    }
}

fn start(member: &Member, seed: u8, lie: Lie) -> Thin {
    // The others do not know audits, which is no lie.
    let protocols = match lie {
        Lie::Crowd => &[Protocol::Heartbeat, Protocol::Audit][..],
        _ => &[Protocol::Heartbeat],
    };
    start_with(member, seed, lie, protocols, Eyes::of(&[]))
}

fn start_with(member: &Member, seed: u8, lie: Lie, protocols: &[Protocol], eyes: Eyes) -> Thin {
    let text = fs::read_to_string(member.dir.join("swarm.key")).unwrap();
    let key: PreSharedKey = text.parse().unwrap();
    let network = Network { key: Some(*key.as_bytes()), id: "opencloud".to_owned() };
    let (keys, name) = (Keys::from_seed([seed; 32]), format!("thin-{seed}"));
    let (thin, inbound) = Thin::start_serving(keys, &name, &network, protocols).unwrap();
    tokio::spawn(serve(lie, eyes, inbound));
    thin
}

/// An indexer's record that names these as connected to it.
fn naming(indexer: &Thin, named: &[PeerId]) -> Verified<IndexerRecord> {
    let (now, salt) = (Timestamp::now(), [0; 16]);
    let record = IndexerRecord {
        peer_id: indexer.keys.peer_id(),
        addrs: vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()],
        region: String::new(),
        capacity: 100,
        fill_rate: 0.5,
        peer_count: 50,
        // Of 16 zeros.
        salt: "AAAAAAAAAAAAAAAAAAAAAA==".to_owned(),
        peers_digest: named.iter().map(|peer| digest(&salt, peer)).collect(),
        born_at: indexer.born_at,
        expiry_date: now + INDEXER_RECORD_LIFE,
        seq: next_seq(0, now),
        pub_key: indexer.keys.pub_key().to_owned(),
    };
    Verified::sign(&record, &indexer.keys)
}

/// Beats of a second, each with a challenge, and an audit and a judgement as often.
fn quick(spec: Spec) -> Spec {
    spec.set("heartbeat.every", "\"1s\"")
        .set("heartbeat.gap_min", "\"200ms\"")
        .set("heartbeat.ceiling", "120")
        .set("heartbeat.challenge_every_min", "1")
        .set("heartbeat.challenge_every_max", "1")
        .set("audit.every", "\"1s\"")
        .set("audit.again", "\"1s\"")
        .set("score.judge_every", "\"1s\"")
        .set("score.online_min", "\"2s\"")
}

fn explained(node: &Member, indexer: &str) -> Option<ExplainView> {
    node.try_get(&format!("/api/v1/indexers/{indexer}/explain"))
}

#[test]
fn f8_indexers_that_lie_are_out_of_the_pool_and_one_that_does_not_stays() {
    let federation = Federation::started(1, &["paris"], quick);
    federation.until_converged();
    let paris = federation.member("paris");
    let address: Multiaddr = paris.address().parse().unwrap();
    let runtime = Runtime::new().unwrap();
    let kinds = [
        (Lie::Fill, Check::Fill),
        (Lie::NeverFound, Check::OwnId),
        (Lie::NoRecord, Check::Record),
        (Lie::Crowd, Check::Presence),
        (Lie::NoDht, Check::Dht),
    ];
    let (honest, liars) = runtime.block_on(async {
        let honest = start(paris, 1, Lie::None);
        let liars: Vec<Thin> = (2..).zip(kinds).map(|(seed, (lie, _))| start(paris, seed, lie)).collect();
        (honest, liars)
    });
    let ids: Vec<String> = liars.iter().map(|liar| liar.keys.peer_id().to_string()).collect();
    let honest_id = honest.keys.peer_id().to_string();
    // They knock, as any indexer may whose pool has room, and the node takes them up by itself.
    let links = runtime.block_on(async {
        let mut links = Vec::new();
        for thin in liars.iter().chain([&honest]) {
            links.push(thin.connect(&address).await.unwrap());
        }
        links
    });
    until_true("all are members", PATIENCE, || {
        ids.iter()
            .chain([&honest_id])
            .all(|id| paris.events(0).iter().any(|event| event.kind == "member_joined" && event.subject == *id))
    });
    for (id, (lie, check)) in ids.iter().zip(kinds) {
        // Who fails in the DHT is asked again ten beats later, and caught by the ninth time.
        until_true(&format!("{lie:?} is out"), 4 * PATIENCE, || {
            !paris.indexers().iter().any(|indexer| indexer.peer_id.to_string() == *id)
        });
        let score = until("it is explained", PATIENCE, || explained(paris, id)?.explained?.score);
        assert!(score.suspicions.is_caught() && score.value == 0.0, "{lie:?}: {score:?}");
        assert_eq!(score.suspicions.sums().map(|(check, _)| check).collect::<Vec<_>>(), [check], "{lie:?}");
        let said = paris.verb(&["indexers", "--explain", id]).ok().out;
        assert!(said.contains("caught, its score is 0"), "{said}");
        assert!(said.contains("evicted for its score"), "{said}");
    }
    let stays = paris.indexers().into_iter().find(|indexer| indexer.peer_id.to_string() == honest_id);
    assert!(stays.is_some_and(|indexer| indexer.score.is_some_and(|score| score > 50.0)), "the honest one stays");
    drop(links);
}

#[test]
fn f8_an_indexer_whose_record_names_peers_that_never_saw_it_is_caught_and_one_whose_record_is_true_stays() {
    let federation = Federation::started(1, &["paris"], |spec| {
        quick(spec).set("heartbeat.spot_every", "1").set("pool.max_indexer", "10")
    });
    federation.until_converged();
    let (indexer, paris) = (federation.member("indexer-1"), federation.member("paris"));
    let [at_indexer, at_paris]: [Multiaddr; 2] = [indexer, paris].map(|member| member.address().parse().unwrap());
    let protocols = &[Protocol::Heartbeat, Protocol::Witness];
    let honest_id = Keys::from_seed([1; 32]).peer_id();
    let eyes = Eyes::of(&[honest_id, indexer.status().peer_id]);
    let runtime = Runtime::new().unwrap();
    let thins: Vec<Thin> = runtime.block_on(async {
        // An honest one, a liar, and four that both name.
        let mut thins: Vec<Thin> =
            (1..=6).map(|seed| start_with(paris, seed, Lie::None, protocols, eyes.clone())).collect();
        // Only a witness that ran for all the time of which a record may speak contradicts it.
        thins[2..].iter_mut().for_each(|witness| witness.born_at -= SEEN_WITHIN + Duration::from_secs(60));
        thins
    });
    let witnesses: Vec<PeerId> = thins[2..].iter().map(|witness| witness.keys.peer_id()).collect();
    let (links, beats) = runtime.block_on(async {
        let (mut links, mut beats) = (Vec::new(), Vec::new());
        for (number, thin) in thins.iter().enumerate() {
            let [at_indexer, at_paris] =
                [thin.connect(&at_indexer).await.unwrap(), thin.connect(&at_paris).await.unwrap()];
            if number < 2 {
                let key = dht::Key::Indexer(thin.keys.peer_id());
                assert!(thin.put(&at_indexer, &key, naming(thin, &witnesses).text()).await.unwrap(), "{number}");
            } else {
                // It says for how long it runs, where it can be looked up.
                let mut stream = thin.beats(&at_indexer).await.unwrap();
                stream.beat_with(&thin.sign(4 * PEER_RECORD_LIFE), true).await.unwrap();
                beats.push(stream);
            }
            links.extend([at_indexer, at_paris]);
        }
        (links, beats)
    });
    let liar_id = thins[1].keys.peer_id().to_string();
    // Some twenty spot checks, one at each beat.
    until_true("the liar is out", 4 * PATIENCE, || {
        explained(paris, &liar_id)
            .and_then(|view| view.explained?.score)
            .is_some_and(|score| score.suspicions.is_caught())
            && !paris.indexers().iter().any(|indexer| indexer.peer_id.to_string() == liar_id)
    });
    let score = explained(paris, &liar_id).and_then(|view| view.explained?.score).unwrap();
    assert_eq!(score.suspicions.sums().map(|(check, _)| check).collect::<Vec<_>>(), [Check::Spot], "{score:?}");
    let is_vouched = |entry: &Entry| matches!(entry.seen, Observation::Spot { good: true, .. });
    until_true("the honest one's record was found to be right", PATIENCE, || {
        explained(paris, &honest_id.to_string())
            .and_then(|view| view.explained)
            .is_some_and(|explained| explained.ledger.entries().any(is_vouched))
    });
    let stays = paris.indexers().into_iter().find(|indexer| indexer.peer_id == honest_id);
    assert!(stays.is_some_and(|indexer| indexer.score.is_some_and(|score| score > 50.0)), "the honest one stays");
    drop((links, beats));
}

#[test]
fn f8_a_witness_that_says_of_all_what_nobody_else_says_is_caught_and_those_it_accuses_stay() {
    let federation = Federation::started(1, &["paris"], |spec| quick(spec).set("pool.max_indexer", "10"));
    federation.until_converged();
    let paris = federation.member("paris");
    let address: Multiaddr = paris.address().parse().unwrap();
    let runtime = Runtime::new().unwrap();
    let seeds = 1..=6;
    let ids: Vec<PeerId> = seeds.clone().map(|seed| Keys::from_seed([seed; 32]).peer_id()).collect();
    let eyes = Eyes::of(&ids);
    let links = runtime.block_on(async {
        let mut links = Vec::new();
        for seed in seeds {
            let lie = if seed == 1 { Lie::Witness } else { Lie::None };
            let thin = start_with(paris, seed, lie, &[Protocol::Heartbeat, Protocol::Witness], eyes.clone());
            links.push((thin.connect(&address).await.unwrap(), thin));
        }
        links
    });
    let (liar, honest) = ids.split_first().unwrap();
    // Nobody is asked about a peer of which we heard for less than a minute.
    until_true("the liar is out", 6 * PATIENCE, || {
        explained(paris, &liar.to_string())
            .and_then(|view| view.explained?.score)
            .is_some_and(|score| score.suspicions.is_caught())
            && !paris.indexers().iter().any(|indexer| indexer.peer_id == *liar)
    });
    let score = explained(paris, &liar.to_string()).and_then(|view| view.explained?.score).unwrap();
    assert_eq!(score.suspicions.sums().map(|(check, _)| check).collect::<Vec<_>>(), [Check::Testimony], "{score:?}");
    for id in honest {
        let stays = paris.indexers().into_iter().find(|indexer| indexer.peer_id == *id);
        assert!(stays.is_some_and(|indexer| indexer.score.is_some_and(|score| score > 50.0)), "{id} stays");
    }
    drop(links);
}
