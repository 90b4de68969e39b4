//! From a path to a database that can be trusted: looked at without being touched, then opened, migrated, or set aside.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{self, Path, PathBuf},
};

use protocol::Timestamp;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, SqliteConnection, SqlitePool,
    error::DatabaseError,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use tracing::{error, info};

use super::{Sqlite, writer::Writer};
use crate::{OpenError, Settings, Store, StoreError, error, repository::Database};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// The first bytes of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Our files are whole pages of this many bytes, SQLite's default.
const PAGE_BYTES: u64 = 4_096;

/// The log is cut back to this size when it was folded into the file, after a batch made it longer.
const LOG_BYTES_KEPT: &str = "16777216";

/// Damaged files kept beside the database. Past it the oldest is removed: a failing disk must not fill itself.
const SET_ASIDE_MAX: usize = 5;

/// A database, and what was found on the way.
#[derive(Debug)]
pub struct Opened {
    /// Ready for use.
    pub store: Store,
    /// The file that was there and could not be used. The store is then new and empty.
    pub set_aside: Option<SetAside>,
}

/// What a database file is found to be by whoever only looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examined {
    /// There is none yet, or one without a byte.
    Nothing,
    /// It is ours and passes SQLite's own check.
    Sound,
    /// It does not, in SQLite's words: the next start sets it aside.
    Damaged(String),
}

/// A damaged database that was moved out of the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Where it is now. Its log, if it had one, has the same name and `-wal`.
    pub path: PathBuf,
    /// What is wrong with it, in SQLite's words.
    pub damage: String,
}

impl Store {
    /// Opens the database file at `path`, and makes it and its folder where there is none (modes 0600 and 0700).
    ///
    /// A damaged file is renamed with the time `now` and a new one begun. Nobody else may have the file open.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing on the disk was changed then.
    pub async fn open(path: &Path, settings: &Settings, now: Timestamp) -> Result<Opened, OpenError> {
        let path = path::absolute(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        if path.to_str().is_none() {
            return Err(OpenError::NotUtf8 { path });
        }
        let found = examine(&path).await?;
        let had_file = path.exists();
        let had_folder = folder(&path).exists();
        if had_file {
            check_writable(&path)?;
        }
        let set_aside = match found {
            Found::Damaged(damage) => Some(set_aside(&path, damage, now)?),
            Found::Nothing | Found::Sound => None,
        };
        let started = start(&path, settings).await;
        if started.is_err() {
            undo(&path, set_aside.as_ref(), had_file, had_folder);
        }
        let store = started?;
        forget_oldest(&path);
        Ok(Opened { store, set_aside })
    }

    /// Looks at the database file at `path` as an opening would, and leaves it as it is. Nobody else may have it open.
    ///
    /// # Errors
    /// What would end an opening: see [`OpenError`].
    pub async fn examine(path: &Path) -> Result<Examined, OpenError> {
        let path = path::absolute(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        Ok(match examine(&path).await? {
            Found::Nothing => Examined::Nothing,
            Found::Sound => Examined::Sound,
            Found::Damaged(damage) => Examined::Damaged(damage),
        })
    }

    /// An empty database that is gone with the process: for tests, and for thousands of nodes in one process.
    ///
    /// # Errors
    /// When SQLite cannot start.
    pub async fn in_memory(settings: &Settings) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new().disable_statement_logging();
        let mut connection = options.connect().await.map_err(error::of_sqlite)?;
        MIGRATIONS.run_direct(None, &mut connection, false).await.map_err(|error| match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error::of_sqlite(error),
            other => StoreError::Failed { detail: other.to_string() },
        })?;
        let database = Sqlite { writer: Writer::new(connection, None), readers: None };
        Ok(Self { database: Database::Sqlite(Box::new(database)), settings: settings.clone() })
    }
}

/// What is at the path.
pub(super) enum Found {
    /// No file, or one without a byte.
    Nothing,
    /// A database of ours that passed SQLite's own check.
    Sound,
    /// A database that did not.
    Damaged(String),
}

/// Looks at the file and changes nothing, so that a start that fails leaves what it found.
pub(super) async fn examine(path: &Path) -> Result<Found, OpenError> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(denied_or_io(path, "look at", error)),
    };
    if meta.is_dir() {
        return Err(OpenError::IsDirectory { path: path.to_owned() });
    }
    if !meta.is_file() {
        return Err(OpenError::NotAFile { path: path.to_owned() });
    }
    if meta.len() == 0 {
        return Ok(Found::Nothing);
    }
    if !has_magic(path)? {
        // A file of ours is whole pages whatever became of its first one. Another is somebody else's and stays.
        return if meta.len().is_multiple_of(PAGE_BYTES) {
            Ok(Found::Damaged("its first page is not SQLite's".to_owned()))
        } else {
            Err(OpenError::NotADatabase { path: path.to_owned() })
        };
    }
    let log_bytes = fs::metadata(beside(path, "-wal")).map_or(0, |meta| meta.len());
    if log_bytes == 0 {
        // Immutable: no lock, no log, no index of a log is made beside it.
        return inspect(path, &base(path).immutable(true).read_only(true)).await;
    }
    // To read a file with a log is to write beside it, so the question is put to a copy.
    let copy = Copied::of(path)?;
    inspect(path, &base(&copy.path)).await
}

