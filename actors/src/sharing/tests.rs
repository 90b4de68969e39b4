//! Whole members that tell each other what they change, in one process and over real connections.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use ::store::{Fate as Kept, OutboxFilter, OutboxRow};
use protocol::{
    bus::{self, VerbIn},
    catalogue::{Draft, Kind},
    identity::Keys,
};
use rand::SeedableRng as _;
use serde_json::{Value, json};

use super::*;
use crate::{
    handle::Fault,
    testing::{INDEXER, Member, NODE, PATIENCE, until},
    view::ResourceView,
};

impl Member {
    async fn make_partner(&self, other: &Self) {
        let relate = async || self.handle().relate(other.peer(), Relation::Partner, String::new()).await.ok();
        until("it has a partner", relate).await;
    }

    /// What becomes of an order that the bus brings under this name.
    async fn order(&self, id: &str, verb: VerbIn, envelope: &Value) -> Verdict {
        until("an order is taken up", async || {
            let order = bus::read(verb, envelope.to_string().as_bytes()).unwrap();
            let orders = vec![Ordered { id: id.to_owned(), order }];
            let ask = |reply| Msg::Ordered { orders, reply };
            let sharing = &self.running.context().addresses.sharing;
            let verdict = sharing.ask(Class::Control, ask, PATIENCE).await.ok()?.remove(0);
            (!matches!(verdict, Verdict::NotYet(_))).then_some(verdict)
        })
        .await
    }

    async fn put_quietly(&self, order: &str, resource: &Value) -> Verdict {
        self.order(order, VerbIn::CreateResource, &json!({ "datatype": "data", "payload": resource })).await
    }

    async fn remove_quietly(&self, order: &str, removal: &Value) -> Verdict {
        self.order(order, VerbIn::RemoveResource, &json!({ "datatype": "data", "payload": removal })).await
    }

    async fn propagate(&self, order: &str, action: &str, payload: &Value) -> Verdict {
        let payload = json!({ "action": action, "datatype": "data", "payload": payload });
        self.order(order, VerbIn::PropagationEvent, &json!({ "datatype": "data", "payload": payload })).await
    }

    /// All that was ever for partners, the oldest first.
    async fn sent(&self) -> Vec<OutboxRow> {
        let filter = OutboxFilter { limit: 1_000, ..OutboxFilter::default() };
        let mut rows = self.running.context().database.outbox(&filter).await.unwrap().rows;
        rows.reverse();
        rows
    }

    /// Waits until partners have taken so many events, and tells their verbs.
    async fn delivered(&self, count: usize) -> Vec<String> {
        let rows = until("partners have taken what waits", async || {
            let rows = self.sent().await;
            (rows.len() >= count && rows.iter().all(|row| row.fate == Kept::Delivered)).then_some(rows)
        })
        .await;
        rows.into_iter().map(|row| row.outgoing.subject).collect()
    }

    async fn resource(&self, of: &Self, id: &str) -> Option<ResourceView> {
        self.handle().resource(&of.peer(), id).await.ok()
    }
}

/// Two nodes at one indexer, partners of each other.
struct Two {
    paris: Member,
    lyon: Member,
    _indexer: Member,
}

