//! SearchTracker: the searches of our users, one per user, each with its own end.
//!
//! Owns [`protocol::search::Searches`], how much our users asked of each indexer, and one task per indexer asked, which reads
//! and verifies what it says. The edge begins and drops searches, and asks here whom it may ask for a record. A restart ends every running search: its user hears that nothing more comes. Bounds: the
//! searches' own; `SINK_MAX` steps that a slow user has not taken, past which hits are dropped and said to be.

use std::{collections::HashMap, time::Duration};

use protocol::{
    PeerId,
    behaviour::Kind,
    json,
    record::PeerRecord,
    restraint::{Enough, Restraint},
    search::{ASKED_MAX, End, Ended, Key, SearchError, Searches, Tally, Update, Wanted},
    signed::Verified,
    time::Mono,
    trace::{How, Outcome, Traceparent, Waterfall, Work},
    wire::{Answer, Protocol, SearchPeerRequest, SearchPeerResult},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::{RngExt as _, rngs::StdRng};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::{
    config::{Offered, Turn},
    context::{Context, inform},
    fetch::{self, FetchError},
    lookup, registry,
    supervision::{Address, Class, Envelope, Reply, Seat, Timer},
    swarm::streams::Patience,
    traces,
    view::{self, RecordView, SearchView, WaterfallView},
};

/// Steps of one search that its user has not yet taken: all its hits and its end.
const SINK_MAX: usize = protocol::search::HITS_MAX + 8;

/// Searches ended by one look at the clock.
const EXPIRE_MAX: usize = 64;

/// For an indexer to take a question.
const OPEN_WITHIN: Duration = Duration::from_secs(3);

/// The actor.
pub struct Search;

/// What one life is given.
pub struct Args {
    /// Its seat.
    pub seat: Seat<Msg>,
    /// The daemon's.
    pub context: Context,
}

/// Where a search's steps go.
struct Sink {
    to: mpsc::Sender<SearchView>,
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
    /// It makes no sense, or there are too many.
    #[error("{0}")]
    Invalid(String),
    /// Our users asked enough.
    #[error(transparent)]
    Enough(#[from] Enough),
}

/// What it holds.
pub struct State {
    seat: Seat<Msg>,
    context: Context,
    rng: StdRng,
    searches: Searches,
    restraint: Restraint,
    sinks: HashMap<Key, Sink>,
    timer: Option<Timer>,
    offered: Offered,
}

/// What it is told and asked.
pub enum Msg {
    /// A user searches.
    Begin {
        /// Whose earlier search it replaces; empty for nobody's.
        user: String,
        /// What for.
        wanted: Wanted,
        /// Whom to ask, best first.
        members: Vec<PeerId>,
        /// Its waterfall is wanted.
        wants_trace: bool,
        /// The steps, or why there are none.
        reply: Reply<Result<mpsc::Receiver<SearchView>, Declined>>,
    },
    /// A user looks a record up.
    LookUp {
        /// Whom it could be asked of, best first.
        members: Vec<PeerId>,
        /// Whom to ask.
        reply: Reply<Result<Vec<PeerId>, Enough>>,
    },
    /// A stream to an indexer of a traced search is open.
    Connected {
        /// For which search.
        key: Key,
        /// To which indexer.
        to: PeerId,
        /// Since when.
        at: Mono,
    },
    /// An indexer said something.
    Heard {
        /// Which indexer.
        from: PeerId,
        /// To which question.
        query_id: String,
        /// Verified hits.
        records: Vec<Verified<PeerRecord>>,
        /// It was its last word.
        last: Option<Tally>,
    },
    /// An indexer said no, or is gone.
    Lost {
        /// Which indexer.
        from: PeerId,
        /// With which question.
        query_id: String,
        /// Which of the two.
        outcome: Outcome,
    },
    /// Our own sessions were looked through.
    Held {
        /// For which search.
        key: Key,
        /// What was found.
        records: Vec<Verified<PeerRecord>>,
    },
    /// The user went away.
    Closed {
        /// From which search.
        key: Key,
    },
    /// Settings may change.
    Configure(Turn),
    /// See whose time is over.
    Tick,
}

impl Actor for Search {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let rng = seat.rng();
        let restraint = Restraint::new(&context.live().behaviour, context.own.profile.requests_factor());
        let searches = Searches::new(context.live().search.clone());
        let (sinks, offered) = (HashMap::new(), Offered::default());
        Ok(State { seat, context, rng, searches, restraint, sinks, timer: None, offered })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Begin { user, wanted, members, wants_trace, reply } => {
                reply.send(state.begin(&user, wanted, &members, wants_trace));
            }
            Msg::LookUp { members, reply } => reply.send(state.look_up(&members)),
            Msg::Connected { key, to, at } => state.trace(&key, |waterfall, _| waterfall.connected(&to, at)),
            Msg::Heard { from, query_id, records, last } => state.heard(from, &query_id, records, last),
            Msg::Lost { from, query_id, outcome } => state.lost(from, &query_id, outcome),
            Msg::Held { key, records } => state.held(&key, records),
            Msg::Closed { key } => state.closed(&key),
            Msg::Configure(turn) => state.configure(turn),
            Msg::Tick => state.expire(),
        }
        state.arm();
        Ok(())
    }
}

