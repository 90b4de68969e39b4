//! `/metrics`: numbers for Prometheus.

use axum::{http::header, response::IntoResponse};

use super::Shared;

/// The form in which `prometheus-client` writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every number of the process.
pub(super) async fn show(tree: Shared) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], tree.metrics())
}
