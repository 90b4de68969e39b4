//! `/api/v1/alerts`: what is wrong now; `/api/v1/alerts/history`: what was measured in the last hours.

use actors::view::{AlertView, SampleView};
use axum::Json;

use super::{Shared, problem::Problem};

/// The worst first.
pub(super) async fn list(tree: Shared) -> Result<Json<Vec<AlertView>>, Problem> {
    Ok(Json(tree.alerts().await?))
}

/// The oldest first.
pub(super) async fn history(tree: Shared) -> Result<Json<Vec<SampleView>>, Problem> {
    Ok(Json(tree.samples().await?))
}
