//! In how many subnets the peers lie that an indexer names.
//!
//! Shown and never judged by: a federation in one office has all of its members in one /24, and is as honest as another. An
//! operator who sees an indexer of the internet name nothing but its own neighbours may draw his own conclusions.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;

use crate::{addr::Subnet, wire::AddrInfo};

/// Peers looked at in one round; those named later wait for the next.
pub const PEERS_MAX: usize = 64;

/// The peers that one indexer named since the last reckoning. Bounded by [`PEERS_MAX`].
#[derive(Clone, Debug, Default)]
pub struct Named {
    by_peer: BTreeMap<PeerId, Subnet>,
}

/// What a round gave: counted by peers and not by addresses (G16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Peers with an IP address.
    pub peers: u32,
    /// Different /24 (IPv6 /48) among them.
    pub subnets: u32,
}

impl Named {
    /// It named these. A peer lies in one subnet: the least of its addresses, whatever their order.
    pub fn hear(&mut self, peers: &[AddrInfo]) {
        for info in peers {
            let Some(subnet) = info.addrs.iter().filter_map(Subnet::of_addr).min() else { continue };
            if self.by_peer.len() < PEERS_MAX || self.by_peer.contains_key(&info.id) {
                self.by_peer.insert(info.id, subnet);
            }
        }
    }

    /// How they spread, and a new round; nothing when it named nobody with an address.
    pub fn reckon(&mut self) -> Option<Spread> {
        let by_peer = std::mem::take(&mut self.by_peer);
        let subnets: std::collections::BTreeSet<Subnet> = by_peer.values().copied().collect();
        let count = |all: usize| u32::try_from(all).unwrap_or(u32::MAX);
        (!by_peer.is_empty()).then(|| Spread { peers: count(by_peer.len()), subnets: count(subnets.len()) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::peer;

    fn info(n: u32, addrs: &[&str]) -> AddrInfo {
        AddrInfo { id: peer(n), addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect() }
    }

    #[test]
    fn g16_peers_are_counted_and_not_their_addresses() {
        let mut named = Named::default();
        named.hear(&[
            info(1, &["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/2", "/ip4/198.51.100.1/tcp/1"]),
            info(2, &["/ip4/192.0.2.9/tcp/1"]),
            info(3, &["/ip6/2001:db8:7::1/tcp/1"]),
            info(4, &["/ip6/2001:db8:7:9::1/tcp/1"]),
            info(5, &["/dns4/cloud.example/tcp/1"]),
            info(6, &[]),
        ]);
        named.hear(&[info(1, &["/ip4/198.51.100.1/tcp/1", "/ip4/192.0.2.1/tcp/1"])]);
        assert_eq!(named.reckon(), Some(Spread { peers: 4, subnets: 2 }));
        assert_eq!(named.reckon(), None, "a new round");
    }

    #[test]
    fn a_round_is_bounded() {
        let mut named = Named::default();
        for n in 0..PEERS_MAX as u32 + 1 {
            named.hear(&[info(n, &[&format!("/ip4/10.0.{n}.1/tcp/1")])]);
        }
        assert_eq!(named.reckon(), Some(Spread { peers: PEERS_MAX as u32, subnets: PEERS_MAX as u32 }));
    }
}
