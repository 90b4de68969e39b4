//! The admin endpoint as operators and their programs use it: tokens with roles, what is written down of changes, the Unix
//! socket, events that are followed, and a door that idle connections do not block.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixListener,
    path::Path,
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use protocol::identity::Keys;
use serde_json::{Value, json};

use crate::harness::{Ended, Federation, Member, PATIENCE, Spec, muster, muster_in, shown_mode, until_true};

fn indexer(change: impl FnOnce(Spec) -> Spec) -> Federation {
    let mut federation = Federation::new();
    federation.add(change(Spec::indexer("indexer-1"))).start();
    federation.member("indexer-1").until_ready();
    federation
}

/// A verb by whoever may read the member's folder.
#[track_caller]
fn at_home(member: &Member, args: &[&str]) -> Ended {
    muster(&[&["--config", member.config().to_str().unwrap()], args].concat())
}

/// A verb by somebody elsewhere, who has this token.
#[track_caller]
fn by(member: &Member, token: &str, args: &[&str]) -> Ended {
    let url = format!("http://{}", member.admin());
    muster_in(Path::new("/"), &[("MUSTER_ADMIN_TOKEN", token)], &[&["--admin", url.as_str()], args].concat())
}

#[track_caller]
fn token(member: &Member, name: &str, role: &str) -> String {
    let made = at_home(member, &["token", "add", name, "--role", role, "--output", "json"]).ok().json();
    made["token"].as_str().unwrap().to_owned()
}

/// Changes that were written down, the oldest first: who, what, and the status of the answer.
#[track_caller]
fn written(member: &Member) -> Vec<(String, String, u64)> {
    let entries = at_home(member, &["audit", "--output", "json"]).ok().json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |entry: &Value| {
        let what = format!("{} {}", text(&entry["method"]), text(&entry["path"]));
        (text(&entry["who"]), what, entry["status"].as_u64().unwrap())
    };
    entries.as_array().unwrap().iter().rev().map(of).collect()
}