impl State {
    fn configure(&mut self, turn: Turn) {
        if let Some(settings) = self.offered.take(turn, |_| Ok(())) {
            self.searches.set_settings(settings.search.clone());
            self.restraint.set_limits(&settings.behaviour, self.context.own.profile.requests_factor());
        }
    }

    fn look_up(&mut self, members: &[PeerId]) -> Result<Vec<PeerId>, Enough> {
        self.restraint.choose(members, Kind::Get, lookup::MEMBERS_MAX, self.seat.now().mono)
    }

    fn begin(
        &mut self,
        user: &str,
        wanted: Wanted,
        members: &[PeerId],
        wants_trace: bool,
    ) -> Result<mpsc::Receiver<SearchView>, Declined> {
        let both = self.seat.now();
        let now = both.mono;
        let members = &self.restraint.choose(members, Kind::Search, ASKED_MAX, now)?;
        let id = uuid::Builder::from_random_bytes(self.rng.random()).into_uuid();
        let key = Key::new(user, id).map_err(|error| Declined::Invalid(error.to_string()))?;
        let has_sessions = self.context.own.role.indexer;
        let started = self.searches.start(key.clone(), wanted.clone(), members, has_sessions, now, &mut self.rng);
        self.context.stats.searches_begun.inc();
        let (to, steps) = mpsc::channel(SINK_MAX);
        let mut started = match started {
            Ok(started) => started,
            Err(SearchError::Nobody) => {
                // A fresh channel has room.
                drop(to.try_send(nobody()));
                return Ok(steps);
            }
            Err(error) => return Err(Declined::Invalid(error.to_string())),
        };
        if let Some(replaced) = started.replaced {
            self.end(&replaced);
        }
        let context = self.context.traces.begin(wants_trace, &mut self.rng);
        let mut waterfall = context.map(|context| Waterfall::new(context, Work::Search, both));
        if let Some(waterfall) = &mut waterfall {
            for (peer, request) in &mut started.asks {
                request.traceparent = Some(waterfall.asked(*peer, How::Stream, both, &mut self.rng)).into();
            }
            if has_sessions {
                waterfall.asked(self.context.own.peer_id, How::Here, both, &mut self.rng);
            }
        }
        let ask = |(peer, request)| self.ask(&key, peer, request);
        let mut tasks: Vec<_> = started.asks.into_iter().map(ask).collect();
        tasks.push(self.watch(&key, to.clone()));
        self.sinks
            .insert(key.clone(), Sink { to, began: now, is_truncated: false, waterfall, wants_trace, _tasks: tasks });
        if has_sessions {
            self.look_here(key, wanted);
        }
        Ok(steps)
    }

