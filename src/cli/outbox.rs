//! `muster outbox`: what waits for partners and the bus, and what became of what waited.

use actors::{handle::PAGE_MAX, view::OutboxView};
use clap::builder::styling::AnsiColor;
use jiff::Timestamp;
use store::Fate;

use super::{
    Context,
    client::escaped,
    exit::Failure,
    output::{ago, clean, colour, or_dash, short, span, table},
};

/// Rows in one list: all that a member keeps of what has ended.
const ROWS_MAX: i64 = store::OUTBOX_ENDED_MAX as i64;

/// Which rows.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only for this peer, or for our applications with `bus`.
    #[arg(long, value_name = "PEER")]
    to: Option<String>,

    /// Only with this fate: waiting, delivered, refused, expired or dropped.
    #[arg(long, value_parser = fate)]
    fate: Option<Fate>,

    /// At most so many, the newest.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=ROWS_MAX))]
    limit: u32,
}

fn fate(name: &str) -> Result<Fate, String> {
    Fate::named(name).ok_or_else(|| "expected waiting, delivered, refused, expired or dropped".to_owned())
}

/// Asks page after page, and shows.
pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let to = match args.to.as_deref() {
        Some("bus") => Some("bus".to_owned()),
        Some(peer) => Some(context.peer(peer)?),
        None => None,
    };
    let client = context.client()?;
    let ask = async |limit, before| client.get(&path(to.as_deref(), args.fate, before, limit)).await;
    let rows = pages(args.limit, ask).await?;
    context.output.list(&rows, |rows| shown(rows, Timestamp::now()))
}

/// Page after page, until one is not full or `limit` rows are there.
async fn pages(
    limit: u32,
    ask: impl AsyncFn(u32, Option<u64>) -> Result<Vec<OutboxView>, Failure>,
) -> Result<Vec<OutboxView>, Failure> {
    let mut rows: Vec<OutboxView> = Vec::new();
    loop {
        let left = limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX)).min(PAGE_MAX);
        if left == 0 {
            return Ok(rows);
        }
        let page = ask(left, rows.last().map(|row| row.id)).await?;
        let is_last = page.len() < left as usize;
        rows.extend(page);
        if is_last {
            return Ok(rows);
        }
    }
}

fn path(to: Option<&str>, fate: Option<Fate>, before: Option<u64>, limit: u32) -> String {
    let mut path = format!("/api/v1/outbox?limit={limit}");
    let mut add = |name: &str, value: &str| path.push_str(&format!("&{name}={}", escaped(value)));
    if let Some(to) = to {
        add("to", to);
    }
    if let Some(fate) = fate {
        add("fate", fate.name());
    }
    if let Some(before) = before {
        add("before", &before.to_string());
    }
    path
}

fn shown(rows: &[OutboxView], now: Timestamp) -> String {
    if rows.is_empty() {
        return "nothing waits, and nothing waited lately".to_owned();
    }
    let mut table = table(["no.", "to", "what", "of", "for", "fate", "tried", "next", "why"]);
    for row in rows {
        table.add_row([
            row.id.to_string(),
            short(&row.to),
            clean(&row.verb),
            or_dash(&row.datatype),
            or_dash(&row.user),
            painted(&row.fate),
            row.attempts.to_string(),
            when(row, now),
            or_dash(&row.detail),
        ]);
    }
    let waiting = rows.iter().filter(|row| row.fate == Fate::Waiting.name()).count();
    format!("{table}\n{} shown, {waiting} waiting", rows.len())
}

fn painted(fate: &str) -> String {
    match Fate::named(fate) {
        Some(Fate::Delivered) => colour(fate, AnsiColor::Green),
        Some(Fate::Waiting) => colour(fate, AnsiColor::Yellow),
        _ => clean(fate),
    }
}

/// When it is tried again, or how long ago it ended.
fn when(row: &OutboxView, now: Timestamp) -> String {
    if let Some(ended) = row.ended_at {
        return format!("ended {}", ago(now, ended));
    }
    let left = row.next_at.map_or(0, |next| next.as_millisecond().saturating_sub(now.as_millisecond()));
    match u64::try_from(left) {
        Ok(0) | Err(_) => "now".to_owned(),
        Ok(left) => format!("in {}", span(left)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::admin::testing::peer;

    fn row(id: u64, fate: Fate) -> OutboxView {
        OutboxView {
            id,
            to: peer().to_string(),
            verb: "create".to_owned(),
            datatype: "compute".to_owned(),
            user: String::new(),
            bytes: 10,
            created_at: Timestamp::UNIX_EPOCH,
            attempts: 2,
            next_at: Some(Timestamp::from_second(70).unwrap()),
            fate: fate.name().to_owned(),
            ended_at: (fate != Fate::Waiting).then_some(Timestamp::UNIX_EPOCH),
            detail: "aw\u{1b}ay".to_owned(),
        }
    }

    #[test]
    fn what_waits_says_when_it_is_tried_again_and_what_ended_when() {
        let now = Timestamp::from_second(10).unwrap();
        let text = shown(&[row(2, Fate::Waiting), row(1, Fate::Delivered)], now);
        assert!(text.contains("in 1 min") && text.contains("ended 10 s ago"), "{text}");
        assert!(text.contains("aw\u{fffd}ay") && text.ends_with("2 shown, 1 waiting"), "{text}");
        assert_eq!(when(&row(3, Fate::Waiting), Timestamp::from_second(99).unwrap()), "now");
    }

    #[tokio::test]
    async fn pages_are_followed_to_the_oldest_or_the_limit() {
        let held = u64::from(PAGE_MAX) + 3;
        for limit in [1, PAGE_MAX, PAGE_MAX + 1, PAGE_MAX + 3, PAGE_MAX + 9] {
            let rows = pages(limit, async |limit: u32, before: Option<u64>| {
                let ids = (1..before.unwrap_or(held + 1)).rev().take(limit as usize);
                Ok(ids.map(|id| row(id, Fate::Delivered)).collect())
            });
            let rows = rows.await.unwrap();
            assert_eq!(rows.len() as u64, held.min(limit.into()), "{limit}");
            assert!(rows.iter().zip((1..=held).rev()).all(|(row, id)| row.id == id), "{limit}");
        }
    }

    #[test]
    fn the_question_holds_what_was_asked_for() {
        assert_eq!(path(None, None, None, 7), "/api/v1/outbox?limit=7");
        let whole = path(Some("bus"), Some(Fate::Refused), Some(9), 500);
        assert_eq!(whole, "/api/v1/outbox?limit=500&to=bus&fate=refused&before=9");
    }

    #[test]
    fn every_fate_has_its_word_and_no_other_has() {
        assert!(Fate::ALL.into_iter().all(|of| fate(of.name()) == Ok(of)));
        assert!(fate("lost").is_err());
    }
}
