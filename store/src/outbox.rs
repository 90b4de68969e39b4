//! The outbox: what is to reach the bus or a peer, kept until it did, and for a while after.

use std::{collections::HashMap, sync::Arc};

use protocol::{
    PeerId, Timestamp,
    catalogue::GROUPS_MAX,
    event::{PAYLOAD_BYTES_MAX, TEXT_BYTES_MAX},
};

use crate::{
    RELATIONS_MAX, Rows, Settings, StoreError,
    repository::{Database, Repository as _},
    session::{Row, Session, Sql, Value, values},
    write::{Refusal, check_bytes_max, check_length, check_length_max},
};

/// Bytes of a subject: the longest verb has a quarter of it.
pub const SUBJECT_BYTES_MAX: usize = 64;

/// Bytes of a message's id.
pub const MESSAGE_ID_BYTES_MAX: usize = 128;

/// Bytes kept of what went wrong: a sentence or two.
pub const DETAIL_BYTES_MAX: usize = 256;

/// Messages kept whose fate is known. Past it the oldest leave.
pub const OUTBOX_ENDED_MAX: u32 = 10_000;

/// Messages with their payloads in one answer.
pub const OUTBOX_NEXT_MAX: u32 = 64;

/// Bytes of the payloads in one answer, unless the first alone has more: a little more than the longest one. Whoever reads
/// for many destinations at once holds so many times this.
pub const OUTBOX_NEXT_BYTES_MAX: usize = 1024 * 1024;

const _: () = assert!(OUTBOX_NEXT_BYTES_MAX >= PAYLOAD_BYTES_MAX);

/// Messages without their payloads in one answer.
pub const OUTBOX_READ_MAX: u32 = 1_000;

/// The name of the bus among the destinations. No peer id is so short.
const BUS: &str = "bus";

/// What the name of a planner session among the destinations begins with. No peer id has a colon.
pub(crate) const PLAN: &str = "plan:";

/// One source has this part of the outbox for what it makes us tell the bus, so that a member that floods us while the bus
/// is away takes nothing from the others.
const PART_OF_SOURCE: u32 = 8;

/// All sources together have this part, so that what our own applications change always finds room.
const PART_OF_SOURCES: u32 = 2;

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// To the applications of our own organisation.
    Bus,
    /// To a member of another.
    Peer(PeerId),
    /// To the planner session with a member of another.
    Plan(PeerId),
}

impl Destination {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Bus => BUS.to_owned(),
            Self::Peer(peer) => peer.to_string(),
            Self::Plan(peer) => format!("{PLAN}{peer}"),
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        match name.strip_prefix(PLAN) {
            Some(peer) => peer.parse().ok().map(Self::Plan),
            None if name == BUS => Some(Self::Bus),
            None => name.parse().ok().map(Self::Peer),
        }
    }
}

/// A message that is to go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where.
    pub destination: Destination,
    /// The verb of the event or of the bus, 1 to [`SUBJECT_BYTES_MAX`] bytes.
    pub subject: String,
    /// For whom, at most 256 bytes, may be empty.
    pub user: String,
    /// Its groups, each at most 256 bytes, at most [`GROUPS_MAX`].
    pub groups: Arc<[String]>,
    /// What the payload is, at most 256 bytes, may be empty.
    pub datatype: String,
    /// At most [`PAYLOAD_BYTES_MAX`]. Messages of one change that share it are one copy on the disk as well.
    pub payload: Arc<[u8]>,
    /// By which a repeat is known, 1 to [`MESSAGE_ID_BYTES_MAX`] bytes.
    pub message_id: String,
    /// It may make room for others when there is none: a result of a search.
    pub may_drop: bool,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Nothing yet.
    Waiting,
    /// It arrived.
    Delivered,
    /// It was refused for good.
    Refused,
    /// It waited too long.
    Expired,
    /// It made room for others.
    Dropped,
}

impl Fate {
    /// Every fate.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Delivered, Self::Refused, Self::Expired, Self::Dropped];

    /// Its name in the database and the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
        }
    }

    /// The fate of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fate| fate.name() == name)
    }
}

/// A message and its fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Rises with each message, and is never used again.
    pub id: u64,
    /// The message. Its payload is empty once it waits no longer, and in lists.
    pub outgoing: Outgoing,
    /// Bytes of its payload while it waits, in lists too; none afterwards.
    pub bytes: u64,
    /// When it was put here, to the millisecond.
    pub created_at: Timestamp,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// When it is tried again; none while it was never tried.
    pub next_at: Option<Timestamp>,
    /// What became of it.
    pub fate: Fate,
    /// When it did.
    pub ended_at: Option<Timestamp>,
    /// What went wrong last, at most [`DETAIL_BYTES_MAX`] bytes.
    pub detail: String,
}

/// How much waits for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxTotal {
    /// Which.
    pub destination: Destination,
    /// Messages.
    pub waiting: u64,
    /// When the first of them was put here.
    pub oldest: Timestamp,
    /// How often the first was tried in vain.
    pub attempts: u32,
    /// When the first is tried again.
    pub next_at: Option<Timestamp>,
}

/// Which messages are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxFilter {
    /// Only for this destination; for a peer with what goes to the planner session with it.
    pub destination: Option<Destination>,
    /// Only of this fate.
    pub fate: Option<Fate>,
    /// Only those before this id: the last of the page before.
    pub before: Option<u64>,
    /// At most so many, and [`OUTBOX_READ_MAX`].
    pub limit: u32,
}

