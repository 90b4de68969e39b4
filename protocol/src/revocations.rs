//! Revocation of an identity: a key says of itself that it is to be believed no longer.
//!
//! Whoever holds the key can say it, the owner and the thief alike, and nobody can take it back: a word by which the key was
//! believed again would be the thief's to say. So there is one kind of word, and the first of a key is kept.
//!
//! A thief can sign for ever, so there is no moment after which nothing of the key can be valid. A revocation is held for
//! [`HOLD`], and anew each time the key is seen to be tried; one whose key is never seen again goes in the end.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    bans::later,
    identity::Keys,
    record::check_signer,
    signed::{CLOCK_SKEW, SignedError, SignedObject, Verified},
    time::Mono,
    wire::{RefusalCode, Refused},
};

/// Bytes of the reason: a sentence for the operators who read it.
pub const REASON_BYTES_MAX: usize = 256;

/// Bytes of one: what it says, with every letter of the reason written as an escape, and some for what later versions add.
pub const REVOKE_BYTES_MAX: usize = 2 * 1024;

/// Revocations held: some hundred times as many as a large federation's keys that are ever stolen, in 3 MB; in 8 MB where
/// somebody makes them as long as they may be.
pub const REVOCATIONS_MAX: usize = 4_096;

/// How long a revocation is held after it was heard, or after its key was last tried: longer than any holiday, and far longer
/// than the 10 minutes that a record is signed for. The owner can hand it in again at any time.
pub const HOLD: Duration = Duration::from_secs(400 * 24 * 3_600);

/// A key that is tried again and again is written down as often as this: its hold is longer by as much at the least.
pub const RENEW_EVERY: Duration = Duration::from_secs(24 * 3_600);

/// New revocations taken from one peer within [`NEWS_WITHIN`]. Anybody can make keys and revoke them; what is past it is
/// learned when its holder is next asked for all.
pub const NEWS_PER_PEER: u32 = 32;

/// The time over which news are counted.
pub const NEWS_WITHIN: Duration = Duration::from_secs(600);

/// New revocations taken from one peer that was asked for all that it holds, within [`TOLD_WITHIN`]: whoever is new learns
/// what a federation ever revoked in its first hours, and one that makes keys fills no table in a day.
pub const TOLD_PER_PEER: u32 = 128;

/// The time over which those are counted.
pub const TOLD_WITHIN: Duration = Duration::from_secs(3_600);

/// What would be held for less is not learned by asking: it is over before it serves anybody.
pub const LEFT_MIN: Duration = Duration::from_secs(3_600);

/// Peers whose news are counted; past it the one that was counted for longest begins anew.
pub const NEWS_PEERS_MAX: usize = 4_096;

/// Bytes of revocations in one page: the value has 64 KiB, and the page's own words need some.
pub const PAGE_BYTES_MAX: usize = 60 * 1024;

/// Bytes that an entry of a page needs beside its text.
const ENTRY_BYTES: usize = 64;

/// A key says that it is to be believed no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    /// Derives from `pub_key`.
    #[serde(with = "crate::wire::text")]
    pub peer_id: PeerId,
    /// The DID that goes with it, for people.
    pub did: String,
    /// Base64 of the raw 32 bytes.
    pub pub_key: String,
    /// When it was signed; it may have lain in a safe for years.
    pub time: Timestamp,
    /// Why, for other operators; at most [`REASON_BYTES_MAX`] bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl SignedObject for Revoke {
    const DOMAIN: &'static str = "muster-revoke:1:";
    const BYTES_MAX: usize = REVOKE_BYTES_MAX;

    fn is_by(&self, keys: &Keys) -> bool {
        self.pub_key == keys.pub_key()
    }

    fn check(&self, now: Timestamp) -> Result<(), SignedError> {
        check_signer(&self.pub_key, &self.peer_id, Some(&self.did))?;
        if self.reason.len() > REASON_BYTES_MAX || self.reason.chars().any(char::is_control) {
            let got = format!("{} bytes", self.reason.len());
            let expected = "at most 256 bytes without control characters";
            return Err(SignedError::Invalid { field: "reason", got, expected });
        }
        // Of the past it may be from any time: it never expires.
        let ahead = self.time.duration_since(now);
        if ahead.is_positive() && ahead.unsigned_abs() > CLOCK_SKEW {
            return Err(SignedError::FromFuture { time: self.time, now, ahead_max: CLOCK_SKEW });
        }
        Ok(())
    }
}

