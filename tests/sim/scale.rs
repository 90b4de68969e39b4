//! A large network for an hour: what a node sends and how load lies, for several sizes.

use std::{fmt::Write as _, path::Path, time::Instant};

use protocol::sim::{Kind, Outcome, Sim, scenario::Scenario};

use super::{batch::spent, files};

/// The same for all sizes, so that tables of two days can be compared.
const SEED: u64 = 1;

/// So many indexers there are at least, for pools to be full at every size: a node with one member asks nobody about it.
const INDEXERS_MIN: u32 = 10;

/// From here on everybody has joined, seconds; what is sent is counted from here to the end.
const JOINED_SECS: u64 = 600;

/// Plays every size and prints the table.
pub(crate) fn table(sizes: &[u32], page: Option<&Path>) -> Result<bool, String> {
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let mut text = format!(
        "{date}, seed {SEED}, one core. Counted from minute {} to the end.\n\n\
         | nodes | indexers | messages per node and minute | bytes per node and minute | load max ÷ mean | pools, least and mean | kept | processor time |\n\
         |---|---|---|---|---|---|---|---|\n",
        JOINED_SECS / 60
    );
    let mut is_kept = true;
    for nodes in sizes {
        let clock = Instant::now();
        let began = spent(clock);
        let scenario = scenario(*nodes)?;
        let outcome = Sim::new(scenario, SEED, false).map_err(|error| error.to_string())?.run();
        is_kept &= outcome.is_kept();
        let took = spent(clock).saturating_sub(began);
        let row = row(*nodes, &outcome, took.as_secs());
        println!("{row}");
        println!("  log {}, {} events, {} s by the clock", outcome.hash, outcome.events, clock.elapsed().as_secs());
        for violation in outcome.violations.iter().take(3) {
            println!("  BROKEN after {:.3} s by {}: {}", violation.at.as_secs_f64(), violation.who, violation.what);
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{row}");
    }
    println!("\n{text}");
    if let Some(page) = page {
        files::write_between(page, "tests/sim/run --scale", &text)?;
    }
    Ok(is_kept)
}

fn scenario(nodes: u32) -> Result<Scenario, String> {
    let indexers = (nodes / 100).max(INDEXERS_MIN);
    let text = format!(
        "about = \"{nodes} nodes and {indexers} indexers for an hour\"\n\
         length = \"1h\"\ncheck_every = \"10s\"\n\
         [[members]]\nname = \"i\"\nrole = \"indexer\"\ncount = {indexers}\nmax_nodes = 1000\n\
         seeds = [\"i\"]\nseeds_drawn = 3\nstart_within = \"10s\"\n\
         [[members]]\nname = \"n\"\nrole = \"node\"\ncount = {nodes}\nseeds = [\"i\"]\nseeds_drawn = 3\n\
         start = \"20s\"\nstart_within = \"120s\"\n"
    );
    toml_edit::de::from_str(&text).map_err(|error| error.to_string())
}

fn row(nodes: u32, outcome: &Outcome, took: u64) -> String {
    let joined = outcome.samples.iter().find(|sample| sample.at.as_secs() >= JOINED_SECS);
    let (Some(joined), Some(last)) = (joined, outcome.samples.last()) else { return "too short".to_owned() };
    let minutes = (last.at - joined.at).as_secs_f64() / 60.0;
    let traffic = last.traffic.since(&joined.traffic);
    let (messages, bytes) = traffic.all();
    let per = |count: u64| count as f64 / f64::from(nodes) / minutes;
    for kind in Kind::ALL {
        let (messages, bytes) = traffic.of(kind);
        println!("  {}: {:.2} messages and {:.0} bytes per node and minute", kind.name(), per(messages), per(bytes));
    }
    let sessions: Vec<f64> = last.sessions.iter().flatten().map(|sessions| f64::from(*sessions)).collect();
    let mean = sessions.iter().sum::<f64>() / sessions.len() as f64;
    let ratio = sessions.iter().copied().fold(0.0, f64::max) / mean;
    let (least, pooled, _) = last.pooled;
    let kept = if outcome.is_kept() { "yes" } else { "NO" };
    format!(
        "| {nodes} | {} | {:.1} | {:.0} | {ratio:.2} | {least:.0} and {pooled:.2} | {kept} | {took} s |",
        outcome.indexers.len(),
        per(messages),
        per(bytes)
    )
}
