//! Who joins, and who is let go for it.

use std::time::Duration;

use libp2p_identity::PeerId;

use super::{
    Action, Event, LET_GO_EVERY, MOVED_WITHIN, Pool, Why,
    known::{Known, Life, Member, is_full_member, rank},
};
use crate::time::Mono;

impl Pool {
    /// Good candidates join, best first, while more members are wanted.
    pub(super) fn admit(&mut self, now: Mono) {
        loop {
            let wanted = self.wanted(now);
            if wanted == 0 {
                return;
            }
            let good = self.good(now);
            let Some((peer, at)) = good.first().copied() else { return };
            let probing = self.probing();
            // Better ones may follow: not when all are taken anyway, and not when nobody carries us.
            let waits = good.len() + probing > wanted
                && probing > 0
                && now.since(at) < self.settings.settle
                && self.usable().next().is_some();
            if waits || !self.make_place(now) {
                return;
            }
            self.join(peer, now);
        }
    }

    /// Under the hard bound there is a place. At it, the longest suspected makes one, or one that never answered.
    fn make_place(&mut self, now: Mono) -> bool {
        if self.members.len() < self.members_max() {
            return true;
        }
        let weak = self.members.iter().filter_map(|(peer, member)| match member.life {
            Life::Suspect { since } => Some((0, since, *peer)),
            Life::Joining { since } if self.is_stale(member, now) => Some((1, since, *peer)),
            _ => None,
        });
        let Some((_, _, peer)) = weak.min() else { return false };
        self.stop(peer, Why::Replaced, self.settings.backoff_first, now);
        true
    }

    pub(super) fn join(&mut self, peer: PeerId, now: Mono) {
        let Some(known) = self.known.remove(&peer) else { return };
        let mut about = known.about;
        if known.probing.is_some() {
            about.rhythm.probed(now, &self.beats);
        }
        about.rhythm.restarted();
        let referent = self.lacks_referent(now);
        if referent {
            self.appoint(peer, now);
        }
        self.out.push(Action::Start {
            peer,
            addrs: about.addrs.clone(),
            sticky: about.seed,
            referent,
            rhythm: about.rhythm.clone(),
        });
        let member = Member {
            sticky: about.seed,
            about,
            life: Life::Joining { since: now },
            missed: 0,
            leaving: None,
            asked: None,
            deaf_until: Mono::ZERO,
            is_busy: false,
            heard: now,
            is_told_referent: referent,
            low: None,
        };
        self.members.insert(peer, member);
    }

    /// More members than wanted are kept for a while, since some may yet fail; then the worst goes.
    pub(super) fn let_excess_go(&mut self, now: Mono) {
        let is_full = self.usable().count() >= self.target();
        let idle = self.members.iter().find(|(_, member)| is_full && self.is_stale(member, now));
        if let Some(peer) = idle.map(|(peer, _)| *peer) {
            self.stop(peer, Why::Excess, self.settings.refresh_every, now);
        }
        if self.usable().count() <= self.target() {
            self.excess_since = None;
            return;
        }
        if now.since(*self.excess_since.get_or_insert(now)) < self.settings.excess_kept {
            return;
        }
        let may_go = self.usable().filter(|(peer, member)| !member.sticky && self.referent != Some(**peer));
        let worst = may_go.min_by(|(_, one), (_, other)| rank(one).total_cmp(&rank(other))).map(|(peer, _)| *peer);
        self.excess_since = None;
        if let Some(peer) = worst {
            self.stop(peer, Why::Excess, self.settings.refresh_every, now);
        }
    }

    /// One that leaves goes as soon as others carry us, and so does a full one that asks us to move. One that has room
    /// asks for the sake of evenness: it goes once another has taken its place, so that no pool shrinks for that.
    pub(super) fn let_leavers_go(&mut self, now: Mono) {
        let leavers: Vec<(PeerId, Why, bool)> = self
            .members
            .iter()
            .filter_map(|(peer, member)| member.leaving.map(|why| (*peer, why, is_full_member(member))))
            .collect();
        for (peer, why, is_full) in leavers {
            if self.usable().count() < self.carriers_min() {
                continue;
            }
            if why == Why::Migrated && self.usable().count() < self.target() {
                if !is_full || self.let_go.is_some_and(|at| now.since(at) < LET_GO_EVERY) {
                    continue;
                }
                self.let_go = Some(now);
            }
            let rest = if why == Why::Migrated { self.settings.migrated_rest } else { self.settings.backoff_first };
            self.stop(peer, why, rest, now);
        }
    }

    /// Whoever has room and asks us to move stays when nobody came in its place: it must not keep others from asking.
    pub(super) fn give_moves_up(&mut self, now: Mono) {
        for member in self.members.values_mut().filter(|member| !is_full_member(member)) {
            if member.asked.is_some_and(|asked| now.since(asked) >= MOVED_WITHIN) {
                member.leaving = member.leaving.filter(|why| *why != Why::Migrated);
                member.asked = None;
                member.deaf_until = now + self.settings.migrated_rest;
            }
        }
    }

    /// Once somebody answers, the last one of before is kept only if it is worth it for itself.
    pub(super) fn release_kept(&mut self, now: Mono) {
        if !std::mem::take(&mut self.may_have_kept) {
            return;
        }
        let kept: Vec<PeerId> = self.known.iter().filter(|(_, known)| known.kept).map(|(peer, _)| *peer).collect();
        for peer in kept {
            let Some(mut known) = self.known.remove(&peer) else { continue };
            known.kept = false;
            self.keep(peer, known, now);
        }
    }

    pub(super) fn stop(&mut self, peer: PeerId, why: Why, rest: Duration, now: Mono) {
        let Some(member) = self.members.remove(&peer) else { return };
        self.out.push(Action::Stop { peer, why });
        self.out.push(Action::Note(Event::Removed { peer, why: Some(why) }));
        let known = Known { rests_until: now + rest, heard: now, ..Known::gone(member) };
        self.keep(peer, known, now);
    }

    /// A member that is none any more is known on; one of which only others spoke takes no more room than the rest.
    pub(super) fn keep(&mut self, peer: PeerId, known: Known, now: Mono) {
        if !known.is_hearsay() || self.make_room(known.about.source, now) {
            self.known.insert(peer, known);
        }
    }
}
