//! Sharing between organisations: what one offers its partners hold, whatever happens to them meanwhile.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use actors::view::{ListedView, OutboxView, RelationView};
use serde_json::{Value, json};

use crate::harness::{Ended, Federation, Member, PATIENCE, muster, until, until_true};

/// A change is at a partner that answers within this: one commit and one stream, and much room for a loaded machine.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// Runs a verb as the user that runs the daemon: with its token.
#[track_caller]
fn by(member: &Member, args: &[&str]) -> Ended {
    muster(&[&["--config", member.config().to_str().unwrap()], args].concat())
}

/// Both make the other a partner.
#[track_caller]
fn befriend(one: &Member, other: &Member) {
    for (from, to) in [(one, other), (other, one)] {
        let said = by(from, &["partner", "add", &to.peer_id, "--name", &to.name]).ok();
        assert!(said.out.contains(&to.peer_id), "{said:?}");
    }
}

/// Offers a resource by a file; its version.
#[track_caller]
fn put(member: &Member, resource: &Value) -> u64 {
    let file = member.dir.join("resource.json");
    std::fs::write(&file, serde_json::to_string_pretty(resource).unwrap()).unwrap();
    let placed = by(member, &["resource", "put", file.to_str().unwrap(), "--user", "jane", "--output", "json"]);
    placed.ok().json()["version"].as_u64().unwrap()
}

fn farm(id: &str, name: &str) -> Value {
    json!({ "id": id, "kind": "compute", "name": name, "access": "public", "cores": 64 })
}

/// What a member holds of a creator: ids, names and versions.
fn held(at: &Member, of: &Member) -> BTreeMap<String, (String, u64)> {
    let path = format!("/api/v1/resources?creator={}", of.peer_id);
    let page: ListedView = at.try_get(&path).unwrap_or(ListedView { resources: Vec::new(), next: None });
    let resources = page.resources.into_iter().map(|view| {
        let resource: Value = serde_json::from_str(view.resource.get()).unwrap();
        (view.id, (resource["name"].as_str().unwrap().to_owned(), view.version))
    });
    resources.collect()
}

fn outbox(member: &Member, query: &str) -> Vec<OutboxView> {
    member.get(&format!("/api/v1/outbox?{query}"))
}

fn sees_connected(member: &Member, other: &Member) -> bool {
    member.peers().iter().any(|peer| peer.connected && peer.peer_id.to_string() == other.peer_id)
}

#[test]
fn what_one_offers_its_partner_holds_also_after_a_kill() {
    let mut federation = Federation::converged(1, &["paris", "lyon"]);
    let (paris, lyon) = (federation.member("paris"), federation.member("lyon"));
    befriend(paris, lyon);
    let relations: Vec<RelationView> = paris.get("/api/v1/partners");
    assert_eq!((relations[0].peer_id.to_string(), &*relations[0].name), (lyon.peer_id.clone(), "lyon"));

    let first = put(paris, &farm("farm-1", "Farm"));
    let began = Instant::now();
    until_true("lyon holds farm-1", HEARD_WITHIN, || held(lyon, paris).contains_key("farm-1"));
    eprintln!("a new resource was at the partner after {:?}", began.elapsed());
    let rows = by(lyon, &["resource", "ls", "--of", &paris.peer_id, "--output", "json"]).ok().json();
    assert_eq!((&rows[0]["id"], &rows[0]["resource"]["cores"]), (&json!("farm-1"), &json!(64)));
    assert_eq!(by(lyon, &["resource", "ls", "--of", "self", "--output", "json"]).ok().json(), json!([]));

    let second = put(paris, &farm("farm-1", "Larger farm"));
    assert!(second > first, "{first} {second}");
    until_true("lyon holds the update", HEARD_WITHIN, || {
        held(lyon, paris).get("farm-1") == Some(&("Larger farm".to_owned(), second))
    });
    let by_text = by(lyon, &["resource", "ls", "--text", "larger", "--output", "json"]).ok().json();
    assert_eq!(by_text.as_array().unwrap().len(), 1, "{by_text}");

    put(lyon, &farm("farm-9", "A farm that is found after the others"));
    let own = by(lyon, &["resource", "ls", "--text", "farm", "--of", "self", "--limit", "1", "--output", "json"]);
    assert_eq!(own.ok().json()[0]["id"], "farm-9", "a better hit of somebody else takes no place");

    put(paris, &farm("farm-2", "Second farm"));
    until_true("lyon holds farm-2", HEARD_WITHIN, || held(lyon, paris).len() == 2);

    federation.member_mut("lyon").kill();
    let paris = federation.member("paris");
    put(paris, &farm("farm-1", "Largest farm"));
    by(paris, &["resource", "rm", "farm-2", "--user", "jane"]).ok();
    let shown = by(paris, &["outbox", "--fate", "waiting", "--output", "json"]).ok().json();
    assert_eq!(shown.as_array().unwrap().len(), 2, "{shown}");

    federation.member_mut("lyon").start();
    let (paris, lyon) = (federation.member("paris"), federation.member("lyon"));
    let ours = held(paris, paris);
    assert_eq!(ours.len(), 1);
    until_true("both hold the same again", PATIENCE, || held(lyon, paris) == ours);
    // The fate is written down after the partner has it.
    until_true("nothing waits for lyon", HEARD_WITHIN, || outbox(paris, "fate=waiting").is_empty());
    let fates = outbox(paris, &format!("to={}", lyon.peer_id));
    let told: Vec<&str> = fates.iter().rev().map(|row| row.verb.as_str()).collect();
    assert_eq!(told, ["create", "update", "create", "update", "delete"]);
    assert!(fates.iter().all(|row| row.fate == "delivered" && row.user == "jane" && row.bytes == 0), "{fates:?}");
    let table = by(paris, &["outbox", "--to", &lyon.peer_id]).ok().out;
    assert!(table.contains("delivered") && table.contains("5 shown, 0 waiting"), "{table}");
}

