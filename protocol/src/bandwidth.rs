//! Bandwidth probes: how fast a link carries 64 KiB, from the first byte to the last.
//!
//! The asker sends [`PAYLOAD_BYTES`] random bytes and ends its side of the stream; the other side sends the same bytes
//! back, or says in one line why not. Each measures what it receives: the indexer what comes from the node, the node what
//! comes back. Random, so that nobody can send the answer before it has the question, and nothing on the way makes it
//! smaller. A small packet there and back tells a round trip and no bandwidth (G15).

use std::time::Duration;

use thiserror::Error;

use crate::{
    json,
    wire::{Answer, Protocol, RefusalCode, Refused},
};

/// Bytes of a probe, each way: neither more nor fewer are taken.
pub const PAYLOAD_BYTES: usize = 64 * 1024;

/// From the first byte to the last, each way. At 8 KiB/s both ways fit between two beats, so that a probe delays none; a
/// link that is slower yet is not measured, and nothing is held against it.
pub const WITHIN: Duration = Duration::from_secs(8);

/// From the opening of a stream to its end: two ways, and a beat's patience for both first bytes.
pub const TOTAL: Duration = Duration::from_secs(20);

/// A shorter time measures our own scheduler and not the link. What is shown is 65.5 MB/s at the most.
const TOOK_MIN: Duration = Duration::from_millis(1);

/// How a peer ended what it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It said that nothing more comes.
    Closed,
    /// It goes on beyond what is taken.
    TooMany,
    /// It neither sent the rest nor said that nothing more comes.
    Late,
}

/// What came over a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Came {
    /// How many bytes, at most [`PAYLOAD_BYTES`].
    pub bytes: usize,
    /// From the first byte to the last.
    pub took: Duration,
    /// How it ended.
    pub end: End,
}

/// Why a probe measures nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProbeError {
    /// More than is taken.
    #[error("got more than {PAYLOAD_BYTES} bytes, expected so many")]
    TooMany,
    /// Not enough to measure a bandwidth by.
    #[error("got {got} bytes, expected {PAYLOAD_BYTES}")]
    TooFew {
        /// How many came.
        got: usize,
    },
    /// The rest, or the end, did not come in time.
    #[error("got {got} bytes and no end within {} s, expected {PAYLOAD_BYTES}", WITHIN.as_secs())]
    TooSlow {
        /// How many came.
        got: usize,
    },
}

impl ProbeError {
    /// The refusal in the words of the wire.
    #[must_use]
    pub fn refusal(self) -> Refused {
        let code = match self {
            Self::TooMany | Self::TooSlow { .. } => RefusalCode::Limit,
            Self::TooFew { .. } => RefusalCode::Invalid,
        };
        Refused::new(code, self.to_string())
    }

    /// The peer sent what it should not, rather than too slowly or too little: a connection that ends looks like the latter.
    #[must_use]
    pub const fn is_bad_input(self) -> bool {
        matches!(self, Self::TooMany)
    }
}

/// The throughput of what came, in bytes per second: finite, and above zero.
///
/// # Errors
/// When it is no probe: too much, too little, or too slow.
pub fn throughput(came: Came) -> Result<f64, ProbeError> {
    let Came { bytes: got, took, end } = came;
    match end {
        End::TooMany => Err(ProbeError::TooMany),
        _ if got > PAYLOAD_BYTES => Err(ProbeError::TooMany),
        End::Late => Err(ProbeError::TooSlow { got }),
        End::Closed if got < PAYLOAD_BYTES => Err(ProbeError::TooFew { got }),
        End::Closed if took > WITHIN => Err(ProbeError::TooSlow { got }),
        End::Closed => Ok(PAYLOAD_BYTES as f64 / took.max(TOOK_MIN).as_secs_f64()),
    }
}

/// Why what came back measures nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EchoError {
    /// The peer said no.
    #[error("refused ({:?}): {}", .0.refused, .0.detail)]
    Refused(Refused),
    /// Neither what was sent nor a refusal.
    #[error("got {got} bytes that are not those sent")]
    Other {
        /// How many came.
        got: usize,
    },
    /// Too slow.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

