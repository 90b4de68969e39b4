//! `/api/v1/table`: the routing table of the DHT.

use actors::view::BinView;
use axum::Json;

use super::{Shared, problem::Problem};

/// Its bins that hold somebody, the farthest first.
pub(super) async fn list(tree: Shared) -> Result<Json<Vec<BinView>>, Problem> {
    Ok(Json(tree.table().await?))
}
