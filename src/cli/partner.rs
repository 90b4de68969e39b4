//! `muster partner add|rm|ls`: whom we share resources with.

use actors::view::RelationView;
use clap::{Subcommand, ValueEnum};
use hyper::Method;
use jiff::Timestamp;
use protocol::relation::Relation;
use serde_json::json;

use super::{
    Context,
    client::escaped,
    exit::{Exit, Failure},
    output::{ago, or_dash, say, table},
};

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a peer our partner: it hears of resources that it may see, and what it offers is listed here.
    Add {
        /// Its peer id; in a demo its name too.
        peer: String,
        /// What we call it [default: the name that it has].
        #[arg(long)]
        name: Option<String>,
        /// What it is to be; whoever is on the blacklist is refused and cut off at once.
        #[arg(long, value_enum, default_value_t)]
        relation: Choice,
    },
    /// Make a peer a stranger again.
    Rm {
        /// Its peer id; in a demo its name too.
        peer: String,
    },
    /// List partners, known peers and the blacklist.
    Ls,
}

/// What a peer can be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Choice {
    /// Changes of resources go there and come from there.
    #[default]
    Partner,
    /// It is asked when we search among those that we know.
    Known,
    /// It is refused.
    Blacklist,
}

impl Choice {
    const fn relation(self) -> Relation {
        match self {
            Self::Partner => Relation::Partner,
            Self::Known => Relation::Known,
            Self::Blacklist => Relation::Blacklist,
        }
    }
}

/// Does it and says so.
pub(super) async fn run(verb: &Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::Add { peer, name, relation } => {
            let peer = context.peer(peer)?;
            let mut wish = json!({ "relation": relation.relation() });
            if let Some(name) = name {
                wish["name"] = json!(name);
            }
            context.client_that_changes()?.send(Method::PUT, &path(&peer), Some(&wish)).await?;
            say(&added(&peer, *relation))
        }
        Verb::Rm { peer } => {
            let peer = context.peer(peer)?;
            context.client_that_changes()?.send(Method::DELETE, &path(&peer), None).await.map_err(unknown)?;
            say(&format!("{peer} is a stranger from now on"))
        }
        Verb::Ls => {
            let rows: Vec<RelationView> = context.client()?.get("/api/v1/partners").await?;
            context.output.list(&rows, |rows| shown(rows, Timestamp::now()))
        }
    }
}

fn path(peer: &str) -> String {
    format!("/api/v1/partners/{}", escaped(peer))
}

fn unknown(failure: Failure) -> Failure {
    match failure.exit {
        Exit::NotFound => failure.next("`muster partner ls` lists them"),
        _ => failure,
    }
}

fn added(peer: &str, choice: Choice) -> String {
    match choice {
        Choice::Partner => format!("{peer} is our partner; it takes what we tell once we are a partner there too"),
        Choice::Known => format!("{peer} is known to us"),
        Choice::Blacklist => format!("{peer} is on the blacklist until `muster partner rm {peer}`"),
    }
}

fn shown(rows: &[RelationView], now: Timestamp) -> String {
    if rows.is_empty() {
        return "nobody is a partner, known or on the blacklist; `muster partner add PEER` changes that".to_owned();
    }
    let mut table = table(["name", "relation", "since", "peer id"]);
    for row in rows {
        table.add_row([
            or_dash(&row.name),
            row.relation.name().to_owned(),
            ago(now, row.changed_at),
            row.peer_id.to_string(),
        ]);
    }
    let partners = rows.iter().filter(|row| row.relation == Relation::Partner).count();
    let plural = if partners == 1 { "" } else { "s" };
    format!("{table}\n{partners} partner{plural} of {} in all", rows.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::peer;

    fn row(relation: Relation) -> RelationView {
        RelationView { peer_id: peer(), name: "ly\u{1b}on".to_owned(), relation, changed_at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn partners_are_listed_with_what_they_are_and_counted() {
        let text = shown(&[row(Relation::Partner), row(Relation::Blacklist)], Timestamp::UNIX_EPOCH);
        assert!(text.contains("blacklist") && text.contains("ly\u{fffd}on"), "{text}");
        assert!(text.ends_with("1 partner of 2 in all"), "{text}");
    }

    #[test]
    fn nobody_is_said_in_words() {
        assert!(shown(&[], Timestamp::UNIX_EPOCH).contains("partner add"));
    }

    #[test]
    fn what_was_done_is_said_with_how_to_take_it_back() {
        assert!(added("12D3", Choice::Partner).contains("partner there too"));
        assert!(added("12D3", Choice::Blacklist).contains("partner rm 12D3"));
        for choice in Choice::value_variants() {
            let name = choice.to_possible_value().map(|value| value.get_name().to_owned());
            assert_eq!(name.as_deref(), Some(choice.relation().name()));
        }
    }
}
