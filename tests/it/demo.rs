//! The demo's whole life, and that nothing is left of it however it ends.

use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Ended, PATIENCE, command, muster_in, until, until_free, until_true, wait_status};

/// A demo in a runtime folder of its own.
struct Demo {
    runtime: TempDir,
    child: Child,
    ports: Vec<u16>,
}

impl Demo {
    fn started() -> Self {
        let runtime = tempfile::Builder::new().prefix("muster-it-demo-").tempdir().unwrap();
        let log = std::fs::File::create(runtime.path().join("demo.log")).unwrap();
        let child = command()
            .arg("demo")
            .env("XDG_RUNTIME_DIR", runtime.path())
            .env("TMPDIR", runtime.path())
            .stdout(log.try_clone().unwrap())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let mut demo = Self { runtime, child, ports: Vec::new() };
        until_true("the demo has converged and said so", PATIENCE, || demo.said().contains("end everything"));
        demo.ports = demo.members().iter().flat_map(ports).collect();
        demo
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.runtime.path().join("demo.log")).unwrap_or_default()
    }

    fn folder(&self) -> PathBuf {
        self.runtime.path().join(format!("muster-demo-{}", nix::unistd::geteuid()))
    }

    fn state(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.folder().join("demo.json")).unwrap()).unwrap()
    }

    fn members(&self) -> Vec<Value> {
        self.state()["members"].as_array().unwrap().clone()
    }

    #[track_caller]
    fn verb(&self, args: &[&str]) -> Ended {
        self.muster(&[&["--demo"], args].concat())
    }

    /// Runs the binary where no other demo than this one can be seen.
    #[track_caller]
    fn muster(&self, args: &[&str]) -> Ended {
        let runtime = self.runtime.path().to_str().unwrap();
        muster_in(self.runtime.path(), &[("XDG_RUNTIME_DIR", runtime), ("TMPDIR", runtime)], args)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Its exit code, and nothing left: no process, no port, no file.
    #[track_caller]
    fn ended(&mut self) -> Option<i32> {
        let code = wait_status(&mut self.child, PATIENCE).expect("the demo has not ended").code();
        self.assert_nothing_left();
        code
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        let folder = self.folder();
        until_true("the folder is gone", PATIENCE, || !folder.exists());
        until_true("no process is left", PATIENCE, || processes(&folder).is_empty());
        for port in &self.ports {
            until_free(*port, PATIENCE);
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the demo said\n{}", self.said());
        }
        // The members die with it, stopped ones too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ports(member: &Value) -> [u16; 2] {
    let admin = member["admin"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    [admin, u16::try_from(member["p2p_port"].as_u64().unwrap()).unwrap()]
}

/// Processes whose command line names the folder: members and watcher.
fn processes(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        std::fs::read(entry.path().join("cmdline")).ok().map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(folder)).collect()
}

#[test]
fn the_whole_story_of_a_demo() {
    let began = Instant::now();
    let mut demo = Demo::started();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let said = demo.said();
    assert!(said.contains("In a browser, http://127.0.0.1:"), "{said}");
    assert!(said.contains("paris") && said.contains("indexer-3") && said.contains("--demo kill indexer-2"), "{said}");

    let second =
        muster_in(demo.runtime.path(), &[("XDG_RUNTIME_DIR", demo.runtime.path().to_str().unwrap())], &["demo"]);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.err.contains(&demo.child.id().to_string()) && second.err.contains("down"), "{second:?}");

    // A terminal opened in another way has no runtime folder, and finds the demo all the same.
    let temporary =
        muster_in(demo.runtime.path(), &[("TMPDIR", demo.runtime.path().to_str().unwrap())], &["--demo", "status"]);
    assert_eq!(temporary.code, Some(0), "{temporary:?}");

    let peers = demo.verb(&["peers", "--output", "json"]).ok().json();
    assert!(peers.as_array().is_some_and(|peers| !peers.is_empty()), "{peers}");
    let hits = until("both are found", PATIENCE, || {
        let lines = demo.verb(&["search", "par", "--output", "jsonl"]).json_lines();
        (lines.iter().filter(|line| line["event"] == "hit").count() == 2).then_some(lines)
    });
    assert_eq!(hits.last().unwrap()["event"], "end");
    let lyon = demo.verb(&["get", "lyon", "--output", "json"]).ok().json();
    assert_eq!(lyon[0]["name"], "lyon");
    demo.verb(&["tree"]).ok();

    until_true("the demo says what is shared", PATIENCE, || demo.said().contains("paris and lyon are partners"));
    for (on, own, other) in [("paris", "gpu-farm", "weather-archive"), ("lyon", "weather-archive", "gpu-farm")] {
        until_true(&format!("{on} holds its own and its partner's"), PATIENCE, || {
            let rows = demo.verb(&["--on", on, "resource", "ls", "--output", "jsonl"]).ok().json_lines();
            [own, other].iter().all(|id| rows.iter().any(|row| row["id"] == *id))
        });
    }
    // A member's name is its peer id's in a demo, where nobody else can have it.
    demo.verb(&["--on", "oslo", "partner", "add", "paris"]).ok();
    assert_eq!(demo.verb(&["--on", "oslo", "partner", "add", "rome"]).code, Some(4));
    let sessions = demo.verb(&["--on", "indexer-1", "sessions", "--output", "json"]).ok().json();
    assert!(sessions.as_array().is_some_and(|sessions| !sessions.is_empty()), "{sessions}");
    let unknown = demo.verb(&["--on", "rome", "peers"]);
    assert_eq!(unknown.code, Some(4), "{unknown:?}");
    assert!(unknown.err.contains("paris"), "{unknown:?}");

    let story = demo.verb(&["kill", "indexer-2", "--output", "jsonl"]).ok().json_lines();
    assert_eq!(story.first().unwrap()["what"], "killed", "{story:?}");
    assert_eq!(story.last().unwrap()["healed"], true, "{story:?}");
    assert!(story.iter().any(|line| line["who"] == "paris"), "{story:?}");
    assert_eq!(demo.verb(&["kill", "indexer-2"]).code, Some(8));
    let before = demo.members();
    demo.verb(&["start", "indexer-2"]).ok();
    for (before, after) in before.iter().zip(demo.members()) {
        assert_eq!((&before["peer_id"], ports(before)), (&after["peer_id"], ports(&after)));
    }

    demo.verb(&["pause", "oslo"]).ok();
    assert_eq!(demo.verb(&["pause", "oslo"]).code, Some(8));
    demo.verb(&["resume", "oslo"]).ok();
    demo.verb(&["pause", "oslo"]).ok();

    demo.verb(&["down"]).ok();
    assert_eq!(demo.ended(), Some(0), "the demo in the foreground ends well too");
    assert_eq!(demo.verb(&["down"]).code, Some(3));
}

