//! One life of an actor: what it is given, what must be gone before the next one, and what the supervision does
//! around each of its handlers.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use protocol::time::{Mono, Now};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use rand::rngs::StdRng;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};

use super::{
    address::{Address, Class, Envelope, Permit, Reply},
    children::{Children, Due},
    clock::Clock,
    path::Path,
    vitals::{Tree, Vitals},
};
use crate::handle::Fault;

/// Held by everything that belongs to one life of an actor. The next life begins when the last hold is dropped, so a
/// task that owns a port or a file takes one along.
#[derive(Clone, Debug)]
pub struct Hold(#[allow(dead_code, reason = "it is kept only to be dropped")] Arc<Life>);

#[derive(Debug)]
struct Life {
    /// A life is over only when all lives below it are.
    _above: Option<Hold>,
    _gone: DropGuard,
}

impl Hold {
    /// A new life below `above`, and what tells that it is gone.
    pub(super) fn new(above: Option<Hold>) -> (Self, CancellationToken) {
        let gone = CancellationToken::new();
        (Self(Arc::new(Life { _above: above, _gone: gone.clone().drop_guard() })), gone)
    }
}

/// A message to oneself under way; dropped, it is not sent. Kept in the state, it ends with the actor.
#[must_use = "a dropped timer does not fire"]
#[derive(Debug)]
pub struct Timer(#[allow(dead_code, reason = "it is kept only to be dropped")] AbortOnDropHandle<()>);

impl Timer {
    pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(AbortOnDropHandle::new(tokio::spawn(task)))
    }
}

/// What the supervision gives an actor for one life; it belongs into the actor's state.
pub struct Seat<M> {
    me: Address<M>,
    tree: Tree,
    incarnation: u64,
    hold: Hold,
}

impl<M: Send + 'static> Seat<M> {
    /// This actor in this life: for timers, driver tasks and replies, which a later life must not hear.
    #[must_use]
    pub fn me(&self) -> &Address<M> {
        &self.me
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.me.path()
    }

    /// Counts its lives, from 1.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// What all actors share.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The time, to be read once at the top of a handler.
    #[must_use]
    pub fn now(&self) -> Now {
        self.tree.clock().now()
    }

    /// This life's stream of chance; each call begins it anew, so it is called once, in `pre_start`.
    #[must_use]
    pub fn rng(&self) -> StdRng {
        self.tree.chance().fork(self.path().as_str(), self.incarnation)
    }

    /// Tells this actor `message` after `delay`, even when its mailbox is full: re-armed last in the handler of
    /// `message`, there is never more than one.
    pub fn after(&self, delay: Duration, message: M) -> Timer {
        let me = self.me.clone();
        Timer::spawn(async move {
            tokio::time::sleep(delay).await;
            me.tell_always(message);
        })
    }

    /// A reply that comes back to this actor as a message; it is shed like any of its own when the mailbox is full.
    #[must_use]
    pub fn reply<T: Send + 'static>(&self, message: impl FnOnce(T) -> M + Send + 'static) -> Reply<T> {
        let me = self.me.clone();
        // A shed answer is counted by the mailbox; the question's deadline heals the rest.
        Reply::told(move |answer| drop(me.tell(Class::Own, message(answer))))
    }

    /// To be taken along by a task that must be gone before the actor's next life begins.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.hold.clone()
    }

    /// An address for a child of this actor: see [`Tree::address`].
    #[must_use]
    pub fn address<C: Send + 'static>(&self, name: impl fmt::Display, kind: &'static str, bound: u64) -> Address<C> {
        self.tree.address(self.path().child(name), kind, bound)
    }

    /// The supervising part of this actor, for at most `children_max` children; `due` is the message by which it
    /// hears that a restart is due.
    #[must_use]
    pub fn children(&self, children_max: usize, due: impl Fn(Due) -> M + Send + Sync + 'static) -> Children {
        let me = self.me.clone();
        let parent = self.me.clone();
        Children::new(
            self.tree.clone(),
            self.path().clone(),
            self.rng_of("children"),
            self.hold.clone(),
            children_max,
            Arc::new(move |event| me.tell_always(due(event))),
            Arc::new(move || parent.cell()),
        )
    }

    fn rng_of(&self, part: &str) -> StdRng {
        self.tree.chance().fork(self.path().child(part).as_str(), self.incarnation)
    }
}

impl<M> fmt::Debug for Seat<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("me", &self.me).field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

/// The failure that [`Fault::Error`] injects.
#[derive(Debug, thiserror::Error)]
#[error("an injected error")]
struct InjectedError;

/// Why an operator's restart ends a life.
#[derive(Debug, thiserror::Error)]
#[error("restarted by hand")]
pub(super) struct RestartedByHand;

