//! Load on real indexers: a crowd gets in by the rules, a newcomer takes its share, and nobody is dropped for it.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use actors::view::{BanView, Standing};
use protocol::{gate::WINDOW, identity::Keys, profile::Profile, wire::RefusalCode};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{
    harness::{Federation, PATIENCE, Spec, until, until_true},
    thin::Thin,
};

/// A beat, quick enough for a test and slow enough for two processors with 28 processes.
const BEAT: Duration = Duration::from_secs(2);

/// Each is at one indexer at a time, so that a move is seen as one.
const NODES: usize = 24;

/// Short beats, and the limits that belong to them.
fn quick(spec: Spec) -> Spec {
    spec.set("heartbeat.every", "\"2s\"")
        .set("heartbeat.gap_min", "\"500ms\"")
        .set("heartbeat.ceiling", "60")
        .set("pool.max_indexer", "1")
        .set("pool.standby", "1")
}

/// At which indexer each node has its session; of two, the one whose name comes first.
fn places(federation: &Federation, indexers: &[String]) -> BTreeMap<String, String> {
    let mut places = BTreeMap::new();
    for indexer in indexers {
        for session in federation.member(indexer).sessions().into_iter().filter(|session| !session.indexer) {
            places.entry(session.peer_id.to_string()).or_insert_with(|| indexer.clone());
        }
    }
    places
}

/// Most nodes of one indexer, and the mean.
fn load(places: &BTreeMap<String, String>, indexers: &[String]) -> (usize, f64) {
    let most = indexers.iter().map(|indexer| places.values().filter(|place| *place == indexer).count()).max();
    (most.unwrap_or(0), places.len() as f64 / indexers.len() as f64)
}

/// Where the nodes are once nobody has moved for three beats: who is still being levelled out moves for no newcomer.
fn places_at_rest(federation: &Federation, indexers: &[String]) -> BTreeMap<String, String> {
    let mut last = (Instant::now(), places(federation, indexers));
    until("no node moves", PATIENCE, || {
        let now = places(federation, indexers);
        if now != last.1 {
            last = (Instant::now(), now);
        }
        (last.1.len() == NODES && last.0.elapsed() >= BEAT * 3).then(|| last.1.clone())
    })
}

#[test]
fn f15_a_fourth_indexer_takes_its_share_and_no_node_is_dropped() {
    let mut federation = Federation::new();
    for number in 1..=3 {
        let mut spec = quick(Spec::indexer(&format!("indexer-{number}"))).set("pool.max_indexer", "5");
        if number > 1 {
            spec = spec.seed(federation.member("indexer-1").address());
        }
        federation.add(spec).start();
    }
    for number in 0..NODES {
        // A third of them each.
        let seed = federation.member(&format!("indexer-{}", number % 3 + 1)).address();
        federation.add(quick(Spec::node(&format!("node-{number}"))).seed(seed)).start();
    }
    let three: Vec<String> = (1..=3).map(|number| format!("indexer-{number}")).collect();
    until_true("every node has a place", PATIENCE, || places(&federation, &three).len() == NODES);
    federation.until_converged();
    let before = places_at_rest(&federation, &three);

    let seed = federation.member("indexer-1").address();
    let fourth = quick(Spec::indexer("indexer-4")).set("pool.max_indexer", "5").seed(seed);
    federation.add(fourth).start();
    until_true("every indexer knows the fourth", PATIENCE, || {
        three.iter().all(|name| federation.member(name).status().indexers_known == 3)
    });
    let four: Vec<String> = three.iter().cloned().chain(["indexer-4".to_owned()]).collect();
    let known = Instant::now();
    let even = until("the load is even", BEAT * 15, || {
        // Whoever moves has its new place before it leaves the old one.
        for member in federation.running().filter(|member| !member.is_indexer()) {
            let status = member.status();
            assert!(status.pool_answering >= 1 && status.standing == Standing::Whole, "{}: {status:?}", member.name);
        }
        let now = places(&federation, &four);
        let (most, mean) = load(&now, &four);
        (now.len() == NODES && most as f64 <= 1.25 * mean).then(|| known.elapsed())
    });
    // One more for the fourth to be told with a beat.
    assert!(even <= BEAT * 4, "it took {even:?}");

    std::thread::sleep(BEAT * 10);
    let after = places(&federation, &four);
    let (most, mean) = load(&after, &four);
    assert!(after.len() == NODES && most as f64 <= 1.25 * mean, "it stays even: {after:?}");
    let moved = before.iter().filter(|(node, place)| after.get(*node) != Some(place)).count();
    assert!(moved * 10 <= NODES * 3, "{moved} of {NODES} moved");
}

