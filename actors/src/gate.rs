//! Gate: who may come in, and how often each may ask.
//!
//! Owns the buckets for new sessions, the counts of each peer's requests, its strikes and bans. Asked by the tasks that
//! serve streams; told by them and by the registry of bad signatures and changed DIDs; tells the swarm whom to cut off.
//! A restart forgets counts, strikes and bans. Bounds: `behaviour.peers_max` peers, the buckets' own.

use libp2p::Multiaddr;
use protocol::{
    PeerId,
    addr::Subnet,
    behaviour::{Behaviour, Kind, Offence},
    gate::Gate as Buckets,
    wire::{Protocol, RefusalCode, Refused},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::rngs::StdRng;
use tracing::warn;

use crate::{
    context::{Context, inform},
    registry,
    supervision::{Class, Envelope, Reply, Seat},
    swarm,
};

/// Peers looked at per collection; each arrival makes at most one entry.
const COLLECT_MAX: usize = 1_024;

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
    sessions: usize,
    observed: usize,
}

/// What it is told and asked.
pub enum Msg {
    /// A peer said hello.
    Greet {
        /// Who.
        peer: PeerId,
        /// From where.
        from: Multiaddr,
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
        let settings = &context.settings;
        let buckets = Buckets::new(&settings.gate);
        let behaviour = Behaviour::new(&settings.behaviour, context.own.profile.requests_factor());
        Ok(State { rng: seat.rng(), buckets, behaviour, sessions: 0, observed: 0, seat, context })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Greet { peer, from, has_session, reply } => reply.send(state.greet(peer, &from, has_session)),
            Msg::Request { peer, protocol, reply } => reply.send(state.request(peer, protocol)),
            Msg::Offended { peer, offence } => state.offended(peer, offence),
            Msg::ExpectBack { peer } => state.buckets.expect_back(peer, state.seat.now().mono),
            Msg::Sessions(sessions) => state.sessions = sessions,
        }
        Ok(())
    }
}

impl State {
    fn greet(&mut self, peer: PeerId, from: &Multiaddr, has_session: bool) -> Result<(), Refused> {
        let now = self.seat.now().mono;
        if let Some(left) = self.behaviour.banned(&peer, None, now) {
            let detail = "banned here for bad signatures or a changed identity";
            return Err(Refused::new(RefusalCode::Banned, detail).retry_after(left.as_secs().max(1)));
        }
        let Some(subnet) = Subnet::of_addr(from) else { return Ok(()) };
        self.buckets
            .admit_session(peer, subnet, has_session, self.sessions, now, &mut self.rng)
            .map_err(protocol::gate::Wait::refusal)
    }

    fn request(&mut self, peer: PeerId, protocol: Protocol) -> Result<(), Refused> {
        let now = self.seat.now().mono;
        self.observed += 1;
        if self.observed >= COLLECT_MAX {
            self.observed = 0;
            self.behaviour.collect(now, COLLECT_MAX);
        }
        let Some(kind) = Kind::of(protocol) else { return Ok(()) };
        self.behaviour.observe(peer, kind, now).refusal().map_or(Ok(()), Err)
    }

    fn offended(&mut self, peer: PeerId, offence: Offence) {
        let Some(ban) = self.behaviour.offend(peer, offence, self.seat.now()) else { return };
        warn!(%peer, ?offence, ?ban, "banned");
        self.context.note("banned", peer, format!("{offence:?}"));
        let close = swarm::Msg::Do(swarm::Command::Close { peer });
        inform(&self.context.addresses.swarm, Class::Control, close);
    }
}
