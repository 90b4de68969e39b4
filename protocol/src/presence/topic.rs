//! The topic `oc-presence`: an indexer came, goes, or found another one dead.
//!
//! Who leaves signed it, so that is believed of the run that it names and of no later one. That somebody came or died is
//! hearsay: it leads to a look of our own, once a minute and peer at the most, whoever says it and how often.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{
    behaviour::{WINDOW, Window},
    json::{self, JsonError},
    record::{ADDRS_MAX, Leave},
    signed::{SignedError, Verified},
    suggestions::KNOWN_MAX,
    time::{Mono, Now},
    wire::RefusalCode,
};

/// The longest word: a whole `Leave` of 4 KiB and what is around it.
pub const WORD_BYTES_MAX: usize = 6 * 1024;

/// Words of one author in a minute: it came, it goes, and the ten of its pool died at once.
pub const WORDS_PER_AUTHOR: u32 = 12;

/// Words of all authors in a minute: 20 a second, so that even if each were a `Leave` to be verified, one core gives a
/// thousandth of its time to it.
pub const WORDS_IN_ALL: u32 = 1_200;

/// The same peer is looked at again for what others say of it after this time at the earliest: however many speak ill of
/// a peer, each listener costs it one probe a minute.
pub const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Peers looked at for what others say of them, within [`LOOK_AGAIN_AFTER`]: a whole site of indexers that died at once.
/// Past it hearsay is left to the ordinary ways: the DHT, the pool's beats.
pub const LOOKS_MAX: usize = 64;

/// One word on the topic: exactly one of the three fields beside the author.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PresenceWord {
    /// Who says it; must be the message's author.
    #[serde(with = "crate::wire::text")]
    pub peer_id: PeerId,
    /// It started and listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Join>,
    /// It goes: its own `Leave` as it was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave: Option<Box<RawValue>>,
    /// It cannot reach this indexer.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::wire::text_option")]
    pub dead_peer: Option<PeerId>,
}

/// Where an indexer that started can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// At most 8, without `/p2p/`.
    #[serde(default)]
    pub addrs: Vec<Multiaddr>,
    /// Start of its process.
    pub born_at: Timestamp,
}

impl PresenceWord {
    /// `own` came.
    #[must_use]
    pub fn join(own: PeerId, addrs: Vec<Multiaddr>, born_at: Timestamp) -> Self {
        Self { join: Some(Join { addrs, born_at }), ..Self::empty(own) }
    }

    /// The signer of this leave goes.
    #[must_use]
    pub fn leave(leave: &Verified<Leave>) -> Self {
        Self { leave: Some(leave.to_raw()), ..Self::empty(leave.peer_id) }
    }

    /// `own` cannot reach `dead`.
    #[must_use]
    pub fn dead_peer(own: PeerId, dead: PeerId) -> Self {
        Self { dead_peer: Some(dead), ..Self::empty(own) }
    }

    fn empty(own: PeerId) -> Self {
        Self { peer_id: own, join: None, leave: None, dead_peer: None }
    }
}

/// A word that may be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An indexer says that it came.
    Joined {
        /// Who.
        peer: PeerId,
        /// Where it says that it listens: hearsay, not yet filtered.
        addrs: Vec<Multiaddr>,
        /// Start of its process.
        born_at: Timestamp,
    },
    /// An indexer goes; signed by itself.
    Left(Box<Verified<Leave>>),
    /// An indexer could not reach another one.
    FoundDead {
        /// Who says so.
        by: PeerId,
        /// Of whom.
        peer: PeerId,
    },
}

