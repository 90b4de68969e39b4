//! Who is probed before it may join, and when.

use std::collections::BTreeSet;

use libp2p_identity::PeerId;
use rand::{Rng, RngExt as _};

use super::{
    Action, Choice, Event, PROBE_LOST_AFTER, Pool, Probed, choose,
    known::{
        About, Good, HEARSAY_FAILURES_MAX, HEARSAY_LIFE, Known, REMEMBERED_FAILURES_MAX, REMEMBERED_LIFE, Seen, Source,
        best_first,
    },
    quick_score,
};
use crate::{heartbeat::jittered, time::Mono};

impl Pool {
    /// Starts the probes that are worth it; tells how many candidates are at hand, where that is known.
    pub(super) fn probe(&mut self, now: Mono, rng: &mut impl Rng) -> Option<usize> {
        let is_lonely_step = self.alone.is_some_and(|backoff| now >= backoff.at);
        if is_lonely_step {
            self.alone = self.alone.map(|backoff| backoff.next(self.settings.backoff_max, now, rng));
        }
        let (mut chosen, at_hand) =
            if is_lonely_step { (self.everybody(now), None) } else { self.worth_probing(now, rng) };
        if chosen.is_empty() {
            return at_hand;
        }
        self.probing_since.get_or_insert(now);
        chosen.truncate((self.settings.probes_max as usize).saturating_sub(self.probing()));
        for peer in chosen {
            let Some(known) = self.known.get_mut(&peer) else { continue };
            known.probing = Some(now);
            known.probed_last = Some(now);
            self.out.push(Action::Probe { peer, addrs: known.about.addrs.clone() });
        }
        None
    }

    /// While nobody answers, everybody is worth a probe: seeds first, then remembered ones, the longest unprobed first.
    pub(super) fn everybody(&self, now: Mono) -> Vec<PeerId> {
        let mut all: Vec<_> = self.known.iter().filter(|(_, known)| self.is_allowed(known, now)).collect();
        all.sort_by_key(|(_, known)| (!known.about.seed, !known.about.remembered, known.probed_last));
        all.into_iter().map(|(peer, _)| *peer).collect()
    }

    fn worth_probing(&mut self, now: Mono, rng: &mut impl Rng) -> (Vec<PeerId>, Option<usize>) {
        if self.alone.is_some() {
            return (self.untried(now), None);
        }
        let (wanted, standby) = (self.wanted(now), self.settings.standby as usize);
        if let Some(seen) = self.known.seen(now).filter(|seen| seen.is_at_rest)
            && wanted == 0
            && seen.at_hand >= standby
            && now < self.departed
        {
            return (Vec::new(), Some(seen.at_hand));
        }
        let (mut good, mut down, mut probing, mut due, mut until) = (Vec::new(), Vec::new(), 0, None, None);
        let beats = &self.beats;
        self.known.settle(|known| Self::is_idle(known, beats, now));
        for (peer, known) in self.known.awake() {
            probing += usize::from(known.probing.is_some());
            good.extend(known.good.filter(|_| self.is_at_hand(known, now)).map(|good| (*peer, good)));
            down.extend(self.is_down_and_worth_it(known, now).then_some(*peer));
            due = [due, self.due_after(known, now)].into_iter().flatten().min();
            let ends = known.good.map(|good| self.good_until(good)).filter(|ends| *ends > now);
            until = [until, ends].into_iter().flatten().min();
        }
        let more = match wanted {
            0 => standby.saturating_sub(good.len() + probing),
            wanted => (wanted + 2).saturating_sub(good.len() + probing),
        };
        let at_hand = good.len() + probing;
        let mut chosen = self.stale_standby(&best_first(good), now);
        chosen.extend(down);
        let until = [due, until].into_iter().flatten().min();
        self.known.look(Seen { at: now, until, due, at_hand, is_at_rest: chosen.is_empty() });
        chosen.extend(self.departed(now, rng));
        if more > 0 {
            chosen.extend(self.candidates(more, now, rng));
        }
        if chosen.len() > 1 {
            let mut seen = BTreeSet::new();
            chosen.retain(|peer| seen.insert(*peer));
        }
        (chosen, Some(at_hand))
    }

    /// While nobody answers, the growing pause is for those that failed before.
    fn untried(&self, now: Mono) -> Vec<PeerId> {
        let is_untried = |known: &Known| known.failures == 0 && known.good.is_none() && self.is_due(known, now);
        self.known.iter().filter(|(_, known)| is_untried(known)).map(|(peer, _)| *peer).collect()
    }

    fn stale_standby(&self, good: &[(PeerId, Mono)], now: Mono) -> Vec<PeerId> {
        let is_stale = |(peer, at): &&(PeerId, Mono)| {
            now.since(*at) >= self.standby_every()
                && self.known.get(peer).is_some_and(|known| self.is_allowed(known, now))
        };
        good.iter().take(self.settings.standby as usize).filter(is_stale).map(|(peer, _)| *peer).collect()
    }

    fn is_down_and_worth_it(&self, known: &Known, now: Mono) -> bool {
        (known.about.seed || known.about.is_vouched) && known.failures > 0 && self.is_due(known, now)
    }

