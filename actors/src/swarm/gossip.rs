//! Gossip as this network has it: GossipSub behind hello, with a mesh among indexers only.
//!
//! Three things are not GossipSub's own. What a peer says before its hello is held back, so that nobody is sent anything or
//! taken into the mesh who did not yet say what it is. Whoever is no indexer is a *direct* peer: it is sent what is new, and
//! is never in the mesh, which would have room for a dozen of an indexer's nodes and none for other indexers. Two nodes have
//! no gossip for each other: each hears everything from its indexers, and every further copy of a word costs its hearer
//! another verification. And on a node gossip keeps no connection open: its streams do not count for keep-alive, so that
//! only what the node asks for does. Bounds: `HELD_BACK_MAX` events of each peer that said no hello, all else GossipSub's own.

use std::{
    collections::{HashMap, VecDeque},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Stream,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    },
    gossipsub,
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, InboundUpgradeSend,
            ListenUpgradeError, OutboundUpgradeSend, UpgradeInfoSend,
        },
    },
};

/// What a peer said by gossip and that waits for its hello. An honest one says its version, its topics and with whom it would
/// share a mesh, and has little else to say in the three seconds that it has.
const HELD_BACK_MAX: usize = 16;

/// GossipSub with our topics only.
pub(super) type Inner = gossipsub::Behaviour<gossipsub::IdentityTransform, gossipsub::WhitelistSubscriptionFilter>;

/// GossipSub's handler, which has no name outside of it.
type InnerHandler = THandler<Inner>;

type Said = <InnerHandler as ConnectionHandler>::ToBehaviour;

/// What a peer is to gossip.
enum Standing {
    /// It said no hello yet; what it said instead, oldest first.
    Stranger(VecDeque<(ConnectionId, Said)>),
    /// It said hello.
    Greeted,
    /// It said hello, and neither hears from the other by gossip.
    LeftOut,
}

/// What is said by gossip to a peer that said hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It may share the mesh: both pass on what they hear.
    Mesh,
    /// It is sent what is new, and passes nothing on to us.
    Direct,
    /// Nothing.
    None,
}

impl Part {
    /// Between two members, each of which is an indexer or not.
    pub(super) const fn between(is_own_indexer: bool, is_their_indexer: bool) -> Self {
        match (is_own_indexer, is_their_indexer) {
            (true, true) => Self::Mesh,
            (false, false) => Self::None,
            (true, false) | (false, true) => Self::Direct,
        }
    }
}

/// The behaviour.
pub(super) struct Gossip {
    inner: Inner,
    /// Gossip holds no connection open.
    is_quiet: bool,
    /// Everybody who is connected.
    peers: HashMap<PeerId, Standing>,
}

impl Gossip {
    /// Gossip of a member; `is_quiet` when it shall keep no connection open.
    pub(super) fn new(inner: Inner, is_quiet: bool) -> Self {
        Self { inner, is_quiet, peers: HashMap::new() }
    }

    /// The peer said hello: from here on it has this part in gossip.
    pub(super) fn admit(&mut self, peer: PeerId, part: Part) {
        // GossipSub would dial a direct peer that is gone.
        let Some(standing) = self.peers.get_mut(&peer) else { return };
        match part {
            Part::Mesh => {}
            Part::Direct => self.inner.add_explicit_peer(&peer),
            Part::None => {
                *standing = Standing::LeftOut;
                return;
            }
        }
        if let Standing::Stranger(held_back) = std::mem::replace(standing, Standing::Greeted) {
            for (connection, said) in held_back {
                self.inner.on_connection_handler_event(peer, connection, said);
            }
        }
    }

    /// Sends a message to everybody who should have it; false when there is nobody.
    pub(super) fn publish(&mut self, topic: &str, text: Vec<u8>) -> Result<(), gossipsub::PublishError> {
        self.inner.publish(gossipsub::IdentTopic::new(topic), text).map(drop)
    }

    /// What became of a message that was heard from `from`.
    pub(super) fn judged(
        &mut self,
        message: &gossipsub::MessageId,
        from: &PeerId,
        verdict: gossipsub::MessageAcceptance,
    ) {
        self.inner.report_message_validation_result(message, from, verdict);
    }
}

