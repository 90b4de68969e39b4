//! The first words on a connection: whether the other side may go on, and how far its clock is from ours.

use std::{collections::VecDeque, fmt, str::FromStr, time::Duration};

use jiff::{SignedDuration, Timestamp};
use libp2p_identity::PeerId;
use thiserror::Error;

use crate::{
    identity::{Did, peer_id_of},
    keyring::KEYS_MAX,
    signed::CLOCK_SKEW,
    wire::{
        Hello, KADEMLIA_PROTOCOL, Protocol, RefusalCode, Refused, Role, TOPIC_BEACON, TOPIC_NODE_SEARCH,
        TOPIC_PRESENCE, TOPIC_SEARCH_PEER, VERSION,
    },
};

/// Capabilities of one peer: twice as many as `docs/protocol.md` has protocols and topics.
pub const CAPABILITIES_MAX: usize = 64;

/// Bytes of one capability; the longest that we know has 34.
pub const CAPABILITY_BYTES_MAX: usize = 128;

/// Bytes of `agent`: a program, its version, perhaps its platform.
pub const AGENT_BYTES_MAX: usize = 128;

/// Bytes of `network_id`.
pub const NETWORK_ID_BYTES_MAX: usize = 64;

/// Bytes of one fingerprint of a pre-shared key: 8 bytes in hex.
pub const FINGERPRINT_BYTES_MAX: usize = 16;

/// Members that must agree before a node takes their clock for better than its own.
pub const AGREEING_MIN: usize = 3;

/// How near to the median an offset must be to agree with it: slow links and unequal ways apart, all good clocks are.
pub const AGREE_WITHIN: Duration = Duration::from_secs(5);

/// Peers whose offsets are kept: twice the largest pool, and room for a few that come and go.
pub const WATCHED_MAX: usize = 32;

/// A version of the protocol. Versions of one major understand each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Another one is another language.
    pub major: u32,
    /// A higher one has more to say.
    pub minor: u32,
}

impl FromStr for Version {
    type Err = HelloError;

