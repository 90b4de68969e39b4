//! Audits: another indexer counts an indexer's tokens by looking at 32 of them.
//!
//! # How a sample counts
//! The auditor draws 32 random bytes, the salt, which nobody knew before. Under it each node has a place
//! `SHA-256(salt ‖ node's peer id) ÷ 2^256`, a number between 0 and 1 that nobody could choose. The indexer shows the
//! tokens of the k = 32 nodes with the least places. With T nodes the k-th least place U has the distribution
//! Beta(k, T + 1 - k), near k ÷ T: few nodes lie far apart. (The k-minimum-values estimate: Bar-Yossef et al., Counting
//! distinct elements in a data stream, 2002; Beyer et al., On synopses for distinct-value estimation, 2007.) To show
//! other nodes than the first, or none, only makes U greater.
//!
//! # What one audit says
//! An honest indexer that claims N has tokens of T ≥ N ÷ 2 nodes: the other half is for nodes that just came or went and
//! for programs that give no tokens. The audit compares that with T = N ÷ 4 by the logarithm of their likelihood ratio,
//! places of many nodes taken as a Poisson process:
//!
//! ```text
//! x = (N ÷ 2 - N ÷ 4) · U - k · ln 2 - margin
//! ```
//!
//! For every T ≥ N ÷ 2, E[e^(x + margin)] ≤ 1, exactly and not only in the limit: the moments of Beta(k, T + 1 - k),
//! `(k)_j ÷ (T + 1)_j`, are below those of Gamma(k, T), `(k)_j ÷ T^j`, whose moment generating function at N ÷ 4 is
//! `(1 - N ÷ 4T)^-k ≤ 2^k`. One that shows fewer than k has no more; if that is less than N ÷ 2, no honest one would. One
//! that opens the stream and gives no answer may be overloaded: [`EVASION`] is what that is worth.
//!
//! # How audits add up
//! Sums of x above 0 are kept (Page's CUSUM, 1954), each x at most [`STEP_MAX`], so that no single audit decides: an
//! indexer whose tokens were lost in a restart is short once or twice, and is never exposed for it. At [`SURE`] it is
//! exposed. The margin pays for evasions of honest ones, as long as they are no more than 1 in 50:
//! `0.98 · e^-margin + 0.02 · e^EVASION ≤ 1`. So e^sum is a supermartingale from each start, and by Ville's inequality an
//! honest indexer that is audited n times is exposed with probability ≤ n · e^-SURE ≈ n · 10^-9: below 10^-8 within 10
//! epochs, below 10^-4 within a year of audits in each epoch.
//!
//! One that claims ten times what it has shows U near 10 k ÷ N, x near 2.5 k - 0.69 k = 58: each audit is worth
//! [`STEP_MAX`] but for a chance below 10^-5, and three suffice. One that never answers is exposed after nine.
//!
//! # Who audits
//! Each node the members of its own pool, by turns ([`super::rounds`]); and in each epoch the indexer nearest to `SHA-256(epoch ‖ audited)` by XOR, of all that are known. One that finds
//! something goes on until the sum is 0 or the indexer exposed, so that its evidence does not wait for the hash to choose
//! it again. The evidence stays with whoever gathered it: nobody else is told.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;
use sha2::{Digest as _, Sha256};

use super::token::PresenceToken;
use crate::signed::Verified;

/// Tokens of one sample, k: the error of an estimate is its inverse root, 18 %, and 32 of them fill 11 KiB.
pub const SAMPLE: usize = 32;

/// Smaller claims are not audited: chance is large in them and a lie about them is small.
pub const CLAIM_MIN: u32 = 20;

/// Sum at which an indexer is exposed: as sure as one is caught by any other check.
pub const SURE: f64 = crate::score::SURE;

/// The most that one audit adds: three reach [`SURE`], two do not.
pub const STEP_MAX: f64 = 6.95;

/// What no answer adds: ln 10. Nine reach [`SURE`].
pub const EVASION: f64 = std::f64::consts::LN_10;

/// Taken off each answered audit; see the module's derivation.
const MARGIN: f64 = 0.25;

/// Share of its claim that an honest indexer has tokens for.
const HONEST_SHARE: f64 = 0.5;

/// Share with which it is compared.
const FALSE_SHARE: f64 = 0.25;

/// Indexers about which there is evidence: as many as a network of the design's largest size, a quarter of them liars.
pub const SUSPECTS_MAX: usize = 256;

