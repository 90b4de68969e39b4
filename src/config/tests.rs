#![allow(clippy::unwrap_used)]

use std::fs;

use tempfile::TempDir;

use super::*;

const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

/// A file of this name and text in a folder of its own.
fn file(name: &str, text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn vars(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn read(text: &str) -> Result<Config, Failure> {
    let (_folder, path) = file("muster.toml", text);
    load(&path, &BTreeMap::new(), &Flags::default())
}

/// What is said about a text, with the file's folder taken off.
fn faults(text: &str) -> Vec<String> {
    faults_with(text, &[], &Flags::default())
}

fn faults_with(text: &str, variables: &[(&str, &str)], flags: &Flags) -> Vec<String> {
    let (folder, path) = file("muster.toml", text);
    let failure = load(&path, &vars(variables), flags).unwrap_err();
    assert_eq!(failure.exit, Exit::Configuration);
    let folder = format!("{}/", folder.path().display());
    let first_line = |why: String| why.lines().next().unwrap_or_default().replace(&folder, "");
    failure.why.into_iter().map(first_line).collect()
}

/// What is shown of the file under each fault.
fn excerpts(text: &str) -> Vec<String> {
    let (_folder, path) = file("muster.toml", text);
    let failure = load(&path, &BTreeMap::new(), &Flags::default()).unwrap_err();
    failure.why.into_iter().map(|why| why.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned())).collect()
}

fn check(text: &str, expected: &str) {
    assert_eq!(faults(text), [expected], "{text}");
}

#[test]
fn the_built_in_file_says_what_the_code_says() {
    let config = read("").unwrap();
    assert_eq!(config.settings, Settings::default());
}

/// Every leaf of the settings, by its dotted key.
fn leaves(prefix: &str, value: &Value) -> Vec<String> {
    match value {
        // A table that anybody may fill is one setting.
        Value::Dict(_, inner) if !inner.is_empty() => inner
            .iter()
            .flat_map(|(name, value)| {
                leaves(&if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") }, value)
            })
            .collect(),
        _ => vec![prefix.to_owned()],
    }
}

#[test]
fn every_setting_of_the_code_is_in_the_file_and_in_the_table_of_what_is_expected() {
    let mut code = leaves("", &Value::serialize(Settings::default()).unwrap());
    let built_in: Dict = Figment::from(layers::defaults().unwrap()).extract().unwrap();
    let mut in_file = leaves("", &Value::from(built_in));
    let mut in_table: Vec<String> = EXPECTED.iter().map(|(key, _)| (*key).to_owned()).collect();
    for keys in [&mut code, &mut in_file, &mut in_table] {
        keys.sort();
    }
    assert_eq!(code, in_file);
    assert_eq!(code, in_table);
}

#[test]
fn every_setting_is_explained_with_its_range() {
    let mut section = "";
    let mut comment = String::new();
    let mut explained = 0;
    for line in DEFAULT_TOML.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment.push_str(text);
            comment.push(' ');
        } else if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((name, _)) = line.split_once(" = ") {
            let range = expected(&format!("{section}.{name}")).unwrap().to_string();
            let said = comment.to_lowercase().contains(&range.to_lowercase());
            assert!(said, "{section}.{name}: the comment does not say \"{range}\"");
            let when = if is_live(&format!("{section}.{name}")) { " Live." } else { " Needs a restart." };
            assert!(comment.contains(when), "{section}.{name}: the comment does not say \"{when}\"");
            let ending = format!(". {}", effective::variable(&format!("{section}.{name}")));
            assert!(comment.trim_end().ends_with(&ending), "{section}.{name}: it does not end with \"{ending}\"");
            explained += 1;
            comment.clear();
        } else {
            comment.clear();
        }
    }
    assert_eq!(explained, EXPECTED.len());
}

