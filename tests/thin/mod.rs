//! A node cut down to what the network sees of it: a key, connections, hello, heartbeats, records, look-ups, searches.
//!
//! It has no pool, no score, no database and no actors, so that a thousand fit into one process and cost it little beside
//! the member that they are pointed at. It never retries: what it meets is told to whoever drives it.

#![allow(dead_code, reason = "each of the programs that share this file uses a part of it")]

use std::{
    collections::HashMap,
    io,
    net::Ipv4Addr,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use actors::swarm::{
    streams::{Accept, Inbound, Io, IoError, Open, OpenError, Patience, Settings, Streams},
    transport,
};
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Pending},
};
use jiff::Timestamp;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{self as sockets, Boxed, ListenerId, TransportError, TransportEvent},
    },
    identify, kad, multiaddr,
    swarm::{
        Config, ConnectionId, DialError, NetworkBehaviour, SwarmEvent,
        behaviour::toggle::Toggle,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp,
};
use protocol::{
    dht::{self, NameClaim, PidValue},
    hello,
    identity::Keys,
    record::{PeerRecord, next_seq},
    signed::{SignedError, Verified},
    trace::Traceparent,
    wire::{
        Answer, DhtValues, GetResponse, GetValue, Heartbeat, HeartbeatResponse, Hello, KADEMLIA_PROTOCOL, Protocol,
        Refused, Role, SearchHit, SearchPeerRequest, SearchPeerResult, VERSION,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::{
    net::TcpSocket,
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

/// For the other side to agree to a stream, to answer, to take a value.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A thin node does not close what nobody uses: the other side may.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// Orders that may wait for the swarm.
const ORDERS_MAX: usize = 64;

/// Why something that a thin node did had no success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The key does not fit the transport.
    #[error("no transport: {0}")]
    Transport(#[from] transport::BuildError),
    /// No connection.
    #[error("cannot dial {to}: {cause}")]
    Dial {
        /// Where to.
        to: Multiaddr,
        /// What libp2p says.
        cause: Box<DialError>,
    },
    /// The node's swarm is gone.
    #[error("the thin node was stopped")]
    Stopped,
    /// No stream.
    #[error("no stream for {}: {cause}", protocol.id())]
    Open {
        /// For what.
        protocol: Protocol,
        /// Why not.
        cause: OpenError,
    },
    /// No value.
    #[error("{}: {cause}", protocol.id())]
    Io {
        /// On which stream.
        protocol: Protocol,
        /// What happened to it.
        cause: IoError,
    },
    /// The answer is none.
    #[error("{}: got an answer that cannot be read: {cause}", protocol.id())]
    Unreadable {
        /// On which stream.
        protocol: Protocol,
        /// Where it is wrong.
        cause: serde_json::Error,
    },
    /// The answer is no.
    #[error("{}: refused as {:?}: {}", protocol.id(), refused.refused, refused.detail)]
    Refused {
        /// What was asked.
        protocol: Protocol,
        /// The answer.
        refused: Box<Refused>,
    },
    /// An answer to another question.
    #[error("got the answer to beat {got}, expected {expected}")]
    OtherSeq {
        /// The answer's.
        got: u64,
        /// The question's.
        expected: u64,
    },
    /// A hit or a look-up brought a record that is not valid.
    #[error("got a record that is not valid: {0}")]
    Record(#[from] SignedError),
}

impl Error {
    /// The refusal, if it is one.
    pub(crate) fn refusal(&self) -> Option<&Refused> {
        match self {
            Self::Refused { refused, .. } => Some(refused),
            _ => None,
        }
    }
}

/// The network that thin nodes belong to.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// Its pre-shared key; none in an open network.
    pub(crate) key: Option<[u8; 32]>,
    /// Its id.
    pub(crate) id: String,
}

/// TCP that dials from one address of this machine, and listens nowhere.
struct DialsFrom(Ipv4Addr);

impl Transport for DialsFrom {
    type Output = tcp::tokio::TcpStream;
    type Error = io::Error;
    type ListenerUpgrade = Pending<io::Result<Self::Output>>;
    type Dial = BoxFuture<'static, io::Result<Self::Output>>;

    fn listen_on(&mut self, _: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(addr))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, addr: Multiaddr, _: sockets::DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let mut parts = addr.iter();
        let (Some(multiaddr::Protocol::Ip4(ip)), Some(multiaddr::Protocol::Tcp(port))) = (parts.next(), parts.next())
        else {
            return Err(TransportError::MultiaddrNotSupported(addr));
        };
        let from = self.0;
        let connect = async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind((from, 0).into())?;
            let stream = socket.connect((ip, port).into()).await?;
            stream.set_nodelay(true)?;
            Ok(tcp::tokio::TcpStream(stream))
        };
        let within = tokio::time::timeout(transport::CONNECT_WITHIN, connect);
        Ok(within.map(|connected| connected.map_err(io::Error::from).flatten()).boxed())
    }

    fn poll(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Poll::Pending
    }
}

/// A thin node. Dropped together with its links, it is gone without a word.
#[derive(Debug)]
pub(crate) struct Thin {
    /// Its key.
    pub(crate) keys: Keys,
    /// Its name.
    pub(crate) name: String,
    /// Its DID.
    pub(crate) did: String,
    /// The protocol version that its hello claims.
    pub(crate) version: String,
    /// What its hello claims to be.
    pub(crate) role: Role,
    /// When its process began, as it claims.
    pub(crate) born_at: Timestamp,
    network_id: String,
    orders: mpsc::Sender<Order>,
}

/// A connection on which hello succeeded.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Who is at the other end.
    pub(crate) peer: PeerId,
    /// What it said of itself.
    pub(crate) hello: Arc<Hello>,
    connection: ConnectionId,
    down: CancellationToken,
    orders: mpsc::Sender<Order>,
}

