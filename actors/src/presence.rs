//! Presence: what indexers tell each other of their coming and going on `oc-presence`.
//!
//! Owns which run of each indexer is the newest and whom we looked at for hearsay. The swarm tells it what was heard and
//! who said hello, suggestions whose record was found, streams of a leave, the pool whom it could not reach, peers where
//! we listen. It tells the swarm what
//! to gossip, and pool, peers, suggestions and registry what a look of our own found. A restart forgets the runs: for
//! five minutes a leave of an earlier run could be repeated. Bounds: those of [`protocol::presence::topic`].

#[cfg(test)]
mod tests;

use std::time::Duration;

use libp2p::Multiaddr;
use protocol::{
    PeerId, Timestamp, addr,
    pool::Probed,
    presence::topic::{Heard, LOOKS_MAX, Looks, PresenceWord, Runs},
    record::IndexerRecord,
    signed::Verified,
    wire::{AddrInfo, TOPIC_PRESENCE},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::{RngExt as _, rngs::StdRng};
use tokio::{sync::oneshot, task::JoinSet};
use tracing::{debug, info};

use crate::{
    context::{Context, inform},
    discover, leave, peers, pool, probe, registry, suggestions,
    supervision::{Class, Envelope, Seat, Timer},
    swarm,
};

/// Until another indexer heard that we came, it is said again this often; before the first connection nobody can.
const SAY_AGAIN: Duration = Duration::from_secs(2);

/// Everybody hears a word at once; that they do not all look at once, each waits up to so long.
const SPREAD_MAX: Duration = Duration::from_secs(2);

/// The peer book answers within this.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// The actor.
pub struct Presence;

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
    runs: Runs,
    looks: Looks,
    looking: JoinSet<()>,
    addrs: Vec<Multiaddr>,
    /// Another indexer heard that we came.
    is_announced: bool,
    timer: Option<Timer>,
}

/// What it is told.
pub enum Msg {
    /// We can be reached here.
    Reachable {
        /// Without `/p2p/`.
        addrs: Vec<Multiaddr>,
    },
    /// Another indexer said something on the topic.
    Heard(Heard),
    /// An indexer said hello, or its record was found.
    Met {
        /// Who.
        peer: PeerId,
        /// Start of its process.
        born_at: Timestamp,
    },
    /// An indexer said on a stream that it goes.
    Ended {
        /// Who.
        peer: PeerId,
        /// Start of the process that ends.
        born_at: Timestamp,
    },
    /// The pool could not reach an indexer any more.
    FoundDead {
        /// Which.
        peer: PeerId,
    },
    /// A look at an indexer that others say is dead ended.
    Looked {
        /// Which.
        peer: PeerId,
        /// How.
        outcome: Probed,
    },
    /// A look at an indexer that says it came ended.
    Found(Option<Box<Verified<IndexerRecord>>>),
    /// Somebody heard that we came, or nobody.
    Said(bool),
    /// Say that we came.
    Announce,
}

impl Actor for Presence {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        inform(&context.addresses.peers, Class::Control, peers::Msg::TellListening);
        Ok(State {
            rng: seat.rng(),
            runs: Runs::default(),
            looks: Looks::default(),
            looking: JoinSet::new(),
            addrs: Vec::new(),
            is_announced: false,
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
            Msg::Reachable { addrs } => state.reachable(addrs),
            Msg::Heard(heard) => state.heard(heard),
            Msg::Met { peer, born_at } => drop(state.runs.began(peer, born_at, state.seat.now().mono)),
            Msg::Ended { peer, born_at } => drop(state.runs.ended(peer, born_at, state.seat.now().mono)),
            Msg::FoundDead { peer } => state.say(&PresenceWord::dead_peer(state.context.own.peer_id, peer)),
            Msg::Looked { peer, outcome } => state.looked(peer, &outcome),
            Msg::Found(record) => state.found(record),
            Msg::Said(is_heard) => state.said(is_heard),
            Msg::Announce => state.announce(),
        }
        Ok(())
    }
}

impl State {
    // What we say.

    fn reachable(&mut self, addrs: Vec<Multiaddr>) {
        self.addrs = addrs;
        if !self.is_announced && self.timer.is_none() {
            self.announce();
        }
    }

    fn announce(&mut self) {
        let own = &self.context.own;
        let word = PresenceWord::join(own.peer_id, self.addrs.clone(), own.born_at);
        let heard = self.publish(&word);
        let me = self.seat.me().clone();
        tokio::spawn(async move {
            let is_heard = heard.await.unwrap_or(false);
            drop(me.tell(Class::Own, Msg::Said(is_heard)));
        });
        // Re-armed last; taken away as soon as somebody heard.
        self.timer = Some(self.seat.after(SAY_AGAIN, Msg::Announce));
    }

