//! `muster planner ls|open|feed|close`: the sessions in which a plan is made with others.

use actors::view::PlanView;
use clap::Subcommand;
use hyper::Method;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    Context,
    client::escaped,
    exit::{Exit, Failure},
    output::{ago, say, span, table},
};

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the sessions that are open.
    Ls,
    /// Open a session, if there is none.
    Open {
        /// With whom: a peer id; in a demo its name too.
        peer: String,
    },
    /// Feed a session a step; it is opened where there is none.
    Feed {
        /// With whom: a peer id; in a demo its name too.
        peer: String,
        /// The step, a JSON object.
        #[arg(value_parser = object)]
        step: Map<String, Value>,
        /// In the name of this user of ours.
        #[arg(long)]
        user: Option<String>,
        /// A group of the user; may be given again.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
    },
    /// Close a session; what was fed is still sent.
    Close {
        /// With whom: a peer id; in a demo its name too.
        peer: String,
    },
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("expected a JSON object: {error}"))
}

/// Does it and says so.
pub(super) async fn run(verb: &Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::Ls => {
            let rows: Vec<PlanView> = context.client()?.get("/api/v1/planner").await?;
            context.output.list(&rows, |rows| shown(rows, Timestamp::now()))
        }
        Verb::Open { peer } => {
            let peer = context.peer(peer)?;
            context.client_that_changes()?.send(Method::POST, &path(&peer), Some(&json!({}))).await?;
            say(&format!("a session with {peer} is open, for a day at most"))
        }
        Verb::Feed { peer, step, user, groups } => {
            let peer = context.peer(peer)?;
            let mut wish = json!({ "step": step, "groups": groups });
            if let Some(user) = user {
                wish["user"] = json!(user);
            }
            context.client_that_changes()?.send(Method::POST, &path(&peer), Some(&wish)).await?;
            say(&format!("the step is on the disk, and {peer} gets it for up to a day: `muster outbox --to {peer}`"))
        }
        Verb::Close { peer } => {
            let peer = context.peer(peer)?;
            context.client_that_changes()?.send(Method::DELETE, &path(&peer), None).await.map_err(unknown)?;
            say(&format!("the session with {peer} is closed; what was fed is still sent"))
        }
    }
}

fn path(peer: &str) -> String {
    format!("/api/v1/planner/{}", escaped(peer))
}

fn unknown(failure: Failure) -> Failure {
    match failure.exit {
        Exit::NotFound => failure.next("`muster planner ls` lists them"),
        _ => failure,
    }
}

fn shown(rows: &[PlanView], now: Timestamp) -> String {
    if rows.is_empty() {
        return "no planner session is open; `muster planner open PEER` changes that".to_owned();
    }
    let mut table = table(["peer id", "since", "ends", "fed", "waiting"]);
    for row in rows {
        let left = row.ends_at.as_millisecond().saturating_sub(now.as_millisecond());
        table.add_row([
            row.peer_id.to_string(),
            ago(now, row.opened_at),
            format!("in {}", span(u64::try_from(left).unwrap_or_default())),
            row.fed.to_string(),
            row.waiting.to_string(),
        ]);
    }
    let plural = if rows.len() == 1 { "" } else { "s" };
    format!("{table}\n{} session{plural}", rows.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::admin::testing::peer;

    #[test]
    fn sessions_are_listed_with_their_age_their_end_and_what_waits() {
        let at = |secs| Timestamp::from_second(secs).unwrap();
        let row = PlanView { peer_id: peer(), opened_at: at(0), ends_at: at(70), fed: 12, waiting: 3 };
        let text = shown(&[row], at(10));
        assert!(text.contains("10 s ago") && text.contains("in 1 min") && text.contains("12"), "{text}");
        assert!(text.ends_with("1 session"), "{text}");
        assert!(shown(&[], at(0)).contains("planner open"));
    }

    #[test]
    fn a_step_is_an_object_and_nothing_else() {
        assert_eq!(object(r#"{"a":1}"#).unwrap().len(), 1);
        for wrong in ["[]", "1", "", "{"] {
            assert!(object(wrong).is_err(), "{wrong}");
        }
    }
}
