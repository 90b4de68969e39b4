//! What one connection is made of: the behaviours composed, each with its limits.

use std::time::Duration;

use libp2p::{
    StreamProtocol, gossipsub, identify,
    identity::Keypair,
    kad, mdns, ping,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};
use protocol::{PeerId, dht, profile::Profile, wire};
use sha2::{Digest as _, Sha256};

use super::{
    doors,
    gossip::{self, Gossip},
    shelf::VALUES_MAX,
    streams,
};

/// The largest gossip message; the largest honest query is under 1 KiB.
pub(super) const GOSSIP_BYTES_MAX: usize = 16 * 1024;

/// What indexers gossip about; no other topic is subscribed to or passed on.
const TOPICS_OF_INDEXERS: &[&str] =
    &[wire::TOPIC_SEARCH_PEER, wire::TOPIC_PRESENCE, wire::TOPIC_NODE_SEARCH, wire::TOPIC_BEACON];

/// What nodes gossip about.
const TOPICS_OF_NODES: &[&str] = &[wire::TOPIC_NODE_SEARCH, wire::TOPIC_BEACON];

/// A whole `/name/` value: 16 claims of at most 2 KiB each, and their brackets.
const VALUE_BYTES_MAX: usize = 33 * 1024;

/// Indexers listed under one key; with two addresses each, a whole list fits one packet of 64 KiB.
const PROVIDERS_MAX: usize = 256;

/// Keys for which we list providers.
const PROVIDED_KEYS_MAX: usize = 1_024;

/// Longer than any query among reachable peers takes; the asker's own deadline is shorter.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Kademlia packets, as the wire's contract says.
const PACKET_BYTES_MAX: usize = 64 * 1024;

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) doors: doors::Doors,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) kad: kad::Behaviour<kad::store::MemoryStore>,
    pub(super) gossip: Gossip,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) streams: streams::Streams,
}

/// What the composition depends on.
pub(super) struct Parts<'a> {
    pub(super) keypair: &'a Keypair,
    pub(super) agent: &'a str,
    pub(super) is_indexer: bool,
    pub(super) profile: Profile,
    pub(super) mdns: bool,
}

/// A part that could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ComposeError {
    #[error("gossip: {0}")]
    Gossip(String),
    #[error("mdns: {0}")]
    Mdns(#[from] std::io::Error),
}

impl Behaviour {
    pub(super) fn compose(
        parts: &Parts<'_>,
        doors: doors::Doors,
        streams: streams::Streams,
    ) -> Result<Self, ComposeError> {
        let own = parts.keypair.public().to_peer_id();
        let mdns = match parts.mdns {
            true => Some(mdns::tokio::Behaviour::new(mdns::Config::default(), own)?),
            false => None,
        };
        Ok(Self {
            doors,
            identify: identify_behaviour(parts),
            ping: ping::Behaviour::new(ping::Config::new()),
            kad: kad_behaviour(own, parts.is_indexer),
            gossip: gossip_behaviour(parts)?,
            mdns: mdns.into(),
            streams,
        })
    }
}

fn identify_behaviour(parts: &Parts<'_>) -> identify::Behaviour {
    identify::Behaviour::new(
        identify::Config::new(format!("muster/{}", wire::VERSION), parts.keypair.public())
            .with_agent_version(parts.agent.to_owned())
            .with_cache_size(0),
    )
}

fn kad_behaviour(own: PeerId, is_server: bool) -> kad::Behaviour<kad::store::MemoryStore> {
    let store = kad::store::MemoryStore::with_config(
        own,
        kad::store::MemoryStoreConfig {
            max_records: VALUES_MAX,
            max_value_bytes: VALUE_BYTES_MAX,
            max_provided_keys: PROVIDED_KEYS_MAX,
            max_providers_per_key: PROVIDERS_MAX,
        },
    );
    let mut config = kad::Config::new(StreamProtocol::new(wire::KADEMLIA_PROTOCOL));
    config
        .set_query_timeout(QUERY_TIMEOUT)
        .set_max_packet_size(PACKET_BYTES_MAX)
        .disjoint_query_paths(true)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_provider_record_ttl(Some(dht::PROVIDER_LIFE))
        // Renewal is the referent's and `advertise`'s, who know what is still true.
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_periodic_bootstrap_interval(None)
        .set_caching(kad::Caching::Disabled);
    let mut kad = kad::Behaviour::with_config(own, store, config);
    // Left to itself it would wait for a confirmed external address for ever.
    kad.set_mode(Some(if is_server { kad::Mode::Server } else { kad::Mode::Client }));
    kad
}

fn gossip_behaviour(parts: &Parts<'_>) -> Result<Gossip, ComposeError> {
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(gossipsub::ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(GOSSIP_BYTES_MAX)
        .flood_publish(false)
        .heartbeat_initial_delay(Duration::from_millis(200))
        // An id of content and author: the same words of two authors are two messages, a copy is none.
        .message_id_fn(|message| {
            let mut hash = Sha256::new();
            hash.update(message.source.map(PeerId::to_bytes).unwrap_or_default());
            hash.update(&message.data);
            gossipsub::MessageId::from(hash.finalize().as_slice())
        })
        .build()
        .map_err(|error| ComposeError::Gossip(error.to_string()))?;
    let topics = if parts.is_indexer { TOPICS_OF_INDEXERS } else { TOPICS_OF_NODES };
    let mut inner = gossip::Inner::new_with_subscription_filter_and_transform(
        gossipsub::MessageAuthenticity::Signed(parts.keypair.clone()),
        config,
        gossipsub::WhitelistSubscriptionFilter(topics.iter().map(|topic| topic_of(topic).hash()).collect()),
        gossipsub::IdentityTransform,
    )
    .map_err(|error| ComposeError::Gossip(error.to_owned()))?;
    inner
        .with_peer_score(score_params(parts.profile), gossipsub::PeerScoreThresholds::default())
        .map_err(ComposeError::Gossip)?;
    for topic in topics {
        inner.subscribe(&topic_of(topic)).map_err(|error| ComposeError::Gossip(error.to_string()))?;
    }
    // A node's connections are those that it has a use for; indexers keep theirs, over which gossip goes.
    Ok(Gossip::new(inner, !parts.is_indexer))
}

/// A topic by its name on the wire.
pub(super) fn topic_of(name: &str) -> gossipsub::IdentTopic {
    gossipsub::IdentTopic::new(name)
}

/// Many peers behind one address are a sign of one operator on the internet, and the rule on one machine.
fn score_params(profile: Profile) -> gossipsub::PeerScoreParams {
    let defaults = gossipsub::PeerScoreParams::default();
    gossipsub::PeerScoreParams {
        ip_colocation_factor_weight: if profile.is_diverse() { defaults.ip_colocation_factor_weight } else { 0.0 },
        ..defaults
    }
}
