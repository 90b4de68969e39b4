//! The life of a member: configuration → keys → lock → admin port → tree → signals → a polite end.

use std::{
    fs::DirBuilder,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use protocol::identity::{Keys, PreSharedKey};
use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    admin::{self, Rules, Tree},
    cli::{
        ADMIN_ADDRESS,
        exit::{Exit, Failure},
    },
    config::Config,
    keys::{self, AdminToken, FolderLock},
};

/// The leave phase has 10 s; the rest of the tree ends within two more.
const STOP_WITHIN: Duration = Duration::from_secs(12);

/// What a tree is started with.
pub(crate) struct Start<'a> {
    /// All settings, checked.
    pub(crate) config: &'a Config,
    /// The member's identity.
    pub(crate) keys: Keys,
    /// The network's key; none in an open network.
    pub(crate) network_key: Option<PreSharedKey>,
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
    /// Leaves politely, then ends every actor; bounded by the tree to 10 s and a little.
    fn stop(&mut self) -> BoxFuture<'_, ()>;
    /// Waits until the tree ends by itself.
    fn ended(&mut self) -> BoxFuture<'_, Ended>;
}

/// Starts the tree of this member.
async fn start_tree(start: Start<'_>) -> Result<Box<dyn Running>, Failure> {
    let _ = start;
    Err(Failure::new(Exit::Internal, "this build has no tree to start"))
}

/// Runs a member until a signal or a broken promise.
///
/// # Errors
/// What keeps it from starting (78; a folder or port in use 1), how its tree ended (70, 74), or a second signal (130).
pub(crate) async fn run(config: &Config, chaos: bool) -> Result<(), Failure> {
    live(config, chaos, Signals::listen()?, async |start| start_tree(start).await).await
}

async fn live<'a>(
    config: &'a Config,
    chaos: bool,
    mut signals: Signals,
    start: impl AsyncFnOnce(Start<'a>) -> Result<Box<dyn Running>, Failure>,
) -> Result<(), Failure> {
    config.warnings.iter().for_each(|warning| warn!("{warning}"));
    let (keys, network_key) = secrets(config)?;
    let data = config.data();
    make_folder(&data)?;
    let _lock = FolderLock::take(&data)?;
    // The ports first: a start that fails on one leaves nothing behind.
    let Some(listener) = signals.unless_told(admin::bind(config.settings.admin.listen)).await.transpose()? else {
        return Ok(());
    };
    let peer_id = keys.peer_id();
    info!(name = config.name(), %peer_id, version = env!("CARGO_PKG_VERSION"), "starting");
    let Some(mut running) = signals.unless_told(start(Start { config, keys, network_key })).await.transpose()? else {
        return Ok(());
    };
    let door = Door::open(listener, &data, config, chaos, running.tree())?;
    info!(admin = %door.address, %peer_id, "running");
    tell_systemd(&[NotifyState::Ready]);
    let outcome = tokio::select! {
        ended = running.ended() => Err(broken(&ended)),
        () = signals.next() => polite(running.as_mut(), &mut signals).await,
    };
    door.close().await;
    outcome
}

/// Leaves and ends; a second signal ends at once.
async fn polite(running: &mut dyn Running, signals: &mut Signals) -> Result<(), Failure> {
    info!("leaving; a second signal ends at once");
    tell_systemd(&[NotifyState::Stopping]);
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
fn secrets(config: &Config) -> Result<(Keys, Option<PreSharedKey>), Failure> {
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

/// Nothing happens where no service manager listens.
fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "the service manager could not be told");
    }
}

/// The admin endpoint while it is open, and the file that tells where it is.
struct Door {
    address: SocketAddr,
    file: PathBuf,
    end: CancellationToken,
    serving: Option<JoinHandle<()>>,
}

impl Door {
    fn open(
        listener: TcpListener,
        data: &Path,
        config: &Config,
        chaos: bool,
        tree: Arc<dyn Tree>,
    ) -> Result<Self, Failure> {
        let address = listener
            .local_addr()
            .map_err(|cause| Failure::new(Exit::Failed, "the admin port cannot be told").why(cause.to_string()))?;
        let token = AdminToken::read_or_create(data, &mut rand::rng())?;
        let rules = Rules { ip: address.ip(), hosts: config.settings.admin.hosts.clone(), token, chaos };
        let end = CancellationToken::new();
        let serving = tokio::spawn(admin::serve(listener, admin::router(tree, rules), end.clone()));
        let door = Self { address, file: data.join(ADMIN_ADDRESS), end, serving: Some(serving) };
        keys::replace(&door.file, format!("{address}\n").as_bytes())?;
        Ok(door)
    }

    async fn close(mut self) {
        self.end.cancel();
        if let Some(serving) = self.serving.take() {
            // A panic of the endpoint has been told by the panic hook.
            let _ = serving.await;
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.end.cancel();
        // So that verbs say at once that nobody is there.
        let _ = std::fs::remove_file(&self.file);
    }
}

/// The signals that end a daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|cause| Failure::new(Exit::Failed, "cannot hear signals").why(cause.to_string()))
        };
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// What the work gives, or nothing when a signal came first.
    async fn unless_told<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.next() => None,
        }
    }
}
