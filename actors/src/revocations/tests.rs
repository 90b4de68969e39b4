//! Revocations among stand-ins: a store that answers when the test says so, and neighbours that note what they are told.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use protocol::{identity::Keys, revocations::revoke};
use tempfile::TempDir;

use super::*;
use crate::{
    handle::Fault as Injected,
    root::{self, Running},
    settings::Settings,
    supervision::ChildSpec,
    testing::{NODE, PATIENCE, StandIn, start_of, until},
};

/// What the disk holds, and what was told to whom.
#[derive(Default)]
struct Mind {
    /// Nothing while the database is away.
    kept: Option<BTreeMap<PeerId, Held>>,
    told: Vec<String>,
}

type Shared = Arc<Mutex<Mind>>;

fn store(msg: store::Msg, mind: &mut Mind) {
    match msg {
        store::Msg::Revocations { reply } => {
            reply.send(mind.kept.as_ref().map(|kept| kept.values().cloned().collect()))
        }
        store::Msg::Promises { writes, reply } => {
            let Some(kept) = &mut mind.kept else { return reply.send(Kept::Away) };
            for write in writes {
                match write {
                    Write::Revocation(held) => drop(kept.insert(held.revoke.peer_id, held)),
                    Write::ForgetRevocation(peer) => drop(kept.remove(&peer)),
                    Write::ForgetPeer(peer) => mind.told.push(format!("forget {peer}")),
                    other => panic!("{other:?}"),
                }
            }
            reply.send(Kept::Written);
        }
        _ => {}
    }
}

struct Bench {
    running: Running,
    mind: Shared,
    _folder: TempDir,
}

impl Bench {
    async fn start(kept: Option<Vec<Held>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let start = start_of(&folder, &keys(1), NODE, Settings::default(), 1).await;
        let kept = kept.map(|kept| kept.into_iter().map(|held| (held.revoke.peer_id, held)).collect());
        let mind = Shared::new(Mutex::new(Mind { kept, told: Vec::new() }));
        let of_children = Arc::clone(&mind);
        let running = root::start_with(start, |context| {
            let to = &context.addresses;
            let mind = || Arc::clone(&of_children);
            let swarm = StandIn {
                mind: mind(),
                hear: |msg, mind: &mut Mind| match msg {
                    swarm::Msg::Do(swarm::Command::Disown { peer }) => mind.told.push(format!("cut {peer}")),
                    swarm::Msg::Do(swarm::Command::Open { peer, protocol, .. }) => {
                        mind.told.push(format!("{protocol:?} {peer}"));
                    }
                    _ => {}
                },
            };
            let registry = StandIn {
                mind: mind(),
                hear: |msg, mind: &mut Mind| {
                    if let registry::Msg::Revoked(peer) = msg {
                        mind.told.push(format!("end {peer}"));
                    }
                },
            };
            let pool = StandIn {
                mind: mind(),
                hear: |msg, mind: &mut Mind| {
                    if let pool::Msg::Revoked { peer } = msg {
                        mind.told.push(format!("leave {peer}"));
                    }
                },
            };
            let health = StandIn {
                mind: mind(),
                hear: |msg, mind: &mut Mind| {
                    if let crate::health::Msg::Trouble { what, remedy: Some(_) } = msg {
                        mind.told.push(format!("trouble {what}"));
                    }
                },
            };
            let own = context.clone();
            vec![
                ChildSpec::new(&to.store, StandIn { mind: mind(), hear: store }, |_| ()),
                ChildSpec::new(&to.swarm, swarm, |_| ()),
                ChildSpec::new(&to.registry, registry, |_| ()),
                ChildSpec::new(&to.pool, pool, |_| ()),
                ChildSpec::new(&to.health, health, |_| ()),
                ChildSpec::new(&to.revocations, Revocations, move |seat| Args { seat, context: own.clone() }),
            ]
        });
        let running = running.await.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"));
        Self { running, mind, _folder: folder }
    }

    fn context(&self) -> &Context {
        self.running.context()
    }

    fn tell(&self, msg: Msg) {
        self.context().addresses.revocations.tell(Class::Control, msg).unwrap();
    }