#[test]
fn a_token_does_what_its_role_may_over_restarts_and_every_change_is_written_down() {
    let mut federation = indexer(|spec| spec);
    let member = federation.member("indexer-1");
    let made =
        [("grafana", "reader"), ("ops", "operator"), ("boss", "admin")].map(|(name, role)| token(member, name, role));
    let [reader, operator, admin] = &made;
    assert_eq!(at_home(member, &["token", "add", "ops", "--role", "reader"]).code, Some(8), "one of that name");

    by(member, reader, &["status"]).ok();
    for (token, drain, remove) in [("nonsense", 5, 5), (reader, 5, 5), (operator, 0, 5), (admin, 0, 4)] {
        assert_eq!(by(member, token, &["drain"]).code, Some(drain));
        assert_eq!(by(member, token, &["token", "rm", "nobody"]).code, Some(remove));
    }
    let refused = by(member, reader, &["undrain"]);
    assert!(refused.err.contains("the token \"grafana\" has the role reader"), "{refused:?}");

    let member = federation.member_mut("indexer-1");
    member.kill();
    member.start();
    let member = federation.member("indexer-1");
    member.until_listening();
    by(member, operator, &["undrain"]).ok();
    by(member, admin, &["token", "rm", "ops"]).ok();
    assert_eq!(by(member, operator, &["drain"]).code, Some(5), "it was taken back");
    let names = at_home(member, &["token", "ls", "--output", "json"]).ok().json();
    let names: Vec<&str> = names.as_array().unwrap().iter().map(|token| token["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["admin", "grafana", "boss"]);

    let (drain, undrain, tokens) = ("PUT /api/v1/drain", "DELETE /api/v1/drain", "POST /api/v1/tokens");
    let nobody = "DELETE /api/v1/tokens/nobody";
    let expected = [
        ("admin", tokens, 201),
        ("admin", tokens, 201),
        ("admin", tokens, 201),
        ("admin", tokens, 409),
        // Whoever shows no known token leaves no line.
        ("grafana", drain, 403),
        ("grafana", nobody, 403),
        ("ops", drain, 204),
        ("ops", nobody, 403),
        ("boss", drain, 204),
        ("boss", nobody, 404),
        ("grafana", undrain, 403),
        ("ops", undrain, 204),
        ("boss", "DELETE /api/v1/tokens/ops", 204),
    ];
    let expected = expected.map(|(who, what, status)| (who.to_owned(), what.to_owned(), status));
    assert_eq!(written(member), expected);
    assert!(at_home(member, &["audit"]).ok().out.contains("not allowed"), "and people can read it");

    for file in ["admin.tokens", "audit.jsonl"] {
        assert_eq!(shown_mode(&member.dir.join("data").join(file)), "600", "{file}");
    }
    let (files, log) = (crate::harness::snapshot(&member.dir), member.log());
    for token in &made {
        assert!(!log.contains(token.as_str()), "no token is logged");
        for (path, (_, content)) in &files {
            let held = content.as_deref().unwrap_or_default();
            let is_in = held.windows(token.len()).any(|part| part == token.as_bytes());
            assert!(!is_in, "{} holds a token", path.display());
        }
    }
}

#[test]
fn the_unix_socket_is_its_users_alone_and_there_again_after_a_kill() {
    let mut federation = indexer(|spec| spec.set("admin.socket", "\"data/admin.sock\""));
    let member = federation.member("indexer-1");
    let socket = member.dir.join("data/admin.sock");
    let address = format!("unix:{}", socket.display());
    let ask = |args: &[&str]| muster(&[&["--admin", address.as_str()], args].concat());
    assert_eq!(shown_mode(&socket), "600");
    assert_eq!(ask(&["status", "--output", "json"]).ok().json()["name"], "indexer-1");
    assert_eq!(ask(&["drain"]).code, Some(5), "what changes something needs a token there too");
    let url = at_home(member, &["drain"]);
    assert_eq!(url.code, Some(0), "{url:?}");
    assert_eq!(fs::read_to_string(member.dir.join("data/admin.socket")).unwrap().trim(), socket.to_str().unwrap());

    let member = federation.member_mut("indexer-1");
    member.kill();
    assert!(socket.exists(), "as a kill leaves it");
    assert_eq!(ask(&["status"]).code, Some(3));
    member.start();
    federation.member("indexer-1").until_listening();
    assert_eq!(ask(&["status", "--output", "json"]).ok().json()["drained"], true);
    assert!(federation.member_mut("indexer-1").end_politely().success());
    for file in ["admin.sock", "admin.socket", "admin.addr"] {
        assert!(!federation.member("indexer-1").dir.join("data").join(file).exists(), "{file}");
    }

    let member = federation.member("indexer-1");
    let other = UnixListener::bind(&socket).unwrap();
    let ended = member.run_to_its_end(PATIENCE);
    assert_eq!(ended.code, Some(1), "another one's socket is not taken: {ended:?}");
    drop(other);
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "kept").unwrap();
    let ended = member.run_to_its_end(PATIENCE);
    assert_eq!(ended.code, Some(78), "a file is not replaced: {ended:?}");
    assert!(ended.err.contains("admin.socket"), "with its remedy: {ended:?}");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "kept");
}

/// Somebody who follows the events.
struct Follower(BufReader<TcpStream>);

/// One event of the stream: its name, its id, what it says.
type Told = (String, String, Value);

impl Follower {
    fn of(at: SocketAddr, last: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        write!(stream, "GET /api/v1/events/stream HTTP/1.0\r\nHost: localhost\r\n{last}\r\n").unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.contains(" 200 "), "{line}");
        while line != "\r\n" {
            line.clear();
            assert!(stream.read_line(&mut line).unwrap() > 0);
        }
        Self(stream)
    }

    /// The next event, which is waited for.
    fn next(&mut self) -> Told {
        let (mut name, mut id, mut data) = (String::new(), String::new(), Value::Null);
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
            match line.trim_end().split_once(": ") {
                Some(("event", text)) => name = text.to_owned(),
                Some(("id", text)) => id = text.to_owned(),
                Some(("data", text)) => data = serde_json::from_str(text).unwrap(),
                _ if line == "\n" && !data.is_null() => return (name, id, data),
                // Said to keep the connection open.
                _ => {}
            }
        }
    }
}

