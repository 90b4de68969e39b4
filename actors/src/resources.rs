//! Resources: searches for resources, those of our users and those of other members.
//!
//! Owns [`protocol::search::resources::Asked`] and [`protocol::search::resources::Answering`], and one task per peer asked,
//! per look-up and per answer under way. The edge begins and drops searches; the swarm tells it of questions heard by gossip,
//! the tasks that serve event streams of questions and answers that came there. It asks policy what a peer is to us and whom
//! a search asks, and the swarm to gossip. A restart ends every running search: its user hears that nothing more comes, and
//! late answers are refused. Bounds: the rules' own; `SINK_MAX` steps that a slow user has not taken, past which hits are
//! dropped and said to be; `ASKING_MAX` peers asked at once, the others wait; `ANSWERS_MAX` questions being answered,
//! `ANSWERS_BY_GOSSIP_MAX` of which may have come by gossip, past which a stream is told busy and gossip nothing.

pub(crate) mod look_up;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use ::store::Sight;
use protocol::{
    PeerId,
    catalogue::{Asker, Resource, ResourceQuery},
    event::{Event, Verb},
    json,
    relation::Relation,
    search::{
        QueryId,
        resources::{self as rules, Answering, Asked, CannotBegin, Ended, Question, SHOWN_MAX, Scope, Update},
    },
    signed::Verified,
    time::{Mono, Now},
    trace::{How, Outcome, Waterfall, Work},
    wire::{Answer, EventAck, Protocol, RefusalCode, Refused, ResourceAnswer, TOPIC_NODE_SEARCH},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::rngs::StdRng;
use serde_json::value::RawValue;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use self::look_up::{Found, LookUp, LookUpError};
use crate::{
    context::{Context, inform},
    fetch::FetchError,
    policy, reach, search, serve,
    supervision::{Address, Class, Envelope, Reply, Seat, Timer},
    swarm::{self, streams::Patience},
    traces::{self, Guest},
    view::{ResourceStep, WaterfallView},
};

/// Steps of one search that its user has not yet taken: all its hits and its end.
const SINK_MAX: usize = rules::FOUND_MAX + 8;

/// Searches ended by one look at the clock.
const EXPIRE_MAX: usize = 64;

/// Peers asked at once, of all searches: each may be a dial, and holds an answer of a mebibyte.
const ASKING_MAX: usize = 64;

/// Questions of others being answered at once: each holds what it shows.
const ANSWERS_MAX: usize = 64;

/// Those of them that came by gossip: to find and dial their authors takes seconds, and whoever asks on a stream is here.
const ANSWERS_BY_GOSSIP_MAX: usize = 48;

/// To find a peer, dial it and agree on the stream.
const OPEN_WITHIN: Duration = Duration::from_secs(6);

/// For a peer to take a question or an answer.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// Policy answers within this, or nobody is shown anything.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// The actor.
pub struct Resources;

/// What one life is given.
pub struct Args {
    /// Its seat.
    pub seat: Seat<Msg>,
    /// The daemon's.
    pub context: Context,
    /// Our catalogue.
    pub(crate) look_up: LookUp,
}

/// Where a search's steps go.
struct Sink {
    to: mpsc::Sender<ResourceStep>,
    began: Mono,
    is_truncated: bool,
    /// Where its time goes, if it is traced.
    waterfall: Option<Waterfall>,
    /// Its user wants to see that.
    wants_trace: bool,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// Why a search is not begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Declined {
    /// Too many, or of nobody.
    #[error(transparent)]
    Rule(#[from] CannotBegin),
}

/// What it holds.
pub struct State {
    seat: Seat<Msg>,
    context: Context,
    rng: StdRng,
    asked: Asked,
    answering: Answering,
    look_up: LookUp,
    sinks: HashMap<QueryId, Sink>,
    asking: Arc<Semaphore>,
    answers: JoinSet<()>,
    timer: Option<Timer>,
}

/// What a user looks for.
pub struct Beginning {
    /// Whose earlier search it replaces; empty for nobody's.
    pub user: String,
    /// Who is asked.
    pub scope: Scope,
    /// What for.
    pub query: ResourceQuery,
    /// The user's groups, told to whoever is asked.
    pub groups: Vec<String>,
    /// Its waterfall is wanted.
    pub wants_trace: bool,
}

/// Where the steps of a search come out, or why there are none.
pub type BeginReply = Reply<Result<mpsc::Receiver<ResourceStep>, Declined>>;

/// Where the answers to a question go, signed and in their order.
pub type AnswerReply = Reply<Result<Vec<Verified<Event>>, Refused>>;

/// What it is told and asked.
pub enum Msg {
    /// A user searches.
    Begin {
        /// What for.
        beginning: Box<Beginning>,
        /// The steps, or why there are none.
        reply: BeginReply,
    },
    /// Policy has said whom a search asks.
    Chosen {
        /// Which.
        beginning: Box<Beginning>,
        /// Whom.
        peers: Vec<PeerId>,
        /// The steps, or why there are none.
        reply: BeginReply,
    },
    /// Our own catalogue was looked through for a search of ours.
    FoundHere {
        /// Which.
        id: QueryId,
        /// What it has.
        resources: Vec<Verified<Resource>>,
        /// It has more.
        is_truncated: bool,
    },
    /// A stream to a peer of a traced search is open.
    Connected {
        /// For which search.
        id: QueryId,
        /// To which peer.
        to: PeerId,
        /// Since when.
        at: Mono,
    },
    /// Would an answer be taken?
    Expects {
        /// Of this peer.
        from: PeerId,
        /// To this question.
        query_id: String,
        /// Whether it is worth verifying.
        reply: Reply<bool>,
    },
    /// A peer answered.
    Answered {
        /// Which peer.
        from: PeerId,
        /// To which question.
        query_id: String,
        /// Verified.
        resources: Vec<Verified<Resource>>,
        /// It was its last word.
        is_last: bool,
        /// It left some out.
        is_truncated: bool,
    },
    /// A peer that was asked said no.
    Refused {
        /// Which peer.
        from: PeerId,
        /// To which question.
        query_id: String,
    },
    /// A peer that was asked is not reached, or gone.
    Lost {
        /// Which peer.
        from: PeerId,
        /// With which question.
        query_id: String,
    },
    /// The user went away.
    Closed {
        /// From which search.
        id: QueryId,
    },
    /// Another member asks on its own stream.
    Asked {
        /// Its event; its author is the stream's peer.
        event: Box<Verified<Event>>,
        /// The answers.
        reply: AnswerReply,
    },
    /// Another member asks by gossip.
    Heard {
        /// What; its author is the gossip's.
        question: Question,
    },
    /// Our catalogue was looked through for another member.
    Ready {
        /// For whom and what.
        question: Box<Question>,
        /// Signed, in their order; nothing to show is no answer by gossip.
        answers: Result<Answers, Refused>,
        /// The stream on which it asked; by gossip there is none.
        reply: Option<AnswerReply>,
    },
    /// See whose time is over.
    Tick,
}

/// Answers to one question.
pub struct Answers {
    /// Signed, in their order.
    events: Vec<Verified<Event>>,
    /// None of them has a resource.
    is_empty: bool,
}

impl Actor for Resources {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context, look_up }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let (own, factor) = (context.own.peer_id, context.own.profile.requests_factor());
        Ok(State {
            rng: seat.rng(),
            asked: Asked::new(own, factor),
            answering: Answering::new(own, factor),
            look_up,
            sinks: HashMap::new(),
            asking: Arc::new(Semaphore::new(ASKING_MAX)),
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
        let now = state.seat.now();
        match envelope.open() {
            Msg::Begin { beginning, reply } => state.begin(beginning, reply),
            Msg::Chosen { beginning, peers, reply } => reply.send(state.chosen(*beginning, &peers, now)),
            Msg::FoundHere { id, resources, is_truncated } => state.found_here(id, resources, is_truncated, now.mono),
            Msg::Connected { id, to, at } => state.trace(id, |waterfall, _| waterfall.connected(&to, at)),
            Msg::Expects { from, query_id, reply } => reply.send(state.asked.expects(&from, &query_id)),
            Msg::Answered { from, query_id, resources, is_last, is_truncated } => {
                state.answered(from, &query_id, resources, (is_last, is_truncated), now.mono);
            }
            Msg::Refused { from, query_id } => state.refused(from, &query_id, now.mono),
            Msg::Lost { from, query_id } => state.lost(from, &query_id, now.mono),
            Msg::Closed { id } => state.closed(id, now.mono),
            Msg::Asked { event, reply } => state.take(&event, reply, now),
            Msg::Heard { question } => state.heard(question, now),
            Msg::Ready { question, answers, reply } => state.ready(&question, answers, reply),
            Msg::Tick => state.expire(now.mono),
        }
        state.arm(now.mono);
        Ok(())
    }
}

// The searches of our users.
impl State {
    fn begin(&self, beginning: Box<Beginning>, reply: BeginReply) {
        // Where everybody is asked, partners are besides: what they have does not hang on what indexers pass on.
        let is_known_enough = beginning.scope == Scope::Known;
        let chosen = self.seat.reply(move |peers| Msg::Chosen { beginning, peers, reply });
        // One that is not told is dropped with its reply, and the user hears that we are away.
        let ask = policy::Msg::Peers { is_known_enough, reply: chosen };
        inform(&self.context.addresses.policy, Class::Search, ask);
    }

    fn chosen(
        &mut self,
        beginning: Beginning,
        peers: &[PeerId],
        now: Now,
    ) -> Result<mpsc::Receiver<ResourceStep>, Declined> {
        let Beginning { user, scope, query, groups, wants_trace } = beginning;
        let begun = self.asked.open(&user, scope, query.clone(), peers, now.mono, &mut self.rng)?;
        if let Some(replaced) = begun.replaced {
            self.end(&replaced, now.mono);
        }
        let own = self.context.own.peer_id;
        let context = self.context.traces.begin(wants_trace, &mut self.rng);
        let mut waterfall = context.map(|context| Waterfall::new(context, Work::Resources, now));
        if let Some(waterfall) = &mut waterfall {
            for peer in &begun.ask {
                waterfall.asked(*peer, How::Stream, now, &mut self.rng);
            }
            waterfall.asked(own, How::Here, now, &mut self.rng);
            if begun.gossip_after.is_some() {
                waterfall.gossiped(now);
            }
        }
        // One text, signed once, goes to everybody: they are told the search's own span.
        let question = rules::question(own, begun.id, &query, groups, context.into(), now.wall);
        let question = Verified::sign(&question, &self.context.keys);
        self.context.stats.resource_searches_begun.inc();
        let (to, steps) = mpsc::channel(SINK_MAX);
        let mut tasks: Vec<_> =
            begun.ask.iter().map(|peer| self.ask(*peer, begun.id, &question, context.is_some())).collect();
        tasks.extend(begun.gossip_after.map(|after| self.gossip(&question, after)));
        tasks.push(self.watch(begun.id, to.clone()));
        tasks.push(self.look_here(begun.id, query));
        self.sinks
            .insert(begun.id, Sink { to, began: now.mono, is_truncated: false, waterfall, wants_trace, _tasks: tasks });
        Ok(steps)
    }

    fn gossip(&self, question: &Verified<Event>, after: Duration) -> AbortOnDropHandle<()> {
        let (reply, _) = oneshot::channel();
        let text = question.text().as_bytes().to_vec();
        let publish = swarm::Command::Publish { topic: TOPIC_NODE_SEARCH, text, reply };
        let swarm = self.context.addresses.swarm.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(after).await;
            inform(&swarm, Class::Search, swarm::Msg::Do(publish));
        }))
    }

    fn ask(&self, peer: PeerId, id: QueryId, question: &Verified<Event>, is_traced: bool) -> AbortOnDropHandle<()> {
        let (context, me, asking) = (self.context.clone(), self.seat.me().clone(), Arc::clone(&self.asking));
        let question = question.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            // Never closed, so only a place is waited for; the search's own end aborts the wait.
            let Ok(_place) = asking.acquire().await else { return };
            let query_id = id.to_string();
            let connected = || {
                if is_traced {
                    drop(me.tell(Class::Own, Msg::Connected { id, to: peer, at: context.now().mono }));
                }
            };
            let Err(error) = listen(&context, &me, peer, &query_id, &question, connected).await else { return };
            debug!(%peer, %error, "a search for resources was not answered to its end");
            let told = match error {
                FetchError::Refused(_) => Msg::Refused { from: peer, query_id },
                _ => Msg::Lost { from: peer, query_id },
            };
            drop(me.tell(Class::Own, told));
        }))
    }

    /// Tells when the user is gone, so that nobody goes on answering.
    fn watch(&self, id: QueryId, to: mpsc::Sender<ResourceStep>) -> AbortOnDropHandle<()> {
        let me = self.seat.me().clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            to.closed().await;
            drop(me.tell(Class::Own, Msg::Closed { id }));
        }))
    }

    /// What is ours answers our own users, too, and they see all of it. What partners told us is theirs to show, with the
    /// groups of the user who asks.
    fn look_here(&self, id: QueryId, query: ResourceQuery) -> AbortOnDropHandle<()> {
        let (context, me, look_up) = (self.context.clone(), self.seat.me().clone(), Arc::clone(&self.look_up));
        AbortOnDropHandle::new(tokio::spawn(async move {
            let own = context.own.peer_id;
            let sight = Sight::Of { own, asker: Asker::new(own, Relation::Own, []) };
            let found = look_up(sight, query, SHOWN_MAX).await.unwrap_or_else(|error| {
                warn!(%error, "our own catalogue is left out of a search");
                Found { is_truncated: true, ..Found::default() }
            });
            let now = context.now().wall;
            let resources = found.texts.iter().filter_map(|text| Verified::open(text, now).ok()).collect();
            drop(me.tell(Class::Own, Msg::FoundHere { id, resources, is_truncated: found.is_truncated }));
        }))
    }

    fn found_here(&mut self, id: QueryId, resources: Vec<Verified<Resource>>, is_truncated: bool, now: Mono) {
        let (own, served) = (self.context.own.peer_id, resources.len());
        if let Some(update) = self.asked.found_here(id, resources, is_truncated, now) {
            self.trace(id, |waterfall, rng| waterfall.heard(&own, served, Some(None), now, rng));
            self.show(update, now);
        }
    }

    fn answered(
        &mut self,
        from: PeerId,
        query_id: &str,
        resources: Vec<Verified<Resource>>,
        (is_last, is_truncated): (bool, bool),
        now: Mono,
    ) {
        let served = resources.len();
        match self.asked.answered(&from, query_id, resources, (is_last, is_truncated), now) {
            Some(update) => {
                let last = is_last.then_some(None);
                self.trace(update.id, |waterfall, rng| waterfall.heard(&from, served, last, now, rng));
                self.show(update, now);
            }
            None => drop(self.context.stats.resources_dropped.inc()),
        }
    }

    fn refused(&mut self, from: PeerId, query_id: &str, now: Mono) {
        self.fail(&from, query_id, Outcome::Refused, now);
        if let Some(update) = self.asked.refused(&from, query_id, now) {
            self.show(update, now);
        }
    }

    fn lost(&mut self, from: PeerId, query_id: &str, now: Mono) {
        self.fail(&from, query_id, Outcome::Lost, now);
        if let Some(update) = self.asked.lost(&from, query_id, now) {
            self.show(update, now);
        }
    }

    fn closed(&mut self, id: QueryId, now: Mono) {
        if let Some(ended) = self.asked.close(id) {
            self.end(&ended, now);
        }
    }

    fn expire(&mut self, now: Mono) {
        for ended in self.asked.expire(now, EXPIRE_MAX) {
            self.end(&ended, now);
        }
    }

    fn trace(&mut self, id: QueryId, note: impl FnOnce(&mut Waterfall, &mut StdRng)) {
        if let Some(waterfall) = self.sinks.get_mut(&id).and_then(|sink| sink.waterfall.as_mut()) {
            note(waterfall, &mut self.rng);
        }
    }

    /// By gossip nobody is waited for, so that a waterfall says more of who is lost than the search itself.
    fn fail(&mut self, from: &PeerId, query_id: &str, outcome: Outcome, now: Mono) {
        if let Ok(id) = query_id.parse() {
            self.trace(id, |waterfall, _| waterfall.failed(from, outcome, now));
        }
    }

    fn show(&mut self, update: Update, now: Mono) {
        self.context.stats.resources_dropped.inc_by(update.dropped as u64);
        if let Some(sink) = self.sinks.get_mut(&update.id) {
            let elapsed_ms = millis(now.since(sink.began));
            for resource in &update.fresh {
                let step = ResourceStep::Hit {
                    query_id: update.id.to_string(),
                    peer_id: resource.creator,
                    resource: resource.to_raw(),
                    elapsed_ms,
                };
                sink.is_truncated |= sink.to.try_send(step).is_err();
            }
        }
        if let Some(ended) = update.ended {
            self.end(&ended, now);
        }
    }

    fn end(&mut self, ended: &Ended, now: Mono) {
        let Some(sink) = self.sinks.remove(&ended.id) else { return };
        let rules::Tally { asked, answered, refused, timed_out, truncated } = ended.tally;
        let hits = u32::try_from(ended.hits).unwrap_or(u32::MAX);
        if let Some(waterfall) = &sink.waterfall {
            let now = Now { mono: now, wall: self.context.now().wall };
            if sink.wants_trace {
                drop(sink.to.try_send(ResourceStep::Trace { trace: WaterfallView::of(waterfall, now) }));
            }
            let spans = waterfall.spans(hits, None, now);
            spans.into_iter().for_each(|span| traces::tell(&self.context, span));
        }
        let step = ResourceStep::Ended {
            query_id: ended.id.to_string(),
            reason: search::end_view(ended.end),
            hits,
            asked,
            answered,
            refused,
            timed_out,
            truncated: truncated || sink.is_truncated,
            elapsed_ms: millis(now.since(sink.began)),
        };
        // A user who is gone needs no last word.
        drop(sink.to.try_send(step));
    }

    fn arm(&mut self, now: Mono) {
        self.context.stats.resource_searches.set(i64::try_from(self.asked.len()).unwrap_or(i64::MAX));
        self.timer = self.asked.next_deadline().map(|due| self.seat.after(due.since(now), Msg::Tick));
    }
}

