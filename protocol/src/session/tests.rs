//! The registry of sessions, beat by beat.

#![allow(clippy::unwrap_used)]
use std::{collections::BTreeMap, sync::OnceLock};

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};
use serde_json::value::RawValue;

use super::*;
use crate::{
    behaviour::Offence,
    dht::{NameClaim, PidValue},
    identity::Keys,
    names::Part,
    record::IndexerRecord,
    signed::CLOCK_SKEW,
    suggestions::Source,
    wire::{DhtValues, RefusalCode},
};

const UUID: &str = "0190b5a0-0000-7000-8000-000000000001";

/// Keys, made once: deriving is what such tests cost.
fn made(n: u8) -> &'static (Keys, String) {
    static KEYS: OnceLock<Vec<(Keys, String)>> = OnceLock::new();
    let make = |n| {
        let keys = Keys::from_seed([n; 32]);
        let did = keys.did().to_string();
        (keys, did)
    };
    &KEYS.get_or_init(|| (0..=255).map(make).collect())[usize::from(n)]
}

fn keys(n: u8) -> Keys {
    made(n).0.clone()
}

fn peer(n: u8) -> PeerId {
    made(n).0.peer_id()
}

fn did(n: u8) -> String {
    made(n).1.clone()
}

fn now(secs: u64) -> Now {
    Now { mono: Mono::from_secs(secs), wall: Timestamp::from_second(1_000_000 + secs as i64).unwrap() }
}

fn plain(n: u8, seq: u64, name: &str, expires: u64) -> PeerRecord {
    let keys = keys(n);
    PeerRecord {
        name: name.to_owned(),
        did: did(n),
        pub_key: keys.pub_key().to_owned(),
        peer_id: keys.peer_id(),
        api_url: String::new(),
        stream_address: String::new(),
        addrs: Vec::new(),
        nats_address: String::new(),
        wallet_address: String::new(),
        capabilities: Vec::new(),
        born_at: now(0).wall,
        expiry_date: now(expires).wall,
        seq,
    }
}

fn record(n: u8, seq: u64, name: &str, expires: u64) -> Verified<PeerRecord> {
    Verified::sign(&plain(n, seq, name, expires), &keys(n))
}

fn uuid_record(n: u8, seq: u64) -> Verified<PeerRecord> {
    Verified::sign(&PeerRecord { did: UUID.to_owned(), ..plain(n, seq, "paris", 120) }, &keys(n))
}

fn values(n: u8, name: &str, expires: u64) -> Values {
    let (keys, expiry_date) = (keys(n), now(expires).wall);
    let (did, pub_key, peer_id) = (did(n), keys.pub_key().to_owned(), keys.peer_id());
    let pid = PidValue { did: did.clone(), peer_id, seq: 1, expiry_date, pub_key: pub_key.clone() };
    let name = NameClaim { name: name.to_owned(), did, peer_id, seq: 1, expiry_date, pub_key };
    Values { pid: Verified::sign(&pid, &keys), name: Verified::sign(&name, &keys) }
}

fn heartbeat(n: u8) -> Heartbeat {
    Heartbeat {
        seq: 7,
        name: "paris".to_owned(),
        did: String::new(),
        peer_id: peer(n),
        timestamp: 0,
        need: 0,
        record: None,
        values: None,
        challenges: Vec::new(),
        challenge_did: None,
        referent: false,
        probe: false,
        presence: None,
        traceparent: crate::trace::Traceparent::Absent,
    }
}

fn referent(n: u8) -> Heartbeat {
    Heartbeat { referent: true, ..heartbeat(n) }
}

fn with(record: &Verified<PeerRecord>) -> Heartbeat {
    Heartbeat { record: Some(record.to_raw()), peer_id: record.peer_id, ..heartbeat(0) }
}

/// A registry with its book and its chance.
struct Bed {
    registry: Registry,
    book: IndexerBook,
    rng: StdRng,
}

impl Bed {
    fn new(max_nodes: u32) -> Self {
        Self {
            registry: Registry::new(max_nodes, now(0).wall),
            book: IndexerBook::new(peer(255), false, Mono::ZERO),
            rng: StdRng::seed_from_u64(1),
        }
    }

    fn beat(&mut self, heartbeat: &Heartbeat, at: u64) -> Result<Beat, BeatError> {
        self.registry.beat(heartbeat.peer_id, heartbeat, false, &self.book, now(at), &mut self.rng)
    }

    fn store(&mut self, record: Verified<PeerRecord>, at: u64) -> Result<Stored, RecordError> {
        self.registry.record_verified(&record.peer_id.clone(), record, None, now(at))
    }

    /// A session whose referent we are, with a verified record of seq 1 that ends at 120 s.
    fn member(&mut self, n: u8, name: &str) {
        self.beat(&referent(n), 0).unwrap();
        self.store(record(n, 1, name, 120), 0).unwrap();
    }

    /// Another indexer that can be named: 200.
    fn knows_another(&mut self) {
        let info = IndexerRecord {
            peer_id: peer(200),
            addrs: vec!["/ip4/10.0.0.1/tcp/1".parse().unwrap()],
            region: String::new(),
            capacity: 1,
            fill_rate: 0.0,
            peer_count: 0,
            salt: String::new(),
            peers_digest: Vec::new(),
            born_at: now(0).wall,
            expiry_date: now(600).wall,
            seq: 1,
            pub_key: keys(200).pub_key().to_owned(),
        };
        self.book.learn(Verified::sign(&info, &keys(200)), Source::Dht, now(0).wall);
    }

    fn puts(&mut self, at: u64) -> Vec<u64> {
        self.registry.puts_due(now(at), 100).iter().map(|put| put.record.seq).collect()
    }
}

