//! Peers, addresses and times for this crate's tests.

#![allow(clippy::unwrap_used)]

use multiaddr::Multiaddr;
use protocol::{PeerId, Timestamp, wire::Role};

use crate::{AddressRow, PeerRow};

pub(crate) const DAY_SECS: i64 = 86_400;

pub(crate) fn at(unix_secs: i64) -> Timestamp {
    Timestamp::from_second(unix_secs).unwrap()
}

/// The `n`th peer: its key is its number.
pub(crate) fn peer(n: u32) -> PeerId {
    let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    bytes.extend([0; 28]);
    bytes.extend(n.to_be_bytes());
    PeerId::from_bytes(&bytes).unwrap()
}

pub(crate) fn address(n: u32) -> Multiaddr {
    format!("/ip4/10.0.{}.{}/tcp/4001", n / 256, n % 256).parse().unwrap()
}

pub(crate) fn address_row(n: u32) -> AddressRow {
    AddressRow { address: address(n), succeeded: n, failed: 1, last_ok: Some(at(i64::from(n))), last_failed: None }
}

/// The `n`th peer, seen `n` seconds after 1970.
pub(crate) fn peer_row(n: u32) -> PeerRow {
    PeerRow {
        peer: peer(n),
        did: format!("did:key:z{n}"),
        name: format!("paris-{n}"),
        role: Role { node: true, indexer: n.is_multiple_of(2) },
        agent: "muster/0.1.0".to_owned(),
        last_seen: Some(at(i64::from(n))),
        addresses: vec![address_row(n)],
    }
}

/// For property tests, whose bodies are not async.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
