//! What the DHT may hold: its keys, the values under them, and what a put does to what is held.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    identity::{Did, Keys},
    json::{self, JsonError},
    names,
    record::{IndexerRecord, LIFE_MAX, PeerRecord, binding_holds, check_name, check_signer},
    signed::{SignedError, SignedObject, Verified, check_expiry},
    time::{Mono, text},
    wire::RefusalCode,
};

/// Bytes of the longest key: `/name/` and 64 characters of at most 4 bytes each.
pub const KEY_BYTES_MAX: usize = "/name/".len() + names::CHARS_MAX * 4;

/// Claims of one name. More bearers of one name than that find each other by a part of it.
pub const CLAIMS_MAX: usize = 16;

/// Values of one look-up that are judged; as many peers as Kademlia asks.
pub const VALUES_MAX: usize = 20;

/// What indexers are found under.
pub const INDEXERS: &str = "/opencloud/indexers";

/// Life of an indexer's provider record.
pub const PROVIDER_LIFE: Duration = Duration::from_secs(180);

/// The value of `/pid/<peer id>`: which DID a peer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidValue {
    /// The peer's DID.
    pub did: String,
    /// The peer.
    #[serde(with = "crate::wire::text")]
    pub peer_id: PeerId,
    /// The higher one of two valid values wins.
    pub seq: u64,
    /// Not valid from here on.
    pub expiry_date: Timestamp,
    /// Base64 of the raw 32 bytes.
    pub pub_key: String,
}

impl SignedObject for PidValue {
    const DOMAIN: &'static str = "muster-pid:1:";
    /// Twice the largest honest one.
    const BYTES_MAX: usize = 1024;

    fn is_by(&self, keys: &Keys) -> bool {
        self.pub_key == keys.pub_key()
    }

    fn check(&self, now: Timestamp) -> Result<(), SignedError> {
        check_signer(&self.pub_key, &self.peer_id, Some(&self.did))?;
        check_expiry(self.expiry_date, now, LIFE_MAX)
    }
}

/// A claim in `/name/<name>`: that a peer bears the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameClaim {
    /// The name as its bearer writes it.
    pub name: String,
    /// The bearer's DID.
    pub did: String,
    /// The bearer.
    #[serde(with = "crate::wire::text")]
    pub peer_id: PeerId,
    /// The higher one of two valid claims of one peer wins.
    pub seq: u64,
    /// Not valid from here on.
    pub expiry_date: Timestamp,
    /// Base64 of the raw 32 bytes.
    pub pub_key: String,
}

impl SignedObject for NameClaim {
    const DOMAIN: &'static str = "muster-name:1:";
    /// The largest honest one, its name written in escapes, and some room; 16 of them fit in one packet of Kademlia.
    const BYTES_MAX: usize = 2 * 1024;

    fn is_by(&self, keys: &Keys) -> bool {
        self.pub_key == keys.pub_key()
    }

    fn check(&self, now: Timestamp) -> Result<(), SignedError> {
        check_signer(&self.pub_key, &self.peer_id, Some(&self.did))?;
        check_name(&self.name)?;
        check_expiry(self.expiry_date, now, LIFE_MAX)
    }
}

/// Why a key or a value is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DhtError {
    /// The key is none of ours, or not in its one form.
    #[error("got a key that is none of /node/<did>, /pid/<peer id>, /name/<name> and /indexer/<peer id>")]
    OtherKey,
    /// The value is signed, but for another key.
    #[error("got a value whose {field} is not the key's")]
    OtherValue {
        /// What should have been the key's.
        field: &'static str,
    },
    /// More claims than one name holds.
    #[error("got {got} claims, expected 1 to {CLAIMS_MAX}")]
    OtherCount {
        /// Claims in the value.
        got: usize,
    },
    /// The value, or a claim in it, is not valid.
    #[error(transparent)]
    Signed(#[from] SignedError),
}

impl DhtError {
    /// The code with which it is refused.
    #[must_use]
    pub fn refusal(&self) -> RefusalCode {
        match self {
            Self::OtherKey | Self::OtherValue { .. } => RefusalCode::Invalid,
            Self::OtherCount { .. } => RefusalCode::Limit,
            Self::Signed(error) => error.refusal(),
        }
    }

    /// It is forged. A strike for whoever puts it: everybody verifies before it forwards, and only time makes a good
    /// value bad, which is none.
    #[must_use]
    pub fn is_strike(&self) -> bool {
        matches!(self, Self::Signed(error) if error.is_strike())
    }
}

/// A key under which values are put. There is one text for each, so that nobody hides behind another spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// `/node/<did>`: a `PeerRecord`.
    Node(Did),
    /// `/pid/<peer id>`: a [`PidValue`].
    Pid(PeerId),
    /// `/name/<name>`: an array of [`NameClaim`]s. Made by [`Key::of_name`], which brings the name into its one form.
    Name(NormalName),
    /// `/indexer/<peer id>`: an `IndexerRecord`.
    Indexer(PeerId),
}

/// A name in the one form in which it is a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NormalName(String);

impl NormalName {
    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Key {
    /// The key of a name; nothing when it is no name, also where only its one form is too long for one.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let normal = names::normal(name);
        names::check(&normal).is_ok().then_some(Self::Name(NormalName(normal)))
    }