#[test]
fn a_beat_begins_a_session_and_the_next_keeps_it() {
    let mut bed = Bed::new(10);
    let first = bed.beat(&heartbeat(1), 5).unwrap();
    assert_eq!(first.presence, Presence::Began);
    let answer = first.answer;
    assert_eq!((answer.seq, answer.peer_count, answer.max_nodes, answer.record_seq), (7, 1, 10, None));
    assert_eq!((answer.fill_rate, answer.born_at), (0.1, now(0).wall));
    assert_eq!(bed.beat(&heartbeat(1), 25).unwrap().presence, Presence::Kept);
    let view = bed.registry.view(&peer(1)).unwrap();
    assert_eq!((view.since, view.last_seen, view.beats), (now(5).mono, now(25).mono, 2));
}

#[test]
fn a_sample_is_drawn_anew_of_those_that_are_here() {
    let mut bed = Bed::new(500);
    for n in 1..=40 {
        bed.beat(&heartbeat(n), u64::from(n)).unwrap();
    }
    let mut rng = StdRng::seed_from_u64(1);
    let mut draw = |at_most, at| bed.registry.sample(at_most, Mono::from_secs(at), &mut rng);
    let (one, other) = (draw(32, 40), draw(32, 40));
    let all = |drawn: &[PeerId]| drawn.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!((all(&one).len(), all(&other).len()), (32, 32), "none twice");
    assert_ne!(all(&one), all(&other), "another one each time");
    assert_eq!(draw(50, 40).len(), 40);
    assert_eq!(all(&draw(50, 20 + 120)), all(&(21..=40).map(peer).collect::<Vec<_>>()), "not those that are over");
    assert_eq!(draw(0, 40), []);
    let times = (0..1_000).filter(|_| draw(10, 40).contains(&peer(1))).count();
    assert!((200..300).contains(&times), "a quarter of the draws: {times}");
}

fn challenge(n: u8) -> Heartbeat {
    Heartbeat { challenges: vec![peer(n)], ..heartbeat(n) }
}

#[test]
fn witnesses_are_named_to_whoever_challenges_and_never_the_asker() {
    let mut bed = Bed::new(10);
    let named = |bed: &mut Bed, heartbeat: &Heartbeat| -> BTreeSet<PeerId> {
        bed.beat(heartbeat, 1).unwrap().answer.witnesses.iter().map(|info| info.id).collect()
    };
    assert!(named(&mut bed, &challenge(1)).is_empty(), "nobody else is here");
    bed.beat(&heartbeat(2), 1).unwrap();
    assert_eq!(named(&mut bed, &challenge(1)), [peer(2)].into());
    assert!(named(&mut bed, &heartbeat(1)).is_empty(), "it does not ask");
    assert!(named(&mut bed, &Heartbeat { probe: true, ..challenge(1) }).is_empty(), "a probe has no session");
    for n in 3..=9 {
        bed.beat(&heartbeat(n), 1).unwrap();
    }
    let all: BTreeSet<PeerId> = (0..64).flat_map(|_| named(&mut bed, &challenge(1))).collect();
    assert_eq!(all.len(), 8, "chance names each of them");
    assert!(!all.contains(&peer(1)));
    assert_eq!(named(&mut bed, &challenge(1)).len(), witness::OFFERED_MAX);
}

#[test]
fn indexers_are_the_first_witnesses_while_they_are_here() {
    let mut bed = Bed::new(20);
    for n in 1..=10 {
        bed.beat(&heartbeat(n), 1).unwrap();
    }
    for n in 11..=13 {
        bed.registry.beat(peer(n), &heartbeat(n), true, &bed.book, now(1), &mut bed.rng).unwrap();
    }
    let named = |bed: &mut Bed, n| -> BTreeSet<PeerId> {
        bed.beat(&challenge(n), 1).unwrap().answer.witnesses.iter().map(|info| info.id).collect()
    };
    assert_eq!(named(&mut bed, 1), [11, 12, 13].map(peer).into());
    bed.registry.leave(&peer(12));
    let rest = named(&mut bed, 1);
    assert!(rest.contains(&peer(11)) && rest.contains(&peer(13)) && rest.len() == 3, "{rest:?}");
    assert!(!rest.contains(&peer(12)));
}

#[test]
fn g18_a_heartbeat_of_another_peer_is_not_yours() {
    let mut bed = Bed::new(10);
    let error = bed.registry.beat(peer(1), &heartbeat(2), false, &bed.book, now(0), &mut bed.rng).unwrap_err();
    assert_eq!(error, BeatError::NotYours { got: peer(2) });
    let refused = error.refusal(7);
    assert_eq!((refused.refused, refused.seq), (RefusalCode::NotYours, Some(7)));
    assert_eq!(bed.registry.count(), 0);
}

#[test]
fn g26_g27_a_probe_makes_no_session_and_touches_none() {
    let mut bed = Bed::new(1);
    let probe = Heartbeat { probe: true, referent: true, ..with(&record(1, 1, "paris", 120)) };
    let beat = bed.beat(&probe, 0).unwrap();
    assert_eq!((beat.presence, beat.record), (Presence::Probed, RecordStep::Absent));
    assert_eq!((bed.registry.count(), beat.answer.peer_count), (0, 0));
    bed.member(1, "paris");
    let beat = bed.beat(&Heartbeat { referent: false, ..probe }, 100).unwrap();
    assert_eq!(beat.answer.record_seq, Some(1));
    let view = bed.registry.view(&peer(1)).unwrap();
    assert!(view.is_referent && view.last_seen == now(0).mono && view.beats == 1);
    let of_another = Heartbeat { probe: true, ..heartbeat(2) };
    assert_eq!(bed.beat(&of_another, 1).unwrap().answer.fill_rate, 1.0, "a full indexer answers probes");
}

#[test]
fn g22_an_empty_did_or_name_never_erases_what_is_known() {
    let mut bed = Bed::new(10);
    bed.beat(&Heartbeat { did: did(1), ..heartbeat(1) }, 0).unwrap();
    bed.beat(&Heartbeat { name: String::new(), ..heartbeat(1) }, 20).unwrap();
    let view = bed.registry.view(&peer(1)).unwrap();
    assert_eq!((view.did, view.name.as_str()), (did(1), "paris"));
}

