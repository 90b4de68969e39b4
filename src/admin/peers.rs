//! `/api/v1/peers`.

use actors::view::PeerView;
use axum::Json;

use super::{Shared, problem::Problem};

/// Every known peer, connected ones first.
pub(super) async fn list(tree: Shared) -> Result<Json<Vec<PeerView>>, Problem> {
    Ok(Json(tree.peers().await?))
}
