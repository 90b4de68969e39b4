//! Spans to a collector, by OTLP over HTTP, where one is named.
//!
//! The tree puts its spans into a bounded queue and never waits for it. One task takes them from there, a batch at a time,
//! and is the only one that waits for the collector. A batch that the collector does not take is gone: a trace is no record.
//! While it is away, one line in the log says so now and then. The only place of OpenTelemetry.

use std::time::{Duration, SystemTime};

use actors::traces::{QUEUE_MAX, Traces};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use protocol::trace::{Outcome, Span};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cli::exit::{Exit, Failure};

/// How often spans are sent: often enough that whoever looks for a trace finds it, seldom enough to be batches.
const EVERY: Duration = Duration::from_secs(1);

/// Spans in one request; some hundred kilobytes.
const BATCH_MAX: usize = 512;

/// For the collector to take a request.
const EXPORT_WITHIN: Duration = Duration::from_secs(5);

/// For what waits to be sent when the member ends; it is traces that would be lost, and nobody waits long for those.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// How often it is said that the collector is away.
const WARN_EVERY: Duration = Duration::from_secs(600);

/// Where OTLP over HTTP takes traces, if the setting names no path.
const PATH: &str = "/v1/traces";

/// Section `[traces]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TraceSettings {
    /// The collector; empty for none.
    pub(crate) otlp: String,
    /// The share of our own searches and beats that is traced.
    pub(crate) sample: f64,
}

/// Who the spans are of.
pub(crate) struct Whose {
    /// The member's name.
    pub(crate) name: String,
    /// Its peer id.
    pub(crate) peer_id: String,
}

