//! What becomes of one change: the row that is written, and who hears of it.

use std::{collections::HashMap, sync::Arc};

use ::store::{
    CatalogueChange, Change, Destination, OutboxRow, Outgoing, PlanChange, Receipt, RelationRow, StandingRow,
};
use protocol::{
    PeerId, Timestamp,
    bus::{Announcement, Order, VerbOut, What},
    catalogue::{self, Draft, Removal, Resource, Standing},
    event::{Event, Told, Verb},
    relation::Relation,
    wire::{RefusalCode, Refused},
};
use rand::{RngExt as _, rngs::StdRng};
use serde_json::json;

use super::{Verdict, ask::Question};
use crate::context::Context;

/// Somebody of ours, in whose name a change is told to partners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// The user.
    pub user: String,
    /// The user's groups.
    pub groups: Arc<[String]>,
}

/// A change, and the name under which it takes effect once.
#[derive(Clone, Debug)]
pub struct Wanted {
    receipt: Option<Receipt>,
    want: Want,
}

/// A change of the catalogue, of a relation, or something to pass on.
#[derive(Clone, Debug)]
pub enum Want {
    /// A resource of ours, as it is from now on.
    Put {
        /// As the application wrote it.
        draft: Box<Draft>,
        /// Partners that may see it hear of it.
        is_spread: bool,
        /// Who did it.
        author: Author,
    },
    /// A resource of ours is gone.
    Remove {
        /// Which.
        id: String,
        /// The application's choice, if it made one.
        version: Option<u64>,
        /// Partners that could see it hear of it.
        is_spread: bool,
        /// Who did it.
        author: Author,
    },
    /// A peer is this to us.
    Relate {
        /// Who.
        peer: PeerId,
        /// What; nothing leaves it as it is, and makes a stranger known.
        relation: Option<Relation>,
        /// What we call it; empty leaves it as it is.
        name: String,
    },
    /// To be sent to peers, as it is.
    Send {
        /// To whom.
        to: Vec<PeerId>,
        /// On which protocol.
        verb: Verb,
        /// What it is.
        datatype: String,
        /// The thing.
        payload: Arc<[u8]>,
        /// Who sends it.
        author: Author,
    },
    /// There is a planner session with this peer.
    OpenPlan {
        /// Who.
        peer: PeerId,
    },
    /// A step of a plan.
    FeedPlan {
        /// To the session with this peer, which is opened where there is none; nothing for all that are open.
        to: Option<PeerId>,
        /// The step.
        payload: Vec<u8>,
        /// Whose.
        author: Author,
    },
    /// A plan is made; what was fed is still sent.
    ClosePlan {
        /// With this peer; nothing for all.
        to: Option<PeerId>,
    },
    /// To be said on our bus.
    Say(Vec<Outgoing>),
    /// A partner's event.
    Event {
        /// As it was signed.
        event: Box<Event>,
        /// What it asks of the catalogue.
        told: Told,
    },
    /// Others are asked, once what was ordered before it is written.
    Ask {
        /// The order's name.
        id: String,
        /// What is asked.
        question: Box<Question>,
    },
    /// It cannot be done.
    Refused(String),
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on the disk, as this version where it is a resource.
    Done {
        /// Of a resource of ours.
        version: Option<u64>,
    },
    /// It came before.
    Repeated,
    /// A newer version is held.
    Older {
        /// Which.
        held: u64,
    },
    /// It breaks a rule.
    Refused(String),
    /// There is no room for it now.
    Full(String),
    /// The database is away, or too much waits.
    NotYet(String),
}

impl Outcome {
    pub(super) fn verdict(self) -> Verdict {
        match self {
            Self::Done { .. } => Verdict::Done,
            Self::Repeated | Self::Older { .. } => Verdict::Repeated,
            Self::Refused(why) => Verdict::Refused(why),
            Self::Full(why) | Self::NotYet(why) => Verdict::NotYet(why),
        }
    }

