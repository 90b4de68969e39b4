//! What scores were: one sample of each indexer at each judgement, for curves. Nothing is decided by it.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use libp2p_identity::PeerId;

use super::{Part, Score};

/// Samples kept of one indexer; past it the oldest goes. Judgements are 20 s apart, so these are the last 2 h 45 min.
pub const SAMPLES_MAX: usize = 500;

/// Indexers of which samples are kept: several times a pool, so that those that went can still be looked at. With
/// [`SAMPLES_MAX`] of each they take 3 MiB. Past it the one that was judged longest ago goes.
pub const CURVES_MAX: usize = 32;

/// A score at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When it was judged.
    pub at: Timestamp,
    /// 0 to 100.
    pub value: f64,
    /// Lower end of the confidence interval, 0 to 100.
    pub low: f64,
    /// Upper end, 0 to 100.
    pub high: f64,
    /// Below this the upper end may not be, 0 to 100.
    pub threshold: f64,
    /// The parts in the order of [`Part::ALL`], each 0 to 1; absent without evidence.
    pub parts: [Option<f64>; Part::ALL.len()],
}

impl Sample {
    /// This score at this time.
    #[must_use]
    pub fn of(score: &Score, at: Timestamp) -> Self {
        let value = |part: Part| score.parts.iter().find(|scored| scored.part == part).and_then(|scored| scored.value);
        let Score { value: whole, low, high, threshold, .. } = *score;
        Self { at, value: whole, low, high, threshold, parts: Part::ALL.map(value) }
    }
}

/// The samples of those that were judged.
#[derive(Clone, Debug, Default)]
pub struct History {
    curves: BTreeMap<PeerId, VecDeque<Sample>>,
}

impl History {
    /// Keeps one more sample of an indexer.
    pub fn take(&mut self, peer: PeerId, sample: Sample) {
        if !self.curves.contains_key(&peer) && self.curves.len() >= CURVES_MAX {
            let oldest = self.curves.iter().min_by_key(|(_, curve)| curve.back().map(|sample| sample.at));
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.curves.remove(&oldest);
            }
        }
        let curve = self.curves.entry(peer).or_default();
        if curve.len() >= SAMPLES_MAX {
            curve.pop_front();
        }
        curve.push_back(sample);
    }

    /// What was judged after this moment, the oldest first: of one indexer, or of all. Those without news are left out.
    pub fn since(
        &self,
        peer: Option<PeerId>,
        moment: Timestamp,
    ) -> impl Iterator<Item = (&PeerId, impl Iterator<Item = &Sample>)> {
        let is_wanted = move |found: &PeerId| peer.is_none_or(|peer| peer == *found);
        self.curves
            .iter()
            .filter(move |(found, curve)| is_wanted(found) && curve.back().is_some_and(|last| last.at > moment))
            .map(move |(found, curve)| (found, curve.iter().filter(move |sample| sample.at > moment)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn peer(number: u8) -> PeerId {
        libp2p_identity::Keypair::ed25519_from_bytes([number; 32]).unwrap().public().to_peer_id()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn sample(second: i64) -> Sample {
        let parts = [Some(0.5), None, None, None, None, None, None];
        Sample { at: at(second), value: 50.0, low: 40.0, high: 60.0, threshold: 20.0, parts }
    }

    /// Whose, and when the first and the last of it was.
    fn seen(history: &History, one: Option<PeerId>, moment: i64) -> Vec<(PeerId, i64, i64, usize)> {
        let curves = history.since(one, at(moment)).map(|(peer, samples)| (*peer, samples.collect::<Vec<_>>()));
        curves
            .map(|(peer, samples)| {
                let second = |sample: Option<&&Sample>| sample.unwrap().at.as_second();
                (peer, second(samples.first()), second(samples.last()), samples.len())
            })
            .collect()
    }

    #[test]
    fn the_oldest_sample_goes_at_the_bound_and_not_before() {
        let mut history = History::default();
        let most = i64::try_from(SAMPLES_MAX).unwrap();
        for second in 1..=most {
            history.take(peer(1), sample(second));
        }
        assert_eq!(seen(&history, None, 0), [(peer(1), 1, most, SAMPLES_MAX)]);
        history.take(peer(1), sample(most + 1));
        assert_eq!(seen(&history, None, 0), [(peer(1), 2, most + 1, SAMPLES_MAX)]);
    }

    #[test]
    fn whoever_was_judged_longest_ago_makes_room_for_a_newcomer() {
        let mut history = History::default();
        let crowd = u8::try_from(CURVES_MAX).unwrap();
        for number in 1..=crowd {
            history.take(peer(number), sample(i64::from(number)));
        }
        assert_eq!(seen(&history, None, 0).len(), CURVES_MAX);
        history.take(peer(1), sample(100));
        history.take(peer(crowd + 1), sample(101));
        assert_eq!(seen(&history, None, 0).len(), CURVES_MAX);
        assert!(seen(&history, Some(peer(2)), 0).is_empty(), "it was judged longest ago");
        assert_eq!(seen(&history, Some(peer(1)), 0), [(peer(1), 1, 100, 2)]);
    }

    #[test]
    fn who_has_seen_all_is_told_only_news() {
        let mut history = History::default();
        history.take(peer(1), sample(1));
        history.take(peer(2), sample(1));
        history.take(peer(1), sample(2));
        assert_eq!(seen(&history, None, 1), [(peer(1), 2, 2, 1)]);
        assert!(seen(&history, None, 2).is_empty());
        assert!(seen(&history, Some(peer(3)), 0).is_empty());
    }
}
