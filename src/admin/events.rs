//! `/api/v1/events?since=N`: what happened lately.

use actors::view::EventView;
use axum::{
    Json,
    extract::{Query, rejection::QueryRejection},
    http::Uri,
};
use serde::Deserialize;

use super::{
    Shared,
    cursor::{self, Page},
    examples,
    openapi::answers,
    problem::Problem,
    question::limit,
};

/// What is asked.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    /// After this event; 0 for all that are kept.
    since: u64,
    /// How many, 1 to 500; all where nothing is said.
    limit: Option<u32>,
    /// Names the page: that of the `Link` of the one before; the same as `since`.
    cursor: Option<String>,
}

/// What happened after an event, oldest first.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    params(Question),
    responses(
        (status = 200, description = "The events", body = Vec<answers::EventView>, example = json!(examples::events())),
    ),
)]
pub(super) async fn list(
    tree: Shared,
    uri: Uri,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Page<EventView>, Problem> {
    let Query(Question { since, limit: given, cursor }) = question?;
    let since = cursor.as_deref().map(cursor::read::<u64>).transpose()?.unwrap_or(since);
    let mut events = tree.events(since).await?;
    let most = given.map(|given| limit(Some(given))).transpose()?.map_or(usize::MAX, |limit| limit as usize);
    let is_more = events.len() > most;
    events.truncate(most);
    let last = events.last().filter(|_| is_more).map(|event| event.seq);
    Ok((cursor::next(&uri, last), Json(events)))
}