    fn ask(&self, key: &Key, peer: PeerId, request: SearchPeerRequest) -> AbortOnDropHandle<()> {
        let (context, me, key) = (self.context.clone(), self.seat.me().clone(), key.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let query_id = request.query_id.clone();
            if let Err(error) = listen(&context, &me, key, peer, &request).await {
                debug!(indexer = %peer, %error, "a search was not answered to its end");
                let outcome = error.outcome();
                drop(me.tell(Class::Own, Msg::Lost { from: peer, query_id, outcome }));
            }
        }))
    }

    /// Tells when the user is gone, so that nobody goes on answering.
    fn watch(&self, key: &Key, to: mpsc::Sender<SearchView>) -> AbortOnDropHandle<()> {
        let (key, me) = (key.clone(), self.seat.me().clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            to.closed().await;
            drop(me.tell(Class::Own, Msg::Closed { key }));
        }))
    }

    fn look_here(&self, key: Key, wanted: Wanted) {
        let reply = self.seat.reply(move |(records, _): (Vec<std::sync::Arc<Verified<PeerRecord>>>, bool)| Msg::Held {
            key,
            records: records.iter().map(|record| (**record).clone()).collect(),
        });
        let ask = registry::Msg::Held { wanted, at_most: protocol::search::HITS_MAX, reply };
        inform(&self.context.addresses.registry, Class::Search, ask);
    }

    fn heard(&mut self, from: PeerId, query_id: &str, records: Vec<Verified<PeerRecord>>, last: Option<Tally>) {
        let now = self.seat.now().mono;
        let records = self.unrevoked(records);
        let served = records.len();
        match self.searches.answered(&from, query_id, records, last, now) {
            Some(update) => {
                self.trace(&update.key, |waterfall, rng| waterfall.heard(&from, served, last.map(Some), now, rng));
                self.show(update);
            }
            None => drop(self.context.stats.results_dropped.inc()),
        }
    }

    fn lost(&mut self, from: PeerId, query_id: &str, outcome: Outcome) {
        let now = self.seat.now().mono;
        if let Some(update) = self.searches.lost(&from, query_id, now) {
            self.trace(&update.key, |waterfall, _| waterfall.failed(&from, outcome, now));
            self.show(update);
        }
    }

    /// Whoever found them may not have heard yet whose keys were revoked.
    fn unrevoked(&self, mut records: Vec<Verified<PeerRecord>>) -> Vec<Verified<PeerRecord>> {
        records.retain(|record| !self.context.is_revoked(&record.peer_id));
        records
    }

    fn held(&mut self, key: &Key, records: Vec<Verified<PeerRecord>>) {
        let records = self.unrevoked(records);
        let (own, now, served) = (self.context.own.peer_id, self.seat.now().mono, records.len());
        if let Some(update) = self.searches.found(key, records, true, now) {
            self.trace(key, |waterfall, rng| waterfall.heard(&own, served, Some(None), now, rng));
            self.show(update);
        }
    }

    fn closed(&mut self, key: &Key) {
        if let Some(ended) = self.searches.close(key) {
            self.end(&ended);
        }
    }

    fn expire(&mut self) {
        for ended in self.searches.expire(self.seat.now().mono, EXPIRE_MAX) {
            self.end(&ended);
        }
    }

    fn trace(&mut self, key: &Key, note: impl FnOnce(&mut Waterfall, &mut StdRng)) {
        if let Some(waterfall) = self.sinks.get_mut(key).and_then(|sink| sink.waterfall.as_mut()) {
            note(waterfall, &mut self.rng);
        }
    }

    fn show(&mut self, update: Update) {
        self.context.stats.results_dropped.inc_by(update.mismatched as u64);
        let now = self.seat.now().mono;
        if let Some(sink) = self.sinks.get_mut(&update.key) {
            let after_ms = millis(now.since(sink.began));
            for record in &update.fresh {
                let step = SearchView::Hit { hit: record_view(record), after_ms };
                sink.is_truncated |= sink.to.try_send(step).is_err();
            }
        }
        if let Some(ended) = update.ended {
            self.end(&ended);
        }
    }

    fn end(&mut self, ended: &Ended) {
        let Some(sink) = self.sinks.remove(&ended.key) else { return };
        let Tally { asked, answered, timed_out, truncated } = ended.tally;
        let hits = u32::try_from(ended.hits).unwrap_or(u32::MAX);
        let now = self.seat.now();
        if let Some(waterfall) = &sink.waterfall {
            if sink.wants_trace {
                drop(sink.to.try_send(SearchView::Trace { trace: WaterfallView::of(waterfall, now) }));
            }
            let spans = waterfall.spans(hits, Some(ended.tally), now);
            spans.into_iter().for_each(|span| traces::tell(&self.context, span));
        }
        let step = SearchView::End {
            ended: end_view(ended.end),
            hits,
            asked,
            answered,
            timed_out,
            truncated: truncated || sink.is_truncated,
            took_ms: millis(now.mono.since(sink.began)),
        };
        // A user who is gone needs no last word.
        drop(sink.to.try_send(step));
    }

    fn arm(&mut self) {
        let now = self.seat.now().mono;
        self.timer = self.searches.next_deadline().map(|due| self.seat.after(due.since(now), Msg::Tick));
    }
}

