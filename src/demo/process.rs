//! Processes as the kernel tells of them: who is in a group, who belongs to a demo's folder.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Pause between two looks at processes that should end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A process that can still do something: zombies are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: i32,
    /// Its process group.
    pub(crate) group: i32,
    /// What it was started with, its own name first.
    pub(crate) args: Vec<OsString>,
}

impl Process {
    /// It is a member run from a file in this demo folder.
    ///
    /// The command line is looked at and not a recorded process id alone, because ids are used again.
    fn is_member_of(&self, folder: &Path) -> bool {
        self.args.get(1).is_some_and(|verb| verb == "run")
            && self.args.iter().skip(2).any(|arg| {
                let path = Path::new(arg);
                path.is_absolute() && path.starts_with(folder) && path != folder
            })
    }
}

/// Every process that the kernel shows, in no order; empty where there is no `/proc`.
fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(one).collect()
}

/// What the kernel says of one process; nothing when it is gone or a zombie.
fn one(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let group = living_group(&stat)?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(Process { pid, group, args: arguments(&line) })
}

/// The process group in a line of `/proc/<pid>/stat`, unless the process is dead.
///
/// The program's name stands in brackets and may itself contain brackets and blanks, so it is skipped from behind.
fn living_group(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    (!matches!(state, "Z" | "X" | "x")).then_some(group)
}

/// The arguments in `/proc/<pid>/cmdline`, each ended by a zero byte.
fn arguments(line: &[u8]) -> Vec<OsString> {
    let line = line.strip_suffix(&[0]).unwrap_or(line);
    line.split(|byte| *byte == 0).map(|arg| OsString::from_vec(arg.to_vec())).collect()
}

/// The processes in this group, this process not among them.
pub(crate) fn in_group(group: i32) -> Vec<Process> {
    all().into_iter().filter(|process| process.group == group && process.pid != own()).collect()
}

/// The members that were run from files in this folder.
pub(crate) fn members_of(folder: &Path) -> Vec<Process> {
    all().into_iter().filter(|process| process.is_member_of(folder) && process.pid != own()).collect()
}

/// The process with this id is `muster` with this verb.
pub(crate) fn is_running(pid: i32, verb: &str) -> bool {
    one(pid).is_some_and(|process| process.args.iter().any(|arg| arg.as_bytes() == verb.as_bytes()))
}

/// Kills all that `look` finds, stopped ones too, until it finds none.
///
/// # Errors
/// When some are still there after `patience`.
pub(crate) fn kill_all(look: impl Fn() -> Vec<Process>, patience: Duration) -> io::Result<usize> {
    let deadline = Instant::now() + patience;
    let mut killed = 0;
    loop {
        let found = look();
        if found.is_empty() {
            return Ok(killed);
        }
        killed = killed.max(found.len());
        if Instant::now() >= deadline {
            let pids: Vec<_> = found.iter().map(|process| process.pid).collect();
            return Err(io::Error::other(format!("processes {pids:?} outlive SIGKILL")));
        }
        for process in found {
            // One that ended meanwhile is what was wanted.
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// This process's id as the kernel's calls want it.
fn own() -> i32 {
    nix::unistd::getpid().as_raw()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{os::unix::process::CommandExt, process::Command};

    use super::*;

    fn process(args: &[&str]) -> Process {
        Process { pid: 1, group: 1, args: args.iter().map(OsString::from).collect() }
    }

    #[test]
    fn only_a_member_run_from_the_folder_belongs_to_it() {
        let folder = Path::new("/tmp/muster-demo-0");
        for (args, belongs) in [
            (&["muster", "run", "--config", "/tmp/muster-demo-0/paris/muster.toml"][..], true),
            (&["muster", "run", "--config", "/tmp/muster-demo-01/paris/muster.toml"], false),
            (&["muster", "run", "--config", "/tmp/muster-demo-0"], false),
            (&["less", "/tmp/muster-demo-0/paris.log"], false),
            (&["tail", "run", "paris.log"], false),
            (&["muster"], false),
        ] {
            assert_eq!(process(args).is_member_of(folder), belongs, "{args:?}");
        }
    }

    #[test]
    fn the_group_is_read_past_any_program_name() {
        assert_eq!(living_group("12 (muster) S 1 77 3 0"), Some(77));
        assert_eq!(living_group("12 (a) Z 9) T 1 78 3 0"), Some(78));
        assert_eq!(living_group("12 (muster) Z 1 77 3 0"), None);
        assert_eq!(living_group("nonsense"), None);
    }

    #[test]
    fn a_stopped_process_of_the_group_is_killed() {
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
        assert_eq!(in_group(pid).len(), 1);
        assert_eq!(kill_all(|| in_group(pid), Duration::from_secs(5)).unwrap(), 1);
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn nobody_to_kill_is_no_error() {
        assert_eq!(kill_all(Vec::new, Duration::ZERO).unwrap(), 0);
    }
}
