//! Records by DID, peer id or exact name: in the DHT, and at the members of our pool.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use protocol::{
    PeerId,
    dht::{self, Valid},
    identity::Did,
    names,
    record::PeerRecord,
    search::Wanted,
    signed::Verified,
    wire::{GetResponse, GetValue, Protocol, RefusalCode, Refused},
};
use tokio::sync::oneshot;
use tracing::debug;

use crate::{context::Context, fetch, supervision::Class, swarm};

/// The DHT answers within this or counts as silent.
const DHT_WITHIN: Duration = Duration::from_secs(3);

/// A member answers within this or counts as silent; it may ask the DHT for us first.
const MEMBER_WITHIN: Duration = Duration::from_secs(5);

/// Members asked at once.
const MEMBERS_MAX: usize = 3;

/// What a record is looked up by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The DID.
    Did(String),
    /// The peer id.
    Peer(PeerId),
    /// The exact name.
    Name(String),
}

impl Key {
    /// The one key of a request.
    ///
    /// # Errors
    /// When it has none, several, or one that cannot be.
    pub fn of(request: GetValue) -> Result<Self, Refused> {
        let invalid = |detail: &str| Refused::new(RefusalCode::Invalid, detail);
        match (request.key, request.peer_id, request.name) {
            (Some(did), None, None) => match did.parse::<Did>() {
                Ok(_) => Ok(Self::Did(did)),
                Err(error) => Err(invalid(&error.to_string())),
            },
            (None, Some(peer), None) => Ok(Self::Peer(peer)),
            (None, None, Some(name)) if names::check(&name).is_ok() => Ok(Self::Name(name)),
            (None, None, Some(_)) => Err(invalid("got a name that no member can have, expected 1 to 64 characters")),
            _ => Err(invalid("expected exactly one of key, peer_id and name")),
        }
    }

    /// What a search looks for; a part of a name may be all of one.
    #[must_use]
    pub fn of_wanted(wanted: &Wanted) -> Option<Self> {
        match wanted {
            Wanted::Peer(peer) => Some(Self::Peer(*peer)),
            Wanted::Did(did) => Some(Self::Did(did.to_string())),
            Wanted::Name(name) => Some(Self::Name(name.clone())),
            Wanted::Part(_) => None,
        }
    }

    /// What somebody typed: a peer id, a DID, or else a name.
    #[must_use]
    pub fn typed(text: &str) -> Self {
        match text.parse() {
            Ok(peer) => Self::Peer(peer),
            Err(_) if text.parse::<Did>().is_ok() => Self::Did(text.to_owned()),
            Err(_) => Self::Name(text.to_owned()),
        }
    }

    /// The question for a member.
    #[must_use]
    pub fn question(&self) -> GetValue {
        match self.clone() {
            Self::Did(did) => GetValue { key: Some(did), ..GetValue::default() },
            Self::Peer(peer) => GetValue { peer_id: Some(peer), ..GetValue::default() },
            Self::Name(name) => GetValue { name: Some(name), ..GetValue::default() },
        }
    }

    /// This record is what was asked for.
    #[must_use]
    pub fn fits(&self, record: &PeerRecord) -> bool {
        match self {
            Self::Did(did) => record.did == *did,
            Self::Peer(peer) => record.peer_id == *peer,
            Self::Name(name) => names::normal(&record.name) == names::normal(name),
        }
    }
}

/// The valid values under a key of the DHT.
pub(crate) async fn values(context: &Context, key: dht::Key, is_first_enough: bool) -> Vec<Valid> {
    let (reply, found) = oneshot::channel();
    let command = swarm::Command::Find { key, is_first_enough, reply };
    if context.addresses.swarm.tell(Class::Search, swarm::Msg::Do(command)).is_err() {
        return Vec::new();
    }
    tokio::time::timeout(DHT_WITHIN, found).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// Verified records in the DHT, one per peer.
pub async fn in_dht(context: &Context, key: &Key) -> Vec<Verified<PeerRecord>> {
    let dids = match key {
        Key::Did(did) => vec![did.clone()],
        Key::Peer(peer) => did_of(context, *peer).await.into_iter().collect(),
        Key::Name(name) => dids_of(context, name).await,
    };
    let mut found = Vec::new();
    for did in dids.into_iter().take(dht::CLAIMS_MAX) {
        let Ok(did) = did.parse() else { continue };
        let values = values(context, dht::Key::Node(did), true).await;
        let record = values.iter().filter_map(Valid::as_node).max_by_key(|record| record.seq);
        found.extend(record.filter(|record| key.fits(record)).cloned());
    }
    found
}

async fn did_of(context: &Context, peer: PeerId) -> Option<String> {
    let values = values(context, dht::Key::Pid(peer), true).await;
    values.iter().filter_map(Valid::as_pid).max_by_key(|value| value.seq).map(|value| value.did.clone())
}

async fn dids_of(context: &Context, name: &str) -> Vec<String> {
    let Some(key) = dht::Key::of_name(name) else { return Vec::new() };
    let values = values(context, key, false).await;
    let claims = values.iter().filter_map(Valid::as_name).flatten();
    let dids: BTreeMap<PeerId, String> = claims.map(|claim| (claim.peer_id, claim.did.clone())).collect();
    dids.into_values().collect()
}

/// Verified records at up to three of these members, asked at once; the first that has any ends it.
pub async fn at_members(context: &Context, key: &Key, members: &[PeerId]) -> Vec<Verified<PeerRecord>> {
    let question = key.question();
    let mut asked: FuturesUnordered<_> = members
        .iter()
        .take(MEMBERS_MAX)
        .map(|member| {
            fetch::exchange::<_, GetResponse>(context, *member, Vec::new(), Protocol::Get, &question, MEMBER_WITHIN)
        })
        .collect();
    while let Some(answer) = asked.next().await {
        let now = context.now().wall;
        let found = match answer {
            Ok(response) => response,
            Err(error) => {
                debug!(%error, "a member did not look up");
                continue;
            }
        };
        // One bad record never spoils the others, and none is taken that does not answer the question.
        let records: Vec<_> = found
            .records
            .values()
            .filter_map(|text| Verified::<PeerRecord>::open(text.get(), now).ok())
            .filter(|record| key.fits(record))
            .collect();
        if !records.is_empty() {
            return records;
        }
    }
    Vec::new()
}
