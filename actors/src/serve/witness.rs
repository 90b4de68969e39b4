//! What we see of an indexer, told to a peer that asks: raw facts, never a score.

use std::time::Duration;

use protocol::{
    PeerId, json,
    wire::{Protocol, RefusalCode, Refused, WitnessRequest},
    witness::{SEEN_WITHIN, Trying, report},
};

use super::{ASK_WITHIN, ServeError, WRITE_WITHIN, admit, busy, known, refuse};
use crate::{
    context::{Context, inform},
    peers,
    pool::{self, Sight},
    supervision::Class,
    swarm::streams::{Io, Patience},
    witness,
};

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    let max = Protocol::Witness.value_bytes_max();
    let read = io.read(Patience::OPENING, |value| json::parse::<WitnessRequest>(value.bytes, max)).await?;
    let Some(WitnessRequest { indexer_peer_id: indexer, is_try }) = read.transpose()? else { return Ok(()) };
    let ask = |reply| pool::Msg::Sight { asker: peer, indexer, reply };
    let sight = match context.addresses.pool.ask(Class::Search, ask, ASK_WITHIN).await {
        Ok(sight) => sight,
        Err(error) => return refuse(io, &busy(&error)).await,
    };
    if let Err(refused) = may_ask(context, peer, &sight).await {
        return refuse(io, &refused).await;
    }
    let ask = |reply| peers::Msg::Acquainted { peer: indexer, reply };
    let known = context.addresses.peers.ask(Class::Search, ask, ASK_WITHIN).await.unwrap_or_default();
    let now = context.now();
    let is_seen = known
        .and_then(|known| known.last_seen)
        .is_some_and(|at| Duration::try_from(now.wall.duration_since(at)).unwrap_or_default() <= SEEN_WITHIN);
    let is_connected = known.is_some_and(|known| known.is_connected);
    let connected = match is_try && known.is_some() {
        true => tried(context, indexer).await,
        false => Some(is_connected),
    };
    io.write(&report(is_seen || is_connected, sight.heard, connected, now.mono), WRITE_WITHIN).await?;
    io.close().await;
    Ok(())
}

/// Whoever has a session with us, or we with it. What an indexer sees of other indexers is no secret of a pool, so that
/// it is told to whoever the network knows.
async fn may_ask(context: &Context, peer: PeerId, sight: &Sight) -> Result<(), Refused> {
    if context.own.role.indexer {
        admit(context, peer, Protocol::Witness).await?;
        return if sight.is_asker_member { Ok(()) } else { known(context, peer).await };
    }
    match sight.is_asker_member {
        true => Ok(()),
        false => Err(Refused::new(RefusalCode::UnknownPeer, "got a question of a peer without a session with us")),
    }
}

/// Says hello to a peer that we knew, unless we did so a moment ago. Nothing when we cannot tell.
async fn tried(context: &Context, target: PeerId) -> Option<bool> {
    let ask = |reply| pool::Msg::MayTry { target, reply };
    match context.addresses.pool.ask(Class::Search, ask, ASK_WITHIN).await.ok()? {
        Trying::Lately(is_reached) => Some(is_reached),
        Trying::NotNow => None,
        Trying::Now => {
            let is_reached = witness::greets(context, target).await;
            inform(&context.addresses.pool, Class::Search, pool::Msg::Tried { target, is_reached });
            Some(is_reached)
        }
    }
}
