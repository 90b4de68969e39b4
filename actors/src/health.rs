//! Health: where this member stands, whether it is ready, what is wrong, and what happened.
//!
//! Owns the facts that others tell and the journal. Told by nearly everybody; tells nobody, it is read by the edge.
//! A restart forgets the journal and the troubles; every other fact it asks of its owner anew.
//! Bounds: a journal of [`protocol::health::EVENTS_MAX`] events, one trouble per topic.

use libp2p::Multiaddr;
use protocol::{
    PeerId,
    health::{Complaints, Facts, Journal, Memory, Standing},
    keyring::Keyring,
    wire::Protocol,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::{info, warn};

use crate::{
    claim,
    context::{Context, inform},
    gate, peers, policy, pool, registry, revocations, suggestions,
    supervision::{Class, Envelope, Reply, Seat},
    view::{self, EventView, FeedView, StatusView},
};

/// The actor.
pub struct Health;

/// What one life is given.
pub struct Args {
    /// Its seat.
    pub seat: Seat<Msg>,
    /// The daemon's.
    pub context: Context,
}

/// What it knows.
pub struct State {
    seat: Seat<Msg>,
    context: Context,
    facts: Facts,
    journal: Journal,
    /// Which journal it is: the moment at which it began.
    journal_id: u64,
    complaints: Complaints,
    pool: PoolFacts,
    listen: Vec<Multiaddr>,
    sessions: u32,
    indexers_known: u32,
    record_seq: u64,
}

/// What the pool tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolFacts {
    /// Members.
    pub members: u32,
    /// Members that answered their last beat.
    pub answering: u32,
    /// Represents us in search.
    pub referent: Option<PeerId>,
}

/// What it is told and asked.
pub enum Msg {
    /// The pool changed.
    Pooled(PoolFacts),
    /// We listen on these full addresses now.
    Listening(Vec<Multiaddr>),
    /// The own record was signed.
    Signed(u64),
    /// The own record was read back through another, or no longer is.
    Visible(bool),
    /// Sessions at this indexer.
    Sessions(u32),
    /// Other indexers known.
    IndexersKnown(u32),
    /// The database answers, or not.
    Stored(bool),
    /// This was read back from the database, or is to be anew.
    ReadBack {
        /// What.
        memory: Memory,
        /// It was.
        is_done: bool,
    },
    /// An operator lets our nodes go, or no longer.
    Drained(bool),
    /// Something happened.
    Noted {
        /// What sort of event.
        kind: &'static str,
        /// The peer or actor it is about.
        subject: String,
        /// In words.
        detail: String,
    },
    /// Something is wrong, or no longer is.
    Trouble {
        /// Its topic.
        what: &'static str,
        /// What to do; nothing when it is over.
        remedy: Option<String>,
    },
    /// A peer sent what it should not have.
    Complained {
        /// Who.
        about: PeerId,
        /// On which protocol.
        protocol: Protocol,
        /// What.
        cause: String,
    },
    /// We leave.
    Leaving,
    /// The overview is wanted.
    Look(Reply<StatusView>),
    /// Events are wanted.
    Events {
        /// After this one.
        since: u64,
        /// The events.
        reply: Reply<FeedView>,
    },
}

impl Actor for Health {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let facts = Facts {
            role: context.own.role,
            pool_min: context.live().pool.min_indexer,
            is_store_ok: true,
            unread: Memory::of(context.own.role),
            ..Facts::default()
        };
        let to = &context.addresses;
        inform(&to.pool, Class::Control, pool::Msg::TellHealth);
        inform(&to.claim, Class::Control, claim::Msg::TellHealth);
        inform(&to.peers, Class::Control, peers::Msg::TellListening);
        inform(&to.registry, Class::Control, registry::Msg::TellCounts);
        inform(&to.suggestions, Class::Control, suggestions::Msg::TellHealth);
        inform(&to.gate, Class::Control, gate::Msg::TellPolicy);
        inform(&to.policy, Class::Control, policy::Msg::TellHealth);
        inform(&to.revocations, Class::Control, revocations::Msg::TellHealth);
        // Whoever reads on learns that there is another journal.
        context.pulse.send_modify(|count| *count += 1);
        let journal_id = u64::try_from(seat.now().wall.as_microsecond()).unwrap_or_default();
        Ok(State {
            seat,
            context,
            facts,
            journal: Journal::default(),
            journal_id,
            complaints: Complaints::default(),
            pool: PoolFacts::default(),
            listen: Vec::new(),
            sessions: 0,
            indexers_known: 0,
            record_seq: 0,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let before = state.facts.standing();
        match envelope.open() {
            Msg::Pooled(pool) => state.pooled(pool),
            Msg::Listening(addrs) => state.listening(addrs),
            Msg::Signed(seq) => state.record_seq = seq,
            Msg::Visible(is_visible) => state.facts.is_visible = is_visible,
            Msg::Sessions(sessions) => state.sessions = sessions,
            Msg::IndexersKnown(known) => state.indexers_known = known,
            Msg::Stored(is_ok) => state.facts.is_store_ok = is_ok,
            Msg::ReadBack { memory, is_done } => state.read_back(memory, is_done),
            Msg::Drained(is_on) => state.facts.is_drained = is_on,
            Msg::Noted { kind, subject, detail } => state.noted(kind, subject, detail),
            Msg::Trouble { what, remedy } => state.trouble(what, remedy),
            Msg::Complained { about, protocol, cause } => state.complained(about, protocol, &cause),
            Msg::Leaving => state.facts.is_leaving = true,
            Msg::Look(reply) => reply.send(state.look()),
            Msg::Events { since, reply } => reply.send(state.events(since)),
        }
        state.tell_standing(before);
        Ok(())
    }
}

impl State {
    fn pooled(&mut self, pool: PoolFacts) {
        self.facts.pool_min = self.context.live().pool.min_indexer;
        self.facts.answering = pool.answering;
        self.facts.has_answered |= pool.answering > 0;
        self.context.stats.pool_members.set(i64::from(pool.members));
        self.pool = pool;
    }

