//! The peer book: every known peer, its addresses and how each fared.
//!
//! Hearsay never displaces what was found to work: an address that failed goes behind those that did not, and a peer's
//! last address is never dropped for failing.

use std::{cmp::Reverse, collections::HashMap};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use crate::{
    addr::Rule,
    wire::{AddrInfo, Role},
};

/// Addresses kept for one peer; a record carries as many.
pub const ADDRS_MAX: usize = 8;

/// How one address fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fare {
    /// The address, without `/p2p/`.
    pub addr: Multiaddr,
    /// Dials that succeeded.
    pub succeeded: u32,
    /// Dials that failed since the last success.
    pub failed: u32,
    /// When a dial last succeeded.
    pub last_ok: Option<Timestamp>,
    /// When a dial last failed.
    pub last_failed: Option<Timestamp>,
}

impl Fare {
    /// Adds how it fared before.
    fn restore(&mut self, before: &Self) {
        if self.succeeded == 0 {
            self.failed = self.failed.saturating_add(before.failed);
        }
        self.succeeded = self.succeeded.saturating_add(before.succeeded);
        self.last_ok = self.last_ok.max(before.last_ok);
        self.last_failed = self.last_failed.max(before.last_failed);
    }
}

/// What is known of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, empty while unknown.
    pub name: String,
    /// Its DID, empty while unknown.
    pub did: String,
    /// What it said it is.
    pub role: Role,
    /// Its program.
    pub agent: String,
    /// A connection is open.
    pub is_connected: bool,
    /// Last sign of life.
    pub last_seen: Option<Timestamp>,
    /// Best first.
    pub addrs: Vec<Fare>,
}

impl Entry {
    fn empty() -> Self {
        Self {
            name: String::new(),
            did: String::new(),
            role: Role::default(),
            agent: String::new(),
            is_connected: false,
            last_seen: None,
            addrs: Vec::new(),
        }
    }

    /// Its addresses, best first.
    #[must_use]
    pub fn addrs(&self) -> Vec<Multiaddr> {
        self.addrs.iter().map(|fare| fare.addr.clone()).collect()
    }

    fn hear(&mut self, addr: &Multiaddr) {
        if self.addrs.iter().any(|fare| fare.addr == *addr) {
            return;
        }
        if self.addrs.len() >= ADDRS_MAX {
            // The worst makes room, unless it ever worked: hearsay does not displace experience.
            let is_worst_proven = self.addrs.last().is_some_and(|fare| fare.succeeded > 0 && fare.failed == 0);
            if is_worst_proven {
                return;
            }
            self.addrs.pop();
        }
        self.addrs.push(Fare { addr: addr.clone(), succeeded: 0, failed: 0, last_ok: None, last_failed: None });
        self.rank();
    }

    /// What is known already is newer, and is only added to.
    fn restore(&mut self, kept: Self, rule: &Rule) {
        // A record names it and its DID; a DID without a name is what hello claims.
        if self.name.is_empty() {
            self.name = kept.name;
            if !kept.did.is_empty() {
                self.did = kept.did;
            }
        }
        if self.agent.is_empty() {
            self.agent = kept.agent;
        }
        if self.role == Role::default() {
            self.role = kept.role;
        }
        self.last_seen = self.last_seen.max(kept.last_seen);
        for fare in kept.addrs.into_iter().filter(|fare| fare.succeeded > 0 || rule.permits(&fare.addr)) {
            match self.addrs.iter_mut().find(|known| known.addr == fare.addr) {
                Some(known) => known.restore(&fare),
                None => self.addrs.push(fare),
            }
        }
        self.rank();
        self.addrs.truncate(ADDRS_MAX);
    }

    /// What failed least since it last worked comes first, then what worked last: a stale address is tried last, and is
    /// tried.
    fn rank(&mut self) {
        self.addrs.sort_by_key(|fare| (fare.failed, fare.succeeded == 0, Reverse(fare.last_ok)));
    }
}

/// Every known peer, up to a bound.
#[derive(Debug)]
pub struct Book {
    own: PeerId,
    peers_max: usize,
    entries: HashMap<PeerId, Entry>,
}

impl Book {
    /// An empty book of at most `peers_max` peers; our own id never enters it.
    #[must_use]
    pub fn new(own: PeerId, peers_max: usize) -> Self {
        Self { own, peers_max, entries: HashMap::new() }
    }

