//! Peers that hold the key and misbehave: refused on that stream, counted, and nobody else is hurt.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use actors::swarm::streams::{Patience, Value};
use libp2p::Multiaddr;
use protocol::{
    Timestamp,
    identity::Keys,
    presence::token::{PresenceToken, epoch_of},
    record::Leave,
    signed::Verified,
    wire::{
        AddrInfo, AuditRequest, AuditResponse, GetValue, HeartbeatResponse, LeaveAck, Protocol, PublishReceipt,
        RefusalCode, Refused, Role, WitnessRequest,
    },
};
use serde_json::value::RawValue;
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{
    harness::{Federation, Member, PATIENCE, Spec, until_true},
    thin::{Error, Thin},
};

/// As long as a node signs its record for.
const LIFE: Duration = Duration::from_secs(120);

fn address(member: &Member) -> Multiaddr {
    member.address().parse().unwrap()
}

fn thin(member: &Member, seed: u8) -> Thin {
    Thin::start(Keys::from_seed([seed; 32]), &format!("thin-{seed}"), &member.network()).unwrap()
}

fn code<T: std::fmt::Debug>(answer: Result<T, Error>) -> RefusalCode {
    let error = answer.unwrap_err();
    error.refusal().unwrap_or_else(|| panic!("no refusal: {error}")).refused
}

/// One indexer, and a runtime for the peers of the test.
fn indexer() -> (Federation, Runtime) {
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1")).start();
    federation.member("indexer-1").until_ready();
    (federation, Runtime::new().unwrap())
}

#[test]
fn a_newer_major_version_is_refused_and_a_newer_minor_is_not() {
    let (federation, runtime) = indexer();
    let member = federation.member("indexer-1");
    runtime.block_on(async {
        let mut newer = thin(member, 1);
        newer.version = "2.0".to_owned();
        let refused = newer.connect(&address(member)).await;
        let detail = refused.as_ref().unwrap_err().to_string();
        assert!(detail.contains("2.0") && detail.contains("1.0"), "both are named: {detail}");
        assert_eq!(code(refused), RefusalCode::Version);
        let mut minor = thin(member, 2);
        minor.version = "1.9".to_owned();
        minor.connect(&address(member)).await.unwrap();
    });
}

#[test]
fn an_indexer_shows_the_tokens_of_its_nodes_to_an_indexer_and_not_to_a_node() {
    let federation = Federation::converged(1, &["paris"]);
    let (member, paris) = (federation.member("indexer-1"), federation.member("paris"));
    Runtime::new().unwrap().block_on(async {
        let salt = format!("{}=", "A".repeat(43));
        let question = AuditRequest { salt, epoch: epoch_of(Timestamp::now()) };
        let mut auditor = thin(member, 1);
        auditor.role = Role { node: true, indexer: true };
        let link = auditor.connect(&address(member)).await.unwrap();
        let shown: AuditResponse = link.ask(Protocol::Audit, &question).await.unwrap();
        let open = |text: &str| Verified::<PresenceToken>::open(text, Timestamp::now()).unwrap();
        let tokens: Vec<_> = shown.tokens.iter().map(|token| open(token.get())).collect();
        assert_eq!(tokens.len(), 1, "{tokens:?}");
        assert_eq!(tokens[0].node.to_string(), paris.peer_id);
        assert_eq!(tokens[0].indexer.to_string(), member.peer_id);
        let node = thin(member, 2).connect(&address(member)).await.unwrap();
        let refused: Result<AuditResponse, _> = node.ask(Protocol::Audit, &question).await;
        assert_eq!(code(refused), RefusalCode::UnknownPeer);
        let other = AuditRequest { epoch: question.epoch + 5, ..question };
        let refused: Result<AuditResponse, _> = link.ask(Protocol::Audit, &other).await;
        assert_eq!(code(refused), RefusalCode::Clock);
    });
}

