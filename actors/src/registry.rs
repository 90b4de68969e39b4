//! Registry: the sessions of an indexer, their records, and what is put into the DHT for them.
//!
//! Owns [`protocol::session::Registry`] and the counts of heartbeats. The tasks that serve streams ask it, and tell it what
//! bandwidth probes measured; suggestions tell it whom to suggest, auditor whom not to, claim our own record, gate whom to
//! refuse and whether we are drained, the root that we leave. It tells gate, health and suggestions how many there are, gate
//! of offences, the store which key came first for a UUID. A restart forgets every session: the next beat of each node makes
//! it anew, also while we leave, and its record comes along because it is no longer acknowledged; first keys are read back.
//! Bounds: `gate.max_nodes` sessions; `PUTS_AT_ONCE` puts a tick; those of the book of bans.

use std::{sync::Arc, time::Duration};

use ::store::{Binding, Refusal, Write};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use protocol::{
    PeerId, Timestamp,
    admission::{Admission, Conduct, Link, TooLow},
    bans::{Ban, Bans},
    behaviour::{Behaviour, Kind, Offence},
    dht::{self, Valid},
    identity::{Did, peer_id_of},
    offload::{Load, Loads, Offload},
    record::{DIGEST_MAX, IndexerRecord, PeerRecord},
    search::{Absent, Question, Wanted},
    session::{BeatError, Presence, Put, RecordError, Registry as Sessions, Stored, Values},
    signed::Verified,
    suggestions::{IndexerBook, Source},
    time::Mono,
    wire::{Heartbeat, HeartbeatResponse, PublishReceipt, RefusalCode, Refused, SearchPeerResult},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::rngs::StdRng;
use tokio::{sync::oneshot, task::JoinSet};
use tracing::{debug, warn};

use crate::{
    auditor,
    claim::{self, Signed},
    config::{Offered, Turn},
    context::{Context, inform},
    gate, health,
    store::{self, Kept},
    suggestions,
    supervision::{Class, Envelope, Reply, Seat, Timer},
    swarm,
    view::SessionView,
};

/// How often puts that are due are made and counts are told.
const TICK: Duration = Duration::from_millis(250);

/// Peers whose values are put in one tick: 64 a second, so that a crowd that arrives at once does not flood the DHT.
const PUTS_AT_ONCE: usize = 16;

/// Peers whose puts are under way; each has one query at a time, and waits a second before its values are read back.
const PUTS_MAX: usize = 128;

/// A server says yes to a put before it has verified it, so it is asked for the value a little later.
const READ_BACK_AFTER: Duration = Duration::from_secs(1);

/// Sessions looked at in one collection.
const COLLECT_MAX: usize = 4_096;

/// Records given for one exact name.
const NAMESAKES_MAX: usize = 64;

/// Sessions shown at once.
const SHOWN_MAX: usize = 2_000;

/// While the database is away it is asked this often for the first keys.
const RECALL_EVERY: Duration = Duration::from_secs(1);

/// The actor.
pub struct Registry;

/// What one life is given.
pub struct Args {
    /// Its seat.
    pub seat: Seat<Msg>,
    /// The daemon's.
    pub context: Context,
}

/// How many are here.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Census {
    /// Sessions.
    pub sessions: u32,
    /// Sessions ÷ capacity.
    pub fill_rate: f64,
}

/// A verified record that came with a beat.
#[derive(Clone, Debug)]
pub struct Carried {
    /// The record.
    pub record: Verified<PeerRecord>,
    /// What only its signer can sign for the DHT.
    pub values: Option<Values>,
}

/// What a look-up found here.
#[derive(Clone, Debug)]
pub struct Found {
    /// At most 64 records.
    pub records: Vec<Arc<Verified<PeerRecord>>>,
    /// The DHT was asked a moment ago and had none: asking it again would bring nothing.
    pub is_absent: bool,
}

