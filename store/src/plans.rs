//! Planner sessions: with whom plans are made. What is fed to them waits in the outbox, each peer's in its order.

use protocol::{
    PeerId, Timestamp,
    planner::{LIFE, SESSIONS_MAX, WAITING_MAX},
};

use crate::{
    Destination, Outgoing, RELATIONS_MAX, Rows, StoreError,
    outbox::PLAN,
    session::{Row, Session, values},
    write::Refusal,
};

/// What changes about planner sessions.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanChange {
    /// There is a session with this peer.
    Open {
        /// Who.
        peer: PeerId,
    },
    /// A step, all or nothing: when one peer has no room for it, nobody is fed.
    Feed {
        /// To the session with this peer, which is opened where there is none; nothing for all that are open.
        to: Option<PeerId>,
        /// What; its destination is the session's.
        step: Box<Outgoing>,
    },
    /// No session is open from here on. What was fed is still sent.
    Close {
        /// With this peer; nothing for all.
        to: Option<PeerId>,
    },
}

/// An open session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRow {
    /// With whom.
    pub peer: PeerId,
    /// Since when, to the millisecond.
    pub opened_at: Timestamp,
    /// Steps that were fed to it.
    pub fed: u64,
    /// Steps for this peer that it has not taken.
    pub waiting: u64,
}

/// Makes the change and tells what is to be put into the outbox.
pub(crate) async fn change(
    session: &mut Session<'_>,
    change: &PlanChange,
    at: Timestamp,
) -> Result<Result<Vec<Outgoing>, Refusal>, StoreError> {
    let sql = "DELETE FROM planner_sessions WHERE opened_at_ms <= $1";
    session.execute(sql, values![oldest(at)]).await?;
    match change {
        PlanChange::Open { peer } => open(session, peer, at).await.map(|opened| opened.map(|()| Vec::new())),
        PlanChange::Feed { to: Some(peer), step } => match open(session, peer, at).await? {
            Ok(()) => feed(session, &[*peer], step).await,
            Err(refusal) => Ok(Err(refusal)),
        },
        PlanChange::Feed { to: None, step } => {
            let peers: Vec<PeerId> = read_all(session, at).await?.rows.into_iter().map(|row| row.peer).collect();
            feed(session, &peers, step).await
        }
        PlanChange::Close { to: Some(peer) } => close(session, peer).await.map(|()| Ok(Vec::new())),
        PlanChange::Close { to: None } => {
            session.execute("DELETE FROM planner_sessions", values![]).await?;
            Ok(Ok(Vec::new()))
        }
    }
}

async fn open(session: &mut Session<'_>, peer: &PeerId, at: Timestamp) -> Result<Result<(), Refusal>, StoreError> {
    let sql = "SELECT count(*) AS n FROM planner_sessions WHERE peer_id = $1";
    if session.number(sql, values![peer]).await? == Some(1) {
        return Ok(Ok(()));
    }
    let sql = "INSERT INTO planner_sessions (peer_id, opened_at_ms, fed)
         SELECT $1, $2, 0 WHERE (SELECT count(*) FROM planner_sessions) < $3";
    let is_written = session.execute(sql, values![peer, at, SESSIONS_MAX]).await? > 0;
    Ok(if is_written { Ok(()) } else { Err(Refusal::Full { table: "planner sessions", max: SESSIONS_MAX }) })
}

async fn feed(
    session: &mut Session<'_>,
    peers: &[PeerId],
    step: &Outgoing,
) -> Result<Result<Vec<Outgoing>, Refusal>, StoreError> {
    let mut steps = Vec::with_capacity(peers.len());
    for peer in peers {
        let sql = "SELECT count(*) AS n FROM outbox WHERE fate = 'waiting' AND destination = $1";
        let destination = Destination::Plan(*peer);
        let waiting = session.number(sql, values![destination.name()]).await?.unwrap_or_default();
        if waiting >= i64::from(WAITING_MAX) {
            return Ok(Err(Refusal::Full { table: "what waits for one planner session", max: WAITING_MAX }));
        }
        session.execute("UPDATE planner_sessions SET fed = fed + 1 WHERE peer_id = $1", values![peer]).await?;
        steps.push(Outgoing { destination, ..step.clone() });
    }
    Ok(Ok(steps))
}

pub(crate) async fn close(session: &mut Session<'_>, peer: &PeerId) -> Result<(), StoreError> {
    session.execute("DELETE FROM planner_sessions WHERE peer_id = $1", values![peer]).await?;
    Ok(())
}

pub(crate) async fn read_all(session: &mut Session<'_>, now: Timestamp) -> Result<Rows<PlanRow>, StoreError> {
    let sql = "SELECT peer_id, opened_at_ms, fed, (SELECT count(*) FROM outbox
             WHERE fate = 'waiting' AND destination = $1 || planner_sessions.peer_id) AS waiting
         FROM planner_sessions WHERE opened_at_ms > $2 ORDER BY peer_id";
    let rows = session.fetch(sql, values![PLAN, oldest(now)]).await?;
    Ok(Rows::read("planner_sessions", &rows, read_row))
}

