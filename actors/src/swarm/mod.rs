//! SwarmActor: the only owner of the libp2p swarm.
//!
//! Owns the driver task, which polls the swarm, and the acceptor, which serves what others open. Told commands by every
//! actor and task that needs the network; the driver tells peers, pool, presence, relay and resources what
//! happens. A restart loses every
//! connection, stream, running query and DHT record held for others; their owners notice by their own streams.
//! Bounds: `COMMANDS_MAX` commands under way; the driver's and the streams' own.

mod behaviour;
pub mod both_keys;
pub mod doors;
mod driver;
mod gossip;
pub(crate) mod greet;
mod muxer;
mod shelf;
pub mod streams;
pub mod transport;

use std::time::Duration;

use futures::FutureExt as _;
use libp2p::{Multiaddr, Swarm, swarm};
use protocol::{
    PeerId,
    dht::{self, Valid},
    profile::Profile,
    wire::Protocol,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

pub use self::greet::Greeted;
use self::{
    behaviour::{Behaviour, Parts},
    driver::Driver,
    streams::{Accept, Inbound, Io, Streams},
};
use crate::{
    context::Context,
    serve,
    supervision::{Envelope, Hold, Reply, Seat},
    view::BinView,
};

/// Commands between the actor and the driver; the driver takes one in microseconds.
const COMMANDS_MAX: usize = 4_096;

/// Streams that wait to be served; a task takes one in microseconds.
const INBOUND_MAX: usize = 1_024;

/// Greetings whose end the driver has not yet heard of.
const GREETINGS_MAX: usize = 1_024;

/// A connection without streams is closed after this long; gossip keeps those among indexers.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Why a stream was not opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// No connection could be made.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// Somebody else answered there.
    #[error("{address} has the peer id {got}, not the one that was asked for: correct the address's /p2p/ part")]
    WrongPeer {
        /// Where.
        address: Multiaddr,
        /// Who.
        got: PeerId,
    },
    /// The other side did not understand us below Noise.
    #[error("pre-shared key mismatch likely (ours: fingerprint {fingerprint}): compare swarm.key on both sides")]
    KeyMismatch {
        /// Of our key.
        fingerprint: String,
    },
    /// Hello was refused, by either side.
    #[error("hello refused ({code:?}): {detail}")]
    Refused {
        /// Why.
        code: protocol::wire::RefusalCode,
        /// In words.
        detail: String,
        /// Seconds to wait.
        retry_after: Option<u64>,
        /// Others that may have room.
        alternatives: Vec<protocol::wire::AddrInfo>,
    },
    /// Hello was malformed or broken off.
    #[error("hello failed: {0}")]
    Hello(String),
    /// Too much is under way here.
    #[error("too many streams are being opened")]
    Busy,
    /// It took too long.
    #[error("not opened in time")]
    Late,
    /// The connection broke.
    #[error("the connection was reset")]
    Reset,
    /// The other side does not take this protocol from us.
    #[error("the peer does not take this protocol")]
    Unsupported,
    /// The other side's hello does not list this protocol, so it is not asked.
    #[error("the peer's hello does not list {}", .protocol.id())]
    NotListed {
        /// Which.
        protocol: Protocol,
    },
}

/// What the swarm can be told to do.
pub enum Command {
    /// Open a stream, dialling and greeting first where needed.
    Open {
        /// To whom.
        peer: PeerId,
        /// Where it may be.
        addrs: Vec<Multiaddr>,
        /// For what.
        protocol: Protocol,
        /// By when.
        within: Duration,
        /// The stream.
        reply: oneshot::Sender<Result<Io, OpenError>>,
    },
    /// How long the peer took to answer the last ping on this connection?
    RoundTrip {
        /// Which.
        connection: libp2p::swarm::ConnectionId,
        /// Nothing before the first answer.
        reply: oneshot::Sender<Option<Duration>>,
    },
    /// Close every connection to the peer.
    Close {
        /// Whose.
        peer: PeerId,
    },
    /// A peer's key was revoked: close every connection to it, and drop what it signed from our part of the DHT.
    Disown {
        /// Whose.
        peer: PeerId,
    },
    /// Put a value into the DHT.
    Put {
        /// Under this key.
        key: dht::Key,
        /// Signed.
        value: Box<Valid>,
        /// At least one server took it, or there is none but us.
        reply: Option<oneshot::Sender<bool>>,
    },
    /// Ask the servers for a value that was put.
    ReadBack {
        /// Under this key.
        key: dht::Key,
        /// As it was put.
        value: Box<Valid>,
        /// Two servers hold it, or as many as there are.
        reply: oneshot::Sender<bool>,
    },
    /// Look a key up in the DHT; only valid values are told.
    Find {
        /// The key.
        key: dht::Key,
        /// The first valid value ends the look-up.
        is_first_enough: bool,
        /// The values.
        reply: oneshot::Sender<Vec<Valid>>,
    },
    /// Who is listed as an indexer?
    Providers {
        /// Their ids.
        reply: oneshot::Sender<Vec<PeerId>>,
    },
    /// List us as an indexer.
    Provide,
    /// List us no longer.
    Unprovide,
    /// Tell the peer book again where we listen and who is connected.
    TellPeers,
    /// Who stands in the routing table of the DHT?
    Table {
        /// Its bins, the farthest half of all ids first.
        reply: Reply<Vec<BinView>>,
    },
    /// Gossip to whoever takes this topic.
    Publish {
        /// About what: the topic's name on the wire.
        topic: &'static str,
        /// The message.
        text: Vec<u8>,
        /// Somebody was there to hear it.
        reply: oneshot::Sender<bool>,
    },
}

