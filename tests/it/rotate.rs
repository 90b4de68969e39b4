//! The network's pre-shared key is replaced member by member, and nobody is unreachable meanwhile.

use std::{fs, path::Path};

use actors::view::Standing;
use protocol::keyring::Keyring;

use crate::harness::{Ended, Federation, Member, PATIENCE, Port, Spec, muster, shown_mode, until_true};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn rotate(member: &Member, step: &[&str]) -> Ended {
    let config = member.config();
    muster(&[&["--config", text(&config), "--output", "json", "rotate"], step].concat())
}

fn keys(member: &Member) -> Keyring {
    fs::read_to_string(member.dir.join("swarm.key")).unwrap().parse().unwrap()
}

/// Ends a member and starts it with what its files say now.
#[track_caller]
fn restart(federation: &mut Federation, name: &str) {
    let member = federation.member_mut(name);
    assert_eq!(member.end_politely().code(), Some(0));
    member.start();
    member.until_listening();
    let (running, held) = (member.status().network_keys, keys(member).fingerprints());
    assert_eq!(running, held, "{name} runs with what is in its file");
}

fn finds(asker: &Member, name: &str) -> bool {
    let ended = asker.verb(&["search", name, "--output", "jsonl"]);
    ended.code == Some(0) && ended.json_lines().iter().any(|line| line["name"] == name)
}

/// Every node has a session at every indexer, every indexer knows the other, and nodes find each other.
#[track_caller]
fn until_all_reach_all(federation: &Federation, after: &str) {
    let (indexers, nodes) = (["indexer-1", "indexer-2"], ["paris", "lyon"]);
    for indexer in indexers.map(|name| federation.member(name)) {
        for node in nodes.map(|name| federation.member(name)) {
            until_true(&format!("after {after}, {} has a session of {}", indexer.name, node.name), PATIENCE, || {
                indexer.sessions().iter().any(|session| session.peer_id.to_string() == node.peer_id)
            });
        }
        until_true(&format!("after {after}, {} knows the other indexer", indexer.name), PATIENCE, || {
            indexer.status().indexers_known >= 1
        });
    }
    for (asker, name) in [("paris", "lyon"), ("lyon", "paris")] {
        let asker = federation.member(asker);
        until_true(&format!("after {after}, {} answers from both", asker.name), PATIENCE, || {
            asker.status().pool_answering == 2
        });
        until_true(&format!("after {after}, {} finds {name}", asker.name), PATIENCE, || finds(asker, name));
    }
}

#[test]
fn the_key_is_rotated_one_by_one_with_everybody_reachable_and_who_kept_the_old_one_is_out() {
    let mut federation = Federation::new();
    let ports: Vec<Port> = (0..5).map(|_| Port::free()).collect();
    for (number, name) in ["indexer-1", "indexer-2", "paris", "lyon", "marseille"].into_iter().enumerate() {
        let spec = if name.starts_with("indexer") { Spec::indexer(name) } else { Spec::node(name) };
        let spec = spec.set("network.next_port", &ports[number].number.to_string());
        let spec = match number {
            0 => spec,
            // The seed is the port of the key in force, and of no other until its owner is done.
            _ => spec.seed(federation.member("indexer-1").address()),
        };
        federation.add(spec).start();
    }
    federation.until_converged();
    let old = keys(federation.member("indexer-1"));

    // Each is given the next key and started again, while the others have it or not.
    let first = federation.member("indexer-1");
    assert_eq!(rotate(first, &["--finish"]).code, Some(8), "nothing has begun");
    let begun = rotate(first, &["--begin"]).ok().json();
    assert_eq!(begun["restart_needed"], true, "{begun}");
    assert_eq!(rotate(first, &["--begin"]).code, Some(8), "one rotation at a time");
    let refused = rotate(first, &["--finish"]);
    assert_eq!(refused.code, Some(8), "{refused:?}");
    assert!(refused.err.contains("does not speak the next key yet"), "{refused:?}");
    let given = first.dir.join("swarm.key");
    assert_eq!(shown_mode(&given), "600");
    restart(&mut federation, "indexer-1");
    until_all_reach_all(&federation, "indexer-1 has begun");
    for name in ["paris", "indexer-2", "lyon"] {
        rotate(federation.member(name), &["--begin", "--psk", text(&given)]).ok();
        assert_eq!(keys(federation.member(name)).fingerprints(), keys(federation.member("indexer-1")).fingerprints());
        restart(&mut federation, name);
        until_all_reach_all(&federation, &format!("{name} has begun"));
    }

    // Marseille has not been told: nobody who carries it finishes by mistake.
    let marseille = federation.member("marseille").peer_id.clone();
    let first = federation.member("indexer-1");
    until_true("indexer-1 sees that marseille lacks the key and all others have it", PATIENCE, || {
        let status = rotate(first, &["--status"]).ok().json();
        let missing = status["peers_missing"].as_array().unwrap();
        status["peers_ready"] == 3 && missing.len() == 1 && missing[0]["peer_id"] == marseille.as_str()
    });
    let refused = rotate(first, &["--finish"]);
    assert_eq!(refused.code, Some(8), "{refused:?}");
    assert!(refused.err.contains(&marseille), "{refused:?}");

    // The end, beginning with a node: it has only the new key then, and must be carried by those who have both.
    for name in ["paris", "indexer-1", "lyon", "indexer-2"] {
        let force: &[&str] = if name.starts_with("indexer") { &["--finish", "--force"] } else { &["--finish"] };
        let finished = rotate(federation.member(name), force).ok().json();
        assert_eq!(finished["next"], serde_json::Value::Null, "{finished}");
        restart(&mut federation, name);
        until_all_reach_all(&federation, &format!("{name} has finished"));
    }
    let new = keys(federation.member("paris"));
    assert_ne!(new.fingerprints(), old.fingerprints());
    assert_eq!(shown_mode(&given), "600");

    // Whoever has the old key alone is nobody's peer any more, and is told why.
    let marseille = federation.member("marseille");
    marseille.until_standing(Standing::Isolated, PATIENCE);
    until_true("marseille says that the keys differ", PATIENCE, || {
        marseille.status().reasons.iter().any(|reason| reason.contains("pre-shared key mismatch likely"))
    });
    for name in ["indexer-1", "indexer-2", "paris", "lyon"] {
        let member = federation.member(name);
        assert_eq!(keys(member).fingerprints(), new.fingerprints());
        assert!(!member.lists(&marseille.peer_id), "{name} counts on marseille");
    }
    // Two keys in a file that nobody has begun with are a new member's way in as well.
    assert_eq!(rotate(marseille, &["--begin", "--psk", text(&given)]).ok().json()["restart_needed"], true);
    restart(&mut federation, "marseille");
    federation.member("marseille").until_whole();
}
