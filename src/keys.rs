//! Files that nobody else may read, and the lock on a member's folder.
//!
//! A secret is written once and never over another; one that is damaged is never made anew, because a new identity
//! is another member and a new network key is another network. Only a rotation that was asked for replaces the network's
//! key, and all at once.

use std::{
    ffi::OsString,
    fmt::{self, Write as _},
    fs::{File, OpenOptions, Permissions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;
use protocol::{
    identity::Keys,
    keyring::{Keyring, KeyringError},
};
use rand::Rng;
use zeroize::Zeroizing;

use crate::cli::exit::{Exit, Failure};

/// Many times the largest key file; what is larger is something else.
const SECRET_BYTES_MAX: u64 = 16 * 1024;

/// 256 bits, more than can be guessed.
const TOKEN_BYTES: usize = 32;

/// What a file holds, in the words of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secret {
    /// The member's private key.
    Identity,
    /// The network's pre-shared key.
    NetworkKey,
    /// The admin endpoint's bearer token.
    AdminToken,
    /// The hashes of its other tokens.
    Tokens,
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity key",
            Self::NetworkKey => "pre-shared key",
            Self::AdminToken => "admin token",
            Self::Tokens => "list of tokens",
        })
    }
}

/// Why a secret's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// There is none.
    #[error("there is no {what} at {path}")]
    Missing {
        /// What it should hold.
        what: Secret,
        /// The file.
        path: PathBuf,
    },
    /// It is a folder, a pipe, a socket.
    #[error("the {what} {path} is not a file but a {kind}")]
    NoFile {
        /// What it should hold.
        what: Secret,
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Others can read it.
    #[error("the {what} {path} can be read by others: its mode is {mode:04o}, expected 0600")]
    Open {
        /// What it holds.
        what: Secret,
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another user's.
    #[error("the {what} {path} belongs to user {owner}, and we run as user {us}")]
    Foreign {
        /// What it holds.
        what: Secret,
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Our user.
        us: u32,
    },
    /// It holds nothing.
    #[error("the {what} {path} is empty")]
    Empty {
        /// What it should hold.
        what: Secret,
        /// The file.
        path: PathBuf,
    },
    /// It is no key file.
    #[error("the {what} {path} has {bytes} bytes, expected at most {SECRET_BYTES_MAX}")]
    Large {
        /// What it should hold.
        what: Secret,
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// What it holds is damaged or something else.
    #[error("the {what} {path} is damaged or of another kind: {why}")]
    Damaged {
        /// What it should hold.
        what: Secret,
        /// The file.
        path: PathBuf,
        /// What the reader says.
        why: String,
    },
    /// There is something already.
    #[error("{path} exists and is never overwritten")]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot {doing} {path}: {cause}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

impl FileError {
    fn system(doing: &'static str, path: &Path, cause: io::Error) -> Self {
        Self::System { doing, path: path.to_owned(), cause }
    }

    /// What a person does about it.
    fn remedy(&self) -> String {
        match self {
            Self::Missing { what: Secret::AdminToken | Secret::Tokens, .. } => {
                "start the daemon once: it writes one".to_owned()
            }
            Self::Missing { what: Secret::Identity, .. } => {
                "restore it from a backup, or make a new member with `muster init`; it is never made anew by itself"
                    .to_owned()
            }
            Self::Missing { what: Secret::NetworkKey, .. } => {
                "copy swarm.key from another member, or set network.private = false to run without".to_owned()
            }
            Self::NoFile { .. } => "name the file itself in the section [files] of muster.toml".to_owned(),
            Self::Open { path, .. } => {
                format!("if nobody else has read it: chmod 600 {}; otherwise replace it", path.display())
            }
            Self::Foreign { path, .. } => {
                format!("run as its owner, or give it to us: chown \"$(id -u)\" {}", path.display())
            }
            Self::Empty { what, .. } | Self::Large { what, .. } | Self::Damaged { what, .. } => match what {
                Secret::Identity => "restore it from a backup: a new key would be another member".to_owned(),
                Secret::NetworkKey => "copy swarm.key again from another member".to_owned(),
                Secret::AdminToken => "remove it: the daemon writes a new one at its next start".to_owned(),
                Secret::Tokens => {
                    "restore it, or remove it and make the tokens anew with `muster token add`".to_owned()
                }
            },
            Self::Exists { .. } => "choose another folder, or move it away".to_owned(),
            Self::System { .. } => "correct the path or its permissions and start again".to_owned(),
        }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let exit = match error {
            FileError::Exists { .. } => Exit::Refused,
            _ => Exit::Configuration,
        };
        Self::new(exit, error.to_string()).next(error.remedy())
    }
}

/// Reads a secret that only we can read.
///
/// # Errors
/// Each way in which the file cannot be trusted; nothing is changed.
pub(crate) fn read(path: &Path, what: Secret) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = open(path, what)?;
    let bytes = checked(&file, path, what)?;
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(bytes).unwrap_or(0)));
    file.take(SECRET_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(|cause| FileError::system("read", path, cause))?;
    if content.iter().all(u8::is_ascii_whitespace) {
        return Err(FileError::Empty { what, path: path.to_owned() });
    }
    Ok(content)
}

fn open(path: &Path, what: Secret) -> Result<File, FileError> {
    // Not blocking, so that a named pipe put there cannot hang the start.
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(|cause| {
        match cause.kind() {
            io::ErrorKind::NotFound => FileError::Missing { what, path: path.to_owned() },
            _ => FileError::system("open", path, cause),
        }
    })
}

/// Asks the open file itself, so that nothing can be put in its place between the check and the reading.
fn checked(file: &File, path: &Path, what: Secret) -> Result<u64, FileError> {
    let path = path.to_owned();
    let found = file.metadata().map_err(|cause| FileError::system("look at", &path, cause))?;
    if !found.is_file() {
        let kind = if found.is_dir() { "folder" } else { "device, pipe or socket" };
        return Err(FileError::NoFile { what, path, kind });
    }
    let us = nix::unistd::geteuid().as_raw();
    if found.uid() != us {
        return Err(FileError::Foreign { what, path, owner: found.uid(), us });
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::Open { what, path, mode });
    }
    match found.len() {
        0 => Err(FileError::Empty { what, path }),
        bytes if bytes > SECRET_BYTES_MAX => Err(FileError::Large { what, path, bytes }),
        bytes => Ok(bytes),
    }
}

