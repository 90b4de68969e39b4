//! The doors: how many connections may knock, from one address, in one second, from one peer, and in all.
//!
//! [`Ledger`] is the bookkeeping, without a clock or a socket; [`Doors`] is the thin behaviour around it. What is denied
//! here is closed without a word and counted by its cause. Pending inbound connections end with the transport's handshake
//! deadline, so half-open ones free their place by themselves.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, DialFailure, FromSwarm, ListenFailure, NetworkBehaviour,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished, dummy,
    },
};
use protocol::time::Mono;
use serde::{Deserialize, Serialize};

/// Addresses whose recent knocks are remembered; a knock from a further one is denied until the next sweep.
///
/// Four times the half-open connections there may be: an address without one is remembered for a second at most.
pub const ADDRESSES_MAX: usize = 16_384;

/// Addresses of admitted peers that are remembered; a further one stays under the ordinary cap.
pub const TRUSTED_MAX: usize = 16_384;

/// An address stays exempt for this long after its last admitted connection closed, so that peers may come back together.
pub const TRUST_KEPT: Duration = Duration::from_secs(600);

/// Connections per second are counted over this long, which is also how long a table is left unswept.
const WINDOW: Duration = Duration::from_secs(1);

/// How many connections there may be. The defaults are those of a public network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Inbound connections of one address that have not finished their handshake.
    pub half_open_per_address: u32,
    /// The same for all addresses together. A small figure here lets a few idle sockets lock everybody out.
    pub half_open_max: usize,
    /// New inbound connections of one address per second, as a bucket of one second's worth.
    pub new_per_second_and_address: u32,
    /// Established connections of one peer: one each way when both dialled at once.
    pub established_per_peer: usize,
    /// Established connections in all.
    pub established_max: usize,
    /// Of these, places that only our own dials may take, so that visitors cannot cut us off from our pool.
    pub established_outbound_reserve: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            half_open_per_address: 16,
            half_open_max: 4_096,
            new_per_second_and_address: 20,
            established_per_peer: 2,
            established_max: 16_384,
            established_outbound_reserve: 64,
        }
    }
}

/// Why a connection was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denial {
    /// The address has as many unfinished handshakes as it may.
    #[error("too many half-open connections from this address")]
    HalfOpenOfAddress,
    /// All addresses together have.
    #[error("too many half-open connections")]
    HalfOpen,
    /// The address connects too often.
    #[error("too many new connections from this address in a second")]
    Rate,
    /// More addresses knocked in a second than are remembered.
    #[error("too many addresses knock at once")]
    Crowded,
    /// The peer has as many connections as it may.
    #[error("too many connections with this peer")]
    Peer,
    /// There are as many connections as there may be.
    #[error("too many connections")]
    Established,
}

impl Denial {
    /// Every cause, in the order in which they are checked.
    pub const ALL: [Self; 6] =
        [Self::HalfOpen, Self::HalfOpenOfAddress, Self::Crowded, Self::Rate, Self::Established, Self::Peer];
}

/// What the doors denied since they were built, by cause; readable from anywhere.
#[derive(Debug, Default)]
pub struct Denials([AtomicU64; Denial::ALL.len()]);

impl Denials {
    /// Connections denied for this cause.
    #[must_use]
    pub fn of(&self, cause: Denial) -> u64 {
        self.0[cause as usize].load(Relaxed)
    }

    fn count(&self, cause: Denial) {
        self.0[cause as usize].fetch_add(1, Relaxed);
    }
}

/// Where a connection comes from, as far as limits go: an IPv4 address, or the /64 that one IPv6 host has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// One address.
    V4(Ipv4Addr),
    /// The first 64 bits of one.
    V6(u64),
}

impl Origin {
    /// The origin of a remote address; nothing when it does not begin with an IP address.
    #[must_use]
    pub fn of(addr: &Multiaddr) -> Option<Self> {
        match addr.iter().next()? {
            Protocol::Ip4(ip) => Some(IpAddr::from(ip).into()),
            Protocol::Ip6(ip) => Some(IpAddr::from(ip).into()),
            _ => None,
        }
    }
}

impl From<IpAddr> for Origin {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => Self::V6(prefix(ip)),
        }
    }
}

const fn prefix(ip: Ipv6Addr) -> u64 {
    (ip.to_bits() >> 64) as u64
}

