//! Messages of usual size.

#![allow(dead_code, reason = "each of the programs that share this file uses a part of it")]

use protocol::{
    Timestamp,
    identity::Keys,
    record::{PEER_RECORD_LIFE, PeerRecord},
    trace::Traceparent,
    wire::{Heartbeat, HeartbeatResponse, Protocol},
};

/// A record as a node of an organisation publishes it.
pub(crate) fn record(keys: &Keys) -> PeerRecord {
    let now = Timestamp::now();
    PeerRecord {
        name: "paris".to_owned(),
        did: keys.did().to_string(),
        pub_key: keys.pub_key().to_owned(),
        peer_id: keys.peer_id(),
        api_url: "https://paris.example.org/api".to_owned(),
        stream_address: format!("/ip4/192.0.2.1/tcp/4001/p2p/{}", keys.peer_id()),
        addrs: vec!["/ip4/192.0.2.1/tcp/4001".parse().expect("an address")],
        nats_address: String::new(),
        wallet_address: String::new(),
        capabilities: [Protocol::Hello, Protocol::Leave].map(|protocol| protocol.id().to_owned()).into(),
        born_at: now,
        expiry_date: now + PEER_RECORD_LIFE,
        seq: 1_767_323_045_000,
    }
}

/// A heartbeat without a record, as two of three are.
pub(crate) fn heartbeat(keys: &Keys) -> Heartbeat {
    Heartbeat {
        seq: 7,
        name: "paris".to_owned(),
        did: keys.did().to_string(),
        peer_id: keys.peer_id(),
        timestamp: Timestamp::now().as_second(),
        need: 0,
        record: None,
        values: None,
        challenges: Vec::new(),
        challenge_did: None,
        referent: true,
        probe: false,
        presence: None,
        traceparent: Traceparent::Absent,
    }
}

/// An answer as an indexer gives it to a node that needs nothing.
pub(crate) fn answer(born_at: Timestamp) -> HeartbeatResponse {
    HeartbeatResponse {
        seq: 7,
        record_seq: Some(1_767_323_045_000),
        served_us: 12,
        fill_rate: 0.1,
        peer_count: 1_000,
        max_nodes: 10_000,
        born_at,
        challenges: Vec::new(),
        dht_found: None,
        dht_payload: None,
        witnesses: Vec::new(),
        suggestions: Vec::new(),
        suggest_migrate: false,
    }
}

/// The keys of one of many.
pub(crate) fn keys(number: usize) -> Keys {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
    Keys::from_seed(seed)
}
