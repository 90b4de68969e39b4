//! Settings of a running member change: by its admin endpoint, by its file, by a signal; all of them or none.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Federation, Member, PATIENCE, Spec, muster, until, until_true};

const PATH: &str = "/api/v1/config";

/// One member, which is an indexer, so that every watcher is there.
fn running() -> Federation {
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1").variable("MUSTER_CHAOS", "1")).start();
    federation.member("indexer-1").until_listening();
    federation
}

fn shown(member: &Member, key: &str) -> Value {
    let all: Vec<Value> = member.get(PATH);
    all.into_iter().find(|setting| setting["key"] == key).unwrap()
}

/// The bound by which the number of peers is judged, once it is.
fn bound(member: &Member) -> Option<f64> {
    let raised: Vec<Value> = member.try_get("/api/v1/alerts")?;
    raised.iter().find(|alert| alert["topic"] == "peers")?["bound"].as_f64()
}

fn text(member: &Member) -> String {
    fs::read_to_string(member.config()).unwrap()
}

fn config(member: &Member, args: &[&str]) -> crate::harness::Ended {
    let file = member.config();
    muster(&[&["--config", file.to_str().unwrap(), "config"], args].concat())
}

#[test]
fn a_change_takes_effect_at_once_and_survives_a_restart() {
    let mut federation = running();
    let member = federation.member("indexer-1");
    assert!(!member.log().contains("DEBUG"));
    let wish = json!({ "pool.max_indexer": 7, "alerts.every": "1s", "alerts.peers_min": 5, "log.level": "debug" });
    let answer = member.patch(PATH, &wish.to_string());
    assert_eq!(answer.code, 200, "{answer:?}");
    let changed: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((changed["changed"].as_array().unwrap().len(), &changed["needs_restart"]), (4, &json!([])));
    assert_eq!(member.status().pool_max, 7);
    until_true("nobody being there is judged by the new bound", PATIENCE, || bound(member) == Some(5.0));
    until_true("the log tells more", PATIENCE, || member.log().contains("DEBUG"));
    assert!(shown(member, "pool.max_indexer")["origin"].as_str().unwrap().contains("muster.toml:"));

    let told = config(member, &["set", "pool.max_indexer", "6"]).ok().out;
    assert_eq!(told.trim(), "pool.max_indexer: 7 -> 6, from now on");
    let told = config(member, &["set", "behaviour.peers_max", "40000"]).ok().out;
    assert_eq!(told.trim(), "behaviour.peers_max: 32768 -> 40000, after a restart: muster run again");
    let waiting = shown(member, "behaviour.peers_max");
    assert_eq!(
        (&waiting["value"], &waiting["after_restart"], &waiting["live"]),
        (&json!(32768), &json!(40000), &json!(false))
    );
    let told = config(member, &["unset", "alerts.peers_min"]).ok().out;
    assert_eq!(told.trim(), "alerts.peers_min: 5 -> 3, from now on");
    assert!(text(member).contains("# How many members a node wants"), "comments stay");

    let member = federation.member_mut("indexer-1");
    member.end_politely();
    member.start();
    let member = federation.member("indexer-1");
    member.until_listening();
    assert_eq!(member.status().pool_max, 6);
    assert_eq!(shown(member, "behaviour.peers_max")["value"], 40000);
    assert!(shown(member, "behaviour.peers_max").get("after_restart").is_none());
}

