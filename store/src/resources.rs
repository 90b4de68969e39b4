//! The catalogue: signed texts as they came, who may see them, and how they are found.
//!
//! The rule of [`Resource::is_shown`] stands here once more, in SQL, so that it holds for every answer whatever asks.

use std::sync::Arc;

use protocol::{
    PeerId, Timestamp,
    catalogue::{ANY_GROUP, Asker, Kind, Resource, ResourceQuery, Told},
    names,
    relation::Relation,
    signed::Verified,
};

use crate::{
    Rows, StoreError,
    repository::{Database, Repository as _},
    session::{Row, Session, Sql, Value, values},
};

/// Resources in one answer. A page of people is a tenth of it.
pub const RESOURCES_READ_MAX: u32 = 1_000;

/// The shortest part that the index of SQLite knows.
const INDEXED_CHARS_MIN: usize = 3;

/// After every peer id as text.
const PAST_PEERS: &str = "~";

/// A resource, or what is left of one that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceRow {
    /// Who offers it.
    pub creator: PeerId,
    /// Unique at its creator.
    pub id: String,
    /// The highest that was seen.
    pub version: u64,
    /// When its creator wrote this version, to the millisecond; of a removed one, when we were told.
    pub updated_at: Timestamp,
    /// The signed text; none once it is removed.
    pub text: Option<Arc<str>>,
}

/// A resource of ours as the next change of it finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingRow {
    /// The highest version.
    pub version: u64,
    /// The signed text; none once it is removed.
    pub text: Option<Arc<str>>,
    /// What partners were told of it last.
    pub told: Told,
}

/// What a change is weighed against.
pub(crate) struct Weight {
    /// The highest version seen, removed or not.
    pub(crate) version: u64,
    /// The version that partners were told last.
    pub(crate) told: u64,
    pub(crate) is_living: bool,
}

/// Which resources are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Only of this creator.
    pub creator: Option<PeerId>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only those after this creator and id: the last of the page before.
    pub after: Option<(PeerId, String)>,
    /// At most so many, and [`RESOURCES_READ_MAX`].
    pub limit: u32,
}

/// What may be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// All that is held: what our own users see.
    Everything,
    /// What we show of our own to somebody.
    Of {
        /// Ourselves.
        own: PeerId,
        /// Who asks.
        asker: Asker,
    },
}

pub(crate) async fn held(session: &mut Session<'_>, creator: &PeerId, id: &str) -> Result<Option<Weight>, StoreError> {
    let sql = "SELECT version, told_version, CAST(CASE WHEN body IS NULL THEN 0 ELSE 1 END AS BIGINT) AS is_living FROM resources
         WHERE creator = $1 AND resource_id = $2";
    let row = session.fetch_first(sql, values![creator, id]).await?;
    Ok(row.and_then(|row| {
        let (version, told) = (row.count_wide("version")?, row.count_wide("told_version")?);
        Some(Weight { version, told, is_living: row.flag("is_living")? })
    }))
}

/// Those that are not removed. What is removed is taken off, because only that has an index of its own.
pub(crate) async fn count(session: &mut Session<'_>) -> Result<u64, StoreError> {
    let sql = "SELECT (SELECT count(*) FROM resources) - (SELECT count(*) FROM resources WHERE body IS NULL) AS n";
    Ok(session.number(sql, values![]).await?.map_or(0, i64::cast_unsigned))
}

/// The same of one creator.
pub(crate) async fn count_of(session: &mut Session<'_>, creator: &PeerId) -> Result<u64, StoreError> {
    let sql = "SELECT (SELECT count(*) FROM resources WHERE creator = $1)
             - (SELECT count(*) FROM resources WHERE creator = $1 AND body IS NULL) AS n";
    Ok(session.number(sql, values![creator]).await?.map_or(0, i64::cast_unsigned))
}

