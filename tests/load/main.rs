//! What muster costs, measured: run by `tests/load/run`, explained in `docs/performance.md`.
//!
//! Thin nodes in this process beat against real indexers and against a floor, both processes of their own. Figures that
//! miss their goal are told and are no failure; a lost beat or a refused honest node is.

#![allow(missing_docs, clippy::cast_precision_loss, clippy::cast_possible_truncation)]

mod arrival;
mod beats;
mod broken;
mod churn;
mod crew;
mod dashboard;
mod figures;
mod floor;
mod member;
mod network;
mod newcomer;
mod offers;
#[path = "../it/harness/postgres.rs"]
mod postgres;
mod process;
mod sharing;
#[path = "../thin/mod.rs"]
mod thin;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    broken::{Broken, Outcome, While},
    crew::Register,
    figures::Row,
    newcomer::Shape,
    thin::Network,
};

/// Threads that drive the thin nodes.
const THREADS: usize = 2;

/// A thousand connections to each of four servers, and some for everything else.
const FILES_MIN: u64 = 4 * beats::NODES as u64 + 512;

/// A connection of each that arrives, and of those that have just been told to wait.
const FILES_MIN_CROWDS: u64 = 6_500;

/// Longer than any measurement takes: one that hangs is broken.
const WHOLE_WITHIN: Duration = Duration::from_secs(170);

/// The same of crowds, which keep the rules of the profile `public`.
const CROWDS_WITHIN: Duration = Duration::from_secs(900);

/// The same of searches among fifty organisations.
const OFFERS_WITHIN: Duration = Duration::from_secs(400);

/// Searches of each scope.
const SEARCHES: usize = 200;
const SEARCHES_QUICK: usize = 30;

/// The same of changes from bus to bus.
const SHARING_WITHIN: Duration = Duration::from_secs(300);

/// The same of the dashboard.
const PAGE_WITHIN: Duration = Duration::from_secs(200);

/// Changes of each round, and rounds.
const SHARING: sharing::Plan = sharing::Plan { rounds: 5, changes: 2_000 };
const SHARING_QUICK: sharing::Plan = sharing::Plan { rounds: 2, changes: 500 };

/// Nodes that arrive at once.
const ARRIVING: usize = 5_000;
const ARRIVING_QUICK: usize = 600;

/// Real nodes that have three indexers when a fourth comes.
const SETTLED: [Shape; 2] = [Shape { nodes: 300, pool: 1 }, Shape { nodes: 100, pool: 3 }];
const SETTLED_QUICK: [Shape; 2] = [Shape { nodes: 30, pool: 1 }, Shape { nodes: 30, pool: 3 }];

/// Measures muster against real processes on this machine's loopback.
#[derive(Debug, Parser)]
struct Args {
    /// Shorter rounds and fewer trials.
    #[arg(long)]
    quick: bool,

    /// Only these measurements.
    #[arg(long, value_enum)]
    only: Option<What>,

    /// Instead: so many nodes connect, beat once and go, one after another.
    #[arg(long, value_name = "CONNECTS")]
    churn: Option<usize>,

    /// Instead: a fourth indexer for hundreds of real nodes, and thousands of thin ones at once at one indexer.
    #[arg(long)]
    crowds: bool,

    /// Instead: searches for resources among fifty organisations, each with a node of its own.
    #[arg(long)]
    search: bool,

    /// Instead: changes from one organisation's bus to another's, and into either database.
    #[arg(long)]
    sharing: bool,

    /// Instead: the dashboard in a browser, first alone and then beside 500 nodes.
    #[arg(long)]
    page: bool,

    /// Nobody else uses this network: bytes are told, too; `run` sees to it.
    #[arg(long, hide = true)]
    alone: bool,

    /// Measures a floor against a floor, which should give 1.
    #[arg(long)]
    sanity: bool,

    /// Writes the table into its place in this document.
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,

    /// The chance from which keys and choices are drawn.
    #[arg(long)]
    seed: Option<u64>,

    /// Is the floor; for this program itself.
    #[arg(long, hide = true)]
    floor: bool,
}

