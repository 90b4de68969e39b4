//! Who holds which token: `data/admin.token`, which may do everything, and those in `data/admin.tokens`, each with a role.
//!
//! Of the latter only hashes are kept. They are drawn by chance, 256 bits each, so that a plain hash cannot be undone; a
//! given token is compared with every one of them, each in constant time, so that nothing is learnt from how long it took.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, RwLock},
};

use jiff::Timestamp;
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

use super::roles::Role;
use crate::keys::{self, AdminToken, FileError, Secret};

/// Enough for every person and program that looks after one member; also keeps the file below what is read of a secret.
pub(super) const TOKENS_MAX: usize = 64;

/// Longest name of a token.
pub(super) const NAME_CHARS_MAX: usize = 32;

/// Whom the token in `data/admin.token` belongs to.
pub(super) const ADMIN: &str = "admin";

/// Whoever showed a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// The token's name.
    pub(super) name: String,
    /// What it is good for.
    pub(super) role: Role,
}

/// A token without what makes it one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct TokenView {
    /// Its name, as the audit log has it.
    pub(crate) name: String,
    /// What it is good for: `reader`, `operator` or `admin`.
    pub(crate) role: Role,
    /// When it was made; absent for the one in `data/admin.token`.
    pub(crate) created_at: Option<Timestamp>,
}

/// Why the tokens stay as they are.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyringError {
    /// No name for a token.
    #[error("got the name {0:?}, expected 1 to {NAME_CHARS_MAX} of a-z, 0-9, \"-\", \"_\" and \".\"")]
    Name(String),
    /// There is one of that name.
    #[error("there is a token {0:?} already: remove it first, or choose another name")]
    Taken(String),
    /// There are as many as there may be.
    #[error("there are {TOKENS_MAX} tokens, as many as there may be: remove one that nobody uses")]
    Full,
    /// The disk does not keep it.
    #[error(transparent)]
    File(#[from] FileError),
}

/// One line of the file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    name: String,
    role: Role,
    /// Of the token's text, hexadecimal.
    sha256: String,
    created_at: Timestamp,
}

/// Every token.
pub(crate) struct Keyring {
    path: PathBuf,
    admin: [u8; 32],
    held: RwLock<Vec<Held>>,
    /// Held while the file is written, so that no change is lost under another; whoever only shows a token does not wait for
    /// the disk.
    changing: Mutex<()>,
}

