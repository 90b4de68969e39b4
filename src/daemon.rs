//! The life of a member: configuration → keys → lock → admin port → tree → signals → a polite end.

use std::{
    fs::DirBuilder,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router};
use futures::future::BoxFuture;
use protocol::{identity::Keys, keyring::Keyring as NetworkKeys};
use sd_notify::NotifyState;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    admin::{self, Keyring, Listener, Rules, SocketFile, Trail, Tree},
    cli::{
        ADMIN_ADDRESS, ADMIN_SOCKET,
        exit::{Exit, Failure},
    },
    config::Config,
    keys::{self, AdminToken, FolderLock},
    live::{Live, Offers},
    ports,
    telemetry::Log,
    tree,
    watchdog::{self, Pulse},
};

/// The leave phase has 10 s; the rest of the tree ends within two more.
const STOP_WITHIN: Duration = Duration::from_secs(12);

/// What a tree is started with.
pub(crate) struct Start {
    /// All settings, checked.
    pub(crate) config: Config,
    /// The member's identity.
    pub(crate) keys: Keys,
    /// The network's key; none in an open network.
    pub(crate) network_key: Option<NetworkKeys>,
}

/// Why a tree ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The root's restart budget is spent.
    Root(String),
    /// The disk did not keep what it was given: never tried again, since nobody knows what it kept.
    Disk(String),
}

/// A tree that runs.
pub(crate) trait Running: Send {
    /// The way in for the admin endpoint.
    fn tree(&self) -> Arc<dyn Tree>;
    /// Whether its critical actors answer.
    fn pulse(&self) -> Box<dyn Pulse>;
    /// The way in for changes of settings.
    fn offers(&self) -> Arc<dyn Offers>;
    /// Leaves politely, then ends every actor; bounded by the tree to 10 s and a little.
    fn stop(&mut self) -> BoxFuture<'_, ()>;
    /// Waits until the tree ends by itself.
    fn ended(&mut self) -> BoxFuture<'_, Ended>;
}

/// Runs a member until a signal or a broken promise.
///
/// # Errors
/// What keeps it from starting (78; a folder or port in use 1), how its tree ended (70, 74), or a second signal (130).
pub(crate) async fn run(config: &Config, chaos: bool, log: Log) -> Result<(), Failure> {
    live(config, chaos, log, Signals::listen()?, tree::start).await
}

async fn live<Starting: Future<Output = Result<Box<dyn Running>, Failure>>>(
    config: &Config,
    chaos: bool,
    log: Log,
    mut signals: Signals,
    start: impl FnOnce(Start) -> Starting,
) -> Result<(), Failure> {
    config.warnings.iter().for_each(|warning| warn!("{warning}"));
    let (keys, network_key) = secrets(config)?;
    let data = config.data();
    make_folder(&data)?;
    let _lock = FolderLock::take(&data)?;
    let is_rotating = network_key.as_ref().is_some_and(|keys| keys.next().is_some());
    // The ports first: a start that fails on one leaves nothing behind.
    let ports = async {
        let network = &config.settings.network;
        ports::wait_free(&network.listeners(), ports::Use::Network).await?;
        if is_rotating {
            ports::wait_free(&network.next_listeners(), ports::Use::NextKey).await?;
        }
        ports::bind(config.settings.admin.listen, ports::Use::Admin).await
    };
    let Some(listener) = signals.unless_told(ports).await.transpose()? else { return Ok(()) };
    let socket = match config.admin_socket() {
        Some(path) => Some(admin::socket::listen(&path).await?),
        None => None,
    };
    // Before the tree as well: a member that cannot be administered is not started.
    let token = AdminToken::read_or_create(&data, &mut rand::rng())?;
    let keyring = Arc::new(Keyring::open(&data, &token)?);
    let trail = Trail::open(&data).map_err(|cause| unwritable_trail(&data, &cause))?;
    let peer_id = keys.peer_id();
    info!(name = config.name(), %peer_id, version = env!("CARGO_PKG_VERSION"), "starting");
    let Some(mut running) =
        signals.unless_told(start(Start { config: config.clone(), keys, network_key })).await.transpose()?
    else {
        return Ok(());
    };
    let hosts = config.settings.admin.hosts.clone();
    let settings = Live::begin((config, is_rotating), log, running.offers(), signals.hangup.take());
    let tree = running.tree();
    let router = |ip| {
        let rules = Rules { ip, hosts: hosts.clone(), keyring: Arc::clone(&keyring), trail: trail.clone(), chaos };
        admin::router(Arc::clone(&tree), rules).layer(Extension(settings.clone()))
    };
    let door = match Door::open(listener, socket, &data, router) {
        Ok(door) => door,
        Err(failure) => {
            running.stop().await;
            return Err(failure);
        }
    };
    info!(admin = %door.address, %peer_id, "running");
    let pulse = running.pulse();
    watchdog::tell(&[NotifyState::Ready]);
    let outcome = tokio::select! {
        never = watchdog::feed(pulse, watchdog::tell) => match never {},
        ended = running.ended() => Err(broken(&ended)),
        () = signals.next() => polite(running.as_mut(), &mut signals).await,
    };
    door.close().await;
    outcome
}

