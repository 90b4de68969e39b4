//! `muster report`: what a member did in a day.

use actors::view::ReportView;
use clap::builder::styling::AnsiColor;
use protocol::{alerts::Severity, report::Report};

use super::{
    Context,
    exit::Failure,
    output::{colour, span, table},
};

/// Which day.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The day that is not over yet, even where there is a whole one
    #[arg(long)]
    so_far: bool,
}

/// Asks and shows.
pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let view: ReportView = context.client()?.get("/api/v1/report").await?;
    let (report, is_whole) = chosen(view, args.so_far);
    context.output.one(&report, |report| text(report, is_whole))
}

/// The last whole day where there is one and it is wanted.
fn chosen(view: ReportView, so_far: bool) -> (Report, bool) {
    match view.last {
        Some(last) if !so_far => (last, true),
        _ => (view.running, false),
    }
}

fn text(report: &Report, is_whole: bool) -> String {
    let still = if is_whole { "" } else { ", so far" };
    let mut parts = vec![format!("from {} to {}{still}: {} looks", report.from, report.to, report.samples)];
    if report.alerts.is_empty() {
        parts.push("nothing was wrong".to_owned());
    } else {
        let mut alerts = table(["what was wrong", "how often", "at worst", "for"]);
        for (topic, trouble) in &report.alerts {
            let worst = match trouble.worst {
                Severity::Warning => colour("warning", AnsiColor::Yellow),
                Severity::Critical => colour("critical", AnsiColor::Red),
            };
            alerts.add_row([topic.to_string(), trouble.raised.to_string(), worst, span(trouble.lasted_ms)]);
        }
        parts.push(alerts.to_string());
    }
    let mut figures = table(["figure", "least", "mean", "most"]);
    for (topic, spread) in &report.figures {
        let shown = [spread.least, spread.mean, spread.most].map(|figure| format!("{figure:.2}"));
        figures.add_row([topic.to_string()].into_iter().chain(shown));
    }
    parts.push(figures.to_string());
    let mut counts = table(["what happened", "times"]);
    for (name, count) in report.counts.iter().filter(|(_, count)| **count > 0) {
        counts.add_row([name.replace('_', " "), count.to_string()]);
    }
    parts.push(counts.to_string());
    parts.join("\n\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::admin::testing::report;

    #[test]
    fn the_last_whole_day_is_shown_and_the_running_one_where_it_is_wanted_or_alone() {
        let view = |last| ReportView { last, running: report() };
        assert!(chosen(view(Some(report())), false).1);
        assert!(!chosen(view(Some(report())), true).1);
        assert!(!chosen(view(None), false).1);
    }

    #[test]
    fn what_never_happened_is_left_out() {
        let shown = text(&report(), false);
        for part in ["so far: 2880 looks", "isolated", "1 min", "searches served", "12.50"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!shown.contains("bad inputs"), "{shown}");
        let quiet = Report { alerts: [].into(), ..report() };
        assert!(text(&quiet, true).contains("nothing was wrong"));
    }
}
