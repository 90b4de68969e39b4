//! The command line as scripts see it: exit codes, JSON, words.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Federation, PATIENCE, Port, Terminal, muster, muster_in, private_file, shown_mode, until_true};

#[test]
fn every_verb_that_reads_answers_in_json() {
    let federation = Federation::converged(2, &["paris"]);
    let (paris, indexer) = (federation.member("paris"), federation.member("indexer-1"));
    for verb in ["peers", "indexers", "tree", "events"] {
        let answer = paris.verb(&[verb, "--output", "json"]).ok().json();
        assert!(answer.is_array(), "{verb}: {answer}");
    }
    let status = paris.verb(&["status", "--output", "json"]).ok().json();
    assert_eq!(status["name"], "paris");
    let sessions = indexer.verb(&["sessions", "--output", "json"]).ok().json();
    assert!(sessions.as_array().unwrap().iter().any(|session| session["name"] == "paris"), "{sessions}");
    for row in paris.verb(&["indexers", "--output", "jsonl"]).ok().json_lines() {
        assert!(row["peer_id"].is_string(), "{row}");
    }
    let yaml = paris.verb(&["status", "--output", "yaml"]).ok().out;
    assert!(yaml.contains("name: paris"), "{yaml}");
}

#[test]
fn every_verb_that_reads_speaks_every_form() {
    let federation = Federation::converged(1, &["paris"]);
    let paris = federation.member("paris");
    let peer = paris.peer_id.clone();
    let (config, folder) = (paris.config(), paris.dir.join("pages"));
    let (config, folder) = (config.to_str().unwrap(), folder.to_str().unwrap());
    let lists = [
        &["peers"][..],
        &["indexers"],
        &["sessions"],
        &["tree"],
        &["table"],
        &["events"],
        &["alerts"],
        &["outbox"],
        &["search", "paris"],
        &["get", &peer],
        &["resource", "ls"],
        &["partner", "ls"],
        &["planner", "ls"],
        &["ban", "ls"],
    ];
    let files = [
        &["id", "--config", config][..],
        &["doctor", "--config", config],
        &["config", "check", "--config", config],
        &["config", "show", "--config", config],
        &["config", "diff", "--config", config],
        &["config", "schema"],
        &["man", "--dir", folder],
    ];
    let ask = |verb: &[&str], form: &str| {
        let line = [verb, &["--output", form]].concat();
        // What has no daemon is no verb of one.
        let ended = if files.contains(&verb) { muster(&line) } else { paris.verb(&line) };
        assert!([Some(0), Some(7)].contains(&ended.code) || verb[0] == "doctor", "{line:?}: {ended:?}");
        ended
    };
    for verb in lists.into_iter().chain(files).chain([&["status"][..]]) {
        let streams = verb[0] == "search";
        if streams {
            drop(ask(verb, "json").json_lines())
        } else {
            drop(ask(verb, "json").json())
        }
        ask(verb, "jsonl").json_lines();
        for document in ask(verb, "yaml").out.split("---\n").filter(|text| !text.is_empty()) {
            let read: Result<Value, _> = serde_yaml_ng::from_str(document);
            assert!(read.is_ok(), "{verb:?}: {document}");
        }
        let table = ask(verb, "table").out;
        assert!(!table.is_empty() && !table.contains('\u{1b}'), "{verb:?}: {table}");
    }
}

#[test]
fn the_routing_table_holds_the_indexers_that_a_member_greeted() {
    let federation = Federation::converged(3, &["paris"]);
    let ids = ["indexer-1", "indexer-2", "indexer-3"].map(|name| federation.member(name).peer_id.clone());
    let paris = federation.member("paris");
    until_true("paris has all indexers in its table", PATIENCE, || {
        let bins = paris.verb(&["table", "--output", "json"]).ok().json();
        let bins = bins.as_array().unwrap().clone();
        let commons: Vec<u64> = bins.iter().map(|bin| bin["common"].as_u64().unwrap()).collect();
        assert!(commons.is_sorted() && commons.iter().all(|common| *common < 256), "{bins:?}");
        let peers: Vec<&Value> = bins.iter().flat_map(|bin| bin["peers"].as_array().unwrap()).collect();
        // Nodes serve nothing of the DHT, and nobody stands in his own table.
        assert!(peers.iter().all(|peer| ids.iter().any(|id| peer["peer_id"] == **id)), "{bins:?}");
        peers.len() == ids.len() && peers.iter().all(|peer| peer["connected"] == true && peer["name"] != "")
    });
    let key = |id: &str| libp2p::kad::KBucketKey::from(id.parse::<libp2p::PeerId>().unwrap());
    for bin in paris.verb(&["table", "--output", "jsonl"]).ok().json_lines() {
        for peer in bin["peers"].as_array().unwrap() {
            let distance = key(&paris.peer_id).distance(&key(peer["peer_id"].as_str().unwrap()));
            assert_eq!(bin["common"], 255 - distance.ilog2().unwrap(), "{bin}");
        }
    }
    let shown = paris.verb(&["table"]).ok().out;
    assert!(shown.contains("indexer-2") && shown.contains("3 indexers in"), "{shown}");
}