#[test]
fn a_changed_did_is_refused_and_blamed_but_ends_no_session() {
    let mut bed = Bed::new(10);
    bed.beat(&Heartbeat { did: did(1), ..heartbeat(1) }, 0).unwrap();
    let error = bed.beat(&Heartbeat { did: UUID.to_owned(), ..heartbeat(1) }, 20).unwrap_err();
    assert_eq!(error, DidFault::Changed { held: did(1).into() }.into());
    assert_eq!(error.offence(), Some(Offence::ChangedDid));
    assert_eq!(bed.registry.view(&peer(1)).unwrap().last_seen, now(0).mono);
    let error = bed.beat(&Heartbeat { did: did(3), ..heartbeat(2) }, 20).unwrap_err();
    assert_eq!((&error, error.offence()), (&DidFault::NotTheKeys.into(), Some(Offence::ChangedDid)));
    let error = bed.beat(&Heartbeat { did: "paris".to_owned(), ..heartbeat(2) }, 20).unwrap_err();
    assert_eq!((&error, error.offence()), (&DidFault::Malformed.into(), None));
    assert_eq!(bed.registry.count(), 1);
}

#[test]
fn a_name_that_is_none_is_refused() {
    let mut bed = Bed::new(10);
    for name in ["a\nb".to_owned(), "x".repeat(65)] {
        let error = bed.beat(&Heartbeat { name, ..heartbeat(1) }, 0).unwrap_err();
        assert_eq!(error.refusal(7).refused, RefusalCode::Invalid);
    }
    assert!(bed.beat(&Heartbeat { name: "x".repeat(64), ..heartbeat(1) }, 0).is_ok());
}

#[test]
fn g20_a_uuid_is_bound_to_its_first_key_past_the_session_and_over_a_restart() {
    let mut bed = Bed::new(10);
    bed.beat(&heartbeat(1), 0).unwrap();
    let stored = bed.store(uuid_record(1, 1), 0).unwrap();
    assert!(stored.is_first);
    bed.registry.leave(&peer(1));
    bed.beat(&heartbeat(2), 0).unwrap();
    let error = bed.store(uuid_record(2, 9), 0).unwrap_err();
    assert_eq!(error, DidFault::Bound { to: peer(1) }.into());
    assert_eq!(error.offence(), Some(Offence::ChangedDid));
    let error = bed.beat(&Heartbeat { did: UUID.to_owned(), ..heartbeat(3) }, 0).unwrap_err();
    assert_eq!(error, DidFault::Bound { to: peer(1) }.into());
    // The first peer cannot take another one either.
    bed.beat(&heartbeat(1), 0).unwrap();
    let error = bed.store(record(1, 2, "paris", 120), 0).unwrap_err();
    assert_eq!(error, DidFault::Changed { held: UUID.into() }.into());
    let mut restarted = Bed::new(10);
    restarted.registry.recall(peer(1), UUID, 1, Mono::ZERO);
    restarted.beat(&heartbeat(2), 0).unwrap();
    assert!(restarted.store(uuid_record(2, 9), 0).is_err());
}

#[test]
fn g20_a_binding_in_use_is_told_again_each_day() {
    let mut bed = Bed::new(10);
    bed.beat(&heartbeat(1), 0).unwrap();
    let at = |seq, secs: u64| PeerRecord { expiry_date: now(secs + 120).wall, ..uuid_record(1, seq).value().clone() };
    let mut store = |seq, secs| {
        bed.beat(&heartbeat(1), secs).unwrap();
        bed.store(Verified::sign(&at(seq, secs), &keys(1)), secs).unwrap().is_first
    };
    assert!(store(1, 0));
    assert!(!store(2, 86_399));
    assert!(store(3, 86_400));
    assert!(!store(4, 86_401));
}

#[test]
fn g20_a_did_that_is_kept_as_anothers_is_taken_back_from_who_came_first_after_a_restart() {
    let mut bed = Bed::new(10);
    bed.beat(&heartbeat(2), 0).unwrap();
    assert!(bed.store(uuid_record(2, 9), 0).unwrap().is_first);
    assert!(bed.registry.disown(&peer(2), UUID, peer(1), Mono::ZERO).is_some());
    assert!(!bed.registry.has_session(&peer(2), Mono::ZERO));
    bed.beat(&heartbeat(2), 1).unwrap();
    assert_eq!(bed.store(uuid_record(2, 10), 1), Err(DidFault::Bound { to: peer(1) }.into()));
    bed.beat(&heartbeat(1), 1).unwrap();
    assert!(bed.store(uuid_record(1, 1), 1).is_ok());
}

#[test]
fn a_drained_indexer_serves_its_sessions_and_takes_no_new_one() {
    let mut bed = Bed::new(10);
    bed.beat(&heartbeat(1), 0).unwrap();
    bed.registry.set_drained(true);
    let beaten = bed.beat(&heartbeat(1), 20).unwrap();
    assert_eq!(beaten.presence, Presence::Kept);
    let answer = beaten.answer;
    assert_eq!((answer.fill_rate, answer.peer_count, answer.max_nodes), (1.0, 1, 1), "it says that it is full");
    let error = bed.beat(&heartbeat(2), 20).unwrap_err();
    let refused = error.refusal(7);
    assert_eq!((refused.refused, error.offence()), (RefusalCode::Busy, None));
    assert!(refused.retry_after.is_some_and(|secs| (60..=120).contains(&secs)));
    let probe = Heartbeat { probe: true, ..heartbeat(3) };
    assert_eq!(bed.beat(&probe, 20).unwrap().presence, Presence::Probed);
    assert!(bed.beat(&heartbeat(1), 200).is_err(), "one that was away for too long is a newcomer");
    bed.registry.set_drained(false);
    assert!(bed.beat(&heartbeat(2), 200).is_ok());
}

