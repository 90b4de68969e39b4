//! Outbox: what waits for partners is sent to them, in order, until it is taken, refused or a day old.
//!
//! Owns [`protocol::delivery::Lanes`] and one task per partner that is sent to. Sharing tells it who has news, peers who
//! came, policy who is to be left alone. The rows are the store's: a task reads a batch, signs each event anew, and has
//! the fate of each written down once the partner said that it is on its disk. A restart forgets pauses; the lanes are
//! read back from the store. Bounds: those of the lanes; `BATCH_MAX` rows in memory per partner.

use std::{collections::HashMap, time::Duration};

use ::store::{Destination, Fate, OutboxRow, OutboxTotal, Write};
use protocol::{
    PeerId,
    delivery::{LIFE, Lanes, Turn},
    event::{Event, EventAck, Verb},
    json,
    relation::Relation,
    signed::Verified,
    wire::{Answer, RefusalCode, Refused},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::rngs::StdRng;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use crate::{
    context::{Context, inform},
    fetch::FetchError,
    policy, reach,
    store::{self, Kept},
    supervision::{Class, Envelope, Seat, Timer},
    swarm::streams::Io,
};

/// Rows of one partner in memory at once: a commit at their end costs as much as one. The store answers with fewer when they
/// are long, so those of all partners that are sent to take 16 MiB.
const BATCH_MAX: u32 = 16;

/// For a partner to be reached, a look at its record in the federation included.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// For a partner to write an event down and say so; its database may be slow.
const TAKE_WITHIN: Duration = Duration::from_secs(10);

/// For an actor of our own to answer.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// How often what is too old is given up, and lanes that had no room are looked for again.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The actor.
pub struct Outbox;

/// What one life is given.
pub struct Args {
    /// Its seat.
    pub seat: Seat<Msg>,
    /// The daemon's.
    pub context: Context,
}

/// What it holds.
pub struct State {
    seat: Seat<Msg>,
    context: Context,
    rng: StdRng,
    lanes: Lanes,
    running: HashMap<PeerId, AbortOnDropHandle<()>>,
    timer: Option<Timer>,
    _sweep: Timer,
}

/// What it is told and asked.
pub enum Msg {
    /// Something waits for these partners.
    Grew(Vec<PeerId>),
    /// This peer came, or was met.
    HeardOf(PeerId),
    /// This peer is not to be sent to; what waits for it grows old.
    Forget {
        /// Who.
        peer: PeerId,
    },
    /// What waited when this life began, or at the last sweep; nothing while the database is away.
    Recalled(Option<Vec<OutboxTotal>>),
    /// A task has done what it could.
    Ended {
        /// For whom.
        peer: PeerId,
        /// How far it came.
        turn: Turn,
    },
    /// A lane may be due.
    Tick,
    /// Time to look for what is too old.
    Sweep,
}

impl Actor for Outbox {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let rng = seat.rng();
        let sweep = seat.after(Duration::ZERO, Msg::Sweep);
        Ok(State { seat, context, rng, lanes: Lanes::default(), running: HashMap::new(), timer: None, _sweep: sweep })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Grew(partners) => state.grew(partners),
            Msg::HeardOf(peer) => state.lanes.heard_of(&peer, state.seat.now().mono),
            Msg::Forget { peer } => state.forget(&peer),
            Msg::Recalled(totals) => state.recalled(totals.unwrap_or_default()),
            Msg::Ended { peer, turn } => state.ended(&peer, turn),
            Msg::Tick => {}
            Msg::Sweep => state.sweep(),
        }
        state.run();
        Ok(())
    }
}

impl State {
    fn grew(&mut self, partners: Vec<PeerId>) {
        let now = self.seat.now().mono;
        for partner in partners {
            // Where there is no room the next sweep finds it again.
            self.lanes.grew(partner, now);
        }
    }

    fn recalled(&mut self, totals: Vec<OutboxTotal>) {
        let partners = totals.into_iter().filter_map(|total| match total.destination {
            Destination::Peer(peer) => Some(peer),
            Destination::Bus => None,
        });
        self.grew(partners.collect());
    }

