//! PeerBook: every known peer, its addresses and how they fared.
//!
//! Owns [`protocol::book::Book`]. The swarm tells it who was met, lost and not reached; verified records name peers.
//! It tells the pool which indexers it could ask, claim, health and presence where we listen, and the store what to keep.
//! A restart forgets only who is connected; the rest comes back from the store, as soon as the database answers. Before that
//! nothing is written over it. Bound: `store.peers_max` peers.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p::Multiaddr;
use protocol::{
    PeerId, addr,
    book::{Book, Entry, Fare},
    wire::{AddrInfo, Role},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::warn;

use crate::{
    claim,
    context::{Context, inform},
    health, outbox, planner, pool, presence, revocations,
    store::{self, to_row},
    suggestions,
    supervision::{Class, Envelope, Reply, Seat, Timer},
    swarm::{self, Greeted},
    view::{AddrView, PeerView},
};

/// What was learnt is written down this often.
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// While the database does not answer it is asked this often.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// A peer unseen for a week is forgotten.
pub(crate) const FORGET_AFTER: Duration = Duration::from_secs(7 * 86_400);

/// Most that are forgotten at once.
pub(crate) const COLLECT_MAX: u32 = 500;

/// Peers shown at once; beyond it a view would be slower to draw than to outdate.
const SHOWN_MAX: usize = 2_000;

/// The actor.
pub struct Peers;

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
    book: Book,
    changed: BTreeSet<PeerId>,
    listen: Vec<Multiaddr>,
    /// Which pre-shared keys those hold who are connected, as their hellos said.
    network_keys: BTreeMap<PeerId, Vec<String>>,
    /// When the store is asked again for what it kept; nothing once it told that.
    asking: Option<Timer>,
    timer: Timer,
}

/// How well a peer is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquaintance {
    /// A connection is open.
    pub is_connected: bool,
    /// Last sign of life.
    pub last_seen: Option<protocol::Timestamp>,
}

/// What it is told and asked.
pub enum Msg {
    /// A peer said hello.
    Met {
        /// The peer.
        peer: PeerId,
        /// What it said.
        greeted: Greeted,
        /// The other end of the connection.
        remote: Multiaddr,
        /// We dialled, so `remote` is where it listens.
        is_dialer: bool,
    },
    /// Every connection closed: the swarm began a life.
    AllGone,
    /// Revocations began a life and want to know who is connected.
    TellConnected,
    /// Its key was revoked: what is known of it goes.
    Forget {
        /// The peer.
        peer: PeerId,
    },
    /// Its last connection closed.
    Gone {
        /// The peer.
        peer: PeerId,
    },
    /// It told its addresses by identify.
    Identified {
        /// The peer.
        peer: PeerId,
        /// Filtered hearsay.
        addrs: Vec<Multiaddr>,
    },
    /// These addresses did not lead to it.
    DialFailed {
        /// The peer.
        peer: PeerId,
        /// The addresses tried.
        addrs: Vec<Multiaddr>,
    },
    /// A verified record named it.
    Named {
        /// The peer.
        peer: PeerId,
        /// Its name.
        name: String,
        /// Its DID.
        did: String,
    },
    /// We listen on these addresses now.
    Listening {
        /// Without `/p2p/`.
        addrs: Vec<Multiaddr>,
    },
    /// Claim, pool, suggestions or presence began a life and want to know where we listen.
    TellListening,
    /// What is this peer?
    Role {
        /// The peer.
        peer: PeerId,
        /// What its hello said.
        reply: Reply<Role>,
    },
    /// What was kept over the restart; nothing when the database is away.
    Restored(Option<Vec<(PeerId, Entry)>>),
    /// How well do we know it?
    Acquainted {
        /// The peer.
        peer: PeerId,
        /// Nothing when we do not.
        reply: Reply<Option<Acquaintance>>,
    },
    /// Where is it?
    Find {
        /// The peer.
        peer: PeerId,
        /// Its addresses, best first.
        reply: Reply<AddrInfo>,
    },
    /// Which indexers were met?
    Indexers {
        /// At most so many.
        at_most: usize,
        /// Their ids.
        reply: Reply<Vec<PeerId>>,
    },
    /// What is it called?
    Names {
        /// Of these.
        peers: Vec<PeerId>,
        /// Its names, empty where unknown, in the same order.
        reply: Reply<Vec<String>>,
    },
    /// Every peer is wanted.
    Look(Reply<Vec<PeerView>>),
    /// Forget a batch of what is stale.
    Collect,
    /// The store may answer now.
    Retry,
    /// Write down what was learnt.
    Keep,
}

