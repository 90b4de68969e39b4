//! `PeerRecord`, `IndexerRecord` and `Leave`: who a peer is, where to reach it, and that it goes.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    identity::{Did, Keys, peer_id_of},
    json::NUMBER_MAX,
    names,
    signed::{CLOCK_SKEW, SignedError, SignedObject, check_expiry, key_bytes},
    wire::{AddrInfo, Role},
};

/// How long a node signs its record for: a dead node is gone from every answer after it.
pub const PEER_RECORD_LIFE: Duration = Duration::from_secs(120);

/// How long an indexer signs its record for.
pub const INDEXER_RECORD_LIFE: Duration = Duration::from_secs(600);

/// The longest life that any record may be signed for.
pub const LIFE_MAX: Duration = Duration::from_secs(600);

/// How old a `Leave` may be: long enough for slow gossip, short enough not to be replayed after a restart.
pub const LEAVE_AGE_MAX: Duration = Duration::from_secs(300);

/// Addresses of one peer.
pub const ADDRS_MAX: usize = 8;

/// Hashes in `peers_digest`.
pub const DIGEST_MAX: usize = 32;

/// Bytes of one hash in `peers_digest`.
pub const DIGEST_BYTES: usize = 8;

/// Bytes of the salt of `peers_digest`.
pub const SALT_BYTES_MAX: usize = 32;

/// Others that a leaving member may name; as many as `CandidatesResponse` may.
pub const ALTERNATIVES_MAX: usize = 10;

/// The signed statement of who a peer is and where to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRecord {
    /// 1 to 64 characters.
    pub name: String,
    /// `did:key:…` of `pub_key`, or a UUID bound to the first key seen for it.
    pub did: String,
    /// Base64 of the raw 32 bytes.
    pub pub_key: String,
    /// Derives from `pub_key`.
    #[serde(with = "crate::wire::text")]
    pub peer_id: PeerId,
    /// HTTP API of the organisation.
    #[serde(default)]
    pub api_url: String,
    /// A full address of the peer.
    #[serde(default)]
    pub stream_address: String,
    /// At most 8.
    #[serde(default)]
    pub addrs: Vec<Multiaddr>,
    /// The organisation's bus.
    #[serde(default)]
    pub nats_address: String,
    /// The organisation's wallet.
    #[serde(default)]
    pub wallet_address: String,
    /// Protocol ids and topics.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Start of the process.
    pub born_at: Timestamp,
    /// Not valid from here on.
    pub expiry_date: Timestamp,
    /// The higher one of two valid records wins.
    pub seq: u64,
}

impl SignedObject for PeerRecord {
    const DOMAIN: &'static str = "muster-record:1:";
    const BYTES_MAX: usize = 16 * 1024;

    fn is_by(&self, keys: &Keys) -> bool {
        self.pub_key == keys.pub_key()
    }

    fn check(&self, now: Timestamp) -> Result<(), SignedError> {
        check_signer(&self.pub_key, &self.peer_id, Some(&self.did))?;
        check_name(&self.name)?;
        check_count("addrs", self.addrs.len(), ADDRS_MAX, "at most 8 addresses")?;
        check_expiry(self.expiry_date, now, LIFE_MAX)
    }
}

/// What an indexer says of itself in the DHT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexerRecord {
    /// The indexer.
    #[serde(with = "crate::wire::text")]
    pub peer_id: PeerId,
    /// Where to reach it.
    #[serde(default)]
    pub addrs: Vec<Multiaddr>,
    /// Free text of its operator.
    #[serde(default)]
    pub region: String,
    /// `max_nodes`.
    pub capacity: u32,
    /// Sessions ÷ capacity.
    pub fill_rate: f64,
    /// Sessions.
    pub peer_count: u32,
    /// Salt of `peers_digest`, base64.
    #[serde(default)]
    pub salt: String,
    /// At most 32 salted hashes of 8 bytes each, base64, of connected nodes' ids.
    #[serde(default)]
    pub peers_digest: Vec<String>,
    /// Start of the process.
    pub born_at: Timestamp,
    /// Not valid from here on.
    pub expiry_date: Timestamp,
    /// The higher one of two valid records wins.
    pub seq: u64,
    /// Base64 of the raw 32 bytes.
    pub pub_key: String,
}

impl SignedObject for IndexerRecord {
    const DOMAIN: &'static str = "muster-indexer:1:";
    /// Twice the largest honest one: 8 addresses of 128 bytes, 32 hashes of 15, and the names of the fields.
    const BYTES_MAX: usize = 4 * 1024;

