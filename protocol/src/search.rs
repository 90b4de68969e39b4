//! Searching for peers: what may be asked, and the three who take part.
//!
//! A node asks up to three of its indexers and merges what they say ([`Searches`]). An indexer that is asked relays the
//! question to all others by gossip and hands their answers on ([`Relayed`]). Every indexer answers such a question from
//! its sessions ([`Answerer`]). Each hop has its own random query id, so that nobody on the way learns who asked; an answer
//! is taken only for an open query and from somebody who was asked.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    fmt, io,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use libp2p_identity::PeerId;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::{
    behaviour::Window,
    dht,
    identity::Did,
    names::{self, Part},
    record::PeerRecord,
    session::Registry,
    signed::Verified,
    suggestions::KNOWN_MAX,
    time::{Mono, Now},
    wire::{GetValue, Protocol, RefusalCode, Refused, SearchHit, SearchPeerRequest, SearchPeerResult, SearchQuery},
};

/// Peers that one search finds at most.
pub const HITS_MAX: usize = 256;

/// Searches that one node or indexer has open at most.
pub const OPEN_MAX: usize = 1000;

/// Searches that one peer has open at an indexer at most.
pub const OPEN_PER_PEER_MAX: usize = 4;

/// Indexers that a node asks at once.
pub const ASKED_MAX: usize = 3;

/// A search ends when nothing came for so long.
pub const IDLE: Duration = Duration::from_secs(5);

/// A search ends after so long in any case.
pub const TOTAL: Duration = Duration::from_secs(60);

/// The same at the indexer that relays: shorter, so that its last word arrives before the node gives up.
pub const RELAY_IDLE: Duration = Duration::from_secs(3);

/// The same at the indexer that relays.
pub const RELAY_TOTAL: Duration = Duration::from_secs(55);

/// Hits handed on for one search: they are not verified on the way, so three indexers that answer with rubbish must leave
/// room for an honest one.
pub const RELAYED_HITS_MAX: usize = 4 * HITS_MAX;

/// Answers taken from indexers that were not expected to answer: those of which no record is known yet.
pub const UNEXPECTED_MAX: usize = 16;

/// Characters of the user in a search's local key.
pub const USER_CHARS_MAX: usize = 256;

/// How long it is remembered that a peer was not found.
pub const ABSENT_FOR: Duration = Duration::from_secs(2);

/// Absent peers remembered.
pub const ABSENT_MAX: usize = 4096;

/// How long a query is remembered so that it is answered once; gossip brings copies within seconds.
const SEEN_FOR: Duration = Duration::from_secs(120);

/// Queries remembered: as many as one indexer may relay in a minute, eight times over.
const SEEN_MAX: usize = 8192;

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
        SearchPeerRequest { query_id: query.to_string(), peer_id, did, name }
    }

    fn query(&self, query: QueryId, emitter_id: PeerId) -> SearchQuery {
        let (peer_id, did, name) = self.criteria();
        SearchQuery { query_id: query.to_string(), peer_id, did, name, emitter_id }
    }
}

/// The local name of a search: `user:uuid`. It never leaves the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    user: String,
    id: Uuid,
}

/// A text is no local name of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not of the form.
    #[error("got no search key, expected user:uuid")]
    Form,
    /// The user's name is too long.
    #[error("got a user of {got} characters, expected at most {USER_CHARS_MAX}")]
    User {
        /// Its characters.
        got: usize,
    },
}

impl Key {
    /// The search `id` of a user; an empty user stands for a request that replaces nobody's.
    ///
    /// # Errors
    /// When the user's name is too long to be kept.
    pub fn new(user: &str, id: Uuid) -> Result<Self, KeyError> {
        let got = user.chars().count();
        if got > USER_CHARS_MAX {
            return Err(KeyError::User { got });
        }
        Ok(Self { user: user.to_owned(), id })
    }

