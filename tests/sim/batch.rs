//! Many seeds of many scenarios, on all processors.

use std::{
    fmt::Write as _,
    sync::Mutex,
    time::{Duration, Instant},
};

use protocol::sim::Sim;

use super::{files::Play, tell};

/// The seed that a day begins with, so that every gate of another day plays others.
pub(crate) fn seed_of_the_day() -> u64 {
    let day = jiff::Timestamp::now().as_second() / 86_400;
    u64::try_from(day).unwrap_or_default() * 1_000
}

/// Why a lock is never poisoned.
const UNPOISONED: &str = "nobody panics while it is held";

/// Failed seeds of one scenario that are told each with its command; of more their number.
const AGAIN_MAX: usize = 20;

/// Which seeds are played.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// The first of each scenario.
    pub(crate) first: Vec<u64>,
    pub(crate) seeds: u64,
    pub(crate) within: Option<u64>,
}

/// How one scenario fared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Result {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) first: u64,
    pub(crate) played: u64,
    /// In their order.
    pub(crate) failed: Vec<u64>,
    /// Virtual time in all.
    pub(crate) lived: Duration,
    /// Processor time in all.
    pub(crate) took: Duration,
}

impl Result {
    /// The seeds that failed, with the command that plays each again; nothing where none did.
    pub(crate) fn again(&self) -> Option<String> {
        let Self { name, failed, .. } = self;
        let mut text = format!("{name}: {} failed", failed.len());
        for seed in failed.iter().take(AGAIN_MAX) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  again: tests/sim/run --scenario {name} --seed {seed}");
        }
        if failed.len() > AGAIN_MAX {
            let _ = write!(text, "\n  and {} more", failed.len() - AGAIN_MAX);
        }
        (!failed.is_empty()).then_some(text)
    }
}

/// What of one scenario was played, and for how long.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    started: u64,
    spent: Duration,
    /// The longest run so far: so much is counted in advance for one that is under way.
    longest: Duration,
}

impl Batch {
    /// Gives every scenario the same time, so that a large one does not keep seeds from the small.
    pub(crate) fn run(&self, plays: &[Play]) -> Vec<Result> {
        let began = Instant::now();
        let results: Vec<Mutex<Result>> =
            plays.iter().zip(&self.first).map(|(play, first)| Mutex::new(named(play, *first))).collect();
        let turns = Mutex::new(vec![Turn::default(); plays.len()]);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while self.within.is_none_or(|within| began.elapsed().as_secs() < within) {
                        let Some((at, seed)) = self.next(&turns) else { return };
                        let began = Instant::now();
                        one(&plays[at], seed, &results[at]);
                        let turn = &mut turns.lock().expect(UNPOISONED)[at];
                        turn.longest = turn.longest.max(began.elapsed());
                        turn.spent += began.elapsed();
                    }
                });
            }
        });
        let results = results.into_iter().map(|result| result.into_inner().expect(UNPOISONED));
        results.map(sorted).collect()
    }

    /// The next seed of the scenario that had the least time.
    fn next(&self, turns: &Mutex<Vec<Turn>>) -> Option<(usize, u64)> {
        let mut turns = turns.lock().expect(UNPOISONED);
        let open = turns.iter_mut().enumerate().filter(|(_, turn)| turn.started < self.seeds);
        let (at, turn) = open.min_by_key(|(_, turn)| (turn.spent.max(turn.longest), turn.started))?;
        turn.started += 1;
        Some((at, self.first[at] + turn.started - 1))
    }
}

fn named(play: &Play, first: u64) -> Result {
    Result { name: play.name.clone(), about: play.scenario.about.clone(), first, ..Result::default() }
}

/// Threads end their seeds in an order of their own.
fn sorted(mut result: Result) -> Result {
    result.failed.sort_unstable();
    result
}

/// Processor time of this thread so far: the same beside other work, which waiting is not. The clock where there is none.
pub(crate) fn spent(clock: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|told| told.split_whitespace().next()?.parse().ok());
    nanos.map_or_else(|| clock.elapsed(), Duration::from_nanos)
}

fn one(play: &Play, seed: u64, result: &Mutex<Result>) {
    let clock = Instant::now();
    let began = spent(clock);
    let sim = match Sim::new(play.scenario.clone(), seed, false) {
        Ok(sim) => sim,
        Err(error) => {
            eprintln!("{}: {error}", play.name);
            result.lock().expect(UNPOISONED).failed.push(seed);
            return;
        }
    };
    let outcome = sim.run();
    let mut result = result.lock().expect(UNPOISONED);
    result.played += 1;
    result.lived += play.scenario.length.0;
    result.took += spent(clock).saturating_sub(began);
    if !outcome.is_kept() {
        // At once, for whoever breaks off; in full, for the others fail by the same defect more often than not.
        if result.failed.is_empty() {
            tell(play, &outcome);
            println!("  again: tests/sim/run --scenario {} --seed {seed}", play.name);
        }
        result.failed.push(seed);
    }
}
