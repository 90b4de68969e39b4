//! Settings that are fine alone and do not go together.

use std::{borrow::Cow, collections::BTreeSet};

use multiaddr::Protocol;
use protocol::profile::Profile;

use super::{
    Fault, Settings, excerpt_of, is_loopback,
    layers::{Layer, Part, Place},
    place_of,
};

/// Settings of which each is fine alone, and which do not go together.
pub(super) struct Contradiction {
    keys: &'static [&'static str],
    pub(super) why: Cow<'static, str>,
}

/// What the rule of the bus looks at together.
const BUS_KEYS: &[&str] = &[
    "bus.url",
    "bus.prefix",
    "bus.subjects",
    "bus.stream",
    "bus.durable",
    "bus.duplicate_window",
    "bus.stream_age_max",
    "bus.user",
    "bus.nkey_seed_file",
    "bus.creds_file",
];

/// Contradictions among the settings; those that rest on a bad value are left out.
pub(super) fn contradictions(settings: &Settings, bad: &BTreeSet<String>) -> Vec<Contradiction> {
    let mut found = Vec::new();
    let mut claim = |keys: &'static [&'static str], holds: bool, why: &'static str| {
        if !holds && !keys.iter().any(|key| bad.contains(*key)) {
            found.push(Contradiction { keys, why: Cow::Borrowed(why) });
        }
    };
    let Settings { network, pool, heartbeat, gate, behaviour, bus, store, supervision, .. } = settings;
    claim(
        &["network.profile", "network.listen", "network.port"],
        network.profile != Profile::Load || network.listeners().iter().all(is_loopback),
        "the profile \"load\" lifts the limits and is allowed only where every address of network.listen is loopback",
    );
    claim(
        &["network.next_port", "network.port", "network.listen"],
        network.next_port == 0
            || !network.listeners().iter().flatten().any(|part| part == Protocol::Tcp(network.next_port)),
        "network.next_port is listened on already: the next key needs a port of its own",
    );
    claim(
        &["pool.max_indexer", "pool.min_indexer"],
        pool.min_indexer <= pool.max_indexer,
        "pool.max_indexer is less than pool.min_indexer",
    );
    claim(
        &["pool.backoff_max", "pool.backoff_first"],
        pool.backoff_first <= pool.backoff_max,
        "pool.backoff_max is less than pool.backoff_first",
    );
    claim(
        &["pool.remembered_max", "store.members_max"],
        pool.remembered_max <= store.members_max,
        "pool.remembered_max is more than store.members_max",
    );
    claim(
        &["heartbeat.challenge_every_max", "heartbeat.challenge_every_min"],
        heartbeat.challenge_every_min <= heartbeat.challenge_every_max,
        "heartbeat.challenge_every_max is less than heartbeat.challenge_every_min",
    );
    claim(
        &["heartbeat.record_life", "heartbeat.every"],
        heartbeat.record_life >= 2 * heartbeat.every,
        "heartbeat.record_life is less than twice heartbeat.every: the record would expire between two beats",
    );
    claim(
        &["behaviour.peers_max", "gate.max_nodes"],
        u32::try_from(behaviour.peers_max / 2).is_ok_and(|most| most >= gate.max_nodes),
        "behaviour.peers_max is less than twice gate.max_nodes",
    );
    claim(
        &["supervision.pause_max", "supervision.pause_first"],
        supervision.pause_first <= supervision.pause_max,
        "supervision.pause_max is less than supervision.pause_first",
    );
    let keys = BUS_KEYS;
    if let Err(fault) = bus.check()
        && !keys.iter().any(|key| bad.contains(*key))
    {
        found.push(Contradiction { keys, why: Cow::Owned(fault.to_string()) });
    }
    found
}

/// A contradiction as a fault of the setting that somebody chose, since a default is nobody's fault.
pub(super) fn told(contradiction: &Contradiction, layers: &[Layer]) -> Fault {
    let mut places = contradiction.keys.iter().map(|key| (*key, place_of(layers, key)));
    let first =
        contradiction.keys.first().map_or((String::new(), Place::Default), |key| ((*key).to_owned(), Place::Default));
    let chosen = places.find(|(_, place)| *place != Place::Default).map(|(key, place)| (key.to_owned(), place));
    let (key, place) = chosen.unwrap_or(first);
    let excerpt = excerpt_of(layers, &key, Part::Value);
    Fault { key, place, why: contradiction.why.to_string(), excerpt }
}
