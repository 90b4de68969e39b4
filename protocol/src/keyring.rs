//! The network's pre-shared key, and the one that is to replace it: what a file may hold, and how it goes on from there.
//!
//! A file with two keys is two key files, one behind the other: the key in force, then the next one. A member that holds
//! both listens with each on a port of its own and dials with whichever is understood, so nobody has to change the key at
//! the same moment as anybody else.

use std::{fmt, str::FromStr};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::identity::{PSK_HEADER, PreSharedKey, PreSharedKeyError};

/// Keys of one file: the one in force and the next. A third would be a second rotation before the first one's end.
pub const KEYS_MAX: usize = 2;

/// Why a text is no keyring.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyringError {
    /// The key in force cannot be read.
    #[error(transparent)]
    Current(#[from] PreSharedKeyError),
    /// The next key cannot be read.
    #[error("the next key: {0}")]
    Next(PreSharedKeyError),
    /// More keys than there are in a rotation.
    #[error("got {got} keys, expected one, or two during a rotation")]
    TooMany {
        /// How many.
        got: usize,
    },
    /// A rotation to where it began.
    #[error("the next key is the key in force, expected another")]
    Same,
}

/// Why a rotation does not go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RotationError {
    /// There is a next key.
    #[error("a rotation to the key {next} has begun already")]
    Begun {
        /// Its fingerprint.
        next: String,
    },
    /// There is no next key.
    #[error("no rotation has begun: there is no next key")]
    NotBegun,
    /// What is offered as the next key is in force.
    #[error("the offered key {current} is the one in force, and no next one stands behind it")]
    Same {
        /// Its fingerprint.
        current: String,
    },
    /// The offered file is of a rotation from another key.
    #[error("the offered file rotates from the key {theirs}, and {ours} is in force here")]
    OtherNetwork {
        /// The fingerprint of its key in force.
        theirs: String,
        /// The fingerprint of ours.
        ours: String,
    },
}

/// The key in force, and the next one while a rotation goes on.
#[derive(Clone, Debug)]
pub struct Keyring {
    current: PreSharedKey,
    next: Option<PreSharedKey>,
}

impl Keyring {
    /// The key in force.
    #[must_use]
    pub const fn current(&self) -> &PreSharedKey {
        &self.current
    }

    /// The key that will replace it, if there is one.
    #[must_use]
    pub const fn next(&self) -> Option<&PreSharedKey> {
        self.next.as_ref()
    }

    /// The fingerprints, that of the key in force first.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<String> {
        [Some(&self.current), self.next.as_ref()].into_iter().flatten().map(PreSharedKey::fingerprint).collect()
    }

    /// The content of a key file: without a next key, that which every libp2p reads.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = self.current.to_text();
        if let Some(next) = &self.next {
            // At once as long as it gets, so that no half of it is left behind unwiped.
            let (first, second) = (text, next.to_text());
            text = Zeroizing::new(String::with_capacity(first.len() + second.len()));
            text.push_str(&first);
            text.push_str(&second);
        }
        text
    }

    /// The next key that another member's file offers us: its own next one when we share the key in force, else the only
    /// one that it holds.
    ///
    /// # Errors
    /// When it is of another rotation than ours, or has nothing that we lack.
    pub fn offered(&self, file: &Self) -> Result<PreSharedKey, RotationError> {
        let is_ours = is_same(&file.current, &self.current);
        match &file.next {
            Some(next) if is_ours => Ok(next.clone()),
            None if !is_ours => Ok(file.current.clone()),
            Some(_) => Err(RotationError::OtherNetwork {
                theirs: file.current.fingerprint(),
                ours: self.current.fingerprint(),
            }),
            None => Err(RotationError::Same { current: self.current.fingerprint() }),
        }
    }

    /// The ring with a next key.
    ///
    /// # Errors
    /// When there is one already, or it is the one in force.
    pub fn begin(&self, next: PreSharedKey) -> Result<Self, RotationError> {
        if let Some(next) = &self.next {
            return Err(RotationError::Begun { next: next.fingerprint() });
        }
        if is_same(&next, &self.current) {
            return Err(RotationError::Same { current: self.current.fingerprint() });
        }
        Ok(Self { current: self.current.clone(), next: Some(next) })
    }

    /// The ring with the next key in force, and the old one gone.
    ///
    /// # Errors
    /// When there is no next key.
    pub fn finish(&self) -> Result<Self, RotationError> {
        self.next.clone().map(Self::from).ok_or(RotationError::NotBegun)
    }

    /// The ring without its next key.
    ///
    /// # Errors
    /// When there is none.
    pub fn cancel(&self) -> Result<Self, RotationError> {
        match self.next {
            Some(_) => Ok(Self::from(self.current.clone())),
            None => Err(RotationError::NotBegun),
        }
    }
}

impl From<PreSharedKey> for Keyring {
    fn from(current: PreSharedKey) -> Self {
        Self { current, next: None }
    }
}

fn is_same(one: &PreSharedKey, other: &PreSharedKey) -> bool {
    one.as_bytes() == other.as_bytes()
}

/// The fingerprints, for people.
impl fmt::Display for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprints().join(", next "))
    }
}

impl FromStr for Keyring {
    type Err = KeyringError;

