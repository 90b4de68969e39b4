//! The sequences signed for our own DIDs: they never go back, whatever is asked for and in whatever order.

use protocol::Timestamp;

use crate::{
    StoreError,
    peers::TEXT_BYTES_MAX,
    repository::{Database, Repository as _},
    session::{Session, values},
};

/// Own DIDs with a sequence: a process has one identity, and some for a change of key.
pub const SEQS_MAX: u32 = 64;

/// The greatest integer that JSON of the wire may hold, 2^53 - 1.
pub const SEQ_MAX: u64 = (1 << 53) - 1;

/// Raises the sequence and tells the stored one; nothing when there is no room for a new DID.
/// The caller has checked that `seq` is at most [`SEQ_MAX`].
pub(crate) async fn raise(session: &mut Session<'_>, did: &str, seq: u64) -> Result<Option<u64>, StoreError> {
    let sql = "INSERT INTO seqs (did, seq)
         SELECT $1, $2 WHERE EXISTS (SELECT 1 FROM seqs WHERE did = $1) OR (SELECT count(*) FROM seqs) < $3
         ON CONFLICT (did) DO UPDATE SET seq = CASE WHEN excluded.seq > seqs.seq THEN excluded.seq ELSE seqs.seq END
         RETURNING seq AS n";
    let held = session.number(sql, values![did, seq, SEQS_MAX]).await?;
    Ok(held.map(i64::cast_unsigned))
}

pub(crate) async fn read(session: &mut Session<'_>, did: &str) -> Result<Option<u64>, StoreError> {
    let seq = session.number("SELECT seq AS n FROM seqs WHERE did = $1", values![did]).await?;
    Ok(seq.map(i64::cast_unsigned))
}

pub(crate) async fn raise_to(database: &Database, did: &str, seq: u64) -> Result<u64, StoreError> {
    check(did, seq)?;
    let mut turn = database.turn(true).await?;
    let outcome = raise(&mut turn.session(), did, seq).await;
    turn.end(outcome).await?.ok_or(StoreError::SeqsFull { max: SEQS_MAX })
}

pub(crate) async fn next(database: &Database, did: &str, now: Timestamp) -> Result<u64, StoreError> {
    // A clock before 1970 leaves the stored one to count on.
    let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
    check(did, millis)?;
    let mut turn = database.turn(true).await?;
    let outcome = raise_past(&mut turn.session(), did, millis).await;
    match turn.end(outcome).await? {
        (Some(seq), _) => Ok(seq),
        (None, Some(held)) => Err(StoreError::SeqSpent { got: held + 1, max: SEQ_MAX }),
        (None, None) => Err(StoreError::SeqsFull { max: SEQS_MAX }),
    }
}

/// Raises the sequence past the stored one and to at least `floor`; when it cannot, nothing and the stored one.
async fn raise_past(
    session: &mut Session<'_>,
    did: &str,
    floor: u64,
) -> Result<(Option<u64>, Option<u64>), StoreError> {
    let sql = "INSERT INTO seqs (did, seq)
         SELECT $1, $2 WHERE EXISTS (SELECT 1 FROM seqs WHERE did = $1) OR (SELECT count(*) FROM seqs) < $3
         ON CONFLICT (did) DO UPDATE
             SET seq = CASE WHEN excluded.seq > seqs.seq THEN excluded.seq ELSE seqs.seq + 1 END WHERE seqs.seq < $4
         RETURNING seq AS n";
    let next = session.number(sql, values![did, floor, SEQS_MAX, SEQ_MAX]).await?;
    match next {
        Some(next) => Ok((Some(next.cast_unsigned()), None)),
        None => Ok((None, read(session, did).await?)),
    }
}

