//! A record verified: the whole door, beside the bare signature over bytes that are canonical already.

#![allow(missing_docs)]

use std::hint::black_box;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use criterion::{Criterion, criterion_group, criterion_main};
use ed25519_dalek::{Signature, VerifyingKey};
use protocol::{
    Timestamp,
    identity::Keys,
    json,
    record::PeerRecord,
    signed::{Claimed, SignedObject, Verified},
};

#[path = "common/mod.rs"]
mod common;

fn verify(c: &mut Criterion) {
    let keys = Keys::from_seed([7; 32]);
    let text = Verified::<PeerRecord>::sign(&common::record(&keys), &keys).text().to_string();
    let now = Timestamp::now();
    let (message, signature) = canonical(&text);
    let key = VerifyingKey::from_bytes(&keys.public()).expect("a key");
    let mut group = c.benchmark_group("record");
    group.bench_function("floor: the signature alone", |b| {
        b.iter(|| key.verify_strict(black_box(&message), &signature).expect("a signature"));
    });
    group.bench_function("ours: text to verified record", |b| {
        b.iter(|| Verified::<PeerRecord>::open(black_box(&text), now).expect("a record"));
    });
    // What a record that brings nothing new costs instead.
    group.bench_function("ours: seen to be held already", |b| {
        b.iter(|| Claimed::peek(black_box(&text), PeerRecord::BYTES_MAX).expect("a record").is_news_to(Some(u64::MAX)));
    });
    let record = common::record(&keys);
    group.bench_function("ours: signed", |b| {
        b.iter(|| Verified::<PeerRecord>::sign(black_box(&record), &keys));
    });
    group.finish();
}

fn canonical(text: &str) -> (Vec<u8>, Signature) {
    let checked = json::check(text.as_bytes(), PeerRecord::BYTES_MAX).expect("JSON");
    let message = [PeerRecord::DOMAIN, &checked.canonical(Some(PeerRecord::SIGNATURE_FIELD))].concat();
    let field = checked.field(PeerRecord::SIGNATURE_FIELD).expect("a signature");
    let signature = BASE64.decode(field.trim_matches('"')).expect("base64").try_into().expect("64 bytes");
    (message.into_bytes(), Signature::from_bytes(&signature))
}

criterion_group!(benches, verify);
criterion_main!(benches);
