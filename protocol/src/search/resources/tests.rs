#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::Mutex};

use super::*;
use crate::{
    catalogue::{Access, Kind, Resource},
    event::EVENT_BYTES_MAX,
    identity::Keys,
    search::tests::{keys, now, peer, rng},
    signed::Verified,
};

/// A resource of the peer with this number, signed once each.
pub(super) fn resource(n: u16, id: u16, version: u64) -> Verified<Resource> {
    static SIGNED: Mutex<BTreeMap<(u16, u16, u64), Verified<Resource>>> = Mutex::new(BTreeMap::new());
    let make = || Verified::sign(&described(n, id, version, ""), &keys(n));
    SIGNED.lock().unwrap().entry((n, id, version)).or_insert_with(make).clone()
}

fn described(n: u16, id: u16, version: u64, description: &str) -> Resource {
    Resource {
        id: format!("gpu-{id}"),
        kind: Kind::Compute,
        name: "GPU".to_owned(),
        type_: String::new(),
        short_description: String::new(),
        description: description.to_owned(),
        owners: Vec::new(),
        creator: peer(n),
        access: Access::Public,
        instances: Vec::new(),
        version,
        updated_at: now(0).wall,
    }
}

fn texts(count: usize, bytes: usize) -> Vec<Arc<str>> {
    let text: Arc<str> = format!("\"{}\"", "x".repeat(bytes - 2)).into();
    vec![text; count]
}

fn shown(answers: &[ResourceAnswer]) -> usize {
    answers.iter().map(|answer| answer.resources.len()).sum()
}

