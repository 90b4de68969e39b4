//! Who has a session, and whose record answers to an id, a DID, a name or a part of one.

use std::sync::Arc;

use libp2p_identity::PeerId;
use rand::{Rng, seq::IteratorRandom as _};

use super::{Own, Registry, SessionView, held::is_valid};
use crate::{
    names::{self, Part},
    offload::Stay,
    record::PeerRecord,
    signed::Verified,
    time::{Mono, Now},
};

impl Registry {
    /// The peer has a session that did not end.
    #[must_use]
    pub fn has_session(&self, peer: &PeerId, now: Mono) -> bool {
        self.live_slot(peer, now).is_some()
    }

    /// The record of a peer, ours included.
    #[must_use]
    pub fn by_peer(&self, peer: &PeerId, now: Now) -> Option<&Arc<Verified<PeerRecord>>> {
        let own = self.own_hit(now).filter(|own| own.record.peer_id == *peer).map(|own| &own.record);
        own.or_else(|| self.session(*self.by_peer.get(peer)?).hit(now))
    }

    /// The record with a DID, ours included.
    #[must_use]
    pub fn by_did(&self, did: &str, now: Now) -> Option<&Arc<Verified<PeerRecord>>> {
        let own = self.own_hit(now).filter(|own| own.record.did == did).map(|own| &own.record);
        own.or_else(|| self.session(*self.by_did.get(did)?).hit(now))
    }

    /// Records with exactly this name, upper and lower case being the same, ours included; at most `at_most`.
    #[must_use]
    pub fn by_name(&self, name: &str, now: Now, at_most: usize) -> Vec<Arc<Verified<PeerRecord>>> {
        let name: Arc<str> = names::normal(name).into();
        let own = self.own_hit(now).filter(|own| *own.normal_name == *name).map(|own| &own.record);
        let same = self.by_name.range((Arc::clone(&name), 0)..=(name, u32::MAX));
        let hits = same.filter_map(|(_, slot)| self.session(*slot).hit(now));
        own.into_iter().chain(hits).take(at_most).cloned().collect()
    }

    /// Records whose name contains a part, of those whose referent we are and ours; at most `at_most`, and whether any
    /// were left out.
    ///
    /// Every name is looked at, in one row: 20,000 of them take 0.1 to 0.3 ms, as long as verifying ten signatures.
    #[must_use]
    pub fn by_part(&self, part: &Part, now: Now, at_most: usize) -> (Vec<Arc<Verified<PeerRecord>>>, bool) {
        let own = self.own_hit(now).filter(|own| part.is_in_normal(&own.normal_name)).map(|own| &own.record);
        let matching = self.named.iter().filter(|(name, _)| part.is_in_normal(name));
        let hits = matching.filter_map(|(_, slot)| self.session(*slot).hit(now));
        let mut hits = own.into_iter().chain(hits);
        let found = hits.by_ref().take(at_most).cloned().collect();
        (found, hits.next().is_some())
    }

    /// Sessions, from the place `from` on, at most `at_most`; and where to go on, if there are more.
    #[must_use]
    pub fn views(&self, from: usize, at_most: usize) -> (Vec<SessionView>, Option<usize>) {
        let mut rest = self.slots.iter().enumerate().skip(from).filter_map(|(at, slot)| Some((at, slot.as_ref()?)));
        let views = rest.by_ref().take(at_most).map(|(_, session)| session.view()).collect();
        (views, rest.next().map(|(at, _)| at))
    }

    /// Peers with a session, drawn by chance, at most `at_most`: each as likely as any other.
    #[must_use]
    pub fn sample(&self, at_most: usize, now: Mono, rng: &mut impl Rng) -> Vec<PeerId> {
        let live = self.slots.iter().flatten().filter(|session| session.is_live(now));
        live.map(|session| session.peer).sample(rng, at_most)
    }

    /// Every session, as far as moving goes.
    pub fn stays(&self) -> impl Iterator<Item = Stay> + '_ {
        self.slots.iter().flatten().map(|session| Stay {
            peer: session.peer,
            since: session.since,
            is_indexer: session.is_indexer,
            is_settled: session.is_settled,
        })
    }

    /// One peer's session.
    #[must_use]
    pub fn view(&self, peer: &PeerId) -> Option<SessionView> {
        self.by_peer.get(peer).map(|slot| self.session(*slot).view())
    }

    /// Sessions, at most `max_nodes`.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.by_peer.len()).unwrap_or(u32::MAX)
    }

    /// Sessions ÷ capacity, 0 to 1.
    #[must_use]
    pub fn fill_rate(&self) -> f64 {
        f64::from(self.count()) / f64::from(self.max_nodes)
    }

    /// Enters the DID and the name of the session's record.
    pub(super) fn index(&mut self, slot: u32) {
        let Some(record) = self.session(slot).record.clone() else { return };
        let name: Arc<str> = names::normal(&record.name).into();
        self.by_did.insert(record.did.as_str().into(), slot);
        self.by_name.insert((Arc::clone(&name), slot));
        self.session_mut(slot).normal_name = Some(name);
        self.place_name(slot);
    }

    /// Takes back what [`Registry::index`] entered.
    pub(super) fn unindex(&mut self, slot: u32) {
        let Some(session) = &mut self.slots[slot as usize] else { return };
        let Some(name) = session.normal_name.take() else { return };
        if let Some(record) = &session.record
            && self.by_did.get(record.did.as_str()) == Some(&slot)
        {
            self.by_did.remove(record.did.as_str());
        }
        self.by_name.remove(&(name, slot));
        self.place_name(slot);
    }

    /// Enters the name in the row of names, or takes it out, as it should be now.
    pub(super) fn place_name(&mut self, slot: u32) {
        let session = self.session_mut(slot);
        let named_at = session.named_at.take();
        let wanted = session.normal_name.clone().filter(|_| session.is_referent);
        if let Some(at) = named_at {
            self.named.swap_remove(at);
            if let Some((_, moved)) = self.named.get(at) {
                let moved = *moved;
                self.session_mut(moved).named_at = Some(at);
            }
        }
        if let Some(name) = wanted {
            self.named.push((name, slot));
            let at = self.named.len() - 1;
            self.session_mut(slot).named_at = Some(at);
        }
    }

    fn own_hit(&self, now: Now) -> Option<&Own> {
        self.own.as_ref().filter(|own| is_valid(&own.record, now.wall))
    }

    pub(super) fn live_slot(&self, peer: &PeerId, now: Mono) -> Option<u32> {
        self.by_peer.get(peer).copied().filter(|slot| self.session(*slot).is_live(now))
    }
}
