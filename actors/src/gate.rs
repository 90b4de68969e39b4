//! Gate: who may come in, and how often each may ask.
//!
//! Owns the buckets for new sessions, the counts of each peer's requests, its strikes, the book of bans, and the order to
//! drain. Asked by the tasks that serve streams and by operators; told by them and by the registry of bad signatures and
//! changed DIDs, by the root that we leave. Tells the swarm whom to cut off, the registry whom to refuse, and registry,
//! suggestions and health whether we are drained. What it decides holds at once, and is written down by the store before
//! anybody is told that it is done. A restart forgets counts and strikes, and that we leave, which the registry knows too;
//! bans, the past of repeaters and the order to drain it reads back, and greets nobody before it has. Bounds:
//! `behaviour.peers_max` peers, [`protocol::bans::BANS_MAX`] bans, `WRITES_MAX` changes that wait for the database, the
//! buckets' own.

use std::time::Duration;

use ::store::Write;
use libp2p::Multiaddr;
use protocol::{
    PeerId, Timestamp,
    addr::Subnet,
    bans::{Ban, Bans, OrderError},
    behaviour::{Behaviour, Kind, Offence, Scope, Verdict},
    gate::{Cause, DRAINED_WAIT, Gate as Buckets, LEAVING_WAIT, spread_secs},
    health::Memory,
    wire::{Protocol, RefusalCode, Refused, Role},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::rngs::StdRng;
use tracing::{info, warn};

use crate::{
    config::{Offered, Turn},
    context::{Context, inform},
    health,
    promises::{Answer, Promises},
    registry,
    store::{self, Kept, Policy},
    suggestions,
    supervision::{Class, Envelope, Reply, Seat, Timer},
    swarm,
};

/// Peers looked at per collection; each arrival makes at most one entry.
const COLLECT_MAX: usize = 1_024;

/// Changes that wait for the database: as many as there can be bans, and some. Past it a change holds for this life.
const WRITES_MAX: usize = 16_384;

/// While the database does not answer it is asked this often.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// A change is on the disk within this, or the store died with it: setting it twice is setting it once.
const KEPT_WITHIN: Duration = Duration::from_secs(5);

/// How often the rules are told that we run.
const TICK: Duration = Duration::from_secs(1);

/// The actor.
pub struct Gate;

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
    buckets: Buckets,
    behaviour: Behaviour,
    bans: Bans,
    drained_since: Option<Timestamp>,
    is_leaving: bool,
    is_recalled: bool,
    sessions: usize,
    observed: usize,
    writes: Promises<Told>,
    timer: Option<Timer>,
    tick: Timer,
    offered: Offered,
}

/// Who gave an order, and waits until it is on the disk.
type Told = Reply<Result<(), OrderFault>>;

/// Why an operator's order is not carried out, or not yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderFault {
    /// It makes no sense.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// It is about ourselves.
    #[error("got our own peer id, expected another's")]
    Ourselves,
    /// There are too many.
    #[error(transparent)]
    Full(#[from] protocol::bans::Full),
    /// What was ordered before is being read back.
    #[error("what was ordered before is being read back from the database: try again in a moment")]
    NotReady,
    /// It holds from now on, and is not on the disk.
    #[error("it holds, but the database does not answer: it is written down as soon as that does")]
    NotWritten,
}

