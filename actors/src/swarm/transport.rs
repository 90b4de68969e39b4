//! TCP and names, the pre-shared key, Noise, Yamux: from a socket to an authenticated peer, each step with its deadline.
//!
//! The steps are written out instead of stacked with libp2p's builder, so that a failure knows how far it had come: a peer
//! that has exchanged nonces and then talks gibberish most likely holds another pre-shared key, and the operator is told.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task,
    time::Duration,
};

use either::Either;
use futures::{AsyncRead, AsyncWrite};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        ConnectedPoint,
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent, timeout::TransportTimeout},
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, Version},
    },
    dns, identity, multiaddr, noise,
    pnet::{PnetConfig, PnetError, PreSharedKey},
    swarm::{DialError, ListenError},
    tcp,
};
use multistream_select::{Negotiated, NegotiationError, dialer_select_proto, listener_select_proto};
use socket2::{Domain, Socket, Type};
use tokio::time::{Instant, timeout_at};

use super::muxer::Muxer;

/// To resolve a name and to connect, without the handshake.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(4);

/// From an open socket to an authenticated, multiplexed connection, in both directions.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(4);

/// Connections that the kernel holds for us until the swarm takes them.
const BACKLOG: u32 = 1024;

const NOISE: &str = "/noise";
const YAMUX: &str = "/yamux/1.0.0";

/// Why the transport cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Noise cannot work with this identity.
    #[error("the identity cannot sign for noise: {0}")]
    Identity(#[from] noise::Error),
    /// The next key's port cannot be listened on.
    #[error("cannot listen with the next pre-shared key at {address}: {cause}")]
    Next {
        /// Where.
        address: Multiaddr,
        /// What the system says.
        cause: Box<TransportError<UpgradeError>>,
    },
}

/// How far a connection came before it failed.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// No socket: name, route, refusal or silence.
    #[error("cannot connect: {0}")]
    Connect(Box<dyn std::error::Error + Send + Sync>),
    /// The other side sent no nonce: it expects no pre-shared key, does not speak libp2p, or is frozen.
    #[error("no pre-shared key handshake: {0}")]
    Key(PnetError),
    /// As above, and it took too long.
    #[error("no pre-shared key handshake within {HANDSHAKE_WITHIN:?}")]
    KeyLate,
    /// Noise could not even be talked about: what came was not readable.
    #[error("unreadable before noise: {0}")]
    Unreadable(io::Error),
    /// The noise handshake did not end in time.
    #[error("no noise handshake within {HANDSHAKE_WITHIN:?}")]
    NoiseLate {
        /// The pre-shared key handshake had been done.
        keyed: bool,
    },
    /// The noise handshake was readable and failed.
    #[error("noise: {0}")]
    Noise(noise::Error),
    /// No agreement on Yamux.
    #[error("multiplexing: {0}")]
    Mux(NegotiationError),
    /// As above, and it took too long.
    #[error("no multiplexing within {HANDSHAKE_WITHIN:?}")]
    MuxLate,
}

impl UpgradeError {
    /// Whether two different pre-shared keys, or a key on one side only, are the likely cause.
    ///
    /// With different keys the nonces pass and everything after them is noise to the other side: it is unreadable, or its
    /// first bytes read as a length that never arrives, and one of the two gives up.
    #[must_use]
    pub const fn is_key_mismatch_likely(&self) -> bool {
        matches!(self, Self::Unreadable(_) | Self::NoiseLate { keyed: true })
    }
}

/// Whether a dial failed most likely because the peer holds another pre-shared key (or only one side has one).
#[must_use]
pub fn is_key_mismatch_likely(error: &DialError) -> bool {
    match error {
        DialError::Transport(tries) => tries.iter().any(|(_, error)| is_mismatch(error)),
        _ => false,
    }
}

/// The same for a connection that came in.
#[must_use]
pub fn is_inbound_key_mismatch_likely(error: &ListenError) -> bool {
    match error {
        ListenError::Transport(error) => is_mismatch(error),
        _ => false,
    }
}

fn is_mismatch(error: &TransportError<io::Error>) -> bool {
    let TransportError::Other(error) = error else { return false };
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<UpgradeError>())
        .is_some_and(UpgradeError::is_key_mismatch_likely)
}

/// The transport of a member with this identity, in the private network of `key` if there is one.
///
/// Without a readable resolver configuration it still connects to addresses, not to names.
///
/// # Errors
/// When the identity cannot sign for Noise.
pub fn build(
    identity: &identity::Keypair,
    key: Option<[u8; 32]>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, BuildError> {
    over(connector(), identity, key)
}

/// The same over sockets that come from elsewhere: the handshake, without names and without the time to connect.
///
/// # Errors
/// As [`build`].
pub fn over<T>(
    connector: T,
    identity: &identity::Keypair,
    key: Option<[u8; 32]>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, BuildError>
where
    T: Transport<Error: Send + Sync, Dial: Send, ListenerUpgrade: Send> + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    Ok(secured(connector, identity, key)?.boxed())
}

/// The transport of [`build`] before its type is forgotten.
pub(super) fn with_key(identity: &identity::Keypair, key: [u8; 32]) -> Result<impl Secured + use<>, BuildError> {
    secured(connector(), identity, Some(key))
}

/// A transport that leads to an authenticated peer and knows how far it came where it failed.
pub(super) trait Secured:
    Transport<Output = (PeerId, StreamMuxerBox), Error = UpgradeError, Dial: Send, ListenerUpgrade: Send>
    + Send
    + Unpin
    + 'static
{
}

impl<T> Secured for T where
    T: Transport<Output = (PeerId, StreamMuxerBox), Error = UpgradeError, Dial: Send, ListenerUpgrade: Send>
        + Send
        + Unpin
        + 'static
{
}

fn secured<T>(
    connector: T,
    identity: &identity::Keypair,
    key: Option<[u8; 32]>,
) -> Result<impl Secured + use<T>, BuildError>
where
    T: Transport<Error: Send + Sync, Dial: Send, ListenerUpgrade: Send> + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let noise = noise::Config::new(identity)?;
    let key = key.map(PreSharedKey::new);
    Ok(connector
        .and_then(move |socket, point| secure(socket, point, key, noise))
        .map_err(|error| error.either(|connect| UpgradeError::Connect(connect.into()), |upgrade| upgrade)))
}