    /// The user, which may contain colons.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (user, id) = text.rsplit_once(':').ok_or(KeyError::Form)?;
        Self::new(user, Uuid::try_parse(id).map_err(|_| KeyError::Form)?)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.user, self.id)
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

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Everybody asked said their last word.
    Complete,
    /// Nothing came for 5 s.
    Idle,
    /// 60 s are over.
    TimedOut,
    /// More peers match than a search may find.
    Limit,
    /// Whoever wanted it closed it.
    Closed,
    /// A newer one of the same user took its place.
    Replaced,
    /// Those who had not said their last word are gone.
    Lost,
}

/// A search that ended, and how complete it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Which one.
    #[serde(serialize_with = "as_text")]
    pub key: Key,
    /// Why.
    pub end: End,
    /// Peers found.
    pub hits: usize,
    /// The widest view that a member reported; of several equally wide ones that which heard most. Views overlap, so they
    /// are not added up.
    pub tally: Tally,
    /// Members of the pool that were asked.
    pub members_asked: usize,
    /// Members that said their last word.
    pub members_answered: usize,
}

fn as_text<S: serde::Serializer>(key: &Key, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(key)
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { asked, answered, timed_out, truncated } = self.tally;
        write!(f, "answered {answered} of {asked} indexers, {timed_out} timed out")?;
        if truncated { f.write_str(", more match than are shown") } else { Ok(()) }
    }
}

/// Why a search cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SearchError {
    /// Too many are open.
    #[error("got one search more than the {OPEN_MAX} that may be open")]
    Busy,
    /// There is nobody to ask.
    #[error("got no indexer to ask")]
    Nobody,
}

/// A search that began.
#[derive(Clone, Debug)]
pub struct Started {
    /// What to send to whom; each has its own query id.
    pub asks: Vec<(PeerId, SearchPeerRequest)>,
    /// The older search of the same user that it replaced.
    pub replaced: Option<Ended>,
}

/// What came of an answer.
#[derive(Clone, Debug)]
pub struct Update {
    /// Of which search.
    pub key: Key,
    /// Peers to show: those not seen before in this search, or with a newer record.
    pub fresh: Vec<Arc<Verified<PeerRecord>>>,
    /// Records that do not answer the question; dropped, to be counted.
    pub mismatched: usize,
    /// The search ended with it.
    pub ended: Option<Ended>,
}

#[derive(Debug)]
struct Asked {
    peer: PeerId,
    query: QueryId,
    is_over: bool,
    tally: Option<Tally>,
}

#[derive(Debug)]
struct Search {
    key: Key,
    wanted: Wanted,
    asked: Vec<Asked>,
    is_dht_open: bool,
    hits: HashMap<PeerId, u64>,
    started: Mono,
    deadline: Mono,
    is_over_limit: bool,
}

impl Search {
    /// Takes in records; what is to be shown of them, and how many did not answer the question.
    fn merge(
        &mut self,
        records: impl IntoIterator<Item = Verified<PeerRecord>>,
    ) -> (Vec<Arc<Verified<PeerRecord>>>, usize, bool) {
        let (mut fresh, mut mismatched, mut has_matches) = (Vec::new(), 0, false);
        for record in records {
            if !self.wanted.matches(&record) {
                mismatched += 1;
                continue;
            }
            has_matches = true;
            match self.hits.get(&record.peer_id) {
                Some(seq) if record.seq <= *seq => continue,
                None if self.hits.len() >= HITS_MAX => {
                    self.is_over_limit = true;
                    break;
                }
                _ => self.hits.insert(record.peer_id, record.seq),
            };
            fresh.push(Arc::new(record));
        }
        (fresh, mismatched, has_matches)
    }

    /// Why it is over, if it is, apart from time.
    fn end(&self) -> Option<End> {
        if self.is_over_limit {
            return Some(End::Limit);
        }
        if self.is_dht_open || self.asked.iter().any(|asked| !asked.is_over) {
            return None;
        }
        let is_complete = self.asked.iter().all(|asked| asked.tally.is_some());
        Some(if is_complete { End::Complete } else { End::Lost })
    }

