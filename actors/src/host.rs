//! The host: how much of its processors, its memory and the data's file system is in use. Reads files, so it runs in tasks
//! that may wait.

use std::{collections::BTreeMap, path::PathBuf};

use protocol::alerts::Topic;
use sysinfo::{DiskRefreshKind, Disks, MemoryRefreshKind, System};

/// The machine, as far as its figures go.
pub struct Host {
    /// None where the system tells nothing of itself.
    system: Option<System>,
    data: PathBuf,
    has_looked: bool,
}

impl Host {
    /// Of the machine we run on, with the file system of this folder.
    #[must_use]
    pub fn of(data: PathBuf) -> Self {
        Self { system: System::new().ok(), data, has_looked: false }
    }

    /// Shares in use, 0 to 1. The processors' is that since the look before, so the first has none.
    pub fn look(&mut self) -> BTreeMap<Topic, f64> {
        let (cpu, memory) = self.system_figures().unwrap_or_default();
        let figures = [(Topic::Cpu, cpu), (Topic::Memory, memory), (Topic::Disk, self.disk())];
        figures.into_iter().filter_map(|(topic, figure)| Some((topic, figure?))).collect()
    }

    fn system_figures(&mut self) -> Option<(Option<f64>, Option<f64>)> {
        let system = self.system.as_mut()?;
        system.refresh_cpu_usage();
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let cpu = self.has_looked.then(|| f64::from(system.global_cpu_usage()) / 100.0);
        self.has_looked = true;
        let (total, free) = match system.cgroup_limits() {
            Some(limits) => (limits.total_memory, limits.free_memory),
            None => (system.total_memory(), system.available_memory()),
        };
        Some((cpu, used(total, free)))
    }

    /// Of the file system that holds the data: the one whose mount point is the longest beginning of the folder's path.
    fn disk(&self) -> Option<f64> {
        let data = self.data.canonicalize().ok()?;
        let disks = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_storage()).ok()?;
        let holds = (&disks).into_iter().filter(|disk| data.starts_with(disk.mount_point()));
        let disk = holds.max_by_key(|disk| disk.mount_point().as_os_str().len())?;
        used(disk.total_space(), disk.available_space())
    }
}

/// The share that is not free; nothing of nothing.
fn used(total: u64, free: u64) -> Option<f64> {
    // Bytes of one machine, far below 2^53.
    #[expect(clippy::cast_precision_loss)]
    (total > 0).then(|| 1.0 - free.min(total) as f64 / total as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_tells_shares_between_nothing_and_all() {
        let mut host = Host::of(std::env::temp_dir());
        assert!(!host.look().contains_key(&Topic::Cpu), "there is nothing to measure the first look against");
        let figures = host.look();
        for topic in [Topic::Memory, Topic::Disk] {
            assert!(figures.get(&topic).is_some_and(|share| (0.0..=1.0).contains(share)), "{topic}: {figures:?}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_disk() {
        assert_eq!(Host::of("/nowhere/at/all".into()).disk(), None);
    }

    #[test]
    fn nothing_of_nothing_is_no_share() {
        assert_eq!((used(0, 0), used(4, 1), used(4, 9)), (None, Some(0.75), Some(0.0)));
    }
}
