//! `/api/v1/planner`: our sessions with those with whom a plan is made. A change is on the disk when it is answered.

use std::collections::BTreeMap;

use actors::{sharing::Author, view::PlanView};
use axum::{
    Json,
    extract::{
        Path, Query,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, Uri},
};
use protocol::{catalogue::GROUPS_MAX, json};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    BODY_BYTES_MAX, Shared,
    cursor::{self, Page, Paging},
    examples,
    openapi::{answers, wishes},
    problem::Problem,
    question::{peer, wrong},
    resources::text,
};

/// What a session is fed, and in whose name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PlannerWish")]
pub(super) struct Wish {
    /// Without it the session is opened and no more.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, serde_json::Value>>")]
    step: Option<Box<RawValue>>,
    /// In whose name.
    #[serde(default)]
    user: Option<String>,
    /// Of which groups.
    #[serde(default)]
    groups: Vec<String>,
}

/// Our planner sessions that are open.
#[utoipa::path(
    get,
    path = "/api/v1/planner",
    params(Paging),
    responses(
        (status = 200, description = "The sessions", body = Vec<answers::PlanView>, example = json!(examples::plans())),
    ),
)]
pub(super) async fn list(
    tree: Shared,
    uri: Uri,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<Page<PlanView>, Problem> {
    let Query(paging) = paging?;
    cursor::page(&uri, paging, tree.plans().await?, |plan| plan.peer_id.to_string())
}

/// 204 once the session is open and its step waits for the peer.
#[utoipa::path(
    post,
    path = "/api/v1/planner/{peer}",
    summary = "Opens a session where there is none, and feeds it a step",
    params(("peer" = String, Path, description = "A peer id", example = json!(examples::NODE))),
    request_body(
        content = wishes::PlannerWish,
        example = json!({ "step": { "task": "simulate" }, "user": "jane", "groups": ["research"] }),
    ),
    responses((status = 204, description = "The session is open and its step waits for the peer")),
)]
pub(super) async fn feed(
    tree: Shared,
    id: Result<Path<String>, PathRejection>,
    wish: Result<Json<Wish>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let (Path(id), Json(Wish { step, user, groups })) = (id?, wish?);
    if groups.len() > GROUPS_MAX {
        return Err(wrong(format!("got {} groups, expected at most {GROUPS_MAX}", groups.len())));
    }
    let author = Author {
        user: user.map(|user| text("user", user)).transpose()?.unwrap_or_default(),
        groups: groups.into_iter().map(|group| text("group", group)).collect::<Result<_, _>>()?,
    };
    let step = step.as_deref().map(read).transpose()?;
    tree.feed_plan(peer(&id)?, step, author).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// 204 once the session is closed; 404 when there was none.
#[utoipa::path(
    delete,
    path = "/api/v1/planner/{peer}",
    summary = "Closes a session",
    params(("peer" = String, Path, description = "A peer id", example = json!(examples::NODE))),
    responses((status = 204, description = "The session is closed; what was fed is still sent")),
)]
pub(super) async fn close(tree: Shared, id: Result<Path<String>, PathRejection>) -> Result<StatusCode, Problem> {
    let Path(id) = id?;
    tree.close_plan(peer(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The step, an object as on the bus.
fn read(step: &RawValue) -> Result<Vec<u8>, Problem> {
    // People write over several lines; JSON has line feeds between values only.
    let step = step.get().replace(['\r', '\n'], " ");
    json::parse::<BTreeMap<String, Box<RawValue>>>(step.as_bytes(), BODY_BYTES_MAX).map_err(wrong)?;
    Ok(step.into_bytes())
}
