#![allow(clippy::unwrap_used)]
use std::time::Duration;

use serde_json::{Value, json};

use super::{member::Alarm, *};

/// Two indexers and ten nodes for some minutes, changed by `change`.
fn scenario(change: impl FnOnce(&mut Value)) -> Scenario {
    let mut scenario = json!({
        "about": "a small network",
        "length": "4m",
        "network": {"loss": 0.05},
        "members": [
            {"name": "i", "count": 2, "role": "indexer", "seeds": ["i"]},
            {"name": "n", "count": 10, "role": "node", "seeds": ["i"], "start": "2s", "start_within": "5s"},
        ],
        "then": [{"at": "90s", "do": "kill", "who": ["i0"]}],
        "expect": [{"what": "whole", "who": ["n"], "from": "60s", "by": "80s", "until": "89s"}],
    });
    change(&mut scenario);
    serde_json::from_value(scenario).unwrap()
}

fn run(scenario: Scenario, seed: u64) -> Outcome {
    Sim::new(scenario, seed, true).unwrap().run()
}

#[test]
fn the_same_seed_gives_the_same_log_and_another_seed_another() {
    let first = run(scenario(|_| {}), 7);
    let again = run(scenario(|_| {}), 7);
    assert!(first.lines > 200, "{} lines", first.lines);
    assert_eq!(first.log, again.log);
    assert_eq!(first.hash, again.hash);
    assert_eq!(first.traffic, again.traffic);
    assert_ne!(first.hash, run(scenario(|_| {}), 8).hash);
}

#[test]
fn the_hash_is_that_of_the_text_whether_it_is_kept_or_not() {
    let kept = run(scenario(|_| {}), 3);
    let hashed = Sim::new(scenario(|_| {}), 3, false).unwrap().run();
    assert_eq!(hashed.log, None);
    assert_eq!(kept.hash, hashed.hash);
    let of_text = Sha256::digest(kept.log.unwrap().as_bytes());
    assert_eq!(kept.hash, of_text.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
}

#[test]
fn a_small_network_is_whole_and_keeps_what_always_holds() {
    for seed in 0..20 {
        let outcome = run(scenario(|_| {}), seed);
        assert!(outcome.is_kept(), "seed {seed}: {:?} {:?}", outcome.violations, outcome.met);
    }
}

/// The limit of beats is set below what nodes beat, so that honest ones go over it.
#[test]
fn a_broken_invariant_is_found_and_its_seed_replays() {
    let broken = || scenario(|scenario| scenario["behaviour"] = json!({"heartbeats": 2}));
    let outcome = run(broken(), 11);
    let violation = outcome.violations.first().expect("it is found").clone();
    assert!(violation.what.contains("beats above the limit"), "{violation:?}");
    assert!(!outcome.is_kept());
    let again = run(broken(), 11);
    assert_eq!(again.violations.first(), Some(&violation));
    assert_eq!(again.hash, outcome.hash);
}

#[test]
fn what_does_not_follow_in_time_is_told_with_its_reason() {
    let expected = json!([{"what": "pooled", "least": 9, "who": ["n"], "from": "15s", "by": "30s"}]);
    let outcome = run(scenario(|scenario| scenario["expect"] = expected), 1);
    let (at, why) = outcome.met[0].failed.clone().expect("two indexers are not nine");
    assert_eq!(at, Duration::from_secs(30));
    assert!(why.contains("that answer"), "{why}");
}

#[test]
fn a_cut_is_silent_and_its_end_is_noticed() {
    let outcome = run(
        scenario(|scenario| {
            scenario["length"] = json!("10m");
            scenario["then"] = json!([
                {"at": "60s", "do": "cut", "name": "alone", "who": ["n3"]},
                {"at": "4m", "do": "heal", "name": "alone"},
            ]);
            scenario["expect"] = json!([
                {"what": "isolated", "who": ["n3"], "from": "60s", "by": "150s", "until": "239s"},
                {"what": "whole", "who": ["n"], "from": "4m", "by": "290s", "until": "10m"},
            ]);
        }),
        5,
    );
    assert!(outcome.is_kept(), "{:?} {:?}", outcome.violations, outcome.met);
}

#[test]
fn who_is_meant_is_read_and_nobody_is_refused() {
    let scenario = scenario(|_| {});
    let names = Names::new(&scenario.members).unwrap();
    let check = |who: &str, expected: Option<Vec<u32>>| {
        assert_eq!(names.some(who).map(Iterator::collect::<Vec<u32>>), expected, "{who}");
    };
    check("i", Some(vec![0, 1]));
    check("i1", Some(vec![1]));
    check("i2", None);
    check("n0-2", Some(vec![2, 3, 4]));
    check("n8-9", Some(vec![10, 11]));
    check("n8-10", None);
    check("n2-1", None);
    check("x", None);
    check("n-", None);
    check("", None);
    let nobody = self::scenario(|scenario| scenario["then"][0]["who"] = json!(["i2"]));
    assert_eq!(Sim::new(nobody, 1, false).unwrap_err(), ScenarioError::Nobody { who: "i2".to_owned() });
    let twice = self::scenario(|scenario| scenario["members"][1]["name"] = json!("i"));
    assert!(matches!(Sim::new(twice, 1, false), Err(ScenarioError::Group { .. })));
    let many = self::scenario(|scenario| scenario["members"][1]["count"] = json!(MEMBERS_MAX));
    assert!(matches!(Sim::new(many, 1, false), Err(ScenarioError::Members { .. })));
}

#[test]
fn a_moved_alarm_rings_once_and_at_its_last_time() {
    let at = Duration::from_secs;
    let mut alarm = Alarm::default();
    assert_eq!(alarm.set(at(10)), Some(at(10)));
    assert_eq!(alarm.set(at(20)), None, "the event of 10 s is queued and queues the next");
    assert_eq!(alarm.rings(at(10)), (false, Some(at(20))));
    assert_eq!(alarm.set(at(15)), Some(at(15)));
    assert_eq!(alarm.rings(at(15)), (true, None));
    assert_eq!(alarm.rings(at(20)), (false, None), "nothing is wanted any more");
}

#[test]
fn loss_is_delay_and_a_cut_is_loss() {
    let mut net = Net::new(scenario::Network { loss: 0.3, ..Default::default() }, 2, chance(1, "test", 0));
    net.connect(0, 1, Duration::ZERO);
    let flights: Vec<Duration> = (0..2_000).filter_map(|_| net.flight(0, 1)).collect();
    assert!(flights.len() >= 1_990, "{} of 2,000 arrive", flights.len());
    let late = flights.iter().filter(|flight| **flight >= Duration::from_millis(200)).count();
    assert!((500..700).contains(&late), "{late} of 2,000 were repeated");
    net.cuts.push(Cut { name: "c".to_owned(), from: vec![true, false], to: vec![false, true] });
    assert_eq!(net.flight(0, 1), None);
    assert!(net.flight(1, 0).is_some(), "the cut is of one direction");
    assert!(!net.is_linked(0, 1));
}

#[test]
fn a_liar_by_turns_lies_by_turns() {
    let lying: Lying =
        serde_json::from_value(json!({"kind": "silent", "lies_for": "10s", "honest_for": "20s"})).unwrap();
    let at = Duration::from_secs;
    assert!(lying.is_on(at(0)) && lying.is_on(at(9)) && lying.is_on(at(30)));
    assert!(!lying.is_on(at(10)) && !lying.is_on(at(29)));
    let always: Lying = serde_json::from_value(json!({"kind": "slow_walk", "by": "3s"})).unwrap();
    assert!(always.is_on(at(10)));
}