#[test]
fn a_broken_setting_is_told_with_its_place_what_was_got_and_what_was_expected() {
    check(
        "[network]\nport = 65536\n",
        "network.port (muster.toml:2:1): got 65536, expected a whole number from 0 to 65535",
    );
    check(
        "[network]\n  port = \"4001\"\n",
        "network.port (muster.toml:2:3): got \"4001\", expected a whole number from 0 to 65535",
    );
    check("network.port = -1", "network.port (muster.toml:1:9): got -1, expected a whole number from 0 to 65535");
    check(
        "[network]\nport = 1.5\n",
        "network.port (muster.toml:2:1): got 1.5, expected a whole number from 0 to 65535",
    );
    check(
        "[network]\nprofile = \"Local\"\n",
        "network.profile (muster.toml:2:1): got \"Local\", expected one of \"public\", \"local\", \"load\"",
    );
    check(
        "[node]\nmode = \"boss\"\n",
        "node.mode (muster.toml:2:1): got \"boss\", expected one of \"node\", \"indexer\", \"both\"",
    );
    check("[network]\nmdns = \"yes\"\n", "network.mdns (muster.toml:2:1): got \"yes\", expected true or false");
    check(
        "[node]\nname = \"a\\u0007b\"\n",
        "node.name (muster.toml:2:1): got \"a\\u{7}b\", expected empty for the host's name, or 1 to 64 characters \
         without control characters",
    );
    check(
        "[network]\nid = \"\"\n",
        "network.id (muster.toml:2:1): got \"\", expected 1 to 64 characters without control characters",
    );
    check(
        "[admin]\nlisten = \"localhost\"\n",
        "admin.listen (muster.toml:2:1): got \"localhost\", expected an IP address and a port such as \"127.0.0.1:7300\"",
    );
    check(
        "[log]\nformat = \"xml\"\n",
        "log.format (muster.toml:2:1): got \"xml\", expected one of \"human\", \"json\"",
    );
    check(
        "[node]\napi_url = \"ftp://x\"\n",
        "node.api_url (muster.toml:2:1): got \"ftp://x\", expected empty, or an http or https URL of at most 512 \
         characters",
    );
    // It may be nearly right and hold a password.
    check(
        "[store]\nurl = \"postgres:/muster:s3cret@db/muster\"\n",
        "store.url (muster.toml:2:1): got something else, expected empty for a file among the data, or \
         postgresql://user:password@host:port/database of at most 512 characters",
    );
    check("[files]\nkey = \"\"\n", "files.key (muster.toml:2:1): got \"\", expected a path of 1 to 4096 characters");
    check("network = 5\n", "network (muster.toml:1:1): got 5, expected a section");
    check(
        "[network.port]\nx = 1\n",
        "network.port (muster.toml:1:10): got a section, expected a whole number from 0 to 65535",
    );
}

#[test]
fn an_unknown_setting_is_told_with_the_one_that_was_meant() {
    for (text, expected) in [
        ("[network]\nprot = 1", "network.prot (muster.toml:2:1): there is no such setting; did you mean network.port?"),
        ("[network]\nname = 1", "network.name (muster.toml:2:1): there is no such setting; did you mean node.name?"),
        ("[netwrok]\nport = 1", "netwrok (muster.toml:1:2): there is no such setting; did you mean network?"),
        ("port = 1", "port (muster.toml:1:1): there is no such setting; did you mean network.port?"),
        (
            "[network]\nquantum_entanglement = 1",
            "network.quantum_entanglement (muster.toml:2:1): there is no such setting",
        ),
    ] {
        check(text, expected);
    }
}

#[test]
fn a_seed_that_cannot_be_dialled_is_told_with_what_is_wrong_with_it() {
    let told = |seed: &str| faults(&format!("[network]\nseeds = [\"{seed}\"]"));
    for (seed, why) in [
        ("/ip4/127.0.0.1/tcp/4001", "which does not end in /p2p/ and a peer id"),
        ("/ip4/127.0.0.1/tcp/1/p2p/nobody", "whose peer id \"nobody\" is none"),
        (&format!("/ip4/127.0.0.1/udp/4001/p2p/{PEER}"), "with /tcp and a port"),
        (&format!("/ip4/300.0.0.1/tcp/1/p2p/{PEER}"), "which is no address"),
        ("", "an empty seed address"),
    ] {
        let told = told(seed);
        assert_eq!(told.len(), 1, "{seed}");
        assert!(told[0].starts_with("network.seeds (muster.toml:2:1): got ") && told[0].contains(why), "{told:?}");
    }
    read(&format!("[network]\nseeds = [\"/dns4/seed.example/tcp/4001/p2p/{PEER}\"]")).unwrap();
}