    /// A peer said hello over a connection; `dialled` is the address that led to it, when we dialled.
    pub fn met(
        &mut self,
        peer: PeerId,
        role: Role,
        agent: &str,
        did: &str,
        dialled: Option<&Multiaddr>,
        now: Timestamp,
    ) {
        let Some(entry) = self.entry(peer) else { return };
        entry.role = role;
        agent.clone_into(&mut entry.agent);
        // What hello claims is shown until a verified record says it.
        if entry.did.is_empty() {
            did.clone_into(&mut entry.did);
        }
        entry.is_connected = true;
        entry.last_seen = Some(now);
        if let Some(addr) = dialled {
            entry.hear(addr);
            if let Some(fare) = entry.addrs.iter_mut().find(|fare| fare.addr == *addr) {
                fare.succeeded = fare.succeeded.saturating_add(1);
                fare.failed = 0;
                fare.last_ok = Some(now);
            }
            entry.rank();
        }
    }

    /// Its last connection closed.
    pub fn gone(&mut self, peer: &PeerId, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(peer) {
            entry.is_connected = false;
            entry.last_seen = Some(now);
        }
    }

    /// Every connection closed.
    pub fn all_gone(&mut self, now: Timestamp) {
        for entry in self.entries.values_mut().filter(|entry| entry.is_connected) {
            entry.is_connected = false;
            entry.last_seen = Some(now);
        }
    }

    /// Somebody, the peer itself included, said where it can be reached.
    pub fn heard(&mut self, peer: PeerId, addrs: &[Multiaddr]) {
        let Some(entry) = self.entry(peer) else { return };
        for addr in addrs.iter().take(ADDRS_MAX) {
            entry.hear(addr);
        }
    }

    /// A verified record named it.
    pub fn named(&mut self, peer: PeerId, name: &str, did: &str, now: Timestamp) {
        let Some(entry) = self.entry(peer) else { return };
        name.clone_into(&mut entry.name);
        did.clone_into(&mut entry.did);
        entry.last_seen = Some(now);
    }

    /// These addresses did not lead to it.
    pub fn failed(&mut self, peer: &PeerId, addrs: &[Multiaddr], now: Timestamp) {
        let Some(entry) = self.entries.get_mut(peer) else { return };
        for fare in entry.addrs.iter_mut().filter(|fare| addrs.contains(&fare.addr)) {
            fare.failed = fare.failed.saturating_add(1);
            fare.last_failed = Some(now);
        }
        entry.rank();
    }

    /// Puts back what was kept over a restart, beside what was learnt since; nobody makes room for it. The rules about
    /// addresses may have changed since: hearsay has to keep them anew, what once worked was tried by us and stays.
    pub fn restore(&mut self, peer: PeerId, kept: Entry, rule: &Rule) {
        if self.entries.contains_key(&peer) || self.entries.len() < self.peers_max {
            let Some(place) = self.entry(peer) else { return };
            place.restore(kept, rule);
        }
    }

    /// What is known of it.
    #[must_use]
    pub fn get(&self, peer: &PeerId) -> Option<&Entry> {
        self.entries.get(peer)
    }

    /// Who it is and where, best address first; without addresses when it is unknown.
    #[must_use]
    pub fn addr_info(&self, peer: PeerId) -> AddrInfo {
        AddrInfo { id: peer, addrs: self.get(&peer).map(Entry::addrs).unwrap_or_default() }
    }

