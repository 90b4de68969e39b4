//! Searches for resources among a dozen organisations: everybody answers once, and a search that is over leaves nothing.
//! How fast they are is measured by `tests/load/run --search`, among fifty.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{Ended, Federation, Member, PATIENCE, muster, until, until_true, wait_with_deadline};

/// Those that offer something: as many as two cores bear beside another test.
const OWNERS: usize = 11;

/// Of them, partners of the one that searches, and it is theirs.
const PARTNERS: usize = 4;

/// Of them, partners and those that it merely knows.
const KNOWN: usize = 7;

/// A search that its user left is gone well before its time is over.
const GONE_WITHIN: Duration = Duration::from_secs(3);

/// What the command line needs to know of a member, on any thread.
struct Place {
    config: PathBuf,
    peer_id: String,
}

impl Place {
    fn of(member: &Member) -> Self {
        Self { config: member.config(), peer_id: member.peer_id.clone() }
    }

    fn run(&self, args: &[&str]) -> Ended {
        muster(&[&["--config", self.config.to_str().unwrap()], args].concat())
    }
}

/// The one that searches is called asker.
fn organisations() -> Federation {
    let names: Vec<String> = (0..OWNERS).map(|number| format!("owner-{number}")).collect();
    let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
    all.push("asker");
    let federation = Federation::converged(2, &all);
    let of = |name: &str| Place::of(federation.member(name));
    let asker = &of("asker");
    std::thread::scope(|threads| {
        for (number, owner) in names.iter().map(|name| of(name)).enumerate() {
            threads.spawn(move || {
                for (id, access) in [("shown", "public"), ("kept", "private")] {
                    let resource = json!({ "id": id, "kind": "data", "name": "archive", "access": access });
                    let file = owner.config.with_file_name("resource.json");
                    std::fs::write(&file, resource.to_string()).unwrap();
                    owner.run(&["resource", "put", file.to_str().unwrap()]).ok();
                }
                let relation = match number {
                    _ if number < PARTNERS => "partner",
                    _ if number < KNOWN => "known",
                    _ => return,
                };
                for (at, to) in [(asker, &owner), (&owner, asker)] {
                    at.run(&["partner", "add", &to.peer_id, "--relation", relation]).ok();
                }
            });
        }
    });
    federation
}

const SEARCH: [&str; 6] = ["search", "--resources", "archive", "--output", "jsonl", "--user"];

/// Who answered how often with what, and the last word.
fn search(asker: &Member, scope: &str) -> (BTreeMap<String, Vec<String>>, Value) {
    let mut steps = Place::of(asker).run(&[&SEARCH[..], &["ann", "--scope", scope]].concat()).json_lines();
    let end = steps.pop().unwrap();
    assert_eq!(end["event"], "ended", "{end}");
    let mut hits: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for hit in steps {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        hits.entry(text(&hit["peer_id"])).or_default().push(text(&hit["resource"]["id"]));
    }
    (hits, end)
}

fn open_searches(asker: &Member) -> f64 {
    asker.metric("muster_resource_searches")
}

fn actors(member: &Member) -> BTreeSet<String> {
    member.actors().into_iter().map(|actor| actor.name).collect()
}

#[test]
fn of_a_dozen_organisations_everybody_asked_answers_once_and_shows_what_is_public() {
    let federation = organisations();
    let asker = federation.member("asker");
    for (scope, count) in [("all", OWNERS), ("known", KNOWN), ("partner", PARTNERS)] {
        let expected: BTreeSet<&String> =
            (0..count).map(|number| &federation.member(&format!("owner-{number}")).peer_id).collect();
        // The mesh that carries gossip is made anew with each second.
        let (hits, end) = until(&format!("all {count} answer a search of scope {scope}"), PATIENCE, || {
            let (hits, end) = search(asker, scope);
            (hits.len() >= count).then_some((hits, end))
        });
        assert_eq!(hits.keys().collect::<BTreeSet<_>>(), expected, "{scope}");
        assert!(hits.values().all(|ids| ids == &["shown"]), "{scope}: {hits:?}");
        let number = |field: &str| end[field].as_u64().unwrap();
        assert_eq!((number("hits"), number("answered")), (count as u64, count as u64), "{end}");
        // By gossip nobody knows how many are asked.
        let asked = if scope == "all" { 0 } else { count as u64 };
        assert_eq!((number("asked"), number("refused"), number("timed_out")), (asked, 0, 0), "{end}");
        assert_eq!(end["truncated"], false, "{end}");
    }
    assert_eq!(open_searches(asker), 0.0);
}

#[test]
fn a_search_that_is_replaced_or_closed_leaves_nothing_behind() {
    let federation = Federation::converged(1, &["asker", "owner"]);
    let asker = federation.member("asker");
    let before = actors(asker);
    // The same user searches again: the first search ends, and says why.
    let first = asker.verb_begun(&[&SEARCH[..], &["ann"]].concat());
    until_true("the first search is open", PATIENCE, || open_searches(asker) == 1.0);
    let (_, end) = search(asker, "partner");
    assert_eq!((&end["asked"], &end["hits"]), (&json!(0), &json!(0)), "{end}");
    let replaced = wait_with_deadline(first, PATIENCE).json_lines().pop().unwrap();
    assert_eq!(replaced["reason"], "replaced", "{replaced}");
    until_true("nothing is open", GONE_WITHIN, || open_searches(asker) == 0.0);

    // Users go away in the middle.
    let mut children = ["ann", "bob"].map(|user| asker.verb_begun(&[&SEARCH[..], &[user]].concat()));
    until_true("both searches are open", PATIENCE, || open_searches(asker) == 2.0);
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    until_true("nothing is open", GONE_WITHIN, || open_searches(asker) == 0.0);
    assert_eq!(actors(asker), before, "no actor came or went");
}
