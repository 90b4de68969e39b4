//! Beacons: a broadcast that measures how far and how fast broadcasts travel.
//!
//! A member gossips a beacon. Whoever hears it tells its author, and nobody else, on a stream of its own, and says how long it
//! had held that back: answers are spread over a second, so that not everybody dials the author at once. What is left of the
//! time until the answer came is how long the beacon took there and the answer took back.
//!
//! A beacon draws answers to its author alone, which the gossip's signature proves, so that nobody can aim them at another.
//! One that is played again is old, or known; one author has few in a minute, and so have all together. Where an author is,
//! only it says: one that is not there when it is answered may have named another's place, and is soon left unanswered.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use rand::{Rng, RngExt as _};
use thiserror::Error;

use crate::{
    json::{self, JsonError},
    search::{QueryId, QueryIdError},
    shares::Shares,
    signed::CLOCK_SKEW,
    time::{Mono, Now},
    wire::{Beacon, Echo},
};

/// A beacon has an id and a time.
pub const BEACON_BYTES_MAX: usize = 256;

/// Beacons of one author in a minute, before the profile's factor: each costs every member a connection.
pub const BEACONS_PER_AUTHOR: u32 = 3;

/// Beacons of all authors together in a minute, before the profile's factor.
pub const BEACONS_IN_ALL: u32 = 30;

/// Over this time answers are spread.
pub const SPREAD_MAX: Duration = Duration::from_secs(1);

/// So long answers are waited for: a broadcast that takes longer has not arrived, as far as anybody cares.
pub const LISTEN_FOR: Duration = Duration::from_secs(5);

/// Members that are counted; past it they are more than were planned for, and the count says so.
pub const ECHOES_MAX: usize = 10_000;

/// Time between two beacons of ours, with which three are a minute's share.
pub const PAUSE: Duration = Duration::from_secs(20);

/// Answers in a row that do not reach their author before it gets none: one may be lost to a bad moment.
pub const MISSES_MAX: usize = 2;

/// So long an author who was not reached gets no answer. A hostile one that names a victim's address brings it two attempts
/// of each member in this time, and not one with each beacon.
pub const SHUN_FOR: Duration = Duration::from_secs(10 * 60);

/// Misses that are remembered, the newest: thrice what all authors may cause in that time where strangers are let in.
const MISSES_REMEMBERED: usize = 1_024;

/// Beacons that are remembered: more than all authors may send while one is young, in the loosest profile that serves others.
const HEARD_MAX: usize = 4_096;

/// A beacon's time may be so far from ours on either side; after both it is old, however it comes.
const REMEMBERED_FOR: Duration = CLOCK_SKEW.saturating_mul(2);

/// Why a beacon is not answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unheard {
    /// It is our own.
    #[error("got our own beacon")]
    Own,
    /// It is none.
    #[error("malformed beacon: {0}")]
    Malformed(#[from] JsonError),
    /// Its id is none.
    #[error(transparent)]
    Id(#[from] QueryIdError),
    /// It is old, or one of the two clocks is wrong.
    #[error("got a beacon of another time than ours")]
    Clock,
    /// It came before.
    #[error("got a beacon again")]
    Again,
    /// Its author, or all together, send too many.
    #[error("got too many beacons in a minute, wait {secs} s")]
    TooMany {
        /// Whole seconds after which one of this author counts again.
        secs: u64,
    },
}

impl Unheard {
    /// Its author made it so: gossip may reject it. Otherwise it is ignored and nobody is blamed.
    #[must_use]
    pub const fn is_authors_fault(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::Id(_))
    }
}

/// What a member hears of others' beacons.
#[derive(Debug)]
pub struct Ears {
    own: PeerId,
    shares: Shares,
    heard: VecDeque<(Mono, PeerId, QueryId)>,
}

impl Ears {
    /// Nothing heard yet; both limits times the profile's `factor`.
    #[must_use]
    pub fn new(own: PeerId, factor: u32) -> Self {
        Self { own, shares: Shares::new(BEACONS_PER_AUTHOR, BEACONS_IN_ALL, factor), heard: VecDeque::new() }
    }

    /// A beacon came by gossip from `author`, who signed it: its id, when it is to be passed on and answered.
    ///
    /// # Errors
    /// When it is neither.
    pub fn heard(&mut self, author: PeerId, data: &[u8], now: Now) -> Result<QueryId, Unheard> {
        if author == self.own {
            return Err(Unheard::Own);
        }
        let beacon: Beacon = json::parse(data, BEACON_BYTES_MAX)?;
        let id: QueryId = beacon.id.parse()?;
        if now.wall.duration_since(beacon.at).unsigned_abs() > CLOCK_SKEW {
            return Err(Unheard::Clock);
        }
        while self.heard.front().is_some_and(|(at, ..)| now.mono.since(*at) > REMEMBERED_FOR) {
            self.heard.pop_front();
        }
        if self.heard.iter().any(|(_, by, held)| *by == author && *held == id) {
            return Err(Unheard::Again);
        }
        self.shares.count(author, now.mono).map_err(|secs| Unheard::TooMany { secs })?;
        if self.heard.len() >= HEARD_MAX {
            self.heard.pop_front();
        }
        self.heard.push_back((now.mono, author, id));
        Ok(id)
    }
}

