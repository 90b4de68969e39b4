//! Claim: our own record, signed anew in time, told to those who serve it, and read back as others see it.
//!
//! Owns the signed record and what must be put into the DHT for us. Told by peers where we are reachable, by the pool
//! who acknowledged which record; tells pool, registry and health. A restart forgets the record, not its `seq`: that is
//! in the store before anything is signed with it. Bound: one signature and one read-back under way.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::SignedDuration;
use libp2p::Multiaddr;
use protocol::{
    PeerId, Timestamp, addr,
    clock::OwnClock,
    dht::{NameClaim, PidValue},
    heartbeat::{OwnRecord, sign_anew_due},
    hello::{self, ClockWatch},
    record::PeerRecord,
    session::Values,
    signed::Verified,
    time::Mono,
    wire::{DhtValues, GetResponse, GetValue, Protocol},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use crate::{
    context::{Context, inform},
    fetch, health, peers, pool, registry, store, suggestions,
    supervision::{Class, Envelope, Reply, Seat, Timer},
};

/// How often it is seen whether something is due.
const TICK: Duration = Duration::from_secs(1);

/// The store writes a sequence down within this, or has died with the question.
const SEQ_WITHIN: Duration = Duration::from_secs(5);

/// A read-back that failed is tried again this soon, for a record is on its way to all members at once; then twice as
/// late each time, so that a record that nobody gives does not use up what a node may ask for.
const READ_AGAIN_FIRST: Duration = Duration::from_millis(200);

/// See [`READ_AGAIN_FIRST`].
const READ_AGAIN_MAX: Duration = Duration::from_secs(10);

/// A look-up at one member.
const READ_WITHIN: Duration = Duration::from_secs(3);

/// Our record, ready for everybody who needs it.
#[derive(Clone, Debug)]
pub struct Signed {
    /// As it was signed.
    pub record: Verified<PeerRecord>,
    /// Ready for heartbeats.
    pub own: OwnRecord,
    /// What our referent puts into the DHT.
    pub values: Values,
    /// How far the time that it was signed with is ahead of our clock.
    pub clock_offset: SignedDuration,
}

/// The actor.
pub struct Claim;

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
    addrs: Vec<Multiaddr>,
    signed: Option<Arc<Signed>>,
    /// When the store was asked for a sequence; a store that died with the question is asked again.
    signing_since: Option<Mono>,
    /// The addresses changed since the last signature.
    is_stale: bool,
    /// Members that hold our record, with the `seq` they said they hold.
    held_by: BTreeMap<PeerId, u64>,
    referent: Option<PeerId>,
    /// The newest `seq` that was read back.
    read_seq: u64,
    /// The last read-back found it.
    is_visible: bool,
    reading: Option<AbortOnDropHandle<()>>,
    timer: Timer,
    read_timer: Option<Timer>,
    read_pause: Duration,
    clocks: ClockWatch,
    own_clock: OwnClock,
}

/// What it is told and asked.
pub enum Msg {
    /// We can be reached here.
    Reachable {
        /// Without `/p2p/`, at most 8.
        addrs: Vec<Multiaddr>,
    },
    /// Our next sequence is on disk; nothing when the store is away.
    Seq(Option<u64>),
    /// A member of the pool said which of our records it holds.
    Held {
        /// The member.
        by: PeerId,
        /// The record's.
        seq: u64,
    },
    /// The pool's members now.
    Members {
        /// All of them.
        members: Vec<PeerId>,
        /// The one that represents us.
        referent: Option<PeerId>,
    },
    /// A read-back ended.
    ReadBack {
        /// The newest record of ours that was found, if one was.
        seq: Option<u64>,
    },
    /// Our record is wanted.
    Look(Reply<Option<Arc<Signed>>>),
    /// An indexer's hello told how far its clock is before ours.
    Clock {
        /// Whose.
        peer: PeerId,
        /// Its clock less ours.
        offset: SignedDuration,
    },
    /// How far is the clock of the pool ahead of ours? Nothing while clocks are apart and it is not known whose is wrong.
    SoundClock {
        /// The offset.
        reply: Reply<Option<SignedDuration>>,
    },
    /// How far is the clock of this indexer ahead of ours? Nothing when its hello was not heard, or is forgotten.
    ClockOf {
        /// Whose.
        peer: PeerId,
        /// Its clock less ours.
        reply: Reply<Option<SignedDuration>>,
    },
    /// How far ahead of ours is the clock on which enough indexers agree? Nothing while too few do.
    AgreedClock(Reply<Option<SignedDuration>>),
    /// Health began a life and wants to know how our record does.
    TellHealth,
    /// Suggestions began a life and wants to know the time to sign with.
    TellSuggestions,
    /// The pool began a life and wants our record.
    TellPool,
    /// The registry began a life and wants our record.
    TellRegistry,
    /// See whether something is due.
    Tick,
    /// Read back again.
    ReadAgain,
}

