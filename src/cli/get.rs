//! `muster get KEY`: looks a member up by peer id, DID or exact name.

use std::fmt::Write as _;

use actors::view::RecordView;
use jiff::Timestamp;

use super::{
    Context,
    client::escaped,
    exit::{Exit, Failure},
    output::{clean, span},
};

/// Arguments of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A peer id, a DID or an exact name.
    key: String,
}

/// Asks and shows.
pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let key = args.key.trim();
    if key.is_empty() {
        return Err(Failure::new(Exit::Usage, "nothing to look up").next("name a peer id, a DID or an exact name"));
    }
    let found = context.client()?.get::<Vec<RecordView>>(&format!("/api/v1/records/{}", escaped(key))).await;
    let found = found.map_err(|failure| match failure.exit {
        Exit::NotFound => failure.next(format!("for a part of a name: muster search {}", clean(key))),
        _ => failure,
    })?;
    context.output.list(&found, |found| {
        let now = Timestamp::now();
        found.iter().map(|record| text(record, now)).collect::<Vec<_>>().join("\n")
    })
}

fn text(record: &RecordView, now: Timestamp) -> String {
    let left = record.expiry_date.as_millisecond().saturating_sub(now.as_millisecond());
    let mut text = format!("{}\n", clean(&record.name));
    let _ = writeln!(text, "  peer id    {}", record.peer_id);
    let _ = writeln!(text, "  did        {}", clean(&record.did));
    let _ = writeln!(text, "  valid      {} more, seq {}", span(u64::try_from(left).unwrap_or(0)), record.seq);
    let _ = writeln!(text, "  found in   {}", clean(&record.source));
    let _ = writeln!(text, "  record     {}", clean(record.record.get()));
    text
}
