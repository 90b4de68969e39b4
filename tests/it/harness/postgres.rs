//! A PostgreSQL server of the test's own: the same script that the store's own tests use.

#![allow(dead_code, clippy::unwrap_used, reason = "each of the programs that share this file uses a part of it")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use super::skip;

/// Starts, stops and removes it, and outlives this process for as long as that takes.
const SCRIPT: &str = include_str!("../../../store/src/testing/server.sh");

/// A server that runs until this is dropped, or the process ends.
pub(crate) struct Postgres {
    folder: PathBuf,
    script: Child,
    answers: BufReader<ChildStdout>,
}

impl Postgres {
    /// One that runs; nothing where there is none to start, which is said by the test's name. It writes to the disk when
    /// it likes, as tests do not cut its power.
    pub(crate) fn started(test: &str) -> Option<Self> {
        Self::with_fsync(test, "off")
    }

    /// The same, which waits for the disk at each commit.
    pub(crate) fn durable(test: &str) -> Option<Self> {
        Self::with_fsync(test, "on")
    }

    fn with_fsync(test: &str, fsync: &str) -> Option<Self> {
        let Some(programs) = programs() else {
            skip(test, "there is no PostgreSQL server");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("muster-pg-").tempdir().unwrap().keep();
        let template = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres-cluster");
        let mut script = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .args([&programs, &folder, &template])
            .arg(fsync)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let answers = BufReader::new(script.stdout.take().unwrap());
        let mut server = Self { folder, script, answers };
        assert_eq!(server.answer(), "started");
        Some(server)
    }

    /// Ends it at once, as the loss of its power would (`kill`); or starts it again (`start`), stops all its processes
    /// (`freeze`), lets them go on (`thaw`).
    #[track_caller]
    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.script.stdin.as_mut().unwrap(), "{command}").unwrap();
        assert_eq!(self.answer(), "0", "{command}");
    }

    fn answer(&mut self) -> String {
        let mut said = String::new();
        self.answers.read_line(&mut said).unwrap();
        said.trim().to_owned()
    }

    /// The URL of the database that every cluster has.
    pub(crate) fn url(&self) -> String {
        let folder = self.folder.to_str().unwrap().replace('/', "%2F");
        format!("postgresql://muster@{folder}/postgres")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It closes the script's input, which ends the server.
        let _ = self.script.wait();
    }
}

/// The folder of `initdb` and `pg_ctl`.
fn programs() -> Option<PathBuf> {
    let has = |folder: &Path| folder.join("initdb").is_file() && folder.join("pg_ctl").is_file();
    let on_path = std::env::var_os("PATH").and_then(|path| std::env::split_paths(&path).find(|folder| has(folder)));
    on_path.or_else(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let mut folders: Vec<PathBuf> = versions.flatten().map(|version| version.path().join("bin")).collect();
        folders.sort();
        folders.into_iter().rev().find(|folder| has(folder))
    })
}
