//! Which settings may change while a member runs.

use std::collections::BTreeSet;

use protocol::behaviour;

use super::{Settings, contradictions::contradictions};

/// Settings, and sections ending in a dot, that may change while a member runs; the others need a restart.
const LIVE: [&str; 12] = [
    "pool.",
    "score.",
    "alerts.",
    "search.",
    "gate.sessions_per_subnet",
    "gate.sessions_in_all",
    "behaviour.heartbeats",
    "behaviour.publishes",
    "behaviour.gets",
    "behaviour.searches",
    "behaviour.bandwidth_probes",
    "log.level",
];

/// A change of this setting is gone by without a restart.
pub(crate) fn is_live(key: &str) -> bool {
    LIVE.iter().any(|live| key == *live || (live.ends_with('.') && key.starts_with(live)))
}

impl Settings {
    /// These settings, with all of `new` that may change while a member runs: [`LIVE`].
    pub(crate) fn with_live(&self, new: &Self) -> Self {
        let mut live = self.clone();
        live.pool = new.pool.clone();
        live.score = new.score.clone();
        live.alerts = new.alerts.clone();
        live.search = new.search.clone();
        live.gate.sessions_per_subnet = new.gate.sessions_per_subnet;
        live.gate.sessions_in_all = new.gate.sessions_in_all;
        live.behaviour = behaviour::Settings { peers_max: self.behaviour.peers_max, ..new.behaviour.clone() };
        live.log.level.clone_from(&new.log.level);
        live
    }

    /// What of these settings does not go together.
    pub(crate) fn contradictions(&self) -> Vec<String> {
        contradictions(self, &BTreeSet::new()).into_iter().map(|found| found.why.into_owned()).collect()
    }
}
