//! `/metrics`: numbers for Prometheus.

use axum::{http::header, response::IntoResponse};

use super::Shared;

/// The form in which `prometheus-client` writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every number of the process.
#[utoipa::path(
    get,
    path = "/metrics",
    summary = "Every number of the process, in OpenMetrics text",
    responses((status = 200, description = "Counters and gauges", body = String, content_type = "application/openmetrics-text",
        example = "# HELP muster_connections Open connections.\n# TYPE muster_connections gauge\nmuster_connections 4\n# EOF\n")),
)]
pub(super) async fn show(tree: Shared) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], tree.metrics())
}