    /// What a partner hears: whatever came before or is older has had its effect.
    pub(super) fn judgement(self) -> Result<(), Refused> {
        match self {
            Self::Done { .. } | Self::Repeated | Self::Older { .. } => Ok(()),
            Self::Refused(why) => Err(Refused::new(RefusalCode::Invalid, why)),
            Self::Full(why) => Err(Refused::new(RefusalCode::Busy, why).retry_after(60)),
            Self::NotYet(why) => Err(Refused::new(RefusalCode::Busy, why).retry_after(1)),
        }
    }
}

impl Wanted {
    pub(super) fn unnamed(want: Want) -> Self {
        Self { receipt: None, want }
    }

    /// A partner's event, whose id is the partner's own.
    #[must_use]
    pub fn of_peer(event: Event, told: Told) -> Self {
        let receipt = Receipt { source: format!("peer:{}", event.from), id: event.id.clone() };
        Self { receipt: Some(receipt), want: Want::Event { event: Box::new(event), told } }
    }

    pub(super) fn of_bus(id: String, want: Want) -> Self {
        Self { receipt: Some(Receipt { source: "bus".to_owned(), id }), want }
    }

    /// What it takes of memory, about.
    pub(super) fn bytes(&self) -> usize {
        let held = match &self.want {
            Want::Put { draft, .. } => draft.bytes(),
            Want::Send { payload, .. } => payload.len(),
            Want::Say(sayings) => sayings.iter().map(|saying| saying.payload.len()).sum(),
            // The text of a resource stands beside the payload that brought it.
            Want::Event { event, told: Told::Put(_) } => 2 * event.payload.len(),
            Want::Event { event, .. } => event.payload.len(),
            Want::FeedPlan { payload, .. } => payload.len(),
            Want::Remove { .. }
            | Want::Relate { .. }
            | Want::OpenPlan { .. }
            | Want::ClosePlan { .. }
            | Want::Ask { .. }
            | Want::Refused(_) => 0,
        };
        size_of::<Self>() + held
    }

    /// The resource of ours that it changes.
    pub(super) fn resource_id(&self) -> Option<&str> {
        match &self.want {
            Want::Put { draft, .. } => Some(draft.id()),
            Want::Remove { id, .. } => Some(id),
            Want::Relate { .. }
            | Want::Send { .. }
            | Want::OpenPlan { .. }
            | Want::FeedPlan { .. }
            | Want::ClosePlan { .. }
            | Want::Say(_)
            | Want::Event { .. }
            | Want::Ask { .. }
            | Want::Refused(_) => None,
        }
    }
}

/// What an order from the bus is.
pub(super) enum Sorted {
    /// It changes something of ours, or hands something on.
    Change(Want),
    /// It asks others.
    Question(Question),
}

/// What is a change, and what is a question.
pub(super) fn sort(order: Order) -> Sorted {
    let Order { user, groups, what, .. } = order;
    let author = Author { user, groups: groups.into() };
    Sorted::Change(match what {
        What::Put { kind, text, spread } => match Draft::read(&text, kind) {
            Ok(draft) => Want::Put { draft: Box::new(draft), is_spread: spread, author },
            Err(error) => Want::Refused(error.to_string()),
        },
        What::Remove { id, version, spread, .. } => Want::Remove { id, version, is_spread: spread, author },
        What::PutPeer { peer, relation, name, .. } => Want::Relate { peer, relation, name },
        What::RemovePeer { peer } => Want::Relate { peer, relation: Some(Relation::None), name: String::new() },
        What::Hand { verb, datatype, to, payload } => {
            Want::Send { to: vec![to], verb, datatype, payload: payload.into(), author }
        }
        What::Considers { datatype, to, payload } => {
            Want::Send { to, verb: Verb::Considers, datatype, payload: payload.into(), author }
        }
        What::Planner { to, payload } => Want::FeedPlan { to, payload, author },
        What::ClosePlanner { to } => Want::ClosePlan { to },
        What::SearchPeers { text } => return Sorted::Question(Question::Peers { text, author }),
        What::SearchResources { scope, query } => {
            return Sorted::Question(Question::Resources { scope, query, author });
        }
        What::CloseSearch { resources } => {
            return Sorted::Question(Question::CloseSearch { is_for_resources: resources, user: author.user });
        }
        What::Verify { creator, id, version, signature } => {
            return Sorted::Question(Question::Verify { creator, id, version, signature, author });
        }
    })
}

