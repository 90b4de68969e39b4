//! What a member did in a day is told once, in its log, on the bus, over its endpoint and by its verb.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt as _;
use serde_json::Value;
use tokio::{runtime::Runtime, time::timeout};

use crate::harness::{Federation, Nats, PATIENCE, Spec, muster, until};

#[test]
fn a_day_is_reported_when_it_is_over_and_the_next_one_begins_anew() {
    let Some(bus) = Nats::started("a_day_is_reported_when_it_is_over") else { return };
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1")).start();
    let seed = federation.member("indexer-1").address();
    let paris = Spec::node("paris").seed(&seed).set("bus.url", &format!("{:?}", bus.url()));
    let paris = paris.set("alerts.every", "\"1s\"").set("alerts.peers_min", "2").set("alerts.report_every", "\"6s\"");
    let runtime = Runtime::new().unwrap();
    let mut heard = runtime.block_on(async {
        let client = async_nats::connect(bus.url()).await.unwrap();
        let heard = client.subscribe("opencloud.report").await.unwrap();
        client.flush().await.unwrap();
        heard
    });
    federation.add(paris).start();
    let paris = federation.member("paris");
    let mut next = || -> Value {
        let message = runtime.block_on(async { timeout(PATIENCE, heard.next()).await });
        let envelope: Value = serde_json::from_slice(&message.expect("a report").unwrap().payload).unwrap();
        assert_eq!(envelope["datatype"], "report", "{envelope}");
        serde_json::from_slice(&STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap()).unwrap()
    };
    let (first, second) = (next(), next());
    assert_eq!(first["to"], second["from"], "nothing is lost between two days");
    // A day may be longer than it should where the machine is busy.
    let time = |what: &str| serde_json::from_value::<jiff::Timestamp>(second[what].clone()).unwrap();
    let day_ms = u64::try_from(time("to").duration_since(time("from")).as_millis()).unwrap();
    let samples = second["samples"].as_u64().unwrap();
    assert!((1..=day_ms / 1_000 + 1).contains(&samples), "{second}");
    for topic in ["memory", "disk", "peers", "outbox", "latency"] {
        let of = |what: &str| second["figures"][topic][what].as_f64().unwrap_or_else(|| panic!("{topic}: {second}"));
        assert!(of("least") <= of("mean") && of("mean") <= of("most"), "{topic}: {second}");
    }
    // One indexer where two are wanted: raised on the first day, and wrong on all of the second.
    assert_eq!((&first["alerts"]["peers"]["raised"], &second["alerts"]["peers"]["raised"]), (&1.into(), &0.into()));
    assert!(second["alerts"]["peers"]["lasted_ms"].as_u64().is_some_and(|lasted| lasted > day_ms / 2), "{second}");
    let beats = |report: &Value| report["counts"]["beats_answered"].as_u64().unwrap();
    // One each 2 s, and as many again for what nudges it.
    assert!((1..=day_ms / 1_000 + 3).contains(&beats(&second)), "counted since the day began: {second}");

    let view: Value = until("a whole day is shown", PATIENCE, || {
        paris.try_get::<Value>("/api/v1/report").filter(|view| view["last"].is_object())
    });
    assert_eq!(view["last"]["to"], view["running"]["from"], "{view}");
    let shown = paris.verb(&["report", "--output", "json"]).ok().json();
    assert!(shown["to"].is_string() && shown["counts"]["searches_begun"] == 0, "{shown}");
    let so_far = paris.verb(&["report", "--so-far"]).ok().out;
    assert!(so_far.contains("so far") && so_far.contains("what was wrong"), "{so_far}");
    assert!(paris.log().contains("report of the day"));
    assert!(paris.events(0).iter().any(|event| event.kind == "report"));
}

#[test]
fn a_day_goes_on_over_the_end_of_its_actor_and_a_kill_of_the_process() {
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1")).start();
    let seed = federation.member("indexer-1").address();
    federation.add(Spec::node("paris").seed(&seed).set("alerts.every", "\"1s\"").set("alerts.peers_min", "2")).start();
    federation.until_converged();
    let running = |federation: &Federation| -> Option<Value> {
        federation.member("paris").try_get::<Value>("/api/v1/report").map(|view| view["running"].clone())
    };
    let samples = |report: &Value| report["samples"].as_u64().unwrap();
    let reaches = |federation: &Federation, least: u64| -> Value {
        until(&format!("{least} looks"), PATIENCE, || running(federation).filter(|report| samples(report) >= least))
    };
    let paris = federation.member("paris");
    paris.verb(&["search", "nobody-of-this-name"]);
    let first = running(&federation).unwrap();
    // What was seen until then is on the disk once another look is behind it.
    let first = reaches(&federation, samples(&first) + 2);
    assert_eq!(first["counts"]["searches_begun"], 1, "{first}");
    assert_eq!(first["alerts"]["peers"]["raised"], 1, "{first}");

    let config = paris.config();
    muster(&["--config", config.to_str().unwrap(), "restart", "root/report"]).ok();
    let second = reaches(&federation, samples(&first));
    assert_eq!((&second["from"], &second["counts"]["searches_begun"]), (&first["from"], &1.into()), "{second}");
    let second = reaches(&federation, samples(&second) + 2);

    federation.member_mut("paris").kill();
    federation.member_mut("paris").start();
    // It lasts from one look to the next of the same life.
    let third = reaches(&federation, samples(&second) + 2);
    assert_eq!((&third["from"], &third["counts"]["searches_begun"]), (&first["from"], &1.into()), "{third}");
    assert!(third["alerts"]["peers"]["raised"].as_u64() >= Some(1), "{third}");
    assert!(third["alerts"]["peers"]["lasted_ms"].as_u64() > Some(0), "{third}");
}

#[test]
fn a_day_that_ended_while_the_member_was_away_is_told_to_its_last_look() {
    let mut federation = Federation::new();
    let paris = Spec::indexer("paris").set("alerts.every", "\"1s\"").set("alerts.report_every", "\"5s\"");
    federation.add(paris).start();
    let view = |federation: &Federation| federation.member("paris").try_get::<Value>("/api/v1/report");
    let running = until("some looks of a later day", PATIENCE, || {
        let view = view(&federation)?;
        (view["last"].is_object() && view["running"]["samples"].as_u64()? >= 2).then(|| view["running"].clone())
    });
    federation.member_mut("paris").kill();
    let from: jiff::Timestamp = serde_json::from_value(running["from"].clone()).unwrap();
    let end = from + std::time::Duration::from_secs(5);
    until("the day is over", PATIENCE, || (jiff::Timestamp::now() > end).then_some(()));
    federation.member_mut("paris").start();
    let view =
        until("it is told", PATIENCE, || view(&federation).filter(|view| view["last"]["from"] == running["from"]));
    let to: jiff::Timestamp = serde_json::from_value(view["last"]["to"].clone()).unwrap();
    assert!(to < end, "nobody knows what came after the last look: {view}");
    assert!(view["last"]["samples"].as_u64() >= Some(1), "{view}");
    assert!(view["running"]["from"].as_str() > view["last"]["to"].as_str(), "{view}");
}
