//! `muster indexers`: the pool, with `--explain` what every score rests on, and with `--recompute` the proof of it.

use std::{fmt::Write as _, io::Read as _, path::Path};

use actors::view::{ExplainView, IndexerView, MemberState};
use comfy_table::{Cell, Color};
use jiff::Timestamp;
use protocol::score::{Explained, SURE, Suspicions, Verdict};

use super::{
    Context,
    client::escaped,
    exit::{Exit, Failure},
    output::{ago, clean, or_dash, speed, table},
};

/// Flags of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show what every score rests on: its parts, every event behind them, and what was decided. Of one indexer where its
    /// peer id is given, also when it is no member any more.
    #[arg(long, value_name = "PEER ID", num_args = 0..=1)]
    explain: Option<Option<String>>,

    /// Compute the scores in this file again, as `--explain --output json` wrote it; `-` reads the standard input.
    /// Needs no daemon.
    #[arg(long, value_name = "FILE", conflicts_with = "explain")]
    recompute: Option<std::path::PathBuf>,
}

/// A file to compute again: a pool of members with full ledgers, and much room.
const LEDGERS_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Asks and shows.
pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    if let Some(file) = &args.recompute {
        return recompute(file, context);
    }
    let client = context.client()?;
    let now = Timestamp::now();
    if let Some(Some(peer)) = &args.explain {
        let explained: ExplainView = client.get(&explain_path(peer)).await?;
        return context.output.list(&[explained], |explained| explained.iter().map(|view| whole(view, now)).collect());
    }
    let indexers: Vec<IndexerView> = client.get("/api/v1/indexers").await?;
    if args.explain.is_none() {
        return context.output.list(&indexers, |indexers| match indexers {
            [] => EMPTY.to_owned(),
            indexers => overview(indexers, now),
        });
    }
    let mut explained = Vec::new();
    for indexer in &indexers {
        match client.get::<ExplainView>(&explain_path(&indexer.peer_id.to_string())).await {
            Ok(view) => explained.push(view),
            // It left the pool between the two questions.
            Err(failure) if failure.exit == Exit::NotFound => {}
            Err(failure) => return Err(failure),
        }
    }
    context.output.list(&explained, |explained| match explained {
        [] => EMPTY.to_owned(),
        explained => explained.iter().map(|view| whole(view, now)).collect::<Vec<_>>().join("\n"),
    })
}

fn explain_path(peer: &str) -> String {
    format!("/api/v1/indexers/{}/explain", escaped(peer))
}

/// Said of a pool without members.
const EMPTY: &str = "the pool is empty: no indexer is known yet";

