//! Is this signature ours? Asked by whoever holds a resource of ours and doubts it.

use protocol::{
    PeerId,
    catalogue::Resource,
    event::{self, Event, Verb, VerifyAnswer, VerifyQuestion},
    json,
    relation::Relation,
    signed::{SignedError, Verified},
    wire::{RefusalCode, Refused},
};

use super::{ServeError, WRITE_WITHIN, event::admit, refuse, turn_away};
use crate::{
    context::Context,
    store::told,
    swarm::streams::{Io, Patience},
};

/// Bytes of a question: an id, a number and a signature, and room for what a newer version says.
const QUESTION_BYTES_MAX: usize = 4 * 1024;

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    if !io.begins(Patience::OPENING).await? {
        return Ok(());
    }
    let relation = match admit(context, peer, Verb::Verify).await {
        Ok(relation) => relation,
        Err(refused) => {
            context.stats.events_refused.inc();
            return turn_away(io, &refused).await;
        }
    };
    let read = io.read(Patience::NEXT, |value| String::from_utf8_lossy(value.bytes).into_owned()).await?;
    let Some(text) = read else { return Ok(()) };
    let opened = Verified::<Event>::open(&text, context.now().wall);
    if let Err(SignedError::Malformed(error)) = opened {
        return Err(error.into());
    }
    match answer(context, peer, relation, opened).await {
        Ok(answer) => {
            io.write(&answer, WRITE_WITHIN).await?;
            io.close().await;
            Ok(())
        }
        Err(refused) => {
            context.stats.events_refused.inc();
            refuse(io, &refused).await
        }
    }
}

async fn answer(
    context: &Context,
    peer: PeerId,
    relation: Relation,
    opened: Result<Verified<Event>, SignedError>,
) -> Result<VerifyAnswer, Refused> {
    let event = opened.map_err(|error| Refused::new(error.refusal(), error.to_string()))?;
    let now = context.now().wall;
    event::judge(&event, Verb::Verify, &peer, relation)?;
    let question: VerifyQuestion = json::parse(&event.payload, QUESTION_BYTES_MAX)
        .map_err(|error| Refused::new(RefusalCode::Invalid, error.to_string()))?;
    let held = context.database.resource(&context.own.peer_id, &question.id).await;
    let held =
        told(context, held).ok_or_else(|| Refused::new(RefusalCode::Busy, "the database is away").retry_after(1))?;
    let Some(text) = held.and_then(|row| row.text) else { return Ok(VerifyAnswer { is_ours: false, version: None }) };
    let Ok(resource) = Verified::<Resource>::open(&text, now) else {
        return Ok(VerifyAnswer { is_ours: false, version: None });
    };
    let is_version = question.version.is_none_or(|version| version == resource.version);
    let is_ours = is_version && resource.signature() == question.signature;
    // Who does not know the signature learns nothing, not even that there is such a resource.
    Ok(VerifyAnswer { is_ours, version: is_ours.then_some(resource.version) })
}
