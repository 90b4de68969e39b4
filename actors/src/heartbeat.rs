//! One heartbeat: the conversation with one indexer of the pool.
//!
//! Owns one stream, its questions and answers, and with each batch of challenges a round of witnesses. The pool tells it
//! what to say; it tells the pool how the indexer did and score what was observed. A failed beat ends it with an error:
//! the pool restarts it with a new stream, and forgets it when its budget is spent. A restart forgets the stream, what was
//! acknowledged and when to look next; when it may beat again is the pool's. Bound: one question, one round of witnesses,
//! one look-up, one spot check and one bandwidth probe under way.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use libp2p::Multiaddr;
use protocol::{
    PeerId, Timestamp,
    diversity::{Named, Spread},
    heartbeat::{
        Ask, Asker, Challenges, Conversation, DhtChallenge, Given, Heard, OwnRecordKey, Rhythm, Verdict,
        judge_challenge,
    },
    json,
    presence::token::{PresenceToken, Presenter},
    revocations::says_revoked,
    sampling::Every,
    score::Observation,
    signed::Verified,
    time::Mono,
    trace::{Begun, Outcome, Work},
    wire::{Answer, Heartbeat as Question, HeartbeatResponse, Protocol, Refused},
    witness::{STEADY, Said},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::rngs::StdRng;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use crate::{
    bandwidth,
    claim::{self, Signed},
    context::{Context, inform},
    fetch, lookup, pool, score,
    spot::{self, Spot},
    supervision::{Address, Class, Envelope, Seat, Timer},
    swarm::{
        OpenError,
        streams::{Io, IoError, Patience, Value},
    },
    traces, witness,
};

/// From the wish for a stream to the stream: dialling, handshake and hello included.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// Answers that a stream may bring between two ticks without one; a tick is 20 s.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// Bandwidth probes that measure nothing get further apart, up to so many times their interval: an hour.
const UNMEASURED_MAX: u32 = 12;

/// The actor.
pub struct Heartbeat;

/// What one life is given.
pub struct Args {
    /// Its seat.
    pub seat: Seat<Msg>,
    /// The daemon's.
    pub context: Context,
    /// The indexer.
    pub peer: PeerId,
    /// Where to dial it.
    pub addrs: Vec<Multiaddr>,
}

/// What the pool wants said.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    /// When it may beat.
    pub rhythm: Rhythm,
    /// How many more indexers the pool wants.
    pub need: u32,
    /// This indexer represents us.
    pub referent: bool,
    /// Our record.
    pub signed: Option<Arc<Signed>>,
}

/// What it holds.
pub struct State {
    seat: Seat<Msg>,
    context: Context,
    peer: PeerId,
    addrs: Vec<Multiaddr>,
    rng: StdRng,
    orders: Orders,
    conversation: Conversation,
    challenges: Challenges,
    dht: DhtChallenge,
    /// The indexer's `born_at`, and since when it says so.
    born: Option<(protocol::Timestamp, Mono)>,
    /// Witnesses that are being asked, one round at a time.
    witnesses: Option<AbortOnDropHandle<()>>,
    /// Our own look-up in the DHT.
    looking: Option<AbortOnDropHandle<()>>,
    /// Whom the indexer named since they were last counted.
    named: Named,
    subnets_due: Every,
    spot_due: Every,
    spotting: Option<AbortOnDropHandle<()>>,
    bandwidth_due: Every,
    probing: Option<AbortOnDropHandle<()>>,
    presenter: Presenter,
    /// How far the indexer's clock is ahead of ours, as far as it is known.
    clock_ahead: SignedDuration,
    /// The record for which an extra beat was made.
    nudged_for: Option<u64>,
    line: Line,
    /// The beat under way, if it is traced.
    traced: Option<Begun>,
    timer: Option<Timer>,
    deadline: Option<Timer>,
}

/// The stream, as far as it has come.
enum Line {
    Closed,
    Opening { _task: AbortOnDropHandle<()> },
    Open { questions: mpsc::Sender<Question>, _task: AbortOnDropHandle<()> },
}

