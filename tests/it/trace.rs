//! How far and how fast a broadcast travels, and who cannot make others answer.

use std::collections::BTreeSet;

use libp2p::Multiaddr;
use protocol::{
    identity::Keys,
    wire::{Echo, EventAck, Protocol, RefusalCode},
};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{
    harness::{Federation, Member, PATIENCE, muster, until},
    thin::Thin,
};

#[test]
fn a_beacon_of_a_node_reaches_every_member_and_says_how_fast() {
    let names = ["indexer-1", "indexer-2", "paris", "lyon", "oslo"];
    let federation = Federation::converged(2, &names[2..]);
    let paris = federation.member("paris");
    let config = paris.config();
    let trace = || muster(&["trace", "--config", config.to_str().unwrap(), "--output", "json"]);
    let others: BTreeSet<String> =
        names.iter().filter(|name| **name != "paris").map(|name| federation.member(name).peer_id.clone()).collect();
    // A mesh of gossip is whole a few heartbeats after its members are; one beacon in 20 s is allowed.
    let trace = until("a beacon reaches everybody", PATIENCE * 3, || {
        let ended = trace();
        if ended.code == Some(8) {
            assert!(ended.err.contains("wait"), "{ended:?}");
            return None;
        }
        let trace = ended.json();
        let reached: BTreeSet<String> =
            trace["reached"].as_array()?.iter().map(|it| it["peer_id"].as_str().unwrap().to_owned()).collect();
        assert!(reached.is_subset(&others), "nobody but members, and not the author: {trace}");
        (reached == others).then_some(trace)
    });
    let figure = |value: &Value| value.as_f64().unwrap();
    let (half, most) = (figure(&trace["p50_ms"]), figure(&trace["p99_ms"]));
    let times: Vec<f64> = trace["reached"].as_array().unwrap().iter().map(|it| figure(&it["after_ms"])).collect();
    assert!(times.is_sorted() && times.iter().all(|time| *time >= 0.0), "{times:?}");
    assert_eq!((half, most), (times[1], times[3]), "of four, the second and the last");
    // Indexers tell their names; other nodes have told paris nothing but their echo.
    let name_of = |id: &str| {
        let reached = trace["reached"].as_array().unwrap();
        reached.iter().find(|it| it["peer_id"] == id).unwrap()["name"].clone()
    };
    assert_eq!(name_of(&federation.member("indexer-2").peer_id), "indexer-2", "{trace}");
    assert_eq!(trace["truncated"], false);

    let too_soon = muster(&["trace", "--config", config.to_str().unwrap()]);
    assert_eq!(too_soon.code, Some(8), "{too_soon:?}");
    let without_token = paris.tell_without_token("/api/v1/trace", "");
    assert_eq!(without_token.code, 401, "{without_token:?}");
}

#[test]
fn whoever_has_the_author_on_its_blacklist_does_not_answer() {
    let federation = Federation::converged(1, &["paris", "lyon", "oslo"]);
    let [paris, lyon, oslo] = ["paris", "lyon", "oslo"].map(|name| federation.member(name));
    let verb = |member: &Member, line: &[&str]| {
        let config = member.config();
        muster(&[&["--config", config.to_str().unwrap()], line].concat())
    };
    verb(oslo, &["partner", "add", &paris.peer_id, "--relation", "blacklist"]).ok();
    until("a beacon reaches lyon", PATIENCE * 3, || {
        let ended = verb(paris, &["trace", "--output", "json"]);
        let reached = (ended.code == Some(0)).then(|| ended.json()["reached"].clone())?;
        let has = |id: &str| reached.as_array().is_some_and(|all| all.iter().any(|member| member["peer_id"] == id));
        assert!(!has(&oslo.peer_id), "{reached}");
        has(&lyon.peer_id).then_some(())
    });
}

#[test]
fn an_echo_of_no_beacon_counts_for_nothing() {
    let federation = Federation::converged(1, &[]);
    let member = federation.member("indexer-1");
    // Before, everybody is told to come back.
    until("it is ready", PATIENCE, || member.ask("/readyz").is_ok_and(|answer| answer.code == 200).then_some(()));
    let address: Multiaddr = member.address().parse().unwrap();
    Runtime::new().unwrap().block_on(async {
        let liar = Thin::start(Keys::from_seed([1; 32]), "liar", &member.network()).unwrap();
        let link = liar.connect(&address).await.unwrap();
        for id in ["0".repeat(32), "no id".to_owned()] {
            let told = link.ask::<_, EventAck>(Protocol::Echo, &Echo { id, held_ms: 0 }).await;
            let error = told.unwrap_err();
            assert_eq!(error.refusal().map(|refused| refused.refused), Some(RefusalCode::Invalid), "{error}");
        }
    });
}

#[test]
fn a_member_alone_reaches_nobody_and_says_so() {
    let federation = Federation::converged(1, &[]);
    let member = federation.member("indexer-1");
    let ended = muster(&["trace", "--config", member.config().to_str().unwrap()]);
    assert_eq!(ended.code, Some(7), "{ended:?}");
    assert!(ended.out.contains("nobody answered in 5 s"), "{ended:?}");
}
