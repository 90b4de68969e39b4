//! Leaving: a signed word to those who would otherwise wait for us.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use protocol::{
    PeerId, Timestamp,
    presence::topic::PresenceWord,
    record::Leave,
    signed::Verified,
    wire::{AddrInfo, LeaveAck, Protocol, TOPIC_PRESENCE},
};
use tokio::sync::oneshot;
use tracing::debug;

use crate::{
    claim,
    context::{Context, inform},
    fetch, gate, pool, registry, suggestions,
    supervision::Class,
    swarm,
};

/// A peer that does not hear us by then will notice by itself.
const WITHIN: Duration = Duration::from_secs(2);

/// Peers told at once; each takes a stream and a signature is made once for all.
const AT_ONCE: usize = 64;

/// Gossip that was given to the swarm is written within this; nobody tells when it was.
const GOSSIP_LINGERS: Duration = Duration::from_millis(250);

async fn signed(context: &Context, alternatives: Vec<AddrInfo>) -> Verified<Leave> {
    let own = &context.own;
    let now = signing_time(context).await;
    let leave = Leave {
        peer_id: own.peer_id,
        did: own.did.clone(),
        role: own.role,
        born_at: own.born_at,
        seq: u64::try_from(now.as_millisecond()).unwrap_or(0),
        time: now,
        restart: true,
        alternatives,
        pub_key: context.keys.pub_key().to_owned(),
    };
    Verified::sign(&leave, &context.keys)
}

/// Tells one peer.
pub(crate) async fn say(context: &Context, peer: PeerId, alternatives: &[AddrInfo]) {
    tell(context, peer, &signed(context, alternatives.to_vec()).await).await;
}

/// Tells all of these, each once, naming other indexers that may have room.
pub(crate) async fn say_all(context: &Context, peers: &[PeerId]) {
    let leave = signed(context, alternatives(context).await).await;
    stream::iter(peers).for_each_concurrent(AT_ONCE, |peer| tell(context, *peer, &leave)).await;
}

/// Tells every other indexer at once; a node tells its own indexers alone, and they are not many.
pub(crate) async fn gossip(context: &Context) {
    if !context.own.role.indexer {
        return;
    }
    let word = PresenceWord::leave(&signed(context, alternatives(context).await).await);
    // Our own word has nothing in it that JSON cannot say.
    let Ok(text) = serde_json::to_vec(&word) else { return };
    let (reply, heard) = oneshot::channel();
    let publish = swarm::Command::Publish { topic: TOPIC_PRESENCE, text, reply };
    inform(&context.addresses.swarm, Class::Control, swarm::Msg::Do(publish));
    if heard.await.unwrap_or(false) {
        tokio::time::sleep(GOSSIP_LINGERS).await;
    }
}

/// A member said that it goes, on a stream or by gossip: whoever counts on it is told.
pub(crate) fn heard(context: &Context, leave: &Leave) {
    let (peer, to) = (leave.peer_id, &context.addresses);
    if leave.restart {
        inform(&to.gate, Class::Control, gate::Msg::ExpectBack { peer });
    }
    inform(&to.registry, Class::Control, registry::Msg::Left { peer });
    inform(&to.suggestions, Class::Control, suggestions::Msg::Gone { peer });
    let (restart, alternatives) = (leave.restart, leave.alternatives.clone());
    inform(&to.pool, Class::Control, pool::Msg::Left { peer, restart, alternatives });
}

/// The time of our record: a leave that seems five minutes old, or to come, would be believed by nobody.
async fn signing_time(context: &Context) -> Timestamp {
    let now = context.now().wall;
    let signed = context.addresses.claim.ask(Class::Control, claim::Msg::Look, WITHIN).await.ok().flatten();
    signed.and_then(|signed| now.checked_add(signed.clock_offset).ok()).unwrap_or(now)
}

async fn alternatives(context: &Context) -> Vec<AddrInfo> {
    let pick = |reply| suggestions::Msg::Pick { count: 3, besides: context.own.peer_id, reply };
    context.addresses.suggestions.ask(Class::Control, pick, WITHIN).await.unwrap_or_default()
}

async fn tell(context: &Context, peer: PeerId, leave: &Verified<Leave>) {
    let told: Result<LeaveAck, _> =
        fetch::exchange(context, peer, Vec::new(), Protocol::Leave, &leave.to_raw(), WITHIN).await;
    if let Err(error) = told {
        debug!(%peer, %error, "it did not hear that we leave");
    }
}
