//! Asking one peer one thing: open a stream, write a question, read the answer.
//!
//! These run in tasks beside the actors, never in a handler; whoever starts one gets its outcome as a message.

use std::time::Duration;

use libp2p::Multiaddr;
use protocol::{
    PeerId, json,
    wire::{Answer, Protocol, Refused},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use crate::{
    context::Context,
    supervision::Class,
    swarm::{self, OpenError, streams::{Io, IoError}},
};

/// Why a peer gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// No stream.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stream broke or was too slow.
    #[error(transparent)]
    Io(#[from] IoError),
    /// It ended without an answer.
    #[error("the stream ended without an answer")]
    Ended,
    /// The answer is malformed.
    #[error("malformed answer: {0}")]
    Malformed(#[from] json::JsonError),
    /// The peer said no.
    #[error("refused ({:?}): {}", .0.refused, .0.detail)]
    Refused(Refused),
}

/// Opens a stream to the peer, dialling and greeting it first where needed.
///
/// # Errors
/// When there is no connection or the peer does not take the protocol within the time.
pub async fn open(
    context: &Context,
    peer: PeerId,
    addrs: Vec<Multiaddr>,
    protocol: Protocol,
    within: Duration,
) -> Result<Io, OpenError> {
    let (reply, opened) = oneshot::channel();
    let command = swarm::Command::Open { peer, addrs, protocol, within, reply };
    context.addresses.swarm.tell(Class::of(protocol), swarm::Msg::Do(command)).map_err(|_| OpenError::Busy)?;
    // The driver answers every open; when it dies its replies are dropped with it.
    opened.await.unwrap_or(Err(OpenError::Reset))
}

/// One question, one answer.
///
/// # Errors
/// Whatever kept the answer away, the peer's refusal included.
pub async fn exchange<Q: Serialize, A: DeserializeOwned>(
    context: &Context,
    peer: PeerId,
    addrs: Vec<Multiaddr>,
    protocol: Protocol,
    question: &Q,
    within: Duration,
) -> Result<A, FetchError> {
    let mut io = open(context, peer, addrs, protocol, within).await?;
    io.write_json(question, within).await?;
    let answer = read_answer(&mut io, protocol, within).await?;
    io.close(within).await;
    Ok(answer)
}

/// Reads one answer.
///
/// # Errors
/// As [`exchange`].
pub async fn read_answer<A: DeserializeOwned>(io: &mut Io, protocol: Protocol, within: Duration) -> Result<A, FetchError> {
    let value = io.read_value(within).await?.ok_or(FetchError::Ended)?;
    match json::parse::<Answer<A>>(value, protocol.value_bytes_max())? {
        Answer::Given(answer) => Ok(answer),
        Answer::Refused(refused) => Err(FetchError::Refused(refused)),
    }
}