/// The task that sends, until it is closed; dropped, it ends at once.
pub(crate) struct Exporting {
    end: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// Where the tree puts its spans, and what takes them from there; where no collector is named, nothing does.
///
/// # Errors
/// When no exporter can be made of the settings.
pub(crate) fn start(settings: &TraceSettings, whose: &Whose) -> Result<(Traces, Option<Exporting>), Failure> {
    if settings.otlp.is_empty() {
        return Ok((Traces::default(), None));
    }
    let (to, spans) = mpsc::channel(QUEUE_MAX);
    let exporting = export(&settings.otlp, whose, spans)?;
    Ok((Traces::new(to, settings.sample), Some(exporting)))
}

fn export(otlp: &str, whose: &Whose, spans: mpsc::Receiver<Span>) -> Result<Exporting, Failure> {
    let endpoint = endpoint(otlp);
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(&endpoint)
        .with_timeout(EXPORT_WITHIN)
        .with_retry_policy(RetryPolicy::disabled())
        .build();
    let mut exporter = exporter.map_err(|cause| {
        Failure::new(Exit::Configuration, format!("traces cannot be sent to {endpoint}"))
            .why(cause.to_string())
            .next("correct traces.otlp, and variables of the environment that begin with OTEL_EXPORTER_OTLP_")
    })?;
    exporter.set_resource(&resource(whose));
    let end = CancellationToken::new();
    let task = tokio::spawn(send_all(spans, exporter, endpoint, end.clone()));
    Ok(Exporting { end, task: Some(task) })
}

impl Exporting {
    /// Sends what waits, as far as the collector takes it in time.
    pub(crate) async fn close(mut self) {
        self.end.cancel();
        let Some(task) = &mut self.task else { return };
        if timeout(CLOSE_WITHIN, task).await.is_err() {
            warn!(within = ?CLOSE_WITHIN, "the collector did not take the last spans in time");
        }
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// The whole URL: a collector's base has no path.
fn endpoint(otlp: &str) -> String {
    let has_path = otlp.split_once("://").is_some_and(|(_, rest)| rest.trim_end_matches('/').contains('/'));
    if has_path { otlp.to_owned() } else { format!("{}{PATH}", otlp.trim_end_matches('/')) }
}

fn resource(whose: &Whose) -> Resource {
    // Nothing is detected: what is said of the host is what an operator chose to call it.
    Resource::builder_empty()
        .with_service_name("muster")
        .with_attribute(KeyValue::new("service.instance.id", whose.peer_id.clone()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("muster.member", whose.name.clone()))
        .build()
}

async fn send_all(mut spans: mpsc::Receiver<Span>, exporter: SpanExporter, endpoint: String, end: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut collector = Collector::default();
    let mut is_over = false;
    while !is_over {
        tokio::select! {
            _ = ticks.tick() => {}
            () = end.cancelled() => {
                is_over = true;
                spans.close();
            }
        }
        // As many as there are now: what comes meanwhile waits for the next tick, so that a flood ends nowhere else.
        let mut waiting = spans.len();
        while waiting > 0 {
            let mut batch = Vec::with_capacity(waiting.min(BATCH_MAX));
            while batch.len() < BATCH_MAX {
                let Ok(span) = spans.try_recv() else { break };
                batch.push(data(&span));
            }
            waiting = waiting.saturating_sub(batch.len().max(1));
            let count = batch.len();
            let sent = if count == 0 { Ok(()) } else { exporter.export(batch).await };
            match sent {
                Ok(()) => {
                    if let Some(lost) = collector.took() {
                        info!(endpoint, lost, "the collector takes traces again");
                    }
                }
                Err(cause) => {
                    if let Some(lost) = collector.missed(count, Instant::now()) {
                        warn!(endpoint, lost, %cause, "traces are lost: the collector does not take them");
                    }
                }
            }
        }
    }
}

/// Whether the collector is there, and when that was said.
#[derive(Debug, Default)]
struct Collector {
    lost: usize,
    warned: Option<Instant>,
}

impl Collector {
    /// It took a batch; how many spans were lost before, if that was said.
    fn took(&mut self) -> Option<usize> {
        let lost = std::mem::take(&mut self.lost);
        // The last warning still counts, so that one that comes and goes is no flood of lines.
        (self.warned.is_some() && lost > 0).then_some(lost)
    }

    /// It did not; how many were lost by now, if that is to be said.
    fn missed(&mut self, count: usize, now: Instant) -> Option<usize> {
        self.lost = self.lost.saturating_add(count);
        let is_due = self.warned.is_none_or(|warned| now.duration_since(warned) >= WARN_EVERY);
        if is_due {
            self.warned = Some(now);
        }
        is_due.then_some(self.lost)
    }
}

/// A span as OpenTelemetry has it. Its labels are these and no others; none is a word of a peer.
fn data(span: &Span) -> SpanData {
    let start_time = SystemTime::from(span.began);
    let mut attributes = vec![KeyValue::new("outcome", span.outcome.name())];
    attributes.extend(span.peer.map(|peer| KeyValue::new("peer", peer.to_string())));
    attributes.extend(span.hits.map(|hits| KeyValue::new("hits", i64::from(hits))));
    if let Some(tally) = span.tally {
        let of = |name: &'static str, count: u32| KeyValue::new(name, i64::from(count));
        attributes.push(of("asked", tally.asked));
        attributes.push(of("answered", tally.answered));
        attributes.push(of("timed_out", tally.timed_out));
    }
    let flags = TraceFlags::SAMPLED;
    let (trace, own) = (TraceId::from(span.context.trace_id()), SpanId::from(span.context.span_id()));
    SpanData {
        span_context: SpanContext::new(trace, own, flags, false, TraceState::default()),
        parent_span_id: span.parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.get())),
        parent_span_is_remote: span.work.is_for_another(),
        span_kind: if span.work.is_for_another() { SpanKind::Server } else { SpanKind::Client },
        name: span.work.name().into(),
        start_time,
        end_time: start_time + span.took,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: match span.outcome {
            Outcome::Answered => Status::Ok,
            Outcome::Refused | Outcome::Lost | Outcome::Open => Status::Unset,
        },
        instrumentation_scope: InstrumentationScope::builder("muster").with_version(env!("CARGO_PKG_VERSION")).build(),
    }
}

#[cfg(test)]
mod tests;