// The questions of others.
impl State {
    fn take(&mut self, event: &Verified<Event>, reply: AnswerReply, now: Now) {
        match self.answering.asked(event, now) {
            Ok(question) => self.answer(question, Some(reply)),
            Err(error) => reply.send(Err(error.refusal())),
        }
    }

    fn heard(&mut self, question: Question, now: Now) {
        if self.answering.is_first(&question, now) {
            self.answer(question, None);
        }
    }

    /// Looks for what the asker may see; whether by gossip or not, policy has the first word.
    fn answer(&mut self, question: Question, reply: Option<AnswerReply>) {
        while self.answers.try_join_next().is_some() {}
        let answers_max = if reply.is_some() { ANSWERS_MAX } else { ANSWERS_BY_GOSSIP_MAX };
        if self.answers.len() >= answers_max {
            self.context.stats.resource_questions_refused.inc();
            if let Some(reply) = reply {
                reply.send(Err(Refused::new(RefusalCode::Busy, "too many questions at once").retry_after(1)));
            }
            return;
        }
        let (context, me, look_up) = (self.context.clone(), self.seat.me().clone(), Arc::clone(&self.look_up));
        let work = Work::ResourcesAnswer;
        let guest = Guest::of(&context, question.traceparent, work, question.from, &mut self.rng);
        self.answers.spawn(async move {
            let answers = answers(&context, &look_up, &question).await;
            let outcome = if answers.is_ok() { Outcome::Answered } else { Outcome::Refused };
            guest.over(&context, outcome, None, None);
            drop(me.tell(Class::Own, Msg::Ready { question: Box::new(question), answers, reply }));
        });
    }

