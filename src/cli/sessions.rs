//! `muster sessions`: the nodes that have a session at an indexer.

use actors::view::SessionView;
use jiff::Timestamp;

use super::{
    Context,
    exit::Failure,
    output::{ago, or_dash, speed, table},
};

/// Asks and shows.
pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let sessions: Vec<SessionView> = context.client()?.get("/api/v1/sessions").await?;
    context.output.list(&sessions, |sessions| text(sessions, Timestamp::now()))
}

fn text(sessions: &[SessionView], now: Timestamp) -> String {
    if sessions.is_empty() {
        return "no session: nobody has sent a heartbeat, or this member is no indexer".to_owned();
    }
    let mut table =
        table(["name", "is", "since", "last seen", "beats", "record", "referent", "round trip", "sends", "peer id"]);
    for session in sessions {
        table.add_row([
            or_dash(&session.name),
            if session.indexer { "indexer" } else { "node" }.to_owned(),
            ago(now, session.since),
            ago(now, session.last_seen),
            session.beats.to_string(),
            if session.record_seq == 0 { "–".to_owned() } else { session.record_seq.to_string() },
            if session.referent { "here" } else { "–" }.to_owned(),
            session.rtt_ms.map_or_else(|| "–".to_owned(), |millis| format!("{millis:.1} ms")),
            session.bytes_per_sec.map_or_else(|| "–".to_owned(), speed),
            session.peer_id.to_string(),
        ]);
    }
    let plural = if sessions.len() == 1 { "" } else { "s" };
    format!("{table}\n{} session{plural}", sessions.len())
}
