//! Which events were seen: an event counts once while its time is good.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{Event, LIFE};
use crate::signed::Verified;

/// Events remembered in all. At the honest rate of a large federation a window has a tenth of them.
pub const SEEN_MAX: usize = 65_536;

/// Events remembered of one author, so that nobody fills the memory for all.
pub const SEEN_PER_PEER_MAX: usize = 8_192;

/// Why an event is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// It came before.
    #[error("the event came before")]
    Repeated,
    /// Nothing of the window may be forgotten, and no room is left for this one.
    #[error("too many events within five minutes")]
    Full,
}

/// By what a repeated event is known: a hash of its author and its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark([u8; 16]);

impl Mark {
    /// The event's, as page 3 of the design has it.
    #[must_use]
    pub fn of(event: &Verified<Event>) -> Self {
        let mut hash = Sha256::new();
        hash.update(event.from.to_bytes());
        hash.update(event.signature());
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize()[..16]);
        Self(id)
    }
}

/// The memory of a window: of each event a hash, until its time is over.
#[derive(Debug, Default)]
pub struct Replay {
    seen: HashMap<Mark, Timestamp>,
    /// In the order in which they came, with their authors; each is gone once its time is over.
    order: VecDeque<(Mark, PeerId, Timestamp)>,
    by_peer: HashMap<PeerId, usize>,
}

impl Replay {
    /// Takes an event for the first time.
    ///
    /// # Errors
    /// When it came before, or there is no room to remember it.
    pub fn take(&mut self, event: &Verified<Event>, now: Timestamp) -> Result<(), ReplayError> {
        self.take_marked(Mark::of(event), event.from, now)
    }

    /// The same of an event by its mark and its author.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_marked(&mut self, id: Mark, from: PeerId, now: Timestamp) -> Result<(), ReplayError> {
        self.forget(now);
        if self.seen.contains_key(&id) {
            return Err(ReplayError::Repeated);
        }
        let of_peer = self.by_peer.get(&from).copied().unwrap_or_default();
        if self.order.len() >= SEEN_MAX || of_peer >= SEEN_PER_PEER_MAX {
            return Err(ReplayError::Full);
        }
        // Twice its life from now: it may be dated ahead, and may be repeated until its date is too old.
        let until = now + 2 * LIFE;
        self.seen.insert(id, until);
        self.order.push_back((id, from, until));
        *self.by_peer.entry(from).or_default() += 1;
        Ok(())
    }

    /// Events remembered now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn forget(&mut self, now: Timestamp) {
        while let Some((id, peer, _)) = self.order.pop_front_if(|(_, _, until)| *until <= now) {
            self.seen.remove(&id);
            if let Some(count) = self.by_peer.get_mut(&peer) {
                *count -= 1;
                if *count == 0 {
                    self.by_peer.remove(&peer);
                }
            }
        }
    }
}
