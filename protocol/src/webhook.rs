//! The webhook: alerts told to an address that the operator chose, signed, in order, again and again for an hour.
//!
//! What is told is bounded and in memory only: who was not reached for an hour hears of what is wrong then by the next
//! alert, and every alert is in the log as well. A notice is signed as the Standard Webhooks specification has it, so the
//! secret itself never travels and whoever receives it can verify it with any library for that.

use std::{collections::VecDeque, fmt, path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    delivery::pause_after,
    time::{Mono, text},
};

/// Notices that wait: each topic raised, made worse and cleared once, and as many again. At it the oldest leaves.
pub const NOTICES_MAX: usize = 64;

/// What could not be told within this is given up: it is news no more.
pub const LIFE: Duration = Duration::from_secs(3_600);

/// The longest pause that a receiver may ask for: less than the life of what waits.
pub const ASKED_PAUSE_MAX: Duration = Duration::from_secs(600);

/// Bytes of a secret, decoded, at least: fewer can be tried out.
pub const SECRET_BYTES_MIN: usize = 16;

/// Bytes of a secret, decoded, at most: what the specification allows.
pub const SECRET_BYTES_MAX: usize = 64;

/// What a secret in the specification's own form begins with.
const SECRET_PREFIX: &str = "whsec_";

/// Section `[webhook]`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where alerts are told; empty for nowhere. Of many services the address itself is a secret.
    pub url: String,
    /// File with the secret that notices are signed with; empty for no signature.
    pub secret_file: PathBuf,
    /// File of certificates that vouch for the receiver, beside those of the system; empty for none.
    pub tls_ca: PathBuf,
    /// The receiver answers within this, from the first look for its address on.
    #[serde(with = "text")]
    pub answer_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: String::new(),
            secret_file: PathBuf::new(),
            tls_ca: PathBuf::new(),
            answer_within: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// Whether anything is told at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.url.is_empty()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Settings")
            .field("url", &if self.is_on() { "hidden" } else { "none" })
            .field("secret_file", &self.secret_file)
            .field("tls_ca", &self.tls_ca)
            .field("answer_within", &self.answer_within)
            .finish()
    }
}

/// Why a secret cannot be used. It never says what was got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// What follows the prefix is no base64.
    #[error("what follows \"whsec_\" is no base64")]
    NoBase64,
    /// Too short, or too long.
    #[error("it has {0} bytes, expected {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}")]
    Length(usize),
}

/// What notices are signed with.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// As a file holds it: `whsec_` and base64, or the bytes themselves without the space around them.
    ///
    /// # Errors
    /// When it is no secret, or one that is too short.
    pub fn read(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let bytes = match text.strip_prefix(SECRET_PREFIX) {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| SecretError::NoBase64)?,
            None => text.as_bytes().to_vec(),
        };
        let bytes = Zeroizing::new(bytes);
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            return Err(SecretError::Length(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// The signature of a notice that is told at this second, for the header `webhook-signature`.
    #[must_use]
    pub fn sign(&self, id: &str, second: i64, body: &[u8]) -> String {
        // A key of any length is taken.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(format!("{id}.{second}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("hidden")
    }
}

/// Something to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The same when it is told again.
    pub id: String,
    /// JSON.
    pub body: String,
}

/// What became of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The receiver has it.
    Taken,
    /// Not now; the receiver may have said for how long.
    Failed {
        /// Why.
        cause: String,
        /// Zero where it said nothing.
        not_before: Duration,
    },
    /// Never: it would be refused again.
    Refused {
        /// Why.
        cause: String,
    },
}

