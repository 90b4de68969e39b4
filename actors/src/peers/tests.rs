//! A book of peers among stand-ins: a store whose database is away at first.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use protocol::identity::Keys;

use super::*;
use crate::{
    root,
    settings::Settings,
    supervision::ChildSpec,
    testing::{NODE, PATIENCE, StandIn, start_of, until},
};

/// What the disk holds.
#[derive(Default)]
struct Mind {
    asked: u32,
    /// Nothing while the database is away.
    rows: Option<Vec<(PeerId, Entry)>>,
}

fn peer(n: u8) -> PeerId {
    Keys::from_seed([n; 32]).peer_id()
}

fn address(n: u8) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{n}").parse().unwrap()
}

/// As it was kept by an earlier life.
fn kept(n: u8, name: &str) -> (PeerId, Entry) {
    let fare = Fare { addr: address(n), succeeded: 1, failed: 0, last_ok: None, last_failed: None };
    let entry = Entry {
        name: name.to_owned(),
        did: format!("did of {name}"),
        role: NODE,
        agent: String::new(),
        is_connected: false,
        last_seen: None,
        addrs: vec![fare],
    };
    (peer(n), entry)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_book_that_began_without_the_database_is_read_back_when_that_answers() {
    let folder = tempfile::tempdir().unwrap();
    let start = start_of(&folder, &Keys::from_seed([1; 32]), NODE, Settings::default(), 1).await;
    let mind = Arc::new(Mutex::new(Mind::default()));
    let store = StandIn {
        mind: Arc::clone(&mind),
        hear: |msg, mind: &mut Mind| {
            if let store::Msg::Peers { reply } = msg {
                mind.asked += 1;
                // The first question dies with its store.
                if mind.asked > 1 {
                    reply.send(mind.rows.clone());
                }
            }
        },
    };
    let running = root::start_with(start, |context| {
        let of_peers = context.clone();
        vec![
            ChildSpec::new(&context.addresses.store, store, |_| ()),
            ChildSpec::new(&context.addresses.peers, Peers, move |seat| Args { seat, context: of_peers.clone() }),
        ]
    });
    let running = running.await.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"));
    let peers = &running.context().addresses.peers;
    let tell = |msg| peers.tell(Class::Control, msg).unwrap();
    let find = async |n: u8| {
        let find = |reply| Msg::Find { peer: peer(n), reply };
        peers.ask(Class::Control, find, PATIENCE).await.unwrap().addrs
    };
    let name = async |n: u8| {
        let names = |reply| Msg::Names { peers: vec![peer(n)], reply };
        peers.ask(Class::Control, names, PATIENCE).await.unwrap().remove(0)
    };
    tell(Msg::Named { peer: peer(3), name: "lyon".to_owned(), did: "did of lyon".to_owned() });
    until("it asks again and again", async || (mind.lock().unwrap().asked > 2).then_some(())).await;
    assert!(find(2).await.is_empty());

    mind.lock().unwrap().rows = Some(vec![kept(2, "paris"), kept(3, "marseille")]);
    until("it is read back", async || (find(2).await == [address(2)]).then_some(())).await;
    assert_eq!((name(2).await, name(3).await), ("paris".to_owned(), "lyon".to_owned()), "what is newer stays");
    assert_eq!(find(3).await, [address(3)], "and is added to");
    // Another answer may have been on its way.
    tell(Msg::Restored(Some(vec![kept(4, "nice")])));
    assert!(find(4).await.is_empty());
    drop(running);
}
