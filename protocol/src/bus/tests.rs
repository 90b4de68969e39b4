#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::{identity::Keys, json::JsonError, signed::SignedError};

fn keys(n: u8) -> Keys {
    Keys::from_seed([n; 32])
}

fn peer(n: u8) -> PeerId {
    keys(n).peer_id()
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn what(verb: VerbIn, text: &str) -> Result<What, OrderError> {
    read(verb, text.as_bytes()).map(|order| order.what)
}

/// A propagation event in the predecessor's form: base64 within base64.
fn propagation(datatype: &str, action: &str, payload: &str) -> String {
    let inner = BASE64.encode(payload);
    let outer = format!(r#"{{"datatype":"{datatype}","action":"{action}","payload":"{inner}"}}"#);
    format!(r#"{{"from_app":"oc-test","user":"ann","groups":null,"payload":"{}"}}"#, BASE64.encode(outer))
}

fn propagated(datatype: &str, action: &str, payload: &str) -> Result<What, OrderError> {
    what(VerbIn::PropagationEvent, &propagation(datatype, action, payload))
}

#[test]
fn g34_one_envelope_is_read_however_it_is_spelled() {
    let resource = r#"{"id":"gpu-1","name":"GPU"}"#;
    let quoted = serde_json::to_string(resource).unwrap();
    let expected = Order {
        app: "shop".to_owned(),
        user: "ann".to_owned(),
        groups: vec!["ops".to_owned()],
        what: What::Put { kind: Some(Kind::Compute), text: resource.to_owned(), spread: false },
    };
    let envelopes = [
        format!(r#"{{"from_app":"shop","datatype":"compute","user":"ann","groups":["ops"],"payload":{resource}}}"#),
        format!(
            r#"{{"FromApp":"shop","DataType":"compute_resource","User":"ann","Groups":["ops"],"Payload":{quoted}}}"#
        ),
        format!(
            r#"{{"fromapp":"shop","data_type":"COMPUTE","USER":"ann","GROUPS":["ops"],"method":3,"payload":"{}"}}"#,
            BASE64.encode(resource)
        ),
        format!(
            "{{\n \"FROM_APP\" : \"shop\",\r\n\"datatype\":\"Compute\",\"user\":\"ann\",\"groups\":[\"ops\"],\n\"payload\":{resource}\n}}\n"
        ),
    ];
    for envelope in envelopes {
        assert_eq!(read(VerbIn::CreateResource, envelope.as_bytes()), Ok(expected.clone()), "{envelope}");
    }
    let untyped = format!(r#"{{"from_app":"shop","user":"ann","groups":["ops"],"payload":{resource}}}"#);
    let what = What::Put { kind: None, text: resource.to_owned(), spread: false };
    assert_eq!(read(VerbIn::CreateResource, untyped.as_bytes()), Ok(Order { what, ..expected }));
}

#[test]
fn a_field_under_two_spellings_is_refused() {
    let got = what(VerbIn::CreateResource, r#"{"from_app":"a","FromApp":"b","payload":{"id":"x"}}"#);
    assert_eq!(got, Err(OrderError::Twice { field: "fromapp".to_owned() }));
    let got = what(VerbIn::RemoveResource, r#"{"payload":{"id":"x","ID":"y"}}"#);
    assert_eq!(got, Err(OrderError::Twice { field: "id".to_owned() }));
}

#[test]
fn resources_and_peers_are_put_and_removed() {
    let two = peer(2);
    let put = what(VerbIn::CreateResource, r#"{"payload":{"id":"x","kind":"data"}}"#);
    assert_eq!(put, Ok(What::Put { kind: None, text: r#"{"id":"x","kind":"data"}"#.to_owned(), spread: false }));
    let removed = what(VerbIn::RemoveResource, r#"{"datatype":"storage","payload":{"id":"x","version":7}}"#);
    assert_eq!(
        removed,
        Ok(What::Remove { kind: Some(Kind::Storage), id: "x".to_owned(), version: Some(7), spread: false })
    );
    let text = format!(r#"{{"peer_id":"{two}","relation":"Partner","name":"Two"}}"#);
    let put = what(VerbIn::CreateResource, &format!(r#"{{"datatype":"peer","payload":{text}}}"#));
    let expected =
        What::PutPeer { peer: two, relation: Some(Relation::Partner), name: "Two".to_owned(), text: text.clone() };
    assert_eq!(put, Ok(expected));
    let removed = what(VerbIn::RemoveResource, &format!(r#"{{"datatype":"peer","payload":{{"id":"{two}"}}}}"#));
    assert_eq!(removed, Ok(What::RemovePeer { peer: two }));
}

#[test]
fn a_relation_is_a_name_and_one_that_nobody_set_changes_nothing() {
    let read = |relation: &str| {
        let text = format!(r#"{{"datatype":"peer","payload":{{"id":"{}","relation":{relation}}}}}"#, peer(2));
        match what(VerbIn::CreateResource, &text) {
            Ok(What::PutPeer { relation, .. }) => Ok(relation),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    };
    for relation in Relation::ALL {
        assert_eq!(read(&format!("\"{}\"", relation.name())), Ok(Some(relation)));
    }
    assert_eq!(read("null"), Ok(None));
    assert_eq!(read("0"), Ok(None));
    assert!(read("2").unwrap_err().contains("got 2 in \"relation\""));
    assert!(read("\"friend\"").is_err());
}

#[test]
fn each_action_is_the_order_that_the_contract_names() {
    let (two, three) = (peer(2), peer(3));
    let text = r#"{"id":"x","version":3}"#.to_owned();
    let put = What::Put { kind: Some(Kind::Data), text: text.clone(), spread: true };
    assert_eq!(propagated("data_resource", "create", &text), Ok(put.clone()));
    assert_eq!(propagated("data", "UPDATE", &text), Ok(put));
    let remove = What::Remove { kind: Some(Kind::Data), id: "x".to_owned(), version: Some(3), spread: true };
    assert_eq!(propagated("data", "Delete", &text), Ok(remove));

    for (datatype, field) in [("booking", "dest_peer_id"), ("purchase_resource", "destination"), ("peer", "peer_id")] {
        let text = format!(r#"{{"{field}":"{two}","n":1}}"#);
        for (action, verb) in [("create", Verb::Create), ("update", Verb::Update), ("delete", Verb::Delete)] {
            let payload = text.clone().into_bytes();
            let hand = What::Hand { verb, datatype: datatype.to_owned(), to: two, payload };
            assert_eq!(propagated(datatype, action, &text), Ok(hand));
        }
    }
    for (action, verb) in [("admiralty_config", Verb::Admiralty), ("minio_config", Verb::Minio)] {
        let text = format!(r#"{{"peer_id":"{two}"}}"#);
        let datatype = "resource".to_owned();
        let hand = What::Hand { verb, datatype, to: two, payload: text.clone().into_bytes() };
        assert_eq!(propagated("", action, &text), Ok(hand));
    }

    let text = format!(r#"{{"peer_ids":["{two}","{three}","{two}"]}}"#);
    let datatype = "workflow_execution".to_owned();
    let considers = What::Considers { datatype, to: vec![two, three], payload: text.clone().into_bytes() };
    assert_eq!(propagated("workflow_execution", "considers", &text), Ok(considers));
    let text = format!(r#"{{"peer_ids":[],"origin_id":"{three}"}}"#);
    let considers =
        What::Considers { datatype: "booking".to_owned(), to: vec![three], payload: text.clone().into_bytes() };
    assert_eq!(propagated("booking", "considers", &text), Ok(considers));

    let text = format!(r#"{{"peer_id":"{two}"}}"#);
    let planner = What::Planner { to: Some(two), payload: text.clone().into_bytes() };
    assert_eq!(propagated("workflow", "planner", &text), Ok(planner));
    assert_eq!(propagated("workflow", "planner", "{}"), Ok(What::Planner { to: None, payload: b"{}".to_vec() }));
    assert_eq!(propagated("workflow", "close_planner", &text), Ok(What::ClosePlanner { to: Some(two) }));
    assert_eq!(propagated("workflow", "close_planner", ""), Ok(What::ClosePlanner { to: None }));

    let verify = What::Verify { creator: two, id: "x".to_owned(), version: Some(9), signature: "c2ln".to_owned() };
    let text = format!(r#"{{"creator":"{two}","id":"x","version":9,"signature":"c2ln"}}"#);
    assert_eq!(propagated("compute", "verify", &text), Ok(verify));
}

#[test]
fn searches_say_among_whom_and_belong_to_a_user() {
    assert_eq!(
        propagated("peer", "search", r#"{"search":"paris"}"#),
        Ok(What::SearchPeers { text: "paris".to_owned() })
    );
    let query = ResourceQuery::new("gpu", Some(Kind::Compute)).unwrap();
    for scope in Scope::ALL {
        let text = format!(r#"{{"search":"GPU","type":"{}"}}"#, scope.name());
        assert_eq!(propagated("compute", "search", &text), Ok(What::SearchResources { scope, query: query.clone() }));
    }
    let query = ResourceQuery::new("", None).unwrap();
    assert_eq!(propagated("resource", "search", "{}"), Ok(What::SearchResources { scope: Scope::All, query }));
    assert_eq!(propagated("peer", "close_search", "{}"), Ok(What::CloseSearch { resources: false }));
    assert_eq!(propagated("data", "close_search", "{}"), Ok(What::CloseSearch { resources: true }));
    let inner = r#"{"datatype":"peer","action":"search","payload":{}}"#;
    let with_attr = format!(r#"{{"user":"ann","search_attr":"lyon","payload":{inner}}}"#);
    assert_eq!(what(VerbIn::PropagationEvent, &with_attr), Ok(What::SearchPeers { text: "lyon".to_owned() }));
    for action in ["search", "close_search"] {
        let nobodys =
            format!(r#"{{"user":"","payload":{{"datatype":"peer","action":"{action}","payload":{{"search":"x"}}}}}}"#);
        assert!(matches!(what(VerbIn::PropagationEvent, &nobodys), Err(OrderError::Missing { field: "user", .. })));
    }
}

#[test]
fn what_is_half_understood_is_refused_with_its_field() {
    let cases: [(VerbIn, String, &str); 15] = [
        (VerbIn::CreateResource, "[]".to_owned(), "the envelope"),
        (VerbIn::CreateResource, r#"{"a":1,"a":2}"#.to_owned(), "the envelope"),
        (VerbIn::CreateResource, r#"{"datatype":3,"payload":{"id":"x"}}"#.to_owned(), "got 3 in \"datatype\""),
        (VerbIn::CreateResource, r#"{"datatype":"booking","payload":{}}"#.to_owned(), "got booking in \"datatype\""),
        (VerbIn::CreateResource, r#"{"datatype":"peer","payload":{}}"#.to_owned(), "got no \"peer_id\""),
        (VerbIn::CreateResource, r#"{"datatype":"peer","payload":{"peer_id":"me"}}"#.to_owned(), "\"peer_id\""),
        (VerbIn::CreateResource, r#"{"payload":"%%%"}"#.to_owned(), "\"payload\""),
        (VerbIn::CreateResource, r#"{"payload":[1,2]}"#.to_owned(), "\"payload\""),
        (VerbIn::CreateResource, r#"{"payload":"eyJh"}"#.to_owned(), "the payload"),
        (VerbIn::RemoveResource, r#"{"payload":{}}"#.to_owned(), "got no \"id\""),
        (VerbIn::RemoveResource, r#"{"payload":{"id":"../x"}}"#.to_owned(), "\"id\""),
        (VerbIn::RemoveResource, r#"{"payload":{"id":"x","version":0}}"#.to_owned(), "\"version\""),
        (VerbIn::PropagationEvent, propagation("data", "explode", "{}"), "got explode in \"action\""),
        (VerbIn::PropagationEvent, propagation("booking", "create", "{}"), "got no \"peer_id\""),
        (VerbIn::PropagationEvent, r#"{"payload":{}}"#.to_owned(), "got no \"action\""),
    ];
    for (verb, text, expected) in cases {
        let error = what(verb, &text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn an_envelope_a_payload_and_a_text_are_bounded() {
    let envelope = |filling: usize| format!(r#"{{"payload":{{"id":"x"}},"filling":"{}"}}"#, "f".repeat(filling));
    let rest = envelope(0).len();
    let at = envelope(ENVELOPE_BYTES_MAX - rest);
    assert_eq!(at.len(), ENVELOPE_BYTES_MAX);
    assert!(what(VerbIn::CreateResource, &at).is_ok());
    let past = envelope(ENVELOPE_BYTES_MAX - rest + 1);
    let too_long = JsonError::TooLong { got: ENVELOPE_BYTES_MAX + 1, max: ENVELOPE_BYTES_MAX };
    assert_eq!(what(VerbIn::CreateResource, &past), Err(OrderError::Malformed(too_long)));

    let payload = |filling: usize| format!(r#"{{"payload":{{"id":"{}"}}}}"#, "f".repeat(filling));
    let rest = r#"{"id":""}"#.len();
    assert!(what(VerbIn::CreateResource, &payload(PAYLOAD_BYTES_MAX - rest)).is_ok());
    let got = what(VerbIn::CreateResource, &payload(PAYLOAD_BYTES_MAX - rest + 1));
    assert!(matches!(got, Err(OrderError::Payload(JsonError::TooLong { .. }))), "{got:?}");

    let user = |chars: usize| format!(r#"{{"user":"{}","payload":{{"id":"x"}}}}"#, "u".repeat(chars));
    assert!(what(VerbIn::CreateResource, &user(TEXT_BYTES_MAX)).is_ok());
    assert!(what(VerbIn::CreateResource, &user(TEXT_BYTES_MAX + 1)).is_err());

    let groups = |count: usize| {
        let groups = vec!["g"; count];
        format!(r#"{{"groups":{},"payload":{{"id":"x"}}}}"#, serde_json::to_string(&groups).unwrap())
    };
    assert!(what(VerbIn::CreateResource, &groups(crate::catalogue::GROUPS_MAX)).is_ok());
    assert!(what(VerbIn::CreateResource, &groups(crate::catalogue::GROUPS_MAX + 1)).is_err());

    let considers = |count: usize| {
        let peers: Vec<String> = (0..count).map(|n| peer(u8::try_from(n).unwrap()).to_string()).collect();
        propagated("booking", "considers", &format!(r#"{{"peer_ids":{}}}"#, serde_json::to_string(&peers).unwrap()))
    };
    assert!(considers(PEERS_MAX).is_ok());
    assert!(considers(PEERS_MAX + 1).is_err());

    // The envelope, the payload within it, and so on: depth counts from each text's own beginning.
    let deep = |levels: usize| format!(r#"{{"payload":{{"a":{}1{}}}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(what(VerbIn::CreateResource, &deep(crate::json::DEPTH_MAX - 2)).is_ok());
    assert!(what(VerbIn::CreateResource, &deep(crate::json::DEPTH_MAX - 1)).is_err());
}

fn announcement() -> Announcement {
    Announcement {
        id: 1,
        verb: VerbOut::CreateResource,
        user: "ann".to_owned(),
        groups: vec!["ops".to_owned()],
        datatype: "compute".to_owned(),
        message_id: "m-1".to_owned(),
        payload: br#"{"id":"gpu-1"}"#.to_vec(),
    }
}

#[test]
fn our_own_words_are_known_by_their_signature() {
    let bytes = announcement().write(&keys(1), now()).unwrap();
    assert_eq!(author(&bytes, &peer(1), now()), Ok(Author::Ourselves));
    assert_eq!(author(&bytes, &peer(2), now()), Ok(Author::Member(peer(1))));
    let application = br#"{"from_app":"muster","payload":{"id":"gpu-1"}}"#;
    assert_eq!(author(application, &peer(1), now()), Ok(Author::Application));
    assert_eq!(author(b"\xff origin", &peer(1), now()), Ok(Author::Application));
}

#[test]
fn g38_a_forged_origin_is_refused() {
    let bytes = announcement().write(&keys(1), now()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let changed = text.replace("\"ann\"", "\"eve\"");
    assert_eq!(author(changed.as_bytes(), &peer(1), now()), Err(SignedError::BadSignature));
    let unsigned = format!(r#"{{"origin":"{}","payload":{{"id":"x"}}}}"#, peer(1));
    assert!(author(unsigned.as_bytes(), &peer(1), now()).is_err());
    let anothers = text.replace(&peer(1).to_string(), &peer(2).to_string());
    assert_eq!(author(anothers.as_bytes(), &peer(1), now()), Err(SignedError::BadSignature));
}

#[test]
fn an_announcement_has_the_predecessors_fields_and_is_read_back_as_one() {
    let bytes = announcement().write(&keys(1), now()).unwrap();
    let fields: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    for field in ["from_app", "datatype", "method", "user", "groups", "search_attr", "payload"] {
        assert!(fields.get(field).is_some(), "{field}");
    }
    let order = read(VerbIn::CreateResource, &bytes).unwrap();
    assert_eq!((order.user.as_str(), order.groups.len()), ("ann", 1));
    let put = What::Put { kind: Some(Kind::Compute), text: r#"{"id":"gpu-1"}"#.to_owned(), spread: false };
    assert_eq!(order.what, put);
}

#[test]
fn what_the_bus_cannot_carry_is_not_written() {
    let filled = |bytes: usize| Announcement { payload: vec![b' '; bytes], ..announcement() };
    assert!(filled(PAYLOAD_BYTES_MAX).write(&keys(1), now()).is_ok());
    let got = filled(PAYLOAD_BYTES_MAX + 1).write(&keys(1), now());
    assert_eq!(got, Err(AnnouncementError::TooLong { got: PAYLOAD_BYTES_MAX + 1 }));
    let user = |bytes: usize| Announcement { user: "u".repeat(bytes), ..announcement() };
    assert!(user(TEXT_BYTES_MAX).write(&keys(1), now()).is_ok());
    assert!(user(TEXT_BYTES_MAX + 1).write(&keys(1), now()).is_err());
}

fn on() -> Settings {
    Settings { url: "nats://127.0.0.1:4222".to_owned(), ..Settings::default() }
}

fn overridden(verb: &str, subject: &str) -> Settings {
    Settings { subjects: [(verb.to_owned(), subject.to_owned())].into(), ..on() }
}

#[test]
fn a_bus_is_off_until_it_has_an_address() {
    assert!(!Settings::default().is_on());
    assert_eq!(Settings { prefix: "*".to_owned(), ..Settings::default() }.check(), Ok(()));
    assert_eq!(on().check(), Ok(()));
    assert_eq!(on().subject_out(VerbOut::Alert), "opencloud.alert");
    assert_eq!(on().stream_subjects().len(), 12);
    assert_eq!(on().taken().len(), 4);
}

#[test]
fn no_subject_takes_more_than_its_own_messages() {
    for bad in ["", "*", "a.>", "a b", "a..b", ".a", "a.", "a\n", "$SYS.a", "_INBOX.a", "ä"] {
        let got = overridden("alert", bad).check();
        assert!(matches!(got, Err(SettingsError::Subject { .. })), "{bad}: {got:?}");
        assert!(Settings { prefix: bad.to_owned(), ..on() }.check().is_err(), "{bad}");
    }
    assert_eq!(overridden("alert", &"a".repeat(SUBJECT_BYTES_MAX)).check(), Ok(()));
    assert!(overridden("alert", &"a".repeat(SUBJECT_BYTES_MAX + 1)).check().is_err());
    assert!(matches!(overridden("allert", "x").check(), Err(SettingsError::Verb { .. })));
}

#[test]
fn no_two_verbs_share_a_subject() {
    let shared = overridden("search_event", "opencloud.propagation_event").check();
    assert!(matches!(shared, Err(SettingsError::Shared { .. })), "{shared:?}");
    let shared = overridden("propagation_event", "opencloud.propalgation_event").check();
    assert!(matches!(shared, Err(SettingsError::Shared { .. })), "{shared:?}");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    for bad in ["http://x", "nats://", "nats://a b", "localhost", ",", "nats://a,"] {
        let got = Settings { url: bad.to_owned(), ..on() }.check();
        assert!(matches!(got, Err(SettingsError::Url { .. })), "{bad}: {got:?}");
    }
    let urls = |count: usize| Settings { url: vec!["nats://a"; count].join(","), ..on() }.check();
    assert_eq!(urls(URLS_MAX), Ok(()));
    assert!(urls(URLS_MAX + 1).is_err());
    let both = Settings { user: "ann".to_owned(), creds_file: PathBuf::from("x.creds"), ..on() };
    assert_eq!(both.check(), Err(SettingsError::Credentials { got: 2 }));
    let window = |secs: u64| Settings { duplicate_window: Duration::from_secs(secs), ..on() }.check();
    assert_eq!(window(600), Ok(()));
    assert!(window(599).is_err());
    let name = |chars: usize| Settings { durable: "d".repeat(chars), ..on() }.check();
    assert_eq!(name(32), Ok(()));
    assert!(name(33).is_err());
    assert!(Settings { stream: "a.b".to_owned(), ..on() }.check().is_err());
}

#[test]
fn secrets_are_not_shown() {
    let settings = Settings {
        url: "nats://ann:geheim@host:4222, tls://other".to_owned(),
        password: Password::from("geheim"),
        ..on()
    };
    assert_eq!(settings.shown_url(), "nats://host:4222,tls://other");
    assert_eq!(format!("{:?}", settings.password), "hidden");
    let bad = Settings { url: "nats://ann:geheim@ho st".to_owned(), ..on() }.check().unwrap_err();
    assert!(!bad.to_string().contains("geheim"));
}

fn anything() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        any::<i32>().prop_map(|number| number.to_string()),
        "[a-z_ .]{0,12}".prop_map(|text| format!("{text:?}")),
        "(peer|compute|create|search|planner|considers|all)".prop_map(|text| format!("{text:?}")),
        Just(format!("\"{}\"", peer(2))),
    ];
    scalar.prop_recursive(4, 32, 6, |inner| {
        let name = "(payload|Payload|datatype|action|user|groups|peer_id|peer_ids|id|type|search|relation|version)";
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(","))),
            proptest::collection::btree_map(name, inner, 0..6).prop_map(|fields| {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_that_is_sent_breaks_the_reader(text in anything(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for verb in [VerbIn::CreateResource, VerbIn::RemoveResource, VerbIn::PropagationEvent] {
            drop(read(verb, text.as_bytes()));
            drop(read(verb, &bytes));
        }
        drop(author(text.as_bytes(), &peer(1), now()));
        drop(author(&bytes, &peer(1), now()));
    }

    #[test]
    fn what_is_announced_is_read_back(
        user in "[a-zA-Zü ]{0,20}",
        groups in proptest::collection::vec("[a-z*]{1,8}", 0..8),
        kind in proptest::sample::select(Kind::ALL.to_vec()),
        id in "[a-z0-9-]{1,20}",
        message_id in "[a-z0-9:]{1,40}",
    ) {
        let payload = format!(r#"{{"id":"{id}","note":"ö\n\" \\"}}"#);
        let announcement = Announcement {
            id: 1,
            verb: VerbOut::CreateResource,
            user: user.clone(),
            groups: groups.clone(),
            datatype: kind.name().to_owned(),
            message_id,
            payload: payload.clone().into_bytes(),
        };
        let bytes = announcement.write(&keys(1), now()).unwrap();
        prop_assert_eq!(author(&bytes, &peer(1), now()), Ok(Author::Ourselves));
        let order = read(VerbIn::CreateResource, &bytes).unwrap();
        prop_assert_eq!(order.user, user);
        prop_assert_eq!(order.groups, groups);
        prop_assert_eq!(order.what, What::Put { kind: Some(kind), text: payload, spread: false });
    }

    #[test]
    fn a_changed_byte_makes_no_other_message_of_ours(at in any::<prop::sample::Index>(), flip in 1_u8..=255) {
        let mut bytes = announcement().write(&keys(1), now()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let original = announcement().write(&keys(1), now()).unwrap();
        if author(&bytes, &peer(1), now()) == Ok(Author::Ourselves) {
            // Only the layout may differ, such as another white space.
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            let expected: serde_json::Value = serde_json::from_slice(&original).unwrap();
            prop_assert_eq!(value, expected);
        }
    }
}
