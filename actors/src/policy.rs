//! What peers are to us, and who is asked in a search.

use protocol::{PeerId, relation::Relation};

use crate::supervision::Reply;

/// What it is asked.
pub enum Msg {
    /// What this peer is to us.
    Relation {
        /// The peer.
        peer: PeerId,
        /// Nothing while the table is not read back.
        reply: Reply<Option<Relation>>,
    },
    /// Peers that are partners, or known and partners, bounded.
    Peers {
        /// Whether being known is enough.
        is_known_enough: bool,
        /// Who they are.
        reply: Reply<Vec<PeerId>>,
    },
}
