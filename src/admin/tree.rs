//! What the endpoint asks of a running tree; a trait, so that its tests need none.

use std::time::Duration;

use actors::{
    handle::{AskError, CannotRestart, Fault, Handle, Wanting},
    sharing::Author,
    view::{
        ActorView, AlertView, BanView, BinView, BridgeView, CurveView, EventView, ExplainView, FeedView, IndexerView,
        ListedView, OutboxView, PeerView, PlacedView, PlanView, RecordView, RelationView, ReportView, ResourceStep,
        ResourceView, RevocationView, SampleView, SearchView, SessionView, StatusView, TraceView, Wanted,
    },
};
use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use libp2p_identity::PeerId;
use protocol::{catalogue::Kind, relation::Relation, search::resources::Scope};
use store::{Destination, Fate};
use tokio::sync::{mpsc, watch};

/// An answer that an actor may owe.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, AskError>>;

/// A running tree, as [`Handle`] shows it.
pub(crate) trait Tree: Send + Sync + 'static {
    /// Every actor, read from the vitals and never asked.
    fn actors(&self) -> Vec<ActorView>;
    /// The member's overview.
    fn status(&self) -> Answer<'_, StatusView>;
    /// Every known peer.
    fn peers(&self) -> Answer<'_, Vec<PeerView>>;
    /// The pool.
    fn indexers(&self) -> Answer<'_, Vec<IndexerView>>;
    /// The DHT's routing table.
    fn table(&self) -> Answer<'_, Vec<BinView>>;
    /// Sends a beacon, and says whom it reached.
    fn trace(&self) -> Answer<'_, TraceView>;
    /// Why an indexer has its score.
    fn explain<'a>(&'a self, peer: &'a str) -> Answer<'a, ExplainView>;
    /// What scores were after a moment: those of one indexer, or of all.
    fn score_history(&self, peer: Option<PeerId>, since: Timestamp) -> Answer<'_, Vec<CurveView>>;
    /// The sessions.
    fn sessions(&self) -> Answer<'_, Vec<SessionView>>;
    /// Records by DID, peer id or exact name.
    fn record<'a>(&'a self, key: &'a str) -> Answer<'a, Vec<RecordView>>;
    /// Starts a search; dropping the receiver closes it.
    fn search<'a>(&'a self, user: &'a str, wanted: Wanted) -> Answer<'a, mpsc::Receiver<SearchView>>;
    /// Starts a search for resources; dropping the receiver closes it.
    fn search_resources(
        &self,
        user: String,
        scope: Scope,
        text: String,
        kind: Option<Kind>,
        groups: Vec<String>,
        trace: bool,
    ) -> Answer<'_, mpsc::Receiver<ResourceStep>>;
    /// What is wrong now, the worst first.
    fn alerts(&self) -> Answer<'_, Vec<AlertView>>;
    /// What was measured in the last hours, the oldest first.
    fn samples(&self) -> Answer<'_, Vec<SampleView>>;
    /// What happened in the last whole day, and in the running one.
    fn report(&self) -> Answer<'_, ReportView>;
    /// How the bus is; nothing where there is none.
    fn bus(&self) -> Answer<'_, Option<BridgeView>>;
    /// What happened after an event.
    fn events(&self, since: u64) -> Answer<'_, Vec<EventView>>;
    /// The same, with which journal it is and what is kept of it.
    fn feed(&self, since: u64) -> Answer<'_, FeedView>;
    /// Changes whenever there is something new to read in the journal.
    fn pulse(&self) -> watch::Receiver<u64>;
    /// The metrics in OpenMetrics text.
    fn metrics(&self) -> String;
    /// Injects a fault into one actor.
    fn inject(&self, actor: &str, fault: Fault) -> Result<(), AskError>;
    /// Has one actor restarted by its supervisor.
    fn restart(&self, actor: &str) -> Result<(), CannotRestart>;
    /// The bans in force.
    fn bans(&self) -> Answer<'_, Vec<BanView>>;
    /// Bans a peer, for a time or without end.
    fn ban(&self, peer: PeerId, lasts: Option<Duration>, reason: String) -> Answer<'_, ()>;
    /// Takes every ban of a peer back.
    fn unban(&self, peer: PeerId) -> Answer<'_, ()>;
    /// The revocations that are held here.
    fn revocations(&self) -> Answer<'_, Vec<RevocationView>>;
    /// Revokes the key that signed this.
    fn revoke<'a>(&'a self, text: &'a str) -> Answer<'a, RevocationView>;
    /// Lets the nodes of an indexer go, or takes the order back.
    fn drain(&self, is_on: bool) -> Answer<'_, ()>;
    /// Who this member is.
    fn peer_id(&self) -> PeerId;
    /// Keeps a resource of ours as it is written from now on.
    fn put_resource<'a>(&'a self, text: &'a str, kind: Option<Kind>, author: Author) -> Answer<'a, PlacedView>;
    /// Lets a resource of ours go.
    fn remove_resource<'a>(&'a self, id: &'a str, author: Author) -> Answer<'a, PlacedView>;
    /// One resource that is held here.
    fn resource<'a>(&'a self, creator: PeerId, id: &'a str) -> Answer<'a, ResourceView>;
    /// A page of the resources that are held here.
    fn resources(&self, wanting: Wanting) -> Answer<'_, ListedView>;
    /// What each peer is to us, where it is anything.
    fn relations(&self) -> Answer<'_, Vec<RelationView>>;
    /// Makes a peer this to us.
    fn relate(&self, peer: PeerId, relation: Relation, name: String) -> Answer<'_, ()>;
    /// Our planner sessions.
    fn plans(&self) -> Answer<'_, Vec<PlanView>>;
    /// Opens a planner session where there is none, and feeds it a step if there is one.
    fn feed_plan(&self, peer: PeerId, step: Option<Vec<u8>>, author: Author) -> Answer<'_, ()>;
    /// Closes a planner session.
    fn close_plan(&self, peer: PeerId) -> Answer<'_, ()>;
    /// What waits for partners and the bus, and what became of what waited.
    fn outbox(
        &self,
        to: Option<Destination>,
        fate: Option<Fate>,
        before: Option<u64>,
        limit: u32,
    ) -> Answer<'_, Vec<OutboxView>>;
}

