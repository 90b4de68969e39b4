//! `/api/v1/searches?scope=…&text=…&kind=…&group=…&user=…&trace=true`: resources of other members as they come, as
//! server-sent events; with `trace`, where the time went, before the last one.

use std::convert::Infallible;

use actors::view::ResourceStep;
use axum::{
    extract::{Query, rejection::QueryRejection},
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, stream};
use protocol::{
    catalogue::{GROUPS_MAX, Kind},
    search::resources::Scope,
};

use super::{
    Shared, examples,
    openapi::answers,
    problem::Problem,
    question::{kind, wrong},
    search::{KEEP_ALIVE_EVERY, user},
};

/// What is asked. Groups repeat, so it is read as pairs.
#[derive(Debug, Default)]
struct Question {
    scope: Scope,
    text: String,
    kind: Option<Kind>,
    groups: Vec<String>,
    user: Option<String>,
    trace: bool,
}

impl Question {
    fn of(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut question = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "scope" => {
                    let unknown = || wrong(format!("got scope {value:?}, expected all, known or partner"));
                    question.scope = Scope::named(&value).ok_or_else(unknown)?;
                }
                "text" => question.text = value,
                "kind" => question.kind = Some(kind(&value)?),
                "user" => question.user = Some(value),
                "trace" => {
                    let unknown = |_| wrong(format!("got trace {value:?}, expected true or false"));
                    question.trace = value.parse().map_err(unknown)?;
                }
                "group" if question.groups.len() == GROUPS_MAX => {
                    return Err(wrong(format!("got more than {GROUPS_MAX} groups, expected at most {GROUPS_MAX}")));
                }
                "group" => question.groups.push(value),
                _ => {
                    let words = format!("got the parameter {name:?}, expected scope, text, kind, group, user or trace");
                    return Err(wrong(words));
                }
            }
        }
        Ok(question)
    }
}

/// Starts a search; closing the stream closes it.
#[utoipa::path(
    get,
    path = "/api/v1/searches",
    summary = "Searches for resources of other members; closing the stream closes the search",
    params(
        ("scope" = Option<String>, Query, description = "`all`, `known` or `partner`"),
        ("text" = Option<String>, Query, description = "Part of a name, description or owner"),
        ("kind" = Option<String>, Query, description = "Only `compute`, `storage`, `processing`, `data` or `workflow`"),
        ("group" = Option<Vec<String>>, Query, description = "Groups of the asker, which owners see; repeats"),
        ("user" = Option<String>, Query, description = "Whose search it is: a user's next one ends the one before"),
        ("trace" = Option<bool>, Query, description = "Also say where its time went, in an event `trace` before the last"),
    ),
    responses(
        (
            status = 200,
            description = "Events `hit` as they come, one `trace` where it is wanted, and one `end`",
            body = answers::ResourceStep,
            content_type = "text/event-stream",
            example = json!(examples::searches()),
        ),
    ),
)]
pub(super) async fn stream(
    tree: Shared,
    pairs: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let Query(pairs) = pairs?;
    let Question { scope, text, kind, groups, user: given, trace } = Question::of(pairs)?;
    let user = user(given)?;
    let steps = tree.search_resources(user, scope, text, kind, groups, trace).await?;
    let events = stream::unfold(steps, |mut steps| async move {
        let step = steps.recv().await?;
        Some((Ok(event(&step)), steps))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_EVERY)))
}

fn event(step: &ResourceStep) -> Event {
    let name = match step {
        ResourceStep::Hit { .. } => "hit",
        ResourceStep::Trace { .. } => "trace",
        ResourceStep::Ended { .. } => "end",
    };
    super::search::event_of(name, step)
}
