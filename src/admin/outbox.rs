//! `/api/v1/outbox`: what waits for partners and the bus, and what became of what waited.

use actors::view::OutboxView;
use axum::{
    Json,
    extract::{Query, rejection::QueryRejection},
    http::Uri,
};
use serde::Deserialize;
use store::{Destination, Fate};

use super::{
    Shared,
    cursor::{self, Page},
    examples,
    openapi::answers,
    problem::Problem,
    question::{limit, peer, wrong},
};

/// Which rows are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    /// A peer id, or `bus`.
    to: Option<String>,
    /// `waiting`, `delivered`, `refused`, `expired` or `dropped`.
    fate: Option<String>,
    /// Older than this number, which ended the page before.
    before: Option<u64>,
    /// How many, 1 to 500; 100 where nothing is said.
    limit: Option<u32>,
    /// Names the page: that of the `Link` of the one before.
    cursor: Option<String>,
}

/// What waits for partners and the bus, and what became of what waited; the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/outbox",
    params(Question),
    responses(
        (status = 200, description = "A page", body = Vec<answers::OutboxView>, example = json!(examples::outbox())),
    ),
)]
pub(super) async fn list(
    tree: Shared,
    uri: Uri,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Page<OutboxView>, Problem> {
    let Query(Question { to, fate, before, limit: given, cursor }) = question?;
    let to = to.as_deref().map(destination).transpose()?;
    let fate = fate.as_deref().map(self::fate).transpose()?;
    if cursor.is_some() && before.is_some() {
        return Err(wrong("got before beside a cursor, expected one of them"));
    }
    let before = cursor.as_deref().map(cursor::read::<u64>).transpose()?.or(before);
    let limit = limit(given)?;
    let rows = tree.outbox(to, fate, before, limit).await?;
    let last = rows.last().filter(|_| rows.len() == limit as usize).map(|row| row.id);
    Ok((cursor::next(&uri, last), Json(rows)))
}

fn destination(text: &str) -> Result<Destination, Problem> {
    if text == "bus" { Ok(Destination::Bus) } else { peer(text).map(Destination::Peer) }
}

fn fate(name: &str) -> Result<Fate, Problem> {
    Fate::named(name).ok_or_else(|| {
        wrong(format!("got the fate {name:?}, expected waiting, delivered, refused, expired or dropped"))
    })
}
