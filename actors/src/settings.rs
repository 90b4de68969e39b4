//! How a member is set, as far as its actors are concerned. Each rule's settings lie beside the rule.

use std::path::PathBuf;

use crate::supervision;
use libp2p::Multiaddr;
use protocol::{
    addr::{Range, Rule, Seed},
    alerts, behaviour, bus, dht, gate, heartbeat, pool, presence,
    profile::Profile,
    score, search, webhook,
    wire::AddrInfo,
};

/// Everything that the tree is set by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What the member says of itself.
    pub node: Node,
    /// How it is on the network.
    pub network: Network,
    /// Its indexers.
    pub pool: pool::Settings,
    /// Its heartbeats.
    pub heartbeat: heartbeat::Settings,
    /// Its scores.
    pub score: score::Settings,
    /// How often it counts their tokens.
    pub audit: presence::rounds::Settings,
    /// Whom it takes as an indexer, and how many.
    pub gate: gate::Settings,
    /// How often others may ask it.
    pub behaviour: behaviour::Settings,
    /// How long its searches wait.
    pub search: search::Settings,
    /// What it stores for others.
    pub dht: dht::Settings,
    /// The bus of its organisation.
    pub bus: bus::Settings,
    /// How much its database keeps.
    pub store: ::store::Settings,
    /// What an operator is told of.
    pub alerts: alerts::Settings,
    /// Where alerts are told.
    pub webhook: webhook::Settings,
    /// The folder of the data, whose file system is watched.
    pub data: PathBuf,
    /// How its actors are supervised.
    pub supervision: supervision::Settings,
}

impl Settings {
    /// These settings, with all of `new` that may change while we run: whoever goes by that is told, or looks each time.
    #[must_use]
    pub fn with_live(&self, new: &Self) -> Self {
        let mut live = self.clone();
        live.pool = new.pool.clone();
        live.score = new.score.clone();
        live.alerts = new.alerts.clone();
        live.search = new.search.clone();
        live.gate.sessions_per_subnet = new.gate.sessions_per_subnet;
        live.gate.sessions_in_all = new.gate.sessions_in_all;
        live.behaviour = behaviour::Settings { peers_max: self.behaviour.peers_max, ..new.behaviour.clone() };
        live
    }
}

/// What a member says of itself in its record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// HTTP API of the organisation.
    pub api_url: String,
    /// Bus of the organisation.
    pub nats_address: String,
    /// Wallet of the organisation.
    pub wallet_address: String,
    /// It neither stores nor serves for others.
    pub light: bool,
}

/// How a member is on the network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// Rules about addresses.
    pub profile: Profile,
    /// Private ranges believed although the profile is public.
    pub private_ranges: Vec<Range>,
    /// Addresses to listen on.
    pub listen: Vec<Multiaddr>,
    /// Addresses to listen on with the next pre-shared key; empty while there is none.
    pub listen_next: Vec<Multiaddr>,
    /// Addresses to tell others; empty for those listened on.
    pub announce: Vec<Multiaddr>,
    /// Indexers to begin with.
    pub seeds: Vec<Seed>,
    /// Look for members by multicast DNS.
    pub mdns: bool,
}

impl Network {
    /// Which addresses of others are believed.
    #[must_use]
    pub fn rule(&self) -> Rule {
        Rule { is_local: !self.profile.drops_private(), private_ranges: self.private_ranges.clone() }
    }

    /// The seeds, one entry per peer.
    #[must_use]
    pub fn seed_infos(&self) -> Vec<AddrInfo> {
        let mut infos: Vec<AddrInfo> = Vec::new();
        for seed in &self.seeds {
            match infos.iter_mut().find(|info| info.id == seed.peer_id()) {
                Some(info) => info.addrs.push(seed.addr().clone()),
                None => infos.push(AddrInfo { id: seed.peer_id(), addrs: vec![seed.addr().clone()] }),
            }
        }
        infos
    }
}
