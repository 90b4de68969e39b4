//! Who is banned, from what, until when and why: the book that outlives a restart.
//!
//! A ban is made by a rule ([`crate::behaviour`]) or by an operator. A rule's lasts a day at most; an operator's may be
//! without end, and no rule shortens it. The book says who is refused now; what came before, and makes the next ban
//! longer, is remembered by [`crate::behaviour::Behaviour`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use libp2p_identity::PeerId;
use thiserror::Error;

use crate::{
    behaviour::{BAN_LONGEST, Kind, Scope},
    time::{Mono, Now},
    wire::{RefusalCode, Refused},
};

/// Bans in force at the same time: as many as the largest attack that the design names has identities.
pub const BANS_MAX: usize = 10_000;

/// Bytes of a reason: two lines of a terminal.
pub const REASON_BYTES_MAX: usize = 256;

/// The longest ban with an end; beyond it one without end is meant.
pub const OPERATORS_LONGEST: Duration = Duration::from_secs(3_660 * 24 * 3_600);

/// Who made a ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// One strike too many.
    Rule,
    /// A person.
    Operator,
}

/// A ban as it is told and kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub peer: PeerId,
    /// From what.
    pub scope: Scope,
    /// When it began.
    pub since: Timestamp,
    /// When it ends; nothing for one without end, which only operators make.
    pub until: Option<Timestamp>,
    /// How many bans by a rule the peer had, this one included; it sets the length of the next. 0 for an operator's.
    pub offences: u32,
    /// Who made it.
    pub origin: Origin,
    /// In words, at most [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
}

impl Ban {
    /// An operator's ban from everything, for `lasts` or without end.
    ///
    /// # Errors
    /// When it would last no time or more than [`OPERATORS_LONGEST`], or the reason is too long.
    pub fn by_operator(
        peer: PeerId,
        lasts: Option<Duration>,
        reason: &str,
        now: Timestamp,
    ) -> Result<Self, OrderError> {
        if reason.len() > REASON_BYTES_MAX {
            return Err(OrderError::ReasonTooLong { got: reason.len() });
        }
        if let Some(got) = lasts.filter(|lasts| lasts.is_zero() || *lasts > OPERATORS_LONGEST) {
            return Err(OrderError::BadLength { got });
        }
        let until = lasts.map(|lasts| later(now, lasts));
        let reason = reason.to_owned();
        Ok(Self { peer, scope: Scope::All, since: now, until, offences: 0, origin: Origin::Operator, reason })
    }

    /// How much of it is left. What the clock says beyond the longest ban of its maker is not believed.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Left {
        let Some(until) = self.until else { return Left::Endless };
        let left = until.duration_since(now);
        let longest = if self.origin == Origin::Rule { BAN_LONGEST } else { OPERATORS_LONGEST };
        if left.is_positive() { Left::For(left.unsigned_abs().min(longest)) } else { Left::Nothing }
    }
}

/// How much of a ban is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It is over.
    Nothing,
    /// So long.
    For(Duration),
    /// It has no end.
    Endless,
}

/// Why an operator's ban makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OrderError {
    /// It would last no time, or for ever.
    #[error("got a ban of {got:?}, expected 1 s to 3660 days; leave the length out for a ban without end")]
    BadLength {
        /// What was asked for.
        got: Duration,
    },
    /// The reason is too long.
    #[error("got a reason of {got} bytes, expected at most {REASON_BYTES_MAX}")]
    ReasonTooLong {
        /// Its bytes.
        got: usize,
    },
}

/// The book is full of operators' bans, none of which is given up for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{BANS_MAX} bans are in force, and none of them was made by a rule")]
pub struct Full;

/// What became of a ban that was shown to the book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// It is in force; otherwise a longer one was there already, and stays.
    pub is_news: bool,
    /// The rule's ban that was given up for it.
    pub displaced: Option<(PeerId, Scope)>,
}

#[derive(Clone, Debug)]
struct Held {
    ban: Ban,
    until: Option<Mono>,
}

/// Every ban in force.
///
/// Bounded by [`BANS_MAX`]: past it the rule's ban that ends first is given up. The peer is refused on by
/// [`crate::behaviour::Behaviour`] for as long as that remembers it, but no longer over a restart.
#[derive(Debug, Default)]
pub struct Bans {
    held: BTreeMap<(PeerId, Scope), Held>,
    /// Those with an end.
    by_end: BTreeSet<(Mono, PeerId, Scope)>,
}