impl Actor for Claim {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        inform(&context.addresses.peers, Class::Control, peers::Msg::TellListening);
        inform(&context.addresses.pool, Class::Control, pool::Msg::TellClaim);
        let timer = seat.after(TICK, Msg::Tick);
        let own_clock = OwnClock::new(seat.now());
        Ok(State {
            seat,
            addrs: context.settings.network.announce.clone(),
            context,
            signed: None,
            signing_since: None,
            is_stale: false,
            held_by: BTreeMap::new(),
            referent: None,
            read_seq: 0,
            is_visible: false,
            reading: None,
            timer,
            read_timer: None,
            read_pause: READ_AGAIN_FIRST,
            clocks: ClockWatch::new(),
            own_clock,
        })
    }

    async fn post_start(&self, _: ActorRef<Self::Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.sign_when_due();
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Reachable { addrs } => state.reachable(addrs),
            Msg::Seq(seq) => state.sign(seq)?,
            Msg::Held { by, seq } => state.held(by, seq),
            Msg::Members { members, referent } => state.members(&members, referent),
            Msg::ReadBack { seq } => state.read_back(seq),
            Msg::Look(reply) => reply.send(state.signed.clone()),
            Msg::Clock { peer, offset } => state.clock(peer, offset),
            Msg::SoundClock { reply } => reply.send(state.clocks.sound_offset()),
            Msg::AgreedClock(reply) => reply.send(state.clocks.agreed()),
            Msg::ClockOf { peer, reply } => reply.send(state.clocks.of(&peer)),
            Msg::TellHealth => state.tell_health(),
            Msg::TellSuggestions => state.tell_suggestions(),
            Msg::TellPool => state.tell_pool(),
            Msg::TellRegistry => state.tell_registry(),
            Msg::Tick => state.tick(),
            Msg::ReadAgain => state.read_again(),
        }
        Ok(())
    }
}

impl State {
    fn reachable(&mut self, addrs: Vec<Multiaddr>) {
        if self.addrs != addrs {
            self.addrs = addrs;
            self.is_stale = true;
            self.sign_when_due();
        }
    }

    fn tick(&mut self) {
        self.watch_own_clock();
        self.sign_when_due();
        self.read_when_due();
        // Re-armed last, so that two never queue.
        self.timer = self.seat.after(TICK, Msg::Tick);
    }

    fn sign_when_due(&mut self) {
        let now = self.clocks.signing_time(self.seat.now().wall);
        let is_due = match &self.signed {
            None => true,
            Some(signed) => {
                self.is_stale || sign_anew_due(signed.record.expiry_date, now, &self.context.settings.heartbeat)
            }
        };
        let mono = self.seat.now().mono;
        let is_asked = self.signing_since.is_some_and(|at| mono.since(at) < SEQ_WITHIN);
        if is_due && !is_asked {
            let did = self.context.own.did.clone();
            let ask = store::Msg::NextSeq { did, reply: self.seat.reply(Msg::Seq) };
            self.signing_since = self.context.addresses.store.tell(Class::Control, ask).is_ok().then_some(mono);
        }
    }

    /// Signs with a sequence that is already on disk, so that it never goes back.
    fn sign(&mut self, seq: Option<u64>) -> Result<(), serde_json::Error> {
        self.signing_since = None;
        let Some(seq) = seq else { return Ok(()) };
        self.is_stale = false;
        let record = Verified::sign(&self.record(seq), &self.context.keys);
        let values = self.values(&record);
        let on_the_wire = DhtValues { pid: values.pid.to_raw(), name: values.name.to_raw() };
        let clock_offset = self.clocks.agreed().unwrap_or_default();
        let own = OwnRecord::new(&record, Some(on_the_wire))?;
        let signed = Arc::new(Signed { own, record, values, clock_offset });
        debug!(seq, addrs = signed.record.addrs.len(), "record signed");
        self.signed = Some(signed);
        self.tell_health();
        self.tell_registry();
        self.tell_suggestions();
        self.tell_pool();
        Ok(())
    }

    fn tell_health(&self) {
        let to = &self.context.addresses.health;
        if let Some(signed) = &self.signed {
            inform(to, Class::Control, health::Msg::Signed(signed.record.seq));
        }
        inform(to, Class::Control, health::Msg::Visible(self.is_visible));
    }

    fn tell_pool(&self) {
        if let Some(signed) = &self.signed {
            inform(&self.context.addresses.pool, Class::Control, pool::Msg::Signed(signed.clone()));
        }
    }

    fn tell_registry(&self) {
        if let Some(signed) = &self.signed {
            inform(&self.context.addresses.registry, Class::Control, registry::Msg::Own(signed.clone()));
        }
    }

    /// What an indexer says of itself is signed with the same time.
    fn tell_suggestions(&self) {
        if let Some(signed) = &self.signed {
            let clock = suggestions::Msg::Clock { offset: signed.clock_offset };
            inform(&self.context.addresses.suggestions, Class::Control, clock);
        }
    }

