//! NatsBridge: carries orders of applications to `sharing`, and what is to be told to applications to the bus.
//!
//! Owns the connection to NATS and what is seen of it. Applications tell it through the bus; it tells `sharing` their
//! orders and asks it for announcements, and tells health how the bus is. `sharing` may tell it that something waits. A
//! restart forgets the connection and the counts of this life; no order is acknowledged before `sharing` said that it is
//! on the disk, and no announcement leaves its table before the bus said that it has it, so nothing is lost by it.
//! Bounds: of each subject one batch of `intake::BATCH_MAX` orders under way, one announcement per subject under way,
//! `services::REQUESTS_MAX` requests of services at once.

mod intake;
mod link;
mod outlet;
mod plain;
mod services;
mod stream;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::{Client, Event, connection::State as Connection};
use protocol::bus::{JetStream, VerbOut};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use self::link::{Link, SessionError};
use crate::{
    context::Context,
    supervision::{Class, Envelope, Reply, Seat, Timer},
    view::{BridgeState, BridgeView, BusMode},
};

/// How often it is looked whether the connection is what its events said; they may be lost when very many come at once.
const TICK: Duration = Duration::from_secs(5);

/// Pause before a session that failed is begun again; twice as long each time.
const AGAIN_FIRST: Duration = Duration::from_millis(500);

/// See [`AGAIN_FIRST`].
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// Time between two notes of refused orders, so that a flood of them leaves the journal to others.
const NOTES_EVERY: Duration = Duration::from_secs(10);

/// The actor.
pub struct Bridge;

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
    client: Option<Client>,
    /// Something waits to be told.
    wake: Arc<Notify>,
    is_connected: bool,
    mode: Option<BusMode>,
    server: String,
    cause: String,
    counts: Counts,
    /// Seen to wait on each subject.
    waiting: BTreeMap<VerbOut, u64>,
    /// Counts the sessions, so that one that was given up is not heard.
    session_number: u64,
    again_pause: Duration,
    noted: Option<protocol::time::Mono>,
    refused_unsaid: u64,
    tick: Timer,
    again: Option<Timer>,
    // The tasks end before the connection is dropped.
    _dial: AbortOnDropHandle<()>,
    session: Option<AbortOnDropHandle<()>>,
    services: Option<AbortOnDropHandle<()>>,
}

/// What went over the bus in this life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    taken: u64,
    repeated: u64,
    put_off: u64,
    refused: u64,
    own: u64,
    told: u64,
    dropped: u64,
}

/// What became of one batch of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Carried out.
    pub taken: u64,
    /// Carried out before.
    pub repeated: u64,
    /// They come again.
    pub put_off: u64,
    /// Never carried out.
    pub refused: u64,
    /// Ours, or other members'.
    pub own: u64,
    /// Why the last one was refused, and on which subject.
    pub refusal: Option<(String, String)>,
}

/// What it is told and asked.
pub enum Msg {
    /// Something waits to be announced.
    Waiting,
    /// How it is is wanted.
    Look(Reply<BridgeView>),
    /// The connection was made for the first time.
    Dialled(Client),
    /// An attempt to connect failed; it is made again.
    DialFailed(String),
    /// The connection says something.
    Happened(Event),
    /// A session has begun.
    Entered {
        /// Which.
        session: u64,
        /// What the server offers.
        mode: BusMode,
    },
    /// A session has ended.
    Ended {
        /// Which.
        session: u64,
        /// Why.
        cause: SessionError,
    },
    /// A batch of messages was dealt with.
    Taken(Tally),
    /// Announcements went out, or were dropped because they never can.
    Told {
        /// On which subject.
        verb: VerbOut,
        /// The bus has them.
        told: u64,
        /// Never can be told; why the last one.
        dropped: Option<(u64, String)>,
        /// Seen to wait.
        waiting: u64,
    },
    /// Time to begin a session again.
    Again,
    /// Time to look at the connection.
    Tick,
}

