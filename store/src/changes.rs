//! What applications and partners change, each change with all that follows from it: done whole, once, and for good.

use protocol::{
    PeerId, Timestamp,
    catalogue::{Removal, Resource, is_news},
    signed::Verified,
};

use crate::{
    Outgoing, Refusal, RelationRow, Settings, StoreError, outbox, relations,
    repository::{Database, Repository as _},
    resources,
    session::{Session, values},
    write::check_length,
};

/// Changes of one call: some seconds of the writer at the longest, most of them far below.
pub const CHANGES_MAX: usize = 1_024;

/// Bytes of the name of where a message came from: a peer id, or an application's.
pub const SOURCE_BYTES_MAX: usize = 128;

/// Bytes of the id that a message had there.
pub const RECEIPT_ID_BYTES_MAX: usize = 256;

/// Messages that are remembered, so that they have their effect once: an hour of a busy bus. Past it the oldest leave.
pub const RECEIPTS_MAX: u32 = 500_000;

/// One change and what follows from it: all of it or nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What brought it. The same one again changes nothing.
    pub receipt: Option<Receipt>,
    /// What it changes in the catalogue.
    pub catalogue: Option<CatalogueChange>,
    /// What it changes between a peer and us.
    pub relation: Option<RelationRow>,
    /// Who is to hear of it.
    pub outbox: Vec<Outgoing>,
    /// When.
    pub at: Timestamp,
}

/// A message that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// From where, 1 to [`SOURCE_BYTES_MAX`] bytes.
    pub source: String,
    /// Its id there, 1 to [`RECEIPT_ID_BYTES_MAX`] bytes.
    pub id: String,
}

/// A change of the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub enum CatalogueChange {
    /// A resource as it is now.
    Put(Box<Verified<Resource>>),
    /// A resource is gone.
    Remove {
        /// Whose it was.
        creator: PeerId,
        /// Which, and the version of its end.
        removal: Removal,
    },
}

impl CatalogueChange {
    fn subject(&self) -> (&PeerId, &str, u64) {
        match self {
            Self::Put(resource) => (&resource.creator, &resource.id, resource.version),
            Self::Remove { creator, removal } => (creator, &removal.id, removal.version),
        }
    }
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is on the disk, whole.
    Done,
    /// Its message was here before: nothing happened.
    Repeated,
    /// What is held is as new or newer: nothing happened, and its message will be known when it comes again.
    Older {
        /// The version held.
        held: u64,
    },
    /// It is over a bound: nothing happened, and its message may come again.
    Refused(Refusal),
}

/// What the tables hold, counted once for all changes of a call.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    resources: Option<u64>,
    /// Those of the creator that was asked for last.
    of_creator: Option<(PeerId, u64)>,
    waiting: Option<u64>,
}

pub(crate) async fn change(
    database: &Database,
    changes: &[Change],
    settings: &Settings,
) -> Result<Vec<Changed>, StoreError> {
    if changes.len() > CHANGES_MAX {
        return Err(StoreError::TooMany { got: changes.len(), max: CHANGES_MAX });
    }
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let mut turn = database.turn(true).await?;
    let outcome = change_all(&mut turn.session(), changes, settings).await;
    turn.end(outcome).await
}

async fn change_all(
    session: &mut Session<'_>,
    changes: &[Change],
    settings: &Settings,
) -> Result<Vec<Changed>, StoreError> {
    let mut counts = Counts::default();
    let mut outcomes = Vec::with_capacity(changes.len());
    for change in changes {
        let outcome = match check(change) {
            Ok(()) => change_one(session, change, settings, &mut counts).await?,
            Err(refusal) => Changed::Refused(refusal),
        };
        outcomes.push(outcome);
    }
    // Bounds of what is only remembered last and once.
    prune_receipts(session).await?;
    outbox::prune_ended(session).await?;
    Ok(outcomes)
}

fn check(change: &Change) -> Result<(), Refusal> {
    if let Some(receipt) = &change.receipt {
        check_length("source", &receipt.source, SOURCE_BYTES_MAX)?;
        check_length("id", &receipt.id, RECEIPT_ID_BYTES_MAX)?;
    }
    if let Some(CatalogueChange::Remove { removal, .. }) = &change.catalogue {
        removal.check().map_err(|error| Refusal::BadRemoval { why: error.to_string() })?;
    }
    change.outbox.iter().try_for_each(outbox::check)
}

/// One change within a savepoint, so that what is refused half way leaves nothing.
async fn change_one(
    session: &mut Session<'_>,
    change: &Change,
    settings: &Settings,
    counts: &mut Counts,
) -> Result<Changed, StoreError> {
    let before = *counts;
    session.execute("SAVEPOINT one_change", values![]).await?;
    let changed = within(session, change, settings, counts).await?;
    if matches!(changed, Changed::Refused(_)) {
        session.execute("ROLLBACK TO SAVEPOINT one_change", values![]).await?;
        *counts = before;
    }
    session.execute("RELEASE SAVEPOINT one_change", values![]).await?;
    Ok(changed)
}

