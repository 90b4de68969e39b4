//! What it costs to believe nothing: a heartbeat passed over once and then read, beside serde alone on the same bytes.

#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use protocol::{
    Timestamp,
    identity::Keys,
    json,
    record::PeerRecord,
    signed::Verified,
    wire::{Heartbeat, Protocol},
};

#[path = "common/mod.rs"]
mod common;

fn heartbeat(with_record: bool) -> Vec<u8> {
    let keys = Keys::from_seed([7; 32]);
    let record = with_record.then(|| Verified::<PeerRecord>::sign(&common::record(&keys), &keys).to_raw());
    serde_json::to_vec(&Heartbeat { record, ..common::heartbeat(&keys) }).expect("a heartbeat has a JSON form")
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("heartbeat parsed");
    let max = Protocol::Heartbeat.value_bytes_max();
    for (what, bytes) in [("plain", heartbeat(false)), ("with a record", heartbeat(true))] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::new("floor: serde alone", what), &bytes, |b, bytes| {
            b.iter(|| serde_json::from_slice::<Heartbeat>(black_box(bytes)).expect("a heartbeat"));
        });
        group.bench_with_input(BenchmarkId::new("the pass alone", what), &bytes, |b, bytes| {
            b.iter(|| json::check(black_box(bytes), max).map(json::Checked::text).expect("JSON").len());
        });
        group.bench_with_input(BenchmarkId::new("ours: the pass, then serde", what), &bytes, |b, bytes| {
            b.iter(|| json::parse::<Heartbeat>(black_box(bytes), max).expect("a heartbeat"));
        });
    }
    group.finish();
}

/// The answer, as every beat writes it.
fn write(c: &mut Criterion) {
    let answer = common::answer(Timestamp::now());
    c.bench_function("answer written", |b| {
        let mut buffer = Vec::new();
        b.iter(|| {
            buffer.clear();
            serde_json::to_writer(&mut buffer, black_box(&answer)).expect("an answer has a JSON form");
            buffer.len()
        });
    });
}

criterion_group!(benches, parse, write);
criterion_main!(benches);