#[test]
fn g18_g19_what_is_forged_expired_or_anothers_is_refused_and_nobody_else_is_hurt() {
    let (federation, runtime) = indexer();
    let member = federation.member("indexer-1");
    runtime.block_on(async {
        let honest = thin(member, 1);
        let link = honest.connect(&address(member)).await.unwrap();
        let mut beats = honest.beats(&link).await.unwrap();
        let held = beats.beat_with(&honest.sign(LIFE), true).await.unwrap().record_seq;
        assert!(held.is_some(), "the record was taken");

        let liar = thin(member, 2);
        let at = liar.connect(&address(member)).await.unwrap();
        let question = liar.beats(&at).await.unwrap().question();
        let ask = |question| {
            let at = &at;
            async move { at.ask::<_, HeartbeatResponse>(Protocol::Heartbeat, &question).await }
        };

        let mut anothers = question.clone();
        anothers.peer_id = honest.keys.peer_id();
        assert_eq!(code(ask(anothers).await), RefusalCode::NotYours);

        let mut with_anothers_record = question.clone();
        with_anothers_record.record = Some(honest.sign(LIFE).record());
        assert_eq!(code(ask(with_anothers_record).await), RefusalCode::NotYours);

        let mut too_long = question.clone();
        too_long.record = Some(liar.sign(Duration::from_secs(365 * 86_400)).record());
        assert_eq!(code(ask(too_long).await), RefusalCode::Clock, "its clock may be wrong: no strike");

        let mut over = question.clone();
        over.record = Some(liar.sign_until(Timestamp::now() - Duration::from_secs(60)).record());
        assert_eq!(code(ask(over).await), RefusalCode::Clock, "nor for one that is over");

        let mut forged = question.clone();
        let text = liar.sign(LIFE).text().replace("thin-2", "thin-1");
        forged.record = Some(RawValue::from_string(text).unwrap());
        assert_eq!(code(ask(forged.clone()).await), RefusalCode::Invalid);
        // Two strikes each: the second one is one too many, and the door closes.
        drop(ask(forged).await);
        tokio::time::timeout(PATIENCE, at.ended()).await.unwrap();
        assert_eq!(code(liar.connect(&address(member)).await), RefusalCode::Banned);

        assert_eq!(beats.beat().await.unwrap().record_seq, held, "the honest one is served on");
        let found = link.get(&honest.did).await.unwrap().unwrap();
        assert_eq!(found.name, "thin-1");
    });
}

#[test]
fn g21_malformed_values_end_their_stream_and_no_other() {
    let (federation, runtime) = indexer();
    let member = federation.member("indexer-1");
    runtime.block_on(async {
        let thin = thin(member, 1);
        let link = thin.connect(&address(member)).await.unwrap();
        let mut beats = thin.beats(&link).await.unwrap();
        beats.beat_with(&thin.sign(LIFE), true).await.unwrap();
        let deep = format!("{}1{}", "[".repeat(17), "]".repeat(17));
        for protocol in [Protocol::Get, Protocol::Heartbeat] {
            for text in ["{", "{\"key\":1,\"seq\":\"a\"}", "{\"key\":\"a\",\"key\":\"b\"}", &deep, "nonsense"] {
                let mut io = link.open(protocol).await.unwrap();
                io.write_text(text.as_bytes(), PATIENCE).await.unwrap();
                let answer = io.read(Patience::within(PATIENCE), said).await;
                assert!(matches!(answer, Ok(None) | Err(_)), "{}: {text}: {answer:?}", protocol.id());
            }
        }
        // What is published is answered one by one: a malformed record by one receipt, and the stream goes on.
        let mut io = link.open(Protocol::Publish).await.unwrap();
        for text in ["{", &deep, "nonsense"] {
            io.write_text(text.as_bytes(), PATIENCE).await.unwrap();
            let receipt = io.read(Patience::within(PATIENCE), receipt).await.unwrap().unwrap();
            assert!(!receipt.accepted && receipt.reason.is_some(), "{text}: {receipt:?}");
        }
        let next = thin.sign(LIFE);
        io.write_text(next.text().as_bytes(), PATIENCE).await.unwrap();
        assert!(io.read(Patience::within(PATIENCE), receipt).await.unwrap().unwrap().accepted);
        assert!(beats.beat().await.is_ok(), "the heartbeat's stream goes on");
    });
    assert_eq!(member.metric("muster_bad_inputs_total"), 10.0, "each was counted");
}

fn said(value: Value<'_>) -> String {
    String::from_utf8_lossy(value.bytes).into_owned()
}

fn receipt(value: Value<'_>) -> PublishReceipt {
    serde_json::from_slice(value.bytes).unwrap_or_else(|error| panic!("{error}: {}", said(value)))
}