/// Whether a message is within its bounds.
pub(crate) fn check(outgoing: &Outgoing) -> Result<(), Refusal> {
    check_length("subject", &outgoing.subject, SUBJECT_BYTES_MAX)?;
    check_length_max("user", &outgoing.user, TEXT_BYTES_MAX)?;
    if outgoing.groups.len() > GROUPS_MAX {
        return Err(Refusal::TooMany { field: "groups", got: outgoing.groups.len(), max: GROUPS_MAX });
    }
    outgoing.groups.iter().try_for_each(|group| check_length_max("groups", group, TEXT_BYTES_MAX))?;
    check_length_max("datatype", &outgoing.datatype, TEXT_BYTES_MAX)?;
    check_bytes_max("payload", outgoing.payload.len(), PAYLOAD_BYTES_MAX)?;
    check_length("message_id", &outgoing.message_id, MESSAGE_ID_BYTES_MAX)
}

pub(crate) async fn count_waiting(session: &mut Session<'_>) -> Result<u64, StoreError> {
    let count = session.number("SELECT count(*) AS n FROM outbox WHERE fate = 'waiting'", values![]).await?;
    Ok(count.map_or(0, i64::cast_unsigned))
}

/// How much of what others told us waits for the bus: of this source, or of all.
pub(crate) async fn count_told(session: &mut Session<'_>, source: Option<&str>) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) AS n FROM outbox WHERE fate = 'waiting' AND source <> '' AND ($1 = '' OR source = $1)";
    let count = session.number(sql, values![source.unwrap_or_default()]).await?;
    Ok(count.map_or(0, i64::cast_unsigned))
}

/// Whether a source of which so much waits for the bus, and so much of all, may have this much more there.
pub(crate) fn check_share(of_source: u64, of_all: u64, wanted: u64, settings: &Settings) -> Result<(), Refusal> {
    let part = |part: u32| (settings.outbox_max / part).max(1);
    let (max, max_of_all) = (part(PART_OF_SOURCE), part(PART_OF_SOURCES));
    if of_source + wanted > u64::from(max) {
        return Err(Refusal::Full { table: "outbox of one source", max });
    }
    if of_all + wanted > u64::from(max_of_all) {
        return Err(Refusal::Full { table: "outbox of all sources", max: max_of_all });
    }
    Ok(())
}

/// Drops the oldest `at_most` of those that may make room, and tells how many there were.
pub(crate) async fn make_room(session: &mut Session<'_>, at_most: u64, at: Timestamp) -> Result<u64, StoreError> {
    let sql = Sql {
        sqlite: "UPDATE outbox SET fate = 'dropped', ended_at_ms = $1, payload = x'', payload_number = NULL
             WHERE id IN (SELECT id FROM outbox WHERE fate = 'waiting' AND may_drop = 1 ORDER BY id LIMIT $2 + 0)",
        postgres: "UPDATE outbox SET fate = 'dropped', ended_at_ms = $1, payload = '', payload_number = NULL
             WHERE id IN (SELECT id FROM outbox WHERE fate = 'waiting' AND may_drop = 1 ORDER BY id LIMIT $2 + 0)",
    };
    let dropped = session.execute(sql, values![at, at_most]).await?;
    if dropped > 0 {
        prune_payloads(session).await?;
    }
    Ok(dropped)
}

/// Puts messages that were checked at the end; `source` told us what they say, if anybody did. A payload that several of
/// them share is kept once.
pub(crate) async fn put(
    session: &mut Session<'_>,
    outbox: &[Outgoing],
    source: Option<&str>,
    at: Timestamp,
) -> Result<(), StoreError> {
    // By where it lies: those that share it were made of one.
    let place = |outgoing: &Outgoing| outgoing.payload.as_ptr().addr();
    let mut uses: HashMap<usize, usize> = HashMap::new();
    for outgoing in outbox {
        *uses.entry(place(outgoing)).or_default() += 1;
    }
    let mut kept: HashMap<usize, i64> = HashMap::new();
    for outgoing in outbox {
        let place = place(outgoing);
        let is_shared = !outgoing.payload.is_empty() && uses.get(&place).is_some_and(|uses| *uses > 1);
        let number = match kept.get(&place) {
            Some(number) => Some(*number),
            None if is_shared => {
                let sql = "INSERT INTO outbox_payloads (payload) VALUES ($1) RETURNING number AS n";
                session.number(sql, &[Value::Bytes(&outgoing.payload)]).await?
            }
            None => None,
        };
        if let Some(number) = number {
            kept.insert(place, number);
        }
        let source = source.filter(|_| outgoing.destination == Destination::Bus);
        put_one(session, outgoing, number, source, at).await?;
    }
    Ok(())
}

async fn put_one(
    session: &mut Session<'_>,
    outgoing: &Outgoing,
    payload_number: Option<i64>,
    source: Option<&str>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO outbox (destination, subject, user_name, group_names, datatype, message_id, may_drop,
             created_at_ms, attempts, fate, detail, payload, payload_number, source)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 'waiting', '', $9, $10, $11)";
    let values = [
        Value::from(outgoing.destination.name()),
        Value::from(&outgoing.subject),
        Value::from(&outgoing.user),
        Value::from(serde_json::Value::from(&*outgoing.groups).to_string()),
        Value::from(&outgoing.datatype),
        Value::from(&outgoing.message_id),
        Value::from(outgoing.may_drop),
        Value::from(at),
        Value::Bytes(if payload_number.is_none() { &outgoing.payload } else { &[] }),
        Value::IntOrNone(payload_number),
        Value::from(source.unwrap_or_default()),
    ];
    session.execute(sql, &values).await?;
    Ok(())
}

pub(crate) async fn tried(
    session: &mut Session<'_>,
    id: u64,
    attempts: u32,
    next_at: Option<Timestamp>,
    detail: &str,
) -> Result<(), StoreError> {
    let sql = "UPDATE outbox SET attempts = $2, next_at_ms = $3, detail = $4 WHERE id = $1 AND fate = 'waiting'";
    session.execute(sql, values![id, attempts, next_at, cut(detail)]).await?;
    Ok(())
}

