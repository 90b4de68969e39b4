//! From a URL to a database that is ours: looked at without being changed, then locked, migrated and signed.

use std::time::Duration;

use protocol::{PeerId, Timestamp};
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

use super::{GRACE, Postgres, writer::Writer};
use crate::{
    OpenError, Opened, Settings, Store, StoreError,
    repository::Database,
    session::{Session, values},
};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");

/// The first half of the lock's number, so that it is no other program's: "must" in ASCII. The second is the schema.
const LOCK: i64 = 0x6d75_7374;

/// A table of a million rows gets its index within this, on a disk that is slow.
const MIGRATION_MAX: Duration = Duration::from_secs(600);

/// SQLSTATE for a database that is not there.
const NO_SUCH_DATABASE: &str = "3D000";

/// The class of SQLSTATE for a user or password that is refused.
const LOGIN_REFUSED: &str = "28";

/// The only encoding in which every text of ours can be kept.
const ENCODING: &str = "UTF8";

impl Store {
    /// Opens the database at a `postgresql://` URL for the member `own`, and makes its tables where there are none.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing in the database was changed then.
    pub async fn connect(url: &str, own: &PeerId, settings: &Settings, now: Timestamp) -> Result<Opened, OpenError> {
        let options = options(url, settings)?;
        let place = place(&options);
        let patience = settings.busy_timeout + GRACE;
        let mut connection = match timeout(patience, options.connect()).await {
            Ok(connected) => connected.map_err(|error| unusable(&place, &options, &error))?,
            Err(_) => {
                let detail = format!("no answer within {patience:?}");
                return Err(OpenError::Unreachable { place, detail });
            }
        };
        let started = start(&mut connection, &place, own, patience, now).await;
        if let Err(error) = started {
            drop(timeout(GRACE, connection.close()).await);
            return Err(error);
        }
        let readers = readers(&options, settings);
        let writer = Writer::new(connection, options, own.to_string(), patience);
        let database = Database::Postgres(Box::new(Postgres { place, writer, readers, patience }));
        Ok(Opened { store: Self { database, settings: settings.clone() }, set_aside: None })
    }
}

/// What every connection has in common. The server ends by itself what takes too long.
fn options(url: &str, settings: &Settings) -> Result<PgConnectOptions, OpenError> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(OpenError::BadUrl { detail: "it does not begin with postgresql://".to_owned() });
    }
    // The words of the parser are not passed on: they may hold a part of the URL, which may hold a password.
    let options: PgConnectOptions =
        url.parse().map_err(|_| OpenError::BadUrl { detail: "it is no URL of a PostgreSQL database".to_owned() })?;
    let longest = settings.busy_timeout.as_millis().to_string();
    let longest_idle = (settings.busy_timeout + GRACE).as_millis().to_string();
    Ok(options
        .application_name("muster")
        .options([
            ("statement_timeout", longest.as_str()),
            ("lock_timeout", longest.as_str()),
            // A writer that was frozen must not keep its locks from the one that took its place.
            ("idle_in_transaction_session_timeout", longest_idle.as_str()),
            ("client_min_messages", "warning"),
        ])
        .disable_statement_logging())
}

/// Where it is, in words without a password.
fn place(options: &PgConnectOptions) -> String {
    let host = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => options.get_host().to_owned(),
    };
    format!(
        "postgresql://{}@{host}:{}/{}",
        options.get_username(),
        options.get_port(),
        options.get_database().unwrap_or(options.get_username())
    )
}

fn readers(options: &PgConnectOptions, settings: &Settings) -> PgPool {
    PgPoolOptions::new()
        .min_connections(0)
        .max_connections(settings.readers.max(1))
        .acquire_timeout(settings.busy_timeout)
        .connect_lazy_with(options.clone().options([("default_transaction_read_only", "on")]))
}

/// Takes the lock, looks whose the tables are, and brings them up to date.
async fn start(
    connection: &mut PgConnection,
    place: &str,
    own: &PeerId,
    patience: Duration,
    now: Timestamp,
) -> Result<(), OpenError> {
    let mut session = Session::Postgres { connection: &mut *connection, patience };
    let failed = |error: StoreError| OpenError::Failed { path: place.into(), detail: error.to_string() };
    let encoding = session.fetch_first("SHOW server_encoding", values![]).await.map_err(failed)?;
    let encoding = encoding.and_then(|row| row.text("server_encoding").map(str::to_owned)).unwrap_or_default();
    if encoding != ENCODING {
        let detail = format!("got the encoding {encoding}, expected {ENCODING}");
        return Err(OpenError::Failed { path: place.into(), detail });
    }
    if !lock(&mut session).await.map_err(failed)? {
        return Err(OpenError::Busy { path: place.into() });
    }
    let tables = tables(&mut session).await.map_err(failed)?;
    if tables.iter().any(|table| table == "_sqlx_migrations") {
        check_migrations(&mut session, place).await?;
        if let Some(owner) = owner(&mut session, &tables).await.map_err(failed)?
            && owner != own.to_string()
        {
            return Err(OpenError::AnotherMembers { place: place.to_owned(), owner, own: own.to_string() });
        }
    } else if let Some(table) = tables.into_iter().next() {
        return Err(OpenError::Foreign { path: place.into(), table });
    }
    migrate(connection, place).await?;
    let mut session = Session::Postgres { connection, patience };
    let sql = "INSERT INTO owner (is_only, peer_id, since_ms) VALUES (1, $1, $2) ON CONFLICT (is_only) DO NOTHING";
    session.execute(sql, values![own, now]).await.map_err(failed)?;
    Ok(())
}