#[test]
fn the_live_view_is_drawn_switched_and_left_and_only_on_a_terminal() {
    let federation = Federation::converged(1, &["paris"]);
    let paris = federation.member("paris");
    let at = format!("http://{}", paris.admin());
    let mut terminal = Terminal::run(&["--admin", &at, "top"], &[]);
    terminal.until_shown("1 peers");
    terminal.until_shown("indexer-1");
    terminal.types("2");
    terminal.until_shown("root/store");
    terminal.types("\t");
    terminal.until_shown("per second");
    terminal.types("4");
    terminal.until_shown("at (UTC)");
    terminal.types("q");
    let (code, text) = terminal.end();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("\u{1b}[?1049h") && text.trim_end().contains("\u{1b}[?1049l"), "the screen is given back");

    let piped = paris.verb(&["top"]);
    assert_eq!(piped.code, Some(2), "{piped:?}");
    assert!(piped.err.contains("muster status") && piped.out.is_empty(), "{piped:?}");
    let port = Port::free();
    let (code, text) = Terminal::run(&["--admin", &format!("127.0.0.1:{}", port.number), "top"], &[]).end();
    assert_eq!(code, Some(3), "{text}");
    assert!(!text.contains("\u{1b}[?1049h"), "the words stay where they can be read: {text:?}");
}

#[test]
fn the_live_view_gives_the_terminal_back_when_it_is_told_to_end() {
    let federation = Federation::converged(1, &[]);
    let at = format!("http://{}", federation.member("indexer-1").admin());
    let terminal = Terminal::run(&["--admin", &at, "top"], &[]);
    let held = terminal.held();
    terminal.until_shown("indexer-1");
    assert!(Terminal::is_raw(&held));
    terminal.signal(Signal::SIGTERM);
    let (code, text) = terminal.end();
    assert_eq!(code, Some(130), "{text}");
    assert!(text.trim_end().contains("\u{1b}[?1049l"), "the screen is given back: {text:?}");
    assert!(!Terminal::is_raw(&held), "and what is typed is shown again");
}

#[test]
fn colours_are_for_terminals_and_for_those_who_ask_for_them() {
    let federation = Federation::converged(1, &[]);
    let at = format!("http://{}", federation.member("indexer-1").admin());
    let line = ["--admin", at.as_str(), "status"];
    let has_colour = |text: &str| text.contains('\u{1b}');
    let piped = |variables: &[(&str, &str)]| {
        let ended = muster_in(std::path::Path::new("/"), variables, &line).ok();
        has_colour(&ended.out)
    };
    assert!(!piped(&[]), "a pipe gets plain text");
    assert!(piped(&[("CLICOLOR_FORCE", "1")]));
    assert!(!piped(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]), "no is no");
    let on_a_terminal = |variables: &[(&str, &str)]| {
        let (code, text) = Terminal::run(&line, variables).end();
        assert_eq!(code, Some(0), "{text}");
        has_colour(&text)
    };
    assert!(on_a_terminal(&[]));
    assert!(!on_a_terminal(&[("NO_COLOR", "1")]));
    assert!(!on_a_terminal(&[("CLICOLOR", "0")]));
    assert!(!on_a_terminal(&[("TERM", "dumb")]));
    // Errors and help keep to the same.
    let (_, text) = Terminal::run(&["--help"], &[("NO_COLOR", "1")]).end();
    assert!(text.contains("Look after:") && !has_colour(&text), "{text}");
    assert!(has_colour(&Terminal::run(&["--help"], &[]).end().1));
    assert!(!has_colour(&muster(&["fly"]).err));
}