    fn timed_end(&self, now: Mono) -> Option<End> {
        let end = if now >= self.started + TOTAL { End::TimedOut } else { End::Idle };
        (now >= self.deadline).then_some(end)
    }

    fn ended(self, end: End) -> Ended {
        let tallies = || self.asked.iter().filter_map(|asked| asked.tally);
        let members_answered = tallies().count();
        // Without any view the members asked are all that is known of the network.
        let members = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let unknown = Tally {
            asked: members(self.asked.len()),
            answered: 0,
            timed_out: members(self.asked.len()),
            truncated: false,
        };
        let mut tally = tallies().max_by_key(|tally| (tally.asked, tally.answered)).unwrap_or(unknown);
        tally.truncated = self.is_over_limit || tallies().any(|tally| tally.truncated);
        Ended { end, hits: self.hits.len(), tally, members_asked: self.asked.len(), members_answered, key: self.key }
    }
}

/// The searches of a node: one kind of them.
///
/// Bounded by [`OPEN_MAX`] searches of [`HITS_MAX`] hits. A restart forgets them.
#[derive(Debug, Default)]
pub struct Searches {
    open: HashMap<Key, Search>,
    by_user: HashMap<String, Key>,
    by_query: HashMap<QueryId, Key>,
    deadlines: BTreeSet<(Mono, Key)>,
}

impl Searches {
    /// None open.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a search that asks the first three of `members`, and the DHT or our own sessions if `has_own_source`, whose
    /// hits come by [`Searches::found`]. It replaces the one that this very user has open.
    ///
    /// # Errors
    /// When too many are open, or there is nobody to ask.
    pub fn start(
        &mut self,
        key: Key,
        wanted: Wanted,
        members: &[PeerId],
        has_own_source: bool,
        now: Mono,
        rng: &mut impl Rng,
    ) -> Result<Started, SearchError> {
        if members.is_empty() && !has_own_source {
            return Err(SearchError::Nobody);
        }
        // Without a user each request stands alone; the same key twice is the same request.
        let older = self.by_user.get(&key.user).cloned().unwrap_or_else(|| key.clone());
        let replaced = self.end(&older, End::Replaced);
        if self.open.len() >= OPEN_MAX {
            return Err(SearchError::Busy);
        }
        let ask = |peer: &PeerId| Asked { peer: *peer, query: QueryId::random(rng), is_over: false, tally: None };
        let asked: Vec<_> = members.iter().take(ASKED_MAX).map(ask).collect();
        let asks = asked.iter().map(|asked| (asked.peer, wanted.request(asked.query))).collect();
        self.by_query.extend(asked.iter().map(|asked| (asked.query, key.clone())));
        if !key.user.is_empty() {
            self.by_user.insert(key.user.clone(), key.clone());
        }
        let deadline = now + IDLE;
        self.deadlines.insert((deadline, key.clone()));
        let search = Search {
            key: key.clone(),
            wanted,
            asked,
            is_dht_open: has_own_source,
            hits: HashMap::new(),
            started: now,
            deadline,
            is_over_limit: false,
        };
        self.open.insert(key, search);
        Ok(Started { asks, replaced })
    }

    /// An answer with this query id from this peer would be taken: to be asked before anything in it is verified.
    #[must_use]
    pub fn is_open(&self, from: &PeerId, query_id: &str) -> bool {
        self.asked_by(from, query_id).is_some()
    }

