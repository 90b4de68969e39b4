//! What the behaviour, the handler and the streams of one connection share.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::task::AtomicWaker;
use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use protocol::wire::Protocol;
use tokio::{sync::oneshot, time::Instant};

use super::{Counters, Io, OpenError};

/// So many may hold one at a time.
#[derive(Debug)]
pub(super) struct Slots {
    used: AtomicUsize,
    max: usize,
}

/// A place taken in [`Slots`], given back when dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

impl Slots {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }

    pub(super) fn take(self: &Arc<Self>) -> Option<Slot> {
        let next = |used| (used < self.max).then_some(used + 1);
        self.used.fetch_update(Relaxed, Relaxed, next).ok().map(|_| Slot(Arc::clone(self)))
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Relaxed);
    }
}

/// The inbound streams that one peer has open, over all of its connections.
#[derive(Debug, Default)]
pub(super) struct Room([AtomicUsize; Protocol::ALL.len()]);

/// A place taken in a [`Room`], given back when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Room>, Protocol);

impl Room {
    pub(super) fn take(self: &Arc<Self>, protocol: Protocol, max: usize) -> Option<Place> {
        let next = |used| (used < max).then_some(used + 1);
        self.0[protocol.index()].fetch_update(Relaxed, Relaxed, next).ok()?;
        Some(Place(Arc::clone(self), protocol))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0[self.1.index()].fetch_sub(1, Relaxed);
    }
}

/// The permits of an open stream, given back when it is dropped.
#[derive(Debug)]
pub(super) enum Permits {
    Inbound { _of_peer: Place, _of_all: Slot },
    Outbound { _of_connection: Slot },
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) remote_addr: Multiaddr,
    pub(super) outbound: Arc<Slots>,
    admitted: AtomicBool,
    /// A hello is under way or done: streams that are early may wait for its end.
    hello: AtomicBool,
    orders: Mutex<Orders>,
    handler: AtomicWaker,
}

#[derive(Debug, Default)]
struct Orders {
    waiting: VecDeque<Opening>,
    is_closed: bool,
}

impl Link {
    pub(super) fn new(peer: PeerId, connection: ConnectionId, remote_addr: Multiaddr, outbound_max: usize) -> Self {
        Self {
            peer,
            connection,
            remote_addr,
            outbound: Slots::new(outbound_max),
            admitted: AtomicBool::new(false),
            hello: AtomicBool::new(false),
            orders: Mutex::default(),
            handler: AtomicWaker::new(),
        }
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.admitted.load(std::sync::atomic::Ordering::Acquire)
    }

    pub(super) fn admit(&self) {
        self.admitted.store(true, std::sync::atomic::Ordering::Release);
        self.handler.wake();
    }

    pub(super) fn is_saying_hello(&self) -> bool {
        self.hello.load(Relaxed)
    }

    pub(super) fn says_hello(&self) {
        self.hello.store(true, Relaxed);
    }

    /// Bounded by the slots that every opening holds.
    pub(super) fn order(&self, opening: Opening) {
        let mut orders = self.orders();
        if orders.is_closed {
            drop(orders);
            return opening.fail(OpenError::NotConnected);
        }
        orders.waiting.push_back(opening);
        drop(orders);
        self.handler.wake();
    }

    /// For the handler's `poll` alone, which is woken by what comes later.
    pub(super) fn next_order(&self, waker: &std::task::Waker) -> Option<Opening> {
        self.handler.register(waker);
        self.orders().waiting.pop_front()
    }

    /// Nothing is taken from here any more; what waits fails.
    pub(super) fn close(&self) {
        let mut orders = self.orders();
        orders.is_closed = true;
        let waiting = std::mem::take(&mut orders.waiting);
        drop(orders);
        drop(waiting);
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        // Nothing panics while it is held.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An outbound stream on its way. Its asker gets an answer, come what may: dropped, it answers "reset".
#[derive(Debug)]
pub struct Opening {
    pub(super) protocol: Protocol,
    deadline: Instant,
    reply: Option<oneshot::Sender<Result<Io, OpenError>>>,
    of_connection: Option<Slot>,
    _of_all: Slot,
    counters: Arc<Counters>,
}

impl Opening {
    pub(super) fn new(
        protocol: Protocol,
        deadline: Instant,
        reply: oneshot::Sender<Result<Io, OpenError>>,
        (of_connection, of_all): (Slot, Slot),
        counters: Arc<Counters>,
    ) -> Self {
        Self { protocol, deadline, reply: Some(reply), of_connection: Some(of_connection), _of_all: of_all, counters }
    }

    /// Time left, unless it has run out or nobody waits for it any more.
    pub(super) fn left(&self) -> Option<Duration> {
        let is_wanted = self.reply.as_ref().is_some_and(|reply| !reply.is_closed());
        let left = self.deadline.saturating_duration_since(Instant::now());
        (is_wanted && !left.is_zero()).then_some(left)
    }

    pub(super) fn succeed(mut self, stream: libp2p::Stream, link: &Arc<Link>) {
        let (Some(of_connection), Some(reply)) = (self.of_connection.take(), self.reply.take()) else { return };
        Counters::count(&self.counters.opened[self.protocol.index()]);
        let permits = Permits::Outbound { _of_connection: of_connection };
        // An asker that has gone away drops the stream, which resets it.
        drop(reply.send(Ok(Io::new(stream, self.protocol, Arc::clone(link), permits))));
    }

    pub(super) fn fail(mut self, error: OpenError) {
        self.answer(error);
    }

    fn answer(&mut self, error: OpenError) {
        if let Some(reply) = self.reply.take() {
            Counters::count(&self.counters.failed[error as usize]);
            drop(reply.send(Err(error)));
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.answer(OpenError::Reset);
    }
}
