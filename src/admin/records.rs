//! `/api/v1/records/{key}`: verified records by DID, peer id or exact name.

use actors::view::RecordView;
use axum::{
    Json,
    extract::{Path, rejection::PathRejection},
    http::StatusCode,
};

use super::{Shared, examples, openapi::answers, problem::Problem};

/// The records, or 404 when there is none.
#[utoipa::path(
    get,
    path = "/api/v1/records/{key}",
    summary = "Verified records of a member",
    params(("key" = String, Path, description = "A DID, a peer id or an exact name", example = "paris")),
    responses(
        (
            status = 200,
            description = "The records, as they were signed",
            body = Vec<answers::RecordView>,
            example = json!(examples::records()),
        ),
    ),
)]
pub(super) async fn find(
    tree: Shared,
    key: Result<Path<String>, PathRejection>,
) -> Result<Json<Vec<RecordView>>, Problem> {
    let Path(key) = key?;
    let found = tree.record(&key).await?;
    if found.is_empty() {
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("no record by the name, DID or peer id {key:?}")));
    }
    Ok(Json(found))
}