    /// Takes the verified records of an answer, and its tally if it is the last one of its sender.
    ///
    /// Nothing comes of an answer to no open question or from somebody else than the one asked.
    pub fn answered(
        &mut self,
        from: &PeerId,
        query_id: &str,
        records: impl IntoIterator<Item = Verified<PeerRecord>>,
        last: Option<Tally>,
        now: Mono,
    ) -> Option<Update> {
        let (key, at) = self.asked_by(from, query_id)?;
        self.update(&key, records, now, |search| {
            if last.is_some() {
                search.asked[at].is_over = true;
                search.asked[at].tally = last;
            }
        })
    }

    /// Takes verified records that were found here or in the DHT; `is_last` when no more come from there.
    pub fn found(
        &mut self,
        key: &Key,
        records: impl IntoIterator<Item = Verified<PeerRecord>>,
        is_last: bool,
        now: Mono,
    ) -> Option<Update> {
        self.update(key, records, now, |search| search.is_dht_open &= !is_last)
    }

    /// A member that was asked is gone, or refused to answer.
    pub fn lost(&mut self, from: &PeerId, query_id: &str, now: Mono) -> Option<Update> {
        let (key, at) = self.asked_by(from, query_id)?;
        self.update(&key, [], now, |search| search.asked[at].is_over = true)
    }

    /// Ends a search on behalf of whoever wanted it.
    pub fn close(&mut self, key: &Key) -> Option<Ended> {
        self.end(key, End::Closed)
    }

    /// Ends the one that a user has open.
    pub fn close_of(&mut self, user: &str) -> Option<Ended> {
        let key = self.by_user.get(user)?.clone();
        self.end(&key, End::Closed)
    }

    /// Ends searches whose time is over, at most `at_most`.
    pub fn expire(&mut self, now: Mono, at_most: usize) -> Vec<Ended> {
        let mut ended = Vec::new();
        while ended.len() < at_most {
            let Some((_, key)) = self.deadlines.first().filter(|(due, _)| *due <= now).cloned() else { break };
            let end = self.open.get(&key).and_then(|search| search.timed_end(now)).unwrap_or(End::Idle);
            ended.extend(self.end(&key, end));
        }
        ended
    }

    /// When the next search ends if nothing comes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// Searches open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// None is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn asked_by(&self, from: &PeerId, query_id: &str) -> Option<(Key, usize)> {
        let query = query_id.parse().ok()?;
        let key = self.by_query.get(&query)?;
        let at = self.open.get(key)?.asked.iter().position(|asked| asked.query == query)?;
        let asked = &self.open.get(key)?.asked[at];
        (asked.peer == *from && !asked.is_over).then(|| (key.clone(), at))
    }

    fn update(
        &mut self,
        key: &Key,
        records: impl IntoIterator<Item = Verified<PeerRecord>>,
        now: Mono,
        note: impl FnOnce(&mut Search),
    ) -> Option<Update> {
        let search = self.open.get_mut(key)?;
        let mut update = Update { key: key.clone(), fresh: Vec::new(), mismatched: 0, ended: None };
        if let Some(end) = search.timed_end(now) {
            update.ended = self.end(key, end);
            return Some(update);
        }
        note(search);
        let has_matches;
        (update.fresh, update.mismatched, has_matches) = search.merge(records);
        if let Some(end) = search.end() {
            update.ended = self.end(key, end);
        } else if has_matches {
            let later = (now + IDLE).min(search.started + TOTAL);
            let before = std::mem::replace(&mut search.deadline, later);
            self.deadlines.remove(&(before, key.clone()));
            self.deadlines.insert((later, key.clone()));
        }
        Some(update)
    }

    fn end(&mut self, key: &Key, end: End) -> Option<Ended> {
        let search = self.open.remove(key)?;
        self.deadlines.remove(&(search.deadline, key.clone()));
        for asked in &search.asked {
            self.by_query.remove(&asked.query);
        }
        if self.by_user.get(&key.user) == Some(key) {
            self.by_user.remove(&key.user);
        }
        Some(search.ended(end))
    }
}

/// A search that an indexer relays, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(u64);

