//! The admin endpoint: reads the tree from outside, so that a stuck actor never hangs it.
//!
//! One file per resource; `guard` stands before all of them, `serve` listens, `page` is for people with a browser.

mod actors;
mod alerts;
mod audit;
mod bans;
mod bus;
mod chaos;
mod config;
mod cursor;
mod curves;
mod drain;
mod events;
mod examples;
mod feed;
mod guard;
mod health;
mod indexers;
mod keyring;
mod metrics;
pub(crate) mod openapi;
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
mod restart;
mod revocations;
mod roles;
mod search;
mod searches;
mod seats;
mod serve;
mod sessions;
pub(crate) mod socket;
mod status;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod tokens;
mod trace;
mod trail;
mod tree;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware,
};
use tower_http::{limit::RequestBodyLimitLayer, set_header::SetResponseHeaderLayer, timeout::TimeoutLayer};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

pub(crate) use self::{
    guard::Rules,
    keyring::{Keyring, TokenView},
    resources::BODY_BYTES_MAX as RESOURCE_BODY_BYTES_MAX,
    roles::Role,
    serve::{Listener, serve},
    socket::SocketFile,
    tokens::NewToken,
    trail::{Entry, Trail},
    tree::Tree,
};

/// Many times the longest question that is no resource.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Longer than the tree gives any actor to answer, so that the tree's own words arrive.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// What most resources are given.
pub(crate) type Shared = State<Arc<dyn Tree>>;

/// What those about tokens are given.
type KeyringOf = State<Arc<Keyring>>;

/// What that about changes is given.
type TrailOf = State<Trail>;

/// What there is to give.
#[derive(Clone)]
struct Held {
    tree: Arc<dyn Tree>,
    keyring: Arc<Keyring>,
    trail: Trail,
}

impl FromRef<Held> for Arc<dyn Tree> {
    fn from_ref(held: &Held) -> Self {
        Self::clone(&held.tree)
    }
}

impl FromRef<Held> for Arc<Keyring> {
    fn from_ref(held: &Held) -> Self {
        Self::clone(&held.keyring)
    }
}

impl FromRef<Held> for Trail {
    fn from_ref(held: &Held) -> Self {
        held.trail.clone()
    }
}

/// The resources whose questions are short, each with its description.
fn usual(chaos: bool) -> OpenApiRouter<Held> {
    let usual = OpenApiRouter::default()
        .routes(routes!(health::healthy))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::show))
        .routes(routes!(openapi::show))
        .routes(routes!(status::show))
        .routes(routes!(actors::list))
        .routes(routes!(restart::order))
        .routes(routes!(peers::list))
        .routes(routes!(indexers::list))
        .routes(routes!(curves::list))
        .routes(routes!(indexers::explain))
        .routes(routes!(sessions::list))
        .routes(routes!(table::list))
        .routes(routes!(trace::begin))
        .routes(routes!(records::find))
        .routes(routes!(events::list))
        .routes(routes!(feed::stream))
        .routes(routes!(alerts::list))
        .routes(routes!(alerts::history))
        .routes(routes!(report::show))
        .routes(routes!(config::show, config::change))
        .routes(routes!(search::stream))
        .routes(routes!(searches::stream))
        .routes(routes!(bus::show))
        .routes(routes!(resources::list))
        .routes(routes!(resources::show))
        .routes(routes!(partners::list))
        .routes(routes!(partners::put, partners::remove))
        .routes(routes!(outbox::list))
        .routes(routes!(planner::list))
        .routes(routes!(planner::feed, planner::close))
        .routes(routes!(bans::list, bans::add))
        .routes(routes!(bans::remove))
        .routes(routes!(revocations::list, revocations::add))
        .routes(routes!(drain::begin, drain::end))
        .routes(routes!(tokens::list, tokens::add))
        .routes(routes!(tokens::remove))
        .routes(routes!(audit::list));
    // Faults exist only where they were asked for, and are described all the same.
    if chaos { usual.routes(routes!(chaos::inject)) } else { usual }
}

/// Those that are sent whole resources.
fn long() -> OpenApiRouter<Held> {
    OpenApiRouter::default()
        .routes(routes!(resources::put, resources::remove).layer(DefaultBodyLimit::max(resources::BODY_BYTES_MAX)))
}

/// What the handlers say of themselves.
fn described() -> utoipa::openapi::OpenApi {
    usual(true).merge(long()).into_openapi()
}

/// Every resource, and what is answered where there is none.
fn routes(chaos: bool) -> Router<Held> {
    usual(chaos)
        .split_for_parts()
        .0
        .merge(page::routes())
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX))
        .merge(long().split_for_parts().0)
        .fallback(problem::unknown_path)
        .method_not_allowed_fallback(problem::wrong_method)
}

/// All resources behind their guard.
pub(crate) fn router(tree: Arc<dyn Tree>, rules: Rules) -> Router {
    let held = Held { tree, keyring: Arc::clone(&rules.keyring), trail: rules.trail.clone() };
    routes(rules.chaos)
        .with_state(held)
        // A search's stream begins at once, so only its head is timed.
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, ANSWER_DEADLINE))
        .layer(middleware::map_response(problem::tidied))
        .layer(middleware::from_fn_with_state(Arc::new(rules), guard::check))
        .layer(fixed(header::CACHE_CONTROL, "no-store"))
        .layer(fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(fixed(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"))
}

fn fixed(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

#[cfg(test)]
mod matrix;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod writes;
