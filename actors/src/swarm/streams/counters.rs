//! What happened to streams, countable from anywhere.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use protocol::wire::{Protocol, RefusalCode, Refused};

use super::OpenError;

/// Seconds after which a peer that met a full house may try again.
const RETRY_AFTER_SECS: u64 = 1;

/// Why an inbound stream was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalCause {
    /// The connection has not said hello.
    NotAdmitted,
    /// The connection has already said hello.
    HelloTwice,
    /// The peer has as many streams of this protocol open as it may.
    Peer,
    /// All peers together have.
    All,
    /// The channel of the protocol is full, or nobody listens to it at the moment.
    Channel,
}

impl RefusalCause {
    /// Every cause.
    pub const ALL: [Self; 5] = [Self::NotAdmitted, Self::HelloTwice, Self::Peer, Self::All, Self::Channel];

    pub(super) fn words(self) -> Refused {
        match self {
            Self::NotAdmitted => Refused::new(RefusalCode::UnknownPeer, "this connection has not said hello"),
            Self::HelloTwice => Refused::new(RefusalCode::Invalid, "this connection has already said hello"),
            Self::Peer => busy("too many of your streams of this protocol are open"),
            Self::All => busy("too many streams of this protocol are open"),
            Self::Channel => busy("streams of this protocol wait to be taken"),
        }
    }
}

fn busy(detail: &str) -> Refused {
    Refused::new(RefusalCode::Busy, detail).retry_after(RETRY_AFTER_SECS)
}

/// Totals since the behaviour was built, and how much there is now.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) delivered: [AtomicU64; Protocol::ALL.len()],
    pub(super) refused: [AtomicU64; RefusalCause::ALL.len()],
    pub(super) reset: AtomicU64,
    pub(super) unheard: AtomicU64,
    pub(super) opened: [AtomicU64; Protocol::ALL.len()],
    pub(super) failed: [AtomicU64; OpenError::ALL.len()],
}

impl Counters {
    /// Inbound streams delivered to the channel of their protocol.
    #[must_use]
    pub fn delivered(&self, protocol: Protocol) -> u64 {
        self.delivered[protocol.index()].load(Relaxed)
    }

    /// Inbound streams answered with a refusal.
    #[must_use]
    pub fn refused(&self, cause: RefusalCause) -> u64 {
        self.refused[cause as usize].load(Relaxed)
    }

    /// Inbound streams reset because even refusals were too many at once.
    #[must_use]
    pub fn reset(&self) -> u64 {
        self.reset.load(Relaxed)
    }

    /// Inbound streams that were not served, refused or reset.
    #[must_use]
    pub fn not_served(&self) -> u64 {
        RefusalCause::ALL.into_iter().map(|cause| self.refused(cause)).sum::<u64>() + self.reset()
    }

    /// Refusals that the peer did not take in time; those streams were reset. They count as refused, too.
    #[must_use]
    pub fn unheard(&self) -> u64 {
        self.unheard.load(Relaxed)
    }

    /// Outbound streams opened.
    #[must_use]
    pub fn opened(&self, protocol: Protocol) -> u64 {
        self.opened[protocol.index()].load(Relaxed)
    }

    /// Outbound streams that could not be opened.
    #[must_use]
    pub fn failed(&self, error: OpenError) -> u64 {
        self.failed[error as usize].load(Relaxed)
    }

    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_is_in_the_order_of_its_indices() {
        assert!(RefusalCause::ALL.iter().enumerate().all(|(at, cause)| *cause as usize == at));
        assert!(OpenError::ALL.iter().enumerate().all(|(at, error)| *error as usize == at));
    }
}
