//! Delivering: rows of the outbox are sent to one partner, in their order, and the fate of each is written down.
//!
//! These run in tasks beside the actors, never in a handler. Each event is signed anew at each sending, and keeps its name.

use std::time::Duration;

use ::store::{Destination, Fate, OutboxRow, Write};
use protocol::{
    PeerId,
    delivery::{PAUSE_FIRST, Turn},
    event::{Event, EventAck, Verb},
    json, planner,
    relation::Relation,
    signed::Verified,
    wire::{Answer, RefusalCode, Refused},
};
use tracing::{debug, warn};

use crate::{
    context::Context,
    fetch::FetchError,
    policy, reach,
    store::{self, Kept},
    supervision::Class,
    swarm::streams::{Io, IoError, Patience},
};

/// Rows of one partner in memory at once: a commit at their end costs as much as one. The store answers with fewer when they
/// are long, so those of all partners that are sent to take 16 MiB.
const BATCH_MAX: u32 = 64;

/// For a partner to be reached, a look at its record in the federation included.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// For a partner to take an event, and again to write it down and say so; its database may be slow.
const TAKE_WITHIN: Duration = Duration::from_secs(10);

/// For an actor of our own to answer.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// No partner makes us wait longer before we ask again.
const WAIT_MAX: u64 = 3_600;

/// What one partner is sent by.
pub(crate) struct Sender {
    context: Context,
    partner: PeerId,
    stream: Option<(Verb, Io)>,
    taken: u64,
}

/// Why a partner's turn ended before its rows did.
enum Stopped {
    /// It is away, or so busy that it said so.
    Later { detail: String, not_before: Duration },
    /// It takes no more for so long.
    Wait { detail: String, wait: Duration },
    /// We could not write down what became of what we sent: it is sent again, and taken once.
    Unwritten,
}

impl Sender {
    /// To this partner, over a stream that is open already, if one is.
    pub(crate) const fn new(context: Context, partner: PeerId, stream: Option<(Verb, Io)>) -> Self {
        Self { context, partner, stream, taken: 0 }
    }

