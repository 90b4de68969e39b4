//! `/api/v1/peers`.

use actors::view::PeerView;
use axum::{
    extract::{Query, rejection::QueryRejection},
    http::Uri,
};

use super::{
    Shared,
    cursor::{self, Page, Paging},
    problem::Problem,
};

/// Every known peer, connected ones first.
pub(super) async fn list(
    tree: Shared,
    uri: Uri,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<Page<PeerView>, Problem> {
    let Query(paging) = paging?;
    cursor::page(&uri, paging, tree.peers().await?, |peer| peer.peer_id.to_string())
}
