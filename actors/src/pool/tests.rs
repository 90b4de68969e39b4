//! A pool among stand-ins: a store that lets its first questions die with it.

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

/// How often the store was asked whom it remembers; it answers the third time, and not before.
type Asked = Arc<Mutex<u32>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_hears_of_others_before_it_began_still_asks_again_for_what_it_begins_with() {
    let folder = tempfile::tempdir().unwrap();
    let start = start_of(&folder, &Keys::from_seed([1; 32]), NODE, Settings::default(), 1).await;
    let asked = Asked::default();
    let store = StandIn {
        mind: Arc::clone(&asked),
        hear: |msg, asked: &mut u32| {
            if let store::Msg::Members { reply } = msg {
                *asked += 1;
                if *asked > 2 {
                    reply.send(Vec::new());
                }
            }
        },
    };
    let running = root::start_with(start, |context| {
        let of_pool = context.clone();
        vec![
            ChildSpec::new(&context.addresses.store, store, |_| ()),
            ChildSpec::new(&context.addresses.pool, Pool, move |seat| Args { seat, context: of_pool.clone() }),
        ]
    });
    let running = running.await.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"));
    let pool = &running.context().addresses.pool;
    // Scores keep coming, sooner than it would ask again: each sets the machine's own clock.
    let has_asked = async || {
        pool.tell(Class::Control, Msg::Scores(Vec::new())).unwrap();
        (*asked.lock().unwrap() > 2).then_some(())
    };
    until("it asks again and again", has_asked).await;
    drop(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_member_lives_is_its_own_to_say_and_not_the_local_networks() {
    let folder = tempfile::tempdir().unwrap();
    let start = start_of(&folder, &Keys::from_seed([1; 32]), NODE, Settings::default(), 1).await;
    let [old, new] = [1, 2].map(|last| format!("/ip4/51.1.1.{last}/tcp/4001").parse::<Multiaddr>().unwrap());
    let peer = Keys::from_seed([2; 32]).peer_id();
    let row = MemberRow {
        peer,
        addresses: vec![old.clone()],
        is_seed: false,
        score: None,
        evidence: String::new(),
        last_answer: None,
        standing: 0,
    };
    let store = StandIn {
        mind: Arc::new(Mutex::new(row)),
        hear: |msg, row: &mut MemberRow| {
            if let store::Msg::Members { reply } = msg {
                reply.send(vec![row.clone()]);
            }
        },
    };
    let running = root::start_with(start, |context| {
        let of_pool = context.clone();
        vec![
            ChildSpec::new(&context.addresses.store, store, |_| ()),
            ChildSpec::new(&context.addresses.pool, Pool, move |seat| Args { seat, context: of_pool.clone() }),
        ]
    });
    let running = running.await.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"));
    let pool = &running.context().addresses.pool;
    pool.tell(Class::Control, Msg::Listening).unwrap();
    let lives = async || {
        let members = pool.ask(Class::Control, Msg::Look, PATIENCE).await.ok()?;
        members.into_iter().find(|member| member.shown.peer == peer).map(|member| member.shown.addrs)
    };
    assert_eq!(until("it is a member", lives).await, std::slice::from_ref(&old));
    let moved = vec![AddrInfo { id: peer, addrs: vec![new.clone()] }];
    pool.tell(Class::Control, Msg::Local { found: moved.clone() }).unwrap();
    assert_eq!(lives().await.unwrap(), [old], "anybody could have said it");
    pool.tell(Class::Control, Msg::Heard { candidates: moved }).unwrap();
    assert!(lives().await.unwrap().contains(&new), "it said so itself");
    drop(running);
}
