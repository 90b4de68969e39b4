//! Objects that are signed whole and kept as the text in which they came.
//!
//! The order of page `docs/protocol.md`: length, one pass over the text, its canonical form without the signature, the
//! domain tag in front, the signature, and only then the typed object and its own rules. What a stranger sent is never
//! typed before it is known who signed it, and never rebuilt from the type afterwards.

use std::{marker::PhantomData, ops::Deref, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::{Signature, VerifyingKey};
use jiff::Timestamp;
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{
    identity::{Keys, key_of},
    json::{self, JsonError},
    wire::RefusalCode,
};

/// How far a receiver's clock may differ from the signer's before expiry is held against the object.
pub const CLOCK_SKEW: Duration = Duration::from_secs(30);

/// The field that names the signer, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The field `pub_key`: base64 of the raw 32 bytes.
    PubKey,
    /// A field with a peer id, which holds the key itself.
    PeerId(&'static str),
}

/// What is signed whole: its domain, its limit and its rules.
pub trait SignedObject: Serialize + DeserializeOwned + Clone {
    /// ASCII tag in front of the canonical bytes, so that a signature of one kind never serves for another.
    const DOMAIN: &'static str;

    /// The field that holds the base64 of the 64 bytes of the signature.
    const SIGNATURE_FIELD: &'static str = "signature";

    /// The most bytes that the text may have.
    const BYTES_MAX: usize;

    /// Where the text names its signer.
    const SIGNER: Signer = Signer::PubKey;

    /// Whether the object names these keys' owner as its signer.
    fn is_by(&self, keys: &Keys) -> bool;

    /// Checks what must hold of the object beside its signature.
    ///
    /// # Errors
    /// When a rule of the object does not hold at `now`.
    fn check(&self, now: Timestamp) -> Result<(), SignedError>;
}

/// Why a signed object is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignedError {
    /// The text is no JSON value within the limits, or not the object expected.
    #[error(transparent)]
    Malformed(#[from] JsonError),
    /// A field without which nothing can be verified is absent or no text.
    #[error("got no text in \"{field}\"")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field is not base64 of so many bytes.
    #[error("got something else in \"{field}\", expected base64 of {bytes} bytes")]
    NotBytes {
        /// Its name.
        field: &'static str,
        /// Bytes expected.
        bytes: usize,
    },
    /// The signature is not that of the key over this text.
    #[error("the signature does not verify")]
    BadSignature,
    /// It is over: replayed, or one of the two clocks is wrong.
    #[error("got an object that expired at {expiry}, now is {now}")]
    Expired {
        /// When it expired.
        expiry: Timestamp,
        /// The receiver's clock.
        now: Timestamp,
    },
    /// It is from the future: signed for too long, or one of the two clocks is wrong.
    #[error("got an object dated {time}, expected at most {ahead_max:?} ahead of {now}")]
    FromFuture {
        /// When it expires, or when it says that it was made.
        time: Timestamp,
        /// The receiver's clock.
        now: Timestamp,
        /// How far ahead it may be, the skew included.
        ahead_max: Duration,
    },
    /// It is signed by a key that is not the one of the identity that it names.
    #[error("got {field} \"{got}\", which is not that of its key")]
    NotTheSigners {
        /// Which identity.
        field: &'static str,
        /// What it says.
        got: String,
    },
    /// Another rule of the object does not hold.
    #[error("got {got} in \"{field}\", expected {expected}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What it holds, shortened by whoever found it.
        got: String,
        /// What would have been right.
        expected: &'static str,
    },
}

impl SignedError {
    /// The code with which it is refused.
    #[must_use]
    pub fn refusal(&self) -> RefusalCode {
        match self {
            Self::Malformed(JsonError::TooLong { .. }) => RefusalCode::Limit,
            Self::Expired { .. } | Self::FromFuture { .. } => RefusalCode::Clock,
            Self::Malformed(_)
            | Self::Missing { .. }
            | Self::NotBytes { .. }
            | Self::BadSignature
            | Self::NotTheSigners { .. }
            | Self::Invalid { .. } => RefusalCode::Invalid,
        }
    }

    /// Only forging is a strike: a wrong clock, another program or a broken one must not get its user banned.
    #[must_use]
    pub fn is_strike(&self) -> bool {
        matches!(self, Self::BadSignature | Self::NotTheSigners { .. })
    }
}

/// Checks that something that ends at `expiry` is alive at `now` and was not signed for longer than `life_max`.
///
/// # Errors
/// When it is over, or ends too far ahead; both with the skew allowed.
pub fn check_expiry(expiry: Timestamp, now: Timestamp, life_max: Duration) -> Result<(), SignedError> {
    let ahead = expiry.duration_since(now);
    if ahead.is_negative() && ahead.unsigned_abs() >= CLOCK_SKEW {
        return Err(SignedError::Expired { expiry, now });
    }
    let ahead_max = life_max + CLOCK_SKEW;
    if ahead.is_positive() && ahead.unsigned_abs() > ahead_max {
        return Err(SignedError::FromFuture { time: expiry, now, ahead_max });
    }
    Ok(())
}

