#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, time::Duration};

use actors::view::{
    ActorState, ActorView, AlertView, BridgeState, BridgeView, BusMode, SampleView, Standing, StatusView,
};
use jiff::Timestamp;
use libp2p_identity::Keypair;
use protocol::{
    alerts::{Severity, Topic},
    profile::Profile,
    wire::Role,
};
use store::Examined;

use super::{
    super::facts::{Database, Descriptors, Dialled, Disk, Folder, Lock, Memory, Mode, Port, PortState},
    checks::{daemon as running, host, network},
    *,
};
use crate::{
    admin::testing,
    cli::exit::{Exit, Failure},
    config::{Mode as MemberMode, Settings},
    ports::Use,
};

/// Of the whole test, so that every member is the same one.
fn peer() -> libp2p_identity::PeerId {
    Keypair::ed25519_from_bytes([7; 32]).unwrap().public().to_peer_id()
}

fn dialled(answered: Result<u64, &str>) -> Dialled {
    let answered = answered.map(Duration::from_millis).map_err(str::to_owned);
    Dialled { address: "/ip4/192.0.2.1/tcp/4001".to_owned(), answered }
}

fn actor(name: &str) -> ActorView {
    ActorView {
        name: name.to_owned(),
        kind: name.rsplit('/').next().unwrap().to_owned(),
        parent: "root".to_owned(),
        state: ActorState::Running,
        incarnation: 1,
        uptime_ms: 3_600_000,
        restarts: 0,
        last_error: None,
        handled: 7,
        in_flight: 0,
        in_flight_max: 3,
        shed: 0,
        busy_ms: 0,
        handle_p50_us: 12,
        handle_p99_us: 1_200,
        wait_p50_us: 0,
        wait_p99_us: 0,
    }
}

fn sample(outbox: f64, slow: f64) -> SampleView {
    let figures = [(Topic::Outbox, outbox), (Topic::DatabaseSlow, slow)];
    let figures = figures.into_iter().map(|(topic, figure)| (topic.name().to_owned(), figure)).collect();
    SampleView { at: Timestamp::UNIX_EPOCH, figures }
}

fn bridge(state: BridgeState, mode: Option<BusMode>) -> BridgeView {
    BridgeView {
        url: "nats://192.0.2.9:4222".to_owned(),
        state,
        mode,
        server: "nats-server 2.11".to_owned(),
        cause: String::new(),
        taken: 0,
        repeated: 0,
        put_off: 0,
        refused: 0,
        own_ignored: 0,
        announced: 0,
        dropped: 0,
        waiting: 0,
    }
}

/// A node that has been whole for an hour.
fn well() -> Facts {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let mut settings = Settings::default();
    settings.network.profile = Profile::Local;
    let files = FileFacts {
        file: "/srv/paris/muster.toml".into(),
        set: 3,
        warnings: Vec::new(),
        settings,
        data: Folder {
            path: "/srv/paris/data".into(),
            found: Ok(Some(Mode { is_folder: true, owner: 1_000, bits: 0o700 })),
            us: 1_000,
        },
        identity: Ok(peer().to_string()),
        network_key: Some(Ok("0123abcd".to_owned())),
        token: Ok(true),
        lock: Lock::Held(Some(77)),
        ports: Vec::new(),
        disk: Ok(Disk { free: 50_000_000_000, total: 100_000_000_000 }),
        memory: Memory { share: Some(0.4), own: Some(40_000_000) },
        descriptors: Ok(Descriptors { open: Some(40), limit: 1_024 }),
        database: Database::InUse,
        seeds: vec![dialled(Ok(2))],
        bus: Vec::new(),
        is_open: Err("not asked".to_owned()),
    };
    let status = StatusView {
        peer_id: peer(),
        version: "1.2.3".to_owned(),
        listen: vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()],
        born_at: Timestamp::from_second(1_800_000_000 - 3_600).unwrap(),
        uptime_ms: 3_600_000,
        ..testing::status()
    };
    let daemon = DaemonFacts {
        address: "127.0.0.1:7300".to_owned(),
        actors: ["root/store", "root/health", "root/node/pool"].map(actor).to_vec(),
        status: Ok(status),
        alerts: Ok(Vec::new()),
        samples: Ok(vec![sample(0.0, 1.0)]),
        bus: Ok(None),
    };
    Facts {
        now,
        version: "1.2.3".to_owned(),
        files: Files::Seen(Box::new(files)),
        daemon: Daemon::Answers(Box::new(daemon)),
    }
}

