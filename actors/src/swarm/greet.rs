//! The first words on a connection, on both sides.

use std::time::Duration;

use jiff::SignedDuration;
use libp2p::swarm::ConnectionId;
use protocol::{
    PeerId, hello, json,
    keyring::Keyring,
    wire::{self, Answer, Hello, Protocol, RefusalCode, Refused, Role},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    OpenError,
    streams::{self, Inbound, Io, Patience},
};
use crate::{context::Context, gate, policy, registry, serve, suggestions, supervision::Class};

/// For the other side to read our words.
const WRITE_WITHIN: Duration = Duration::from_secs(3);

/// A refused peer may read why before the connection goes.
const REFUSED_LINGERS: Duration = Duration::from_secs(1);

/// The gate is on the same machine; later than this it is overloaded.
const GATE_WITHIN: Duration = Duration::from_secs(1);

/// A peer whose hello was heard and found good.
#[derive(Clone, Debug)]
pub struct Greeted {
    /// What it said.
    pub hello: Hello,
    /// Its clock less ours.
    pub clock_offset: SignedDuration,
}

/// How the greeting on one connection ended.
pub(crate) struct Greeting {
    pub(super) connection: ConnectionId,
    pub(super) peer: PeerId,
    pub(super) outcome: Result<Greeted, OpenError>,
    /// Told once the connection is admitted, so that the listener's yes never outruns it.
    pub(super) admitted: Option<oneshot::Sender<()>>,
}

/// Other indexers named to one that is turned away; with 8 addresses each they fit the greeting's 4 KiB.
const ALTERNATIVES: u32 = 2;

fn own_hello(context: &Context) -> Hello {
    let own = &context.own;
    Hello {
        version: wire::VERSION.to_owned(),
        network_id: own.network_id.clone(),
        agent: own.agent.clone(),
        role: own.role,
        light: context.settings.node.light,
        capabilities: hello::capabilities(own.role).into_iter().map(str::to_owned).collect(),
        did: own.did.clone(),
        network_keys: context.network_key.as_ref().map(Keyring::fingerprints).unwrap_or_default(),
        born_at: own.born_at,
        time: context.now().wall,
    }
}

/// The dialer speaks first.
pub(super) async fn dialer(
    context: Context,
    peer: PeerId,
    io: oneshot::Receiver<Result<Io, streams::OpenError>>,
) -> Result<Greeted, OpenError> {
    let mut io = io.await.map_err(|_| OpenError::Reset)?.map_err(OpenError::from)?;
    let asked = context.now();
    let max = Protocol::Hello.value_bytes_max();
    let answer = io
        .ask(&own_hello(&context), super::driver::GREET_WITHIN, |value| json::parse::<Answer<Hello>>(value.bytes, max))
        .await
        .map_err(|error| OpenError::Hello(error.to_string()))?;
    let answered = context.now();
    io.close().await;
    match answer.map_err(|error| OpenError::Hello(error.to_string()))? {
        Answer::Refused(refused) => Err(refused.into()),
        Answer::Given(hello) => {
            hello::judge(&hello, &peer, &context.own.network_id).map_err(|error| OpenError::from(error.refused()))?;
            context.check_revoked(&peer).map_err(not_taken)?;
            check_relation(&context, peer).await?;
            let round_trip = answered.mono.since(asked.mono);
            let clock_offset = hello::clock_offset(hello.time, answered.wall, round_trip);
            Ok(Greeted { hello, clock_offset })
        }
    }
}

/// We do not take a peer whose key was revoked. In other words than those by which a peer is refused: whoever reads them is not
/// the one that was revoked.
pub(super) fn not_taken(refused: Refused) -> OpenError {
    match refused.refused {
        RefusalCode::Banned => OpenError::Hello("its own key revoked it, and nobody takes it any more".to_owned()),
        _ => refused.into(),
    }
}