/// The 32 bytes of a key as signed objects write it.
///
/// # Errors
/// When the text is not the padded base64 of 32 bytes.
pub fn key_bytes(pub_key: &str) -> Result<[u8; 32], SignedError> {
    bytes_of("pub_key", pub_key)
}

fn bytes_of<const N: usize>(field: &'static str, text: &str) -> Result<[u8; N], SignedError> {
    let bytes = BASE64.decode(text).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(SignedError::NotBytes { field, bytes: N })
}

/// A signed text that passed all that is cheap. Verifying is what costs; it may be done on another thread, or never.
#[derive(Clone, Debug)]
pub struct Unverified<T> {
    text: Arc<str>,
    /// Domain tag and canonical bytes.
    message: Vec<u8>,
    key: [u8; 32],
    signature: Signature,
    of: PhantomData<fn() -> T>,
}

impl<T: SignedObject> Unverified<T> {
    /// Reads a text up to the point where its signature can be verified.
    ///
    /// # Errors
    /// When the text is too long, malformed, or has no key or no signature of the right length.
    pub fn read(text: &str) -> Result<Self, SignedError> {
        let checked = json::check(text.as_bytes(), T::BYTES_MAX)?;
        let key = signer_key(checked, T::SIGNER)?;
        let signature = bytes_of::<64>(T::SIGNATURE_FIELD, &text_field(checked, T::SIGNATURE_FIELD)?)?;
        let message = message::<T>(&checked.canonical(Some(T::SIGNATURE_FIELD)));
        Ok(Self { text: text.into(), message, key, signature: Signature::from_bytes(&signature), of: PhantomData })
    }

    /// Verifies the signature, types the text and checks the object's rules.
    ///
    /// # Errors
    /// When the signature is not that of the key, the text is not a `T`, or a rule does not hold at `now`.
    pub fn verify(self, now: Timestamp) -> Result<Verified<T>, SignedError> {
        let key = VerifyingKey::from_bytes(&self.key).map_err(|_| SignedError::BadSignature)?;
        key.verify_strict(&self.message, &self.signature).map_err(|_| SignedError::BadSignature)?;
        let value: T = serde_json::from_str(&self.text).map_err(|error| JsonError::shape(&error))?;
        value.check(now)?;
        Ok(Verified { text: self.text, value })
    }
}

/// The canonical text with its signature as the last field.
fn signed_text<T: SignedObject>(checked: json::Checked<'_>, keys: &Keys) -> Arc<str> {
    let canonical = checked.canonical(Some(T::SIGNATURE_FIELD));
    let signature = BASE64.encode(keys.sign(&message::<T>(&canonical)));
    let body = canonical.strip_suffix('}').expect("a signed object is a JSON object");
    format!("{body},\"{}\":\"{signature}\"}}", T::SIGNATURE_FIELD).into()
}

/// What the text says of its signer, shortened.
fn signer_text(checked: json::Checked<'_>, signer: Signer) -> String {
    let field = match signer {
        Signer::PubKey => "pub_key",
        Signer::PeerId(field) => field,
    };
    text_field(checked, field).unwrap_or_default().chars().take(64).flat_map(char::escape_debug).collect()
}

fn signer_key(checked: json::Checked<'_>, signer: Signer) -> Result<[u8; 32], SignedError> {
    match signer {
        Signer::PubKey => key_bytes(&text_field(checked, "pub_key")?),
        Signer::PeerId(field) => {
            let text = text_field(checked, field)?;
            let key = text.parse().ok().and_then(|peer| key_of(&peer));
            // A hash of a key, a key of another kind, or no peer id at all: nothing can be verified with it.
            key.ok_or(SignedError::NotBytes { field, bytes: 32 })
        }
    }
}

fn text_field(checked: json::Checked<'_>, field: &'static str) -> Result<String, SignedError> {
    let text = checked.field(field).and_then(|text| serde_json::from_str(text).ok());
    text.ok_or(SignedError::Missing { field })
}

fn message<T: SignedObject>(canonical: &str) -> Vec<u8> {
    [T::DOMAIN.as_bytes(), canonical.as_bytes()].concat()
}

/// A signed object whose signature and rules were checked, with the text that was signed.
///
/// It is made by verification or by signing and in no other way, so a function that asks for one cannot be given hearsay.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    text: Arc<str>,
    value: T,
}

impl<T> Verified<T> {
    /// The JSON text exactly as it was signed or came in.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The object.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The text as a field of another message.
    #[must_use]
    pub fn to_raw(&self) -> Box<RawValue> {
        RawValue::from_string(self.text.to_string()).expect("a verified text is JSON")
    }
}

impl<T: SignedObject> Verified<T> {
    /// The base64 of its signature: the same for the same words of the same signer, however the text is laid out.
    #[must_use]
    pub fn signature(&self) -> String {
        let checked = json::check(self.text.as_bytes(), T::BYTES_MAX).expect("a verified text passed the check");
        text_field(checked, T::SIGNATURE_FIELD).expect("a verified text has a signature")
    }

    /// Verifies a text and everything that must hold of it at `now`.
    ///
    /// # Errors
    /// Those of [`Unverified::read`] and [`Unverified::verify`].
    pub fn open(text: &str, now: Timestamp) -> Result<Self, SignedError> {
        Unverified::read(text)?.verify(now)
    }