/// What a node sends to have its record taken: the record, and what its referent puts into the DHT beside it.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    record: Box<RawValue>,
    values: DhtValues,
}

/// A heartbeat stream, kept open.
#[derive(Debug)]
pub(crate) struct Beats {
    io: Io,
    question: Heartbeat,
}

/// A search that runs.
#[derive(Debug)]
pub(crate) struct Search {
    io: Io,
}

#[derive(Debug)]
enum Order {
    Dial { to: Multiaddr, reply: oneshot::Sender<Result<Up, Error>> },
    Open(Open),
    Admit { connection: ConnectionId, reply: oneshot::Sender<bool> },
    Put { to: PeerId, record: kad::Record, reply: oneshot::Sender<bool> },
    Close(ConnectionId),
}

#[derive(Debug)]
struct Up {
    peer: PeerId,
    connection: ConnectionId,
    down: CancellationToken,
}

impl Thin {
    /// A node with this key and name, connected to nobody yet.
    ///
    /// # Errors
    /// When the key does not fit the transport.
    pub(crate) fn start(keys: Keys, name: &str, network: &Network) -> Result<Self, Error> {
        Ok(Self::over(transport::build(&keys.to_libp2p(), network.key)?, keys, name, network, Vec::new()))
    }

    /// The same that takes these protocols from those to whom it connects: they come as streams to be answered.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub(crate) fn start_serving(
        keys: Keys,
        name: &str,
        network: &Network,
        protocols: &[Protocol],
    ) -> Result<(Self, mpsc::Receiver<Inbound>), Error> {
        let (to, inbound) = mpsc::channel(ORDERS_MAX);
        let transport = transport::build(&keys.to_libp2p(), network.key)?;
        let accepts = protocols.iter().map(|protocol| Accept::new(*protocol, to.clone())).collect();
        let mut thin = Self::over(transport, keys, name, network, accepts);
        thin.role = Role { node: true, indexer: true };
        Ok((thin, inbound))
    }

    /// A plain one, on this address of the machine: to whoever counts addresses and subnets it is a host of its own.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub(crate) fn start_at(host: Ipv4Addr, keys: Keys, name: &str, network: &Network) -> Result<Self, Error> {
        let transport = transport::over(DialsFrom(host), &keys.to_libp2p(), network.key)?;
        Ok(Self::over(transport, keys, name, network, Vec::new()))
    }

    fn over(
        transport: Boxed<(PeerId, StreamMuxerBox)>,
        keys: Keys,
        name: &str,
        network: &Network,
        accepts: Vec<Accept>,
    ) -> Self {
        let identity = keys.to_libp2p();
        let config = Config::with_tokio_executor().with_idle_connection_timeout(IDLE_MAX);
        // Who is to be taken for an indexer says where it listens; it is spoken to on the connection that it made.
        let is_serving = !accepts.is_empty();
        let identify = is_serving
            .then(|| identify::Behaviour::new(identify::Config::new(format!("muster/{VERSION}"), identity.public())));
        let kad = is_serving.then(|| dht_client(keys.peer_id()));
        let behaviour = Behaviour {
            streams: Streams::new(Settings::default(), accepts),
            identify: identify.into(),
            kad: kad.into(),
        };
        let mut swarm = Swarm::new(transport, behaviour, keys.peer_id(), config);
        if is_serving {
            swarm.add_external_address("/ip4/127.0.0.1/tcp/4001".parse().expect("an address"));
        }
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        tokio::spawn(drive(swarm, inbox));
        Self {
            did: keys.did().to_string(),
            name: name.to_owned(),
            version: VERSION.to_owned(),
            role: Role { node: true, indexer: false },
            network_id: network.id.clone(),
            born_at: Timestamp::now(),
            keys,
            orders,
        }
    }

    /// Connects to a member and says hello.
    ///
    /// # Errors
    /// When there is no connection, or hello is refused.
    pub(crate) async fn connect(&self, to: &Multiaddr) -> Result<Link, Error> {
        let up = self.order(|reply| Order::Dial { to: to.clone(), reply }).await??;
        let greeted = self.greet(&up).await;
        if greeted.is_err() {
            // As a real member does: who is turned away does not hold the line.
            drop(self.orders.send(Order::Close(up.connection)).await);
        }
        let hello = greeted?;
        self.order(|reply| Order::Admit { connection: up.connection, reply }).await?;
        Ok(Link {
            peer: up.peer,
            hello: Arc::new(hello),
            connection: up.connection,
            down: up.down,
            orders: self.orders.clone(),
        })
    }

    /// Puts a value into the other side's part of the DHT; whether it says that it took it.
    ///
    /// # Errors
    /// When the node was stopped. One that serves nothing has no DHT, and puts nothing.
    pub(crate) async fn put(&self, link: &Link, key: &dht::Key, value: &str) -> Result<bool, Error> {
        let record = kad::Record::new(key.to_bytes(), value.as_bytes().to_vec());
        self.order(|reply| Order::Put { to: link.peer, record, reply }).await
    }

    async fn greet(&self, up: &Up) -> Result<Hello, Error> {
        let mut io = open(&self.orders, &up.peer, up.connection, Protocol::Hello).await?;
        let hello = ask(&mut io, &self.hello()).await?;
        io.close().await;
        Ok(hello)
    }

    /// Signs the record and the values beside it, for so long from now.
    pub(crate) fn sign(&self, life: Duration) -> Signed {
        self.sign_until(Timestamp::now() + life)
    }

    /// The same, until then.
    pub(crate) fn sign_until(&self, expiry_date: Timestamp) -> Signed {
        let (did, pub_key, peer_id) = (self.did.clone(), self.keys.pub_key().to_owned(), self.keys.peer_id());
        let seq = next_seq(0, Timestamp::now());
        let record = PeerRecord {
            name: self.name.clone(),
            did: did.clone(),
            pub_key: pub_key.clone(),
            peer_id,
            api_url: format!("https://{}.example.org/api", self.name),
            stream_address: format!("/ip4/127.0.0.1/tcp/4001/p2p/{peer_id}"),
            addrs: vec!["/ip4/127.0.0.1/tcp/4001".parse().expect("an address")],
            nats_address: String::new(),
            wallet_address: String::new(),
            capabilities: capabilities(self.role),
            born_at: self.born_at,
            expiry_date,
            seq,
        };
        let pid = PidValue { did: did.clone(), peer_id, seq, expiry_date, pub_key: pub_key.clone() };
        let name = NameClaim { name: self.name.clone(), did, peer_id, seq, expiry_date, pub_key };
        Signed {
            record: Verified::sign(&record, &self.keys).to_raw(),
            values: DhtValues {
                pid: Verified::sign(&pid, &self.keys).to_raw(),
                name: Verified::sign(&name, &self.keys).to_raw(),
            },
        }
    }

    /// Opens the heartbeat stream of a link.
    ///
    /// # Errors
    /// When the other side does not agree.
    pub(crate) async fn beats(&self, link: &Link) -> Result<Beats, Error> {
        let question = Heartbeat {
            seq: 0,
            name: self.name.clone(),
            did: self.did.clone(),
            peer_id: self.keys.peer_id(),
            timestamp: 0,
            need: 0,
            record: None,
            values: None,
            challenges: Vec::new(),
            challenge_did: None,
            referent: false,
            probe: false,
            presence: None,
            traceparent: Traceparent::Absent,
        };
        Ok(Beats { io: link.open(Protocol::Heartbeat).await?, question })
    }

    fn hello(&self) -> Hello {
        Hello {
            version: self.version.clone(),
            network_id: self.network_id.clone(),
            agent: "thin/1".to_owned(),
            role: self.role,
            light: true,
            capabilities: capabilities(self.role),
            did: self.did.clone(),
            network_keys: Vec::new(),
            born_at: self.born_at,
            time: Timestamp::now(),
        }
    }

    async fn order<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(make(reply)).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)
    }
}

