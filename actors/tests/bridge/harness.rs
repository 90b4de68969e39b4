//! A NATS server of its own for each test, and a bridge with stand-ins for its neighbours.

use std::{
    collections::VecDeque,
    future::Future,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use actors::{
    Running, Start,
    bridge::{self, Bridge},
    context::{Addresses, Context, Own, Shared},
    handle::Fault,
    health,
    settings::Settings,
    sharing::{self, Ordered, Verdict},
    stats::Stats,
    supervision::{self, Chance, ChildSpec, Class, Clock, Ended, Envelope, Root, Tree},
    view::BridgeView,
};
use async_nats::jetstream;
use protocol::{
    Timestamp,
    bus::{self, Announcement, VerbOut},
    identity::Keys,
    profile::Profile,
    wire::Role,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use store::Store;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longer than anything here may take; only a failing test waits so long.
const SOON: Duration = Duration::from_secs(60);

/// Between two looks at what has no event of its own.
const LOOK: Duration = Duration::from_millis(20);

/// Where `tests/run` wants to read what was skipped.
const SKIPPED: &str = "MUSTER_TESTS_SKIPPED";

/// Awaits something that must come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"))
}

/// A server of this test's own; nothing where there is none to start, which is said by name.
pub(crate) async fn server(test: &str, with: &[&str]) -> Option<Server> {
    let Some(program) = program() else {
        skip(test, "there is no nats-server");
        return None;
    };
    Some(Server::start(program, with).await)
}

/// Says that a test cannot run here.
pub(crate) fn skip(test: &str, why: &str) {
    let Some(folder) = std::env::var_os(SKIPPED) else {
        panic!("{test} cannot run here, and nobody counts what is skipped: {why}");
    };
    std::fs::write(PathBuf::from(folder).join(test), why).unwrap();
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let common = ["/usr/sbin", "/usr/local/bin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(common).map(|folder| folder.join("nats-server")).find(|file| file.is_file())
}

/// A NATS server in a process of its own, gone with the test.
pub(crate) struct Server {
    program: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    has_streams: bool,
    process: Option<Child>,
}

impl Server {
    async fn start(program: PathBuf, with: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config: Vec<&str> = with.iter().copied().filter(|line| *line != "-js").collect();
        std::fs::write(folder.path().join("nats.conf"), config.join("\n")).unwrap();
        let has_streams = with.contains(&"-js");
        let mut server = Self { program, folder, port: 0, has_streams, process: None };
        server.restart().await;
        server
    }

    /// Starts it again where it was, with what it kept.
    pub(crate) async fn restart(&mut self) {
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };
        let mut command = Command::new(&self.program);
        command.args(["-a", "127.0.0.1", "-p", &port, "-c"]).arg(self.folder.path().join("nats.conf"));
        if self.has_streams {
            command.arg("-js").arg("-sd").arg(self.folder.path().join("kept"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, port)) = line.split_once("Listening for client connections on 127.0.0.1:") {
                    self.port = port.trim().parse().unwrap();
                }
                if line.ends_with("Server is ready") {
                    return;
                }
                said = format!("{said}{line}\n");
            }
            panic!("the server ended:\n{said}");
        };
        within("the server is ready", ready).await;
        // What it says later is taken, so that it never waits for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.process = Some(process);
    }

    /// Kills it without a word.
    pub(crate) async fn kill(&mut self) {
        self.process.take().unwrap().kill().await.unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A bus at this server, whose orders come again soon.
    pub(crate) fn settings(&self) -> bus::Settings {
        let settings = bus::Settings {
            url: self.url(),
            again_after: Duration::from_millis(100),
            stream_bytes_max: 256 * 1024 * 1024,
            ..bus::Settings::default()
        };
        settings.check().unwrap();
        settings
    }

    /// An application.
    pub(crate) async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.unwrap()
    }

    /// Waits until everything that this consumer may bring was brought and acknowledged.
    pub(crate) async fn until_acknowledged(&self, client: &async_nats::Client, consumer: &str) {
        let stream = jetstream::new(client.clone()).get_stream("OPENCLOUD").await.unwrap();
        let looked = async {
            loop {
                let info = stream.consumer_info(consumer).await.unwrap();
                if info.num_ack_pending == 0 && info.num_pending == 0 {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        within("everything is acknowledged", looked).await;
    }
}

/// What an application writes to have a resource kept.
pub(crate) fn envelope(id: &str) -> String {
    format!(r#"{{"from_app":"test","datatype":"data","user":"ann","groups":["ops"],"payload":{{"id":"{id}"}}}}"#)
}

pub(crate) fn announcement(id: u64, verb: VerbOut) -> Announcement {
    Announcement {
        id,
        verb,
        user: format!("user-{id}"),
        groups: vec![],
        datatype: "data".to_owned(),
        message_id: format!("m-{id}"),
        payload: format!(r#"{{"id":"r-{id}"}}"#).into_bytes(),
    }
}

/// What the stand-in for sharing answers to the next batch of orders.
pub(crate) enum Answer {
    /// This for each.
    Say(Verdict),
    /// Nothing: the question dies.
    Silence,
}

/// What the stand-ins share with the test; it outlives their lives.
#[derive(Default)]
struct Seen {
    answers: VecDeque<Answer>,
    waiting: Vec<Announcement>,
    published: Vec<u64>,
    ordered: Vec<String>,
}

enum Heard {
    Note(&'static str, String),
    Trouble(&'static str, Option<String>),
}

#[derive(Clone)]
struct Neighbours {
    seen: Arc<Mutex<Seen>>,
    orders: mpsc::UnboundedSender<Ordered>,
    heard: mpsc::UnboundedSender<Heard>,
}

/// Stands where sharing would.
struct Sharing;

impl Actor for Sharing {
    type Msg = Envelope<sharing::Msg>;
    type State = Neighbours;
    type Arguments = Neighbours;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, shared: Neighbours) -> Result<Neighbours, ActorProcessingErr> {
        Ok(shared)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        to: &mut Neighbours,
    ) -> Result<(), ActorProcessingErr> {
        let mut seen = to.seen.lock().unwrap();
        match envelope.open() {
            sharing::Msg::Ordered { orders, reply } => {
                let answer = seen.answers.pop_front();
                let verdict = |id: &String, seen: &mut Seen| match &answer {
                    Some(Answer::Say(verdict)) => Some(verdict.clone()),
                    Some(Answer::Silence) => None,
                    None if seen.ordered.contains(id) => Some(Verdict::Repeated),
                    None => {
                        seen.ordered.push(id.clone());
                        Some(Verdict::Done)
                    }
                };
                let verdicts: Option<Vec<Verdict>> =
                    orders.iter().map(|ordered| verdict(&ordered.id, &mut seen)).collect();
                for ordered in orders {
                    drop(to.orders.send(ordered));
                }
                if let Some(verdicts) = verdicts {
                    reply.send(verdicts);
                }
            }
            sharing::Msg::NextForBus { verb, after, limit, reply } => {
                let limit = usize::try_from(limit).unwrap();
                let next = seen.waiting.iter().filter(|one| one.verb == verb && one.id > after);
                reply.send(next.take(limit).cloned().collect());
            }
            sharing::Msg::Published { ids } => {
                seen.waiting.retain(|one| !ids.contains(&one.id));
                seen.published.extend(ids);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Stands where health would.
struct Health;

impl Actor for Health {
    type Msg = Envelope<health::Msg>;
    type State = Neighbours;
    type Arguments = Neighbours;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, shared: Neighbours) -> Result<Neighbours, ActorProcessingErr> {
        Ok(shared)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        to: &mut Neighbours,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            // Shown with a test that fails.
            health::Msg::Noted { kind, subject, detail } => {
                println!("note {kind}: {subject}: {detail}");
                drop(to.heard.send(Heard::Note(kind, format!("{subject}: {detail}"))));
            }
            health::Msg::Trouble { what, remedy } => {
                println!("trouble {what}: {remedy:?}");
                drop(to.heard.send(Heard::Trouble(what, remedy)));
            }
            _ => {}
        }
        Ok(())
    }
}

/// A bridge with stand-ins for its neighbours.
pub(crate) struct Member {
    pub(crate) keys: Keys,
    context: Context,
    root: Root,
    seen: Arc<Mutex<Seen>>,
    orders: mpsc::UnboundedReceiver<Ordered>,
    heard: mpsc::UnboundedReceiver<Heard>,
    orders_heard: usize,
    _folder: tempfile::TempDir,
}

impl Member {
    pub(crate) async fn start(settings: bus::Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::from_seed([1; 32]);
        let supervision = supervision::Settings {
            restarts_max: 1_000,
            pause_first: Duration::from_millis(1),
            pause_max: Duration::from_millis(10),
            ..supervision::Settings::default()
        };
        let tree = Tree::new(Clock::real(), Chance::unforeseen(), supervision);
        let settings = Settings { bus: settings, ..Settings::default() };
        let context = Context::new(Shared {
            own: Own {
                peer_id: keys.peer_id(),
                did: keys.did().to_string(),
                name: "paris".to_owned(),
                role: Role { node: true, indexer: false },
                agent: String::new(),
                network_id: String::new(),
                network_key: String::new(),
                profile: Profile::Local,
                born_at: Timestamp::now(),
            },
            keys: keys.clone(),
            network_key: None,
            database: database(folder.path(), &settings).await,
            live: tokio::sync::watch::Sender::new(std::sync::Arc::new(settings.clone())),
            revoked: tokio::sync::watch::Sender::default(),
            settings,
            addresses: Addresses::new(&tree),
            stats: Stats::default(),
            traces: actors::traces::Traces::default(),
            tree: tree.clone(),
            fatal: CancellationToken::new(),
            pulse: tokio::sync::watch::Sender::default(),
        });
        // Unbounded: what one test orders and hears, a few thousand, and gone with it.
        let (to_orders, orders) = mpsc::unbounded_channel();
        let (to_heard, heard) = mpsc::unbounded_channel();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let neighbours = Neighbours { seen: seen.clone(), orders: to_orders, heard: to_heard };
        let (for_health, for_sharing, for_bridge) = (neighbours.clone(), neighbours, context.clone());
        let children = vec![
            ChildSpec::new(&context.addresses.health, Health, move |_| for_health.clone()),
            ChildSpec::new(&context.addresses.sharing, Sharing, move |_| for_sharing.clone()),
            ChildSpec::new(&context.addresses.bridge, Bridge, move |seat| bridge::Args {
                seat,
                context: for_bridge.clone(),
            }),
        ];
        let root = Root::start(&tree, children).await.unwrap();
        Self { keys, context, root, seen, orders, heard, orders_heard: 0, _folder: folder }
    }

    /// What the next batches of orders are answered with; `Done` after that.
    pub(crate) fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.seen.lock().unwrap().answers.extend(answers);
    }

    /// Something waits to be told.
    pub(crate) fn announce(&self, announcements: impl IntoIterator<Item = Announcement>) {
        self.seen.lock().unwrap().waiting.extend(announcements);
        // While it is being restarted it looks by itself.
        drop(self.context.addresses.bridge.tell(Class::Control, bridge::Msg::Waiting));
    }

    /// The next orders that were handed over.
    pub(crate) async fn orders(&mut self, count: usize) -> Vec<Ordered> {
        let mut orders = Vec::new();
        while orders.len() < count {
            orders.push(within("an order is handed over", self.orders.recv()).await.unwrap());
            self.orders_heard += 1;
        }
        orders
    }

    /// How many were handed over until now.
    pub(crate) fn orders_heard(&mut self) -> usize {
        while self.orders.try_recv().is_ok() {
            self.orders_heard += 1;
        }
        self.orders_heard
    }

    /// Waits until the bridge says that it is on the bus in this mode.
    pub(crate) async fn joined(&mut self, mode: &str) {
        while !self.noted("bus_joined").await.ends_with(mode) {}
    }

    /// The next note of this kind.
    pub(crate) async fn noted(&mut self, kind: &str) -> String {
        loop {
            if let Heard::Note(noted, text) = within(kind, self.heard.recv()).await.unwrap()
                && noted == kind
            {
                return text;
            }
        }
    }

    /// The next trouble of this topic.
    pub(crate) async fn trouble(&mut self, topic: &str) -> String {
        loop {
            if let Heard::Trouble(what, Some(remedy)) = within(topic, self.heard.recv()).await.unwrap()
                && what == topic
            {
                return remedy;
            }
        }
    }

    /// Waits until a topic's trouble is said to be over.
    pub(crate) async fn trouble_over(&mut self, topic: &str) {
        while !matches!(within(topic, self.heard.recv()).await.unwrap(), Heard::Trouble(what, None) if what == topic) {}
    }

    pub(crate) async fn look(&self) -> BridgeView {
        self.context.addresses.bridge.ask(Class::Control, bridge::Msg::Look, SOON).await.unwrap()
    }

    /// Waits until the bridge shows itself so.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&BridgeView) -> bool) {
        let looked = async {
            while !holds(&self.look().await) {
                tokio::time::sleep(LOOK).await;
            }
        };
        if timeout(SOON, looked).await.is_err() {
            panic!("not within {SOON:?}: {what}: {:?}", self.look().await);
        }
    }

    /// Waits until all of these announcements are said to be on the bus.
    pub(crate) async fn until_published(&self, count: u64) {
        self.until_seen(|seen| seen.waiting.is_empty() && seen.published.len() as u64 >= count).await;
    }

    /// Waits until this announcement is said to be on the bus, and tells how many wait still.
    pub(crate) async fn until_published_one(&self, id: u64) -> usize {
        self.until_seen(|seen| seen.published.contains(&id)).await;
        self.seen.lock().unwrap().waiting.len()
    }

    /// Waits until so many different orders were carried out.
    pub(crate) async fn until_ordered(&self, count: usize) {
        self.until_seen(|seen| seen.ordered.len() >= count).await;
    }

    async fn until_seen(&self, holds: impl Fn(&Seen) -> bool) {
        let looked = async {
            while !holds(&self.seen.lock().unwrap()) {
                tokio::time::sleep(LOOK).await;
            }
        };
        within("the stand-in saw it", looked).await;
    }

    /// One of the counters that `/metrics` shows.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        match name {
            "muster_bus_forged_total" => self.context.stats.bus_forged.get() as f64,
            other => panic!("{other}"),
        }
    }

    /// Strikes the bridge; a bridge that is just being restarted is struck enough.
    pub(crate) fn inject(&self, fault: Fault) {
        drop(self.context.tree.inject("root/bridge", fault));
    }

    pub(crate) async fn stop(self) {
        assert_eq!(self.root.stop().await, Ended::Stopped);
        self.context.database.close().await;
    }
}

async fn database(folder: &Path, settings: &Settings) -> Store {
    Store::open(&folder.join("muster.db"), &settings.store, Timestamp::now()).await.unwrap().store
}

/// A whole member.
pub(crate) struct Inside {
    running: Running,
    _folder: tempfile::TempDir,
}

impl Inside {
    pub(crate) async fn start(bus: bus::Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings { bus, ..Settings::default() };
        settings.network.profile = Profile::Local;
        settings.network.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        let database = database(folder.path(), &settings).await;
        let start = Start {
            name: "paris".to_owned(),
            role: Role { node: true, indexer: false },
            did: String::new(),
            network_id: "test".to_owned(),
            keys: Keys::from_seed([1; 32]),
            network_key: None,
            settings,
            database,
            clock: Clock::real(),
            chance: Chance::unforeseen(),
            traces: actors::traces::Traces::default(),
        };
        Self { running: actors::start(start).await.unwrap(), _folder: folder }
    }

    pub(crate) fn peer_id(&self) -> String {
        self.running.handle().peer_id().to_string()
    }

    /// What a service answers as soon as it is there.
    pub(crate) async fn answered(&self, client: &async_nats::Client, subject: &'static str) -> serde_json::Value {
        let asked = async {
            loop {
                if let Ok(answer) = client.request(subject, "{}".into()).await {
                    return serde_json::from_slice(&answer.payload).unwrap();
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        within("the service answers", asked).await
    }

    pub(crate) async fn stop(self) {
        self.running.stop().await;
    }
}
