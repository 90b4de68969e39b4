//! `/api/v1/partners`: what peers are to us. A change is on the disk, and holds, when it is answered.

use actors::{handle::AskError, view::RelationView};
use axum::{
    Json,
    extract::{
        Path, Query,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, Uri},
};
use protocol::relation::Relation;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Shared,
    cursor::{self, Page, Paging},
    examples,
    openapi::{answers, wishes},
    problem::Problem,
    question::{peer, wrong},
};

/// Which are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    /// Only `partner`, `known` or `blacklist`.
    relation: Option<String>,
    /// Names the page: that of the `Link` of the one before. Pages are in the order of ids.
    cursor: Option<String>,
    /// How many, 1 to 500; with a cursor alone 100, with neither all there are.
    limit: Option<u32>,
}

/// What a peer is to be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PartnerWish")]
pub(super) struct Wish {
    /// Without it a partner.
    #[serde(default)]
    relation: Option<String>,
    /// Without it the name that it has stays.
    #[serde(default)]
    name: Option<String>,
}

/// Those that are anything to us.
#[utoipa::path(
    get,
    path = "/api/v1/partners",
    summary = "Peers that are anything to us",
    params(Question),
    responses(
        (
            status = 200,
            description = "What peers are to us",
            body = Vec<answers::RelationView>,
            example = json!(examples::partners()),
        ),
    ),
)]
pub(super) async fn list(
    tree: Shared,
    uri: Uri,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Page<RelationView>, Problem> {
    let Query(Question { relation: named, cursor, limit }) = question?;
    let wanted = named.as_deref().map(relation).transpose().map_err(wrong)?;
    let mut relations = tree.relations().await?;
    relations.retain(|view| wanted.is_none_or(|wanted| view.relation == wanted));
    cursor::page(&uri, Paging { cursor, limit }, relations, |view| view.peer_id.to_string())
}

/// 204 once the peer is that to us.
#[utoipa::path(
    put,
    path = "/api/v1/partners/{peer}",
    summary = "Makes a peer a partner, known, or blacklisted",
    params(("peer" = String, Path, description = "A peer id", example = json!(examples::NODE))),
    request_body(content = wishes::PartnerWish, example = json!({ "relation": "partner", "name": "lyon" })),
    responses((status = 204, description = "The peer is that to us")),
)]
pub(super) async fn put(
    tree: Shared,
    id: Result<Path<String>, PathRejection>,
    wish: Result<Json<Wish>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let (Path(id), Json(wish)) = (id?, wish?);
    let peer = peer(&id)?;
    let wanted = wish.relation.as_deref().map(relation).transpose();
    let wanted = wanted.map_err(|words| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, words))?;
    let name = match wish.name {
        Some(name) => name,
        None => tree
            .relations()
            .await?
            .into_iter()
            .find(|view| view.peer_id == peer)
            .map_or_else(String::new, |view| view.name),
    };
    tree.relate(peer, wanted.unwrap_or(Relation::Partner), name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// 204 once the peer is nothing to us; 404 when it was nothing before.
#[utoipa::path(
    delete,
    path = "/api/v1/partners/{peer}",
    summary = "Forgets what a peer is to us",
    params(("peer" = String, Path, description = "A peer id", example = json!(examples::NODE))),
    responses((status = 204, description = "The peer is nothing to us")),
)]
pub(super) async fn remove(tree: Shared, id: Result<Path<String>, PathRejection>) -> Result<StatusCode, Problem> {
    let Path(id) = id?;
    let peer = peer(&id)?;
    if !tree.relations().await?.iter().any(|view| view.peer_id == peer) {
        return Err(AskError::Unknown { what: "partner", name: id }.into());
    }
    tree.relate(peer, Relation::None, String::new()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The relation of this name, of those that a peer can be given.
fn relation(name: &str) -> Result<Relation, String> {
    match Relation::named(name) {
        Some(relation @ (Relation::Partner | Relation::Known | Relation::Blacklist)) => Ok(relation),
        _ => Err(format!("got the relation {name:?}, expected partner, known or blacklist")),
    }
}
