//! The store's actor: the one writer of the daemon, in batches.
//!
//! Owns what waits to be written. Peers and pool tell it what to keep, claim asks it for the next `seq`, gate and registry
//! have their promises written down at once, a starting daemon asks for what was kept. It tells health whether the database answers. Away from its database it is degraded, not
//! dead: it keeps the newest `WAITING_MAX` writes, drops older memories, counts them, and tries again each second.
//! A restart forgets what waited; nothing of it is a promise. A disk that fails ends the process (exit 74).

use std::{
    cmp::Reverse,
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use ::store::{
    AddressRow, Binding, Change, Changed, Destination, MemberRow, OutboxRow, OutboxTotal, PeerRow, PlanRow, Refusal,
    RelationRow, StandingRow, StoreError, Write,
};
use protocol::{
    PeerId, Timestamp,
    bans::Ban,
    behaviour::BAN_MEMORY,
    book::{Entry, Fare},
    revocations::Held,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::{debug, error, warn};

use crate::{
    context::{Context, inform},
    health,
    peers::{COLLECT_MAX, FORGET_AFTER},
    supervision::{Class, Envelope, Reply, Seat, Timer},
};

/// A batch is written this long after its first row came: one commit costs as much as hundreds of rows.
const BATCH_WITHIN: Duration = Duration::from_millis(200);

/// While the database is away it is tried this often.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Rows that wait for the database; a minute's worth of a large indexer.
const WAITING_MAX: usize = 4_096;

/// A UUID that nobody brought for so long may be another's: longer than any holiday, and than any outage.
const UNBIND_AFTER: Duration = Duration::from_secs(400 * 24 * 3_600);

/// What has taken effect is known again for this long: an hour more than it may wait to be sent again.
const RECEIPT_LIFE: Duration = Duration::from_secs(25 * 3_600);

/// That a resource is gone is known for this long: no partner sends what is older than a day.
const REMOVED_LIFE: Duration = Duration::from_secs(30 * 24 * 3_600);

/// The actor.
pub struct Store;

/// What one life is given.
pub struct Args {
    /// Its seat.
    pub seat: Seat<Msg>,
    /// The daemon's.
    pub context: Context,
}

/// What it holds.
pub struct State {
    seat: Seat<Msg>,
    context: Context,
    waiting: VecDeque<Write>,
    dropped: u64,
    is_ok: bool,
    timer: Option<Timer>,
}

/// What became of a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is on the disk.
    Written,
    /// It is against a bound, or another promise.
    Refused(Refusal),
    /// The database is away; to be said again.
    Away,
}

/// Bans and orders, as they were kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Bans, those included that were over less than a day ago.
    pub bans: Vec<Ban>,
    /// Since when we are to drain.
    pub drained_since: Option<Timestamp>,
}

/// Planner sessions, as they are on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plans {
    /// Those that are open.
    pub sessions: Vec<PlanRow>,
    /// For whom steps wait, whether or not their sessions are still open.
    pub waiting: Vec<PeerId>,
}