    fn forget(&mut self, peer: &PeerId) {
        self.lanes.forget(peer);
        self.running.remove(peer);
    }

    fn ended(&mut self, peer: &PeerId, turn: Turn) {
        if self.running.remove(peer).is_some() {
            self.lanes.ended(peer, turn, self.seat.now().mono, &mut self.rng);
        }
    }

    fn sweep(&mut self) {
        let now = self.seat.now().wall;
        if let Ok(before) = now.checked_sub(LIFE) {
            inform(&self.context.addresses.store, Class::Control, store::Msg::ExpireOutbox { before });
        }
        let reply = self.seat.reply(Msg::Recalled);
        inform(&self.context.addresses.store, Class::Control, store::Msg::OutboxWaiting { reply });
        // Re-armed last, so that two never queue.
        self._sweep = self.seat.after(SWEEP_EVERY, Msg::Sweep);
    }

    fn run(&mut self) {
        let now = self.seat.now().mono;
        while let Some(partner) = self.lanes.next_turn(now) {
            let (context, me) = (self.context.clone(), self.seat.me().clone());
            let task = tokio::spawn(async move {
                let turn = deliver(&context, partner).await;
                inform(&me, Class::Own, Msg::Ended { peer: partner, turn });
            });
            self.running.insert(partner, AbortOnDropHandle::new(task));
        }
        self.timer = self.lanes.next_due().map(|due| self.seat.after(due.since(now), Msg::Tick));
    }
}

/// Why a partner's turn ended before its rows did.
enum Stopped {
    /// It is away, or so busy that it said so.
    Later { detail: String, not_before: Duration },
    /// We could not write down what became of what we sent: it is sent again, and taken once.
    Unwritten,
}

/// Sends what waits for the partner, batch by batch.
async fn deliver(context: &Context, partner: PeerId) -> Turn {
    let mut after = 0;
    loop {
        let rows = context.database.outbox_next(&Destination::Peer(partner), after, BATCH_MAX).await;
        let Some(rows) = store::told(context, rows) else { return Turn::Failed { not_before: Duration::ZERO } };
        let Some(last) = rows.rows.last() else { return Turn::Emptied };
        after = last.id;
        match deliver_batch(context, partner, &rows.rows).await {
            Ok(()) => {}
            Err(Stopped::Later { detail, not_before }) => {
                debug!(%partner, detail, "what waits for a partner goes on waiting");
                return Turn::Failed { not_before };
            }
            Err(Stopped::Unwritten) => return Turn::Failed { not_before: Duration::ZERO },
        }
    }
}

