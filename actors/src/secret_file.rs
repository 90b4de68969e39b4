//! A file with a secret, which nobody else may read.

use std::{io, os::unix::fs::PermissionsExt as _, path::Path};

/// Many times the largest file of credentials; what is larger is something else.
pub(crate) const BYTES_MAX: u64 = 16 * 1024;

/// Why it is not used; what it holds is never said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretFileError {
    /// The system says why.
    #[error("{setting}: cannot read {path}: {cause}")]
    System { setting: &'static str, path: String, cause: io::Error },
    /// Its mode lets others in.
    #[error("{setting}: {path} can be read by others: its mode is {mode:04o}, expected 0600")]
    Open { setting: &'static str, path: String, mode: u32 },
    /// A folder, a device, or far too large.
    #[error("{setting}: {path} is no file of at most {BYTES_MAX} bytes")]
    NoFile { setting: &'static str, path: String },
}

/// What the file holds that this setting names.
///
/// # Errors
/// When it cannot be read, or others can.
pub(crate) async fn read(setting: &'static str, path: &Path) -> Result<String, SecretFileError> {
    let shown = path.display().to_string();
    let system = |cause| SecretFileError::System { setting, path: shown.clone(), cause };
    let metadata = tokio::fs::metadata(path).await.map_err(system)?;
    if !metadata.is_file() || metadata.len() > BYTES_MAX {
        return Err(SecretFileError::NoFile { setting, path: shown });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::Open { setting, path: shown, mode });
    }
    tokio::fs::read_to_string(path).await.map_err(system)
}
