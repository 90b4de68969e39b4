//! The pool's memory: indexers to go back to after a restart, when the seeds may be gone.

use multiaddr::Multiaddr;
use protocol::{PeerId, Timestamp};

use crate::{
    Rows, StoreError,
    session::{Row, Session, values},
    write::{Refusal, check_address, check_length_max},
};

/// Addresses kept of a member: what the wire lets a peer have.
pub const MEMBER_ADDRESSES_MAX: usize = 8;

/// Bytes of evidence kept of a member: seven parts with their counts are under 1 KiB, sixteen times that is a mistake.
pub const EVIDENCE_BYTES_MAX: usize = 16 * 1024;

/// One remembered indexer.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberRow {
    /// Who.
    pub peer: PeerId,
    /// Where, best first; those past [`MEMBER_ADDRESSES_MAX`] are not kept.
    pub addresses: Vec<Multiaddr>,
    /// Named in the settings, so it is sticky and the last to be forgotten.
    pub is_seed: bool,
    /// Its score when it was last judged, 0 to 100; none when it never was.
    pub score: Option<f64>,
    /// The evidence behind the score, JSON of the score's owner, at most [`EVIDENCE_BYTES_MAX`] bytes, may be empty.
    pub evidence: String,
    /// When it last answered, to the millisecond.
    pub last_answer: Option<Timestamp>,
    /// 0 for one to go back to; above it the row is kept for its evidence alone, and goes first for want of room.
    pub standing: u32,
}

pub(crate) async fn write(session: &mut Session<'_>, row: &MemberRow) -> Result<Result<(), Refusal>, StoreError> {
    let addresses: Result<Vec<String>, _> =
        row.addresses.iter().take(MEMBER_ADDRESSES_MAX).map(check_address).collect();
    let addresses = match (addresses, check_length_max("evidence", &row.evidence, EVIDENCE_BYTES_MAX)) {
        (Ok(addresses), Ok(())) => serde_json::Value::from(addresses).to_string(),
        (Err(refusal), _) | (_, Err(refusal)) => return Ok(Err(refusal)),
    };
    let sql = "INSERT INTO members (peer_id, addresses, is_seed, score, evidence, last_answer_ms, standing)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (peer_id) DO UPDATE SET
             addresses = excluded.addresses, is_seed = excluded.is_seed, score = excluded.score,
             evidence = excluded.evidence, last_answer_ms = excluded.last_answer_ms, standing = excluded.standing";
    let values = values![&row.peer, addresses, row.is_seed, row.score, &row.evidence, row.last_answer, row.standing];
    session.execute(sql, values).await?;
    Ok(Ok(()))
}

pub(crate) async fn forget(session: &mut Session<'_>, peer: &PeerId) -> Result<(), StoreError> {
    session.execute("DELETE FROM members WHERE peer_id = $1", values![peer]).await?;
    Ok(())
}

/// Lets those go that are over `max`: not seeds first, of them those kept for their evidence alone, then who answered longest
/// ago.
pub(crate) async fn prune(session: &mut Session<'_>, max: u32) -> Result<u64, StoreError> {
    let sql = "DELETE FROM members WHERE peer_id IN (
             SELECT peer_id FROM members ORDER BY is_seed, standing DESC, last_answer_ms ASC NULLS FIRST, peer_id
             LIMIT (SELECT CASE WHEN count(*) > $1 THEN count(*) - $1 ELSE 0 END FROM members))";
    session.execute(sql, values![max]).await
}

pub(crate) async fn read_all(session: &mut Session<'_>, max: u32) -> Result<Rows<MemberRow>, StoreError> {
    let sql = "SELECT peer_id, addresses, is_seed, score, evidence, last_answer_ms, standing FROM members
         ORDER BY standing, score DESC NULLS LAST, last_answer_ms DESC NULLS LAST, peer_id LIMIT $1 + 0";
    let rows = session.fetch(sql, values![max]).await?;
    Ok(Rows::read("members", &rows, read_row))
}

