//! `/api/v1/search?name=…|did=…|peer_id=…&user=…&trace=true`: hits as they come, as server-sent events; with `trace`, where
//! the time went, before the last one.

use std::{convert::Infallible, time::Duration};

use actors::view::{SearchView, Wanted};
use axum::{
    extract::{Query, rejection::QueryRejection},
    http::StatusCode,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, stream};
use serde::{Deserialize, Serialize};

use super::{Shared, examples, openapi::answers, problem::Problem};

/// Often enough that proxies and readers do not take a quiet search for a dead one.
pub(super) const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Longer than any user's name of the organisations that share a node.
const USER_CHARS_MAX: usize = 128;

/// What is asked.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    /// A name or a part of one.
    name: Option<String>,
    /// A DID.
    did: Option<String>,
    /// A peer id; exactly one of the three is given.
    peer_id: Option<String>,
    /// Whose search it is: a user's next one ends the one before.
    user: Option<String>,
    /// Also say where its time went, in an event `trace` before the last.
    trace: bool,
}

/// Starts a search; closing the stream closes it.
#[utoipa::path(
    get,
    path = "/api/v1/search",
    summary = "Searches for members; closing the stream closes the search",
    params(Question),
    responses(
        (
            status = 200,
            description = "Events `hit` as they come, one `trace` where it is wanted, and one `end`",
            body = answers::SearchView,
            content_type = "text/event-stream",
            example = json!(examples::search()),
        ),
    ),
)]
pub(super) async fn stream(
    tree: Shared,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let Query(Question { name, did, peer_id, user: given, trace }) = question?;
    let user = user(given)?;
    let wanted = Wanted { peer_id, did, name, trace };
    let steps = tree.search(&user, wanted).await?;
    let events = stream::unfold(steps, |mut steps| async move {
        let step = steps.recv().await?;
        Some((Ok(event(&step)), steps))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_EVERY)))
}

/// Whose search it is. Without a user each request is its own, so that two askers never end each other's search.
pub(super) fn user(given: Option<String>) -> Result<String, Problem> {
    let user = given.unwrap_or_else(|| format!("request:{:032x}", rand::random::<u128>()));
    let chars = user.chars().count();
    if chars == 0 || chars > USER_CHARS_MAX {
        let words = format!("the user has {chars} characters, expected 1 to {USER_CHARS_MAX}");
        return Err(Problem::new(StatusCode::BAD_REQUEST, words));
    }
    Ok(user)
}

fn event(step: &SearchView) -> Event {
    let name = match step {
        SearchView::Hit { .. } => "hit",
        SearchView::Trace { .. } => "trace",
        SearchView::End { .. } => "end",
    };
    event_of(name, step)
}

/// One step as an event of this name.
pub(super) fn event_of(name: &str, step: &impl Serialize) -> Event {
    match serde_json::to_string(step) {
        // A record is kept as it came and may hold line ends between its tokens, where any blank does as well.
        Ok(data) => Event::default().event(name).data(data.replace(['\r', '\n'], " ")),
        Err(error) => {
            Event::default().comment(format!("a step could not be written: {error}").replace(['\r', '\n'], " "))
        }
    }
}
