//! Presence among stand-ins: a swarm that notes what is said and finds what the test lays into the DHT, and neighbours
//! that note what they are told. And over a real connection, to an indexer that lets everybody in and listens.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use protocol::{
    dht::{self, Valid},
    identity::Keys,
    presence::topic::Join,
    profile::Profile,
    record::INDEXER_RECORD_LIFE,
    revocations::{Revocations, Revoked},
};
use tempfile::TempDir;

use super::*;
use crate::{
    gate, policy,
    root::{self, Running, Start},
    settings::Settings,
    supervision::ChildSpec,
    testing::{INDEXER, StandIn, start_of, until},
};

/// What was said, sought, told and heard, and what the swarm has to answer.
#[derive(Default)]
struct Mind {
    words: Vec<PresenceWord>,
    /// Another indexer hears what is said.
    is_heard: bool,
    sought: Vec<PeerId>,
    /// What the DHT holds.
    held: BTreeMap<PeerId, Verified<IndexerRecord>>,
    told: Vec<String>,
    listens: Vec<Multiaddr>,
    heard: Vec<Heard>,
}

type Shared = Arc<Mutex<Mind>>;

fn swarm(msg: swarm::Msg, mind: &mut Mind) {
    match msg {
        swarm::Msg::Do(swarm::Command::Publish { topic: TOPIC_PRESENCE, text, reply }) => {
            mind.words.push(serde_json::from_slice(&text).unwrap());
            // Whoever said it may be gone.
            let _ = reply.send(mind.is_heard);
        }
        swarm::Msg::Do(swarm::Command::Find { key: dht::Key::Indexer(peer), reply, .. }) => {
            mind.sought.push(peer);
            drop(reply.send(mind.held.get(&peer).cloned().map(Valid::Indexer).into_iter().collect()));
        }
        _ => {}
    }
}

fn book(msg: peers::Msg, mind: &mut Mind) {
    match msg {
        peers::Msg::Identified { peer, addrs } => mind.told.push(in_words("peers", peer, &addrs)),
        peers::Msg::Listening { addrs } => mind.listens = addrs,
        _ => {}
    }
}

fn pool(msg: pool::Msg, mind: &mut Mind) {
    if let pool::Msg::Heard { candidates } = msg {
        mind.told.extend(candidates.iter().map(|it| in_words("pool", it.id, &it.addrs)));
    }
}

fn suggestions(msg: suggestions::Msg, mind: &mut Mind) {
    mind.told.push(match msg {
        suggestions::Msg::Learned(record) => in_words("suggestions", record.peer_id, &record.addrs),
        _ => "suggestions: something else".to_owned(),
    });
}

fn in_words(to: &str, peer: PeerId, addrs: &[Multiaddr]) -> String {
    format!("{to}: {peer} {addrs:?}")
}

struct Bench {
    running: Running,
    mind: Shared,
    _folder: TempDir,
}

impl Bench {
    /// One in whose time nobody waits: it jumps as soon as there is nothing else to do.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let start = start_in(&folder, 1, Vec::new()).await;
        // Not before the database is open: its own thread knows true time alone.
        tokio::time::pause();
        let mind = Shared::default();
        let of_children = Arc::clone(&mind);
        let running = root::start_with(start, |context| {
            let to = &context.addresses;
            let mind = || Arc::clone(&of_children);
            let own = context.clone();
            vec![
                ChildSpec::new(&to.swarm, StandIn { mind: mind(), hear: swarm }, |_| ()),
                ChildSpec::new(&to.peers, StandIn { mind: mind(), hear: book }, |_| ()),
                ChildSpec::new(&to.pool, StandIn { mind: mind(), hear: pool }, |_| ()),
                ChildSpec::new(&to.suggestions, StandIn { mind: mind(), hear: suggestions }, |_| ()),
                ChildSpec::new(&to.presence, Presence, move |seat| Args { seat, context: own.clone() }),
            ]
        });
        let running = running.await.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"));
        Self { running, mind, _folder: folder }
    }

    fn tell(&self, msg: Msg) {
        self.running.context().addresses.presence.tell(Class::Control, msg).unwrap();
    }

    /// Gossip brings that an indexer came.
    fn hears(&self, peer: PeerId, addr: Multiaddr, born_at: Timestamp) {
        self.tell(Msg::Heard(Heard::Joined { peer, addrs: vec![addr], born_at }));
    }

    fn words(&self) -> Vec<PresenceWord> {
        self.mind.lock().unwrap().words.clone()
    }

    fn sought(&self) -> Vec<PeerId> {
        self.mind.lock().unwrap().sought.clone()
    }

    /// What was told, in no order: each neighbour has its own.
    fn told(&self) -> Vec<String> {
        let mut told = self.mind.lock().unwrap().told.clone();
        told.sort_unstable();
        told
    }
}

fn keys(n: u8) -> Keys {
    Keys::from_seed([n; 32])
}

fn peer(n: u8) -> PeerId {
    keys(n).peer_id()
}

fn at(n: u8) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{}", 4_000 + u16::from(n)).parse().unwrap()
}

fn record(n: u8) -> Verified<IndexerRecord> {
    let (keys, now) = (keys(n), Timestamp::now());
    let record = IndexerRecord {
        peer_id: keys.peer_id(),
        addrs: vec![at(n)],
        region: String::new(),
        capacity: 500,
        fill_rate: 0.0,
        peer_count: 0,
        salt: String::new(),
        peers_digest: Vec::new(),
        born_at: now,
        expiry_date: now + INDEXER_RECORD_LIFE,
        seq: 1,
        pub_key: keys.pub_key().to_owned(),
    };
    Verified::sign(&record, &keys)
}