/// What it is told and asked.
pub enum Msg {
    /// Keep what is known of these peers.
    KeepPeers(Vec<PeerRow>),
    /// Remember this member of the pool.
    KeepMember(MemberRow),
    /// Forget this member of the pool.
    ForgetMember(PeerId),
    /// Keep the day as it stands.
    KeepDay(String),
    /// A sequence to sign with, on disk before it is told; nothing when it could not be written down.
    NextSeq {
        /// Our DID.
        did: String,
        /// The sequence.
        reply: Reply<Option<u64>>,
    },
    /// Write this down before you answer.
    Promise {
        /// What.
        write: Box<Write>,
        /// What became of it.
        reply: Reply<Kept>,
    },
    /// Write all of this down before you answer.
    Promises {
        /// What.
        writes: Vec<Write>,
        /// [`Kept::Refused`] with the first that was refused.
        reply: Reply<Kept>,
    },
    /// Change the catalogue, and write down who hears of it, before you answer.
    Change {
        /// Each whole or not at all.
        changes: Vec<Change>,
        /// What became of each, or nothing while the database is away.
        reply: Reply<Option<Vec<Changed>>>,
    },
    /// How do these resources of ours stand?
    Held {
        /// Creators and ids.
        keys: Vec<(PeerId, String)>,
        /// In their order, or nothing while the database is away.
        reply: Reply<Option<Vec<Option<StandingRow>>>>,
    },
    /// What each peer is to us.
    Relations {
        /// All of them, or nothing while the database is away.
        reply: Reply<Option<Vec<RelationRow>>>,
    },
    /// What waits for somebody, in order?
    OutboxNext {
        /// For whom.
        destination: Destination,
        /// Only of this subject.
        subject: &'static str,
        /// Later than this.
        after: u64,
        /// At most so many.
        limit: u32,
        /// The rows, or nothing while the database is away.
        reply: Reply<Option<Vec<OutboxRow>>>,
    },
    /// For whom does anything wait?
    OutboxWaiting {
        /// One row each, or nothing while the database is away.
        reply: Reply<Option<Vec<OutboxTotal>>>,
    },
    /// Which planner sessions are open, and for whom do steps wait?
    Plans {
        /// Both, or nothing while the database is away.
        reply: Reply<Option<Plans>>,
    },
    /// How did the day stand when it was kept?
    Day {
        /// As it was kept, if one was; nothing while the database is away.
        reply: Reply<Option<Option<String>>>,
    },
    /// Give up what has waited for partners since before this.
    ExpireOutbox {
        /// When it was begun.
        before: Timestamp,
    },
    /// Bans and orders.
    Policy {
        /// All of them, or nothing while the database is away.
        reply: Reply<Option<Policy>>,
    },
    /// Revocations.
    Revocations {
        /// All of them, or nothing while the database is away.
        reply: Reply<Option<Vec<Held>>>,
    },
    /// The keys that were first seen for DIDs that do not name theirs.
    Bindings {
        /// All of them, or nothing while the database is away.
        reply: Reply<Option<Vec<Binding>>>,
    },
    /// Every peer kept.
    Peers {
        /// As the book holds them, or nothing while the database is away.
        reply: Reply<Option<Vec<(PeerId, Entry)>>>,
    },
    /// Every member remembered, best first.
    Members {
        /// The rows, or nothing while the database is away.
        reply: Reply<Option<Vec<MemberRow>>>,
    },
    /// Forget a batch of what is stale.
    Collect,
    /// Write what waits.
    Flush,
}

impl Actor for Store {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        Ok(State { seat, context, waiting: VecDeque::new(), dropped: 0, is_ok: true, timer: None })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::KeepPeers(rows) => state.keep(rows.into_iter().map(Write::Peer)),
            Msg::KeepMember(row) => state.keep([Write::Member(row)]),
            Msg::ForgetMember(peer) => state.keep([Write::ForgetMember(peer)]),
            Msg::KeepDay(day) => state.keep([Write::Day(day)]),
            Msg::NextSeq { did, reply } => state.next_seq(&did, reply).await?,
            Msg::Promise { write, reply } => state.promise(*write, reply).await?,
            Msg::Promises { writes, reply } => state.promises(&writes, reply).await?,
            Msg::Change { changes, reply } => state.change(&changes, reply).await?,
            Msg::Held { keys, reply } => state.held(&keys, reply).await?,
            Msg::Relations { reply } => state.relations(reply).await?,
            Msg::OutboxNext { destination, subject, after, limit, reply } => {
                state.outbox_next(&destination, subject, after, limit, reply).await?;
            }
            Msg::OutboxWaiting { reply } => state.outbox_waiting(reply).await?,
            Msg::Plans { reply } => state.plans(reply).await?,
            Msg::Day { reply } => state.day(reply).await?,
            Msg::ExpireOutbox { before } => state.expire_outbox(before).await?,
            Msg::Policy { reply } => state.policy(reply).await?,
            Msg::Revocations { reply } => state.revocations(reply).await?,
            Msg::Bindings { reply } => state.bindings(reply).await?,
            Msg::Peers { reply } => state.peers(reply).await?,
            Msg::Members { reply } => state.members(reply).await?,
            Msg::Collect => state.collect().await?,
            Msg::Flush => state.flush().await?,
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.flush().await?;
        Ok(())
    }
}