/// What it holds.
pub struct State {
    seat: Seat<Msg>,
    context: Context,
    rng: StdRng,
    sessions: Sessions,
    behaviour: Behaviour,
    bans: Bans,
    admission: Admission,
    offload: Offload,
    loads: Loads,
    is_drained: bool,
    counted: usize,
    book: IndexerBook,
    absent: Absent,
    told: Census,
    puts: JoinSet<()>,
    /// When the store was last asked for the first keys; nothing once it told them.
    recalling: Option<Mono>,
    timer: Timer,
    offered: Offered,
}

/// What it is told and asked.
pub enum Msg {
    /// A heartbeat.
    Beat {
        /// From whom.
        from: PeerId,
        /// Without its record.
        heartbeat: Box<Heartbeat>,
        /// Its record, when it is news, or why it was refused.
        carried: Result<Option<Box<Carried>>, Refused>,
        /// It is an indexer.
        is_indexer: bool,
        /// The answer.
        reply: Reply<Result<HeartbeatResponse, Refused>>,
    },
    /// A record published on a stream of its own.
    Publish {
        /// From whom.
        from: PeerId,
        /// The record.
        record: Box<Verified<PeerRecord>>,
        /// Its receipt.
        reply: Reply<PublishReceipt>,
    },
    /// Does this peer have a session?
    HasSession {
        /// Which.
        peer: PeerId,
        /// It has.
        reply: Reply<bool>,
    },
    /// Records by DID, peer id or exact name.
    Find {
        /// What is looked for.
        wanted: Wanted,
        /// What is here.
        reply: Reply<Found>,
    },
    /// The DHT has no such record.
    Absent(Wanted),
    /// Records here that answer a search; a part of a name is looked for among those we represent.
    Held {
        /// What is searched for.
        wanted: Wanted,
        /// At most so many.
        at_most: usize,
        /// The records, and whether some were left out.
        reply: Reply<(Vec<Arc<Verified<PeerRecord>>>, bool)>,
    },
    /// Another indexer's question.
    Answer {
        /// What it asks.
        question: Question,
        /// The answer, in values within the limit.
        reply: Reply<Vec<SearchPeerResult>>,
    },
    /// Our own record.
    Own(Arc<Signed>),
    /// Other indexers are known.
    Known(Vec<Verified<IndexerRecord>>),
    /// An indexer went.
    IndexerGone(PeerId),
    /// An indexer that went is here again.
    IndexerBack(PeerId),
    /// By our audits these claim far more nodes than they have, and no other indexer does.
    IndexersExposed(Vec<PeerId>),
    /// A peer left.
    Left {
        /// Who.
        peer: PeerId,
    },
    /// A peer was looked for by us and is not there.
    Lost {
        /// Who.
        peer: PeerId,
    },
    /// A put ended.
    Put {
        /// Whose.
        peer: PeerId,
        /// Of which record.
        seq: u64,
        /// It was read back.
        is_done: bool,
    },
    /// These are banned from everything.
    Banned(Vec<Ban>),
    /// The key of this one was revoked.
    Revoked(PeerId),
    /// This one is banned no longer.
    Unbanned(PeerId),
    /// An operator lets our nodes go, or no longer.
    Drained(bool),
    /// A peer signed what does not verify, or came with another DID.
    Offended(PeerId),
    /// The link to a peer was measured.
    Measured {
        /// To whom.
        peer: PeerId,
        /// How it is.
        link: Link,
    },
    /// Another indexer told what it carries.
    Load {
        /// Which.
        peer: PeerId,
        /// What.
        load: Load,
    },
    /// The first keys that were kept; nothing when the database is away.
    Recalled(Option<Vec<Binding>>),
    /// What became of the binding of a DID to this peer.
    Bound {
        /// Whose it would be.
        peer: PeerId,
        /// The DID.
        did: String,
        /// What became of it.
        kept: Kept,
    },
    /// Gate, health or suggestions began a life and want to know how many are here.
    TellCounts,
    /// End a batch of the sessions that are over.
    Collect,
    /// The sessions are wanted.
    Look(Reply<Vec<SessionView>>),
    /// Everybody who has a session.
    Peers(Reply<Vec<PeerId>>),
    /// We leave: take nobody new from now on. Answered with everybody who has a session, and is served until we are gone.
    Leave(Reply<Vec<PeerId>>),
    /// Some that have a session, drawn by chance for one record.
    Sample(Reply<Vec<PeerId>>),
    /// Settings may change.
    Configure(Turn),
    /// See whether something is due.
    Tick,
}

