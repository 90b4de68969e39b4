//! Which member of its own pool a node audits, and when.
//!
//! Every member counts the tokens of the indexers that it relies on, one at a time, the longest unaudited first: an auditor
//! whom a hash chooses tells nobody what it found, and a node believes nobody's word about its indexers anyway. One under
//! suspicion is audited again as often as it has to answer.

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use super::audit::{CLAIM_MIN, Evidence};
use crate::time::Mono;

/// Between two audits of a node: two in an epoch, so that five members are seen within 25 min, for 37 bytes a second.
const EVERY: Duration = Duration::from_secs(300);

/// Between two audits of one that is under suspicion: three in an epoch, which is what exposes it.
const SUSPECT_EVERY: Duration = Duration::from_secs(200);

/// When each member was audited last. Bounded by the pool: who is no member any more is forgotten.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    last: BTreeMap<PeerId, Mono>,
    /// The last audit of all.
    any: Option<Mono>,
}

impl Rounds {
    /// Whom to audit now, of the members and the sessions that each claims; it counts as audited. Nobody is in the first
    /// minutes, nor one whose claim is too small to be a lie worth finding.
    pub fn due(&mut self, members: &[(PeerId, u32)], evidence: &Evidence, now: Mono) -> Option<PeerId> {
        self.last.retain(|peer, _| members.iter().any(|(member, _)| member == peer));
        let worth = || members.iter().filter(|(_, claimed)| *claimed >= CLAIM_MIN).map(|(peer, _)| *peer);
        let is_past =
            |last: Option<Mono>, pause: Duration| last.map_or(now.since_start(), |last| now.since(last)) >= pause;
        let of = |peer: &PeerId| self.last.get(peer).copied();
        let suspect = worth().find(|peer| evidence.sum(peer) > 0.0 && is_past(of(peer), SUSPECT_EVERY));
        let usual = || worth().filter(|_| is_past(self.any, EVERY)).min_by_key(|peer| (of(peer), *peer));
        let peer = suspect.or_else(usual)?;
        if suspect.is_none() {
            self.any = Some(now);
        }
        self.last.insert(peer, now);
        Some(peer)
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
        assert_eq!(rounds.due(&members, &evidence, at(499)), None);
        assert_eq!(rounds.due(&members, &evidence, at(500)), Some(first));
        assert!(
            rounds.due(&members, &evidence, at(600)).is_some_and(|other| other != first),
            "the others keep their turn"
        );
    }
}
