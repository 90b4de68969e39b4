//! `/api/v1/indexers`.

use actors::view::IndexerView;
use axum::Json;

use super::{Shared, problem::Problem};

/// The pool, best first.
pub(super) async fn list(tree: Shared) -> Result<Json<Vec<IndexerView>>, Problem> {
    Ok(Json(tree.indexers().await?))
}
