//! Broken configurations, each with every word that is said about it: `broken.txt` has what is expected.
//!
//! A message that gets better is written down anew by `MUSTER_BLESS=1 cargo test --workspace --bin muster broken`, and read
//! before it is committed.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs};

use super::{Flags, load};

/// What is expected.
const WORDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/broken.txt");

fn expected() -> String {
    fs::read_to_string(WORDS).unwrap()
}

/// A configuration that cannot be used.
struct Broken {
    name: &'static str,
    file: &'static str,
    text: &'static str,
    variables: &'static [(&'static str, &'static str)],
    log: Option<&'static str>,
}

const fn toml(name: &'static str, text: &'static str) -> Broken {
    Broken { name, file: "muster.toml", text, variables: &[], log: None }
}

const fn file(name: &'static str, file: &'static str, text: &'static str) -> Broken {
    Broken { file, ..toml(name, text) }
}

const fn variable(name: &'static str, variables: &'static [(&'static str, &'static str)]) -> Broken {
    Broken { variables, ..toml(name, "") }
}

const BROKEN: &[Broken] = &[
    // Kinds.
    toml("a text where a number belongs", "[network]\nport = \"4001\"\n"),
    toml("a number where a text belongs", "[node]\nname = 7\n"),
    toml("a number where a list belongs", "[network]\nlisten = 4001\n"),
    toml("a text where a list belongs", "[network]\nseeds = \"/ip4/192.0.2.1/tcp/4001\"\n"),
    toml("a text where truth belongs", "[network]\nmdns = \"yes\"\n"),
    toml("a section where a value belongs", "[network.port]\nx = 1\n"),
    toml("a value where a section belongs", "network = 5\n"),
    toml("a date where a duration belongs", "[heartbeat]\nevery = 1979-05-27\n"),
    toml("a number in a list of texts", "[admin]\nhosts = [\"cloud.example\", 7]\n"),
    // Ranges.
    toml("a port beyond the last", "[network]\nport = 65536\n"),
    toml("less than nothing", "[pool]\nmax_indexer = -1\n"),
    toml("a broken number where a whole one belongs", "[pool]\nmax_indexer = 2.5\n"),
    toml("a share above all", "[alerts]\ncpu_max = 80\n"),
    toml("no number at all", "[alerts]\nmemory_max = nan\n"),
    toml(
        "a name of sixty-five characters",
        "[node]\nname = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"\n",
    ),
    toml("a word of no list", "[node]\nmode = \"boss\"\n"),
    // Units.
    toml("a duration without its unit", "[heartbeat]\nevery = \"20\"\n"),
    toml("a duration as a number", "[heartbeat]\nevery = 20\n"),
    toml("a duration in a unit that nobody has", "[alerts]\nevery = \"2 weeks\"\n"),
    toml("a duration too short", "[search]\nidle = \"3999ms\"\n"),
    toml("a duration too long", "[store]\nbusy_timeout = \"61s\"\n"),
    // Names.
    toml("a slip in a name", "[network]\nprot = 1\n"),
    toml("a slip in a section", "[netwrok]\nport = 1\n"),
    toml("a name in the wrong section", "[network]\nmax_indexer = 7\n"),
    toml("a name without its section", "port = 4001\n"),
    toml("a name that is like nothing", "[network]\nquantum_entanglement = true\n"),
    toml("an unknown name with a secret behind it", "[bus]\npasword = \"geheim\"\n"),
    // Addresses.
    toml("a seed without its peer id", "[network]\nseeds = [\"/ip4/192.0.2.1/tcp/4001\"]\n"),
    toml("a seed whose peer id is none", "[network]\nseeds = [\"/ip4/192.0.2.1/tcp/4001/p2p/nobody\"]\n"),
    toml("an address of no machine", "[network]\nlisten = [\"/ip4/300.0.0.1/tcp/4001\"]\n"),
    toml("an address over UDP", "[network]\nlisten = [\"/ip4/192.0.2.1/udp/4001/quic-v1\"]\n"),
    toml("a name to listen on", "[network]\nlisten = [\"/dns4/cloud.example/tcp/4001\"]\n"),
    toml("port 0 to tell others", "[network]\nannounce = [\"/ip4/192.0.2.1/tcp/0\"]\n"),
    toml("a range with other bits set", "[network]\nprivate_ranges = [\"10.20.1.0/16\"]\n"),
    toml("a name where an IP address belongs", "[admin]\nlisten = \"localhost:7300\"\n"),
    toml("a host with its port", "[admin]\nhosts = [\"cloud.example:7300\"]\n"),
    // URLs.
    toml("a URL of another scheme", "[node]\napi_url = \"ftp://cloud.example\"\n"),
    toml("a bus that speaks HTTP", "[bus]\nurl = \"http://nats.example:4222\"\n"),
    toml("a database whose URL holds a password", "[store]\nurl = \"mysql://muster:geheim@db/muster\"\n"),
    toml("a DID of no method", "[node]\ndid = \"did:web:cloud.example\"\n"),
    toml("a level that is none", "[log]\nlevel = \"loud\"\n"),
    // Syntax.
    toml("a name without a value", "[network]\nport = \n"),
    toml("a text without its end", "[node]\nname = \"paris\nmode = \"node\"\n"),
    toml("a name twice", "[network]\nport = 1\nport = 2\n"),
    toml("a section twice", "[network]\nport = 1\n[node]\n[network]\nid = \"x\"\n"),
    toml("a section without its end", "[network\nport = 1\n"),
    file("JSON with a comma too many", "muster.json", "{\n  \"network\": {\n    \"port\": 4001,\n  }\n}\n"),
    file("JSON without its end", "muster.json", "{\"network\": {\"port\": 4001}\n"),
    file("JSON with a name twice", "muster.json", "{\"network\": {\"port\": 1, \"port\": 2}}\n"),
    file("JSON that is a number", "muster.json", "7\n"),
    file("JSON with a bad value", "muster.json", "{\"network\": {\"port\": 70000}}\n"),
    file("YAML with a tab", "muster.yaml", "network:\n\tport: 4001\n"),
    file("YAML with a name twice", "muster.yaml", "network:\n  port: 1\n  port: 2\n"),
    file("YAML that is a list", "muster.yaml", "- network\n"),
    file("an ending of no format", "muster.ini", "[network]\n"),
    file("a list of seeds with a bad one", "bootstrap.json", "[\"/ip4/192.0.2.1/tcp/4001\"]\n"),
    // Variables and flags.
    variable("a variable of another kind", &[("MUSTER_NETWORK__PORT", "many")]),
    variable("a variable of no setting", &[("MUSTER_NETWORK__PROT", "1")]),
    variable("a variable of a list with a bad item", &[("MUSTER_ADMIN__HOSTS", "good.example, b@d")]),
    variable("a variable of the predecessor", &[("NODE_ENDPOINT_PORT", "70000"), ("MAX_INDEXER", "many")]),
    Broken { log: Some("loud"), ..toml("a flag that is no level", "") },
    // What does not go together.
    toml("less at most than at least", "[pool]\nmin_indexer = 6\n"),
    toml("a record that expires between two beats", "[heartbeat]\nrecord_life = \"39s\"\n"),
    toml("no limits for everybody", "[network]\nprofile = \"load\"\n"),
    toml("two ways to sign in", "[bus]\nurl = \"nats://a\"\nuser = \"me\"\ncreds_file = \"bus.creds\"\n"),
    // Several.
    Broken {
        variables: &[("MUSTER_NODE__MODE", "king")],
        log: Some("loud"),
        ..toml(
            "four at once, each of its own source",
            "[network]\nid = \"\"\nport = 70000 # the door\n[pool]\nmin_indexer = 9\n",
        )
    },
];

/// All that is said, without the folder of the moment.
fn said(broken: &Broken) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(broken.file);
    fs::write(&path, broken.text).unwrap();
    let variables: BTreeMap<String, String> =
        broken.variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let flags = Flags { log: broken.log.map(str::to_owned) };
    let failure = load(&path, &variables, &flags).unwrap_err();
    failure.text().replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn every_broken_configuration_is_told_in_these_words() {
    assert!(BROKEN.len() >= 30);
    let told: String = BROKEN.iter().map(|broken| format!("## {}\n{}\n", broken.name, said(broken))).collect();
    if std::env::var_os("MUSTER_BLESS").is_some() {
        fs::write(WORDS, &told).unwrap();
    }
    let expected = expected();
    for (told, expected) in told.split("## ").zip(expected.split("## ")) {
        assert_eq!(told, expected);
    }
    assert_eq!(told.len(), expected.len());
}

#[test]
fn no_secret_is_said_about_a_broken_configuration() {
    assert!(BROKEN.iter().any(|broken| broken.text.contains("geheim")));
    assert!(!expected().contains("geheim"));
}