    fn from_str(text: &str) -> Result<Self, HelloError> {
        let number = |digits: &str| {
            let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if is_plain { digits.parse().ok() } else { None }
        };
        let read = || {
            let (major, minor) = text.split_once('.')?;
            Some(Self { major: number(major)?, minor: number(minor)? })
        };
        read().ok_or(HelloError::NoVersion)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why a peer's hello is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HelloError {
    /// `version` is not `major.minor`.
    #[error("got a version that is not two numbers, expected one like \"{VERSION}\"")]
    NoVersion,
    /// Another major version.
    #[error("got version {theirs}, we speak {VERSION}: the major versions must agree, {remedy}")]
    OtherMajor {
        /// The peer's.
        theirs: Version,
        /// Who has to do what.
        remedy: &'static str,
    },
    /// Another network.
    #[error("got network \"{theirs}\", this is \"{ours}\"")]
    OtherNetwork {
        /// The peer's, escaped and cut.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// A field is longer than anybody needs, or has control characters.
    #[error("got \"{field}\" of {got}, expected at most {max} without control characters")]
    OverLimit {
        /// Which one.
        field: &'static str,
        /// Bytes, or items of a list.
        got: usize,
        /// Allowed.
        max: usize,
    },
    /// `did` is none.
    #[error("got a DID that is neither did:key:z… nor a UUID in lower case")]
    BadDid,
    /// `did` is of another key than the connection's.
    #[error("got a did:key of another key than this connection's")]
    OtherDid,
}

impl HelloError {
    /// The code with which it is refused.
    #[must_use]
    pub fn code(&self) -> RefusalCode {
        match self {
            Self::NoVersion | Self::OtherMajor { .. } => RefusalCode::Version,
            Self::OtherNetwork { .. } => RefusalCode::Network,
            Self::OverLimit { .. } => RefusalCode::Limit,
            Self::BadDid => RefusalCode::Invalid,
            Self::OtherDid => RefusalCode::NotYours,
        }
    }

    /// The answer to the peer.
    #[must_use]
    pub fn refused(&self) -> Refused {
        Refused::new(self.code(), self.to_string())
    }
}

/// Judges what `peer` said of itself on its connection.
///
/// A newer minor version is fine, and so are capabilities that we do not know.
///
/// # Errors
/// When the major version or the network differ, a field is over its limit, or the DID is not the peer's.
pub fn judge(hello: &Hello, peer: &PeerId, network_id: &str) -> Result<(), HelloError> {
    judge_version(&hello.version)?;
    if hello.network_id != network_id {
        return Err(HelloError::OtherNetwork { theirs: shown(&hello.network_id), ours: network_id.to_owned() });
    }
    judge_text("agent", &hello.agent, AGENT_BYTES_MAX)?;
    judge_list("capabilities", &hello.capabilities, CAPABILITIES_MAX, CAPABILITY_BYTES_MAX)?;
    judge_list("network_keys", &hello.network_keys, KEYS_MAX, FINGERPRINT_BYTES_MAX)?;
    judge_did(&hello.did, peer)
}

fn judge_version(text: &str) -> Result<(), HelloError> {
    let theirs: Version = text.parse()?;
    let ours: Version = VERSION.parse()?;
    if theirs.major == ours.major {
        return Ok(());
    }
    let remedy = if theirs.major > ours.major { "update this peer" } else { "update yours" };
    Err(HelloError::OtherMajor { theirs, remedy })
}

fn judge_text(field: &'static str, text: &str, max: usize) -> Result<(), HelloError> {
    if text.len() > max || text.contains(char::is_control) {
        return Err(HelloError::OverLimit { field, got: text.len(), max });
    }
    Ok(())
}

fn judge_list(field: &'static str, list: &[String], max: usize, bytes_max: usize) -> Result<(), HelloError> {
    let got = list.len();
    if got > max {
        return Err(HelloError::OverLimit { field, got, max });
    }
    list.iter().try_for_each(|text| judge_text(field, text, bytes_max))
}

/// A peer may keep its DID to itself; one that it tells must be possible.
fn judge_did(did: &str, peer: &PeerId) -> Result<(), HelloError> {
    if did.is_empty() {
        return Ok(());
    }
    match did.parse().map_err(|_| HelloError::BadDid)? {
        Did::Key(key) if peer_id_of(&key) != *peer => Err(HelloError::OtherDid),
        Did::Key(_) | Did::Uuid(_) => Ok(()),
    }
}

/// A stranger's network name as an answer may carry it.
fn shown(text: &str) -> String {
    text.chars().take(NETWORK_ID_BYTES_MAX).flat_map(char::escape_debug).collect()
}

/// What a peer of this build takes from others, given what it is.
#[must_use]
pub fn capabilities(role: Role) -> Vec<&'static str> {
    let taken = Protocol::ALL.into_iter().filter(|protocol| protocol.is_taken_by(role));
    let mut capabilities: Vec<&'static str> = taken.map(Protocol::id).collect();
    if role.indexer {
        capabilities.extend([TOPIC_SEARCH_PEER, TOPIC_PRESENCE, KADEMLIA_PROTOCOL]);
    }
    // Indexers pass on what nodes ask each other.
    capabilities.push(TOPIC_NODE_SEARCH);
    capabilities.push(TOPIC_BEACON);
    capabilities
}

/// What a peer's record says of them: every node takes events, every member beacons and revocations, and a record that all indexers keep need
/// not repeat it.
#[must_use]
pub fn record_capabilities(role: Role) -> Vec<&'static str> {
    let is_usual = |id: &&str| {
        *id == TOPIC_BEACON
            || matches!(
                Protocol::from_id(id),
                Some(Protocol::Event(_) | Protocol::Echo | Protocol::Revoke | Protocol::Revocations)
            )
    };
    capabilities(role).into_iter().filter(|id| !is_usual(id)).collect()
}

/// Whether the peer said that it takes this: a protocol id or a topic. Nothing else is sent to it.
#[must_use]
pub fn lists(hello: &Hello, capability: &str) -> bool {
    hello.capabilities.iter().any(|listed| listed == capability)
}