/// The same, stopped.
fn stopped() -> Facts {
    let mut facts = well();
    facts.daemon = Daemon::Silent(Failure::new(Exit::Unreachable, "no daemon runs"));
    let files = seen(&mut facts);
    files.lock = Lock::Free;
    files.ports = vec![port(Use::Admin, PortState::Free), port(Use::Network, PortState::Free)];
    files.database = file(Ok(Examined::Sound));
    files.descriptors = Ok(Descriptors { open: None, limit: 1_024 });
    facts
}

fn port(purpose: Use, state: PortState) -> Port {
    Port { purpose, address: "127.0.0.1:4001".parse().unwrap(), state }
}

fn file(found: Result<Examined, Failure>) -> Database {
    let found = found.map(|found| (found, Duration::from_millis(5)));
    Database::File { path: "/srv/paris/data/muster.db".into(), found }
}

fn seen(facts: &mut Facts) -> &mut FileFacts {
    match &mut facts.files {
        Files::Seen(files) => files,
        _ => panic!("the folder was looked at"),
    }
}

fn answering(facts: &mut Facts) -> &mut DaemonFacts {
    match &mut facts.daemon {
        Daemon::Answers(daemon) => daemon,
        _ => panic!("the daemon answers"),
    }
}

fn status(facts: &mut Facts) -> &mut StatusView {
    answering(facts).status.as_mut().unwrap()
}

/// What is not well, by the check's name.
fn ill(facts: &Facts) -> BTreeMap<&'static str, Verdict> {
    let findings = diagnose(facts);
    let is_ill = |finding: &&Finding| finding.verdict > Verdict::Ok;
    findings.iter().filter(is_ill).map(|finding| (finding.check, finding.verdict)).collect()
}

/// The fault is diagnosed as this, and nothing else is.
#[track_caller]
fn assert_only(facts: &Facts, check: &'static str, verdict: Verdict) {
    assert_eq!(ill(facts), BTreeMap::from([(check, verdict)]), "{:#?}", diagnose(facts));
}

/// A change to a member that runs is diagnosed as this, and nothing else is.
#[track_caller]
fn runs_with(change: impl FnOnce(&mut Facts), check: &'static str, verdict: Verdict) {
    let mut facts = well();
    change(&mut facts);
    assert_only(&facts, check, verdict);
}

/// The same of one that does not run.
#[track_caller]
fn stands_with(change: impl FnOnce(&mut FileFacts), check: &'static str, verdict: Verdict) {
    let mut facts = stopped();
    change(seen(&mut facts));
    assert_only(&facts, check, verdict);
}

fn failure() -> Failure {
    Failure::new(Exit::Configuration, "it cannot be used").why("it is so").next("mend it")
}

#[test]
fn a_member_that_is_well_has_every_check_well() {
    let findings = diagnose(&well());
    assert!(findings.len() >= 15);
    for finding in &findings {
        assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
        assert!(!finding.evidence.is_empty() && finding.remedy.is_none(), "{finding:?}");
    }
    assert_eq!(worst(&findings), Verdict::Ok);
}

#[test]
fn a_member_that_does_not_run_is_judged_by_its_files_and_the_rest_is_unknown() {
    let findings = diagnose(&stopped());
    assert!(ill(&stopped()).is_empty(), "{findings:#?}");
    assert_eq!(worst(&findings), Verdict::Ok);
    let unknown: Vec<&str> =
        findings.iter().filter(|finding| finding.verdict == Verdict::Unknown).map(|finding| finding.check).collect();
    let expected =
        ["database_speed", "announced", "pool", "clock", "readiness", "actors", "outbox", "alerts", "versions"];
    assert_eq!(unknown, expected);
}

