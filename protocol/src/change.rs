//! A change of settings while a member runs: taken by all who use them, or by none.
//!
//! First every watcher is asked whether it can take the new settings. When all can, they are kept (written to the file),
//! told to whoever begins anew, and every watcher is told to go by them. Whoever says no, or nothing in time, ends it: what
//! was kept is restored, and every watcher is told to go back, those too that were never told to go by it, since a late
//! answer may still be on its way. [`Exchange`] says what to do next; whoever plays it sends and waits.

use std::{collections::BTreeSet, time::Duration};

use crate::time::Mono;

/// A watcher that takes longer for a step is stuck; a file is written within this, or its disk is.
pub const STEP_WITHIN: Duration = Duration::from_secs(2);

/// Watchers of one change: many times the actors that go by settings.
pub const WATCHERS_MAX: usize = 32;

/// What a watcher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Say whether you can go by them.
    Prepare,
    /// Go by them.
    Commit,
    /// Go by the earlier ones.
    Back,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A watcher did a step, or will not: why.
    Answered {
        /// By its place among the watchers.
        watcher: usize,
        /// Which step.
        step: Step,
        /// How.
        outcome: Result<(), String>,
    },
    /// The settings were written down, or not: why.
    Kept(Result<(), String>),
    /// What was written down was taken back, or not: why.
    Restored(Result<(), String>),
    /// Time went by.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell a watcher.
    Tell {
        /// By its place among the watchers.
        watcher: usize,
        /// What.
        step: Step,
    },
    /// Write the new settings down.
    Keep,
    /// Take back what was written down, when that is done.
    Restore,
    /// Whoever begins anew goes by the new settings.
    Publish,
    /// Whoever begins anew goes by the earlier settings.
    Withdraw,
    /// It is over.
    End(Result<(), Refusal>),
}

/// Why a change was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{by} refused: {why}{}", tail(.unsure))]
pub struct Refusal {
    /// Who refused.
    pub by: String,
    /// Why.
    pub why: String,
    /// Who did not say in time that it went back.
    pub unsure: Vec<String>,
}

fn tail(unsure: &[String]) -> String {
    if unsure.is_empty() { String::new() } else { format!("; not known to have gone back: {}", unsure.join(", ")) }
}

/// Whoever writes the settings down, in refusals.
const KEEPER: &str = "the file";

/// Where the exchange is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Preparing,
    Keeping,
    Committing,
    Returning { by: String, why: String, is_restoring: bool },
    Over,
}

/// One change on its way.
#[derive(Clone, Debug)]
pub struct Exchange {
    watchers: Vec<String>,
    phase: Phase,
    /// Who has not answered this phase's step.
    waiting: BTreeSet<usize>,
    ends_at: Mono,
}

impl Exchange {
    /// Begins to offer new settings to these watchers, of which at most [`WATCHERS_MAX`] are taken.
    #[must_use]
    pub fn begin(mut watchers: Vec<String>, now: Mono) -> (Self, Vec<Action>) {
        watchers.truncate(WATCHERS_MAX);
        let mut exchange = Self { watchers, phase: Phase::Preparing, waiting: BTreeSet::new(), ends_at: now };
        let mut actions = exchange.tell_all(Step::Prepare, now);
        if exchange.waiting.is_empty() {
            actions.extend(exchange.keep(now));
        }
        (exchange, actions)
    }

    /// When the next [`Input::Tick`] is due.
    #[must_use]
    pub fn ends_at(&self) -> Mono {
        self.ends_at
    }

    /// Takes one fact and says what to do. An answer to an earlier step changes nothing.
    pub fn handle(&mut self, input: Input, now: Mono) -> Vec<Action> {
        match input {
            Input::Answered { watcher, step, outcome } => self.answered(watcher, step, outcome, now),
            Input::Kept(Ok(())) if self.phase == Phase::Keeping => self.commit(now),
            Input::Kept(Err(why)) if self.phase == Phase::Keeping => self.back(KEEPER.to_owned(), why, now),
            Input::Restored(outcome) => self.restored(outcome),
            Input::Tick if now >= self.ends_at => self.late(now),
            Input::Kept(_) | Input::Tick => Vec::new(),
        }
    }

