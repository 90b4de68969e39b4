//! What the simulator prints, draws and writes. What it plays is tested where its rules are, in `protocol`.

#![allow(clippy::unwrap_used)]

#[path = "main.rs"]
#[allow(dead_code, reason = "its `main` is the program's, and here there is another")]
mod sim;

use std::fs;

use clap::Parser as _;
use protocol::sim::{Outcome, Sample, Sim};

use self::sim::{
    Args,
    batch::Batch,
    files::{self, Play},
    last_words, play, plot,
    row::Row,
};

/// Does what the command line would, and tells whether all was kept.
fn simulate(args: &[&str]) -> bool {
    let args = ["tests/sim/run"].iter().chain(args).copied();
    play(&Args::try_parse_from(args).unwrap()).unwrap()
}

/// Every tag is closed in its turn, attributes have their quotes, and there is one root and no word beside it.
fn is_well_formed(text: &str) -> bool {
    let (mut open, mut roots) = (Vec::new(), 0);
    let mut parts = text.split('<');
    let mut is_fine = parts.next() == Some("");
    for part in parts {
        let Some((tag, words)) = part.split_once('>') else { return false };
        if let Some(name) = tag.strip_prefix('/') {
            is_fine &= open.pop() == Some(name);
        } else {
            let (bare, is_whole) = tag.strip_suffix('/').map_or((tag, false), |bare| (bare, true));
            let (name, attributes) = bare.split_once(' ').unwrap_or((bare, ""));
            roots += usize::from(open.is_empty());
            if !is_whole {
                open.push(name);
            }
            is_fine &= are_attributes(attributes);
        }
        is_fine &= !words.contains('&') && (!open.is_empty() || words.trim().is_empty());
    }
    is_fine && open.is_empty() && roots == 1
}

fn are_attributes(mut text: &str) -> bool {
    while !text.is_empty() {
        let Some((name, rest)) = text.split_once("=\"") else { return false };
        let Some((_, rest)) = rest.split_once('"') else { return false };
        if name.is_empty() || !name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-') {
            return false;
        }
        text = rest.trim_start();
    }
    true
}

/// The name of each curve and how many points it has, all of them on the paper.
fn curves(svg: &str) -> Vec<(String, usize)> {
    let is_on_paper = |point: &str| {
        let (x, y) = point.split_once(',').unwrap();
        let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
        (0.0..=plot::WIDTH).contains(&x) && (0.0..=plot::HEIGHT).contains(&y)
    };
    let lines = svg.lines().filter(|line| line.starts_with("<polyline "));
    lines
        .map(|line| {
            let (_, rest) = line.split_once("points=\"").unwrap();
            let (points, rest) = rest.split_once('"').unwrap();
            assert!(points.split_whitespace().all(is_on_paper), "{line}");
            let (_, name) = rest.strip_suffix("</text>").unwrap().rsplit_once('>').unwrap();
            (name.to_owned(), points.split_whitespace().count())
        })
        .collect()
}

/// A curve for each indexer, with a point for each sample that has something of it.
fn of_indexers(outcome: &Outcome, has: fn(&Sample, usize) -> bool) -> Vec<(String, usize)> {
    let points = |at: usize| outcome.samples.iter().filter(|sample| has(sample, at)).count();
    outcome.indexers.iter().enumerate().map(|(at, name)| (name.clone(), points(at))).collect()
}

#[test]
fn what_is_no_markup_is_seen_to_be_none() {
    assert!(is_well_formed("<svg width=\"1\" x-y=\"a b\"><g/><text>words</text></svg>\n"));
    for text in ["", "words", "<svg", "<svg>", "<g><i></g></i>", "<svg x=1/>", "<svg/><svg/>", "<svg>&</svg>"] {
        assert!(!is_well_formed(text), "{text}");
    }
}

#[test]
fn a_run_is_drawn_in_three_plots_with_a_curve_for_each_member_as_long_as_it_lives() {
    let folder = tempfile::tempdir().unwrap();
    let plots = folder.path().join("plots");
    assert!(simulate(&["--scenario", "f1", "--seed", "7", "--plot", plots.to_str().unwrap()]));
    assert_eq!(fs::read_dir(&plots).unwrap().count(), 3);
    let drawn = |plot: &str| {
        let svg = fs::read_to_string(plots.join(format!("f1-7-{plot}.svg"))).unwrap();
        assert!(is_well_formed(&svg), "{plot}: {svg}");
        curves(&svg)
    };
    // The same seed is the same run.
    let scenario = files::read(&["f1".to_owned()], false).unwrap().remove(0).scenario;
    let outcome = Sim::new(scenario, 7, false).unwrap().run();
    assert_eq!(outcome.indexers, ["i0", "i1"]);
    let load = drawn("load");
    assert_eq!(load, of_indexers(&outcome, |sample, at| sample.sessions[at].is_some()));
    assert!(0 < load[0].1 && load[0].1 < load[1].1, "the first is killed: {load:?}");
    assert_eq!(drawn("scores"), of_indexers(&outcome, |sample, at| sample.scores[at].is_some()));
    assert!(drawn("scores").iter().all(|(_, points)| *points > 0));
    let samples = outcome.samples.len();
    assert_eq!(drawn("pools"), ["least", "mean", "most"].map(|name| (name.to_owned(), samples)));
}

