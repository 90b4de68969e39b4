//! Planner sessions: two organisations feed each other the steps of a plan, over a stream that stays open.
//!
//! One session per peer in our direction, and the peer's own in the other. A session lasts from its opening to its close, a
//! day at most, whatever becomes of its stream: what was fed waits on the disk, and a stream that breaks is opened again.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use libp2p_identity::PeerId;

/// Sessions of ours at once. A plan has a handful of partners.
pub const SESSIONS_MAX: u32 = 64;

/// No session lasts longer.
pub const LIFE: Duration = Duration::from_secs(24 * 3_600);

/// Steps that wait for one peer to take them; past it the feeder is refused. It is a step in 84 s for the whole day that
/// they may wait, and at their largest 704 MiB on the disk.
pub const WAITING_MAX: u32 = 1_024;

/// When a session that was opened then is over.
#[must_use]
pub fn ends_at(opened_at: Timestamp) -> Timestamp {
    opened_at.checked_add(LIFE).unwrap_or(Timestamp::MAX)
}

/// Which sessions came and went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// There were none with these.
    pub opened: Vec<PeerId>,
    /// There are none with these any more.
    pub ended: Vec<PeerId>,
}

/// Our sessions as they are on the disk, for those who keep their streams.
#[derive(Debug, Default)]
pub struct Sessions {
    ends: BTreeMap<PeerId, Timestamp>,
}

impl Sessions {
    /// These are open, since then, and no others; tells what that changes.
    pub fn set(&mut self, opened: impl IntoIterator<Item = (PeerId, Timestamp)>) -> Changed {
        let ends: BTreeMap<_, _> =
            opened.into_iter().take(SESSIONS_MAX as usize).map(|(peer, at)| (peer, ends_at(at))).collect();
        let before = std::mem::replace(&mut self.ends, ends);
        let missing = |from: &BTreeMap<PeerId, Timestamp>, of: &BTreeMap<PeerId, Timestamp>| {
            of.keys().filter(|peer| !from.contains_key(peer)).copied().collect()
        };
        Changed { opened: missing(&before, &self.ends), ended: missing(&self.ends, &before) }
    }

    /// Whether there is a session with the peer.
    #[must_use]
    pub fn is_open(&self, peer: &PeerId, now: Timestamp) -> bool {
        self.ends.get(peer).is_some_and(|end| *end > now)
    }
}

/// What to do about a stream that broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Open another at once: this one worked.
    Reopen,
    /// Nothing passed since the last one broke: try again after a pause.
    Later,
}

/// What the stream of a session has behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    has_passed: bool,
}

impl Line {
    /// The peer took a step.
    pub const fn passed(&mut self) {
        self.has_passed = true;
    }

    /// The stream broke.
    pub const fn broke(&mut self) -> Broken {
        if std::mem::replace(&mut self.has_passed, false) { Broken::Reopen } else { Broken::Later }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::peer;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn no_session_lasts_longer_than_a_day() {
        let mut sessions = Sessions::default();
        sessions.set([(peer(1), at(0)), (peer(2), at(10))]);
        assert!(sessions.is_open(&peer(1), at(86_399)) && !sessions.is_open(&peer(1), at(86_400)));
        assert!(sessions.is_open(&peer(2), at(86_409)) && !sessions.is_open(&peer(3), at(0)));
        assert_eq!(ends_at(Timestamp::MAX), Timestamp::MAX);
    }

    #[test]
    fn what_came_and_what_went_is_told() {
        let mut sessions = Sessions::default();
        let changed = sessions.set([(peer(1), at(0)), (peer(2), at(10))]);
        assert_eq!((changed.opened.len(), changed.ended.len()), (2, 0));
        let changed = sessions.set([(peer(2), at(10)), (peer(3), at(20))]);
        assert_eq!(changed, Changed { opened: vec![peer(3)], ended: vec![peer(1)] });
        assert!(!sessions.is_open(&peer(1), at(0)));
        // One that was closed and opened again meanwhile goes on.
        assert_eq!(sessions.set([(peer(2), at(30)), (peer(3), at(20))]), Changed::default());
    }

    #[test]
    fn there_are_as_many_sessions_as_there_may_be_and_no_more() {
        let mut sessions = Sessions::default();
        sessions.set((0..=SESSIONS_MAX).map(|n| (peer(n), at(0))));
        assert_eq!(sessions.ends.len(), SESSIONS_MAX as usize);
    }

    #[test]
    fn a_session_survives_one_break_at_once_and_another_after_something_passed() {
        let mut line = Line::default();
        assert_eq!(line.broke(), Broken::Later, "it never worked");
        line.passed();
        assert_eq!((line.broke(), line.broke()), (Broken::Reopen, Broken::Later));
        line.passed();
        assert_eq!(line.broke(), Broken::Reopen);
    }
}
