//! `/api/v1/actors`: the tree's vitals, read and never asked.

use actors::view::ActorView;
use axum::Json;

use super::Shared;

/// Every actor, supervisors before their children.
pub(super) async fn list(tree: Shared) -> Json<Vec<ActorView>> {
    Json(tree.actors())
}