    /// Every peer, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &Entry)> {
        self.entries.iter()
    }

    /// How many peers are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nobody is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets a peer.
    pub fn forget(&mut self, peer: &PeerId) {
        self.entries.remove(peer);
    }

    /// Forgets at most `at_most` unconnected peers last seen before `before`; returns how many.
    pub fn forget_stale(&mut self, before: Timestamp, at_most: usize) -> usize {
        let stale: Vec<PeerId> = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.is_connected && entry.last_seen.is_some_and(|seen| seen < before))
            .map(|(peer, _)| *peer)
            .take(at_most)
            .collect();
        for peer in &stale {
            self.entries.remove(peer);
        }
        stale.len()
    }

    /// The peer's entry, made when there is room; at the bound the unconnected one unseen for longest makes room.
    fn entry(&mut self, peer: PeerId) -> Option<&mut Entry> {
        if peer == self.own {
            return None;
        }
        if !self.entries.contains_key(&peer) && self.entries.len() >= self.peers_max {
            let oldest = self
                .entries
                .iter()
                .filter(|(_, entry)| !entry.is_connected)
                .min_by_key(|(peer, entry)| (entry.last_seen, **peer))
                .map(|(peer, _)| *peer)?;
            self.entries.remove(&oldest);
        }
        Some(self.entries.entry(peer).or_insert_with(Entry::empty))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn peer(n: u8) -> PeerId {
        let key = libp2p_identity::Keypair::ed25519_from_bytes([n; 32]).unwrap();
        key.public().to_peer_id()
    }

    fn addr(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const NODE: Role = Role { node: true, indexer: false };

    #[test]
    fn our_own_id_never_enters() {
        let mut book = Book::new(peer(1), 10);
        book.heard(peer(1), &[addr(1)]);
        book.met(peer(1), NODE, "", "", None, at(1));
        assert!(book.is_empty());
    }

    #[test]
    fn an_address_that_failed_goes_behind_and_returns_with_success() {
        let mut book = Book::new(peer(1), 10);
        book.heard(peer(2), &[addr(1), addr(2)]);
        book.failed(&peer(2), &[addr(1)], at(1));
        assert_eq!(book.addr_info(peer(2)).addrs, [addr(2), addr(1)]);
        book.failed(&peer(2), &[addr(2)], at(1));
        book.met(peer(2), NODE, "", "", Some(&addr(1)), at(1));
        assert_eq!(book.addr_info(peer(2)).addrs, [addr(1), addr(2)]);
    }

    #[test]
    fn of_those_that_work_the_one_that_worked_last_comes_first() {
        let mut book = Book::new(peer(1), 10);
        for (port, second) in [(1, 10), (2, 30), (3, 20)] {
            book.met(peer(2), NODE, "", "", Some(&addr(port)), at(second));
        }
        book.heard(peer(2), &[addr(4)]);
        assert_eq!(book.addr_info(peer(2)).addrs, [addr(2), addr(3), addr(1), addr(4)]);
        book.failed(&peer(2), &[addr(2)], at(40));
        assert_eq!(book.addr_info(peer(2)).addrs, [addr(3), addr(1), addr(4), addr(2)]);
        let stale = book.get(&peer(2)).unwrap().addrs.last().unwrap();
        assert_eq!((stale.last_ok, stale.last_failed), (Some(at(30)), Some(at(40))));
    }

    #[test]
    fn over_a_restart_hearsay_of_private_addresses_is_filtered_and_experience_stays() {
        let mut before = Book::new(peer(1), 10);
        before.heard(peer(2), &[addr(1), "/ip4/8.8.8.8/tcp/4001".parse().unwrap()]);
        before.met(peer(2), NODE, "", "", Some(&addr(2)), at(1));
        let entry = before.get(&peer(2)).unwrap().clone();
        let mut book = Book::new(peer(1), 10);
        book.restore(peer(2), entry.clone(), &Rule { is_local: false, private_ranges: Vec::new() });
        assert_eq!(book.addr_info(peer(2)).addrs, [addr(2), "/ip4/8.8.8.8/tcp/4001".parse().unwrap()]);
        book.restore(peer(2), entry, &Rule { is_local: true, private_ranges: Vec::new() });
        assert_eq!(book.addr_info(peer(2)).addrs.len(), 3);
    }

    #[test]
    fn what_was_kept_is_put_beside_what_was_learnt_before_it_came_and_displaces_nobody() {
        let mut before = Book::new(peer(1), 10);
        before.named(peer(2), "paris", "did:key:z6Mk", at(1));
        for (port, second) in [(1, 10), (2, 20)] {
            before.met(peer(2), NODE, "muster/1", "", Some(&addr(port)), at(second));
        }
        before.failed(&peer(2), &[addr(2)], at(30));
        let kept = before.get(&peer(2)).unwrap().clone();
        let rule = Rule { is_local: true, private_ranges: Vec::new() };

        let mut book = Book::new(peer(1), 2);
        let indexer = Role { node: true, indexer: true };
        book.met(peer(2), indexer, "muster/2", "did:key:z6Other", Some(&addr(1)), at(40));
        book.heard(peer(2), &[addr(2), addr(3)]);
        book.failed(&peer(2), &[addr(2)], at(50));
        book.restore(peer(2), kept.clone(), &rule);
        let entry = book.get(&peer(2)).unwrap();
        assert_eq!((&*entry.name, &*entry.did, &*entry.agent), ("paris", "did:key:z6Mk", "muster/2"));
        assert_eq!((entry.role, entry.is_connected, entry.last_seen), (indexer, true, Some(at(40))));
        let fares = entry.addrs.iter().map(|fare| (fare.addr.clone(), fare.succeeded, fare.failed, fare.last_ok));
        let expected = [(addr(1), 2, 0, Some(at(40))), (addr(3), 0, 0, None), (addr(2), 1, 2, Some(at(20)))];
        assert_eq!(fares.collect::<Vec<_>>(), expected);

        book.named(peer(3), "lyon", "did:key:z6Lyon", at(60));
        book.restore(peer(3), kept.clone(), &rule);
        let entry = book.get(&peer(3)).unwrap();
        assert_eq!((&*entry.name, &*entry.did, entry.addrs.len()), ("lyon", "did:key:z6Lyon", 2));
        book.restore(peer(4), kept, &rule);
        assert_eq!((book.len(), book.get(&peer(4))), (2, None), "there is no room");
    }

    #[test]
    fn failing_never_takes_the_last_address() {
        let mut book = Book::new(peer(1), 10);
        book.heard(peer(2), &[addr(1)]);
        for _ in 0..100 {
            book.failed(&peer(2), &[addr(1)], at(1));
        }
        assert_eq!(book.addr_info(peer(2)).addrs, [addr(1)]);
    }

    #[test]
    fn hearsay_does_not_displace_what_works() {
        let mut book = Book::new(peer(1), 10);
        for port in 0..8 {
            book.met(peer(2), NODE, "", "", Some(&addr(port)), at(1));
        }
        book.heard(peer(2), &[addr(100)]);
        let addrs = book.addr_info(peer(2)).addrs;
        assert_eq!(addrs.len(), ADDRS_MAX);
        assert!(!addrs.contains(&addr(100)));
        book.failed(&peer(2), &[addr(3)], at(1));
        book.heard(peer(2), &[addr(100)]);
        assert!(book.addr_info(peer(2)).addrs.contains(&addr(100)));
    }

    #[test]
    fn at_the_bound_the_unconnected_peer_unseen_for_longest_makes_room() {
        let mut book = Book::new(peer(1), 2);
        book.met(peer(2), NODE, "", "", None, at(1));
        book.met(peer(3), NODE, "", "", None, at(2));
        book.heard(peer(4), &[addr(1)]);
        assert!(book.get(&peer(4)).is_none(), "connected peers stay");
        book.gone(&peer(3), at(3));
        book.heard(peer(4), &[addr(1)]);
        assert!(book.get(&peer(3)).is_none());
        assert_eq!(book.len(), 2);
    }

    #[test]
    fn only_unconnected_stale_peers_are_forgotten_and_no_more_than_asked() {
        let mut book = Book::new(peer(1), 10);
        for n in 2..7 {
            book.met(peer(n), NODE, "", "", None, at(1));
        }
        for n in 3..7 {
            book.gone(&peer(n), at(10));
        }
        assert_eq!(book.forget_stale(at(10), 10), 0);
        assert_eq!(book.forget_stale(at(11), 3), 3);
        assert_eq!(book.forget_stale(at(11), 3), 1);
        assert!(book.get(&peer(2)).is_some());
    }

    #[test]
    fn a_new_swarm_begins_with_nobody_connected() {
        let mut book = Book::new(peer(1), 10);
        book.met(peer(2), NODE, "", "", None, at(1));
        book.all_gone(at(5));
        let entry = book.get(&peer(2)).unwrap();
        assert_eq!((entry.is_connected, entry.last_seen), (false, Some(at(5))));
    }

    #[test]
    fn what_hello_claims_does_not_displace_what_a_record_says() {
        let mut book = Book::new(peer(1), 10);
        book.named(peer(2), "paris", "did:key:z6Mk", at(1));
        book.met(peer(2), NODE, "muster", "did:key:z6Other", None, at(2));
        assert_eq!(book.get(&peer(2)).unwrap().did, "did:key:z6Mk");
    }

    #[test]
    fn an_empty_did_never_erases_a_known_one() {
        let mut book = Book::new(peer(1), 10);
        book.named(peer(2), "paris", "did:key:z6Mk", at(1));
        book.met(peer(2), NODE, "muster", "", None, at(2));
        assert_eq!(book.get(&peer(2)).unwrap().did, "did:key:z6Mk");
    }
}
