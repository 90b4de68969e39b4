//! A stream to a peer that may not be connected: where it is, as far as we know, then as its own record says.
//!
//! These run in tasks beside the actors, never in a handler.

use std::time::Duration;

use libp2p::Multiaddr;
use protocol::{PeerId, addr, search::Wanted, wire::Protocol};
use tokio::time::Instant;

use crate::{
    context::Context,
    fetch, lookup, peers, pool,
    supervision::Class,
    swarm::{OpenError, streams::Io},
};

/// Our own actors answer within this, or are not asked.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// Opens a stream to the peer. One that cannot be reached where it was is looked up: at members of our pool, then in the DHT.
///
/// # Errors
/// When it is not found, not reached or does not take the protocol within the time.
pub(crate) async fn open(
    context: &Context,
    peer: PeerId,
    protocol: Protocol,
    within: Duration,
) -> Result<Io, OpenError> {
    let by = Instant::now() + within;
    let left = || by.saturating_duration_since(Instant::now());
    let find = |reply| peers::Msg::Find { peer, reply };
    let known = context.addresses.peers.ask(Class::Search, find, ASK_WITHIN).await.map(|info| info.addrs);
    let known = known.unwrap_or_default();
    let failed = match fetch::open(context, peer, known.clone(), protocol, left()).await {
        Err(error @ (OpenError::Unreachable(_) | OpenError::WrongPeer { .. })) => error,
        opened => return opened,
    };
    let addrs = tokio::time::timeout(left(), recorded(context, peer)).await.map_err(|_| OpenError::Late)?;
    if addrs.iter().all(|addr| known.contains(addr)) {
        return Err(failed);
    }
    fetch::open(context, peer, addrs, protocol, left()).await
}

/// Where its newest record says that it listens.
async fn recorded(context: &Context, peer: PeerId) -> Vec<Multiaddr> {
    let wanted = Wanted::Peer(peer);
    let members = context.addresses.pool.ask(Class::Search, |reply| pool::Msg::Members { reply }, ASK_WITHIN).await;
    let mut records = lookup::at_members(context, &wanted, &members.unwrap_or_default()).await;
    if records.is_empty() {
        records = lookup::in_dht(context, &wanted).await;
    }
    let newest = records.iter().max_by_key(|record| record.seq);
    newest.map(|record| addr::hearsay(&peer, &record.addrs, &context.settings.network.rule())).unwrap_or_default()
}