    fn is_by(&self, keys: &Keys) -> bool {
        self.pub_key == keys.pub_key()
    }

    fn check(&self, now: Timestamp) -> Result<(), SignedError> {
        check_signer(&self.pub_key, &self.peer_id, None)?;
        check_count("addrs", self.addrs.len(), ADDRS_MAX, "at most 8 addresses")?;
        check_count("peers_digest", self.peers_digest.len(), DIGEST_MAX, "at most 32 hashes")?;
        if let Some(hash) = self.peers_digest.iter().find(|hash| decoded_len(hash) != Some(DIGEST_BYTES)) {
            return Err(invalid("peers_digest", hash, "base64 of 8 bytes each"));
        }
        if decoded_len(&self.salt).is_none_or(|bytes| bytes > SALT_BYTES_MAX) {
            return Err(invalid("salt", &self.salt, "base64 of at most 32 bytes"));
        }
        if !(0.0..=1.0).contains(&self.fill_rate) {
            return Err(invalid("fill_rate", &self.fill_rate.to_string(), "0 to 1"));
        }
        if !self.region.is_empty() && names::check(&self.region).is_err() {
            return Err(invalid("region", &self.region, "at most 64 characters without control characters"));
        }
        check_expiry(self.expiry_date, now, LIFE_MAX)
    }
}

/// A member says that it goes.
///
/// It is bound to the run that ends by `born_at`: repeated to somebody who knows a later run, it says nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// Who goes.
    #[serde(with = "crate::wire::text")]
    pub peer_id: PeerId,
    /// Its DID.
    pub did: String,
    /// What it was.
    pub role: Role,
    /// Start of the process that ends.
    pub born_at: Timestamp,
    /// Of the same row as its records'.
    pub seq: u64,
    /// When it said so.
    pub time: Timestamp,
    /// It means to be back at once: its place is kept.
    #[serde(default)]
    pub restart: bool,
    /// Others that may have room, at most 10.
    #[serde(default)]
    pub alternatives: Vec<AddrInfo>,
    /// Base64 of the raw 32 bytes.
    pub pub_key: String,
}

impl SignedObject for Leave {
    const DOMAIN: &'static str = "muster-leave:1:";
    const BYTES_MAX: usize = 4 * 1024;

    fn is_by(&self, keys: &Keys) -> bool {
        self.pub_key == keys.pub_key()
    }

    fn check(&self, now: Timestamp) -> Result<(), SignedError> {
        check_signer(&self.pub_key, &self.peer_id, Some(&self.did))?;
        check_count("alternatives", self.alternatives.len(), ALTERNATIVES_MAX, "at most 10 members")?;
        for other in &self.alternatives {
            check_count("alternatives", other.addrs.len(), ADDRS_MAX, "at most 8 addresses each")?;
        }
        let age = now.duration_since(self.time);
        if age.is_positive() && age.unsigned_abs() > LEAVE_AGE_MAX {
            return Err(SignedError::Expired { expiry: self.time, now });
        }
        if age.is_negative() && age.unsigned_abs() > CLOCK_SKEW {
            return Err(SignedError::FromFuture { time: self.time, now, ahead_max: CLOCK_SKEW });
        }
        Ok(())
    }
}

