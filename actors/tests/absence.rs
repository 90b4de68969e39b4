//! A partner that is away for ten minutes, and one that is away for a day: whole members with their real databases and
//! connections, on a clock that the test moves forward.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use actors::{
    Handle, Running, Start,
    handle::{Fault, Wanting},
    settings::Settings,
    sharing::Author,
    supervision::{Chance, Clock},
    view::OutboxView,
};
use protocol::{PeerId, Timestamp, delivery, identity::Keys, profile::Profile, relation::Relation, wire::Role};
use serde_json::json;
use store::{Destination, Fate, Store};

const NODE: Role = Role { node: true, indexer: false };
const INDEXER: Role = Role { node: true, indexer: true };

/// The actor that sends what waits for partners.
const OUTBOX: &str = "root/node/outbox";

/// What takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at what has no event of its own.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A clock that goes as the true one does, and jumps forward when the test says so, both its times. Timers that are
/// set already keep their hour: it is as if the machine had slept.
struct Jumping {
    clock: Clock,
    _goes: mpsc::Sender<()>,
}

impl Jumping {
    fn start(wall: Timestamp) -> Self {
        let clock = Clock::manual(wall);
        let (goes, ends) = mpsc::channel::<()>();
        let hands = clock.clone();
        std::thread::spawn(move || {
            let mut before = Instant::now();
            while ends.recv_timeout(Duration::from_millis(2)) == Err(mpsc::RecvTimeoutError::Timeout) {
                let now = Instant::now();
                hands.advance(now - before);
                before = now;
            }
        });
        Self { clock, _goes: goes }
    }
}

/// Waits until there is something to see.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

struct Member {
    running: Running,
    addr: String,
}

impl Member {
    /// One with its files in this folder. Its bus is never there, so that what its applications are to hear can be read.
    async fn start(folder: &Path, seed: u8, role: Role, seeds: &[&str], clock: &Clock) -> Self {
        let mut settings = Settings::default();
        settings.network.profile = Profile::Local;
        settings.network.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        settings.network.seeds = seeds.iter().map(|seed| seed.parse().unwrap()).collect();
        settings.gate.sessions_per_subnet = Profile::Local.sessions_per_subnet();
        // Nobody listens on the port of "discard".
        settings.bus.url = "nats://127.0.0.1:9".to_owned();
        let opened = Store::open(&folder.join("muster.db"), &settings.store, clock.now().wall).await.unwrap();
        let start = Start {
            name: format!("member-{seed}"),
            role,
            did: String::new(),
            network_id: "absence".to_owned(),
            keys: Keys::from_seed([seed; 32]),
            network_key: None,
            settings,
            database: opened.store,
            clock: clock.clone(),
            chance: Chance::seeded(seed.into()),
            traces: actors::traces::Traces::default(),
        };
        let running = actors::start(start).await.unwrap();
        let listens = async || running.handle().status().await.ok()?.listen.first().map(ToString::to_string);
        let addr = until("it listens", listens).await;
        let peer = format!("/p2p/{}", running.handle().peer_id());
        let addr = if addr.ends_with(&peer) { addr } else { addr + &peer };
        Self { running, addr }
    }

    fn handle(&self) -> &Handle {
        self.running.handle()
    }

    fn peer(&self) -> PeerId {
        self.handle().peer_id()
    }

    /// Puts a resource, or without a name removes it, in the name of this user.
    async fn change(&self, id: &str, name: Option<&str>, user: &str) {
        let author = Author { user: user.to_owned(), groups: [].into() };
        match name {
            Some(name) => {
                let text = json!({ "id": id, "kind": "data", "name": name, "access": "public" }).to_string();
                self.handle().put_resource(&text, None, author).await.unwrap();
            }
            None => drop(self.handle().remove_resource(id, author).await.unwrap()),
        }
    }

    /// What it holds of a creator: ids and versions.
    async fn held(&self, creator: PeerId) -> Vec<(String, u64)> {
        let wanting = Wanting { creator: Some(creator), limit: 500, ..Wanting::default() };
        let page = self.handle().resources(wanting).await.unwrap();
        page.resources.into_iter().map(|view| (view.id, view.version)).collect()
    }

    /// Its rows for a destination, the oldest first.
    async fn outbox(&self, to: Destination, fate: Option<Fate>) -> Vec<OutboxView> {
        let mut rows = self.handle().outbox(Some(to), fate, None, 500).await.unwrap();
        rows.reverse();
        rows
    }

    /// What its applications are to hear of resources: the verb and in whose name, in their order.
    async fn heard(&self) -> Vec<(String, String)> {
        let rows = self.outbox(Destination::Bus, None).await;
        rows.into_iter().filter(|row| row.datatype == "data").map(|row| (row.verb, row.user)).collect()
    }