/// What to send to the peer that asked.
#[derive(Clone, Debug)]
pub struct Forward {
    /// For which search.
    pub id: RelayId,
    /// To whom.
    pub to: PeerId,
    /// Each within the limit of a value. Empty when there is nothing to say.
    pub values: Vec<SearchPeerResult>,
    /// The last of them is the last word: the search is closed here.
    pub is_over: bool,
}

/// A search that an indexer began to relay.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its number.
    pub id: RelayId,
    /// What to ask all other indexers, where that helps.
    pub gossip: Option<SearchQuery>,
    /// What is known already.
    pub forward: Forward,
}

#[derive(Debug)]
struct Answering {
    hits: usize,
    is_over: bool,
}

#[derive(Debug)]
struct Relay {
    asker: PeerId,
    asker_query: String,
    query: QueryId,
    /// Who should answer, sorted; shared by the searches of the same moment.
    expected: Arc<[PeerId]>,
    /// Those of them that answered, by their place.
    answering: BTreeMap<usize, Answering>,
    unexpected: Vec<(PeerId, Answering)>,
    is_dht_open: bool,
    hits: usize,
    is_truncated: bool,
    started: Mono,
    deadline: Mono,
}

impl Relay {
    /// Of this sender, if one more is listened to.
    fn answering(&mut self, from: &PeerId) -> Option<&mut Answering> {
        let fresh = || Answering { hits: 0, is_over: false };
        if let Ok(at) = self.expected.binary_search(from) {
            return Some(self.answering.entry(at).or_insert_with(fresh));
        }
        if let Some(at) = self.unexpected.iter().position(|(peer, _)| peer == from) {
            return Some(&mut self.unexpected[at].1);
        }
        if self.unexpected.len() >= UNEXPECTED_MAX {
            return None;
        }
        self.unexpected.push((*from, fresh()));
        self.unexpected.last_mut().map(|(_, answering)| answering)
    }

    fn answered(&self) -> usize {
        self.answering.values().filter(|answering| answering.is_over).count()
    }

    fn is_complete(&self) -> bool {
        !self.is_dht_open && self.answered() == self.expected.len()
    }

    /// Leaves out what is over the limits; whether there was anything left.
    fn bound(&mut self, hits: &mut Vec<SearchHit>, at_most: usize) -> bool {
        let room = at_most.min(RELAYED_HITS_MAX - self.hits);
        self.is_truncated |= hits.len() > room;
        hits.truncate(room);
        self.hits += hits.len();
        !hits.is_empty()
    }

    fn restart(&mut self, now: Mono) -> Mono {
        std::mem::replace(&mut self.deadline, (now + RELAY_IDLE).min(self.started + RELAY_TOTAL))
    }

    /// The line that says how complete it is; the indexer itself is one of those asked, and it answered.
    fn last_word(&self) -> SearchPeerResult {
        let (asked, answered) = (self.expected.len() as u32 + 1, self.answered() as u32 + 1);
        SearchPeerResult {
            query_id: self.asker_query.clone(),
            records: Vec::new(),
            last: true,
            asked: Some(asked),
            answered: Some(answered),
            timed_out: Some(asked - answered),
            truncated: Some(self.is_truncated),
        }
    }
}

/// The searches that an indexer relays for its nodes.
///
/// Bounded by [`OPEN_MAX`] in all and [`OPEN_PER_PEER_MAX`] per peer; nothing of a hit is kept once it was handed on. A
/// restart forgets them, and nodes hear the stream end.
#[derive(Debug)]
pub struct Relayed {
    me: PeerId,
    next: u64,
    open: BTreeMap<u64, Relay>,
    by_query: HashMap<QueryId, u64>,
    by_peer: BTreeSet<(PeerId, u64)>,
    deadlines: BTreeSet<(Mono, u64)>,
}

