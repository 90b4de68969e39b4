//! ScoreActor: the only owner of evidence about indexers, and so of every score.
//!
//! Owns [`protocol::score::Book`] and the ledgers in it. Heartbeats tell it what they observed and what witnesses said,
//! the pool who is a member and what it decided; it tells the pool the scores and who is to go. A restart takes the
//! evidence up again as the store kept it, at most one judgement old, and forgets the events and what witnesses are
//! worth. Bounds: `score.indexers_max` indexers; the ledger's own.

use std::collections::BTreeSet;

use ::store::MemberRow;
use protocol::{
    PeerId,
    score::{Book, Decision, Explained, Judged, Observation, Row, Score as Scored},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::{info, warn};

use crate::{
    context::{Context, inform},
    pool, store,
    supervision::{Class, Envelope, Reply, Seat, Timer},
};

/// The actor.
pub struct Score;

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
    book: Book,
    members: Vec<Judged>,
    timer: Timer,
}

/// What it is told and asked.
pub enum Msg {
    /// Something was seen of an indexer.
    Observed {
        /// The indexer.
        peer: PeerId,
        /// What.
        observation: Observation,
    },
    /// Witnesses reported on an indexer.
    Witnessed {
        /// The indexer.
        indexer: PeerId,
        /// Who, and whether it says the same as the indexer.
        reports: Vec<(PeerId, bool)>,
    },
    /// Others were asked whether they reach an indexer that does not answer us.
    AskedOthers {
        /// The indexer.
        peer: PeerId,
        /// How many gave an answer.
        answered: u32,
        /// How many of them reach it.
        reach: u32,
    },
    /// The pool decided something about an indexer.
    Decided {
        /// The indexer.
        peer: PeerId,
        /// What.
        what: Decision,
    },
    /// Who is in the pool now.
    Members(Vec<Judged>),
    /// What the store kept.
    Restored(Vec<MemberRow>),
    /// The scores of these are wanted.
    Look {
        /// Whose.
        peers: Vec<PeerId>,
        /// In the same order.
        reply: Reply<Vec<Option<Scored>>>,
    },
    /// A score is wanted with every event behind it; nothing about an indexer that is not known.
    Explain {
        /// Whose.
        peer: PeerId,
        /// The explanation.
        reply: Reply<Option<Box<Explained>>>,
    },
    /// Which share of the peers asked lately is silent? Nothing where that says nothing.
    SilentShare(Reply<Option<f64>>),
    /// Judge.
    Tick,
}

impl Actor for Score {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let book = Book::new(context.settings.score.clone());
        let restored = store::Msg::Members { reply: seat.reply(Msg::Restored) };
        inform(&context.addresses.store, Class::Control, restored);
        inform(&context.addresses.pool, Class::Control, pool::Msg::TellScore);
        let timer = seat.after(context.settings.score.judge_every, Msg::Tick);
        Ok(State { seat, context, book, members: Vec::new(), timer })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Observed { peer, observation } => state.book.observe(peer, &observation, state.seat.now().mono),
            Msg::Witnessed { indexer, reports } => {
                state.book.witnessed(indexer, &reports, state.seat.now().mono);
            }
            Msg::AskedOthers { peer, answered, reach } => {
                state.book.asked_others(&peer, answered, reach, state.seat.now().mono);
            }
            Msg::Decided { peer, what } => state.book.decide(&peer, what, state.seat.now().mono),
            Msg::Members(members) => state.members(members),
            Msg::Restored(rows) => state.restored(rows),
            Msg::Look { peers, reply } => reply.send(state.look(&peers)),
            Msg::Explain { peer, reply } => reply.send(state.book.explain(&peer, state.seat.now()).map(Box::new)),
            Msg::SilentShare(reply) => reply.send(state.book.silent_share(state.seat.now().mono)),
            Msg::Tick => state.tick(),
        }
        Ok(())
    }
}

impl State {
    fn members(&mut self, members: Vec<Judged>) {
        let peers: BTreeSet<PeerId> = members.iter().map(|member| member.peer).collect();
        self.book.set_members(&peers);
        self.members = members;
    }

    fn restored(&mut self, rows: Vec<MemberRow>) {
        let evidence: Vec<Row> = rows
            .iter()
            .filter(|row| !row.evidence.is_empty())
            .filter_map(|row| {
                serde_json::from_str(&row.evidence)
                    .inspect_err(|error| warn!(peer = %row.peer, %error, "kept evidence is unreadable"))
                    .ok()
            })
            .collect();
        self.book.restore(evidence, self.seat.now());
    }

    fn look(&self, peers: &[PeerId]) -> Vec<Option<Scored>> {
        let now = self.seat.now().mono;
        peers.iter().map(|peer| self.book.score(peer, now)).collect()
    }

    fn tick(&mut self) {
        let now = self.seat.now();
        for eviction in self.book.judge(&self.members, now.mono) {
            let score = &eviction.score;
            info!(indexer = %eviction.peer, score = score.value, threshold = score.threshold, "evicted for its score");
            inform(&self.context.addresses.pool, Class::Control, pool::Msg::Evicted { peer: eviction.peer });
        }
        let scores = self
            .book
            .rows(now)
            .into_iter()
            .filter_map(|row| {
                let score = self.book.score(&row.peer_id, now.mono)?;
                let evidence = serde_json::to_string(&row).ok()?;
                let is_condemned = self.book.is_condemned(&row.peer_id, now.mono);
                Some(pool::Scored { peer: row.peer_id, low: score.low, value: score.value, is_condemned, evidence })
            })
            .collect();
        inform(&self.context.addresses.pool, Class::Control, pool::Msg::Scores(scores));
        // Re-armed last, so that two never queue.
        self.timer = self.seat.after(self.context.settings.score.judge_every, Msg::Tick);
    }
}
