//! The archive of a backup: a tar file with a manifest and the files of one member, each with its length and hash.
//!
//! Nothing is taken from an archive but what its manifest names, in its order, and nothing that it names may lie outside of
//! the folder that it is unpacked into.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Component, Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::cli::exit::{Exit, Failure};

/// The form that this build writes and reads.
const FORMAT: u32 = 1;

/// The first entry.
const MANIFEST: &str = "manifest.json";

/// Ten times a manifest of [`FILES_MAX`] files with the longest names.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024;

/// Settings, two keys, database, three files of the bus, and room for as many again.
const FILES_MAX: usize = 16;

/// What the oldest form of tar has room for, without extensions that other programs might write in another way.
const NAME_BYTES_MAX: usize = 99;

/// What the archive says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: u32,
    /// The version that wrote it.
    pub(crate) muster: String,
    /// The member's name.
    pub(crate) name: String,
    /// Its peer id.
    pub(crate) peer_id: String,
    /// Its DID.
    pub(crate) did: String,
    /// The moment that it shows.
    pub(crate) taken_at: Timestamp,
    /// The last sequence that it had signed by then; nothing where its database is not in the archive.
    pub(crate) seq: Option<u64>,
    /// The name of its settings.
    pub(crate) config: String,
    /// The settings that name files, with the names that these have here.
    pub(crate) places: Vec<(String, String)>,
    /// In the order of the archive.
    pub(crate) files: Vec<Listed>,
}

/// One file of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listed {
    /// Its path below the member's folder.
    pub(crate) name: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub(crate) sha256: String,
}

/// What goes into an archive.
#[derive(Debug)]
pub(crate) enum Source {
    /// These bytes.
    Bytes(Zeroizing<Vec<u8>>),
    /// A file that nobody changes meanwhile.
    File(PathBuf),
}

/// Why an archive cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// It is something else.
    #[error("it is no backup of muster: {why}")]
    Foreign {
        /// What was found.
        why: String,
    },
    /// A newer muster wrote it.
    #[error("its format is {got}, expected at most {FORMAT}: a newer muster wrote it")]
    Newer {
        /// Its format.
        got: u32,
    },
    /// The manifest names what no backup has.
    #[error("its manifest cannot be used: {why}")]
    BadManifest {
        /// What is wrong with it.
        why: String,
    },
    /// What it holds is not what its manifest says.
    #[error("{name} is damaged: {why}")]
    Damaged {
        /// The file.
        name: String,
        /// What was got and what was expected.
        why: String,
    },
    /// The system refuses.
    #[error("cannot {doing} {name}: {cause}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        name: String,
        /// What the system says.
        cause: io::Error,
    },
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        let (exit, next) = match error {
            ArchiveError::Newer { .. } => (Exit::Configuration, "restore it with the version that wrote it"),
            ArchiveError::System { .. } => (Exit::InputOutput, "look at the disk and its space, and try again"),
            _ => (Exit::Configuration, "take another copy of the backup, or an older one"),
        };
        Self::new(exit, "the backup cannot be used").why(error.to_string()).next(next)
    }
}

fn system(doing: &'static str, name: impl Into<String>) -> impl FnOnce(io::Error) -> ArchiveError {
    let name = name.into();
    move |cause| ArchiveError::System { doing, name, cause }
}

impl Manifest {
    /// Of a member as it is now, without any file yet.
    pub(crate) fn new(name: String, peer_id: String, did: String, taken_at: Timestamp, config: String) -> Self {
        Self {
            format: FORMAT,
            muster: env!("CARGO_PKG_VERSION").to_owned(),
            name,
            peer_id,
            did,
            taken_at,
            seq: None,
            config,
            places: Vec::new(),
            files: Vec::new(),
        }
    }

    fn check(&self) -> Result<(), ArchiveError> {
        let bad = |why: String| Err(ArchiveError::BadManifest { why });
        if self.files.len() > FILES_MAX {
            return bad(format!("got {} files, expected at most {FILES_MAX}", self.files.len()));
        }
        for (at, file) in self.files.iter().enumerate() {
            if !is_inside(&file.name) || file.name == MANIFEST {
                return bad(format!("{:?} is no name of a file inside a folder", file.name));
            }
            if self.files[..at].iter().any(|other| other.name == file.name) {
                return bad(format!("{:?} is named twice", file.name));
            }
        }
        match self.files.iter().any(|file| file.name == self.config) {
            true => Ok(()),
            false => bad(format!("its settings {:?} are not among its files", self.config)),
        }
    }
}

/// A path below a folder, in its plainest form, that any archive has room for.
pub(crate) fn is_inside(name: &str) -> bool {
    let plain: PathBuf = Path::new(name).components().filter(|part| matches!(part, Component::Normal(_))).collect();
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && plain.as_os_str() == name
}

/// Writes an archive of these files into `out`; the manifest's list of them is made here.
pub(crate) fn pack(
    out: &mut File,
    mut manifest: Manifest,
    files: &[(String, Source)],
) -> Result<Manifest, ArchiveError> {
    for (name, source) in files {
        let (bytes, sha256) = match source {
            Source::Bytes(content) => measured(content.as_slice(), &mut io::sink()),
            Source::File(path) => File::open(path).and_then(|file| measured(file, &mut io::sink())),
        }
        .map_err(system("read", name))?;
        manifest.files.push(Listed { name: name.clone(), bytes, sha256 });
    }
    manifest.check()?;
    let text =
        serde_json::to_vec_pretty(&manifest).map_err(|cause| ArchiveError::BadManifest { why: cause.to_string() })?;
    let mut archive = tar::Builder::new(out);
    append(&mut archive, MANIFEST, text.len() as u64, manifest.taken_at, text.as_slice())?;
    for ((name, source), listed) in files.iter().zip(&manifest.files) {
        match source {
            Source::Bytes(content) => {
                append(&mut archive, name, listed.bytes, manifest.taken_at, content.as_slice())?;
            }
            Source::File(path) => {
                let file = File::open(path).map_err(system("read", name))?;
                append(&mut archive, name, listed.bytes, manifest.taken_at, file.take(listed.bytes))?;
            }
        }
    }
    archive.into_inner().map_err(system("write", "the archive"))?;
    Ok(manifest)
}

