//! Deaths, freezes and returns: the F rows of the design that real processes can show.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use actors::view::{MemberState, Standing};
use nix::sys::signal::Signal;

use crate::harness::{Federation, Member, PATIENCE, Spec, TICK, ticks, until, until_true};

/// The states of this indexer in a member's pool; none when it is not in it.
fn state_of(member: &Member, indexer: &str) -> Option<MemberState> {
    member.indexers().iter().find(|found| found.peer_id.to_string() == indexer).map(|found| found.state)
}

#[test]
fn f1_a_killed_indexer_is_replaced_within_two_ticks_and_records_stay_resolvable() {
    // Two places in the pool and three indexers: one is left to take the place of the dead.
    let mut federation = Federation::started(3, &["paris", "lyon"], |spec| spec.set("pool.max_indexer", "2"));
    federation.until_converged();
    let (paris, lyon) = (federation.member("paris"), federation.member("lyon"));
    let victim = until("lyon has two members, and not both are seeds", PATIENCE, || {
        let pool = lyon.indexers();
        let answering: Vec<_> = pool.iter().filter(|indexer| indexer.state == MemberState::Answering).collect();
        let victim = answering.iter().find(|indexer| !indexer.seed)?;
        (answering.len() >= 2).then(|| victim.name.clone())
    });
    until_true("paris finds lyon", PATIENCE, || !paris.records(&lyon.did).is_empty());
    let did = lyon.did.clone();
    federation.member_mut(&victim).kill();
    let killed = Instant::now();
    let (paris, lyon, dead) = (federation.member("paris"), federation.member("lyon"), federation.member(&victim));
    let mut replaced_after = None;
    // Watched for the whole time in which a replacement may take place, and not only until it has.
    while killed.elapsed() < ticks(2) {
        assert!(
            !paris.records(&did).is_empty(),
            "lyon's record could not be resolved {:?} after the kill",
            killed.elapsed()
        );
        let pool = lyon.indexers();
        let answering = |indexer: &&actors::view::IndexerView| {
            indexer.state == MemberState::Answering && indexer.peer_id.to_string() != dead.peer_id
        };
        if replaced_after.is_none() && pool.iter().filter(answering).count() >= 2 {
            replaced_after = Some(killed.elapsed());
        }
    }
    assert!(replaced_after.is_some(), "not replaced within two ticks: {:?}", lyon.indexers());
    federation.until_healed_of(&victim, PATIENCE);
}

#[test]
fn f2_a_node_outlives_all_its_indexers_and_rejoins_the_one_that_returns() {
    const STEP_MAX: Duration = Duration::from_secs(4);
    let mut federation = Federation::started(2, &["paris"], |spec| spec.set("pool.backoff_max", "\"4s\""));
    federation.until_converged();
    until_true("paris knows both", PATIENCE, || federation.member("paris").status().pool_answering == 2);
    federation.member_mut("indexer-1").kill();
    federation.member_mut("indexer-2").kill();
    federation.member("paris").until_standing(Standing::Isolated, PATIENCE);
    let paris = federation.member("paris");
    assert_eq!(paris.ask("/healthz").unwrap().code, 200);
    let ready = paris.ask("/readyz").unwrap();
    assert_eq!(ready.code, 503, "{ready:?}");
    assert!(
        paris.status().reasons.iter().any(|reason| reason.to_lowercase().contains("isolated")),
        "{:?}",
        paris.status()
    );
    // The one that is not in the configuration returns: memory, not the seed, finds it.
    federation.member_mut("indexer-2").start();
    federation.member("indexer-2").until_listening();
    // One step of the back-off may just have begun; then it is asked, answers, and serves the record back.
    until_true("paris has rejoined", STEP_MAX + ticks(1), || {
        federation.member("paris").try_status().is_some_and(|status| status.standing == Standing::Whole)
    });
    assert!(federation.member_mut("paris").is_alive());
}

