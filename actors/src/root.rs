//! The root: puts the tree together, starts it in order, and leads it through its leaving.

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use ::store::Store as Database;
use protocol::{Timestamp, identity::Keys, keyring::Keyring, wire::Role};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    alerts, audit, auditor, beacon, bridge, claim, config,
    context::{Addresses, Context, Own, Shared, inform},
    gate, gc,
    handle::Handle,
    health, leave, outbox, peers, planner, policy, pool, presence, registry, relay, report,
    resources::{self, look_up},
    revocations, score, search,
    settings::Settings,
    sharing,
    stats::Stats,
    store, suggestions,
    supervision::{Chance, ChildSpec, Class, Clock, Ended, Failure, Outcome, Path, Pulse, Root, Supervisor, Tree},
    swarm,
    traces::Traces,
    webhook,
};

/// The leave phase: polite, not patient.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// The pool answers within this, or is not asked.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// What a member is started with.
pub struct Start {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its DID; empty for the key's.
    pub did: String,
    /// Network that it belongs to.
    pub network_id: String,
    /// Its key.
    pub keys: Keys,
    /// The network's key, unless the network is open by choice.
    pub network_key: Option<Keyring>,
    /// How it is set.
    pub settings: Settings,
    /// Its database, open.
    pub database: Database,
    /// Its clock.
    pub clock: Clock,
    /// Its chance.
    pub chance: Chance,
    /// Where its spans go.
    pub traces: Traces,
}

/// A running member. Dropped, it is killed.
pub struct Running {
    context: Context,
    root: Root,
    handle: Handle,
}

/// Why a member ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// A part failed too often and took the root along.
    #[error("the tree ended: {0}")]
    Tree(String),
    /// The disk of the database failed.
    #[error("the disk of the database failed: what it holds is no longer known")]
    Disk,
}

/// Starts a member: every actor in order, the swarm last.
///
/// # Errors
/// When a part fails too often before all are started.
pub async fn start(start: Start) -> Result<Running, Failure> {
    start_with(start, |context| children(context, look_up::of(context))).await
}

/// Starts a member with these for its tree.
pub(crate) async fn start_with(
    start: Start,
    children: impl FnOnce(&Context) -> Vec<ChildSpec>,
) -> Result<Running, Failure> {
    let tree = Tree::new(start.clock, start.chance, start.settings.supervision.clone());
    let context = Context::new(Shared {
        own: Own {
            peer_id: start.keys.peer_id(),
            did: if start.did.is_empty() { start.keys.did().to_string() } else { start.did },
            name: start.name,
            role: start.role,
            agent: concat!("muster/", env!("CARGO_PKG_VERSION")).to_owned(),
            network_id: start.network_id,
            network_key: start.network_key.as_ref().map(ToString::to_string).unwrap_or_default(),
            profile: start.settings.network.profile,
            born_at: born_at(&tree),
        },
        keys: start.keys,
        network_key: start.network_key,
        revoked: watch::Sender::default(),
        live: watch::Sender::new(Arc::new(start.settings.clone())),
        settings: start.settings,
        database: start.database,
        addresses: Addresses::new(&tree),
        stats: Stats::default(),
        traces: start.traces,
        tree: tree.clone(),
        fatal: CancellationToken::new(),
        pulse: tokio::sync::watch::Sender::default(),
    });
    journal(&context);
    let root = Root::start(&tree, children(&context)).await?;
    info!(peer = %context.own.peer_id, name = context.own.name, role = ?context.own.role, "started");
    let handle = Handle::new(context.clone());
    Ok(Running { context, root, handle })
}

/// To the second: it is compared with what others heard of it, and no two lives of a process begin in one.
fn born_at(tree: &Tree) -> Timestamp {
    let now = tree.clock().now().wall;
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

impl Running {
    /// What every actor of it was given.
    #[cfg(test)]
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// The way in for the edge.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The pulse of the actors that it cannot do without: whoever of them sits in one handler, nothing works until the
    /// process is started again, and supervision, which restarts what fails, does not see it.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        let addresses = &self.context.addresses;
        let watched = [
            addresses.store.path(),
            addresses.health.path(),
            addresses.policy.path(),
            addresses.revocations.path(),
            addresses.peers.path(),
            addresses.score.path(),
            addresses.claim.path(),
            addresses.pool.path(),
            addresses.registry.path(),
            addresses.gate.path(),
            addresses.swarm.path(),
        ];
        let supervisors = [Path::root(), Path::root().child("node"), Path::root().child("indexer")];
        Pulse::of(&self.context.tree, supervisors.into_iter().chain(watched.into_iter().cloned()).collect())
    }

    /// Waits until the member ends by itself, which it should not.
    pub async fn ended(&mut self) -> End {
        tokio::select! {
            () = self.context.fatal.cancelled() => End::Disk,
            ended = self.root.ended() => match ended {
                Ended::Failed(cause) => End::Tree(cause),
                Ended::Stopped => End::Tree("it was stopped from inside".to_owned()),
            },
        }
    }

    /// Leaves politely, for at most 10 s with the whole tree alive, then stops it from the swarm to the root.
    pub async fn stop(self) {
        let addresses = &self.context.addresses;
        inform(&addresses.health, Class::Control, health::Msg::Leaving);
        if tokio::time::timeout(LEAVE_WITHIN, goodbye(&self.context)).await.is_err() {
            warn!("not everybody was told that we leave");
        }
        self.root.stop().await;
        self.context.database.close().await;
        info!("stopped");
    }
}

