//! Which connections there are; opening, admitting and closing them.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, DialFailure, FromSwarm, ListenFailure,
        NetworkBehaviour, THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};
use protocol::{event::Verb, wire::Protocol};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    Counters, Handler, Io,
    handler::{Desk, House},
    link::{Link, Opening, Room, Slots},
};

/// Inbound streams that one peer may have open per protocol (page "promises").
const PER_PEER_MAX: usize = 8;

/// One hello per connection, two connections per peer.
const HELLOS_PER_PEER_MAX: usize = 2;

/// Long-lived streams that all peers together may have open per protocol: one per session and some that replace others.
const LONG_LIVED_MAX: usize = 16_384;

/// Short streams that all peers together may have open per protocol.
const SHORT_LIVED_MAX: usize = 2_048;

/// Bandwidth probes that are served at once: together they hold 4 MiB.
const BANDWIDTH_PROBES_MAX: usize = 64;

/// Streams of one kind of event, all peers together. Each may hold a value of 1 MiB, so this is what bounds the memory
/// that events take; partners whose stream finds no room come again.
const EVENTS_MAX: usize = 16;

/// The same of one peer: one is what an honest partner has, and another may not have ended yet.
const EVENTS_PER_PEER_MAX: usize = 2;

/// Questions about resources and answers to ours: those of fifty organisations come at once.
const ANSWERS_MAX: usize = 64;

/// Planner sessions of others; they stay open, and seldom hold a value.
const PLANNERS_MAX: usize = 128;

/// Those of one peer: one, and another that is ending.
const BANDWIDTH_PER_PEER_MAX: usize = 2;

/// How many streams we may open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Streams that we have open or are opening on one connection; the connection carries 160 of all kinds.
    pub outbound_per_connection: usize,
    /// Streams that are being opened on all connections.
    pub opening_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { outbound_per_connection: 32, opening_max: 4_096 }
    }
}

/// A protocol that peers may open, and where its streams go.
#[derive(Clone, Debug)]
pub struct Accept {
    /// Which.
    pub protocol: Protocol,
    /// Streams that one peer may have open at once, over all of its connections.
    pub per_peer_max: usize,
    /// Streams that all peers together may have open at once; each protocol has its own, so that none starves another.
    pub all_max: usize,
    /// Bounded; a stream that finds it full is refused with "busy".
    pub to: mpsc::Sender<Inbound>,
}

impl Accept {
    /// The protocol with the limits that are usual for it.
    #[must_use]
    pub const fn new(protocol: Protocol, to: mpsc::Sender<Inbound>) -> Self {
        let (per_peer_max, all_max) = match protocol {
            Protocol::Hello => (HELLOS_PER_PEER_MAX, SHORT_LIVED_MAX),
            Protocol::Heartbeat => (PER_PEER_MAX, LONG_LIVED_MAX),
            Protocol::Bandwidth => (BANDWIDTH_PER_PEER_MAX, BANDWIDTH_PROBES_MAX),
            Protocol::Event(Verb::Search) => (PER_PEER_MAX, ANSWERS_MAX),
            Protocol::Event(Verb::Planner) => (EVENTS_PER_PEER_MAX, PLANNERS_MAX),
            Protocol::Event(_) => (EVENTS_PER_PEER_MAX, EVENTS_MAX),
            _ => (PER_PEER_MAX, SHORT_LIVED_MAX),
        };
        Self { protocol, per_peer_max, all_max, to }
    }
}

/// A stream that a peer opened, with its permits inside.
#[derive(Debug)]
pub struct Inbound {
    /// Who, proved by the connection.
    pub peer: PeerId,
    /// On which connection.
    pub connection: ConnectionId,
    /// Its address as this connection sees it.
    pub remote_addr: Multiaddr,
    /// What was agreed on.
    pub protocol: Protocol,
    /// The stream; dropped, it is reset and its permits return.
    pub stream: Io,
}

/// Why a stream could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum OpenError {
    /// There is no such connection, or none with that peer.
    #[error("not connected")]
    NotConnected,
    /// Hello has not been said on it.
    #[error("hello has not been said on this connection")]
    NotAdmitted,
    /// The peer does not know the protocol.
    #[error("the peer does not support this protocol")]
    Unsupported,
    /// As many streams are open or being opened as may be.
    #[error("too many streams are open or being opened")]
    Busy,
    /// The peer did not agree in time.
    #[error("the peer did not answer in time")]
    Timeout,
    /// The stream or its connection ended.
    #[error("the connection was reset")]
    Reset,
}

