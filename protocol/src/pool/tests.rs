//! The pool's promises.

#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::{
    asking::{OTHERS_ASKED, VOUCHED_MAX},
    known::{ADDRS_MAX, REMEMBERED_FAILURES_MAX, REMEMBERED_LIFE, SEED_PAUSE_MAX, Source},
    *,
};
use crate::{
    addr::{Rule, Subnet},
    heartbeat::testing::peer,
};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The peer with this number at its own address, each in its own subnet.
fn info(number: u16) -> AddrInfo {
    let [high, low] = number.to_be_bytes();
    AddrInfo { id: peer(number), addrs: vec![format!("/ip4/51.{high}.{low}.1/tcp/4001").parse().unwrap()] }
}

fn infos(numbers: impl IntoIterator<Item = u16>) -> Vec<AddrInfo> {
    numbers.into_iter().map(info).collect()
}

fn owner(number: u16, is_indexer: bool) -> Owner {
    Owner { peer_id: peer(number), is_indexer, is_diverse: true, rule: Rule::default() }
}

fn new_pool(number: u16, is_indexer: bool) -> Pool {
    Pool::new(Settings::default(), heartbeat::Settings::default(), owner(number, is_indexer))
}

/// A pool that looks at everybody known again.
fn anew(pool: &Pool) -> Pool {
    let mut anew = pool.clone();
    anew.known.stir();
    anew
}

/// Feeds a pool. What it keeps to save itself a look at everybody known says what that look would.
fn fed(pool: &mut Pool, input: Input, now: Mono, seed: u64) -> Vec<Action> {
    let looked = anew(pool).handle(input.clone(), now, &mut StdRng::seed_from_u64(seed));
    let actions = pool.handle(input, now, &mut StdRng::seed_from_u64(seed));
    assert_eq!(actions, looked, "what was seen before is still so");
    assert_eq!(pool.wake(now), anew(pool).wake(now), "what was seen on the way is still so");
    let mut probing = pool.known.values().filter_map(|known| known.probing);
    assert!(probing.all(|since| pool.probing_since.is_some_and(|first| first <= since)), "a probe is never given up");
    assert!(pool.may_have_kept || !pool.known.values().any(|known| known.kept), "one that is kept is never let go");
    actions
}

/// One pool, its clock and its chance.
struct Bench {
    pool: Pool,
    now: Mono,
    rng: StdRng,
}

impl Bench {
    fn new(remembered: impl IntoIterator<Item = u16>, seeds: impl IntoIterator<Item = u16>) -> (Self, Vec<Action>) {
        let mut bench = Self { pool: new_pool(999, false), now: Mono::from_secs(10), rng: StdRng::seed_from_u64(1) };
        let actions = bench.feed(Input::Start { remembered: infos(remembered), seeds: infos(seeds) });
        (bench, actions)
    }

    /// With these members, all of which answered.
    fn with(remembered: impl IntoIterator<Item = u16> + Clone, seeds: impl IntoIterator<Item = u16> + Clone) -> Self {
        let (mut bench, _) = Self::new(remembered.clone(), seeds.clone());
        for number in remembered.into_iter().chain(seeds) {
            bench.answered(number);
        }
        bench
    }

    fn feed(&mut self, input: Input) -> Vec<Action> {
        fed(&mut self.pool, input, self.now, self.rng.random())
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        let (end, mut actions) = (self.now + time, Vec::new());
        loop {
            self.now = self.pool.wake(self.now).min(end);
            actions.extend(self.feed(Input::Tick));
            if self.now == end {
                return actions;
            }
        }
    }

    /// Waits until it is probed, for at most `time`.
    fn is_probed_within(&mut self, number: u16, time: Duration) -> bool {
        let end = self.now + time;
        while self.now < end {
            self.now = self.pool.wake(self.now).min(end);
            if probes(&self.feed(Input::Tick)).contains(&peer(number)) {
                return true;
            }
        }
        false
    }

    fn answered(&mut self, number: u16) -> Vec<Action> {
        let peer = peer(number);
        let referent = self.pool.referent() == Some(peer);
        self.feed(Input::Answered { peer, referent, suggestions: Vec::new(), suggest_migrate: false, fill_rate: 0.5 })
    }

    fn hold(&self, number: u16) -> Option<Hold> {
        self.pool.members().find(|member| member.peer == peer(number)).map(|member| member.hold)
    }

    /// A full one asks us to move.
    fn migrate(&mut self, number: u16, suggestions: Vec<AddrInfo>) -> Vec<Action> {
        self.asked_to_move(number, suggestions, 0.9)
    }

    fn asked_to_move(&mut self, number: u16, suggestions: Vec<AddrInfo>, fill_rate: f64) -> Vec<Action> {
        self.feed(Input::Answered {
            peer: peer(number),
            referent: false,
            suggestions,
            suggest_migrate: true,
            fill_rate,
        })
    }

    fn probed(&mut self, number: u16, fill: f64) -> Vec<Action> {
        let outcome = Probed::Answered { rtt: Duration::from_millis(20), fill_rate: Some(fill) };
        self.feed(Input::Probed { peer: peer(number), outcome })
    }

    fn state(&self, number: u16) -> Option<State> {
        self.pool.shown(self.now).into_iter().find(|shown| shown.peer == peer(number)).map(|shown| shown.state)
    }

    fn is_member(&self, number: u16) -> bool {
        self.pool.is_member(&peer(number))
    }
}

fn started(actions: &[Action]) -> Vec<PeerId> {
    actions
        .iter()
        .filter_map(|action| if let Action::Start { peer, .. } = action { Some(*peer) } else { None })
        .collect()
}

fn stopped(actions: &[Action]) -> Vec<(PeerId, Why)> {
    let stopped = |action: &Action| if let Action::Stop { peer, why } = action { Some((*peer, *why)) } else { None };
    actions.iter().filter_map(stopped).collect()
}

fn probes(actions: &[Action]) -> Vec<PeerId> {
    actions
        .iter()
        .filter_map(|action| if let Action::Probe { peer, .. } = action { Some(*peer) } else { None })
        .collect()
}

fn position(actions: &[Action], wanted: &Action) -> Option<usize> {
    actions.iter().position(|action| action == wanted)
}

// Joining.

#[test]
fn the_pool_is_filled_from_memory_and_then_from_seeds() {
    let (_, actions) = Bench::new([1, 2], [2, 3]);
    assert_eq!(started(&actions), [1, 2, 3].map(peer), "each once");
    let (_, actions) = Bench::new(1..=7, [8]);
    assert_eq!(started(&actions), [1, 2, 3, 4, 5].map(peer), "at most as many as wanted");
    let sticky: Vec<bool> = Bench::new([1], [2])
        .1
        .iter()
        .filter_map(|action| if let Action::Start { sticky, .. } = action { Some(*sticky) } else { None })
        .collect();
    assert_eq!(sticky, [false, true]);
}

#[test]
fn what_is_remembered_too_late_for_the_start_is_taken_up_all_the_same() {
    let (mut bench, actions) = Bench::new([], [1]);
    assert_eq!(started(&actions), [peer(1)], "it does not wait for its memory");
    bench.answered(1);
    let actions = bench.feed(Input::Remembered { remembered: infos([999, 1, 2, 3, 4, 5, 6]) });
    assert_eq!(started(&actions), [2, 3, 4, 5].map(peer), "as many as are wanted");
    assert_eq!(probes(&actions), [peer(6)], "the others are known");
    assert!(!bench.answered(2).iter().any(|action| matches!(action, Action::Remember { .. })), "it is remembered");
    assert_eq!(bench.pool.remembered_count(), 6);
    let actions = bench.feed(Input::Remembered { remembered: infos(100..200) });
    assert_eq!((started(&actions), bench.pool.remembered_count()), (Vec::new(), 32), "no more than may be");
    // One that others named is remembered from then on, and nobody is forgotten for it.
    let (mut bench, _) = Bench::new([], []);
    bench.feed(Input::Inbound { info: info(7) });
    let actions = bench.feed(Input::Remembered { remembered: infos([7]) });
    assert_eq!((started(&actions), bench.pool.remembered_count()), (Vec::new(), 1), "its probe is under way");
    bench.probed(7, 0.2);
    assert!(bench.is_member(7));
}

#[test]
fn we_are_never_in_our_own_pool() {
    let (mut bench, actions) = Bench::new([999], [999, 1]);
    assert_eq!(started(&actions), [peer(1)]);
    bench.answered(1);
    bench.feed(Input::Candidates { from: peer(1), candidates: infos([999]) });
    bench.feed(Input::Inbound { info: info(999) });
    bench.feed(Input::Dht { found: vec![Found { info: info(999), fill_rate: None }] });
    bench.wait(secs(5));
    assert!(!bench.is_member(999) && !bench.pool.known.contains_key(&peer(999)));
}

#[test]
fn g29_the_room_that_the_dht_tells_weighs_when_the_pool_chooses() {
    let mut bench = Bench::with([1], []);
    let found = |numbers: std::ops::RangeInclusive<u16>, fill_rate| {
        numbers.map(move |number| Found { info: info(number), fill_rate: Some(fill_rate) })
    };
    bench.feed(Input::Dht { found: found(101..=110, 0.5).chain(found(201..=210, 1.0)).collect() });
    let known = |number: &u16| bench.pool.known.get(&peer(*number)).is_some_and(|known| known.probing.is_none());
    let (half_full, full): (Vec<u16>, Vec<u16>) =
        ((101..=110).filter(known).collect(), (201..=210).filter(known).collect());
    let mut chosen = 0_u32;
    for _ in 0..1_000 {
        let first = bench.pool.candidates(1, bench.now, &mut bench.rng);
        chosen += u32::from(half_full.iter().any(|number| first == [peer(*number)]));
    }
    let (most, least) = (0.25 * half_full.len() as f64, 0.05 * full.len() as f64);
    let expected = 1_000.0 * most / (most + least);
    assert!((f64::from(chosen) - expected).abs() < 60.0, "{chosen}, expected {expected}");
}

#[test]
fn members_that_do_not_answer_soon_do_not_hold_the_others_up() {
    let (mut bench, actions) = Bench::new(1..=5, [8]);
    assert_eq!(probes(&actions), [peer(8)], "a standby is made ready from the first moment");
    assert_eq!(started(&bench.probed(8, 0.5)), [], "memory has its chance");
    assert_eq!(bench.pool.need(), 0);
    assert_eq!(started(&bench.wait(secs(2))), [peer(8)], "memory is slow");
}

#[test]
fn a_member_is_asked_for_candidates_after_its_first_answer_and_at_most_six_times_a_minute() {
    let (mut bench, _) = Bench::new([], [1]);
    bench.answered(1);
    let mut asked = Vec::new();
    let begin = bench.now;
    for _ in 0..600 {
        for action in bench.wait(Duration::from_millis(100)) {
            if let Action::AskCandidates { members, count } = action {
                assert_eq!(members, [peer(1)]);
                assert_eq!(count, 6, "need and two more");
                asked.push(bench.now.since(begin).as_millis());
            }
        }
    }
    assert_eq!(asked, [500, 1_000, 2_000, 4_000, 8_000]);
    let mut bench = Bench::with([], [1, 2, 3, 4]);
    let mut asks = 0;
    for number in 1..=4 {
        bench.feed(Input::Reset { peer: peer(number) });
        bench.answered(number);
    }
    for action in bench.wait(secs(50)) {
        if let Action::AskCandidates { members, .. } = action {
            asks += members.len();
        }
    }
    assert!(asks <= 6, "{asks}");
}