/// Reads the member's identity.
///
/// # Errors
/// When the file cannot be trusted, or holds no Ed25519 key; it is never made anew.
pub(crate) fn identity(path: &Path) -> Result<Keys, FileError> {
    let text = text(path, Secret::Identity)?;
    Keys::from_pem(&text).map_err(|why| damaged(path, Secret::Identity, &why))
}

/// Reads the network's pre-shared key, and the next one where a rotation has begun.
///
/// # Errors
/// When the file cannot be trusted, or holds something else.
pub(crate) fn network_key(path: &Path) -> Result<Keyring, FileError> {
    let text = text(path, Secret::NetworkKey)?;
    text.parse().map_err(|why: KeyringError| damaged(path, Secret::NetworkKey, &why))
}

/// Changes the network's key in its file, all of it or nothing; one change at a time.
///
/// # Errors
/// When the file cannot be trusted or replaced, or what `change` says; the file is as it was then.
pub(crate) fn change_network_key(
    path: &Path,
    change: impl FnOnce(&Keyring) -> Result<Keyring, Failure>,
) -> Result<Keyring, Failure> {
    let held = open(path, Secret::NetworkKey)?;
    held.lock().map_err(|cause| FileError::system("lock", path, cause))?;
    // A link stays one: what it leads to is replaced.
    let path = &std::fs::canonicalize(path).map_err(|cause| FileError::system("find", path, cause))?;
    // Who waited for the lock reads what the one before wrote, which is another file by then.
    let changed = change(&network_key(path)?)?;
    replace_secret(path, changed.to_text().as_bytes())?;
    Ok(changed)
}