impl Actor for Registry {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let own = &context.own;
        let sessions = Sessions::new(context.settings.gate.max_nodes, own.born_at);
        let behaviour = Behaviour::new(&context.live().behaviour, own.profile.requests_factor());
        let book = IndexerBook::new(own.peer_id, own.profile.is_diverse(), seat.now().mono);
        inform(&context.addresses.claim, Class::Control, claim::Msg::TellRegistry);
        inform(&context.addresses.suggestions, Class::Control, suggestions::Msg::TellRegistry);
        inform(&context.addresses.gate, Class::Control, gate::Msg::TellPolicy);
        inform(&context.addresses.auditor, Class::Control, auditor::Msg::TellExposed);
        let timer = seat.after(TICK, Msg::Tick);
        let mut state = State {
            rng: seat.rng(),
            sessions,
            behaviour,
            bans: Bans::new(),
            admission: Admission::new(context.settings.behaviour.peers_max),
            offload: Offload::new(context.settings.heartbeat.every),
            loads: Loads::default(),
            is_drained: false,
            counted: 0,
            book,
            absent: Absent::new(),
            told: Census::default(),
            puts: JoinSet::new(),
            recalling: None,
            timer,
            offered: Offered::default(),
            seat,
            context,
        };
        state.recall();
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Beat { from, heartbeat, carried, is_indexer, reply } => {
                reply.send(state.beat(from, &heartbeat, carried, is_indexer));
            }
            Msg::Publish { from, record, reply } => reply.send(state.publish(from, *record)),
            Msg::HasSession { peer, reply } => reply.send(state.sessions.has_session(&peer, state.seat.now().mono)),
            Msg::Find { wanted, reply } => reply.send(state.find(&wanted)),
            Msg::Absent(wanted) => state.absent.note(wanted, state.seat.now().mono),
            Msg::Held { wanted, at_most, reply } => {
                reply.send(wanted.held(&state.sessions, state.seat.now(), at_most));
            }
            Msg::Answer { question, reply } => reply.send(question.answers(&state.sessions, state.seat.now())),
            Msg::Own(signed) => state.own(&signed),
            Msg::Known(records) => state.known(records),
            Msg::IndexerGone(peer) => state.book.gone(&peer),
            Msg::IndexerBack(peer) => state.book.back(&peer, state.seat.now().wall),
            Msg::IndexersExposed(peers) => state.book.set_exposed(peers),
            Msg::Left { peer } => state.ended(&peer, "it left"),
            Msg::Lost { peer } => state.ended(&peer, "it is not there any more"),
            Msg::Put { peer, seq, is_done } => state.put_ended(&peer, seq, is_done),
            Msg::Banned(bans) => state.banned(bans),
            Msg::Revoked(peer) => state.revoked(&peer),
            Msg::Unbanned(peer) => state.unbanned(&peer),
            Msg::Drained(is_on) => state.drained(is_on),
            Msg::Offended(peer) => state.admission.offended(peer, state.seat.now().mono),
            Msg::Measured { peer, link } => state.measured(peer, link),
            Msg::Load { peer, load } => state.loads.hear(peer, load, state.seat.now().mono),
            Msg::Recalled(bindings) => state.recalled(bindings),
            Msg::Bound { peer, did, kept } => state.bound(peer, did, kept),
            Msg::TellCounts => state.tell_counts(),
            Msg::Collect => state.collect(),
            Msg::Look(reply) => reply.send(state.look()),
            Msg::Peers(reply) => reply.send(state.peers()),
            Msg::Leave(reply) => reply.send(state.leave()),
            Msg::Sample(reply) => reply.send(state.sample()),
            Msg::Configure(turn) => state.configure(turn),
            Msg::Tick => state.tick(),
        }
        Ok(())
    }
}

