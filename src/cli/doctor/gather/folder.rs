//! The member's folder and the machine under it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use actors::host::Host;
use nix::sys::statvfs::statvfs;
use protocol::alerts::Topic;
use store::Store;

use super::{
    super::facts::{Asked, Database, Descriptors, Disk, Folder, Lock, Memory, Mode},
    network,
};
use crate::{
    cli::exit::Failure,
    config::Config,
    keys::{self, AdminToken, FileError, Hold},
    tree,
};

/// Whose the folder is and who may what.
pub(super) fn look(path: &Path) -> Folder {
    let found = match fs::metadata(path) {
        Ok(found) => Ok(Some(Mode { is_folder: found.is_dir(), owner: found.uid(), bits: found.mode() & 0o7777 })),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause.to_string()),
    };
    Folder { path: path.to_owned(), found, us: nix::unistd::geteuid().as_raw() }
}

/// The peer id of the identity.
pub(super) fn identity(config: &Config) -> Result<String, Failure> {
    Ok(keys::identity(&config.key())?.peer_id().to_string())
}

/// The fingerprint of the network's key, which names it without telling it; and of the next one, while it is replaced.
pub(super) fn network_key(config: &Config) -> Option<Result<String, Failure>> {
    let path = config.psk()?;
    Some(keys::network_key(&path).map(|key| key.fingerprints().join(", next ")).map_err(Failure::from))
}

/// Whether there is an admin token that can be used.
pub(super) fn token(data: &Path) -> Result<bool, Failure> {
    match AdminToken::read(data) {
        Ok(_) => Ok(true),
        Err(FileError::Missing { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Who holds the folder; where nobody does, nobody can while the first part is kept.
pub(super) fn hold(data: &Path) -> (Option<Hold>, Lock) {
    match Hold::look(data) {
        Ok(Hold::Held(pid)) => (None, Lock::Held(pid)),
        Ok(hold) => (Some(hold), Lock::Free),
        Err(error) => (None, Lock::Unknown(error.to_string())),
    }
}

/// The file system on which the data is, or will be.
pub(super) fn disk(data: &Path) -> Asked<Disk> {
    let found = statvfs(&nearest(data)).map_err(|cause| cause.to_string())?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
    Ok(Disk { free: bytes(found.blocks_available()), total: bytes(found.blocks()) })
}

/// The folder itself, or the first above it that is there.
fn nearest(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|path| path.exists() && !path.as_os_str().is_empty());
    there.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// The host's memory, and what the process of this id has of it.
pub(super) fn memory(data: &Path, pid: Option<u32>) -> Memory {
    let share = Host::of(data.to_owned()).look().get(&Topic::Memory).copied();
    let status = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
    Memory { share, own: status.and_then(|status| resident(&status)) }
}

/// Of `VmRSS:    123456 kB`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
}

/// Open files of the process of this id; without one what a start from here might have.
pub(super) fn descriptors(pid: Option<u32>) -> Asked<Descriptors> {
    let of = pid.map_or("self".to_owned(), |pid| pid.to_string());
    let limits = fs::read_to_string(format!("/proc/{of}/limits")).map_err(|cause| cause.to_string())?;
    let limit = limit(&limits).ok_or_else(|| format!("/proc/{of}/limits names no open files"))?;
    let open = pid.and_then(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok());
    Ok(Descriptors { open: open.and_then(|open| u64::try_from(open.count()).ok()), limit })
}

/// Of `Max open files            1024                 524288               files`: the first, which counts.
fn limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        soft => soft.parse().ok(),
    }
}

/// The database, where nobody holds the folder.
pub(super) async fn database(config: &Config, is_free: bool) -> Database {
    let url = &config.settings.store.url;
    if !url.is_empty() {
        return Database::Server(network::urls(url, network::POSTGRES_PORT).await);
    }
    if !is_free {
        return Database::InUse;
    }
    let path = config.data().join(tree::DATABASE);
    let began = Instant::now();
    let found = Store::examine(&path).await;
    let found = found.map(|found| (found, began.elapsed())).map_err(|error| tree::unusable(&error));
    Database::File { path, found }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_the_system_tells_of_a_process_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(limit(limits), Some(1_024));
        assert_eq!(limit(&limits.replace("1024  ", "unlimited")), Some(u64::MAX));
        assert_eq!(limit("Max processes 7 7 processes"), None);
        assert_eq!(resident("Name:\tmuster\nVmRSS:\t   2048 kB\n"), Some(2_097_152));
        assert_eq!(resident("Name:\tmuster\n"), None);
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_on_the_disk_of_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(nearest(&folder.path().join("a/b")), folder.path());
        assert_eq!(nearest(Path::new("a/b/that/is/not/there")), Path::new("."));
        assert!(disk(&folder.path().join("data")).unwrap().total > 0);
    }

    #[test]
    fn our_own_process_has_memory_and_open_files() {
        let own = std::process::id();
        assert!(memory(Path::new("/"), Some(own)).own.unwrap() > 0);
        assert!(descriptors(Some(own)).unwrap().open.unwrap() > 2);
        assert_eq!(descriptors(None).unwrap().open, None);
    }
}
