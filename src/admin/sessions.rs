//! `/api/v1/sessions`.

use actors::view::SessionView;
use axum::Json;

use super::{Shared, problem::Problem};

/// The sessions of an indexer.
pub(super) async fn list(tree: Shared) -> Result<Json<Vec<SessionView>>, Problem> {
    Ok(Json(tree.sessions().await?))
}