impl State {
    fn configure(&mut self, turn: Turn) {
        if let Some(settings) = self.offered.take(turn, |_| Ok(())) {
            self.behaviour.set_limits(&settings.behaviour, self.context.own.profile.requests_factor());
        }
    }

    fn beat(
        &mut self,
        from: PeerId,
        heartbeat: &Heartbeat,
        carried: Result<Option<Box<Carried>>, Refused>,
        is_indexer: bool,
    ) -> Result<HeartbeatResponse, Refused> {
        let now = self.seat.now();
        // One who is banned may still be connected: we may have dialled it ourselves.
        if let Some(left) = self.bans.left(&from, Some(Kind::Heartbeat), now.mono) {
            return Err(Bans::refusal(left));
        }
        // Nor may a beat that was on its way when its sender was revoked begin a session anew.
        self.context.check_revoked(&from)?;
        self.admit(from, now.mono)?;
        let carried = carried?;
        let beat = self.sessions.beat(from, heartbeat, is_indexer, &self.book, now, &mut self.rng);
        let is_fault = matches!(&beat, Err(BeatError::NotYours { .. } | BeatError::Name(_) | BeatError::Did(_)));
        self.admission.beat(from, if is_fault { Conduct::Bad } else { Conduct::Good }, now.mono);
        let beat = beat.map_err(|error| {
            self.blame(from, error.offence());
            error.refusal(heartbeat.seq)
        })?;
        let mut answer = beat.answer;
        if let Some(carried) = carried.filter(|_| beat.presence != Presence::Probed) {
            self.absent.appeared(&carried.record);
            match self.sessions.record_verified(&from, carried.record, carried.values.map(Arc::new), now) {
                Ok(stored) => {
                    answer.record_seq = Some(stored.seq);
                    self.bind_when_first(from, stored);
                }
                Err(error) => self.refused(from, &error)?,
            }
        }
        if beat.presence == Presence::Began {
            debug!(peer = %from, sessions = self.sessions.count(), "session began");
        }
        if beat.presence != Presence::Probed {
            self.offload.suggest(&from, heartbeat.need == 0, &self.book, &mut answer, now.mono);
        }
        Ok(answer)
    }

    /// Too many beats, or too poor a presence and conduct: either is answered, and both count as being in touch.
    fn admit(&mut self, from: PeerId, now: Mono) -> Result<(), Refused> {
        let counted = self.count_beat(from, now);
        let conduct = if counted.is_err() { Conduct::Bad } else { Conduct::Good };
        let judged = counted.and_then(|()| self.admission.judge(&from, now).map_err(TooLow::refusal));
        if judged.is_err() {
            self.admission.beat(from, conduct, now);
        }
        judged
    }

    /// Heartbeats are counted here and not at the gate: that would be one more actor on the way of every beat.
    fn count_beat(&mut self, from: PeerId, now: Mono) -> Result<(), Refused> {
        if self.counted >= COLLECT_MAX {
            self.counted = 0;
            self.behaviour.collect(now, COLLECT_MAX);
            self.admission.collect(now, COLLECT_MAX);
        }
        self.counted += 1;
        self.behaviour.observe(from, Kind::Heartbeat, now).refusal().map_or(Ok(()), Err)
    }

    /// Of those alone that have a session, so that nobody else has a place in the table.
    fn measured(&mut self, peer: PeerId, link: Link) {
        let now = self.seat.now().mono;
        if self.sessions.has_session(&peer, now) {
            self.admission.measured(peer, link, now);
        }
    }

