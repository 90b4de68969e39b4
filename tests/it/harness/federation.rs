//! A federation in a temporary folder.

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use actors::view::{ActorView, EventView, IndexerView, PeerView, RecordView, SessionView, Standing, StatusView};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use protocol::identity::PreSharedKey;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use super::{
    PATIENCE, Place, TICK, http,
    ports::Port,
    process::{self, Ended, command, wait_status},
    until, until_true,
};
use crate::thin::Network;

/// The variable by which a member learns whose it is; the demo's own way.
pub(crate) const PARENT: &str = "MUSTER_DEMO_PARENT";

/// Lines of each member's log that a failed test shows.
const LOG_LINES: usize = 40;

/// Settings that make hours of network life fit into a test: the heartbeat's rhythm and what follows from it.
const QUICK: [(&str, &str); 4] = [
    ("heartbeat.every", "\"2s\""),
    ("heartbeat.answer_within", "\"1s\""),
    ("heartbeat.gap_min", "\"200ms\""),
    // The ceiling of 5 in 60 s belongs to a tick of 20 s.
    ("heartbeat.ceiling", "60"),
];

/// How a member is made.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    name: String,
    mode: &'static str,
    seeds: Vec<String>,
    psk: Option<PathBuf>,
    settings: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    place: Option<Place>,
}

impl Spec {
    /// A node.
    pub(crate) fn node(name: &str) -> Self {
        Self::of(name, "node")
    }

    /// An indexer.
    pub(crate) fn indexer(name: &str) -> Self {
        Self::of(name, "indexer")
    }

    fn of(name: &str, mode: &'static str) -> Self {
        let name = name.to_owned();
        Self { name, mode, seeds: Vec::new(), psk: None, settings: Vec::new(), variables: Vec::new(), place: None }
    }

    /// Knows this address.
    pub(crate) fn seed(mut self, address: impl Into<String>) -> Self {
        self.seeds.push(address.into());
        self
    }

    /// Has a pre-shared key of its own.
    pub(crate) fn psk(mut self, path: &Path) -> Self {
        self.psk = Some(path.to_owned());
        self
    }

    /// Has this setting, its value written as in TOML.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Lives there, and not in the test's own network.
    pub(crate) fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Runs with this variable.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Some members that share a pre-shared key.
#[derive(Debug)]
pub(crate) struct Federation {
    folder: TempDir,
    members: Vec<Member>,
}

/// One member: its files, its ports, and its process while it runs.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: String,
    /// Its peer id.
    pub(crate) peer_id: String,
    /// Its DID.
    pub(crate) did: String,
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// Where it listens for peers.
    pub(crate) port: Port,
    /// Where it lives when that is not the test's own network.
    pub(crate) place: Option<Place>,
    admin: Port,
    log: PathBuf,
    variables: Vec<(String, String)>,
    child: Option<Child>,
}

impl Federation {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("muster-it-").tempdir().unwrap(), members: Vec::new() }
    }

    /// `indexers` indexers named `indexer-1`… and nodes with these names, all running, converged: every node whole,
    /// every indexer knowing all others.
    pub(crate) fn converged(indexers: usize, nodes: &[&str]) -> Self {
        let federation = Self::started(indexers, nodes, |spec| spec);
        federation.until_converged();
        federation
    }

    /// The same with members made otherwise, and not yet awaited.
    pub(crate) fn started(indexers: usize, nodes: &[&str], change: impl Fn(Spec) -> Spec) -> Self {
        let mut federation = Self::new();
        for number in 1..=indexers {
            let spec = Spec::indexer(&format!("indexer-{number}"));
            federation.add_with_first_as_seed(change(spec));
        }
        for name in nodes {
            federation.add_with_first_as_seed(change(Spec::node(name)));
        }
        federation
    }

    fn add_with_first_as_seed(&mut self, spec: Spec) {
        let spec = match self.members.first() {
            Some(first) => spec.seed(first.address()),
            None => spec,
        };
        self.add(spec).start();
    }

    /// Makes a member, and does not start it.
    #[track_caller]
    pub(crate) fn add(&mut self, spec: Spec) -> &mut Member {
        let psk = spec.psk.clone().or_else(|| self.members.first().map(|first| first.dir.join("swarm.key")));
        let member = Member::make(self.folder.path(), spec, psk.as_deref());
        self.members.push(member);
        self.members.last_mut().unwrap()
    }

    /// The folder of all.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The member with this name.
    #[track_caller]
    pub(crate) fn member(&self, name: &str) -> &Member {
        self.members.iter().find(|member| member.name == name).unwrap()
    }

    /// The member with this name, to be started or killed.
    #[track_caller]
    pub(crate) fn member_mut(&mut self, name: &str) -> &mut Member {
        self.members.iter_mut().find(|member| member.name == name).unwrap()
    }

    /// All that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.child.is_some())
    }

    /// Waits for page 4's "converged" among those that run.
    #[track_caller]
    pub(crate) fn until_converged(&self) {
        // One that does not answer yet does not say that it is an indexer.
        self.running().for_each(Member::until_listening);
        let indexers = self.running().filter(|member| member.is_indexer()).count();
        let others = u32::try_from(indexers.saturating_sub(1)).unwrap();
        for member in self.running() {
            until_true(&format!("{} has converged", member.name), PATIENCE, || {
                member.try_status().is_some_and(|status| {
                    let knows = !status.role.indexer || status.indexers_known >= others;
                    let whole = !status.role.node || status.standing == Standing::Whole;
                    knows && whole
                })
            });
        }
    }

    /// Waits for page 4's "healed": no survivor counts on the dead, and every node is whole.
    #[track_caller]
    pub(crate) fn until_healed_of(&self, dead: &str, patience: Duration) {
        let dead = self.member(dead);
        for member in self.running() {
            until_true(&format!("{} has forgotten {}", member.name, dead.name), patience, || {
                !member.lists(&dead.peer_id)
            });
        }
        self.until_converged();
    }
}

