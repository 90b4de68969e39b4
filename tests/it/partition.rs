//! Networks that are cut and mended: the F rows of the design that need cables.
//!
//! The rhythm is a tenth of the design's, and what waits for a beat is shortened with it. Two times have no setting and
//! are waited for in full: a session's 2 min and the 30 s after which its end is noticed. What was heard of the other side
//! and the records of indexers live for 10 min: a cut that outlasts these too is played by the simulator (`f14`).

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use actors::view::{BanView, EventView, ExplainView, IndexerView, MemberState};
use protocol::score::Decision;

use crate::harness::{Federation, Member, Network, PATIENCE, Side, Spec, TICK, ticks, until_true};

/// Longer than whatever keeps two members together: a session lives 2 min and is collected within 30 s, as is the record
/// of a node.
const LONG: Duration = Duration::from_secs(160);

/// The design's figure for two halves that were apart.
const MERGED_WITHIN: Duration = Duration::from_secs(60);

/// With a tenth of the design's tick goes a tenth of its longest pause while nobody answers.
fn quick(spec: Spec) -> Spec {
    spec.set("pool.backoff_first", "\"200ms\"").set("pool.backoff_max", "\"3s\"")
}

/// Two indexers and two nodes at either switch, converged.
fn on_two_sides(network: &Network) -> Federation {
    let mut federation = Federation::new();
    let mut seed = None;
    for (side, indexer, nodes) in [
        (Side::Left, ["left-1", "left-2"], ["paris", "parma"]),
        (Side::Right, ["right-1", "right-2"], ["oslo", "osaka"]),
    ] {
        let indexers = indexer.map(Spec::indexer);
        for spec in indexers.into_iter().chain(nodes.map(Spec::node)) {
            let spec = quick(spec).at(network.place(side));
            let spec = seed.clone().into_iter().fold(spec, Spec::seed);
            let member = federation.add(spec);
            member.start();
            seed.get_or_insert(member.address());
        }
    }
    federation.until_converged();
    for (from, to) in [("paris", "oslo"), ("oslo", "paris")] {
        until_true(&format!("{from} finds {to}"), PATIENCE, || finds(federation.member(from), to));
    }
    federation
}

/// A search by a part of its name shows it.
fn finds(member: &Member, name: &str) -> bool {
    let part = &name[..3];
    let found = member.verb(&["search", part, "--output", "jsonl"]);
    found.out.lines().any(|line| line.contains(&format!("\"name\":\"{name}\"")))
}

/// Those of the other side answer it no longer.
fn until_alone(federation: &Federation, member: &str, others: [&str; 2]) {
    let others = others.map(|name| federation.member(name).peer_id.clone());
    until_true(&format!("{member} counts on nobody beyond the cut"), PATIENCE, || {
        let pool = federation.member(member).indexers();
        let answers = |it: &&IndexerView| it.state == MemberState::Answering;
        let mut answering = pool.iter().filter(answers).map(|it| it.peer_id.to_string());
        !answering.any(|peer| others.contains(&peer))
    });
}

fn until_split_is_seen(federation: &Federation) {
    for (member, others) in [("paris", ["right-1", "right-2"]), ("oslo", ["left-1", "left-2"])] {
        until_alone(federation, member, others);
    }
}

/// What each side is asked for while it is alone.
fn assert_serves(federation: &Federation) {
    for (from, to) in [("paris", "parma"), ("oslo", "osaka")] {
        let (from, to) = (federation.member(from), federation.member(to));
        let status = from.status();
        assert!(status.pool_answering >= status.pool_min, "{status:?}");
        assert!(!from.records(&to.did).is_empty(), "{} finds the record of {} no more", from.name, to.name);
    }
}

/// Nobody was evicted by one, nobody banned by the others.
fn assert_nobody_is_blamed(member: &Member, indexers: &[&Member]) {
    for indexer in indexers {
        assert!(!decisions(member, indexer).contains(&Decision::Evicted), "{}", indexer.name);
        assert_eq!(bans(indexer), [], "{}", indexer.name);
    }
    let evicted = |event: &EventView| event.kind == "member_removed" && event.detail.contains("evicted");
    let events = member.events(0);
    assert!(!events.iter().any(evicted), "{events:?}");
}