#[test]
fn candidates_are_probed_and_the_good_ones_join() {
    let mut bench = Bench::with([], [1]);
    let actions = bench.feed(Input::Candidates { from: peer(1), candidates: infos(2..=9) });
    let probed = probes(&actions);
    assert_eq!(probed.len(), 6, "need and two more");
    for peer in &probed[..2] {
        let outcome = Probed::Answered { rtt: secs(4), fill_rate: Some(0.7) };
        bench.feed(Input::Probed { peer: *peer, outcome });
        assert!(!bench.pool.is_member(peer), "a quick score of 15 is below 20");
    }
    for peer in &probed[2..] {
        let outcome = Probed::Answered { rtt: Duration::from_millis(20), fill_rate: Some(0.5) };
        bench.feed(Input::Probed { peer: *peer, outcome });
    }
    bench.wait(secs(1));
    assert_eq!(bench.pool.members.len(), 5);
    assert_eq!(bench.pool.need(), 0);
}

#[test]
fn of_good_candidates_the_best_join() {
    let mut bench = Bench::with([], [1, 2, 3, 4]);
    let probed = probes(&bench.feed(Input::Candidates { from: peer(1), candidates: infos(11..=13) }));
    assert_eq!(probed.len(), 3);
    bench.probed(11, 0.9);
    bench.probed(12, 0.1);
    let actions = bench.probed(13, 0.5);
    assert_eq!(started(&actions), [peer(12)]);
    assert_eq!(bench.state(13), Some(State::Standby));
    assert_eq!(bench.state(11), None);
}

#[test]
fn an_indexer_that_speaks_to_us_is_a_candidate_while_there_is_room() {
    let mut bench = Bench::with([], [1]);
    let unreachable = AddrInfo { id: peer(7), addrs: Vec::new() };
    assert_eq!(probes(&bench.feed(Input::Inbound { info: unreachable })), [peer(7)], "it is connected");
    assert_eq!(started(&bench.probed(7, 0.2)), [peer(7)]);
}

#[test]
fn the_quick_score_is_half_latency_and_half_room() {
    let check = |rtt_ms, fill, expected: f64| {
        let got = quick_score(Duration::from_millis(rtt_ms), fill);
        assert!((got - expected).abs() < 1e-9, "{got} {expected}");
    };
    check(0, Some(0.0), 100.0);
    check(4_000, Some(1.0), 0.0);
    check(2_000, Some(0.5), 50.0);
    check(0, None, 25.0);
    check(9_000, Some(0.0), 50.0);
}

// Losing.

#[test]
fn a_standby_whose_connection_closed_is_none_until_it_is_probed_again() {
    let mut bench = Bench::with(1..=5, []);
    bench.feed(Input::Inbound { info: info(9) });
    bench.probed(9, 0.3);
    assert_eq!(bench.state(9), Some(State::Standby));
    bench.feed(Input::Gone { peer: peer(9) });
    assert_eq!(bench.state(9), None, "it may be dead");
    bench.feed(Input::Gone { peer: peer(2) });
    assert_eq!(bench.state(2), Some(State::Answering), "members notice by their heartbeats");
}

#[test]
fn a_standby_is_probed_before_its_connection_is_idle_for_long_and_stays_one_all_the_while() {
    let mut bench = Bench::with(1..=5, []);
    bench.feed(Input::Inbound { info: info(9) });
    bench.probed(9, 0.3);
    for _ in 0..20 {
        let probed = bench.now;
        assert_eq!(probes(&bench.wait(Settings::default().standby_every)), [peer(9)]);
        assert!(bench.now.since(probed) < secs(30), "so long the swarm keeps an idle connection");
        assert_eq!(bench.state(9), Some(State::Standby));
        bench.probed(9, 0.3);
    }
}

#[test]
fn a_standby_stays_one_at_any_pace_that_is_set() {
    for (refresh_every, standby_every, ceiling) in
        [(60, 25, 5), (10, 25, 5), (60, 1, 5), (60, 300, 5), (60, 25, 2), (1, 1, 1)]
    {
        let settings =
            Settings { refresh_every: secs(refresh_every), standby_every: secs(standby_every), ..Settings::default() };
        let beats = heartbeat::Settings { ceiling, ..heartbeat::Settings::default() };
        let mut bench = Bench::with(1..=5, []);
        bench.pool = Pool::new(settings, beats, owner(999, false));
        bench.feed(Input::Start { remembered: infos(1..=5), seeds: Vec::new() });
        (1..=5).for_each(|number| drop(bench.answered(number)));
        bench.feed(Input::Inbound { info: info(9) });
        for _ in 0..20 {
            bench.probed(9, 0.3);
            let paces = format!("{refresh_every} {standby_every} {ceiling}");
            // With a ceiling of one, nobody may beat for a minute after a probe.
            assert!(ceiling == 1 || bench.state(9) == Some(State::Standby), "{paces}");
            assert!(bench.is_probed_within(9, secs(301)), "{paces}");
            assert!(ceiling == 1 || bench.state(9) == Some(State::Standby), "{paces}");
        }
    }
}

#[test]
fn candidates_take_chance_only_while_one_is_lacking() {
    // The chance that is left after a look at the pool, which has its standby or lacks one.
    let left = |named: std::ops::Range<u16>, has_standby: bool| {
        let mut bench = Bench::with(1..=5, []);
        bench.feed(Input::Inbound { info: info(9) });
        bench.probed(9, 0.3);
        bench.feed(Input::Candidates { from: peer(1), candidates: infos(named) });
        assert_eq!(bench.state(9), Some(State::Standby));
        let mut rng = StdRng::seed_from_u64(3);
        let input = if has_standby { Input::Tick } else { Input::Gone { peer: peer(9) } };
        bench.pool.handle(input, bench.now, &mut rng);
        rng
    };
    assert_eq!(left(20..29, true), left(20..20, true), "nobody is drawn");
    assert_ne!(left(20..29, false), left(20..20, false));
}

#[test]
fn g2_g3_what_is_shown_is_a_copy_and_changes_nothing() {
    let bench = Bench::with(1..=3, []);
    let mut shown = bench.pool.shown(bench.now);
    shown.iter_mut().for_each(|shown| {
        shown.addrs.clear();
        shown.missed = 99;
    });
    shown.clear();
    let again = bench.pool.shown(bench.now);
    assert_eq!(again.len(), 3);
    assert!(again.iter().all(|shown| shown.missed == 0 && !shown.addrs.is_empty()));
}

#[test]
fn g45_one_hiccup_removes_nobody_and_a_second_brings_the_standby() {
    let mut bench = Bench::with(1..=5, []);
    bench.feed(Input::Inbound { info: info(9) });
    bench.probed(9, 0.3);
    assert_eq!(bench.state(9), Some(State::Standby));
    assert_eq!(bench.feed(Input::Missed { peer: peer(2) }), []);
    assert_eq!(bench.state(2), Some(State::Answering));
    let actions = bench.feed(Input::Missed { peer: peer(2) });
    assert_eq!(started(&actions), [peer(9)], "at once");
    assert_eq!(bench.state(2), Some(State::Suspect), "it keeps its restarts");
    bench.answered(2);
    assert_eq!(bench.state(2), Some(State::Answering));
}

fn others_asked(actions: &[Action]) -> Vec<PeerId> {
    actions
        .iter()
        .find_map(|action| if let Action::AskOthers { ask, .. } = action { Some(ask.clone()) } else { None })
        .unwrap_or_default()
}

#[test]
fn g45_two_others_are_asked_before_a_suspect_is_forgotten() {
    for suspicion in [|peer| Input::Missed { peer }, |peer| Input::Reset { peer }] {
        let mut bench = Bench::with(1..=5, []);
        bench.feed(Input::Missed { peer: peer(2) });
        let asked = others_asked(&bench.feed(suspicion(peer(2))));
        assert_eq!(asked.len(), 2);
        assert!(!asked.contains(&peer(2)));
        assert_eq!(others_asked(&bench.feed(suspicion(peer(2)))), [], "once per suspicion");
    }
    let mut alone = Bench::with([1], []);
    assert_eq!(others_asked(&alone.feed(Input::Reset { peer: peer(1) })), [], "nobody is there to ask");
}

#[test]
fn whom_others_reach_is_kept_and_probed_until_it_answers() {
    // The word may come before the restarts are used up, or after.
    for is_early in [true, false] {
        let mut bench = Bench::with(1..=5, []);
        bench.feed(Input::Reset { peer: peer(2) });
        let word = Input::Vouched { peer: peer(2), answered: 2, reach: 1 };
        let (first, second) = (word.clone(), Input::BudgetSpent { peer: peer(2) });
        let (first, second) = if is_early { (first, second) } else { (second, first) };
        bench.feed(first);
        bench.feed(second);
        assert_eq!(bench.state(2), Some(State::Down), "kept");
        for _ in 0..5 {
            assert!(bench.is_probed_within(2, SEED_PAUSE_MAX + secs(7)));
            bench.feed(Input::Probed { peer: peer(2), outcome: Probed::Unreachable });
        }
        assert!(bench.is_probed_within(2, SEED_PAUSE_MAX + secs(7)));
        bench.probed(2, 0.5);
        assert_ne!(bench.state(2), Some(State::Down), "it answered");
    }
}

#[test]
fn whom_nobody_reaches_is_forgotten_as_before_and_no_word_keeps_it_for_ever() {
    let mut bench = Bench::with(1..=5, []);
    bench.feed(Input::Reset { peer: peer(2) });
    let noted = bench.feed(Input::Vouched { peer: peer(2), answered: 2, reach: 0 });
    let event = Event::AskedOthers { peer: peer(2), answered: 2, reach: 0 };
    assert!(position(&noted, &Action::Note(event)).is_some());
    bench.feed(Input::BudgetSpent { peer: peer(2) });
    assert_eq!(bench.state(2), None);
    bench.feed(Input::Vouched { peer: peer(2), answered: 1, reach: 1 });
    assert_eq!(bench.state(2), Some(State::Down));
    for _ in 0..REMEMBERED_FAILURES_MAX {
        bench.is_probed_within(2, secs(700));
        bench.feed(Input::Probed { peer: peer(2), outcome: Probed::Unreachable });
    }
    assert_eq!(bench.state(2), None, "its friends' word is worn out");
}

#[test]
fn f14_departed_ones_are_tried_now_and_then_for_a_day_and_then_forgotten() {
    let mut bench = Bench::with(1..=5, []);
    for number in [1, 2] {
        bench.feed(Input::BudgetSpent { peer: peer(number) });
    }
    for number in 6..=8 {
        bench.feed(Input::Inbound { info: info(number) });
        bench.probed(number, 0.3);
    }
    let (begin, mut last) = (bench.now, [bench.now; 2]);
    let mut forgotten = Vec::new();
    while bench.now.since(begin) < REMEMBERED_LIFE + secs(600) {
        // All members answer and so does the standby: nobody is wanted.
        (3..=8).for_each(|number| drop(bench.answered(number)));
        (6..=8).for_each(|number| drop(bench.probed(number, 0.3)));
        assert!(bench.now.since(begin) < secs(10) || bench.pool.need() == 0);
        let actions = bench.wait(secs(10));
        for (number, last) in [1, 2].into_iter().zip(&mut last) {
            if probes(&actions).contains(&peer(number)) {
                assert!(bench.now.since(*last) < secs(900), "{number} was not tried for {:?}", bench.now.since(*last));
                *last = bench.now;
                let actions = bench.feed(Input::Probed { peer: peer(number), outcome: Probed::Unreachable });
                let is_forgotten = actions.contains(&Action::Forget { peer: peer(number) });
                forgotten.extend(is_forgotten.then(|| (number, bench.now.since(begin) >= REMEMBERED_LIFE)));
            }
        }
    }
    forgotten.sort_unstable();
    assert_eq!(forgotten, [(1, true), (2, true)], "and not before");
    assert!(![1, 2].iter().any(|number| bench.pool.known.contains_key(&peer(*number))));
}