/// Why a word is not acted on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WordError {
    /// It is our own.
    #[error("got our own word")]
    Own,
    /// It is no word.
    #[error(transparent)]
    Malformed(#[from] JsonError),
    /// Its body names another peer than its author.
    #[error("got a word in the name of another than its author")]
    NotTheAuthor,
    /// It has none of the fields that we know: perhaps that of a newer version.
    #[error("got a word of a kind that is not known here")]
    Unknown,
    /// It says two things at once.
    #[error("got a word with {got} of join, leave and dead_peer, expected one")]
    Ambiguous {
        /// How many.
        got: usize,
    },
    /// It names more addresses than a peer may have.
    #[error("got {got} addresses, expected at most {ADDRS_MAX}")]
    Addresses {
        /// How many.
        got: usize,
    },
    /// Too many words.
    #[error("got too many words in a minute")]
    TooMany,
    /// Its leave is not valid.
    #[error(transparent)]
    Leave(#[from] SignedError),
    /// Its leave is another's.
    #[error("got the leave of another than its author")]
    NotTheLeavers,
}

impl WordError {
    /// Its author made it so: gossip may reject it. Otherwise it is ignored and nobody is blamed: the clock, the load or
    /// the version at fault may be ours.
    #[must_use]
    pub fn is_authors_fault(&self) -> bool {
        match self {
            Self::Own | Self::Unknown | Self::TooMany => false,
            Self::Leave(error) => error.refusal() != RefusalCode::Clock,
            Self::Malformed(_)
            | Self::NotTheAuthor
            | Self::Ambiguous { .. }
            | Self::Addresses { .. }
            | Self::NotTheLeavers => true,
        }
    }
}

/// The door for words: cheap checks first, then the author's share, then signatures.
///
/// Bounded by [`KNOWN_MAX`] authors; past it a new one is heard when another was silent for a minute.
#[derive(Debug)]
pub struct Listener {
    own: PeerId,
    authors: HashMap<PeerId, (Window, Mono)>,
    authors_by_age: BTreeSet<(Mono, PeerId)>,
    in_all: Window,
}

impl Listener {
    /// Nothing heard yet, at the indexer `own`.
    #[must_use]
    pub fn new(own: PeerId) -> Self {
        Self { own, authors: HashMap::new(), authors_by_age: BTreeSet::new(), in_all: Window::default() }
    }

    /// Takes a word from gossip, whose author's signature gossip verified.
    ///
    /// # Errors
    /// When it is not to be acted on.
    pub fn take(&mut self, author: PeerId, data: &[u8], now: Now) -> Result<Heard, WordError> {
        if author == self.own {
            return Err(WordError::Own);
        }
        let word: PresenceWord = json::parse(data, WORD_BYTES_MAX)?;
        check(&word, author)?;
        if !self.count(author, now.mono) {
            return Err(WordError::TooMany);
        }
        read(word, now.wall)
    }

    /// Counts a word of an author; whether it is within both shares.
    fn count(&mut self, author: PeerId, now: Mono) -> bool {
        if !self.authors.contains_key(&author) && self.authors.len() >= KNOWN_MAX {
            let is_idle = |(heard, _): &(Mono, PeerId)| now.since(*heard) >= WINDOW;
            let Some((_, oldest)) = self.authors_by_age.first().copied().filter(is_idle) else { return false };
            self.authors_by_age.pop_first();
            self.authors.remove(&oldest);
        }
        let (window, heard) = self.authors.entry(author).or_default();
        self.authors_by_age.remove(&(*heard, author));
        self.authors_by_age.insert((now, author));
        *heard = now;
        // The author's own share first: one that shouts does not use up what is there for all.
        if window.count(now) >= WORDS_PER_AUTHOR || self.in_all.count(now) >= WORDS_IN_ALL {
            return false;
        }
        window.add();
        self.in_all.add();
        true
    }
}

fn check(word: &PresenceWord, author: PeerId) -> Result<(), WordError> {
    if word.peer_id != author {
        return Err(WordError::NotTheAuthor);
    }
    let said = [word.join.is_some(), word.leave.is_some(), word.dead_peer.is_some()];
    match said.into_iter().filter(|is_said| *is_said).count() {
        0 => return Err(WordError::Unknown),
        1 => {}
        got => return Err(WordError::Ambiguous { got }),
    }
    let got = word.join.as_ref().map_or(0, |join| join.addrs.len());
    if got > ADDRS_MAX { Err(WordError::Addresses { got }) } else { Ok(()) }
}

fn read(word: PresenceWord, now: Timestamp) -> Result<Heard, WordError> {
    if let Some(Join { addrs, born_at }) = word.join {
        return Ok(Heard::Joined { peer: word.peer_id, addrs, born_at });
    }
    if let Some(peer) = word.dead_peer {
        return Ok(Heard::FoundDead { by: word.peer_id, peer });
    }
    let text = word.leave.ok_or(WordError::Unknown)?;
    let leave = Verified::<Leave>::open(text.get(), now)?;
    if leave.peer_id != word.peer_id {
        return Err(WordError::NotTheLeavers);
    }
    Ok(Heard::Left(Box::new(leave)))
}

/// The newest run of each indexer that we know of, and whether it is over.
///
/// With it a `Leave` that is repeated after a restart says nothing: whoever recorded it cannot send the next run away.
/// Bounded by [`KNOWN_MAX`] indexers; past it those go whose last news is the oldest.
#[derive(Debug, Default)]
pub struct Runs {
    by_peer: HashMap<PeerId, Run>,
    by_age: BTreeSet<(Mono, PeerId)>,
}

#[derive(Debug)]
struct Run {
    born_at: Timestamp,
    is_over: bool,
    noted: Mono,
}

impl Runs {
    /// The indexer itself told the start of its process, by hello or by a signed message. Tells whether it is a run that
    /// was not known.
    pub fn began(&mut self, peer: PeerId, born_at: Timestamp, now: Mono) -> bool {
        self.note(peer, born_at, false, now)
    }

    /// The run that began at `born_at` is over. Tells whether that is news: no later run is known, and this one was not
    /// known to be over.
    pub fn ended(&mut self, peer: PeerId, born_at: Timestamp, now: Mono) -> bool {
        self.note(peer, born_at, true, now)
    }

    fn note(&mut self, peer: PeerId, born_at: Timestamp, is_over: bool, now: Mono) -> bool {
        if let Some(run) = self.by_peer.get(&peer) {
            let is_news = born_at > run.born_at || (born_at == run.born_at && is_over && !run.is_over);
            if !is_news {
                return false;
            }
            self.by_age.remove(&(run.noted, peer));
        }
        self.by_peer.insert(peer, Run { born_at, is_over, noted: now });
        self.by_age.insert((now, peer));
        while self.by_peer.len() > KNOWN_MAX {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            self.by_peer.remove(&oldest);
        }
        true
    }
}

/// Whom we looked at lately for what others said of it.
#[derive(Debug, Default)]
pub struct Looks {
    lately: HashMap<PeerId, Mono>,
}

impl Looks {
    /// Whether the peer is to be looked at now; if so it is taken down. At most [`LOOKS_MAX`] in any
    /// [`LOOK_AGAIN_AFTER`], and each peer once.
    pub fn is_due(&mut self, peer: PeerId, now: Mono) -> bool {
        self.lately.retain(|_, looked| now.since(*looked) < LOOK_AGAIN_AFTER);
        if self.lately.contains_key(&peer) || self.lately.len() >= LOOKS_MAX {
            return false;
        }
        self.lately.insert(peer, now);
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::{identity::Keys, wire::Role};

    fn keys(seed: u8) -> Keys {
        Keys::from_seed([seed; 32])
    }

    fn peer(seed: u8) -> PeerId {
        keys(seed).peer_id()
    }

    fn wall() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn at(secs: u64) -> Now {
        Now { mono: Mono::from_secs(secs), wall: wall() }
    }

    fn addr() -> Multiaddr {
        "/ip4/192.0.2.1/tcp/4001".parse().unwrap()
    }

    fn leave(seed: u8, time: Timestamp) -> Verified<Leave> {
        let keys = keys(seed);
        let leave = Leave {
            peer_id: keys.peer_id(),
            did: keys.did().to_string(),
            role: Role { node: true, indexer: true },
            born_at: wall(),
            seq: 1,
            time,
            restart: true,
            alternatives: Vec::new(),
            pub_key: keys.pub_key().to_owned(),
        };
        Verified::sign(&leave, &keys)
    }

    fn text(word: &PresenceWord) -> Vec<u8> {
        serde_json::to_vec(word).unwrap()
    }

    fn hear(author: u8, word: &PresenceWord) -> Result<Heard, WordError> {
        Listener::new(peer(99)).take(peer(author), &text(word), at(0))
    }

    #[test]
    fn each_kind_of_word_is_heard_as_it_was_said() {
        let join = PresenceWord::join(peer(1), vec![addr()], wall());
        let joined = Heard::Joined { peer: peer(1), addrs: vec![addr()], born_at: wall() };
        assert_eq!(hear(1, &join), Ok(joined));
        let left = leave(1, wall());
        assert_eq!(hear(1, &PresenceWord::leave(&left)), Ok(Heard::Left(Box::new(left))));
        let dead = Heard::FoundDead { by: peer(1), peer: peer(2) };
        assert_eq!(hear(1, &PresenceWord::dead_peer(peer(1), peer(2))), Ok(dead));
    }

    #[test]
    fn g18_nobody_speaks_in_the_name_of_another() {
        assert_eq!(hear(2, &PresenceWord::join(peer(1), vec![addr()], wall())), Err(WordError::NotTheAuthor));
        assert_eq!(hear(2, &PresenceWord::leave(&leave(1, wall()))), Err(WordError::NotTheAuthor));
        // Another's leave in one's own name sends nobody away.
        let stolen = PresenceWord { peer_id: peer(2), ..PresenceWord::leave(&leave(1, wall())) };
        assert_eq!(hear(2, &stolen), Err(WordError::NotTheLeavers));
        assert!(WordError::NotTheLeavers.is_authors_fault());
    }

    #[test]
    fn a_leave_that_does_not_verify_is_its_authors_fault_and_a_late_one_is_nobodys() {
        let forged = leave(1, wall()).text().replace("\"restart\":true", "\"restart\":false");
        let forged =
            PresenceWord { leave: Some(RawValue::from_string(forged).unwrap()), ..PresenceWord::empty(peer(1)) };
        assert!(hear(1, &forged).unwrap_err().is_authors_fault());
        let late = leave(1, wall() - Duration::from_secs(301));
        assert!(!hear(1, &PresenceWord::leave(&late)).unwrap_err().is_authors_fault());
    }

    #[test]
    fn a_word_says_one_thing_and_one_of_a_newer_version_is_ignored() {
        let both = PresenceWord { dead_peer: Some(peer(2)), ..PresenceWord::join(peer(1), Vec::new(), wall()) };
        assert_eq!(hear(1, &both), Err(WordError::Ambiguous { got: 2 }));
        let newer = format!(r#"{{"peer_id":"{}","moved":{{"to":"x"}}}}"#, peer(1));
        let heard = Listener::new(peer(99)).take(peer(1), newer.as_bytes(), at(0));
        assert_eq!(heard, Err(WordError::Unknown));
        assert!(!WordError::Unknown.is_authors_fault());
    }

    #[test]
    fn a_join_names_8_addresses_and_no_more() {
        assert!(hear(1, &PresenceWord::join(peer(1), vec![addr(); ADDRS_MAX], wall())).is_ok());
        let many = PresenceWord::join(peer(1), vec![addr(); ADDRS_MAX + 1], wall());
        assert_eq!(hear(1, &many), Err(WordError::Addresses { got: ADDRS_MAX + 1 }));
    }

    #[test]
    fn a_word_is_taken_at_its_limit_and_refused_past_it() {
        let mut padded = text(&PresenceWord::dead_peer(peer(1), peer(2)));
        padded.resize(WORD_BYTES_MAX, b' ');
        assert!(Listener::new(peer(99)).take(peer(1), &padded, at(0)).is_ok());
        padded.push(b' ');
        let refused = Listener::new(peer(99)).take(peer(1), &padded, at(0));
        assert!(matches!(refused, Err(WordError::Malformed(JsonError::TooLong { .. }))));
    }

    #[test]
    fn an_author_has_12_words_a_minute_and_takes_none_from_another() {
        let mut listener = Listener::new(peer(99));
        let word = text(&PresenceWord::dead_peer(peer(1), peer(2)));
        for _ in 0..WORDS_PER_AUTHOR {
            assert!(listener.take(peer(1), &word, at(0)).is_ok());
        }
        for _ in 0..WORDS_IN_ALL {
            assert_eq!(listener.take(peer(1), &word, at(0)), Err(WordError::TooMany));
        }
        let other = text(&PresenceWord::dead_peer(peer(3), peer(2)));
        assert!(listener.take(peer(3), &other, at(0)).is_ok());
        assert!(listener.take(peer(1), &word, at(61)).is_ok());
    }

    #[test]
    fn all_authors_together_have_their_share_and_authors_are_bounded() {
        let mut listener = Listener::new(peer(99));
        let author = |number: u32| {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&number.to_be_bytes());
            Keys::from_seed(seed).peer_id()
        };
        let mut say = |number: u32, secs| {
            let by = author(number);
            listener.take(by, &text(&PresenceWord::dead_peer(by, peer(2))), at(secs)).is_ok()
        };
        for number in 0..WORDS_IN_ALL {
            assert!(say(number, 0));
        }
        assert!(!say(WORDS_IN_ALL, 0));
        assert!(say(WORDS_IN_ALL, 61));
        for number in 0..5_000 {
            say(number, 62);
        }
        assert!(listener.authors.len() <= KNOWN_MAX && listener.authors_by_age.len() == listener.authors.len());
    }

    #[test]
    fn a_leave_repeated_after_a_restart_says_nothing() {
        let mut runs = Runs::default();
        let (first, second) = (wall(), wall() + Duration::from_secs(60));
        assert!(runs.began(peer(1), first, Mono::ZERO));
        assert!(runs.ended(peer(1), first, Mono::ZERO));
        assert!(!runs.ended(peer(1), first, Mono::ZERO), "heard twice is news once");
        assert!(runs.began(peer(1), second, Mono::ZERO));
        assert!(!runs.ended(peer(1), first, Mono::ZERO), "the later run stays");
        assert!(runs.ended(peer(1), second, Mono::ZERO));
        // Of one that nobody knew, its own word is enough.
        assert!(runs.ended(peer(2), first, Mono::ZERO));
        assert!(!runs.began(peer(2), first, Mono::ZERO), "its join, come late, does not bring it back");
    }

    #[test]
    fn hearsay_costs_a_peer_one_look_a_minute_and_us_64() {
        let mut looks = Looks::default();
        assert!(looks.is_due(peer(1), Mono::ZERO));
        assert!(!looks.is_due(peer(1), Mono::from_secs(59)));
        assert!(looks.is_due(peer(1), Mono::from_secs(60)));
        let mut looks = Looks::default();
        let due = (0..100).filter(|seed| looks.is_due(peer(*seed), Mono::ZERO)).count();
        assert_eq!(due, LOOKS_MAX);
        assert!(looks.is_due(peer(100), Mono::from_secs(60)));
    }

    proptest! {
        #[test]
        fn whatever_is_heard_of_runs_the_newest_one_stays(
            told in prop::collection::vec((0i64..5, any::<bool>()), 1..30)
        ) {
            let mut runs = Runs::default();
            for (minute, is_over) in &told {
                let born_at = wall() + jiff::SignedDuration::from_mins(*minute);
                if *is_over { runs.ended(peer(1), born_at, Mono::ZERO) } else { runs.began(peer(1), born_at, Mono::ZERO) };
            }
            let newest = told.iter().map(|(minute, _)| *minute).max().unwrap();
            let is_over = told.contains(&(newest, true));
            let run = &runs.by_peer[&peer(1)];
            prop_assert_eq!(run.born_at, wall() + jiff::SignedDuration::from_mins(newest));
            prop_assert_eq!(run.is_over, is_over);
        }

        #[test]
        fn no_word_makes_it_panic(data in any::<Vec<u8>>()) {
            let _ = Listener::new(peer(99)).take(peer(1), &data, at(0));
        }
    }
}
