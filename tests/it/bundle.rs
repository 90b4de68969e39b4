//! The archive for whoever helps: everything that tells how a member is, and none of its secrets.

use std::{collections::BTreeMap, fs, io::Read as _, path::Path};

use flate2::read::GzDecoder;
use serde_json::Value;

use crate::harness::{Federation, Member, Spec, muster, shown_mode};

fn bundle(member: &Member, to: &Path) -> crate::harness::Ended {
    let (config, to) = (member.config(), to.to_str().unwrap());
    muster(&["bundle", "--config", config.to_str().unwrap(), "--to", to, "--output", "json"])
}

fn unpacked(file: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(file).unwrap()));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name, text)
    });
    entries.collect()
}

#[test]
fn a_bundle_tells_how_a_member_is_and_none_of_its_secrets() {
    const PASSWORD: &str = "passwort-der-bank";
    let mut federation = Federation::converged(1, &[]);
    let seed = federation.member("indexer-1").address();
    // Nobody is there, and what is told of that holds the address; the password stands in each place where one may.
    let spec = Spec::node("paris").seed(seed).set("bus.url", &format!("\"nats://me:{PASSWORD}@127.0.0.1:1\""));
    let spec = spec.set("node.api_url", &format!("\"https://cloud.example/?key={PASSWORD}\""));
    federation.add(spec.set("node.wallet_address", &format!("\"{PASSWORD}\""))).start();
    let paris = federation.member("paris");
    paris.until_whole();

    let file = federation.path().join("paris.tar.gz");
    let written = bundle(paris, &file).ok().json();
    assert_eq!(shown_mode(&file), "600");
    let parts = unpacked(&file);
    for part in ["manifest", "doctor", "config", "status", "actors", "alerts", "events", "peers", "table"] {
        let text = parts.get(&format!("{part}.json")).unwrap_or_else(|| panic!("{part} in {:?}", parts.keys()));
        let read: Value = serde_json::from_str(text).unwrap();
        assert!(!read.is_null(), "{part}");
    }
    assert!(parts["metrics.txt"].contains("muster_connections"), "{}", parts["metrics.txt"]);
    assert!(parts["config.json"].contains("network.port") && parts["config.json"].contains("origin"));
    let manifest: Value = serde_json::from_str(&parts["manifest.json"]).unwrap();
    assert_eq!(manifest["command"], env!("CARGO_PKG_VERSION"));
    assert_eq!(manifest["missing"], Value::Array(Vec::new()));
    assert!(written["redacted"].as_u64().unwrap() > 0, "what stood in other settings was taken out: {written}");

    let read = |name: &str| fs::read_to_string(paris.dir.join(name)).unwrap();
    let (token, key, identity) = (read("data/admin.token"), read("swarm.key"), read("identity.pem"));
    let key = key.lines().last().unwrap().trim();
    let identity = identity.lines().find(|line| !line.starts_with('-')).unwrap();
    let all: String = parts.values().cloned().collect();
    for secret in [token.trim(), key, identity, PASSWORD] {
        assert!(secret.len() >= 6 && !all.contains(secret), "a secret is in the archive: {secret}");
    }

    let before = fs::read(&file).unwrap();
    assert_eq!(bundle(paris, &file).code, Some(8), "nothing is overwritten");
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn the_secrets_of_a_member_that_does_not_run_stay_out_too() {
    const PASSWORD: &str = "passwort%21der-datenbank";
    let mut federation = Federation::new();
    let spec = Spec::indexer("rome").set("bus.url", "\"nats://127.0.0.1:1\"").set("bus.user", "\"rome\"");
    let spec = spec.set("bus.password", "\"passwort-des-busses\"");
    let url = format!("\"postgresql://rome:{PASSWORD}@127.0.0.1:1/rome\"");
    let rome = federation.add(spec.set("store.url", &url).set("node.wallet_address", "\"passwort!der-datenbank\""));
    let file = rome.dir.join("bundle.tar.gz");
    let ended = bundle(rome, &file);
    // There is no daemon to ask: it is a part, and says so.
    assert_eq!(ended.code, Some(7), "{ended:?}");
    assert_eq!(ended.json()["missing"][0]["part"], "daemon", "{ended:?}");
    let all: String = unpacked(&file).into_values().collect();
    assert!(all.contains("127.0.0.1:1"), "addresses are told: {all}");
    for secret in [PASSWORD, "passwort!der-datenbank", "passwort-des-busses"] {
        assert!(!all.contains(secret), "{secret}");
    }
}
