//! What every actor of one daemon is given: who we are, how we are set, and where the others are reached.

use std::{ops::Deref, sync::Arc};

use protocol::{
    PeerId, Timestamp,
    health::Memory,
    identity::Keys,
    keyring::Keyring,
    profile::Profile,
    revocations::Revoked,
    time::Now,
    wire::{RefusalCode, Refused, Role},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    alerts, audit, auditor, beacon, bridge, claim, config, gate, gc, health, outbox, peers, planner, policy, pool,
    presence, registry, relay, report, resources, revocations, score, search,
    settings::Settings,
    sharing,
    stats::Stats,
    store, suggestions,
    supervision::{Address, Class, Path, Tree},
    swarm,
    traces::Traces,
    webhook,
};

/// Who we are; true for the whole life of the process.
#[derive(Clone, Debug)]
pub struct Own {
    /// Derives from the key.
    pub peer_id: PeerId,
    /// The key's, or the UUID that was configured.
    pub did: String,
    /// What others see.
    pub name: String,
    /// What we are.
    pub role: Role,
    /// Program and version.
    pub agent: String,
    /// Network that we belong to.
    pub network_id: String,
    /// Fingerprint of the pre-shared key, and of the next one during a rotation; empty without one.
    pub network_key: String,
    /// Rules about addresses.
    pub profile: Profile,
    /// Start of the process.
    pub born_at: Timestamp,
}

/// Where each actor of the tree is reached; those of a role that is off are never home.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Writes in batches.
    pub store: Address<store::Msg>,
    /// Changes of settings.
    pub config: Address<config::Msg>,
    /// Standing, reasons, journal.
    pub health: Address<health::Msg>,
    /// Every known peer.
    pub peers: Address<peers::Msg>,
    /// What each peer is to us.
    pub policy: Address<policy::Msg>,
    /// Whose key is to be believed no longer.
    pub revocations: Address<revocations::Msg>,
    /// Evidence and scores.
    pub score: Address<score::Msg>,
    /// Searches of our users.
    pub search: Address<search::Msg>,
    /// Broadcasts that measure broadcasts.
    pub beacon: Address<beacon::Msg>,
    /// Searches for resources.
    pub resources: Address<resources::Msg>,
    /// Our indexers.
    pub pool: Address<pool::Msg>,
    /// Our own record.
    pub claim: Address<claim::Msg>,
    /// Changes of the catalogue.
    pub sharing: Address<sharing::Msg>,
    /// What waits for partners.
    pub outbox: Address<outbox::Msg>,
    /// Planner sessions of ours.
    pub planner: Address<planner::Msg>,
    /// Our bus.
    pub bridge: Address<bridge::Msg>,
    /// Sessions of others.
    pub registry: Address<registry::Msg>,
    /// Who may ask what, and how often.
    pub gate: Address<gate::Msg>,
    /// Other indexers.
    pub suggestions: Address<suggestions::Msg>,
    /// Searches among indexers.
    pub relay: Address<relay::Msg>,
    /// Collects what may go.
    pub gc: Address<gc::Msg>,
    /// What is wrong with the host and with us.
    pub alerts: Address<alerts::Msg>,
    /// What happened in a day.
    pub report: Address<report::Msg>,
    /// Tells alerts to the operator's address.
    pub webhook: Address<webhook::Msg>,
    /// The libp2p swarm.
    pub swarm: Address<swarm::Msg>,
    /// Who comes, goes and died among the indexers.
    pub presence: Address<presence::Msg>,
    /// Tokens of our nodes.
    pub audit: Address<audit::Msg>,
    /// The counting of others' tokens.
    pub auditor: Address<auditor::Msg>,
}

/// Messages that wait at an actor that serves the network; a second's worth at full load.
const BOUND_BUSY: u64 = 16 * 1024;

/// Messages that wait at any other actor.
const BOUND: u64 = 1_024;

impl Addresses {
    /// Addresses in a tree whose actors are not yet started.
    #[must_use]
    pub fn new(tree: &Tree) -> Self {
        let root = Path::root();
        let node = root.child("node");
        let indexer = root.child("indexer");
        Self {
            store: tree.address(root.child("store"), "store", BOUND_BUSY),
            config: tree.address(root.child("config"), "config", BOUND),
            health: tree.address(root.child("health"), "health", BOUND),
            peers: tree.address(root.child("peers"), "peers", BOUND_BUSY),
            policy: tree.address(root.child("policy"), "policy", BOUND_BUSY),
            revocations: tree.address(root.child("revocations"), "revocations", BOUND_BUSY),
            score: tree.address(root.child("score"), "score", BOUND),
            search: tree.address(root.child("search"), "search", BOUND_BUSY),
            beacon: tree.address(root.child("beacon"), "beacon", BOUND),
            resources: tree.address(node.child("resources"), "resources", BOUND_BUSY),
            pool: tree.address(node.child("pool"), "pool", BOUND),
            claim: tree.address(node.child("claim"), "claim", BOUND),
            sharing: tree.address(node.child("sharing"), "sharing", BOUND),
            planner: tree.address(node.child("planner"), "planner", BOUND),
            outbox: tree.address(node.child("outbox"), "outbox", BOUND),
            bridge: tree.address(root.child("bridge"), "bridge", BOUND),
            registry: tree.address(indexer.child("registry"), "registry", BOUND_BUSY),
            gate: tree.address(indexer.child("gate"), "gate", BOUND_BUSY),
            suggestions: tree.address(indexer.child("suggestions"), "suggestions", BOUND),
            relay: tree.address(indexer.child("relay"), "relay", BOUND_BUSY),
            gc: tree.address(root.child("gc"), "gc", BOUND),
            alerts: tree.address(root.child("alerts"), "alerts", BOUND),
            report: tree.address(root.child("report"), "report", BOUND),
            webhook: tree.address(root.child("webhook"), "webhook", BOUND),
            swarm: tree.address(root.child("swarm"), "swarm", BOUND_BUSY),
            presence: tree.address(indexer.child("presence"), "presence", BOUND),
            audit: tree.address(indexer.child("audit"), "audit", BOUND_BUSY),
            auditor: tree.address(node.child("auditor"), "auditor", BOUND),
        }
    }
}