    /// Reads a key as it comes from the network.
    ///
    /// # Errors
    /// When it is none of ours or not in the one form that [`Key::to_bytes`] gives.
    pub fn parse(bytes: &[u8]) -> Result<Self, DhtError> {
        let text = str::from_utf8(bytes).ok().filter(|text| text.len() <= KEY_BYTES_MAX).ok_or(DhtError::OtherKey)?;
        let (_, rest) = text.split_once('/').filter(|(before, _)| before.is_empty()).ok_or(DhtError::OtherKey)?;
        let key = match rest.split_once('/') {
            Some(("node", did)) => did.parse().ok().map(Self::Node),
            Some(("pid", peer)) => peer.parse().ok().map(Self::Pid),
            Some(("name", name)) => Self::of_name(name),
            Some(("indexer", peer)) => peer.parse().ok().map(Self::Indexer),
            _ => None,
        };
        key.filter(|key| key.to_string() == text).ok_or(DhtError::OtherKey)
    }

    /// The key as it goes into the network.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// The most bytes that a value under this key may have.
    #[must_use]
    pub fn value_bytes_max(&self) -> usize {
        match self {
            Self::Node(_) => PeerRecord::BYTES_MAX,
            Self::Pid(_) => PidValue::BYTES_MAX,
            Self::Name(_) => NAME_VALUE_BYTES_MAX,
            Self::Indexer(_) => IndexerRecord::BYTES_MAX,
        }
    }
}

/// The claims, the commas between them and the brackets.
const NAME_VALUE_BYTES_MAX: usize = CLAIMS_MAX * (NameClaim::BYTES_MAX + 1) + 1;

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(did) => write!(f, "/node/{did}"),
            Self::Pid(peer) => write!(f, "/pid/{peer}"),
            Self::Name(name) => write!(f, "/name/{}", name.0),
            Self::Indexer(peer) => write!(f, "/indexer/{peer}"),
        }
    }
}

/// The key of the indexers' provider records: the multihash (sha2-256, 32 bytes) of [`INDEXERS`].
#[must_use]
pub fn indexers_key() -> Vec<u8> {
    /// Code of sha2-256, and its length.
    const SHA2_256: [u8; 2] = [0x12, 0x20];
    [&SHA2_256[..], &Sha256::digest(INDEXERS)].concat()
}

/// A value that may be stored and forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Valid {
    /// Of `/node/<did>`.
    Node(Verified<PeerRecord>),
    /// Of `/pid/<peer id>`.
    Pid(Verified<PidValue>),
    /// Of `/name/<name>`: one claim per peer, 1 to 16, ordered by peer id.
    Name(Vec<Verified<NameClaim>>),
    /// Of `/indexer/<peer id>`.
    Indexer(Verified<IndexerRecord>),
}

impl Valid {
    /// The value as it goes into the network.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Node(record) => record.text().as_bytes().to_vec(),
            Self::Pid(value) => value.text().as_bytes().to_vec(),
            Self::Indexer(record) => record.text().as_bytes().to_vec(),
            Self::Name(claims) => {
                let texts: Vec<&str> = claims.iter().map(|claim| &**claim.text()).collect();
                format!("[{}]", texts.join(",")).into_bytes()
            }
        }
    }

    /// When nothing of it is valid any more.
    #[must_use]
    pub fn expiry_date(&self) -> Timestamp {
        match self {
            Self::Node(record) => record.expiry_date,
            Self::Pid(value) => value.expiry_date,
            Self::Indexer(record) => record.expiry_date,
            Self::Name(claims) => claims.iter().map(|claim| claim.expiry_date).max().unwrap_or(Timestamp::MIN),
        }
    }

    /// Who signed it; of a name, who signed the claims in it.
    #[must_use]
    pub fn owners(&self) -> Vec<PeerId> {
        match self {
            Self::Node(record) => vec![record.peer_id],
            Self::Pid(value) => vec![value.peer_id],
            Self::Indexer(record) => vec![record.peer_id],
            Self::Name(claims) => claims.iter().map(|claim| claim.peer_id).collect(),
        }
    }

    /// What is left of it without that of these owners, if anything is.
    #[must_use]
    pub fn without(self, is_out: impl Fn(&PeerId) -> bool) -> Option<Self> {
        let Self::Name(mut claims) = self else {
            return if self.owners().iter().any(is_out) { None } else { Some(self) };
        };
        claims.retain(|claim| !is_out(&claim.peer_id));
        if claims.is_empty() { None } else { Some(Self::Name(claims)) }
    }

    /// The record of `/node/<did>`, where it is one.
    #[must_use]
    pub fn as_node(&self) -> Option<&Verified<PeerRecord>> {
        if let Self::Node(record) = self { Some(record) } else { None }
    }

    /// The value of `/pid/<peer id>`, where it is one.
    #[must_use]
    pub fn as_pid(&self) -> Option<&Verified<PidValue>> {
        if let Self::Pid(value) = self { Some(value) } else { None }
    }

    /// The claims of `/name/<name>`, where it is some.
    #[must_use]
    pub fn as_name(&self) -> Option<&[Verified<NameClaim>]> {
        if let Self::Name(claims) = self { Some(claims) } else { None }
    }

    /// The record of `/indexer/<peer id>`, where it is one.
    #[must_use]
    pub fn as_indexer(&self) -> Option<&Verified<IndexerRecord>> {
        if let Self::Indexer(record) = self { Some(record) } else { None }
    }

    fn seq(&self) -> u64 {
        match self {
            Self::Node(record) => record.seq,
            Self::Pid(value) => value.seq,
            Self::Indexer(record) => record.seq,
            Self::Name(claims) => claims.iter().map(|claim| claim.seq).max().unwrap_or(0),
        }
    }
}

