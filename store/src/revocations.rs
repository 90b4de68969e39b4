//! What keys said of themselves: that they are to be believed no longer. Kept over every restart, as the text that was signed.

use std::sync::Arc;

use protocol::{
    PeerId, Timestamp,
    revocations::{Held, REVOCATIONS_MAX, Revoke, Weight},
    signed::{SignedObject as _, Verified},
};

use crate::{
    Rows, StoreError,
    session::{Row, Session, values},
    write::{Refusal, check_length},
};

/// Revocations kept: as many as may be held.
pub const REVOCATIONS_KEPT_MAX: u32 = REVOCATIONS_MAX as u32;

/// Sets the revocation of its peer. At the bound a newcomer is refused: whoever holds them says which one goes.
pub(crate) async fn write(session: &mut Session<'_>, held: &Held) -> Result<Result<(), Refusal>, StoreError> {
    let text = held.revoke.text();
    if let Err(refusal) = check_length("text", text, Revoke::BYTES_MAX) {
        return Ok(Err(refusal));
    }
    let sql = "INSERT INTO revocations (peer_id, text, heard_ms, until_ms, weight)
         SELECT $1, $2, $3, $4, $5 WHERE EXISTS (SELECT 1 FROM revocations WHERE peer_id = $1)
             OR (SELECT count(*) FROM revocations) < $6
         ON CONFLICT (peer_id) DO UPDATE SET until_ms = excluded.until_ms, weight = excluded.weight";
    let values =
        values![&held.revoke.peer_id, &**text, held.heard, held.until, held.weight.name(), REVOCATIONS_KEPT_MAX];
    let is_written = session.execute(sql, values).await? > 0;
    Ok(if is_written { Ok(()) } else { Err(Refusal::Full { table: "revocations", max: REVOCATIONS_KEPT_MAX }) })
}

pub(crate) async fn forget(session: &mut Session<'_>, peer: &PeerId) -> Result<(), StoreError> {
    session.execute("DELETE FROM revocations WHERE peer_id = $1", values![peer]).await?;
    Ok(())
}

pub(crate) async fn read_all(session: &mut Session<'_>) -> Result<Rows<Held>, StoreError> {
    let sql = "SELECT peer_id, text, heard_ms, until_ms, weight FROM revocations ORDER BY peer_id LIMIT $1 + 0";
    let rows = session.fetch(sql, values![REVOCATIONS_KEPT_MAX]).await?;
    Ok(Rows::read("revocations", &rows, read_row))
}

fn read_row(row: &Row) -> Option<Held> {
    // It was not from the future when it came; a clock that was set back since takes nothing back.
    let revoke = Verified::<Revoke>::open(row.text("text")?, Timestamp::MAX).ok()?;
    if revoke.peer_id != row.peer("peer_id")? {
        return None;
    }
    Some(Held {
        revoke: Arc::new(revoke),
        heard: row.time("heard_ms")?,
        until: row.time("until_ms")?,
        weight: Weight::named(row.text("weight")?)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use protocol::{
        identity::Keys,
        revocations::{HOLD, revoke},
    };

    use super::*;
    use crate::{
        Store, Write,
        testing::{at, on_both},
    };

    fn held_of(n: u32, weight: Weight) -> Held {
        let mut seed = [5; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let keys = Keys::from_seed(seed);
        Held::new(revoke(&keys, &keys.did().to_string(), "stolen", at(1)), HOLD, weight, at(2))
    }

    async fn kept(store: &Store) -> Vec<Held> {
        let mut rows = store.revocations().await.unwrap().rows;
        rows.sort_by_key(|held| held.revoke.peer_id);
        rows
    }

    on_both! {
        async fn revocations_survive_a_restart_as_they_were_signed(place) {
            let store = place.open().await;
            let mut all = vec![held_of(1, Weight::Heard), held_of(2, Weight::Ours)];
            all.sort_by_key(|held| held.revoke.peer_id);
            let writes: Vec<Write> = all.iter().cloned().map(Write::Revocation).collect();
            assert_eq!(store.apply(&writes).await.unwrap().written, 2);
            store.close().await;
            let store = place.open().await;
            assert_eq!(kept(&store).await, all);
            let renewed = Held { until: at(9_999), weight: Weight::Tried, ..held_of(1, Weight::Heard) };
            store.apply(&[Write::Revocation(renewed.clone())]).await.unwrap();
            assert!(kept(&store).await.contains(&renewed));
            store.apply(&[Write::ForgetRevocation(renewed.revoke.peer_id)]).await.unwrap();
            assert_eq!(kept(&store).await, [held_of(2, Weight::Ours)]);
        }

        async fn a_clock_that_was_set_back_takes_no_revocation_back(place) {
            let store = place.open().await;
            let keys = Keys::from_seed([8; 32]);
            let far = Timestamp::from_second(32_503_680_000).unwrap();
            let late = Held::new(revoke(&keys, &keys.did().to_string(), "", far), HOLD, Weight::Heard, far);
            store.apply(&[Write::Revocation(late.clone())]).await.unwrap();
            assert_eq!(kept(&store).await, std::slice::from_ref(&late));
            assert_eq!(late.left(at(1)), HOLD);
        }

        async fn at_the_bound_a_newcomer_is_refused_and_one_that_is_held_is_renewed(place) {
            let store = place.open().await;
            let all: Vec<Write> = (0..REVOCATIONS_KEPT_MAX).map(|n| Write::Revocation(held_of(n, Weight::Heard))).collect();
            for batch in all.chunks(2_000) {
                assert_eq!(store.apply(batch).await.unwrap().refused, []);
            }
            let newcomer = Write::Revocation(held_of(REVOCATIONS_KEPT_MAX, Weight::Ours));
            let writes = [newcomer.clone(), Write::Revocation(held_of(7, Weight::Tried))];
            let applied = store.apply(&writes).await.unwrap();
            let full = Refusal::Full { table: "revocations", max: REVOCATIONS_KEPT_MAX };
            assert_eq!((applied.written, &applied.refused[0].why), (1, &full));
            let gone = Write::ForgetRevocation(held_of(8, Weight::Heard).revoke.peer_id);
            assert_eq!(store.apply(&[gone, newcomer]).await.unwrap().refused, []);
        }
    }
}