#[test]
fn f5_an_indexer_and_a_node_that_die_together_are_forgotten_and_leave_nothing() {
    let mut federation = Federation::converged(2, &["paris"]);
    let survivors = ["indexer-1", "indexer-2", "paris"];
    let actors = |member: &Member| -> BTreeSet<String> { member.actors().into_iter().map(|it| it.name).collect() };
    for name in survivors {
        let others = if name == "paris" { 2 } else { 1 };
        let member = federation.member(name);
        until_true(&format!("{name} has its pool"), PATIENCE, || member.status().pool_answering == others);
    }
    let before = survivors.map(|name| (name, actors(federation.member(name))));
    let sessions = |member: &Member| member.sessions().len();
    let sessions_before = ["indexer-1", "indexer-2"].map(|name| (name, sessions(federation.member(name))));

    for spec in [Spec::indexer("indexer-3"), Spec::node("lyon")] {
        let seed = federation.member("indexer-1").address();
        federation.add(spec.seed(seed)).start();
    }
    federation.until_converged();
    let doomed = ["indexer-3", "lyon"];
    let lyon = federation.member("lyon").did.clone();
    until_true("paris finds lyon", PATIENCE, || !federation.member("paris").records(&lyon).is_empty());
    for name in survivors {
        let (member, third) = (federation.member(name), &federation.member("indexer-3").peer_id);
        until_true(&format!("{name} counts on indexer-3"), PATIENCE, || {
            state_of(member, third) == Some(MemberState::Answering)
        });
    }
    for name in doomed {
        federation.member_mut(name).kill();
    }
    let killed = Instant::now();
    // Sessions live 2 min past their last heartbeat, as records do, and are collected every 30 s.
    let left = || Duration::from_secs(150).saturating_sub(killed.elapsed());
    for name in doomed {
        federation.until_healed_of(name, left());
    }
    for survivor in survivors.map(|name| federation.member(name)) {
        for dead in doomed.map(|name| federation.member(name)) {
            until_true(&format!("{} finds no record of {}", survivor.name, dead.name), left(), || {
                survivor.records(&dead.did).is_empty() && survivor.records(&dead.peer_id).is_empty()
            });
        }
    }
    eprintln!("forgotten after {:?}", killed.elapsed());
    for (name, before) in before {
        let member = federation.member(name);
        until_true(&format!("{name}'s tree is the one of before"), PATIENCE, || actors(member) == before);
    }
    for (name, before) in sessions_before {
        let member = federation.member(name);
        until_true(&format!("{name}'s sessions are those of before"), PATIENCE, || sessions(member) == before);
        assert_eq!(member.metric("muster_sessions"), before as f64, "{name}");
        assert_eq!(member.status().indexers_known, 1, "{name}");
    }
}

#[test]
fn f6_g8_a_frozen_indexer_is_found_by_its_silence_and_delays_no_beat_to_another() {
    let federation = Federation::converged(2, &["paris"]);
    let paris = federation.member("paris");
    let frozen = federation.member("indexer-2");
    until_true("paris hears from indexer-2", PATIENCE, || {
        state_of(paris, &frozen.peer_id) == Some(MemberState::Answering)
    });
    let other = &federation.member("indexer-1").peer_id;
    let beats = || {
        let answered = |indexer: &actors::view::IndexerView| indexer.peer_id.to_string() == *other;
        paris.indexers().into_iter().find(answered).map_or(0, |indexer| indexer.beats)
    };
    let beats_before = beats();
    frozen.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    // Its TCP stays open and the kernel goes on acknowledging; two answers of 1 s each are missed.
    until_true("paris no longer counts on indexer-2", ticks(2) + Duration::from_secs(2), || {
        state_of(paris, &frozen.peer_id) != Some(MemberState::Answering)
    });
    assert!(stopped.elapsed() > Duration::from_secs(1), "found by something else than silence");
    until_true("indexer-1 is beaten to meanwhile", ticks(2), || beats() > beats_before);
    paris.until_whole();
    frozen.signal(Signal::SIGCONT);
    until_true("indexer-2 is in the pool again", PATIENCE, || {
        state_of(paris, &frozen.peer_id) == Some(MemberState::Answering)
    });
}

#[test]
fn g8_a_beat_that_waits_for_its_answer_delays_no_beat_to_another() {
    // Its answer is waited for much longer than five beats to the other may take.
    let federation = Federation::started(2, &["paris"], |spec| spec.set("heartbeat.answer_within", "\"30s\""));
    federation.until_converged();
    let paris = federation.member("paris");
    until_true("paris counts on both", PATIENCE, || paris.status().pool_answering == 2);
    let beats = |name: &str| {
        let peer = &federation.member(name).peer_id;
        paris.indexers().into_iter().find(|it| it.peer_id.to_string() == *peer).map_or(0, |it| it.beats)
    };
    federation.member("indexer-2").signal(Signal::SIGSTOP);
    // After two of its beats one to the frozen is under way.
    let begun = beats("indexer-1") + 2;
    until_true("indexer-1 is beaten to", ticks(3), || beats("indexer-1") >= begun);
    let frozen = beats("indexer-2");
    until_true("indexer-1 is beaten to meanwhile", ticks(3), || beats("indexer-1") >= begun + 3);
    assert_eq!(beats("indexer-2"), frozen, "and nothing was heard of the frozen one");
}