    /// Signs an object; its text is built once, here. The signer answers for the object's other rules.
    ///
    /// # Panics
    /// When the object names another key than `keys`: nobody could verify it.
    #[must_use]
    pub fn sign(value: &T, keys: &Keys) -> Self {
        assert!(value.is_by(keys), "an object is signed with the key that it names");
        let written = serde_json::to_string(value).expect("a signed object can be written as JSON");
        let checked =
            json::check(written.as_bytes(), usize::MAX).expect("a signed object is written within the limits");
        Self { text: signed_text::<T>(checked, keys), value: value.clone() }
    }

    /// Signs a text whose unknown fields are somebody's and are to be kept. A signature that it has is replaced.
    ///
    /// # Errors
    /// When the text is too long or malformed, is not a `T` that names these keys, or a rule does not hold at `now`.
    pub fn sign_text(text: &str, keys: &Keys, now: Timestamp) -> Result<Self, SignedError> {
        let checked = json::check(text.as_bytes(), T::BYTES_MAX)?;
        let value: T = checked.read()?;
        if !value.is_by(keys) {
            return Err(SignedError::NotTheSigners { field: "signer", got: signer_text(checked, T::SIGNER) });
        }
        value.check(now)?;
        let text = signed_text::<T>(checked, keys);
        if text.len() > T::BYTES_MAX {
            return Err(JsonError::TooLong { got: text.len(), max: T::BYTES_MAX }.into());
        }
        Ok(Self { text, value })
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Two of them are the same when their texts are.
impl<T> PartialEq for Verified<T> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<T> Eq for Verified<T> {}

/// What an unverified text says of itself: enough to see that it brings nothing new, and to be believed in nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Claimed {
    #[serde(with = "crate::wire::text")]
    peer_id: PeerId,
    seq: u64,
    expiry_date: Timestamp,
}

impl Claimed {
    /// Reads the three fields and nothing else; no signature is verified.
    ///
    /// # Errors
    /// When the text has more than `bytes_max` bytes or is no object with these fields.
    pub fn peek(text: &str, bytes_max: usize) -> Result<Self, JsonError> {
        if text.len() > bytes_max {
            return Err(JsonError::TooLong { got: text.len(), max: bytes_max });
        }
        serde_json::from_str(text).map_err(|error| JsonError::shape(&error))
    }

    /// Whose it says it is.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Its sequence number, as it says.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Its end, as it says.
    #[must_use]
    pub fn expiry_date(&self) -> Timestamp {
        self.expiry_date
    }

