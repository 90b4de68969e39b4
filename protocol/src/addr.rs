//! Addresses: where they lead, which may be believed from others, and which are near each other.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

use crate::record::ADDRS_MAX;

/// Where an IP address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Back to the same machine.
    Loopback,
    /// Nowhere: `0.0.0.0/8`, `::`.
    Unspecified,
    /// To the same link only.
    LinkLocal,
    /// To many at once.
    Multicast,
    /// Within somebody's own network: private, shared and benchmarking ranges, unique local addresses.
    Private,
    /// Nowhere that is in use.
    Reserved,
    /// Anywhere else.
    Public,
}

/// Where an address leads. An IPv4 address inside an IPv6 one is judged as itself, since that is where it leads.
#[must_use]
pub fn scope_of(ip: IpAddr) -> Scope {
    match plain(ip) {
        IpAddr::V4(ip) => scope_of_v4(ip),
        IpAddr::V6(ip) => scope_of_v6(ip),
    }
}

fn scope_of_v4(ip: Ipv4Addr) -> Scope {
    match ip.octets() {
        [127, ..] => Scope::Loopback,
        [0, ..] => Scope::Unspecified,
        [169, 254, ..] => Scope::LinkLocal,
        [224..=239, ..] => Scope::Multicast,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18..=19, ..] => Scope::Private,
        [192, 0, 0, _] | [240..=255, ..] => Scope::Reserved,
        _ => Scope::Public,
    }
}

fn scope_of_v6(ip: Ipv6Addr) -> Scope {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Scope::Loopback,
        [0, 0, 0, 0, 0, 0, 0, 0] => Scope::Unspecified,
        [0xfe80..=0xfebf, ..] => Scope::LinkLocal,
        [0xff00..=0xffff, ..] => Scope::Multicast,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Scope::Private,
        [0x2000..=0x3fff, ..] => Scope::Public,
        _ => Scope::Reserved,
    }
}

/// The IPv4 address to which an IPv6 address is translated (mapped, NAT64, 6to4), else the address itself.
fn plain(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let joined = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            joined(high, low)
        }
        _ => ip,
    }
}

/// The /24 of an IPv4 address, the /48 of an IPv6 address: what one hand usually holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subnet {
    /// Its first three bytes.
    V4([u8; 3]),
    /// Its first six bytes.
    V6([u8; 6]),
}

impl Subnet {
    /// The subnet of an address. A mapped IPv4 address is in its own /24: all of them in one /48 would be one subnet.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match plain(ip) {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Self::V6([a, b, c, d, e, f])
            }
        }
    }

    /// The subnet of a multiaddress; nothing when it does not begin with an IP address.
    #[must_use]
    pub fn of_addr(addr: &Multiaddr) -> Option<Self> {
        ip_of(addr).map(Self::of)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V4([a, b, c]) => write!(f, "{a}.{b}.{c}.0/24"),
            Self::V6(first) => {
                let mut bytes = [0; 16];
                bytes[..6].copy_from_slice(&first);
                write!(f, "{}/48", Ipv6Addr::from(bytes))
            }
        }
    }
}

/// The IP address with which a multiaddress begins.
#[must_use]
pub fn ip_of(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.into()),
        _ => None,
    }
}

/// The IP address and port of an address that is `/ip4` or `/ip6` and `/tcp`, and `/p2p` at most.
#[must_use]
pub fn tcp_of(addr: &Multiaddr) -> Option<(IpAddr, u16)> {
    let mut parts = addr.iter();
    let (Some(Protocol::Ip4(_) | Protocol::Ip6(_)), Some(Protocol::Tcp(port))) = (parts.next(), parts.next()) else {
        return None;
    };
    match (parts.next(), parts.next()) {
        (None | Some(Protocol::P2p(_)), None) => Some((ip_of(addr)?, port)),
        _ => None,
    }
}

/// The address without the `/p2p/` at its end, and the peer that stood there.
#[must_use]
pub fn split_peer(addr: &Multiaddr) -> (Multiaddr, Option<PeerId>) {
    let mut bare = addr.clone();
    match bare.pop() {
        Some(Protocol::P2p(peer)) => (bare, Some(peer)),
        _ => (addr.clone(), None),
    }
}

