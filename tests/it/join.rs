//! Joining, leaving, coming back.

use std::time::Instant;

use actors::view::{MemberState, Standing};

use crate::harness::{Federation, PATIENCE, Spec, ticks, until, until_true};

#[test]
fn the_pre_shared_key_and_one_seed_address_are_enough() {
    let federation = Federation::converged(3, &["paris"]);
    let paris = federation.member("paris");
    // One was configured; the others were heard of.
    until_true("paris has every indexer in its pool", PATIENCE, || paris.status().pool_answering == 3);
    let seeds: Vec<_> = paris.indexers().into_iter().filter(|indexer| indexer.seed).collect();
    assert_eq!(seeds.len(), 1);
    assert_eq!(seeds[0].peer_id.to_string(), federation.member("indexer-1").peer_id);
    for indexer in ["indexer-1", "indexer-2", "indexer-3"] {
        until_true(&format!("{indexer} keeps a session of paris"), PATIENCE, || {
            federation.member(indexer).sessions().iter().any(|session| session.peer_id.to_string() == paris.peer_id)
        });
    }
}

#[test]
fn what_a_referent_puts_is_read_back_from_the_others() {
    let federation = Federation::converged(3, &["paris"]);
    let referent = until("paris has a referent", PATIENCE, || {
        federation.member("paris").indexers().into_iter().find(|indexer| indexer.referent)
    });
    let name = ["indexer-1", "indexer-2", "indexer-3"]
        .into_iter()
        .find(|name| federation.member(name).peer_id == referent.peer_id.to_string())
        .unwrap();
    // Its record, its peer id's value and its name's claim.
    until_true("three values of paris were found at two servers each", PATIENCE, || {
        federation.member(name).metric("muster_dht_puts_read_back_total") >= 3.0
    });
}

#[test]
fn a_first_indexer_is_ready_alone_and_a_node_is_not() {
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1")).start();
    federation.member("indexer-1").until_ready();
    federation.add(Spec::node("paris")).start();
    let paris = federation.member("paris");
    // It has the key and no address: it runs, it is not ready, and it says what to do.
    let answer = until("paris answers", PATIENCE, || paris.ask("/readyz").ok());
    assert_eq!(answer.code, 503, "{answer:?}");
    assert!(answer.body.contains("seed"), "{answer:?}");
    assert_eq!(paris.ask("/healthz").unwrap().code, 200);
}

#[test]
fn one_referent_represents_a_node_at_a_time() {
    let federation = Federation::converged(3, &["paris"]);
    let paris = federation.member("paris");
    until_true("exactly one indexer is paris's referent", PATIENCE, || {
        let referents = ["indexer-1", "indexer-2", "indexer-3"].into_iter().filter(|indexer| {
            let sessions = federation.member(indexer).sessions();
            sessions.iter().any(|session| session.referent && session.peer_id.to_string() == paris.peer_id)
        });
        referents.count() == 1
    });
    let pool = paris.indexers();
    assert_eq!(pool.iter().filter(|indexer| indexer.referent).count(), 1, "{pool:?}");
}

#[test]
fn f7_a_node_that_was_killed_returns_as_the_same_peer_with_a_newer_record() {
    let mut federation = Federation::converged(2, &["paris", "lyon"]);
    let before = federation.member("paris").status();
    let mut after = before.clone();
    // An offence is two strikes and three are a ban: whoever took a return for one bans it at the second.
    for _ in 0..2 {
        federation.member_mut("paris").kill();
        federation.member_mut("paris").start();
        federation.member("paris").until_whole();
        let last = std::mem::replace(&mut after, federation.member("paris").status());
        assert_eq!((after.peer_id, &after.did), (before.peer_id, &before.did));
        assert!(after.record_seq > last.record_seq, "{} after {}", after.record_seq, last.record_seq);
    }
    // The others see the new record, and no indexer took the return for an attack.
    let lyon = federation.member("lyon");
    until_true("lyon finds the newer record", PATIENCE, || {
        lyon.records(&before.did).iter().any(|record| record.seq >= after.record_seq)
    });
    for indexer in ["indexer-1", "indexer-2"] {
        let events = federation.member(indexer).events(0);
        assert!(!events.iter().any(|event| event.kind == "banned"), "{events:?}");
        until_true(&format!("{indexer} has its session, with the newer record"), PATIENCE, || {
            let sessions = federation.member(indexer).sessions();
            sessions.iter().any(|it| it.peer_id == before.peer_id && it.record_seq >= after.record_seq)
        });
    }
}

#[test]
fn a_node_that_leaves_politely_is_gone_from_every_indexer_at_once() {
    let mut federation = Federation::converged(2, &["paris", "lyon"]);
    let peer_id = federation.member("paris").peer_id.clone();
    let status = federation.member_mut("paris").end_politely();
    assert_eq!(status.code(), Some(0));
    // A session outlives its node by 2 min; only the leave can be this fast.
    for indexer in ["indexer-1", "indexer-2"] {
        until_true(&format!("{indexer} has no session of paris"), std::time::Duration::from_secs(5), || {
            !federation.member(indexer).sessions().iter().any(|session| session.peer_id.to_string() == peer_id)
        });
    }
}

#[test]
fn a_peer_is_not_asked_for_what_its_hello_does_not_list_and_the_words_name_it() {
    // A node as the seed of another: its hello lists hello and leave.
    let mut federation = Federation::new();
    federation.add(Spec::node("lyon")).start();
    let seed = federation.member("lyon").address();
    federation.add(Spec::node("paris").seed(seed)).start();
    let paris = federation.member("paris");
    let expected = "hello does not list /opencloud/heartbeat/1.0";
    until_true("paris says why it cannot join", PATIENCE, || {
        paris.try_status().is_some_and(|status| status.reasons.iter().any(|reason| reason.contains(expected)))
    });
}

#[test]
fn f3_a_seed_that_dies_for_good_costs_nothing_and_a_node_restarts_without_it() {
    let mut federation = Federation::started(3, &["paris", "lyon"], |spec| spec.set("pool.min_indexer", "2"));
    federation.until_converged();
    for node in ["paris", "lyon"] {
        until_true(&format!("{node} counts on all"), PATIENCE, || federation.member(node).status().pool_answering == 3);
    }
    let lyon = federation.member("lyon").did.clone();
    until_true("paris finds lyon", PATIENCE, || !federation.member("paris").records(&lyon).is_empty());
    federation.member_mut("indexer-1").kill();
    let killed = Instant::now();
    while killed.elapsed() < ticks(3) {
        let paris = federation.member("paris");
        let status = paris.status();
        assert!(status.pool_answering >= status.pool_min && status.standing != Standing::Isolated, "{status:?}");
        assert!(!paris.records(&lyon).is_empty(), "lyon's record cannot be resolved");
    }
    federation.member_mut("paris").end_politely();
    federation.member_mut("paris").start();
    let paris = federation.member("paris");
    paris.until_standing(Standing::Whole, PATIENCE);
    let answering = paris.indexers().into_iter().filter(|indexer| indexer.state == MemberState::Answering).count();
    assert!(answering >= 1);
}
