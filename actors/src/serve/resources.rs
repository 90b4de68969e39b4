//! Searches for resources: a question of another member, and the answers of one that heard ours by gossip.

use protocol::{
    PeerId,
    event::{Event, Verb},
    search::resources::Word,
    signed::{SignedError, Verified},
    wire::{EventAck, RefusalCode, Refused, ResourceAnswer},
};

use super::{ASK_WITHIN, ServeError, WRITE_WITHIN, busy, refuse};
use crate::{
    context::Context,
    resources::{self, Msg},
    supervision::Class,
    swarm::streams::{Io, Patience},
};

/// To look a catalogue through, besides asking for it.
const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_secs(4);

/// A value on its way in: the event, or how its peer is told no.
type Taken = Result<Verified<Event>, (Refused, Option<ServeError>)>;

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    let mut patience = Patience::OPENING;
    loop {
        let now = context.now().wall;
        // Verified where it lies in the stream's buffer: it is a mebibyte at most, and copied once.
        let read = io.read(patience, |value| open(peer, value.bytes, now)).await?;
        patience = Patience::NEXT;
        let event = match read {
            None => return Ok(()),
            Some(Ok(event)) => event,
            Some(Err((refused, error))) => {
                refuse(io, &refused).await?;
                return error.map_or(Ok(()), Err);
            }
        };
        match Word::read(&event.payload) {
            Ok(Word::Question(_)) => return answer(context, event, io).await,
            Ok(Word::Answer(answer)) => {
                let is_last = answer.last;
                if let Err(refused) = take(context, peer, &answer).await {
                    return refuse(io, &refused).await;
                }
                if is_last {
                    io.write(&EventAck { ok: true }, WRITE_WITHIN).await?;
                    io.close().await;
                    return Ok(());
                }
            }
            Err(error) => {
                refuse(io, &Refused::new(RefusalCode::Invalid, error.to_string())).await?;
                return Err(error.into());
            }
        }
    }
}

fn open(peer: PeerId, bytes: &[u8], now: protocol::Timestamp) -> Taken {
    let refused = |code, detail: &str| (Refused::new(code, detail), None);
    let text = str::from_utf8(bytes).map_err(|_| refused(RefusalCode::Invalid, "got bytes that are not UTF-8"))?;
    let event = Verified::<Event>::open(text, now).map_err(|error| {
        let refused = Refused::new(error.refusal(), error.to_string());
        match error {
            SignedError::Malformed(error) => (refused, Some(error.into())),
            _ => (refused, None),
        }
    })?;
    if event.from != peer {
        return Err(refused(RefusalCode::NotYours, "got an event of another author than this connection's peer"));
    }
    if event.verb != Verb::Search {
        return Err(refused(RefusalCode::Invalid, "got an event of another protocol, expected one for \"search\""));
    }
    Ok(event)
}

async fn answer(context: &Context, event: Verified<Event>, mut io: Io) -> Result<(), ServeError> {
    let ask = |reply| Msg::Asked { event: Box::new(event), reply };
    let answers = context.addresses.resources.ask(Class::Search, ask, ANSWER_WITHIN).await;
    match answers.unwrap_or_else(|error| Err(busy(&error))) {
        Ok(answers) => {
            for event in answers {
                io.write_text(event.text().as_bytes(), WRITE_WITHIN).await?;
            }
            io.close().await;
            Ok(())
        }
        Err(refused) => refuse(io, &refused).await,
    }
}

/// Takes an answer to a question of ours, if there is one that this peer may answer.
async fn take(context: &Context, peer: PeerId, answer: &ResourceAnswer) -> Result<(), Refused> {
    let to = &context.addresses.resources;
    let query_id = answer.query_id.clone();
    let expects = |reply| Msg::Expects { from: peer, query_id, reply };
    match to.ask(Class::Search, expects, ASK_WITHIN).await {
        Ok(true) => {}
        Ok(false) => {
            context.stats.resources_dropped.inc_by(answer.resources.len() as u64);
            return Err(Refused::new(RefusalCode::Invalid, "got an answer to no open search"));
        }
        Err(error) => return Err(busy(&error)),
    }
    let answered = resources::answered(context, peer, answer);
    let full = || Refused::new(RefusalCode::Busy, "too many answers at once").retry_after(1);
    to.tell(Class::Search, answered).map_err(|_| full())
}
