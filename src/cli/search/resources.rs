//! `muster search --resources`: what other members offer, within what they let us see.

use actors::view::Ended;
use clap::builder::styling::AnsiColor;
use serde::Deserialize;

use super::{follow, traced, why};
use crate::cli::{
    Context,
    client::escaped,
    exit::{Exit, Failure},
    output::{clean, colour},
};

/// Arguments of a search for resources.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Search for resources instead of peers.
    #[arg(long)]
    resources: bool,

    /// Only of this kind: compute, storage, processing, data or workflow.
    #[arg(long, requires = "resources")]
    kind: Option<String>,

    /// Whom to ask: all, known or partner.
    #[arg(long, requires = "resources", default_value = "all", value_parser = ["all", "known", "partner"])]
    scope: String,

    /// A group of the user; may be given several times.
    #[arg(long = "group", requires = "resources")]
    groups: Vec<String>,
}

/// The part of a hit that people read.
#[derive(Debug, Deserialize)]
struct Hit {
    peer_id: String,
    resource: Offer,
    elapsed_ms: f64,
}

/// What is offered.
#[derive(Debug, Deserialize)]
struct Offer {
    id: String,
    kind: String,
    name: String,
    #[serde(default)]
    short_description: String,
}

/// The last word.
#[derive(Debug, Deserialize)]
struct End {
    reason: Ended,
    hits: u32,
    asked: u32,
    answered: u32,
    refused: u32,
    timed_out: u32,
    truncated: bool,
    elapsed_ms: f64,
}

impl Args {
    /// Whether resources are searched for, and not peers.
    pub(super) const fn is_wanted(&self) -> bool {
        self.resources
    }

    fn path(&self, text: &str, user: &str, is_traced: bool) -> String {
        let kind = self.kind.as_ref().map(|kind| format!("&kind={}", escaped(kind))).unwrap_or_default();
        let groups: String = self.groups.iter().map(|group| format!("&group={}", escaped(group))).collect();
        let (scope, text, user) = (escaped(&self.scope), escaped(text), escaped(user));
        format!("/api/v1/searches?scope={scope}&text={text}{kind}{groups}&user={user}{}", traced(is_traced))
    }
}

/// Asks and shows; code 7 when some that were asked did not answer.
pub(super) async fn run(
    args: &Args,
    text: &str,
    user: &str,
    is_traced: bool,
    context: &Context,
) -> Result<(), Failure> {
    let end: End = follow(&args.path(text, user, is_traced), context, line, last_line).await?;
    verdict(&end)
}

fn line(hit: &str) -> String {
    match serde_json::from_str::<Hit>(hit) {
        Ok(Hit { peer_id, resource, elapsed_ms }) => format!(
            "{} {} {} {} of {} (after {elapsed_ms:.1} ms)",
            colour(&format!("{:<20}", clean(&resource.name)), AnsiColor::Green),
            clean(&resource.kind),
            clean(&resource.id),
            clean(&resource.short_description),
            clean(&peer_id),
        ),
        Err(cause) => format!("a hit that cannot be shown: {cause}"),
    }
}

fn last_line(end: &End) -> String {
    let hits = match end.hits {
        0 => "no resources".to_owned(),
        1 => "1 resource".to_owned(),
        hits => format!("{hits} resources"),
    };
    // By gossip nobody knows how many were asked.
    let asked = if end.asked == 0 { String::new() } else { format!(" of {}", end.asked) };
    let refused = if end.refused == 0 { String::new() } else { format!(", {} said no", end.refused) };
    let late = if end.timed_out == 0 { String::new() } else { format!(", {} timed out", end.timed_out) };
    let left_out = if end.truncated { ", some were left out" } else { "" };
    let why = why(end.reason);
    format!("{hits} in {:.1} ms; answered {}{asked}{refused}{late}{left_out}{why}", end.elapsed_ms, end.answered)
}

/// Complete is good, and so is silence after gossip; with holes is partial.
fn verdict(end: &End) -> Result<(), Failure> {
    let has_holes = end.timed_out > 0 || end.truncated || end.answered + end.refused < end.asked;
    let exit = match end.reason {
        Ended::Isolated => Exit::Refused,
        Ended::Replaced | Ended::Lost => Exit::Partial,
        // By gossip a search ends by its time when answers still come.
        Ended::TimedOut if end.asked > 0 => Exit::Partial,
        _ if has_holes => Exit::Partial,
        _ => return Ok(()),
    };
    // Silent: the last line has said it already.
    Err(Failure::new(exit, String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(reason: Ended, asked: u32, answered: u32, refused: u32) -> End {
        End { reason, hits: 2, asked, answered, refused, timed_out: 0, truncated: false, elapsed_ms: 4.25 }
    }

    #[test]
    fn the_question_is_escaped_and_names_each_group() {
        let args = Args {
            resources: true,
            kind: Some("data".to_owned()),
            scope: "partner".to_owned(),
            groups: vec!["a&b".to_owned(), "ops".to_owned()],
        };
        let path = "/api/v1/searches?scope=partner&text=g%20p&kind=data&group=a%26b&group=ops&user=cli%3A7";
        assert_eq!(args.path("g p", "cli:7", false), path);
        assert_eq!(args.path("g p", "cli:7", true), format!("{path}&trace=true"));
    }

    #[test]
    fn the_last_line_says_how_complete_the_resources_are() {
        let partners = "2 resources in 4.2 ms; answered 1 of 2, 1 said no";
        assert_eq!(last_line(&end(Ended::Complete, 2, 1, 1)), partners);
        let gossip = "2 resources in 4.2 ms; answered 3 (nothing more came)";
        assert_eq!(last_line(&end(Ended::Idle, 0, 3, 0)), gossip);
    }

    #[test]
    fn silence_after_gossip_is_no_hole() {
        assert!(verdict(&end(Ended::Idle, 0, 0, 0)).is_ok());
        assert!(verdict(&end(Ended::TimedOut, 0, 3, 0)).is_ok());
        assert!(verdict(&end(Ended::Complete, 2, 1, 1)).is_ok());
        for (end, exit) in [
            (end(Ended::Complete, 3, 2, 0), Exit::Partial),
            (end(Ended::TimedOut, 3, 3, 0), Exit::Partial),
            (end(Ended::Replaced, 3, 3, 0), Exit::Partial),
            (end(Ended::Isolated, 0, 0, 0), Exit::Refused),
        ] {
            assert_eq!(verdict(&end).map_err(|failure| failure.exit), Err(exit));
        }
    }
}
