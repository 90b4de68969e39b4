//! Tokens of our nodes for whoever counts them: another indexer, or a node of ours.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use protocol::{
    PeerId, json,
    presence::audit::Salt,
    wire::{AuditRequest, AuditResponse, Protocol, RefusalCode, Refused},
};

use super::{ASK_WITHIN, ServeError, WRITE_WITHIN, admit, busy, refuse};
use crate::{
    audit,
    context::Context,
    peers, registry,
    supervision::Class,
    swarm::streams::{Io, Patience},
};

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    let max = Protocol::Audit.value_bytes_max();
    let read = io.read(Patience::OPENING, |value| json::parse::<AuditRequest>(value.bytes, max)).await?;
    let Some(request) = read.transpose()? else { return Ok(()) };
    match answer(context, peer, &request).await {
        Ok(answer) => io.write(&answer, WRITE_WITHIN).await?,
        Err(refused) => return refuse(io, &refused).await,
    }
    io.close().await;
    Ok(())
}

/// Which nodes we serve is for other indexers to count, and for those who rely on us; our answers name witnesses to them
/// anyway. It is for nobody else to list.
async fn answer(context: &Context, asker: PeerId, request: &AuditRequest) -> Result<AuditResponse, Refused> {
    let salt = BASE64.decode(&request.salt).ok().and_then(|salt| Salt::try_from(salt).ok());
    let salt = salt.ok_or_else(|| {
        Refused::new(RefusalCode::Invalid, "got something else in \"salt\", expected base64 of 32 bytes")
    })?;
    let role = |reply| peers::Msg::Role { peer: asker, reply };
    let role = context.addresses.peers.ask(Class::Search, role, ASK_WITHIN).await.map_err(|error| busy(&error))?;
    let has_session = |reply| registry::Msg::HasSession { peer: asker, reply };
    if !role.indexer
        && !context
            .addresses
            .registry
            .ask(Class::Search, has_session, ASK_WITHIN)
            .await
            .map_err(|error| busy(&error))?
    {
        let detail = "got an audit by a stranger, expected one by an indexer or by a node with a session here";
        return Err(Refused::new(RefusalCode::UnknownPeer, detail));
    }
    admit(context, asker, Protocol::Audit).await?;
    let show = |reply| audit::Msg::Show { asker, salt, epoch: request.epoch, reply };
    let shown = context.addresses.audit.ask(Class::Search, show, ASK_WITHIN).await;
    let shown = shown.unwrap_or_else(|error| Err(busy(&error)))?;
    Ok(AuditResponse { tokens: shown.iter().map(protocol::signed::Verified::to_raw).collect() })
}