async fn goodbye(context: &Context) {
    let addresses = &context.addresses;
    inform(&addresses.swarm, Class::Control, swarm::Msg::Do(swarm::Command::Unprovide));
    // Nobody comes in behind the list of those who are told: whom the gate let through before, the registry turns away.
    inform(&addresses.gate, Class::Control, gate::Msg::Leaving);
    let nodes = addresses.registry.ask(Class::Control, registry::Msg::Leave, ASK_WITHIN).await.unwrap_or_default();
    let pool = addresses.pool.ask(Class::Control, pool::Msg::Leave, LEAVE_WITHIN);
    let (_, (), ()) = tokio::join!(pool, leave::say_all(context, &nodes), leave::gossip(context));
}

/// Writes the fates of actors into the journal; a tree that is busy failing does not wait for it.
fn journal(context: &Context) {
    let mut outcomes = context.tree.outcomes();
    let context = context.clone();
    tokio::spawn(async move {
        loop {
            match outcomes.recv().await {
                Ok(Outcome::Restarting { path, cause, pause }) => {
                    // People read it, and nobody reads nanoseconds.
                    let pause = Duration::from_millis(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
                    context.note("actor_failed", path, format!("{cause}; again in {pause:?}"));
                }
                Ok(Outcome::Started { path, incarnation }) if incarnation > 1 => {
                    context.note("actor_restarted", path, format!("life {incarnation}"));
                }
                Ok(Outcome::Escalated { path, cause }) => context.note("actor_escalated", path, cause),
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    });
}

macro_rules! child {
    ($context:expr, $module:ident, $actor:ident) => {{
        let context = $context.clone();
        ChildSpec::new(&$context.addresses.$module, $module::$actor, move |seat| $module::Args {
            seat,
            context: context.clone(),
        })
    }};
}

/// The tree, in the order in which it is started; a role that is off has no branch.
pub(crate) fn children(context: &Context, look_up: look_up::LookUp) -> Vec<ChildSpec> {
    let mut children = vec![
        child!(context, store, Store),
        child!(context, config, Config),
        child!(context, health, Health),
        child!(context, policy, Policy),
        child!(context, revocations, Revocations),
        child!(context, peers, Peers),
        child!(context, score, Score),
        child!(context, search, Search),
        child!(context, beacon, Beacon),
    ];
    if context.own.role.indexer {
        let branch = vec![
            child!(context, registry, Registry),
            child!(context, gate, Gate),
            child!(context, suggestions, Suggestions),
            child!(context, relay, Relay),
            child!(context, presence, Presence),
            child!(context, audit, Audit),
        ];
        children.push(Supervisor::spec(&context.tree, Path::root().child("indexer"), branch));
    }
    // An indexer is a node of other indexers, so this branch is in every member.
    let mut branch =
        vec![child!(context, claim, Claim), child!(context, pool, Pool), child!(context, auditor, Auditor)];
    if context.own.role.node {
        branch.extend([
            child!(context, outbox, Outbox),
            child!(context, planner, Planner),
            child!(context, sharing, Sharing),
        ]);
        let context = context.clone();
        branch.push(ChildSpec::new(&context.addresses.resources.clone(), resources::Resources, move |seat| {
            resources::Args { seat, context: context.clone(), look_up: Arc::clone(&look_up) }
        }));
    }
    children.push(Supervisor::spec(&context.tree, Path::root().child("node"), branch));
    if context.own.role.node && context.has_bus() {
        children.push(child!(context, bridge, Bridge));
    }
    children.push(child!(context, gc, Gc));
    if context.settings.webhook.is_on() {
        children.push(child!(context, webhook, Webhook));
    }
    children.push(child!(context, report, Report));
    children.push(child!(context, alerts, Alerts));
    children.push(child!(context, swarm, SwarmActor));
    children
}