impl Drop for Federation {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.kill();
        }
        if std::thread::panicking() {
            for member in &self.members {
                eprintln!("--- last words of {} ({})\n{}", member.name, member.peer_id, member.last_words());
            }
        }
    }
}

impl Member {
    #[track_caller]
    fn make(folder: &Path, spec: Spec, psk: Option<&Path>) -> Self {
        let dir = folder.join(&spec.name);
        let (port, admin) = (Port::free(), Port::free());
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut args: Vec<String> =
            ["init", "--output", "json", "--name", &spec.name, "--mode", spec.mode].map(String::from).into();
        args.extend(["--dir".into(), text(&dir), "--port".into(), port.number.to_string()]);
        args.extend(spec.seeds.iter().flat_map(|seed| ["--seed".to_owned(), seed.clone()]));
        args.extend(psk.into_iter().flat_map(|psk| ["--psk".to_owned(), text(psk)]));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let made = process::muster(&args).ok().json();
        let field = |name: &str| made[name].as_str().unwrap().to_owned();
        let member = Self {
            peer_id: field("peer_id"),
            did: field("did"),
            log: folder.join(format!("{}.log", spec.name)),
            name: spec.name,
            dir,
            port,
            place: spec.place,
            admin,
            variables: spec.variables,
            child: None,
        };
        member.set("network.profile", "\"local\"");
        member.set("network.listen", &format!("[\"/ip4/{}/tcp/{}\"]", member.ip(), member.port.number));
        member.set("admin.listen", &format!("\"{}\"", member.admin()));
        for (key, value) in QUICK {
            member.set(key, value);
        }
        for (key, value) in &spec.settings {
            member.set(key, value);
        }
        member
    }

    /// Changes a setting in its file; the value is written as in TOML.
    #[track_caller]
    pub(crate) fn set(&self, key: &str, value: &str) {
        let mut settings: toml_edit::DocumentMut = fs::read_to_string(self.config()).unwrap().parse().unwrap();
        let mut table = settings.as_table_mut();
        let (sections, name) = key.rsplit_once('.').unwrap();
        for section in sections.split('.') {
            table = table.entry(section).or_insert(toml_edit::table()).as_table_mut().unwrap();
        }
        table[name] = toml_edit::value(value.parse::<toml_edit::Value>().unwrap());
        fs::write(self.config(), settings.to_string()).unwrap();
    }

