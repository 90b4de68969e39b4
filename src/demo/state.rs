//! The demo's folder: who is in it, who holds it, and what a dead demo left in it.

use std::{
    fmt,
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Error, process};

/// Name of the file that says who is in the demo.
const STATE: &str = "demo.json";

/// Name of the file whose lock the demo holds while it lives.
const LOCK: &str = "lock";

/// Tries to take the lock before somebody is said to hold it: verbs hold it for a moment when they look.
const LOCK_TRIES_MAX: u32 = 10;

/// Pause between two such tries, and between two looks for a state not yet written.
const LOCK_TRY_EVERY: Duration = Duration::from_millis(50);

/// How long leftover processes may take to die of SIGKILL.
const SWEEP_PATIENCE: Duration = Duration::from_secs(5);

/// Most bytes read of a state: seven members take 3 KiB.
const STATE_BYTES_MAX: u64 = 256 * 1024;

/// What a member of the demo is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// It represents an organisation.
    Node,
    /// It answers heartbeats and searches.
    Indexer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Indexer => "indexer",
        })
    }
}

/// How a member's process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Life {
    /// Its files are made; its process is not started yet.
    Waiting,
    /// Its process runs.
    Running,
    /// Stopped by `pause`.
    Paused,
    /// Killed by `kill`.
    Killed,
    /// It ended by itself.
    Ended,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Killed => "killed",
            Self::Ended => "ended",
        })
    }
}

/// One member of the demo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: String,
    /// What it is.
    pub(crate) role: Role,
    /// Its peer id.
    pub(crate) peer_id: String,
    /// Its DID.
    pub(crate) did: String,
    /// Where its admin endpoint listens.
    pub(crate) admin: SocketAddr,
    /// Where it listens for peers, on loopback.
    pub(crate) p2p_port: u16,
    /// Where its organisation's bus listens, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bus: Option<SocketAddr>,
    /// Its process, 0 while there is none.
    pub(crate) pid: u32,
    /// Its folder, with `muster.toml`.
    pub(crate) dir: PathBuf,
    /// How its process is.
    pub(crate) state: Life,
}

impl Member {
    /// Base of its admin addresses: `http://127.0.0.1:20001`.
    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// Where peers dial it, as a multiaddress without its peer id.
    pub(crate) fn p2p_addr(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}", self.p2p_port)
    }
}

/// A running demo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The process in the foreground.
    pub(crate) pid: u32,
    /// When it began.
    pub(crate) started: Timestamp,
    /// Its members, indexers first.
    pub(crate) members: Vec<Member>,
}

impl State {
    /// The member with this name, or the first node.
    ///
    /// # Errors
    /// When there is none by that name.
    pub(crate) fn member(&self, name: Option<&str>) -> Result<&Member, Error> {
        let found = match name {
            Some(name) => self.members.iter().find(|member| member.name == name),
            None => self.members.iter().find(|member| member.role == Role::Node),
        };
        found.ok_or_else(|| Error::UnknownMember {
            name: name.unwrap_or("(first node)").to_owned(),
            known: self.members.iter().map(|member| member.name.clone()).collect(),
        })
    }
}

/// The folder of this user's demo.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

