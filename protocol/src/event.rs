//! Events between members: what an application of one organisation has to say to those of another.
//!
//! An event is signed by its author, whose connection it must come on, and says which protocol it is for. It is valid for
//! five minutes and once. Whoever could not be reached gets it again, signed anew.

mod intake;
mod judge;
mod replay;

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use libp2p_identity::PeerId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

pub use self::{
    intake::{EVENTS_IN_ALL, EVENTS_PER_AUTHOR, Intake},
    judge::{Told, judge, told, welcome},
    replay::{Mark, Replay, ReplayError, SEEN_MAX, SEEN_PER_PEER_MAX},
};
use crate::{
    catalogue::GROUPS_MAX,
    identity::Keys,
    signed::{SignedError, SignedObject, Signer},
    wire::Protocol,
};

/// How far an event's time may be from the receiver's clock, before or after.
pub const LIFE: Duration = Duration::from_secs(300);

/// Bytes of a whole event.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of an event's payload: in base64 and with its envelope it stays below [`EVENT_BYTES_MAX`].
pub const PAYLOAD_BYTES_MAX: usize = 704 * 1024;

/// Bytes of a user's name, a group's name and a datatype.
pub const TEXT_BYTES_MAX: usize = 256;

/// What an event is for. Each has its own protocol, and is refused on another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// A partner created something.
    Create,
    /// A partner changed something.
    Update,
    /// A partner removed something.
    Delete,
    /// A search for resources, and an answer to one.
    Search,
    /// Is this signature yours?
    Verify,
    /// A consideration of a plan.
    Considers,
    /// A step of a plan that is made together.
    Planner,
    /// A configuration of Admiralty is handed over.
    Admiralty,
    /// A configuration of MinIO is handed over.
    Minio,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 9] = [
        Self::Create,
        Self::Update,
        Self::Delete,
        Self::Search,
        Self::Verify,
        Self::Considers,
        Self::Planner,
        Self::Admiralty,
        Self::Minio,
    ];

    /// Its name on the wire and in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Search => "search",
            Self::Verify => "verify",
            Self::Considers => "considers",
            Self::Planner => "planner",
            Self::Admiralty => "admiralty",
            Self::Minio => "minio",
        }
    }

    /// The verb of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name() == name)
    }

    /// The protocol that carries it.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        Protocol::Event(self)
    }
}

/// The answer to an event that was taken: its effect is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventAck {
    /// Always true; what is not taken is refused.
    pub ok: bool,
}

/// Whether a signature is one's own: the payload of [`Verb::Verify`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyQuestion {
    /// The resource.
    pub id: String,
    /// The version that is signed; absent for the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Base64.
    pub signature: String,
}

/// The creator's answer to a [`VerifyQuestion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyAnswer {
    /// The version asked about is the one held, and the signature is its own.
    pub is_ours: bool,
    /// The version that it signs; absent where it is not its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// A signed word of one member to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What for; must be the protocol's.
    #[serde(rename = "type")]
    pub verb: Verb,
    /// Its author; must be the connection's peer, or the gossip's author.
    #[serde(with = "crate::wire::text")]
    pub from: PeerId,
    /// The author's user, in the author's words.
    #[serde(default)]
    pub user: String,
    /// The user's groups, in the author's words.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What the payload is, such as a kind of resource, `peer`, `booking`.
    #[serde(default)]
    pub datatype: String,
    /// The author's name for this piece of news: the same however often it is sent and signed, so that it takes effect
    /// once. Empty for what has no effect, such as a search.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// When it was signed.
    pub ts: Timestamp,
    /// At most [`PAYLOAD_BYTES_MAX`].
    #[serde(default, serialize_with = "write_base64", deserialize_with = "read_base64")]
    pub payload: Vec<u8>,
}

impl SignedObject for Event {
    const DOMAIN: &'static str = "muster-event:1:";
    const SIGNATURE_FIELD: &'static str = "sig";
    const SIGNER: Signer = Signer::PeerId("from");
    const BYTES_MAX: usize = EVENT_BYTES_MAX;

    fn is_by(&self, keys: &Keys) -> bool {
        self.from == keys.peer_id()
    }

    fn check(&self, now: Timestamp) -> Result<(), SignedError> {
        check_text("user", &self.user)?;
        check_text("id", &self.id)?;
        check_text("datatype", &self.datatype)?;
        if self.groups.len() > GROUPS_MAX {
            return Err(invalid("groups", &self.groups.len().to_string(), "at most 64"));
        }
        self.groups.iter().try_for_each(|group| check_text("groups", group))?;
        if self.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(invalid("payload", &format!("{} bytes", self.payload.len()), "at most 720,896 bytes"));
        }
        let ahead = self.ts.duration_since(now);
        if ahead.unsigned_abs() <= LIFE {
            Ok(())
        } else if ahead.is_negative() {
            Err(SignedError::Expired { expiry: self.ts + LIFE, now })
        } else {
            Err(SignedError::FromFuture { time: self.ts, now, ahead_max: LIFE })
        }
    }
}

fn check_text(field: &'static str, text: &str) -> Result<(), SignedError> {
    if text.len() > TEXT_BYTES_MAX || text.contains(char::is_control) {
        return Err(invalid(field, text, "at most 256 bytes without control characters"));
    }
    Ok(())
}

fn invalid(field: &'static str, got: &str, expected: &'static str) -> SignedError {
    SignedError::Invalid { field, got: got.chars().take(64).flat_map(char::escape_debug).collect(), expected }
}

fn write_base64<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&BASE64.encode(bytes))
}

fn read_base64<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
    BASE64.decode(text.as_bytes()).map_err(|_| D::Error::custom("got a payload that is not padded base64"))
}

#[cfg(test)]
mod tests;