/// Judges a value before it is stored or forwarded, on a put as on a get.
///
/// What is `held` already with the same text is not verified again; only its time is looked at. Of a name's claims those
/// that are over are dropped; one that is forged spoils the whole.
///
/// # Errors
/// When the value is too long, not valid at `now`, signed for another key, or nothing of it is alive.
pub fn validate(key: &Key, value: &[u8], held: Option<&Valid>, now: Timestamp) -> Result<Valid, DhtError> {
    let checked = json::check(value, key.value_bytes_max()).map_err(SignedError::from)?;
    let text = checked.text();
    match key {
        Key::Node(did) => {
            let record = open(text, held.and_then(Valid::as_node), now)?;
            of_key("did", record.did.parse() == Ok(*did))?;
            Ok(Valid::Node(record))
        }
        Key::Pid(peer) => {
            let value = open(text, held.and_then(Valid::as_pid), now)?;
            of_key("peer id", value.peer_id == *peer)?;
            Ok(Valid::Pid(value))
        }
        Key::Indexer(peer) => {
            let record = open(text, held.and_then(Valid::as_indexer), now)?;
            of_key("peer id", record.peer_id == *peer)?;
            Ok(Valid::Indexer(record))
        }
        Key::Name(name) => {
            let known = held.and_then(Valid::as_name).unwrap_or_default();
            open_claims(name, checked, known, now).map(Valid::Name)
        }
    }
}

fn of_key(field: &'static str, is_the_keys: bool) -> Result<(), DhtError> {
    if is_the_keys { Ok(()) } else { Err(DhtError::OtherValue { field }) }
}

/// Verifies what changed, not what came again.
fn open<'a, T: SignedObject + 'a>(
    text: &str,
    known: impl IntoIterator<Item = &'a Verified<T>>,
    now: Timestamp,
) -> Result<Verified<T>, SignedError> {
    match known.into_iter().find(|known| &**known.text() == text) {
        Some(known) => known.check(now).map(|()| known.clone()),
        None => Verified::open(text, now),
    }
}

fn open_claims(
    name: &NormalName,
    checked: json::Checked<'_>,
    known: &[Verified<NameClaim>],
    now: Timestamp,
) -> Result<Vec<Verified<NameClaim>>, DhtError> {
    let texts: Vec<&RawValue> =
        serde_json::from_str(checked.text()).map_err(|error| SignedError::from(JsonError::shape(&error)))?;
    if texts.is_empty() || texts.len() > CLAIMS_MAX {
        return Err(DhtError::OtherCount { got: texts.len() });
    }
    let mut claims = Vec::with_capacity(texts.len());
    let mut over = None;
    for text in texts {
        match open(text.get(), known, now) {
            Ok(claim) => {
                of_key("name", names::normal(&claim.name) == name.0)?;
                claims.push(claim);
            }
            Err(error) if error.refusal() == RefusalCode::Clock => over = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match over {
        Some(error) if claims.is_empty() => Err(error.into()),
        _ => Ok(newest_of_each(claims)),
    }
}

/// One claim per peer, its newest; the first one given of those with the same `seq`. Ordered by peer id.
fn newest_of_each(claims: impl IntoIterator<Item = Verified<NameClaim>>) -> Vec<Verified<NameClaim>> {
    let mut newest: BTreeMap<PeerId, Verified<NameClaim>> = BTreeMap::new();
    for claim in claims {
        let is_newer = newest.get(&claim.peer_id).is_none_or(|held| claim.seq > held.seq);
        if is_newer {
            newest.insert(claim.peer_id, claim);
        }
    }
    newest.into_values().collect()
}

/// The union of claims, those that are alive at `now`. Over 16, those whose peers are nearest to the key stay.
fn merge(key: &Key, claims: impl IntoIterator<Item = Verified<NameClaim>>, now: Timestamp) -> Vec<Verified<NameClaim>> {
    let mut merged = newest_of_each(claims.into_iter().filter(|claim| claim.check(now).is_ok()));
    if merged.len() > CLAIMS_MAX {
        let place = Sha256::digest(key.to_bytes());
        merged.sort_by_cached_key(|claim| distance(&place, &claim.peer_id));
        merged.truncate(CLAIMS_MAX);
        merged.sort_by_key(|claim| claim.peer_id);
    }
    merged
}

/// The XOR of two places as Kademlia has it: both are the SHA-256 of what they stand for.
fn distance(place: &[u8], peer: &PeerId) -> Vec<u8> {
    let other = Sha256::digest(peer.to_bytes());
    place.iter().zip(other).map(|(a, b)| a ^ b).collect()
}

/// What came out of several answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The freshest valid one, or the claims of all valid ones.
    pub value: Option<Valid>,
    /// Answers that were not valid, to be counted.
    pub dropped: usize,
}

/// Chooses among the answers to a look-up; at most 20 of them are looked at.
///
/// `bound_key` is the key to which the looked-up DID is known to be bound, as `pub_key` writes it.
pub fn choose<'a>(
    key: &Key,
    values: impl IntoIterator<Item = &'a [u8]>,
    bound_key: Option<&str>,
    now: Timestamp,
) -> Choice {
    let mut choice = Choice { value: None, dropped: 0 };
    for value in values.into_iter().take(VALUES_MAX) {
        match validate(key, value, choice.value.as_ref(), now) {
            Ok(valid) if is_bound(&valid, bound_key) => choice.value = Some(better(key, choice.value, valid, now)),
            Ok(_) | Err(_) => choice.dropped += 1,
        }
    }
    choice
}

