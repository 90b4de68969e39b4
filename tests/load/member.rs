//! A real member: the real binary as a process of its own, in a folder of its own.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use actors::view::StatusView;
use eventsource_stream::{Event, Eventsource};
use futures::{Stream, StreamExt, stream};
use libp2p::{Multiaddr, multiaddr};
use protocol::identity::{Keys, PreSharedKey};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

use crate::{
    broken::{Broken, Outcome, While, within},
    process,
    thin::Network,
};

/// For the process to listen and to answer its admin endpoint.
const START_WITHIN: Duration = Duration::from_secs(20);

/// Pause between two looks at a process that starts.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Bytes of a stream of events that are read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Lines of its log that are shown when something broke.
const LOG_LINES: usize = 30;

/// By this variable a member learns whose it is, so that the kernel ends it when this program is killed.
const PARENT: &str = "MUSTER_DEMO_PARENT";

/// How a member is made.
#[derive(Clone, Debug)]
pub(crate) struct Spec<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its role.
    pub(crate) mode: &'static str,
    /// Its rules about addresses.
    pub(crate) profile: &'static str,
    /// Whom it knows.
    pub(crate) seeds: &'a [Multiaddr],
    /// Further sections of its settings, as in TOML.
    pub(crate) settings: String,
}

impl<'a> Spec<'a> {
    /// An indexer that takes whoever comes, with room for so many nodes.
    pub(crate) fn indexer(name: &'a str, max_nodes: u32) -> Self {
        let settings = format!("[gate]\nmax_nodes = {max_nodes}\n");
        Self { name, mode: "indexer", profile: "load", seeds: &[], settings }
    }

    /// A node that is met and asked as often as one likes.
    pub(crate) fn node(name: &'a str, seeds: &'a [Multiaddr]) -> Self {
        Self { name, mode: "node", profile: "load", seeds, settings: String::new() }
    }

    fn text(&self, network: &Network) -> String {
        let Self { name, mode, profile, seeds, settings } = self;
        let seeds = seeds.iter().map(|seed| format!("\"{seed}\"")).collect::<Vec<_>>().join(", ");
        let (id, private) = (&network.id, network.key.is_some());
        format!(
            "[node]\nname = \"{name}\"\nmode = \"{mode}\"\n\n\
             [network]\nid = \"{id}\"\nprivate = {private}\nprofile = \"{profile}\"\n\
             listen = [\"/ip4/127.0.0.1/tcp/0\"]\nseeds = [{seeds}]\n\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\n\
             [log]\nlevel = \"warn\"\n\n\
             {settings}"
        )
    }
}

/// A running member.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: String,
    /// Where it listens, its peer id at the end.
    pub(crate) addr: Multiaddr,
    /// Its process.
    pub(crate) pid: u32,
    folder: PathBuf,
    admin: String,
    child: Child,
}

