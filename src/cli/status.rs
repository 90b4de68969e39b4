//! `muster status`: how a member is and what is wrong with it.

use std::fmt::Write as _;

use actors::view::{Standing, StatusView};
use clap::builder::styling::AnsiColor;
use protocol::wire::Role;

use super::{
    Context,
    exit::{Exit, Failure},
    output::{clean, colour, or_dash, span},
};

/// Flags of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Fail (exit code 1) while the member cannot do its job, as `/readyz` does: for probes that cannot ask it.
    #[arg(long)]
    ready: bool,
}

/// Asks and shows.
pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let status: StatusView = context.client()?.get("/api/v1/status").await?;
    context.output.one(&status, text)?;
    if args.ready && !status.ready {
        let unready = Failure::new(Exit::Failed, format!("{} is not ready", clean(&status.name)));
        return Err(status.reasons.iter().fold(unready, |failure, reason| failure.why(clean(reason))));
    }
    Ok(())
}

/// A role in one word.
pub(super) const fn role(role: Role) -> &'static str {
    match (role.node, role.indexer) {
        (true, true) => "both",
        (true, false) => "node",
        (false, true) => "indexer",
        (false, false) => "unknown",
    }
}

const fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Joining => "joining: no indexer has answered yet",
        Standing::Joined => "joined: its own record was not yet read back",
        Standing::Whole => "whole",
        Standing::Isolated => "isolated: too few indexers answer",
        Standing::Leaving => "leaving",
    }
}

fn text(status: &StatusView) -> String {
    let ready = match status.ready {
        true => colour("ready", AnsiColor::Green),
        false => colour("not ready", AnsiColor::Red),
    };
    let mut text = format!("{} ({}), {ready}, {}\n", clean(&status.name), role(status.role), standing(status.standing));
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    line("peer id", status.peer_id.to_string());
    line("did", clean(&status.did));
    line("network", format!("{}, profile {}", clean(&status.network_id), clean(&status.profile)));
    line("version", format!("{}, up {}", clean(&status.version), span(status.uptime_ms)));
    for address in &status.listen {
        line("address", address.to_string());
    }
    line(
        "pool",
        format!(
            "{} of {} answer, at least {}, at most {}",
            status.pool_answering, status.pool_members, status.pool_min, status.pool_max
        ),
    );
    line("referent", or_dash(status.referent.as_deref().unwrap_or_default()));
    if status.role.indexer {
        let drained = if status.drained { ", drained: it takes no new ones" } else { "" };
        line("sessions", format!("{} of {}{drained}", status.sessions, status.max_nodes));
        line("indexers", format!("{} others known", status.indexers_known));
    }
    line("links", format!("{} connections", status.connections));
    line("record", if status.record_seq == 0 { "none yet".to_owned() } else { format!("seq {}", status.record_seq) });
    line("database", if status.store_ok { "answers" } else { "does not answer" }.to_owned());
    for reason in &status.reasons {
        let _ = writeln!(text, "  {} {}", colour("!", AnsiColor::Yellow), clean(reason));
    }
    text
}
