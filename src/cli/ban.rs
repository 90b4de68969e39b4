//! `muster ban add|rm|ls`: whom an indexer refuses.

use std::time::Duration;

use actors::view::BanView;
use clap::Subcommand;
use hyper::Method;
use jiff::Timestamp;
use libp2p_identity::PeerId;
use protocol::time::text;
use serde_json::json;

use super::{
    Context,
    client::escaped,
    exit::Failure,
    output::{ago, or_dash, say, span, table},
};

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Refuse a peer everything, at once and over restarts.
    Add {
        /// Its peer id.
        peer: PeerId,
        /// For how long, like 10m, 1h or 7d [default: without end].
        #[arg(long = "for", value_name = "LENGTH", value_parser = length)]
        lasts: Option<Duration>,
        /// Why; shown by `ban ls` and to nobody else.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Take every ban of a peer back.
    Rm {
        /// Its peer id.
        peer: PeerId,
    },
    /// List the bans in force.
    Ls,
}

fn length(given: &str) -> Result<Duration, String> {
    text::read(given).ok_or_else(|| "expected a length like 90s, 10m, 1h or 7d".to_owned())
}

/// Does it and says so.
pub(super) async fn run(verb: &Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::Add { peer, lasts, reason } => {
            let lasts_text = lasts.map(text::write);
            let wish = json!({ "peer_id": peer.to_string(), "for": lasts_text, "reason": reason });
            context.client_that_changes()?.send(Method::POST, "/api/v1/bans", Some(&wish)).await?;
            say(&match lasts_text {
                Some(lasts) => format!("{peer} is banned for {lasts}"),
                None => format!("{peer} is banned until `muster ban rm {peer}`"),
            })
        }
        Verb::Rm { peer } => {
            let path = format!("/api/v1/bans/{}", escaped(&peer.to_string()));
            context.client_that_changes()?.send(Method::DELETE, &path, None).await?;
            say(&format!("{peer} is no longer banned"))
        }
        Verb::Ls => {
            let bans: Vec<BanView> = context.client()?.get("/api/v1/bans").await?;
            context.output.list(&bans, |bans| shown(bans, Timestamp::now()))
        }
    }
}

fn shown(bans: &[BanView], now: Timestamp) -> String {
    if bans.is_empty() {
        return "nobody is banned, or this member is no indexer".to_owned();
    }
    let mut table = table(["peer id", "from", "since", "left", "by", "bans", "reason"]);
    for ban in bans {
        table.add_row([
            ban.peer_id.to_string(),
            ban.from.clone(),
            ago(now, ban.since),
            left(now, ban.until),
            ban.by.clone(),
            ban.offences.to_string(),
            or_dash(&ban.reason),
        ]);
    }
    let plural = if bans.len() == 1 { "" } else { "s" };
    format!("{table}\n{} ban{plural}", bans.len())
}

fn left(now: Timestamp, until: Option<Timestamp>) -> String {
    let Some(until) = until else { return "without end".to_owned() };
    span(u64::try_from(until.as_millisecond().saturating_sub(now.as_millisecond())).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_ban_shows_what_is_left_of_it_and_by_whom_it_was_made() {
        let peer_id = crate::admin::testing::peer();
        let at = |secs| Timestamp::from_second(secs).unwrap();
        let (from, reason) = ("all".to_owned(), "too\nloud".to_owned());
        let ban =
            BanView { peer_id, from, since: at(0), until: Some(at(3_600)), by: "rule".into(), reason, offences: 2 };
        let endless = BanView { until: None, by: "operator".into(), ..ban.clone() };
        let text = shown(&[ban, endless], at(60));
        assert!(text.contains("59 min") && text.contains("without end") && text.ends_with("2 bans"), "{text}");
        assert!(!text.contains("too\nloud"), "{text}");
    }

    #[test]
    fn a_length_has_a_unit() {
        assert_eq!(length("1h").unwrap(), Duration::from_secs(3_600));
        for wrong in ["1", "", "h", "-1h", "1y"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }
}
