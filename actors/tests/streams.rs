//! Streams, doors and transport between real swarms over loopback.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    future::{Future, poll_fn},
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};

use actors::swarm::{
    doors::{self, Denial, Denials, Doors},
    streams::{
        Accept, Bytes, Counters, Inbound, Io, IoError, Open, OpenError, Patience, RefusalCause, Settings, Streams,
    },
    transport,
};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt, stream};
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
        transport::{DialOpts as Dial, PortUse},
        upgrade::Version,
    },
    identity,
    swarm::{ConnectionId, DialError, ListenError, NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
};
use multistream_select::dialer_select_proto;
use protocol::{
    bandwidth::{End, PAYLOAD_BYTES},
    time::Mono,
    wire::{Answer, Protocol, RefusalCode},
};
use serde_json::{Value as Json, json};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// Longer than anything here may take; only a failing test waits so long.
const SOON: Duration = Duration::from_secs(30);

#[derive(NetworkBehaviour)]
struct Both {
    doors: Doors,
    streams: Streams,
}

type Do = Box<dyn FnOnce(&mut Swarm<Both>) + Send>;

#[derive(Debug)]
enum Heard {
    Up(ConnectionId),
    Down(ConnectionId),
    DialFailed(Box<DialError>),
    ListenFailed(Box<ListenError>),
}

struct Member {
    peer: PeerId,
    addr: Multiaddr,
    to: mpsc::UnboundedSender<Do>,
    heard: mpsc::UnboundedReceiver<Heard>,
    inbound: mpsc::Receiver<Inbound>,
    counters: Arc<Counters>,
    denials: Arc<Denials>,
    frozen: watch::Sender<bool>,
}

struct Plan {
    key: Option<[u8; 32]>,
    channel: usize,
    doors: doors::Settings,
    accepts: Vec<Protocol>,
    outbound: usize,
    freezable: bool,
    /// The doors' time stands still here.
    time: Option<Mono>,
    idle: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        let many = doors::Settings {
            half_open_per_address: 4_096,
            new_per_second_and_address: 100_000,
            ..doors::Settings::default()
        };
        let key = Some([7; 32]);
        Self {
            key,
            channel: 64,
            doors: many,
            accepts: Protocol::ALL.to_vec(),
            outbound: 32,
            freezable: false,
            time: None,
            idle: SOON,
        }
    }
}

impl Member {
    async fn start(plan: Plan) -> Self {
        let identity = identity::Keypair::generate_ed25519();
        let (to_channel, inbound) = mpsc::channel(plan.channel);
        let born = Instant::now();
        let behaviour = Both {
            doors: Doors::new(plan.doors, move || plan.time.unwrap_or(Mono::at(born.elapsed()))),
            streams: Streams::new(
                Settings { outbound_per_connection: plan.outbound, ..Settings::default() },
                plan.accepts.iter().map(|protocol| Accept::new(*protocol, to_channel.clone())),
            ),
        };
        let (counters, denials) = (behaviour.streams.counters(), behaviour.doors.denials());
        // Without an executor the connections stand still when the swarm does.
        let config = if plan.freezable {
            libp2p::swarm::Config::without_executor()
        } else {
            libp2p::swarm::Config::with_tokio_executor()
        };
        let config = config.with_idle_connection_timeout(plan.idle);
        let transport = transport::build(&identity, plan.key).unwrap();
        let mut swarm = Swarm::new(transport, behaviour, identity.public().to_peer_id(), config);
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let addr = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        let peer = *swarm.local_peer_id();
        // Unbounded: one test's orders and what it heard, a handful, and gone with it.
        let (to, orders) = mpsc::unbounded_channel();
        let (tell, heard) = mpsc::unbounded_channel();
        let (frozen, is_frozen) = watch::channel(false);
        tokio::spawn(drive(swarm, orders, tell, is_frozen));
        Self { peer, addr, to, heard, inbound, counters, denials, frozen }
    }

    async fn with<T: Send + 'static>(&self, act: impl FnOnce(&mut Swarm<Both>) -> T + Send + 'static) -> T {
        let (reply, answer) = oneshot::channel();
        let act: Do = Box::new(move |swarm| drop(reply.send(act(swarm))));
        self.to.send(act).unwrap_or_else(|_| panic!("the driver lives"));
        soon(answer).await.unwrap()
    }

    async fn dial(&self, addr: &Multiaddr) {
        let addr = addr.clone();
        // Each dial a connection of its own, as two that dial each other at once would have.
        self.with(move |swarm| swarm.dial(DialOpts::unknown_peer_id().address(addr).build()).unwrap()).await;
    }

    async fn up(&mut self) -> ConnectionId {
        match soon(self.heard.recv()).await.unwrap() {
            Heard::Up(connection) => connection,
            other => panic!("expected a connection, got {other:?}"),
        }
    }

    async fn down(&mut self) -> ConnectionId {
        match soon(self.heard.recv()).await.unwrap() {
            Heard::Down(connection) => connection,
            other => panic!("expected an end, got {other:?}"),
        }
    }

    async fn admit(&self, connection: ConnectionId) {
        assert!(self.with(move |swarm| swarm.behaviour().streams.admit(connection)).await);
    }

    async fn open(&self, peer: PeerId, protocol: Protocol) -> Result<Io, OpenError> {
        self.open_on(peer, None, protocol, SOON).await
    }

    async fn open_on(
        &self,
        peer: PeerId,
        connection: Option<ConnectionId>,
        protocol: Protocol,
        within: Duration,
    ) -> Result<Io, OpenError> {
        let (reply, answer) = oneshot::channel();
        let order = Open { peer, connection, protocol, within, reply };
        self.with(move |swarm| swarm.behaviour().streams.open(order)).await;
        soon(answer).await.unwrap()
    }

    async fn next(&mut self) -> Inbound {
        soon(self.inbound.recv()).await.unwrap()
    }

    async fn inbound(&self, protocol: Protocol) -> usize {
        self.with(move |swarm| swarm.behaviour().streams.inbound(protocol)).await
    }
}

