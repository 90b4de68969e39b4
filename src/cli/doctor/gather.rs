//! Gathers the facts: reads files, tries ports, dials, asks the daemon. Everything has a deadline, and nothing is changed.

mod folder;
mod network;

use std::path::Path;

use actors::view::{ActorView, BridgeView};
use jiff::Timestamp;

use super::facts::{Asked, Daemon, DaemonFacts, Facts, FileFacts, Files, Lock};
use crate::{
    cli::{
        Context,
        client::Client,
        exit::{Exit, Failure},
    },
    config::{self, Config, Told},
};

/// All that can be known of the member that the verb is about.
///
/// # Errors
/// When no member is named: there is nothing to gather facts of.
pub(super) async fn facts(context: &Context) -> Result<Facts, Failure> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    if context.is_by_address() {
        let daemon = daemon(context.client()).await;
        return Ok(Facts { now: Timestamp::now(), version, files: Files::Elsewhere, daemon });
    }
    let file = context.config_file()?;
    let told = context.config().and_then(|config| {
        let told = config::tell(&file, context.environment.variables(), &config::Flags::default())?;
        Ok((config, told))
    });
    let (files, daemon) = match told {
        Err(failure) => {
            let why = "the configuration cannot be used, so nobody knows where it answers".to_owned();
            (Files::Unusable(failure), Daemon::NotSought(why))
        }
        Ok((config, told)) => {
            let (daemon, seen) = tokio::join!(daemon(context.client()), seen(&file, &config, &told));
            (Files::Seen(Box::new(seen)), daemon)
        }
    };
    Ok(Facts { now: Timestamp::now(), version, files, daemon })
}

async fn seen(file: &Path, config: &Config, told: &Told) -> FileFacts {
    let data = config.data();
    let settings = &config.settings;
    let (hold, lock) = folder::hold(&data);
    let is_free = lock == Lock::Free;
    let pid = if let Lock::Held(pid) = lock { pid } else { None };
    let (database, seeds, bus, is_open) = tokio::join!(
        folder::database(config, is_free),
        network::seeds(&settings.network.seeds),
        network::urls(&settings.bus.url, network::BUS_PORT),
        network::is_open(settings.admin.listen),
    );
    // Kept until the database was looked at, so that nobody opens it meanwhile.
    drop(hold);
    FileFacts {
        file: file.to_owned(),
        set: told.effective.iter().filter(|setting| !setting.is_default).count(),
        warnings: told.warnings.clone(),
        data: folder::look(&data),
        identity: folder::identity(config),
        network_key: folder::network_key(config),
        token: folder::token(&data),
        ports: if is_free { network::ports(settings) } else { Vec::new() },
        disk: folder::disk(&data),
        memory: folder::memory(&data, pid),
        descriptors: folder::descriptors(pid),
        settings: settings.clone(),
        lock,
        database,
        seeds,
        bus,
        is_open,
    }
}

/// What the daemon says. Whether one answers is asked of its vitals: they wait for no actor.
async fn daemon(client: Result<Client, Failure>) -> Daemon {
    let client = match client {
        Ok(client) => client,
        Err(failure) => return Daemon::Silent(failure),
    };
    let actors: Vec<ActorView> = match client.get("/api/v1/actors").await {
        Ok(actors) => actors,
        Err(failure) => return Daemon::Silent(failure),
    };
    let (status, alerts, samples, bus) = tokio::join!(
        client.get("/api/v1/status"),
        client.get("/api/v1/alerts"),
        client.get("/api/v1/alerts/history"),
        bus(&client),
    );
    Daemon::Answers(Box::new(DaemonFacts {
        address: client.authority().to_owned(),
        actors,
        status: asked(status),
        alerts: asked(alerts),
        samples: asked(samples),
        bus,
    }))
}

fn asked<T>(answer: Result<T, Failure>) -> Asked<T> {
    answer.map_err(|failure| failure.what)
}

async fn bus(client: &Client) -> Asked<Option<BridgeView>> {
    match client.get("/api/v1/bus").await {
        Ok(bus) => Ok(Some(bus)),
        Err(failure) if failure.exit == Exit::NotFound => Ok(None),
        Err(failure) => Err(failure.what),
    }
}