#[test]
fn every_check_has_a_name_of_its_own_and_whatever_is_ill_has_a_remedy() {
    let mut names: Vec<&str> = CHECKS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CHECKS.len());
    let broken = Facts { files: Files::Unusable(failure()), ..well() };
    let findings = diagnose(&broken).into_iter().chain(diagnose(&Facts { files: Files::Elsewhere, ..well() }));
    for finding in findings.filter(|finding| finding.verdict > Verdict::Ok) {
        assert!(finding.remedy.is_some_and(|remedy| !remedy.is_empty()), "{}", finding.check);
    }
}

#[test]
fn a_configuration_that_cannot_be_used_hides_no_fault_behind_another() {
    let why = "nobody knows where".to_owned();
    let facts = Facts { files: Files::Unusable(failure()), daemon: Daemon::NotSought(why), ..well() };
    assert_only(&facts, "configuration", Verdict::Failed);
    let first = &diagnose(&facts)[0];
    assert_eq!((first.evidence.as_str(), first.remedy.as_deref()), ("it cannot be used: it is so", Some("mend it")));
}

#[test]
fn files_that_end_a_start_are_failed_in_its_own_words() {
    use Verdict::{Failed, Warning};
    stands_with(|files| files.identity = Err(failure()), "identity", Failed);
    stands_with(|files| files.network_key = Some(Err(failure())), "network_key", Failed);
    stands_with(|files| files.token = Err(failure()), "admin_token", Failed);
    stands_with(|files| files.database = file(Err(failure())), "database", Failed);
    stands_with(|files| files.database = file(Ok(Examined::Damaged("page 7".to_owned()))), "database", Failed);
    stands_with(|files| files.database = Database::Server(vec![dialled(Err("refused"))]), "database", Failed);
    stands_with(|files| files.lock = Lock::Unknown("denied".to_owned()), "lock", Failed);
    stands_with(|files| files.warnings.push("MUSTER_PRT is no setting".to_owned()), "configuration", Warning);
}

#[test]
fn a_folder_of_another_user_fails_and_one_that_others_may_read_is_warned_of() {
    let mode = |owner, bits| Ok(Some(Mode { is_folder: true, owner, bits }));
    stands_with(|files| files.data.found = mode(1_001, 0o700), "data_folder", Verdict::Failed);
    stands_with(|files| files.data.found = mode(1_000, 0o750), "data_folder", Verdict::Warning);
    stands_with(|files| files.data.found = mode(1_000, 0o701), "data_folder", Verdict::Warning);
    stands_with(|files| files.data.found = Err("denied".to_owned()), "data_folder", Verdict::Failed);
    let nothing = |files: &mut FileFacts| files.data.found = Ok(None);
    let mut facts = stopped();
    nothing(seen(&mut facts));
    assert!(ill(&facts).is_empty());
}

#[test]
fn ports_are_taken_free_or_ours() {
    let taken = |purpose| move |files: &mut FileFacts| files.ports.push(port(purpose, PortState::Taken));
    stands_with(taken(Use::Admin), "admin_port", Verdict::Failed);
    stands_with(taken(Use::Network), "network_port", Verdict::Failed);
    let refused = || PortState::Refused("no such address".to_owned());
    stands_with(|files| files.ports[1].state = refused(), "network_port", Verdict::Failed);
    // A machine without IPv6 is well with its other interfaces.
    let mut facts = stopped();
    seen(&mut facts).ports.push(port(Use::Network, refused()));
    assert!(ill(&facts).is_empty());
    runs_with(|facts| status(facts).listen.clear(), "network_port", Verdict::Failed);
}

#[test]
fn a_process_that_holds_the_folder_and_says_nothing_is_the_fault() {
    stands_with(
        |files| {
            files.lock = Lock::Held(Some(77));
            files.database = Database::InUse;
        },
        "lock",
        Verdict::Failed,
    );
    runs_with(|facts| seen(facts).lock = Lock::Free, "lock", Verdict::Failed);
    let other = Keypair::ed25519_from_bytes([8; 32]).unwrap().public().to_peer_id();
    runs_with(|facts| status(facts).peer_id = other, "identity", Verdict::Failed);
}

