//! Searching for peers: what may be asked, and the three who take part.
//!
//! A node asks up to three of its indexers and merges what they say ([`Searches`]). An indexer that is asked relays the
//! question to all others by gossip and hands their answers on ([`Relayed`]). Every indexer answers such a question from
//! its sessions ([`Answerer`]). Each hop has its own random query id, so that nobody on the way learns who asked; an answer
//! is taken only for an open query and from somebody who was asked. Searches for resources are in [`resources`].

mod answer;
mod asker;
mod relay;
pub mod resources;
mod settings;

use std::{
    collections::{HashMap, VecDeque},
    fmt, io,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use libp2p_identity::PeerId;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::{
    answer::{Answerer, AnswererSettings, Ignored, Question},
    asker::{ASKED_MAX, End, Ended, Key, KeyError, SearchError, Searches, Started, TOTAL, USER_CHARS_MAX, Update},
    relay::{
        Forward, OPEN_PER_PEER_MAX, Opened, RELAY_IDLE, RELAY_TOTAL, RELAYED_HITS_MAX, RelayId, Relayed, UNEXPECTED_MAX,
    },
    settings::Settings,
};
use crate::{
    dht,
    identity::Did,
    names::{self, Part},
    record::PeerRecord,
    session::Registry,
    signed::Verified,
    suggestions::KNOWN_MAX,
    time::{Mono, Now},
    trace::Traceparent,
    wire::{GetValue, Protocol, RefusalCode, Refused, SearchHit, SearchPeerRequest, SearchPeerResult, SearchQuery},
};

/// Peers that one search finds at most.
pub const HITS_MAX: usize = 256;

/// Searches that one node or indexer has open at most.
pub const OPEN_MAX: usize = 1000;

/// How long it is remembered that a peer was not found.
pub const ABSENT_FOR: Duration = Duration::from_secs(2);

/// Absent peers remembered.
pub const ABSENT_MAX: usize = 4096;

/// Bytes of a result beside its query id and its hits: names of the fields and the numbers of the last one.
const ENVELOPE_BYTES: usize = 192;

/// 128 random bits, in hex on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(u128);

/// A text is no query id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("got a query id that is not 32 hexadecimal digits")]
pub struct QueryIdError;

impl QueryId {
    /// A new one, which nobody can guess when `rng` is fit for keys.
    #[must_use]
    pub fn random(rng: &mut impl Rng) -> Self {
        Self(rng.random())
    }
}

impl fmt::Display for QueryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for QueryId {
    type Err = QueryIdError;

    fn from_str(text: &str) -> Result<Self, QueryIdError> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex {
            return Err(QueryIdError);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| QueryIdError)
    }
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// A peer.
    Peer(PeerId),
    /// A DID.
    Did(Did),
    /// Exactly this name, in its normal form.
    Name(String),
    /// Names that contain this.
    Part(Part),
}

/// A question that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WantedError {
    /// Not exactly one criterion.
    #[error("got {0} criteria, expected exactly one")]
    NotOne(usize),
    /// Not a DID.
    #[error("got no DID, expected did:key:z… or a UUID")]
    Did,
    /// Not a name.
    #[error("got no name, expected 1 to {} characters without control characters", names::CHARS_MAX)]
    Name,
    /// Not a part of a name.
    #[error("got no part of a name, expected {} to {} characters", names::PART_CHARS_MIN, names::CHARS_MAX)]
    Part,
}

impl WantedError {
    /// The refusal in the words of the wire.
    #[must_use]
    pub fn refusal(self) -> Refused {
        Refused::new(RefusalCode::Invalid, self.to_string())
    }
}

impl Wanted {
    /// What a node asks of its indexer; a name is a part of one.
    ///
    /// # Errors
    /// When it is not exactly one good criterion.
    pub fn of_request(request: &SearchPeerRequest) -> Result<Self, WantedError> {
        Self::read(request.peer_id, request.did.as_deref(), request.name.as_deref(), Self::part)
    }