#[test]
fn ctrl_c_ends_a_demo_and_leaves_nothing() {
    let mut demo = Demo::started();
    demo.signal(Signal::SIGINT);
    assert_eq!(demo.ended(), Some(0));
}

#[test]
fn a_killed_demo_leaves_nothing_not_even_a_stopped_member() {
    let mut demo = Demo::started();
    demo.verb(&["pause", "lyon"]).ok();
    demo.signal(Signal::SIGKILL);
    assert_eq!(demo.ended(), None);
}

#[test]
fn the_members_die_with_demo_and_watcher_and_the_next_verb_sweeps() {
    let mut demo = Demo::started();
    demo.verb(&["pause", "lyon"]).ok();
    for watcher in watchers(&demo.folder()) {
        kill(Pid::from_raw(watcher), Signal::SIGKILL).unwrap();
    }
    demo.signal(Signal::SIGKILL);
    wait_status(&mut demo.child, PATIENCE).unwrap();
    let folder = demo.folder();
    until_true("no process is left", PATIENCE, || processes(&folder).is_empty());
    assert!(folder.exists(), "nobody was left to remove it");
    let ended = demo.verb(&["peers"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    demo.assert_nothing_left();
}

fn watchers(folder: &Path) -> Vec<i32> {
    let is_watcher = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&format!("demo-watch\0{}", folder.display())))
    };
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_watcher).collect()
}
