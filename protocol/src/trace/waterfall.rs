//! What one search met on its way: who was asked when, and when each answered.

use libp2p_identity::PeerId;
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{Begun, Outcome, Span, TraceContext, Work};
use crate::{
    search::Tally,
    time::{Mono, Now},
};

/// Members that one waterfall shows; more are only counted. As many as one search asks on streams of their own.
pub const ROWS_MAX: usize = 256;

/// How somebody was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// On a stream of its own.
    Stream,
    /// By gossip; it answered by itself.
    Gossip,
    /// It is ourselves.
    Here,
}

impl How {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Stream, Self::Gossip, Self::Here];
}

/// One of those who were asked, or who answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Who.
    pub peer: PeerId,
    /// How.
    pub how: How,
    /// The span that it was told.
    pub context: TraceContext,
    /// When it was asked.
    pub asked: Now,
    /// When it could be spoken to.
    pub connected: Option<Mono>,
    /// Its first answer.
    pub first: Option<Mono>,
    /// Its newest answer.
    pub last: Option<Mono>,
    /// What it served.
    pub hits: u32,
    /// The indexers behind it, as it says.
    pub tally: Option<Tally>,
    /// What came of it.
    pub outcome: Outcome,
}

/// A search that is traced. Bounded by [`ROWS_MAX`].
#[derive(Clone, Debug)]
pub struct Waterfall {
    begun: Begun,
    gossiped: Option<Now>,
    rows: Vec<Row>,
    left_out: u32,
}

impl Waterfall {
    /// Nobody is asked yet.
    #[must_use]
    pub const fn new(context: TraceContext, work: Work, now: Now) -> Self {
        Self { begun: Begun::first(context, work, None, now), gossiped: None, rows: Vec::new(), left_out: 0 }
    }

    /// The search's own span.
    #[must_use]
    pub const fn context(&self) -> TraceContext {
        self.begun.context
    }

    /// When it began.
    #[must_use]
    pub const fn began(&self) -> Now {
        self.begun.at
    }

    /// Somebody is asked; what it is told.
    pub fn asked(&mut self, peer: PeerId, how: How, now: Now, rng: &mut impl Rng) -> TraceContext {
        let context = self.begun.context.child(rng);
        self.add(peer, how, context, now);
        context
    }

    /// Everybody is asked by gossip.
    pub const fn gossiped(&mut self, now: Now) {
        self.gossiped = Some(now);
    }

    /// A stream to it is open.
    pub fn connected(&mut self, peer: &PeerId, now: Mono) {
        if let Some(row) = self.row(peer) {
            row.connected.get_or_insert(now);
        }
    }

    /// It answered. Somebody who was not asked on a stream heard it by gossip.
    pub fn heard(&mut self, peer: &PeerId, hits: usize, last: Option<Option<Tally>>, now: Mono, rng: &mut impl Rng) {
        if self.row(peer).is_none() {
            let asked = self.gossiped.unwrap_or(self.begun.at);
            let context = self.begun.context.child(rng);
            self.add(*peer, How::Gossip, context, asked);
        }
        let Some(row) = self.row(peer) else { return };
        row.first.get_or_insert(now);
        row.last = Some(now);
        row.hits = row.hits.saturating_add(u32::try_from(hits).unwrap_or(u32::MAX));
        if let Some(tally) = last {
            row.tally = tally;
            row.outcome = Outcome::Answered;
        }
    }

    /// It says no, or is gone.
    pub fn failed(&mut self, peer: &PeerId, outcome: Outcome, now: Mono) {
        if let Some(row) = self.row(peer).filter(|row| row.outcome == Outcome::Open) {
            row.last = Some(now);
            row.outcome = outcome;
        }
    }

    /// Everybody, in the order in which they were asked.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// How many more there were.
    #[must_use]
    pub const fn left_out(&self) -> u32 {
        self.left_out
    }

    /// The search and everybody who was asked, as spans: whoever has not answered to the end is over with the search.
    #[must_use]
    pub fn spans(&self, hits: u32, tally: Option<Tally>, now: Now) -> Vec<Span> {
        let ask = match self.begun.work {
            Work::Resources => Work::ResourcesAsk,
            _ => Work::SearchAsk,
        };
        let of_row = |row: &Row| {
            let parent = Some(self.begun.context.span);
            let begun = Begun { context: row.context, parent, work: ask, peer: Some(row.peer), at: row.asked };
            let mono = if row.outcome == Outcome::Open { now.mono } else { row.last.unwrap_or(now.mono) };
            begun.over(row.outcome, Some(row.hits), row.tally, Now { mono, ..now })
        };
        let whole = self.begun.over(Outcome::Answered, Some(hits), tally, now);
        std::iter::once(whole).chain(self.rows.iter().map(of_row)).collect()
    }

