//! Yamux with both of its bounds set, driven by a task of its own.
//!
//! *Bounds.* How many streams, and how many bytes a peer may make us hold: libp2p's wrapper sets only the first and leaves
//! a window of 1 GiB to every connection.
//!
//! *A task of its own.* libp2p polls a connection's multiplexer together with the handlers of all behaviours, and compares
//! the protocols of all of them anew each time. Driven from there, every frame of every kept stream would cost all of
//! that, twice a heartbeat. Here the task moves the frames, and libp2p hears of new streams, of dropped ones (it closes an
//! unused connection only when it looks), and of the end.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite, FutureExt, StreamExt, channel::mpsc, ready, task::AtomicWaker};
use libp2p::core::{StreamMuxer, muxing::StreamMuxerEvent};
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};
use tokio_util::task::AbortOnDropHandle;
use yamux::{Config, Connection, ConnectionError, DEFAULT_CREDIT, Mode};

/// Streams of one connection, both directions together; one more ends the connection.
///
/// 32 that we open and 32 that the peer does (see `streams`), Kademlia's 32 each way, and 32 for gossip, identify, ping
/// and for streams whose end one side has not heard of yet.
pub(super) const STREAMS_MAX: usize = 160;

/// Bytes that a peer may have sent and nobody has read: every stream's first window (256 KiB), which never grows.
pub(super) const WINDOW_BYTES_MAX: usize = STREAMS_MAX * DEFAULT_CREDIT as usize;

/// Inbound streams that wait for libp2p to take them: all that a connection may have, so that none is lost in a burst.
const WAITING_MAX: usize = STREAMS_MAX;

/// libp2p counts a stream out just after it is dropped; it looks a little later, so that it finds it gone.
const LOOK_AFTER: Duration = Duration::from_millis(50);

/// For what was said last to leave. Whoever is frozen, or reads nothing on purpose, must not hold its place for that.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Orders that wait at most: libp2p opens one stream at a time, and closes once.
const ORDERS_MAX: usize = 2;

/// What libp2p wants of the connection.
enum Order {
    Open(oneshot::Sender<Stream>),
    Close,
}

/// What the streams, the task and libp2p share of one connection.
#[derive(Debug, Default)]
struct Shared {
    /// A stream was dropped, and libp2p has not looked yet.
    has_dropped: AtomicBool,
    driver: AtomicWaker,
    swarm: AtomicWaker,
}

/// One stream of a connection.
#[derive(Debug)]
pub(super) struct Stream {
    inner: yamux::Stream,
    shared: Arc<Shared>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.has_dropped.store(true, Relaxed);
        self.shared.driver.wake();
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// One multiplexed connection, as libp2p holds it. Dropped, the connection ends at once.
pub(super) struct Muxer {
    inbound: mpsc::Receiver<Stream>,
    orders: mpsc::Sender<Order>,
    /// The outbound stream that was ordered, kept when whoever asked for it gave up.
    opening: Option<oneshot::Receiver<Stream>>,
    is_closing: bool,
    driver: AbortOnDropHandle<Result<(), ConnectionError>>,
    has_ended: bool,
    shared: Arc<Shared>,
}

impl Muxer {
    /// Takes the connection over; must be called within the runtime that is to drive it.
    pub(super) fn new<C: AsyncRead + AsyncWrite + Send + Unpin + 'static>(io: C, mode: Mode) -> Self {
        let mut config = Config::default();
        config.set_max_num_streams(STREAMS_MAX);
        config.set_max_connection_receive_window(Some(WINDOW_BYTES_MAX));
        let (to_swarm, inbound) = mpsc::channel(WAITING_MAX - 1);
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let connection = Connection::new(io, config, mode);
        let shared = Arc::<Shared>::default();
        let driver = Driver {
            connection,
            inbound: to_swarm,
            orders: ordered,
            opening: None,
            is_closing: false,
            closing: None,
            look: None,
            shared: Arc::clone(&shared),
        };
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        Self { inbound, orders, opening: None, is_closing: false, driver, has_ended: false, shared }
    }

    /// How the connection ended; ready once it has.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionError> {
        if self.has_ended {
            return Poll::Ready(ConnectionError::Closed);
        }
        let ended = ready!(self.driver.poll_unpin(cx));
        self.has_ended = true;
        // A task that panicked or was stopped with the runtime has closed the connection all the same.
        Poll::Ready(ended.unwrap_or(Ok(())).err().unwrap_or(ConnectionError::Closed))
    }

    fn order(&mut self, order: Order) -> Result<(), ConnectionError> {
        self.orders.try_send(order).map_err(|_| ConnectionError::Closed)
    }
}

