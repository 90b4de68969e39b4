//! Why a beat or a record is not taken.

use std::sync::Arc;

use libp2p_identity::PeerId;
use thiserror::Error;

use crate::{
    behaviour::Offence,
    json::JsonError,
    names::NameError,
    wire::{AddrInfo, RefusalCode, Refused},
};

/// What is wrong with a DID.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DidFault {
    /// It is none.
    #[error("got no DID, expected did:key:z… or a UUID")]
    Malformed,
    /// It is the `did:key` of another key.
    #[error("got the DID of another key")]
    NotTheKeys,
    /// The peer had another one.
    #[error("got another DID than before, expected \"{held}\"")]
    Changed {
        /// The one that it had.
        held: Arc<str>,
    },
    /// It is bound to the first key that was seen for it, which is another's.
    #[error("got a DID that is bound to {to}")]
    Bound {
        /// Whose it is.
        to: PeerId,
    },
}

impl DidFault {
    fn offence(&self) -> Option<Offence> {
        (*self != Self::Malformed).then_some(Offence::ChangedDid)
    }

    fn code(&self) -> RefusalCode {
        if *self == Self::Malformed { RefusalCode::Invalid } else { RefusalCode::NotYours }
    }
}

/// Why a heartbeat is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BeatError {
    /// It names another peer than the connection's.
    #[error("got a heartbeat of {got}, expected one of the connection's own peer")]
    NotYours {
        /// Whom it names.
        got: PeerId,
    },
    /// Its name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Its DID is not the peer's.
    #[error(transparent)]
    Did(#[from] DidFault),
    /// Every session is taken; those that exist are served on.
    #[error("every one of {max_nodes} sessions is taken")]
    Full {
        /// Capacity.
        max_nodes: u32,
        /// Whole seconds.
        retry_after: u64,
        /// Others that may have room.
        alternatives: Vec<AddrInfo>,
    },
    /// Its operator lets the nodes go; sessions that exist are served until they have gone.
    #[error("this indexer lets its nodes go and takes no new ones")]
    Drained {
        /// Whole seconds.
        retry_after: u64,
        /// Others that may have room.
        alternatives: Vec<AddrInfo>,
    },
    /// It is about to go; sessions that exist are served until then.
    #[error("this indexer is leaving and takes no new nodes")]
    Leaving {
        /// Whole seconds.
        retry_after: u64,
        /// Others that may have room.
        alternatives: Vec<AddrInfo>,
    },
}

impl BeatError {
    /// The refusal in the words of the wire, of the question with this `seq`.
    #[must_use]
    pub fn refusal(&self, seq: u64) -> Refused {
        let code = match self {
            Self::NotYours { .. } => RefusalCode::NotYours,
            Self::Name(_) => RefusalCode::Invalid,
            Self::Did(fault) => fault.code(),
            Self::Full { .. } | Self::Drained { .. } | Self::Leaving { .. } => RefusalCode::Busy,
        };
        let mut refused = Refused::new(code, self.to_string());
        refused.seq = Some(seq);
        if let Self::Full { retry_after, alternatives, .. }
        | Self::Drained { retry_after, alternatives }
        | Self::Leaving { retry_after, alternatives } = self
        {
            refused.retry_after = Some(*retry_after);
            refused.alternatives.clone_from(alternatives);
        }
        refused
    }

    /// What the connection's peer is to be blamed for.
    #[must_use]
    pub fn offence(&self) -> Option<Offence> {
        match self {
            Self::Did(fault) => fault.offence(),
            Self::NotYours { .. } | Self::Name(_) | Self::Full { .. } | Self::Drained { .. } | Self::Leaving { .. } => {
                None
            }
        }
    }
}

/// Why a record is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// It cannot even be looked at.
    #[error(transparent)]
    Malformed(#[from] JsonError),
    /// It is another peer's.
    #[error("got the record of {got}, expected one of the connection's own peer")]
    NotYours {
        /// Whose it is.
        got: PeerId,
    },
    /// A newer one, or another one of this number, was accepted before.
    #[error("got seq {got}, expected more than {held}")]
    Stale {
        /// Its own.
        got: u64,
        /// The newest accepted.
        held: u64,
    },
    /// Its DID is not the peer's: an identity violation.
    #[error(transparent)]
    Did(#[from] DidFault),
    /// The peer has no session, or no longer.
    #[error("got a record of a peer without a session")]
    NoSession,
}

impl RecordError {
    /// What the connection's peer is to be blamed for.
    #[must_use]
    pub fn offence(&self) -> Option<Offence> {
        match self {
            Self::Did(fault) => fault.offence(),
            Self::Malformed(_) | Self::NotYours { .. } | Self::Stale { .. } | Self::NoSession => None,
        }
    }
}
