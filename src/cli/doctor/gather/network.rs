//! Ports tried, addresses dialled.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use futures::future::join_all;
use hyper::Uri;
use multiaddr::{Multiaddr, Protocol};
use protocol::addr::Seed;
use tokio::{net::TcpStream, time::timeout};

use super::super::facts::{Asked, Dialled, Port, PortState};
use crate::{
    cli::{
        client::Client,
        exit::{Exit, Failure},
    },
    config::Settings,
    ports::{self, Use},
};

/// Longer than a name takes to resolve and a handshake around the world; what is slower is away.
const DIAL_WITHIN: Duration = Duration::from_secs(3);

/// Where NATS listens when nobody says otherwise.
pub(super) const BUS_PORT: u16 = 4222;

/// Where PostgreSQL listens when nobody says otherwise.
pub(super) const POSTGRES_PORT: u16 = 5432;

/// The ports of a member that does not run; those that are not chosen yet are left out.
pub(super) fn ports(settings: &Settings) -> Vec<Port> {
    let admin = Some(settings.admin.listen).filter(|address| address.port() != 0);
    let admin = admin.into_iter().map(|address| (Use::Admin, address));
    let listeners = settings.network.listeners();
    let network = listeners.iter().filter_map(ports::socket).map(|address| (Use::Network, address));
    // One after the other and not held: the address of every IPv6 interface covers IPv4 as well.
    admin.chain(network).map(|(purpose, address)| Port { purpose, address, state: state(address) }).collect()
}

fn state(address: SocketAddr) -> PortState {
    match TcpListener::bind(address) {
        Ok(_) => PortState::Free,
        Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => PortState::Taken,
        Err(cause) => PortState::Refused(cause.to_string()),
    }
}

/// Every seed, dialled at once; the settings allow 64.
pub(super) async fn seeds(seeds: &[Seed]) -> Vec<Dialled> {
    join_all(seeds.iter().map(|seed| async {
        let answered = match place(seed.addr()) {
            Some((host, port)) => dial(&host, port).await,
            None => Err("it has no TCP address that can be dialled".to_owned()),
        };
        Dialled { address: seed.full().to_string(), answered }
    }))
    .await
}

/// Host and port of an address.
fn place(address: &Multiaddr) -> Option<(String, u16)> {
    let mut parts = address.iter();
    let host = match parts.next()? {
        Protocol::Ip4(ip) => ip.to_string(),
        Protocol::Ip6(ip) => ip.to_string(),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name.into_owned(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((host, port)),
        _ => None,
    }
}

/// The servers of a list of URLs with commas, dialled; shown as host and port, for there may be passwords in them.
pub(super) async fn urls(list: &str, usual_port: u16) -> Vec<Dialled> {
    let servers = list.split(',').map(str::trim).filter(|url| !url.is_empty()).filter_map(|url| {
        let url: Uri = url.parse().ok()?;
        Some((url.host()?.trim_matches(['[', ']']).to_owned(), url.port_u16().unwrap_or(usual_port)))
    });
    join_all(servers.map(|(host, port)| async move {
        let answered = dial(&host, port).await;
        Dialled { address: format!("{host}:{port}"), answered }
    }))
    .await
}

async fn dial(host: &str, port: u16) -> Asked<Duration> {
    let began = Instant::now();
    match timeout(DIAL_WITHIN, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(began.elapsed()),
        Ok(Err(cause)) => Err(cause.to_string()),
        Err(_) => Err(format!("no answer within {} s", DIAL_WITHIN.as_secs())),
    }
}

/// Whether an admin endpoint that is heard from afar answers those who show no token.
pub(super) async fn is_open(address: SocketAddr) -> Asked<bool> {
    if address.ip().is_loopback() {
        return Err("it is heard on this machine alone".to_owned());
    }
    let asked: Result<serde_json::Value, Failure> = Client::to(address.to_string()).get("/api/v1/status").await;
    match asked {
        Ok(_) => Ok(true),
        Err(failure) if failure.exit == Exit::NotAllowed => Ok(false),
        Err(failure) => Err(failure.what),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn servers_are_dialled_and_their_passwords_are_not_shown() {
        let here = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listening.local_addr().unwrap();
        let list = format!("nats://me:geheim@{there}, tls://{here}");
        let dialled = urls(&list, BUS_PORT).await;
        assert_eq!(dialled[0].address, there.to_string());
        assert!(dialled[0].answered.is_ok() && dialled[1].answered.is_err(), "{dialled:?}");
        assert_eq!(urls("postgresql://m:geheim@127.0.0.1/muster", 1).await[0].address, "127.0.0.1:1");
        assert!(urls("", BUS_PORT).await.is_empty());
    }

    #[test]
    fn seeds_are_dialled_by_name_and_by_address() {
        let place = |text: &str| place(&text.parse().unwrap());
        assert_eq!(place("/ip4/192.0.2.1/tcp/4001"), Some(("192.0.2.1".to_owned(), 4001)));
        assert_eq!(place("/dns/cloud.example/tcp/1"), Some(("cloud.example".to_owned(), 1)));
        assert_eq!(place("/ip4/192.0.2.1/udp/4001"), None);
    }

    #[test]
    fn a_port_is_free_taken_or_not_ours() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(state(taken.local_addr().unwrap()), PortState::Taken);
        assert!(matches!(state("192.0.2.1:4001".parse().unwrap()), PortState::Refused(_)));
        assert_eq!(state("127.0.0.1:0".parse().unwrap()), PortState::Free);
    }
}
