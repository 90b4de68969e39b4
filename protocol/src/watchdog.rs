//! When a service manager is told that the daemon is well: only while each actor that the daemon cannot do without has
//! ended a handler since the last beat.
//!
//! Each of them is sent an empty message with every beat, so that one that has nothing to do has something to end too. A
//! slow one that works a queue off is well; one that sits in a single handler over a whole beat is not.

use std::{collections::BTreeMap, time::Duration};

/// Beats within the manager's patience: one may be lost to a busy machine, and the next still comes in time.
const BEATS: u32 = 3;

/// How often is beaten for a manager that waits at most `patience`.
#[must_use]
pub fn every(patience: Duration) -> Duration {
    // A manager that asks for the impossible shall not keep us from working.
    (patience / BEATS).max(Duration::from_millis(100))
}

/// How one actor is when a beat comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It lives, or is about to; this many handlers of it have ended, over all its lives.
    Ended(u64),
    /// It waits for its next life: its supervisor's matter, who is watched as well.
    Waiting,
}

/// Who has answered since which beat.
#[derive(Clone, Debug, Default)]
pub struct Watch<A> {
    /// Handlers ended at the beat before, of those that were sent something then. As many as there are actors to watch.
    asked: BTreeMap<A, u64>,
}

/// What a beat shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat<A> {
    /// To be sent an empty message now. Never one that has not ended anything since the last, so that none pile up.
    pub ask: Vec<A>,
    /// Have ended nothing for a whole beat. While there are any, the manager is told nothing.
    pub silent: Vec<A>,
}

impl<A: Ord + Clone> Watch<A> {
    /// Nobody was asked anything.
    #[must_use]
    pub const fn new() -> Self {
        Self { asked: BTreeMap::new() }
    }

    /// A beat, with how each watched actor is now. One that is no longer named is no longer watched.
    pub fn beat(&mut self, signs: &[(A, Sign)]) -> Beat<A> {
        let mut beat = Beat { ask: Vec::new(), silent: Vec::new() };
        let before = std::mem::take(&mut self.asked);
        for (actor, sign) in signs {
            let Sign::Ended(ended) = *sign else { continue };
            if before.get(actor) == Some(&ended) {
                beat.silent.push(actor.clone());
            } else {
                beat.ask.push(actor.clone());
            }
            self.asked.insert(actor.clone(), ended);
        }
        beat
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_beats_fit_into_the_managers_patience() {
        assert_eq!(every(Duration::from_secs(30)), Duration::from_secs(10));
        assert_eq!(every(Duration::from_millis(300)), Duration::from_millis(100));
        assert_eq!(every(Duration::from_millis(299)), Duration::from_millis(100), "the shortest");
        assert_eq!(every(Duration::ZERO), Duration::from_millis(100));
    }

    #[test]
    fn who_ends_nothing_for_a_whole_beat_is_silent_until_it_does() {
        let mut watch = Watch::new();
        let sign = |ended| [("store", Sign::Ended(ended))];
        assert_eq!(watch.beat(&sign(7)), Beat { ask: vec!["store"], silent: vec![] }, "nobody was asked before");
        assert_eq!(watch.beat(&sign(8)), Beat { ask: vec!["store"], silent: vec![] });
        assert_eq!(watch.beat(&sign(8)), Beat { ask: vec![], silent: vec!["store"] });
        assert_eq!(watch.beat(&sign(8)), Beat { ask: vec![], silent: vec!["store"] });
        assert_eq!(watch.beat(&sign(9)), Beat { ask: vec!["store"], silent: vec![] }, "it is well again");
    }

    #[test]
    fn who_waits_for_its_next_life_is_not_silent_and_begins_anew() {
        let mut watch = Watch::new();
        watch.beat(&[("pool", Sign::Ended(3))]);
        assert_eq!(watch.beat(&[("pool", Sign::Waiting)]), Beat { ask: vec![], silent: vec![] });
        assert_eq!(watch.beat(&[("pool", Sign::Ended(3))]), Beat { ask: vec!["pool"], silent: vec![] });
    }

    proptest! {
        #[test]
        fn nobody_is_asked_twice_without_having_ended_something(steps in prop::collection::vec(0..3_u64, 1..60)) {
            let mut watch = Watch::new();
            let (mut ended, mut unanswered) = (0, 0_u32);
            for step in steps {
                if step > 0 {
                    unanswered = 0;
                }
                ended += step;
                let beat = watch.beat(&[((), Sign::Ended(ended))]);
                unanswered += u32::try_from(beat.ask.len()).unwrap_or(u32::MAX);
                prop_assert!(unanswered <= 1);
                prop_assert!(beat.silent.is_empty() != beat.ask.is_empty());
            }
        }
    }
}
