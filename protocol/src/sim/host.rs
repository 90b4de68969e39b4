//! The indexer's side of a member: what `actors/src/{registry,gate,suggestions}.rs` and `serve/` do between the rules.
//!
//! It has one book of other indexers where the daemon has two that are told the same.

use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::SignedDuration;
use libp2p_identity::PeerId;
use rand::{Rng as _, rngs::StdRng, seq::SliceRandom as _};

use super::{
    member::Own,
    message::{Signed, What},
    report::Kind as Sent,
    world::World,
};
use crate::{
    addr::Subnet,
    admission::{Admission, Conduct, TooLow},
    behaviour::{Behaviour, Kind, Offence},
    gate::{self, Cause, DRAINED_WAIT, Gate, LEAVING_WAIT, spread_secs},
    offload::{Load, Loads, Offload},
    record::{DIGEST_MAX, INDEXER_RECORD_LIFE, IndexerRecord, PeerRecord, digest},
    session::{BeatError, Presence, RecordError, Registry},
    signed::{SignedObject as _, Verified},
    suggestions::{FOUND_MAX, IndexerBook, Source},
    time::{Mono, Now},
    wire::{AddrInfo, Heartbeat, HeartbeatResponse, Protocol, RefusalCode, Refused, Role},
};

/// Those of the actors: of `registry`, `suggestions` and `gc`.
pub(super) const TICK: Duration = Duration::from_millis(250);
pub(super) const COLLECT_EVERY: Duration = Duration::from_secs(30);
const PUTS_AT_ONCE: usize = 16;
const COLLECT_MAX: usize = 4_096;
const LIST_EVERY: Duration = Duration::from_secs(60);
const LIST_EVERY_ALONE: Duration = Duration::from_secs(2);
const FILL_CHANGE: f64 = 0.05;
const COUNT_USUAL: u32 = 3;
const COUNT_MAX: u32 = 10;

/// Other indexers named to one that is turned away: `ALTERNATIVES` of `swarm/greet.rs`.
const ALTERNATIVES: usize = 2;

/// A look or a put at the DHT: some flights to and fro.
pub(super) const DHT_TAKES: Duration = Duration::from_millis(300);

/// What a look-up for a node found.
type Found = Option<Arc<Verified<PeerRecord>>>;

#[derive(Debug)]
pub(super) struct Host {
    pub(super) registry: Registry,
    /// Heartbeats are counted by the registry, everything else by the gate.
    beats: Behaviour,
    requests: Behaviour,
    buckets: Gate,
    admission: Admission,
    offload: Offload,
    pub(super) loads: Loads,
    is_drained: bool,
    pub(super) book: IndexerBook,
    /// Look-ups in the DHT for nodes, each for a stream: what was found, once it was.
    sought: BTreeMap<u32, (u64, Option<Found>)>,
    /// The stream of each peer, and the newest record that it was told to be held.
    streams: BTreeMap<u32, (u64, Option<u64>)>,
    /// The newest number taken from each peer.
    taken: BTreeMap<u32, u64>,
    own: Option<Arc<Verified<IndexerRecord>>>,
    is_stale: bool,
    is_looking: bool,
    pub(super) listed_at: Option<Mono>,
    counted: usize,
}

impl Host {
    pub(super) fn new(own: &Own, now: Now, world: &World) -> Self {
        let profile = world.scenario.profile;
        let settings = gate::Settings {
            sessions_per_subnet: profile.sessions_per_subnet(),
            sessions_in_all: profile.sessions_whole(),
            max_nodes: own.max_nodes,
        };
        let behaviour = || Behaviour::new(&world.scenario.behaviour, profile.requests_factor());
        Self {
            registry: Registry::new(own.max_nodes, now.wall),
            beats: behaviour(),
            requests: behaviour(),
            buckets: Gate::new(&settings),
            admission: Admission::new(world.scenario.behaviour.peers_max),
            offload: Offload::new(world.scenario.heartbeat.every),
            loads: Loads::default(),
            is_drained: false,
            sought: BTreeMap::new(),
            book: IndexerBook::new(own.peer, profile.is_diverse(), now.mono),
            streams: BTreeMap::new(),
            taken: BTreeMap::new(),
            own: None,
            is_stale: true,
            is_looking: false,
            listed_at: None,
            counted: 0,
        }
    }