#[test]
fn a_range_whose_other_bits_are_set_is_refused() {
    read("[network]\nprivate_ranges = [\"10.20.0.0/16\", \"fd00::/8\"]").unwrap();
    let told = faults("[network]\nprivate_ranges = [\"10.20.1.0/16\"]");
    assert!(
        told[0].starts_with("network.private_ranges (muster.toml:2:1): got \"10.20.1.0/16\", expected"),
        "{told:?}"
    );
}

#[test]
fn lists_are_bounded_at_their_limit_and_past_it() {
    let seeds = |count: usize| {
        let seed = format!("\"/ip4/127.0.0.1/tcp/4001/p2p/{PEER}\"");
        format!("[network]\nseeds = [{}]", vec![seed; count].join(","))
    };
    assert_eq!(read(&seeds(64)).unwrap().settings.network.seeds.len(), 64);
    assert!(faults(&seeds(65))[0].contains("(65 of them), expected at most 64"));
}

#[test]
fn every_fault_is_told_at_once_with_its_own_source() {
    let variables = [("MUSTER_NETWORK__PORT", "many"), ("MUSTER_NODE__MODE", "king"), ("MUSTER_NDOE__NAME", "x")];
    let flags = Flags { log: Some("=".to_owned()) };
    let told = faults_with("[network]\nid = \"\"\nmdns = 3\nport = -5\n", &variables, &flags);
    assert_eq!(told.len(), 6, "{told:#?}");
    for expected in [
        "network.id (muster.toml:2:1)",
        "network.mdns (muster.toml:3:1)",
        "network.port (variable MUSTER_NETWORK__PORT): got \"many\"",
        "node.mode (variable MUSTER_NODE__MODE): got \"king\"",
        "ndoe (variable MUSTER_NDOE__NAME): there is no such setting; did you mean node?",
        "log.level (flag --log or variable MUSTER_LOG): got \"=\"",
    ] {
        assert!(told.iter().any(|fault| fault.starts_with(expected)), "{expected}: {told:#?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told_with_the_place() {
    let told = faults("[network]\nport = \n");
    assert!(told[0].starts_with("muster.toml:2:"), "{told:?}");
    let told = faults("[network]\nport = 1\nport = 2\n");
    assert!(told[0].starts_with("muster.toml:3:1: ") && told[0].contains("duplicate"), "{told:?}");
    let (folder, path) = file("muster.toml", "");
    fs::write(&path, b"a = \"\xff\"").unwrap();
    let failure = load(&path, &BTreeMap::new(), &Flags::default()).unwrap_err();
    assert_eq!(failure.why, [format!("{}:1:6: it is not UTF-8 text", path.display())]);
    let none = folder.path().join("none.toml");
    let failure = load(&none, &BTreeMap::new(), &Flags::default()).unwrap_err();
    assert_eq!(failure.why, [format!("{}: there is no such file; `muster init` writes one", none.display())]);
    let failure = load(folder.path(), &BTreeMap::new(), &Flags::default()).unwrap_err();
    assert!(failure.why[0].contains("it cannot be read"), "{failure:?}");
    let (_folder, path) = file("muster.ini", "");
    assert!(load(&path, &BTreeMap::new(), &Flags::default()).unwrap_err().why[0].contains("its name ends in .ini"));
}

#[test]
fn json_and_yaml_say_the_same_as_toml() {
    let (_a, toml) = file("m.toml", "[node]\nname = \"paris\"\n[network]\nport = 5\n");
    let (_b, json) = file("m.json", r#"{"node": {"name": "paris"}, "network": {"port": 5}}"#);
    let (_c, yaml) = file("m.yaml", "node:\n  name: paris\nnetwork:\n  port: 5\n");
    let read = |path: &Path| load(path, &BTreeMap::new(), &Flags::default()).unwrap().settings;
    assert_eq!(read(&toml).network.port, 5);
    assert_eq!(read(&toml), read(&json));
    assert_eq!(read(&toml), read(&yaml));
    let (folder, json) = file("m.json", r#"{"network": {"port": 70000}}"#);
    let failure = load(&json, &BTreeMap::new(), &Flags::default()).unwrap_err();
    let place = folder.path().join("m.json");
    let words = format!("network.port ({}): got 70000, expected a whole number from 0 to 65535", place.display());
    assert_eq!(failure.why, [words]);
}

#[test]
fn later_layers_win() {
    let (_folder, path) = file("muster.toml", "[network]\nport = 5\nid = \"file\"\n[log]\nlevel = \"warn\"\n");
    let variables = vars(&[("MUSTER_NETWORK__PORT", "6"), ("MUSTER_LOG__LEVEL", "debug")]);
    let flags = Flags { log: Some("trace,json".to_owned()) };
    let settings = load(&path, &variables, &flags).unwrap().settings;
    assert_eq!(settings.network.port, 6);
    assert_eq!(settings.network.id, "file");
    assert_eq!(
        settings.log,
        LogSettings { level: "trace".to_owned(), format: LogFormat::Json, ..LogSettings::default() }
    );
    let json = Flags { log: Some("json".to_owned()) };
    let settings = load(&path, &variables, &json).unwrap().settings;
    assert_eq!(
        settings.log,
        LogSettings { level: "debug".to_owned(), format: LogFormat::Json, ..LogSettings::default() }
    );
}

#[test]
fn variables_are_read_as_the_kind_that_their_setting_has() {
    let seeds = format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER}, /ip4/127.0.0.1/tcp/2/p2p/{PEER}");
    let variables =
        vars(&[("MUSTER_NODE__NAME", "007"), ("MUSTER_NETWORK__MDNS", "true"), ("MUSTER_NETWORK__SEEDS", &seeds)]);
    let (_folder, path) = file("muster.toml", "");
    let settings = load(&path, &variables, &Flags::default()).unwrap().settings;
    assert_eq!(settings.node.name, "007", "a name of digits stays a name");
    assert!(settings.network.mdns);
    assert_eq!(settings.network.seeds.len(), 2);
    let bracketed = vars(&[("MUSTER_NETWORK__LISTEN", "[\"/ip4/127.0.0.1/tcp/1\"]")]);
    assert_eq!(load(&path, &bracketed, &Flags::default()).unwrap().settings.network.listen.len(), 1);
}

#[test]
fn variables_that_are_no_settings_are_left_alone_and_strange_ones_told() {
    let (_folder, path) = file("muster.toml", "");
    let ours = vars(&[("MUSTER_CHAOS", "1"), ("MUSTER_ADMIN", "x"), ("MUSTER_LOG", "x"), ("MUSTER_DEMO_PARENT", "1")]);
    let config = load(&path, &ours, &Flags::default()).unwrap();
    assert_eq!((config.settings, config.warnings.len()), (Settings::default(), 0));
    let config = load(&path, &vars(&[("MUSTER_PORT", "1")]), &Flags::default()).unwrap();
    assert_eq!(config.warnings, ["variable MUSTER_PORT is no setting: settings are named MUSTER_SECTION__KEY"]);
}

#[test]
fn the_load_profile_needs_listeners_on_loopback() {
    let told = "network.profile (muster.toml:2:1): the profile \"load\" lifts the limits and is allowed only where \
                every address of network.listen is loopback";
    check("[network]\nprofile = \"load\"", told);
    check("[network]\nprofile = \"load\"\nlisten = [\"/ip4/127.0.0.1/tcp/1\", \"/ip4/10.0.0.1/tcp/1\"]", told);
    read("[network]\nprofile = \"load\"\nlisten = [\"/ip4/127.0.0.1/tcp/1\", \"/ip6/::1/tcp/1\"]").unwrap();
}

#[test]
fn a_profile_changes_what_nobody_set() {
    let gate = |text: &str| read(text).unwrap().settings.gate;
    let local = gate("[network]\nprofile = \"local\"");
    assert_eq!((local.sessions_per_subnet, local.sessions_in_all), (10_000, 5_000));
    let own = gate("[network]\nprofile = \"local\"\n[gate]\nsessions_per_subnet = 7");
    assert_eq!((own.sessions_per_subnet, own.sessions_in_all), (7, 5_000));
}

#[test]
fn settings_that_contradict_each_other_are_told() {
    for (text, key, why) in [
        ("[pool]\nmin_indexer = 6", "pool.min_indexer", "pool.max_indexer is less than pool.min_indexer"),
        ("[pool]\nbackoff_max = \"1s\"", "pool.backoff_max", "pool.backoff_max is less than pool.backoff_first"),
        ("[store]\nmembers_max = 31", "store.members_max", "pool.remembered_max is more than store.members_max"),
        (
            "[heartbeat]\nchallenge_every_min = 11",
            "heartbeat.challenge_every_min",
            "heartbeat.challenge_every_max is less than heartbeat.challenge_every_min",
        ),
        (
            "[heartbeat]\nrecord_life = \"39s\"",
            "heartbeat.record_life",
            "heartbeat.record_life is less than twice heartbeat.every: the record would expire between two beats",
        ),
        ("[gate]\nmax_nodes = 16385", "gate.max_nodes", "behaviour.peers_max is less than twice gate.max_nodes"),
        (
            "[supervision]\npause_max = \"99ms\"",
            "supervision.pause_max",
            "supervision.pause_max is less than supervision.pause_first",
        ),
    ] {
        check(text, &format!("{key} (muster.toml:2:1): {why}"));
    }
    read("[heartbeat]\nrecord_life = \"40s\"\n[gate]\nmax_nodes = 16384").unwrap();
}

#[test]
fn durations_and_numbers_are_bounded_at_their_limits_and_past_them() {
    read("[heartbeat]\nevery = \"100ms\"\njitter = 1").unwrap();
    check(
        "[heartbeat]\nevery = \"99ms\"",
        "heartbeat.every (muster.toml:2:1): got \"99ms\", expected a duration from \"100ms\" to \"1m\"",
    );
    check(
        "[heartbeat]\nevery = 20",
        "heartbeat.every (muster.toml:2:1): got 20 (without its unit; seconds are \"20s\"), expected a duration from \
         \"100ms\" to \"1m\"",
    );
    for (got, said) in [("1.01", "1.01"), ("-0.1", "-0.1"), ("nan", "NaN"), ("\"1\"", "\"1\"")] {
        check(
            &format!("[heartbeat]\njitter = {got}"),
            &format!("heartbeat.jitter (muster.toml:2:1): got {said}, expected a number from 0 to 1"),
        );
    }
}

#[test]
fn a_fault_across_settings_is_not_told_where_it_rests_on_a_bad_value() {
    assert_eq!(faults("[network]\nprofile = \"load\"\nlisten = 3").len(), 1);
}

#[test]
fn files_are_relative_to_the_folder_of_the_configuration() {
    let (folder, path) = file("muster.toml", "[files]\nkey = \"/abs/key.pem\"\ndata = \"state\"\n");
    let config = load(&path, &BTreeMap::new(), &Flags::default()).unwrap();
    assert_eq!(config.key(), Path::new("/abs/key.pem"));
    assert_eq!(config.psk().unwrap(), folder.path().join("swarm.key"));
    assert_eq!(config.data(), folder.path().join("state"));
    assert!(read("[network]\nprivate = false").unwrap().psk().is_none());
}

#[test]
fn a_bus_whose_settings_contradict_each_other_is_told() {
    check(
        "[bus]\nurl = \"http://localhost\"\n",
        "bus.url (muster.toml:2:1): got \"http://localhost\" in \"url\", expected 1 to 8 addresses such as \
         nats://host:4222 or tls://host:4222",
    );
    let shared = "[bus]\nurl = \"nats://localhost\"\nsubjects = { alert = \"opencloud.search_event\" }\n";
    let told = faults(shared);
    assert!(told.len() == 1 && told[0].contains("for both alert and search_event"), "{told:?}");
    let wrong = faults("[bus]\nsubjects = { alert = 5 }\n");
    assert!(wrong.len() == 1 && wrong[0].contains("bus.subjects"), "{wrong:?}");
    assert_eq!(read("[bus]\nsubjects = { allert = \"x\" }\n").unwrap().settings.bus.check(), Ok(()));
}

#[test]
fn a_password_that_cannot_be_used_is_not_shown() {
    let told = faults("[bus]\npassword = [\"geheim\"]\n");
    let expected = "got something else, expected at most 256 characters without control characters";
    assert!(told.len() == 1 && told[0].ends_with(expected), "{told:?}");
}

#[test]
fn files_of_the_bus_are_relative_to_the_folder_of_the_configuration() {
    let (folder, path) = file("muster.toml", "[bus]\ncreds_file = \"bus.creds\"\n");
    let bus = load(&path, &vars(&[]), &Flags::default()).unwrap().bus();
    assert_eq!(bus.creds_file, folder.path().join("bus.creds"));
    assert!(bus.tls_ca.as_os_str().is_empty());
}

#[test]
fn without_addresses_every_interface_is_listened_on() {
    let network = NetworkSettings { port: 7, ..NetworkSettings::default() };
    let listeners: Vec<String> = network.listeners().iter().map(ToString::to_string).collect();
    assert_eq!(listeners, ["/ip4/0.0.0.0/tcp/7", "/ip6/::/tcp/7"]);
}

#[test]
fn the_next_key_has_a_port_beside_each_that_is_listened_on() {
    let next = |port, next_port, listen: &[&str]| {
        let listen = listen.iter().map(|address| address.parse().unwrap()).collect();
        let network = NetworkSettings { port, next_port, listen, ..NetworkSettings::default() };
        network.next_listeners().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(next(7, 0, &[]), ["/ip4/0.0.0.0/tcp/8", "/ip6/::/tcp/8"]);
    assert_eq!(next(0, 0, &[]), ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"]);
    assert_eq!(next(7, 9, &[]), ["/ip4/0.0.0.0/tcp/9", "/ip6/::/tcp/9"]);
    assert_eq!(next(65_535, 0, &["/ip4/127.0.0.1/tcp/65535"]), ["/ip4/127.0.0.1/tcp/1024"]);
    let two = ["/ip4/127.0.0.1/tcp/7", "/ip4/127.0.0.1/tcp/8"];
    assert_eq!(next(0, 0, &two), ["/ip4/127.0.0.1/tcp/9"]);
    assert_eq!(next(0, 5, &two), ["/ip4/127.0.0.1/tcp/5"]);
    check(
        "[network]\nport = 7\nnext_port = 7\n",
        "network.next_port (muster.toml:3:1): network.next_port is listened on already: the next key needs a port of its own",
    );
}

#[test]
fn what_is_announced_has_the_port_of_the_next_key_beside_it_during_a_rotation() {
    let announce = vec!["/dns/a.example/tcp/30001".parse().unwrap(), "/ip4/192.0.2.1/tcp/4001".parse().unwrap()];
    let network = NetworkSettings { announce, ..NetworkSettings::default() };
    assert_eq!(network.announced(false), network.announce);
    let told: Vec<String> = network.announced(true).iter().map(ToString::to_string).collect();
    let expected =
        ["/dns/a.example/tcp/30001", "/dns/a.example/tcp/30002", "/ip4/192.0.2.1/tcp/4001", "/ip4/192.0.2.1/tcp/4002"];
    assert_eq!(told, expected);
}

#[test]
fn what_is_wrong_is_shown_with_carets_under_it() {
    for (text, shown) in [
        ("[network]\nport = 70000\n", "2 | port = 70000\n  |        ^^^^^"),
        ("[network]\nprot = 1\n", "2 | prot = …\n  | ^^^^"),
        ("[netwrok]\nport = 1\n", "1 | [netwrok]\n  |  ^^^^^^^"),
        ("network = 5\n", "1 | network = 5\n  |           ^"),
        ("[node]\nname = \n", "2 | name =\n  |        ^"),
        ("[pool]\nmax_indexer = 1\nmin_indexer = 2\n", "2 | max_indexer = 1\n  |               ^"),
    ] {
        assert_eq!(excerpts(text), [shown], "{text}");
    }
}

#[test]
fn a_line_that_holds_a_secret_is_never_shown() {
    for text in [
        "[bus]\npassword = 5\n",
        "[bus]\nurl = \"http://me:geheim@host\"\n",
        "[store]\nurl = \"postgres:/muster:geheim@db\"\n",
        "[bus]\npassword = \"geheim\n",
    ] {
        assert_eq!(excerpts(text), [""], "{text}");
    }
    assert_eq!(excerpts("[bus]\npasword = \"geheim\"\n"), ["2 | pasword = …\n  | ^^^^^^^"]);
}

#[test]
fn every_setting_is_told_with_where_it_comes_from() {
    let text = "[network]\nprofile = \"local\"\n[bus]\npassword = \"geheim\"\nuser = \"me\"\nurl = \"nats://a\"\n";
    let (folder, path) = file("muster.toml", text);
    let flags = Flags { log: Some("json".to_owned()) };
    let told = tell(&path, &vars(&[("MUSTER_NODE__NAME", "paris"), ("MUSTER_X", "1")]), &flags).unwrap();
    assert_eq!(told.effective.len(), EXPECTED.len());
    assert_eq!(told.warnings.len(), 1);
    let of = |key: &str| {
        let found = told.effective.iter().find(|setting| setting.key == key).unwrap();
        let origin = found.origin.replace(&format!("{}/", folder.path().display()), "");
        (found.value.to_string(), origin, found.is_default)
    };
    for (key, value, origin, is_default) in [
        ("network.profile", "\"local\"", "muster.toml:2:1", false),
        ("gate.sessions_per_subnet", "10000", "built in for the profile \"local\"", true),
        ("node.name", "\"paris\"", "variable MUSTER_NODE__NAME", false),
        ("log.format", "\"json\"", "flag --log or variable MUSTER_LOG", false),
        ("network.port", "4001", "built in", true),
        ("bus.password", "\"***\"", "muster.toml:4:1", false),
    ] {
        assert_eq!(of(key), (value.to_owned(), origin.to_owned(), is_default), "{key}");
    }
}

#[test]
fn configurations_differ_in_what_they_say_otherwise_and_secrets_count() {
    let tell = |text: &str| {
        let (_folder, path) = file("muster.toml", text);
        tell(&path, &vars(&[]), &Flags::default()).unwrap().effective
    };
    let bus = |password: &str| {
        format!("[bus]\nurl = \"nats://a\"\nuser = \"me\"\npassword = \"{password}\"\n[network]\nport = 4001\n")
    };
    let keys = |found: Vec<Difference>| found.into_iter().map(|one| one.key).collect::<Vec<_>>();
    assert_eq!(keys(differences(&built_in().unwrap(), &tell(&bus("a")))), ["bus.url", "bus.user", "bus.password"]);
    assert_eq!(keys(differences(&tell(&bus("a")), &tell(&bus("a")))), Vec::<String>::new());
    let found = differences(&tell(&bus("a")), &tell(&bus("b")));
    assert_eq!((found[0].from.as_str(), found[0].to.as_str(), found.len()), (Some("***"), Some("***"), 1));
}