/// Lets the oldest of the removed go that are over `max`, or over `max_of_creator` of this creator.
pub(crate) async fn prune_removed(
    session: &mut Session<'_>,
    creator: &PeerId,
    max_of_creator: u32,
    max: u32,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM resources WHERE number IN (
             SELECT number FROM resources WHERE body IS NULL AND creator = $1 ORDER BY updated_at_ms, number
             LIMIT (SELECT CASE WHEN count(*) > $2 THEN count(*) - $2 ELSE 0 END FROM resources
                    WHERE body IS NULL AND creator = $1))";
    session.execute(sql, values![creator, max_of_creator]).await?;
    let sql = "DELETE FROM resources WHERE number IN (
             SELECT number FROM resources WHERE body IS NULL ORDER BY updated_at_ms, number
             LIMIT (SELECT CASE WHEN count(*) > $1 THEN count(*) - $1 ELSE 0 END FROM resources WHERE body IS NULL))";
    session.execute(sql, values![max]).await?;
    Ok(())
}

/// Writes down what partners were told last of a resource of ours.
pub(crate) async fn tell(session: &mut Session<'_>, creator: &PeerId, id: &str, told: &Told) -> Result<(), StoreError> {
    let audience = told.audience.as_ref().and_then(|audience| serde_json::to_string(audience).ok());
    let sql = "UPDATE resources SET told_version = $3, told_to = $4 WHERE creator = $1 AND resource_id = $2";
    let audience = Value::TextOrNone(audience.map(Into::into));
    session.execute(sql, &[Value::from(creator), Value::from(id), Value::from(told.version), audience]).await?;
    Ok(())
}

pub(crate) async fn read_standing(
    session: &mut Session<'_>,
    creator: &PeerId,
    id: &str,
) -> Result<Option<StandingRow>, StoreError> {
    let sql = "SELECT version, body, told_version, told_to FROM resources WHERE creator = $1 AND resource_id = $2";
    let row = session.fetch_first(sql, values![creator, id]).await?;
    Ok(row.and_then(|row| {
        let audience = row.text_or_none("told_to")?.and_then(|text| serde_json::from_str(text).ok());
        Some(StandingRow {
            version: row.count_wide("version")?,
            text: row.text_or_none("body")?.map(Arc::from),
            told: Told { version: row.count_wide("told_version")?, audience },
        })
    }))
}

/// Writes a resource over what is held of it.
pub(crate) async fn put(session: &mut Session<'_>, resource: &Verified<Resource>) -> Result<(), StoreError> {
    let access = match resource.access {
        protocol::catalogue::Access::Public => "public",
        protocol::catalogue::Access::Private => "private",
    };
    let searched = Searched::of(resource);
    let row = Held {
        creator: &resource.creator,
        id: &resource.id,
        version: resource.version,
        updated_at: resource.updated_at,
        kind: resource.kind.name(),
        access,
        searched: &searched,
        text: Some(resource.text()),
    };
    write(session, &row).await?;
    let shared: Vec<String> = resource
        .partnerships()
        .flat_map(|partnership| partnership.groups.iter().map(move |group| format!("{} {group}", partnership.peer)))
        .collect();
    if shared.is_empty() {
        return Ok(());
    }
    // One statement for all of them: there may be thousands.
    let sql = Sql {
        sqlite: "INSERT INTO partnerships (creator, resource_id, peer_id, group_name)
             SELECT $1, $2, substr(value, 1, instr(value, ' ') - 1), substr(value, instr(value, ' ') + 1)
             FROM json_each($3) WHERE true ON CONFLICT DO NOTHING",
        postgres: "INSERT INTO partnerships (creator, resource_id, peer_id, group_name)
             SELECT $1, $2, substr(value, 1, strpos(value, ' ') - 1), substr(value, strpos(value, ' ') + 1)
             FROM unnest($3) AS shared (value) ON CONFLICT DO NOTHING",
    };
    session.execute(sql, &[Value::from(&resource.creator), Value::from(&resource.id), Value::Texts(&shared)]).await?;
    Ok(())
}

