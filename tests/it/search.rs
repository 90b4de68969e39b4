//! Finding: by peer id, DID, name and part of a name; streamed, complete, one per user.

use std::{
    io::{BufRead, BufReader},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Federation, PATIENCE, until, until_true, wait_with_deadline};

/// The names in a search's output, and its last line.
#[track_caller]
fn hits_and_end(lines: &[Value]) -> (Vec<String>, Value) {
    let (end, hits) = lines.split_last().unwrap();
    assert_eq!(end["event"], "end", "{lines:?}");
    assert!(hits.iter().all(|hit| hit["event"] == "hit"), "{lines:?}");
    let mut names: Vec<String> = hits.iter().map(|hit| hit["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    (names, end.clone())
}

#[test]
fn a_member_is_found_by_name_did_and_peer_id() {
    let federation = Federation::converged(2, &["paris", "lyon"]);
    let (paris, lyon) = (federation.member("paris"), federation.member("lyon"));
    for key in [&lyon.did, &lyon.peer_id, &lyon.name] {
        let found = until(&format!("paris finds {key}"), PATIENCE, || {
            Some(paris.verb(&["get", key, "--output", "json"])).filter(|ended| ended.code == Some(0))
        });
        let found = found.json();
        assert_eq!(found[0]["peer_id"], lyon.peer_id.as_str(), "{found}");
        assert_eq!(found[0]["did"], lyon.did.as_str());
        // The record is shown as its owner signed it.
        assert!(found[0]["record"]["signature"].is_string(), "{found}");
    }
}

#[test]
fn an_absent_member_is_not_found_and_a_word_is_said() {
    let federation = Federation::converged(1, &["paris"]);
    let ended = federation.member("paris").verb(&["get", "nowhere"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.err.contains("nowhere"), "{ended:?}");
}

#[test]
fn part_of_a_name_finds_the_nodes_of_every_indexer() {
    let federation = Federation::converged(3, &["paris", "parma", "lyon"]);
    let lyon = federation.member("lyon");
    let lines = until("all are found and all indexers answered", PATIENCE, || {
        let lines = lyon.verb(&["search", "PAR", "--output", "jsonl"]).json_lines();
        let (names, end) = hits_and_end(&lines);
        (names == ["paris", "parma"] && end["ended"] == "complete").then_some(lines)
    });
    let (_, end) = hits_and_end(&lines);
    assert!(end["asked"].as_u64().unwrap() >= 1 && end["answered"] == end["asked"], "{end}");
    assert_eq!((&end["timed_out"], &end["truncated"]), (&Value::from(0), &Value::from(false)), "{end}");
}

#[test]
fn a_search_for_nobody_ends_complete_and_empty() {
    let federation = Federation::converged(2, &["paris"]);
    let ended = federation.member("paris").verb(&["search", "zzz", "--output", "jsonl"]);
    let (names, end) = hits_and_end(&ended.json_lines());
    assert!(names.is_empty());
    assert_eq!(end["hits"], 0);
}

#[test]
fn one_character_is_too_little_to_search_for() {
    let federation = Federation::converged(1, &["paris"]);
    let ended = federation.member("paris").verb(&["search", "p"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

/// With one indexer frozen a search cannot be complete, so it goes on until its idle time of 5 s is over. The frozen one
/// is not the referent of paris, which is found all the same.
fn with_a_frozen_indexer() -> Federation {
    let federation = Federation::converged(2, &["paris", "parma", "lyon"]);
    let lyon = federation.member("lyon");
    until_true("both are found", PATIENCE, || {
        hits_and_end(&lyon.verb(&["search", "par", "--output", "jsonl"]).json_lines()).0.len() == 2
    });
    let other = until("paris has a referent", PATIENCE, || {
        let pool = federation.member("paris").indexers();
        let referent = pool.iter().find(|indexer| indexer.referent)?.peer_id.to_string();
        ["indexer-1", "indexer-2"].into_iter().find(|name| federation.member(name).peer_id != referent)
    });
    federation.member(other).signal(Signal::SIGSTOP);
    federation
}

#[test]
fn hits_stream_before_the_search_is_over_and_the_silent_are_counted() {
    let federation = with_a_frozen_indexer();
    let began = std::time::Instant::now();
    let mut child = federation.member("lyon").verb_begun(&["search", "pari", "--output", "jsonl"]);
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&out.next().unwrap().unwrap()).unwrap();
    let first_after = began.elapsed();
    assert_eq!((&first["event"], &first["name"]), (&"hit".into(), &"paris".into()), "{first}");
    let rest: Vec<Value> = out.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert!(began.elapsed() > first_after + Duration::from_secs(1), "the hit waited for the end: {first_after:?}");
    let end = rest.last().unwrap();
    assert!(end["timed_out"].as_u64().unwrap() >= 1, "{end}");
    // Some answered, others did not.
    assert_eq!(wait_with_deadline(child, PATIENCE).code, Some(7));
}

#[test]
fn a_users_new_search_replaces_the_running_one() {
    let federation = with_a_frozen_indexer();
    let lyon = federation.member("lyon");
    let mut first = lyon.verb_begun(&["search", "pari", "--user", "ann", "--output", "jsonl"]);
    let mut out = BufReader::new(first.stdout.take().unwrap()).lines();
    let hit: Value = serde_json::from_str(&out.next().unwrap().unwrap()).unwrap();
    assert_eq!(hit["event"], "hit", "the first search runs: {hit}");
    let second = lyon.verb_begun(&["search", "parm", "--user", "ann", "--output", "jsonl"]);
    let rest: Vec<Value> = out.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!(rest.last().unwrap()["ended"], "replaced", "{rest:?}");
    wait_with_deadline(first, PATIENCE);
    let (names, end) = hits_and_end(&wait_with_deadline(second, PATIENCE).json_lines());
    assert!(!names.contains(&"paris".to_owned()), "late results of the old search are dropped: {names:?}");
    assert_ne!(end["ended"], "replaced");
}

#[test]
fn g31_searches_without_a_user_and_of_other_users_do_not_end_each_other() {
    let federation = with_a_frozen_indexer();
    let lyon = federation.member("lyon");
    let searches = [
        &["search", "par"][..],
        &["search", "par"],
        &["search", "par", "--user", "a"],
        &["search", "par", "--user", "a:b"],
    ]
    .map(|args| lyon.verb_begun(&[args, &["--output", "jsonl"]].concat()));
    for search in searches {
        let (_, end) = hits_and_end(&wait_with_deadline(search, PATIENCE).json_lines());
        assert_ne!(end["ended"], "replaced", "{end}");
    }
}
