//! What tests of several modules make up.

#![allow(clippy::unwrap_used)]

use libp2p_identity::PeerId;

/// The peer with this number: a sha2-256 multihash, for no key is needed to be admitted, counted or banned.
pub(crate) fn peer(number: u32) -> PeerId {
    let digest = [&number.to_be_bytes()[..], &[0; 28]].concat();
    PeerId::from_bytes(&[&[0x12, 0x20][..], &digest].concat()).unwrap()
}