#[test]
fn when_a_member_goes_and_nobody_is_at_hand_the_dht_is_asked_within_seconds() {
    let mut bench = Bench::with(1..=5, []);
    let is_asked = |actions: &[Action]| actions.contains(&Action::AskDht);
    assert!(!is_asked(&bench.wait(secs(600))), "nobody is missing");
    bench.feed(Input::BudgetSpent { peer: peer(2) });
    assert!(is_asked(&bench.wait(secs(3))), "the pause that grew meanwhile is over");
}

#[test]
fn who_is_to_join_comes_from_a_subnet_without_a_member_while_others_are_left() {
    for (has_other, is_diverse) in [(true, true), (false, true), (true, false)] {
        let mut chosen = BTreeSet::new();
        for seed in 0..20 {
            let mut bench = Bench::with(1..=4, []);
            bench.pool.owner.is_diverse = is_diverse;
            let near = |number: u16| {
                let addr = format!("/ip4/51.0.1.{number}/tcp/4001").parse().unwrap();
                AddrInfo { id: peer(number), addrs: vec![addr] }
            };
            let others = if has_other { infos([21]) } else { Vec::new() };
            for AddrInfo { id, addrs } in (11..=16).map(near).chain(others) {
                let mut known = known::Known::new(known::Source::Dht, None);
                known.about.addrs = addrs;
                bench.pool.known.insert(id, known);
            }
            let mut rng = StdRng::seed_from_u64(seed);
            chosen.extend(bench.pool.candidates(1, bench.now, &mut rng));
        }
        let is_other_alone = chosen == BTreeSet::from([peer(21)]);
        assert_eq!(is_other_alone, has_other && is_diverse, "member 1 is in the subnet of the others");
    }
}

#[test]
fn a_member_that_answers_needs_nobodys_word() {
    let mut bench = Bench::with(1..=5, []);
    assert_eq!(bench.feed(Input::Vouched { peer: peer(2), answered: 2, reach: 2 }), []);
    bench.feed(Input::BudgetSpent { peer: peer(2) });
    assert_eq!(bench.state(2), None);
}

#[test]
fn f6_a_member_that_is_silent_twice_has_its_connections_closed_by_us() {
    let mut bench = Bench::with(1..=5, []);
    let close = Action::Close { peer: peer(2) };
    assert!(position(&bench.feed(Input::Missed { peer: peer(2) }), &close).is_none(), "one silence is a hiccup");
    assert!(position(&bench.feed(Input::Missed { peer: peer(2) }), &close).is_some());
}

#[test]
fn a_hiccup_between_answers_is_no_second_one() {
    let mut bench = Bench::with(1..=5, []);
    for _ in 0..5 {
        bench.feed(Input::Missed { peer: peer(2) });
        bench.answered(2);
    }
    assert_eq!(bench.state(2), Some(State::Answering));
}

#[test]
fn g5_g6_what_happens_to_one_member_touches_no_other() {
    let ends: [fn(PeerId) -> Input; 5] = [
        |peer| Input::Reset { peer },
        |peer| Input::BudgetSpent { peer },
        |peer| Input::Evicted { peer },
        |peer| Input::Left { peer, alternatives: Vec::new() },
        |peer| Input::Busy { peer, retry_after: secs(9), alternatives: Vec::new() },
    ];
    for end in ends {
        for number in [2, 77] {
            let mut bench = Bench::with(1..=4, []);
            let before: Vec<Shown> = bench.pool.shown(bench.now);
            let actions = bench.feed(end(peer(number)));
            assert!(stopped(&actions).iter().all(|(peer, _)| *peer == super::tests::peer(number)), "{actions:?}");
            let others = |shown: &[Shown]| -> Vec<Shown> {
                shown.iter().filter(|shown| shown.peer != peer(number)).cloned().collect()
            };
            assert_eq!(others(&before), others(&bench.pool.shown(bench.now)));
        }
    }
}

#[test]
fn a_seed_stays_and_is_retried_until_it_returns() {
    let mut bench = Bench::with([1, 2], [3]);
    bench.feed(Input::Reset { peer: peer(3) });
    bench.feed(Input::BudgetSpent { peer: peer(3) });
    assert_eq!(bench.state(3), Some(State::Down));
    for _ in 0..5 {
        assert!(bench.is_probed_within(3, SEED_PAUSE_MAX + secs(7)));
        bench.feed(Input::Probed { peer: peer(3), outcome: Probed::Unreachable });
        assert_eq!(bench.state(3), Some(State::Down));
    }
    assert!(bench.is_probed_within(3, SEED_PAUSE_MAX + secs(7)));
    assert_eq!(started(&bench.probed(3, 0.5)), [peer(3)]);
}

#[test]
fn the_last_member_is_kept_whatever_happens_to_it() {
    let mut bench = Bench::with([1], []);
    assert_eq!(bench.feed(Input::Evicted { peer: peer(1) }), []);
    assert_eq!(stopped(&bench.feed(Input::Left { peer: peer(1), alternatives: Vec::new() })), []);
    assert!(bench.is_member(1));
    bench.feed(Input::Reset { peer: peer(1) });
    bench.feed(Input::BudgetSpent { peer: peer(1) });
    assert_eq!(bench.state(1), Some(State::Down));
    assert_eq!(bench.pool.reach(), Reach::Isolated);
    bench.feed(Input::Inbound { info: info(2) });
    bench.probed(2, 0.5);
    assert_eq!(bench.state(1), Some(State::Down), "until another answers");
    bench.answered(2);
    assert_eq!(bench.pool.reach(), Reach::Joined);
}

#[test]
fn where_a_member_listens_is_remembered_as_it_says_it_and_the_address_that_we_chose_stays_first() {
    for seeds in [vec![], vec![1]] {
        let mut bench = Bench::with([1], seeds.clone());
        let moved = AddrInfo { id: peer(1), addrs: info(55).addrs };
        let told = |actions: &[Action]| {
            actions.iter().find_map(|action| match action {
                Action::Remember { peer: to, addrs } if *to == peer(1) => Some(addrs.clone()),
                _ => None,
            })
        };
        let candidates = vec![moved.clone()];
        assert_eq!(told(&bench.feed(Input::Candidates { from: peer(2), candidates })), None, "others' word is hearsay");
        let (old, new) = (info(1).addrs[0].clone(), info(55).addrs[0].clone());
        assert_eq!(told(&bench.feed(Input::Inbound { info: moved.clone() })), Some(vec![old.clone(), new]));
        assert_eq!(told(&bench.feed(Input::Inbound { info: moved })), None, "it is nothing new");
        let many = (100..120).flat_map(|number| info(number).addrs).collect();
        let addrs = told(&bench.feed(Input::Inbound { info: AddrInfo { id: peer(1), addrs: many } })).unwrap();
        assert_eq!((addrs.len(), &addrs[0]), (ADDRS_MAX, &old));
    }
}

#[test]
fn what_the_local_network_says_is_hearsay_and_moves_nobody_whom_we_chose() {
    let mut bench = Bench::with([1], []);
    let local = |info: AddrInfo| Input::Local { found: vec![info] };
    let moved = |number: u16| AddrInfo { id: peer(number), addrs: info(55).addrs };
    let actions = bench.feed(local(moved(1)));
    assert!(!actions.iter().any(|action| matches!(action, Action::Remember { .. })), "nothing is written down");
    assert_eq!(bench.pool.members[&peer(1)].about.addrs, info(1).addrs, "a member says itself where it lives");
    for (number, is_seed) in [(20, true), (21, false)] {
        bench.pool.enter(info(number), is_seed, !is_seed);
        bench.pool.known.get_mut(&peer(number)).unwrap().failures = 4;
        bench.feed(local(moved(number)));
        let known = &bench.pool.known[&peer(number)];
        assert_eq!((&known.about.addrs, known.failures), (&info(number).addrs, 4), "we chose it: {number}");
    }
    bench.feed(Input::Candidates { from: peer(1), candidates: infos([9]) });
    bench.feed(local(moved(9)));
    bench.pool.known.get_mut(&peer(9)).unwrap().failures = 2;
    bench.feed(local(moved(9)));
    let known = &bench.pool.known[&peer(9)];
    assert_eq!(known.about.addrs, [info(9).addrs, info(55).addrs].concat(), "behind what others said");
    assert_eq!(known.failures, 2, "that it is spoken of does not say that it is there");
}

#[test]
fn the_local_network_takes_no_places_but_its_own_and_names_nobody_without_an_address() {
    let mut bench = Bench::with([1], []);
    for addrs in [Vec::new(), vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()]] {
        bench.feed(Input::Local { found: vec![AddrInfo { id: peer(7), addrs }] });
        assert!(!bench.pool.known.contains_key(&peer(7)), "it cannot be reached from here");
    }
    for number in 100..140 {
        bench.feed(Input::Local { found: vec![info(number)] });
    }
    let most = bench.pool.settings.candidates_per_source_max as usize;
    let of_local = bench.pool.known.values().filter(|known| known.about.source == Source::Local).count();
    assert_eq!((of_local, most), (16, 16));
    for number in 200..216 {
        bench.feed(Input::Inbound { info: info(number) });
        assert!(bench.pool.known.contains_key(&peer(number)), "{number}");
    }
}

#[test]
fn an_evicted_member_is_stopped_forgotten_and_does_not_come_back_soon() {
    let mut bench = Bench::with([1, 2], []);
    let actions = bench.feed(Input::Evicted { peer: peer(2) });
    assert_eq!(stopped(&actions), [(peer(2), Why::Evicted)]);
    assert!(actions.contains(&Action::Disown { peer: peer(2) }));
    let again = bench.feed(Input::Candidates { from: peer(1), candidates: infos([2]) });
    assert_eq!(probes(&again), []);
    bench.feed(Input::Inbound { info: AddrInfo { id: peer(2), addrs: info(55).addrs } });
    assert!(!probes(&bench.wait(secs(1_700))).contains(&peer(2)));
}

#[test]
fn one_whose_evidence_still_condemns_it_is_not_taken_up_again_while_others_answer() {
    let mut bench = Bench::with([1, 2], []);
    bench.feed(Input::Evicted { peer: peer(2) });
    let condemned = |is_condemned| Input::Scores(vec![Ranked { peer: peer(2), low: 10.0, is_condemned }]);
    for _ in 0..60 {
        assert!(!bench.is_probed_within(2, secs(60)), "an hour, twice its rest");
        bench.answered(1);
        bench.feed(Input::Candidates { from: peer(1), candidates: infos([2]) });
        bench.feed(condemned(true));
    }
    for _ in 0..32 {
        bench.answered(1);
        bench.feed(condemned(false));
        bench.feed(Input::Candidates { from: peer(1), candidates: infos([2]) });
        if bench.is_probed_within(2, secs(60)) {
            return;
        }
    }
    panic!("it is tried again once its evidence has faded");
}