/// Checks that the named identities are those of the key.
pub(crate) fn check_signer(pub_key: &str, peer_id: &PeerId, did: Option<&str>) -> Result<(), SignedError> {
    let key = key_bytes(pub_key)?;
    if peer_id_of(&key) != *peer_id {
        return Err(SignedError::NotTheSigners { field: "peer_id", got: peer_id.to_string() });
    }
    let Some(did) = did else { return Ok(()) };
    match did.parse() {
        Ok(Did::Key(own)) if own != key => Err(SignedError::NotTheSigners { field: "did", got: short(did) }),
        Ok(_) => Ok(()),
        Err(_) => Err(invalid("did", did, "did:key:z… or a UUID in lower case")),
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), SignedError> {
    names::check(name).map_err(|_| invalid("name", name, "1 to 64 characters without control characters"))
}

fn check_count(field: &'static str, got: usize, max: usize, expected: &'static str) -> Result<(), SignedError> {
    if got > max { Err(SignedError::Invalid { field, got: got.to_string(), expected }) } else { Ok(()) }
}

fn decoded_len(base64: &str) -> Option<usize> {
    BASE64.decode(base64).ok().map(|bytes| bytes.len())
}

fn invalid(field: &'static str, got: &str, expected: &'static str) -> SignedError {
    SignedError::Invalid { field, got: short(got), expected }
}

/// A stranger's text as an error may carry it: escaped and cut.
fn short(got: &str) -> String {
    /// Enough to recognise a DID or a name by.
    const CHARS_MAX: usize = 80;
    format!("\"{}\"", got.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect::<String>())
}

/// One hash of `peers_digest`: the first 8 bytes of SHA-256(salt ‖ peer id), base64.
///
/// The salt is new in each record, so that hashes cannot be collected over time.
#[must_use]
pub fn digest(salt: &[u8], peer: &PeerId) -> String {
    let hash = Sha256::new().chain_update(salt).chain_update(peer.to_bytes()).finalize();
    BASE64.encode(&hash[..DIGEST_BYTES])
}

/// The `seq` of the next record: above every one before it, even where the row of stored ones was lost.
#[must_use]
pub fn next_seq(stored: u64, now: Timestamp) -> u64 {
    let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
    stored.saturating_add(1).max(millis).min(NUMBER_MAX)
}

/// How far a restored member's `seq` leaps: further than clocks that others put up with are apart, and far more records than
/// are signed in any stretch, for each takes a millisecond at least. Another restore from the same backup leaps further by
/// all the time between the two.
pub const RESTORE_LEAP: Duration = Duration::from_secs(24 * 3_600);

/// The least that the `seq` of a restored member goes on from, so that it passes all that the lost one signed after
/// `taken_at`, when its backup was taken and `kept` was its last. It went on no faster than time did, and neither it nor the
/// one that restores has a clock that is a day off.
#[must_use]
pub fn seq_after_restore(kept: u64, taken_at: Timestamp, now: Timestamp) -> u64 {
    let millis = |at: Timestamp| u64::try_from(at.as_millisecond()).unwrap_or(0);
    let leap = u64::try_from(RESTORE_LEAP.as_millis()).unwrap_or(NUMBER_MAX);
    let passed = millis(now).saturating_sub(millis(taken_at));
    kept.saturating_add(passed).max(millis(now)).saturating_add(leap).min(NUMBER_MAX)
}

/// How a valid record stands to the one held for the same DID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It takes the place of the held one.
    Newer,
    /// It has the held one's `seq` or a lower one: nothing changes.
    NotNewer,
    /// The DID is bound to another key: an identity violation of its signer.
    OtherKey,
}

/// How `incoming` stands to `held`, both valid and of one DID.
#[must_use]
pub fn standing(held: &PeerRecord, incoming: &PeerRecord) -> Standing {
    if !binding_holds(Some(&held.pub_key), incoming) {
        Standing::OtherKey
    } else if incoming.seq > held.seq {
        Standing::Newer
    } else {
        Standing::NotNewer
    }
}