/// What an auditor draws anew for each audit.
pub type Salt = [u8; 32];

/// A node's place under a salt.
#[must_use]
pub fn place(salt: &Salt, node: &PeerId) -> [u8; 32] {
    hash(salt, node)
}

/// What belongs to the [`SAMPLE`] nodes that a salt puts first, in that order.
pub fn first<T>(salt: &Salt, nodes: impl IntoIterator<Item = (PeerId, T)>) -> Vec<T> {
    let mut first: Vec<([u8; 32], T)> = Vec::with_capacity(SAMPLE + 1);
    for (node, its) in nodes {
        let place = place(salt, &node);
        if first.get(SAMPLE - 1).is_none_or(|(last, _)| place < *last) {
            first.insert(first.partition_point(|(other, _)| *other < place), (place, its));
            first.truncate(SAMPLE);
        }
    }
    first.into_iter().map(|(_, its)| its).collect()
}

/// A place as a number from 0 to 1.
fn fraction(place: &[u8; 32]) -> f64 {
    let first = place.iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    // The highest 53 bits are what a float holds.
    (first >> 11) as f64 / (1_u64 << 53) as f64
}

/// Whom `own` audits in `epoch`, of all other indexers: those to which it is nearest of all but the audited itself, by
/// XOR of SHA-256(its peer id) and SHA-256(epoch as 8 bytes, the highest first ‖ the audited's peer id).
#[must_use]
pub fn audited_by(epoch: u64, own: &PeerId, others: &[PeerId]) -> Vec<PeerId> {
    let mine = hash(&[], own);
    let hashes: Vec<[u8; 32]> = others.iter().map(|other| hash(&[], other)).collect();
    let is_ours = |index: usize, audited: &PeerId| {
        let target = hash(&epoch.to_be_bytes(), audited);
        let distance = xor(&mine, &target);
        let mut rivals = hashes.iter().enumerate().filter(|(rival, _)| *rival != index);
        !rivals.any(|(_, rival)| xor(rival, &target) < distance)
    };
    let audited = others.iter().enumerate().filter(|(index, other)| *other != own && is_ours(*index, other));
    audited.map(|(_, other)| *other).collect()
}

fn hash(prefix: &[u8], peer: &PeerId) -> [u8; 32] {
    // A peer id of any kind fits, with the two numbers in front of what it hashes or holds.
    let mut bytes = [0; 64 + 2 * 10];
    let len = peer.as_ref().write(&mut bytes[..]).expect("a peer id has at most 64 bytes and two numbers");
    Sha256::new().chain_update(prefix).chain_update(&bytes[..len]).finalize().into()
}

fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|index| a[index] ^ b[index])
}

/// What one audit found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// Sessions that it claims.
    pub claimed: u32,
    /// Nodes whose tokens it showed, of [`SAMPLE`]; none when it did not answer.
    pub shown: Option<usize>,
    /// How many nodes it has by the sample.
    pub estimate: f64,
    /// Logarithm of the likelihood ratio, at most [`STEP_MAX`].
    pub step: f64,
}

/// Counts an answer: `tokens` are verified; those of other indexers and a node's second one count for nothing. Nothing
/// for a claim that is not audited.
#[must_use]
pub fn weigh(
    audited: &PeerId,
    claimed: u32,
    salt: &Salt,
    epoch: u64,
    tokens: &[Verified<PresenceToken>],
) -> Option<Finding> {
    let is_counted = |token: &&Verified<PresenceToken>| {
        token.indexer == *audited && (epoch.saturating_sub(1)..=epoch).contains(&token.epoch)
    };
    count(claimed, salt, tokens.iter().filter(is_counted).map(|token| token.node))
}

/// Counts the nodes whose tokens were shown and found valid; a second one of a node counts for nothing.
pub(crate) fn count(claimed: u32, salt: &Salt, nodes: impl Iterator<Item = PeerId>) -> Option<Finding> {
    let mut places: Vec<[u8; 32]> = nodes.map(|node| place(salt, &node)).collect();
    places.sort_unstable();
    places.dedup();
    let last = places.get(SAMPLE - 1).map(fraction);
    (claimed >= CLAIM_MIN).then(|| judge(claimed, places.len().min(SAMPLE), last))
}

/// It gave no answer, or one that is none. Nothing for a claim that is not audited.
#[must_use]
pub fn evaded(claimed: u32) -> Option<Finding> {
    (claimed >= CLAIM_MIN).then_some(Finding { claimed, shown: None, estimate: 0.0, step: EVASION })
}