#[test]
fn one_that_is_condemned_is_better_than_nobody() {
    let mut bench = Bench::with([1], []);
    bench.feed(Input::Inbound { info: info(2) });
    bench.feed(Input::Scores(vec![Ranked { peer: peer(2), low: 10.0, is_condemned: true }]));
    bench.feed(Input::Reset { peer: peer(1) });
    bench.feed(Input::BudgetSpent { peer: peer(1) });
    assert!(bench.is_probed_within(2, secs(60)));
}

#[test]
fn one_that_is_condemned_while_it_is_probed_does_not_become_good_by_the_answer() {
    let mut bench = Bench::with([1], []);
    let probed = bench.feed(Input::Inbound { info: info(2) });
    assert_eq!(probes(&probed), [peer(2)]);
    let condemned = || Input::Scores(vec![Ranked { peer: peer(2), low: 10.0, is_condemned: true }]);
    bench.feed(condemned());
    assert_eq!(started(&bench.probed(2, 0.1)), []);
    assert_eq!(started(&bench.wait(secs(60))), [], "though the pool has room");
    let (mut alone, _) = Bench::new([], []);
    assert_eq!(probes(&alone.feed(Input::Inbound { info: info(2) })), [peer(2)]);
    alone.feed(condemned());
    assert_eq!(started(&alone.probed(2, 0.1)), [peer(2)], "to whoever is alone it is better than nobody");
}

#[test]
fn a_seed_that_the_judge_evicts_goes_and_rests_unless_it_is_the_last() {
    let mut bench = Bench::with([1], [2]);
    let actions = bench.feed(Input::Evicted { peer: peer(2) });
    assert_eq!(stopped(&actions), [(peer(2), Why::Evicted)]);
    assert!(!actions.contains(&Action::Forget { peer: peer(2) }), "a restart joins it, and must know what it did");
    assert_eq!(probes(&bench.wait(secs(1_799))), [], "it rests");
    assert_eq!(probes(&bench.wait(secs(2))), [peer(2)], "it may have been mended");
    assert_eq!(started(&bench.probed(2, 0.1)), [peer(2)]);
    let mut alone = Bench::with([], [2]);
    assert_eq!(alone.feed(Input::Evicted { peer: peer(2) }), []);
    assert!(alone.is_member(2));
}

#[test]
fn a_member_carries_us_while_it_answers_and_does_not_leave() {
    let mut bench = Bench::with([1, 2], []);
    let carries = |bench: &Bench| bench.pool.members().map(|member| (member.peer, member.carries)).collect::<Vec<_>>();
    assert!(carries(&bench).iter().all(|(_, carries)| *carries));
    bench.feed(Input::Left { peer: peer(1), alternatives: Vec::new() });
    bench.feed(Input::Left { peer: peer(2), alternatives: Vec::new() });
    assert_eq!(carries(&bench), [(peer(2), false)], "kept until another answers");
    let (joining, _) = Bench::new([], [1]);
    assert_eq!(carries(&joining), [(peer(1), false)]);
}

#[test]
fn a_full_pool_is_not_too_small_to_lose_a_seed_that_lies() {
    let mut bench = Bench::with([], 1..=3);
    (bench.pool.settings.min_indexer, bench.pool.settings.max_indexer) = (3, 3);
    assert_eq!(bench.hold(1), Some(Hold::Seed), "nobody would come in its place while it stays");
    assert_eq!(stopped(&bench.feed(Input::Evicted { peer: peer(1) })), [(peer(1), Why::Evicted)]);
    assert_eq!(bench.hold(2), Some(Hold::NeededSeed));
    assert_eq!(stopped(&bench.feed(Input::Evicted { peer: peer(2) })), []);
}

#[test]
fn one_that_leaves_goes_at_once_when_others_carry_us_and_its_alternatives_are_tried() {
    let mut bench = Bench::with([1, 2], []);
    let actions = bench.feed(Input::Left { peer: peer(1), alternatives: infos([5, 6]) });
    assert_eq!(stopped(&actions), [(peer(1), Why::Left)]);
    assert_eq!(probes(&actions).len(), 2);
}

#[test]
fn the_only_one_that_leaves_is_kept_until_another_answers() {
    let mut bench = Bench::with([1], []);
    let actions = bench.feed(Input::Left { peer: peer(1), alternatives: infos([5]) });
    assert_eq!((stopped(&actions), probes(&actions)), (vec![], vec![peer(5)]));
    let actions = bench.probed(5, 0.5);
    assert_eq!((stopped(&actions), started(&actions)), (vec![], vec![peer(5)]));
    let referent = actions.iter().any(|action| matches!(action, Action::Start { referent: true, .. }));
    assert!(referent, "its first question says that it represents us");
    assert_eq!(stopped(&bench.answered(5)), [(peer(1), Why::Left)]);
}

#[test]
fn a_busy_member_waits_and_another_is_sought() {
    let (mut bench, _) = Bench::new([], [1]);
    let alternatives = infos([5]);
    let actions = bench.feed(Input::Busy { peer: peer(1), retry_after: secs(30), alternatives });
    assert_eq!(probes(&actions), [peer(5)]);
    assert!(bench.is_member(1), "it keeps its turn");
    assert_eq!(bench.pool.rhythm(&peer(1)).due(&heartbeat::Settings::default()), bench.now + secs(30));
    bench.probed(5, 0.5);
    bench.answered(5);
    assert_eq!(bench.pool.referent(), Some(peer(5)));
}

#[test]
fn a_member_that_is_turned_away_for_longer_than_a_session_lives_is_none_to_count_on() {
    for (retry_after, state) in [(LIFE - secs(1), State::Answering), (LIFE, State::Suspect)] {
        let mut bench = Bench::with(1..=3, []);
        bench.feed(Input::Busy { peer: peer(1), retry_after, alternatives: Vec::new() });
        assert_eq!(bench.state(1), Some(state));
    }
}

#[test]
fn a_member_that_puts_us_off_again_and_again_is_none_to_count_on_once_its_session_is_over() {
    let mut bench = Bench::with(1..=3, []);
    bench.answered(1);
    let answered = bench.now;
    let state = |bench: &mut Bench, after: u64| {
        bench.now = answered + secs(after);
        bench.feed(Input::Busy { peer: peer(1), retry_after: secs(1), alternatives: Vec::new() });
        bench.state(1)
    };
    assert_eq!(state(&mut bench, 60), Some(State::Answering));
    assert_eq!(state(&mut bench, LIFE.as_secs() - 2), Some(State::Answering));
    assert_eq!(state(&mut bench, LIFE.as_secs() - 1), Some(State::Suspect));
    bench.answered(1);
    assert_eq!(bench.state(1), Some(State::Answering));
}

#[test]
fn a_busy_candidate_is_left_alone_for_as_long_as_it_says() {
    let mut bench = Bench::with([], [1]);
    bench.feed(Input::Candidates { from: peer(1), candidates: infos([5]) });
    let outcome = Probed::Busy { retry_after: secs(45), alternatives: Vec::new() };
    bench.feed(Input::Probed { peer: peer(5), outcome });
    assert!(!probes(&bench.wait(secs(44))).contains(&peer(5)));
    assert!(probes(&bench.wait(secs(2))).contains(&peer(5)));
}

// Moving.

#[test]
fn a_seed_that_asks_us_to_move_is_left_and_sticky_no_more() {
    let mut bench = Bench::with([], [3, 4]);
    bench.feed(Input::Missed { peer: peer(4) });
    bench.feed(Input::Missed { peer: peer(4) });
    assert_eq!((bench.hold(3), bench.hold(4)), (Some(Hold::NeededSeed), Some(Hold::Seed)));
    assert_eq!(stopped(&bench.migrate(3, vec![])), [], "nobody else answers");
    assert_eq!(bench.hold(3), Some(Hold::Loose));
    assert_eq!(stopped(&bench.answered(4)), [(peer(3), Why::Migrated)], "a seed carries us like any other");
    assert!(!probes(&bench.wait(secs(590))).contains(&peer(3)), "it is left in peace");
}

#[test]
fn a_move_is_obeyed_only_once_enough_others_answer() {
    let mut bench = Bench::with([1], []);
    let actions = bench.migrate(1, infos([5]));
    assert_eq!(probes(&actions), [peer(5)]);
    bench.probed(5, 0.2);
    assert_eq!(stopped(&bench.answered(5)), [(peer(1), Why::Migrated)]);
}

#[test]
fn of_several_full_ones_that_ask_us_to_move_one_a_minute_is_let_go_unreplaced() {
    let mut bench = Bench::with(1..=5, []);
    assert_eq!(stopped(&bench.migrate(1, infos([7]))), [(peer(1), Why::Migrated)]);
    for number in 2..=4 {
        assert_eq!(stopped(&bench.migrate(number, infos([7]))), []);
    }
    assert_eq!(stopped(&bench.wait(secs(59))), []);
    assert_eq!(stopped(&bench.wait(secs(1))).len(), 1);
    bench.feed(Input::Inbound { info: info(8) });
    bench.probed(8, 0.1);
    assert!(bench.pool.answering().len() >= 3, "it is not left with one");
}

#[test]
fn one_that_has_room_and_asks_us_to_move_goes_once_another_has_taken_its_place() {
    let mut bench = Bench::with(1..=5, []);
    for number in 1..=5 {
        assert_eq!(stopped(&bench.asked_to_move(number, infos([7]), 0.8)), []);
    }
    assert_eq!(bench.pool.need(), 1, "one is moved from at a time");
    assert_eq!(stopped(&bench.wait(secs(5))), [], "no pool shrinks for evenness");
    bench.probed(7, 0.1);
    assert_eq!(bench.pool.need(), 1, "the other one is joining, and to want nobody would be to stay");
    assert_eq!(stopped(&bench.answered(7)), [(peer(1), Why::Migrated)]);
    assert_eq!((bench.pool.answering().len(), bench.pool.need()), (5, 0));
}

#[test]
fn one_that_names_nobody_who_answers_keeps_no_other_from_asking() {
    let mut bench = Bench::with(1..=5, []);
    bench.asked_to_move(1, infos([7]), 0.5);
    assert_eq!(bench.pool.need(), 1);
    bench.asked_to_move(2, infos([8]), 0.5);
    bench.wait(secs(59));
    assert_eq!(bench.pool.need(), 1, "it is still sought");
    bench.wait(secs(1));
    assert_eq!(bench.pool.need(), 0, "nobody came");
    bench.asked_to_move(1, infos([9]), 0.5);
    assert_eq!(bench.pool.need(), 0, "it is not heard for a while");
    bench.asked_to_move(2, infos([10]), 0.5);
    assert_eq!(bench.pool.need(), 1);
    assert!(bench.pool.members[&peer(2)].leaving.is_some() && bench.pool.members[&peer(1)].leaving.is_none());
}

