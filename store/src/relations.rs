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
    let sql = "SELECT peer_id, relation, name, verified, changed_at_ms FROM relations ORDER BY peer_id LIMIT $1 + 0";
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        Write,
        testing::{at, meddle, on_both, peer},
    };

    fn row(n: u32, relation: Relation) -> Write {
        Write::Relation(RelationRow {
            peer: peer(n),
            relation,
            name: format!("organisation {n}"),
            verified: n.is_multiple_of(2),
            changed_at: at(n.into()),
        })
    }

    on_both! {
        async fn p6_a_relation_survives_a_restart_until_it_is_taken_back(place) {
            let store = place.open().await;
            let writes = [row(2, Relation::Blacklist), row(1, Relation::Partner), row(3, Relation::None)];
            assert_eq!(store.apply(&writes).await.unwrap().written, 3);
            store.close().await;
            let store = place.open().await;
            let held: Vec<Write> = store.relations().await.unwrap().rows.into_iter().map(Write::Relation).collect();
            assert_eq!(held, [row(1, Relation::Partner), row(2, Relation::Blacklist)]);
            store.apply(&[row(1, Relation::Known), row(2, Relation::None)]).await.unwrap();
            let held: Vec<Write> = store.relations().await.unwrap().rows.into_iter().map(Write::Relation).collect();
            assert_eq!(held, [row(1, Relation::Known)]);
        }

        async fn relations_are_bounded_and_those_held_can_change(place) {
            let store = place.open().await;
            meddle(&store, MANY).await;
            let applied = store.apply(&[row(1, Relation::Known), row(2, Relation::Known)]).await.unwrap();
            assert_eq!(applied.refused[0].index, 1);
            assert_eq!(applied.refused[0].why, Refusal::Full { table: "relations", max: RELATIONS_MAX });
            assert_eq!(store.apply(&[row(1, Relation::Partner)]).await.unwrap().refused, []);
            let writes = [row(1, Relation::None), row(2, Relation::Known)];
            assert_eq!(store.apply(&writes).await.unwrap().refused, []);
            // What is called a peer there is none.
            let held = store.relations().await.unwrap();
            assert_eq!((held.rows.len(), held.skipped), (1, RELATIONS_MAX as usize - 1));
        }

        async fn a_name_is_bounded_and_has_no_nul(place) {
            let store = place.open().await;
            let named = |n: u32, name: String| match row(n, Relation::Known) {
                Write::Relation(row) => Write::Relation(RelationRow { name, ..row }),
                other => other,
            };
            let writes = [
                named(1, "n".repeat(TEXT_BYTES_MAX)),
                named(2, "n".repeat(TEXT_BYTES_MAX + 1)),
                named(3, "a\0b".to_owned()),
            ];
            let applied = store.apply(&writes).await.unwrap();
            assert_eq!(applied.written, 1);
            assert_eq!(applied.refused[1].why, Refusal::Nul { field: "name" });
        }
    }

    /// One less than there is room for.
    const MANY: &str = "WITH RECURSIVE n (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n < 10000)
         INSERT INTO relations (peer_id, relation, name, verified, changed_at_ms)
         SELECT 'nobody ' || n, 'known', '', 0, 0 FROM n";
}
