//! The way in for the edge: what the admin endpoint may ask of a running tree.

mod catalogue;

use std::time::Duration;

use prometheus_client::{encoding::text::encode, registry::Registry};
use protocol::{
    PeerId, Timestamp,
    beacon::LISTEN_FOR,
    catalogue::{Kind, ResourceQuery},
    change::Refusal,
    record::PeerRecord,
    revocations::Revoke,
    search::{
        Wanted as Sought,
        resources::{CannotBegin, Scope},
    },
    signed::Verified,
};
use tokio::sync::{mpsc, watch};

use crate::{
    alerts, beacon, bridge, claim, config,
    context::Context,
    gate, health, lookup, peers,
    pool::{self, MemberView},
    registry, report, resources, revocations, score, search,
    supervision::{Address, Class, Reply},
    swarm,
    view::{
        ActorState, ActorView, AlertView, BanView, BinView, BridgeView, CurveView, EventView, ExplainView, FeedView,
        IndexerView, PartView, PeerView, ReachedView, RecordView, ReportView, ResourceStep, RevocationView, SampleView,
        SearchView, SessionView, StatusView, TraceView, Wanted,
    },
};

pub use self::catalogue::{PAGE_MAX, Wanting};

/// An actor that takes longer is stuck, and the edge says so.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// Longer than the steps of a change together: asking, writing, going by it, and going back.
const CONFIGURE_WITHIN: Duration = Duration::from_secs(9);

/// Why settings did not change.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigureError {
    /// Somebody cannot go by them.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody could be asked.
    #[error(transparent)]
    Unasked(#[from] AskError),
}

/// Why the tree did not answer the edge.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AskError {
    /// The mailbox is full.
    #[error("{actor} is busy: its mailbox is full")]
    Busy {
        /// Who.
        actor: String,
    },
    /// It is being restarted, or its role is off.
    #[error("{actor} is away")]
    Away {
        /// Who.
        actor: String,
    },
    /// It did not answer in time.
    #[error("{actor} did not answer within {after:?}")]
    Late {
        /// Who.
        actor: String,
        /// The deadline.
        after: Duration,
    },
    /// The question makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There is nothing by that name.
    #[error("no such {what}: {name}")]
    Unknown {
        /// Kind of thing.
        what: &'static str,
        /// What was asked for.
        name: String,
    },
    /// Not yet: it is not on the disk, or enough was asked for now.
    #[error("{0}")]
    NotYet(String),
}

impl From<gate::OrderFault> for AskError {
    fn from(fault: gate::OrderFault) -> Self {
        match fault {
            gate::OrderFault::Order(_) | gate::OrderFault::Ourselves => Self::Invalid(fault.to_string()),
            gate::OrderFault::Full(_) | gate::OrderFault::NotReady | gate::OrderFault::NotWritten => {
                Self::NotYet(fault.to_string())
            }
        }
    }
}

impl From<revocations::Fault> for AskError {
    fn from(fault: revocations::Fault) -> Self {
        Self::NotYet(fault.to_string())
    }
}

/// Why an actor is not restarted by hand.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CannotRestart {
    /// There is nobody by that name.
    #[error("no such actor: {actor}")]
    Unknown {
        /// What was asked for.
        actor: String,
    },
    /// It has no supervisor.
    #[error("root is the process itself: restart the service instead")]
    Root,
    /// It has no life to end.
    #[error("{actor} is {} and has no life to end: whoever is above it is about to start it", state.name())]
    NotAlive {
        /// Whom.
        actor: String,
        /// How it is.
        state: ActorState,
    },
    /// One more restart is one more than it has.
    #[error("{actor} was restarted too often: at one more its supervisor would give it up; wait {wait:?}")]
    Spent {
        /// Whom.
        actor: String,
        /// Until there is room for another one.
        wait: Duration,
    },
    /// Its supervisor never restarts it.
    #[error("{actor} is never restarted: its supervisor would give it up")]
    Never {
        /// Whom.
        actor: String,
    },
}

/// A fault to inject into one actor, for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its next message panics.
    Panic,
    /// Its next message is an error.
    Error,
    /// Its next message is an operator's order to begin anew.
    ByHand,
    /// Its next message takes this long.
    Stall(Duration),
}

/// A handle to a running tree; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    context: Context,
}