/// The throughput of the way back, in bytes per second.
///
/// # Errors
/// When `back` is a refusal, or not what was `sent`, or came too slowly.
pub fn echoed(sent: &[u8], back: &[u8], came: Came) -> Result<f64, EchoError> {
    if back == sent {
        return Ok(throughput(came)?);
    }
    let line = back.strip_suffix(b"\n").unwrap_or(back);
    match json::parse::<Answer<serde_json::Value>>(line, Protocol::Bandwidth.value_bytes_max()) {
        Ok(Answer::Refused(refused)) => Err(EchoError::Refused(refused)),
        Ok(Answer::Given(_)) | Err(_) => Err(EchoError::Other { got: back.len() }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::admission::THROUGHPUT_ENOUGH;

    fn came(bytes: usize, took: Duration, end: End) -> Came {
        Came { bytes, took, end }
    }

    #[test]
    fn g15_the_bytes_are_divided_by_the_time_from_first_to_last() {
        let measured = |millis| throughput(came(PAYLOAD_BYTES, Duration::from_millis(millis), End::Closed)).unwrap();
        assert_eq!(measured(1_000), 65_536.0);
        assert_eq!(measured(500), 131_072.0);
        assert_eq!(measured(1), 65_536_000.0);
        assert_eq!(measured(0), 65_536_000.0, "all in one read is fast, not infinitely so");
    }

    #[test]
    fn one_byte_too_many_or_too_few_is_refused_in_words() {
        let judged = |bytes, end| throughput(came(bytes, Duration::from_secs(1), end));
        assert!(judged(PAYLOAD_BYTES, End::Closed).is_ok());
        let few = judged(PAYLOAD_BYTES - 1, End::Closed).unwrap_err();
        assert_eq!(few.refusal().refused, RefusalCode::Invalid);
        assert_eq!(few.refusal().detail, "got 65535 bytes, expected 65536");
        let many = judged(PAYLOAD_BYTES, End::TooMany).unwrap_err();
        assert_eq!((many, many.refusal().refused), (ProbeError::TooMany, RefusalCode::Limit));
        assert_eq!(judged(PAYLOAD_BYTES + 1, End::Closed), Err(ProbeError::TooMany));
        assert!(many.is_bad_input());
        assert!(!few.is_bad_input(), "its connection may have ended");
    }

    #[test]
    fn a_probe_may_take_its_time_and_no_more() {
        assert!(throughput(came(PAYLOAD_BYTES, WITHIN, End::Closed)).is_ok());
        let slow = throughput(came(PAYLOAD_BYTES, WITHIN + Duration::from_nanos(1), End::Closed)).unwrap_err();
        assert_eq!(slow, ProbeError::TooSlow { got: PAYLOAD_BYTES });
        let late = throughput(came(10, Duration::from_secs(1), End::Late)).unwrap_err();
        assert_eq!(late.refusal().detail, "got 10 bytes and no end within 8 s, expected 65536");
        assert!(!late.is_bad_input(), "a slow link is no bad will");
    }

    #[test]
    fn whoever_sends_back_something_else_is_told_from_one_that_refuses() {
        let sent = [7; PAYLOAD_BYTES];
        let whole = came(PAYLOAD_BYTES, Duration::from_secs(1), End::Closed);
        assert_eq!(echoed(&sent, &sent, whole), Ok(65_536.0));
        let mut other = sent;
        other[PAYLOAD_BYTES - 1] = 8;
        assert_eq!(echoed(&sent, &other, whole), Err(EchoError::Other { got: PAYLOAD_BYTES }));
        let refused = Refused::new(RefusalCode::Busy, "later").retry_after(7);
        let line = format!("{}\n", serde_json::to_string(&refused).unwrap());
        assert_eq!(echoed(&sent, line.as_bytes(), whole), Err(EchoError::Refused(refused)));
        for nonsense in [&b""[..], b"{}", b"\n", &[0xff; 40], &b"[".repeat(500)] {
            assert_eq!(echoed(&sent, nonsense, whole), Err(EchoError::Other { got: nonsense.len() }));
        }
    }

    proptest! {
        /// What is measured at all is worth half of what is enough, at least: on this rests that no link is refused by it.
        #[test]
        fn a_measured_throughput_is_finite_and_never_worthless(nanos in 0..=8_000_000_000_u64) {
            let speed = throughput(came(PAYLOAD_BYTES, Duration::from_nanos(nanos), End::Closed)).unwrap();
            prop_assert!(speed.is_finite() && speed >= THROUGHPUT_ENOUGH / 2.0);
        }

        #[test]
        fn no_answer_breaks_the_asker(back: Vec<u8>) {
            let sent = [7; PAYLOAD_BYTES];
            prop_assert!(echoed(&sent, &back, came(back.len(), Duration::ZERO, End::Closed)).is_err());
        }
    }
}
