//! `/api/v1/revocations`: whose keys are to be believed no longer. One is on the disk when its POST is answered.

use actors::view::RevocationView;
use axum::{
    Json,
    extract::{
        Query,
        rejection::{QueryRejection, StringRejection},
    },
    http::Uri,
};

use super::{
    Shared,
    cursor::{self, Page, Paging},
    examples,
    openapi::answers,
    problem::Problem,
};

/// Every revocation that is held here.
#[utoipa::path(
    get,
    path = "/api/v1/revocations",
    params(Paging),
    responses((
        status = 200,
        description = "The revocations",
        body = Vec<answers::RevocationView>,
        example = json!(examples::revocations()),
    )),
)]
pub(super) async fn list(
    tree: Shared,
    uri: Uri,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<Page<RevocationView>, Problem> {
    let Query(paging) = paging?;
    cursor::page(&uri, paging, tree.revocations().await?, |held| held.peer_id.to_string())
}

/// A `Revoke` as the key signed it, byte for byte: `muster revoke --out` writes one. There is no way to take it back.
#[utoipa::path(
    post,
    path = "/api/v1/revocations",
    summary = "Revokes a key, here and from here everywhere",
    request_body(content = Object, example = json!(examples::revoke())),
    responses((
        status = 200,
        description = "It is in force here, written down, and on its way to the others",
        body = answers::RevocationView,
        example = json!(examples::revocation()),
    )),
)]
pub(super) async fn add(tree: Shared, body: Result<String, StringRejection>) -> Result<Json<RevocationView>, Problem> {
    let text = body?;
    Ok(Json(tree.revoke(text.trim()).await?))
}
