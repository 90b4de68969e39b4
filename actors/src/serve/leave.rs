//! A member says that it goes, before it goes.

use protocol::{
    PeerId,
    record::Leave,
    signed::Verified,
    wire::{LeaveAck, Protocol, RefusalCode, Refused},
};

use super::{ServeError, WRITE_WITHIN, admit, blame, refuse};
use crate::{
    context::{Context, inform},
    leave, presence,
    supervision::Class,
    swarm::streams::{Io, Patience},
};

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    // A node has no gate; it hears those alone whom it asked to carry it.
    if context.own.role.indexer
        && let Err(refused) = admit(context, peer, Protocol::Leave).await
    {
        return refuse(io, &refused).await;
    }
    let read = io.read(Patience::OPENING, |value| String::from_utf8_lossy(value.bytes).into_owned()).await?;
    let Some(text) = read else { return Ok(()) };
    let leave = match Verified::<Leave>::open(&text, context.now().wall) {
        Ok(leave) if leave.peer_id == peer => leave,
        Ok(leave) => {
            let detail = format!("the leave is of {}", leave.peer_id);
            return refuse(io, &Refused::new(RefusalCode::NotYours, detail)).await;
        }
        Err(error) => {
            blame(context, peer, &error);
            return refuse(io, &Refused::new(error.refusal(), error.to_string())).await;
        }
    };
    context.note("peer_left", peer, format!("{} alternatives", leave.alternatives.len()));
    if leave.role.indexer {
        inform(&context.addresses.presence, Class::Control, presence::Msg::Ended { peer, born_at: leave.born_at });
    }
    leave::heard(context, &leave);
    io.write(&LeaveAck { ok: true }, WRITE_WITHIN).await?;
    io.close().await;
    Ok(())
}
