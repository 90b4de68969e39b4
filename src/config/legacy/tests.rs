#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::PermissionsExt as _};

use protocol::{identity::Keys, profile::Profile};
use tempfile::TempDir;

use super::{
    super::{Config, Flags, Mode as OurMode, load},
    *,
};
use crate::keys;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/oc-discovery");

const ADDRESS: &str = "/ip4/192.0.2.10/tcp/4001/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
const NAMED: &str = "/dns4/indexer.example/tcp/4101/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

/// A fixture in a folder of its own, with the key that it names.
fn fixture(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(FIXTURES).join(name);
    for entry in fs::read_dir(source.parent().unwrap()).unwrap().map(Result::unwrap) {
        // The other fixtures of the folder, but for a bootstrap.json, are no part of this one.
        if entry.path() == source || entry.file_name() == BOOTSTRAP {
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    }
    fs::create_dir(folder.path().join("pem")).unwrap();
    let key = folder.path().join("pem/private.pem");
    fs::write(&key, Keys::from_seed([3; 32]).to_pem().as_bytes()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let file = folder.path().join(source.file_name().unwrap());
    (folder, file)
}

fn vars(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn seeds(config: &Config) -> Vec<String> {
    config.settings.network.seeds.iter().map(ToString::to_string).collect()
}

/// The keys that are named, and that none is named twice.
fn named(config: &Config, folder: &Path) -> Vec<String> {
    let words: Vec<String> =
        config.warnings.iter().map(|words| words.replace(&format!("{}/", folder.display()), "")).collect();
    let mut keys: Vec<&str> = words.iter().map(|words| words.split(" is ").next().unwrap()).collect();
    keys.sort_unstable();
    let count = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), count, "each is named once: {words:#?}");
    words
}

#[test]
fn every_file_of_the_predecessor_loads_with_its_port_its_seeds_and_its_peer_id() {
    let both = [ADDRESS, NAMED];
    for (name, mode, port, expected) in [
        ("node.json", OurMode::Node, 4003, &both[..]),
        ("indexer.json", OurMode::Indexer, 4002, &both[..1]),
        ("both.json", OurMode::Both, 4004, &both[..]),
        ("native-indexer.json", OurMode::Indexer, 4001, &[]),
        ("peer-ids.json", OurMode::Node, 4005, &both[..1]),
        ("mongo.json", OurMode::Node, 4006, &both[..1]),
        ("with-bootstrap/discovery.json", OurMode::Node, 4007, &both[..]),
    ] {
        let (folder, file) = fixture(name);
        let config = load(&file, &BTreeMap::new(), &Flags::default()).unwrap();
        assert_eq!((config.settings.node.mode, config.settings.network.port), (mode, port), "{name}");
        assert_eq!(seeds(&config), expected, "{name}");
        let keys = keys::identity(&config.key()).unwrap();
        assert_eq!(keys.peer_id(), Keys::from_seed([3; 32]).peer_id(), "{name}");
        assert_eq!(config.psk().unwrap(), folder.path().join("./psk/psk.key"), "{name}");
        named(&config, folder.path());
    }
}

#[test]
fn the_predecessors_variables_work_as_they_are() {
    let variables = vars(&fs::read_to_string(Path::new(FIXTURES).join("variables.env")).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("muster.toml");
    fs::write(&file, "").unwrap();
    let config = load(&file, &variables, &Flags::default()).unwrap();
    let settings = &config.settings;
    assert_eq!((settings.node.mode, settings.network.port), (OurMode::Both, 4008));
    assert_eq!(seeds(&config), [ADDRESS, NAMED]);
    assert_eq!((settings.pool.min_indexer, settings.pool.max_indexer), (1, 3));
    assert_eq!((settings.behaviour.heartbeats, settings.behaviour.publishes, settings.behaviour.gets), (5, 10, 50));
    assert_eq!(settings.gate.sessions_in_all, 20);
    assert_eq!((settings.node.name.as_str(), settings.node.api_url.as_str()), ("nantes", "http://nantes.example"));
    assert_eq!(config.key(), folder.path().join("pem/private.pem"));
    // An empty one is as good as none.
    assert_eq!(named(&config, folder.path()).len(), 18);
    assert!(config.warnings.iter().all(|words| words.starts_with("variable ")), "{:#?}", config.warnings);
}

#[test]
fn a_file_and_our_variables_win_over_the_predecessors_variables() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("muster.toml");
    fs::write(&file, "[network]\nport = 5\n").unwrap();
    let theirs = "NODE_MODE=indexer\nNODE_ENDPOINT_PORT=4008\nNAME=theirs\nMUSTER_NODE__NAME=ours";
    let config = load(&file, &vars(theirs), &Flags::default()).unwrap();
    assert_eq!((config.settings.network.port, config.settings.node.mode), (5, OurMode::Indexer));
    assert_eq!(config.settings.node.name, "ours");
}

#[test]
fn names_that_many_programs_use_count_only_beside_one_of_the_predecessor() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("muster.toml");
    fs::write(&file, "").unwrap();
    let shared = "NAME=shell\nHOSTNAME=3f2a9c\nNATS_URL=nats://elsewhere\nMONGO_URL=mongodb://x\nMONGO_DATABASE=y\n";
    let config = load(&file, &vars(shared), &Flags::default()).unwrap();
    assert_eq!((config.settings.node.name.as_str(), config.settings.bus.url.as_str()), ("", ""));
    assert_eq!(config.warnings, Vec::<String>::new());
    let config = load(&file, &vars(&format!("{shared}NODE_MODE=node")), &Flags::default()).unwrap();
    assert_eq!(config.settings.bus.url, "nats://elsewhere");
}

