//! `muster id`: who a member is, from its files alone.

use std::path::Path;

use multiaddr::{Multiaddr, Protocol};
use serde::Serialize;

use super::{
    ADMIN_ADDRESS, Context,
    client::Client,
    exit::{Exit, Failure},
};
use crate::{config::Config, keys};

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
    if context.at.demo || context.at.admin.is_some() {
        return Err(Failure::new(Exit::Usage, "an identity is read from a member's own files")
            .next("use --config FILE; of a running daemon, `muster status` shows it"));
    }
    let config = context.config()?;
    let identity = keys::identity(&config.key())?;
    let addresses = match running(&config.data()).await {
        Some(addresses) => addresses,
        None => {
            configured(&config).into_iter().map(|address| address.with(Protocol::P2p(identity.peer_id()))).collect()
        }
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
    let status: actors::view::StatusView = Client::to(address.trim()).get("/api/v1/status").await.ok()?;
    Some(status.listen).filter(|listen| !listen.is_empty())
}

/// What the member would tell others: what it announces, or what it listens on.
fn configured(config: &Config) -> Vec<Multiaddr> {
    let network = &config.settings.network;
    if network.announce.is_empty() { network.listeners() } else { network.announce.clone() }
}

fn text(id: &Id) -> String {
    let mut lines =
        vec![format!("name     {}", id.name), format!("peer id  {}", id.peer_id), format!("did      {}", id.did)];
    lines.extend(id.addresses.iter().map(|address| format!("address  {address}")));
    lines.join("\n")
}
