//! Plays the scenarios of `tests/sim/scenarios` in virtual time: run by `tests/sim/run`, explained in
//! `docs/performance.md`.
//!
//! The rules are `protocol`'s, and so is the simulator ([`protocol::sim`]); here are files, seeds, threads, and words. A
//! run that breaks what must hold is a failure, told with the seed that plays it again.

#![allow(missing_docs, clippy::cast_precision_loss)]

pub(crate) mod batch;
pub(crate) mod files;
pub(crate) mod plot;
pub(crate) mod row;
mod scale;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use clap::Parser;
use protocol::sim::{Outcome, Sim};

use self::{batch::Batch, files::Play, row::Row};

/// Whose marks the table of scenarios stands between.
const WRITER: &str = "tests/sim/run";

/// Plays members in virtual time, and looks at what must hold.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Only this scenario, by the name of its file; as often as wanted.
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,

    /// Only this seed; needs one scenario.
    #[arg(long, requires = "scenario")]
    seed: Option<u64>,

    /// So many seeds of each scenario.
    #[arg(long, default_value_t = 8)]
    seeds: u64,

    /// The first of them; drawn from the date where absent.
    #[arg(long)]
    first_seed: Option<u64>,

    /// Begins with each scenario where its row in the document ends, and adds to that row.
    #[arg(long, requires = "document", conflicts_with = "first_seed")]
    more: bool,

    /// Plays no further seed after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    within: Option<u64>,

    /// Plays those too that wait for rules that are still to come.
    #[arg(long)]
    waiting: bool,

    /// Instead: so many nodes and a hundredth of indexers, at least ten, for a simulated hour.
    #[arg(long, value_name = "NODES")]
    scale: Vec<u32>,

    /// Writes plots of a single run here.
    #[arg(long, value_name = "FOLDER", requires = "seed")]
    plot: Option<PathBuf>,

    /// Writes the log of a single run here.
    #[arg(long, value_name = "FILE", requires = "seed")]
    log: Option<PathBuf>,

    /// Writes the result between the marks of this page.
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,

    /// Given by `cargo test` and of no meaning here.
    #[arg(long, hide = true)]
    nocapture: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match play(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

pub(crate) fn play(args: &Args) -> Result<bool, String> {
    if !args.scale.is_empty() {
        return scale::table(&args.scale, args.document.as_deref());
    }
    let plays = files::read(&args.scenario, args.waiting)?;
    match (args.seed, plays.as_slice()) {
        (Some(seed), [play]) => return replay(args, play, seed),
        (Some(_), _) => return Err(format!("got {} scenarios, expected one of which to play a seed", plays.len())),
        (None, _) => {}
    }
    let before = match &args.document {
        Some(page) if args.more => files::read_rows(page, WRITER)?,
        _ => Vec::new(),
    };
    let row_of = |name: &str| before.iter().find(|row| row.name == name);
    let first = match (args.more, args.first_seed) {
        (true, _) => plays.iter().map(|play| row_of(&play.name).map_or(0, Row::next)).collect(),
        (false, first) => vec![first.unwrap_or_else(batch::seed_of_the_day); plays.len()],
    };
    let results = Batch { first, seeds: args.seeds, within: args.within }.run(&plays);
    let rows: Vec<Row> = results
        .iter()
        .filter_map(Row::of)
        .map(|row| {
            let before = row_of(&row.name);
            row.after(before)
        })
        .collect();
    println!("{}", last_words(&results, &rows));
    if let Some(page) = &args.document {
        files::write_rows(page, WRITER, &rows)?;
    }
    Ok(results.iter().all(|result| result.failed.is_empty()))
}

/// What is said at the end: each seed that failed, and the table.
pub(crate) fn last_words(results: &[batch::Result], rows: &[Row]) -> String {
    let failed = results.iter().filter_map(batch::Result::again);
    let table = [row::HEAD.to_owned()].into_iter().chain(rows.iter().map(Row::to_string));
    failed.chain(table).collect::<Vec<_>>().join("\n")
}

/// One run, told in full.
fn replay(args: &Args, play: &Play, seed: u64) -> Result<bool, String> {
    let began = Instant::now();
    let sim = Sim::new(play.scenario.clone(), seed, args.log.is_some()).map_err(|error| error.to_string())?;
    let outcome = sim.run();
    tell(play, &outcome);
    let (took, length) = (began.elapsed(), play.scenario.length.0);
    println!(
        "{} events and {} lines in {:.2} s, {:.0} times as fast as life",
        outcome.events,
        outcome.lines,
        took.as_secs_f64(),
        length.as_secs_f64() / took.as_secs_f64()
    );
    if let (Some(file), Some(log)) = (&args.log, &outcome.log) {
        std::fs::write(file, log).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if let Some(folder) = &args.plot {
        plot::write(folder, &play.name, &outcome)?;
    }
    Ok(outcome.is_kept())
}

fn tell(play: &Play, outcome: &Outcome) {
    println!("{} seed {}: {}", play.name, outcome.seed, play.scenario.about);
    println!("log {}", outcome.hash);
    for met in &outcome.met {
        let words = files::words(&met.expectation);
        match (&met.failed, met.at) {
            (Some((at, why)), _) => println!("  FAILED {words}: after {:.1} s {why}", at.as_secs_f64()),
            (None, Some(at)) => println!("  kept   {words}: first after {:.1} s", at.as_secs_f64()),
            (None, None) => println!("  unseen {words}"),
        }
    }
    for violation in &outcome.violations {
        println!("  BROKEN after {:.3} s by {}: {}", violation.at.as_secs_f64(), violation.who, violation.what);
    }
}
