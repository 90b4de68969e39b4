//! Who is heard of, what is remembered of whom, and who makes room for whom.

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use rand::Rng;

use super::{
    Action, Pool,
    known::{Backoff, HEARSAY_LIFE, Known, Source, merge, renew},
};
use crate::{addr::hearsay, time::Mono, wire::AddrInfo};

impl Pool {
    pub(super) fn hear(&mut self, infos: Vec<AddrInfo>, source: Source, now: Mono, rng: &mut impl Rng) {
        for info in infos.into_iter().take(self.settings.candidates_per_answer_max as usize) {
            self.hear_one(info, source, None, now, rng);
        }
    }

    pub(super) fn hear_one(
        &mut self,
        info: AddrInfo,
        source: Source,
        fill: Option<f64>,
        now: Mono,
        rng: &mut impl Rng,
    ) {
        let AddrInfo { id, addrs } = info;
        if id == self.owner.peer_id {
            return;
        }
        let addrs = hearsay(&id, &addrs, &self.owner.rule);
        if self.members.contains_key(&id) {
            if source == Source::Inbound {
                self.lives_at(id, addrs);
            }
            return;
        }
        let fill = fill.filter(|fill| (0.0..=1.0).contains(fill));
        if let Some(known) = self.known.get_mut(&id) {
            let is_ours = known.about.seed || known.about.remembered;
            let is_new = match source {
                Source::Inbound if !known.about.seed => renew(&mut known.about.addrs, addrs),
                // Nobody signs what the local network says: it may name strangers, and not move those whom we chose.
                Source::Local if is_ours => false,
                _ => merge(&mut known.about.addrs, addrs),
            };
            known.about.fill_rate = fill.or(known.about.fill_rate);
            known.heard = now;
            // One that others still speak of is not left for longer than a departed one.
            let again = known.probed_last.map_or(now, |last| last + self.settings.refresh_every);
            known.not_before = known.not_before.min(again.max(now));
            // It speaks, so it is worth another try; the ceiling of its rhythm bounds how often.
            if is_new || source == Source::Inbound {
                known.failures = 0;
                known.not_before = known.not_before.min(now);
            }
            if is_new {
                self.try_again(now, rng);
            }
            return;
        }
        // One that speaks to us is connected, and needs no address.
        if (addrs.is_empty() && source != Source::Inbound) || !self.make_room(source, now) {
            return;
        }
        let mut known = Known { heard: now, ..Known::new(source, fill) };
        merge(&mut known.about.addrs, addrs);
        self.known.insert(id, known);
        self.try_again(now, rng);
    }

    /// Any new address starts the pauses of a lonely node again; it never puts the next step off, else a stream of
    /// strangers could keep us from our seeds.
    fn try_again(&mut self, now: Mono, rng: &mut impl Rng) {
        if let Some(before) = self.alone {
            let first = Backoff::first(self.settings.backoff_first, now, rng);
            self.alone = Some(Backoff { at: first.at.min(before.at), ..first });
        }
    }

    /// Room for one more that somebody spoke of. When there is none, one that failed or of which nobody spoke for long
    /// makes room; else the newcomer is not taken, so that nobody talks the others out.
    pub(super) fn make_room(&mut self, source: Source, now: Mono) -> bool {
        let hearsay = || self.known.iter().filter(|(_, known)| known.is_hearsay());
        let from_source = hearsay().filter(|(_, known)| known.about.source == source).count();
        let has_source_room = from_source < self.settings.candidates_per_source_max as usize;
        if has_source_room && hearsay().count() < self.settings.candidates_max as usize {
            return true;
        }
        let is_old = |known: &Known| now.since(known.heard) >= HEARSAY_LIFE && now >= known.rests_until;
        // What was sent lately is not forgotten, or the ceiling would not hold.
        let is_idle = |known: &Known| known.probing.is_none() && known.about.rhythm.is_idle(now, &self.beats);
        let may_go = |known: &Known| is_idle(known) && (known.failures > 0 || is_old(known));
        let worst = hearsay()
            .filter(|(_, known)| may_go(known) && (has_source_room || known.about.source == source))
            .max_by_key(|(_, known)| (known.failures, now.since(known.heard)))
            .map(|(peer, _)| *peer);
        worst.is_some_and(|peer| self.known.remove(&peer).is_some())
    }

    /// Seeds and remembered ones were chosen by ourselves, so their addresses are kept as they are. A peer named twice
    /// is told once.
    pub(super) fn enter(&mut self, info: AddrInfo, seed: bool, remembered: bool) -> Option<PeerId> {
        if info.id == self.owner.peer_id {
            return None;
        }
        if let Some(known) = self.known.get_mut(&info.id) {
            known.about.seed |= seed;
            known.about.remembered |= remembered;
            merge(&mut known.about.addrs, info.addrs);
            return None;
        }
        let mut known = Known::new(Source::Configured, None);
        known.about.seed = seed;
        known.about.remembered = remembered;
        merge(&mut known.about.addrs, info.addrs);
        self.known.insert(info.id, known);
        Some(info.id)
    }

    /// Whoever is remembered joins as at the start while more are wanted, and is known otherwise. One that was met
    /// meanwhile stays what it is.
    pub(super) fn recall(&mut self, remembered: Vec<AddrInfo>, now: Mono) {
        for info in remembered {
            if self.remembered_count() >= self.settings.remembered_max as usize {
                return;
            }
            if let Some(member) = self.members.get_mut(&info.id) {
                member.about.remembered = true;
                continue;
            }
            let new = self.enter(info, false, true);
            if let Some(peer) = new.filter(|_| self.wanted(now) > 0 && self.members.len() < self.members_max()) {
                self.join(peer, now);
            }
        }
    }

    /// How many are remembered over restarts.
    pub(super) fn remembered_count(&self) -> usize {
        let members = self.members.values().filter(|member| member.about.remembered).count();
        members + self.known.values().filter(|known| known.about.remembered).count()
    }

    pub(super) fn remember(&mut self, peer: PeerId) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        if std::mem::replace(&mut member.about.remembered, true) {
            return;
        }
        self.out.push(Action::Remember { peer, addrs: member.about.addrs.clone() });
        if self.remembered_count() <= self.settings.remembered_max as usize {
            return;
        }
        let departed = self.known.iter().filter(|(_, known)| known.about.remembered && !known.kept);
        if let Some(worst) = departed.max_by_key(|(_, known)| known.failures).map(|(peer, _)| *peer) {
            self.forget(worst);
        }
    }

    /// A member says where it listens: the next life may find it only there, as when a rotation of the network's key ends.
    fn lives_at(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        let before = member.about.addrs.clone();
        // What the operator wrote is kept, and that by which another was taken up stays first: its subnet counts.
        let kept = if member.about.seed { before.len() } else { before.len().min(1) };
        member.about.addrs.truncate(kept);
        merge(&mut member.about.addrs, addrs);
        merge(&mut member.about.addrs, before.clone());
        let is_new = member.about.addrs.iter().any(|addr| !before.contains(addr));
        if is_new && member.about.remembered {
            self.out.push(Action::Remember { peer, addrs: member.about.addrs.clone() });
        }
    }

    /// It is not taken up in the next life; a seed or a member stays in this one.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.out.push(Action::Forget { peer });
        if let Some(known) = self.known.get_mut(&peer) {
            known.about.remembered = false;
            if !known.about.seed && !known.kept {
                self.known.remove(&peer);
            }
        }
    }
}
