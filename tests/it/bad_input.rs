//! What bad input gets: the words, the exit code, and nothing changed on disk.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use crate::harness::{Ended, Federation, Member, PATIENCE, Spec, private_file, snapshot, until, until_true};

/// How long a start may take that has no reason to wait.
const AT_ONCE: Duration = Duration::from_secs(10);

/// A member that is spoilt before its first start.
fn spoilt(spoil: impl Fn(&Member)) -> (Federation, Ended) {
    let mut federation = Federation::new();
    let member = federation.add(Spec::indexer("indexer-1"));
    spoil(member);
    let before = snapshot(&member.dir);
    let ended = member.run_to_its_end(AT_ONCE);
    assert_eq!(snapshot(&member.dir), before, "a failed start changed something: {ended:?}");
    (federation, ended)
}

/// It is the configuration that is wrong, the words name the file, and something is said to do.
#[track_caller]
fn assert_configuration(ended: &Ended, named: &str) {
    assert_eq!(ended.code, Some(78), "{named}: {ended:?}");
    assert!(ended.err.contains(named) && ended.err.contains("next:"), "{named}: {ended:?}");
}

/// A way to spoil a file.
type Spoil = fn(&Path);

fn truncate(path: &Path, to: usize) {
    let content = fs::read(path).unwrap();
    fs::write(path, &content[..to.min(content.len())]).unwrap();
}

#[test]
fn g37_a_spoilt_key_file_stops_the_start_and_is_left_alone() {
    for file in ["identity.pem", "swarm.key"] {
        let spoils: [(&str, Spoil); 6] = [
            ("wrong", |path| private_file(path, b"something else entirely\n")),
            ("empty", |path| private_file(path, b"")),
            ("blank", |path| private_file(path, b"\n \n")),
            ("truncated", |path| truncate(path, 40)),
            ("missing", |path| fs::remove_file(path).unwrap()),
            ("a folder", |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }),
        ];
        for (how, spoil) in spoils {
            let (_federation, ended) = spoilt(|member| spoil(&member.dir.join(file)));
            assert_configuration(&ended, file);
            assert!(!ended.err.contains("panicked"), "{how} {file}: {ended:?}");
        }
    }
}

#[test]
fn a_key_file_that_others_can_read_stops_the_start_with_its_remedy() {
    for file in ["identity.pem", "swarm.key"] {
        let open =
            |member: &Member| fs::set_permissions(member.dir.join(file), fs::Permissions::from_mode(0o644)).unwrap();
        let (_federation, ended) = spoilt(open);
        assert_configuration(&ended, file);
        assert!(ended.err.contains("0644") && ended.err.contains("chmod 600"), "{ended:?}");
    }
}

#[test]
fn wrong_settings_are_told_all_at_once_with_key_place_and_range() {
    let (_federation, ended) = spoilt(|member| {
        member.set("network.port", "70000");
        member.set("network.profile", "\"lunar\"");
        member.set("network.prot", "1");
    });
    assert_configuration(&ended, "muster.toml");
    for words in ["network.port", "65535", "network.profile", "public", "network.prot"] {
        assert!(ended.err.contains(words), "{words}: {ended:?}");
    }
}

#[test]
fn a_seed_without_a_peer_id_is_a_wrong_setting() {
    let (_federation, ended) = spoilt(|member| member.set("network.seeds", "[\"/ip4/127.0.0.1/tcp/4001\"]"));
    assert_configuration(&ended, "network.seeds");
}

#[test]
fn a_damaged_settings_file_is_told_with_its_place() {
    let (_federation, ended) = spoilt(|member| fs::write(member.config(), "[network\nport = 1").unwrap());
    assert_configuration(&ended, "muster.toml");
}

#[test]
fn a_database_of_a_newer_version_stops_the_start_and_is_left_alone() {
    let mut federation = Federation::new();
    let member = federation.add(Spec::indexer("indexer-1"));
    member.start();
    until_true("it has a database", PATIENCE, || member.try_status().is_some_and(|status| status.store_ok));
    member.end_politely();
    let database = database(&member.dir.join("data"));
    apply_migration_of_the_future(&database);
    let before = fs::read(&database).unwrap();
    let ended = member.run_to_its_end(AT_ONCE);
    assert_configuration(&ended, database.file_name().unwrap().to_str().unwrap());
    assert!(ended.err.contains("newer"), "{ended:?}");
    assert_eq!(fs::read(&database).unwrap(), before);
}

/// The one file in the data folder that is an SQLite database.
fn database(data: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    files
        .into_iter()
        .find(|path| fs::read(path).is_ok_and(|content| content.starts_with(b"SQLite format 3\0")))
        .unwrap()
}

fn apply_migration_of_the_future(database: &Path) {
    use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(database);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (99991231235959, 'of the future', 1, x'00', 0)",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        connection.close().await.unwrap();
    });
}