fn has_magic(path: &Path) -> Result<bool, OpenError> {
    let mut first = Vec::with_capacity(MAGIC.len());
    let file = File::open(path).map_err(|error| denied_or_io(path, "read", error))?;
    file.take(MAGIC.len() as u64).read_to_end(&mut first).map_err(|error| denied_or_io(path, "read", error))?;
    Ok(first == MAGIC)
}

/// Asks the database behind `options` whose it is, of which version, and whether it is sound.
async fn inspect(path: &Path, options: &SqliteConnectOptions) -> Result<Found, OpenError> {
    let mut connection = match options.connect().await {
        Ok(connection) => connection,
        Err(error) => return damaged_or_error(path, error),
    };
    let found = question(path, &mut connection).await;
    let _ = connection.close().await;
    found
}

async fn question(path: &Path, connection: &mut SqliteConnection) -> Result<Found, OpenError> {
    let applied = match applied_migrations(connection).await {
        Ok(Schema::Empty) => return Ok(Found::Sound),
        Ok(Schema::Foreign(table)) => return Err(OpenError::Foreign { path: path.to_owned(), table }),
        Ok(Schema::Ours(applied)) => applied,
        Err(error) => return damaged_or_error(path, error),
    };
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    let newest = applied.iter().map(|(version, _)| *version).max().unwrap_or_default();
    if applied.iter().any(|(version, _)| !MIGRATIONS.version_exists(*version)) {
        return Err(OpenError::Newer { path: path.to_owned(), found: newest, known });
    }
    let is_altered = |migration: &&sqlx::migrate::Migration| {
        applied.iter().any(|(version, checksum)| *version == migration.version && *checksum != *migration.checksum)
    };
    if let Some(migration) = MIGRATIONS.iter().find(is_altered) {
        return Err(OpenError::Altered { path: path.to_owned(), version: migration.version });
    }
    match damage_of_schema(connection).await {
        Ok(None) => {}
        Ok(Some(damage)) => return Ok(Found::Damaged(damage)),
        Err(error) => return damaged_or_error(path, error),
    }
    match sqlx::query_scalar::<_, String>("PRAGMA quick_check(1)").fetch_one(connection).await {
        Ok(verdict) if verdict == "ok" => Ok(Found::Sound),
        Ok(damage) => Ok(Found::Damaged(damage)),
        // An index that cannot even be opened, although its definition is understood: what it keeps for itself is not.
        Err(sqlx::Error::Database(damage)) if is_not_understood(&*damage) => Ok(Found::Damaged(damage.to_string())),
        Err(error) => damaged_or_error(path, error),
    }
}

enum Schema {
    Empty,
    Foreign(String),
    Ours(Vec<(i64, Vec<u8>)>),
}

async fn applied_migrations(connection: &mut SqliteConnection) -> Result<Schema, sqlx::Error> {
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name LIMIT 1000")
            .fetch_all(&mut *connection)
            .await?;
    match tables.first() {
        None => Ok(Schema::Empty),
        Some(_) if tables.iter().any(|table| table == "_sqlx_migrations") => {
            // Every column that migrating will ask for, and by way of the index that it will use, so that damage is found
            // here and not half way.
            let applied = sqlx::query_as(
                "SELECT version, checksum, description, installed_on, success, execution_time FROM _sqlx_migrations
                 ORDER BY version",
            )
            .fetch_all(connection)
            .await?;
            Ok(Schema::Ours(applied))
        }
        Some(table) => Ok(Schema::Foreign(table.clone())),
    }
}

/// Makes the tables and indexes once more, in memory, and says what SQLite does not understand of them.
///
/// A connection that may not write leaves out every CHECK (`sqlite3AddCheckConstraint`), so the one that looks at the
/// file is content with what the one that will write to it refuses. SQLite's own tables cannot be made by hand, and those of an index
/// come with it.
async fn damage_of_schema(connection: &mut SqliteConnection) -> Result<Option<String>, sqlx::Error> {
    let made: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT CAST(sql AS BLOB) FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT GLOB 'sqlite_*' AND name NOT GLOB 'resource_words_*'
         ORDER BY rowid LIMIT 1000",
    )
    .fetch_all(connection)
    .await?;
    let mut empty = SqliteConnectOptions::new().disable_statement_logging().connect().await?;
    for text in made {
        // Ours is ASCII.
        let Ok(text) = String::from_utf8(text) else { return Ok(Some("its schema is not UTF-8".to_owned())) };
        // Its reader has parsed it as a definition already, and what it could do here it does to an empty database.
        let Err(error) = sqlx::query(AssertSqlSafe(text)).execute(&mut empty).await else { continue };
        return match error {
            sqlx::Error::Database(damage) if is_not_understood(&*damage) => Ok(Some(damage.to_string())),
            other => Err(other),
        };
    }
    Ok(None)
}

