//! Who sees what of a catalogue: real members ask, on streams and by gossip, an owner that keeps it in either database.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};

use crate::harness::{Ended, Federation, Member, PATIENCE, Postgres, Spec, muster, until_true};

/// Who asks, with which groups, and what of the owner's it may see.
const CASES: [(&str, &[&str], &[&str]); 10] = [
    // A partner sees what is public, what is for any group of its, and what is for a group that its user is in.
    ("lyon", &[], &["public", "lyon-any"]),
    ("lyon", &["ops"], &["public", "lyon-any", "lyon-ops"]),
    ("lyon", &["dev"], &["public", "lyon-any"]),
    // A star is the owner's word, not the asker's.
    ("lyon", &["*"], &["public", "lyon-any"]),
    // A known peer that a partnership names; and one that claims another's group.
    ("parma", &["ops"], &["public", "parma-ops"]),
    ("parma", &["dev", "*"], &["public"]),
    // One that is nothing to the owner.
    ("nice", &["ops"], &["public"]),
    ("nice", &["*"], &["public"]),
    // One on the blacklist.
    ("oslo", &["ops"], &[]),
    // The owner's own users see all of it.
    ("paris", &[], &["public", "private", "lyon-ops", "lyon-any", "lyon-none", "parma-ops"]),
];

fn by(member: &Member, args: &[&str]) -> Ended {
    by_config(&member.config(), args)
}

fn by_config(config: &Path, args: &[&str]) -> Ended {
    muster(&[&["--config", config.to_str().unwrap()], args].concat())
}

fn put(owner: &Member, id: &str, access: &str, partnerships: &Value) {
    let resource = json!({
        "id": id, "kind": "data", "name": format!("archive {id}"), "access": access,
        "instances": [{ "partnerships": partnerships }],
    });
    let file = owner.dir.join("resource.json");
    std::fs::write(&file, resource.to_string()).unwrap();
    by(owner, &["resource", "put", file.to_str().unwrap()]).ok();
}

/// What a search finds, and that all of it is the owner's.
fn found(asker: &Path, owner: &str, scope: &str, groups: &[&str]) -> BTreeSet<String> {
    let mut args = vec!["search", "--resources", "archive", "--scope", scope, "--output", "jsonl"];
    args.extend(groups.iter().flat_map(|group| ["--group", group]));
    let steps = by_config(asker, &args).json_lines();
    let hits = steps.iter().filter(|step| step["event"] == "hit");
    let id = |hit: &Value| {
        assert_eq!(hit["peer_id"], owner, "nobody answers for another");
        hit["resource"]["id"].as_str().unwrap().to_owned()
    };
    hits.map(id).collect()
}

fn each_sees_its_own(database: Option<&Postgres>) {
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1")).start();
    let seed = federation.member("indexer-1").address();
    for name in ["paris", "lyon", "parma", "nice", "oslo"] {
        let spec = Spec::node(name).seed(&seed);
        federation.add(match (name, database) {
            ("paris", Some(database)) => spec.set("store.url", &format!("{:?}", database.url())),
            _ => spec,
        });
        federation.member_mut(name).start();
    }
    federation.until_converged();
    let [paris, lyon, parma] = ["paris", "lyon", "parma"].map(|name| federation.member(name));
    by(paris, &["partner", "add", &lyon.peer_id]).ok();
    by(paris, &["partner", "add", &parma.peer_id, "--relation", "known"]).ok();
    by(paris, &["partner", "add", &federation.member("oslo").peer_id, "--relation", "blacklist"]).ok();
    by(lyon, &["partner", "add", &paris.peer_id]).ok();
    for name in ["parma", "nice", "oslo"] {
        by(federation.member(name), &["partner", "add", &paris.peer_id, "--relation", "known"]).ok();
    }
    put(paris, "public", "public", &json!([]));
    put(paris, "private", "private", &json!([]));
    put(paris, "lyon-ops", "private", &json!([{ "peer": lyon.peer_id, "groups": ["ops"] }]));
    put(paris, "lyon-any", "private", &json!([{ "peer": lyon.peer_id, "groups": ["*"] }]));
    put(paris, "lyon-none", "private", &json!([{ "peer": lyon.peer_id, "groups": [] }]));
    put(paris, "parma-ops", "private", &json!([{ "peer": parma.peer_id, "groups": ["ops"] }]));
    // What lyon was told is paris's to show, and lyon's to keep to itself.
    until_true("lyon holds what it was told", PATIENCE, || {
        let held = by(lyon, &["resource", "ls", "--output", "json"]).json();
        held.as_array().is_some_and(|held| held.len() == 3)
    });
    std::thread::scope(|threads| {
        for (name, groups, expected) in CASES {
            let (asker, owner) = (federation.member(name).config(), paris.peer_id.clone());
            threads.spawn(move || {
                let expected: BTreeSet<String> = expected.iter().map(|id| (*id).to_owned()).collect();
                for scope in ["known", "all"] {
                    assert_eq!(found(&asker, &owner, scope, groups), expected, "{name} with {groups:?}, scope {scope}");
                }
            });
        }
    });
}

#[test]
fn g33_each_sees_what_the_owner_shows_it_from_sqlite() {
    each_sees_its_own(None);
}

#[test]
fn g33_each_sees_what_the_owner_shows_it_from_postgresql() {
    if let Some(database) = Postgres::started("g33_each_sees_what_the_owner_shows_it_from_postgresql") {
        each_sees_its_own(Some(&database));
    }
}
