//! The rule of a beat alone: a session found, written to and answered for, beside a look-up in a bare table.

#![allow(missing_docs)]

use std::{collections::HashMap, hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use protocol::{
    PeerId, Timestamp,
    session::Registry,
    suggestions::IndexerBook,
    time::{Mono, Now},
    wire::{Heartbeat, HeartbeatResponse},
};
use rand::{SeedableRng, rngs::StdRng};

#[path = "common/mod.rs"]
mod common;

/// An indexer as it is set, and one as large as the design asks for.
const SESSIONS: [usize; 2] = [1_000, 20_000];

/// A step of this many sessions is no pattern that a cache foresees.
const STRIDE: usize = 7_919;

fn beat(c: &mut Criterion) {
    let mut group = c.benchmark_group("beat");
    for count in SESSIONS {
        let beats: Vec<Heartbeat> = (0..count).map(|number| common::heartbeat(&common::keys(number))).collect();
        group.bench_with_input(BenchmarkId::new("floor: a bare table", count), beats.as_slice(), bare);
        group.bench_with_input(BenchmarkId::new("ours: the registry", count), beats.as_slice(), ours);
    }
    group.finish();
}

fn bare(b: &mut criterion::Bencher<'_>, beats: &[Heartbeat]) {
    let mut table: HashMap<PeerId, u64> = beats.iter().map(|beat| (beat.peer_id, 0)).collect();
    let answer = common::answer(Timestamp::now());
    let mut at = 0;
    b.iter(|| {
        at = (at + STRIDE) % beats.len();
        let heartbeat = black_box(&beats[at]);
        let count = table.entry(heartbeat.peer_id).or_default();
        *count += 1;
        HeartbeatResponse { seq: heartbeat.seq, record_seq: Some(*count), ..answer.clone() }
    });
}

fn ours(b: &mut criterion::Bencher<'_>, beats: &[Heartbeat]) {
    let wall = Timestamp::now();
    let mut mono = Mono::ZERO;
    let mut rng = StdRng::seed_from_u64(7);
    let book = IndexerBook::new(common::keys(usize::MAX).peer_id(), false, mono);
    let mut registry = Registry::new(u32::try_from(beats.len()).expect("a count of sessions"), wall);
    let mut beat = |heartbeat: &Heartbeat, mono: Mono| {
        let now = Now { mono, wall };
        registry.beat(heartbeat.peer_id, heartbeat, false, &book, now, &mut rng).expect("a beat that is answered")
    };
    beats.iter().for_each(|heartbeat| drop(beat(heartbeat, mono)));
    let mut at = 0;
    b.iter(|| {
        at = (at + STRIDE) % beats.len();
        mono = mono + Duration::from_micros(10);
        beat(black_box(&beats[at]), mono)
    });
}

criterion_group!(benches, beat);
criterion_main!(benches);
