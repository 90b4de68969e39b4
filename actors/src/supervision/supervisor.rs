//! A branch of the tree, and its root.

use std::{fmt, sync::Arc, time::Duration};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    address::{Address, Envelope},
    children::{ChildSpec, Children, Due, Failure, KILL_WITHIN},
    life::{Birth, Hold, MakeArguments, Seat, Supervised},
    path::Path,
    vitals::{Tree, in_words},
};

/// A supervisor hears one message per waiting child, which the timers send whatever its bound.
const MAILBOX_BOUND: u64 = 8;

/// A branch: starts its children in order, restarts each alone, fails when one's budget is spent, and stops them in
/// reverse order. It owns nothing else, so its restart forgets nothing but its children's states.
pub struct Supervisor;

/// What a [`Supervisor`] is started with.
pub struct Args {
    seat: Seat<Msg>,
    children: Vec<ChildSpec>,
}

/// What a [`Supervisor`] keeps.
pub struct State {
    children: Children,
}

/// What a [`Supervisor`] is told.
#[derive(Debug)]
pub enum Msg {
    /// A child's pause is over.
    RestartDue(Due),
}

impl Supervisor {
    /// A branch at `path` with these children, in the order of their start. It may take as long to start and to stop
    /// as all of them together.
    #[must_use]
    pub fn spec(tree: &Tree, path: Path, children: Vec<ChildSpec>) -> ChildSpec {
        let start: Duration = children.iter().map(|child| child.start_limit(tree)).sum();
        let stop: Duration = children.iter().map(|child| child.stop_limit(tree)).sum();
        let address = tree.address(path, "supervisor", MAILBOX_BOUND);
        ChildSpec::new(&address, Self, move |seat| Args { seat, children: children.clone() })
            .start_within(start + tree.settings().start_within)
            .stop_within(stop + tree.settings().stop_within)
    }
}

impl Actor for Supervisor {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Envelope<Msg>>, args: Args) -> Result<State, ActorProcessingErr> {
        let mut children = args.seat.children(args.children.len(), Msg::RestartDue);
        for child in args.children {
            children.start_child(child).await?;
        }
        Ok(State { children })
    }

    async fn handle(
        &self,
        _: ActorRef<Envelope<Msg>>,
        envelope: Envelope<Msg>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::RestartDue(due) => state.children.restart_due(due).await?,
        };
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Envelope<Msg>>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.children.on_event(event).await?;
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Envelope<Msg>>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.children.stop_all().await;
        Ok(())
    }
}

/// How a root ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop, and every actor has.
    Stopped,
    /// A budget was spent all the way up, or the root itself failed; in words.
    Failed(String),
}

/// A running tree. Dropped, it is killed.
pub struct Root {
    tree: Tree,
    address: Address<Msg>,
    actor: ActorCell,
    told: oneshot::Receiver<Ended>,
    ended: Option<Ended>,
    gone: CancellationToken,
}

impl Root {
    /// Starts the root with these children, in order. A child that fails in its `pre_start` is restarted like any other.
    ///
    /// # Errors
    /// When a child's budget is spent before all were started, or a child is not to be taken on.
    pub async fn start(tree: &Tree, children: Vec<ChildSpec>) -> Result<Self, Failure> {
        let address = tree.address::<Msg>(Path::root(), "supervisor", MAILBOX_BOUND);
        let incarnation = address.vitals().begin_life(tree.clock().mono());
        tree.list(address.vitals(), None);
        let (hold, gone) = Hold::new(None);
        let arguments: MakeArguments<Supervisor, Msg> = Arc::new(move |seat| Args { seat, children: children.clone() });
        let birth = Birth { arguments, address: address.clone(), tree: tree.clone(), incarnation, hold };
        match Self::spawn(birth).await {
            Ok((actor, told)) => Ok(Self { tree: tree.clone(), address, actor, told, ended: None, gone }),
            Err(error) => {
                address.vitals().stopped();
                let cause = match error {
                    SpawnErr::StartupFailed(error) => in_words(&*error),
                    error => in_words(&error),
                };
                Err(Failure { path: Path::root(), cause })
            }
        }
    }

    async fn spawn(birth: Birth<Supervisor, Msg>) -> Result<(ActorCell, oneshot::Receiver<Ended>), SpawnErr> {
        let (tell, ended) = oneshot::channel();
        let (witness, _) = Witness::spawn(None, Witness, tell).await?;
        let root = Supervised(Arc::new(Supervisor));
        match Supervised::spawn_linked(None, root, birth, witness.get_cell()).await {
            Ok((root, _)) => Ok((root.get_cell(), ended)),
            Err(error) => {
                witness.stop(None);
                Err(error)
            }
        }
    }

    /// Waits until the root has ended and every actor is gone; a killed one that never awaits is not waited for. It may
    /// be given up and called again.
    pub async fn ended(&mut self) -> Ended {
        let ended = match &self.ended {
            Some(ended) => ended.clone(),
            None => {
                let told = (&mut self.told).await;
                // The witness goes without a word only when the runtime does.
                let ended = told.unwrap_or_else(|_| Ended::Failed("the runtime has ended".to_owned()));
                self.ended.insert(ended).clone()
            }
        };
        let _ = timeout(KILL_WITHIN, self.gone.cancelled()).await;
        self.address.vitals().stopped();
        match &ended {
            Ended::Stopped => self.tree.unlist(&Path::root()),
            Ended::Failed(cause) => self.address.vitals().failed(cause),
        }
        ended
    }

    /// Stops every actor, the last started first, and waits for all.
    pub async fn stop(mut self) -> Ended {
        self.actor.stop(None);
        self.ended().await
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.actor.kill();
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("tree", &self.tree).finish_non_exhaustive()
    }
}

/// Stands above the root, because only a supervisor is told why an actor ended.
struct Witness;

impl Actor for Witness {
    type Msg = ();
    type State = Option<oneshot::Sender<Ended>>;
    type Arguments = oneshot::Sender<Ended>;

    async fn pre_start(
        &self,
        _: ActorRef<()>,
        tell: oneshot::Sender<Ended>,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(Some(tell))
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        tell: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let ended = match event {
            SupervisionEvent::ActorFailed(_, error) => Ended::Failed(in_words(&*error)),
            SupervisionEvent::ActorTerminated(_, Some(_), _) => Ended::Stopped,
            SupervisionEvent::ActorTerminated(_, None, _) => Ended::Failed("killed".to_owned()),
            _ => return Ok(()),
        };
        // A root that nobody waits for has nobody to tell.
        tell.take().map(|tell| tell.send(ended));
        myself.stop(None);
        Ok(())
    }
}
