//! What a member logs: in files as well, in the form that was chosen, and never a secret.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::{
    identity::Keys,
    log_limit::{PER_KIND, WITHIN},
    wire::RefusalCode,
};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{
    harness::{Federation, Member, PATIENCE, Spec, private_file, until_true},
    thin::Thin,
};

/// Everything that whoever reads the log must not learn, each by its name.
fn secrets(member: &Member) -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(member.dir.join(path)).unwrap();
    let identity: String = read("identity.pem").lines().filter(|line| !line.starts_with("---")).collect();
    let der = STANDARD.decode(&identity).unwrap();
    // The last 32 bytes of what precedes a public key, if there is one, are the seed; it begins behind 16 bytes of form.
    let seed = &der[16..48];
    let hex = seed.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let listed = seed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let network = read("swarm.key").lines().last().unwrap().trim().to_owned();
    assert_eq!(network.len(), 64);
    vec![
        ("the identity", identity),
        ("the identity in hex", hex),
        ("the identity in base64", STANDARD.encode(seed)),
        ("the identity as a list", listed),
        ("the network's key", network),
        ("the admin token", read("data/admin.token").trim().to_owned()),
        ("a password, a token or a secret of the settings", "geheim".to_owned()),
    ]
}

fn files(folder: &Path) -> Vec<String> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn no_secret_is_ever_logged_however_much_is_told() {
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1")).start();
    let seed = federation.member("indexer-1").address();
    // Of the libraries, too: what they tell of us is in the same log.
    let paris =
        Spec::node("paris").seed(&seed).set("log.level", "\"trace,muster=trace\"").set("log.format", "\"json\"");
    let paris = paris.set("log.folder", "\"logs\"").set("alerts.every", "\"1s\"").set("alerts.peers_min", "5");
    // Nobody listens on the first port of all, so that each of them is also a failure that is told.
    let paris = paris.set("bus.url", "\"nats://ann:geheim-of-the-bus@127.0.0.1:1\"");
    let paris = paris.set("webhook.url", "\"http://127.0.0.1:1/geheim-path?token=geheim-token\"");
    let dir = federation.add(paris.set("webhook.secret_file", "\"webhook.secret\"")).dir.clone();
    private_file(&dir.join("webhook.secret"), b"geheim-geheim-geheim");
    federation.member_mut("paris").start();
    federation.until_converged();
    let paris = federation.member("paris");
    let says = |what: &str| paris.status().reasons.iter().any(|reason| reason.starts_with(what));
    until_true("bus and webhook fail", PATIENCE, || says("bus") && says("webhook"));
    assert_eq!(paris.tell("/api/v1/bans", "{}").code / 100, 4, "the token was shown");
    let known = secrets(paris);
    for (what, secret) in &known {
        assert!(!format!("{:?}", paris.status()).contains(secret.as_str()), "the overview tells {what}");
    }
    federation.member_mut("paris").end_politely();

    let paris = federation.member("paris");
    let logs = paris.dir.join("logs");
    assert_eq!(fs::metadata(&logs).unwrap().permissions().mode() & 0o777, 0o700);
    let kept = files(&logs).concat();
    let said = |what: &str| kept.lines().rev().take(9).any(|line| line.contains(what));
    assert!(said("\"ended\""), "the last words are in the file as well");
    assert!(kept.lines().count() > 500, "so much is told: {}", kept.lines().count());
    for line in kept.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line["level"].is_string()), "no JSON: {line}");
    }
    for text in [paris.log(), kept] {
        for (what, secret) in &known {
            let line = text.lines().find(|line| line.contains(secret.as_str()));
            assert!(line.is_none(), "{what} is in the log: {line:?}");
        }
    }
}

#[test]
fn the_password_of_a_database_that_is_away_is_not_told() {
    let mut federation = Federation::new();
    let url = "\"postgresql://ann:geheim-of-the-store@127.0.0.1:1/muster\"";
    let spec = Spec::node("paris").set("store.url", url).set("log.level", "\"trace\"");
    let ended = federation.add(spec).run_to_its_end(Duration::from_secs(90));
    assert_ne!(ended.code, Some(0));
    assert!(!ended.err.is_empty() && !ended.err.contains("geheim") && !ended.out.contains("geheim"), "{ended:?}");
}

#[test]
fn a_folder_for_the_log_that_cannot_be_made_stops_the_start() {
    let mut federation = Federation::new();
    let member = federation.add(Spec::node("paris").set("log.folder", "\"muster.toml/logs\""));
    let ended = member.run_to_its_end(Duration::from_secs(30));
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(ended.err.contains("cannot write the log into") && ended.err.contains("log.folder"), "{ended:?}");
}

/// A stranger has as many names as it likes, and whoever holds the network's key is heard: each name is complained about.
#[test]
fn a_flood_of_strangers_is_written_of_so_often_and_what_is_left_out_is_told() {
    const LEFT_OUT: u32 = 30;
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1")).start();
    let member = federation.member("indexer-1");
    // Before, everybody is told to come back.
    member.until_ready();
    let (to, network) = (member.address().parse().unwrap(), member.network());
    let began = Instant::now();
    Runtime::new().unwrap().block_on(async {
        for number in 0..PER_KIND + LEFT_OUT {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&number.to_be_bytes());
            let mut stranger = Thin::start(Keys::from_seed(seed), "stranger", &network).unwrap();
            stranger.version = "2.0".to_owned();
            let refused = stranger.connect(&to).await.err().and_then(|error| Some(error.refusal()?.refused));
            assert_eq!(refused, Some(RefusalCode::Version), "{number}");
        }
    });
    until_true("the last one was complained about", PATIENCE, || {
        member.metric("muster_greetings_failed_total") >= f64::from(PER_KIND + LEFT_OUT)
    });
    let windows = u32::try_from(began.elapsed().as_secs() / WITHIN.as_secs()).unwrap() + 1;
    federation.member_mut("indexer-1").end_politely();
    let log = federation.member("indexer-1").log();
    let count = |what: &str| u32::try_from(log.lines().filter(|line| line.contains(what)).count()).unwrap();
    let written = count("bad input");
    assert!(written <= PER_KIND * windows, "{written} lines in {windows} minutes begun");
    let told: u32 = log
        .lines()
        .filter_map(|line| line.split_once("too many of one kind lines=")?.1.trim().parse::<u32>().ok())
        .sum();
    assert_eq!(written + told, PER_KIND + LEFT_OUT, "what is not written is counted");
}
