//! The task that polls the libp2p swarm: commands in, connections, queries and gossip out.
//!
//! An actor's handler cannot poll a swarm, so this loop does. It owns every connection's standing (greeted or not),
//! every running query and everybody who waits for a stream; all three are bounded and end with the task.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, Swarm, gossipsub, identify,
    kad::{self, store::RecordStore as _},
    mdns, ping,
    swarm::{
        ConnectionId, DialError, ListenError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use protocol::{
    PeerId,
    addr::{self, Subnet},
    beacon::Ears,
    dht::{self, Valid},
    hello,
    presence::topic::Listener,
    search::resources::Answering,
    table::{self, Place},
    time::Now,
    wire::{self, AddrInfo, Protocol, RefusalCode, SearchQuery},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tracing::{debug, info, warn};

use super::{
    Command, OpenError,
    behaviour::{Behaviour, BehaviourEvent, GOSSIP_BYTES_MAX},
    gossip::Part,
    greet::{Greeted, Greeting},
    shelf::{Declined, Shelf, life},
    streams::{self, Io},
    transport,
};
use crate::{
    beacon,
    context::{Context, inform},
    health, peers, pool, presence, relay, resources, suggestions,
    supervision::Class,
    view::{BinView, TablePeerView},
};

/// Streams that wait for a connection, in all; each is one actor's or one request's.
const WAITING_MAX: usize = 4_096;

/// Queries that run at once; each holds a few connections' worth of work.
const QUERIES_MAX: usize = 512;

/// Addresses kept of a listed indexer, so that a long list still fits a packet; its record has all of them.
const PROVIDER_ADDRS_MAX: usize = 2;

/// Values from others that are being verified at once.
const CHECKS_MAX: usize = 256;

/// The greeting must be over by then.
pub(super) const GREET_WITHIN: Duration = Duration::from_secs(3);

/// How often what is late is looked for.
const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// How often expired DHT records are dropped.
const SHELF_EVERY: Duration = Duration::from_secs(30);

/// Bits of a key of the DHT.
const ID_BITS: u32 = 256;

/// One open connection.
struct Connection {
    peer: PeerId,
    remote: Multiaddr,
    since: Instant,
    is_dialer: bool,
    /// What its hello said; nothing until then.
    greeted: Option<Greeted>,
    /// Where it listens, as identify said, which may come before hello.
    listens: Vec<Multiaddr>,
    /// Of the last ping that was answered.
    round_trip: Option<Duration>,
}

/// A stream that waits for its connection.
struct Waiting {
    protocol: Protocol,
    until: Instant,
    reply: oneshot::Sender<Result<Io, OpenError>>,
}

/// A running Kademlia query.
enum Query {
    Put { reply: Option<oneshot::Sender<bool>> },
    ReadBack { key: dht::Key, ours: Box<Valid>, wanted: usize, held_by: Vec<PeerId>, reply: oneshot::Sender<bool> },
    Find { key: dht::Key, is_first_enough: bool, found: Vec<Valid>, reply: oneshot::Sender<Vec<Valid>> },
    Providers { found: Vec<PeerId>, reply: oneshot::Sender<Vec<PeerId>> },
    Provide,
}

/// A value from another peer, once its signature was looked at.
type Checked = Result<(dht::Key, Valid), (PeerId, dht::DhtError)>;

/// The loop and all it owns.
pub(super) struct Driver {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) greetings: mpsc::Receiver<Greeting>,
    pub(super) greet: mpsc::Sender<Greeting>,
    pub(super) context: Context,
    connections: HashMap<ConnectionId, Connection>,
    waiting: HashMap<PeerId, Vec<Waiting>>,
    /// Connected indexers: the servers of the DHT.
    servers: HashSet<PeerId>,
    queries: HashMap<kad::QueryId, Query>,
    listener: Listener,
    /// Questions about resources, whoever answers them.
    questions: Answering,
    /// Beacons of others.
    ears: Ears,
    checks: JoinSet<Checked>,
    shelf: Shelf,
    shelf_swept: Instant,
    /// We leave, and are not listed anew.
    is_withdrawn: bool,
}

impl Driver {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        commands: mpsc::Receiver<Command>,
        (greet, greetings): (mpsc::Sender<Greeting>, mpsc::Receiver<Greeting>),
        context: Context,
    ) -> Self {
        Self {
            swarm,
            commands,
            greetings,
            greet,
            connections: HashMap::new(),
            waiting: HashMap::new(),
            servers: HashSet::new(),
            queries: HashMap::new(),
            listener: Listener::new(context.own.peer_id),
            questions: Answering::new(context.own.peer_id, context.own.profile.requests_factor()),
            ears: Ears::new(context.own.peer_id, context.own.profile.requests_factor()),
            checks: JoinSet::new(),
            shelf: Shelf::new(context.settings.dht.clone()),
            shelf_swept: Instant::now(),
            context,
            is_withdrawn: false,
        }
    }

    /// Runs until the commands end.
    pub(super) async fn run(mut self) {
        // A swarm's former life took its connections along without a word.
        inform(&self.context.addresses.peers, Class::Control, peers::Msg::AllGone);
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Some(greeting) = self.greetings.recv() => self.on_greeting(greeting),
                Some(Ok(checked)) = self.checks.join_next() => self.on_checked(checked),
                _ = sweep.tick() => self.sweep(),
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
    }

    fn now(&self) -> Now {
        self.context.now()
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Open { peer, addrs, protocol, within, reply } => self.open(peer, addrs, protocol, within, reply),
            Command::RoundTrip { connection, reply } => {
                let connection = self.connections.get(&connection);
                // Whoever asked may have given up.
                let _ = reply.send(connection.and_then(|connection| connection.round_trip));
            }
            Command::Close { peer } => drop(self.swarm.disconnect_peer_id(peer)),
            Command::Disown { peer } => self.disown(peer),
            Command::Put { key, value, reply } => self.put(&key, *value, reply),
            Command::ReadBack { key, value, reply } => self.read_back(key, value, reply),
            Command::Find { key, is_first_enough, reply } => self.find(key, is_first_enough, reply),
            Command::Providers { reply } => self.providers(reply),
            Command::Provide => self.provide(),
            Command::Unprovide => {
                self.is_withdrawn = true;
                self.swarm.behaviour_mut().kad.stop_providing(&kad::RecordKey::new(&dht::indexers_key()));
            }
            Command::TellPeers => self.tell_peers(),
            Command::Table { reply } => reply.send(self.bins()),
            Command::Publish { topic, text, reply } => self.publish(topic, text, reply),
        }
    }

    // Connections and streams.

    fn open(
        &mut self,
        peer: PeerId,
        addrs: Vec<Multiaddr>,
        protocol: Protocol,
        within: Duration,
        reply: oneshot::Sender<Result<Io, OpenError>>,
    ) {
        if peer == self.context.own.peer_id {
            drop(reply.send(Err(OpenError::Unreachable("that is ourselves".to_owned()))));
            return;
        }
        if let Some(connection) = self.greeted(&peer) {
            self.order(peer, connection, protocol, within, reply);
            return;
        }
        if self.waiting.values().map(Vec::len).sum::<usize>() >= WAITING_MAX {
            drop(reply.send(Err(OpenError::Busy)));
            return;
        }
        self.waiting.entry(peer).or_default().push(Waiting { protocol, until: Instant::now() + within, reply });
        let dial = DialOpts::peer_id(peer)
            .addresses(addrs)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .extend_addresses_through_behaviour()
            .build();
        match self.swarm.dial(dial) {
            // Somebody dials already, or the greeting is under way: they share its outcome.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => self.fail_waiting(&peer, &OpenError::Unreachable(in_words(&error))),
        }
    }

    /// Opens a stream on a greeted connection; the behaviour's errors become ours on their way.
    fn order(
        &self,
        peer: PeerId,
        connection: ConnectionId,
        protocol: Protocol,
        within: Duration,
        reply: oneshot::Sender<Result<Io, OpenError>>,
    ) {
        if !self.is_listed(connection, protocol.id()) {
            drop(reply.send(Err(OpenError::NotListed { protocol })));
            return;
        }
        let (opened, opening) = oneshot::channel();
        let order = streams::Open { peer, connection: Some(connection), protocol, within, reply: opened };
        self.swarm.behaviour().streams.open(order);
        tokio::spawn(async move {
            let opened = opening.await.map_err(|_| OpenError::Reset);
            drop(reply.send(opened.and_then(|opened| opened.map_err(OpenError::from))));
        });
    }

    /// The hello on this connection lists the protocol or topic: nothing else is sent.
    fn is_listed(&self, connection: ConnectionId, capability: &str) -> bool {
        let greeted = self.connections.get(&connection).and_then(|connection| connection.greeted.as_ref());
        greeted.is_some_and(|greeted| hello::lists(&greeted.hello, capability))
    }

    /// The oldest greeted connection to the peer.
    fn greeted(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.connections
            .iter()
            .filter(|(_, connection)| connection.greeted.is_some() && connection.peer == *peer)
            .min_by_key(|(_, connection)| connection.since)
            .map(|(id, _)| *id)
    }

    fn fail_waiting(&mut self, peer: &PeerId, error: &OpenError) {
        for waiting in self.waiting.remove(peer).unwrap_or_default() {
            drop(waiting.reply.send(Err(error.clone())));
        }
    }

    fn on_established(&mut self, id: ConnectionId, peer: PeerId, endpoint: &libp2p::core::ConnectedPoint) {
        let is_dialer = endpoint.is_dialer();
        let remote = endpoint.get_remote_address().clone();
        self.context.stats.connections_opened.inc();
        self.connections.insert(
            id,
            Connection {
                peer,
                remote,
                since: Instant::now(),
                is_dialer,
                greeted: None,
                listens: Vec::new(),
                round_trip: None,
            },
        );
        if is_dialer {
            let (reply, io) = oneshot::channel();
            let order =
                streams::Open { peer, connection: Some(id), protocol: Protocol::Hello, within: GREET_WITHIN, reply };
            self.swarm.behaviour().streams.open(order);
            let greet = super::greet::dialer(self.context.clone(), peer, io);
            let tell = self.greet.clone();
            tokio::spawn(async move {
                let greeted = tokio::time::timeout(GREET_WITHIN, greet).await;
                let outcome = greeted.unwrap_or_else(|_| Err(OpenError::Late));
                // The driver may be gone; then so is the connection.
                drop(tell.send(Greeting { connection: id, peer, outcome, admitted: None }).await);
            });
        }
    }

    fn on_greeting(&mut self, greeting: Greeting) {
        let Greeting { connection, peer, outcome, admitted } = greeting;
        // It may have been revoked while it was greeted.
        let outcome = outcome.and_then(|greeted| match self.context.check_revoked(&peer) {
            Ok(()) => Ok(greeted),
            Err(refused) => Err(super::greet::not_taken(refused)),
        });
        let is_taken = outcome.is_ok();
        match outcome {
            Ok(greeted) => self.admit(connection, peer, greeted),
            Err(error) => {
                self.context.stats.greetings_failed.inc();
                let is_dialer = self.connections.get(&connection).is_some_and(|connection| connection.is_dialer);
                if is_dialer {
                    warn!(%peer, %error, "hello failed");
                    self.context.note("hello_failed", peer, &error);
                    self.fail_waiting(&peer, &error);
                } else if !matches!(&error, OpenError::Refused { code: RefusalCode::Busy, .. }) {
                    // Whoever waits for its turn did nothing wrong, and comes with a crowd.
                    // Strangers can fail as often as they like; the log hears of each once a minute.
                    let complaint =
                        health::Msg::Complained { about: peer, protocol: Protocol::Hello, cause: error.to_string() };
                    inform(&self.context.addresses.health, Class::History, complaint);
                }
                self.swarm.close_connection(connection);
            }
        }
        // Only now may the listener say yes: its word must not outrun the admission.
        if let Some(admitted) = admitted.filter(|_| is_taken) {
            let _ = admitted.send(());
        }
    }

    fn admit(&mut self, id: ConnectionId, peer: PeerId, greeted: Greeted) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.greeted = Some(greeted.clone());
        let (remote, is_dialer) = (connection.remote.clone(), connection.is_dialer);
        let mut listens = connection.listens.clone();
        if is_dialer {
            listens.push(addr::split_peer(&remote).0);
        }
        let behaviour = self.swarm.behaviour_mut();
        behaviour.streams.admit(id);
        behaviour.doors.admitted(&peer);
        // The mesh is among indexers, who pass on what nodes ask each other.
        let part = Part::between(self.context.own.role.indexer, greeted.hello.role.indexer);
        behaviour.gossip.admit(peer, part);
        if is_in_dht(&greeted) {
            self.enter_table(peer, &remote, listens);
        }
        for waiting in self.waiting.remove(&peer).unwrap_or_default() {
            let within = waiting.until.saturating_duration_since(Instant::now());
            self.order(peer, id, waiting.protocol, within, waiting.reply);
        }
        let to = &self.context.addresses;
        if greeted.hello.role.indexer {
            self.servers.insert(peer);
            inform(&to.suggestions, Class::Control, suggestions::Msg::Met { peer });
            let met = presence::Msg::Met { peer, born_at: greeted.hello.born_at };
            inform(&to.presence, Class::Control, met);
        }
        inform(&to.peers, Class::Control, peers::Msg::Met { peer, greeted, remote, is_dialer });
    }

    fn on_closed(&mut self, id: ConnectionId, peer: PeerId, remaining: u32) {
        self.connections.remove(&id);
        if remaining > 0 {
            return;
        }
        self.servers.remove(&peer);
        self.fail_waiting(&peer, &OpenError::Reset);
        inform(&self.context.addresses.peers, Class::Control, peers::Msg::Gone { peer });
        inform(&self.context.addresses.pool, Class::Control, pool::Msg::Gone { peer });
    }

    fn on_dial_failed(&mut self, peer: Option<PeerId>, error: &DialError) {
        let Some(peer) = peer else { return };
        if matches!(error, DialError::DialPeerConditionFalse(_)) {
            return;
        }
        let cause = match error {
            DialError::WrongPeerId { obtained, address } => {
                OpenError::WrongPeer { address: addr::split_peer(address).0, got: *obtained }
            }
            error if transport::is_key_mismatch_likely(error) => {
                OpenError::KeyMismatch { fingerprint: self.context.own.network_key.clone() }
            }
            error => OpenError::Unreachable(in_words(error)),
        };
        debug!(%peer, %cause, "dial failed");
        let failed = match error {
            DialError::Transport(failed) => failed.iter().map(|(addr, _)| addr::split_peer(addr).0).collect(),
            DialError::WrongPeerId { address, .. } => vec![addr::split_peer(address).0],
            _ => Vec::new(),
        };
        inform(&self.context.addresses.peers, Class::History, peers::Msg::DialFailed { peer, addrs: failed });
        if self.greeted(&peer).is_none() {
            self.fail_waiting(&peer, &cause);
        }
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        self.waiting.retain(|_, waiting| {
            for late in waiting.extract_if(.., |waiting| waiting.until <= now || waiting.reply.is_closed()) {
                drop(late.reply.send(Err(OpenError::Late)));
            }
            !waiting.is_empty()
        });
        let silent = self.connections.iter().filter(|(_, connection)| {
            connection.greeted.is_none() && now.duration_since(connection.since) > GREET_WITHIN + SWEEP_EVERY
        });
        for id in silent.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.swarm.close_connection(id);
        }
        let refused = self.swarm.behaviour().streams.counters().not_served();
        self.context.stats.streams_refused.set(i64::try_from(refused).unwrap_or(i64::MAX));
        self.context.stats.connections.set(i64::try_from(self.connections.len()).unwrap_or(i64::MAX));
        if now.duration_since(self.shelf_swept) >= SHELF_EVERY {
            self.shelf_swept = now;
            self.shelf.sweep(self.now());
            self.swarm.behaviour_mut().kad.store_mut().retain(|_, record| !record.is_expired(now));
        }
    }

    // The DHT.

    /// What the peer signed is found here no longer.
    fn disown(&mut self, peer: PeerId) {
        // Nobody is connected where it fails.
        let _ = self.swarm.disconnect_peer_id(peer);
        self.servers.remove(&peer);
        let now = self.now();
        for (key, rest) in self.shelf.disown(&peer) {
            let store = self.swarm.behaviour_mut().kad.store_mut();
            match rest {
                // As large as what it takes the place of, or smaller.
                Some(rest) => drop(store.put(record(&key, &rest, now))),
                None => store.remove(&kad::RecordKey::new(&key.to_bytes())),
            }
        }
        self.swarm.behaviour_mut().kad.remove_peer(&peer);
        self.swarm.behaviour_mut().kad.store_mut().remove_provider(&kad::RecordKey::new(&dht::indexers_key()), &peer);
    }

    /// Puts what is then held here: a name's other claims along with ours, and never an older value over a newer one.
    fn put(&mut self, key: &dht::Key, value: Valid, reply: Option<oneshot::Sender<bool>>) {
        let fail = |reply: Option<oneshot::Sender<bool>>| {
            if let Some(reply) = reply {
                let _ = reply.send(false);
            }
        };
        let now = self.now();
        let held = match self.shelf.place(key, value, now) {
            Ok(held) => Some(held),
            Err(Declined::Known) => self.shelf.get(key),
            Err(_) => None,
        };
        let (Some(held), true) = (held, self.queries.len() < QUERIES_MAX) else { return fail(reply) };
        let record = record(key, held, now);
        if self.servers.is_empty() {
            // Nobody else could take it; whoever comes gets the next one.
            let is_done = self.swarm.behaviour_mut().kad.store_mut().put(record).is_ok();
            if let Some(reply) = reply {
                let _ = reply.send(is_done);
            }
            return;
        }
        match self.swarm.behaviour_mut().kad.put_record(record, kad::Quorum::One) {
            Ok(query) => {
                self.context.stats.dht_puts.inc();
                self.queries.insert(query, Query::Put { reply });
            }
            Err(error) => {
                warn!(?error, "the DHT shelf is full");
                fail(reply);
            }
        }
    }

    fn read_back(&mut self, key: dht::Key, ours: Box<Valid>, reply: oneshot::Sender<bool>) {
        let wanted = self.servers.len().min(dht::READ_BACK_MIN);
        if wanted == 0 || self.queries.len() >= QUERIES_MAX {
            let _ = reply.send(wanted == 0);
            return;
        }
        let query = self.swarm.behaviour_mut().kad.get_record(kad::RecordKey::new(&key.to_bytes()));
        self.context.stats.dht_gets.inc();
        self.queries.insert(query, Query::ReadBack { key, ours, wanted, held_by: Vec::new(), reply });
    }

    fn find(&mut self, key: dht::Key, is_first_enough: bool, reply: oneshot::Sender<Vec<Valid>>) {
        if self.queries.len() >= QUERIES_MAX {
            drop(reply.send(Vec::new()));
            return;
        }
        let query = self.swarm.behaviour_mut().kad.get_record(kad::RecordKey::new(&key.to_bytes()));
        self.context.stats.dht_gets.inc();
        self.queries.insert(query, Query::Find { key, is_first_enough, found: Vec::new(), reply });
    }

    fn providers(&mut self, reply: oneshot::Sender<Vec<PeerId>>) {
        if self.queries.len() >= QUERIES_MAX {
            drop(reply.send(Vec::new()));
            return;
        }
        let query = self.swarm.behaviour_mut().kad.get_providers(kad::RecordKey::new(&dht::indexers_key()));
        self.queries.insert(query, Query::Providers { found: Vec::new(), reply });
    }

    fn provide(&mut self) {
        if self.is_withdrawn {
            return;
        }
        match self.swarm.behaviour_mut().kad.start_providing(kad::RecordKey::new(&dht::indexers_key())) {
            Ok(query) => drop(self.queries.insert(query, Query::Provide)),
            Err(error) => warn!(?error, "cannot list ourselves among the indexers"),
        }
    }

    fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::InboundRequest {
                request: kad::InboundRequest::PutRecord { source, record: Some(record), .. },
            } => {
                self.check_put(source, record);
            }
            kad::Event::InboundRequest { request: kad::InboundRequest::AddProvider { record: Some(record) } } => {
                self.on_provider(record);
            }
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => self.on_progress(id, result, step.last),
            _ => {}
        }
    }

    /// Cheap checks here; the signature is checked off this task.
    fn check_put(&mut self, source: PeerId, record: kad::Record) {
        let now = self.now();
        let is_welcome = self.greeted(&source).is_some() && self.checks.len() < CHECKS_MAX;
        let (true, Ok(key)) = (is_welcome, dht::Key::parse(record.key.as_ref())) else {
            self.context.stats.dht_refused.inc();
            return;
        };
        let held = self.shelf.get(&key).cloned();
        self.checks.spawn(async move {
            match dht::validate(&key, &record.value, held.as_ref(), now.wall) {
                Ok(valid) => Ok((key, valid)),
                Err(error) => Err((source, error)),
            }
        });
    }

    fn on_checked(&mut self, checked: Checked) {
        let now = self.now();
        let (key, value) = match checked {
            Ok((key, value)) => match unrevoked(&self.context, value) {
                Some(value) => (key, value),
                None => {
                    self.context.stats.dht_refused.inc();
                    return;
                }
            },
            Err((source, error)) => {
                debug!(%source, %error, code = ?error.refusal(), "a value for the DHT was refused");
                self.context.stats.dht_refused.inc();
                return;
            }
        };
        match self.shelf.place(&key, value, now) {
            Ok(held) => {
                let record = record(&key, held, now);
                match self.swarm.behaviour_mut().kad.store_mut().put(record) {
                    Ok(()) => drop(self.context.stats.dht_stored.inc()),
                    Err(_) => drop(self.context.stats.dht_refused.inc()),
                }
            }
            Err(Declined::Known) => {}
            Err(error) => {
                debug!(%error, "a value for the DHT was declined");
                self.context.stats.dht_refused.inc();
            }
        }
    }

    fn on_provider(&mut self, record: kad::ProviderRecord) {
        let is_ours = record.key.as_ref() == dht::indexers_key();
        // Kademlia has checked that the provider is the connection's peer.
        if !is_ours || self.greeted(&record.provider).is_none() {
            self.context.stats.dht_refused.inc();
            return;
        }
        let mut addresses = addr::hearsay(&record.provider, &record.addresses, &self.context.settings.network.rule());
        addresses.truncate(PROVIDER_ADDRS_MAX);
        let record = kad::ProviderRecord { expires: Some(Instant::now() + dht::PROVIDER_LIFE), addresses, ..record };
        if self.swarm.behaviour_mut().kad.store_mut().add_provider(record).is_err() {
            self.context.stats.dht_refused.inc();
        }
    }

    fn on_progress(&mut self, id: kad::QueryId, result: kad::QueryResult, is_last: bool) {
        let now = self.now();
        if let Some(query) = self.queries.get_mut(&id) {
            let is_enough = match (query, result) {
                (
                    Query::Find { key, is_first_enough, found, .. },
                    kad::QueryResult::GetRecord(Ok(kad::GetRecordOk::FoundRecord(record))),
                ) => match dht::validate(key, &record.record.value, found.last(), now.wall) {
                    Ok(valid) if found.len() < dht::VALUES_MAX => {
                        let valid = unrevoked(&self.context, valid);
                        let is_enough = *is_first_enough && valid.is_some();
                        found.extend(valid);
                        is_enough
                    }
                    Ok(_) => true,
                    Err(error) => {
                        debug!(%error, "a value from the DHT was dropped");
                        self.context.stats.dht_refused.inc();
                        false
                    }
                },
                (
                    Query::ReadBack { key, ours, wanted, held_by, .. },
                    kad::QueryResult::GetRecord(Ok(kad::GetRecordOk::FoundRecord(found))),
                ) => {
                    // Our own copy comes without a peer, and proves nothing.
                    let theirs = dht::validate(key, &found.record.value, Some(ours), now.wall);
                    let is_held = theirs.is_ok_and(|theirs| dht::holds(key, &theirs, ours, now.wall));
                    held_by.extend(found.peer.filter(|peer| is_held && !held_by.contains(peer)));
                    held_by.len() >= *wanted
                }
                (
                    Query::Providers { found, .. },
                    kad::QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders { providers, .. })),
                ) => {
                    found.extend(providers.into_iter().filter(|peer| !self.context.is_revoked(peer)));
                    false
                }
                (Query::Put { reply }, kad::QueryResult::PutRecord(outcome)) => {
                    if let Some(reply) = reply.take() {
                        let _ = reply.send(outcome.is_ok());
                    }
                    false
                }
                _ => false,
            };
            if is_enough || is_last {
                self.finish(id);
            }
        }
    }

    fn finish(&mut self, id: kad::QueryId) {
        if let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id) {
            query.finish();
        }
        match self.queries.remove(&id) {
            Some(Query::Find { found, reply, .. }) => drop(reply.send(found)),
            Some(Query::Providers { mut found, reply }) => {
                found.sort_unstable();
                found.dedup();
                drop(reply.send(found));
            }
            Some(Query::ReadBack { wanted, held_by, reply, .. }) => {
                let is_held = held_by.len() >= wanted;
                let stats = &self.context.stats;
                if is_held {
                    stats.dht_puts_read_back.inc()
                } else {
                    stats.dht_puts_lost.inc()
                };
                let _ = reply.send(is_held);
            }
            Some(Query::Put { .. } | Query::Provide) | None => {}
        }
    }

    // Gossip.

    fn publish(&mut self, topic: &'static str, text: Vec<u8>, reply: oneshot::Sender<bool>) {
        let outcome = self.swarm.behaviour_mut().gossip.publish(topic, text);
        if let Err(error) = &outcome {
            debug!(%error, "nobody to gossip to");
        }
        let _ = reply.send(outcome.is_ok());
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let verdict = match message.topic.as_str() {
                    _ if self.is_by_revoked(&message) => gossipsub::MessageAcceptance::Ignore,
                    wire::TOPIC_PRESENCE => self.take_word(&message),
                    wire::TOPIC_NODE_SEARCH => self.take_question(&message),
                    wire::TOPIC_BEACON => self.take_beacon(&message),
                    _ => self.take_query(&message),
                };
                match verdict {
                    gossipsub::MessageAcceptance::Accept => self.context.stats.gossip_accepted.inc(),
                    _ => self.context.stats.gossip_refused.inc(),
                };
                // Passing on is the indexers' part: a node hears everything from each of its own, and its link is the thinner.
                let verdict = match verdict {
                    gossipsub::MessageAcceptance::Accept if !self.context.own.role.indexer => {
                        gossipsub::MessageAcceptance::Ignore
                    }
                    verdict => verdict,
                };
                self.swarm.behaviour_mut().gossip.judged(&message_id, &propagation_source, verdict);
            }
            gossipsub::Event::Subscribed { peer_id, topic } => self.on_subscribed(peer_id, topic),
            _ => {}
        }
    }

    /// Nothing of a revoked author is heard or passed on, whoever brings it.
    fn is_by_revoked(&self, message: &gossipsub::Message) -> bool {
        message.source.is_some_and(|author| self.context.refuses(&author))
    }

    fn take_query(&self, message: &gossipsub::Message) -> gossipsub::MessageAcceptance {
        let query = protocol::json::parse::<SearchQuery>(&message.data, GOSSIP_BYTES_MAX).ok();
        let Some(query) = query.filter(|query| message.source == Some(query.emitter_id)) else {
            return gossipsub::MessageAcceptance::Reject;
        };
        inform(&self.context.addresses.relay, Class::Search, relay::Msg::Asked { query });
        gossipsub::MessageAcceptance::Accept
    }

    fn take_question(&mut self, message: &gossipsub::Message) -> gossipsub::MessageAcceptance {
        let Some(author) = message.source else { return gossipsub::MessageAcceptance::Reject };
        match self.questions.heard(author, &message.data, self.context.now()) {
            Ok(question) => {
                if self.context.own.role.node {
                    inform(&self.context.addresses.resources, Class::Search, resources::Msg::Heard { question });
                }
                gossipsub::MessageAcceptance::Accept
            }
            Err(error) => {
                debug!(%author, %error, "a question about resources is not heard");
                match error.is_authors_fault() {
                    true => gossipsub::MessageAcceptance::Reject,
                    false => gossipsub::MessageAcceptance::Ignore,
                }
            }
        }
    }

    fn take_beacon(&mut self, message: &gossipsub::Message) -> gossipsub::MessageAcceptance {
        let Some(author) = message.source else { return gossipsub::MessageAcceptance::Reject };
        match self.ears.heard(author, &message.data, self.context.now()) {
            Ok(id) => {
                inform(&self.context.addresses.beacon, Class::Search, beacon::Msg::Heard { author, id });
                gossipsub::MessageAcceptance::Accept
            }
            Err(error) => {
                debug!(%author, %error, "a beacon is not heard");
                match error.is_authors_fault() {
                    true => gossipsub::MessageAcceptance::Reject,
                    false => gossipsub::MessageAcceptance::Ignore,
                }
            }
        }
    }

    fn take_word(&mut self, message: &gossipsub::Message) -> gossipsub::MessageAcceptance {
        let Some(author) = message.source else { return gossipsub::MessageAcceptance::Reject };
        match self.listener.take(author, &message.data, self.context.now()) {
            Ok(heard) => {
                inform(&self.context.addresses.presence, Class::Control, presence::Msg::Heard(heard));
                gossipsub::MessageAcceptance::Accept
            }
            Err(error) => {
                debug!(%author, %error, "a word about presence is not heard");
                match error.is_authors_fault() {
                    true => gossipsub::MessageAcceptance::Reject,
                    false => gossipsub::MessageAcceptance::Ignore,
                }
            }
        }
    }

    /// Gossip goes to whoever subscribes. One that subscribes to what its hello does not list contradicts itself, and
    /// gossipsub knows no way to leave a single peer out: it is let go.
    fn on_subscribed(&mut self, peer: PeerId, topic: gossipsub::TopicHash) {
        // Nothing at all was heard of it before its hello. Gone again, it needs no letting go.
        let Some(connection) = self.greeted(&peer) else { return };
        if self.is_listed(connection, topic.as_str()) {
            return;
        }
        let cause = format!("it subscribed to {topic}, which its hello does not list");
        let complaint = health::Msg::Complained { about: peer, protocol: Protocol::Hello, cause };
        inform(&self.context.addresses.health, Class::History, complaint);
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    // Everything else that happens.

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(connection_id, peer_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, .. } => {
                self.on_closed(connection_id, peer_id, num_established);
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => self.on_dial_failed(peer_id, &error),
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                match &error {
                    ListenError::Denied { .. } => self.context.stats.connections_denied.inc(),
                    _ => self.context.stats.handshakes_failed.inc(),
                };
                debug!(from = %send_back_addr, %error, "handshake failed");
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                info!(%address, "listening");
                self.tell_listening();
            }
            SwarmEvent::ExpiredListenAddr { .. } => self.tell_listening(),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                warn!(?addresses, ?reason, "listener closed");
                self.tell_listening();
            }
            _ => {}
        }
    }

    /// The peer book began a life, and with it forgot where we listen and who is here.
    fn tell_peers(&self) {
        self.tell_listening();
        for connection in self.connections.values() {
            let Some(greeted) = connection.greeted.clone() else { continue };
            let (peer, remote, is_dialer) = (connection.peer, connection.remote.clone(), connection.is_dialer);
            let met = peers::Msg::Met { peer, greeted, remote, is_dialer };
            inform(&self.context.addresses.peers, Class::Control, met);
        }
    }

    fn tell_listening(&self) {
        let addrs = self.swarm.listeners().cloned().collect();
        inform(&self.context.addresses.peers, Class::Control, peers::Msg::Listening { addrs });
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Ping(ping::Event { peer, connection, result }) => match result {
                Ok(round_trip) => self.on_answered(connection, round_trip),
                Err(failure) => self.on_unanswered(connection, peer, &failure),
            },
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Identify(identify::Event::Received { connection_id, peer_id, info }) => {
                self.on_identified(connection_id, peer_id, &info.listen_addrs);
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => self.on_discovered(found),
            _ => {}
        }
    }

    /// Whoever is in the local network can name anybody, and as many as it likes: it is told as hearsay, one by one so that
    /// none is beyond what is taken of one answer, and is the first to be missed under load.
    fn on_discovered(&self, found: Vec<(PeerId, Multiaddr)>) {
        for (peer, addr) in found {
            let found = vec![AddrInfo { id: peer, addrs: vec![addr::split_peer(&addr).0] }];
            inform(&self.context.addresses.pool, Class::History, pool::Msg::Local { found });
        }
    }

    /// A ping is 32 random bytes: whoever answers late looks far, and nobody can answer early.
    fn on_answered(&mut self, connection: ConnectionId, round_trip: Duration) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.round_trip = Some(round_trip);
        }
    }

    /// The second ping in a row came to nothing: whatever TCP says of the connection, nobody is at its other end. It would
    /// stay open for as long as gossip wants it, or until TCP gives up after a quarter of an hour.
    fn on_unanswered(&mut self, connection: ConnectionId, peer: PeerId, failure: &ping::Failure) {
        // One that does not know pings is there.
        if !matches!(failure, ping::Failure::Unsupported) {
            debug!(%peer, %failure, "silent, its connection is closed");
            self.swarm.close_connection(connection);
        }
    }

    fn on_identified(&mut self, connection: ConnectionId, peer: PeerId, addrs: &[Multiaddr]) {
        let addrs = addr::hearsay(&peer, addrs, &self.context.settings.network.rule());
        let told = peers::Msg::Identified { peer, addrs: addrs.clone() };
        inform(&self.context.addresses.peers, Class::Control, told);
        let Some(connection) = self.connections.get_mut(&connection) else { return };
        connection.listens.clone_from(&addrs);
        if connection.greeted.as_ref().is_some_and(is_in_dht) {
            let remote = connection.remote.clone();
            self.enter_table(peer, &remote, addrs);
        }
    }

    /// Only indexers that said hello come here, and no more of one subnet than its places.
    fn enter_table(&mut self, peer: PeerId, remote: &Multiaddr, addrs: Vec<Multiaddr>) {
        if !self.has_place(peer, remote) {
            debug!(%peer, "its subnet has all its places in the routing table");
            return;
        }
        for addr in addrs {
            self.swarm.behaviour_mut().kad.add_address(&peer, addr);
        }
    }

    /// A peer counts for where its connection comes from, which it cannot make up. Local networks are one subnet by rule.
    fn has_place(&mut self, peer: PeerId, remote: &Multiaddr) -> bool {
        let network = &self.context.settings.network;
        let (true, Some(ip)) = (network.profile.is_diverse(), addr::ip_of(remote)) else { return true };
        if ip.is_loopback() || network.private_ranges.iter().any(|range| range.contains(ip)) {
            return true;
        }
        let connected: HashMap<PeerId, Subnet> = self
            .connections
            .values()
            .filter(|connection| connection.greeted.as_ref().is_some_and(|greeted| greeted.hello.role.indexer))
            .filter_map(|connection| Some((connection.peer, Subnet::of_addr(&connection.remote)?)))
            .collect();
        let distance = kad::KBucketKey::from(self.context.own.peer_id).distance(&kad::KBucketKey::from(peer));
        let mut others = Vec::new();
        for bucket in self.swarm.behaviour_mut().kad.kbuckets() {
            let is_same_bucket = bucket.contains(&distance);
            for entry in bucket.iter() {
                let other = *entry.node.key.preimage();
                let subnet = connected.get(&other).copied().or_else(|| Subnet::of_addr(entry.node.value.first()));
                if let Some(subnet) = subnet.filter(|_| other != peer) {
                    others.push(Place { subnet, is_same_bucket });
                }
            }
        }
        table::has_place(Subnet::of(ip), others)
    }

    /// The routing table by how many leading bits ids have in common with ours. Kademlia bounds it: 256 bins of 20 peers.
    fn bins(&mut self) -> Vec<BinView> {
        let connected: HashSet<PeerId> = self.connections.values().map(|connection| connection.peer).collect();
        let bins = self.swarm.behaviour_mut().kad.kbuckets().filter_map(|bucket| {
            // The distance of a bin begins with as many noughts as its ids have bits in common with ours.
            let common = ID_BITS.checked_sub(1 + bucket.range().1.ilog2()?)?;
            let peer = |peer_id: PeerId, addrs: Vec<Multiaddr>| TablePeerView {
                peer_id,
                name: String::new(),
                connected: connected.contains(&peer_id),
                addrs,
            };
            let peers =
                bucket.iter().map(|entry| peer(*entry.node.key.preimage(), entry.node.value.iter().cloned().collect()));
            Some(BinView { common, peers: peers.collect() })
        });
        let mut bins: Vec<BinView> = bins.filter(|bin| !bin.peers.is_empty()).collect();
        bins.sort_by_key(|bin| bin.common);
        bins
    }
}