fn is_bound(valid: &Valid, bound_key: Option<&str>) -> bool {
    match valid {
        Valid::Node(record) => binding_holds(bound_key, record),
        Valid::Pid(_) | Valid::Name(_) | Valid::Indexer(_) => true,
    }
}

fn better(key: &Key, best: Option<Valid>, other: Valid, now: Timestamp) -> Valid {
    match (best, other) {
        (None, other) => other,
        (Some(Valid::Name(best)), Valid::Name(other)) => Valid::Name(merge(key, best.into_iter().chain(other), now)),
        (Some(best), other) => {
            if other.seq() > best.seq() {
                other
            } else {
                best
            }
        }
    }
}

/// What a put does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// The incoming value takes the place.
    Replace(Valid),
    /// The union takes the place.
    Merge {
        /// What is to be held.
        value: Valid,
        /// Whose claims are new in it: their quotas are charged.
        changed: Vec<PeerId>,
    },
    /// It brings nothing new.
    Keep,
    /// The DID is bound to another key: an identity violation of its signer.
    OtherKey,
}

/// Judges a valid value for `key` against the one held, which counts only while it is alive.
///
/// Both come from [`validate`] with the same key.
#[must_use]
pub fn admit(key: &Key, held: Option<&Valid>, incoming: Valid, now: Timestamp) -> Put {
    match (held, incoming) {
        (Some(Valid::Name(held)), Valid::Name(incoming)) => admit_claims(key, held, incoming, now),
        (Some(held), incoming) if is_alive(held, now) => match (held, &incoming) {
            (Valid::Node(held), Valid::Node(record)) if !binding_holds(Some(&held.pub_key), record) => Put::OtherKey,
            _ if incoming.seq() > held.seq() => Put::Replace(incoming),
            _ => Put::Keep,
        },
        (_, incoming) => Put::Replace(incoming),
    }
}

/// A put counts once so many servers were read to hold it, or all of them where there are fewer.
pub const READ_BACK_MIN: usize = 2;

/// Whether `theirs`, read under the same key, says what `ours` says, or something newer of the same owner.
#[must_use]
pub fn holds(key: &Key, theirs: &Valid, ours: &Valid, now: Timestamp) -> bool {
    admit(key, Some(theirs), ours.clone(), now) == Put::Keep
}

fn is_alive(held: &Valid, now: Timestamp) -> bool {
    check_expiry(held.expiry_date(), now, LIFE_MAX).is_ok()
}

fn admit_claims(key: &Key, held: &[Verified<NameClaim>], incoming: Vec<Verified<NameClaim>>, now: Timestamp) -> Put {
    let merged = merge(key, held.iter().cloned().chain(incoming), now);
    let changed: Vec<PeerId> = merged.iter().filter(|claim| !held.contains(claim)).map(|claim| claim.peer_id).collect();
    if changed.is_empty() { Put::Keep } else { Put::Merge { value: Valid::Name(merged), changed } }
}

/// How much one owner may have in the DHT's part that is held here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Values of one owner; an honest one has 4.
    pub records_per_owner: usize,
    /// Changes by one owner at once, refilled evenly over `writes_within`; an honest one has 4 a minute.
    pub writes_per_owner: u32,
    /// The time in which `writes_per_owner` are given again.
    #[serde(with = "text")]
    pub writes_within: Duration,
    /// Owners that are remembered. When all of them have live values, new owners are refused.
    pub owners_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { records_per_owner: 32, writes_per_owner: 60, writes_within: Duration::from_secs(60), owners_max: 10_000 }
    }
}

/// Why a change that is otherwise valid has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QuotaError {
    /// The owner has too many values.
    #[error("got a value of an owner that has {max} already")]
    Records {
        /// Allowed.
        max: usize,
    },
    /// The owner changes its values too often.
    #[error("got more than {max} changes by one owner in {within:?}")]
    Writes {
        /// Allowed.
        max: u32,
        /// In so much time.
        within: Duration,
    },
    /// Too many owners have values here.
    #[error("got a value of a new owner where {max} have values already")]
    Owners {
        /// Allowed.
        max: usize,
    },
}

/// Counts values and changes per owner.
///
/// It is charged for what [`admit`] says changes something, so nobody's quota is used up by repeating what it signed.
#[derive(Clone, Debug)]
pub struct Quota {
    settings: Settings,
    owners: BTreeMap<PeerId, Owner>,
    swept_at: Mono,
}

#[derive(Clone, Debug)]
struct Owner {
    /// Digest of the key, and when the value under it is over.
    records: Vec<(u64, Mono)>,
    /// Writes left, in time: each costs its share of `writes_within`.
    spent: Duration,
    spent_at: Mono,
}

impl Owner {
    fn spent(&self, now: Mono) -> Duration {
        self.spent.saturating_sub(now.since(self.spent_at))
    }

    fn drop_over(&mut self, now: Mono) {
        self.records.retain(|(_, over_at)| *over_at > now);
    }
}

impl Quota {
    /// How often it looks for owners to forget while it is full.
    const SWEEP_EVERY: Duration = Duration::from_secs(1);