/// Leaves of a resource its version, whether it was held or not.
pub(crate) async fn remove(
    session: &mut Session<'_>,
    creator: &PeerId,
    id: &str,
    version: u64,
    at: Timestamp,
) -> Result<(), StoreError> {
    let searched = Searched { name: String::new(), rest: String::new() };
    let row = Held { creator, id, version, updated_at: at, kind: "", access: "", searched: &searched, text: None };
    write(session, &row).await
}

/// What of a resource is searched.
struct Searched {
    name: String,
    /// With line feeds between its parts, which no query has: nothing is found across them.
    rest: String,
}

impl Searched {
    fn of(resource: &Resource) -> Self {
        let parts = [&resource.type_, &resource.short_description, &resource.description];
        let rest: Vec<String> = parts.into_iter().chain(&resource.owners).map(|part| names::normal(part)).collect();
        Self { name: names::normal(&resource.name), rest: rest.join("\n") }
    }
}

struct Held<'a> {
    creator: &'a PeerId,
    id: &'a str,
    version: u64,
    updated_at: Timestamp,
    kind: &'static str,
    access: &'static str,
    searched: &'a Searched,
    text: Option<&'a str>,
}

/// Writes the row and what is searched of it, and takes back with whom it was shared.
async fn write(session: &mut Session<'_>, row: &Held<'_>) -> Result<(), StoreError> {
    let sql = "INSERT INTO resources (creator, resource_id, version, updated_at_ms, kind, access, name, rest, body)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (creator, resource_id) DO UPDATE SET
             version = excluded.version, updated_at_ms = excluded.updated_at_ms, kind = excluded.kind,
             access = excluded.access, name = excluded.name, rest = excluded.rest, body = excluded.body
         RETURNING number AS n";
    let Searched { name, rest } = row.searched;
    let body = Value::TextOrNone(row.text.map(Into::into));
    let values = [
        Value::from(row.creator),
        Value::from(row.id),
        Value::from(row.version),
        Value::from(row.updated_at),
        Value::from(row.kind),
        Value::from(row.access),
        Value::from(name),
        Value::from(rest),
        body,
    ];
    let number = session.number(sql, &values).await?;
    if let (Session::Sqlite(_), Some(number)) = (&session, number) {
        // PostgreSQL makes its index of the row itself.
        session.execute("DELETE FROM resource_words WHERE rowid = $1", values![number]).await?;
        if row.text.is_some() {
            let sql = "INSERT INTO resource_words (rowid, name, rest) VALUES ($1, $2, $3)";
            session.execute(sql, values![number, name, rest]).await?;
        }
    }
    let sql = "DELETE FROM partnerships WHERE creator = $1 AND resource_id = $2";
    session.execute(sql, values![row.creator, row.id]).await?;
    Ok(())
}

pub(crate) async fn read_one(
    session: &mut Session<'_>,
    creator: &PeerId,
    id: &str,
) -> Result<Option<ResourceRow>, StoreError> {
    let sql = "SELECT creator, resource_id, version, updated_at_ms, body FROM resources
         WHERE creator = $1 AND resource_id = $2";
    let rows = session.fetch(sql, values![creator, id]).await?;
    Ok(Rows::read("resources", &rows, read_row).rows.pop())
}

pub(crate) async fn list(session: &mut Session<'_>, listing: &Listing) -> Result<Rows<ResourceRow>, StoreError> {
    let sql = "SELECT creator, resource_id, version, updated_at_ms, body FROM resources
         WHERE body IS NOT NULL AND creator BETWEEN $1 AND $2 AND (creator, resource_id) > ($3, $4)
             AND ($5 = '' OR kind = $5)
         ORDER BY creator, resource_id LIMIT $6 + 0";
    let (first, last) = match &listing.creator {
        Some(creator) => (creator.to_string(), creator.to_string()),
        None => (String::new(), PAST_PEERS.to_owned()),
    };
    let (after_creator, after_id) = match &listing.after {
        Some((creator, id)) => (creator.to_string(), id.clone()),
        None => (String::new(), String::new()),
    };
    let kind = listing.kind.map_or("", Kind::name);
    let limit = listing.limit.min(RESOURCES_READ_MAX);
    let rows = session.fetch(sql, values![first, last, after_creator, after_id, kind, limit]).await?;
    Ok(Rows::read("resources", &rows, read_row))
}

