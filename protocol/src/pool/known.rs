//! What is kept of a peer: of a member, and of one that is only known.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    time::Duration,
};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use rand::Rng;

use super::Why;
use crate::{
    addr::Subnet,
    heartbeat::{Rhythm, jittered},
    offload::FILL_HIGH,
    time::Mono,
};

/// More addresses of one peer are not kept: a record's most.
pub(super) const ADDRS_MAX: usize = 8;

/// A candidate that only others spoke of is dropped after this many failed probes in a row and once nobody spoke of it
/// for [`HEARSAY_LIFE`]; earlier it would be heard of again and probed as if it were new.
pub(super) const HEARSAY_FAILURES_MAX: u32 = 3;

/// A candidate of which nobody spoke for this long makes room for others.
pub(super) const HEARSAY_LIFE: Duration = Duration::from_secs(600);

/// A remembered indexer is forgotten after this many failed probes in a row while others answered, and once nobody spoke of
/// it for [`REMEMBERED_LIFE`]: until a split heals all tries to reach the other half fail.
pub(super) const REMEMBERED_FAILURES_MAX: u32 = 16;

/// See [`REMEMBERED_FAILURES_MAX`].
pub(super) const REMEMBERED_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// A successful probe is good for this many refreshes.
pub(super) const REFRESHES_GOOD: u32 = 2;

/// How long the pause between probes of a peer that is away gets: a seed's, and any other's.
pub(super) const SEED_PAUSE_MAX: Duration = Duration::from_secs(60);

const OTHER_PAUSE_MAX: Duration = Duration::from_secs(600);

/// Where a candidate was heard of; each source has its own bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Configured,
    Indexer(PeerId),
    Dht,
    Local,
    Inbound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Life {
    Joining { since: Mono },
    Answering,
    Suspect { since: Mono },
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) about: About,
    pub(super) life: Life,
    pub(super) sticky: bool,
    pub(super) missed: u32,
    /// It asked us to move, or said that it goes.
    pub(super) leaving: Option<Why>,
    /// Since when it has asked us to move, and until when we do not hear it: nobody came in its place.
    pub(super) asked: Option<Mono>,
    pub(super) deaf_until: Mono,
    pub(super) is_busy: bool,
    /// When it answered last, or was taken in.
    pub(super) heard: Mono,
    pub(super) is_told_referent: bool,
    pub(super) low: Option<f64>,
}

/// What is kept of a peer whether it is a member or not.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) addrs: Vec<Multiaddr>,
    pub(super) seed: bool,
    pub(super) remembered: bool,
    pub(super) source: Source,
    pub(super) fill_rate: Option<f64>,
    pub(super) rhythm: Rhythm,
    /// Others reach it while we do not: it is probed and not forgotten, until it answers or has failed for long.
    pub(super) is_vouched: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) about: About,
    /// The last member, kept though its restarts are used up.
    pub(super) kept: bool,
    pub(super) probing: Option<Mono>,
    pub(super) good: Option<Good>,
    /// Failed probes in a row.
    pub(super) failures: u32,
    /// Pause after a failure; not kept to while nobody answers.
    pub(super) not_before: Mono,
    /// It was evicted, or asked us to move; not kept to while nobody answers.
    pub(super) rests_until: Mono,
    /// When it was last spoken of.
    pub(super) heard: Mono,
    pub(super) probed_last: Option<Mono>,
}

/// Everybody who is known. Most of them were only heard of, and nothing is due about them until somebody writes to one; the
/// others are awake. What a look at those showed is kept until one of them changes: whoever can write to one is taken to have
/// done so.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    by_id: BTreeMap<PeerId, Known>,
    awake: BTreeSet<PeerId>,
    /// All are taken to be awake.
    is_stirred: bool,
    seen: Option<Seen>,
}

/// What a look at everybody showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) at: Mono,
    /// From then on time itself may have changed it; never where absent.
    pub(super) until: Option<Mono>,
    /// When something may be due about one of them.
    pub(super) due: Option<Mono>,
    /// Candidates that are good, and those that are being probed.
    pub(super) at_hand: usize,
    /// Nobody was worth a probe but for more candidates.
    pub(super) is_at_rest: bool,
}

impl Peers {
    /// Those about whom something may be due, now or ever, in the order of their ids.
    pub(super) fn awake(&self) -> impl Iterator<Item = (&PeerId, &Known)> {
        let all = self.is_stirred.then(|| self.by_id.iter());
        let some = (!self.is_stirred).then(|| self.awake.iter().filter_map(|peer| self.by_id.get_key_value(peer)));
        all.into_iter().flatten().chain(some.into_iter().flatten())
    }

    /// Lets those sleep about whom nothing is due.
    pub(super) fn settle(&mut self, is_idle: impl Fn(&Known) -> bool) {
        if std::mem::take(&mut self.is_stirred) {
            let awake = self.by_id.iter().filter(|(_, known)| !is_idle(known));
            self.awake = awake.map(|(peer, _)| *peer).collect();
        } else {
            let by_id = &self.by_id;
            self.awake.retain(|peer| by_id.get(peer).is_some_and(|known| !is_idle(known)));
        }
    }