impl Actor for Bridge {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let dial = AbortOnDropHandle::new(tokio::spawn(link::dial(context.settings.bus.clone(), seat.me().clone())));
        context.stats.bus_connected.set(0);
        let tick = seat.after(TICK, Msg::Tick);
        Ok(State {
            seat,
            context,
            client: None,
            wake: Arc::new(Notify::new()),
            is_connected: false,
            mode: None,
            server: String::new(),
            cause: String::new(),
            counts: Counts::default(),
            waiting: BTreeMap::new(),
            session_number: 0,
            again_pause: AGAIN_FIRST,
            noted: None,
            refused_unsaid: 0,
            tick,
            again: None,
            _dial: dial,
            session: None,
            services: None,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Waiting => state.wake.notify_waiters(),
            Msg::Look(reply) => reply.send(state.look()),
            Msg::Dialled(client) => state.dialled(client),
            Msg::DialFailed(cause) => state.away(cause),
            Msg::Happened(event) => state.happened(event),
            Msg::Entered { session, mode } => state.entered(session, mode),
            Msg::Ended { session, cause } => state.ended(session, cause),
            Msg::Taken(tally) => state.taken(tally),
            Msg::Told { verb, told, dropped, waiting } => state.told(verb, told, dropped, waiting),
            Msg::Again => state.begin(),
            Msg::Tick => state.tick(),
        }
        Ok(())
    }
}

