//! Planner: our sessions with those with whom a plan is made.
//!
//! Owns [`protocol::planner::Sessions`] and one task per session, which feeds its stream. Sharing brings what our
//! applications feed; what peers feed comes by the serving tasks, like every other event. A restart ends every session:
//! the application's next step opens it anew. Bounds: those of the sessions; `WAITING_MAX` steps of each.

use std::{collections::BTreeMap, time::Duration};

use protocol::{
    PeerId,
    event::{Event, EventAck, Verb},
    json,
    planner::{Broken, Sessions, WAITING_MAX},
    signed::Verified,
    wire::Answer,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use crate::{
    context::{Context, inform},
    fetch::FetchError,
    reach,
    supervision::{Address, Class, Envelope, Reply, Seat, Timer},
    swarm::streams::Io,
};

/// For a peer to be reached.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// For a peer to take a step and say so.
const TAKE_WITHIN: Duration = Duration::from_secs(10);

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
    sessions: Sessions,
    feeds: BTreeMap<PeerId, Feed>,
    timer: Option<Timer>,
}

/// The way to a session's task.
struct Feed {
    steps: mpsc::Sender<Step>,
    task: AbortOnDropHandle<()>,
}

/// One step of a plan.
#[derive(Clone, Debug)]
pub struct Step {
    /// The same at each sending.
    pub id: String,
    /// In whose name.
    pub user: String,
    /// The user's groups.
    pub groups: Vec<String>,
    /// The step.
    pub payload: Vec<u8>,
}

/// What it is told.
pub enum Msg {
    /// Feed one session, which is opened where there is none, or all that are open.
    Feed {
        /// With whom; nothing for all.
        to: Option<PeerId>,
        /// What.
        step: Step,
        /// How many sessions take it, or why none does.
        reply: Reply<Result<usize, String>>,
    },
    /// Close one session, or all.
    Close {
        /// With whom; nothing for all.
        to: Option<PeerId>,
    },
    /// A step was taken.
    Passed(PeerId),
    /// A session's stream broke; its task asks whether to open another.
    Broke {
        /// With whom.
        peer: PeerId,
        /// Whether.
        reply: Reply<Broken>,
    },
    /// A session may be over.
    Tick,
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
        Ok(State { seat, context, sessions: Sessions::default(), feeds: BTreeMap::new(), timer: None })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Feed { to, step, reply } => reply.send(state.feed(to, &step)),
            Msg::Close { to } => state.close(to),
            Msg::Passed(peer) => state.sessions.passed(&peer),
            Msg::Broke { peer, reply } => reply.send(state.broke(&peer)),
            Msg::Tick => state.expire(),
        }
        state.arm();
        Ok(())
    }
}

impl State {
    fn feed(&mut self, to: Option<PeerId>, step: &Step) -> Result<usize, String> {
        if let Some(peer) = to {
            self.open(peer)?;
        }
        let mut taken = 0;
        for (_, feed) in self.feeds.iter().filter(|(peer, _)| to.is_none_or(|to| to == **peer)) {
            taken += usize::from(feed.steps.try_send(step.clone()).is_ok());
        }
        match (to, taken) {
            (Some(peer), 0) => Err(format!("{WAITING_MAX} steps wait for {peer} already")),
            _ => Ok(taken),
        }
    }

    fn open(&mut self, peer: PeerId) -> Result<(), String> {
        let is_new = self.sessions.open(peer, self.seat.now().mono).map_err(|full| full.to_string())?;
        if is_new {
            let (steps, waiting) = mpsc::channel(WAITING_MAX);
            let task = tokio::spawn(feed(self.context.clone(), self.seat.me().clone(), peer, waiting));
            self.feeds.insert(peer, Feed { steps, task: AbortOnDropHandle::new(task) });
            self.context.note("planner_opened", peer, "");
        }
        Ok(())
    }

    /// The task writes what waits, and then ends its stream.
    fn close(&mut self, to: Option<PeerId>) {
        for peer in self.sessions.close(to.as_ref()) {
            self.ended(&peer, "closed");
        }
    }

    fn broke(&mut self, peer: &PeerId) -> Broken {
        let verdict = self.sessions.broke(peer, self.seat.now().mono);
        if verdict == Broken::Over {
            self.ended(peer, "broken twice");
        }
        verdict
    }

    fn expire(&mut self) {
        for peer in self.sessions.expire(self.seat.now().mono) {
            self.ended(&peer, "a day old");
        }
    }

    fn ended(&mut self, peer: &PeerId, why: &'static str) {
        if let Some(Feed { task, .. }) = self.feeds.remove(peer) {
            // It writes what waits, at most for as long as a step may take each, and then ends by itself.
            drop(task.detach());
            info!(%peer, why, "a planner session ended");
            self.context.note("planner_ended", peer, why);
        }
    }

    fn arm(&mut self) {
        let now = self.seat.now().mono;
        self.timer = self.sessions.next_end().map(|end| self.seat.after(end.since(now), Msg::Tick));
    }
}

/// Feeds one session until it is closed or broken for good.
async fn feed(context: Context, me: Address<Msg>, peer: PeerId, mut steps: mpsc::Receiver<Step>) {
    let mut stream = None;
    while let Some(step) = steps.recv().await {
        while let Err(error) = pass(&context, peer, &step, &mut stream).await {
            let ask = |reply| Msg::Broke { peer, reply };
            let verdict = me.ask(Class::Control, ask, TAKE_WITHIN).await.unwrap_or(Broken::Over);
            if verdict == Broken::Over {
                info!(%peer, %error, "a planner session broke");
                return;
            }
        }
        inform(&me, Class::Control, Msg::Passed(peer));
    }
    if let Some(io) = stream {
        Io::close(io).await;
    }
}

async fn pass(context: &Context, peer: PeerId, step: &Step, stream: &mut Option<Io>) -> Result<(), FetchError> {
    let protocol = Verb::Planner.protocol();
    let io = match stream {
        Some(io) => io,
        None => {
            let mut io = reach::open(context, peer, protocol, OPEN_WITHIN).await?;
            io.live(Some(protocol::planner::LIFE));
            stream.insert(io)
        }
    };
    let event = Event {
        verb: Verb::Planner,
        from: context.own.peer_id,
        user: step.user.clone(),
        groups: step.groups.clone(),
        datatype: "planner".to_owned(),
        id: step.id.clone(),
        ts: context.now().wall,
        payload: step.payload.clone(),
    };
    let signed = Verified::sign(&event, &context.keys).to_raw();
    let max = protocol.value_bytes_max();
    let asked = io.ask(&signed, TAKE_WITHIN, |value| json::parse::<Answer<EventAck>>(value.bytes, max)).await;
    let outcome = match asked {
        Ok(Ok(Answer::Given(_))) => return Ok(()),
        Ok(Ok(Answer::Refused(refused))) => Err(FetchError::Refused(refused)),
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(error.into()),
    };
    *stream = None;
    outcome
}
