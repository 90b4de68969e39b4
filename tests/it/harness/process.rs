//! Runs of the binary: verbs, and daemons that should not start.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use super::until;

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit code; none after a signal.
    pub(crate) code: Option<i32>,
    /// What it wrote to its output.
    pub(crate) out: String,
    /// What it wrote to its error output.
    pub(crate) err: String,
    /// How long it ran.
    pub(crate) took: Duration,
}

impl Ended {
    /// The output as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The output as JSON lines.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"));
        self.out.lines().map(read).collect()
    }

    /// The same run, if it ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

/// The binary with nothing of the test's own environment that could be a setting.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.env_clear().stdin(Stdio::null());
    for name in ["PATH", "HOME", "RUST_BACKTRACE", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Runs a verb to its end.
#[track_caller]
pub(crate) fn muster(args: &[&str]) -> Ended {
    muster_in(Path::new("/"), &[], args)
}

/// Runs a verb in a folder, with these variables.
#[track_caller]
pub(crate) fn muster_in(folder: &Path, variables: &[(&str, &str)], args: &[&str]) -> Ended {
    let child = command()
        .current_dir(folder)
        .envs(variables.iter().copied())
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The longest verb is `kill`, which tells a story of up to 180 s.
    wait_with_deadline(child, Duration::from_secs(200))
}

/// Waits for a run that should end by itself, and reads what it wrote.
#[track_caller]
pub(crate) fn wait_with_deadline(mut child: Child, patience: Duration) -> Ended {
    let began = Instant::now();
    let out = child.stdout.take().map(reader);
    let err = child.stderr.take().map(reader);
    let status = wait_status(&mut child, patience);
    let text =
        |reader: Option<std::thread::JoinHandle<String>>| reader.map(|it| it.join().unwrap()).unwrap_or_default();
    let Some(status) = status else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("still running after {patience:?}: {}\n{}", text(out), text(err));
    };
    Ended { code: status.code(), out: text(out), err: text(err), took: began.elapsed() }
}

/// Waits for the end, and gives up after `patience`.
pub(crate) fn wait_status(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if began.elapsed() > patience {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn reader(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Every file below a folder with its mode and content, to show that nothing changed.
pub(crate) fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (u32, Option<Vec<u8>>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = metadata.is_file().then(|| fs::read(&path).unwrap());
            if metadata.is_dir() {
                folders.push(path.clone());
            }
            found.insert(path, (metadata.mode() & 0o7777, content));
        }
    }
    found
}

/// Permission bits of a file, as `ls` and people write them.
pub(crate) fn shown_mode(path: &Path) -> String {
    format!("{:o}", fs::metadata(path).unwrap().mode() & 0o777)
}

/// Waits until nothing listens on a port.
#[track_caller]
pub(crate) fn until_free(port: u16, patience: Duration) {
    until("the port is free again", patience, || std::net::TcpListener::bind(("127.0.0.1", port)).ok());
}
