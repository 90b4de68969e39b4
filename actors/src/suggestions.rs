//! Suggestions: the other indexers, found, kept fresh and told; and ourselves, told to them.
//!
//! Owns [`protocol::suggestions::IndexerBook`] and our own `IndexerRecord`. It asks the DHT for others, lists us there,
//! and tells registry, relay, presence and health whom it knows; gate tells it whether we are drained, auditor whom not to
//! suggest. A restart forgets the book; the next look at the DHT fills it.
//! Bounds: the book's; one look and one put under way.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::SignedDuration;
use libp2p::Multiaddr;
use protocol::{
    PeerId, Timestamp,
    dht::{self, Valid},
    record::{INDEXER_RECORD_LIFE, IndexerRecord, digest},
    signed::{CLOCK_SKEW, Verified},
    suggestions::{IndexerBook, Learned, Source},
    time::Mono,
    wire::AddrInfo,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::{Rng as _, rngs::StdRng};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use crate::{
    auditor, claim,
    context::{Context, inform},
    discover, health, presence, registry, store,
    supervision::{Class, Envelope, Reply, Seat, Timer},
    swarm,
};

/// How often it is seen whether something is due.
const TICK: Duration = Duration::from_millis(500);

/// The registry samples and the store writes a sequence down within this, or one of them has died with the question.
const SIGN_WITHIN: Duration = Duration::from_secs(5);

/// A listing lives three minutes; two may be lost.
const LIST_EVERY: Duration = Duration::from_secs(60);

/// The fill rate must change by so much before the record is worth putting again.
const FILL_CHANGE: f64 = 0.05;

/// The actor.
pub struct Suggestions;

/// What one life is given.
pub struct Args {
    /// Its seat.
    pub seat: Seat<Msg>,
    /// The daemon's.
    pub context: Context,
}

/// What it holds.
pub struct State {
    seat: Seat<Msg>,
    context: Context,
    rng: StdRng,
    book: IndexerBook,
    looking: Option<AbortOnDropHandle<()>>,
    addrs: Vec<Multiaddr>,
    /// How far the time to sign with is ahead of our clock.
    clock_offset: SignedDuration,
    census: registry::Census,
    /// Of our sessions, drawn for the record that is being made.
    sample: Vec<PeerId>,
    is_drained: bool,
    own: Option<Verified<IndexerRecord>>,
    is_stale: bool,
    /// When a record was begun: a registry or a store that died with its question is asked again.
    signing_since: Option<Mono>,
    listed_at: Option<Mono>,
    told: u32,
    timer: Timer,
}

/// What it is told and asked.
pub enum Msg {
    /// We can be reached here.
    Reachable {
        /// Without `/p2p/`.
        addrs: Vec<Multiaddr>,
    },
    /// The time to sign with.
    Clock {
        /// How far it is ahead of our clock.
        offset: SignedDuration,
    },
    /// So many sessions are there.
    Counted(registry::Census),
    /// Some of our sessions, for the record that is being made.
    Sampled(Vec<PeerId>),
    /// Our next sequence is on disk.
    Seq(Option<u64>),
    /// The DHT named these.
    Found(Vec<Verified<IndexerRecord>>),
    /// One that was heard of has a record.
    Learned(Box<Verified<IndexerRecord>>),
    /// An indexer was met: look soon.
    Met {
        /// Who.
        peer: PeerId,
    },
    /// An indexer said that it goes.
    Gone {
        /// Who.
        peer: PeerId,
    },
    /// By our audits these claim far more nodes than they have, and nobody else does.
    Exposed(Vec<PeerId>),
    /// Some are wanted.
    Pick {
        /// How many.
        count: u32,
        /// Not this one.
        besides: PeerId,
        /// Addresses.
        reply: Reply<Vec<AddrInfo>>,
    },
    /// Everybody who should answer a search is wanted.
    Roll(Reply<Arc<[PeerId]>>),
    /// An operator lets our nodes go, or no longer: our record says so.
    Drained(bool),
    /// Health began a life and wants to know how many are known.
    TellHealth,
    /// The registry began a life and wants to know whom to suggest.
    TellRegistry,
    /// See whether something is due.
    Tick,
}

impl Actor for Suggestions {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let own = &context.own;
        let book = IndexerBook::new(own.peer_id, own.profile.is_diverse(), seat.now().mono);
        inform(&context.addresses.peers, Class::Control, crate::peers::Msg::TellListening);
        inform(&context.addresses.registry, Class::Control, registry::Msg::TellCounts);
        inform(&context.addresses.gate, Class::Control, crate::gate::Msg::TellPolicy);
        inform(&context.addresses.auditor, Class::Control, auditor::Msg::TellExposed);
        inform(&context.addresses.claim, Class::Control, claim::Msg::TellSuggestions);
        let timer = seat.after(TICK, Msg::Tick);
        Ok(State {
            rng: seat.rng(),
            book,
            looking: None,
            addrs: Vec::new(),
            clock_offset: SignedDuration::ZERO,
            census: registry::Census::default(),
            sample: Vec::new(),
            is_drained: false,
            own: None,
            is_stale: false,
            signing_since: None,
            listed_at: None,
            told: 0,
            timer,
            seat,
            context,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Reachable { addrs } => state.reachable(addrs),
            Msg::Clock { offset } => state.clock(offset),
            Msg::Counted(census) => state.counted(census),
            Msg::Sampled(sample) => state.sampled(sample),
            Msg::Seq(seq) => state.sign(seq),
            Msg::Found(records) => state.found(records),
            Msg::Learned(record) => state.learned(*record),
            Msg::Met { peer } => state.met(&peer),
            Msg::Gone { peer } => state.gone(&peer),
            Msg::Exposed(peers) => state.book.set_exposed(peers),
            Msg::Pick { count, besides, reply } => reply.send(state.pick(count, &besides)),
            Msg::Roll(reply) => reply.send(state.book.roll(state.seat.now())),
            Msg::Drained(is_on) => state.drained(is_on),
            Msg::TellHealth => state.tell_health(),
            Msg::TellRegistry => state.tell_registry(),
            Msg::Tick => state.tick(),
        }
        Ok(())
    }
}

impl State {
    fn reachable(&mut self, addrs: Vec<Multiaddr>) {
        self.addrs = addrs;
        // Told at each start of the swarm too, which has forgotten that we are listed.
        self.is_stale = true;
        self.listed_at = None;
        self.tick_duties();
    }

    /// Records that were signed with a wrong time are refused everywhere: a new one is due at once.
    fn clock(&mut self, offset: SignedDuration) {
        self.is_stale |= self.clock_offset.saturating_sub(offset).unsigned_abs() > CLOCK_SKEW;
        self.clock_offset = offset;
    }

    fn signing_time(&self) -> Timestamp {
        let now = self.seat.now().wall;
        now.checked_add(self.clock_offset).unwrap_or(now)
    }

    fn counted(&mut self, census: registry::Census) {
        let told = self.own.as_ref().map_or(0.0, |own| own.fill_rate);
        self.is_stale |= !self.is_drained && (census.fill_rate - told).abs() >= FILL_CHANGE;
        // The first sessions are worth a record: until then nobody can be asked about it.
        let names_nobody = self.own.as_ref().is_some_and(|own| own.peers_digest.is_empty());
        self.is_stale |= names_nobody && census.sessions > 0;
        self.census = census;
    }

    fn drained(&mut self, is_on: bool) {
        self.is_stale |= self.is_drained != is_on;
        self.is_drained = is_on;
        self.tick_duties();
    }

    fn tick(&mut self) {
        self.tick_duties();
        // Re-armed last, so that two never queue.
        self.timer = self.seat.after(TICK, Msg::Tick);
    }

    fn tick_duties(&mut self) {
        if self.addrs.is_empty() {
            return;
        }
        self.list_when_due();
        self.sign_when_due();
        self.look_when_due();
    }

    // Telling others of us.

    fn list_when_due(&mut self) {
        let now = self.seat.now().mono;
        // Until somebody is known there is nobody to tell, so a lonely indexer tries with each look.
        let is_due = self
            .listed_at
            .is_none_or(|at| now.since(at) >= LIST_EVERY || (self.book.is_empty() && now.since(at) >= TICK * 4));
        if is_due {
            self.listed_at = Some(now);
            self.order(swarm::Command::Provide);
        }
    }

    fn sign_when_due(&mut self) {
        let (now, mono) = (self.signing_time(), self.seat.now().mono);
        let is_asked = self.signing_since.is_some_and(|at| mono.since(at) < SIGN_WITHIN);
        let half = jiff::SignedDuration::try_from(INDEXER_RECORD_LIFE / 2).unwrap_or_default();
        let is_due = self.own.as_ref().is_none_or(|own| self.is_stale || own.expiry_date.duration_since(now) <= half);
        if is_due && !is_asked {
            let ask = registry::Msg::Sample(self.seat.reply(Msg::Sampled));
            self.signing_since = self.context.addresses.registry.tell(Class::Control, ask).is_ok().then_some(mono);
        }
    }

    /// Drawn by chance for each record: an indexer that showed the same few for ever could be honest about those alone.
    fn sampled(&mut self, sample: Vec<PeerId>) {
        self.sample = sample;
        let did = format!("indexer:{}", self.context.own.peer_id);
        let ask = store::Msg::NextSeq { did, reply: self.seat.reply(Msg::Seq) };
        inform(&self.context.addresses.store, Class::Control, ask);
    }

    fn sign(&mut self, seq: Option<u64>) {
        self.signing_since = None;
        let Some(seq) = seq else { return };
        self.is_stale = false;
        let now = self.signing_time();
        let mut salt = [0; 16];
        self.rng.fill_bytes(&mut salt);
        let record = IndexerRecord {
            peer_id: self.context.own.peer_id,
            addrs: self.addrs.clone(),
            region: String::new(),
            // Without room: nobody suggests it, and those that know no such rule take it for full.
            capacity: if self.is_drained { 0 } else { self.context.settings.gate.max_nodes },
            fill_rate: if self.is_drained { 1.0 } else { self.census.fill_rate },
            peer_count: self.census.sessions,
            salt: BASE64.encode(salt),
            peers_digest: std::mem::take(&mut self.sample).iter().map(|peer| digest(&salt, peer)).collect(),
            born_at: self.context.own.born_at,
            expiry_date: now.checked_add(INDEXER_RECORD_LIFE).unwrap_or(now),
            seq,
            pub_key: self.context.keys.pub_key().to_owned(),
        };
        let signed = Verified::sign(&record, &self.context.keys);
        let key = dht::Key::Indexer(self.context.own.peer_id);
        self.order(swarm::Command::Put { key, value: Box::new(Valid::Indexer(signed.clone())), reply: None });
        self.own = Some(signed);
    }

    fn order(&self, command: swarm::Command) {
        inform(&self.context.addresses.swarm, Class::Control, swarm::Msg::Do(command));
    }

    // Hearing of others.

    fn look_when_due(&mut self) {
        if self.looking.is_some() || self.book.next_refresh() > self.seat.now().mono {
            return;
        }
        let (context, me) = (self.context.clone(), self.seat.me().clone());
        self.looking = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let found = discover::indexers(&context).await;
            drop(me.tell(Class::Own, Msg::Found(found)));
        })));
    }

    fn found(&mut self, records: Vec<Verified<IndexerRecord>>) {
        self.looking = None;
        inform(&self.context.addresses.registry, Class::Control, registry::Msg::Known(records.clone()));
        for record in records {
            self.learn(record);
        }
        self.book.refreshed(self.seat.now(), &mut self.rng);
        self.tell_known();
    }

    fn learned(&mut self, record: Verified<IndexerRecord>) {
        inform(&self.context.addresses.registry, Class::Control, registry::Msg::Known(vec![record.clone()]));
        self.learn(record);
        self.tell_known();
    }

    fn learn(&mut self, record: Verified<IndexerRecord>) {
        let (peer, born_at) = (record.peer_id, record.born_at);
        let learned = self.book.learn(record, Source::Dht, self.seat.now().wall);
        if matches!(learned, Learned::New | Learned::Renewed) {
            inform(&self.context.addresses.presence, Class::Control, presence::Msg::Met { peer, born_at });
        }
        if learned == Learned::New {
            info!(indexer = %peer, "another indexer is known");
            self.context.note("indexer_known", peer, "its record was found in the DHT");
        }
    }

    fn met(&mut self, peer: &PeerId) {
        self.book.back(peer, self.seat.now().wall);
        self.book.met(peer, self.seat.now().mono);
        inform(&self.context.addresses.registry, Class::Control, registry::Msg::IndexerBack(*peer));
        // Whoever came first may not be listed yet; the next tick looks again in any case.
        self.listed_at = None;
        self.tell_known();
    }

    fn gone(&mut self, peer: &PeerId) {
        debug!(indexer = %peer, "gone");
        self.book.gone(peer);
        inform(&self.context.addresses.registry, Class::Control, registry::Msg::IndexerGone(*peer));
        self.tell_known();
    }

    fn tell_known(&mut self) {
        let known = u32::try_from(self.book.roll(self.seat.now()).len()).unwrap_or(u32::MAX);
        if known != self.told {
            self.told = known;
            self.tell_health();
        }
    }

    fn tell_health(&self) {
        inform(&self.context.addresses.health, Class::Control, health::Msg::IndexersKnown(self.told));
    }

    fn tell_registry(&self) {
        let records = self.book.records(None).map(|(record, _)| record.clone()).collect();
        inform(&self.context.addresses.registry, Class::Control, registry::Msg::Known(records));
    }

    fn pick(&mut self, count: u32, besides: &PeerId) -> Vec<AddrInfo> {
        self.book.pick(count as usize, besides, self.seat.now().wall, &mut self.rng)
    }
}
