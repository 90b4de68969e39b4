//! A copy of a database for a backup, whether or not a daemon writes to it meanwhile.

use std::{
    path::{self, Path},
    time::Duration,
};

use protocol::Timestamp;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use super::open::{Found, base, create, examine, open_error, sync_file};
use crate::{OpenError, error};

/// The daemon's own transactions last milliseconds; a statement that holds the file this long has a reason.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A copy that was made, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The sequence of each of our DIDs in it.
    pub seqs: Vec<(String, u64)>,
}

/// Copies the database at `from` into the new file `to`, as it is at one moment: all that was committed, nothing by halves.
/// A daemon may go on with it. The copy is looked through before this returns, and is for its owner alone.
///
/// # Errors
/// When there is none at `from`, it is damaged or another's, or `to` exists or cannot be written.
pub async fn copy_database(from: &Path, to: &Path) -> Result<Copied, OpenError> {
    let absolute = |path: &Path| path::absolute(path).map_err(|source| OpenError::Io { path: path.to_owned(), source });
    let (from, to) = (absolute(from)?, absolute(to)?);
    let name = to.to_str().ok_or_else(|| OpenError::NotUtf8 { path: to.clone() })?.to_owned();
    let refused = |error| open_error(&from, error::of_sqlite(error));
    // SQLite takes an empty file for none, and this one is ours before there is anything to read in it.
    drop(create(&to)?);
    let options = base(&from).create_if_missing(false).busy_timeout(WAIT_MAX);
    let mut connection = options.connect().await.map_err(refused)?;
    let copied = sqlx::query("VACUUM INTO $1").bind(name).execute(&mut connection).await;
    // Closed before the outcome is looked at: the last connection to a file folds its log in.
    let closed = connection.close().await;
    copied.map_err(refused)?;
    closed.map_err(refused)?;
    match examine(&to).await? {
        Found::Sound => {}
        Found::Nothing => return Err(OpenError::NotADatabase { path: from }),
        Found::Damaged(detail) => return Err(OpenError::Failed { path: from, detail }),
    }
    sync_file(&to)?;
    let mut copy = base(&to).immutable(true).read_only(true).connect().await.map_err(refused)?;
    let seqs = seqs(&mut copy).await.map_err(refused)?;
    copy.close().await.map_err(refused)?;
    Ok(Copied { seqs })
}

async fn seqs(copy: &mut SqliteConnection) -> Result<Vec<(String, u64)>, sqlx::Error> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT did, seq FROM seqs ORDER BY did LIMIT $1").bind(crate::SEQS_MAX).fetch_all(copy).await?;
    Ok(rows.into_iter().map(|(did, seq)| (did, seq.cast_unsigned())).collect())
}

impl Copied {
    /// The sequence of this DID, 0 when it never had one.
    #[must_use]
    pub fn seq(&self, did: &str) -> u64 {
        self.seqs.iter().find(|(known, _)| known == did).map_or(0, |(_, seq)| *seq)
    }
}

impl crate::Store {
    /// Raises the stored sequence of `did` past all that a lost member may have signed after the backup it was restored from;
    /// on the disk when this returns. See [`protocol::record::seq_after_restore`].
    ///
    /// # Errors
    /// Those of [`crate::Store::next_seq`].
    pub async fn leap_seq(&self, did: &str, taken_at: Timestamp, now: Timestamp) -> Result<u64, crate::StoreError> {
        let kept = self.seq(did).await?.unwrap_or_default();
        self.raise_seq(did, protocol::record::seq_after_restore(kept, taken_at, now)).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use tempfile::TempDir;

    use super::*;
    use crate::{
        Settings, Store, Write,
        testing::{at, block_on, peer, peer_row},
    };

    async fn open(path: &Path) -> Store {
        Store::open(path, &Settings::default(), at(1_000)).await.unwrap().store
    }

    #[test]
    fn a_copy_has_all_that_was_committed_while_its_database_is_in_use() {
        block_on(async {
            let temp = TempDir::new().unwrap();
            let (from, to) = (temp.path().join("muster.db"), temp.path().join("copy.db"));
            let store = open(&from).await;
            store.apply(&[Write::Peer(peer_row(1))]).await.unwrap();
            store.raise_seq("did:key:z", 7).await.unwrap();
            let copied = copy_database(&from, &to).await.unwrap();
            assert_eq!((copied.seq("did:key:z"), copied.seq("did:key:other")), (7, 0));
            assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
            // The daemon goes on, and the copy does not.
            store.apply(&[Write::Peer(peer_row(2))]).await.unwrap();
            store.close().await;
            let copy = open(&to).await;
            assert!(copy.peer(&peer(1)).await.unwrap().is_some());
            assert!(copy.peer(&peer(2)).await.unwrap().is_none());
            copy.close().await;
        });
    }

    #[test]
    fn nothing_is_made_of_nothing_and_nothing_is_written_over() {
        block_on(async {
            let temp = TempDir::new().unwrap();
            let (from, to) = (temp.path().join("muster.db"), temp.path().join("copy.db"));
            copy_database(&from, &to).await.unwrap_err();
            assert!(!from.exists(), "the source is never made");
            open(&from).await.close().await;
            fs::write(&to, "mine").unwrap();
            copy_database(&from, &to).await.unwrap_err();
            assert_eq!(fs::read_to_string(&to).unwrap(), "mine");
        });
    }

    #[test]
    fn a_damaged_database_is_not_taken_for_a_backup() {
        block_on(async {
            let temp = TempDir::new().unwrap();
            let (from, to) = (temp.path().join("muster.db"), temp.path().join("copy.db"));
            let store = open(&from).await;
            let writes: Vec<Write> = (0..500).map(|n| Write::Peer(peer_row(n))).collect();
            store.apply(&writes).await.unwrap();
            store.close().await;
            let mut bytes = fs::read(&from).unwrap();
            let end = bytes.len();
            bytes[4_096..end].fill(0xa5);
            fs::write(&from, bytes).unwrap();
            copy_database(&from, &to).await.unwrap_err();
        });
    }

    #[test]
    fn p5_a_sequence_leaps_past_what_may_have_been_signed_since_the_backup() {
        block_on(async {
            let temp = TempDir::new().unwrap();
            let store = open(&temp.path().join("muster.db")).await;
            store.raise_seq("did", 5).await.unwrap();
            let leapt = store.leap_seq("did", at(1_000), at(5_000)).await.unwrap();
            assert!(leapt > 5_000_000);
            assert_eq!(store.next_seq("did", at(5_000)).await.unwrap(), leapt + 1);
            assert!(store.leap_seq("did", at(1_000), at(1_001)).await.unwrap() > leapt, "never back");
            store.close().await;
        });
    }
}
