//! A tree that is not alive, for tests of what stands around one.
#![allow(clippy::unwrap_used)]

use std::{sync::Mutex, time::Duration};

use actors::{
    handle::{AskError, CannotRestart, Fault, Wanting},
    sharing::Author,
    view::{
        ActorView, AlertView, BanView, BinView, BridgeView, CurveView, Ended, EventView, ExplainView, FeedView,
        IndexerView, ListedView, OutboxView, PeerView, PlacedView, PlanView, RecordView, RelationView, ReportView,
        ResourceStep, ResourceView, RevocationView, SampleView, ScoreView, SearchView, SessionView, Standing,
        StatusView, TablePeerView, TraceView, Wanted,
    },
};
use futures::{FutureExt as _, future::ready};
use jiff::Timestamp;
use libp2p_identity::{Keypair, PeerId};
use protocol::{
    alerts::{Severity, Topic},
    catalogue::{Draft, Kind},
    relation::Relation,
    report::{Report, Spread, Trouble},
    revocations::Revoke,
    score::{Book, Decision, Observation},
    search::resources::Scope,
    signed::Verified,
    time::Mono,
};
use serde_json::value::RawValue;
use store::{Destination, Fate};
use tokio::sync::{mpsc, watch};

use super::{
    examples,
    tree::{Answer, Tree},
};

/// A node that is well, as the documentation shows one.
pub(crate) fn status() -> StatusView {
    examples::status()
}

/// One of its actors, which was restarted once.
pub(crate) fn actor() -> ActorView {
    examples::actors().remove(0)
}

/// A day on which it was alone for a while.
pub(crate) fn report() -> Report {
    Report {
        from: Timestamp::UNIX_EPOCH,
        to: Timestamp::from_second(86_400).unwrap(),
        samples: 2_880,
        figures: [(Topic::Peers, Spread { least: 0.0, mean: 12.5, most: 20.0 })].into(),
        alerts: [(Topic::Isolated, Trouble { raised: 1, worst: Severity::Critical, lasted_ms: 90_000 })].into(),
        counts: [("searches_served".to_owned(), 7), ("bad_inputs".to_owned(), 0)].into(),
    }
}

/// Answers from memory, and writes down what it was told.
#[derive(Default)]
pub(crate) struct Still {
    /// No actor answers.
    pub(crate) is_away: bool,
    /// It can do its job.
    pub(crate) is_ready: bool,
    /// Faults it was given.
    pub(crate) injected: Mutex<Vec<(String, Fault)>>,
    /// Actors that it was told to restart.
    pub(crate) restarted: Mutex<Vec<String>>,
    /// Searches it was given.
    pub(crate) searched: Mutex<Vec<(String, Wanted)>>,
    /// Searches for resources that it was given: whose, among whom, for what, of which kind, in which groups.
    pub(crate) sought: Mutex<Vec<Sought>>,
    /// Bans that it was given.
    pub(crate) revoked: Mutex<Vec<String>>,
    pub(crate) banned: Mutex<Vec<(PeerId, Option<Duration>, String)>>,
    /// Orders to drain that it was given, and to take that back.
    pub(crate) drained: Mutex<Vec<bool>>,
    /// Resources that it was given, as texts, and in whose name.
    pub(crate) placed: Mutex<Vec<(String, Author)>>,
    /// Ids of resources that it was told to remove, and in whose name.
    pub(crate) removed: Mutex<Vec<(String, Author)>>,
    /// Pages of resources that it was asked for.
    pub(crate) listed: Mutex<Vec<Wanting>>,
    /// Relations that it has.
    pub(crate) related: Mutex<Vec<RelationView>>,
    /// What of the outbox it was asked for: to whom, with which fate, before what, how many.
    pub(crate) outbox: Mutex<Vec<OutboxAsked>>,
    /// Planner sessions that it has.
    pub(crate) plans: Mutex<Vec<PlanView>>,
    /// Steps that it was told to feed, and in whose name.
    pub(crate) fed: Mutex<Vec<(Vec<u8>, Author)>>,
    /// The journal that it shows: which, how many of its events were dropped, and how many there ever were.
    pub(crate) journal: Mutex<(u64, u64, u64)>,
    /// Tells of changes of that.
    pub(crate) pulse: watch::Sender<u64>,
}

/// Whose search, among whom, for what, of which kind, in which groups.
pub(crate) type Sought = (String, Scope, String, Option<Kind>, Vec<String>);

/// To whom, with which fate, before what, how many.
pub(crate) type OutboxAsked = (Option<Destination>, Option<Fate>, Option<u64>, u32);