    fn ready(&mut self, question: &Question, answers: Result<Answers, Refused>, reply: Option<AnswerReply>) {
        let stats = &self.context.stats;
        match &answers {
            Ok(_) => stats.resource_questions_answered.inc(),
            Err(_) => stats.resource_questions_refused.inc(),
        };
        match (reply, answers) {
            (Some(reply), answers) => reply.send(answers.map(|answers| answers.events)),
            (None, Ok(answers)) if !answers.is_empty => self.bring(question.from, answers.events),
            // Whoever has nothing to show, or shows nothing to the asker, says nothing: both look the same from outside.
            (None, _) => {}
        }
    }

    /// Brings the answers to a question that came by gossip to its author, and to nobody else.
    fn bring(&mut self, to: PeerId, events: Vec<Verified<Event>>) {
        let context = self.context.clone();
        self.answers.spawn(async move {
            if let Err(error) = bring(&context, to, &events).await {
                debug!(%to, %error, "an answer about resources could not be brought");
            }
        });
    }
}

/// Asks one peer and reads its answers to its last word, verifying each resource here and not in the actor.
async fn listen(
    context: &Context,
    me: &Address<Msg>,
    from: PeerId,
    query_id: &str,
    question: &Verified<Event>,
    connected: impl FnOnce(),
) -> Result<(), FetchError> {
    let protocol = Protocol::Event(Verb::Search);
    let mut io = reach::open(context, from, protocol, OPEN_WITHIN).await?;
    connected();
    io.write_text(question.text().as_bytes(), WRITE_WITHIN).await?;
    let max = protocol.value_bytes_max();
    loop {
        let patience = Patience::within(rules::TOTAL);
        let read = io.read(patience, |value| json::parse::<Answer<Box<RawValue>>>(value.bytes, max)).await?;
        let text = match read.ok_or(FetchError::Ended)?? {
            Answer::Given(text) => text,
            Answer::Refused(refused) => return Err(FetchError::Refused(refused)),
        };
        let answer = answer_of(context, from, text.get()).filter(|answer| answer.query_id == query_id);
        let Some(answer) = answer else {
            context.stats.resources_dropped.inc();
            return Err(FetchError::Ended);
        };
        let is_last = answer.last;
        drop(me.tell(Class::Own, answered(context, from, &answer)));
        if is_last {
            io.close().await;
            return Ok(());
        }
    }
}