    // Who comes.

    /// A peer said hello. Whoever is turned away for want of room is named others.
    pub(super) fn greet(
        &mut self,
        from: u32,
        subnet: Option<Subnet>,
        now: Now,
        rng: &mut StdRng,
        world: &mut World,
    ) -> Result<(), Refused> {
        let judged = self.judge(from, subnet, now, rng, world);
        judged.map_err(|mut refused| {
            if refused.refused == RefusalCode::Busy {
                refused.alternatives = self.book.pick(ALTERNATIVES, &world.id(from), now.wall, rng);
            }
            refused
        })
    }

    fn judge(
        &mut self,
        from: u32,
        subnet: Option<Subnet>,
        now: Now,
        rng: &mut StdRng,
        world: &mut World,
    ) -> Result<(), Refused> {
        let peer = world.id(from);
        if let Some(left) = self.requests.banned(&peer, None, now.mono) {
            return Err(Refused::new(RefusalCode::Banned, "banned here").retry_after(left.as_secs().max(1)));
        }
        let has_session = self.registry.has_session(&peer, now.mono);
        if self.registry.is_leaving() && !has_session {
            let secs = spread_secs(LEAVING_WAIT, rng);
            return Err(Refused::new(RefusalCode::Busy, "this indexer is leaving").retry_after(secs));
        }
        // Another indexer answers our searches without a session.
        if self.is_drained && !has_session && !world.is_indexer[from as usize] {
            let secs = spread_secs(DRAINED_WAIT, rng);
            return Err(Refused::new(RefusalCode::Busy, "this indexer lets its nodes go").retry_after(secs));
        }
        let Some(subnet) = subnet else { return Ok(()) };
        let sessions = self.registry.count() as usize;
        match self.buckets.admit_session(peer, subnet, has_session, sessions, now.mono, rng) {
            // Capacity counts sessions, not connections: another indexer answers our searches without one.
            Err(wait) if wait.cause == Cause::Full && world.is_indexer[from as usize] => Ok(()),
            judged => judged.map_err(gate::Wait::refusal),
        }
    }

    /// The connection to a peer is gone.
    pub(super) fn disconnected(&mut self, peer: u32) {
        self.streams.remove(&peer);
        self.sought.remove(&peer);
    }

    /// A peer said that it goes.
    pub(super) fn left(&mut self, own: &Own, peer: PeerId, now: Mono, world: &mut World) {
        self.buckets.expect_back(peer, now);
        self.end_session(own, &peer, "left", world);
        self.book.gone(&peer);
    }

    /// A peer was looked for by us and is not there.
    pub(super) fn lost(&mut self, own: &Own, peer: &PeerId, world: &mut World) {
        self.book.gone(peer);
        self.end_session(own, peer, "lost", world);
    }

    fn end_session(&mut self, own: &Own, peer: &PeerId, why: &str, world: &mut World) {
        self.offload.gone(peer);
        if self.registry.leave(peer).is_some() {
            let name = world.name(peer).to_owned();
            world.note(own.at, format_args!("session {name} ended: {why}"));
        }
    }

    /// Another indexer is connected.
    pub(super) fn met(&mut self, peer: &PeerId, now: Now) {
        self.book.back(peer, now.wall);
        self.book.met(peer, now.mono);
        self.listed_at = None;
    }

    // What they ask.

