//! How answers are written: a table for people, or JSON, JSON lines or YAML for programs.

use std::io::Write as _;

use clap::{
    ValueEnum,
    builder::styling::{AnsiColor, Style},
};
use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};
use jiff::Timestamp;
use serde::Serialize;

use super::exit::{Exit, Failure, unwritten};

/// A line under the header and nothing else: a row is a line that can be searched and cut.
const HEADER_ONLY: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// One JSON value; a list is an array, a stream is JSON lines.
    Json,
    /// One JSON value per line.
    Jsonl,
    /// YAML; a stream is one document per step.
    Yaml,
}

impl Output {
    /// Writes a list: a table, an array, or one line each.
    pub(crate) fn list<T: Serialize>(self, rows: &[T], table: impl FnOnce(&[T]) -> String) -> Result<(), Failure> {
        match self {
            Self::Jsonl => rows.iter().try_for_each(|row| say(&compact(row)?)),
            Self::Table => say(table(rows).trim_end()),
            Self::Json | Self::Yaml => self.one(&rows, |_| String::new()),
        }
    }

    /// Writes one value.
    pub(crate) fn one<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        match self {
            Self::Table => say(text(value).trim_end()),
            Self::Json => say(&serde_json::to_string_pretty(value).map_err(|cause| unwritable(&cause))?),
            Self::Jsonl => say(&compact(value)?),
            Self::Yaml => say(yaml(value)?.trim_end()),
        }
    }

    /// Writes one step of a stream: nothing but whole lines, so that each can be read as it comes.
    pub(crate) fn step<T: Serialize>(self, step: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        match self {
            Self::Table => say(text(step).trim_end()),
            Self::Json | Self::Jsonl => say(&compact(step)?),
            Self::Yaml => say(&format!("---\n{}", yaml(step)?.trim_end())),
        }
    }
}

/// Writes a line to the standard output; colours go where colours are wanted.
pub(crate) fn say(line: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|cause| unwritten(&cause))
}

fn compact<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|cause| unwritable(&cause))
}

/// Goes over JSON, because raw JSON text inside a value means nothing to a YAML writer.
fn yaml<T: Serialize>(value: &T) -> Result<String, Failure> {
    let value = serde_json::to_value(value).map_err(|cause| unwritable(&cause))?;
    serde_yaml_ng::to_string(&value)
        .map_err(|cause| Failure::new(Exit::Internal, "cannot write YAML").why(cause.to_string()))
}

fn unwritable(cause: &serde_json::Error) -> Failure {
    Failure::new(Exit::Internal, "cannot write JSON").why(cause.to_string())
}

/// An empty table with this header, as wide as the terminal allows.
pub(crate) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(HEADER_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

/// The text in this colour; stripped again where colours are not wanted.
pub(crate) fn colour(text: &str, colour: AnsiColor) -> String {
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{text}{style:#}")
}

/// A dash for what is not known.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "–".to_owned() } else { clean(text) }
}

/// What peers say about themselves, without anything that could move the cursor of the terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_bidirectional(c) { '\u{fffd}' } else { c }).collect()
}

/// Characters that turn the direction of text, so that a name could show as another.
fn is_bidirectional(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A span as people say it: `8 s`, `3 min`, `2 h 5 min`, `4 d 1 h`.
pub(crate) fn span(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// How long ago `then` was.
pub(crate) fn ago(now: Timestamp, then: Timestamp) -> String {
    let millis = now.as_millisecond().saturating_sub(then.as_millisecond());
    format!("{} ago", span(u64::try_from(millis).unwrap_or(0)))
}

/// Microseconds as people say them.
pub(crate) fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{}.{} ms", micros / 1_000, micros / 100 % 10),
        _ => format!("{}.{} s", micros / 1_000_000, micros / 100_000 % 10),
    }
}

/// Bytes per second as people say them.
pub(crate) fn speed(bytes_per_sec: f64) -> String {
    match bytes_per_sec {
        slow if slow < 1e6 => format!("{:.1} kB/s", slow / 1e3),
        fast => format!("{:.1} MB/s", fast / 1e6),
    }
}

/// The end of a peer id, which is what people compare.
pub(crate) fn short(peer_id: &str) -> String {
    let skip = peer_id.chars().count().saturating_sub(8);
    if skip == 0 { peer_id.to_owned() } else { format!("…{}", peer_id.chars().skip(skip).collect::<String>()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn spans_are_said_in_the_largest_units() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (3_599_999, "59 min"),
            (7_500_000, "2 h 5 min"),
            (349_200_000, "4 d 1 h"),
        ] {
            assert_eq!(span(millis), text);
        }
    }

    #[test]
    fn a_name_cannot_move_the_cursor_or_turn_the_text() {
        assert_eq!(clean("a\u{1b}[2Jb\u{202e}c\n"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}");
    }

    #[test]
    fn raw_records_are_objects_in_yaml_too() {
        #[derive(Serialize)]
        struct Row {
            record: Box<RawValue>,
        }
        let row = Row { record: RawValue::from_string(r#"{"name": "paris"}"#.to_owned()).unwrap() };
        assert_eq!(yaml(&row).unwrap(), "record:\n  name: paris\n");
    }

    #[test]
    fn a_short_id_shows_its_end() {
        assert_eq!(short("12D3KooWabcdefgh"), "…abcdefgh");
        assert_eq!(short("abc"), "abc");
    }

    #[test]
    fn speeds_change_their_unit() {
        assert_eq!((speed(8_192.0), speed(65_536_000.0)), ("8.2 kB/s".into(), "65.5 MB/s".into()));
    }

    #[test]
    fn micros_change_their_unit() {
        assert_eq!((micros(999), micros(1_250), micros(2_500_000)), ("999 µs".into(), "1.2 ms".into(), "2.5 s".into()));
    }
}
