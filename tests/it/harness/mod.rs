//! Federations of real processes for tests.
//!
//! A [`Federation`] owns a temporary folder, the ports of its members and their processes. It is awaited by conditions
//! with deadlines, never by sleeping; it kills all it started when it is dropped, and shows what its members logged when
//! the test failed. Should the test itself be killed, the kernel kills the members: they are told whose they are.

mod browser;
mod collector;
mod federation;
mod http;
mod nats;
mod network;
mod ports;
mod postgres;
mod process;
mod terminal;
mod way;

pub(crate) use browser::Browser;
pub(crate) use collector::{Collected, Collector};
pub(crate) use federation::{Federation, Member, Spec, private_file, ticks};
pub(crate) use nats::Nats;
pub(crate) use network::{Network, Place, Side, skip};
pub(crate) use ports::Port;
pub(crate) use postgres::Postgres;
pub(crate) use process::{
    Ended, command, muster, muster_in, shown_mode, snapshot, until_free, wait_status, wait_with_deadline,
};
pub(crate) use terminal::Terminal;
pub(crate) use way::Way;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Long enough for a loaded machine with two cores; nothing here waits that long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The time between two heartbeats in these federations: page 4's 20 s made short.
pub(crate) const TICK: Duration = Duration::from_secs(2);

/// Waits until `look` finds something, and says what was waited for when it does not in time.
#[track_caller]
pub(crate) fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < patience, "waited {patience:?} in vain until {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until `look` is true.
#[track_caller]
pub(crate) fn until_true(what: &str, patience: Duration, mut look: impl FnMut() -> bool) {
    until(what, patience, || look().then_some(()));
}

/// A path of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