/// The full address of a peer: with its `/p2p/` at the end, once.
#[must_use]
pub fn with_peer(addr: &Multiaddr, peer: PeerId) -> Multiaddr {
    split_peer(addr).0.with(Protocol::P2p(peer))
}

/// A range of IP addresses, as `10.20.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    first: IpAddr,
    bits: u8,
}

/// Why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("got \"{got}\", expected a range like \"10.20.0.0/16\" or \"fd00::/8\" whose other bits are zero")]
pub struct RangeError {
    got: String,
}

impl Range {
    /// The range holds the address.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.first, plain(ip)) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => {
                (first.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(first), IpAddr::V6(ip)) => {
                (first.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }

    /// Bits set beyond its length: whoever wrote them meant another range.
    fn has_other_bits(&self) -> bool {
        let beyond = match self.first {
            IpAddr::V4(first) => first.to_bits().checked_shl(self.bits.into()).unwrap_or(0) != 0,
            IpAddr::V6(first) => first.to_bits().checked_shl(self.bits.into()).unwrap_or(0) != 0,
        };
        let most = if self.first.is_ipv4() { 32 } else { 128 };
        beyond || self.bits > most
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let read = || {
            let (first, bits) = text.split_once('/')?;
            let range = Self { first: first.parse().ok()?, bits: bits.parse().ok()? };
            (!range.has_other_bits()).then_some(range)
        };
        read().ok_or_else(|| RangeError { got: text.to_owned() })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl Serialize for Range {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Which addresses this network believes of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Loopback and private addresses are its own: the profiles `local` and `load`.
    pub is_local: bool,
    /// Private ranges that are believed although it is not local.
    pub private_ranges: Vec<Range>,
}

impl Rule {
    /// An address of another peer may be dialled: IP and TCP, a port, and a scope that this network has.
    #[must_use]
    pub fn permits(&self, addr: &Multiaddr) -> bool {
        tcp_of(addr).is_some_and(|(ip, port)| port != 0 && self.permits_ip(ip))
    }

    /// The same for the IP address alone.
    #[must_use]
    pub fn permits_ip(&self, ip: IpAddr) -> bool {
        match scope_of(ip) {
            Scope::Public => true,
            Scope::Private => self.is_local || self.private_ranges.iter().any(|range| range.contains(ip)),
            Scope::Loopback => self.is_local,
            Scope::Unspecified | Scope::LinkLocal | Scope::Multicast | Scope::Reserved => false,
        }
    }
}

/// Of the addresses that somebody told about `peer`, those that may be believed: bare, each once, at most 8.
///
/// An address that names another peer is left out.
#[must_use]
pub fn hearsay(peer: &PeerId, addrs: &[Multiaddr], rule: &Rule) -> Vec<Multiaddr> {
    let mut believed: Vec<Multiaddr> = Vec::new();
    for addr in addrs {
        let (bare, named) = split_peer(addr);
        let is_of_peer = named.is_none_or(|named| named == *peer);
        if is_of_peer && rule.permits(&bare) && !believed.contains(&bare) {
            believed.push(bare);
        }
        if believed.len() == ADDRS_MAX {
            break;
        }
    }
    believed
}

/// The full address of a seed, as an operator writes it: it may also name a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seed {
    peer_id: PeerId,
    addr: Multiaddr,
}

/// Why a text is no seed's address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SeedError {
    /// Nothing in it.
    #[error("got an empty seed address, expected one like {EXAMPLE}")]
    Empty,
    /// No peer at its end.
    #[error("got \"{got}\", which does not end in /p2p/ and a peer id, expected one like {EXAMPLE}")]
    NoPeer {
        /// The text.
        got: String,
    },
    /// What stands behind `/p2p/` is no peer id.
    #[error("got \"{got}\", whose peer id \"{peer}\" is none, expected one like {EXAMPLE}")]
    BadPeer {
        /// The text.
        got: String,
        /// What stands behind `/p2p/`.
        peer: String,
    },
    /// Not a multiaddress.
    #[error("got \"{got}\", which is no address ({cause}), expected one like {EXAMPLE}")]
    BadAddr {
        /// The text.
        got: String,
        /// In the words of the parser.
        cause: String,
    },
    /// An address of another transport, or without a port.
    #[error("got \"{got}\", expected /ip4, /ip6, /dns, /dns4 or /dns6 with /tcp and a port, like {EXAMPLE}")]
    OtherTransport {
        /// The text.
        got: String,
    },
    /// An address that nobody can dial.
    #[error("got \"{got}\", whose address is nobody's ({scope:?})")]
    Undialable {
        /// The text.
        got: String,
        /// Where it leads.
        scope: Scope,
    },
}

/// What an operator may copy.
const EXAMPLE: &str = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…";

impl Seed {
    /// The peer that must answer there.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Its address without `/p2p/`.
    #[must_use]
    pub fn addr(&self) -> &Multiaddr {
        &self.addr
    }

