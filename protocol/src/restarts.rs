//! How often a supervised child may fail, and how long it pauses before its next life.

use std::{collections::VecDeque, time::Duration};

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::time::Mono;

/// The budget of one child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Most restarts within any stretch of [`Settings::within`]; 0 means that the first failure is the last.
    pub restarts_max: u32,
    /// Length of that stretch. After as long without a restart the pauses begin anew.
    #[serde(with = "crate::time::text")]
    pub within: Duration,
    /// Pause before the first restart.
    #[serde(with = "crate::time::text")]
    pub pause_first: Duration,
    /// Longest pause.
    #[serde(with = "crate::time::text")]
    pub pause_max: Duration,
    /// What a pause is multiplied by for the next one, at least 1.
    pub factor: u32,
    /// Share of each pause, 0 to 1, that is left to chance, so that what fell together does not rise together.
    pub jitter: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            restarts_max: 3,
            within: Duration::from_secs(30),
            pause_first: Duration::from_millis(100),
            pause_max: Duration::from_secs(20),
            factor: 2,
            jitter: 0.2,
        }
    }
}

impl Settings {
    /// The pause after `before` restarts in a row: the longest that chance may give.
    fn pause_after(&self, before: u32) -> Duration {
        let factor = self.factor.max(1).checked_pow(before).unwrap_or(u32::MAX);
        self.pause_first.saturating_mul(factor).min(self.pause_max)
    }
}

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Restart it after this pause.
    RestartAfter(Duration),
    /// It failed too often: it is not restarted.
    Spent,
}

/// The failures of one child. It is dropped with the child, so nothing of an ended one is kept.
#[derive(Clone, Debug)]
pub struct Restarts {
    settings: Settings,
    /// When the granted restarts fall due, oldest first; never more than `restarts_max`.
    granted: VecDeque<Mono>,
    /// Restarts since the last quiet period.
    in_a_row: u32,
}