    /// A quota that nobody has used.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, owners: BTreeMap::new(), swept_at: Mono::ZERO }
    }

    /// Charges `owner` for a change of the value under `key`, which lives for `life` from now.
    ///
    /// # Errors
    /// When the owner, or the table of owners, is full; nothing is charged then.
    pub fn charge(&mut self, owner: PeerId, key: &Key, life: Duration, now: Mono) -> Result<(), QuotaError> {
        let Settings { records_per_owner, writes_per_owner, writes_within, owners_max } = self.settings;
        if !self.owners.contains_key(&owner) && !self.has_room(now) {
            return Err(QuotaError::Owners { max: owners_max });
        }
        let fresh = Owner { records: Vec::new(), spent: Duration::ZERO, spent_at: now };
        let account = self.owners.entry(owner).or_insert(fresh);
        account.drop_over(now);
        let digest = digest(key);
        let is_new = !account.records.iter().any(|(held, _)| *held == digest);
        if is_new && account.records.len() >= records_per_owner {
            return Err(QuotaError::Records { max: records_per_owner });
        }
        let spent = account.spent(now) + writes_within / writes_per_owner.max(1);
        if spent > writes_within || writes_per_owner == 0 {
            return Err(QuotaError::Writes { max: writes_per_owner, within: writes_within });
        }
        account.records.retain(|(held, _)| *held != digest);
        account.records.push((digest, now + life));
        (account.spent, account.spent_at) = (spent, now);
        Ok(())
    }

    fn has_room(&mut self, now: Mono) -> bool {
        if self.owners.len() >= self.settings.owners_max && now.since(self.swept_at) >= Self::SWEEP_EVERY {
            self.sweep(now);
        }
        self.owners.len() < self.settings.owners_max
    }

    /// Forgets owners that have no live value and all their writes again.
    pub fn sweep(&mut self, now: Mono) {
        self.swept_at = now;
        self.owners.retain(|_, account| {
            account.drop_over(now);
            !account.records.is_empty() || account.spent(now) > Duration::ZERO
        });
    }

    /// Owners that are remembered.
    #[must_use]
    pub fn owners(&self) -> usize {
        self.owners.len()
    }
}