/// What others have to hear of once it is written.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Something waits for them.
    pub(super) partners: Vec<PeerId>,
    /// Something waits for the bus.
    pub(super) is_for_bus: bool,
    /// Planner sessions changed, or something waits for them.
    pub(super) is_planned: bool,
    /// What peers are to us from now on.
    pub(super) relations: Vec<RelationRow>,
    /// Something was written that policy may not have heard of.
    pub(super) is_recalled: bool,
}

impl News {
    fn of(change: &Change) -> Self {
        let relations = change.relation.iter().cloned().collect();
        // Who is nothing to us any more has no session, either.
        let is_planned = change.plan.is_some() || change.relation.is_some();
        let mut news = Self { relations, is_planned, ..Self::default() };
        for outgoing in &change.outbox {
            match outgoing.destination {
                Destination::Bus => news.is_for_bus = true,
                Destination::Peer(peer) => news.partners.push(peer),
                Destination::Plan(_) => news.is_planned = true,
            }
        }
        news
    }

    /// At most so many partners as the outbox of a run has rows.
    pub(super) fn add(&mut self, other: Self) {
        self.partners.extend(other.partners);
        self.partners.sort_unstable();
        self.partners.dedup();
        self.is_for_bus |= other.is_for_bus;
        self.is_planned |= other.is_planned;
        self.relations.extend(other.relations);
    }
}

/// What one change comes to.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// To be written; taken when it is.
    pub(super) change: Option<Change>,
    /// Who hears of it then.
    pub(super) news: News,
    /// Of a resource of ours.
    pub(super) version: Option<u64>,
    /// Whether anything is written.
    pub(super) fate: Fate,
}

/// Whether a change is written.
#[derive(Debug, Default)]
pub(super) enum Fate {
    /// The store says what becomes of it.
    #[default]
    Written,
    /// There is nothing to write, and somebody to ask.
    Ask { id: String, question: Box<Question> },
    /// It breaks a rule.
    Refused(String),
}

impl Plan {
    fn refused(why: impl ToString) -> Self {
        Self { fate: Fate::Refused(why.to_string()), ..Self::default() }
    }
}

/// Plans the changes of one run, each as if those before it were written.
pub(super) struct Planner<'a> {
    context: &'a Context,
    relations: HashMap<PeerId, RelationRow>,
    partners: Vec<PeerId>,
    now: Timestamp,
    held: HashMap<String, Held>,
}

/// A resource of ours, as the store holds it or an earlier change of the run leaves it.
#[derive(Clone, Debug, Default)]
struct Held {
    standing: Standing,
    /// As it was signed.
    text: Option<Arc<str>>,
}

/// Of which resource a change is, and in whose name it is told, if it is told.
struct Aim<'a> {
    id: &'a str,
    is_spread: bool,
    author: &'a Author,
}

impl<'a> Planner<'a> {
    pub(super) fn new(context: &'a Context, relations: &[RelationRow], now: Timestamp) -> Self {
        let partners = relations.iter().filter(|row| row.relation == Relation::Partner).map(|row| row.peer).collect();
        let relations = relations.iter().map(|row| (row.peer, row.clone())).collect();
        Self { context, relations, partners, now, held: HashMap::new() }
    }

