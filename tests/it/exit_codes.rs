//! Every exit code that `muster --help` names, from an end of the real binary that deserves it.

use std::{collections::BTreeSet, fs::File, process::Stdio};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::harness::{Federation, PATIENCE, Port, Spec, command, muster, until, until_true, wait_with_deadline};

/// The codes, as scripts read them in the help.
fn documented() -> BTreeSet<i32> {
    let help = muster(&["--help"]).ok().out;
    let (_, codes) = help.split_once("Exit codes:").expect("the help names them");
    codes.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn every_documented_code_is_the_end_of_something_and_no_other_is() {
    let mut federation = Federation::started(1, &[], |spec| spec.variable("MUSTER_CHAOS", "1"));
    federation.add(Spec::indexer("idle").set("alerts.disk_max", "0.0"));
    let (member, idle) = (federation.member("indexer-1"), federation.member("idle"));
    until_true("indexer-1 is ready", PATIENCE, || member.try_status().is_some_and(|status| status.ready));
    let config = idle.config();
    let config = config.to_str().unwrap();
    let mut seen = BTreeSet::new();
    let mut ended = |what: &str, code: Option<i32>, expected: i32| {
        assert_eq!(code, Some(expected), "{what}");
        seen.insert(expected);
    };

    ended("what was asked for was done", muster(&["id", "--config", config]).code, 0);
    ended("the folder is in use", member.run_to_its_end(PATIENCE).code, 1);
    ended("there is no such verb", muster(&["fly"]).code, 2);
    let nobody = Port::free();
    let nobody = format!("http://127.0.0.1:{}", nobody.number);
    ended("nobody listens there", muster(&["--admin", &nobody, "status"]).code, 3);
    ended("there is no such member", member.verb(&["get", "nobody-of-this-name"]).code, 4);
    ended("the token is missing", member.verb(&["ban", "add", &idle.peer_id]).code, 5);
    ended("a look with warnings", muster(&["doctor", "--config", config]).code, 7);
    let dir = idle.dir.to_str().unwrap();
    ended("nothing is overwritten", muster(&["init", "--dir", dir]).code, 8);

    let full = File::options().write(true).open("/dev/full").unwrap();
    let child = command().args(["id", "--config", config]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    ended("the disk is full", wait_with_deadline(child, PATIENCE).code, 74);

    let watching = member.verb_begun(&["tree", "--watch", "--output", "jsonl"]);
    let pid = Pid::from_raw(i32::try_from(watching.id()).unwrap());
    // It has begun once the endpoint has somebody connected: until then the signal might meet it unprepared.
    until("the verb runs", PATIENCE, || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        // SIGINT is the second signal, so the second bit.
        (u64::from_str_radix(caught.trim(), 16).ok()? & 2 != 0).then_some(())
    });
    kill(pid, Signal::SIGINT).unwrap();
    ended("Ctrl-C", wait_with_deadline(watching, PATIENCE).code, 130);

    let stall = member.tell("/api/v1/chaos/actors/root/health", r#"{"fault":"stall","ms":600000}"#);
    assert_eq!(stall.code, 204, "{stall:?}");
    ended("an actor is stuck", member.verb(&["status"]).code, 6);

    idle.set("network.port", "70000");
    ended("a setting is wrong", idle.run_to_its_end(PATIENCE).code, 78);

    federation.add(Spec::indexer("fallen").variable("MUSTER_CHAOS", "1").set("supervision.restarts_max", "1")).start();
    until_true("the tree stands", PATIENCE, || federation.member("fallen").try_status().is_some());
    until_true("its tree gave up", PATIENCE * 2, || {
        let fallen = federation.member_mut("fallen");
        if fallen.is_alive() && fallen.try_status().is_some() {
            // It may end while it is told to.
            let hit = || fallen.tell("/api/v1/chaos/actors/root/indexer/registry", r#"{"fault":"panic"}"#);
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(hit));
        }
        !federation.member_mut("fallen").is_alive()
    });
    ended("the tree ended by itself", federation.member_mut("fallen").reaped_code(), 70);

    assert_eq!(seen, documented());
}
