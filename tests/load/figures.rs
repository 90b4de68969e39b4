//! Medians, percentiles, and the table.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use crate::broken::{Broken, Outcome, While};

/// How a figure stands to its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is reached.
    Pass,
    /// It is not.
    Miss,
    /// There is none.
    NoGoal,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    what: String,
    ours: String,
    beside: String,
    ratio: String,
    goal: String,
    verdict: Verdict,
}

impl Row {
    /// A figure that has no goal and nothing beside it.
    pub(crate) fn new(what: impl Into<String>, ours: impl Into<String>) -> Self {
        let (what, ours) = (what.into(), ours.into());
        Self { what, ours, beside: String::new(), ratio: String::new(), goal: String::new(), verdict: Verdict::NoGoal }
    }

    /// What it is compared with.
    pub(crate) fn beside(mut self, beside: impl Into<String>) -> Self {
        self.beside = beside.into();
        self
    }

    /// Ours divided by what it is compared with.
    pub(crate) fn ratio(mut self, ratio: impl Into<String>) -> Self {
        self.ratio = ratio.into();
        self
    }

    /// Its goal, and whether it is reached.
    pub(crate) fn goal(mut self, goal: impl Into<String>, is_reached: bool) -> Self {
        self.goal = goal.into();
        self.verdict = if is_reached { Verdict::Pass } else { Verdict::Miss };
        self
    }

    fn cells(&self) -> [&str; 6] {
        let verdict = match self.verdict {
            Verdict::Pass => "PASS",
            Verdict::Miss => "MISS",
            Verdict::NoGoal => "",
        };
        [&self.what, &self.ours, &self.beside, &self.ratio, &self.goal, verdict]
    }
}

/// The rows as a table that reads well both as text and as Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let head = ["what", "ours", "beside", "ratio", "goal", ""];
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row.cells()[column]).chain([head[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: [&str; 6]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!(" {cell:width$} |"));
        format!("|{}\n", padded.collect::<String>())
    };
    let rule = widths.iter().map(|width| format!("{}|", "-".repeat(width + 2))).collect::<String>();
    let body = rows.iter().map(|row| line(row.cells())).collect::<String>();
    format!("{}|{rule}\n{body}", line(head))
}

/// Puts the table into its place in a document: between two lines that name the command which writes it.
///
/// # Errors
/// When the document has no such place, or cannot be written.
pub(crate) fn document(path: &Path, command: &str, table: &str) -> Outcome<()> {
    let [begin, end] = ["begin", "end"].map(|word| format!("<!-- written by {command}: {word} -->"));
    let text = fs::read_to_string(path).when(format!("reading {}", path.display()))?;
    let missing = || Broken::new(format!("{} has no lines \"{begin}\" and \"{end}\"", path.display()));
    let (before, rest) = text.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
    let mut written = String::new();
    write!(written, "{before}{begin}\n\n{table}\n{end}{after}")?;
    fs::write(path, written).when(format!("writing {}", path.display()))
}

/// The smallest value that `share` of all do not exceed; zero of none.
pub(crate) fn percentile<T: Copy + PartialOrd + Default>(values: &[T], share: f64) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length is an index")]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The value in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The median with the smallest and the largest value.
pub(crate) fn spread(values: &[f64]) -> String {
    format!("{:.2} ({:.2} to {:.2})", median(values), percentile(values, 0.0), percentile(values, 1.0))
}

/// A duration in milliseconds.
pub(crate) fn ms(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

/// A duration in seconds.
pub(crate) fn secs(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Half and 99 of 100 of the durations.
pub(crate) fn p50_p99(durations: &[Duration]) -> String {
    format!("{} / {}", ms(percentile(durations, 0.5)), ms(percentile(durations, 0.99)))
}