    /// It is worth verifying: nothing is held, or something with a lower `seq`.
    #[must_use]
    pub fn is_news_to(&self, held_seq: Option<u64>) -> bool {
        held_seq.is_none_or(|held| self.seq > held)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::record::{LIFE_MAX, PeerRecord};

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn keys() -> Keys {
        Keys::from_seed([7; 32])
    }

    fn record(keys: &Keys) -> PeerRecord {
        PeerRecord {
            name: "Zürich \"HQ\"".to_owned(),
            did: keys.did().to_string(),
            pub_key: keys.pub_key().to_owned(),
            peer_id: keys.peer_id(),
            api_url: "https://zurich.example.org/api".to_owned(),
            stream_address: String::new(),
            addrs: vec!["/ip4/192.0.2.1/tcp/4001".parse().unwrap()],
            nats_address: String::new(),
            wallet_address: String::new(),
            capabilities: vec!["/opencloud/hello/1.0".to_owned()],
            born_at: now(),
            expiry_date: now() + Duration::from_secs(120),
            seq: 1_767_323_045_000,
        }
    }

    /// A text signed by `keys` without the help of a type, as another implementation may write it.
    fn sign_text(body: &str, domain: &str, keys: &Keys) -> String {
        let canonical = json::check(body.as_bytes(), usize::MAX).unwrap().canonical(Some("signature"));
        let signature = BASE64.encode(keys.sign(format!("{domain}{canonical}").as_bytes()));
        format!("{},\"signature\":\"{signature}\"}}", body.strip_suffix('}').unwrap())
    }

    fn open(text: &str) -> Result<Verified<PeerRecord>, SignedError> {
        Verified::open(text, now())
    }

    #[test]
    fn what_was_signed_verifies_and_keeps_its_text() {
        let signed = Verified::sign(&record(&keys()), &keys());
        let opened = open(signed.text()).unwrap();
        assert_eq!(opened.text(), signed.text());
        assert_eq!(*opened.value(), record(&keys()));
        assert_eq!(opened.to_raw().get(), &**signed.text());
        assert_eq!(opened, signed);
    }

    #[test]
    fn unknown_fields_are_signed_and_kept_and_order_and_spaces_do_not_matter() {
        let written = serde_json::to_string(&record(&keys())).unwrap();
        let body = format!("{{ \"zone\" : {{\"b\":1.50,\"a\":[]}}, {}", &written[1..]);
        let text = sign_text(&body, PeerRecord::DOMAIN, &keys());
        assert_eq!(&**open(&text).unwrap().text(), text);
        assert_eq!(open(&text.replace("1.50", "1.5")).unwrap().name, record(&keys()).name);
        assert_eq!(open(&text.replace("1.50", "1.51")), Err(SignedError::BadSignature));
        assert_eq!(open(&text.replace("\"zone\"", "\"zona\"")), Err(SignedError::BadSignature));
    }

    #[test]
    fn a_signature_of_another_domain_is_refused() {
        let body = serde_json::to_string(&record(&keys())).unwrap();
        for domain in ["", "muster-pid:1:", "muster-record:2:"] {
            assert_eq!(open(&sign_text(&body, domain, &keys())), Err(SignedError::BadSignature), "{domain}");
        }
        assert!(open(&sign_text(&body, "muster-record:1:", &keys())).is_ok());
    }

    #[test]
    fn a_signature_of_another_key_is_a_strike() {
        let body = serde_json::to_string(&record(&keys())).unwrap();
        let error = open(&sign_text(&body, PeerRecord::DOMAIN, &Keys::from_seed([8; 32]))).unwrap_err();
        assert_eq!(error, SignedError::BadSignature);
        assert!(error.is_strike());
        assert_eq!(error.refusal(), RefusalCode::Invalid);
    }

    #[test]
    fn a_key_of_small_order_signs_nothing() {
        // The neutral point as key and as R with S = 0 verifies any message where the check is not strict.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        let mut value = record(&keys());
        value.pub_key = BASE64.encode(neutral);
        let body = serde_json::to_string(&value).unwrap();
        let text = format!("{},\"signature\":\"{}\"}}", body.strip_suffix('}').unwrap(), BASE64.encode(signature));
        assert_eq!(open(&text), Err(SignedError::BadSignature));
    }

    #[test]
    fn a_second_form_of_a_signature_is_refused() {
        // S + the order of the group is the same scalar.
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let signed = Verified::sign(&record(&keys()), &keys());
        let (head, tail) = signed.text().rsplit_once(":\"").unwrap();
        let mut signature = BASE64.decode(tail.trim_end_matches("\"}")).unwrap();
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        let text = format!("{head}:\"{}\"}}", BASE64.encode(signature));
        assert_eq!(open(&text), Err(SignedError::BadSignature));
    }

    #[test]
    fn what_cannot_be_verified_is_malformed_and_no_strike() {
        let text = Verified::sign(&record(&keys()), &keys()).text().to_string();
        let check = |text: &str, code: RefusalCode| {
            let error = open(text).unwrap_err();
            assert_eq!((error.refusal(), error.is_strike()), (code, false), "{error}");
        };
        check("", RefusalCode::Invalid);
        check("[]", RefusalCode::Invalid);
        check("{}", RefusalCode::Invalid);
        check(&text.replace("signature", "Signature"), RefusalCode::Invalid);
        check(&text.replace("\"pub_key\"", "\"pub\""), RefusalCode::Invalid);
        check(&text.replace("==\"}", "\"}"), RefusalCode::Invalid);
        check(&text.replacen('{', "{\"seq\":1,", 1), RefusalCode::Invalid);
        check(&text.replacen('{', "{\n", 1), RefusalCode::Invalid);
        check(&format!("{text}{}", " ".repeat(PeerRecord::BYTES_MAX)), RefusalCode::Limit);
    }

    #[test]
    fn a_text_is_taken_at_its_limit_and_refused_past_it() {
        let text = Verified::sign(&record(&keys()), &keys()).text().to_string();
        let padded = format!("{text}{}", " ".repeat(PeerRecord::BYTES_MAX - text.len()));
        assert!(open(&padded).is_ok());
        let error = open(&format!("{padded} ")).unwrap_err();
        assert_eq!(error.refusal(), RefusalCode::Limit);
    }

    #[test]
    fn it_is_typed_only_after_it_verified() {
        let body = serde_json::to_string(&record(&keys())).unwrap().replace("\"seq\":", "\"seq\":-");
        let text = sign_text(&body, PeerRecord::DOMAIN, &keys());
        assert!(matches!(open(&text), Err(SignedError::Malformed(JsonError::Shape(_)))));
        assert_eq!(open(&text.replace("Zürich", "Zurich")), Err(SignedError::BadSignature));
    }

    #[test]
    fn g19_an_expired_object_is_refused_with_clock_and_is_no_strike() {
        let expiry = now();
        let at = |now: Timestamp| check_expiry(expiry, now, LIFE_MAX);
        assert_eq!(at(expiry), Ok(()));
        assert_eq!(at(expiry + CLOCK_SKEW - Duration::from_nanos(1)), Ok(()));
        let late = at(expiry + CLOCK_SKEW).unwrap_err();
        assert_eq!(at(expiry - LIFE_MAX - CLOCK_SKEW), Ok(()));
        let early = at(expiry - LIFE_MAX - CLOCK_SKEW - Duration::from_nanos(1)).unwrap_err();
        for error in [late, early, at(Timestamp::MAX).unwrap_err(), at(Timestamp::MIN).unwrap_err()] {
            assert_eq!((error.refusal(), error.is_strike()), (RefusalCode::Clock, false), "{error}");
        }
        let signed = Verified::sign(&record(&keys()), &keys());
        let later = now() + Duration::from_secs(151);
        assert_eq!(Verified::<PeerRecord>::open(signed.text(), later).unwrap_err().refusal(), RefusalCode::Clock);
    }

    #[test]
    fn a_claim_is_read_without_verifying() {
        let text = Verified::sign(&record(&keys()), &keys()).text().replace("Zürich", "Geneva");
        let claimed = Claimed::peek(&text, PeerRecord::BYTES_MAX).unwrap();
        assert_eq!(claimed.peer_id(), keys().peer_id());
        assert_eq!(claimed.expiry_date(), record(&keys()).expiry_date);
        assert!(claimed.is_news_to(None));
        assert!(claimed.is_news_to(Some(claimed.seq() - 1)));
        assert!(!claimed.is_news_to(Some(claimed.seq())));
        assert!(!claimed.is_news_to(Some(claimed.seq() + 1)));
        assert!(Claimed::peek(&text, text.len()).is_ok());
        assert_eq!(Claimed::peek(&text, 10), Err(JsonError::TooLong { got: text.len(), max: 10 }));
        assert!(Claimed::peek("{\"seq\":1}", 100).is_err());
    }

    #[test]
    #[should_panic(expected = "the key that it names")]
    fn nothing_is_signed_with_a_key_that_it_does_not_name() {
        let _ = Verified::sign(&record(&keys()), &Keys::from_seed([8; 32]));
    }

    #[test]
    fn verification_may_happen_on_another_thread() {
        fn is_send<T: Send + Sync + 'static>() {}
        is_send::<Unverified<PeerRecord>>();
        is_send::<Verified<PeerRecord>>();
    }

    /// Any byte changed to any other: refused, or it was the same object in the same canonical form.
    #[test]
    fn g22_no_mutation_of_a_signed_text_is_accepted() {
        const SEED: u64 = 22;
        const MUTATIONS: usize = 3_000;
        let signed = Verified::sign(&record(&keys()), &keys());
        let canonical = |text: &str| json::check(text.as_bytes(), usize::MAX).unwrap().canonical(None);
        let mut chance = StdRng::seed_from_u64(SEED);
        let mut accepted = 0;
        for _ in 0..MUTATIONS {
            let mut bytes = signed.text().as_bytes().to_vec();
            let at = chance.random_range(0..bytes.len());
            bytes[at] ^= chance.random_range(1..=255u8);
            let Ok(text) = str::from_utf8(&bytes) else { continue };
            if let Ok(opened) = open(text) {
                assert_eq!(canonical(text), canonical(signed.text()), "seed {SEED}, byte {at}: {text}");
                assert_eq!(opened.value(), signed.value(), "seed {SEED}, byte {at}: {text}");
                accepted += 1;
            }
        }
        assert!(accepted < MUTATIONS / 100, "seed {SEED}: {accepted} mutations were the same object");
    }

    /// Bytes taken out, put in and swapped.
    #[test]
    fn g22_no_cut_or_longer_text_is_accepted() {
        const SEED: u64 = 23;
        let signed = Verified::sign(&record(&keys()), &keys());
        let canonical = |text: &str| json::check(text.as_bytes(), usize::MAX).unwrap().canonical(None);
        let mut chance = StdRng::seed_from_u64(SEED);
        for _ in 0..1_000 {
            let mut bytes = signed.text().as_bytes().to_vec();
            let (at, other) = (chance.random_range(0..bytes.len()), chance.random_range(0..bytes.len()));
            match chance.random_range(0..3u8) {
                0 => drop(bytes.remove(at)),
                1 => bytes.insert(at, bytes[other]),
                _ => bytes.swap(at, other),
            }
            let Ok(text) = str::from_utf8(&bytes) else { continue };
            if open(text).is_ok() {
                assert_eq!(canonical(text), canonical(signed.text()), "seed {SEED}: {text}");
            }
        }
    }
}

/// The vectors with which another language checks itself: `protocol/vectors/`.
#[cfg(test)]
mod vectors {
    #![allow(clippy::unwrap_used)]
    use serde::Deserialize;