impl Bans {
    /// Nobody is banned.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes up a ban. A rule's never shortens one that is in force; an operator's replaces what was there.
    ///
    /// # Errors
    /// When the book is full of operators' bans.
    pub fn add(&mut self, ban: Ban, now: Now) -> Result<Added, Full> {
        self.forget_ended(now.mono);
        let until = match ban.left(now.wall) {
            Left::Nothing => return Ok(Added::default()),
            Left::For(left) => Some(now.mono + left),
            Left::Endless => None,
        };
        let key = (ban.peer, ban.scope);
        let is_longer = |held: &Held| match (held.until, until) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(held), Some(until)) => held > until,
        };
        if ban.origin == Origin::Rule && self.held.get(&key).is_some_and(is_longer) {
            return Ok(Added::default());
        }
        let displaced = self.make_room(&key)?;
        self.take_out(&key);
        if let Some(until) = until {
            self.by_end.insert((until, key.0, key.1));
        }
        self.held.insert(key, Held { ban, until });
        Ok(Added { is_news: true, displaced })
    }

    /// Takes up bans that were written down; those that are over are passed over.
    pub fn restore(&mut self, bans: impl IntoIterator<Item = Ban>, now: Now) {
        for ban in bans {
            // A book that is full has no room for more; they were no more than it holds when they were written.
            let _ = self.add(ban, now);
        }
    }

    /// Ends every ban of the peer; those that were in force.
    pub fn lift(&mut self, peer: &PeerId, now: Mono) -> Vec<Ban> {
        self.forget_ended(now);
        Scope::EVERY.into_iter().filter_map(|scope| self.take_out(&(*peer, scope))).collect()
    }

    /// How long the peer is still banned: from everything, or with a kind from that kind too. Of a ban without end a day
    /// is left, always: nobody should ask sooner.
    #[must_use]
    pub fn left(&self, peer: &PeerId, kind: Option<Kind>, now: Mono) -> Option<Duration> {
        if self.held.is_empty() {
            return None;
        }
        let scopes = [Some(Scope::All), kind.map(Scope::Kind)].into_iter().flatten();
        let held = scopes.filter_map(|scope| self.held.get(&(*peer, scope)));
        let left = held.map(|held| held.until.map_or(BAN_LONGEST, |until| until.since(now)));
        left.filter(|left| !left.is_zero()).max()
    }

    /// The refusal of a banned peer in the words of the wire. The reason is ours, and not told.
    #[must_use]
    pub fn refusal(left: Duration) -> Refused {
        let secs = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        Refused::new(RefusalCode::Banned, "banned").retry_after(secs.max(1))
    }

    /// Every ban in force, by peer.
    pub fn list(&mut self, now: Mono) -> impl Iterator<Item = &Ban> {
        self.forget_ended(now);
        self.held.values().map(|held| &held.ban)
    }

    /// Bans in force, and those that ended a moment ago.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Nobody is banned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn make_room(&mut self, newcomer: &(PeerId, Scope)) -> Result<Option<(PeerId, Scope)>, Full> {
        if self.held.len() < BANS_MAX || self.held.contains_key(newcomer) {
            return Ok(None);
        }
        let is_rules = |key: &(PeerId, Scope)| self.held.get(key).is_some_and(|held| held.ban.origin == Origin::Rule);
        let first = self.by_end.iter().map(|(_, peer, scope)| (*peer, *scope)).find(is_rules).ok_or(Full)?;
        self.take_out(&first);
        Ok(Some(first))
    }

    fn take_out(&mut self, key: &(PeerId, Scope)) -> Option<Ban> {
        let held = self.held.remove(key)?;
        if let Some(until) = held.until {
            self.by_end.remove(&(until, key.0, key.1));
        }
        Some(held.ban)
    }

    fn forget_ended(&mut self, now: Mono) {
        while let Some((_, peer, scope)) = self.by_end.first().copied().filter(|(until, ..)| *until <= now) {
            self.take_out(&(peer, scope));
        }
    }
}

