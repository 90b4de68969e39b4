//! Echoes: members that say that a beacon of ours reached them.

use protocol::{
    PeerId, json,
    wire::{Echo, EventAck, Protocol},
};

use super::{ASK_WITHIN, ServeError, WRITE_WITHIN, busy, refuse};
use crate::{
    beacon::{self, Msg},
    context::Context,
    supervision::Class,
    swarm::streams::{Io, Patience},
};

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    let max = Protocol::Echo.value_bytes_max();
    let read = io.read(Patience::OPENING, |value| json::parse::<Echo>(value.bytes, max)).await?;
    let Some(echo) = read.transpose()? else { return Ok(()) };
    let ask = |reply| Msg::Echoed { from: peer, echo, reply };
    match context.addresses.beacon.ask(Class::Search, ask, ASK_WITHIN).await {
        Ok(Ok(())) => {
            io.write(&EventAck { ok: true }, WRITE_WITHIN).await?;
            io.close().await;
            Ok(())
        }
        Ok(Err(uncounted)) => refuse(io, &beacon::refused(&uncounted)).await,
        Err(error) => refuse(io, &busy(&error)).await,
    }
}