impl StreamMuxer for Muxer {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        match ready!(self.inbound.poll_next_unpin(cx)) {
            Some(stream) => Poll::Ready(Ok(stream)),
            None => self.poll_end(cx).map(Err),
        }
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        if self.opening.is_none() {
            let (to, opening) = oneshot::channel();
            self.order(Order::Open(to))?;
            self.opening = Some(opening);
        }
        let Some(opening) = &mut self.opening else { return Poll::Ready(Err(ConnectionError::Closed)) };
        let opened = ready!(opening.poll_unpin(cx));
        self.opening = None;
        match opened {
            Ok(stream) => Poll::Ready(Ok(stream)),
            Err(_) => self.poll_end(cx).map(Err),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        if !self.is_closing {
            self.is_closing = true;
            // One that has ended takes no order, and is closed.
            drop(self.order(Order::Close));
        }
        match ready!(self.poll_end(cx)) {
            ConnectionError::Closed => Poll::Ready(Ok(())),
            error => Poll::Ready(Err(error)),
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        self.shared.swarm.register(cx.waker());
        self.poll_end(cx).map(Err)
    }
}

/// Moves the connection's frames until it ends.
struct Driver<C> {
    connection: Connection<C>,
    inbound: mpsc::Sender<Stream>,
    orders: mpsc::Receiver<Order>,
    opening: Option<oneshot::Sender<Stream>>,
    is_closing: bool,
    /// Runs from the order to close until that is done without the other side.
    closing: Option<Pin<Box<Sleep>>>,
    /// Runs from the drop of a stream until libp2p is told to look.
    look: Option<Pin<Box<Sleep>>>,
    shared: Arc<Shared>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Driver<C> {
    fn stream(&self, inner: yamux::Stream) -> Stream {
        Stream { inner, shared: Arc::clone(&self.shared) }
    }

    fn tell_dropped(&mut self, cx: &mut Context<'_>) {
        self.shared.driver.register(cx.waker());
        if self.shared.has_dropped.swap(false, Relaxed) {
            self.look = Some(Box::pin(sleep(LOOK_AFTER)));
        }
        if self.look.as_mut().is_some_and(|look| look.as_mut().poll(cx).is_ready()) {
            self.look = None;
            self.shared.swarm.wake();
        }
    }

    fn take_orders(&mut self, cx: &mut Context<'_>) {
        while self.opening.is_none() && !self.is_closing {
            match self.orders.poll_next_unpin(cx) {
                Poll::Ready(Some(Order::Open(to))) => self.opening = Some(to),
                Poll::Ready(Some(Order::Close) | None) => self.is_closing = true,
                Poll::Pending => return,
            }
        }
    }

    fn open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        while let Some(to) = self.opening.take() {
            match self.connection.poll_new_outbound(cx) {
                // Nobody waits for it any more: dropped, it is reset.
                Poll::Ready(Ok(stream)) => drop(to.send(self.stream(stream))),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.opening = Some(to);
                    break;
                }
            }
            self.take_orders(cx);
        }
        Poll::Pending
    }