/// The right to write into a demo's folder; given back when dropped, or when the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Folder {
    /// `muster-demo-<uid>` in the runtime folder or in the temporary one: where there is one of ours, else the first.
    ///
    /// Both are looked into because the second terminal may have been opened in another way than the first, and have no
    /// runtime folder, or another.
    pub(crate) fn usual() -> Self {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
        let folders: Vec<Self> =
            runtime.into_iter().chain([std::env::temp_dir()]).map(|base| Self::below(&base)).collect();
        let ours = folders.iter().find(|folder| folder.exists().unwrap_or(false));
        // There are always one or two; the temporary folder stands in for none at all.
        ours.or(folders.first()).cloned().unwrap_or_else(|| Self::below(&std::env::temp_dir()))
    }

    fn below(base: &Path) -> Self {
        // Members are told by their command line, so it must name the folder in one way only.
        let base = base.canonicalize().unwrap_or_else(|_| base.to_owned());
        Self::at(base.join(format!("muster-demo-{}", nix::unistd::geteuid())))
    }

    /// The demo folder with this absolute path.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the demo listens for its verbs.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// The folder of one member.
    pub(crate) fn member(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What one member wrote to its output.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }

    /// Makes the folder this process's own, and empty but for the lock. Leftovers of a dead demo are killed and removed.
    ///
    /// # Errors
    /// When another demo holds it, when it is not this user's alone, or when the machine refuses.
    pub(crate) fn take(&self) -> Result<Lock, Error> {
        for _ in 0..LOCK_TRIES_MAX {
            self.make()?;
            if let Some(lock) = self.try_lock()? {
                self.sweep()?;
                return Ok(lock);
            }
            std::thread::sleep(LOCK_TRY_EVERY);
        }
        Err(Error::AlreadyRunning { pid: self.holder(), folder: self.path.clone() })
    }

    /// The demo that runs in this folder. Where none does, what a dead one left is killed and removed.
    ///
    /// # Errors
    /// When no demo runs, when it has not yet written its state, or when the folder is not this user's alone.
    pub(crate) fn find(&self) -> Result<State, Error> {
        if !self.exists()? {
            return Err(Error::NotRunning { swept: "" });
        }
        for _ in 0..LOCK_TRIES_MAX {
            if let Some(lock) = self.try_lock()? {
                self.sweep()?;
                self.remove(lock)?;
                return Err(Error::NotRunning { swept: " (what a killed one had left is removed now)" });
            }
            if let Some(state) = self.read()? {
                return Ok(state);
            }
            if !self.exists()? {
                return Err(Error::NotRunning { swept: "" });
            }
            std::thread::sleep(LOCK_TRY_EVERY);
        }
        Err(Error::Starting { pid: self.holder() })
    }

    /// Tries to take the lock without sweeping; nothing when somebody holds it or the folder went away meanwhile.
    ///
    /// # Errors
    /// When the machine refuses.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>, Error> {
        let path = self.path.join(LOCK);
        let what = || format!("open {}", path.display());
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
            .open(&path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(what())(error)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(Error::io(format!("lock {}", path.display()))(error)),
        }
        // The last holder may have removed the file between our opening and our locking it: then it guards nothing.
        let ours = file.metadata().map_err(Error::io(what()))?;
        if !fs::symlink_metadata(&path).is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev()) {
            return Ok(None);
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()))
            .map_err(Error::io(format!("write {}", path.display())))?;
        Ok(Some(Lock { _file: file }))
    }

    /// Writes who is in the demo, whole or not at all.
    ///
    /// # Errors
    /// When the machine refuses.
    pub(crate) fn write(&self, state: &State, _held: &Lock) -> Result<(), Error> {
        let path = self.path.join(STATE);
        let what = || format!("write {}", path.display());
        let text = serde_json::to_vec_pretty(state).map_err(|error| Error::io(what())(error.into()))?;
        let beside = self.path.join(format!("{STATE}.new"));
        fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path)).map_err(Error::io(what()))
    }

    /// Removes the folder and all in it; one that is gone already is no error.
    ///
    /// # Errors
    /// When the machine refuses.
    pub(crate) fn remove(&self, lock: Lock) -> Result<(), Error> {
        let mut removed = Ok(());
        for _ in 0..LOCK_TRIES_MAX {
            self.empty()?;
            removed = gone(fs::remove_file(self.path.join(LOCK))).and_then(|()| gone(fs::remove_dir(&self.path)));
            match &removed {
                // A verb looked between the two and made a lock of its own; it goes on to sweep as we do.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => std::thread::sleep(LOCK_TRY_EVERY),
                _ => break,
            }
        }
        drop(lock);
        removed.map_err(Error::io(format!("remove {}", self.path.display())))
    }

    /// Kills the processes that a dead demo left, then empties the folder; the lock must be held.
    fn sweep(&self) -> Result<(), Error> {
        process::kill_all(|| process::members_of(&self.path), SWEEP_PATIENCE)
            .map_err(Error::io(format!("end what runs from {}", self.path.display())))?;
        self.empty()
    }

    /// Removes all but the lock.
    fn empty(&self) -> Result<(), Error> {
        let what = || format!("empty {}", self.path.display());
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io(what())(error)),
        };
        for entry in entries {
            let entry = entry.map_err(Error::io(what()))?;
            if entry.file_name() == LOCK {
                continue;
            }
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
            gone(removed).map_err(Error::io(what()))?;
        }
        Ok(())
    }

    /// Makes the folder, or finds that it is there and safe.
    fn make(&self) -> Result<(), Error> {
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            // The mode above is subject to the umask, which may take rights from the owner too.
            Ok(()) => fs::set_permissions(&self.path, Permissions::from_mode(0o700))
                .map_err(Error::io(format!("set the mode of {}", self.path.display()))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.exists().map(|_| ()),
            Err(error) => Err(Error::io(format!("make {}", self.path.display()))(error)),
        }
    }

    /// The folder is there, and it is a folder of this user's and nobody else's.
    ///
    /// # Errors
    /// When it is there and another could have written into it: the temporary folder is everybody's.
    fn exists(&self) -> Result<bool, Error> {
        let found = match fs::symlink_metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io(format!("look at {}", self.path.display()))(error)),
        };
        let mode = found.mode() & 0o777;
        let fault = if !found.is_dir() {
            "is no folder".to_owned()
        } else if found.uid() != nix::unistd::geteuid().as_raw() {
            format!("belongs to user {}", found.uid())
        } else if mode & 0o077 != 0 {
            format!("is open to others (mode {mode:o}, expected 700)")
        } else {
            return Ok(true);
        };
        Err(Error::Unsafe { path: self.path.clone(), fault })
    }

    /// The state, once it is written; who holds the lock is not asked.
    ///
    /// # Errors
    /// When the machine refuses.
    pub(crate) fn read(&self) -> Result<Option<State>, Error> {
        let path = self.path.join(STATE);
        let what = || format!("read {}", path.display());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(what())(error)),
        };
        let mut text = String::new();
        file.take(STATE_BYTES_MAX).read_to_string(&mut text).map_err(Error::io(what()))?;
        serde_json::from_str(&text).map(Some).map_err(|error| Error::io(what())(error.into()))
    }

    /// Who holds the lock, 0 when it did not say.
    fn holder(&self) -> u32 {
        fs::read_to_string(self.path.join(LOCK)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }
}

