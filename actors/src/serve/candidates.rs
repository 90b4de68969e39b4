//! Addresses of other indexers for a node that wants more of them.

use protocol::{
    PeerId, json,
    wire::{CandidatesRequest, CandidatesResponse, Protocol},
};

use super::{ASK_WITHIN, ServeError, WRITE_WITHIN, admit, busy, known, refuse};
use crate::{
    context::Context,
    suggestions,
    supervision::Class,
    swarm::streams::{Io, Patience},
};

/// Asked for none or too many, so many are given.
const COUNT_USUAL: u32 = 3;

/// More than a pool needs at once.
const COUNT_MAX: u32 = 10;

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    let max = Protocol::Candidates.value_bytes_max();
    let read = io.read(Patience::OPENING, |value| json::parse::<CandidatesRequest>(value.bytes, max)).await?;
    let Some(request) = read.transpose()? else { return Ok(()) };
    let admitted = match admit(context, peer, Protocol::Candidates).await {
        Ok(()) => known(context, peer).await,
        refused => refused,
    };
    if let Err(refused) = admitted {
        return refuse(io, &refused).await;
    }
    let count = if (1..=COUNT_MAX).contains(&request.count) { request.count } else { COUNT_USUAL };
    let ask = |reply| suggestions::Msg::Pick { count, besides: peer, reply };
    match context.addresses.suggestions.ask(Class::Control, ask, ASK_WITHIN).await {
        Ok(candidates) => io.write(&CandidatesResponse { candidates }, WRITE_WITHIN).await?,
        Err(error) => return refuse(io, &busy(&error)).await,
    }
    io.close().await;
    Ok(())
}