impl Attempt {
    /// What an HTTP status means, and how long the receiver asked to be left alone.
    ///
    /// A redirect is no answer: whoever chose the address did not choose where it leads.
    #[must_use]
    pub fn of_status(status: u16, retry_after: Option<Duration>) -> Self {
        let cause = |more: &str| format!("the receiver answered {status}{more}");
        match status {
            200..=299 => Self::Taken,
            300..=399 => Self::Refused { cause: cause(", which leads elsewhere, and nobody is followed") },
            408 | 425 | 429 | 500.. => {
                Self::Failed { cause: cause(""), not_before: retry_after.unwrap_or_default().min(ASKED_PAUSE_MAX) }
            }
            _ => Self::Refused { cause: cause("") },
        }
    }
}

#[derive(Debug)]
struct Waiting {
    notice: Notice,
    since: Mono,
}

/// What waits for the receiver.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Waiting>,
    /// The first one is being told.
    is_running: bool,
    /// Failures in a row.
    failures: u32,
    /// Nothing is told before.
    not_before: Mono,
}

impl Queue {
    /// Something is to be told. Tells how many others it cost their place.
    pub fn push(&mut self, notice: Notice, now: Mono) -> u64 {
        let mut lost = 0;
        while self.waiting.len() >= NOTICES_MAX {
            // The one that is being told keeps its place until it is known what became of it.
            self.waiting.remove(usize::from(self.is_running));
            lost += 1;
        }
        self.waiting.push_back(Waiting { notice, since: now });
        lost
    }

    /// What is to be told now, and is being told from here on; nothing while another is, or before its time.
    pub fn next_turn(&mut self, now: Mono) -> Option<Notice> {
        if self.is_running || now < self.not_before {
            return None;
        }
        let notice = self.waiting.front()?.notice.clone();
        self.is_running = true;
        Some(notice)
    }

    /// An attempt has ended. Tells how many notices were given up.
    pub fn ended(&mut self, attempt: &Attempt, now: Mono, chance: &mut impl Rng) -> u64 {
        if !std::mem::take(&mut self.is_running) {
            return 0;
        }
        match attempt {
            Attempt::Taken | Attempt::Refused { .. } => {
                self.waiting.pop_front();
                (self.failures, self.not_before) = (0, now);
                u64::from(matches!(attempt, Attempt::Refused { .. }))
            }
            Attempt::Failed { not_before, .. } => {
                self.not_before = now + pause_after(self.failures, chance).max(*not_before);
                self.failures = self.failures.saturating_add(1);
                let before = self.waiting.len();
                self.waiting.retain(|waiting| now.since(waiting.since) < LIFE);
                u64::try_from(before - self.waiting.len()).unwrap_or(u64::MAX)
            }
        }
    }

    /// When the next turn is due; nothing while one is under way, or nothing waits.
    #[must_use]
    pub fn next_due(&self) -> Option<Mono> {
        (!self.is_running && !self.waiting.is_empty()).then_some(self.not_before)
    }