fn capabilities(role: Role) -> Vec<String> {
    hello::capabilities(role).into_iter().map(str::to_owned).collect()
}

impl Link {
    /// Opens a stream on this connection.
    ///
    /// # Errors
    /// When the other side does not agree, or the connection is gone.
    pub(crate) async fn open(&self, protocol: Protocol) -> Result<Io, Error> {
        open(&self.orders, &self.peer, self.connection, protocol).await
    }

    /// Asks one question on a stream of its own.
    ///
    /// # Errors
    /// When there is no answer, or the answer is a refusal.
    pub(crate) async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        protocol: Protocol,
        question: &Q,
    ) -> Result<A, Error> {
        let mut io = self.open(protocol).await?;
        let answer = ask(&mut io, question).await;
        io.close().await;
        answer
    }

    /// Looks up the record of a DID; every record that comes back is verified. None when there is none.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); also when a record is not valid.
    pub(crate) async fn get(&self, did: &str) -> Result<Option<Verified<PeerRecord>>, Error> {
        let question = GetValue { key: Some(did.to_owned()), ..GetValue::default() };
        let answer: GetResponse = self.ask(Protocol::Get, &question).await?;
        let records = answer.records.values().map(|text| Verified::<PeerRecord>::open(text.get(), Timestamp::now()));
        Ok(records.collect::<Result<Vec<_>, _>>()?.into_iter().find(|record| record.did == did))
    }

    /// Begins a search for a part of a name.
    ///
    /// # Errors
    /// When there is no stream.
    pub(crate) async fn search(&self, query_id: String, part: &str) -> Result<Search, Error> {
        let mut io = self.open(Protocol::Search).await?;
        let request = SearchPeerRequest {
            query_id,
            peer_id: None,
            did: None,
            name: Some(part.to_owned()),
            traceparent: Traceparent::Absent,
        };
        let written = io.write(&request, ANSWER_WITHIN).await;
        written.map_err(|cause| Error::Io { protocol: Protocol::Search, cause })?;
        Ok(Search { io })
    }

    /// Waits until the connection is gone.
    pub(crate) async fn ended(&self) {
        self.down.cancelled().await;
    }

    /// Closes the connection and waits until it is gone.
    pub(crate) async fn close(self) {
        // A swarm that is gone has closed it, too.
        if self.orders.send(Order::Close(self.connection)).await.is_ok() {
            self.down.cancelled().await;
        }
    }
}

