//! The bridge between a real NATS server and an actor that stands where `sharing` would.
#![allow(clippy::unwrap_used, missing_docs)]

mod harness;

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, time::Duration};

use actors::{
    handle::Fault,
    sharing::Verdict,
    view::{BridgeState, BusMode},
};
use async_nats::{ConnectOptions, HeaderMap, jetstream};
use futures::StreamExt as _;
use protocol::{
    bus::{self, Announcement, JetStream, VerbOut, What},
    identity::Keys,
};
use serde_json::{Value as Json, json};

use harness::{Answer, Inside, Member, announcement, envelope, server, skip, within};

/// A stream of everything that stands on the bus, from its beginning.
async fn read_all(client: &async_nats::Client, count: usize) -> Vec<(String, Json)> {
    let streams = jetstream::new(client.clone());
    let stream = streams.get_stream("OPENCLOUD").await.unwrap();
    let consumer = stream.create_consumer(jetstream::consumer::pull::OrderedConfig::default()).await.unwrap();
    let messages = consumer.messages().await.unwrap();
    let taken: Vec<_> = within("every message is there", messages.take(count).collect::<Vec<_>>()).await;
    let read =
        |message: jetstream::Message| (message.subject.to_string(), serde_json::from_slice(&message.payload).unwrap());
    taken.into_iter().map(|message| read(message.unwrap())).collect()
}

/// How many messages stand on the bus.
async fn kept(client: &async_nats::Client) -> u64 {
    let stream = jetstream::new(client.clone()).get_stream("OPENCLOUD").await.unwrap();
    stream.get_info().await.unwrap().state.messages
}