    fn answered(&mut self, watcher: usize, step: Step, outcome: Result<(), String>, now: Mono) -> Vec<Action> {
        let awaited = match self.phase {
            Phase::Preparing => Step::Prepare,
            Phase::Committing => Step::Commit,
            Phase::Returning { .. } => Step::Back,
            Phase::Keeping | Phase::Over => return Vec::new(),
        };
        if step != awaited || !self.waiting.contains(&watcher) {
            return Vec::new();
        }
        match (outcome, step) {
            // It stays in the list of those of whom nobody knows.
            (Err(_), Step::Back) => return Vec::new(),
            (Err(why), _) => return self.back(self.name(watcher), why, now),
            (Ok(()), _) => drop(self.waiting.remove(&watcher)),
        }
        if !self.waiting.is_empty() {
            return Vec::new();
        }
        match step {
            Step::Prepare => self.keep(now),
            Step::Commit => self.end(Ok(())),
            Step::Back => self.returned(),
        }
    }

    fn keep(&mut self, now: Mono) -> Vec<Action> {
        self.phase = Phase::Keeping;
        self.ends_at = now + STEP_WITHIN;
        vec![Action::Keep]
    }

    fn commit(&mut self, now: Mono) -> Vec<Action> {
        self.phase = Phase::Committing;
        let mut actions = vec![Action::Publish];
        actions.extend(self.tell_all(Step::Commit, now));
        if self.waiting.is_empty() {
            actions.extend(self.end(Ok(())));
        }
        actions
    }

    fn back(&mut self, by: String, why: String, now: Mono) -> Vec<Action> {
        let was_published = self.phase == Phase::Committing;
        // What is being written may still come to be written.
        let is_restoring = matches!(self.phase, Phase::Keeping | Phase::Committing);
        self.phase = Phase::Returning { by, why, is_restoring };
        let withdraw = was_published.then_some(Action::Withdraw);
        let restore = is_restoring.then_some(Action::Restore);
        let mut actions: Vec<Action> = withdraw.into_iter().chain(restore).collect();
        actions.extend(self.tell_all(Step::Back, now));
        actions.extend(self.returned());
        actions
    }

    fn restored(&mut self, outcome: Result<(), String>) -> Vec<Action> {
        let Phase::Returning { why, is_restoring, .. } = &mut self.phase else { return Vec::new() };
        *is_restoring = false;
        if let Err(cause) = outcome {
            why.push_str(&format!("; what was written could not be taken back: {cause}"));
        }
        self.returned()
    }

    /// The end, once everybody went back.
    fn returned(&mut self) -> Vec<Action> {
        match &self.phase {
            Phase::Returning { is_restoring: false, .. } if self.waiting.is_empty() => self.give_up(),
            _ => Vec::new(),
        }
    }

    fn late(&mut self, now: Mono) -> Vec<Action> {
        let why = format!("no answer within {} s", STEP_WITHIN.as_secs());
        match &self.phase {
            Phase::Preparing | Phase::Committing => {
                let by = self.waiting.first().map(|watcher| self.name(*watcher)).unwrap_or_default();
                self.back(by, why, now)
            }
            Phase::Keeping => self.back(KEEPER.to_owned(), why, now),
            Phase::Returning { .. } => self.give_up(),
            Phase::Over => Vec::new(),
        }
    }

