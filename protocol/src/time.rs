//! The two times of the house: one for waiting, one for what is signed.

use std::{fmt, ops::Add, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A point on one process's monotonic clock, counted from that process's start.
///
/// It is what waiting, deadlines and round trips are measured with; it never crosses the network. In a ledger it is
/// written to the nanosecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mono(Duration);

impl Mono {
    /// The start of the process.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The point `since_start` after the start of the process.
    #[must_use]
    pub const fn at(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The point `secs` seconds after the start of the process.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The point `millis` milliseconds after the start of the process.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Time since the start of the process.
    #[must_use]
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// Time from `earlier` to this point; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }
}

impl fmt::Display for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{:.3}s", self.0.as_secs_f64())
    }
}

/// Both times, read once at the top of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For waiting.
    pub mono: Mono,
    /// For expiry and signing only.
    pub wall: Timestamp,
}

/// Durations in settings: `"500ms"`, `"20s"`, `"2m"`, `"6h"`, `"1d"`.
pub mod text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// The units, longest first, with their length in milliseconds.
    const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

    /// Writes the duration in the largest unit that holds it exactly.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&write(*duration))
    }

    /// Reads a whole number followed by its unit.
    ///
    /// # Errors
    /// When the text is not a whole number followed by `ms`, `s`, `m`, `h` or `d`.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        read(&text).ok_or_else(|| {
            D::Error::custom(format!("got \"{text}\", expected a duration like \"500ms\", \"20s\", \"2m\" or \"6h\""))
        })
    }

    /// The duration as settings write it.
    #[must_use]
    pub fn write(duration: Duration) -> String {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (unit, length) = UNITS
            .into_iter()
            .find(|(_, length)| millis >= *length && millis.is_multiple_of(*length))
            .unwrap_or(("ms", 1));
        format!("{}{unit}", millis / length)
    }

    /// The duration that settings mean; nothing when it is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Duration> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let (_, length) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        number.parse::<u64>().ok()?.checked_mul(length).map(Duration::from_millis)
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]
        use super::*;

        #[test]
        fn what_is_written_is_read_again() {
            for (millis, text) in
                [(0, "0ms"), (1, "1ms"), (1_500, "1500ms"), (20_000, "20s"), (120_000, "2m"), (86_400_000, "1d")]
            {
                assert_eq!(write(Duration::from_millis(millis)), text);
                assert_eq!(read(text), Some(Duration::from_millis(millis)));
            }
        }

        #[test]
        fn what_is_no_duration_is_refused() {
            for text in
                ["", "20", "s", "-1s", "1.5s", "20 s", "20sec", "99999999999999999999s", "18446744073709551615d"]
            {
                assert_eq!(read(text), None, "{text}");
            }
        }
    }
}
