//! Who is banned from what, over every restart; for a day after their end, too, because they make the next one longer.

use protocol::{
    PeerId, Timestamp,
    bans::{BANS_MAX, Ban, Origin, REASON_BYTES_MAX},
    behaviour::Scope,
};

use crate::{
    Rows, StoreError,
    repository::{Database, Repository as _},
    session::{Row, Session, values},
    write::{Refusal, check_length_max},
};

/// Bans kept: as many as may be in force, and as many again that are over and not yet forgiven.
pub const BANS_KEPT_MAX: u32 = 2 * BANS_MAX as u32;

/// Sets the ban of this peer and scope. At the bound one that is over makes room, and a ban in force never.
pub(crate) async fn write(session: &mut Session<'_>, ban: &Ban) -> Result<Result<(), Refusal>, StoreError> {
    if let Err(refusal) = check_length_max("reason", &ban.reason, REASON_BYTES_MAX) {
        return Ok(Err(refusal));
    }
    make_room(session, ban.since).await?;
    let sql = "INSERT INTO bans (peer_id, scope, since_ms, until_ms, offences, by_rule, reason)
         SELECT $1, $2, $3, $4, $5, $6, $7 WHERE EXISTS (SELECT 1 FROM bans WHERE peer_id = $1 AND scope = $2)
             OR (SELECT count(*) FROM bans) < $8
         ON CONFLICT (peer_id, scope) DO UPDATE SET
             since_ms = excluded.since_ms, until_ms = excluded.until_ms, offences = excluded.offences,
             by_rule = excluded.by_rule, reason = excluded.reason";
    let is_rules = ban.origin == Origin::Rule;
    let values =
        values![&ban.peer, ban.scope.name(), ban.since, ban.until, ban.offences, is_rules, &ban.reason, BANS_KEPT_MAX,];
    let is_written = session.execute(sql, values).await? > 0;
    Ok(if is_written { Ok(()) } else { Err(Refusal::Full { table: "bans", max: BANS_KEPT_MAX }) })
}

async fn make_room(session: &mut Session<'_>, now: Timestamp) -> Result<(), StoreError> {
    let sql = "DELETE FROM bans WHERE (SELECT count(*) FROM bans) >= $1 AND (peer_id, scope) IN (
             SELECT peer_id, scope FROM bans WHERE until_ms <= $2 ORDER BY until_ms LIMIT 1)";
    session.execute(sql, values![BANS_KEPT_MAX, now]).await?;
    Ok(())
}

pub(crate) async fn lift(session: &mut Session<'_>, peer: &PeerId) -> Result<(), StoreError> {
    session.execute("DELETE FROM bans WHERE peer_id = $1", values![peer]).await?;
    Ok(())
}

pub(crate) async fn forget(session: &mut Session<'_>, peer: &PeerId, scope: Scope) -> Result<(), StoreError> {
    session.execute("DELETE FROM bans WHERE peer_id = $1 AND scope = $2", values![peer, scope.name()]).await?;
    Ok(())
}

pub(crate) async fn read_all(session: &mut Session<'_>) -> Result<Rows<Ban>, StoreError> {
    let sql = "SELECT peer_id, scope, since_ms, until_ms, offences, by_rule, reason FROM bans
         ORDER BY peer_id, scope LIMIT $1 + 0";
    let rows = session.fetch(sql, values![BANS_KEPT_MAX]).await?;
    Ok(Rows::read("bans", &rows, read_row))
}

pub(crate) async fn forget_ended(database: &Database, before: Timestamp, at_most: u32) -> Result<u64, StoreError> {
    let mut turn = database.turn(false).await?;
    let sql = "DELETE FROM bans WHERE (peer_id, scope) IN (
             SELECT peer_id, scope FROM bans WHERE until_ms < $1 ORDER BY until_ms LIMIT $2 + 0)";
    let outcome = turn.session().execute(sql, values![before, at_most]).await;
    turn.end(outcome).await
}

