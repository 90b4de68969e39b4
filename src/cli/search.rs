//! `muster search TEXT`: hits are shown as they come, then how complete they are; of peers, or of resources. With `--trace`,
//! where the time went.

mod resources;
mod waterfall;

use actors::view::{Ended, Wanted};
use clap::builder::styling::AnsiColor;
use futures::StreamExt as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    Context,
    client::escaped,
    exit::{Exit, Failure},
    output::{clean, colour},
};

/// Arguments of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A peer id, a DID, a name or a part of one; of resources, part of a name, a description or an owner.
    #[arg(required_unless_present = "resources", default_value = "")]
    text: String,

    #[command(flatten)]
    resources: resources::Args,

    /// On whose behalf: a user's new search ends the running one [default: this process].
    #[arg(long)]
    user: Option<String>,

    /// Show where the time went: who was asked when, and when each answered.
    #[arg(long)]
    trace: bool,
}

/// The part of a hit that people read.
#[derive(Debug, Deserialize)]
struct Hit {
    name: String,
    peer_id: String,
    did: String,
    source: String,
    expiry_date: Timestamp,
    after_ms: f64,
}

/// The last word.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    ended: Ended,
    hits: u32,
    asked: u32,
    answered: u32,
    timed_out: u32,
    truncated: bool,
    took_ms: f64,
}

/// What the text names, by its form.
fn wanted(text: &str) -> Wanted {
    let text = text.trim().to_owned();
    if text.parse::<libp2p_identity::PeerId>().is_ok() {
        return Wanted { peer_id: Some(text), ..Wanted::default() };
    }
    if text.starts_with("did:") {
        return Wanted { did: Some(text), ..Wanted::default() };
    }
    Wanted { name: Some(text), ..Wanted::default() }
}

/// What asks for a waterfall, at the end of a path.
const fn traced(is_wanted: bool) -> &'static str {
    if is_wanted { "&trace=true" } else { "" }
}

fn path(wanted: &Wanted, user: &str) -> String {
    let criteria = [("peer_id", &wanted.peer_id), ("did", &wanted.did), ("name", &wanted.name)];
    let query = criteria.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped(value.as_ref()?))));
    let (query, traced) = (query.collect::<Vec<_>>().join("&"), traced(wanted.trace));
    format!("/api/v1/search?{query}&user={}{traced}", escaped(user))
}

/// Asks and shows; code 7 when some indexer asked did not answer.
pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let user = args.user.clone().unwrap_or_else(|| format!("cli:{}", std::process::id()));
    if args.resources.is_wanted() {
        return resources::run(&args.resources, &args.text, &user, args.trace, context).await;
    }
    let path = path(&Wanted { trace: args.trace, ..wanted(&args.text) }, &user);
    let end: End = follow(&path, context, line, last_line).await?;
    verdict(&end)
}

/// Shows the hits of a search as they come, then its last word, which is told.
async fn follow<End: DeserializeOwned>(
    path: &str,
    context: &Context,
    hit_line: fn(&str) -> String,
    last_line: fn(&End) -> String,
) -> Result<End, Failure> {
    let client = context.client()?;
    let mut events = Box::pin(client.stream(path).await?);
    while let Some(event) = events.next().await {
        let event = event?;
        let step = RawValue::from_string(event.data).map_err(|cause| unreadable(&cause))?;
        match event.event.as_str() {
            "hit" => context.output.step(&step, |step| hit_line(step.get()))?,
            "trace" => context.output.step(&step, |step| waterfall::text(step.get()))?,
            "end" => {
                let end: End = serde_json::from_str(step.get()).map_err(|cause| unreadable(&cause))?;
                context.output.step(&step, |_| last_line(&end))?;
                return Ok(end);
            }
            _ => {}
        }
    }
    Err(broken_off())
}

fn broken_off() -> Failure {
    Failure::new(Exit::Unreachable, "the search broke off").next("is the daemon still running? `muster status`")
}

fn unreadable(cause: &serde_json::Error) -> Failure {
    Failure::new(Exit::Failed, "the daemon sent something else than a search's result").why(cause.to_string())
}