#[test]
fn a_disk_is_full_beyond_its_share_and_fails_with_less_than_a_batch_needs() {
    let disk = |free| move |files: &mut FileFacts| files.disk = Ok(Disk { free, total: 1_000_000_000_000 });
    stands_with(disk(99_000_000_000), "disk", Verdict::Warning);
    stands_with(disk(host::DISK_FREE_MIN - 1), "disk", Verdict::Failed);
    stands_with(disk(host::DISK_FREE_MIN), "disk", Verdict::Warning);
    stands_with(|files| files.memory.share = Some(0.86), "memory", Verdict::Warning);
}

#[test]
fn open_files_are_too_few_for_the_sessions_or_nearly_used_up() {
    let descriptors = |open, limit| move |facts: &mut Facts| seen(facts).descriptors = Ok(Descriptors { open, limit });
    runs_with(descriptors(Some(40), host::DESCRIPTORS_BASE - 1), "descriptors", Verdict::Warning);
    runs_with(descriptors(Some(820), 1_024), "descriptors", Verdict::Failed);
    let mut facts = well();
    descriptors(Some(819), 1_024)(&mut facts);
    assert!(ill(&facts).is_empty());
    // An indexer wants one for each of its nodes.
    let sessions = |facts: &mut Facts| {
        let settings = &mut seen(facts).settings;
        settings.node.mode = MemberMode::Indexer;
        settings.gate.max_nodes = 769;
    };
    runs_with(sessions, "descriptors", Verdict::Warning);
}

#[test]
fn dead_seeds_fail_a_member_that_has_nobody_and_warn_one_that_has() {
    runs_with(|facts| seen(facts).seeds.push(dialled(Err("refused"))), "seeds", Verdict::Warning);
    runs_with(|facts| seen(facts).seeds = vec![dialled(Err("refused"))], "seeds", Verdict::Warning);
    runs_with(|facts| seen(facts).seeds.clear(), "seeds", Verdict::Warning);
    stands_with(|files| files.seeds = vec![dialled(Err("refused"))], "seeds", Verdict::Failed);
    stands_with(|files| files.seeds.clear(), "seeds", Verdict::Failed);
    let mut first = stopped();
    seen(&mut first).seeds.clear();
    for mode in [MemberMode::Indexer, MemberMode::Both] {
        seen(&mut first).settings.node.mode = mode;
        assert!(ill(&first).is_empty(), "a first indexer has none");
    }
}

#[test]
fn addresses_that_lead_nobody_here_are_found_in_what_is_announced() {
    let announce = |address: &str, profile| {
        let address = address.parse().unwrap();
        move |files: &mut FileFacts| {
            files.settings.network.profile = profile;
            files.settings.network.announce = vec![address];
        }
    };
    stands_with(announce("/ip4/0.0.0.0/tcp/4001", Profile::Local), "announced", Verdict::Failed);
    stands_with(announce("/dns/cloud.example/tcp/0", Profile::Public), "announced", Verdict::Failed);
    stands_with(announce("/ip4/10.0.0.7/tcp/4001", Profile::Public), "announced", Verdict::Failed);
    for (address, profile) in [("/ip4/10.0.0.7/tcp/4001", Profile::Local), ("/dns/a.example/tcp/1", Profile::Public)] {
        let mut facts = stopped();
        announce(address, profile)(seen(&mut facts));
        assert!(ill(&facts).is_empty(), "{address}");
    }
    let public = |facts: &mut Facts| seen(facts).settings.network.profile = Profile::Public;
    runs_with(public, "announced", Verdict::Warning);
}