    fn add(&mut self, peer: PeerId, how: How, context: TraceContext, asked: Now) {
        if self.rows.len() >= ROWS_MAX {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        let (connected, first, last) = (None, None, None);
        let outcome = Outcome::Open;
        self.rows.push(Row { peer, how, context, asked, connected, first, last, hits: 0, tally: None, outcome });
    }

    fn row(&mut self, peer: &PeerId) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.peer == *peer)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::identity::Keys;

    fn now(millis: u64) -> Now {
        Now { mono: Mono::from_millis(millis), wall: Timestamp::UNIX_EPOCH }
    }

    fn peer(n: u16) -> PeerId {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&n.to_le_bytes());
        Keys::from_seed(seed).peer_id()
    }

    fn begun() -> (Waterfall, StdRng) {
        let mut rng = StdRng::seed_from_u64(1);
        (Waterfall::new(TraceContext::begin(&mut rng), Work::Search, now(0)), rng)
    }

    #[test]
    fn each_is_shown_with_its_connection_its_answers_and_what_it_served() {
        let (mut waterfall, mut rng) = begun();
        let told = waterfall.asked(peer(1), How::Stream, now(1), &mut rng);
        waterfall.connected(&peer(1), Mono::from_millis(3));
        waterfall.connected(&peer(1), Mono::from_millis(4));
        waterfall.heard(&peer(1), 2, None, Mono::from_millis(5), &mut rng);
        let tally = Tally { asked: 3, answered: 3, timed_out: 0, truncated: false };
        waterfall.heard(&peer(1), 1, Some(Some(tally)), Mono::from_millis(9), &mut rng);
        let row = &waterfall.rows()[0];
        assert_eq!((row.context, row.hits, row.outcome, row.tally), (told, 3, Outcome::Answered, Some(tally)));
        assert_eq!(
            [row.connected, row.first, row.last],
            [Some(Mono::from_millis(3)), Some(Mono::from_millis(5)), Some(Mono::from_millis(9))]
        );
    }

    #[test]
    fn who_answers_what_gossip_told_it_was_asked_when_gossip_was() {
        let (mut waterfall, mut rng) = begun();
        waterfall.gossiped(now(10));
        waterfall.heard(&peer(2), 0, Some(None), Mono::from_millis(12), &mut rng);
        let row = &waterfall.rows()[0];
        assert_eq!((row.how, row.asked, row.outcome), (How::Gossip, now(10), Outcome::Answered));
    }

    #[test]
    fn who_is_lost_stays_lost_and_who_answered_is_not() {
        let (mut waterfall, mut rng) = begun();
        waterfall.asked(peer(1), How::Stream, now(0), &mut rng);
        waterfall.failed(&peer(1), Outcome::Refused, Mono::from_millis(2));
        waterfall.failed(&peer(1), Outcome::Lost, Mono::from_millis(3));
        waterfall.failed(&peer(9), Outcome::Lost, Mono::from_millis(3));
        assert_eq!(waterfall.rows()[0].outcome, Outcome::Refused);
        assert_eq!(waterfall.rows().len(), 1, "who was never asked is not lost");
    }

    #[test]
    fn the_spans_are_one_search_and_a_child_for_each() {
        let (mut waterfall, mut rng) = begun();
        waterfall.asked(peer(1), How::Stream, now(1), &mut rng);
        waterfall.asked(peer(2), How::Stream, now(1), &mut rng);
        waterfall.heard(&peer(1), 1, Some(None), Mono::from_millis(5), &mut rng);
        let spans = waterfall.spans(1, None, now(20));
        let root = &spans[0];
        assert_eq!((root.work, root.parent, root.took.as_millis()), (Work::Search, None, 20));
        assert!(spans[1..].iter().all(|span| span.parent == Some(root.context.span) && span.work == Work::SearchAsk));
        let took: Vec<_> = spans[1..].iter().map(|span| (span.took.as_millis(), span.outcome)).collect();
        assert_eq!(took, [(4, Outcome::Answered), (19, Outcome::Open)]);
    }

    #[test]
    fn as_many_rows_are_kept_as_may_be_and_more_are_counted() {
        let (mut waterfall, mut rng) = begun();
        for n in 0..=ROWS_MAX {
            waterfall.asked(peer(u16::try_from(n).unwrap_or(0)), How::Stream, now(0), &mut rng);
        }
        assert_eq!((waterfall.rows().len(), waterfall.left_out()), (ROWS_MAX, 1));
        waterfall.heard(&peer(9_999), 1, Some(None), Mono::ZERO, &mut rng);
        assert_eq!((waterfall.rows().len(), waterfall.left_out()), (ROWS_MAX, 2));
    }
}