#[test]
fn one_that_leaves_serves_its_sessions_as_before_and_names_others_to_everybody_else() {
    let mut bed = Bed::new(10);
    bed.knows_another();
    bed.beat(&heartbeat(1), 0).unwrap();
    bed.registry.set_leaving();
    let kept = bed.beat(&heartbeat(1), 1).unwrap();
    let answer = kept.answer;
    assert_eq!(kept.presence, Presence::Kept);
    assert_eq!((answer.fill_rate, answer.peer_count, answer.max_nodes), (0.1, 1, 10), "it goes, and is not full");
    let probe = |n| Heartbeat { probe: true, ..heartbeat(n) };
    assert_eq!(bed.beat(&probe(1), 1).unwrap().presence, Presence::Probed);
    for newcomer in [heartbeat(2), probe(3)] {
        let error = bed.beat(&newcomer, 1).unwrap_err();
        let refused = error.refusal(7);
        assert_eq!((refused.refused, error.offence()), (RefusalCode::Busy, None));
        assert!(refused.retry_after.is_some_and(|secs| (5..=10).contains(&secs)));
        assert_eq!(refused.alternatives.iter().map(|info| info.id).collect::<Vec<_>>(), [peer(200)]);
    }
    assert_eq!(bed.registry.count(), 1, "whoever has no session now has none to lose");
}

#[test]
fn p5_an_accepted_number_never_goes_back() {
    let mut bed = Bed::new(10);
    bed.beat(&heartbeat(1), 0).unwrap();
    bed.store(record(1, 5, "paris", 120), 0).unwrap();
    let stale = |got, held| Err(RecordError::Stale { got, held });
    assert_eq!(bed.store(record(1, 4, "paris", 120), 0), stale(4, 5));
    assert_eq!(bed.store(record(1, 5, "london", 120), 0), stale(5, 5), "another one of the same number");
    assert!(bed.store(record(1, 5, "paris", 120), 0).is_ok(), "the same one again is what is held");
    bed.registry.leave(&peer(1));
    bed.beat(&heartbeat(1), 1).unwrap();
    assert_eq!(bed.store(record(1, 4, "paris", 120), 1), stale(4, 5));
    assert!(!bed.store(record(1, 5, "paris", 120), 1).unwrap().is_first);
    assert_eq!(bed.registry.newest_seq(&peer(1)), Some(5));
    let mut restarted = Bed::new(10);
    restarted.registry.recall(peer(1), &did(1), 5, Mono::ZERO);
    restarted.beat(&heartbeat(1), 0).unwrap();
    assert_eq!(restarted.store(record(1, 4, "paris", 120), 0), stale(4, 5));
    assert!(restarted.store(record(1, 6, "paris", 120), 0).is_ok());
}

#[test]
fn pins_are_bounded_and_the_oldest_goes_first() {
    let mut pins = Pins::new(3);
    for n in 0..5 {
        assert!(pins.note(peer(n), &format!("0190b5a0-0000-7000-8000-00000000000{n}"), 1, Mono::from_secs(n.into())));
        assert!(!pins.note(peer(n), "ignored", 2, Mono::from_secs(n.into())));
    }
    assert_eq!((pins.by_peer.len(), pins.by_age.len(), pins.owners.len()), (3, 3, 3));
    assert_eq!((pins.seq(&peer(1)), pins.seq(&peer(2))), (None, Some(2)));
    pins.note(peer(2), "ignored", 1, Mono::from_secs(9));
    pins.note(peer(5), UUID, 1, Mono::from_secs(9));
    assert_eq!((pins.seq(&peer(2)), pins.seq(&peer(3))), (Some(2), None));
}

#[test]
fn g24_a_session_lives_exactly_two_minutes_past_its_last_beat() {
    let mut bed = Bed::new(10);
    bed.member(1, "paris");
    bed.beat(&referent(1), 50).unwrap();
    bed.store(record(1, 2, "paris", 600), 50).unwrap();
    let just_before = Now { mono: Mono::from_millis(169_999), wall: now(169).wall };
    for at in [now(130), just_before] {
        assert_eq!(bed.registry.collect(at.mono, 10), Collected::default());
        assert!(bed.registry.has_session(&peer(1), at.mono));
        assert!(bed.registry.by_peer(&peer(1), at).is_some());
    }
    // At its end it is gone from every answer, collected or not.
    assert!(!bed.registry.has_session(&peer(1), now(170).mono));
    assert!(bed.registry.by_peer(&peer(1), now(170)).is_none());
    assert!(bed.registry.by_part(&Part::new("par").unwrap(), now(170), 10).0.is_empty());
    let departed = bed.registry.collect(now(170).mono, 10).departed;
    assert_eq!((departed.len(), departed[0].peer, bed.registry.count()), (1, peer(1), 0));
}

#[test]
fn a_session_that_ended_and_was_not_collected_begins_anew() {
    let mut bed = Bed::new(1);
    bed.member(1, "paris");
    let beat = bed.beat(&heartbeat(1), 120).unwrap();
    assert_eq!((beat.presence, beat.answer.record_seq), (Presence::Began, None));
    assert_eq!(bed.registry.count(), 1);
}

#[test]
fn collecting_looks_at_no_more_than_it_may() {
    let mut bed = Bed::new(100);
    for n in 0..10 {
        bed.beat(&heartbeat(n), 0).unwrap();
    }
    let first = bed.registry.collect(now(120).mono, 4);
    assert_eq!((first.departed.len(), first.is_partial), (4, true));
    let second = bed.registry.collect(now(120).mono, 6);
    assert_eq!((second.departed.len(), second.is_partial, bed.registry.count()), (6, false, 0));
}

#[test]
fn g17_a_full_indexer_refuses_newcomers_and_keeps_whom_it_has() {
    let mut bed = Bed::new(2);
    bed.knows_another();
    bed.beat(&heartbeat(1), 0).unwrap();
    assert_eq!(bed.beat(&heartbeat(2), 0).unwrap().answer.fill_rate, 1.0);
    let refused = bed.beat(&heartbeat(3), 0).unwrap_err().refusal(7);
    assert_eq!((refused.refused, refused.alternatives[0].id), (RefusalCode::Busy, peer(200)));
    assert!((30..=60).contains(&refused.retry_after.unwrap()));
    for n in [1, 2] {
        assert_eq!(bed.beat(&heartbeat(n), 20).unwrap().presence, Presence::Kept);
    }
    let asking = Heartbeat { need: 3, ..heartbeat(1) };
    assert_eq!(bed.beat(&asking, 20).unwrap().answer.suggestions.len(), 1);
    bed.registry.leave(&peer(1));
    assert!(bed.beat(&heartbeat(3), 21).is_ok());
}

