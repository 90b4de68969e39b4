//! Relay: searches among indexers, both those that our nodes ask us to pass on and those that others pass to us.
//!
//! Owns [`protocol::search::Relayed`] and [`protocol::search::Answerer`]. The tasks that serve search streams open and
//! close searches and bring answers; the swarm tells it of queries heard by gossip. It asks the registry for answers and
//! the swarm to gossip. A restart forgets every relayed search: its nodes hear their streams end. Bounds: those of the
//! state machines; `SINK_MAX` values that a slow node has not taken, past which they are dropped and counted.

use std::{collections::HashMap, sync::Arc, time::Duration};

use protocol::{
    PeerId,
    record::PeerRecord,
    search::{Answerer, AnswererSettings, Forward, Question, RelayId, Relayed, Tally, Wanted},
    signed::Verified,
    trace::{Outcome, Work},
    wire::{Protocol, Refused, SearchPeerRequest, SearchPeerResult, SearchQuery, TOPIC_SEARCH_PEER},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::rngs::StdRng;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tracing::debug;

use crate::{
    context::{Context, inform},
    fetch, registry,
    supervision::{Class, Envelope, Reply, Seat, Timer},
    swarm,
    traces::Guest,
};

/// Values of one search that its node has not yet taken.
const SINK_MAX: usize = 256;

/// Searches ended by one look at the clock.
const EXPIRE_MAX: usize = 64;

/// Answers to other indexers under way at once.
const ANSWERS_MAX: usize = 1_024;

/// For another indexer to take an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The actor.
pub struct Relay;

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
    relayed: Relayed,
    answerer: Answerer,
    sinks: HashMap<RelayId, Sink>,
    answers: JoinSet<()>,
    timer: Option<Timer>,
}

/// Where a search's values go.
struct Sink {
    to: mpsc::Sender<SearchPeerResult>,
    guest: Guest,
    hits: usize,
}

/// A search of a node, and what is known for it here.
pub struct Opening {
    /// Who asks.
    pub from: PeerId,
    /// What it wrote.
    pub request: SearchPeerRequest,
    /// What it looks for.
    pub wanted: Wanted,
    /// What our sessions have, and whether some were left out.
    pub held: (Vec<Arc<Verified<PeerRecord>>>, bool),
    /// Who should answer.
    pub roll: Arc<[PeerId]>,
    /// The DHT is being asked.
    pub has_dht: bool,
}

/// A search that is open, and its values as they come.
pub type Opened = (RelayId, mpsc::Receiver<SearchPeerResult>);

/// What it is told and asked.
pub enum Msg {
    /// A node searches.
    Open {
        /// What and who.
        opening: Box<Opening>,
        /// Its values, or a refusal.
        reply: Reply<Result<Opened, Refused>>,
    },
    /// The DHT was asked for a search.
    Found {
        /// Which.
        id: RelayId,
        /// What it had.
        records: Vec<Arc<Verified<PeerRecord>>>,
    },
    /// A node's search stream ended.
    Close {
        /// Which.
        id: RelayId,
    },
    /// Another indexer answers a query of ours.
    Answered {
        /// Who.
        from: PeerId,
        /// It said in its hello that it is an indexer.
        is_indexer: bool,
        /// What.
        result: SearchPeerResult,
    },
    /// Another indexer asks by gossip.
    Asked {
        /// What; its emitter is its author.
        query: SearchQuery,
    },
    /// The registry has the answer to a question.
    Answer {
        /// Which.
        question: Question,
        /// In values within the limit.
        values: Vec<SearchPeerResult>,
        /// The work for it, as far as it is traced.
        guest: Box<Guest>,
    },
    /// See whose time is over.
    Tick,
}

impl Actor for Relay {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let own = &context.own;
        let answerer = Answerer::new(own.peer_id, &AnswererSettings::default(), own.profile.requests_factor());
        Ok(State {
            rng: seat.rng(),
            relayed: Relayed::new(own.peer_id),
            answerer,
            sinks: HashMap::new(),
            answers: JoinSet::new(),
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
            Msg::Open { opening, reply } => reply.send(state.open(*opening)),
            Msg::Found { id, records } => state.found(id, &records),
            Msg::Close { id } => state.close(id),
            Msg::Answered { from, is_indexer, result } => state.answered(from, is_indexer, result),
            Msg::Asked { query } => state.asked(&query),
            Msg::Answer { question, values, guest } => state.answer(&question, values, *guest),
            Msg::Tick => state.expire(),
        }
        state.arm();
        Ok(())
    }
}