/// How far a peer's clock is ahead of ours: what it read, against our reading half a round trip ago.
///
/// `received_at` is our clock when the hello came in; who did not ask knows no round trip and gives zero.
#[must_use]
pub fn clock_offset(theirs: Timestamp, received_at: Timestamp, round_trip: Duration) -> SignedDuration {
    let half = SignedDuration::try_from(round_trip / 2).unwrap_or(SignedDuration::ZERO);
    theirs.duration_since(received_at).saturating_add(half)
}

/// The median of the offsets, when at least 3 of them agree with it.
///
/// Of an even number it is the one nearer to zero, so that in doubt a clock is moved less.
#[must_use]
pub fn agreed_offset(offsets: &[SignedDuration]) -> Option<SignedDuration> {
    let mut sorted = offsets.to_vec();
    sorted.sort_unstable();
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    let median = if lower.unsigned_abs() <= upper.unsigned_abs() { lower } else { upper };
    let agreeing = sorted.iter().filter(|offset| offset.saturating_sub(median).unsigned_abs() <= AGREE_WITHIN).count();
    (agreeing >= AGREEING_MIN).then_some(median)
}

/// What health says about the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStatement {
    /// Peers whose clocks are more than 30 s from ours.
    pub apart: usize,
    /// Peers whose clocks are known.
    pub known: usize,
    /// The offset on which enough of them agree: it is ours that is wrong, by so much.
    pub agreed: Option<SignedDuration>,
}

impl fmt::Display for ClockStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed = CLOCK_SKEW.as_secs();
        write!(f, "{} of {} peers' clocks are more than {allowed} s from ours", self.apart, self.known)?;
        match self.agreed {
            Some(offset) => write!(f, "; they agree on {:+} s: set this machine's clock", offset.as_secs()),
            None => Ok(()),
        }
    }
}

/// The clocks of the pool's members, as their hellos told them.
///
/// At its bound the one that was heard longest ago makes room.
#[derive(Clone, Debug, Default)]
pub struct ClockWatch {
    /// The one heard last stands last.
    offsets: VecDeque<(PeerId, SignedDuration)>,
    /// What they agree on: asked for far more often than it changes.
    agreed: Option<SignedDuration>,
}

impl ClockWatch {
    /// A watch that has heard nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A member's clock was found `offset` ahead of ours.
    pub fn heard(&mut self, peer: PeerId, offset: SignedDuration) {
        self.offsets.retain(|(held, _)| *held != peer);
        if self.offsets.len() == WATCHED_MAX {
            self.offsets.pop_front();
        }
        self.offsets.push_back((peer, offset));
        self.agree();
    }

    /// Our own clock was set ahead by so much, or back. What that explains is kept as it is now. What it makes worse is
    /// forgotten: the machine may have slept, which no member's clock has to answer for; its next hello tells anew.
    pub fn was_set(&mut self, by: SignedDuration) {
        self.offsets.retain_mut(|(_, offset)| {
            let moved = offset.saturating_sub(by);
            let is_nearer = moved.unsigned_abs() <= offset.unsigned_abs();
            *offset = moved;
            is_nearer
        });
        self.agree();
    }

    /// The peer is no member any more.
    pub fn forget(&mut self, peer: &PeerId) {
        self.offsets.retain(|(held, _)| held != peer);
        self.agree();
    }

    fn agree(&mut self) {
        let offsets: Vec<SignedDuration> = self.offsets.iter().map(|(_, offset)| *offset).collect();
        self.agreed = agreed_offset(&offsets);
    }

    /// How far this peer's clock is ahead of ours, as its last hello told; nothing when it is not kept.
    #[must_use]
    pub fn of(&self, peer: &PeerId) -> Option<SignedDuration> {
        self.offsets.iter().find(|(held, _)| held == peer).map(|(_, offset)| *offset)
    }

    /// How far our clock is behind the one on which enough members agree.
    #[must_use]
    pub fn agreed(&self) -> Option<SignedDuration> {
        self.agreed
    }