/// Leaves and ends; a second signal ends at once.
async fn polite(running: &mut dyn Running, signals: &mut Signals) -> Result<(), Failure> {
    info!("leaving; a second signal ends at once");
    watchdog::tell(&[NotifyState::Stopping]);
    tokio::select! {
        done = timeout(STOP_WITHIN, running.stop()) => match done {
            Ok(()) => info!("ended"),
            Err(_) => warn!(after = ?STOP_WITHIN, "some actors did not end in time and are left"),
        },
        () = signals.next() => return Err(Failure::new(Exit::Interrupted, "ended before leaving was done")),
    }
    Ok(())
}

fn broken(ended: &Ended) -> Failure {
    match ended {
        Ended::Root(why) => Failure::new(Exit::Internal, "the tree of actors ended by itself")
            .why(why.clone())
            .next("start it again; if it happens often, the log tells which actor spent its restarts"),
        Ended::Disk(why) => Failure::new(Exit::InputOutput, "the disk did not keep what it was given")
            .why(why.clone())
            .next("look at the disk and its file system before the next start"),
    }
}

/// Reads both keys, and refuses a DID that is another key's.
fn secrets(config: &Config) -> Result<(Keys, Option<NetworkKeys>), Failure> {
    let keys = keys::identity(&config.key())?;
    let network_key = config.psk().map(|path| keys::network_key(&path)).transpose()?;
    let did = &config.settings.node.did;
    let own = keys.did().to_string();
    if did.starts_with("did:key:") && *did != own {
        return Err(Failure::new(Exit::Configuration, format!("node.did {did} is another key's"))
            .why(format!("the key {} is {own}", config.key().display()))
            .next("leave node.did empty, or restore the key that it belongs to"));
    }
    Ok((keys, network_key))
}

fn make_folder(data: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(|cause| {
        Failure::new(Exit::Configuration, format!("cannot make the folder {}", data.display()))
            .why(cause.to_string())
            .next("correct files.data or the permissions and start again")
    })
}

fn unwritable_trail(data: &Path, cause: &std::io::Error) -> Failure {
    Failure::new(Exit::Configuration, format!("the audit log in {} cannot be opened", data.display()))
        .why(cause.to_string())
        .next("correct files.data or the permissions and start again")
}

/// The admin endpoint while it is open, and the file that tells where it is.
struct Door {
    address: SocketAddr,
    /// Tell where it is.
    files: Vec<PathBuf>,
    end: CancellationToken,
    serving: Vec<JoinHandle<()>>,
    /// Removes its file when it is dropped.
    socket: Option<SocketFile>,
}

impl Door {
    fn open(
        listener: TcpListener,
        socket: Option<(UnixListener, SocketFile)>,
        data: &Path,
        router: impl Fn(IpAddr) -> Router,
    ) -> Result<Self, Failure> {
        let address = listener
            .local_addr()
            .map_err(|cause| Failure::new(Exit::Failed, "the admin port cannot be told").why(cause.to_string()))?;
        let names = (data.join(ADMIN_ADDRESS), data.join(ADMIN_SOCKET));
        // That of an earlier life, which may have been told to listen elsewhere.
        let _ = std::fs::remove_file(&names.1);
        let mut door =
            Self { address, files: Vec::new(), end: CancellationToken::new(), serving: Vec::new(), socket: None };
        if let Some((listener, file)) = socket {
            door.tell(names.1, &format!("{}\n", absolute(file.path()).display()))?;
            // Whoever reaches it is on this machine.
            door.serve(Listener::Unix(listener), router(Ipv4Addr::LOCALHOST.into()));
            door.socket = Some(file);
        }
        // Told before it answers: whoever got an answer is found by the commands, too.
        door.tell(names.0, &format!("{address}\n"))?;
        door.serve(Listener::Tcp(listener), router(address.ip()));
        Ok(door)
    }

    fn serve(&mut self, listener: Listener, router: Router) {
        self.serving.push(tokio::spawn(admin::serve(listener, router, self.end.clone())));
    }

