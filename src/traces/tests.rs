#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::Span as Sent,
};
use prost::Message as _;
use protocol::{
    identity::Keys,
    search::Tally,
    time::{Mono, Now},
    trace::{Begun, TraceContext, Work},
};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::net::TcpListener;

use super::*;

/// Longer than anything takes here on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn span(seed: u64) -> Span {
    let mut rng = StdRng::seed_from_u64(seed);
    let now = |millis| Now { mono: Mono::from_millis(millis), wall: "2026-01-02T03:04:05Z".parse().unwrap() };
    let given = TraceContext::begin(&mut rng);
    let begun = Begun::for_another(given, Work::SearchRelay, Keys::from_seed([7; 32]).peer_id(), now(10), &mut rng);
    let tally = Tally { asked: 3, answered: 2, timed_out: 1, truncated: false };
    begun.over(Outcome::Answered, Some(4), Some(tally), now(35))
}

fn whose() -> Whose {
    Whose { name: "paris".to_owned(), peer_id: "12D3".to_owned() }
}

/// A collector that hands on whatever it is sent.
async fn collector() -> (SocketAddr, mpsc::Receiver<Bytes>) {
    let (to, requests) = mpsc::channel(64);
    let take = async |State(to): State<mpsc::Sender<Bytes>>, body: Bytes| {
        to.send(body).await.unwrap();
        StatusCode::OK
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/v1/traces", post(take)).with_state(to);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, requests)
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

async fn next(requests: &mut mpsc::Receiver<Bytes>) -> ExportTraceServiceRequest {
    let body = timeout(PATIENCE, requests.recv()).await.unwrap().unwrap();
    ExportTraceServiceRequest::decode(body).unwrap()
}

fn spans(request: &ExportTraceServiceRequest) -> Vec<Sent> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| scope.spans.clone()).collect()
}

#[tokio::test]
async fn a_collector_reads_the_ids_the_times_and_the_labels_of_a_span() {
    let (address, mut requests) = collector().await;
    let (to, spans_in) = mpsc::channel(8);
    let sent = span(1);
    to.send(sent).await.unwrap();
    drop(to);
    let exporting = export(&url(address), &whose(), spans_in).unwrap();
    let request = next(&mut requests).await;
    exporting.close().await;
    let resource = request.resource_spans[0].resource.clone().unwrap();
    let named = |name: &str| {
        let value = resource.attributes.iter().find(|label| label.key == name)?.value.clone()?.value?;
        let Value::StringValue(text) = value else { return None };
        Some(text)
    };
    assert_eq!(named("service.name").as_deref(), Some("muster"));
    assert_eq!(named("service.instance.id").as_deref(), Some("12D3"));
    let got = &spans(&request)[0];
    assert_eq!(got.trace_id, sent.context.trace_id().to_be_bytes());
    assert_eq!(got.span_id, sent.context.span_id().to_be_bytes());
    assert_eq!(got.parent_span_id, sent.parent.unwrap().get().to_be_bytes());
    assert_eq!((got.name.as_str(), got.end_time_unix_nano - got.start_time_unix_nano), ("search.relay", 25_000_000));
    let labels: Vec<&str> = got.attributes.iter().map(|label| label.key.as_str()).collect();
    assert_eq!(labels, ["outcome", "peer", "hits", "asked", "answered", "timed_out"]);
}

#[tokio::test]
async fn what_waits_at_the_end_is_sent_in_batches_that_a_collector_takes() {
    let (address, mut requests) = collector().await;
    let (to, spans_in) = mpsc::channel(BATCH_MAX + 1);
    (0..=BATCH_MAX as u64).for_each(|seed| to.try_send(span(seed)).unwrap());
    let exporting = export(&url(address), &whose(), spans_in).unwrap();
    exporting.close().await;
    let counts = [spans(&next(&mut requests).await).len(), spans(&next(&mut requests).await).len()];
    assert_eq!(counts, [BATCH_MAX, 1]);
}

#[tokio::test]
async fn a_collector_that_is_away_holds_up_nobody() {
    // A port that was free a moment ago, and where nobody listens.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (to, spans_in) = mpsc::channel(QUEUE_MAX);
    let exporting = export(&url(nobody), &whose(), spans_in).unwrap();
    (0..QUEUE_MAX as u64).for_each(|seed| to.try_send(span(seed)).unwrap());
    timeout(PATIENCE, exporting.close()).await.unwrap();
    assert!(to.try_send(span(0)).is_err(), "the queue is closed, and telling it waits for nothing");
}

#[tokio::test]
async fn a_collector_that_takes_and_never_answers_does_not_hold_up_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (to, spans_in) = mpsc::channel(8);
    to.send(span(1)).await.unwrap();
    let exporting = export(&url(address), &whose(), spans_in).unwrap();
    // It is being sent, and stays so.
    let _held = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let began = Instant::now();
    exporting.close().await;
    assert!(began.elapsed() < EXPORT_WITHIN, "{:?}", began.elapsed());
}

#[tokio::test]
async fn without_a_collector_there_is_nothing_to_run() {
    let (_, exporting) = start(&TraceSettings::default(), &whose()).unwrap();
    assert!(exporting.is_none());
    let named = TraceSettings { otlp: "http://127.0.0.1:1".to_owned(), sample: 0.0 };
    let (_, exporting) = start(&named, &whose()).unwrap();
    assert!(exporting.is_some());
}

#[test]
fn a_collector_that_is_away_is_told_once_in_a_while() {
    let mut collector = Collector::default();
    let began = Instant::now();
    assert_eq!(collector.took(), None);
    assert_eq!(collector.missed(3, began), Some(3));
    assert_eq!(collector.missed(4, began + WARN_EVERY - Duration::from_nanos(1)), None);
    assert_eq!(collector.missed(5, began + WARN_EVERY), Some(12));
    assert_eq!(collector.took(), Some(12));
    assert_eq!(collector.took(), None);
    assert_eq!(collector.missed(1, began + WARN_EVERY + Duration::from_secs(1)), None, "one that comes and goes");
}

#[test]
fn a_collector_is_named_with_or_without_its_path() {
    for (named, whole) in [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("http://collector/otlp/traces", "http://collector/otlp/traces"),
    ] {
        assert_eq!(endpoint(named), whole);
    }
}
