//! The audit log: who changed what and when, and how it ended. `data/audit.jsonl`, a line for each change.
//!
//! Who is a token's name and what is a method and a path: neither a query nor a body is kept, for they may hold secrets.
//! Whoever shows no token that is known leaves no line, so that a stranger cannot push others' lines out of the file.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::error;

use super::roles::Role;

/// Some 8,000 changes; the file before it is kept too.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// More than the longest path of ours, with a peer id and a resource's id; what is longer is cut.
const PATH_BYTES_MAX: usize = 512;

/// A line of a path at its limit, in which each character is escaped; nothing longer was written by us.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// One change, or the attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AuditEntry")]
pub(crate) struct Entry {
    /// Counts the entries of this member, from 1.
    pub(crate) seq: u64,
    /// When it had ended.
    pub(crate) at: Timestamp,
    /// The name of the token that was shown.
    pub(crate) who: String,
    /// Its role.
    pub(crate) role: Role,
    /// `PUT`, `POST`, `PATCH` or `DELETE`.
    pub(crate) method: String,
    /// What it was about, without a query.
    pub(crate) path: String,
    /// How it ended: the status of the answer. 403 is a token whose role is not enough.
    pub(crate) status: u16,
}

/// What is to be written down.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) who: String,
    pub(super) role: Role,
    pub(super) method: String,
    pub(super) path: String,
}

/// The log of one member.
#[derive(Clone, Debug)]
pub(crate) struct Trail(Arc<Mutex<Files>>);

#[derive(Debug)]
struct Files {
    now: PathBuf,
    before: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    seq: u64,
}

impl Trail {
    /// The log in a member's folder.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(crate) fn open(data: &Path) -> io::Result<Self> {
        Self::open_with(data, FILE_BYTES_MAX)
    }

    fn open_with(data: &Path, bytes_max: u64) -> io::Result<Self> {
        let (now, before) = (data.join("audit.jsonl"), data.join("audit.1.jsonl"));
        let last = |path: &Path| -> io::Result<u64> { Ok(lines(path)?.last().map_or(0, |entry| entry.seq)) };
        let seq = last(&now)?.max(last(&before)?);
        let mut file = append_to(&now)?;
        let mut bytes = file.metadata()?.len();
        if bytes > 0 && !std::fs::read(&now)?.ends_with(b"\n") {
            // The line that a crash cut stays by itself.
            file.write_all(b"\n")?;
            bytes += 1;
        }
        Ok(Self(Arc::new(Mutex::new(Files { now, before, file, bytes, bytes_max, seq }))))
    }

    /// Writes one down; on the disk when this returns. A disk that does not keep it is told to the log of the process: what
    /// was changed is changed, and the answer is the change's.
    pub(super) async fn note(&self, change: Change, status: u16, at: Timestamp) {
        let files = Arc::clone(&self.0);
        let noted = tokio::task::spawn_blocking(move || {
            files.lock().unwrap_or_else(PoisonError::into_inner).note(change, status, at)
        });
        if let Ok(Err(cause)) = noted.await {
            error!(%cause, "the audit log could not be written");
        }
    }

    /// Entries before `before`, the newest first, at most `limit`.
    pub(super) async fn read(&self, before: Option<u64>, limit: usize) -> io::Result<Vec<Entry>> {
        let files = Arc::clone(&self.0);
        let read = tokio::task::spawn_blocking(move || {
            files.lock().unwrap_or_else(PoisonError::into_inner).read(before.unwrap_or(u64::MAX), limit)
        });
        read.await.unwrap_or_else(|cause| Err(io::Error::other(cause)))
    }
}

