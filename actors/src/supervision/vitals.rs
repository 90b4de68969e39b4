//! How every actor is: written by the actor, its supervisor and its senders, read without asking any of them.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock, Weak,
        atomic::{
            AtomicU8, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use protocol::{time::Mono, watchdog::Sign};
use tokio::sync::broadcast;

use super::{
    Settings,
    address::Address,
    children::Outcome,
    clock::{Chance, Clock},
    histogram::Histogram,
    life::RestartedByHand,
    mailbox::Mailbox,
    path::Path,
};
use crate::{
    handle::{AskError, CannotRestart, Fault},
    view::{ActorState, ActorView},
};

/// Longest text kept of an error, in bytes: enough for a cause and its sources, too little to fill memory with.
const ERROR_BYTES_MAX: usize = 512;

/// Outcomes kept for a slow reader of [`Tree::outcomes`]; it then misses the oldest. A storm of 256 restarts is
/// no longer read one by one.
const OUTCOMES_MAX: usize = 256;

/// The state's code in its atomic.
const STARTING: u8 = 0;
const RUNNING: u8 = 1;
const WAITING: u8 = 2;
const STOPPED: u8 = 3;

/// The fault's code in its atomic; from [`STALL`] on, the rest is the stall in milliseconds.
const NO_FAULT: u64 = 0;
const PANIC: u64 = 1;
const ERROR: u64 = 2;
const BY_HAND: u64 = 3;
const STALL: u64 = 4;

/// In the atomic of a moment: never.
const NEVER: u64 = u64::MAX;

/// An actor that can be made to handle something at once, so that an injected fault needs no traffic.
pub(super) trait Poke: Send + Sync {
    /// Sends it an empty message; false when it is away.
    fn poke(&self) -> bool;
    /// Ends it where it awaits, in the middle of a handler too; false when it is away.
    fn kill(&self) -> bool;
}

/// The vitals of one actor over all its lives. Handling a message takes no lock in here.
pub(super) struct Vitals {
    path: Path,
    kind: &'static str,
    parent: OnceLock<Path>,
    pub(super) mailbox: Mailbox,
    state: AtomicU8,
    incarnation: AtomicU64,
    /// Start of this life.
    born_nanos: AtomicU64,
    /// When the present handler began, plus one; 0 while idle.
    busy_since: AtomicU64,
    /// Handlers that ended, of whatever kind, over all lives.
    ended: AtomicU64,
    // Written by the one life there is at a time.
    handling: Histogram,
    waiting: Histogram,
    fault: AtomicU64,
    /// The life that was killed to be restarted by hand; 0 while none was.
    killed_by_hand: AtomicU64,
    /// From when on its supervisor restarts it once more, or [`NEVER`].
    room_nanos: AtomicU64,
    last_error: Mutex<Option<String>>,
    poke: OnceLock<Weak<dyn Poke>>,
}

impl Vitals {
    pub(super) fn new(path: Path, kind: &'static str) -> Self {
        Self {
            path,
            kind,
            parent: OnceLock::new(),
            mailbox: Mailbox::default(),
            state: AtomicU8::new(STOPPED),
            incarnation: AtomicU64::new(0),
            born_nanos: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            handling: Histogram::default(),
            waiting: Histogram::default(),
            fault: AtomicU64::new(NO_FAULT),
            killed_by_hand: AtomicU64::new(0),
            room_nanos: AtomicU64::new(0),
            last_error: Mutex::new(None),
            poke: OnceLock::new(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation.load(Acquire)
    }

    pub(super) fn pokes(&self, poke: Weak<dyn Poke>) {
        let _ = self.poke.set(poke);
    }

    /// A new life begins; returns its number.
    pub(super) fn begin_life(&self, now: Mono) -> u64 {
        self.born_nanos.store(nanos(now), Relaxed);
        self.busy_since.store(0, Relaxed);
        // The last life ended before it came to that: it is restarted already.
        let _ = self.fault.compare_exchange(BY_HAND, NO_FAULT, Release, Relaxed);
        self.state.store(STARTING, Release);
        self.incarnation.fetch_add(1, Release) + 1
    }

    pub(super) fn running(&self) {
        let _ = self.state.compare_exchange(STARTING, RUNNING, Release, Relaxed);
    }

    pub(super) fn waiting(&self) {
        self.idle();
        self.state.store(WAITING, Release);
    }

    pub(super) fn stopped(&self) {
        self.idle();
        self.state.store(STOPPED, Release);
    }

    pub(super) fn failed(&self, cause: &str) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause.to_owned());
    }

    /// A message that waited this long is being handled.
    pub(super) fn waited(&self, waited: Duration) {
        self.waiting.record(waited);
    }

    pub(super) fn busy(&self, since: Mono) {
        self.busy_since.store(nanos(since) + 1, Relaxed);
    }

    pub(super) fn idle(&self) {
        self.busy_since.store(0, Relaxed);
    }

    /// A handler has ended: of a message, an event of supervision, or a poke.
    pub(super) fn ended(&self) {
        self.ended.fetch_add(1, Relaxed);
    }

    /// How it is when a beat of the watchdog comes.
    pub(super) fn sign(&self) -> Sign {
        match self.state.load(Acquire) {
            WAITING | STOPPED => Sign::Waiting,
            _ => Sign::Ended(self.ended.load(Relaxed)),
        }
    }

    /// Sends it an empty message; one that is away is not reached.
    pub(super) fn poke(&self) {
        self.poke.get().and_then(Weak::upgrade).map(|actor| actor.poke());
    }

    /// A message was handled, well or not.
    pub(super) fn handled(&self, took: Duration) {
        self.handling.record(took);
    }

    /// The fault to suffer now, once.
    pub(super) fn take_fault(&self) -> Option<Fault> {
        if self.fault.load(Relaxed) == NO_FAULT {
            return None;
        }
        match self.fault.swap(NO_FAULT, Acquire) {
            NO_FAULT => None,
            PANIC => Some(Fault::Panic),
            ERROR => Some(Fault::Error),
            BY_HAND => Some(Fault::ByHand),
            stall => Some(Fault::Stall(Duration::from_millis(stall - STALL))),
        }
    }

    fn inject(&self, fault: Fault) -> bool {
        let code = match fault {
            Fault::Panic => PANIC,
            Fault::Error => ERROR,
            Fault::ByHand => BY_HAND,
            Fault::Stall(stall) => STALL.saturating_add(u64::try_from(stall.as_millis()).unwrap_or(u64::MAX - STALL)),
        };
        self.fault.store(code, Release);
        let poked = self.poke.get().and_then(Weak::upgrade).is_some_and(|actor| actor.poke());
        if !poked {
            self.fault.store(NO_FAULT, Release);
        }
        poked
    }

    /// From when on its supervisor restarts it once more; nothing where it never does.
    pub(super) fn room(&self, from: Option<Mono>) {
        self.room_nanos.store(from.map_or(NEVER, nanos), Relaxed);
    }

    /// Why this life was killed, when that was done to restart it.
    pub(super) fn why_killed(&self) -> Option<String> {
        (self.killed_by_hand.load(Acquire) == self.incarnation()).then(|| RestartedByHand.to_string())
    }

    /// Ends this life as a failure would, for its supervisor to begin another.
    fn restart(&self, now: Mono, stuck_after: Duration) -> Result<(), CannotRestart> {
        let actor = || self.path.to_string();
        if self.parent.get().is_none() {
            return Err(CannotRestart::Root);
        }
        let state = self.view(now, stuck_after).state;
        if !matches!(state, ActorState::Running | ActorState::Stuck) {
            return Err(CannotRestart::NotAlive { actor: actor(), state });
        }
        match self.room_nanos.load(Relaxed) {
            NEVER => return Err(CannotRestart::Never { actor: actor() }),
            from if from > nanos(now) => {
                let wait = Duration::from_nanos(from - nanos(now));
                return Err(CannotRestart::Spent { actor: actor(), wait: Duration::from_secs(wait.as_secs() + 1) });
            }
            _ => {}
        }
        let is_told = if state == ActorState::Stuck {
            // It comes to no message, so it is ended where it waits.
            self.killed_by_hand.store(self.incarnation(), Release);
            self.poke.get().and_then(Weak::upgrade).is_some_and(|actor| actor.kill())
        } else {
            // Between two messages, so that none is left half done.
            self.inject(Fault::ByHand)
        };
        if is_told { Ok(()) } else { Err(CannotRestart::NotAlive { actor: actor(), state: ActorState::Waiting }) }
    }

    fn is_stopped(&self) -> bool {
        self.state.load(Acquire) == STOPPED
    }

    fn view(&self, now: Mono, stuck_after: Duration) -> ActorView {
        let busy = match self.busy_since.load(Relaxed) {
            0 => Duration::ZERO,
            since => now.since(Mono::at(Duration::from_nanos(since - 1))),
        };
        let incarnation = self.incarnation();
        let (handle_p50_us, handle_p99_us) = self.handling.p50_p99_us();
        let (wait_p50_us, wait_p99_us) = self.waiting.p50_p99_us();
        ActorView {
            name: self.path.to_string(),
            kind: self.kind.to_owned(),
            parent: self.parent.get().map(Path::to_string).unwrap_or_default(),
            state: self.state(busy, stuck_after),
            incarnation,
            uptime_ms: match self.state.load(Acquire) {
                STARTING | RUNNING => millis(now.since(Mono::at(Duration::from_nanos(self.born_nanos.load(Relaxed))))),
                _ => 0,
            },
            restarts: incarnation.saturating_sub(1),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            handled: self.handling.total(),
            in_flight: self.mailbox.in_flight(),
            in_flight_max: self.mailbox.in_flight_max(),
            shed: self.mailbox.shed(),
            busy_ms: millis(busy),
            handle_p50_us,
            handle_p99_us,
            wait_p50_us,
            wait_p99_us,
        }
    }

    fn state(&self, busy: Duration, stuck_after: Duration) -> ActorState {
        match self.state.load(Acquire) {
            STARTING => ActorState::Starting,
            RUNNING if busy >= stuck_after => ActorState::Stuck,
            RUNNING => ActorState::Running,
            WAITING => ActorState::Waiting,
            _ => ActorState::Stopped,
        }
    }
}

fn nanos(at: Mono) -> u64 {
    u64::try_from(at.since_start().as_nanos()).unwrap_or(u64::MAX - 1)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An error with its sources in one line of bounded length.
pub(super) fn in_words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    clip(words)
}

pub(super) fn clip(mut words: String) -> String {
    if words.len() > ERROR_BYTES_MAX {
        words.truncate(words.floor_char_boundary(ERROR_BYTES_MAX));
    }
    words
}

/// What all actors of one daemon share: clock, chance, settings, and the vitals of each. Cheap to clone.
///
/// It is read at any time and asks no actor, so a stuck one delays nothing.
#[derive(Clone)]
pub struct Tree(Arc<Inner>);

struct Inner {
    clock: Clock,
    chance: Chance,
    settings: Settings,
    /// Locked to start and end actors and to copy the list, never while a message is handled.
    entries: RwLock<BTreeMap<Path, Arc<Vitals>>>,
    outcomes: broadcast::Sender<Outcome>,
}

impl Tree {
    /// A tree without actors.
    #[must_use]
    pub fn new(clock: Clock, chance: Chance, settings: Settings) -> Self {
        Self(Arc::new(Inner {
            clock,
            chance,
            settings,
            entries: RwLock::default(),
            outcomes: broadcast::Sender::new(OUTCOMES_MAX),
        }))
    }

    /// The clock of this daemon.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The chance of this daemon.
    #[must_use]
    pub fn chance(&self) -> &Chance {
        &self.0.chance
    }

    /// How this tree is supervised.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// An address for the actor that will live at `path`, whose mailbox holds at most `bound` messages (at least 8).
    /// Until that is started the address is away. `kind` is what views call this sort of actor.
    #[must_use]
    pub fn address<M: Send + 'static>(&self, path: Path, kind: &'static str, bound: u64) -> Address<M> {
        Address::new(self.clock().clone(), Vitals::new(path, kind), bound)
    }

    /// Every actor that was started and has not ended for good, supervisors before their children.
    #[must_use]
    pub fn read(&self) -> Vec<ActorView> {
        let entries: Vec<_> = self.entries().values().cloned().collect();
        let now = self.clock().mono();
        entries.iter().map(|vitals| vitals.view(now, self.0.settings.stuck_after)).collect()
    }

    /// Number of actors listed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// No actor is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What becomes of the actors from now on, in order; a reader more than 256 behind misses the oldest.
    #[must_use]
    pub fn outcomes(&self) -> broadcast::Receiver<Outcome> {
        self.0.outcomes.subscribe()
    }

    /// Makes the actor with this path suffer `fault` with its next message, which is sent to it if it is idle.
    ///
    /// # Errors
    /// When there is no such actor, or it is away.
    pub fn inject(&self, actor: &str, fault: Fault) -> Result<(), AskError> {
        let vitals = self.entries().values().find(|vitals| vitals.path.as_str() == actor).cloned();
        let vitals = vitals.ok_or_else(|| AskError::Unknown { what: "actor", name: actor.to_owned() })?;
        if vitals.inject(fault) { Ok(()) } else { Err(AskError::Away { actor: actor.to_owned() }) }
    }

    /// Has the actor with this path restarted by its supervisor as if it had failed: after a pause, counted, with all
    /// below it. One that is stuck is ended in the middle of its handler, any other one before its next message.
    ///
    /// # Errors
    /// When there is no such actor, it is the root, it does not live now, or its supervisor would give it up instead.
    pub fn restart(&self, actor: &str) -> Result<(), CannotRestart> {
        let vitals = self.entries().values().find(|vitals| vitals.path.as_str() == actor).cloned();
        let vitals = vitals.ok_or_else(|| CannotRestart::Unknown { actor: actor.to_owned() })?;
        vitals.restart(self.clock().mono(), self.0.settings.stuck_after)
    }

    /// The vitals of the actor with this path, if it is listed.
    pub(super) fn vitals(&self, path: &Path) -> Option<Arc<Vitals>> {
        self.entries().get(path).cloned()
    }

    pub(super) fn tell(&self, outcome: Outcome) {
        // Nobody listening is no fault.
        let _ = self.0.outcomes.send(outcome);
    }

    pub(super) fn list(&self, vitals: &Arc<Vitals>, parent: Option<&Path>) {
        if let Some(parent) = parent {
            let _ = vitals.parent.set(parent.clone());
        }
        self.entries_mut().insert(vitals.path.clone(), vitals.clone());
    }

    /// It has ended for good, and with it all below.
    pub(super) fn unlist(&self, path: &Path) {
        self.entries_mut().remove(path);
        self.forget_below(path, |_| true);
    }

    /// It lives anew: what its last life left below and this one has not taken up again is forgotten.
    pub(super) fn sweep(&self, path: &Path) {
        self.forget_below(path, Vitals::is_stopped);
    }

    fn forget_below(&self, path: &Path, forget: impl Fn(&Vitals) -> bool) {
        let mut entries = self.entries_mut();
        // What is below follows directly in the order of paths.
        let below: Vec<_> = entries
            .range(path.clone()..)
            .skip_while(|(other, _)| *other == path)
            .take_while(|(other, _)| other.is_below(path))
            .filter(|(_, vitals)| forget(vitals))
            .map(|(other, _)| other.clone())
            .collect();
        for other in below {
            entries.remove(&other);
        }
    }

    fn entries(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Path, Arc<Vitals>>> {
        self.0.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries_mut(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Path, Arc<Vitals>>> {
        self.0.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("actors", &self.len()).finish_non_exhaustive()
    }
}