#[test]
fn g12_challenges_are_answered_from_sessions_that_this_beat_did_not_make_and_bounded() {
    let mut bed = Bed::new(10);
    bed.beat(&heartbeat(1), 0).unwrap();
    bed.beat(&heartbeat(2), 90).unwrap();
    let challenges = vec![peer(3), peer(1), peer(2)];
    let answers = bed.beat(&Heartbeat { challenges: challenges.clone(), ..heartbeat(3) }, 110).unwrap().answer;
    let told: Vec<_> = answers.challenges.iter().map(|told| (told.found, told.last_seen)).collect();
    assert_eq!(told, [(false, None), (true, Some(now(0).wall)), (true, Some(now(90).wall))]);
    let answers = bed.beat(&Heartbeat { challenges, ..heartbeat(3) }, 120).unwrap().answer;
    assert_eq!((answers.challenges[0].found, answers.challenges[0].last_seen), (true, Some(now(110).wall)));
    assert_eq!((answers.challenges[1].found, answers.challenges[1].last_seen), (false, None));
    for (asked, answered) in [(8, 8), (9, 8)] {
        let many = Heartbeat { challenges: vec![peer(1); asked], ..heartbeat(3) };
        assert_eq!(bed.beat(&many, 120).unwrap().answer.challenges.len(), answered);
    }
}

#[test]
fn a_record_is_verified_once_and_only_when_it_claims_to_be_newer() {
    let mut bed = Bed::new(10);
    let first = record(1, 5, "paris", 600);
    assert_eq!(bed.beat(&with(&first), 0).unwrap().record, RecordStep::Verify { seq: 5 });
    assert_eq!(bed.beat(&with(&first), 1).unwrap().record, RecordStep::Pending);
    assert_eq!(bed.beat(&with(&first), 10).unwrap().record, RecordStep::Verify { seq: 5 }, "patience is over");
    bed.store(first.clone(), 10).unwrap();
    assert_eq!(bed.beat(&with(&first), 11).unwrap().record, RecordStep::Unchanged);
    let older = bed.beat(&with(&record(1, 4, "paris", 600)), 12).unwrap();
    assert_eq!(older.record, RecordStep::Rejected(RecordError::Stale { got: 4, held: 5 }));
    assert_eq!(older.answer.record_seq, Some(5));
    let newer = with(&record(1, 6, "paris", 600));
    assert_eq!(bed.beat(&newer, 13).unwrap().record, RecordStep::Verify { seq: 6 });
    bed.registry.record_failed(&peer(1), 6);
    assert_eq!(bed.beat(&newer, 14).unwrap().record, RecordStep::Verify { seq: 6 });
}

#[test]
fn g19_only_the_own_verified_record_is_taken_and_found() {
    let mut bed = Bed::new(10);
    let own = record(1, 1, "paris", 120);
    let beat = bed.beat(&Heartbeat { referent: true, did: did(1), ..with(&own) }, 0).unwrap();
    assert_eq!(beat.record, RecordStep::Verify { seq: 1 });
    assert!(bed.registry.by_peer(&peer(1), now(0)).is_none(), "what is not verified is no hit");
    assert!(bed.registry.by_name("paris", now(0), 10).is_empty());
    assert!(bed.registry.by_did(&did(1), now(0)).is_none());
    let of_another = Heartbeat { peer_id: peer(1), ..with(&record(2, 9, "paris", 120)) };
    let step = bed.beat(&of_another, 1).unwrap().record;
    assert_eq!(step, RecordStep::Rejected(RecordError::NotYours { got: peer(2) }));
    let error = bed.registry.record_verified(&peer(1), record(2, 9, "paris", 120), None, now(1)).unwrap_err();
    assert_eq!(error, RecordError::NotYours { got: peer(2) });
    let garbage = Heartbeat { record: Some(RawValue::from_string("[1]".to_owned()).unwrap()), ..heartbeat(1) };
    let step = bed.beat(&garbage, 2).unwrap().record;
    assert!(matches!(step, RecordStep::Rejected(RecordError::Malformed(_))), "the beat itself stands");
    bed.store(own, 2).unwrap();
    assert!(bed.registry.by_peer(&peer(1), now(2)).is_some());
}

#[test]
fn a_publication_is_judged_as_a_beat_is_and_gets_a_receipt() {
    let mut bed = Bed::new(10);
    let first = record(1, 5, "paris", 120);
    let step = bed.registry.offer(&peer(1), first.text());
    assert_eq!(step, RecordStep::Rejected(RecordError::NoSession));
    assert_eq!(bed.store(first.clone(), 0), Err(RecordError::NoSession));
    bed.beat(&heartbeat(1), 0).unwrap();
    assert_eq!(bed.registry.offer(&peer(1), first.text()), RecordStep::Verify { seq: 5 });
    let stored = bed.store(first, 0);
    let receipt = bed.registry.receipt(&peer(1), 5, stored.as_ref().copied());
    assert!(receipt.accepted && receipt.record_seq == 5 && receipt.reason.is_none());
    let stored = bed.store(record(1, 4, "paris", 120), 0);
    let receipt = bed.registry.receipt(&peer(1), 4, stored.as_ref().copied());
    assert!(!receipt.accepted && receipt.record_seq == 5 && receipt.reason.is_some());
}

fn names_of(found: &[Arc<Verified<PeerRecord>>]) -> Vec<&str> {
    found.iter().map(|record| record.name.as_str()).collect()
}