fn bans(member: &Member) -> Vec<BanView> {
    member.get("/api/v1/bans")
}

/// The decisions about an indexer that a member remembers.
fn decisions(member: &Member, about: &Member) -> Vec<Decision> {
    let told: ExplainView = member.get(&format!("/api/v1/indexers/{}/explain", about.peer_id));
    told.explained.iter().flat_map(|it| it.ledger.decisions()).map(|decided| decided.what).collect()
}

#[test]
fn f4_each_side_of_a_split_serves_its_members_and_searches_cross_after_healing() {
    let name = "partition::f4_each_side_of_a_split_serves_its_members_and_searches_cross_after_healing";
    let Some(network) = Network::for_test(name) else { return };
    let mut federation = on_two_sides(&network);
    network.split();
    until_split_is_seen(&federation);
    // Of those that were there before, the other side's indexers keep sessions for 2 min. Of these nobody has heard.
    for (name, side, seed) in [("milan", Side::Left, "left-2"), ("turku", Side::Right, "right-2")] {
        let seed = federation.member(seed).address();
        federation.add(quick(Spec::node(name)).at(network.place(side)).seed(seed)).start();
    }
    let seen = Instant::now();
    while seen.elapsed() < TICK * 10 {
        assert_serves(&federation);
        sleep(TICK / 4);
    }
    for (from, to, beyond) in [("paris", "milan", "turku"), ("oslo", "turku", "milan")] {
        let from = federation.member(from);
        until_true(&format!("{} finds {to} in a split", from.name), PATIENCE, || finds(from, to));
        assert!(!finds(from, beyond), "{} finds {beyond} beyond the cut", from.name);
    }
    let joined = Instant::now();
    network.join();
    for (from, to) in [("paris", "turku"), ("oslo", "milan"), ("milan", "turku"), ("turku", "milan")] {
        let left = Duration::from_secs(120).saturating_sub(joined.elapsed());
        until_true(&format!("{from} finds {to} after the split"), left, || finds(federation.member(from), to));
    }
    eprintln!("searches crossed {:?} after the network was whole", joined.elapsed());
}

#[test]
fn f13_a_node_whose_uplink_was_cut_blames_nobody_and_is_whole_within_two_beats_of_its_return() {
    let name = "partition::f13_a_node_whose_uplink_was_cut_blames_nobody_and_is_whole_within_two_beats_of_its_return";
    let Some(network) = Network::for_test(name) else { return };
    let mut federation = Federation::new();
    let mut seed = None;
    for spec in ["indexer-1", "indexer-2", "indexer-3"].map(Spec::indexer).into_iter().chain([Spec::node("paris")]) {
        let spec = seed.clone().into_iter().fold(quick(spec).at(network.place(Side::Left)), Spec::seed);
        let member = federation.add(spec);
        member.start();
        seed.get_or_insert(member.address());
    }
    federation.until_converged();
    let paris = federation.member("paris");
    let indexers = ["indexer-1", "indexer-2", "indexer-3"].map(|name| federation.member(name));
    until_true("paris knows all", PATIENCE, || paris.status().pool_answering == 3);
    let uplink = paris.place.as_ref().unwrap();
    uplink.unplug();
    let cut = Instant::now();
    until_true("nobody answers paris", PATIENCE, || paris.status().pool_answering == 0);
    until_true("paris suspects itself", PATIENCE, || {
        indexers.iter().any(|indexer| decisions(paris, indexer).contains(&Decision::ExcusedByOurselves))
    });
    sleep(LONG.saturating_sub(cut.elapsed()));
    for indexer in indexers {
        assert!(indexer.sessions().iter().all(|it| it.peer_id.to_string() != paris.peer_id), "longer than a session");
    }
    assert_nobody_is_blamed(paris, &indexers);
    assert_eq!(paris.status().pool_answering, 0);
    let returned = Instant::now();
    uplink.plug();
    until_true("the pool of paris is whole", ticks(2), || paris.status().pool_answering == 3);
    eprintln!("whole {:?} after the uplink was back", returned.elapsed());
    paris.until_whole();
    assert_nobody_is_blamed(paris, &indexers);
}

