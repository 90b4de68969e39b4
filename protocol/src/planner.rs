//! Planner sessions: long-lived streams over which two organisations feed each other the steps of a plan.
//!
//! One session per peer in our direction, and the peer's own in the other. A session that breaks is opened once more, and
//! what was not acknowledged is sent again; one that breaks again before anything passed is over.

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;
use thiserror::Error;

use crate::time::Mono;

/// Sessions of ours at once. A plan has a handful of partners.
pub const SESSIONS_MAX: usize = 64;

/// No session lasts longer.
pub const LIFE: Duration = Duration::from_secs(24 * 3_600);

/// Steps that wait for one peer to take them; past it the feeder is told to come back.
pub const WAITING_MAX: usize = 64;

/// There are [`SESSIONS_MAX`] sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{SESSIONS_MAX} planner sessions are open, no room for another")]
pub struct Full;

/// What to do about a session that broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Open it once more.
    Reopen,
    /// It is over.
    Over,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    ends_at: Mono,
    was_reopened: bool,
}

/// Our sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    by_peer: BTreeMap<PeerId, Session>,
}

impl Sessions {
    /// Makes sure that there is a session with the peer; tells whether it is new.
    ///
    /// # Errors
    /// When it would be one too many.
    pub fn open(&mut self, peer: PeerId, now: Mono) -> Result<bool, Full> {
        if self.by_peer.contains_key(&peer) {
            return Ok(false);
        }
        if self.by_peer.len() >= SESSIONS_MAX {
            return Err(Full);
        }
        self.by_peer.insert(peer, Session { ends_at: now + LIFE, was_reopened: false });
        Ok(true)
    }

    /// Something passed: the next break is a first one.
    pub fn passed(&mut self, peer: &PeerId) {
        if let Some(session) = self.by_peer.get_mut(peer) {
            session.was_reopened = false;
        }
    }

    /// The stream broke.
    pub fn broke(&mut self, peer: &PeerId, now: Mono) -> Broken {
        match self.by_peer.get_mut(peer) {
            Some(session) if !session.was_reopened && session.ends_at > now => {
                session.was_reopened = true;
                Broken::Reopen
            }
            Some(_) => {
                self.by_peer.remove(peer);
                Broken::Over
            }
            None => Broken::Over,
        }
    }

    /// Closes one session, or all of them, and tells which.
    pub fn close(&mut self, peer: Option<&PeerId>) -> Vec<PeerId> {
        match peer {
            Some(peer) => self.by_peer.remove(peer).map(|_| *peer).into_iter().collect(),
            None => std::mem::take(&mut self.by_peer).into_keys().collect(),
        }
    }

    /// Closes those whose time is over, and tells which.
    pub fn expire(&mut self, now: Mono) -> Vec<PeerId> {
        self.by_peer.extract_if(.., |_, session| session.ends_at <= now).map(|(peer, _)| peer).collect()
    }

    /// When the next one's time is over.
    #[must_use]
    pub fn next_end(&self) -> Option<Mono> {
        self.by_peer.values().map(|session| session.ends_at).min()
    }

    /// With whom there are sessions.
    pub fn peers(&self) -> impl Iterator<Item = &PeerId> {
        self.by_peer.keys()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::identity::Keys;

    fn peer(n: u8) -> PeerId {
        Keys::from_seed([n; 32]).peer_id()
    }

    fn at(seconds: u64) -> Mono {
        Mono::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn there_is_one_session_per_peer_and_a_bound() {
        let mut sessions = Sessions::default();
        assert_eq!((sessions.open(peer(0), at(0)), sessions.open(peer(0), at(1))), (Ok(true), Ok(false)));
        for n in 1..SESSIONS_MAX {
            assert_eq!(sessions.open(peer(u8::try_from(n).unwrap()), at(0)), Ok(true));
        }
        assert_eq!(sessions.open(peer(200), at(0)), Err(Full));
        assert_eq!(sessions.close(Some(&peer(3))), [peer(3)]);
        assert_eq!(sessions.open(peer(200), at(0)), Ok(true));
        assert_eq!(sessions.close(None).len(), SESSIONS_MAX);
        assert_eq!(sessions.peers().count(), 0);
    }

    #[test]
    fn a_session_survives_one_break_and_another_after_something_passed() {
        let mut sessions = Sessions::default();
        sessions.open(peer(1), at(0)).unwrap();
        assert_eq!(sessions.broke(&peer(1), at(1)), Broken::Reopen);
        sessions.passed(&peer(1));
        assert_eq!(sessions.broke(&peer(1), at(2)), Broken::Reopen);
        assert_eq!(sessions.broke(&peer(1), at(3)), Broken::Over);
        assert_eq!(sessions.peers().count(), 0);
        assert_eq!(sessions.broke(&peer(1), at(4)), Broken::Over, "a closed one is not opened again");
    }

    #[test]
    fn no_session_lasts_longer_than_a_day() {
        let mut sessions = Sessions::default();
        sessions.open(peer(1), at(0)).unwrap();
        sessions.open(peer(2), at(10)).unwrap();
        assert_eq!(sessions.next_end(), Some(at(86_400)));
        assert_eq!(sessions.expire(at(86_399)), []);
        assert_eq!(sessions.expire(at(86_400)), [peer(1)]);
        assert_eq!(sessions.broke(&peer(2), at(86_410)), Broken::Over);
    }
}