#[test]
fn peers_are_found_by_id_did_name_and_part() {
    let mut bed = Bed::new(10);
    bed.member(1, "Paris");
    bed.member(2, "paris");
    bed.beat(&heartbeat(3), 0).unwrap();
    bed.store(record(3, 1, "Le Paris", 120), 0).unwrap();
    let registry = &bed.registry;
    assert_eq!(registry.by_peer(&peer(3), now(1)).unwrap().peer_id, peer(3));
    assert_eq!(registry.by_did(&did(2), now(1)).unwrap().peer_id, peer(2));
    assert_eq!(names_of(&registry.by_name("PARIS", now(1), 10)), ["Paris", "paris"]);
    assert_eq!(names_of(&registry.by_name("PARIS", now(1), 1)), ["Paris"]);
    assert_eq!(names_of(&registry.by_name("par", now(1), 10)), Vec::<&str>::new());
    let part = Part::new("ARI").unwrap();
    let (found, is_truncated) = registry.by_part(&part, now(1), 2);
    assert_eq!((names_of(&found), is_truncated), (vec!["Paris", "paris"], false), "not whose referent is another");
    let (found, is_truncated) = registry.by_part(&part, now(1), 1);
    assert_eq!((found.len(), is_truncated), (1, true));
    bed.beat(&referent(3), 2).unwrap();
    bed.beat(&heartbeat(1), 2).unwrap();
    assert_eq!(names_of(&bed.registry.by_part(&part, now(2), 9).0), ["Le Paris", "paris"]);
}

#[test]
fn a_new_name_replaces_the_old_one_everywhere() {
    let mut bed = Bed::new(10);
    bed.member(1, "paris");
    bed.store(record(1, 2, "london", 120), 1).unwrap();
    let registry = &bed.registry;
    assert!(registry.by_name("paris", now(1), 9).is_empty());
    assert!(registry.by_part(&Part::new("par").unwrap(), now(1), 9).0.is_empty());
    assert_eq!(names_of(&registry.by_part(&Part::new("lon").unwrap(), now(1), 9).0), ["london"]);
    assert_eq!((registry.by_name.len(), registry.named.len(), registry.by_did.len()), (1, 1, 1));
}

#[test]
fn a_record_that_is_over_is_no_hit() {
    let mut bed = Bed::new(10);
    bed.member(1, "paris");
    bed.beat(&referent(1), 119).unwrap();
    let skewed = 120 + CLOCK_SKEW.as_secs();
    assert!(bed.registry.by_did(&did(1), now(skewed - 1)).is_some(), "receivers allow for a wrong clock");
    assert!(bed.registry.by_did(&did(1), now(skewed)).is_none());
    assert!(bed.registry.has_session(&peer(1), now(skewed).mono));
}

#[test]
fn an_indexer_is_found_as_its_own_referent() {
    let mut bed = Bed::new(10);
    bed.registry.set_own(record(9, 1, "indexer-1", 120), None, Mono::ZERO);
    let registry = &bed.registry;
    assert!(registry.by_peer(&peer(9), now(1)).is_some() && registry.by_did(&did(9), now(1)).is_some());
    assert_eq!(registry.by_name("Indexer-1", now(1), 9).len(), 1);
    assert_eq!(registry.by_part(&Part::new("dexer").unwrap(), now(1), 9).0.len(), 1);
    assert_eq!(registry.count(), 0);
    assert_eq!(bed.puts(1), [1]);
    assert!(bed.puts(2).is_empty());
    bed.registry.set_own(record(9, 2, "indexer-1", 180), None, Mono::from_secs(30));
    assert_eq!(bed.registry.next_put(), Some(now(1).mono + Duration::from_millis(59_500)));
    assert_eq!(bed.puts(61), [2]);
    bed.registry.put_failed(&peer(9), 2, Mono::from_secs(62));
    assert!(bed.puts(71).is_empty());
    assert_eq!(bed.puts(72), [2]);
}

#[test]
fn values_are_put_once_per_half_of_the_life_that_was_left() {
    let mut bed = Bed::new(10);
    bed.member(1, "paris");
    assert_eq!(bed.puts(0), [1], "at once, when we become the referent");
    assert!(bed.puts(59).is_empty());
    assert!(bed.puts(61).is_empty(), "the same number is not put twice");
    bed.beat(&referent(1), 66).unwrap();
    bed.store(record(1, 2, "paris", 186), 66).unwrap();
    assert_eq!(bed.puts(66), [2]);
    bed.store(record(1, 3, "paris", 200), 80).unwrap();
    assert_eq!(bed.registry.next_put(), Some(now(126).mono));
    assert!(bed.puts(125).is_empty());
    assert_eq!(bed.puts(126), [3]);
}

#[test]
fn changed_addresses_are_put_soon_but_never_within_ten_seconds() {
    let mut bed = Bed::new(10);
    bed.member(1, "paris");
    bed.puts(0);
    let mut moved = plain(1, 2, "paris", 125);
    moved.addrs = vec!["/ip4/10.0.0.2/tcp/1".parse().unwrap()];
    bed.store(Verified::sign(&moved, &keys(1)), 5).unwrap();
    // A later record that changes nothing more does not take the haste away.
    bed.store(Verified::sign(&PeerRecord { seq: 3, ..moved }, &keys(1)), 6).unwrap();
    assert!(bed.puts(9).is_empty());
    assert_eq!(bed.puts(10), [3]);
}

#[test]
fn only_the_referent_puts_and_a_new_one_takes_over_at_once() {
    let mut bed = Bed::new(10);
    bed.beat(&heartbeat(1), 0).unwrap();
    bed.store(record(1, 1, "paris", 600), 0).unwrap();
    assert_eq!((bed.puts(5), bed.registry.next_put()), (vec![], None));
    bed.beat(&referent(1), 10).unwrap();
    assert_eq!(bed.puts(10), [1]);
    bed.store(record(1, 2, "london", 600), 11).unwrap();
    bed.beat(&heartbeat(1), 12).unwrap();
    assert!(bed.puts(100).is_empty(), "another one's now");
    bed.beat(&referent(1), 110).unwrap();
    assert_eq!(bed.puts(110), [2]);
    bed.registry.leave(&peer(1));
    assert_eq!(bed.registry.next_put(), None);
}

