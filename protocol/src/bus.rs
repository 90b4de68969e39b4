//! The bus: what the applications of an organisation say to its member, and what they hear from it.
//!
//! A message is a subject, which is the verb, and an envelope. The envelope is the predecessor's, and is read as its
//! applications write it: field names in any case and with or without underscores, a payload as an object, as base64 of
//! JSON or as JSON in a text. What is read is an [`Order`], whole and typed, or an error that names the field; nothing
//! half understood is carried out.
//!
//! What we announce has the same envelope and two fields more, `origin` and `sig`. The bus is the organisation's own
//! but its subjects are shared, and some verbs go both ways: our own message is known by its signature, never by a name
//! that anybody can write.

mod announcement;
mod fields;
mod order;
mod settings;

use std::fmt;

use libp2p_identity::PeerId;

pub use self::{
    announcement::{Announcement, AnnouncementError, Author, author},
    fields::OrderError,
    order::read,
    settings::{DUPLICATE_WINDOW_MIN, JetStream, Password, SUBJECT_BYTES_MAX, Settings, SettingsError, URLS_MAX},
};
pub use crate::search::resources::Scope;
use crate::{
    catalogue::{Kind, ResourceQuery},
    event::{self, Verb},
    relation::Relation,
};

/// Bytes of a whole envelope: what NATS carries as it is delivered.
pub const ENVELOPE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of a payload, decoded: what an event between members takes, so that whatever is handed on fits.
pub const PAYLOAD_BYTES_MAX: usize = event::PAYLOAD_BYTES_MAX;

/// Bytes of a text that names something: an application, a user, a group, a datatype.
pub const TEXT_BYTES_MAX: usize = event::TEXT_BYTES_MAX;

/// Peers to which one consideration goes. A workflow has a handful of partners.
pub const PEERS_MAX: usize = 64;

/// What an application asks for; the last part of the subject says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VerbIn {
    /// Keep a resource or a peer, and tell nobody.
    CreateResource,
    /// Let a resource or a peer go, and tell nobody.
    RemoveResource,
    /// Do what the payload's `action` says, with other members.
    PropagationEvent,
}

/// What we tell applications; the last part of the subject says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VerbOut {
    /// A partner created or changed something, or a peer's record was resolved.
    CreateResource,
    /// A partner removed something.
    RemoveResource,
    /// A search found something, or ended.
    SearchEvent,
    /// A step of a plan arrived.
    PlannerExecution,
    /// A consideration arrived.
    ConsidersEvent,
    /// A configuration of Admiralty arrived.
    AdmiraltyConfigEvent,
    /// A configuration of MinIO arrived.
    MinioConfigEvent,
    /// A creator said whether a signature is its own.
    VerifyResource,
    /// Something is wrong with this member.
    Alert,
    /// What this member did in a day.
    Report,
}

impl VerbOut {
    /// Every verb.
    pub const ALL: [Self; 10] = [
        Self::CreateResource,
        Self::RemoveResource,
        Self::SearchEvent,
        Self::PlannerExecution,
        Self::ConsidersEvent,
        Self::AdmiraltyConfigEvent,
        Self::MinioConfigEvent,
        Self::VerifyResource,
        Self::Alert,
        Self::Report,
    ];

    /// Its name on the bus and in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateResource => "create_resource",
            Self::RemoveResource => "remove_resource",
            Self::SearchEvent => "search_event",
            Self::PlannerExecution => "planner_execution",
            Self::ConsidersEvent => "considers_event",
            Self::AdmiraltyConfigEvent => "admiralty_config_event",
            Self::MinioConfigEvent => "minio_config_event",
            Self::VerifyResource => "verify_resource",
            Self::Alert => "alert",
            Self::Report => "report",
        }
    }

    /// The verb of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name() == name)
    }
}

impl fmt::Display for VerbOut {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

/// What an application wants, and on whose behalf.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// The application, in its own words.
    pub app: String,
    /// The user; empty where there is none, which a search may not have.
    pub user: String,
    /// The user's groups.
    pub groups: Vec<String>,
    /// What is to be done.
    pub what: What,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Keep a resource of ours.
    Put {
        /// What the envelope said it is; the text may say it too.
        kind: Option<Kind>,
        /// The resource as the application wrote it: one for [`crate::catalogue::Draft::read`].
        text: String,
        /// Tell partners.
        spread: bool,
    },
    /// Let a resource of ours go.
    Remove {
        /// What the envelope said it is.
        kind: Option<Kind>,
        /// Which.
        id: String,
        /// The version that the application chose for the removal, if it chose one.
        version: Option<u64>,
        /// Tell partners.
        spread: bool,
    },
    /// Keep what is known of a peer.
    PutPeer {
        /// Which.
        peer: PeerId,
        /// What it is to us from now on; nothing leaves it as it is.
        relation: Option<Relation>,
        /// Its name; empty leaves it as it is.
        name: String,
        /// All that the application wrote.
        text: String,
    },
    /// Forget what a peer is to us.
    RemovePeer {
        /// Which.
        peer: PeerId,
    },
    /// Hand something to one peer: a booking, a purchase, a peer's own update, a configuration.
    Hand {
        /// As which event.
        verb: Verb,
        /// What it is.
        datatype: String,
        /// To whom.
        to: PeerId,
        /// JSON.
        payload: Vec<u8>,
    },
    /// Hand a consideration to peers.
    Considers {
        /// What it is about.
        datatype: String,
        /// To whom: at least one, at most [`PEERS_MAX`].
        to: Vec<PeerId>,
        /// JSON.
        payload: Vec<u8>,
    },
    /// Open or feed a planner session.
    Planner {
        /// With whom; nothing for all that are open.
        to: Option<PeerId>,
        /// JSON.
        payload: Vec<u8>,
    },
    /// Close a planner session.
    ClosePlanner {
        /// With whom; nothing for all that are open.
        to: Option<PeerId>,
    },
    /// Search for peers.
    SearchPeers {
        /// A peer id, a DID or part of a name.
        text: String,
    },
    /// Search for resources.
    SearchResources {
        /// Among whom.
        scope: Scope,
        /// What for.
        query: ResourceQuery,
    },
    /// End the user's search.
    CloseSearch {
        /// That for resources; else that for peers.
        resources: bool,
    },
    /// Ask a creator whether a signature is its own.
    Verify {
        /// Whom.
        creator: PeerId,
        /// Of which resource.
        id: String,
        /// Of which version; nothing for the newest.
        version: Option<u64>,
        /// The signature.
        signature: String,
    },
}

#[cfg(test)]
mod tests;