/// Computes every score of a file again; one that its events do not give is a broken promise.
fn recompute(file: &Path, context: &Context) -> Result<(), Failure> {
    let unreadable = |cause: String| {
        Failure::new(Exit::Usage, format!("cannot read {}", file.display()))
            .why(cause)
            .next("write it with: muster indexers --explain --output json")
    };
    let text = read(file).map_err(|cause| unreadable(cause.to_string()))?;
    let views: Vec<ExplainView> = serde_json::from_str(&text).map_err(|cause| unreadable(cause.to_string()))?;
    let proofs: Vec<Proof> = views.iter().filter_map(|view| view.explained.as_ref()).map(Proof::of).collect();
    context.output.list(&proofs, |proofs| proofs.iter().map(Proof::text).collect::<Vec<_>>().join("\n"))?;
    match proofs.iter().all(|proof| proof.holds) {
        true => Ok(()),
        false => Err(Failure::new(Exit::Failed, "a score is not what its events give")
            .why("the file was changed, or was written on another kind of machine")),
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    match file.to_str() {
        Some("-") => std::io::stdin().lock().take(LEDGERS_BYTES_MAX).read_to_string(&mut text)?,
        _ => std::fs::File::open(file)?.take(LEDGERS_BYTES_MAX).read_to_string(&mut text)?,
    };
    Ok(text)
}

/// A score beside the one that its events give.
#[derive(Debug, serde::Serialize)]
struct Proof {
    peer_id: String,
    shown: Option<Verdict>,
    recomputed: Option<Verdict>,
    events: usize,
    decisions: usize,
    holds: bool,
}

impl Proof {
    fn of(explained: &Explained) -> Self {
        Self {
            peer_id: explained.peer_id.to_string(),
            shown: explained.score.as_ref().map(Verdict::from),
            recomputed: explained.recomputed().as_ref().map(Verdict::from),
            events: explained.ledger.entries().len(),
            decisions: explained.ledger.decisions().len(),
            holds: explained.holds(),
        }
    }

    fn text(&self) -> String {
        let word = if self.holds { "the same to the last bit" } else { "NOT the same" };
        let value =
            |verdict: Option<Verdict>| verdict.map_or_else(|| "–".to_owned(), |verdict| verdict.value.to_string());
        let (shown, again) = (value(self.shown), value(self.recomputed));
        format!("{} {shown} shown, {again} from {} events: {word}", self.peer_id, self.events)
    }
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

/// The parts, and then every event and decision behind them, oldest first.
fn whole(view: &ExplainView, now: Timestamp) -> String {
    let gone = || {
        view.explained.as_ref().map(|explained| format!("{} {} no member\n", or_dash(&view.name), explained.peer_id))
    };
    let shown = view.indexer.as_ref().map(|indexer| explanation(indexer, now));
    let mut text = shown.or_else(gone).unwrap_or_default();
    let Some(explained) = &view.explained else { return text };
    if let Some(score) = &explained.score {
        let (low, high) = (score.low, score.high);
        let _ = writeln!(text, "  the score lies between {low:.1} and {high:.1}; judged by the upper end");
        text.push_str(&suspicions(&score.suspicions));
    }
    let ledger = &explained.ledger;
    let before = ledger.count() - ledger.entries().len() as u64;
    if before > 0 {
        let _ = writeln!(text, "  {before} older events are one by now");
    }
    let events = ledger.entries().map(|entry| (entry.at, entry.seen.to_string()));
    let decisions = ledger.decisions().map(|decided| (decided.at, decision(decided.what.to_string(), decided.verdict)));
    let mut lines: Vec<_> = events.chain(decisions).collect();
    lines.sort_by_key(|(at, _)| *at);
    for (at, line) in lines {
        let _ = writeln!(text, "  {:>12}  {}", ago(now, explained.wall(at)), clean(&line));
    }
    text
}

/// What speaks for its being a liar, the most first.
fn suspicions(suspicions: &Suspicions) -> String {
    let mut sums: Vec<_> = suspicions.sums().collect();
    sums.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let words: Vec<String> = sums.iter().map(|(check, sum)| format!("{} {sum:.1}", check.name())).collect();
    match (words.is_empty(), suspicions.is_caught()) {
        (true, _) => String::new(),
        (false, false) => format!("  failed checks speak against it: {}; {SURE} is proof\n", words.join(", ")),
        (false, true) => format!("  caught, its score is 0: {}; {SURE} is proof\n", words.join(", ")),
    }
}

fn decision(what: String, verdict: Option<Verdict>) -> String {
    match verdict {
        Some(Verdict { value, low, high, threshold }) => {
            format!("→ {what}: score {value:.1} ({low:.1} to {high:.1}), threshold {threshold:.1}")
        }
        None => format!("→ {what}"),
    }
}

fn explanation(indexer: &IndexerView, now: Timestamp) -> String {
    let mut text = format!("{} {} {}\n", or_dash(&indexer.name), indexer.peer_id, state(indexer.state).0);
    let _ = writeln!(text, "  score {}, goes below {:.1}; {}", score(indexer), indexer.threshold, marks(indexer));
    if let Some(born) = indexer.born_at {
        let _ = writeln!(text, "  its process started {}", ago(now, born));
    }
    if let Some(bytes_per_sec) = indexer.bytes_per_sec {
        let _ = writeln!(text, "  sends us {}", speed(bytes_per_sec));
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