impl NetworkBehaviour for Gossip {
    type ConnectionHandler = Handler;
    type ToSwarm = gossipsub::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let inner = self.inner.handle_established_inbound_connection(connection, peer, local, remote)?;
        Ok(Handler { inner, is_quiet: self.is_quiet })
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let inner = self.inner.handle_established_outbound_connection(connection, peer, addr, role, port)?;
        Ok(Handler { inner, is_quiet: self.is_quiet })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionEstablished(established) => {
                let stranger = || Standing::Stranger(VecDeque::new());
                self.peers.entry(established.peer_id).or_insert_with(stranger);
            }
            FromSwarm::ConnectionClosed(closed) if closed.remaining_established == 0 => {
                self.peers.remove(&closed.peer_id);
                self.inner.remove_explicit_peer(&closed.peer_id);
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, said: THandlerOutEvent<Self>) {
        match self.peers.get_mut(&peer) {
            Some(Standing::Greeted) => self.inner.on_connection_handler_event(peer, connection, said),
            // The oldest stay: they tell its topics.
            Some(Standing::Stranger(held_back)) if held_back.len() < HELD_BACK_MAX => {
                held_back.push_back((connection, said));
            }
            Some(Standing::Stranger(_) | Standing::LeftOut) | None => {}
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx)
    }
}

/// GossipSub's handler, whose streams may not count for keep-alive.
pub(super) struct Handler {
    inner: InnerHandler,
    is_quiet: bool,
}

/// A protocol whose stream may not count for keep-alive.
pub(super) struct Quiet<P> {
    inner: P,
    is_quiet: bool,
}

impl<P: UpgradeInfoSend> UpgradeInfo for Quiet<P> {
    type Info = P::Info;
    type InfoIter = P::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.inner.protocol_info()
    }
}

impl<P: InboundUpgradeSend> InboundUpgrade<Stream> for Quiet<P> {
    type Output = P::Output;
    type Error = P::Error;
    type Future = P::Future;

    fn upgrade_inbound(self, mut stream: Stream, info: P::Info) -> Self::Future {
        if self.is_quiet {
            stream.ignore_for_keep_alive();
        }
        self.inner.upgrade_inbound(stream, info)
    }
}

impl<P: OutboundUpgradeSend> OutboundUpgrade<Stream> for Quiet<P> {
    type Output = P::Output;
    type Error = P::Error;
    type Future = P::Future;

    fn upgrade_outbound(self, mut stream: Stream, info: P::Info) -> Self::Future {
        if self.is_quiet {
            stream.ignore_for_keep_alive();
        }
        self.inner.upgrade_outbound(stream, info)
    }
}

type Inbound = <InnerHandler as ConnectionHandler>::InboundProtocol;
type Outbound = <InnerHandler as ConnectionHandler>::OutboundProtocol;

