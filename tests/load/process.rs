//! Processes, and what the kernel says of them.

use std::{
    fs,
    ops::Range,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

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
    kib_of(pid, "VmRSS:")
}

/// The most that it had in RAM at any time, KiB.
///
/// # Errors
/// When there is no such process.
pub(crate) fn rss_peak_kib(pid: u32) -> Outcome<u64> {
    kib_of(pid, "VmHWM:")
}

fn kib_of(pid: u32, name: &str) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).when(format!("reading the status of {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|number| number.trim().parse().ok());
    kib.ok_or_else(|| Broken::new(format!("process {pid} has no memory")))
}

/// Bytes that went over the loopback of this network so far, each counted once.
///
/// # Errors
/// When the kernel does not tell.
pub(crate) fn loopback_bytes() -> Outcome<u64> {
    let devices = fs::read_to_string("/proc/self/net/dev").when("reading what went over the network")?;
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let bytes = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    bytes.ok_or_else(|| Broken::new("there is no loopback"))
}

/// Files that this process may have open, sockets included; all there are where the kernel does not tell.
pub(crate) fn files_max() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(u64::MAX)
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

/// Which processors a process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cores(Range<usize>);

impl Cores {
    /// Half of them for what is measured, half for what measures it, where there are two or more.
    pub(crate) fn halves() -> (Self, Self) {
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let middle = (count / 2).max(1).min(count);
        if count == 1 { (Self(0..1), Self(0..1)) } else { (Self(0..middle), Self(middle..count)) }
    }

    /// All.
    pub(crate) fn all() -> Self {
        Self(0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }

    /// Confines all threads of a process, those that it will start included. False when the system has no means to.
    ///
    /// The process keeps as many threads as it began with, so it is what it would be elsewhere, only not moved about.
    pub(crate) fn confine(&self, pid: u32) -> bool {
        let list = format!("{}-{}", self.0.start, self.0.end - 1);
        let done = Command::new("taskset")
            .args(["--all-tasks", "--cpu-list", "--pid", &list, &pid.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        done.is_ok_and(|status| status.success())
    }
}