    fn said(&mut self, is_heard: bool) {
        if is_heard {
            self.is_announced = true;
            self.timer = None;
        }
    }

    fn say(&self, word: &PresenceWord) {
        drop(self.publish(word));
    }

    fn publish(&self, word: &PresenceWord) -> oneshot::Receiver<bool> {
        let (reply, heard) = oneshot::channel();
        // Our own word has nothing in it that JSON cannot say.
        if let Ok(text) = serde_json::to_vec(word) {
            let publish = swarm::Command::Publish { topic: TOPIC_PRESENCE, text, reply };
            inform(&self.context.addresses.swarm, Class::Control, swarm::Msg::Do(publish));
        }
        heard
    }

    // What others say.

    fn heard(&mut self, heard: Heard) {
        let now = self.seat.now().mono;
        match heard {
            Heard::Joined { peer, addrs, born_at } => {
                if self.runs.began(peer, born_at, now) {
                    self.came(peer, &addrs);
                }
            }
            Heard::Left(leave) => {
                self.context.note("indexer_left", leave.peer_id, "said on oc-presence");
                if self.runs.ended(leave.peer_id, leave.born_at, now) {
                    info!(indexer = %leave.peer_id, "it said that it goes");
                    leave::heard(&self.context, &leave);
                }
            }
            Heard::FoundDead { by, peer } => self.doubted(by, peer),
        }
    }

    /// Its addresses are hearsay, for the peer book and for the pool, which asks before it counts on anybody. That it is
    /// an indexer its own signed record has to say.
    fn came(&mut self, peer: PeerId, addrs: &[Multiaddr]) {
        let addrs = addr::hearsay(&peer, addrs, &self.context.settings.network.rule());
        if addrs.is_empty() || !self.may_look(peer) {
            return;
        }
        let to = &self.context.addresses;
        inform(&to.peers, Class::Control, peers::Msg::Identified { peer, addrs: addrs.clone() });
        let candidates = vec![AddrInfo { id: peer, addrs }];
        inform(&to.pool, Class::Control, pool::Msg::Heard { candidates });
        let (context, me, wait) = (self.context.clone(), self.seat.me().clone(), self.spread());
        self.looking.spawn(async move {
            tokio::time::sleep(wait).await;
            let record = discover::record(&context, peer).await.map(Box::new);
            drop(me.tell(Class::Own, Msg::Found(record)));
        });
    }

    fn found(&self, record: Option<Box<Verified<IndexerRecord>>>) {
        if let Some(record) = record {
            inform(&self.context.addresses.suggestions, Class::Control, suggestions::Msg::Learned(record));
        }
    }

    /// What others say of a third is a reason to look, and never more.
    fn doubted(&mut self, by: PeerId, peer: PeerId) {
        if peer == self.context.own.peer_id || !self.may_look(peer) {
            return;
        }
        debug!(%by, indexer = %peer, "said to be dead: looking for ourselves");
        let (context, me, wait) = (self.context.clone(), self.seat.me().clone(), self.spread());
        self.looking.spawn(async move {
            tokio::time::sleep(wait).await;
            let find = |reply| peers::Msg::Find { peer, reply };
            let Ok(info) = context.addresses.peers.ask(Class::Control, find, ASK_WITHIN).await else { return };
            // Whom we do not know we count on for nothing.
            if info.addrs.is_empty() {
                return;
            }
            let outcome = probe::probe(&context, peer, info.addrs).await;
            drop(me.tell(Class::Own, Msg::Looked { peer, outcome }));
        });
    }

    fn looked(&self, peer: PeerId, outcome: &Probed) {
        // One that is silent or refuses us is there, and may serve others.
        if !matches!(outcome, Probed::Unreachable) {
            debug!(indexer = %peer, "is there, whatever another indexer said");
            return;
        }
        info!(indexer = %peer, "cannot be reached, as another indexer said");
        self.context.note("indexer_unreachable", peer, "another indexer said so, and a look of our own agrees");
        inform(&self.context.addresses.suggestions, Class::Control, suggestions::Msg::Gone { peer });
        inform(&self.context.addresses.registry, Class::Control, registry::Msg::Lost { peer });
    }

    fn may_look(&mut self, peer: PeerId) -> bool {
        while self.looking.try_join_next().is_some() {}
        self.looking.len() < LOOKS_MAX && self.looks.is_due(peer, self.seat.now().mono)
    }

    fn spread(&mut self) -> Duration {
        SPREAD_MAX.mul_f64(self.rng.random::<f64>())
    }
}