/// `last` is the place of the k-th node; without one all that it has were shown.
fn judge(claimed: u32, shown: usize, last: Option<f64>) -> Finding {
    let (claim, sample) = (f64::from(claimed), SAMPLE as f64);
    let (estimate, step) = match last {
        Some(last) => {
            let estimate = (sample - 1.0) / last.max(f64::MIN_POSITIVE);
            (
                estimate,
                (HONEST_SHARE - FALSE_SHARE) * claim * last - sample * (HONEST_SHARE / FALSE_SHARE).ln() - MARGIN,
            )
        }
        None if shown as f64 >= HONEST_SHARE * claim => (shown as f64, -STEP_MAX),
        None => (shown as f64, STEP_MAX),
    };
    Finding { claimed, shown: Some(shown), estimate, step: step.min(STEP_MAX) }
}

/// What follows from an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is held against it.
    Clear,
    /// Something is: it is audited again soon, without waiting for its turn.
    Suspected,
    /// It claims far more nodes than it has.
    Exposed {
        /// It was not yet before this audit.
        is_new: bool,
    },
    /// It was exposed, and its claims have fitted since.
    Cleared,
}

#[derive(Clone, Copy, Debug, Default)]
struct Suspicion {
    sum: f64,
    is_exposed: bool,
}

/// The evidence of one auditor. Bounded by [`SUSPECTS_MAX`]; past it the one with the least against it is forgotten.
#[derive(Debug, Default)]
pub struct Evidence {
    suspects: BTreeMap<PeerId, Suspicion>,
}

impl Evidence {
    /// Adds what an audit found.
    pub fn add(&mut self, audited: PeerId, finding: &Finding) -> Verdict {
        let before = self.suspects.remove(&audited).unwrap_or_default();
        // Who was exposed is not believed again for one good answer: three take it back.
        let step = if before.is_exposed { finding.step.max(-STEP_MAX) } else { finding.step };
        let sum = (before.sum + step).clamp(0.0, SURE);
        let is_exposed = sum >= SURE || (before.is_exposed && sum > 0.0);
        if sum > 0.0 {
            self.make_room();
            self.suspects.insert(audited, Suspicion { sum, is_exposed });
        }
        match (before.is_exposed, is_exposed) {
            (was, true) => Verdict::Exposed { is_new: !was },
            (true, false) => Verdict::Cleared,
            (false, false) if sum > 0.0 => Verdict::Suspected,
            (false, false) => Verdict::Clear,
        }
    }

    /// Those that are audited again, whomever the hash chooses.
    pub fn suspects(&self) -> impl Iterator<Item = PeerId> {
        self.suspects.keys().copied()
    }

    /// Those that are exposed.
    pub fn exposed(&self) -> impl Iterator<Item = PeerId> {
        self.suspects.iter().filter(|(_, suspicion)| suspicion.is_exposed).map(|(peer, _)| *peer)
    }

    /// What is held against it, 0 to [`SURE`].
    #[must_use]
    pub fn sum(&self, audited: &PeerId) -> f64 {
        self.suspects.get(audited).map_or(0.0, |suspicion| suspicion.sum)
    }