#[test]
fn whoever_is_put_on_the_blacklist_is_cut_off_and_its_word_waits() {
    let federation = Federation::converged(1, &["paris", "lyon"]);
    let (paris, lyon) = (federation.member("paris"), federation.member("lyon"));
    befriend(paris, lyon);
    put(lyon, &farm("farm-1", "Farm"));
    until_true("paris holds farm-1", HEARD_WITHIN, || held(paris, lyon).len() == 1);
    assert!(sees_connected(paris, lyon), "an event came over a connection");

    by(paris, &["partner", "add", &lyon.peer_id, "--relation", "blacklist"]).ok();
    until_true("the connection is cut", HEARD_WITHIN, || !sees_connected(paris, lyon));
    let relations: Vec<RelationView> = paris.get("/api/v1/partners?relation=blacklist");
    assert_eq!(relations[0].name, "lyon", "its name stays");

    put(lyon, &farm("farm-2", "Second farm"));
    let waits = until("it was tried in vain", PATIENCE, || {
        outbox(lyon, "fate=waiting").into_iter().find(|row| row.attempts > 0)
    });
    assert_eq!((waits.to, &*waits.verb), (paris.peer_id.clone(), "create"));
    assert!(!sees_connected(paris, lyon));
    assert_eq!(held(paris, lyon).len(), 1, "nothing came");

    by(paris, &["partner", "add", &lyon.peer_id]).ok();
    until_true("what waited comes", PATIENCE, || held(paris, lyon).len() == 2);
}

#[test]
fn who_is_no_partner_hears_nothing_and_wrong_words_have_their_exit_codes() {
    let federation = Federation::converged(1, &["paris"]);
    let (paris, indexer) = (federation.member("paris"), federation.member("indexer-1"));
    put(paris, &farm("farm-1", "Farm"));
    assert_eq!(outbox(paris, "limit=1"), []);
    let code = |member: &Member, args: &[&str]| by(member, args).code;
    assert_eq!(code(paris, &["resource", "get", "farm-1"]), Some(0));
    assert_eq!(code(paris, &["resource", "get", "farm-2"]), Some(4));
    assert_eq!(code(paris, &["resource", "rm", "farm-2"]), Some(4));
    assert_eq!(code(paris, &["partner", "rm", &indexer.peer_id]), Some(4));
    assert_eq!(code(paris, &["partner", "add", "indexer-1"]), Some(2), "a name is nobody's for sure");
    assert_eq!(code(paris, &["partner", "add", &paris.peer_id]), Some(2), "ourselves");
    assert_eq!(code(paris, &["resource", "put", "/none/there"]), Some(2));
    assert_eq!(code(paris, &["resource", "ls", "--kind", "farm"]), Some(2));
    assert_eq!(code(paris, &["outbox", "--fate", "lost"]), Some(2));
    let at = paris.admin().to_string();
    assert_eq!(muster(&["--admin", &at, "partner", "add", &indexer.peer_id]).code, Some(5), "no token");
    let file = paris.dir.join("resource.json");
    let on_indexer = by(indexer, &["resource", "put", file.to_str().unwrap()]);
    assert_eq!(on_indexer.code, Some(2), "{on_indexer:?}");
    assert!(on_indexer.err.contains("no node"), "{on_indexer:?}");
}
