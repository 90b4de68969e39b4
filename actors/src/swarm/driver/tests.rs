//! A driver beside a stand-in for the pool that it tells.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use protocol::identity::Keys;

use super::*;
use crate::{
    root::{self, Running},
    settings::Settings,
    supervision::ChildSpec,
    swarm::build,
    testing::{INDEXER, NODE, StandIn, start_of, until},
};

/// Whom the pool heard of.
#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    by_hearsay: Vec<AddrInfo>,
    by_themselves: Vec<AddrInfo>,
}

/// Of a member without a tree.
fn driver(running: &Running) -> Driver {
    let (swarm, _) = build(running.context()).unwrap();
    let (_, commands) = mpsc::channel(1);
    Driver::new(swarm, commands, mpsc::channel(1), running.context().clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_heard_of_in_the_local_network_is_told_as_hearsay() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.network.listen = Vec::new();
    let start = start_of(&folder, &Keys::from_seed([1; 32]), NODE, settings, 1).await;
    let told = Arc::new(Mutex::new(Told::default()));
    let pool = StandIn {
        mind: Arc::clone(&told),
        hear: |msg, told: &mut Told| match msg {
            pool::Msg::Local { found } => told.by_hearsay.extend(found),
            pool::Msg::Heard { candidates } => told.by_themselves.extend(candidates),
            _ => {}
        },
    };
    let running = root::start_with(start, |context| vec![ChildSpec::new(&context.addresses.pool, pool, |_| ())]);
    let running = running.await.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"));
    let mut driver = driver(&running);
    let peer = Keys::from_seed([2; 32]).peer_id();
    let addr: Multiaddr = "/ip4/192.168.1.7/tcp/4001".parse().unwrap();
    let found = vec![(peer, addr::with_peer(&addr, peer))];
    driver.on_behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found)));
    let heard = async || Some(told.lock().unwrap().clone()).filter(|told| *told != Told::default());
    let expected = Told { by_hearsay: vec![AddrInfo { id: peer, addrs: vec![addr] }], by_themselves: Vec::new() };
    assert_eq!(until("the pool hears of it", heard).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_is_not_listed_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.network.listen = Vec::new();
    let start = start_of(&folder, &Keys::from_seed([1; 32]), INDEXER, settings, 1).await;
    let running = root::start_with(start, |_| Vec::new()).await;
    let running = running.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"));
    let mut driver = driver(&running);
    driver.on_command(Command::Provide);
    assert_eq!(driver.queries.len(), 1, "it is listed");
    driver.on_command(Command::Unprovide);
    driver.on_command(Command::Provide);
    assert_eq!(driver.queries.len(), 1, "and not again");
}