    /// Events that the partner took.
    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }

    /// The stream, where it is still of use.
    pub(crate) fn into_stream(self) -> Option<(Verb, Io)> {
        self.stream
    }

    /// Sends what waits for the destination, batch by batch.
    pub(crate) async fn deliver(&mut self, destination: Destination) -> Turn {
        let mut after = 0;
        loop {
            let rows = self.context.database.outbox_next(&destination, after, BATCH_MAX).await;
            let Some(rows) = store::told(&self.context, rows) else {
                return Turn::Failed { not_before: Duration::ZERO };
            };
            let Some(last) = rows.rows.last() else { return Turn::Emptied };
            after = last.id;
            let outcome = self.deliver_batch(&rows.rows).await;
            // Only a session's stream outlives a batch: any other is two minutes old at most.
            if !matches!(self.stream, Some((Verb::Planner, _))) {
                self.close().await;
            }
            let partner = self.partner;
            match outcome {
                Ok(()) => {}
                Err(Stopped::Later { detail, not_before }) => {
                    debug!(%partner, detail, "what waits for a partner goes on waiting");
                    return Turn::Failed { not_before };
                }
                Err(Stopped::Wait { detail, wait }) => {
                    debug!(%partner, detail, "a partner takes no more for now");
                    return Turn::Wait(wait);
                }
                Err(Stopped::Unwritten) => return Turn::Failed { not_before: Duration::ZERO },
            }
        }
    }

    /// Ends the stream, if one is open.
    pub(crate) async fn close(&mut self) {
        if let Some((_, io)) = self.stream.take() {
            io.close().await;
        }
    }

    /// Sends the rows in their order, over one stream per run of the same verb, and writes down what became of each.
    async fn deliver_batch(&mut self, rows: &[OutboxRow]) -> Result<(), Stopped> {
        let (context, partner) = (self.context.clone(), self.partner);
        let ask = |reply| policy::Msg::Relation { peer: partner, reply };
        let relation = context.addresses.policy.ask(Class::Control, ask, ASK_WITHIN).await;
        let Ok(Some(relation)) = relation else {
            let detail = "it is not known what it is to us".to_owned();
            return Err(Stopped::Later { detail, not_before: Duration::ZERO });
        };
        let mut fates: Vec<Write> = Vec::with_capacity(rows.len());
        let mut stopped = None;
        let mut left = rows;
        while let Some(row) = left.first() {
            let why = match Verb::named(&row.outgoing.subject) {
                None => Some("no verb of this version"),
                Some(verb) => not_for(verb, relation),
            };
            if let Some(why) = why {
                fates.push(ended(&context, row, Fate::Refused, why));
                left = &left[1..];
                continue;
            }
            let Sent { taken, error } = self.send(run_of(left)).await;
            self.taken += taken as u64;
            context.stats.events_delivered.inc_by(taken as u64);
            fates.extend(left[..taken].iter().map(|row| ended(&context, row, Fate::Delivered, "")));
            left = &left[taken..];
            let (Some(error), Some(row)) = (error, left.first()) else { continue };
            let Some(again) = again(&error) else {
                warn!(%partner, id = row.id, %error, "a partner refused an event for good");
                context.stats.events_refused_by_peers.inc();
                fates.push(ended(&context, row, Fate::Refused, &error.to_string()));
                left = &left[1..];
                continue;
            };
            let detail = error.to_string();
            let (is_failure, pause) = match again {
                Again::Later { not_before } => (true, not_before),
                Again::Wait { wait } => (false, wait),
            };
            let next_at = context.now().wall.checked_add(pause.max(PAUSE_FIRST)).ok();
            let attempts = row.attempts.saturating_add(u32::from(is_failure));
            fates.push(Write::OutboxTried { id: row.id, attempts, next_at, detail: detail.clone() });
            stopped = Some(match is_failure {
                true => Stopped::Later { detail, not_before: pause },
                false => Stopped::Wait { detail, wait: pause },
            });
            break;
        }
        let ask = |reply| store::Msg::Promises { writes: fates, reply };
        let kept = context.addresses.store.ask(Class::Control, ask, ASK_WITHIN).await;
        if !matches!(kept, Ok(Kept::Written)) {
            return Err(Stopped::Unwritten);
        }
        stopped.map_or(Ok(()), Err)
    }

    /// Sends events of one verb, one behind the other, and waits until the partner has them on its disk.
    async fn send(&mut self, rows: &[OutboxRow]) -> Sent {
        let Some(verb) = rows.first().and_then(|row| Verb::named(&row.outgoing.subject)) else {
            return Sent { taken: 0, error: None };
        };
        let mut taken = 0;
        let outcome = self.send_counted(verb, rows, &mut taken).await;
        if outcome.is_err() {
            // Whoever refuses closes, and a broken stream is of no use for the next event.
            self.stream = None;
        }
        Sent { taken, error: outcome.err() }
    }

    async fn send_counted(&mut self, verb: Verb, rows: &[OutboxRow], taken: &mut usize) -> Result<(), FetchError> {
        if !matches!(self.stream, Some((of, _)) if of == verb) {
            self.close().await;
        }
        let (context, partner) = (&self.context, self.partner);
        let (_, io) = match &mut self.stream {
            Some(open) => open,
            None => {
                let mut io = reach::open(context, partner, verb.protocol(), OPEN_WITHIN).await?;
                if verb == Verb::Planner {
                    io.live(Some(planner::LIFE));
                }
                self.stream.insert((verb, io))
            }
        };
        for row in rows {
            let signed = Verified::sign(&event(context, verb, row), &context.keys);
            match io.write_text(signed.text().as_bytes(), TAKE_WITHIN).await {
                Ok(()) => {}
                // Its answers to what it took are read still, and its refusal of what it did not.
                Err(IoError::Closed) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let max = verb.protocol().value_bytes_max();
        while *taken < rows.len() {
            let patience = Patience::within(TAKE_WITHIN);
            let read = io.read(patience, |value| json::parse::<Answer<EventAck>>(value.bytes, max)).await?;
            match read.ok_or(FetchError::Ended)?? {
                Answer::Given(EventAck { ok: true }) => *taken += 1,
                Answer::Given(EventAck { ok: false }) => return Err(FetchError::Ended),
                Answer::Refused(refused) => return Err(FetchError::Refused(refused)),
            }
        }
        Ok(())
    }
}

/// What became of events that were sent one behind the other.
struct Sent {
    /// So many of the first are on the partner's disk.
    taken: usize,
    /// What became of the one behind them.
    error: Option<FetchError>,
}

/// The first rows that are sent before their answers are waited for: those of one verb. A step of a plan waits for the last:
/// one that is refused for now must not be overtaken by the next, and steps have no versions by which that would be seen.
fn run_of(rows: &[OutboxRow]) -> &[OutboxRow] {
    let Some(first) = rows.first() else { return rows };
    let subject = &first.outgoing.subject;
    if Verb::named(subject) == Some(Verb::Planner) {
        return &rows[..1];
    }
    let same = rows.iter().take_while(|row| row.outgoing.subject == *subject).count();
    &rows[..same]
}

fn event(context: &Context, verb: Verb, row: &OutboxRow) -> Event {
    let outgoing = &row.outgoing;
    Event {
        verb,
        from: context.own.peer_id,
        user: outgoing.user.clone(),
        groups: outgoing.groups.to_vec(),
        datatype: outgoing.datatype.clone(),
        id: outgoing.message_id.clone(),
        ts: context.now().wall,
        payload: outgoing.payload.to_vec(),
    }
}

/// Why this is no longer for a peer that is this to us, if it is not: it waited while that changed.
const fn not_for(verb: Verb, relation: Relation) -> Option<&'static str> {
    match (verb, relation) {
        (_, Relation::Blacklist) => Some("it is on our blacklist"),
        // That something is gone is told to those who hear of nothing else any more.
        (Verb::Create | Verb::Update, Relation::Known | Relation::None) => Some("it is no partner any more"),
        _ => None,
    }
}

