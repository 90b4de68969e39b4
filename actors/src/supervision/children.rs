//! The supervising part of an actor: starts its children, restarts those that fail, and stops them in reverse order.
//!
//! An actor with children keeps a [`Children`] in its state and hands it three things: every supervision event
//! ([`Children::on_event`]), every [`Due`] message ([`Children::restart_due`]), and its own stop
//! ([`Children::stop_all`] in `post_stop`). The first two answer an error when a child's budget is spent and the
//! failure is to go up: the actor passes it on with `?`.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use ractor::{Actor, ActorCell, ActorId, SpawnErr, SupervisionEvent};
use rand::rngs::StdRng;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    address::{Address, Envelope},
    life::{Birth, Hold, MakeArguments, Seat, Supervised, Timer},
    path::Path,
    restarts::{self, Restarts, Verdict},
    vitals::{Tree, Vitals, clip, in_words},
};

/// After a kill a child ends at its next await; one that has not by then is stuck in code that never awaits.
pub(super) const KILL_WITHIN: Duration = Duration::from_secs(1);

/// Whether a child that ends by itself is wanted back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Permanent,
    Transient,
}

/// What becomes of a child whose budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhenSpent {
    Escalate,
    Forget,
}

type Start = Arc<dyn Fn(Birthplace) -> BoxFuture<'static, Result<ActorCell, SpawnErr>> + Send + Sync>;

/// Where and as which life a child is started.
struct Birthplace {
    tree: Tree,
    parent: ActorCell,
    incarnation: u64,
    hold: Hold,
}

/// How to start one child, each time; cheap to clone.
///
/// Unless told otherwise it is wanted for ever, is restarted by the tree's settings, and takes its supervisor down
/// when its budget is spent.
#[derive(Clone)]
pub struct ChildSpec {
    vitals: Arc<Vitals>,
    start: Start,
    policy: Policy,
    when_spent: WhenSpent,
    restarts: Option<restarts::Settings>,
    start_within: Option<Duration>,
    stop_within: Option<Duration>,
}

impl ChildSpec {
    /// `actor` will live at `address`; `arguments` are made anew for each of its lives.
    #[must_use]
    pub fn new<A, M>(
        address: &Address<M>,
        actor: A,
        arguments: impl Fn(Seat<M>) -> A::Arguments + Send + Sync + 'static,
    ) -> Self
    where
        A: Actor<Msg = Envelope<M>>,
        M: Send + 'static,
    {
        let vitals = address.vitals().clone();
        let address = address.clone();
        let actor = Arc::new(actor);
        let arguments: MakeArguments<A, M> = Arc::new(arguments);
        let start = move |place: Birthplace| {
            let Birthplace { tree, parent, incarnation, hold } = place;
            let birth = Birth { arguments: arguments.clone(), address: address.clone(), tree, incarnation, hold };
            // Without a name: ractor's names are those of the whole process, and not yet free when a life has ended.
            let spawned = Supervised::spawn_linked(None, Supervised(actor.clone()), birth, parent);
            spawned.map(|spawned| spawned.map(|(actor, _)| actor.get_cell())).boxed()
        };
        Self {
            vitals,
            start: Arc::new(start),
            policy: Policy::Permanent,
            when_spent: WhenSpent::Escalate,
            restarts: None,
            start_within: None,
            stop_within: None,
        }
    }

    /// It may end by itself, and is restarted only when it fails.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.policy = Policy::Transient;
        self
    }

    /// When its budget is spent it is forgotten and its supervisor told; nothing goes up.
    #[must_use]
    pub fn forgotten_when_spent(mut self) -> Self {
        self.when_spent = WhenSpent::Forget;
        self
    }

    /// Its own budget, instead of the tree's.
    #[must_use]
    pub fn restarts(mut self, settings: restarts::Settings) -> Self {
        self.restarts = Some(settings);
        self
    }

    /// How long its `pre_start` may take, instead of the tree's setting.
    #[must_use]
    pub fn start_within(mut self, limit: Duration) -> Self {
        self.start_within = Some(limit);
        self
    }

    /// How long it may take to stop before it is killed, instead of the tree's setting.
    #[must_use]
    pub fn stop_within(mut self, limit: Duration) -> Self {
        self.stop_within = Some(limit);
        self
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.vitals.path()
    }

    pub(super) fn start_limit(&self, tree: &Tree) -> Duration {
        self.start_within.unwrap_or(tree.settings().start_within)
    }

    pub(super) fn stop_limit(&self, tree: &Tree) -> Duration {
        self.stop_within.unwrap_or(tree.settings().stop_within) + KILL_WITHIN
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChildSpec").field(self.path()).finish()
    }
}

