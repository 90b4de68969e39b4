//! The changes that wait, in the order in which they came.

use std::collections::VecDeque;

use protocol::wire::Refused;

use super::{
    Verdict,
    plan::{Outcome, Wanted},
};
use crate::supervision::Reply;

/// Changes that wait. At a thousand a second the last one waits for two seconds, about as long as an orderer does.
pub(super) const QUEUE_MAX: usize = 2_048;

/// Bytes of what waits: a batch of each subject of the bus, and the longest events of twenty partners besides.
pub(super) const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Changes that are answered together, and what became of those that are done.
pub(super) struct Batch {
    wants: VecDeque<Wanted>,
    outcomes: Vec<Outcome>,
    answer: Answer,
}

/// Who waits for a batch.
pub(super) enum Answer {
    Bus(Reply<Vec<Verdict>>),
    Peer(Reply<Vec<Result<(), Refused>>>),
    Edge(Reply<Outcome>),
    Nobody,
}

/// What waits and what is being written, which are its first.
#[derive(Default)]
pub(super) struct Queue {
    batches: VecDeque<Batch>,
    wants: usize,
    bytes: usize,
}

impl Batch {
    pub(super) fn of(wants: impl IntoIterator<Item = Wanted>, answer: Answer) -> Self {
        Self { wants: wants.into_iter().collect(), outcomes: Vec::new(), answer }
    }

    /// Answers that nothing of it is done.
    pub(super) fn put_off(mut self, why: &str) {
        self.outcomes = vec![Outcome::NotYet(why.to_owned()); self.wants.len()];
        self.answer();
    }

    fn answer(self) {
        match self.answer {
            Answer::Bus(reply) => reply.send(self.outcomes.into_iter().map(Outcome::verdict).collect()),
            Answer::Peer(reply) => reply.send(self.outcomes.into_iter().map(Outcome::judgement).collect()),
            Answer::Edge(reply) => {
                if let Some(outcome) = self.outcomes.into_iter().next() {
                    reply.send(outcome);
                }
            }
            Answer::Nobody => {}
        }
    }
}

impl Queue {
    /// Changes that wait.
    pub(super) const fn len(&self) -> usize {
        self.wants
    }

    /// Whether so many more could wait.
    pub(super) const fn has_room(&self, wants: usize) -> bool {
        self.wants + wants <= QUEUE_MAX
    }

    /// Takes a batch, or gives it back when there is no room for it.
    pub(super) fn push(&mut self, batch: Batch) -> Result<(), Batch> {
        let bytes: usize = batch.wants.iter().map(Wanted::bytes).sum();
        if !self.has_room(batch.wants.len()) || self.bytes + bytes > QUEUE_BYTES_MAX {
            return Err(batch);
        }
        if batch.wants.is_empty() {
            batch.answer();
            return Ok(());
        }
        self.wants += batch.wants.len();
        self.bytes += bytes;
        self.batches.push_back(batch);
        Ok(())
    }

    /// The changes that came first.
    pub(super) fn first(&self, wants: usize) -> impl Iterator<Item = &Wanted> {
        self.batches.iter().flat_map(|batch| &batch.wants).take(wants)
    }

    /// The first change came to its end. A batch is answered with its last.
    pub(super) fn finish(&mut self, outcome: Outcome) {
        let Some(batch) = self.batches.front_mut() else { return };
        if let Some(wanted) = batch.wants.pop_front() {
            self.wants -= 1;
            self.bytes -= wanted.bytes();
            batch.outcomes.push(outcome);
        }
        if batch.wants.is_empty()
            && let Some(batch) = self.batches.pop_front()
        {
            batch.answer();
        }
    }

    /// Some of the first batch is done, and some is not.
    pub(super) fn is_begun(&self) -> bool {
        self.batches.front().is_some_and(|batch| !batch.outcomes.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sharing::plan::{Author, Want};

    fn of(wants: usize, bytes: usize) -> Batch {
        let payload = vec![0_u8; bytes].into();
        let want = Want::Send {
            to: Vec::new(),
            verb: protocol::event::Verb::Minio,
            datatype: String::new(),
            payload,
            author: Author::default(),
        };
        Batch::of(std::iter::repeat_n(Wanted::unnamed(want), wants), Answer::Nobody)
    }

    #[test]
    fn so_many_changes_wait_and_no_more() {
        let mut queue = Queue::default();
        assert!(queue.push(of(QUEUE_MAX - 1, 0)).is_ok());
        assert!(queue.push(of(2, 0)).is_err());
        assert!(queue.push(of(1, 0)).is_ok() && !queue.has_room(1));
        assert!(queue.push(of(1, 0)).is_err());
        queue.finish(Outcome::Repeated);
        assert!(queue.push(of(1, 0)).is_ok());
        assert_eq!(queue.first(usize::MAX).count(), QUEUE_MAX);
    }

    #[test]
    fn so_many_bytes_wait_and_no_more() {
        let mut queue = Queue::default();
        let empty = of(1, 0).wants[0].bytes();
        assert!(queue.push(of(1, QUEUE_BYTES_MAX - 2 * empty)).is_ok());
        assert!(queue.push(of(1, 1)).is_err(), "one past the bound");
        assert!(queue.push(of(1, 0)).is_ok(), "at the bound");
        queue.finish(Outcome::Repeated);
        assert_eq!((queue.bytes, queue.len()), (empty, 1));
        assert!(queue.push(of(1, 1)).is_ok());
    }
}
