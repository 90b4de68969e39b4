//! A policy among stand-ins: a store that answers when the test says so, and neighbours that note what they are told.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use protocol::{
    event::{EVENTS_PER_AUTHOR, Verb},
    identity::Keys,
    profile::Profile,
};
use tempfile::TempDir;

use super::*;
use crate::{
    handle::Fault,
    root::{self, Running},
    settings::Settings,
    supervision::ChildSpec,
    testing::{NODE, PATIENCE, StandIn, start_of, until},
};

/// What the disk holds, and what was told to whom.
#[derive(Default)]
struct Mind {
    /// Nothing while the database is away.
    rows: Option<Vec<RelationRow>>,
    told: Vec<String>,
}

type Shared = Arc<Mutex<Mind>>;

struct Bench {
    running: Running,
    mind: Shared,
    _folder: TempDir,
}

impl Bench {
    async fn start(profile: Profile, rows: Option<Vec<RelationRow>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.network.profile = profile;
        let start = start_of(&folder, &Keys::from_seed([1; 32]), NODE, settings, 1).await;
        let mind = Shared::new(Mutex::new(Mind { rows, told: Vec::new() }));
        let of_children = Arc::clone(&mind);
        let running = root::start_with(start, |context| {
            let to = &context.addresses;
            let mind = || Arc::clone(&of_children);
            let store = StandIn {
                mind: mind(),
                hear: |msg, mind: &mut Mind| {
                    if let store::Msg::Relations { reply } = msg {
                        reply.send(mind.rows.clone());
                    }
                },
            };
            let swarm = StandIn {
                mind: mind(),
                hear: |msg, mind: &mut Mind| {
                    if let swarm::Msg::Do(swarm::Command::Close { peer }) = msg {
                        mind.told.push(format!("cut {peer}"));
                    }
                },
            };
            let outbox = StandIn {
                mind: mind(),
                hear: |msg, mind: &mut Mind| {
                    if let outbox::Msg::Forget { peer } = msg {
                        mind.told.push(format!("send nothing to {peer}"));
                    }
                },
            };
            let planner = StandIn {
                mind: mind(),
                hear: |msg, mind: &mut Mind| {
                    if let planner::Msg::Forget { peer } = msg {
                        mind.told.push(format!("feed nothing to {peer}"));
                    }
                },
            };
            let sharing = StandIn {
                mind: mind(),
                hear: |msg, mind: &mut Mind| {
                    if let sharing::Msg::Relations(rows) = msg {
                        mind.told.push(format!("{} relations", rows.len()));
                    }
                },
            };
            let of_policy = context.clone();
            vec![
                ChildSpec::new(&to.store, store, |_| ()),
                ChildSpec::new(&to.swarm, swarm, |_| ()),
                ChildSpec::new(&to.outbox, outbox, |_| ()),
                ChildSpec::new(&to.planner, planner, |_| ()),
                ChildSpec::new(&to.sharing, sharing, |_| ()),
                ChildSpec::new(&to.policy, Policy, move |seat| Args { seat, context: of_policy.clone() }),
            ]
        });
        let running = running.await.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"));
        Self { running, mind, _folder: folder }
    }

    async fn ask<T: Send + 'static>(&self, question: impl FnOnce(Reply<T>) -> Msg) -> Option<T> {
        self.running.context().addresses.policy.ask(Class::Control, question, PATIENCE).await.ok()
    }

    async fn relation(&self, n: u8) -> Option<Relation> {
        self.ask(|reply| Msg::Relation { peer: peer(n), reply }).await.flatten()
    }

    async fn event(&self, n: u8, verb: Verb) -> Result<Relation, RefusalCode> {
        let event = self.ask(|reply| Msg::Event { peer: peer(n), verb, reply }).await.unwrap();
        event.map_err(|refused| refused.refused)
    }

    async fn greet(&self, n: u8) -> Result<(), RefusalCode> {
        let greeted = self.ask(|reply| Msg::Greet { peer: peer(n), reply }).await.unwrap();
        greeted.map_err(|refused| refused.refused)
    }

    fn tell(&self, n: u8, relation: Relation) {
        self.running.context().addresses.policy.tell(Class::Control, Msg::Kept(row(n, relation))).unwrap();
    }

    async fn is_recalled(&self) {
        until("the table is read back", async || self.relation(1).await).await;
        until("it is told", async || self.told().last().cloned()).await;
    }

    fn told(&self) -> Vec<String> {
        self.mind.lock().unwrap().told.clone()
    }

    async fn are_told(&self, expected: &[String]) {
        until(&format!("{expected:?}, got {:?}", self.told()), async || (self.told() == expected).then_some(())).await;
    }
}

fn peer(n: u8) -> PeerId {
    Keys::from_seed([n; 32]).peer_id()
}