fn read_row(row: &Row) -> Option<Ban> {
    Some(Ban {
        peer: row.peer("peer_id")?,
        scope: Scope::named(row.text("scope")?)?,
        since: row.time("since_ms")?,
        until: row.time_or_none("until_ms")?,
        offences: row.count("offences")?,
        origin: if row.flag("by_rule")? { Origin::Rule } else { Origin::Operator },
        reason: row.text("reason")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use protocol::behaviour::Kind;

    use super::*;
    use crate::{
        Store, Write,
        testing::{at, on_both, peer},
    };

    fn ban(n: u32, until: Option<i64>) -> Ban {
        Ban {
            peer: peer(n),
            scope: Scope::All,
            since: at(1),
            until: until.map(at),
            offences: n,
            origin: if until.is_some() { Origin::Rule } else { Origin::Operator },
            reason: format!("reason {n}"),
        }
    }

    async fn held(store: &Store) -> Vec<Ban> {
        store.bans().await.unwrap().rows
    }

    on_both! {
        async fn p6_bans_survive_a_restart_whole(place) {
            let store = place.open().await;
            let of_one_kind = Ban { scope: Scope::Kind(Kind::Search), ..ban(1, Some(600)) };
            let bans = [ban(1, Some(700)), of_one_kind, ban(2, None)];
            let writes = bans.clone().map(Write::Ban);
            assert_eq!(store.apply(&writes).await.unwrap().written, 3);
            store.close().await;
            let store = place.open().await;
            let read = store.bans().await.unwrap();
            assert_eq!((read.rows, read.skipped), (bans.to_vec(), 0));
            let longer = Ban { until: Some(at(900)), ..ban(1, None) };
            store.apply(&[Write::Ban(longer.clone()), Write::LiftBan(peer(2))]).await.unwrap();
            assert_eq!(held(&store).await[0], longer);
            store.apply(&[Write::ForgetBan { peer: peer(1), scope: Scope::All }]).await.unwrap();
            assert_eq!(held(&store).await, [bans[1].clone()]);
        }

        async fn only_bans_that_are_over_are_forgotten_and_no_more_than_asked(place) {
            let store = place.open().await;
            let writes = [ban(1, Some(10)), ban(2, Some(20)), ban(3, Some(30)), ban(4, None)].map(Write::Ban);
            store.apply(&writes).await.unwrap();
            assert_eq!(store.forget_ended_bans(at(30), 1).await.unwrap(), 1);
            assert_eq!(store.forget_ended_bans(at(30), 9).await.unwrap(), 1);
            let left: Vec<PeerId> = held(&store).await.iter().map(|ban| ban.peer).collect();
            assert_eq!(left, [peer(3), peer(4)]);
        }

        async fn past_the_bound_one_that_is_over_makes_room_and_one_in_force_never(place) {
            let store = place.open().await;
            let most = BANS_KEPT_MAX;
            let all: Vec<Write> = (1..=most).map(|n| Write::Ban(ban(n, Some(if n == 7 { 5 } else { 900 })))).collect();
            for batch in all.chunks(4_000) {
                assert_eq!(store.apply(batch).await.unwrap().refused, []);
            }
            let at_five = |n| Write::Ban(Ban { since: at(5), ..ban(n, Some(900)) });
            assert_eq!(store.apply(&[at_five(most + 1)]).await.unwrap().written, 1);
            let refused = store.apply(&[at_five(most + 2), at_five(9)]).await.unwrap();
            assert_eq!((refused.written, &refused.refused[0].why), (1, &Refusal::Full { table: "bans", max: most }));
            assert!(held(&store).await.iter().all(|ban| ban.peer != peer(7)));
        }

        async fn a_reason_is_bounded_and_may_be_empty(place) {
            let store = place.open().await;
            let with = |reason: String| Write::Ban(Ban { reason, ..ban(1, None) });
            let writes =
                [with(String::new()), with("r".repeat(REASON_BYTES_MAX)), with("r".repeat(REASON_BYTES_MAX + 1))];
            assert_eq!(store.apply(&writes).await.unwrap().written, 2);
        }
    }
}
