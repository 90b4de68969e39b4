//! The catalogue: signed texts as they came, who may see them, and how they are found.
//!
//! The rule of [`Resource::is_shown`] stands here once more, in SQL, so that it holds for every answer whatever asks.

use std::sync::Arc;

use protocol::{
    PeerId, Timestamp,
    catalogue::{ANY_GROUP, Asker, Kind, Resource, ResourceQuery},
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

/// The highest version seen of a resource, removed or not.
pub(crate) async fn held(session: &mut Session<'_>, creator: &PeerId, id: &str) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT version AS n FROM resources WHERE creator = $1 AND resource_id = $2";
    Ok(session.number(sql, values![creator, id]).await?.map(i64::cast_unsigned))
}

pub(crate) async fn count(session: &mut Session<'_>) -> Result<u64, StoreError> {
    let count = session.number("SELECT count(*) AS n FROM resources", values![]).await?;
    Ok(count.map_or(0, i64::cast_unsigned))
}

pub(crate) async fn count_of(session: &mut Session<'_>, creator: &PeerId) -> Result<u64, StoreError> {
    let count = session.number("SELECT count(*) AS n FROM resources WHERE creator = $1", values![creator]).await?;
    Ok(count.map_or(0, i64::cast_unsigned))
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
         ORDER BY creator, resource_id LIMIT $6";
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
    "$8"
);

/// Every text contains the empty one. No rank: what is so short is in most of them.
const FIND_SHORT: &str = ranked!(
    "instr(r.name, $6) > 0",
    "0",
    "resources r",
    "IN (SELECT value FROM json_each($4))",
    "(instr(r.name, $6) > 0 OR instr(r.rest, $6) > 0)",
    "$7"
);

/// Words that are whole rank; parts of words are in, and rank last.
const FIND_POSTGRES: &str = ranked!(
    "CASE WHEN strpos(r.name, $6) > 0 THEN 1 ELSE 0 END",
    "-ts_rank(r.words, plainto_tsquery('simple', $6))",
    "resources r",
    "= ANY ($4)",
    "(strpos(r.name, $6) > 0 OR strpos(r.rest, $6) > 0)",
    "$7"
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
             LIMIT $2)";
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