#[test]
fn one_that_has_room_is_not_left_for_one_that_is_a_member_already() {
    let mut bench = Bench::with(1..=5, []);
    bench.asked_to_move(1, infos([2, 3]), 0.5);
    assert_eq!(bench.pool.need(), 0, "there is nothing to be sought");
    bench.asked_to_move(1, infos([2, 7]), 0.5);
    assert_eq!(bench.pool.need(), 1);
    bench.probed(7, 0.1);
    assert_eq!(stopped(&bench.answered(7)), [(peer(1), Why::Migrated)]);
}

#[test]
fn a_move_to_where_nobody_answers_or_whom_we_gave_up_is_not_made() {
    let mut bench = Bench::with(1..=5, []);
    bench.feed(Input::Evicted { peer: peer(5) });
    assert_eq!(stopped(&bench.migrate(1, infos([5]))), [], "it was evicted");
    bench.feed(Input::Inbound { info: info(6) });
    bench.feed(Input::Probed { peer: peer(6), outcome: Probed::Silent });
    assert_eq!(stopped(&bench.migrate(1, infos([5, 6]))), [], "the other one does not answer");
    assert_eq!(stopped(&bench.migrate(1, infos([5, 2]))), [(peer(1), Why::Migrated)], "that one carries us");
}

#[test]
fn one_that_asks_us_to_move_carries_us_until_another_does_or_it_changes_its_mind() {
    let mut bench = Bench::with([1], []);
    bench.migrate(1, vec![]);
    assert_eq!(bench.pool.reach(), Reach::Joined);
    assert_eq!(bench.pool.answering(), [peer(1)]);
    assert_eq!(bench.pool.referent(), Some(peer(1)));
    bench.wait(secs(60));
    assert_eq!((bench.pool.reach(), bench.pool.need()), (Reach::Joined, 5));
    bench.answered(1);
    assert_eq!(bench.pool.need(), 4);
    bench.feed(Input::Inbound { info: info(2) });
    bench.probed(2, 0.5);
    assert_eq!(stopped(&bench.answered(2)), []);
}

#[test]
fn a_full_pool_takes_suggestions_of_one_that_asks_us_to_move() {
    let mut bench = Bench::with([], 1..=5);
    let actions = bench.asked_to_move(1, infos([7]), 0.8);
    assert_eq!((stopped(&actions), probes(&actions)), (vec![], vec![peer(7)]));
    assert_eq!(started(&bench.probed(7, 0.1)), [peer(7)]);
    assert_eq!(bench.pool.members.len(), 6);
    assert_eq!(stopped(&bench.answered(7)), [(peer(1), Why::Migrated)]);
}

#[test]
fn one_that_is_to_move_goes_where_it_is_told_and_not_to_its_standby() {
    let mut bench = Bench::with([], 1..=5);
    bench.feed(Input::Inbound { info: info(6) });
    assert_eq!(started(&bench.probed(6, 0.2)), [], "it is a standby");
    let actions = bench.migrate(1, infos([7]));
    assert_eq!((started(&actions), probes(&actions)), (vec![], vec![peer(7)]));
    assert_eq!(started(&bench.probed(7, 0.1)), [peer(7)]);
}

#[test]
fn more_members_than_wanted_are_kept_a_while_and_then_the_worst_goes() {
    let mut bench = Bench::with(1..=5, []);
    bench.feed(Input::Inbound { info: info(9) });
    bench.probed(9, 0.3);
    bench.feed(Input::Reset { peer: peer(2) });
    bench.answered(9);
    bench.answered(2);
    assert_eq!(bench.pool.members.len(), 6);
    let ranked = |number| Ranked { peer: peer(number), low: f64::from(number) * 10.0, is_condemned: false };
    bench.feed(Input::Scores((1..=9).map(ranked).collect()));
    assert_eq!(bench.pool.referent(), Some(peer(1)), "the worst of all represents us and stays");
    assert_eq!(stopped(&bench.wait(secs(299))), []);
    assert_eq!(stopped(&bench.wait(secs(2))), [(peer(2), Why::Excess)]);
}

// The referent.

#[test]
fn the_first_to_join_is_told_with_its_first_question_and_stays_when_it_answers_soon() {
    let (mut bench, actions) = Bench::new([1, 2], []);
    let told: Vec<bool> = actions
        .iter()
        .filter_map(|action| if let Action::Start { referent, .. } = action { Some(*referent) } else { None })
        .collect();
    assert_eq!(told, [true, false]);
    bench.answered(2);
    assert_eq!(bench.pool.referent(), Some(peer(1)));
    bench.answered(1);
    assert_eq!(bench.pool.referent(), Some(peer(1)));
}

#[test]
fn one_that_answers_replaces_a_first_choice_that_does_not() {
    let (mut bench, _) = Bench::new([1, 2], []);
    bench.answered(2);
    let actions = bench.wait(secs(1));
    assert_eq!(bench.pool.referent(), Some(peer(2)));
    assert!(actions.contains(&Action::Nudge { peer: peer(2) }));
}

#[test]
fn a_lost_referent_is_replaced_by_a_nudge_at_once() {
    let mut bench = Bench::with(1..=3, []);
    bench.feed(Input::Scores(vec![
        Ranked { peer: peer(3), low: 70.0, is_condemned: false },
        Ranked { peer: peer(2), low: 60.0, is_condemned: false },
    ]));
    let actions = bench.feed(Input::Reset { peer: peer(1) });
    assert!(actions.contains(&Action::SetReferent { peer: peer(3), referent: true }));
    assert!(actions.contains(&Action::Nudge { peer: peer(3) }));
    assert!(actions.contains(&Action::SetReferent { peer: peer(1), referent: false }));
    assert!(!actions.contains(&Action::Nudge { peer: peer(1) }), "it does not answer");
}

#[test]
fn the_referent_changes_only_for_a_lead_of_ten_points_held_for_five_minutes() {
    let mut bench = Bench::with(1..=2, []);
    let score = |bench: &mut Bench, lead| {
        bench.feed(Input::Scores(vec![
            Ranked { peer: peer(1), low: 50.0, is_condemned: false },
            Ranked { peer: peer(2), low: 50.0 + lead, is_condemned: false },
        ]))
    };
    score(&mut bench, 9.9);
    bench.wait(secs(1_000));
    assert_eq!(bench.pool.referent(), Some(peer(1)));
    score(&mut bench, 10.0);
    bench.wait(secs(299));
    score(&mut bench, 9.0);
    score(&mut bench, 10.0);
    bench.wait(secs(299));
    assert_eq!(bench.pool.referent(), Some(peer(1)), "the lead was interrupted");
    let actions = bench.wait(secs(1));
    assert_eq!(bench.pool.referent(), Some(peer(2)));
    let (told, nudged) = (Action::SetReferent { peer: peer(2), referent: true }, Action::Nudge { peer: peer(2) });
    assert!(position(&actions, &told).unwrap() < position(&actions, &nudged).unwrap());
    let former = Action::SetReferent { peer: peer(1), referent: false };
    assert_eq!(position(&actions, &former), None, "the former is told after the new one");
    let early = bench.feed(Input::Answered {
        peer: peer(2),
        referent: false,
        suggestions: vec![],
        suggest_migrate: false,
        fill_rate: 0.5,
    });
    assert_eq!(position(&early, &former), None, "that answer was to an earlier question");
    let actions = bench.answered(2);
    assert!(position(&actions, &former).unwrap() < position(&actions, &Action::Nudge { peer: peer(1) }).unwrap());
}

// Bounds.

#[test]
fn g28_no_source_fills_the_pool_or_the_memory() {
    let mut bench = Bench::with(1..=5, []);
    bench.feed(Input::Candidates { from: peer(1), candidates: infos(100..1_000) });
    assert_eq!(bench.pool.known.len(), 10, "from one answer");
    bench.feed(Input::Candidates { from: peer(1), candidates: infos(200..1_000) });
    assert_eq!(bench.pool.known.len(), 16, "from one source");
    for (nth, source) in (2..=5).enumerate() {
        let first = 2_000 + 100 * nth as u16;
        for from in [first, first + 10] {
            bench.feed(Input::Candidates { from: peer(source), candidates: infos(from..from + 10) });
        }
    }
    assert_eq!(bench.pool.known.len(), 64, "in all");
    bench.feed(Input::Candidates { from: peer(77), candidates: infos(5_000..5_010) });
    assert!(!bench.pool.known.contains_key(&peer(5_000)), "nobody asked it");
    assert_eq!(bench.pool.members.len(), 5, "nobody joined unprobed");
}

#[test]
fn g28_failed_candidates_make_room_for_others() {
    let mut bench = Bench::with([], [1]);
    for first in [100, 110] {
        bench.feed(Input::Candidates { from: peer(1), candidates: infos(first..first + 10) });
    }
    assert_eq!(bench.pool.known.len(), 16);
    bench.feed(Input::Candidates { from: peer(1), candidates: infos([5]) });
    assert!(!bench.pool.known.contains_key(&peer(5)), "nobody failed yet");
    for (number, outcome) in [(100, Probed::Silent), (101, Probed::Unreachable)] {
        // As if chance had chosen it for a probe.
        bench.pool.known.get_mut(&peer(number)).unwrap().probing = Some(bench.now);
        bench.feed(Input::Probed { peer: peer(number), outcome });
    }
    bench.feed(Input::Candidates { from: peer(1), candidates: infos([5, 6]) });
    assert!(bench.pool.known.contains_key(&peer(5)) && !bench.pool.known.contains_key(&peer(101)));
    assert!(bench.pool.known.contains_key(&peer(100)), "it was asked a moment ago, which is remembered");
    assert!(!bench.pool.known.contains_key(&peer(6)));
}

#[test]
fn a_dead_candidate_of_which_nobody_speaks_is_dropped() {
    let mut bench = Bench::with([], [1]);
    bench.feed(Input::Candidates { from: peer(1), candidates: infos([5]) });
    for _ in 0..40 {
        bench.feed(Input::Probed { peer: peer(5), outcome: Probed::Unreachable });
        bench.is_probed_within(5, secs(60));
    }
    assert!(!bench.pool.known.contains_key(&peer(5)));
}

#[test]
fn a_stream_of_strangers_does_not_keep_a_lonely_node_from_its_seed() {
    let mut bench = Bench::with([], [1]);
    bench.feed(Input::Reset { peer: peer(1) });
    bench.feed(Input::BudgetSpent { peer: peer(1) });
    let mut probed = 0;
    for number in 100..160 {
        bench.feed(Input::Inbound { info: info(number) });
        bench.feed(Input::Probed { peer: peer(number), outcome: Probed::Silent });
        probed += probes(&bench.wait(secs(1))).iter().filter(|probed| **probed == peer(1)).count();
        bench.feed(Input::Probed { peer: peer(1), outcome: Probed::Unreachable });
    }
    assert!(probed >= 5, "{probed} in a minute: 2, 4, 8, 16 and 30 s apart at the least");
}

#[test]
fn only_one_last_member_is_kept() {
    let (mut bench, _) = Bench::new([], []);
    for number in 1..=100 {
        bench.feed(Input::Inbound { info: info(number) });
        bench.probed(number, 0.2);
        bench.feed(Input::Reset { peer: peer(number) });
        bench.feed(Input::BudgetSpent { peer: peer(number) });
    }
    assert_eq!(bench.pool.known.values().filter(|known| known.kept).count(), 1);
    assert!(bench.pool.known.len() <= 65, "{}", bench.pool.known.len());
}