#[test]
fn a_change_that_one_watcher_refuses_leaves_file_values_and_watchers_as_before() {
    let federation = running();
    let member = federation.member("indexer-1");
    let wish = json!({ "alerts.every": "1s", "alerts.peers_min": 4 });
    assert_eq!(member.patch(PATH, &wish.to_string()).code, 200);
    until_true("alerts judge", PATIENCE, || bound(member) == Some(4.0));
    let (before, file): (Value, String) = (member.get(PATH), text(member));
    let stall = member.tell("/api/v1/chaos/actors/root/alerts", r#"{"fault":"stall","ms":3000}"#);
    assert_eq!(stall.code, 204, "{stall:?}");

    let wish = json!({ "pool.max_indexer": 9, "alerts.peers_min": 8, "log.level": "trace" });
    let refused = member.patch(PATH, &wish.to_string());
    assert_eq!(refused.code, 409, "{refused:?}");
    assert!(refused.body.contains("root/alerts refused: no answer within 2 s"), "{refused:?}");
    assert_eq!((member.get::<Value>(PATH), text(member)), (before, file));
    assert_eq!(member.status().pool_max, 5);
    assert!(!member.log().contains("TRACE"));
    let event = member.events(0).into_iter().find(|event| event.kind == "settings_refused").unwrap();
    assert!(event.subject.contains("pool.max_indexer"), "{event:?}");

    // Who was stuck is well again, and judges as before.
    let samples = || member.get::<Vec<Value>>("/api/v1/alerts/history").len();
    let looked = samples();
    until_true("alerts look again", PATIENCE, || samples() > looked + 1);
    assert_eq!(bound(member), Some(4.0));
    assert_eq!(member.patch(PATH, &wish.to_string()).code, 200);
    until_true("alerts judge anew", PATIENCE, || bound(member) == Some(8.0));
    assert_eq!(member.status().pool_max, 9);
}

#[test]
fn a_change_that_dies_with_its_actor_changes_nothing_and_the_next_is_taken() {
    let federation = running();
    let member = federation.member("indexer-1");
    let (before, file): (Value, String) = (member.get(PATH), text(member));
    let panic = member.tell("/api/v1/chaos/actors/root/config", r#"{"fault":"panic"}"#);
    assert_eq!(panic.code, 204, "{panic:?}");
    let wish = json!({ "pool.max_indexer": 9 }).to_string();
    let died = member.patch(PATH, &wish);
    assert_eq!(died.code, 503, "{died:?}");
    assert_eq!((member.get::<Value>(PATH), text(member)), (before, file));
    assert_eq!(member.status().pool_max, 5);
    until_true("its next life takes it", PATIENCE, || member.patch(PATH, &wish).code == 200);
    assert_eq!(member.status().pool_max, 9);
}

#[test]
fn a_file_that_changes_is_taken_up_and_so_it_is_on_sighup() {
    let federation = running();
    let member = federation.member("indexer-1");
    member.set("pool.max_indexer", "8");
    until_true("the file is taken up", PATIENCE, || member.status().pool_max == 8);
    member.set("pool.max_indexer", "4");
    member.signal(Signal::SIGHUP);
    until_true("the file is read again", PATIENCE, || member.status().pool_max == 4);
    assert!(member.log().contains("SIGHUP: reading the configuration again"), "{}", member.log());
    member.set("network.mdns", "true");
    until_true("it is said to need a restart", PATIENCE, || member.log().contains("they need a restart"));
    assert_eq!(shown(member, "network.mdns")["value"], false);
}

#[test]
fn a_broken_file_changes_nothing_and_says_why() {
    let mut federation = running();
    let member = federation.member("indexer-1");
    let good = text(member);
    fs::write(member.config(), format!("{good}\n[pool]\nmax_indexer = 700\nmax_indexr = 1\n")).unwrap();
    member.signal(Signal::SIGHUP);
    let refused = |kind: &str| {
        until("it is refused", PATIENCE, || member.events(0).into_iter().rev().find(|event| event.kind == kind))
    };
    let event = refused("settings_refused");
    assert!(event.detail.contains("muster.toml:"), "{event:?}");
    assert!(member.log().contains("the configuration cannot be used, and nothing changed"), "{}", member.log());
    assert_eq!(member.status().pool_max, 5);
    fs::write(member.config(), &good).unwrap();
    member.set("pool.max_indexer", "70");
    until_true("the mended file is taken up", PATIENCE, || member.status().pool_max == 70);
    assert!(federation.member_mut("indexer-1").is_alive());
}

#[test]
fn settings_are_changed_with_the_token_alone_and_never_show_a_secret() {
    let federation = running();
    let member = federation.member("indexer-1");
    let before = text(member);
    let by_nobody = member.verb(&["config", "set", "pool.max_indexer", "7"]);
    assert_eq!(by_nobody.code, Some(5), "{by_nobody:?}");
    let wrong = config(member, &["set", "pool.max_indexer", "many"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.err.contains("got \"many\", expected a whole number from 1 to 100"), "{wrong:?}");
    let unknown = config(member, &["set", "pool.max_indexr", "7"]);
    assert!(unknown.err.contains("did you mean pool.max_indexer?"), "{unknown:?}");
    assert_eq!(text(member), before);
    let told = config(member, &["set", "bus.password", "geheim"]).ok();
    assert!(!told.out.contains("geheim"), "{told:?}");
    let all = member.ask(PATH).unwrap().body;
    assert!(all.contains("***") && !all.contains("geheim"), "{all}");
    assert!(!member.log().contains("geheim"));
}