    /// What an indexer asks of all others.
    ///
    /// # Errors
    /// When it is not exactly one good criterion.
    pub fn of_query(query: &SearchQuery) -> Result<Self, WantedError> {
        Self::read(query.peer_id, query.did.as_deref(), query.name.as_deref(), Self::part)
    }

    /// What is looked up; a name is exactly that name.
    ///
    /// # Errors
    /// When it is not exactly one good criterion.
    pub fn of_get(get: &GetValue) -> Result<Self, WantedError> {
        Self::read(get.peer_id, get.key.as_deref(), get.name.as_deref(), Self::name)
    }

    /// A peer id, a DID or a name, whichever the text is.
    ///
    /// # Errors
    /// When it is none of them.
    pub fn exactly(text: &str) -> Result<Self, WantedError> {
        let peer = text.parse().ok().map(Self::Peer);
        peer.or_else(|| text.parse().ok().map(Self::Did)).map_or_else(|| Self::name(text), Ok)
    }

    /// A part of a name.
    ///
    /// # Errors
    /// When it is shorter than two characters or part of no name.
    pub fn part(text: &str) -> Result<Self, WantedError> {
        Part::new(text).map(Self::Part).ok_or(WantedError::Part)
    }

    fn name(text: &str) -> Result<Self, WantedError> {
        names::check(text).map(|()| Self::Name(names::normal(text))).map_err(|_| WantedError::Name)
    }

    fn read(
        peer: Option<PeerId>,
        did: Option<&str>,
        name: Option<&str>,
        named: fn(&str) -> Result<Self, WantedError>,
    ) -> Result<Self, WantedError> {
        // An empty text is how some languages leave a field out.
        let (did, name) = (did.filter(|did| !did.is_empty()), name.filter(|name| !name.is_empty()));
        match (peer, did, name) {
            (Some(peer), None, None) => Ok(Self::Peer(peer)),
            (None, Some(did), None) => did.parse().map(Self::Did).map_err(|_| WantedError::Did),
            (None, None, Some(name)) => named(name),
            _ => Err(WantedError::NotOne(
                usize::from(peer.is_some()) + usize::from(did.is_some()) + usize::from(name.is_some()),
            )),
        }
    }

    /// The record answers the question.
    #[must_use]
    pub fn matches(&self, record: &PeerRecord) -> bool {
        match self {
            Self::Peer(peer) => record.peer_id == *peer,
            Self::Did(did) => record.did == did.to_string(),
            Self::Name(name) => names::normal(&record.name) == *name,
            Self::Part(part) => part.is_in(&record.name),
        }
    }

    /// Where in the DHT to look for it when the sessions do not have it; a part of a name may be all of one.
    #[must_use]
    pub fn dht_key(&self) -> Option<dht::Key> {
        match self {
            Self::Peer(peer) => Some(dht::Key::Pid(*peer)),
            Self::Did(did) => Some(dht::Key::Node(*did)),
            Self::Name(name) => dht::Key::of_name(name),
            Self::Part(part) => dht::Key::of_name(part.as_str()),
        }
    }

    /// Only asking every indexer finds them all.
    #[must_use]
    pub fn is_gossiped(&self) -> bool {
        matches!(self, Self::Part(_))
    }

    /// The records held here that answer, at most `at_most`, and whether any were left out.
    #[must_use]
    pub fn held(&self, registry: &Registry, now: Now, at_most: usize) -> (Vec<Arc<Verified<PeerRecord>>>, bool) {
        let one = |hit: Option<&Arc<Verified<PeerRecord>>>| (hit.into_iter().take(at_most).cloned().collect(), false);
        match self {
            Self::Peer(peer) => one(registry.by_peer(peer, now)),
            Self::Did(did) => one(registry.by_did(&did.to_string(), now)),
            Self::Name(name) => {
                let mut hits = registry.by_name(name, now, at_most + 1);
                let is_truncated = hits.len() > at_most;
                hits.truncate(at_most);
                (hits, is_truncated)
            }
            Self::Part(part) => registry.by_part(part, now, at_most),
        }
    }

