//! Members whose clock is wrong, and the times of an epoch: whole members within the test, each with a clock of its own,
//! among real processes and thin nodes. No process can be given another clock.

use std::{net::Ipv4Addr, time::Duration};

use actors::{
    Running, Start,
    settings::Settings,
    supervision::{Chance, Clock},
    view::{AlertView, BanView, EventView, Standing},
};
use jiff::SignedDuration;
use libp2p::Multiaddr;
use protocol::{
    Timestamp,
    alerts::{Severity, Topic},
    identity::{Keys, PreSharedKey},
    presence::token::{EPOCH_SECS, PresenceToken, epoch_of},
    profile::Profile,
    signed::Verified,
    wire::Role,
};
use store::Store;
use tokio::runtime::Runtime;

use crate::{
    harness::{Federation, PATIENCE, TICK, until, until_true},
    thin::{Beats, Link, Network, Thin},
};

/// A whole member in this process, whose wall clock is so far ahead.
struct Inside {
    runtime: Runtime,
    running: Running,
    _folder: tempfile::TempDir,
    addr: Multiaddr,
}

impl Inside {
    fn start(name: &str, role: Role, network: &Network, seeds: &[&str], ahead: SignedDuration) -> Self {
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (keys, mut settings) = (Keys::generate(&mut rand::rng()), Settings::default());
        settings.network.profile = Profile::Local;
        settings.network.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        settings.network.seeds = seeds.iter().map(|seed| seed.parse().unwrap()).collect();
        settings.gate.sessions_per_subnet = Profile::Local.sessions_per_subnet();
        settings.heartbeat.every = TICK;
        settings.heartbeat.gap_min = Duration::from_millis(200);
        settings.heartbeat.ceiling = 60;
        settings.alerts.every = Duration::from_secs(1);
        let clock = Clock::real_ahead(ahead);
        let running = runtime.block_on(async {
            let opened =
                Store::open(&folder.path().join("muster.db"), &settings.store, clock.now().wall).await.unwrap();
            let start = Start {
                name: name.to_owned(),
                role,
                did: String::new(),
                network_id: network.id.clone(),
                keys,
                network_key: network.key.map(|key| PreSharedKey::from_bytes(key).into()),
                settings,
                database: opened.store,
                clock,
                chance: Chance::unforeseen(),
                traces: actors::traces::Traces::default(),
            };
            actors::start(start).await.unwrap()
        });
        let mut inside = Self { runtime, running, _folder: folder, addr: Multiaddr::empty() };
        inside.addr = until(&format!("{name} listens"), PATIENCE, || inside.status()?.listen.into_iter().next());
        inside
    }

    fn status(&self) -> Option<actors::view::StatusView> {
        self.runtime.block_on(self.running.handle().status()).ok()
    }

    fn events(&self) -> Vec<EventView> {
        self.runtime.block_on(self.running.handle().events(0)).unwrap_or_default()
    }

    fn alert(&self, topic: Topic) -> Option<AlertView> {
        let raised = self.runtime.block_on(self.running.handle().alerts()).unwrap_or_default();
        raised.into_iter().find(|alert| alert.topic == topic)
    }

    fn metric(&self, name: &str) -> f64 {
        let metrics = self.running.handle().metrics();
        let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap()
    }

    fn peer_id(&self) -> protocol::PeerId {
        self.running.handle().peer_id()
    }
}

const NODE: Role = Role { node: true, indexer: false };
const INDEXER: Role = Role { node: true, indexer: true };

#[test]
fn a_node_whose_clock_is_ten_minutes_behind_signs_with_the_time_of_its_pool() {
    let federation = Federation::converged(3, &["paris"]);
    let seeds = [1, 2, 3].map(|number| federation.member(&format!("indexer-{number}")).address());
    let seeds: Vec<&str> = seeds.iter().map(String::as_str).collect();
    let network = federation.member("paris").network();
    let behind = SignedDuration::from_secs(-600);
    let late = Inside::start("late", NODE, &network, &seeds, behind);
    until_true("it is whole", PATIENCE, || late.status().is_some_and(|status| status.standing == Standing::Whole));
    let paris = federation.member("paris");
    let record = until("paris finds its record", PATIENCE, || paris.records(&late.peer_id().to_string()).pop());
    let now = Timestamp::now();
    // By its own clock it would have been over eight minutes ago.
    assert!(record.expiry_date > now, "{record:?}");
    assert!(record.expiry_date <= now + SignedDuration::from_mins(3), "{record:?}");
    let status = late.status().unwrap();
    assert!(status.reasons.iter().any(|reason| reason.contains("agree on +")), "{:?}", status.reasons);
    let alert = until("an alert is raised about its clock", PATIENCE, || late.alert(Topic::Clock));
    assert_eq!((alert.severity, alert.bound), (Severity::Critical, 25_000.0), "{alert:?}");
    assert!((590_000.0..610_000.0).contains(&alert.figure), "{alert:?}");
    assert!((590.0..610.0).contains(&late.metric("muster_clock_off_seconds")));
    let paris = paris.verb(&["alerts", "--output", "json"]).ok().json();
    let is_clock = |alert: &serde_json::Value| alert["topic"] == "clock";
    assert!(!paris.as_array().unwrap().iter().any(is_clock), "its own clock is right: {paris}");
    for number in 1..=3 {
        let indexer = federation.member(&format!("indexer-{number}"));
        assert_eq!(indexer.get::<Vec<BanView>>("/api/v1/bans"), [], "{}", indexer.name);
    }
}