impl Signed {
    /// The record as it was signed.
    pub(crate) fn record(&self) -> Box<RawValue> {
        self.record.clone()
    }

    /// Its text.
    pub(crate) fn text(&self) -> &str {
        self.record.get()
    }
}

impl Beats {
    /// The heartbeat that is sent, to be made into another.
    pub(crate) fn question(&self) -> Heartbeat {
        self.question.clone()
    }

    /// Asks with a plain heartbeat and reads its answer.
    ///
    /// # Errors
    /// When there is no answer, it is a refusal, or one to another question.
    pub(crate) async fn beat(&mut self) -> Result<HeartbeatResponse, Error> {
        self.question.seq += 1;
        self.question.timestamp = Timestamp::now().as_second();
        let answer: HeartbeatResponse = ask(&mut self.io, &self.question).await?;
        if answer.seq != self.question.seq {
            return Err(Error::OtherSeq { got: answer.seq, expected: self.question.seq });
        }
        Ok(answer)
    }

    /// The same with the record; to the referent with the values for the DHT, too.
    ///
    /// # Errors
    /// As [`beat`](Self::beat).
    pub(crate) async fn beat_with(&mut self, signed: &Signed, referent: bool) -> Result<HeartbeatResponse, Error> {
        self.question.referent = referent;
        self.question.record = Some(signed.record.clone());
        self.question.values = referent.then(|| signed.values.clone());
        let answer = self.beat().await;
        (self.question.record, self.question.values) = (None, None);
        answer
    }

