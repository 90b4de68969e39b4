//! How many events of others are taken in a minute, before any of them is read.

use libp2p_identity::PeerId;

use super::{Verb, welcome};
use crate::{
    relation::Relation,
    search::resources::{QUESTIONS_IN_ALL, QUESTIONS_PER_AUTHOR},
    shares::Shares,
    time::Mono,
    wire::{RefusalCode, Refused},
};

/// Events of one author in a minute, before the profile's factor. An honest burst passes at once, and a partner's outbox,
/// full to its last of 100,000 rows, is taken in 84 minutes of the day that it has.
pub const EVENTS_PER_AUTHOR: u32 = 1_200;

/// Events of all authors together in a minute, before the profile's factor: five at their limit. 500,000 receipts, by which
/// a repeat is known, are more than an hour of it.
pub const EVENTS_IN_ALL: u32 = 6_000;

/// What others told us and asked of us in the last minute. A restart forgets it.
#[derive(Debug)]
pub struct Intake {
    events: Shares,
    questions: Shares,
}

impl Intake {
    /// Nothing came yet; the limits times the profile's `factor`.
    #[must_use]
    pub fn new(factor: u32) -> Self {
        Self {
            events: Shares::new(EVENTS_PER_AUTHOR, EVENTS_IN_ALL, factor),
            questions: Shares::new(QUESTIONS_PER_AUTHOR, QUESTIONS_IN_ALL, factor),
        }
    }

    /// Counts one event for `verb` of a peer that is this to us. Those that are not welcome are no part of it, and
    /// strangers, who may ask about signatures, use up nothing of what is there for partners.
    ///
    /// # Errors
    /// The refusal in the words of the wire: it is not welcome, or one too many and told when to come back.
    pub fn admit(&mut self, peer: PeerId, verb: Verb, relation: Relation, now: Mono) -> Result<(), Refused> {
        welcome(verb, relation)?;
        let shares = if verb == Verb::Verify { &mut self.questions } else { &mut self.events };
        shares
            .count(peer, now)
            .map_err(|secs| Refused::new(RefusalCode::Limit, "too many events in a minute").retry_after(secs))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::peer;

    fn admit(intake: &mut Intake, n: u32, verb: Verb, at: u64) -> Result<(), Refused> {
        intake.admit(peer(n), verb, Relation::Partner, Mono::from_secs(at))
    }

    #[test]
    fn a_partner_has_so_many_events_a_minute_and_is_told_when_the_next_passes() {
        let mut intake = Intake::new(1);
        let verbs = [Verb::Create, Verb::Update, Verb::Delete, Verb::Planner];
        for verb in verbs.into_iter().cycle().take(EVENTS_PER_AUTHOR as usize) {
            assert_eq!(admit(&mut intake, 1, verb, 0), Ok(()));
        }
        let refused = admit(&mut intake, 1, Verb::Create, 7).unwrap_err();
        assert_eq!((refused.refused, refused.retry_after), (RefusalCode::Limit, Some(53)));
        assert_eq!(admit(&mut intake, 2, Verb::Create, 7), Ok(()), "another's share is another");
        assert_eq!(admit(&mut intake, 1, Verb::Create, 60), Ok(()), "it waited as long as it was told");
        assert_eq!(admit(&mut Intake::new(10), 1, Verb::Create, 0), Ok(()));
    }

    #[test]
    fn all_partners_together_have_five_times_as_many() {
        let mut intake = Intake::new(1);
        for n in 0..EVENTS_IN_ALL {
            assert_eq!(admit(&mut intake, n % 100, Verb::Update, 0), Ok(()));
        }
        assert_eq!(admit(&mut intake, 100, Verb::Update, 0).unwrap_err().refused, RefusalCode::Limit);
        assert_eq!(admit(&mut intake, 100, Verb::Update, 60), Ok(()));
    }

    #[test]
    fn a_full_outbox_of_an_honest_partner_is_taken_within_the_hours_it_has() {
        let (mut intake, mut at) = (Intake::new(1), 0);
        for _ in 0..100_000 {
            if let Err(refused) = admit(&mut intake, 1, Verb::Create, at) {
                // The longest wait that a lane adds by chance.
                at += (refused.retry_after.unwrap() * 12).div_ceil(10);
                assert_eq!(admit(&mut intake, 1, Verb::Create, at), Ok(()));
            }
        }
        assert!(at < 2 * 3_600, "{at} s");
    }

    #[test]
    fn strangers_ask_about_signatures_and_leave_the_share_of_partners_alone() {
        let mut intake = Intake::new(1);
        let mut ask = |n| intake.admit(peer(n), Verb::Verify, Relation::None, Mono::ZERO);
        for _ in 0..QUESTIONS_PER_AUTHOR {
            assert_eq!(ask(1), Ok(()));
        }
        assert_eq!(ask(1).unwrap_err().refused, RefusalCode::Limit);
        for n in QUESTIONS_PER_AUTHOR..QUESTIONS_IN_ALL {
            assert_eq!(ask(n + 2), Ok(()));
        }
        assert_eq!(ask(9).unwrap_err().refused, RefusalCode::Limit);
        assert_eq!(admit(&mut intake, 1, Verb::Create, 0), Ok(()));
    }

    #[test]
    fn whoever_is_not_welcome_is_told_so_and_not_counted() {
        let mut intake = Intake::new(1);
        for _ in 0..=EVENTS_PER_AUTHOR {
            let refused = intake.admit(peer(1), Verb::Create, Relation::Known, Mono::ZERO).unwrap_err();
            assert_eq!(refused.refused, RefusalCode::UnknownPeer);
            let refused = intake.admit(peer(1), Verb::Verify, Relation::Blacklist, Mono::ZERO).unwrap_err();
            assert_eq!(refused.refused, RefusalCode::Banned);
        }
        assert_eq!(admit(&mut intake, 1, Verb::Create, 0), Ok(()));
    }
}