    /// Lets its outbox die; the next life looks at once for what is due and what is too old.
    async fn outbox_lives_again(&self) {
        let life = || self.handle().actors().into_iter().find(|actor| actor.name == OUTBOX).map(|it| it.incarnation);
        let before = life();
        self.handle().inject(OUTBOX, Fault::Error).unwrap();
        until("the outbox lives again", async || (life() > before).then_some(())).await;
    }

    fn metric(&self, name: &str) -> f64 {
        let metrics = self.handle().metrics();
        let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_ten_minutes_away_a_partner_hears_all_of_it_once_in_order_and_after_a_day_it_has_expired() {
    let jumping = Jumping::start("2026-01-01T00:00:00Z".parse().unwrap());
    let clock = &jumping.clock;
    let (of_paris, of_lyon) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let paris = Member::start(of_paris.path(), 1, INDEXER, &[], clock).await;
    let lyon = Member::start(of_lyon.path(), 2, NODE, &[&paris.addr], clock).await;
    let (at_lyon, own) = (lyon.peer(), paris.peer());
    for (one, other) in [(&paris, &lyon), (&lyon, &paris)] {
        // Not before the relations of before are read back.
        let relate = async || one.handle().relate(other.peer(), Relation::Partner, String::new()).await.ok();
        until("they are partners", relate).await;
    }
    let sent = async |fate: Option<Fate>| paris.outbox(Destination::Peer(at_lyon), fate).await;
    let all_delivered = async || {
        let rows = sent(None).await;
        rows.iter().all(|row| row.fate == "delivered").then_some(rows)
    };
    paris.change("r-0", Some("first"), "user-0").await;
    until("lyon holds it", async || (lyon.held(own).await.len() == 1).then_some(())).await;
    until("it is known that lyon does", all_delivered).await;

    drop(lyon);
    paris.change("r-1", Some("one"), "user-1").await;
    paris.change("r-2", Some("two"), "user-2").await;
    paris.change("r-1", Some("one, larger"), "user-3").await;
    paris.change("r-2", None, "user-4").await;
    paris.change("r-0", Some("first, larger"), "user-5").await;
    let attempts = async || sent(Some(Fate::Waiting)).await.first().map_or(0, |row| row.attempts);
    until("it was tried in vain", async || (attempts().await > 0).then_some(())).await;
    clock.advance(Duration::from_secs(600));
    // Its wait was far longer than the signature of an event is good for; a new life knows only what is on the disk.
    paris.outbox_lives_again().await;
    let waiting = sent(Some(Fate::Waiting)).await;
    assert_eq!(waiting.len(), 5, "{waiting:?}");

    let lyon = Member::start(of_lyon.path(), 2, NODE, &[&paris.addr], clock).await;
    let expected = paris.held(own).await;
    until("lyon holds the same", async || (lyon.held(own).await == expected).then_some(())).await;
    let rows = until("the fate of each is written down", all_delivered).await;
    let told = |verb: &str, n: usize| (verb.to_owned(), format!("user-{n}"));
    let verbs = ["create", "create", "create", "update", "delete", "update"];
    let delivered: Vec<_> = rows.into_iter().map(|row| (row.verb, row.user)).collect();
    assert_eq!(delivered, (0..6).map(|n| told(verbs[n], n)).collect::<Vec<_>>());
    // One who does not know what became of it sends it again; here nobody had reason to.
    paris.outbox_lives_again().await;
    let verbs = ["create", "create", "create", "create", "remove", "create"];
    let heard = (0..6).map(|n| told(&format!("{}_resource", verbs[n]), n)).collect::<Vec<_>>();
    assert_eq!(lyon.heard().await, heard, "each once, in the order of its making");
    assert_eq!(lyon.metric("muster_changes_repeated_total"), 0.0);

    drop(lyon);
    paris.change("r-9", Some("nobody comes for it"), "user-9").await;
    until("it was tried in vain", async || (attempts().await > 0).then_some(())).await;
    let margin = Duration::from_secs(120);
    let before = attempts().await;
    clock.advance(delivery::LIFE - margin);
    paris.outbox_lives_again().await;
    until("it is still tried", async || (attempts().await > before).then_some(())).await;
    clock.advance(2 * margin);
    paris.outbox_lives_again().await;
    let expired = async || Some(sent(Some(Fate::Expired)).await).filter(|rows| !rows.is_empty());
    let rows = until("it has expired", expired).await;
    assert_eq!((rows.len(), sent(Some(Fate::Waiting)).await.len()), (1, 0));
    let row = &rows[0];
    assert_eq!((&*row.verb, &*row.user, row.bytes, row.ended_at.is_some()), ("create", "user-9", 0, true), "{row:?}");
    assert_eq!(paris.held(own).await.len(), 3, "what expired is its telling");
    paris.running.stop().await;
}
