//! Whole members in one process, over real connections, that can be killed and come back to their folders; and stand-ins
//! for the neighbours of a single actor.

#![allow(clippy::unwrap_used)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use ::store::Store;
use protocol::{PeerId, identity::Keys, profile::Profile, wire::Role};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    context::Context,
    handle::Handle,
    root::{self, Running, Start},
    settings::Settings,
    supervision::{Chance, ChildSpec, Clock, Envelope, Failure},
};

pub(crate) const NODE: Role = Role { node: true, indexer: false };
pub(crate) const INDEXER: Role = Role { node: true, indexer: true };

/// Longer than anything takes here on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Nobody listens on the first port of all.
const BUS_AWAY: &str = "nats://127.0.0.1:1";

/// A whole member.
pub(crate) struct Member {
    pub(crate) running: Running,
    addr: String,
    seed: u8,
    /// How often it was started: each life has a chance of its own, for names of events are drawn by it.
    life: u64,
    role: Role,
    seeds: Vec<String>,
    bus: &'static str,
    folder: TempDir,
}

impl Member {
    /// One with a bus that is never there, so that what its applications hear waits in its outbox.
    pub(crate) async fn start(seed: u8, role: Role, seeds: &[&Self]) -> Self {
        Self::begin(seed, role, seeds, BUS_AWAY, root::start).await
    }

    /// One without a bus, so that what is in its outbox is for partners.
    pub(crate) async fn without_bus(seed: u8, role: Role, seeds: &[&Self]) -> Self {
        Self::begin(seed, role, seeds, "", root::start).await
    }

    /// The same with these for its tree.
    pub(crate) async fn with_tree(
        seed: u8,
        role: Role,
        seeds: &[&Self],
        children: impl FnOnce(&Context) -> Vec<ChildSpec>,
    ) -> Self {
        Self::begin(seed, role, seeds, "", async |start| root::start_with(start, children).await).await
    }

    async fn begin(
        seed: u8,
        role: Role,
        seeds: &[&Self],
        bus: &'static str,
        run: impl AsyncFnOnce(Start) -> Result<Running, Failure>,
    ) -> Self {
        let seeds = seeds.iter().map(|seed| seed.addr.clone()).collect();
        Self::start_in(tempfile::tempdir().unwrap(), (seed, 1), role, seeds, bus, run).await
    }

    /// Kills it and starts it again from what is on its disk.
    pub(crate) async fn killed_and_started(self) -> Self {
        let Self { running, addr, seed, life, role, seeds, bus, folder } = self;
        // Dropped and not stopped: nothing is said or written in leaving.
        let context = running.context().clone();
        drop(running);
        let port = addr.split('/').nth(4).and_then(|port| port.parse::<u16>().ok()).unwrap();
        let is_gone = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err().then_some(());
        until("nobody listens where it did", is_gone).await;
        context.database.close().await;
        Self::start_in(folder, (seed, life + 1), role, seeds, bus, root::start).await
    }

    async fn start_in(
        folder: TempDir,
        (seed, life): (u8, u64),
        role: Role,
        seeds: Vec<String>,
        bus: &'static str,
        run: impl AsyncFnOnce(Start) -> Result<Running, Failure>,
    ) -> Self {
        let keys = Keys::from_seed([seed; 32]);
        let mut settings = settings(&seeds);
        settings.bus.url = bus.to_owned();
        let start = start_of(&folder, &keys, role, settings, u64::from(seed) << 32 | life).await;
        let running = run(start).await.unwrap_or_else(|failure| panic!("{seed} does not start: {failure:?}"));
        let mut member = Self { running, addr: String::new(), seed, life, role, seeds, bus, folder };
        let listens = async || member.handle().status().await.ok()?.listen.first().map(ToString::to_string);
        let addr = until("it listens", listens).await;
        let peer = format!("/p2p/{}", member.peer());
        member.addr = if addr.ends_with(&peer) { addr } else { addr + &peer };
        member
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.running.handle()
    }

    pub(crate) fn context(&self) -> &Context {
        self.running.context()
    }

    pub(crate) fn keys(&self) -> Keys {
        Keys::from_seed([self.seed; 32])
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.handle().peer_id()
    }

    /// Waits until it finds the record of another: only then can it find its way there.
    pub(crate) async fn finds(&self, other: &Self) {
        let key = other.peer().to_string();
        until("it finds the other's record", async || self.handle().record(&key).await.ok()?.pop()).await;
    }
}

fn settings(seeds: &[String]) -> Settings {
    let mut settings = Settings::default();
    settings.network.profile = Profile::Local;
    settings.network.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    settings.network.seeds = seeds.iter().map(|seed| seed.parse().unwrap()).collect();
    settings.gate.sessions_per_subnet = Profile::Local.sessions_per_subnet();
    settings.heartbeat.every = Duration::from_secs(2);
    settings.heartbeat.gap_min = Duration::from_millis(200);
    settings.heartbeat.ceiling = 60;
    // Who is asked goes where the test says: a node has one indexer and looks for no other.
    (settings.pool.min_indexer, settings.pool.max_indexer) = (1, 1);
    settings
}

/// What a member with its database in this folder is started with.
pub(crate) async fn start_of(folder: &TempDir, keys: &Keys, role: Role, settings: Settings, chance: u64) -> Start {
    let clock = Clock::real();
    let opened = Store::open(&folder.path().join("muster.db"), &settings.store, clock.now().wall).await.unwrap();
    Start {
        name: format!("member-{chance}"),
        role,
        did: String::new(),
        network_id: "testing".to_owned(),
        keys: keys.clone(),
        network_key: None,
        settings,
        database: opened.store,
        clock,
        chance: Chance::seeded(chance),
        traces: crate::traces::Traces::default(),
    }
}

/// Looks until there is something to see.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let by = Instant::now() + PATIENCE;
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    loop {
        looks.tick().await;
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < by, "not in {PATIENCE:?}: {what}");
    }
}

/// Stands where the actor of this kind of message does, and does with it what the test says; what it notes is the test's.
pub(crate) struct StandIn<M, T> {
    pub(crate) mind: Arc<Mutex<T>>,
    pub(crate) hear: fn(M, &mut T),
}

impl<M: Send + 'static, T: Send + 'static> Actor for StandIn<M, T> {
    type Msg = Envelope<M>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, envelope: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        (self.hear)(envelope.open(), &mut self.mind.lock().unwrap());
        Ok(())
    }
}
