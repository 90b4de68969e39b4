//! Traces: one trace id at everybody who took part in a search, and a waterfall without any collector.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Collected, Collector, Ended, Federation, Member, PATIENCE, muster, until, until_true};

/// Every label that a span may have.
const LABELS: [&str; 6] = ["outcome", "peer", "hits", "asked", "answered", "timed_out"];

fn of_trace<'a>(spans: &'a [Collected], trace_id: &str, name: &str) -> Vec<&'a Collected> {
    spans.iter().filter(|span| span.trace_id == trace_id && span.name == name).collect()
}

/// Three members took part, each in its own way.
fn is_whole(spans: &[Collected], trace_id: &str) -> bool {
    let of: BTreeSet<&str> =
        spans.iter().filter(|span| span.trace_id == trace_id).map(|span| span.of.as_str()).collect();
    let names = ["search", "search.ask", "search.relay", "search.answer"];
    let mut whole = spans.iter().filter(|span| span.trace_id == trace_id);
    let has_parent = |span: &Collected| {
        span.parent.is_empty() || spans.iter().any(|other| other.trace_id == trace_id && other.span_id == span.parent)
    };
    of.len() == 3 && names.iter().all(|name| !of_trace(spans, trace_id, name).is_empty()) && whole.all(has_parent)
}

/// The waterfall in a search's output, if it was complete.
fn waterfall(ended: &Ended) -> Option<Value> {
    let lines = ended.json_lines();
    let [.., trace, end] = &lines[..] else { return None };
    assert_eq!(trace["event"], "trace", "the waterfall comes before the last word: {ended:?}");
    let is_complete = end["ended"] == "complete" || end["event"] == "ended";
    is_complete.then(|| trace.clone())
}

#[test]
fn one_trace_id_is_at_the_asker_at_its_indexer_and_at_the_one_that_gossip_reached() {
    let collector = Collector::start();
    let federation = Federation::started(2, &["paris", "lyon"], |spec| spec.set("traces.otlp", &collector.setting()));
    federation.until_converged();
    let lyon = federation.member("lyon");
    // The first of all is not traced: nobody asked for that.
    lyon.verb(&["search", "par", "--output", "jsonl"]);
    let mut searches: Vec<Value> = Vec::new();
    let (trace, all) = until("everybody took part in a trace", PATIENCE, || {
        searches.extend(waterfall(&lyon.verb(&["search", "par", "--trace", "--output", "jsonl"])));
        let spans = collector.spans();
        let whole = searches.iter().find(|trace| is_whole(&spans, trace["trace_id"].as_str().unwrap()));
        whole.cloned().map(|trace| (trace, spans))
    });
    let trace_id = trace["trace_id"].as_str().unwrap();
    let indexers = [&federation.member("indexer-1").peer_id, &federation.member("indexer-2").peer_id];

    let [root] = of_trace(&all, trace_id, "search")[..] else { panic!("{all:?}") };
    assert_eq!((root.of.as_str(), root.parent.is_empty()), (lyon.peer_id.as_str(), true), "{root:?}");
    let asks = of_trace(&all, trace_id, "search.ask");
    assert!(asks.iter().all(|ask| ask.of == lyon.peer_id && ask.parent == root.span_id), "{asks:?}");
    for relay in of_trace(&all, trace_id, "search.relay") {
        assert!(indexers.contains(&&relay.of) && asks.iter().any(|ask| ask.span_id == relay.parent), "{relay:?}");
    }
    for answer in of_trace(&all, trace_id, "search.answer") {
        let mut relays = of_trace(&all, trace_id, "search.relay").into_iter();
        assert!(relays.any(|relay| relay.span_id == answer.parent && relay.of != answer.of), "{answer:?}");
    }
    // Neither words of the search nor of strangers are labels, and nothing is traced that nobody asked to be.
    for span in &all {
        assert!(span.labels.iter().all(|(name, _)| LABELS.contains(&name.as_str())), "{span:?}");
        assert!(!span.name.starts_with("heartbeat"), "{span:?}");
    }
    let asked_for: BTreeSet<&str> = searches.iter().map(|trace| trace["trace_id"].as_str().unwrap()).collect();
    for root in all.iter().filter(|span| span.name == "search") {
        assert!(asked_for.contains(root.trace_id.as_str()), "nobody asked for this: {root:?}");
    }

    let asked = trace["asked"].as_array().unwrap();
    assert!(!asked.is_empty() && asked.iter().all(|row| row["how"] == "stream"), "{trace}");
    for row in asked {
        let at = |name: &str| row[name].as_f64().unwrap();
        assert!(indexers.iter().any(|peer| row["peer_id"] == peer.as_str()), "{row}");
        assert!(at("asked_ms") <= at("connected_ms") && at("connected_ms") <= at("first_ms"), "{row}");
        assert!(at("first_ms") <= at("last_ms") && row["outcome"] == "answered", "{row}");
        assert!(row["indexers"]["asked"].as_u64().is_some_and(|asked| asked >= 1), "{row}");
    }
}