    /// What the last look showed, where it still holds.
    pub(super) fn seen(&self, now: Mono) -> Option<Seen> {
        self.seen.filter(|seen| seen.at <= now && seen.until.is_none_or(|until| now < until))
    }

    pub(super) fn look(&mut self, seen: Seen) {
        self.seen = Some(seen);
    }

    /// Anything about anybody may have changed.
    pub(super) fn stir(&mut self) {
        self.is_stirred = true;
        self.seen = None;
    }

    pub(super) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut Known> {
        let known = self.by_id.get_mut(peer)?;
        self.awake.insert(*peer);
        self.seen = None;
        Some(known)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&PeerId, &mut Known)> {
        self.stir();
        self.by_id.iter_mut()
    }

    pub(super) fn insert(&mut self, peer: PeerId, known: Known) {
        self.by_id.insert(peer, known);
        self.awake.insert(peer);
        self.seen = None;
    }

    pub(super) fn remove(&mut self, peer: &PeerId) -> Option<Known> {
        self.awake.remove(peer);
        self.seen = None;
        self.by_id.remove(peer)
    }
}

impl Deref for Peers {
    type Target = BTreeMap<PeerId, Known>;

    fn deref(&self) -> &Self::Target {
        &self.by_id
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Good {
    pub(super) score: f64,
    pub(super) at: Mono,
}

/// A growing pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) pause: Duration,
    pub(super) at: Mono,
}

impl Backoff {
    pub(super) fn first(pause: Duration, now: Mono, rng: &mut impl Rng) -> Self {
        Self { pause, at: now + pause + jittered(pause, 0.1, rng) }
    }

    pub(super) fn next(self, most: Duration, now: Mono, rng: &mut impl Rng) -> Self {
        Self::first((self.pause * 2).min(most), now, rng)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ladder {
    pub(super) from: Mono,
    pub(super) step: usize,
}

impl About {
    /// Of the address that is tried first.
    pub(super) fn subnet(&self) -> Option<Subnet> {
        self.addrs.first().and_then(Subnet::of_addr)
    }
}

impl Known {
    pub(super) fn new(source: Source, fill_rate: Option<f64>) -> Self {
        let about = About {
            addrs: Vec::new(),
            seed: false,
            remembered: false,
            source,
            fill_rate,
            rhythm: Rhythm::default(),
            is_vouched: false,
        };
        Self {
            about,
            kept: false,
            probing: None,
            good: None,
            failures: 0,
            not_before: Mono::ZERO,
            rests_until: Mono::ZERO,
            heard: Mono::ZERO,
            probed_last: None,
        }
    }

    pub(super) fn gone(member: Member) -> Self {
        Self { about: member.about, ..Self::new(Source::Configured, None) }
    }

    /// Only others spoke of it.
    pub(super) fn is_hearsay(&self) -> bool {
        self.is_forgettable() && !self.about.remembered
    }

    /// It did not fail, and we did not give it up a while ago.
    pub(super) fn is_open(&self, now: Mono) -> bool {
        self.failures == 0 && self.rests_until <= now
    }

    /// It is worth no probes for its own sake once it failed.
    pub(super) fn is_forgettable(&self) -> bool {
        !self.about.seed && !self.kept && !self.about.is_vouched
    }

    pub(super) fn fail(&mut self, pause: Duration, now: Mono, rng: &mut impl Rng) {
        let most = if self.is_forgettable() { OTHER_PAUSE_MAX } else { SEED_PAUSE_MAX };
        let pause = pause.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + pause + jittered(pause, 0.1, rng);
    }
}

pub(super) fn best_first(mut good: Vec<(PeerId, Good)>) -> Vec<(PeerId, Mono)> {
    good.sort_by(|(_, one), (_, other)| other.score.total_cmp(&one.score));
    good.into_iter().map(|(peer, good)| (peer, good.at)).collect()
}

pub(super) fn is_usable_member(member: &Member) -> bool {
    member.life == Life::Answering && member.leaving.is_none()
}

/// It says so itself.
pub(super) fn is_full_member(member: &Member) -> bool {
    member.about.fill_rate.is_some_and(|fill_rate| fill_rate > FILL_HIGH)
}

/// An unknown score is neither praise nor guilt.
pub(super) fn rank(member: &Member) -> f64 {
    member.low.unwrap_or(50.0)
}

/// Puts addresses that the peer itself names before older ones; tells whether one of them is new.
pub(super) fn renew(addrs: &mut Vec<Multiaddr>, mut named: Vec<Multiaddr>) -> bool {
    let is_new = named.iter().any(|addr| !addrs.contains(addr));
    merge(&mut named, std::mem::take(addrs));
    *addrs = named;
    is_new
}

/// Adds addresses up to the most; tells whether one of them is new.
pub(super) fn merge(addrs: &mut Vec<Multiaddr>, more: Vec<Multiaddr>) -> bool {
    let before = addrs.len();
    for addr in more {
        if addrs.len() < ADDRS_MAX && !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    addrs.len() > before
}