#[test]
fn g21_records_are_counted_together_whatever_streams_they_come_on() {
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1").set("behaviour.publishes", "1")).start();
    let member = federation.member("indexer-1");
    member.until_ready();
    Runtime::new().unwrap().block_on(async {
        let thin = thin(member, 1);
        let link = thin.connect(&address(member)).await.unwrap();
        thin.beats(&link).await.unwrap().beat().await.unwrap();
        // The profile of one machine takes ten times the limit.
        for number in 1..=11 {
            let mut io = link.open(Protocol::Publish).await.unwrap();
            io.write_text(thin.sign(LIFE).text().as_bytes(), PATIENCE).await.unwrap();
            let answer = io.read(Patience::within(PATIENCE), said).await.unwrap().unwrap();
            io.close().await;
            let is_refused = serde_json::from_str::<Refused>(&answer).is_ok_and(|it| it.refused == RefusalCode::Limit);
            assert_eq!(is_refused, number == 11, "record {number}: {answer}");
        }
    });
}

#[test]
fn g21_heartbeats_whose_record_is_over_are_counted_like_others() {
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1").set("behaviour.heartbeats", "1")).start();
    let member = federation.member("indexer-1");
    member.until_ready();
    Runtime::new().unwrap().block_on(async {
        let thin = thin(member, 1);
        let link = thin.connect(&address(member)).await.unwrap();
        let mut question = thin.beats(&link).await.unwrap().question();
        question.record = Some(thin.sign_until(Timestamp::now() - Duration::from_secs(60)).record());
        // The profile of one machine takes ten times the limit.
        for number in 1..=11 {
            let answer = link.ask::<_, HeartbeatResponse>(Protocol::Heartbeat, &question).await;
            let expected = if number == 11 { RefusalCode::Limit } else { RefusalCode::Clock };
            assert_eq!(code(answer), expected, "heartbeat {number}");
        }
    });
}

#[test]
fn leaves_are_counted_and_a_forged_one_is_two_strikes() {
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1").set("behaviour.publishes", "1")).start();
    let member = federation.member("indexer-1");
    member.until_ready();
    let leave_of = |thin: &Thin| {
        let now = Timestamp::now();
        let leave = Leave {
            peer_id: thin.keys.peer_id(),
            did: thin.did.clone(),
            role: Role { node: true, ..Role::default() },
            born_at: now,
            seq: 1,
            time: now,
            restart: false,
            alternatives: Vec::new(),
            pub_key: thin.keys.pub_key().to_owned(),
        };
        Verified::sign(&leave, &thin.keys).to_raw()
    };
    Runtime::new().unwrap().block_on(async {
        let eager = thin(member, 1);
        let link = eager.connect(&address(member)).await.unwrap();
        let leave = leave_of(&eager);
        for number in 1..=11 {
            let answer = link.ask::<_, LeaveAck>(Protocol::Leave, &leave).await;
            if number == 11 {
                assert_eq!(code(answer), RefusalCode::Limit);
            } else {
                assert!(answer.unwrap().ok, "leave {number}");
            }
        }
        let liar = thin(member, 2);
        let at = liar.connect(&address(member)).await.unwrap();
        let forged = leave_of(&liar).get().replace("\"restart\":false", "\"restart\":true");
        let forged = RawValue::from_string(forged).unwrap();
        assert_eq!(code(at.ask::<_, LeaveAck>(Protocol::Leave, &forged).await), RefusalCode::Invalid);
        drop(at.ask::<_, LeaveAck>(Protocol::Leave, &forged).await);
        tokio::time::timeout(PATIENCE, at.ended()).await.unwrap();
        assert_eq!(code(liar.connect(&address(member)).await), RefusalCode::Banned);
    });
}

#[test]
fn g13_a_stranger_is_told_nothing_of_an_indexer_and_who_is_known_hears_facts_and_no_score() {
    let federation = Federation::converged(2, &["paris"]);
    let [asked, about, paris] = ["indexer-1", "indexer-2", "paris"].map(|name| federation.member(name));
    until_true("paris counts on both", PATIENCE, || paris.status().pool_answering == 2);
    let question = WitnessRequest { indexer_peer_id: about.peer_id.parse().unwrap(), is_try: false };
    Runtime::new().unwrap().block_on(async {
        let thin = thin(asked, 1);
        for member in [asked, paris] {
            let link = thin.connect(&address(member)).await.unwrap();
            let refused: Result<serde_json::Value, _> = link.ask(Protocol::Witness, &question).await;
            assert_eq!(code(refused), RefusalCode::UnknownPeer, "{}", member.name);
        }
        let link = thin.connect(&address(asked)).await.unwrap();
        thin.beats(&link).await.unwrap().beat().await.unwrap();
        let report: BTreeMap<String, serde_json::Value> = link.ask(Protocol::Witness, &question).await.unwrap();
        let facts = ["seen", "born_at", "fill_rate", "connected"];
        assert!(report.keys().all(|field| facts.contains(&field.as_str())), "{report:?}");
        assert_eq!(report["seen"], true, "{report:?}");
    });
}

