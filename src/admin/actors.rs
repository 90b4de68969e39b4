//! `/api/v1/actors`: the tree's vitals, read and never asked.

use actors::view::ActorView;
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

/// Every actor, supervisors before their children.
#[utoipa::path(
    get,
    path = "/api/v1/actors",
    params(Paging),
    responses((status = 200, description = "The tree", body = Vec<answers::ActorView>, example = json!(examples::actors()))),
)]
pub(super) async fn list(
    tree: Shared,
    uri: Uri,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<Page<ActorView>, Problem> {
    let Query(paging) = paging?;
    cursor::page(&uri, paging, tree.actors(), |actor| actor.name.clone())
}
