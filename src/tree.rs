//! From settings to a running tree: opens the database, hands every rule its settings, and starts the actors.

use std::{path::PathBuf, sync::Arc};

use actors::{
    End, Start as ActorsStart,
    settings::{Network, Node, Settings as ActorsSettings},
    supervision::{Chance, Clock},
};
use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use protocol::identity::Keys;
use store::{OpenError, Store};
use tracing::{info, warn};

use crate::{
    admin::Tree,
    archive,
    cli::exit::{Exit, Failure},
    config::{Config, Settings},
    daemon::{Ended, Running, Start},
    live::Offers,
    traces::{self, Exporting, Whose},
    watchdog::Pulse,
};

/// The database's file in the folder of data.
pub(crate) const DATABASE: &str = "muster.db";

/// A tree that runs, until it is stopped, and what takes its spans.
struct Live(Option<actors::Running>, Option<Exporting>);

/// Opens the database and starts the actors.
///
/// # Errors
/// When the database cannot be used (78, 74 for its disk, 1 for a server that is away), or a part of the tree does not start (70).
pub(crate) async fn start(start: Start) -> Result<Box<dyn Running>, Failure> {
    let Start { config, keys, network_key } = start;
    let settings = &config.settings;
    let is_rotating = network_key.as_ref().is_some_and(|keys| keys.next().is_some());
    let whose = Whose { name: config.name(), peer_id: keys.peer_id().to_string() };
    let (traces, exporting) = traces::start(&settings.traces, &whose)?;
    let database = open(&config, &keys).await?;
    let running = actors::start(ActorsStart {
        name: config.name(),
        role: settings.node.mode.role(),
        did: settings.node.did.clone(),
        network_id: settings.network.id.clone(),
        keys,
        network_key,
        settings: settings_of(&config, settings, is_rotating),
        database,
        clock: Clock::real(),
        chance: Chance::unforeseen(),
        traces,
    })
    .await
    .map_err(|failure| Failure::new(Exit::Internal, "the tree of actors did not start").why(failure.to_string()))?;
    Ok(Box::new(Live(Some(running), exporting)))
}

async fn open(config: &Config, keys: &Keys) -> Result<Store, Failure> {
    let (settings, now) = (&config.settings.store, Timestamp::now());
    let opened = if settings.url.is_empty() {
        Store::open(&config.data().join(DATABASE), settings, now).await
    } else {
        Store::connect(&settings.url, &keys.peer_id(), settings, now).await
    };
    let opened = opened.map_err(|error| unusable(&error))?;
    if let Some(set_aside) = &opened.set_aside {
        warn!(
            damage = %set_aside.damage,
            kept = %set_aside.path.display(),
            "the database was damaged: it was set aside, and a new one is filled from the network"
        );
    }
    leap(config, keys, &opened.store).await?;
    Ok(opened.store)
}

/// After a restore the sequence leaps past all that the lost member may have signed since its backup; once.
async fn leap(config: &Config, keys: &Keys, store: &Store) -> Result<(), Failure> {
    let Some(taken_at) = archive::restored(&config.data())? else { return Ok(()) };
    let did = match config.settings.node.did.as_str() {
        "" => keys.did().to_string(),
        did => did.to_owned(),
    };
    let refused = |why: String| Failure::new(Exit::InputOutput, "the sequence could not leap ahead").why(why);
    let seq = store.leap_seq(&did, taken_at, Timestamp::now()).await.map_err(|error| refused(error.to_string()))?;
    archive::forget_restored(&config.data()).map_err(|cause| refused(cause.to_string()))?;
    info!(%taken_at, seq, "restored from a backup: the sequence of our records goes on further ahead");
    Ok(())
}

/// Why the database cannot be used, as the end of a start.
pub(crate) fn unusable(error: &OpenError) -> Failure {
    let exit = match error {
        error if error.is_io() => Exit::InputOutput,
        // A server may only be late: it is worth another start.
        error if error.is_away() => Exit::Failed,
        _ => Exit::Configuration,
    };
    Failure::new(exit, "the database cannot be used").why(error.to_string()).next(error.remedy())
}

/// What the actors of this member are set by, where its settings are these and the network's key is being replaced or not.
pub(crate) fn settings_of(config: &Config, settings: &Settings, is_rotating: bool) -> ActorsSettings {
    let rest = of(settings, is_rotating);
    ActorsSettings { bus: config.bus(), webhook: config.webhook(), data: config.data(), ..rest }
}

/// What the actors are set by.
fn of(settings: &Settings, is_rotating: bool) -> ActorsSettings {
    ActorsSettings {
        node: Node {
            api_url: settings.node.api_url.clone(),
            nats_address: settings.node.nats_address.clone(),
            wallet_address: settings.node.wallet_address.clone(),
            light: settings.node.light,
        },
        network: Network {
            profile: settings.network.profile,
            private_ranges: settings.network.private_ranges.clone(),
            listen: settings.network.listeners(),
            listen_next: if is_rotating { settings.network.next_listeners() } else { Vec::new() },
            announce: settings.network.announced(is_rotating),
            seeds: settings.network.seeds.clone(),
            mdns: settings.network.mdns,
        },
        pool: settings.pool.clone(),
        heartbeat: settings.heartbeat.clone(),
        score: settings.score.clone(),
        audit: settings.audit.clone(),
        gate: settings.gate.clone(),
        behaviour: settings.behaviour.clone(),
        search: settings.search.clone(),
        dht: settings.dht.clone(),
        // These are found from the folder of the configuration, which is not known here.
        bus: protocol::bus::Settings::default(),
        webhook: protocol::webhook::Settings::default(),
        data: PathBuf::default(),
        alerts: settings.alerts.clone(),
        store: settings.store.clone(),
        supervision: settings.supervision.clone(),
    }
}

/// The pulse of a tree, in words.
struct Felt(actors::supervision::Pulse);

impl Pulse for Felt {
    fn beat(&mut self) -> Vec<String> {
        self.0.beat().iter().map(ToString::to_string).collect()
    }
}

impl Running for Live {
    fn tree(&self) -> Arc<dyn Tree> {
        let running = self.0.as_ref().expect("a tree is asked for before it is stopped");
        Arc::new(running.handle().clone())
    }

    fn pulse(&self) -> Box<dyn Pulse> {
        let running = self.0.as_ref().expect("a tree is felt before it is stopped");
        Box::new(Felt(running.pulse()))
    }

    fn offers(&self) -> Arc<dyn Offers> {
        let running = self.0.as_ref().expect("a tree is asked for before it is stopped");
        Arc::new(running.handle().clone())
    }

    fn stop(&mut self) -> BoxFuture<'_, ()> {
        let (running, exporting) = (self.0.take(), self.1.take());
        async move {
            if let Some(running) = running {
                running.stop().await;
            }
            // Last, so that what ended with the tree is sent as well.
            if let Some(exporting) = exporting {
                exporting.close().await;
            }
        }
        .boxed()
    }

    fn ended(&mut self) -> BoxFuture<'_, Ended> {
        async move {
            let Some(running) = self.0.as_mut() else { return std::future::pending().await };
            match running.ended().await {
                End::Tree(cause) => Ended::Root(cause),
                End::Disk => Ended::Disk("the database could not be written".to_owned()),
            }
        }
        .boxed()
    }
}
