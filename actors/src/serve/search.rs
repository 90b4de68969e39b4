//! Searches: a node's, answered as answers come; and other indexers' answers to ours.

use std::sync::Arc;

use protocol::{
    PeerId, json,
    search::Wanted,
    wire::{Protocol, SearchPeerRequest, SearchPeerResult},
};

use super::{ASK_WITHIN, ServeError, WRITE_WITHIN, admit, busy, known, refuse};
use crate::{
    context::{Context, inform},
    handle::AskError,
    lookup, peers, registry, relay, suggestions,
    supervision::Class,
    swarm::streams::{Io, Patience},
};

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    let max = Protocol::Search.value_bytes_max();
    let read = io.read(Patience::OPENING, |value| json::parse::<SearchPeerRequest>(value.bytes, max)).await?;
    let Some(request) = read.transpose()? else { return Ok(()) };
    let wanted = match Wanted::of_request(&request) {
        Ok(wanted) => wanted,
        Err(error) => return refuse(io, &error.refusal()).await,
    };
    let admitted = match admit(context, peer, Protocol::Search).await {
        Ok(()) => known(context, peer).await,
        refused => refused,
    };
    if let Err(refused) = admitted {
        context.stats.searches_refused.inc();
        return refuse(io, &refused).await;
    }
    let opening = match opening(context, peer, request, wanted.clone()).await {
        Ok(opening) => opening,
        Err(error) => return refuse(io, &busy(&error)).await,
    };
    let has_dht = opening.has_dht;
    let ask = |reply| relay::Msg::Open { opening: Box::new(opening), reply };
    let opened = context.addresses.relay.ask(Class::Search, ask, ASK_WITHIN).await;
    let (id, mut values) = match opened.unwrap_or_else(|error| Err(busy(&error))) {
        Ok(opened) => opened,
        Err(refused) => {
            context.stats.searches_refused.inc();
            return refuse(io, &refused).await;
        }
    };
    if has_dht {
        look_in_dht(context.clone(), id, wanted);
    }
    let served = hand_on(&mut io, &mut values).await;
    inform(&context.addresses.relay, Class::Control, relay::Msg::Close { id });
    served?;
    io.close().await;
    Ok(())
}

/// What is known here: our sessions, and who else should answer.
async fn opening(
    context: &Context,
    from: PeerId,
    request: SearchPeerRequest,
    wanted: Wanted,
) -> Result<relay::Opening, AskError> {
    let to = &context.addresses;
    let sought = wanted.clone();
    let at_most = protocol::search::HITS_MAX;
    let held = |reply| registry::Msg::Held { wanted: sought, at_most, reply };
    let held = to.registry.ask(Class::Search, held, ASK_WITHIN).await?;
    let roll = to.suggestions.ask(Class::Search, suggestions::Msg::Roll, ASK_WITHIN).await?;
    let has_dht = held.0.is_empty() && !wanted.is_gossiped();
    Ok(relay::Opening { from, request, wanted, held, roll, has_dht })
}

fn look_in_dht(context: Context, id: protocol::search::RelayId, wanted: Wanted) {
    tokio::spawn(async move {
        let records = lookup::in_dht(&context, &wanted).await.into_iter().map(Arc::new).collect();
        inform(&context.addresses.relay, Class::Search, relay::Msg::Found { id, records });
    });
}

/// Until the last word, or until the node goes away.
async fn hand_on(io: &mut Io, values: &mut tokio::sync::mpsc::Receiver<SearchPeerResult>) -> Result<(), ServeError> {
    loop {
        let value = tokio::select! {
            value = values.recv() => value,
            // A node that says anything more, its goodbye included, has closed its search.
            _ = io.read(Patience::within(protocol::search::TOTAL), |_| ()) => return Ok(()),
        };
        let Some(value) = value else { return Ok(()) };
        io.write(&value, WRITE_WITHIN).await?;
    }
}

pub(super) async fn collect(context: &Context, from: PeerId, mut io: Io) -> Result<(), ServeError> {
    let ask = |reply| peers::Msg::Role { peer: from, reply };
    let role = context.addresses.peers.ask(Class::Control, ask, ASK_WITHIN).await.unwrap_or_default();
    let mut patience = Patience::OPENING;
    let max = Protocol::SearchResponse.value_bytes_max();
    while let Some(read) = io.read(patience, |value| json::parse::<SearchPeerResult>(value.bytes, max)).await? {
        patience = Patience::NEXT;
        let mut result = read?;
        // Another indexer may not have heard yet.
        result.records.retain(|hit| !context.is_revoked(&hit.peer_id));
        let is_last = result.last;
        let answered = relay::Msg::Answered { from, is_indexer: role.indexer, result };
        inform(&context.addresses.relay, Class::Search, answered);
        if is_last {
            break;
        }
    }
    io.close().await;
    Ok(())
}