impl Relayed {
    /// None open, at the indexer `me`.
    #[must_use]
    pub fn new(me: PeerId) -> Self {
        Self {
            me,
            next: 0,
            open: BTreeMap::new(),
            by_query: HashMap::new(),
            by_peer: BTreeSet::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// Takes a search of a node. `held` is what [`Wanted::held`] found here; `roll` are those who should answer, which
    /// matters only where the question goes to all; `has_dht` when the caller looks in the DHT and will call
    /// [`Relayed::found`].
    ///
    /// # Errors
    /// When the query id is none, or too many searches are open, of this peer or in all.
    #[expect(clippy::too_many_arguments, reason = "each is one plain fact of the question")]
    pub fn open(
        &mut self,
        from: PeerId,
        request: &SearchPeerRequest,
        wanted: &Wanted,
        held: (Vec<Arc<Verified<PeerRecord>>>, bool),
        roll: Arc<[PeerId]>,
        has_dht: bool,
        now: Mono,
        rng: &mut impl Rng,
    ) -> Result<Opened, Refused> {
        if let Err(error) = request.query_id.parse::<QueryId>() {
            return Err(Refused::new(RefusalCode::Invalid, error.to_string()));
        }
        let of_peer = self.by_peer.range((from, 0)..=(from, u64::MAX)).count();
        if of_peer >= OPEN_PER_PEER_MAX || self.open.len() >= OPEN_MAX {
            let busy = Refused::new(RefusalCode::Busy, "too many searches are open");
            return Err(busy.retry_after(RELAY_IDLE.as_secs()));
        }
        let (id, query) = (self.next, QueryId::random(rng));
        self.next += 1;
        let relay = Relay {
            asker: from,
            asker_query: request.query_id.clone(),
            query,
            expected: if wanted.is_gossiped() { roll } else { Arc::new([]) },
            answering: BTreeMap::new(),
            unexpected: Vec::new(),
            is_dht_open: has_dht,
            hits: 0,
            is_truncated: held.1,
            started: now,
            deadline: now + RELAY_IDLE,
        };
        self.by_query.insert(query, id);
        self.by_peer.insert((from, id));
        self.deadlines.insert((relay.deadline, id));
        self.open.insert(id, relay);
        let hits = held.0.iter().map(|record| hit(record)).collect();
        let forward = self.forward(id, hits, HITS_MAX, now, |_| ()).expect("it was opened just now");
        let gossip = (wanted.is_gossiped() && !forward.is_over).then(|| wanted.query(query, self.me));
        Ok(Opened { id: RelayId(id), gossip, forward })
    }

    /// Takes an answer of another indexer, which said in its hello that it is one if `is_indexer`.
    ///
    /// Nothing comes of an answer to no open query, from a node, or after the last word of its sender. Hits are handed on
    /// as they came: the node that asked verifies them and blames whoever signed.
    pub fn answered(
        &mut self,
        from: &PeerId,
        is_indexer: bool,
        result: SearchPeerResult,
        now: Mono,
    ) -> Option<Forward> {
        let id = *self.by_query.get(&result.query_id.parse().ok()?)?;
        let relay = self.open.get_mut(&id).filter(|relay| is_indexer && now < relay.deadline)?;
        let room = HITS_MAX - relay.answering(from).filter(|answering| !answering.is_over)?.hits;
        let SearchPeerResult { mut records, last, truncated, .. } = result;
        records.retain(|hit| hit.record.is_some());
        let taken = records.len().min(room);
        let note = |relay: &mut Relay| {
            relay.is_truncated |= truncated.unwrap_or(false);
            if let Some(answering) = relay.answering(from) {
                answering.hits += taken;
                answering.is_over = last;
            }
        };
        self.forward(id, records, room, now, note)
    }

    /// Takes what the caller found in the DHT; nothing more comes from there.
    pub fn found(&mut self, id: RelayId, records: &[Arc<Verified<PeerRecord>>], now: Mono) -> Option<Forward> {
        let hits = records.iter().map(|record| hit(record)).collect();
        self.forward(id.0, hits, HITS_MAX, now, |relay| relay.is_dht_open = false)
    }

    /// Closes a search whose stream ended; nothing more is sent for it.
    pub fn close(&mut self, id: RelayId) {
        self.remove(id.0);
    }

    /// Closes every search of a peer that is gone.
    pub fn asker_gone(&mut self, peer: &PeerId) {
        let ids: Vec<_> = self.by_peer.range((*peer, 0)..=(*peer, u64::MAX)).map(|(_, id)| *id).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// Ends searches whose time is over, with their last word; at most `at_most`.
    pub fn expire(&mut self, now: Mono, at_most: usize) -> Vec<Forward> {
        let mut over = Vec::new();
        while over.len() < at_most {
            let Some((_, id)) = self.deadlines.first().copied().filter(|(due, _)| *due <= now) else { break };
            over.extend(self.remove(id).map(|relay| Forward {
                id: RelayId(id),
                to: relay.asker,
                values: vec![relay.last_word()],
                is_over: true,
            }));
        }
        over
    }

    /// When the next search ends if nothing comes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// Searches open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// None is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Hands hits on, and the last word with them when everybody answered.
    fn forward(
        &mut self,
        id: u64,
        mut hits: Vec<SearchHit>,
        at_most: usize,
        now: Mono,
        note: impl FnOnce(&mut Relay),
    ) -> Option<Forward> {
        let relay = self.open.get_mut(&id)?;
        let answered_before = relay.answered();
        note(relay);
        let has_hits = relay.bound(&mut hits, at_most);
        let (to, mut values) = (relay.asker, split(&relay.asker_query, hits));
        let is_over = relay.is_complete();
        if is_over {
            values.push(relay.last_word());
            self.remove(id);
        } else if has_hits || relay.answered() > answered_before {
            let before = relay.restart(now);
            let deadline = relay.deadline;
            self.deadlines.remove(&(before, id));
            self.deadlines.insert((deadline, id));
        }
        Some(Forward { id: RelayId(id), to, values, is_over })
    }

    fn remove(&mut self, id: u64) -> Option<Relay> {
        let relay = self.open.remove(&id)?;
        self.by_query.remove(&relay.query);
        self.by_peer.remove(&(relay.asker, id));
        self.deadlines.remove(&(relay.deadline, id));
        Some(relay)
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

/// How many queries an indexer answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswererSettings {
    /// Queries of one emitter in a minute, before the profile's factor: 50 a second, what 150 busy nodes ask for.
    pub queries_per_emitter: u32,
    /// Emitters whose queries are counted; beyond them a new one is answered when another one was silent for a minute.
    pub emitters_max: usize,
}

impl Default for AnswererSettings {
    fn default() -> Self {
        Self { queries_per_emitter: 3000, emitters_max: KNOWN_MAX }
    }
}

/// Why a query that came by gossip is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Ignored {
    /// It is our own.
    #[error("got our own query")]
    Own,
    /// It asks for answers to another than its author.
    #[error("got a query that names another emitter than its author")]
    NotTheAuthor,
    /// Its query id is none.
    #[error(transparent)]
    QueryId(#[from] QueryIdError),
    /// It asks for nothing that can be answered.
    #[error(transparent)]
    Wanted(#[from] WantedError),
    /// It was answered before.
    #[error("got a query again")]
    Repeated,
    /// Its emitter asks too much.
    #[error("got too many queries of one emitter in a minute")]
    TooMany,
}

impl Ignored {
    /// Its author made it so: gossip may reject it. Otherwise it is ignored and nobody is blamed.
    #[must_use]
    pub fn is_authors_fault(&self) -> bool {
        matches!(self, Self::NotTheAuthor | Self::QueryId(_) | Self::Wanted(_))
    }
}

/// A query to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Where the answer goes.
    pub emitter: PeerId,
    /// As the emitter wrote it.
    pub query_id: String,
    /// What is looked for.
    pub wanted: Wanted,
}

impl Question {
    /// The answer from the sessions, each value within the limit, the last one marked; an empty one when nothing matches.
    #[must_use]
    pub fn answers(&self, registry: &Registry, now: Now) -> Vec<SearchPeerResult> {
        let (held, is_truncated) = self.wanted.held(registry, now, HITS_MAX);
        let mut values = split(&self.query_id, held.iter().map(|record| hit(record)).collect());
        if values.is_empty() {
            values.push(empty(&self.query_id));
        }
        if let Some(last) = values.last_mut() {
            last.last = true;
            last.truncated = is_truncated.then_some(true);
        }
        values
    }
}

/// The door for queries that come by gossip: each is answered once, and to its author alone.
#[derive(Debug)]
pub struct Answerer {
    me: PeerId,
    limit: u32,
    emitters_max: usize,
    seen: HashSet<(PeerId, QueryId)>,
    seen_order: VecDeque<(Mono, (PeerId, QueryId))>,
    emitters: HashMap<PeerId, (Window, Mono)>,
    emitters_by_age: BTreeSet<(Mono, PeerId)>,
}

impl Answerer {
    /// Nothing seen, at the indexer `me`; the limit times the profile's `factor`.
    #[must_use]
    pub fn new(me: PeerId, settings: &AnswererSettings, factor: u32) -> Self {
        Self {
            me,
            limit: settings.queries_per_emitter.saturating_mul(factor).min(u16::MAX.into()),
            emitters_max: settings.emitters_max.max(1),
            seen: HashSet::new(),
            seen_order: VecDeque::new(),
            emitters: HashMap::new(),
            emitters_by_age: BTreeSet::new(),
        }
    }

    /// Takes a query from gossip, whose author's signature gossip verified.
    ///
    /// # Errors
    /// When it is not to be answered.
    pub fn take(&mut self, author: PeerId, query: &SearchQuery, now: Mono) -> Result<Question, Ignored> {
        if author == self.me {
            return Err(Ignored::Own);
        }
        if query.emitter_id != author {
            return Err(Ignored::NotTheAuthor);
        }
        let id: QueryId = query.query_id.parse()?;
        let wanted = Wanted::of_query(query)?;
        self.forget(now);
        if self.seen.contains(&(author, id)) {
            return Err(Ignored::Repeated);
        }
        if !self.count(author, now) {
            return Err(Ignored::TooMany);
        }
        self.seen.insert((author, id));
        self.seen_order.push_back((now, (author, id)));
        Ok(Question { emitter: author, query_id: query.query_id.clone(), wanted })
    }

    fn forget(&mut self, now: Mono) {
        while let Some((_, query)) = self
            .seen_order
            .front()
            .copied()
            .filter(|(at, _)| now >= *at + SEEN_FOR || self.seen_order.len() >= SEEN_MAX)
        {
            self.seen_order.pop_front();
            self.seen.remove(&query);
        }
    }

    /// Counts a query of an emitter; whether it is within the limit.
    fn count(&mut self, emitter: PeerId, now: Mono) -> bool {
        if !self.emitters.contains_key(&emitter) && self.emitters.len() >= self.emitters_max {
            let idle = |(seen, _): &(Mono, PeerId)| now.since(*seen) >= crate::behaviour::WINDOW;
            let Some((_, oldest)) = self.emitters_by_age.first().copied().filter(idle) else { return false };
            self.emitters_by_age.pop_first();
            self.emitters.remove(&oldest);
        }
        let (window, seen) = self.emitters.entry(emitter).or_default();
        self.emitters_by_age.remove(&(*seen, emitter));
        self.emitters_by_age.insert((now, emitter));
        *seen = now;
        if window.count(now) >= self.limit {
            return false;
        }
        window.add();
        true
    }
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