impl Member {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not come up; the end of its log is in the words.
    pub(crate) async fn start(base: &Path, network: &Network, spec: Spec<'_>) -> Outcome<Self> {
        let name = spec.name;
        let folder = base.join(name);
        fs::create_dir_all(&folder)?;
        let keys = Keys::generate(&mut rand::rng());
        private_file(&folder.join("identity.pem"), &keys.to_pem())?;
        if let Some(key) = network.key {
            private_file(&folder.join("swarm.key"), &PreSharedKey::from_bytes(key).to_text())?;
        }
        private_file(&folder.join("muster.toml"), &spec.text(network))?;
        let log = File::create(folder.join("log"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_muster"))
            .args(["run", "--config"])
            .arg(folder.join("muster.toml"))
            .env_clear()
            .envs(["PATH", "HOME"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .when("starting muster")?;
        let pid = child.id().ok_or_else(|| Broken::new("muster ended at once"))?;
        let mut member =
            Self { name: name.to_owned(), addr: Multiaddr::empty(), pid, folder, admin: String::new(), child };
        let up = within(START_WITHIN, format!("waiting for {name}"), member.until_up()).await;
        up.map_err(|broken| Broken::new(format!("{broken}\n{}", member.last_words())))?;
        member.addr.push(multiaddr::Protocol::P2p(keys.peer_id()));
        Ok(member)
    }

    async fn until_up(&mut self) -> Outcome<()> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(Broken::new(format!("it ended with {status}")));
            }
            if let Ok(admin) = fs::read_to_string(self.folder.join("data/admin.addr")) {
                self.admin = admin.trim().to_owned();
            }
            if let Some(addr) = self.status().await.ok().and_then(|status| status.listen.into_iter().next()) {
                self.addr = without_peer(&addr);
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Its overview.
    ///
    /// # Errors
    /// When its admin endpoint does not answer.
    pub(crate) async fn status(&self) -> Outcome<StatusView> {
        self.get("/api/v1/status").await
    }

    /// What its admin endpoint tells.
    ///
    /// # Errors
    /// When it does not answer, or not with this.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        serde_json::from_str(&self.ask(path).await?).when(format!("reading {path}"))
    }

    /// One of its numbers, by the name that `/metrics` gives it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) async fn metric(&self, name: &str) -> Outcome<f64> {
        let metrics = self.ask("/metrics").await?;
        let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
        let number = line.and_then(|line| line.rsplit(' ').next());
        Ok(number.ok_or_else(|| Broken::new(format!("{} has no {name}", self.name)))?.parse()?)
    }

    /// Asks its admin endpoint for nothing but an answer.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn alive(&self) -> Outcome<()> {
        self.ask("/livez").await.map(drop)
    }

    /// Has its admin endpoint keep something, with its token.
    ///
    /// # Errors
    /// When it does not answer, or says no.
    pub(crate) async fn put(&self, path: &str, body: &str) -> Outcome<()> {
        let token = fs::read_to_string(self.folder.join("data/admin.token"))?;
        let (token, length) = (token.trim(), body.len());
        let headers =
            format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n");
        self.exchange("PUT", path, &headers, body).await.map(drop)
    }

    /// What its admin endpoint tells as it happens; dropped, it is told no more.
    ///
    /// # Errors
    /// When it does not answer, or says no.
    pub(crate) async fn events(&self, path: &str) -> Outcome<impl Stream<Item = Outcome<Event>> + use<>> {
        let mut answer = BufReader::new(self.send("GET", path, "Accept: text/event-stream\r\n", "").await?);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if answer.read_line(&mut head).await? == 0 {
                return Err(Broken::new("no HTTP answer"));
            }
        }
        self.accepted(&head)?;
        let bytes = stream::unfold(answer, |mut answer| async {
            let mut chunk = vec![0; CHUNK_BYTES];
            match answer.read(&mut chunk).await {
                Ok(0) => None,
                Ok(count) => Some((Ok(chunk[..count].to_vec()), answer)),
                Err(error) => Some((Err(error), answer)),
            }
        });
        Ok(Box::pin(bytes).eventsource().map(|event| event.when("reading events")))
    }

    async fn ask(&self, path: &str) -> Outcome<String> {
        self.exchange("GET", path, "", "").await
    }

    async fn exchange(&self, method: &str, path: &str, headers: &str, body: &str) -> Outcome<String> {
        let mut stream = self.send(method, path, headers, body).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| Broken::new("no HTTP answer"))?;
        self.accepted(head)?;
        Ok(body.to_owned())
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Outcome<TcpStream> {
        let mut stream = TcpStream::connect(&self.admin).await?;
        // HTTP/1.0, so that the answer ends with the connection and is never cut into chunks.
        let question = format!("{method} {path} HTTP/1.0\r\nHost: {}\r\n{headers}\r\n{body}", self.admin);
        stream.write_all(question.as_bytes()).await?;
        Ok(stream)
    }

    fn accepted(&self, head: &str) -> Outcome<()> {
        match head.split(' ').nth(1) {
            Some("200" | "204") => Ok(()),
            _ => Err(Broken::new(format!("got \"{}\" from {}", head.lines().next().unwrap_or_default(), self.name))),
        }
    }

    /// Where its admin endpoint is.
    pub(crate) fn admin(&self) -> &str {
        &self.admin
    }

    /// Its peer id.
    pub(crate) fn peer_id(&self) -> String {
        let peer = self.addr.iter().find_map(|part| match part {
            multiaddr::Protocol::P2p(peer) => Some(peer),
            _ => None,
        });
        peer.map(|peer| peer.to_string()).unwrap_or_default()
    }

    /// Processor time used so far.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        process::cpu(self.pid)
    }

    /// Memory, KiB.
    pub(crate) fn rss_kib(&self) -> Outcome<u64> {
        process::rss_kib(self.pid)
    }

    /// What its data folder holds, KiB.
    pub(crate) fn data_kib(&self) -> u64 {
        process::folder_kib(&self.folder.join("data"))
    }

    /// Kills it as a power cut would, without waiting for its end.
    pub(crate) fn kill(&mut self) -> Outcome<()> {
        self.child.start_kill().when("killing a member")
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        format!("--- last words of {}\n{last}", self.name)
    }
}

fn without_peer(addr: &Multiaddr) -> Multiaddr {
    addr.iter().filter(|part| !matches!(part, multiaddr::Protocol::P2p(_))).collect()
}

fn private_file(path: &Path, text: &str) -> Outcome<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).when(format!("writing {}", path.display()))
}