    fn tell(&mut self, file: PathBuf, text: &str) -> Result<(), Failure> {
        self.files.push(file.clone());
        Ok(keys::replace(&file, text.as_bytes())?)
    }

    async fn close(mut self) {
        self.end.cancel();
        for serving in self.serving.drain(..) {
            // A panic of the endpoint has been told by the panic hook.
            let _ = serving.await;
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl Drop for Door {
    fn drop(&mut self) {
        self.end.cancel();
        // So that verbs say at once that nobody is there.
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// The signals that a daemon hears, as they come.
struct Signals {
    /// Those that end it.
    ends: mpsc::Receiver<()>,
    /// The one that has it read its configuration again.
    hangup: Option<Signal>,
}

impl Signals {
    /// Hears SIGTERM, SIGINT and SIGHUP from now on.
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|cause| Failure::new(Exit::Failed, "cannot hear signals").why(cause.to_string()))
        };
        let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let hangup = Some(listen(SignalKind::hangup())?);
        // The first asks to leave, the second to end at once; a third says nothing new.
        let (heard, ends) = mpsc::channel(2);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    () = heard.closed() => return,
                }
                let _ = heard.try_send(());
            }
        });
        Ok(Self { ends, hangup })
    }

    async fn next(&mut self) {
        if self.ends.recv().await.is_none() {
            // Nobody can signal any more.
            std::future::pending::<()>().await;
        }
    }

    /// What the work gives, or nothing when a signal came first.
    async fn unless_told<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            // What is done is taken before it is dropped: a tree that runs wants to be stopped, not forgotten.
            biased;
            done = work => Some(done),
            () = self.next() => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{collections::BTreeMap, fs};

    use futures::FutureExt as _;
    use tempfile::TempDir;
    use tokio::sync::{oneshot, watch};

    use super::*;
    use crate::{
        admin::testing::Still,
        cli::{
            client::Client,
            init::{self, Plan},
        },
        config::{self, Flags},
    };

    /// A tree that ends when it is told to.
    struct Fake {
        is_stopped: watch::Sender<bool>,
        /// It never finishes its stop.
        hangs: bool,
        ended: Option<Ended>,
    }

    impl Running for Fake {
        fn tree(&self) -> Arc<dyn Tree> {
            Arc::new(Still::default())
        }

        fn pulse(&self) -> Box<dyn Pulse> {
            Box::new(Vec::new)
        }

        fn offers(&self) -> Arc<dyn Offers> {
            Arc::new(crate::live::testing::Willing::default())
        }

        fn stop(&mut self) -> BoxFuture<'_, ()> {
            self.is_stopped.send_replace(true);
            if self.hangs { std::future::pending().boxed() } else { std::future::ready(()).boxed() }
        }

        fn ended(&mut self) -> BoxFuture<'_, Ended> {
            match self.ended.clone() {
                Some(ended) => std::future::ready(ended).boxed(),
                None => std::future::pending().boxed(),
            }
        }
    }

    struct Member {
        folder: TempDir,
        config: Config,
        signal: mpsc::Sender<()>,
        signals: Option<Signals>,
        is_stopped: watch::Sender<bool>,
    }

    fn member() -> Member {
        member_with(&[])
    }

    fn member_with(settings: &[(&str, &str)]) -> Member {
        let folder = tempfile::tempdir().unwrap();
        let mut plan = Plan { dir: folder.path().join("paris"), ..Plan::default() };
        plan.set("admin.listen", "127.0.0.1:0");
        plan.set("network.port", 0);
        settings.iter().for_each(|(key, value)| plan.set(key, *value));
        let created = init::create(&plan).unwrap();
        let config = config::load(&created.config, &BTreeMap::new(), &Flags::default()).unwrap();
        let (signal, signals) = mpsc::channel(2);
        Member {
            folder,
            config,
            signal,
            signals: Some(Signals { ends: signals, hangup: None }),
            is_stopped: watch::Sender::new(false),
        }
    }

    impl Member {
        async fn live(
            &mut self,
            hangs: bool,
            ended: Option<Ended>,
            started: oneshot::Sender<()>,
        ) -> Result<(), Failure> {
            let fake = Fake { is_stopped: self.is_stopped.clone(), hangs, ended };
            let signals = self.signals.take().unwrap();
            live(&self.config, false, Log::silent(), signals, |_| async {
                let _ = started.send(());
                Ok(Box::new(fake) as Box<dyn Running>)
            })
            .await
        }

        fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
            let mut files = BTreeMap::new();
            let mut folders = vec![self.folder.path().to_owned()];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        folders.push(path)
                    } else {
                        drop(files.insert(path.clone(), fs::read(path).unwrap()))
                    }
                }
            }
            files
        }
    }

    #[tokio::test]
    async fn a_member_is_found_by_its_folder_while_it_runs_and_leaves_politely() {
        let mut member = member();
        let file = member.config.data().join(ADMIN_ADDRESS);
        let (signal, is_stopped) = (member.signal.clone(), member.is_stopped.subscribe());
        let (started, has_started) = oneshot::channel();
        let running = tokio::spawn(async move { (member.live(false, None, started).await, member) });
        has_started.await.unwrap();
        // The file is written right after the tree has started.
        let address = tokio::task::spawn_blocking({
            let file = file.clone();
            move || loop {
                match fs::read_to_string(&file) {
                    Ok(text) => break text.trim().to_owned(),
                    Err(_) => std::thread::yield_now(),
                }
            }
        })
        .await
        .unwrap();
        let alive: serde_json::Value = Client::to(address).get("/healthz").await.unwrap();
        assert_eq!(alive, serde_json::json!({ "alive": true }));
        assert!(!*is_stopped.borrow());
        signal.send(()).await.unwrap();
        let (outcome, member) = running.await.unwrap();
        outcome.unwrap();
        assert!(*is_stopped.borrow());
        assert!(!file.exists(), "nobody answers there any more");
        FolderLock::take(&member.config.data()).unwrap();
    }

    #[tokio::test]
    async fn a_second_signal_ends_at_once() {
        let mut member = member();
        let (signal, mut is_stopped) = (member.signal.clone(), member.is_stopped.subscribe());
        let (started, has_started) = oneshot::channel();
        let running = tokio::spawn(async move { member.live(true, None, started).await });
        has_started.await.unwrap();
        signal.send(()).await.unwrap();
        is_stopped.wait_for(|is| *is).await.unwrap();
        signal.send(()).await.unwrap();
        assert_eq!(running.await.unwrap().unwrap_err().exit, Exit::Interrupted);
    }

    #[tokio::test]
    async fn the_roots_end_is_70_and_a_broken_disk_74() {
        for (ended, exit) in
            [(Ended::Root("spent".to_owned()), Exit::Internal), (Ended::Disk("fsync".to_owned()), Exit::InputOutput)]
        {
            let mut member = member();
            let failure = member.live(false, Some(ended), oneshot::channel().0).await.unwrap_err();
            assert_eq!(failure.exit, exit);
            assert!(!member.config.data().join(ADMIN_ADDRESS).exists());
        }
    }

    #[tokio::test]
    async fn a_second_run_on_one_folder_names_the_holder() {
        let mut member = member();
        let _held = FolderLock::take(&member.config.data()).unwrap();
        let failure = member.live(false, None, oneshot::channel().0).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(failure.what.contains(&format!("process {}", std::process::id())), "{failure}");
    }

    #[tokio::test]
    async fn p4_a_start_that_fails_on_a_key_changes_nothing() {
        for name in ["identity.pem", "swarm.key"] {
            let mut member = member();
            let path = member.config.folder.join(name);
            let whole = fs::read(&path).unwrap();
            fs::write(&path, &whole[..whole.len() / 2]).unwrap();
            let before = member.files();
            let failure = member.live(false, None, oneshot::channel().0).await.unwrap_err();
            assert_eq!(failure.exit, Exit::Configuration, "{failure}");
            assert!(failure.what.contains(name) && failure.next.is_some(), "{failure}");
            assert_eq!(member.files(), before);
        }
    }

    #[tokio::test]
    async fn a_damaged_token_stops_the_start_before_the_tree() {
        let mut member = member();
        fs::write(AdminToken::path(&member.config.data()), "not a token").unwrap();
        let (started, mut has_started) = oneshot::channel();
        let failure = member.live(false, None, started).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Configuration);
        assert!(has_started.try_recv().is_err(), "the tree was never started");
    }

    #[tokio::test]
    async fn a_did_of_another_key_stops_the_start() {
        let other = Keys::from_seed([9; 32]).did().to_string();
        let mut member = member_with(&[("node.did", &other)]);
        let failure = member.live(false, None, oneshot::channel().0).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Configuration);
        assert_eq!(failure.what, format!("node.did {other} is another key's"));
    }

    #[tokio::test]
    async fn an_open_network_needs_no_key() {
        let mut member = member();
        member.config.settings.network.private = false;
        fs::remove_file(member.config.folder.join("swarm.key")).unwrap();
        let ended = Some(Ended::Root(String::new()));
        assert_eq!(member.live(false, ended, oneshot::channel().0).await.unwrap_err().exit, Exit::Internal);
    }
}
