//! Scenarios as files, and the page that results are written into.

use std::path::{Path, PathBuf};

use protocol::sim::{Scenario, scenario::Expectation};

use super::row::{self, Row};

/// One scenario to play.
#[derive(Clone, Debug)]
pub(crate) struct Play {
    pub(crate) name: String,
    pub(crate) scenario: Scenario,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/scenarios")
}

/// The scenarios of these names, or all, in the order of their names; those that wait for something only where asked for.
pub(crate) fn read(only: &[String], waiting: bool) -> Result<Vec<Play>, String> {
    let mut plays = Vec::new();
    let entries = std::fs::read_dir(folder()).map_err(|error| format!("{}: {error}", folder().display()))?;
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let is_wanted = only.is_empty() || only.contains(&name);
        if path.extension().is_some_and(|extension| extension == "toml") && is_wanted {
            let scenario = parse(&path)?;
            if !only.is_empty() || waiting || scenario.waits_for.is_none() {
                plays.push(Play { name, scenario });
            }
        }
    }
    plays.sort_by_key(|play| order(&play.name));
    match only.iter().find(|only| plays.iter().all(|play| play.name != **only)) {
        Some(absent) => Err(format!("got \"{absent}\", expected the name of a file in {}", folder().display())),
        None if plays.is_empty() => Err(format!("got no scenario in {}", folder().display())),
        None => Ok(plays),
    }
}

/// `f2` before `f10`.
fn order(name: &str) -> (String, u32, String) {
    let digits = name.find(|letter: char| letter.is_ascii_digit()).unwrap_or(name.len());
    let (word, rest) = name.split_at(digits);
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    (word.to_owned(), rest[..end].parse().unwrap_or(0), rest[end..].to_owned())
}

fn parse(path: &Path) -> Result<Scenario, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    toml_edit::de::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// An expectation in one line.
pub(crate) fn words(expectation: &Expectation) -> String {
    let when = match (expectation.by, expectation.until) {
        (Some(by), None) => format!(" by {} s", by.0.as_secs()),
        (Some(by), Some(until)) => format!(" by {} s and until {} s", by.0.as_secs(), until.0.as_secs()),
        (None, Some(until)) => format!(" from {} to {} s", expectation.from.0.as_secs(), until.0.as_secs()),
        (None, None) => format!(" from {} s on", expectation.from.0.as_secs()),
    };
    format!("{:?} of {}{when}", expectation.what, expectation.who.join(", "))
}

/// Replaces what stands between the marks of this writer.
pub(crate) fn write_between(page: &Path, writer: &str, text: &str) -> Result<(), String> {
    let old = read_page(page)?;
    let (before, _, after) = parts(&old, page, writer)?;
    let (begin, end) = marks(writer);
    std::fs::write(page, format!("{before}{begin}\n\n{}\n\n{end}{after}", text.trim()))
        .map_err(|error| format!("{}: {error}", page.display()))
}

/// The rows that stand between the marks of this writer.
pub(crate) fn read_rows(page: &Path, writer: &str) -> Result<Vec<Row>, String> {
    let text = read_page(page)?;
    let (_, between, _) = parts(&text, page, writer)?;
    Ok(between.lines().filter_map(Row::read).collect())
}

/// Replaces the rows of the same names between the marks of this writer, and leaves the others: what is long to play may be
/// played bit by bit. A row without a scenario goes.
pub(crate) fn write_rows(page: &Path, writer: &str, rows: &[Row]) -> Result<(), String> {
    let is_kept = |row: &Row| {
        rows.iter().all(|other| other.name != row.name) && folder().join(format!("{}.toml", row.name)).exists()
    };
    let mut all: Vec<Row> = read_rows(page, writer)?.into_iter().filter(is_kept).collect();
    all.extend_from_slice(rows);
    all.sort_by_key(|row| order(&row.name));
    let rows: Vec<String> = all.iter().map(Row::to_string).collect();
    write_between(page, writer, &format!("{}\n{}", row::HEAD, rows.join("\n")))
}

fn read_page(page: &Path) -> Result<String, String> {
    std::fs::read_to_string(page).map_err(|error| format!("{}: {error}", page.display()))
}

/// What stands before the marks of this writer, between them, and after them.
fn parts<'a>(text: &'a str, page: &Path, writer: &str) -> Result<(&'a str, &'a str, &'a str), String> {
    let (begin, end) = marks(writer);
    let parts = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?)));
    let (before, (between, after)) = parts.ok_or_else(|| format!("{} has no marks of {writer}", page.display()))?;
    Ok((before, between, after))
}

fn marks(writer: &str) -> (String, String) {
    (format!("<!-- written by {writer}: begin -->"), format!("<!-- written by {writer}: end -->"))
}
