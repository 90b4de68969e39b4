//! Who represents us in search, and who is told so.

use libp2p_identity::PeerId;

use super::{
    Action, Event, Pool, Why,
    known::{Life, Member, is_usable_member},
};
use crate::time::Mono;

impl Pool {
    pub(super) fn mind_referent(&mut self, now: Mono) {
        let best = self.best();
        match (self.referent.and_then(|referent| self.members.get(&referent)), best) {
            (Some(member), _) if is_usable_member(member) => self.mind_lead(best, now),
            (Some(member), Some(_)) if self.has_grace(member, now) => {}
            // One that leaves goes on representing us while there is no other.
            (_, Some(best)) if self.referent != Some(best) => self.change_referent(best, now),
            (_, Some(_)) => {}
            (Some(_), None) => {}
            (None, None) => self.referent = None,
        }
        self.tell_former_referents();
    }

    /// The first chosen one may still answer.
    pub(super) fn has_grace(&self, member: &Member, now: Mono) -> bool {
        matches!(member.life, Life::Joining { .. })
            && member.leaving.is_none()
            && !member.is_busy
            && now.since(self.referent_since) < self.settings.referent_grace
    }

    fn mind_lead(&mut self, best: Option<PeerId>, now: Mono) {
        let low = |peer: Option<PeerId>| peer.and_then(|peer| self.members.get(&peer)).and_then(|member| member.low);
        let leads = match (low(best), low(self.referent)) {
            (Some(best), Some(own)) => best - own >= self.settings.referent_lead,
            _ => false,
        };
        let Some(leader) = best.filter(|_| leads) else {
            self.lead = None;
            return;
        };
        let since = self.lead.filter(|(peer, _)| *peer == leader).map_or(now, |(_, since)| since);
        self.lead = Some((leader, since));
        if now.since(since) >= self.settings.referent_lead_held {
            self.change_referent(leader, now);
        }
    }

    fn change_referent(&mut self, peer: PeerId, now: Mono) {
        self.appoint(peer, now);
        if let Some(member) = self.members.get_mut(&peer) {
            member.is_told_referent = true;
            self.out.push(Action::SetReferent { peer, referent: true });
            self.out.push(Action::Nudge { peer });
        }
    }

    pub(super) fn appoint(&mut self, peer: PeerId, now: Mono) {
        self.referent = Some(peer);
        self.referent_since = now;
        self.is_referent_confirmed = false;
        self.lead = None;
        self.out.push(Action::Note(Event::ReferentChanged { to: peer }));
    }

    /// The former referent is told once the new one knows, so that the node is found at every moment; one that does
    /// not answer hears it whenever it hears anything.
    fn tell_former_referents(&mut self) {
        for (peer, member) in &mut self.members {
            let is_former = member.is_told_referent && self.referent != Some(*peer);
            let is_talking = member.life == Life::Answering;
            if !is_former || (is_talking && !self.is_referent_confirmed) {
                continue;
            }
            member.is_told_referent = false;
            self.out.push(Action::SetReferent { peer: *peer, referent: false });
            if is_talking {
                self.out.push(Action::Nudge { peer: *peer });
            }
        }
    }

    pub(super) fn tell_need(&mut self, now: Mono) {
        // Who is on the way seeks until it has arrived: one that seeks nobody is taken for one that stays.
        let is_moving = self.members.values().any(|member| member.leaving == Some(Why::Migrated));
        let need = u32::try_from(self.wanted(now).max(usize::from(is_moving))).unwrap_or(u32::MAX);
        if std::mem::replace(&mut self.need, need) != need {
            self.out.push(Action::SetNeed { need });
        }
    }
}
