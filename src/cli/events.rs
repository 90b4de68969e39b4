//! `muster events`: what happened lately.

use actors::view::EventView;

use super::{
    Context,
    exit::Failure,
    output::{clean, table},
};

/// Arguments of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only what happened after this event.
    #[arg(long, default_value_t = 0, value_name = "SEQ")]
    since: u64,
}

/// Asks and shows.
pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let events: Vec<EventView> = context.client()?.get(&format!("/api/v1/events?since={}", args.since)).await?;
    context.output.list(&events, text)
}

fn text(events: &[EventView]) -> String {
    if events.is_empty() {
        return "nothing happened".to_owned();
    }
    let mut table = table(["#", "at", "what", "about", "detail"]);
    for event in events {
        table.add_row([
            event.seq.to_string(),
            format!("{:.3}", event.at),
            clean(&event.kind),
            clean(&event.subject),
            clean(&event.detail),
        ]);
    }
    table.to_string()
}
