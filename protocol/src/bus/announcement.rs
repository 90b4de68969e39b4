//! What we tell applications, and how it is known again.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ENVELOPE_BYTES_MAX, PAYLOAD_BYTES_MAX, TEXT_BYTES_MAX, VerbOut, fields::one_line};
use crate::{
    catalogue::GROUPS_MAX,
    identity::Keys,
    json,
    signed::{SignedError, SignedObject, Signer, Verified},
};

/// Who wrote what we announce, where applications of the predecessor look for a name.
const FROM_APP: &str = "muster";

/// Something to tell applications, until the bus has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its place in the order in which it is told.
    pub id: u64,
    /// On which subject.
    pub verb: VerbOut,
    /// Whose user it concerns; empty for everybody's.
    pub user: String,
    /// That user's groups.
    pub groups: Vec<String>,
    /// What the payload is, such as `peer` or `compute`.
    pub datatype: String,
    /// By it the bus knows a repetition; the same for the same words, whatever was restarted between.
    pub message_id: String,
    /// JSON, at most [`PAYLOAD_BYTES_MAX`].
    pub payload: Vec<u8>,
}

/// Why something cannot be announced: it would be refused by everybody, every time.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnnouncementError {
    /// A field breaks its rule.
    #[error(transparent)]
    Field(#[from] SignedError),
    /// The whole is too long.
    #[error("got an envelope of {got} bytes, expected at most {ENVELOPE_BYTES_MAX}")]
    TooLong {
        /// Its bytes.
        got: usize,
    },
}

impl Announcement {
    /// The envelope, signed: the predecessor's fields, its payload in base64 as Go writes bytes, and `origin` and `sig`.
    ///
    /// # Errors
    /// When it is beyond what the bus carries.
    pub fn write(&self, keys: &Keys, now: Timestamp) -> Result<Vec<u8>, AnnouncementError> {
        if self.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(AnnouncementError::TooLong { got: self.payload.len() });
        }
        let envelope = self.envelope(keys);
        envelope.check(now)?;
        let signed = Verified::sign(&envelope, keys);
        if signed.text().len() > ENVELOPE_BYTES_MAX {
            return Err(AnnouncementError::TooLong { got: signed.text().len() });
        }
        Ok(signed.text().as_bytes().to_vec())
    }

    /// As it is signed.
    pub(crate) fn envelope(&self, keys: &Keys) -> Envelope {
        Envelope {
            from_app: FROM_APP.to_owned(),
            datatype: self.datatype.clone(),
            method: self.verb.name().to_owned(),
            user: self.user.clone(),
            groups: self.groups.clone(),
            search_attr: String::new(),
            payload: BASE64.encode(&self.payload),
            message_id: self.message_id.clone(),
            origin: keys.peer_id(),
        }
    }
}

/// Who wrote a message of the bus, as far as that can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// It does not say, so it is an application's.
    Application,
    /// It is our own announcement, come back on a subject that goes both ways.
    Ourselves,
    /// It is the announcement of another member on the same bus, meant for applications.
    Member(PeerId),
}

/// Who wrote it: an application, unless it names its origin and is signed by it.
///
/// # Errors
/// When it names an origin and the signature is not that origin's: it is forged, and is no order either.
pub fn author(bytes: &[u8], own: &PeerId, now: Timestamp) -> Result<Author, SignedError> {
    // What cannot be read names nobody; the reader of orders says what is wrong with it.
    let Ok(text) = str::from_utf8(bytes) else { return Ok(Author::Application) };
    if text.len() > ENVELOPE_BYTES_MAX || !text.contains("origin") {
        return Ok(Author::Application);
    }
    let text = one_line(text);
    let Ok(checked) = json::check(text.as_bytes(), ENVELOPE_BYTES_MAX) else { return Ok(Author::Application) };
    if checked.field("origin").is_none() {
        return Ok(Author::Application);
    }
    let envelope = Verified::<Envelope>::open(&text, now)?;
    Ok(if envelope.origin == *own { Author::Ourselves } else { Author::Member(envelope.origin) })
}

/// What we announce, as it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Envelope {
    from_app: String,
    datatype: String,
    method: String,
    user: String,
    groups: Vec<String>,
    search_attr: String,
    /// Base64.
    payload: String,
    message_id: String,
    #[serde(with = "crate::wire::text")]
    origin: PeerId,
}

impl SignedObject for Envelope {
    const DOMAIN: &'static str = "muster-bus:1:";
    const SIGNATURE_FIELD: &'static str = "sig";
    const SIGNER: Signer = Signer::PeerId("origin");
    const BYTES_MAX: usize = ENVELOPE_BYTES_MAX;

    fn is_by(&self, keys: &Keys) -> bool {
        self.origin == keys.peer_id()
    }

    fn check(&self, _: Timestamp) -> Result<(), SignedError> {
        check_text("datatype", &self.datatype)?;
        check_text("method", &self.method)?;
        check_text("user", &self.user)?;
        check_text("message_id", &self.message_id)?;
        if self.groups.len() > GROUPS_MAX {
            return Err(invalid("groups", &self.groups.len().to_string(), "at most 64"));
        }
        self.groups.iter().try_for_each(|group| check_text("groups", group))
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
