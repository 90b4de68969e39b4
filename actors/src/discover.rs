//! Other indexers, as the DHT knows them.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use protocol::{
    PeerId,
    dht::{self, Valid},
    record::IndexerRecord,
    signed::Verified,
    suggestions::FOUND_MAX,
};
use rand::seq::SliceRandom as _;
use tokio::sync::oneshot;

use crate::{context::Context, lookup, supervision::Class, swarm};

/// The DHT answers within this or counts as silent.
const WITHIN: Duration = Duration::from_secs(5);

/// Records fetched at once.
const AT_ONCE: usize = 8;

/// Verified records of up to 30 indexers that are listed, not ourselves.
pub(crate) async fn indexers(context: &Context) -> Vec<Verified<IndexerRecord>> {
    let mut listed = providers(context).await;
    listed.retain(|peer| *peer != context.own.peer_id);
    let mut rng = context.tree.chance().fork("discover", context.now().mono.since_start().as_nanos() as u64);
    listed.shuffle(&mut rng);
    listed.truncate(FOUND_MAX);
    stream::iter(listed)
        .map(|peer| record(context, peer))
        .buffer_unordered(AT_ONCE)
        .filter_map(|found| async { found })
        .collect()
        .await
}

async fn providers(context: &Context) -> Vec<PeerId> {
    let (reply, found) = oneshot::channel();
    let ask = swarm::Msg::Do(swarm::Command::Providers { reply });
    if context.addresses.swarm.tell(Class::Search, ask).is_err() {
        return Vec::new();
    }
    tokio::time::timeout(WITHIN, found).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// The verified record of one indexer.
pub(crate) async fn record(context: &Context, peer: PeerId) -> Option<Verified<IndexerRecord>> {
    let found = lookup::values(context, dht::Key::Indexer(peer), true).await;
    found.into_iter().find_map(|valid| match valid {
        Valid::Indexer(record) => Some(record),
        _ => None,
    })
}
