//! The watcher: ends the members and removes the folder when the demo was killed.
//!
//! It leads the process group of the members, so that the group has its name for as long as anybody watches it, and it
//! reads a pipe to which only the demo has the other end. The kernel closes that end however the demo dies.

use std::{
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};

use super::{
    Error, process,
    state::{Folder, Lock},
};

/// How long the members may take to die of SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Looks at a lock that somebody else holds, a verb for a moment or the next demo for long.
const LOCK_TRIES_MAX: u32 = 20;

/// Pause between two of them.
const LOCK_TRY_EVERY: Duration = Duration::from_millis(50);

/// Waits for the demo's end, then sees to it that nothing is left.
///
/// # Errors
/// When a member outlives SIGKILL, or the folder cannot be removed.
pub(crate) fn run(folder: PathBuf) -> Result<(), Error> {
    let _deaf = deaf().map_err(Error::io("ignore signals"))?;
    wait_for_end(io::stdin().lock());
    let folder = Folder::at(folder);
    let group = nix::unistd::getpgrp().as_raw();
    process::kill_all(|| process::in_group(group), KILL_PATIENCE)
        .map_err(Error::io("end the members of a demo that was killed"))?;
    match lock(&folder)? {
        Some(lock) => folder.remove(lock),
        // Removed by the demo itself, or taken by the next one, which sweeps it.
        None => Ok(()),
    }
}

/// Takes the signals that end whole sessions and does nothing with them: the watcher outlives the demo on purpose.
fn deaf() -> io::Result<[tokio::signal::unix::Signal; 3]> {
    Ok([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?])
}

/// Nothing is ever written to the pipe; all that can come is its end.
fn wait_for_end(mut pipe: impl Read) {
    let mut nothing = [0; 64];
    loop {
        match pipe.read(&mut nothing) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn lock(folder: &Folder) -> Result<Option<Lock>, Error> {
    for _ in 0..LOCK_TRIES_MAX {
        if !folder.path().exists() {
            return Ok(None);
        }
        if let Some(lock) = folder.try_lock()? {
            return Ok(Some(lock));
        }
        std::thread::sleep(LOCK_TRY_EVERY);
    }
    Ok(None)
}