/// Who must not go first where there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weight {
    /// Heard of, and its key never seen here.
    Heard,
    /// Its key was tried here.
    Tried,
    /// Handed in by our own operators.
    Ours,
}

impl Weight {
    /// Each, the lightest first.
    pub const EVERY: [Self; 3] = [Self::Heard, Self::Tried, Self::Ours];

    /// As it is written down and shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Heard => "heard",
            Self::Tried => "tried",
            Self::Ours => "ours",
        }
    }

    /// The weight with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::EVERY.into_iter().find(|weight| weight.name() == name)
    }
}

/// A revocation as it is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What the key said.
    pub revoke: Arc<Verified<Revoke>>,
    /// When it was heard here.
    pub heard: Timestamp,
    /// It goes then, unless its key is tried before.
    pub until: Timestamp,
    /// Whether it may go sooner for another.
    pub weight: Weight,
}

impl Held {
    /// One that is heard now, to be held for `left`, at most [`HOLD`].
    #[must_use]
    pub fn new(revoke: Verified<Revoke>, left: Duration, weight: Weight, now: Timestamp) -> Self {
        Self { revoke: Arc::new(revoke), heard: now, until: later(now, left.min(HOLD)), weight }
    }

    /// How long it is still held; a clock that was set back makes it no longer than [`HOLD`].
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Duration {
        let left = self.until.duration_since(now);
        if left.is_positive() { left.unsigned_abs().min(HOLD) } else { Duration::ZERO }
    }
}

/// What became of a revocation that was shown to the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Learned {
    /// One of the key is held already, and stays.
    Known,
    /// One of the key is held already, and from now on for a day longer at the least.
    Longer,
    /// It is held now.
    New {
        /// The one that was given up for it.
        displaced: Option<PeerId>,
    },
}

/// Our own operators handed all of them in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{REVOCATIONS_MAX} revocations are held, none of which may go for this one")]
pub struct Full;

/// Every revocation that is held, one for each key.
///
/// Bounded by [`REVOCATIONS_MAX`]. Past it one goes for each newcomer: the lightest, and of those the one that was heard of
/// last. So a flood of made keys displaces itself, what was known before it stays, and there is always a place for one more;
/// what our own operators handed in never goes.
#[derive(Debug, Default)]
pub struct Revocations {
    held: BTreeMap<PeerId, Held>,
    by_weight: BTreeSet<(Weight, Reverse<Timestamp>, PeerId)>,
}

impl Revocations {
    /// Nobody is revoked.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes up a revocation. The first word of a key is kept; a further one makes it heavier, and holds it for as long as it
    /// would be held itself.
    ///
    /// # Errors
    /// When there is no room.
    pub fn learn(&mut self, newcomer: Held) -> Result<Learned, Full> {
        let peer = newcomer.revoke.peer_id;
        if let Some(held) = self.held.get(&peer) {
            let is_longer = is_longer(held.until, newcomer.until);
            if is_longer || newcomer.weight > held.weight {
                let (weight, until) = (held.weight.max(newcomer.weight), held.until.max(newcomer.until));
                self.put(Held { weight, until, ..held.clone() });
            }
            return Ok(if is_longer { Learned::Longer } else { Learned::Known });
        }
        let displaced = self.make_room()?;
        self.put(newcomer);
        Ok(Learned::New { displaced })
    }

    /// Whether it would be new, or held for longer.
    #[must_use]
    pub fn is_news(&self, newcomer: &Held) -> bool {
        self.held.get(&newcomer.revoke.peer_id).is_none_or(|held| is_longer(held.until, newcomer.until))
    }

    /// Takes up what was written down, or is in force; gives back those that are over, to be forgotten.
    pub fn restore(&mut self, kept: impl IntoIterator<Item = Held>, now: Timestamp) -> Vec<PeerId> {
        let mut over = Vec::new();
        for held in kept {
            if held.left(now).is_zero() {
                over.push(held.revoke.peer_id);
            } else {
                // There are no more than there may be, unless they were heard of meanwhile.
                let _ = self.learn(held);
            }
        }
        over
    }

