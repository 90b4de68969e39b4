//! `muster trace`: how many members a broadcast reaches, and how fast.

use actors::view::TraceView;
use hyper::Method;

use super::{
    Context,
    exit::{Exit, Failure},
    output::{or_dash, table},
};

/// The slowest are what one looks for.
const SHOWN_MAX: usize = 20;

/// Sends a beacon, waits for the echoes, and shows them.
pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let trace: TraceView = context.client_that_changes()?.change(Method::POST, "/api/v1/trace", None).await?;
    context.output.one(&trace, text)?;
    match trace.reached.is_empty() {
        true => Err(Failure::new(Exit::Partial, "")),
        false => Ok(()),
    }
}

fn text(trace: &TraceView) -> String {
    let reached = trace.reached.len();
    let (Some(half), Some(most), Some(slowest)) = (trace.p50_ms, trace.p99_ms, trace.reached.last()) else {
        return format!("nobody answered in {} s; `muster peers` shows who is connected", trace.listened_ms / 1_000);
    };
    let mut rows = table(["name", "peer id", "reached after"]);
    for member in trace.reached.iter().rev().take(SHOWN_MAX) {
        rows.add_row([or_dash(&member.name), member.peer_id.to_string(), format!("{:.1} ms", member.after_ms)]);
    }
    let left_out = match reached.checked_sub(SHOWN_MAX) {
        None | Some(0) => String::new(),
        Some(faster) => format!("\n… and {faster} faster ones"),
    };
    let more = if trace.truncated { ", and more than are counted" } else { "" };
    format!(
        "{rows}{left_out}\n{reached} members reached{more}: half within {half:.1} ms, 99 % within {most:.1} ms, all within {:.1} ms",
        slowest.after_ms
    )
}

#[cfg(test)]
mod tests {
    use actors::view::ReachedView;

    use super::*;

    fn trace(count: u32) -> TraceView {
        let reached = (0..count).map(|number| ReachedView {
            peer_id: crate::admin::testing::peer(),
            name: format!("member-{number}\u{1b}"),
            after_ms: f64::from(number),
        });
        let (p50_ms, p99_ms) = if count > 0 { (Some(1.0), Some(2.0)) } else { (None, None) };
        TraceView { reached: reached.collect(), p50_ms, p99_ms, truncated: false, listened_ms: 5_000 }
    }

    #[test]
    fn the_slowest_are_shown_first_and_the_rest_is_counted() {
        let text = text(&trace(25));
        let first = text.lines().nth(2).unwrap_or_default();
        assert!(first.contains("member-24\u{fffd}"), "{text}");
        assert!(!text.contains("member-4\u{fffd}") && text.contains("and 5 faster ones"), "{text}");
        assert!(
            text.contains("25 members reached: half within 1.0 ms, 99 % within 2.0 ms, all within 24.0 ms"),
            "{text}"
        );
    }

    #[test]
    fn nobody_reached_is_said_in_words() {
        assert!(text(&trace(0)).starts_with("nobody answered in 5 s"));
    }
}
