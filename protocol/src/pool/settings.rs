//! How a pool is kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Most members that a node may be told to want.
pub const MAX_INDEXER_MAX: u32 = 100;

/// How the pool is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// With fewer answering members than this, the node says that it is isolated; at least 1.
    pub min_indexer: u32,
    /// How many members a node wants, at most [`MAX_INDEXER_MAX`]; twice as many are the most there ever are, and what an
    /// indexer wants.
    pub max_indexer: u32,
    /// A member that did not answer for the first time after this long no longer counts, and others are sought.
    #[serde(with = "crate::time::text")]
    pub joining_within: Duration,
    /// A probe is answered within this time or failed.
    #[serde(with = "crate::time::text")]
    pub probe_within: Duration,
    /// Most probes at once.
    pub probes_max: u32,
    /// How long a good candidate waits for better ones that are being probed.
    #[serde(with = "crate::time::text")]
    pub settle: Duration,
    /// A candidate joins only with at least this quick score, 0 to 100.
    pub quick_score_min: f64,
    /// Good candidates that are kept warm while the pool is full.
    pub standby: u32,
    /// Time between two probes of a standby: less than after which an idle connection is closed, 30 s, for it to stay warm.
    /// Longer where the heartbeat's ceiling leaves no room for that.
    #[serde(with = "crate::time::text")]
    pub standby_every: Duration,
    /// Time between two probes of a random departed indexer. What a probe found is good for twice as long.
    #[serde(with = "crate::time::text")]
    pub refresh_every: Duration,
    /// Most candidates of which only others spoke.
    pub candidates_max: u32,
    /// Most of them from one source.
    pub candidates_per_source_max: u32,
    /// Most that are taken from one answer.
    pub candidates_per_answer_max: u32,
    /// Most questions for candidates within a minute.
    pub asks_per_minute: u32,
    /// Most indexers remembered over restarts.
    pub remembered_max: u32,
    /// First pause while nobody answers.
    #[serde(with = "crate::time::text")]
    pub backoff_first: Duration,
    /// Longest pause while nobody answers.
    #[serde(with = "crate::time::text")]
    pub backoff_max: Duration,
    /// Longest pause between two questions to the DHT while the pool has room.
    #[serde(with = "crate::time::text")]
    pub dht_every: Duration,
    /// Points by which another must lead to become the referent.
    pub referent_lead: f64,
    /// For how long it must lead.
    #[serde(with = "crate::time::text")]
    pub referent_lead_held: Duration,
    /// How long the first chosen referent may take to answer while another member answers already.
    #[serde(with = "crate::time::text")]
    pub referent_grace: Duration,
    /// How long more members than wanted are kept before the worst goes.
    #[serde(with = "crate::time::text")]
    pub excess_kept: Duration,
    /// How long one that asked us to move is left in peace.
    #[serde(with = "crate::time::text")]
    pub migrated_rest: Duration,
    /// How long an evicted one is not taken again, unless there is nobody else.
    #[serde(with = "crate::time::text")]
    pub evicted_rest: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            min_indexer: 1,
            max_indexer: 5,
            joining_within: Duration::from_secs(2),
            probe_within: Duration::from_secs(8),
            probes_max: 16,
            settle: Duration::from_millis(500),
            quick_score_min: 20.0,
            standby: 1,
            standby_every: Duration::from_secs(25),
            refresh_every: Duration::from_secs(60),
            candidates_max: 64,
            candidates_per_source_max: 16,
            candidates_per_answer_max: 10,
            asks_per_minute: 6,
            remembered_max: 32,
            backoff_first: Duration::from_secs(2),
            backoff_max: Duration::from_secs(30),
            dht_every: Duration::from_secs(120),
            referent_lead: 10.0,
            referent_lead_held: Duration::from_secs(300),
            referent_grace: Duration::from_secs(1),
            excess_kept: Duration::from_secs(300),
            migrated_rest: Duration::from_secs(600),
            evicted_rest: Duration::from_secs(1_800),
        }
    }
}