impl Files {
    fn note(&mut self, change: Change, status: u16, at: Timestamp) -> io::Result<()> {
        let Change { who, role, method, mut path } = change;
        path.truncate(path.floor_char_boundary(PATH_BYTES_MAX));
        self.seq += 1;
        let entry = Entry { seq: self.seq, at, who, role, method, path, status };
        let mut line = serde_json::to_vec(&entry).map_err(io::Error::other)?;
        line.push(b'\n');
        let bytes = line.len() as u64;
        if self.bytes + bytes > self.bytes_max {
            match std::fs::rename(&self.now, &self.before) {
                // Nor was the next one made, when it was tried before.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
            self.file = append_to(&self.now)?;
            self.bytes = 0;
        }
        if let Err(cause) = self.file.write_all(&line) {
            // Of a full disk: half a line would take the next one along.
            let _ = self.file.set_len(self.bytes);
            return Err(cause);
        }
        self.bytes += bytes;
        self.file.sync_data()
    }

    fn read(&self, before: u64, limit: usize) -> io::Result<Vec<Entry>> {
        let mut entries = lines(&self.before)?;
        entries.extend(lines(&self.now)?);
        entries.retain(|entry| entry.seq < before);
        Ok(entries.into_iter().rev().take(limit).collect())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// The entries of a file; what is no entry, such as a line that a crash cut, is left out.
fn lines(path: &Path) -> io::Result<Vec<Entry>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(cause),
    };
    let mut entries = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        if line.len() <= LINE_BYTES_MAX {
            entries.extend(serde_json::from_slice::<Entry>(&line));
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn change(path: &str) -> Change {
        let (who, method) = ("ops".to_owned(), "PUT".to_owned());
        Change { who, role: Role::Operator, method, path: path.to_owned() }
    }

    async fn note(trail: &Trail, path: &str) {
        trail.note(change(path), 204, Timestamp::UNIX_EPOCH).await;
    }

    #[tokio::test]
    async fn who_did_what_and_how_it_ended_is_there_after_a_restart_and_counted_on() {
        let folder = tempfile::tempdir().unwrap();
        let trail = Trail::open(folder.path()).unwrap();
        note(&trail, "/api/v1/drain").await;
        trail.note(change("/api/v1/config"), 403, Timestamp::UNIX_EPOCH).await;
        let trail = Trail::open(folder.path()).unwrap();
        note(&trail, "/api/v1/bans").await;
        let read = trail.read(None, 10).await.unwrap();
        let told: Vec<_> = read.iter().map(|entry| (entry.seq, entry.path.as_str(), entry.status)).collect();
        assert_eq!(told, [(3, "/api/v1/bans", 204), (2, "/api/v1/config", 403), (1, "/api/v1/drain", 204)]);
        assert_eq!((read[0].who.as_str(), read[0].role, read[0].method.as_str()), ("ops", Role::Operator, "PUT"));
        let page = trail.read(Some(3), 1).await.unwrap();
        assert_eq!(page.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [2]);
        let mode = std::fs::metadata(folder.path().join("audit.jsonl")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_full_file_becomes_the_one_before_and_the_oldest_entries_leave() {
        let folder = tempfile::tempdir().unwrap();
        let trail = Trail::open_with(folder.path(), 500).unwrap();
        for _ in 0..20 {
            note(&trail, "/api/v1/drain").await;
        }
        let size = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().len();
        assert!(size("audit.jsonl") <= 500 && size("audit.1.jsonl") <= 500);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let read = trail.read(None, 100).await.unwrap();
        assert!(read.len() < 20 && read[0].seq == 20, "{read:?}");
        assert!(read.windows(2).all(|two| two[0].seq == two[1].seq + 1), "without a gap: {read:?}");
        let again = Trail::open_with(folder.path(), 500).unwrap();
        note(&again, "/api/v1/drain").await;
        assert_eq!(again.read(None, 1).await.unwrap()[0].seq, 21);
    }

    #[tokio::test]
    async fn a_line_that_a_crash_cut_costs_itself_alone() {
        let folder = tempfile::tempdir().unwrap();
        note(&Trail::open(folder.path()).unwrap(), "/api/v1/drain").await;
        let file = folder.path().join("audit.jsonl");
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, [&whole[..], &whole[..20]].concat()).unwrap();
        let trail = Trail::open(folder.path()).unwrap();
        note(&trail, "/api/v1/bans").await;
        let read = trail.read(None, 10).await.unwrap();
        assert_eq!(read.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [2, 1]);
    }

    #[tokio::test]
    async fn a_path_beyond_its_limit_is_cut_between_characters() {
        let folder = tempfile::tempdir().unwrap();
        let trail = Trail::open(folder.path()).unwrap();
        for (path, bytes) in
            [("x".repeat(PATH_BYTES_MAX), PATH_BYTES_MAX), ("é".repeat(PATH_BYTES_MAX), PATH_BYTES_MAX)]
        {
            note(&trail, &path).await;
            assert_eq!(trail.read(None, 1).await.unwrap()[0].path.len(), bytes);
        }
        note(&trail, &"\u{1}".repeat(PATH_BYTES_MAX + 1)).await;
        assert_eq!(trail.read(None, 1).await.unwrap()[0].path.len(), PATH_BYTES_MAX, "and it is read again");
    }
}
