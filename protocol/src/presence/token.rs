//! Presence tokens: a node's signature under "this indexer serves me in this epoch".
//!
//! A node gives one to each of its indexers with the first beat of an epoch, or a little later, so that the signatures of
//! a whole network do not come in one second. The indexer keeps those of this epoch and the last, and shows some when an
//! auditor asks.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::audit::{self, Salt};
use crate::{
    identity::Keys,
    record::check_signer,
    signed::{CLOCK_SKEW, SignedError, SignedObject, Verified},
    suggestions::KNOWN_MAX,
    wire::{RefusalCode, Refused},
};

/// An epoch, in seconds of unix time: long enough that a signature per indexer costs nothing, short enough that an
/// audit tells of now.
pub const EPOCH_SECS: i64 = 600;

/// Who was there in the last epoch signs within this time of the new one's start: three beats, so that every beat of a
/// node is one on which it may be asked to sign.
pub const SPREAD: Duration = Duration::from_secs(60);

/// How often one asker may see tokens in an epoch: twice as one of our nodes, once as an auditor that a hash chose, and again
/// after a restart of it.
pub const AUDITS_PER_ASKER: u8 = 4;

/// The number of the epoch: unix seconds ÷ 600, rounded down; 0 before 1970.
#[must_use]
pub fn epoch_of(at: Timestamp) -> u64 {
    u64::try_from(at.as_second().div_euclid(EPOCH_SECS)).unwrap_or(0)
}

/// When an epoch begins; the end of time for one that never does.
fn begins(epoch: u64) -> Timestamp {
    let second = i64::try_from(epoch).ok().and_then(|epoch| epoch.checked_mul(EPOCH_SECS));
    second.and_then(|second| Timestamp::from_second(second).ok()).unwrap_or(Timestamp::MAX)
}

/// One node's word that one indexer serves it in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceToken {
    /// The indexer.
    #[serde(with = "crate::wire::text")]
    pub indexer: PeerId,
    /// The node; derives from `pub_key`.
    #[serde(with = "crate::wire::text")]
    pub node: PeerId,
    /// Unix seconds ÷ 600.
    pub epoch: u64,
    /// Base64 of the raw 32 bytes.
    pub pub_key: String,
}

impl SignedObject for PresenceToken {
    const DOMAIN: &'static str = "muster-presence:1:";
    /// An honest one has 333 bytes; a newer version may say more.
    const BYTES_MAX: usize = 512;

    fn is_by(&self, keys: &Keys) -> bool {
        self.pub_key == keys.pub_key()
    }

    /// It is of this epoch or the last, the skew of clocks allowed on both sides.
    fn check(&self, now: Timestamp) -> Result<(), SignedError> {
        check_signer(&self.pub_key, &self.node, None)?;
        let ahead = now.checked_add(CLOCK_SKEW).unwrap_or(now);
        if self.epoch > epoch_of(ahead) {
            return Err(SignedError::FromFuture { time: begins(self.epoch), now, ahead_max: CLOCK_SKEW });
        }
        let behind = now.checked_sub(CLOCK_SKEW).unwrap_or(now);
        if self.epoch.saturating_add(1) < epoch_of(behind) {
            return Err(SignedError::Expired { expiry: begins(self.epoch.saturating_add(2)), now });
        }
        Ok(())
    }
}

/// When a node signs for one indexer, on one heartbeat stream.
#[derive(Clone, Debug)]
pub struct Presenter {
    /// The epoch whose token the indexer answered to.
    given: Option<u64>,
    /// The question that carries a token, and the token's epoch.
    asked: Option<(u64, u64)>,
    /// How long after the start of an epoch, seconds.
    delay: i64,
}

impl Presenter {
    /// Nothing given yet.
    #[must_use]
    pub fn new(rng: &mut impl Rng) -> Self {
        let spread = i64::try_from(SPREAD.as_secs()).unwrap_or(0);
        Self { given: None, asked: None, delay: rng.random_range(0..spread.max(1)) }
    }

