//! The demo in the foreground: makes its members, starts them, does to them what the verbs ask, and ends them.
//!
//! All members are children of this process, and the kernel ties their lives to the *thread* that started them. So the
//! federation is driven by the main thread's own future, which lives as long as the process, and never by a task.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    net::{SocketAddr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use jiff::Timestamp;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::Rng;
use tokio::{
    net::{TcpStream, UnixListener},
    process::{Child, ChildStdin, Command},
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    Error, MEMBERS, PARENT, SEED, ask, bus,
    control::{self, Answer, Request},
    member, ports, process,
    state::{Folder, Life, Lock, Member, Role, State},
};

/// This program, even after the file it was started from was replaced by a newer build.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// What a member inherits of the environment; anything else may be a setting of muster, or of its predecessor.
const ENVIRONMENT: [&str; 8] =
    ["PATH", "HOME", "LANG", "TZ", "RUST_BACKTRACE", "MUSTER_CHAOS", "LLVM_PROFILE_FILE", "TMPDIR"];

/// How long a member may take to open its admin endpoint before the demo gives up: a port in use shows after 10 s.
const UP_PATIENCE: Duration = Duration::from_secs(20);

/// Pause between two looks at what should soon be true.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Times that a member is made with other ports because somebody took them between our looking and its binding.
const PORT_TRIES_MAX: u32 = 3;

/// How long the nodes may take to leave before the indexers are asked to.
const NODES_LEAVE_FIRST: Duration = Duration::from_secs(3);

/// How long all may take to leave before they are killed: a leave takes 10 s at most.
const LEAVE_PATIENCE: Duration = Duration::from_secs(12);

/// How long the kernel may take to end what was killed.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a member's log that are shown when it ended.
const LAST_WORDS_BYTES: u64 = 2_000;

/// How often ended members are looked for, beside the kernel's own word.
const REAP_EVERY: Duration = Duration::from_secs(1);

/// What happens while the demo comes up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This member's key and files are made.
    Made(String),
    /// This member's admin endpoint answers.
    Up(String),
}

/// A word about the running demo for its terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A verb did something to a member.
    Did {
        /// What: `killed`.
        what: &'static str,
        /// To whom.
        name: String,
    },
    /// A member ended by itself.
    Ended {
        /// Who.
        name: String,
        /// Exit code or signal.
        how: String,
        /// The end of its log.
        log: String,
    },
}

/// Why the demo stops serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The verb `down`, which waits for its answer.
    Down,
    /// Ctrl-C, or a polite signal.
    Signal,
}

/// A running federation.
#[derive(Debug)]
pub(crate) struct Federation {
    folder: Folder,
    lock: Lock,
    state: State,
    children: BTreeMap<String, Child>,
    /// What a bus is made with, if this machine has it.
    bus: Option<bus::Program>,
    /// The buses, by whose they are. A member that is killed leaves its organisation's bus as it is.
    buses: BTreeMap<String, Child>,
    watcher: Watcher,
    socket: UnixListener,
    /// Ports found for members that are not started yet, held so that nobody else takes them.
    held: BTreeMap<String, Vec<TcpListener>>,
    /// The verb `down` that waits until all is ended.
    asker: Option<tokio::net::UnixStream>,
}

/// The process that cleans up when this one is killed. It leads the members' group.
#[derive(Debug)]
struct Watcher {
    child: Child,
    group: i32,
    /// Its end of the pipe is its input; ours does nothing but exist.
    pipe: Option<ChildStdin>,
}

impl Federation {
    /// Takes the folder and starts the watcher.
    ///
    /// # Errors
    /// When another demo runs, or the machine refuses.
    pub(crate) fn begin(folder: Folder) -> Result<Self, Error> {
        let lock = folder.take()?;
        match Self::set_up(&folder) {
            Ok((watcher, socket)) => {
                let state = State { pid: std::process::id(), started: Timestamp::now(), members: Vec::new() };
                Ok(Self {
                    folder,
                    lock,
                    state,
                    children: BTreeMap::new(),
                    bus: bus::Program::find(&std::env::var_os("PATH").unwrap_or_default()),
                    buses: BTreeMap::new(),
                    watcher,
                    socket,
                    held: BTreeMap::new(),
                    asker: None,
                })
            }
            Err(error) => {
                folder.remove(lock)?;
                Err(error)
            }
        }
    }