/// A resource that it holds, ours and with this id.
pub(crate) fn resource(id: &str) -> ResourceView {
    let text = format!("{{\"id\":\"{id}\",\"kind\":\"compute\",\"name\":\"farm\",\"access\":\"public\"}}");
    ResourceView {
        creator: peer(),
        id: id.to_owned(),
        version: 7,
        updated_at: jiff::Timestamp::UNIX_EPOCH,
        resource: RawValue::from_string(text).unwrap(),
    }
}

impl Still {
    /// Shows another journal from now on.
    pub(crate) fn journals(&self, journal: u64, dropped: u64, last: u64) {
        *self.journal.lock().unwrap() = (journal, dropped, last);
        self.pulse.send_modify(|count| *count += 1);
    }

    fn answer<T: Send + 'static>(&self, value: T) -> Answer<'_, T> {
        let away = AskError::Away { actor: "root/node".to_owned() };
        ready(if self.is_away { Err(away) } else { Ok(value) }).boxed()
    }
}

/// The peer that it is.
pub(crate) fn peer() -> libp2p_identity::PeerId {
    Keypair::ed25519_from_bytes([7; 32]).unwrap().public().to_peer_id()
}

fn event(seq: u64) -> EventView {
    let (kind, subject, detail) = ("member_joined".to_owned(), String::new(), String::new());
    EventView { seq, at: jiff::Timestamp::UNIX_EPOCH, kind, subject, detail }
}

fn record() -> RecordView {
    RecordView {
        peer_id: peer(),
        did: "did:key:z".to_owned(),
        name: "paris".to_owned(),
        expiry_date: jiff::Timestamp::UNIX_EPOCH,
        seq: 1,
        source: "own".to_owned(),
        record: RawValue::from_string("{\"name\":\r\n\"paris\", \"unknown\": 1}".to_owned()).unwrap(),
    }
}

impl Tree for Still {
    fn actors(&self) -> Vec<ActorView> {
        Vec::new()
    }