    /// The key is still used: its revocation is held anew. What is to be written down, if it is.
    pub fn tried(&mut self, peer: &PeerId, now: Timestamp) -> Option<Held> {
        let held = self.held.get(peer)?;
        let (until, weight) = (later(now, HOLD), held.weight.max(Weight::Tried));
        if weight == held.weight && !is_longer(held.until, until) {
            return None;
        }
        let renewed = Held { until, weight, ..held.clone() };
        self.put(renewed.clone());
        Some(renewed)
    }

    /// The revocation of this peer.
    #[must_use]
    pub fn get(&self, peer: &PeerId) -> Option<&Held> {
        self.held.get(peer)
    }

    /// All of them, by peer.
    pub fn list(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// Those behind `after`, by peer, as many as go into one page; and whether there are more.
    #[must_use]
    pub fn page(&self, after: Option<&PeerId>) -> (Vec<&Held>, bool) {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after));
        let (mut page, mut bytes) = (Vec::new(), 0);
        for held in self.held.range((from, Bound::Unbounded)).map(|(_, held)| held) {
            bytes += held.revoke.text().len() + ENTRY_BYTES;
            if bytes > PAGE_BYTES_MAX {
                return (page, true);
            }
            page.push(held);
        }
        (page, false)
    }

    /// Drops at most so many whose hold is over.
    pub fn collect(&mut self, now: Timestamp, at_most: usize) -> Vec<PeerId> {
        let over = self.held.values().filter(|held| held.left(now).is_zero());
        let over: Vec<PeerId> = over.map(|held| held.revoke.peer_id).take(at_most).collect();
        for peer in &over {
            self.take_out(peer);
        }
        over
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Nobody is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn make_room(&mut self) -> Result<Option<PeerId>, Full> {
        if self.held.len() < REVOCATIONS_MAX {
            return Ok(None);
        }
        let lightest = self.by_weight.first().copied().filter(|(weight, ..)| *weight < Weight::Ours);
        let (_, _, peer) = lightest.ok_or(Full)?;
        self.take_out(&peer);
        Ok(Some(peer))
    }

    fn put(&mut self, held: Held) {
        let peer = held.revoke.peer_id;
        self.take_out(&peer);
        self.by_weight.insert((held.weight, Reverse(held.heard), peer));
        self.held.insert(peer, held);
    }

    fn take_out(&mut self, peer: &PeerId) {
        if let Some(held) = self.held.remove(peer) {
            self.by_weight.remove(&(held.weight, Reverse(held.heard), *peer));
        }
    }
}

/// Later by a day at the least: what is less is not worth a write, nor a word to others.
fn is_longer(until: Timestamp, new: Timestamp) -> bool {
    let by = new.duration_since(until);
    by.is_positive() && by.unsigned_abs() >= RENEW_EVERY
}

/// How many news each peer brought lately. Bounded by [`NEWS_PEERS_MAX`].
#[derive(Debug)]
pub struct News {
    most: u32,
    within: Duration,
    brought: HashMap<PeerId, (Mono, u32)>,
}

impl News {
    /// Nobody brought any; each may bring so many within this time.
    #[must_use]
    pub fn new(most: u32, within: Duration) -> Self {
        Self { most, within, brought: HashMap::new() }
    }

    /// Whether one more is taken from this peer now.
    ///
    /// # Errors
    /// When it brought too many.
    pub fn admit(&mut self, from: PeerId, now: Mono) -> Result<(), Refused> {
        let Self { most, within, brought } = self;
        if !brought.contains_key(&from) && brought.len() >= NEWS_PEERS_MAX {
            brought.retain(|_, (since, _)| now.since(*since) < *within);
            let oldest = brought.iter().min_by_key(|(_, (since, _))| *since).map(|(peer, _)| *peer);
            if let Some(oldest) = oldest.filter(|_| brought.len() >= NEWS_PEERS_MAX) {
                brought.remove(&oldest);
            }
        }
        let (since, count) = brought.get(&from).copied().unwrap_or((now, 0));
        let (since, count) = if now.since(since) < *within { (since, count) } else { (now, 0) };
        if count >= *most {
            let left = within.saturating_sub(now.since(since));
            let minutes = within.as_secs() / 60;
            let detail = format!("got too many new revocations, expected at most {most} in {minutes} minutes");
            return Err(Refused::new(RefusalCode::Limit, detail).retry_after(left.as_secs().max(1)));
        }
        brought.insert(from, (since, count + 1));
        Ok(())
    }
}