/// Takes the lock again after the connection that held it was lost, if it is free and the tables are still ours.
pub(super) async fn retake(connection: &mut PgConnection, own: &str, patience: Duration) -> Result<(), StoreError> {
    let mut session = Session::Postgres { connection, patience };
    if !lock(&mut session).await? {
        return Err(StoreError::Away { detail: "another session holds the lock of the database".to_owned() });
    }
    let row = session.fetch_first("SELECT peer_id FROM owner", values![]).await?;
    match row.as_ref().and_then(|row| row.text("peer_id")) {
        Some(owner) if owner == own => Ok(()),
        _ => Err(StoreError::Away { detail: "the database is another member's now".to_owned() }),
    }
}

/// Held for as long as the connection lasts: whoever else comes is refused. It is waited for, since the server may not
/// have seen yet that the process before this one is gone.
async fn lock(session: &mut Session<'_>) -> Result<bool, StoreError> {
    let sql = "SELECT pg_advisory_lock($1::int, hashtext(coalesce(current_schema(), '')))";
    match session.fetch(sql, values![LOCK]).await {
        Ok(_) => Ok(true),
        Err(StoreError::Busy) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn tables(session: &mut Session<'_>) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT tablename::text AS name FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1 LIMIT 1000";
    let rows = session.fetch(sql, values![]).await?;
    Ok(rows.iter().filter_map(|row| row.text("name").map(str::to_owned)).collect())
}

async fn owner(session: &mut Session<'_>, tables: &[String]) -> Result<Option<String>, StoreError> {
    if !tables.iter().any(|table| table == "owner") {
        return Ok(None);
    }
    let row = session.fetch_first("SELECT peer_id FROM owner", values![]).await?;
    Ok(row.and_then(|row| row.text("peer_id").map(str::to_owned)))
}

async fn check_migrations(session: &mut Session<'_>, place: &str) -> Result<(), OpenError> {
    let sql = "SELECT version, checksum FROM _sqlx_migrations ORDER BY version";
    let applied = session
        .fetch(sql, values![])
        .await
        .map_err(|error| OpenError::Failed { path: place.into(), detail: error.to_string() })?;
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    for row in &applied {
        let version = row.int("version").unwrap_or_default();
        let Some(migration) = MIGRATIONS.iter().find(|migration| migration.version == version) else {
            let found = applied.iter().filter_map(|row| row.int("version")).max().unwrap_or(version);
            return Err(OpenError::Newer { path: place.into(), found, known });
        };
        if row.bytes("checksum") != Some(&*migration.checksum) {
            return Err(OpenError::Altered { path: place.into(), version });
        }
    }
    Ok(())
}

async fn migrate(connection: &mut PgConnection, place: &str) -> Result<(), OpenError> {
    let failed = |detail: String| OpenError::Failed { path: place.into(), detail };
    let longer = sqlx::raw_sql("SET statement_timeout = 0").execute(&mut *connection).await;
    longer.map_err(|error| failed(error.to_string()))?;
    let migrated = match timeout(MIGRATION_MAX, MIGRATIONS.run_direct(None, connection, false)).await {
        Ok(migrated) => migrated,
        Err(_) => return Err(failed(format!("no end of the migration within {MIGRATION_MAX:?}"))),
    };
    migrated.map_err(|error| match error {
        MigrateError::VersionMismatch(version) => OpenError::Altered { path: place.into(), version },
        other => failed(other.to_string()),
    })?;
    let usual = sqlx::raw_sql("RESET statement_timeout").execute(connection).await;
    usual.map(|_| ()).map_err(|error| failed(error.to_string()))
}

/// Why there is no connection, as far as it can be told.
fn unusable(place: &str, options: &PgConnectOptions, error: &sqlx::Error) -> OpenError {
    let place = place.to_owned();
    let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
    match &*code {
        NO_SUCH_DATABASE => {
            OpenError::NoSuchDatabase { name: options.get_database().unwrap_or_default().to_owned(), place }
        }
        code if code.starts_with(LOGIN_REFUSED) => OpenError::LoginRefused { place, detail: error.to_string() },
        _ => OpenError::Unreachable { place, detail: error.to_string() },
    }
}
