//! Serving: what a stream that a peer opened is answered with, one file per protocol.
//!
//! These are tasks, one per stream, beside the actors: they read within limits and deadlines, decode, verify, ask the
//! actor that decides, and write its answer. How many there are is bounded by the streams' permits.

mod audit;
mod bandwidth;
mod candidates;
mod echo;
mod event;
mod get;
mod heartbeat;
mod leave;
mod publish;
mod resources;
mod revoke;
mod search;
mod verify;
mod witness;

use futures::FutureExt as _;
use protocol::{
    PeerId,
    bandwidth::ProbeError,
    behaviour::Offence,
    event::Verb,
    json::JsonError,
    signed::SignedError,
    wire::{Protocol, RefusalCode, Refused},
};
use tokio::{sync::mpsc, task::JoinSet};
use tracing::debug;

use crate::{
    context::{Context, inform},
    gate,
    handle::AskError,
    health, lookup, registry,
    supervision::Class,
    swarm::{
        greet::{self, Greeting},
        streams::{Inbound, Io, IoError},
    },
};

/// For a peer to take an answer.
pub(crate) const WRITE_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// For an actor of our own to answer; later than this it is overloaded and the peer is told so.
pub(crate) const ASK_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// Why a stream ended before its peer closed it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// Late, cut, or over a limit.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Malformed.
    #[error("malformed value: {0}")]
    Malformed(#[from] JsonError),
    /// No bandwidth probe, though it was sent as one.
    #[error("no bandwidth probe: {0}")]
    Probe(#[from] ProbeError),
}

impl ServeError {
    /// The peer sent what it should not, rather than too little or too late.
    const fn is_bad_input(&self) -> bool {
        match self {
            Self::Io(error) => matches!(error, IoError::TooLong { .. }),
            Self::Malformed(_) => true,
            Self::Probe(error) => error.is_bad_input(),
        }
    }
}

/// Serves until the swarm that feeds it is gone; then every stream ends with it.
pub(crate) async fn accept(context: Context, mut inbound: mpsc::Receiver<Inbound>, greet: mpsc::Sender<Greeting>) {
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            stream = inbound.recv() => match stream {
                Some(stream) => drop(serving.spawn(serve(context.clone(), stream, greet.clone()))),
                None => return,
            },
            Some(ended) = serving.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "serving a stream panicked");
                }
            }
        }
    }
}

async fn serve(context: Context, inbound: Inbound, greet: mpsc::Sender<Greeting>) {
    let (peer, protocol) = (inbound.peer, inbound.protocol);
    // Each has memory for itself alone: the task of a heartbeat lives as long as its session, and would take as much as the
    // largest of all.
    let serving = match protocol {
        Protocol::Hello => return greet::listener(context, inbound, greet).boxed().await,
        Protocol::Heartbeat => heartbeat::serve(&context, peer, inbound.stream).boxed(),
        Protocol::Publish => publish::serve(&context, peer, inbound.stream).boxed(),
        Protocol::Get => get::serve(&context, peer, inbound.stream).boxed(),
        Protocol::Leave => leave::serve(&context, peer, inbound.stream).boxed(),
        Protocol::Candidates => candidates::serve(&context, peer, inbound.stream).boxed(),
        Protocol::Search => search::serve(&context, peer, inbound.stream).boxed(),
        Protocol::SearchResponse => search::collect(&context, peer, inbound.stream).boxed(),
        Protocol::Witness => witness::serve(&context, peer, inbound.stream).boxed(),
        Protocol::Audit => audit::serve(&context, peer, inbound.stream).boxed(),
        Protocol::Bandwidth => bandwidth::serve(&context, peer, inbound.stream).boxed(),
        Protocol::Echo => echo::serve(&context, peer, inbound.stream).boxed(),
        Protocol::Revoke => revoke::serve(&context, peer, inbound.stream).boxed(),
        Protocol::Revocations => revoke::tell(&context, inbound.stream).boxed(),
        Protocol::Event(Verb::Search) => resources::serve(&context, peer, inbound.stream).boxed(),
        Protocol::Event(Verb::Verify) => verify::serve(&context, peer, inbound.stream).boxed(),
        Protocol::Event(verb) => event::serve(&context, peer, verb, inbound.stream).boxed(),
    };
    if let Err(error) = serving.await {
        // Reset when the stream is dropped: the peer sees that it was not served.
        if error.is_bad_input() {
            context.stats.bad_inputs.inc();
            let complaint = health::Msg::Complained { about: peer, protocol, cause: error.to_string() };
            inform(&context.addresses.health, Class::History, complaint);
        } else {
            debug!(%peer, protocol = protocol.id(), %error, "stream ended");
        }
    }
}

/// Whether this peer is known: it has a session here, or a record in the DHT.
pub(crate) async fn known(context: &Context, peer: PeerId) -> Result<(), Refused> {
    let ask = |reply| registry::Msg::HasSession { peer, reply };
    let has_session = context.addresses.registry.ask(Class::Search, ask, ASK_WITHIN).await;
    if has_session.map_err(|error| busy(&error))? || lookup::did_of(context, peer).await.is_some() {
        return Ok(());
    }
    Err(Refused::new(RefusalCode::UnknownPeer, "got a question of a stranger, expected a heartbeat first"))
}

/// Asks the gate whether this peer may have one more request of this protocol now.
pub(crate) async fn admit(context: &Context, peer: PeerId, protocol: Protocol) -> Result<(), Refused> {
    let ask = |reply| gate::Msg::Request { peer, protocol, reply };
    context.addresses.gate.ask(Class::Search, ask, ASK_WITHIN).await.unwrap_or_else(|error| Err(busy(&error)))
}

/// Whoever signed falsely gets its strikes.
fn blame(context: &Context, peer: PeerId, error: &SignedError) {
    if error.is_strike() {
        let offended = gate::Msg::Offended { peer, offence: Offence::BadSignature };
        inform(&context.addresses.gate, Class::Control, offended);
    }
}

/// Our own misfortune, in the words of the wire.
pub(crate) fn busy(error: &AskError) -> Refused {
    Refused::new(RefusalCode::Busy, error.to_string()).retry_after(1)
}

/// Says no and ends the stream.
pub(crate) async fn refuse(mut io: Io, refused: &Refused) -> Result<(), ServeError> {
    io.write(refused, WRITE_WITHIN).await?;
    io.close().await;
    Ok(())
}

/// Says no to a peer that may still be writing, and ends the stream both ways: nobody takes what it writes, and closed in one
/// direction alone the stream would let it wait for that.
pub(crate) async fn turn_away(mut io: Io, refused: &Refused) -> Result<(), ServeError> {
    io.write(refused, WRITE_WITHIN).await?;
    io.reset();
    Ok(())
}