/// Who is revoked and since when, for those who have to say no at once. It is read, and nobody but its owner makes a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Nothing until what was written down is read back.
    held: Option<HashMap<PeerId, Held>>,
}

impl Revoked {
    /// Those of the book, which was read back.
    #[must_use]
    pub fn of(book: &Revocations) -> Self {
        Self { held: Some(book.list().map(|held| (held.revoke.peer_id, held.clone())).collect()) }
    }

    /// What was written down is not read back yet: whoever is revoked could slip in.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.held.is_none()
    }

    /// All of them.
    pub fn list(&self) -> impl Iterator<Item = &Held> {
        self.held.iter().flat_map(HashMap::values)
    }

    /// Whether this peer is revoked.
    #[must_use]
    pub fn has(&self, peer: &PeerId) -> bool {
        self.held.as_ref().is_some_and(|held| held.contains_key(peer))
    }

    /// How a revoked peer is told no.
    ///
    /// # Errors
    /// When it is revoked.
    pub fn check(&self, peer: &PeerId) -> Result<(), Refused> {
        let Some(held) = self.held.as_ref().and_then(|held| held.get(peer)) else { return Ok(()) };
        let time = held.revoke.time;
        Err(Refused::new(RefusalCode::Banned, format!("{REVOKED_WORDS} {time}")).retry_after(RETRY_AFTER.as_secs()))
    }
}

/// The words by which a refused member knows that it is for good.
pub const REVOKED_WORDS: &str = "this peer id was revoked by its own key at";

/// Nobody should ask sooner; in truth never.
pub const RETRY_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// Whether a refusal says that we are revoked.
#[must_use]
pub fn says_revoked(code: RefusalCode, detail: &str) -> bool {
    code == RefusalCode::Banned && detail.starts_with(REVOKED_WORDS)
}

