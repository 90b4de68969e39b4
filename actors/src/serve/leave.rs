//! A member says that it goes, before it goes.

use protocol::{
    PeerId,
    record::Leave,
    signed::Verified,
    wire::{LeaveAck, RefusalCode, Refused},
};

use super::{ServeError, WRITE_WITHIN, refuse};
use crate::{
    context::{Context, inform},
    gate, pool, registry, suggestions,
    supervision::Class,
    swarm::streams::{Io, Patience},
};

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    let read = io.read(Patience::OPENING, |value| String::from_utf8_lossy(value.bytes).into_owned()).await?;
    let Some(text) = read else { return Ok(()) };
    let leave = match Verified::<Leave>::open(&text, context.now().wall) {
        Ok(leave) if leave.peer_id == peer => leave,
        Ok(leave) => {
            let detail = format!("the leave is of {}", leave.peer_id);
            return refuse(io, &Refused::new(RefusalCode::NotYours, detail)).await;
        }
        Err(error) => return refuse(io, &Refused::new(error.refusal(), error.to_string())).await,
    };
    if leave.restart {
        inform(&context.addresses.gate, Class::Control, gate::Msg::ExpectBack { peer });
    }
    context.note("peer_left", peer, format!("{} alternatives", leave.alternatives.len()));
    inform(&context.addresses.registry, Class::Control, registry::Msg::Left { peer });
    inform(&context.addresses.suggestions, Class::Control, suggestions::Msg::Gone { peer });
    let alternatives = leave.alternatives.clone();
    inform(&context.addresses.pool, Class::Control, pool::Msg::Left { peer, alternatives });
    io.write(&LeaveAck { ok: true }, WRITE_WITHIN).await?;
    io.close().await;
    Ok(())
}
