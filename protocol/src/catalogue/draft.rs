//! A resource as an application writes it: its own fields, and none of those that its member answers for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use thiserror::Error;

use super::{Kind, RESOURCE_BYTES_MAX, Resource, check_id, invalid};
use crate::{
    identity::Keys,
    json::{self, JsonError},
    signed::{SignedError, Verified},
};

/// A resource that is not yet signed.
#[derive(Clone, Debug)]
pub struct Draft {
    id: String,
    version: Option<u64>,
    fields: BTreeMap<String, Box<RawValue>>,
}

/// Why a text is no draft of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DraftError {
    /// The text is no JSON object within the limits.
    #[error(transparent)]
    Malformed(#[from] JsonError),
    /// A field is missing or not what it should be.
    #[error(transparent)]
    Field(#[from] SignedError),
    /// Neither the text nor its envelope tells the kind.
    #[error("got no \"kind\", expected one of compute, storage, processing, data, workflow")]
    NoKind,
    /// It names another creator.
    #[error("got creator {got}, which is not this member: only its creator changes a resource")]
    NotOurs {
        /// Whom.
        got: String,
    },
}

impl Draft {
    /// Reads what an application wrote; `kind` is what its envelope said and counts where the text says nothing.
    ///
    /// # Errors
    /// When the text is no JSON object within the limits, or has no id or kind.
    pub fn read(text: &str, kind: Option<Kind>) -> Result<Self, DraftError> {
        // People write over several lines; the wire does not, and JSON has line feeds between values only.
        let text = text.replace(['\r', '\n'], " ");
        let mut fields: BTreeMap<String, Box<RawValue>> = json::parse(text.as_bytes(), RESOURCE_BYTES_MAX)?;
        let id: String = field(&fields, "id", "a text")?.ok_or(SignedError::Missing { field: "id" })?;
        check_id(&id)?;
        let version = field(&fields, "version", "a whole number from 1 to 2^53 - 1")?;
        if !fields.contains_key("kind") {
            fields.insert("kind".to_owned(), raw(kind.ok_or(DraftError::NoKind)?.name()));
        }
        Ok(Self { id, version, fields })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Bytes of its fields.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.fields.iter().map(|(name, text)| name.len() + text.get().len()).sum()
    }

    /// The version that the application chose, if it chose one.
    #[must_use]
    pub const fn version(&self) -> Option<u64> {
        self.version
    }

    /// Signs it as a version of ours.
    ///
    /// # Errors
    /// When it names another creator, or a field breaks its rule.
    pub fn sign(mut self, keys: &Keys, version: u64, now: Timestamp) -> Result<Verified<Resource>, DraftError> {
        let own = keys.peer_id().to_string();
        match field::<String>(&self.fields, "creator", "a peer id")? {
            Some(got) if !got.is_empty() && got != own => {
                return Err(DraftError::NotOurs { got: got.chars().take(64).flat_map(char::escape_debug).collect() });
            }
            _ => {}
        }
        self.fields.insert("creator".to_owned(), raw(&own));
        self.fields.insert("version".to_owned(), raw(&version));
        self.fields.insert("updated_at".to_owned(), raw(&now));
        self.fields.remove("signature");
        let text = serde_json::to_string(&self.fields).expect("texts that were read can be written");
        Ok(Verified::sign_text(&text, keys, now)?)
    }
}

/// A field of the type that it should have; nothing where it is absent or null.
fn field<T: for<'de> Deserialize<'de>>(
    fields: &BTreeMap<String, Box<RawValue>>,
    name: &'static str,
    expected: &'static str,
) -> Result<Option<T>, SignedError> {
    let Some(text) = fields.get(name) else { return Ok(None) };
    serde_json::from_str(text.get()).map_err(|_| invalid(name, text.get(), expected))
}

fn raw(value: &(impl serde::Serialize + ?Sized)) -> Box<RawValue> {
    to_raw_value(value).expect("a text, a number and a time can be written as JSON")
}
