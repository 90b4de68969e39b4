//! One connection: agrees on protocols, delivers what peers open, opens what we order, refuses aloud.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncWriteExt, FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use protocol::wire::Protocol;
use tokio::{
    sync::mpsc,
    time::{Sleep, sleep, timeout},
};

use super::{
    Accept, Counters, Inbound, Io, OpenError, RefusalCause,
    link::{Link, Opening, Permits, Room, Slot, Slots},
};

/// A peer has this long to agree to a protocol that it proposed.
const AGREE_WITHIN: Duration = Duration::from_secs(3);

/// A peer has this long to take a refusal, which fits into any window.
const REFUSE_WITHIN: Duration = Duration::from_secs(1);

/// Refusals on their way on one connection; a further stream is reset.
const REFUSALS_PER_CONNECTION_MAX: usize = 16;

/// Refusals on their way on all connections; a further stream is reset.
const REFUSALS_MAX: usize = 1_024;

/// Streams that came while hello was being said wait this long for its end: the two sides learn of it at different times.
const HELLO_GRACE: Duration = Duration::from_secs(1);

/// A stream that ends while its protocol is agreed on was refused, or its connection is ending: this long it is not said
/// which.
const DOUBT: Duration = Duration::from_millis(100);

/// Streams that may wait for the end of a hello; more are refused.
const EARLY_MAX: usize = 4;

/// Where streams of one protocol go.
#[derive(Debug)]
pub(super) struct Desk {
    accept: Accept,
    all: Arc<Slots>,
}

impl Desk {
    pub(super) fn new(accept: Accept) -> Self {
        let all = Slots::new(accept.all_max);
        Self { accept, all }
    }

    pub(super) fn open(&self) -> usize {
        self.all.used()
    }
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct House {
    desks: [Option<Desk>; Protocol::ALL.len()],
    offer: Offer,
    refusals: Arc<Slots>,
    lines: [Box<[u8]>; RefusalCause::ALL.len()],
    pub(super) counters: Arc<Counters>,
}

impl House {
    pub(super) fn new(desks: Vec<Desk>) -> Self {
        let mut by_protocol = [const { None }; Protocol::ALL.len()];
        for desk in desks {
            let at = desk.accept.protocol.index();
            by_protocol[at] = Some(desk);
        }
        let offer = Protocol::ALL.into_iter().filter(|protocol| by_protocol[protocol.index()].is_some());
        Self {
            offer: Offer(offer.fold(0, |bits, protocol| bits | (1 << protocol.index()))),
            desks: by_protocol,
            refusals: Slots::new(REFUSALS_MAX),
            lines: RefusalCause::ALL.map(line),
            counters: Arc::default(),
        }
    }

    pub(super) fn desk(&self, protocol: Protocol) -> Option<&Desk> {
        self.desks[protocol.index()].as_ref()
    }

    /// All that a stream needs before it is taken: permits first, then a place in the channel.
    fn admit(
        &self,
        room: &Arc<Room>,
        protocol: Protocol,
    ) -> Result<(mpsc::Permit<'_, Inbound>, Permits), RefusalCause> {
        let desk = self.desk(protocol).ok_or(RefusalCause::Channel)?;
        let of_peer = room.take(protocol, desk.accept.per_peer_max).ok_or(RefusalCause::Peer)?;
        let of_all = desk.all.take().ok_or(RefusalCause::All)?;
        let place = desk.accept.to.try_reserve().map_err(|_| RefusalCause::Channel)?;
        Ok((place, Permits::Inbound { _of_peer: of_peer, _of_all: of_all }))
    }
}

fn line(cause: RefusalCause) -> Box<[u8]> {
    let mut line = serde_json::to_vec(&cause.words()).expect("a refusal is plain JSON");
    line.push(b'\n');
    line.into()
}

/// The handler of one connection.
pub struct Handler {
    link: Arc<Link>,
    house: Arc<House>,
    room: Arc<Room>,
    refusals: FuturesUnordered<BoxFuture<'static, ()>>,
    early: Vec<(Stream, Protocol)>,
    /// Runs while streams are early.
    grace: Option<Pin<Box<Sleep>>>,
    took_hello: bool,
    /// The peer seems not to take their protocol. Bounded by the slots that every opening holds.
    doubtful: Vec<Opening>,
    /// Runs while there are some.
    doubt: Option<Pin<Box<Sleep>>>,
}

impl Handler {
    pub(super) fn new(link: Arc<Link>, house: Arc<House>, room: Arc<Room>) -> Self {
        let (refusals, early) = (FuturesUnordered::new(), Vec::new());
        let (doubtful, doubt) = (Vec::new(), None);
        Self { link, house, room, refusals, early, grace: None, took_hello: false, doubtful, doubt }
    }

    fn receive(&mut self, stream: Stream, protocol: Protocol) {
        let is_early = protocol != Protocol::Hello && !self.link.is_admitted();
        if !is_early {
            self.deliver(stream, protocol);
        } else if self.link.is_saying_hello() && self.early.len() < EARLY_MAX {
            self.early.push((stream, protocol));
            // The first one's patience is everyone's: more cannot be asked for by sending more.
            self.grace.get_or_insert_with(|| Box::pin(sleep(HELLO_GRACE)));
        } else {
            self.refuse(stream, RefusalCause::NotAdmitted);
        }
    }

