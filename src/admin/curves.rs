//! `/api/v1/indexers/history?peer=ID&since=T`: what the scores of the pool were at each judgement, for curves.

use actors::view::CurveView;
use axum::{
    Json,
    extract::{Query, rejection::QueryRejection},
};
use jiff::Timestamp;
use serde::Deserialize;

use super::{Shared, examples, openapi::answers, problem::Problem, question::peer};

/// What is asked.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    /// Of this indexer alone.
    peer: Option<String>,
    /// Judged after this moment: whoever has seen the rest asks for news.
    #[param(value_type = Option<String>)]
    since: Option<Timestamp>,
}

/// What scores were: a curve of each indexer that was judged, the oldest sample first.
#[utoipa::path(
    get,
    path = "/api/v1/indexers/history",
    params(Question),
    responses(
        (status = 200, description = "The curves", body = Vec<answers::CurveView>, example = json!(examples::curves())),
    ),
)]
pub(super) async fn list(
    tree: Shared,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<Vec<CurveView>>, Problem> {
    let Query(Question { peer: id, since }) = question?;
    let id = id.as_deref().map(peer).transpose()?;
    Ok(Json(tree.score_history(id, since.unwrap_or(Timestamp::MIN)).await?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use axum::{
        Router,
        body::{Body, to_bytes},
        http::{Request, StatusCode},
        routing::get,
    };
    use tower::ServiceExt as _;

    use super::*;
    use crate::admin::{
        Tree,
        testing::{self, Still},
    };

    async fn asked(question: &str) -> (StatusCode, String) {
        let tree: Arc<dyn Tree> = Arc::new(Still::default());
        let router = Router::new().route("/history", get(list)).with_state(tree);
        let question = Request::get(format!("/history{question}")).body(Body::empty()).unwrap();
        let answer = router.oneshot(question).await.unwrap();
        let status = answer.status();
        let bytes = to_bytes(answer.into_body(), 64 * 1024).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn who_asks_since_a_moment_is_told_what_was_judged_after_it() {
        let (status, all) = asked("").await;
        assert!(status == StatusCode::OK && all.contains("\"threshold\":20.0"), "{status} {all}");
        let (status, none) = asked("?since=1970-01-01T00:00:00Z").await;
        assert!(status == StatusCode::OK && none.contains("\"samples\":[]"), "{status} {none}");
        let (status, one) = asked(&format!("?peer={}", testing::peer())).await;
        assert!(status == StatusCode::OK && one.contains(&testing::peer().to_string()), "{status} {one}");
    }

    #[tokio::test]
    async fn a_question_that_makes_no_sense_is_refused() {
        for question in ["?peer=nobody", "?since=yesterday", "?until=now"] {
            assert!(asked(question).await.0.is_client_error(), "{question}");
        }
    }
}