/// A revocation of `keys`, signed now.
#[must_use]
pub fn revoke(keys: &Keys, did: &str, reason: &str, now: Timestamp) -> Verified<Revoke> {
    let time = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let revoke = Revoke {
        peer_id: keys.peer_id(),
        did: did.to_owned(),
        pub_key: keys.pub_key().to_owned(),
        time,
        reason: reason.to_owned(),
    };
    Verified::sign(&revoke, keys)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::record::LIFE_MAX;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_767_323_045 + secs).unwrap()
    }

    fn keys(n: u32) -> Keys {
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        Keys::from_seed(seed)
    }

    fn revoke_of(n: u32) -> Verified<Revoke> {
        let keys = keys(n);
        revoke(&keys, &keys.did().to_string(), "", at(0))
    }

    fn held(n: u32, left_secs: u64, weight: Weight) -> Held {
        Held::new(revoke_of(n), Duration::from_secs(left_secs), weight, at(0))
    }

    /// Signs, opens, and tells why it is not taken.
    fn fault(change: impl Fn(&mut Revoke)) -> Option<SignedError> {
        let mut value = revoke_of(1).value().clone();
        change(&mut value);
        Verified::<Revoke>::open(Verified::sign(&value, &keys(1)).text(), at(0)).err()
    }

    #[test]
    fn a_revoke_from_the_future_is_refused_with_clock_and_one_of_long_ago_is_taken() {
        assert_eq!(fault(|said| said.time = at(0) + CLOCK_SKEW), None);
        let error = fault(|said| said.time = at(0) + CLOCK_SKEW + Duration::from_millis(1)).unwrap();
        assert_eq!((error.refusal(), error.is_strike()), (RefusalCode::Clock, false));
        assert_eq!(fault(|said| said.time = Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn a_revoke_names_its_own_key_and_its_reason_is_short() {
        assert!(fault(|said| said.peer_id = keys(2).peer_id()).unwrap().is_strike());
        assert!(fault(|said| said.did = keys(2).did().to_string()).unwrap().is_strike());
        assert_eq!(fault(|said| said.did = "c0a80121-7ac0-4e1c-9b1f-2f3f8a0e1d55".to_owned()), None);
        assert_eq!(fault(|said| said.reason = "r".repeat(REASON_BYTES_MAX)), None);
        for reason in ["r".repeat(REASON_BYTES_MAX + 1), "a\nb".to_owned()] {
            let error = fault(|said| said.reason.clone_from(&reason)).unwrap();
            assert!(matches!(error, SignedError::Invalid { field: "reason", .. }), "{error}");
        }
    }

    #[test]
    fn a_revoke_of_another_key_is_forged() {
        let text = revoke_of(1).text().replace(&keys(1).peer_id().to_string(), &keys(2).peer_id().to_string());
        assert!(Verified::<Revoke>::open(&text, at(0)).unwrap_err().is_strike());
        let as_leave = revoke_of(1).text().to_string();
        assert!(Verified::<crate::record::Leave>::open(&as_leave, at(0)).is_err(), "no other kind of word");
    }

    #[test]
    fn the_first_of_a_key_is_kept_and_a_replay_is_known() {
        let mut book = Revocations::new();
        assert_eq!(book.learn(held(1, 60, Weight::Heard)), Ok(Learned::New { displaced: None }));
        let other =
            |left| Held::new(revoke(&keys(1), &keys(1).did().to_string(), "later", at(9)), left, Weight::Heard, at(9));
        assert_eq!(book.learn(other(RENEW_EVERY)), Ok(Learned::Known));
        let kept = book.get(&keys(1).peer_id()).unwrap();
        assert_eq!((kept.revoke.time, kept.until), (at(0), at(60)));
        assert_eq!(book.learn(held(1, 90, Weight::Ours)), Ok(Learned::Known));
        let kept = book.get(&keys(1).peer_id()).unwrap();
        assert_eq!((kept.weight, kept.until, book.len()), (Weight::Ours, at(90), 1));
    }

    #[test]
    fn whoever_told_of_it_for_a_short_time_does_not_shorten_the_owners_word() {
        let mut book = Revocations::new();
        book.learn(held(1, 7_200, Weight::Heard)).unwrap();
        let owners = Held::new(revoke_of(1), HOLD, Weight::Heard, at(9));
        assert!(book.is_news(&owners) && book.is_news(&held(2, 60, Weight::Heard)));
        assert_eq!(book.learn(owners.clone()), Ok(Learned::Longer));
        assert_eq!(book.get(&keys(1).peer_id()).unwrap().until, at(9) + HOLD);
        // Nor does it go round and round.
        assert!(!book.is_news(&owners));
        assert_eq!(book.learn(owners), Ok(Learned::Known));
        assert_eq!(book.learn(held(1, 7_200, Weight::Heard)), Ok(Learned::Known));
        assert_eq!(book.get(&keys(1).peer_id()).unwrap().until, at(9) + HOLD);
    }

    #[test]
    fn a_hold_is_longer_than_any_record_lives_and_ends_to_the_second() {
        assert!(HOLD > LIFE_MAX + 2 * CLOCK_SKEW);
        let one = Held::new(revoke_of(1), Duration::MAX, Weight::Heard, at(0));
        assert_eq!(one.left(at(0)), HOLD);
        assert_eq!(one.left(at(0) - HOLD), HOLD, "a clock that was set back");
        let mut book = Revocations::new();
        book.learn(one).unwrap();
        assert!(book.collect(at(0) + HOLD - Duration::from_secs(1), 8).is_empty());
        assert_eq!(book.collect(at(0) + HOLD, 8), [keys(1).peer_id()]);
        assert!(book.is_empty() && book.by_weight.is_empty());
    }

    #[test]
    fn a_key_that_is_tried_is_held_anew_and_written_down_once_a_day() {
        let mut book = Revocations::new();
        book.learn(held(1, HOLD.as_secs(), Weight::Heard)).unwrap();
        let peer = keys(1).peer_id();
        assert_eq!(book.tried(&peer, at(1)).unwrap().weight, Weight::Tried, "the first time says that it is used");
        let day = i64::try_from(RENEW_EVERY.as_secs()).unwrap();
        assert_eq!(book.tried(&peer, at(day)), None);
        assert_eq!(book.tried(&peer, at(day + 1)).unwrap().until, at(day + 1) + HOLD);
        assert_eq!(book.tried(&keys(2).peer_id(), at(1)), None);
    }

    #[test]
    fn what_was_written_down_is_taken_up_again_for_what_is_left() {
        let mut book = Revocations::new();
        let over = book.restore([held(1, 60, Weight::Heard), held(2, 30, Weight::Tried)], at(30));
        assert_eq!(over, [keys(2).peer_id()], "it is to be forgotten on the disk as well");
        assert_eq!((book.len(), book.get(&keys(1).peer_id()).unwrap().left(at(30)).as_secs()), (1, 30));
    }

    /// One heard of at this second.
    fn heard_at(n: u32, second: i64, weight: Weight) -> Held {
        Held::new(revoke_of(n), HOLD, weight, at(second))
    }

    #[test]
    fn a_flood_of_made_keys_displaces_itself_and_nothing_that_was_known_before() {
        let mut book = Revocations::new();
        let most = u32::try_from(REVOCATIONS_MAX).unwrap();
        book.learn(heard_at(0, 0, Weight::Heard)).unwrap();
        book.learn(heard_at(1, 1, Weight::Tried)).unwrap();
        book.learn(heard_at(2, 2, Weight::Ours)).unwrap();
        for n in 3..most {
            let second = i64::from(n);
            assert_eq!(book.learn(heard_at(n, second, Weight::Heard)), Ok(Learned::New { displaced: None }));
        }
        for n in most..most + 9 {
            let learned = book.learn(heard_at(n, i64::from(n), Weight::Heard)).unwrap();
            assert_eq!(learned, Learned::New { displaced: Some(keys(n - 1).peer_id()) });
        }
        assert!((0..3).all(|n| book.get(&keys(n).peer_id()).is_some()));
        assert_eq!((book.len(), book.by_weight.len()), (REVOCATIONS_MAX, REVOCATIONS_MAX));
    }

    #[test]
    fn there_is_a_place_for_one_more_unless_all_are_ours() {
        let mut book = Revocations::new();
        let most = u32::try_from(REVOCATIONS_MAX).unwrap();
        for n in 0..most - 2 {
            book.learn(heard_at(n, 0, Weight::Ours)).unwrap();
        }
        for n in [most - 2, most - 1] {
            book.learn(heard_at(n, i64::from(n), Weight::Tried)).unwrap();
        }
        let learned = book.learn(heard_at(most, 1, Weight::Heard)).unwrap();
        assert_eq!(learned, Learned::New { displaced: Some(keys(most - 1).peer_id()) }, "the last of those tried");
        let learned = book.learn(heard_at(most + 1, 2, Weight::Heard)).unwrap();
        assert_eq!(learned, Learned::New { displaced: Some(keys(most).peer_id()) }, "and then of those heard of");
        for n in [most + 2, most + 3] {
            book.learn(heard_at(n, 3, Weight::Ours)).unwrap();
        }
        for weight in Weight::EVERY {
            assert_eq!(book.learn(heard_at(most + 4, 4, weight)), Err(Full));
        }
        assert_eq!((book.len(), book.by_weight.len()), (REVOCATIONS_MAX, REVOCATIONS_MAX));
    }

    #[test]
    fn pages_hold_what_a_value_can_and_leave_nothing_out() {
        let mut book = Revocations::new();
        for n in 0..400 {
            book.learn(held(n, 100, Weight::Heard)).unwrap();
        }
        let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let (page, more) = book.page(after.as_ref());
            let bytes: usize = page.iter().map(|held| held.revoke.text().len() + ENTRY_BYTES).sum();
            assert!(bytes <= PAGE_BYTES_MAX);
            seen.extend(page.iter().map(|held| held.revoke.peer_id));
            after = seen.last().copied();
            pages += 1;
            if !more {
                break;
            }
        }
        let all: Vec<PeerId> = book.list().map(|held| held.revoke.peer_id).collect();
        assert!(pages > 1);
        assert_eq!(seen, all);
    }

    #[test]
    fn news_of_one_peer_are_counted_and_others_are_not_held_up() {
        let mut news = News::new(NEWS_PER_PEER, NEWS_WITHIN);
        let (from, now) = (keys(1).peer_id(), Mono::from_secs(5));
        for _ in 0..NEWS_PER_PEER {
            news.admit(from, now).unwrap();
        }
        let refused = news.admit(from, now).unwrap_err();
        assert_eq!((refused.refused, refused.retry_after), (RefusalCode::Limit, Some(NEWS_WITHIN.as_secs())));
        assert!(news.admit(keys(2).peer_id(), now).is_ok());
        assert!(news.admit(from, now + NEWS_WITHIN).is_ok());
    }

    #[test]
    fn no_more_peers_news_are_counted_than_may_be() {
        let mut news = News::new(NEWS_PER_PEER, NEWS_WITHIN);
        for n in 0..u32::try_from(NEWS_PEERS_MAX).unwrap() {
            news.admit(crate::testing::peer(n), Mono::from_secs(1)).unwrap();
        }
        let late = crate::testing::peer(u32::MAX);
        assert!(news.admit(late, Mono::from_secs(2)).is_ok(), "strangers keep nobody from being heard");
        assert_eq!(news.brought.len(), NEWS_PEERS_MAX);
        assert!(news.admit(crate::testing::peer(u32::MAX - 1), Mono::from_secs(2) + NEWS_WITHIN).is_ok());
        assert_eq!(news.brought.len(), 1);
    }

    #[test]
    fn a_revoked_peer_is_told_when_and_by_whom_and_nobody_is_before_the_book_is_read() {
        let unknown = Revoked::default();
        assert!(unknown.is_unknown() && !unknown.has(&keys(1).peer_id()));
        let mut book = Revocations::new();
        book.learn(held(1, 60, Weight::Heard)).unwrap();
        let revoked = Revoked::of(&book);
        assert!(!revoked.is_unknown() && revoked.check(&keys(2).peer_id()).is_ok());
        let refused = revoked.check(&keys(1).peer_id()).unwrap_err();
        assert_eq!(refused.detail, format!("this peer id was revoked by its own key at {}", at(0)));
        assert!(says_revoked(refused.refused, &refused.detail));
        assert!(!says_revoked(RefusalCode::Banned, "banned"));
    }

    proptest! {
        /// Whatever is heard, tried and collected: one is held exactly while its hold lasts since it was last heard or tried.
        #[test]
        fn a_revocation_is_held_until_its_key_was_quiet_for_as_long_as_it_is_held(
            steps in proptest::collection::vec((0u32..3, 0u8..3, 0i64..40_000_000), 1..40),
        ) {
            let mut book = Revocations::new();
            let mut naive = BTreeMap::<u32, Timestamp>::new();
            let mut now = at(0);
            for (n, what, gap) in steps {
                now += Duration::from_secs(gap.unsigned_abs());
                book.collect(now, usize::MAX);
                naive.retain(|_, until| *until > now);
                match what {
                    0 => {
                        book.learn(Held::new(revoke_of(n), HOLD, Weight::Heard, now)).unwrap();
                        let until = naive.entry(n).or_insert(now + HOLD);
                        // Heard again it is held on, where that is a day at the least.
                        if (now + HOLD).duration_since(*until).unsigned_abs() >= RENEW_EVERY {
                            *until = now + HOLD;
                        }
                    }
                    _ => {
                        let is_renewed = book.tried(&keys(n).peer_id(), now).is_some();
                        if let Some(until) = naive.get_mut(&n).filter(|_| is_renewed) {
                            *until = now + HOLD;
                        }
                    }
                }
                for n in 0..3 {
                    let until = book.get(&keys(n).peer_id()).map(|held| held.until);
                    prop_assert_eq!(until, naive.get(&n).copied());
                }
                prop_assert_eq!(book.by_weight.len(), book.len());
            }
        }
    }
}