    fn deliver(&mut self, stream: Stream, protocol: Protocol) {
        if protocol == Protocol::Hello && self.took_hello {
            return self.refuse(stream, RefusalCause::HelloTwice);
        }
        let house = Arc::clone(&self.house);
        let (place, permits) = match house.admit(&self.room, protocol) {
            Ok(admitted) => admitted,
            Err(cause) => return self.refuse(stream, cause),
        };
        if protocol == Protocol::Hello {
            self.took_hello = true;
            self.link.says_hello();
        }
        Counters::count(&house.counters.delivered[protocol.index()]);
        place.send(Inbound {
            peer: self.link.peer,
            connection: self.link.connection,
            remote_addr: self.link.remote_addr.clone(),
            protocol,
            stream: Io::new(stream, protocol, Arc::clone(&self.link), permits),
        });
    }

    fn refuse(&mut self, stream: Stream, cause: RefusalCause) {
        let counters = &self.house.counters;
        let slot = (self.refusals.len() < REFUSALS_PER_CONNECTION_MAX).then(|| self.house.refusals.take()).flatten();
        let Some(slot) = slot else {
            // Dropped here, the stream is reset: the opener sees that, too.
            return Counters::count(&counters.reset);
        };
        Counters::count(&counters.refused[cause as usize]);
        self.refusals.push(say(stream, cause, Arc::clone(&self.house), slot).boxed());
    }

    /// Dropped with its connection, an opening says that it was reset.
    fn settle_doubts(&mut self, cx: &mut Context<'_>) {
        if self.doubt.as_mut().is_some_and(|doubt| doubt.as_mut().poll(cx).is_ready()) {
            self.doubt = None;
            for opening in std::mem::take(&mut self.doubtful) {
                opening.fail(OpenError::Unsupported);
            }
        }
    }

    fn settle_early(&mut self, cx: &mut Context<'_>) {
        let Some(grace) = self.grace.as_mut() else { return };
        let is_over = grace.as_mut().poll(cx).is_ready();
        if !is_over && !self.link.is_admitted() {
            return;
        }
        self.grace = None;
        for (stream, protocol) in std::mem::take(&mut self.early) {
            if self.link.is_admitted() {
                self.deliver(stream, protocol);
            } else {
                self.refuse(stream, RefusalCause::NotAdmitted);
            }
        }
    }
}

async fn say(mut stream: Stream, cause: RefusalCause, house: Arc<House>, _slot: Slot) {
    let said = timeout(REFUSE_WITHIN, async {
        stream.write_all(&house.lines[cause as usize]).await?;
        stream.close().await
    });
    if !matches!(said.await, Ok(Ok(()))) {
        Counters::count(&house.counters.unheard);
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.link.close();
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offer;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opening;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(self.house.offer, ()).with_timeout(AGREE_WITHIN)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, Opening, Infallible>> {
        // Orders register the waker that an admission wakes, so they are looked at before it is.
        while let Some(opening) = self.link.next_order(cx.waker()) {
            let Some(left) = opening.left() else {
                opening.fail(OpenError::Timeout);
                continue;
            };
            let upgrade = ReadyUpgrade::new(StreamProtocol::new(opening.protocol.id()));
            let protocol = SubstreamProtocol::new(upgrade, opening).with_timeout(left);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.settle_early(cx);
        self.settle_doubts(cx);
        while let Poll::Ready(Some(())) = self.refusals.poll_next_unpin(cx) {}
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, ReadyUpgrade<StreamProtocol>, (), Opening>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol), ..
            }) => {
                self.receive(stream, protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info }) => {
                info.succeed(stream, &self.link);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => match error {
                StreamUpgradeError::Timeout => info.fail(OpenError::Timeout),
                StreamUpgradeError::Io(_) => info.fail(OpenError::Reset),
                StreamUpgradeError::NegotiationFailed => {
                    self.doubtful.push(info);
                    self.doubt.get_or_insert_with(|| Box::pin(sleep(DOUBT)));
                }
                StreamUpgradeError::Apply(never) => match never {},
            },
            _ => {}
        }
    }
}

/// The protocols that we accept, one bit each: libp2p asks for the list at every poll.
#[derive(Clone, Copy, Debug)]
pub struct Offer(u32);

/// One protocol by its id.
#[derive(Clone, Copy, Debug)]
pub struct Name(Protocol);

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.0.id()
    }
}

impl Iterator for Offer {
    type Item = Name;

    fn next(&mut self) -> Option<Name> {
        let protocol = Protocol::ALL.get(self.0.trailing_zeros() as usize)?;
        self.0 &= self.0 - 1;
        Some(Name(*protocol))
    }
}

impl UpgradeInfo for Offer {
    type Info = Name;
    type InfoIter = Self;

    fn protocol_info(&self) -> Self {
        *self
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Stream, Protocol);
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, Name(protocol): Name) -> Self::Future {
        std::future::ready(Ok((stream, protocol)))
    }
}