/// What may be seen: `$1` is ourselves or empty for everything, `$2` the asker, `$3` whether it is on the blacklist,
/// `$4` its groups, `$5` a kind or empty.
macro_rules! seen {
    ($is_granted:literal) => {
        concat!(
            "r.body IS NOT NULL AND ($5 = '' OR r.kind = $5)
             AND ($1 = '' OR (r.creator = $1 AND ($2 = $1 OR ($3 = 0 AND (r.access = 'public' OR EXISTS (
                 SELECT 1 FROM partnerships p
                 WHERE p.creator = r.creator AND p.resource_id = r.resource_id AND p.peer_id = $2
                     AND (p.group_name = '*' OR p.group_name ",
            $is_granted,
            ")))))))"
        )
    };
}

/// The rows found, in the order of their rank; `$6` is the text that they contain.
macro_rules! ranked {
    ($in_name:literal, $rank:literal, $from:literal, $is_granted:literal, $contains:literal, $limit:literal) => {
        concat!(
            "WITH found AS (
                 SELECT r.number, ",
            $in_name,
            " AS in_name, ",
            $rank,
            " AS place FROM ",
            $from,
            " WHERE ",
            seen!($is_granted),
            " AND ",
            $contains,
            " ORDER BY in_name DESC, place, r.name, r.creator, r.resource_id LIMIT ",
            $limit,
            ") SELECT r.creator, r.resource_id, r.version, r.updated_at_ms, r.body
             FROM found JOIN resources r ON r.number = found.number
             ORDER BY found.in_name DESC, found.place, r.name, r.creator, r.resource_id"
        )
    };
}

/// `$7` is the text for the index.
const FIND_INDEXED: &str = ranked!(
    "instr(r.name, $6) > 0",
    "bm25(resource_words, 10.0, 1.0)",
    "resource_words JOIN resources r ON r.number = resource_words.rowid",
    "IN (SELECT value FROM json_each($4))",
    "resource_words MATCH $7 AND (instr(r.name, $6) > 0 OR instr(r.rest, $6) > 0)",
    "$8 + 0"
);

/// Every text contains the empty one. No rank: what is so short is in most of them.
const FIND_SHORT: &str = ranked!(
    "instr(r.name, $6) > 0",
    "0",
    "resources r",
    "IN (SELECT value FROM json_each($4))",
    "(instr(r.name, $6) > 0 OR instr(r.rest, $6) > 0)",
    "$7 + 0"
);

/// Words that are whole rank; parts of words are in, and rank last.
const FIND_POSTGRES: &str = ranked!(
    "CASE WHEN strpos(r.name, $6) > 0 THEN 1 ELSE 0 END",
    "-ts_rank(r.words, plainto_tsquery('simple', $6))",
    "resources r",
    "= ANY ($4)",
    "(strpos(r.name, $6) > 0 OR strpos(r.rest, $6) > 0)",
    "$7 + 0"
);

pub(crate) async fn find(
    session: &mut Session<'_>,
    sight: &Sight,
    query: &ResourceQuery,
    limit: u32,
) -> Result<Rows<ResourceRow>, StoreError> {
    let nobody = String::new();
    let (own, asker, is_blacklisted, groups) = match sight {
        Sight::Everything => (nobody.clone(), nobody, false, Vec::new()),
        Sight::Of { own, asker } => {
            let is_blacklisted = asker.relation == Relation::Blacklist;
            (own.to_string(), asker.peer.to_string(), is_blacklisted, names_only(&asker.groups))
        }
    };
    let limit = limit.min(RESOURCES_READ_MAX);
    let mut values = vec![
        Value::from(own),
        Value::from(asker),
        Value::from(is_blacklisted),
        Value::Texts(&groups),
        Value::from(query.kind().map_or("", Kind::name)),
        Value::from(query.text()),
    ];
    let is_indexed = matches!(session, Session::Sqlite(_)) && query.text().chars().count() >= INDEXED_CHARS_MIN;
    let sql = if is_indexed {
        // One phrase, whatever its characters mean to the index.
        values.push(Value::from(format!("\"{}\"", query.text().replace('"', "\"\""))));
        FIND_INDEXED.into()
    } else {
        Sql { sqlite: FIND_SHORT, postgres: FIND_POSTGRES }
    };
    values.push(Value::from(limit));
    let rows = session.fetch(sql, &values).await?;
    Ok(Rows::read("resources", &rows, read_row))
}

/// Groups that a partnership can name. A claim of any group names none.
fn names_only(groups: &[String]) -> Vec<String> {
    groups.iter().filter(|group| *group != ANY_GROUP && !group.contains('\0')).cloned().collect()
}

/// Forgets at most `at_most` removed resources of which we were told before `before`, the oldest first.
pub(crate) async fn forget_removed(database: &Database, before: Timestamp, at_most: u32) -> Result<u64, StoreError> {
    let mut turn = database.turn(false).await?;
    let sql = "DELETE FROM resources WHERE number IN (
             SELECT number FROM resources WHERE body IS NULL AND updated_at_ms < $1 ORDER BY updated_at_ms, number
             LIMIT $2 + 0)";
    let outcome = turn.session().execute(sql, values![before, at_most]).await;
    turn.end(outcome).await
}

fn read_row(row: &Row) -> Option<ResourceRow> {
    Some(ResourceRow {
        creator: row.peer("creator")?,
        id: row.text("resource_id")?.to_owned(),
        version: row.count_wide("version")?,
        updated_at: row.time("updated_at_ms")?,
        text: row.text_or_none("body")?.map(Arc::from),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::{
        prelude::*,
        strategy::ValueTree,
        test_runner::{Config, TestRunner},
    };
    use protocol::catalogue::{Access, Instance, Partnership};

    use super::*;
    use crate::{
        CatalogueChange, Change, Changed, Store,
        testing::{at, keys, meddle, number, on_both, resource, signed},
    };

    async fn put(store: &Store, resource: Box<Verified<Resource>>) {
        let catalogue = Some(CatalogueChange::Put(resource));
        let change =
            Change { receipt: None, catalogue, told: None, relation: None, plan: None, outbox: vec![], at: at(1) };
        assert_eq!(store.change(&[change]).await.unwrap(), [Changed::Done]);
    }

    async fn remove(store: &Store, n: u8, id: &str, version: u64) {
        let removal = protocol::catalogue::Removal { id: id.to_owned(), version };
        let catalogue = Some(CatalogueChange::Remove { creator: keys(n).peer_id(), removal });
        let change =
            Change { receipt: None, catalogue, told: None, relation: None, plan: None, outbox: vec![], at: at(2) };
        assert_eq!(store.change(&[change]).await.unwrap(), [Changed::Done]);
    }

    async fn found(store: &Store, text: &str) -> Vec<String> {
        let query = ResourceQuery::new(text, None).unwrap();
        let rows = store.find_resources(&Sight::Everything, &query, 1_000).await.unwrap();
        assert_eq!(rows.skipped, 0);
        rows.rows.into_iter().map(|row| row.id).collect()
    }

    fn shared(n: u8, groups: &[&str]) -> Vec<Instance> {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        vec![Instance::default(), Instance { partnerships: vec![Partnership { peer: keys(n).peer_id(), groups }] }]
    }

    /// Values of a strategy, the same ones each time.
    fn some<T>(strategy: impl Strategy<Value = T>, count: usize) -> Vec<T> {
        let mut runner = TestRunner::new_with_rng(Config::default(), TestRunner::deterministic().rng().clone());
        (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
    }

    on_both! {
        async fn g33_sql_shows_a_resource_to_whom_the_rule_shows_it(place) {
            let store = place.open().await;
            let own = keys(1).peer_id();
            let shares = [
                vec![],
                shared(2, &["ops"]),
                shared(2, &["*"]),
                shared(2, &[]),
                shared(1, &["ops"]),
                [shared(2, &["dev", "ops"]), shared(3, &["ops", "o p s"])].concat(),
            ];
            let mut all = Vec::new();
            for (place, instances) in shares.iter().enumerate() {
                for access in [Access::Public, Access::Private] {
                    for creator in [1, 4] {
                        let id = format!("{place}-{access:?}-{creator}");
                        let resource = Resource { access, instances: instances.clone(), ..resource(&id, 1) };
                        let resource = signed(creator, resource);
                        put(&store, resource.clone()).await;
                        all.push(resource);
                    }
                }
            }
            let claims: [&[&str]; 7] = [&[], &["dev"], &["ops"], &["OPS"], &["*"], &["dev", "ops"], &["o p s"]];
            let mut shown = 0;
            for peer in [1, 2, 3] {
                for relation in Relation::ALL {
                    for groups in claims {
                        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
                        // As it came, and as it counts: neither shows more than the rule.
                        let raw = Asker { peer: keys(peer).peer_id(), relation, groups: groups.clone() };
                        for asker in [raw, Asker::new(keys(peer).peer_id(), relation, groups)] {
                            let mut expected: Vec<&str> = all
                                .iter()
                                .filter(|resource| resource.is_shown(&own, &asker))
                                .map(|resource| resource.id.as_str())
                                .collect();
                            expected.sort_unstable();
                            let sight = Sight::Of { own, asker: asker.clone() };
                            let query = ResourceQuery::default();
                            let rows = store.find_resources(&sight, &query, 1_000).await.unwrap().rows;
                            let got: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
                            assert_eq!(got, expected, "{asker:?}");
                            shown += got.len();
                        }
                    }
                }
            }
            assert!(shown > 100, "{shown}");
        }

        async fn what_is_in_a_text_is_found_whatever_its_characters(place) {
            let store = place.open().await;
            let word = || "[ab%_\\\\\"'*?é -]{0,7}";
            let texts = some((word(), word(), word(), word()), 60);
            let mut all = Vec::new();
            for (n, (name, type_, description, owner)) in texts.into_iter().enumerate() {
                let made = Resource {
                    name: format!("{name}x"),
                    type_,
                    description: format!("{description}\nsecond line"),
                    owners: vec![format!("{owner}É")],
                    ..resource(&format!("r{n}"), 1)
                };
                let made = signed(1, made);
                put(&store, made.clone()).await;
                all.push(made);
            }
            let parts = some("[ab%_\\\\\"'*?éÉ -]{0,5}", 60);
            let fixed = ["", "x", "%", "_", "\\", "\"", "é", "e\u{301}", "second line", "line\" OR \"x", "NEAR(a b)"];
            let mut hits = 0;
            for text in parts.iter().map(String::as_str).chain(fixed) {
                let query = ResourceQuery::new(text, None).unwrap();
                let contains = |part: &str| names::normal(part).contains(query.text());
                let mut expected: Vec<String> = all
                    .iter()
                    .filter(|resource| {
                        [&resource.name, &resource.type_, &resource.description, &resource.owners[0]]
                            .into_iter()
                            .any(|part| contains(part))
                    })
                    .map(|resource| resource.id.clone())
                    .collect();
                expected.sort_unstable();
                let mut got = found(&store, text).await;
                // Those that have it in the name come first.
                let in_name: Vec<bool> = got
                    .iter()
                    .map(|id| contains(&all.iter().find(|resource| resource.id == *id).unwrap().name))
                    .collect();
                assert!(in_name.is_sorted_by(|one, next| one >= next), "{text:?}: {in_name:?}");
                got.sort_unstable();
                assert_eq!(got, expected, "{text:?}");
                hits += got.len();
            }
            assert!(hits > 500, "{hits}");
        }

        async fn what_is_found_follows_each_change(place) {
            let store = place.open().await;
            let named = |name: &str, version| signed(1, Resource { name: name.into(), ..resource("gpu", version) });
            put(&store, named("old words", 1)).await;
            assert_eq!(found(&store, "old w").await, ["gpu"]);
            put(&store, named("new things", 2)).await;
            assert_eq!(found(&store, "old w").await, Vec::<String>::new());
            assert_eq!(found(&store, "NEW THINGS").await, ["gpu"]);
            remove(&store, 1, "gpu", 3).await;
            assert_eq!(found(&store, "new things").await, Vec::<String>::new());
            assert_eq!(found(&store, "ne").await, Vec::<String>::new());
            put(&store, named("third time", 4)).await;
            assert_eq!(found(&store, "third").await, ["gpu"]);
            let check = Sql {
                sqlite: "INSERT INTO resource_words (resource_words) VALUES ('integrity-check')",
                postgres: "SELECT 1",
            };
            meddle(&store, check).await;
            store.close().await;
            assert_eq!(found(&place.open().await, "third").await, ["gpu"]);
        }

        async fn names_rank_above_the_rest_and_kinds_are_kept_apart(place) {
            let store = place.open().await;
            let made = |id: &str, name: &str, description: &str, kind| {
                let (name, description) = (name.to_owned(), description.to_owned());
                signed(1, Resource { name, description, kind, ..resource(id, 1) })
            };
            put(&store, made("a", "alpha", "a cluster of machines", Kind::Compute)).await;
            put(&store, made("b", "cluster of words", "none", Kind::Data)).await;
            put(&store, made("c", "beta", "cluster cluster cluster", Kind::Compute)).await;
            let all = found(&store, "cluster").await;
            assert_eq!((all.len(), all[0].as_str()), (3, "b"));
            let query = ResourceQuery::new("cluster", Some(Kind::Compute)).unwrap();
            let rows = store.find_resources(&Sight::Everything, &query, 1_000).await.unwrap().rows;
            assert_eq!(rows.len(), 2);
            assert_eq!(store.find_resources(&Sight::Everything, &query, 1).await.unwrap().rows.len(), 1);
            assert_eq!(store.find_resources(&Sight::Everything, &query, 0).await.unwrap().rows, []);
        }

        async fn pages_of_a_listing_meet_and_leave_out_what_is_removed(place) {
            let store = place.open().await;
            let kind = |n: u32| if n.is_multiple_of(2) { Kind::Data } else { Kind::Storage };
            for creator in [1, 2] {
                for n in 0..5 {
                    let resource = Resource { kind: kind(n), ..resource(&format!("r{n}"), 1) };
                    put(&store, signed(creator, resource)).await;
                }
                remove(&store, creator, "r3", 2).await;
            }
            let mut creators = [keys(1).peer_id(), keys(2).peer_id()];
            creators.sort_unstable_by_key(PeerId::to_string);
            let ids = ["r0", "r1", "r2", "r4"];
            let expected: Vec<(PeerId, String)> =
                creators.iter().flat_map(|creator| ids.map(|id| (*creator, id.to_owned()))).collect();
            let mut got = Vec::new();
            loop {
                let listing = Listing { after: got.last().cloned(), limit: 3, ..Listing::default() };
                let page = store.resources(&listing).await.unwrap().rows;
                if page.is_empty() {
                    break;
                }
                got.extend(page.into_iter().map(|row| (row.creator, row.id)));
            }
            assert_eq!(got, expected);
            for creator in creators {
                let listing =
                    Listing { creator: Some(creator), kind: Some(Kind::Data), limit: 10, ..Listing::default() };
                let rows = store.resources(&listing).await.unwrap().rows;
                let got: Vec<(PeerId, String)> = rows.into_iter().map(|row| (row.creator, row.id)).collect();
                assert_eq!(got, ["r0", "r2", "r4"].map(|id| (creator, id.to_owned())));
            }
        }

        async fn a_resource_is_kept_as_the_text_in_which_it_came(place) {
            let store = place.open().await;
            let creator = keys(1).peer_id();
            let full = Resource {
                name: "ñ".repeat(protocol::catalogue::NAME_CHARS_MAX),
                description: "日本 ".repeat(protocol::catalogue::DESCRIPTION_CHARS_MAX / 3),
                instances: (0..32)
                    .map(|n| Instance {
                        partnerships: (0..16)
                            .map(|m| Partnership {
                                peer: keys(n).peer_id(),
                                groups: (0..4).map(|group| format!("group {m} {group}")).collect(),
                            })
                            .collect(),
                    })
                    .collect(),
                ..resource("full", 7)
            };
            let full = signed(1, full);
            put(&store, full.clone()).await;
            store.close().await;
            let store = place.open().await;
            let row = store.resource(&creator, "full").await.unwrap().unwrap();
            assert_eq!((row.version, row.updated_at), (7, full.updated_at));
            assert_eq!(row.text.as_deref(), Some(&**full.text()));
            assert_eq!(number(&store, "SELECT count(*) AS n FROM partnerships").await, 32 * 16 * 4);
            assert_eq!(found(&store, "本 日").await, ["full"]);
            remove(&store, 1, "full", 8).await;
            assert_eq!(number(&store, "SELECT count(*) AS n FROM partnerships").await, 0);
            let row = store.resource(&creator, "full").await.unwrap().unwrap();
            assert_eq!((row.version, row.updated_at, row.text), (8, at(2), None));
            assert_eq!(store.resource(&creator, "other").await.unwrap(), None);
        }

        async fn only_what_is_removed_is_forgotten_and_no_more_than_asked(place) {
            let store = place.open().await;
            put(&store, signed(1, resource("kept", 1))).await;
            for id in ["a", "b", "c"] {
                remove(&store, 1, id, 5).await;
            }
            assert_eq!(store.forget_removed(at(2), 10).await.unwrap(), 0);
            assert_eq!(store.forget_removed(at(3), 2).await.unwrap(), 2);
            assert_eq!(store.forget_removed(at(3), 2).await.unwrap(), 1);
            assert_eq!(number(&store, "SELECT count(*) AS n FROM resources").await, 1);
            // It could come back now.
            put(&store, signed(1, resource("a", 1))).await;
        }

        async fn a_resource_that_makes_no_sense_is_left_out_and_counted(place) {
            let store = place.open().await;
            put(&store, signed(1, resource("a", 1))).await;
            put(&store, signed(1, resource("b", 1))).await;
            meddle(&store, "UPDATE resources SET creator = 'nobody' WHERE resource_id = 'a'").await;
            let rows = store.resources(&Listing { limit: 10, ..Listing::default() }).await.unwrap();
            assert_eq!((rows.rows.len(), rows.skipped), (1, 1));
        }
    }

    #[tokio::test]
    async fn an_answer_is_bounded() {
        let store = Store::in_memory(&crate::Settings::default()).await.unwrap();
        let text = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1001)
             INSERT INTO resources (creator, resource_id, version, updated_at_ms, kind, access, name, rest, body)
             SELECT '12D3KooW', 'r' || n, 1, 0, 'data', 'public', '', '', '{}' FROM n";
        meddle(&store, text).await;
        let listing = Listing { limit: u32::MAX, ..Listing::default() };
        let rows = store.resources(&listing).await.unwrap();
        assert_eq!(rows.rows.len() + rows.skipped, RESOURCES_READ_MAX as usize);
        let rows = store.find_resources(&Sight::Everything, &ResourceQuery::default(), u32::MAX).await.unwrap();
        assert_eq!(rows.rows.len() + rows.skipped, RESOURCES_READ_MAX as usize);
    }
}
