//! Who may do what: each role may do what those before it may.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Reads.
    Reader,
    /// Also runs the member from day to day: bans, drains, partners, resources, plans, restarts of actors.
    Operator,
    /// Also gives and takes tokens, revokes keys, changes the configuration, injects faults where that is on.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub(crate) const ALL: [Self; 3] = [Self::Reader, Self::Operator, Self::Admin];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// Where a change is an admin's alone.
const ADMINS: [&str; 4] = ["/api/v1/chaos", "/api/v1/config", "/api/v1/revocations", "/api/v1/tokens"];

/// Which role a question needs, where it needs a token at all.
pub(super) fn needed(method: &str, path: &str) -> Role {
    let is_below = |place: &str| path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_admins = ADMINS.into_iter().any(is_below);
    match method {
        "get" | "head" | "GET" | "HEAD" => Role::Reader,
        _ if is_admins => Role::Admin,
        _ => Role::Operator,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_is_found_by_its_name_and_may_do_more_than_the_one_before() {
        for role in Role::ALL {
            assert_eq!(Role::named(role.name()), Some(role));
            assert_eq!(serde_json::to_string(&role).ok(), Some(format!("\"{}\"", role.name())));
        }
        assert_eq!(Role::named("root"), None);
        assert!(Role::Reader < Role::Operator && Role::Operator < Role::Admin);
    }

    #[test]
    fn each_change_has_its_role_and_reading_needs_the_least() {
        for (method, path, role) in [
            ("GET", "/api/v1/config", Role::Reader),
            ("HEAD", "/api/v1/status", Role::Reader),
            ("PATCH", "/api/v1/config", Role::Admin),
            ("POST", "/api/v1/tokens", Role::Admin),
            ("POST", "/api/v1/revocations", Role::Admin),
            ("DELETE", "/api/v1/tokens/ops", Role::Admin),
            ("POST", "/api/v1/chaos/actors/root/store", Role::Admin),
            ("POST", "/api/v1/configuration", Role::Operator),
            ("PUT", "/api/v1/drain", Role::Operator),
            ("DELETE", "/api/v1/bans/x", Role::Operator),
            ("BREW", "/", Role::Operator),
        ] {
            assert_eq!(needed(method, path), role, "{method} {path}");
        }
    }
}