/// Reads one indexer's answers to its last word, verifying each record here and not in the actor.
async fn listen(
    context: &Context,
    me: &Address<Msg>,
    key: Key,
    from: PeerId,
    request: &SearchPeerRequest,
) -> Result<(), FetchError> {
    let mut io = fetch::open(context, from, Vec::new(), Protocol::Search, OPEN_WITHIN).await?;
    if !request.traceparent.is_empty() {
        drop(me.tell(Class::Own, Msg::Connected { key, to: from, at: context.now().mono }));
    }
    io.write(request, OPEN_WITHIN).await?;
    let max = Protocol::Search.value_bytes_max();
    loop {
        let patience = Patience::within(protocol::search::TOTAL);
        let read = io.read(patience, |value| json::parse::<Answer<SearchPeerResult>>(value.bytes, max)).await?;
        let result = match read.ok_or(FetchError::Ended)?? {
            Answer::Given(result) => result,
            Answer::Refused(refused) => return Err(FetchError::Refused(refused)),
        };
        let last = Tally::of(&result);
        let now = context.now().wall;
        // One bad record never spoils the others.
        let texts = result.records.iter().filter_map(|hit| hit.record.as_ref());
        let records: Vec<_> = texts.filter_map(|text| Verified::open(text.get(), now).ok()).collect();
        context.stats.results_dropped.inc_by((result.records.len() - records.len()) as u64);
        let query_id = request.query_id.clone();
        drop(me.tell(Class::Own, Msg::Heard { from, query_id, records, last }));
        if last.is_some() {
            io.close().await;
            return Ok(());
        }
    }
}

/// What the edge asks for, in the words of the rules.
///
/// # Errors
/// When it is not exactly one good criterion.
pub(crate) fn parse(wanted: &view::Wanted) -> Result<Wanted, String> {
    let peer_id = match &wanted.peer_id {
        Some(text) => Some(text.parse().map_err(|_| format!("got \"{text}\", expected a peer id"))?),
        None => None,
    };
    let (did, name) = (wanted.did.clone(), wanted.name.clone());
    let traceparent = Traceparent::Absent;
    let request = SearchPeerRequest { query_id: String::new(), peer_id, did, name, traceparent };
    Wanted::of_request(&request).map_err(|error| error.to_string())
}

fn nobody() -> SearchView {
    SearchView::End {
        ended: view::Ended::Isolated,
        hits: 0,
        asked: 0,
        answered: 0,
        timed_out: 0,
        truncated: false,
        took_ms: 0.0,
    }
}

fn record_view(record: &Verified<PeerRecord>) -> RecordView {
    RecordView {
        peer_id: record.peer_id,
        did: record.did.clone(),
        name: record.name.clone(),
        expiry_date: record.expiry_date,
        seq: record.seq,
        source: "indexer".to_owned(),
        record: record.to_raw(),
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

pub(crate) const fn end_view(end: End) -> view::Ended {
    match end {
        End::Complete => view::Ended::Complete,
        End::Idle => view::Ended::Idle,
        End::TimedOut => view::Ended::TimedOut,
        End::Limit => view::Ended::Limit,
        End::Closed => view::Ended::Closed,
        End::Replaced => view::Ended::Replaced,
        End::Lost => view::Ended::Lost,
    }
}
