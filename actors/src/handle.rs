//! The way in for the edge: what the admin endpoint may ask of a running tree.

use std::{path::PathBuf, time::Duration};

use tokio::sync::mpsc;

use crate::view::{
    ActorView, EventView, IndexerView, PeerView, RecordView, SearchView, SessionView, StatusView, Wanted,
};

/// Why the tree did not answer the edge.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AskError {
    /// The mailbox is full.
    #[error("{actor} is busy: its mailbox is full")]
    Busy {
        /// Who.
        actor: String,
    },
    /// It is being restarted, or its role is off.
    #[error("{actor} is away")]
    Away {
        /// Who.
        actor: String,
    },
    /// It did not answer in time.
    #[error("{actor} did not answer within {after:?}")]
    Late {
        /// Who.
        actor: String,
        /// The deadline.
        after: Duration,
    },
    /// The question makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There is nothing by that name.
    #[error("no such {what}: {name}")]
    Unknown {
        /// Kind of thing.
        what: &'static str,
        /// What was asked for.
        name: String,
    },
}

/// A fault to inject into one actor, for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its next message panics.
    Panic,
    /// Its next message is an error.
    Error,
    /// Its next message takes this long.
    Stall(Duration),
}

/// A handle to a running tree; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    // Replaced by the tree's addresses.
    _data: PathBuf,
}

#[allow(clippy::unused_async)]
impl Handle {
    /// Every actor, read from the vitals and never asked; supervisors before their children.
    #[must_use]
    pub fn actors(&self) -> Vec<ActorView> {
        unimplemented!()
    }

    /// The member's overview.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn status(&self) -> Result<StatusView, AskError> {
        unimplemented!()
    }

    /// Every known peer, connected ones first.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn peers(&self) -> Result<Vec<PeerView>, AskError> {
        unimplemented!()
    }

    /// The pool, best first.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn indexers(&self) -> Result<Vec<IndexerView>, AskError> {
        unimplemented!()
    }

    /// The sessions of an indexer; empty for a node.
    ///
    /// # Errors
    /// When the tree does not answer in time.
    pub async fn sessions(&self) -> Result<Vec<SessionView>, AskError> {
        unimplemented!()
    }

    /// Records by DID, peer id or exact name: own, then sessions, then indexers, then the DHT. Empty when there is none.
    ///
    /// # Errors
    /// When the text is none of the three, or the tree does not answer in time.
    pub async fn record(&self, key: &str) -> Result<Vec<RecordView>, AskError> {
        let _ = key;
        unimplemented!()
    }

    /// Starts a search; the same `user`'s running one ends. Dropping the receiver closes it.
    ///
    /// # Errors
    /// When `wanted` names not exactly one criterion, or the tree does not answer in time.
    pub async fn search(&self, user: &str, wanted: Wanted) -> Result<mpsc::Receiver<SearchView>, AskError> {
        let _ = (user, wanted);
        unimplemented!()
    }

    /// What happened after event `since`, oldest first; the journal is bounded.
    #[must_use]
    pub fn events(&self, since: u64) -> Vec<EventView> {
        let _ = since;
        unimplemented!()
    }

    /// The metrics in OpenMetrics text.
    #[must_use]
    pub fn metrics(&self) -> String {
        unimplemented!()
    }

    /// Injects a fault into the actor with this path.
    ///
    /// # Errors
    /// When there is no such actor.
    pub fn inject(&self, actor: &str, fault: Fault) -> Result<(), AskError> {
        let _ = (actor, fault);
        unimplemented!()
    }
}