#[test]
fn what_changed_and_what_nobody_knows_is_named_with_what_took_its_place() {
    let words = |name: &str| {
        let (folder, file) = fixture(name);
        named(&load(&file, &BTreeMap::new(), &Flags::default()).unwrap(), folder.path())
    };
    for (name, expected) in [
        (
            "native-indexer.json",
            "native-indexer.json: NODE_MODE is the predecessor's; it is taken as node.mode: \"indexer\", for no indexer \
             is above the others any more",
        ),
        (
            "peer-ids.json",
            "peer-ids.json: PEER_IDS is the predecessor's and is left out: partners are no setting any more: `muster \
             partner add PEER` makes each one of ours",
        ),
        (
            "mongo.json",
            "mongo.json: MONGO_DATABASE is the predecessor's and is left out: there is no Mongo database: muster keeps \
             its own among its data, or where store.url says",
        ),
        ("mongo.json", "mongo.json: COLOUR is no setting of the predecessor and is left out"),
        (
            "mongo.json",
            "mongo.json: INDEXER_ADRESSES is no setting of the predecessor and is left out; did you mean \
             INDEXER_ADDRESSES?",
        ),
        (
            "node.json",
            "node.json: SEARCH_TIMEOUT is the predecessor's; it is taken as search.idle: \"8s\", a duration with its unit",
        ),
        ("both.json", "both.json: NATS_URL is the predecessor's; it is taken as bus.url: with nats:// in front"),
        ("with-bootstrap/discovery.json", "bootstrap.json is the predecessor's; it is taken as network.seeds"),
    ] {
        let words = words(name);
        assert!(words.iter().any(|line| line == expected), "{expected}\nis none of {words:#?}");
        assert!(!words.concat().contains("secret"), "{words:#?}");
    }
}

#[test]
fn connections_of_another_window_are_counted_over_ours() {
    let (_folder, file) = fixture("indexer.json");
    let settings = load(&file, &BTreeMap::new(), &Flags::default()).unwrap().settings;
    assert_eq!(settings.gate.sessions_in_all, 60, "20 in 10 s");
    assert_eq!(settings.node.api_url, "", "localhost is nobody's API");
}

#[test]
fn a_time_to_search_that_no_search_can_have_is_brought_within_the_limits() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("discovery.json");
    for (said, taken) in [(0, 4), (3, 4), (4, 4), (60, 60), (61, 60)] {
        fs::write(&file, format!(r#"{{"NODE_MODE": "node", "SEARCH_TIMEOUT": {said}}}"#)).unwrap();
        let config = load(&file, &BTreeMap::new(), &Flags::default()).unwrap();
        assert_eq!(config.settings.search.idle, std::time::Duration::from_secs(taken), "{said}");
        let words = config.warnings.iter().find(|words| words.contains("SEARCH_TIMEOUT")).unwrap();
        assert_eq!(words.contains(&format!("instead of {said} s")), said != taken, "{words}");
    }
}

#[test]
fn a_bad_value_of_the_predecessor_is_told_by_its_own_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("discovery.json");
    fs::write(&file, r#"{"NODE_MODE": "boss", "NODE_ENDPOINT_PORT": 70000, "MAX_CONN_PER_WINDOW": "many"}"#).unwrap();
    let failure = load(&file, &BTreeMap::new(), &Flags::default()).unwrap_err();
    let mut why: Vec<String> =
        failure.why.iter().map(|why| why.replace(&format!("{}/", folder.path().display()), "")).collect();
    why.sort();
    assert_eq!(
        why,
        [
            "gate.sessions_in_all (discovery.json, MAX_CONN_PER_WINDOW): got \"many\", expected a whole number from 1 to \
             10000000",
            "network.port (discovery.json, NODE_ENDPOINT_PORT): got 70000, expected a whole number from 0 to 65535",
            "node.mode (discovery.json, NODE_MODE): got \"boss\", expected one of \"node\", \"indexer\", \"both\"",
        ]
    );
}

#[test]
fn seeds_on_this_machine_make_its_network_a_local_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bootstrap.json");
    let seed = ADDRESS.replace("192.0.2.10", "127.0.0.1");
    fs::write(&file, format!("[\"{seed}\"]")).unwrap();
    let config = load(&file, &BTreeMap::new(), &Flags::default()).unwrap();
    assert_eq!((seeds(&config), config.settings.network.profile), (vec![seed], Profile::Local));
}

#[test]
fn seeds_of_the_configuration_win_over_those_beside_it_and_that_is_said() {
    let (folder, file) = fixture("with-bootstrap/discovery.json");
    fs::write(&file, format!(r#"{{"NODE_MODE": "node", "INDEXER_ADDRESSES": "{NAMED}"}}"#)).unwrap();
    let config = load(&file, &BTreeMap::new(), &Flags::default()).unwrap();
    assert_eq!(seeds(&config), [NAMED]);
    let words = named(&config, folder.path());
    let expected = "bootstrap.json is the predecessor's and is left out: discovery.json names its own seeds";
    assert!(words.iter().any(|line| line == expected), "{words:#?}");
}

#[test]
fn a_file_with_a_section_of_ours_is_ours() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("muster.json");
    fs::write(&file, r#"{"node": {"name": "paris"}, "NODE_MODE": "node"}"#).unwrap();
    let failure = load(&file, &BTreeMap::new(), &Flags::default()).unwrap_err();
    assert!(failure.why[0].starts_with("NODE_MODE ("), "{failure:?}");
}
