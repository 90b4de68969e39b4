//! Seeded faults and what `muster doctor` says of them: the right thing, and nothing else.

use std::{collections::BTreeMap, fs, net::TcpListener, os::unix::fs::PermissionsExt as _, path::Path};

use actors::view::{ActorState, MemberState, Standing};
use serde_json::Value;

use crate::harness::{Ended, Federation, Member, Nats, PATIENCE, Spec, muster, until, until_true};

/// Checks that are about this machine and whatever else runs on it.
const HOST: [&str; 3] = ["disk", "memory", "descriptors"];

/// A member whose alerts are about itself, and not about a machine that builds beside its tests or a small federation.
fn calm(spec: Spec) -> Spec {
    let spec = spec.set("alerts.cpu_max", "1.0").set("alerts.memory_max", "1.0").set("alerts.disk_max", "1.0");
    spec.set("alerts.peers_min", "0").set("alerts.every", "\"1s\"")
}

fn federation(indexers: usize, nodes: &[&str]) -> Federation {
    let federation = Federation::started(indexers, nodes, calm);
    federation.until_converged();
    federation
}

/// Looks at a member by its folder.
fn doctor(member: &Member) -> Ended {
    muster(&["doctor", "--config", member.config().to_str().unwrap(), "--output", "json"])
}

/// What is not well, by check; each has its evidence and a remedy.
fn ill(ended: &Ended) -> BTreeMap<String, String> {
    let report = ended.json();
    let mut ill = BTreeMap::new();
    for finding in report["checks"].as_array().unwrap() {
        let text = |field: &str| finding[field].as_str().unwrap_or_default().to_owned();
        assert!(!text("evidence").is_empty(), "{finding}");
        if ["ok", "unknown"].contains(&&*text("verdict")) || HOST.contains(&&*text("check")) {
            continue;
        }
        assert!(!text("remedy").is_empty(), "{finding}");
        ill.insert(text("check"), text("verdict"));
    }
    ill
}

/// Exactly these checks are not well.
#[track_caller]
fn assert_ill(ended: &Ended, expected: &[(&str, &str)]) {
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(check, verdict)| ((*check).to_owned(), (*verdict).to_owned())).collect();
    assert_eq!(ill(ended), expected, "{}", ended.out);
    if expected.values().any(|verdict| verdict == "failed") {
        assert_eq!(ended.code, Some(1), "{ended:?}");
    }
}