impl State {
    fn keep(&mut self, writes: impl IntoIterator<Item = Write>) {
        self.waiting.extend(writes);
        while self.waiting.len() > WAITING_MAX {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        if self.timer.is_none() {
            self.timer = Some(self.seat.after(BATCH_WITHIN, Msg::Flush));
        }
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        self.timer = None;
        if self.waiting.is_empty() {
            return Ok(());
        }
        let batch = self.waiting.make_contiguous();
        let batch = &batch[..batch.len().min(::store::WRITES_MAX)];
        let outcome = self.context.database.apply(batch).await;
        let written = batch.len();
        match self.judge(outcome)? {
            Some(applied) => {
                self.waiting.drain(..written);
                for refused in applied.refused {
                    warn!(?refused, "a row was refused");
                }
            }
            None => self.timer = Some(self.seat.after(RETRY_EVERY, Msg::Flush)),
        }
        Ok(())
    }

    async fn next_seq(&mut self, did: &str, reply: Reply<Option<u64>>) -> Result<(), StoreError> {
        let outcome = self.context.database.next_seq(did, self.seat.now().wall).await;
        reply.send(self.judge(outcome)?);
        Ok(())
    }

    /// Alone and at once: what waits are memories, and may.
    async fn promise(&mut self, write: Write, reply: Reply<Kept>) -> Result<(), StoreError> {
        self.promises(&[write], reply).await
    }

    async fn promises(&mut self, writes: &[Write], reply: Reply<Kept>) -> Result<(), StoreError> {
        let outcome = self.context.database.apply(writes).await;
        reply.send(match self.judge(outcome)? {
            Some(applied) => match applied.refused.into_iter().next() {
                Some(refused) => Kept::Refused(refused.why),
                None => Kept::Written,
            },
            None => Kept::Away,
        });
        Ok(())
    }

    async fn change(&mut self, changes: &[Change], reply: Reply<Option<Vec<Changed>>>) -> Result<(), StoreError> {
        let outcome = self.context.database.change(changes).await;
        reply.send(self.judge(outcome)?);
        Ok(())
    }

    async fn held(
        &mut self,
        keys: &[(PeerId, String)],
        reply: Reply<Option<Vec<Option<StandingRow>>>>,
    ) -> Result<(), StoreError> {
        let mut rows = Vec::with_capacity(keys.len());
        for (creator, id) in keys {
            let outcome = self.context.database.standing(creator, id).await;
            let Some(row) = self.judge(outcome)? else {
                reply.send(None);
                return Ok(());
            };
            rows.push(row);
        }
        reply.send(Some(rows));
        Ok(())
    }

    async fn relations(&mut self, reply: Reply<Option<Vec<RelationRow>>>) -> Result<(), StoreError> {
        let outcome = self.context.database.relations().await;
        reply.send(self.judge(outcome)?.map(|rows| rows.rows));
        Ok(())
    }

    async fn outbox_next(
        &mut self,
        destination: &Destination,
        subject: &str,
        after: u64,
        limit: u32,
        reply: Reply<Option<Vec<OutboxRow>>>,
    ) -> Result<(), StoreError> {
        let outcome = self.context.database.outbox_next_of(destination, subject, after, limit).await;
        reply.send(self.judge(outcome)?.map(|rows| rows.rows));
        Ok(())
    }

    async fn outbox_waiting(&mut self, reply: Reply<Option<Vec<OutboxTotal>>>) -> Result<(), StoreError> {
        let outcome = self.context.database.outbox_waiting().await;
        reply.send(self.judge(outcome)?.map(|rows| rows.rows));
        Ok(())
    }

    async fn plans(&mut self, reply: Reply<Option<Plans>>) -> Result<(), StoreError> {
        let database = &self.context.database;
        let outcome = match database.plans(self.seat.now().wall).await {
            Ok(rows) => database.plans_waiting().await.map(|waiting| Plans { sessions: rows.rows, waiting }),
            Err(error) => Err(error),
        };
        reply.send(self.judge(outcome)?);
        Ok(())
    }

    async fn day(&mut self, reply: Reply<Option<Option<String>>>) -> Result<(), StoreError> {
        // What waits for the next batch is newer than what is written.
        let waiting = self.waiting.iter().rev().find_map(|write| match write {
            Write::Day(day) => Some(day.clone()),
            _ => None,
        });
        if waiting.is_some() {
            reply.send(Some(waiting));
            return Ok(());
        }
        let outcome = self.context.database.running_day().await;
        reply.send(self.judge(outcome)?);
        Ok(())
    }

    async fn expire_outbox(&mut self, before: Timestamp) -> Result<(), StoreError> {
        let at = self.seat.now().wall;
        let outcome = self.context.database.expire_outbox(before, at, COLLECT_MAX).await;
        if let Some(gone @ 1..) = self.judge(outcome)? {
            warn!(gone, "events that no partner took within a day were given up");
        }
        Ok(())
    }

    async fn policy(&mut self, reply: Reply<Option<Policy>>) -> Result<(), StoreError> {
        let database = &self.context.database;
        let outcome = match database.bans().await {
            Ok(bans) => database.drained_since().await.map(|since| Policy { bans: bans.rows, drained_since: since }),
            Err(error) => Err(error),
        };
        reply.send(self.judge(outcome)?);
        Ok(())
    }

    async fn revocations(&mut self, reply: Reply<Option<Vec<Held>>>) -> Result<(), StoreError> {
        let outcome = self.context.database.revocations().await;
        reply.send(self.judge(outcome)?.map(|rows| rows.rows));
        Ok(())
    }

    async fn bindings(&mut self, reply: Reply<Option<Vec<Binding>>>) -> Result<(), StoreError> {
        let outcome = self.context.database.bindings().await;
        reply.send(self.judge(outcome)?.map(|rows| rows.rows));
        Ok(())
    }

    async fn peers(&mut self, reply: Reply<Option<Vec<(PeerId, Entry)>>>) -> Result<(), StoreError> {
        let outcome = self.context.database.peers(self.context.settings.store.peers_max).await;
        reply.send(self.judge(outcome)?.map(|rows| rows.rows.into_iter().map(from_row).collect()));
        Ok(())
    }

    async fn members(&mut self, reply: Reply<Option<Vec<MemberRow>>>) -> Result<(), StoreError> {
        let outcome = self.context.database.remembered_members().await;
        reply.send(self.judge(outcome)?.map(|rows| with_waiting(rows.rows, self.waiting.iter().rev())));
        Ok(())
    }

    async fn collect(&mut self) -> Result<(), StoreError> {
        let now = self.seat.now().wall;
        let database = &self.context.database;
        let mut outcomes = Vec::new();
        if let Ok(before) = now.checked_sub(FORGET_AFTER) {
            outcomes.push(database.forget_stale(before, COLLECT_MAX).await);
        }
        if let Ok(before) = now.checked_sub(BAN_MEMORY) {
            outcomes.push(database.forget_ended_bans(before, COLLECT_MAX).await);
        }
        if let Ok(before) = now.checked_sub(RECEIPT_LIFE) {
            outcomes.push(database.forget_receipts(before, COLLECT_MAX).await);
            outcomes.push(database.forget_outbox(before, COLLECT_MAX).await);
        }
        if let Ok(before) = now.checked_sub(REMOVED_LIFE) {
            outcomes.push(database.forget_removed(before, COLLECT_MAX).await);
        }
        if let Ok(before) = now.checked_sub(UNBIND_AFTER) {
            outcomes.push(database.forget_stale_bindings(before, COLLECT_MAX).await);
        }
        for outcome in outcomes {
            self.judge(outcome)?;
        }
        Ok(())
    }

    /// What went wrong is told; a disk that failed ends the process, for what it holds is no longer known.
    fn judge<T>(&mut self, outcome: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match outcome {
            Ok(value) => {
                self.tell(true);
                Ok(Some(value))
            }
            Err(StoreError::Io { detail }) => {
                error!(detail, "the disk of the database failed");
                self.context.fatal.cancel();
                Err(StoreError::Io { detail })
            }
            Err(error) => {
                if self.is_ok {
                    warn!(%error, waiting = self.waiting.len(), dropped = self.dropped, "the database is away");
                }
                self.tell(false);
                Ok(None)
            }
        }
    }

    fn tell(&mut self, is_ok: bool) {
        if self.is_ok != is_ok {
            self.is_ok = is_ok;
            inform(&self.context.addresses.health, Class::Control, health::Msg::Stored(is_ok));
        }
    }
}

/// What a task beside the actors read from the database; nothing while it is away. A disk that failed ends the process.
pub(crate) fn told<T>(context: &Context, outcome: Result<T, StoreError>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(StoreError::Io { detail }) => {
            error!(detail, "the disk of the database failed");
            context.fatal.cancel();
            None
        }
        Err(error) => {
            debug!(%error, "the database is away");
            None
        }
    }
}

