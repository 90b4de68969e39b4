//! Many seeds of many scenarios, on all processors.

use std::{
    fmt::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use protocol::sim::Sim;

use super::{files::Play, tell};

/// The seed that a day begins with, so that every gate of another day plays others.
pub fn seed_of_the_day() -> u64 {
    let day = jiff::Timestamp::now().as_second() / 86_400;
    u64::try_from(day).unwrap_or_default() * 1_000
}

/// Which seeds are played.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    pub first: u64,
    pub seeds: u64,
    pub within: Option<u64>,
}

/// How one scenario fared.
#[derive(Clone, Debug, Default)]
pub struct Result {
    pub name: String,
    pub about: String,
    pub played: u64,
    pub failed: Vec<u64>,
    /// Virtual time in all.
    pub lived: Duration,
    /// Processor time in all.
    pub took: Duration,
}

impl Batch {
    /// Plays seed by seed all scenarios, so that an early end has played as many of each.
    pub fn run(&self, plays: &[Play]) -> Vec<Result> {
        let began = Instant::now();
        let results: Vec<Mutex<Result>> = plays.iter().map(|play| Mutex::new(named(play))).collect();
        let jobs: Vec<(u64, usize)> = (self.first..self.first.saturating_add(self.seeds))
            .flat_map(|seed| (0..plays.len()).map(move |play| (seed, play)))
            .collect();
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((seed, at)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                        if self.within.is_some_and(|within| began.elapsed().as_secs() >= within) {
                            return;
                        }
                        one(&plays[at], seed, &results[at]);
                    }
                });
            }
        });
        results.into_iter().map(|result| result.into_inner().expect("nobody panics while it is held")).collect()
    }

    /// The results as a table of Markdown.
    pub fn table(&self, results: &[Result]) -> String {
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
        let mut text = format!("{date}, seeds from {}.\n\n", self.first);
        text.push_str("| scenario | what it shows | seeds | failed | × life |\n|---|---|---|---|---|\n");
        for result in results {
            let failed = match result.failed.as_slice() {
                [] => "0".to_owned(),
                [first, ..] => format!("{} (seed {first})", result.failed.len()),
            };
            let speed = result.lived.as_secs_f64() / result.took.as_secs_f64().max(f64::MIN_POSITIVE);
            let Result { name, about, played, .. } = result;
            // Writing to a string cannot fail.
            let _ = writeln!(text, "| {name} | {about} | {played} | {failed} | {speed:.0} |");
        }
        text
    }
}

fn named(play: &Play) -> Result {
    Result { name: play.name.clone(), about: play.scenario.about.clone(), ..Result::default() }
}

fn one(play: &Play, seed: u64, result: &Mutex<Result>) {
    let began = Instant::now();
    let sim = match Sim::new(play.scenario.clone(), seed, false) {
        Ok(sim) => sim,
        Err(error) => {
            eprintln!("{}: {error}", play.name);
            result.lock().expect("nobody panics while it is held").failed.push(seed);
            return;
        }
    };
    let outcome = sim.run();
    let mut result = result.lock().expect("nobody panics while it is held");
    result.played += 1;
    result.lived += play.scenario.length.0;
    result.took += began.elapsed();
    if !outcome.is_kept() {
        if result.failed.is_empty() {
            tell(play, &outcome);
            println!("  again: tests/sim/run --scenario {} --seed {seed}", play.name);
        }
        result.failed.push(seed);
    }
}