    /// The time to sign with: ours, moved by what the members agree on.
    #[must_use]
    pub fn signing_time(&self, now: Timestamp) -> Timestamp {
        self.agreed().and_then(|offset| now.checked_add(offset).ok()).unwrap_or(now)
    }

    /// How far the agreed clock is ahead of ours; none is taken for zero while all clocks are within 30 s. Nothing while
    /// some are not and too few agree: it may be ours that is wrong.
    #[must_use]
    pub fn sound_offset(&self) -> Option<SignedDuration> {
        self.agreed().or_else(|| self.statement().is_none().then_some(SignedDuration::ZERO))
    }

    /// What is to be said; nothing while all clocks are within 30 s.
    #[must_use]
    pub fn statement(&self) -> Option<ClockStatement> {
        let apart = self.offsets.iter().filter(|(_, offset)| offset.unsigned_abs() > CLOCK_SKEW).count();
        let agreed = self.agreed().filter(|offset| offset.unsigned_abs() > CLOCK_SKEW);
        (apart > 0).then_some(ClockStatement { apart, known: self.offsets.len(), agreed })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Keys;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn keys(seed: u8) -> Keys {
        Keys::from_seed([seed; 32])
    }

    fn hello() -> Hello {
        Hello {
            version: VERSION.to_owned(),
            network_id: "opencloud".to_owned(),
            agent: "muster/0.1.0".to_owned(),
            role: Role { node: true, indexer: false },
            light: false,
            capabilities: vec!["/x".repeat(64); CAPABILITIES_MAX],
            did: keys(1).did().to_string(),
            network_keys: vec!["0".repeat(FINGERPRINT_BYTES_MAX); KEYS_MAX],
            born_at: now(),
            time: now(),
        }
    }

    fn code(change: fn(&mut Hello)) -> Option<RefusalCode> {
        let mut hello = hello();
        change(&mut hello);
        judge(&hello, &keys(1).peer_id(), "opencloud").err().map(|error| error.code())
    }

    fn secs(offsets: &[i64]) -> Vec<SignedDuration> {
        offsets.iter().map(|secs| SignedDuration::from_secs(*secs)).collect()
    }

    #[test]
    fn a_hello_at_every_limit_is_taken() {
        assert_eq!(code(|_| {}), None);
        assert_eq!(code(|hello| hello.agent = "a".repeat(AGENT_BYTES_MAX)), None);
        assert_eq!(code(|hello| hello.did = String::new()), None);
        assert_eq!(code(|hello| hello.did = "c0a80121-7ac0-4e1c-9b1f-2f3f8a0e1d55".to_owned()), None);
    }

    #[test]
    fn a_newer_minor_is_fine_and_another_major_is_refused() {
        assert_eq!(code(|hello| hello.version = "1.99".to_owned()), None);
        for (version, remedy) in [("2.0", "update this peer"), ("0.9", "update yours"), ("10.0", "update this peer")] {
            let hello = Hello { version: version.to_owned(), ..hello() };
            let refused = judge(&hello, &keys(1).peer_id(), "opencloud").unwrap_err().refused();
            assert_eq!(refused.refused, RefusalCode::Version);
            for word in [version, VERSION, remedy] {
                assert!(refused.detail.contains(word), "{word}: {}", refused.detail);
            }
        }
        for version in ["", "1", "1.", ".0", "1.0.0", "+1.0", "1.-0", "one.zero", "99999999999.0", " 1.0"] {
            let hello = Hello { version: version.to_owned(), ..hello() };
            let error = judge(&hello, &keys(1).peer_id(), "opencloud").unwrap_err();
            assert_eq!(error, HelloError::NoVersion, "{version}");
        }
    }

    #[test]
    fn another_network_is_refused_by_name() {
        let hello = Hello { network_id: "other\n".repeat(50), ..hello() };
        let refused = judge(&hello, &keys(1).peer_id(), "opencloud").unwrap_err().refused();
        assert_eq!(refused.refused, RefusalCode::Network);
        assert!(refused.detail.contains("opencloud") && refused.detail.contains("other\\n"), "{}", refused.detail);
        assert!(refused.detail.len() < 200);
    }

    #[test]
    fn a_hello_past_a_limit_is_refused() {
        assert_eq!(code(|hello| hello.capabilities.push(String::new())), Some(RefusalCode::Limit));
        assert_eq!(code(|hello| hello.capabilities[0].push('x')), Some(RefusalCode::Limit));
        assert_eq!(code(|hello| hello.agent = "a".repeat(AGENT_BYTES_MAX + 1)), Some(RefusalCode::Limit));
        assert_eq!(code(|hello| hello.agent = "a\u{1b}[2J".to_owned()), Some(RefusalCode::Limit));
        assert_eq!(code(|hello| hello.network_keys.push(String::new())), Some(RefusalCode::Limit));
        assert_eq!(code(|hello| hello.network_keys[1].push('0')), Some(RefusalCode::Limit));
        assert_eq!(code(|hello| hello.did = "x".repeat(3000)), Some(RefusalCode::Invalid));
    }

    #[test]
    fn g18_a_did_of_another_key_than_the_connections_is_refused() {
        let hello = Hello { did: keys(2).did().to_string(), ..hello() };
        let error = judge(&hello, &keys(1).peer_id(), "opencloud").unwrap_err();
        assert_eq!((&error, error.code()), (&HelloError::OtherDid, RefusalCode::NotYours));
    }

    #[test]
    fn what_this_build_says_is_within_its_own_limits() {
        for role in [Role { node: true, indexer: false }, Role { node: false, indexer: true }] {
            let capabilities = capabilities(role).into_iter().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(judge_list("capabilities", &capabilities, CAPABILITIES_MAX, CAPABILITY_BYTES_MAX), Ok(()));
            assert_eq!(capabilities.contains(&Protocol::Heartbeat.id().to_owned()), role.indexer);
            assert!(capabilities.contains(&Protocol::Leave.id().to_owned()));
        }
    }

    #[test]
    fn an_offset_is_read_half_a_round_trip_ago() {
        let offset = |theirs: Timestamp, round_trip| clock_offset(theirs, now(), Duration::from_secs(round_trip));
        assert_eq!(offset(now(), 0), SignedDuration::ZERO);
        assert_eq!(offset(now() - Duration::from_secs(1), 2), SignedDuration::ZERO);
        assert_eq!(offset(now() + Duration::from_secs(45), 0), SignedDuration::from_secs(45));
        assert_eq!(offset(now() - Duration::from_secs(45), 2), SignedDuration::from_secs(-44));
        let _ = clock_offset(Timestamp::MAX, Timestamp::MIN, Duration::MAX);
        let _ = clock_offset(Timestamp::MIN, Timestamp::MAX, Duration::MAX);
    }

    #[test]
    fn an_offset_is_agreed_on_by_at_least_three() {
        let check = |offsets: &[i64], expected: Option<i64>| {
            assert_eq!(agreed_offset(&secs(offsets)), expected.map(SignedDuration::from_secs), "{offsets:?}");
        };
        check(&[], None);
        check(&[40], None);
        check(&[40, 40], None);
        check(&[40, 41, 39], Some(40));
        check(&[40, 45, 35], Some(40));
        check(&[40, 46, 35], None);
        check(&[-40, -41, -39, 3600], Some(-39));
        check(&[0, 0, 0, 86_400, 86_400], Some(0));
        check(&[0, 0, 60, 60], None);
    }

    #[test]
    fn a_clock_is_said_to_be_apart_past_30_seconds() {
        let said = |offsets: &[i64]| {
            let mut watch = ClockWatch::new();
            for (seed, offset) in (1..).zip(secs(offsets)) {
                watch.heard(keys(seed).peer_id(), offset);
            }
            watch.statement().map(|statement| statement.to_string())
        };
        assert_eq!(said(&[30, -30, 0]), None);
        assert_eq!(said(&[31, 0, 0, 0]).unwrap(), "1 of 4 peers' clocks are more than 30 s from ours");
        let all = said(&[-45, -46, -44]).unwrap();
        assert_eq!(
            all,
            "3 of 3 peers' clocks are more than 30 s from ours; they agree on -45 s: set this machine's clock"
        );
    }

    #[test]
    fn a_clock_judges_others_while_it_is_sound() {
        let sound = |offsets: &[i64]| {
            let mut watch = ClockWatch::new();
            for (seed, offset) in (1..).zip(secs(offsets)) {
                watch.heard(keys(seed).peer_id(), offset);
            }
            watch.sound_offset().map(|offset| offset.as_secs())
        };
        assert_eq!(sound(&[]), Some(0));
        assert_eq!(sound(&[30]), Some(0));
        assert_eq!(sound(&[31]), None);
        assert_eq!(sound(&[600, 601, 602]), Some(601));
    }

    #[test]
    fn records_are_signed_with_the_time_that_the_pool_agrees_on() {
        let mut watch = ClockWatch::new();
        assert_eq!(watch.signing_time(now()), now());
        for seed in 1..=3 {
            watch.heard(keys(seed).peer_id(), SignedDuration::from_secs(60));
        }
        assert_eq!(watch.signing_time(now()), now() + Duration::from_secs(60));
        assert_eq!(watch.signing_time(Timestamp::MAX), Timestamp::MAX);
        watch.forget(&keys(1).peer_id());
        assert_eq!(watch.signing_time(now()), now());
    }

    #[test]
    fn a_watch_tells_what_the_last_hello_of_a_peer_told() {
        let mut watch = ClockWatch::new();
        assert_eq!(watch.of(&keys(1).peer_id()), None);
        watch.heard(keys(1).peer_id(), SignedDuration::from_secs(120));
        watch.heard(keys(1).peer_id(), SignedDuration::from_secs(-5));
        assert_eq!(watch.of(&keys(1).peer_id()), Some(SignedDuration::from_secs(-5)));
        watch.forget(&keys(1).peer_id());
        assert_eq!(watch.of(&keys(1).peer_id()), None);
    }

    #[test]
    fn a_clock_that_was_set_right_agrees_and_one_that_slept_asks_again() {
        let mut watch = ClockWatch::new();
        for seed in 1..=3 {
            watch.heard(keys(seed).peer_id(), SignedDuration::from_secs(600));
        }
        watch.was_set(SignedDuration::from_secs(599));
        assert_eq!(watch.agreed(), Some(SignedDuration::from_secs(1)));
        assert_eq!(watch.statement(), None);
        watch.was_set(SignedDuration::from_secs(3_600));
        assert_eq!(watch.agreed(), None);
    }

    #[test]
    fn one_liar_moves_no_clock_and_two_cannot_outvote_three() {
        let agreed = |offsets: &[i64]| agreed_offset(&secs(offsets)).map(|offset| offset.as_secs());
        for lie in [-86_400, -31, 31, 86_400] {
            assert_eq!(agreed(&[lie]), None, "{lie}");
            assert_eq!(agreed(&[0, lie]), None, "{lie}");
            assert_eq!(agreed(&[0, 0, lie]), None, "{lie}");
            assert_eq!(agreed(&[0, 0, 0, lie]), Some(0), "{lie}");
            assert_eq!(agreed(&[0, 0, 0, lie, lie]), Some(0), "{lie}");
        }
    }

    #[test]
    fn a_watch_is_bounded_and_hears_each_peer_once() {
        let mut watch = ClockWatch::new();
        for seed in 0..=u8::try_from(WATCHED_MAX).unwrap() {
            watch.heard(keys(seed).peer_id(), SignedDuration::from_secs(99));
            watch.heard(keys(seed).peer_id(), SignedDuration::from_secs(99));
        }
        assert_eq!(watch.statement().unwrap().known, WATCHED_MAX);
        assert!(!watch.offsets.iter().any(|(peer, _)| *peer == keys(0).peer_id()));
    }

    proptest! {
        #[test]
        fn what_is_agreed_on_was_said_by_somebody(offsets in prop::collection::vec(any::<i64>(), 0..12)) {
            let offsets = secs(&offsets);
            if let Some(agreed) = agreed_offset(&offsets) {
                prop_assert!(offsets.contains(&agreed));
            }
        }
    }
}
