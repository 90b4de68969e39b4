//! What several questions have in common: peers, kinds, the length of a page.

use std::fmt::Display;

use actors::handle::PAGE_MAX;
use axum::http::StatusCode;
use libp2p_identity::PeerId;
use protocol::catalogue::Kind;

use super::problem::Problem;

/// Rows in an answer where nobody says how many: a few screens.
pub(super) const PAGE_USUAL: u32 = 100;

/// A question that cannot be understood.
pub(super) fn wrong(words: impl Display) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, words.to_string())
}

/// The peer of this id.
pub(super) fn peer(text: &str) -> Result<PeerId, Problem> {
    text.parse().map_err(|_| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("\"{text}\" is no peer id")))
}

/// The peer of this id, or ourselves for `self`.
pub(super) fn peer_or_self(text: &str, own: PeerId) -> Result<PeerId, Problem> {
    if text == "self" { Ok(own) } else { peer(text) }
}

/// The kind of this name.
pub(super) fn kind(name: &str) -> Result<Kind, Problem> {
    Kind::named(name)
        .ok_or_else(|| wrong(format!("got kind {name:?}, expected compute, storage, processing, data or workflow")))
}

/// How many rows are wanted.
pub(super) fn limit(given: Option<u32>) -> Result<u32, Problem> {
    let limit = given.unwrap_or(PAGE_USUAL);
    if limit == 0 || limit > PAGE_MAX {
        return Err(wrong(format!("got a limit of {limit}, expected 1 to {PAGE_MAX}")));
    }
    Ok(limit)
}
