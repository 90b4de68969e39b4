//! `/api/v1/config`: the settings in force, each with where it comes from; PATCH changes some of them, or none.

use std::collections::BTreeMap;

use axum::{Extension, Json, extract::rejection::JsonRejection, http::StatusCode};
use serde_json::Value;

use super::{openapi::answers, problem::Problem};
use crate::live::{Changed, Live, NotChanged, Shown};

/// What stands in front of the settings; there is none before the daemon runs.
type Settings = Option<Extension<Live>>;

fn live(settings: Settings) -> Result<Live, Problem> {
    settings.map(|Extension(live)| live).ok_or_else(|| NotChanged::Busy.into())
}

/// Every setting; secrets are not shown.
#[utoipa::path(
    get,
    path = "/api/v1/config",
    responses((status = 200, description = "The settings", body = Vec<answers::SettingView>, example = json!([{
        "key": "log.level",
        "value": "info",
        "origin": "/etc/muster/muster.toml, line 7",
        "variable": "MUSTER_LOG__LEVEL",
        "live": true,
    }]))),
)]
pub(super) async fn show(settings: Settings) -> Result<Json<Vec<Shown>>, Problem> {
    Ok(Json(live(settings)?.show()))
}

/// Changes settings, by their names; `null` for what is built in. They are in the file when this is answered, and those that
/// need no restart are gone by.
#[utoipa::path(
    patch,
    path = "/api/v1/config",
    summary = "Changes settings, in the file too, or none of them",
    request_body(content = Object, example = json!({ "log.level": "debug" })),
    responses((status = 200, description = "What is otherwise now", body = answers::SettingsChanged, example = json!({
        "changed": [{ "key": "log.level", "from": "info", "to": "debug", "live": true }],
        "needs_restart": [],
    }))),
)]
pub(super) async fn change(
    settings: Settings,
    wishes: Result<Json<BTreeMap<String, Value>>, JsonRejection>,
) -> Result<Json<Changed>, Problem> {
    let Json(wishes) = wishes?;
    Ok(Json(live(settings)?.change(wishes).await?))
}

impl From<NotChanged> for Problem {
    fn from(cause: NotChanged) -> Self {
        let status = match cause {
            NotChanged::Wrong(_) => StatusCode::UNPROCESSABLE_ENTITY,
            NotChanged::Conflict(_) => StatusCode::CONFLICT,
            NotChanged::Busy => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, cause.to_string())
    }
}
