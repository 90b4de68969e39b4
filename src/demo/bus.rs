//! A bus for each organisation of the demo, where this machine has what it takes.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tokio::process::Command;

/// Where Debian puts programs that a user's PATH may not have.
const ELSEWHERE: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// The programs that make a bus.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    server: PathBuf,
    /// Has the kernel kill the server with the demo, as members ask it themselves.
    setpriv: PathBuf,
}

impl Program {
    /// Both of them, on this PATH or where Debian puts servers; without either the demo has no bus.
    pub(crate) fn find(path: &OsStr) -> Option<Self> {
        let folders: Vec<PathBuf> = std::env::split_paths(path).chain(ELSEWHERE.map(PathBuf::from)).collect();
        let find = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file());
        Some(Self { server: find("nats-server")?, setpriv: find("setpriv")? })
    }

    /// A server at this address that keeps its streams in this folder, to be started by the demo's main thread.
    pub(crate) fn command(&self, at: SocketAddr, folder: &Path) -> Command {
        let mut command = Command::new(&self.setpriv);
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.server);
        command.args(["-a", &at.ip().to_string(), "-p", &at.port().to_string(), "-js", "-sd"]).arg(folder);
        command.env_clear();
        command
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_takes_both_programs_and_the_first_of_the_path_counts() {
        let temp = tempfile::tempdir().unwrap();
        for program in ["nats-server", "setpriv"] {
            std::fs::write(temp.path().join(program), "").unwrap();
        }
        let found = Program::find(temp.path().as_os_str()).unwrap();
        assert_eq!(found.server, temp.path().join("nats-server"));
        let command = found.command("127.0.0.1:4222".parse().unwrap(), Path::new("/kept"));
        let args: Vec<&OsStr> = command.as_std().get_args().collect();
        assert_eq!(args[..3], ["--pdeathsig", "KILL", "--"]);
        assert_eq!(args[4..], ["-a", "127.0.0.1", "-p", "4222", "-js", "-sd", "/kept"]);
    }
}