async fn drive(
    mut swarm: Swarm<Both>,
    mut orders: mpsc::UnboundedReceiver<Do>,
    tell: mpsc::UnboundedSender<Heard>,
    mut frozen: watch::Receiver<bool>,
) {
    loop {
        if frozen.wait_for(|frozen| !frozen).await.is_err() {
            return;
        }
        let heard = tokio::select! {
            order = orders.recv() => {
                let Some(act) = order else { return };
                act(&mut swarm);
                continue;
            }
            _ = frozen.changed() => continue,
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { connection_id, .. } => Heard::Up(connection_id),
                SwarmEvent::ConnectionClosed { connection_id, .. } => Heard::Down(connection_id),
                SwarmEvent::OutgoingConnectionError { error, .. } => Heard::DialFailed(Box::new(error)),
                SwarmEvent::IncomingConnectionError { error, .. } => Heard::ListenFailed(Box::new(error)),
                _ => continue,
            },
        };
        if tell.send(heard).is_err() {
            return;
        }
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("it takes too long")
}

/// Waits for something that no channel announces.
async fn until(mut is_so: impl FnMut() -> bool) {
    soon(async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Two members, connected and admitted on both sides: the second dialled.
async fn pair(server: Plan, client: Plan) -> (Member, Member, ConnectionId, ConnectionId) {
    let (mut server, mut client) = (Member::start(server).await, Member::start(client).await);
    let (here, there) = connect(&mut server, &mut client).await;
    (server, client, here, there)
}

async fn connect(server: &mut Member, client: &mut Member) -> (ConnectionId, ConnectionId) {
    client.dial(&server.addr).await;
    let (here, there) = (server.up().await, client.up().await);
    server.admit(here).await;
    client.admit(there).await;
    (here, there)
}

/// Answers every value of the stream with itself, and says how the stream ended.
async fn echo(mut stream: Io) -> Result<(), IoError> {
    while let Some(value) = read(&mut stream).await? {
        stream.write_text(value.as_bytes(), SOON).await?;
    }
    stream.close().await;
    Ok(())
}

async fn read(stream: &mut Io) -> Result<Option<String>, IoError> {
    read_within(stream, Patience::within(SOON)).await
}

async fn read_within(stream: &mut Io, patience: Patience) -> Result<Option<String>, IoError> {
    stream.read(patience, |value| String::from_utf8(value.bytes.to_vec()).unwrap()).await
}

async fn ask(stream: &mut Io, question: &Json) -> Result<Answer<Json>, IoError> {
    stream.ask(question, SOON, |value| serde_json::from_slice(value.bytes).unwrap()).await
}

fn is_refused(answer: &Result<Answer<Json>, IoError>, code: RefusalCode) -> bool {
    matches!(answer, Ok(Answer::Refused(refused)) if refused.refused == code)
}

// ---- Streams ----

#[tokio::test]
async fn values_pass_both_ways_and_the_time_of_their_first_byte_is_known() {
    let (mut server, client, here, there) = pair(Plan::default(), Plan::default()).await;
    let mut asked = client.open(server.peer, Protocol::Heartbeat).await.unwrap();
    let inbound = server.next().await;
    assert_eq!((inbound.peer, inbound.connection, inbound.protocol), (client.peer, here, Protocol::Heartbeat));
    assert_eq!((asked.peer(), asked.connection(), asked.remote_addr()), (server.peer, there, &server.addr));
    tokio::spawn(echo(inbound.stream));
    for seq in 0..100 {
        let before = Instant::now();
        let question = json!({ "seq": seq });
        let taken = asked.ask(&question, SOON, |answer| (answer.bytes.to_vec(), answer.first_byte_at));
        let (answer, first_byte_at) = taken.await.unwrap();
        assert_eq!(answer, question.to_string().as_bytes());
        assert!(first_byte_at >= before && first_byte_at <= Instant::now());
    }
    assert_eq!((server.counters.delivered(Protocol::Heartbeat), client.counters.opened(Protocol::Heartbeat)), (1, 1));
}

#[tokio::test]
async fn g10_values_that_came_together_are_read_one_by_one_and_an_end_between_them_is_no_error() {
    let (mut server, client, ..) = pair(Plan::default(), Plan::default()).await;
    let mut asked = client.open(server.peer, Protocol::Search).await.unwrap();
    for value in ["1", "", "2", "3"] {
        asked.write_text(value.as_bytes(), SOON).await.unwrap();
    }
    asked.close().await;
    let mut served = server.next().await.stream;
    for expected in ["1", "2", "3"] {
        assert_eq!(read_within(&mut served, Patience::OPENING).await.unwrap().unwrap(), expected);
    }
    assert_eq!(read(&mut served).await, Ok(None));
    assert_eq!(read(&mut served).await, Ok(None));
}

#[tokio::test]
async fn blank_lines_are_skipped_and_nothing_but_blank_lines_is_bad_input() {
    let (mut server, client, ..) = pair(Plan::default(), Plan::default()).await;
    for (blanks, expected) in [(64, Ok(Some("1".to_owned()))), (65, Err(IoError::Blank))] {
        let mut asked = client.open(server.peer, Protocol::Search).await.unwrap();
        let mut served = server.next().await.stream;
        let reading = tokio::spawn(async move { read(&mut served).await });
        for _ in 0..blanks {
            asked.write_text(b"", SOON).await.unwrap();
        }
        // Not sent before the blank lines are read: what comes with a value is never too much.
        if expected.is_ok() {
            asked.write_text(b"1", SOON).await.unwrap();
        }
        assert_eq!(soon(reading).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_protocol_that_the_peer_does_not_accept_is_unsupported() {
    let few = Plan { accepts: vec![Protocol::Hello, Protocol::Get], ..Plan::default() };
    let (server, client, ..) = pair(few, Plan::default()).await;
    assert_eq!(client.open(server.peer, Protocol::Heartbeat).await.unwrap_err(), OpenError::Unsupported);
    assert_eq!(client.open(PeerId::random(), Protocol::Get).await.unwrap_err(), OpenError::NotConnected);
    assert_eq!(client.counters.failed(OpenError::Unsupported), 1);
    assert!(client.open(server.peer, Protocol::Get).await.is_ok());
}

#[tokio::test]
async fn g39_before_hello_nothing_is_opened_and_nothing_is_served_but_hello() {
    let (mut server, mut client) = (Member::start(Plan::default()).await, Member::start(Plan::default()).await);
    client.dial(&server.addr).await;
    let (here, there) = (server.up().await, client.up().await);
    assert_eq!(client.open(server.peer, Protocol::Get).await.unwrap_err(), OpenError::NotAdmitted);

    // A peer that does not wait for its hello.
    client.admit(there).await;
    let mut early = client.open(server.peer, Protocol::Get).await.unwrap();
    assert!(is_refused(&ask(&mut early, &json!({})).await, RefusalCode::UnknownPeer));
    assert_eq!(server.counters.refused(RefusalCause::NotAdmitted), 1);

    let mut hello = client.open_on(server.peer, Some(there), Protocol::Hello, SOON).await.unwrap();
    hello.write_text(b"{}", SOON).await.unwrap();
    assert_eq!(server.next().await.protocol, Protocol::Hello);
    assert!(!server.with(move |swarm| swarm.behaviour().streams.is_admitted(here)).await);

    // Hello is being said: what comes now waits for its end instead of being refused.
    let mut waiting = client.open(server.peer, Protocol::Get).await.unwrap();
    waiting.write_text(b"{}", SOON).await.unwrap();
    server.admit(here).await;
    assert_eq!(server.next().await.protocol, Protocol::Get);

    let mut again = client.open(server.peer, Protocol::Hello).await.unwrap();
    assert!(is_refused(&ask(&mut again, &json!({})).await, RefusalCode::Invalid), "one hello per connection");
}

#[tokio::test]
async fn a_stream_that_waits_for_a_hello_that_fails_is_refused() {
    let (mut server, mut client) = (Member::start(Plan::default()).await, Member::start(Plan::default()).await);
    client.dial(&server.addr).await;
    let (_, there) = (server.up().await, client.up().await);
    let _hello = client.open_on(server.peer, Some(there), Protocol::Hello, SOON).await.unwrap();
    let _taken = server.next().await;
    client.admit(there).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(client.open(server.peer, Protocol::Get).await.unwrap());
    }
    for mut stream in streams {
        assert!(is_refused(&ask(&mut stream, &json!({})).await, RefusalCode::UnknownPeer));
    }
}

#[tokio::test]
async fn a_peer_has_eight_streams_of_a_protocol_and_the_ninth_is_refused_until_one_ends() {
    let (mut server, client, ..) = pair(Plan::default(), Plan::default()).await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push((client.open(server.peer, Protocol::Publish).await.unwrap(), server.next().await));
    }
    assert_eq!(server.inbound(Protocol::Publish).await, 8);
    let mut ninth = client.open(server.peer, Protocol::Publish).await.unwrap();
    assert!(is_refused(&ask(&mut ninth, &json!({})).await, RefusalCode::Busy));
    assert_eq!(server.counters.refused(RefusalCause::Peer), 1);
    // Another protocol is not hurt.
    drop((client.open(server.peer, Protocol::Get).await.unwrap(), server.next().await));
    drop(open.pop());
    assert_eq!(server.inbound(Protocol::Publish).await, 7);
    drop((client.open(server.peer, Protocol::Publish).await.unwrap(), server.next().await));
    drop(open);
    assert_eq!((server.inbound(Protocol::Publish).await, server.inbound(Protocol::Get).await), (0, 0));
}

#[tokio::test]
async fn we_open_so_many_streams_on_a_connection_and_the_next_is_busy() {
    let plan = Plan { outbound: 3, ..Plan::default() };
    let (server, client, ..) = pair(Plan::default(), plan).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(client.open(server.peer, Protocol::Search).await.unwrap());
    }
    assert_eq!(client.open(server.peer, Protocol::Get).await.unwrap_err(), OpenError::Busy);
    drop(open.pop());
    assert!(client.open(server.peer, Protocol::Get).await.is_ok());
    drop(open);
    assert_eq!(client.with(|swarm| swarm.behaviour().streams.outbound()).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_thousand_streams_to_a_stalled_acceptor_every_one_is_served_or_refused_aloud() {
    const STREAMS: usize = 10_000;
    let plan = Plan { channel: 4, ..Plan::default() };
    let (server, client, ..) = pair(plan, Plan::default()).await;
    let (counters, peer) = (Arc::clone(&server.counters), server.peer);
    let refused = move || RefusalCause::ALL.iter().map(|cause| counters.refused(*cause)).sum::<u64>();
    let mut inbound = server.inbound;
    let stalled = refused.clone();
    tokio::spawn(async move {
        // Nobody takes anything for half of the time, then one at a time.
        until(|| stalled() >= STREAMS as u64 / 2).await;
        while let Some(next) = inbound.recv().await {
            let _ = echo(next.stream).await;
        }
    });
    let (client, tally) = (&client, [const { AtomicUsize::new(0) }; 2]);
    stream::iter(0..STREAMS)
        .for_each_concurrent(24, |number| {
            let tally = &tally;
            async move {
                let question = json!({ "number": number });
                let mut stream = client.open(peer, Protocol::Get).await.unwrap();
                let kind = match ask(&mut stream, &question).await {
                    Ok(Answer::Given(answer)) if answer == question => 0,
                    Ok(Answer::Refused(refused)) if refused.refused == RefusalCode::Busy => 1,
                    other => panic!("neither served nor refused: {other:?}"),
                };
                tally[kind].fetch_add(1, Relaxed);
            }
        })
        .await;
    let [served, refusals] = tally.map(AtomicUsize::into_inner);
    assert_eq!(served + refusals, STREAMS);
    assert!(served > 0 && refusals >= STREAMS / 2);
    assert_eq!((server.counters.delivered(Protocol::Get), refused()), (served as u64, refusals as u64));
    assert_eq!(server.counters.reset(), 0);
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_given_up_at_the_deadline_and_nobody_else_is_hurt() {
    let (mut server, client, ..) = pair(Plan::default(), Plan::default()).await;
    let mut deaf = client.open(server.peer, Protocol::Get).await.unwrap();
    let _unread = server.next().await;
    let value = vec![b'x'; 200 * 1024];
    let (began, within) = (Instant::now(), Duration::from_millis(300));
    let error = loop {
        if let Err(error) = deaf.write_text(&value, within).await {
            break error;
        }
    };
    assert_eq!(error, IoError::NotTaken);
    assert!(began.elapsed() >= within && began.elapsed() < SOON / 2);
    assert_eq!(deaf.write_text(b"{}", within).await, Err(IoError::Closed));

    let mut other = client.open(server.peer, Protocol::Get).await.unwrap();
    tokio::spawn(echo(server.next().await.stream));
    assert!(matches!(ask(&mut other, &json!({ "still": "here" })).await, Ok(Answer::Given(_))));
}

#[tokio::test]
async fn a_cancelled_write_is_not_followed_by_another() {
    let (mut server, client, ..) = pair(Plan::default(), Plan::default()).await;
    let mut deaf = client.open(server.peer, Protocol::Get).await.unwrap();
    let _unread = server.next().await;
    let value = vec![b'x'; 200 * 1024];
    while timeout(Duration::from_millis(200), deaf.write_text(&value, SOON)).await.is_ok() {}
    assert_eq!(deaf.write_text(b"{}", SOON).await, Err(IoError::Closed));
}

#[tokio::test]
async fn silence_and_a_value_that_trickles_are_ended() {
    let short = Duration::from_millis(150);
    let (mut server, client, ..) = pair(Plan::default(), Plan::default()).await;
    let mut silent = client.open(server.peer, Protocol::Get).await.unwrap();
    let mut served = server.next().await.stream;
    let patience = Patience { first_byte: short, rest: SOON, whole: SOON };
    assert_eq!(read_within(&mut served, patience).await.unwrap_err(), IoError::Silent);
    assert_eq!(read(&mut silent).await, Ok(None), "the peer sees it at once");

    for patience in [Patience { first_byte: SOON, rest: short, whole: SOON }, Patience::within(short)] {
        let (mut served, _asked) = half_a_value(&client, &mut server).await;
        assert_eq!(read_within(&mut served, patience).await.unwrap_err(), IoError::Slow);
        assert_eq!(read_within(&mut served, patience).await.unwrap_err(), IoError::Closed);
    }
    let (mut served, asked) = half_a_value(&client, &mut server).await;
    drop(asked);
    assert_eq!(read(&mut served).await.unwrap_err(), IoError::Cut);
}

/// A stream on which a value began and does not end: a write that was cancelled when the window was full.
async fn half_a_value(client: &Member, server: &mut Member) -> (Io, Io) {
    let mut asked = client.open(server.peer, Protocol::Heartbeat).await.unwrap();
    let mut served = server.next().await.stream;
    let value = vec![b'x'; Protocol::Heartbeat.value_bytes_max()];
    for _ in 0..3 {
        asked.write_text(&value, SOON).await.unwrap();
    }
    // Four of them with their line feeds are four bytes more than a window.
    timeout(Duration::from_millis(200), asked.write_text(&value, SOON)).await.unwrap_err();
    for _ in 0..3 {
        assert_eq!(read(&mut served).await.unwrap().unwrap().len(), value.len());
    }
    (served, asked)
}

#[tokio::test]
async fn a_value_at_the_limit_passes_and_ours_past_it_is_not_written() {
    let (mut server, client, ..) = pair(Plan::default(), Plan::default()).await;
    let mut asked = client.open(server.peer, Protocol::Leave).await.unwrap();
    tokio::spawn(echo(server.next().await.stream));
    let max = Protocol::Leave.value_bytes_max();
    assert_eq!(asked.write_text(&vec![b'x'; max + 1], SOON).await, Err(IoError::Unwritable { max }));
    assert_eq!(asked.write(&"x".repeat(max - 1), SOON).await, Err(IoError::Unwritable { max }));
    assert_eq!(asked.write_text(b"{\n}", SOON).await, Err(IoError::Unwritable { max }), "it is not one line");
    let length = asked.ask(&"x".repeat(max - 2), SOON, |answer| answer.bytes.len()).await.unwrap();
    assert_eq!(length, max);
}

/// Sends these bytes as one of a probe's, and tells what the other side took.
async fn bytes(client: &Member, server: &mut Member, sent: &[u8], is_last: bool, rest: Duration) -> (Io, Io, Bytes) {
    let mut asked = client.open(server.peer, Protocol::Bandwidth).await.unwrap();
    asked.write_bytes(sent, is_last, SOON).await.unwrap();
    let mut served = server.next().await.stream;
    let taken = served.read_bytes(PAYLOAD_BYTES, SOON, rest).await.unwrap();
    (asked, served, taken)
}

#[tokio::test]
async fn g15_bytes_are_taken_up_to_their_limit_and_either_side_may_go_on_when_the_other_has_ended() {
    let (mut server, client, ..) = pair(Plan::default(), Plan::default()).await;
    let sent: Vec<u8> = (0..=PAYLOAD_BYTES).map(|byte| (byte % 251) as u8).collect();
    let (mut asked, mut served, whole) = bytes(&client, &mut server, &sent[..PAYLOAD_BYTES], true, SOON).await;
    assert_eq!((whole.came.bytes, whole.came.end), (PAYLOAD_BYTES, End::Closed));
    assert_eq!(whole.taken, &sent[..PAYLOAD_BYTES]);
    assert!(whole.came.took < SOON);
    assert_eq!(asked.write_bytes(&sent, true, SOON).await, Err(IoError::Closed), "it said that no more comes");
    served.write_bytes(&whole.taken, true, SOON).await.unwrap();
    assert_eq!(asked.read_bytes(PAYLOAD_BYTES, SOON, SOON).await.unwrap().taken, whole.taken);

    let (mut asked, mut served, many) = bytes(&client, &mut server, &sent, true, SOON).await;
    assert_eq!((many.came.bytes, many.came.end), (PAYLOAD_BYTES, End::TooMany), "no more is kept than is allowed");
    served.write_text(b"\"too many\"", SOON).await.unwrap();
    served.close().await;
    assert_eq!(read(&mut asked).await, Ok(Some("\"too many\"".to_owned())), "it is told so");
}

#[tokio::test]
async fn bytes_that_trickle_or_never_come_have_a_deadline() {
    const REST: Duration = Duration::from_millis(200);
    let (mut server, client, ..) = pair(Plan::default(), Plan::default()).await;
    let (_asked, mut served, slow) = bytes(&client, &mut server, b"some", false, REST).await;
    assert_eq!((slow.taken.as_slice(), slow.came.end), (&b"some"[..], End::Late));
    served.write_text(b"1", SOON).await.unwrap();
    let _asked = client.open(server.peer, Protocol::Bandwidth).await.unwrap();
    let mut served = server.next().await.stream;
    assert_eq!(served.read_bytes(PAYLOAD_BYTES, REST, SOON).await, Err(IoError::Silent));
}

#[tokio::test]
async fn a_stream_does_not_outlive_its_total() {
    let (mut server, client, ..) = pair(Plan::default(), Plan::default()).await;
    let _asked = client.open(server.peer, Protocol::Get).await.unwrap();
    let mut served = server.next().await.stream;
    served.live(Some(Duration::from_millis(100)));
    assert_eq!(read(&mut served).await.unwrap_err(), IoError::TooOld);
}

#[tokio::test]
async fn g21_a_malformed_value_ends_its_stream_without_a_spin() {
    let (mut server, client, ..) = pair(Plan::default(), Plan::default()).await;
    let mut asked = client.open(server.peer, Protocol::Get).await.unwrap();
    let mut served = server.next().await.stream;
    let judge = tokio::spawn(async move {
        let mut rounds = 0;
        loop {
            rounds += 1;
            let value = read(&mut served).await.unwrap().unwrap();
            if protocol::json::parse::<Json>(value.as_bytes(), value.len()).is_err() {
                served.reset();
                return rounds;
            }
        }
    });
    for value in ["{\"fine\":1}", "{not json", "{\"late\":1}"] {
        asked.write_text(value.as_bytes(), SOON).await.unwrap();
    }
    assert_eq!(soon(judge).await.unwrap(), 2);
    assert_eq!(read(&mut asked).await, Ok(None));
    assert_eq!(server.inbound(Protocol::Get).await, 0);
}

/// A peer without our manners: a connection whose streams carry whatever a test writes.
struct Raw(mpsc::UnboundedSender<oneshot::Sender<io::Result<SubstreamBox>>>);

impl Raw {
    async fn dial(addr: &Multiaddr) -> Self {
        let mut transport = transport::build(&identity::Keypair::generate_ed25519(), Plan::default().key).unwrap();
        let opts = Dial { role: Endpoint::Dialer, port_use: PortUse::New };
        let (_, muxer) = soon(transport.dial(addr.clone(), opts).unwrap()).await.unwrap();
        // Unbounded: one test's orders and what it heard, a handful, and gone with it.
        let (to, orders) = mpsc::unbounded_channel();
        tokio::spawn(Self::run(muxer, orders));
        Self(to)
    }

    /// Keeps the connection going until it ends or nobody wants it any more.
    async fn run(
        mut muxer: StreamMuxerBox,
        mut orders: mpsc::UnboundedReceiver<oneshot::Sender<io::Result<SubstreamBox>>>,
    ) {
        let mut opening: Option<oneshot::Sender<io::Result<SubstreamBox>>> = None;
        poll_fn(move |cx| {
            loop {
                if opening.is_none() {
                    let Poll::Ready(order) = orders.poll_recv(cx) else { break };
                    let Some(reply) = order else { return Poll::Ready(()) };
                    opening = Some(reply);
                }
                let Poll::Ready(opened) = muxer.poll_outbound_unpin(cx) else { break };
                drop(opening.take().map(|reply| reply.send(opened)));
            }
            muxer.poll_unpin(cx).map(drop)
        })
        .await;
    }

    async fn open(&self) -> io::Result<SubstreamBox> {
        let (reply, opened) = oneshot::channel();
        self.0.send(reply).map_err(io::Error::other)?;
        soon(opened).await.map_err(io::Error::other)?
    }
}

#[tokio::test]
async fn a_value_over_the_limit_ends_its_stream_and_no_other() {
    let mut server = Member::start(Plan::default()).await;
    let raw = Raw::dial(&server.addr).await;
    let here = server.up().await;
    server.admit(here).await;
    let (bad, good) = (raw.open().await.unwrap(), raw.open().await.unwrap());
    let agree = |stream, protocol: Protocol| dialer_select_proto(stream, [protocol.id()], Version::V1);
    let (_, mut bad) = soon(agree(bad, Protocol::Leave)).await.unwrap();
    let mut served = server.next().await.stream;
    let (_, mut good) = soon(agree(good, Protocol::Leave)).await.unwrap();
    tokio::spawn(echo(server.next().await.stream));

    let max = Protocol::Leave.value_bytes_max();
    bad.write_all(&vec![b'x'; max + 1]).await.unwrap();
    bad.flush().await.unwrap();
    assert_eq!(read(&mut served).await, Err(IoError::TooLong { max }));
    let mut rest = Vec::new();
    assert_eq!(soon(bad.read_to_end(&mut rest)).await.unwrap(), 0, "it is reset");

    let at_the_limit = [vec![b'x'; max], b"\n".to_vec()].concat();
    good.write_all(&at_the_limit).await.unwrap();
    good.flush().await.unwrap();
    let mut answer = vec![0; max + 1];
    soon(good.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, at_the_limit);
}

#[tokio::test]
async fn a_connection_carries_so_many_streams_and_one_more_ends_it_and_no_other() {
    let (mut server, client, ..) = pair(Plan::default(), Plan::default()).await;
    let raw = Raw::dial(&server.addr).await;
    let here = server.up().await;
    let mut open = Vec::new();
    while let Ok(mut stream) = raw.open().await {
        // The beginning of a negotiation that never ends.
        stream.write_all(b"\x13").await.unwrap();
        open.push(stream);
    }
    assert_eq!(open.len(), 160, "our own side of a connection keeps to its bound");
    let mut asked = client.open(server.peer, Protocol::Get).await.unwrap();
    tokio::spawn(echo(server.next().await.stream));
    assert!(ask(&mut asked, &json!(1)).await.is_ok());
    assert_eq!(server.down().await, here);
    assert!(ask(&mut asked, &json!(2)).await.is_ok());
}

#[tokio::test]
async fn g5_closing_one_connection_touches_no_stream_of_another() {
    let (mut server, mut one, ..) = pair(Plan::default(), Plan::default()).await;
    let mut two = Member::start(Plan::default()).await;
    connect(&mut server, &mut two).await;
    let mut of_one = one.open(server.peer, Protocol::Heartbeat).await.unwrap();
    let served_one = server.next().await;
    tokio::spawn(echo(served_one.stream));
    let mut of_two = two.open(server.peer, Protocol::Heartbeat).await.unwrap();
    tokio::spawn(echo(server.next().await.stream));
    assert!(ask(&mut of_one, &json!(1)).await.is_ok() && ask(&mut of_two, &json!(1)).await.is_ok());

    let connection = served_one.connection;
    server.with(move |swarm| swarm.behaviour_mut().streams.close(connection)).await;
    assert_eq!(server.down().await, connection);
    one.down().await;
    assert!(ask(&mut of_one, &json!(2)).await.is_err());
    assert_eq!(one.open(server.peer, Protocol::Get).await.unwrap_err(), OpenError::NotConnected);
    // Nor does a dial that fails, nor closing what is closed.
    server.with(move |swarm| swarm.behaviour_mut().streams.close(connection)).await;
    server.dial(&"/ip4/127.0.0.1/tcp/1".parse().unwrap()).await;
    assert!(matches!(soon(server.heard.recv()).await, Some(Heard::DialFailed(_))));
    assert!(ask(&mut of_two, &json!(2)).await.is_ok());
}

#[tokio::test]
async fn g7_opening_a_stream_and_dialling_have_deadlines() {
    let frozen = Plan { freezable: true, ..Plan::default() };
    let (server, client, ..) = pair(frozen, Plan::default()).await;
    server.frozen.send(true).unwrap();
    let within = Duration::from_millis(200);
    let began = Instant::now();
    let error = client.open_on(server.peer, None, Protocol::Get, within).await.unwrap_err();
    assert_eq!(error, OpenError::Timeout);
    assert!(began.elapsed() >= within && began.elapsed() < SOON / 2);
    server.frozen.send(false).unwrap();
    assert!(client.open(server.peer, Protocol::Get).await.is_ok(), "the connection is as good as before");

    let mut client = client;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    client.dial(&format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port()).parse().unwrap()).await;
    let Some(Heard::DialFailed(error)) = soon(client.heard.recv()).await else { panic!("it fails") };
    assert!(!transport::is_key_mismatch_likely(&error), "a frozen peer is no wrong key: {error}");
}

#[tokio::test]
async fn an_order_on_a_connection_that_ends_is_answered() {
    let frozen = Plan { freezable: true, ..Plan::default() };
    let (server, mut client, _, there) = pair(frozen, Plan::default()).await;
    server.frozen.send(true).unwrap();
    let mut answers = Vec::new();
    for _ in 0..32 {
        let (reply, answer) = oneshot::channel();
        let order = Open { peer: server.peer, connection: Some(there), protocol: Protocol::Get, within: SOON, reply };
        client.with(move |swarm| swarm.behaviour().streams.open(order)).await;
        answers.push(answer);
    }
    client.with(move |swarm| swarm.behaviour_mut().streams.close(there)).await;
    client.down().await;
    for answer in answers {
        assert_eq!(soon(answer).await.unwrap().unwrap_err(), OpenError::Reset);
    }
    assert_eq!(client.with(|swarm| swarm.behaviour().streams.outbound()).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g4_g35_concurrent_askers_each_have_a_stream_of_their_own() {
    let (mut server, client, ..) = pair(Plan::default(), Plan::default()).await;
    tokio::spawn(async move {
        while let Some(next) = server.inbound.recv().await {
            tokio::spawn(echo(next.stream));
        }
    });
    let (client, peer) = (&client, server.peer);
    // Fewer at once than a peer may: an end is heard of a little later on the other side.
    stream::iter(0..400)
        .for_each_concurrent(4, |number| async move {
            let mut stream = client.open(peer, Protocol::Search).await.unwrap();
            for round in 0..3 {
                let question = json!({ "number": number, "round": round });
                let answer = ask(&mut stream, &question).await;
                assert!(matches!(&answer, Ok(Answer::Given(answer)) if *answer == question), "{answer:?}");
            }
            stream.close().await;
        })
        .await;
}

#[tokio::test]
async fn g42_after_many_connections_nothing_is_kept_of_them() {
    let mut server = Member::start(Plan::default()).await;
    for _ in 0..40 {
        let mut client = Member::start(Plan::default()).await;
        let (here, _) = connect(&mut server, &mut client).await;
        let mut asked = client.open(server.peer, Protocol::Heartbeat).await.unwrap();
        asked.write_text(b"{}", SOON).await.unwrap();
        let _served = server.next().await;
        drop(client);
        assert_eq!(server.down().await, here);
    }
    let left = server
        .with(|swarm| {
            let both = swarm.behaviour();
            let (streams, ledger) = (&both.streams, both.doors.ledger());
            let of_streams = [streams.connections(), streams.peers(), streams.outbound()];
            (of_streams, [ledger.half_open(), ledger.inbound(), ledger.outbound(), ledger.peers()])
        })
        .await;
    assert_eq!(left, ([0; 3], [0; 4]));
    assert_eq!(server.inbound(Protocol::Heartbeat).await, 0);
}

#[tokio::test]
async fn an_open_stream_keeps_its_connection_and_without_one_the_idle_timeout_decides() {
    let idle = Duration::from_millis(600);
    let plan = || Plan { idle, ..Plan::default() };
    let (mut server, mut client, here, there) = pair(plan(), plan()).await;
    let mut asked = client.open(server.peer, Protocol::Heartbeat).await.unwrap();
    let mut served = server.next().await.stream;
    assert_eq!(read_within(&mut served, Patience::within(idle * 2)).await, Err(IoError::Silent));
    drop(served);
    assert_eq!(read(&mut asked).await, Ok(None));
    assert!(client.open(server.peer, Protocol::Get).await.is_ok(), "our side alone has kept it");
    drop(asked);
    assert_eq!((server.down().await, client.down().await), (here, there));
}

// ---- Transport ----

#[tokio::test]
async fn two_pre_shared_keys_do_not_meet_and_the_dialer_is_told_why() {
    let server = Member::start(Plan::default()).await;
    let dials = stream::iter(0..12_u8).map(|number| {
        let addr = server.addr.clone();
        async move {
            let key = if number < 11 { Some([number + 8; 32]) } else { Some([7; 32]) };
            let mut client = Member::start(Plan { key, ..Plan::default() }).await;
            client.dial(&addr).await;
            soon(client.heard.recv()).await.unwrap()
        }
    });
    let outcomes: Vec<_> = dials.buffered(12).collect().await;
    for outcome in &outcomes[..11] {
        let Heard::DialFailed(error) = outcome else { panic!("another key must not do: {outcome:?}") };
        assert!(transport::is_key_mismatch_likely(error), "{error}");
    }
    assert!(matches!(outcomes[11], Heard::Up(..)), "the same key must do");

    // The side that holds the right key notices as well.
    let mut server = server;
    loop {
        match soon(server.heard.recv()).await.unwrap() {
            Heard::ListenFailed(error) if transport::is_inbound_key_mismatch_likely(&error) => break,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_refused_connection_is_no_wrong_key() {
    let mut client = Member::start(Plan::default()).await;
    client.dial(&"/ip4/127.0.0.1/tcp/1".parse().unwrap()).await;
    let Some(Heard::DialFailed(error)) = soon(client.heard.recv()).await else { panic!("it fails") };
    assert!(!transport::is_key_mismatch_likely(&error));
    assert!(matches!(*error, DialError::Transport(_)));
}

#[tokio::test]
async fn without_a_key_members_meet_and_a_member_with_one_stays_out() {
    let open = || Plan { key: None, ..Plan::default() };
    let (mut server, mut client, ..) = pair(open(), open()).await;
    client.open(server.peer, Protocol::Get).await.unwrap();
    server.next().await;
    let private = Member::start(Plan::default()).await;
    client.dial(&private.addr).await;
    assert!(matches!(soon(client.heard.recv()).await, Some(Heard::DialFailed(_))));
}

#[tokio::test]
async fn a_port_in_use_is_refused_even_to_ourselves() {
    let (one, two) = (Member::start(Plan::default()).await, Member::start(Plan::default()).await);
    let taken = one.addr.clone();
    assert!(two.with(move |swarm| swarm.listen_on(taken).is_err()).await);
    assert!(two.with(|swarm| swarm.listen_on("/ip6/::1/tcp/0".parse().unwrap()).is_ok()).await);
}

// ---- Doors ----

async fn is_closed(socket: &mut TcpStream) -> bool {
    // The nonce of the pre-shared key handshake is what a connection that was let in hears first.
    !matches!(soon(socket.read(&mut [0; 24])).await, Ok(24))
}

#[tokio::test]
async fn half_open_connections_of_an_address_end_at_their_cap_and_free_their_places() {
    let doors = doors::Settings { half_open_per_address: 3, ..Plan::default().doors };
    let mut server = Member::start(Plan { doors, ..Plan::default() }).await;
    let port: u16 = server.addr.to_string().rsplit('/').next().unwrap().parse().unwrap();
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    for socket in &mut idle {
        assert!(!is_closed(socket).await);
    }
    assert!(is_closed(&mut TcpStream::connect(("127.0.0.1", port)).await.unwrap()).await);
    assert_eq!(server.denials.of(Denial::HalfOpenOfAddress), 1);
    assert!(matches!(soon(server.heard.recv()).await, Some(Heard::ListenFailed(_))), "the denied one");

    // From another address the doors are open, and an idle socket that goes away leaves its place.
    let other = TcpStream::connect_from("127.0.0.2:0", port).await;
    assert!(!is_closed(&mut other.unwrap()).await);
    drop(idle);
    while server.with(|swarm| swarm.behaviour().doors.ledger().half_open()).await > 0 {}
    let mut client = Member::start(Plan::default()).await;
    client.dial(&server.addr).await;
    client.up().await;
}

trait ConnectFrom: Sized {
    async fn connect_from(from: &str, port: u16) -> std::io::Result<Self>;
}

impl ConnectFrom for TcpStream {
    async fn connect_from(from: &str, port: u16) -> std::io::Result<Self> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(from.parse().unwrap())?;
        socket.connect(([127, 0, 0, 1], port).into()).await
    }
}

#[tokio::test]
async fn a_peer_has_two_connections_and_a_third_is_closed_without_a_word() {
    let doors = doors::Settings { established_per_peer: 9, ..Plan::default().doors };
    let (mut server, mut client) =
        (Member::start(Plan::default()).await, Member::start(Plan { doors, ..Plan::default() }).await);
    for _ in 0..2 {
        client.dial(&server.addr).await;
        server.up().await;
        client.up().await;
    }
    client.dial(&server.addr).await;
    let third = client.up().await;
    assert_eq!(client.down().await, third);
    assert!(matches!(soon(server.heard.recv()).await, Some(Heard::ListenFailed(_))));
    assert_eq!(server.denials.of(Denial::Peer), 1);
    let kept = server.with(|swarm| (swarm.behaviour().streams.peers(), swarm.behaviour().streams.connections()));
    assert_eq!(kept.await, (1, 2));
}

#[tokio::test]
async fn an_address_that_connects_too_often_waits_unless_a_peer_of_it_was_admitted() {
    let doors = doors::Settings { new_per_second_and_address: 1, ..Plan::default().doors };
    let mut server = Member::start(Plan { doors, time: Some(Mono::from_secs(10)), ..Plan::default() }).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Member::start(Plan::default()).await);
    }
    clients[0].dial(&server.addr).await;
    server.up().await;
    let peer = clients[0].peer;
    clients[1].dial(&server.addr).await;
    assert!(matches!(soon(clients[1].heard.recv()).await, Some(Heard::DialFailed(_))));
    assert_eq!(server.denials.of(Denial::Rate), 1);
    server.with(move |swarm| swarm.behaviour_mut().doors.admitted(&peer)).await;
    for client in &mut clients[2..] {
        client.dial(&server.addr).await;
        client.up().await;
    }
    assert_eq!(server.denials.of(Denial::Rate), 1);
}
