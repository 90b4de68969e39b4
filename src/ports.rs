//! Ports that may be taken: tried for a while, then said with their remedy.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use multiaddr::{Multiaddr, Protocol};
use tokio::{
    net::TcpListener,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::warn;

use crate::cli::exit::{Exit, Failure};

/// A port is often free again moments after its last owner ended.
const TRY_FOR: Duration = Duration::from_secs(10);

/// Time between two tries.
const TRY_EVERY: Duration = Duration::from_millis(250);

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// The admin endpoint.
    Admin,
    /// Other members.
    Network,
    /// Other members that speak the next pre-shared key.
    NextKey,
}

impl Use {
    /// The setting that chooses it.
    const fn setting(self) -> &'static str {
        match self {
            Self::Admin => "admin.listen",
            Self::Network => "network.port or network.listen",
            Self::NextKey => "network.next_port",
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "admin",
            Self::Network => "network",
            Self::NextKey => "next key's",
        })
    }
}

/// Listens at this address; a port in use is tried for 10 s.
///
/// # Errors
/// When it stays in use (code 1), or the address is none of ours (code 78).
pub(crate) async fn bind(address: SocketAddr, purpose: Use) -> Result<TcpListener, Failure> {
    bind_within(address, purpose, TRY_FOR).await
}

/// Waits until the ports of these addresses are free, for 10 s each.
///
/// The swarm binds them itself a moment later, and by then its words would be those of an actor that failed. What it
/// is told here is only that somebody else has one: everything else is the swarm's to judge.
///
/// # Errors
/// When one stays in use (code 1).
pub(crate) async fn wait_free(listeners: &[Multiaddr], purpose: Use) -> Result<(), Failure> {
    for address in listeners.iter().filter_map(socket) {
        match bind(address, purpose).await {
            Err(failure) if failure.exit == Exit::Failed => return Err(failure),
            // One after the other and not held: the address of every IPv6 interface covers IPv4 as well.
            tried => drop(tried),
        }
    }
    Ok(())
}

/// The TCP socket of an address; none where its port is not chosen yet.
pub(crate) fn socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) if port != 0 => Some((ip, port).into()),
        _ => None,
    }
}

async fn bind_within(address: SocketAddr, purpose: Use, patience: Duration) -> Result<TcpListener, Failure> {
    let deadline = Instant::now() + patience;
    let mut tries = interval(TRY_EVERY);
    tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_told = false;
    loop {
        tries.tick().await;
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => {
                if Instant::now() >= deadline {
                    return Err(in_use(address, purpose, patience));
                }
                if !is_told {
                    is_told = true;
                    warn!(%address, "the {purpose} port is in use; trying on for {} s", patience.as_secs());
                }
            }
            Err(cause) => {
                return Err(Failure::new(Exit::Configuration, format!("cannot listen at {address}"))
                    .why(cause.to_string())
                    .next(format!("set {} to an address of this machine and a port we may use", purpose.setting())));
            }
        }
    }
}

fn in_use(address: SocketAddr, purpose: Use, patience: Duration) -> Failure {
    Failure::new(Exit::Failed, format!("the {purpose} port {} is in use", address.port()))
        .why(format!("{address} was tried for {} s", patience.as_secs()))
        .next(format!("stop what uses it, or set {} to another port (0 takes any free one)", purpose.setting()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_said_with_its_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        for (purpose, setting) in [
            (Use::Admin, "admin.listen"),
            (Use::Network, "network.port or network.listen"),
            (Use::NextKey, "network.next_port"),
        ] {
            let failure = bind_within(address, purpose, Duration::ZERO).await.unwrap_err();
            assert_eq!(failure.exit, Exit::Failed);
            assert_eq!(failure.what, format!("the {purpose} port {} is in use", address.port()));
            assert!(failure.next.unwrap().contains(setting));
        }
    }

    #[tokio::test]
    async fn a_port_that_becomes_free_is_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let waiting = tokio::spawn(bind(address, Use::Admin));
        tokio::task::yield_now().await;
        drop(taken);
        assert_eq!(waiting.await.unwrap().unwrap().local_addr().unwrap(), address);
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_a_setting_that_cannot_be_used() {
        let failure = bind("192.0.2.1:7300".parse().unwrap(), Use::Admin).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Configuration);
    }

    #[tokio::test]
    async fn ports_that_are_free_or_not_chosen_are_waited_for_in_no_time() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listeners = [format!("/ip4/127.0.0.1/tcp/{}", free.port()), "/ip6/::1/tcp/0".to_owned()];
        wait_free(&listeners.map(|address| address.parse().unwrap()), Use::Network).await.unwrap();
        TcpListener::bind(free).await.unwrap();
    }
}