impl ConnectionHandler for Handler {
    type FromBehaviour = <InnerHandler as ConnectionHandler>::FromBehaviour;
    type ToBehaviour = Said;
    type InboundProtocol = Quiet<Inbound>;
    type OutboundProtocol = Quiet<Outbound>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        let is_quiet = self.is_quiet;
        self.inner.listen_protocol().map_upgrade(|inner| Quiet { inner, is_quiet })
    }

    fn connection_keep_alive(&self) -> bool {
        !self.is_quiet && self.inner.connection_keep_alive()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        let is_quiet = self.is_quiet;
        self.inner.poll(cx).map(|event| event.map_protocol(|inner| Quiet { inner, is_quiet }))
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        self.inner.on_behaviour_event(event);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        // The two wrap what they agree on and add nothing to it: outputs and errors are GossipSub's own.
        self.inner.on_connection_event(match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info }) => {
                ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info })
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info })
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error })
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error }) => {
                ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error })
            }
            ConnectionEvent::AddressChange(change) => ConnectionEvent::AddressChange(change),
            ConnectionEvent::LocalProtocolsChange(change) => ConnectionEvent::LocalProtocolsChange(change),
            ConnectionEvent::RemoteProtocolsChange(change) => ConnectionEvent::RemoteProtocolsChange(change),
            // Of a newer libp2p, which GossipSub does not know either.
            _ => return,
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use futures::StreamExt as _;
    use libp2p::{
        Swarm,
        swarm::{Config, SwarmEvent},
    };
    use protocol::identity::Keys;
    use tokio::time::timeout;

    use super::*;
    use crate::swarm::transport;

    const TOPIC: &str = "topic";

    /// Longer than anything takes here.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn swarm(seed: u8, is_quiet: bool) -> Swarm<Gossip> {
        let keypair = Keys::from_seed([seed; 32]).to_libp2p();
        let (own, transport) = (keypair.public().to_peer_id(), transport::build(&keypair, None).unwrap());
        let config = gossipsub::ConfigBuilder::default()
            .heartbeat_initial_delay(Duration::from_millis(20))
            .heartbeat_interval(Duration::from_millis(50))
            .build()
            .unwrap();
        let topic = gossipsub::IdentTopic::new(TOPIC);
        let mut inner = Inner::new_with_subscription_filter_and_transform(
            gossipsub::MessageAuthenticity::Signed(keypair),
            config,
            gossipsub::WhitelistSubscriptionFilter([topic.hash()].into()),
            gossipsub::IdentityTransform,
        )
        .unwrap();
        inner.subscribe(&topic).unwrap();
        // Closed as soon as nothing keeps it.
        let config = Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_millis(200));
        Swarm::new(transport, Gossip::new(inner, is_quiet), own, config)
    }

    /// Two swarms with a connection between them, the first of which dialled.
    struct Pair(Swarm<Gossip>, Swarm<Gossip>);

    impl Pair {
        async fn connected(is_quiet: bool) -> Self {
            let (mut dialer, mut listener) = (swarm(1, is_quiet), swarm(2, is_quiet));
            listener.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
            let listens = |event: &SwarmEvent<_>| matches!(event, SwarmEvent::NewListenAddr { .. });
            timeout(PATIENCE, listener.by_ref().filter(|event| std::future::ready(listens(event))).next())
                .await
                .unwrap();
            dialer.dial(listener.listeners().next().unwrap().clone()).unwrap();
            let mut pair = Self(dialer, listener);
            let (mut here, mut there) = (false, false);
            pair.drive(|is_first, event| {
                let is_established = matches!(event, SwarmEvent::ConnectionEstablished { .. });
                *(if is_first { &mut here } else { &mut there }) |= is_established;
                here && there
            })
            .await;
            pair
        }

        /// Lets both go on until one of their events is the one.
        async fn drive(&mut self, mut is_it: impl FnMut(bool, &SwarmEvent<gossipsub::Event>) -> bool) {
            let drive = async {
                loop {
                    let (is_first, event) = tokio::select! {
                        event = self.0.select_next_some() => (true, event),
                        event = self.1.select_next_some() => (false, event),
                    };
                    if is_it(is_first, &event) {
                        return;
                    }
                }
            };
            timeout(PATIENCE, drive).await.expect("it happens in time");
        }

        fn admit(&mut self, part: Part) {
            let (first, second) = (*self.0.local_peer_id(), *self.1.local_peer_id());
            self.0.behaviour_mut().admit(second, part);
            self.1.behaviour_mut().admit(first, part);
        }

        /// Lets both hear each other's topics.
        async fn acquaint(&mut self, part: Part) {
            self.admit(part);
            let (mut here, mut there) = (false, false);
            self.drive(|is_first, event| {
                let is_heard = matches!(event, SwarmEvent::Behaviour(gossipsub::Event::Subscribed { .. }));
                *(if is_first { &mut here } else { &mut there }) |= is_heard;
                here && there
            })
            .await;
        }

        /// Lets both go on until so much is held back on both sides.
        async fn hold_back(&mut self, least: usize) {
            let held = |swarm: &Swarm<Gossip>| match swarm.behaviour().peers.values().next() {
                Some(Standing::Stranger(held_back)) => held_back.len(),
                _ => 0,
            };
            let wait = async {
                while held(&self.0) < least || held(&self.1) < least {
                    tokio::select! {
                        event = self.0.select_next_some() => panic!("{event:?}"),
                        event = self.1.select_next_some() => panic!("{event:?}"),
                        () = tokio::task::yield_now() => {}
                    }
                }
            };
            timeout(PATIENCE, wait).await.unwrap();
        }

        fn mesh(&self) -> usize {
            let topic = gossipsub::IdentTopic::new(TOPIC).hash();
            self.0.behaviour().inner.mesh_peers(&topic).count() + self.1.behaviour().inner.mesh_peers(&topic).count()
        }
    }

    fn is_message(event: &SwarmEvent<gossipsub::Event>, text: &[u8]) -> bool {
        matches!(event, SwarmEvent::Behaviour(gossipsub::Event::Message { message, .. }) if message.data == text)
    }

    #[tokio::test]
    async fn on_a_node_gossip_passes_and_keeps_no_connection_open() {
        let mut pair = Pair::connected(true).await;
        pair.acquaint(Part::Direct).await;
        pair.0.behaviour_mut().publish(TOPIC, b"asked".to_vec()).unwrap();
        pair.drive(|is_first, event| !is_first && is_message(event, b"asked")).await;
        assert_eq!(pair.mesh(), 0, "a direct peer is in no mesh");
        pair.drive(|_, event| matches!(event, SwarmEvent::ConnectionClosed { .. })).await;
    }

    #[tokio::test]
    async fn among_indexers_gossip_has_a_mesh_and_keeps_its_connections() {
        let mut pair = Pair::connected(false).await;
        pair.acquaint(Part::Mesh).await;
        assert_eq!(pair.mesh(), 2);
        // Five times as long as an idle connection is kept.
        let over = timeout(Duration::from_secs(1), pair.0.select_next_some());
        let other = timeout(Duration::from_secs(1), pair.1.select_next_some());
        let (over, other) = tokio::join!(over, other);
        assert!(over.is_err() && other.is_err(), "{over:?} {other:?}");
    }

    #[tokio::test]
    async fn before_its_hello_a_peer_is_neither_heard_nor_sent_anything() {
        let mut pair = Pair::connected(false).await;
        let second = *pair.1.local_peer_id();
        // Both have said their topics when their versions and something more are held back.
        pair.hold_back(2).await;
        assert_eq!(pair.mesh(), 0);
        let sent = pair.0.behaviour_mut().publish(TOPIC, b"early".to_vec());
        assert!(matches!(sent, Err(gossipsub::PublishError::NoPeersSubscribedToTopic)), "{sent:?}");
        pair.acquaint(Part::Mesh).await;
        pair.0.behaviour_mut().publish(TOPIC, b"late".to_vec()).unwrap();
        pair.drive(|is_first, event| !is_first && is_message(event, b"late")).await;
        assert!(pair.0.behaviour().peers.contains_key(&second));
    }

    #[tokio::test]
    async fn two_nodes_hear_nothing_of_each_other_by_gossip() {
        for (own, other, part) in [
            (false, false, Part::None),
            (false, true, Part::Direct),
            (true, false, Part::Direct),
            (true, true, Part::Mesh),
        ] {
            assert_eq!(Part::between(own, other), part);
        }
        let mut pair = Pair::connected(false).await;
        pair.hold_back(2).await;
        pair.admit(Part::None);
        let over = timeout(Duration::from_secs(1), pair.drive(|_, _| true));
        assert!(over.await.is_err(), "nobody's topics are heard");
        let sent = pair.0.behaviour_mut().publish(TOPIC, b"unheard".to_vec());
        assert!(matches!(sent, Err(gossipsub::PublishError::NoPeersSubscribedToTopic)), "{sent:?}");
        assert_eq!(pair.mesh(), 0);
    }

    #[tokio::test]
    async fn what_a_stranger_says_is_held_back_up_to_its_bound_and_forgotten_with_its_connection() {
        let mut pair = Pair::connected(false).await;
        let (first, second) = (*pair.0.local_peer_id(), *pair.1.local_peer_id());
        pair.hold_back(1).await;
        let held_back = match &pair.0.behaviour().peers[&second] {
            Standing::Stranger(held_back) => held_back.front(),
            Standing::Greeted | Standing::LeftOut => None,
        };
        let Some((connection, Said::PeerKind(kind))) = held_back else { panic!("it says its version first") };
        let (connection, kind) = (*connection, *kind);
        // Nothing of a peer that is gone, and never more than the bound of one that is here.
        for _ in 0..2 * HELD_BACK_MAX {
            pair.0.behaviour_mut().on_connection_handler_event(first, connection, Said::PeerKind(kind));
            pair.0.behaviour_mut().on_connection_handler_event(second, connection, Said::PeerKind(kind));
        }
        let gossip = pair.0.behaviour();
        assert!(matches!(&gossip.peers[&second], Standing::Stranger(held) if held.len() == HELD_BACK_MAX));
        assert!(!gossip.peers.contains_key(&first));
        pair.1.disconnect_peer_id(first).unwrap();
        pair.drive(|is_first, event| is_first && matches!(event, SwarmEvent::ConnectionClosed { .. })).await;
        assert!(pair.0.behaviour().peers.is_empty());
        // One that said hello and is gone is not dialled again.
        pair.0.behaviour_mut().admit(second, Part::Direct);
        assert_eq!(pair.0.network_info().connection_counters().num_pending(), 0);
    }
}
