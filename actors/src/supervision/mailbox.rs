//! The counted part of a mailbox: how many messages are in flight, the most there ever were, how many were refused.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// Counts of one actor's mailbox. It holds no message: each message holds a permit that gives its place back.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    in_flight: AtomicU64,
    in_flight_max: AtomicU64,
    shed: AtomicU64,
}

impl Mailbox {
    /// Takes a place when fewer than `limit` are taken; else counts a refusal. Never more than `limit`, however many ask.
    pub(super) fn admit(&self, limit: u64) -> bool {
        let taken = self.in_flight.fetch_update(AcqRel, Acquire, |count| (count < limit).then_some(count + 1));
        match taken {
            Ok(before) => self.rose_to(before + 1),
            Err(_) => drop(self.shed.fetch_add(1, Relaxed)),
        }
        taken.is_ok()
    }

    /// Takes a place whatever the count, for what is bounded elsewhere.
    pub(super) fn admit_always(&self) {
        let before = self.in_flight.fetch_add(1, AcqRel);
        self.rose_to(before + 1);
    }

    /// Looks before it writes, because a new maximum is rare.
    fn rose_to(&self, count: u64) {
        if self.in_flight_max.load(Relaxed) < count {
            self.in_flight_max.fetch_max(count, Relaxed);
        }
    }

    /// Gives a place back.
    pub(super) fn release(&self) {
        self.in_flight.fetch_sub(1, AcqRel);
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Acquire)
    }

    pub(super) fn in_flight_max(&self) -> u64 {
        self.in_flight_max.load(Relaxed)
    }

    pub(super) fn shed(&self) -> u64 {
        self.shed.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_is_given_and_the_next_one_is_refused_and_counted() {
        let mailbox = Mailbox::default();
        assert!(mailbox.admit(2) && mailbox.admit(2));
        assert!(!mailbox.admit(2));
        assert_eq!((mailbox.in_flight(), mailbox.in_flight_max(), mailbox.shed()), (2, 2, 1));
        mailbox.release();
        assert!(mailbox.admit(2));
        mailbox.admit_always();
        assert_eq!((mailbox.in_flight(), mailbox.in_flight_max(), mailbox.shed()), (3, 3, 1));
    }

    #[test]
    fn many_threads_never_pass_the_limit_and_leave_nothing_behind() {
        const LIMIT: u64 = 8;
        let mailbox = Mailbox::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if mailbox.admit(LIMIT) {
                            mailbox.release();
                        }
                    }
                });
            }
        });
        assert_eq!(mailbox.in_flight(), 0);
        assert!(mailbox.in_flight_max() <= LIMIT);
    }
}
