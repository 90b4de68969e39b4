//! `POST /api/v1/trace`: sends a beacon, and says whom it reached and how fast.

use actors::view::TraceView;
use axum::Json;

use super::{Shared, examples, openapi::answers, problem::Problem};

/// Whom it reached, once it is no longer listened for.
#[utoipa::path(
    post,
    path = "/api/v1/trace",
    summary = "Sends a beacon, and says whom it reached and how fast",
    responses((
        status = 200,
        description = "Whom it reached",
        body = answers::TraceView,
        example = json!(examples::trace()),
    )),
)]
pub(super) async fn begin(tree: Shared) -> Result<Json<TraceView>, Problem> {
    Ok(Json(tree.trace().await?))
}
