//! Supervision: how actors are started, reached, watched, restarted and stopped.

use std::time::Duration;

use serde::{Deserialize, Serialize};

mod address;
mod children;
mod clock;
mod histogram;
mod life;
mod mailbox;
mod path;
pub mod restarts;
pub mod supervisor;
mod vitals;

pub use address::{Address, Class, Envelope, Reply, Shed};
pub use children::{ChildSpec, Children, Due, Failure, Outcome, StartError};
pub use clock::{Chance, Clock};
pub use life::{Hold, Seat, Timer};
pub use path::Path;
pub use supervisor::{Ended, Root, Supervisor};
pub use vitals::Tree;

/// How a tree is supervised, where a child has no rule of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Most restarts of one child within [`Settings::restarts_within`].
    pub restarts_max: u32,
    /// The stretch in which restarts are counted.
    #[serde(with = "protocol::time::text")]
    pub restarts_within: Duration,
    /// Pause before the first restart.
    #[serde(with = "protocol::time::text")]
    pub pause_first: Duration,
    /// Longest pause before a restart; each is twice the one before.
    #[serde(with = "protocol::time::text")]
    pub pause_max: Duration,
    /// An actor that is longer in one handler is shown as stuck.
    #[serde(with = "protocol::time::text")]
    pub stuck_after: Duration,
    /// How long a `pre_start` may take before it has failed.
    #[serde(with = "protocol::time::text")]
    pub start_within: Duration,
    /// How long an actor may take to stop before it is killed.
    #[serde(with = "protocol::time::text")]
    pub stop_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let restarts = restarts::Settings::default();
        Self {
            restarts_max: restarts.restarts_max,
            restarts_within: restarts.within,
            pause_first: restarts.pause_first,
            pause_max: restarts.pause_max,
            stuck_after: Duration::from_secs(1),
            start_within: Duration::from_secs(10),
            stop_within: Duration::from_secs(5),
        }
    }
}

impl Settings {
    /// The budget of a child without one of its own.
    #[must_use]
    pub fn restarts(&self) -> restarts::Settings {
        restarts::Settings {
            restarts_max: self.restarts_max,
            within: self.restarts_within,
            pause_first: self.pause_first,
            pause_max: self.pause_max,
            ..restarts::Settings::default()
        }
    }
}