pub(crate) async fn ended(
    session: &mut Session<'_>,
    id: u64,
    fate: Fate,
    at: Timestamp,
    detail: &str,
) -> Result<(), StoreError> {
    if fate == Fate::Waiting {
        return Ok(());
    }
    let shared = session.number("SELECT payload_number AS n FROM outbox WHERE id = $1", values![id]).await?;
    let sql = Sql {
        sqlite: "UPDATE outbox SET fate = $2, ended_at_ms = $3, detail = $4, payload = x'', payload_number = NULL
             WHERE id = $1 AND fate = 'waiting'",
        postgres: "UPDATE outbox SET fate = $2, ended_at_ms = $3, detail = $4, payload = '', payload_number = NULL
             WHERE id = $1 AND fate = 'waiting'",
    };
    session.execute(sql, values![id, fate.name(), at, cut(detail)]).await?;
    if let Some(number) = shared {
        let sql = "DELETE FROM outbox_payloads WHERE number = $1
             AND NOT EXISTS (SELECT 1 FROM outbox WHERE payload_number = $1)";
        session.execute(sql, values![number]).await?;
    }
    Ok(())
}

/// Lets the shared payloads go for which nobody waits any more.
async fn prune_payloads(session: &mut Session<'_>) -> Result<(), StoreError> {
    let sql = "DELETE FROM outbox_payloads
         WHERE NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.payload_number = outbox_payloads.number)";
    session.execute(sql, values![]).await?;
    Ok(())
}

/// The beginning of a text that is kept, without what a database cannot keep.
fn cut(detail: &str) -> String {
    let detail = detail.replace('\0', " ");
    detail[..detail.floor_char_boundary(DETAIL_BYTES_MAX)].to_owned()
}

/// Lets those go that are over [`OUTBOX_ENDED_MAX`], the oldest first.
pub(crate) async fn prune_ended(session: &mut Session<'_>) -> Result<(), StoreError> {
    let sql = "DELETE FROM outbox WHERE id IN (
             SELECT id FROM outbox WHERE fate <> 'waiting' ORDER BY ended_at_ms, id
             LIMIT (SELECT CASE WHEN count(*) > $1 THEN count(*) - $1 ELSE 0 END FROM outbox WHERE fate <> 'waiting'))";
    session.execute(sql, values![OUTBOX_ENDED_MAX]).await?;
    Ok(())
}

/// What waits and a condition names, in its order, until there are enough bytes of it: lengths are added up before a payload
/// is read. The first is there however long it is.
macro_rules! next {
    ($condition:literal, $limit:literal, $bytes:literal) => {
        concat!(
            "WITH next AS (
                 SELECT o.id, COALESCE(length(p.payload), length(o.payload)) AS bytes
                 FROM outbox o LEFT JOIN outbox_payloads p ON p.number = o.payload_number
                 WHERE o.fate = 'waiting' AND o.destination = $1 AND o.id > $2",
            $condition,
            " ORDER BY o.id LIMIT ",
            $limit,
            "), summed AS (SELECT id, bytes, sum(bytes) OVER (ORDER BY id) AS up_to FROM next)
             SELECT o.id, o.destination, o.subject, o.user_name, o.group_names, o.datatype, o.message_id, o.may_drop,
                 o.created_at_ms, o.attempts, o.next_at_ms, o.fate, o.ended_at_ms, o.detail,
                 COALESCE(p.payload, o.payload) AS payload, CAST(s.bytes AS BIGINT) AS bytes
             FROM summed s JOIN outbox o ON o.id = s.id LEFT JOIN outbox_payloads p ON p.number = o.payload_number
             WHERE s.up_to = s.bytes OR s.up_to <= ",
            $bytes,
            " ORDER BY o.id"
        )
    };
}

pub(crate) async fn next(
    session: &mut Session<'_>,
    destination: &Destination,
    after: u64,
    limit: u32,
) -> Result<Rows<OutboxRow>, StoreError> {
    let (limit, bytes) = (limit.min(OUTBOX_NEXT_MAX), OUTBOX_NEXT_BYTES_MAX as u64);
    let rows = session.fetch(next!("", "$3 + 0", "$4"), values![destination.name(), after, limit, bytes]).await?;
    Ok(Rows::read("outbox", &rows, read_row))
}

/// The same of one subject only.
pub(crate) async fn next_of(
    session: &mut Session<'_>,
    destination: &Destination,
    subject: &str,
    after: u64,
    limit: u32,
) -> Result<Rows<OutboxRow>, StoreError> {
    let (limit, bytes) = (limit.min(OUTBOX_NEXT_MAX), OUTBOX_NEXT_BYTES_MAX as u64);
    let sql = next!(" AND o.subject = $3", "$4 + 0", "$5");
    let rows = session.fetch(sql, values![destination.name(), after, subject, limit, bytes]).await?;
    Ok(Rows::read("outbox", &rows, read_row))
}

pub(crate) async fn totals(session: &mut Session<'_>) -> Result<Rows<OutboxTotal>, StoreError> {
    let sql = "SELECT o.destination, t.waiting, o.created_at_ms, o.attempts, o.next_at_ms
         FROM (SELECT count(*) AS waiting, min(id) AS first FROM outbox WHERE fate = 'waiting' GROUP BY destination) t
         JOIN outbox o ON o.id = t.first ORDER BY o.id LIMIT $1 + 0";
    // The bus and everybody who may have a relation to us.
    let rows = session.fetch(sql, values![RELATIONS_MAX + 1]).await?;
    Ok(Rows::read("outbox", &rows, |row| {
        Some(OutboxTotal {
            destination: Destination::named(row.text("destination")?)?,
            waiting: row.count_wide("waiting")?,
            oldest: row.time("created_at_ms")?,
            attempts: row.count("attempts")?,
            next_at: row.time_or_none("next_at_ms")?,
        })
    }))
}