    fn listening(&mut self, addrs: Vec<Multiaddr>) {
        self.facts.is_listening = !addrs.is_empty();
        self.listen = addrs;
    }

    fn read_back(&mut self, memory: Memory, is_done: bool) {
        if is_done {
            self.facts.unread.remove(&memory);
        } else {
            self.facts.unread.insert(memory);
        }
    }

    fn noted(&mut self, kind: &'static str, subject: String, detail: String) {
        self.journal.note(self.seat.now().wall, kind, subject, detail);
        self.context.pulse.send_modify(|count| *count += 1);
    }

    fn trouble(&mut self, what: &'static str, remedy: Option<String>) {
        match remedy {
            Some(remedy) => {
                if self.facts.troubles.insert(what, remedy.clone()).is_none() {
                    warn!(what, remedy, "trouble");
                    self.noted("trouble", what.to_owned(), remedy);
                }
            }
            None => {
                if self.facts.troubles.remove(what).is_some() {
                    info!(what, "trouble is over");
                    self.noted("trouble_over", what.to_owned(), String::new());
                }
            }
        }
    }

    fn complained(&mut self, about: PeerId, protocol: Protocol, cause: &str) {
        if let Some(unsaid) = self.complaints.may_say(about, self.seat.now().mono) {
            warn!(peer = %about, protocol = protocol.id(), cause, unsaid, "bad input");
        }
    }

    fn tell_standing(&mut self, before: Standing) {
        let standing = self.facts.standing();
        if standing == before {
            return;
        }
        info!(from = ?before, to = ?standing, "standing changed");
        let kind = match standing {
            Standing::Joining => "joining",
            Standing::Joined => "joined",
            Standing::Whole => "whole",
            Standing::Isolated => "isolated",
            Standing::Leaving => "leaving",
        };
        self.noted(kind, self.context.own.name.clone(), format!("{} of its indexers answer", self.pool.answering));
    }

    fn look(&self) -> StatusView {
        let own = &self.context.own;
        let now = self.seat.now();
        StatusView {
            name: own.name.clone(),
            peer_id: own.peer_id,
            did: own.did.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: own.role,
            network_id: own.network_id.clone(),
            profile: own.profile.to_string(),
            standing: match self.facts.standing() {
                Standing::Joining => view::Standing::Joining,
                Standing::Joined => view::Standing::Joined,
                Standing::Whole => view::Standing::Whole,
                Standing::Isolated => view::Standing::Isolated,
                Standing::Leaving => view::Standing::Leaving,
            },
            ready: self.facts.unready().is_empty(),
            reasons: self.facts.reasons(),
            listen: self.listen.clone(),
            born_at: own.born_at,
            uptime_ms: u64::try_from(now.mono.since_start().as_millis()).unwrap_or(u64::MAX),
            pool_members: self.pool.members,
            pool_answering: self.pool.answering,
            pool_min: self.context.live().pool.min_indexer,
            pool_max: self.context.live().pool.max_indexer,
            referent: self.pool.referent.map(|peer| peer.to_string()),
            sessions: self.sessions,
            max_nodes: if own.role.indexer { self.context.settings.gate.max_nodes } else { 0 },
            indexers_known: self.indexers_known,
            connections: u32::try_from(self.context.stats.connections.get()).unwrap_or(0),
            record_seq: self.record_seq,
            store_ok: self.facts.is_store_ok,
            drained: self.facts.is_drained,
            network_keys: self.context.network_key.as_ref().map(Keyring::fingerprints).unwrap_or_default(),
        }
    }

    fn events(&self, since: u64) -> FeedView {
        let events = self
            .journal
            .since(since)
            .map(|event| EventView {
                seq: event.seq,
                at: event.at,
                kind: event.kind.to_owned(),
                subject: event.subject.clone(),
                detail: event.detail.clone(),
            })
            .collect();
        FeedView { journal: self.journal_id, oldest: self.journal.oldest(), last: self.journal.last(), events }
    }
}