/// What became of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It lives: its first life or a later one.
    Started {
        /// Who.
        path: Path,
        /// Counts its lives, from 1.
        incarnation: u64,
    },
    /// It failed and will be restarted.
    Restarting {
        /// Who.
        path: Path,
        /// Why.
        cause: String,
        /// Until its next life.
        pause: Duration,
    },
    /// It ended by itself, as a transient one may.
    Ended {
        /// Who.
        path: Path,
    },
    /// It was stopped by its supervisor.
    Stopped {
        /// Who.
        path: Path,
    },
    /// Its budget is spent and it is not restarted.
    Forgotten {
        /// Who.
        path: Path,
        /// Why its last life ended.
        cause: String,
    },
    /// Its budget is spent and its supervisor fails with it.
    Escalated {
        /// Who.
        path: Path,
        /// Why its last life ended.
        cause: String,
    },
}

/// A child's budget is spent and its supervisor is to fail with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} failed too often: {cause}")]
pub struct Failure {
    /// The child.
    pub path: Path,
    /// Why its last life ended.
    pub cause: String,
}

/// Why a child was not taken on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// There are as many children as there may be.
    #[error("{parent} has {most} children, the most it may have")]
    Full {
        /// The supervisor.
        parent: Path,
        /// Its bound.
        most: usize,
    },
    /// There is a child of that path, alive or about to be restarted.
    #[error("{path} is there already")]
    Taken {
        /// Whose.
        path: Path,
    },
    /// Its path does not lie below its supervisor's.
    #[error("got the path {path}, expected one below {parent}")]
    NotBelow {
        /// The child's.
        path: Path,
        /// The supervisor's.
        parent: Path,
    },
    /// It did not start, its budget was spent by that, and its supervisor is to fail with it.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// A restart is due: what [`Children`] tells its actor by way of a message. Only the last one of a child counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    child: u64,
    token: u64,
    /// The last life is gone, with all that belonged to it.
    is_gone: bool,
}

/// One child: kept from its start to its end for good, restarts included, and nothing of it afterwards.
struct Child {
    spec: ChildSpec,
    restarts: Restarts,
    phase: Phase,
    /// Told when the last life, and all that belonged to it, is gone.
    gone: CancellationToken,
}

enum Phase {
    Starting,
    Running(ActorCell),
    Waiting { token: u64, _timer: Timer },
}

/// The children of one actor in one of its lives.
pub struct Children {
    tree: Tree,
    parent: Path,
    rng: StdRng,
    hold: Hold,
    children_max: usize,
    due: Arc<dyn Fn(Due) + Send + Sync>,
    cell: Arc<dyn Fn() -> Option<ActorCell> + Send + Sync>,
    /// In the order of their first start.
    children: BTreeMap<u64, Child>,
    by_path: HashMap<Path, u64>,
    by_actor: HashMap<ActorId, u64>,
    /// Numbers children and restarts; never used twice.
    next: u64,
}

impl Children {
    pub(super) fn new(
        tree: Tree,
        parent: Path,
        rng: StdRng,
        hold: Hold,
        children_max: usize,
        due: Arc<dyn Fn(Due) + Send + Sync>,
        cell: Arc<dyn Fn() -> Option<ActorCell> + Send + Sync>,
    ) -> Self {
        Self {
            tree,
            parent,
            rng,
            hold,
            children_max,
            due,
            cell,
            children: BTreeMap::new(),
            by_path: HashMap::new(),
            by_actor: HashMap::new(),
            next: 0,
        }
    }

    /// Number of children, those waiting for a restart included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// There is no child.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// There is a child of that path, alive or about to be restarted.
    #[must_use]
    pub fn contains(&self, path: &Path) -> bool {
        self.by_path.contains_key(path)
    }

    /// Starts a child and waits for its `pre_start`. One that fails in it has failed like any other: its restart is
    /// scheduled, and that is the outcome.
    ///
    /// # Errors
    /// When it is not taken on, or its failure is to go up.
    pub async fn start_child(&mut self, spec: ChildSpec) -> Result<Outcome, StartError> {
        let path = spec.path().clone();
        if !path.is_below(&self.parent) {
            return Err(StartError::NotBelow { path, parent: self.parent.clone() });
        }
        if self.by_path.contains_key(&path) {
            return Err(StartError::Taken { path });
        }
        if self.children.len() >= self.children_max {
            return Err(StartError::Full { parent: self.parent.clone(), most: self.children_max });
        }
        let settings = spec.restarts.clone().unwrap_or_else(|| self.tree.settings().restarts());
        let restarts = Restarts::new(settings);
        spec.vitals.room(restarts.room());
        self.tree.list(&spec.vitals, Some(&self.parent));
        let key = self.number();
        self.by_path.insert(path, key);
        let gone = CancellationToken::new();
        self.children.insert(key, Child { spec, restarts, phase: Phase::Starting, gone });
        Ok(self.launch(key).await?)
    }

