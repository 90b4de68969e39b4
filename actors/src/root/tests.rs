//! What a member does before it ends.

#![allow(clippy::unwrap_used)]

use libp2p::Multiaddr;
use protocol::{
    PeerId,
    heartbeat::{Acked, Ask, Asker},
    wire::{HeartbeatResponse, RefusalCode, Refused},
};

use super::*;
use crate::testing::{INDEXER, Member, NODE, PATIENCE, until};

/// Says hello to the gate of `indexer`.
async fn greet(indexer: &Member, peer: PeerId, role: Role, has_session: bool) -> Result<(), Refused> {
    let from: Multiaddr = "/ip4/127.0.0.1/tcp/4001".parse().unwrap();
    let ask = |reply| gate::Msg::Greet { peer, from, role, has_session, reply };
    indexer.context().addresses.gate.ask(Class::Control, ask, PATIENCE).await.unwrap()
}

/// Sends a heartbeat to the registry of `indexer`, as one that its gate has let through.
async fn beat(indexer: &Member, from: PeerId, probe: bool) -> Result<HeartbeatResponse, Refused> {
    let asker = Asker { name: "lyon".to_owned(), did: String::new(), peer_id: from };
    let ask = Ask { seq: 1, probe, ..Ask::default() };
    let heartbeat = Box::new(asker.question(ask, None, Acked::default(), Timestamp::now()));
    let ask = |reply| registry::Msg::Beat { from, heartbeat, carried: Ok(None), is_indexer: false, reply };
    indexer.context().addresses.registry.ask(Class::Heartbeat, ask, PATIENCE).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_indexer_that_leaves_serves_those_whom_it_has_and_sends_everybody_else_elsewhere() {
    let indexer = Member::without_bus(170, INDEXER, &[]).await;
    let node = Member::without_bus(171, NODE, &[&indexer]).await;
    let session = async || {
        let sessions = indexer.handle().sessions().await.ok()?;
        sessions.into_iter().find(|session| session.peer_id == node.peer())
    };
    let before = until("the node has a session", session).await;
    let stranger = Keys::from_seed([172; 32]).peer_id();
    assert_eq!(greet(&indexer, stranger, NODE, false).await, Ok(()), "it is let in, and has not come yet");

    goodbye(indexer.context()).await;

    let refusals = [
        greet(&indexer, stranger, NODE, false).await.unwrap_err(),
        greet(&indexer, stranger, INDEXER, false).await.unwrap_err(),
        beat(&indexer, stranger, false).await.unwrap_err(),
        beat(&indexer, stranger, true).await.unwrap_err(),
    ];
    for refused in refusals {
        let is_soon = refused.retry_after.is_some_and(|secs| (5..=10).contains(&secs));
        assert!(refused.refused == RefusalCode::Busy && is_soon, "{refused:?}");
    }
    assert_eq!(greet(&indexer, node.peer(), NODE, true).await, Ok(()), "its connection may break");
    let is_served = async || session().await.filter(|now| now.beats > before.beats + 1);
    until("the node is answered on", is_served).await;
}