#[test]
fn a_failed_put_is_due_again_and_an_expired_record_is_not() {
    let mut bed = Bed::new(10);
    bed.member(1, "paris");
    bed.puts(0);
    bed.registry.put_failed(&peer(1), 9, Mono::from_secs(1));
    assert!(bed.puts(20).is_empty(), "that was another number");
    bed.registry.put_failed(&peer(1), 1, Mono::from_secs(20));
    assert!(bed.puts(29).is_empty());
    assert_eq!(bed.puts(30), [1]);
    bed.registry.put_failed(&peer(1), 1, Mono::from_secs(115));
    assert!(bed.puts(125).is_empty());
    assert_eq!(bed.registry.next_put(), None);
}

#[test]
fn g30_however_often_the_referent_changes_one_put_is_planned() {
    let mut bed = Bed::new(10);
    bed.member(1, "paris");
    for at in 0..100 {
        bed.beat(&heartbeat(1), at).unwrap();
        assert!(bed.registry.puts.is_empty());
        bed.beat(&referent(1), at).unwrap();
        assert_eq!(bed.registry.puts.len(), 1);
    }
    assert_eq!(bed.puts(100), [1]);
    bed.beat(&heartbeat(1), 101).unwrap();
    bed.beat(&referent(1), 102).unwrap();
    assert_eq!((bed.puts(102), bed.registry.next_put()), (vec![], None), "its number was put");
}

#[test]
fn g23_a_beat_copies_no_record() {
    let mut bed = Bed::new(10);
    for n in 1..=5 {
        bed.member(n, "paris");
    }
    let held = Arc::clone(bed.registry.by_peer(&peer(1), now(0)).unwrap());
    for n in 1..=5 {
        bed.beat(&referent(n), 20).unwrap();
    }
    assert!(Arc::ptr_eq(&held, bed.registry.by_peer(&peer(1), now(20)).unwrap()), "it is the one of before");
    assert_eq!(Arc::strong_count(&held), 2, "the session's and ours");
}

#[test]
fn nothing_is_put_for_a_session_that_ended() {
    let mut bed = Bed::new(10);
    bed.beat(&referent(1), 0).unwrap();
    bed.store(record(1, 1, "paris", 600), 0).unwrap();
    assert!(bed.puts(120).is_empty());
    bed.beat(&referent(1), 121).unwrap();
    bed.store(record(1, 1, "paris", 600), 121).unwrap();
    assert_eq!(bed.puts(121), [1]);
}

#[test]
fn puts_come_in_batches() {
    let mut bed = Bed::new(10);
    for n in 1..=5 {
        bed.member(n, "paris");
    }
    assert_eq!(bed.registry.puts_due(now(0), 0).len(), 0);
    assert_eq!(bed.registry.puts_due(now(0), 3).len(), 3);
    assert_eq!(bed.registry.puts_due(now(0), 3).len(), 2);
}

#[test]
fn values_travel_with_their_record_and_must_agree_with_it() {
    let mut bed = Bed::new(10);
    bed.beat(&referent(1), 0).unwrap();
    let taken = bed.registry.record_verified(
        &peer(1),
        record(1, 1, "Paris", 120),
        Some(Arc::new(values(2, "paris", 120))),
        now(0),
    );
    assert!(!taken.unwrap().has_values, "another peer's");
    let put = bed.registry.puts_due(now(0), 1).remove(0);
    assert!(put.values.is_none());
    let taken = bed.registry.record_verified(
        &peer(1),
        record(1, 2, "Paris", 190),
        Some(Arc::new(values(1, "paris", 65))),
        now(60),
    );
    assert!(taken.unwrap().has_values);
    assert!(bed.registry.puts_due(now(60), 1).remove(0).values.is_some());
    bed.registry.put_failed(&peer(1), 2, Mono::from_secs(60));
    assert!(bed.registry.puts_due(now(70), 1).remove(0).values.is_none(), "they are over");
}

#[test]
fn a_new_referent_asks_for_the_values_of_a_record_that_it_has() {
    let mut bed = Bed::new(10);
    let held = record(1, 1, "paris", 120);
    bed.beat(&heartbeat(1), 0).unwrap();
    bed.store(held.clone(), 0).unwrap();
    let raw = values(1, "paris", 120);
    let raw = DhtValues { pid: raw.pid.to_raw(), name: raw.name.to_raw() };
    let nudge = Heartbeat { referent: true, values: Some(raw), ..with(&held) };
    assert_eq!(bed.beat(&nudge, 10).unwrap().record, RecordStep::Verify { seq: 1 });
    assert_eq!(bed.beat(&nudge, 11).unwrap().record, RecordStep::Pending);
    assert_eq!(bed.puts(11), [1], "the record alone, meanwhile");
    let stored =
        bed.registry.record_verified(&peer(1), held, Some(Arc::new(values(1, "paris", 120))), now(12)).unwrap();
    assert!(stored.has_values && !stored.is_first);
    assert!(bed.puts(20).is_empty());
    assert!(bed.registry.puts_due(now(21), 1).remove(0).values.is_some());
    assert_eq!(bed.beat(&nudge, 22).unwrap().record, RecordStep::Unchanged);
}

#[test]
fn views_come_in_pages() {
    let mut bed = Bed::new(10);
    for n in 1..=5 {
        bed.member(n, "paris");
    }
    bed.registry.leave(&peer(2));
    let (first, next) = bed.registry.views(0, 2);
    let (second, end) = bed.registry.views(next.unwrap(), 2);
    let peers: Vec<_> = first.iter().chain(&second).map(|view| view.peer).collect();
    assert_eq!((peers, end), (vec![peer(1), peer(3), peer(4), peer(5)], None));
}

