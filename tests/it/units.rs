//! The systemd units: what the service manager says of them, and what the daemon says to it.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::harness::{Federation, PATIENCE, Spec, repository, skip, until};

/// What the issue asks for; 10 is a service without any bounds.
const EXPOSURE_MAX: f64 = 1.5;

/// The manager's patience in these tests: a beat each second.
const WATCHDOG: Duration = Duration::from_secs(3);

fn unit(name: &str) -> PathBuf {
    repository("deploy/systemd").join(name)
}

/// The program of systemd that looks at units; nothing where there is none, which is said by the test's name.
fn analyze(test: &str) -> Option<Command> {
    let is_there = Command::new("systemd-analyze").arg("--version").output().is_ok_and(|ended| ended.status.success());
    if !is_there {
        skip(test, "there is no systemd-analyze");
    }
    is_there.then(|| Command::new("systemd-analyze"))
}

#[test]
fn the_units_are_what_systemd_understands() {
    let test = "the_units_are_what_systemd_understands";
    let folder = tempfile::tempdir().unwrap();
    for name in ["muster.service", "muster@.service"] {
        let Some(mut analyze) = analyze(test) else { return };
        // The binary is installed nowhere: that of the test stands for it.
        let text = fs::read_to_string(unit(name)).unwrap();
        assert!(text.contains("ExecStart=/usr/bin/muster run --config /var/lib/muster/"), "{text}");
        let path = folder.path().join(name);
        fs::write(&path, text.replace("/usr/bin/muster", env!("CARGO_BIN_EXE_muster"))).unwrap();
        let ended = analyze.args(["verify", "--man=no"]).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success() && said.is_empty(), "{name}: {said}");
    }
}

#[test]
fn the_units_expose_little() {
    let test = "the_units_expose_little";
    for name in ["muster.service", "muster@.service"] {
        let Some(mut analyze) = analyze(test) else { return };
        let ended = analyze.args(["security", "--offline=true", "--no-pager"]).arg(unit(name)).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        let level = said.lines().find_map(|line| line.split_once("Overall exposure level for ")).unwrap().1;
        let level: f64 = level.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(level <= EXPOSURE_MAX, "{said}");
    }
}

#[test]
fn the_template_is_the_unit_with_a_name() {
    let settings = |name: &str| {
        let text = fs::read_to_string(unit(name)).unwrap();
        text[text.find("[Unit]").unwrap()..].to_owned()
    };
    let named = settings("muster.service")
        .replace("Description=muster:", "Description=muster %i:")
        .replace("/var/lib/muster", "/var/lib/muster/%i")
        .replace("StateDirectory=muster\n", "StateDirectory=muster/%i\n");
    assert_eq!(settings("muster@.service"), named);
}

/// A service manager, as far as a daemon hears of it.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn at(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, path }
    }

    /// The next that it is told within this time.
    fn told_within(&self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut bytes = [0; 4_096];
        let read = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..read]).trim().to_owned())
    }

    /// The next that it is told that is not another beat.
    #[track_caller]
    fn told(&self) -> String {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            match self.told_within(PATIENCE) {
                Some(told) if told != "WATCHDOG=1" => return told,
                Some(_) => {}
                None => break,
            }
        }
        panic!("nothing but beats within {PATIENCE:?}");
    }

    /// Waits until it has not been told that all is well for longer than its patience.
    #[track_caller]
    fn until_it_would_act(&self) {
        until("the watchdog is not fed", PATIENCE, || match self.told_within(WATCHDOG) {
            Some(told) => {
                assert_eq!(told, "WATCHDOG=1");
                None
            }
            None => Some(()),
        });
    }
}

/// A member of `mode` that speaks to this manager.
fn member(spec: Spec, manager: &Manager, watchdog: Option<Duration>) -> Spec {
    let spec = spec.variable("NOTIFY_SOCKET", manager.path.to_str().unwrap()).variable("MUSTER_CHAOS", "1");
    match watchdog {
        Some(patience) => spec.variable("WATCHDOG_USEC", &patience.as_micros().to_string()),
        None => spec,
    }
}

#[test]
fn the_service_manager_is_told_of_the_start_of_every_beat_and_of_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::at(folder.path());
    let mut federation = Federation::new();
    federation.add(member(Spec::indexer("desk-1"), &manager, Some(WATCHDOG))).start();
    assert_eq!(manager.told_within(PATIENCE).as_deref(), Some("READY=1"));
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(manager.told_within(WATCHDOG).as_deref(), Some("WATCHDOG=1"), "always within its patience");
    }
    assert!(began.elapsed() > WATCHDOG, "it beats, and does not drum");
    federation.member("desk-1").signal(Signal::SIGTERM);
    assert_eq!(manager.told(), "STOPPING=1");
    assert!(federation.member_mut("desk-1").until_ended().success());
}

#[test]
fn who_is_not_asked_for_beats_gives_none() {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::at(folder.path());
    let mut federation = Federation::new();
    federation.add(member(Spec::node("paris"), &manager, None)).start();
    assert_eq!(manager.told_within(PATIENCE).as_deref(), Some("READY=1"));
    federation.member("paris").signal(Signal::SIGTERM);
    assert_eq!(manager.told_within(PATIENCE).as_deref(), Some("STOPPING=1"));
}

#[test]
fn a_stuck_critical_actor_stops_the_feeding_and_another_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::at(folder.path());
    let mut federation = Federation::new();
    federation.add(member(Spec::indexer("desk-1"), &manager, Some(WATCHDOG))).start();
    assert_eq!(manager.told_within(PATIENCE).as_deref(), Some("READY=1"));
    let desk = federation.member("desk-1");
    let stall = |actor: &str| {
        let answer = desk.tell(&format!("/api/v1/chaos/actors/{actor}"), r#"{"fault":"stall","ms":20000}"#);
        assert_eq!(answer.code, 204, "{actor}: {answer:?}");
    };
    // What is collected today may be collected tomorrow.
    stall("root/gc");
    for _ in 0..5 {
        assert_eq!(manager.told_within(WATCHDOG).as_deref(), Some("WATCHDOG=1"));
    }
    stall("root/indexer/registry");
    manager.until_it_would_act();
    assert!(desk.log().contains("critical actors do not answer"), "the log says who: {}", desk.log());
    // A manager with more patience would see it come back.
    assert_eq!(manager.told_within(PATIENCE).as_deref(), Some("WATCHDOG=1"));
}

#[test]
fn a_stuck_supervisor_stops_the_feeding_too() {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::at(folder.path());
    let mut federation = Federation::new();
    federation.add(member(Spec::node("paris"), &manager, Some(WATCHDOG))).start();
    assert_eq!(manager.told_within(PATIENCE).as_deref(), Some("READY=1"));
    let answer = federation.member("paris").tell("/api/v1/chaos/actors/root", r#"{"fault":"stall","ms":600000}"#);
    assert_eq!(answer.code, 204, "{answer:?}");
    manager.until_it_would_act();
}