impl Restarts {
    /// A child that has not yet failed.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, granted: VecDeque::new(), in_a_row: 0 }
    }

    /// From when on a failure is followed by a restart, should none come before; nothing where none ever is.
    #[must_use]
    pub fn room(&self) -> Option<Mono> {
        if self.granted.len() < usize::try_from(self.settings.restarts_max).unwrap_or(usize::MAX) {
            return Some(Mono::ZERO);
        }
        self.granted.front().map(|due| *due + self.settings.within)
    }

    /// It has failed now.
    pub fn failed(&mut self, now: Mono, rng: &mut impl Rng) -> Verdict {
        // Restarts count when they fall due, which is never before their failure: so neither failures nor restarts
        // exceed the budget in any window.
        while self.granted.front().is_some_and(|due| now.since(*due) >= self.settings.within) {
            self.granted.pop_front();
        }
        if self.granted.is_empty() {
            self.in_a_row = 0;
        }
        if self.granted.len() >= usize::try_from(self.settings.restarts_max).unwrap_or(usize::MAX) {
            return Verdict::Spent;
        }
        let longest = self.settings.pause_after(self.in_a_row);
        let pause = longest.mul_f64(1.0 - self.settings.jitter.clamp(0.0, 1.0) * rng.random::<f64>());
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.granted.push_back(now + pause);
        Verdict::RestartAfter(pause)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn settings() -> impl Strategy<Value = Settings> {
        (0..6_u32, 1..60_000_u64, 0..2_000_u64, 0..30_000_u64, 0..5_u32, 0.0..=1.0).prop_map(
            |(restarts_max, within, first, max, factor, jitter)| Settings {
                restarts_max,
                within: Duration::from_millis(within),
                pause_first: Duration::from_millis(first),
                pause_max: Duration::from_millis(max),
                factor,
                jitter,
            },
        )
    }

    /// The failures at these waits after one another, each with its verdict.
    fn run(settings: &Settings, waits: &[u64], seed: u64) -> Vec<(Mono, Verdict)> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut restarts = Restarts::new(settings.clone());
        let mut now = Mono::ZERO;
        let mut alive_at = Mono::ZERO;
        let mut seen = Vec::new();
        for wait in waits {
            // A child can fail only while it lives.
            now = alive_at + Duration::from_millis(*wait);
            let has_room = restarts.room().is_some_and(|from| from <= now);
            let verdict = restarts.failed(now, &mut rng);
            assert_eq!(has_room, verdict != Verdict::Spent, "what is foretold is what comes");
            alive_at = match verdict {
                Verdict::RestartAfter(pause) => now + pause,
                Verdict::Spent => now,
            };
            seen.push((now, verdict));
            assert!(restarts.granted.len() <= usize::try_from(settings.restarts_max).unwrap());
        }
        let _ = now;
        seen
    }

    proptest! {
        #[test]
        fn no_window_holds_more_restarts_than_the_budget(
            settings in settings(), waits in prop::collection::vec(0..20_000_u64, 1..60), seed: u64,
        ) {
            let seen = run(&settings, &waits, seed);
            for instants in [
                seen.iter().filter(|(_, verdict)| *verdict != Verdict::Spent).map(|(at, _)| *at).collect::<Vec<_>>(),
                seen.iter().filter_map(|(at, verdict)| match verdict {
                    Verdict::RestartAfter(pause) => Some(*at + *pause),
                    Verdict::Spent => None,
                }).collect(),
            ] {
                for start in &instants {
                    let held = instants.iter().filter(|at| **at >= *start && at.since(*start) < settings.within);
                    prop_assert!(held.count() <= usize::try_from(settings.restarts_max).unwrap());
                }
            }
        }

        #[test]
        fn the_budget_is_spent_only_when_it_is_used_up(
            settings in settings(), waits in prop::collection::vec(0..20_000_u64, 1..60), seed: u64,
        ) {
            let seen = run(&settings, &waits, seed);
            for (index, (at, verdict)) in seen.iter().enumerate() {
                let recent = seen[..index].iter().filter(|(before, verdict)| match verdict {
                    Verdict::RestartAfter(pause) => at.since(*before + *pause) < settings.within,
                    Verdict::Spent => false,
                });
                let used_up = recent.count() >= usize::try_from(settings.restarts_max).unwrap();
                prop_assert_eq!(used_up, *verdict == Verdict::Spent);
            }
        }

        #[test]
        fn a_pause_stays_between_its_bounds(
            settings in settings(), waits in prop::collection::vec(0..20_000_u64, 1..60), seed: u64,
        ) {
            for (_, verdict) in run(&settings, &waits, seed) {
                if let Verdict::RestartAfter(pause) = verdict {
                    let least = settings.pause_first.min(settings.pause_max).mul_f64(1.0 - settings.jitter);
                    prop_assert!(pause <= settings.pause_max);
                    prop_assert!(pause + Duration::from_nanos(1) >= least, "{pause:?} < {least:?}");
                }
            }
        }
    }

    fn steady() -> Settings {
        Settings { jitter: 0.0, ..Settings::default() }
    }

    #[test]
    fn pauses_double_while_failures_keep_coming_and_the_fourth_failure_spends_the_budget() {
        let seen = run(&steady(), &[0, 0, 0, 0], 1);
        let after = |millis| Verdict::RestartAfter(Duration::from_millis(millis));
        let verdicts: Vec<_> = seen.into_iter().map(|(_, verdict)| verdict).collect();
        assert_eq!(verdicts, [after(100), after(200), after(400), Verdict::Spent]);
    }

    #[test]
    fn a_quiet_period_makes_the_first_pause_short_again() {
        let quiet = 30_000;
        let after = |millis| Verdict::RestartAfter(Duration::from_millis(millis));
        let verdicts = |waits: &[u64]| run(&steady(), waits, 1).into_iter().map(|(_, verdict)| verdict).next_back();
        assert_eq!(verdicts(&[0, 0, quiet]), Some(after(100)));
        assert_eq!(verdicts(&[0, 0, quiet - 1]), Some(after(400)));
    }

    #[test]
    fn the_longest_pause_is_never_passed_however_long_it_goes_on() {
        let settings = Settings { restarts_max: u32::MAX, ..steady() };
        let seen = run(&settings, &[0; 100], 1);
        assert_eq!(seen.last().unwrap().1, Verdict::RestartAfter(Duration::from_secs(20)));
    }

    #[test]
    fn without_a_budget_the_first_failure_is_the_last() {
        assert_eq!(run(&Settings { restarts_max: 0, ..steady() }, &[5], 1)[0].1, Verdict::Spent);
    }

    #[test]
    fn the_design_s_figures_are_the_defaults() {
        let settings = Settings::default();
        assert_eq!((settings.restarts_max, settings.within), (3, Duration::from_secs(30)));
        assert_eq!((settings.pause_first, settings.pause_max), (Duration::from_millis(100), Duration::from_secs(20)));
    }
}