fn read_row(row: &Row) -> Option<MemberRow> {
    let score = row.float_or_none("score")?;
    if score.is_some_and(|score| !(0.0..=100.0).contains(&score)) {
        return None;
    }
    Some(MemberRow {
        peer: row.peer("peer_id")?,
        addresses: serde_json::from_str(row.text("addresses")?).ok()?,
        is_seed: row.flag("is_seed")?,
        score,
        evidence: row.text("evidence")?.to_owned(),
        last_answer: row.time_or_none("last_answer_ms")?,
        standing: row.count("standing")?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        Settings, Write,
        testing::{address, at, on_both, peer},
    };

    fn member(n: u32) -> MemberRow {
        MemberRow {
            peer: peer(n),
            addresses: vec![address(n), address(n + 1)],
            is_seed: false,
            score: Some(f64::from(n) / 3.0),
            evidence: format!("{{\"latency\":{n}}}"),
            last_answer: Some(at(i64::from(n))),
            standing: n,
        }
    }

    on_both! {
        async fn members_survive_a_restart_whole(place) {
            let store = place.open().await;
            let unknown = MemberRow {
                addresses: vec![],
                is_seed: true,
                score: None,
                evidence: String::new(),
                last_answer: None,
                ..member(1)
            };
            let writes = [Write::Member(member(2)), Write::Member(member(1)), Write::Member(unknown.clone())];
            assert_eq!(store.apply(&writes).await.unwrap().written, 3);
            store.close().await;
            let store = place.open().await;
            let members = store.remembered_members().await.unwrap();
            assert_eq!((members.rows, members.skipped), (vec![unknown, member(2)], 0));
            store.apply(&[Write::ForgetMember(peer(1))]).await.unwrap();
            assert_eq!(store.remembered_members().await.unwrap().rows, [member(2)]);
        }

        async fn past_the_bound_seeds_stay_and_the_longest_silent_leaves(place) {
            let store = place.open_with(&Settings { members_max: 3, ..Settings::default() }).await;
            let seed = MemberRow { is_seed: true, last_answer: None, score: None, ..member(0) };
            let member = |n| MemberRow { standing: 0, ..member(n) };
            let writes: Vec<Write> = [seed, member(1), member(2)].map(Write::Member).into();
            assert_eq!(store.apply(&writes).await.unwrap().evicted, 0);
            assert_eq!(store.apply(&[Write::Member(member(3))]).await.unwrap().evicted, 1);
            let left = async || {
                let rows = store.remembered_members().await.unwrap().rows;
                rows.iter().map(|row| row.peer).collect::<Vec<_>>()
            };
            assert_eq!(left().await, [peer(3), peer(2), peer(0)], "the best scores first");
            // One that is kept for its evidence alone goes before one to go back to, and is read after it.
            let disowned = |n| MemberRow { standing: 1, ..member(n) };
            store.apply(&[Write::Member(disowned(3))]).await.unwrap();
            assert_eq!(left().await, [peer(2), peer(0), peer(3)]);
            store.apply(&[Write::Member(member(1))]).await.unwrap();
            assert_eq!(left().await, [peer(2), peer(1), peer(0)]);
        }

        async fn evidence_and_addresses_are_bounded(place) {
            let store = place.open().await;
            let full = MemberRow { evidence: "e".repeat(EVIDENCE_BYTES_MAX), ..member(1) };
            let over = MemberRow { evidence: "e".repeat(EVIDENCE_BYTES_MAX + 1), ..member(2) };
            let many = MemberRow { addresses: (0..9).map(address).collect(), ..member(3) };
            let applied = store.apply(&[full, over, many].map(Write::Member)).await.unwrap();
            assert_eq!(applied.written, 2);
            assert_eq!(applied.refused[0].index, 1);
            let members = store.remembered_members().await.unwrap().rows;
            assert_eq!(members[1].addresses, (0..8).map(address).collect::<Vec<_>>());
        }

        async fn a_score_that_is_no_number_is_no_score(place) {
            let store = place.open().await;
            store.apply(&[Write::Member(MemberRow { score: Some(f64::NAN), ..member(1) })]).await.unwrap();
            assert_eq!(store.remembered_members().await.unwrap().rows[0].score, None);
        }
    }
}
