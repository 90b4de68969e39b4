//! What is to come, in the order of its time.
//!
//! Times are sorted, events stay where they lie: an event is many times as large as the time at which it comes.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::world::To;

/// When, its number, and where it lies. Of two at the same time the one that was queued first comes first.
type Due = Reverse<(Duration, u64, u32)>;

/// Events that are to come.
#[derive(Debug, Default)]
pub(super) struct Queue {
    due: BinaryHeap<Due>,
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
        self.due.push(Reverse((at, number, place)));
    }

    /// The first one.
    pub(super) fn pop(&mut self) -> Option<(Duration, To)> {
        let Reverse((at, _, place)) = self.due.pop()?;
        let to = self.places[place as usize].take()?;
        self.free.push(place);
        Some((at, to))
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.due.len()
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
        let rest: Vec<_> = std::iter::from_fn(|| popped(&mut queue)).collect();
        assert_eq!(rest, [(2, 2), (2, 5), (3, 0), (9, 4)]);
        assert_eq!((queue.len(), queue.places.len()), (0, 4));
    }
}
