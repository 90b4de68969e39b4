//! How many lines of one kind the log takes: so many a minute about one peer, and so many in all.
//!
//! Whoever can make a member write can fill its disk, and bury under noise what an operator should see. So each kind of
//! line has a budget for each peer that it is about, and one for all of them together; what is left out is counted and
//! told. A stranger has as many names as it likes: past [`PEERS_MAX`] of them within a minute new ones share the budget
//! of their kind alone.

use std::{collections::HashMap, hash::Hash, time::Duration};

use crate::time::Mono;

/// The time over which lines are counted.
pub const WITHIN: Duration = Duration::from_secs(60);

/// Lines of one kind about one peer in that time: one every three seconds, more than an operator reads.
pub const PER_PEER: u32 = 20;

/// Lines of one kind about anybody in that time: five a second, which is some 4 MB an hour.
pub const PER_KIND: u32 = 300;

/// Peers that are told apart within that time.
pub const PEERS_MAX: usize = 4_096;

/// Kinds of lines: more than there are places in the program that write one.
pub const KINDS_MAX: usize = 4_096;

#[derive(Clone, Copy, Debug)]
struct Window {
    since: Mono,
    lines: u32,
}

impl Window {
    fn take(&mut self, most: u32, now: Mono) -> bool {
        if now.since(self.since) >= WITHIN {
            *self = Self { since: now, lines: 0 };
        }
        let has_room = self.lines < most;
        self.lines = self.lines.saturating_add(u32::from(has_room));
        has_room
    }
}

/// The budgets.
#[derive(Debug)]
pub struct Limits<Kind> {
    kinds: HashMap<Kind, Window>,
    peers: HashMap<(Kind, String), Window>,
    left_out: u64,
}

impl<Kind> Default for Limits<Kind> {
    fn default() -> Self {
        Self { kinds: HashMap::new(), peers: HashMap::new(), left_out: 0 }
    }
}

impl<Kind: Clone + Eq + Hash> Limits<Kind> {
    /// Whether a line of this kind may be written now. What may not is counted.
    pub fn may_say(&mut self, kind: &Kind, about: Option<&str>, now: Mono) -> bool {
        // The peer first: one that talks too much takes nothing of what others have.
        let may = about.is_none_or(|peer| self.takes_peer(kind, peer, now)) && self.takes_kind(kind, now);
        self.left_out = self.left_out.saturating_add(u64::from(!may));
        may
    }

    /// Lines left out since this was asked last.
    pub fn left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    fn takes_kind(&mut self, kind: &Kind, now: Mono) -> bool {
        if let Some(window) = self.kinds.get_mut(kind) {
            return window.take(PER_KIND, now);
        }
        if self.kinds.len() >= KINDS_MAX {
            self.kinds.retain(|_, window| now.since(window.since) < WITHIN);
        }
        if self.kinds.len() < KINDS_MAX {
            self.kinds.insert(kind.clone(), Window { since: now, lines: 1 });
            return true;
        }
        false
    }

    fn takes_peer(&mut self, kind: &Kind, peer: &str, now: Mono) -> bool {
        let key = (kind.clone(), peer.to_owned());
        if let Some(window) = self.peers.get_mut(&key) {
            return window.take(PER_PEER, now);
        }
        if self.peers.len() >= PEERS_MAX {
            self.peers.retain(|_, window| now.since(window.since) < WITHIN);
        }
        if self.peers.len() < PEERS_MAX {
            self.peers.insert(key, Window { since: now, lines: 1 });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(limits: &mut Limits<u8>, kind: u8, about: Option<&str>, now: Mono, times: u32) -> u32 {
        (0..times).map(|_| u32::from(limits.may_say(&kind, about, now))).sum()
    }

    #[test]
    fn a_peer_has_twenty_lines_of_a_kind_in_a_minute_and_others_have_theirs() {
        let (mut limits, now) = (Limits::default(), Mono::ZERO);
        assert_eq!(said(&mut limits, 1, Some("a"), now, PER_PEER + 5), PER_PEER);
        assert_eq!(said(&mut limits, 1, Some("b"), now, 1), 1, "another peer");
        assert_eq!(said(&mut limits, 2, Some("a"), now, 1), 1, "another kind");
        assert_eq!((limits.left_out(), limits.left_out()), (5, 0));
        assert_eq!(said(&mut limits, 1, Some("a"), Mono::from_secs(59), 1), 0);
        assert_eq!(said(&mut limits, 1, Some("a"), Mono::from_secs(60), 1), 1);
    }

    #[test]
    fn a_kind_has_three_hundred_lines_in_a_minute_however_many_peers_they_are_about() {
        let (mut limits, now) = (Limits::default(), Mono::ZERO);
        let peers: u32 = (0..PER_KIND + 7).map(|peer| said(&mut limits, 1, Some(&peer.to_string()), now, 1)).sum();
        assert_eq!((peers, limits.left_out()), (PER_KIND, 7));
        assert_eq!(said(&mut limits, 1, None, now, 1), 0, "of nobody in particular as well");
        assert_eq!(said(&mut limits, 2, None, now, PER_KIND + 1), PER_KIND);
    }

    #[test]
    fn both_tables_are_bounded_and_have_room_again_after_a_minute() {
        let mut limits: Limits<u32> = Limits::default();
        for kind in 0..u32::try_from(KINDS_MAX).unwrap_or(0) {
            assert!(limits.may_say(&kind, Some("a"), Mono::ZERO));
        }
        assert!(!limits.may_say(&u32::MAX, None, Mono::ZERO), "one kind more than there are");
        assert!(limits.may_say(&0, Some("b"), Mono::ZERO), "one peer more than are told apart");
        assert_eq!((limits.kinds.len(), limits.peers.len()), (KINDS_MAX, PEERS_MAX));
        assert!(limits.may_say(&u32::MAX, Some("c"), Mono::from_secs(60)));
        assert_eq!((limits.kinds.len(), limits.peers.len()), (1, 1));
    }

    proptest! {
        #[test]
        fn in_no_minute_of_a_window_is_more_said_than_allowed(
            lines in proptest::collection::vec((0..3_u8, 0..4_u8, 0..3_000_u64), 0..600),
        ) {
            let (mut limits, mut now, mut written) = (Limits::default(), Mono::ZERO, HashMap::new());
            for (kind, peer, pause) in lines {
                now = now + Duration::from_millis(pause / 30);
                if limits.may_say(&kind, Some(&peer.to_string()), now) {
                    *written.entry((kind, peer)).or_insert(0_u32) += 1;
                }
            }
            // Less than a minute in all: one window each.
            if now.since_start() < WITHIN {
                prop_assert!(written.values().all(|lines| *lines <= PER_PEER));
            }
        }
    }
}
