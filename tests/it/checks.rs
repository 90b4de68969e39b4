//! What members measure and look at beside their heartbeats.

use std::fs;

use actors::{
    swarm::streams::{Bytes, Io},
    view::ExplainView,
};
use libp2p::Multiaddr;
use protocol::{
    bandwidth::{PAYLOAD_BYTES, TOTAL, WITHIN},
    identity::{Keys, PreSharedKey},
    json,
    score::Observation,
    wire::{Answer, Protocol, RefusalCode, Refused},
};
use tokio::runtime::Runtime;

use crate::{
    harness::{Federation, Member, PATIENCE, Spec, until_true},
    thin::{Link, Network, Thin},
};

fn thin(member: &Member, seed: u8) -> Thin {
    let text = fs::read_to_string(member.dir.join("swarm.key")).unwrap();
    let key: PreSharedKey = text.parse().unwrap();
    let network = Network { key: Some(*key.as_bytes()), id: "opencloud".to_owned() };
    Thin::start(Keys::from_seed([seed; 32]), &format!("thin-{seed}"), &network).unwrap()
}

/// Writes these bytes as one probe, and takes what comes back.
async fn probe(link: &Link, bytes: &[u8], is_ended: bool) -> Bytes {
    let mut io: Io = link.open(Protocol::Bandwidth).await.unwrap();
    // It may be refused, and closed, before all is written.
    let _ = io.write_bytes(bytes, is_ended, WITHIN).await;
    io.read_bytes(PAYLOAD_BYTES, TOTAL, WITHIN).await.unwrap()
}

fn refused(back: &Bytes) -> Refused {
    let line = back.taken.strip_suffix(b"\n").unwrap_or(&back.taken);
    match json::parse::<Answer<serde_json::Value>>(line, 4 * 1024).unwrap() {
        Answer::Refused(refused) => refused,
        Answer::Given(other) => panic!("no refusal: {other}"),
    }
}

#[test]
fn g15_g39_a_bandwidth_probe_that_is_none_is_refused_in_words_and_counted() {
    let mut federation = Federation::new();
    // Ten times as many for the profile of one machine.
    federation.add(Spec::indexer("indexer-1").set("behaviour.bandwidth_probes", "1")).start();
    let member = federation.member("indexer-1");
    member.until_ready();
    let address: Multiaddr = member.address().parse().unwrap();
    let payload: Vec<u8> = (0..=PAYLOAD_BYTES).map(|byte| (byte * 7 % 251) as u8).collect();
    let whole = &payload[..PAYLOAD_BYTES];
    Runtime::new().unwrap().block_on(async {
        let stranger = thin(member, 1).connect(&address).await.unwrap();
        assert_eq!(refused(&probe(&stranger, whole, true).await).refused, RefusalCode::UnknownPeer);

        let node = thin(member, 2);
        let link = node.connect(&address).await.unwrap();
        let mut beats = node.beats(&link).await.unwrap();
        beats.beat().await.unwrap();
        assert_eq!(probe(&link, whole, true).await.taken, whole, "an honest one comes back as it was");

        let many = refused(&probe(&link, &payload, true).await);
        assert_eq!((many.refused, many.detail.contains("more than 65536")), (RefusalCode::Limit, true), "{many:?}");
        let few = refused(&probe(&link, &whole[1..], true).await);
        assert_eq!((few.refused, few.detail.contains("65535")), (RefusalCode::Invalid, true), "{few:?}");
        assert_eq!(member.metric("muster_bad_inputs_total"), 1.0, "too much is bad input, too little is not");

        let slow = refused(&probe(&link, &whole[..10], false).await);
        assert_eq!((slow.refused, slow.detail.contains("10 bytes")), (RefusalCode::Limit, true), "{slow:?}");
        assert_eq!(member.metric("muster_bad_inputs_total"), 1.0, "to be slow is no bad will");

        for _ in 4..10 {
            assert_eq!(probe(&link, whole, true).await.taken, whole);
        }
        let often = refused(&probe(&link, whole, true).await);
        assert_eq!(often.refused, RefusalCode::Limit);
        assert!(often.retry_after.is_some_and(|secs| (1..=60).contains(&secs)), "{often:?}");
        assert!(beats.beat().await.is_ok(), "its heartbeats are no worse for it");
    });
    assert_eq!(member.metric("muster_bandwidth_probes_served_total"), 7.0);
    assert_eq!(member.metric("muster_bandwidth_probes_refused_total"), 5.0);
}