    /// What the store holds; what an earlier change of the run planned stands before it.
    pub(super) fn holds(&mut self, id: &str, row: Option<StandingRow>) {
        if self.held.contains_key(id) {
            return;
        }
        let held = row.map_or_else(Held::default, |StandingRow { version, text, told }| {
            let resource = text.as_deref().and_then(|text| serde_json::from_str(text).ok());
            Held { standing: Standing { version: Some(version), resource, told }, text }
        });
        self.held.insert(id.to_owned(), held);
    }

    pub(super) fn plan(&mut self, wanted: &Wanted, rng: &mut StdRng) -> Plan {
        let mut plan = match &wanted.want {
            Want::Put { draft, is_spread, author } => {
                self.put(&Aim { id: draft.id(), is_spread: *is_spread, author }, draft, rng)
            }
            Want::Remove { id, version, is_spread, author } => {
                self.remove(&Aim { id, is_spread: *is_spread, author }, *version, rng)
            }
            Want::Relate { peer, relation, name } => self.relate(*peer, *relation, name),
            Want::Send { to, verb, datatype, payload, author } => {
                let rows = to.iter().map(|to| outgoing(*to, *verb, datatype, Arc::clone(payload), author, rng));
                let rows = rows.collect();
                self.change(None, None, rows)
            }
            Want::OpenPlan { peer } => self.plans(Some(*peer), PlanChange::Open { peer: *peer }),
            Want::FeedPlan { to, payload, author } => {
                // To whom it goes is the session's to say.
                let own = self.context.own.peer_id;
                let step = outgoing(own, Verb::Planner, "planner", payload.as_slice().into(), author, rng);
                self.plans(*to, PlanChange::Feed { to: *to, step: Box::new(step) })
            }
            Want::ClosePlan { to } => self.plans(None, PlanChange::Close { to: *to }),
            Want::Say(sayings) => self.change(None, None, sayings.clone()),
            Want::Event { event, told } => self.event(event, told, rng),
            Want::Ask { id, question } => {
                Plan { fate: Fate::Ask { id: id.clone(), question: question.clone() }, ..Plan::default() }
            }
            Want::Refused(why) => Plan::refused(why),
        };
        if let Some(change) = &mut plan.change {
            change.receipt = wanted.receipt.clone();
        }
        plan
    }

    fn change(&self, catalogue: Option<CatalogueChange>, relation: Option<RelationRow>, outbox: Vec<Outgoing>) -> Plan {
        Self::written(Change { receipt: None, catalogue, told: None, relation, plan: None, outbox, at: self.now })
    }

    fn written(change: Change) -> Plan {
        Plan { news: News::of(&change), change: Some(change), version: None, fate: Fate::Written }
    }

    fn plans(&self, with: Option<PeerId>, plan: PlanChange) -> Plan {
        if with == Some(self.context.own.peer_id) {
            return Plan::refused("this member makes no plans with itself");
        }
        let relation = with.and_then(|peer| self.relations.get(&peer)).map(|row| row.relation);
        if relation == Some(Relation::Blacklist) {
            return Plan::refused("it is on our blacklist");
        }
        let (plan, outbox) = (Some(plan), Vec::new());
        Self::written(Change { receipt: None, catalogue: None, told: None, relation: None, plan, outbox, at: self.now })
    }

    fn put(&mut self, aim: &Aim<'_>, draft: &Draft, rng: &mut StdRng) -> Plan {
        let held = self.held.get(aim.id).cloned().unwrap_or_default();
        let version = draft.version().unwrap_or_else(|| catalogue::next_version(held.standing.version, self.now));
        let signed = match draft.clone().sign(&self.context.keys, version, self.now) {
            Ok(signed) => signed,
            Err(error) => return Plan::refused(error),
        };
        if held.standing.version == Some(version) && held.standing.resource.is_some() {
            return self.tell_held(aim, held, CatalogueChange::Put(Box::new(signed)), rng);
        }
        let (after, text) = (signed.value().clone(), Arc::clone(signed.text()));
        self.change_held(aim, &held, version, Some((after, text)), CatalogueChange::Put(Box::new(signed)), rng)
    }

