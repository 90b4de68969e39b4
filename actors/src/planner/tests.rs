//! Whole members that make a plan together, in one process and over real connections.

#![allow(clippy::unwrap_used)]

use protocol::{
    event::EventAck,
    json,
    relation::Relation,
    wire::{Answer, Protocol, RefusalCode},
};

use super::*;
use crate::{
    handle::{AskError, Fault},
    reach,
    sharing::Author,
    swarm::{self, streams::Patience},
    testing::{INDEXER, Member, NODE, PATIENCE, until},
};

/// An indexer and two nodes, each of which finds the other.
struct Pair {
    near: Member,
    far: Member,
    _indexer: Member,
}

impl Pair {
    async fn start(seed: u8) -> Self {
        let indexer = Member::start(seed, INDEXER, &[]).await;
        let near = Member::start(seed + 1, NODE, &[&indexer]).await;
        let far = Member::start(seed + 2, NODE, &[&indexer]).await;
        near.finds(&far).await;
        far.finds(&near).await;
        Self { near, far, _indexer: indexer }
    }

    async fn partners(seed: u8) -> Self {
        let pair = Self::start(seed).await;
        relate(&pair.near, &pair.far, Relation::Partner).await;
        relate(&pair.far, &pair.near, Relation::Partner).await;
        pair
    }
}

async fn relate(member: &Member, to: &Member, relation: Relation) {
    until("it keeps a relation", async || member.handle().relate(to.peer(), relation, String::new()).await.ok()).await;
}

async fn feed(from: &Member, to: &Member, step: &str) {
    let step = step.as_bytes().to_vec();
    from.handle().feed_plan(to.peer(), Some(step), Author::default()).await.unwrap();
}

/// The steps that a member has told its applications, or will.
async fn told(member: &Member) -> Vec<String> {
    let rows = member.context().database.outbox_next(&Destination::Bus, 0, 64).await.unwrap().rows;
    let steps = rows.into_iter().filter(|row| row.outgoing.subject == "planner_execution");
    steps.map(|row| String::from_utf8(row.outgoing.payload.to_vec()).unwrap()).collect()
}

async fn are_told(member: &Member, steps: &[&str]) {
    until(&format!("{steps:?} are told"), async || (told(member).await == steps).then_some(())).await;
}

/// What was fed to the one session that is open, and what of it waits.
async fn counts(member: &Member) -> Option<(u64, u64)> {
    match &member.handle().plans().await.unwrap()[..] {
        [plan] => Some((plan.fed, plan.waiting)),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_arrive_in_their_order_over_a_session_that_outlives_its_stream() {
    let Pair { near, far, _indexer } = Pair::partners(110).await;
    near.handle().feed_plan(far.peer(), None, Author::default()).await.unwrap();
    assert_eq!(counts(&near).await, Some((0, 0)), "it is open before it is fed");
    for step in ["1", "2"] {
        feed(&near, &far, step).await;
    }
    are_told(&far, &["1", "2"]).await;
    until("nothing waits", async || (counts(&near).await == Some((2, 0))).then_some(())).await;
    // The stream breaks under the session, and the session goes on.
    let cut = swarm::Msg::Do(swarm::Command::Close { peer: near.peer() });
    far.context().addresses.swarm.tell(Class::Control, cut).unwrap();
    feed(&near, &far, "3").await;
    are_told(&far, &["1", "2", "3"]).await;
    // What was fed is sent though the session is closed, and it is closed once.
    feed(&near, &far, "4").await;
    near.handle().close_plan(far.peer()).await.unwrap();
    are_told(&far, &["1", "2", "3", "4"]).await;
    assert_eq!(counts(&near).await, None);
    let again = near.handle().close_plan(far.peer()).await.unwrap_err();
    assert!(matches!(again, AskError::Unknown { what: "planner session", .. }), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_fed_survives_the_members_that_are_killed_and_has_its_effect_once() {
    let Pair { near, far, _indexer } = Pair::start(120).await;
    // Far knows nothing of near yet, and takes nothing from it.
    relate(&near, &far, Relation::Partner).await;
    for step in ["1", "2"] {
        feed(&near, &far, step).await;
    }
    let near = near.killed_and_started().await;
    assert_eq!(counts(&near).await, Some((2, 2)));
    relate(&far, &near, Relation::Known).await;
    are_told(&far, &["1", "2"]).await;
    let far = far.killed_and_started().await;
    assert_eq!(told(&far).await, ["1", "2"], "what was acknowledged is on the disk");
    // It listens somewhere else now, where its newest record says.
    near.finds(&far).await;
    feed(&near, &far, "3").await;
    are_told(&far, &["1", "2", "3"]).await;
    until("nothing waits", async || (counts(&near).await == Some((3, 0))).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_actor_loses_no_step_and_a_blacklisted_peer_gets_none() {
    let Pair { near, far, _indexer } = Pair::partners(130).await;
    near.handle().inject("root/node/planner", Fault::Panic).unwrap();
    feed(&near, &far, "1").await;
    are_told(&far, &["1"]).await;
    relate(&near, &far, Relation::Blacklist).await;
    assert_eq!(counts(&near).await, None, "with whoever is blacklisted no plan is made");
    let refused = near.handle().feed_plan(far.peer(), Some(b"2".to_vec()), Author::default()).await.unwrap_err();
    assert!(matches!(refused, AskError::Invalid(_)), "{refused}");
    let own = near.handle().feed_plan(near.peer(), None, Author::default()).await.unwrap_err();
    assert!(matches!(own, AskError::Invalid(_)), "{own}");
    let long = vec![b' '; protocol::event::PAYLOAD_BYTES_MAX + 1];
    let long = near.handle().feed_plan(far.peer(), Some(long), Author::default()).await.unwrap_err();
    assert!(matches!(long, AskError::Invalid(_)), "{long}");
    assert_eq!(told(&far).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_not_welcome_is_refused_with_the_first_byte_of_its_event() {
    let Pair { near, far, _indexer } = Pair::start(140).await;
    let refusal = async |verb| {
        let mut io = reach::open(near.context(), far.peer(), Protocol::Event(verb), PATIENCE).await.unwrap();
        // The value never ends, so nobody can have read it.
        io.write_bytes(b"{", false, PATIENCE).await.unwrap();
        let read = io.read(Patience::within(PATIENCE), |value| value.bytes.to_vec()).await.unwrap().unwrap();
        match json::parse::<Answer<EventAck>>(&read, 1 << 20) {
            Ok(Answer::Refused(refused)) => refused.refused,
            answer => panic!("{answer:?}"),
        }
    };
    for verb in [Verb::Create, Verb::Delete, Verb::Planner, Verb::Minio] {
        assert_eq!(refusal(verb).await, RefusalCode::UnknownPeer, "{verb:?}");
    }
    relate(&far, &near, Relation::Known).await;
    assert_eq!(refusal(Verb::Update).await, RefusalCode::UnknownPeer);
    // A sender whose event is longer than what is taken in of it hears the refusal, too.
    relate(&near, &far, Relation::Partner).await;
    relate(&far, &near, Relation::None).await;
    let step = format!("{{\"long\":\"{}\"}}", "x".repeat(600 * 1024));
    feed(&near, &far, &step).await;
    let rows = async || near.handle().outbox(Some(Destination::Peer(far.peer())), None, None, 9).await.ok();
    let waits = until("it was told why it waits", async || {
        rows().await?.pop().filter(|row| row.attempts > 0 && row.detail.contains("UnknownPeer"))
    });
    assert_eq!(waits.await.fate, "waiting");
    relate(&far, &near, Relation::Known).await;
    are_told(&far, &[&step]).await;
}
