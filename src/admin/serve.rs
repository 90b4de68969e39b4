//! Listens: bounded connections, a deadline for every header, an end in order.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info};

/// More than the dashboards, probes and shells of one machine; the next one waits in the system's queue.
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

/// Answers until the end, then gives what is under way a second.
pub(crate) async fn serve(listener: TcpListener, router: Router, end: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let running = TaskTracker::new();
    while let Some((socket, place)) = next(&listener, &places, &end).await {
        running.spawn(answer(socket, place, router.clone(), end.clone()));
    }
    running.close();
    if timeout(END_WITHIN, running.wait()).await.is_err() {
        debug!(left = running.len(), "admin connections were cut");
    }
    info!("the admin endpoint has ended");
}

/// A connection and its place; nothing at the end.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    end: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    end.run_until_cancelled(async {
        // A place first, so that a connection is never taken out of the queue to wait without a deadline.
        let place = Arc::clone(places).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((socket, _)) => return Some((socket, place)),
                Err(error) => {
                    debug!(%error, "an admin connection was not taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
    .await
    .flatten()
}

async fn answer(socket: TcpStream, place: OwnedSemaphorePermit, router: Router, end: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(END_WITHIN, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an admin connection broke");
    }
    drop(place);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::Instant,
    };

    use super::*;

    async fn serving() -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let end = CancellationToken::new();
        let router = Router::new().route("/", get(|| async { "here" }));
        let task = tokio::spawn(serve(listener, router, end.clone()));
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
        assert!(began.elapsed() >= HEADER_DEADLINE - Duration::from_millis(100), "{:?}", began.elapsed());
        end.cancel();
    }

    #[tokio::test]
    async fn the_65th_connection_waits_for_a_place() {
        let (address, end, _task) = serving().await;
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            held.push(TcpStream::connect(address).await.unwrap());
        }
        let mut late = TcpStream::connect(address).await.unwrap();
        late.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut byte = [0];
        assert!(timeout(Duration::from_millis(200), late.read(&mut byte)).await.is_err(), "no place is free");
        drop(held.pop());
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
