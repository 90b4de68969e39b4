//! A collector of spans: it takes OTLP over HTTP, reads it, and keeps it for the test.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
};
use prost::Message as _;

/// A span as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Collected {
    /// The peer id of the member that sent it.
    pub(crate) of: String,
    /// In hexadecimal digits, as people write them.
    pub(crate) trace_id: String,
    /// Its own.
    pub(crate) span_id: Vec<u8>,
    /// The one that it belongs to; empty where the trace begins.
    pub(crate) parent: Vec<u8>,
    /// What was done.
    pub(crate) name: String,
    /// Names and values of its labels.
    pub(crate) labels: Vec<(String, String)>,
}

/// Listens until it is dropped.
pub(crate) struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Collected>>>,
    is_over: Arc<AtomicBool>,
}

impl Collector {
    /// Listens on a free port.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (spans, is_over) = (Arc::<Mutex<Vec<Collected>>>::default(), Arc::<AtomicBool>::default());
        let (kept, over) = (Arc::clone(&spans), Arc::clone(&is_over));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || serve(stream, &kept));
            }
        });
        Self { address, spans, is_over }
    }

    /// The setting that names it, as in TOML.
    pub(crate) fn setting(&self) -> String {
        format!("\"http://{}\"", self.address)
    }

    /// Whatever came so far.
    pub(crate) fn spans(&self) -> Vec<Collected> {
        self.spans.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Whoever listens has to hear of it.
        drop(TcpStream::connect(self.address));
    }
}

/// Takes requests until the sender closes.
fn serve(stream: TcpStream, kept: &Mutex<Vec<Collected>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let (mut path, mut length, mut line) = (String::new(), 0, String::new());
        while lines.read_line(&mut line).is_ok_and(|read| read > 0) && line != "\r\n" {
            let lower = line.to_ascii_lowercase();
            if path.is_empty() {
                path.clone_from(&line);
            }
            if let Some(bytes) = lower.strip_prefix("content-length:") {
                length = bytes.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        if path.is_empty() || lines.read_exact(&mut body).is_err() {
            return;
        }
        assert!(path.starts_with("POST /v1/traces "), "{path}");
        let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
        kept.lock().unwrap().extend(read(&request));
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

fn read(request: &ExportTraceServiceRequest) -> Vec<Collected> {
    let mut read = Vec::new();
    for resource in &request.resource_spans {
        let labels = labels(&resource.resource.as_ref().unwrap().attributes);
        let of = labels.into_iter().find(|(name, _)| name == "service.instance.id").unwrap().1;
        for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
            read.push(Collected {
                of: of.clone(),
                trace_id: span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect(),
                span_id: span.span_id.clone(),
                parent: span.parent_span_id.clone(),
                name: span.name.clone(),
                labels: self::labels(&span.attributes),
            });
        }
    }
    read
}

fn labels(of: &[KeyValue]) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("a label of another kind: {other:?}"),
    };
    let value = |label: &KeyValue| text(label.value.as_ref().unwrap().value.as_ref().unwrap());
    of.iter().map(|label| (label.key.clone(), value(label))).collect()
}
