//! `/api/v1/peers`.

use actors::view::PeerView;
use axum::{
    extract::{Query, rejection::QueryRejection},
    http::Uri,
};

use super::{
    Shared,
    cursor::{self, Page, Paging},
    examples,
    openapi::answers,
    problem::Problem,
};

/// Every known peer, connected ones first.
#[utoipa::path(
    get,
    path = "/api/v1/peers",
    params(Paging),
    responses(
        (status = 200, description = "The peers", body = Vec<answers::PeerView>, example = json!(examples::peers())),
    ),
)]
pub(super) async fn list(
    tree: Shared,
    uri: Uri,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<Page<PeerView>, Problem> {
    let Query(paging) = paging?;
    cursor::page(&uri, paging, tree.peers().await?, |peer| peer.peer_id.to_string())
}
