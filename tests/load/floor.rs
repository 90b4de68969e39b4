//! What ours is measured beside: the same transport, the same streams, the same bytes, and nothing of muster behind them.
//!
//! This program runs itself once more as `--floor`. What it gets is parsed by plain serde into the type of the wire and
//! answered by a function that fills the answer's type; see [`Kind`] for what else it may be. Its hello admits everybody.

use std::{
    io::{BufRead, Write},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use actors::swarm::{
    streams::{Accept, Inbound, Io, Patience, Settings, Streams, Value},
    transport,
};
use futures::StreamExt;
use libp2p::{
    Multiaddr, StreamProtocol, Swarm, gossipsub, identify,
    identity::Keypair,
    kad, ping,
    swarm::{Config, ConnectionId, NetworkBehaviour, SwarmEvent},
};
use protocol::{
    Timestamp,
    identity::Keys,
    wire::{Heartbeat, HeartbeatResponse, Hello, KADEMLIA_PROTOCOL, Protocol, Role, TOPIC_SEARCH_PEER, VERSION},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::{mpsc, oneshot},
};

use crate::{
    broken::{Broken, Outcome, While, within},
    thin::Network,
};

/// For the process to listen.
const START_WITHIN: Duration = Duration::from_secs(10);

/// A node may be silent while others are measured.
const SILENCE_MAX: Duration = Duration::from_secs(3600);

/// For a node to take its answer.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// Streams that wait to be served.
const INBOX_MAX: usize = 1024;

/// How much of a server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Writes back what it read and parses nothing.
    Echo,
    /// Parses, fills, writes.
    Floor,
    /// The floor with identify, ping, Kademlia and GossipSub on its connections, as rust-libp2p has them.
    Stock,
}

/// What the floor is told, in one line on its input. When the input ends, it ends.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    key: Option<[u8; 32]>,
    network_id: String,
    kind: Kind,
    answer: HeartbeatResponse,
}

/// A running floor.
#[derive(Debug)]
pub(crate) struct Floor {
    /// Where it listens.
    pub(crate) addr: Multiaddr,
    /// Its process.
    pub(crate) pid: u32,
    _child: Child,
}

impl Floor {
    /// Starts it; its answers will be as long as `answer`.
    pub(crate) async fn start(network: &Network, kind: Kind, answer: HeartbeatResponse) -> Outcome<Self> {
        let plan = Plan { key: network.key, network_id: network.id.clone(), kind, answer };
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--floor")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .when("starting the floor")?;
        let line = format!("{}\n", serde_json::to_string(&plan)?);
        let input = child.stdin.as_mut().ok_or_else(|| Broken::new("the floor has no input"))?;
        tokio::io::AsyncWriteExt::write_all(input, line.as_bytes()).await?;
        let output = child.stdout.take().ok_or_else(|| Broken::new("the floor has no output"))?;
        let addr = within(START_WITHIN, "waiting for the floor to listen", async {
            let line = BufReader::new(output).lines().next_line().await?;
            Ok(line.ok_or_else(|| Broken::new("it ended"))?.parse::<Multiaddr>()?)
        });
        let addr = addr.await?;
        let pid = child.id().ok_or_else(|| Broken::new("the floor ended"))?;
        Ok(Self { addr, pid, _child: child })
    }
}

/// An answer of usual size, for a floor that has no indexer to resemble.
pub(crate) fn usual_answer() -> HeartbeatResponse {
    HeartbeatResponse {
        seq: 0,
        record_seq: Some(1_767_323_045_000),
        served_us: 0,
        fill_rate: 0.1,
        peer_count: 1_000,
        max_nodes: 10_000,
        born_at: Timestamp::now(),
        challenges: Vec::new(),
        dht_found: None,
        dht_payload: None,
        witnesses: Vec::new(),
        suggestions: Vec::new(),
        suggest_migrate: false,
    }
}

