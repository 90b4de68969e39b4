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

/// The scenarios, in the order of their names; those that wait for something only where asked for.
pub(crate) fn read(only: Option<&str>, waiting: bool) -> Result<Vec<Play>, String> {
    let mut plays = Vec::new();
    let entries = std::fs::read_dir(folder()).map_err(|error| format!("{}: {error}", folder().display()))?;
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "toml") && only.is_none_or(|only| only == name) {
            let scenario = parse(&path)?;
            if only.is_some() || waiting || scenario.waits_for.is_none() {
                plays.push(Play { name, scenario });
            }
        }
    }
    plays.sort_by_key(|play| order(&play.name));
    if plays.is_empty() { Err(format!("got no scenario {}", only.unwrap_or("at all"))) } else { Ok(plays) }
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
    let told = |error: std::io::Error| format!("{}: {error}", page.display());
    let old = std::fs::read_to_string(page).map_err(told)?;
    let (begin, end) = (format!("<!-- written by {writer}: begin -->"), format!("<!-- written by {writer}: end -->"));
    let (Some((before, rest)), Some((_, after))) = (old.split_once(&begin), old.split_once(&end)) else {
        return Err(format!("{} has no marks of {writer}", page.display()));
    };
    let _ = rest;
    std::fs::write(page, format!("{before}{begin}\n\n{}\n\n{end}{after}", text.trim())).map_err(told)
}
