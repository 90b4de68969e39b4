//! What the project says of its tests is true: each row of `docs/lessons.md` has the tests that it names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::harness::repository;

/// Rows of the design's page of lessons.
const ROWS: u32 = 45;

/// Every file of the project, without what builds and version control leave in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let kept = entries.filter(|entry| !["target", ".git"].contains(&entry.file_name().to_str().unwrap()));
    kept.flat_map(|entry| if entry.file_type().unwrap().is_dir() { files(&entry.path()) } else { vec![entry.path()] })
        .collect()
}

/// The rows that the name of a test begins with, after one of another table.
fn rows(name: &str) -> BTreeSet<u32> {
    let number = |word: &str, letter| word.strip_prefix(letter).and_then(|digits: &str| digits.parse::<u32>().ok());
    let words = name.split('_').skip_while(|word| number(word, 'f').is_some());
    words.map_while(|word| number(word, 'g')).collect()
}

/// The tests of each row, by their names.
fn named() -> BTreeMap<u32, BTreeSet<String>> {
    let mut named: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for path in files(&repository("")).into_iter().filter(|path| path.extension().is_some_and(|it| it == "rs")) {
        for part in fs::read_to_string(path).unwrap().split("fn ").skip(1) {
            let name: String = part.chars().take_while(|it| it.is_ascii_alphanumeric() || *it == '_').collect();
            for row in rows(&name) {
                named.entry(row).or_default().insert(name.clone());
            }
        }
    }
    named
}

#[test]
fn every_lesson_names_the_tests_that_there_are() {
    let text = fs::read_to_string(repository("docs/lessons.md")).unwrap();
    let told: BTreeMap<u32, BTreeSet<String>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| G"))
        .map(|line| {
            let (row, tests) = line.split_once(" | ").unwrap();
            (row.parse().unwrap(), tests.split('`').skip(1).step_by(2).map(str::to_owned).collect())
        })
        .collect();
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), (1..=ROWS).collect::<Vec<_>>());
    let named = named();
    for row in 1..=ROWS {
        assert_eq!(told.get(&row), named.get(&row), "G{row}: docs/lessons.md and the names of tests");
    }
}

#[test]
fn g40_no_file_holds_a_private_or_a_pre_shared_key() {
    let is_key = |first: &str, next: &str| {
        // On the next line, or on the same one behind what stands for its end in a literal.
        let is_behind = |head: &str, is_digit: fn(char) -> bool| {
            first.split_once(head).is_some_and(|(_, rest)| {
                let rest = if rest.is_empty() { next } else { rest.trim_start_matches("\\n") };
                rest.chars().take_while(|it| is_digit(*it)).count() >= 40
            })
        };
        is_behind("PRIVATE KEY-----", |it| it.is_ascii_alphanumeric() || "+/=".contains(it))
            || is_behind("/base16/", |it| it.is_ascii_hexdigit())
    };
    let (key, hex) = ("A".repeat(64), "5a".repeat(32));
    assert!(is_key("-----BEGIN PRIVATE KEY-----", &key) && is_key("/base16/", &hex));
    assert!(is_key(&format!("\"-----BEGIN PRIVATE KEY-----\\n{key}"), "") && is_key(&format!("/base16/\\n{hex}"), ""));
    for path in files(&repository("")) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let holds = lines.iter().zip(lines.iter().skip(1)).any(|(first, next)| is_key(first, next));
        assert!(!holds, "{}", path.display());
    }
}
