//! The part of the DHT that is held here: what is valid, within the quotas of those who signed it.

use std::{collections::HashMap, time::Duration};

use libp2p::PeerId;
use protocol::{
    Timestamp,
    dht::{Key, Put, Quota, Settings, Valid, admit},
    time::Now,
};

/// Values held: 4,000 nodes with three keys each, and room; at 1 KiB a value 16 MiB.
pub(super) const VALUES_MAX: usize = 16 * 1024;

/// Why a value is not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Declined {
    /// It brings nothing new.
    #[error("it brings nothing new")]
    Known,
    /// Its DID is bound to another key.
    #[error("its DID is bound to another key")]
    OtherKey,
    /// Its owner, or the shelf, has no room.
    #[error("over a quota")]
    Quota,
}

/// The shelf.
pub(super) struct Shelf {
    values: HashMap<Key, Valid>,
    quota: Quota,
}

impl Shelf {
    pub(super) fn new(settings: Settings) -> Self {
        Self { values: HashMap::new(), quota: Quota::new(settings) }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Valid> {
        self.values.get(key)
    }

    /// Takes a valid value in, or says why not; what is then held.
    pub(super) fn place(&mut self, key: &Key, value: Valid, now: Now) -> Result<&Valid, Declined> {
        let (value, charged) = match admit(key, self.values.get(key), value, now.wall) {
            Put::Replace(value) => {
                let owners = value.owners();
                (value, owners)
            }
            Put::Merge { value, changed } => (value, changed),
            Put::Keep => return Err(Declined::Known),
            Put::OtherKey => return Err(Declined::OtherKey),
        };
        if !self.values.contains_key(key) && self.values.len() >= VALUES_MAX {
            return Err(Declined::Quota);
        }
        let life = life(&value, now.wall);
        self.charge(key, charged, life, now)?;
        Ok(self.values.entry(key.clone()).insert_entry(value).into_mut())
    }

    fn charge(&mut self, key: &Key, owners: Vec<PeerId>, life: Duration, now: Now) -> Result<(), Declined> {
        for owner in owners {
            self.quota.charge(owner, key, life, now.mono).map_err(|_| Declined::Quota)?;
        }
        Ok(())
    }

    /// Drops what this owner signed; of a name, its claim. What is left under each key that held anything of it.
    pub(super) fn disown(&mut self, owner: &PeerId) -> Vec<(Key, Option<Valid>)> {
        let held = self.values.iter().filter(|(_, value)| value.owners().contains(owner));
        let keys: Vec<Key> = held.map(|(key, _)| key.clone()).collect();
        let mut left = Vec::with_capacity(keys.len());
        for key in keys {
            let rest = self.values.remove(&key).and_then(|value| value.without(|peer| peer == owner));
            if let Some(rest) = &rest {
                self.values.insert(key.clone(), rest.clone());
            }
            left.push((key, rest));
        }
        left
    }

    /// Drops what is over; how many.
    pub(super) fn sweep(&mut self, now: Now) -> usize {
        let before = self.values.len();
        self.values.retain(|_, value| value.expiry_date() > now.wall);
        self.quota.sweep(now.mono);
        before - self.values.len()
    }
}

/// How long a value still lives.
pub(super) fn life(value: &Valid, now: Timestamp) -> Duration {
    Duration::try_from(value.expiry_date().duration_since(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use protocol::{
        dht::validate,
        identity::Keys,
        record::{PEER_RECORD_LIFE, PeerRecord},
        signed::Verified,
        time::Mono,
    };

    use super::*;

    fn now() -> Now {
        Now { mono: Mono::from_secs(1), wall: Timestamp::from_second(1_800_000_000).unwrap() }
    }

    fn record(seed: u8, seq: u64) -> (Key, Valid) {
        let keys = Keys::from_seed([seed; 32]);
        let did = keys.did();
        let record = PeerRecord {
            name: format!("node-{seed}"),
            did: did.to_string(),
            pub_key: keys.pub_key().to_owned(),
            peer_id: keys.peer_id(),
            api_url: String::new(),
            stream_address: String::new(),
            addrs: Vec::new(),
            nats_address: String::new(),
            wallet_address: String::new(),
            capabilities: Vec::new(),
            born_at: now().wall,
            expiry_date: now().wall.checked_add(PEER_RECORD_LIFE).unwrap(),
            seq,
        };
        let key = Key::Node(did);
        let signed = Verified::sign(&record, &keys);
        let valid = validate(&key, signed.text().as_bytes(), None, now().wall).unwrap();
        (key, valid)
    }

    #[test]
    fn a_newer_value_takes_the_place_and_an_older_one_changes_nothing() {
        let mut shelf = Shelf::new(Settings::default());
        let (key, first) = record(1, 1);
        let (_, second) = record(1, 2);
        assert!(shelf.place(&key, first.clone(), now()).is_ok());
        assert_eq!(shelf.place(&key, second.clone(), now()), Ok(&second));
        assert_eq!(shelf.place(&key, first, now()), Err(Declined::Known));
        assert_eq!(shelf.get(&key), Some(&second));
    }

    #[test]
    fn an_owner_over_its_writes_is_declined_and_others_are_not() {
        let settings = Settings { writes_per_owner: 2, ..Settings::default() };
        let mut shelf = Shelf::new(settings);
        for seq in 1..=2 {
            let (key, value) = record(1, seq);
            assert!(shelf.place(&key, value, now()).is_ok());
        }
        let (key, value) = record(1, 3);
        assert_eq!(shelf.place(&key, value, now()), Err(Declined::Quota));
        let (key, value) = record(2, 1);
        assert!(shelf.place(&key, value, now()).is_ok());
    }

    #[test]
    fn what_a_revoked_key_signed_is_dropped_and_nothing_else() {
        let mut shelf = Shelf::new(Settings::default());
        let (theirs, value) = record(1, 1);
        shelf.place(&theirs, value.clone(), now()).unwrap();
        let (others, kept) = record(2, 1);
        shelf.place(&others, kept.clone(), now()).unwrap();
        assert_eq!(shelf.disown(&value.owners()[0]), [(theirs.clone(), None)]);
        assert_eq!((shelf.get(&theirs), shelf.get(&others)), (None, Some(&kept)));
        assert_eq!(shelf.disown(&value.owners()[0]), []);
    }

    #[test]
    fn what_is_over_is_swept() {
        let mut shelf = Shelf::new(Settings::default());
        let (key, value) = record(1, 1);
        shelf.place(&key, value, now()).unwrap();
        assert_eq!(shelf.sweep(now()), 0);
        let later = Now { wall: now().wall.checked_add(PEER_RECORD_LIFE).unwrap(), ..now() };
        assert_eq!(shelf.sweep(later), 1);
        assert_eq!(shelf.get(&key), None);
    }
}
