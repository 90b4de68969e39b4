//! `PeerRecord` and `IndexerRecord`: who a peer is and where to reach it.

use jiff::Timestamp;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

/// The signed statement of who a peer is and where to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRecord {
    /// 1 to 64 characters.
    pub name: String,
    /// `did:key:…` of `pub_key`, or a UUID bound to the first key seen for it.
    pub did: String,
    /// Base64 of the raw 32 bytes.
    pub pub_key: String,
    /// Derives from `pub_key`.
    #[serde(with = "crate::wire::text")]
    pub peer_id: PeerId,
    /// HTTP API of the organisation.
    #[serde(default)]
    pub api_url: String,
    /// A full address of the peer.
    #[serde(default)]
    pub stream_address: String,
    /// At most 8.
    #[serde(default)]
    pub addrs: Vec<Multiaddr>,
    /// The organisation's bus.
    #[serde(default)]
    pub nats_address: String,
    /// The organisation's wallet.
    #[serde(default)]
    pub wallet_address: String,
    /// Protocol ids and topics.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Start of the process.
    pub born_at: Timestamp,
    /// Not valid from here on.
    pub expiry_date: Timestamp,
    /// The higher one of two valid records wins.
    pub seq: u64,
}

/// What an indexer says of itself in the DHT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexerRecord {
    /// The indexer.
    #[serde(with = "crate::wire::text")]
    pub peer_id: PeerId,
    /// Where to reach it.
    #[serde(default)]
    pub addrs: Vec<Multiaddr>,
    /// Free text of its operator.
    #[serde(default)]
    pub region: String,
    /// `max_nodes`.
    pub capacity: u32,
    /// Sessions ÷ capacity.
    pub fill_rate: f64,
    /// Sessions.
    pub peer_count: u32,
    /// Salt of `peers_digest`, base64.
    #[serde(default)]
    pub salt: String,
    /// At most 32 salted hashes of 8 bytes each, base64, of connected nodes' ids.
    #[serde(default)]
    pub peers_digest: Vec<String>,
    /// Start of the process.
    pub born_at: Timestamp,
    /// Not valid from here on.
    pub expiry_date: Timestamp,
    /// The higher one of two valid records wins.
    pub seq: u64,
    /// Base64 of the raw 32 bytes.
    pub pub_key: String,
}