/// The actor.
pub struct SwarmActor;

/// What one life is given.
pub struct Args {
    /// Its seat.
    pub seat: Seat<Msg>,
    /// The daemon's.
    pub context: Context,
}

/// What it holds.
pub struct State {
    commands: mpsc::Sender<Command>,
    _driver: AbortOnDropHandle<()>,
    _acceptor: AbortOnDropHandle<()>,
}

/// What it is told.
pub enum Msg {
    /// Do this.
    Do(Command),
    /// The driver ended, which it never should.
    Ended(String),
}

/// Why the swarm ended.
#[derive(Debug, thiserror::Error)]
#[error("the swarm's driver ended: {0}")]
struct DriverEnded(String);

impl Actor for SwarmActor {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (greet, greetings) = mpsc::channel(GREETINGS_MAX);
        let (swarm, inbound) = build(&context)?;
        let driver = Driver::new(swarm, receiver, (greet.clone(), greetings), context.clone());
        let accept = serve::accept(context, inbound, greet);
        Ok(State {
            commands,
            _driver: watched(&seat, "driver", driver.run()),
            _acceptor: watched(&seat, "acceptor", accept),
        })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            // A command that finds the driver busy is dropped, and its asker hears that by its reply.
            Msg::Do(command) => drop(state.commands.try_send(command)),
            Msg::Ended(cause) => return Err(DriverEnded(cause).into()),
        }
        Ok(())
    }
}

/// Runs a task that must not end: its end, or panic, ends the actor, and its port is free before the next life.
fn watched(
    seat: &Seat<Msg>,
    what: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) -> AbortOnDropHandle<()> {
    let hold: Hold = seat.hold();
    let me = seat.me().clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let _hold = hold;
        let ended = std::panic::AssertUnwindSafe(task).catch_unwind().await;
        let cause = if ended.is_err() { format!("{what} panicked") } else { format!("{what} returned") };
        drop(me.tell(crate::supervision::Class::Own, Msg::Ended(cause)));
    }))
}

fn build(context: &Context) -> Result<(Swarm<Behaviour>, mpsc::Receiver<Inbound>), ActorProcessingErr> {
    let keypair = context.keys.to_libp2p();
    let settings = &context.settings.network;
    let transport = match &context.network_key {
        Some(keys) => both_keys::build(&keypair, keys, &settings.listen_next)?,
        None => transport::build(&keypair, None)?,
    };
    let (to, inbound) = mpsc::channel(INBOUND_MAX);
    // Anything else is refused by negotiation.
    let served = Protocol::ALL.into_iter().filter(|protocol| protocol.is_taken_by(context.own.role));
    let accepts = served.map(|protocol| Accept::new(protocol, to.clone()));
    let streams = Streams::new(streams::Settings::default(), accepts);
    let clock = context.tree.clock().clone();
    let doors = doors::Doors::new(door_settings(settings.profile), move || clock.mono());
    let parts = Parts {
        keypair: &keypair,
        agent: &context.own.agent,
        is_indexer: context.own.role.indexer,
        profile: settings.profile,
        mdns: settings.mdns,
    };
    let behaviour = Behaviour::compose(&parts, doors, streams)?;
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_MAX);
    let mut swarm = Swarm::new(transport, behaviour, context.own.peer_id, config);
    for addr in &settings.listen {
        swarm.listen_on(addr.clone())?;
    }
    for addr in &settings.announce {
        swarm.add_external_address(addr.clone());
    }
    Ok((swarm, inbound))
}

fn door_settings(profile: Profile) -> doors::Settings {
    doors::Settings {
        half_open_per_address: profile.half_open_per_address(),
        new_per_second_and_address: profile.connections_per_second(),
        ..doors::Settings::default()
    }
}
