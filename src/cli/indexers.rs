//! `muster indexers`: the pool, and with `--explain` what every score rests on.

use std::fmt::Write as _;

use actors::view::{IndexerView, MemberState};
use comfy_table::{Cell, Color};
use jiff::Timestamp;

use super::{
    Context,
    exit::Failure,
    output::{ago, clean, or_dash, table},
};

/// Flags of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show what every score rests on.
    #[arg(long)]
    explain: bool,
}

/// Asks and shows.
pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let indexers: Vec<IndexerView> = context.client()?.get("/api/v1/indexers").await?;
    let now = Timestamp::now();
    context.output.list(&indexers, |indexers| match (indexers, args.explain) {
        ([], _) => "the pool is empty: no indexer is known yet".to_owned(),
        (indexers, false) => overview(indexers, now),
        (indexers, true) => indexers.iter().map(|indexer| explanation(indexer, now)).collect::<Vec<_>>().join("\n"),
    })
}

const fn state(state: MemberState) -> (&'static str, Color) {
    match state {
        MemberState::Joining => ("joining", Color::Reset),
        MemberState::Answering => ("answering", Color::Green),
        MemberState::Suspect => ("suspect", Color::Yellow),
        MemberState::Down => ("down", Color::Red),
        MemberState::Standby => ("standby", Color::Cyan),
    }
}

fn score(indexer: &IndexerView) -> String {
    indexer.score.map_or_else(|| "–".to_owned(), |score| format!("{score:.1}"))
}

fn fill(indexer: &IndexerView) -> String {
    match (indexer.fill_rate, indexer.peer_count, indexer.max_nodes) {
        (_, Some(count), Some(most)) => format!("{count} of {most}"),
        (Some(rate), ..) => format!("{:.0} %", rate * 100.0),
        _ => "–".to_owned(),
    }
}

fn millis(millis: Option<f64>) -> String {
    millis.map_or_else(|| "–".to_owned(), |millis| format!("{millis:.1} ms"))
}

fn marks(indexer: &IndexerView) -> String {
    let marks = [(indexer.referent, "referent"), (indexer.seed, "seed"), (indexer.sticky, "sticky")];
    or_dash(&marks.into_iter().filter(|(is, _)| *is).map(|(_, mark)| mark).collect::<Vec<_>>().join(", "))
}

fn overview(indexers: &[IndexerView], now: Timestamp) -> String {
    let mut table =
        table(["name", "state", "score", "round trip", "nodes", "beats", "missed", "answered", "", "peer id"]);
    for indexer in indexers {
        let (word, hue) = state(indexer.state);
        table.add_row([
            Cell::new(or_dash(&indexer.name)),
            Cell::new(word).fg(hue),
            Cell::new(score(indexer)),
            Cell::new(millis(indexer.rtt_ms)),
            Cell::new(fill(indexer)),
            Cell::new(indexer.beats),
            Cell::new(indexer.missed),
            Cell::new(indexer.last_answer.map_or_else(|| "never".to_owned(), |answer| ago(now, answer))),
            Cell::new(marks(indexer)),
            Cell::new(indexer.peer_id),
        ]);
    }
    table.to_string()
}

fn explanation(indexer: &IndexerView, now: Timestamp) -> String {
    let mut text = format!("{} {} {}\n", or_dash(&indexer.name), indexer.peer_id, state(indexer.state).0);
    let _ = writeln!(text, "  score {}, goes below {:.1}; {}", score(indexer), indexer.threshold, marks(indexer));
    if let Some(born) = indexer.born_at {
        let _ = writeln!(text, "  its process started {}", ago(now, born));
    }
    let known: f64 = indexer.parts.iter().filter(|part| part.value.is_some()).map(|part| part.weight).sum();
    let mut table = table(["part", "value", "weight", "points", "evidence"]);
    for part in &indexer.parts {
        // The weights of parts without evidence are shared among the others.
        let weight = if known > 0.0 && part.value.is_some() { part.weight / known } else { 0.0 };
        table.add_row([
            clean(&part.name),
            part.value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.3}")),
            format!("{:.0} %", weight * 100.0),
            part.value.map_or_else(|| "–".to_owned(), |value| format!("{:.1}", 100.0 * weight * value)),
            clean(&part.evidence),
        ]);
    }
    let _ = writeln!(text, "{table}");
    text
}
