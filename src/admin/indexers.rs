//! `/api/v1/indexers`, and why each has its score.

use actors::view::{ExplainView, IndexerView};
use axum::{
    Json,
    extract::{Path, rejection::PathRejection},
};

use super::{Shared, examples, openapi::answers, problem::Problem};

/// The pool, best first.
#[utoipa::path(
    get,
    path = "/api/v1/indexers",
    responses(
        (
            status = 200,
            description = "The pool",
            body = Vec<answers::IndexerView>,
            example = json!(examples::indexers()),
        ),
    ),
)]
pub(super) async fn list(tree: Shared) -> Result<Json<Vec<IndexerView>>, Problem> {
    Ok(Json(tree.indexers().await?))
}

/// Every event behind a score, or 404 when nothing is known of that indexer.
#[utoipa::path(
    get,
    path = "/api/v1/indexers/{id}/explain",
    summary = "Every event behind a score",
    params(("id" = String, Path, description = "Its peer id", example = json!(examples::INDEXER))),
    responses(
        (
            status = 200,
            description = "Its score and everything that it rests on",
            body = answers::ExplainView,
            example = json!(examples::explained()),
        ),
    ),
)]
pub(super) async fn explain(
    tree: Shared,
    peer: Result<Path<String>, PathRejection>,
) -> Result<Json<ExplainView>, Problem> {
    let Path(peer) = peer?;
    Ok(Json(tree.explain(&peer).await?))
}