impl Actor for Peers {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let peers_max = context.settings.store.peers_max as usize;
        let book = Book::new(context.own.peer_id, peers_max);
        inform(&context.addresses.swarm, Class::Control, swarm::Msg::Do(swarm::Command::TellPeers));
        let timer = seat.after(KEEP_EVERY, Msg::Keep);
        let (changed, listen, network_keys) = (BTreeSet::new(), Vec::new(), BTreeMap::new());
        let mut state = State { seat, context, book, changed, listen, network_keys, asking: None, timer };
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
            Msg::Met { peer, greeted, remote, is_dialer } => state.met(peer, &greeted, &remote, is_dialer),
            Msg::AllGone => state.all_gone(),
            Msg::TellConnected => state.tell_connected(),
            Msg::Forget { peer } => state.forget(&peer),
            Msg::Gone { peer } => state.gone(&peer),
            // A revoked peer is not entered anew by what it goes on to say before it is refused.
            Msg::Identified { peer, .. } | Msg::DialFailed { peer, .. } | Msg::Named { peer, .. }
                if state.context.is_revoked(&peer) => {}
            Msg::Identified { peer, addrs } => state.identified(peer, &addrs),
            Msg::DialFailed { peer, addrs } => state.failed(peer, &addrs),
            Msg::Named { peer, name, did } => state.named(peer, &name, &did),
            Msg::Listening { addrs } => state.listening(addrs),
            Msg::TellListening => state.tell_listening(),
            Msg::Role { peer, reply } => reply.send(state.role(&peer)),
            Msg::Restored(peers) => state.restored(peers),
            Msg::Acquainted { peer, reply } => reply.send(state.acquainted(&peer)),
            Msg::Find { peer, reply } => reply.send(state.book.addr_info(peer)),
            Msg::Indexers { at_most, reply } => reply.send(state.indexers(at_most)),
            Msg::Names { peers, reply } => reply.send(state.names(&peers)),
            Msg::Look(reply) => reply.send(state.look()),
            Msg::Collect => state.collect(),
            Msg::Retry => state.retry(),
            Msg::Keep => state.keep(),
        }
        Ok(())
    }
}

impl State {
    fn met(&mut self, peer: PeerId, greeted: &Greeted, remote: &Multiaddr, is_dialer: bool) {
        let hello = &greeted.hello;
        let dialled = is_dialer.then(|| addr::split_peer(remote).0);
        self.book.met(peer, hello.role, &hello.agent, &hello.did, dialled.as_ref(), self.seat.now().wall);
        self.changed.insert(peer);
        // As many as there are connections, which the doors bound.
        self.network_keys.insert(peer, hello.network_keys.clone());
        inform(&self.context.addresses.outbox, Class::Control, outbox::Msg::HeardOf(peer));
        inform(&self.context.addresses.planner, Class::Control, planner::Msg::HeardOf(peer));
        if hello.role.indexer {
            let offset = greeted.clock_offset;
            inform(&self.context.addresses.claim, Class::Control, claim::Msg::Clock { peer, offset });
        }
        self.tell_met(peer, hello.role.indexer);
        self.offer(peer);
    }

    fn tell_met(&self, peer: PeerId, is_indexer: bool) {
        let met = revocations::Msg::Met { peer, is_indexer };
        inform(&self.context.addresses.revocations, Class::Control, met);
    }

    fn tell_connected(&self) {
        for (peer, entry) in self.book.iter().filter(|(_, entry)| entry.is_connected) {
            self.tell_met(*peer, entry.role.indexer);
        }
    }

    /// The store forgets it by itself.
    fn forget(&mut self, peer: &PeerId) {
        self.changed.remove(peer);
        self.book.forget(peer);
    }

    fn all_gone(&mut self) {
        inform(&self.context.addresses.revocations, Class::Control, revocations::Msg::AllGone);
        self.network_keys.clear();
        self.book.all_gone(self.seat.now().wall);
    }

    fn gone(&mut self, peer: &PeerId) {
        inform(&self.context.addresses.revocations, Class::Control, revocations::Msg::Gone { peer: *peer });
        self.network_keys.remove(peer);
        self.book.gone(peer, self.seat.now().wall);
    }

    fn identified(&mut self, peer: PeerId, addrs: &[Multiaddr]) {
        self.book.heard(peer, addrs);
        self.changed.insert(peer);
        self.offer(peer);
    }

    /// An indexer that came to us may serve us as well as one that we sought. Hello says that it is one, identify where
    /// it listens; whichever comes last finds both.
    fn offer(&self, peer: PeerId) {
        let info = self.book.addr_info(peer);
        let is_indexer = self.book.get(&peer).is_some_and(|entry| entry.is_connected && entry.role.indexer);
        if is_indexer && !info.addrs.is_empty() {
            inform(&self.context.addresses.pool, Class::Control, pool::Msg::Heard { candidates: vec![info] });
        }
    }

    fn failed(&mut self, peer: PeerId, addrs: &[Multiaddr]) {
        self.book.failed(&peer, addrs, self.seat.now().wall);
        self.changed.insert(peer);
    }

    fn named(&mut self, peer: PeerId, name: &str, did: &str) {
        self.book.named(peer, name, did, self.seat.now().wall);
        self.changed.insert(peer);
    }

