//! GC: asks those who hold what may go to let a bounded batch of it go.
//!
//! Owns nothing but its tick. Tells registry, peers, revocations and store. A restart forgets nothing.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::{
    context::{Context, inform},
    peers, registry, revocations, store,
    supervision::{Class, Envelope, Seat, Timer},
};

/// A session outlives its end by this at most.
const EVERY: Duration = Duration::from_secs(30);

/// Memories go stale over days, so they are looked at less often than sessions.
const MEMORIES_EVERY: u32 = 20;

/// The actor.
pub struct Gc;

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
    ticks: u32,
    timer: Timer,
}

/// What it tells itself.
pub enum Msg {
    /// Time to collect.
    Tick,
}

impl Actor for Gc {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let timer = seat.after(EVERY, Msg::Tick);
        Ok(State { seat, context, ticks: 0, timer })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Tick => state.tick(),
        }
        Ok(())
    }
}

impl State {
    fn tick(&mut self) {
        let to = &self.context.addresses;
        inform(&to.registry, Class::Control, registry::Msg::Collect);
        if self.ticks.is_multiple_of(MEMORIES_EVERY) {
            inform(&to.peers, Class::Control, peers::Msg::Collect);
            inform(&to.revocations, Class::Control, revocations::Msg::Collect);
            inform(&to.store, Class::Control, store::Msg::Collect);
        }
        self.ticks = self.ticks.wrapping_add(1);
        // Re-armed last, so that two never queue.
        self.timer = self.seat.after(EVERY, Msg::Tick);
    }
}