/// What waits for the next batch is newer than what is written.
fn with_waiting<'a>(mut rows: Vec<MemberRow>, newest_first: impl Iterator<Item = &'a Write>) -> Vec<MemberRow> {
    let mut seen = BTreeSet::new();
    for write in newest_first {
        let (peer, row) = match write {
            Write::Member(row) => (row.peer, Some(row)),
            Write::ForgetMember(peer) => (*peer, None),
            _ => continue,
        };
        if seen.insert(peer) {
            rows.retain(|written| written.peer != peer);
            rows.extend(row.cloned());
        }
    }
    // As the database gives them: those to go back to first, the best of them before the others.
    let score = |row: &MemberRow| row.score.unwrap_or(f64::NEG_INFINITY);
    rows.sort_by_key(|row| Reverse(row.last_answer));
    rows.sort_by(|one, other| one.standing.cmp(&other.standing).then(score(other).total_cmp(&score(one))));
    rows
}

/// A peer as its row.
pub(crate) fn to_row(peer: PeerId, entry: &Entry) -> PeerRow {
    PeerRow {
        peer,
        did: entry.did.clone(),
        name: entry.name.clone(),
        role: entry.role,
        agent: entry.agent.clone(),
        last_seen: entry.last_seen,
        addresses: entry
            .addrs
            .iter()
            .map(|fare| AddressRow {
                address: fare.addr.clone(),
                succeeded: fare.succeeded,
                failed: fare.failed,
                last_ok: fare.last_ok,
                last_failed: fare.last_failed,
            })
            .collect(),
    }
}

