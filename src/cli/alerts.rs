//! `muster alerts`: what is wrong with a member and its host.

use actors::view::AlertView;
use clap::builder::styling::AnsiColor;
use jiff::Timestamp;
use protocol::alerts::Severity;

use super::{
    Context,
    exit::Failure,
    output::{ago, colour, table},
};

/// Asks and shows.
pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let alerts: Vec<AlertView> = context.client()?.get("/api/v1/alerts").await?;
    context.output.list(&alerts, |alerts| text(alerts, Timestamp::now()))
}

fn text(alerts: &[AlertView], now: Timestamp) -> String {
    if alerts.is_empty() {
        return "nothing is wrong".to_owned();
    }
    let mut table = table(["topic", "how bad", "since", "figure", "allowed", "what to do"]);
    for alert in alerts {
        let severity = match alert.severity {
            Severity::Warning => colour("warning", AnsiColor::Yellow),
            Severity::Critical => colour("critical", AnsiColor::Red),
        };
        table.add_row([
            alert.topic.to_string(),
            severity,
            ago(now, alert.since),
            format!("{:.2}", alert.figure),
            alert.bound.to_string(),
            alert.remedy.clone(),
        ]);
    }
    table.to_string()
}