/// The listener judges, has the connection admitted, and only then says yes.
pub(crate) async fn listener(context: Context, inbound: Inbound, tell: mpsc::Sender<Greeting>) {
    let Inbound { peer, connection, remote_addr, mut stream, .. } = inbound;
    let judged = match hear(&context, peer, &mut stream).await {
        Ok(greeted) => admission(&context, peer, &remote_addr, greeted.hello.role).await.map(|()| greeted),
        Err(refused) => Err(refused),
    };
    match judged {
        Ok(greeted) => {
            let (admitted, admission) = oneshot::channel();
            let greeting = Greeting { connection, peer, outcome: Ok(greeted), admitted: Some(admitted) };
            if tell.send(greeting).await.is_ok() && admission.await.is_ok() {
                let _ = stream.write(&own_hello(&context), WRITE_WITHIN).await;
                stream.close().await;
            }
        }
        Err(refused) => {
            let _ = stream.write(&refused, WRITE_WITHIN).await;
            stream.close().await;
            tokio::time::sleep(REFUSED_LINGERS).await;
            let outcome = Err(refused.into());
            drop(tell.send(Greeting { connection, peer, outcome, admitted: None }).await);
        }
    }
}

async fn hear(context: &Context, peer: PeerId, stream: &mut Io) -> Result<Greeted, Refused> {
    let invalid = |detail: String| Refused::new(RefusalCode::Invalid, detail);
    let max = Protocol::Hello.value_bytes_max();
    let heard = stream.read(Patience::OPENING, |value| json::parse::<Hello>(value.bytes, max)).await;
    let heard = heard.map_err(|error| invalid(error.to_string()))?;
    let heard = heard.ok_or_else(|| invalid("the stream ended without a hello".to_owned()))?;
    let hello = heard.map_err(|error| {
        context.stats.bad_inputs.inc();
        invalid(error.to_string())
    })?;
    hello::judge(&hello, &peer, &context.own.network_id).map_err(|error| error.refused())?;
    let clock_offset = hello::clock_offset(hello.time, context.now().wall, Duration::ZERO);
    Ok(Greeted { hello, clock_offset })
}

/// Whether the peer is revoked or blacklisted here, whoever of us came to the other.
async fn check_relation(context: &Context, peer: PeerId) -> Result<(), Refused> {
    context.check_revoked(&peer)?;
    let ask = |reply| policy::Msg::Greet { peer, reply };
    context
        .addresses
        .policy
        .ask(Class::Control, ask, GATE_WITHIN)
        .await
        .unwrap_or_else(|error| Err(serve::busy(&error)))
}

/// An indexer asks its gate about every peer that comes; a node takes whoever holds the key and is neither revoked nor blacklisted.
async fn admission(context: &Context, peer: PeerId, remote: &libp2p::Multiaddr, role: Role) -> Result<(), Refused> {
    check_relation(context, peer).await?;
    if !context.own.role.indexer {
        return Ok(());
    }
    let asked =
        context.addresses.registry.ask(Class::Control, |reply| registry::Msg::HasSession { peer, reply }, GATE_WITHIN);
    let has_session = asked.await.map_err(|error| serve::busy(&error))?;
    let from = remote.clone();
    let ask = |reply| gate::Msg::Greet { peer, from, role, has_session, reply };
    let asked = context.addresses.gate.ask(Class::Control, ask, GATE_WITHIN).await;
    let Err(mut refused) = asked.unwrap_or_else(|error| Err(serve::busy(&error))) else { return Ok(()) };
    if refused.refused == RefusalCode::Busy {
        let pick = |reply| suggestions::Msg::Pick { count: ALTERNATIVES, besides: peer, reply };
        let picked = context.addresses.suggestions.ask(Class::Search, pick, GATE_WITHIN).await;
        refused.alternatives = picked.unwrap_or_default();
    }
    Err(refused)
}

impl From<Refused> for OpenError {
    fn from(refused: Refused) -> Self {
        let Refused { refused: code, detail, retry_after, alternatives, .. } = refused;
        Self::Refused { code, detail, retry_after, alternatives }
    }
}

impl From<streams::OpenError> for OpenError {
    fn from(error: streams::OpenError) -> Self {
        match error {
            streams::OpenError::NotConnected | streams::OpenError::NotAdmitted | streams::OpenError::Reset => {
                Self::Reset
            }
            streams::OpenError::Unsupported => Self::Unsupported,
            streams::OpenError::Busy => Self::Busy,
            streams::OpenError::Timeout => Self::Late,
        }
    }
}
