//! The waterfall of a search, as its asker sees it.

use std::time::Duration;

use jiff::Timestamp;
use libp2p_identity::PeerId;
use protocol::{
    search::Tally,
    time::{Mono, Now},
    trace::{How, Outcome, Row, Waterfall},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A traced search: who was asked when, and when each answered. Times are milliseconds since it began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaterfallView {
    /// Its trace, as every span of it names it: 32 hexadecimal digits.
    pub trace_id: String,
    /// When it began.
    pub began_at: Timestamp,
    /// How long it took.
    pub took_ms: f64,
    /// Everybody who was asked or answered, in the order in which they were asked.
    pub asked: Vec<AskedView>,
    /// How many more there were.
    pub left_out: u32,
}

/// One of those who were asked, or who answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AskedView {
    /// Who.
    #[serde(with = "super::text")]
    #[schemars(with = "String")]
    pub peer_id: PeerId,
    /// On a stream, by gossip, or here.
    #[schemars(schema_with = "how")]
    pub how: How,
    /// When it was asked.
    pub asked_ms: f64,
    /// When a stream to it was open.
    pub connected_ms: Option<f64>,
    /// Its first answer.
    pub first_ms: Option<f64>,
    /// Its newest answer, or when it was given up.
    pub last_ms: Option<f64>,
    /// What it served.
    pub hits: u32,
    /// What came of it.
    #[schemars(schema_with = "outcome")]
    pub outcome: Outcome,
    /// The indexers that it asked in turn, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "tally")]
    pub indexers: Option<Tally>,
}

impl WaterfallView {
    /// What is shown of a search that is over.
    #[must_use]
    pub fn of(waterfall: &Waterfall, now: Now) -> Self {
        let began = waterfall.began();
        Self {
            trace_id: waterfall.context().trace_text(),
            began_at: began.wall,
            took_ms: millis(now.mono.since(began.mono)),
            asked: waterfall.rows().iter().map(|row| AskedView::of(row, began.mono)).collect(),
            left_out: waterfall.left_out(),
        }
    }
}

impl AskedView {
    fn of(row: &Row, began: Mono) -> Self {
        let after = |at: Mono| millis(at.since(began));
        Self {
            peer_id: row.peer,
            how: row.how,
            asked_ms: after(row.asked.mono),
            connected_ms: row.connected.map(after),
            first_ms: row.first.map(after),
            last_ms: row.last.map(after),
            hits: row.hits,
            outcome: row.outcome,
            indexers: row.tally,
        }
    }
}

fn how(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": How::ALL })
}

fn outcome(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": Outcome::ALL })
}

fn tally(_: &mut SchemaGenerator) -> Schema {
    let count = || json_schema!({ "type": "integer", "minimum": 0 });
    json_schema!({
        "type": "object",
        "properties": {
            "asked": count(), "answered": count(), "timed_out": count(), "truncated": { "type": "boolean" },
        },
        "required": ["asked", "answered", "timed_out", "truncated"],
    })
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