impl OpenError {
    /// Every error.
    pub const ALL: [Self; 6] =
        [Self::NotConnected, Self::NotAdmitted, Self::Unsupported, Self::Busy, Self::Timeout, Self::Reset];
}

/// An order to open a stream. It never dials.
#[derive(Debug)]
pub struct Open {
    /// To whom.
    pub peer: PeerId,
    /// On this connection; without one, on the newest that was admitted (for a hello: on the newest).
    pub connection: Option<ConnectionId>,
    /// For what.
    pub protocol: Protocol,
    /// How long it may take until the peer has agreed to the protocol.
    pub within: Duration,
    /// Gets exactly one answer, also when the connection or the behaviour goes.
    pub reply: oneshot::Sender<Result<Io, OpenError>>,
}

#[derive(Debug, Default)]
struct Peer {
    room: Arc<Room>,
    /// As many as the doors let in.
    links: Vec<Arc<Link>>,
}

/// The behaviour.
pub struct Streams {
    house: Arc<House>,
    settings: Settings,
    opening: Arc<Slots>,
    peers: HashMap<PeerId, Peer>,
    connections: HashMap<ConnectionId, PeerId>,
    /// At most one per connection and call; emptied at the next poll.
    closing: VecDeque<(PeerId, ConnectionId)>,
    waker: Option<Waker>,
}

impl Streams {
    /// A behaviour that accepts these protocols and no others. Of two entries for one protocol the last counts.
    #[must_use]
    pub fn new(settings: Settings, accepts: impl IntoIterator<Item = Accept>) -> Self {
        let desks = accepts.into_iter().map(Desk::new).collect();
        Self {
            house: Arc::new(House::new(desks)),
            opening: Slots::new(settings.opening_max),
            settings,
            peers: HashMap::new(),
            connections: HashMap::new(),
            closing: VecDeque::new(),
            waker: None,
        }
    }

    /// Opens a stream; the answer goes to `order.reply`.
    pub fn open(&self, order: Open) {
        let Open { peer, connection, protocol, within, reply } = order;
        let taken = self.find(&peer, connection, protocol).and_then(|link| {
            let of_connection = link.outbound.take().ok_or(OpenError::Busy)?;
            let of_all = self.opening.take().ok_or(OpenError::Busy)?;
            Ok((link, (of_connection, of_all)))
        });
        match taken {
            Err(error) => {
                Counters::count(&self.house.counters.failed[error as usize]);
                // An asker that has gone away needs no answer.
                drop(reply.send(Err(error)));
            }
            Ok((link, slots)) => {
                if protocol == Protocol::Hello {
                    link.says_hello();
                }
                let counters = Arc::clone(&self.house.counters);
                link.order(Opening::new(protocol, Instant::now() + within, reply, slots, counters));
            }
        }
    }

    fn find(
        &self,
        peer: &PeerId,
        connection: Option<ConnectionId>,
        protocol: Protocol,
    ) -> Result<&Arc<Link>, OpenError> {
        let links = self.peers.get(peer).map(|peer| peer.links.as_slice()).unwrap_or_default();
        // The newest first: a peer that came back after a silent break has an old connection that nobody has buried yet.
        let mut fitting =
            links.iter().rev().filter(|link| connection.is_none_or(|id| id == link.connection)).peekable();
        fitting.peek().ok_or(OpenError::NotConnected)?;
        fitting.find(|link| protocol == Protocol::Hello || link.is_admitted()).ok_or(OpenError::NotAdmitted)
    }

    /// Hello succeeded on the connection: its streams are served from now on. False when there is no such connection.
    ///
    /// It holds from this call on, before the swarm is polled again.
    pub fn admit(&self, connection: ConnectionId) -> bool {
        let link = self.link(connection);
        link.inspect(|link| link.admit()).is_some()
    }

    /// Whether hello succeeded on the connection.
    #[must_use]
    pub fn is_admitted(&self, connection: ConnectionId) -> bool {
        self.link(connection).is_some_and(|link| link.is_admitted())
    }

    /// Closes the connection and all streams on it. Nothing happens when there is no such connection.
    pub fn close(&mut self, connection: ConnectionId) {
        let Some(peer) = self.connections.get(&connection) else { return };
        if !self.closing.contains(&(*peer, connection)) {
            self.closing.push_back((*peer, connection));
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.house.counters)
    }

    /// Connections that are known here.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Peers that are known here.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Inbound streams of the protocol that are open.
    #[must_use]
    pub fn inbound(&self, protocol: Protocol) -> usize {
        self.house.desk(protocol).map_or(0, |desk| desk.open())
    }

