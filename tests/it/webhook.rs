//! Alerts are told to the operator's own address, over a real HTTP server.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use protocol::webhook::Secret;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};

use crate::harness::{Federation, PATIENCE, Spec, private_file, until, until_true};

const SECRET: &str = "geheim-geheim-geheim-geheim";

/// A receiver that is busy at first, and keeps what it hears.
struct Receiver {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    _runtime: Runtime,
}

impl Receiver {
    fn start(busy: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let heard: Arc<Mutex<Vec<(HeaderMap, String)>>> = Arc::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let kept = heard.clone();
        let hear = move |headers: HeaderMap, body: String| async move {
            let mut kept = kept.lock().unwrap();
            kept.push((headers, body));
            if kept.len() <= busy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
        };
        let app = Router::new().route("/hooks/T0-verborgen", post(hear));
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { address, heard, _runtime: runtime }
    }

    /// What was said of peers, in the order in which it came.
    fn of_peers(&self) -> Vec<(HeaderMap, String, Value)> {
        let heard = self.heard.lock().unwrap().clone();
        let read = |(headers, text): (HeaderMap, String)| {
            let body: Value = serde_json::from_str(&text).unwrap();
            (body["data"]["alert"]["topic"] == "peers").then_some((headers, text, body))
        };
        heard.into_iter().filter_map(read).collect()
    }
}

#[test]
fn an_alert_is_posted_signed_until_it_is_taken_and_so_is_its_end() {
    let receiver = Receiver::start(1);
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1")).start();
    let seed = federation.member("indexer-1").address();
    let url = format!("\"http://{}/hooks/T0-verborgen\"", receiver.address);
    let paris = Spec::node("paris").seed(&seed).set("alerts.every", "\"1s\"").set("alerts.peers_min", "2");
    let paris = paris.set("webhook.url", &url).set("webhook.secret_file", "\"webhook.secret\"");
    // No figure of the machine is to come before it.
    let paris = ["cpu_max", "memory_max", "disk_max"]
        .iter()
        .fold(paris, |paris, key| paris.set(&format!("alerts.{key}"), "1.0"));
    let dir = federation.add(paris.set("log.level", "\"trace\"")).dir.clone();
    private_file(&dir.join("webhook.secret"), SECRET.as_bytes());
    federation.member_mut("paris").start();

    until_true("it is told again", PATIENCE, || receiver.of_peers().len() >= 2);
    let heard = receiver.of_peers();
    let header = |at: usize, name: &str| heard[at].0.get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(header(0, "webhook-id"), header(1, "webhook-id"), "the receiver knows a repetition");
    assert_eq!(heard[0].1, heard[1].1);
    let second: i64 = header(1, "webhook-timestamp").parse().unwrap();
    let signed = Secret::read(SECRET).unwrap().sign(&header(1, "webhook-id"), second, heard[1].1.as_bytes());
    assert_eq!(header(1, "webhook-signature"), signed);
    let body = &heard[1].2;
    let paris = federation.member("paris");
    assert_eq!((&body["type"], &body["data"]["member"]), (&json!("alert.raised"), &json!("paris")), "{body}");
    assert_eq!(body["data"]["peer_id"], json!(paris.peer_id), "{body}");
    assert_eq!(body["data"]["alert"]["over"], json!(false), "{body}");

    federation.add(Spec::indexer("indexer-2").seed(&seed)).start();
    let cleared = until("its end is told", PATIENCE, || {
        receiver.of_peers().into_iter().find(|(_, _, body)| body["type"] == "alert.cleared")
    });
    assert_eq!(cleared.2["data"]["alert"]["since"], body["data"]["alert"]["since"]);
    assert_ne!(cleared.0["webhook-id"], header(1, "webhook-id"));
    let paris = federation.member("paris");
    until_true("both are counted", PATIENCE, || paris.metric("muster_webhook_told_total") >= 2.0);
    assert_eq!(receiver.of_peers().len(), 3, "raised once, again once, cleared once");
    assert_eq!(paris.metric("muster_webhook_lost_total"), 0.0);
    assert!(!paris.status().reasons.iter().any(|reason| reason.starts_with("webhook")), "{:?}", paris.status().reasons);

    let is_there =
        |member: &str| federation.member(member).actors().iter().any(|actor| actor.name.ends_with("webhook"));
    assert_eq!((is_there("paris"), is_there("indexer-1")), (true, false), "absent without an address");
    let shown = crate::harness::muster(&["--config", paris.config().to_str().unwrap(), "config", "show"]).ok().out;
    for text in [paris.log(), shown] {
        assert!(!text.contains("verborgen") && !text.contains(SECRET), "{text}");
    }
}

#[test]
fn a_receiver_that_refuses_is_told_to_the_operator_and_holds_nothing_up() {
    let receiver = Receiver::start(0);
    let mut federation = Federation::new();
    let url = format!("\"http://{}/hooks/another\"", receiver.address);
    let alone = Spec::indexer("alone").set("alerts.every", "\"1s\"").set("webhook.url", &url);
    federation.add(alone).start();
    let alone = federation.member("alone");
    let said = until("it says so", PATIENCE, || {
        let reasons = alone.try_status()?.reasons;
        reasons.into_iter().find(|reason| reason.starts_with("webhook: "))
    });
    assert!(said.contains("answered 404") && said.contains("correct webhook.url"), "{said}");
    assert!(!said.contains("another"), "{said}");
    assert!(alone.metric("muster_webhook_lost_total") >= 1.0);
    until_true("alerts are raised all the same", Duration::from_secs(5), || {
        let alerts: Value = alone.get("/api/v1/alerts");
        alerts.as_array().unwrap().iter().any(|alert| alert["topic"] == "peers")
    });
}
