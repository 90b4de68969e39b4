//! `POST /api/v1/actors/{name}/restart`: has one actor restarted by its supervisor, as if it had failed. The slashes of
//! its name are written `%2F`.

use actors::handle::CannotRestart;
use axum::{
    extract::{Path, rejection::PathRejection},
    http::StatusCode,
};

use super::{Shared, openapi::answers, problem::Problem};

/// 202 once the order is given; `/api/v1/actors` shows the restart, its cause and how it went.
#[utoipa::path(
    post,
    path = "/api/v1/actors/{name}/restart",
    summary = "Restarts an actor by its supervisor, as if it had failed",
    params(("name" = String, Path, description = "The actor, its slashes written %2F", example = "root%2Fnode%2Fpool")),
    responses(
        (status = 202, description = "The order is given; the list of actors shows what comes of it"),
        (
            status = 409,
            description = "It cannot be restarted now",
            content_type = "application/problem+json",
            body = answers::Problem,
            example = json!(Problem::new(StatusCode::CONFLICT, "root is the whole tree: stop the member instead")),
        ),
    ),
)]
pub(super) async fn order(tree: Shared, name: Result<Path<String>, PathRejection>) -> Result<StatusCode, Problem> {
    let Path(name) = name?;
    tree.restart(&name)?;
    Ok(StatusCode::ACCEPTED)
}

impl From<CannotRestart> for Problem {
    fn from(cause: CannotRestart) -> Self {
        let status = match cause {
            CannotRestart::Unknown { .. } => StatusCode::NOT_FOUND,
            CannotRestart::Root
            | CannotRestart::NotAlive { .. }
            | CannotRestart::Spent { .. }
            | CannotRestart::Never { .. } => StatusCode::CONFLICT,
        };
        Self::new(status, cause.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use axum::{Router, body::Body, http::Request, routing::post};
    use tower::ServiceExt as _;

    use super::*;
    use crate::admin::{Tree, testing::Still};

    #[tokio::test]
    async fn an_actor_is_named_in_one_part_of_the_path_and_a_refusal_says_which_kind() {
        let still = Arc::new(Still::default());
        let tree: Arc<dyn Tree> = still.clone();
        let router = Router::new().route("/api/v1/actors/{name}/restart", post(order)).with_state(tree);
        for (name, status) in [
            ("root%2Fnode%2Fpool", StatusCode::ACCEPTED),
            ("root", StatusCode::CONFLICT),
            ("root%2Fnone", StatusCode::NOT_FOUND),
            ("root/store", StatusCode::NOT_FOUND),
        ] {
            let order = Request::post(format!("/api/v1/actors/{name}/restart")).body(Body::empty()).unwrap();
            assert_eq!(router.clone().oneshot(order).await.unwrap().status(), status, "{name}");
        }
        assert_eq!(*still.restarted.lock().unwrap(), ["root/node/pool"]);
    }
}
