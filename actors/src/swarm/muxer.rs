//! Yamux with both of its bounds set: how many streams, and how many bytes a peer may make us hold.
//!
//! libp2p's wrapper sets only the first and leaves a window of 1 GiB to every connection.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures::{AsyncRead, AsyncWrite, ready};
use libp2p::core::{StreamMuxer, muxing::StreamMuxerEvent};
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
/// Each holds a window that its peer may fill before it has said hello.
const WAITING_MAX: usize = 16;

/// One multiplexed connection.
#[derive(Debug)]
pub(super) struct Muxer<C> {
    connection: Connection<C>,
    // Yamux makes progress only by handing out inbound streams, wanted or not.
    waiting: VecDeque<Stream>,
    taker: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    pub(super) fn new(io: C, mode: Mode) -> Self {
        let mut config = Config::default();
        config.set_max_num_streams(STREAMS_MAX);
        config.set_max_connection_receive_window(Some(WINDOW_BYTES_MAX));
        Self { connection: Connection::new(io, config, mode), waiting: VecDeque::new(), taker: None }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        self.connection.poll_next_inbound(cx).map(|next| next.unwrap_or(Err(ConnectionError::Closed)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        if let Some(stream) = self.waiting.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let next = self.poll_next(cx);
        if next.is_pending() {
            self.taker = Some(cx.waker().clone());
        }
        next
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        self.connection.poll_new_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.connection.poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        let stream = ready!(self.poll_next(cx))?;
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(stream);
            if let Some(taker) = self.taker.take() {
                taker.wake();
            }
        }
        // There may be more, but the other streams get their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
