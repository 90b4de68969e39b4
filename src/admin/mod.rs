//! The admin endpoint: reads the tree from outside, so that a stuck actor never hangs it.
//!
//! One file per resource; `guard` stands before all of them, `serve` listens, `page` is for people with a browser.

mod actors;
mod alerts;
mod bans;
mod bus;
mod chaos;
mod drain;
mod events;
mod guard;
mod health;
mod indexers;
mod metrics;
mod outbox;
mod page;
mod partners;
mod peers;
mod planner;
mod problem;
mod question;
mod records;
mod report;
mod resources;
mod search;
mod searches;
mod serve;
mod sessions;
mod status;
#[cfg(test)]
pub(crate) mod testing;
mod tree;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware,
    routing::{delete, get, post, put},
};
use tower_http::{limit::RequestBodyLimitLayer, set_header::SetResponseHeaderLayer, timeout::TimeoutLayer};

pub(crate) use self::{guard::Rules, resources::BODY_BYTES_MAX as RESOURCE_BODY_BYTES_MAX, serve::serve, tree::Tree};

/// Many times the longest question that is no resource.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Longer than the tree gives any actor to answer, so that the tree's own words arrive.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// What every resource is given.
pub(crate) type Shared = axum::extract::State<Arc<dyn Tree>>;

/// All resources behind their guard.
pub(crate) fn router(tree: Arc<dyn Tree>, rules: Rules) -> Router {
    let mut resources = Router::new()
        .route("/healthz", get(health::alive))
        .route("/livez", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::show))
        .route("/api/v1/status", get(status::show))
        .route("/api/v1/actors", get(actors::list))
        .route("/api/v1/peers", get(peers::list))
        .route("/api/v1/indexers", get(indexers::list))
        .route("/api/v1/indexers/{id}/explain", get(indexers::explain))
        .route("/api/v1/sessions", get(sessions::list))
        .route("/api/v1/records/{key}", get(records::find))
        .route("/api/v1/events", get(events::list))
        .route("/api/v1/alerts", get(alerts::list))
        .route("/api/v1/alerts/history", get(alerts::history))
        .route("/api/v1/report", get(report::show))
        .route("/api/v1/search", get(search::stream))
        .route("/api/v1/searches", get(searches::stream))
        .route("/api/v1/bus", get(bus::show))
        .route("/api/v1/resources", get(resources::list))
        .route("/api/v1/resources/{creator}/{id}", get(resources::show))
        .route("/api/v1/partners", get(partners::list))
        .route("/api/v1/partners/{peer}", put(partners::put).delete(partners::remove))
        .route("/api/v1/outbox", get(outbox::list))
        .route("/api/v1/planner", get(planner::list))
        .route("/api/v1/planner/{peer}", post(planner::feed).delete(planner::close))
        .route("/api/v1/bans", get(bans::list).post(bans::add))
        .route("/api/v1/bans/{peer}", delete(bans::remove))
        .route("/api/v1/drain", put(drain::begin).delete(drain::end));
    if rules.chaos {
        resources = resources.route("/api/v1/chaos/actors/{*path}", post(chaos::inject));
    }
    resources
        .merge(page::routes())
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX))
        .route(
            "/api/v1/resources/{id}",
            put(resources::put).delete(resources::remove).layer(DefaultBodyLimit::max(resources::BODY_BYTES_MAX)),
        )
        .fallback(problem::unknown_path)
        .method_not_allowed_fallback(problem::wrong_method)
        .with_state(tree)
        // A search's stream begins at once, so only its head is timed.
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, ANSWER_DEADLINE))
        .layer(middleware::from_fn_with_state(Arc::new(rules), guard::check))
        .layer(fixed(header::CACHE_CONTROL, "no-store"))
        .layer(fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(fixed(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"))
}

fn fixed(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

#[cfg(test)]
mod tests;