#[test]
fn a_node_and_its_indexer_measure_what_the_other_sends() {
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1")).start();
    let seed = federation.member("indexer-1").address();
    federation.add(Spec::node("paris").seed(seed).set("heartbeat.bandwidth_every", "2")).start();
    let (indexer, paris) = (federation.member("indexer-1"), federation.member("paris"));
    until_true("paris has measured its indexer", PATIENCE, || {
        paris.indexers().first().is_some_and(|indexer| indexer.bytes_per_sec.is_some_and(|speed| speed > 0.0))
    });
    let view: ExplainView = paris.get(&format!("/api/v1/indexers/{}/explain", indexer.peer_id));
    let ledger = view.explained.unwrap().ledger;
    assert!(ledger.entries().any(|entry| entry.seen.to_string().contains("64 KiB")), "it is in the ledger");
    let shown = paris.verb(&["indexers", "--explain"]).ok().out;
    assert!(shown.contains("sends us") && shown.contains("sent 64 KiB back"), "{shown}");
    until_true("indexer-1 has measured paris, its pings too", PATIENCE, || {
        indexer.sessions().iter().any(|session| {
            let is_fast = session.bytes_per_sec.is_some_and(|speed| speed > 16_384.0);
            session.peer_id.to_string() == paris.peer_id && is_fast && session.rtt_ms.is_some_and(|millis| millis < 4e3)
        })
    });
    let shown = indexer.verb(&["sessions"]).ok().out;
    assert!(shown.contains("B/s") && shown.contains(" ms"), "{shown}");
}

#[test]
fn spot_checks_find_what_an_indexers_record_says_and_stand_in_the_ledger() {
    let mut federation = Federation::new();
    // With so little room each session is worth a new record.
    federation.add(Spec::indexer("indexer-1").set("gate.max_nodes", "10")).start();
    let seed = federation.member("indexer-1").address();
    federation.add(Spec::indexer("indexer-2").set("gate.max_nodes", "10").seed(&seed)).start();
    let other = federation.member("indexer-2").address();
    let node = Spec::node("paris").seed(seed).seed(other);
    let node = node.set("heartbeat.spot_every", "2").set("heartbeat.subnets_every", "2");
    federation.add(node.set("heartbeat.challenge_every_max", "2")).start();
    let paris = federation.member("paris");
    let explained = |name: &str| {
        let view: Option<ExplainView> =
            paris.try_get(&format!("/api/v1/indexers/{}/explain", federation.member(name).peer_id));
        view.and_then(|view| view.explained)
    };
    for (about, by) in [("indexer-1", "indexer-2"), ("indexer-2", "indexer-1")] {
        let by = federation.member(by).peer_id.clone();
        until_true(&format!("{by} is named by {about}, and says that it is connected"), PATIENCE, || {
            explained(about).is_some_and(|explained| {
                assert!(explained.holds(), "its score can be computed again");
                explained.ledger.entries().any(|entry| match entry.seen {
                    Observation::Spot { by: asked, good } => {
                        assert!(good, "an honest indexer is contradicted by {asked}");
                        asked.to_string() == by
                    }
                    _ => false,
                })
            })
        });
    }
    until_true("the subnets of those that were named are counted", PATIENCE, || {
        let is_one = |seen: &Observation| matches!(seen, Observation::Spread { peers: 1.., subnets: 1 });
        explained("indexer-1").is_some_and(|explained| explained.ledger.entries().any(|entry| is_one(&entry.seen)))
    });
    let shown = paris.verb(&["indexers", "--explain"]).ok().out;
    assert!(shown.contains("which its record names, is connected to it"), "{shown}");
    assert!(shown.contains("peers that it named lie in 1 subnets"), "{shown}");
    assert!(paris.metric("muster_spot_checks_made_total") >= 2.0);
}