impl std::fmt::Debug for Keyring {
    // Written by hand so that not even a hash is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Keyring {
    /// The tokens of a member's folder.
    ///
    /// # Errors
    /// When a file cannot be trusted, or holds something else.
    pub(crate) fn open(data: &Path, admin: &AdminToken) -> Result<Self, FileError> {
        let path = data.join("admin.tokens");
        let damaged = |why: String| FileError::Damaged { what: Secret::Tokens, path: path.clone(), why };
        let held: Vec<Held> = match keys::read(&path, Secret::Tokens) {
            Ok(content) => serde_json::from_slice(&content).map_err(|error| damaged(error.to_string()))?,
            Err(FileError::Missing { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        if held.len() > TOKENS_MAX {
            return Err(damaged(format!("got {} tokens, expected at most {TOKENS_MAX}", held.len())));
        }
        if let Some(wrong) = held.iter().find(|held| held.sha256.len() != 64 || !is_name(&held.name)) {
            return Err(damaged(format!("the token {:?} has no such name or no SHA-256", wrong.name)));
        }
        Ok(Self {
            admin: Sha256::digest(admin.expose()).into(),
            held: RwLock::new(held),
            changing: Mutex::default(),
            path,
        })
    }

    /// Who has this token.
    pub(super) fn caller(&self, token: &str) -> Option<Caller> {
        let given: [u8; 32] = Sha256::digest(token).into();
        let hexadecimal = hex(&given);
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let is_admin = given.ct_eq(&self.admin);
        // Each is compared, whoever is found on the way.
        let found: Vec<Choice> = held.iter().map(|held| hexadecimal.as_bytes().ct_eq(held.sha256.as_bytes())).collect();
        let other = held.iter().zip(found).find(|(_, is)| bool::from(*is)).map(|(held, _)| held);
        if bool::from(is_admin) {
            return Some(Caller { name: ADMIN.to_owned(), role: Role::Admin });
        }
        other.map(|held| Caller { name: held.name.clone(), role: held.role })
    }

    /// Every token, that of the file first.
    pub(super) fn list(&self) -> Vec<TokenView> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let admin = TokenView { name: ADMIN.to_owned(), role: Role::Admin, created_at: None };
        let others = held.iter().map(|Held { name, role, created_at, .. }| TokenView {
            name: name.clone(),
            role: *role,
            created_at: Some(*created_at),
        });
        std::iter::once(admin).chain(others).collect()
    }

    /// Makes a token. It is on the disk, as a hash, when it is returned, and is never shown again.
    ///
    /// # Errors
    /// When the name is none or taken, there are as many as there may be, or the disk does not keep it.
    pub(super) fn add(
        &self,
        name: &str,
        role: Role,
        now: Timestamp,
        chance: &mut impl Rng,
    ) -> Result<Zeroizing<String>, KeyringError> {
        if !is_name(name) {
            return Err(KeyringError::Name(name.chars().take(2 * NAME_CHARS_MAX).collect()));
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.held();
        if name == ADMIN || next.iter().any(|held| held.name == name) {
            return Err(KeyringError::Taken(name.to_owned()));
        }
        if next.len() >= TOKENS_MAX {
            return Err(KeyringError::Full);
        }
        let token = keys::token(chance);
        let digest: [u8; 32] = Sha256::digest(token.as_str()).into();
        next.push(Held { name: name.to_owned(), role, sha256: hex(&digest), created_at: now });
        self.write(next)?;
        Ok(token)
    }

    /// Takes a token back, at once and over restarts; false when there was none of that name.
    ///
    /// # Errors
    /// When the disk does not keep it; the token holds then.
    pub(super) fn remove(&self, name: &str) -> Result<bool, KeyringError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.held();
        let before = next.len();
        next.retain(|held| held.name != name);
        if next.len() == before {
            return Ok(false);
        }
        self.write(next)?;
        Ok(true)
    }

    fn held(&self) -> Vec<Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// First on the disk, then in force.
    fn write(&self, next: Vec<Held>) -> Result<(), FileError> {
        // A list of texts can always be written.
        let text = serde_json::to_string(&next).unwrap_or_default();
        keys::replace_secret(&self.path, text.as_bytes())?;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= NAME_CHARS_MAX && name.chars().all(is_fine)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use rand::{SeedableRng as _, rngs::StdRng};
    use tempfile::TempDir;

    use super::*;

    struct Folder {
        folder: TempDir,
        chance: StdRng,
    }

    impl Folder {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), chance: StdRng::seed_from_u64(7) }
        }

        fn open(&mut self) -> Result<Keyring, FileError> {
            let admin = AdminToken::read_or_create(self.folder.path(), &mut self.chance).unwrap();
            Keyring::open(self.folder.path(), &admin)
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("admin.tokens")
        }
    }

    #[test]
    fn each_token_is_its_holders_over_restarts_and_until_it_is_removed() {
        let mut folder = Folder::new();
        let keyring = folder.open().unwrap();
        let mut chance = StdRng::seed_from_u64(8);
        let mut tokens = Vec::new();
        for role in Role::ALL {
            let name = format!("a-{}", role.name());
            tokens.push((keyring.add(&name, role, Timestamp::UNIX_EPOCH, &mut chance).unwrap(), Caller { name, role }));
        }
        let keyring = folder.open().unwrap();
        for (token, caller) in &tokens {
            assert_eq!(keyring.caller(token).as_ref(), Some(caller));
            assert_eq!(keyring.caller(&token[1..]), None);
        }
        assert_eq!(keyring.list().len(), 4);
        assert!(keyring.remove("a-operator").unwrap());
        assert!(!keyring.remove("a-operator").unwrap());
        assert!(!keyring.remove(ADMIN).unwrap(), "that one is its file");
        assert_eq!(keyring.caller(&tokens[1].0), None);
        let again = folder.open().unwrap();
        assert_eq!(again.caller(&tokens[1].0), None);
        assert_eq!(again.caller(&tokens[2].0).unwrap().role, Role::Admin);
    }