async fn within(
    session: &mut Session<'_>,
    change: &Change,
    settings: &Settings,
    counts: &mut Counts,
) -> Result<Changed, StoreError> {
    if let Some(receipt) = &change.receipt
        && !sign_for(session, receipt, change.at).await?
    {
        return Ok(Changed::Repeated);
    }
    if let Some(catalogue) = &change.catalogue {
        let changed = change_catalogue(session, catalogue, change.at, settings, counts).await?;
        if changed != Changed::Done {
            return Ok(changed);
        }
    }
    if let Some(relation) = &change.relation
        && let Err(refusal) = relations::write(session, relation).await?
    {
        return Ok(Changed::Refused(refusal));
    }
    if change.outbox.is_empty() {
        return Ok(Changed::Done);
    }
    let mut waiting = match counts.waiting {
        Some(waiting) => waiting,
        None => outbox::count_waiting(session).await?,
    };
    let wanted = change.outbox.len() as u64;
    if !outbox::has_room(session, &mut waiting, wanted, settings, change.at).await? {
        return Ok(Changed::Refused(Refusal::Full { table: "outbox", max: settings.outbox_max }));
    }
    for outgoing in &change.outbox {
        outbox::put(session, outgoing, change.at).await?;
    }
    counts.waiting = Some(waiting + wanted);
    Ok(Changed::Done)
}

/// Writes the receipt, and tells whether it is the first for this message.
async fn sign_for(session: &mut Session<'_>, receipt: &Receipt, at: Timestamp) -> Result<bool, StoreError> {
    let sql = "INSERT INTO receipts (source, message_id, received_at_ms) VALUES ($1, $2, $3)
         ON CONFLICT (source, message_id) DO NOTHING";
    Ok(session.execute(sql, values![&receipt.source, &receipt.id, at]).await? > 0)
}

async fn change_catalogue(
    session: &mut Session<'_>,
    catalogue: &CatalogueChange,
    at: Timestamp,
    settings: &Settings,
    counts: &mut Counts,
) -> Result<Changed, StoreError> {
    let (creator, id, version) = catalogue.subject();
    let held = resources::held(session, creator, id).await?;
    if let Some(held) = held.filter(|held| !is_news(version, Some(*held))) {
        return Ok(Changed::Older { held });
    }
    if held.is_none()
        && let Err(refusal) = count_new(session, creator, settings, counts).await?
    {
        return Ok(Changed::Refused(refusal));
    }
    match catalogue {
        CatalogueChange::Put(resource) => resources::put(session, resource).await?,
        CatalogueChange::Remove { creator, removal } => {
            resources::remove(session, creator, &removal.id, removal.version, at).await?;
        }
    }
    Ok(Changed::Done)
}

/// Counts one more resource of this creator, if there is room for it.
async fn count_new(
    session: &mut Session<'_>,
    creator: &PeerId,
    settings: &Settings,
    counts: &mut Counts,
) -> Result<Result<(), Refusal>, StoreError> {
    let all = match counts.resources {
        Some(all) => all,
        None => resources::count(session).await?,
    };
    let of_creator = match counts.of_creator {
        Some((counted, count)) if counted == *creator => count,
        _ => resources::count_of(session, creator).await?,
    };
    counts.resources = Some(all);
    counts.of_creator = Some((*creator, of_creator));
    if of_creator >= u64::from(settings.resources_per_creator_max) {
        let max = settings.resources_per_creator_max;
        return Ok(Err(Refusal::Full { table: "resources of one creator", max }));
    }
    if all >= u64::from(settings.resources_max) {
        return Ok(Err(Refusal::Full { table: "resources", max: settings.resources_max }));
    }
    counts.resources = Some(all + 1);
    counts.of_creator = Some((*creator, of_creator + 1));
    Ok(Ok(()))
}

/// Lets the oldest receipts go that are over the bound. Numbers rise, and a gap among them only makes fewer.
async fn prune_receipts(session: &mut Session<'_>) -> Result<(), StoreError> {
    let sql = "DELETE FROM receipts WHERE number <= (SELECT max(number) FROM receipts) - $1";
    session.execute(sql, values![RECEIPTS_MAX]).await?;
    Ok(())
}

pub(crate) async fn forget_receipts(database: &Database, before: Timestamp, at_most: u32) -> Result<u64, StoreError> {
    let mut turn = database.turn(false).await?;
    let sql = "DELETE FROM receipts WHERE number IN (
             SELECT number FROM receipts WHERE received_at_ms < $1 ORDER BY received_at_ms, number LIMIT $2)";
    let outcome = turn.session().execute(sql, values![before, at_most]).await;
    turn.end(outcome).await
}
