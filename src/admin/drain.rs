//! `PUT /api/v1/drain` lets the nodes of an indexer go, `DELETE` takes the order back. It is on the disk when it is
//! answered, and holds over a restart; whether it holds is in `/api/v1/status`.

use axum::http::StatusCode;

use super::{Shared, problem::Problem};

/// 204 once no new session is taken and the nodes are asked to move.
#[utoipa::path(
    put,
    path = "/api/v1/drain",
    summary = "Lets the nodes of an indexer go",
    responses((status = 204, description = "No new session is taken and the nodes are asked to move")),
)]
pub(super) async fn begin(tree: Shared) -> Result<StatusCode, Problem> {
    tree.drain(true).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// 204 once sessions are taken again.
#[utoipa::path(
    delete,
    path = "/api/v1/drain",
    summary = "Takes the order to drain back",
    responses((status = 204, description = "Sessions are taken again")),
)]
pub(super) async fn end(tree: Shared) -> Result<StatusCode, Problem> {
    tree.drain(false).await?;
    Ok(StatusCode::NO_CONTENT)
}
