//! Where an actor is reached: an address survives its restarts, counts what is in flight, and sheds at its bound.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use protocol::time::Mono;
use ractor::{ActorCell, ActorRef, MessagingErr};
use tokio::sync::oneshot;

use super::{
    clock::Clock,
    path::Path,
    vitals::{Poke, Vitals},
};
use crate::handle::AskError;

/// Smallest bound: each class then still has a place of its own.
const BOUND_MIN: u64 = 8;

/// What a message is for, most needed first. Under load the lower classes are refused first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// What an actor and its own tasks tell it: the whole mailbox, its last eighth for this alone.
    Own,
    /// Heartbeats and their answers: up to seven eighths.
    Heartbeat,
    /// What keeps the daemon running: other actors, admission, settings: up to three quarters.
    Control,
    /// Searches and look-ups: up to a half.
    Search,
    /// What may be asked again later: up to a quarter.
    History,
}

impl Class {
    /// Messages in flight, of whatever class, at which one of this class is refused.
    #[must_use]
    pub fn limit(self, bound: u64) -> u64 {
        match self {
            Self::Own => bound,
            Self::Heartbeat => bound - bound / 8,
            Self::Control => bound - bound / 4,
            Self::Search => bound / 2,
            Self::History => bound / 4,
        }
    }
}

/// A message that was not accepted, given back.
#[derive(thiserror::Error)]
pub enum Shed<M> {
    /// The mailbox is full for its class.
    #[error("busy: the mailbox is full")]
    Busy(M),
    /// The actor is being restarted, has ended, or was not yet started.
    #[error("away")]
    Away(M),
}

impl<M> Shed<M> {
    /// The message.
    #[must_use]
    pub fn into_message(self) -> M {
        match self {
            Self::Busy(message) | Self::Away(message) => message,
        }
    }
}

impl<M> fmt::Debug for Shed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy(_) => "Busy",
            Self::Away(_) => "Away",
        })
    }
}

/// A place in a mailbox, given back when it is dropped: handled, failed, or lost with its actor.
pub(super) struct Permit(Arc<Vitals>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.mailbox.release();
    }
}

/// What travels to an actor: its message, when it was sent, and its place in the mailbox.
pub struct Envelope<M> {
    /// Nothing in a poke, which the supervision keeps to itself.
    message: Option<M>,
    sent: Mono,
    permit: Option<Permit>,
}

impl<M> Envelope<M> {
    /// The message.
    ///
    /// # Panics
    /// When the actor was not started by the supervision, which alone opens what is its own.
    #[must_use]
    pub fn open(self) -> M {
        self.message.expect("an envelope that reaches an actor holds a message")
    }

    pub(super) fn is_poke(&self) -> bool {
        self.message.is_none()
    }

    pub(super) fn sent(&self) -> Mono {
        self.sent
    }

    /// The place in the mailbox, to be held until the message is handled.
    pub(super) fn take_permit(&mut self) -> Option<Permit> {
        self.permit.take()
    }
}

/// The living actor behind an address.
struct Target<M> {
    incarnation: u64,
    actor: ActorRef<Envelope<M>>,
}

impl<M> Target<M> {
    /// It is the life that is wanted.
    fn is(&self, only: Option<u64>) -> bool {
        only.is_none_or(|only| only == self.incarnation)
    }
}

struct Slot<M> {
    vitals: Arc<Vitals>,
    clock: Clock,
    bound: u64,
    target: RwLock<Option<Target<M>>>,
}

/// Where an actor is reached, whichever life it is in; cheap to clone.
pub struct Address<M> {
    slot: Arc<Slot<M>>,
    /// Reaches this life only.
    only: Option<u64>,
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { slot: self.slot.clone(), only: self.only }
    }
}

impl<M> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(self.slot.vitals.path()).finish()
    }
}

impl<M> Address<M> {
    /// The path of its actor.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.slot.vitals.path()
    }

    /// Messages sent and not yet handled.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.slot.vitals.mailbox.in_flight()
    }

    pub(super) fn vitals(&self) -> &Arc<Vitals> {
        &self.slot.vitals
    }
}