    /// A random departed one is tried now and then, so that two halves of a network find each other again.
    pub(super) fn departed(&mut self, now: Mono, rng: &mut impl Rng) -> Option<PeerId> {
        if now < self.departed {
            return None;
        }
        self.departed = now + self.settings.refresh_every + jittered(self.settings.refresh_every, 0.1, rng);
        let may = |known: &Known| {
            known.about.remembered
                && !self.is_good(known, now)
                && known.rests_until <= now
                && self.is_allowed(known, now)
        };
        let all: Vec<PeerId> = self.known.iter().filter(|(_, known)| may(known)).map(|(peer, _)| *peer).collect();
        (!all.is_empty()).then(|| all[rng.random_range(0..all.len())])
    }

    /// Those that we chose ourselves come first; among those that others named chance decides, weighted by their room.
    /// Our own that failed come last, so that a memory full of the dead holds nobody up.
    pub(super) fn candidates(&self, count: usize, now: Mono, rng: &mut impl Rng) -> Vec<PeerId> {
        let is_open = |known: &Known| !self.is_good(known, now) && self.is_due(known, now);
        let open = self.known.iter().filter(|(_, known)| is_open(known));
        let (hearsay, mut own): (Vec<_>, Vec<_>) = open.partition(|(_, known)| known.is_hearsay());
        own.sort_by_key(|(_, known)| (known.failures, !known.about.seed));
        let (fresh, failed): (Vec<_>, Vec<_>) = own.into_iter().partition(|(_, known)| known.failures == 0);
        let choices: Vec<Choice> = hearsay
            .into_iter()
            .map(|(peer, known)| Choice { peer: *peer, fill_rate: known.about.fill_rate, subnet: known.about.subnet() })
            .collect();
        let taken = self.members.values().map(|member| &member.about);
        let taken = taken.chain(self.known.values().filter(|known| self.is_good(known, now)).map(|known| &known.about));
        let taken = taken.filter_map(About::subnet).collect();
        let ids = |own: Vec<(&PeerId, &Known)>| own.into_iter().map(|(peer, _)| *peer).collect::<Vec<_>>();
        let mut chosen = ids(fresh);
        chosen.extend(choose(&choices, count, self.owner.is_diverse.then_some(taken), rng));
        chosen.extend(ids(failed));
        chosen.truncate(count);
        chosen
    }

    pub(super) fn give_probes_up(&mut self, now: Mono, rng: &mut impl Rng) {
        let most = self.settings.probe_within + PROBE_LOST_AFTER;
        let is_lost_since = |since: Mono| now.since(since) >= most;
        if !self.probing_since.is_some_and(is_lost_since) {
            return;
        }
        let is_lost = |known: &Known| known.probing.is_some_and(is_lost_since);
        let lost: Vec<PeerId> = self.known.iter().filter(|(_, known)| is_lost(known)).map(|(peer, _)| *peer).collect();
        for peer in lost {
            if let Some(known) = self.known.get_mut(&peer) {
                known.about.rhythm.probed(now, &self.beats);
            }
            self.probe_failed(peer, now, rng);
        }
        self.probing_since = self.known.values().filter_map(|known| known.probing).min();
    }

    pub(super) fn probed(&mut self, peer: PeerId, outcome: Probed, now: Mono, rng: &mut impl Rng) {
        let Some(known) = self.known.get_mut(&peer) else { return };
        if known.probing.take().is_none() {
            return;
        }
        // What was not sent does not count: a node alone must not use its ceiling up on indexers that are away.
        if outcome != Probed::Unreachable {
            known.about.rhythm.probed(now, &self.beats);
        }
        match outcome {
            Probed::Answered { rtt, fill_rate } => {
                let score = quick_score(rtt, fill_rate);
                known.about.fill_rate = fill_rate.or(known.about.fill_rate);
                if score < self.settings.quick_score_min {
                    return self.probe_failed(peer, now, rng);
                }
                let was_good = known.good.replace(Good { score, at: now }).is_some();
                known.failures = 0;
                known.about.is_vouched = false;
                known.not_before = now;
                if !was_good && self.need == 0 {
                    self.out.push(Action::Note(Event::Standby { peer }));
                }
            }
            Probed::Busy { retry_after, alternatives } => {
                known.about.rhythm.retry_after(retry_after, now);
                known.good = None;
                self.hear(alternatives, Source::Indexer(peer), now, rng);
            }
            Probed::Silent | Probed::Unreachable => self.probe_failed(peer, now, rng),
        }
    }

    fn probe_failed(&mut self, peer: PeerId, now: Mono, rng: &mut impl Rng) {
        let is_alone = self.talking().next().is_none();
        let Some(known) = self.known.get_mut(&peer) else { return };
        known.probing = None;
        known.good = None;
        let (failures, pause) = (known.failures, self.settings.backoff_first);
        known.fail(pause, now, rng);
        known.about.is_vouched &= known.failures < REMEMBERED_FAILURES_MAX;
        if known.about.seed || known.kept || known.about.is_vouched {
            return;
        }
        // When nobody answers, the fault may be ours, and nobody is forgotten for it.
        if known.about.remembered {
            if is_alone {
                known.failures = failures.max(1);
            } else if known.failures >= REMEMBERED_FAILURES_MAX && now.since(known.heard) >= REMEMBERED_LIFE {
                self.forget(peer);
            }
        } else if known.failures >= HEARSAY_FAILURES_MAX && now.since(known.heard) >= HEARSAY_LIFE {
            self.known.remove(&peer);
        }
    }
}
