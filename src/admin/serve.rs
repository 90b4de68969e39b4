//! Listens: bounded connections of which idle ones make room, a deadline for every header, an end in order.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    response::Response,
};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::timeout,
};
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;
use tracing::{debug, info};

use super::seats::{AtWork, Seat, Seats};

/// More than the dashboards, probes and shells of one machine. Past it idle ones make room; where none is idle, the next
/// one waits.
const CONNECTIONS_MAX: usize = 64;

/// Nobody who means it takes longer to ask.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);

/// More headers than any client of ours sends.
const HEADERS_MAX: usize = 64;

/// Enough for the headers of a browser; also bounds what one connection costs.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// What is under way at the end gets this long.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Pause after the system refused a connection for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection, of whichever kind.
type Socket = Either<TcpStream, UnixStream>;

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Listener {
    /// From this machine, or from wherever it is set to listen.
    Tcp(TcpListener),
    /// From this user of this machine.
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(socket, _)| Either::Left(socket)),
            Self::Unix(listener) => listener.accept().await.map(|(socket, _)| Either::Right(socket)),
        }
    }

    /// The next connection; what cannot be taken is tried again.
    async fn next(&self) -> Socket {
        loop {
            match self.accept().await {
                Ok(socket) => return socket,
                Err(error) => {
                    debug!(%error, "an admin connection was not taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Answers until the end, then gives what is under way a second.
pub(crate) async fn serve(listener: Listener, router: Router, end: CancellationToken) {
    let mut seats = Seats::new(CONNECTIONS_MAX);
    let running = TaskTracker::new();
    // Taken before it has a place, for only a newcomer is a reason to send somebody away; one at a time waits like that.
    while let Some((socket, seat)) = end
        .run_until_cancelled(async {
            let socket = listener.next().await;
            (socket, seats.take().await)
        })
        .await
    {
        running.spawn(answer(socket, seat, router.clone(), end.clone()));
    }
    running.close();
    if timeout(END_WITHIN, running.wait()).await.is_err() {
        debug!(left = running.len(), "admin connections were cut");
    }
    info!("the admin endpoint has ended");
}

async fn answer(socket: Socket, seat: Arc<Seat>, router: Router, end: CancellationToken) {
    let at_door = Arc::clone(&seat);
    let service = service_fn(move |request: Request<Incoming>| {
        let (router, at_work) = (router.clone(), at_door.at_work());
        async move {
            let response: Response = router.oneshot(request.map(Body::new)).await?;
            Ok::<_, Infallible>(response.map(|body| Told { body, _at_work: at_work }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = seat.is_wanted() => return debug!("an idle admin connection made room"),
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(END_WITHIN, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an admin connection broke");
    }
}

/// An answer on its way: until its last byte is taken, its connection is at work.
struct Told {
    body: Body,
    _at_work: AtWork,
}

impl HttpBody for Told {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::SocketAddr;

    use axum::routing::get;
    use futures::StreamExt as _;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::Instant,
    };

    use super::*;

    /// A stream that has begun and says nothing.
    async fn never() -> Body {
        Body::from_stream(
            futures::stream::once(async { Ok::<_, Infallible>("begun") }).chain(futures::stream::pending()),
        )
    }

    async fn serving() -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let end = CancellationToken::new();
        let router = Router::new().route("/", get(|| async { "here" })).route("/never", get(never));
        let task = tokio::spawn(serve(Listener::Tcp(listener), router, end.clone()));
        (address, end, task)
    }

    async fn ask(socket: &mut TcpStream) -> String {
        socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_slow_header_is_cut_within_its_deadline() {
        let (address, end, _task) = serving().await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.unwrap();
        let began = Instant::now();
        let mut answer = Vec::new();
        let _ = timeout(2 * HEADER_DEADLINE, slow.read_to_end(&mut answer)).await.unwrap();
        let took = began.elapsed();
        assert!(took >= HEADER_DEADLINE - Duration::from_millis(100), "{took:?}");
        assert!(took <= Duration::from_secs(6), "{took:?}");
        end.cancel();
    }

    #[tokio::test]
    async fn the_65th_connection_takes_the_place_of_the_one_that_was_idle_longest() {
        let (address, end, _task) = serving().await;
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            held.push(TcpStream::connect(address).await.unwrap());
        }
        let mut late = TcpStream::connect(address).await.unwrap();
        assert!(timeout(Duration::from_secs(2), ask(&mut late)).await.unwrap().ends_with("here"));
        let mut byte = [0];
        assert_eq!(
            timeout(Duration::from_secs(2), held[0].read(&mut byte)).await.unwrap().unwrap_or(0),
            0,
            "the first left"
        );
        assert!(ask(&mut held[1]).await.ends_with("here"), "and nobody else");
        end.cancel();
    }

    #[tokio::test]
    async fn whoever_waits_for_an_answer_keeps_its_place() {
        let (address, end, _task) = serving().await;
        let mut busy = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(b"GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let mut head = [0; 15];
            socket.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 200 OK", "its stream has begun");
            busy.push(socket);
        }
        let mut late = TcpStream::connect(address).await.unwrap();
        late.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut byte = [0];
        assert!(timeout(Duration::from_millis(200), late.read(&mut byte)).await.is_err(), "no place is free");
        drop(busy.pop());
        assert_eq!(timeout(Duration::from_secs(4), late.read(&mut byte)).await.unwrap().unwrap(), 1);
        end.cancel();
    }

    #[tokio::test]
    async fn the_end_does_not_wait_for_idle_connections() {
        let (address, end, task) = serving().await;
        let mut polite = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut polite).await.ends_with("here"));
        let _idle = TcpStream::connect(address).await.unwrap();
        end.cancel();
        timeout(2 * END_WITHIN, task).await.unwrap().unwrap();
    }
}