#[test]
fn where_only_two_could_agree_a_wrong_clock_is_told_and_not_moved() {
    let federation = Federation::converged(2, &["paris"]);
    let seeds = [1, 2].map(|number| federation.member(&format!("indexer-{number}")).address());
    let seeds: Vec<&str> = seeds.iter().map(String::as_str).collect();
    let network = federation.member("paris").network();
    let late = Inside::start("late", NODE, &network, &seeds, SignedDuration::from_secs(-600));
    until_true("it says that its clock may be wrong", PATIENCE, || {
        let status = late.status();
        status.is_some_and(|status| status.reasons.iter().any(|it| it.contains("2 of 2 peers' clocks are more than")))
    });
    // What it signs was over eight minutes before, and is no strike.
    assert_ne!(late.status().unwrap().standing, Standing::Whole);
    assert!(late.alert(Topic::Clock).is_none(), "two are too few to say whose clock is wrong");
    assert!(federation.member("paris").records(&late.peer_id().to_string()).is_empty());
    for number in 1..=2 {
        let indexer = federation.member(&format!("indexer-{number}"));
        assert_eq!(indexer.get::<Vec<BanView>>("/api/v1/bans"), [], "{}", indexer.name);
    }
}

#[test]
fn an_auditor_suspects_an_indexer_whose_nodes_give_no_tokens_and_clears_one_whose_nodes_do() {
    const NODES: u8 = 40;
    let network = Network { key: Some([7; 32]), id: "audits".to_owned() };
    // Audits of an epoch are spread over its first 400 s: planned near their end, they are due within a beat.
    let now = Timestamp::now();
    let elapsed = now.as_second().rem_euclid(EPOCH_SECS);
    let ahead = SignedDuration::from_secs((EPOCH_SECS + 380 - elapsed).rem_euclid(EPOCH_SECS));
    let honest = Inside::start("honest", INDEXER, &network, &[], ahead);
    let seed = honest.addr.to_string();
    let liar = Inside::start("liar", INDEXER, &network, &[&seed], ahead);
    let crew = Runtime::new().unwrap();
    let epoch = epoch_of(now + ahead);
    let _aboard: Vec<(Thin, Link, Beats)> = crew.block_on(async {
        let mut aboard = Vec::new();
        for (indexer, first) in [(&honest, 0), (&liar, NODES)] {
            for number in first..first + NODES {
                let keys = Keys::from_seed([number; 32]);
                let token = PresenceToken {
                    indexer: indexer.peer_id(),
                    node: keys.peer_id(),
                    epoch,
                    pub_key: keys.pub_key().to_owned(),
                };
                let token = Verified::sign(&token, &keys).to_raw();
                let thin = Thin::start_at(Ipv4Addr::LOCALHOST, keys, &format!("thin-{number}"), &network).unwrap();
                let link = thin.connect(&indexer.addr).await.unwrap();
                let mut beats = thin.beats(&link).await.unwrap();
                beats.present((first == 0).then_some(token)).await.unwrap();
                aboard.push((thin, link, beats));
            }
        }
        aboard
    });
    until_true("the tokens are kept", PATIENCE, || honest.metric("muster_tokens_kept_total") >= f64::from(NODES));
    // A beat of 20 s until the audits are planned, one until they are due, one until they are made.
    let patience = Duration::from_secs(90);
    let suspects = |by: &Inside, of: &Inside| {
        let of = of.peer_id().to_string();
        by.events().into_iter().find(|event| event.kind == "indexer_suspected" && event.subject == of)
    };
    let suspicion = until("the honest one suspects the liar", patience, || suspects(&honest, &liar));
    assert!(suspicion.detail.contains("claims 4"), "{suspicion:?}");
    until_true("the honest one was audited, too", patience, || honest.metric("muster_audits_answered_total") >= 1.0);
    until_true("the audit was weighed", PATIENCE, || liar.metric("muster_audits_made_total") >= 1.0);
    assert!(suspects(&liar, &honest).is_none(), "{:?}", liar.events());
}
