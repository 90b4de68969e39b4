//! How much a node asks of one indexer, for all its users together: less than the indexer takes.
//!
//! The users of an organisation share one node, and an indexer sees but the node. Without a limit of its own one busy user
//! would have it refused for all, and a program that asks in a loop would have it banned. So a node stops at a part of what
//! [`crate::behaviour`] lets pass, and says busy to its own user, with the time to wait. What is left is for the node's own
//! questions: for candidates, and for its own record.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;
use thiserror::Error;

use crate::{
    behaviour::{Kind, Settings, Window},
    time::Mono,
};

/// Of ten requests that an indexer takes, so many are for our users.
const TENTHS: u32 = 8;

/// Indexers and kinds counted: many times what a pool of the largest setting asks within a minute.
const LINES_MAX: usize = 512;

/// Every indexer that could be asked was asked enough in the last minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this node's users have asked its indexers enough for this minute: try again in {secs} s")]
pub struct Enough {
    /// Whole seconds after which one may be asked again.
    pub secs: u64,
}

/// What was asked of whom in the last minute. Bounded by `LINES_MAX`; a restart forgets it, and the indexers do not.
#[derive(Debug)]
pub struct Restraint {
    limits: [u32; Kind::ALL.len()],
    lines: BTreeMap<(PeerId, usize), Window>,
}

impl Restraint {
    /// Nothing was asked yet; the limits are eight tenths of what an indexer of these settings takes, times the profile's
    /// `factor`.
    #[must_use]
    pub fn new(settings: &Settings, factor: u32) -> Self {
        Self { limits: limits(settings, factor), lines: BTreeMap::new() }
    }

    /// New limits; what was asked in the last minute still counts.
    pub fn set_limits(&mut self, settings: &Settings, factor: u32) {
        self.limits = limits(settings, factor);
    }

    /// Those of `members` that may be asked now, the first `at_most` of them, counted as asked. Nobody to ask is no fault.
    ///
    /// # Errors
    /// When there are members, and each was asked enough.
    pub fn choose(&mut self, members: &[PeerId], kind: Kind, at_most: usize, now: Mono) -> Result<Vec<PeerId>, Enough> {
        let limit = self.limits[kind as usize];
        let (mut chosen, mut secs) = (Vec::new(), None::<u64>);
        for member in members {
            if chosen.len() >= at_most {
                break;
            }
            let line = self.line(*member, kind, now);
            if line.count(now) < limit {
                line.add();
                chosen.push(*member);
            } else {
                let wait = line.secs_until_below(limit, now);
                secs = Some(secs.map_or(wait, |secs| secs.min(wait)));
            }
        }
        match secs {
            Some(secs) if chosen.is_empty() => Err(Enough { secs }),
            _ => Ok(chosen),
        }
    }

    fn line(&mut self, member: PeerId, kind: Kind, now: Mono) -> &mut Window {
        let key = (member, kind as usize);
        if self.lines.len() >= LINES_MAX && !self.lines.contains_key(&key) {
            self.lines.retain(|_, line| line.count(now) > 0);
            if self.lines.len() >= LINES_MAX {
                // No pool is that large: whoever is forgotten is at worst asked as much as the indexer itself allows.
                self.lines.pop_first();
            }
        }
        self.lines.entry(key).or_default()
    }
}

fn limits(settings: &Settings, factor: u32) -> [u32; Kind::ALL.len()] {
    settings.requests().map(|requests| (requests.saturating_mul(factor).saturating_mul(TENTHS) / 10).max(1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::behaviour::{Behaviour, Verdict};
    use crate::testing::peer;

    fn restraint() -> Restraint {
        Restraint::new(&Settings::default(), 1)
    }

    #[test]
    fn each_indexer_is_asked_up_to_eight_tenths_of_its_limit_and_then_the_next_one() {
        let mut restraint = restraint();
        for _ in 0..16 {
            assert_eq!(restraint.choose(&[peer(1), peer(2)], Kind::Search, 1, Mono::ZERO), Ok(vec![peer(1)]));
        }
        assert_eq!(restraint.choose(&[peer(1), peer(2)], Kind::Search, 1, Mono::ZERO), Ok(vec![peer(2)]));
        assert_eq!(restraint.choose(&[peer(1)], Kind::Search, 1, Mono::ZERO), Err(Enough { secs: 60 }));
        assert_eq!(restraint.choose(&[peer(1)], Kind::Get, 3, Mono::ZERO), Ok(vec![peer(1)]), "kinds count apart");
        assert_eq!(restraint.choose(&[], Kind::Search, 3, Mono::ZERO), Ok(vec![]));
        assert_eq!(restraint.choose(&[peer(1)], Kind::Search, 1, Mono::from_secs(60)), Ok(vec![peer(1)]));
    }

    #[test]
    fn what_is_counted_is_bounded() {
        let mut restraint = restraint();
        for n in 0..2 * u32::try_from(LINES_MAX).unwrap() {
            restraint.choose(&[peer(n)], Kind::Get, 1, Mono::ZERO).unwrap();
        }
        assert_eq!(restraint.lines.len(), LINES_MAX);
    }

    proptest! {
        /// However its users ask, an indexer with the same settings lets all of it pass, and has room for the node's own.
        #[test]
        fn no_indexer_refuses_what_restraint_lets_through(
            gaps in proptest::collection::vec(0u64..3_000, 1..300), factor in prop_oneof![Just(1u32), Just(10)],
        ) {
            let mut restraint = Restraint::new(&Settings::default(), factor);
            let mut indexer = Behaviour::new(&Settings::default(), factor);
            let mut at = 0;
            for gap in gaps {
                at += gap;
                let now = Mono::from_millis(at);
                for kind in [Kind::Search, Kind::Get] {
                    if !restraint.choose(&[peer(1)], kind, 1, now).unwrap_or_default().is_empty() {
                        prop_assert_eq!(indexer.observe(peer(9), kind, now), Verdict::Pass);
                    }
                }
            }
        }
    }
}