#[test]
fn whoever_follows_the_events_is_cut_off_at_will_and_gets_each_once_in_order() {
    const CHANGES: u8 = 40;
    let mut federation = indexer(|spec| spec);
    let member = federation.member("indexer-1");
    let at = member.admin();
    // Every connection reads a few and is gone, whatever is on its way to it.
    let following = std::thread::spawn(move || {
        let (mut seen, mut last, mut unbanned) = (Vec::<Value>::new(), None::<String>, 0);
        for round in 1.. {
            let mut follower = Follower::of(at, last.as_deref());
            for _ in 0..=(round % 5) {
                let (name, id, event) = follower.next();
                assert_eq!(name, "happened", "nothing is missing: {event}");
                unbanned += u8::from(event["kind"] == "unbanned");
                seen.push(event);
                last = Some(id);
                if unbanned == CHANGES {
                    return (seen, last);
                }
            }
        }
        unreachable!("it goes on until all was told")
    });
    let ban = |member: &Member, number: u8| {
        let peer = Keys::from_seed([number; 32]).peer_id();
        let wish = json!({ "peer_id": peer.to_string(), "reason": format!("number {number}") });
        assert_eq!(member.tell("/api/v1/bans", &wish.to_string()).code, 204);
        peer
    };
    for number in 0..CHANGES {
        let peer = ban(member, number);
        assert_eq!(member.tell_as("DELETE", &format!("/api/v1/bans/{peer}"), &member.token(), "").code, 204);
    }
    let (seen, last) = following.join().unwrap();
    let numbers: Vec<u64> = seen.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=seen.len() as u64).collect::<Vec<_>>(), "no gap and no duplicate");
    let mut listed: Vec<Value> = member.get("/api/v1/events?since=0");
    listed.truncate(seen.len());
    assert_eq!(seen, listed, "the same as who asks for all of them");

    let member = federation.member_mut("indexer-1");
    member.kill();
    member.start();
    let member = federation.member("indexer-1");
    member.until_ready();
    ban(member, CHANGES);
    let mut follower = Follower::of(member.admin(), last.as_deref());
    let (name, _, gap) = follower.next();
    assert_eq!((name.as_str(), &gap["reason"]), ("gap", &json!("restarted")), "how the other life ended nobody knows");
    assert_eq!(follower.next().2["seq"], 1, "and all of this one is told");
}

/// One past what an operator's machine would ever open at once, and many times what the endpoint takes.
const IDLE: usize = 1_000;

#[test]
fn a_thousand_idle_connections_do_not_keep_the_operator_out() {
    // A socket each, and those of the tests beside this one.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(4 * IDLE as u64)), hard).unwrap();
    let federation = indexer(|spec| spec);
    let member = federation.member("indexer-1");
    let mut held = Vec::new();
    for number in 0..IDLE {
        let mut socket = TcpStream::connect_timeout(&member.admin(), Duration::from_secs(5)).unwrap();
        // Some say nothing, some begin and do not go on; those that were let go already may say so.
        if number % 2 == 0 {
            let _ = socket.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: loc");
        }
        held.push(socket);
        if number % 100 == 99 {
            assert_eq!(member.ask("/livez").unwrap().code, 200, "after {number}");
        }
    }
    assert_eq!(member.tell_as("PUT", "/api/v1/drain", &member.token(), "").code, 204);
    at_home(member, &["status"]).ok();
    assert_eq!(held.len(), IDLE);
}

#[test]
fn a_members_series_do_not_grow_with_its_peers() {
    let mut federation = indexer(|spec| spec);
    let names = |federation: &Federation| -> BTreeSet<String> {
        let text = federation.member("indexer-1").ask("/metrics").unwrap().body;
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
            .collect()
    };
    let alone = names(&federation);
    assert!(alone.contains("muster_sessions"), "{alone:?}");
    let seed = federation.member("indexer-1").address();
    for name in ["paris", "lyon"] {
        federation.add(Spec::node(name).seed(&seed)).start();
    }
    federation.until_converged();
    until_true("both have a session", PATIENCE, || federation.member("indexer-1").sessions().len() == 2);
    assert_eq!(names(&federation), alone);
}

#[test]
fn the_endpoint_describes_itself_as_the_documentation_and_the_verb_do_and_says_what_it_checked() {
    let federation = indexer(|spec| spec);
    let member = federation.member("indexer-1");
    let held = fs::read_to_string(crate::harness::repository("docs/openapi.json")).unwrap();
    assert_eq!(member.ask("/api/v1/openapi.json").unwrap().body, held);
    assert_eq!(muster(&["openapi"]).ok().out, held);
    assert_eq!(member.ask("/livez").unwrap().code, 200);
    member.until_ready();
    let checked: Value = member.get("/readyz?verbose");
    let store = checked["checks"].as_array().unwrap().iter().find(|check| check["name"] == "store").unwrap();
    assert_eq!((&store["ok"], &store["needed"]), (&json!(true), &json!(true)), "{checked}");
}