/// All of it; cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Shared>);

/// What a [`Context`] holds.
pub struct Shared {
    /// Who we are.
    pub own: Own,
    /// Our key.
    pub keys: Keys,
    /// The network's key; absent when the network is open by choice.
    pub network_key: Option<Keyring>,
    /// How we were set at the start: what cannot change while we run.
    pub settings: Settings,
    /// How we are set now; only the config actor sends.
    pub live: watch::Sender<Arc<Settings>>,
    /// Who is revoked; only the actor of revocations sends. It stays in force while that is restarted.
    pub revoked: watch::Sender<Arc<Revoked>>,
    /// The open database.
    pub database: ::store::Store,
    /// Where each actor is reached.
    pub addresses: Addresses,
    /// What is counted.
    pub stats: Stats,
    /// Changes with every event of the journal, and with every new journal.
    pub pulse: watch::Sender<u64>,
    /// Where spans go.
    pub traces: Traces,
    /// Clock, chance, vitals.
    pub tree: Tree,
    /// Cancelled when the disk failed: what it holds is no longer known, so the process must end (exit 74).
    pub fatal: CancellationToken,
}

impl Context {
    /// Puts it together.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// The time, read once at the top of a handler or a task.
    #[must_use]
    pub fn now(&self) -> Now {
        self.tree.clock().now()
    }

    /// How we are set now. Only what [`Settings::with_live`] takes over is ever other than at the start.
    #[must_use]
    pub fn live(&self) -> Arc<Settings> {
        self.live.borrow().clone()
    }

    /// From now on these are in force for whoever looks, and for whoever begins anew.
    pub(crate) fn go_by(&self, settings: Arc<Settings>) {
        self.live.send_replace(settings);
    }

    /// Refuses a peer whose key was revoked, and has it known that the key is still used. Nobody is let in before it is known
    /// who is revoked.
    ///
    /// # Errors
    /// When it is, or may be.
    pub(crate) fn check_revoked(&self, peer: &PeerId) -> Result<(), Refused> {
        let checked = {
            let revoked = self.revoked.borrow();
            if revoked.is_unknown() {
                let detail = "this member is reading back who is revoked";
                return Err(Refused::new(RefusalCode::Busy, detail).retry_after(1));
            }
            revoked.check(peer)
        };
        if checked.is_err() {
            self.stats.revoked_refused.inc();
            inform(&self.addresses.revocations, Class::History, revocations::Msg::Tried { peer: *peer });
        }
        checked
    }

    /// Whether nothing that this key signed is to be taken, passed on or shown. Unlike a greeting that it tried, what somebody
    /// brings of it does not say that the key is still used: anybody can keep what it signed.
    pub(crate) fn refuses(&self, author: &PeerId) -> bool {
        let revoked = self.revoked.borrow();
        let is_revoked = revoked.has(author);
        if is_revoked {
            self.stats.revoked_refused.inc();
        }
        is_revoked || revoked.is_unknown()
    }

    /// Whether a peer's key was revoked.
    #[must_use]
    pub fn is_revoked(&self, peer: &PeerId) -> bool {
        self.revoked.borrow().has(peer)
    }

    /// From now on these are refused by whoever looks.
    pub(crate) fn refuse_revoked(&self, revoked: Revoked) {
        self.revoked.send_replace(Arc::new(revoked));
    }

    /// Whether our applications are reached over a bus.
    #[must_use]
    pub fn has_bus(&self) -> bool {
        self.settings.bus.is_on()
    }

    /// Writes an event into the journal.
    pub fn note(&self, kind: &'static str, subject: impl ToString, detail: impl ToString) {
        let note = health::Msg::Noted { kind, subject: subject.to_string(), detail: detail.to_string() };
        inform(&self.addresses.health, Class::Control, note);
    }

    /// Says whether this was read back from the database.
    pub(crate) fn read_back(&self, memory: Memory, is_done: bool) {
        inform(&self.addresses.health, Class::Control, health::Msg::ReadBack { memory, is_done });
    }

    /// Says that something is wrong, in words and with its remedy, until it is told to be over.
    pub fn trouble(&self, what: &'static str, remedy: Option<String>) {
        inform(&self.addresses.health, Class::Control, health::Msg::Trouble { what, remedy });
    }
}

impl Deref for Context {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Tells a fact that may be missed: a full mailbox counts it as shed, and the next fact makes up for it.
pub(crate) fn inform<M: Send + 'static>(to: &Address<M>, class: Class, fact: M) {
    drop(to.tell(class, fact));
}
