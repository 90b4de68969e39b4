//! `/api/v1/status`.

use actors::view::StatusView;
use axum::Json;

use super::{Shared, examples, openapi::answers, problem::Problem};

/// The member's overview.
#[utoipa::path(
    get,
    path = "/api/v1/status",
    responses(
        (status = 200, description = "How it is", body = answers::StatusView, example = json!(examples::status())),
    ),
)]
pub(super) async fn show(tree: Shared) -> Result<Json<StatusView>, Problem> {
    Ok(Json(tree.status().await?))
}
