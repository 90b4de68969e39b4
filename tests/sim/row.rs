//! How a scenario fared, as a row of the table in `docs/performance.md`.

use std::fmt;

use super::batch::Result;

/// What stands above the rows.
pub(crate) const HEAD: &str = "| scenario | what it shows | seeds | from | failed | × life | played |\n\
                               |---|---|---|---|---|---|---|";

/// Seeds of one scenario that follow on each other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    about: String,
    seeds: u64,
    from: u64,
    failed: u64,
    /// The first that failed.
    broken: Option<u64>,
    /// Times as fast as life, on one core.
    life: f64,
    /// The day when the last of them was played.
    played: String,
}

impl Row {
    /// Of what was played now; nothing of a scenario that had no turn, for its row of another day is better.
    pub(crate) fn of(result: &Result) -> Option<Self> {
        let Result { name, about, first, played, failed, lived, took } = result;
        (*played > 0 || !failed.is_empty()).then(|| Self {
            name: name.clone(),
            about: about.clone(),
            seeds: *played,
            from: *first,
            failed: failed.len() as u64,
            broken: failed.first().copied(),
            life: lived.as_secs_f64() / took.as_secs_f64().max(f64::MIN_POSITIVE),
            played: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        })
    }

    /// One that was written; nothing of any other line.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [name, about, seeds, from, failed, life, played] = cells.as_slice() else { return None };
        let (failed, broken) = match failed.split_once(" (seed ") {
            Some((failed, seed)) => (failed, Some(seed.trim_end_matches(')').parse().ok()?)),
            None => (*failed, None),
        };
        Some(Self {
            name: (*name).to_owned(),
            about: (*about).to_owned(),
            seeds: seeds.parse().ok()?,
            from: from.parse().ok()?,
            failed: failed.parse().ok()?,
            broken,
            life: life.parse().ok()?,
            played: (*played).to_owned(),
        })
    }

    /// The seed after its last one.
    pub(crate) fn next(&self) -> u64 {
        self.from + self.seeds
    }

    /// These seeds after those of `before`, where they follow on them; else these alone.
    pub(crate) fn after(self, before: Option<&Self>) -> Self {
        let Some(before) = before.filter(|before| before.name == self.name && before.next() == self.from) else {
            return self;
        };
        let time = |row: &Self| row.seeds as f64 / row.life.max(f64::MIN_POSITIVE);
        Self {
            seeds: before.seeds + self.seeds,
            from: before.from,
            failed: before.failed + self.failed,
            broken: before.broken.or(self.broken),
            life: (before.seeds + self.seeds) as f64 / (time(before) + time(&self)),
            ..self
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, about, seeds, from, failed, broken, life, played } = self;
        let broken = broken.map_or_else(String::new, |seed| format!(" (seed {seed})"));
        write!(out, "| {name} | {about} | {seeds} | {from} | {failed}{broken} | {life:.0} | {played} |")
    }
}