    fn listening(&mut self, mut addrs: Vec<Multiaddr>) {
        if !self.context.settings.network.listen_next.is_empty() {
            // Others keep a few addresses of a peer. Host by host, some of them are of either key.
            addrs.sort_by_key(addr::ip_of);
        }
        self.listen = addrs;
        self.tell_listening();
    }

    fn tell_listening(&self) {
        if self.listen.is_empty() {
            return;
        }
        let own = self.context.own.peer_id;
        let network = &self.context.settings.network;
        let told = if network.announce.is_empty() { &self.listen } else { &network.announce };
        // What others would not believe is not told to them either.
        let addrs = addr::hearsay(&own, told, &network.rule());
        let full = self.listen.iter().map(|addr| addr::with_peer(addr, own)).collect();
        let to = &self.context.addresses;
        inform(&to.health, Class::Control, health::Msg::Listening(full));
        inform(&to.claim, Class::Control, claim::Msg::Reachable { addrs: addrs.clone() });
        inform(&to.suggestions, Class::Control, suggestions::Msg::Reachable { addrs: addrs.clone() });
        inform(&to.presence, Class::Control, presence::Msg::Reachable { addrs });
        inform(&to.pool, Class::Control, pool::Msg::Listening);
    }

    fn role(&self, peer: &PeerId) -> Role {
        self.book.get(peer).map(|entry| entry.role).unwrap_or_default()
    }

    fn acquainted(&self, peer: &PeerId) -> Option<Acquaintance> {
        let entry = self.book.get(peer)?;
        Some(Acquaintance { is_connected: entry.is_connected, last_seen: entry.last_seen })
    }

    fn recall(&mut self) {
        let ask = store::Msg::Peers { reply: self.seat.reply(Msg::Restored) };
        inform(&self.context.addresses.store, Class::Control, ask);
        self.asking = Some(self.seat.after(RETRY_EVERY, Msg::Retry));
    }

    fn retry(&mut self) {
        if self.asking.is_some() {
            self.recall();
        }
    }

    fn restored(&mut self, peers: Option<Vec<(PeerId, Entry)>>) {
        // The timer asks again where the database is away.
        let Some(peers) = peers.filter(|_| self.asking.is_some()) else { return };
        self.asking = None;
        let rule = self.context.settings.network.rule();
        for (peer, entry) in peers {
            // The row of one that was revoked while the database was away is still there.
            if !self.context.is_revoked(&peer) {
                self.book.restore(peer, entry, &rule);
            }
        }
    }

    fn indexers(&self, at_most: usize) -> Vec<PeerId> {
        let indexers = self.book.iter().filter(|(_, entry)| entry.role.indexer);
        indexers.map(|(peer, _)| *peer).take(at_most).collect()
    }

    fn names(&self, peers: &[PeerId]) -> Vec<String> {
        peers.iter().map(|peer| self.book.get(peer).map(|entry| entry.name.clone()).unwrap_or_default()).collect()
    }

    fn look(&self) -> Vec<PeerView> {
        let mut views: Vec<PeerView> = self.book.iter().map(|(peer, entry)| self.view(*peer, entry)).collect();
        views.sort_by(|a, b| (!a.connected, &a.name, b.last_seen).cmp(&(!b.connected, &b.name, a.last_seen)));
        views.truncate(SHOWN_MAX);
        views
    }

    fn collect(&mut self) {
        let Ok(before) = self.seat.now().wall.checked_sub(FORGET_AFTER) else { return };
        self.book.forget_stale(before, COLLECT_MAX as usize);
    }

    fn keep(&mut self) {
        if self.asking.is_some() {
            // How an address fared in this life alone would be written over how it fared in all.
            self.changed.retain(|peer| self.book.get(peer).is_some());
        } else {
            self.write_down();
        }
        // Re-armed last, so that two never queue.
        self.timer = self.seat.after(KEEP_EVERY, Msg::Keep);
    }

    fn write_down(&mut self) {
        let rows: Vec<_> = self.changed.iter().filter_map(|peer| Some(to_row(*peer, self.book.get(peer)?))).collect();
        match self.context.addresses.store.tell(Class::History, store::Msg::KeepPeers(rows)) {
            Ok(()) => self.changed.clear(),
            Err(_) => warn!("the store is busy: what was learnt of peers is kept later"),
        }
    }

    fn view(&self, peer: PeerId, entry: &Entry) -> PeerView {
        PeerView {
            peer_id: peer,
            name: entry.name.clone(),
            did: entry.did.clone(),
            role: Role { ..entry.role },
            agent: entry.agent.clone(),
            connected: entry.is_connected,
            last_seen: entry.last_seen,
            network_keys: self.network_keys.get(&peer).cloned().unwrap_or_default(),
            addrs: entry
                .addrs
                .iter()
                .map(|Fare { addr, succeeded, failed, .. }| AddrView {
                    addr: addr.clone(),
                    succeeded: *succeeded,
                    failed: *failed,
                })
                .collect(),
        }
    }
}
