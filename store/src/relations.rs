//! What peers are to us: the word of the operator and the applications, which a restart must not forget.

use protocol::{PeerId, Timestamp, relation::Relation};

use crate::{
    Rows, StoreError, TEXT_BYTES_MAX,
    session::{Row, Session, values},
    write::{Refusal, check_length_max},
};

/// Peers that may have a relation to us: as many as a federation of ten thousand organisations has.
pub const RELATIONS_MAX: u32 = 10_000;

/// What a peer is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationRow {
    /// Who.
    pub peer: PeerId,
    /// What it is to us; [`Relation::None`] is not kept.
    pub relation: Relation,
    /// What it is called by whoever named it, may be empty; at most [`TEXT_BYTES_MAX`] bytes.
    pub name: String,
    /// Somebody checked that this is the organisation that it says to be.
    pub verified: bool,
    /// When its relation was last set, to the millisecond.
    pub changed_at: Timestamp,
}

pub(crate) async fn write(session: &mut Session<'_>, row: &RelationRow) -> Result<Result<(), Refusal>, StoreError> {
    if let Err(refusal) = check_length_max("name", &row.name, TEXT_BYTES_MAX) {
        return Ok(Err(refusal));
    }
    if row.relation == Relation::None {
        session.execute("DELETE FROM relations WHERE peer_id = $1", values![&row.peer]).await?;
        return Ok(Ok(()));
    }
    let sql = "INSERT INTO relations (peer_id, relation, name, verified, changed_at_ms)
         SELECT $1, $2, $3, $4, $5 WHERE EXISTS (SELECT 1 FROM relations WHERE peer_id = $1)
             OR (SELECT count(*) FROM relations) < $6
         ON CONFLICT (peer_id) DO UPDATE SET
             relation = excluded.relation, name = excluded.name, verified = excluded.verified,
             changed_at_ms = excluded.changed_at_ms";
    let values = values![&row.peer, row.relation.name(), &row.name, row.verified, row.changed_at, RELATIONS_MAX];
    let is_written = session.execute(sql, values).await? > 0;
    Ok(if is_written { Ok(()) } else { Err(Refusal::Full { table: "relations", max: RELATIONS_MAX }) })
}

pub(crate) async fn read_all(session: &mut Session<'_>) -> Result<Rows<RelationRow>, StoreError> {
    let sql = "SELECT peer_id, relation, name, verified, changed_at_ms FROM relations ORDER BY peer_id LIMIT $1";
    let rows = session.fetch(sql, values![RELATIONS_MAX]).await?;
    Ok(Rows::read("relations", &rows, read_row))
}

fn read_row(row: &Row) -> Option<RelationRow> {
    Some(RelationRow {
        peer: row.peer("peer_id")?,
        relation: Relation::named(row.text("relation")?)?,
        name: row.text("name")?.to_owned(),
        verified: row.flag("verified")?,
        changed_at: row.time("changed_at_ms")?,
    })
}