impl Handle {
    /// A handle to the tree of this context.
    #[must_use]
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }

    /// Who this member is.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.context.own.peer_id
    }

    /// Every actor, read from the vitals and never asked; supervisors before their children.
    #[must_use]
    pub fn actors(&self) -> Vec<ActorView> {
        self.context.tree.read()
    }

    /// The member's overview.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn status(&self) -> Result<StatusView, AskError> {
        ask(&self.context.addresses.health, health::Msg::Look).await
    }

    /// Every known peer, connected ones first.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn peers(&self) -> Result<Vec<PeerView>, AskError> {
        ask(&self.context.addresses.peers, peers::Msg::Look).await
    }

    /// The DHT's routing table, bin by bin; those without a peer are left out.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn table(&self) -> Result<Vec<BinView>, AskError> {
        let addresses = &self.context.addresses;
        let mut bins = ask(&addresses.swarm, |reply| swarm::Msg::Do(swarm::Command::Table { reply })).await?;
        let ids = bins.iter().flat_map(|bin| &bin.peers).map(|peer| peer.peer_id).collect();
        let names = ask(&addresses.peers, |reply| peers::Msg::Names { peers: ids, reply }).await?;
        for (peer, name) in bins.iter_mut().flat_map(|bin| &mut bin.peers).zip(names) {
            peer.name = name;
        }
        Ok(bins)
    }

    /// Sends a beacon and waits for its echoes.
    ///
    /// # Errors
    /// When one was sent a moment ago, or the tree does not answer in time.
    pub async fn trace(&self) -> Result<TraceView, AskError> {
        let addresses = &self.context.addresses;
        let begin = |reply| beacon::Msg::Begin { reply };
        let reach = addresses.beacon.ask(Class::Control, begin, LISTEN_FOR + ASK_WITHIN).await?;
        let reach = reach.map_err(|too_soon| AskError::NotYet(too_soon.to_string()))?;
        let ids = reach.reached.iter().map(|(peer, _)| *peer).collect();
        let names = ask(&addresses.peers, |reply| peers::Msg::Names { peers: ids, reply }).await?;
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let percentile = |percent| reach.percentile(percent).map(millis);
        let (p50_ms, p99_ms) = (percentile(50), percentile(99));
        let reached = reach.reached.iter().zip(names);
        let reached =
            reached.map(|((peer_id, took), name)| ReachedView { peer_id: *peer_id, name, after_ms: millis(*took) });
        Ok(TraceView {
            reached: reached.collect(),
            p50_ms,
            p99_ms,
            truncated: reach.is_truncated,
            listened_ms: u64::try_from(LISTEN_FOR.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// The pool, best first.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn indexers(&self) -> Result<Vec<IndexerView>, AskError> {
        let addresses = &self.context.addresses;
        let members = ask(&addresses.pool, pool::Msg::Look).await?;
        let ids: Vec<PeerId> = members.iter().map(|member| member.shown.peer).collect();
        let asked = ids.clone();
        let scores = ask(&addresses.score, |reply| score::Msg::Look { peers: asked, reply }).await?;
        let names = ask(&addresses.peers, |reply| peers::Msg::Names { peers: ids, reply }).await?;
        let mut views: Vec<IndexerView> = members
            .into_iter()
            .zip(scores)
            .zip(names)
            .map(|((member, score), name)| indexer_view(member, score, name))
            .collect();
        views.sort_by(|a, b| b.score.unwrap_or(-1.0).total_cmp(&a.score.unwrap_or(-1.0)));
        Ok(views)
    }

    /// Why an indexer has the score that it has, with every event behind it.
    ///
    /// # Errors
    /// When the text is no peer id, that peer is neither in the pool nor was anything seen of it as an indexer, or the
    /// tree does not answer in time.
    pub async fn explain(&self, peer: &str) -> Result<ExplainView, AskError> {
        let id: PeerId = peer.parse().map_err(|_| AskError::Invalid("expected a peer id".to_owned()))?;
        let addresses = &self.context.addresses;
        let explained = ask(&addresses.score, |reply| score::Msg::Explain { peer: id, reply }).await?;
        let names = ask(&addresses.peers, |reply| peers::Msg::Names { peers: vec![id], reply }).await?;
        let name = names.into_iter().next().unwrap_or_default();
        let members = ask(&addresses.pool, pool::Msg::Look).await?;
        let member = members.into_iter().find(|member| member.shown.peer == id);
        if member.is_none() && explained.is_none() {
            return Err(AskError::Unknown { what: "indexer", name: peer.to_owned() });
        }
        let score = explained.as_ref().and_then(|explained| explained.score.clone());
        let indexer = member.map(|member| indexer_view(member, score, name.clone()));
        Ok(ExplainView { name, indexer, explained: explained.map(|explained| *explained) })
    }

    /// What the scores of an indexer were at each judgement after this moment, or those of all.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn score_history(&self, peer: Option<PeerId>, since: Timestamp) -> Result<Vec<CurveView>, AskError> {
        ask(&self.context.addresses.score, |reply| score::Msg::History { peer, since, reply }).await
    }

    /// The sessions of an indexer; empty for a node.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn sessions(&self) -> Result<Vec<SessionView>, AskError> {
        if !self.context.own.role.indexer {
            return Ok(Vec::new());
        }
        ask(&self.context.addresses.registry, registry::Msg::Look).await
    }

    /// Records by DID, peer id or exact name: own, then sessions, then indexers, then the DHT. Empty when there is none.
    ///
    /// # Errors
    /// When the text is none of the three, or the tree does not answer in time.
    pub async fn record(&self, key: &str) -> Result<Vec<RecordView>, AskError> {
        let wanted = Sought::exactly(key).map_err(|error| AskError::Invalid(error.to_string()))?;
        let addresses = &self.context.addresses;
        if let Some(own) = ask(&addresses.claim, claim::Msg::Look).await?.filter(|own| wanted.matches(&own.record)) {
            return Ok(record_view(&own.record, "own").into_iter().collect());
        }
        if self.context.own.role.indexer {
            let sought = wanted.clone();
            let found = ask(&addresses.registry, |reply| registry::Msg::Find { wanted: sought, reply }).await?;
            if !found.records.is_empty() {
                return Ok(found.records.iter().filter_map(|record| record_view(record, "session")).collect());
            }
        }
        let members = ask(&addresses.pool, |reply| pool::Msg::Members { reply }).await?;
        let chosen = ask(&addresses.search, |reply| search::Msg::LookUp { members, reply }).await?;
        let members = chosen.as_deref().unwrap_or_default();
        let found = lookup::at_members(&self.context, &wanted, members).await;
        if !found.is_empty() {
            return Ok(found.iter().filter_map(|record| record_view(record, "indexer")).collect());
        }
        let found = lookup::in_dht(&self.context, &wanted).await;
        if let (true, Err(enough)) = (found.is_empty(), chosen) {
            return Err(AskError::NotYet(enough.to_string()));
        }
        Ok(found.iter().filter_map(|record| record_view(record, "dht")).collect())
    }

    /// Starts a search; the same `user`'s running one ends. Dropping the receiver closes it.
    ///
    /// # Errors
    /// When `wanted` names not exactly one criterion, or the tree does not answer in time.
    pub async fn search(&self, user: &str, wanted: Wanted) -> Result<mpsc::Receiver<SearchView>, AskError> {
        let wants_trace = wanted.trace;
        let wanted = search::parse(&wanted).map_err(AskError::Invalid)?;
        let user = user.to_owned();
        let members = ask(&self.context.addresses.pool, |reply| pool::Msg::Members { reply }).await?;
        let begin = |reply| search::Msg::Begin { user, wanted, members, wants_trace, reply };
        ask(&self.context.addresses.search, begin).await?.map_err(|declined| match declined {
            search::Declined::Invalid(words) => AskError::Invalid(words),
            search::Declined::Enough(enough) => AskError::NotYet(enough.to_string()),
        })
    }

    /// Starts a search for resources; the same `user`'s running one ends. Dropping the receiver closes it. With `wants_trace`
    /// its waterfall comes before its last word.
    ///
    /// # Errors
    /// When the text cannot be looked for, too much was asked, this member is no node, or the tree does not answer in time.
    pub async fn search_resources(
        &self,
        user: &str,
        scope: Scope,
        text: &str,
        kind: Option<Kind>,
        groups: Vec<String>,
        wants_trace: bool,
    ) -> Result<mpsc::Receiver<ResourceStep>, AskError> {
        if !self.context.own.role.node {
            return Err(AskError::Invalid(
                "this member is no node: it has no users who search for resources".to_owned(),
            ));
        }
        let query = ResourceQuery::new(text, kind).map_err(|error| AskError::Invalid(error.to_string()))?;
        let beginning = Box::new(resources::Beginning { user: user.to_owned(), scope, query, groups, wants_trace });
        let begin = |reply| resources::Msg::Begin { beginning, reply };
        ask(&self.context.addresses.resources, begin).await?.map_err(|resources::Declined::Rule(rule)| match rule {
            CannotBegin::User { .. } => AskError::Invalid(rule.to_string()),
            CannotBegin::Busy | CannotBegin::Enough { .. } => AskError::NotYet(rule.to_string()),
        })
    }

    /// What happened after event `since`, oldest first; the journal is bounded.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn events(&self, since: u64) -> Result<Vec<EventView>, AskError> {
        self.feed(since).await.map(|feed| feed.events)
    }

    /// The same, with which journal it is and what is kept of it.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn feed(&self, since: u64) -> Result<FeedView, AskError> {
        ask(&self.context.addresses.health, |reply| health::Msg::Events { since, reply }).await
    }

    /// Changes whenever there is something new to read in the journal.
    #[must_use]
    pub fn pulse(&self) -> watch::Receiver<u64> {
        self.context.pulse.subscribe()
    }

    /// How the bus is; nothing where there is none.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn bus(&self) -> Result<Option<BridgeView>, AskError> {
        if !self.context.settings.bus.is_on() {
            return Ok(None);
        }
        ask(&self.context.addresses.bridge, bridge::Msg::Look).await.map(Some)
    }

    /// What is wrong now, the worst first.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn alerts(&self) -> Result<Vec<AlertView>, AskError> {
        ask(&self.context.addresses.alerts, alerts::Msg::Raised).await
    }

    /// What was measured in the last hours, the oldest first.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn samples(&self) -> Result<Vec<SampleView>, AskError> {
        ask(&self.context.addresses.alerts, alerts::Msg::History).await
    }

    /// What happened in the last whole day, and in the running one.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn report(&self) -> Result<ReportView, AskError> {
        ask(&self.context.addresses.report, report::Msg::Look).await
    }

    /// The bans in force, by peer; empty for a node, which bans nobody.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn bans(&self) -> Result<Vec<BanView>, AskError> {
        if !self.context.own.role.indexer {
            return Ok(Vec::new());
        }
        let bans = ask(&self.context.addresses.gate, gate::Msg::Bans).await?;
        Ok(bans.into_iter().map(BanView::from).collect())
    }

    /// Bans a peer from everything, for `lasts` or without end: at once, and on the disk when this returns.
    ///
    /// # Errors
    /// When this member is no indexer, the order makes no sense, or it could not be written down in time; it holds then,
    /// and is written down later.
    pub async fn ban(&self, peer: PeerId, lasts: Option<Duration>, reason: String) -> Result<(), AskError> {
        self.check_indexer()?;
        Ok(ask(&self.context.addresses.gate, |reply| gate::Msg::Ban { peer, lasts, reason, reply }).await??)
    }

    /// Takes every ban of a peer back, and its past with them; on the disk when this returns.
    ///
    /// # Errors
    /// When this member is no indexer, the peer is not banned, or that could not be written down in time.
    pub async fn unban(&self, peer: PeerId) -> Result<(), AskError> {
        self.check_indexer()?;
        let (was_banned, answer) = Reply::channel();
        let lift = |reply| gate::Msg::Lift { peer, was_banned, reply };
        let lifted = ask(&self.context.addresses.gate, lift).await?;
        let was_banned = answer.await.unwrap_or_default();
        lifted?;
        if was_banned { Ok(()) } else { Err(AskError::Unknown { what: "ban", name: peer.to_string() }) }
    }

    /// The revocations that are held here, by peer.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn revocations(&self) -> Result<Vec<RevocationView>, AskError> {
        let held = ask(&self.context.addresses.revocations, revocations::Msg::Look).await?;
        Ok(held.iter().map(RevocationView::from).collect())
    }

    /// Revokes the key that signed this: in force and on the disk when this returns, and on its way to the others.
    ///
    /// # Errors
    /// When it is no valid revocation, there is no room for it, or it could not be written down in time; it holds then, and
    /// is written down later.
    pub async fn revoke(&self, text: &str) -> Result<RevocationView, AskError> {
        let opened = Verified::<Revoke>::open(text, self.context.now().wall);
        let revoke = Box::new(opened.map_err(|error| {
            self.context.stats.revocations_refused.inc();
            AskError::Invalid(format!("this is no valid revocation: {error}"))
        })?);
        let hand = |reply| revocations::Msg::Heard { revoke, from: revocations::Source::Operator, reply };
        let outcome = ask(&self.context.addresses.revocations, hand).await??;
        Ok(RevocationView::from(&outcome.held))
    }

    /// Lets the nodes of an indexer go and takes no new ones, or takes the order back; on the disk when this returns.
    ///
    /// # Errors
    /// When this member is no indexer, or that could not be written down in time.
    pub async fn drain(&self, is_on: bool) -> Result<(), AskError> {
        self.check_indexer()?;
        Ok(ask(&self.context.addresses.gate, |reply| gate::Msg::Drain { is_on, reply }).await??)
    }

    fn check_indexer(&self) -> Result<(), AskError> {
        if self.context.own.role.indexer {
            return Ok(());
        }
        Err(AskError::Invalid("this member is no indexer: it has no nodes to ban or to let go".to_owned()))
    }

    /// Has new settings gone by, by all who go by settings or by none; those that cannot change while we run are left out.
    ///
    /// # Errors
    /// Who refused and why, or that the tree does not answer in time: then its next life puts everybody back.
    pub async fn configure(&self, change: config::Change) -> Result<(), ConfigureError> {
        let settings = self.context.settings.with_live(&change.settings);
        let change = Box::new(config::Change { settings, ..change });
        let change = |reply| config::Msg::Change { change, reply };
        Ok(self.context.addresses.config.ask(Class::Control, change, CONFIGURE_WITHIN).await??)
    }

    /// Writes into the journal that new settings could not even be offered.
    pub fn note_unusable_settings(&self, source: &str, why: &str) {
        self.context.note("settings_refused", source, why);
    }

    /// The metrics in OpenMetrics text.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut registry = Registry::with_prefix("muster");
        self.count_actors();
        self.context.stats.register(&mut registry);
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }

    fn count_actors(&self) {
        let actors = self.actors();
        let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let stuck = actors.iter().filter(|actor| actor.state == ActorState::Stuck).count();
        let restarts: u64 = actors.iter().map(|actor| actor.restarts).sum();
        self.context.stats.actors.set(whole(actors.len()));
        self.context.stats.actors_stuck.set(whole(stuck));
        self.context.stats.actor_restarts.set(i64::try_from(restarts).unwrap_or(i64::MAX));
    }

    /// Injects a fault into the actor with this path.
    ///
    /// # Errors
    /// When there is no such actor.
    pub fn inject(&self, actor: &str, fault: Fault) -> Result<(), AskError> {
        self.context.tree.inject(actor, fault)
    }

    /// Has the actor with this path restarted by its supervisor as if it had failed.
    ///
    /// # Errors
    /// Why it is not.
    pub fn restart(&self, actor: &str) -> Result<(), CannotRestart> {
        self.context.tree.restart(actor)
    }
}