/// Five peers and three records each, signed once: signing is what such tests cost.
fn prepared(n: u8, at: u64) -> &'static Verified<PeerRecord> {
    static RECORDS: OnceLock<Vec<Verified<PeerRecord>>> = OnceLock::new();
    let records = RECORDS.get_or_init(|| {
        let names = ["paris", "Paris", "london"];
        (0..15).map(|at| record(at / 3, u64::from(at % 3) + 1, names[usize::from(at * 7 % 3)], 100_000)).collect()
    });
    &records[usize::from(n) * 3 + at as usize]
}

#[derive(Clone, Debug)]
enum Step {
    Beat { peer: u8, referent: bool },
    Store { peer: u8, at: u64 },
    Leave { peer: u8 },
    Wait { secs: u64 },
    Collect { at_most: usize },
    Put,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..5, any::<bool>()).prop_map(|(peer, referent)| Step::Beat { peer, referent }),
        3 => (0u8..5, 0u64..3).prop_map(|(peer, at)| Step::Store { peer, at }),
        1 => (0u8..5).prop_map(|peer| Step::Leave { peer }),
        2 => (0u64..70).prop_map(|secs| Step::Wait { secs }),
        1 => (0usize..4).prop_map(|at_most| Step::Collect { at_most }),
        1 => Just(Step::Put),
    ];
    proptest::collection::vec(step, 1..120)
}

/// What a session is, said simply.
#[derive(Clone, Debug, Default)]
struct Plain {
    last_seen: u64,
    referent: bool,
    record: Option<u64>,
}

proptest! {
    /// Random beats, records, leaves and expiries against a naive model: the same is found, and no index leaks.
    #[test]
    fn the_indexes_agree_with_a_naive_model(steps in steps()) {
        let mut bed = Bed::new(4);
        let mut model = BTreeMap::<u8, Plain>::new();
        let mut newest = BTreeMap::<u8, u64>::new();
        let mut at = 0;
        for step in steps {
            match step {
                Step::Beat { peer, referent } => {
                    if model.get(&peer).is_some_and(|session| at - session.last_seen >= 120) {
                        model.remove(&peer);
                    }
                    let is_welcome = model.contains_key(&peer) || model.len() < 4;
                    let beat = bed.beat(&Heartbeat { referent, ..heartbeat(peer) }, at);
                    prop_assert_eq!(beat.is_ok(), is_welcome);
                    if is_welcome {
                        let session = model.entry(peer).or_default();
                        (session.last_seen, session.referent) = (at, referent);
                    }
                }
                Step::Store { peer, at: which } => {
                    let stored = bed.store(prepared(peer, which).clone(), at);
                    let newest = newest.entry(peer).or_default();
                    let is_taken = model.get(&peer).is_some_and(|session| match session.record {
                        Some(held) => which >= held,
                        None => which + 1 >= *newest,
                    });
                    prop_assert_eq!(stored.is_ok(), is_taken, "{:?}", stored);
                    if is_taken {
                        *newest = which + 1;
                        model.get_mut(&peer).unwrap().record = Some(which);
                    }
                }
                Step::Leave { peer: n } => {
                    prop_assert_eq!(bed.registry.leave(&peer(n)).is_some(), model.remove(&n).is_some());
                }
                Step::Wait { secs } => at += secs,
                Step::Collect { at_most } => {
                    let collected = bed.registry.collect(now(at).mono, at_most);
                    prop_assert!(collected.departed.len() <= at_most);
                    for departed in collected.departed {
                        let n = (0..5).find(|n| peer(*n) == departed.peer).unwrap();
                        prop_assert!(model.remove(&n).is_some_and(|session| at - session.last_seen >= 120));
                    }
                }
                Step::Put => {
                    for put in bed.registry.puts_due(now(at), 2) {
                        let n = (0..5).find(|n| peer(*n) == put.record.peer_id).unwrap();
                        let session = &model[&n];
                        prop_assert!(session.referent && session.record == Some(put.record.seq - 1));
                    }
                }
            }
            check(&bed.registry, &model, at)?;
        }
        let _ = bed.registry.collect(now(at + 120).mono, 100);
        let registry = &bed.registry;
        prop_assert!(registry.by_peer.is_empty() && registry.by_did.is_empty() && registry.by_name.is_empty());
        prop_assert!(registry.named.is_empty() && registry.leases.is_empty() && registry.puts.is_empty());
        prop_assert!(registry.slots.iter().all(Option::is_none) && registry.free.len() == registry.slots.len());
    }
}

fn check(registry: &Registry, model: &BTreeMap<u8, Plain>, at: u64) -> Result<(), TestCaseError> {
    prop_assert_eq!(registry.count() as usize, model.len());
    prop_assert_eq!(registry.leases.len(), model.len());
    prop_assert!(registry.slots.len() <= 4);
    let with_record = model.values().filter(|session| session.record.is_some());
    prop_assert_eq!(registry.by_name.len(), with_record.clone().count());
    prop_assert_eq!(registry.by_did.len(), with_record.clone().count());
    prop_assert_eq!(registry.named.len(), with_record.filter(|session| session.referent).count());
    let live = model.iter().filter(|(_, session)| at - session.last_seen < 120);
    let records = live.filter_map(|(n, session)| Some((session.referent, prepared(*n, session.record?))));
    let records: Vec<_> = records.collect();
    for n in 0..5 {
        let expected = records.iter().find(|(_, record)| record.peer_id == peer(n)).map(|(_, record)| record.seq);
        prop_assert_eq!(registry.by_peer(&peer(n), now(at)).map(|record| record.seq), expected);
        prop_assert_eq!(registry.by_did(&did(n), now(at)).map(|record| record.seq), expected);
    }
    for name in ["paris", "london"] {
        let exact = records.iter().filter(|(_, record)| record.name.eq_ignore_ascii_case(name));
        prop_assert_eq!(registry.by_name(name, now(at), 9).len(), exact.clone().count());
        let part = Part::new(&name[1..4]).unwrap();
        prop_assert_eq!(registry.by_part(&part, now(at), 9).0.len(), exact.filter(|(referent, _)| *referent).count());
    }
    Ok(())
}
