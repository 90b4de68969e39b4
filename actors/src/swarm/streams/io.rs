//! Values over one stream: read and written whole, within their limit and their deadline.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncWriteExt, FutureExt as _, ready};
use libp2p::{Multiaddr, PeerId, Stream, swarm::ConnectionId};
use protocol::{
    bandwidth::{Came, End},
    frame::Lines,
    wire::Protocol,
};
use serde::Serialize;
use tokio::time::timeout_at;

use super::link::{Link, Permits};

/// From the opening of a stream to its first byte.
pub const FIRST_BYTE_WITHIN: Duration = Duration::from_secs(3);

/// From the opening of a stream, or the first byte of a later value, to the last byte of that value.
pub const VALUE_WITHIN: Duration = Duration::from_secs(5);

/// Between two values of a short stream.
pub const IDLE_WITHIN: Duration = Duration::from_secs(15);

/// The life of a stream that is not long-lived.
pub const TOTAL_MAX: Duration = Duration::from_secs(120);

/// For the peer to take one value.
pub const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// To say that nothing more will be written.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Taken from the stream at once, by way of the stack: an idle stream holds no buffer for it.
const READ_BYTES: usize = 4 * 1024;

/// White space between two values. A peer that sends more has nothing to say, and could keep its reader busy with it.
const BLANK_BYTES_MAX: usize = 64;

/// How long a read may wait. All three are counted at once, the shortest rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From the call to the value's first byte.
    pub first_byte: Duration,
    /// From the first byte to the last.
    pub rest: Duration,
    /// From the call to the last byte.
    pub whole: Duration,
}

impl Patience {
    /// For the first value of a stream that a peer opened.
    pub const OPENING: Self = Self { first_byte: FIRST_BYTE_WITHIN, rest: VALUE_WITHIN, whole: VALUE_WITHIN };

    /// For a further value of a short stream.
    pub const NEXT: Self = Self::idle(IDLE_WITHIN);

    /// For an answer: nothing but the whole counts.
    #[must_use]
    pub const fn within(whole: Duration) -> Self {
        Self { first_byte: whole, rest: whole, whole }
    }

    /// For a further value of a stream on which silence of this length is usual; once begun, the value has to come.
    #[must_use]
    pub const fn idle(first_byte: Duration) -> Self {
        Self { first_byte, rest: VALUE_WITHIN, whole: first_byte.saturating_add(VALUE_WITHIN) }
    }
}

/// Why a value was not read or written. After any of them the stream is of no more use and is reset when dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// Silence.
    #[error("no byte came in time")]
    Silent,
    /// A part of a value came and the rest did not.
    #[error("a value began and did not end in time")]
    Slow,
    /// The stream has lived as long as it may.
    #[error("the stream is too old")]
    TooOld,
    /// The peer does not read.
    #[error("the peer did not take the value in time")]
    NotTaken,
    /// The peer sent a value over the limit.
    #[error("got a value of more than {max} bytes")]
    TooLong {
        /// The limit of the protocol.
        max: usize,
    },
    /// The peer sends blank lines and nothing else.
    #[error("got nothing but blank lines")]
    Blank,
    /// The stream ended in the middle of a value.
    #[error("the stream ended in the middle of a value")]
    Cut,
    /// The stream has ended.
    #[error("the stream is closed")]
    Closed,
    /// Our own value is over the limit or not one line; nothing of it was written and the stream can be used on.
    #[error("our own value is not one line of at most {max} bytes")]
    Unwritable {
        /// The limit of the protocol.
        max: usize,
    },
}

impl IoError {
    /// Whether the peer sent what it should not, rather than too little or too late.
    #[must_use]
    pub const fn is_bad_input(self) -> bool {
        matches!(self, Self::TooLong { .. } | Self::Blank)
    }
}

/// A value as it came.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    /// Its JSON text, without the line feed, not yet checked.
    pub bytes: &'a [u8],
    /// When its first byte was read.
    pub first_byte_at: Instant,
}

/// Bytes that came without any framing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// As many as were allowed, at most.
    pub taken: Vec<u8>,
    /// How many, how fast, and how they ended.
    pub came: Came,
}

