//! Records published over a stream of their own, each answered by a receipt.

use protocol::{
    PeerId,
    record::PeerRecord,
    signed::Verified,
    wire::{Protocol, PublishReceipt},
};

use super::{ASK_WITHIN, ServeError, WRITE_WITHIN, admit, blame, busy, refuse};
use crate::{
    context::Context,
    registry,
    supervision::Class,
    swarm::streams::{Io, Patience},
};

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    let mut patience = Patience::OPENING;
    loop {
        let read = io.read(patience, |value| String::from_utf8_lossy(value.bytes).into_owned()).await?;
        let Some(text) = read else { return Ok(()) };
        patience = Patience::NEXT;
        if let Err(refused) = admit(context, peer, Protocol::Publish).await {
            return refuse(io, &refused).await;
        }
        let receipt = match Verified::<PeerRecord>::open(&text, context.now().wall) {
            Ok(record) => {
                let ask = |reply| registry::Msg::Publish { from: peer, record: Box::new(record), reply };
                match context.addresses.registry.ask(Class::Control, ask, ASK_WITHIN).await {
                    Ok(receipt) => receipt,
                    Err(error) => return refuse(io, &busy(&error)).await,
                }
            }
            Err(error) => {
                blame(context, peer, &error);
                PublishReceipt { seq: 0, accepted: false, reason: Some(error.to_string()), record_seq: 0 }
            }
        };
        match receipt.accepted {
            true => drop(context.stats.publishes_accepted.inc()),
            false => drop(context.stats.records_refused.inc()),
        }
        io.write(&receipt, WRITE_WITHIN).await?;
    }
}
