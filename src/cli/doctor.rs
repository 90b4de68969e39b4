//! `muster doctor`: looks for what is wrong with a member, running or not, and says what that rests on and what to do.
//!
//! [`gather`] finds facts, [`diagnosis`] draws conclusions from them and from nothing else.

mod diagnosis;
mod facts;
mod gather;

use std::fmt::Write as _;

use clap::builder::styling::AnsiColor;
use serde::Serialize;

use self::diagnosis::{Finding, Verdict};
use super::{
    Context,
    exit::{Exit, Failure},
    output::{Output, clean, colour},
};

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The worst of it.
    verdict: Verdict,
    /// Every check.
    checks: Vec<Finding>,
}

/// Looks, and tells.
pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let report = report(context).await?;
    match context.output {
        Output::Jsonl => context.output.list(&report.checks, |_| String::new())?,
        output => output.one(&report, text)?,
    }
    match report.verdict {
        Verdict::Failed => Err(Failure::new(Exit::Failed, "")),
        Verdict::Warning => Err(Failure::new(Exit::Partial, "")),
        Verdict::Ok | Verdict::Unknown => Ok(()),
    }
}

/// The report of the member that the verb is about.
///
/// # Errors
/// When no member is named.
pub(super) async fn report(context: &Context) -> Result<Report, Failure> {
    let checks = diagnosis::diagnose(&gather::facts(context).await?);
    Ok(Report { verdict: diagnosis::worst(&checks), checks })
}

fn text(report: &Report) -> String {
    let width = report.checks.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, verdict, evidence, remedy } in &report.checks {
        let word = colour(&format!("{:<7}", verdict.word()), hue(*verdict));
        let _ = writeln!(text, "{word}  {check:<width$}  {}", clean(evidence));
        if let Some(remedy) = remedy {
            let _ = writeln!(text, "{:7}  {:width$}  do: {remedy}", "", "");
        }
    }
    let count = |verdict| report.checks.iter().filter(|finding| finding.verdict == verdict).count();
    let [failed, warning, unknown, ok] = [Verdict::Failed, Verdict::Warning, Verdict::Unknown, Verdict::Ok].map(count);
    let _ = write!(
        text,
        "{} checks: {ok} ok, {warning} to look at, {failed} failed, {unknown} not known",
        report.checks.len()
    );
    text
}

const fn hue(verdict: Verdict) -> AnsiColor {
    match verdict {
        Verdict::Unknown => AnsiColor::BrightBlack,
        Verdict::Ok => AnsiColor::Green,
        Verdict::Warning => AnsiColor::Yellow,
        Verdict::Failed => AnsiColor::Red,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_each_check_with_its_evidence_and_its_remedy() {
        let finding = |check, verdict, remedy: Option<&str>| Finding {
            check,
            verdict,
            evidence: format!("{check}\u{1b} is so"),
            remedy: remedy.map(str::to_owned),
        };
        let checks = vec![finding("disk", Verdict::Ok, None), finding("database", Verdict::Failed, Some("mend it"))];
        let report = Report { verdict: diagnosis::worst(&checks), checks };
        let text = text(&report);
        assert!(text.contains("disk      disk\u{fffd} is so"), "{text}");
        assert!(text.contains("do: mend it"), "{text}");
        assert!(text.ends_with("2 checks: 1 ok, 0 to look at, 1 failed, 0 not known"), "{text}");
        assert_eq!(report.verdict, Verdict::Failed);
    }
}
