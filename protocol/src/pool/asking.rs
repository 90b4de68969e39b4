//! Whom we ask for others, and others about whom we suspect.

use std::time::Duration;

use libp2p_identity::PeerId;
use rand::{Rng, RngExt as _};

use super::{
    ASKS_AFTER, Action, Event, Pool,
    known::{Backoff, Life},
};
use crate::time::Mono;

/// More candidates than that are not asked for: the wire's most.
const ASK_COUNT_MAX: usize = 10;

/// Members that are asked whether they reach one that is suspected.
pub(super) const OTHERS_ASKED: usize = 2;

/// Indexers that are kept though their restarts are used up, because others reach them: as many as a pool has members at
/// the most. Past it they go as others do.
pub(super) const VOUCHED_MAX: usize = 16;

impl Pool {
    pub(super) fn ask(&mut self, at_hand: Option<usize>, now: Mono, rng: &mut impl Rng) {
        while self.asked.front().is_some_and(|first| now.since(*first) >= Duration::from_secs(60)) {
            self.asked.pop_front();
        }
        let is_step_due = self.climb(now);
        let wanted = self.wanted(now);
        let at_hand = at_hand.unwrap_or_else(|| self.at_hand(now));
        let lacks_standby = wanted == 0 && at_hand < self.settings.standby as usize && self.asked.is_empty();
        let ask_all = std::mem::take(&mut self.ask_all) && wanted > at_hand;
        if ask_all && let Some(dht) = &mut self.dht {
            // Those that are left may know nobody else. The pause may have grown while nothing was wanted.
            let first = self.settings.backoff_first;
            *dht = Backoff { pause: first, at: dht.at.min(now + first) };
        }
        let mut left = (self.settings.asks_per_minute as usize).saturating_sub(self.asked.len());
        if !ask_all {
            left = left.min(usize::from((is_step_due && wanted > 0) || lacks_standby));
        }
        if left > 0 {
            self.ask_members(left, wanted, now, rng);
        }
        self.ask_dht(wanted > at_hand, now, rng);
    }

    /// Some of those that answer, drawn by chance.
    fn ask_members(&mut self, most: usize, wanted: usize, now: Mono, rng: &mut impl Rng) {
        let mut members: Vec<PeerId> = self.talking().map(|(peer, _)| *peer).collect();
        while members.len() > most {
            members.swap_remove(rng.random_range(0..members.len()));
        }
        if !members.is_empty() {
            self.asked.extend(std::iter::repeat_n(now, members.len()));
            let count = (wanted + 2).min(ASK_COUNT_MAX) as u32;
            self.out.push(Action::AskCandidates { members, count });
        }
    }

    /// Whether a step of the ladder of questions is reached.
    fn climb(&mut self, now: Mono) -> bool {
        let Some(ladder) = &mut self.ladder else { return false };
        let before = ladder.step;
        while ASKS_AFTER.get(ladder.step).is_some_and(|after| now >= ladder.from + *after) {
            ladder.step += 1;
        }
        ladder.step > before
    }

    fn ask_dht(&mut self, is_lacking: bool, now: Mono, rng: &mut impl Rng) {
        let Some(backoff) = self.dht.filter(|backoff| now >= backoff.at) else { return };
        self.dht = Some(backoff.next(self.settings.dht_every, now, rng));
        if is_lacking {
            self.out.push(Action::AskDht);
        }
    }

    /// Replaced first, judged later: two others are asked whether they reach it, before it is forgotten.
    pub(super) fn ask_others(&mut self, about: PeerId, rng: &mut impl Rng) {
        let mut ask: Vec<PeerId> = self.usable().map(|(peer, _)| *peer).filter(|peer| *peer != about).collect();
        while ask.len() > OTHERS_ASKED {
            ask.swap_remove(rng.random_range(0..ask.len()));
        }
        if !ask.is_empty() {
            self.out.push(Action::AskOthers { about, ask });
        }
    }

    /// Whom others reach is not gone: the fault is in our link, so it is kept and probed. Their word keeps a place among
    /// those that are known, and never one in the pool.
    pub(super) fn vouched(&mut self, peer: PeerId, answered: u32, reach: u32) {
        let vouched = self.known.values().filter(|known| known.about.is_vouched).count();
        let member = self.members.get_mut(&peer).filter(|member| member.life != Life::Answering);
        let about = member.map(|member| &mut member.about);
        let lost = self.known.get_mut(&peer).filter(|known| known.failures > 0).map(|known| &mut known.about);
        let Some(about) = about.or(lost) else { return };
        about.is_vouched = reach > 0 && vouched < VOUCHED_MAX;
        self.out.push(Action::Note(Event::AskedOthers { peer, answered, reach }));
    }
}
