//! Outbox: what waits for partners is sent to them, in order, until it is taken, refused or a day old.
//!
//! Owns [`protocol::delivery::Lanes`] and one task per partner that is sent to. Sharing tells it who has news, peers who
//! came, policy who is to be left alone. The rows are the store's: a task reads a batch, signs each event anew, and has
//! the fate of each written down once the partner said that it is on its disk. A restart forgets pauses; the lanes are
//! read back from the store. Bounds: those of the lanes, and of what `deliver` has in memory per partner.

use std::{collections::HashMap, time::Duration};

use ::store::{Destination, OutboxTotal};
use protocol::{
    PeerId,
    delivery::{LIFE, Lanes, Turn},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::rngs::StdRng;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    context::{Context, inform},
    deliver::Sender,
    store,
    supervision::{Class, Envelope, Seat, Timer},
};

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
            Destination::Bus | Destination::Plan(_) => None,
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
                let mut sender = Sender::new(context, partner, None);
                let turn = sender.deliver(Destination::Peer(partner)).await;
                sender.close().await;
                inform(&me, Class::Own, Msg::Ended { peer: partner, turn });
            });
            self.running.insert(partner, AbortOnDropHandle::new(task));
        }
        self.timer = self.lanes.next_due().map(|due| self.seat.after(due.since(now), Msg::Tick));
    }
}
