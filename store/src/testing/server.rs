//! A PostgreSQL server of the test process's own, on a socket in a folder that goes with it.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, postgres::PgConnectOptions};

/// The folder to which a test that cannot run here says so; `tests/run` counts what it finds there.
const SKIPPED: &str = "MUSTER_TESTS_SKIPPED";

/// Starts, stops and removes it, and outlives this process for as long as that takes.
const SCRIPT: &str = include_str!("server.sh");

/// A server that runs until this is dropped, or the process ends.
pub(crate) struct Server {
    folder: PathBuf,
    line: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    databases: AtomicU32,
}

impl Server {
    /// The one of this process.
    pub(crate) fn shared() -> Result<&'static Self, &'static str> {
        static SHARED: OnceLock<Result<Server, String>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref().map_err(String::as_str)
    }

    /// One for a test that ends it now and then; why there is none when there is none.
    pub(crate) fn start() -> Result<Self, String> {
        let programs = programs().ok_or("there is no PostgreSQL server: apt-get install postgresql")?;
        let folder = tempfile::Builder::new().prefix("muster-pg-").tempdir().unwrap().keep();
        let mut script = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .args([&programs, &folder])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let line = (script.stdin.take().unwrap(), BufReader::new(script.stdout.take().unwrap()));
        let server = Self { folder, line: Mutex::new(line), databases: AtomicU32::new(0) };
        match server.answer() {
            said if said == "started" => Ok(server),
            said => Err(format!("PostgreSQL does not start: {said}")),
        }
    }

    /// Ends it at once, as the loss of its power would; or starts it again, stops all its processes, lets them go on.
    pub(crate) fn tell(&self, command: &str) {
        writeln!(self.line.lock().unwrap().0, "{command}").unwrap();
        assert_eq!(self.answer(), "0", "{command}");
    }

    fn answer(&self) -> String {
        let mut said = String::new();
        self.line.lock().unwrap().1.read_line(&mut said).unwrap();
        said.trim().to_owned()
    }

    /// The URL of one of its databases.
    pub(crate) fn url(&self, database: &str) -> String {
        let folder = self.folder.to_str().unwrap().replace('/', "%2F");
        format!("postgresql://muster:s3cret@{folder}/{database}")
    }

    /// The URL of a database that nobody has used.
    pub(crate) async fn fresh(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.run("postgres", format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    /// Runs statements by a hand that is not ours.
    pub(crate) async fn run(&self, database: &str, sql: String) {
        let options: PgConnectOptions = self.url(database).parse().unwrap();
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

/// The folder of `initdb` and `pg_ctl`.
fn programs() -> Option<PathBuf> {
    let has = |folder: &Path| folder.join("initdb").is_file() && folder.join("pg_ctl").is_file();
    let on_path = env::var_os("PATH").and_then(|path| env::split_paths(&path).find(|folder| has(folder)));
    on_path.or_else(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let mut folders: Vec<PathBuf> = versions.flatten().map(|version| version.path().join("bin")).collect();
        folders.sort();
        folders.into_iter().rev().find(|folder| has(folder))
    })
}

/// Says that a test cannot run here.
pub(crate) fn skip(name: &str, why: &str) {
    let Some(folder) = env::var_os(SKIPPED) else {
        panic!("{name} cannot run here, and nobody counts what is skipped: {why}");
    };
    fs::write(PathBuf::from(folder).join(name.replace("::", "-")), why).unwrap();
}