fn text(path: &Path, what: Secret) -> Result<Zeroizing<String>, FileError> {
    let content = read(path, what)?;
    let text = std::str::from_utf8(&content).map_err(|_| damaged(path, what, &"it is no text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn damaged(path: &Path, what: Secret, why: &dyn fmt::Display) -> FileError {
    FileError::Damaged { what, path: path.to_owned(), why: why.to_string() }
}

/// Writes a new file that only we can read; all of it or nothing, and never over another.
///
/// # Errors
/// When something is there already, or the disk does not keep it.
pub(crate) fn create(path: &Path, content: &[u8]) -> Result<(), FileError> {
    create_with(path, |file| file.write_all(content))
}

/// The same of what is too large to be held: `write` puts it into the file.
///
/// # Errors
/// When something is there already, `write` fails, or the disk does not keep it.
pub(crate) fn create_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), FileError> {
    if path.symlink_metadata().is_ok() {
        return Err(FileError::Exists { path: path.to_owned() });
    }
    let temporary = Temporary::write(path, 0o600, write)?;
    // A link, unlike a rename, refuses to replace what is there.
    std::fs::hard_link(&temporary.0, path).map_err(|cause| match cause.kind() {
        io::ErrorKind::AlreadyExists => FileError::Exists { path: path.to_owned() },
        _ => FileError::system("create", path, cause),
    })?;
    drop(temporary);
    sync_folder(path)
}

/// Writes a file anew, all of it or nothing: what is not secret and changes with every start.
///
/// # Errors
/// When the disk does not keep it.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    replace_with_mode(path, content, 0o644)
}

/// The same for what nobody else may read.
///
/// # Errors
/// When the disk does not keep it.
pub(crate) fn replace_secret(path: &Path, content: &[u8]) -> Result<(), FileError> {
    replace_with_mode(path, content, 0o600)
}

fn replace_with_mode(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let temporary = Temporary::write(path, mode, |file| file.write_all(content))?;
    std::fs::rename(&temporary.0, path).map_err(|cause| FileError::system("write", path, cause))?;
    sync_folder(path)
}

/// Writes a file anew that is there already, all of it or nothing; it keeps its mode, and a link stays one.
///
/// # Errors
/// When there is none, or the disk does not keep it.
pub(crate) fn rewrite(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let whole = path.canonicalize().map_err(|cause| FileError::system("find", path, cause))?;
    let mode = whole.metadata().map_err(|cause| FileError::system("look at", &whole, cause))?.mode() & 0o777;
    let temporary = Temporary::write(&whole, mode, |file| {
        // What the umask took away is what somebody gave.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)
    })?;
    std::fs::rename(&temporary.0, &whole).map_err(|cause| FileError::system("write", &whole, cause))?;
    sync_folder(&whole)
}

/// A file beside its final place; removed when it did not get there.
struct Temporary(PathBuf);

impl Temporary {
    fn write(path: &Path, mode: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<Self, FileError> {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.new", std::process::id()));
        let place = path.with_file_name(name);
        // One that was killed while it wrote may have had our process id: in a container all have the same.
        let _ = std::fs::remove_file(&place);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&place)
            .map_err(|cause| FileError::system("create", &place, cause))?;
        let written = Self(place);
        write(&mut file)
            .and_then(|()| file.sync_all())
            .map_err(|cause| FileError::system("write", &written.0, cause))?;
        Ok(written)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already when it was renamed; otherwise nothing of a failed start stays.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A new name is on disk only when its folder is.
fn sync_folder(path: &Path) -> Result<(), FileError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|cause| FileError::system("sync", folder, cause))
}

/// A new token: 64 hexadecimal digits by chance.
pub(crate) fn token(chance: &mut impl Rng) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
    chance.fill_bytes(bytes.as_mut());
    let mut text = Zeroizing::new(String::with_capacity(2 * TOKEN_BYTES + 1));
    for byte in bytes.iter() {
        let _ = write!(*text, "{byte:02x}");
    }
    text
}

/// The bearer token of the admin endpoint: 64 hexadecimal digits.
#[derive(Clone)]
pub(crate) struct AdminToken(Zeroizing<String>);

impl AdminToken {
    /// Where it is kept.
    pub(crate) fn path(data: &Path) -> PathBuf {
        data.join("admin.token")
    }

    /// Reads the token.
    ///
    /// # Errors
    /// When its file cannot be trusted, or holds something else.
    pub(crate) fn read(data: &Path) -> Result<Self, FileError> {
        let path = Self::path(data);
        let content = read(&path, Secret::AdminToken)?;
        let text = content.trim_ascii();
        if text.len() != 2 * TOKEN_BYTES || !text.iter().all(u8::is_ascii_hexdigit) {
            let why = format!("got {} bytes, expected {} hexadecimal digits", text.len(), 2 * TOKEN_BYTES);
            return Err(damaged(&path, Secret::AdminToken, &why));
        }
        Ok(Self(Zeroizing::new(String::from_utf8_lossy(text).into_owned())))
    }

