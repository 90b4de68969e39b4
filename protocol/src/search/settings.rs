//! How long a search of ours waits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a search of ours waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A search ends when nothing came for so long; more than a relaying indexer waits for the others.
    #[serde(with = "crate::time::text")]
    pub idle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { idle: Duration::from_secs(5) }
    }
}