/// Enough of the key's hash to tell the few keys of one owner apart.
fn digest(key: &Key) -> u64 {
    let hash = Sha256::digest(key.to_bytes());
    hash.iter().take(8).fold(0, |digest, byte| digest << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::{
        identity::Keys,
        record::{INDEXER_RECORD_LIFE, PEER_RECORD_LIFE},
    };

    const UUID: &str = "c0a80121-7ac0-4e1c-9b1f-2f3f8a0e1d55";

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn later(secs: u64) -> Timestamp {
        now() + Duration::from_secs(secs)
    }

    fn keys(seed: u8) -> Keys {
        Keys::from_seed([seed; 32])
    }

    fn record(seed: u8, seq: u64) -> PeerRecord {
        PeerRecord {
            name: "paris".to_owned(),
            did: keys(seed).did().to_string(),
            pub_key: keys(seed).pub_key().to_owned(),
            peer_id: keys(seed).peer_id(),
            api_url: String::new(),
            stream_address: String::new(),
            addrs: Vec::new(),
            nats_address: String::new(),
            wallet_address: String::new(),
            capabilities: Vec::new(),
            born_at: now(),
            expiry_date: now() + PEER_RECORD_LIFE,
            seq,
        }
    }

    fn indexer(seed: u8, seq: u64) -> IndexerRecord {
        IndexerRecord {
            peer_id: keys(seed).peer_id(),
            addrs: Vec::new(),
            region: String::new(),
            capacity: 500,
            fill_rate: 0.0,
            peer_count: 0,
            salt: String::new(),
            peers_digest: Vec::new(),
            born_at: now(),
            expiry_date: now() + INDEXER_RECORD_LIFE,
            seq,
            pub_key: keys(seed).pub_key().to_owned(),
        }
    }

    fn pid(seed: u8, seq: u64) -> PidValue {
        let keys = keys(seed);
        let (did, pub_key) = (keys.did().to_string(), keys.pub_key().to_owned());
        PidValue { did, peer_id: keys.peer_id(), seq, expiry_date: later(120), pub_key }
    }

    fn claim_until(seed: u8, seq: u64, expiry_date: Timestamp) -> Verified<NameClaim> {
        let keys = keys(seed);
        let (did, pub_key) = (keys.did().to_string(), keys.pub_key().to_owned());
        let claim = NameClaim { name: "Paris".to_owned(), did, peer_id: keys.peer_id(), seq, expiry_date, pub_key };
        Verified::sign(&claim, &keys)
    }

    fn claim(seed: u8, seq: u64) -> Verified<NameClaim> {
        claim_until(seed, seq, later(120))
    }

    fn array(claims: &[Verified<NameClaim>]) -> Vec<u8> {
        Valid::Name(claims.to_vec()).to_bytes()
    }

    fn name_key() -> Key {
        Key::of_name("PARIS").unwrap()
    }

    fn node_key(seed: u8) -> Key {
        Key::Node(keys(seed).did())
    }

    fn valid(key: &Key, value: &[u8]) -> Valid {
        validate(key, value, None, now()).unwrap()
    }

    fn signed<T: SignedObject>(value: &T, seed: u8) -> Vec<u8> {
        Verified::sign(value, &keys(seed)).text().as_bytes().to_vec()
    }

    #[test]
    fn without_an_owner_a_name_keeps_the_others_claims_and_anything_else_is_gone() {
        let (one, other) = (keys(1).peer_id(), keys(2).peer_id());
        let mut both = vec![claim(1, 1), claim(2, 1)];
        both.sort_by_key(|claim| claim.peer_id);
        let left = Valid::Name(both.clone()).without(|peer| *peer == one).unwrap();
        assert_eq!(left.owners(), [other]);
        assert_eq!(Valid::Name(both).without(|_| true), None);
        let node = valid(&node_key(1), &signed(&record(1, 7), 1));
        assert_eq!(node.clone().without(|peer| *peer == other), Some(node.clone()));
        assert_eq!(node.without(|peer| *peer == one), None);
    }

    #[test]
    fn a_put_is_held_by_whoever_has_it_or_something_newer() {
        let node = |seq| valid(&node_key(1), &signed(&record(1, seq), 1));
        let is_held = |theirs, ours| holds(&node_key(1), &node(theirs), &node(ours), now());
        assert_eq!([is_held(6, 7), is_held(7, 7), is_held(8, 7)], [false, true, true]);
        // What is over is held by nobody.
        assert!(!holds(&node_key(1), &node(7), &node(7), later(600)));
    }

    #[test]
    fn a_claim_is_held_in_whatever_company() {
        let names = |claims: &[Verified<NameClaim>]| valid(&name_key(), &array(claims));
        let ours = names(&[claim(1, 7)]);
        let is_held = |theirs: &[Verified<NameClaim>]| holds(&name_key(), &names(theirs), &ours, now());
        assert!(is_held(&[claim(1, 7)]) && is_held(&[claim(1, 8), claim(2, 1)]));
        assert!(!is_held(&[claim(1, 6)]) && !is_held(&[claim(2, 9)]));
    }

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let uuid = Key::Node(UUID.parse().unwrap());
        for key in [node_key(1), uuid, Key::Pid(keys(1).peer_id()), Key::Indexer(keys(1).peer_id()), name_key()] {
            assert_eq!(Key::parse(&key.to_bytes()), Ok(key.clone()), "{key}");
        }
        assert_eq!(name_key().to_string(), "/name/paris");
        assert_eq!(Key::of_name("a/b").unwrap().to_string(), "/name/a/b");
        assert_eq!(Key::of_name("Zu\u{308}rich"), Key::of_name("ZÜRICH"));
        let longest = Key::of_name(&"😀".repeat(names::CHARS_MAX)).unwrap();
        assert_eq!(longest.to_bytes().len(), KEY_BYTES_MAX);
        assert_eq!(Key::parse(&longest.to_bytes()), Ok(longest));
    }

    #[test]
    fn a_key_in_another_form_is_refused() {
        let id = keys(1).peer_id();
        let long = format!("/name/{}", "x".repeat(65));
        for text in [
            "",
            "/",
            "node/x",
            "/node",
            "/node/",
            "/node/x",
            "/name/",
            "/name/Paris",
            "/name/zu\u{308}rich",
            "/name/a\u{7}",
            &long,
            "/pid/x",
            &format!("/pid/{id}/"),
            &format!("/pid/ {id}"),
            &format!("/Pid/{id}"),
            &format!("x/pid/{id}"),
            "/other/x",
            &format!("/node/{}", UUID.to_uppercase()),
            &format!("//pid/{id}"),
        ] {
            assert_eq!(Key::parse(text.as_bytes()), Err(DhtError::OtherKey), "{text}");
        }
        assert_eq!(Key::parse(b"/name/\xff"), Err(DhtError::OtherKey));
        assert_eq!(Key::of_name(""), None);
    }

    #[test]
    fn indexers_are_found_under_the_multihash_that_the_page_names() {
        let key = indexers_key();
        assert_eq!((key.len(), &key[..2]), (34, &[0x12, 0x20][..]));
        let cid = bs58::encode(&key).into_string();
        assert!(cid.starts_with("Qm") && cid.len() == 46, "{cid}");
    }

    #[test]
    fn g22_a_value_is_taken_only_under_its_own_key() {
        let check = |key: &Key, value: &[u8], error: Option<DhtError>| {
            assert_eq!(validate(key, value, None, now()).err(), error, "{key}");
        };
        check(&node_key(1), &signed(&record(1, 1), 1), None);
        check(&node_key(2), &signed(&record(1, 1), 1), Some(DhtError::OtherValue { field: "did" }));
        check(&Key::Pid(keys(1).peer_id()), &signed(&pid(1, 1), 1), None);
        check(&Key::Pid(keys(2).peer_id()), &signed(&pid(1, 1), 1), Some(DhtError::OtherValue { field: "peer id" }));
        check(&Key::Indexer(keys(1).peer_id()), &signed(&indexer(1, 1), 1), None);
        check(
            &Key::Indexer(keys(2).peer_id()),
            &signed(&indexer(1, 1), 1),
            Some(DhtError::OtherValue { field: "peer id" }),
        );
        check(&name_key(), &array(&[claim(1, 1)]), None);
        check(&Key::of_name("rome").unwrap(), &array(&[claim(1, 1)]), Some(DhtError::OtherValue { field: "name" }));
    }

    #[test]
    fn g22_a_value_of_another_kind_or_signer_is_refused() {
        // A pid value has every field of a claim but one: only the domain keeps them apart.
        let key = Key::Pid(keys(1).peer_id());
        assert!(validate(&key, claim(1, 1).text().as_bytes(), None, now()).unwrap_err().is_strike());
        let forged = String::from_utf8(signed(&pid(1, 1), 1)).unwrap().replace("\"seq\":1", "\"seq\":2");
        assert!(validate(&key, forged.as_bytes(), None, now()).unwrap_err().is_strike());
        assert!(!validate(&key, b"{}", None, now()).unwrap_err().is_strike());
    }

    #[test]
    fn a_value_is_taken_at_its_limit_and_refused_past_it() {
        for (key, value) in [
            (node_key(1), signed(&record(1, 1), 1)),
            (Key::Pid(keys(1).peer_id()), signed(&pid(1, 1), 1)),
            (Key::Indexer(keys(1).peer_id()), signed(&indexer(1, 1), 1)),
            (name_key(), array(&[claim(1, 1)])),
        ] {
            let mut padded = value;
            padded.resize(key.value_bytes_max(), b' ');
            assert!(validate(&key, &padded, None, now()).is_ok(), "{key}");
            padded.push(b' ');
            assert_eq!(validate(&key, &padded, None, now()).unwrap_err().refusal(), RefusalCode::Limit, "{key}");
        }
    }

    #[test]
    fn an_expired_value_is_refused_with_clock() {
        let error = validate(&node_key(1), &signed(&record(1, 1), 1), None, later(3600)).unwrap_err();
        assert_eq!((error.refusal(), error.is_strike()), (RefusalCode::Clock, false));
    }

    #[test]
    fn what_is_held_is_not_verified_again_but_still_expires() {
        let bytes = signed(&record(1, 1), 1);
        let held = valid(&node_key(1), &bytes);
        assert_eq!(validate(&node_key(1), &bytes, Some(&held), now()), Ok(held.clone()));
        let error = validate(&node_key(1), &bytes, Some(&held), later(3600)).unwrap_err();
        assert_eq!(error.refusal(), RefusalCode::Clock);
        assert!(validate(&node_key(2), &bytes, Some(&held), now()).is_err());
    }

    #[test]
    fn the_expired_claims_of_a_name_are_dropped_and_a_forged_one_spoils_the_whole() {
        let old = claim_until(2, 9, now() - Duration::from_secs(60));
        let kept = valid(&name_key(), &array(&[old.clone(), claim(1, 1)]));
        assert_eq!(kept, Valid::Name(vec![claim(1, 1)]));
        let error = validate(&name_key(), &array(&[old]), None, now()).unwrap_err();
        assert_eq!(error.refusal(), RefusalCode::Clock);
        let forged =
            String::from_utf8(array(&[claim(1, 1), claim(2, 1)])).unwrap().replacen("\"seq\":1", "\"seq\":2", 1);
        assert!(validate(&name_key(), forged.as_bytes(), None, now()).unwrap_err().is_strike());
        for value in [&b"{}"[..], b"[1]", b"null", b"[null]"] {
            assert!(validate(&name_key(), value, None, now()).is_err());
        }
    }

    #[test]
    fn a_name_has_1_to_16_claims() {
        let claims: Vec<_> = (1..=17).map(|seed| claim(seed, 1)).collect();
        assert!(validate(&name_key(), &array(&claims[..16]), None, now()).is_ok());
        assert_eq!(validate(&name_key(), &array(&claims), None, now()), Err(DhtError::OtherCount { got: 17 }));
        assert_eq!(validate(&name_key(), b"[]", None, now()), Err(DhtError::OtherCount { got: 0 }));
    }

    #[test]
    fn a_put_replaces_only_what_is_older() {
        let key = node_key(1);
        let of = |seq| valid(&key, &signed(&record(1, seq), 1));
        assert_eq!(admit(&key, None, of(5), now()), Put::Replace(of(5)));
        assert_eq!(admit(&key, Some(&of(5)), of(6), now()), Put::Replace(of(6)));
        assert_eq!(admit(&key, Some(&of(5)), of(5), now()), Put::Keep);
        assert_eq!(admit(&key, Some(&of(5)), of(4), now()), Put::Keep);
        // What is held is over; what comes in is judged by nothing but itself.
        assert_eq!(admit(&key, Some(&of(5)), of(4), later(3600)), Put::Replace(of(4)));
    }

    #[test]
    fn g22_a_uuid_is_not_put_by_another_key() {
        let key = Key::Node(UUID.parse().unwrap());
        let of = |seed, seq| valid(&key, &signed(&PeerRecord { did: UUID.to_owned(), ..record(seed, seq) }, seed));
        assert_eq!(admit(&key, Some(&of(1, 5)), of(2, 99), now()), Put::OtherKey);
        assert_eq!(admit(&key, Some(&of(1, 5)), of(1, 6), now()), Put::Replace(of(1, 6)));
        let (first, thief) = (of(1, 5).to_bytes(), of(2, 99).to_bytes());
        let chosen = choose(&key, [&thief[..], &first[..]], Some(keys(1).pub_key()), now());
        assert_eq!(chosen, Choice { value: Some(of(1, 5)), dropped: 1 });
    }

    #[test]
    fn a_put_of_a_name_never_removes_a_live_claim() {
        let key = name_key();
        let held = Valid::Name(vec![claim(1, 5)]);
        let put = |claims: &[Verified<NameClaim>]| admit(&key, Some(&held), valid(&key, &array(claims)), now());
        assert_eq!(put(&[claim(1, 4)]), Put::Keep);
        assert_eq!(put(&[claim(1, 5)]), Put::Keep);
        let Put::Merge { value, changed } = put(&[claim(2, 1)]) else { panic!("not merged") };
        assert_eq!(changed, [keys(2).peer_id()]);
        let Valid::Name(mut claims) = value else { panic!("not a name") };
        claims.sort_by_key(|claim| claim.seq);
        assert_eq!(claims, [claim(2, 1), claim(1, 5)]);
        let Put::Merge { value, changed } = put(&[claim(1, 6), claim(1, 3)]) else { panic!("not merged") };
        assert_eq!((value, changed), (Valid::Name(vec![claim(1, 6)]), vec![keys(1).peer_id()]));
    }

    #[test]
    fn g41_over_16_claims_those_nearest_to_the_key_stay() {
        let key = name_key();
        let mut near: Vec<_> = (1..=20).map(|seed| claim(seed, 1)).collect();
        let place = Sha256::digest(key.to_bytes());
        near.sort_by_key(|claim| distance(&place, &claim.peer_id));
        let of = |claims: &[Verified<NameClaim>]| valid(&key, &array(claims));
        // Sixteen far ones give way to a nearer one, and a farther one changes nothing.
        let Put::Merge { value, changed } = admit(&key, Some(&of(&near[1..17])), of(&near[..1]), now()) else {
            panic!("not merged")
        };
        assert_eq!((value, changed), (of(&near[..16]), vec![near[0].peer_id]));
        assert_eq!(admit(&key, Some(&of(&near[..16])), of(&near[16..]), now()), Put::Keep);
        // A live one is never removed while there is room.
        assert!(matches!(admit(&key, Some(&of(&near[..15])), of(&near[19..]), now()), Put::Merge { .. }));
    }

    #[test]
    fn the_freshest_valid_answer_is_chosen_and_the_rest_is_counted() {
        let key = node_key(1);
        let (old, new) = (signed(&record(1, 5), 1), signed(&record(1, 6), 1));
        let forged = String::from_utf8(old.clone()).unwrap().replace("\"seq\":5", "\"seq\":9").into_bytes();
        let chosen = choose(&key, [&old[..], &forged, &new, b"{}", &old], None, now());
        assert_eq!(chosen, Choice { value: Some(valid(&key, &new)), dropped: 2 });
        assert_eq!(choose(&key, [], None, now()), Choice { value: None, dropped: 0 });
        let many = vec![&b"x"[..]; 1000];
        assert_eq!(choose(&key, many, None, now()), Choice { value: None, dropped: VALUES_MAX });
    }

    #[test]
    fn readers_merge_all_answers_about_a_name() {
        let (first, second) = (array(&[claim(1, 5), claim(2, 1)]), array(&[claim(1, 6), claim(3, 1)]));
        let chosen = choose(&name_key(), [&first[..], &second], None, now()).value.unwrap();
        assert_eq!(chosen, valid(&name_key(), &array(&[claim(1, 6), claim(2, 1), claim(3, 1)])));
    }

    fn quota(owners_max: usize) -> Quota {
        Quota::new(Settings { owners_max, ..Settings::default() })
    }

    fn key(number: usize) -> Key {
        Key::of_name(&format!("name {number}")).unwrap()
    }

    #[test]
    fn an_owner_has_32_values_and_no_more_until_one_is_over() {
        let mut quota = quota(10);
        let owner = keys(1).peer_id();
        let life = Duration::from_secs(600);
        for number in 0..32 {
            assert_eq!(quota.charge(owner, &key(number), life, Mono::ZERO), Ok(()));
        }
        assert_eq!(quota.charge(owner, &key(32), life, Mono::ZERO), Err(QuotaError::Records { max: 32 }));
        assert_eq!(quota.charge(owner, &key(0), life, Mono::ZERO), Ok(()));
        assert_eq!(quota.charge(keys(2).peer_id(), &key(32), life, Mono::ZERO), Ok(()));
        assert_eq!(quota.charge(owner, &key(32), life, Mono::from_secs(599)), Err(QuotaError::Records { max: 32 }));
        assert_eq!(quota.charge(owner, &key(32), life, Mono::from_secs(600)), Ok(()));
    }

    #[test]
    fn an_owner_changes_60_times_at_once_and_then_once_a_second() {
        let mut quota = quota(10);
        let owner = keys(1).peer_id();
        let mut write =
            |millis| quota.charge(owner, &key(0), Duration::from_secs(600), Mono::from_millis(millis)).is_ok();
        assert!((0..60).all(|_| write(0)));
        assert!(!write(0));
        assert!(!write(999));
        assert!(write(1000));
        assert!(!write(1000));
        assert!((0..60).all(|_| write(61_000)));
        assert!(!write(61_000));
    }

    #[test]
    fn owners_are_bounded_and_the_idle_ones_are_forgotten() {
        let mut quota = quota(2);
        let mut write = |seed: u8, secs| {
            let done = quota.charge(keys(seed).peer_id(), &key(0), Duration::from_secs(60), Mono::from_secs(secs));
            (done, quota.owners())
        };
        assert_eq!(write(1, 0), (Ok(()), 1));
        assert_eq!(write(2, 30), (Ok(()), 2));
        assert_eq!(write(3, 59), (Err(QuotaError::Owners { max: 2 }), 2));
        assert_eq!(write(2, 59), (Ok(()), 2));
        assert_eq!(write(3, 60), (Ok(()), 2));
        assert_eq!(write(4, 61), (Err(QuotaError::Owners { max: 2 }), 2));
    }

    proptest! {
        #[test]
        fn merging_in_any_order_gives_the_same(order in prop::collection::vec((1u8..6, 1u64..4), 1..12).prop_shuffle()) {
            let key = name_key();
            let put = |order: &[(u8, u64)]| {
                order.iter().fold(None, |held: Option<Valid>, (seed, seq)| {
                    match admit(&key, held.as_ref(), Valid::Name(vec![claim(*seed, *seq)]), now()) {
                        Put::Replace(value) | Put::Merge { value, .. } => Some(value),
                        Put::Keep | Put::OtherKey => held,
                    }
                })
            };
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(put(&order), put(&sorted));
        }

        #[test]
        fn no_key_and_no_value_make_it_panic(key in any::<Vec<u8>>(), value in any::<Vec<u8>>()) {
            let _ = Key::parse(&key);
            let _ = validate(&name_key(), &value, None, now());
        }
    }
}
