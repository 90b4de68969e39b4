//! `/api/v1/audit`: who changed what and when.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::Deserialize;

use super::{TrailOf, problem::Problem, question::limit, trail::Entry};

/// Which entries are listed.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Question {
    limit: Option<u32>,
}

/// Who changed what and when, the newest first.
pub(super) async fn list(
    State(trail): TrailOf,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<Vec<Entry>>, Problem> {
    let Query(question) = question?;
    let limit = limit(question.limit)? as usize;
    let broken =
        |cause| Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("the audit log cannot be read: {cause}"));
    Ok(Json(trail.read(None, limit).await.map_err(broken)?))
}
