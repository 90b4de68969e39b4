//! What a search for resources asks: part of a text, a kind, or both.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Kind;
use crate::names;

/// Characters of a search text.
pub const QUERY_CHARS_MAX: usize = 128;

/// A search for resources. Made by [`ResourceQuery::new`], its text is in the form in which texts are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceQuery {
    /// Part of the name, type, a description or an owner's name; empty for every resource.
    #[serde(default)]
    text: String,
    /// Only of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
}

/// Why a search makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QueryError {
    /// Too long.
    #[error("got a search text of {got} characters, expected at most {QUERY_CHARS_MAX}")]
    TooLong {
        /// Its characters.
        got: usize,
    },
    /// It has a control character.
    #[error("got a search text with the control character U+{code:04X}")]
    Control {
        /// Which one.
        code: u32,
    },
}

impl ResourceQuery {
    /// A search, its text composed (NFC), in lower case and without white space around it.
    ///
    /// # Errors
    /// When the text is too long or has a control character.
    pub fn new(text: &str, kind: Option<Kind>) -> Result<Self, QueryError> {
        let text = names::normal(text.trim());
        let got = text.chars().count();
        if got > QUERY_CHARS_MAX {
            return Err(QueryError::TooLong { got });
        }
        match text.chars().find(|char| char.is_control()) {
            Some(control) => Err(QueryError::Control { code: control.into() }),
            None => Ok(Self { text, kind }),
        }
    }

    /// What came from elsewhere, put into the form of our own.
    ///
    /// # Errors
    /// Those of [`ResourceQuery::new`].
    pub fn again(self) -> Result<Self, QueryError> {
        Self::new(&self.text, self.kind)
    }

    /// The text; empty for every resource.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The kind, if only one is looked for.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }
}