#[test]
fn beats_are_traced_where_they_are_sampled_and_at_their_indexer() {
    let collector = Collector::start();
    let federation = Federation::started(1, &["paris"], |spec| {
        spec.set("traces.otlp", &collector.setting()).set("traces.sample", "1.0")
    });
    federation.until_converged();
    let (indexer, paris) = (&federation.member("indexer-1").peer_id, &federation.member("paris").peer_id);
    until_true("a beat is one trace at both", PATIENCE, || {
        let spans = collector.spans();
        let served = spans.iter().filter(|span| span.name == "heartbeat.serve" && span.of == *indexer);
        served.into_iter().any(|serve| {
            let is_beat = |beat: &&Collected| beat.span_id == serve.parent && beat.trace_id == serve.trace_id;
            spans.iter().filter(is_beat).any(|beat| beat.name == "heartbeat" && beat.of == *paris)
        })
    });
}

fn offers(owner: &Member) {
    let file = owner.dir.join("resource.json");
    let resource = json!({ "id": "gpu-1", "kind": "compute", "name": "GPU cluster", "access": "public" });
    std::fs::write(&file, resource.to_string()).unwrap();
    muster(&["--config", owner.config().to_str().unwrap(), "resource", "put", file.to_str().unwrap()]).ok();
}

#[test]
fn a_waterfall_needs_no_collector_and_is_plain_without_a_terminal() {
    let federation = Federation::converged(1, &["paris", "lyon"]);
    let (paris, lyon) = (federation.member("paris"), federation.member("lyon"));
    let shown = until("a search is complete", PATIENCE, || {
        Some(lyon.verb(&["search", "par", "--trace"])).filter(|ended| ended.code == Some(0))
    });
    assert!(shown.out.contains("\ntrace ") || shown.out.starts_with("trace "), "{shown:?}");
    assert!(shown.out.contains("CONNECTED") && shown.out.contains("answered"), "{shown:?}");
    assert!(!shown.out.contains('━') && !shown.out.contains('\u{1b}'), "no bars into a pipe: {shown:?}");

    offers(paris);
    let args = ["search", "--resources", "gpu", "--trace", "--output", "json"];
    let trace = until("gossip reaches paris", PATIENCE, || {
        let trace = waterfall(&lyon.verb(&args))?;
        let is_paris = |row: &Value| row["peer_id"] == paris.peer_id.as_str() && row["hits"] == 1;
        trace["asked"].as_array().unwrap().iter().any(is_paris).then_some(trace)
    });
    let how = |peer: &str| {
        let rows = trace["asked"].as_array().unwrap();
        rows.iter().find(|row| row["peer_id"] == peer).map(|row| row["how"].clone())
    };
    assert_eq!((how(&paris.peer_id), how(&lyon.peer_id)), (Some("gossip".into()), Some("here".into())), "{trace}");

    let plain = lyon.verb(&["search", "par", "--output", "jsonl"]);
    assert!(plain.json_lines().iter().all(|line| line["event"] != "trace"), "{plain:?}");
}
