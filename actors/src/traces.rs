//! Traces, as far as the tree makes them: contexts drawn and heeded, and spans told to whoever exports them.
//!
//! Telling a span never waits: it is put into a bounded queue, and dropped and counted where the queue is full or nobody
//! exports. No actor owns anything of it; the table of those whose contexts are heeded is of a fixed size and counted without
//! a lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use protocol::{
    PeerId,
    search::Tally,
    trace::{self, Begun, LOTS, Outcome, Span, TraceContext, Traceparent, Work},
};
use rand::{Rng, RngExt as _};
use tokio::sync::mpsc;
use tracing::debug;

use crate::context::Context;

/// Spans that wait for the collector: some seconds of a busy indexer's, and under a mebibyte.
pub const QUEUE_MAX: usize = 2_048;

/// Where spans go, and how much is sampled; cheap to clone. The default goes nowhere.
#[derive(Clone, Debug)]
pub struct Traces {
    to: Option<mpsc::Sender<Span>>,
    sample: f64,
    lots: Arc<[AtomicU64; LOTS]>,
}

impl Default for Traces {
    fn default() -> Self {
        Self { to: None, sample: 0.0, lots: Arc::new(std::array::from_fn(|_| AtomicU64::new(0))) }
    }
}

impl Traces {
    /// Spans that go to `to`, of the share `sample` of our own searches and beats.
    #[must_use]
    pub fn new(to: mpsc::Sender<Span>, sample: f64) -> Self {
        Self { to: Some(to), sample, ..Self::default() }
    }

    /// Begins a trace where somebody wants one, or where chance takes this one for the sample.
    pub(crate) fn begin(&self, is_wanted: bool, rng: &mut impl Rng) -> Option<TraceContext> {
        // Nothing is drawn where nothing is sampled, so that a seed plays the same with and without.
        let may_sample = self.to.is_some() && self.sample > 0.0;
        let is_traced = is_wanted || (may_sample && rng.random_bool(self.sample.clamp(0.0, 1.0)));
        is_traced.then(|| TraceContext::begin(rng))
    }

    /// One more span may be begun here on the word of this peer.
    fn admits(&self, peer: &PeerId, now: Duration) -> bool {
        let cell = &self.lots[trace::lot(peer)];
        cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |cell| trace::admit(cell, now)).is_ok()
    }
}

/// Work for another member, as far as it is traced.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guest {
    begun: Option<Begun>,
    /// What those are told who are asked in turn: our span of it, or what we were told where we keep none.
    pub(crate) onward: Traceparent,
}

impl Guest {
    /// Begins work for `from`, which may have named a trace. A span is made of it only where we export any, the trace is
    /// sampled and its peer began not too many; the trace goes on in any case, for others may.
    pub(crate) fn of(context: &Context, given: Traceparent, work: Work, from: PeerId, rng: &mut impl Rng) -> Self {
        if given == Traceparent::Unreadable {
            context.stats.trace_contexts_unreadable.inc();
        }
        let Some(named) = given.context() else { return Self::default() };
        let (traces, now) = (&context.traces, context.now());
        if traces.to.is_none() || !named.is_sampled() || !traces.admits(&from, now.mono.since_start()) {
            return Self { begun: None, onward: given };
        }
        let begun = Begun::for_another(named, work, from, now, rng);
        Self { begun: Some(begun), onward: Traceparent::Given(begun.context) }
    }

    /// The work is over.
    pub(crate) fn over(self, context: &Context, outcome: Outcome, hits: Option<usize>, tally: Option<Tally>) {
        let Some(begun) = self.begun else { return };
        let hits = hits.map(|hits| u32::try_from(hits).unwrap_or(u32::MAX));
        tell(context, begun.over(outcome, hits, tally, context.now()));
    }
}

/// Tells a span to whoever exports spans, and to the log; never waits.
pub(crate) fn tell(context: &Context, span: Span) {
    debug!(
        trace = span.context.trace_text(),
        span = span.context.span_id(),
        work = span.work.name(),
        outcome = span.outcome.name(),
        took = ?span.took,
        "traced"
    );
    let Some(to) = &context.traces.to else { return };
    let counted =
        if to.try_send(span).is_ok() { &context.stats.trace_spans } else { &context.stats.trace_spans_dropped };
    counted.inc();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use protocol::{identity::Keys, trace::GUEST_SPANS_PER_MINUTE};
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn nothing_is_traced_and_nothing_drawn_unless_somebody_wants_it() {
        let (mut rng, untouched) = (StdRng::seed_from_u64(3), StdRng::seed_from_u64(3));
        let (to, _spans) = mpsc::channel(1);
        for off in [Traces::default(), Traces { sample: 1.0, ..Traces::default() }, Traces::new(to, 0.0)] {
            assert_eq!(off.begin(false, &mut rng), None);
            assert_eq!(rng, untouched);
        }
        assert!(Traces::default().begin(true, &mut rng).unwrap().is_sampled());
        assert_ne!(rng, untouched);
    }

    #[test]
    fn the_sample_is_the_share_that_was_set() {
        let mut rng = StdRng::seed_from_u64(3);
        let (to, _spans) = mpsc::channel(1);
        assert!((0..100).all(|_| Traces::new(to.clone(), 1.0).begin(false, &mut rng).is_some()));
        let half = Traces::new(to, 0.5);
        let taken = (0..1_000).filter(|_| half.begin(false, &mut rng).is_some()).count();
        assert!((400..600).contains(&taken), "{taken}");
    }

    #[test]
    fn one_lot_of_strangers_fills_its_own_share_and_nobody_elses() {
        let traces = Traces::default();
        let peers: Vec<PeerId> = (0..=255).map(|seed| Keys::from_seed([seed; 32]).peer_id()).collect();
        let hostile = &peers[0];
        let other = peers.iter().find(|peer| trace::lot(peer) != trace::lot(hostile)).unwrap();
        let now = Duration::from_secs(1);
        let admitted = (0..10 * GUEST_SPANS_PER_MINUTE).filter(|_| traces.admits(hostile, now)).count();
        assert_eq!(admitted, GUEST_SPANS_PER_MINUTE as usize);
        assert!(traces.admits(other, now));
        assert!(traces.admits(hostile, Duration::from_secs(60)));
    }
}