    use super::*;
    use crate::{
        bus::{Announcement, VerbOut},
        catalogue::{Access, Instance, Kind, Partnership, Removal, Resource},
        dht::{NameClaim, PidValue},
        event::{Event, Verb},
        presence::token::{PresenceToken, epoch_of},
        record::{IndexerRecord, Leave, PeerRecord},
        revocations::{self, Revoke},
        wire::{AddrInfo, Role},
    };

    /// One signed object. The key is worth nothing: its seed is written beside it.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Vector {
        /// What is particular about it.
        note: String,
        /// The 32 secret bytes in hex.
        seed: String,
        pub_key: String,
        peer_id: String,
        did: String,
        /// A time at which it is valid.
        now: Timestamp,
        domain: String,
        /// The object as it travels.
        text: String,
        /// Its canonical form without its signature; behind the domain tag, it is what is signed.
        canonical: String,
        signature: String,
    }

    /// A text that must not be taken, and the code with which it is refused.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Refusal {
        note: String,
        domain: String,
        now: Timestamp,
        text: String,
        code: RefusalCode,
        strike: bool,
    }

    const SEED: [u8; 32] = [0x4d; 32];

    fn keys() -> Keys {
        Keys::from_seed(SEED)
    }

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn peer() -> PeerRecord {
        PeerRecord {
            name: "Z\u{fc}rich \"HQ\" \\ \u{1f3d4}".to_owned(),
            did: keys().did().to_string(),
            pub_key: keys().pub_key().to_owned(),
            peer_id: keys().peer_id(),
            api_url: "https://zurich.example.org/api".to_owned(),
            stream_address: format!("/ip4/192.0.2.7/tcp/4001/p2p/{}", keys().peer_id()),
            addrs: vec!["/ip4/192.0.2.7/tcp/4001".parse().unwrap(), "/ip6/2001:db8::7/tcp/4001".parse().unwrap()],
            nats_address: "nats://nats.zurich.example.org:4222".to_owned(),
            wallet_address: String::new(),
            capabilities: vec!["/opencloud/hello/1.0".to_owned(), "/opencloud/record/leave/1.0".to_owned()],
            born_at: "2026-01-01T00:00:00.25Z".parse().unwrap(),
            expiry_date: now() + Duration::from_secs(120),
            seq: 1_767_323_045_000,
        }
    }