fn from_row(row: PeerRow) -> (PeerId, Entry) {
    let addrs = row
        .addresses
        .into_iter()
        .map(|row| Fare {
            addr: row.address,
            succeeded: row.succeeded,
            failed: row.failed,
            last_ok: row.last_ok,
            last_failed: row.last_failed,
        })
        .collect();
    let entry = Entry {
        name: row.name,
        did: row.did,
        role: row.role,
        agent: row.agent,
        is_connected: false,
        last_seen: row.last_seen,
        addrs,
    };
    (row.peer, entry)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use protocol::{Timestamp, identity::Keys, wire::Role};

    use super::*;

    #[test]
    fn how_an_address_fared_is_kept_over_a_restart() {
        let peer = Keys::from_seed([1; 32]).peer_id();
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let fare = Fare {
            addr: "/ip4/192.0.2.1/tcp/4001".parse().unwrap(),
            succeeded: 3,
            failed: 2,
            last_ok: at(10),
            last_failed: at(20),
        };
        let entry = Entry {
            name: "paris".to_owned(),
            did: "did:key:z6Mk".to_owned(),
            role: Role { node: true, indexer: false },
            agent: "muster/0.1.0".to_owned(),
            is_connected: false,
            last_seen: at(30),
            addrs: vec![fare],
        };
        assert_eq!(from_row(to_row(peer, &entry)), (peer, entry));
    }

    #[test]
    fn what_waits_to_be_written_of_members_is_read_as_if_it_were() {
        let member = |n: u8, score: f64| MemberRow {
            peer: Keys::from_seed([n; 32]).peer_id(),
            addresses: Vec::new(),
            is_seed: false,
            score: Some(score),
            evidence: String::new(),
            last_answer: Some(Timestamp::from_second(i64::from(n)).unwrap()),
            standing: 0,
        };
        let written = vec![member(4, 1.0), member(3, 1.0), member(2, 1.0)];
        let waiting = [
            Write::Member(member(3, 2.0)),
            Write::Member(member(2, 2.0)),
            Write::ForgetMember(member(4, 1.0).peer),
            Write::Day(String::new()),
            Write::Member(member(1, 2.0)),
            Write::ForgetMember(member(2, 2.0).peer),
            Write::Member(member(3, 3.0)),
        ];
        assert_eq!(with_waiting(written.clone(), waiting.iter().rev()), [member(3, 3.0), member(1, 2.0)]);
        assert_eq!(with_waiting(written.clone(), [].iter()), written);
    }

    #[test]
    fn the_best_of_those_to_go_back_to_are_read_first() {
        let member = |n: u8, score, standing| MemberRow {
            peer: Keys::from_seed([n; 32]).peer_id(),
            addresses: Vec::new(),
            is_seed: false,
            score,
            evidence: String::new(),
            last_answer: Some(Timestamp::from_second(i64::from(n)).unwrap()),
            standing,
        };
        let best_first =
            [member(1, Some(90.0), 0), member(3, Some(70.0), 0), member(2, Some(70.0), 0), member(4, None, 0)];
        let evicted = member(5, Some(95.0), 1);
        let expected: Vec<MemberRow> = best_first.into_iter().chain([evicted]).collect();
        let mut rows = expected.clone();
        rows.sort_by_key(|row| row.peer);
        assert_eq!(with_waiting(rows, [].iter()), expected);
    }
}