    /// Its address with `/p2p/`.
    #[must_use]
    pub fn full(&self) -> Multiaddr {
        with_peer(&self.addr, self.peer_id)
    }
}

impl FromStr for Seed {
    type Err = SeedError;

    fn from_str(text: &str) -> Result<Self, SeedError> {
        let text = text.trim();
        let got = || text.to_owned();
        if text.is_empty() {
            return Err(SeedError::Empty);
        }
        let (addr, peer) = text.rsplit_once("/p2p/").ok_or_else(|| SeedError::NoPeer { got: got() })?;
        let peer_id = peer.parse().map_err(|_| SeedError::BadPeer { got: got(), peer: peer.to_owned() })?;
        let addr: Multiaddr = addr
            .parse()
            .map_err(|error: multiaddr::Error| SeedError::BadAddr { got: got(), cause: error.to_string() })?;
        match seed_scope(&addr) {
            None => Err(SeedError::OtherTransport { got: got() }),
            Some(scope @ (Scope::Unspecified | Scope::Multicast | Scope::Reserved)) => {
                Err(SeedError::Undialable { got: got(), scope })
            }
            Some(_) => Ok(Self { peer_id, addr }),
        }
    }
}

/// Where a seed's address leads; a host's name is taken as public. Nothing when it is of another form.
fn seed_scope(addr: &Multiaddr) -> Option<Scope> {
    let parts: Vec<Protocol<'_>> = addr.iter().collect();
    match parts.as_slice() {
        [host, Protocol::Tcp(port)] if *port != 0 => match host {
            Protocol::Ip4(ip) => Some(scope_of((*ip).into())),
            Protocol::Ip6(ip) => Some(scope_of((*ip).into())),
            Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) => Some(Scope::Public),
            _ => None,
        },
        _ => None,
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/p2p/{}", self.addr, self.peer_id)
    }
}