#[test]
fn a_memory_full_of_the_dead_holds_nobody_up() {
    let mut bench = Bench::with([], [1]);
    for number in 100..132 {
        bench.pool.enter(info(number), false, true);
        bench.pool.known.get_mut(&peer(number)).unwrap().failures = 1;
    }
    let probed = probes(&bench.feed(Input::Candidates { from: peer(1), candidates: infos([5, 6]) }));
    assert!(probed.contains(&peer(5)) && probed.contains(&peer(6)), "{probed:?}");
}

#[test]
fn a_candidate_that_moved_is_tried_where_it_says_it_is() {
    let mut bench = Bench::with(1..=5, []);
    let at = |port: u16| AddrInfo { id: peer(9), addrs: vec![format!("/ip4/51.9.9.9/tcp/{port}").parse().unwrap()] };
    for port in 1..=20 {
        bench.feed(Input::Inbound { info: at(port) });
    }
    let known = &bench.pool.known[&peer(9)];
    assert_eq!(known.about.addrs.len(), 8);
    assert_eq!(known.about.addrs[0], at(20).addrs[0]);
}

#[test]
fn addresses_that_this_network_does_not_have_are_not_believed() {
    let mut bench = Bench::with([], [1]);
    let at = |addr: &str| AddrInfo { id: peer(5), addrs: vec![addr.parse().unwrap()] };
    for addr in ["/ip4/127.0.0.1/tcp/1", "/ip4/0.0.0.0/tcp/1", "/ip6/::1/tcp/1"] {
        bench.feed(Input::Candidates { from: peer(1), candidates: vec![at(addr)] });
        assert!(bench.pool.known.is_empty(), "{addr}");
    }
    bench.pool.owner.rule.is_local = true;
    bench.feed(Input::Candidates { from: peer(1), candidates: vec![at("/ip4/127.0.0.1/tcp/1")] });
    assert_eq!(bench.pool.known.len(), 1);
}

#[test]
fn never_more_members_than_twice_the_target() {
    let (mut bench, _) = Bench::new(1..=5, []);
    for round in 0..6u16 {
        let lost: Vec<PeerId> = bench.pool.members().map(|member| member.peer).collect();
        for peer in lost {
            bench.feed(Input::Reset { peer });
        }
        for number in 0..5 {
            let number = 100 + 10 * round + number;
            bench.feed(Input::Inbound { info: info(number) });
            bench.probed(number, 0.2);
            bench.answered(number);
        }
        assert!(bench.pool.members.len() <= 10);
        assert_eq!(bench.pool.answering().len(), 5, "the longest suspected made room");
    }
}

#[test]
fn what_is_remembered_is_bounded() {
    let (mut bench, _) = Bench::new([], []);
    let mut rows = BTreeSet::new();
    for number in 1..=60 {
        let mut actions = bench.feed(Input::Inbound { info: info(number) });
        actions.extend(bench.probed(number, 0.2));
        actions.extend(bench.answered(number));
        actions.extend(bench.feed(Input::Reset { peer: peer(number) }));
        actions.extend(bench.feed(Input::BudgetSpent { peer: peer(number) }));
        for action in actions {
            match action {
                Action::Remember { peer, .. } => assert!(rows.insert(peer)),
                Action::Forget { peer } | Action::Disown { peer } => assert!(rows.remove(&peer)),
                _ => {}
            }
        }
    }
    assert_eq!(rows.len(), 32);
}

// Choosing.

#[test]
fn g16_choices_are_spread_over_ipv6_subnets_as_over_ipv4_ones() {
    let subnet = |text: &str| Subnet::of_addr(&format!("/ip6/{text}/tcp/4001").parse().unwrap());
    let choice = |number, text: &str| Choice { peer: peer(number), fill_rate: None, subnet: subnet(text) };
    let choices = [choice(1, "2001:db8:7::1"), choice(2, "2001:db8:7:1::1"), choice(3, "2001:db8:8::1")];
    for seed in 0..64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let chosen = choose(&choices, 2, Some(BTreeSet::new()), &mut rng);
        assert!(chosen.contains(&peer(3)), "one of each /48: {chosen:?}");
    }
}

#[test]
fn g29_an_empty_indexer_can_be_chosen_and_a_half_full_one_most() {
    assert_eq!(weight(Some(0.0)), 0.05);
    assert_eq!(weight(Some(1.0)), 0.05);
    assert_eq!(weight(Some(0.5)), 0.25);
    assert_eq!(weight(None), 0.25);
    assert!((weight(Some(0.2)) - 0.16).abs() < 1e-12);
}

#[test]
fn g29_choices_are_random_by_weight_and_not_a_sort() {
    let choice = |number, fill_rate| Choice { peer: peer(number), fill_rate: Some(fill_rate), subnet: None };
    let choices = [choice(1, 0.0), choice(2, 0.5), choice(3, 0.2)];
    let (mut rng, mut first) = (StdRng::seed_from_u64(5), [0u32; 3]);
    for _ in 0..20_000 {
        let chosen = choose(&choices, 1, None, &mut rng);
        first[choices.iter().position(|choice| choice.peer == chosen[0]).unwrap()] += 1;
    }
    let share = first.map(|count| f64::from(count) / 20_000.0);
    for (share, weight) in share.into_iter().zip([0.05, 0.25, 0.16]) {
        assert!((share - weight / 0.46).abs() < 0.02, "{share} {weight}");
    }
}

#[test]
fn choices_are_spread_over_subnets_while_others_are_left() {
    let at = |number, addr: &str| {
        let subnet = Subnet::of_addr(&addr.parse().unwrap());
        Choice { peer: peer(number), fill_rate: None, subnet }
    };
    let near = |number| at(number, &format!("/ip4/51.1.1.{number}/tcp/1"));
    let choices = [near(1), near(2), near(3), at(4, "/ip4/51.1.2.1/tcp/1"), at(5, "/ip6/2001:db8:1::1/tcp/1")];
    for seed in 0..50 {
        let mut rng = StdRng::seed_from_u64(seed);
        let chosen = choose(&choices, 3, Some(BTreeSet::new()), &mut rng);
        assert!(chosen.contains(&peer(4)) && chosen.contains(&peer(5)), "{chosen:?}");
        let all = choose(&choices, 9, Some(BTreeSet::new()), &mut rng);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 5, "none twice, none lost");
        let taken = [1, 4].iter().filter_map(|number| choices[number - 1].subnet).collect();
        let other = choose(&choices, 1, Some(taken), &mut rng);
        assert_eq!(other, [peer(5)], "where a member is already comes last");
    }
}

// Whole networks in virtual time.

struct Beat {
    rhythm: Rhythm,
    referent: bool,
    failures: VecDeque<Mono>,
    life: u64,
}

struct Peer {
    pool: Pool,
    beats: BTreeMap<PeerId, Beat>,
    memory: BTreeMap<PeerId, AddrInfo>,
    is_indexer: bool,
    is_up: bool,
    is_frozen: bool,
    seeds: Vec<AddrInfo>,
    wake_at: Mono,
    log: Vec<(Mono, Event)>,
    /// Beats and probes that reached somebody.
    sent: BTreeMap<PeerId, Vec<Mono>>,
}

enum Happens {
    Wake(u16),
    Beat(u16, PeerId, u64),
    Missed(u16, PeerId, u64),
    Lost(u16, PeerId),
    Feed(u16, Input),
}

impl Happens {
    fn whose(&self) -> u16 {
        match self {
            Self::Wake(number)
            | Self::Beat(number, ..)
            | Self::Missed(number, ..)
            | Self::Lost(number, _)
            | Self::Feed(number, _) => *number,
        }
    }
}