/// What it is told.
pub enum Msg {
    /// What to say, from the pool, once at its start.
    Begin(Orders),
    /// Beat at once.
    Nudge,
    /// It is the referent, or no longer.
    Referent(bool),
    /// The pool wants so many more.
    Need(u32),
    /// Our record is new.
    Carry(Arc<Signed>),
    /// A beat is due.
    Due,
    /// The stream was opened, or not.
    Opened(Result<Box<Io>, OpenError>),
    /// The last byte of a question was written.
    Written {
        /// The question.
        question: Box<Question>,
        /// When.
        at: Mono,
    },
    /// An answer was read.
    Heard {
        /// The answer.
        answer: Box<Answer<HeartbeatResponse>>,
        /// When its first byte came.
        first_byte: Mono,
    },
    /// How far the indexer's clock is ahead of ours; nothing when it is not known.
    Clock(Option<SignedDuration>),
    /// We looked our own record up in the DHT.
    Looked {
        /// It is there.
        is_there: bool,
    },
    /// A bandwidth probe measured nothing.
    Unmeasured,
    /// A bandwidth probe came back.
    Measured {
        /// Of the way back.
        bytes_per_sec: f64,
    },
    /// The stream is of no more use.
    Broken(LineError),
    /// The answer to this question is late.
    Late {
        /// The question's.
        seq: u64,
    },
}

/// Why the stream is of no more use.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LineError {
    /// It broke.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The indexer closed it.
    #[error("the indexer closed the stream")]
    Closed,
    /// The indexer talks nonsense.
    #[error("malformed answer: {0}")]
    Malformed(String),
}

/// Why a beat failed.
#[derive(Debug, thiserror::Error)]
enum BeatError {
    #[error("no stream: {0}")]
    Open(OpenError),
    #[error(transparent)]
    Line(LineError),
    #[error("no answer within {0:?}")]
    Missed(Duration),
    #[error("refused ({:?}): {}", .0.refused, .0.detail)]
    Refused(Refused),
    #[error("an answer not to be believed: {0}")]
    Unbelievable(protocol::heartbeat::AnswerError),
}

impl Actor for Heartbeat {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let Args { seat, context, peer, addrs } = args;
        let mut rng = seat.rng();
        let begin = pool::Msg::Begin { peer, reply: seat.reply(Msg::Begin) };
        inform(&context.addresses.pool, Class::Control, begin);
        let challenges = Challenges::new(&context.settings.heartbeat, &mut rng);
        let subnets_due = Every::new(context.settings.heartbeat.subnets_every, &mut rng);
        let spot_due = Every::new(context.settings.heartbeat.spot_every, &mut rng);
        let bandwidth_due = Every::new(context.settings.heartbeat.bandwidth_every, &mut rng);
        let presenter = Presenter::new(&mut rng);
        Ok(State {
            seat,
            context,
            peer,
            addrs,
            rng,
            orders: Orders::default(),
            conversation: Conversation::default(),
            challenges,
            dht: DhtChallenge::default(),
            born: None,
            witnesses: None,
            looking: None,
            named: Named::default(),
            subnets_due,
            spot_due,
            spotting: None,
            bandwidth_due,
            probing: None,
            presenter,
            clock_ahead: SignedDuration::ZERO,
            nudged_for: None,
            line: Line::Closed,
            traced: None,
            timer: None,
            deadline: None,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Begin(orders) => state.begin(orders),
            Msg::Nudge => state.nudge(),
            Msg::Referent(referent) => state.orders.referent = referent,
            Msg::Need(need) => state.orders.need = need,
            Msg::Carry(signed) => state.orders.signed = Some(signed),
            Msg::Due => state.due(),
            Msg::Opened(opened) => state.opened(opened)?,
            Msg::Written { question, at } => state.written(&question, at),
            Msg::Heard { answer, first_byte } => state.heard(*answer, first_byte)?,
            Msg::Clock(ahead) => state.clock_ahead = ahead.unwrap_or(state.clock_ahead),
            Msg::Looked { is_there } => state.dht.looked(is_there),
            Msg::Measured { bytes_per_sec } => state.measured(bytes_per_sec),
            Msg::Unmeasured => {
                let every = state.context.settings.heartbeat.bandwidth_every;
                state.bandwidth_due.fail(every, every.saturating_mul(UNMEASURED_MAX));
            }
            Msg::Broken(error) => state.broken(error)?,
            Msg::Late { seq } => state.late(seq)?,
        }
        Ok(())
    }
}