    #[test]
    fn the_admins_token_is_that_of_its_file_and_no_hash_is_a_token() {
        let mut folder = Folder::new();
        let keyring = folder.open().unwrap();
        let admin = AdminToken::read(folder.folder.path()).unwrap();
        assert_eq!(keyring.caller(admin.expose()), Some(Caller { name: ADMIN.to_owned(), role: Role::Admin }));
        keyring.add("ops", Role::Operator, Timestamp::UNIX_EPOCH, &mut folder.chance).unwrap();
        let text = fs::read_to_string(folder.file()).unwrap();
        let hash = text.split("\"sha256\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        for no_token in ["", "admin", "ops", hash.as_str()] {
            assert_eq!(keyring.caller(no_token), None, "{no_token}");
        }
    }

    #[test]
    fn the_file_holds_no_token_and_nobody_else_reads_it() {
        let mut folder = Folder::new();
        let keyring = folder.open().unwrap();
        let token = keyring.add("ops", Role::Operator, Timestamp::UNIX_EPOCH, &mut folder.chance).unwrap();
        let text = fs::read_to_string(folder.file()).unwrap();
        assert!(!text.contains(token.as_str()) && text.contains("operator"), "{text}");
        assert_eq!(fs::metadata(folder.file()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{keyring:?}").contains("sha256"));
    }

    #[test]
    fn a_name_is_short_plain_and_taken_once() {
        let mut folder = Folder::new();
        let keyring = folder.open().unwrap();
        let mut add = |name: &str| keyring.add(name, Role::Reader, Timestamp::UNIX_EPOCH, &mut folder.chance);
        add(&"n".repeat(NAME_CHARS_MAX)).unwrap();
        for wrong in ["", "a b", "A", "é", "../x", &"n".repeat(NAME_CHARS_MAX + 1)] {
            assert!(matches!(add(wrong), Err(KeyringError::Name(_))), "{wrong}");
        }
        add("ops").unwrap();
        for taken in ["ops", ADMIN] {
            assert!(matches!(add(taken), Err(KeyringError::Taken(_))), "{taken}");
        }
    }

    #[test]
    fn the_65th_token_is_refused_and_64_can_be_read_again() {
        let mut folder = Folder::new();
        let keyring = folder.open().unwrap();
        for number in 0..TOKENS_MAX {
            let name = format!("{number:0>width$}", width = NAME_CHARS_MAX);
            keyring.add(&name, Role::Operator, Timestamp::MAX, &mut folder.chance).unwrap();
        }
        let full = keyring.add("one-more", Role::Reader, Timestamp::MAX, &mut folder.chance);
        assert!(matches!(full, Err(KeyringError::Full)));
        assert_eq!(folder.open().unwrap().list().len(), TOKENS_MAX + 1);
    }

    #[test]
    fn a_file_that_cannot_be_trusted_stops_the_start_and_is_left_alone() {
        let mut folder = Folder::new();
        folder.open().unwrap();
        for wrong in [
            "{}",
            "[{}]",
            "not json",
            r#"[{"name":"X","role":"reader","sha256":"","created_at":"2026-01-01T00:00:00Z"}]"#,
        ] {
            fs::write(folder.file(), wrong).unwrap();
            fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(folder.open(), Err(FileError::Damaged { .. })), "{wrong}");
            assert_eq!(fs::read_to_string(folder.file()).unwrap(), wrong);
        }
        fs::write(folder.file(), "[]").unwrap();
        fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(folder.open(), Err(FileError::Open { .. })));
    }
}
