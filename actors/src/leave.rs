//! Leaving: a signed word to those who would otherwise wait for us.

use std::time::Duration;

use futures::future::join_all;
use protocol::{
    PeerId,
    record::Leave,
    signed::Verified,
    wire::{AddrInfo, LeaveAck, Protocol},
};
use tracing::debug;

use crate::{context::Context, fetch, suggestions, supervision::Class};

/// A peer that does not hear us by then will notice by itself.
const WITHIN: Duration = Duration::from_secs(2);

/// Peers told at once; each takes a stream and a signature is made once for all.
const AT_ONCE: usize = 64;

fn signed(context: &Context, alternatives: Vec<AddrInfo>) -> Verified<Leave> {
    let own = &context.own;
    let now = context.now().wall;
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
    tell(context, peer, &signed(context, alternatives.to_vec())).await;
}

/// Tells all of these, each once, naming other indexers that may have room.
pub(crate) async fn say_all(context: &Context, peers: &[PeerId]) {
    let pick = |reply| suggestions::Msg::Pick { count: 3, besides: context.own.peer_id, reply };
    let alternatives = context.addresses.suggestions.ask(Class::Control, pick, WITHIN).await.unwrap_or_default();
    let leave = signed(context, alternatives);
    for batch in peers.chunks(AT_ONCE) {
        join_all(batch.iter().map(|peer| tell(context, *peer, &leave))).await;
    }
}

async fn tell(context: &Context, peer: PeerId, leave: &Verified<Leave>) {
    let told: Result<LeaveAck, _> =
        fetch::exchange(context, peer, Vec::new(), Protocol::Leave, &leave.to_raw(), WITHIN).await;
    if let Err(error) = told {
        debug!(%peer, %error, "it did not hear that we leave");
    }
}
