//! What is to come, in the order of its time.
//!
//! Times are sorted, events stay where they lie: an event is many times as large as the time at which it comes. Of times
//! only those of the next moment are sorted, so that a large network has no long row of timers to sort each message into.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use super::world::To;

/// Times are sorted when their moment of this length begins: of 10,000 members some 2,000 events.
const MOMENT: Duration = Duration::from_millis(100);

/// When in nanoseconds, its number, and where it lies. Of two at the same time the one that was queued first comes first.
type Due = (u64, u64, u32);

/// Events that are to come.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Of this moment and those before it.
    due: BinaryHeap<Reverse<Due>>,
    moment: u64,
    /// Of each later moment, in no order.
    later: BTreeMap<u64, Vec<Reverse<Due>>>,
    places: Vec<Option<To>>,
    free: Vec<u32>,
}

impl Queue {
    /// Queues an event; no number is given twice.
    pub(super) fn push(&mut self, at: Duration, number: u64, to: To) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).expect("fewer events wait than fit into memory")
        });
        self.places[place as usize] = Some(to);
        // 500 years fit.
        let at = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        let moment = at / MOMENT.as_nanos() as u64;
        let due = Reverse((at, number, place));
        if moment <= self.moment {
            self.due.push(due);
        } else {
            self.later.entry(moment).or_default().push(due);
        }
    }

    /// The first one.
    pub(super) fn pop(&mut self) -> Option<(Duration, To)> {
        if self.due.is_empty() {
            let (moment, due) = self.later.pop_first()?;
            self.moment = moment;
            self.due = BinaryHeap::from(due);
        }
        let Reverse((at, _, place)) = self.due.pop()?;
        let to = self.places[place as usize].take().expect("a time that is due has an event");
        self.free.push(place);
        Some((Duration::from_nanos(at), to))
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn popped(queue: &mut Queue) -> Option<(u64, usize)> {
        queue.pop().map(|(at, to)| {
            let To::Step(step) = to else { panic!("a step was queued") };
            (at.as_secs(), step)
        })
    }

    #[test]
    fn the_earliest_comes_first_and_of_two_the_one_that_was_queued_first() {
        let mut queue = Queue::default();
        for (number, (at, step)) in [(3, 0), (1, 1), (2, 2), (1, 3)].into_iter().enumerate() {
            queue.push(Duration::from_secs(at), number as u64, To::Step(step));
        }
        assert_eq!((queue.len(), popped(&mut queue), popped(&mut queue)), (4, Some((1, 1)), Some((1, 3))));
        // A place that is free is taken again, and its event comes in its turn.
        queue.push(Duration::from_secs(9), 4, To::Step(4));
        queue.push(Duration::from_secs(2), 5, To::Step(5));
        let mut rest: Vec<_> = std::iter::from_fn(|| popped(&mut queue)).take(3).collect();
        // One that is queued for a time of which others were played already comes at once.
        queue.push(Duration::from_secs(3), 6, To::Step(6));
        rest.extend(std::iter::from_fn(|| popped(&mut queue)));
        assert_eq!(rest, [(2, 2), (2, 5), (3, 0), (3, 6), (9, 4)]);
        assert_eq!((queue.len(), queue.places.len()), (0, 4));
    }
}
