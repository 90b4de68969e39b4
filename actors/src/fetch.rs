//! Asking one peer one thing: open a stream, write a question, read the answer.
//!
//! These run in tasks beside the actors, never in a handler; whoever starts one gets its outcome as a message.

use std::time::Duration;

use libp2p::Multiaddr;
use protocol::{
    PeerId, json,
    trace::Outcome,
    wire::{Answer, Protocol, Refused},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use crate::{
    context::Context,
    supervision::Class,
    swarm::{
        self, OpenError,
        streams::{Io, IoError},
    },
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
    /// It ended without an answer, or with one to another question.
    #[error("the stream ended without an answer")]
    Ended,
    /// The answer is malformed.
    #[error("malformed answer: {0}")]
    Malformed(#[from] json::JsonError),
    /// The peer said no.
    #[error("refused ({:?}): {}", .0.refused, .0.detail)]
    Refused(Refused),
}

impl FetchError {
    /// What a trace says of it.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(_) | Self::Open(OpenError::Refused { .. }) => Outcome::Refused,
            Self::Open(_) | Self::Io(_) | Self::Ended | Self::Malformed(_) => Outcome::Lost,
        }
    }
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
    // Searches are shed before heartbeats.
    let class = if protocol == Protocol::Heartbeat { Class::Heartbeat } else { Class::Search };
    context.addresses.swarm.tell(class, swarm::Msg::Do(command)).map_err(|_| OpenError::Busy)?;
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
    let max = protocol.value_bytes_max();
    let answer = io.ask(question, within, |value| json::parse::<Answer<A>>(value.bytes, max)).await??;
    io.close().await;
    match answer {
        Answer::Given(answer) => Ok(answer),
        Answer::Refused(refused) => Err(FetchError::Refused(refused)),
    }
}