#[test]
fn f14_two_halves_that_were_apart_for_longer_than_a_session_merge_by_themselves() {
    let name = "partition::f14_two_halves_that_were_apart_for_longer_than_a_session_merge_by_themselves";
    let Some(network) = Network::for_test(name) else { return };
    let federation = on_two_sides(&network);
    let cut = Instant::now();
    network.split();
    until_split_is_seen(&federation);
    while cut.elapsed() < LONG {
        assert_serves(&federation);
        sleep(TICK);
    }
    for (left, right) in [("left-1", "oslo"), ("left-2", "osaka"), ("right-1", "paris"), ("right-2", "parma")] {
        let (indexer, beyond) = (federation.member(left), federation.member(right));
        let sessions = indexer.sessions();
        assert!(
            sessions.iter().all(|it| it.peer_id.to_string() != beyond.peer_id),
            "{left} keeps a session of {right}"
        );
    }
    let lefts = ["left-1", "left-2"].map(|name| federation.member(name));
    let rights = ["right-1", "right-2"].map(|name| federation.member(name).peer_id.clone());
    let is_connected = |indexer: &Member| {
        indexer.peers().iter().any(|peer| peer.connected && rights.contains(&peer.peer_id.to_string()))
    };
    assert!(lefts.iter().all(|indexer| !is_connected(indexer)), "nothing has crossed the cut");
    assert!(!finds(federation.member("paris"), "oslo") && !finds(federation.member("oslo"), "paris"));
    let joined = Instant::now();
    network.join();
    let left = || MERGED_WITHIN.saturating_sub(joined.elapsed());
    for (from, to) in [("paris", "oslo"), ("oslo", "paris")] {
        until_true(&format!("{from} finds {to} after the split"), left(), || finds(federation.member(from), to));
    }
    eprintln!("searches crossed {:?} after the network was whole", joined.elapsed());
    for name in ["left-1", "left-2", "right-1", "right-2"] {
        let indexer = federation.member(name);
        until_true(&format!("{name} knows all indexers"), left(), || indexer.status().indexers_known == 3);
    }
    for indexer in lefts {
        until_true(&format!("{} is connected across", indexer.name), left(), || is_connected(indexer));
    }
    eprintln!("merged {:?} after the network was whole", joined.elapsed());
}

#[test]
fn whose_link_was_cut_without_a_word_is_connected_to_nobody_after_two_pings() {
    // 15 s to the first ping, 20 s for its answer, 15 s to the second, 10 s for its stream; and a loaded machine.
    const SILENT_WITHIN: Duration = Duration::from_secs(75);
    let name = "partition::whose_link_was_cut_without_a_word_is_connected_to_nobody_after_two_pings";
    let Some(network) = Network::for_test(name) else { return };
    let mut federation = Federation::new();
    let mut seed = None;
    for spec in [Spec::indexer("indexer-1"), Spec::indexer("indexer-2"), Spec::node("paris")] {
        let spec = seed.clone().into_iter().fold(quick(spec).at(network.place(Side::Left)), Spec::seed);
        let member = federation.add(spec);
        member.start();
        seed.get_or_insert(member.address());
    }
    federation.until_converged();
    let paris = federation.member("paris");
    let indexers = ["indexer-1", "indexer-2"].map(|name| federation.member(name));
    let is_connected =
        |to: &Member| to.peers().iter().any(|peer| peer.connected && peer.peer_id.to_string() == paris.peer_id);
    for indexer in indexers {
        until_true(&format!("paris is connected to {}", indexer.name), PATIENCE, || is_connected(indexer));
    }
    let cut = Instant::now();
    paris.place.as_ref().unwrap().unplug();
    for indexer in indexers {
        let left = SILENT_WITHIN.saturating_sub(cut.elapsed());
        until_true(&format!("{} lets paris go", indexer.name), left, || !is_connected(indexer));
        eprintln!("{} let it go after {:?}", indexer.name, cut.elapsed());
    }
    // Its session is no matter of its connection: it may dial anew and go on.
    for indexer in indexers {
        assert!(indexer.sessions().iter().any(|session| session.peer_id.to_string() == paris.peer_id));
    }
}
