//! Events of other members: each is judged, written down, and only then said to be taken.

use std::time::Duration;

use protocol::{
    PeerId,
    event::{self, Event, EventAck, Verb},
    planner,
    relation::Relation,
    signed::{SignedError, Verified},
    wire::{RefusalCode, Refused},
};

use super::{ServeError, WRITE_WITHIN, busy, refuse};
use crate::{
    context::Context,
    policy,
    sharing::{self, Wanted},
    supervision::Class,
    swarm::streams::{Io, Patience},
};

/// For policy to say what a peer is to us; it has a table and no more.
const RELATION_WITHIN: Duration = Duration::from_secs(2);

/// For an event to be on the disk. The author waits for ten seconds.
const KEEP_WITHIN: Duration = Duration::from_secs(8);

pub(super) async fn serve(context: &Context, peer: PeerId, verb: Verb, mut io: Io) -> Result<(), ServeError> {
    let mut patience = Patience::OPENING;
    let next = match verb {
        Verb::Planner => {
            io.live(Some(planner::LIFE));
            Patience::idle(planner::LIFE)
        }
        _ => Patience::NEXT,
    };
    loop {
        let read = io.read(patience, |value| String::from_utf8_lossy(value.bytes).into_owned()).await?;
        let Some(text) = read else { return Ok(()) };
        patience = next;
        let opened = Verified::<Event>::open(&text, context.now().wall);
        if let Err(SignedError::Malformed(error)) = opened {
            return Err(error.into());
        }
        match take(context, peer, verb, opened).await {
            Ok(()) => {
                context.stats.events_taken.inc();
                io.write(&EventAck { ok: true }, WRITE_WITHIN).await?;
            }
            Err(refused) => {
                context.stats.events_refused.inc();
                return refuse(io, &refused).await;
            }
        }
    }
}

/// What the peer is to us.
pub(super) async fn relation_of(context: &Context, peer: PeerId) -> Result<Relation, Refused> {
    let ask = |reply| policy::Msg::Relation { peer, reply };
    let relation = context.addresses.policy.ask(Class::Control, ask, RELATION_WITHIN).await;
    relation.map_err(|error| busy(&error))?.ok_or_else(|| {
        let detail = "this member is reading back what you are to it";
        Refused::new(RefusalCode::Busy, detail).retry_after(1)
    })
}

async fn take(
    context: &Context,
    peer: PeerId,
    verb: Verb,
    opened: Result<Verified<Event>, SignedError>,
) -> Result<(), Refused> {
    let event = opened.map_err(|error| Refused::new(error.refusal(), error.to_string()))?;
    let relation = relation_of(context, peer).await?;
    event::judge(&event, verb, &peer, relation)?;
    let told = event::told(&event, context.now().wall)?;
    let wanted = Box::new(Wanted::of_peer(event.value().clone(), told));
    let ask = |reply| sharing::Msg::Told { wanted, reply };
    context.addresses.sharing.ask(Class::Search, ask, KEEP_WITHIN).await.unwrap_or_else(|error| Err(busy(&error)))
}
