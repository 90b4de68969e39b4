//! Searching for resources: what members ask each other, and the two who take part.
//!
//! A member asks for its users ([`Asked`]): everybody by gossip, or each of the peers that it knows on a stream of their own.
//! Who is asked answers for what it created itself and for nothing else ([`Answering`]), on that stream or, when the
//! question came by gossip, on one that it opens to the question's author. Questions and answers are events, signed by their
//! authors. A question tells the groups of a user and never the user.

mod answering;
mod asked;

use std::sync::Arc;

use jiff::Timestamp;
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;

pub use self::{
    answering::{Answering, QUESTIONS_IN_ALL, QUESTIONS_PER_AUTHOR, Question, Unanswered},
    asked::{
        ANSWERERS_MAX, ASKED_MAX, Asked, Begun, CannotBegin, Ended, FOUND_BYTES_MAX, FOUND_MAX, HEAD_START, IDLE,
        OPEN_MAX, TOTAL, Tally, Update,
    },
};
use super::QueryId;
use crate::{
    catalogue::{Asker, RESOURCE_BYTES_MAX, ResourceQuery},
    event::{Event, PAYLOAD_BYTES_MAX, Verb},
    json::{self, JsonError},
    relation::Relation,
    trace::Traceparent,
    wire::{ResourceAnswer, ResourceQuestion},
};

/// Bytes of a question with its signature: what a gossip message may have. The largest honest one, with 64 groups of 64
/// bytes that need escapes, has 10 KiB.
pub const QUESTION_BYTES_MAX: usize = 16 * 1024;

/// Resources that one member shows in one answer. Whoever wants more asks more precisely.
pub const SHOWN_MAX: usize = 200;

/// Bytes of the resources that one member shows in one answer: what a slow link carries in the time of a search.
pub const SHOWN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of an answer's payload beside its resources: names of the fields, the query id, the brackets.
const ENVELOPE_BYTES: usize = 128;

/// What an event of a search is, in its `datatype`.
const DATATYPE: &str = "resource";

/// Who is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everybody, by gossip.
    #[default]
    All,
    /// Each peer that we know; partners are known.
    Known,
    /// Each partner.
    Partner,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::All, Self::Known, Self::Partner];

    /// Its name on the bus and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Known => "known",
            Self::Partner => "partner",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// What an event of a search says.
#[derive(Clone, Debug)]
pub enum Word {
    /// It asks.
    Question(ResourceQuestion),
    /// It answers.
    Answer(ResourceAnswer),
}

impl Word {
    /// Reads the payload of an event: one that has a query asks.
    ///
    /// # Errors
    /// When it is neither a question nor an answer.
    pub fn read(payload: &[u8]) -> Result<Self, JsonError> {
        #[derive(Deserialize)]
        struct Probe {
            #[serde(default)]
            query: Option<IgnoredAny>,
        }
        let checked = json::check(payload, PAYLOAD_BYTES_MAX)?;
        match checked.read::<Probe>()?.query {
            Some(_) => checked.read().map(Self::Question),
            None => checked.read().map(Self::Answer),
        }
    }
}

/// The question of a search, to be signed by `own`. Groups that could not count are left out, as at [`Asker::new`].
#[must_use]
pub fn question(
    own: PeerId,
    id: QueryId,
    query: &ResourceQuery,
    groups: Vec<String>,
    traceparent: Traceparent,
    now: Timestamp,
) -> Event {
    let payload = ResourceQuestion { query_id: id.to_string(), query: query.clone(), traceparent };
    event(own, Asker::new(own, Relation::Own, groups).groups, to_bytes(&payload), now)
}

/// An answer, to be signed by `own`.
#[must_use]
pub fn answer(own: PeerId, answer: &ResourceAnswer, now: Timestamp) -> Event {
    event(own, Vec::new(), to_bytes(answer), now)
}

/// Spreads the texts of resources over as few answers as a payload allows, in their order; the last one is marked, and an
/// answer without resources is one.
///
/// At most [`SHOWN_MAX`] resources and [`SHOWN_BYTES_MAX`] bytes are shown. A text that fits no payload is left out, as one
/// that is nested so deeply that no reader would take it inside an answer. What was left out is told.
#[must_use]
pub fn split(id: QueryId, texts: &[Arc<str>], is_truncated: bool) -> Vec<ResourceAnswer> {
    let empty = || ResourceAnswer { query_id: id.to_string(), resources: Vec::new(), last: false, truncated: false };
    let mut answers = vec![empty()];
    let (mut shown, mut bytes_shown, mut bytes, mut is_truncated) = (0, 0, 0, is_truncated);
    for text in texts {
        let of_text = text.len() + 1;
        if shown >= SHOWN_MAX || bytes_shown + of_text > SHOWN_BYTES_MAX {
            is_truncated = true;
            break;
        }
        let Some(raw) = embeddable(text) else {
            is_truncated = true;
            continue;
        };
        if bytes + of_text > PAYLOAD_BYTES_MAX - ENVELOPE_BYTES {
            answers.push(empty());
            bytes = 0;
        }
        (shown, bytes_shown, bytes) = (shown + 1, bytes_shown + of_text, bytes + of_text);
        if let Some(answer) = answers.last_mut() {
            answer.resources.push(raw);
        }
    }
    if let Some(last) = answers.last_mut() {
        (last.last, last.truncated) = (true, is_truncated);
    }
    answers
}

/// The text as it would stand in an answer, if a reader would take it there.
fn embeddable(text: &str) -> Option<Box<RawValue>> {
    // The depth and the keys count from the answer's own brackets.
    let placed = format!("{{\"resources\":[{text}]}}");
    json::check(placed.as_bytes(), RESOURCE_BYTES_MAX + ENVELOPE_BYTES).ok()?;
    RawValue::from_string(text.to_owned()).ok()
}

fn event(own: PeerId, groups: Vec<String>, payload: Vec<u8>, ts: Timestamp) -> Event {
    // The user stays here: whoever is asked learns which member asks, and for which groups.
    let (user, id) = (String::new(), String::new());
    Event { verb: Verb::Search, from: own, user, groups, datatype: DATATYPE.to_owned(), id, ts, payload }
}

fn to_bytes(payload: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(payload).expect("a payload has nothing that JSON cannot say")
}

#[cfg(test)]
mod tests;