    fn close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        let within = self.closing.get_or_insert_with(|| Box::pin(sleep(CLOSE_WITHIN)));
        let is_over = within.as_mut().poll(cx).is_ready();
        match self.connection.poll_close(cx) {
            Poll::Pending if is_over => Poll::Ready(Ok(())),
            closed => closed,
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Future for Driver<C> {
    type Output = Result<(), ConnectionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.tell_dropped(cx);
        self.take_orders(cx);
        if self.is_closing {
            return self.close(cx);
        }
        if let Poll::Ready(ended) = self.open(cx) {
            return Poll::Ready(ended);
        }
        match ready!(self.connection.poll_next_inbound(cx)) {
            Some(Ok(stream)) => {
                let stream = self.stream(stream);
                // There is room for all; without libp2p at the other end it is dropped, which resets it.
                drop(self.inbound.try_send(stream));
            }
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Ok(())),
        }
        // There may be more, but the streams get their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::future::poll_fn;

    use futures::{AsyncReadExt, AsyncWriteExt};
    use tokio::io::DuplexStream;
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

    use super::*;

    type Bare = Connection<Compat<DuplexStream>>;

    /// Ours, and a Yamux connection as it comes at the other end.
    fn pair() -> (Muxer, Bare) {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let muxer = Muxer::new(ours.compat(), Mode::Server);
        (muxer, Connection::new(theirs.compat(), Config::default(), Mode::Client))
    }

    async fn next(muxer: &mut Muxer) -> Result<Stream, ConnectionError> {
        poll_fn(|cx| Pin::new(&mut *muxer).poll_inbound(cx)).await
    }

    async fn ended(muxer: &mut Muxer) -> bool {
        let end = poll_fn(|cx| Pin::new(&mut *muxer).poll(cx));
        tokio::time::timeout(Duration::from_secs(5), end).await.is_ok_and(|event| event.is_err())
    }

    /// Opens streams at the bare end, each with one byte, and drives it until it ends.
    fn speak(mut bare: Bare, streams: usize) -> tokio::task::JoinHandle<Vec<yamux::Stream>> {
        tokio::spawn(async move {
            let mut opened = Vec::new();
            for _ in 0..streams {
                let mut stream = poll_fn(|cx| bare.poll_new_outbound(cx)).await.unwrap();
                let mut written = Box::pin(async move {
                    stream.write_all(b"!").await.unwrap();
                    stream.flush().await.unwrap();
                    stream
                });
                let stream = poll_fn(|cx| match written.poll_unpin(cx) {
                    Poll::Ready(stream) => Poll::Ready(stream),
                    Poll::Pending => bare.poll_next_inbound(cx).map(|_| panic!("nothing is opened to it")),
                });
                opened.push(stream.await);
            }
            let end = poll_fn(|cx| bare.poll_next_inbound(cx));
            drop(tokio::time::timeout(Duration::from_millis(500), end).await);
            opened
        })
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_reads_nothing_is_closed_all_the_same() {
        let (mut muxer, _bare) = pair();
        let mut stream = poll_fn(|cx| Pin::new(&mut muxer).poll_outbound(cx)).await.unwrap();
        // More than the wire holds, and less than the stream's window.
        let write = stream.write_all(&[0; 128 * 1024]);
        drop(tokio::time::timeout(Duration::from_secs(1), write).await);
        let began = tokio::time::Instant::now();
        let close = poll_fn(|cx| Pin::new(&mut muxer).poll_close(cx));
        let closed = tokio::time::timeout(CLOSE_WITHIN * 2, close).await;
        assert!(closed.expect("it ends without the other side").is_ok());
        assert!(began.elapsed() >= CLOSE_WITHIN, "nothing held it up");
    }

    #[tokio::test]
    async fn frames_move_though_nobody_polls_the_connection() {
        let (mut muxer, bare) = pair();
        let theirs = speak(bare, 1);
        let mut stream = next(&mut muxer).await.unwrap();
        let mut byte = [0];
        // From here on only the task of its own is at work.
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"!");
        drop(theirs);
    }

    #[tokio::test]
    async fn every_stream_that_a_connection_may_have_waits_for_libp2p() {
        let (mut muxer, bare) = pair();
        let theirs = speak(bare, WAITING_MAX).await.unwrap();
        let mut taken = 0;
        while next(&mut muxer).await.is_ok() {
            taken += 1;
        }
        assert_eq!(taken, WAITING_MAX);
        drop(theirs);
    }

    #[tokio::test]
    async fn the_end_of_the_connection_is_told_though_no_stream_was_wanted() {
        let (mut muxer, bare) = pair();
        drop(bare);
        assert!(ended(&mut muxer).await);
        let refused = poll_fn(|cx| Pin::new(&mut muxer).poll_outbound(cx)).await;
        assert!(refused.is_err());
    }

    #[tokio::test]
    async fn dropped_it_ends_the_connection_at_once() {
        let (muxer, mut bare) = pair();
        drop(muxer);
        let end = poll_fn(|cx| bare.poll_next_inbound(cx));
        let end = tokio::time::timeout(Duration::from_secs(5), end).await.unwrap();
        assert!(!matches!(end, Some(Ok(_))));
    }

    #[tokio::test]
    async fn libp2p_is_woken_when_a_stream_was_dropped() {
        let (mut muxer, bare) = pair();
        let theirs = speak(bare, 1);
        let stream = next(&mut muxer).await.unwrap();
        let mut polls = 0;
        let looked = poll_fn(|cx| {
            polls += 1;
            assert!(Pin::new(&mut muxer).poll(cx).is_pending());
            if polls == 1 { Poll::Pending } else { Poll::Ready(()) }
        });
        let (_, looked) = futures::join!(async { drop(stream) }, tokio::time::timeout(Duration::from_secs(5), looked));
        looked.unwrap();
        drop(theirs);
    }

    #[tokio::test]
    async fn closed_it_says_so_and_ends() {
        let (mut muxer, bare) = pair();
        let theirs = speak(bare, 1);
        let _stream = next(&mut muxer).await.unwrap();
        let closed = poll_fn(|cx| Pin::new(&mut muxer).poll_close(cx));
        tokio::time::timeout(Duration::from_secs(5), closed).await.unwrap().unwrap();
        drop(theirs);
    }
}