#[derive(Debug, Default)]
struct Knocks {
    half_open: u32,
    /// When its bucket is full again; the further ahead, the emptier it is.
    full_at: Mono,
}

#[derive(Debug)]
struct Trust {
    connections: usize,
    until: Mono,
}

#[derive(Debug)]
struct Guest {
    peer: PeerId,
    origin: Option<Origin>,
    inbound: bool,
    admitted: bool,
}

/// The bookkeeping of the doors: pure, told the time, bounded in every table.
#[derive(Debug)]
pub struct Ledger {
    settings: Settings,
    half_open: HashMap<ConnectionId, Option<Origin>>,
    knocks: HashMap<Origin, Knocks>,
    knocks_swept: Mono,
    trusted: HashMap<Origin, Trust>,
    trusted_swept: Mono,
    guests: HashMap<ConnectionId, Guest>,
    inbound: usize,
    /// At most `established_per_peer` each.
    peers: HashMap<PeerId, Vec<ConnectionId>>,
}

impl Ledger {
    /// An empty house.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            half_open: HashMap::new(),
            knocks: HashMap::new(),
            knocks_swept: Mono::ZERO,
            trusted: HashMap::new(),
            trusted_swept: Mono::ZERO,
            guests: HashMap::new(),
            inbound: 0,
            peers: HashMap::new(),
        }
    }

    /// A connection came in; it is half-open from now on when it is let through.
    ///
    /// # Errors
    /// The limit that it is past; then nothing is remembered of it.
    pub fn knock(&mut self, id: ConnectionId, origin: Option<Origin>, now: Mono) -> Result<(), Denial> {
        if self.half_open.len() >= self.settings.half_open_max {
            return Err(Denial::HalfOpen);
        }
        if let Some(origin) = origin {
            self.knock_from(origin, now)?;
        }
        self.half_open.insert(id, origin);
        Ok(())
    }

    fn knock_from(&mut self, origin: Origin, now: Mono) -> Result<(), Denial> {
        let trusted = self.is_trusted(origin, now);
        if !self.knocks.contains_key(&origin) && self.knocks.len() >= ADDRESSES_MAX {
            self.sweep_knocks(now)?;
        }
        let knocks = self.knocks.entry(origin).or_default();
        if knocks.half_open >= self.settings.half_open_per_address {
            return Err(Denial::HalfOpenOfAddress);
        }
        if !trusted {
            let full_at = knocks.full_at.max(now) + WINDOW / self.settings.new_per_second_and_address.max(1);
            if full_at.since(now) > WINDOW {
                return Err(Denial::Rate);
            }
            knocks.full_at = full_at;
        }
        knocks.half_open += 1;
        Ok(())
    }

    fn is_trusted(&self, origin: Origin, now: Mono) -> bool {
        self.trusted.get(&origin).is_some_and(|trust| trust.connections > 0 || now < trust.until)
    }

    /// Forgets addresses with nothing half-open and a full bucket, at most once per window: each sweep walks the table.
    fn sweep_knocks(&mut self, now: Mono) -> Result<(), Denial> {
        if now.since(self.knocks_swept) >= WINDOW {
            self.knocks_swept = now;
            self.knocks.retain(|_, knocks| knocks.half_open > 0 || knocks.full_at > now);
        }
        if self.knocks.len() < ADDRESSES_MAX { Ok(()) } else { Err(Denial::Crowded) }
    }

    /// The connection finished its handshake as `peer`: whether it may stay. It is half-open no more.
    ///
    /// # Errors
    /// The limit that it is past.
    pub fn enter(&mut self, id: ConnectionId, peer: &PeerId, inbound: bool) -> Result<(), Denial> {
        self.end_half_open(id);
        let reserve = if inbound { self.settings.established_outbound_reserve } else { 0 };
        if self.guests.len() >= self.settings.established_max.saturating_sub(reserve) {
            return Err(Denial::Established);
        }
        if self.peers.get(peer).is_some_and(|ids| ids.len() >= self.settings.established_per_peer) {
            return Err(Denial::Peer);
        }
        Ok(())
    }

    /// The connection is established: nobody else had an objection.
    pub fn entered(&mut self, id: ConnectionId, peer: PeerId, origin: Option<Origin>, inbound: bool) {
        self.guests.insert(id, Guest { peer, origin, inbound, admitted: false });
        self.inbound += usize::from(inbound);
        self.peers.entry(peer).or_default().push(id);
    }

    /// The peer said hello and was accepted: the addresses of its connections are exempt from the cap per second.
    pub fn admitted(&mut self, peer: &PeerId, now: Mono) {
        let ids = self.peers.get(peer).map(Vec::as_slice).unwrap_or_default();
        for id in ids {
            let Some(guest) = self.guests.get_mut(id) else { continue };
            let Some(origin) = guest.origin else { continue };
            if guest.admitted {
                continue;
            }
            let full = self.trusted.len() >= TRUSTED_MAX && !self.trusted.contains_key(&origin);
            if full && now.since(self.trusted_swept) >= WINDOW {
                self.trusted_swept = now;
                self.trusted.retain(|_, trust| trust.connections > 0 || now < trust.until);
            }
            if full && self.trusted.len() >= TRUSTED_MAX {
                continue;
            }
            guest.admitted = true;
            self.trusted.entry(origin).or_insert(Trust { connections: 0, until: now }).connections += 1;
        }
    }

    /// The connection is no more, at whatever stage it was.
    pub fn gone(&mut self, id: ConnectionId, now: Mono) {
        self.end_half_open(id);
        let Some(guest) = self.guests.remove(&id) else { return };
        self.inbound -= usize::from(guest.inbound);
        if let Some(ids) = self.peers.get_mut(&guest.peer) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.peers.remove(&guest.peer);
            }
        }
        let trust = guest.origin.filter(|_| guest.admitted).and_then(|origin| self.trusted.get_mut(&origin));
        if let Some(trust) = trust {
            trust.connections -= 1;
            trust.until = now + TRUST_KEPT;
        }
    }

    fn end_half_open(&mut self, id: ConnectionId) {
        let Some(Some(origin)) = self.half_open.remove(&id) else { return };
        if let Some(knocks) = self.knocks.get_mut(&origin) {
            knocks.half_open -= 1;
        }
    }

    /// Inbound connections that have not finished their handshake.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// Established connections that came in.
    #[must_use]
    pub const fn inbound(&self) -> usize {
        self.inbound
    }

    /// Established connections that we dialled.
    #[must_use]
    pub fn outbound(&self) -> usize {
        self.guests.len() - self.inbound
    }

    /// Peers with an established connection.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.peers.len()
    }
}

