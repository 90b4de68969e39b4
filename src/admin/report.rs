//! `/api/v1/report`: what the member did in its last whole day, and in the running one.

use actors::view::ReportView;
use axum::Json;

use super::{Shared, problem::Problem};

/// Both days.
pub(super) async fn show(tree: Shared) -> Result<Json<ReportView>, Problem> {
    Ok(Json(tree.report().await?))
}