impl State {
    fn dialled(&mut self, client: Client) {
        self.services = Some(services::start(&self.context, &client, self.seat.incarnation()));
        self.client = Some(client);
        self.connected();
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Connected => self.connected(),
            Event::Disconnected | Event::Closed => self.away("the connection is lost".to_owned()),
            Event::ClientError(error) => self.failed(error.to_string()),
            Event::ServerError(error) => self.complained(error.to_string()),
            Event::SlowConsumer(_) => {
                self.context.stats.bus_lost.inc();
                self.failed("messages came faster than they were taken, and some were lost".to_owned());
            }
            Event::LameDuckMode => self.context.note("bus_lame_duck", &self.server, "the server will soon be gone"),
            Event::Draining => {}
        }
    }

    /// While it is there, the server complains of what we may not do, and goes on.
    fn complained(&mut self, cause: String) {
        if self.is_connected {
            let remedy = format!("the bus refuses something: {cause}; {}", link::remedy(&cause));
            self.context.trouble("bus_server", Some(remedy));
        }
        self.failed(cause);
    }

    /// A new session for each connection: what the last one had under way is asked for and told anew.
    fn connected(&mut self) {
        if self.is_connected || self.client.is_none() {
            return;
        }
        self.is_connected = true;
        self.cause.clear();
        self.again_pause = AGAIN_FIRST;
        self.context.stats.bus_connected.set(1);
        self.context.trouble("bus_server", None);
        self.begin();
    }

    fn away(&mut self, cause: String) {
        if self.is_connected {
            self.context.note("bus_lost", self.context.settings.bus.shown_url(), &cause);
        }
        self.is_connected = false;
        self.mode = None;
        self.session = None;
        self.again = None;
        self.context.stats.bus_connected.set(0);
        self.failed(cause);
    }

    /// While it is away, the last thing that went wrong is what there is to be put right.
    fn failed(&mut self, cause: String) {
        if self.is_connected {
            debug!(cause, "the bus complains");
            self.cause = cause;
            return;
        }
        let url = self.context.settings.bus.shown_url();
        let remedy = format!("the bus at {url} is away: {cause}; {}", link::remedy(&cause));
        self.cause = cause;
        self.context.trouble("bus", Some(remedy));
    }

    fn begin(&mut self) {
        self.again = None;
        let Some(client) = self.client.clone().filter(|_| self.is_connected) else { return };
        self.session_number += 1;
        let info = client.server_info();
        self.server = format!("{} {}", info.server_name, info.version);
        let (context, me) = (self.context.clone(), self.seat.me().clone());
        let (session, life) = (self.session_number, self.seat.incarnation());
        let link = Link { context, me, client, wake: self.wake.clone(), session, life };
        self.session = Some(AbortOnDropHandle::new(tokio::spawn(link.run())));
    }

    fn entered(&mut self, session: u64, mode: BusMode) {
        if session != self.session_number || !self.is_connected {
            return;
        }
        self.mode = Some(mode);
        self.again_pause = AGAIN_FIRST;
        self.cause.clear();
        info!(server = self.server, ?mode, "on the bus");
        self.context.note("bus_joined", self.context.settings.bus.shown_url(), format!("{mode:?}"));
        self.context.trouble("bus", None);
        let is_wanted = self.context.settings.bus.jetstream != JetStream::Off;
        let remedy = "the bus has no JetStream: orders and announcements may be lost; enable JetStream at the server, \
                      or set bus.jetstream to \"off\" to accept it";
        let is_lesser = is_wanted && mode == BusMode::Core;
        self.context.trouble("bus_mode", is_lesser.then(|| remedy.to_owned()));
    }

    fn ended(&mut self, session: u64, cause: SessionError) {
        if session != self.session_number || !self.is_connected {
            return;
        }
        self.session = None;
        let pause = if matches!(cause, SessionError::ModeChanged) { AGAIN_FIRST } else { self.again_pause };
        if !matches!(cause, SessionError::ModeChanged) {
            self.mode = None;
            self.cause = cause.to_string();
            let remedy = format!("the bus cannot be used: {cause}; {}", link::remedy(&self.cause));
            self.context.trouble("bus", Some(remedy));
        }
        self.again_pause = (self.again_pause * 2).min(AGAIN_MAX);
        self.again = Some(self.seat.after(pause, Msg::Again));
    }

    fn taken(&mut self, tally: Tally) {
        let stats = &self.context.stats;
        stats.bus_orders_taken.inc_by(tally.taken);
        stats.bus_orders_repeated.inc_by(tally.repeated);
        stats.bus_orders_put_off.inc_by(tally.put_off);
        stats.bus_orders_refused.inc_by(tally.refused);
        stats.bus_own_ignored.inc_by(tally.own);
        self.counts.taken += tally.taken;
        self.counts.repeated += tally.repeated;
        self.counts.put_off += tally.put_off;
        self.counts.refused += tally.refused;
        self.counts.own += tally.own;
        if let Some((subject, why)) = tally.refusal {
            self.refused_unsaid += tally.refused;
            self.note_refused("bus_refused", subject, why);
        }
    }

    fn note_refused(&mut self, kind: &'static str, subject: String, why: String) {
        let now = self.seat.now().mono;
        if self.noted.is_some_and(|noted| now.since(noted) < NOTES_EVERY) {
            return;
        }
        let more = self.refused_unsaid.saturating_sub(1);
        let detail = if more == 0 { why } else { format!("{why}; and {more} more since the last note") };
        self.context.note(kind, subject, detail);
        self.noted = Some(now);
        self.refused_unsaid = 0;
    }

    fn told(&mut self, verb: VerbOut, told: u64, dropped: Option<(u64, String)>, waiting: u64) {
        self.context.stats.bus_announced.inc_by(told);
        self.counts.told += told;
        self.waiting.insert(verb, waiting);
        if let Some((dropped, why)) = dropped {
            self.context.stats.bus_announcements_dropped.inc_by(dropped);
            self.counts.dropped += dropped;
            self.refused_unsaid += dropped;
            self.note_refused("bus_dropped", "announcement".to_owned(), why);
        }
    }

    fn tick(&mut self) {
        match self.client.as_ref().map(Client::connection_state) {
            Some(Connection::Connected) => self.connected(),
            Some(Connection::Disconnected) if self.is_connected => self.away("the connection is lost".to_owned()),
            _ => {}
        }
        // Re-armed last, so that two never queue.
        self.tick = self.seat.after(TICK, Msg::Tick);
    }

    fn look(&self) -> BridgeView {
        let Counts { taken, repeated, put_off, refused, own, told, dropped } = self.counts;
        BridgeView {
            url: self.context.settings.bus.shown_url(),
            state: match (self.is_connected, self.mode) {
                (true, Some(_)) => BridgeState::Ready,
                (true, None) => BridgeState::Entering,
                (false, _) => BridgeState::Away,
            },
            mode: self.mode,
            server: self.server.clone(),
            cause: self.cause.clone(),
            taken,
            repeated,
            put_off,
            refused,
            own_ignored: own,
            announced: told,
            dropped,
            waiting: self.waiting.values().sum(),
        }
    }
}

/// Tells the actor what a task saw. A mailbox that is full even for this loses a count, never a message of the bus.
fn report(me: &crate::supervision::Address<Msg>, what: Msg) {
    drop(me.tell(Class::Own, what));
}
