//! Policy: what each peer is to us.
//!
//! Owns the table of relations, and the counts of what events each peer brings. Sharing tells it what was written down;
//! swarm and the serving tasks ask it who may come in and how often, searches whom to ask. It tells sharing the table, and
//! has the swarm cut whoever is blacklisted or stops being a partner. A restart forgets the counts and nothing else: the
//! table is read back from the store, and until then nobody is let in. Bounds: `RELATIONS_MAX` of the store, and those of
//! [`protocol::event::Intake`].

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use ::store::RelationRow;
use protocol::{
    PeerId,
    event::{Intake, Verb},
    health::Memory,
    relation::Relation,
    wire::{RefusalCode, Refused},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::info;

use crate::{
    context::{Context, inform},
    outbox, planner, sharing, store,
    supervision::{Class, Envelope, Reply, Seat, Timer},
    swarm,
};

/// While the database is away the table is asked for this often.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// The actor.
pub struct Policy;

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
    /// Nothing until the store has told it.
    relations: Option<BTreeMap<PeerId, RelationRow>>,
    /// Written down before the table was read back.
    early: Vec<RelationRow>,
    intake: Intake,
    timer: Option<Timer>,
}

/// What it is told and asked.
pub enum Msg {
    /// What is this peer to us?
    Relation {
        /// Who.
        peer: PeerId,
        /// Nothing while the table is not read back.
        reply: Reply<Option<Relation>>,
    },
    /// An event for this verb begins to come from a peer: is it taken in?
    Event {
        /// From whom.
        peer: PeerId,
        /// What for.
        verb: Verb,
        /// What the peer is to us, or how it is told no.
        reply: Reply<Result<Relation, Refused>>,
    },
    /// A peer comes, or we came to it: may it stay?
    Greet {
        /// Who.
        peer: PeerId,
        /// Whether.
        reply: Reply<Result<(), Refused>>,
    },
    /// Who are our partners, or whom do we know?
    Peers {
        /// Those that are known only as well.
        is_known_enough: bool,
        /// Their ids.
        reply: Reply<Vec<PeerId>>,
    },
    /// A relation was written down.
    Kept(RelationRow),
    /// The whole table is wanted.
    Look(Reply<Vec<RelationRow>>),
    /// Sharing began a life and wants to know the table.
    TellRelations,
    /// Health began a life and wants to know whether the table is read back.
    TellHealth,
    /// What the store kept; nothing while the database is away.
    Recalled(Option<Vec<RelationRow>>),
    /// The store may answer now.
    Retry,
}

impl Actor for Policy {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let mut state = State {
            intake: Intake::new(context.own.profile.requests_factor()),
            seat,
            context,
            relations: None,
            early: Vec::new(),
            timer: None,
        };
        state.tell_health();
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
            Msg::Relation { peer, reply } => reply.send(state.relation(&peer)),
            Msg::Event { peer, verb, reply } => reply.send(state.event(peer, verb)),
            Msg::Greet { peer, reply } => reply.send(state.greet(&peer)),
            Msg::Peers { is_known_enough, reply } => reply.send(state.peers(is_known_enough)),
            Msg::Kept(row) => state.kept(row),
            Msg::Look(reply) => reply.send(state.look()),
            Msg::TellRelations => state.tell_relations(),
            Msg::TellHealth => state.tell_health(),
            Msg::Recalled(rows) => state.recalled(rows),
            Msg::Retry => state.recall(),
        }
        Ok(())
    }
}

impl State {
    fn recall(&mut self) {
        // Armed before the answer: a store that dies with the question in hand gives none.
        self.timer = Some(self.seat.after(RETRY_EVERY, Msg::Retry));
        let reply = self.seat.reply(Msg::Recalled);
        inform(&self.context.addresses.store, Class::Control, store::Msg::Relations { reply });
    }

