//! From facts to findings: each check is a function of the facts alone.
//!
//! A check without its facts is unknown, and says which it lacks: nothing is well only because nobody looked.

mod checks;
#[cfg(test)]
mod tests;

use serde::Serialize;

use super::facts::{Daemon, DaemonFacts, Facts, FileFacts, Files};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// It cannot be told.
    Unknown,
    /// Well.
    Ok,
    /// The member works, and somebody should look.
    Warning,
    /// The member does not work, or not for long.
    Failed,
}

impl Verdict {
    /// In a word.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// The check's name.
    pub(super) check: &'static str,
    /// How it is.
    pub(super) verdict: Verdict,
    /// What that rests on: a figure, a path, an address.
    pub(super) evidence: String,
    /// What to do; nothing where nothing is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

/// A check's answer, before it has the check's name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Judged {
    verdict: Verdict,
    evidence: String,
    remedy: Option<String>,
}

impl Judged {
    fn ok(evidence: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, evidence: evidence.into(), remedy: None }
    }

    fn warning(evidence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, evidence: evidence.into(), remedy: Some(remedy.into()) }
    }

    fn failed(evidence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failed, evidence: evidence.into(), remedy: Some(remedy.into()) }
    }

    /// Failed, in the words of the code that would end a start.
    fn ends_a_start(failure: &crate::cli::exit::Failure) -> Self {
        let why = failure.why.iter().map(|why| format!(": {why}")).collect::<String>();
        let remedy = failure.next.clone().unwrap_or_else(|| "correct it and start again".to_owned());
        Self::failed(format!("{}{why}", failure.what), remedy)
    }
}

/// Why a check cannot say anything.
struct Unknown(String);

/// A check: what is known, or what it lacks.
type Check = fn(&Facts) -> Result<Judged, Unknown>;

/// Every check, in the order in which a start meets its subject.
const CHECKS: [(&str, Check); 24] = [
    ("configuration", checks::files::configuration),
    ("data_folder", checks::files::data_folder),
    ("identity", checks::files::identity),
    ("network_key", checks::files::network_key),
    ("admin_token", checks::files::admin_token),
    ("lock", checks::files::lock),
    ("admin_port", checks::host::admin_port),
    ("network_port", checks::host::network_port),
    ("disk", checks::host::disk),
    ("memory", checks::host::memory),
    ("descriptors", checks::host::descriptors),
    ("database", checks::daemon::database),
    ("database_speed", checks::daemon::database_speed),
    ("seeds", checks::network::seeds),
    ("announced", checks::network::announced),
    ("pool", checks::network::pool),
    ("clock", checks::network::clock),
    ("readiness", checks::daemon::readiness),
    ("actors", checks::daemon::actors),
    ("bus", checks::network::bus),
    ("outbox", checks::daemon::outbox),
    ("alerts", checks::daemon::alerts),
    ("admin_open", checks::host::admin_open),
    ("versions", checks::daemon::versions),
];

/// What follows from the facts: one finding per check, always all of them.
pub(super) fn diagnose(facts: &Facts) -> Vec<Finding> {
    let find = |(check, judge): &(&'static str, Check)| {
        let judged = judge(facts).unwrap_or_else(|Unknown(evidence)| Judged {
            verdict: Verdict::Unknown,
            evidence,
            remedy: None,
        });
        let Judged { verdict, evidence, remedy } = judged;
        Finding { check, verdict, evidence, remedy }
    };
    CHECKS.iter().map(find).collect()
}

/// The worst of what was found; well where nothing is worse.
pub(super) fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok).max(Verdict::Ok)
}

fn files(facts: &Facts) -> Result<&FileFacts, Unknown> {
    match &facts.files {
        Files::Seen(files) => Ok(files),
        Files::Elsewhere => {
            Err(Unknown("a daemon was named by its address; its files are looked at with --config".to_owned()))
        }
        Files::Unusable(_) => Err(Unknown("the configuration cannot be used".to_owned())),
    }
}

fn daemon(facts: &Facts) -> Result<&DaemonFacts, Unknown> {
    match &facts.daemon {
        Daemon::Answers(daemon) => Ok(daemon),
        Daemon::NotSought(why) => Err(Unknown(why.clone())),
        Daemon::Silent(failure) => Err(Unknown(format!("only a running daemon knows: {}", failure.what))),
    }
}

fn told<T>(asked: &Result<T, String>) -> Result<&T, Unknown> {
    asked.as_ref().map_err(|why| Unknown(format!("the daemon did not tell: {why}")))
}