    fn status(&self) -> Answer<'_, StatusView> {
        self.answer(StatusView {
            peer_id: peer(),
            standing: Standing::Joining,
            ready: self.is_ready,
            reasons: vec!["no indexer answers; is the seed up?".to_owned()],
            pool_members: 0,
            pool_answering: 0,
            referent: None,
            ..status()
        })
    }

    fn peers(&self) -> Answer<'_, Vec<PeerView>> {
        self.answer(Vec::new())
    }

    fn indexers(&self) -> Answer<'_, Vec<IndexerView>> {
        self.answer(Vec::new())
    }

    fn table(&self) -> Answer<'_, Vec<BinView>> {
        let at = TablePeerView { peer_id: peer(), name: "lyon".to_owned(), connected: true, addrs: Vec::new() };
        self.answer(vec![BinView { common: 3, peers: vec![at] }])
    }

    fn trace(&self) -> Answer<'_, TraceView> {
        let (reached, listened_ms) = (Vec::new(), 5_000);
        self.answer(TraceView { reached, p50_ms: None, p99_ms: None, truncated: false, listened_ms })
    }

    fn explain<'a>(&'a self, peer: &'a str) -> Answer<'a, ExplainView> {
        if peer != self::peer().to_string() {
            return ready(Err(AskError::Unknown { what: "indexer", name: peer.to_owned() })).boxed();
        }
        let at = |second| protocol::time::Now { mono: Mono::from_secs(second), wall: jiff::Timestamp::UNIX_EPOCH };
        let mut book = Book::default();
        for second in 0..40 {
            let answered = Observation::Answered {
                rtt: std::time::Duration::from_nanos(20_000_001 * second),
                fill_rate: 0.1 * second as f64 / 3.0,
                peer_count: 1,
                max_nodes: 7,
                born_at: jiff::Timestamp::UNIX_EPOCH,
            };
            book.observe(self::peer(), &answered, at(second * 20).mono);
            book.observe(self::peer(), &Observation::Challenged { good: 1, bad: 0, unfound: 0 }, at(second * 20).mono);
        }
        book.decide(&self::peer(), Decision::Referent, at(800).mono);
        self.answer(ExplainView {
            name: "cloud".to_owned(),
            indexer: None,
            explained: book.explain(&self::peer(), at(801)),
        })
    }

    fn score_history(&self, peer: Option<PeerId>, since: Timestamp) -> Answer<'_, Vec<CurveView>> {
        let parts = [("uptime".to_owned(), 0.5)].into();
        let one = ScoreView { at: Timestamp::UNIX_EPOCH, value: 50.0, low: 40.0, high: 60.0, threshold: 20.0, parts };
        let samples = if one.at > since { vec![one] } else { Vec::new() };
        self.answer(vec![CurveView { peer_id: peer.unwrap_or_else(self::peer), samples }])
    }

    fn search_resources(
        &self,
        user: String,
        scope: Scope,
        text: String,
        kind: Option<Kind>,
        groups: Vec<String>,
        _: bool,
    ) -> Answer<'_, mpsc::Receiver<ResourceStep>> {
        self.sought.lock().unwrap().push((user, scope, text, kind, groups));
        let (steps, receiver) = mpsc::channel(2);
        let query_id = "0".repeat(32);
        let held = resource("gpu-1");
        let (peer_id, resource) = (held.creator, held.resource);
        steps.try_send(ResourceStep::Hit { query_id: query_id.clone(), peer_id, resource, elapsed_ms: 1.5 }).unwrap();
        let end = ResourceStep::Ended {
            query_id,
            reason: Ended::Complete,
            hits: 1,
            asked: 2,
            answered: 2,
            refused: 0,
            timed_out: 0,
            truncated: false,
            elapsed_ms: 2.0,
        };
        steps.try_send(end).unwrap();
        self.answer(receiver)
    }

    fn alerts(&self) -> Answer<'_, Vec<AlertView>> {
        let remedy = Topic::Disk.remedy().to_owned();
        let (topic, severity) = (Topic::Disk, Severity::Warning);
        self.answer(vec![AlertView { topic, severity, since: Timestamp::UNIX_EPOCH, figure: 0.95, bound: 0.9, remedy }])
    }

    fn samples(&self) -> Answer<'_, Vec<SampleView>> {
        let figures = [("disk".to_owned(), 0.95)].into();
        self.answer(vec![SampleView { at: Timestamp::UNIX_EPOCH, figures }])
    }

    fn report(&self) -> Answer<'_, ReportView> {
        self.answer(ReportView { last: None, running: report() })
    }

    fn bus(&self) -> Answer<'_, Option<BridgeView>> {
        self.answer(None)
    }

    fn sessions(&self) -> Answer<'_, Vec<SessionView>> {
        self.answer(Vec::new())
    }

    fn record<'a>(&'a self, key: &'a str) -> Answer<'a, Vec<RecordView>> {
        self.answer(if key == "did:key:z/é" { vec![record()] } else { Vec::new() })
    }

    fn search<'a>(&'a self, user: &'a str, wanted: Wanted) -> Answer<'a, mpsc::Receiver<SearchView>> {
        self.searched.lock().unwrap().push((user.to_owned(), wanted));
        let (steps, receiver) = mpsc::channel(2);
        steps.try_send(SearchView::Hit { hit: record(), after_ms: 1.5 }).unwrap();
        let end = SearchView::End {
            ended: Ended::Complete,
            hits: 1,
            asked: 3,
            answered: 3,
            timed_out: 0,
            truncated: false,
            took_ms: 2.0,
        };
        steps.try_send(end).unwrap();
        self.answer(receiver)
    }

    fn events(&self, since: u64) -> Answer<'_, Vec<EventView>> {
        self.answer(vec![event(since + 1)])
    }

    fn feed(&self, since: u64) -> Answer<'_, FeedView> {
        let (journal, dropped, last) = *self.journal.lock().unwrap();
        let events = (since.max(dropped) + 1..=last).map(event).collect();
        self.answer(FeedView { journal, oldest: dropped + 1, last, events })
    }

    fn pulse(&self) -> watch::Receiver<u64> {
        self.pulse.subscribe()
    }

    fn metrics(&self) -> String {
        "# EOF\n".to_owned()
    }

    fn inject(&self, actor: &str, fault: Fault) -> Result<(), AskError> {
        if actor == "root/none" {
            return Err(AskError::Unknown { what: "actor", name: actor.to_owned() });
        }
        self.injected.lock().unwrap().push((actor.to_owned(), fault));
        Ok(())
    }

    fn restart(&self, actor: &str) -> Result<(), CannotRestart> {
        match actor {
            "root" => return Err(CannotRestart::Root),
            "root/none" => return Err(CannotRestart::Unknown { actor: actor.to_owned() }),
            _ => self.restarted.lock().unwrap().push(actor.to_owned()),
        }
        Ok(())
    }

    fn bans(&self) -> Answer<'_, Vec<BanView>> {
        let view = |(peer_id, _, reason): &(PeerId, Option<Duration>, String)| BanView {
            peer_id: *peer_id,
            from: "all".to_owned(),
            since: jiff::Timestamp::UNIX_EPOCH,
            until: None,
            by: "operator".to_owned(),
            reason: reason.clone(),
            offences: 0,
        };
        let bans = self.banned.lock().unwrap().iter().map(view).collect();
        self.answer(bans)
    }

    fn revocations(&self) -> Answer<'_, Vec<RevocationView>> {
        let held = self.revoked.lock().unwrap().iter().map(|_| super::examples::revocation()).collect();
        self.answer(held)
    }

    fn revoke<'a>(&'a self, text: &'a str) -> Answer<'a, RevocationView> {
        if let Err(error) = Verified::<Revoke>::open(text, jiff::Timestamp::now()) {
            return ready(Err(AskError::Invalid(error.to_string()))).boxed();
        }
        self.revoked.lock().unwrap().push(text.to_owned());
        self.answer(super::examples::revocation())
    }

    fn ban(&self, peer: PeerId, lasts: Option<Duration>, reason: String) -> Answer<'_, ()> {
        self.banned.lock().unwrap().push((peer, lasts, reason));
        self.answer(())
    }

    fn unban(&self, peer: PeerId) -> Answer<'_, ()> {
        let mut banned = self.banned.lock().unwrap();
        let before = banned.len();
        banned.retain(|(held, ..)| *held != peer);
        if banned.len() < before {
            return self.answer(());
        }
        ready(Err(AskError::Unknown { what: "ban", name: peer.to_string() })).boxed()
    }

    fn drain(&self, is_on: bool) -> Answer<'_, ()> {
        self.drained.lock().unwrap().push(is_on);
        self.answer(())
    }

    fn peer_id(&self) -> PeerId {
        peer()
    }

    fn put_resource<'a>(&'a self, text: &'a str, kind: Option<Kind>, author: Author) -> Answer<'a, PlacedView> {
        let draft = match Draft::read(text, kind) {
            Ok(draft) => draft,
            Err(error) => return ready(Err(AskError::Invalid(error.to_string()))).boxed(),
        };
        self.placed.lock().unwrap().push((text.to_owned(), author));
        self.answer(PlacedView { creator: peer(), id: draft.id().to_owned(), version: 7 })
    }

    fn remove_resource<'a>(&'a self, id: &'a str, author: Author) -> Answer<'a, PlacedView> {
        if id == "none" {
            return ready(Err(AskError::Unknown { what: "resource", name: id.to_owned() })).boxed();
        }
        self.removed.lock().unwrap().push((id.to_owned(), author));
        self.answer(PlacedView { creator: peer(), id: id.to_owned(), version: 8 })
    }

    fn resource<'a>(&'a self, creator: PeerId, id: &'a str) -> Answer<'a, ResourceView> {
        if creator != peer() || id == "none" {
            return ready(Err(AskError::Unknown { what: "resource", name: id.to_owned() })).boxed();
        }
        self.answer(resource(id))
    }

    fn resources(&self, wanting: Wanting) -> Answer<'_, ListedView> {
        self.listed.lock().unwrap().push(wanting);
        self.answer(ListedView { resources: vec![resource("farm-1")], next: Some(format!("{}/farm-1", peer())) })
    }

    fn relations(&self) -> Answer<'_, Vec<RelationView>> {
        let related = self.related.lock().unwrap().clone();
        self.answer(related)
    }

    fn relate(&self, peer_id: PeerId, relation: Relation, name: String) -> Answer<'_, ()> {
        let mut related = self.related.lock().unwrap();
        related.retain(|view| view.peer_id != peer_id);
        if relation != Relation::None {
            related.push(RelationView { peer_id, name, relation, changed_at: jiff::Timestamp::UNIX_EPOCH });
        }
        self.answer(())
    }

    fn plans(&self) -> Answer<'_, Vec<PlanView>> {
        let plans = self.plans.lock().unwrap().clone();
        self.answer(plans)
    }

    fn feed_plan(&self, peer_id: PeerId, step: Option<Vec<u8>>, author: Author) -> Answer<'_, ()> {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let mut plans = self.plans.lock().unwrap();
        if !plans.iter().any(|plan| plan.peer_id == peer_id) {
            plans.push(PlanView { peer_id, opened_at: at, ends_at: at, fed: 0, waiting: 0 });
        }
        self.fed.lock().unwrap().extend(step.map(|step| (step, author)));
        self.answer(())
    }

    fn close_plan(&self, peer_id: PeerId) -> Answer<'_, ()> {
        let mut plans = self.plans.lock().unwrap();
        let before = plans.len();
        plans.retain(|plan| plan.peer_id != peer_id);
        if plans.len() == before {
            return ready(Err(AskError::Unknown { what: "planner session", name: peer_id.to_string() })).boxed();
        }
        self.answer(())
    }

    fn outbox(
        &self,
        to: Option<Destination>,
        fate: Option<Fate>,
        before: Option<u64>,
        limit: u32,
    ) -> Answer<'_, Vec<OutboxView>> {
        self.outbox.lock().unwrap().push((to, fate, before, limit));
        self.answer(Vec::new())
    }
}
