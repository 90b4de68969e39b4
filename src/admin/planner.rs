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
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    BODY_BYTES_MAX, Shared,
    cursor::{self, Page, Paging},
    problem::Problem,
    question::{peer, wrong},
    resources::text,
};

/// What a session is fed, and in whose name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// Without it the session is opened and no more.
    #[serde(default)]
    step: Option<Box<RawValue>>,
    /// In whose name.
    #[serde(default)]
    user: Option<String>,
    /// Of which groups.
    #[serde(default)]
    groups: Vec<String>,
}

/// Our planner sessions that are open.
pub(super) async fn list(
    tree: Shared,
    uri: Uri,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<Page<PlanView>, Problem> {
    let Query(paging) = paging?;
    cursor::page(&uri, paging, tree.plans().await?, |plan| plan.peer_id.to_string())
}

/// 204 once the session is open and its step waits for the peer.
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