#[test]
fn f12_an_indexer_that_leaves_politely_costs_no_node_its_minimum() {
    // A pool of three that shall not have fewer, and a fourth indexer: whoever left before another came would be one short.
    let mut federation = Federation::started(4, &["paris", "lyon"], |spec| {
        spec.set("pool.min_indexer", "3").set("pool.max_indexer", "3").set("pool.standby", "1")
    });
    federation.until_converged();
    for node in ["paris", "lyon"] {
        until_true(&format!("{node} has three, and one more at hand"), PATIENCE, || {
            let member = federation.member(node);
            let has_standby = member.indexers().iter().any(|indexer| indexer.state == MemberState::Standby);
            member.status().pool_answering == 3 && has_standby
        });
    }
    let in_pool = |node: &str, id: &str| state_of(federation.member(node), id) == Some(MemberState::Answering);
    let victim = ["indexer-2", "indexer-3", "indexer-4"].into_iter().find(|name| {
        let id = &federation.member(name).peer_id;
        in_pool("paris", id) && in_pool("lyon", id)
    });
    let victim = victim.expect("pools of three of four have two in common, and one of these is no seed");
    federation.member(victim).signal(Signal::SIGTERM);
    let asked = Instant::now();
    while asked.elapsed() < TICK * 3 {
        for node in ["paris", "lyon"] {
            let status = federation.member(node).status();
            assert!(status.pool_answering >= status.pool_min, "{node}: {status:?}");
            assert_ne!(status.standing, Standing::Isolated, "{node}");
        }
    }
    until_true("it has ended", PATIENCE, || !federation.member_mut(victim).is_alive());
    assert_eq!(federation.member_mut(victim).reaped_code(), Some(0));
    // What was announced is no evidence against the one that comes back, and is needed when another goes.
    federation.member_mut(victim).start();
    federation.member(victim).until_ready();
    let other =
        ["indexer-2", "indexer-3", "indexer-4"].into_iter().find(|name| *name != victim).expect("there are two");
    federation.member(other).signal(Signal::SIGTERM);
    let id = federation.member(victim).peer_id.clone();
    until_true("paris counts on it again", PATIENCE, || {
        state_of(federation.member("paris"), &id) == Some(MemberState::Answering)
    });
    let pool = federation.member("paris").indexers();
    let score = |id: &str| pool.iter().find(|found| found.peer_id.to_string() == id).and_then(|found| found.score);
    let other = pool.iter().find(|it| it.peer_id.to_string() != id && it.score.is_some()).and_then(|it| it.score);
    let (restarted, other) = (score(&id).expect("it has a score"), other.expect("the others have scores"));
    assert!(restarted > other - 15.0, "restarted {restarted}, never restarted {other}");
}

#[test]
fn an_indexer_that_stops_politely_is_known_as_gone_by_all_others_at_once() {
    let mut federation = Federation::converged(4, &[]);
    let id = federation.member("indexer-2").peer_id.clone();
    let others = ["indexer-1", "indexer-3", "indexer-4"];
    // Gossip has its mesh once the first word of each was heard by all.
    for other in others {
        until_true(&format!("{other} knows the others"), PATIENCE, || {
            federation.member(other).status().indexers_known == 3
        });
    }
    federation.member("indexer-2").signal(Signal::SIGTERM);
    let has_heard =
        |member: &Member| member.events(0).iter().any(|event| event.kind == "indexer_left" && event.subject == id);
    for other in others {
        let member = federation.member(other);
        until_true(&format!("{other} heard it on the topic"), TICK, || has_heard(member));
        until_true(&format!("{other} expects it no longer"), TICK, || member.status().indexers_known == 2);
    }
    until_true("indexer-2 has ended", PATIENCE, || !federation.member_mut("indexer-2").is_alive());
    assert_eq!(federation.member_mut("indexer-2").reaped_code(), Some(0));
    // Its leave is of the run that ended: the next one is welcome.
    federation.member_mut("indexer-2").start();
    for other in others {
        until_true(&format!("{other} knows it again"), PATIENCE, || {
            federation.member(other).status().indexers_known == 3
        });
    }
}

#[test]
fn a_killed_indexer_that_returns_serves_again() {
    let mut federation = Federation::converged(2, &["paris"]);
    federation.member_mut("indexer-2").kill();
    federation.until_healed_of("indexer-2", PATIENCE);
    federation.member_mut("indexer-2").start();
    federation.until_converged();
    let paris = federation.member("paris");
    until_true("indexer-2 keeps a session of paris again", PATIENCE, || {
        federation.member("indexer-2").sessions().iter().any(|session| session.peer_id.to_string() == paris.peer_id)
    });
}

#[test]
fn a_late_member_is_known_to_those_that_were_there_before() {
    let mut federation = Federation::converged(2, &["paris"]);
    let seed = federation.member("indexer-2").address();
    federation.add(Spec::node("oslo").seed(seed)).start();
    let oslo = federation.member("oslo");
    oslo.until_whole();
    let paris = federation.member("paris");
    until_true("paris finds oslo by name", PATIENCE, || {
        paris.records("oslo").iter().any(|record| record.peer_id.to_string() == oslo.peer_id)
    });
}