fn ended(context: &Context, row: &OutboxRow, fate: Fate, detail: &str) -> Write {
    Write::OutboxEnded { id: row.id, fate, at: context.now().wall, detail: detail.to_owned() }
}

/// How what was not taken is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// It failed, and the partner may have said how long to wait at least.
    Later { not_before: Duration },
    /// Nothing failed: the partner took as much as it takes, and said when it takes more.
    Wait { wait: Duration },
}

/// Whether and how the same is sent again; nothing for what will never be taken.
fn again(error: &FetchError) -> Option<Again> {
    let FetchError::Refused(Refused { refused, retry_after, .. }) = error else {
        return Some(Again::Later { not_before: Duration::ZERO });
    };
    let told = retry_after.map(|secs| Duration::from_secs(secs.min(WAIT_MAX)));
    match (refused, told) {
        (RefusalCode::Invalid | RefusalCode::NotYours | RefusalCode::Version | RefusalCode::Network, _) => None,
        (RefusalCode::Limit, Some(wait)) => Some(Again::Wait { wait }),
        (
            RefusalCode::Busy
            | RefusalCode::Banned
            | RefusalCode::Clock
            | RefusalCode::Limit
            | RefusalCode::UnknownPeer,
            told,
        ) => Some(Again::Later { not_before: told.unwrap_or_default() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_for_a_partner_is_not_sent_to_one_that_is_none_any_more() {
        for verb in Verb::ALL {
            assert_eq!(not_for(verb, Relation::Partner), None);
            assert!(not_for(verb, Relation::Blacklist).is_some());
        }
        assert!(not_for(Verb::Update, Relation::None).is_some() && not_for(Verb::Create, Relation::Known).is_some());
        assert_eq!(not_for(Verb::Delete, Relation::None), None);
        assert_eq!(not_for(Verb::Considers, Relation::Known), None);
    }

    #[test]
    fn only_what_will_never_be_taken_is_given_up_at_once() {
        let at_once = Some(Again::Later { not_before: Duration::ZERO });
        let refused = |code| again(&FetchError::Refused(Refused::new(code, "x")));
        for code in [RefusalCode::Invalid, RefusalCode::NotYours, RefusalCode::Version, RefusalCode::Network] {
            assert_eq!(refused(code), None, "{code:?}");
        }
        for code in [RefusalCode::Busy, RefusalCode::Clock, RefusalCode::Banned, RefusalCode::UnknownPeer] {
            assert_eq!(refused(code), at_once, "{code:?}");
        }
        assert_eq!(again(&FetchError::Ended), at_once);
        let in_a_while = FetchError::Refused(Refused::new(RefusalCode::Busy, "x").retry_after(90_000));
        let an_hour = Duration::from_secs(3_600);
        assert_eq!(again(&in_a_while), Some(Again::Later { not_before: an_hour }), "an hour is enough for anybody");
    }

    #[test]
    fn a_partner_that_took_as_much_as_it_takes_is_waited_for_and_has_not_failed() {
        let limited = |secs| again(&FetchError::Refused(Refused::new(RefusalCode::Limit, "x").retry_after(secs)));
        assert_eq!(limited(53), Some(Again::Wait { wait: Duration::from_secs(53) }));
        assert_eq!(limited(3_600), limited(90_000));
        // One that does not say for how long is asked again with growing pauses.
        let unsaid = again(&FetchError::Refused(Refused::new(RefusalCode::Limit, "x")));
        assert_eq!(unsaid, Some(Again::Later { not_before: Duration::ZERO }));
    }

    fn row(id: u64, verb: Verb) -> OutboxRow {
        let outgoing = ::store::Outgoing {
            destination: Destination::Bus,
            subject: verb.name().to_owned(),
            user: String::new(),
            groups: std::sync::Arc::new([]),
            datatype: String::new(),
            payload: std::sync::Arc::new([]),
            message_id: id.to_string(),
            may_drop: false,
        };
        let created_at = protocol::Timestamp::UNIX_EPOCH;
        let (next_at, ended_at) = (None, None);
        let fate = Fate::Waiting;
        OutboxRow { id, outgoing, bytes: 0, created_at, attempts: 0, next_at, fate, ended_at, detail: String::new() }
    }

    #[test]
    fn events_of_one_verb_go_together_and_steps_of_a_plan_one_by_one() {
        use Verb::{Create, Planner, Update};
        for (verbs, together) in [
            (vec![], 0),
            (vec![Create], 1),
            (vec![Create, Create, Create, Update, Create], 3),
            (vec![Update, Create], 1),
            (vec![Planner, Planner], 1),
            (vec![Update, Update, Planner], 2),
        ] {
            let rows: Vec<OutboxRow> = (1..).zip(&verbs).map(|(id, verb)| row(id, *verb)).collect();
            assert_eq!(run_of(&rows).len(), together, "{verbs:?}");
        }
    }
}