/// Authors who were not where they said when they were answered.
#[derive(Debug, Default)]
pub struct Misses {
    misses: VecDeque<(Mono, PeerId)>,
}

impl Misses {
    /// Whether a beacon of this author is answered now.
    #[must_use]
    pub fn allow(&self, author: &PeerId, now: Mono) -> bool {
        let is_new = |(at, by): &&(Mono, PeerId)| by == author && now.since(*at) < SHUN_FOR;
        self.misses.iter().filter(is_new).count() < MISSES_MAX
    }

    /// An answer did, or did not, come to its author.
    pub fn ended(&mut self, author: PeerId, is_reached: bool, now: Mono) {
        if is_reached {
            return self.misses.retain(|(_, by)| *by != author);
        }
        if self.misses.len() >= MISSES_REMEMBERED {
            self.misses.pop_front();
        }
        self.misses.push_back((now, author));
    }
}

/// How long an answer is held back.
#[must_use]
pub fn hold_back(rng: &mut impl Rng) -> Duration {
    SPREAD_MAX.mul_f64(rng.random::<f64>())
}

/// A new beacon, as it is gossiped.
#[must_use]
pub fn beacon(id: QueryId, at: Timestamp) -> Beacon {
    Beacon { id: id.to_string(), at }
}

/// What an answer says.
#[must_use]
pub fn echo(id: QueryId, held: Duration) -> Echo {
    Echo { id: id.to_string(), held_ms: u64::try_from(held.as_millis()).unwrap_or(u64::MAX) }
}

/// Why a beacon of ours is not sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a beacon was sent a moment ago: wait {secs} s")]
pub struct TooSoon {
    /// Whole seconds to wait.
    pub secs: u64,
}

/// Why an answer counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Uncounted {
    /// No beacon of this id is out.
    #[error("got an echo of no beacon of ours")]
    NoBeacon,
    /// It was held back for longer than the beacon is out.
    #[error("got an echo that was held back for longer than its beacon is out")]
    Impossible,
    /// As many as are counted have answered.
    #[error("got more than {ECHOES_MAX} echoes")]
    Full,
}

/// Whom a beacon reached, and how fast.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The fastest first.
    pub reached: Vec<(PeerId, Duration)>,
    /// There were more than are counted.
    pub is_truncated: bool,
}

impl Reach {
    /// So many of a hundred took no longer; nothing when nobody was reached.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.reached.len() * percent).div_ceil(100).max(1);
        self.reached.get(rank - 1).map(|(_, took)| *took)
    }
}

/// A beacon that is out.
#[derive(Debug)]
struct Out {
    id: QueryId,
    since: Mono,
    reached: HashMap<PeerId, Duration>,
    is_truncated: bool,
}

/// Our own beacons: one at a time.
#[derive(Debug, Default)]
pub struct Beacons {
    out: Option<Out>,
    last: Option<Mono>,
}