/// Sends the rows in their order, over one stream per run of the same verb, and writes down what became of each.
async fn deliver_batch(context: &Context, partner: PeerId, rows: &[OutboxRow]) -> Result<(), Stopped> {
    let ask = |reply| policy::Msg::Relation { peer: partner, reply };
    let relation = context.addresses.policy.ask(Class::Control, ask, ASK_WITHIN).await;
    let Ok(Some(relation)) = relation else {
        let detail = "it is not known what it is to us".to_owned();
        return Err(Stopped::Later { detail, not_before: Duration::ZERO });
    };
    let mut fates: Vec<Write> = Vec::with_capacity(rows.len());
    let mut stream: Option<(Verb, Io)> = None;
    let mut stopped = None;
    for row in rows {
        let Some(verb) = Verb::named(&row.outgoing.subject) else {
            fates.push(ended(context, row, Fate::Refused, "no verb of this version"));
            continue;
        };
        if let Some(why) = not_for(verb, relation) {
            fates.push(ended(context, row, Fate::Refused, why));
            continue;
        }
        let outcome = send(context, partner, verb, row, &mut stream).await;
        match outcome {
            Ok(()) => {
                context.stats.events_delivered.inc();
                fates.push(ended(context, row, Fate::Delivered, ""));
            }
            Err(error) => match later(&error) {
                Some(not_before) => {
                    let detail = error.to_string();
                    let next_at = context.now().wall.checked_add(not_before.max(protocol::delivery::PAUSE_FIRST)).ok();
                    let attempts = row.attempts.saturating_add(1);
                    fates.push(Write::OutboxTried { id: row.id, attempts, next_at, detail: detail.clone() });
                    stopped = Some(Stopped::Later { detail, not_before });
                    break;
                }
                None => {
                    warn!(%partner, id = row.id, %error, "a partner refused an event for good");
                    context.stats.events_refused_by_peers.inc();
                    fates.push(ended(context, row, Fate::Refused, &error.to_string()));
                }
            },
        }
    }
    if let Some((_, io)) = stream {
        io.close().await;
    }
    let ask = |reply| store::Msg::Promises { writes: fates, reply };
    let kept = context.addresses.store.ask(Class::Control, ask, ASK_WITHIN).await;
    if !matches!(kept, Ok(Kept::Written)) {
        return Err(Stopped::Unwritten);
    }
    stopped.map_or(Ok(()), Err)
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

/// Sends one event and waits until the partner has it on its disk.
async fn send(
    context: &Context,
    partner: PeerId,
    verb: Verb,
    row: &OutboxRow,
    stream: &mut Option<(Verb, Io)>,
) -> Result<(), FetchError> {
    if !matches!(stream, Some((of, _)) if *of == verb)
        && let Some((_, io)) = stream.take()
    {
        io.close().await;
    }
    let (_, io) = match stream {
        Some(open) => open,
        None => stream.insert((verb, reach::open(context, partner, verb.protocol(), OPEN_WITHIN).await?)),
    };
    let outgoing = &row.outgoing;
    let event = Event {
        verb,
        from: context.own.peer_id,
        user: outgoing.user.clone(),
        groups: outgoing.groups.to_vec(),
        datatype: outgoing.datatype.clone(),
        id: outgoing.message_id.clone(),
        ts: context.now().wall,
        payload: outgoing.payload.to_vec(),
    };
    let signed = Verified::sign(&event, &context.keys).to_raw();
    let max = verb.protocol().value_bytes_max();
    let asked = io.ask(&signed, TAKE_WITHIN, |value| json::parse::<Answer<EventAck>>(value.bytes, max)).await;
    let outcome = match asked {
        Ok(Ok(Answer::Given(EventAck { ok: true }))) => return Ok(()),
        Ok(Ok(Answer::Given(EventAck { ok: false }))) => Err(FetchError::Ended),
        Ok(Ok(Answer::Refused(refused))) => Err(FetchError::Refused(refused)),
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(error.into()),
    };
    // Whoever refuses closes, and a broken stream is of no use for the next event.
    *stream = None;
    outcome
}

/// How long to wait at least before the same is sent again; nothing for what will never be taken.
fn later(error: &FetchError) -> Option<Duration> {
    let FetchError::Refused(Refused { refused, retry_after, .. }) = error else { return Some(Duration::ZERO) };
    match refused {
        RefusalCode::Invalid | RefusalCode::NotYours | RefusalCode::Version | RefusalCode::Network => None,
        RefusalCode::Busy
        | RefusalCode::Banned
        | RefusalCode::Clock
        | RefusalCode::Limit
        | RefusalCode::UnknownPeer => Some(Duration::from_secs(retry_after.unwrap_or_default().min(3_600))),
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
        let refused = |code| later(&FetchError::Refused(Refused::new(code, "x")));
        for code in [RefusalCode::Invalid, RefusalCode::NotYours, RefusalCode::Version, RefusalCode::Network] {
            assert_eq!(refused(code), None, "{code:?}");
        }
        for code in [RefusalCode::Busy, RefusalCode::Clock, RefusalCode::Banned, RefusalCode::UnknownPeer] {
            assert_eq!(refused(code), Some(Duration::ZERO), "{code:?}");
        }
        assert_eq!(later(&FetchError::Ended), Some(Duration::ZERO));
        let in_a_while = FetchError::Refused(Refused::new(RefusalCode::Limit, "x").retry_after(90_000));
        assert_eq!(later(&in_a_while), Some(Duration::from_secs(3_600)), "an hour is enough for anybody");
    }
}
