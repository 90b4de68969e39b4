//! Which key came first for a DID that does not name its key.

use protocol::Timestamp;

use crate::{
    Rows, StoreError,
    repository::{Database, Repository as _},
    session::{Row, Session, values},
};

/// How exactly the last sight of a binding is kept. Saying it again within that time writes nothing.
const SIGHT_EVERY_MS: i64 = 86_400_000;

/// A DID and the first key seen for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The DID, a UUID in most cases.
    pub did: String,
    /// Base64 of the key.
    pub pub_key: String,
    /// When it was last said to be in use, to the day.
    pub last_seen: Timestamp,
}

/// To which key a DID is bound after the attempt.
pub(crate) enum Bound {
    /// To the one given.
    ToThis,
    /// To this other one, and it stays so.
    ToOther(String),
    /// To none, for want of room.
    NoRoom,
}

pub(crate) async fn bind(
    session: &mut Session<'_>,
    did: &str,
    pub_key: &str,
    at: Timestamp,
    max: u32,
) -> Result<Bound, StoreError> {
    let sql = "INSERT INTO bindings (did, pub_key, last_seen_ms)
         SELECT $1, $2, $3 WHERE EXISTS (SELECT 1 FROM bindings WHERE did = $1)
             OR (SELECT count(*) FROM bindings) < $4
         ON CONFLICT (did) DO UPDATE SET last_seen_ms = excluded.last_seen_ms
             WHERE bindings.pub_key = excluded.pub_key AND abs(bindings.last_seen_ms - excluded.last_seen_ms) >= $5";
    session.execute(sql, values![did, pub_key, at, max, SIGHT_EVERY_MS]).await?;
    Ok(match read(session, did).await? {
        Some(held) if held == pub_key => Bound::ToThis,
        Some(held) => Bound::ToOther(held),
        None => Bound::NoRoom,
    })
}

pub(crate) async fn read(session: &mut Session<'_>, did: &str) -> Result<Option<String>, StoreError> {
    let row = session.fetch_first("SELECT pub_key FROM bindings WHERE did = $1", values![did]).await?;
    Ok(row.and_then(|row| row.text("pub_key").map(str::to_owned)))
}

pub(crate) async fn read_all(session: &mut Session<'_>, max: u32) -> Result<Rows<Binding>, StoreError> {
    let sql = "SELECT did, pub_key, last_seen_ms FROM bindings ORDER BY last_seen_ms DESC, did LIMIT $1 + 0";
    let rows = session.fetch(sql, values![max]).await?;
    Ok(Rows::read("bindings", &rows, read_row))
}

fn read_row(row: &Row) -> Option<Binding> {
    Some(Binding {
        did: row.text("did")?.to_owned(),
        pub_key: row.text("pub_key")?.to_owned(),
        last_seen: row.time("last_seen_ms")?,
    })
}

pub(crate) async fn forget_stale(database: &Database, before: Timestamp, at_most: u32) -> Result<u64, StoreError> {
    let mut turn = database.turn(false).await?;
    let sql = "DELETE FROM bindings WHERE did IN (
             SELECT did FROM bindings WHERE last_seen_ms < $1 ORDER BY last_seen_ms, did LIMIT $2 + 0)";
    let outcome = turn.session().execute(sql, values![before, at_most]).await;
    turn.end(outcome).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::{
        Refusal, Settings, Write,
        testing::{DAY_SECS, at, on_both},
    };

    fn bind(did: &str, pub_key: &str, secs: i64) -> Write {
        Write::Bind { did: did.into(), pub_key: pub_key.into(), at: at(secs) }
    }

    on_both! {
        async fn g22_the_first_key_of_a_did_stays_its_key(place) {
            let store = place.open().await;
            let writes = [bind("did", "first", 1), bind("did", "second", 2), bind("did", "first", 3)];
            let applied = store.apply(&writes).await.unwrap();
            assert_eq!((applied.written, applied.refused.len()), (2, 1));
            assert_eq!(applied.refused[0].index, 1);
            assert_eq!(applied.refused[0].why, Refusal::OtherKey { held: "first".into() });
            assert_eq!(store.binding("did").await.unwrap().as_deref(), Some("first"));
        }

        async fn a_full_table_keeps_what_it_promised(place) {
            let store = place.open_with(&Settings { bindings_max: 2, ..Settings::default() }).await;
            let writes = [bind("a", "k", 0), bind("b", "k", DAY_SECS), bind("c", "k", 2 * DAY_SECS)];
            let applied = store.apply(&writes).await.unwrap();
            assert_eq!(applied.refused[0].why, Refusal::Full { table: "bindings", max: 2 });
            assert_eq!(store.forget_stale_bindings(at(DAY_SECS), 10).await.unwrap(), 1);
            assert_eq!(store.apply(&writes[2..]).await.unwrap().written, 1);
            let held: Vec<String> = store.bindings().await.unwrap().rows.into_iter().map(|row| row.did).collect();
            assert_eq!(held, ["c", "b"]);
        }

        async fn a_binding_in_use_does_not_grow_stale(place) {
            let store = place.open().await;
            store.apply(&[bind("did", "key", 0)]).await.unwrap();
            // Within the day nothing is written; a day later the sight is renewed, and a clock set back is healed.
            for (secs, kept) in [(DAY_SECS - 1, 0), (DAY_SECS, DAY_SECS), (50 * DAY_SECS, 50 * DAY_SECS), (9, 9)] {
                store.apply(&[bind("did", "key", secs)]).await.unwrap();
                assert_eq!(store.bindings().await.unwrap().rows[0].last_seen, at(kept));
            }
        }
    }
}