type Tcp = FreshPorts<tcp::tokio::Transport>;

fn connector() -> TransportTimeout<Either<dns::tokio::Transport<Tcp>, Tcp>> {
    let tcp = || FreshPorts(tcp::tokio::Transport::new(tcp::Config::new().nodelay(true).listen_backlog(BACKLOG)));
    let either = match dns::tokio::Transport::system(tcp()) {
        Ok(named) => Either::Left(named),
        Err(error) => {
            tracing::warn!(%error, "no resolver configuration, names in addresses cannot be dialled");
            Either::Right(tcp())
        }
    };
    TransportTimeout::with_outgoing_timeout(either, CONNECT_WITHIN)
}

async fn secure<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    socket: S,
    point: ConnectedPoint,
    key: Option<PreSharedKey>,
    noise: noise::Config,
) -> Result<(PeerId, StreamMuxerBox), UpgradeError> {
    let by = Instant::now() + HANDSHAKE_WITHIN;
    let side = Side::of(&point);
    let Some(key) = key else {
        return authenticate(socket, side, false, noise, by).await;
    };
    let keyed = timeout_at(by, PnetConfig::new(key).handshake(socket)).await;
    let socket = keyed.map_err(|_| UpgradeError::KeyLate)?.map_err(UpgradeError::Key)?;
    authenticate(socket, side, true, noise, by).await
}

async fn authenticate<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    socket: S,
    side: Side,
    keyed: bool,
    noise: noise::Config,
    by: Instant,
) -> Result<(PeerId, StreamMuxerBox), UpgradeError> {
    let proved = timeout_at(by, async {
        let socket = side.agree(socket, NOISE).await.map_err(|error| UpgradeError::Unreadable(error.into()))?;
        let proof = match side {
            Side::Dialer => noise.upgrade_outbound(socket, NOISE).await,
            Side::Listener => noise.upgrade_inbound(socket, NOISE).await,
        };
        // A dialer proposes and goes on; what the listener made of the proposal shows in Noise's first read.
        proof.map_err(|error| match error {
            noise::Error::Io(error) => UpgradeError::Unreadable(error),
            error => UpgradeError::Noise(error),
        })
    });
    let (peer, socket) = proved.await.map_err(|_| UpgradeError::NoiseLate { keyed })??;
    let agreed = timeout_at(by, side.agree(socket, YAMUX)).await;
    let socket = agreed.map_err(|_| UpgradeError::MuxLate)?.map_err(UpgradeError::Mux)?;
    Ok((peer, StreamMuxerBox::new(Muxer::new(socket, side.mode()))))
}

#[derive(Clone, Copy)]
enum Side {
    Dialer,
    Listener,
}

impl Side {
    fn of(point: &ConnectedPoint) -> Self {
        match point {
            ConnectedPoint::Dialer { role_override, .. } if role_override.is_dialer() => Self::Dialer,
            _ => Self::Listener,
        }
    }

    const fn mode(self) -> yamux::Mode {
        match self {
            Self::Dialer => yamux::Mode::Client,
            Self::Listener => yamux::Mode::Server,
        }
    }

    async fn agree<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        socket: S,
        protocol: &'static str,
    ) -> Result<Negotiated<S>, NegotiationError> {
        let (_, socket) = match self {
            Self::Dialer => dialer_select_proto(socket, [protocol], Version::V1Lazy).await?,
            Self::Listener => listener_select_proto(socket, [protocol]).await?,
        };
        Ok(socket)
    }
}

/// TCP that dials from a fresh port and does not share the port it listens on.
///
/// libp2p listens with `SO_REUSEPORT` and dials from the listening port by default. The first lets a second process of
/// the same user take half of our connections without a word; the second makes a re-dial collide with a connection
/// that has just closed.
struct FreshPorts<T>(T);

impl<T: Transport<Error = io::Error> + Unpin> Transport for FreshPorts<T> {
    type Output = T::Output;
    type Error = io::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        probe(&addr).map_err(TransportError::Other)?;
        self.0.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<T::Dial, TransportError<io::Error>> {
        self.0.dial(addr, DialOpts { port_use: PortUse::New, ..opts })
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> task::Poll<TransportEvent<T::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// Binds the address without sharing it, and lets it go: fails when another socket listens there.
fn probe(addr: &Multiaddr) -> io::Result<()> {
    let mut parts = addr.iter();
    let ip: IpAddr = match parts.next() {
        Some(multiaddr::Protocol::Ip4(ip)) => ip.into(),
        Some(multiaddr::Protocol::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    let Some(multiaddr::Protocol::Tcp(port @ 1..)) = parts.next() else { return Ok(()) };
    let socket = Socket::new(Domain::for_address((ip, port).into()), Type::STREAM, None)?;
    // As libp2p does, or listening on both families would look taken by ourselves.
    if ip.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier life that linger in the kernel are no listeners.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((ip, port)).into())
}
