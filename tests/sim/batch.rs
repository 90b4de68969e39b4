//! Many seeds of many scenarios, on all processors.

use std::{
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

/// Which seeds are played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub(crate) first: u64,
    pub(crate) seeds: u64,
    pub(crate) within: Option<u64>,
}

/// How one scenario fared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Result {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) played: u64,
    pub(crate) failed: Vec<u64>,
    /// Virtual time in all.
    pub(crate) lived: Duration,
    /// Processor time in all.
    pub(crate) took: Duration,
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
        let results: Vec<Mutex<Result>> = plays.iter().map(|play| Mutex::new(named(play))).collect();
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
        results.into_iter().map(|result| result.into_inner().expect(UNPOISONED)).collect()
    }

    /// The next seed of the scenario that had the least time.
    fn next(&self, turns: &Mutex<Vec<Turn>>) -> Option<(usize, u64)> {
        let mut turns = turns.lock().expect(UNPOISONED);
        let open = turns.iter_mut().enumerate().filter(|(_, turn)| turn.started < self.seeds);
        let (at, turn) = open.min_by_key(|(_, turn)| (turn.spent.max(turn.longest), turn.started))?;
        turn.started += 1;
        Some((at, self.first + turn.started - 1))
    }

    /// The results as rows of the table that [`HEAD`] begins, each behind the name of its scenario.
    pub(crate) fn rows(&self, results: &[Result]) -> Vec<(String, String)> {
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        // What had no turn keeps the row of the day when it had one.
        let played = results.iter().filter(|result| result.played > 0 || !result.failed.is_empty());
        played.map(|result| (result.name.clone(), self.row(result, &date))).collect()
    }

    fn row(&self, result: &Result, date: &str) -> String {
        let Result { name, about, played, failed, lived, took } = result;
        let failed = match failed.as_slice() {
            [] => "0".to_owned(),
            [first, ..] => format!("{} (seed {first})", failed.len()),
        };
        let speed = lived.as_secs_f64() / took.as_secs_f64().max(f64::MIN_POSITIVE);
        format!("| {name} | {about} | {played} | {} | {failed} | {speed:.0} | {date} |", self.first)
    }
}

/// What stands above the rows of [`Batch::rows`].
pub(crate) const HEAD: &str = "| scenario | what it shows | seeds | from | failed | × life | played |\n\
                               |---|---|---|---|---|---|---|";

fn named(play: &Play) -> Result {
    Result { name: play.name.clone(), about: play.scenario.about.clone(), ..Result::default() }
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
        if result.failed.is_empty() {
            tell(play, &outcome);
            println!("  again: tests/sim/run --scenario {} --seed {seed}", play.name);
        }
        result.failed.push(seed);
    }
}