/// What it is told and asked.
pub enum Msg {
    /// A peer said hello.
    Greet {
        /// Who.
        peer: PeerId,
        /// From where.
        from: Multiaddr,
        /// What it is.
        role: Role,
        /// It has a session already.
        has_session: bool,
        /// Whether it may stay.
        reply: Reply<Result<(), Refused>>,
    },
    /// A peer asks for something.
    Request {
        /// Who.
        peer: PeerId,
        /// For what.
        protocol: Protocol,
        /// Whether it may.
        reply: Reply<Result<(), Refused>>,
    },
    /// A peer signed what does not verify, or came with another DID.
    Offended {
        /// Who.
        peer: PeerId,
        /// What it did.
        offence: Offence,
    },
    /// A peer left and will be back at once.
    ExpectBack {
        /// Who.
        peer: PeerId,
    },
    /// So many sessions are there now.
    Sessions(usize),
    /// An operator bans a peer from everything.
    Ban {
        /// Whom.
        peer: PeerId,
        /// For how long; nothing for ever.
        lasts: Option<Duration>,
        /// Why, for other operators.
        reason: String,
        /// Once it is on the disk.
        reply: Reply<Result<(), OrderFault>>,
    },
    /// An operator takes every ban of a peer back.
    Lift {
        /// Whose.
        peer: PeerId,
        /// Whether there was one.
        was_banned: Reply<bool>,
        /// Once it is on the disk.
        reply: Reply<Result<(), OrderFault>>,
    },
    /// The bans in force are wanted.
    Bans(Reply<Vec<Ban>>),
    /// An operator lets the nodes go, or takes the order back.
    Drain {
        /// Let them go.
        is_on: bool,
        /// Once it is on the disk.
        reply: Reply<Result<(), OrderFault>>,
    },
    /// We leave: whoever has no session is sent elsewhere.
    Leaving,
    /// Registry, suggestions or health began a life and want to know who is banned and whether we are drained.
    TellPolicy,
    /// What the store kept of bans and orders; nothing when the database is away.
    Recalled(Option<Policy>),
    /// What became of the change that was sent to the store with this number.
    Kept {
        /// The number.
        number: u64,
        /// What became of it.
        kept: Kept,
    },
    /// Settings may change.
    Configure(Turn),
    /// The store may answer now.
    Retry,
    /// We run; see [`Behaviour::awake`].
    Tick,
}

impl Actor for Gate {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        inform(&context.addresses.registry, Class::Control, registry::Msg::TellCounts);
        let settings = context.live();
        let buckets = Buckets::new(&settings.gate);
        let behaviour = Behaviour::new(&settings.behaviour, context.own.profile.requests_factor());
        let mut state = State {
            rng: seat.rng(),
            buckets,
            behaviour,
            bans: Bans::new(),
            drained_since: None,
            is_leaving: false,
            is_recalled: false,
            sessions: 0,
            observed: 0,
            writes: Promises::new(WRITES_MAX),
            timer: None,
            tick: seat.after(TICK, Msg::Tick),
            offered: Offered::default(),
            seat,
            context,
        };
        state.tell_policy();
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
            Msg::Greet { peer, from, role, has_session, reply } => {
                reply.send(state.greet(peer, &from, role, has_session))
            }
            Msg::Request { peer, protocol, reply } => reply.send(state.request(peer, protocol)),
            Msg::Offended { peer, offence } => state.offended(peer, offence),
            Msg::ExpectBack { peer } => state.buckets.expect_back(peer, state.seat.now().mono),
            Msg::Sessions(sessions) => state.sessions = sessions,
            Msg::Ban { peer, lasts, reason, reply } => state.ban(peer, lasts, &reason, reply),
            Msg::Lift { peer, was_banned, reply } => state.lift(&peer, was_banned, reply),
            Msg::Bans(reply) => reply.send(state.bans.list(state.seat.now().mono).cloned().collect()),
            Msg::Drain { is_on, reply } => state.drain(is_on, reply),
            Msg::Leaving => state.is_leaving = true,
            Msg::TellPolicy => state.tell_policy(),
            Msg::Recalled(policy) => state.recalled(policy),
            Msg::Kept { number, kept } => state.kept(number, kept),
            Msg::Configure(turn) => state.configure(turn),
            Msg::Retry => state.retry(),
            Msg::Tick => state.tick(),
        }
        Ok(())
    }
}

impl State {
    fn tick(&mut self) {
        self.behaviour.awake(self.seat.now().mono);
        // Re-armed last, so that two never queue.
        self.tick = self.seat.after(TICK, Msg::Tick);
    }

    fn configure(&mut self, turn: Turn) {
        if let Some(settings) = self.offered.take(turn, |_| Ok(())) {
            self.buckets.set_rates(&settings.gate);
            self.behaviour.set_limits(&settings.behaviour, self.context.own.profile.requests_factor());
        }
    }

