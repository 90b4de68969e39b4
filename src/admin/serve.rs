//! Listens: bounded connections, a deadline for every header, an end in order.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::cli::exit::{Exit, Failure};

/// More than the dashboards, probes and shells of one machine; the next one waits in the system's queue.
const CONNECTIONS_MAX: usize = 64;

/// Nobody who means it takes longer to ask.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);

/// More headers than any client of ours sends.
const HEADERS_MAX: usize = 64;

/// Enough for the headers of a browser; also bounds what one connection costs.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// A port is often free again moments after its last owner ended.
const BIND_FOR: Duration = Duration::from_secs(10);

/// Time between two tries.
const BIND_EVERY: Duration = Duration::from_millis(250);

/// What is under way at the end gets this long.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Pause after the system refused a connection for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens at this address; a port in use is tried for 10 s.
///
/// # Errors
/// When it stays in use (code 1), or the address is none of ours (code 78).
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    bind_within(address, BIND_FOR).await
}

async fn bind_within(address: SocketAddr, patience: Duration) -> Result<TcpListener, Failure> {
    let deadline = Instant::now() + patience;
    let mut tries = interval(BIND_EVERY);
    tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_told = false;
    loop {
        tries.tick().await;
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => {
                if Instant::now() >= deadline {
                    return Err(in_use(address, patience));
                }
                if !is_told {
                    is_told = true;
                    warn!(%address, "the admin port is in use; trying on");
                }
            }
            Err(cause) => {
                return Err(Failure::new(Exit::Configuration, format!("cannot listen at admin.listen {address}"))
                    .why(cause.to_string())
                    .next("set admin.listen to an address of this machine and a port we may use"));
            }
        }
    }
}

fn in_use(address: SocketAddr, patience: Duration) -> Failure {
    Failure::new(Exit::Failed, format!("the admin port {} is in use", address.port()))
        .why(format!("{address} was tried for {} s", patience.as_secs()))
        .next("stop what uses it, or set admin.listen to another port (0 takes any free one)")
}

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
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn serving() -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
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
    async fn a_port_in_use_is_said_with_its_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let failure = bind_within(address, Duration::ZERO).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert_eq!(failure.what, format!("the admin port {} is in use", address.port()));
    }

    #[tokio::test]
    async fn a_port_that_becomes_free_is_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let waiting = tokio::spawn(bind_within(address, Duration::from_secs(10)));
        tokio::task::yield_now().await;
        drop(taken);
        assert_eq!(waiting.await.unwrap().unwrap().local_addr().unwrap(), address);
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_a_setting_that_cannot_be_used() {
        let failure = bind("192.0.2.1:7300".parse().unwrap()).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Configuration);
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
