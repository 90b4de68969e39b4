//! Those who lie about a catalogue: a partner that sends what is not its own, and a client of the bus that publishes
//! whatever it likes. Each is refused and counted, and nothing of it has an effect.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use actors::swarm::streams::Patience;
use async_nats::jetstream;
use libp2p::Multiaddr;
use protocol::{
    Timestamp,
    bus::{Announcement, VerbOut},
    catalogue::{Draft, RESOURCE_BYTES_MAX},
    event::{Event, EventAck, Verb},
    identity::Keys,
    signed::Verified,
    wire::{Protocol, RefusalCode},
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    bus::{envelope, say},
    harness::{Federation, Member, Nats, PATIENCE, Spec, muster, until_true},
    thin::{Error, Link, Thin},
};

/// Ten times what an event or an envelope may have.
const TEN_MEBIBYTES: usize = 10 * 1024 * 1024;

#[track_caller]
fn by(member: &Member, args: &[&str]) {
    muster(&[&["--config", member.config().to_str().unwrap()], args].concat()).ok();
}

#[track_caller]
fn put(member: &Member, resource: &Value) {
    let file = member.dir.join("resource.json");
    std::fs::write(&file, resource.to_string()).unwrap();
    by(member, &["resource", "put", file.to_str().unwrap()]);
}

/// Everything in a catalogue: by creator and id, the name and the version.
fn held(at: &Member) -> BTreeMap<(String, String), (String, u64)> {
    let page: Value = at.get("/api/v1/resources?limit=500");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let row = |view: &Value| {
        let (key, name) = ((text(&view["creator"]), text(&view["id"])), text(&view["resource"]["name"]));
        (key, (name, view["version"].as_u64().unwrap()))
    };
    page["resources"].as_array().unwrap().iter().map(row).collect()
}

/// A resource as its creator signs it.
fn resource(creator: &Keys, id: &str, name: &str, version: u64) -> Vec<u8> {
    let draft = json!({ "id": id, "kind": "data", "name": name, "access": "public" }).to_string();
    let signed = Draft::read(&draft, None).unwrap().sign(creator, version, Timestamp::now()).unwrap();
    signed.text().as_bytes().to_vec()
}

/// News of this name, not yet signed.
fn event(from: &Keys, verb: Verb, id: &str, payload: Vec<u8>) -> Event {
    Event {
        verb,
        from: from.peer_id(),
        user: "eve".to_owned(),
        groups: Vec::new(),
        datatype: "data".to_owned(),
        id: id.to_owned(),
        ts: Timestamp::now(),
        payload,
    }
}

fn signed(event: &Event, by: &Keys) -> Box<RawValue> {
    Verified::sign(event, by).to_raw()
}

async fn send(link: &Link, on: Verb, text: &RawValue) -> Result<EventAck, Error> {
    link.ask(Protocol::Event(on), &text).await
}

#[track_caller]
fn code(answer: Result<EventAck, Error>, what: &str) -> RefusalCode {
    let error = answer.map(|_| panic!("{what} was taken")).unwrap_err();
    error.refusal().unwrap_or_else(|| panic!("{what}: no refusal: {error}")).refused
}

fn thin(member: &Member, seed: u8) -> Thin {
    Thin::start(Keys::from_seed([seed; 32]), &format!("thin-{seed}"), &member.network()).unwrap()
}

async fn connected(thin: &Thin, to: &Member) -> Link {
    let address: Multiaddr = to.address().parse().unwrap();
    thin.connect(&address).await.unwrap()
}

