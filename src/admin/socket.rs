//! A Unix socket beside the port: its file is for its owner alone. One that a kill left behind is replaced, one at which
//! somebody answers never is.

use std::{
    ffi::OsString,
    fs::{self, Permissions},
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    time::timeout,
};

use crate::cli::exit::{Exit, Failure};

/// On one machine a listener is reached at once; one whose queue is full is alive too.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Somebody listens there.
    #[error("the socket {0} is in use")]
    Live(PathBuf),
    /// There is something else.
    #[error("{0} is no socket, and is left alone")]
    Other(PathBuf),
    /// The system refuses.
    #[error("cannot listen at {path}: {cause}")]
    System {
        /// The path.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

impl From<SocketError> for Failure {
    fn from(error: SocketError) -> Self {
        let (exit, next) = match &error {
            SocketError::Live(_) => (Exit::Failed, "stop whoever listens there, or set admin.socket to another path"),
            SocketError::Other(_) => (Exit::Configuration, "set admin.socket to a path where nothing is"),
            SocketError::System { .. } => {
                (Exit::Configuration, "set admin.socket to a path of less than 100 characters in a folder of ours")
            }
        };
        Self::new(exit, error.to_string()).next(next)
    }
}

/// The file of a socket; removed when it is dropped, unless it is another's by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    mark: Mark,
}

/// Which file it is: an inode is used again, but not with the moment of its last change.
type Mark = (u64, i64, i64);

fn mark(found: &fs::Metadata) -> Mark {
    (found.ino(), found.ctime(), found.ctime_nsec())
}

impl SocketFile {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| mark(&found) == self.mark) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at this path, for its owner alone.
///
/// # Errors
/// When somebody listens there already, something else is there, or the system refuses.
pub(crate) async fn listen(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    let system = |cause| SocketError::System { path: path.to_owned(), cause };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::Other(path.to_owned())),
        Ok(_) => check_nobody(path).await?,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(system(cause)),
    }
    // Beside its place until nobody else can reach it, and then over what is left there, so that there is always one.
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    let listener = UnixListener::bind(&beside).map_err(system)?;
    let placed = fs::set_permissions(&beside, Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&beside, path))
        .and_then(|()| fs::symlink_metadata(path));
    match placed {
        Ok(found) => Ok((listener, SocketFile { path: path.to_owned(), mark: mark(&found) })),
        Err(cause) => {
            let _ = fs::remove_file(&beside);
            Err(system(cause))
        }
    }
}

/// Whether the socket is one that a kill left behind.
async fn check_nobody(path: &Path) -> Result<(), SocketError> {
    match timeout(CONNECT_WITHIN, UnixStream::connect(path)).await {
        Ok(Err(cause)) if cause.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(Err(cause)) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Err(cause)) => Err(SocketError::System { path: path.to_owned(), cause }),
        Ok(Ok(_)) | Err(_) => Err(SocketError::Live(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_and_gone_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let (_listener, file) = listen(&path).await.unwrap();
        assert_eq!(mode(&path), 0o600);
        UnixStream::connect(file.path()).await.unwrap();
        drop(file);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left beside it");
    }

    #[tokio::test]
    async fn one_that_a_kill_left_is_replaced_and_one_that_answers_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "as a kill leaves it");
        let (_listener, first) = listen(&path).await.unwrap();
        assert!(matches!(listen(&path).await, Err(SocketError::Live(_))));
        UnixStream::connect(&path).await.unwrap();
        drop(first);
        listen(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_a_folder_and_a_link_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "kept").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [&file, &link, folder.path()] {
            assert!(matches!(listen(path).await, Err(SocketError::Other(_))), "{}", path.display());
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    }

    #[tokio::test]
    async fn another_ones_socket_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let (_listener, file) = listen(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_path_beyond_what_the_system_takes_is_said_with_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let failure = Failure::from(listen(&folder.path().join("s".repeat(120))).await.unwrap_err());
        assert_eq!(failure.exit, Exit::Configuration);
        assert!(failure.next.unwrap().contains("100 characters"));
    }
}