/// What was to be removed and was not there is removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::cli::exit::{Exit, Failure};

    fn folder() -> (tempfile::TempDir, Folder) {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::at(temp.path().join("muster-demo-test"));
        (temp, folder)
    }

    fn member(name: &str, role: Role) -> Member {
        Member {
            name: name.into(),
            role,
            peer_id: format!("12D3-{name}"),
            did: format!("did:key:z6Mk{name}"),
            admin: "127.0.0.1:20001".parse().unwrap(),
            p2p_port: 20_002,
            bus: None,
            pid: 7,
            dir: PathBuf::from("/nowhere"),
            state: Life::Running,
        }
    }

    fn state() -> State {
        State {
            pid: std::process::id(),
            started: Timestamp::UNIX_EPOCH,
            members: vec![member("indexer-1", Role::Indexer), member("paris", Role::Node)],
        }
    }

    #[test]
    fn without_a_demo_the_verbs_say_how_to_start_one() {
        let (_temp, folder) = folder();
        let failure = Failure::from(folder.find().unwrap_err());
        assert!(failure.text().contains("muster demo"), "{failure}");
        assert_eq!(failure.exit, Exit::Unreachable);
    }

    #[test]
    fn a_second_demo_learns_who_runs_and_how_to_end_it() {
        let (_temp, folder) = folder();
        let _held = folder.take().unwrap();
        let failure = Failure::from(folder.take().unwrap_err());
        let text = failure.text();
        assert!(text.contains(&std::process::id().to_string()) && text.contains("muster --demo down"), "{text}");
        assert_eq!(failure.exit, Exit::Failed);
    }

    #[test]
    fn what_was_written_is_found_while_the_lock_is_held() {
        let (_temp, folder) = folder();
        let held = folder.take().unwrap();
        assert!(matches!(folder.find(), Err(Error::Starting { .. })));
        folder.write(&state(), &held).unwrap();
        assert_eq!(folder.find().unwrap(), state());
        folder.remove(held).unwrap();
        assert!(!folder.path().exists());
    }

    #[test]
    fn a_dead_demos_folder_is_swept_by_the_next_verb() {
        let (_temp, folder) = folder();
        let held = folder.take().unwrap();
        folder.write(&state(), &held).unwrap();
        fs::create_dir(folder.member("paris")).unwrap();
        fs::write(folder.member("paris").join("identity.pem"), "x").unwrap();
        drop(held);
        let error = folder.find().unwrap_err();
        assert!(matches!(error, Error::NotRunning { swept } if !swept.is_empty()), "{error}");
        assert!(!folder.path().exists());
    }

    #[test]
    fn a_dead_demos_folder_is_emptied_by_the_next_demo() {
        let (_temp, folder) = folder();
        drop(folder.take().unwrap());
        fs::write(folder.log("paris"), "old").unwrap();
        let _held = folder.take().unwrap();
        assert!(!folder.log("paris").exists());
    }

    #[test]
    fn a_folder_open_to_others_is_refused_and_left_alone() {
        let (_temp, folder) = folder();
        fs::create_dir(folder.path()).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.log("paris"), "theirs").unwrap();
        for error in [folder.take().unwrap_err(), folder.find().unwrap_err()] {
            assert!(error.to_string().contains("mode 755"), "{error}");
            assert_eq!(Failure::from(error).exit, Exit::Configuration);
        }
        assert!(folder.log("paris").exists());
    }

    #[test]
    fn a_link_in_the_folders_place_is_refused() {
        let (temp, folder) = folder();
        symlink(temp.path(), folder.path()).unwrap();
        assert!(folder.take().unwrap_err().to_string().contains("no folder"));
    }

    #[test]
    fn the_lock_of_a_removed_folder_guards_nothing() {
        let (_temp, folder) = folder();
        let first = folder.take().unwrap();
        folder.remove(first).unwrap();
        let second = folder.take().unwrap();
        assert!(folder.try_lock().unwrap().is_none());
        folder.remove(second).unwrap();
    }

    #[test]
    fn the_usual_member_is_the_first_node_and_unknown_names_are_answered_with_the_known() {
        let state = state();
        assert_eq!(state.member(None).unwrap().name, "paris");
        assert_eq!(state.member(Some("indexer-1")).unwrap().name, "indexer-1");
        let error = state.member(Some("rome")).unwrap_err();
        assert!(error.to_string().contains("indexer-1, paris"), "{error}");
        assert_eq!(Failure::from(error).exit, Exit::NotFound);
    }
}