    fn indexer(fill_rate: f64) -> IndexerRecord {
        IndexerRecord {
            peer_id: keys().peer_id(),
            addrs: vec!["/ip4/192.0.2.7/tcp/4001".parse().unwrap()],
            region: "eu-west".to_owned(),
            capacity: 500,
            fill_rate,
            peer_count: 125,
            salt: BASE64.encode([1, 2, 3, 4, 5, 6, 7, 8]),
            peers_digest: vec![BASE64.encode([0xff; 8]), BASE64.encode([0x10; 8])],
            born_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            expiry_date: now() + Duration::from_secs(600),
            seq: 1_767_323_045_001,
            pub_key: keys().pub_key().to_owned(),
        }
    }

    fn pid() -> PidValue {
        let (did, pub_key) = (keys().did().to_string(), keys().pub_key().to_owned());
        PidValue { did, peer_id: keys().peer_id(), seq: 7, expiry_date: now() + Duration::from_secs(120), pub_key }
    }

    fn claim() -> NameClaim {
        NameClaim {
            name: "Z\u{fc}rich".to_owned(),
            did: "c0a80121-7ac0-4e1c-9b1f-2f3f8a0e1d55".to_owned(),
            peer_id: keys().peer_id(),
            seq: 7,
            expiry_date: now() + Duration::from_secs(120),
            pub_key: keys().pub_key().to_owned(),
        }
    }

    fn leave() -> Leave {
        Leave {
            peer_id: keys().peer_id(),
            did: keys().did().to_string(),
            role: Role { node: true, indexer: true },
            born_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            seq: 8,
            time: now(),
            restart: true,
            alternatives: vec![AddrInfo {
                id: Keys::from_seed([0x4e; 32]).peer_id(),
                addrs: vec!["/ip4/192.0.2.8/tcp/4001".parse().unwrap()],
            }],
            pub_key: keys().pub_key().to_owned(),
        }
    }

    fn vector<T: SignedObject>(note: &str, text: &str) -> Vector {
        let checked = json::check(text.as_bytes(), T::BYTES_MAX).unwrap();
        let seed: String = SEED.iter().map(|byte| format!("{byte:02x}")).collect();
        Vector {
            note: note.to_owned(),
            seed,
            pub_key: keys().pub_key().to_owned(),
            peer_id: keys().peer_id().to_string(),
            did: keys().did().to_string(),
            now: now(),
            domain: T::DOMAIN.to_owned(),
            text: text.to_owned(),
            canonical: checked.canonical(Some(T::SIGNATURE_FIELD)),
            signature: text_field(checked, T::SIGNATURE_FIELD).unwrap(),
        }
    }

    fn signed<T: SignedObject>(note: &str, value: &T) -> Vector {
        vector::<T>(note, Verified::sign(value, &keys()).text())
    }

    /// The same record from a program that writes in its own way and has more to say.
    fn foreign() -> Vector {
        let written = serde_json::to_string(&peer()).unwrap();
        let body = format!(
            "{{ \"zone\": {{\"\\ufb33\":1, \"\\ud83d\\ude00\":[-0, 1.50, 1e-7, 4.5E2, 0.000001]}},\t\"\\u000b\\/\" :null, {}",
            &written[1..]
        );
        let canonical = json::check(body.as_bytes(), usize::MAX).unwrap().canonical(None);
        let signature = BASE64.encode(keys().sign(&message::<PeerRecord>(&canonical)));
        let text = format!("{{\"signature\":\"{signature}\",{}", &body[1..]);
        vector::<PeerRecord>("unknown fields, escapes, spaces and numbers in other forms", &text)
    }

    fn check<T: SignedObject + PartialEq + std::fmt::Debug>(kept: &str, expected: &[Vector], values: &[T]) {
        let text = serde_json::to_string_pretty(expected).unwrap();
        assert_eq!(kept.trim_end(), text, "the vectors differ; they should read:\n{text}");
        let kept: Vec<Vector> = serde_json::from_str(kept).unwrap();
        for (index, vector) in kept.iter().enumerate() {
            let opened = Verified::<T>::open(&vector.text, vector.now).unwrap();
            let message = format!("{}{}", vector.domain, vector.canonical);
            let key = VerifyingKey::from_bytes(&key_bytes(&vector.pub_key).unwrap()).unwrap();
            let signature = Signature::from_bytes(&bytes_of("signature", &vector.signature).unwrap());
            key.verify_strict(message.as_bytes(), &signature).unwrap();
            if let Some(value) = values.get(index) {
                assert_eq!(opened.value(), value);
                assert_eq!(&**Verified::sign(value, &keys()).text(), vector.text);
            }
        }
    }

