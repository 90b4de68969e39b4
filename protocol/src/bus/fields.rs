//! Objects whose field names are written as every application likes: read by the one name behind them.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use libp2p_identity::PeerId;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use thiserror::Error;

use super::{ENVELOPE_BYTES_MAX, PAYLOAD_BYTES_MAX, TEXT_BYTES_MAX};
use crate::{
    catalogue::QueryError,
    json::{self, JsonError, NUMBER_MAX},
    signed::SignedError,
};

/// Why a message of the bus is no order.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OrderError {
    /// The envelope is no JSON object within the limits.
    #[error("the envelope: {0}")]
    Malformed(JsonError),
    /// The payload is no JSON object within the limits.
    #[error("the payload: {0}")]
    Payload(JsonError),
    /// Two fields of one object have names that mean the same.
    #[error("got \"{field}\" twice in one object")]
    Twice {
        /// The name, without underscores and in lower case.
        field: String,
    },
    /// A field that must be there is not.
    #[error("got no \"{field}\", expected {expected}")]
    Missing {
        /// Its name.
        field: &'static str,
        /// What would have been right.
        expected: &'static str,
    },
    /// A field holds something else.
    #[error("got {got} in \"{field}\", expected {expected}")]
    Invalid {
        /// Its name.
        field: &'static str,
        /// What it holds, escaped and cut.
        got: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// A rule of the catalogue does not hold.
    #[error(transparent)]
    Resource(#[from] SignedError),
    /// The search makes no sense.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// Characters of a wrong value that an error repeats.
const GOT_CHARS_MAX: usize = 64;

pub(super) fn invalid(field: &'static str, got: &str, expected: &'static str) -> OrderError {
    OrderError::Invalid { field, got: got.chars().take(GOT_CHARS_MAX).flat_map(char::escape_debug).collect(), expected }
}

/// The fields of one object, by the names that are left without case and underscores.
pub(super) struct Fields(BTreeMap<String, Box<RawValue>>);

impl Fields {
    /// Reads an object that passed the pass over it.
    pub(super) fn read(text: &str) -> Result<Self, OrderError> {
        let written: BTreeMap<String, Box<RawValue>> =
            json::parse(text.as_bytes(), ENVELOPE_BYTES_MAX).map_err(OrderError::Malformed)?;
        let mut fields = BTreeMap::new();
        for (name, value) in written {
            let field = plain(&name);
            if fields.insert(field.clone(), value).is_some() {
                return Err(OrderError::Twice { field: field.chars().take(GOT_CHARS_MAX).collect() });
            }
        }
        Ok(Self(fields))
    }

    fn raw(&self, name: &str) -> Option<&str> {
        self.0.get(&plain(name)).map(|value| value.get()).filter(|text| *text != "null")
    }

    fn typed<T: DeserializeOwned>(&self, field: &'static str, expected: &'static str) -> Result<Option<T>, OrderError> {
        let Some(text) = self.raw(field) else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|_| invalid(field, text, expected))
    }

    /// A text of at most [`TEXT_BYTES_MAX`] without control characters; nothing where it is absent or null.
    pub(super) fn text(&self, field: &'static str) -> Result<Option<String>, OrderError> {
        const EXPECTED: &str = "a text of at most 256 bytes without control characters";
        let text: Option<String> = self.typed(field, EXPECTED)?;
        match text {
            Some(text) if text.len() > TEXT_BYTES_MAX || text.contains(char::is_control) => {
                Err(invalid(field, &text, EXPECTED))
            }
            text => Ok(text),
        }
    }

    /// The first of these fields that is there and not empty.
    pub(super) fn first_text(&self, fields: &[&'static str]) -> Result<Option<String>, OrderError> {
        for field in fields {
            if let Some(text) = self.text(field)?.filter(|text| !text.is_empty()) {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    /// At most `max` texts; none where the field is absent or null.
    pub(super) fn texts(
        &self,
        field: &'static str,
        max: usize,
        expected: &'static str,
    ) -> Result<Vec<String>, OrderError> {
        let texts: Vec<String> = self.typed(field, expected)?.unwrap_or_default();
        if texts.len() > max {
            return Err(invalid(field, &texts.len().to_string(), expected));
        }
        match texts.iter().find(|text| text.len() > TEXT_BYTES_MAX || text.contains(char::is_control)) {
            Some(bad) => Err(invalid(field, bad, expected)),
            None => Ok(texts),
        }
    }

    /// The peer that the first of these fields names.
    pub(super) fn peer(&self, fields: &[&'static str]) -> Result<Option<PeerId>, OrderError> {
        for field in fields {
            if let Some(text) = self.text(field)?.filter(|text| !text.is_empty()) {
                return text.parse().map(Some).map_err(|_| invalid(field, &text, "a peer id"));
            }
        }
        Ok(None)
    }

    /// A version of a resource.
    pub(super) fn version(&self) -> Result<Option<u64>, OrderError> {
        const EXPECTED: &str = "a whole number from 1 to 2^53 - 1";
        match self.typed::<u64>("version", EXPECTED)? {
            Some(version) if version == 0 || version > NUMBER_MAX => {
                Err(invalid("version", &version.to_string(), EXPECTED))
            }
            version => Ok(version),
        }
    }

    /// A name, or the number that the predecessor's enumerations have in its place.
    pub(super) fn name_or_number(
        &self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<Option<NameOrNumber>, OrderError> {
        let Some(text) = self.raw(field) else { return Ok(None) };
        if text.starts_with('"') {
            return Ok(self.text(field)?.map(NameOrNumber::Name));
        }
        text.parse().map(|number| Some(NameOrNumber::Number(number))).map_err(|_| invalid(field, text, expected))
    }

    /// The text of the JSON object in `payload`, in whichever of the three forms it came; `{}` where there is none.
    pub(super) fn payload(&self) -> Result<String, OrderError> {
        const EXPECTED: &str = "a JSON object, base64 of one, or the text of one";
        let Some(raw) = self.raw("payload") else { return Ok("{}".to_owned()) };
        let text = if raw.starts_with('"') {
            let written: String = self.typed("payload", EXPECTED)?.unwrap_or_default();
            unpack(written).ok_or_else(|| invalid("payload", raw, EXPECTED))?
        } else {
            raw.to_owned()
        };
        let text = one_line(&text);
        json::check(text.as_bytes(), PAYLOAD_BYTES_MAX).map_err(OrderError::Payload)?;
        if !text.trim_start().starts_with('{') {
            return Err(invalid("payload", &text, EXPECTED));
        }
        Ok(text)
    }
}

/// Where the predecessor's enumerations have numbers, applications write these or names.
pub(super) enum NameOrNumber {
    Name(String),
    Number(i64),
}

/// JSON in a text, or base64 of it. An empty text is what an empty payload of the predecessor's becomes.
fn unpack(written: String) -> Option<String> {
    let trimmed = written.trim();
    if trimmed.is_empty() {
        return Some("{}".to_owned());
    }
    if trimmed.starts_with('{') {
        return Some(written);
    }
    String::from_utf8(BASE64.decode(trimmed).ok()?).ok()
}

/// People write over several lines; the wire does not, and JSON has line feeds between values only.
pub(super) fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

/// A field's name without case and underscores.
fn plain(name: &str) -> String {
    name.chars().filter(|char| *char != '_').flat_map(char::to_lowercase).collect()
}