    /// Reads the token, and makes one at the first start.
    ///
    /// # Errors
    /// When its file cannot be trusted or written.
    pub(crate) fn read_or_create(data: &Path, chance: &mut impl Rng) -> Result<Self, FileError> {
        match Self::read(data) {
            Err(FileError::Missing { .. }) => {}
            known => return known,
        }
        let mut text = token(chance);
        text.push('\n');
        create(&Self::path(data), text.as_bytes())?;
        Self::read(data)
    }

    /// The text to compare with or to show to a daemon; never to a log.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AdminToken {
    // Written by hand so that the token is never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// The hold on a member's folder: given back when dropped, by the system even after a kill.
#[derive(Debug)]
pub(crate) struct FolderLock(#[expect(dead_code, reason = "held, never read: closing it gives the lock back")] File);

/// Why a member's folder cannot be held.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another process has it.
    #[error("another muster{} runs on {folder}", .holder.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Held {
        /// The folder.
        folder: PathBuf,
        /// Its process, when it is told.
        holder: Option<u32>,
    },
    /// The system refuses.
    #[error("cannot lock {path}: {cause}")]
    System {
        /// The lock's file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held { .. } => Self::new(Exit::Failed, error.to_string())
                .why("two processes with one identity would deny each other's records")
                .next("stop it first, or make another member with `muster init --dir OTHER`"),
            LockError::System { .. } => Self::new(Exit::Configuration, error.to_string())
                .next("correct the folder or its permissions and start again"),
        }
    }
}

impl FolderLock {
    /// Takes the folder for this process.
    ///
    /// # Errors
    /// When another process has it, or the system refuses.
    pub(crate) fn take(data: &Path) -> Result<Self, LockError> {
        let path = data.join("lock");
        let system = |cause| LockError::System { path: path.clone(), cause };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(system)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { folder: data.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(cause)) => return Err(system(cause)),
        }
        // Only the holder writes, so a second one never reads a half-written number as another's.
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .and_then(|()| file.sync_data())
            .map_err(system)?;
        Ok(Self(file))
    }
}

