//! What two applications say to each other over their organisations' buses besides changes of a catalogue: plans, answers
//! to what was considered, configurations, signatures, searches.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream;
use base64::Engine as _;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    bus::{Two, envelope, say},
    harness::{PATIENCE, until, until_true},
};

/// What came on a bus: the verb, and what it says.
type Heard = Arc<Mutex<Vec<(String, Value)>>>;

/// Hears everything on a bus for as long as the runtime lives.
fn listen(runtime: &Runtime, url: String) -> Heard {
    let heard = Heard::default();
    let told = heard.clone();
    runtime.spawn(async move {
        loop {
            let _ = hear(&url, &told).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    heard
}

async fn hear(url: &str, heard: &Mutex<Vec<(String, Value)>>) -> Result<(), async_nats::Error> {
    let streams = jetstream::new(async_nats::connect(url).await?);
    let stream = streams.get_stream("OPENCLOUD").await?;
    let config = jetstream::consumer::pull::OrderedConfig::default();
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    let mut places = BTreeSet::new();
    while let Some(message) = messages.next().await {
        let message = message?;
        let envelope: Value = serde_json::from_slice(&message.payload)?;
        // What applications say has no origin.
        if !places.insert(message.info()?.stream_sequence) || envelope["origin"].is_null() {
            continue;
        }
        let payload = envelope["payload"].as_str().unwrap_or_default();
        let payload = base64::engine::general_purpose::STANDARD.decode(payload)?;
        let verb = message.subject.as_str().trim_start_matches("opencloud.").to_owned();
        let said = (verb, serde_json::from_slice(&payload)?);
        heard.lock().unwrap_or_else(PoisonError::into_inner).push(said);
    }
    Ok(())
}

fn of(heard: &Heard, verb: &str) -> Vec<Value> {
    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    heard.iter().filter(|(said, _)| said == verb).map(|(_, payload)| payload.clone()).collect()
}

#[test]
fn what_applications_say_to_each_other_is_heard_once_and_plans_in_their_order() {
    let test = "what_applications_say_to_each_other_is_heard_once_and_plans_in_their_order";
    let Some(mut two) = Two::started(test) else { return };
    let (in_paris, in_lyon) = (listen(&two.runtime, two.paris_bus.url()), listen(&two.runtime, two.lyon_bus.url()));
    let (paris, lyon) = (two.federation.member("paris").peer_id.clone(), two.federation.member("lyon").peer_id.clone());
    let order = |two: &Two, id: &str, datatype: &str, action: &str, payload: Value| {
        let word = json!({ "action": action, "datatype": datatype, "payload": payload });
        let url = two.paris_bus.url();
        two.runtime.block_on(say(&url, "opencloud.propagation_event", id, &envelope(datatype, &word)));
    };
    let step = |two: &Two, n: u64| {
        order(two, &format!("step-{n}"), "workflow", "planner", json!({ "peer_id": lyon, "step": n }));
    };
    let steps = |heard: &Heard| -> Vec<u64> {
        of(heard, "planner_execution").iter().filter_map(|step| step["step"].as_u64()).collect()
    };

    (1..=3).for_each(|n| step(&two, n));
    until_true("three steps are heard", PATIENCE, || steps(&in_lyon) == [1, 2, 3]);
    // A session outlives the peer's death, and what is fed meanwhile waits.
    two.federation.member_mut("lyon").kill();
    (4..=8).for_each(|n| step(&two, n));
    two.federation.member_mut("lyon").start();
    order(&two, "close", "workflow", "close_planner", json!({ "peer_id": lyon }));
    until_true("the plan is whole", 4 * PATIENCE, || steps(&in_lyon).len() >= 8);
    assert_eq!(steps(&in_lyon), (1..=8).collect::<Vec<_>>(), "each step once, in its order");
    let sessions: Value = two.federation.member("paris").get("/api/v1/planner");
    assert!(!sessions.to_string().contains(&lyon), "it is closed: {sessions}");

    order(&two, "considers", "booking", "considers", json!({ "peer_ids": [lyon], "answer": "yes" }));
    order(&two, "minio", "storage", "minio_config", json!({ "peer_id": lyon, "endpoint": "s3" }));
    order(&two, "admiralty", "compute", "admiralty_config", json!({ "peer_id": lyon, "kube": "c" }));
    for (verb, field, said) in [
        ("considers_event", "answer", "yes"),
        ("minio_config_event", "endpoint", "s3"),
        ("admiralty_config_event", "kube", "c"),
    ] {
        until_true(&format!("{verb} is heard"), PATIENCE, || !of(&in_lyon, verb).is_empty());
        let heard = of(&in_lyon, verb);
        assert_eq!((heard.len(), &heard[0][field]), (1, &json!(said)), "{verb}");
    }

    // Whether a signature is its creator's, and who and what is there.
    let resource = json!({ "id": "r1", "kind": "data", "name": "archive", "access": "public" });
    let create = envelope("data", &json!({ "action": "create", "datatype": "data", "payload": resource }));
    two.runtime.block_on(say(&two.lyon_bus.url(), "opencloud.propagation_event", "r1", &create));
    let held = until("paris holds what lyon offers", PATIENCE, || {
        two.federation.member("paris").try_get::<Value>(&format!("/api/v1/resources/{lyon}/r1"))
    });
    for (id, signature, is_ours) in
        [("true", held["resource"]["signature"].clone(), true), ("false", json!("AAAA"), false)]
    {
        order(&two, id, "data", "verify", json!({ "creator": lyon, "id": "r1", "signature": signature }));
        until_true("the signature is judged", PATIENCE, || {
            of(&in_paris, "verify_resource").iter().any(|said| said["is_ours"] == json!(is_ours))
        });
    }
    let finds = |what: &str| {
        until_true(&format!("{what} is found"), PATIENCE, || {
            of(&in_paris, "search_event").iter().any(|step| step.to_string().contains(what))
        });
    };
    order(&two, "peers", "peer", "search", json!({ "search": "lyon" }));
    finds(&lyon);
    order(&two, "resources", "data", "search", json!({ "search": "archive", "type": "partner" }));
    finds("archive");
    order(&two, "over", "data", "close_search", json!({}));
    until_true("no search is left", PATIENCE, || {
        two.federation.member("paris").metric("muster_resource_searches") == 0.0
    });
    assert!(of(&in_lyon, "planner_execution").len() == 8 && of(&in_paris, "planner_execution").is_empty());
    assert!(
        !of(&in_lyon, "search_event").iter().any(|said| said.to_string().contains(&paris)),
        "the asker alone is told"
    );
}
