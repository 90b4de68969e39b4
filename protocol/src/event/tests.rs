#![allow(clippy::unwrap_used)]

use super::*;
use crate::signed::Verified;

fn keys(n: u8) -> Keys {
    Keys::from_seed([n; 32])
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    now() + jiff::SignedDuration::from_secs(seconds)
}

fn event(n: u8) -> Event {
    Event {
        verb: Verb::Create,
        from: keys(n).peer_id(),
        user: "ann".to_owned(),
        groups: vec!["ops".to_owned()],
        datatype: "compute".to_owned(),
        id: "1".to_owned(),
        ts: now(),
        payload: b"{\"id\":\"a\"}".to_vec(),
    }
}

fn signed(n: u8, event: &Event) -> Verified<Event> {
    Verified::sign(event, &keys(n))
}

#[test]
fn g32_an_event_is_its_authors_or_nobodys() {
    let written = signed(1, &event(1));
    assert_eq!(*Verified::<Event>::open(written.text(), now()).unwrap(), event(1));
    let forged = written.text().replace(&keys(1).peer_id().to_string(), &keys(2).peer_id().to_string());
    assert_eq!(Verified::<Event>::open(&forged, now()).unwrap_err(), SignedError::BadSignature);
    let changed = written.text().replace("\"create\"", "\"delete\"");
    assert_eq!(Verified::<Event>::open(&changed, now()).unwrap_err(), SignedError::BadSignature);
    let nobody =
        written.text().replace(&keys(1).peer_id().to_string(), "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N");
    assert!(matches!(
        Verified::<Event>::open(&nobody, now()).unwrap_err(),
        SignedError::NotBytes { field: "from", .. }
    ));
}

#[test]
fn an_event_is_good_for_five_minutes_around_its_time() {
    let written = signed(1, &event(1));
    for seconds in [-300, 300] {
        assert!(Verified::<Event>::open(written.text(), after(seconds)).is_ok());
    }
    assert!(matches!(Verified::<Event>::open(written.text(), after(301)), Err(SignedError::Expired { .. })));
    assert!(matches!(Verified::<Event>::open(written.text(), after(-301)), Err(SignedError::FromFuture { .. })));
}

#[test]
fn the_largest_payload_fits_an_event_and_one_byte_more_is_refused() {
    let largest = Event { payload: vec![7; PAYLOAD_BYTES_MAX], ..event(1) };
    let groups = vec!["g".repeat(TEXT_BYTES_MAX); GROUPS_MAX];
    let (user, datatype) = ("u".repeat(TEXT_BYTES_MAX), "d".repeat(TEXT_BYTES_MAX));
    let largest = Event { groups, user, datatype, id: "i".repeat(TEXT_BYTES_MAX), ..largest };
    assert!(Verified::<Event>::open(signed(1, &largest).text(), now()).is_ok());
    for over in [
        Event { payload: vec![7; PAYLOAD_BYTES_MAX + 1], ..event(1) },
        Event { user: "u".repeat(TEXT_BYTES_MAX + 1), ..event(1) },
        Event { id: "i".repeat(TEXT_BYTES_MAX + 1), ..event(1) },
        Event { datatype: "d\n".to_owned(), ..event(1) },
        Event { groups: vec![String::new(); GROUPS_MAX + 1], ..event(1) },
    ] {
        let refused = Verified::<Event>::open(signed(1, &over).text(), now());
        assert!(matches!(refused, Err(SignedError::Invalid { .. })));
    }
}

#[test]
fn an_event_counts_once_however_it_is_laid_out() {
    let mut replay = Replay::default();
    let written = signed(1, &event(1));
    assert_eq!(replay.take(&written, now()), Ok(()));
    assert_eq!(replay.take(&written, after(300)), Err(ReplayError::Repeated));
    let spread = Verified::<Event>::open(&written.text().replace("\",\"", "\" , \""), now()).unwrap();
    assert_eq!(replay.take(&spread, now()), Err(ReplayError::Repeated));
    assert_eq!(replay.take(&signed(2, &event(2)), now()), Ok(()), "another's is another");
    assert_eq!(replay.take(&signed(1, &Event { ts: after(1), ..event(1) }), now()), Ok(()), "signed anew is anew");
    assert_eq!(replay.len(), 3);
    assert_eq!(replay.take(&signed(3, &event(3)), after(601)), Ok(()));
    assert_eq!(replay.len(), 1, "what is too old to be taken again is forgotten");
}

#[test]
fn nobody_fills_the_memory_for_all() {
    let mut replay = Replay::default();
    let mut event = event(1);
    for n in 0..SEEN_PER_PEER_MAX {
        event.user = n.to_string();
        assert_eq!(replay.take(&signed(1, &event), now()), Ok(()));
    }
    event.user = "one more".to_owned();
    assert_eq!(replay.take(&signed(1, &event), now()), Err(ReplayError::Full));
    assert_eq!(replay.take(&signed(2, &Event { from: keys(2).peer_id(), ..event.clone() }), now()), Ok(()));
    assert_eq!(replay.take(&signed(1, &event), after(601)), Ok(()), "room comes back with time");
}

#[test]
fn each_verb_has_its_name_and_protocol() {
    for verb in Verb::ALL {
        assert_eq!(Verb::named(verb.name()), Some(verb));
        assert_eq!(serde_json::to_string(&verb).unwrap(), format!("\"{}\"", verb.name()));
        assert!(verb.protocol().id().contains(verb.name()));
    }
}
