//! What scores promise.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{evidence::faded, *};
use crate::{
    heartbeat::testing::peer,
    time::{Mono, Now},
};

const TICK: u64 = 20;

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3_600)
}

fn wall(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn answered(rtt_ms: u64, fill: f64) -> Observation {
    Observation::Answered {
        rtt: Duration::from_millis(rtt_ms),
        fill_rate: fill,
        peer_count: (fill * 500.0).round() as u32,
        max_nodes: 500,
        born_at: wall(0),
    }
}

fn born(second: i64) -> Observation {
    let Observation::Answered { rtt, fill_rate, peer_count, max_nodes, .. } = answered(20, 0.5) else { panic!() };
    Observation::Answered { rtt, fill_rate, peer_count, max_nodes, born_at: wall(second) }
}

fn value(book: &Book, part: Part, now: Mono) -> Option<f64> {
    let score = book.score(&peer(1), now)?;
    score.parts.iter().find(|scored| scored.part == part).unwrap().value
}

/// Peer 1 answers every tick from `from` until `to`; returns the time of the last answer.
fn beats(book: &mut Book, from: u64, to: u64) -> Mono {
    for second in (from..=to).step_by(TICK as usize) {
        book.observe(peer(1), &answered(20, 0.5), Mono::from_secs(second));
    }
    Mono::from_secs(from + (to - from) / TICK * TICK)
}

/// Somebody else answers, so that we need not suspect ourselves.
fn others_answer(book: &mut Book, now: Mono) {
    for number in 100..103 {
        book.observe(peer(number), &answered(20, 0.5), now);
    }
}

#[test]
fn the_weights_are_those_of_the_table_and_sum_to_one() {
    let weights: Vec<f64> = Part::ALL.iter().map(|part| part.weight()).collect();
    assert_eq!(weights, [0.20, 0.20, 0.15, 0.10, 0.10, 0.15, 0.10]);
    assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
}

#[test]
fn g11_what_was_not_measured_is_left_out_and_the_rest_is_rescaled() {
    let settings = Settings::default();
    assert_eq!(score(&Facts::default(), &settings), None, "nothing is known");
    let facts = Facts { fill_rate: Some(0.25), ..Facts::default() };
    let only_fill = score(&facts, &settings).unwrap();
    assert_eq!(only_fill.value, 75.0);
    assert!(only_fill.parts.iter().all(|part| part.value.is_some() == (part.part == Part::Fill)));
    let round_trips = Some(RoundTrips { mean_secs: 1.0, deviation_secs: 0.0, samples: 9 });
    let both = score(&Facts { round_trips, ..facts }, &settings).unwrap();
    assert!((both.value - 75.0).abs() < 1e-9, "0.10 and 0.15 scaled to 0.4 and 0.6");
    let unmeasured = Facts { challenges: Beta { good: 0.2, bad: 0.2 }, ..Facts::default() };
    assert_eq!(score(&unmeasured, &settings), None, "faded evidence is none");
}

#[test]
fn g1_every_observation_is_in_the_one_book() {
    let mut book = Book::new(Settings { half_life: hours(1_000_000), ..Settings::default() });
    for second in 0..100 {
        book.observe(peer(1), &Observation::Challenged { good: 1, bad: 0, unfound: 0 }, Mono::from_secs(second));
        book.observe(peer(1), &Observation::Dht { good: second % 2 == 0 }, Mono::from_secs(second));
        let word = Observation::Witness { by: peer(9), agrees: false, weight: 1.0 };
        book.observe(peer(1), &word, Mono::from_secs(second));
        let _copy = book.facts(&peer(1), Mono::from_secs(second));
    }
    let facts = book.facts(&peer(1), Mono::from_secs(99)).unwrap();
    assert!((facts.challenges.good - 100.0).abs() < 1e-3);
    assert!((facts.dht.good - 50.0).abs() < 1e-3 && (facts.dht.bad - 50.0).abs() < 1e-3);
    assert!((facts.witnesses.bad - 100.0).abs() < 1e-3);
}

#[test]
fn g9_a_missed_answer_is_no_round_trip_of_zero() {
    let mut book = Book::default();
    book.observe(peer(1), &answered(2_000, 0.5), Mono::from_secs(0));
    let before = value(&book, Part::Latency, Mono::from_secs(0));
    for second in [20, 40, 60] {
        others_answer(&mut book, Mono::from_secs(second));
        book.observe(peer(1), &Observation::Missed, Mono::from_secs(second));
    }
    assert_eq!(value(&book, Part::Latency, Mono::from_secs(60)), before);
    book.observe(peer(2), &Observation::Missed, Mono::from_secs(60));
    assert_eq!(book.score(&peer(2), Mono::from_secs(60)), None, "one that never answered has no score");
}

#[test]
fn uptime_counts_gaps_only_when_they_are_long_and_somebody_asked() {
    let gap = |length: u64, misses: &[u64]| {
        let mut book = Book::default();
        beats(&mut book, 0, 600);
        for miss in misses {
            others_answer(&mut book, Mono::from_secs(600 + miss));
            book.observe(peer(1), &Observation::Missed, Mono::from_secs(600 + miss));
        }
        book.observe(peer(1), &answered(20, 0.5), Mono::from_secs(600 + length));
        let facts = book.facts(&peer(1), Mono::from_secs(600 + length)).unwrap();
        (facts.online.as_secs(), facts.observed.as_secs())
    };
    assert_eq!(gap(120, &[20, 40]), (720, 720), "not longer than 2 × 60 s");
    assert_eq!(gap(121, &[20, 40, 60]), (600, 721), "longer");
    assert_eq!(gap(5_000, &[]), (600, 600), "nobody asked");
    assert_eq!(gap(5_000, &[20, 40, 140]), (600, 740), "nobody asked after the last miss");
}

#[test]
fn an_absence_shows_before_it_ends() {
    let mut book = Book::default();
    beats(&mut book, 0, 600);
    assert_eq!(value(&book, Part::Uptime, Mono::from_secs(700)), Some(1.0), "nothing was missed yet");
    for second in [620, 640, 700, 800, 900, 1_000, 1_100, 1_200] {
        others_answer(&mut book, Mono::from_secs(second));
        book.observe(peer(1), &Observation::Missed, Mono::from_secs(second));
    }
    assert_eq!(value(&book, Part::Uptime, Mono::from_secs(1_200)), Some(0.5));
}

#[test]
fn g12_the_penalty_for_restarts_fades_and_announced_ones_have_none() {
    let mut book = Book::default();
    for life in 0..4 {
        book.observe(peer(1), &born(life), Mono::from_secs(TICK * life as u64));
    }
    let now = Mono::from_secs(TICK * 3);
    assert!(book.score(&peer(1), now).unwrap().restart_factor < 0.11, "three unexplained restarts");
    let later = now + hours(24);
    assert!(book.score(&peer(1), later).unwrap().restart_factor > 0.94, "four half-lives later");

    let mut book = Book::default();
    book.observe(peer(1), &born(0), Mono::from_secs(0));
    book.observe(peer(1), &Observation::RestartAnnounced, Mono::from_secs(20));
    book.observe(peer(1), &born(1), Mono::from_secs(40));
    assert_eq!(book.score(&peer(1), Mono::from_secs(40)).unwrap().restart_factor, 1.0);
    book.observe(peer(1), &born(2), Mono::from_secs(60));
    let factor = book.score(&peer(1), Mono::from_secs(60)).unwrap().restart_factor;
    assert!((factor - 0.7).abs() < 1e-9, "one announcement explains one restart");
}

#[test]
fn g12_one_crash_evicts_nobody_and_a_habit_does() {
    let crashes = |count: i64| {
        let mut book = Book::default();
        let age = 48 * 3_600;
        for second in (0..=age).step_by(TICK as usize) {
            let life = count - (age - second) as i64 / 600;
            book.observe(peer(1), &born(life.max(0)), Mono::from_secs(second));
        }
        book.score(&peer(1), Mono::from_secs(age)).unwrap()
    };
    let once = crashes(1);
    assert!(once.value < once.threshold && once.high >= once.threshold, "{once:?}");
    let habit = crashes(8);
    assert!(habit.high < habit.threshold, "{habit:?}");
}

#[test]
fn a_restart_behind_our_back_is_no_guilt() {
    let mut book = Book::default();
    book.observe(peer(1), &born(0), Mono::from_secs(0));
    book.observe(peer(1), &born(1), Mono::from_secs(121));
    assert_eq!(book.score(&peer(1), Mono::from_secs(121)).unwrap().restart_factor, 1.0);
}

#[test]
fn g12_an_old_sin_fades() {
    let mut book = Book::default();
    book.observe(peer(1), &Observation::Challenged { good: 0, bad: 20, unfound: 20 }, Mono::from_secs(0));
    let at_once = value(&book, Part::Challenges, Mono::from_secs(0)).unwrap();
    let half = book.facts(&peer(1), Mono::ZERO + hours(6)).unwrap().challenges.bad;
    assert!((half - 10.0).abs() < 1e-9, "the half-life is exact");
    for tick in 1..=60 {
        book.observe(
            peer(1),
            &Observation::Challenged { good: 1, bad: 0, unfound: 0 },
            Mono::ZERO + hours(24) + Duration::from_secs(tick * TICK),
        );
    }
    let later = value(&book, Part::Challenges, Mono::ZERO + hours(25)).unwrap();
    assert!(at_once < 0.05 && later > 0.95, "{at_once} {later}");
}

#[test]
fn fading_in_steps_is_fading_at_once() {
    let settings = Settings::default();
    let facts = Facts { challenges: Beta { good: 40.0, bad: 3.0 }, restarts: 2.0, ..Facts::default() };
    let mut steps = facts.clone();
    for _ in 0..1_000 {
        steps = faded(steps, Duration::from_secs(36), &settings);
    }
    let at_once = faded(facts, hours(10), &settings);
    assert!((steps.challenges.good - at_once.challenges.good).abs() < 1e-9);
    assert!((steps.restarts - at_once.restarts).abs() < 1e-9);
}

#[test]
fn the_threshold_grows_with_age_to_its_most() {
    let settings = Settings::default();
    let check = |age, flawless, expected: f64| {
        let got = threshold(age, flawless, &settings);
        assert!((got - expected).abs() < 1e-9, "{got} {expected}");
    };
    check(Duration::ZERO, 100.0, 20.0);
    check(hours(12), 100.0, 50.0);
    check(hours(24), 100.0, 80.0);
    check(hours(10_000), 100.0, 80.0);
    check(hours(24), 90.0, 75.0);
    check(hours(24), 10.0, 0.0);
}

#[test]
fn an_indexer_that_was_exposed_goes_though_its_numbers_fit_each_other() {
    let mut book = Book::default();
    let end = 30 * 3_600;
    for second in (0..=end).step_by(TICK as usize) {
        book.observe(peer(1), &answered(20, 0.5), Mono::from_secs(second));
        book.observe(peer(2), &answered(20, 0.5), Mono::from_secs(second));
    }
    for _ in 0..3 {
        assert_eq!(book.judge(&members(Hold::Loose), Mono::from_secs(end)), []);
    }
    book.observe(peer(1), &Observation::Exposed, Mono::from_secs(end));
    // The beats of a whole epoch do not wash it off.
    for second in (end..end + 600).step_by(TICK as usize) {
        book.observe(peer(1), &answered(20, 0.5), Mono::from_secs(second));
        book.observe(peer(2), &answered(20, 0.5), Mono::from_secs(second));
    }
    let now = Mono::from_secs(end + 600);
    let gone: Vec<libp2p_identity::PeerId> =
        (0..3).flat_map(|_| book.judge(&members(Hold::Loose), now)).map(|eviction| eviction.peer).collect();
    assert_eq!(gone, [peer(1)]);
}

#[test]
fn one_that_is_exposed_and_cleared_has_its_score_again() {
    let mut book = Book::default();
    let now = beats(&mut book, 0, 3_600);
    let before = book.score(&peer(1), now).unwrap();
    book.observe(peer(1), &Observation::Exposed, now);
    let caught = book.score(&peer(1), now).unwrap();
    assert_eq!((caught.value, caught.low, caught.high), (0.0, 0.0, 0.0));
    assert!(book.is_condemned(&peer(1), now));
    book.observe(peer(1), &Observation::Cleared, now);
    assert_eq!(book.score(&peer(1), now).unwrap(), before);
}

#[test]
fn f8_a_liar_about_one_thing_is_out_in_its_first_hour_though_it_does_all_else_well() {
    /// What it does at a second of the hour.
    type Told = fn(u64) -> Option<Observation>;
    let lies: [(&str, Told); 4] = [
        ("fill", |_| {
            let Observation::Answered { rtt, peer_count, max_nodes, born_at, .. } = answered(20, 0.5) else { panic!() };
            Some(Observation::Answered { rtt, fill_rate: 0.0, peer_count, max_nodes, born_at })
        }),
        ("challenges", |second| {
            second.is_multiple_of(120).then_some(Observation::Challenged { good: 0, bad: 1, unfound: 1 })
        }),
        ("DHT", |second| second.is_multiple_of(300).then_some(Observation::Dht { good: false })),
        ("on and off", |second| {
            let good = u32::from(second % 240 < 120);
            second.is_multiple_of(60).then_some(Observation::Challenged { good, bad: 1 - good, unfound: 1 - good })
        }),
    ];
    for (name, lie) in lies {
        let mut book = Book::default();
        let is_out = (0..3_600).step_by(TICK as usize).any(|second| {
            let now = Mono::from_secs(second);
            book.observe(peer(2), &answered(20, 0.5), now);
            let told = lie(second);
            if !matches!(told, Some(Observation::Answered { .. })) {
                book.observe(peer(1), &answered(20, 0.5), now);
            }
            if let Some(told) = told {
                book.observe(peer(1), &told, now);
            }
            book.judge(&members(Hold::Loose), now).iter().any(|eviction| eviction.peer == peer(1))
        });
        assert!(is_out, "{name}");
    }
}

#[test]
fn one_that_is_slow_while_others_are_quick_is_caught_and_nobody_is_when_all_are_slow() {
    let run = |others_ms: u64| {
        let mut book = Book::default();
        book.set_members(&(1..=3).map(peer).collect());
        for second in (0..600).step_by(TICK as usize) {
            let now = Mono::from_secs(second);
            for number in 2..=3 {
                book.observe(peer(number), &answered(others_ms, 0.5), now);
            }
            book.observe(peer(1), &answered(3_900, 0.5), now);
        }
        book.score(&peer(1), Mono::from_secs(600)).unwrap().suspicions.is_caught()
    };
    assert!(run(20));
    assert!(run(1_900));
    assert!(!run(3_900), "the fault may be in our own link");
}

/// Rounds of witnesses about each of `1..=count`, an hour long: what `word` says that one says of another is compared with
/// what the other said to us. Those that are caught in the end.
fn caught_by_witnesses(count: u16, word: impl Fn(u16, u16) -> bool) -> Vec<u16> {
    let mut book = Book::default();
    book.set_members(&(1..=count).map(peer).collect());
    for second in (0..3_600).step_by(TICK as usize) {
        let now = Mono::from_secs(second);
        for about in 1..=count {
            book.observe(peer(about), &answered(20, 0.5), now);
            if second % 60 == 0 {
                let by = (1..=count).filter(|by| *by != about);
                let reports: Vec<_> = by.map(|by| (peer(by), word(by, about))).collect();
                book.witnessed(peer(about), &reports, now);
            }
        }
    }
    let is_caught = |number: &u16| book.facts(&peer(*number), Mono::from_secs(3_600)).unwrap().suspicions.is_caught();
    (1..=count).filter(is_caught).collect()
}

#[test]
fn a_witness_that_says_of_all_others_what_most_do_not_say_is_caught_and_nobody_else() {
    assert_eq!(caught_by_witnesses(5, |by, _| by != 1), [1]);
    assert_eq!(caught_by_witnesses(10, |by, _| by != 1), [1]);
}

#[test]
fn rounds_of_two_witnesses_are_enough_to_catch_a_false_one() {
    let mut book = Book::default();
    book.set_members(&(1..=5).map(peer).collect());
    for second in (0..3_600).step_by(60) {
        let now = Mono::from_secs(second);
        for about in 2..=5 {
            book.observe(peer(about), &answered(20, 0.5), now);
            let other = if about == 5 { 2 } else { about + 1 };
            book.witnessed(peer(about), &[(peer(1), false), (peer(other), true)], now);
        }
        book.observe(peer(1), &answered(20, 0.5), now);
    }
    let is_caught = |number| book.facts(&peer(number), Mono::from_secs(3_600)).unwrap().suspicions.is_caught();
    assert!(is_caught(1));
    assert!((2..=5).all(|number| !is_caught(number)));
}

#[test]
fn two_in_league_convict_nobody() {
    for count in 3..=8 {
        // 1 and 2 vouch for each other and speak against the others, to the first of whom they told something else than to us.
        for deceived in 2..=count {
            let caught = caught_by_witnesses(count, |by, about| match (by <= 2, about <= 2) {
                (true, is_friend) => is_friend,
                (false, is_of_league) => !(is_of_league && by <= deceived),
            });
            assert!(caught.iter().all(|number| *number <= 2), "{count}, {deceived}: {caught:?}");
        }
    }
}

#[test]
fn three_that_deceive_one_witness_do_not_make_a_liar_of_it_where_others_bear_it_out() {
    // 1, 2 and 3 tell 9 alone another fill than everybody else.
    assert_eq!(caught_by_witnesses(9, |by, about| !(by == 9 && about <= 3)), Vec::<u16>::new());
}

#[test]
fn one_hostile_witness_convicts_nobody_however_few_there_are() {
    for count in 2..=4 {
        let caught = caught_by_witnesses(count, |by, _| by != 1);
        assert!(caught.iter().all(|number| *number == 1), "{count}: {caught:?}");
    }
}

#[test]
fn one_that_tells_an_honest_witness_something_else_does_not_make_a_liar_of_it() {
    // 1 tells 2 alone another fill than everybody else.
    for count in 4..=10 {
        assert_eq!(caught_by_witnesses(count, |by, about| !(by == 2 && about == 1)), Vec::<u16>::new(), "{count}");
    }
    // One that tells all of us different things is contradicted by all.
    assert_eq!(caught_by_witnesses(5, |_, about| about != 1), [1]);
}

#[test]
fn what_most_members_fail_at_the_same_time_is_held_against_none() {
    let unfound = Observation::Challenged { good: 0, bad: 1, unfound: 1 };
    for failed in [unfound, Observation::Recorded { good: false }, Observation::Dht { good: false }] {
        let caught = |failing: u16| {
            let mut book = Book::default();
            book.set_members(&(1..=5).map(peer).collect());
            for second in (0..3_600).step_by(TICK as usize) {
                let now = Mono::from_secs(second);
                for number in 1..=5 {
                    book.observe(peer(number), &answered(20, 0.5), now);
                    if number <= failing {
                        book.observe(peer(number), &failed, now);
                    }
                }
            }
            let facts = |number| book.facts(&peer(number), Mono::from_secs(3_600)).unwrap();
            (1..=5).filter(|number| facts(*number).suspicions.is_caught()).count()
        };
        assert_eq!((caught(2), caught(3), caught(5)), (2, 0, 0), "{failed:?}");
    }
}

#[test]
fn a_check_that_most_members_failed_is_told_as_such() {
    let mut book = Book::default();
    book.set_members(&(1..=3).map(peer).collect());
    let now = Mono::from_secs(60);
    (1..=3).for_each(|number| book.observe(peer(number), &answered(20, 0.5), now));
    (1..=3).for_each(|number| book.observe(peer(number), &Observation::Dht { good: false }, now));
    let told = |number| {
        let told = book.explain(&peer(number), Now { mono: now, wall: wall(0) }).unwrap();
        told.ledger.decisions().map(|decided| decided.what).collect::<Vec<_>>()
    };
    assert_eq!(told(1), [], "it was the only one");
    for number in [2, 3] {
        assert_eq!(told(number), [Decision::ExcusedAsCommon { check: Check::Dht }]);
    }
    let words = Decision::ExcusedAsCommon { check: Check::Dht }.to_string();
    assert_eq!(words, "failed the check of DHT as most members did: excused");
}

#[test]
fn a_time_that_cannot_be_is_no_lie_for_a_clock_may_have_been_set() {
    let mut book = Book::default();
    for second in (0..3_600).step_by(TICK as usize) {
        book.observe(peer(1), &Observation::Challenged { good: 0, bad: 1, unfound: 0 }, Mono::from_secs(second));
    }
    assert!(book.facts(&peer(1), Mono::from_secs(3_600)).unwrap().suspicions.sums().next().is_none());
}

/// A book in which peer 1 is old, bad and online, and peer 2 is a good one; and the time.
fn old_and_bad() -> (Book, Mono) {
    let mut book = Book::default();
    let end = 30 * 3_600;
    for second in (0..=end).step_by(TICK as usize) {
        let now = Mono::from_secs(second);
        let lie = Observation::Answered {
            rtt: Duration::from_secs(3),
            fill_rate: 0.1,
            peer_count: 500,
            max_nodes: 500,
            born_at: wall(0),
        };
        book.observe(peer(1), &lie, now);
        book.observe(peer(1), &Observation::Challenged { good: 0, bad: 1, unfound: 1 }, now);
        book.observe(peer(2), &answered(20, 0.5), now);
    }
    (book, Mono::from_secs(end))
}

/// The same, but nothing proves that peer 1 lies: its score is too low, and not 0.
fn old_and_poor() -> (Book, Mono) {
    let (mut book, now) = old_and_bad();
    book.accounts.get_mut(&peer(1)).unwrap().evidence.facts.suspicions = Suspicions::default();
    assert!(book.score(&peer(1), now).unwrap().high > 0.0);
    (book, now)
}

/// A member that answers.
fn judged(number: u16, hold: Hold) -> Judged {
    Judged { peer: peer(number), hold, carries: true }
}

fn members(hold: Hold) -> [Judged; 2] {
    [judged(1, hold), judged(2, Hold::Loose)]
}

#[test]
fn g45_it_takes_three_judgements_in_a_row_to_evict() {
    let (mut book, now) = old_and_bad();
    for _ in 0..2 {
        assert_eq!(book.judge(&members(Hold::Loose), now), []);
    }
    let evicted = book.judge(&members(Hold::Loose), now);
    assert_eq!(evicted.len(), 1);
    assert_eq!(evicted[0].peer, peer(1));
    assert!(evicted[0].score.high < evicted[0].score.threshold);
    assert_eq!(book.judge(&members(Hold::Loose), now), [], "a new verdict begins anew");
}

#[test]
fn one_that_would_be_evicted_is_condemned_whether_it_is_a_member_or_not() {
    let (mut book, now) = old_and_bad();
    let bad = members(Hold::Loose)[0].peer;
    assert!(book.is_condemned(&bad, now));
    assert!(book.peers().filter(|peer| *peer != bad).all(|peer| !book.is_condemned(&peer, now)));
    for _ in 0..3 {
        book.judge(&members(Hold::Loose), now);
    }
    book.set_members(&BTreeSet::new());
    assert!(book.is_condemned(&bad, now));
}

#[test]
fn nobody_is_evicted_who_is_sticky_or_the_last_or_hardly_known() {
    let (mut book, now) = old_and_poor();
    for _ in 0..10 {
        assert_eq!(book.judge(&members(Hold::Seed), now), [], "sticky");
    }
    for _ in 0..10 {
        assert_eq!(book.judge(&members(Hold::Loose)[..1], now), [], "the last");
    }
    let account = book.accounts.get_mut(&peer(1)).unwrap();
    account.evidence.facts.online = Duration::from_secs(119);
    for _ in 0..10 {
        assert_eq!(book.judge(&members(Hold::Loose), now), [], "online for less than 2 × 60 s");
    }
    book.accounts.get_mut(&peer(1)).unwrap().evidence.facts.online = Duration::from_secs(120);
    let verdicts: Vec<usize> = (0..3).map(|_| book.judge(&members(Hold::Loose), now).len()).collect();
    assert_eq!(verdicts, [0, 0, 1]);
}

#[test]
fn a_sticky_one_is_evicted_once_it_is_caught_lying() {
    let (mut book, now) = old_and_poor();
    for _ in 0..3 {
        assert_eq!(book.judge(&members(Hold::Seed), now), []);
    }
    book.observe(peer(1), &Observation::Exposed, now);
    let mut evicted = |members: &[Judged]| -> Vec<_> {
        (0..3).flat_map(|_| book.judge(members, now)).map(|eviction| eviction.peer).collect()
    };
    assert_eq!(evicted(&members(Hold::NeededSeed)), [], "too few are left without it");
    assert_eq!(evicted(&members(Hold::Seed)[..1]), [], "never the last");
    assert_eq!(evicted(&members(Hold::Seed)), [peer(1)]);
}

#[test]
fn seeds_go_one_in_a_judgement_and_after_all_others() {
    let mut book = Book::default();
    let judged: Vec<Judged> = [(1, Hold::Seed), (2, Hold::Seed), (3, Hold::Loose), (4, Hold::Loose)]
        .map(|(number, hold)| judged(number, hold))
        .into();
    for second in (0..300).step_by(TICK as usize) {
        judged.iter().for_each(|one| book.observe(one.peer, &answered(20, 0.5), Mono::from_secs(second)));
    }
    (1..=3).for_each(|number| book.observe(peer(number), &Observation::Exposed, Mono::from_secs(300)));
    let mut members = judged;
    let mut gone = Vec::new();
    for second in (300..400).step_by(TICK as usize) {
        let evicted: Vec<_> = book.judge(&members, Mono::from_secs(second)).iter().map(|one| one.peer).collect();
        members.retain(|one| !evicted.contains(&one.peer));
        gone.push(evicted);
    }
    assert_eq!(gone.iter().map(Vec::len).collect::<Vec<_>>(), [0, 0, 1, 1, 1]);
    assert_eq!(gone[2], [peer(3)]);
    let unsettled = Now { mono: Mono::from_secs(400), wall: wall(0) };
    let evictions = |number| {
        let told = book.explain(&peer(number), unsettled).unwrap();
        told.ledger.decisions().filter(|decided| decided.what == Decision::Evicted).count()
    };
    assert_eq!((1..=4).map(evictions).collect::<Vec<_>>(), [1, 1, 1, 0], "the ledger says what was done");
}

#[test]
fn where_all_are_caught_a_seed_is_the_last() {
    for loose in 1..=3 {
        let mut book = Book::default();
        let hold = |number| if number == loose { Hold::Loose } else { Hold::Seed };
        let members = [1, 2, 3].map(|number| judged(number, hold(number)));
        for second in (0..300).step_by(TICK as usize) {
            members.iter().for_each(|one| book.observe(one.peer, &answered(20, 0.5), Mono::from_secs(second)));
        }
        members.iter().for_each(|one| book.observe(one.peer, &Observation::Exposed, Mono::from_secs(300)));
        let first = (0..3).find_map(|_| book.judge(&members, Mono::from_secs(300)).pop());
        assert_eq!(first.map(|eviction| eviction.peer), Some(peer(loose)));
    }
}

#[test]
fn one_that_is_kept_because_it_carries_us_alone_keeps_no_seed_that_lies() {
    let (mut book, now) = old_and_bad();
    book.accounts.insert(peer(3), book.accounts[&peer(1)].clone());
    let members = [judged(1, Hold::Loose), Judged { carries: false, ..judged(3, Hold::Seed) }];
    let gone: Vec<_> = (0..3).flat_map(|_| book.judge(&members, now)).map(|eviction| eviction.peer).collect();
    assert_eq!(gone, [peer(3)]);
}

#[test]
fn a_seed_that_lies_goes_before_one_that_is_merely_poor() {
    let (mut book, now) = old_and_poor();
    let members = [(1, Hold::Loose), (2, Hold::Seed), (3, Hold::Loose)].map(|(number, hold)| judged(number, hold));
    for second in (0..300).step_by(TICK as usize) {
        [2, 3]
            .iter()
            .for_each(|number| book.observe(peer(*number), &answered(20, 0.5), now + Duration::from_secs(second)));
    }
    let later = now + Duration::from_secs(300);
    book.observe(peer(2), &Observation::Exposed, later);
    let first = (0..3).find_map(|_| book.judge(&members, later).pop());
    assert_eq!(first.map(|eviction| eviction.peer), Some(peer(2)));
}

#[test]
fn at_least_one_member_stays_however_bad_all_are() {
    let (mut book, now) = old_and_bad();
    let all = [judged(1, Hold::Loose), judged(3, Hold::Loose)];
    book.accounts.insert(peer(3), book.accounts[&peer(1)].clone());
    let evicted: usize = (0..3).map(|_| book.judge(&all, now).len()).sum();
    assert_eq!(evicted, 1);
}

#[test]
fn the_only_one_that_carries_us_stays_until_another_does_and_the_ledger_tells_no_eviction() {
    let (mut book, now) = old_and_bad();
    let silent = Judged { carries: false, ..judged(2, Hold::Loose) };
    let evictions = |book: &Book| {
        let told = book.explain(&peer(1), Now { mono: now, wall: wall(0) }).unwrap();
        told.ledger.decisions().filter(|decided| decided.what == Decision::Evicted).count()
    };
    for _ in 0..5 {
        assert_eq!(book.judge(&[judged(1, Hold::Loose), silent], now), []);
    }
    assert_eq!(evictions(&book), 0);
    assert_eq!(book.judge(&members(Hold::Loose), now).len(), 1, "it was found wanting often enough");
    assert_eq!(evictions(&book), 1);
}

#[test]
fn when_most_beats_fail_we_suspect_ourselves_and_judge_nobody() {
    let (mut book, now) = old_and_bad();
    for number in [3, 4] {
        book.observe(peer(number), &Observation::Missed, now);
    }
    assert!(!book.is_self_suspect(now), "exactly half is not more than half");
    let before = book.facts(&peer(2), now);
    book.observe(peer(2), &Observation::Missed, now);
    assert!(book.is_self_suspect(now), "3 of 4");
    assert_eq!(book.facts(&peer(2), now), before, "no score is lost");
    for _ in 0..10 {
        assert_eq!(book.judge(&members(Hold::Loose), now), []);
    }
    book.observe(peer(3), &answered(20, 0.5), now);
    assert!(!book.is_self_suspect(now), "exactly half is not more than half");
    assert!(!book.is_self_suspect(now + Duration::from_secs(61)), "nothing was asked lately");
}

#[test]
fn one_dead_peer_asked_often_does_not_make_us_suspect_ourselves() {
    let (settings, mut ourselves) = (Settings::default(), SelfSuspect::default());
    for second in 0..20 {
        ourselves.beaten(peer(1), false, Mono::from_secs(second), &settings);
    }
    assert!(ourselves.is_suspect(Mono::from_secs(20), &settings), "nobody else was asked");
    ourselves.beaten(peer(2), true, Mono::from_secs(20), &settings);
    assert!(!ourselves.is_suspect(Mono::from_secs(20), &settings));
}

#[test]
fn the_silent_are_a_share_of_those_asked_lately_and_one_alone_tells_nothing() {
    let (settings, mut ourselves) = (Settings::default(), SelfSuspect::default());
    let now = Mono::from_secs(10);
    assert_eq!(ourselves.silent_share(now, &settings), None, "nobody was asked");
    ourselves.beaten(peer(1), false, now, &settings);
    assert_eq!(ourselves.silent_share(now, &settings), None, "it may be its link or ours");
    ourselves.beaten(peer(2), false, now, &settings);
    assert_eq!(ourselves.silent_share(now, &settings), Some(1.0));
    ourselves.beaten(peer(1), true, now, &settings);
    assert_eq!(ourselves.silent_share(now, &settings), Some(SILENT_SHARE_MAX));
    assert!(!ourselves.is_suspect(now, &settings), "what is shown and what is judged by agree");
    ourselves.beaten(peer(1), true, now + Duration::from_secs(60), &settings);
    let later = now + Duration::from_secs(61);
    assert_eq!(ourselves.silent_share(later, &settings), Some(0.0), "one that answers tells that the link is there");
}

#[test]
fn the_book_is_bounded_and_forgets_no_member() {
    let mut book = Book::new(Settings { indexers_max: 3, ..Settings::default() });
    book.observe(peer(1), &answered(20, 0.5), Mono::from_secs(1));
    book.set_members(&BTreeSet::from([peer(1)]));
    for number in 2..=4 {
        book.observe(peer(number), &answered(20, 0.5), Mono::from_secs(u64::from(number)));
    }
    assert_eq!(book.len(), 3);
    assert!(book.facts(&peer(1), Mono::from_secs(9)).is_some(), "the member stays though it is the oldest");
    assert!(book.facts(&peer(2), Mono::from_secs(9)).is_none());
    book.set_members(&(1..=4).map(peer).collect());
    book.observe(peer(5), &answered(20, 0.5), Mono::from_secs(9));
    assert_eq!(book.len(), 3);
    assert!(book.facts(&peer(5), Mono::from_secs(9)).is_none(), "nobody can go, so nobody comes");
}

#[test]
fn evidence_survives_the_process_and_fades_meanwhile() {
    let mut book = Book::default();
    let end = beats(&mut book, 0, 7_200);
    book.observe(peer(1), &Observation::Challenged { good: 8, bad: 4, unfound: 0 }, end);
    let rows = book.rows(Now { mono: end, wall: wall(7_200) });
    let text = serde_json::to_string(&rows).unwrap();
    let rows: Vec<Row> = serde_json::from_str(&text).unwrap();
    let mut next = Book::default();
    next.restore(rows, Now { mono: Mono::from_secs(5), wall: wall(7_200 + 6 * 3_600) });
    let facts = next.facts(&peer(1), Mono::from_secs(5)).unwrap();
    assert_eq!(facts.age, Duration::from_secs(7_200));
    assert_eq!(facts.online, Duration::from_secs(7_200), "our own absence is nobody's gap");
    assert!((facts.challenges.good - 4.0).abs() < 1e-9 && (facts.challenges.bad - 2.0).abs() < 1e-9);
    next.observe(peer(1), &born(99), Mono::from_secs(10));
    assert_eq!(next.score(&peer(1), Mono::from_secs(10)).unwrap().restart_factor, 1.0);
    assert_eq!(next.facts(&peer(1), Mono::from_secs(10)).unwrap().online, Duration::from_secs(7_200));
}

#[test]
fn what_was_seen_before_the_rows_came_counts_on_top_of_them() {
    let now = |second: u64| Now { mono: Mono::from_secs(second), wall: wall(second as i64) };
    let mut former = Book::default();
    let end = beats(&mut former, 0, 600);
    former.observe(peer(1), &Observation::Challenged { good: 8, bad: 4, unfound: 2 }, end);
    let rows = former.rows(now(600));
    let see = |book: &mut Book| {
        let end = beats(book, 1_000, 1_100);
        book.observe(peer(1), &Observation::Challenged { good: 1, bad: 3, unfound: 3 }, end);
    };
    let (mut prompt, mut late) = (Book::default(), Book::default());
    prompt.restore(rows.clone(), now(1_000));
    see(&mut prompt);
    see(&mut late);
    late.decide(&peer(1), Decision::Suspected, Mono::from_secs(1_100));
    late.restore(rows, now(1_200));
    let end = Mono::from_secs(1_300);
    assert_eq!(late.facts(&peer(1), end), prompt.facts(&peer(1), end));
    assert!(late.explain(&peer(1), now(1_300)).unwrap().holds());
}

#[test]
fn one_that_was_caught_before_the_rows_came_stays_so_however_much_was_seen_since() {
    let now = |second: u64| Now { mono: Mono::from_secs(second), wall: wall(second as i64) };
    let mut former = Book::default();
    beats(&mut former, 0, 600);
    let mut book = Book::default();
    book.observe(peer(1), &Observation::Exposed, Mono::from_secs(1_000));
    // More than the ledger has one by one.
    beats(&mut book, 1_000, 7_000);
    book.restore(former.rows(now(600)), now(7_000));
    let facts = book.facts(&peer(1), Mono::from_secs(7_000)).unwrap();
    assert!(facts.suspicions.is_caught() && facts.age > Duration::from_secs(600), "{facts:?}");
    assert!(book.explain(&peer(1), now(7_000)).unwrap().holds());
}

#[test]
fn nonsense_rows_are_left_out() {
    let check = |change: fn(&mut Facts), expected| {
        let mut facts = Facts { observed: hours(2), online: hours(1), ..Facts::default() };
        change(&mut facts);
        let mut book = Book::default();
        book.restore(vec![Row { peer_id: peer(1), saved_at: wall(0), facts }], Now { mono: Mono::ZERO, wall: wall(0) });
        assert_eq!(book.len(), expected);
    };
    check(|_| {}, 1);
    check(|facts| facts.challenges.bad = f64::NAN, 0);
    check(|facts| facts.restarts = -1.0, 0);
    check(|facts| facts.fill_rate = Some(2.0), 0);
    check(|facts| facts.online = hours(3), 0);
    check(|facts| facts.age = Duration::MAX, 0);
}

#[test]
fn the_explanation_recomputes_the_score_to_the_last_bit() {
    let (book, now) = old_and_bad();
    let facts = book.facts(&peer(1), now).unwrap();
    let shown = book.score(&peer(1), now).unwrap();
    assert_eq!(score(&facts, book.settings()), Some(shown.clone()));
    let text: Vec<String> = shown.parts.iter().map(|part| part.basis.to_string()).collect();
    assert!(text.iter().all(|text| !text.is_empty()), "{text:?}");
}

#[test]
fn more_evidence_makes_the_interval_narrower() {
    let width = |count: f64| {
        let facts = Facts { challenges: Beta { good: 3.0 * count, bad: count }, ..Facts::default() };
        let score = score(&facts, &Settings::default()).unwrap();
        score.high - score.low
    };
    assert!(width(1.0) > width(10.0) && width(10.0) > width(100.0));
}

prop_compose! {
    fn any_facts()(
        age in 0u64..10_000_000, observed in 0u64..10_000_000, share in 0.0..=1.0f64,
        counts in proptest::array::uniform8(0.0..2_000.0f64),
        restarts in 0.0..20.0f64,
        mean_secs in proptest::option::of(0.0..20.0f64), deviation_secs in 0.0..20.0f64, samples in 1u32..=15,
        fill_rate in proptest::option::of(0.0..=1.0f64),
    ) -> Facts {
        let beta = |at: usize| Beta { good: counts[at], bad: counts[at + 1] };
        let observed = Duration::from_secs(observed);
        Facts {
            age: Duration::from_secs(age),
            observed,
            online: observed.mul_f64(share).min(observed),
            challenges: beta(0),
            fill_consistency: beta(2),
            witnesses: beta(4),
            dht: beta(6),
            restarts,
            born_at: None,
            round_trips: mean_secs.map(|mean_secs| RoundTrips { mean_secs, deviation_secs, samples }),
            fill_rate,
            suspicions: Suspicions::default(),
        }
    }
}

proptest! {
    #[test]
    fn a_score_and_its_bounds_are_within_0_and_100(facts in any_facts()) {
        let Some(score) = score(&facts, &Settings::default()) else { return Ok(()) };
        prop_assert!(0.0 <= score.low && score.low <= score.value, "{score:?}");
        prop_assert!(score.value <= score.high && score.high <= 100.0, "{score:?}");
        prop_assert!((0.0..=80.0).contains(&score.threshold));
        prop_assert!(score.threshold <= (score.flawless - 15.0).max(0.0));
        for part in &score.parts {
            prop_assert!(part.value.is_none_or(|value| (0.0..=1.0).contains(&value)), "{part:?}");
        }
    }

    #[test]
    fn more_good_evidence_never_lowers_a_score_that_has_such_evidence(facts in any_facts(), more in 0.1..50.0f64) {
        prop_assume!(facts.challenges.is_known());
        let settings = Settings::default();
        let mut better = facts.clone();
        better.challenges.good += more;
        let (before, after) = (score(&facts, &settings).unwrap(), score(&better, &settings).unwrap());
        prop_assert!(after.value >= before.value - 1e-9);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Two days: a fifth of the beats is lost, one restarts politely now and then and one crashes once a day, and
    /// our own uplink fails once.
    #[test]
    fn an_honest_indexer_at_any_fill_is_never_evicted(
        seed: u64, fill in 0.0..=1.0f64, rtt_ms in 1u64..400, uplink_down_at in 0u64..172_800,
    ) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut book = Book::default();
        let (mut lives, mut crashes) = (0, 0);
        for second in (0..2 * 24 * 3_600).step_by(TICK as usize) {
            let now = Mono::from_secs(second);
            let is_down = (uplink_down_at..uplink_down_at + 600).contains(&second);
            for number in 1..=4 {
                if is_down || rng.random_bool(0.2) {
                    book.observe(peer(number), &Observation::Missed, now);
                    continue;
                }
                if number == 1 && rng.random_bool(0.000_1) {
                    book.observe(peer(1), &Observation::RestartAnnounced, now);
                    lives += 1;
                }
                if number == 2 && rng.random_bool(0.000_2) {
                    crashes += 1;
                }
                let Observation::Answered { rtt, fill_rate, peer_count, max_nodes, .. } = answered(rtt_ms, fill)
                else { unreachable!() };
                let rtt = rtt.mul_f64(1.0 + rng.random::<f64>());
                let born_at = wall([0, lives, crashes, 0, 0][number as usize]);
                book.observe(peer(number), &Observation::Answered { rtt, fill_rate, peer_count, max_nodes, born_at }, now);
                if number == 1 && rng.random_ratio(1, 5) {
                    book.observe(peer(number), &Observation::Challenged { good: 1, bad: 0, unfound: 0 }, now);
                }
            }
            let judged = [1, 2].map(|number| judged(number, Hold::Loose));
            prop_assert_eq!(book.judge(&judged, now), vec![], "at {}", now);
        }
        let score = book.score(&peer(1), Mono::from_secs(2 * 24 * 3_600)).unwrap();
        prop_assert!(score.high >= score.threshold, "{score:?}");
    }
}

/// One observation of any kind, with sound figures.
fn any_observation() -> impl Strategy<Value = Observation> {
    prop_oneof![
        4 => (0u64..6_000_000_000, 0.0..=1.0f64, 0u32..=500, 0i64..3).prop_map(|(nanos, fill_rate, peer_count, life)| {
            let rtt = Duration::from_nanos(nanos);
            Observation::Answered { rtt, fill_rate, peer_count, max_nodes: 500, born_at: wall(life) }
        }),
        2 => Just(Observation::Missed),
        2 => (0u32..3, 0u32..3).prop_map(|(good, bad)| Observation::Challenged { good, bad, unfound: bad / 2 }),
        1 => any::<bool>().prop_map(|good| Observation::Dht { good }),
        2 => (1u16..9, any::<bool>(), 0.0..=1.0f64)
            .prop_map(|(by, agrees, weight)| Observation::Witness { by: peer(by), agrees, weight }),
        1 => any::<bool>().prop_map(|good| Observation::Recorded { good }),
        1 => any::<bool>().prop_map(|good| Observation::Witnessed { good }),
        1 => (1u16..9, any::<bool>()).prop_map(|(about, good)| Observation::Testified { about: peer(about), good }),
        1 => Just(Observation::Slow),
        1 => Just(Observation::RestartAnnounced),
        1 => Just(Observation::Exposed),
        1 => Just(Observation::Cleared),
    ]
}

fn bits(score: Option<&Score>) -> Vec<u64> {
    let Some(score) = score else { return Vec::new() };
    let values = score.parts.iter().flat_map(|part| [part.value.unwrap_or(-1.0), part.variance]);
    let whole = [score.value, score.low, score.high, score.flawless, score.restart_factor, score.threshold];
    whole.into_iter().chain(values).map(f64::to_bits).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn folding_and_writing_a_ledger_changes_no_bit_of_the_score(
        seen in proptest::collection::vec((any_observation(), 0u64..90_000_000_000), 0..600),
        folds in proptest::collection::vec((0usize..600, 0usize..300), 0..4),
        quiet in 0u64..100_000,
    ) {
        let settings = Settings::default();
        let (mut book, mut now) = (Book::default(), Mono::ZERO);
        for (at, (observation, wait)) in seen.iter().enumerate() {
            now = now + Duration::from_nanos(*wait);
            others_answer(&mut book, now);
            book.observe(peer(1), observation, now);
            for (_, count) in folds.iter().filter(|(fold_at, _)| *fold_at == at) {
                let account = book.accounts.get_mut(&peer(1)).unwrap();
                account.ledger.fold(*count, &settings);
                let text = serde_json::to_string(&account.ledger).unwrap();
                account.ledger = serde_json::from_str(&text).unwrap();
            }
        }
        let now = Now { mono: now + Duration::from_secs(quiet), wall: wall(0) };
        let Some(explained) = book.explain(&peer(1), now) else { return Ok(()) };
        let shown: Explained = serde_json::from_str(&serde_json::to_string(&explained).unwrap()).unwrap();
        prop_assert_eq!(&shown, &explained);
        prop_assert_eq!(bits(shown.recomputed().as_ref()), bits(book.score(&peer(1), now.mono).as_ref()));
        prop_assert_eq!(replay(&shown.ledger, now.mono, &settings), book.facts(&peer(1), now.mono).unwrap());
        prop_assert!(shown.ledger.entries().len() <= ENTRIES_MAX);
    }
}

#[test]
fn a_ledger_keeps_so_many_events_and_folds_the_older_half_past_them() {
    let settings = Settings::default();
    let mut ledger = Ledger::new(Facts::default(), Mono::ZERO);
    for second in 0..ENTRIES_MAX as u64 {
        ledger.write(answered(20, 0.5), Mono::from_secs(second), &settings);
    }
    assert_eq!((ledger.entries().len(), ledger.count()), (ENTRIES_MAX, ENTRIES_MAX as u64));
    ledger.write(answered(20, 0.5), Mono::from_secs(ENTRIES_MAX as u64), &settings);
    assert_eq!((ledger.entries().len(), ledger.count()), (ENTRIES_MAX / 2 + 1, ENTRIES_MAX as u64 + 1));
    for _ in 0..=DECISIONS_MAX {
        ledger.decide(Decision::Suspected, None, Mono::ZERO);
    }
    assert_eq!(ledger.decisions().len(), DECISIONS_MAX);
}

#[test]
fn an_eviction_keeps_what_it_rested_on_and_is_computed_again_offline() {
    let (mut book, mut now) = old_and_bad();
    for _ in 0..3 {
        now = now + Duration::from_secs(TICK);
        book.observe(peer(1), &Observation::Challenged { good: 0, bad: 1, unfound: 1 }, now);
        book.judge(&members(Hold::Loose), now);
    }
    let explained = book.explain(&peer(1), Now { mono: now, wall: wall(0) }).unwrap();
    let told: Vec<Decision> = explained.ledger.decisions().map(|decided| decided.what).collect();
    let below = |in_a_row| Decision::Below { in_a_row, needed: 3 };
    assert_eq!(told, [below(1), below(2), below(3), Decision::Evicted]);
    for decided in explained.ledger.decisions() {
        let verdict = decided.verdict.unwrap();
        assert!(verdict.high < verdict.threshold, "{verdict:?}");
        assert_eq!(explained.ledger.verdict(decided, &explained.settings), Some(verdict));
    }
    assert!(explained.holds());
    let mut forged = explained.clone();
    forged.score.as_mut().unwrap().value += 1e-9;
    assert!(!forged.holds(), "a score that the events do not give is noticed");
}

#[test]
fn a_decision_whose_events_are_folded_keeps_its_bounds_and_is_not_computed_again() {
    let (mut book, now) = old_and_bad();
    book.judge(&members(Hold::Loose), now);
    for second in 1..=2 * ENTRIES_MAX as u64 {
        book.observe(peer(1), &answered(20, 0.5), now + Duration::from_secs(second));
    }
    let explained = book.explain(&peer(1), Now { mono: now + Duration::from_secs(999), wall: wall(0) }).unwrap();
    let decided = explained.ledger.decisions().next().unwrap();
    assert!(decided.verdict.is_some());
    assert_eq!(explained.ledger.verdict(decided, &explained.settings), None);
    assert!(explained.holds());
}

#[test]
fn what_was_decided_before_a_change_of_rules_is_not_computed_by_the_new_ones() {
    let (mut book, now) = old_and_bad();
    book.judge(&members(Hold::Loose), now);
    let rules = Settings { threshold_max: 70.0, threshold_first: 10.0, ..book.settings().clone() };
    book.set_settings(rules.clone());
    let explain = |book: &Book| book.explain(&peer(1), Now { mono: now, wall: wall(0) }).unwrap();
    let told = explain(&book);
    let before = *told.ledger.decisions().last().unwrap();
    assert_eq!((told.settings.clone(), told.ledger.verdict(&before, &rules)), (rules.clone(), None));
    assert!(told.holds());
    book.decide(&peer(1), Decision::Removed, now);
    let told = explain(&book);
    let after = *told.ledger.decisions().last().unwrap();
    assert!(after.verdict.is_some() && after.verdict != before.verdict, "other rules, another threshold");
    assert_eq!(told.ledger.verdict(&after, &rules), after.verdict, "what is decided by them is computed again");
    assert!(told.holds());
}

#[test]
fn what_others_reach_is_not_held_against_it() {
    let mut book = Book::default();
    let end = beats(&mut book, 0, 600);
    others_answer(&mut book, end);
    book.observe(peer(1), &Observation::Missed, end);
    let before = book.explain(&peer(1), Now { mono: end, wall: wall(0) }).unwrap().ledger.count();
    book.asked_others(&peer(1), 2, 1, end);
    for second in [0, 20, 59] {
        let now = end + Duration::from_secs(second);
        others_answer(&mut book, now);
        book.observe(peer(1), &Observation::Missed, now);
    }
    let explained = book.explain(&peer(1), Now { mono: end, wall: wall(0) }).unwrap();
    assert_eq!(explained.ledger.count(), before, "no miss is written down while others reach it");
    let told: Vec<Decision> = explained.ledger.decisions().map(|decided| decided.what).collect();
    assert_eq!(told, [Decision::AskedOthers { answered: 2, reach: 1 }, Decision::ExcusedByOthers]);
    others_answer(&mut book, end + Duration::from_secs(60));
    book.observe(peer(1), &Observation::Missed, end + Duration::from_secs(60));
    let later = book.explain(&peer(1), Now { mono: end, wall: wall(0) }).unwrap();
    assert_eq!(later.ledger.count(), before + 1, "the excuse ends");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// A day of rounds: six witnesses by chance of fifty, of whom ten always say the contrary.
    #[test]
    fn a_colluding_fifth_of_witnesses_does_not_push_an_honest_indexer_out(seed: u64, fill in 0.0..=1.0f64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut book = Book::default();
        for second in (0..24 * 3_600).step_by(TICK as usize) {
            let now = Mono::from_secs(second);
            book.observe(peer(1), &answered(20, fill), now);
            if rng.random_ratio(1, 6) {
                let witnesses = rand::seq::index::sample(&mut rng, 50, 6);
                let reports: Vec<_> = witnesses.iter().map(|at| (peer(100 + at as u16), at >= 10)).collect();
                book.witnessed(peer(1), &reports, now);
            }
            let judged = [1, 2].map(|number| judged(number, Hold::Loose));
            prop_assert_eq!(book.judge(&judged, now), vec![], "at {}", now);
        }
        let score = book.score(&peer(1), Mono::from_secs(24 * 3_600)).unwrap();
        prop_assert!(score.value >= score.threshold, "{score:?}");
        let part = score.parts.iter().find(|part| part.part == Part::Witnesses).unwrap();
        prop_assert!(part.value.unwrap() > 0.95, "the liars lost their weight: {part:?}");
    }
}
