//! A network of the test's own, to be cut: each member lives in a network namespace and is plugged into one of two
//! switches, which a cable joins.
//!
//! No namespace has a name. Each lasts as long as a file of this test or a member in it, so that nothing is left,
//! whoever dies; cables and switches go with their namespaces. It takes `ip` and the rights of root, or those that
//! `unshare --map-root-user` gives to anybody where the kernel allows it.

use std::{
    fs::{self, File},
    io,
    net::Ipv4Addr,
    os::fd::AsRawFd,
    path::PathBuf,
    process::{Command, Stdio},
    rc::Rc,
    sync::atomic::{AtomicU8, Ordering},
};

use nix::sched::{CloneFlags, setns, unshare};

/// The folder to which a test that cannot run here says so; `tests/run` counts what it finds there.
const SKIPPED: &str = "MUSTER_TESTS_SKIPPED";

/// Says to a test that it was started by itself with the rights that it needs.
const MAPPED: &str = "MUSTER_TESTS_MAPPED";

/// The two switches.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    /// One.
    Left,
    /// The other.
    Right,
}

impl Side {
    const fn switch(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }
}

/// Two switches and the cable between them.
#[derive(Debug)]
pub(crate) struct Network {
    hub: Rc<Namespace>,
    places: AtomicU8,
}

/// A socket of a switch, and the namespace of whoever is plugged in there.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Its only address besides loopback.
    pub(crate) address: Ipv4Addr,
    namespace: Rc<Namespace>,
    hub: Rc<Namespace>,
    socket: String,
}

impl Network {
    /// Two switches, joined; or nothing when the test `name` has run with rights of its own meanwhile, or cannot run
    /// here at all and has said so to `tests/run`.
    ///
    /// # Panics
    /// When the test cannot run and nobody counts what is skipped: it is not to pass then.
    pub(crate) fn for_test(name: &str) -> Option<Self> {
        if Command::new("ip").arg("-Version").output().is_err() {
            skip(name, "there is no `ip`: apt-get install iproute2");
            return None;
        }
        match Namespace::new() {
            Ok(hub) => Some(Self::of(hub)),
            Err(error) if std::env::var_os(MAPPED).is_some() || !may_map() => {
                skip(name, &format!("no network namespace can be made, neither as root nor by `unshare`: {error}"));
                None
            }
            Err(_) => {
                run_mapped(name);
                None
            }
        }
    }

    fn of(hub: Namespace) -> Self {
        for side in [Side::Left, Side::Right] {
            hub.ip(&format!("link add {} type bridge", side.switch()));
            hub.ip(&format!("link set {} up", side.switch()));
        }
        hub.ip("link add cable-l type veth peer name cable-r");
        hub.ip("link set cable-l master left");
        hub.ip("link set cable-r master right");
        let network = Self { hub: Rc::new(hub), places: AtomicU8::new(1) };
        network.join();
        network
    }

    /// A further place at this switch.
    pub(crate) fn place(&self, side: Side) -> Place {
        let number = self.places.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            address: Ipv4Addr::new(10, 77, 0, number),
            namespace: Rc::new(Namespace::new().unwrap()),
            hub: self.hub.clone(),
            socket: format!("socket-{number}"),
        };
        place.namespace.ip("link set lo up");
        // `ip` takes a path for a namespace's name.
        let hub = self.hub.path();
        place.namespace.ip(&format!("link add uplink type veth peer name {} netns {hub}", place.socket));
        place.namespace.ip(&format!("address add {}/24 dev uplink", place.address));
        place.namespace.ip("link set uplink up");
        self.hub.ip(&format!("link set {} master {}", place.socket, side.switch()));
        place.plug();
        place
    }

    /// Parts the switches. Everybody's own link stays up, so that nobody is told but by silence.
    pub(crate) fn split(&self) {
        self.hub.ip("link set cable-l down");
    }

    /// Joins them.
    pub(crate) fn join(&self) {
        for end in ["cable-l", "cable-r"] {
            self.hub.ip(&format!("link set {end} up"));
        }
    }
}

impl Place {
    /// Cuts the link of whoever is here.
    pub(crate) fn unplug(&self) {
        self.hub.ip(&format!("link set {} down", self.socket));
    }

    /// Mends it.
    pub(crate) fn plug(&self) {
        self.hub.ip(&format!("link set {} up", self.socket));
    }

    /// Parts these two alone; others reach both as before.
    pub(crate) fn part_from(&self, other: &Self) {
        for (here, there) in [(self, other), (other, self)] {
            here.namespace.ip(&format!("route add unreachable {}/32", there.address));
        }
    }

    /// Does something in this place: what is started there stays there, what is opened there is of its network.
    pub(crate) fn inside<T>(&self, what: impl FnOnce() -> T) -> T {
        self.namespace.inside(what)
    }
}

/// A network namespace without a name.
#[derive(Debug)]
struct Namespace {
    file: File,
}

/// Brings the thread back to the network that it came from, also when it panics.
struct Home(File);

/// The network of this thread; namespaces are entered by a thread and not by its process.
fn current() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

impl Drop for Home {
    fn drop(&mut self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
    }
}

impl Namespace {
    fn new() -> io::Result<Self> {
        let before = current()?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let _home = Home(before);
        current().map(|file| Self { file })
    }

    /// Where others find it while this process lives.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    fn inside<T>(&self, what: impl FnOnce() -> T) -> T {
        let _home = Home(current().unwrap());
        setns(&self.file, CloneFlags::CLONE_NEWNET).unwrap();
        what()
    }

    /// Runs `ip` in it.
    #[track_caller]
    fn ip(&self, args: &str) {
        let ended = self.inside(|| Command::new("ip").args(args.split(' ')).output()).unwrap();
        assert!(ended.status.success(), "ip {args}: {}", String::from_utf8_lossy(&ended.stderr));
    }
}

/// Says that a test cannot run here.
pub(crate) fn skip(name: &str, why: &str) {
    let Some(folder) = std::env::var_os(SKIPPED) else {
        panic!("{name} cannot run here, and nobody counts what is skipped: {why}");
    };
    fs::write(PathBuf::from(folder).join(name), why).unwrap();
}

/// A command as the root of a network whose loopback is up.
fn mapped() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
    command.stdin(Stdio::null());
    command
}

/// Anybody may be root of a namespace here.
fn may_map() -> bool {
    mapped().arg("true").output().is_ok_and(|ended| ended.status.success())
}

/// Runs a test of this program as the root of a namespace of its own.
fn run_mapped(name: &str) {
    let program = std::env::current_exe().unwrap();
    let ended = mapped().arg(program).args(["--exact", name, "--nocapture"]).env(MAPPED, "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && out.contains("1 passed"), "{out}\n{err}");
}