impl Serialize for Seed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Keys;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn peer(seed: u8) -> PeerId {
        Keys::from_seed([seed; 32]).peer_id()
    }

    fn public() -> Rule {
        Rule::default()
    }

    fn local() -> Rule {
        Rule { is_local: true, ..Rule::default() }
    }

    #[test]
    fn every_range_has_its_scope() {
        let check = |scope: Scope, texts: &[&str]| {
            for text in texts {
                assert_eq!(scope_of(ip(text)), scope, "{text}");
            }
        };
        check(Scope::Loopback, &["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]);
        check(Scope::Unspecified, &["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0"]);
        check(Scope::LinkLocal, &["169.254.0.1", "169.254.169.254", "fe80::1", "febf::1", "::ffff:169.254.169.254"]);
        check(Scope::Multicast, &["224.0.0.1", "239.255.255.255", "ff02::1"]);
        check(Scope::Private, &["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fd00::1"]);
        check(Scope::Private, &["::ffff:10.0.0.1", "2002:a00:1::", "2002:c0a8:1::1", "198.18.0.1", "fec0::1"]);
        check(Scope::Reserved, &["240.0.0.1", "255.255.255.255", "192.0.0.1", "::7f00:1", "4000::1"]);
        check(Scope::Public, &["1.1.1.1", "172.15.0.1", "172.32.0.1", "100.128.0.1", "192.0.2.1", "2001:db8::1"]);
        check(Scope::Public, &["126.255.255.255", "128.0.0.0", "223.255.255.255", "169.253.0.1", "2002:101:101::1"]);
    }

    #[test]
    fn g16_both_families_have_subnets() {
        let check = |text: &str, subnet: &str| assert_eq!(Subnet::of(ip(text)).to_string(), subnet);
        check("192.0.2.77", "192.0.2.0/24");
        check("::ffff:192.0.2.77", "192.0.2.0/24");
        check("2001:db8:7:8:9::1", "2001:db8:7::/48");
        assert_eq!(Subnet::of(ip("192.0.2.1")), Subnet::of(ip("192.0.2.255")));
        assert_ne!(Subnet::of(ip("192.0.2.1")), Subnet::of(ip("192.0.3.1")));
        assert_eq!(Subnet::of(ip("2001:db8:7::1")), Subnet::of(ip("2001:db8:7:ffff::1")));
        assert_ne!(Subnet::of(ip("2001:db8:7::1")), Subnet::of(ip("2001:db8:8::1")));
        assert_eq!(Subnet::of_addr(&addr("/dns4/example.org/tcp/1")), None);
        assert_eq!(Subnet::of_addr(&addr("/ip4/192.0.2.1/tcp/1")), Some(Subnet::V4([192, 0, 2])));
    }

    #[test]
    fn hearsay_is_ip_and_tcp_of_a_scope_that_the_network_has() {
        let check = |text: &str, in_public: bool, in_local: bool| {
            assert_eq!(public().permits(&addr(text)), in_public, "{text}");
            assert_eq!(local().permits(&addr(text)), in_local, "{text}");
        };
        check("/ip4/192.0.2.1/tcp/4001", true, true);
        check("/ip6/2001:db8::1/tcp/4001", true, true);
        check("/ip4/127.0.0.1/tcp/4001", false, true);
        check("/ip6/::1/tcp/4001", false, true);
        check("/ip4/10.0.0.1/tcp/4001", false, true);
        check("/ip6/::ffff:10.0.0.1/tcp/4001", false, true);
        for text in [
            "/ip4/169.254.169.254/tcp/80",
            "/ip6/fe80::1/tcp/4001",
            "/ip4/224.0.0.1/tcp/4001",
            "/ip4/0.0.0.0/tcp/4001",
            "/ip4/255.255.255.255/tcp/4001",
            "/ip4/192.0.2.1/tcp/0",
            "/ip4/192.0.2.1/udp/4001",
            "/ip4/192.0.2.1/udp/4001/quic-v1",
            "/ip4/192.0.2.1/tcp/4001/ws",
            "/ip4/192.0.2.1",
            "/tcp/4001",
            "/dns4/example.org/tcp/4001",
            "/memory/1",
            "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWGC6TvWhfagifX6nnLLNGqWk9cNJ8gEHJcG8p5Kx9KzBK/p2p-circuit",
        ] {
            check(text, false, false);
        }
        assert!(!public().permits(&Multiaddr::empty()));
    }

    #[test]
    fn a_listed_private_range_is_believed() {
        let rule = Rule { is_local: false, private_ranges: vec!["10.20.0.0/16".parse().unwrap()] };
        assert!(rule.permits(&addr("/ip4/10.20.255.1/tcp/1")));
        assert!(rule.permits(&addr("/ip6/::ffff:10.20.0.1/tcp/1")));
        assert!(!rule.permits(&addr("/ip4/10.21.0.1/tcp/1")));
        assert!(!rule.permits(&addr("/ip4/127.0.0.1/tcp/1")));
    }

    #[test]
    fn a_range_is_read_as_it_is_written() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "fd00::/8", "::/0", "2001:db8::1/128"] {
            assert_eq!(text.parse::<Range>().unwrap().to_string(), text);
        }
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.1/8", "fd00::/129", "fd00::1/8", "x/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
        assert!("0.0.0.0/0".parse::<Range>().unwrap().contains(ip("255.1.2.3")));
        assert!(!"0.0.0.0/0".parse::<Range>().unwrap().contains(ip("2001:db8::1")));
    }

    #[test]
    fn hearsay_is_bare_of_one_peer_without_repetition_and_at_most_8() {
        let told: Vec<Multiaddr> = (0..20).map(|port| addr(&format!("/ip4/192.0.2.1/tcp/{}", 4000 + port))).collect();
        assert_eq!(hearsay(&peer(1), &told, &public()), told[..ADDRS_MAX]);
        let told = [with_peer(&told[0], peer(1)), told[0].clone(), with_peer(&told[1], peer(2))];
        assert_eq!(hearsay(&peer(1), &told, &public()), [addr("/ip4/192.0.2.1/tcp/4000")]);
    }

    #[test]
    fn a_peer_is_put_at_the_end_once() {
        let bare = addr("/ip4/192.0.2.1/tcp/4001");
        let full = with_peer(&bare, peer(1));
        assert_eq!(with_peer(&full, peer(1)), full);
        assert_eq!(split_peer(&full), (bare.clone(), Some(peer(1))));
        assert_eq!(split_peer(&bare), (bare.clone(), None));
        assert_eq!(split_peer(&with_peer(&full, peer(2))), (bare, Some(peer(2))));
    }

    #[test]
    fn a_seed_is_a_full_address() {
        let id = peer(1);
        for start in [
            "/ip4/192.0.2.1/tcp/4001",
            "/ip4/127.0.0.1/tcp/1",
            "/ip6/fd00::1/tcp/4001",
            "/dns4/seed.example.org/tcp/4001",
        ] {
            let text = format!("{start}/p2p/{id}");
            let seed: Seed = format!(" {text}\n").parse().unwrap();
            assert_eq!((seed.peer_id(), seed.addr()), (id, &addr(start)));
            assert_eq!((seed.to_string(), seed.full()), (text.clone(), addr(&text)));
        }
    }

    #[test]
    fn a_bad_seed_is_refused_in_clear_words() {
        let id = peer(1);
        let check = |text: &str, words: &str| {
            let error = text.parse::<Seed>().unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        };
        check("", "empty");
        check("  ", "empty");
        check("192.0.2.1:4001", "does not end in /p2p/");
        check("/ip4/192.0.2.1/tcp/4001", "does not end in /p2p/");
        check("/ip4/192.0.2.1/tcp/4001/p2p/", "peer id \"\" is none");
        check("/ip4/192.0.2.1/tcp/4001/p2p/12D3KooX", "peer id \"12D3KooX\" is none");
        check(&format!("/ip4/192.0.2.1/tcp/4001/p2p/{id}/p2p-circuit"), "is none");
        check(&format!("/ip4/192.0.2.300/tcp/4001/p2p/{id}"), "which is no address");
        check(&format!("/ip4/192.0.2.1/tcp/70000/p2p/{id}"), "which is no address");
        check(&format!("192.0.2.1/tcp/4001/p2p/{id}"), "which is no address");
        check(&format!("/ip4/192.0.2.1/udp/4001/quic-v1/p2p/{id}"), "expected /ip4, /ip6, /dns");
        check(&format!("/ip4/192.0.2.1/tcp/0/p2p/{id}"), "expected /ip4, /ip6, /dns");
        check(&format!("/ip4/192.0.2.1/p2p/{id}"), "expected /ip4, /ip6, /dns");
        check(&format!("/p2p/{id}"), "expected /ip4, /ip6, /dns");
        check(&format!("/ip4/0.0.0.0/tcp/4001/p2p/{id}"), "nobody's (Unspecified)");
        check(&format!("/ip4/224.0.0.1/tcp/4001/p2p/{id}"), "nobody's (Multicast)");
    }

    proptest! {
        #[test]
        fn a_mapped_address_leads_where_the_plain_one_leads(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            let mapped = IpAddr::V6(v4.to_ipv6_mapped());
            prop_assert_eq!(scope_of(mapped), scope_of(v4.into()));
            prop_assert_eq!(Subnet::of(mapped), Subnet::of(v4.into()));
        }

        #[test]
        fn what_the_standard_library_calls_local_is_not_public(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            let local = v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_unspecified();
            prop_assert!(!(local && scope_of(v4.into()) == Scope::Public), "{}", v4);
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in any::<String>()) {
            let _ = text.parse::<Seed>();
            let _ = text.parse::<Range>();
        }
    }
}