async fn suffer(fault: Fault) -> Result<(), ActorProcessingErr> {
    match fault {
        Fault::Panic => panic!("an injected panic"),
        Fault::Error => Err(InjectedError.into()),
        Fault::ByHand => Err(RestartedByHand.into()),
        Fault::Stall(stall) => {
            tokio::time::sleep(stall).await;
            Ok(())
        }
    }
}

/// Builds an actor's arguments anew for each life.
pub(super) type MakeArguments<A, M> = Arc<dyn Fn(Seat<M>) -> <A as Actor>::Arguments + Send + Sync>;

/// What one life is started with.
pub(super) struct Birth<A: Actor, M> {
    pub(super) arguments: MakeArguments<A, M>,
    pub(super) address: Address<M>,
    pub(super) tree: Tree,
    pub(super) incarnation: u64,
    pub(super) hold: Hold,
}

/// An actor as it is run: itself, with its vitals written around every handler.
pub(super) struct Supervised<A>(pub(super) Arc<A>);

/// The state of an actor as it is run.
pub(super) struct Alive<S, M: Send + 'static> {
    // Dropped in this order: what the life owns, then its address, then the hold that lets the next life begin.
    state: Option<S>,
    reached: Reached<M>,
    hold: Option<Hold>,
    clock: Clock,
}

impl<S, M: Send + 'static> Alive<S, M> {
    /// The actor handles something from now on until this is dropped, also by a panic or a kill.
    fn begin(&mut self, envelope: Option<&mut Envelope<M>>) -> (Handling<'_>, &mut S) {
        let Self { state, reached, clock, .. } = self;
        let vitals = reached.0.vitals();
        let began = clock.mono();
        vitals.busy(began);
        let counted = envelope.as_ref().is_some_and(|envelope| !envelope.is_poke());
        let permit = envelope.and_then(|envelope| {
            if counted {
                vitals.waited(began.since(envelope.sent()));
            }
            envelope.take_permit()
        });
        let state = state.as_mut().expect("an actor handles nothing after its post_stop");
        (Handling { vitals, clock, began, counted, _permit: permit }, state)
    }
}

/// While it lives its address points at it.
struct Reached<M: Send + 'static>(Address<M>, u64);

impl<M: Send + 'static> Drop for Reached<M> {
    fn drop(&mut self) {
        self.0.clear(self.1);
    }
}

/// One handler running.
struct Handling<'a> {
    vitals: &'a Vitals,
    clock: &'a Clock,
    began: Mono,
    /// It is a message, not an event of supervision or a poke.
    counted: bool,
    _permit: Option<Permit>,
}

impl Drop for Handling<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.vitals.handled(self.clock.mono().since(self.began));
        }
        self.vitals.ended();
        self.vitals.idle();
    }
}

impl<A, M> Actor for Supervised<A>
where
    A: Actor<Msg = Envelope<M>>,
    M: Send + 'static,
{
    type Msg = Envelope<M>;
    type State = Alive<A::State, M>;
    type Arguments = Birth<A, M>;

    async fn pre_start(
        &self,
        myself: ActorRef<Envelope<M>>,
        birth: Birth<A, M>,
    ) -> Result<Self::State, ActorProcessingErr> {
        let Birth { arguments, address, tree, incarnation, hold } = birth;
        let clock = tree.clock().clone();
        // Reached from here on, so that what pre_start sets going can already report.
        address.point(incarnation, myself.clone());
        let mut alive =
            Alive { state: None, reached: Reached(address.clone(), incarnation), hold: Some(hold.clone()), clock };
        address.vitals().busy(alive.clock.mono());
        let seat = Seat { me: address.only(incarnation), tree, incarnation, hold };
        alive.state = Some(self.0.pre_start(myself, arguments(seat)).await?);
        address.vitals().idle();
        address.vitals().running();
        Ok(alive)
    }

    async fn post_start(
        &self,
        myself: ActorRef<Envelope<M>>,
        alive: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (_handling, state) = alive.begin(None);
        self.0.post_start(myself, state).await
    }

    async fn post_stop(
        &self,
        myself: ActorRef<Envelope<M>>,
        alive: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (handling, state) = alive.begin(None);
        let ended = self.0.post_stop(myself, state).await;
        drop(handling);
        // ractor would carry the state to the supervisor, who may be waiting for just this life to be gone.
        alive.state = None;
        alive.hold = None;
        ended
    }

    async fn handle(
        &self,
        myself: ActorRef<Envelope<M>>,
        mut envelope: Envelope<M>,
        alive: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (handling, state) = alive.begin(Some(&mut envelope));
        if let Some(fault) = handling.vitals.take_fault() {
            suffer(fault).await?;
        }
        if envelope.is_poke() {
            return Ok(());
        }
        self.0.handle(myself, envelope, state).await
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Envelope<M>>,
        event: SupervisionEvent,
        alive: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (_handling, state) = alive.begin(None);
        self.0.handle_supervisor_evt(myself, event, state).await
    }
}
