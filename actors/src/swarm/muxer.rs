//! Yamux with both of its bounds set, driven by a task of its own.
//!
//! *Bounds.* How many streams, and how many bytes a peer may make us hold: libp2p's wrapper sets only the first and leaves
//! a window of 1 GiB to every connection.
//!
//! *A task of its own.* libp2p polls a connection's multiplexer together with the handlers of all behaviours, and compares
//! the protocols of all of them anew each time. Driven from there, every frame of every kept stream would cost all of
//! that, twice a heartbeat. Here the task moves the frames, and libp2p hears of new streams and of the end.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite, FutureExt, StreamExt, channel::mpsc, ready};
use libp2p::core::{StreamMuxer, muxing::StreamMuxerEvent};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use yamux::{Config, Connection, ConnectionError, DEFAULT_CREDIT, Mode, Stream};

/// Streams of one connection, both directions together; one more ends the connection.
///
/// 32 that we open and 32 that the peer does (see `streams`), Kademlia's 32 each way, and 32 for gossip, identify, ping
/// and for streams whose end one side has not heard of yet.
pub(super) const STREAMS_MAX: usize = 160;

/// Bytes that a peer may have sent and nobody has read: every stream's first window (256 KiB), which never grows.
pub(super) const WINDOW_BYTES_MAX: usize = STREAMS_MAX * DEFAULT_CREDIT as usize;

/// Inbound streams that wait while the swarm negotiates others; a further one is reset.
///
/// Each holds a window that its peer may fill before it has said hello. The channel holds one more for its one sender.
const WAITING_MAX: usize = 16;

/// Orders that wait at most: libp2p opens one stream at a time, and closes once.
const ORDERS_MAX: usize = 2;

/// What libp2p wants of the connection.
enum Order {
    Open(oneshot::Sender<Stream>),
    Close,
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
        let driver = Driver { connection, inbound: to_swarm, orders: ordered, opening: None, is_closing: false };
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        Self { inbound, orders, opening: None, is_closing: false, driver, has_ended: false }
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
}

impl<C: AsyncRead + AsyncWrite + Unpin> Driver<C> {
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
                Poll::Ready(Ok(stream)) => drop(to.send(stream)),
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
}

impl<C: AsyncRead + AsyncWrite + Unpin> Future for Driver<C> {
    type Output = Result<(), ConnectionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.take_orders(cx);
        if self.is_closing {
            return self.connection.poll_close(cx);
        }
        if let Poll::Ready(ended) = self.open(cx) {
            return Poll::Ready(ended);
        }
        match ready!(self.connection.poll_next_inbound(cx)) {
            // With no room it is dropped, which resets it.
            Some(Ok(stream)) => drop(self.inbound.try_send(stream)),
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

    use std::{future::poll_fn, time::Duration};

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
    fn speak(mut bare: Bare, streams: usize) -> tokio::task::JoinHandle<Vec<Stream>> {
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
    async fn sixteen_streams_wait_and_a_further_one_is_reset() {
        let (mut muxer, bare) = pair();
        let theirs = speak(bare, WAITING_MAX + 1).await.unwrap();
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
    async fn closed_it_says_so_and_ends() {
        let (mut muxer, bare) = pair();
        let theirs = speak(bare, 1);
        let _stream = next(&mut muxer).await.unwrap();
        let closed = poll_fn(|cx| Pin::new(&mut muxer).poll_close(cx));
        tokio::time::timeout(Duration::from_secs(5), closed).await.unwrap().unwrap();
        drop(theirs);
    }
}