    /// An old record is no offence: it is simply not taken, and the answer says which one is held.
    fn refused(&mut self, from: PeerId, error: &RecordError) -> Result<(), Refused> {
        self.context.stats.records_refused.inc();
        self.blame(from, error.offence());
        match error {
            RecordError::Did(_) | RecordError::NotYours { .. } => {
                Err(Refused::new(RefusalCode::NotYours, error.to_string()))
            }
            _ => Ok(()),
        }
    }

    fn blame(&self, peer: PeerId, offence: Option<Offence>) {
        if let Some(offence) = offence {
            inform(&self.context.addresses.gate, Class::Control, gate::Msg::Offended { peer, offence });
        }
    }

    fn publish(&mut self, from: PeerId, record: Verified<PeerRecord>) -> PublishReceipt {
        let seq = record.seq;
        if let Err(refused) = self.context.check_revoked(&from) {
            return PublishReceipt { seq, accepted: false, reason: Some(refused.detail), record_seq: 0 };
        }
        self.absent.appeared(&record);
        let stored: Result<Stored, RecordError> = self.sessions.record_verified(&from, record, None, self.seat.now());
        match &stored {
            Ok(stored) => self.bind_when_first(from, *stored),
            Err(error) => self.blame(from, error.offence()),
        }
        self.sessions.receipt(&from, seq, stored.as_ref().copied())
    }

    fn find(&self, wanted: &Wanted) -> Found {
        let now = self.seat.now();
        let (records, _) = wanted.held(&self.sessions, now, NAMESAKES_MAX);
        Found { records, is_absent: self.absent.is_absent(wanted, now.mono) }
    }

    fn own(&mut self, signed: &Signed) {
        let values = Some(Arc::new(signed.values.clone()));
        self.sessions.set_own(signed.record.clone(), values, self.seat.now().mono);
    }

    fn known(&mut self, records: Vec<Verified<IndexerRecord>>) {
        let now = self.seat.now();
        for record in records {
            self.book.learn(record, Source::Dht, now.wall);
        }
        self.book.refreshed(now, &mut self.rng);
    }

    fn ended(&mut self, peer: &PeerId, why: &'static str) {
        self.offload.gone(peer);
        if let Some(departed) = self.sessions.leave(peer) {
            debug!(%peer, name = departed.name, why, "session ended");
            self.context.note("session_ended", peer, why);
            self.tell_counts_when_new();
        }
    }

    fn collect(&mut self) {
        let collected = self.sessions.collect(self.seat.now().mono, COLLECT_MAX);
        for departed in collected.departed {
            self.offload.gone(&departed.peer);
            debug!(peer = %departed.peer, name = departed.name, "session ended: silent for too long");
            self.context.note("session_ended", departed.peer, "silent for 2 minutes");
        }
        self.tell_counts_when_new();
    }

    // Who is banned, and whose a DID is.

    /// A session ends with the ban: its node is found no more.
    fn banned(&mut self, bans: Vec<Ban>) {
        for ban in bans {
            self.ended(&ban.peer, "it was banned");
            // No more than the gate's own book holds.
            let _ = self.bans.add(ban, self.seat.now());
        }
    }

    /// Its session ends, and as an indexer it is suggested to nobody.
    fn revoked(&mut self, peer: &PeerId) {
        self.ended(peer, "its key was revoked");
        self.book.gone(peer);
    }

    /// Forgiven whole: what is known of its conduct goes with the ban.
    fn unbanned(&mut self, peer: &PeerId) {
        self.bans.lift(peer, self.seat.now().mono);
        self.admission.forgive(peer);
    }

    // Who is to move.

    fn drained(&mut self, is_on: bool) {
        if std::mem::replace(&mut self.is_drained, is_on) != is_on {
            self.sessions.set_drained(is_on);
            self.offload_step();
        }
    }

    /// Whom to ask to move now, by what we and the others carry.
    fn offload_step(&mut self) {
        let own = Load { sessions: self.sessions.count(), capacity: self.context.settings.gate.max_nodes };
        let (now, before) = (self.seat.now(), self.offload.asked_now());
        let others = self.loads.others(&self.book, now);
        self.offload.step(own, &others, self.sessions.stays(), self.is_drained, now.mono, &mut self.rng);
        let asked = self.offload.asked_now();
        if asked != before {
            debug!(asked, sessions = own.sessions, others = others.len(), "nodes are asked to move");
        }
    }