#[test]
fn a_port_in_use_is_tried_for_ten_seconds_and_is_no_fault_of_the_configuration() {
    let mut federation = Federation::new();
    let member = federation.add(Spec::indexer("indexer-1"));
    let _taken = std::net::TcpListener::bind(("127.0.0.1", member.port.number)).unwrap();
    let ended = member.run_to_its_end(Duration::from_secs(25));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.took >= Duration::from_secs(9), "{ended:?}");
    assert!(ended.err.contains(&member.port.number.to_string()) && ended.err.contains("use"), "{ended:?}");
}

#[test]
fn a_port_that_becomes_free_in_time_is_taken() {
    let mut federation = Federation::new();
    let member = federation.add(Spec::indexer("indexer-1"));
    let taken = std::net::TcpListener::bind(("127.0.0.1", member.port.number)).unwrap();
    member.start();
    until("it says that it waits", PATIENCE, || member.log().contains(&member.port.number.to_string()).then_some(()));
    drop(taken);
    let member = federation.member("indexer-1");
    member.until_ready();
}

#[test]
fn a_second_run_on_the_same_folder_names_the_first_and_harms_nothing() {
    let mut federation = Federation::new();
    let member = federation.add(Spec::indexer("indexer-1"));
    member.start();
    until_true("it is ready", PATIENCE, || member.try_status().is_some_and(|status| status.ready));
    let ended = member.run_to_its_end(AT_ONCE);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains(&member.pid().to_string()), "{ended:?}");
    assert!(member.is_alive());
    assert_eq!(member.ask("/readyz").unwrap().code, 200);
}

/// A federation of one indexer, and a node whose entry the network refuses.
fn refused(make: impl Fn(&Federation, Spec) -> Spec) -> Federation {
    let mut federation = Federation::converged(1, &[]);
    let spec = make(&federation, Spec::node("paris"));
    federation.add(spec).start();
    federation
}

/// It runs on, is not ready, and says one of these words in `/readyz` and in its log.
#[track_caller]
fn assert_runs_and_says(federation: &mut Federation, words: &[&str]) {
    let paris = federation.member("paris");
    let says = |text: &str| words.iter().any(|word| text.to_lowercase().contains(word));
    let answer = until(&format!("/readyz says {words:?}"), PATIENCE, || {
        paris.ask("/readyz").ok().filter(|answer| answer.code == 503 && says(&answer.body))
    });
    assert_eq!(paris.ask("/healthz").unwrap().code, 200, "{answer:?}");
    // What `/readyz` says first may be true of any node that has just begun.
    until_true("its log says so, too", PATIENCE, || says(&paris.log()));
    assert!(federation.member_mut("paris").is_alive());
}

#[test]
fn g25_another_pre_shared_key_is_suspected_aloud_and_tried_again() {
    let mut federation = refused(|federation, spec| {
        let other = federation.path().join("other");
        crate::harness::muster(&["init", "--dir", other.to_str().unwrap()]).ok();
        spec.psk(&other.join("swarm.key")).seed(federation.member("indexer-1").address())
    });
    assert_runs_and_says(&mut federation, &["pre-shared key"]);
    // The right key and a new start are all it takes.
    let key = fs::read(federation.member("indexer-1").dir.join("swarm.key")).unwrap();
    private_file(&federation.member("paris").dir.join("swarm.key"), &key);
    federation.member_mut("paris").end_politely();
    federation.member_mut("paris").start();
    federation.member("paris").until_whole();
}

#[test]
fn another_network_is_refused_by_name() {
    let mut federation = refused(|federation, spec| {
        spec.set("network.id", "\"elsewhere\"").seed(federation.member("indexer-1").address())
    });
    assert_runs_and_says(&mut federation, &["elsewhere", "network"]);
}

#[test]
fn a_seed_that_is_somebody_else_is_said() {
    let mut federation = refused(|federation, spec| {
        let indexer = federation.member("indexer-1");
        // A well-formed peer id that nobody here has.
        let nobody = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        spec.seed(indexer.address().replace(&indexer.peer_id, nobody))
    });
    assert_runs_and_says(&mut federation, &["peer id"]);
}

#[test]
fn a_seed_that_is_away_is_tried_until_it_comes() {
    let mut federation = Federation::new();
    let seed = federation.add(Spec::indexer("indexer-1")).address();
    federation.add(Spec::node("paris").seed(seed)).start();
    let paris = federation.member("paris");
    until_true("paris says that it is not ready", PATIENCE, || {
        paris.ask("/readyz").is_ok_and(|answer| answer.code == 503)
    });
    federation.member_mut("indexer-1").start();
    // The back-off grows to 30 s.
    federation.member("paris").until_standing(actors::view::Standing::Whole, Duration::from_secs(45));
}