/// Without payloads: a thousand of them would not fit into a small machine.
macro_rules! listed {
    ($empty:literal) => {
        concat!(
            "SELECT id, destination, subject, user_name, group_names, datatype, message_id, may_drop, created_at_ms,
                 attempts, next_at_ms, fate, ended_at_ms, detail, ",
            $empty,
            " AS payload, CAST(COALESCE((SELECT length(p.payload) FROM outbox_payloads p WHERE p.number = payload_number),
                 length(payload)) AS BIGINT) AS bytes
             FROM outbox WHERE id < $1 AND ($2 = '' OR destination = $2 OR destination = $5) AND ($3 = '' OR fate = $3)
             ORDER BY id DESC LIMIT $4 + 0"
        )
    };
}

pub(crate) async fn list(session: &mut Session<'_>, filter: &OutboxFilter) -> Result<Rows<OutboxRow>, StoreError> {
    let sql = Sql { sqlite: listed!("x''"), postgres: listed!("''::bytea") };
    let before = filter.before.unwrap_or(u64::MAX);
    let destination = filter.destination.map_or(String::new(), |destination| destination.name());
    let plan = match filter.destination {
        Some(Destination::Peer(peer)) => Destination::Plan(peer).name(),
        _ => destination.clone(),
    };
    let fate = filter.fate.map_or("", Fate::name);
    let limit = filter.limit.min(OUTBOX_READ_MAX);
    let rows = session.fetch(sql, values![before, destination, fate, limit, plan]).await?;
    Ok(Rows::read("outbox", &rows, read_row))
}

pub(crate) async fn expire(
    database: &Database,
    before: Timestamp,
    at: Timestamp,
    at_most: u32,
) -> Result<u64, StoreError> {
    let mut turn = database.turn(true).await?;
    let outcome = expire_all(&mut turn.session(), before, at, at_most).await;
    turn.end(outcome).await
}

async fn expire_all(
    session: &mut Session<'_>,
    before: Timestamp,
    at: Timestamp,
    at_most: u32,
) -> Result<u64, StoreError> {
    let sql = Sql {
        sqlite:
            "UPDATE outbox SET fate = 'expired', ended_at_ms = $1, payload = x'', payload_number = NULL WHERE id IN (
             SELECT id FROM outbox WHERE fate = 'waiting' AND created_at_ms < $2 AND destination <> $3
             ORDER BY created_at_ms, id LIMIT $4 + 0)",
        postgres:
            "UPDATE outbox SET fate = 'expired', ended_at_ms = $1, payload = '', payload_number = NULL WHERE id IN (
             SELECT id FROM outbox WHERE fate = 'waiting' AND created_at_ms < $2 AND destination <> $3
             ORDER BY created_at_ms, id LIMIT $4 + 0)",
    };
    let expired = session.execute(sql, values![at, before, BUS, at_most]).await?;
    if expired > 0 {
        prune_payloads(session).await?;
        prune_ended(session).await?;
    }
    Ok(expired)
}

pub(crate) async fn forget(database: &Database, before: Timestamp, at_most: u32) -> Result<u64, StoreError> {
    let mut turn = database.turn(false).await?;
    let sql = "DELETE FROM outbox WHERE id IN (
             SELECT id FROM outbox WHERE fate <> 'waiting' AND ended_at_ms < $1 ORDER BY ended_at_ms, id LIMIT $2 + 0)";
    let outcome = turn.session().execute(sql, values![before, at_most]).await;
    turn.end(outcome).await
}

/// Makes room for `wanted` messages, if it can be made, and tells whether it is there.
pub(crate) async fn has_room(
    session: &mut Session<'_>,
    waiting: &mut u64,
    wanted: u64,
    settings: &Settings,
    at: Timestamp,
) -> Result<bool, StoreError> {
    let over = (*waiting + wanted).saturating_sub(settings.outbox_max.into());
    if over > 0 {
        let dropped = make_room(session, over, at).await?;
        *waiting = waiting.saturating_sub(dropped);
        if dropped > 0 {
            prune_ended(session).await?;
        }
    }
    Ok(*waiting + wanted <= u64::from(settings.outbox_max))
}