    /// A heartbeat, as `serve/heartbeat.rs` and the registry treat it.
    #[expect(clippy::too_many_arguments, reason = "one call, from one place")]
    pub(super) fn beat(
        &mut self,
        own: &Own,
        from: u32,
        stream: u64,
        mut heartbeat: Heartbeat,
        signed: Option<&Signed>,
        now: Now,
        rng: &mut StdRng,
        world: &mut World,
    ) -> Result<HeartbeatResponse, Refused> {
        let peer = world.id(from);
        let held = self.streams.get(&from).filter(|(known, _)| *known == stream).and_then(|(_, held)| *held);
        let carried = self.carried(&mut heartbeat, signed, held, now);
        self.admit(own, from, now.mono, world)?;
        let carried = carried?;
        let sought = heartbeat.challenge_did.take().is_some();
        let is_indexer = world.is_indexer[from as usize];
        let beat = self.registry.beat(peer, &heartbeat, is_indexer, &self.book, now, rng);
        let is_fault = matches!(&beat, Err(BeatError::NotYours { .. } | BeatError::Name(_) | BeatError::Did(_)));
        self.admission.beat(peer, if is_fault { Conduct::Bad } else { Conduct::Good }, now.mono);
        let beat = beat.map_err(|error| {
            self.blame(own, from, error.offence(), now, world);
            error.refusal(heartbeat.seq)
        })?;
        let mut answer = beat.answer;
        if let Some(signed) = carried.filter(|_| beat.presence != Presence::Probed) {
            let values = heartbeat.values.is_some().then(|| Arc::clone(&signed.values));
            match self.registry.record_verified(&peer, Arc::clone(&signed.record), values, now) {
                Ok(stored) => {
                    answer.record_seq = Some(stored.seq);
                    self.check_seq(own, from, stored.seq, world);
                }
                Err(error) => self.refused(own, from, &error, now, world)?,
            }
        }
        if beat.presence == Presence::Began {
            let count = self.registry.count();
            world.note(own.at, format_args!("session {} began, {count} in all", world.names[from as usize].clone()));
        }
        if beat.presence != Presence::Probed {
            self.offload.suggest(&peer, heartbeat.need == 0, &self.book, &mut answer, now.mono);
            self.streams.insert(from, (stream, answer.record_seq));
        }
        self.tell_sought(from, stream, &mut answer);
        if sought && !self.sought.contains_key(&from) {
            self.sought.insert(from, (stream, None));
            world.after(DHT_TAKES, own.at, What::Sought { by: from, stream });
        }
        Ok(answer)
    }

    /// The look-up for a node is over: its next beat on the same stream is told.
    pub(super) fn found_for(&mut self, own: &Own, by: u32, stream: u64, now: Now, world: &mut World) {
        let Some((_, found)) = self.sought.get_mut(&by).filter(|(asked, _)| *asked == stream) else { return };
        let record = world.dht.node(own.at, by, now.wall, &world.net);
        let bytes = record.as_ref().map_or(0, |record| record.text().len());
        world.traffic.count_many(Sent::Dht, 2, bytes + 128);
        *found = Some(record);
    }

    fn tell_sought(&mut self, from: u32, stream: u64, answer: &mut HeartbeatResponse) {
        // A stream that closed took its look-up along.
        if self.sought.get(&from).is_some_and(|(asked, found)| *asked != stream || found.is_some())
            && let Some((asked, Some(found))) = self.sought.remove(&from)
            && asked == stream
        {
            answer.dht_found = Some(found.is_some());
            answer.dht_payload = found.map(|record| record.to_raw());
        }
    }

    /// Too many beats, or too poor a presence and conduct: either is answered, and both count as being in touch.
    fn admit(&mut self, own: &Own, from: u32, now: Mono, world: &mut World) -> Result<(), Refused> {
        let peer = world.id(from);
        let counted = self.count_beat(own, from, now, world);
        let conduct = if counted.is_err() { Conduct::Bad } else { Conduct::Good };
        let judged = counted.and_then(|()| {
            self.admission.judge(&peer, now).map_err(|low| {
                if world.is_honest[from as usize] {
                    let TooLow { score, threshold } = low;
                    let from = world.names[from as usize].clone();
                    world.violated(own.at, format!("{from} is honest and refused: {score:.1} below {threshold:.1}"));
                }
                low.refusal()
            })
        });
        if judged.is_err() {
            self.admission.beat(peer, conduct, now);
        }
        judged
    }

    // Who is to move.

    pub(super) fn drain(&mut self, own: &Own, is_on: bool, now: Now, rng: &mut StdRng) {
        if mem::replace(&mut self.is_drained, is_on) != is_on {
            self.registry.set_drained(is_on);
            self.is_stale = true;
            self.offload_step(own, now, rng);
        }
    }