    fn greet(&mut self, peer: PeerId, from: &Multiaddr, role: Role, has_session: bool) -> Result<(), Refused> {
        let now = self.seat.now().mono;
        if !self.is_recalled {
            // Whoever is banned shall not slip in between our start and our memory.
            let detail = "this indexer is reading back whom it banned";
            return Err(Refused::new(RefusalCode::Busy, detail).retry_after(RETRY_EVERY.as_secs()));
        }
        let banned = self.bans.left(&peer, None, now).max(self.behaviour.banned(&peer, None, now));
        if let Some(left) = banned {
            return Err(Bans::refusal(left));
        }
        // Another indexer too: we search no more.
        if self.is_leaving && !has_session {
            let secs = spread_secs(LEAVING_WAIT, &mut self.rng);
            return Err(Refused::new(RefusalCode::Busy, "this indexer is leaving").retry_after(secs));
        }
        // Another indexer answers our searches without a session.
        if self.drained_since.is_some() && !has_session && !role.indexer {
            let secs = spread_secs(DRAINED_WAIT, &mut self.rng);
            return Err(Refused::new(RefusalCode::Busy, "this indexer lets its nodes go").retry_after(secs));
        }
        let Some(subnet) = Subnet::of_addr(from) else { return Ok(()) };
        match self.buckets.admit_session(peer, subnet, has_session, self.sessions, now, &mut self.rng) {
            // Capacity counts sessions, not connections.
            Err(wait) if wait.cause == Cause::Full && role.indexer => Ok(()),
            judged => judged.map_err(protocol::gate::Wait::refusal),
        }
    }

    fn request(&mut self, peer: PeerId, protocol: Protocol) -> Result<(), Refused> {
        let now = self.seat.now();
        self.observed += 1;
        if self.observed >= COLLECT_MAX {
            self.observed = 0;
            self.behaviour.collect(now.mono, COLLECT_MAX);
        }
        let kind = Kind::of(protocol);
        if let Some(left) = self.bans.left(&peer, kind, now.mono) {
            return Err(Bans::refusal(left));
        }
        let Some(kind) = kind else { return Ok(()) };
        let verdict = self.behaviour.observe(peer, kind, now.mono);
        if matches!(verdict, Verdict::Banned { is_new: true, .. })
            && let Some(ban) = self.behaviour.rate_ban(&peer, kind, now)
        {
            self.banned(ban, None);
        }
        verdict.refusal().map_or(Ok(()), Err)
    }

    fn offended(&mut self, peer: PeerId, offence: Offence) {
        inform(&self.context.addresses.registry, Class::Control, registry::Msg::Offended(peer));
        if let Some(ban) = self.behaviour.offend(peer, offence, self.seat.now()) {
            self.banned(ban, None);
        }
    }

    // Bans.

    fn ban(&mut self, peer: PeerId, lasts: Option<Duration>, reason: &str, reply: Reply<Result<(), OrderFault>>) {
        if peer == self.context.own.peer_id {
            return reply.send(Err(OrderFault::Ourselves));
        }
        if !self.is_recalled {
            return reply.send(Err(OrderFault::NotReady));
        }
        match Ban::by_operator(peer, lasts, reason, self.seat.now().wall) {
            Ok(ban) => self.banned(ban, Some(reply)),
            Err(error) => reply.send(Err(error.into())),
        }
    }

    /// In force first, then written down, then said.
    fn banned(&mut self, ban: Ban, told: Option<Told>) {
        let (peer, scope, now) = (ban.peer, ban.scope, self.seat.now());
        let added = match self.bans.add(ban.clone(), now) {
            Ok(added) => added,
            Err(full) => {
                warn!(%peer, "not in the book of bans: {full}");
                if let Some(told) = told {
                    told.send(Err(full.into()));
                }
                return;
            }
        };
        if added.is_news {
            warn!(%peer, scope = scope.name(), until = ?ban.until, reason = ban.reason, "banned");
            self.context.note("banned", peer, format!("from {}: {}", scope.name(), ban.reason));
        }
        if scope == Scope::All {
            self.cut(peer);
            inform(&self.context.addresses.registry, Class::Control, registry::Msg::Banned(vec![ban.clone()]));
        }
        if let Some((peer, scope)) = added.displaced {
            self.write(Write::ForgetBan { peer, scope }, None);
        }
        if added.is_news {
            self.write(Write::Ban(ban), told);
        } else if let Some(told) = told {
            told.send(Ok(()));
        }
    }

    fn cut(&self, peer: PeerId) {
        let close = swarm::Msg::Do(swarm::Command::Close { peer });
        inform(&self.context.addresses.swarm, Class::Control, close);
    }

    fn lift(&mut self, peer: &PeerId, was_banned: Reply<bool>, reply: Reply<Result<(), OrderFault>>) {
        if !self.is_recalled {
            was_banned.send(false);
            return reply.send(Err(OrderFault::NotReady));
        }
        let lifted = self.bans.lift(peer, self.seat.now().mono);
        self.behaviour.forgive(peer);
        was_banned.send(!lifted.is_empty());
        if !lifted.is_empty() {
            info!(%peer, "no longer banned");
            self.context.note("unbanned", peer, "by an operator");
        }
        inform(&self.context.addresses.registry, Class::Control, registry::Msg::Unbanned(*peer));
        // Written in any case: one that is over makes the next one longer until it is forgotten.
        self.write(Write::LiftBan(*peer), Some(reply));
    }