/// A stream with its permits, cut into values.
///
/// Reads may be cancelled and repeated. A write that is cancelled leaves half a value behind, so every later write fails.
/// Dropped without [`close`](Self::close), the stream is reset.
#[derive(Debug)]
pub struct Io {
    /// Away after an error that leaves nothing to read.
    stream: Option<Stream>,
    link: Arc<Link>,
    protocol: Protocol,
    inbox: Lines,
    /// When the present part of a value began to come.
    began: Instant,
    read_at: Instant,
    /// White space since the last value.
    blank_bytes: usize,
    is_writable: bool,
    ends_at: Option<Instant>,
    _permits: Permits,
}

impl Io {
    pub(super) fn new(stream: Stream, protocol: Protocol, link: Arc<Link>, permits: Permits) -> Self {
        let now = Instant::now();
        Self {
            stream: Some(stream),
            link,
            protocol,
            inbox: Lines::new(protocol.value_bytes_max()),
            began: now,
            read_at: now,
            blank_bytes: 0,
            is_writable: true,
            ends_at: (protocol != Protocol::Heartbeat).then(|| now + TOTAL_MAX),
            _permits: permits,
        }
    }

    /// The peer at the other end.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.link.peer
    }

    /// The connection that carries it.
    #[must_use]
    pub fn connection(&self) -> ConnectionId {
        self.link.connection
    }

    /// The peer's address as this connection sees it.
    #[must_use]
    pub fn remote_addr(&self) -> &Multiaddr {
        &self.link.remote_addr
    }

    /// What was agreed on.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Reads the next value and gives it to `take`; nothing when the peer ended the stream between two values.
    ///
    /// A reset looks like an end: yamux does not tell them apart. The value is borrowed from the stream's own buffer.
    ///
    /// # Errors
    /// When the value is late, over the limit of the protocol, or cut short.
    pub async fn read<T>(
        &mut self,
        patience: Patience,
        take: impl FnOnce(Value<'_>) -> T,
    ) -> Result<Option<T>, IoError> {
        let called = Instant::now();
        let whole_by = self.cap(after(called, patience.whole));
        let first_byte_by = whole_by.min(after(called, patience.first_byte));
        loop {
            let came = self.inbox.next();
            if let Ok(Some(bytes)) = came {
                let value = take(Value { bytes, first_byte_at: self.began });
                // What is here of the next value came with the last read.
                (self.began, self.blank_bytes) = (self.read_at, 0);
                return Ok(Some(value));
            }
            if came.is_err() {
                return Err(self.end(IoError::TooLong { max: self.protocol.value_bytes_max() }));
            }
            let is_between = self.inbox.is_between_values();
            if is_between && self.blank_bytes > BLANK_BYTES_MAX {
                return Err(self.end(IoError::Blank));
            }
            let rest_by = whole_by.min(after(self.began.max(called), patience.rest));
            let (by, late) = if is_between { (first_byte_by, IoError::Silent) } else { (rest_by, IoError::Slow) };
            match self.fill(by, late).await {
                // We may still write: the peer has only said that it will not.
                Ok(0) if is_between => return Ok(None),
                Ok(0) => return Err(self.end(IoError::Cut)),
                Ok(_) => {}
                Err(error) => return Err(self.end(error)),
            }
        }
    }

    /// Waits until the next value has begun, so that it can be refused before the rest of it is taken in; false when the
    /// peer ended the stream between two values.
    ///
    /// # Errors
    /// When nothing comes in time, or the stream ends or breaks.
    pub async fn begins(&mut self, patience: Patience) -> Result<bool, IoError> {
        let by = self.cap(after(Instant::now(), patience.first_byte.min(patience.whole)));
        loop {
            if self.inbox.has_begun() {
                return Ok(true);
            }
            if self.blank_bytes > BLANK_BYTES_MAX {
                return Err(self.end(IoError::Blank));
            }
            match self.fill(by, IoError::Silent).await {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) => return Err(self.end(error)),
            }
        }
    }

    /// Whether the next value has begun to come already. What goes wrong is found by the next read.
    pub fn has_begun(&mut self) -> bool {
        matches!(self.begins(Patience::NEXT).now_or_never(), Some(Ok(true)))
    }

    /// Takes in what there is and notes when a value began; `late` when there is nothing in time.
    async fn fill(&mut self, by: Instant, late: IoError) -> Result<usize, IoError> {
        let stream = self.stream.as_mut().ok_or(IoError::Closed)?;
        let inbox = &mut self.inbox;
        let was_between = inbox.is_between_values();
        let read = poll_fn(|cx| {
            let mut bytes = [0; READ_BYTES];
            let count = ready!(Pin::new(&mut *stream).poll_read(cx, &mut bytes))?;
            inbox.feed(&bytes[..count]);
            Poll::Ready(io::Result::Ok(count))
        });
        let read = timeout_at(by.into(), read).await;
        self.read_at = Instant::now();
        let count = match read {
            Ok(read) => read.map_err(|_| IoError::Closed)?,
            Err(_) if self.is_too_old(self.read_at) => return Err(IoError::TooOld),
            Err(_) => return Err(late),
        };
        if was_between {
            self.began = self.read_at;
            self.blank_bytes += count;
        }
        Ok(count)
    }

    /// Writes one value that is JSON text already, and its line feed, at once.
    ///
    /// # Errors
    /// When the value is over the limit of the protocol or not one line, the peer does not take it within `within`, or
    /// the stream has ended. In the last case one more [`read`](Self::read) may find the refusal that ended it.
    pub async fn write_text(&mut self, value: &[u8], within: Duration) -> Result<(), IoError> {
        self.send(value.to_vec(), within).await
    }

    /// Writes one value as JSON.
    ///
    /// # Errors
    /// As [`write_text`](Self::write_text); also when the value has no JSON form.
    pub async fn write<T: Serialize + ?Sized>(&mut self, value: &T, within: Duration) -> Result<(), IoError> {
        let Ok(line) = serde_json::to_vec(value) else {
            return Err(IoError::Unwritable { max: self.protocol.value_bytes_max() });
        };
        self.send(line, within).await
    }

    /// Nothing is kept for the next value: most streams wait most of the time.
    async fn send(&mut self, mut line: Vec<u8>, within: Duration) -> Result<(), IoError> {
        let max = self.protocol.value_bytes_max();
        // A kept text from elsewhere may have come in several lines.
        if line.len() > max || line.contains(&b'\n') {
            return Err(IoError::Unwritable { max });
        }
        line.push(b'\n');
        let by = self.cap(after(Instant::now(), within));
        // False until all of it is written, so that a cancelled write is not followed by another.
        if !std::mem::replace(&mut self.is_writable, false) {
            return Err(IoError::Closed);
        }
        let Some(stream) = self.stream.as_mut() else { return Err(IoError::Closed) };
        match timeout_at(by.into(), send_all(stream, &line)).await {
            Ok(Ok(())) => self.is_writable = true,
            // What the peer said before it closed may still be read.
            Ok(Err(_)) => return Err(IoError::Closed),
            Err(_) if self.is_too_old(Instant::now()) => return Err(self.end(IoError::TooOld)),
            Err(_) => return Err(self.end(IoError::NotTaken)),
        }
        Ok(())
    }

    /// Writes a question and gives its answer to `take`, both within `within`. An answer that came before the question
    /// could be written, as a refusal does, is read, too.
    ///
    /// # Errors
    /// As [`write`](Self::write) and [`read`](Self::read); [`IoError::Closed`] when the peer ended the stream without an
    /// answer.
    pub async fn ask<T>(
        &mut self,
        question: &(impl Serialize + ?Sized),
        within: Duration,
        take: impl FnOnce(Value<'_>) -> T,
    ) -> Result<T, IoError> {
        let by = after(Instant::now(), within);
        match self.write(question, within).await {
            Ok(()) | Err(IoError::Closed) => {}
            Err(error) => return Err(error),
        }
        let left = by.saturating_duration_since(Instant::now());
        self.read(Patience::within(left), take).await?.ok_or(IoError::Closed)
    }

    /// Takes bytes as they are, without cutting them into values, until the peer says that it writes no more: for a stream
    /// on which no value was read. More than `bytes_max` are not taken, and what came late is still told.
    ///
    /// # Errors
    /// When no byte comes within `first_byte`, or the stream breaks.
    pub async fn read_bytes(
        &mut self,
        bytes_max: usize,
        first_byte: Duration,
        rest: Duration,
    ) -> Result<Bytes, IoError> {
        let mut by = self.cap(after(Instant::now(), first_byte));
        let mut taken = Vec::new();
        let mut span: Option<(Instant, Instant)> = None;
        let end = loop {
            let mut buffer = [0; READ_BYTES];
            let stream = self.stream.as_mut().ok_or(IoError::Closed)?;
            let read = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut buffer));
            let Ok(read) = timeout_at(by.into(), read).await else {
                match span {
                    Some(_) => break End::Late,
                    None => return Err(self.end(IoError::Silent)),
                }
            };
            let Ok(count) = read else { return Err(self.end(IoError::Closed)) };
            if count == 0 {
                break End::Closed;
            }
            let now = Instant::now();
            if span.is_none() {
                by = self.cap(after(now, rest));
            }
            span = Some((span.map_or(now, |(first, _)| first), now));
            let room = bytes_max - taken.len();
            taken.extend_from_slice(&buffer[..count.min(room)]);
            if count > room {
                break End::TooMany;
            }
        };
        let took = span.map_or(Duration::ZERO, |(first, last)| last.duration_since(first));
        Ok(Bytes { came: Came { bytes: taken.len(), took, end }, taken })
    }

    /// Writes bytes as they are, and says with `is_last` that no more are written; reading goes on.
    ///
    /// # Errors
    /// When the peer does not take them within `within`, or the stream has ended; what the peer said before that may still
    /// be read.
    pub async fn write_bytes(&mut self, bytes: &[u8], is_last: bool, within: Duration) -> Result<(), IoError> {
        let by = self.cap(after(Instant::now(), within));
        if !std::mem::replace(&mut self.is_writable, false) {
            return Err(IoError::Closed);
        }
        let Some(stream) = self.stream.as_mut() else { return Err(IoError::Closed) };
        let sent = timeout_at(by.into(), async {
            send_all(stream, bytes).await?;
            if is_last { stream.close().await } else { Ok(()) }
        });
        match sent.await {
            Ok(Ok(())) => self.is_writable = !is_last,
            Ok(Err(_)) => return Err(IoError::Closed),
            Err(_) => return Err(self.end(IoError::NotTaken)),
        }
        Ok(())
    }

    /// Says that nothing more will be written, and lets the stream go.
    pub async fn close(mut self) {
        if let Some(stream) = self.stream.as_mut() {
            // Late or failed, it is reset instead, which is all that is left to do.
            drop(tokio::time::timeout(CLOSE_WITHIN, stream.close()).await);
        }
    }

    /// Ends the stream at once, both ways: for a peer that sent what it should not.
    pub fn reset(self) {
        drop(self);
    }

    /// Changes when the stream is too old, counted from now; never, when none is given.
    ///
    /// At first it is [`TOTAL_MAX`] after the opening, and never for heartbeats.
    pub fn live(&mut self, total: Option<Duration>) {
        self.ends_at = total.map(|total| after(Instant::now(), total));
    }

    fn cap(&self, by: Instant) -> Instant {
        self.ends_at.map_or(by, |end| end.min(by))
    }

    fn is_too_old(&self, now: Instant) -> bool {
        self.ends_at.is_some_and(|end| end <= now)
    }

    fn end(&mut self, error: IoError) -> IoError {
        self.stream = None;
        error
    }
}

/// The point `wait` after `at`, which nobody awaits longer than a year.
fn after(at: Instant, wait: Duration) -> Instant {
    at + wait.min(Duration::from_secs(365 * 86_400))
}

async fn send_all(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    let mut stream = Pin::new(stream);
    stream.write_all(bytes).await?;
    stream.flush().await
}