/// SQLite's general error, for what it parses and cannot make sense of: `SQLITE_ERROR`.
fn is_not_understood(error: &dyn DatabaseError) -> bool {
    error.code().is_some_and(|code| code == "1")
}

/// Damage is a finding; all else ends the start.
fn damaged_or_error(path: &Path, error: sqlx::Error) -> Result<Found, OpenError> {
    if let sqlx::Error::ColumnDecode { .. } = error {
        // A name that is no text, a version that is no number: nobody writes such a row.
        return Ok(Found::Damaged(error.to_string()));
    }
    match error::of_sqlite(error) {
        StoreError::Corrupt { detail } => Ok(Found::Damaged(detail)),
        // A table of ours without a column that it was made with, a format that no SQLite ever wrote.
        StoreError::Failed { detail }
            if detail.contains("no such column") || detail.contains("unsupported file format") =>
        {
            Ok(Found::Damaged(detail))
        }
        other => Err(open_error(path, other)),
    }
}

pub(super) fn open_error(path: &Path, error: StoreError) -> OpenError {
    let path = path.to_owned();
    match error {
        StoreError::Busy => OpenError::Busy { path },
        StoreError::DiskFull => OpenError::DiskFull { path },
        StoreError::Io { detail } => OpenError::Io { path, source: io::Error::other(detail) },
        other => OpenError::Failed { path, detail: other.to_string() },
    }
}

fn denied_or_io(path: &Path, wish: &'static str, source: io::Error) -> OpenError {
    let path = path.to_owned();
    match source.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => OpenError::Denied { path, wish },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => OpenError::DiskFull { path },
        _ => OpenError::Io { path, source },
    }
}

/// A copy of a database and its log in the same folder, removed when it is dropped.
struct Copied {
    path: PathBuf,
}

impl Copied {
    fn of(path: &Path) -> Result<Self, OpenError> {
        let copy = Self { path: beside(path, ".probe") };
        // One may be left of a start that was killed.
        copy.remove();
        for suffix in ["", "-wal"] {
            copy_private(&beside(path, suffix), &beside(&copy.path, suffix))?;
        }
        Ok(copy)
    }

    fn remove(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(beside(&self.path, suffix));
        }
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.remove();
    }
}

fn copy_private(from: &Path, to: &Path) -> Result<(), OpenError> {
    let mut source = File::open(from).map_err(|error| denied_or_io(from, "read", error))?;
    let mut target = create(to)?;
    io::copy(&mut source, &mut target).map_err(|error| denied_or_io(to, "write to", error))?;
    Ok(())
}

/// Makes a file that was not there, for its owner alone.
pub(super) fn create(path: &Path) -> Result<File, OpenError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            OpenError::Denied { path: folder(path).to_owned(), wish: "write to" }
        }
        _ => denied_or_io(path, "write to", error),
    })
}

/// Whether the file and its folder may be written: SQLite needs both, and says so in a way that helps nobody.
fn check_writable(path: &Path) -> Result<(), OpenError> {
    OpenOptions::new().append(true).open(path).map_err(|error| denied_or_io(path, "write to", error))?;
    let probe = beside(path, ".probe");
    let _ = fs::remove_file(&probe);
    create(&probe)?;
    let _ = fs::remove_file(&probe);
    Ok(())
}

fn set_aside(path: &Path, damage: String, now: Timestamp) -> Result<SetAside, OpenError> {
    let stamp = now.strftime("%Y%m%dT%H%M%SZ");
    let first = beside(path, &format!(".damaged-{stamp}"));
    let mut target = first.clone();
    for count in 2.. {
        if !target.exists() {
            break;
        }
        target = beside(&first, &format!("-{count}"));
    }
    move_with_log(path, &target).map_err(|error| denied_or_io(path, "rename", error))?;
    let _ = fs::remove_file(beside(path, "-shm"));
    error!(path = %path.display(), set_aside = %target.display(), damage, "the database is damaged; a new one is begun");
    Ok(SetAside { path: target, damage })
}

/// The log goes first: a log without its file is nothing, a file with another's log is damage.
fn move_with_log(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(beside(from, "-wal"), beside(to, "-wal")) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => fs::rename(from, to)?,
    }
    sync_folder(from)
}

