//! Two organisations and their applications: each has its own bus and its own kind of database, and what one changes
//! reaches the other once, whoever is killed meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::{HeaderMap, jetstream};
use futures::StreamExt as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::{runtime::Runtime, time::timeout};

use crate::harness::{Federation, Nats, PATIENCE, Postgres, Spec, TICK, until, until_true};

/// What a test of the gate changes; enough for each victim to die more than once.
const EVENTS: usize = 300;

/// Deaths in a test of the gate. `tests/load/run --bus` has more of both.
const KILLS: usize = 8;

/// Resources that are changed in turn.
const RESOURCES: usize = 20;

/// For the last change to arrive once everybody is alive: a partner that was away is tried again within a minute, and
/// orders that a killed member held come again within another.
const ARRIVE_WITHIN: Duration = Duration::from_secs(240);

/// Two organisations, partners of each other.
pub(crate) struct Two {
    pub(crate) federation: Federation,
    pub(crate) paris_bus: Nats,
    pub(crate) lyon_bus: Nats,
    lyon_database: Postgres,
    pub(crate) runtime: Runtime,
}

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Paris,
    Lyon,
    ParisBus,
    LyonBus,
    LyonDatabase,
}

const VICTIMS: [Victim; 5] = [Victim::Paris, Victim::Lyon, Victim::ParisBus, Victim::LyonBus, Victim::LyonDatabase];

impl Two {
    pub(crate) fn started(test: &str) -> Option<Self> {
        let (paris_bus, lyon_bus) = (Nats::started(test)?, Nats::started(test)?);
        let lyon_database = Postgres::started(test)?;
        let mut federation = Federation::new();
        federation.add(Spec::indexer("indexer-1")).start();
        let seed = federation.member("indexer-1").address();
        let of = |name: &str, bus: &Nats| {
            Spec::node(name).seed(&seed).set("bus.url", &format!("{:?}", bus.url())).set("bus.again_after", "\"200ms\"")
        };
        federation.add(of("paris", &paris_bus)).start();
        let lyon = of("lyon", &lyon_bus).set("store.url", &format!("{:?}", lyon_database.url()));
        federation.add(lyon.set("store.busy_timeout", "\"1s\"")).start();
        federation.until_converged();
        let runtime = Runtime::new().unwrap();
        let two = Self { federation, paris_bus, lyon_bus, lyon_database, runtime };
        two.make_partners();
        Some(two)
    }

    /// Each organisation's application says on its own bus that the other is a partner.
    fn make_partners(&self) {
        for (at, bus, other) in [("paris", &self.paris_bus, "lyon"), ("lyon", &self.lyon_bus, "paris")] {
            let peer = self.federation.member(other).peer_id.clone();
            let order = envelope("peer", &json!({ "peer_id": peer, "relation": "partner", "name": other }));
            self.runtime.block_on(say(&bus.url(), "opencloud.create_resource", "partner", &order));
            until_true(&format!("{at} has a partner"), PATIENCE, || {
                let partners: Option<Value> = self.federation.member(at).try_get("/api/v1/partners");
                partners.is_some_and(|partners| partners.to_string().contains("\"partner\""))
            });
        }
    }

    fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Paris => self.federation.member_mut("paris").kill(),
            Victim::Lyon => self.federation.member_mut("lyon").kill(),
            Victim::ParisBus => self.paris_bus.kill(),
            Victim::LyonBus => self.lyon_bus.kill(),
            Victim::LyonDatabase => self.lyon_database.tell("kill"),
        }
    }

    fn revive(&mut self, victim: Victim) {
        match victim {
            Victim::Paris => self.revive_member("paris"),
            Victim::Lyon => self.revive_member("lyon"),
            Victim::ParisBus => self.paris_bus.start(),
            Victim::LyonBus => self.lyon_bus.start(),
            Victim::LyonDatabase => self.lyon_database.tell("start"),
        }
    }

    /// One whose database dies while it starts ends, for its service manager to start it again. There is none here.
    fn revive_member(&mut self, name: &str) {
        let member = self.federation.member_mut(name);
        member.start();
        member.until_listening();
    }
}

pub(crate) fn envelope(datatype: &str, payload: &Value) -> Vec<u8> {
    json!({ "from_app": "crm", "datatype": datatype, "user": "ann", "groups": ["ops"], "payload": payload })
        .to_string()
        .into_bytes()
}

