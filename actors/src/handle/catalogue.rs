//! What the edge may ask and order of the catalogue, of relations and of the outbox.

use ::store::{Destination, Fate, Listing, OutboxFilter, RESOURCES_READ_MAX, Sight};
use protocol::{
    PeerId,
    catalogue::{Draft, Kind, ResourceQuery},
    event::PAYLOAD_BYTES_MAX,
    relation::Relation,
};

use super::{AskError, Handle, ask};
use crate::{
    policy,
    sharing::{self, Author, Outcome, Want},
    store::told,
    view::{ListedView, OutboxView, PlacedView, PlanView, RelationView, ResourceView},
};

/// Resources or rows of the outbox in one answer.
pub const PAGE_MAX: u32 = 500;

/// Which resources are listed.
#[derive(Clone, Debug, Default)]
pub struct Wanting {
    /// Part of a name, description or owner; empty for all.
    pub text: String,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only of this creator.
    pub creator: Option<PeerId>,
    /// After this one of an earlier page: its creator and id.
    pub after: Option<(PeerId, String)>,
    /// 1 to [`PAGE_MAX`].
    pub limit: u32,
}

impl Handle {
    /// Keeps a resource of ours as it is written from now on; partners that may see it hear of it. On the disk when this
    /// returns.
    ///
    /// # Errors
    /// When the text breaks a rule, its version is not newer, there is no room, or it could not be written down in time.
    pub async fn put_resource(&self, text: &str, kind: Option<Kind>, author: Author) -> Result<PlacedView, AskError> {
        let draft = Draft::read(text, kind).map_err(|error| AskError::Invalid(error.to_string()))?;
        let id = draft.id().to_owned();
        let want = Want::Put { draft: Box::new(draft), is_spread: true, author };
        let version = self.order(want).await?;
        Ok(PlacedView { creator: self.peer_id(), id, version })
    }

    /// Lets a resource of ours go; partners that could see it hear of it. On the disk when this returns.
    ///
    /// # Errors
    /// When we have none of this id, or it could not be written down in time.
    pub async fn remove_resource(&self, id: &str, author: Author) -> Result<PlacedView, AskError> {
        let held = self.resource(&self.peer_id(), id).await?;
        let want = Want::Remove { id: held.id.clone(), version: None, is_spread: true, author };
        let version = self.order(want).await?;
        Ok(PlacedView { creator: self.peer_id(), id: held.id, version })
    }

    /// One resource that is held here.
    ///
    /// # Errors
    /// When there is none, or the database is away.
    pub async fn resource(&self, creator: &PeerId, id: &str) -> Result<ResourceView, AskError> {
        let row = self.read(self.context.database.resource(creator, id).await)?;
        let unknown = || AskError::Unknown { what: "resource", name: id.to_owned() };
        row.and_then(ResourceView::of).ok_or_else(unknown)
    }

    /// Resources that are held here, ours and those that partners told us, best first where a text is looked for and by
    /// creator and id otherwise.
    ///
    /// # Errors
    /// When the text makes no sense, or the database is away.
    pub async fn resources(&self, wanting: Wanting) -> Result<ListedView, AskError> {
        let Wanting { text, kind, creator, after, limit } = wanting;
        if limit == 0 || limit > PAGE_MAX {
            return Err(AskError::Invalid(format!("got a limit of {limit}, expected 1 to {PAGE_MAX}")));
        }
        let query = ResourceQuery::new(&text, kind).map_err(|error| AskError::Invalid(error.to_string()))?;
        let database = &self.context.database;
        let rows = if query.text().is_empty() {
            self.read(database.resources(&Listing { creator, kind, after, limit }).await)?
        } else {
            // All creators are ranked together: one's own are picked from the best that can be had.
            let among = if creator.is_some() { RESOURCES_READ_MAX } else { limit };
            self.read(database.find_resources(&Sight::Everything, &query, among).await)?
        };
        let is_full = rows.rows.len() == limit as usize;
        let last = rows.rows.last().map(|row| (row.creator, row.id.clone()));
        let is_meant = |view: &ResourceView| creator.is_none_or(|creator| view.creator == creator);
        let resources =
            rows.rows.into_iter().filter_map(ResourceView::of).filter(is_meant).take(limit as usize).collect();
        // What is ranked has no next page: whoever sees too much looks for more letters.
        let next = last.filter(|_| is_full && query.text().is_empty()).map(|(creator, id)| format!("{creator}/{id}"));
        Ok(ListedView { resources, next })
    }

