//! Durations counted on a logarithmic scale, without a lock: one writer, any number of readers.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Two buckets an octave from 256 ns to 18 min; a quantile is at most half too high.
const BUCKETS: usize = 64;

/// Durations are counted in units of 2^8 ns: what is shorter than that needs no telling apart.
const UNIT_BITS: u32 = 8;

/// How often which durations were seen.
#[derive(Debug)]
pub(super) struct Histogram([AtomicU64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Histogram {
    /// Counts a duration. Only one task at a time may: it saves a locked instruction for each message.
    pub(super) fn record(&self, duration: Duration) {
        let count = &self.0[bucket(duration)];
        count.store(count.load(Relaxed) + 1, Relaxed);
    }

    /// Durations counted.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Microseconds that half and that 99 of 100 durations did not exceed, rounded up to the end of their bucket; 0
    /// without any.
    pub(super) fn p50_p99_us(&self) -> (u64, u64) {
        let counts: [u64; BUCKETS] = std::array::from_fn(|bucket| self.0[bucket].load(Relaxed));
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return (0, 0);
        }
        let quantile = |percent: u64| {
            let mut above = (total * percent).div_ceil(100);
            let reached = counts.iter().position(|count| {
                above = above.saturating_sub(*count);
                above == 0
            });
            end_us(reached.unwrap_or(BUCKETS - 1))
        };
        (quantile(50), quantile(99))
    }
}

/// Bucket 0 holds up to one unit; after it, each octave has a lower and an upper half.
fn bucket(duration: Duration) -> usize {
    let units = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX) >> UNIT_BITS;
    let Some(octave) = units.checked_ilog2() else { return 0 };
    let upper = octave > 0 && units >> (octave - 1) & 1 == 1;
    (1 + 2 * octave as usize + usize::from(upper)).min(BUCKETS - 1)
}

/// The first microsecond that no duration of this bucket exceeds.
fn end_us(bucket: usize) -> u64 {
    let units = match bucket.checked_sub(1) {
        None => 1,
        Some(half) if half % 2 == 0 => (3_u64 << (half / 2)).div_ceil(2),
        Some(half) => 2 << (half / 2),
    };
    (units << UNIT_BITS).div_ceil(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_never_too_low_and_at_most_half_too_high() {
        for nanos in (0..34).map(|power| 1_u64 << power).flat_map(|nanos| [nanos, nanos + nanos / 3, nanos * 2 - 1]) {
            let histogram = Histogram::default();
            histogram.record(Duration::from_nanos(nanos));
            let (seen, _) = histogram.p50_p99_us();
            let exact = nanos.div_ceil(1_000);
            assert!(seen >= exact, "{nanos} ns: {seen} us");
            assert!(seen <= (exact * 3).div_ceil(2) + 1, "{nanos} ns: {seen} us");
        }
    }

    #[test]
    fn half_and_ninety_nine_of_a_hundred_are_told_apart() {
        let histogram = Histogram::default();
        assert_eq!(histogram.p50_p99_us(), (0, 0));
        (0..99).for_each(|_| histogram.record(Duration::from_micros(10)));
        histogram.record(Duration::from_millis(10));
        let (p50, p99) = histogram.p50_p99_us();
        assert!(p50 < 20 && p99 < 20);
        histogram.record(Duration::from_millis(10));
        let (p50, p99) = histogram.p50_p99_us();
        assert!(p50 < 20 && p99 >= 10_000);
    }

    #[test]
    fn what_is_longer_than_the_scale_is_counted_at_its_end() {
        let histogram = Histogram::default();
        histogram.record(Duration::MAX);
        assert!(histogram.p50_p99_us().1 > 0);
    }
}