    /// The epoch to sign for now; nothing when the indexer has its token, or it is not yet our turn in a new epoch. Who
    /// gave none for the last epoch gives one at once: its indexer counts it from its first beat.
    #[must_use]
    pub fn due(&self, signing_time: Timestamp) -> Option<u64> {
        let epoch = epoch_of(signing_time);
        if self.given == Some(epoch) {
            return None;
        }
        let is_continued = self.given.is_some_and(|given| given + 1 == epoch);
        let elapsed = signing_time.as_second() - begins(epoch).as_second();
        if is_continued && elapsed < self.delay { None } else { Some(epoch) }
    }

    /// The question `seq` carries the token of `epoch`.
    pub fn asked(&mut self, seq: u64, epoch: u64) {
        self.asked = Some((seq, epoch));
    }

    /// The question `seq` was answered: what it carried has arrived.
    pub fn answered(&mut self, seq: u64) {
        if let Some((_, epoch)) = self.asked.take_if(|(asked, _)| *asked == seq) {
            self.given = Some(epoch);
        }
    }
}

/// The tokens that an indexer was given.
///
/// Bounded by twice as many nodes as it has room for, in each of the epochs that may be asked for: sessions that came and
/// went are counted too. At the bound a newcomer's token is left out.
#[derive(Debug)]
pub struct Tokens {
    nodes_max: usize,
    by_epoch: BTreeMap<u64, HashMap<PeerId, Verified<PresenceToken>>>,
    askers: HashMap<PeerId, u8>,
    /// The epoch in which the askers are counted.
    counted: u64,
}

impl Tokens {
    /// None yet, at an indexer with room for `max_nodes`.
    #[must_use]
    pub fn new(max_nodes: u32) -> Self {
        let nodes_max = 2 * max_nodes.max(1) as usize;
        Self { nodes_max, by_epoch: BTreeMap::new(), askers: HashMap::new(), counted: 0 }
    }

    /// Keeps a token. Tells whether it was kept: not when its epoch is over, nor when there is no room.
    pub fn keep(&mut self, token: Verified<PresenceToken>, now: Timestamp) -> bool {
        self.forget(now);
        let ahead = now.checked_add(CLOCK_SKEW).unwrap_or(now);
        if token.epoch < oldest(now) || token.epoch > epoch_of(ahead) {
            return false;
        }
        let nodes = self.by_epoch.entry(token.epoch).or_default();
        if nodes.len() >= self.nodes_max && !nodes.contains_key(&token.node) {
            return false;
        }
        nodes.insert(token.node, token);
        true
    }

    /// Shows the tokens of the [`audit::SAMPLE`] nodes that the salt puts first, of `epoch` or the one before it, one per node.
    ///
    /// # Errors
    /// When the epoch is not this one, by our clock, or the asker asked too often in it.
    pub fn show(
        &mut self,
        asker: PeerId,
        salt: &Salt,
        epoch: u64,
        now: Timestamp,
    ) -> Result<Vec<Verified<PresenceToken>>, Refused> {
        self.forget(now);
        if !is_now(epoch, now) {
            let detail = format!("got a question about epoch {epoch}, this is {}", epoch_of(now));
            return Err(Refused::new(RefusalCode::Clock, detail));
        }
        self.count(asker, now)?;
        let newest = self.by_epoch.get(&epoch);
        let before = epoch.checked_sub(1).and_then(|before| self.by_epoch.get(&before));
        let is_renewed = |node: &PeerId| newest.is_some_and(|nodes| nodes.contains_key(node));
        let older = before.into_iter().flatten().filter(|(node, _)| !is_renewed(node));
        let nodes = newest.into_iter().flatten().chain(older).map(|(node, token)| (*node, token));
        Ok(audit::first(salt, nodes).into_iter().cloned().collect())
    }

