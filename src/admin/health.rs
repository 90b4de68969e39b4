//! `/healthz`, `/livez`: the process runs. `/readyz`: it can do its job, and why not; `/readyz?verbose`: what was looked at.

use actors::{
    handle::AskError,
    view::{ActorState, ActorView, Standing, StatusView},
};
use axum::{
    Json,
    extract::{Query, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Shared, examples, openapi::answers};

/// Whether the member can do its job.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Ready {
    /// It can.
    ready: bool,
    /// Why not, or what else an operator should know; each with its remedy.
    reasons: Vec<String>,
    /// What was looked at, where `verbose` was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Vec<Check>>,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ReadyCheck")]
struct Check {
    /// What.
    name: &'static str,
    /// It is as it should be.
    ok: bool,
    /// Without it the member is not ready.
    needed: bool,
    /// What was seen.
    detail: String,
}

/// How much is told.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    /// Each thing that was looked at is told; the name alone is enough: `/readyz?verbose`.
    verbose: Option<String>,
}

/// The process runs; no actor is asked.
#[utoipa::path(
    get,
    path = "/livez",
    responses((status = 200, description = "It runs", body = Object, example = json!({ "alive": true }))),
)]
pub(super) async fn alive() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "alive": true }))
}

/// The same under the name that older probes ask for.
#[utoipa::path(
    get,
    path = "/healthz",
    responses((status = 200, description = "It runs", body = Object, example = json!({ "alive": true }))),
)]
pub(super) async fn healthy() -> Json<serde_json::Value> {
    alive().await
}

/// 200 or 503, with reasons and their remedies.
#[utoipa::path(
    get,
    path = "/readyz",
    params(Question),
    summary = "Whether the member can do its job, with reasons and their remedies",
    responses(
        (status = 200, description = "It can do its job", body = answers::Ready,
            example = json!({ "ready": true, "reasons": [] })),
        (status = 503, description = "It cannot, and why", body = answers::Ready,
            example = json!({ "ready": false, "reasons": [examples::ISOLATED] }))),
)]
pub(super) async fn ready(tree: Shared, question: Result<Query<Question>, QueryRejection>) -> Response {
    // A probe with something else in its query shall not take a member for dead.
    let is_verbose = question.is_ok_and(|Query(question)| question.verbose.is_some());
    let status = tree.status().await;
    let checks = is_verbose.then(|| checks(status.as_ref(), &tree.actors()));
    let ready = match status {
        Ok(status) => Ready { ready: status.ready, reasons: status.reasons, checks },
        Err(error) => Ready { ready: false, reasons: vec![error.to_string()], checks },
    };
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ready)).into_response()
}

/// What is looked at. Actors are read and never asked, so that a stuck one is told of even where nobody answers.
fn checks(status: Result<&StatusView, &AskError>, actors: &[ActorView]) -> Vec<Check> {
    let check = |name, ok, needed, detail: String| Check { name, ok, needed, detail };
    let ill: Vec<&str> = actors
        .iter()
        .filter(|actor| matches!(actor.state, ActorState::Stuck | ActorState::Waiting))
        .map(|actor| actor.name.as_str())
        .take(ILL_MAX)
        .collect();
    let seen = if ill.is_empty() { format!("{} are well", actors.len()) } else { ill.join(", ") };
    let actors = check("actors", ill.is_empty(), false, seen);
    let status = match status {
        Ok(status) => status,
        Err(error) => return vec![check("health", false, true, error.to_string()), actors],
    };
    let is_indexer = status.role.indexer;
    let said = |ok: bool, yes: &str, no: &str| if ok { yes.to_owned() } else { no.to_owned() };
    let is_listening = !status.listen.is_empty();
    let indexers = format!("{} of {} answer, {} wanted", status.pool_answering, status.pool_members, status.pool_min);
    vec![
        check("health", true, true, "it answers".to_owned()),
        check("staying", status.standing != Standing::Leaving, true, format!("{:?}", status.standing).to_lowercase()),
        check("listening", is_listening, is_indexer, format!("on {} addresses", status.listen.len())),
        check("store", status.store_ok, is_indexer, said(status.store_ok, "it answers", "it does not answer")),
        check("drain", !status.drained, is_indexer, said(!status.drained, "it takes sessions", "it is drained")),
        check("indexers", status.pool_answering > 0, !is_indexer, indexers),
        actors,
    ]
}

/// Names of actors in a word on them; `/api/v1/actors` has them all.
const ILL_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(status: &StatusView) -> Vec<(&'static str, bool)> {
        let checks = checks(Ok(status), &examples::actors());
        checks.into_iter().filter(|check| !check.ok).map(|check| (check.name, check.needed)).collect()
    }

    #[test]
    fn a_member_that_is_well_fails_in_nothing() {
        assert_eq!(failing(&examples::status()), []);
    }

    #[test]
    fn each_thing_that_is_wrong_is_named_and_needed_where_the_role_needs_it() {
        let node = StatusView {
            listen: Vec::new(),
            store_ok: false,
            drained: true,
            pool_answering: 0,
            standing: Standing::Leaving,
            ..examples::status()
        };
        let expected =
            [("staying", true), ("listening", false), ("store", false), ("drain", false), ("indexers", true)];
        assert_eq!(failing(&node), expected);
        let mut indexer = node;
        indexer.role.indexer = true;
        let expected = [("staying", true), ("listening", true), ("store", true), ("drain", true), ("indexers", false)];
        assert_eq!(failing(&indexer), expected);
    }

    #[test]
    fn a_stuck_actor_is_named_even_where_nobody_answers() {
        let mut actors = examples::actors();
        actors[0].state = ActorState::Stuck;
        let away = AskError::Away { actor: "root/health".to_owned() };
        let told = checks(Err(&away), &actors);
        assert_eq!((told[0].name, told[0].ok, told[0].detail.as_str()), ("health", false, "root/health is away"));
        assert_eq!((told[1].name, told[1].ok, told[1].detail.as_str()), ("actors", false, "root/node/pool"));
    }
}