/// What eve sends as a partner, on which protocol, and how it is refused; `of_lyon` is what another partner signed.
fn lies(eve: &Keys, bob: &Keys, of_lyon: &RawValue) -> [(&'static str, Verb, Box<RawValue>, RefusalCode); 9] {
    use RefusalCode::{Clock, Invalid, NotYours};
    let own = || resource(eve, "farm-3", "x", 1);
    let create = |id: &str, payload: Vec<u8>| event(eve, Verb::Create, id, payload);
    let in_bobs_name =
        signed(&create("6", own()), eve).get().replace(&eve.peer_id().to_string(), &bob.peer_id().to_string());
    let changed = signed(&create("4", own()), eve).get().replace("\"eve\"", "\"ann\"");
    let text = |text: String| RawValue::from_string(text).unwrap();
    let old = Event { ts: Timestamp::now() - Duration::from_secs(600), ..create("3", own()) };
    let stolen = event(eve, Verb::Update, "9", of_lyon.get().as_bytes().to_vec());
    let removal = event(eve, Verb::Delete, "10", br#"{"id":"farm-2"}"#.to_vec());
    let of_bob = create("8", resource(bob, "farm-1", "x", 9));
    let by_bob = signed(&event(bob, Verb::Create, "5", own()), bob);
    [
        ("another's event", Verb::Create, by_bob, NotYours),
        ("an event in another's name", Verb::Create, text(in_bobs_name), Invalid),
        ("an event that was changed", Verb::Create, text(changed), Invalid),
        ("an event of another protocol", Verb::Delete, signed(&create("7", own()), eve), Invalid),
        ("a resource of a third", Verb::Create, signed(&of_bob, eve), NotYours),
        ("lyon's own resource", Verb::Update, signed(&stolen, eve), NotYours),
        ("an event without a name", Verb::Create, signed(&create("", own()), eve), Invalid),
        ("an old event", Verb::Create, signed(&old, eve), Clock),
        ("a removal that is none", Verb::Delete, signed(&removal, eve), Invalid),
    ]
}

#[test]
fn g32_a_partner_that_lies_changes_nothing_but_its_own_also_after_a_restart() {
    let mut federation = Federation::converged(1, &["paris", "lyon"]);
    let runtime = Runtime::new().unwrap();
    let (eve, bob) = (Keys::from_seed([41; 32]), Keys::from_seed([42; 32]));
    let (paris, lyon) = (federation.member("paris"), federation.member("lyon"));
    for peer in [lyon.peer_id.clone(), eve.peer_id().to_string()] {
        by(paris, &["partner", "add", &peer]);
    }
    by(lyon, &["partner", "add", &paris.peer_id]);
    put(paris, &json!({ "id": "farm-1", "kind": "data", "name": "of paris", "access": "public" }));
    put(lyon, &json!({ "id": "farm-2", "kind": "data", "name": "of lyon", "access": "public" }));
    until_true("paris holds what lyon offers", PATIENCE, || held(paris).len() == 2);
    let of_lyon: Value = paris.get(&format!("/api/v1/resources/{}/farm-2", lyon.peer_id));
    let of_lyon: Box<RawValue> = to_raw_value(&of_lyon["resource"]).unwrap();
    let refused = || paris.metric("muster_events_refused_total");

    let first = signed(&event(&eve, Verb::Create, "1", resource(&eve, "farm-1", "of eve", 1)), &eve);
    let second = signed(&event(&eve, Verb::Update, "2", resource(&eve, "farm-1", "of eve, larger", 2)), &eve);
    let expected = runtime.block_on(async {
        let thin = thin(paris, 41);
        let link = connected(&thin, paris).await;
        send(&link, Verb::Create, &first).await.unwrap();
        send(&link, Verb::Update, &second).await.unwrap();
        let (expected, before) = (held(paris), refused());
        assert_eq!(expected.len(), 3, "what is its own is taken: {expected:?}");
        assert_eq!(before, 0.0);

        let cases = lies(&eve, &bob, &of_lyon);
        let count = cases.len();
        for (what, on, text, why) in cases {
            assert_eq!(code(send(&link, on, &text).await, what), why, "{what}");
        }
        assert_eq!(refused(), count as f64, "each was counted");

        // A removal names no creator: whoever sends it removes its own, though it had none.
        let removal = json!({ "id": "farm-2", "version": (1_u64 << 53) - 1 }).to_string().into_bytes();
        drop(send(&link, Verb::Delete, &signed(&event(&eve, Verb::Delete, "11", removal), &eve)).await);

        // A stranger's, and one that is too long: read no further than its limit.
        let stranger = self::thin(paris, 42);
        let from_bob = signed(&event(&bob, Verb::Create, "12", resource(&bob, "farm-1", "x", 1)), &bob);
        let answer = send(&connected(&stranger, paris).await, Verb::Create, &from_bob).await;
        assert_eq!(code(answer, "a stranger's"), RefusalCode::UnknownPeer);
        let bad_inputs = paris.metric("muster_bad_inputs_total");
        let mut io = link.open(Protocol::Event(Verb::Create)).await.unwrap();
        let long = [b"{\"payload\":\"".to_vec(), vec![b'x'; TEN_MEBIBYTES]].concat();
        assert!(io.write_bytes(&long, true, PATIENCE).await.is_err(), "nobody reads all of it");
        until_true("what is too long is counted", PATIENCE, || paris.metric("muster_bad_inputs_total") > bad_inputs);
        assert_eq!(held(paris), expected, "nothing had an effect");

        // A replay takes effect no second time, be it of the newest or of an older one.
        for (on, text) in [(Verb::Create, &first), (Verb::Update, &second)] {
            drop(send(&link, on, text).await);
        }
        assert_eq!(held(paris), expected, "a replay changes nothing");
        expected
    });

    federation.member_mut("paris").kill();
    federation.member_mut("paris").start();
    let paris = federation.member("paris");
    paris.until_whole();
    runtime.block_on(async {
        let thin = thin(paris, 41);
        let link = connected(&thin, paris).await;
        for (on, text) in [(Verb::Create, &first), (Verb::Update, &second)] {
            drop(send(&link, on, text).await);
        }
    });
    let repeated = paris.metric("muster_changes_repeated_total") + paris.metric("muster_events_refused_total");
    assert_eq!(repeated, 2.0, "each was known");
    assert_eq!(held(paris), expected, "a replay after a restart changes nothing");
}

#[test]
fn g32_events_one_behind_the_other_are_taken_up_to_the_first_that_is_refused() {
    let federation = Federation::converged(1, &["paris"]);
    let (paris, eve) = (federation.member("paris"), Keys::from_seed([41; 32]));
    by(paris, &["partner", "add", &eve.peer_id().to_string()]);
    let create = |id: &str| signed(&event(&eve, Verb::Create, id, resource(&eve, id, "of eve", 1)), &eve);
    let gone = event(&eve, Verb::Delete, "gone", br#"{"id":"a"}"#.to_vec());
    let run = [create("a"), create("b"), signed(&gone, &eve), create("c")];
    Runtime::new().unwrap().block_on(async {
        let thin = thin(paris, 41);
        let link = connected(&thin, paris).await;
        let mut io = link.open(Protocol::Event(Verb::Create)).await.unwrap();
        for text in &run {
            io.write_text(text.get().as_bytes(), PATIENCE).await.unwrap();
        }
        let mut answers = Vec::new();
        while let Ok(Some(answer)) = io.read(Patience::within(PATIENCE), |value| value.bytes.to_vec()).await {
            answers.push(String::from_utf8(answer).unwrap());
        }
        let [first, second, third] = answers.as_slice() else { panic!("{answers:?}") };
        assert_eq!((first.as_str(), second.as_str()), (r#"{"ok":true}"#, r#"{"ok":true}"#));
        assert!(third.contains(r#""refused":"invalid""#), "{third}");
    });
    let ids: Vec<String> = held(paris).into_keys().map(|(_, id)| id).collect();
    assert_eq!(ids, ["a", "b"], "nothing behind it has an effect");
    assert_eq!(paris.metric("muster_events_refused_total"), 1.0);
}

/// What a client of the bus publishes where orders belong, and that is refused for what it is.
fn garbage(own: &Member) -> Vec<(&'static str, Vec<u8>)> {
    let data = |payload: Value| envelope("data", &payload);
    let put = |payload: Value| envelope("data", &json!({ "action": "create", "datatype": "data", "payload": payload }));
    let (creator, other) = (&own.peer_id, Keys::from_seed([42; 32]).peer_id().to_string());
    let foreign = json!({ "id": "farm-2", "kind": "data", "name": "x", "access": "public", "creator": other });
    let forged =
        json!({ "origin": creator, "sig": "AAAA", "datatype": "data", "payload": { "id": "x", "kind": "data" } });
    let deep = format!("{{\"payload\":{}1{}}}", "[".repeat(64), "]".repeat(64));
    vec![
        ("opencloud.create_resource", b"\xff\xfe\x00".to_vec()),
        ("opencloud.create_resource", Vec::new()),
        ("opencloud.create_resource", b"{\"payload\":".to_vec()),
        ("opencloud.create_resource", deep.into_bytes()),
        ("opencloud.create_resource", br#"{"user":"a","User":"b","payload":{"id":"x"}}"#.to_vec()),
        ("opencloud.create_resource", forged.to_string().into_bytes()),
        ("opencloud.create_resource", data(foreign.clone())),
        ("opencloud.create_resource", data(json!({ "id": "x".repeat(10_000), "kind": "data", "name": "x" }))),
        ("opencloud.propagation_event", put(foreign)),
        ("opencloud.propagation_event", envelope("data", &json!({ "action": "format_disk", "payload": {} }))),
        ("opencloud.propalgation_event", b"null".to_vec()),
        ("opencloud.remove_resource", data(json!({ "version": 7 }))),
    ]
}

/// What another member on the same bus tells applications.
fn announced() -> Vec<u8> {
    let announcement = Announcement {
        id: 1,
        verb: VerbOut::CreateResource,
        user: "eve".to_owned(),
        groups: Vec::new(),
        datatype: "data".to_owned(),
        message_id: "m-1".to_owned(),
        payload: br#"{"id":"farm-9","kind":"data","name":"x","access":"public"}"#.to_vec(),
    };
    announcement.write(&Keys::from_seed([42; 32]), Timestamp::now()).unwrap()
}

/// Publishes all of that at a member of one organisation whose partner offers something, and more that nobody may hear.
fn a_hostile_client_has_no_effect(test: &str, has_streams: bool) {
    let Some(bus) = Nats::configured(test, has_streams, "max_payload: 12MB") else { return };
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1")).start();
    let seed = federation.member("indexer-1").address();
    let spec = Spec::node("paris").seed(&seed).set("bus.url", &format!("{:?}", bus.url()));
    federation.add(spec.set("bus.again_after", "\"200ms\"")).start();
    federation.add(Spec::node("lyon").seed(&seed)).start();
    federation.until_converged();
    let (paris, lyon) = (federation.member("paris"), federation.member("lyon"));
    for (at, to) in [(paris, lyon), (lyon, paris)] {
        by(at, &["partner", "add", &to.peer_id]);
    }
    put(paris, &json!({ "id": "farm-1", "kind": "data", "name": "of paris", "access": "public" }));
    put(lyon, &json!({ "id": "farm-2", "kind": "data", "name": "of lyon", "access": "public" }));
    until_true("both hold both", PATIENCE, || held(paris).len() == 2 && held(lyon).len() == 2);
    let expected = held(paris);
    let mode = if has_streams { "jetstream" } else { "core" };
    let view = || paris.try_get::<Value>("/api/v1/bus").unwrap_or_default();
    until_true("paris is on its bus", PATIENCE, || view()["mode"].as_str().is_some_and(|it| it.contains(mode)));

    let others = announced();
    let mut garbage = garbage(paris);
    let changed = String::from_utf8(others.clone()).unwrap().replace("\"eve\"", "\"ann\"");
    garbage.push(("opencloud.create_resource", changed.into_bytes()));
    let count = garbage.len() as u64;
    let ours = envelope("data", &json!({ "id": "farm-8", "kind": "data", "name": "x", "access": "public" }));
    let runtime = Runtime::new().unwrap();
    let client = runtime.block_on(async {
        let client = async_nats::connect(bus.url()).await.unwrap();
        // Slowly enough that core NATS, which may drop what comes too fast, has no reason to.
        for (number, (subject, message)) in garbage.into_iter().enumerate() {
            client.publish(subject, message.into()).await.unwrap();
            client.flush().await.unwrap();
            until_true(&format!("{number} are refused"), PATIENCE, || view()["refused"].as_u64() > Some(number as u64));
        }
        // Where no order is taken: subjects with wildcards, and beside ours.
        for subject in
            ["opencloud.*", "opencloud.>", "opencloud.create_resource.x", "opencloud", "opencloud.search_event"]
        {
            drop(client.publish(subject, ours.clone().into()).await);
        }
        client.publish("opencloud.create_resource", others.into()).await.unwrap();
        client.flush().await.unwrap();
        until_true("what another member signed is no order", PATIENCE, || view()["own_ignored"].as_u64() >= Some(1));
        client
    });
    assert_eq!(view()["refused"].as_u64(), Some(count), "{}", view());
    assert_eq!(paris.metric("muster_bus_forged_total"), 1.0);
    assert_eq!((view()["taken"].as_u64(), held(paris)), (Some(0), expected.clone()), "nothing had an effect");

    // Ten mebibytes: of a stream the bus itself keeps them out, without one they come and are refused.
    runtime.block_on(async {
        let long = vec![b' '; TEN_MEBIBYTES];
        if has_streams {
            let said = jetstream::new(client.clone()).publish("opencloud.create_resource", long.into()).await.unwrap();
            assert!(timeout(PATIENCE, said.into_future()).await.unwrap().is_err(), "the stream takes no such message");
        } else {
            client.publish("opencloud.create_resource", long.into()).await.unwrap();
            client.flush().await.unwrap();
            until_true("it is refused", PATIENCE, || view()["refused"].as_u64() == Some(count + 1));
        }
        // An honest order is carried out all the same.
        if has_streams {
            say(&bus.url(), "opencloud.create_resource", "honest", &ours).await;
        } else {
            client.publish("opencloud.create_resource", ours.clone().into()).await.unwrap();
            client.flush().await.unwrap();
        }
    });
    until_true("an honest order is taken", PATIENCE, || view()["taken"].as_u64() == Some(1));
    assert_eq!(held(paris).len(), expected.len() + 1);
    assert_eq!(held(lyon), expected, "nobody else heard of anything");
    assert_eq!(paris.status().standing, actors::view::Standing::Whole);
}

#[test]
fn a_hostile_client_of_a_bus_with_jetstream_has_no_effect() {
    a_hostile_client_has_no_effect("a_hostile_client_of_a_bus_with_jetstream", true);
}

#[test]
fn a_hostile_client_of_a_bus_without_jetstream_has_no_effect() {
    a_hostile_client_has_no_effect("a_hostile_client_of_a_bus_without_jetstream", false);
}

#[test]
fn a_subject_with_a_wildcard_stops_the_start_before_it_could_take_what_is_not_meant() {
    let mut federation = Federation::new();
    for (number, subject) in ["opencloud.*", "opencloud.>", ">", "$JS.API.>"].into_iter().enumerate() {
        let spec = Spec::node(&format!("node-{number}")).set("bus.url", "\"nats://127.0.0.1:4222\"");
        let member = federation.add(spec.set("bus.subjects.create_resource", &format!("{subject:?}")));
        let ended = member.run_to_its_end(PATIENCE);
        assert_eq!(ended.code, Some(78), "{subject}: {ended:?}");
        assert!(ended.err.contains("wildcard"), "{subject}: {ended:?}");
    }
}

#[test]
fn ten_mebibytes_over_http_are_read_no_further_than_a_resource_goes() {
    let federation = Federation::converged(1, &["paris"]);
    let paris = federation.member("paris");
    let token = std::fs::read_to_string(paris.dir.join("data/admin.token")).unwrap();
    let mut stream = TcpStream::connect(paris.admin()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (at, token) = (paris.admin(), token.trim());
    let head = format!("PUT /api/v1/resources/farm-1 HTTP/1.0\r\nHost: {at}\r\nAuthorization: Bearer {token}\r\n");
    write!(stream, "{head}Content-Length: {TEN_MEBIBYTES}\r\n\r\n").unwrap();
    stream.write_all(&vec![b' '; 2 * RESOURCE_BYTES_MAX]).unwrap();
    let mut said = [0; 12];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said[9..], b"413", "{}", String::from_utf8_lossy(&said));
    assert!(held(paris).is_empty());
}