    // The order to drain.

    fn drain(&mut self, is_on: bool, reply: Reply<Result<(), OrderFault>>) {
        if !self.is_recalled {
            return reply.send(Err(OrderFault::NotReady));
        }
        let now = self.seat.now().wall;
        if is_on != self.drained_since.is_some() {
            let (kind, detail) = match is_on {
                true => ("drained", "it takes no new sessions and lets its nodes go"),
                false => ("undrained", "it takes sessions again"),
            };
            info!(detail, "{kind}");
            self.context.note(kind, &self.context.own.name, detail);
        }
        self.drained_since = is_on.then(|| self.drained_since.unwrap_or(now));
        self.tell_drain();
        self.write(Write::Drain(self.drained_since), Some(reply));
    }

    fn tell_drain(&self) {
        let (is_on, to) = (self.drained_since.is_some(), &self.context.addresses);
        inform(&to.registry, Class::Control, registry::Msg::Drained(is_on));
        inform(&to.suggestions, Class::Control, suggestions::Msg::Drained(is_on));
        inform(&to.health, Class::Control, health::Msg::Drained(is_on));
    }

    /// Before it is recalled nothing is told: it will be, then.
    fn tell_policy(&mut self) {
        self.context.read_back(Memory::Bans, self.is_recalled);
        if !self.is_recalled {
            return;
        }
        let now = self.seat.now().mono;
        let from_all: Vec<Ban> = self.bans.list(now).filter(|ban| ban.scope == Scope::All).cloned().collect();
        if !from_all.is_empty() {
            inform(&self.context.addresses.registry, Class::Control, registry::Msg::Banned(from_all));
        }
        self.tell_drain();
    }

    // What a restart must not forget.

    fn recall(&mut self) {
        let ask = store::Msg::Policy { reply: self.seat.reply(Msg::Recalled) };
        inform(&self.context.addresses.store, Class::Control, ask);
        self.timer = Some(self.seat.after(RETRY_EVERY, Msg::Retry));
    }

    fn recalled(&mut self, policy: Option<Policy>) {
        // The timer asks again where the database is away.
        let Some(policy) = policy.filter(|_| !self.is_recalled) else { return };
        let now = self.seat.now();
        self.is_recalled = true;
        self.timer = None;
        self.behaviour.restore(&policy.bans, now);
        self.bans.restore(policy.bans, now);
        self.drained_since = policy.drained_since;
        info!(bans = self.bans.len(), is_drained = self.drained_since.is_some(), "bans and orders were read back");
        self.tell_policy();
        self.write_next();
    }

    fn write(&mut self, write: Write, told: Option<Told>) {
        if let Err((writes, told)) = self.writes.push(vec![write], told) {
            warn!(?writes, "too much waits for the database; this holds until a restart");
            return say(told, Err(OrderFault::NotWritten));
        }
        self.write_next();
    }

    fn write_next(&mut self) {
        let Some((number, writes)) = self.writes.next() else { return };
        let reply = self.seat.reply(move |kept| Msg::Kept { number, kept });
        inform(&self.context.addresses.store, Class::Control, store::Msg::Promises { writes, reply });
        self.timer = Some(self.seat.after(KEPT_WITHIN, Msg::Retry));
    }

    fn kept(&mut self, number: u64, kept: Kept) {
        match self.writes.answered(number, kept) {
            Answer::Late => return,
            Answer::Away(told) => {
                say(told, Err(OrderFault::NotWritten));
                self.timer = Some(self.seat.after(RETRY_EVERY, Msg::Retry));
                return;
            }
            Answer::Written(told) => say(told, Ok(())),
            Answer::Refused { writes, why, told } => {
                warn!(?writes, ?why, "this holds until a restart");
                say(told, Err(OrderFault::NotWritten));
            }
        }
        self.timer = None;
        self.write_next();
    }

    fn retry(&mut self) {
        self.writes.again();
        self.timer = None;
        if !self.is_recalled {
            self.recall();
        }
        self.write_next();
    }
}

/// Whoever waits hears of it.
fn say(told: Option<Told>, outcome: Result<(), OrderFault>) {
    if let Some(told) = told {
        told.send(outcome);
    }
}