/// The other process: serves until its input ends.
pub(crate) fn run() -> Outcome<()> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let plan: Plan = serde_json::from_str(&line).when("reading the floor's plan")?;
    // A thread of its own, since a read of the input cannot be cancelled.
    std::thread::spawn(|| {
        // Whatever the read gives: the parent is gone.
        drop(std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(plan))
}

type Admit = (ConnectionId, oneshot::Sender<()>);

#[derive(NetworkBehaviour)]
struct Stock {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    kad: kad::Behaviour<kad::store::MemoryStore>,
    gossip: gossipsub::Behaviour,
    streams: Streams,
}

impl Stock {
    fn new(identity: &Keypair, streams: Streams) -> Outcome<Self> {
        let peer = identity.public().to_peer_id();
        let protocol = StreamProtocol::new(KADEMLIA_PROTOCOL);
        let mut kad = kad::Behaviour::with_config(peer, kad::store::MemoryStore::new(peer), kad::Config::new(protocol));
        kad.set_mode(Some(kad::Mode::Server));
        let author = gossipsub::MessageAuthenticity::Signed(identity.clone());
        let gossip = gossipsub::Behaviour::new(author, gossipsub::Config::default());
        let mut gossip = gossip.map_err(|words| Broken::new(format!("gossip: {words}")))?;
        gossip.subscribe(&gossipsub::IdentTopic::new(TOPIC_SEARCH_PEER))?;
        Ok(Self {
            identify: identify::Behaviour::new(identify::Config::new("floor/1".to_owned(), identity.public())),
            ping: ping::Behaviour::default(),
            kad,
            gossip,
            streams,
        })
    }
}

async fn serve(plan: Plan) -> Outcome<()> {
    let identity = Keys::generate(&mut rand::rng()).to_libp2p();
    let (to, inbox) = mpsc::channel(INBOX_MAX);
    let accepts = [Protocol::Hello, Protocol::Heartbeat].map(|protocol| Accept::new(protocol, to.clone()));
    let streams = Streams::new(Settings::default(), accepts);
    match plan.kind {
        Kind::Stock => {
            let stock = Stock::new(&identity, streams)?;
            drive(&identity, stock, |stock| &stock.streams, inbox, plan).await
        }
        Kind::Echo | Kind::Floor => drive(&identity, streams, |streams| streams, inbox, plan).await,
    }
}

async fn drive<B: NetworkBehaviour>(
    identity: &Keypair,
    behaviour: B,
    streams: impl Fn(&B) -> &Streams,
    mut inbox: mpsc::Receiver<Inbound>,
    plan: Plan,
) -> Outcome<()> {
    let transport = transport::build(identity, plan.key)?;
    let config = Config::with_tokio_executor().with_idle_connection_timeout(SILENCE_MAX);
    let mut swarm = Swarm::new(transport, behaviour, identity.public().to_peer_id(), config);
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let (admit, mut admits) = mpsc::channel::<Admit>(INBOX_MAX);
    let plan = Arc::new(plan);
    loop {
        tokio::select! {
            Some(inbound) = inbox.recv() => drop(tokio::spawn(answer(inbound, Arc::clone(&plan), admit.clone()))),
            Some((connection, done)) = admits.recv() => {
                streams(swarm.behaviour()).admit(connection);
                let _ = done.send(());
            }
            event = swarm.select_next_some() => if let SwarmEvent::NewListenAddr { address, .. } = event {
                let mut out = std::io::stdout().lock();
                writeln!(out, "{address}")?;
                out.flush()?;
            },
        }
    }
}

/// A stream that fails ends; its node says what it missed.
async fn answer(inbound: Inbound, plan: Arc<Plan>, admit: mpsc::Sender<Admit>) -> Option<()> {
    let Inbound { connection, protocol, stream, .. } = inbound;
    match protocol {
        Protocol::Hello => greet(stream, connection, &plan, admit).await,
        _ if plan.kind == Kind::Echo => echo(stream).await,
        _ => beats(stream, &plan.answer).await,
    }
}

async fn greet(mut io: Io, connection: ConnectionId, plan: &Plan, admit: mpsc::Sender<Admit>) -> Option<()> {
    let theirs = io.read(Patience::OPENING, |value| serde_json::from_slice::<Hello>(value.bytes)).await;
    let theirs = theirs.ok()??.ok()?;
    let (done, admitted) = oneshot::channel();
    admit.send((connection, done)).await.ok()?;
    admitted.await.ok()?;
    let hello = Hello {
        version: VERSION.to_owned(),
        network_id: plan.network_id.clone(),
        agent: "floor/1".to_owned(),
        role: Role { node: false, indexer: true },
        did: String::new(),
        time: Timestamp::now(),
        ..theirs
    };
    io.write(&hello, WRITE_WITHIN).await.ok()?;
    io.close().await;
    Some(())
}

async fn echo(mut io: Io) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let read = io.read(Patience::idle(SILENCE_MAX), |value| {
            bytes.clear();
            bytes.extend_from_slice(value.bytes);
        });
        read.await.ok()??;
        io.write_text(&bytes, WRITE_WITHIN).await.ok()?;
    }
}

async fn beats(mut io: Io, answer: &HeartbeatResponse) -> Option<()> {
    loop {
        let read = |value: Value<'_>| serde_json::from_slice::<Heartbeat>(value.bytes);
        let heartbeat = io.read(Patience::idle(SILENCE_MAX), read).await.ok()??.ok()?;
        let read_at = Instant::now();
        let mut response = fill(&heartbeat, answer);
        response.served_us = u64::try_from(read_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        io.write(&response, WRITE_WITHIN).await.ok()?;
    }
}

fn fill(heartbeat: &Heartbeat, answer: &HeartbeatResponse) -> HeartbeatResponse {
    HeartbeatResponse { seq: heartbeat.seq, ..answer.clone() }
}