    fn make_room(&mut self) {
        if self.suspects.len() < SUSPECTS_MAX {
            return;
        }
        let least = self.suspects.iter().min_by(|(_, a), (_, b)| a.sum.total_cmp(&b.sum)).map(|(peer, _)| *peer);
        if let Some(least) = least {
            self.suspects.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::{
        Timestamp,
        identity::Keys,
        presence::token::{Tokens, epoch_of},
    };

    fn keys(number: u32) -> Keys {
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        Keys::from_seed(seed)
    }

    fn peer(number: u32) -> PeerId {
        keys(number).peer_id()
    }

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn token(indexer: PeerId, number: u32, epoch: u64) -> Verified<PresenceToken> {
        let keys = keys(number);
        let token = PresenceToken { indexer, node: keys.peer_id(), epoch, pub_key: keys.pub_key().to_owned() };
        Verified::sign(&token, &keys)
    }

    /// The answer of an indexer with so many nodes, as a new salt places them.
    fn sampled(nodes: usize, rng: &mut StdRng) -> (usize, Option<f64>) {
        let mut places: Vec<f64> = (0..nodes).map(|_| rng.random()).collect();
        if nodes < SAMPLE {
            return (nodes, None);
        }
        let (_, last, _) = places.select_nth_unstable_by(SAMPLE - 1, f64::total_cmp);
        (SAMPLE, Some(*last))
    }

    /// Audits until exposed, at most `audits`: how many it took.
    fn exposed_after(claimed: u32, nodes: usize, audits: usize, rng: &mut StdRng) -> Option<usize> {
        let mut evidence = Evidence::default();
        (1..=audits).find(|_| {
            let (shown, last) = sampled(nodes, rng);
            let verdict = evidence.add(peer(1), &judge(claimed, shown, last));
            matches!(verdict, Verdict::Exposed { .. })
        })
    }

    #[test]
    fn an_indexer_that_claims_100_and_has_10_is_exposed_within_10_epochs() {
        // 3,000 liars and no escape: with 99.9 % caught, three would be expected to get away.
        let mut rng = StdRng::seed_from_u64(1);
        for (claimed, nodes) in [(100, 10), (1_000, 100), (500, 50)] {
            for _ in 0..1_000 {
                let audits = exposed_after(claimed, nodes, 10, &mut rng);
                assert!(audits.is_some_and(|audits| audits <= 4), "{claimed} claimed, {nodes} there: {audits:?}");
            }
        }
    }

    #[test]
    fn an_indexer_that_never_answers_is_exposed_within_10_epochs() {
        let mut evidence = Evidence::default();
        let finding = evaded(100).unwrap();
        let audits = (1..=10).find(|_| matches!(evidence.add(peer(1), &finding), Verdict::Exposed { .. }));
        assert_eq!(audits, Some(9));
    }

    #[test]
    fn an_honest_indexer_is_never_exposed_though_half_of_its_nodes_give_no_token() {
        // 40,000 runs of 10 epochs: at the promised bound of 1 in 10,000 four would be expected, by the derivation none.
        let mut rng = StdRng::seed_from_u64(2);
        for (claimed, nodes) in [(20, 10), (50, 25), (100, 50), (100, 100)] {
            for _ in 0..10_000 {
                assert_eq!(exposed_after(claimed, nodes, 10, &mut rng), None, "{claimed} claimed, {nodes} there");
            }
        }
    }

    #[test]
    fn an_honest_indexer_is_never_exposed_in_a_year() {
        let mut rng = StdRng::seed_from_u64(3);
        assert_eq!(exposed_after(100, 50, 365 * 144, &mut rng), None);
    }

    #[test]
    fn an_honest_audit_is_worth_less_than_nothing_on_average() {
        // E[e^(x + margin)] ≤ 1 is what the bound rests on.
        let mut rng = StdRng::seed_from_u64(4);
        for (claimed, nodes) in [(64, 32), (100, 50), (200, 100), (200, 150), (1_000, 500)] {
            let trials = 4_000;
            let sum: f64 = (0..trials)
                .map(|_| {
                    let (shown, last) = sampled(nodes, &mut rng);
                    (judge(claimed, shown, last).step + MARGIN).exp()
                })
                .sum();
            let mean = sum / f64::from(trials);
            assert!(mean <= 1.05, "{claimed} claimed, {nodes} there: {mean}");
        }
        let evasive = 0.98 * (-MARGIN).exp() + 0.02 * EVASION.exp();
        assert!(evasive <= 1.0, "{evasive}");
    }

    #[test]
    fn tokens_lost_in_a_restart_expose_nobody() {
        let mut evidence = Evidence::default();
        let (short, whole) = (judge(100, 3, None), judge(100, SAMPLE, Some(0.32)));
        assert_eq!(evidence.add(peer(1), &short), Verdict::Suspected);
        assert_eq!(evidence.add(peer(1), &short), Verdict::Suspected);
        assert_eq!(evidence.add(peer(1), &whole), Verdict::Clear);
        assert_eq!(evidence.suspects().count(), 0);
    }

    #[test]
    fn who_was_exposed_is_believed_again_after_three_good_audits() {
        let mut evidence = Evidence::default();
        let (short, whole) = (judge(100, 3, None), judge(100, SAMPLE, Some(0.32)));
        evidence.add(peer(1), &short);
        evidence.add(peer(1), &short);
        assert_eq!(evidence.add(peer(1), &short), Verdict::Exposed { is_new: true });
        assert_eq!(evidence.add(peer(1), &short), Verdict::Exposed { is_new: false });
        assert_eq!(evidence.add(peer(1), &whole), Verdict::Exposed { is_new: false });
        assert_eq!(evidence.add(peer(1), &whole), Verdict::Exposed { is_new: false });
        assert_eq!(evidence.add(peer(1), &whole), Verdict::Cleared);
    }

    #[test]
    fn a_real_sample_counts_real_tokens_and_nothing_else() {
        let (indexer, epoch) = (peer(9_000), epoch_of(now()));
        let mut tokens = Tokens::new(500);
        for number in 0..200 {
            tokens.keep(token(indexer, number, epoch - u64::from(number % 2)), now());
        }
        let salt = [5; 32];
        let shown = tokens.show(peer(9_001), &salt, epoch, now()).unwrap();
        let finding = weigh(&indexer, 200, &salt, epoch, &shown).unwrap();
        assert!((100.0..400.0).contains(&finding.estimate) && finding.step < 0.0, "{finding:?}");
        // The same tokens for ten times the claim, for another indexer, each twice, or of another epoch.
        assert_eq!(weigh(&indexer, 2_000, &salt, epoch, &shown).unwrap().step, STEP_MAX);
        assert_eq!(weigh(&peer(9_002), 200, &salt, epoch, &shown).unwrap().shown, Some(0));
        let few: Vec<_> = shown.iter().take(8).flat_map(|token| vec![token.clone(); 4]).collect();
        assert_eq!(weigh(&indexer, 200, &salt, epoch, &few).unwrap().shown, Some(8));
        assert_eq!(weigh(&indexer, 200, &salt, epoch + 2, &shown).unwrap().shown, Some(0));
        assert_eq!(weigh(&indexer, CLAIM_MIN - 1, &salt, epoch, &shown), None);
        assert!(weigh(&indexer, CLAIM_MIN, &salt, epoch, &shown).is_some());
    }

    #[test]
    fn each_indexer_has_one_auditor_that_is_another_and_changes_with_the_epochs() {
        let indexers: Vec<PeerId> = (0..10).map(peer).collect();
        let mut auditors_of_first = std::collections::BTreeSet::new();
        for epoch in 0..200 {
            let mut audited = Vec::new();
            for own in &indexers {
                let others: Vec<PeerId> = indexers.iter().copied().filter(|other| other != own).collect();
                let theirs = audited_by(epoch, own, &others);
                assert!(!theirs.contains(own));
                if theirs.contains(&indexers[0]) {
                    auditors_of_first.insert(*own);
                }
                audited.extend(theirs);
            }
            audited.sort_unstable();
            let mut all = indexers.clone();
            all.sort_unstable();
            assert_eq!(audited, all, "each once, in epoch {epoch}");
        }
        assert_eq!(auditors_of_first.len(), 9);
        assert_eq!(audited_by(1, &indexers[0], &indexers[..1]), []);
        assert_eq!(audited_by(1, &indexers[0], &indexers[1..2]), indexers[1..2]);
    }

    #[test]
    fn evidence_is_bounded_and_keeps_the_worst() {
        let mut evidence = Evidence::default();
        let (short, evasive) = (judge(100, 3, None), evaded(100).unwrap());
        evidence.add(peer(0), &short);
        for number in 1..=SUSPECTS_MAX as u32 + 10 {
            evidence.add(peer(number), &evasive);
        }
        assert_eq!(evidence.suspects().count(), SUSPECTS_MAX);
        assert!(evidence.sum(&peer(0)) > 0.0);
    }

    proptest! {
        #[test]
        fn to_show_other_nodes_than_the_first_never_helps(
            claimed in CLAIM_MIN..2_000, a in 0.0..1.0_f64, b in 0.0..1.0_f64, fewer in 0..SAMPLE
        ) {
            let (near, far) = (a.min(b), a.max(b));
            prop_assert!(judge(claimed, SAMPLE, Some(near)).step <= judge(claimed, SAMPLE, Some(far)).step);
            // Nor does it help to hold tokens back, unless those shown are enough by themselves.
            if (fewer as f64) < HONEST_SHARE * f64::from(claimed) {
                prop_assert!(judge(claimed, SAMPLE, Some(far)).step <= judge(claimed, fewer, None).step);
            }
        }

        #[test]
        fn sums_stay_within_their_bounds(steps in prop::collection::vec(-30.0..STEP_MAX, 1..50)) {
            let mut evidence = Evidence::default();
            for step in steps {
                evidence.add(peer(1), &Finding { claimed: 100, shown: None, estimate: 0.0, step });
                prop_assert!((0.0..=SURE).contains(&evidence.sum(&peer(1))));
            }
        }
    }
}
