//! Two pre-shared keys at once, while the network's key is being replaced.
//!
//! A listener speaks one key: the key in force on the ports that are configured, the next one on ports beside them. A dialer
//! cannot see which key a port speaks, so it tries the one in force, and the next one as soon as it was not understood or has
//! been waited for. At most one of the two can succeed, since the other side has one answer.

use std::{pin::Pin, task, time::Duration};

use futures::{
    FutureExt as _,
    future::{BoxFuture, select_ok},
};
use libp2p::{
    Multiaddr, PeerId, Transport, TransportError,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, TransportEvent},
    },
    identity,
};
use protocol::keyring::Keyring;
use tokio::time::timeout;

use super::transport::{self, BuildError, Secured, UpgradeError};

/// How long the key in force is tried alone. A wrong key is mostly found at once; in a quarter of the cases its first bytes
/// read as a length that never comes, and without this the handshake's whole deadline would pass.
const HEAD_START: Duration = Duration::from_millis(500);

/// What a connection gives.
type Connected = (PeerId, StreamMuxerBox);

/// The transport of a member that holds these keys, and listens on `listen_next` with the next one if there is one.
///
/// # Errors
/// When the identity cannot sign for Noise, or an address of the next key cannot be listened on.
pub fn build(
    identity: &identity::Keypair,
    keys: &Keyring,
    listen_next: &[Multiaddr],
) -> Result<Boxed<Connected>, BuildError> {
    let Some(next) = keys.next() else {
        return transport::build(identity, Some(*keys.current().as_bytes()));
    };
    let current = transport::with_key(identity, *keys.current().as_bytes())?;
    let mut next = transport::with_key(identity, *next.as_bytes())?;
    for address in listen_next {
        // The swarm knows its listeners by what they tell, and has not to be told of these.
        next.listen_on(ListenerId::next(), address.clone())
            .map_err(|cause| BuildError::Next { address: address.clone(), cause: Box::new(cause) })?;
    }
    Ok(BothKeys { current, next, is_nexts_turn: false }.boxed())
}

/// A transport for each key.
struct BothKeys<T> {
    current: T,
    next: T,
    /// Whose listeners are looked at first, in turns, so that a crowd at one does not starve the other.
    is_nexts_turn: bool,
}

impl<T: Secured> Transport for BothKeys<T> {
    type Output = Connected;
    type Error = UpgradeError;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = BoxFuture<'static, Result<Connected, UpgradeError>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<UpgradeError>> {
        self.current.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.current.remove_listener(id) || self.next.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<UpgradeError>> {
        // Nothing is done before they are polled.
        let current = self.current.dial(addr.clone(), opts)?.boxed();
        let next = self.next.dial(addr, opts)?.boxed();
        Ok(understood(current, next).boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> task::Poll<TransportEvent<T::ListenerUpgrade, UpgradeError>> {
        let Self { current, next, is_nexts_turn } = &mut *self;
        *is_nexts_turn = !*is_nexts_turn;
        let (first, second) = if *is_nexts_turn { (next, current) } else { (current, next) };
        match Pin::new(first).poll(cx) {
            task::Poll::Pending => Pin::new(second).poll(cx),
            ready => ready,
        }
    }
}

/// The connection by whichever key the other side understands.
async fn understood<D>(mut current: D, next: D) -> Result<Connected, UpgradeError>
where
    D: Future<Output = Result<Connected, UpgradeError>> + Unpin,
{
    match timeout(HEAD_START, &mut current).await {
        Ok(Ok(connected)) => Ok(connected),
        Ok(Err(error)) if error.is_key_mismatch_likely() => next.await,
        // Nobody is there, or it was understood and refused: another key changes nothing.
        Ok(Err(error)) => Err(error),
        Err(_) => select_ok([current, next]).await.map(|(connected, _)| connected),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::StreamExt as _;
    use libp2p::core::{Endpoint, transport::PortUse};
    use protocol::identity::PreSharedKey;

    use super::*;

    fn key(byte: u8) -> PreSharedKey {
        PreSharedKey::from_bytes([byte; 32])
    }

    fn one(byte: u8) -> Keyring {
        key(byte).into()
    }

    fn both() -> Keyring {
        one(1).begin(key(2)).unwrap()
    }

    /// Listens and answers until the test ends; tells where, one address for each key that listens.
    async fn listener(keys: &Keyring) -> (PeerId, Vec<Multiaddr>) {
        let identity = identity::Keypair::generate_ed25519();
        let any: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        let next: Vec<Multiaddr> = keys.next().map(|_| any.clone()).into_iter().collect();
        let mut transport = build(&identity, keys, &next).unwrap();
        let id = ListenerId::next();
        transport.listen_on(id, any).unwrap();
        let mut addresses = Vec::new();
        while addresses.len() < 1 + next.len() {
            if let Some(TransportEvent::NewAddress { listener_id, listen_addr }) = transport.next().await {
                addresses.push((listener_id != id, listen_addr));
            }
        }
        addresses.sort_by_key(|(is_next, _)| *is_next);
        tokio::spawn(async move {
            while let Some(event) = transport.next().await {
                if let TransportEvent::Incoming { upgrade, .. } = event {
                    tokio::spawn(upgrade);
                }
            }
        });
        (identity.public().to_peer_id(), addresses.into_iter().map(|(_, address)| address).collect())
    }

    async fn dial(keys: &Keyring, address: &Multiaddr) -> std::io::Result<PeerId> {
        let mut transport = build(&identity::Keypair::generate_ed25519(), keys, &[]).unwrap();
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        Ok(transport.dial(address.clone(), opts).unwrap().await?.0)
    }

    #[tokio::test]
    async fn who_holds_one_of_the_keys_is_understood_at_its_port_and_only_there() {
        let (peer, addresses) = listener(&both()).await;
        for (number, address) in addresses.iter().enumerate() {
            for byte in [1, 2] {
                let is_its_key = usize::from(byte) == number + 1;
                let dialled = dial(&one(byte), address).await;
                assert_eq!(dialled.as_ref().ok(), is_its_key.then_some(&peer), "key {byte} at port {number}");
            }
        }
    }

    #[tokio::test]
    async fn who_holds_both_is_understood_by_whoever_holds_either_at_any_port() {
        for keys in [one(1), one(2), both()] {
            let (peer, addresses) = listener(&keys).await;
            for address in addresses {
                // Chance decides whether a wrong key is found at once or has to be waited for.
                for _ in 0..8 {
                    assert_eq!(dial(&both(), &address).await.unwrap(), peer, "{keys}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_stranger_to_both_keys_is_told_that_keys_differ() {
        let (_, addresses) = listener(&one(3)).await;
        let error = dial(&both(), &addresses[0]).await.unwrap_err();
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<UpgradeError>()).unwrap();
        assert!(cause.is_key_mismatch_likely(), "{cause}");
    }

    #[tokio::test]
    async fn where_nobody_listens_no_second_key_is_tried() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", free.port()).parse().unwrap();
        let began = tokio::time::Instant::now();
        let error = dial(&both(), &address).await.unwrap_err();
        assert!(error.to_string().contains("cannot connect"), "{error}");
        assert!(began.elapsed() < HEAD_START);
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_its_cause() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port()).parse().unwrap();
        let error = build(&identity::Keypair::generate_ed25519(), &both(), std::slice::from_ref(&address)).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