impl<M: Send + 'static> Address<M> {
    pub(super) fn new(clock: Clock, vitals: Vitals, bound: u64) -> Self {
        let slot =
            Arc::new(Slot { vitals: Arc::new(vitals), clock, bound: bound.max(BOUND_MIN), target: RwLock::new(None) });
        let poked: Arc<dyn Poke> = slot.clone();
        slot.vitals.pokes(Arc::downgrade(&poked));
        Self { slot, only: None }
    }

    /// Sends `message`, unless the mailbox is full for `class` (counted as shed) or the actor is away.
    ///
    /// # Errors
    /// The message, when it was not accepted.
    pub fn tell(&self, class: Class, message: M) -> Result<(), Shed<M>> {
        if !self.slot.vitals.mailbox.admit(class.limit(self.slot.bound)) {
            return Err(Shed::Busy(message));
        }
        self.slot.post(Some(message), self.only).map_err(|envelope| Shed::Away(envelope.open()))
    }

    /// Asks and waits at most `within` for the answer. For the edge and for tasks: an actor that waited in its handler
    /// would be stuck whenever the other is; it sends a [`Reply`] of [`super::Seat::reply`] instead.
    ///
    /// # Errors
    /// When the actor is busy, is away or ends before it answers, or does not answer in time.
    pub async fn ask<T: Send + 'static>(
        &self,
        class: Class,
        question: impl FnOnce(Reply<T>) -> M,
        within: Duration,
    ) -> Result<T, AskError> {
        let actor = || self.path().to_string();
        let (reply, answer) = Reply::channel();
        self.tell(class, question(reply)).map_err(|shed| match shed {
            Shed::Busy(_) => AskError::Busy { actor: actor() },
            Shed::Away(_) => AskError::Away { actor: actor() },
        })?;
        match tokio::time::timeout(within, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(AskError::Away { actor: actor() }),
            Err(_) => Err(AskError::Late { actor: actor(), after: within }),
        }
    }

    /// Sends whatever the bound, for what is bounded elsewhere: one message per armed timer.
    pub(super) fn tell_always(&self, message: M) {
        self.slot.vitals.mailbox.admit_always();
        // A timer of an actor that is no more has nobody to tell.
        let _ = self.slot.post(Some(message), self.only);
    }

    /// The same address, for this life only: a new life never hears what its predecessor had under way.
    pub(super) fn only(&self, incarnation: u64) -> Self {
        Self { slot: self.slot.clone(), only: Some(incarnation) }
    }

    /// From now on this life is reached.
    pub(super) fn point(&self, incarnation: u64, actor: ActorRef<Envelope<M>>) {
        *self.slot.target_mut() = Some(Target { incarnation, actor });
    }

    /// This life is reached no more; a later one is left alone.
    pub(super) fn clear(&self, incarnation: u64) {
        let mut target = self.slot.target_mut();
        if target.as_ref().is_some_and(|target| target.incarnation == incarnation) {
            *target = None;
        }
    }

    /// The actor that is reached now.
    pub(super) fn cell(&self) -> Option<ActorCell> {
        let target = self.slot.target.read().unwrap_or_else(PoisonError::into_inner);
        target.as_ref().filter(|target| target.is(self.only)).map(|target| target.actor.get_cell())
    }
}

impl<M: Send + 'static> Slot<M> {
    /// Sends what was admitted; its place is given back when it is dropped, here or anywhere.
    fn post(&self, message: Option<M>, only: Option<u64>) -> Result<(), Envelope<M>> {
        let permit = Some(Permit(self.vitals.clone()));
        let envelope = Envelope { message, sent: self.clock.mono(), permit };
        let target = self.target.read().unwrap_or_else(PoisonError::into_inner);
        let Some(target) = target.as_ref().filter(|target| target.is(only)) else {
            return Err(envelope);
        };
        target.actor.send_message(envelope).map_err(|refused| match refused {
            MessagingErr::SendErr(envelope) => envelope,
            _ => unreachable!("an address is only pointed at an actor of its own message type"),
        })
    }

    fn target_mut(&self) -> std::sync::RwLockWriteGuard<'_, Option<Target<M>>> {
        self.target.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Send + 'static> Poke for Slot<M> {
    fn poke(&self) -> bool {
        self.vitals.mailbox.admit_always();
        self.post(None, None).is_ok()
    }

    fn kill(&self) -> bool {
        let target = self.target.read().unwrap_or_else(PoisonError::into_inner);
        target.as_ref().map(|target| target.actor.kill()).is_some()
    }
}

/// Where an answer goes: to a task that waits for it, or to an actor as one of its messages.
pub struct Reply<T>(To<T>);

enum To<T> {
    Waiting(oneshot::Sender<T>),
    Told(Box<dyn FnOnce(T) + Send>),
}

impl<T: Send + 'static> Reply<T> {
    /// A reply and where its answer arrives; the receiver ends when the reply is dropped unanswered.
    #[must_use]
    pub fn channel() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self(To::Waiting(sender)), receiver)
    }

    /// A reply that hands its answer to `tell`, which must not block. An actor's own are made by [`super::Seat::reply`].
    #[must_use]
    pub fn told(tell: impl FnOnce(T) + Send + 'static) -> Self {
        Self(To::Told(Box::new(tell)))
    }

    /// Answers. An asker that no longer waits is no fault of the answerer.
    pub fn send(self, answer: T) {
        match self.0 {
            To::Waiting(sender) => drop(sender.send(answer)),
            To::Told(tell) => tell(answer),
        }
    }

    /// Nobody waits any more, so the work for the answer may be saved.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            To::Waiting(sender) => sender.is_closed(),
            To::Told(_) => false,
        }
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}
