//! `POST /api/v1/trace`: sends a beacon, and says whom it reached and how fast.

use actors::view::TraceView;
use axum::Json;

use super::{Shared, problem::Problem};

/// Whom it reached, once it is no longer listened for.
pub(super) async fn begin(tree: Shared) -> Result<Json<TraceView>, Problem> {
    Ok(Json(tree.trace().await?))
}
