//! `/api/v1/events/stream`: what happens, as it happens, as server-sent events.
//!
//! Each event has an id, which is its journal and its number there. Whoever was cut off sends the last one in
//! `Last-Event-ID`, as browsers do by themselves, and goes on with the next: none is left out and none comes twice. What
//! cannot be told any more, because the journal is bounded and a restart begins another, is told to be missing.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use actors::{
    handle::AskError,
    view::{EventView, FeedView},
};
use axum::{
    extract::{Query, rejection::QueryRejection},
    http::HeaderMap,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, stream};
use protocol::health::{Gap, Seen};
use serde::Deserialize;
use serde_json::json;
use tokio::{sync::watch, time::timeout};

use super::{
    Shared, Tree, examples,
    openapi::answers,
    problem::Problem,
    question::wrong,
    search::{KEEP_ALIVE_EVERY, event_of},
};

/// Who did not answer is asked again after this, should nothing happen before.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Where it begins.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    /// After this event of the present journal, where no `Last-Event-ID` is sent; 0 for all that are kept.
    since: u64,
}

/// A reader of the journal.
struct Reader {
    tree: Arc<dyn Tree>,
    pulse: watch::Receiver<u64>,
    seen: Seen,
    /// To be told next; at most a journal's length.
    waiting: VecDeque<Event>,
}

/// What happens, as it happens.
#[utoipa::path(
    get,
    path = "/api/v1/events/stream",
    params(Question, ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that came")),
    responses(
        (status = 200, description = "Events with their ids; `gap` where some are missing", body = answers::EventView,
        content_type = "text/event-stream", example = json!(examples::feed()))),
)]
pub(super) async fn stream(
    tree: Shared,
    headers: HeaderMap,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let Query(Question { since }) = question?;
    let seen = headers.get("last-event-id").map(|id| read(id.as_bytes())).transpose()?;
    let axum::extract::State(tree) = tree;
    // Subscribed before it is read: what happens in between is told twice to us and once to the reader.
    let pulse = tree.pulse();
    let first = tree.feed(seen.map_or(since, |seen| seen.seq)).await?;
    // Whoever wants all that is kept has missed nothing before it.
    let from = if since == 0 { first.oldest.saturating_sub(1) } else { since };
    let seen = seen.unwrap_or(Seen { journal: first.journal, seq: from });
    let mut reader = Reader { tree, pulse, seen, waiting: VecDeque::new() };
    reader.take(Ok(first)).await;
    let events = stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok(event), reader))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_EVERY)))
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if let Ok(Err(_)) = timeout(AGAIN_AFTER, self.pulse.changed()).await {
                // The tree is gone.
                return None;
            }
            let feed = self.tree.feed(self.seen.seq).await;
            self.take(feed).await;
        }
    }

    async fn take(&mut self, feed: Result<FeedView, AskError>) {
        // Whoever is away comes back, with the same journal or with another.
        let Ok(mut feed) = feed else { return };
        let (seen, gap) = self.seen.resumed(feed.journal, feed.oldest, feed.last);
        if let Some(gap) = gap {
            self.waiting.push_back(missing(gap));
        }
        if seen.seq < self.seen.seq || gap == Some(Gap::Restarted) {
            // What was asked for was counted in another journal.
            match self.tree.feed(seen.seq).await {
                Ok(again) if again.journal == feed.journal => feed = again,
                _ => {
                    self.waiting.clear();
                    return;
                }
            }
        }
        self.seen = seen;
        for event in feed.events {
            self.seen.seq = event.seq;
            self.waiting.push_back(told(self.seen, &event));
        }
    }
}

fn told(seen: Seen, event: &EventView) -> Event {
    event_of("happened", event).id(format!("{}-{}", seen.journal, seen.seq))
}

fn missing(gap: Gap) -> Event {
    event_of(
        "gap",
        &match gap {
            Gap::Dropped(events) => json!({ "reason": "dropped", "missed": events }),
            Gap::Restarted => json!({ "reason": "restarted" }),
        },
    )
}

