//! A PostgreSQL server of the test process's own, on a socket in a folder that goes with it.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
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
    script: Mutex<Child>,
    answers: Mutex<BufReader<ChildStdout>>,
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
            .args([&programs, &folder, &template(&programs)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let answers = Mutex::new(BufReader::new(script.stdout.take().unwrap()));
        let server = Self { folder, script: Mutex::new(script), answers, databases: AtomicU32::new(0) };
        match server.answer() {
            said if said == "started" => Ok(server),
            said => Err(format!("PostgreSQL does not start: {said}")),
        }
    }

    /// Ends it at once, as the loss of its power would; or starts it again, stops all its processes, lets them go on.
    pub(crate) fn tell(&self, command: &str) {
        writeln!(self.script.lock().unwrap().stdin.as_mut().unwrap(), "{command}").unwrap();
        assert_eq!(self.answer(), "0", "{command}");
    }

    fn answer(&self) -> String {
        let mut said = String::new();
        self.answers.lock().unwrap().read_line(&mut said).unwrap();
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

impl Drop for Server {
    fn drop(&mut self) {
        // It closes the script's input, which ends the server.
        let _ = self.script.lock().unwrap().wait();
    }
}

/// Where an empty database cluster of this version of the server is kept.
fn template(programs: &Path) -> PathBuf {
    let version = Command::new(programs.join("initdb")).arg("--version").output().unwrap().stdout;
    let version: String = String::from_utf8_lossy(&version).chars().filter(char::is_ascii_alphanumeric).collect();
    env::current_exe().unwrap().with_file_name(format!("cluster-{version}"))
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