    async fn hand(&self, n: u8, from: Source) -> Result<Outcome, Fault> {
        let revoke = Box::new(revoke_of(n));
        let ask = |reply| Msg::Heard { revoke, from, reply };
        let asked = self.context().addresses.revocations.ask(Class::Control, ask, PATIENCE).await;
        // Between two lives nobody is home.
        asked.unwrap_or(Err(Fault::NotReady))
    }

    async fn is_recalled(&self) {
        until("the book is read back", async || (!self.context().revoked.borrow().is_unknown()).then_some(())).await;
    }

    async fn is_told(&self, word: String) {
        until(&word, async || self.told().contains(&word).then_some(())).await;
    }

    fn told(&self) -> Vec<String> {
        self.mind.lock().unwrap().told.clone()
    }

    fn count(&self, word: &str) -> usize {
        self.told().iter().filter(|told| *told == word).count()
    }
}

fn keys(n: u8) -> Keys {
    Keys::from_seed([n; 32])
}

fn peer(n: u8) -> PeerId {
    keys(n).peer_id()
}

fn revoke_of(n: u8) -> Verified<Revoke> {
    revoke(&keys(n), &keys(n).did().to_string(), "stolen", "2026-01-01T00:00:00Z".parse().unwrap())
}

fn held(n: u8) -> Held {
    Held::new(revoke_of(n), HOLD, Weight::Heard, protocol::Timestamp::now())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_let_in_before_it_is_known_who_is_revoked() {
    let bench = Bench::start(None).await;
    let refused = bench.context().check_revoked(&peer(2)).unwrap_err();
    assert_eq!(refused.refused, RefusalCode::Busy);
    assert_eq!(bench.hand(2, Source::Operator).await, Err(Fault::NotReady));
    bench.mind.lock().unwrap().kept = Some([(peer(3), held(3))].into());
    bench.is_recalled().await;
    assert!(bench.context().check_revoked(&peer(2)).is_ok());
    let refused = bench.context().check_revoked(&peer(3)).unwrap_err();
    assert_eq!((refused.refused, refused.detail.contains("2026-01-01T00:00:00Z")), (RefusalCode::Banned, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_one_is_on_the_disk_when_it_is_answered_and_everybody_drops_its_peer() {
    let bench = Bench::start(Some(Vec::new())).await;
    bench.is_recalled().await;
    let outcome = bench.hand(2, Source::Operator).await.unwrap();
    assert_eq!((outcome.is_new, outcome.held.weight), (true, Weight::Ours));
    assert!(bench.mind.lock().unwrap().kept.as_ref().unwrap().contains_key(&peer(2)));
    assert!(bench.context().is_revoked(&peer(2)) && !bench.context().is_revoked(&peer(3)));
    for what in ["cut", "end", "leave", "forget"] {
        bench.is_told(format!("{what} {}", peer(2))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_one_is_passed_on_to_everybody_but_its_bringer_and_a_replay_to_nobody() {
    let bench = Bench::start(Some(Vec::new())).await;
    bench.is_recalled().await;
    for n in 10..13 {
        bench.tell(Msg::Met { peer: peer(n), is_indexer: n == 12 });
    }
    // The peer that is revoked is connected, too: it is cut off, not told.
    bench.tell(Msg::Met { peer: peer(2), is_indexer: false });
    bench.tell(Msg::Gone { peer: peer(11) });
    let told = |n| format!("Revoke {}", peer(n));
    assert!(bench.hand(2, Source::Peer(peer(10))).await.unwrap().is_new);
    bench.is_told(told(12)).await;
    for _ in 0..3 {
        assert!(!bench.hand(2, Source::Peer(peer(12))).await.unwrap().is_new);
    }
    // Another one that is new goes the same way behind it.
    bench.hand(3, Source::Peer(peer(12))).await.unwrap();
    bench.is_told(told(10)).await;
    assert_eq!([10, 11, 12, 2].map(|n| bench.count(&told(n))), [1, 0, 1, 0], "{:?}", bench.told());
    let stats = &bench.context().stats;
    assert_eq!((stats.revocations_new.get(), stats.revocations_known.get()), (2, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_indexer_is_asked_for_all_that_it_holds_and_what_it_tells_is_held_no_longer_than_there() {
    let bench = Bench::start(Some(Vec::new())).await;
    bench.tell(Msg::Met { peer: peer(10), is_indexer: true });
    bench.tell(Msg::Met { peer: peer(11), is_indexer: false });
    bench.is_told(format!("Revocations {}", peer(10))).await;
    bench.is_recalled().await;
    let left = LEFT_MIN;
    let short = (revoke_of(4), LEFT_MIN - Duration::from_secs(1));
    bench.tell(Msg::Learnt { from: peer(10), page: vec![short, (revoke_of(2), left), (revoke_of(3), Duration::MAX)] });
    let look = || bench.context().addresses.revocations.ask(Class::Control, Msg::Look, PATIENCE);
    let held = until("both are held", async || look().await.ok().filter(|held| held.len() == 2)).await;
    let now = protocol::Timestamp::now();
    let of = |n| held.iter().find(|held| held.revoke.peer_id == peer(n)).unwrap().left(now);
    assert!(of(2) <= left && of(3) > HOLD - left, "{held:?}");
    assert_eq!(bench.count(&format!("Revocations {}", peer(11))), 0);
    // Others learn by asking what was learned by asking; what is handed in goes to them at once.
    bench.hand(5, Source::Peer(peer(10))).await.unwrap();
    bench.is_told(format!("Revoke {}", peer(11))).await;
    assert_eq!(bench.count(&format!("Revoke {}", peer(11))), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_indexer_that_is_asked_tells_no_more_than_is_learned_in_an_hour() {
    let bench = Bench::start(Some(Vec::new())).await;
    bench.is_recalled().await;
    let many = u8::try_from(TOLD_PER_PEER).unwrap();
    let page = |numbers: std::ops::Range<u8>| numbers.map(|n| (revoke_of(n), HOLD)).collect();
    bench.tell(Msg::Learnt { from: peer(250), page: page(2..many + 3) });
    bench.tell(Msg::Learnt { from: peer(251), page: page(200..201) });
    let look = || bench.context().addresses.revocations.ask(Class::Control, Msg::Look, PATIENCE);
    let held = look().await.unwrap();
    assert_eq!(held.len(), usize::from(many) + 1, "one too many of the first, and one of another");
    assert!(!bench.context().is_revoked(&peer(many + 2)) && bench.context().is_revoked(&peer(200)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_our_operator_handed_in_goes_out_again_when_it_is_handed_in_again_and_to_each_indexer_that_is_met() {
    let bench = Bench::start(Some(Vec::new())).await;
    bench.is_recalled().await;
    bench.tell(Msg::Met { peer: peer(10), is_indexer: false });
    for times in 1..=2 {
        assert_eq!(bench.hand(2, Source::Operator).await.unwrap().is_new, times == 1);
        let told = format!("Revoke {}", peer(10));
        until("it is told", async || (bench.count(&told) == times).then_some(())).await;
    }
    bench.hand(3, Source::Peer(peer(10))).await.unwrap();
    bench.tell(Msg::Met { peer: peer(11), is_indexer: true });
    bench.is_told(format!("Revocations {}", peer(11))).await;
    assert_eq!(bench.count(&format!("Revoke {}", peer(11))), 1, "ours, and not what others brought");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owners_word_lasts_though_another_told_of_it_for_less() {
    let bench = Bench::start(Some(Vec::new())).await;
    bench.is_recalled().await;
    bench.tell(Msg::Met { peer: peer(10), is_indexer: false });
    bench.tell(Msg::Learnt { from: peer(11), page: vec![(revoke_of(2), LEFT_MIN)] });
    let outcome = bench.hand(2, Source::Peer(peer(12))).await.unwrap();
    assert!(outcome.held.left(protocol::Timestamp::now()) > HOLD - LEFT_MIN);
    bench.is_told(format!("Revoke {}", peer(10))).await;
    let until_then = || bench.mind.lock().unwrap().kept.as_ref().unwrap()[&peer(2)].until;
    assert_eq!(until_then(), outcome.held.until, "on the disk, too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_is_forgotten_on_the_disk_as_well() {
    let old = Held { until: "2026-01-02T00:00:00Z".parse().unwrap(), ..held(2) };
    let bench = Bench::start(Some(vec![old, held(3)])).await;
    let kept = || bench.mind.lock().unwrap().kept.as_ref().unwrap().keys().copied().collect::<Vec<_>>();
    until("it is gone", async || (kept() == [peer(3)]).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_told_of_and_it_holds_all_the_same() {
    let bench = Bench::start(Some(Vec::new())).await;
    bench.is_recalled().await;
    bench.mind.lock().unwrap().kept = None;
    assert_eq!(bench.hand(2, Source::Operator).await, Err(Fault::NotWritten));
    assert!(bench.context().is_revoked(&peer(2)));
    bench.mind.lock().unwrap().kept = Some(BTreeMap::new());
    let is_kept = || bench.mind.lock().unwrap().kept.as_ref().unwrap().contains_key(&peer(2));
    until("it is written down later", async || is_kept().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_actor_knows_all_of_them_again_though_the_database_was_away() {
    let bench = Bench::start(Some(vec![held(2)])).await;
    bench.is_recalled().await;
    bench.hand(3, Source::Operator).await.unwrap();
    // One that cannot be written down.
    let kept = bench.mind.lock().unwrap().kept.take();
    assert_eq!(bench.hand(4, Source::Operator).await, Err(Fault::NotWritten));
    let handle = bench.running.handle();
    let lives = || handle.actors().into_iter().find(|actor| actor.name == "root/revocations").map(|it| it.incarnation);
    let before = lives();
    handle.inject("root/revocations", Injected::Panic).unwrap();
    bench.tell(Msg::TellHealth);
    until("it lives again", async || (lives() > before).then_some(())).await;
    for n in [2, 3, 4] {
        assert!(bench.context().is_revoked(&peer(n)), "the set stays in force");
    }
    bench.mind.lock().unwrap().kept = kept;
    let again = async || bench.hand(3, Source::Operator).await.ok();
    assert!(!until("it is back", again).await.is_new);
    for n in [2, 3, 4] {
        assert!(bench.context().is_revoked(&peer(n)), "what could not be written down, too");
    }
    let is_kept = || bench.mind.lock().unwrap().kept.as_ref().unwrap().contains_key(&peer(4));
    until("it is written down in the end", async || is_kept().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_tried_is_written_down_as_such() {
    let bench = Bench::start(Some(vec![held(2)])).await;
    bench.is_recalled().await;
    assert!(bench.context().check_revoked(&peer(2)).is_err());
    let weight = || bench.mind.lock().unwrap().kept.as_ref().unwrap()[&peer(2)].weight;
    until("it is written down", async || (weight() == Weight::Tried).then_some(())).await;
    assert_eq!(bench.context().stats.revoked_refused.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_cannot_flood_us_with_keys_that_it_makes() {
    let bench = Bench::start(Some(Vec::new())).await;
    bench.is_recalled().await;
    let from = Source::Peer(peer(10));
    for n in 100..100 + u8::try_from(protocol::revocations::NEWS_PER_PEER).unwrap() {
        bench.hand(n, from).await.unwrap();
    }
    assert!(
        matches!(bench.hand(200, from).await, Err(Fault::TooMany(refused)) if refused.refused == RefusalCode::Limit)
    );
    assert!(!bench.hand(100, from).await.unwrap().is_new, "what is known is answered");
    assert!(bench.hand(200, Source::Peer(peer(11))).await.unwrap().is_new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_own_key_is_revoked_says_so_and_passes_it_on() {
    let bench = Bench::start(Some(Vec::new())).await;
    bench.is_recalled().await;
    bench.tell(Msg::Met { peer: peer(10), is_indexer: false });
    bench.hand(1, Source::Operator).await.unwrap();
    bench.is_told("trouble revoked".to_owned()).await;
    bench.is_told(format!("Revoke {}", peer(10))).await;
    assert_eq!(bench.count(&format!("cut {}", peer(1))), 0);
}
