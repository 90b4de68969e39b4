//! Whole members that search each other's catalogues, in one process and over real connections.
//!
//! What members know of each other, and what they offer, is held by the test.

#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Mutex, PoisonError},
};

use protocol::{
    catalogue::{Access, Instance, Kind, Partnership},
    identity::Keys,
    trace::Traceparent,
    wire::Role,
};
use tokio::time::timeout;

use super::*;
use crate::{
    root,
    supervision::ChildSpec,
    swarm::streams::Io,
    testing::{INDEXER, Member, NODE, PATIENCE, until},
    view::Ended as Reason,
};

const NO_NODE: Role = Role { node: false, indexer: true };

/// What a member knows and offers.
#[derive(Default)]
struct Mind {
    relations: HashMap<PeerId, Relation>,
    /// Its relations are not read back yet.
    is_forgetful: bool,
    resources: Vec<Verified<Resource>>,
}

type Shared = Arc<Mutex<Mind>>;

/// Stands where the actor of that name does.
struct Policy(Shared);

impl Actor for Policy {
    type Msg = Envelope<policy::Msg>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, envelope: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        let mind = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match envelope.open() {
            policy::Msg::Relation { peer, reply } => {
                reply.send((!mind.is_forgetful).then(|| mind.relations.get(&peer).copied().unwrap_or_default()));
            }
            policy::Msg::Greet { reply, .. } => reply.send(Ok(())),
            policy::Msg::Peers { is_known_enough, reply } => {
                let is_asked = |relation: &Relation| match is_known_enough {
                    true => relation.is_known(),
                    false => *relation == Relation::Partner,
                };
                let peers = mind.relations.iter().filter(|(_, relation)| is_asked(relation));
                reply.send(peers.map(|(peer, _)| *peer).collect());
            }
            _ => {}
        }
        Ok(())
    }
}

fn look_up_in(mind: Shared) -> LookUp {
    Arc::new(move |sight, query, at_most| {
        let mind = mind.lock().unwrap_or_else(PoisonError::into_inner);
        let is_seen = |resource: &Resource| match &sight {
            Sight::Everything => true,
            Sight::Of { own, asker } => resource.is_shown(own, asker),
        };
        let found = mind.resources.iter().filter(|resource| {
            resource.name.to_lowercase().contains(query.text())
                && query.kind().is_none_or(|kind| kind == resource.kind)
                && is_seen(resource)
        });
        let texts: Vec<_> = found.map(|resource| Arc::clone(resource.text())).take(at_most).collect();
        Box::pin(async { Ok(Found { texts, is_truncated: false }) })
    })
}

/// A whole member, and what is on its mind.
struct Thinker {
    member: Member,
    mind: Shared,
}

impl Deref for Thinker {
    type Target = Member;

    fn deref(&self) -> &Member {
        &self.member
    }
}

impl Thinker {
    async fn start(seed: u8, role: Role, seeds: &[&Self]) -> Self {
        let mind = Shared::default();
        let (of_policy, of_look_up) = (Arc::clone(&mind), Arc::clone(&mind));
        let seeds: Vec<&Member> = seeds.iter().map(|seed| &seed.member).collect();
        let member = Member::with_tree(seed, role, &seeds, |context| {
            let policy = ChildSpec::new(&context.addresses.policy, Policy(of_policy), |_| ());
            let mut children = root::children(context, look_up_in(of_look_up));
            let own = children.iter_mut().find(|child| child.path() == policy.path());
            *own.expect("a member has a policy") = policy;
            children
        });
        Self { member: member.await, mind }
    }

    fn relate(&self, to: &Self, relation: Relation) {
        self.mind.lock().unwrap().relations.insert(to.peer(), relation);
    }

    /// Offers a resource, to everybody or to a group of this peer.
    fn offer(&self, id: &str, shared: Option<(&Self, &str)>) {
        let resource = described(self.peer(), id, shared.map(|(with, group)| (with.peer(), group)));
        self.mind.lock().unwrap().resources.push(Verified::sign(&resource, &self.keys()));
    }