    #[test]
    fn peer_records_are_signed_as_in_the_vectors() {
        let expected = [signed("as this implementation writes it", &peer()), foreign()];
        check(include_str!("../vectors/peer_record.json"), &expected, &[peer()]);
    }

    #[test]
    fn indexer_records_are_signed_as_in_the_vectors() {
        let values = [indexer(0.25), indexer(1.0), indexer(0.000_000_1)];
        let expected = [
            signed("a fraction", &values[0]),
            signed("a whole number written with a point", &values[1]),
            signed("a tiny number", &values[2]),
        ];
        check(include_str!("../vectors/indexer_record.json"), &expected, &values);
    }

    #[test]
    fn pid_values_are_signed_as_in_the_vectors() {
        check(include_str!("../vectors/pid_value.json"), &[signed("value of /pid/<peer id>", &pid())], &[pid()]);
    }

    #[test]
    fn name_claims_are_signed_as_in_the_vectors() {
        let expected = [signed("one claim in the array of /name/zürich, its DID a UUID", &claim())];
        check(include_str!("../vectors/name_claim.json"), &expected, &[claim()]);
    }

    #[test]
    fn leaves_are_signed_as_in_the_vectors() {
        check(include_str!("../vectors/leave.json"), &[signed("a restart announced", &leave())], &[leave()]);
    }

    #[test]
    fn revocations_are_signed_as_in_the_vectors() {
        let did = keys().did().to_string();
        let values = [
            revocations::revoke(&keys(), &did, "", now()).value().clone(),
            revocations::revoke(&keys(), &did, "stolen in Z\u{fc}rich", now()).value().clone(),
        ];
        let expected = [signed("without a reason", &values[0]), signed("with a reason", &values[1])];
        check::<Revoke>(include_str!("../vectors/revoke.json"), &expected, &values);
    }

    #[test]
    fn presence_tokens_are_signed_as_in_the_vectors() {
        let token = PresenceToken {
            indexer: Keys::from_seed([0x4e; 32]).peer_id(),
            node: keys().peer_id(),
            epoch: epoch_of(now()),
            pub_key: keys().pub_key().to_owned(),
        };
        check(include_str!("../vectors/presence_token.json"), &[signed("a node's word", &token)], &[token]);
    }

    /// The peer of the vectors that are about two.
    fn other() -> PeerId {
        Keys::from_seed([0x4e; 32]).peer_id()
    }

    fn resource() -> Resource {
        Resource {
            id: "gpu-1".to_owned(),
            kind: Kind::Compute,
            name: "Z\u{fc}rich GPUs".to_owned(),
            type_: "cluster".to_owned(),
            short_description: String::new(),
            description: "First line\nsecond line".to_owned(),
            owners: vec!["Ann \"the admin\"".to_owned()],
            creator: keys().peer_id(),
            access: Access::Private,
            instances: vec![Instance {
                partnerships: vec![Partnership { peer: other(), groups: vec!["ops".to_owned(), "*".to_owned()] }],
            }],
            version: 1_767_323_045_000,
            updated_at: now(),
        }
    }

    /// As an application of the predecessor wrote it: owners are objects, and there are fields that only it knows.
    fn foreign_resource() -> Vector {
        let text = format!(
            "{{\"kind\":\"data\",\"id\":\"d.1\",\"name\":\"a\",\"owners\":[{{\"name\":\"Ann\",\"logo\":\"a.png\"}}],\
             \"cores\":64,\"price\":1.50,\"creator\":\"{}\",\"version\":2,\"updated_at\":\"2026-01-02T03:04:05Z\"}}",
            keys().peer_id()
        );
        let signed = Verified::<Resource>::sign_text(&text, &keys(), now()).unwrap();
        vector::<Resource>("fields of an application, and owners that are objects", signed.text())
    }

    #[test]
    fn resources_are_signed_as_in_the_vectors() {
        let expected = [signed("shown to one partner's groups", &resource()), foreign_resource()];
        check(include_str!("../vectors/resource.json"), &expected, &[resource()]);
    }

    fn event(verb: Verb, datatype: &str, id: &str, payload: Vec<u8>) -> Event {
        Event {
            verb,
            from: keys().peer_id(),
            user: "ann".to_owned(),
            groups: vec!["ops".to_owned()],
            datatype: datatype.to_owned(),
            id: id.to_owned(),
            ts: now(),
            payload,
        }
    }