    /// Stops a child for good and waits until it is gone, or does not restart one that waits for it. False when there
    /// is no such child.
    pub async fn stop_child(&mut self, path: &Path) -> bool {
        let Some(key) = self.by_path.get(path).copied() else { return false };
        self.end(key).await;
        true
    }

    /// Stops all children, the last started first, each gone before the next is told.
    pub async fn stop_all(&mut self) {
        while let Some(key) = self.children.last_key_value().map(|(key, _)| *key) {
            self.end(key).await;
        }
    }

    /// What an event of ractor means for the children; nothing when it is about none of them.
    ///
    /// # Errors
    /// When a budget is spent and the failure is to go up; the other children are then stopped already.
    pub async fn on_event(&mut self, event: SupervisionEvent) -> Result<Option<Outcome>, Failure> {
        let is_no_failure = matches!(event, SupervisionEvent::ActorTerminated(..));
        let (actor, mut cause) = match event {
            SupervisionEvent::ActorFailed(actor, error) => (actor, Some(in_words(&*error))),
            SupervisionEvent::ActorTerminated(actor, Some(_), _) => (actor, None),
            SupervisionEvent::ActorTerminated(actor, None, reason) => {
                (actor, Some(clip(reason.unwrap_or_else(|| "killed".to_owned()))))
            }
            _ => return Ok(None),
        };
        // Whatever is not known by its id belongs to a life that has been dealt with.
        let Some(key) = self.by_actor.remove(&actor.get_id()) else { return Ok(None) };
        let child = self.children.get(&key);
        let policy = child.map(|child| child.spec.policy);
        // ractor tells a kill like an end of its own accord.
        if is_no_failure {
            cause = child.and_then(|child| child.spec.vitals.why_killed()).or(cause);
        }
        match (cause, policy) {
            (None, Some(Policy::Transient)) => Ok(self.ended(key).await),
            (cause, _) => {
                let cause = cause.unwrap_or_else(|| "it ended by itself".to_owned());
                self.failed(key, cause).await.map(Some)
            }
        }
    }