    fn remove(&mut self, aim: &Aim<'_>, version: Option<u64>, rng: &mut StdRng) -> Plan {
        let held = self.held.get(aim.id).cloned().unwrap_or_default();
        let version = version.unwrap_or_else(|| catalogue::next_version(held.standing.version, self.now));
        let removal = Removal { id: aim.id.to_owned(), version };
        if let Err(error) = removal.check() {
            return Plan::refused(error);
        }
        let change = CatalogueChange::Remove { creator: self.context.own.peer_id, removal };
        if held.standing.version == Some(version) && held.standing.resource.is_none() {
            return self.tell_held(aim, held, change, rng);
        }
        self.change_held(aim, &held, version, None, change, rng)
    }

    /// A version that is held: what was kept quiet until now is told. A version has one text, which is the one held.
    fn tell_held(&mut self, aim: &Aim<'_>, held: Held, change: CatalogueChange, rng: &mut StdRng) -> Plan {
        let Held { standing, text } = held;
        let Some(version) = standing.version.filter(|_| aim.is_spread && !standing.is_told()) else {
            // The store says that it is held.
            return Plan { version: standing.version, ..self.change(Some(change), None, Vec::new()) };
        };
        let rows = self.spread(aim, &standing, version, standing.resource.as_ref(), text.as_ref(), rng);
        let (creator, id) = (self.context.own.peer_id, aim.id.to_owned());
        let plan = self.change(Some(CatalogueChange::Tell { creator, id, version }), None, rows);
        let standing = standing.changed(version, standing.resource.clone(), true);
        self.stands(aim.id, version, Held { standing, text }, plan)
    }

    /// A version that is news becomes the one held; for one that is older the store says so.
    fn change_held(
        &mut self,
        aim: &Aim<'_>,
        held: &Held,
        version: u64,
        after: Option<(Resource, Arc<str>)>,
        change: CatalogueChange,
        rng: &mut StdRng,
    ) -> Plan {
        let (resource, text) = after.unzip();
        let rows = if aim.is_spread {
            self.spread(aim, &held.standing, version, resource.as_ref(), text.as_ref(), rng)
        } else {
            Vec::new()
        };
        let plan = self.change(Some(change), None, rows);
        if !catalogue::is_news(version, held.standing.version) {
            return Plan { version: Some(version), ..plan };
        }
        let standing = held.standing.changed(version, resource, aim.is_spread);
        self.stands(aim.id, version, Held { standing, text }, plan)
    }

    /// What the plan makes of a resource, for those behind it in the run and for the store.
    fn stands(&mut self, id: &str, version: u64, held: Held, mut plan: Plan) -> Plan {
        if let Some(change) = &mut plan.change {
            change.told = Some(held.standing.told.clone());
        }
        self.held.insert(id.to_owned(), held);
        Plan { version: Some(version), ..plan }
    }

    /// What partners hear when a resource becomes this: all of them the same payload, which is in memory once.
    fn spread(
        &self,
        aim: &Aim<'_>,
        before: &Standing,
        version: u64,
        after: Option<&Resource>,
        text: Option<&Arc<str>>,
        rng: &mut StdRng,
    ) -> Vec<Outgoing> {
        let kind = after.map(|after| after.kind).or_else(|| before.kind());
        // One that was removed before it was ever told has no kind any more, and nobody who hears of it.
        let Some(kind) = kind else { return Vec::new() };
        let is_gone: Arc<[u8]> = removal(aim.id, version).into();
        let is_there: Arc<[u8]> = text.map_or_else(Arc::default, |text| text.as_bytes().into());
        let news = before.spread(after, &self.partners).into_iter();
        news.map(|news| {
            let payload = if news.verb == Verb::Delete { &is_gone } else { &is_there };
            outgoing(news.partner, news.verb, kind.name(), Arc::clone(payload), aim.author, rng)
        })
        .collect()
    }

