//! `/api/v1/tokens`: who may do what. A change is on the disk, and holds, when it is answered.

use axum::{
    Json,
    extract::{
        Path, State,
        rejection::{JsonRejection, PathRejection},
    },
    http::StatusCode,
};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    KeyringOf, examples,
    keyring::{ADMIN, TokenView},
    openapi::{answers, wishes},
    problem::Problem,
    roles::Role,
};

/// Which token is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TokenWish")]
pub(super) struct Wish {
    /// Whose it is: 1 to 32 of a-z, 0-9, `-`, `_` and `.`.
    name: String,
    /// `reader`, `operator` or `admin`.
    role: Role,
}

/// A new token, which is shown this once.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct NewToken {
    /// Its name.
    pub(crate) name: String,
    /// What it is good for.
    pub(crate) role: Role,
    /// The token: only its hash is kept.
    pub(crate) token: String,
}

/// Every token, without what makes it one.
#[utoipa::path(
    get,
    path = "/api/v1/tokens",
    responses((status = 200, description = "The tokens", body = Vec<answers::TokenView>,
        example = json!(examples::tokens()))),
)]
pub(super) async fn list(State(keyring): KeyringOf) -> Json<Vec<TokenView>> {
    Json(keyring.list())
}

/// 201 with the token, which is never shown again.
#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    summary = "Makes a token for somebody",
    request_body(content = wishes::TokenWish, example = json!({ "name": "grafana", "role": "reader" })),
    responses(
        (status = 201, description = "The token; it is never shown again", body = answers::NewToken,
            example = json!(examples::new_token())),
        (status = 409, description = "Conflict", body = answers::Problem, content_type = "application/problem+json",
            example = json!(Problem::new(StatusCode::CONFLICT, "there is a token \"grafana\" already: remove it first, or choose another name"))),
    ),
)]
pub(super) async fn add(
    State(keyring): KeyringOf,
    wish: Result<Json<Wish>, JsonRejection>,
) -> Result<(StatusCode, Json<NewToken>), Problem> {
    let Json(Wish { name, role }) = wish?;
    // The file is small and changes are rare, but a disk may be slow.
    let made = tokio::task::spawn_blocking(move || {
        let token = keyring.add(&name, role, Timestamp::now(), &mut rand::rng())?;
        Ok(NewToken { name, role, token: token.to_string() })
    });
    Ok((StatusCode::CREATED, Json(done(made.await)?)))
}

/// 204 once the token is good for nothing; 404 when there was none of that name.
#[utoipa::path(
    delete,
    path = "/api/v1/tokens/{name}",
    summary = "Takes a token back, at once",
    params(("name" = String, Path, description = "Its name", example = "grafana")),
    responses((status = 204, description = "The token is good for nothing")),
)]
pub(super) async fn remove(
    State(keyring): KeyringOf,
    name: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(name) = name?;
    if name == ADMIN {
        let words = "this is the token of data/admin.token: remove that file and start again, and there is a new one";
        return Err(Problem::new(StatusCode::CONFLICT, words));
    }
    let unknown = format!("no such token: {name:?}");
    let removed = tokio::task::spawn_blocking(move || keyring.remove(&name));
    if done(removed.await)? { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::new(StatusCode::NOT_FOUND, unknown)) }
}

fn done<T>(work: Result<Result<T, super::keyring::KeyringError>, tokio::task::JoinError>) -> Result<T, Problem> {
    match work {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the endpoint is about to end")),
    }
}