#[test]
fn a_member_that_is_cut_off_fails_and_one_that_just_began_is_waited_for() {
    let standing = |standing, uptime_ms| {
        move |facts: &mut Facts| {
            let (now, status) = (facts.now, status(facts));
            status.standing = standing;
            status.uptime_ms = uptime_ms;
            status.born_at = now - Duration::from_millis(uptime_ms);
        }
    };
    runs_with(standing(Standing::Isolated, 3_600_000), "pool", Verdict::Failed);
    runs_with(standing(Standing::Joining, network::JOINING_MS_MAX - 1), "pool", Verdict::Warning);
    runs_with(standing(Standing::Joining, network::JOINING_MS_MAX), "pool", Verdict::Failed);
    let mut first = well();
    standing(Standing::Joining, 3_600_000)(&mut first);
    let alone = status(&mut first);
    (alone.role, alone.pool_members) = (Role { node: false, indexer: true }, 0);
    assert!(ill(&first).is_empty(), "a first indexer is never wrong for being alone");
}

#[test]
fn another_networks_key_is_named_although_its_file_is_whole() {
    let mut facts = well();
    let reason = "cannot join: 12D3KooW: pre-shared key mismatch likely (ours: fingerprint 0123abcd)";
    status(&mut facts).reasons = vec![reason.to_owned()];
    status(&mut facts).standing = Standing::Joining;
    let ill = ill(&facts);
    let expected = [("network_key", Verdict::Failed), ("pool", Verdict::Failed)];
    assert_eq!(ill, BTreeMap::from(expected), "the cause and what follows from it");
}

#[test]
fn a_clock_is_wrong_by_the_words_of_others_or_by_its_own_step() {
    let reason = "clock: 3 of 3 peers' clocks are more than 30 s from ours; they agree on +90 s".to_owned();
    runs_with(|facts| status(facts).reasons = vec![reason], "clock", Verdict::Failed);
    let step = |millis: u64| move |facts: &mut Facts| facts.now += Duration::from_millis(millis);
    runs_with(step(network::CLOCK_STEP_MS_MAX + 1), "clock", Verdict::Warning);
    let mut facts = well();
    step(network::CLOCK_STEP_MS_MAX)(&mut facts);
    assert!(ill(&facts).is_empty());
}

#[test]
fn a_bus_is_away_lesser_than_wanted_or_well() {
    let bus = |state, mode| move |facts: &mut Facts| answering(facts).bus = Ok(Some(bridge(state, mode)));
    runs_with(bus(BridgeState::Away, None), "bus", Verdict::Failed);
    runs_with(bus(BridgeState::Entering, None), "bus", Verdict::Warning);
    runs_with(bus(BridgeState::Ready, Some(BusMode::Core)), "bus", Verdict::Warning);
    let mut facts = well();
    bus(BridgeState::Ready, Some(BusMode::JetStream))(&mut facts);
    assert!(ill(&facts).is_empty());
    bus(BridgeState::Ready, Some(BusMode::Core))(&mut facts);
    seen(&mut facts).settings.bus.jetstream = protocol::bus::JetStream::Off;
    assert!(ill(&facts).is_empty(), "that is meant");
    stands_with(|files| files.bus = vec![dialled(Err("refused"))], "bus", Verdict::Failed);
}

#[test]
fn actors_that_are_stuck_fail_and_those_that_fell_lately_warn() {
    let change = |change: fn(&mut ActorView)| move |facts: &mut Facts| change(&mut answering(facts).actors[0]);
    runs_with(change(|actor| actor.state = ActorState::Stuck), "actors", Verdict::Failed);
    runs_with(change(|actor| actor.state = ActorState::Waiting), "actors", Verdict::Warning);
    runs_with(change(|actor| actor.in_flight = running::IN_FLIGHT_MAX + 1), "actors", Verdict::Warning);
    let fell = |uptime_ms| {
        move |facts: &mut Facts| {
            let actor = &mut answering(facts).actors[0];
            (actor.restarts, actor.incarnation, actor.uptime_ms) = (1, 2, uptime_ms);
        }
    };
    runs_with(fell(running::RESTART_NEWS_MS - 1), "actors", Verdict::Warning);
    for harmless in [change(|actor| actor.in_flight = running::IN_FLIGHT_MAX), change(|actor| actor.restarts = 0)] {
        let mut facts = well();
        harmless(&mut facts);
        fell(running::RESTART_NEWS_MS)(&mut facts);
        assert!(ill(&facts).is_empty());
    }
    let mut facts = well();
    fell(5)(&mut facts);
    answering(&mut facts).actors[0].kind = "heartbeat".to_owned();
    assert!(ill(&facts).is_empty(), "it fell with its indexer, which is the pool's to tell");
}

