//! `/api/v1/status`.

use actors::view::StatusView;
use axum::Json;

use super::{Shared, problem::Problem};

/// The member's overview.
pub(super) async fn show(tree: Shared) -> Result<Json<StatusView>, Problem> {
    Ok(Json(tree.status().await?))
}
