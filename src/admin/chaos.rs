//! `POST /api/v1/chaos/actors/{path}`: injects a fault into one actor. Exists only with `MUSTER_CHAOS=1`.

use std::time::Duration;

use actors::handle::Fault;
use axum::{
    Json,
    extract::{
        Path,
        rejection::{JsonRejection, PathRejection},
    },
    http::StatusCode,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Shared, openapi::wishes, problem::Problem};

/// A stall beyond this tells no more about supervision than one of this length.
const STALL_MS_MAX: u64 = 600_000;

/// Which fault.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "FaultKind")]
enum Kind {
    Panic,
    Error,
    Stall,
}

/// What is to happen.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FaultWish")]
pub(super) struct Wish {
    /// Which.
    fault: Kind,
    /// How long a stall lasts, and for nothing else.
    #[serde(default)]
    ms: Option<u64>,
}

impl Wish {
    fn fault(&self) -> Result<Fault, Problem> {
        let wrong = |words: String| Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, words));
        match (&self.fault, self.ms) {
            (Kind::Panic, None) => Ok(Fault::Panic),
            (Kind::Error, None) => Ok(Fault::Error),
            (Kind::Stall, Some(ms)) if ms <= STALL_MS_MAX => Ok(Fault::Stall(Duration::from_millis(ms))),
            (Kind::Stall, _) => wrong(format!("a stall needs ms, from 0 to {STALL_MS_MAX}")),
            (_, Some(_)) => wrong("ms belongs to a stall alone".to_owned()),
        }
    }
}

/// 204 when the actor's next message will meet the fault.
#[utoipa::path(
    post,
    path = "/api/v1/chaos/actors/{*path}",
    summary = "Injects a fault into one actor; exists only with MUSTER_CHAOS=1",
    params(("path" = String, Path, description = "The actor's path in the tree", example = "root/node/pool")),
    request_body(content = wishes::FaultWish, example = json!({ "fault": "stall", "ms": 5_000 })),
    responses((status = 204, description = "The actor's next message will meet the fault")),
)]
pub(super) async fn inject(
    tree: Shared,
    path: Result<Path<String>, PathRejection>,
    wish: Result<Json<Wish>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let (Path(path), Json(wish)) = (path?, wish?);
    tree.inject(&path, wish.fault()?)?;
    Ok(StatusCode::NO_CONTENT)
}
