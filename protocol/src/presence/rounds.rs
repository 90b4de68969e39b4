//! Which member of its own pool a node audits, and when.
//!
//! Every member counts the tokens of the indexers that it relies on, one at a time, the longest unaudited first: an auditor
//! whom a hash chooses tells nobody what it found, and a node believes nobody's word about its indexers anyway. Of those that
//! were never audited the one that claims the most comes first. One under suspicion does not wait for its turn.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use super::audit::{CLAIM_MIN, Evidence};
use crate::time::{Mono, text};

/// Section `[audit]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Between two audits of a node, and before its first: two in an epoch, so that five members are seen within 25 min,
    /// for 37 bytes a second.
    #[serde(with = "text")]
    pub every: Duration,
    /// Between two audits of the same member at the least: an epoch and its spread for three of them, so that tokens which
    /// were lost before the first are there again at the third.
    #[serde(with = "text")]
    pub again: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { every: Duration::from_secs(300), again: Duration::from_secs(330) }
    }
}

/// When each member was audited last. Bounded by the pool: who is no member any more is forgotten.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    settings: Settings,
    last: BTreeMap<PeerId, Mono>,
    /// The last audit of all.
    any: Option<Mono>,
}

impl Rounds {
    /// Nobody was audited so far.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Whom to audit now, of the members and the sessions that each claims; it counts as audited. Nobody is in the first
    /// minutes, nor one whose claim is too small to be a lie worth finding.
    pub fn due(&mut self, members: &[(PeerId, u32)], evidence: &Evidence, now: Mono) -> Option<PeerId> {
        self.last.retain(|peer, _| members.iter().any(|(member, _)| member == peer));
        let worth = || members.iter().copied().filter(|(_, claimed)| *claimed >= CLAIM_MIN);
        let of = |peer: &PeerId| self.last.get(peer).copied();
        let rested = || worth().filter(|(peer, _)| of(peer).is_none_or(|last| now.since(last) >= self.settings.again));
        let suspect = rested().map(|(peer, _)| peer).find(|peer| evidence.sum(peer) > 0.0);
        let is_turn = self.any.map_or(now.since_start(), |any| now.since(any)) >= self.settings.every;
        let order = |(peer, claimed): &(PeerId, u32)| (of(peer), Reverse(*claimed), *peer);
        let usual = || rested().filter(|_| is_turn).min_by_key(order).map(|(peer, _)| peer);
        let peer = suspect.or_else(usual)?;
        if suspect.is_none() {
            self.any = Some(now);
        }
        self.last.insert(peer, now);
        Some(peer)
    }

    /// A peer is to be audited for another reason: whether it may be, which counts it as audited. Who is no member is
    /// forgotten with the next turn: nobody is audited for that reason more than once in an epoch anyway.
    pub fn may(&mut self, peer: &PeerId, now: Mono) -> bool {
        let is_rested = self.last.get(peer).is_none_or(|last| now.since(*last) >= self.settings.again);
        if is_rested {
            self.last.insert(*peer, now);
        }
        is_rested
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{presence::audit, testing::peer};

    fn at(second: u64) -> Mono {
        Mono::from_secs(second)
    }

    #[test]
    fn members_take_turns_two_in_an_epoch() {
        let (mut rounds, evidence) = (Rounds::default(), Evidence::default());
        let members: Vec<_> = (1..=3).map(|number| (peer(number), 100)).collect();
        assert_eq!(rounds.due(&members, &evidence, at(299)), None, "nobody in the first minutes");
        let mut seen: Vec<_> = Vec::new();
        for second in (300..=1_200).step_by(20) {
            seen.extend(rounds.due(&members, &evidence, at(second)));
        }
        assert_eq!(seen.len(), 4);
        assert_eq!(seen[3], seen[0]);
        seen.truncate(3);
        seen.sort();
        let mut all: Vec<_> = members.iter().map(|(peer, _)| *peer).collect();
        all.sort();
        assert_eq!(seen, all);
    }

    #[test]
    fn an_operator_says_how_often_audits_are() {
        let second = Duration::from_secs(1);
        let mut rounds = Rounds::new(Settings { every: 2 * second, again: 5 * second });
        let evidence = Evidence::default();
        let members = [(peer(1), 100), (peer(2), 100)];
        let audited: Vec<u64> = (0..=9).filter(|now| rounds.due(&members, &evidence, at(*now)).is_some()).collect();
        assert_eq!(audited, [2, 4, 7, 9]);
        assert_eq!(Settings::default(), Settings { every: 300 * second, again: 330 * second });
    }

    #[test]
    fn of_strangers_the_one_that_claims_the_most_comes_first() {
        let (mut rounds, evidence) = (Rounds::default(), Evidence::default());
        let members = [(peer(1), 30), (peer(2), 300), (peer(3), 20)];
        let mut due = |second| rounds.due(&members, &evidence, at(second));
        assert_eq!([due(300), due(600), due(900)], [Some(peer(2)), Some(peer(1)), Some(peer(3))]);
        assert_eq!(due(1_200), Some(peer(2)));
    }

    #[test]
    fn small_claims_are_not_audited_and_strangers_are_forgotten() {
        let (mut rounds, evidence) = (Rounds::default(), Evidence::default());
        let members = [(peer(1), CLAIM_MIN - 1), (peer(2), CLAIM_MIN)];
        assert_eq!(rounds.due(&members, &evidence, at(300)), Some(peer(2)));
        assert_eq!(rounds.due(&members[..1], &evidence, at(600)), None);
        assert!(rounds.last.is_empty());
    }

    #[test]
    fn one_under_suspicion_is_audited_again_without_waiting_for_its_turn() {
        let (mut rounds, mut evidence) = (Rounds::default(), Evidence::default());
        let members = [(peer(1), 100), (peer(2), 100)];
        let first = rounds.due(&members, &evidence, at(300));
        let Some(first) = first else { unreachable!("it is time") };
        if let Some(evaded) = audit::evaded(100) {
            evidence.add(first, &evaded);
        }
        let other = rounds.due(&members, &evidence, at(600));
        assert!(other.is_some_and(|other| other != first), "the others keep their turn");
        assert_eq!(rounds.due(&members, &evidence, at(629)), None);
        assert!(!rounds.may(&first, at(629)) && rounds.may(&peer(9), at(629)));
        assert_eq!(rounds.due(&members, &evidence, at(630)), Some(first));
    }

    #[test]
    fn the_only_member_is_not_audited_more_often_than_tokens_come_back() {
        let (mut rounds, evidence) = (Rounds::default(), Evidence::default());
        let mut is_audited = |second: &u64| rounds.due(&[(peer(1), 100)], &evidence, at(*second)).is_some();
        let seen: Vec<u64> = (300..=1_500).step_by(20).filter(|second| is_audited(second)).collect();
        assert_eq!(seen, [300, 640, 980, 1_320]);
    }

    #[test]
    fn an_audit_for_another_reason_counts_for_a_member_that_had_no_turn_yet() {
        let (mut rounds, mut evidence) = (Rounds::default(), Evidence::default());
        let members = [(peer(1), 100)];
        assert_eq!(rounds.due(&members, &evidence, at(0)), None);
        assert!(rounds.may(&peer(1), at(10)));
        if let Some(evaded) = audit::evaded(100) {
            evidence.add(peer(1), &evaded);
        }
        assert!(evidence.sum(&peer(1)) > 0.0);
        let again = (20..=1_000).step_by(20).find(|second| rounds.due(&members, &evidence, at(*second)).is_some());
        assert_eq!(again, Some(340), "330 s after the first, though it is suspected");
    }
}
