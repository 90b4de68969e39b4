//! `/healthz`, `/livez`: the process runs. `/readyz`: it can do its job, and why not.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::Shared;

/// Whether the member can do its job.
#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    reasons: Vec<String>,
}

/// The process runs; no actor is asked.
pub(super) async fn alive() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "alive": true }))
}

/// 200 or 503, with reasons and their remedies.
pub(super) async fn ready(tree: Shared) -> Response {
    let ready = match tree.status().await {
        Ok(status) => Ready { ready: status.ready, reasons: status.reasons },
        Err(error) => Ready { ready: false, reasons: vec![error.to_string()] },
    };
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ready)).into_response()
}
