//! `/api/v1/bus`: how the bus of the organisation is; 404 where there is none.

use actors::view::BridgeView;
use axum::{Json, http::StatusCode};

use super::{Shared, problem::Problem};

/// The bus, as this member sees it.
pub(super) async fn show(tree: Shared) -> Result<Json<BridgeView>, Problem> {
    let absent = || Problem::new(StatusCode::NOT_FOUND, "this member has no bus: bus.url is empty");
    tree.bus().await?.map(Json).ok_or_else(absent)
}
