//! Events of other members: each is judged, written down, and only then said to be taken. Those that come one behind the
//! other, with nobody waiting in between, are written down together.

use std::time::Duration;

use protocol::{
    PeerId,
    event::{self, Event, EventAck, Verb},
    planner,
    relation::Relation,
    signed::{SignedError, Verified},
    wire::Refused,
};

use super::{ServeError, WRITE_WITHIN, busy, turn_away};
use crate::{
    context::Context,
    policy,
    sharing::{self, Wanted},
    supervision::Class,
    swarm::streams::{Io, Patience},
};

/// For policy to say what a peer is to us; it has a table and no more.
const RELATION_WITHIN: Duration = Duration::from_secs(2);

/// For events to be on the disk. The author waits for ten seconds.
const KEEP_WITHIN: Duration = Duration::from_secs(8);

/// Events that came one behind the other and are written down together: as many as their author sends before it waits.
const RUN_MAX: usize = 64;

/// Bytes of such a run without its last event: the room of a stream, which is what may have come while the former run was
/// written down.
const RUN_BYTES_MAX: usize = 256 * 1024;

/// Events that are judged and good, and what came behind them.
#[derive(Default)]
struct Run {
    wanted: Vec<Wanted>,
    bytes: usize,
    end: Option<End>,
}

/// Why no more events of a stream are taken in.
enum End {
    /// The peer has said all.
    Closed,
    /// An event is not taken, and so none behind it.
    Refused(Refused),
    /// The stream broke, or what came is no event.
    Broken(ServeError),
}

pub(super) async fn serve(context: &Context, peer: PeerId, verb: Verb, mut io: Io) -> Result<(), ServeError> {
    let mut patience = Patience::OPENING;
    let next = match verb {
        Verb::Planner => {
            io.live(Some(planner::LIFE));
            Patience::idle(planner::LIFE)
        }
        _ => Patience::NEXT,
    };
    while io.begins(patience).await? {
        patience = next;
        let Run { wanted, end, .. } = take_in(context, peer, verb, &mut io).await;
        for kept in keep(context, wanted).await {
            match kept {
                Ok(()) => {
                    context.stats.events_taken.inc();
                    io.write(&EventAck { ok: true }, WRITE_WITHIN).await?;
                }
                Err(refused) => {
                    context.stats.events_refused.inc();
                    return turn_away(io, &refused).await;
                }
            }
        }
        match end {
            None => {}
            Some(End::Closed) => return Ok(()),
            Some(End::Refused(refused)) => {
                context.stats.events_refused.inc();
                return turn_away(io, &refused).await;
            }
            Some(End::Broken(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Takes in the event that has begun, and those that are here behind it already.
async fn take_in(context: &Context, peer: PeerId, verb: Verb, io: &mut Io) -> Run {
    let mut run = Run::default();
    while run.end.is_none() {
        match take_one(context, peer, verb, io).await {
            Ok((wanted, bytes)) => {
                run.wanted.push(wanted);
                run.bytes += bytes;
            }
            Err(end) => run.end = Some(end),
        }
        if run.wanted.len() >= RUN_MAX || run.bytes >= RUN_BYTES_MAX || !io.has_begun() {
            break;
        }
    }
    run
}

/// One event that has begun, and its length.
async fn take_one(context: &Context, peer: PeerId, verb: Verb, io: &mut Io) -> Result<(Wanted, usize), End> {
    // Whoever is not welcome, or comes too often, is told so before a mebibyte of it is taken in.
    let relation = admit(context, peer, verb).await.map_err(End::Refused)?;
    let read = io.read(Patience::NEXT, |value| String::from_utf8_lossy(value.bytes).into_owned()).await;
    let text = read.map_err(|error| End::Broken(error.into()))?.ok_or(End::Closed)?;
    let opened = match Verified::<Event>::open(&text, context.now().wall) {
        Err(SignedError::Malformed(error)) => return Err(End::Broken(error.into())),
        opened => opened,
    };
    let wanted = judge(context, peer, verb, relation, opened).map_err(End::Refused)?;
    Ok((wanted, text.len()))
}

/// What the peer is to us, if one more event for this verb may come from it now.
pub(super) async fn admit(context: &Context, peer: PeerId, verb: Verb) -> Result<Relation, Refused> {
    let ask = |reply| policy::Msg::Event { peer, verb, reply };
    let admitted = context.addresses.policy.ask(Class::Control, ask, RELATION_WITHIN).await;
    admitted.unwrap_or_else(|error| Err(busy(&error)))
}

fn judge(
    context: &Context,
    peer: PeerId,
    verb: Verb,
    relation: Relation,
    opened: Result<Verified<Event>, SignedError>,
) -> Result<Wanted, Refused> {
    let event = opened.map_err(|error| Refused::new(error.refusal(), error.to_string()))?;
    event::judge(&event, verb, &peer, relation)?;
    let told = event::told(&event, context.now().wall)?;
    Ok(Wanted::of_peer(event.value().clone(), told))
}

/// Has events written down, and tells what became of each up to the first that was not.
async fn keep(context: &Context, wanted: Vec<Wanted>) -> Vec<Result<(), Refused>> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let ask = |reply| sharing::Msg::Told { wanted, reply };
    let kept = context.addresses.sharing.ask(Class::Search, ask, KEEP_WITHIN).await;
    kept.unwrap_or_else(|error| vec![Err(busy(&error))])
}