impl State {
    fn begin(&mut self, orders: Orders) {
        self.orders = orders;
        self.orders.rhythm.restarted();
        self.arm();
    }

    fn nudge(&mut self) {
        self.orders.rhythm.nudge();
        self.arm();
    }

    fn arm(&mut self) {
        // While a question is under way its answer arms the next beat.
        if self.deadline.is_some() || matches!(self.line, Line::Opening { .. }) {
            return;
        }
        let wait = self.orders.rhythm.due(&self.context.settings.heartbeat).since(self.seat.now().mono);
        self.timer = Some(self.seat.after(wait, Msg::Due));
    }

    fn due(&mut self) {
        self.timer = None;
        match &self.line {
            Line::Closed => self.open(),
            Line::Opening { .. } => {}
            Line::Open { .. } => self.beat(),
        }
    }

    fn open(&mut self) {
        let (context, me) = (self.context.clone(), self.seat.me().clone());
        let (peer, addrs) = (self.peer, self.addrs.clone());
        let task = tokio::spawn(async move {
            let opened = fetch::open(&context, peer, addrs, Protocol::Heartbeat, OPEN_WITHIN).await;
            drop(me.tell(Class::Own, Msg::Opened(opened.map(Box::new))));
        });
        self.line = Line::Opening { _task: AbortOnDropHandle::new(task) };
    }

    fn opened(&mut self, opened: Result<Box<Io>, OpenError>) -> Result<(), BeatError> {
        match opened {
            Ok(io) => {
                let (questions, asked) = mpsc::channel(1);
                let task = tokio::spawn(converse(self.context.clone(), self.seat.me().clone(), *io, asked));
                self.line = Line::Open { questions, _task: AbortOnDropHandle::new(task) };
                self.beat();
                Ok(())
            }
            Err(error) => self.not_opened(error),
        }
    }

    fn not_opened(&mut self, error: OpenError) -> Result<(), BeatError> {
        // To wait would be of no use, and the operator has to know.
        if matches!(&error, OpenError::Refused { code, detail, .. } if says_revoked(*code, detail)) {
            self.turned_away(&error);
        }
        if let OpenError::Refused { retry_after: Some(secs), alternatives, .. } = &error {
            self.wait_politely(*secs, alternatives.clone());
            return Ok(());
        }
        match &error {
            OpenError::Late => self.tell_missed(),
            _ => self.tell_reset(matches!(error, OpenError::Unreachable(_))),
        }
        if matches!(
            error,
            OpenError::KeyMismatch { .. }
                | OpenError::Refused { .. }
                | OpenError::WrongPeer { .. }
                | OpenError::NotListed { .. }
        ) {
            self.turned_away(&error);
        }
        Err(BeatError::Open(error))
    }

    fn turned_away(&self, error: &OpenError) {
        warn!(indexer = %self.peer, %error, "cannot join");
        let turned_away = pool::Msg::TurnedAway { peer: self.peer, cause: error.to_string() };
        inform(&self.context.addresses.pool, Class::Control, turned_away);
    }

    fn beat(&mut self) {
        let now = self.seat.now();
        let settings = &self.context.settings.heartbeat;
        let own = &self.context.own;
        let is_challenge = self.challenges.draw(settings, now.mono, &mut self.rng);
        let asker = Asker { name: own.name.clone(), did: own.did.clone(), peer_id: own.peer_id };
        if is_challenge {
            // Its answer tells times of its own clock; ours is told long before it comes.
            let ask = claim::Msg::ClockOf { peer: self.peer, reply: self.seat.reply(Msg::Clock) };
            inform(&self.context.addresses.claim, Class::Control, ask);
        }
        let seq = self.conversation.ask();
        let Orders { need, referent, signed, .. } = &self.orders;
        let challenge_did = self.dht.draw().then(|| own.did.clone());
        let ask = Ask { seq, need: *need, referent: *referent, is_challenge, challenge_did, probe: false };
        let record = signed.as_ref().map(|signed| &signed.own);
        let mut question = asker.question(ask, record, self.conversation.acked(), now.wall);
        question.presence = self.token(seq, now.wall);
        let traced = self.context.traces.begin(false, &mut self.rng);
        question.traceparent = traced.into();
        self.traced = traced.map(|context| Begun::first(context, Work::Heartbeat, Some(self.peer), now));
        let settings = &self.context.settings.heartbeat;
        self.orders.rhythm.sent(now.mono, settings, &mut self.rng);
        inform(&self.context.addresses.pool, Class::Heartbeat, pool::Msg::Sent { peer: self.peer });
        let Line::Open { questions, .. } = &self.line else { return };
        // The channel holds one and none is under way; when the task has ended its end is already on its way to us.
        drop(questions.try_send(question));
        self.deadline = Some(self.seat.after(settings.answer_within, Msg::Late { seq }));
    }