/// The time `wait` after `wall`, at most the last there is.
pub(crate) fn later(wall: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| wall.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::testing::peer;

    fn now(secs: u64) -> Now {
        Now { mono: Mono::from_secs(secs), wall: Timestamp::from_second(1_000_000 + secs as i64).unwrap() }
    }

    fn by_rule(n: u32, scope: Scope, at: u64, lasts: u64) -> Ban {
        let (since, until) = (now(at).wall, Some(now(at + lasts).wall));
        Ban { peer: peer(n), scope, since, until, offences: 1, origin: Origin::Rule, reason: String::new() }
    }

    fn by_operator(n: u32, lasts: Option<u64>, at: u64) -> Ban {
        Ban::by_operator(peer(n), lasts.map(Duration::from_secs), "", now(at).wall).unwrap()
    }

    #[test]
    fn a_ban_is_in_force_to_its_last_second_and_closes_what_it_names() {
        let mut bans = Bans::new();
        bans.add(by_rule(1, Scope::Kind(Kind::Search), 0, 600), now(0)).unwrap();
        bans.add(by_rule(2, Scope::All, 0, 600), now(0)).unwrap();
        let last = Mono::from_secs(599);
        assert_eq!(bans.left(&peer(1), Some(Kind::Search), last), Some(Duration::from_secs(1)));
        for kind in [None, Some(Kind::Heartbeat), Some(Kind::Get), Some(Kind::Publish)] {
            assert_eq!(bans.left(&peer(1), kind, last), None, "{kind:?}");
            assert_eq!(bans.left(&peer(2), kind, last), Some(Duration::from_secs(1)), "{kind:?}");
        }
        assert_eq!(bans.left(&peer(2), None, Mono::from_secs(600)), None);
        assert_eq!(bans.list(Mono::from_secs(600)).count(), 0);
    }

    #[test]
    fn an_operators_ban_may_be_without_end_and_no_rule_shortens_it() {
        let mut bans = Bans::new();
        bans.add(by_operator(1, None, 0), now(0)).unwrap();
        let years = Mono::from_secs(100 * 365 * 86_400);
        assert_eq!(bans.left(&peer(1), None, years), Some(BAN_LONGEST));
        let added = bans.add(by_rule(1, Scope::All, 5, 600), now(5)).unwrap();
        assert!(!added.is_news);
        assert_eq!(bans.left(&peer(1), None, years), Some(BAN_LONGEST));
        // The operator may shorten it.
        assert!(bans.add(by_operator(1, Some(60), 5), now(5)).unwrap().is_news);
        assert_eq!(bans.left(&peer(1), None, Mono::from_secs(5)), Some(Duration::from_secs(60)));
        // And a rule lengthens it.
        assert!(bans.add(by_rule(1, Scope::All, 5, 600), now(5)).unwrap().is_news);
    }

    #[test]
    fn a_ban_that_is_lifted_is_over_at_once_in_every_scope() {
        let mut bans = Bans::new();
        bans.add(by_rule(1, Scope::Kind(Kind::Get), 0, 600), now(0)).unwrap();
        bans.add(by_operator(1, None, 0), now(0)).unwrap();
        bans.add(by_operator(2, None, 0), now(0)).unwrap();
        assert_eq!(bans.lift(&peer(1), Mono::from_secs(1)).len(), 2);
        assert_eq!(bans.left(&peer(1), Some(Kind::Get), Mono::from_secs(1)), None);
        assert!(bans.left(&peer(2), None, Mono::from_secs(1)).is_some());
        assert_eq!(bans.lift(&peer(1), Mono::from_secs(1)), []);
    }

    #[test]
    fn p6_bans_are_taken_up_again_for_what_is_left_of_them() {
        let mut before = Bans::new();
        before.add(by_rule(1, Scope::All, 0, 600), now(0)).unwrap();
        before.add(by_operator(2, None, 0), now(0)).unwrap();
        before.add(by_rule(3, Scope::All, 0, 30), now(0)).unwrap();
        let kept: Vec<Ban> = before.list(Mono::ZERO).cloned().collect();
        // The new process's monotonic clock starts again.
        let restarted = Now { mono: Mono::from_secs(1), wall: now(120).wall };
        let mut after = Bans::new();
        after.restore(kept, restarted);
        assert_eq!(after.left(&peer(1), None, restarted.mono), Some(Duration::from_secs(480)));
        assert_eq!(after.left(&peer(2), None, restarted.mono), Some(BAN_LONGEST));
        assert_eq!((after.left(&peer(3), None, restarted.mono), after.len()), (None, 2));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_rules_ban_longer_than_a_day() {
        let mut bans = Bans::new();
        let ban = Ban { until: Some(Timestamp::MAX), ..by_rule(1, Scope::All, 0, 1) };
        bans.restore([ban], now(0));
        assert_eq!(bans.left(&peer(1), None, Mono::ZERO), Some(BAN_LONGEST));
        assert_eq!(bans.left(&peer(1), None, Mono::ZERO + BAN_LONGEST), None);
    }

    #[test]
    fn past_the_bound_the_rules_ban_that_ends_first_is_given_up_and_never_an_operators() {
        let mut bans = Bans::new();
        let most = u32::try_from(BANS_MAX).unwrap();
        bans.add(by_rule(0, Scope::All, 0, 700), now(0)).unwrap();
        bans.add(by_rule(1, Scope::All, 0, 600), now(0)).unwrap();
        for n in 2..most {
            bans.add(by_operator(n, Some(60), 0), now(0)).unwrap();
        }
        let added = bans.add(by_operator(most, None, 0), now(0)).unwrap();
        assert_eq!(added.displaced, Some((peer(1), Scope::All)));
        let added = bans.add(by_operator(most + 1, None, 0), now(0)).unwrap();
        assert_eq!(added.displaced, Some((peer(0), Scope::All)));
        assert_eq!(bans.add(by_operator(most + 2, None, 0), now(0)), Err(Full));
        assert!(bans.add(by_operator(5, None, 0), now(0)).unwrap().is_news, "one that is held may be changed");
        assert_eq!((bans.len(), bans.by_end.len()), (BANS_MAX, BANS_MAX - 3));
    }

    #[test]
    fn an_order_that_makes_no_sense_is_refused() {
        let order = |lasts, reason: &str| Ban::by_operator(peer(1), lasts, reason, now(0).wall);
        assert!(order(Some(OPERATORS_LONGEST), &"r".repeat(REASON_BYTES_MAX)).is_ok());
        for lasts in [Duration::ZERO, OPERATORS_LONGEST + Duration::from_secs(1)] {
            assert_eq!(order(Some(lasts), ""), Err(OrderError::BadLength { got: lasts }));
        }
        assert_eq!(order(None, &"r".repeat(257)), Err(OrderError::ReasonTooLong { got: 257 }));
    }

    proptest! {
        /// Against a naive list: whoever has a ban that is not over is refused, and nobody else.
        #[test]
        fn the_book_agrees_with_a_naive_one(
            steps in proptest::collection::vec((0u32..4, 0u8..4, 1u64..900, 0u64..200), 1..60),
        ) {
            let mut bans = Bans::new();
            let mut naive = BTreeMap::<(u32, Scope), (u64, bool)>::new();
            let mut at = 0;
            for (n, what, lasts, gap) in steps {
                at += gap;
                match what {
                    0 => {
                        bans.lift(&peer(n), Mono::from_secs(at));
                        naive.retain(|(held, _), _| *held != n);
                    }
                    1 => {
                        bans.add(by_operator(n, Some(lasts), at), now(at)).unwrap();
                        naive.insert((n, Scope::All), (at + lasts, true));
                    }
                    _ => {
                        let scope = if what == 2 { Scope::All } else { Scope::Kind(Kind::Get) };
                        bans.add(by_rule(n, scope, at, lasts), now(at)).unwrap();
                        let held = naive.entry((n, scope)).or_default();
                        held.0 = held.0.max(at + lasts);
                    }
                }
                for n in 0..4 {
                    let all = naive.get(&(n, Scope::All)).map_or(0, |held| held.0);
                    let get = naive.get(&(n, Scope::Kind(Kind::Get))).map_or(0, |held| held.0).max(all);
                    let left = |until: u64| (until > at).then(|| Duration::from_secs(until - at));
                    prop_assert_eq!(bans.left(&peer(n), None, Mono::from_secs(at)), left(all));
                    prop_assert_eq!(bans.left(&peer(n), Some(Kind::Get), Mono::from_secs(at)), left(get));
                }
                let in_force = naive.values().filter(|held| held.0 > at).count();
                prop_assert_eq!(bans.list(Mono::from_secs(at)).count(), in_force);
                prop_assert_eq!(bans.by_end.len(), in_force);
            }
        }
    }
}