    /// Its settings file.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("muster.toml")
    }

    /// Where it can be dialled, with its peer id.
    pub(crate) fn address(&self) -> String {
        format!("/ip4/{}/tcp/{}/p2p/{}", self.ip(), self.port.number, self.peer_id)
    }

    fn ip(&self) -> Ipv4Addr {
        self.place.as_ref().map_or(Ipv4Addr::LOCALHOST, |place| place.address)
    }

    /// Does something in the network where it lives.
    fn inside<T>(&self, what: impl FnOnce() -> T) -> T {
        match &self.place {
            Some(place) => place.inside(what),
            None => what(),
        }
    }

    /// Where its admin endpoint is.
    pub(crate) fn admin(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.admin.number))
    }

    pub(crate) fn is_indexer(&self) -> bool {
        self.try_status().is_some_and(|status| status.role.indexer)
    }

    /// Starts its process.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        self.child = Some(self.spawn());
    }

    /// A further process on the same folder.
    pub(crate) fn spawn(&self) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.command(log.try_clone().unwrap().into(), log.into());
        self.inside(|| command.spawn()).unwrap()
    }

    fn command(&self, out: Stdio, err: Stdio) -> std::process::Command {
        let mut command = command();
        command.args(["run", "--config"]).arg(self.config()).current_dir(&self.dir);
        command
            .env(PARENT, std::process::id().to_string())
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdout(out).stderr(err);
        command
    }

    /// Runs it and waits for an end that should come by itself.
    #[track_caller]
    pub(crate) fn run_to_its_end(&self, patience: Duration) -> Ended {
        let mut command = self.command(Stdio::piped(), Stdio::piped());
        let child = self.inside(|| command.spawn()).unwrap();
        process::wait_with_deadline(child, patience)
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends it a signal; one that is to stop has stopped when this returns.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.as_ref().unwrap().id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        if signal == Signal::SIGSTOP {
            // The others go on until a thread that had to be woken takes the signal.
            until_true(&format!("every thread of {} stands still", self.name), PATIENCE, || is_stopped(pid));
        }
    }

    /// Asks it to end, and waits until it has.
    #[track_caller]
    pub(crate) fn end_politely(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.until_ended()
    }

    /// Waits until it has ended after a signal to end.
    #[track_caller]
    pub(crate) fn until_ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let ended = wait_status(&mut child, Duration::from_secs(15));
        if ended.is_none() {
            self.child = Some(child);
            panic!("{} is still running 15 s after SIGTERM", self.name);
        }
        ended.unwrap()
    }

    /// It still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// The exit code of a process that is no longer alive; it may be started again.
    #[track_caller]
    pub(crate) fn reaped_code(&mut self) -> Option<i32> {
        self.child.take().unwrap().wait().unwrap().code()
    }

    /// Its process.
    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Asks its admin endpoint; nothing when it does not answer, or not with this.
    pub(crate) fn try_get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let answer = self.ask(path).ok()?;
        (answer.code == 200).then(|| serde_json::from_str(&answer.body).ok())?
    }

    /// Asks its admin endpoint for whatever it says.
    pub(crate) fn ask(&self, path: &str) -> io::Result<http::Answer> {
        self.inside(|| http::ask("GET", self.admin(), path, &[], ""))
    }

    /// Tells its admin endpoint to do something, with its token.
    #[track_caller]
    pub(crate) fn tell(&self, path: &str, body: &str) -> http::Answer {
        self.tell_as("POST", path, &self.token(), body)
    }

    /// The same by another method, with another token.
    #[track_caller]
    pub(crate) fn tell_as(&self, method: &str, path: &str, token: &str, body: &str) -> http::Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        self.inside(|| http::ask(method, self.admin(), path, &headers, body)).unwrap()
    }

    /// The token with which everything may be done.
    #[track_caller]
    pub(crate) fn token(&self) -> String {
        fs::read_to_string(self.dir.join("data/admin.token")).unwrap().trim().to_owned()
    }

    /// Tells its admin endpoint to change something, with its token.
    #[track_caller]
    pub(crate) fn patch(&self, path: &str, body: &str) -> http::Answer {
        let token = fs::read_to_string(self.dir.join("data/admin.token")).unwrap();
        let bearer = format!("Bearer {}", token.trim());
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        self.inside(|| http::ask("PATCH", self.admin(), path, &headers, body)).unwrap()
    }

    /// The same as somebody who has no token.
    #[track_caller]
    pub(crate) fn tell_without_token(&self, path: &str, body: &str) -> http::Answer {
        let headers = [("Content-Type", "application/json")];
        self.inside(|| http::ask("POST", self.admin(), path, &headers, body)).unwrap()
    }

    /// Asks it by another name.
    #[track_caller]
    pub(crate) fn ask_as_host(&self, path: &str, host: &str) -> http::Answer {
        self.inside(|| http::ask_as("GET", self.admin(), host, path, &[], "")).unwrap()
    }

    /// Asks until it answers.
    #[track_caller]
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        until(&format!("{} answers {path}", self.name), PATIENCE, || self.try_get(path))
    }

    /// Its overview, if it answers.
    pub(crate) fn try_status(&self) -> Option<StatusView> {
        self.try_get("/api/v1/status")
    }

    /// Its overview.
    #[track_caller]
    pub(crate) fn status(&self) -> StatusView {
        self.get("/api/v1/status")
    }

    /// Its pool.
    #[track_caller]
    pub(crate) fn indexers(&self) -> Vec<IndexerView> {
        self.get("/api/v1/indexers")
    }

    /// The sessions that it keeps.
    #[track_caller]
    pub(crate) fn sessions(&self) -> Vec<SessionView> {
        self.get("/api/v1/sessions")
    }

    /// One of its numbers, by the name that `/metrics` gives it; 0 when it has none of this name.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let metrics = self.ask("/metrics").unwrap().body;
        let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |number| number.parse().unwrap())
    }

    /// The peers that it knows.
    #[track_caller]
    pub(crate) fn peers(&self) -> Vec<PeerView> {
        self.get("/api/v1/peers")
    }

    /// Its actors.
    #[track_caller]
    pub(crate) fn actors(&self) -> Vec<ActorView> {
        self.get("/api/v1/actors")
    }

    /// What happened there after this event.
    #[track_caller]
    pub(crate) fn events(&self, since: u64) -> Vec<EventView> {
        self.get(&format!("/api/v1/events?since={since}"))
    }

    /// The records that it finds for a DID or a peer id, if any.
    pub(crate) fn records(&self, key: &str) -> Vec<RecordView> {
        self.try_get(&format!("/api/v1/records/{key}")).unwrap_or_default()
    }

    /// Waits until it listens for peers.
    #[track_caller]
    pub(crate) fn until_listening(&self) {
        until_true(&format!("{} listens", self.name), PATIENCE, || {
            self.try_status().is_some_and(|status| !status.listen.is_empty())
        });
    }

    /// Waits until it says that it is ready: it has read back what it keeps, and takes orders.
    #[track_caller]
    pub(crate) fn until_ready(&self) {
        until_true(&format!("{} is ready", self.name), PATIENCE, || {
            self.ask("/readyz").is_ok_and(|answer| answer.code == 200)
        });
    }

    /// The network that it is a member of, as thin nodes and members within the test's own process know it.
    pub(crate) fn network(&self) -> Network {
        let text = fs::read_to_string(self.dir.join("swarm.key")).unwrap();
        let key: PreSharedKey = text.parse().unwrap();
        Network { key: Some(*key.as_bytes()), id: "opencloud".to_owned() }
    }

    /// Waits until it is whole.
    #[track_caller]
    pub(crate) fn until_whole(&self) {
        self.until_standing(Standing::Whole, PATIENCE);
    }

    /// Waits until it stands there.
    #[track_caller]
    pub(crate) fn until_standing(&self, standing: Standing, patience: Duration) {
        until_true(&format!("{} is {standing:?}", self.name), patience, || {
            self.try_status().is_some_and(|status| status.standing == standing)
        });
    }

    /// It counts on this peer: in its pool, in a session or over a connection. A seed kept as down is not counted on.
    pub(crate) fn lists(&self, peer_id: &str) -> bool {
        let is = |found: &dyn ToString| found.to_string() == peer_id;
        self.indexers().iter().any(|it| is(&it.peer_id) && it.state != actors::view::MemberState::Down)
            || self.sessions().iter().any(|it| is(&it.peer_id))
            || self.peers().iter().any(|it| it.connected && is(&it.peer_id))
    }

    /// Runs a verb against it.
    #[track_caller]
    pub(crate) fn verb(&self, args: &[&str]) -> Ended {
        let url = format!("http://{}", self.admin());
        let args: Vec<&str> = ["--admin", &url].into_iter().chain(args.iter().copied()).collect();
        self.inside(|| process::muster(&args))
    }

    /// The same, in the background, its output piped.
    pub(crate) fn verb_begun(&self, args: &[&str]) -> Child {
        let url = format!("http://{}", self.admin());
        let mut command = command();
        command.arg("--admin").arg(url).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.inside(|| command.spawn()).unwrap()
    }

    /// All that it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

/// Every thread of the process stands still.
fn is_stopped(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    // What stands behind the name, which is in brackets and may hold anything.
    let state = |stat: String| stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    threads
        .flatten()
        .all(|thread| fs::read_to_string(thread.path().join("stat")).is_ok_and(|stat| state(stat) == Some('T')))
}

/// Time in which something that a heartbeat would show has shown, with room for a loaded machine.
pub(crate) fn ticks(count: u32) -> Duration {
    TICK * count + Duration::from_secs(3)
}

/// A file with this content that nobody else may read.
pub(crate) fn private_file(path: &Path, content: &[u8]) {
    use std::{io::Write, os::unix::fs::PermissionsExt};
    let mut file = File::create(path).unwrap();
    file.write_all(content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