    /// The word that this indexer serves us, once per epoch; signed when our record is, with the same time.
    fn token(&mut self, seq: u64, now: Timestamp) -> Option<Box<RawValue>> {
        let signed = self.orders.signed.as_ref()?;
        let epoch = self.presenter.due(now.checked_add(signed.clock_offset).ok()?)?;
        self.presenter.asked(seq, epoch);
        let keys = &self.context.keys;
        let (node, pub_key) = (self.context.own.peer_id, keys.pub_key().to_owned());
        Some(Verified::sign(&PresenceToken { indexer: self.peer, node, epoch, pub_key }, keys).to_raw())
    }

    fn written(&mut self, question: &Question, at: Mono) {
        let record = self.orders.signed.as_ref().map(|signed| &signed.own);
        self.conversation.written(question, record, at);
    }

    fn heard(&mut self, answer: Answer<HeartbeatResponse>, first_byte: Mono) -> Result<(), BeatError> {
        match self.conversation.hear(answer, first_byte) {
            Ok(Heard::Given(given)) => self.answered(*given),
            Ok(Heard::Refused(refused)) => return self.refused(refused),
            Ok(Heard::Late) => drop(self.context.stats.beats_late.inc()),
            Err(error) => {
                self.tell_missed();
                return Err(BeatError::Unbelievable(error));
            }
        }
        Ok(())
    }

    fn answered(&mut self, given: Given) {
        self.deadline = None;
        self.context.stats.beats_answered.inc();
        self.tell_traced(Outcome::Answered);
        self.presenter.answered(given.response.seq);
        let now = self.seat.now();
        let response = &given.response;
        self.observe(Observation::Answered {
            rtt: given.rtt,
            fill_rate: response.fill_rate,
            peer_count: response.peer_count,
            max_nodes: response.max_nodes,
            born_at: response.born_at,
        });
        self.challenges.answered(!given.challenged.is_empty(), now.mono);
        if !given.challenged.is_empty() {
            let verdict = judge_challenge(
                &self.context.own.peer_id,
                &response.challenges,
                self.clock_ahead,
                now.wall,
                &self.context.settings.heartbeat,
            );
            self.observe(verdict.into());
            if verdict == Verdict::Unfound {
                self.challenges.doubt();
            }
        }
        if let Some(good) = given.is_recorded {
            self.observe(Observation::Recorded { good });
        }
        self.judge_dht(response, now.wall);
        self.born = self.born.filter(|(born, _)| *born == response.born_at).or(Some((response.born_at, now.mono)));
        let is_batch = !given.challenged.is_empty() && !self.challenges.is_doubted();
        if is_batch {
            self.ask_witnesses(&given, now.mono);
        }
        if self.dht.answered(is_batch, self.clock_ahead) {
            self.look_in_dht();
        }
        self.count_subnets(&given.response);
        self.check_spot();
        self.probe_bandwidth();
        if given.is_served_time_false {
            debug!(indexer = %self.peer, served_us = response.served_us, "served longer than it took: not believed");
        }
        if let Some(seq) = response.record_seq {
            let held = claim::Msg::Held { by: self.peer, seq };
            inform(&self.context.addresses.claim, Class::Control, held);
        }
        self.nudge_for_record(given.response.record_seq);
        inform(
            &self.context.addresses.pool,
            Class::Heartbeat,
            pool::Msg::Answered { peer: self.peer, given: Box::new(given) },
        );
        self.arm();
    }

    fn judge_dht(&mut self, response: &HeartbeatResponse, now: protocol::Timestamp) {
        let own = &self.context.own;
        let newest_seq = self.orders.signed.as_ref().map_or(0, |signed| signed.own.seq);
        let key = OwnRecordKey { peer_id: &own.peer_id, did: &own.did, newest_seq };
        // By the time that it was signed with: by a wrong clock of ours it would be over before anybody could find it.
        let ahead = self.orders.signed.as_ref().map_or(SignedDuration::ZERO, |signed| signed.clock_offset);
        let now = now.checked_add(ahead).unwrap_or(now);
        if let Some(good) = self.dht.heard(response, &key, now) {
            self.observe(Observation::Dht { good });
        }
    }