impl Args {
    fn is_of_crowds(&self) -> bool {
        self.crowds || matches!(self.only, Some(What::Newcomer | What::Arrival))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Processor time and memory per node.
    Beats,
    /// Convergence, look-ups, searches, the death of an indexer.
    Network,
    /// Of the crowds: a fourth indexer.
    Newcomer,
    /// Of the crowds: thousands at once.
    Arrival,
}

/// Says that a server is not here, which ends a measurement that needs it.
fn skip(what: &str, why: &str) {
    eprintln!("{what}: {why}");
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = if args.floor { floor::run() } else { run(&args) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(broken) => {
            eprintln!("broken: {broken}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Outcome<()> {
    let (files, files_min) = (process::files_max(), if args.is_of_crowds() { FILES_MIN_CROWDS } else { FILES_MIN });
    if files < files_min {
        return Err(Broken::new(format!(
            "{files} open files are allowed, {files_min} are needed: ulimit -n {files_min}"
        )));
    }
    let whole_within = match args {
        _ if args.is_of_crowds() => CROWDS_WITHIN,
        Args { search: true, .. } => OFFERS_WITHIN,
        Args { sharing: true, .. } => SHARING_WITHIN,
        Args { page: true, .. } => PAGE_WITHIN,
        _ => WHOLE_WITHIN,
    };
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let rows = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            rows = broken::within(whole_within, "measuring", measure(args, seed)) => rows,
            // Ended by what is dropped here: processes and folders go, too.
            _ = tokio::signal::ctrl_c() => Err(Broken::new("interrupted")),
            _ = terminated.recv() => Err(Broken::new("told to end")),
        }
    })?;
    let table = figures::table(&rows);
    println!("\n{table}");
    match &args.document {
        Some(path) => {
            let command = match args {
                _ if args.is_of_crowds() => "tests/load/run --crowds",
                Args { search: true, .. } => "tests/load/run --search",
                Args { sharing: true, .. } => "tests/load/run --sharing",
                Args { page: true, .. } => "tests/load/run --page",
                _ => "tests/load/run",
            };
            figures::document(path, command, &table)
        }
        None => Ok(()),
    }
}

async fn measure(args: &Args, seed: u64) -> Outcome<Vec<Row>> {
    let folder = tempfile::Builder::new().prefix("muster-load-").tempdir()?;
    let mut chance = StdRng::seed_from_u64(seed);
    let mut key = [0; 32];
    chance.fill_bytes(&mut key);
    let register = Register::new(Network { key: Some(key), id: "load".to_owned() }, seed);
    if let Some(connects) = args.churn {
        return churn::measure(folder.path(), &register, connects).await.when("churn");
    }
    if args.search {
        let searches = if args.quick { SEARCHES_QUICK } else { SEARCHES };
        let plan = offers::Plan { searches, is_alone: args.alone };
        return offers::measure(folder.path(), &register, plan).await.when("searches for resources");
    }
    if args.sharing {
        let plan = if args.quick { SHARING_QUICK } else { SHARING };
        return sharing::measure(folder.path(), &register, plan).await.when("changes");
    }
    if args.page {
        return dashboard::measure(folder.path(), &register, args.quick).await.when("the dashboard");
    }
    if args.is_of_crowds() {
        let (arriving, settled) = if args.quick { (ARRIVING_QUICK, SETTLED_QUICK) } else { (ARRIVING, SETTLED) };
        let mut rows = Vec::new();
        if args.only != Some(What::Arrival) {
            for shape in settled {
                rows.extend(newcomer::measure(folder.path(), &register, shape).await.when("a fourth indexer")?);
            }
        }
        if args.only != Some(What::Newcomer) {
            rows.extend(arrival::measure(folder.path(), &register, arriving).await.when("a crowd that arrives")?);
        }
        return Ok(rows);
    }
    let mut rows = Vec::new();
    if args.only != Some(What::Network) {
        let (rounds, each) = if args.quick { (5, Duration::from_millis(700)) } else { (7, Duration::from_secs(2)) };
        let plan = beats::Plan { rounds, each, sanity: args.sanity };
        rows.extend(beats::measure(folder.path(), &register, plan).await.when("beats")?);
    }
    if args.only != Some(What::Beats) && !args.sanity {
        let plan = if args.quick { network::Plan::QUICK } else { network::Plan::WHOLE };
        rows.extend(network::measure(folder.path(), &register, plan, &mut chance).await.when("network")?);
    }
    Ok(rows)
}
