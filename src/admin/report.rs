//! `/api/v1/report`: what the member did in its last whole day, and in the running one.

use actors::view::ReportView;
use axum::Json;

use super::{Shared, examples, openapi::answers, problem::Problem};

/// What the member did in its last whole day, and in the running one.
#[utoipa::path(
    get,
    path = "/api/v1/report",
    responses(
        (status = 200, description = "Both days", body = answers::ReportView, example = json!(examples::report())),
    ),
)]
pub(super) async fn show(tree: Shared) -> Result<Json<ReportView>, Problem> {
    Ok(Json(tree.report().await?))
}