    /// Nodes whose token of this epoch or the last is here; twice as many as there is room for at most.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.by_epoch.values().map(HashMap::len).max().unwrap_or(0)
    }

    fn forget(&mut self, now: Timestamp) {
        let oldest = oldest(now);
        self.by_epoch.retain(|epoch, _| *epoch >= oldest);
    }

    fn count(&mut self, asker: PeerId, now: Timestamp) -> Result<(), Refused> {
        let epoch = epoch_of(now);
        if self.counted != epoch {
            self.counted = epoch;
            self.askers.clear();
        }
        // Indexers, and our own nodes.
        let is_room = self.askers.len() < KNOWN_MAX + self.nodes_max || self.askers.contains_key(&asker);
        let asked = self.askers.get(&asker).copied().unwrap_or(0);
        if !is_room || asked >= AUDITS_PER_ASKER {
            let left = begins(epoch + 1).as_second() - now.as_second();
            let wait = u64::try_from(left).unwrap_or(0).max(1);
            return Err(Refused::new(RefusalCode::Limit, "too many audits in this epoch").retry_after(wait));
        }
        self.askers.insert(asker, asked + 1);
        Ok(())
    }
}

/// The oldest epoch that an auditor whose clock differs a little may still ask for.
fn oldest(now: Timestamp) -> u64 {
    epoch_of(now.checked_sub(CLOCK_SKEW).unwrap_or(now)).saturating_sub(1)
}

