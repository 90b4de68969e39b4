//! What a peer is to us: the operator's and the applications' word, kept in the database and never told to others.

use serde::{Deserialize, Serialize};

/// How a peer stands to this organisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// Ourselves.
    #[serde(rename = "self")]
    Own,
    /// It gets our resource events, and its events reach our applications.
    Partner,
    /// We looked it up or named it; it is asked in searches among the known.
    Known,
    /// It is in the network, and no more.
    #[default]
    None,
    /// It is refused at the gate, and its streams are cut.
    Blacklist,
}

impl Relation {
    /// Every relation, in the order of trust.
    pub const ALL: [Self; 5] = [Self::Own, Self::Partner, Self::Known, Self::None, Self::Blacklist];

    /// Its name in the database, the API and the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "self",
            Self::Partner => "partner",
            Self::Known => "known",
            Self::None => "none",
            Self::Blacklist => "blacklist",
        }
    }

    /// The relation of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|relation| relation.name() == name)
    }

    /// Whether a search among the known asks it.
    #[must_use]
    pub const fn is_known(self) -> bool {
        matches!(self, Self::Partner | Self::Known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_relation_is_found_by_its_name_and_written_with_it() {
        for relation in Relation::ALL {
            assert_eq!(Relation::named(relation.name()), Some(relation));
            assert_eq!(serde_json::to_string(&relation).ok(), Some(format!("\"{}\"", relation.name())));
        }
        assert_eq!(Relation::named("friend"), None);
    }
}
