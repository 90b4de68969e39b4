//! `muster --demo down`: ends the demo from another terminal.

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};

use super::super::{
    exit::{Exit, Failure},
    output::say,
};
use crate::demo::{
    Error,
    control::{self, Request},
    process,
    state::{Folder, State},
};

/// Pause between two looks at whether it is gone.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a demo that hears a signal may take: 12 s to leave, 5 s to kill.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(20);

/// How long the watcher may take after a demo was killed.
const WATCHER_PATIENCE: Duration = Duration::from_secs(10);

/// Ends the demo; harder when it does not listen.
///
/// # Errors
/// When no demo runs, or something is left behind.
pub(super) async fn run() -> Result<(), Failure> {
    let folder = Folder::usual();
    let demo = match folder.find() {
        Ok(demo) => demo,
        // Its keys are still being made; it listens already.
        Err(Error::Starting { pid }) => State { pid, started: jiff::Timestamp::now(), members: Vec::new() },
        Err(error) => return Err(error.into()),
    };
    // A demo stopped by Ctrl-Z hears nothing until it goes on.
    send(&demo, Signal::SIGCONT);
    match control::ask(&folder, &demo, &Request::Down).await {
        Ok(_) if is_gone(&folder) => return say("the demo is over; nothing is left of it"),
        Ok(_) => {}
        Err(error) => eprintln!("{error}; it is ended by signals now"),
    }
    for (signal, patience) in [(Signal::SIGTERM, SIGNAL_PATIENCE), (Signal::SIGKILL, WATCHER_PATIENCE)] {
        send(&demo, signal);
        if wait_gone(&folder, patience).await {
            return say("the demo is over; nothing is left of it");
        }
    }
    Err(Failure::new(Exit::Failed, "something of the demo is left").why(folder.path().display().to_string()))
}

/// Signals the demo, when its process id still means it; a stopped one goes on to hear it.
fn send(demo: &State, signal: Signal) {
    let Ok(pid) = i32::try_from(demo.pid) else { return };
    if pid > 1 && process::is_running(pid, "demo") {
        let _ = kill(Pid::from_raw(pid), signal);
        let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
    }
}

async fn wait_gone(folder: &Folder, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if is_gone(folder) {
            return true;
        }
        sleep(LOOK_EVERY).await;
    }
    is_gone(folder)
}

/// Nobody holds the folder, and what was left in it is removed.
fn is_gone(folder: &Folder) -> bool {
    matches!(folder.find(), Err(Error::NotRunning { .. }))
}