/// Every peer on a network without loss: 10 ms for an answer, refusals at once.
struct World {
    now: Mono,
    rng: StdRng,
    peers: BTreeMap<u16, Peer>,
    agenda: BTreeMap<(Mono, u64), Happens>,
    count: u64,
    has_dht: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            now: Mono::from_secs(1),
            rng: StdRng::seed_from_u64(seed),
            peers: BTreeMap::new(),
            agenda: BTreeMap::new(),
            count: 0,
            has_dht: false,
        }
    }

    fn at(&mut self, after: Duration, what: Happens) {
        self.count += 1;
        self.agenda.insert((self.now + after, self.count), what);
    }

    fn start(&mut self, number: u16, is_indexer: bool, seeds: &[u16]) {
        let memory = self.peers.get(&number).map(|peer| peer.memory.clone()).unwrap_or_default();
        let remembered = memory.values().cloned().collect();
        let seeds = infos(seeds.iter().copied());
        let peer = Peer {
            pool: new_pool(number, is_indexer),
            beats: BTreeMap::new(),
            memory,
            is_indexer,
            is_up: true,
            is_frozen: false,
            seeds: seeds.clone(),
            wake_at: Mono::ZERO,
            log: Vec::new(),
            sent: BTreeMap::new(),
        };
        self.peers.insert(number, peer);
        self.feed(number, Input::Start { remembered, seeds });
    }

    fn number(&self, peer: PeerId) -> u16 {
        (1..2_000).find(|number| super::tests::peer(*number) == peer).unwrap()
    }

    fn target(&self, peer: PeerId) -> Option<(u16, &Peer)> {
        let number = self.number(peer);
        self.peers.get(&number).filter(|peer| peer.is_up).map(|peer| (number, peer))
    }

    /// Its connections are reset at once.
    fn kill(&mut self, number: u16) {
        self.peers.get_mut(&number).unwrap().is_up = false;
        let lost = peer(number);
        let numbers: Vec<u16> = self.peers.keys().copied().collect();
        for other in numbers {
            if self.peers[&other].is_up && self.peers[&other].beats.contains_key(&lost) {
                self.at(Duration::ZERO, Happens::Lost(other, lost));
            }
        }
    }

    fn restart(&mut self, number: u16) {
        let (is_indexer, seeds) = {
            let peer = &self.peers[&number];
            (peer.is_indexer, peer.seeds.iter().map(|seed| self.number(seed.id)).collect::<Vec<_>>())
        };
        self.start(number, is_indexer, &seeds);
    }

    fn feed(&mut self, number: u16, input: Input) {
        let now = self.now;
        let rng = &mut self.rng;
        let Some(peer) = self.peers.get_mut(&number).filter(|peer| peer.is_up) else { return };
        let actions = peer.pool.handle(input, now, rng);
        for action in actions {
            self.act(number, action);
        }
        let peer = &self.peers[&number];
        assert_eq!(
            peer.pool.members().map(|member| member.peer).collect::<BTreeSet<_>>(),
            peer.beats.keys().copied().collect(),
            "every member has its heartbeat and nobody else"
        );
        // The actor re-arms its one timer after every message.
        let wake_at = peer.pool.wake(now);
        if wake_at != peer.wake_at {
            self.peers.get_mut(&number).unwrap().wake_at = wake_at;
            self.at(wake_at.since(now), Happens::Wake(number));
        }
    }

    fn act(&mut self, number: u16, action: Action) {
        let now = self.now;
        let peer = self.peers.get_mut(&number).unwrap();
        match action {
            Action::Start { peer: to, referent, rhythm, .. } => {
                let life = self.count;
                let due = rhythm.due(&heartbeat::Settings::default()).since(now);
                let beat = Beat { rhythm, referent, failures: VecDeque::new(), life };
                assert!(peer.beats.insert(to, beat).is_none(), "started twice");
                self.at(due, Happens::Beat(number, to, life));
            }
            Action::Stop { peer: to, .. } => assert!(peer.beats.remove(&to).is_some(), "stopped, not started"),
            Action::Nudge { peer: to } => {
                let beat = peer.beats.get_mut(&to).expect("nudged, not started");
                beat.rhythm.nudge();
                let (due, life) = (beat.rhythm.due(&heartbeat::Settings::default()).since(now), beat.life);
                self.at(due, Happens::Beat(number, to, life));
            }
            Action::SetReferent { peer: to, referent } => peer.beats.get_mut(&to).unwrap().referent = referent,
            Action::SetNeed { .. } => {}
            Action::AskCandidates { members, count } => {
                for from in members {
                    let Some((_, asked)) = self.target(from).filter(|(_, asked)| !asked.is_frozen) else {
                        continue;
                    };
                    let known = asked.pool.answering().into_iter().filter(|known| *known != super::tests::peer(number));
                    let candidates = infos(known.take(count as usize).map(|known| self.number(known)));
                    self.at(Duration::from_millis(10), Happens::Feed(number, Input::Candidates { from, candidates }));
                }
            }
            Action::AskDht => {
                let found = self.peers.iter().filter(|(_, peer)| self.has_dht && peer.is_up && peer.is_indexer);
                let found = found.map(|(number, _)| Found { info: info(*number), fill_rate: None }).collect();
                self.at(Duration::from_millis(30), Happens::Feed(number, Input::Dht { found }));
            }
            Action::Probe { peer: to, .. } => {
                let (after, outcome) = match self.target(to) {
                    None => (1, Probed::Unreachable),
                    Some((_, probed)) if probed.is_frozen => (8_000, Probed::Silent),
                    Some(_) => (10, Probed::Answered { rtt: Duration::from_millis(10), fill_rate: Some(0.3) }),
                };
                if outcome != Probed::Unreachable {
                    self.sent(number, to);
                }
                let input = Input::Probed { peer: to, outcome };
                self.at(Duration::from_millis(after), Happens::Feed(number, input));
            }
            Action::Close { .. } => {}
            Action::AskOthers { about, ask } => {
                let is_up = |peer: &PeerId| self.target(*peer).is_some_and(|(_, asked)| !asked.is_frozen);
                let answered = ask.iter().filter(|peer| is_up(peer)).count() as u32;
                let input = Input::Vouched { peer: about, answered, reach: if is_up(&about) { answered } else { 0 } };
                self.at(Duration::from_millis(20), Happens::Feed(number, input));
            }
            Action::Remember { peer: to, addrs } => {
                peer.memory.insert(to, AddrInfo { id: to, addrs });
            }
            Action::Forget { peer: to } | Action::Disown { peer: to } => assert!(peer.memory.remove(&to).is_some()),
            Action::Note(event) => peer.log.push((now, event)),
        }
    }

    /// No indexer is asked more often than the ceiling allows.
    fn sent(&mut self, number: u16, to: PeerId) {
        let now = self.now;
        let sent = self.peers.get_mut(&number).unwrap().sent.entry(to).or_default();
        sent.push(now);
        if let [.., first, _, _, _, _, last] = sent[..] {
            assert!(last.since(first) >= secs(60) - Duration::from_millis(20), "six in {:?}", last.since(first));
        }
    }

    fn beat(&mut self, number: u16, to: PeerId, life: u64) {
        let (now, settings) = (self.now, heartbeat::Settings::default());
        let Some(beat) = self.peers.get(&number).filter(|peer| peer.is_up).and_then(|peer| peer.beats.get(&to)) else {
            return;
        };
        if beat.life != life {
            return;
        }
        let due = beat.rhythm.due(&settings);
        if due > now {
            return self.at(due.since(now), Happens::Beat(number, to, life));
        }
        let referent = beat.referent;
        let (need, is_indexer) = (self.peers[&number].pool.need(), self.peers[&number].is_indexer);
        let Some((target, asked)) = self.target(to) else {
            return self.fail(number, to, Input::Reset { peer: to });
        };
        let is_frozen = asked.is_frozen;
        let others = asked.pool.answering().into_iter().filter(|known| *known != peer(number)).take(need as usize);
        let suggestions = infos(others.map(|known| self.number(known)));
        let target_is_indexer = asked.is_indexer;
        let beat = self.peers.get_mut(&number).unwrap().beats.get_mut(&to).unwrap();
        beat.rhythm.sent(now, &settings, &mut self.rng);
        let next = beat.rhythm.due(&settings).since(now);
        self.sent(number, to);
        self.feed(number, Input::Sent { peer: to });
        if is_frozen {
            return self.at(settings.answer_within, Happens::Missed(number, to, life));
        }
        let answered = Input::Answered { peer: to, referent, suggestions, suggest_migrate: false, fill_rate: 0.5 };
        self.at(Duration::from_millis(10), Happens::Feed(number, answered));
        if is_indexer && target_is_indexer {
            self.at(Duration::from_millis(5), Happens::Feed(target, Input::Inbound { info: info(number) }));
        }
        self.at(next, Happens::Beat(number, to, life));
    }

    /// The heartbeat actor ends with an error: 3 restarts within 90 s, first pause 1 s.
    fn fail(&mut self, number: u16, to: PeerId, input: Input) {
        let now = self.now;
        self.feed(number, input);
        self.count += 1;
        let life = self.count;
        let Some(beat) = self.peers.get_mut(&number).and_then(|peer| peer.beats.get_mut(&to)) else { return };
        beat.failures.retain(|failed| now.since(*failed) < secs(90));
        beat.failures.push_back(now);
        if beat.failures.len() > 3 {
            self.peers.get_mut(&number).unwrap().beats.remove(&to);
            return self.feed(number, Input::BudgetSpent { peer: to });
        }
        let pause = secs(1 << (beat.failures.len() - 1));
        beat.life = life;
        beat.rhythm.restarted();
        self.at(pause, Happens::Beat(number, to, life));
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), what) = entry.remove_entry();
            self.now = at;
            // A frozen process does what was due when it wakes.
            if self.peers.get(&what.whose()).is_some_and(|peer| peer.is_frozen && peer.is_up) {
                self.at(Duration::from_millis(500), what);
                continue;
            }
            match what {
                Happens::Wake(number) if self.peers[&number].wake_at == at => self.feed(number, Input::Tick),
                Happens::Wake(_) => {}
                Happens::Beat(number, to, life) => self.beat(number, to, life),
                Happens::Missed(number, to, life) => {
                    let beat = self.peers.get(&number).and_then(|peer| peer.beats.get(&to));
                    if beat.is_some_and(|beat| beat.life == life) {
                        self.fail(number, to, Input::Missed { peer: to });
                    }
                }
                Happens::Lost(number, to) => self.fail(number, to, Input::Reset { peer: to }),
                Happens::Feed(number, input) => self.feed(number, input),
            }
        }
        self.now = end;
    }

    fn answering(&self, number: u16) -> BTreeSet<u16> {
        self.peers[&number].pool.answering().into_iter().map(|peer| self.number(peer)).collect()
    }

    fn reach(&self, number: u16) -> Reach {
        self.peers[&number].pool.reach()
    }
}

#[test]
fn three_indexers_and_four_nodes_with_one_seed_converge_in_seconds() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        world.start(1, true, &[]);
        for indexer in 2..=3 {
            world.start(indexer, true, &[1]);
        }
        for node in 11..=14 {
            world.start(node, false, &[1]);
        }
        world.run(secs(3));
        for indexer in 1..=3 {
            assert_eq!(world.answering(indexer).len(), 2, "seed {seed}");
        }
        for node in 11..=14 {
            assert_eq!(world.answering(node), BTreeSet::from([1, 2, 3]), "seed {seed}");
            let peer = &world.peers[&node];
            let referents: Vec<PeerId> =
                peer.beats.iter().filter(|(_, beat)| beat.referent).map(|(peer, _)| *peer).collect();
            assert_eq!(referents, Vec::from_iter(peer.pool.referent()), "seed {seed}");
        }
    }
}

#[test]
fn an_indexer_is_soon_linked_to_all_of_up_to_twice_max_indexer() {
    for seed in 0..5 {
        let mut world = World::new(seed);
        world.start(1, true, &[]);
        for indexer in 2..=10 {
            world.start(indexer, true, &[1]);
            world.run(Duration::from_millis(200));
        }
        world.run(secs(10));
        for indexer in 1..=10 {
            assert_eq!(world.answering(indexer).len(), 9, "seed {seed}, indexer {indexer}");
        }
        world.start(11, true, &[1]);
        world.run(secs(5));
        assert_eq!(world.answering(11).len(), 10, "seed {seed}");
    }
}

#[test]
fn f1_a_killed_indexer_is_replaced_within_a_second() {
    let mut world = World::new(1);
    world.start(1, true, &[]);
    for indexer in 2..=7 {
        world.start(indexer, true, &[1]);
    }
    world.start(11, false, &[1]);
    world.run(secs(60));
    assert_eq!(world.answering(11).len(), 5);
    let referent = world.number(world.peers[&11].pool.referent().unwrap());
    world.kill(referent);
    world.run(secs(1));
    assert_eq!(world.answering(11).len(), 5);
    assert!(world.answering(11).contains(&world.number(world.peers[&11].pool.referent().unwrap())));
    world.run(secs(60));
    let shown = world.peers[&11].pool.shown(world.now);
    assert!(referent == 1 || shown.iter().all(|shown| shown.peer != peer(referent)), "the dead are not listed");
}

#[test]
fn f2_when_all_indexers_are_gone_and_one_returns_the_node_is_home_within_one_step() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.start(1, true, &[]);
        world.start(2, true, &[1]);
        world.start(3, true, &[1]);
        world.start(11, false, &[1]);
        world.run(secs(30));
        for indexer in 1..=3 {
            world.kill(indexer);
        }
        world.run(secs(60 + seed * 20));
        assert_eq!(world.reach(11), Reach::Isolated);
        world.restart(1 + (seed % 3) as u16);
        world.run(secs(34));
        assert_eq!(world.reach(11), Reach::Joined, "seed {seed}");
    }
}

#[test]
fn f3_a_node_restarts_without_its_seed_from_what_it_remembers() {
    let mut world = World::new(1);
    world.start(1, true, &[]);
    world.start(2, true, &[1]);
    world.start(3, true, &[1]);
    world.start(11, false, &[1]);
    world.run(secs(30));
    world.kill(1);
    world.run(secs(24 * 3_600));
    assert_eq!(world.answering(11), BTreeSet::from([2, 3]));
    world.kill(11);
    world.restart(11);
    world.run(secs(1));
    assert_eq!(world.answering(11), BTreeSet::from([2, 3]));
}

#[test]
fn f6_a_frozen_indexer_is_found_by_two_missed_answers() {
    let mut world = World::new(1);
    world.start(1, true, &[]);
    world.start(2, true, &[1]);
    world.start(11, false, &[1]);
    world.run(secs(30));
    world.peers.get_mut(&2).unwrap().is_frozen = true;
    world.run(secs(22 + 5 + 1 + 5 + 1));
    assert_eq!(world.answering(11), BTreeSet::from([1]));
    world.peers.get_mut(&2).unwrap().is_frozen = false;
    world.run(secs(90));
    assert_eq!(world.answering(11), BTreeSet::from([1, 2]), "and taken back when it wakes");
}

