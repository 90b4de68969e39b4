//! A probe: hello and one heartbeat that makes no session.

use std::time::Duration;

use libp2p::Multiaddr;
use protocol::{
    PeerId,
    heartbeat::{Acked, Ask, Asker, Conversation, Heard},
    json,
    pool::Probed,
    time::Mono,
    wire::{Answer, HeartbeatResponse, Protocol, Refused},
};
use tracing::debug;

use crate::{
    context::Context,
    fetch::{self, FetchError},
    swarm::{
        OpenError,
        streams::{Patience, Value},
    },
};

/// Asks a candidate how it is.
pub(crate) async fn probe(context: &Context, peer: PeerId, addrs: Vec<Multiaddr>) -> Probed {
    let within = context.live().pool.probe_within;
    let asked = tokio::time::timeout(within, ask(context, peer, addrs, within)).await;
    match asked {
        Ok(Ok((rtt, fill_rate))) => Probed::Answered { rtt, fill_rate },
        Ok(Err(FetchError::Refused(refused))) => busy(refused),
        Ok(Err(FetchError::Open(OpenError::Refused { retry_after: Some(secs), alternatives, .. }))) => {
            Probed::Busy { retry_after: Duration::from_secs(secs), alternatives }
        }
        Ok(Err(FetchError::Open(error))) => {
            debug!(%peer, %error, "probe did not reach it");
            Probed::Unreachable
        }
        Ok(Err(error)) => {
            debug!(%peer, %error, "probe was not answered");
            Probed::Silent
        }
        Err(_) => Probed::Silent,
    }
}

fn busy(refused: Refused) -> Probed {
    match refused.retry_after {
        Some(secs) => Probed::Busy { retry_after: Duration::from_secs(secs), alternatives: refused.alternatives },
        None => Probed::Silent,
    }
}

async fn ask(
    context: &Context,
    peer: PeerId,
    addrs: Vec<Multiaddr>,
    within: Duration,
) -> Result<(Duration, Option<f64>), FetchError> {
    let mut io = fetch::open(context, peer, addrs, Protocol::Heartbeat, within).await?;
    let own = &context.own;
    let asker = Asker { name: own.name.clone(), did: own.did.clone(), peer_id: own.peer_id };
    let mut conversation = Conversation::default();
    let ask = Ask { seq: conversation.ask(), probe: true, ..Ask::default() };
    let question = asker.question(ask, None, Acked::default(), context.now().wall);
    io.write(&question, within).await?;
    let clock = context.tree.clock();
    conversation.written(&question, None, clock.mono());
    let max = Protocol::Heartbeat.value_bytes_max();
    let take = |value: Value<'_>| {
        let first_byte = Mono::at(clock.mono().since_start().saturating_sub(value.first_byte_at.elapsed()));
        (json::parse::<Answer<HeartbeatResponse>>(value.bytes, max), first_byte)
    };
    let (answer, first_byte) = io.read(Patience::within(within), take).await?.ok_or(FetchError::Ended)?;
    let answer = answer?;
    let heard = conversation.hear(answer, first_byte);
    io.close().await;
    match heard {
        Ok(Heard::Given(given)) => Ok((given.rtt, Some(given.response.fill_rate))),
        Ok(Heard::Refused(refused)) => Err(FetchError::Refused(refused)),
        Ok(Heard::Late) | Err(_) => Err(FetchError::Ended),
    }
}