    async fn begin(&self, user: &str, scope: Scope) -> mpsc::Receiver<ResourceStep> {
        let groups = vec!["ops".to_owned()];
        self.handle().search_resources(user, scope, "gpu", Some(Kind::Compute), groups, false).await.unwrap()
    }

    async fn search(&self, scope: Scope) -> Outcome {
        outcome(self.begin("", scope).await).await
    }

    /// Searches everybody until the resource is found. The mesh among indexers is made anew with each second.
    async fn search_until(&self, id: &str) -> Outcome {
        until("it is found", async || {
            let outcome = self.search(Scope::All).await;
            outcome.ids().contains(&id.to_owned()).then_some(outcome)
        })
        .await
    }

    fn answered(&self) -> u64 {
        self.running.context().stats.resource_questions_answered.get()
    }

    async fn stream_to(&self, other: &Self) -> Io {
        reach::open(self.running.context(), other.peer(), Protocol::Event(Verb::Search), OPEN_WITHIN).await.unwrap()
    }
}

fn described(creator: PeerId, id: &str, shared: Option<(PeerId, &str)>) -> Resource {
    let partnership = |(peer, group): (PeerId, &str)| Partnership { peer, groups: vec![group.to_owned()] };
    Resource {
        id: id.to_owned(),
        kind: Kind::Compute,
        name: format!("GPU {id}"),
        type_: String::new(),
        short_description: String::new(),
        description: String::new(),
        owners: Vec::new(),
        creator,
        access: if shared.is_some() { Access::Private } else { Access::Public },
        instances: shared.map(|shared| Instance { partnerships: vec![partnership(shared)] }).into_iter().collect(),
        version: 1,
        updated_at: "2026-01-01T00:00:00Z".parse().unwrap(),
    }
}

/// All that came of a search.
#[derive(Debug)]
struct Outcome {
    hits: Vec<(PeerId, String)>,
    end: ResourceStep,
}

impl Outcome {
    fn ids(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.hits.iter().map(|(_, id)| id.clone()).collect();
        ids.sort();
        ids
    }

    /// Why it ended, and how many were asked, answered, refused, and not heard in time.
    fn tally(&self) -> (Reason, u32, u32, u32, u32) {
        match self.end {
            ResourceStep::Ended { reason, asked, answered, refused, timed_out, .. } => {
                (reason, asked, answered, refused, timed_out)
            }
            ResourceStep::Hit { .. } | ResourceStep::Trace { .. } => panic!("a hit is no end"),
        }
    }
}

async fn outcome(mut steps: mpsc::Receiver<ResourceStep>) -> Outcome {
    let mut hits = Vec::new();
    loop {
        match timeout(PATIENCE, steps.recv()).await.unwrap().expect("the last step is an end") {
            ResourceStep::Hit { peer_id, resource, .. } => {
                let resource: Resource = serde_json::from_str(resource.get()).unwrap();
                assert_eq!(resource.creator, peer_id);
                hits.push((peer_id, resource.id));
            }
            ResourceStep::Trace { .. } => {}
            end @ ResourceStep::Ended { .. } => return Outcome { hits, end },
        }
    }
}

/// Two indexers in a row, the second of which is no node, with a node at each.
struct Row {
    near: Thinker,
    far: Thinker,
    indexers: [Thinker; 2],
}