#[test]
fn a_stranger_is_answered_nothing_before_its_first_heartbeat() {
    let (federation, runtime) = indexer();
    let member = federation.member("indexer-1");
    runtime.block_on(async {
        let stranger = thin(member, 1);
        let link = stranger.connect(&address(member)).await.unwrap();
        let question = GetValue { name: Some("paris".to_owned()), ..GetValue::default() };
        let answer: Result<protocol::wire::GetResponse, _> = link.ask(Protocol::Get, &question).await;
        assert_eq!(code(answer), RefusalCode::UnknownPeer);
    });
}

#[test]
fn g14_at_capacity_newcomers_are_told_when_to_return_and_those_inside_stay() {
    let mut federation = Federation::new();
    // For two nodes and the other indexer, whose session counts as theirs do.
    federation.add(Spec::indexer("indexer-1").set("gate.max_nodes", "3")).start();
    let seed = federation.member("indexer-1").address();
    federation.add(Spec::indexer("indexer-2").seed(seed)).start();
    federation.until_converged();
    let [member, other] = ["indexer-1", "indexer-2"].map(|name| federation.member(name));
    until_true("the other indexer is inside", PATIENCE, || member.sessions().len() == 1);
    Runtime::new().unwrap().block_on(async {
        let mut inside = Vec::new();
        for seed in [1, 2] {
            let thin = thin(member, seed);
            let link = thin.connect(&address(member)).await.unwrap();
            let mut beats = thin.beats(&link).await.unwrap();
            beats.beat().await.unwrap();
            inside.push((thin, link, beats));
        }
        // The gate hears of it before the overview does: from here on a newcomer is refused in its hello.
        until_true("every place is taken", PATIENCE, || member.status().sessions == 3);
        let third = thin(member, 3);
        let refused = third.connect(&address(member)).await.unwrap_err().refusal().cloned().unwrap();
        assert_eq!(refused.refused, RefusalCode::Busy);
        assert!(refused.retry_after.is_some_and(|secs| secs >= 1), "{refused:?}");
        let listens: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", other.port.number).parse().unwrap();
        let expected = AddrInfo { id: other.peer_id.parse().unwrap(), addrs: vec![listens] };
        assert_eq!(refused.alternatives, [expected], "the one that it knows, and never itself");
        for (_, _, beats) in &mut inside {
            beats.beat().await.unwrap();
        }
    });
}

/// Resident memory of a process, KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn folder_bytes(member: &Member) -> u64 {
    fs::read_dir(member.dir.join("data")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn memory_and_disk_stay_bounded_over_ten_thousand_connects() {
    const KEYS: usize = 100;
    const AT_ONCE: usize = 32;
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1").set("network.profile", "\"load\"")).start();
    let member = federation.member("indexer-1");
    member.until_ready();
    let (network, to) = (member.network(), address(member));
    let runtime = Runtime::new().unwrap();
    let visit = |connects: usize| {
        runtime.block_on(async {
            let nodes: Vec<_> = (0..KEYS)
                .map(|n| Arc::new(Thin::start(Keys::from_seed([n as u8; 32]), &format!("thin-{n}"), &network).unwrap()))
                .collect();
            let mut visits = JoinSet::new();
            for number in 0..connects {
                if visits.len() >= AT_ONCE {
                    visits.join_next().await.unwrap().unwrap();
                }
                let (thin, to) = (nodes[number % KEYS].clone(), to.clone());
                visits.spawn(async move {
                    let link = thin.connect(&to).await.unwrap();
                    thin.beats(&link).await.unwrap().beat_with(&thin.sign(LIFE), true).await.unwrap();
                    link.close().await;
                });
            }
            while let Some(visited) = visits.join_next().await {
                visited.unwrap();
            }
        });
        (resident_kib(member.pid()), folder_bytes(member))
    };
    // The first half fills what has a bound: the second must not grow it by more than noise.
    let (memory_before, disk_before) = visit(5_000);
    let (memory_after, disk_after) = visit(5_000);
    assert!(memory_after <= memory_before + 8 * 1024, "{memory_before} KiB grew to {memory_after} KiB");
    assert!(disk_after <= disk_before + 4 * 1024 * 1024, "{disk_before} bytes grew to {disk_after} bytes");
}
