//! What is looked at now and then and not with each beat.

use rand::{Rng, RngExt};

/// Counts answered beats from one look to the next. The first comes anywhere within a round: nodes that joined together,
/// as after a restart of their indexer, do not look together for ever after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every {
    left: u32,
    /// In a row.
    failures: u32,
}

impl Every {
    /// The first look comes within `beats`; 0 counts as 1.
    #[must_use]
    pub fn new(beats: u32, rng: &mut impl Rng) -> Self {
        Self { left: rng.random_range(1..=beats.max(1)), failures: 0 }
    }

    /// A beat was answered; tells whether it is time to look. The next look is `beats` later.
    pub fn beat(&mut self, beats: u32) -> bool {
        self.left = self.left.saturating_sub(1);
        let is_due = self.left == 0;
        if is_due {
            self.left = beats.max(1);
        }
        is_due
    }

    /// The look came to nothing: the next is twice as far away as the one before it was, at most `most` beats.
    pub fn fail(&mut self, beats: u32, most: u32) {
        self.failures = self.failures.saturating_add(1);
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.left = beats.max(1).saturating_mul(factor).min(most.max(1));
    }

    /// It did not.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn looks_that_come_to_nothing_are_twice_as_far_apart_each_time_up_to_the_most() {
        let mut every = Every::new(1, &mut StdRng::seed_from_u64(1));
        assert!(every.beat(15));
        let mut pauses = Vec::new();
        for _ in 0..6 {
            every.fail(15, 180);
            pauses.push((1..).find(|_| every.beat(15)).unwrap_or_default());
        }
        assert_eq!(pauses, [30, 60, 120, 180, 180, 180]);
        every.succeed();
        every.fail(15, 180);
        assert_eq!((1..).find(|_| every.beat(15)), Some(30));
    }

    proptest! {
        #[test]
        fn each_round_has_one_look_wherever_it_begins(beats in 0..50_u32, seed: u64) {
            let mut every = Every::new(beats, &mut StdRng::seed_from_u64(seed));
            let looks: Vec<u32> = (0..10 * beats.max(1)).filter(|_| every.beat(beats)).collect();
            prop_assert_eq!(looks.len(), 10);
            prop_assert!(looks[0] < beats.max(1));
            prop_assert!(looks.windows(2).all(|pair| pair[1] - pair[0] == beats.max(1)));
        }
    }

    #[test]
    fn nodes_that_begin_together_do_not_look_together() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut looks = [0; 15];
        for _ in 0..1_500 {
            let mut every = Every::new(15, &mut rng);
            let first = (0..15).position(|_| every.beat(15)).unwrap_or(15);
            looks[first] += 1;
        }
        assert!(looks.iter().all(|count| (50..150).contains(count)), "{looks:?}");
    }
}
