//! A key is to be believed no longer: somebody says so, or asks whose are not.
//!
//! Anybody may hand a revocation on, so nobody is blamed for one that does not verify.

use protocol::{
    PeerId, json,
    revocations::Revoke,
    signed::{SignedError, Verified},
    wire::{Protocol, RefusalCode, Refused, RevocationsRequest, RevokeAck},
};

use super::{ASK_WITHIN, ServeError, WRITE_WITHIN, busy, refuse};
use crate::{
    context::Context,
    revocations::{Fault, Msg, Source},
    supervision::Class,
    swarm::streams::{Io, Patience},
};

/// For one to be on the disk.
const KEEP_WITHIN: std::time::Duration = std::time::Duration::from_secs(4);

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    let read = io.read(Patience::OPENING, |value| String::from_utf8_lossy(value.bytes).into_owned()).await?;
    let Some(text) = read else { return Ok(()) };
    let revoke = match Verified::<Revoke>::open(&text, context.now().wall) {
        Ok(revoke) => Box::new(revoke),
        Err(error) => {
            match error.is_strike() {
                true => context.stats.revocations_forged.inc(),
                false => context.stats.revocations_refused.inc(),
            };
            if let SignedError::Malformed(error) = error {
                return Err(error.into());
            }
            return refuse(io, &Refused::new(error.refusal(), error.to_string())).await;
        }
    };
    let ask = |reply| Msg::Heard { revoke, from: Source::Peer(peer), reply };
    let heard = context.addresses.revocations.ask(Class::Control, ask, KEEP_WITHIN).await;
    let refused = match heard {
        Ok(Ok(_)) => {
            io.write(&RevokeAck { ok: true }, WRITE_WITHIN).await?;
            io.close().await;
            return Ok(());
        }
        Ok(Err(fault)) => {
            if matches!(fault, Fault::TooMany(_)) {
                context.stats.revocations_refused.inc();
            }
            fault.refusal()
        }
        Err(error) => busy(&error),
    };
    refuse(io, &refused).await
}

/// What is held here, a page of it.
pub(super) async fn tell(context: &Context, mut io: Io) -> Result<(), ServeError> {
    let max = Protocol::Revocations.value_bytes_max();
    let read = io.read(Patience::OPENING, |value| json::parse::<RevocationsRequest>(value.bytes, max)).await?;
    let Some(request) = read.transpose()? else { return Ok(()) };
    let ask = |reply| Msg::Page { after: request.after, reply };
    let page = match context.addresses.revocations.ask(Class::Search, ask, ASK_WITHIN).await {
        Ok(Some(page)) => page,
        Ok(None) => {
            let detail = "the revocations are being read back";
            return refuse(io, &Refused::new(RefusalCode::Busy, detail).retry_after(1)).await;
        }
        Err(error) => return refuse(io, &busy(&error)).await,
    };
    io.write(&page, WRITE_WITHIN).await?;
    io.close().await;
    Ok(())
}