pub(crate) async fn ask<M: Send + 'static, T: Send + 'static>(
    address: &Address<M>,
    question: impl FnOnce(Reply<T>) -> M,
) -> Result<T, AskError> {
    address.ask(Class::Control, question, ASK_WITHIN).await
}

fn record_view(record: &Verified<PeerRecord>, source: &str) -> Option<RecordView> {
    Some(RecordView {
        peer_id: record.peer_id,
        did: record.did.clone(),
        name: record.name.clone(),
        expiry_date: record.expiry_date,
        seq: record.seq,
        source: source.to_owned(),
        record: record.to_raw(),
    })
}

fn indexer_view(member: MemberView, score: Option<protocol::score::Score>, name: String) -> IndexerView {
    let MemberView { shown, said } = member;
    let parts = score.as_ref().map(|score| score.parts.clone()).unwrap_or_default();
    IndexerView {
        peer_id: shown.peer,
        name,
        addrs: shown.addrs,
        state: pool::state_view(shown.state),
        seed: shown.seed,
        sticky: shown.sticky,
        referent: shown.referent,
        score: score.as_ref().map(|score| score.value),
        threshold: score.as_ref().map_or(0.0, |score| score.threshold),
        parts: parts
            .into_iter()
            .map(|part| PartView {
                name: part.part.name().to_owned(),
                weight: part.weight,
                value: part.value,
                evidence: part.basis.to_string(),
            })
            .collect(),
        rtt_ms: said.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        fill_rate: said.fill_rate,
        peer_count: said.peer_count,
        max_nodes: said.max_nodes,
        born_at: said.born_at,
        last_answer: said.last_answer,
        missed: shown.missed,
        beats: said.beats,
        bytes_per_sec: said.bytes_per_sec,
    }
}