    /// Restarts the child whose pause is over; nothing when it was stopped or is long alive again.
    ///
    /// # Errors
    /// When its start fails, its budget is spent by that, and the failure is to go up.
    pub async fn restart_due(&mut self, due: Due) -> Result<Option<Outcome>, Failure> {
        let waits = self
            .children
            .get(&due.child)
            .is_some_and(|child| matches!(child.phase, Phase::Waiting { token, .. } if token == due.token));
        if !waits {
            return Ok(None);
        }
        if due.is_gone {
            return self.launch(due.child).await.map(Some);
        }
        self.failed(due.child, "its last life has not ended".to_owned()).await.map(Some)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Begins a life of a child.
    async fn launch(&mut self, key: u64) -> Result<Outcome, Failure> {
        let child = self.children.get_mut(&key).expect("only a child that is kept is launched");
        let path = child.spec.path().clone();
        let incarnation = child.spec.vitals.begin_life(self.tree.clock().mono());
        let (hold, gone) = Hold::new(Some(self.hold.clone()));
        child.gone = gone;
        child.phase = Phase::Starting;
        let limit = child.spec.start_limit(&self.tree);
        let started = match (self.cell)() {
            Some(parent) => {
                let place = Birthplace { tree: self.tree.clone(), parent, incarnation, hold };
                timeout(limit, (child.spec.start)(place)).await
            }
            None => Ok(Err(SpawnErr::StartupFailed("its supervisor has ended".into()))),
        };
        let cause = match started {
            Ok(Ok(actor)) => {
                self.by_actor.insert(actor.get_id(), key);
                child.phase = Phase::Running(actor);
                self.tree.sweep(&path);
                let outcome = Outcome::Started { path, incarnation };
                self.report(&outcome);
                return Ok(outcome);
            }
            Ok(Err(SpawnErr::StartupFailed(error))) => in_words(&*error),
            Ok(Err(error)) => in_words(&error),
            Err(_) => format!("it did not start within {limit:?}"),
        };
        self.failed(key, cause).await
    }

    /// A life of a child has failed.
    async fn failed(&mut self, key: u64, cause: String) -> Result<Outcome, Failure> {
        let token = self.number();
        let child = self.children.get_mut(&key).expect("only a child that is kept fails");
        let path = child.spec.path().clone();
        child.spec.vitals.failed(&cause);
        let verdict = child.restarts.failed(self.tree.clock().mono(), &mut self.rng);
        child.spec.vitals.room(child.restarts.room());
        let outcome = match verdict {
            Verdict::RestartAfter(pause) => {
                child.spec.vitals.waiting();
                let limit = child.spec.stop_limit(&self.tree);
                child.phase = Phase::Waiting {
                    token,
                    _timer: restart_after(pause, limit, child.gone.clone(), key, token, self.due.clone()),
                };
                Outcome::Restarting { path, cause, pause }
            }
            Verdict::Spent => return self.spent(key, Failure { path, cause }).await,
        };
        self.report(&outcome);
        Ok(outcome)
    }

    /// A child is not restarted any more.
    async fn spent(&mut self, key: u64, failure: Failure) -> Result<Outcome, Failure> {
        let child = self.remove(key);
        child.wait().await;
        child.spec.vitals.stopped();
        let Failure { path, cause } = failure.clone();
        match child.spec.when_spent {
            WhenSpent::Forget => {
                self.tree.unlist(&path);
                let outcome = Outcome::Forgotten { path, cause };
                self.report(&outcome);
                Ok(outcome)
            }
            WhenSpent::Escalate => {
                self.report(&Outcome::Escalated { path, cause });
                self.stop_all().await;
                Err(failure)
            }
        }
    }

    /// A transient child has ended by itself.
    async fn ended(&mut self, key: u64) -> Option<Outcome> {
        let child = self.remove(key);
        child.wait().await;
        child.spec.vitals.stopped();
        let path = child.spec.path().clone();
        self.tree.unlist(&path);
        let outcome = Outcome::Ended { path };
        self.report(&outcome);
        Some(outcome)
    }

    /// Ends a child for good, whatever it is doing.
    async fn end(&mut self, key: u64) {
        let child = self.remove(key);
        let path = child.spec.path().clone();
        if let Phase::Running(actor) = &child.phase {
            actor.stop(None);
            let limit = child.spec.stop_within.unwrap_or(self.tree.settings().stop_within);
            if timeout(limit, child.gone.cancelled()).await.is_err() {
                warn!(actor = %path, ?limit, "killed because it did not stop");
                actor.kill();
            }
        }
        child.wait().await;
        child.spec.vitals.stopped();
        self.tree.unlist(&path);
        self.report(&Outcome::Stopped { path });
    }

    /// Removes all that is kept of a child; dropping it ends its pause.
    fn remove(&mut self, key: u64) -> Child {
        let child = self.children.remove(&key).expect("only a child that is kept is removed");
        self.by_path.remove(child.spec.path());
        if let Phase::Running(actor) = &child.phase {
            self.by_actor.remove(&actor.get_id());
        }
        child
    }

    fn report(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Started { path, incarnation: 1 } => debug!(actor = %path, "started"),
            Outcome::Started { path, incarnation } => info!(actor = %path, incarnation, "restarted"),
            Outcome::Restarting { path, cause, pause } => warn!(actor = %path, cause, ?pause, "failed, will restart"),
            Outcome::Ended { path } | Outcome::Stopped { path } => debug!(actor = %path, "ended"),
            Outcome::Forgotten { path, cause } => warn!(actor = %path, cause, "failed too often, given up"),
            Outcome::Escalated { path, cause } => {
                error!(actor = %path, cause, "failed too often, its supervisor fails")
            }
        }
        self.tree.tell(outcome.clone());
    }
}

impl fmt::Debug for Children {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.children.values().map(|child| child.spec.path())).finish()
    }
}

impl Child {
    /// Waits until the last life is gone, as long as a killed one may take.
    async fn wait(&self) {
        if timeout(KILL_WITHIN, self.gone.cancelled()).await.is_err() {
            error!(actor = %self.spec.path(), "goes on although it was killed: it never awaits");
        }
    }
}

fn restart_after(
    pause: Duration,
    limit: Duration,
    gone: CancellationToken,
    child: u64,
    token: u64,
    due: Arc<dyn Fn(Due) + Send + Sync>,
) -> Timer {
    Timer::spawn(async move {
        tokio::time::sleep(pause).await;
        let is_gone = timeout(limit, gone.cancelled()).await.is_ok();
        due(Due { child, token, is_gone });
    })
}

impl Drop for Children {
    /// The actor failed or was killed, and ractor kills its children: they are shown as stopped until it lives again.
    fn drop(&mut self) {
        for child in self.children.values() {
            child.spec.vitals.stopped();
        }
    }
}
