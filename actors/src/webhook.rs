//! Webhook: tells alerts to the address that the operator chose.
//!
//! Owns [`protocol::webhook::Queue`] and the one task that is telling. Told by alerts; tells health when the receiver does
//! not take what it is told, and that it does again. Absent from the tree without an address. A restart forgets what
//! waits: alerts is not asked again, for the log has all of it. Bounds: those of the queue, one attempt at a time, each
//! within `webhook.answer_within`.

mod post;

use protocol::webhook::{Attempt, Notice, Queue};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::rngs::StdRng;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use crate::{
    context::{Context, inform},
    supervision::{Class, Envelope, Seat, Timer},
};

/// Its trouble, as health shows it.
const TROUBLE: &str = "webhook";

/// The actor.
pub struct Webhook;

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
    queue: Queue,
    telling: Option<AbortOnDropHandle<()>>,
    timer: Option<Timer>,
}

/// What it is told.
pub enum Msg {
    /// Something is to be told.
    Tell(Notice),
    /// An attempt has ended.
    Ended(Attempt),
    /// The next attempt may be due.
    Tick,
}

impl Actor for Webhook {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let rng = seat.rng();
        Ok(State { seat, context, rng, queue: Queue::default(), telling: None, timer: None })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Tell(notice) => state.lost(|queue, now, _| queue.push(notice, now)),
            Msg::Ended(attempt) => state.ended(&attempt),
            Msg::Tick => {}
        }
        state.run();
        Ok(())
    }
}

impl State {
    fn lost(&mut self, change: impl FnOnce(&mut Queue, protocol::time::Mono, &mut StdRng) -> u64) {
        let lost = change(&mut self.queue, self.seat.now().mono, &mut self.rng);
        self.context.stats.webhook_lost.inc_by(lost);
    }

    fn ended(&mut self, attempt: &Attempt) {
        self.telling = None;
        match attempt {
            Attempt::Taken => {
                self.context.stats.webhook_told.inc();
                self.context.trouble(TROUBLE, None);
            }
            Attempt::Failed { cause, .. } => {
                debug!(cause, "the webhook did not take an alert");
                let again = "it is told again by itself for an hour; see webhook.url and its receiver";
                self.context.trouble(TROUBLE, Some(format!("{cause}: {again}")));
            }
            Attempt::Refused { cause } => {
                warn!(cause, "the webhook refused an alert for good");
                let correct = "correct webhook.url, its secret, or its receiver, and start again";
                self.context.trouble(TROUBLE, Some(format!("{cause}: {correct}")));
            }
        }
        self.lost(|queue, now, rng| queue.ended(attempt, now, rng));
    }

    fn run(&mut self) {
        let now = self.seat.now();
        if let Some(notice) = self.queue.next_turn(now.mono) {
            let (settings, me) = (self.context.settings.webhook.clone(), self.seat.me().clone());
            let telling = tokio::spawn(async move {
                let attempt = post::post(&settings, &notice, now.wall).await;
                inform(&me, Class::Own, Msg::Ended(attempt));
            });
            self.telling = Some(AbortOnDropHandle::new(telling));
        }
        self.timer = self.queue.next_due().map(|due| self.seat.after(due.since(now.mono), Msg::Tick));
    }
}