    /// Only what we found ourselves is an indexer asked to find.
    fn look_in_dht(&mut self) {
        let (context, me) = (self.context.clone(), self.seat.me().clone());
        self.looking = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let is_there = lookup::record_of(&context, &context.own.did).await.is_some();
            drop(me.tell(Class::Own, Msg::Looked { is_there }));
        })));
    }

    /// Shown to operators: whoever is judged by his neighbours is judged by where he lives.
    fn count_subnets(&mut self, response: &HeartbeatResponse) {
        self.named.hear(&response.witnesses);
        self.named.hear(&response.suggestions);
        let is_due = self.subnets_due.beat(self.context.settings.heartbeat.subnets_every);
        if let Some(Spread { peers, subnets }) = is_due.then(|| self.named.reckon()).flatten() {
            self.observe(Observation::Spread { peers, subnets });
        }
    }

    /// Whether what its record says of its sessions is true: asked of others, beside its beats.
    fn check_spot(&mut self) {
        let is_checking = self.spotting.as_ref().is_some_and(|task| !task.is_finished());
        if !self.spot_due.beat(self.context.settings.heartbeat.spot_every) || is_checking {
            return;
        }
        let (context, peer) = (self.context.clone(), self.peer);
        self.spotting = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            if let Some(Spot { by, good }) = spot::check(&context, peer).await {
                let observed = score::Msg::Observed { peer, observation: Observation::Spot { by, good } };
                inform(&context.addresses.score, Class::Control, observed);
            }
        })));
    }

    /// The beat was just answered: until the next one the link is free.
    fn probe_bandwidth(&mut self) {
        let is_probing = self.probing.as_ref().is_some_and(|task| !task.is_finished());
        if !self.bandwidth_due.beat(self.context.settings.heartbeat.bandwidth_every) || is_probing {
            return;
        }
        let (context, me, peer) = (self.context.clone(), self.seat.me().clone(), self.peer);
        self.probing = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            match bandwidth::probe(&context, peer).await {
                Ok(bytes_per_sec) => drop(me.tell(Class::Own, Msg::Measured { bytes_per_sec })),
                // No evidence against anybody: it may be too busy, of another version, or the link too thin to be filled again
                // soon.
                Err(error) => {
                    debug!(indexer = %peer, %error, "bandwidth not measured");
                    drop(me.tell(Class::Own, Msg::Unmeasured));
                }
            }
        })));
    }

    fn measured(&mut self, bytes_per_sec: f64) {
        self.bandwidth_due.succeed();
        debug!(indexer = %self.peer, bytes_per_sec, "bandwidth measured");
        self.observe(Observation::Bandwidth { bytes_per_sec });
        let measured = pool::Msg::Measured { peer: self.peer, bytes_per_sec };
        inform(&self.context.addresses.pool, Class::History, measured);
    }

    /// Others hear of a restart a tick later than we do: until then their word would be held against the honest.
    fn ask_witnesses(&mut self, given: &Given, now: Mono) {
        let is_steady = self.born.is_some_and(|(_, since)| now.since(since) >= STEADY);
        let is_asking = self.witnesses.as_ref().is_some_and(|task| !task.is_finished());
        if !is_steady || is_asking {
            return;
        }
        let (context, peer) = (self.context.clone(), self.peer);
        let (said, offered) = (Said::from(&given.response), given.response.witnesses.clone());
        self.witnesses = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            witness::round(&context, peer, said, offered).await;
        })));
    }

    /// An indexer that holds no record of ours, or an old one, is given it at once and not with the next tick: it was
    /// restarted, or we signed anew meanwhile. Once per record, so that one that will not take it costs a beat.
    fn nudge_for_record(&mut self, held: Option<u64>) {
        let newest = self.orders.signed.as_ref().map(|signed| signed.own.seq);
        let lacks = newest.filter(|seq| held.is_none_or(|held| held < *seq) && self.nudged_for != Some(*seq));
        if lacks.is_some() {
            self.nudged_for = lacks;
            self.orders.rhythm.nudge();
        }
    }

    /// A beat has one end: what was told once is not told again.
    fn tell_traced(&mut self, outcome: Outcome) {
        if let Some(begun) = self.traced.take() {
            traces::tell(&self.context, begun.over(outcome, None, None, self.seat.now()));
        }
    }

    fn refused(&mut self, refused: Refused) -> Result<(), BeatError> {
        self.tell_traced(Outcome::Refused);
        if let Some(secs) = refused.retry_after {
            self.wait_politely(secs, refused.alternatives);
            return Ok(());
        }
        self.tell_reset(false);
        Err(BeatError::Refused(refused))
    }

    /// To wait as long as one was asked to is no failure, and spends no restart.
    fn wait_politely(&mut self, secs: u64, alternatives: Vec<protocol::wire::AddrInfo>) {
        debug!(indexer = %self.peer, secs, "asked to wait");
        let wait = Duration::from_secs(secs);
        self.orders.rhythm.retry_after(wait, self.seat.now().mono);
        self.dht.refused(wait);
        self.line = Line::Closed;
        self.deadline = None;
        self.tell_busy(secs, alternatives);
        self.arm();
    }

    fn broken(&mut self, error: LineError) -> Result<(), BeatError> {
        self.tell_traced(Outcome::Lost);
        self.tell_reset(false);
        Err(BeatError::Line(error))
    }

    fn late(&mut self, seq: u64) -> Result<(), BeatError> {
        self.tell_traced(Outcome::Lost);
        self.conversation.missed();
        self.context.stats.beats_missed.inc();
        warn!(indexer = %self.peer, seq, "heartbeat not answered");
        self.tell_missed();
        Err(BeatError::Missed(self.context.settings.heartbeat.answer_within))
    }

    fn observe(&self, observation: Observation) {
        inform(&self.context.addresses.score, Class::Heartbeat, score::Msg::Observed { peer: self.peer, observation });
    }

    fn tell_missed(&self) {
        self.observe(Observation::Missed);
        inform(&self.context.addresses.pool, Class::Heartbeat, pool::Msg::Missed { peer: self.peer });
    }

    fn tell_reset(&self, is_unreached: bool) {
        self.observe(Observation::Missed);
        inform(&self.context.addresses.pool, Class::Heartbeat, pool::Msg::Reset { peer: self.peer, is_unreached });
    }

    fn tell_busy(&self, secs: u64, alternatives: Vec<protocol::wire::AddrInfo>) {
        let retry_after = Duration::from_secs(secs);
        let busy = pool::Msg::Busy { peer: self.peer, retry_after, alternatives };
        inform(&self.context.addresses.pool, Class::Heartbeat, busy);
    }
}