    /// Outbound streams that are open or being opened.
    #[must_use]
    pub fn outbound(&self) -> usize {
        self.peers.values().flat_map(|peer| &peer.links).map(|link| link.outbound.used()).sum()
    }

    fn link(&self, connection: ConnectionId) -> Option<&Arc<Link>> {
        let peer = self.peers.get(self.connections.get(&connection)?)?;
        peer.links.iter().find(|link| link.connection == connection)
    }

    fn enter(&mut self, id: ConnectionId, peer: PeerId, remote: &Multiaddr) -> Handler {
        let link = Arc::new(Link::new(peer, id, remote.clone(), self.settings.outbound_per_connection));
        self.connections.insert(id, peer);
        let known = self.peers.entry(peer).or_default();
        known.links.push(Arc::clone(&link));
        Handler::new(link, Arc::clone(&self.house), Arc::clone(&known.room))
    }

    fn forget(&mut self, id: ConnectionId) {
        let Some(peer) = self.connections.remove(&id) else { return };
        self.closing.retain(|(_, closing)| *closing != id);
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.links.retain(|link| link.connection != id);
        if known.links.is_empty() {
            self.peers.remove(&peer);
        }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.enter(id, peer, remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.enter(id, peer, remote))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            // The failures are those of connections that another behaviour denied after we had made a handler.
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. })
            | FromSwarm::DialFailure(DialFailure { connection_id, .. }) => self.forget(connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        if let Some((peer_id, id)) = self.closing.pop_front() {
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use libp2p::core::ConnectedPoint;

    use super::*;

    #[tokio::test]
    async fn of_ten_thousand_connections_nothing_is_kept_and_every_order_is_answered() {
        let (to, _inbound) = mpsc::channel(1);
        let mut streams = Streams::new(Settings::default(), [Accept::new(Protocol::Get, to)]);
        let addr: Multiaddr = "/ip4/192.0.2.1/tcp/4001".parse().unwrap();
        let endpoint = ConnectedPoint::Listener { local_addr: addr.clone(), send_back_addr: addr.clone() };
        for number in 0..10_000 {
            let (id, peer_id) = (ConnectionId::new_unchecked(number), PeerId::random());
            let handler = streams.handle_established_inbound_connection(id, peer_id, &addr, &addr).unwrap();
            assert!(streams.admit(id));
            let (reply, mut answer) = oneshot::channel();
            let within = Duration::from_secs(1);
            streams.open(Open { peer: peer_id, connection: None, protocol: Protocol::Get, within, reply });
            assert_eq!((streams.connections(), streams.peers(), streams.outbound()), (1, 1, 1));
            streams.close(id);
            streams.close(id);
            drop(handler);
            assert_eq!(answer.try_recv().unwrap().unwrap_err(), OpenError::Reset);
            streams.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id: id,
                endpoint: &endpoint,
                cause: None,
                remaining_established: 0,
            }));
            assert!(!streams.admit(id));
        }
        assert_eq!((streams.connections(), streams.peers(), streams.closing.len()), (0, 0, 0));
        assert_eq!((streams.opening.used(), streams.inbound(Protocol::Get)), (0, 0));
        assert_eq!(streams.counters().failed(OpenError::Reset), 10_000);
    }

    #[tokio::test]
    async fn so_many_streams_are_being_opened_on_all_connections_and_the_next_is_busy() {
        let settings = Settings { outbound_per_connection: 2, opening_max: 3 };
        let mut streams = Streams::new(settings, []);
        let addr: Multiaddr = "/ip4/192.0.2.1/tcp/4001".parse().unwrap();
        let mut handlers = Vec::new();
        let peers: Vec<_> = (0..2).map(|_| PeerId::random()).collect();
        for (number, peer) in peers.iter().enumerate() {
            let id = ConnectionId::new_unchecked(number);
            handlers.push(streams.handle_established_inbound_connection(id, *peer, &addr, &addr).unwrap());
            streams.admit(id);
        }
        let order = |peer: usize| {
            let (reply, mut answer) = oneshot::channel();
            let within = Duration::from_secs(1);
            streams.open(Open { peer: peers[peer], connection: None, protocol: Protocol::Get, within, reply });
            answer.try_recv().map(|answer| answer.unwrap_err()).ok()
        };
        assert_eq!([order(0), order(0), order(0)], [None, None, Some(OpenError::Busy)], "of one connection");
        assert_eq!([order(1), order(1)], [None, Some(OpenError::Busy)], "of all");
    }
}