    fn record(&self, seq: u64) -> PeerRecord {
        let own = &self.context.own;
        let node = &self.context.settings.node;
        let stream_address = self.addrs.first().map(|addr| addr::with_peer(addr, own.peer_id).to_string());
        PeerRecord {
            name: own.name.clone(),
            did: own.did.clone(),
            pub_key: self.context.keys.pub_key().to_owned(),
            peer_id: own.peer_id,
            api_url: node.api_url.clone(),
            stream_address: stream_address.unwrap_or_default(),
            addrs: self.addrs.clone(),
            nats_address: node.nats_address.clone(),
            wallet_address: node.wallet_address.clone(),
            capabilities: hello::record_capabilities(own.role).into_iter().map(str::to_owned).collect(),
            born_at: own.born_at,
            expiry_date: self.expiry(),
            seq,
        }
    }

    fn expiry(&self) -> Timestamp {
        let now = self.clocks.signing_time(self.seat.now().wall);
        now.checked_add(self.context.settings.heartbeat.record_life).unwrap_or(now)
    }

    fn values(&self, record: &PeerRecord) -> Values {
        let pid = PidValue {
            did: record.did.clone(),
            peer_id: record.peer_id,
            seq: record.seq,
            expiry_date: record.expiry_date,
            pub_key: record.pub_key.clone(),
        };
        let name = NameClaim {
            name: record.name.clone(),
            did: record.did.clone(),
            peer_id: record.peer_id,
            seq: record.seq,
            expiry_date: record.expiry_date,
            pub_key: record.pub_key.clone(),
        };
        Values { pid: Verified::sign(&pid, &self.context.keys), name: Verified::sign(&name, &self.context.keys) }
    }

    fn clock(&mut self, peer: PeerId, offset: SignedDuration) {
        self.clocks.heard(peer, offset);
        self.tell_clock();
    }

    fn tell_clock(&self) {
        self.context.trouble("clock", self.clocks.statement().map(|statement| statement.to_string()));
    }

    /// An operator that sets the clock right need not wait for the next hellos to see that it is.
    fn watch_own_clock(&mut self) {
        if let Some(by) = self.own_clock.look(self.seat.now()) {
            info!(seconds = by.as_secs(), "our clock was set, or this machine slept");
            self.context.note("clock_set", &self.context.own.name, format!("by {:+} s", by.as_secs()));
            self.clocks.was_set(by);
            self.tell_clock();
        }
    }

    fn held(&mut self, by: PeerId, seq: u64) {
        self.held_by.insert(by, seq);
        self.read_when_due();
    }

    fn members(&mut self, members: &[PeerId], referent: Option<PeerId>) {
        self.held_by.retain(|peer, _| members.contains(peer));
        self.referent = referent;
        self.read_when_due();
    }

    /// Reads each new record back once, through a member that does not represent us where there is one.
    fn read_when_due(&mut self) {
        let Some(seq) = self.signed.as_ref().map(|signed| signed.record.seq) else { return };
        let is_waiting = self.reading.is_some() || self.read_timer.is_some();
        if self.read_seq >= seq || is_waiting {
            return;
        }
        let mut holders = self.held_by.iter().filter(|(_, held)| **held >= seq).map(|(peer, _)| *peer);
        let is_alone = self.held_by.len() <= 1;
        let Some(from) = holders.find(|peer| is_alone || Some(*peer) != self.referent) else { return };
        let (context, me) = (self.context.clone(), self.seat.me().clone());
        let now = self.clocks.signing_time(self.seat.now().wall);
        self.reading = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let seq = read_own(&context, from, now).await;
            drop(me.tell(Class::Own, Msg::ReadBack { seq }));
        })));
    }

    fn read_again(&mut self) {
        self.read_timer = None;
        self.read_when_due();
    }

    fn read_back(&mut self, seq: Option<u64>) {
        self.reading = None;
        let wanted = self.signed.as_ref().map_or(0, |signed| signed.record.seq);
        if let Some(seq) = seq {
            if self.read_seq == 0 {
                info!(seq, "our record was read back: others can find us");
            }
            self.read_seq = seq;
        }
        self.is_visible = seq.is_some();
        self.tell_health();
        if self.read_seq < wanted {
            self.read_timer = Some(self.seat.after(self.read_pause, Msg::ReadAgain));
            self.read_pause = (self.read_pause * 2).min(READ_AGAIN_MAX);
        } else {
            self.read_pause = READ_AGAIN_FIRST;
        }
    }
}

/// The `seq` of our own record as that member gives it to anybody; nothing when it gives none.
async fn read_own(context: &Context, from: PeerId, now: Timestamp) -> Option<u64> {
    let question = GetValue { key: Some(context.own.did.clone()), ..GetValue::default() };
    let found: GetResponse = fetch::exchange(context, from, Vec::new(), Protocol::Get, &question, READ_WITHIN)
        .await
        .inspect_err(|error| debug!(%from, %error, "read-back failed"))
        .ok()?;
    let text = found.records.get(&context.own.peer_id.to_string())?;
    let record = Verified::<PeerRecord>::open(text.get(), now).ok()?;
    (record.peer_id == context.own.peer_id).then_some(record.seq)
}