impl Row {
    async fn start(seed: u8) -> Self {
        let first = Thinker::start(seed, INDEXER, &[]).await;
        let second = Thinker::start(seed + 1, NO_NODE, &[&first]).await;
        let near = Thinker::start(seed + 2, NODE, &[&first]).await;
        let far = Thinker::start(seed + 3, NODE, &[&second]).await;
        near.finds(&far).await;
        far.finds(&near).await;
        Self { near, far, indexers: [first, second] }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_among_all_reaches_a_node_two_indexers_away_and_its_answer_comes_back() {
    let Row { near, far, indexers } = Row::start(10).await;
    far.offer("far", None);
    far.offer("shared", Some((&near, "ops")));
    far.offer("for-others", Some((&near, "dev")));
    near.offer("own", Some((&far, "dev")));
    let found = near.search_until("far").await;
    assert_eq!(found.ids(), ["far", "own", "shared"]);
    assert!(found.hits.contains(&(far.peer(), "far".to_owned())));
    // Nobody else has anything to show, and says nothing.
    assert_eq!(found.tally(), (Reason::Idle, 0, 1, 0, 0));
    let back = far.search_until("shared").await;
    assert_eq!(back.ids(), ["far", "for-others", "shared"], "what is ours is ours, and near shows us nothing");

    // The same to somebody on the blacklist: as if there were nothing.
    far.relate(&near, Relation::Blacklist);
    let answered = far.answered();
    let refused = || far.running.context().stats.resource_questions_refused.get();
    let before = refused();
    let found = near.search(Scope::All).await;
    until("far has heard and refused it", async || (refused() > before).then_some(())).await;
    assert_eq!((found.ids(), found.tally()), (vec!["own".to_owned()], (Reason::Idle, 0, 0, 0, 0)));
    assert_eq!(far.answered(), answered);

    // An indexer that is a node answers, too; one that is none passes on what it hears, and has no users of its own.
    let [first, second] = indexers;
    first.offer("first", None);
    let found = far.search(Scope::All).await;
    assert!(found.ids().contains(&"first".to_owned()), "{found:?}");
    assert_eq!(second.answered(), 0);
    let error = second.handle().search_resources("", Scope::All, "", None, vec![], false).await.unwrap_err();
    assert!(matches!(error, crate::handle::AskError::Invalid(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_among_partners_or_the_known_asks_just_those() {
    let indexer = Thinker::start(20, INDEXER, &[]).await;
    let asker = Thinker::start(21, NODE, &[&indexer]).await;
    let partner = Thinker::start(22, NODE, &[&indexer]).await;
    let known = Thinker::start(23, NODE, &[&indexer]).await;
    let stranger = Thinker::start(24, NODE, &[&indexer]).await;
    for (other, id) in [(&partner, "partner"), (&known, "known"), (&stranger, "stranger")] {
        other.offer(id, None);
        asker.finds(other).await;
    }
    asker.relate(&partner, Relation::Partner);
    asker.relate(&known, Relation::Known);

    let found = asker.search(Scope::Partner).await;
    assert_eq!((found.ids(), found.tally()), (vec!["partner".to_owned()], (Reason::Complete, 1, 1, 0, 0)));
    let found = asker.search(Scope::Known).await;
    assert_eq!(found.ids(), ["known", "partner"]);
    assert_eq!(found.tally(), (Reason::Complete, 2, 2, 0, 0));
    assert_eq!((partner.answered(), known.answered(), stranger.answered()), (2, 1, 0));

    // One that does not know yet who we are shows nothing.
    partner.mind.lock().unwrap().is_forgetful = true;
    let found = asker.search(Scope::Partner).await;
    assert_eq!((found.ids().len(), found.tally()), (0, (Reason::Complete, 1, 0, 1, 0)));
    partner.mind.lock().unwrap().is_forgetful = false;

    // One that has us on its blacklist says no, and one that is gone is told to be.
    partner.relate(&asker, Relation::Blacklist);
    asker.relate(&partner, Relation::Partner);
    known.member.running.stop().await;
    let found = asker.search(Scope::Known).await;
    assert_eq!((found.ids().len(), found.tally()), (0, (Reason::Lost, 2, 0, 1, 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_asks_or_answers_in_the_name_of_another() {
    let Row { near, far, indexers: _indexers } = Row::start(30).await;
    far.offer("far", None);
    let liar = Keys::from_seed([99; 32]);
    let now = near.running.context().now().wall;
    let query = ResourceQuery::new("gpu", None).unwrap();
    let refusal = async |text: &str| {
        let mut io = near.stream_to(&far).await;
        io.write_text(text.as_bytes(), WRITE_WITHIN).await.unwrap();
        let read = io.read(Patience::within(PATIENCE), |value| value.bytes.to_vec()).await.unwrap().unwrap();
        match json::parse::<Answer<EventAck>>(&read, 1 << 20) {
            Ok(Answer::Refused(refused)) => refused.refused,
            answer => panic!("{answer:?}"),
        }
    };
    let id = "0".repeat(32).parse().unwrap();
    let forged = Verified::sign(&rules::question(liar.peer_id(), id, &query, vec![], Traceparent::Absent, now), &liar);
    assert_eq!(refusal(forged.text()).await, RefusalCode::NotYours);
    let other =
        Event { verb: Verb::Create, ..rules::question(near.peer(), id, &query, vec![], Traceparent::Absent, now) };
    assert_eq!(refusal(Verified::sign(&other, &near.keys()).text()).await, RefusalCode::Invalid);
    let late = rules::question(near.peer(), id, &query, vec![], Traceparent::Absent, now - Duration::from_secs(301));
    assert_eq!(refusal(Verified::sign(&late, &near.keys()).text()).await, RefusalCode::Clock);

    // An answer to nothing, and one to a search of far's with a resource that near did not create.
    let answer = |id: QueryId, resource: &Verified<Resource>| {
        let answer = &rules::split(id, &[Arc::clone(resource.text())], false)[0];
        Verified::sign(&rules::answer(near.peer(), answer, now), &near.keys())
    };
    let of_liar = Verified::sign(&described(liar.peer_id(), "gold", None), &liar);
    let of_near = Verified::sign(&described(near.peer(), "iron", None), &near.keys());
    assert_eq!(refusal(answer(id, &of_near).text()).await, RefusalCode::Invalid);
    let mut io = near.stream_to(&far).await;
    let mut steps = far.begin("", Scope::All).await;
    let step = timeout(PATIENCE, steps.recv()).await.unwrap().unwrap();
    let ResourceStep::Hit { query_id, .. } = step else { panic!("far has something of its own: {step:?}") };
    let id: QueryId = query_id.parse().unwrap();
    let both =
        ResourceAnswer { query_id, resources: vec![of_liar.to_raw(), of_near.to_raw()], last: true, truncated: false };
    let both = Verified::sign(&rules::answer(near.peer(), &both, now), &near.keys());
    io.write_text(both.text().as_bytes(), WRITE_WITHIN).await.unwrap();
    let taken = io.read(Patience::within(PATIENCE), |value| value.bytes.to_vec()).await.unwrap().unwrap();
    assert_eq!(taken, br#"{"ok":true}"#);
    assert_eq!(outcome(steps).await.ids(), ["iron"], "the rest of it is taken");
    assert_eq!(refusal(answer(id, &of_near).text()).await, RefusalCode::Invalid, "the search is over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_search_of_a_user_ends_the_first_and_one_that_is_closed_leaves_nothing_behind() {
    let indexer = Thinker::start(40, INDEXER, &[]).await;
    let node = Thinker::start(41, NODE, &[&indexer]).await;
    let open = || node.running.context().stats.resource_searches.get();
    let first = node.begin("ann", Scope::All).await;
    let other = node.begin("bob", Scope::All).await;
    until("both are open", async || (open() == 2).then_some(())).await;
    let second = node.begin("ann", Scope::All).await;
    assert_eq!(outcome(first).await.tally().0, Reason::Replaced);
    until("the other user's goes on", async || (open() == 2).then_some(())).await;
    drop((second, other));
    until("nothing is open", async || (open() == 0).then_some(())).await;
    // Whoever asks for what cannot be is told.
    let long = "x".repeat(protocol::catalogue::QUERY_CHARS_MAX + 1);
    let error = node.handle().search_resources("", Scope::All, &long, None, vec![], false).await.unwrap_err();
    assert!(matches!(error, crate::handle::AskError::Invalid(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_actor_ends_the_streams_of_its_searches_and_takes_new_ones() {
    let indexer = Thinker::start(50, INDEXER, &[]).await;
    let mut steps = indexer.begin("ann", Scope::All).await;
    indexer.handle().inject("root/node/resources", crate::handle::Fault::Panic).unwrap();
    assert!(timeout(PATIENCE, steps.recv()).await.unwrap().is_none());
    indexer.offer("own", None);
    let begin = async || indexer.handle().search_resources("ann", Scope::Partner, "", None, vec![], false).await.ok();
    let found = outcome(until("it lives again", begin).await).await;
    assert_eq!((found.ids(), found.tally()), (vec!["own".to_owned()], (Reason::Complete, 0, 0, 0, 0)));
}