/// Writes each question and reads its answers, until the stream or its actor ends.
async fn converse(context: Context, me: Address<Msg>, mut io: Io, mut asked: mpsc::Receiver<Question>) {
    let error = loop {
        tokio::select! {
            question = asked.recv() => {
                let Some(question) = question else { return };
                if let Err(error) = io.write(&question, context.settings.heartbeat.answer_within).await {
                    break error.into();
                }
                let at = context.tree.clock().mono();
                drop(me.tell(Class::Own, Msg::Written { question: Box::new(question), at }));
            }
            heard = hear(&context, &mut io) => match heard {
                Ok((answer, first_byte)) => {
                    drop(me.tell(Class::Own, Msg::Heard { answer: Box::new(answer), first_byte }));
                }
                Err(error) => break error,
            },
        }
    };
    drop(me.tell(Class::Own, Msg::Broken(error)));
}

async fn hear(context: &Context, io: &mut Io) -> Result<(Answer<HeartbeatResponse>, Mono), LineError> {
    let clock = context.tree.clock();
    let max = Protocol::Heartbeat.value_bytes_max();
    let take = |value: Value<'_>| {
        let first_byte = Mono::at(clock.mono().since_start().saturating_sub(value.first_byte_at.elapsed()));
        (json::parse(value.bytes, max), first_byte)
    };
    let (answer, first_byte) = io.read(Patience::idle(SILENCE_MAX), take).await?.ok_or(LineError::Closed)?;
    Ok((answer.map_err(|error: json::JsonError| LineError::Malformed(error.to_string()))?, first_byte))
}