    /// The same as [`beat`](Self::beat) with a presence token, if there is one.
    ///
    /// # Errors
    /// As [`beat`](Self::beat).
    pub(crate) async fn present(&mut self, token: Option<Box<RawValue>>) -> Result<HeartbeatResponse, Error> {
        self.question.presence = token;
        let answer = self.beat().await;
        self.question.presence = None;
        answer
    }

    /// Sends a plain heartbeat and takes whatever value comes back for its answer: for a server that echoes.
    ///
    /// # Errors
    /// When none comes back.
    pub(crate) async fn echo(&mut self) -> Result<usize, Error> {
        self.question.seq += 1;
        self.question.timestamp = Timestamp::now().as_second();
        let answer = self.io.ask(&self.question, ANSWER_WITHIN, |value| value.bytes.len()).await;
        answer.map_err(|cause| Error::Io { protocol: Protocol::Heartbeat, cause })
    }

    /// Bytes of a plain heartbeat.
    pub(crate) fn question_bytes(&self) -> usize {
        serde_json::to_vec(&self.question).map_or(0, |bytes| bytes.len())
    }
}

impl Search {
    /// The next value; none when the other side ended the search.
    ///
    /// # Errors
    /// When nothing comes in time, it is a refusal, or a hit's record is not valid.
    pub(crate) async fn next(&mut self, within: Duration) -> Result<Option<SearchPeerResult>, Error> {
        let value = self.io.read(Patience::within(within), |value| read(Protocol::Search, value.bytes)).await;
        let value = value.map_err(|cause| Error::Io { protocol: Protocol::Search, cause })?;
        let result: Option<SearchPeerResult> = value.transpose()?;
        let Some(result) = result else { return Ok(None) };
        for text in result.records.iter().filter_map(|hit: &SearchHit| hit.record.as_ref()) {
            Verified::<PeerRecord>::open(text.get(), Timestamp::now())?;
        }
        Ok(Some(result))
    }

    /// Ends the search.
    pub(crate) async fn close(self) {
        self.io.close().await;
    }
}

async fn open(
    orders: &mpsc::Sender<Order>,
    peer: &PeerId,
    connection: ConnectionId,
    protocol: Protocol,
) -> Result<Io, Error> {
    let (reply, answer) = oneshot::channel();
    let order = Open { peer: *peer, connection: Some(connection), protocol, within: ANSWER_WITHIN, reply };
    orders.send(Order::Open(order)).await.map_err(|_| Error::Stopped)?;
    answer.await.map_err(|_| Error::Stopped)?.map_err(|cause| Error::Open { protocol, cause })
}

async fn ask<Q: Serialize, A: DeserializeOwned>(io: &mut Io, question: &Q) -> Result<A, Error> {
    let protocol = io.protocol();
    let answer = io.ask(question, ANSWER_WITHIN, |value| read(protocol, value.bytes)).await;
    answer.map_err(|cause| Error::Io { protocol, cause })?
}