fn check(did: &str, seq: u64) -> Result<(), StoreError> {
    if did.is_empty() || did.len() > TEXT_BYTES_MAX {
        return Err(StoreError::BadDid { got: did.len(), max: TEXT_BYTES_MAX });
    }
    if seq > SEQ_MAX {
        return Err(StoreError::SeqSpent { got: seq, max: SEQ_MAX });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::{
        Refusal, Settings, Store, Write,
        testing::{at, block_on, on_both},
    };

    #[derive(Clone, Debug)]
    enum Step {
        Raise(u64),
        Next(i64),
        Reopen,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..SEQ_MAX).prop_map(Step::Raise),
            4 => (0_u64..100).prop_map(Step::Raise),
            4 => (-1_000_000_i64..4_000_000_000).prop_map(Step::Next),
            1 => Just(Step::Reopen),
        ];
        prop::collection::vec(step, 1..20)
    }

    #[test]
    fn a_sequence_never_goes_back() {
        let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(steps in steps())| {
            let temp = TempDir::new().unwrap();
            let path = temp.path().join("muster.db");
            let open = || async { Store::open(&path, &Settings::default(), at(0)).await.unwrap().store };
            block_on(async {
                let mut store = open().await;
                let mut held = 0;
                for step in steps {
                    match step {
                        Step::Raise(seq) => {
                            let after = store.raise_seq("did", seq).await.unwrap();
                            assert_eq!(after, held.max(seq));
                            held = after;
                        }
                        Step::Next(secs) if held == SEQ_MAX => {
                            assert!(matches!(store.next_seq("did", at(secs)).await, Err(StoreError::SeqSpent { .. })));
                        }
                        Step::Next(secs) => {
                            let next = store.next_seq("did", at(secs)).await.unwrap();
                            let millis = u64::try_from(secs * 1_000).unwrap_or(0);
                            assert!(next >= held && next >= millis, "{next}");
                            assert!(next > held || held == 0, "{next}");
                            held = next;
                        }
                        Step::Reopen => {
                            store.close().await;
                            store = open().await;
                        }
                    }
                    assert_eq!(store.seq("did").await.unwrap().unwrap_or(0), held);
                }
            });
        });
    }

    on_both! {
        async fn the_greatest_sequence_of_the_wire_is_the_last(place) {
            let store = place.open().await;
            assert_eq!(store.raise_seq("did", SEQ_MAX - 1).await.unwrap(), SEQ_MAX - 1);
            assert_eq!(store.next_seq("did", at(0)).await.unwrap(), SEQ_MAX);
            assert!(
                matches!(store.next_seq("did", at(0)).await.unwrap_err(), StoreError::SeqSpent { got, .. } if got == SEQ_MAX + 1)
            );
            assert!(matches!(store.raise_seq("did", SEQ_MAX + 1).await.unwrap_err(), StoreError::SeqSpent { .. }));
            let applied = store.apply(&[Write::RaiseSeq { did: "did".into(), seq: SEQ_MAX + 1 }]).await.unwrap();
            assert_eq!(applied.refused[0].why, Refusal::SeqTooLarge { got: SEQ_MAX + 1 });
            assert_eq!(store.seq("did").await.unwrap(), Some(SEQ_MAX));
        }

        async fn a_held_sequence_is_never_forgotten_for_a_new_one(place) {
            let store = place.open().await;
            for n in 0..SEQS_MAX {
                store.raise_seq(&format!("did:{n}"), 5).await.unwrap();
            }
            assert!(matches!(store.raise_seq("did:new", 5).await.unwrap_err(), StoreError::SeqsFull { .. }));
            assert!(matches!(store.next_seq("did:new", at(0)).await.unwrap_err(), StoreError::SeqsFull { .. }));
            let applied = store.apply(&[Write::RaiseSeq { did: "did:new".into(), seq: 1 }]).await.unwrap();
            assert_eq!(applied.refused[0].why, Refusal::Full { table: "seqs", max: SEQS_MAX });
            assert_eq!(store.raise_seq("did:0", 6).await.unwrap(), 6);
        }

        async fn an_empty_or_endless_did_is_refused(place) {
            let store = place.open().await;
            store.raise_seq(&"d".repeat(TEXT_BYTES_MAX), 1).await.unwrap();
            for did in ["", &"d".repeat(TEXT_BYTES_MAX + 1)] {
                assert!(matches!(store.raise_seq(did, 1).await.unwrap_err(), StoreError::BadDid { .. }));
            }
        }
    }
}