#[test]
fn a_question_tells_the_groups_and_never_the_user() {
    let query = ResourceQuery::new(" GPU ", Some(Kind::Compute)).unwrap();
    let id = QueryId::random(&mut rng());
    let groups = ["ops", "*", "", "dev"].map(str::to_owned).to_vec();
    let event = question(peer(1), id, &query, groups, Traceparent::Absent, now(0).wall);
    assert_eq!((event.user.as_str(), &event.groups[..]), ("", &["ops".to_owned(), "dev".to_owned()][..]));
    let payload = str::from_utf8(&event.payload).unwrap();
    assert_eq!(payload, format!(r#"{{"query_id":"{id}","query":{{"text":"gpu","kind":"compute"}}}}"#));
    let Word::Question(read) = Word::read(&event.payload).unwrap() else { panic!("taken for an answer") };
    assert_eq!((read.query_id, read.query), (id.to_string(), query));
}

#[test]
fn the_largest_honest_question_is_within_its_limit() {
    let query =
        ResourceQuery::new(&"\u{1f3d4}".repeat(crate::catalogue::QUERY_CHARS_MAX), Some(Kind::Workflow)).unwrap();
    let groups = (0..64).map(|n| format!("{n:02}{}", "\"".repeat(62))).collect();
    let event = question(peer(1), QueryId::random(&mut rng()), &query, groups, Traceparent::Absent, now(0).wall);
    assert_eq!(event.groups.len(), 64);
    assert!(Verified::sign(&event, &keys(1)).text().len() <= QUESTION_BYTES_MAX);
}

#[test]
fn an_answer_keeps_the_texts_as_they_were_signed() {
    let signed = resource(1, 7, 1);
    let answers = split(QueryId::random(&mut rng()), &[Arc::clone(signed.text())], false);
    let event = answer(peer(1), &answers[0], now(0).wall);
    let Word::Answer(read) = Word::read(&event.payload).unwrap() else { panic!("taken for a question") };
    assert_eq!((read.resources[0].get(), read.last, read.truncated), (&**signed.text(), true, false));
}

#[test]
fn what_is_neither_question_nor_answer_is_not_read() {
    for payload in ["", "7", "{}", r#"{"query":{"text":"x"}}"#, r#"{"query_id":7,"resources":[]}"#] {
        assert!(Word::read(payload.as_bytes()).is_err(), "{payload}");
    }
    let bare = Word::read(br#"{"query_id":"x"}"#);
    assert!(matches!(bare, Ok(Word::Answer(answer)) if !answer.last && answer.resources.is_empty()));
}

#[test]
fn without_a_resource_there_is_one_last_answer() {
    let answers = split(QueryId::random(&mut rng()), &[], true);
    assert_eq!((answers.len(), answers[0].last, answers[0].truncated), (1, true, true));
}

#[test]
fn an_answer_is_filled_to_its_limit_and_what_is_more_goes_into_the_next() {
    let id = QueryId::random(&mut rng());
    // Two of them, each with its comma, are a payload less its envelope to the byte.
    let half = (PAYLOAD_BYTES_MAX - ENVELOPE_BYTES) / 2 - 1;
    let cut = |bytes: usize| {
        // Built of four quarters, for none is as large as two resources.
        split(id, &texts(4, bytes), false).iter().map(|answer| answer.resources.len()).collect::<Vec<_>>()
    };
    assert_eq!(cut(half / 2), [4]);
    assert_eq!(cut(half / 2 + 1), [3, 1]);
    for answer in split(id, &texts(15, RESOURCE_BYTES_MAX), false) {
        let event = super::answer(peer(1), &answer, now(0).wall);
        assert!(event.payload.len() <= PAYLOAD_BYTES_MAX);
        assert!(Verified::sign(&event, &keys(1)).text().len() <= EVENT_BYTES_MAX);
    }
}

#[test]
fn two_hundred_resources_are_shown_and_one_more_is_left_out() {
    let id = QueryId::random(&mut rng());
    let (at, past) = (split(id, &texts(SHOWN_MAX, 10), false), split(id, &texts(SHOWN_MAX + 1, 10), false));
    assert_eq!((shown(&at), at[0].truncated, shown(&past), past[0].truncated), (SHOWN_MAX, false, SHOWN_MAX, true));
}

#[test]
fn four_mebibytes_are_shown_and_one_more_byte_is_left_out() {
    let id = QueryId::random(&mut rng());
    let each = SHOWN_BYTES_MAX / 32 - 1;
    let at = split(id, &texts(32, each), false);
    assert_eq!((shown(&at), at.last().unwrap().truncated), (32, false));
    let past = split(id, &[texts(31, each), texts(1, each + 1)].concat(), false);
    assert_eq!((shown(&past), past.last().unwrap().truncated), (31, true));
    assert!(past.iter().rev().skip(1).all(|answer| !answer.last));
}

#[test]
fn a_text_that_no_reader_would_take_in_an_answer_is_left_out_and_told() {
    let id = QueryId::random(&mut rng());
    let nested = |levels: usize| Arc::<str>::from(format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
    let answers = split(id, &[nested(14), nested(15), "7".into()], false);
    assert_eq!((shown(&answers), answers[0].truncated), (2, true));
    assert!(Word::read(&answer(peer(1), &answers[0], now(0).wall).payload).is_ok());
}

#[test]
fn each_scope_is_found_by_its_name_and_written_with_it() {
    for scope in Scope::ALL {
        assert_eq!(Scope::named(scope.name()), Some(scope));
        assert_eq!(serde_json::to_string(&scope).unwrap(), format!("\"{}\"", scope.name()));
    }
    assert_eq!(Scope::named("some"), None);
}

#[test]
fn the_examples_on_the_page_of_the_wire_are_what_this_build_signs() {
    let page = include_str!("../../../../docs/protocol.md");
    let time = "2026-01-02T03:04:05Z".parse().unwrap();
    let (paris, other) = (Keys::from_seed([1; 32]), Keys::from_seed([3; 32]));
    let id = "5f1c0d3a9b7e4c2288aa10f3e6d4b7c9".parse().unwrap();
    let query = ResourceQuery::new("gpu", Some(Kind::Compute)).unwrap();
    let asked = question(paris.peer_id(), id, &query, vec!["ops".to_owned()], Traceparent::Absent, time);
    let shown = Resource {
        id: "gpu-1".to_owned(),
        name: "GPU cluster".to_owned(),
        creator: other.peer_id(),
        version: 1_767_323_045_000,
        updated_at: time,
        ..described(1, 1, 1, "")
    };
    let shown = Verified::sign(&shown, &other);
    let answered = answer(other.peer_id(), &split(id, &[Arc::clone(shown.text())], false)[0], time);
    for payload in [&asked.payload, &answered.payload] {
        let payload = str::from_utf8(payload).unwrap().replace(&**shown.text(), "{…}");
        assert!(page.contains(&payload), "the page should say {payload}");
    }
    for text in [shown.text(), Verified::sign(&asked, &paris).text(), Verified::sign(&answered, &other).text()] {
        assert!(page.contains(&**text), "the page should say {text}");
    }
}