impl Tree for Handle {
    fn actors(&self) -> Vec<ActorView> {
        Self::actors(self)
    }

    fn status(&self) -> Answer<'_, StatusView> {
        Self::status(self).boxed()
    }

    fn peers(&self) -> Answer<'_, Vec<PeerView>> {
        Self::peers(self).boxed()
    }

    fn indexers(&self) -> Answer<'_, Vec<IndexerView>> {
        Self::indexers(self).boxed()
    }

    fn table(&self) -> Answer<'_, Vec<BinView>> {
        Self::table(self).boxed()
    }

    fn trace(&self) -> Answer<'_, TraceView> {
        Self::trace(self).boxed()
    }

    fn explain<'a>(&'a self, peer: &'a str) -> Answer<'a, ExplainView> {
        Self::explain(self, peer).boxed()
    }

    fn score_history(&self, peer: Option<PeerId>, since: Timestamp) -> Answer<'_, Vec<CurveView>> {
        Self::score_history(self, peer, since).boxed()
    }

    fn sessions(&self) -> Answer<'_, Vec<SessionView>> {
        Self::sessions(self).boxed()
    }

    fn record<'a>(&'a self, key: &'a str) -> Answer<'a, Vec<RecordView>> {
        Self::record(self, key).boxed()
    }

    fn search<'a>(&'a self, user: &'a str, wanted: Wanted) -> Answer<'a, mpsc::Receiver<SearchView>> {
        Self::search(self, user, wanted).boxed()
    }

    fn search_resources(
        &self,
        user: String,
        scope: Scope,
        text: String,
        kind: Option<Kind>,
        groups: Vec<String>,
        trace: bool,
    ) -> Answer<'_, mpsc::Receiver<ResourceStep>> {
        async move { Self::search_resources(self, &user, scope, &text, kind, groups, trace).await }.boxed()
    }

    fn alerts(&self) -> Answer<'_, Vec<AlertView>> {
        Self::alerts(self).boxed()
    }

    fn samples(&self) -> Answer<'_, Vec<SampleView>> {
        Self::samples(self).boxed()
    }

    fn report(&self) -> Answer<'_, ReportView> {
        Self::report(self).boxed()
    }

    fn bus(&self) -> Answer<'_, Option<BridgeView>> {
        Self::bus(self).boxed()
    }

    fn events(&self, since: u64) -> Answer<'_, Vec<EventView>> {
        Self::events(self, since).boxed()
    }

    fn feed(&self, since: u64) -> Answer<'_, FeedView> {
        Self::feed(self, since).boxed()
    }

    fn pulse(&self) -> watch::Receiver<u64> {
        Self::pulse(self)
    }

    fn metrics(&self) -> String {
        Self::metrics(self)
    }

    fn inject(&self, actor: &str, fault: Fault) -> Result<(), AskError> {
        Self::inject(self, actor, fault)
    }

    fn restart(&self, actor: &str) -> Result<(), CannotRestart> {
        Self::restart(self, actor)
    }

    fn bans(&self) -> Answer<'_, Vec<BanView>> {
        Self::bans(self).boxed()
    }

    fn ban(&self, peer: PeerId, lasts: Option<Duration>, reason: String) -> Answer<'_, ()> {
        Self::ban(self, peer, lasts, reason).boxed()
    }

    fn unban(&self, peer: PeerId) -> Answer<'_, ()> {
        Self::unban(self, peer).boxed()
    }

    fn revocations(&self) -> Answer<'_, Vec<RevocationView>> {
        Self::revocations(self).boxed()
    }

    fn revoke<'a>(&'a self, text: &'a str) -> Answer<'a, RevocationView> {
        Self::revoke(self, text).boxed()
    }

    fn drain(&self, is_on: bool) -> Answer<'_, ()> {
        Self::drain(self, is_on).boxed()
    }

    fn peer_id(&self) -> PeerId {
        Self::peer_id(self)
    }

    fn put_resource<'a>(&'a self, text: &'a str, kind: Option<Kind>, author: Author) -> Answer<'a, PlacedView> {
        Self::put_resource(self, text, kind, author).boxed()
    }

    fn remove_resource<'a>(&'a self, id: &'a str, author: Author) -> Answer<'a, PlacedView> {
        Self::remove_resource(self, id, author).boxed()
    }

    fn resource<'a>(&'a self, creator: PeerId, id: &'a str) -> Answer<'a, ResourceView> {
        async move { Self::resource(self, &creator, id).await }.boxed()
    }

    fn resources(&self, wanting: Wanting) -> Answer<'_, ListedView> {
        Self::resources(self, wanting).boxed()
    }

    fn relations(&self) -> Answer<'_, Vec<RelationView>> {
        Self::relations(self).boxed()
    }

    fn relate(&self, peer: PeerId, relation: Relation, name: String) -> Answer<'_, ()> {
        Self::relate(self, peer, relation, name).boxed()
    }

    fn plans(&self) -> Answer<'_, Vec<PlanView>> {
        Self::plans(self).boxed()
    }

    fn feed_plan(&self, peer: PeerId, step: Option<Vec<u8>>, author: Author) -> Answer<'_, ()> {
        Self::feed_plan(self, peer, step, author).boxed()
    }

    fn close_plan(&self, peer: PeerId) -> Answer<'_, ()> {
        Self::close_plan(self, peer).boxed()
    }

    fn outbox(
        &self,
        to: Option<Destination>,
        fate: Option<Fate>,
        before: Option<u64>,
        limit: u32,
    ) -> Answer<'_, Vec<OutboxView>> {
        Self::outbox(self, to, fate, before, limit).boxed()
    }
}
