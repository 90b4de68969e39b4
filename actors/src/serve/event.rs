//! Events of other members: each is judged, written down, and only then said to be taken.

use std::time::Duration;

use protocol::{
    PeerId,
    event::{self, Event, EventAck, Verb},
    planner,
    relation::Relation,
    signed::{SignedError, Verified},
    wire::Refused,
};

use super::{ServeError, WRITE_WITHIN, busy, refuse, turn_away};
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
        if !io.begins(patience).await? {
            return Ok(());
        }
        patience = next;
        // Whoever is not welcome, or comes too often, is told so before a mebibyte of it is taken in.
        let relation = match admit(context, peer, verb).await {
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
        match take(context, peer, verb, relation, opened).await {
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

/// What the peer is to us, if one more event for this verb may come from it now.
pub(super) async fn admit(context: &Context, peer: PeerId, verb: Verb) -> Result<Relation, Refused> {
    let ask = |reply| policy::Msg::Event { peer, verb, reply };
    let admitted = context.addresses.policy.ask(Class::Control, ask, RELATION_WITHIN).await;
    admitted.unwrap_or_else(|error| Err(busy(&error)))
}

async fn take(
    context: &Context,
    peer: PeerId,
    verb: Verb,
    relation: Relation,
    opened: Result<Verified<Event>, SignedError>,
) -> Result<(), Refused> {
    let event = opened.map_err(|error| Refused::new(error.refusal(), error.to_string()))?;
    event::judge(&event, verb, &peer, relation)?;
    let told = event::told(&event, context.now().wall)?;
    let wanted = Box::new(Wanted::of_peer(event.value().clone(), told));
    let ask = |reply| sharing::Msg::Told { wanted, reply };
    context.addresses.sharing.ask(Class::Search, ask, KEEP_WITHIN).await.unwrap_or_else(|error| Err(busy(&error)))
}