/// What an indexer on this machine is started with.
async fn start_in(folder: &TempDir, n: u8, seeds: Vec<Multiaddr>) -> Start {
    let mut settings = Settings::default();
    settings.network.profile = Profile::Local;
    settings.network.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    settings.network.seeds = seeds.iter().map(|seed| seed.to_string().parse().unwrap()).collect();
    start_of(folder, &keys(n), INDEXER, settings, n.into()).await
}

#[tokio::test]
async fn an_indexer_says_that_it_came_again_and_again_until_another_one_hears_it() {
    let bench = Bench::start().await;
    bench.tell(Msg::Reachable { addrs: vec![at(1)] });
    until("it is said three times", async || (bench.words().len() >= 3).then_some(())).await;
    bench.mind.lock().unwrap().is_heard = true;
    until("it is said to somebody", async || (bench.words().len() >= 4).then_some(())).await;
    // Nor when the peer book lives anew and tells once more where we listen.
    bench.tell(Msg::Reachable { addrs: vec![at(1)] });
    tokio::time::sleep(SAY_AGAIN * 5).await;
    let words = bench.words();
    assert_eq!(words.len(), 4, "what was heard is said no more: {words:?}");
    let own = &bench.running.context().own;
    for word in words {
        let join = Join { addrs: vec![at(1)], born_at: own.born_at };
        assert_eq!((word.peer_id, word.join, word.dead_peer), (own.peer_id, Some(join), None));
        assert!(word.leave.is_none());
    }
}

#[tokio::test]
async fn who_hears_that_an_indexer_came_looks_for_its_record_and_believes_that_alone() {
    let bench = Bench::start().await;
    let (first, later) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + Duration::from_secs(1));
    let [unlisted, listed, met, misplaced] = [2, 3, 4, 5].map(peer);
    // Of whom there is no record. Repeated, or said of one run after the other, it is worth no second look.
    for born_at in [first, first, later] {
        bench.hears(unlisted, at(2), born_at);
    }
    until("the first is sought", async || (!bench.sought().is_empty()).then_some(())).await;
    // Hello was there before it, and an address that names another peer is none of its own.
    bench.tell(Msg::Met { peer: met, born_at: first });
    bench.hears(met, at(4), first);
    bench.hears(misplaced, addr::with_peer(&at(5), peer(6)), first);
    bench.mind.lock().unwrap().held.insert(listed, record(3));
    bench.hears(listed, at(3), first);
    let believed = in_words("suggestions", listed, &[at(3)]);
    until("what the record says is believed", async || bench.told().contains(&believed).then_some(())).await;
    // Nobody looks later than this.
    tokio::time::sleep(SPREAD_MAX).await;
    assert_eq!(bench.sought(), [unlisted, listed]);
    let hearsay = [(unlisted, at(2)), (listed, at(3))];
    let mut expected: Vec<String> = ["peers", "pool"]
        .iter()
        .flat_map(|to| hearsay.iter().map(move |(peer, addr)| in_words(to, *peer, std::slice::from_ref(addr))))
        .chain([believed])
        .collect();
    expected.sort_unstable();
    assert_eq!(bench.told(), expected);
}

fn let_in(msg: policy::Msg, _: &mut Mind) {
    if let policy::Msg::Greet { reply, .. } = msg {
        reply.send(Ok(()));
    }
}

fn let_through(msg: gate::Msg, _: &mut Mind) {
    if let gate::Msg::Greet { reply, .. } = msg {
        reply.send(Ok(()));
    }
}

fn has_no_session(msg: registry::Msg, _: &mut Mind) {
    if let registry::Msg::HasSession { reply, .. } = msg {
        reply.send(false);
    }
}

fn listen(msg: Msg, mind: &mut Mind) {
    if let Msg::Heard(heard) = msg {
        mind.heard.push(heard);
    }
}

/// Another would hear of it by hello and the DHT: this one has ears for the topic alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_indexer_that_joins_says_to_others_where_it_is_and_since_when() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mind = Shared::default();
    let of_children = Arc::clone(&mind);
    let listener = root::start_with(start_in(&folders[0], 1, Vec::new()).await, |context| {
        // Nobody is let in before that is known.
        context.refuse_revoked(Revoked::of(&Revocations::new()));
        let to = &context.addresses;
        let mind = || Arc::clone(&of_children);
        let own = context.clone();
        vec![
            ChildSpec::new(&to.policy, StandIn { mind: mind(), hear: let_in }, |_| ()),
            ChildSpec::new(&to.gate, StandIn { mind: mind(), hear: let_through }, |_| ()),
            ChildSpec::new(&to.registry, StandIn { mind: mind(), hear: has_no_session }, |_| ()),
            ChildSpec::new(&to.peers, StandIn { mind: mind(), hear: book }, |_| ()),
            ChildSpec::new(&to.presence, StandIn { mind: mind(), hear: listen }, |_| ()),
            ChildSpec::new(&to.swarm, swarm::SwarmActor, move |seat| swarm::Args { seat, context: own.clone() }),
        ]
    });
    let _listener = listener.await.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"));
    let seed = until("it listens", async || mind.lock().unwrap().listens.first().cloned()).await;
    let joiner = root::start(start_in(&folders[1], 2, vec![addr::with_peer(&seed, peer(1))]).await).await;
    let joiner = joiner.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"));
    let heard = until("the joiner is heard", async || mind.lock().unwrap().heard.first().cloned()).await;
    let listens = joiner.handle().status().await.unwrap().listen;
    let addrs = listens.iter().map(|full| addr::split_peer(full).0).collect();
    assert_eq!(heard, Heard::Joined { peer: peer(2), addrs, born_at: joiner.context().own.born_at });
}
