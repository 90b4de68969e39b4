//! Changes from one organisation's bus to another's, and what either database bears of them.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, AckKind, consumer};
use futures::{StreamExt, stream};
use libp2p::Multiaddr;
use protocol::{Timestamp, bus::ENVELOPE_BYTES_MAX, catalogue::Draft, identity::Keys};
use serde_json::{Value, json};
use store::{CatalogueChange, Change, Changed, Destination, Outgoing, Receipt, Settings, Store};
use tokio::process::{Child, Command};

use crate::{
    broken::{Broken, Outcome, While, within},
    crew::Register,
    figures::{Row, median, spread},
    member::{Member, Spec},
    postgres::Postgres,
};

/// Changes that an application has published and that the bus has not yet acknowledged.
const UNACKNOWLEDGED_MAX: usize = 64;

/// Resources that are changed in turn, so that the catalogue does not grow with the rounds.
const RESOURCES: usize = 500;

/// For a round to be over.
const ROUND_WITHIN: Duration = Duration::from_secs(60);

/// For servers and members to be there.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks at what has no event of its own.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Changes written at once by a busy member, and by one that is told one at a time.
const RUNS: [usize; 2] = [64, 1];

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Rounds, in each of which all take turns.
    pub(crate) rounds: usize,
    /// Changes of a round.
    pub(crate) changes: usize,
}

/// A NATS server in a process of its own.
struct Nats {
    url: String,
    _process: Child,
}

impl Nats {
    async fn start(base: &Path, name: &str) -> Outcome<Self> {
        let program = program().ok_or_else(|| Broken::new("there is no nats-server"))?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut command = Command::new(program);
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(base.join(name));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let process = command.spawn().when("starting nats-server")?;
        Ok(Self { url: format!("nats://127.0.0.1:{port}"), _process: process })
    }