    fn set_up(folder: &Folder) -> Result<(Watcher, UnixListener), Error> {
        let socket = control::listen(folder)?;
        Ok((Watcher::start(folder)?, socket))
    }

    /// Makes and starts every member, the seed first, since all others are told its address.
    ///
    /// # Errors
    /// When a member's files cannot be made, or one ends at once.
    pub(crate) async fn bring_up(&mut self, chance: &mut impl Rng, report: impl Fn(Step)) -> Result<(), Error> {
        let (seed, others): (Vec<_>, Vec<_>) = MEMBERS.into_iter().partition(|(name, _)| *name == SEED);
        self.bring_up_some(&seed, chance, &report).await?;
        self.bring_up_some(&others, chance, &report).await
    }

    async fn bring_up_some(
        &mut self,
        some: &[(&'static str, Role)],
        chance: &mut impl Rng,
        report: &impl Fn(Step),
    ) -> Result<(), Error> {
        for (name, role) in some {
            self.make(name, *role, chance)?;
            report(Step::Made((*name).to_owned()));
        }
        self.save()?;
        for (name, _) in some {
            self.start(name)?;
        }
        self.save()?;
        for (name, role) in some {
            self.wait_or_move(name, *role, chance).await?;
            report(Step::Up((*name).to_owned()));
        }
        Ok(())
    }

    /// Waits until the member is up; one that ended because its port was taken meanwhile is made anew with others.
    async fn wait_or_move(&mut self, name: &str, role: Role, chance: &mut impl Rng) -> Result<(), Error> {
        for _ in 1..PORT_TRIES_MAX {
            match self.wait_up(name).await {
                Err(Error::MemberEnded { log, .. }) if log.to_lowercase().contains("in use") => {}
                other => return other,
            }
            std::fs::remove_dir_all(self.folder.member(name))
                .map_err(Error::io(format!("make the files of {name} again")))?;
            self.make(name, role, chance)?;
            self.start(name)?;
            self.save()?;
        }
        self.wait_up(name).await
    }

    /// Makes the files of one member, with free ports.
    fn make(&mut self, name: &str, role: Role, chance: &mut impl Rng) -> Result<(), Error> {
        if let Some(mut former) = self.buses.remove(name) {
            // Its port is taken, or its folder is gone.
            let _ = former.start_kill();
        }
        let has_bus = role == Role::Node && self.bus.is_some();
        let held = ports::free(if has_bus { 3 } else { 2 }, chance).map_err(Error::io("find free ports"))?;
        let ports: Vec<SocketAddr> = held
            .iter()
            .map(|held| held.local_addr())
            .collect::<io::Result<_>>()
            .map_err(Error::io("find free ports"))?;
        let seed = self.state.members.iter().find(|member| member.name == SEED && member.name != name);
        let (peers, admin, bus) = (ports[0], ports[1], ports.get(2).copied());
        let wanted = member::Wanted { folder: &self.folder, name, role, peers, admin, bus, seed };
        let made = wanted.make()?;
        match self.state.members.iter_mut().find(|member| member.name == name) {
            Some(member) => *member = made,
            None => self.state.members.push(made),
        }
        self.held.insert(name.to_owned(), held);
        Ok(())
    }

    /// Starts the process of a member whose files are there.
    fn start(&mut self, name: &str) -> Result<(), Error> {
        debug_assert_eq!(nix::unistd::gettid(), nix::unistd::getpid(), "members die with the thread that started them");
        let what = || format!("start {name}");
        let log = self.log(name).map_err(Error::io(what()))?;
        drop(self.held.remove(name));
        self.start_bus(name).map_err(Error::io(format!("start the bus of {name}")))?;
        let child = program()
            .args(["run", "--config"])
            .arg(self.folder.member(name).join("muster.toml"))
            .env(PARENT, std::process::id().to_string())
            .current_dir(self.folder.member(name))
            .stdin(Stdio::null())
            .stderr(log.try_clone().map_err(Error::io(what()))?)
            .stdout(log)
            .process_group(self.watcher.group)
            .spawn()
            .map_err(Error::io(what()))?;
        let pid = child.id().unwrap_or(0);
        self.children.insert(name.to_owned(), child);
        self.note(name, Life::Running, pid);
        Ok(())
    }

    /// Starts the bus of a member's organisation, unless it has none or it runs already.
    fn start_bus(&mut self, name: &str) -> io::Result<()> {
        let at = self.state.members.iter().find(|member| member.name == name).and_then(|member| member.bus);
        let (Some(program), Some(at)) = (&self.bus, at) else { return Ok(()) };
        if let Some(bus) = self.buses.get_mut(name)
            && bus.try_wait()?.is_none()
        {
            return Ok(());
        }
        let folder = self.folder.member(name);
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join("bus.log"))?;
        let bus = program
            .command(at, &folder.join("bus"))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log)
            .process_group(self.watcher.group)
            .spawn()?;
        self.buses.insert(name.to_owned(), bus);
        Ok(())
    }