#[test]
fn every_shown_score_is_recomputed_from_its_json_without_a_daemon() {
    let federation = Federation::converged(2, &["paris"]);
    let paris = federation.member("paris");
    let explained = paris.verb(&["indexers", "--explain", "--output", "json"]).ok();
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("explained.json");
    std::fs::write(&file, &explained.out).unwrap();
    let proofs = muster(&["indexers", "--recompute", file.to_str().unwrap(), "--output", "json"]).ok().json();
    let proofs = proofs.as_array().unwrap();
    assert!(!proofs.is_empty());
    for proof in proofs {
        assert_eq!(proof["holds"], true, "{proof}");
        assert!(proof["events"].as_u64().unwrap() > 0, "{proof}");
        assert_eq!(proof["shown"], proof["recomputed"]);
    }
    let told = paris.verb(&["indexers", "--explain"]).ok().out;
    assert!(told.contains("answered in") && told.contains("answers and is a member"), "{told}");
}

#[test]
fn the_tree_shows_every_actor_with_its_vitals() {
    let federation = Federation::converged(1, &["paris"]);
    let tree = federation.member("paris").verb(&["tree", "--output", "json"]).ok().json();
    let actors = tree.as_array().unwrap();
    for actor in actors {
        for field in [
            "name",
            "kind",
            "parent",
            "state",
            "uptime_ms",
            "restarts",
            "handled",
            "in_flight",
            "handle_p50_us",
            "handle_p99_us",
        ] {
            assert!(!actor[field].is_null(), "{field} of {actor}");
        }
    }
    for kind in ["store", "score", "swarm", "heartbeat"] {
        assert!(actors.iter().any(|actor| actor["kind"] == kind), "{kind} in {tree}");
    }
    // Whoever has a parent stands below one that is shown.
    for actor in actors.iter().filter(|actor| actor["parent"] != "") {
        assert!(actors.iter().any(|other| other["name"] == actor["parent"]), "{actor}");
    }
}