async fn publish(client: &async_nats::Client, subject: &str, payload: impl Into<Vec<u8>>) {
    let payload: Vec<u8> = payload.into();
    jetstream::new(client.clone()).publish(subject.to_owned(), payload.into()).await.unwrap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_handed_over_once_and_acknowledged_after_its_verdict() {
    let Some(server) = server("an_order_is_handed_over_once", &["-js"]).await else { return };
    let mut member = Member::start(server.settings()).await;
    member.joined("JetStream").await;
    let client = server.client().await;
    for n in 0..100 {
        publish(&client, "opencloud.create_resource", envelope(&format!("r-{n}"))).await;
    }
    let orders = member.orders(100).await;
    let ids: Vec<String> = orders
        .iter()
        .map(|ordered| match &ordered.order.what {
            What::Put { text, spread: false, .. } => text.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected: Vec<String> = (0..100).map(|n| format!(r#"{{"id":"r-{n}"}}"#)).collect();
    assert_eq!(ids, expected);
    let mut names: Vec<&String> = orders.iter().map(|ordered| &ordered.id).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 100, "each message has a name of its own");
    member.until("all are counted", |view| view.taken == 100).await;
    server.until_acknowledged(&client, "muster_create_resource").await;
    assert_eq!(member.orders_heard(), 100);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_put_off_comes_again_and_one_that_is_refused_does_not() {
    let Some(server) = server("an_order_that_is_put_off_comes_again", &["-js"]).await else { return };
    let mut member = Member::start(server.settings()).await;
    member.joined("JetStream").await;
    member.answers([Answer::Say(Verdict::NotYet("later".to_owned())), Answer::Silence]);
    let client = server.client().await;
    publish(&client, "opencloud.create_resource", envelope("late")).await;
    let first = member.orders(1).await;
    let second = member.orders(1).await;
    assert_eq!(first[0].id, second[0].id, "it is known again");
    // The second question had no answer at all, as when sharing dies with it.
    let third = member.orders(1).await;
    assert_eq!(first[0].id, third[0].id);
    member.answers([Answer::Say(Verdict::Refused("never".to_owned()))]);
    publish(&client, "opencloud.create_resource", envelope("bad")).await;
    assert_ne!(member.orders(1).await[0].id, first[0].id);
    member.until("it is refused", |view| view.refused == 1).await;
    let note = member.noted("bus_refused").await;
    assert!(note.contains("never"), "{note}");
    server.until_acknowledged(&client, "muster_create_resource").await;
    let view = member.look().await;
    assert_eq!((view.taken, view.put_off, view.refused), (1, 2, 1));
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hostile_application_sends_is_refused_once_and_harms_nobody() {
    let Some(server) = server("what_a_hostile_application_sends", &["-js", "max_payload: 12MB"]).await else { return };
    let client = server.client().await;
    // The stream is an operator's, who set no limit on a message.
    let config = jetstream::stream::Config {
        name: "OPENCLOUD".to_owned(),
        subjects: vec!["opencloud.>".to_owned()],
        ..jetstream::stream::Config::default()
    };
    jetstream::new(client.clone()).create_stream(config).await.unwrap();
    let mut member = Member::start(server.settings()).await;
    member.joined("JetStream").await;
    let own = member.keys.peer_id();
    let forged = json!({"origin": own.to_string(), "sig": "AAAA", "payload": {"id": "x"}}).to_string();
    let signed = announcement(1, VerbOut::CreateResource).write(&Keys::from_seed([9; 32]), protocol::Timestamp::now());
    let changed = String::from_utf8(signed.unwrap()).unwrap().replace("\"user-1\"", "\"eve\"");
    let deep = format!(r#"{{"payload":{}1{}}}"#, "[".repeat(64), "]".repeat(64));
    let hostile: [Vec<u8>; 8] = [
        b"\xff\xfe".to_vec(),
        b"".to_vec(),
        b"{\"payload\":".to_vec(),
        deep.into_bytes(),
        br#"{"user":"a","User":"b","payload":{"id":"x"}}"#.to_vec(),
        forged.into_bytes(),
        changed.into_bytes(),
        vec![b' '; 10 * 1024 * 1024],
    ];
    let count = hostile.len() as u64;
    for payload in hostile {
        publish(&client, "opencloud.create_resource", payload).await;
    }
    publish(&client, "opencloud.create_resource", envelope("honest")).await;
    assert_eq!(member.orders(1).await.len(), 1);
    member.until("each is refused", |view| view.refused == count && view.taken == 1).await;
    server.until_acknowledged(&client, "muster_create_resource").await;
    assert_eq!(member.look().await.refused, count);
    assert!(member.metric("muster_bus_forged_total") >= 1.0);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn own_words_and_those_of_other_members_are_no_orders() {
    let Some(server) = server("own_words_are_no_orders", &["-js"]).await else { return };
    let mut member = Member::start(server.settings()).await;
    member.joined("JetStream").await;
    member.announce([announcement(1, VerbOut::CreateResource), announcement(2, VerbOut::RemoveResource)]);
    member.until("both are told", |view| view.announced == 2).await;
    let client = server.client().await;
    let others = announcement(3, VerbOut::CreateResource).write(&Keys::from_seed([9; 32]), protocol::Timestamp::now());
    publish(&client, "opencloud.create_resource", others.unwrap()).await;
    member.until("all three are ignored", |view| view.own_ignored == 3).await;
    assert_eq!(member.orders_heard(), 0);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_each_announcement_arrives_once_and_in_order_though_the_server_is_killed() {
    const COUNT: u64 = 1_000;
    let Some(mut server) = server("each_announcement_arrives_once", &["-js"]).await else { return };
    let mut member = Member::start(server.settings()).await;
    member.joined("JetStream").await;
    let verbs = [VerbOut::SearchEvent, VerbOut::CreateResource, VerbOut::ConsidersEvent];
    member.announce((1..=COUNT).map(|id| announcement(id, verbs[usize::try_from(id).unwrap() % 3])));
    for at in [COUNT / 5, COUNT / 2] {
        member.until("some are told", |view| view.announced >= at).await;
        server.kill().await;
        member.until("it is seen", |view| view.state == BridgeState::Away).await;
        member.trouble("bus").await;
        server.restart().await;
        member.joined("JetStream").await;
    }
    member.until_published(COUNT).await;
    let client = server.client().await;
    assert_eq!(kept(&client).await, COUNT, "none is there twice");
    let mut by_subject: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (subject, envelope) in read_all(&client, usize::try_from(COUNT).unwrap()).await {
        let id: u64 = envelope["message_id"].as_str().unwrap().strip_prefix("m-").unwrap().parse().unwrap();
        by_subject.entry(subject).or_default().push(id);
    }
    assert_eq!(by_subject.len(), 3);
    for (subject, ids) in &by_subject {
        assert!(ids.is_sorted(), "{subject}: {ids:?}");
    }
    assert_eq!(by_subject.values().map(Vec::len).sum::<usize>() as u64, COUNT);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_can_be_told_is_dropped_and_holds_nothing_up() {
    let Some(server) = server("what_never_can_be_told", &["-js", "max_payload: 65536"]).await else { return };
    let mut member = Member::start(server.settings()).await;
    member.joined("JetStream").await;
    let large = |bytes: usize, id| Announcement { payload: vec![b' '; bytes], ..announcement(id, VerbOut::Alert) };
    let too_long = protocol::bus::PAYLOAD_BYTES_MAX + 1;
    member.announce([large(100_000, 1), large(too_long, 2), announcement(3, VerbOut::Alert)]);
    member.until("the last is told", |view| view.announced == 1 && view.dropped == 2).await;
    assert!(member.noted("bus_dropped").await.contains("m-"));
    member.until_published(3).await;
    member.stop().await;
}

/// How many messages a subject of the stream takes; nothing for as many as may come.
async fn limit_subjects(client: &async_nats::Client, limit: Option<i64>) {
    use jetstream::stream::DiscardPolicy;
    let streams = jetstream::new(client.clone());
    let mut config = streams.get_stream("OPENCLOUD").await.unwrap().cached_info().config.clone();
    config.discard = if limit.is_some() { DiscardPolicy::New } else { DiscardPolicy::Old };
    config.discard_new_per_subject = limit.is_some();
    config.max_messages_per_subject = limit.unwrap_or(-1);
    streams.update_stream(config).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_the_bus_does_not_take_holds_no_other_up() {
    /// More than are read at once.
    const COUNT: u64 = 300;
    let Some(server) = server("a_subject_that_the_bus_does_not_take", &["-js"]).await else { return };
    let mut member = Member::start(server.settings()).await;
    member.joined("JetStream").await;
    let client = server.client().await;
    limit_subjects(&client, Some(1)).await;
    publish(&client, "opencloud.alert", "{}").await;
    member.announce((1..=COUNT).map(|id| announcement(id, VerbOut::Alert)));
    member.announce([announcement(COUNT + 1, VerbOut::VerifyResource)]);
    let waiting = member.until_published_one(COUNT + 1).await;
    assert_eq!((waiting as u64, kept(&client).await), (COUNT, 2), "the others wait, and are not lost");
    member.until("it is seen that they wait", |view| view.waiting > 0).await;
    limit_subjects(&client, None).await;
    member.until_published(COUNT + 1).await;
    let told = read_all(&client, usize::try_from(COUNT).unwrap() + 2).await;
    let alerts = told.iter().filter(|(subject, _)| subject == "opencloud.alert").skip(1);
    let ids: Vec<String> = alerts.map(|(_, envelope)| envelope["message_id"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<String> = (1..=COUNT).map(|id| format!("m-{id}")).collect();
    assert_eq!(ids, expected, "each once and in order");
    member.stop().await;
}

/// Asks for the next order as a session of a member does, and never says a word again: so a connection that is gone looks
/// to a server that has not noticed.
async fn ask_and_fall_silent(client: &async_nats::Client, consumer: &str) -> async_nats::Subscriber {
    let inbox = client.new_inbox();
    let answers = client.subscribe(inbox.clone()).await.unwrap();
    let question = json!({ "batch": 1, "expires": 25_000_000_000_u64 }).to_string();
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.OPENCLOUD.{consumer}");
    client.publish_with_reply(subject, inbox, question.into()).await.unwrap();
    client.flush().await.unwrap();
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_an_order_that_went_to_a_connection_that_is_gone_is_not_overtaken() {
    let Some(server) = server("an_order_that_went_to_a_connection_that_is_gone", &["-js"]).await else { return };
    let mut former = Member::start(server.settings()).await;
    former.joined("JetStream").await;
    former.stop().await;
    let client = server.client().await;
    let mut answers = ask_and_fall_silent(&client, "muster_create_resource").await;
    let mut member = Member::start(server.settings()).await;
    member.joined("JetStream").await;
    for id in ["first", "second"] {
        publish(&client, "opencloud.create_resource", envelope(id)).await;
    }
    let lost = within("the server answers the one that is gone", answers.next()).await.unwrap();
    assert!(String::from_utf8_lossy(&lost.payload).contains("first"));
    let ids: Vec<String> =
        member.orders(2).await.into_iter().map(|ordered| format!("{:?}", ordered.order.what)).collect();
    assert!(ids[0].contains("first") && ids[1].contains("second"), "{ids:?}");
    server.until_acknowledged(&client, "muster_create_resource").await;
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_jetstream_the_bus_works_and_is_said_to_be_the_lesser() {
    let Some(server) = server("without_jetstream_the_bus_works", &[]).await else { return };
    let mut member = Member::start(server.settings()).await;
    member.joined("Core").await;
    assert!(member.trouble("bus_mode").await.contains("may be lost"));
    let client = server.client().await;
    let mut heard = client.subscribe("opencloud.search_event").await.unwrap();
    client.flush().await.unwrap();
    member.answers([Answer::Say(Verdict::NotYet("busy".to_owned()))]);
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "mine");
    let payload = envelope("x").into_bytes().into();
    client.publish_with_headers("opencloud.create_resource", headers, payload).await.unwrap();
    client.publish("opencloud.create_resource", envelope("y").into_bytes().into()).await.unwrap();
    let orders = member.orders(3).await;
    assert_eq!(orders[0].id, orders[1].id, "what is put off is tried again before the next");
    assert_eq!(orders[0].id.len(), 32, "a name that its sender gave is cut to a hash");
    assert_ne!(orders[1].id, orders[2].id);
    member.announce([announcement(1, VerbOut::SearchEvent)]);
    let message = within("the announcement arrives", heard.next()).await.unwrap();
    let told: Json = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!(told["message_id"], "m-1");
    assert_eq!(member.look().await.mode, Some(BusMode::Core));
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_jetstream_is_required_nothing_goes_without_it() {
    let Some(server) = server("where_jetstream_is_required", &[]).await else { return };
    let mut settings = server.settings();
    settings.jetstream = JetStream::Required;
    let mut member = Member::start(settings).await;
    assert!(member.trouble("bus").await.contains("no JetStream"));
    assert_eq!(member.look().await.state, BridgeState::Entering);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_comes_late_is_waited_for_and_said_to_be_away() {
    let Some(mut server) = server("a_bus_that_comes_late", &["-js"]).await else { return };
    server.kill().await;
    let mut member = Member::start(server.settings()).await;
    let trouble = member.trouble("bus").await;
    assert!(trouble.contains("is away") && trouble.contains("tried again by itself"), "{trouble}");
    server.restart().await;
    member.joined("JetStream").await;
    member.trouble_over("bus").await;
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_said_with_what_to_do() {
    let auth = ["-js", "authorization { user: ann, password: geheim }"];
    let Some(server) = server("refused_credentials_are_said", &auth).await else { return };
    let mut wrong = server.settings();
    wrong.user = "ann".to_owned();
    wrong.password = "wrong".into();
    let mut member = Member::start(wrong).await;
    let trouble = member.trouble("bus").await;
    assert!(trouble.contains("authorization") && trouble.contains("check bus.user"), "{trouble}");
    assert!(!trouble.contains("geheim") && !trouble.contains("wrong"), "{trouble}");
    member.stop().await;
    let mut right = server.settings();
    right.user = "ann".to_owned();
    right.password = "geheim".into();
    let mut member = Member::start(right).await;
    member.joined("JetStream").await;
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_others_can_read_is_not_used() {
    // 32 times a 7, and the user that derives from it.
    const SEED: &str = "SUAAOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOBZ5FE";
    const USER: &str = "UDVEU3DD4KOFECV66VIHWEZOYX4ZKR3WV27L464SIIPOU2IUI3JCYSJF";
    let auth = format!("authorization {{ users: [ {{ nkey: {USER} }} ] }}");
    let Some(server) = server("a_seed_that_others_can_read", &["-js", &auth]).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("seed");
    std::fs::write(&file, format!("{SEED}\n")).unwrap();
    let set = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    set(0o644);
    let mut settings = server.settings();
    settings.nkey_seed_file.clone_from(&file);
    let mut member = Member::start(settings).await;
    let trouble = member.trouble("bus").await;
    assert!(trouble.contains("its mode is 0644, expected 0600") && !trouble.contains(SEED), "{trouble}");
    // Put right, it is used without a restart.
    set(0o600);
    member.joined("JetStream").await;
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_dies_loses_neither_orders_nor_announcements() {
    let Some(server) = server("a_bridge_that_dies", &["-js"]).await else { return };
    let mut member = Member::start(server.settings()).await;
    member.joined("JetStream").await;
    let client = server.client().await;
    // One that dies with an order in hand makes the bus bring it again, which takes its time.
    for n in 0..3 {
        member.inject(Fault::Panic);
        publish(&client, "opencloud.create_resource", envelope(&format!("r-{n}"))).await;
        member.announce([announcement(n + 1, VerbOut::SearchEvent)]);
        member.until_ordered(usize::try_from(n).unwrap() + 1).await;
        member.until_published(n + 1).await;
    }
    server.until_acknowledged(&client, "muster_create_resource").await;
    assert_eq!(kept(&client).await, 6);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_answer_over_the_bus() {
    let Some(server) = server("services_answer_over_the_bus", &["-js"]).await else { return };
    let inside = Inside::start(server.settings()).await;
    let client = server.client().await;
    let ask = |subject: &'static str, question: Json| {
        let client = client.clone();
        async move {
            let payload = question.to_string().into_bytes().into();
            client.request(subject, payload).await.unwrap()
        }
    };
    let info = inside.answered(&client, "opencloud.svc.node.info").await;
    assert_eq!(info["name"], "paris");
    let peers: Json = serde_json::from_slice(&ask("opencloud.svc.peers.list", json!({})).await.payload).unwrap();
    assert!(peers.is_array());
    let code = |message: &async_nats::Message| {
        let headers = message.headers.as_ref().unwrap();
        headers.get("Nats-Service-Error-Code").unwrap().as_str().to_owned()
    };
    assert_eq!(code(&ask("opencloud.svc.peers.get", json!({"peer_id": "nobody"})).await), "404");
    assert_eq!(code(&ask("opencloud.svc.record.get", json!({})).await), "400");
    assert_eq!(code(&ask("opencloud.svc.search", json!({})).await), "400");
    let record = ask("opencloud.svc.record.get", json!({"key": inside.peer_id()})).await;
    let records: Json = serde_json::from_slice(&record.payload).unwrap();
    assert!(records.is_array(), "{records}");
    let found = ask("opencloud.svc.search", json!({"name": "lyon", "user": "ann"})).await;
    let found: Json = serde_json::from_slice(&found.payload).unwrap();
    assert_eq!(found, json!({"hits": [], "complete": true}));
    let put =
        ask("opencloud.svc.resources.put", json!({"datatype": "data", "payload": {"id": "x", "name": "x"}})).await;
    let put: Json = serde_json::from_slice(&put.payload).unwrap();
    assert_eq!(put, json!({"repeated": false}));
    let nameless = ask("opencloud.svc.resources.put", json!({"datatype": "data", "payload": {"id": "x"}})).await;
    assert_eq!(code(&nameless), "400");
    let bad = ask("opencloud.svc.resources.put", json!({"datatype": 7, "payload": {"id": "x"}})).await;
    assert_eq!(code(&bad), "400");
    let ping = client.request("$SRV.PING.muster", "".into()).await.unwrap();
    let ping: Json = serde_json::from_slice(&ping.payload).unwrap();
    assert_eq!(ping["name"], "muster");
    inside.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_believed_over_tls_only_with_a_certificate_that_is_vouched_for() {
    let test = "a_server_is_believed_over_tls";
    let folder = tempfile::tempdir().unwrap();
    if !certificates(folder.path()) {
        return skip(test, "there is no openssl to make certificates with");
    }
    let at = |name: &str| folder.path().join(name);
    let tls = format!("tls {{ cert_file: {:?}, key_file: {:?} }}", at("server.pem"), at("server.key"));
    let Some(server) = server(test, &["-js", &tls]).await else { return };
    let settings = bus::Settings { tls_required: true, ..server.settings() };
    let mut member = Member::start(settings.clone()).await;
    let trouble = member.trouble("bus").await;
    assert!(trouble.contains("check bus.tls_ca"), "{trouble}");
    member.stop().await;
    let mut member = Member::start(bus::Settings { tls_ca: at("ca.pem"), ..settings }).await;
    member.joined("JetStream").await;
    member.stop().await;
}

/// An authority and a server's certificate in a folder; false where nothing can make them.
fn certificates(folder: &std::path::Path) -> bool {
    let openssl = |args: &str| {
        let made = std::process::Command::new("openssl").args(args.split(' ')).current_dir(folder).output();
        made.is_ok_and(|made| made.status.success())
    };
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 2"))
        && openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=server"))
        && openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names",
        )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_room_on_its_own_subjects_is_told_as_what_it_is() {
    let permissions = "authorization { users: [ { user: ann, password: x, permissions: { publish: [\"_INBOX.>\"], \
                       subscribe: [\"_INBOX.>\"] } } ] }";
    let Some(server) = server("a_server_without_room", &["-js", permissions]).await else { return };
    let mut settings = server.settings();
    settings.user = "ann".to_owned();
    settings.password = "x".into();
    let mut member = Member::start(settings).await;
    let trouble = member.trouble("bus_server").await.to_lowercase();
    assert!(trouble.contains("permissions violation"), "{trouble}");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_of_a_stream_that_was_there_before_us_are_taken() {
    let Some(server) = server("orders_of_a_stream_that_was_there", &["-js"]).await else { return };
    let client = ConnectOptions::new().connect(server.url()).await.unwrap();
    let streams = jetstream::new(client.clone());
    let config = jetstream::stream::Config {
        name: "OPENCLOUD".to_owned(),
        subjects: vec!["opencloud.create_resource".to_owned()],
        duplicate_window: Duration::from_secs(5),
        ..jetstream::stream::Config::default()
    };
    streams.create_stream(config).await.unwrap();
    publish(&client, "opencloud.create_resource", envelope("before")).await;
    let mut member = Member::start(server.settings()).await;
    assert_eq!(member.orders(1).await.len(), 1);
    let stream = streams.get_stream("OPENCLOUD").await.unwrap();
    let config = &stream.cached_info().config;
    assert_eq!(config.subjects.len(), 12);
    assert_eq!(config.duplicate_window, server.settings().duplicate_window);
    member.stop().await;
}