impl State {
    fn open(&mut self, opening: Opening) -> Result<Opened, Refused> {
        let Opening { from, request, wanted, held, roll, has_dht } = opening;
        let now = self.seat.now().mono;
        let guest = Guest::of(&self.context, request.traceparent, Work::SearchRelay, from, &mut self.rng);
        let opened = self.relayed.open(from, &request, &wanted, held, roll, has_dht, now, &mut self.rng)?;
        let (to, values) = mpsc::channel(SINK_MAX);
        self.sinks.insert(opened.id, Sink { to, guest, hits: 0 });
        self.forward(opened.forward);
        if let Some(mut query) = opened.gossip {
            query.traceparent = guest.onward;
            self.gossip(&query);
        }
        self.context.stats.searches_served.inc();
        Ok((opened.id, values))
    }

    fn gossip(&self, query: &SearchQuery) {
        // Our own query has nothing in it that JSON cannot say.
        let Ok(text) = serde_json::to_vec(query) else { return };
        let (reply, _) = oneshot::channel();
        let publish = swarm::Command::Publish { topic: TOPIC_SEARCH_PEER, text, reply };
        inform(&self.context.addresses.swarm, Class::Search, swarm::Msg::Do(publish));
    }

    fn found(&mut self, id: RelayId, records: &[Arc<Verified<PeerRecord>>]) {
        if let Some(forward) = self.relayed.found(id, records, self.seat.now().mono) {
            self.forward(forward);
        }
    }

    fn close(&mut self, id: RelayId) {
        self.relayed.close(id);
        if let Some(sink) = self.sinks.remove(&id) {
            sink.guest.over(&self.context, Outcome::Lost, Some(sink.hits), None);
        }
    }

    fn answered(&mut self, from: PeerId, is_indexer: bool, result: SearchPeerResult) {
        match self.relayed.answered(&from, is_indexer, result, self.seat.now().mono) {
            Some(forward) => self.forward(forward),
            None => drop(self.context.stats.results_dropped.inc()),
        }
    }

    fn forward(&mut self, forward: Forward) {
        let Some(sink) = self.sinks.get_mut(&forward.id) else { return };
        let tally = forward.values.last().and_then(Tally::of);
        for value in forward.values {
            sink.hits += value.records.len();
            if sink.to.try_send(value).is_err() {
                self.context.stats.results_dropped.inc();
            }
        }
        if !forward.is_over {
            return;
        }
        // The stream ends when it has taken what waits.
        if let Some(sink) = self.sinks.remove(&forward.id) {
            sink.guest.over(&self.context, Outcome::Answered, Some(sink.hits), tally);
        }
    }

    fn asked(&mut self, query: &SearchQuery) {
        match self.answerer.take(query.emitter_id, query, self.seat.now().mono) {
            Ok(question) => {
                let work = Work::SearchAnswer;
                let guest = Guest::of(&self.context, query.traceparent, work, query.emitter_id, &mut self.rng);
                let (answered, guest) = (question.clone(), Box::new(guest));
                let reply = self.seat.reply(move |values| Msg::Answer { question: answered, values, guest });
                inform(&self.context.addresses.registry, Class::Search, registry::Msg::Answer { question, reply });
            }
            Err(error) => debug!(from = %query.emitter_id, %error, "a query is not answered"),
        }
    }

    /// Every query is answered, empty or not, to its emitter and to nobody else.
    fn answer(&mut self, question: &Question, values: Vec<SearchPeerResult>, guest: Guest) {
        while self.answers.try_join_next().is_some() {}
        if self.answers.len() >= ANSWERS_MAX {
            self.context.stats.results_dropped.inc();
            return;
        }
        self.context.stats.queries_answered.inc();
        let (context, emitter) = (self.context.clone(), question.emitter);
        self.answers.spawn(async move {
            let opened = fetch::open(&context, emitter, Vec::new(), Protocol::SearchResponse, ANSWER_WITHIN).await;
            let mut io = match opened {
                Ok(io) => io,
                Err(error) => {
                    guest.over(&context, Outcome::Lost, None, None);
                    return debug!(%emitter, %error, "a query could not be answered");
                }
            };
            for value in &values {
                if io.write(value, ANSWER_WITHIN).await.is_err() {
                    return guest.over(&context, Outcome::Lost, None, None);
                }
            }
            io.close().await;
            let hits = values.iter().map(|value| value.records.len()).sum();
            guest.over(&context, Outcome::Answered, Some(hits), None);
        });
    }

    fn expire(&mut self) {
        for forward in self.relayed.expire(self.seat.now().mono, EXPIRE_MAX) {
            self.forward(forward);
        }
    }

    fn arm(&mut self) {
        let now = self.seat.now().mono;
        self.timer = self.relayed.next_deadline().map(|due| self.seat.after(due.since(now), Msg::Tick));
    }
}