    fn recalled(&mut self, rows: Option<Vec<RelationRow>>) {
        // It is asked again by the timer.
        let Some(rows) = rows else { return };
        self.timer = None;
        let now: BTreeMap<PeerId, RelationRow> = rows.into_iter().map(|row| (row.peer, row)).collect();
        let before = self.relations.replace(now).unwrap_or_default();
        // What this life did not hear of, or a former one did not get to, takes effect now.
        let others = before.into_values().map(|row| (row.peer, row.relation));
        let blacklisted = self.look().into_iter().filter(|row| row.relation == Relation::Blacklist);
        let peers: BTreeMap<PeerId, Relation> =
            blacklisted.map(|row| (row.peer, Relation::None)).chain(others).collect();
        for (peer, before) in peers {
            self.changed(peer, before);
        }
        for row in std::mem::take(&mut self.early) {
            self.kept(row);
        }
        self.tell_relations();
        self.tell_health();
    }

    fn relation(&self, peer: &PeerId) -> Option<Relation> {
        if *peer == self.context.own.peer_id {
            return Some(Relation::Own);
        }
        let relations = self.relations.as_ref()?;
        Some(relations.get(peer).map(|row| row.relation).unwrap_or_default())
    }

    fn event(&mut self, peer: PeerId, verb: Verb) -> Result<Relation, Refused> {
        let relation = self.relation(&peer).ok_or_else(|| {
            let detail = "this member is reading back what you are to it";
            Refused::new(RefusalCode::Busy, detail).retry_after(RETRY_EVERY.as_secs())
        })?;
        self.intake.admit(peer, verb, relation, self.seat.now().mono)?;
        Ok(relation)
    }

    fn greet(&self, peer: &PeerId) -> Result<(), Refused> {
        match self.relation(peer) {
            Some(Relation::Blacklist) => Err(Refused::new(RefusalCode::Banned, "blacklisted")),
            Some(_) => Ok(()),
            None => {
                // Whoever is blacklisted shall not slip in between our start and our memory.
                let detail = "this member is reading back whom it refuses";
                Err(Refused::new(RefusalCode::Busy, detail).retry_after(RETRY_EVERY.as_secs()))
            }
        }
    }

    fn peers(&self, is_known_enough: bool) -> Vec<PeerId> {
        let is_meant = |relation: Relation| relation == Relation::Partner || is_known_enough && relation.is_known();
        let rows = self.relations.iter().flat_map(BTreeMap::values);
        rows.filter(|row| is_meant(row.relation)).map(|row| row.peer).collect()
    }

    fn kept(&mut self, row: RelationRow) {
        let Some(relations) = &mut self.relations else {
            // The store answers before it is asked for anything that was written after; a second's worth at most.
            self.early.push(row);
            return;
        };
        let (peer, now) = (row.peer, row.relation);
        let before = match now {
            Relation::None => relations.remove(&peer),
            _ => relations.insert(peer, row),
        };
        self.changed(peer, before.map(|row| row.relation).unwrap_or_default());
        self.tell_relations();
    }

    /// What follows when a peer that was this to us is something else.
    fn changed(&self, peer: PeerId, before: Relation) {
        let now = self.relation(&peer).unwrap_or_default();
        if before == now {
            return;
        }
        info!(%peer, relation = now.name(), before = before.name(), "a relation changed");
        self.context.note("relation_changed", peer, format!("{} was {}", now.name(), before.name()));
        if now == Relation::Blacklist {
            inform(&self.context.addresses.outbox, Class::Control, outbox::Msg::Forget { peer });
            inform(&self.context.addresses.planner, Class::Control, planner::Msg::Forget { peer });
        }
        if now == Relation::Blacklist || before == Relation::Partner {
            let close = swarm::Command::Close { peer };
            inform(&self.context.addresses.swarm, Class::Control, swarm::Msg::Do(close));
        }
    }

    fn look(&self) -> Vec<RelationRow> {
        self.relations.iter().flat_map(BTreeMap::values).cloned().collect()
    }

    fn tell_health(&self) {
        self.context.read_back(Memory::Relations, self.relations.is_some());
    }

    fn tell_relations(&self) {
        if self.relations.is_some() {
            let relations = sharing::Msg::Relations(self.look().into());
            inform(&self.context.addresses.sharing, Class::Control, relations);
        }
    }
}