fn read<A: DeserializeOwned>(protocol: Protocol, bytes: &[u8]) -> Result<A, Error> {
    match serde_json::from_slice(bytes).map_err(|cause| Error::Unreadable { protocol, cause })? {
        Answer::Given(answer) => Ok(answer),
        Answer::Refused(refused) => Err(Error::Refused { protocol, refused: Box::new(refused) }),
    }
}

/// Drives the swarm until nobody has orders for it any more.
async fn drive(mut swarm: Swarm<Behaviour>, mut orders: mpsc::Receiver<Order>) {
    let mut dials = HashMap::new();
    let mut downs: HashMap<ConnectionId, CancellationToken> = HashMap::new();
    let mut puts: HashMap<kad::QueryId, oneshot::Sender<bool>> = HashMap::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => break,
                Some(Order::Dial { to, reply }) => dial(&mut swarm, &mut dials, to, reply),
                Some(Order::Open(order)) => swarm.behaviour().streams.open(order),
                // Who has stopped waiting for the reply has no use for the link either.
                Some(Order::Admit { connection, reply }) => drop(reply.send(swarm.behaviour().streams.admit(connection))),
                Some(Order::Put { to, record, reply }) => {
                    let dht = swarm.behaviour_mut().kad.as_mut();
                    if let Some(dht) = dht {
                        puts.insert(dht.put_record_to(record, [to].into_iter(), kad::Quorum::One), reply);
                    }
                }
                Some(Order::Close(connection)) => swarm.behaviour_mut().streams.close(connection),
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                    let down = CancellationToken::new();
                    downs.insert(connection_id, down.clone());
                    if let Some((_, reply)) = dials.remove(&connection_id) {
                        drop(reply.send(Ok(Up { peer: peer_id, connection: connection_id, down })));
                    }
                }
                SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                    id, result: kad::QueryResult::PutRecord(put), ..
                })) => {
                    // Who has stopped waiting does not need to know.
                    puts.remove(&id).map(|reply| reply.send(put.is_ok()));
                }
                SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                    if let Some((to, reply)) = dials.remove(&connection_id) {
                        drop(reply.send(Err(Error::Dial { to, cause: Box::new(error) })));
                    }
                }
                SwarmEvent::ConnectionClosed { connection_id, .. } => {
                    if let Some(down) = downs.remove(&connection_id) {
                        down.cancel();
                    }
                }
                _ => {}
            },
        }
    }
    downs.into_values().for_each(|down| down.cancel());
}

/// What a thin node's swarm does.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Behaviour {
    streams: Streams,
    identify: Toggle<identify::Behaviour>,
    kad: Toggle<kad::Behaviour<kad::store::MemoryStore>>,
}

/// It puts, and holds nothing for others.
fn dht_client(own: PeerId) -> kad::Behaviour<kad::store::MemoryStore> {
    let config = kad::Config::new(StreamProtocol::new(KADEMLIA_PROTOCOL));
    let mut kad = kad::Behaviour::with_config(own, kad::store::MemoryStore::new(own), config);
    kad.set_mode(Some(kad::Mode::Client));
    kad
}

type Dials = HashMap<ConnectionId, (Multiaddr, oneshot::Sender<Result<Up, Error>>)>;

fn dial(swarm: &mut Swarm<Behaviour>, dials: &mut Dials, to: Multiaddr, reply: oneshot::Sender<Result<Up, Error>>) {
    let peer = to.iter().find_map(|part| match part {
        libp2p::multiaddr::Protocol::P2p(peer) => Some(peer),
        _ => None,
    });
    let opts: DialOpts = match peer {
        Some(peer) => DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(vec![to.clone()]).build(),
        None => DialOpts::unknown_peer_id().address(to.clone()).build(),
    };
    let connection = opts.connection_id();
    match swarm.dial(opts) {
        Ok(()) => drop(dials.insert(connection, (to, reply))),
        Err(cause) => drop(reply.send(Err(Error::Dial { to, cause: Box::new(cause) }))),
    }
}
