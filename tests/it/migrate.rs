//! From the predecessor to a member that runs: the same identity, the same port, the same seeds.

use std::{fs, path::Path};

use protocol::identity::{Keys, PreSharedKey};
use serde_json::{Value, json};

use crate::harness::{
    Federation, PATIENCE, Port, Spec, muster, muster_in, private_file, shown_mode, snapshot, until_true,
};

/// A folder of the predecessor: its file, its keys.
fn predecessor(folder: &Path, file: &Value) -> (String, Keys) {
    let keys = Keys::from_seed([9; 32]);
    for name in ["pem", "psk"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    private_file(&folder.join("pem/private.pem"), keys.to_pem().as_bytes());
    private_file(&folder.join("psk/psk.key"), PreSharedKey::from_bytes([7; 32]).to_text().as_bytes());
    let path = folder.join("discovery.json");
    fs::write(&path, file.to_string()).unwrap();
    (path.to_str().unwrap().to_owned(), keys)
}

fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/oc-discovery").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_migrated_member_runs_with_the_peer_id_the_port_and_the_seeds_that_it_had() {
    let mut federation = Federation::new();
    let indexer = federation.path().join("indexer");
    let (file, _) = predecessor(&indexer, &fixture("indexer.json"));
    let psk = indexer.join("psk/psk.key");
    federation.add(Spec::indexer("indexer-1").psk(&psk)).start();
    let seed = federation.member("indexer-1").address();
    let (port, admin) = (Port::free(), Port::free());
    let mut old = fixture("node.json");
    old["NODE_ENDPOINT_PORT"] = json!(port.number);
    old["INDEXER_ADDRESSES"] = json!(seed);
    old["MIN_INDEXER"] = json!(1);
    old.as_object_mut().unwrap().remove("NATS_URL");
    let (_, keys) = predecessor(&indexer, &old);

    let dir = federation.path().join("paris");
    let ended = muster(&["migrate", "--from", &file, "--dir", dir.to_str().unwrap(), "--output", "json"]).ok().json();
    assert_eq!(ended["peer_id"], keys.peer_id().to_string());
    let config = dir.join("muster.toml");
    let text = fs::read_to_string(&config).unwrap();
    let set: Vec<&str> = text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).collect();
    assert_eq!(set.len(), 7, "what differs and nothing else: {set:#?}");
    for name in ["identity.pem", "swarm.key", "muster.toml"] {
        assert_eq!(shown_mode(&dir.join(name)), "600", "{name}");
    }

    let variables = [("MUSTER_ADMIN__LISTEN", format!("127.0.0.1:{}", admin.number))];
    let mut child = crate::harness::command()
        .args(["run", "--config", config.to_str().unwrap()])
        .envs(variables)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let at = format!("http://127.0.0.1:{}", admin.number);
    until_true("the migrated member has an answering indexer", PATIENCE, || {
        let status = muster(&["status", "--admin", &at, "--output", "json"]);
        status.code == Some(0) && status.json()["standing"] == "whole"
    });
    let status = muster(&["status", "--admin", &at, "--output", "json"]).ok().json();
    assert_eq!((&status["peer_id"], &status["name"]), (&json!(keys.peer_id().to_string()), &json!("paris")));
    let listens = status["listen"].to_string();
    assert!(listens.contains(&format!("/tcp/{}", port.number)), "{listens}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn migrate_says_what_was_taken_changed_and_left_and_overwrites_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (file, _) = predecessor(temp.path(), &fixture("mongo.json"));
    let told = muster(&["migrate", "--from", &file]).ok().out;
    for words in [
        "  taken      INDEXER_ADDRESSES -> network.seeds",
        "  left       MONGO_URL: there is no Mongo database",
        "  left       COLOUR: nobody knows it",
        "  left       INDEXER_ADRESSES: nobody knows it; did you mean INDEXER_ADDRESSES?",
        "(kept)",
        "next: stop the predecessor, then muster run --config ",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!told.contains("secret"), "{told}");
    let before = snapshot(temp.path());
    let again = muster(&["migrate", "--from", &file]);
    assert_eq!(again.code, Some(8), "{again:?}");
    assert_eq!(snapshot(temp.path()), before);
}

#[test]
fn what_is_not_the_predecessors_or_has_no_key_is_refused_before_anything_is_written() {
    let temp = tempfile::tempdir().unwrap();
    let ours = temp.path().join("ours.json");
    fs::write(&ours, r#"{"node": {"name": "paris"}}"#).unwrap();
    let dir = temp.path().join("new");
    let migrate = |file: &Path| muster(&["migrate", "--from", file.to_str().unwrap(), "--dir", dir.to_str().unwrap()]);
    assert_eq!(migrate(&ours).code, Some(2));
    let keyless = temp.path().join("keyless.json");
    fs::write(&keyless, r#"{"NODE_MODE": "node"}"#).unwrap();
    let ended = migrate(&keyless);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(ended.err.contains("PRIVATE_KEY_PATH is not set") && ended.err.contains("--key FILE"), "{ended:?}");
    let broken = temp.path().join("broken.json");
    fs::write(&broken, r#"{"NODE_MODE": "boss", "PRIVATE_KEY_PATH": "x", "PSK_PATH": "y"}"#).unwrap();
    assert_eq!(migrate(&broken).code, Some(78));
    assert!(!dir.exists());
}

#[test]
fn the_predecessors_variables_need_no_file() {
    let temp = tempfile::tempdir().unwrap();
    let (_, keys) = predecessor(temp.path(), &json!({}));
    fs::remove_file(temp.path().join("discovery.json")).unwrap();
    let variables = [("NODE_MODE", "indexer"), ("PRIVATE_KEY_PATH", "pem/private.pem"), ("PSK_PATH", "psk/psk.key")];
    let id = muster_in(temp.path(), &variables, &["id", "--output", "json"]).ok().json();
    assert_eq!(id["peer_id"], keys.peer_id().to_string());
    let checked = muster_in(temp.path(), &variables, &["config", "check"]).ok().out;
    assert_eq!(checked.matches("NODE_MODE").count(), 1, "{checked}");
    for verb in ["id", "migrate"] {
        let ended = muster_in(temp.path(), &[("HOSTNAME", "x")], &[verb]);
        assert_eq!(ended.code, Some(2), "a shared name is not enough: {ended:?}");
    }
    let made = muster_in(temp.path(), &variables, &["migrate", "--dir", "new", "--output", "json"]).ok().json();
    assert_eq!((&made["peer_id"], &made["taken"][0]["key"]), (&id["peer_id"], &json!("NODE_MODE")));
    let of_file = muster_in(&temp.path().join("new"), &[], &["id", "--output", "json"]).ok().json();
    assert_eq!(of_file["peer_id"], keys.peer_id().to_string());
}
