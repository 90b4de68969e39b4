//! Spot checks: whether a peer that an indexer names in its record is connected to it.
//!
//! An `IndexerRecord` samples the indexer's sessions as salted hashes, drawn anew for each record. Whoever knows a peer can
//! see whether it is among them, and ask it; whoever does not learns nothing. So an indexer that makes sessions up has to
//! name peers that nobody knows, or be contradicted by those that somebody does.
//!
//! # Fairness
//! A record may be 10 minutes old, and a session in it 2 minutes older, so a peer that was named rightly may have gone since.
//! It still remembers: a witness tells for [`SEEN_WITHIN`], longer than both and the clocks' difference, that it saw the
//! indexer. One that is not connected but saw it lately is no evidence either way. Only one that did not see it in all that
//! time contradicts the record, and only if it ran all the while: a restart forgets.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use libp2p_identity::PeerId;
use rand::{Rng, RngExt};

use crate::{
    record::{IndexerRecord, digest},
    wire::WitnessReport,
    witness::SEEN_WITHIN,
};

/// Peers that are looked for in one record: a hash each, a millisecond in all.
pub const KNOWN_MAX: usize = 1_024;

/// Those of `known` that the record names: neither ourselves, who need not ask, nor the indexer. At most [`KNOWN_MAX`] are
/// looked for.
#[must_use]
pub fn named(record: &IndexerRecord, known: &[PeerId], own: &PeerId) -> Vec<PeerId> {
    let Ok(salt) = BASE64.decode(&record.salt) else { return Vec::new() };
    if record.peers_digest.is_empty() {
        return Vec::new();
    }
    let is_other = |peer: &&PeerId| *peer != own && **peer != record.peer_id;
    let others = known.iter().filter(is_other).take(KNOWN_MAX);
    let mut named: Vec<PeerId> =
        others.filter(|peer| record.peers_digest.contains(&digest(&salt, peer))).copied().collect();
    named.sort_unstable();
    named.dedup();
    named
}

/// Whom to ask: one of the named, by chance.
#[must_use]
pub fn choose(named: &[PeerId], rng: &mut impl Rng) -> Option<PeerId> {
    (!named.is_empty()).then(|| named[rng.random_range(0..named.len())])
}

/// What a named peer's report says of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is connected: the record is right.
    Connected,
    /// It is not, but saw the indexer lately: it may have gone since.
    SeenLately,
    /// It did not see the indexer in all the time that the record may speak of.
    NotSeen,
}

/// Reads a report.
#[must_use]
pub fn judge(report: &WitnessReport) -> Word {
    match (report.connected, report.seen) {
        (Some(true), _) => Word::Connected,
        (_, true) => Word::SeenLately,
        (_, false) => Word::NotSeen,
    }
}