    fn relate(&mut self, peer: PeerId, relation: Option<Relation>, name: &str) -> Plan {
        if peer == self.context.own.peer_id || relation == Some(Relation::Own) {
            return Plan::refused("this member is itself, and nothing else to itself");
        }
        if !name.is_empty()
            && let Err(error) = protocol::names::check(name)
        {
            return Plan::refused(error);
        }
        let held = self.relations.get(&peer);
        let relation = relation.or(held.map(|row| row.relation)).unwrap_or(Relation::Known);
        let name = if name.is_empty() { held.map(|row| row.name.clone()).unwrap_or_default() } else { name.to_owned() };
        let row = RelationRow { peer, relation, name, verified: false, changed_at: self.now };
        self.relations.insert(peer, row.clone());
        // Whoever becomes a partner hears of what is changed from here on; what was there before it may search.
        self.partners.retain(|partner| *partner != peer);
        if relation == Relation::Partner {
            self.partners.push(peer);
        }
        self.change(None, Some(row), Vec::new())
    }

    fn event(&self, event: &Event, told: &Told, rng: &mut StdRng) -> Plan {
        let (catalogue, payload) = match told {
            Told::Put(resource) => {
                let text = resource.text().as_bytes().to_vec();
                (Some(CatalogueChange::Put(resource.clone())), text)
            }
            Told::Remove(removal) => {
                let Removal { id, version } = removal;
                let payload = json!({ "id": id, "version": version, "creator": event.from.to_string() });
                let change = CatalogueChange::Remove { creator: event.from, removal: removal.clone() };
                (Some(change), payload.to_string().into_bytes())
            }
            Told::Other => (None, event.payload.clone()),
        };
        let verb = match event.verb {
            Verb::Create | Verb::Update => VerbOut::CreateResource,
            Verb::Delete => VerbOut::RemoveResource,
            Verb::Considers => VerbOut::ConsidersEvent,
            Verb::Planner => VerbOut::PlannerExecution,
            Verb::Admiralty => VerbOut::AdmiraltyConfigEvent,
            Verb::Minio => VerbOut::MinioConfigEvent,
            Verb::Search | Verb::Verify => return Plan::refused("got a question, expected a change"),
        };
        let said = if self.context.has_bus() {
            vec![Outgoing {
                destination: Destination::Bus,
                subject: verb.name().to_owned(),
                user: event.user.clone(),
                groups: event.groups.clone().into(),
                datatype: event.datatype.clone(),
                payload: payload.into(),
                message_id: name(rng),
                may_drop: false,
            }]
        } else {
            Vec::new()
        };
        self.change(catalogue, None, said)
    }
}

fn removal(id: &str, version: u64) -> Vec<u8> {
    json!({ "id": id, "version": version }).to_string().into_bytes()
}

fn outgoing(to: PeerId, verb: Verb, datatype: &str, payload: Arc<[u8]>, author: &Author, rng: &mut StdRng) -> Outgoing {
    Outgoing {
        destination: Destination::Peer(to),
        subject: verb.name().to_owned(),
        user: author.user.clone(),
        groups: author.groups.clone(),
        datatype: datatype.to_owned(),
        payload,
        message_id: name(rng),
        may_drop: false,
    }
}

/// A name that nobody else gives: 128 random bits in hex.
pub(super) fn name(rng: &mut StdRng) -> String {
    format!("{:032x}", rng.random::<u128>())
}

/// A row of the outbox as the bridge says it; nothing for a verb that this version does not say.
pub(super) fn announcement(row: OutboxRow) -> Option<Announcement> {
    let OutboxRow { id, outgoing, .. } = row;
    Some(Announcement {
        id,
        verb: VerbOut::named(&outgoing.subject)?,
        user: outgoing.user,
        groups: outgoing.groups.to_vec(),
        datatype: outgoing.datatype,
        message_id: outgoing.message_id,
        payload: outgoing.payload.to_vec(),
    })
}
