//! `/api/v1/bus`: how the bus of the organisation is; 404 where there is none.

use actors::view::BridgeView;
use axum::{Json, http::StatusCode};

use super::{Shared, examples, openapi::answers, problem::Problem};

/// What is said where there is none.
const NO_BUS: &str = "this member has no bus: bus.url is empty";

/// The bus, as this member sees it.
#[utoipa::path(
    get,
    path = "/api/v1/bus",
    responses((status = 200, description = "The bus", body = answers::BridgeView, example = json!(examples::bus())),
        (status = 404, description = "Not Found", body = answers::Problem, content_type = "application/problem+json",
            example = json!(Problem::new(StatusCode::NOT_FOUND, NO_BUS)))),
)]
pub(super) async fn show(tree: Shared) -> Result<Json<BridgeView>, Problem> {
    let absent = || Problem::new(StatusCode::NOT_FOUND, NO_BUS);
    tree.bus().await?.map(Json).ok_or_else(absent)
}
