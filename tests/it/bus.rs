//! Two organisations and their applications: each has its own bus and its own kind of database, and what one changes
//! reaches the other once, whoever is killed meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{HeaderMap, jetstream};
use futures::StreamExt as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, time::timeout};

use crate::harness::{Federation, Nats, PATIENCE, Postgres, Spec, until, until_true};

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
struct Two {
    federation: Federation,
    paris_bus: Nats,
    lyon_bus: Nats,
    lyon_database: Postgres,
    runtime: Runtime,
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
    fn started(test: &str) -> Option<Self> {
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
            Victim::Paris => self.federation.member_mut("paris").start(),
            Victim::Lyon => self.federation.member_mut("lyon").start(),
            Victim::ParisBus => self.paris_bus.start(),
            Victim::LyonBus => self.lyon_bus.start(),
            Victim::LyonDatabase => self.lyon_database.tell("start"),
        }
    }
}

fn envelope(datatype: &str, payload: &Value) -> Vec<u8> {
    json!({ "from_app": "crm", "datatype": datatype, "user": "ann", "groups": ["ops"], "payload": payload })
        .to_string()
        .into_bytes()
}

/// Says something on a bus until the bus has it, however often that takes; it is taken once by its id.
async fn say(url: &str, subject: &'static str, id: &str, message: &[u8]) {
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
        if envelope["datatype"] == "peer" {
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

#[test]
fn a_database_that_freezes_holds_up_changes_and_nothing_else() {
    let test = "a_database_that_freezes_holds_up_changes";
    let Some(mut two) = Two::started(test) else { return };
    let heard = listen(&two.runtime, two.paris_bus.url());
    let count = || heard.lock().unwrap_or_else(PoisonError::into_inner).count;
    let change = |two: &Two, n: u64| {
        let resource = json!({ "id": format!("r{n}"), "kind": "data", "name": "data", "access": "public", "n": n });
        let order = envelope("data", &json!({ "action": "create", "datatype": "data", "payload": resource }));
        let (url, id) = (two.lyon_bus.url(), format!("change-{n}"));
        two.runtime.block_on(say(&url, "opencloud.propagation_event", &id, &order));
    };
    change(&two, 1);
    until_true("a change arrives", PATIENCE, || count() == 1);

    two.lyon_database.tell("freeze");
    change(&two, 2);
    let lyon = two.federation.member("lyon");
    until_true("lyon says that its database is away", PATIENCE, || {
        lyon.try_status().is_some_and(|status| status.reasons.iter().any(|reason| reason.contains("database")))
    });
    // The network goes on: lyon's indexer hears it, and it is whole.
    let beats = || lyon.metric("muster_beats_answered_total");
    let before = beats();
    until_true("lyon goes on beating", PATIENCE, || beats() >= before + 3.0);
    lyon.until_whole();
    assert_eq!(count(), 1, "nothing is done that is not written down");

    two.lyon_database.tell("thaw");
    // Page 9's five seconds, with room for a loaded machine.
    until_true("the change is made", Duration::from_secs(10), || count() == 2);
    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(heard.repeated.len(), 0);
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
