//! What is wrong is told once, to the operator and on the bus, and so is its end.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt as _;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::{runtime::Runtime, time::timeout};

use crate::harness::{Federation, Nats, PATIENCE, Spec, until, until_true};

#[test]
fn a_member_whose_peers_are_all_silent_at_once_suspects_itself_until_they_answer() {
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1")).start();
    let seed = federation.member("indexer-1").address();
    federation.add(Spec::indexer("indexer-2").seed(&seed)).start();
    let second = federation.member("indexer-2").address();
    let paris = Spec::node("paris").seed(&seed).seed(&second).set("pool.min_indexer", "2");
    federation.add(paris.set("alerts.every", "\"1s\"")).start();
    federation.until_converged();
    let alert = |federation: &Federation| {
        let raised: Value = federation.member("paris").try_get("/api/v1/alerts")?;
        raised.as_array()?.iter().find(|alert| alert["topic"] == "self_suspect").cloned()
    };
    assert_eq!(alert(&federation), None);
    // Frozen and not killed: their links are there, and say nothing.
    let indexers = ["indexer-1", "indexer-2"];
    indexers.iter().for_each(|name| federation.member(name).signal(Signal::SIGSTOP));
    let raised = until("it suspects itself", PATIENCE, || alert(&federation));
    assert_eq!((&raised["figure"], &raised["bound"]), (&json!(1.0), &json!(0.5)), "{raised}");
    assert_eq!(raised["severity"], "critical", "{raised}");
    until_true("it says so to Prometheus", PATIENCE, || {
        federation.member("paris").metric("muster_self_suspect") == 1.0
    });
    indexers.iter().for_each(|name| federation.member(name).signal(Signal::SIGCONT));
    until_true("nobody is suspected any more", PATIENCE * 3, || alert(&federation).is_none());
    let told = federation.member("paris").events(0);
    let of = |kind: &str| told.iter().filter(|event| event.kind == kind && event.subject == "self_suspect").count();
    assert_eq!((of("alert"), of("alert_over")), (1, 1), "{told:?}");
    let evicted = told.iter().find(|event| event.kind.contains("evict"));
    assert!(evicted.is_none(), "{evicted:?}");
}

#[test]
fn an_alert_is_raised_once_and_cleared_once_for_the_operator_and_on_the_bus() {
    let Some(bus) = Nats::started("an_alert_is_raised_once_and_cleared_once") else { return };
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1")).start();
    let seed = federation.member("indexer-1").address();
    let paris = Spec::node("paris").seed(&seed).set("bus.url", &format!("{:?}", bus.url()));
    federation.add(paris.set("alerts.every", "\"1s\"").set("alerts.peers_min", "2")).start();

    let runtime = Runtime::new().unwrap();
    let mut heard = runtime.block_on(async {
        let client = async_nats::connect(bus.url()).await.unwrap();
        let heard = client.subscribe("opencloud.alert").await.unwrap();
        client.flush().await.unwrap();
        heard
    });
    // Of a machine that builds beside its tests the processors may be an alert too.
    let mut next = || -> Value {
        runtime.block_on(async {
            let of_peers = async {
                loop {
                    let message = heard.next().await.expect("the subscription lasts");
                    let mut envelope: Value = serde_json::from_slice(&message.payload).unwrap();
                    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
                    envelope["payload"] = serde_json::from_slice(&payload).unwrap();
                    if envelope["payload"]["topic"] == "peers" {
                        return envelope;
                    }
                }
            };
            timeout(PATIENCE, of_peers).await.expect("an alert about peers")
        })
    };

    let raised = next();
    assert_eq!((&raised["datatype"], &raised["payload"]["over"]), (&json!("alert"), &json!(false)), "{raised}");
    assert_eq!((&raised["payload"]["figure"], &raised["payload"]["bound"]), (&json!(1.0), &json!(2.0)), "{raised}");
    let paris = federation.member("paris");
    let shown = paris.verb(&["alerts", "--output", "json"]).ok().json();
    let alert = shown.as_array().unwrap().iter().find(|alert| alert["topic"] == "peers").unwrap();
    assert_eq!(alert["severity"], "critical", "{alert}");
    let history: Value = paris.get("/api/v1/alerts/history");
    let sample = history.as_array().unwrap().last().unwrap();
    for topic in ["memory", "disk", "outbox", "database_slow", "database", "bus", "isolated", "peers"] {
        assert!(sample["figures"][topic].is_number(), "{topic}: {sample}");
    }

    federation.add(Spec::indexer("indexer-2").seed(&seed)).start();
    let over = next();
    assert_eq!((&over["payload"]["over"], &over["payload"]["figure"]), (&json!(true), &json!(2.0)), "{over}");
    assert_eq!(over["payload"]["since"], raised["payload"]["since"]);
    let paris = federation.member("paris");
    until("nothing is said of peers any more", Duration::from_secs(5), || {
        let shown = paris.verb(&["alerts", "--output", "json"]).ok().json();
        shown.as_array().unwrap().iter().all(|alert| alert["topic"] != "peers").then_some(())
    });
    let told: Vec<Value> = paris.verb(&["events", "--output", "json"]).ok().json().as_array().unwrap().clone();
    let of = |kind: &str| told.iter().filter(|event| event["kind"] == kind && event["subject"] == "peers").count();
    assert_eq!((of("alert"), of("alert_over")), (1, 1), "{told:?}");
}