/// Whether a folder is held, as one finds it who does not want it.
#[derive(Debug)]
pub(crate) enum Hold {
    /// Nobody ever held it.
    Never,
    /// Nobody holds it, and nobody can take it while this is kept.
    Free(#[expect(dead_code, reason = "kept, never read: closing it lets others in")] File),
    /// Somebody does; its process, when it is told.
    Held(Option<u32>),
}

impl Hold {
    /// Looks at a folder's lock, and writes nothing.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn look(data: &Path) -> Result<Self, LockError> {
        let path = data.join("lock");
        let system = |cause| LockError::System { path: path.clone(), cause };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Self::Never),
            Err(cause) => return Err(system(cause)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Self::Free(file)),
            Err(TryLockError::WouldBlock) => Ok(Self::Held(holder(&mut file))),
            Err(TryLockError::Error(cause)) => Err(system(cause)),
        }
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use protocol::identity::PreSharedKey;
    use rand::{SeedableRng as _, rngs::StdRng};
    use tempfile::TempDir;

    use super::*;

    fn folder() -> TempDir {
        tempfile::tempdir().unwrap()
    }

    fn file(folder: &TempDir, content: &[u8], mode: u32) -> PathBuf {
        let path = folder.path().join("identity.pem");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_secret_is_written_for_us_alone_and_read_again() {
        let folder = folder();
        let path = folder.path().join("identity.pem");
        create(&path, b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(read(&path, Secret::Identity).unwrap().as_slice(), b"secret");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary stays");
    }

    #[test]
    fn p4_a_secret_is_never_overwritten() {
        let folder = folder();
        let path = file(&folder, b"first", 0o600);
        let error = create(&path, b"second").unwrap_err();
        assert!(matches!(error, FileError::Exists { .. }), "{error}");
        assert_eq!(Failure::from(error).exit, Exit::Refused);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary stays");
    }

    #[test]
    fn a_dangling_link_is_not_written_through() {
        let folder = folder();
        let path = folder.path().join("identity.pem");
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(create(&path, b"x").unwrap_err(), FileError::Exists { .. }));
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_at_every_mode() {
        for mode in [0o640, 0o604, 0o660, 0o620, 0o610, 0o601, 0o644] {
            let folder = folder();
            let path = file(&folder, b"secret", mode);
            let error = read(&path, Secret::Identity).unwrap_err();
            assert!(matches!(error, FileError::Open { mode: found, .. } if found == mode), "{mode:o}: {error}");
        }
        for mode in [0o600, 0o400, 0o700] {
            let folder = folder();
            read(&file(&folder, b"secret", mode), Secret::Identity).unwrap();
        }
    }

    #[test]
    fn a_world_readable_key_names_the_file_the_mode_and_the_remedy() {
        let folder = folder();
        let path = file(&folder, b"secret", 0o644);
        let failure = Failure::from(read(&path, Secret::Identity).unwrap_err());
        let path = path.display();
        assert_eq!(failure.exit, Exit::Configuration);
        assert_eq!(
            failure.what,
            format!("the identity key {path} can be read by others: its mode is 0644, expected 0600")
        );
        assert_eq!(
            failure.next.unwrap(),
            format!("if nobody else has read it: chmod 600 {path}; otherwise replace it")
        );
    }

    #[test]
    fn empty_missing_large_and_folders_are_told_apart() {
        let folder = folder();
        assert!(matches!(read(&file(&folder, b"", 0o600), Secret::Identity), Err(FileError::Empty { .. })));
        assert!(matches!(read(&file(&folder, b" \n", 0o600), Secret::Identity), Err(FileError::Empty { .. })));
        assert!(matches!(read(&folder.path().join("none"), Secret::Identity), Err(FileError::Missing { .. })));
        assert!(matches!(read(folder.path(), Secret::Identity), Err(FileError::NoFile { kind: "folder", .. })));
        let bytes = usize::try_from(SECRET_BYTES_MAX).unwrap();
        assert_eq!(read(&file(&folder, &vec![b'x'; bytes], 0o600), Secret::Identity).unwrap().len(), bytes);
        let large = read(&file(&folder, &vec![b'x'; bytes + 1], 0o600), Secret::Identity);
        assert!(matches!(large, Err(FileError::Large { .. })));
    }

    #[test]
    fn a_named_pipe_does_not_hang_the_start() {
        let folder = folder();
        let path = folder.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(read(&path, Secret::Identity), Err(FileError::NoFile { .. })));
    }

    #[test]
    fn p4_damaged_identities_are_refused_with_their_own_words_and_left_alone() {
        let keys = Keys::generate(&mut StdRng::seed_from_u64(1));
        let pem = keys.to_pem();
        let truncated = &pem[..pem.len() / 2];
        let psk = PreSharedKey::generate(&mut StdRng::seed_from_u64(2)).to_text();
        let other_kind = pem.replace("PRIVATE KEY", "RSA PRIVATE KEY");
        for (content, words) in [
            (truncated.as_bytes(), "truncated"),
            (psk.as_bytes(), "no PEM block"),
            (other_kind.as_bytes(), "RSA PRIVATE KEY"),
            (b"\xff\xfe", "it is no text"),
        ] {
            let folder = folder();
            let path = file(&folder, content, 0o600);
            let failure = Failure::from(identity(&path).unwrap_err());
            assert_eq!(failure.exit, Exit::Configuration);
            assert!(failure.what.contains(words) && failure.what.contains(&*path.to_string_lossy()), "{failure}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        let folder = folder();
        let read_again = identity(&file(&folder, pem.as_bytes(), 0o600)).unwrap();
        assert_eq!(read_again.peer_id(), keys.peer_id());
    }

    #[test]
    fn p4_damaged_network_keys_are_refused_with_their_own_words() {
        let key = PreSharedKey::generate(&mut StdRng::seed_from_u64(2)).to_text();
        let pem = Keys::generate(&mut StdRng::seed_from_u64(1)).to_pem();
        for (content, words) in [
            (&key[..key.len() - 2], "expected 64 hexadecimal digits"),
            (pem.as_str(), "the first line"),
            (&key[..22], "the second line"),
        ] {
            let folder = folder();
            let failure = Failure::from(network_key(&file(&folder, content.as_bytes(), 0o600)).unwrap_err());
            assert_eq!(failure.exit, Exit::Configuration);
            assert!(failure.what.contains(words), "{failure}");
            assert_eq!(failure.next.as_deref(), Some("copy swarm.key again from another member"));
        }
    }

    #[test]
    fn a_network_key_changes_all_at_once_and_stays_ours_alone() {
        let folder = folder();
        let key = |byte| PreSharedKey::from_bytes([byte; 32]);
        let path = file(&folder, key(1).to_text().as_bytes(), 0o600);
        let begin = |ring: &Keyring| Ok(ring.begin(key(2)).unwrap());
        let changed = change_network_key(&path, begin).unwrap();
        assert_eq!(network_key(&path).unwrap().fingerprints(), changed.fingerprints());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary stays");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        change_network_key(&link, |ring| Ok(ring.cancel().unwrap())).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(network_key(&path).unwrap().fingerprints(), [key(1).fingerprint()]);
        let before = fs::read(&path).unwrap();
        let refuse = |_: &Keyring| Err(Failure::new(Exit::Refused, "no"));
        assert_eq!(change_network_key(&path, refuse).unwrap_err().exit, Exit::Refused);
        assert_eq!(fs::read(&path).unwrap(), before);
        let missing = change_network_key(&folder.path().join("none"), refuse).unwrap_err();
        assert_eq!(missing.exit, Exit::Configuration, "{missing}");
    }

    #[test]
    fn a_token_is_made_once_and_kept() {
        let folder = folder();
        let mut chance = StdRng::seed_from_u64(1);
        let first = AdminToken::read_or_create(folder.path(), &mut chance).unwrap();
        let second = AdminToken::read_or_create(folder.path(), &mut chance).unwrap();
        assert_eq!(first.expose(), second.expose());
        assert_eq!(first.expose().len(), 64);
        assert!(!format!("{first:?}").contains(first.expose()));
    }

    #[test]
    fn a_damaged_token_is_refused_and_left_alone() {
        let folder = folder();
        for damaged in ["short", &"g".repeat(64), &"a".repeat(63), &"a".repeat(65)] {
            let path = AdminToken::path(folder.path());
            fs::write(&path, damaged).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = AdminToken::read_or_create(folder.path(), &mut StdRng::seed_from_u64(1)).unwrap_err();
            assert!(matches!(error, FileError::Damaged { .. }), "{damaged}: {error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
        }
    }

    #[test]
    fn a_second_holder_is_told_who_is_the_first() {
        let folder = folder();
        let held = FolderLock::take(folder.path()).unwrap();
        let failure = Failure::from(FolderLock::take(folder.path()).unwrap_err());
        let (pid, path) = (std::process::id(), folder.path().display());
        assert_eq!(failure.exit, Exit::Failed);
        assert_eq!(failure.what, format!("another muster (process {pid}) runs on {path}"));
        drop(held);
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn who_only_looks_at_a_folder_is_told_its_holder_and_takes_nothing() {
        let folder = folder();
        assert!(matches!(Hold::look(folder.path()).unwrap(), Hold::Never));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made");
        let held = FolderLock::take(folder.path()).unwrap();
        let pid = std::process::id();
        assert!(matches!(Hold::look(folder.path()).unwrap(), Hold::Held(Some(holder)) if holder == pid));
        drop(held);
        let free = Hold::look(folder.path()).unwrap();
        assert!(matches!(free, Hold::Free(_)));
        assert!(FolderLock::take(folder.path()).is_err(), "nobody comes in while it is looked at");
        drop(free);
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn a_file_replaced_is_whole_and_nothing_temporary_stays() {
        let folder = folder();
        let path = folder.path().join("admin.addr");
        replace(&path, b"127.0.0.1:7300\n").unwrap();
        replace(&path, b"127.0.0.1:7301\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "127.0.0.1:7301\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_left_half_written_stops_nobody() {
        let folder = folder();
        let left = folder.path().join(format!(".admin.addr.{}.new", std::process::id()));
        fs::write(left, "127.0").unwrap();
        replace(&folder.path().join("admin.addr"), b"127.0.0.1:7300\n").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_written_anew_keeps_its_mode_and_a_link_stays_one() {
        let folder = folder();
        let (path, link) = (file(&folder, b"before", 0o664), folder.path().join("link"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        rewrite(&link, b"after").unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::metadata(&path).unwrap().mode() & 0o777), (b"after".to_vec(), 0o664));
        assert!(link.is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing temporary stays");
        assert!(rewrite(&folder.path().join("none"), b"").is_err(), "it makes none");
    }
}