#[test]
fn an_outbox_that_only_grows_is_warned_of_and_one_beyond_its_bound_fails() {
    let outbox = |figures: Vec<f64>| {
        move |facts: &mut Facts| {
            answering(facts).samples = Ok(figures.into_iter().map(|figure| sample(figure, 1.0)).collect());
        }
    };
    // As many looks as make a trend, the last of them this many rows above the first.
    let growing = |looks: u32, rows: f64| -> Vec<f64> {
        (0..looks).map(|look| f64::from(look) * rows / f64::from(looks - 1)).collect()
    };
    let looks = u32::try_from(running::TREND_SAMPLES).unwrap();
    runs_with(outbox(growing(looks, running::TREND_ROWS)), "outbox", Verdict::Warning);
    runs_with(outbox(vec![10_001.0]), "outbox", Verdict::Failed);
    let mut emptied = growing(looks, 500.0);
    emptied[5] = 0.0;
    for harmless in [growing(looks, running::TREND_ROWS - 1.0), growing(looks - 1, 500.0), emptied] {
        let mut facts = well();
        outbox(harmless)(&mut facts);
        assert!(ill(&facts).is_empty());
    }
}

#[test]
fn what_the_member_says_itself_is_passed_on() {
    let slow = |facts: &mut Facts| answering(facts).samples = Ok(vec![sample(0.0, 1_001.0)]);
    runs_with(slow, "database_speed", Verdict::Warning);
    runs_with(|facts| status(facts).store_ok = false, "database", Verdict::Failed);
    runs_with(|facts| status(facts).reasons = vec!["drained".to_owned()], "readiness", Verdict::Warning);
    runs_with(|facts| status(facts).ready = false, "readiness", Verdict::Failed);
    runs_with(|facts| status(facts).version = "1.2.2".to_owned(), "versions", Verdict::Warning);
    let alert = |severity| {
        let (topic, since) = (Topic::Cpu, Timestamp::UNIX_EPOCH);
        let alert = AlertView { topic, severity, since, figure: 0.9, bound: 0.8, remedy: "look".to_owned() };
        move |facts: &mut Facts| answering(facts).alerts = Ok(vec![alert])
    };
    runs_with(alert(Severity::Warning), "alerts", Verdict::Warning);
    runs_with(alert(Severity::Critical), "alerts", Verdict::Failed);
}

#[test]
fn an_endpoint_that_is_heard_from_afar_is_warned_of_and_an_open_one_fails() {
    let heard = |is_open| {
        move |facts: &mut Facts| {
            let files = seen(facts);
            files.settings.admin.listen = "192.0.2.7:7300".parse().unwrap();
            files.is_open = Ok(is_open);
        }
    };
    runs_with(heard(false), "admin_open", Verdict::Warning);
    runs_with(heard(true), "admin_open", Verdict::Failed);
}

#[test]
fn an_actor_that_owes_the_overview_leaves_unknown_what_only_it_knows() {
    let mut facts = well();
    answering(&mut facts).status = Err("health did not answer within 2 s".to_owned());
    answering(&mut facts).actors[1].state = ActorState::Stuck;
    assert_only(&facts, "actors", Verdict::Failed);
    let pool = diagnose(&facts).into_iter().find(|finding| finding.check == "pool").unwrap();
    assert_eq!(pool.verdict, Verdict::Unknown);
    assert!(pool.evidence.contains("health did not answer"), "{pool:?}");
}

#[test]
fn the_reference_names_every_check() {
    const REFERENCE: &str = include_str!("../../../../docs/cli.md");
    let (_, section) = REFERENCE.split_once("\n## doctor\n").unwrap();
    let rows = section.lines().take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("| `"));
    let named: Vec<&str> =
        rows.filter_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert_eq!(named, CHECKS.map(|(name, _)| name));
}
