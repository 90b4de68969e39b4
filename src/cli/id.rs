//! `muster id`: who a member is, from its files alone.

use std::{net::IpAddr, path::Path};

use actors::view::StatusView;
use multiaddr::{Multiaddr, Protocol};
use nix::sys::socket::SockaddrStorage;
use serde::Serialize;

use super::{
    ADMIN_ADDRESS, Context,
    client::Client,
    exit::{Exit, Failure},
};
use crate::{config::NetworkSettings, keys};

/// Who a member is.
#[derive(Debug, Serialize)]
struct Id {
    name: String,
    peer_id: String,
    did: String,
    /// Full addresses, each ending in the peer id.
    addresses: Vec<Multiaddr>,
}

/// Reads and shows; a running daemon is asked for its addresses, since only it knows which ports it was given.
pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    if context.at.admin.is_some() {
        return Err(Failure::new(Exit::Usage, "an identity is read from a member's own files")
            .next("use --config FILE; of a running daemon, `muster status` shows it"));
    }
    let config = context.config()?;
    let identity = keys::identity(&config.key())?;
    let addresses = match running(&config.data()).await {
        Some(addresses) => addresses,
        None => configured(&config.settings.network, &interfaces())
            .into_iter()
            .map(|address| address.with(Protocol::P2p(identity.peer_id())))
            .collect(),
    };
    let did = match config.settings.node.did.as_str() {
        "" => identity.did().to_string(),
        did => did.to_owned(),
    };
    let id = Id { name: config.name(), peer_id: identity.peer_id().to_string(), did, addresses };
    context.output.one(&id, text)
}

/// What a daemon that runs on this folder listens on.
async fn running(data: &Path) -> Option<Vec<Multiaddr>> {
    let address = std::fs::read_to_string(data.join(ADMIN_ADDRESS)).ok()?;
    let status: StatusView = Client::to(address.trim()).get("/api/v1/status").await.ok()?;
    Some(status.listen).filter(|listen| !listen.is_empty())
}

/// What the member would tell others: what it announces, or what it would listen on. A port that is not chosen yet is
/// no address.
fn configured(network: &NetworkSettings, interfaces: &[IpAddr]) -> Vec<Multiaddr> {
    let addresses = if network.announce.is_empty() { network.listeners() } else { network.announce.clone() };
    addresses
        .into_iter()
        .filter(|address| !address.iter().any(|part| part == Protocol::Tcp(0)))
        .flat_map(|address| concrete(&address, interfaces))
        .collect()
}

/// Every interface by its own address, since nobody can dial all of them at once.
fn concrete(address: &Multiaddr, interfaces: &[IpAddr]) -> Vec<Multiaddr> {
    let own: Vec<Protocol<'static>> = match address.iter().next() {
        Some(Protocol::Ip4(ip)) if ip.is_unspecified() => {
            interfaces.iter().filter(|ip| ip.is_ipv4()).map(|ip| Protocol::from(*ip)).collect()
        }
        Some(Protocol::Ip6(ip)) if ip.is_unspecified() => {
            interfaces.iter().filter(|ip| ip.is_ipv6()).map(|ip| Protocol::from(*ip)).collect()
        }
        _ => return vec![address.clone()],
    };
    own.into_iter().filter_map(|ip| address.replace(0, |_| Some(ip))).collect()
}

/// The addresses of this machine; link-local ones mean nothing without their interface.
fn interfaces() -> Vec<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten().filter_map(|interface| interface.address);
    let ip = |address: SockaddrStorage| match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(IpAddr::from(v4.ip())),
        (_, Some(v6)) => Some(IpAddr::from(v6.ip())),
        _ => None,
    };
    let is_link_local = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    all.filter_map(ip).filter(|ip| !is_link_local(ip)).collect()
}

fn text(id: &Id) -> String {
    let mut lines =
        vec![format!("name     {}", id.name), format!("peer id  {}", id.peer_id), format!("did      {}", id.did)];
    lines.extend(id.addresses.iter().map(|address| format!("address  {address}")));
    if id.addresses.is_empty() {
        lines.push("address  none until it runs: it takes any free port".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shown(network: &NetworkSettings) -> Vec<String> {
        let interfaces = ["127.0.0.1".parse().unwrap(), "192.0.2.7".parse().unwrap(), "::1".parse().unwrap()];
        configured(network, &interfaces).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_interface_is_shown_by_its_own_address() {
        let network = NetworkSettings::default();
        assert_eq!(shown(&network), ["/ip4/127.0.0.1/tcp/4001", "/ip4/192.0.2.7/tcp/4001", "/ip6/::1/tcp/4001"]);
    }

    #[test]
    fn what_is_announced_is_shown_instead() {
        let announce = vec!["/dns/cloud.example/tcp/4001".parse().unwrap()];
        assert_eq!(shown(&NetworkSettings { announce, ..NetworkSettings::default() }), ["/dns/cloud.example/tcp/4001"]);
    }

    #[test]
    fn a_port_that_is_not_chosen_yet_is_no_address() {
        assert!(shown(&NetworkSettings { port: 0, ..NetworkSettings::default() }).is_empty());
    }
}