    async fn client(&self) -> Outcome<jetstream::Context> {
        let connected = async {
            loop {
                match async_nats::connect(&self.url).await {
                    Ok(client) => return Ok(jetstream::new(client)),
                    Err(_) => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
        };
        within(READY_WITHIN, "connecting to a bus", connected).await
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let common = ["/usr/sbin", "/usr/local/bin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(common).map(|folder| folder.join("nats-server")).find(|file| file.is_file())
}

/// Measures, and tells all that it found.
///
/// # Errors
/// When something does not start, or a change is lost.
pub(crate) async fn measure(base: &Path, register: &Register, plan: Plan) -> Outcome<Vec<Row>> {
    let two = Two::start(base, register).await?;
    let mut rows = two.measure(plan).await.map_err(|broken| {
        let words = [&two.paris, &two.lyon].map(Member::last_words);
        Broken::new(format!("{broken}\n{}", words.join("\n")))
    })?;
    drop(two);
    for run in RUNS {
        rows.push(databases(base, plan, run).await.when(format!("changes in runs of {run}"))?);
    }
    Ok(rows)
}

/// Two organisations that are partners, each with its own bus.
struct Two {
    _indexer: Member,
    paris: Member,
    lyon: Member,
    paris_bus: Nats,
    lyon_bus: Nats,
}

impl Two {
    async fn start(base: &Path, register: &Register) -> Outcome<Self> {
        let (paris_bus, lyon_bus) = (Nats::start(base, "bus-paris").await?, Nats::start(base, "bus-lyon").await?);
        let indexer = Member::start(base, &register.network, Spec::indexer("indexer-1", 10)).await?;
        let seeds: [Multiaddr; 1] = [indexer.addr.clone()];
        let on = |bus: &Nats| format!("[bus]\nurl = {:?}\n", bus.url);
        let start = |name, bus| {
            let spec = Spec { settings: on(bus), ..Spec::node(name, &seeds) };
            Member::start(base, &register.network, spec)
        };
        let (paris, lyon) = (start("paris", &paris_bus).await?, start("lyon", &lyon_bus).await?);
        for (at, to) in [(&paris, &lyon), (&lyon, &paris)] {
            at.put(&format!("/api/v1/partners/{}", to.peer_id()), "{}").await.when("making partners")?;
            let ready = async {
                while !at.get::<Value>("/api/v1/bus").await?["mode"].is_string() {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Ok(())
            };
            within(READY_WITHIN, "waiting for a member to be on its bus", ready).await?;
        }
        Ok(Self { _indexer: indexer, paris, lyon, paris_bus, lyon_bus })
    }

    async fn measure(&self, plan: Plan) -> Outcome<Vec<Row>> {
        let (here, there) = (self.paris_bus.client().await?, self.lyon_bus.client().await?);
        let config = jetstream::stream::Config {
            name: "FLOOR".to_owned(),
            subjects: vec!["floor".to_owned()],
            ..jetstream::stream::Config::default()
        };
        here.create_stream(config).await?;
        let (mut floors, mut through, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        // The first round makes connections and is not counted.
        for round in 0..=plan.rounds {
            let floor = floor(&here, round, plan.changes).await.when("the bus alone")?;
            let taking = self.take(&here, round, plan.changes).await.when("taking orders")?;
            let arriving = self.pass_on(&here, &there, round, plan.changes).await.when("passing changes on")?;
            if round > 0 {
                floors.push(floor);
                taken.push(taking);
                through.push(arriving);
            }
        }
        let per_second = |rates: &[f64]| format!("{:.0}/s", median(rates));
        let beside = format!("nats-server, published, brought and acknowledged: {}", per_second(&floors));
        let ratios = |rates: &[f64]| rates.iter().zip(&floors).map(|(rate, floor)| rate / floor).collect::<Vec<_>>();
        let row = |what: &str, rates: &[f64]| {
            let ratios = ratios(rates);
            Row::new(what, per_second(rates))
                .beside(&beside)
                .ratio(spread(&ratios))
                .goal("≥ 0.7", median(&ratios) >= 0.7)
        };
        Ok(vec![
            row("orders taken from the bus, each on the disk before it is acknowledged", &taken),
            row("changes from an application to those of a partner, each on the disk at both", &through),
        ])
    }

    /// Orders that nobody else is told of.
    async fn take(&self, bus: &jetstream::Context, round: usize, count: usize) -> Outcome<f64> {
        let done = async || self.paris.metric("muster_changes_done_total").await;
        let before = done().await?;
        let began = Instant::now();
        publish(bus, "opencloud.create_resource", (0..count).map(|n| envelope(&resource(round, n)))).await?;
        let all = async {
            while done().await? < before + count as f64 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(())
        };
        within(ROUND_WITHIN, "waiting for all to be taken", all).await?;
        Ok(count as f64 / began.elapsed().as_secs_f64())
    }

    /// Changes that the partner's applications hear of.
    async fn pass_on(
        &self,
        here: &jetstream::Context,
        there: &jetstream::Context,
        round: usize,
        count: usize,
    ) -> Outcome<f64> {
        let config = consumer::pull::OrderedConfig {
            filter_subject: "opencloud.create_resource".to_owned(),
            deliver_policy: consumer::DeliverPolicy::New,
            ..consumer::pull::OrderedConfig::default()
        };
        let heard = there.get_stream("OPENCLOUD").await?.create_consumer(config).await?;
        let mut heard = heard.messages().await?;
        let began = Instant::now();
        let orders = (0..count)
            .map(|n| envelope(&json!({ "action": "create", "datatype": "data", "payload": resource(round, n) })));
        let hearing = async {
            let mut places = BTreeSet::new();
            while places.len() < count {
                let message = heard.next().await.ok_or_else(|| Broken::new("the bus ended"))??;
                places.insert(message.info().map_err(|error| Broken::new(error.to_string()))?.stream_sequence);
            }
            Ok(())
        };
        let publishing = publish(here, "opencloud.propagation_event", orders);
        let both = async { futures::try_join!(publishing, hearing).map(drop) };
        within(ROUND_WITHIN, "waiting for all to arrive", both).await?;
        Ok(count as f64 / began.elapsed().as_secs_f64())
    }
}

/// What the bus itself does when a message is published, brought to a reader and acknowledged by it, each for sure.
async fn floor(bus: &jetstream::Context, round: usize, count: usize) -> Outcome<f64> {
    let config = consumer::pull::Config {
        durable_name: Some(format!("floor-{round}")),
        deliver_policy: consumer::DeliverPolicy::New,
        ..consumer::pull::Config::default()
    };
    let reader = bus.get_stream("FLOOR").await?.create_consumer(config).await?;
    let mut messages = reader.messages().await?;
    let began = Instant::now();
    let reading = async {
        for _ in 0..count {
            let message = messages.next().await.ok_or_else(|| Broken::new("the bus ended"))??;
            let acknowledged = message.ack_with(AckKind::Ack).await;
            acknowledged.map_err(|error| Broken::new(error.to_string()))?;
        }
        Ok(())
    };
    let publishing = publish(bus, "floor", (0..count).map(|n| envelope(&resource(round, n))));
    let both = async { futures::try_join!(publishing, reading).map(drop) };
    within(ROUND_WITHIN, "waiting for the bus alone", both).await?;
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Publishes all, each acknowledged, so many at a time.
async fn publish(
    bus: &jetstream::Context,
    subject: &'static str,
    messages: impl IntoIterator<Item = Vec<u8>>,
) -> Outcome<()> {
    let published = stream::iter(messages).map(|message| async move {
        bus.publish(subject, message.into()).await?.await?;
        Ok::<_, Broken>(())
    });
    // Their order is that of their making: one connection, and each is begun before the next.
    let mut published = published.buffered(UNACKNOWLEDGED_MAX);
    while let Some(said) = published.next().await {
        said.when("publishing")?;
    }
    Ok(())
}

fn resource(round: usize, n: usize) -> Value {
    let description = format!("change {n} of round {round}, with as many words as such a description usually has");
    json!({
        "id": format!("r-{}", n % RESOURCES), "kind": "data", "name": format!("archive {n}"), "access": "public",
        "short_description": description, "bytes": 1_000_000 + n,
    })
}

fn envelope(payload: &Value) -> Vec<u8> {
    let envelope =
        json!({ "from_app": "load", "datatype": "data", "user": "ann", "groups": ["ops"], "payload": payload });
    let bytes = envelope.to_string().into_bytes();
    debug_assert!(bytes.len() <= ENVELOPE_BYTES_MAX);
    bytes
}

/// The same changes in either database, both waiting for the disk.
async fn databases(base: &Path, plan: Plan, run: usize) -> Outcome<Row> {
    let server = tokio::task::spawn_blocking(|| Postgres::durable("sharing")).await?;
    let server = server.ok_or_else(|| Broken::new("there is no PostgreSQL server"))?;
    let keys = Keys::generate(&mut rand::rng());
    let (settings, now) = (Settings::default(), Timestamp::now());
    let file = Store::open(&base.join(format!("changes-{run}.db")), &settings, now).await?.store;
    let remote = Store::connect(&server.url(), &keys.peer_id(), &settings, now).await?.store;
    let count = if run == 1 { plan.changes / 8 } else { plan.changes };
    let (mut files, mut remotes) = (Vec::new(), Vec::new());
    for round in 0..=plan.rounds {
        let changes: Vec<Change> = (0..count).map(|n| change(&keys, round, n)).collect::<Outcome<_>>()?;
        let (of_file, of_remote) = (written(&file, &changes, run).await?, written(&remote, &changes, run).await?);
        if round > 0 {
            files.push(of_file);
            remotes.push(of_remote);
        }
    }
    let ratios: Vec<f64> = files.iter().zip(&remotes).map(|(file, remote)| file / remote).collect();
    let how = if run == 1 { "one by one".to_owned() } else { format!("{run} at once") };
    Ok(Row::new(format!("changes written to SQLite, {how}"), format!("{:.0}/s", median(&files)))
        .beside(format!("PostgreSQL: {:.0}/s", median(&remotes)))
        .ratio(spread(&ratios)))
}

/// As the tree writes it: a receipt, a resource, a row for a partner and one for the bus.
fn change(keys: &Keys, round: usize, n: usize) -> Outcome<Change> {
    let at = Timestamp::now();
    let version = (round * 1_000_000 + n + 1) as u64;
    let resource = Draft::read(&resource(round, n).to_string(), None)?.sign(keys, version, at)?;
    let payload: Arc<[u8]> = resource.text().as_bytes().into();
    let groups: Arc<[String]> = ["ops".to_owned()].into();
    let outgoing = |destination, subject: &str| Outgoing {
        destination,
        subject: subject.to_owned(),
        user: "ann".to_owned(),
        groups: groups.clone(),
        datatype: "data".to_owned(),
        payload: payload.clone(),
        message_id: format!("{round}-{n}"),
        may_drop: false,
    };
    let partner = Destination::Peer(Keys::from_seed([9; 32]).peer_id());
    let outbox = vec![outgoing(partner, "update"), outgoing(Destination::Bus, "create_resource")];
    let receipt = Receipt { source: "bus".to_owned(), id: format!("{round}-{n}") };
    let catalogue = Some(CatalogueChange::Put(Box::new(resource)));
    Ok(Change { receipt: Some(receipt), catalogue, told: None, relation: None, plan: None, outbox, at })
}

async fn written(store: &Store, changes: &[Change], run: usize) -> Outcome<f64> {
    let began = Instant::now();
    for run in changes.chunks(run) {
        let changed = store.change(run).await?;
        if changed.iter().any(|changed| *changed != Changed::Done) {
            return Err(Broken::new(format!("a change was not made: {changed:?}")));
        }
    }
    Ok(changes.len() as f64 / began.elapsed().as_secs_f64())
}