/// It serves the DHT, as its hello said.
fn is_in_dht(greeted: &Greeted) -> bool {
    greeted.hello.role.indexer && hello::lists(&greeted.hello, wire::KADEMLIA_PROTOCOL)
}

/// What is left of a value without what revoked keys signed.
fn unrevoked(context: &Context, value: Valid) -> Option<Valid> {
    value.without(|owner| context.refuses(owner))
}

/// A value as Kademlia holds and sends it.
fn record(key: &dht::Key, value: &Valid, now: Now) -> kad::Record {
    kad::Record {
        key: kad::RecordKey::new(&key.to_bytes()),
        value: value.to_bytes(),
        publisher: None,
        expires: Some(Instant::now() + life(value, now.wall)),
    }
}

/// Each address once with what went wrong there; libp2p names one with and without its peer, and puts line feeds in.
fn in_words(error: &DialError) -> String {
    let DialError::Transport(failed) = error else { return error.to_string() };
    let words: BTreeSet<String> =
        failed.iter().map(|(addr, error)| format!("{}: {}", addr::split_peer(addr).0, innermost(error))).collect();
    words.into_iter().collect::<Vec<_>>().join("; ")
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    let words = error.to_string();
    let last = words.lines().last().unwrap_or_default();
    last.trim_start_matches([' ', '-']).to_owned()
}