    fn from_str(text: &str) -> Result<Self, KeyringError> {
        let mut starts = Vec::new();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            if line.trim() == PSK_HEADER {
                starts.push(at);
            }
            at += line.len();
        }
        let (current, next) = match starts[..] {
            [] | [_] => (text, None),
            [_, second] => (&text[..second], Some(&text[second..])),
            _ => return Err(KeyringError::TooMany { got: starts.len() }),
        };
        let current: PreSharedKey = current.parse()?;
        let next: Option<PreSharedKey> = next.map(str::parse).transpose().map_err(KeyringError::Next)?;
        match &next {
            Some(next) if is_same(next, &current) => Err(KeyringError::Same),
            _ => Ok(Self { current, next }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> PreSharedKey {
        PreSharedKey::from_bytes([byte; 32])
    }

    fn ring(current: u8, next: Option<u8>) -> Keyring {
        Keyring { current: key(current), next: next.map(key) }
    }

    fn same(one: &Keyring, other: &Keyring) -> bool {
        one.fingerprints() == other.fingerprints()
    }

    #[test]
    fn a_file_with_one_key_is_the_file_that_every_libp2p_reads() {
        assert_eq!(*ring(1, None).to_text(), *key(1).to_text());
        let read: Keyring = key(1).to_text().parse().unwrap();
        assert!(same(&read, &ring(1, None)));
    }

    #[test]
    fn two_key_files_one_behind_the_other_are_a_rotation() {
        let text = format!("{}\n{}\n", &*key(1).to_text(), &*key(2).to_text());
        for text in [text.replace('\n', "\r\n"), text, ring(1, Some(2)).to_text().to_string()] {
            assert!(same(&text.parse().unwrap(), &ring(1, Some(2))), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_keyring_is_told_of_the_key_that_is_wrong() {
        let (one, two, three) = (key(1).to_text(), key(2).to_text(), key(3).to_text());
        let check = |text: String, expected: KeyringError| assert_eq!(text.parse::<Keyring>().unwrap_err(), expected);
        check(String::new(), KeyringError::Current(PreSharedKeyError::Empty));
        check(format!("{}{}", &one[..50], &*two), KeyringError::Current(PreSharedKeyError::OtherLength { got: 40 }));
        check(format!("{}\n{}", &one[..50], &*two), KeyringError::Current(PreSharedKeyError::OtherLength { got: 19 }));
        check(format!("{}{}", &*one, &two[..50]), KeyringError::Next(PreSharedKeyError::OtherLength { got: 19 }));
        check(format!("{}{}more", &*one, &*two), KeyringError::Next(PreSharedKeyError::MoreLines { line: 4 }));
        check(format!("{}{}{}", &*one, &*two, &*three), KeyringError::TooMany { got: 3 });
        check(format!("{}{}", &*one, &*one), KeyringError::Same);
    }

    #[test]
    fn a_rotation_has_one_beginning_and_one_end() {
        let begun = ring(1, None).begin(key(2)).unwrap();
        assert!(same(&begun, &ring(1, Some(2))));
        assert_eq!(begun.begin(key(3)).unwrap_err(), RotationError::Begun { next: key(2).fingerprint() });
        assert_eq!(ring(1, None).begin(key(1)).unwrap_err(), RotationError::Same { current: key(1).fingerprint() });
        assert!(same(&begun.finish().unwrap(), &ring(2, None)));
        assert!(same(&begun.cancel().unwrap(), &ring(1, None)));
        assert_eq!(ring(1, None).finish().unwrap_err(), RotationError::NotBegun);
        assert_eq!(ring(1, None).cancel().unwrap_err(), RotationError::NotBegun);
    }

    #[test]
    fn a_file_offers_its_next_key_to_whoever_shares_the_first_and_its_only_one_to_others() {
        let ours = ring(1, None);
        let offered = |file: &Keyring| ours.offered(file).map(|key| key.fingerprint());
        assert_eq!(offered(&ring(1, Some(2))), Ok(key(2).fingerprint()));
        assert_eq!(offered(&ring(2, None)), Ok(key(2).fingerprint()));
        assert_eq!(offered(&ring(1, None)), Err(RotationError::Same { current: key(1).fingerprint() }));
        assert_eq!(
            offered(&ring(3, Some(2))),
            Err(RotationError::OtherNetwork { theirs: key(3).fingerprint(), ours: key(1).fingerprint() })
        );
    }

    #[test]
    fn a_keyring_is_shown_by_fingerprints_alone() {
        let shown = format!("{:?} {}", ring(0xab, Some(0xcd)), ring(0xab, Some(0xcd)));
        assert!(!shown.contains("abab") && !shown.contains("cdcd"), "{shown}");
        assert!(shown.contains(&format!("{}, next {}", key(0xab).fingerprint(), key(0xcd).fingerprint())), "{shown}");
    }

    proptest! {
        #[test]
        fn every_keyring_is_read_again(current in any::<[u8; 32]>(), next in proptest::option::of(any::<[u8; 32]>())) {
            prop_assume!(next != Some(current));
            let ring = Keyring {
                current: PreSharedKey::from_bytes(current),
                next: next.map(PreSharedKey::from_bytes),
            };
            let read: Keyring = ring.to_text().parse().unwrap();
            prop_assert!(same(&read, &ring));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in any::<String>(), header in "(/key/swarm/psk/1\\.0\\.0/\r?\n|[^a]{0,9}){0,6}") {
            let _ = text.parse::<Keyring>();
            let _ = header.parse::<Keyring>();
        }

        // The end waits for everybody's beginning: that is all that operators have to agree on.
        #[test]
        fn two_members_share_a_key_at_every_step(order in proptest::collection::vec(any::<bool>(), 1..12)) {
            let mut members = [ring(1, None), ring(1, None)];
            for which in order {
                let which = usize::from(which);
                let has_begun = members.iter().all(|ring| ring.fingerprints().contains(&key(2).fingerprint()));
                let stepped = match has_begun {
                    true => members[which].finish(),
                    false => members[which].begin(key(2)),
                };
                if let Ok(ring) = stepped {
                    members[which] = ring;
                }
                let [one, other] = members.each_ref().map(Keyring::fingerprints);
                prop_assert!(one.iter().any(|key| other.contains(key)), "{one:?} {other:?}");
            }
        }
    }
}
