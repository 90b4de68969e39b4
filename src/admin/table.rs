//! `/api/v1/table`: the routing table of the DHT.

use actors::view::BinView;
use axum::Json;

use super::{Shared, examples, openapi::answers, problem::Problem};

/// The bins of the routing table that hold somebody, the farthest first.
#[utoipa::path(
    get,
    path = "/api/v1/table",
    responses(
        (status = 200, description = "The bins", body = Vec<answers::BinView>, example = json!(examples::table())),
    ),
)]
pub(super) async fn list(tree: Shared) -> Result<Json<Vec<BinView>>, Problem> {
    Ok(Json(tree.table().await?))
}