    /// What each peer is to us, where it is anything.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn relations(&self) -> Result<Vec<RelationView>, AskError> {
        let rows = ask(&self.context.addresses.policy, policy::Msg::Look).await?;
        Ok(rows.into_iter().map(RelationView::from).collect())
    }

    /// Makes a peer this to us, at once, and on the disk when this returns. [`Relation::None`] forgets it.
    ///
    /// # Errors
    /// When it makes no sense, there is no room, or it could not be written down in time.
    pub async fn relate(&self, peer: PeerId, relation: Relation, name: String) -> Result<(), AskError> {
        self.order(Want::Relate { peer, relation: Some(relation), name }).await.map(drop)
    }

    /// What waits for partners and the bus, and what became of what waited, the newest first.
    ///
    /// # Errors
    /// When the limit is out of range, or the database is away.
    pub async fn outbox(
        &self,
        destination: Option<Destination>,
        fate: Option<Fate>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<OutboxView>, AskError> {
        if limit == 0 || limit > PAGE_MAX {
            return Err(AskError::Invalid(format!("got a limit of {limit}, expected 1 to {PAGE_MAX}")));
        }
        let filter = OutboxFilter { destination, fate, before, limit };
        let rows = self.read(self.context.database.outbox(&filter).await)?;
        Ok(rows.rows.into_iter().map(OutboxView::from).collect())
    }

    /// Our planner sessions that are open now.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn plans(&self) -> Result<Vec<PlanView>, AskError> {
        let rows = self.read(self.context.database.plans(self.context.now().wall).await)?;
        Ok(rows.rows.into_iter().map(PlanView::from).collect())
    }

    /// Opens a planner session where there is none, and feeds it a step if there is one. On the disk when this returns.
    ///
    /// # Errors
    /// When it makes no sense, there is no room, or it could not be written down in time.
    pub async fn feed_plan(&self, peer: PeerId, step: Option<Vec<u8>>, author: Author) -> Result<(), AskError> {
        let want = match step {
            Some(payload) if payload.len() > PAYLOAD_BYTES_MAX => {
                let words = format!("got a step of {} bytes, expected at most {PAYLOAD_BYTES_MAX}", payload.len());
                return Err(AskError::Invalid(words));
            }
            Some(payload) => Want::FeedPlan { to: Some(peer), payload, author },
            None => Want::OpenPlan { peer },
        };
        self.order(want).await.map(drop)
    }

    /// Closes a planner session; what was fed is still sent. On the disk when this returns.
    ///
    /// # Errors
    /// When there is none with this peer, or it could not be written down in time.
    pub async fn close_plan(&self, peer: PeerId) -> Result<(), AskError> {
        if !self.plans().await?.iter().any(|plan| plan.peer_id == peer) {
            return Err(AskError::Unknown { what: "planner session", name: peer.to_string() });
        }
        self.order(Want::ClosePlan { to: Some(peer) }).await.map(drop)
    }

    async fn order(&self, want: Want) -> Result<u64, AskError> {
        if !self.context.own.role.node {
            let words = "this member is no node: it has no catalogue and no partners";
            return Err(AskError::Invalid(words.to_owned()));
        }
        let want = Box::new(want);
        match ask(&self.context.addresses.sharing, |reply| sharing::Msg::Order { want, reply }).await? {
            Outcome::Done { version } => Ok(version.unwrap_or_default()),
            Outcome::Repeated => Ok(0),
            Outcome::Older { held } => {
                Err(AskError::Invalid(format!("version {held} is held, expected a higher one, or none at all")))
            }
            Outcome::Refused(why) => Err(AskError::Invalid(why)),
            Outcome::Full(why) | Outcome::NotYet(why) => Err(AskError::NotYet(why)),
        }
    }

    fn read<T>(&self, outcome: Result<T, ::store::StoreError>) -> Result<T, AskError> {
        told(&self.context, outcome).ok_or_else(|| AskError::NotYet("the database is away".to_owned()))
    }
}
