//! Places for connections. There are so many and no more, and whoever has nothing under way makes room for a newcomer: a
//! thousand idle connections keep nobody out.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The places of one door.
#[derive(Debug)]
pub(super) struct Seats {
    most: usize,
    held: Vec<Weak<Seat>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Counts the moments at which a connection began to be idle, which puts them in order.
    moments: AtomicU64,
    /// Somebody left, or has nothing under way any more.
    changed: Notify,
}

/// One connection's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    /// The moment since which nothing is under way; 0 while something is.
    idle_since: AtomicU64,
    leave: CancellationToken,
    shared: Arc<Shared>,
}

/// Held while a question is under way, to the last byte of its answer.
#[derive(Debug)]
pub(super) struct AtWork(Arc<Seat>);

impl Seats {
    /// So many places.
    pub(super) fn new(most: usize) -> Self {
        Self { most, held: Vec::with_capacity(most), shared: Arc::default() }
    }

    /// A place for a newcomer. At the limit the one that has been idle longest is told to leave; where all are at work,
    /// the newcomer waits for the first that is not.
    pub(super) async fn take(&mut self) -> Arc<Seat> {
        loop {
            self.held.retain(|seat| seat.strong_count() > 0);
            if self.held.len() < self.most {
                break;
            }
            let changed = self.shared.changed.notified();
            self.make_room();
            changed.await;
        }
        let seat = Arc::new(Seat {
            idle_since: AtomicU64::new(self.shared.moment()),
            leave: CancellationToken::new(),
            shared: Arc::clone(&self.shared),
        });
        self.held.push(Arc::downgrade(&seat));
        seat
    }

    fn make_room(&self) {
        let held: Vec<_> = self.held.iter().filter_map(Weak::upgrade).collect();
        // One at a time: whoever was told to leave is about to.
        if held.len() < self.most || held.iter().any(|seat| seat.leave.is_cancelled()) {
            return;
        }
        let idle = held.iter().filter(|seat| seat.idle_since.load(Relaxed) > 0);
        if let Some(oldest) = idle.min_by_key(|seat| seat.idle_since.load(Relaxed)) {
            oldest.leave.cancel();
        }
    }
}

impl Shared {
    fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Relaxed) + 1
    }
}

impl Seat {
    /// A question is under way until what is returned is dropped.
    pub(super) fn at_work(self: &Arc<Self>) -> AtWork {
        self.idle_since.store(0, Relaxed);
        AtWork(Arc::clone(self))
    }

    /// Waits until its place is wanted by somebody else.
    pub(super) async fn is_wanted(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.changed.notify_one();
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.shared.moment(), Relaxed);
        self.0.shared.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt as _;

    use super::*;

    async fn full(seats: &mut Seats) -> Vec<Arc<Seat>> {
        let mut held = Vec::new();
        for _ in 0..seats.most {
            held.push(seats.take().await);
        }
        held
    }

    #[tokio::test]
    async fn there_is_a_place_for_each_up_to_the_limit_and_nobody_is_told_to_leave() {
        let mut seats = Seats::new(3);
        let held = full(&mut seats).await;
        assert!(held.iter().all(|seat| !seat.leave.is_cancelled()));
    }

    #[tokio::test]
    async fn one_past_the_limit_takes_the_place_of_the_one_that_was_idle_longest() {
        let mut seats = Seats::new(3);
        let mut held = full(&mut seats).await;
        // The first was at work last, so the second has been idle longest.
        drop(held[0].at_work());
        assert!(seats.take().now_or_never().is_none(), "it has not left yet");
        let leaving: Vec<bool> = held.iter().map(|seat| seat.leave.is_cancelled()).collect();
        assert_eq!(leaving, [false, true, false]);
        held.remove(1);
        let newcomer = seats.take().now_or_never().unwrap();
        assert!(!newcomer.leave.is_cancelled());
        assert!(held.iter().all(|seat| !seat.leave.is_cancelled()), "one made room for one");
    }

    #[tokio::test]
    async fn whoever_is_at_work_is_never_told_to_leave_and_the_newcomer_waits() {
        let mut seats = Seats::new(2);
        let held = full(&mut seats).await;
        let (first, second) = (held[0].at_work(), held[1].at_work());
        assert!(seats.take().now_or_never().is_none());
        assert!(held.iter().all(|seat| !seat.leave.is_cancelled()));
        drop(second);
        assert!(seats.take().now_or_never().is_none());
        assert!(held[1].leave.is_cancelled() && !held[0].leave.is_cancelled());
        drop(first);
    }
}