/// Whether a peer whose process began at `born_at` ran for all the time that it tells of. A clock that is off by some
/// seconds changes nothing that matters.
#[must_use]
pub fn remembers(born_at: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(born_at)).is_ok_and(|age| age >= SEEN_WITHIN)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::{
        identity::Keys,
        record::{DIGEST_MAX, INDEXER_RECORD_LIFE},
        score::{Book, Explained, Observation},
        session::LIFE,
        signed::{CLOCK_SKEW, Verified},
        testing::peer,
        time::{Mono, Now},
    };

    const SALT: [u8; 16] = [9; 16];

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn record(named: impl IntoIterator<Item = PeerId>) -> IndexerRecord {
        let keys = Keys::from_seed([7; 32]);
        IndexerRecord {
            peer_id: keys.peer_id(),
            addrs: Vec::new(),
            region: String::new(),
            capacity: 500,
            fill_rate: 0.5,
            peer_count: 250,
            salt: BASE64.encode(SALT),
            peers_digest: named.into_iter().map(|peer| digest(&SALT, &peer)).collect(),
            born_at: now(),
            expiry_date: now() + INDEXER_RECORD_LIFE,
            seq: 1,
            pub_key: keys.pub_key().to_owned(),
        }
    }

    fn report(connected: Option<bool>, seen: bool) -> WitnessReport {
        WitnessReport { seen, connected, ..WitnessReport::default() }
    }

    #[test]
    fn those_that_we_know_are_found_among_the_named_but_neither_ourselves_nor_the_indexer() {
        let whole = record((0..32).map(peer));
        assert!(
            Verified::<IndexerRecord>::open(Verified::sign(&whole, &Keys::from_seed([7; 32])).text(), now()).is_ok(),
            "as many as a record may name"
        );
        let known: Vec<PeerId> = (30..40).map(peer).collect();
        let mut found = vec![peer(30), peer(31)];
        found.sort_unstable();
        assert_eq!(named(&whole, &known, &peer(0)), found);
        assert_eq!(named(&whole, &known, &peer(31)), [peer(30)], "we need not ask ourselves");
        let itself = record([Keys::from_seed([7; 32]).peer_id()]);
        assert_eq!(named(&itself, &[itself.peer_id], &peer(0)), []);
        assert_eq!(named(&whole, &[peer(3), peer(3)], &peer(0)), [peer(3)], "none twice");
    }

    #[test]
    fn a_record_without_samples_or_with_another_salt_names_nobody() {
        assert_eq!(named(&record([]), &[peer(1)], &peer(0)), []);
        let other = IndexerRecord { salt: BASE64.encode([8; 16]), ..record([peer(1)]) };
        assert_eq!(named(&other, &[peer(1)], &peer(0)), []);
        let none = IndexerRecord { salt: "no base64".to_owned(), ..record([peer(1)]) };
        assert_eq!(named(&none, &[peer(1)], &peer(0)), []);
    }

    #[test]
    fn no_more_are_looked_for_than_there_is_time_for() {
        let last = peer(9_999);
        let mut known = vec![peer(1); KNOWN_MAX - 1];
        known.push(last);
        assert_eq!(named(&record([last]), &known, &peer(0)), [last]);
        known.insert(0, peer(2));
        assert_eq!(named(&record([last]), &known, &peer(0)), []);
    }

    #[test]
    fn only_one_that_never_saw_it_contradicts() {
        assert_eq!(judge(&report(Some(true), false)), Word::Connected);
        assert_eq!(judge(&report(Some(false), true)), Word::SeenLately, "it has just gone");
        assert_eq!(judge(&report(None, true)), Word::SeenLately);
        assert_eq!(judge(&report(Some(false), false)), Word::NotSeen);
        assert_eq!(judge(&report(None, false)), Word::NotSeen);
    }

    #[test]
    fn a_witness_remembers_longer_than_any_record_may_speak_of() {
        assert!(SEEN_WITHIN > INDEXER_RECORD_LIFE + LIFE + 2 * CLOCK_SKEW);
    }

    #[test]
    fn one_that_was_restarted_meanwhile_contradicts_nobody() {
        let born = |ago: Duration| now().checked_sub(ago).unwrap();
        assert!(remembers(born(SEEN_WITHIN), now()));
        assert!(!remembers(born(SEEN_WITHIN - Duration::from_millis(1)), now()));
        assert!(!remembers(now() + Duration::from_secs(3_600), now()), "a clock that is ahead");
    }

    #[test]
    fn a_spot_check_is_a_challenge_in_the_score_and_stands_in_the_ledger() {
        let mut book = Book::default();
        let at = Mono::from_secs(1);
        for good in [true, true, false] {
            book.observe(peer(1), &Observation::Spot { by: peer(2), good }, at);
        }
        book.observe(peer(1), &Observation::Challenged { good: 1, bad: 0, unfound: 0 }, at);
        let facts = book.facts(&peer(1), at).unwrap();
        assert_eq!((facts.challenges.good, facts.challenges.bad), (3.0, 1.0));
        let explained = book.explain(&peer(1), Now { mono: at, wall: now() }).unwrap();
        assert!(explained.holds() && explained.ledger.entries().len() == 4);
        let text = serde_json::to_string(&explained).unwrap();
        let read: Explained = serde_json::from_str(&text).unwrap();
        assert_eq!(read, explained, "it can be computed again elsewhere");
    }

    proptest! {
        #[test]
        fn one_of_the_named_is_asked_and_each_in_time(count in 0..DIGEST_MAX as u32, seed: u64) {
            let mut rng = StdRng::seed_from_u64(seed);
            let all: Vec<PeerId> = (0..count).map(peer).collect();
            let asked: std::collections::BTreeSet<_> = (0..1_000).filter_map(|_| choose(&all, &mut rng)).collect();
            prop_assert_eq!(asked.len(), all.len());
        }
    }
}