impl Beacons {
    /// A beacon of this id is being sent.
    ///
    /// # Errors
    /// When one was sent within [`PAUSE`].
    pub fn begin(&mut self, id: QueryId, now: Mono) -> Result<(), TooSoon> {
        if let Some(last) = self.last {
            let left = PAUSE.saturating_sub(now.since(last));
            if !left.is_zero() {
                return Err(TooSoon { secs: left.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX) });
            }
        }
        self.last = Some(now);
        self.out = Some(Out { id, since: now, reached: HashMap::new(), is_truncated: false });
        Ok(())
    }

    /// A member says that the beacon reached it; the first time it says so counts.
    ///
    /// # Errors
    /// When it counts for nothing.
    pub fn echoed(&mut self, from: PeerId, echo: &Echo, now: Mono) -> Result<(), Uncounted> {
        let id = echo.id.parse::<QueryId>().map_err(|_| Uncounted::NoBeacon)?;
        let out = self.out.as_mut().filter(|out| out.id == id).ok_or(Uncounted::NoBeacon)?;
        let took =
            now.since(out.since).checked_sub(Duration::from_millis(echo.held_ms)).ok_or(Uncounted::Impossible)?;
        if out.reached.len() >= ECHOES_MAX && !out.reached.contains_key(&from) {
            out.is_truncated = true;
            return Err(Uncounted::Full);
        }
        out.reached.entry(from).or_insert(took);
        Ok(())
    }

    /// The beacon is no longer listened for: whom it reached.
    pub fn end(&mut self) -> Reach {
        let Some(out) = self.out.take() else { return Reach::default() };
        let mut reached: Vec<(PeerId, Duration)> = out.reached.into_iter().collect();
        reached.sort_by_key(|(peer, took)| (*took, *peer));
        Reach { reached, is_truncated: out.is_truncated }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::testing::peer;

    fn id(seed: u64) -> QueryId {
        QueryId::random(&mut StdRng::seed_from_u64(seed))
    }

    fn at(secs: i64) -> Now {
        let mono = Mono::from_secs(u64::try_from(secs).unwrap());
        Now { mono, wall: Timestamp::from_second(1_800_000_000 + secs).unwrap() }
    }

    fn text(id: QueryId, now: Now) -> Vec<u8> {
        serde_json::to_vec(&beacon(id, now.wall)).unwrap()
    }

    fn ears() -> Ears {
        Ears::new(peer(0), 1)
    }

    #[test]
    fn a_beacon_is_heard_once_and_never_answered_again() {
        let mut ears = ears();
        let beacon = text(id(1), at(0));
        assert_eq!(ears.heard(peer(1), &beacon, at(0)), Ok(id(1)));
        assert_eq!(ears.heard(peer(1), &beacon, at(1)), Err(Unheard::Again));
        // The same words of another are another beacon.
        assert_eq!(ears.heard(peer(2), &beacon, at(1)), Ok(id(1)));
        assert_eq!(ears.heard(peer(0), &beacon, at(1)), Err(Unheard::Own));
    }

    #[test]
    fn a_beacon_that_is_played_again_is_old_when_it_is_forgotten() {
        let skew = i64::try_from(CLOCK_SKEW.as_secs()).unwrap();
        // Dated as far ahead as may be, so that it stays young for as long as can be.
        let beacon = text(id(1), at(skew));
        let mut ears = ears();
        assert_eq!(ears.heard(peer(1), &beacon, at(0)), Ok(id(1)));
        for later in 1..200 {
            let again = ears.heard(peer(1), &beacon, at(later));
            let expected = if later <= 2 * skew { Unheard::Again } else { Unheard::Clock };
            assert_eq!(again, Err(expected), "after {later} s");
        }
        assert_eq!(ears.heard(peer(2), &text(id(2), at(skew + 1)), at(0)), Err(Unheard::Clock));
    }

    #[test]
    fn an_author_has_three_in_a_minute_and_all_have_thirty() {
        let mut ears = ears();
        let mut hear = |author, number, now: Now| ears.heard(peer(author), &text(id(number), now), now);
        for number in 0..u64::from(BEACONS_PER_AUTHOR) {
            hear(1, number, at(0)).unwrap();
        }
        assert_eq!(hear(1, 90, at(0)), Err(Unheard::TooMany { secs: 60 }));
        for author in 2..=BEACONS_IN_ALL - 2 {
            hear(author, 100 + u64::from(author), at(0)).unwrap();
        }
        assert_eq!(hear(80, 91, at(0)), Err(Unheard::TooMany { secs: 60 }));
        hear(1, 92, at(60)).unwrap();
    }

    #[test]
    fn what_is_too_long_too_deep_or_nothing_is_its_authors_fault_and_a_wrong_clock_is_not() {
        let mut ears = ears();
        let mut long = text(id(1), at(0));
        long.resize(BEACON_BYTES_MAX + 1, b' ');
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        for data in [&long[..], deep.as_bytes(), b"", b"{}", br#"{"id":"x","at":"2027-01-15T08:00:00Z"}"#] {
            let unheard = ears.heard(peer(1), data, at(0)).unwrap_err();
            assert!(unheard.is_authors_fault(), "{unheard}");
        }
        long.truncate(BEACON_BYTES_MAX);
        assert_eq!(ears.heard(peer(1), &long, at(0)), Ok(id(1)));
        for unheard in [Unheard::Own, Unheard::Clock, Unheard::Again, Unheard::TooMany { secs: 1 }] {
            assert!(!unheard.is_authors_fault());
        }
    }

    #[test]
    fn the_time_that_an_answer_was_held_back_is_not_the_beacons() {
        let mut beacons = Beacons::default();
        beacons.begin(id(1), Mono::ZERO).unwrap();
        let held = |millis| echo(id(1), Duration::from_millis(millis));
        beacons.echoed(peer(1), &held(900), Mono::from_secs(1)).unwrap();
        beacons.echoed(peer(2), &held(0), Mono::from_secs(1)).unwrap();
        assert_eq!(beacons.echoed(peer(1), &held(1_000), Mono::from_secs(1)), Ok(()), "the first counts");
        assert_eq!(beacons.echoed(peer(3), &held(1_001), Mono::from_secs(1)), Err(Uncounted::Impossible));
        assert_eq!(beacons.echoed(peer(3), &echo(id(2), SPREAD_MAX), Mono::from_secs(2)), Err(Uncounted::NoBeacon));
        let reach = beacons.end();
        let expected = [(peer(1), Duration::from_millis(100)), (peer(2), Duration::from_secs(1))];
        assert_eq!(reach.reached, expected);
        assert_eq!(reach.percentile(50), Some(Duration::from_millis(100)));
        assert_eq!(reach.percentile(99), Some(Duration::from_secs(1)));
        assert_eq!(beacons.echoed(peer(4), &held(0), Mono::from_secs(9)), Err(Uncounted::NoBeacon), "it is over");
        assert_eq!(beacons.end(), Reach::default());
        assert_eq!(Reach::default().percentile(99), None);
    }

    #[test]
    fn an_author_that_is_twice_not_where_it_says_gets_no_answer_for_a_while() {
        let mut misses = Misses::default();
        misses.ended(peer(1), false, Mono::ZERO);
        assert!(misses.allow(&peer(1), Mono::ZERO), "one may be lost");
        misses.ended(peer(1), true, Mono::ZERO);
        misses.ended(peer(1), false, Mono::ZERO);
        assert!(misses.allow(&peer(1), Mono::ZERO), "only those in a row count");
        misses.ended(peer(1), false, Mono::from_secs(1));
        assert!(!misses.allow(&peer(1), Mono::from_secs(1)));
        assert!(misses.allow(&peer(2), Mono::from_secs(1)));
        assert!(!misses.allow(&peer(1), Mono::ZERO + (SHUN_FOR - Duration::from_millis(1))));
        assert!(misses.allow(&peer(1), Mono::ZERO + SHUN_FOR));
    }

    #[test]
    fn misses_are_remembered_up_to_a_bound_and_the_oldest_leaves_first() {
        let mut misses = Misses::default();
        let many = u32::try_from(MISSES_REMEMBERED).unwrap();
        for number in [0, 0].into_iter().chain(1..many - 1) {
            misses.ended(peer(number), false, Mono::ZERO);
        }
        assert_eq!((misses.misses.len(), misses.allow(&peer(0), Mono::ZERO)), (MISSES_REMEMBERED, false));
        misses.ended(peer(many), false, Mono::ZERO);
        assert_eq!((misses.misses.len(), misses.allow(&peer(0), Mono::ZERO)), (MISSES_REMEMBERED, true));
    }

    #[test]
    fn between_two_beacons_of_ours_there_is_a_pause() {
        let mut beacons = Beacons::default();
        beacons.begin(id(1), Mono::ZERO).unwrap();
        let last = PAUSE - Duration::from_millis(1);
        assert_eq!(beacons.begin(id(2), Mono::ZERO + last), Err(TooSoon { secs: 1 }));
        beacons.begin(id(2), Mono::ZERO + PAUSE).unwrap();
    }

    #[test]
    fn echoes_are_counted_up_to_a_bound_and_the_count_says_so() {
        let mut beacons = Beacons::default();
        beacons.begin(id(1), Mono::ZERO).unwrap();
        let echo = echo(id(1), Duration::ZERO);
        let most = u32::try_from(ECHOES_MAX).unwrap();
        for number in 1..=most {
            beacons.echoed(peer(number), &echo, Mono::from_secs(1)).unwrap();
        }
        assert_eq!(beacons.echoed(peer(1), &echo, Mono::from_secs(1)), Ok(()), "one that is counted already");
        assert_eq!(beacons.echoed(peer(most + 1), &echo, Mono::from_secs(1)), Err(Uncounted::Full));
        let reach = beacons.end();
        assert_eq!((reach.reached.len(), reach.is_truncated), (ECHOES_MAX, true));
    }

    proptest! {
        #[test]
        fn answers_are_held_back_for_no_longer_than_they_are_spread(seed: u64) {
            prop_assert!(hold_back(&mut StdRng::seed_from_u64(seed)) <= SPREAD_MAX);
        }

        #[test]
        fn half_of_those_reached_took_no_longer_than_the_median(times in proptest::collection::vec(0u64..10_000, 1..200)) {
            let mut reached: Vec<(PeerId, Duration)> =
                times.iter().map(|millis| (peer(1), Duration::from_millis(*millis))).collect();
            reached.sort();
            let reach = Reach { reached, is_truncated: false };
            for percent in [1, 50, 99, 100] {
                let took = reach.percentile(percent).unwrap();
                let within = reach.reached.iter().filter(|(_, time)| *time <= took).count();
                prop_assert!(within * 100 >= times.len() * percent);
            }
        }
    }
}
