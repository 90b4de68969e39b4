//! What indexers tell each other of the dead on `oc-presence`: a reason to look, and never more.

use std::thread::sleep;

use actors::view::MemberState;

use crate::harness::{Federation, Member, Network, PATIENCE, Side, Spec, TICK, until_true};

fn says(member: &Member, kind: &str, about: &str) -> bool {
    member.events(0).iter().any(|event| event.kind == kind && event.subject == about)
}

#[test]
fn who_hears_of_a_dead_indexer_looks_for_itself_and_expects_it_no_longer() {
    let mut federation = Federation::converged(3, &[]);
    let dead = federation.member("indexer-3").peer_id.clone();
    let others = ["indexer-1", "indexer-2"];
    federation.member_mut("indexer-3").kill();
    until_true("one of them looked because the other said so", PATIENCE, || {
        others.iter().any(|name| says(federation.member(name), "indexer_unreachable", &dead))
    });
    for name in others {
        // Its signed record is good for minutes more.
        until_true(&format!("{name} expects it no longer"), PATIENCE, || {
            federation.member(name).status().indexers_known == 1
        });
    }
}

#[test]
fn one_that_another_calls_dead_and_that_we_reach_stays() {
    let name = "presence::one_that_another_calls_dead_and_that_we_reach_stays";
    let Some(network) = Network::for_test(name) else { return };
    let mut federation = Federation::new();
    let mut seed = None;
    for spec in ["indexer-1", "indexer-2", "indexer-3"].map(Spec::indexer) {
        let spec = spec.at(network.place(Side::Left)).set("log.level", "\"info,actors::presence=debug\"");
        let spec = seed.clone().into_iter().fold(spec, Spec::seed);
        let member = federation.add(spec);
        member.start();
        seed.get_or_insert(member.address());
    }
    federation.until_converged();
    let [first, second, third] = ["indexer-1", "indexer-2", "indexer-3"].map(|name| federation.member(name));
    let answers = |member: &Member| {
        let is = |it: &actors::view::IndexerView| it.peer_id.to_string() == third.peer_id;
        member.indexers().iter().any(|it| is(it) && it.state == MemberState::Answering)
    };
    until_true("both count on the third", PATIENCE, || answers(first) && answers(second));
    // The log alone tells one word on the topic from another.
    let logged = |words: &[&str]| second.log().lines().any(|line| words.iter().all(|word| line.contains(word)));
    let (by, about) = (format!("by={}", first.peer_id), format!("indexer={}", third.peer_id));
    let heard = ["said to be dead: looking", by.as_str(), about.as_str()];
    let looked = ["is there, whatever another indexer said", about.as_str()];
    assert!(!logged(&heard), "nobody said so before");
    first.place.as_ref().unwrap().part_from(third.place.as_ref().unwrap());
    until_true("the first counts on the third no longer", PATIENCE, || !answers(first));
    until_true("the second heard the first say that it is dead", PATIENCE * 2, || logged(&heard));
    until_true("the second looked at it for itself", PATIENCE, || logged(&looked));
    // What must not follow has no event: a whole beat is given to it.
    sleep(TICK);
    assert!(!says(second, "indexer_unreachable", &third.peer_id), "{:?}", second.events(0));
    assert!(answers(second), "{:?}", second.indexers());
    assert_eq!(second.status().indexers_known, 2);
}