fn line(hit: &str) -> String {
    match serde_json::from_str::<Hit>(hit) {
        Ok(hit) => format!(
            "{} {} {} (from {}, valid to {}, after {:.1} ms)",
            colour(&format!("{:<16}", clean(&hit.name)), AnsiColor::Green),
            clean(&hit.peer_id),
            clean(&hit.did),
            clean(&hit.source),
            hit.expiry_date,
            hit.after_ms
        ),
        Err(cause) => format!("a hit that cannot be shown: {cause}"),
    }
}

fn last_line(end: &End) -> String {
    let hits = match end.hits {
        0 => "no hits".to_owned(),
        1 => "1 hit".to_owned(),
        hits => format!("{hits} hits"),
    };
    let late = if end.timed_out == 0 { String::new() } else { format!(", {} timed out", end.timed_out) };
    let indexers = if end.asked == 1 { "indexer" } else { "indexers" };
    let left_out = if end.truncated { ", some hits were left out" } else { "" };
    let why = why(end.ended);
    format!(
        "{hits} in {:.1} ms; answered {} of {} {indexers}{late}{left_out}{why}",
        end.took_ms, end.answered, end.asked
    )
}

/// Why a search ended, where its figures do not say it.
fn why(ended: Ended) -> &'static str {
    match ended {
        Ended::Complete => "",
        Ended::Idle => " (nothing more came)",
        Ended::TimedOut => " (its time was over)",
        Ended::Limit => " (no more are shown)",
        Ended::Replaced => " (replaced by the same user's next search)",
        Ended::Closed => " (closed)",
        Ended::Lost => " (those asked are gone)",
        Ended::Isolated => " (nobody could be asked)",
    }
}

/// Complete is good; with holes is partial; nobody asked is refused.
fn verdict(end: &End) -> Result<(), Failure> {
    let has_holes = end.timed_out > 0 || end.truncated || end.answered < end.asked;
    let exit = match end.ended {
        Ended::Isolated => Exit::Refused,
        Ended::Replaced | Ended::TimedOut | Ended::Lost => Exit::Partial,
        _ if has_holes => Exit::Partial,
        _ => return Ok(()),
    };
    // Silent: the last line has said it already.
    Err(Failure::new(exit, String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(ended: Ended, asked: u32, answered: u32, timed_out: u32) -> End {
        End { ended, hits: 2, asked, answered, timed_out, truncated: false, took_ms: 4.25 }
    }

    #[test]
    fn the_form_of_the_text_decides_what_is_searched() {
        assert_eq!(wanted("par").name.as_deref(), Some("par"));
        assert_eq!(wanted("did:key:z6Mk").did.as_deref(), Some("did:key:z6Mk"));
        let peer = libp2p_identity::Keypair::generate_ed25519().public().to_peer_id().to_string();
        assert_eq!(wanted(&peer).peer_id, Some(peer));
    }

    #[test]
    fn the_question_is_escaped() {
        assert_eq!(path(&wanted("a&b=c d"), "cli:7"), "/api/v1/search?name=a%26b%3Dc%20d&user=cli%3A7");
        let traced = Wanted { trace: true, ..wanted("par") };
        assert_eq!(path(&traced, "a"), "/api/v1/search?name=par&user=a&trace=true");
    }

    #[test]
    fn the_last_line_says_how_complete_the_hits_are() {
        assert_eq!(
            last_line(&end(Ended::Idle, 9, 7, 2)),
            "2 hits in 4.2 ms; answered 7 of 9 indexers, 2 timed out (nothing more came)"
        );
        assert_eq!(last_line(&end(Ended::Complete, 1, 1, 0)), "2 hits in 4.2 ms; answered 1 of 1 indexer");
    }

    #[test]
    fn holes_are_partial_and_nobody_asked_is_refused() {
        assert!(verdict(&end(Ended::Complete, 3, 3, 0)).is_ok());
        for (end, exit) in [
            (end(Ended::Complete, 3, 2, 1), Exit::Partial),
            (end(Ended::Idle, 3, 2, 0), Exit::Partial),
            (end(Ended::Replaced, 3, 3, 0), Exit::Partial),
            (end(Ended::Isolated, 0, 0, 0), Exit::Refused),
        ] {
            assert_eq!(verdict(&end).map_err(|failure| failure.exit), Err(exit));
        }
    }
}