fn read_row(row: &Row) -> Option<OutboxRow> {
    Some(OutboxRow {
        id: row.count_wide("id")?,
        outgoing: Outgoing {
            destination: Destination::named(row.text("destination")?)?,
            subject: row.text("subject")?.to_owned(),
            user: row.text("user_name")?.to_owned(),
            groups: serde_json::from_str::<Vec<String>>(row.text("group_names")?).ok()?.into(),
            datatype: row.text("datatype")?.to_owned(),
            payload: row.bytes("payload")?.into(),
            message_id: row.text("message_id")?.to_owned(),
            may_drop: row.flag("may_drop")?,
        },
        bytes: row.count_wide("bytes")?,
        created_at: row.time("created_at_ms")?,
        attempts: row.count("attempts")?,
        next_at: row.time_or_none("next_at_ms")?,
        fate: Fate::named(row.text("fate")?)?,
        ended_at: row.time_or_none("ended_at_ms")?,
        detail: row.text("detail")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        Change, Changed, Store, Write,
        testing::{at, meddle, number, on_both, outgoing, peer},
    };

    async fn send(store: &Store, secs: i64, outbox: Vec<Outgoing>) -> Changed {
        let change =
            Change { receipt: None, catalogue: None, told: None, relation: None, plan: None, outbox, at: at(secs) };
        store.change(&[change]).await.unwrap().remove(0)
    }

    async fn waiting(store: &Store, destination: Destination) -> Vec<String> {
        let rows = store.outbox_next(&destination, 0, 100).await.unwrap();
        assert_eq!(rows.skipped, 0);
        rows.rows.into_iter().map(|row| row.outgoing.message_id).collect()
    }

    async fn all(store: &Store, fate: Option<Fate>) -> Vec<OutboxRow> {
        store.outbox(&OutboxFilter { fate, limit: 1_000, ..OutboxFilter::default() }).await.unwrap().rows
    }

    fn droppable(id: &str) -> Outgoing {
        Outgoing { may_drop: true, ..outgoing(Destination::Bus, id, 1) }
    }

    fn ended(id: u64, fate: Fate, secs: i64) -> Write {
        Write::OutboxEnded { id, fate, at: at(secs), detail: format!("{fate:?}") }
    }

    /// Of all payloads on the disk.
    async fn payload_bytes(store: &Store) -> i64 {
        let sql = "SELECT CAST(COALESCE(sum(n), 0) AS BIGINT) AS n FROM (
                 SELECT length(payload) AS n FROM outbox UNION ALL SELECT length(payload) FROM outbox_payloads) AS all_of";
        number(store, sql).await
    }

    macro_rules! many {
        ($empty:literal) => {
            concat!(
                "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10000)
                 INSERT INTO outbox (destination, subject, user_name, group_names, datatype, message_id, may_drop,
                     created_at_ms, attempts, fate, ended_at_ms, detail, payload)
                 SELECT 'bus', 'create', '', '[]', '', 'm', 0, 0, 0, 'delivered', n, '', ",
                $empty,
                " FROM n"
            )
        };
    }

    on_both! {
        async fn p9_what_waits_survives_a_restart_in_its_order(place) {
            let two = Destination::Peer(peer(2));
            let store = place.open().await;
            let messages =
                [outgoing(Destination::Bus, "a", 3), outgoing(two, "b", PAYLOAD_BYTES_MAX), outgoing(two, "c", 0)];
            assert_eq!(send(&store, 5, messages.to_vec()).await, Changed::Done);
            store.close().await;
            let store = place.open().await;
            assert_eq!(waiting(&store, Destination::Bus).await, ["a"]);
            let rows = store.outbox_next(&two, 0, 10).await.unwrap().rows;
            let sent: Vec<&Outgoing> = rows.iter().map(|row| &row.outgoing).collect();
            assert_eq!(sent, [&messages[1], &messages[2]]);
            let first = &rows[0];
            assert_eq!((first.created_at, first.attempts, first.next_at), (at(5), 0, None));
            assert_eq!((first.fate, first.ended_at, first.detail.as_str()), (Fate::Waiting, None, ""));
            assert_eq!(store.outbox_next(&two, first.id, 10).await.unwrap().rows, rows[1..]);
            assert_eq!(store.outbox_next(&two, 0, 1).await.unwrap().rows, rows[..1]);
            assert_eq!(store.outbox_next(&Destination::Peer(peer(3)), 0, 1).await.unwrap().rows, []);
        }

        async fn a_fate_is_kept_and_the_payload_is_not(place) {
            let store = place.open().await;
            let message = outgoing(Destination::Peer(peer(2)), "a", 100);
            send(&store, 5, vec![message.clone()]).await;
            send(&store, 5, vec![message.clone()]).await;
            let id = all(&store, None).await[0].id;
            let long = "é".repeat(DETAIL_BYTES_MAX);
            let tried =
                |attempts| Write::OutboxTried { id, attempts, next_at: Some(at(9)), detail: format!("\0{long}") };
            store.apply(&[tried(1), tried(2), tried(2)]).await.unwrap();
            let row = all(&store, None).await.remove(0);
            assert_eq!((row.attempts, row.next_at, row.fate), (2, Some(at(9)), Fate::Waiting));
            assert_eq!((row.detail.len(), row.detail.starts_with(" éé")), (DETAIL_BYTES_MAX - 1, true));
            assert_eq!(row.outgoing, Outgoing { payload: Arc::default(), ..message.clone() }, "a list has no payloads");
            // Only the first end counts, and to wait is none.
            let writes =
                [ended(id, Fate::Waiting, 6), ended(id, Fate::Delivered, 7), ended(id, Fate::Refused, 8), tried(3)];
            store.apply(&writes).await.unwrap();
            store.close().await;
            let store = place.open().await;
            let row = all(&store, Some(Fate::Delivered)).await.remove(0);
            assert_eq!((row.id, row.attempts, row.ended_at), (id, 2, Some(at(7))));
            assert_eq!(row.detail, "Delivered");
            assert_eq!(all(&store, Some(Fate::Waiting)).await.len(), 1);
            assert_eq!(payload_bytes(&store).await, 100);
        }

        async fn what_many_share_is_kept_once_until_the_last_has_it(place) {
            let store = place.open().await;
            let shared = |n: u32, message: &Outgoing| {
                let destination = Destination::Peer(peer(n));
                Outgoing { destination, message_id: n.to_string(), ..message.clone() }
            };
            let (long, short) = (outgoing(Destination::Bus, "a", 1_000), outgoing(Destination::Bus, "b", 10));
            let outbox = (0..50).flat_map(|n| [shared(n, &long), shared(n, &short)]).chain([long.clone()]).collect();
            send(&store, 5, outbox).await;
            assert_eq!(payload_bytes(&store).await, 1_010);
            for n in 0..50 {
                let rows = store.outbox_next(&Destination::Peer(peer(n)), 0, 10).await.unwrap().rows;
                assert_eq!(rows.iter().map(|row| row.outgoing.payload.len()).collect::<Vec<_>>(), [1_000, 10]);
                assert_eq!(rows[0].outgoing, shared(n, &long));
                let writes: Vec<Write> = rows.iter().map(|row| ended(row.id, Fate::Delivered, 6)).collect();
                store.apply(&writes).await.unwrap();
                store.apply(&writes).await.unwrap();
            }
            assert_eq!(payload_bytes(&store).await, 1_000, "one waits still");
            let last = store.outbox_next(&Destination::Bus, 0, 10).await.unwrap().rows.remove(0);
            store.apply(&[ended(last.id, Fate::Refused, 7)]).await.unwrap();
            assert_eq!(payload_bytes(&store).await, 0);
            // The same for those that are given up, and that make room.
            send(&store, 5, vec![shared(1, &long), shared(2, &long)]).await;
            send(&store, 5, vec![shared(1, &short), shared(2, &short)]).await;
            assert_eq!(store.expire_outbox(at(6), at(7), 3).await.unwrap(), 3);
            assert_eq!(payload_bytes(&store).await, 10);
            assert_eq!(store.expire_outbox(at(6), at(7), 3).await.unwrap(), 1);
            assert_eq!(payload_bytes(&store).await, 0);
            let settings = Settings { outbox_max: 2, ..Settings::default() };
            store.close().await;
            let store = place.open_with(&settings).await;
            let result = Outgoing { may_drop: true, ..long.clone() };
            send(&store, 8, vec![result.clone(), result]).await;
            assert_eq!(send(&store, 9, vec![short.clone(), short.clone()]).await, Changed::Done);
            assert_eq!(payload_bytes(&store).await, 10);
        }

        async fn p8_an_answer_has_so_many_bytes_and_no_more(place) {
            let store = place.open().await;
            let two = Destination::Peer(peer(2));
            let half = OUTBOX_NEXT_BYTES_MAX / 2;
            let lengths = async |after| {
                let rows = store.outbox_next(&two, after, 10).await.unwrap().rows;
                let lengths: Vec<usize> = rows.iter().map(|row| row.outgoing.payload.len()).collect();
                (rows.last().map_or(0, |row| row.id), lengths)
            };
            let outbox = [half, half, 0, 1, half, PAYLOAD_BYTES_MAX].map(|bytes| outgoing(two, "a", bytes));
            send(&store, 5, outbox.to_vec()).await;
            let (after, first) = lengths(0).await;
            assert_eq!(first, [half, half, 0], "at the bound");
            let (after, next) = lengths(after).await;
            assert_eq!(next, [1, half], "one past it waits");
            let (_, last) = lengths(after).await;
            assert_eq!(last, [PAYLOAD_BYTES_MAX]);
            // A shared payload counts for each that has it: so it is in memory.
            let shared = outgoing(Destination::Bus, "a", half + 1);
            send(&store, 6, vec![shared.clone(), shared]).await;
            assert_eq!(store.outbox_next(&Destination::Bus, 0, 10).await.unwrap().rows.len(), 1);
        }

        async fn subjects_of_one_destination_can_be_read_apart(place) {
            let store = place.open().await;
            let of = |subject: &str, id: &str| {
                Outgoing { subject: subject.to_owned(), ..outgoing(Destination::Bus, id, 1) }
            };
            send(&store, 5, vec![of("a", "1"), of("b", "2"), of("a", "3"), of("b", "4")]).await;
            let ids = async |subject: &str, after, limit| {
                let rows = store.outbox_next_of(&Destination::Bus, subject, after, limit).await.unwrap().rows;
                rows.into_iter().map(|row| row.outgoing.message_id).collect::<Vec<_>>()
            };
            assert_eq!(ids("a", 0, 10).await, ["1", "3"]);
            assert_eq!(ids("b", 2, 10).await, ["4"]);
            assert_eq!(ids("b", 0, 1).await, ["2"]);
            assert_eq!(ids("c", 0, 10).await, Vec::<String>::new());
        }

        async fn who_waits_for_whom_is_told_per_destination(place) {
            let store = place.open().await;
            assert_eq!(store.outbox_waiting().await.unwrap().rows, []);
            let two = Destination::Peer(peer(2));
            send(&store, 5, vec![outgoing(two, "a", 1), outgoing(Destination::Bus, "b", 1)]).await;
            send(&store, 6, vec![outgoing(two, "c", 1)]).await;
            let id = all(&store, None).await.last().unwrap().id;
            store
                .apply(&[Write::OutboxTried { id, attempts: 4, next_at: Some(at(60)), detail: String::new() }])
                .await
                .unwrap();
            let of_two =
                OutboxTotal { destination: two, waiting: 2, oldest: at(5), attempts: 4, next_at: Some(at(60)) };
            let of_bus =
                OutboxTotal { destination: Destination::Bus, waiting: 1, oldest: at(5), attempts: 0, next_at: None };
            assert_eq!(store.outbox_waiting().await.unwrap().rows, [of_two, of_bus.clone()]);
            assert_eq!(store.expire_outbox(at(6), at(7), 10).await.unwrap(), 1);
            store.apply(&[ended(3, Fate::Refused, 8)]).await.unwrap();
            assert_eq!(store.outbox_waiting().await.unwrap().rows, [of_bus]);
        }

        async fn a_list_is_the_newest_first_in_pages(place) {
            let store = place.open().await;
            let two = Destination::Peer(peer(2));
            let messages = (0..6).map(|n| outgoing(if n % 2 == 0 { two } else { Destination::Bus }, &n.to_string(), 1));
            send(&store, 5, messages.collect()).await;
            let page = async |destination, before, limit| {
                let filter = OutboxFilter { destination, fate: Some(Fate::Waiting), before, limit };
                let rows = store.outbox(&filter).await.unwrap().rows;
                rows.iter().map(|row| (row.id, row.outgoing.message_id.clone())).collect::<Vec<_>>()
            };
            let first = page(None, None, 4).await;
            assert_eq!(first.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>(), ["5", "4", "3", "2"]);
            let next = page(None, Some(first[3].0), 4).await;
            assert_eq!(next.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>(), ["1", "0"]);
            let of_two = page(Some(two), None, 10).await;
            assert_eq!(of_two.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>(), ["4", "2", "0"]);
        }

        async fn a_list_tells_how_many_bytes_wait_and_holds_none_of_them(place) {
            let store = place.open().await;
            let shared = Outgoing { payload: vec![7; 30].into(), ..outgoing(Destination::Bus, "shared", 1) };
            send(&store, 5, vec![outgoing(Destination::Bus, "own", 10), shared.clone(), shared]).await;
            let listed = async || {
                let rows = store.outbox(&OutboxFilter { limit: 9, ..OutboxFilter::default() }).await.unwrap().rows;
                assert!(rows.iter().all(|row| row.outgoing.payload.is_empty()));
                rows.iter().map(|row| row.bytes).collect::<Vec<_>>()
            };
            assert_eq!(listed().await, [30, 30, 10]);
            let next = store.outbox_next(&Destination::Bus, 0, 9).await.unwrap().rows;
            assert_eq!(next.iter().map(|row| row.bytes).collect::<Vec<_>>(), [10, 30, 30]);
            store.apply(&[ended(next[1].id, Fate::Delivered, 6)]).await.unwrap();
            assert_eq!(listed().await, [30, 0, 10]);
        }

        async fn what_waits_too_long_for_a_peer_expires_and_for_the_bus_never(place) {
            let store = place.open().await;
            let two = Destination::Peer(peer(2));
            for secs in 1..=4 {
                send(&store, secs, vec![outgoing(two, &secs.to_string(), 9), outgoing(Destination::Bus, "b", 9)]).await;
            }
            assert_eq!(store.expire_outbox(at(4), at(9), 2).await.unwrap(), 2);
            assert_eq!(waiting(&store, two).await, ["3", "4"]);
            assert_eq!(store.expire_outbox(at(4), at(9), 2).await.unwrap(), 1);
            assert_eq!(store.expire_outbox(at(4), at(9), 2).await.unwrap(), 0);
            assert_eq!((waiting(&store, two).await.len(), waiting(&store, Destination::Bus).await.len()), (1, 4));
            let expired = all(&store, Some(Fate::Expired)).await;
            assert!(expired.iter().all(|row| row.ended_at == Some(at(9))), "{expired:?}");
            // Fates are forgotten, what waits is not, and an id is never used again.
            let last = all(&store, None).await[0].id;
            assert_eq!(store.forget_outbox(at(9), 10).await.unwrap(), 0);
            assert_eq!(store.forget_outbox(at(10), 2).await.unwrap(), 2);
            assert_eq!(store.forget_outbox(at(10), 2).await.unwrap(), 1);
            store.apply(&[ended(last, Fate::Delivered, 11), ended(last - 1, Fate::Delivered, 11)]).await.unwrap();
            assert_eq!(store.forget_outbox(at(12), 9).await.unwrap(), 2);
            send(&store, 20, vec![outgoing(two, "new", 1)]).await;
            assert!(all(&store, None).await[0].id > last);
        }

        async fn at_the_bound_search_results_make_room_and_nothing_else_does(place) {
            let settings = Settings { outbox_max: 3, ..Settings::default() };
            let store = place.open_with(&settings).await;
            let full = Changed::Refused(Refusal::Full { table: "outbox", max: 3 });
            let event = |id: &str| outgoing(Destination::Bus, id, 1);
            assert_eq!(send(&store, 1, vec![event("a"), droppable("b"), droppable("c")]).await, Changed::Done);
            assert_eq!(send(&store, 2, vec![event("d")]).await, Changed::Done);
            assert_eq!(waiting(&store, Destination::Bus).await, ["a", "c", "d"]);
            let dropped = all(&store, Some(Fate::Dropped)).await.remove(0);
            assert_eq!((dropped.outgoing.message_id.as_str(), dropped.ended_at), ("b", Some(at(2))));
            assert_eq!(send(&store, 3, vec![droppable("e")]).await, Changed::Done, "the older result makes room");
            // Where the results are too few nothing is dropped for nothing.
            assert_eq!(send(&store, 4, vec![event("f"), event("g")]).await, full);
            assert_eq!(waiting(&store, Destination::Bus).await, ["a", "d", "e"]);
            assert_eq!(send(&store, 5, vec![event("f")]).await, Changed::Done);
            assert_eq!(send(&store, 6, vec![event("g")]).await, full);
            assert_eq!(send(&store, 6, vec![droppable("g")]).await, full);
            let id = all(&store, Some(Fate::Waiting)).await[0].id;
            store.apply(&[ended(id, Fate::Delivered, 7)]).await.unwrap();
            assert_eq!(send(&store, 8, vec![event("g")]).await, Changed::Done);
        }

        async fn one_source_fills_its_part_and_takes_nothing_from_others(place) {
            let settings = Settings { outbox_max: 32, ..Settings::default() };
            let store = place.open_with(&settings).await;
            let told = async |source: &str, id: u32, to| {
                let receipt = Some(crate::Receipt { source: source.to_owned(), id: id.to_string() });
                let outbox = vec![outgoing(to, &id.to_string(), 1)];
                let change =
                    Change { receipt, catalogue: None, told: None, relation: None, plan: None, outbox, at: at(id.into()) };
                store.change(&[change]).await.unwrap().remove(0)
            };
            let full = |table, max| Changed::Refused(Refusal::Full { table, max });
            for id in 0..4 {
                assert_eq!(told("peer:a", id, Destination::Bus).await, Changed::Done);
            }
            let of_one = full("outbox of one source", 4);
            assert_eq!(told("peer:a", 4, Destination::Bus).await, of_one);
            assert_eq!(told("peer:a", 5, Destination::Peer(peer(2))).await, Changed::Done, "only what is for the bus");
            for source in ["peer:b", "peer:c", "peer:d"] {
                for id in 0..4 {
                    assert_eq!(told(source, id, Destination::Bus).await, Changed::Done);
                }
            }
            // Half of it is there for what our own applications change, however many others there are.
            let refused = told("peer:e", 0, Destination::Bus).await;
            assert_eq!(refused, full("outbox of all sources", 16));
            let Changed::Refused(refusal) = refused else { panic!("{refused:?}") };
            assert!(refusal.is_for_now());
            for id in 0..15 {
                assert_eq!(send(&store, 9, vec![outgoing(Destination::Bus, &format!("own {id}"), 1)]).await, Changed::Done);
            }
            assert_eq!(send(&store, 9, vec![outgoing(Destination::Bus, "over", 1)]).await, full("outbox", 32));
            // What is told makes room again, for the event that was refused, too.
            let rows = store.outbox_next(&Destination::Bus, 0, 1).await.unwrap().rows;
            store.apply(&[ended(rows[0].id, Fate::Delivered, 10)]).await.unwrap();
            assert_eq!(told("peer:a", 4, Destination::Bus).await, Changed::Done);
        }

        async fn fates_are_kept_up_to_a_bound(place) {
            let store = place.open().await;
            meddle(&store, MANY).await;
            send(&store, 100, vec![outgoing(Destination::Bus, "a", 1), outgoing(Destination::Bus, "b", 1)]).await;
            let ended_rows = "SELECT count(*) AS n FROM outbox WHERE fate <> 'waiting'";
            assert_eq!(number(&store, ended_rows).await, i64::from(OUTBOX_ENDED_MAX));
            let oldest = "SELECT min(ended_at_ms) AS n FROM outbox";
            assert_eq!(number(&store, oldest).await, 1);
            let id = all(&store, Some(Fate::Waiting)).await[0].id;
            store.apply(&[ended(id, Fate::Delivered, 200)]).await.unwrap();
            assert_eq!(number(&store, ended_rows).await, i64::from(OUTBOX_ENDED_MAX));
            assert_eq!(number(&store, oldest).await, 2, "the oldest left");
            assert_eq!(all(&store, Some(Fate::Waiting)).await.len(), 1);
        }

        async fn a_message_over_a_bound_is_refused(place) {
            let store = place.open().await;
            let base = || outgoing(Destination::Bus, "a", 1);
            let text = |bytes: usize| "t".repeat(bytes);
            let pairs = [
                (
                    Outgoing { subject: text(SUBJECT_BYTES_MAX), ..base() },
                    Outgoing { subject: text(SUBJECT_BYTES_MAX + 1), ..base() },
                ),
                (
                    Outgoing { user: text(TEXT_BYTES_MAX), ..base() },
                    Outgoing { user: text(TEXT_BYTES_MAX + 1), ..base() },
                ),
                (
                    Outgoing { groups: vec![text(TEXT_BYTES_MAX); GROUPS_MAX].into(), ..base() },
                    Outgoing { groups: vec![text(1); GROUPS_MAX + 1].into(), ..base() },
                ),
                (Outgoing { groups: [].into(), ..base() }, Outgoing { groups: [text(TEXT_BYTES_MAX + 1)].into(), ..base() }),
                (
                    Outgoing { datatype: text(TEXT_BYTES_MAX), ..base() },
                    Outgoing { datatype: text(TEXT_BYTES_MAX + 1), ..base() },
                ),
                (
                    Outgoing { payload: vec![0; PAYLOAD_BYTES_MAX].into(), ..base() },
                    Outgoing { payload: vec![0; PAYLOAD_BYTES_MAX + 1].into(), ..base() },
                ),
                (
                    Outgoing { message_id: text(MESSAGE_ID_BYTES_MAX), ..base() },
                    Outgoing { message_id: text(MESSAGE_ID_BYTES_MAX + 1), ..base() },
                ),
                (Outgoing { user: String::new(), ..base() }, Outgoing { message_id: String::new(), ..base() }),
                (Outgoing { datatype: String::new(), ..base() }, Outgoing { subject: String::new(), ..base() }),
                (base(), Outgoing { user: "a\0b".to_owned(), ..base() }),
            ];
            let count = pairs.len();
            for (taken, refused) in pairs {
                assert_eq!(send(&store, 1, vec![taken]).await, Changed::Done);
                let outcome = send(&store, 1, vec![base(), refused]).await;
                assert!(matches!(outcome, Changed::Refused(_)), "{outcome:?}");
            }
            assert_eq!(all(&store, None).await.len(), count);
        }

        async fn an_answer_is_bounded(place) {
            let store = place.open().await;
            meddle(&store, MANY).await;
            meddle(&store, "UPDATE outbox SET fate = 'waiting', ended_at_ms = NULL").await;
            let filter = OutboxFilter { limit: u32::MAX, ..OutboxFilter::default() };
            assert_eq!(store.outbox(&filter).await.unwrap().rows.len(), OUTBOX_READ_MAX as usize);
            let rows = store.outbox_next(&Destination::Bus, 0, u32::MAX).await.unwrap().rows;
            assert_eq!(rows.len(), OUTBOX_NEXT_MAX as usize);
        }

        async fn a_message_that_makes_no_sense_is_left_out_and_counted(place) {
            let store = place.open().await;
            send(&store, 1, vec![outgoing(Destination::Bus, "a", 1), outgoing(Destination::Bus, "b", 1)]).await;
            meddle(&store, "UPDATE outbox SET group_names = 'ops' WHERE message_id = 'a'").await;
            let rows = store.outbox_next(&Destination::Bus, 0, 10).await.unwrap();
            assert_eq!((rows.rows.len(), rows.skipped), (1, 1));
        }
    }

    /// As many fates as are kept, the `n`th of the `n`th millisecond.
    const MANY: Sql = Sql { sqlite: many!("x''"), postgres: many!("''") };

    #[test]
    fn each_fate_is_found_by_its_name() {
        for fate in Fate::ALL {
            assert_eq!(Fate::named(fate.name()), Some(fate));
        }
        assert_eq!(Fate::named("lost"), None);
    }
}
