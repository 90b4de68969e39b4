//! Scenarios as files, and the page that results are written into.

use std::path::{Path, PathBuf};

use protocol::sim::{Scenario, scenario::Expectation};

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
    rewrite(page, writer, |_| text.to_owned())
}

/// Replaces the rows of these names in the table between the marks of this writer, and leaves the others: what is long to
/// play may be played bit by bit.
pub(crate) fn write_rows(page: &Path, writer: &str, head: &str, rows: &[(String, String)]) -> Result<(), String> {
    rewrite(page, writer, |old| {
        let is_kept = |(name, _): &(&str, &str)| {
            rows.iter().all(|(other, _)| other != name) && folder().join(format!("{name}.toml")).exists()
        };
        let old = old.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
        let old = old.filter_map(|line| Some((line.strip_prefix("| ")?.split_once(" |")?.0, line)));
        let mut all: Vec<(&str, &str)> = old.filter(is_kept).collect();
        all.extend(rows.iter().map(|(name, row)| (name.as_str(), row.as_str())));
        all.sort_by_key(|(name, _)| order(name));
        let rows: Vec<&str> = all.into_iter().map(|(_, row)| row).collect();
        format!("{head}\n{}", rows.join("\n"))
    })
}

fn rewrite(page: &Path, writer: &str, text: impl FnOnce(&str) -> String) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{}: {error}", page.display());
    let old = std::fs::read_to_string(page).map_err(told)?;
    let (begin, end) = (format!("<!-- written by {writer}: begin -->"), format!("<!-- written by {writer}: end -->"));
    let parts = old.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?)));
    let Some((before, (between, after))) = parts else {
        return Err(format!("{} has no marks of {writer}", page.display()));
    };
    std::fs::write(page, format!("{before}{begin}\n\n{}\n\n{end}{after}", text(between).trim())).map_err(told)
}