/// The doors as a behaviour. It goes first in the composition, so that nothing else is asked about what it denies.
pub struct Doors {
    ledger: Ledger,
    denials: Arc<Denials>,
    clock: Box<dyn Fn() -> Mono + Send>,
}

impl Doors {
    /// Doors with these limits, which read the time from `clock`.
    #[must_use]
    pub fn new(settings: Settings, clock: impl Fn() -> Mono + Send + 'static) -> Self {
        Self { ledger: Ledger::new(settings), denials: Arc::default(), clock: Box::new(clock) }
    }

    /// The peer said hello and was accepted: the addresses of its connections are exempt from the cap per second.
    pub fn admitted(&mut self, peer: &PeerId) {
        self.ledger.admitted(peer, (self.clock)());
    }

    /// What was denied, by cause.
    #[must_use]
    pub fn denials(&self) -> Arc<Denials> {
        Arc::clone(&self.denials)
    }

    /// How many are where.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn judge(&self, verdict: Result<(), Denial>) -> Result<(), ConnectionDenied> {
        verdict.map_err(|cause| {
            self.denials.count(cause);
            ConnectionDenied::new(cause)
        })
    }
}

impl NetworkBehaviour for Doors {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let verdict = self.ledger.knock(id, Origin::of(remote), (self.clock)());
        self.judge(verdict)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let verdict = self.ledger.enter(id, &peer, true);
        self.judge(verdict).map(|()| dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let verdict = self.ledger.enter(id, &peer, false);
        self.judge(verdict).map(|()| dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                let (remote, inbound) = match endpoint {
                    ConnectedPoint::Listener { send_back_addr, .. } => (send_back_addr, true),
                    ConnectedPoint::Dialer { address, .. } => (address, false),
                };
                self.ledger.entered(connection_id, peer_id, Origin::of(remote), inbound);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. })
            | FromSwarm::DialFailure(DialFailure { connection_id, .. }) => {
                self.ledger.gone(connection_id, (self.clock)());
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn from(last: u8) -> Option<Origin> {
        Some(IpAddr::from([192, 0, 2, last]).into())
    }

    fn small() -> Settings {
        Settings {
            half_open_per_address: 3,
            half_open_max: 5,
            new_per_second_and_address: 4,
            established_per_peer: 2,
            established_max: 4,
            established_outbound_reserve: 1,
        }
    }

    #[test]
    fn an_address_has_so_many_half_open_connections_and_not_one_more() {
        let mut ledger = Ledger::new(small());
        for number in 0..3 {
            assert_eq!(ledger.knock(id(number), from(1), Mono::ZERO), Ok(()));
        }
        assert_eq!(ledger.knock(id(3), from(1), Mono::ZERO), Err(Denial::HalfOpenOfAddress));
        assert_eq!(ledger.knock(id(4), from(2), Mono::ZERO), Ok(()), "another address is not hurt");
        ledger.gone(id(0), Mono::ZERO);
        assert_eq!(ledger.knock(id(5), from(1), Mono::ZERO), Ok(()));
    }

    #[test]
    fn all_addresses_together_have_so_many_half_open_connections_and_not_one_more() {
        let mut ledger = Ledger::new(small());
        for number in 0..5 {
            assert_eq!(ledger.knock(id(number), from(number as u8), Mono::ZERO), Ok(()));
        }
        assert_eq!(ledger.knock(id(5), from(9), Mono::ZERO), Err(Denial::HalfOpen));
        assert_eq!(ledger.enter(id(0), &PeerId::random(), true), Ok(()));
        assert_eq!(ledger.knock(id(6), from(9), Mono::ZERO), Ok(()), "a finished handshake frees its place");
    }

    #[test]
    fn an_address_may_connect_so_often_in_a_second_and_not_once_more() {
        let mut ledger = Ledger::new(small());
        let mut knock = |number, at| {
            let verdict = ledger.knock(id(number), from(1), Mono::from_millis(at));
            ledger.gone(id(number), Mono::from_millis(at));
            verdict
        };
        for number in 0..4 {
            assert_eq!(knock(number, 10_000), Ok(()));
        }
        assert_eq!(knock(4, 10_000), Err(Denial::Rate));
        assert_eq!(knock(5, 10_249), Err(Denial::Rate), "a denied one costs nothing, but the bucket is still empty");
        assert_eq!(knock(6, 10_250), Ok(()));
        assert_eq!(knock(7, 10_250), Err(Denial::Rate));
    }

    #[test]
    fn a_peer_has_two_connections_and_not_a_third() {
        let mut ledger = Ledger::new(small());
        let peer = PeerId::random();
        for number in 0..2 {
            assert_eq!(ledger.enter(id(number), &peer, true), Ok(()));
            ledger.entered(id(number), peer, from(1), true);
        }
        assert_eq!(ledger.enter(id(2), &peer, true), Err(Denial::Peer));
        assert_eq!(ledger.enter(id(3), &PeerId::random(), true), Ok(()));
        ledger.gone(id(0), Mono::ZERO);
        assert_eq!(ledger.enter(id(4), &peer, false), Ok(()));
    }

    #[test]
    fn visitors_leave_places_for_our_own_dials_and_these_end_at_the_total() {
        let mut ledger = Ledger::new(small());
        for number in 0..3 {
            let peer = PeerId::random();
            assert_eq!(ledger.enter(id(number), &peer, true), Ok(()));
            ledger.entered(id(number), peer, None, true);
        }
        let peer = PeerId::random();
        assert_eq!(ledger.enter(id(3), &peer, true), Err(Denial::Established));
        assert_eq!(ledger.enter(id(4), &peer, false), Ok(()));
        ledger.entered(id(4), peer, None, false);
        assert_eq!(ledger.enter(id(5), &PeerId::random(), false), Err(Denial::Established));
        assert_eq!((ledger.inbound(), ledger.outbound()), (3, 1));
    }

    #[test]
    fn the_address_of_an_admitted_peer_is_exempt_from_the_rate_and_from_nothing_else() {
        let mut ledger = Ledger::new(small());
        let peer = PeerId::random();
        ledger.entered(id(0), peer, from(1), true);
        ledger.admitted(&peer, Mono::ZERO);
        ledger.admitted(&peer, Mono::ZERO);
        for number in 1..100 {
            assert_eq!(ledger.knock(id(number), from(1), Mono::ZERO), Ok(()));
            ledger.gone(id(number), Mono::ZERO);
        }
        for number in 100..103 {
            assert_eq!(ledger.knock(id(number), from(1), Mono::ZERO), Ok(()));
        }
        assert_eq!(ledger.knock(id(103), from(1), Mono::ZERO), Err(Denial::HalfOpenOfAddress));
        for number in 100..103 {
            ledger.gone(id(number), Mono::ZERO);
        }

        ledger.gone(id(0), Mono::ZERO);
        let last = Mono::ZERO + TRUST_KEPT;
        let mut in_one_second = |from_number, at| {
            (from_number..from_number + 50)
                .filter(|number| {
                    let verdict = ledger.knock(id(*number), from(1), at);
                    ledger.gone(id(*number), at);
                    verdict.is_ok()
                })
                .count()
        };
        assert_eq!(in_one_second(200, Mono::from_millis(599_999)), 50);
        assert_eq!(in_one_second(300, last), 4, "the trust has run out");
    }

    #[test]
    fn more_addresses_than_are_remembered_are_denied_until_a_sweep_makes_room() {
        let mut ledger = Ledger::new(Settings { half_open_max: usize::MAX, ..Settings::default() });
        let address = |number: usize| Some(Origin::V6(number as u64));
        let start = Mono::from_secs(10);
        for number in 0..ADDRESSES_MAX {
            assert_eq!(ledger.knock(id(number), address(number), start), Ok(()));
            ledger.gone(id(number), start);
        }
        assert_eq!(ledger.knock(id(0), address(ADDRESSES_MAX), start), Err(Denial::Crowded));
        assert_eq!(ledger.knock(id(0), address(7), start), Ok(()), "a known address is still served");
        assert_eq!(ledger.knock(id(1), address(ADDRESSES_MAX), start + WINDOW), Ok(()));
        assert_eq!(ledger.knocks.len(), 2, "the one half-open and the new one");
    }

    #[test]
    fn one_ipv6_host_is_one_origin_and_a_mapped_address_is_its_ipv4() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap());
        assert_eq!(origin("/ip6/2001:db8::1/tcp/1"), origin("/ip6/2001:db8::ffff:2/tcp/2"));
        assert_ne!(origin("/ip6/2001:db8::1/tcp/1"), origin("/ip6/2001:db8:0:1::1/tcp/1"));
        assert_eq!(origin("/ip6/::ffff:192.0.2.1/tcp/1"), origin("/ip4/192.0.2.1/tcp/1"));
        assert_eq!(origin("/dns4/example.org/tcp/1"), None);
    }

    proptest! {
        #[test]
        fn whatever_happens_the_counts_are_right_and_nothing_stays_after_the_last_one_left(
            steps in proptest::collection::vec((0_u8..4, 0_usize..8, 0_u8..3), 1..200),
        ) {
            let mut ledger = Ledger::new(small());
            let peers = [PeerId::random(), PeerId::random(), PeerId::random()];
            for (at, (step, number, which)) in steps.into_iter().enumerate() {
                // A connection has one life: its id returns only after it is gone.
                let (number, now) = (id(number), Mono::from_millis(at as u64 * 100));
                let peer = peers[usize::from(which)];
                let is_guest = ledger.guests.contains_key(&number);
                match step {
                    0 if !is_guest && !ledger.half_open.contains_key(&number) => drop(ledger.knock(number, from(which), now)),
                    1 if !is_guest && ledger.enter(number, &peer, true).is_ok() => ledger.entered(number, peer, from(which), true),
                    2 => ledger.admitted(&peer, now),
                    _ => ledger.gone(number, now),
                }
                prop_assert!(ledger.half_open() <= 5);
                prop_assert!(ledger.guests.len() <= 3 && ledger.inbound() == ledger.guests.len());
                prop_assert_eq!(ledger.peers.values().map(Vec::len).sum::<usize>(), ledger.guests.len());
            }
            for number in 0..8 {
                ledger.gone(id(number), Mono::from_secs(100));
            }
            prop_assert_eq!((ledger.half_open(), ledger.guests.len(), ledger.peers(), ledger.inbound()), (0, 0, 0, 0));
            prop_assert!(ledger.knocks.values().all(|knocks| knocks.half_open == 0));
            prop_assert!(ledger.trusted.values().all(|trust| trust.connections == 0));
        }
    }
}
