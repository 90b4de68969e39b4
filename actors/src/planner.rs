//! Planner: the streams of our sessions with those with whom a plan is made.
//!
//! Sessions and the steps that wait for them are on the disk: sharing has them written down and tells it so, policy whom to
//! leave alone, peers who came. Owns [`protocol::delivery::Lanes`], one task per peer that is fed, and between two turns
//! the stream of each open session. A stream that broke after something passed is opened again at once, any other after a
//! pause. A restart loses the streams and nothing else. Bounds: those of the lanes and of the sessions.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use ::store::Destination;
use protocol::{
    PeerId,
    delivery::{Lanes, Turn},
    event::Verb,
    planner::{Broken, Line, Sessions},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::rngs::StdRng;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use crate::{
    context::{Context, inform},
    deliver::Sender,
    store::{self, Plans},
    supervision::{Address, Class, Envelope, Seat, Timer},
    swarm::streams::Io,
};

/// How often the disk is looked at, whatever was told: for sessions whose day is over, and lanes that had no room.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The actor.
pub struct Planner;

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
    sessions: Sessions,
    /// Of sessions that nobody is feeding now.
    streams: BTreeMap<PeerId, Stream>,
    running: HashMap<PeerId, AbortOnDropHandle<()>>,
    is_recalled: bool,
    timer: Option<Timer>,
    _sweep: Timer,
}

/// The stream of a session, and what it has behind it.
#[derive(Default)]
pub struct Stream {
    open: Option<(Verb, Io)>,
    line: Line,
}

/// What it is told.
pub enum Msg {
    /// Sessions were opened or closed, or steps were fed to them.
    Changed,
    /// This peer came, or was met.
    HeardOf(PeerId),
    /// This peer is not to be fed; what waits for it grows old.
    Forget {
        /// Who.
        peer: PeerId,
    },
    /// What is on the disk; nothing while the database is away.
    Recalled(Option<Plans>),
    /// A task has done what it could.
    Ended {
        /// For whom.
        peer: PeerId,
        /// How far it came.
        turn: Turn,
        /// What it leaves.
        stream: Box<Stream>,
    },
    /// A lane may be due.
    Tick,
    /// Time to look at the disk.
    Sweep,
}

impl Actor for Planner {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        Ok(State {
            rng: seat.rng(),
            _sweep: seat.after(Duration::ZERO, Msg::Sweep),
            lanes: Lanes::default(),
            sessions: Sessions::default(),
            streams: BTreeMap::new(),
            running: HashMap::new(),
            is_recalled: false,
            timer: None,
            seat,
            context,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Changed => state.recall(),
            Msg::HeardOf(peer) => state.lanes.heard_of(&peer, state.seat.now().mono),
            Msg::Forget { peer } => state.forget(&peer),
            Msg::Recalled(plans) => state.recalled(plans),
            Msg::Ended { peer, turn, stream } => state.ended(peer, turn, *stream),
            Msg::Tick => {}
            Msg::Sweep => state.sweep(),
        }
        state.run();
        Ok(())
    }
}

impl State {
    fn recall(&self) {
        let reply = self.seat.reply(Msg::Recalled);
        inform(&self.context.addresses.store, Class::Control, store::Msg::Plans { reply });
    }

    fn sweep(&mut self) {
        self.recall();
        // Re-armed last, so that two never queue.
        self._sweep = self.seat.after(SWEEP_EVERY, Msg::Sweep);
    }

    fn recalled(&mut self, plans: Option<Plans>) {
        // The next sweep asks again.
        let Some(Plans { sessions, waiting }) = plans else { return };
        let changed = self.sessions.set(sessions.into_iter().map(|row| (row.peer, row.opened_at)));
        if std::mem::replace(&mut self.is_recalled, true) {
            for peer in changed.opened {
                self.context.note("planner_opened", peer, "");
            }
        }
        for peer in changed.ended {
            info!(%peer, "a planner session ended");
            self.context.note("planner_ended", peer, "closed, or a day old");
            if let Some(stream) = self.streams.remove(&peer) {
                close(stream);
            }
        }
        let now = self.seat.now().mono;
        for peer in waiting {
            // Where there is no room the next sweep finds it again.
            self.lanes.grew(peer, now);
        }
    }

    fn forget(&mut self, peer: &PeerId) {
        self.lanes.forget(peer);
        self.running.remove(peer);
        self.streams.remove(peer);
    }

    fn ended(&mut self, peer: PeerId, turn: Turn, stream: Stream) {
        if self.running.remove(&peer).is_none() {
            // It is not to be fed any more.
            return;
        }
        let now = self.seat.now();
        self.lanes.ended(&peer, turn, now.mono, &mut self.rng);
        if self.sessions.is_open(&peer, now.wall) && stream.open.is_some() {
            self.streams.insert(peer, stream);
        } else {
            close(stream);
        }
    }

    fn run(&mut self) {
        let now = self.seat.now().mono;
        while let Some(peer) = self.lanes.next_turn(now) {
            let stream = self.streams.remove(&peer).unwrap_or_default();
            let task = tokio::spawn(feed(self.context.clone(), self.seat.me().clone(), peer, stream));
            self.running.insert(peer, AbortOnDropHandle::new(task));
        }
        self.timer = self.lanes.next_due().map(|due| self.seat.after(due.since(now), Msg::Tick));
    }
}

/// Says that nothing more comes, beside the actor.
fn close(stream: Stream) {
    if let Some((_, io)) = stream.open {
        tokio::spawn(io.close());
    }
}

/// Sends what waits for the peer, and opens a stream that worked again when it breaks.
async fn feed(context: Context, me: Address<Msg>, peer: PeerId, stream: Stream) {
    let Stream { open, mut line } = stream;
    let mut sender = Sender::new(context, peer, open);
    let turn = loop {
        let before = sender.taken();
        let turn = sender.deliver(Destination::Plan(peer)).await;
        if sender.taken() > before {
            line.passed();
        }
        match turn {
            Turn::Failed { not_before } if not_before.is_zero() && line.broke() == Broken::Reopen => {}
            turn => break turn,
        }
    };
    let stream = Box::new(Stream { open: sender.into_stream(), line });
    inform(&me, Class::Own, Msg::Ended { peer, turn, stream });
}