fn read(id: &[u8]) -> Result<Seen, Problem> {
    let number = |text: &str| text.parse().ok();
    let parts = std::str::from_utf8(id).ok().and_then(|text| text.split_once('-'));
    let seen = parts.and_then(|(journal, seq)| Some(Seen { journal: number(journal)?, seq: number(seq)? }));
    seen.ok_or_else(|| wrong("got a Last-Event-ID that is none of ours, expected that of the last event that came"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::{
        body::Body,
        http::{Request, StatusCode, header},
    };
    use http_body_util::BodyExt as _;

    use crate::admin::tests::{Endpoint, endpoint};

    /// A stream that is read event by event.
    struct Stream {
        body: Body,
        text: String,
    }

    impl Endpoint {
        async fn stream(&self, last: Option<&str>) -> Stream {
            let mut request = Request::get("/api/v1/events/stream").header(header::HOST, "localhost");
            if let Some(last) = last {
                request = request.header("last-event-id", last);
            }
            let response = self.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(response.status(), StatusCode::OK);
            Stream { body: response.into_body(), text: String::new() }
        }
    }

    impl Stream {
        /// The next event: its name, its id, its number in the journal.
        async fn next(&mut self) -> (String, String, Option<u64>) {
            loop {
                if let Some((block, rest)) = self.text.split_once("\n\n") {
                    let field = |name: &str| {
                        block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
                    };
                    let data: serde_json::Value = serde_json::from_str(&field("data:")).unwrap();
                    let event = (field("event:"), field("id:"), data["seq"].as_u64());
                    self.text = rest.to_owned();
                    return event;
                }
                let frame = self.body.frame().await.unwrap().unwrap();
                self.text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            }
        }

        async fn take(&mut self, count: usize) -> Vec<u64> {
            let mut taken = Vec::new();
            for _ in 0..count {
                taken.push(self.next().await.2.unwrap());
            }
            taken
        }
    }

    #[tokio::test]
    async fn a_stream_that_is_cut_anywhere_goes_on_without_a_gap_and_without_a_duplicate() {
        let endpoint = endpoint("127.0.0.1");
        let tree = &endpoint.tree;
        tree.journals(9, 0, 3);
        let mut seen = Vec::new();
        let mut last: Option<String> = None;
        for round in 1..=20_u64 {
            let mut stream = endpoint.stream(last.as_deref()).await;
            // Some wait already, some come while it is read, some are sent and never read.
            tree.journals(9, 0, round * 5);
            for _ in 0..(round % 4) {
                let (name, id, seq) = stream.next().await;
                assert_eq!(name, "happened");
                seen.push(seq.unwrap());
                last = Some(id);
            }
        }
        let mut stream = endpoint.stream(last.as_deref()).await;
        while seen.len() < 100 {
            seen.push(stream.next().await.2.unwrap());
        }
        assert_eq!(seen, (1..=100).collect::<Vec<u64>>());
    }

    #[tokio::test]
    async fn what_was_dropped_unread_is_told_to_be_missing() {
        let endpoint = endpoint("127.0.0.1");
        endpoint.tree.journals(9, 0, 4);
        let mut stream = endpoint.stream(Some("9-2")).await;
        assert_eq!(stream.take(2).await, [3, 4]);
        drop(stream);
        endpoint.tree.journals(9, 6, 8);
        let mut stream = endpoint.stream(Some("9-4")).await;
        assert_eq!(stream.next().await.0, "gap");
        assert_eq!(stream.take(2).await, [7, 8]);
    }

    #[tokio::test]
    async fn another_journal_is_told_and_read_from_its_beginning() {
        let endpoint = endpoint("127.0.0.1");
        endpoint.tree.journals(9, 0, 40);
        let mut stream = endpoint.stream(Some("9-39")).await;
        assert_eq!(stream.next().await.1, "9-40");
        endpoint.tree.journals(10, 0, 2);
        assert_eq!(stream.next().await.0, "gap");
        assert_eq!(stream.next().await.1, "10-1");
        assert_eq!(stream.next().await.1, "10-2");
        let mut late = endpoint.stream(Some("9-40")).await;
        assert_eq!(late.next().await.0, "gap");
        assert_eq!(late.take(2).await, [1, 2]);
    }

    #[tokio::test]
    async fn an_id_that_is_none_of_ours_is_refused() {
        let endpoint = endpoint("127.0.0.1");
        for wrong in ["", "7", "-", "9-", "x-1", "9-1-1", "9-99999999999999999999"] {
            let request = Request::get("/api/v1/events/stream").header(header::HOST, "localhost");
            let request = request.header("last-event-id", wrong).body(Body::empty()).unwrap();
            assert_eq!(endpoint.send(request).await.status(), StatusCode::BAD_REQUEST, "{wrong}");
        }
    }
}
