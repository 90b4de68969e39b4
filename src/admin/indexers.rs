//! `/api/v1/indexers`, and why each has its score.

use actors::view::{ExplainView, IndexerView};
use axum::{
    Json,
    extract::{Path, rejection::PathRejection},
};

use super::{Shared, problem::Problem};

/// The pool, best first.
pub(super) async fn list(tree: Shared) -> Result<Json<Vec<IndexerView>>, Problem> {
    Ok(Json(tree.indexers().await?))
}

/// Every event behind a score, or 404 when nothing is known of that indexer.
pub(super) async fn explain(
    tree: Shared,
    peer: Result<Path<String>, PathRejection>,
) -> Result<Json<ExplainView>, Problem> {
    let Path(peer) = peer?;
    Ok(Json(tree.explain(&peer).await?))
}
