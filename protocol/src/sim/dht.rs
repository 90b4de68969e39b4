//! The DHT as members see it: a value lies with the reachable indexers that are nearest to its key.
//!
//! Routing is not played: a question takes a flight to each holder and back. What an indexer held is gone when it stops.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use sha2::{Digest as _, Sha256};

use super::net::{Net, Up};
use crate::{
    dht::PROVIDER_LIFE,
    record::{IndexerRecord, PeerRecord},
    signed::Verified,
};

/// Holders of one value: Kademlia's usual 20 would be everybody in most scenarios, which hides losses.
pub(super) const HOLDERS: usize = 8;

/// The first eight bytes of a key's hash: they order distances as well as all of them.
type Place = u64;

#[derive(Debug, Default)]
struct Store {
    listed: BTreeMap<u32, Duration>,
    indexers: BTreeMap<u32, Arc<Verified<IndexerRecord>>>,
    nodes: BTreeMap<u32, Held>,
}

/// A node's record as a holder has it.
type Held = Arc<Verified<PeerRecord>>;

#[derive(Debug)]
pub(super) struct Dht {
    places: Vec<Place>,
    servers: Vec<u32>,
    stores: BTreeMap<u32, Store>,
    listing: Place,
}

impl Dht {
    pub(super) fn new(peers: &[PeerId], is_indexer: &[bool]) -> Self {
        let places = peers.iter().map(|peer| hash(&peer.to_bytes())).collect();
        let servers: Vec<u32> =
            (0..).zip(is_indexer).filter(|(_, is_indexer)| **is_indexer).map(|(at, _)| at).collect();
        let stores = servers.iter().map(|server| (*server, Store::default())).collect();
        Self { places, servers, stores, listing: hash(crate::dht::INDEXERS.as_bytes()) }
    }

    /// Its process ended.
    pub(super) fn forget(&mut self, server: u32) {
        if let Some(store) = self.stores.get_mut(&server) {
            *store = Store::default();
        }
    }

    /// The reachable holders of a key, nearest first; nobody for a node without any connection.
    fn holders(&self, asker: u32, key: Place, net: &Net) -> Vec<u32> {
        let is_server = self.stores.contains_key(&asker);
        let knows = is_server || net.connected(asker).any(|peer| self.stores.contains_key(&peer));
        if !knows {
            return Vec::new();
        }
        let is_there = |server: &&u32| {
            net.up[**server as usize] == Up::Running && (**server == asker || net.is_linked(asker, **server))
        };
        let distance = |server: &u32| (self.places[*server as usize] ^ key, *server);
        let mut near: Vec<(Place, u32)> = self.servers.iter().filter(is_there).map(distance).collect();
        if near.len() > HOLDERS {
            near.select_nth_unstable(HOLDERS);
            near.truncate(HOLDERS);
        }
        near.sort_unstable();
        near.into_iter().map(|(_, server)| server).collect()
    }

    /// An indexer lists itself.
    pub(super) fn list(&mut self, indexer: u32, now: Duration, net: &Net) {
        for holder in self.holders(indexer, self.listing, net) {
            if let Some(store) = self.stores.get_mut(&holder) {
                store.listed.retain(|_, until| *until > now);
                store.listed.insert(indexer, now + PROVIDER_LIFE);
            }
        }
    }

    /// An indexer withdraws its listing.
    pub(super) fn unlist(&mut self, indexer: u32, net: &Net) {
        for holder in self.holders(indexer, self.listing, net) {
            if let Some(store) = self.stores.get_mut(&holder) {
                store.listed.remove(&indexer);
            }
        }
    }

    /// An indexer puts its record.
    pub(super) fn put_indexer(&mut self, indexer: u32, record: &Arc<Verified<IndexerRecord>>, net: &Net) {
        for holder in self.holders(indexer, self.places[indexer as usize], net) {
            let Some(store) = self.stores.get_mut(&holder) else { continue };
            let held = store.indexers.get(&indexer).map_or(0, |held| held.seq);
            if record.seq > held {
                store.indexers.insert(indexer, Arc::clone(record));
            }
        }
    }

    /// A referent puts a node's record; false when nobody took it.
    pub(super) fn put_node(&mut self, by: u32, node: u32, record: &Held, net: &Net) -> bool {
        let holders = self.holders(by, self.places[node as usize], net);
        for holder in &holders {
            let Some(store) = self.stores.get_mut(holder) else { continue };
            let held = store.nodes.entry(node).or_insert_with(|| Arc::clone(record));
            if record.seq > held.seq {
                *held = Arc::clone(record);
            }
        }
        !holders.is_empty()
    }

    /// A node's record is found by this asker and not over.
    pub(super) fn has_node(&self, asker: u32, node: u32, now: Timestamp, net: &Net) -> bool {
        self.node(asker, node, now, net).is_some()
    }

    /// The newest record of a node that this asker finds and that is not over.
    pub(super) fn node(&self, asker: u32, node: u32, now: Timestamp, net: &Net) -> Option<Held> {
        let holders = self.holders(asker, self.places[node as usize], net);
        let held = holders.iter().filter_map(|holder| self.stores[holder].nodes.get(&node));
        held.filter(|record| now < record.expiry_date).max_by_key(|record| record.seq).cloned()
    }

    /// A node's record lies with somebody who runs, and is not over.
    pub(super) fn is_held(&self, node: u32, now: Timestamp, net: &Net) -> bool {
        let running = self.stores.iter().filter(|(server, _)| net.up[**server as usize] == Up::Running);
        running
            .map(|(_, store)| store)
            .any(|store| store.nodes.get(&node).is_some_and(|record| now < record.expiry_date))
    }

    /// The records of all indexers that are listed, the freshest of each, without the asker's own.
    pub(super) fn indexers(
        &self,
        asker: u32,
        now: Duration,
        wall: Timestamp,
        net: &Net,
    ) -> Vec<Arc<Verified<IndexerRecord>>> {
        let mut listed: Vec<u32> = Vec::new();
        for holder in self.holders(asker, self.listing, net) {
            listed.extend(self.stores[&holder].listed.iter().filter(|(_, until)| **until > now).map(|(peer, _)| *peer));
        }
        listed.sort_unstable();
        listed.dedup();
        let fresh = |indexer: &u32| {
            let holders = self.holders(asker, self.places[*indexer as usize], net);
            let records = holders.iter().filter_map(|holder| self.stores[holder].indexers.get(indexer));
            records.filter(|record| wall < record.expiry_date).max_by_key(|record| record.seq).cloned()
        };
        listed.iter().filter(|indexer| **indexer != asker).filter_map(fresh).collect()
    }

    /// Nodes' values held in all; what ended long ago is dropped on the way.
    pub(super) fn sweep(&mut self, now: Timestamp) -> usize {
        let stores = self.stores.values_mut();
        stores
            .map(|store| {
                store.nodes.retain(|_, record| now < record.expiry_date);
                store.nodes.len()
            })
            .sum()
    }
}

fn hash(bytes: &[u8]) -> Place {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    hash.iter().take(8).fold(0, |place, byte| place << 8 | Place::from(*byte))
}
