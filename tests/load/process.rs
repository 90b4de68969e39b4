//! Processes, and what the kernel says of them.

use std::{fs, path::Path, time::Duration};

use crate::broken::{Broken, Outcome, While};

/// Ticks of the kernel's accounting per second, in every Linux that tells them to programs.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time that all threads of a process have used, in user and kernel mode.
///
/// # Errors
/// When there is no such process.
pub(crate) fn cpu(pid: u32) -> Outcome<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).when(format!("reading the stat of process {pid}"))?;
    ticks(&stat)
        .map(|ticks| Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
        .ok_or_else(|| Broken::new(format!("the stat of process {pid} cannot be read")))
}

/// The sum of `utime` and `stime`. The program's name stands in brackets and may hold blanks, so it is passed from behind.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// Memory of a process that is in RAM, KiB.
///
/// # Errors
/// When there is no such process.
pub(crate) fn rss_kib(pid: u32) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).when(format!("reading the status of {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|number| number.trim().parse().ok());
    kib.ok_or_else(|| Broken::new(format!("process {pid} has no memory")))
}

/// Bytes of all files below a folder, KiB.
pub(crate) fn folder_kib(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_kib(&entry.path()),
        Ok(metadata) => metadata.len().div_ceil(1024),
        // It went away meanwhile, as a database's journal does.
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
