//! Which DID and number are a peer's, remembered past its session.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use libp2p_identity::PeerId;

use super::DidFault;
use crate::{
    identity::{Did, peer_id_of},
    time::Mono,
};

/// Pins of identities kept at least: those of peers that left are the first to go, after more than an hour of arrivals at
/// the rate of the profile `public`.
pub const PINS_MIN: usize = 65_536;

/// A binding that is in use is told again after this, so that what is kept of it does not go stale.
pub const BIND_AGAIN_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// The DID and the newest number of one peer, remembered past its session.
#[derive(Debug)]
pub(super) struct Pin {
    did: Arc<str>,
    seq: u64,
    noted: Mono,
    /// When it was last told that it is to be written down.
    told: Mono,
}

/// Who is bound to which DID. Bounded; the peer that was silent for longest is forgotten first.
#[derive(Debug, Default)]
pub(super) struct Pins {
    pub(super) by_peer: HashMap<PeerId, Pin>,
    /// Owners of UUIDs; a `did:key` is bound by itself.
    pub(super) owners: HashMap<Arc<str>, PeerId>,
    pub(super) by_age: BTreeSet<(Mono, PeerId)>,
    max: usize,
}

impl Pins {
    /// Nobody is bound so far; at most `max` will be.
    pub(super) fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    pub(super) fn check(&self, peer: &PeerId, did: &str) -> Result<(), DidFault> {
        if let Some(pin) = self.by_peer.get(peer) {
            return if *pin.did == *did { Ok(()) } else { Err(DidFault::Changed { held: Arc::clone(&pin.did) }) };
        }
        match did.parse() {
            Ok(Did::Key(key)) if peer_id_of(&key) != *peer => Err(DidFault::NotTheKeys),
            Ok(_) => match self.owners.get(did) {
                Some(to) => Err(DidFault::Bound { to: *to }),
                None => Ok(()),
            },
            Err(_) => Err(DidFault::Malformed),
        }
    }

    /// Notes a checked DID and number; whether the binding is to be written down.
    pub(super) fn note(&mut self, peer: PeerId, did: &str, seq: u64, now: Mono) -> bool {
        self.by_age.insert((now, peer));
        if let Some(pin) = self.by_peer.get_mut(&peer) {
            if pin.noted != now {
                self.by_age.remove(&(pin.noted, peer));
            }
            pin.noted = now;
            pin.seq = pin.seq.max(seq);
            let is_due = now.since(pin.told) >= BIND_AGAIN_AFTER;
            pin.told = if is_due { now } else { pin.told };
            return is_due;
        }
        let did: Arc<str> = did.into();
        if matches!(did.parse(), Ok(Did::Uuid(_))) {
            self.owners.insert(Arc::clone(&did), peer);
        }
        self.by_peer.insert(peer, Pin { did, seq, noted: now, told: now });
        while self.by_peer.len() > self.max {
            self.forget_oldest();
        }
        true
    }

    fn forget_oldest(&mut self) {
        if let Some((_, peer)) = self.by_age.first().copied() {
            self.forget(&peer);
        }
    }

    pub(super) fn forget(&mut self, peer: &PeerId) {
        let Some(pin) = self.by_peer.remove(peer) else { return };
        self.by_age.remove(&(pin.noted, *peer));
        if self.owners.get(&pin.did) == Some(peer) {
            self.owners.remove(&pin.did);
        }
    }

    pub(super) fn seq(&self, peer: &PeerId) -> Option<u64> {
        self.by_peer.get(peer).map(|pin| pin.seq)
    }
}
