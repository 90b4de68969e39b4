//! ScoreActor: the only owner of evidence about indexers, and so of every score.
//!
//! Owns [`protocol::score::Book`] and the ledgers in it. Heartbeats tell it what they observed and what witnesses said,
//! the pool who is a member and what it decided; it tells the pool the scores and who is to go. A restart takes the
//! evidence up again as the store kept it, at most one judgement old, and forgets the events, what witnesses are worth and
//! what scores were. While the database is away it judges by what it sees itself and tells no scores, which would be written
//! over what is kept. Bounds: `score.indexers_max` indexers; those of the ledger and of the history.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, time::Duration};

use ::store::MemberRow;
use protocol::{
    PeerId, Timestamp,
    score::{Book, Decision, Explained, History, Judged, Observation, Part, Row, Sample, Score as Scored},
    time::Now,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::{info, warn};

use crate::{
    config::{Offered, Turn},
    context::{Context, inform},
    pool,
    settings::Settings,
    store,
    supervision::{Class, Envelope, Reply, Seat, Timer},
    view::{CurveView, ScoreView},
};

/// While the database does not answer it is asked this often.
const RETRY_EVERY: Duration = Duration::from_secs(1);

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
    history: History,
    members: Vec<Judged>,
    /// When the store is asked again for what it kept; nothing once it told that.
    asking: Option<Timer>,
    timer: Timer,
    offered: Offered,
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
    /// What the store kept; nothing when the database is away.
    Restored(Option<Vec<MemberRow>>),
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
    /// What scores were is wanted.
    History {
        /// Whose; nobody for all.
        peer: Option<PeerId>,
        /// Judged after this.
        since: Timestamp,
        /// Curves.
        reply: Reply<Vec<CurveView>>,
    },
    /// Settings may change.
    Configure(Turn),
    /// Which share of the peers asked lately is silent? Nothing where that says nothing.
    SilentShare(Reply<Option<f64>>),
    /// The store may answer now.
    Retry,
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
        let book = Book::new(context.live().score.clone());
        inform(&context.addresses.pool, Class::Control, pool::Msg::TellScore);
        let timer = seat.after(book.settings().judge_every, Msg::Tick);
        let (history, offered) = (History::default(), Offered::default());
        let mut state = State { seat, context, book, history, members: Vec::new(), asking: None, timer, offered };
        state.recall();
        Ok(state)
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
            Msg::History { peer, since, reply } => reply.send(state.history(peer, since)),
            Msg::Configure(turn) => state.configure(turn),
            Msg::SilentShare(reply) => reply.send(state.book.silent_share(state.seat.now().mono)),
            Msg::Retry => state.retry(),
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

    fn recall(&mut self) {
        let ask = store::Msg::Members { reply: self.seat.reply(Msg::Restored) };
        inform(&self.context.addresses.store, Class::Control, ask);
        self.asking = Some(self.seat.after(RETRY_EVERY, Msg::Retry));
    }

    fn retry(&mut self) {
        if self.asking.is_some() {
            self.recall();
        }
    }

    fn restored(&mut self, rows: Option<Vec<MemberRow>>) {
        // The timer asks again where the database is away.
        let Some(rows) = rows.filter(|_| self.asking.is_some()) else { return };
        self.asking = None;
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

    fn history(&self, peer: Option<PeerId>, since: Timestamp) -> Vec<CurveView> {
        let curves = self.history.since(peer, since);
        curves.map(|(peer, samples)| CurveView { peer_id: *peer, samples: samples.map(view).collect() }).collect()
    }

    fn configure(&mut self, turn: Turn) {
        let known = self.book.len();
        let fits = |new: &Settings| match new.score.indexers_max {
            // Evidence is forgotten when others come, never by an order.
            most if most < known => Err(format!("score.indexers_max is {most}, and {known} indexers are known")),
            _ => Ok(()),
        };
        if let Some(settings) = self.offered.take(turn, fits) {
            // What is set anew with the same loses what could be replayed, for nothing.
            if settings.score != *self.book.settings() {
                self.book.set_settings(settings.score.clone());
            }
            self.timer = self.seat.after(settings.score.judge_every, Msg::Tick);
        }
    }

    fn tick(&mut self) {
        let now = self.seat.now();
        for eviction in self.book.judge(&self.members, now.mono) {
            let score = &eviction.score;
            info!(indexer = %eviction.peer, score = score.value, threshold = score.threshold, "evicted for its score");
            inform(&self.context.addresses.pool, Class::Control, pool::Msg::Evicted { peer: eviction.peer });
        }
        for member in &self.members {
            if let Some(score) = self.book.score(&member.peer, now.mono) {
                self.history.take(member.peer, Sample::of(&score, now.wall));
            }
        }
        // Evidence without the past would be written over it.
        if self.asking.is_none() {
            self.tell_scores(now);
        }
        // Re-armed last, so that two never queue.
        self.timer = self.seat.after(self.book.settings().judge_every, Msg::Tick);
    }

    fn tell_scores(&self, now: Now) {
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
    }
}

fn view(sample: &Sample) -> ScoreView {
    let Sample { at, value, low, high, threshold, parts } = sample;
    let named = Part::ALL.into_iter().zip(parts);
    let parts = named.filter_map(|(part, value)| Some((part.name().to_owned(), (*value)?))).collect();
    ScoreView { at: *at, value: *value, low: *low, high: *high, threshold: *threshold, parts }
}