    /// Whom to ask to move now, by what we and the others carry.
    fn offload_step(&mut self, own: &Own, now: Now, rng: &mut StdRng) {
        let load = Load { sessions: self.registry.count(), capacity: own.max_nodes };
        let others = self.loads.others(&self.book, now);
        self.offload.step(load, &others, self.registry.stays(), self.is_drained, now.mono, rng);
    }

    /// What came along and is news. The signature was verified when it was made; the rest is checked here.
    fn carried<'a>(
        &self,
        heartbeat: &mut Heartbeat,
        signed: Option<&'a Signed>,
        held: Option<u64>,
        now: Now,
    ) -> Result<Option<&'a Signed>, Refused> {
        if heartbeat.record.take().is_none() {
            return Ok(None);
        }
        let Some(signed) = signed else { return Ok(None) };
        if held.is_some_and(|held| signed.record.seq <= held) && heartbeat.values.is_none() {
            return Ok(None);
        }
        let checked = signed.record.value().check(now.wall);
        checked.map_err(|error| Refused::new(error.refusal(), error.to_string()))?;
        Ok(Some(signed))
    }

    fn count_beat(&mut self, own: &Own, from: u32, now: Mono, world: &mut World) -> Result<(), Refused> {
        self.counted += 1;
        if self.counted >= COLLECT_MAX {
            self.counted = 0;
            self.beats.collect(now, COLLECT_MAX);
            self.admission.collect(now, COLLECT_MAX);
        }
        let refusal = self.beats.observe(world.id(from), Kind::Heartbeat, now).refusal();
        if refusal.is_some() && world.is_honest[from as usize] {
            let from = world.names[from as usize].clone();
            world.violated(own.at, format!("{from} is honest and beats above the limit"));
        }
        refusal.map_or(Ok(()), Err)
    }

    fn refused(
        &mut self,
        own: &Own,
        from: u32,
        error: &RecordError,
        now: Now,
        world: &mut World,
    ) -> Result<(), Refused> {
        world.note(own.at, format_args!("record of {} refused: {error}", world.names[from as usize].clone()));
        self.blame(own, from, error.offence(), now, world);
        match error {
            RecordError::Did(_) | RecordError::NotYours { .. } => {
                Err(Refused::new(RefusalCode::NotYours, error.to_string()))
            }
            _ => Ok(()),
        }
    }

    fn blame(&mut self, own: &Own, from: u32, offence: Option<Offence>, now: Now, world: &mut World) {
        let Some(offence) = offence else { return };
        self.admission.offended(world.id(from), now.mono);
        let ban = self.requests.offend(world.id(from), offence, now);
        if world.is_honest[from as usize] {
            let from = world.names[from as usize].clone();
            world
                .violated(own.at, format!("{from} is honest and is blamed for {offence:?}, banned: {}", ban.is_some()));
        }
    }

    fn check_seq(&mut self, own: &Own, from: u32, seq: u64, world: &mut World) {
        let before = self.taken.insert(from, seq).unwrap_or_default();
        if seq < before {
            let from = world.names[from as usize].clone();
            world.violated(own.at, format!("the record of {from} went back from {before} to {seq}"));
        }
    }

    /// A question for candidates.
    pub(super) fn candidates(
        &mut self,
        own: &Own,
        from: u32,
        count: u32,
        now: Now,
        rng: &mut StdRng,
        world: &mut World,
    ) -> Vec<AddrInfo> {
        let peer = world.id(from);
        if !self.is_within(own, from, Protocol::Candidates, now, world) || !self.is_known(own, from, now, world) {
            return Vec::new();
        }
        let count = if (1..=COUNT_MAX).contains(&count) { count } else { COUNT_USUAL };
        self.book.pick(count as usize, &peer, now.wall, rng)
    }

    /// A question to a witness: of whoever has us in its pool, or is in ours.
    pub(super) fn may_ask(&mut self, own: &Own, from: u32, is_member: bool, now: Now, world: &mut World) -> bool {
        self.is_within(own, from, Protocol::Witness, now, world) && (is_member || self.is_known(own, from, now, world))
    }

    fn is_within(&mut self, own: &Own, from: u32, protocol: Protocol, now: Now, world: &mut World) -> bool {
        let Some(kind) = Kind::of(protocol) else { return true };
        let is_within = self.requests.observe(world.id(from), kind, now.mono).refusal().is_none();
        if !is_within && world.is_honest[from as usize] {
            let from = world.names[from as usize].clone();
            world.violated(own.at, format!("{from} is honest and asks above the limit"));
        }
        is_within
    }

    fn is_known(&self, own: &Own, from: u32, now: Now, world: &World) -> bool {
        let has_session = self.registry.has_session(&world.id(from), now.mono);
        has_session || world.dht.has_node(own.at, from, now.wall, &world.net)
    }

    // Its own duties.

    pub(super) fn tick(
        &mut self,
        own: &Own,
        born_at: jiff::Timestamp,
        seq: &mut u64,
        now: Now,
        rng: &mut StdRng,
        world: &mut World,
    ) {
        self.beats.awake(now.mono);
        self.requests.awake(now.mono);
        self.put_when_due(own, now, world);
        if self.offload.is_due(now.mono) {
            self.offload_step(own, now, rng);
        }
        let told = self.own.as_ref().map_or(0.0, |own| own.fill_rate);
        self.is_stale |= !self.is_drained && (self.registry.fill_rate() - told).abs() >= FILL_CHANGE;
        self.list_when_due(own, now, world);
        self.sign_when_due(own, born_at, seq, now, rng, world);
        self.look_when_due(own, now, world);
        world.after(TICK, own.at, What::Host);
    }

    fn put_when_due(&mut self, own: &Own, now: Now, world: &mut World) {
        if self.registry.next_put().is_none_or(|due| due > now.mono) {
            return;
        }
        for put in self.registry.puts_due(now, PUTS_AT_ONCE) {
            let record = &put.record;
            let Some(node) = world.at(&record.peer_id) else { continue };
            let is_done = world.dht.put_node(own.at, node, record, &world.net);
            world.traffic.count_many(
                Sent::Dht,
                2 * super::dht::HOLDERS * 3,
                super::dht::HOLDERS * 2 * record.text().len(),
            );
            world.after(DHT_TAKES, own.at, What::Put { node, seq: record.seq, is_done });
        }
    }

    fn list_when_due(&mut self, own: &Own, now: Now, world: &mut World) {
        let is_due = self.listed_at.is_none_or(|at| {
            let age = now.mono.since(at);
            age >= LIST_EVERY || (self.book.is_empty() && age >= LIST_EVERY_ALONE)
        });
        if is_due {
            self.listed_at = Some(now.mono);
            world.dht.list(own.at, world.now, &world.net);
            world.traffic.count_many(Sent::Dht, 2 * super::dht::HOLDERS, 128 * super::dht::HOLDERS);
        }
    }

    fn sign_when_due(
        &mut self,
        own: &Own,
        born_at: jiff::Timestamp,
        seq: &mut u64,
        now: Now,
        rng: &mut StdRng,
        world: &mut World,
    ) {
        let half = SignedDuration::try_from(INDEXER_RECORD_LIFE / 2).unwrap_or_default();
        let is_fresh = |own: &Arc<Verified<IndexerRecord>>| own.expiry_date.duration_since(now.wall) > half;
        if !self.is_stale && self.own.as_ref().is_some_and(is_fresh) {
            return;
        }
        self.is_stale = false;
        *seq = next_seq(*seq, now);
        let mut salt = [0; 16];
        rng.fill_bytes(&mut salt);
        let (some, _) = self.registry.views(0, DIGEST_MAX);
        let record = IndexerRecord {
            peer_id: own.peer,
            addrs: vec![own.addr.clone()],
            region: String::new(),
            // Without room: nobody suggests it, and those that know no such rule take it for full.
            capacity: if self.is_drained { 0 } else { own.max_nodes },
            fill_rate: if self.is_drained { 1.0 } else { self.registry.fill_rate() },
            peer_count: self.registry.count(),
            salt: BASE64.encode(salt),
            peers_digest: some.iter().map(|session| digest(&salt, &session.peer)).collect(),
            born_at,
            expiry_date: now.wall.checked_add(INDEXER_RECORD_LIFE).unwrap_or(now.wall),
            seq: *seq,
            pub_key: own.keys.pub_key().to_owned(),
        };
        let signed = Arc::new(Verified::sign(&record, &own.keys));
        world.dht.put_indexer(own.at, &signed, &world.net);
        world.traffic.count_many(Sent::Dht, 2 * super::dht::HOLDERS, signed.text().len() * super::dht::HOLDERS);
        self.own = Some(signed);
    }

    fn look_when_due(&mut self, own: &Own, now: Now, world: &mut World) {
        if !self.is_looking && self.book.next_refresh() <= now.mono {
            self.is_looking = true;
            world.after(DHT_TAKES, own.at, What::Found);
        }
    }

    /// The DHT answers.
    pub(super) fn found(&mut self, own: &Own, now: Now, rng: &mut StdRng, world: &mut World) {
        self.is_looking = false;
        for record in look(own, now, rng, world) {
            self.book.learn(Verified::clone(&record), Source::Dht, now.wall);
        }
        self.book.refreshed(now, rng);
    }

    pub(super) fn put_ended(&mut self, peer: &PeerId, seq: u64, is_done: bool, now: Now) {
        if !is_done {
            self.registry.put_failed(peer, seq, now.mono);
        }
    }

    pub(super) fn set_own(&mut self, signed: &Signed, now: Now) {
        self.registry.set_own(Arc::clone(&signed.record), Some(Arc::clone(&signed.values)), now.mono);
    }

    pub(super) fn collect(&mut self, own: &Own, now: Now, world: &mut World) {
        for departed in self.registry.collect(now.mono, COLLECT_MAX).departed {
            let name = world.name(&departed.peer).to_owned();
            self.offload.gone(&departed.peer);
            world.note(own.at, format_args!("session {name} ended: silent"));
            if let Some(at) = world.at(&departed.peer) {
                self.taken.remove(&at);
            }
        }
        world.after(COLLECT_EVERY, own.at, What::Collect);
    }

    /// Takes nobody new from now on; those who have a session are to hear a word of leaving.
    pub(super) fn leave(&mut self) -> Vec<PeerId> {
        self.registry.set_leaving();
        self.registry.views(0, usize::MAX).0.into_iter().map(|session| session.peer).collect()
    }

    /// Those whom it serves.
    pub(super) fn nodes(&self) -> impl Iterator<Item = PeerId> {
        self.registry.stays().map(|stay| stay.peer)
    }

    /// What must stay within its bounds, and does not.
    pub(super) fn unbounded(&self, own: &Own) -> Option<String> {
        let sessions = self.registry.count();
        if sessions > own.max_nodes {
            return Some(format!("{sessions} sessions, expected at most {}", own.max_nodes));
        }
        let bounds = [
            ("places", self.buckets.places(), gate::PLACES_MAX),
            ("indexers known", self.book.len(), crate::suggestions::KNOWN_MAX),
            (
                "peers counted",
                self.beats.len().max(self.requests.len()),
                crate::behaviour::Settings::default().peers_max,
            ),
        ];
        bounds
            .into_iter()
            .find(|(_, len, max)| len > max)
            .map(|(what, len, max)| format!("{len} {what}, expected at most {max}"))
    }
}

/// Verified records of up to 30 indexers that are listed, as `actors/src/discover.rs` looks for them.
pub(super) fn look(own: &Own, now: Now, rng: &mut StdRng, world: &mut World) -> Vec<Arc<Verified<IndexerRecord>>> {
    let mut found = world.dht.indexers(own.at, world.now, now.wall, &world.net);
    found.shuffle(rng);
    found.truncate(FOUND_MAX);
    let bytes: usize = found.iter().map(|record| record.text().len()).sum();
    world.traffic.count_many(Sent::Dht, 2 * (1 + found.len()), bytes + 128);
    found
}

/// The next number to sign with: never back, and past a lost memory by the clock.
pub(super) fn next_seq(stored: u64, now: Now) -> u64 {
    (stored + 1).max(u64::try_from(now.wall.as_millisecond()).unwrap_or_default())
}

/// The role in the words of the wire.
pub(super) fn role(is_indexer: bool) -> Role {
    Role { node: !is_indexer, indexer: is_indexer }
}

/// Shared, since every heartbeat carries it.
pub(super) type Carried = Option<Arc<Signed>>;
