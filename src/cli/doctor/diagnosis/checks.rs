//! The checks, by what they look at.

pub(super) mod daemon;
pub(super) mod files;
pub(super) mod host;
pub(super) mod network;

use actors::view::StatusView;

use super::{Facts, Unknown, daemon as daemon_of, told};

/// The running member's overview.
fn status(facts: &Facts) -> Result<&StatusView, Unknown> {
    told(&daemon_of(facts)?.status)
}

/// What the running member says of one topic, in its own words; nothing when it says nothing.
fn trouble<'a>(status: &'a StatusView, topic: &str) -> Option<&'a str> {
    status.reasons.iter().find_map(|reason| reason.strip_prefix(topic)?.strip_prefix(": "))
}

/// Topics of which a check of their own says more.
const TOPICS: [&str; 5] = ["clock", "cannot join", "bus", "bus_server", "bus_mode"];

/// Bytes as people say them.
fn bytes(count: u64) -> String {
    match count {
        0..1_000_000 => format!("{} kB", count / 1_000),
        1_000_000..1_000_000_000 => format!("{} MB", count / 1_000_000),
        _ => format!("{}.{} GB", count / 1_000_000_000, count / 100_000_000 % 10),
    }
}

/// A share as people say it.
fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
