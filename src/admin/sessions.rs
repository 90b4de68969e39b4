//! `/api/v1/sessions`.

use actors::view::SessionView;
use axum::{
    extract::{Query, rejection::QueryRejection},
    http::Uri,
};

use super::{
    Shared,
    cursor::{self, Page, Paging},
    examples,
    openapi::answers,
    problem::Problem,
};

/// The sessions of an indexer.
#[utoipa::path(
    get,
    path = "/api/v1/sessions",
    params(Paging),
    responses(
        (
            status = 200,
            description = "The sessions",
            body = Vec<answers::SessionView>,
            example = json!(examples::sessions()),
        ),
    ),
)]
pub(super) async fn list(
    tree: Shared,
    uri: Uri,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<Page<SessionView>, Problem> {
    let Query(paging) = paging?;
    cursor::page(&uri, paging, tree.sessions().await?, |session| session.peer_id.to_string())
}
