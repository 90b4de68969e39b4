//! `muster token add|rm|ls`: who may do what at the admin endpoint.

use bytes::Bytes;
use clap::Subcommand;
use hyper::Method;
use jiff::Timestamp;
use serde_json::json;

use super::{
    Context,
    client::escaped,
    exit::Failure,
    output::{ago, clean, say, table},
};
use crate::admin::{NewToken, Role, TokenView};

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a token; it is shown this once, and only its hash is kept.
    Add {
        /// Whose it is: 1 to 32 of a-z, 0-9, "-", "_" and ".".
        name: String,
        /// What it is good for: reading; also bans, drains, partners, resources; also tokens and the configuration.
        #[arg(long, value_parser = role, value_name = "reader|operator|admin")]
        role: Role,
    },
    /// Take a token back, at once.
    Rm {
        /// Its name.
        name: String,
    },
    /// List the tokens.
    Ls,
}

fn role(name: &str) -> Result<Role, String> {
    Role::named(name).ok_or_else(|| format!("expected {}", Role::ALL.map(Role::name).join(", ")))
}

/// Does it and says so.
pub(super) async fn run(verb: &Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::Add { name, role } => {
            let wish = Bytes::from(json!({ "name": name, "role": role }).to_string());
            let client = context.client_that_changes()?;
            let made: NewToken = client.change(Method::POST, "/api/v1/tokens", Some(wish)).await?;
            context
                .output
                .one(&made, |made| format!("{}\n\nIt is not shown again; give it as MUSTER_ADMIN_TOKEN.", made.token))
        }
        Verb::Rm { name } => {
            let path = format!("/api/v1/tokens/{}", escaped(name));
            context.client_that_changes()?.send(Method::DELETE, &path, None).await?;
            say(&format!("the token {} is good for nothing any more", clean(name)))
        }
        Verb::Ls => {
            let tokens: Vec<TokenView> = context.client()?.get("/api/v1/tokens").await?;
            context.output.list(&tokens, |tokens| shown(tokens, Timestamp::now()))
        }
    }
}

fn shown(tokens: &[TokenView], now: Timestamp) -> String {
    let mut table = table(["name", "role", "made"]);
    for token in tokens {
        let made = token.created_at.map_or_else(|| "data/admin.token".to_owned(), |at| ago(now, at));
        table.add_row([clean(&token.name), token.role.name().to_owned(), made]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_listed_with_their_roles_and_never_shown() {
        let of = |name: &str, role, created_at| TokenView { name: name.to_owned(), role, created_at };
        let tokens = [of("admin", Role::Admin, None), of("ops", Role::Operator, Some(Timestamp::UNIX_EPOCH))];
        let text = shown(&tokens, Timestamp::UNIX_EPOCH);
        assert!(text.contains("data/admin.token") && text.contains("operator") && text.contains("ago"), "{text}");
    }

    #[test]
    fn a_role_is_one_of_three() {
        assert_eq!(role("operator"), Ok(Role::Operator));
        assert_eq!(role("root"), Err("expected reader, operator, admin".to_owned()));
    }
}