    /// The criteria as a message has them: peer, DID, name.
    fn criteria(&self) -> (Option<PeerId>, Option<String>, Option<String>) {
        match self {
            Self::Peer(peer) => (Some(*peer), None, None),
            Self::Did(did) => (None, Some(did.to_string()), None),
            Self::Name(name) => (None, None, Some(name.clone())),
            Self::Part(part) => (None, None, Some(part.as_str().to_owned())),
        }
    }

    fn request(&self, query: QueryId) -> SearchPeerRequest {
        let (peer_id, did, name) = self.criteria();
        SearchPeerRequest { query_id: query.to_string(), peer_id, did, name, traceparent: Traceparent::Absent }
    }

    fn query(&self, query: QueryId, emitter_id: PeerId) -> SearchQuery {
        let (peer_id, did, name) = self.criteria();
        SearchQuery { query_id: query.to_string(), peer_id, did, name, emitter_id, traceparent: Traceparent::Absent }
    }
}

/// How many indexers a view of the network has, and how many of them were heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Indexers asked.
    pub asked: u32,
    /// Indexers that answered.
    pub answered: u32,
    /// Indexers that did not answer in time.
    pub timed_out: u32,
    /// Hits were left out at a limit.
    pub truncated: bool,
}

impl Tally {
    /// What the last value of an indexer says; nothing when it is not the last one.
    ///
    /// Absent figures mean that it answered for itself. No figure is larger than a network can be, so a liar's sum stays
    /// a number that can be shown.
    #[must_use]
    pub fn of(result: &SearchPeerResult) -> Option<Self> {
        let asked = result.asked.unwrap_or(1).min(KNOWN_MAX as u32 + 1);
        let answered = result.answered.unwrap_or(1).min(asked);
        let timed_out = result.timed_out.unwrap_or(0).min(asked - answered);
        result.last.then(|| Self { asked, answered, timed_out, truncated: result.truncated.unwrap_or(false) })
    }
}

/// A verified record as a hit.
#[must_use]
pub fn hit(record: &Verified<PeerRecord>) -> SearchHit {
    SearchHit {
        peer_id: record.peer_id,
        did: record.did.clone(),
        name: record.name.clone(),
        record: Some(record.to_raw()),
    }
}

/// Spreads hits over as few values as the limit of a value allows, in their order; none for no hits.
///
/// A hit that alone is over the limit, which no honest one is, is left out.
#[must_use]
pub fn split(query_id: &str, hits: Vec<SearchHit>) -> Vec<SearchPeerResult> {
    let bytes_max = Protocol::SearchResponse.value_bytes_max() - ENVELOPE_BYTES - query_id.len();
    let mut values: Vec<SearchPeerResult> = Vec::new();
    let mut bytes = bytes_max;
    for hit in hits {
        let of_hit = json_len(&hit) + 1;
        if of_hit > bytes_max {
            continue;
        }
        if bytes + of_hit > bytes_max {
            values.push(empty(query_id));
            bytes = 0;
        }
        bytes += of_hit;
        if let Some(value) = values.last_mut() {
            value.records.push(hit);
        }
    }
    values
}

fn empty(query_id: &str) -> SearchPeerResult {
    SearchPeerResult {
        query_id: query_id.to_owned(),
        records: Vec::new(),
        last: false,
        asked: None,
        answered: None,
        timed_out: None,
        truncated: None,
    }
}

/// Bytes of a value as JSON, without writing it anywhere.
fn json_len(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).map_or(usize::MAX / 2, |()| count.0)
}

/// Who was looked for and not found a moment ago, so that the next look-up need not ask the DHT again.
///
/// Parts of names are not remembered: they are asked of everybody each time. Bounded by [`ABSENT_MAX`], the oldest out.
#[derive(Debug, Default)]
pub struct Absent {
    until: HashMap<Wanted, Mono>,
    order: VecDeque<(Mono, Wanted)>,
}

impl Absent {
    /// Nobody is known to be absent.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that nothing was found.
    pub fn note(&mut self, wanted: Wanted, now: Mono) {
        if wanted.is_gossiped() {
            return;
        }
        while self.order.front().is_some_and(|(until, _)| *until <= now || self.order.len() >= ABSENT_MAX) {
            let Some((until, oldest)) = self.order.pop_front() else { break };
            if self.until.get(&oldest) == Some(&until) {
                self.until.remove(&oldest);
            }
        }
        let until = now + ABSENT_FOR;
        self.order.push_back((until, wanted.clone()));
        self.until.insert(wanted, until);
    }