/// For whom steps wait, whether or not their sessions are still open.
pub(crate) async fn waiting(session: &mut Session<'_>) -> Result<Vec<PeerId>, StoreError> {
    // The colon's next character: everything that begins with the prefix lies between, in the order of both databases.
    let sql = "SELECT DISTINCT destination FROM outbox
         WHERE fate = 'waiting' AND destination >= 'plan:' AND destination < 'plan;' ORDER BY destination LIMIT $1 + 0";
    let rows = session.fetch(sql, values![RELATIONS_MAX]).await?;
    let read = |row: &Row| match Destination::named(row.text("destination")?)? {
        Destination::Plan(peer) => Some(peer),
        Destination::Bus | Destination::Peer(_) => None,
    };
    Ok(Rows::read("outbox", &rows, read).rows)
}

/// Sessions that were opened then, or before, are over now.
fn oldest(now: Timestamp) -> Timestamp {
    now.checked_sub(LIFE).unwrap_or(Timestamp::MIN)
}

fn read_row(row: &Row) -> Option<PlanRow> {
    Some(PlanRow {
        peer: row.peer("peer_id")?,
        opened_at: row.time("opened_at_ms")?,
        fed: row.count_wide("fed")?,
        waiting: row.count_wide("waiting")?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use protocol::relation::Relation;

    use super::*;
    use crate::{
        Change, Changed, Fate, OutboxFilter, Receipt, RelationRow, Store, Write,
        testing::{DAY_SECS, at, meddle, on_both, outgoing, peer},
    };

    fn plan(secs: i64, plan: PlanChange) -> Change {
        Change {
            receipt: None,
            catalogue: None,
            told: None,
            relation: None,
            plan: Some(plan),
            outbox: vec![],
            at: at(secs),
        }
    }

    fn feed(secs: i64, to: Option<u32>, id: &str) -> Change {
        let step = Box::new(Outgoing { subject: "planner".to_owned(), ..outgoing(Destination::Bus, id, 3) });
        plan(secs, PlanChange::Feed { to: to.map(peer), step })
    }

    fn close(secs: i64, to: Option<u32>) -> Change {
        plan(secs, PlanChange::Close { to: to.map(peer) })
    }

    async fn one(store: &Store, change: Change) -> Changed {
        store.change(&[change]).await.unwrap().remove(0)
    }

    async fn sessions(store: &Store, secs: i64) -> Vec<PlanRow> {
        store.plans(at(secs)).await.unwrap().rows
    }

    async fn ids(store: &Store, n: u32) -> Vec<String> {
        let rows = store.outbox_next(&Destination::Plan(peer(n)), 0, 64).await.unwrap().rows;
        rows.into_iter().map(|row| row.outgoing.message_id).collect()
    }

    fn row(n: u32, secs: i64, fed: u64, waiting: u64) -> PlanRow {
        PlanRow { peer: peer(n), opened_at: at(secs), fed, waiting }
    }

    on_both! {
        async fn p9_sessions_and_what_was_fed_survive_a_restart_in_their_order(place) {
            let store = place.open().await;
            let receipt = Some(Receipt { source: "bus".to_owned(), id: "m1".to_owned() });
            let first = Change { receipt, ..feed(5, Some(1), "a") };
            let changes = [first.clone(), first.clone(), plan(6, PlanChange::Open { peer: peer(2) })];
            let outcomes = store.change(&changes).await.unwrap();
            assert_eq!(outcomes, [Changed::Done, Changed::Repeated, Changed::Done]);
            assert_eq!(one(&store, feed(7, None, "b")).await, Changed::Done);
            store.close().await;
            let store = place.open().await;
            assert_eq!(one(&store, first).await, Changed::Repeated);
            assert_eq!((ids(&store, 1).await, ids(&store, 2).await), (vec!["a".into(), "b".into()], vec!["b".into()]));
            assert_eq!(sessions(&store, 8).await, [row(1, 5, 2, 2), row(2, 6, 1, 1)]);
            assert_eq!(store.plans_waiting().await.unwrap(), [peer(1), peer(2)]);
            // What was taken waits no longer, and what else waits for the peer is no part of its session.
            let other = Change { plan: None, outbox: vec![outgoing(Destination::Peer(peer(1)), "c", 1)], ..feed(9, None, "") };
            assert_eq!(one(&store, other).await, Changed::Done);
            let taken = store.outbox_next(&Destination::Plan(peer(2)), 0, 1).await.unwrap().rows[0].id;
            let ended = Write::OutboxEnded { id: taken, fate: Fate::Delivered, at: at(9), detail: String::new() };
            store.apply(&[ended]).await.unwrap();
            assert_eq!(sessions(&store, 9).await, [row(1, 5, 2, 2), row(2, 6, 1, 0)]);
            assert_eq!(store.plans_waiting().await.unwrap(), [peer(1)]);
            // Whoever asks what goes to a peer is told of both.
            let filter = OutboxFilter { destination: Some(Destination::Peer(peer(1))), limit: 9, ..OutboxFilter::default() };
            assert_eq!(store.outbox(&filter).await.unwrap().rows.len(), 3);
        }

        async fn what_was_fed_to_a_session_that_is_closed_still_waits(place) {
            let store = place.open().await;
            store.change(&[feed(1, Some(1), "a"), feed(1, Some(2), "a"), feed(1, Some(3), "a")]).await.unwrap();
            assert_eq!(one(&store, close(2, Some(1))).await, Changed::Done);
            assert_eq!(one(&store, close(2, Some(1))).await, Changed::Done, "it is closed already");
            for (n, relation) in [(2, Relation::Blacklist), (3, Relation::Known)] {
                let row = RelationRow { peer: peer(n), relation, name: String::new(), verified: false, changed_at: at(2) };
                let related = Change { plan: None, relation: Some(row), ..close(2, None) };
                assert_eq!(one(&store, related).await, Changed::Done);
            }
            assert_eq!(sessions(&store, 3).await, [row(3, 1, 1, 1)]);
            assert_eq!(one(&store, feed(3, None, "b")).await, Changed::Done);
            assert_eq!((ids(&store, 1).await, ids(&store, 3).await), (vec!["a".into()], vec!["a".into(), "b".into()]));
            assert_eq!(one(&store, close(4, None)).await, Changed::Done);
            assert_eq!((sessions(&store, 4).await, store.plans_waiting().await.unwrap().len()), (vec![], 3));
            assert_eq!(one(&store, feed(5, None, "c")).await, Changed::Done, "nobody is fed");
            assert_eq!(ids(&store, 3).await.len(), 2);
            assert_eq!(one(&store, feed(6, Some(1), "d")).await, Changed::Done);
            assert_eq!(sessions(&store, 6).await, [row(1, 6, 1, 2)], "it is a new one");
        }

        async fn a_session_is_a_day_old_at_most_and_makes_room_then(place) {
            let store = place.open().await;
            for n in 0..SESSIONS_MAX {
                assert_eq!(one(&store, plan(n.into(), PlanChange::Open { peer: peer(n) })).await, Changed::Done);
            }
            let max = SESSIONS_MAX;
            let full = Changed::Refused(Refusal::Full { table: "planner sessions", max: SESSIONS_MAX });
            assert_eq!(one(&store, feed(100, Some(max), "a")).await, full);
            assert_eq!(one(&store, feed(100, Some(0), "a")).await, Changed::Done, "what is open goes on");
            assert_eq!(sessions(&store, DAY_SECS - 1).await.len(), SESSIONS_MAX as usize);
            assert_eq!(one(&store, feed(DAY_SECS - 1, Some(max), "a")).await, full);
            assert_eq!(sessions(&store, DAY_SECS).await.len(), SESSIONS_MAX as usize - 1);
            assert_eq!(one(&store, feed(DAY_SECS, Some(max), "b")).await, Changed::Done);
            assert_eq!((ids(&store, 0).await, ids(&store, max).await), (vec!["a".into()], vec!["b".into()]));
        }

        async fn so_many_steps_wait_for_a_peer_and_one_more_feeds_nobody(place) {
            let store = place.open().await;
            one(&store, plan(1, PlanChange::Open { peer: peer(1) })).await;
            let steps: Vec<Change> = (0..WAITING_MAX).map(|n| feed(2, Some(2), &n.to_string())).collect();
            let outcomes = store.change(&steps).await.unwrap();
            assert!(outcomes.iter().all(|outcome| *outcome == Changed::Done));
            let max = WAITING_MAX;
            let full = Changed::Refused(Refusal::Full { table: "what waits for one planner session", max });
            assert_eq!(one(&store, feed(3, Some(2), "x")).await, full);
            assert_eq!(one(&store, feed(3, None, "x")).await, full);
            assert_eq!(sessions(&store, 3).await, [row(1, 1, 0, 0), row(2, 2, max.into(), max.into())]);
            assert_eq!(one(&store, feed(3, Some(1), "x")).await, Changed::Done);
        }

        async fn a_step_over_a_bound_opens_nothing(place) {
            let store = place.open().await;
            let step = Box::new(Outgoing { message_id: String::new(), ..outgoing(Destination::Bus, "a", 1) });
            let outcome = one(&store, plan(1, PlanChange::Feed { to: Some(peer(1)), step })).await;
            assert!(matches!(outcome, Changed::Refused(Refusal::BadLength { field: "message_id", .. })), "{outcome:?}");
            assert_eq!(sessions(&store, 1).await, []);
        }

        async fn a_session_that_makes_no_sense_is_left_out_and_counted(place) {
            let store = place.open().await;
            store.change(&[feed(1, Some(1), "a"), feed(1, Some(2), "a")]).await.unwrap();
            meddle(&store, "UPDATE planner_sessions SET peer_id = 'nobody' WHERE fed = 1 AND peer_id =
                (SELECT min(peer_id) FROM planner_sessions)").await;
            let rows = store.plans(at(2)).await.unwrap();
            assert_eq!((rows.rows.len(), rows.skipped), (1, 1));
        }
    }
}