    fn recall(&mut self) {
        self.recalling = Some(self.seat.now().mono);
        let ask = store::Msg::Bindings { reply: self.seat.reply(Msg::Recalled) };
        inform(&self.context.addresses.store, Class::Control, ask);
    }

    /// Who brought another key meanwhile is found out when its binding is written down.
    fn recalled(&mut self, bindings: Option<Vec<Binding>>) {
        let Some(bindings) = bindings.filter(|_| self.recalling.is_some()) else { return };
        self.recalling = None;
        let now = self.seat.now().mono;
        for Binding { did, pub_key, .. } in bindings {
            match owner(&pub_key) {
                Some(peer) => self.sessions.recall(peer, &did, 0, now),
                None => warn!(did, "the key of a binding cannot be read"),
            }
        }
    }

    /// A `did:key` names its key; a UUID is the first one's that brought it, for longer than we live.
    fn bind_when_first(&self, peer: PeerId, stored: Stored) {
        let record = stored.is_first.then(|| self.sessions.by_peer(&peer, self.seat.now())).flatten();
        let Some(record) = record.filter(|record| matches!(record.did.parse(), Ok(Did::Uuid(_)))) else { return };
        let (did, pub_key) = (record.did.clone(), record.pub_key.clone());
        let bound = did.clone();
        let reply = self.seat.reply(move |kept| Msg::Bound { peer, did: bound, kept });
        let write = Box::new(Write::Bind { did, pub_key, at: self.seat.now().wall });
        inform(&self.context.addresses.store, Class::Control, store::Msg::Promise { write, reply });
    }

    fn bound(&mut self, peer: PeerId, did: String, kept: Kept) {
        match kept {
            Kept::Written => {}
            Kept::Refused(Refusal::OtherKey { held }) => {
                warn!(%peer, did, "its DID was another's before");
                if let Some(owner) = owner(&held) {
                    self.sessions.disown(&peer, &did, owner, self.seat.now().mono);
                    self.context.note("session_ended", peer, "its DID was another's before");
                    self.tell_counts_when_new();
                }
                self.blame(peer, Some(Offence::ChangedDid));
            }
            Kept::Refused(why) => warn!(%peer, did, %why, "its DID is bound to its key until a restart only"),
            Kept::Away => warn!(%peer, did, "its DID is bound to its key until a restart only: no database"),
        }
    }

    fn tick(&mut self) {
        self.behaviour.awake(self.seat.now().mono);
        if self.recalling.is_some_and(|asked| self.seat.now().mono.since(asked) >= RECALL_EVERY) {
            self.recall();
        }
        if self.offload.is_due(self.seat.now().mono) {
            self.offload_step();
        }
        self.put_when_due();
        self.tell_counts_when_new();
        // Re-armed last, so that two never queue.
        self.timer = self.seat.after(TICK, Msg::Tick);
    }

    fn tell_counts_when_new(&mut self) {
        if self.told.sessions != self.sessions.count() {
            self.tell_counts();
        }
    }

    fn tell_counts(&mut self) {
        let sessions = self.sessions.count();
        self.told = Census { sessions, fill_rate: self.sessions.fill_rate() };
        self.context.stats.sessions.set(i64::from(sessions));
        let to = &self.context.addresses;
        inform(&to.gate, Class::Control, gate::Msg::Sessions(sessions as usize));
        inform(&to.health, Class::Control, health::Msg::Sessions(sessions));
        inform(&to.suggestions, Class::Control, suggestions::Msg::Counted(self.told));
    }

    // The DHT.

