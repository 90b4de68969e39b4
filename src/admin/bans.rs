//! `/api/v1/bans`: whom an indexer refuses. A ban is on the disk when its POST is answered.

use std::time::Duration;

use actors::view::BanView;
use axum::{
    Json,
    extract::{
        Path, Query,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, Uri},
};
use protocol::time::text;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Shared,
    cursor::{self, Page, Paging},
    examples,
    openapi::{answers, wishes},
    problem::Problem,
    question::peer,
};

/// What is to be done.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BanWish")]
pub(super) struct Wish {
    /// Whom.
    peer_id: String,
    /// `"1h"`; without it the ban has no end.
    #[serde(default, rename = "for")]
    lasts: Option<String>,
    /// Why; for operators, never told to the peer.
    #[serde(default)]
    reason: String,
}

impl Wish {
    fn lasts(&self) -> Result<Option<Duration>, Problem> {
        let read = |length: &String| {
            let words = format!("for is \"{length}\", expected a length like \"90s\", \"10m\", \"1h\" or \"7d\"");
            text::read(length).ok_or_else(|| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, words))
        };
        self.lasts.as_ref().map(read).transpose()
    }
}

/// Every ban in force.
#[utoipa::path(
    get,
    path = "/api/v1/bans",
    params(Paging),
    responses(
        (status = 200, description = "The bans", body = Vec<answers::BanView>, example = json!(examples::bans())),
    ),
)]
pub(super) async fn list(
    tree: Shared,
    uri: Uri,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<Page<BanView>, Problem> {
    let Query(paging) = paging?;
    // A peer may be banned from several things, each once.
    cursor::page(&uri, paging, tree.bans().await?, |ban| format!("{} {}", ban.peer_id, ban.from))
}

/// 204 once the peer is cut off and its ban is written down.
#[utoipa::path(
    post,
    path = "/api/v1/bans",
    summary = "Bans a peer, at once and over restarts",
    request_body(
        content = wishes::BanWish,
        example = json!({ "peer_id": examples::NODE, "for": "1h", "reason": "too loud" }),
    ),
    responses((status = 204, description = "The peer is cut off and its ban is written down")),
)]
pub(super) async fn add(tree: Shared, wish: Result<Json<Wish>, JsonRejection>) -> Result<StatusCode, Problem> {
    let Json(wish) = wish?;
    tree.ban(peer(&wish.peer_id)?, wish.lasts()?, wish.reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// 204 once no ban of the peer is left; 404 when there was none.
#[utoipa::path(
    delete,
    path = "/api/v1/bans/{peer}",
    summary = "Takes every ban of a peer back",
    params(("peer" = String, Path, description = "A peer id", example = json!(examples::NODE))),
    responses((status = 204, description = "No ban of the peer is left")),
)]
pub(super) async fn remove(tree: Shared, id: Result<Path<String>, PathRejection>) -> Result<StatusCode, Problem> {
    let Path(id) = id?;
    tree.unban(peer(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
