//! `/api/v1/alerts`: what is wrong now; `/api/v1/alerts/history`: what was measured in the last hours.

use actors::view::{AlertView, SampleView};
use axum::Json;

use super::{Shared, examples, openapi::answers, problem::Problem};

/// What is wrong now, the worst first.
#[utoipa::path(
    get,
    path = "/api/v1/alerts",
    responses(
        (
            status = 200,
            description = "The alerts that are raised",
            body = Vec<answers::AlertView>,
            example = json!(examples::alerts()),
        ),
    ),
)]
pub(super) async fn list(tree: Shared) -> Result<Json<Vec<AlertView>>, Problem> {
    Ok(Json(tree.alerts().await?))
}

/// What was measured in the last hours, the oldest first.
#[utoipa::path(
    get,
    path = "/api/v1/alerts/history",
    responses(
        (
            status = 200,
            description = "The samples",
            body = Vec<answers::SampleView>,
            example = json!(examples::samples()),
        ),
    ),
)]
pub(super) async fn history(tree: Shared) -> Result<Json<Vec<SampleView>>, Problem> {
    Ok(Json(tree.samples().await?))
}
