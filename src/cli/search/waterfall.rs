//! `muster search --trace`: where the time of a search went, as a table, with bars on a terminal.

use std::fmt::Write as _;

use actors::view::{AskedView, WaterfallView};
use console::Term;
use protocol::trace::{How, Outcome};

use crate::cli::output::{short, table};

/// Characters of a bar at most: more say nothing more.
const BAR_CHARS_MAX: usize = 40;

/// Characters of a bar that still shows something.
const BAR_CHARS_MIN: usize = 8;

/// What the columns beside the bar take, as wide as they get.
const BESIDE_CHARS: usize = 88;

/// A waterfall as people read it.
pub(super) fn text(trace: &str) -> String {
    match serde_json::from_str::<WaterfallView>(trace) {
        Ok(trace) => drawn(&trace, bar_chars()),
        Err(cause) => format!("a trace that cannot be shown: {cause}"),
    }
}

/// How long bars may be; 0 into a pipe, and where the terminal is too narrow for any.
fn bar_chars() -> usize {
    let terminal = Term::stdout();
    let room = terminal.size_checked().map_or(0, |(_, columns)| usize::from(columns).saturating_sub(BESIDE_CHARS));
    if terminal.is_term() && room >= BAR_CHARS_MIN { room.min(BAR_CHARS_MAX) } else { 0 }
}

fn drawn(trace: &WaterfallView, bar_chars: usize) -> String {
    let mut rows = table(["ASKED", "HOW", "AT", "CONNECTED", "FIRST", "LAST", "HITS", "INDEXERS", "OUTCOME", "TIME"]);
    for asked in &trace.asked {
        rows.add_row([
            short(&asked.peer_id.to_string()),
            how(asked.how).to_owned(),
            millis(Some(asked.asked_ms)),
            millis(asked.connected_ms),
            millis(asked.first_ms),
            millis(asked.last_ms),
            asked.hits.to_string(),
            asked.indexers.map_or("–".to_owned(), |tally| format!("{} of {}", tally.answered, tally.asked)),
            outcome(asked.outcome).to_owned(),
            bar(asked, trace.took_ms, bar_chars),
        ]);
    }
    if bar_chars == 0 {
        // A column of nothing is no column.
        let last = rows.column_count().saturating_sub(1);
        if let Some(time) = rows.column_mut(last) {
            time.set_constraint(comfy_table::ColumnConstraint::Hidden);
        }
    }
    let mut text = format!("trace {} took {:.1} ms, times in ms\n{rows}", trace.trace_id, trace.took_ms);
    if trace.left_out > 0 {
        // Writing into a string cannot fail.
        let _ = write!(text, "\nand {} more", trace.left_out);
    }
    text
}

fn millis(millis: Option<f64>) -> String {
    millis.map_or("–".to_owned(), |millis| format!("{millis:.1}"))
}

const fn how(how: How) -> &'static str {
    match how {
        How::Stream => "stream",
        How::Gossip => "gossip",
        How::Here => "here",
    }
}

const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered => "answered",
        Outcome::Refused => "refused",
        Outcome::Lost => "lost",
        Outcome::Open => "no last word",
    }
}

/// Asked to connected, connected to the first answer, the first answer to the last: `┄┄──━━━`.
fn bar(asked: &AskedView, took_ms: f64, chars: usize) -> String {
    let whole = if took_ms > 0.0 { took_ms } else { 1.0 };
    // What is outside of the search is drawn at its edge.
    let place = |ms: f64| ((ms / whole).clamp(0.0, 1.0) * chars as f64).round() as usize;
    let end = match asked.outcome {
        Outcome::Open => whole,
        _ => asked.last_ms.unwrap_or(whole),
    };
    let first = asked.first_ms.unwrap_or(end);
    let connected = asked.connected_ms.unwrap_or(asked.asked_ms).min(first);
    let (from, connected, first) = (place(asked.asked_ms), place(connected), place(first));
    // Whatever was so short that it has no place still has a mark.
    let to = place(end).max(first + usize::from(asked.first_ms.is_some())).max(from + 1);
    let mark = |at: usize| match at {
        at if at < from || at >= to => ' ',
        at if at < connected => '┄',
        at if at < first || asked.first_ms.is_none() => '─',
        _ => '━',
    };
    (0..chars).map(mark).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use protocol::{identity::Keys, search::Tally};

    use super::*;

    fn asked(asked_ms: f64, connected_ms: Option<f64>, first_ms: Option<f64>, last_ms: Option<f64>) -> AskedView {
        AskedView {
            peer_id: Keys::from_seed([1; 32]).peer_id(),
            how: How::Stream,
            asked_ms,
            connected_ms,
            first_ms,
            last_ms,
            hits: 2,
            outcome: if last_ms.is_some() { Outcome::Answered } else { Outcome::Open },
            indexers: Some(Tally { asked: 3, answered: 2, timed_out: 1, truncated: false }),
        }
    }

    fn trace(asked: Vec<AskedView>, left_out: u32) -> WaterfallView {
        let began_at = jiff::Timestamp::UNIX_EPOCH;
        WaterfallView { trace_id: "0a".repeat(16), began_at, took_ms: 32.0, asked, left_out }
    }

    #[test]
    fn a_bar_shows_the_dial_the_wait_and_the_answers() {
        let bar = |asked: AskedView| bar(&asked, 32.0, 32);
        assert_eq!(bar(asked(0.0, Some(2.0), Some(5.0), Some(8.0))), "┄┄───━━━");
        assert_eq!(bar(asked(4.0, Some(4.0), Some(4.0), Some(4.0))), "    ━", "what took no time has a mark");
        assert_eq!(bar(asked(0.0, None, None, None)), "─".repeat(32), "who never answered lasts to the end");
        assert_eq!(bar(asked(99.0, Some(99.0), Some(99.0), Some(99.0))), "", "and nothing is drawn beside the page");
    }

    #[test]
    fn no_time_at_all_is_drawn_as_well() {
        assert_eq!(super::bar(&asked(0.0, Some(0.0), Some(0.0), Some(0.0)), 0.0, 32), "━");
    }

    #[test]
    fn without_a_terminal_there_are_numbers_and_no_bars() {
        let trace = trace(vec![asked(0.0, Some(2.0), Some(5.0), Some(8.04))], 0);
        let plain = drawn(&trace, 0);
        assert!(plain.contains(&"0a".repeat(16)) && plain.contains("2 of 3") && plain.contains("8.0"), "{plain}");
        assert!(!plain.contains('━') && !plain.contains("TIME"), "{plain}");
        assert!(drawn(&trace, 32).contains('━'));
    }

    #[test]
    fn what_is_left_out_is_said() {
        assert!(drawn(&trace(Vec::new(), 3), 0).ends_with("and 3 more"));
    }
}
