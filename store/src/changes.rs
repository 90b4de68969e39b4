//! What applications and partners change, each change with all that follows from it: done whole, once, and for good.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    PeerId, Timestamp,
    catalogue::{Removal, Resource, Told, is_news},
    signed::Verified,
};

use crate::{
    Destination, Outgoing, PlanChange, Refusal, RelationRow, Settings, StoreError, outbox, plans, relations,
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
    /// What partners were told last of that resource, if it is ours.
    pub told: Option<Told>,
    /// What it changes between a peer and us.
    pub relation: Option<RelationRow>,
    /// What it changes about planner sessions.
    pub plan: Option<PlanChange>,
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
    /// Partners are told of what is held in this version: its text, or that it is gone.
    Tell {
        /// Whose it is.
        creator: PeerId,
        /// Which.
        id: String,
        /// The version held.
        version: u64,
    },
}

impl CatalogueChange {
    fn subject(&self) -> (&PeerId, &str, u64) {
        match self {
            Self::Put(resource) => (&resource.creator, &resource.id, resource.version),
            Self::Remove { creator, removal } => (creator, &removal.id, removal.version),
            Self::Tell { creator, id, version } => (creator, id, *version),
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
    /// It is over a bound: nothing happened, and its message may come again. So it is with those behind one for which the
    /// outbox has no room, when they change the same resource.
    Refused(Refusal),
}

/// What the tables hold, counted once for all changes of a call.
#[derive(Clone, Debug, Default)]
struct Counts {
    /// Those that are not removed.
    resources: Option<u64>,
    /// Those of the creator that was asked for last.
    of_creator: Option<(PeerId, u64)>,
    waiting: Option<u64>,
    /// What waits for the bus of the source that was asked for last.
    of_source: Option<(String, u64)>,
    /// What waits for the bus of all sources.
    of_sources: Option<u64>,
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
    // Resources of which a change has to come again. Those behind it were planned as if it were done.
    let mut put_off: BTreeMap<(&PeerId, &str), Refusal> = BTreeMap::new();
    for change in changes {
        let resource = change.catalogue.as_ref().map(|catalogue| {
            let (creator, id, _) = catalogue.subject();
            (creator, id)
        });
        let before = resource.and_then(|resource| put_off.get(&resource));
        let outcome = match (check(change), before) {
            (Ok(()), Some(why)) => Changed::Refused(why.clone()),
            (Ok(()), None) => change_one(session, change, settings, &mut counts).await?,
            (Err(refusal), _) => Changed::Refused(refusal),
        };
        if let (Changed::Refused(why), Some(resource)) = (&outcome, resource)
            && why.is_for_now()
        {
            put_off.insert(resource, why.clone());
        }
        outcomes.push(outcome);
    }
    if changes.iter().any(|change| change.receipt.is_some()) {
        prune_receipts(session).await?;
    }
    let removed: BTreeSet<&PeerId> = changes.iter().filter_map(removed_of).collect();
    for creator in removed {
        resources::prune_removed(session, creator, settings.resources_per_creator_max, settings.resources_max).await?;
    }
    Ok(outcomes)
}

/// Of whose resources it removes one.
fn removed_of(change: &Change) -> Option<&PeerId> {
    match &change.catalogue {
        Some(CatalogueChange::Remove { creator, .. }) => Some(creator),
        _ => None,
    }
}

fn check(change: &Change) -> Result<(), Refusal> {
    if let Some(receipt) = &change.receipt {
        check_length("source", &receipt.source, SOURCE_BYTES_MAX)?;
        check_length("id", &receipt.id, RECEIPT_ID_BYTES_MAX)?;
    }
    if let Some(CatalogueChange::Remove { removal, .. }) = &change.catalogue {
        removal.check().map_err(|error| Refusal::BadRemoval { why: error.to_string() })?;
    }
    if let Some(PlanChange::Feed { step, .. }) = &change.plan {
        outbox::check(step)?;
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
    let before = counts.clone();
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
        if let Some(told) = &change.told {
            let (creator, id, _) = catalogue.subject();
            resources::tell(session, creator, id, told).await?;
        }
    }
    if let Some(relation) = &change.relation
        && let Err(refusal) = relations::write(session, relation).await?
    {
        return Ok(Changed::Refused(refusal));
    }
    // With whoever is nothing to us no plan is made.
    if let Some(RelationRow { peer, relation, .. }) = &change.relation
        && !relation.is_known()
    {
        plans::close(session, peer).await?;
    }
    let steps = match &change.plan {
        Some(plan) => match plans::change(session, plan, change.at).await? {
            Ok(steps) => steps,
            Err(refusal) => return Ok(Changed::Refused(refusal)),
        },
        None => Vec::new(),
    };
    let wanted = (change.outbox.len() + steps.len()) as u64;
    if wanted == 0 {
        return Ok(Changed::Done);
    }
    let mut waiting = match counts.waiting {
        Some(waiting) => waiting,
        None => outbox::count_waiting(session).await?,
    };
    if !outbox::has_room(session, &mut waiting, wanted, settings, change.at).await? {
        return Ok(Changed::Refused(Refusal::Full { table: "outbox", max: settings.outbox_max }));
    }
    if let Err(refusal) = count_told(session, change, settings, counts).await? {
        return Ok(Changed::Refused(refusal));
    }
    let source = change.receipt.as_ref().map(|receipt| receipt.source.as_str());
    outbox::put(session, &change.outbox, source, change.at).await?;
    outbox::put(session, &steps, source, change.at).await?;
    counts.waiting = Some(waiting + wanted);
    Ok(Changed::Done)
}

/// Counts what a source makes us tell the bus, if it has room for it.
async fn count_told(
    session: &mut Session<'_>,
    change: &Change,
    settings: &Settings,
    counts: &mut Counts,
) -> Result<Result<(), Refusal>, StoreError> {
    let Some(Receipt { source, .. }) = &change.receipt else { return Ok(Ok(())) };
    let wanted = change.outbox.iter().filter(|outgoing| outgoing.destination == Destination::Bus).count() as u64;
    if wanted == 0 {
        return Ok(Ok(()));
    }
    let of_source = match &counts.of_source {
        Some((counted, count)) if counted == source => *count,
        _ => outbox::count_told(session, Some(source)).await?,
    };
    let of_all = match counts.of_sources {
        Some(count) => count,
        None => outbox::count_told(session, None).await?,
    };
    if let Err(refusal) = outbox::check_share(of_source, of_all, wanted, settings) {
        return Ok(Err(refusal));
    }
    counts.of_source = Some((source.clone(), of_source + wanted));
    counts.of_sources = Some(of_all + wanted);
    Ok(Ok(()))
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
    let is_new = match (catalogue, &held) {
        (CatalogueChange::Tell { .. }, Some(held)) => held.version == version && held.told < version,
        (_, held) => is_news(version, held.as_ref().map(|held| held.version)),
    };
    if let (false, Some(held)) = (is_new, &held) {
        return Ok(Changed::Older { held: held.version });
    }
    let was_living = held.is_some_and(|held| held.is_living);
    match catalogue {
        CatalogueChange::Put(resource) => {
            if !was_living && let Err(refusal) = count_new(session, creator, settings, counts).await? {
                return Ok(Changed::Refused(refusal));
            }
            resources::put(session, resource).await?;
        }
        CatalogueChange::Remove { creator, removal } => {
            if was_living {
                counts.one_less(creator);
            }
            resources::remove(session, creator, &removal.id, removal.version, at).await?;
        }
        CatalogueChange::Tell { .. } => {}
    }
    Ok(Changed::Done)
}

impl Counts {
    /// A resource of this creator is removed.
    fn one_less(&mut self, creator: &PeerId) {
        self.resources = self.resources.map(|all| all.saturating_sub(1));
        if let Some((counted, count)) = &mut self.of_creator
            && counted == creator
        {
            *count = count.saturating_sub(1);
        }
    }
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
             SELECT number FROM receipts WHERE received_at_ms < $1 ORDER BY received_at_ms, number LIMIT $2 + 0)";
    let outcome = turn.session().execute(sql, values![before, at_most]).await;
    turn.end(outcome).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
    use protocol::{
        catalogue::{Audience, Kind},
        relation::Relation,
    };

    use super::*;
    use crate::{
        Destination, Listing, OutboxFilter, ResourceRow, Store,
        session::Sql,
        testing::{at, keys, meddle, number, on_both, outgoing, peer, resource, signed},
    };

    fn empty(secs: i64) -> Change {
        Change { receipt: None, catalogue: None, told: None, relation: None, plan: None, outbox: vec![], at: at(secs) }
    }

    fn receipt(id: &str) -> Option<Receipt> {
        Some(Receipt { source: "bus".to_owned(), id: id.to_owned() })
    }

    fn put(n: u8, id: &str, version: u64) -> Change {
        let name = format!("{id} {version}");
        let signed = signed(n, Resource { name, ..resource(id, version) });
        Change { catalogue: Some(CatalogueChange::Put(signed)), ..empty(version.cast_signed()) }
    }

    fn remove(n: u8, id: &str, version: u64) -> Change {
        let removal = Removal { id: id.to_owned(), version };
        let catalogue = Some(CatalogueChange::Remove { creator: keys(n).peer_id(), removal });
        Change { catalogue, ..empty(version.cast_signed()) }
    }

    async fn one(store: &Store, change: Change) -> Changed {
        store.change(&[change]).await.unwrap().remove(0)
    }

    async fn sent(store: &Store) -> usize {
        store.outbox(&OutboxFilter { limit: 100, ..OutboxFilter::default() }).await.unwrap().rows.len()
    }

    async fn held(store: &Store, n: u8, id: &str) -> Option<ResourceRow> {
        store.resource(&keys(n).peer_id(), id).await.unwrap()
    }

    fn full(table: &'static str, max: u32) -> Changed {
        Changed::Refused(Refusal::Full { table, max })
    }

    on_both! {
        async fn p9_a_message_has_all_its_effects_once(place) {
            let store = place.open().await;
            let relation = RelationRow {
                peer: peer(2),
                relation: Relation::Partner,
                name: String::new(),
                verified: false,
                changed_at: at(1),
            };
            let change = Change {
                receipt: receipt("m1"),
                relation: Some(relation.clone()),
                outbox: vec![outgoing(Destination::Bus, "a", 1), outgoing(Destination::Peer(peer(2)), "b", 1)],
                ..put(1, "gpu", 5)
            };
            // Within a call, over calls, over restarts.
            let outcomes = store.change(&[change.clone(), change.clone()]).await.unwrap();
            assert_eq!(outcomes, [Changed::Done, Changed::Repeated]);
            store.close().await;
            let store = place.open().await;
            assert_eq!(one(&store, change.clone()).await, Changed::Repeated);
            assert_eq!(sent(&store).await, 2);
            assert_eq!(store.relations().await.unwrap().rows, [relation]);
            assert_eq!(held(&store, 1, "gpu").await.unwrap().version, 5);
            // The same id of another source is another message.
            let other = Receipt { source: "12D3".to_owned(), id: "m1".to_owned() };
            assert_eq!(one(&store, Change { receipt: Some(other), ..empty(1) }).await, Changed::Done);
        }

        async fn what_is_refused_half_way_leaves_nothing(place) {
            let store = place.open_with(&Settings { outbox_max: 1, resources_max: 2, ..Settings::default() }).await;
            let message = || outgoing(Destination::Bus, "a", 1);
            let over = Change { receipt: receipt("m1"), outbox: vec![message(), message()], ..put(1, "gpu", 5) };
            let next = Change { receipt: receipt("m2"), outbox: vec![message()], ..put(1, "cpu", 5) };
            let outcomes = store.change(&[over.clone(), next, put(1, "disk", 1), put(1, "tape", 1)]).await.unwrap();
            let expected = [full("outbox", 1), Changed::Done, Changed::Done, full("resources", 2)];
            assert_eq!(outcomes, expected, "what was undone is not counted");
            assert_eq!((held(&store, 1, "gpu").await, sent(&store).await), (None, 1));
            store.close().await;
            // It may come again when there is room.
            let store = place.open().await;
            assert_eq!(one(&store, over).await, Changed::Done);
            assert_eq!(sent(&store).await, 3);
        }

        async fn behind_a_change_that_has_to_come_again_no_other_of_its_resource_is_done(place) {
            let store = place.open_with(&Settings { outbox_max: 1, ..Settings::default() }).await;
            let over = |version| {
                let outbox = vec![outgoing(Destination::Bus, "a", 1), outgoing(Destination::Bus, "b", 1)];
                Change { receipt: receipt("m1"), outbox, ..put(1, "gpu", version) }
            };
            let next = Change { receipt: receipt("m2"), ..remove(1, "gpu", 6) };
            let outcomes = store.change(&[over(5), next.clone(), put(2, "gpu", 1), put(1, "cpu", 1)]).await.unwrap();
            assert_eq!(outcomes, [full("outbox", 1), full("outbox", 1), Changed::Done, Changed::Done]);
            assert_eq!(held(&store, 1, "gpu").await, None);
            // In their order again, when there is room.
            store.close().await;
            let store = place.open().await;
            assert_eq!(store.change(&[over(5), next]).await.unwrap(), [Changed::Done, Changed::Done]);
            assert_eq!(held(&store, 1, "gpu").await.unwrap().version, 6);
        }

        async fn what_is_older_is_not_news_and_its_message_is_known(place) {
            let store = place.open().await;
            one(&store, put(1, "gpu", 5)).await;
            for (id, change) in [("m1", put(1, "gpu", 5)), ("m2", put(1, "gpu", 4)), ("m3", remove(1, "gpu", 5))] {
                let change = Change { receipt: receipt(id), outbox: vec![outgoing(Destination::Bus, id, 1)], ..change };
                assert_eq!(one(&store, change.clone()).await, Changed::Older { held: 5 });
                assert_eq!(one(&store, change).await, Changed::Repeated);
            }
            assert_eq!(sent(&store).await, 0);
            let row = held(&store, 1, "gpu").await.unwrap();
            assert!(row.version == 5 && row.text.is_some());
        }

        async fn what_is_removed_does_not_come_back_by_an_older_text(place) {
            let store = place.open().await;
            let changes =
                [put(1, "gpu", 5), remove(1, "gpu", 7), put(1, "gpu", 6), remove(1, "never", 3), put(1, "never", 2)];
            let outcomes = store.change(&changes).await.unwrap();
            let expected =
                [Changed::Done, Changed::Done, Changed::Older { held: 7 }, Changed::Done, Changed::Older { held: 3 }];
            assert_eq!(outcomes, expected);
            store.close().await;
            let store = place.open().await;
            assert_eq!(one(&store, put(1, "gpu", 7)).await, Changed::Older { held: 7 });
            assert_eq!(held(&store, 1, "gpu").await.unwrap().text, None);
            assert_eq!(one(&store, put(1, "gpu", 8)).await, Changed::Done);
            assert!(held(&store, 1, "gpu").await.unwrap().text.is_some());
            assert_eq!(held(&store, 2, "gpu").await, None, "another creator's is another resource");
        }

        async fn any_order_of_changes_ends_in_the_same_state(place) {
            let one_store = place.open().await;
            let mut runner = TestRunner::deterministic();
            let step = (prop::sample::select(vec!["a", "b"]), 1_u64..40, any::<bool>());
            for round in 0..12 {
                let other_store = Store::in_memory(&Settings::default()).await.unwrap();
                let steps = prop::collection::vec(step.clone(), 1..14).new_tree(&mut runner).unwrap().current();
                // A creator gives each version once.
                let mut steps: Vec<_> =
                    steps.into_iter().map(|(id, version, is_put)| ((id, version), is_put)).collect();
                steps.sort_unstable();
                steps.dedup_by_key(|step| step.0);
                let change = |((id, version), is_put): &((&str, u64), bool)| {
                    let id = format!("{id}{round}");
                    if *is_put { put(1, &id, *version) } else { remove(1, &id, *version) }
                };
                let first = Just(steps.clone()).prop_shuffle().new_tree(&mut runner).unwrap().current();
                let mut second = Just(steps).prop_shuffle().new_tree(&mut runner).unwrap().current();
                // Repeats change nothing.
                second.extend_from_within(..second.len() / 2);
                for step in &first {
                    one(&one_store, change(step)).await;
                }
                other_store.change(&second.iter().map(change).collect::<Vec<_>>()).await.unwrap();
                for id in ["a", "b"] {
                    let id = format!("{id}{round}");
                    assert_eq!(
                        held(&one_store, 1, &id).await,
                        held(&other_store, 1, &id).await,
                        "{first:?} {second:?}"
                    );
                }
            }
        }

        async fn the_catalogue_is_bounded_in_all_and_per_creator(place) {
            let settings = Settings { resources_max: 4, resources_per_creator_max: 2, ..Settings::default() };
            let store = place.open_with(&settings).await;
            let of_creator = full("resources of one creator", 2);
            let outcomes =
                store.change(&[put(1, "a", 1), put(1, "b", 1), put(1, "c", 1), put(2, "a", 1)]).await.unwrap();
            assert_eq!(outcomes, [Changed::Done, Changed::Done, of_creator.clone(), Changed::Done]);
            assert_eq!(one(&store, put(3, "a", 1)).await, Changed::Done);
            assert_eq!(one(&store, put(4, "a", 1)).await, full("resources", 4));
            // What is held goes on changing, and a place that is free can be taken, in one call and in the next.
            assert_eq!(one(&store, put(1, "a", 2)).await, Changed::Done);
            let outcomes = store.change(&[put(1, "c", 1), remove(1, "b", 2), put(1, "c", 1), put(1, "d", 1)]).await;
            let expected = [of_creator.clone(), Changed::Done, Changed::Done, of_creator.clone()];
            assert_eq!(outcomes.unwrap(), expected);
            // What comes back is one more, as any other.
            assert_eq!(one(&store, put(1, "b", 3)).await, of_creator);
            assert_eq!(one(&store, remove(3, "a", 2)).await, Changed::Done);
            assert_eq!(one(&store, put(4, "a", 1)).await, Changed::Done);
            assert_eq!(one(&store, put(3, "a", 3)).await, full("resources", 4));
            let listing = Listing { limit: 10, ..Listing::default() };
            assert_eq!(store.resources(&listing).await.unwrap().rows.len(), 4);
        }

        async fn what_is_removed_is_bounded_apart_and_the_oldest_is_forgotten(place) {
            let settings = Settings { resources_max: 4, resources_per_creator_max: 2, ..Settings::default() };
            let store = place.open_with(&settings).await;
            // Created and deleted in turns, again and again: no living resource is ever refused.
            for n in 1..=6 {
                let id = format!("r{n}");
                let outcomes = store.change(&[put(1, &id, n), put(1, "living", n), remove(1, &id, n + 1)]).await.unwrap();
                assert_eq!(outcomes, [const { Changed::Done }; 3]);
                let gone = number(&store, "SELECT count(*) AS n FROM resources WHERE body IS NULL").await;
                assert_eq!(gone, i64::try_from(n.min(2)).unwrap());
            }
            assert_eq!((held(&store, 1, "r4").await, held(&store, 1, "living").await.unwrap().version), (None, 6));
            assert_eq!(one(&store, put(1, "r5", 6)).await, Changed::Older { held: 6 }, "what is kept is known");
            // Of all together: at the bound, and one past it, where the oldest of anybody leaves.
            store.change(&[remove(2, "a", 10), remove(2, "b", 11)]).await.unwrap();
            assert!(held(&store, 1, "r5").await.is_some());
            assert_eq!(one(&store, remove(3, "a", 12)).await, Changed::Done);
            assert_eq!(number(&store, "SELECT count(*) AS n FROM resources WHERE body IS NULL").await, 4);
            assert_eq!((held(&store, 1, "r5").await, held(&store, 1, "r6").await.is_some()), (None, true));
        }

        async fn what_is_held_is_told_once(place) {
            let store = place.open().await;
            let creator = keys(1).peer_id();
            let tell = |version| Change {
                catalogue: Some(CatalogueChange::Tell { creator, id: "gpu".to_owned(), version }),
                told: Some(Told { version, audience: None }),
                outbox: vec![outgoing(Destination::Peer(peer(2)), "a", 1)],
                ..empty(1)
            };
            let told = async || store.standing(&creator, "gpu").await.unwrap().unwrap().told;
            let quiet = Told { version: 0, audience: None };
            one(&store, Change { told: Some(quiet.clone()), ..put(1, "gpu", 5) }).await;
            assert_eq!(told().await, quiet);
            for version in [4, 6] {
                assert_eq!(one(&store, tell(version)).await, Changed::Older { held: 5 });
            }
            let outcomes = store.change(&[tell(5), tell(5)]).await.unwrap();
            assert_eq!(outcomes, [Changed::Done, Changed::Older { held: 5 }]);
            assert_eq!((told().await.version, sent(&store).await), (5, 1));
            // That it is gone is told the same way, and who knew of it outlives its text.
            let audience = Audience { kind: Kind::Compute, is_public: false, peers: vec![peer(2)] };
            let knew = Told { version: 5, audience: Some(audience) };
            one(&store, Change { told: Some(knew.clone()), ..remove(1, "gpu", 7) }).await;
            store.close().await;
            let store = place.open().await;
            let row = store.standing(&creator, "gpu").await.unwrap().unwrap();
            assert_eq!((row.version, row.text, row.told), (7, None, knew));
            assert_eq!(one(&store, tell(7)).await, Changed::Done);
            assert_eq!(one(&store, tell(7)).await, Changed::Older { held: 7 });
            let row = store.standing(&creator, "gpu").await.unwrap().unwrap();
            assert_eq!((row.told, sent(&store).await), (Told { version: 7, audience: None }, 2));
            // What is refused half way is not told.
            let store = Store::in_memory(&Settings { outbox_max: 1, ..Settings::default() }).await.unwrap();
            let over = Change { outbox: vec![outgoing(Destination::Bus, "a", 1); 2], ..tell(5) };
            one(&store, put(1, "gpu", 5)).await;
            assert_eq!(one(&store, over).await, full("outbox", 1));
            assert_eq!(store.standing(&creator, "gpu").await.unwrap().unwrap().told.version, 0);
        }

        async fn receipts_are_bounded_and_the_oldest_leave(place) {
            let store = place.open().await;
            let first = Change { receipt: receipt("first"), ..empty(1) };
            one(&store, first.clone()).await;
            // As if as many had come as are kept.
            let many = Sql {
                sqlite: "INSERT INTO receipts (number, source, message_id, received_at_ms) VALUES (499999, 's', 'i', 1)",
                postgres: "SELECT setval(pg_get_serial_sequence('receipts', 'number'), 499999)",
            };
            meddle(&store, many).await;
            assert_eq!(one(&store, Change { receipt: receipt("at the bound"), ..empty(2) }).await, Changed::Done);
            assert_eq!(number(&store, "SELECT max(number) AS n FROM receipts").await, i64::from(RECEIPTS_MAX));
            assert_eq!(number(&store, "SELECT min(number) AS n FROM receipts").await, 1);
            assert_eq!(one(&store, Change { receipt: receipt("past it"), ..empty(2) }).await, Changed::Done);
            assert_eq!(one(&store, first).await, Changed::Done, "it was forgotten");
        }

        async fn old_receipts_are_forgotten_no_more_than_asked(place) {
            let store = place.open().await;
            for secs in 1..=4 {
                one(&store, Change { receipt: receipt(&secs.to_string()), ..empty(secs) }).await;
            }
            assert_eq!(store.forget_receipts(at(4), 2).await.unwrap(), 2);
            assert_eq!(store.forget_receipts(at(4), 2).await.unwrap(), 1);
            assert_eq!(store.forget_receipts(at(4), 2).await.unwrap(), 0);
            assert_eq!(one(&store, Change { receipt: receipt("4"), ..empty(9) }).await, Changed::Repeated);
            assert_eq!(one(&store, Change { receipt: receipt("3"), ..empty(9) }).await, Changed::Done);
        }

        async fn a_receipt_or_removal_out_of_bounds_is_refused(place) {
            let store = place.open().await;
            let text = |bytes: usize| "t".repeat(bytes);
            let signed_for = |source: String, id: String| Change { receipt: Some(Receipt { source, id }), ..empty(1) };
            let taken = [
                signed_for(text(SOURCE_BYTES_MAX), text(RECEIPT_ID_BYTES_MAX)),
                Change { at: at(1), ..remove(1, &text(protocol::catalogue::ID_BYTES_MAX), 5) },
            ];
            for outcome in store.change(&taken).await.unwrap() {
                assert_eq!(outcome, Changed::Done);
            }
            let refused = [
                signed_for(text(SOURCE_BYTES_MAX + 1), text(1)),
                signed_for(text(1), text(RECEIPT_ID_BYTES_MAX + 1)),
                signed_for(String::new(), text(1)),
                signed_for(text(1), String::new()),
                signed_for(text(1), "a\0".to_owned()),
                remove(1, &text(protocol::catalogue::ID_BYTES_MAX + 1), 1),
            ];
            let over = CatalogueChange::Remove {
                creator: keys(1).peer_id(),
                removal: Removal { id: "a".to_owned(), version: protocol::json::NUMBER_MAX + 1 },
            };
            let outcomes = store.change(&refused).await.unwrap();
            assert!(outcomes.iter().all(|outcome| matches!(outcome, Changed::Refused(_))), "{outcomes:?}");
            let outcome = one(&store, Change { catalogue: Some(over), ..empty(1) }).await;
            assert!(matches!(outcome, Changed::Refused(Refusal::BadRemoval { .. })), "{outcome:?}");
        }

        async fn a_call_has_a_bound(place) {
            let store = place.open().await;
            assert_eq!(store.change(&[]).await.unwrap(), []);
            assert_eq!(store.change(&vec![empty(1); CHANGES_MAX]).await.unwrap().len(), CHANGES_MAX);
            let error = store.change(&vec![empty(1); CHANGES_MAX + 1]).await.unwrap_err();
            assert!(matches!(error, StoreError::TooMany { got, .. } if got == CHANGES_MAX + 1), "{error}");
        }
    }

    #[test]
    fn a_change_can_be_spawned() {
        fn is_send(_: &impl Send) {}
        let made = crate::testing::block_on(Store::in_memory(&Settings::default()));
        let store = made.unwrap();
        is_send(&store.change(&[]));
        is_send(&store.outbox(&OutboxFilter::default()));
    }
}