    #[test]
    fn events_are_signed_as_in_the_vectors() {
        let text = Verified::sign(&resource(), &keys()).text().as_bytes().to_vec();
        let removal = serde_json::to_vec(&Removal { id: "gpu-1".to_owned(), version: 1_767_323_046_000 }).unwrap();
        let question = br#"{"query_id":"5f1c0d3a9b7e4c2288aa10f3e6d4b7c9","query":{"text":"gpu","kind":"compute"}}"#;
        let search =
            Event { user: String::new(), groups: Vec::new(), ..event(Verb::Search, "resource", "", question.to_vec()) };
        let values = [
            event(Verb::Create, "compute", "42", text),
            event(Verb::Delete, "compute", "43", removal),
            event(Verb::Considers, "booking", "44", br#"{"booking":"b-7"}"#.to_vec()),
            search,
        ];
        let notes = [
            "a resource, its text within, base64",
            "a removal",
            "what applications agreed on",
            "a question about resources, which has no id",
        ];
        let expected: Vec<Vector> = notes.iter().zip(&values).map(|(note, value)| signed(note, value)).collect();
        check(include_str!("../vectors/event.json"), &expected, &values);
    }

    #[test]
    fn words_on_the_bus_are_signed_as_in_the_vectors() {
        let announcement = Announcement {
            id: 1,
            verb: VerbOut::CreateResource,
            user: "ann".to_owned(),
            groups: vec!["ops".to_owned()],
            datatype: "compute".to_owned(),
            message_id: "0123456789abcdef".to_owned(),
            payload: Verified::sign(&resource(), &keys()).text().as_bytes().to_vec(),
        };
        let value = announcement.envelope(&keys());
        let expected = [signed("a partner's resource, as applications hear of it", &value)];
        assert_eq!(announcement.write(&keys(), now()).unwrap(), expected[0].text.as_bytes());
        check(include_str!("../vectors/bus.json"), &expected, &[value]);
    }

    #[test]
    fn what_must_be_refused_is_refused_as_in_the_vectors() {
        let good = Verified::sign(&pid(), &keys()).text().to_string();
        let (head, signature) = good.split_at(good.find("\"signature\"").unwrap());
        let texts = [
            ("the seq was changed", good.replace("\"seq\":7", "\"seq\":8")),
            ("a field was added", good.replacen('{', "{\"zone\":1,", 1)),
            ("a value of another domain", Verified::sign(&claim(), &keys()).text().to_string()),
            ("a key twice", good.replacen('{', "{\"seq\":7,", 1)),
            ("a key twice, once in escapes", good.replacen('{', "{\"s\\u0065q\":7,", 1)),
            ("a line feed within", good.replacen('{', "{\n", 1)),
            ("a number beyond 2^53 - 1", good.replace("\"seq\":7", "\"seq\":9007199254740992")),
            ("17 levels", good.replacen('{', &format!("{{\"zone\":{}{},", "[".repeat(16), "]".repeat(16)), 1)),
            ("no signature", format!("{}}}", head.trim_end_matches(','))),
            ("a signature without its padding", format!("{head}{}", signature.replace('=', ""))),
            ("another peer's id", sign_as(&pid(), |value| value.peer_id = Keys::from_seed([0x4e; 32]).peer_id())),
            ("another key's DID", sign_as(&pid(), |value| value.did = Keys::from_seed([0x4e; 32]).did().to_string())),
            ("expired by 30 s", sign_as(&pid(), |value| value.expiry_date = now() - CLOCK_SKEW)),
            (
                "for more than 10 min and 30 s",
                sign_as(&pid(), |value| value.expiry_date = now() + Duration::from_secs(631)),
            ),
        ];
        let refusals: Vec<Refusal> = texts.into_iter().map(|(note, text)| refusal(note, text)).collect();
        let kept = include_str!("../vectors/refused_pid_values.json");
        let text = serde_json::to_string_pretty(&refusals).unwrap();
        assert_eq!(kept.trim_end(), text, "the vectors differ; they should read:\n{text}");
    }

    fn sign_as(value: &PidValue, change: impl Fn(&mut PidValue)) -> String {
        let mut value = value.clone();
        change(&mut value);
        Verified::sign(&value, &keys()).text().to_string()
    }

    fn refusal(note: &str, text: String) -> Refusal {
        let error = Verified::<PidValue>::open(&text, now()).unwrap_err();
        let (code, strike) = (error.refusal(), error.is_strike());
        Refusal { note: note.to_owned(), domain: PidValue::DOMAIN.to_owned(), now: now(), text, code, strike }
    }

    #[test]
    fn g40_no_key_of_anybody_is_kept_with_the_vectors() {
        for kept in [
            include_str!("../vectors/peer_record.json"),
            include_str!("../vectors/indexer_record.json"),
            include_str!("../vectors/pid_value.json"),
            include_str!("../vectors/name_claim.json"),
            include_str!("../vectors/leave.json"),
            include_str!("../vectors/revoke.json"),
            include_str!("../vectors/presence_token.json"),
            include_str!("../vectors/resource.json"),
            include_str!("../vectors/event.json"),
            include_str!("../vectors/bus.json"),
            include_str!("../vectors/refused_pid_values.json"),
        ] {
            assert!(!kept.contains("PRIVATE KEY") && !kept.contains("/key/swarm/psk"));
            let vectors: Vec<serde_json::Value> = serde_json::from_str(kept).unwrap();
            let seed = "4d".repeat(32);
            assert!(vectors.iter().all(|vector| vector.get("seed").is_none_or(|kept| *kept == *seed)));
        }
    }
}
