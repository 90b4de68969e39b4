//! What it costs to show a tree of 5,000 actors: to read their vitals, to write them as `/api/v1/actors` does, and to ask for
//! them over HTTP; with all of them well, and with one that never ends its handler.
//!
//! One thread does all of it, asker and server, so that time on the clock is time of the processor and more than the
//! server's own: at one read a second, 10 ms of it are 1 %.

#![allow(missing_docs)]

use std::{hint::black_box, net::SocketAddr, time::Duration};

use actors::{
    supervision::{Address, Chance, ChildSpec, Class, Clock, Envelope, Path, Root, Seat, Settings, Tree},
    view::ActorState,
};
use axum::{Json, Router, routing::get};
use criterion::{Criterion, criterion_group, criterion_main};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Many times the largest tree that is expected.
const ACTORS: usize = 5_000;

const BOUND: u64 = 64;

/// Soon shown as stuck.
const STUCK_AFTER: Duration = Duration::from_millis(10);

struct One;

enum Msg {
    Count,
    Hang,
}

impl Actor for One {
    type Msg = Envelope<Msg>;
    type State = u64;
    type Arguments = Seat<Msg>;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, _: Seat<Msg>) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Envelope<Msg>,
        count: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Count => *count += 1,
            Msg::Hang => std::future::pending().await,
        }
        Ok(())
    }
}

/// A tree of so many, each of which has handled something.
async fn grown() -> (Tree, Root, Vec<Address<Msg>>) {
    let settings = Settings { stuck_after: STUCK_AFTER, ..Settings::default() };
    let tree = Tree::new(Clock::real(), Chance::seeded(7), settings);
    let of = |number: usize| {
        // As long as a path with a peer id in it.
        let name = format!("heartbeat-{number:0>52}");
        tree.address(Path::root().child("node").child("pool").child(name), "heartbeat", BOUND)
    };
    let addresses: Vec<Address<Msg>> = (0..ACTORS).map(of).collect();
    let specs = addresses.iter().map(|address| ChildSpec::new(address, One, |seat| seat)).collect();
    let root = Root::start(&tree, specs).await.unwrap_or_else(|_| panic!("a tree that starts"));
    for address in &addresses {
        address.tell(Class::Control, Msg::Count).unwrap_or_else(|_| panic!("an actor that listens"));
    }
    while tree.read().iter().filter(|actor| actor.handled == 1).count() < ACTORS {
        tokio::task::yield_now().await;
    }
    (tree, root, addresses)
}

async fn ask(at: SocketAddr) -> usize {
    let mut socket = TcpStream::connect(at).await.expect("a server");
    let question = b"GET /api/v1/actors HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    socket.write_all(question).await.expect("a server that listens");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.expect("an answer");
    answer.len()
}

fn show(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (tree, _root, addresses) = runtime.block_on(grown());
    let at = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let shown = tree.clone();
        let router = Router::new().route("/api/v1/actors", get(move || async move { Json(shown.read()) }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        at
    });
    for what in ["all are well", "one is stuck"] {
        let mut group = c.benchmark_group(format!("{ACTORS} actors, {what}"));
        group.bench_function("read", |b| b.iter(|| black_box(tree.read().len())));
        group.bench_function("read and written", |b| {
            b.iter(|| black_box(serde_json::to_vec(&tree.read()).expect("actors have a JSON form").len()));
        });
        group.bench_function("asked over HTTP", |b| b.iter(|| black_box(runtime.block_on(ask(at)))));
        group.finish();
        runtime.block_on(hang(&tree, &addresses[ACTORS / 2]));
    }
}

async fn hang(tree: &Tree, address: &Address<Msg>) {
    let _ = address.tell(Class::Control, Msg::Hang);
    while !tree.read().iter().any(|actor| actor.state == ActorState::Stuck) {
        tokio::time::sleep(STUCK_AFTER).await;
    }
}

criterion_group!(benches, show);
criterion_main!(benches);