    /// Ends, with those named that did not say that they went back.
    fn give_up(&mut self) -> Vec<Action> {
        let mut unsure: Vec<String> = self.waiting.iter().map(|watcher| self.name(*watcher)).collect();
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Returning { by, why, is_restoring } => {
                unsure.extend(is_restoring.then(|| KEEPER.to_owned()));
                self.end(Err(Refusal { by, why, unsure }))
            }
            _ => Vec::new(),
        }
    }

    fn end(&mut self, outcome: Result<(), Refusal>) -> Vec<Action> {
        self.phase = Phase::Over;
        self.waiting.clear();
        vec![Action::End(outcome)]
    }

    fn tell_all(&mut self, step: Step, now: Mono) -> Vec<Action> {
        self.waiting = (0..self.watchers.len()).collect();
        self.ends_at = now + STEP_WITHIN;
        (0..self.watchers.len()).map(|watcher| Action::Tell { watcher, step }).collect()
    }

    fn name(&self, watcher: usize) -> String {
        self.watchers.get(watcher).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("watcher-{number}")).collect()
    }

    fn told(step: Step, count: usize) -> Vec<Action> {
        (0..count).map(|watcher| Action::Tell { watcher, step }).collect()
    }

    fn yes(watcher: usize, step: Step) -> Input {
        Input::Answered { watcher, step, outcome: Ok(()) }
    }

    fn no(watcher: usize, step: Step) -> Input {
        Input::Answered { watcher, step, outcome: Err("I will not".to_owned()) }
    }

    fn refusal(by: &str, why: &str, unsure: &[&str]) -> Vec<Action> {
        let unsure = unsure.iter().map(|name| (*name).to_owned()).collect();
        vec![Action::End(Err(Refusal { by: by.to_owned(), why: why.to_owned(), unsure }))]
    }

    fn at(secs: u64) -> Mono {
        Mono::from_secs(secs)
    }

    /// Two watchers that were asked and said yes, so that the settings are being kept.
    fn keeping() -> Exchange {
        let (mut exchange, actions) = Exchange::begin(names(2), at(0));
        assert_eq!(actions, told(Step::Prepare, 2));
        assert_eq!(exchange.handle(yes(1, Step::Prepare), at(0)), []);
        assert_eq!(exchange.handle(yes(0, Step::Prepare), at(0)), [Action::Keep]);
        exchange
    }

    /// The same, kept, so that both were told to go by them.
    fn committing() -> Exchange {
        let mut exchange = keeping();
        let expected = [vec![Action::Publish], told(Step::Commit, 2)].concat();
        assert_eq!(exchange.handle(Input::Kept(Ok(())), at(0)), expected);
        exchange
    }

    #[test]
    fn all_agree_it_is_kept_and_then_all_go_by_it() {
        let mut exchange = committing();
        assert_eq!(exchange.handle(yes(0, Step::Commit), at(1)), []);
        assert_eq!(exchange.handle(yes(1, Step::Commit), at(1)), [Action::End(Ok(()))]);
        assert_eq!(exchange.handle(no(0, Step::Commit), at(1)), [], "over is over");
    }

    #[test]
    fn without_watchers_it_is_kept_all_the_same() {
        let (mut exchange, actions) = Exchange::begin(Vec::new(), at(0));
        assert_eq!(actions, [Action::Keep]);
        assert_eq!(exchange.handle(Input::Kept(Ok(())), at(0)), [Action::Publish, Action::End(Ok(()))]);
    }

    #[test]
    fn one_that_cannot_sends_everybody_back_before_anything_is_kept() {
        let (mut exchange, _) = Exchange::begin(names(2), at(0));
        assert_eq!(exchange.handle(no(1, Step::Prepare), at(0)), told(Step::Back, 2));
        assert_eq!(exchange.handle(yes(0, Step::Prepare), at(0)), [], "an answer to the earlier step");
        assert_eq!(exchange.handle(yes(0, Step::Back), at(0)), []);
        assert_eq!(exchange.handle(yes(1, Step::Back), at(0)), refusal("watcher-1", "I will not", &[]));
    }

    #[test]
    fn one_that_refuses_at_the_end_has_the_others_go_back_and_the_file_restored() {
        let mut exchange = committing();
        assert_eq!(exchange.handle(yes(0, Step::Commit), at(1)), []);
        let expected = [vec![Action::Withdraw, Action::Restore], told(Step::Back, 2)].concat();
        assert_eq!(exchange.handle(no(1, Step::Commit), at(1)), expected);
        assert_eq!(exchange.handle(yes(0, Step::Back), at(1)), []);
        assert_eq!(exchange.handle(yes(1, Step::Back), at(1)), []);
        assert_eq!(exchange.handle(Input::Restored(Ok(())), at(1)), refusal("watcher-1", "I will not", &[]));
    }

    #[test]
    fn a_file_that_cannot_be_written_changes_nothing() {
        let mut exchange = keeping();
        let expected = [vec![Action::Restore], told(Step::Back, 2)].concat();
        assert_eq!(exchange.handle(Input::Kept(Err("full".to_owned())), at(0)), expected);
        exchange.handle(Input::Restored(Ok(())), at(0));
        exchange.handle(yes(0, Step::Back), at(0));
        assert_eq!(exchange.handle(yes(1, Step::Back), at(0)), refusal("the file", "full", &[]));
    }

    #[test]
    fn who_does_not_answer_in_time_refuses_and_is_named_when_it_does_not_go_back_either() {
        let (mut exchange, _) = Exchange::begin(names(2), at(10));
        exchange.handle(yes(0, Step::Prepare), at(11));
        let just_before = Mono::at(Duration::from_millis(11_999));
        assert_eq!(exchange.handle(Input::Tick, just_before), []);
        assert_eq!(exchange.ends_at(), at(12));
        assert_eq!(exchange.handle(Input::Tick, at(12)), told(Step::Back, 2));
        exchange.handle(yes(0, Step::Back), at(12));
        let expected = refusal("watcher-1", "no answer within 2 s", &["watcher-1"]);
        assert_eq!(exchange.handle(Input::Tick, at(14)), expected);
    }

    #[test]
    fn a_late_disk_is_restored_when_it_is_done() {
        let mut exchange = keeping();
        let expected = [vec![Action::Restore], told(Step::Back, 2)].concat();
        assert_eq!(exchange.handle(Input::Tick, at(2)), expected);
        assert_eq!(exchange.handle(Input::Kept(Ok(())), at(2)), [], "too late");
        exchange.handle(yes(0, Step::Back), at(2));
        exchange.handle(yes(1, Step::Back), at(2));
        let why = "no answer within 2 s; what was written could not be taken back: full";
        let restored = Input::Restored(Err("full".to_owned()));
        assert_eq!(exchange.handle(restored, at(2)), refusal("the file", why, &[]));
    }

    #[test]
    fn no_more_watchers_are_asked_than_there_may_be() {
        for (count, asked) in [(WATCHERS_MAX, WATCHERS_MAX), (WATCHERS_MAX + 1, WATCHERS_MAX)] {
            assert_eq!(Exchange::begin(names(count), at(0)).1, told(Step::Prepare, asked));
        }
    }

    #[test]
    fn a_refusal_says_who_why_and_of_whom_nobody_knows() {
        let refusal =
            Refusal { by: "pool".to_owned(), why: "too few".to_owned(), unsure: vec!["score".into(), "gate".into()] };
        assert_eq!(refusal.to_string(), "pool refused: too few; not known to have gone back: score, gate");
    }

    fn input(watchers: usize) -> impl Strategy<Value = (Input, u64)> {
        let outcome = prop_oneof![4 => Just(Ok(())), 1 => Just(Err("no".to_owned()))];
        let step = prop_oneof![Just(Step::Prepare), Just(Step::Commit), Just(Step::Back)];
        let input = prop_oneof![
            8 => (0..watchers, step, outcome.clone())
                .prop_map(|(watcher, step, outcome)| Input::Answered { watcher, step, outcome }),
            2 => outcome.clone().prop_map(Input::Kept),
            1 => outcome.prop_map(Input::Restored),
            1 => Just(Input::Tick),
        ];
        (input, 0..500_u64)
    }

    proptest! {
        /// Whatever happens: it ends once; taken means that all were told to commit and none to go back; refused means that
        /// each was told to go back after whatever else it was told, and that what was kept is restored.
        #[test]
        fn it_is_all_or_nothing_and_it_ends(inputs in proptest::collection::vec(input(3), 0..60)) {
            let (mut exchange, mut done) = Exchange::begin(names(3), at(0));
            let mut millis = 0;
            for (input, later) in inputs {
                millis += later;
                done.extend(exchange.handle(input, Mono::at(Duration::from_millis(millis))));
            }
            // Nobody answers any more: time alone brings it to its end.
            for _ in 0..4 {
                millis += 2_000;
                done.extend(exchange.handle(Input::Tick, Mono::at(Duration::from_millis(millis))));
            }
            let ends: Vec<_> = done.iter().filter(|action| matches!(action, Action::End(_))).collect();
            prop_assert_eq!(ends.len(), 1, "{:?}", done);
            prop_assert!(matches!(done.last(), Some(Action::End(_))));
            let last = |watcher: usize| done.iter().rev().find_map(|action| match action {
                Action::Tell { watcher: to, step } if *to == watcher => Some(*step),
                _ => None,
            });
            let has = |wanted: &Action| done.contains(wanted);
            let is_taken = ends[0] == &Action::End(Ok(()));
            for watcher in 0..3 {
                prop_assert_eq!(last(watcher), Some(if is_taken { Step::Commit } else { Step::Back }));
            }
            prop_assert_eq!(has(&Action::Restore), !is_taken && has(&Action::Keep));
            prop_assert_eq!(has(&Action::Withdraw), !is_taken && has(&Action::Publish));
        }
    }
}
