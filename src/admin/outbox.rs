//! `/api/v1/outbox`: what waits for partners and the bus, and what became of what waited.

use actors::view::OutboxView;
use axum::{
    Json,
    extract::{Query, rejection::QueryRejection},
};
use serde::Deserialize;
use store::{Destination, Fate};

use super::{
    Shared,
    problem::Problem,
    question::{limit, peer, wrong},
};

/// Which rows are listed.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Question {
    to: Option<String>,
    fate: Option<String>,
    /// Older than this number, which ended the page before.
    before: Option<u64>,
    limit: Option<u32>,
}

/// The newest first.
pub(super) async fn list(
    tree: Shared,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<Vec<OutboxView>>, Problem> {
    let Query(Question { to, fate, before, limit: given }) = question?;
    let to = to.as_deref().map(destination).transpose()?;
    let fate = fate.as_deref().map(self::fate).transpose()?;
    Ok(Json(tree.outbox(to, fate, before, limit(given)?).await?))
}

fn destination(text: &str) -> Result<Destination, Problem> {
    if text == "bus" { Ok(Destination::Bus) } else { peer(text).map(Destination::Peer) }
}

fn fate(name: &str) -> Result<Fate, Problem> {
    Fate::named(name).ok_or_else(|| {
        wrong(format!("got the fate {name:?}, expected waiting, delivered, refused, expired or dropped"))
    })
}