    fn log(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(self.folder.log(name))
    }

    /// Waits until the member's admin endpoint takes connections.
    async fn wait_up(&mut self, name: &str) -> Result<(), Error> {
        let deadline = Instant::now() + UP_PATIENCE;
        let admin = self.state.member(Some(name))?.admin;
        loop {
            if let Some(how) = self.ended(name) {
                self.note(name, Life::Ended, 0);
                return Err(Error::MemberEnded { name: name.to_owned(), how, log: last_words(&self.folder.log(name)) });
            }
            if TcpStream::connect(admin).await.is_ok() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let log = last_words(&self.folder.log(name));
                return Err(Error::MemberSilent { name: name.to_owned(), admin, after: UP_PATIENCE, log });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Does what the verbs ask until one of them, or a signal, says that it is over.
    ///
    /// # Errors
    /// When the machine refuses to tell of signals, or to write down how the members are.
    pub(crate) async fn serve(&mut self, tell: impl Fn(News)) -> Result<Stop, Error> {
        let mut ended = signal(SignalKind::child()).map_err(Error::io("hear of ended members"))?;
        loop {
            tokio::select! {
                accepted = self.socket.accept() => {
                    if let Ok((stream, _)) = accepted && self.serve_one(stream, &tell).await? {
                        return Ok(Stop::Down);
                    }
                }
                _ = ended.recv() => self.reap(&tell)?,
                () = sleep(REAP_EVERY) => self.reap(&tell)?,
            }
        }
    }

    /// Serves one verb; true when it was `down`, whose answer waits.
    async fn serve_one(&mut self, mut stream: tokio::net::UnixStream, tell: &impl Fn(News)) -> Result<bool, Error> {
        let Some(request) = control::request(&mut stream).await else { return Ok(false) };
        // What ended before the verb came has ended; nobody is signalled by an id that means somebody else by now.
        self.reap(tell)?;
        let (name, done) = match &request {
            Request::Down => {
                self.asker = Some(stream);
                return Ok(true);
            }
            Request::Kill { name } => (name, self.kill(name).await.map(|()| "killed")),
            Request::Pause { name } => (name, self.pause(name).map(|()| "paused")),
            Request::Resume { name } => (name, self.resume(name).map(|()| "resumed")),
            Request::Start { name } => (name, self.restart(name).map(|()| "started")),
        };
        let answer = match done {
            Ok(what) => {
                self.save()?;
                tell(News::Did { what, name: name.clone() });
                Answer::Done { at: Timestamp::now(), member: self.state.member(Some(name)).ok().cloned() }
            }
            Err(Error::UnknownMember { name, known }) => Answer::Unknown { name, known },
            Err(error) => Answer::Refused(error.to_string()),
        };
        control::answer(&mut stream, &answer).await;
        Ok(false)
    }

    async fn kill(&mut self, name: &str) -> Result<(), Error> {
        self.expect(name, &[Life::Running, Life::Paused], "has no process to kill")?;
        if let Some(mut child) = self.children.remove(name) {
            child.start_kill().map_err(Error::io(format!("kill {name}")))?;
            let _ = timeout(KILL_PATIENCE, child.wait()).await;
        }
        self.note(name, Life::Killed, 0);
        Ok(())
    }

    fn pause(&mut self, name: &str) -> Result<(), Error> {
        self.expect(name, &[Life::Running], "is not running")?;
        self.signal(name, Signal::SIGSTOP)?;
        self.note_life(name, Life::Paused);
        Ok(())
    }

    fn resume(&mut self, name: &str) -> Result<(), Error> {
        self.expect(name, &[Life::Paused], "is not paused")?;
        self.signal(name, Signal::SIGCONT)?;
        self.note_life(name, Life::Running);
        Ok(())
    }

    fn restart(&mut self, name: &str) -> Result<(), Error> {
        self.expect(name, &[Life::Killed, Life::Ended], "has a process already")?;
        self.start(name)
    }

    /// The member's process is in one of these states, or the verb is refused.
    fn expect(&self, name: &str, lives: &[Life], otherwise: &str) -> Result<(), Error> {
        let life = self.state.member(Some(name))?.state;
        if lives.contains(&life) { Ok(()) } else { Err(Error::Refused(format!("{name} {otherwise}: it is {life}"))) }
    }

    fn signal(&self, name: &str, signal: Signal) -> Result<(), Error> {
        let Some(pid) = self.children.get(name).and_then(pid_of) else { return Ok(()) };
        kill(pid, signal).map_err(|errno| Error::io(format!("send {signal} to {name}"))(errno.into()))
    }

    /// Takes note of members that ended by themselves.
    fn reap(&mut self, tell: &impl Fn(News)) -> Result<(), Error> {
        let names: Vec<String> = self.children.keys().cloned().collect();
        for name in names {
            let Some(how) = self.ended(&name) else { continue };
            self.note(&name, Life::Ended, 0);
            self.save()?;
            let log = last_words(&self.folder.log(&name));
            tell(News::Ended { name, how, log });
        }
        Ok(())
    }

    /// How this member's process ended, told once; nothing while it lives.
    fn ended(&mut self, name: &str) -> Option<String> {
        let status = self.children.get_mut(name)?.try_wait().ok()??;
        self.children.remove(name);
        Some(how(status))
    }

    fn note(&mut self, name: &str, life: Life, pid: u32) {
        if let Some(member) = self.state.members.iter_mut().find(|member| member.name == name) {
            member.state = life;
            member.pid = pid;
        }
    }

    fn note_life(&mut self, name: &str, life: Life) {
        if let Some(member) = self.state.members.iter_mut().find(|member| member.name == name) {
            member.state = life;
        }
    }

    fn save(&self) -> Result<(), Error> {
        self.folder.write(&self.state, &self.lock)
    }

    /// Ends every member politely, nodes first, then removes the folder. `hurry` ends the politeness.
    ///
    /// # Errors
    /// When a process outlives SIGKILL, or the folder cannot be removed.
    pub(crate) async fn end(mut self, hurry: impl Future<Output = ()>) -> Result<(), Error> {
        tokio::select! {
            () = self.leave() => {}
            () = hurry => {}
        }
        // A bus has nothing to say when it goes, and its members are gone.
        for child in self.children.values_mut().chain(self.buses.values_mut()) {
            let _ = child.start_kill();
        }
        for child in self.children.values_mut().chain(self.buses.values_mut()) {
            let _ = timeout(KILL_PATIENCE, child.wait()).await;
        }
        let group = self.watcher.group;
        let watcher = pid_of(&self.watcher.child).map(Pid::as_raw);
        let left = || process::in_group(group).into_iter().filter(|left| Some(left.pid) != watcher).collect();
        process::kill_all(left, KILL_PATIENCE).map_err(Error::io("end the members"))?;
        self.folder.remove(self.lock)?;
        self.watcher.end().await;
        if let Some(mut asker) = self.asker {
            control::answer(&mut asker, &Answer::Done { at: Timestamp::now(), member: None }).await;
        }
        Ok(())
    }

    /// Asks all to leave and waits until they have left, or for [`LEAVE_PATIENCE`].
    async fn leave(&mut self) {
        let deadline = Instant::now() + LEAVE_PATIENCE;
        let of = |role| self.state.members.iter().filter(move |member| member.role == role).map(|member| &member.name);
        let nodes: Vec<String> = of(Role::Node).cloned().collect();
        let indexers: Vec<String> = of(Role::Indexer).cloned().collect();
        self.ask_to_leave(&nodes);
        self.wait_gone(&nodes, deadline.min(Instant::now() + NODES_LEAVE_FIRST)).await;
        self.ask_to_leave(&indexers);
        self.wait_gone(&nodes, deadline).await;
        self.wait_gone(&indexers, deadline).await;
    }

    fn ask_to_leave(&self, names: &[String]) {
        for pid in names.iter().filter_map(|name| self.children.get(name)).filter_map(pid_of) {
            let _ = kill(pid, Signal::SIGTERM);
            // One that is stopped hears nothing until it goes on.
            let _ = kill(pid, Signal::SIGCONT);
        }
    }

    async fn wait_gone(&mut self, names: &[String], deadline: Instant) {
        for name in names {
            let Some(child) = self.children.get_mut(name) else { continue };
            if timeout_at(deadline, child.wait()).await.is_ok() {
                self.children.remove(name);
            }
        }
    }
}

impl Watcher {
    fn start(folder: &Folder) -> Result<Self, Error> {
        let what = "start the watcher";
        let mut child = program()
            .arg("demo-watch")
            .arg(folder.path())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(Error::io(what))?;
        let pipe = child.stdin.take();
        let group = pid_of(&child).ok_or_else(|| Error::io(what)(io::ErrorKind::NotFound.into()))?.as_raw();
        Ok(Self { child, group, pipe })
    }

    /// Closes the pipe and waits: the folder is gone, so there is nothing for it to do but end.
    async fn end(mut self) {
        drop(self.pipe.take());
        if timeout(KILL_PATIENCE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// This program, to be started with nothing in its environment that could be a setting.
fn program() -> Command {
    let mut command = Command::new(OWN_PROGRAM);
    command.arg0("muster").env_clear();
    command.envs(ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()?).ok().map(Pid::from_raw)
}

/// An exit status in words.
fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "for an unknown reason".to_owned(),
    }
}

/// The last lines of a log.
fn last_words(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    };
    match read() {
        Ok(words) if words.is_empty() => "(it said nothing)".to_owned(),
        Ok(words) => words,
        Err(error) => format!("(its log cannot be read: {error})"),
    }
}

/// Why the federation is not converged, by member; empty when it is: every node whole, every indexer knowing all others.
pub(crate) async fn unconverged(members: &[Member]) -> Vec<String> {
    let indexers = members.iter().filter(|member| member.role == Role::Indexer).count();
    let others = u32::try_from(indexers.saturating_sub(1)).unwrap_or(u32::MAX);
    let statuses = ask::statuses(members).await;
    members.iter().zip(statuses).filter_map(|(member, status)| missing(member, status.as_ref(), others)).collect()
}

/// What this member misses, if anything.
fn missing(member: &Member, status: Option<&actors::view::StatusView>, others: u32) -> Option<String> {
    let name = &member.name;
    let Some(status) = status else { return Some(format!("{name} does not answer")) };
    match member.role {
        Role::Node if status.standing != actors::view::Standing::Whole => {
            let standing = super::timeline::word(status.standing);
            Some(format!(
                "{name} is {standing}: {} of its {} indexers answer",
                status.pool_answering, status.pool_members
            ))
        }
        Role::Indexer if status.indexers_known < others => {
            Some(format!("{name} knows {} of {others} other indexers", status.indexers_known))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_way_a_member_ended_is_said() {
        assert_eq!(how(ExitStatus::from_raw(70 << 8)), "exit code 70");
        assert_eq!(how(ExitStatus::from_raw(9)), "signal 9");
    }

    #[test]
    fn only_the_end_of_a_long_log_is_shown() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        assert!(last_words(&path).contains("cannot be read"));
        std::fs::write(&path, "").unwrap();
        assert_eq!(last_words(&path), "(it said nothing)");
        std::fs::write(&path, format!("{}the end\n", "x".repeat(10_000))).unwrap();
        let words = last_words(&path);
        assert!(words.len() < 2_001 && words.ends_with("the end"));
    }

    #[test]
    fn one_member_is_known_to_all_and_two_names_begin_alike() {
        assert!(MEMBERS.iter().any(|(name, role)| *name == SEED && *role == Role::Indexer));
        assert_eq!(MEMBERS.iter().filter(|(name, _)| name.starts_with("par")).count(), 2);
    }
}