    /// Notices that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn notice(number: usize) -> Notice {
        Notice { id: format!("alert-{number}"), body: "{}".to_owned() }
    }

    fn failed(not_before: u64) -> Attempt {
        Attempt::Failed { cause: "away".to_owned(), not_before: Duration::from_secs(not_before) }
    }

    fn rng() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    #[test]
    fn a_notice_is_signed_as_the_specification_has_it() {
        let secret = Secret::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signed = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_of_sixteen_to_sixty_four_bytes_and_is_never_shown() {
        for (bytes, is_one) in [(15, false), (16, true), (64, true), (65, false)] {
            assert_eq!(Secret::read(&"g".repeat(bytes)).is_ok(), is_one, "{bytes}");
        }
        assert_eq!(Secret::read("whsec_not base64").unwrap_err(), SecretError::NoBase64);
        assert_eq!(Secret::read("whsec_Zw==").unwrap_err(), SecretError::Length(1));
        let shown = format!("{:?}", Secret::read("geheim-geheim-geheim").unwrap());
        assert!(!shown.contains("geheim"), "{shown}");
        let shown = format!("{:?}", Settings { url: "https://hooks/geheim".to_owned(), ..Settings::default() });
        assert!(!shown.contains("geheim"), "{shown}");
    }

    #[test]
    fn a_redirect_and_a_refusal_are_final_and_a_busy_receiver_is_asked_again() {
        for status in [200, 202, 204, 299] {
            assert_eq!(Attempt::of_status(status, None), Attempt::Taken, "{status}");
        }
        for status in [100, 301, 302, 307, 308, 400, 401, 403, 404, 410] {
            assert!(matches!(Attempt::of_status(status, None), Attempt::Refused { .. }), "{status}");
        }
        for (asked, expected) in [(None, 0), (Some(7), 7), (Some(600), 600), (Some(601), 600)] {
            for status in [408, 425, 429, 500, 503, 599] {
                let Attempt::Failed { not_before, .. } = Attempt::of_status(status, asked.map(Duration::from_secs))
                else {
                    panic!("{status} is final");
                };
                assert_eq!(not_before, Duration::from_secs(expected), "{status}");
            }
        }
    }

    #[test]
    fn notices_are_told_in_order_one_at_a_time() {
        let (mut queue, now) = (Queue::default(), Mono::from_secs(1));
        assert_eq!((queue.next_turn(now), queue.next_due()), (None, None));
        queue.push(notice(1), now);
        queue.push(notice(2), now);
        assert_eq!(queue.next_turn(now), Some(notice(1)));
        assert_eq!((queue.next_turn(now), queue.next_due()), (None, None), "one at a time");
        assert_eq!(queue.ended(&Attempt::Taken, now, &mut rng()), 0);
        assert_eq!(queue.next_turn(now), Some(notice(2)));
        let refused = Attempt::Refused { cause: "no".to_owned() };
        assert_eq!(queue.ended(&refused, now, &mut rng()), 1, "it is given up, and the next one is not");
        assert!(queue.is_empty());
    }

    #[test]
    fn pauses_grow_to_a_minute_and_are_no_shorter_than_the_receiver_asks() {
        let (mut queue, mut rng, mut now) = (Queue::default(), rng(), Mono::ZERO);
        queue.push(notice(1), now);
        let mut longest = Duration::ZERO;
        for _ in 0..12 {
            assert_eq!(queue.next_turn(now), Some(notice(1)));
            queue.ended(&failed(0), now, &mut rng);
            let due = queue.next_due().unwrap();
            longest = due.since(now);
            assert_eq!(queue.next_turn(now), None);
            now = due;
        }
        assert!((Duration::from_secs(48)..=Duration::from_secs(60)).contains(&longest), "{longest:?}");
        queue.next_turn(now);
        queue.ended(&failed(300), now, &mut rng);
        assert_eq!(queue.next_due().unwrap().since(now), Duration::from_secs(300));
    }

    #[test]
    fn what_nobody_took_for_an_hour_is_given_up() {
        let (mut queue, mut rng) = (Queue::default(), rng());
        queue.push(notice(1), Mono::ZERO);
        queue.push(notice(2), Mono::from_secs(1));
        queue.next_turn(Mono::ZERO);
        let hour = Mono::ZERO + LIFE;
        assert_eq!(queue.ended(&failed(0), hour, &mut rng), 1);
        assert_eq!(queue.next_turn(hour + Duration::from_secs(2)), Some(notice(2)), "a second younger");
    }

    #[test]
    fn past_the_bound_the_oldest_leaves_and_never_the_one_that_is_being_told() {
        let (mut queue, now) = (Queue::default(), Mono::ZERO);
        let lost: u64 = (0..NOTICES_MAX).map(|number| queue.push(notice(number), now)).sum();
        assert_eq!((lost, queue.len()), (0, NOTICES_MAX));
        assert_eq!(queue.next_turn(now), Some(notice(0)));
        assert_eq!((queue.push(notice(999), now), queue.len()), (1, NOTICES_MAX));
        queue.ended(&Attempt::Taken, now, &mut rng());
        assert_eq!(queue.next_turn(now), Some(notice(2)), "the second made room");
    }
}
