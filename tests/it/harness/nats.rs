//! A NATS server of the test's own, which is killed and started again as the test likes.

use std::{
    fs::File,
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{PATIENCE, Port, skip, until_true};

/// A server in a process of its own, gone with the test.
pub(crate) struct Nats {
    program: PathBuf,
    folder: TempDir,
    port: Port,
    has_streams: bool,
    process: Option<Child>,
}

impl Nats {
    /// One with JetStream that runs; nothing where there is none to start, which is said by the test's name.
    pub(crate) fn started(test: &str) -> Option<Self> {
        Self::configured(test, true, "")
    }

    /// The same with these lines of its own configuration, with JetStream or without.
    pub(crate) fn configured(test: &str, has_streams: bool, lines: &str) -> Option<Self> {
        let Some(program) = program() else {
            skip(test, "there is no nats-server");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("muster-nats-").tempdir().unwrap();
        std::fs::write(folder.path().join("nats.conf"), lines).unwrap();
        let mut server = Self { program, folder, port: Port::free(), has_streams, process: None };
        server.start();
        Some(server)
    }

    /// Starts it where it was, with what it kept.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.args(["-a", "127.0.0.1", "-p", &self.port.number.to_string(), "-c"]);
        command.arg(self.folder.path().join("nats.conf"));
        if self.has_streams {
            command.arg("-js").arg("-sd").arg(self.folder.path().join("kept"));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        until_true("the bus answers", PATIENCE, || TcpStream::connect(("127.0.0.1", self.port.number)).is_ok());
    }

    /// Kills it without a word.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// What it said of itself.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Where it answers.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port.number)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let common = ["/usr/sbin", "/usr/local/bin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(common).map(|folder| folder.join("nats-server")).find(|file| file.is_file())
}