/// A scenario that no seed can keep.
fn impossible() -> Play {
    let text = "about = \"an indexer has sessions of nobody\"\nlength = \"10s\"\n\
                [[members]]\nname = \"i\"\nrole = \"indexer\"\ncount = 1\n\
                [[expect]]\nwhat = \"sessions\"\nwho = [\"i\"]\nleast = 1\nmost = 9\nfrom = \"5s\"\n";
    Play { name: "impossible".to_owned(), scenario: toml_edit::de::from_str(text).unwrap() }
}

#[test]
fn each_seed_that_failed_is_told_with_the_command_that_plays_it_again_and_of_many_how_many_more() {
    for (seeds, more) in [(20, None), (21, Some("and 1 more")), (43, Some("and 23 more"))] {
        let results = Batch { first: vec![5], seeds, within: None }.run(&[impossible()]);
        assert_eq!(results[0].failed, (5..5 + seeds).collect::<Vec<_>>());
        let rows: Vec<Row> = results.iter().filter_map(Row::of).collect();
        let said = last_words(&results, &rows);
        let again: Vec<&str> = said.lines().filter_map(|line| line.trim().strip_prefix("again: ")).collect();
        let commands = (5..25).map(|seed| format!("tests/sim/run --scenario impossible --seed {seed}"));
        assert_eq!(again, commands.collect::<Vec<_>>());
        assert!(again.iter().all(|command| Args::try_parse_from(command.split(' ')).is_ok()), "they can be given");
        assert_eq!(said.lines().map(str::trim).find(|line| line.starts_with("and ")), more);
        // The row tells the first alone, as it always did.
        assert!(said.lines().last().unwrap().contains(&format!("| {seeds} | 5 | {seeds} (seed 5) |")), "{said}");
    }
}

#[test]
fn where_no_seed_failed_the_table_is_all_that_is_said() {
    let plays = files::read(&["f1".to_owned()], false).unwrap();
    let results = Batch { first: vec![0], seeds: 2, within: None }.run(&plays);
    let rows: Vec<Row> = results.iter().filter_map(Row::of).collect();
    let said = last_words(&results, &rows);
    assert!(said.starts_with("| scenario |") && said.lines().count() == 3, "{said}");
}

/// Of a scenario's row: how many seeds, where they begin, and how many failed.
fn counts(page: &str, scenario: &str) -> (u64, u64, String) {
    let begin = format!("| {scenario} |");
    let row = page.lines().find(|line| line.starts_with(&begin)).unwrap();
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    (cells[3].parse().unwrap(), cells[4].parse().unwrap(), cells[5].to_owned())
}

/// A page without the row of this scenario.
fn without(page: &str, scenario: &str) -> String {
    let begin = format!("| {scenario} |");
    page.lines().filter(|line| !line.starts_with(&begin)).flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn more_seeds_begin_where_the_row_of_the_document_ends_and_are_added_to_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("performance.md");
    let path = copy.to_str().unwrap();
    let before = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md")).unwrap();
    fs::write(&copy, &before).unwrap();
    let more = ["--more", "--scenario", "f1", "--seeds", "3", "--document", path];
    assert!(simulate(&more));
    let after = fs::read_to_string(&copy).unwrap();
    let (seeds, from, failed) = counts(&before, "f1");
    // Seeds that did not follow on those of the row would have taken their place.
    assert_eq!(counts(&after, "f1"), (seeds + 3, from, failed));
    assert_eq!(without(&after, "f1"), without(&before, "f1"), "nothing else is touched");

    // One that has no row begins with the first seed.
    fs::write(&copy, without(&before, "f1")).unwrap();
    assert!(simulate(&more));
    let after = fs::read_to_string(&copy).unwrap();
    assert_eq!(counts(&after, "f1"), (3, 0, "0".to_owned()));
    assert_eq!(without(&after, "f1"), without(&before, "f1"));
    let without_page = ["tests/sim/run", "--more", "--scenario", "f1"];
    assert!(Args::try_parse_from(without_page).is_err(), "there is no row to begin with");
}
