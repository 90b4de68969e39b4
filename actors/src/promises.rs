//! Promises on their way to the disk, in their order, one under way at a time.
//!
//! Plain bookkeeping for an actor whose changes hold at once and are told to be kept only when they are on the disk: it
//! sends what [`Promises::next`] gives to the store, hands the answers in, and tells whoever waits. The database may be away
//! for long, and the store may die with a promise in hand: it is then given out again. Bound: so many as it is made for.

use std::collections::VecDeque;

use ::store::{Refusal, Write};

use crate::store::Kept;

/// Changes and, for each, who waits until it is on the disk.
#[derive(Debug)]
pub(crate) struct Promises<T> {
    waiting: VecDeque<Promise<T>>,
    most: usize,
    /// Counts what was sent to the store, so that a late answer is not taken for another's.
    sent: u64,
    is_under_way: bool,
}

#[derive(Debug)]
struct Promise<T> {
    writes: Vec<Write>,
    told: Option<T>,
}

/// What an answer of the store means.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer<T> {
    /// Nothing: it is to another question.
    Late,
    /// The database is away. Who waited need not wait on; the change is given out again after [`Promises::again`].
    Away(Option<T>),
    /// It is on the disk.
    Written(Option<T>),
    /// It is against a bound, or another promise: it is not tried again.
    Refused {
        /// What.
        writes: Vec<Write>,
        /// Why.
        why: Refusal,
        /// Who waited.
        told: Option<T>,
    },
}

impl<T> Promises<T> {
    /// None yet, of at most so many.
    pub(crate) const fn new(most: usize) -> Self {
        Self { waiting: VecDeque::new(), most, sent: 0, is_under_way: false }
    }

    /// Nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// One more change that is to be written as a whole.
    ///
    /// # Errors
    /// Gives both back when too many wait.
    pub(crate) fn push(&mut self, writes: Vec<Write>, told: Option<T>) -> Result<(), (Vec<Write>, Option<T>)> {
        if self.waiting.len() >= self.most {
            return Err((writes, told));
        }
        self.waiting.push_back(Promise { writes, told });
        Ok(())
    }

    /// What is to be sent to the store now, with the number under which its answer is to be handed in.
    pub(crate) fn next(&mut self) -> Option<(u64, Vec<Write>)> {
        let promise = self.waiting.front().filter(|_| !self.is_under_way)?;
        self.is_under_way = true;
        self.sent += 1;
        Some((self.sent, promise.writes.clone()))
    }

    /// The store answered to what was sent under this number.
    pub(crate) fn answered(&mut self, number: u64, kept: Kept) -> Answer<T> {
        if number != self.sent || !self.is_under_way {
            return Answer::Late;
        }
        if kept == Kept::Away {
            return Answer::Away(self.waiting.front_mut().and_then(|promise| promise.told.take()));
        }
        self.is_under_way = false;
        match (self.waiting.pop_front(), kept) {
            (Some(Promise { writes, told }), Kept::Refused(why)) => Answer::Refused { writes, why, told },
            (promise, _) => Answer::Written(promise.and_then(|promise| promise.told)),
        }
    }

    /// No answer came, or the database was away: what is under way is given out again.
    pub(crate) const fn again(&mut self) {
        self.is_under_way = false;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use protocol::identity::Keys;

    use super::*;

    fn forget(n: u8) -> Vec<Write> {
        vec![Write::ForgetPeer(Keys::from_seed([n; 32]).peer_id())]
    }

    #[test]
    fn promises_are_sent_one_at_a_time_and_in_their_order() {
        let mut promises = Promises::new(4);
        assert!(promises.is_empty() && promises.next().is_none());
        promises.push(forget(1), Some("one")).unwrap();
        promises.push(forget(2), Some("two")).unwrap();
        assert_eq!(promises.next(), Some((1, forget(1))));
        assert_eq!(promises.next(), None, "one is under way");
        assert_eq!(promises.answered(1, Kept::Written), Answer::Written(Some("one")));
        assert_eq!(promises.answered(1, Kept::Written), Answer::Late);
        assert_eq!(promises.next(), Some((2, forget(2))));
    }

    #[test]
    fn one_that_the_store_died_with_is_given_out_again_and_the_late_answer_counts_for_nothing() {
        let mut promises = Promises::new(4);
        promises.push(forget(1), Some("one")).unwrap();
        assert!(promises.next().is_some());
        promises.again();
        assert_eq!(promises.next(), Some((2, forget(1))));
        assert_eq!(promises.answered(1, Kept::Written), Answer::Late);
        assert_eq!(promises.answered(2, Kept::Written), Answer::Written(Some("one")));
        assert!(promises.is_empty());
    }

    #[test]
    fn nobody_waits_for_a_database_that_is_away_and_nothing_is_lost() {
        let mut promises = Promises::new(4);
        promises.push(forget(1), Some("one")).unwrap();
        assert!(promises.next().is_some());
        assert_eq!(promises.answered(1, Kept::Away), Answer::Away(Some("one")));
        assert_eq!(promises.next(), None, "not before it is to be tried again");
        promises.again();
        assert_eq!(promises.next(), Some((2, forget(1))));
        assert_eq!(promises.answered(2, Kept::Written), Answer::Written(None));
    }

    #[test]
    fn one_that_is_refused_is_not_tried_again() {
        let mut promises = Promises::new(4);
        promises.push(forget(1), Some("one")).unwrap();
        assert!(promises.next().is_some());
        let why = Refusal::Nul { field: "name" };
        let refused = promises.answered(1, Kept::Refused(why.clone()));
        assert_eq!(refused, Answer::Refused { writes: forget(1), why, told: Some("one") });
        assert!(promises.is_empty());
    }

    #[test]
    fn past_the_bound_a_change_is_given_back() {
        let mut promises = Promises::new(2);
        promises.push(forget(1), Some("one")).unwrap();
        promises.push(forget(2), Some("two")).unwrap();
        assert_eq!(promises.push(forget(3), Some("three")), Err((forget(3), Some("three"))));
    }
}