/// Makes sure that a file and its name outlive the machine's power.
pub(super) fn sync_file(path: &Path) -> Result<(), OpenError> {
    let synced = File::open(path).and_then(|file| file.sync_all()).and_then(|()| sync_folder(path));
    synced.map_err(|error| denied_or_io(path, "write to", error))
}

/// Makes sure that a new name in the folder outlives the machine's power.
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// A failed start leaves what it found, as far as the disk lets it.
fn undo(path: &Path, set_aside: Option<&SetAside>, had_file: bool, had_folder: bool) {
    if set_aside.is_none() && had_file {
        return;
    }
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(beside(path, suffix));
    }
    if let Some(set_aside) = set_aside
        && let Err(error) = move_with_log(&set_aside.path, path)
    {
        error!(path = %set_aside.path.display(), %error, "the damaged database could not be put back");
    }
    if !had_folder {
        let _ = fs::remove_dir(folder(path));
    }
}

/// Removes the oldest of the files set aside that are over the bound.
fn forget_oldest(path: &Path) {
    let prefix = beside(path, ".damaged-");
    let Some(prefix) = prefix.file_name().and_then(|name| name.to_str()) else { return };
    let Ok(entries) = fs::read_dir(folder(path)) else { return };
    let is_ours = |name: &String| name.starts_with(prefix) && !name.ends_with("-wal");
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(is_ours).collect();
    names.sort_unstable();
    let surplus = names.len().saturating_sub(SET_ASIDE_MAX);
    for name in names.iter().take(surplus) {
        let old = folder(path).join(name);
        info!(path = %old.display(), "removed the oldest damaged database");
        let _ = fs::remove_file(beside(&old, "-wal"));
        let _ = fs::remove_file(old);
    }
}

/// Opens a file that was examined, or makes one.
async fn start(path: &Path, settings: &Settings) -> Result<Store, OpenError> {
    let folder = folder(path);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| denied_or_io(folder, "create", error))?;
    if !path.exists() {
        // Before SQLite does, which would ask the umask for the modes of this file and those beside it.
        create(path)?;
        sync_folder(path).map_err(|error| denied_or_io(folder, "write to", error))?;
    }
    let options = base(path)
        .busy_timeout(settings.busy_timeout)
        .journal_mode(SqliteJournalMode::Wal)
        .pragma("journal_size_limit", LOG_BYTES_KEPT);
    let mut connection = options.connect().await.map_err(|error| open_error(path, error::of_sqlite(error)))?;
    migrate(path, &mut connection).await?;
    for suffix in ["", "-wal", "-shm"] {
        tighten(&beside(path, suffix))?;
    }
    let readers = readers(path, settings);
    let database = Sqlite { writer: Writer::new(connection, Some(options)), readers: Some(readers) };
    Ok(Store { database: Database::Sqlite(Box::new(database)), settings: settings.clone() })
}

/// Takes from others what they may do with a file of ours.
fn tighten(path: &Path) -> Result<(), OpenError> {
    match fs::metadata(path) {
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => fs::set_permissions(path, Permissions::from_mode(0o600))
            .map_err(|error| denied_or_io(path, "change the mode of", error)),
        _ => Ok(()),
    }
}

async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    MIGRATIONS.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            open_error(path, error::of_sqlite(error))
        }
        MigrateError::VersionMismatch(version) => OpenError::Altered { path: path.to_owned(), version },
        other => OpenError::Failed { path: path.to_owned(), detail: other.to_string() },
    })
}

fn readers(path: &Path, settings: &Settings) -> SqlitePool {
    let options = base(path).busy_timeout(settings.busy_timeout).read_only(true);
    SqlitePoolOptions::new()
        .min_connections(0)
        .max_connections(settings.readers.max(1))
        .acquire_timeout(settings.busy_timeout)
        .connect_lazy_with(options)
}

/// What every connection to a file has in common.
pub(super) fn base(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).foreign_keys(true).disable_statement_logging()
}