impl Two {
    async fn start(seed: u8) -> Self {
        let indexer = Member::without_bus(seed, INDEXER, &[]).await;
        let paris = Member::without_bus(seed + 1, NODE, &[&indexer]).await;
        let lyon = Member::without_bus(seed + 2, NODE, &[&indexer]).await;
        paris.make_partner(&lyon).await;
        lyon.make_partner(&paris).await;
        paris.finds(&lyon).await;
        lyon.finds(&paris).await;
        Self { paris, lyon, _indexer: indexer }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_what_was_kept_quiet_reaches_the_partners_once_when_it_is_told() {
    let Two { paris, lyon, _indexer } = Two::start(60).await;
    let public = |version: u64, name: &str| json!({ "id": "r", "name": name, "access": "public", "version": version });
    // The same version twice: first for this member alone, then for its partners.
    assert_eq!(paris.put_quietly("1", &public(5, "quiet")).await, Verdict::Done);
    assert!(paris.sent().await.is_empty() && lyon.resource(&paris, "r").await.is_none());
    assert_eq!(paris.propagate("2", "create", &public(5, "quiet")).await, Verdict::Done);
    assert_eq!(paris.delivered(1).await, ["create"]);
    let [here, there] = [&paris, &lyon].map(|member| member.resource(&paris, "r"));
    let (here, there) = (here.await.unwrap(), there.await.unwrap());
    assert_eq!((there.version, there.resource.get()), (5, here.resource.get()), "one version has one text");
    // However often it is said.
    for order in ["2", "3"] {
        assert_eq!(paris.propagate(order, "update", &public(5, "other")).await, Verdict::Repeated);
    }
    // The partner knows one that was removed without a word.
    assert_eq!(paris.remove_quietly("4", &json!({ "id": "r", "version": 7 })).await, Verdict::Done);
    assert_eq!(paris.propagate("5", "delete", &json!({ "id": "r", "version": 7 })).await, Verdict::Done);
    assert_eq!(paris.propagate("6", "delete", &json!({ "id": "r", "version": 7 })).await, Verdict::Repeated);
    assert_eq!(paris.delivered(2).await, ["create", "delete"]);
    assert!(lyon.resource(&paris, "r").await.is_none());
    // And without versions of the application's own.
    let unversioned = json!({ "id": "s", "name": "s", "access": "public" });
    assert_eq!(paris.put_quietly("7", &unversioned).await, Verdict::Done);
    assert_eq!(paris.propagate("8", "create", &unversioned).await, Verdict::Done);
    assert_eq!(paris.remove_quietly("9", &json!({ "id": "s" })).await, Verdict::Done);
    assert_eq!(paris.propagate("10", "delete", &json!({ "id": "s" })).await, Verdict::Done);
    assert_eq!(paris.delivered(4).await, ["create", "delete", "create", "delete"]);
    assert!(lyon.resource(&paris, "s").await.is_none());
    assert_eq!(paris.propagate("11", "delete", &json!({ "id": "s" })).await, Verdict::Done);
    assert_eq!(paris.sent().await.len(), 4, "nobody is told again that it is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_from_whom_a_resource_is_quietly_taken_hears_of_it_when_that_is_told() {
    let Two { paris, lyon, _indexer } = Two::start(70).await;
    let with = |access: &str, version: u64| json!({ "id": "r", "name": "r", "access": access, "version": version });
    assert_eq!(paris.propagate("1", "create", &with("public", 1)).await, Verdict::Done);
    paris.delivered(1).await;
    assert!(lyon.resource(&paris, "r").await.is_some());
    assert_eq!(paris.put_quietly("2", &with("private", 2)).await, Verdict::Done);
    assert_eq!(paris.propagate("3", "update", &with("private", 2)).await, Verdict::Done);
    assert_eq!(paris.delivered(2).await, ["create", "delete"]);
    assert!(lyon.resource(&paris, "r").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_actor_does_what_was_ordered_once() {
    let Two { paris, lyon, _indexer } = Two::start(80).await;
    for n in 1..=5 {
        let (order, resource) = (n.to_string(), json!({ "id": "r", "name": "r", "access": "public", "version": n }));
        paris.handle().inject("root/node/sharing", Fault::Panic).unwrap();
        // Whatever life takes it up, and however often it is asked: its name says that it is the same.
        assert!(matches!(paris.propagate(&order, "update", &resource).await, Verdict::Done | Verdict::Repeated));
        assert_eq!(paris.propagate(&order, "update", &resource).await, Verdict::Repeated);
    }
    paris.delivered(5).await;
    assert_eq!(paris.sent().await.len(), 5);
    assert_eq!(lyon.resource(&paris, "r").await.unwrap().version, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_what_goes_to_a_thousand_partners_is_in_memory_once() {
    let member = Member::without_bus(90, INDEXER, &[]).await;
    let context = member.running.context();
    let now = context.now().wall;
    let relation = |n: u16| {
        let mut seed = [7; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        let peer = Keys::from_seed(seed).peer_id();
        RelationRow { peer, relation: Relation::Partner, name: String::new(), verified: false, changed_at: now }
    };
    let relations: Vec<RelationRow> = (0..1_000).map(relation).collect();
    let author = Author { user: "ann".to_owned(), groups: vec!["ops".to_owned(); 64].into() };
    let description = "d".repeat(protocol::catalogue::DESCRIPTION_CHARS_MAX);
    let text = json!({ "id": "r", "name": "r", "access": "public", "description": description }).to_string();
    let draft = Box::new(Draft::read(&text, Some(Kind::Data)).unwrap());
    let mut rng = StdRng::seed_from_u64(1);
    let mut planner = Planner::new(context, &relations, now);
    let put = Wanted::unnamed(Want::Put { draft, is_spread: true, author: author.clone() });
    let remove = Want::Remove { id: "r".to_owned(), version: None, is_spread: true, author: author.clone() };
    let to = relations.iter().map(|row| row.peer).collect();
    let send = Want::Send {
        to,
        verb: protocol::event::Verb::Considers,
        datatype: String::new(),
        payload: text.into_bytes().into(),
        author,
    };
    for wanted in [put, Wanted::unnamed(remove), Wanted::unnamed(send)] {
        let outbox = planner.plan(&wanted, &mut rng).change.unwrap().outbox;
        assert_eq!(outbox.len(), 1_000);
        let payloads: BTreeSet<*const u8> = outbox.iter().map(|one| one.payload.as_ptr()).collect();
        let groups: BTreeSet<*const String> = outbox.iter().map(|one| one.groups.as_ptr()).collect();
        assert_eq!((payloads.len(), groups.len()), (1, 1));
        let names: BTreeSet<&str> = outbox.iter().map(|one| one.message_id.as_str()).collect();
        assert_eq!(names.len(), 1_000, "each is an event of its own");
    }
    member.running.stop().await;
}
