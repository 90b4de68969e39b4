//! Records by DID, peer id or exact name: in the DHT, and at the members of our pool.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use protocol::{
    PeerId,
    dht::{self, Valid},
    record::PeerRecord,
    search::Wanted,
    signed::Verified,
    wire::{GetResponse, GetValue, Protocol},
};
use tokio::sync::oneshot;
use tracing::debug;

use crate::{context::Context, fetch, supervision::Class, swarm};

/// The DHT answers within this or counts as silent.
const DHT_WITHIN: Duration = Duration::from_secs(3);

/// A member answers within this or counts as silent; it may ask the DHT for us first.
const MEMBER_WITHIN: Duration = Duration::from_secs(5);

/// Members asked at once.
pub(crate) const MEMBERS_MAX: usize = 3;

/// The valid values under a key of the DHT.
pub(crate) async fn values(context: &Context, key: dht::Key, is_first_enough: bool) -> Vec<Valid> {
    let (reply, found) = oneshot::channel();
    let command = swarm::Command::Find { key, is_first_enough, reply };
    if context.addresses.swarm.tell(Class::Search, swarm::Msg::Do(command)).is_err() {
        return Vec::new();
    }
    tokio::time::timeout(DHT_WITHIN, found).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// Verified records in the DHT, one per peer.
pub async fn in_dht(context: &Context, wanted: &Wanted) -> Vec<Verified<PeerRecord>> {
    let dids = match wanted {
        Wanted::Did(did) => vec![did.to_string()],
        Wanted::Peer(peer) => did_of(context, *peer).await.into_iter().collect(),
        Wanted::Name(name) => dids_of(context, name).await,
        // Only asking every indexer finds them all.
        Wanted::Part(_) => Vec::new(),
    };
    // All at once: a name may have sixteen bearers, and the asker waits for seconds, not minutes.
    let asked: FuturesUnordered<_> = dids.iter().take(dht::CLAIMS_MAX).map(|did| record_of(context, did)).collect();
    asked.filter_map(|record| async { record.filter(|record| wanted.matches(record)) }).collect().await
}

/// The newest record of a DID in the DHT.
pub(crate) async fn record_of(context: &Context, did: &str) -> Option<Verified<PeerRecord>> {
    let values = values(context, dht::Key::Node(did.parse().ok()?), true).await;
    values.iter().filter_map(Valid::as_node).max_by_key(|record| record.seq).cloned()
}

pub(crate) async fn did_of(context: &Context, peer: PeerId) -> Option<String> {
    let values = values(context, dht::Key::Pid(peer), true).await;
    values.iter().filter_map(Valid::as_pid).max_by_key(|value| value.seq).map(|value| value.did.clone())
}

async fn dids_of(context: &Context, name: &str) -> Vec<String> {
    let Some(key) = dht::Key::of_name(name) else { return Vec::new() };
    let values = values(context, key, false).await;
    let claims = values.iter().filter_map(Valid::as_name).flatten();
    let dids: BTreeMap<PeerId, String> = claims.map(|claim| (claim.peer_id, claim.did.clone())).collect();
    dids.into_values().collect()
}

/// Verified records at up to three of these members, asked at once; the first that has any ends it.
pub async fn at_members(context: &Context, wanted: &Wanted, members: &[PeerId]) -> Vec<Verified<PeerRecord>> {
    let question = question(wanted);
    let mut asked: FuturesUnordered<_> = members
        .iter()
        .take(MEMBERS_MAX)
        .map(|member| {
            fetch::exchange::<_, GetResponse>(context, *member, Vec::new(), Protocol::Get, &question, MEMBER_WITHIN)
        })
        .collect();
    while let Some(answer) = asked.next().await {
        let now = context.now().wall;
        let found = match answer {
            Ok(response) => response,
            Err(error) => {
                debug!(%error, "a member did not look up");
                continue;
            }
        };
        // One bad record never spoils the others, and none is taken that does not answer the question.
        let records: Vec<_> = found
            .records
            .values()
            .filter_map(|text| Verified::<PeerRecord>::open(text.get(), now).ok())
            .filter(|record| wanted.matches(record) && !context.is_revoked(&record.peer_id))
            .collect();
        if !records.is_empty() {
            return records;
        }
    }
    Vec::new()
}

fn question(wanted: &Wanted) -> GetValue {
    match wanted {
        Wanted::Did(did) => GetValue { key: Some(did.to_string()), ..GetValue::default() },
        Wanted::Peer(peer) => GetValue { peer_id: Some(*peer), ..GetValue::default() },
        Wanted::Name(name) => GetValue { name: Some(name.clone()), ..GetValue::default() },
        Wanted::Part(part) => GetValue { name: Some(part.as_str().to_owned()), ..GetValue::default() },
    }
}
