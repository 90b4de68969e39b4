//! Asking others what they see of an indexer.
//!
//! These run in tasks beside the actors: a round of witnesses for a heartbeat, a question to two others for the pool.

use std::time::Duration;

use futures::{StreamExt as _, stream::FuturesUnordered};
use protocol::{
    PeerId, addr,
    score::Observation,
    wire::{AddrInfo, Protocol, WitnessReport, WitnessRequest},
    witness::{self, Said},
};
use tracing::debug;

use crate::{
    context::{Context, inform},
    fetch::{self, FetchError},
    peers, pool, score,
    supervision::Class,
    swarm::OpenError,
};

/// Our own actors answer within this, or the round is left out.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// A peer that is tried for another answers within this, so that the other is still waiting.
const TRY_WITHIN: Duration = Duration::from_millis(2_500);

/// Asks witnesses about an indexer, its own and ours, all at once, and tells score what they said.
pub(crate) async fn round(context: &Context, about: PeerId, said: Said, offered: Vec<AddrInfo>) {
    let own = context.own.peer_id;
    let ask = |reply| pool::Msg::Members { reply };
    let members = context.addresses.pool.ask(Class::Search, ask, ASK_WITHIN).await.unwrap_or_default();
    let mut rng = context.tree.chance().fork("witness", context.now().mono.since_start().as_nanos() as u64);
    let chosen = witness::choose(&offered, &members, &own, &about, &mut rng);
    let asked: FuturesUnordered<_> =
        chosen.into_iter().map(|info| async move { (info.id, ask_one(context, info, about, false).await) }).collect();
    let reports: Vec<(PeerId, bool)> =
        asked.filter_map(|(by, report)| async move { Some((by, witness::agrees(&said, &report?)?)) }).collect().await;
    let to = &context.addresses.score;
    if !reports.is_empty() {
        inform(to, Class::Control, score::Msg::Witnessed { indexer: about, reports });
    }
    // One that is not alone and names nobody speaks against itself, in full.
    if offered.is_empty() && !witness::may_offer_none(&said) {
        let observation = Observation::Witness { by: about, agrees: false, weight: 1.0 };
        inform(to, Class::Control, score::Msg::Observed { peer: about, observation });
    }
}

/// Asks these whether they reach a peer: how many could tell, and how many of them do.
pub(crate) async fn reach(context: &Context, about: PeerId, ask: &[PeerId]) -> (u32, u32) {
    let info = |peer: &PeerId| AddrInfo { id: *peer, addrs: Vec::new() };
    let asked: FuturesUnordered<_> = ask.iter().map(|peer| ask_one(context, info(peer), about, true)).collect();
    let told: Vec<bool> = asked.filter_map(|report| async move { report?.connected }).collect().await;
    let count = |told: usize| u32::try_from(told).unwrap_or(u32::MAX);
    (count(told.len()), count(told.iter().filter(|is_reached| **is_reached).count()))
}

/// Whether a peer that we know answers at all; what it says does not matter.
pub(crate) async fn greets(context: &Context, target: PeerId) -> bool {
    let ask = |reply| peers::Msg::Find { peer: target, reply };
    let Ok(info) = context.addresses.peers.ask(Class::Search, ask, ASK_WITHIN).await else { return false };
    let question = WitnessRequest { indexer_peer_id: context.own.peer_id, is_try: false };
    let asked =
        fetch::exchange::<_, WitnessReport>(context, target, info.addrs, Protocol::Witness, &question, TRY_WITHIN);
    match tokio::time::timeout(TRY_WITHIN, asked).await {
        Ok(Ok(_) | Err(FetchError::Refused(_))) => true,
        // It said something, which the frozen and the dead do not.
        Ok(Err(FetchError::Open(OpenError::Refused { .. } | OpenError::Unsupported))) => true,
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Whoever cannot be reached, refuses or talks nonsense is no evidence.
pub(crate) async fn ask_one(
    context: &Context,
    witness: AddrInfo,
    about: PeerId,
    is_try: bool,
) -> Option<WitnessReport> {
    let addrs = addr::hearsay(&witness.id, &witness.addrs, &context.settings.network.rule());
    let question = WitnessRequest { indexer_peer_id: about, is_try };
    let asked = fetch::exchange(context, witness.id, addrs, Protocol::Witness, &question, witness::WITHIN);
    match tokio::time::timeout(witness::WITHIN, asked).await {
        Ok(Ok(report)) => Some(report),
        Ok(Err(error)) => {
            debug!(witness = %witness.id, %about, %error, "no word of a witness");
            None
        }
        Err(_) => None,
    }
}