#[test]
fn f10_a_newcomer_relieves_the_over_full_without_being_rushed() {
    /// 24 nodes are 86 % of two indexers, and 57 % of three.
    const MAX_NODES: &str = "14";
    let mut federation = Federation::new();
    let indexer = |number: usize| {
        quick(Spec::indexer(&format!("indexer-{number}"))).set("pool.max_indexer", "5").set("gate.max_nodes", MAX_NODES)
    };
    for number in 1..=2 {
        let seeds = federation.running().next().map(|first| first.address());
        federation.add(seeds.into_iter().fold(indexer(number), Spec::seed)).start();
    }
    for number in 0..NODES {
        let seed = federation.member(&format!("indexer-{}", number % 2 + 1)).address();
        federation.add(quick(Spec::node(&format!("node-{number}"))).seed(seed)).start();
    }
    let two: Vec<String> = (1..=2).map(|number| format!("indexer-{number}")).collect();
    until_true("every node has a place", PATIENCE, || places(&federation, &two).len() == NODES);
    federation.until_converged();
    let before = places_at_rest(&federation, &two);

    let seed = federation.member("indexer-1").address();
    federation.add(indexer(3).seed(seed)).start();
    federation.member("indexer-3").until_listening();
    let joined = Instant::now();
    let three: Vec<String> = (1..=3).map(|number| format!("indexer-{number}")).collect();
    let counts = |places: &BTreeMap<String, String>| -> Vec<usize> {
        three.iter().map(|indexer| places.values().filter(|place| *place == indexer).count()).collect()
    };
    // The mean is 8: within 15 % of it are 7, 8 and 9.
    let is_even =
        |counts: &[usize]| counts.iter().sum::<usize>() == NODES && counts.iter().all(|it| (7..=9).contains(it));
    // The design's 10 min are 30 of its beats.
    let even = until("the load is even", BEAT * 30, || {
        for member in federation.running().filter(|member| !member.is_indexer()) {
            let status = member.status();
            assert!(status.pool_answering >= 1 && status.standing == Standing::Whole, "{}: {status:?}", member.name);
        }
        let now = counts(&places(&federation, &three));
        assert!(now[2] <= 10, "all rush to the newcomer: {now:?}");
        is_even(&now).then(|| joined.elapsed())
    });
    eprintln!("even after {even:?}");
    std::thread::sleep(BEAT * 10);
    let after = places(&federation, &three);
    assert!(is_even(&counts(&after)), "it stays even: {after:?}");
    let moved = before.iter().filter(|(node, place)| after.get(*node) != Some(place)).count();
    assert!(moved * 2 <= NODES, "{moved} of {NODES} moved, a third must");
}

#[test]
fn f9_a_crowd_gets_in_at_the_rate_of_its_subnets_and_nobody_is_banned() {
    const SUBNETS: usize = 4;
    let bucket = Profile::Public.sessions_per_subnet() as usize;
    let each = bucket + 3;
    let step = WINDOW / Profile::Public.sessions_per_subnet();
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1").set("network.profile", "\"public\"")).start();
    let member = federation.member("indexer-1");
    member.until_listening();
    let runtime = Runtime::new().unwrap();
    let (network, to) = (member.network(), member.address().parse().unwrap());
    let began = Instant::now();
    let (sailors, arrived) = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for number in 0..SUBNETS * each {
            let (subnet, host) = (number % SUBNETS, number / SUBNETS);
            let at = Ipv4Addr::new(127, 9, subnet as u8, 1 + host as u8);
            let keys = Keys::from_seed([number as u8; 32]);
            let thin = Thin::start_at(at, keys, &format!("thin-{number}"), &network).unwrap();
            let to: libp2p::Multiaddr = Clone::clone(&to);
            tasks.spawn(async move {
                let link = loop {
                    let refused = match thin.connect(&to).await {
                        Ok(link) => break link,
                        Err(error) => error.refusal().unwrap_or_else(|| panic!("no refusal: {error}")).clone(),
                    };
                    assert_eq!(refused.refused, RefusalCode::Busy, "{refused:?}");
                    tokio::time::sleep(Duration::from_secs(refused.retry_after.unwrap())).await;
                };
                let mut beats = thin.beats(&link).await.unwrap();
                beats.beat().await.unwrap();
                (subnet, Instant::now(), (thin, link))
            });
        }
        let all = tokio::time::timeout(3 * step + PATIENCE, tasks.join_all()).await.expect("all are in");
        let mut arrived = BTreeMap::<usize, Vec<Duration>>::new();
        let mut sailors = Vec::new();
        for (subnet, at, sailor) in all {
            arrived.entry(subnet).or_default().push(at.duration_since(began));
            sailors.push(sailor);
        }
        (sailors, arrived)
    });
    for (subnet, mut times) in arrived {
        times.sort_unstable();
        for (number, at) in times.iter().enumerate().skip(bucket) {
            let earliest = step * (number - bucket + 1) as u32;
            assert!(*at >= earliest, "{number} of subnet {subnet} was in after {at:?}, its turn was {earliest:?}");
        }
    }
    assert_eq!(member.sessions().len(), sailors.len());
    assert_eq!(member.get::<Vec<BanView>>("/api/v1/bans"), []);
}