/// Says something on a bus until the bus has it, however often that takes; it is taken once by its id.
pub(crate) async fn say(url: &str, subject: &'static str, id: &str, message: &[u8]) {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", id);
    let began = tokio::time::Instant::now();
    loop {
        let said = async {
            let client = async_nats::connect(url).await.ok()?;
            let streams = jetstream::new(client);
            streams.publish_with_headers(subject, headers.clone(), message.to_vec().into()).await.ok()?.await.ok()
        };
        if timeout(Duration::from_secs(3), said).await.is_ok_and(|said| said.is_some()) {
            return;
        }
        assert!(began.elapsed() < ARRIVE_WITHIN, "the bus at {url} does not take {id}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What one version of a resource was, as its creator's application knows it: the number of the change, or none when it
/// was removed.
type Change = Option<u64>;

/// What the other organisation's application heard: of each resource its versions, and how often each came.
#[derive(Default)]
struct Heard {
    by_id: BTreeMap<String, BTreeMap<u64, Change>>,
    /// Places in the stream: what the bus delivers again, because it was not sure, is not said again.
    places: BTreeSet<u64>,
    repeated: BTreeSet<(String, u64)>,
    count: usize,
}

impl Heard {
    fn hear(&mut self, place: u64, subject: &str, message: &[u8]) {
        use base64::Engine as _;
        if !self.places.insert(place) {
            return;
        }
        let envelope: Value = serde_json::from_slice(message).unwrap();
        // What is said of peers, and of how the member is, changes no resource.
        if envelope["datatype"] == "peer" || envelope["datatype"] == "alert" {
            return;
        }
        let payload = base64::engine::general_purpose::STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
        let payload: Value = serde_json::from_slice(&payload).unwrap();
        let (id, version) = (payload["id"].as_str().unwrap().to_owned(), payload["version"].as_u64().unwrap());
        let change = if subject.ends_with("remove_resource") { None } else { Some(payload["n"].as_u64().unwrap()) };
        if self.by_id.entry(id.clone()).or_default().insert(version, change).is_some() {
            self.repeated.insert((id, version));
        } else {
            self.count += 1;
        }
    }
}

/// An application that hears what comes on a bus for as long as the runtime lives, and survives the bus.
fn listen(runtime: &Runtime, url: String) -> Arc<Mutex<Heard>> {
    let heard = Arc::new(Mutex::new(Heard::default()));
    let told = heard.clone();
    runtime.spawn(async move {
        loop {
            // Whatever breaks is begun again; the durable consumer knows how far it came.
            let _ = hear(&url, &told).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    heard
}

async fn hear(url: &str, heard: &Mutex<Heard>) -> Result<(), async_nats::Error> {
    let streams = jetstream::new(async_nats::connect(url).await?);
    let stream = streams.get_stream("OPENCLOUD").await?;
    let config = jetstream::consumer::pull::Config {
        durable_name: Some("crm".to_owned()),
        ack_wait: Duration::from_secs(5),
        ..jetstream::consumer::pull::Config::default()
    };
    let consumer = stream.get_or_create_consumer("crm", config).await?;
    let mut messages =
        consumer.stream().heartbeat(Duration::from_secs(1)).expires(Duration::from_secs(3)).messages().await?;
    while let Some(message) = messages.next().await {
        let message = message?;
        let place = message.info()?.stream_sequence;
        heard.lock().unwrap_or_else(PoisonError::into_inner).hear(place, message.subject.as_str(), &message.payload);
        message.ack().await?;
    }
    Ok(())
}

/// What Paris changes, in order.
struct Changes {
    rng: StdRng,
    by_id: BTreeMap<String, Vec<Change>>,
}

impl Changes {
    /// The next change: its action and its payload.
    fn next(&mut self, n: u64) -> (&'static str, Value) {
        let id = format!("r{}", self.rng.random_range(0..RESOURCES));
        let known = self.by_id.entry(id.clone()).or_default();
        let exists = known.last().is_some_and(Option::is_some);
        if exists && self.rng.random_bool(0.2) {
            known.push(None);
            return ("delete", json!({ "id": id }));
        }
        known.push(Some(n));
        let resource = json!({ "id": id, "kind": "data", "name": format!("data {n}"), "access": "public", "n": n });
        (if exists { "update" } else { "create" }, resource)
    }
}

/// Changes so many things in Paris while everybody is killed in turn, and looks at what came to Lyon.
fn nothing_is_lost_or_repeated(test: &str, events: usize, kills: usize, seed: u64) {
    let Some(mut two) = Two::started(test) else { return };
    eprintln!("seed {seed}");
    let heard = listen(&two.runtime, two.lyon_bus.url());
    let mut chaos = StdRng::seed_from_u64(seed);
    let mut changes = Changes { rng: StdRng::seed_from_u64(seed + 1), by_id: BTreeMap::new() };
    let mut dead: Option<(Victim, usize)> = None;
    let kill_every = events / (kills + 1);
    for n in 0..events {
        if n % kill_every == kill_every - 1 && dead.is_none() {
            // Each at least once, then whoever chance picks.
            let turn = n / kill_every;
            let victim = VICTIMS.get(turn).copied().unwrap_or_else(|| *VICTIMS.choose(&mut chaos).unwrap());
            two.kill(victim);
            dead = Some((victim, n + chaos.random_range(0..kill_every / 2)));
        }
        // Nobody can order anything while there is no bus.
        let is_back = |(victim, until): &mut (Victim, usize)| n >= *until || matches!(victim, Victim::ParisBus);
        if let Some((victim, _)) = dead.take_if(is_back) {
            two.revive(victim);
        }
        let (action, payload) = changes.next(n as u64);
        let order = envelope("data", &json!({ "action": action, "datatype": "data", "payload": payload }));
        let url = two.paris_bus.url();
        two.runtime.block_on(say(&url, "opencloud.propagation_event", &format!("change-{n}"), &order));
    }
    if let Some((victim, _)) = dead {
        two.revive(victim);
    }
    let count = || heard.lock().unwrap_or_else(PoisonError::into_inner).count;
    until(&format!("{events} changes arrived"), ARRIVE_WITHIN, || (count() >= events).then_some(()));
    // Whoever has something to say still, says it again: only then is it known that nothing is repeated.
    for name in ["paris", "lyon"] {
        until_true(&format!("nothing waits at {name}"), ARRIVE_WITHIN, || {
            let waiting: Option<Value> = two.federation.member(name).try_get("/api/v1/outbox?fate=waiting");
            waiting.is_some_and(|waiting| waiting.as_array().is_some_and(Vec::is_empty))
        });
    }
    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    let arrived: BTreeMap<&String, Vec<Change>> =
        heard.by_id.iter().map(|(id, versions)| (id, versions.values().copied().collect())).collect();
    let expected: BTreeMap<&String, Vec<Change>> = changes.by_id.iter().map(|(id, all)| (id, all.clone())).collect();
    assert_eq!(arrived, expected, "each change once, in the order of its making");
    assert_eq!((heard.count, heard.repeated.len()), (events, 0), "none lost, none repeated");
}

/// How a database is away while its server may still be there.
#[derive(Clone, Copy, Debug)]
enum Away {
    Frozen,
    Killed,
    Locked,
}

/// How long it is away in a test of the gate: longer than any wait for it. `tests/load/run --database` has a minute.
const AWAY_FOR: Duration = Duration::from_secs(6);

/// Page 9's five seconds for changes to go on once it is back, with room for a loaded machine.
const RESUME_WITHIN: Duration = Duration::from_secs(10);

impl Two {
    /// Takes lyon's database away. What is returned gives it back, in its own way.
    fn take_database(&mut self, how: Away) -> Option<PgConnection> {
        match how {
            Away::Frozen => self.lyon_database.tell("freeze"),
            Away::Killed => self.lyon_database.tell("kill"),
            Away::Locked => return Some(self.runtime.block_on(lock_every_table(&self.lyon_database.url()))),
        }
        None
    }

    fn give_database(&mut self, how: Away, lock: Option<PgConnection>) {
        match (how, lock) {
            (Away::Frozen, _) => self.lyon_database.tell("thaw"),
            (Away::Killed, _) => self.lyon_database.tell("start"),
            (Away::Locked, lock) => self.runtime.block_on(lock.unwrap().close()).unwrap(),
        }
    }

    /// Lyon's application changes something.
    fn change_in_lyon(&self, n: usize) {
        let resource = json!({ "id": format!("r{n}"), "kind": "data", "name": "data", "access": "public", "n": n });
        let order = envelope("data", &json!({ "action": "create", "datatype": "data", "payload": resource }));
        let (url, id) = (self.lyon_bus.url(), format!("change-{n}"));
        self.runtime.block_on(say(&url, "opencloud.propagation_event", &id, &order));
    }
}

/// As somebody who repairs the database by hand: nobody else reads or writes it while this session lasts.
async fn lock_every_table(url: &str) -> PgConnection {
    let mut session = PgConnection::connect(url).await.unwrap();
    let tables: Vec<(String,)> =
        sqlx::query_as("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'")
            .fetch_all(&mut session)
            .await
            .unwrap();
    assert!(tables.len() > 5, "{tables:?}");
    let tables: Vec<String> = tables.into_iter().map(|(table,)| table).collect();
    let lock = format!("BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", tables.join(", "));
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut session).await.unwrap();
    session
}

/// A whole member whose database is away for a while: the network goes on, health says it, nothing that was acknowledged
/// is lost, nothing is done that is not written down, and changes go on soon after.
fn it_holds_up_changes_and_nothing_else(test: &str, how: Away) {
    let Some(mut two) = Two::started(test) else { return };
    let away_for = match std::env::var("MUSTER_TESTS_DATABASE_AWAY_SECONDS") {
        Ok(given) => Duration::from_secs(given.parse().unwrap()),
        Err(_) => AWAY_FOR,
    };
    let heard = listen(&two.runtime, two.paris_bus.url());
    let count = || heard.lock().unwrap_or_else(PoisonError::into_inner).count;
    (1..=3).for_each(|n| two.change_in_lyon(n));
    until_true("changes arrive", PATIENCE, || count() == 3);
    let before = held_in_lyon(&two);
    assert_eq!(before.len(), 3);

    let lock = two.take_database(how);
    let began = Instant::now();
    (4..=6).for_each(|n| two.change_in_lyon(n));
    let lyon = two.federation.member("lyon");
    until_true("lyon says that its database is away", PATIENCE, || {
        lyon.try_status().is_some_and(|status| status.reasons.iter().any(|reason| reason.contains("database")))
    });
    eprintln!("{how:?}: said after {:?}", began.elapsed());
    // The network goes on: lyon's indexer hears it, and it is whole, all the time.
    let beats = || lyon.metric("muster_beats_answered_total");
    let beats_before = beats();
    until_true("it was away for long enough", away_for + PATIENCE, || {
        lyon.until_whole();
        assert_eq!(count(), 3, "nothing is done that is not written down");
        began.elapsed() >= away_for && beats() >= beats_before + 2.0
    });
    let beaten = beats() - beats_before;
    let due = away_for.as_secs_f64() / TICK.as_secs_f64() / 2.0 - 2.0;
    assert!(beaten >= due, "{beaten} beats were answered in {away_for:?}, expected at least {due}");

    two.give_database(how, lock);
    let back = Instant::now();
    until_true("the changes are made", RESUME_WITHIN, || count() == 6);
    eprintln!("{how:?}: away for {away_for:?}, changes went on {:?} after", back.elapsed());
    let after = held_in_lyon(&two);
    assert_eq!(after.len(), 6);
    assert!(before.iter().all(|kept| after.contains(kept)), "what was acknowledged is as it was: {before:?} {after:?}");
    assert_eq!(heard.lock().unwrap_or_else(PoisonError::into_inner).repeated.len(), 0);
    let lyon = two.federation.member("lyon");
    until_true("lyon is well again", PATIENCE, || {
        lyon.try_status().is_some_and(|status| !status.reasons.iter().any(|reason| reason.contains("database")))
    });
}

/// Ids and versions of what lyon has of its own.
fn held_in_lyon(two: &Two) -> Vec<(String, u64)> {
    let page: Value = two.federation.member("lyon").get("/api/v1/resources?creator=self");
    let resources = page["resources"].as_array().unwrap();
    let of = |row: &Value| (row["id"].as_str().unwrap().to_owned(), row["version"].as_u64().unwrap());
    resources.iter().map(of).collect()
}

#[test]
fn a_database_that_freezes_holds_up_changes_and_nothing_else() {
    it_holds_up_changes_and_nothing_else("a_database_that_freezes_holds_up_changes", Away::Frozen);
}

#[test]
fn a_database_that_is_killed_holds_up_changes_and_nothing_else() {
    it_holds_up_changes_and_nothing_else("a_database_that_is_killed_holds_up_changes", Away::Killed);
}

#[test]
fn a_database_that_somebody_locks_holds_up_changes_and_nothing_else() {
    it_holds_up_changes_and_nothing_else("a_database_that_somebody_locks_holds_up_changes", Away::Locked);
}

#[test]
fn p9_what_an_application_changes_reaches_the_partners_once_and_in_order_whoever_is_killed() {
    let number = |name: &str, usual: usize| match std::env::var(name) {
        Ok(given) => given.parse().unwrap(),
        Err(_) => usual,
    };
    let (events, kills) = (number("MUSTER_TESTS_BUS_EVENTS", EVENTS), number("MUSTER_TESTS_BUS_KILLS", KILLS));
    nothing_is_lost_or_repeated("p9_what_an_application_changes", events, kills, 7);
}
