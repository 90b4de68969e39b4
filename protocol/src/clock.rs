//! Whether our own clock was set: its wall time against the monotonic one, which nobody sets.

use std::time::Duration;

use jiff::SignedDuration;

use crate::time::Now;

/// What is less is no further than good clocks of two members are apart.
pub const JUMP_MIN: Duration = Duration::from_secs(5);

/// Our clock, as it went since it was last set.
#[derive(Clone, Copy, Debug)]
pub struct OwnClock {
    since: Now,
}

impl OwnClock {
    /// A clock that was not set yet.
    #[must_use]
    pub const fn new(now: Now) -> Self {
        Self { since: now }
    }

    /// How far ahead the wall time was set since it was last told; once for each time, and nothing while both times go
    /// alike. A machine that slept tells the same: only its wall time went on.
    pub fn look(&mut self, now: Now) -> Option<SignedDuration> {
        let waited = SignedDuration::try_from(now.mono.since(self.since.mono)).unwrap_or(SignedDuration::MAX);
        let set_by = now.wall.duration_since(self.since.wall).saturating_sub(waited);
        (set_by.unsigned_abs() >= JUMP_MIN).then(|| {
            self.since = now;
            set_by
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::time::Mono;

    fn at(mono: u64, wall_millis: i64) -> Now {
        Now { mono: Mono::from_secs(mono), wall: Timestamp::from_millisecond(1_700_000_000_000 + wall_millis).unwrap() }
    }

    #[test]
    fn a_clock_that_is_set_is_told_once_at_five_seconds_and_not_below() {
        for (millis, expected) in [(4_999, None), (5_000, Some(5)), (-4_999, None), (-5_000, Some(-5))] {
            let mut clock = OwnClock::new(at(0, 0));
            let told = clock.look(at(60, 60_000 + millis));
            assert_eq!(told, expected.map(SignedDuration::from_secs), "{millis}");
            assert_eq!(clock.look(at(90, 90_000 + millis)), None, "{millis}: once");
        }
    }

    #[test]
    fn many_small_steps_are_one_great_one() {
        let mut clock = OwnClock::new(at(0, 0));
        assert_eq!(clock.look(at(1, 4_000)), None);
        assert_eq!(clock.look(at(2, 7_000)), Some(SignedDuration::from_secs(5)));
    }

    proptest! {
        #[test]
        fn no_time_is_too_strange(mono in any::<u64>(), wall in any::<i64>()) {
            let wall = Timestamp::from_nanosecond(i128::from(wall)).unwrap();
            OwnClock::new(at(5, 0)).look(Now { mono: Mono::from_secs(mono), wall });
        }
    }
}