/// The evidence of one check.
fn evidence(ended: &Ended, check: &str) -> String {
    let report = ended.json();
    let found = report["checks"].as_array().unwrap().iter().find(|finding| finding["check"] == check).unwrap().clone();
    found["evidence"].as_str().unwrap().to_owned()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn members_that_are_well_are_found_well() {
    let federation = federation(2, &["paris"]);
    for name in ["indexer-1", "indexer-2", "paris"] {
        let member = federation.member(name);
        until_true("it has measured itself", PATIENCE, || {
            member.try_get::<Value>("/api/v1/alerts/history").is_some_and(|samples| samples[0].is_object())
        });
        let ended = doctor(member);
        assert_ill(&ended, &[]);
        let report = ended.json();
        let checks = report["checks"].as_array().unwrap();
        assert!(checks.len() >= 15, "{report}");
        assert!(evidence(&ended, "identity").contains(&member.peer_id), "{report}");
        assert!(evidence(&ended, "lock").contains(&member.pid().to_string()), "{report}");
        let unknown: Vec<&Value> = checks.iter().filter(|finding| finding["verdict"] == "unknown").collect();
        // The first indexer has no seed, and may have been told of no other member's clock.
        assert!(unknown.iter().all(|finding| finding["check"] == "clock"), "{unknown:?}");
    }
    // The same by its address: what is in its folder is not known there.
    let ended = federation.member("paris").verb(&["doctor", "--output", "json"]);
    assert_ill(&ended, &[]);
    assert!(evidence(&ended, "disk").contains("--config"), "{}", ended.out);
    let told = federation.member("paris").verb(&["doctor"]).out;
    assert!(told.contains("24 checks: ") && told.contains(" 0 failed"), "{told}");
}

#[test]
fn a_member_that_does_not_run_is_found_well_by_its_files() {
    let mut federation = Federation::new();
    let fresh = calm(Spec::indexer("indexer-1"));
    federation.add(fresh);
    assert_ill(&doctor(federation.member("indexer-1")), &[]);
    let member = federation.member_mut("indexer-1");
    member.start();
    until_true("it has a database", PATIENCE, || member.try_status().is_some_and(|status| status.store_ok));
    member.end_politely();
    let before = crate::harness::snapshot(&member.dir);
    let ended = doctor(member);
    assert_ill(&ended, &[]);
    assert!(evidence(&ended, "database").contains("passed the quick check"), "{}", ended.out);
    assert_eq!(crate::harness::snapshot(&member.dir), before, "who only looks changes nothing");
}

#[test]
fn fault_1_a_broken_configuration() {
    let mut federation = Federation::new();
    let member = federation.add(Spec::indexer("indexer-1"));
    member.set("network.port", "70000");
    let ended = doctor(member);
    assert_ill(&ended, &[("configuration", "failed")]);
    assert!(evidence(&ended, "configuration").contains("network.port"), "{}", ended.out);
}

#[test]
fn fault_2_an_identity_that_others_can_read() {
    let mut federation = Federation::new();
    let member = federation.add(Spec::indexer("indexer-1"));
    set_mode(&member.dir.join("identity.pem"), 0o644);
    let ended = doctor(member);
    assert_ill(&ended, &[("identity", "failed")]);
    assert!(evidence(&ended, "identity").contains("0644"), "{}", ended.out);
}

#[test]
fn fault_3_an_admin_token_that_others_can_read() {
    let federation = federation(1, &[]);
    let member = federation.member("indexer-1");
    set_mode(&member.dir.join("data/admin.token"), 0o644);
    let ended = doctor(member);
    assert_ill(&ended, &[("admin_token", "failed")]);
    assert!(ended.out.contains("chmod 600"), "{}", ended.out);
}

#[test]
fn fault_4_a_folder_that_another_process_holds() {
    let mut federation = Federation::new();
    let member = federation.add(Spec::indexer("indexer-1"));
    let lock = fs::File::options().write(true).create_new(true).open(member.dir.join("data/lock")).unwrap();
    lock.lock().unwrap();
    fs::write(member.dir.join("data/lock"), format!("{}\n", std::process::id())).unwrap();
    let ended = doctor(member);
    assert_ill(&ended, &[("lock", "failed")]);
    assert!(evidence(&ended, "lock").contains(&std::process::id().to_string()), "{}", ended.out);
}

#[test]
fn fault_5_a_port_that_is_taken() {
    let mut federation = Federation::new();
    let member = federation.add(Spec::indexer("indexer-1"));
    let _taken = TcpListener::bind(("127.0.0.1", member.port.number)).unwrap();
    let ended = doctor(member);
    assert_ill(&ended, &[("network_port", "failed")]);
    assert!(evidence(&ended, "network_port").contains(&member.port.number.to_string()), "{}", ended.out);
}

#[test]
fn fault_6_a_damaged_database() {
    let mut federation = Federation::new();
    let member = federation.add(Spec::indexer("indexer-1"));
    member.start();
    until_true("it has a database", PATIENCE, || member.try_status().is_some_and(|status| status.store_ok));
    member.end_politely();
    let path = member.dir.join("data/muster.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes.iter_mut().skip(4_096).for_each(|byte| *byte = !*byte);
    fs::write(&path, &bytes).unwrap();
    let ended = doctor(member);
    assert_ill(&ended, &[("database", "failed")]);
    assert_eq!(fs::read(&path).unwrap(), bytes, "it is left as it is");
}

#[test]
fn fault_7_a_dead_seed_beside_a_living_one() {
    let mut federation = federation(2, &[]);
    let (first, second) = (federation.member("indexer-1").address(), federation.member("indexer-2").address());
    federation.add(calm(Spec::node("paris")).seed(first).seed(&second)).start();
    let paris = federation.member("paris");
    until_true("paris hears from both", PATIENCE, || paris.status().pool_answering == 2);
    paris.until_whole();
    let dead = federation.member("indexer-2").peer_id.clone();
    federation.member_mut("indexer-2").kill();
    let paris = federation.member("paris");
    until_true("paris no longer counts on indexer-2", PATIENCE, || {
        let is_gone = |it: &actors::view::IndexerView| it.peer_id.to_string() != dead || it.state == MemberState::Down;
        paris.indexers().iter().all(is_gone) && paris.status().standing == Standing::Whole
    });
    let ended = doctor(paris);
    assert_ill(&ended, &[("seeds", "warning")]);
    let told = evidence(&ended, "seeds");
    assert!(told.contains("1 of 2") && told.contains(&second), "{told}");
    // This machine's own figures may be worth a look, too, and are no failure.
    assert_eq!(ended.code, Some(7), "{ended:?}");
}

#[test]
fn fault_8_another_networks_key() {
    let mut federation = federation(1, &[]);
    let other = federation.path().join("other");
    muster(&["init", "--dir", other.to_str().unwrap()]).ok();
    let seed = federation.member("indexer-1").address();
    federation.add(calm(Spec::node("paris")).psk(&other.join("swarm.key")).seed(seed)).start();
    let paris = federation.member("paris");
    let ended = until("the diagnosis is made", PATIENCE, || {
        paris.try_status()?.reasons.iter().any(|reason| reason.contains("pre-shared key")).then(|| doctor(paris))
    });
    // The cause, and what follows from it.
    assert_ill(&ended, &[("network_key", "failed"), ("pool", "failed"), ("readiness", "failed")]);
    assert!(evidence(&ended, "network_key").contains("fingerprint"), "{}", ended.out);
}

#[test]
fn fault_9_an_isolated_node() {
    let mut federation = federation(1, &["paris"]);
    federation.member_mut("indexer-1").kill();
    let paris = federation.member("paris");
    paris.until_standing(Standing::Isolated, PATIENCE);
    until_true("its own alert says so", PATIENCE, || {
        paris.try_get::<Value>("/api/v1/alerts").is_some_and(|alerts| alerts[0]["topic"] == "isolated")
    });
    let ended = doctor(paris);
    // Alone, with a seed that is away, and its own alert of the same.
    let expected = [("alerts", "failed"), ("pool", "failed"), ("readiness", "failed"), ("seeds", "failed")];
    assert_ill(&ended, &expected);
    assert!(evidence(&ended, "pool").contains("isolated: 0 of"), "{}", ended.out);
}

#[test]
fn fault_10_a_bus_that_is_away() {
    let Some(mut bus) = Nats::started("fault_10_a_bus_that_is_away") else { return };
    let mut federation = federation(1, &[]);
    let seed = federation.member("indexer-1").address();
    let spec = calm(Spec::node("paris")).seed(seed).set("bus.url", &format!("{:?}", bus.url()));
    federation.add(spec.set("alerts.every", "\"1h\"")).start();
    let paris = federation.member("paris");
    let state = || paris.try_get::<Value>("/api/v1/bus").map(|bus| bus["state"].clone());
    until_true("it is on the bus", PATIENCE, || state() == Some("ready".into()));
    paris.until_whole();
    assert_ill(&doctor(paris), &[]);
    bus.kill();
    until_true("it sees that the bus is away", PATIENCE, || state() == Some("away".into()));
    let ended = doctor(paris);
    assert_ill(&ended, &[("bus", "failed")]);
    assert!(evidence(&ended, "bus").contains(&bus.url()), "{}", ended.out);
}

#[test]
fn fault_11_actors_that_are_stuck_and_that_fell() {
    let federation = Federation::started(1, &["paris"], |spec| calm(spec).variable("MUSTER_CHAOS", "1"));
    federation.until_converged();
    let paris = federation.member("paris");
    let chaos = |actor: &str, fault: &str| {
        let answer = paris.tell(&format!("/api/v1/chaos/actors/{actor}"), fault);
        assert_eq!(answer.code, 204, "{answer:?}");
    };
    let actor = |name: &str| paris.actors().into_iter().find(|actor| actor.name == name);
    chaos("root/score", r#"{"fault":"panic"}"#);
    until_true("score fell and is up again", PATIENCE, || {
        actor("root/score").is_some_and(|score| score.restarts > 0 && score.state == ActorState::Running)
    });
    let ended = doctor(paris);
    assert_ill(&ended, &[("actors", "warning")]);
    assert!(evidence(&ended, "actors").contains("root/score fell"), "{}", ended.out);
    chaos("root/score", r#"{"fault":"stall","ms":60000}"#);
    until_true("score is stuck", PATIENCE, || {
        actor("root/score").is_some_and(|score| score.state == ActorState::Stuck)
    });
    let ended = doctor(paris);
    assert_eq!(ill(&ended).get("actors").map(String::as_str), Some("failed"), "{}", ended.out);
    assert!(evidence(&ended, "actors").contains("root/score is stuck"), "{}", ended.out);
}

#[test]
fn fault_12_a_disk_beyond_its_threshold() {
    let mut federation = Federation::new();
    let member = federation.add(Spec::indexer("indexer-1").set("alerts.disk_max", "0.0"));
    let ended = doctor(member);
    let report = ended.json();
    let disk = report["checks"].as_array().unwrap().iter().find(|finding| finding["check"] == "disk").unwrap();
    assert_eq!(disk["verdict"], "warning", "{disk}");
    assert!(disk["evidence"].as_str().unwrap().contains("at most 0.0 %"), "{disk}");
    assert_eq!(ended.code, Some(7), "{ended:?}");
    assert_ill(&ended, &[]);
}
