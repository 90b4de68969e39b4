//! Load among real indexers: a newcomer takes its share, and nobody is dropped for it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use actors::view::Standing;

use crate::harness::{Federation, PATIENCE, Spec, until, until_true};

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
    let before = places(&federation, &three);

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