/// A record is signed by the key that its DID is bound to; a DID that is not bound yet may be bound to any.
#[must_use]
pub fn binding_holds(bound_key: Option<&str>, record: &PeerRecord) -> bool {
    bound_key.is_none_or(|bound| bound == record.pub_key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::{identity::Keys, signed::Verified, wire::RefusalCode};

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn keys() -> Keys {
        Keys::from_seed([7; 32])
    }

    fn addr() -> Multiaddr {
        "/ip4/192.0.2.1/tcp/4001".parse().unwrap()
    }

    fn peer() -> PeerRecord {
        PeerRecord {
            name: "paris".to_owned(),
            did: keys().did().to_string(),
            pub_key: keys().pub_key().to_owned(),
            peer_id: keys().peer_id(),
            api_url: String::new(),
            stream_address: String::new(),
            addrs: vec![addr(); ADDRS_MAX],
            nats_address: String::new(),
            wallet_address: String::new(),
            capabilities: Vec::new(),
            born_at: now(),
            expiry_date: now() + PEER_RECORD_LIFE,
            seq: 1,
        }
    }

    fn indexer() -> IndexerRecord {
        IndexerRecord {
            peer_id: keys().peer_id(),
            addrs: vec![addr(); ADDRS_MAX],
            region: "eu west".to_owned(),
            capacity: 100,
            fill_rate: 0.25,
            peer_count: 25,
            salt: BASE64.encode([1; SALT_BYTES_MAX]),
            peers_digest: vec![BASE64.encode([2; DIGEST_BYTES]); DIGEST_MAX],
            born_at: now(),
            expiry_date: now() + INDEXER_RECORD_LIFE,
            seq: 1,
            pub_key: keys().pub_key().to_owned(),
        }
    }

    fn leave() -> Leave {
        Leave {
            peer_id: keys().peer_id(),
            did: keys().did().to_string(),
            role: Role { node: true, indexer: false },
            born_at: now(),
            seq: 9,
            time: now(),
            restart: true,
            alternatives: vec![AddrInfo { id: keys().peer_id(), addrs: vec![addr()] }; ALTERNATIVES_MAX],
            pub_key: keys().pub_key().to_owned(),
        }
    }

    /// Signs, opens, and tells the field that is not right.
    fn fault<T: SignedObject>(value: &T) -> Option<&'static str> {
        match Verified::<T>::open(Verified::sign(value, &keys()).text(), now()) {
            Ok(_) => None,
            Err(SignedError::Invalid { field, .. } | SignedError::NotTheSigners { field, .. }) => Some(field),
            Err(error) if error.refusal() == RefusalCode::Clock => Some("clock"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_record_at_every_limit_is_valid() {
        assert_eq!(fault(&peer()), None);
        assert_eq!(fault(&indexer()), None);
        assert_eq!(fault(&leave()), None);
    }

    #[test]
    fn a_peer_record_past_a_limit_is_not_valid() {
        let check = |field: &'static str, change: fn(&mut PeerRecord)| {
            let mut record = peer();
            change(&mut record);
            assert_eq!(fault(&record), Some(field));
        };
        check("addrs", |record| record.addrs.push(addr()));
        check("name", |record| record.name = String::new());
        check("name", |record| record.name = "é".repeat(65));
        check("name", |record| record.name = "a\u{1b}[2J".to_owned());
        check("did", |record| record.did = String::new());
        check("did", |record| record.did = "did:web:example.org".to_owned());
        check("clock", |record| record.expiry_date = now() - CLOCK_SKEW);
        check("clock", |record| record.expiry_date = now() + LIFE_MAX + CLOCK_SKEW + Duration::from_millis(1));
    }

    #[test]
    fn a_peer_record_at_the_other_side_of_a_limit_is_valid() {
        let check = |change: fn(&mut PeerRecord)| {
            let mut record = peer();
            change(&mut record);
            assert_eq!(fault(&record), None);
        };
        check(|record| record.name = "é".repeat(64));
        check(|record| record.did = "c0a80121-7ac0-4e1c-9b1f-2f3f8a0e1d55".to_owned());
        check(|record| record.expiry_date = now() - CLOCK_SKEW + Duration::from_millis(1));
        check(|record| record.expiry_date = now() + LIFE_MAX + CLOCK_SKEW);
    }

    #[test]
    fn g18_a_record_of_another_peer_or_did_than_its_keys_is_a_strike() {
        let other = Keys::from_seed([8; 32]);
        let mut record = peer();
        record.peer_id = other.peer_id();
        assert_eq!(fault(&record), Some("peer_id"));
        let mut record = peer();
        record.did = other.did().to_string();
        let error = Verified::<PeerRecord>::open(Verified::sign(&record, &keys()).text(), now()).unwrap_err();
        assert!(error.is_strike(), "{error}");
        let mut record = indexer();
        record.peer_id = other.peer_id();
        assert_eq!(fault(&record), Some("peer_id"));
        let mut said = leave();
        said.peer_id = other.peer_id();
        assert_eq!(fault(&said), Some("peer_id"));
    }

    #[test]
    fn an_indexer_record_past_a_limit_is_not_valid() {
        let check = |field: &'static str, change: fn(&mut IndexerRecord)| {
            let mut record = indexer();
            change(&mut record);
            assert_eq!(fault(&record), Some(field));
        };
        check("addrs", |record| record.addrs.push(addr()));
        check("peers_digest", |record| record.peers_digest.push(BASE64.encode([2; 8])));
        check("peers_digest", |record| record.peers_digest = vec![BASE64.encode([2; 7])]);
        check("peers_digest", |record| record.peers_digest = vec!["????".to_owned()]);
        check("salt", |record| record.salt = BASE64.encode([1; SALT_BYTES_MAX + 1]));
        check("fill_rate", |record| record.fill_rate = 1.001);
        check("fill_rate", |record| record.fill_rate = -0.001);
        check("region", |record| record.region = "x".repeat(65));
        check("clock", |record| record.expiry_date = now() + LIFE_MAX * 2);
        let mut record = indexer();
        (record.fill_rate, record.salt, record.region) = (1.0, String::new(), String::new());
        record.peers_digest.clear();
        assert_eq!(fault(&record), None);
    }

    #[test]
    fn a_rate_that_is_no_number_is_not_valid() {
        let mut record = indexer();
        for rate in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            record.fill_rate = rate;
            assert!(record.check(now()).is_err(), "{rate}");
        }
    }

    #[test]
    fn a_leave_past_a_limit_is_not_valid() {
        let check = |field: Option<&'static str>, change: fn(&mut Leave)| {
            let mut said = leave();
            change(&mut said);
            assert_eq!(fault(&said), field);
        };
        check(Some("alternatives"), |said| said.alternatives.push(AddrInfo { id: said.peer_id, addrs: Vec::new() }));
        check(Some("alternatives"), |said| said.alternatives[0].addrs = vec![addr(); ADDRS_MAX + 1]);
        check(None, |said| said.time = now() - LEAVE_AGE_MAX);
        check(Some("clock"), |said| said.time = now() - LEAVE_AGE_MAX - Duration::from_millis(1));
        check(None, |said| said.time = now() + CLOCK_SKEW);
        check(Some("clock"), |said| said.time = now() + CLOCK_SKEW + Duration::from_millis(1));
    }

    #[test]
    fn the_next_seq_is_above_the_stored_one_even_when_the_store_was_lost_or_the_clock_went_back() {
        let millis = u64::try_from(now().as_millisecond()).unwrap();
        assert_eq!(next_seq(0, now()), millis);
        assert_eq!(next_seq(millis - 1, now()), millis);
        assert_eq!(next_seq(millis, now()), millis + 1);
        assert_eq!(next_seq(millis + 5, Timestamp::UNIX_EPOCH), millis + 6);
        assert_eq!(next_seq(5, Timestamp::MIN), 6);
        assert_eq!(next_seq(u64::MAX, now()), NUMBER_MAX);
    }

    #[test]
    fn p5_the_seq_after_a_restore_is_above_all_that_was_signed_since_the_backup() {
        let day = u64::try_from(RESTORE_LEAP.as_millis()).unwrap();
        let millis = u64::try_from(now().as_millisecond()).unwrap();
        let taken_at = now() - jiff::SignedDuration::from_hours(30 * 24);
        assert_eq!(seq_after_restore(0, taken_at, now()), millis + day);
        let ahead = millis + 5 * day;
        assert_eq!(
            seq_after_restore(ahead, taken_at, now()),
            ahead + 31 * day,
            "one whose clock was ahead stayed ahead"
        );
        assert_eq!(seq_after_restore(7, now(), taken_at), millis - 30 * day + day, "a clock that went back since");
        assert_eq!(seq_after_restore(u64::MAX, taken_at, now()), NUMBER_MAX);
        // As often as it signed in between: each record is a millisecond of time at least.
        let first = seq_after_restore(7, taken_at, now());
        let later = now() + jiff::SignedDuration::from_secs(60);
        let mut seq = first;
        for second in 0..60 {
            seq = next_seq(seq, now() + jiff::SignedDuration::from_secs(second));
        }
        assert!(seq_after_restore(7, taken_at, later) > seq, "a second restore from the same backup");
    }

    #[test]
    fn a_repeated_or_older_seq_does_not_take_the_place_of_the_held_one() {
        let held = PeerRecord { seq: 5, ..peer() };
        for (seq, expected) in [(4, Standing::NotNewer), (5, Standing::NotNewer), (6, Standing::Newer)] {
            assert_eq!(standing(&held, &PeerRecord { seq, ..peer() }), expected);
        }
    }

    #[test]
    fn g20_g22_a_did_stays_with_the_first_key_seen_for_it() {
        let uuid = "c0a80121-7ac0-4e1c-9b1f-2f3f8a0e1d55".to_owned();
        let held = PeerRecord { did: uuid.clone(), ..peer() };
        let other = Keys::from_seed([8; 32]);
        let thief =
            PeerRecord { did: uuid, pub_key: other.pub_key().to_owned(), peer_id: other.peer_id(), seq: 99, ..peer() };
        assert_eq!(standing(&held, &thief), Standing::OtherKey);
        assert!(!binding_holds(Some(&held.pub_key), &thief));
        assert!(binding_holds(Some(&held.pub_key), &held));
        assert!(binding_holds(None, &thief));
    }

    #[test]
    fn a_strangers_text_in_an_error_is_short_and_escaped() {
        let mut record = peer();
        record.name = format!("\n\u{1b}[31m{}", "x".repeat(1000));
        let error = record.check(now()).unwrap_err().to_string();
        assert!(error.len() < 200 && !error.contains(char::is_control), "{error}");
    }

    proptest! {
        #[test]
        fn g20_every_next_seq_is_higher_than_the_last(clock in prop::collection::vec(-1_000_000i64..4_000_000_000, 1..50)) {
            let mut stored = 0;
            for seconds in clock {
                let next = next_seq(stored, Timestamp::from_second(seconds).unwrap());
                prop_assert!(next > stored);
                stored = next;
            }
        }
    }
}
