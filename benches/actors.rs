//! The way through an actor beside the same work called directly.
//!
//! The work is a heartbeat as an indexer's registry is asked: read it, look its peer up among a thousand, fill the answer,
//! write it. Askers are a thousand tasks that ask at the same time, as streams do, and one that asks alone.

#![allow(missing_docs)]

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use actors::supervision::{
    Address, Chance, ChildSpec, Class, Clock, Envelope, Path, Reply, Root, Seat, Settings, Tree,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use protocol::{
    PeerId, Timestamp, json,
    wire::{Heartbeat, HeartbeatResponse, Protocol},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::runtime::Runtime;

#[path = "common/mod.rs"]
mod common;

/// Sessions, and askers where there are many.
const MANY: usize = 1_000;

/// More than may ever be in flight.
const BOUND: u64 = 65_536;

const SOON: Duration = Duration::from_secs(10);

struct Book {
    sessions: HashMap<PeerId, u64>,
    answer: HeartbeatResponse,
}

impl Book {
    fn new() -> Self {
        let sessions = (0..MANY).map(|number| (common::keys(number).peer_id(), 0)).collect();
        Self { sessions, answer: common::answer(Timestamp::now()) }
    }

    fn beat(&mut self, heartbeat: &Heartbeat) -> HeartbeatResponse {
        let beats = self.sessions.entry(heartbeat.peer_id).or_default();
        *beats += 1;
        HeartbeatResponse { seq: heartbeat.seq, record_seq: Some(*beats), ..self.answer.clone() }
    }
}

struct Keeper;

enum Msg {
    Beat { heartbeat: Box<Heartbeat>, reply: Reply<HeartbeatResponse> },
}

impl Actor for Keeper {
    type Msg = Envelope<Msg>;
    type State = Book;
    type Arguments = Seat<Msg>;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, _: Seat<Msg>) -> Result<Book, ActorProcessingErr> {
        Ok(Book::new())
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Envelope<Msg>,
        book: &mut Book,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Beat { heartbeat, reply } => reply.send(book.beat(&heartbeat)),
        }
        Ok(())
    }
}

fn read(bytes: &[u8]) -> Heartbeat {
    json::parse(bytes, Protocol::Heartbeat.value_bytes_max()).expect("a heartbeat")
}

fn write(answer: &HeartbeatResponse) -> usize {
    serde_json::to_vec(answer).expect("an answer has a JSON form").len()
}

async fn directly(book: Arc<Mutex<Book>>, bytes: Arc<Vec<u8>>) -> usize {
    let heartbeat = read(&bytes);
    let answer = book.lock().expect("nobody panics while holding it").beat(&heartbeat);
    write(&answer)
}

async fn by_actor(keeper: Address<Msg>, bytes: Arc<Vec<u8>>) -> usize {
    let heartbeat = Box::new(read(&bytes));
    let answer = keeper.ask(Class::Heartbeat, |reply| Msg::Beat { heartbeat, reply }, SOON).await;
    write(&answer.expect("an answer"))
}

/// Every asker asks `count` times; the time that all of them took together.
async fn askers<Work: Future<Output = usize> + Send + 'static>(
    questions: &[Arc<Vec<u8>>],
    count: u64,
    work: impl Fn(Arc<Vec<u8>>) -> Work + Clone + Send + Sync + 'static,
) -> Duration {
    let began = Instant::now();
    let tasks: Vec<_> = questions
        .iter()
        .map(|bytes| {
            let (bytes, work) = (Arc::clone(bytes), work.clone());
            tokio::spawn(async move {
                for _ in 0..count {
                    black_box(work(Arc::clone(&bytes)).await);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("an asker that ends");
    }
    began.elapsed()
}

fn beat(c: &mut Criterion) {
    // One thread, so that time on the clock is time of the processor.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (_root, keeper) = runtime.block_on(keeper());
    let book = Arc::new(Mutex::new(Book::new()));
    let mut group = c.benchmark_group("a beat through an actor");
    for count in [1, MANY] {
        let questions: Vec<Arc<Vec<u8>>> = (0..count).map(question).collect();
        group.throughput(criterion::Throughput::Elements(count as u64));
        bench(&mut group, &runtime, "floor: called directly", &questions, {
            let book = Arc::clone(&book);
            move |bytes| directly(Arc::clone(&book), bytes)
        });
        bench(&mut group, &runtime, "ours: asked by address", &questions, {
            let keeper = keeper.clone();
            move |bytes| by_actor(keeper.clone(), bytes)
        });
    }
    group.finish();
}

async fn keeper() -> (Root, Address<Msg>) {
    let tree = Tree::new(Clock::real(), Chance::seeded(7), Settings::default());
    let keeper = tree.address(Path::root().child("keeper"), "keeper", BOUND);
    let root = Root::start(&tree, vec![ChildSpec::new(&keeper, Keeper, |seat| seat)]).await;
    (root.unwrap_or_else(|_| panic!("a keeper that starts")), keeper)
}

fn question(number: usize) -> Arc<Vec<u8>> {
    Arc::new(serde_json::to_vec(&common::heartbeat(&common::keys(number))).expect("a heartbeat has a JSON form"))
}

fn bench<Work: Future<Output = usize> + Send + 'static>(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    runtime: &Runtime,
    what: &str,
    questions: &[Arc<Vec<u8>>],
    work: impl Fn(Arc<Vec<u8>>) -> Work + Clone + Send + Sync + 'static,
) {
    group.bench_function(BenchmarkId::new(what, format!("{} askers", questions.len())), |b| {
        b.iter_custom(|count| runtime.block_on(askers(questions, count, work.clone())));
    });
}

criterion_group!(benches, beat);
criterion_main!(benches);