fn row(n: u8, relation: Relation) -> RelationRow {
    let changed_at = "2026-01-01T00:00:00Z".parse().unwrap();
    RelationRow { peer: peer(n), relation, name: String::new(), verified: false, changed_at }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_let_in_or_heard_before_the_table_is_read_back() {
    let bench = Bench::start(Profile::Public, None).await;
    assert_eq!(bench.relation(2).await, None);
    assert_eq!(bench.relation(1).await, Some(Relation::Own));
    assert_eq!(
        (bench.greet(2).await, bench.event(2, Verb::Create).await),
        (Err(RefusalCode::Busy), Err(RefusalCode::Busy))
    );
    // What was written down meanwhile counts beside what is read back, and more than it.
    bench.tell(3, Relation::Blacklist);
    bench.mind.lock().unwrap().rows = Some(vec![row(2, Relation::Partner), row(3, Relation::Partner)]);
    until("the table is read back", async || bench.relation(2).await).await;
    assert_eq!(
        (bench.relation(2).await, bench.relation(3).await),
        (Some(Relation::Partner), Some(Relation::Blacklist))
    );
    assert_eq!((bench.greet(2).await, bench.greet(3).await), (Ok(()), Err(RefusalCode::Banned)));
    assert_eq!(bench.event(2, Verb::Create).await, Ok(Relation::Partner));
    assert_eq!(bench.event(3, Verb::Verify).await, Err(RefusalCode::Banned));
    assert_eq!(bench.event(4, Verb::Create).await, Err(RefusalCode::UnknownPeer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_blacklisted_peer_is_cut_off_at_once_and_again_in_the_next_life() {
    let bench = Bench::start(Profile::Public, Some(vec![row(2, Relation::Partner), row(3, Relation::Known)])).await;
    bench.is_recalled().await;
    let mut told = vec!["2 relations".to_owned()];
    bench.are_told(&told).await;
    // Known and then nothing is no reason to cut anybody; a partner no longer is one.
    bench.tell(3, Relation::None);
    told.push("1 relations".to_owned());
    bench.are_told(&told).await;
    bench.mind.lock().unwrap().told.clear();
    bench.tell(2, Relation::Blacklist);
    let (two, cut) = (peer(2), |n| format!("cut {}", peer(n)));
    let all = [format!("send nothing to {two}"), format!("feed nothing to {two}"), cut(2), "1 relations".to_owned()];
    let is_told = |expected: &[String]| {
        let told = bench.told();
        told.len() == expected.len() && expected.iter().all(|word| told.contains(word))
    };
    until("everybody is told", async || is_told(&all).then_some(())).await;
    assert_eq!(bench.greet(2).await, Err(RefusalCode::Banned));

    // What this life did not hear of takes effect when the table is read back.
    bench.mind.lock().unwrap().rows = Some(vec![row(2, Relation::Blacklist)]);
    bench.mind.lock().unwrap().told.clear();
    bench.running.handle().inject("root/policy", Fault::Panic).unwrap();
    bench.tell(2, Relation::Blacklist);
    until("everybody is told again", async || is_told(&all).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_partner_is_cut_off_and_may_come_back() {
    let bench = Bench::start(Profile::Public, Some(vec![row(2, Relation::Partner)])).await;
    bench.is_recalled().await;
    bench.mind.lock().unwrap().told.clear();
    bench.tell(2, Relation::None);
    until("it is cut off", async || bench.told().contains(&format!("cut {}", peer(2))).then_some(())).await;
    assert_eq!((bench.relation(2).await, bench.greet(2).await), (Some(Relation::None), Ok(())));
    assert_eq!(bench.event(2, Verb::Create).await, Err(RefusalCode::UnknownPeer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_is_heard_so_often_a_minute_and_others_beside_it() {
    let rows = vec![row(2, Relation::Partner), row(3, Relation::Partner), row(4, Relation::Known)];
    let bench = Bench::start(Profile::Public, Some(rows)).await;
    bench.is_recalled().await;
    for _ in 0..EVENTS_PER_AUTHOR {
        assert_eq!(bench.event(2, Verb::Update).await, Ok(Relation::Partner));
    }
    assert_eq!(bench.event(2, Verb::Update).await, Err(RefusalCode::Limit));
    assert_eq!(bench.event(3, Verb::Update).await, Ok(Relation::Partner));
    assert_eq!(bench.event(4, Verb::Planner).await, Ok(Relation::Known));
    // A restart forgets the counts, and nothing else.
    bench.running.handle().inject("root/policy", Fault::Panic).unwrap();
    bench.tell(3, Relation::Known);
    let again = async || (bench.relation(2).await == Some(Relation::Partner)).then_some(());
    until("the table is read back", again).await;
    assert_eq!(bench.event(2, Verb::Update).await, Ok(Relation::Partner));
}
