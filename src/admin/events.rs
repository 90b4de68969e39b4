//! `/api/v1/events?since=N`: what happened lately.

use actors::view::EventView;
use axum::{
    Json,
    extract::{Query, rejection::QueryRejection},
};
use serde::Deserialize;

use super::{Shared, problem::Problem};

/// What is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Question {
    since: u64,
}

/// What happened after an event, oldest first.
pub(super) async fn list(
    tree: Shared,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<Vec<EventView>>, Problem> {
    let Query(question) = question?;
    Ok(Json(tree.events(question.since).await?))
}
