//! `/api/v1/audit`: who changed what and when.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, Uri},
};
use serde::Deserialize;

use super::{TrailOf, cursor, examples, openapi::answers, problem::Problem, question::limit, trail::Entry};

/// Which entries are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    /// Names the page: that of the `Link` of the one before.
    cursor: Option<String>,
    /// How many, 1 to 500; 100 where nothing is said.
    limit: Option<u32>,
}

/// Who changed what and when, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    params(Question),
    responses(
        (status = 200, description = "A page; the next one is that of its `Link`", body = Vec<answers::AuditEntry>,
        example = json!(examples::audit()))),
)]
pub(super) async fn list(
    State(trail): TrailOf,
    uri: Uri,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<(HeaderMap, Json<Vec<Entry>>), Problem> {
    let Query(question) = question?;
    let limit = limit(question.limit)? as usize;
    let before = question.cursor.as_deref().map(cursor::read::<u64>).transpose()?;
    let broken =
        |cause| Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("the audit log cannot be read: {cause}"));
    // One more than is wanted tells whether there is a next page.
    let mut entries = trail.read(before, limit + 1).await.map_err(broken)?;
    let is_more = entries.len() > limit;
    entries.truncate(limit);
    let last = entries.last().filter(|_| is_more);
    Ok((cursor::next(&uri, last.map(|entry| entry.seq)), Json(entries)))
}