#[test]
fn f14_halves_of_a_network_find_each_other_again() {
    let mut world = World::new(3);
    world.start(1, true, &[]);
    world.start(2, true, &[1]);
    world.start(11, false, &[1]);
    world.run(secs(30));
    // Cut off for longer than every timeout: to the node, indexer 2 is away and returns silently.
    world.kill(2);
    world.run(secs(3_600));
    let two = world.peers.get_mut(&2).unwrap();
    two.is_up = true;
    two.is_frozen = false;
    world.run(secs(70));
    assert!(world.answering(11).contains(&2));
}

#[test]
fn f14_halves_find_each_other_again_when_the_only_seed_is_gone() {
    let mut world = World::new(3);
    world.start(1, true, &[]);
    for indexer in [2, 3, 4] {
        world.start(indexer, true, &[1]);
    }
    world.start(11, false, &[1]);
    world.run(secs(60));
    assert_eq!(world.answering(11).len(), 4);
    world.kill(1);
    world.kill(2);
    // For longer than 16 probes of either take.
    world.run(secs(4 * 3_600));
    assert_eq!(world.answering(11), [3, 4].into());
    // It returns silently: nobody is told, and nobody is named to it.
    world.peers.get_mut(&2).unwrap().is_up = true;
    world.run(secs(300));
    assert_eq!(world.answering(11), [2, 3, 4].into());
}

#[test]
fn the_dht_fills_what_members_do_not_know() {
    let mut world = World::new(1);
    world.has_dht = true;
    for indexer in 1..=5 {
        world.start(indexer, true, &[]);
    }
    world.start(11, false, &[1]);
    world.run(secs(20));
    assert_eq!(world.answering(11).len(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_network_that_is_left_alone_heals(
        seed: u64,
        steps in proptest::collection::vec((0u8..4, 1u16..=6, 0u64..40), 0..25),
    ) {
        let mut world = World::new(seed);
        world.start(1, true, &[]);
        for indexer in 2..=6 {
            world.start(indexer, true, &[1, 2]);
        }
        world.start(11, false, &[1, 2]);
        world.run(secs(5));
        for (step, indexer, wait) in steps {
            let (is_up, is_frozen) = (world.peers[&indexer].is_up, world.peers[&indexer].is_frozen);
            match step {
                0 if is_up => world.kill(indexer),
                1 if is_up => world.peers.get_mut(&indexer).unwrap().is_frozen = !is_frozen,
                2 if !is_up => world.restart(indexer),
                _ => {}
            }
            world.run(secs(wait));
        }
        for indexer in 1..=6 {
            world.peers.get_mut(&indexer).unwrap().is_frozen = false;
            if !world.peers[&indexer].is_up {
                world.restart(indexer);
            }
        }
        world.run(secs(120));
        prop_assert!(world.answering(11).len() >= 5);
        for indexer in 1..=6 {
            prop_assert_eq!(world.answering(indexer).len(), 5, "indexer {}", indexer);
        }
        world.run(secs(900));
        prop_assert_eq!(world.answering(11).len(), 5, "more than wanted are not kept for ever");
    }
}

// Anything in any order.

fn any_input() -> impl Strategy<Value = Input> {
    let number = || prop_oneof![4 => 1u16..=20, 1 => Just(999)];
    let who = move || number().prop_map(peer);
    let list = move || proptest::collection::vec(number(), 0..6).prop_map(infos);
    let outcome = prop_oneof![
        (0u64..6_000, proptest::option::of(0.0..=1.0f64))
            .prop_map(|(rtt, fill_rate)| Probed::Answered { rtt: Duration::from_millis(rtt), fill_rate }),
        (0u64..100, list()).prop_map(|(wait, alternatives)| Probed::Busy { retry_after: secs(wait), alternatives }),
        Just(Probed::Silent),
        Just(Probed::Unreachable),
    ];
    prop_oneof![
        1 => who().prop_map(|peer| Input::Sent { peer }),
        4 => (who(), any::<bool>(), list(), proptest::bool::weighted(0.1), 0.0..=1.0f64).prop_map(
            |(peer, referent, suggestions, suggest_migrate, fill_rate)| Input::Answered {
                peer, referent, suggestions, suggest_migrate, fill_rate
            }
        ),
        2 => who().prop_map(|peer| Input::Missed { peer }),
        2 => who().prop_map(|peer| Input::Reset { peer }),
        2 => who().prop_map(|peer| Input::BudgetSpent { peer }),
        1 => (who(), 0u64..100, list()).prop_map(|(peer, wait, alternatives)| Input::Busy {
            peer, retry_after: secs(wait), alternatives
        }),
        1 => (who(), list()).prop_map(|(peer, alternatives)| Input::Left { peer, alternatives }),
        1 => (who(), list()).prop_map(|(from, candidates)| Input::Candidates { from, candidates }),
        1 => list().prop_map(|found| Input::Local { found }),
        1 => list().prop_map(|remembered| Input::Remembered { remembered }),
        1 => list().prop_map(|found| Input::Dht {
            found: found.into_iter().map(|info| Found { info, fill_rate: Some(0.4) }).collect()
        }),
        1 => number().prop_map(|number| Input::Inbound { info: info(number) }),
        4 => (who(), outcome).prop_map(|(peer, outcome)| Input::Probed { peer, outcome }),
        1 => (who(), 0.0..=100.0f64, any::<bool>()).prop_map(|(peer, low, is_condemned)| {
            Input::Scores(vec![Ranked { peer, low, is_condemned }])
        }),
        1 => who().prop_map(|peer| Input::Gone { peer }),
        1 => who().prop_map(|peer| Input::Evicted { peer }),
        1 => who().prop_map(|peer| Input::Revoked { peer }),
        1 => (who(), 0u32..3).prop_map(|(peer, reach)| Input::Vouched { peer, answered: 2, reach }),
        2 => Just(Input::Tick),
    ]
}

/// What the judge is told of a member, and whether [`crate::score::Book::judge`] could let it go.
fn judged(pool: &Pool, peer: &PeerId) -> Option<(Judged, bool)> {
    let member = pool.members().find(|member| member.peer == *peer)?;
    let is_carried = pool.members().any(|other| other.peer != *peer && other.carries);
    Some((member, member.hold != Hold::NeededSeed && is_carried))
}

proptest! {
    #[test]
    fn whatever_happens_the_pool_keeps_its_promises(
        seed: u64,
        is_indexer: bool,
        inputs in proptest::collection::vec(
            (any_input(), 0u64..20_000, proptest::option::weighted(0.05, 0u32..3)),
            1..150,
        ),
    ) {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut pool, mut now) = (new_pool(999, is_indexer), Mono::ZERO);
        let seeds = [1, 2, 999].map(info).to_vec();
        let start = Input::Start { remembered: infos([3, 999]), seeds: seeds.clone() };
        let mut running = BTreeSet::new();
        let mut remembered = BTreeSet::from([peer(3)]);
        for (input, wait, standby) in std::iter::once((start, 0, None)).chain(inputs) {
            now = now + Duration::from_millis(wait);
            if let Some(standby) = standby {
                pool.set_settings(Settings { standby, ..Settings::default() });
            }
            if let Input::BudgetSpent { peer } = &input {
                running.remove(peer);
            }
            if let Input::Remembered { remembered: late } = &input {
                remembered.extend(late.iter().map(|info| info.id).filter(|late| *late != peer(999)));
            }
            let carried = pool.answering().len();
            let is_eviction = matches!(input, Input::Evicted { .. });
            let judged = if let Input::Evicted { peer } = &input { judged(&pool, peer) } else { None };
            let actions = fed(&mut pool, input, now, rng.random());
            if let Some((member, may_go)) = judged {
                let is_gone = stopped(&actions).contains(&(member.peer, Why::Evicted));
                prop_assert_eq!(is_gone, may_go, "the ledger would tell something else");
            }
            for action in actions {
                match action {
                    Action::Start { peer, .. } => prop_assert!(running.insert(peer), "started twice"),
                    Action::Stop { peer, .. } => prop_assert!(running.remove(&peer), "stopped, not started"),
                    Action::Nudge { peer } | Action::SetReferent { peer, .. } => {
                        prop_assert!(running.contains(&peer), "told, not started");
                    }
                    Action::AskCandidates { members, count } => {
                        prop_assert!((1..=10).contains(&count));
                        prop_assert!(members.iter().all(|member| running.contains(member)));
                    }
                    Action::Probe { peer, .. } => prop_assert!(!running.contains(&peer), "probed a member"),
                    Action::Remember { peer, .. } => prop_assert!(remembered.insert(peer)),
                    Action::Forget { peer } | Action::Disown { peer } => prop_assert!(remembered.remove(&peer)),
                    Action::AskOthers { about, ask } => {
                        prop_assert!((1..=OTHERS_ASKED).contains(&ask.len()) && !ask.contains(&about));
                        prop_assert!(ask.iter().all(|other| running.contains(other)));
                    }
                    Action::Close { peer } => prop_assert!(running.contains(&peer), "closed, not started"),
                    Action::SetNeed { .. } | Action::AskDht | Action::Note(_) => {}
                }
            }
            let vouched = pool.known.values().filter(|known| known.about.is_vouched).count();
            prop_assert!(vouched <= VOUCHED_MAX + 10, "those that were members when others spoke for them");
            prop_assert_eq!(&running, &pool.members().map(|member| member.peer).collect::<BTreeSet<_>>());
            prop_assert!(running.len() <= 10, "twice the target");
            prop_assert!(!running.contains(&peer(999)) && !pool.known.contains_key(&peer(999)), "ourselves");
            prop_assert!(running.iter().all(|peer| !pool.known.contains_key(peer)), "in two places");
            for seed in &seeds[..2] {
                prop_assert!(running.contains(&seed.id) || pool.known.contains_key(&seed.id), "a seed is lost");
            }
            prop_assert!(pool.referent().is_none_or(|referent| running.contains(&referent)));
            prop_assert_eq!(pool.answering().is_empty() && pool.reach() == Reach::Joined, false);
            prop_assert!(!is_eviction || carried == 0 || !pool.answering().is_empty(), "evicted the last");
            let hearsay = pool.known.values().filter(|known| known.is_hearsay()).count();
            prop_assert!(hearsay <= 64);
            prop_assert!(pool.wake(now) > now && pool.wake(now) <= now + WAKE_MAX);
            prop_assert!(pool.asked.len() <= 6);
        }
    }
}

#[test]
fn a_revoked_member_is_stopped_though_it_is_a_seed_or_the_last_and_is_not_taken_up_again() {
    // Who is alone tries everybody; the greeting refuses it there.
    let pools: [(Vec<u16>, Vec<u16>); 4] =
        [(vec![1], vec![2]), (vec![1, 2], vec![]), (vec![2], vec![]), (vec![], vec![2])];
    for (remembered, seeds) in pools {
        let mut bench = Bench::with(remembered.clone(), seeds);
        let actions = bench.feed(Input::Revoked { peer: peer(2) });
        assert_eq!(stopped(&actions), [(peer(2), Why::Revoked)]);
        assert!(!bench.is_member(2));
        for _ in 0..60 {
            if remembered.contains(&1) {
                bench.answered(1);
                bench.feed(Input::Candidates { from: peer(1), candidates: infos([2]) });
                assert!(!bench.is_probed_within(2, secs(60)));
            }
        }
    }
    let mut bench = Bench::with([1], []);
    assert_eq!(bench.feed(Input::Revoked { peer: peer(77) }), []);
}