/// It is the epoch of now, the skew of clocks allowed.
fn is_now(epoch: u64, now: Timestamp) -> bool {
    let behind = epoch_of(now.checked_sub(CLOCK_SKEW).unwrap_or(now));
    let ahead = epoch_of(now.checked_add(CLOCK_SKEW).unwrap_or(now));
    (behind..=ahead).contains(&epoch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::identity::Keys;

    fn keys(number: u32) -> Keys {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        Keys::from_seed(seed)
    }

    /// In the middle of an epoch.
    fn now() -> Timestamp {
        begins(2_945_000) + Duration::from_secs(300)
    }

    fn token(number: u32, epoch: u64) -> Verified<PresenceToken> {
        let keys = keys(number);
        let token = PresenceToken {
            indexer: self::keys(0).peer_id(),
            node: keys.peer_id(),
            epoch,
            pub_key: keys.pub_key().to_owned(),
        };
        Verified::sign(&token, &keys)
    }

    #[test]
    fn a_token_is_of_this_epoch_or_the_last_with_30_s_of_skew_on_both_sides() {
        let epoch = epoch_of(now());
        let token = token(1, epoch);
        let open = |at: Timestamp| Verified::<PresenceToken>::open(token.text(), at).map_err(|error| error.refusal());
        let (begin, end) = (begins(epoch), begins(epoch + 2));
        assert!(open(begin - Duration::from_secs(30)).is_ok());
        assert_eq!(open(begin - Duration::from_secs(31)), Err(RefusalCode::Clock));
        assert!(open(end + Duration::from_secs(29)).is_ok());
        assert_eq!(open(end + Duration::from_secs(30)), Err(RefusalCode::Clock));
    }

    #[test]
    fn a_token_of_another_node_than_its_signer_is_a_strike() {
        let theirs = PresenceToken { node: keys(2).peer_id(), ..token(1, epoch_of(now())).value().clone() };
        let text = Verified::sign(&theirs, &keys(1)).text().to_string();
        assert!(Verified::<PresenceToken>::open(&text, now()).unwrap_err().is_strike());
    }

    #[test]
    fn a_token_is_shorter_than_its_limit() {
        let length = token(1, u64::from(u32::MAX)).text().len();
        assert!(length <= 340, "{length}");
    }

    #[test]
    fn a_node_signs_once_per_epoch_and_not_in_its_first_second() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut presenter = Presenter::new(&mut rng);
        let epoch = epoch_of(now());
        assert_eq!(presenter.due(now()), Some(epoch));
        presenter.asked(1, epoch);
        // Its answer did not come: it goes along again.
        assert_eq!(presenter.due(now()), Some(epoch));
        presenter.asked(2, epoch);
        presenter.answered(1);
        assert_eq!(presenter.due(now()), Some(epoch));
        presenter.answered(2);
        assert_eq!(presenter.due(now()), None);
        let next = begins(epoch + 1);
        presenter.delay = 40;
        assert_eq!(presenter.due(next + Duration::from_secs(39)), None);
        assert_eq!(presenter.due(next + Duration::from_secs(40)), Some(epoch + 1));
    }

    #[test]
    fn the_signatures_of_many_nodes_are_spread_over_a_minute() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut per_second = [0; 60];
        for _ in 0..6_000 {
            let delay = Presenter::new(&mut rng).delay;
            per_second[usize::try_from(delay).unwrap()] += 1;
        }
        assert!(per_second.iter().all(|count| (50..150).contains(count)), "{per_second:?}");
    }

    #[test]
    fn who_was_not_there_in_the_last_epoch_signs_with_its_first_beat() {
        let mut presenter = Presenter::new(&mut StdRng::seed_from_u64(3));
        presenter.delay = 59;
        let begin = begins(epoch_of(now()));
        assert!(presenter.due(begin).is_some());
        presenter.given = Some(epoch_of(now()) - 2);
        assert!(presenter.due(begin).is_some());
    }

    #[test]
    fn tokens_are_bounded_and_the_known_are_renewed_at_the_bound() {
        let mut tokens = Tokens::new(2);
        let epoch = epoch_of(now());
        for number in 1..=4 {
            assert!(tokens.keep(token(number, epoch), now()));
        }
        assert!(!tokens.keep(token(5, epoch), now()));
        assert!(tokens.keep(token(4, epoch), now()));
        assert!(tokens.keep(token(5, epoch - 1), now()));
        assert!(!tokens.keep(token(1, epoch - 2), now()));
        assert!(!tokens.keep(token(1, epoch + 1), now()));
        assert_eq!(tokens.nodes(), 4);
        tokens.forget(begins(epoch + 3));
        assert_eq!(tokens.nodes(), 0);
    }

    #[test]
    fn an_auditor_is_shown_each_node_once_and_at_most_32() {
        let mut tokens = Tokens::new(100);
        let epoch = epoch_of(now());
        for number in 1..=20 {
            tokens.keep(token(number, epoch), now());
            tokens.keep(token(number, epoch - 1), now());
        }
        let show = |tokens: &mut Tokens, asker| tokens.show(keys(asker).peer_id(), &[1; 32], epoch, now());
        assert_eq!(show(&mut tokens, 900).unwrap().len(), 20);
        for number in 21..=60 {
            tokens.keep(token(number, epoch - 1), now());
        }
        let shown = show(&mut tokens, 901).unwrap();
        assert_eq!(shown.len(), audit::SAMPLE);
        let worst = shown.iter().map(|token| audit::place(&[1; 32], &token.node)).max().unwrap();
        let better = (1..=60).filter(|number| audit::place(&[1; 32], &keys(*number).peer_id()) <= worst).count();
        assert_eq!(better, audit::SAMPLE);
    }

    #[test]
    fn an_asker_is_answered_four_times_an_epoch_and_about_no_other_epoch() {
        let mut tokens = Tokens::new(100);
        let epoch = epoch_of(now());
        let asker = keys(900).peer_id();
        for _ in 0..AUDITS_PER_ASKER {
            assert!(tokens.show(asker, &[1; 32], epoch, now()).is_ok());
        }
        let refused = tokens.show(asker, &[1; 32], epoch, now()).unwrap_err();
        assert_eq!((refused.refused, refused.retry_after), (RefusalCode::Limit, Some(300)));
        assert!(tokens.show(keys(901).peer_id(), &[1; 32], epoch, now()).is_ok());
        assert!(tokens.show(asker, &[1; 32], epoch + 1, begins(epoch + 1)).is_ok());
        let other = tokens.show(keys(902).peer_id(), &[1; 32], epoch - 1, begins(epoch + 1)).unwrap_err();
        assert_eq!(other.refused, RefusalCode::Clock);
    }
}