#[test]
fn nobody_listening_is_3_nonsense_is_2_and_an_absent_demo_is_3() {
    let port = Port::free();
    let ended = muster(&["--admin", &format!("http://127.0.0.1:{}", port.number), "peers"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    for nonsense in [&["fly"][..], &["--admin", "nowhere", "peers"], &["search"], &["peers", "--output", "xml"]] {
        let ended = muster(nonsense);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(!ended.err.is_empty());
    }
    let temp = tempfile::tempdir().unwrap();
    let runtime = ["XDG_RUNTIME_DIR", "TMPDIR"].map(|name| (name, temp.path().to_str().unwrap()));
    for verb in [&["--demo", "peers"][..], &["--demo", "kill", "paris"], &["--demo", "down"]] {
        let ended = muster_in(temp.path(), &runtime, verb);
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(ended.err.contains("muster demo"), "how to start one: {ended:?}");
    }
}

#[test]
fn the_demos_verbs_are_not_for_daemons() {
    let ended = muster(&["kill", "paris"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("--demo"), "{ended:?}");
}

#[test]
fn init_makes_a_whole_member_and_never_overwrites_one() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("paris");
    let args = ["init", "--dir", dir.to_str().unwrap(), "--name", "paris", "--output", "json"];
    let made = muster(&args).ok().json();
    assert!(made["did"].as_str().unwrap().starts_with("did:key:z6Mk"), "{made}");
    for secret in ["identity.pem", "swarm.key"] {
        assert_eq!(shown_mode(&dir.join(secret)), "600", "{secret}");
    }
    assert!(dir.join("data").is_dir());
    let before = crate::harness::snapshot(&dir);
    let again = muster(&args);
    assert_eq!(again.code, Some(8), "{again:?}");
    assert_eq!(crate::harness::snapshot(&dir), before);

    let id = muster(&["id", "--config", dir.join("muster.toml").to_str().unwrap(), "--output", "json"]).ok().json();
    assert_eq!((&id["peer_id"], &id["did"]), (&made["peer_id"], &made["did"]));
}

#[test]
fn init_copies_a_pre_shared_key_and_refuses_one_that_is_none() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    muster(&["init", "--dir", &path("first")]).ok();
    muster(&["init", "--dir", &path("second"), "--psk", &path("first/swarm.key")]).ok();
    let read = |name: &str| std::fs::read(path(name)).unwrap();
    assert_eq!(read("first/swarm.key"), read("second/swarm.key"));
    private_file(&temp.path().join("none.key"), b"/key/swarm/psk/1.0.0/\n/base16/\nabcdef\n");
    let ended = muster(&["init", "--dir", &path("third"), "--psk", &path("none.key")]);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(!temp.path().join("third").exists());
}

#[test]
fn id_tells_the_full_address_of_a_running_member() {
    let federation = Federation::converged(1, &[]);
    let indexer = federation.member("indexer-1");
    let id = muster(&["id", "--config", indexer.config().to_str().unwrap(), "--output", "json"]).ok().json();
    let addresses: Vec<Value> = id["addresses"].as_array().unwrap().clone();
    assert!(addresses.contains(&Value::from(indexer.address())), "{addresses:?}");
}

#[test]
fn the_admin_endpoint_answers_only_to_its_own_name() {
    let federation = Federation::converged(1, &[]);
    let at = federation.member("indexer-1");
    let answer = at.ask_as_host("/api/v1/status", "evil.example");
    assert_eq!(answer.code, 403, "{answer:?}");
    let metrics = at.ask("/metrics").unwrap();
    assert_eq!(metrics.code, 200);
    assert!(metrics.body.trim_end().ends_with("# EOF"), "OpenMetrics end");
}

#[test]
fn config_tells_what_is_wrong_what_is_set_and_what_differs() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("paris");
    muster(&["init", "--dir", dir.to_str().unwrap(), "--name", "paris"]).ok();
    let in_dir = |arguments: &[&str]| muster_in(&dir, &[("MUSTER_NETWORK__PORT", "4999")], arguments);

    let checked = in_dir(&["config", "check", "--output", "json"]).ok().json();
    assert_eq!(checked["set"], 3, "its name, its mode, its port: {checked}");
    let all = in_dir(&["config", "show", "--origin", "--output", "json"]).ok().json();
    let origin = |key: &str| {
        let found = all.as_array().unwrap().iter().find(|setting| setting["key"] == key).unwrap();
        found["origin"].as_str().unwrap().to_owned()
    };
    assert_eq!(origin("network.port"), "variable MUSTER_NETWORK__PORT");
    assert!(origin("node.name").starts_with("muster.toml:"), "{}", origin("node.name"));
    assert_eq!(origin("store.url"), "built in");
    assert_eq!(in_dir(&["config", "show", "--output", "json"]).ok().json()["network"]["port"], 4999);
    let differs = in_dir(&["config", "diff", "--output", "jsonl"]).ok().json_lines();
    let keys: Vec<&str> = differs.iter().map(|row| row["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["node.name", "network.port"], "the mode that was chosen is what is built in");
    let schema = in_dir(&["config", "schema"]).ok().json();
    assert_eq!(schema["properties"]["network"]["properties"]["port"]["maximum"], 65535);

    let wrong = dir.join("wrong.toml");
    std::fs::write(&wrong, "[network]\nport = 70000\nprot = 1\n[bus]\npassword = 7\n").unwrap();
    // Not hidden by a variable that is stronger than the file.
    let ended = muster_in(&dir, &[], &["config", "check", "wrong.toml"]);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    for told in ["3 settings cannot be used", "2 | port = 70000\n    |        ^^^^^", "did you mean network.port?"] {
        assert!(ended.err.contains(told), "{told}: {ended:?}");
    }
    assert!(!ended.err.contains("password = 7"), "{ended:?}");
    let ended = muster_in(temp.path(), &[], &["config", "check"]);
    assert_eq!(ended.code, Some(2), "no member is named: {ended:?}");
}

#[test]
fn shells_and_the_manual_know_every_verb() {
    let temp = tempfile::tempdir().unwrap();
    let script = muster(&["completions", "bash"]).ok().out;
    assert!(script.contains("muster__subcmd__partner") || script.contains("muster__partner"), "{script}");
    let pages = temp.path().join("man1");
    muster(&["man", "--dir", pages.to_str().unwrap()]).ok();
    assert!(std::fs::read_to_string(pages.join("muster-config-check.1")).unwrap().contains("check"));
    let ended = muster(&["man", "--dir", "/dev/null/man1"]);
    assert_eq!(ended.code, Some(74), "{ended:?}");
}