fn append(
    archive: &mut tar::Builder<&mut File>,
    name: &str,
    bytes: u64,
    at: Timestamp,
    content: impl Read,
) -> Result<(), ArchiveError> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(at.as_second()).unwrap_or(0));
    archive.append_data(&mut header, name, content).map_err(system("write", name))
}

/// Unpacks an archive into an empty folder: every file that its manifest names, for us alone and on the disk, or an error.
pub(crate) fn unpack(archive: File, folder: &Path) -> Result<Manifest, ArchiveError> {
    let foreign = |why: &dyn std::fmt::Display| ArchiveError::Foreign { why: why.to_string() };
    let mut archive = tar::Archive::new(archive);
    // Raw: extensions of the format, which could name other lengths and places, are entries that nobody expects.
    let mut entries = archive.entries().map_err(|cause| foreign(&cause))?.raw(true);
    let first = entries.next().ok_or_else(|| foreign(&"it is empty"))?.map_err(|cause| foreign(&cause))?;
    let manifest = read_manifest(first)?;
    for listed in &manifest.files {
        let damaged = |why: String| ArchiveError::Damaged { name: listed.name.clone(), why };
        let entry = entries.next().ok_or_else(|| damaged("the archive ends before it".to_owned()))?;
        let entry = entry.map_err(|cause| damaged(cause.to_string()))?;
        let found = entry.path().map_err(|cause| damaged(cause.to_string()))?.into_owned();
        if found != Path::new(&listed.name) || !entry.header().entry_type().is_file() {
            return Err(damaged(format!("got {} in its place", found.display())));
        }
        let mut file = new_file(folder, &listed.name)?;
        let (bytes, sha256) = measured(entry, &mut file).map_err(system("unpack", &listed.name))?;
        if bytes != listed.bytes {
            return Err(damaged(format!("got {bytes} bytes, expected {}", listed.bytes)));
        }
        if sha256 != listed.sha256 {
            return Err(damaged(format!("got the hash {sha256}, expected {}", listed.sha256)));
        }
        file.sync_all().map_err(system("write", &listed.name))?;
    }
    match entries.next() {
        None => Ok(manifest),
        Some(_) => Err(ArchiveError::BadManifest { why: "the archive holds more than it names".to_owned() }),
    }
}

fn read_manifest(entry: tar::Entry<'_, File>) -> Result<Manifest, ArchiveError> {
    let is_manifest = entry.path().is_ok_and(|path| path == Path::new(MANIFEST));
    if !is_manifest || !entry.header().entry_type().is_file() || entry.size() > MANIFEST_BYTES_MAX {
        return Err(ArchiveError::Foreign { why: format!("it does not begin with {MANIFEST}") });
    }
    let mut text = Vec::new();
    entry.take(MANIFEST_BYTES_MAX).read_to_end(&mut text).map_err(system("read", MANIFEST))?;
    /// What every format has.
    #[derive(Deserialize)]
    struct Any {
        format: u32,
    }
    let bad = |cause: serde_json::Error| ArchiveError::BadManifest { why: cause.to_string() };
    let Any { format } = serde_json::from_slice(&text).map_err(bad)?;
    if format > FORMAT {
        return Err(ArchiveError::Newer { got: format });
    }
    let manifest: Manifest = serde_json::from_slice(&text).map_err(bad)?;
    manifest.check()?;
    Ok(manifest)
}

/// A new file below `folder`, with the folders on the way, all for us alone.
fn new_file(folder: &Path, name: &str) -> Result<File, ArchiveError> {
    let path = folder.join(name);
    let parent = path.parent().unwrap_or(folder);
    DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(system("make the folder of", name))?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(system("create", name))
}

/// Copies, and tells length and hash.
fn measured(mut from: impl Read, to: &mut impl io::Write) -> io::Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut buffer = Zeroizing::new(vec![0; 64 * 1024]);
    let mut bytes = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
    Ok((bytes, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// The file in a restored member's data that tells when its backup was taken, until its sequence has leapt past all that may
/// have been signed since.
const RESTORED: &str = "restored";

/// Notes in a restored member's data when its backup was taken.
pub(crate) fn note_restored(data: &Path, taken_at: Timestamp) -> Result<(), ArchiveError> {
    let mut file = new_file(data, RESTORED)?;
    writeln!(file, "{taken_at}").and_then(|()| file.sync_all()).map_err(system("write", RESTORED))
}

/// When the backup was taken that this member is restored from, until that is forgotten.
pub(crate) fn restored(data: &Path) -> Result<Option<Timestamp>, Failure> {
    let path = data.join(RESTORED);
    let refused = |why: String| {
        Failure::new(Exit::Configuration, format!("{} cannot be used", path.display())).why(why).next(
            "write the time of the backup into it, such as 2026-01-31T12:00:00Z: the sequence leaps ahead from there",
        )
    };
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map(Some).map_err(|cause: jiff::Error| refused(cause.to_string())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(refused(cause.to_string())),
    }
}

/// The sequence has leapt, and is on the disk.
pub(crate) fn forget_restored(data: &Path) -> io::Result<()> {
    fs::remove_file(data.join(RESTORED))?;
    File::open(data)?.sync_all()
}

#[cfg(test)]
mod tests;