/// The file beside `path` whose name is longer by `suffix`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The folder of a path that is absolute and not the root.
fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{collections::BTreeMap, os::unix::process::CommandExt, process::Command};

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::{
        Write,
        testing::{at, block_on, peer, peer_row},
    };

    /// Every file of a folder with its bytes.
    fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| (path.clone(), fs::read(&path).unwrap_or_default())).collect()
    }

    async fn open(path: &Path) -> Result<Opened, OpenError> {
        Store::open(path, &Settings::default(), at(1_000)).await
    }

    /// A closed database with 500 peers in it.
    async fn filled(folder: &Path) -> PathBuf {
        let path = folder.join("muster.db");
        let store = open(&path).await.unwrap().store;
        let writes: Vec<Write> = (0..500).map(|n| Write::Peer(peer_row(n))).collect();
        store.apply(&writes).await.unwrap();
        store.raise_seq("did:key:z", 7).await.unwrap();
        store.close().await;
        path
    }

    async fn say_newer(path: &Path) {
        let mut connection = base(path).connect().await.unwrap();
        sqlx::query("INSERT INTO _sqlx_migrations VALUES (999, 'from the future', '2030-01-01', 1, x'00', 1)")
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_new_database_is_for_its_owner_alone() {
        let temp = TempDir::new().unwrap();
        let path = temp.path().join("a b?c#d%41/data/muster.db");
        let opened = open(&path).await.unwrap();
        assert_eq!(opened.set_aside, None);
        opened.store.apply(&[Write::Peer(peer_row(1))]).await.unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder(&path)), 0o700);
        for suffix in ["", "-wal", "-shm"] {
            assert_eq!(mode(&beside(&path, suffix)), 0o600, "{suffix}");
        }
        opened.store.close().await;
        assert_eq!(contents(folder(&path)).len(), 1, "a closed database is one file");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let again = open(&path).await.unwrap();
        assert_eq!(mode(&path), 0o600, "a wider mode is taken back");
        assert_eq!(again.store.peers(10).await.unwrap().rows, [peer_row(1)]);
    }

    #[tokio::test]
    async fn who_examines_a_database_finds_its_damage_and_changes_nothing() {
        let temp = TempDir::new().unwrap();
        assert_eq!(Store::examine(&temp.path().join("muster.db")).await.unwrap(), Examined::Nothing);
        let path = filled(temp.path()).await;
        assert_eq!(Store::examine(&path).await.unwrap(), Examined::Sound);
        let mut bytes = fs::read(&path).unwrap();
        bytes.iter_mut().skip(4_096).for_each(|byte| *byte = !*byte);
        fs::write(&path, &bytes).unwrap();
        let before = contents(temp.path());
        assert!(matches!(Store::examine(&path).await.unwrap(), Examined::Damaged(_)));
        assert_eq!(contents(temp.path()), before);
    }

    #[test]
    fn opening_can_be_spawned() {
        fn is_send(_: &impl Send) {}
        let settings = Settings::default();
        is_send(&Store::open(Path::new("/"), &settings, at(0)));
        is_send(&Store::in_memory(&settings));
    }

    #[tokio::test]
    async fn a_promise_is_synced_and_a_memory_is_not() {
        let temp = TempDir::new().unwrap();
        let store = open(&temp.path().join("muster.db")).await.unwrap().store;
        for (is_durable, expected) in [(false, 1), (true, 2), (false, 1)] {
            let mut turn = store.sqlite().writer.turn(is_durable).await.unwrap();
            let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(turn.connection()).await.unwrap();
            let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(turn.connection()).await.unwrap();
            let foreign: i64 = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(turn.connection()).await.unwrap();
            assert_eq!((synchronous, journal.as_str(), foreign), (expected, "wal", 1));
            turn.end(Ok(())).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_newer_database_is_left_byte_for_byte() {
        let temp = TempDir::new().unwrap();
        let path = filled(temp.path()).await;
        say_newer(&path).await;
        let before = contents(temp.path());
        let error = open(&path).await.unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 999, known: 7, .. }), "{error}");
        assert_eq!(contents(temp.path()), before);
    }

    #[tokio::test]
    async fn a_newer_database_that_was_killed_is_left_byte_for_byte() {
        let temp = TempDir::new().unwrap();
        let path = filled(temp.path()).await;
        // A second connection keeps the first from folding the log into the file.
        let mut holder = base(&path).connect().await.unwrap();
        sqlx::query("SELECT count(*) FROM peers").fetch_one(&mut holder).await.unwrap();
        say_newer(&path).await;
        let killed = temp.path().join("killed");
        fs::create_dir(&killed).unwrap();
        for suffix in ["", "-wal"] {
            fs::copy(beside(&path, suffix), beside(&killed.join("muster.db"), suffix)).unwrap();
        }
        let before = contents(&killed);
        assert!(before[&killed.join("muster.db-wal")].len() > 32, "the news is in the log");
        let error = open(&killed.join("muster.db")).await.unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 999, .. }), "{error}");
        assert_eq!(contents(&killed), before);
    }

    #[tokio::test]
    async fn what_was_committed_is_there_after_a_kill() {
        let temp = TempDir::new().unwrap();
        let path = temp.path().join("muster.db");
        let store = open(&path).await.unwrap().store;
        store.apply(&[Write::Peer(peer_row(1))]).await.unwrap();
        store.raise_seq("did:key:z", 41).await.unwrap();
        let killed = temp.path().join("killed.db");
        for suffix in ["", "-wal"] {
            fs::copy(beside(&path, suffix), beside(&killed, suffix)).unwrap();
        }
        // As a start that was killed while it looked leaves it.
        fs::write(beside(&killed, ".probe"), "half a copy").unwrap();
        let opened = open(&killed).await.unwrap();
        assert_eq!(opened.set_aside, None);
        assert_eq!(opened.store.peers(10).await.unwrap().rows, [peer_row(1)]);
        assert_eq!(opened.store.seq("did:key:z").await.unwrap(), Some(41));
        assert!(!beside(&killed, ".probe").exists());
    }

    #[tokio::test]
    async fn a_migration_that_was_edited_is_refused() {
        let temp = TempDir::new().unwrap();
        let path = filled(temp.path()).await;
        let mut connection = base(&path).connect().await.unwrap();
        sqlx::query("UPDATE _sqlx_migrations SET checksum = x'00'").execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let before = contents(temp.path());
        assert!(matches!(open(&path).await.unwrap_err(), OpenError::Altered { version: 1, .. }));
        assert_eq!(contents(temp.path()), before);
    }

    #[tokio::test]
    async fn a_damaged_file_is_set_aside_and_a_new_one_begun() {
        let sound = TempDir::new().unwrap();
        let path = filled(sound.path()).await;
        let bytes = fs::read(&path).unwrap();
        let pages = bytes.len() / 4_096;
        assert!(pages > 20, "{pages}");
        let overwritten = |from: usize, count: usize| {
            let mut bytes = bytes.clone();
            bytes[from..from + count].fill(0xa5);
            bytes
        };
        let cases: [(&str, Vec<u8>); 10] = [
            ("magic", overwritten(0, 16)),
            ("whole first page", overwritten(0, 4_096)),
            ("page size", overwritten(16, 2)),
            ("format of the schema", overwritten(47, 1)),
            ("root of the schema", overwritten(100, 64)),
            ("second page", overwritten(4_096, 512)),
            ("middle page", overwritten(4_096 * (pages / 2), 512)),
            ("last page", overwritten(4_096 * (pages - 1), 512)),
            ("cut to a half", bytes[..bytes.len() / 2].to_vec()),
            ("cut within a page", bytes[..4_096 * 3 + 100].to_vec()),
        ];
        for (case, damaged) in cases {
            let temp = TempDir::new().unwrap();
            let path = temp.path().join("muster.db");
            fs::write(&path, &damaged).unwrap();
            let opened = open(&path).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            let set_aside = opened.set_aside.unwrap_or_else(|| panic!("{case}: taken for sound"));
            assert_eq!(set_aside.path, temp.path().join("muster.db.damaged-19700101T001640Z"), "{case}");
            assert!(!set_aside.damage.is_empty(), "{case}");
            assert_eq!(fs::read(&set_aside.path).unwrap(), damaged, "{case}");
            assert_eq!(opened.store.peers(10).await.unwrap().rows, [], "{case}");
            opened.store.apply(&[Write::Peer(peer_row(3))]).await.unwrap();
            opened.store.close().await;
            let again = open(&path).await.unwrap();
            assert_eq!(again.set_aside, None, "{case}");
            assert_eq!(again.store.peers(10).await.unwrap().rows, [peer_row(3)], "{case}");
        }
    }

    /// The file with `to` written over the beginning of each `from` in it: a page that was split keeps what moved away.
    fn replaced(bytes: &[u8], from: &str, to: &[u8]) -> Vec<u8> {
        let is_here = |place: &usize| bytes[*place..].starts_with(from.as_bytes());
        let places: Vec<usize> = (0..bytes.len()).filter(is_here).collect();
        assert!(!places.is_empty());
        let mut bytes = bytes.to_vec();
        for place in places {
            bytes[place..place + to.len()].copy_from_slice(to);
        }
        bytes
    }

    #[tokio::test]
    async fn a_byte_of_the_schema_that_only_a_writer_would_miss_is_found_before() {
        let temp = TempDir::new().unwrap();
        let sound = fs::read(filled(temp.path()).await).unwrap();
        let cases: [(&str, Vec<u8>); 6] = [
            ("a column that its check asks for", replaced(&sound, "succeeded      INTEGER", b"r")),
            ("the column that a check asks for", replaced(&sound, "succeeded >= 0", b"r")),
            ("a check that became a function", replaced(&sound, "is_node IN (0", b"is_node_IN")),
            ("a column that is not UTF-8", replaced(&sound, "succeeded      INTEGER", b"\xf3")),
            // In the row's header: the types of `type`, `name`, `tbl_name` and `rootpage`, 30 for a blob of 9 bytes.
            ("a name that is no text", replaced(&sound, "\x17\x1f\x1f\x01", b"\x17\x1e")),
            ("a check that is not UTF-8", replaced(&sound, "succeeded >= 0", b"\xf3")),
        ];
        for (case, damaged) in cases {
            let temp = TempDir::new().unwrap();
            let path = temp.path().join("muster.db");
            fs::write(&path, &damaged).unwrap();
            let opened = open(&path).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            let set_aside = opened.set_aside.unwrap_or_else(|| panic!("{case}: taken for sound"));
            assert_eq!(fs::read(&set_aside.path).unwrap(), damaged, "{case}");
            assert_eq!(opened.store.peers(10).await.unwrap().rows, [], "{case}");
        }
    }

    #[tokio::test]
    async fn an_index_that_points_nowhere_is_found_before() {
        let temp = TempDir::new().unwrap();
        let path = filled(temp.path()).await;
        let mut connection = base(&path).connect().await.unwrap();
        let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex__sqlx_migrations_1'";
        let page: i64 = sqlx::query_scalar(root).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let mut bytes = fs::read(&path).unwrap();
        // The first entry ends its page: header of 3 bytes, version 1, row 1. There is no row 0.
        let end = usize::try_from(page).unwrap() * 4_096;
        assert_eq!(bytes[end - 3..end], [3, 9, 9]);
        bytes[end - 1] = 8;
        fs::write(&path, &bytes).unwrap();
        let opened = open(&path).await.unwrap();
        assert_eq!(fs::read(opened.set_aside.unwrap().path).unwrap(), bytes);
    }

    #[tokio::test]
    async fn tables_of_sqlite_itself_and_an_index_of_the_operator_are_no_damage() {
        let temp = TempDir::new().unwrap();
        let path = filled(temp.path()).await;
        let mut connection = base(&path).connect().await.unwrap();
        for change in ["CREATE INDEX \"by näme\" ON peers (name) WHERE name > ''", "ANALYZE"] {
            sqlx::query(change).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
        let opened = open(&path).await.unwrap();
        assert_eq!(opened.set_aside, None);
        assert_eq!(opened.store.peers(1_000).await.unwrap().rows.len(), 500);
    }

    #[tokio::test]
    async fn damaged_files_are_kept_up_to_a_bound() {
        let temp = TempDir::new().unwrap();
        let path = temp.path().join("muster.db");
        for n in 0..=SET_ASIDE_MAX {
            fs::write(&path, vec![u8::try_from(n).unwrap() + 1; 4_096]).unwrap();
            // All within the second, so that names have to differ by their count.
            let opened = open(&path).await.unwrap();
            assert!(opened.set_aside.is_some());
            opened.store.close().await;
        }
        let mut kept: Vec<u8> =
            contents(temp.path()).into_iter().filter(|(name, _)| *name != path).map(|(_, bytes)| bytes[0]).collect();
        kept.sort_unstable();
        assert_eq!(kept, [2, 3, 4, 5, 6], "the oldest is gone");
    }

    #[test]
    fn any_changed_byte_is_set_aside_or_does_no_harm() {
        let temp = TempDir::new().unwrap();
        let sound = block_on(async { fs::read(filled(temp.path()).await).unwrap() });
        let config = ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8))| {
            let mut bytes = sound.clone();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            let temp = TempDir::new().unwrap();
            let path = temp.path().join("muster.db");
            fs::write(&path, &bytes).unwrap();
            block_on(async {
                match open(&path).await {
                    Ok(opened) => {
                        // A cell's content is not SQLite's to check: a row may be other or left out, and nothing breaks.
                        let _ = opened.store.peers(1_000).await;
                        let _ = opened.store.seq("did:key:z").await;
                        let _ = opened.store.apply(&[Write::Peer(peer_row(1))]).await;
                        opened.store.close().await;
                    }
                    // The change hit the list of migrations.
                    Err(OpenError::Newer { .. } | OpenError::Altered { .. } | OpenError::Foreign { .. }) => {
                        assert_eq!(fs::read(&path).unwrap(), bytes);
                    }
                    Err(error) => panic!("{error:?}"),
                }
            });
        });
    }

    #[tokio::test]
    async fn what_is_no_database_of_ours_is_left_alone() {
        let temp = TempDir::new().unwrap();
        let path = temp.path().join("identity.pem");
        fs::write(&path, "-----BEGIN PRIVATE KEY-----\n").unwrap();
        let folder = temp.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let foreign = temp.path().join("foreign.db");
        let mut connection = base(&foreign).create_if_missing(true).connect().await.unwrap();
        sqlx::query("CREATE TABLE invoices (id INTEGER)").execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let before = contents(temp.path());
        assert!(matches!(open(&path).await.unwrap_err(), OpenError::NotADatabase { .. }));
        assert!(matches!(open(&folder).await.unwrap_err(), OpenError::IsDirectory { .. }));
        assert!(matches!(open(Path::new("/dev/null")).await.unwrap_err(), OpenError::NotAFile { .. }));
        let error = open(&foreign).await.unwrap_err();
        assert!(matches!(&error, OpenError::Foreign { table, .. } if table == "invoices"), "{error}");
        assert!(!error.remedy().is_empty());
        assert_eq!(contents(temp.path()), before);
    }

    #[tokio::test]
    async fn an_empty_file_becomes_a_database() {
        let temp = TempDir::new().unwrap();
        let path = temp.path().join("muster.db");
        fs::write(&path, "").unwrap();
        let opened = open(&path).await.unwrap();
        assert_eq!(opened.set_aside, None);
        opened.store.ping().await.unwrap();
    }

    #[tokio::test]
    async fn a_failed_start_leaves_nothing_behind() {
        let temp = TempDir::new().unwrap();
        let path = temp.path().join("new/muster.db");
        // A folder where the log belongs makes SQLite fail after the file was made.
        fs::create_dir_all(beside(&path, "-wal/full")).unwrap();
        let before = contents(folder(&path));
        open(&path).await.unwrap_err();
        assert_eq!(contents(folder(&path)), before);
        // And a damaged file is put back.
        fs::write(&path, vec![1; 4_096]).unwrap();
        fs::remove_dir_all(beside(&path, "-wal")).unwrap();
        fs::create_dir_all(beside(&path, "-shm/full")).unwrap();
        let before = contents(folder(&path));
        open(&path).await.unwrap_err();
        assert_eq!(contents(folder(&path)), before);
    }

    #[tokio::test]
    async fn a_lock_of_another_process_is_said() {
        let temp = TempDir::new().unwrap();
        let path = filled(temp.path()).await;
        let mut other = base(&path).connect().await.unwrap();
        sqlx::query("PRAGMA locking_mode = EXCLUSIVE").execute(&mut other).await.unwrap();
        sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
        sqlx::query("UPDATE seqs SET seq = seq").execute(&mut other).await.unwrap();
        let settings = Settings { busy_timeout: std::time::Duration::from_millis(10), ..Settings::default() };
        let error = Store::open(&path, &settings, at(1)).await.unwrap_err();
        assert!(matches!(error, OpenError::Busy { .. }), "{error:?}");
    }

    /// The name of the variable that tells the test below that it runs without root's rights.
    const UNPRIVILEGED: &str = "MUSTER_STORE_TEST_UNPRIVILEGED";

    #[test]
    fn a_folder_or_file_without_permission_is_named() {
        let temp = TempDir::new().unwrap();
        let is_root = fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
        if is_root && std::env::var_os(UNPRIVILEGED).is_none() {
            // Root may write anywhere, so the test runs itself again as nobody, from a place that nobody can reach.
            fs::set_permissions(temp.path(), Permissions::from_mode(0o777)).unwrap();
            let program = temp.path().join("test");
            fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
            fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
            let output = Command::new(program)
                .args(["--exact", "sqlite::open::tests::a_folder_or_file_without_permission_is_named"])
                .env(UNPRIVILEGED, "1")
                .env("TMPDIR", temp.path())
                .current_dir(temp.path())
                .uid(65_534)
                .gid(65_534)
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
            return;
        }
        block_on(async {
            let path = filled(temp.path()).await;
            let before = contents(temp.path());
            let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            let denied = |error: OpenError, expected: &Path| {
                assert!(matches!(&error, OpenError::Denied { path, .. } if path == expected), "{error:?}");
            };
            mode(temp.path(), 0o500);
            denied(open(&path).await.unwrap_err(), temp.path());
            denied(open(&temp.path().join("other.db")).await.unwrap_err(), temp.path());
            denied(open(&temp.path().join("new/other.db")).await.unwrap_err(), &temp.path().join("new"));
            mode(temp.path(), 0o700);
            mode(&path, 0o400);
            denied(open(&path).await.unwrap_err(), &path);
            mode(&path, 0o000);
            denied(open(&path).await.unwrap_err(), &path);
            mode(&path, 0o600);
            assert_eq!(contents(temp.path()), before);
        });
    }

    #[tokio::test]
    async fn a_path_that_sqlite_cannot_read_is_refused() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let error = open(Path::new(OsStr::from_bytes(b"/tmp/\xff/muster.db"))).await.unwrap_err();
        assert!(matches!(error, OpenError::NotUtf8 { .. }));
    }

    #[tokio::test]
    async fn a_closed_store_says_so() {
        let temp = TempDir::new().unwrap();
        let store = open(&temp.path().join("muster.db")).await.unwrap().store;
        store.close().await;
        assert!(matches!(store.ping().await.unwrap_err(), StoreError::Closed));
        assert!(matches!(store.apply(&[Write::ForgetPeer(peer(1))]).await.unwrap_err(), StoreError::Closed));
    }
}
