//! `muster audit`: who changed what and when.

use super::{
    Context,
    exit::Failure,
    output::{clean, table},
};
use crate::admin::Entry;

/// Arguments of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many, the newest first.
    #[arg(long, default_value_t = 50, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
}

/// Asks and shows.
pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let path = format!("/api/v1/audit?limit={}", args.limit);
    let entries: Vec<Entry> = context.client()?.get(&path).await?;
    context.output.list(&entries, shown)
}

fn shown(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "nobody has changed anything".to_owned();
    }
    let mut table = table(["#", "at", "who", "role", "what", "outcome"]);
    for entry in entries {
        table.add_row([
            entry.seq.to_string(),
            format!("{:.3}", entry.at),
            clean(&entry.who),
            entry.role.name().to_owned(),
            clean(&format!("{} {}", entry.method, entry.path)),
            outcome(entry.status),
        ]);
    }
    table.to_string()
}

fn outcome(status: u16) -> String {
    match status {
        200..300 => "done".to_owned(),
        403 => "not allowed".to_owned(),
        404 => "not found".to_owned(),
        400..500 => format!("refused ({status})"),
        _ => format!("failed ({status})"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::admin::Role;

    #[test]
    fn who_did_what_is_shown_and_nothing_moves_the_cursor() {
        let of = |path: &str, status| Entry {
            seq: 1,
            at: Timestamp::UNIX_EPOCH,
            who: "ops".to_owned(),
            role: Role::Operator,
            method: "PUT".to_owned(),
            path: path.to_owned(),
            status,
        };
        let text = shown(&[of("/api/v1/drain", 204), of("/api/v1/\u{1b}[2J", 403), of("/x", 504), of("/x", 422)]);
        for told in ["PUT /api/v1/drain", "done", "not allowed", "failed (504)", "refused (422)"] {
            assert!(text.contains(told), "{told}: {text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert_eq!(shown(&[]), "nobody has changed anything");
    }
}