    fn put_when_due(&mut self) {
        let now = self.seat.now();
        while self.puts.try_join_next().is_some() {}
        let is_due = self.sessions.next_put().is_some_and(|due| due <= now.mono);
        if !is_due || self.puts.len() + PUTS_AT_ONCE > PUTS_MAX {
            return;
        }
        for put in self.sessions.puts_due(now, PUTS_AT_ONCE) {
            let (context, me) = (self.context.clone(), self.seat.me().clone());
            self.puts.spawn(async move {
                let (peer, seq) = (put.record.peer_id, put.record.seq);
                let is_done = put_values(&context, put).await;
                drop(me.tell(Class::Own, Msg::Put { peer, seq, is_done }));
            });
        }
    }

    fn put_ended(&mut self, peer: &PeerId, seq: u64, is_done: bool) {
        if !is_done {
            self.sessions.put_failed(peer, seq, self.seat.now().mono);
        }
    }

    fn peers(&self) -> Vec<PeerId> {
        let (views, _) = self.sessions.views(0, usize::MAX);
        views.into_iter().map(|session| session.peer).collect()
    }

    fn leave(&mut self) -> Vec<PeerId> {
        self.sessions.set_leaving();
        self.peers()
    }

    fn sample(&mut self) -> Vec<PeerId> {
        self.sessions.sample(DIGEST_MAX, self.seat.now().mono, &mut self.rng)
    }

    fn look(&self) -> Vec<SessionView> {
        let now = self.seat.now();
        let at = |then: Mono| -> Timestamp {
            let age = jiff::SignedDuration::try_from(now.mono.since(then)).unwrap_or_default();
            now.wall.checked_sub(age).unwrap_or(now.wall)
        };
        let (views, _) = self.sessions.views(0, SHOWN_MAX);
        views
            .into_iter()
            .map(|session| (self.admission.link(&session.peer, now.mono), session))
            .map(|(link, session)| SessionView {
                bytes_per_sec: link.map(|link| link.bytes_per_sec),
                rtt_ms: link.and_then(|link| link.rtt).map(|rtt| rtt.as_secs_f64() * 1e3),
                peer_id: session.peer,
                name: session.name,
                did: session.did,
                indexer: session.is_indexer,
                referent: session.is_referent,
                since: at(session.since),
                last_seen: at(session.last_seen),
                record_seq: session.record_seq.unwrap_or(0),
                beats: session.beats,
            })
            .collect()
    }
}

/// Whose key this is, base64 of its 32 bytes.
fn owner(pub_key: &str) -> Option<PeerId> {
    let key: [u8; 32] = BASE64.decode(pub_key).ok()?.try_into().ok()?;
    Some(peer_id_of(&key))
}

/// Puts a peer's record and what it signed beside it; true when all were read back.
async fn put_values(context: &Context, put: Put) -> bool {
    let record: &Verified<PeerRecord> = &put.record;
    let Ok(did) = record.did.parse() else { return true };
    let mut values = vec![(dht::Key::Node(did), Valid::Node(record.clone()))];
    if let Some(beside) = &put.values {
        values.push((dht::Key::Pid(record.peer_id), Valid::Pid(beside.pid.clone())));
        let name = dht::Key::of_name(&record.name);
        values.extend(name.map(|name| (name, Valid::Name(vec![beside.name.clone()]))));
    }
    let mut is_done = true;
    for (key, value) in &values {
        let put = |reply| swarm::Command::Put { key: key.clone(), value: value.clone().into(), reply: Some(reply) };
        is_done &= ordered(context, put).await;
    }
    if !is_done {
        return false;
    }
    tokio::time::sleep(READ_BACK_AFTER).await;
    for (key, value) in values {
        is_done &= ordered(context, |reply| swarm::Command::ReadBack { key, value: value.into(), reply }).await;
    }
    is_done
}

async fn ordered(context: &Context, command: impl FnOnce(oneshot::Sender<bool>) -> swarm::Command) -> bool {
    let (reply, done) = oneshot::channel();
    let is_told = context.addresses.swarm.tell(Class::History, swarm::Msg::Do(command(reply))).is_ok();
    is_told && done.await.unwrap_or(false)
}