    /// It was looked for and not found less than two seconds ago.
    #[must_use]
    pub fn is_absent(&self, wanted: &Wanted, now: Mono) -> bool {
        self.until.get(wanted).is_some_and(|until| now < *until)
    }

    /// A verified record came: whoever it answers is absent no longer.
    pub fn appeared(&mut self, record: &PeerRecord) {
        if self.until.is_empty() {
            return;
        }
        self.until.remove(&Wanted::Peer(record.peer_id));
        self.until.remove(&Wanted::Name(names::normal(&record.name)));
        if let Ok(did) = record.did.parse() {
            self.until.remove(&Wanted::Did(did));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{collections::BTreeMap, sync::Mutex};

    use jiff::Timestamp;
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::identity::Keys;

    /// Keys, made once each: deriving is what such tests cost.
    pub(super) fn keys(n: u16) -> Keys {
        static MADE: Mutex<BTreeMap<u16, Keys>> = Mutex::new(BTreeMap::new());
        let make = || {
            let mut seed = [3; 32];
            seed[..2].copy_from_slice(&n.to_be_bytes());
            Keys::from_seed(seed)
        };
        MADE.lock().unwrap().entry(n).or_insert_with(make).clone()
    }

    pub(super) fn peer(n: u16) -> PeerId {
        keys(n).peer_id()
    }

    pub(super) fn now(secs: u64) -> Now {
        Now { mono: Mono::from_secs(secs), wall: Timestamp::from_second(1_000_000 + secs as i64).unwrap() }
    }

    /// Records, signed once each.
    pub(super) fn record(n: u16, seq: u64, name: &str) -> Verified<PeerRecord> {
        static SIGNED: Mutex<BTreeMap<(u16, u64, String), Verified<PeerRecord>>> = Mutex::new(BTreeMap::new());
        let mut signed = SIGNED.lock().unwrap();
        signed.entry((n, seq, name.to_owned())).or_insert_with(|| sign(n, seq, name)).clone()
    }

    fn sign(n: u16, seq: u64, name: &str) -> Verified<PeerRecord> {
        let keys = keys(n);
        let record = PeerRecord {
            name: name.to_owned(),
            did: keys.did().to_string(),
            pub_key: keys.pub_key().to_owned(),
            peer_id: keys.peer_id(),
            api_url: String::new(),
            stream_address: String::new(),
            addrs: Vec::new(),
            nats_address: String::new(),
            wallet_address: String::new(),
            capabilities: Vec::new(),
            born_at: now(0).wall,
            expiry_date: now(120).wall,
            seq,
        };
        Verified::sign(&record, &keys)
    }

    pub(super) fn rng() -> StdRng {
        StdRng::seed_from_u64(5)
    }

    fn request(peer_id: Option<PeerId>, did: Option<&str>, name: Option<&str>) -> SearchPeerRequest {
        let text = |text: &str| text.to_owned();
        SearchPeerRequest {
            query_id: String::new(),
            peer_id,
            did: did.map(text),
            name: name.map(text),
            traceparent: Traceparent::Absent,
        }
    }

    #[test]
    fn a_query_id_is_32_digits_and_is_read_again() {
        let id = QueryId::random(&mut rng());
        assert_eq!((id.to_string().len(), id.to_string().parse()), (32, Ok(id)));
        assert_eq!(QueryId(7).to_string(), "00000000000000000000000000000007");
        for text in ["", "+0000000000000000000000000000007", "7", &"0".repeat(31), &"0".repeat(33), &"g".repeat(32)] {
            assert_eq!(text.parse::<QueryId>(), Err(QueryIdError), "{text}");
        }
    }

    #[test]
    fn a_question_has_exactly_one_criterion() {
        let (did, long) = (keys(1).did().to_string(), "x".repeat(65));
        let check = |peer, did, name, expected| {
            assert_eq!(Wanted::of_request(&request(peer, did, name)), expected);
        };
        check(Some(peer(1)), None, None, Ok(Wanted::Peer(peer(1))));
        check(None, Some(&did), None, Ok(Wanted::Did(keys(1).did())));
        check(None, None, Some("PAr"), Wanted::part("par"));
        check(None, Some(""), Some("pa"), Wanted::part("pa"));
        check(None, None, None, Err(WantedError::NotOne(0)));
        check(None, None, Some(""), Err(WantedError::NotOne(0)));
        check(Some(peer(1)), Some(&did), None, Err(WantedError::NotOne(2)));
        check(Some(peer(1)), Some(&did), Some("pa"), Err(WantedError::NotOne(3)));
        check(None, Some("did:web:paris"), None, Err(WantedError::Did));
        check(None, None, Some("p"), Err(WantedError::Part));
        check(None, None, Some("é"), Err(WantedError::Part));
        check(None, None, Some("a\nb"), Err(WantedError::Part));
        check(None, None, Some(&long[1..]), Wanted::part(&long[1..]));
        check(None, None, Some(&long), Err(WantedError::Part));
    }

    #[test]
    fn a_look_up_takes_a_name_for_exactly_that_name() {
        let get = |name: &str| Wanted::of_get(&GetValue { name: Some(name.to_owned()), ..GetValue::default() });
        assert_eq!(get("P"), Ok(Wanted::Name("p".to_owned())));
        assert_eq!(get(&"x".repeat(65)), Err(WantedError::Name));
        assert_eq!(Wanted::of_get(&GetValue::default()), Err(WantedError::NotOne(0)));
        assert_eq!(Wanted::exactly(&peer(1).to_string()), Ok(Wanted::Peer(peer(1))));
        assert_eq!(Wanted::exactly(&keys(1).did().to_string()), Ok(Wanted::Did(keys(1).did())));
        assert_eq!(Wanted::exactly("Paris"), Ok(Wanted::Name("paris".to_owned())));
        assert_eq!(Wanted::exactly(""), Err(WantedError::Name));
    }

    #[test]
    fn g36_a_record_must_answer_the_question() {
        let paris = record(1, 1, "Paris");
        let check = |wanted: Wanted, expected| assert_eq!(wanted.matches(&paris), expected, "{wanted:?}");
        check(Wanted::Peer(peer(1)), true);
        check(Wanted::Peer(peer(2)), false);
        check(Wanted::Did(keys(1).did()), true);
        check(Wanted::Did(keys(2).did()), false);
        check(Wanted::exactly("PARIS").unwrap(), true);
        check(Wanted::exactly("par").unwrap(), false);
        check(Wanted::part("ARI").unwrap(), true);
        check(Wanted::part("lon").unwrap(), false);
    }

    #[test]
    fn each_question_goes_where_it_can_be_answered() {
        let check = |wanted: Wanted, key: &str, is_gossiped| {
            assert_eq!(wanted.dht_key().map(|key| key.to_string()).as_deref(), Some(key));
            assert_eq!(wanted.is_gossiped(), is_gossiped);
        };
        check(Wanted::Peer(peer(1)), &format!("/pid/{}", peer(1)), false);
        check(Wanted::Did(keys(1).did()), &format!("/node/{}", keys(1).did()), false);
        check(Wanted::exactly("Paris").unwrap(), "/name/paris", false);
        check(Wanted::part("PAR").unwrap(), "/name/par", true);
    }

    #[test]
    fn a_tally_is_the_last_values_and_stays_within_what_a_network_can_be() {
        let result = |last, asked, answered, timed_out| SearchPeerResult {
            last,
            asked,
            answered,
            timed_out,
            truncated: Some(true),
            ..empty("")
        };
        let tally = |asked, answered, timed_out| Some(Tally { asked, answered, timed_out, truncated: true });
        assert_eq!(Tally::of(&result(false, Some(9), Some(7), Some(2))), None);
        assert_eq!(Tally::of(&result(true, Some(9), Some(7), Some(2))), tally(9, 7, 2));
        assert_eq!(Tally::of(&result(true, None, None, None)), tally(1, 1, 0));
        assert_eq!(Tally::of(&result(true, Some(u32::MAX), Some(u32::MAX), Some(u32::MAX))), tally(4097, 4097, 0));
        assert_eq!(Tally::of(&result(true, Some(3), Some(2), Some(9))), tally(3, 2, 1));
    }

    #[test]
    fn an_absent_peer_is_remembered_for_two_seconds_or_until_it_appears() {
        let mut absent = Absent::new();
        let paris = record(1, 1, "Paris");
        for wanted in [Wanted::Peer(peer(1)), Wanted::Did(keys(1).did()), Wanted::exactly("paris").unwrap()] {
            assert!(!absent.is_absent(&wanted, Mono::ZERO));
            absent.note(wanted.clone(), Mono::ZERO);
            assert!(absent.is_absent(&wanted, Mono::from_millis(1999)));
            assert!(!absent.is_absent(&wanted, Mono::from_secs(2)));
            absent.appeared(&record(2, 1, "london"));
            assert!(absent.is_absent(&wanted, Mono::from_secs(1)));
            absent.appeared(&paris);
            assert!(!absent.is_absent(&wanted, Mono::from_secs(1)));
        }
        absent.note(Wanted::part("pa").unwrap(), Mono::ZERO);
        assert!(!absent.is_absent(&Wanted::part("pa").unwrap(), Mono::ZERO), "parts are asked of everybody");
    }

    #[test]
    fn absent_peers_are_bounded_and_the_oldest_goes() {
        let mut absent = Absent::new();
        let name = |n: usize| Wanted::Name(format!("name-{n}"));
        for n in 0..=ABSENT_MAX {
            absent.note(name(n), Mono::ZERO);
            // A note that was taken back and made again does not stay longer than the bound.
            absent.note(name(n), Mono::ZERO);
        }
        assert!(absent.order.len() <= ABSENT_MAX && absent.until.len() <= ABSENT_MAX);
        assert!(!absent.is_absent(&name(0), Mono::ZERO) && absent.is_absent(&name(ABSENT_MAX), Mono::ZERO));
        absent.note(name(0), Mono::from_secs(2));
        assert_eq!((absent.order.len(), absent.until.len()), (1, 1));
    }

    proptest! {
        // Each case writes megabytes.
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn answers_are_split_within_the_limit_and_lose_nothing(lengths in proptest::collection::vec(0usize..20_000, 0..40)) {
            let small = SearchHit { peer_id: peer(1), did: String::new(), name: String::new(), record: None };
            let hits: Vec<_> = lengths
                .iter()
                .map(|length| SearchHit { name: "\u{1}".repeat(*length % 50), did: "x".repeat(*length), ..small.clone() })
                .collect();
            let values = split(&QueryId(1).to_string(), hits);
            for value in &values {
                let last = SearchPeerResult {
                    asked: Some(u32::MAX),
                    answered: Some(u32::MAX),
                    timed_out: Some(u32::MAX),
                    truncated: Some(false),
                    ..value.clone()
                };
                prop_assert!(json_len(&last) <= Protocol::SearchResponse.value_bytes_max());
                prop_assert!(!value.records.is_empty());
            }
            let back: Vec<_> = values.iter().flat_map(|value| &value.records).map(|hit| hit.did.len()).collect();
            prop_assert_eq!(&back, &lengths);
            for pair in values.windows(2) {
                let both = json_len(&pair[0]) + json_len(&pair[1].records[0]);
                prop_assert!(both + 2 * ENVELOPE_BYTES > Protocol::SearchResponse.value_bytes_max(), "as few as fit");
            }
        }
    }

    #[test]
    fn a_hit_that_no_value_can_hold_is_left_out() {
        let large = SearchHit { did: "x".repeat(70_000), ..hit(&record(1, 1, "p")) };
        let values = split("q", vec![hit(&record(1, 1, "p")), large, hit(&record(2, 1, "p"))]);
        assert_eq!((values.len(), values[0].records.len()), (1, 2));
    }
}
