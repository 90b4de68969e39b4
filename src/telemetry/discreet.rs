//! Keeps the log discreet where a library is not: below a level some write addresses with the passwords in them.

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{Layer, layer::Context};

/// async-nats writes the whole address of a server at `debug`, whoever asks for it.
const INDISCREET: [&str; 1] = ["async_nats"];

/// Leaves out what such libraries tell at `debug` and `trace`, whatever the level says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Discreet;

impl<S: Subscriber> Layer<S> for Discreet {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let library = metadata.target().split("::").next().unwrap_or_default();
        *metadata.level() <= Level::INFO || !INDISCREET.contains(&library)
    }
}