/// The answer within an event that this peer signed.
fn answer_of(context: &Context, from: PeerId, text: &str) -> Option<ResourceAnswer> {
    let event = Verified::<Event>::open(text, context.now().wall).ok()?;
    let is_theirs = event.from == from && event.verb == Verb::Search;
    match rules::Word::read(&event.payload).ok().filter(|_| is_theirs)? {
        rules::Word::Answer(answer) => Some(answer),
        rules::Word::Question(_) => None,
    }
}

/// An answer with its resources verified. One bad resource never spoils the others.
pub(crate) fn answered(context: &Context, from: PeerId, answer: &ResourceAnswer) -> Msg {
    let now = context.now().wall;
    let resources: Vec<Verified<Resource>> =
        answer.resources.iter().filter_map(|text| Verified::open(text.get(), now).ok()).collect();
    context.stats.resources_dropped.inc_by((answer.resources.len() - resources.len()) as u64);
    let (is_last, is_truncated) = (answer.last, answer.truncated);
    Msg::Answered { from, query_id: answer.query_id.clone(), resources, is_last, is_truncated }
}

/// What we show the author of a question, signed.
async fn answers(context: &Context, look_up: &LookUp, question: &Question) -> Result<Answers, Refused> {
    let peer = question.from;
    let ask = |reply| policy::Msg::Relation { peer, reply };
    let relation = context.addresses.policy.ask(Class::Search, ask, ASK_WITHIN).await;
    let relation = relation.map_err(|error| serve::busy(&error))?;
    // Whoever may be on the blacklist is shown nothing until that is known.
    let unknown = || Refused::new(RefusalCode::Busy, "relations are not read back yet").retry_after(1);
    let relation = relation.ok_or_else(unknown)?;
    if relation == Relation::Blacklist {
        return Err(Refused::new(RefusalCode::Banned, "this member does not answer you"));
    }
    let own = context.own.peer_id;
    let asker = Asker::new(peer, relation, question.groups.iter().cloned());
    let found = look_up(Sight::Of { own, asker }, question.query.clone(), SHOWN_MAX).await;
    let found = found.map_err(|error: LookUpError| {
        warn!(%error, "a question about resources is not answered");
        Refused::new(RefusalCode::Busy, "the catalogue cannot be read now").retry_after(1)
    })?;
    let now = context.now().wall;
    let sign = |answer: &ResourceAnswer| Verified::sign(&rules::answer(own, answer, now), &context.keys);
    let answers = rules::split(question.id, &found.texts, found.is_truncated);
    let is_empty = answers.iter().all(|answer| answer.resources.is_empty());
    Ok(Answers { events: answers.iter().map(sign).collect(), is_empty })
}

/// Writes the answers and waits until the last one was taken.
async fn bring(context: &Context, to: PeerId, events: &[Verified<Event>]) -> Result<(), FetchError> {
    let protocol = Protocol::Event(Verb::Search);
    let mut io = reach::open(context, to, protocol, OPEN_WITHIN).await?;
    for event in events {
        io.write_text(event.text().as_bytes(), WRITE_WITHIN).await?;
    }
    let max = protocol.value_bytes_max();
    let read = io
        .read(Patience::within(WRITE_WITHIN), |value| json::parse::<Answer<EventAck>>(value.bytes, max))
        .await?
        .ok_or(FetchError::Ended)??;
    io.close().await;
    match read {
        Answer::Given(EventAck { .. }) => Ok(()),
        Answer::Refused(refused) => Err(FetchError::Refused(refused)),
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
