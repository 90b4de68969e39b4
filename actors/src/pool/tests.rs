//! A pool among stand-ins: a store that lets its first questions die with it, or whose database is away.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use protocol::{identity::Keys, pool::MAX_INDEXER_MAX, wire::HeartbeatResponse};

use super::*;
use crate::{
    handle::Fault,
    root::{self, Running},
    settings::Settings,
    supervision::ChildSpec,
    testing::{NODE, PATIENCE, StandIn, start_of, until},
};

/// How often the store was asked whom it remembers; it answers the third time, and not before.
type Asked = Arc<Mutex<u32>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_hears_of_others_before_it_began_still_asks_again_for_what_it_begins_with() {
    let folder = tempfile::tempdir().unwrap();
    let start = start_of(&folder, &Keys::from_seed([1; 32]), NODE, Settings::default(), 1).await;
    let asked = Asked::default();
    let store = StandIn {
        mind: Arc::clone(&asked),
        hear: |msg, asked: &mut u32| {
            if let store::Msg::Members { reply } = msg {
                *asked += 1;
                if *asked > 2 {
                    reply.send(Some(Vec::new()));
                }
            }
        },
    };
    let running = root::start_with(start, |context| {
        let of_pool = context.clone();
        vec![
            ChildSpec::new(&context.addresses.store, store, |_| ()),
            ChildSpec::new(&context.addresses.pool, Pool, move |seat| Args { seat, context: of_pool.clone() }),
        ]
    });
    let running = running.await.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"));
    let pool = &running.context().addresses.pool;
    // Scores keep coming, sooner than it would ask again: each sets the machine's own clock.
    let has_asked = async || {
        pool.tell(Class::Control, Msg::Scores(Vec::new())).unwrap();
        (*asked.lock().unwrap() > 2).then_some(())
    };
    until("it asks again and again", has_asked).await;
    drop(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_member_lives_is_its_own_to_say_and_not_the_local_networks() {
    let folder = tempfile::tempdir().unwrap();
    let start = start_of(&folder, &Keys::from_seed([1; 32]), NODE, Settings::default(), 1).await;
    let [old, new] = [1, 2].map(|last| format!("/ip4/51.1.1.{last}/tcp/4001").parse::<Multiaddr>().unwrap());
    let peer = Keys::from_seed([2; 32]).peer_id();
    let row = MemberRow {
        peer,
        addresses: vec![old.clone()],
        is_seed: false,
        score: None,
        evidence: String::new(),
        last_answer: None,
        standing: 0,
    };
    let store = StandIn {
        mind: Arc::new(Mutex::new(row)),
        hear: |msg, row: &mut MemberRow| {
            if let store::Msg::Members { reply } = msg {
                reply.send(Some(vec![row.clone()]));
            }
        },
    };
    let running = root::start_with(start, |context| {
        let of_pool = context.clone();
        vec![
            ChildSpec::new(&context.addresses.store, store, |_| ()),
            ChildSpec::new(&context.addresses.pool, Pool, move |seat| Args { seat, context: of_pool.clone() }),
        ]
    });
    let running = running.await.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"));
    let pool = &running.context().addresses.pool;
    pool.tell(Class::Control, Msg::Listening).unwrap();
    let lives = async || {
        let members = pool.ask(Class::Control, Msg::Look, PATIENCE).await.ok()?;
        members.into_iter().find(|member| member.shown.peer == peer).map(|member| member.shown.addrs)
    };
    assert_eq!(until("it is a member", lives).await, std::slice::from_ref(&old));
    let moved = vec![AddrInfo { id: peer, addrs: vec![new.clone()] }];
    pool.tell(Class::Control, Msg::Local { found: moved.clone() }).unwrap();
    assert_eq!(lives().await.unwrap(), [old], "anybody could have said it");
    pool.tell(Class::Control, Msg::Heard { candidates: moved }).unwrap();
    assert!(lives().await.unwrap().contains(&new), "it said so itself");
    drop(running);
}

/// What the disk holds, what was written over it, and to whom streams were wanted.
#[derive(Default)]
struct Mind {
    asked: u32,
    /// Nothing while the database is away.
    rows: Option<Vec<MemberRow>>,
    written: Vec<MemberRow>,
    forgotten: Vec<PeerId>,
    /// Whom the judge takes for members.
    judged: Option<Vec<PeerId>>,
    wanted: BTreeSet<PeerId>,
    /// Nobody is ever reached, and nobody is told so.
    orders: Vec<swarm::Msg>,
}

fn peer(n: u8) -> PeerId {
    Keys::from_seed([n; 32]).peer_id()
}

fn address(n: u8) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{n}").parse().unwrap()
}

/// As it was kept by an earlier life.
fn kept(n: u8) -> MemberRow {
    MemberRow {
        peer: peer(n),
        addresses: vec![address(n)],
        is_seed: false,
        score: Some(0.0),
        evidence: format!("evidence of {n}"),
        last_answer: None,
        standing: 0,
    }
}

fn given() -> Box<Given> {
    let response = HeartbeatResponse {
        seq: 1,
        record_seq: None,
        served_us: 0,
        fill_rate: 0.5,
        peer_count: 5,
        max_nodes: 10,
        born_at: Timestamp::now(),
        challenges: Vec::new(),
        dht_found: None,
        dht_payload: None,
        witnesses: Vec::new(),
        suggestions: Vec::new(),
        suggest_migrate: false,
    };
    let rtt = Duration::from_millis(20);
    let challenged = Vec::new();
    Box::new(Given { response, rtt, is_served_time_false: false, challenged, referent: false, is_recorded: None })
}

/// A real pool between a store that holds what `mind` has and a swarm that reaches nobody.
async fn pool_of(folder: &tempfile::TempDir, settings: Settings, mind: &Arc<Mutex<Mind>>) -> Running {
    let start = start_of(folder, &Keys::from_seed([1; 32]), NODE, settings, 1).await;
    let store = StandIn {
        mind: Arc::clone(mind),
        hear: |msg, mind: &mut Mind| match msg {
            store::Msg::Members { reply } => {
                mind.asked += 1;
                // The first question dies with its store.
                if mind.asked > 1 {
                    reply.send(mind.rows.clone());
                }
            }
            store::Msg::KeepMember(row) => mind.written.push(row),
            store::Msg::ForgetMember(peer) => mind.forgotten.push(peer),
            _ => {}
        },
    };
    let swarm = StandIn {
        mind: Arc::clone(mind),
        hear: |msg: swarm::Msg, mind: &mut Mind| {
            if let swarm::Msg::Do(swarm::Command::Open { peer, .. }) = &msg {
                mind.wanted.insert(*peer);
                mind.orders.push(msg);
            }
        },
    };
    let score = StandIn {
        mind: Arc::clone(mind),
        hear: |msg, mind: &mut Mind| {
            if let score::Msg::Members(members) = msg {
                mind.judged = Some(members.iter().map(|member| member.peer).collect());
            }
        },
    };
    let running = root::start_with(start, |context| {
        let of_pool = context.clone();
        vec![
            ChildSpec::new(&context.addresses.store, store, |_| ()),
            ChildSpec::new(&context.addresses.score, score, |_| ()),
            ChildSpec::new(&context.addresses.swarm, swarm, |_| ()),
            ChildSpec::new(&context.addresses.pool, Pool, move |seat| Args { seat, context: of_pool.clone() }),
        ]
    });
    running.await.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_without_its_database_begins_with_its_seeds_and_takes_up_whom_it_remembers_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.network.seeds = vec![format!("{}/p2p/{}", address(2), peer(2)).parse().unwrap()];
    let mind = Arc::new(Mutex::new(Mind::default()));
    let running = pool_of(&folder, settings, &mind).await;
    let pool = &running.context().addresses.pool;
    let tell = |msg| pool.tell(Class::Control, msg).unwrap();
    let members = async || {
        let views = pool.ask(Class::Control, Msg::Look, PATIENCE).await.unwrap();
        views.into_iter().map(|view| view.shown.peer).collect::<BTreeSet<_>>()
    };
    let is_wanted = async |n: u8| mind.lock().unwrap().wanted.contains(&peer(n)).then_some(());
    tell(Msg::Listening);
    until("it begins with its seed", async || is_wanted(2).await).await;
    // What is seen in this life alone is not written over what an earlier one kept.
    tell(Msg::Answered { peer: peer(2), given: given() });
    assert_eq!(members().await, BTreeSet::from([peer(2)]));

    mind.lock().unwrap().rows = Some(vec![kept(2), kept(3)]);
    until("it takes up whom it remembers", async || is_wanted(3).await).await;
    let written = async || {
        let written = mind.lock().unwrap().written.clone();
        (!written.is_empty()).then_some(written)
    };
    let written = until("what it saw is written down beside it", written).await;
    for row in written {
        assert_eq!((row.peer, &*row.evidence, row.score), (peer(2), "evidence of 2", Some(0.0)));
        assert!(row.is_seed && row.last_answer.is_some(), "{row:?}");
    }
    // Another answer may have been on its way.
    tell(Msg::Remembered(Some(vec![kept(4)])));
    assert_eq!(members().await, BTreeSet::from([peer(2), peer(3)]));
    drop(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_seen_of_an_evicted_one_is_kept_and_it_is_not_gone_back_to() {
    let folder = tempfile::tempdir().unwrap();
    let disowned = MemberRow { standing: DISOWNED, ..kept(4) };
    let mind = Mind { asked: 1, rows: Some(vec![kept(2), kept(3), disowned]), ..Mind::default() };
    let mind = Arc::new(Mutex::new(mind));
    let running = pool_of(&folder, Settings::default(), &mind).await;
    let pool = &running.context().addresses.pool;
    let tell = |msg| pool.tell(Class::Control, msg).unwrap();
    tell(Msg::Listening);
    let has_begun = async || (mind.lock().unwrap().wanted == BTreeSet::from([peer(2), peer(3)])).then_some(());
    until("it begins with those that it may go back to", has_begun).await;
    [2, 3].into_iter().for_each(|n| tell(Msg::Answered { peer: peer(n), given: given() }));
    tell(Msg::Evicted { peer: peer(3) });
    let last = async || mind.lock().unwrap().written.last().filter(|row| row.standing == DISOWNED).cloned();
    let row = until("its row is kept", last).await;
    assert_eq!((row.peer, &*row.evidence, row.score), (peer(3), "evidence of 3", Some(0.0)));
    let mind = mind.lock().unwrap();
    assert!(mind.forgotten.is_empty() && !mind.wanted.contains(&peer(4)));
    drop(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_pool_has_a_heartbeat_for_each_member() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.pool.max_indexer = MAX_INDEXER_MAX;
    settings.pool.remembered_max = MAX_INDEXER_MAX;
    let rows: Vec<MemberRow> = (0..=254).filter(|n| *n != 1).take(MAX_INDEXER_MAX as usize).map(kept).collect();
    let all: BTreeSet<PeerId> = rows.iter().map(|row| row.peer).collect();
    let mind = Arc::new(Mutex::new(Mind { asked: 1, rows: Some(rows), ..Mind::default() }));
    let running = pool_of(&folder, settings, &mind).await;
    let pool = &running.context().addresses.pool;
    pool.tell(Class::Control, Msg::Listening).unwrap();
    let has_begun = async || (mind.lock().unwrap().wanted == all).then_some(());
    until("each member is asked for a stream", has_begun).await;
    let members = pool.ask(Class::Control, Msg::Look, PATIENCE).await.unwrap();
    assert_eq!(members.len(), all.len());
    drop(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_begins_anew_says_that_nobody_is_a_member_before_anybody_is() {
    let folder = tempfile::tempdir().unwrap();
    let mind = Arc::new(Mutex::new(Mind { asked: 1, rows: Some(vec![kept(2)]), ..Mind::default() }));
    let running = pool_of(&folder, Settings::default(), &mind).await;
    let pool = &running.context().addresses.pool;
    pool.tell(Class::Control, Msg::Listening).unwrap();
    let is_judged = async |members: &[PeerId]| (mind.lock().unwrap().judged.as_deref() == Some(members)).then_some(());
    until("its member is judged", async || is_judged(&[peer(2)]).await).await;
    // The swarm of this test never says again that it listens, so nobody joins the next life.
    running.handle().inject(pool.path().as_str(), Fault::Panic).unwrap();
    until("nobody is", async || is_judged(&[]).await).await;
    drop(running);
}
