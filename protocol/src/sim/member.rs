//! One member: the node that every member is, and the indexer that some are too.
//!
//! What `actors/src/{pool,score,claim,probe,leave}.rs` do between the rules; its heartbeats are in `beat.rs`, the
//! indexer's side in `host.rs`. Its `Disk` outlives a life of its process, everything else begins anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use rand::rngs::StdRng;

use super::{
    audit::Audit,
    beat::Beat,
    host::{COLLECT_EVERY, Carried, DHT_TAKES, Host, look, next_seq, role},
    lie::Lying,
    message::{Message, Signed, What},
    report::Kind,
    size,
    witness::{Question, Round},
    world::World,
};
use crate::{
    addr::{Rule, Subnet},
    dht::{NameClaim, PidValue},
    heartbeat::{Acked, Ask, Asker, Conversation, Heard, OwnRecord, sign_anew_due},
    hello::{ClockWatch, capabilities, clock_offset},
    identity::Keys,
    pool::{Action, Event, Found, Input, Owner, Pool, Probed, Ranked, State, Why},
    presence::{audit::Evidence, rounds::Rounds},
    record::PeerRecord,
    score::{Book, Judged, Observation, Row},
    session::Values,
    signed::Verified,
    time::{Mono, Now},
    wire::{AddrInfo, Answer, CandidatesRequest, DhtValues, HeartbeatResponse, RefusalCode, Refused},
    witness::Tries,
};

/// A dial that nothing answers: `CONNECT_WITHIN` of the swarm.
const DIAL_WITHIN: Duration = Duration::from_secs(4);

/// A connection over which nothing went for this long is closed: `IDLE_MAX` of the swarm.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// How often the record is looked at: `TICK` of the claim.
const CLAIM_TICK: Duration = Duration::from_secs(1);

/// A word of leaving has gone out by then.
const LEAVE_TAKES: Duration = Duration::from_secs(1);

/// Others that a word of leaving names.
const ALTERNATIVES: usize = 3;

/// Bytes of a signed word of leaving without its alternatives, of an opened stream, and of a refused hello.
const LEAVE_BYTES: usize = 420;
const STREAM_BYTES: usize = 64;
const REFUSED_BYTES: usize = 128;

/// Who it is.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) at: u32,
    pub(super) keys: Keys,
    pub(super) peer: PeerId,
    pub(super) name: String,
    pub(super) did: String,
    /// Its words in every question.
    pub(super) asker: Asker,
    pub(super) addr: Multiaddr,
    pub(super) is_indexer: bool,
    pub(super) max_nodes: u32,
    pub(super) seeds: Vec<AddrInfo>,
}

/// What its database keeps.
#[derive(Debug, Default)]
struct Disk {
    seq: u64,
    indexer_seq: u64,
    remembered: BTreeMap<PeerId, Vec<Multiaddr>>,
    /// Evicted: what was seen of them is kept.
    disowned: BTreeSet<PeerId>,
    rows: Vec<Row>,
}

/// A timer that can be moved; of the events that it queued only the right one counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Alarm {
    wanted: Option<Duration>,
    queued: Option<Duration>,
}

impl Alarm {
    /// Rings at this time and not before; returns when an event is to be queued for it.
    pub(super) fn set(&mut self, at: Duration) -> Option<Duration> {
        self.wanted = Some(at);
        let is_new = self.queued.is_none_or(|queued| queued > at);
        is_new.then(|| *self.queued.insert(at))
    }

    /// An event came: whether it rings, and when an event is to be queued again.
    pub(super) fn rings(&mut self, now: Duration) -> (bool, Option<Duration>) {
        self.queued = self.queued.filter(|queued| *queued > now);
        match self.wanted {
            Some(at) if at <= now => {
                self.wanted = None;
                (true, None)
            }
            Some(at) => (false, self.set(at)),
            None => (false, None),
        }
    }
}

/// Why somebody is dialled.
#[derive(Clone, Copy, Debug)]
pub(super) enum Want {
    Beat { stream: u64 },
    Probe { stream: u64 },
    Witness { number: u64 },
}

#[derive(Debug)]
struct Dial {
    number: u64,
    began: Mono,
    wants: Vec<Want>,
}

#[derive(Debug)]
struct Probe {
    to: u32,
    conversation: Conversation,
}

/// One member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) own: Own,
    disk: Disk,
    pub(super) rng: StdRng,
    pub(super) lies: Vec<Lying>,
    started: Duration,
    born_at: Timestamp,
    pub(super) pool: Pool,
    pub(super) book: Book,
    pub(super) members: Vec<Judged>,
    /// It is one of them, which must never be.
    is_own_member: bool,
    pub(super) beats: BTreeMap<u32, Beat>,
    probes: BTreeMap<u64, Probe>,
    dials: BTreeMap<u32, Dial>,
    /// Questions to witnesses under way, and the rounds that they belong to.
    pub(super) questions: BTreeMap<u64, Question>,
    pub(super) rounds: BTreeMap<u64, Round>,
    /// Whom we tried for others.
    pub(super) tries: Tries,
    /// Audits under way, whose turn is next, and what they found.
    pub(super) audits: BTreeMap<u64, Audit>,
    pub(super) turns: Rounds,
    pub(super) evidence: Evidence,
    pub(super) clocks: ClockWatch,
    pub(super) signed: Carried,
    pub(super) unreached: BTreeSet<u32>,
    alarm: Alarm,
    claim_alarm: Alarm,
    pub(super) host: Option<Host>,
}

impl Member {
    pub(super) fn new(own: Own, rng: StdRng, lies: Vec<Lying>, world: &World) -> Self {
        let pool = new_pool(&own, world);
        Self {
            own,
            disk: Disk::default(),
            rng,
            lies,
            started: Duration::ZERO,
            born_at: world.true_time(),
            pool,
            book: Book::new(world.scenario.score.clone()),
            members: Vec::new(),
            is_own_member: false,
            beats: BTreeMap::new(),
            probes: BTreeMap::new(),
            dials: BTreeMap::new(),
            questions: BTreeMap::new(),
            rounds: BTreeMap::new(),
            tries: Tries::default(),
            audits: BTreeMap::new(),
            turns: Rounds::default(),
            evidence: Evidence::default(),
            clocks: ClockWatch::new(),
            signed: None,
            unreached: BTreeSet::new(),
            alarm: Alarm::default(),
            claim_alarm: Alarm::default(),
            host: None,
        }
    }

    pub(super) fn now(&self, world: &World) -> Now {
        Now { mono: Mono::at(world.now.saturating_sub(self.started)), wall: world.wall(self.own.at) }
    }

    /// The same point in the time of the run.
    pub(super) fn run_time(&self, mono: Mono) -> Duration {
        self.started + mono.since_start()
    }

    pub(super) fn handle(&mut self, what: What, world: &mut World) {
        match what {
            What::Begin => self.begin(world),
            What::End => world.end(self.own.at),
            What::Arrived { from, connection, message } => {
                // What was sent before the connection closed is lost with it.
                if world.net.connection(self.own.at, from) == Some(connection) {
                    self.arrived(from, connection, message, world);
                }
            }
            What::Dialled { from, dial } => self.dialled(from, dial, world),
            What::DialEnded { to, dial, outcome } => self.dial_ended(to, dial, outcome, world),
            What::Closed { by } => self.closed(by, world),
            What::Answered { to, connection, stream, answer } => {
                self.answer_now(to, connection, stream, *answer, world)
            }
            What::Pool => self.pool_due(world),
            What::Beat { peer } => self.beat_rings(peer, world),
            What::Late { peer, life, seq } => self.beat_late(peer, life, seq, world),
            What::OpenLate { peer, stream } => self.open_late(peer, stream, world),
            What::Restart { peer, life } => self.beat_restarts(peer, life, world),
            What::ProbeLate { stream } => self.probe_ended(stream, Probed::Silent, world),
            What::Listed => self.listed(world),
            What::Judge => self.judge(world),
            What::Claim => self.claim_due(world),
            What::Looked { peer, life, is_there } => self.looked(peer, life, is_there),
            What::Close { peer } => self.close(peer, world),
            What::AuditLate { number } => self.audit_late(number, world),
            What::WitnessLate { number } => self.question_ended(number, None, false, world),
            What::Host | What::Collect | What::Found | What::Put { .. } | What::Sought { .. } => {
                self.host_due(what, world);
            }
        }
    }

    fn host_due(&mut self, what: What, world: &mut World) {
        let now = self.now(world);
        let Some(host) = &mut self.host else { return };
        match what {
            What::Collect => host.collect(&self.own, now, world),
            What::Found => host.found(&self.own, now, &mut self.rng, world),
            What::Put { node, seq, is_done } => host.put_ended(&world.id(node), seq, is_done, now),
            What::Sought { by, stream } => host.found_for(&self.own, by, stream, now, world),
            _ => host.tick(&self.own, self.born_at, &mut self.disk.indexer_seq, now, &mut self.rng, world),
        }
    }

    // A life.

    fn begin(&mut self, world: &mut World) {
        self.started = world.now;
        self.born_at = world.wall(self.own.at);
        self.pool = new_pool(&self.own, world);
        self.book = Book::new(world.scenario.score.clone());
        self.members.clear();
        self.is_own_member = false;
        self.beats.clear();
        self.probes.clear();
        self.dials.clear();
        self.questions.clear();
        self.rounds.clear();
        self.tries = Tries::default();
        self.audits.clear();
        self.turns = Rounds::default();
        self.evidence = Evidence::default();
        self.clocks = ClockWatch::new();
        self.signed = None;
        self.unreached.clear();
        self.alarm = Alarm::default();
        self.claim_alarm = Alarm::default();
        world.note(self.own.at, format_args!("starts"));
        let now = self.now(world);
        self.book.restore(self.disk.rows.clone(), now);
        self.host = self.own.is_indexer.then(|| Host::new(&self.own, now, world));
        if self.own.is_indexer {
            world.after(Duration::ZERO, self.own.at, What::Host);
            world.after(COLLECT_EVERY, self.own.at, What::Collect);
        }
        self.claim(world);
        world.after(world.scenario.score.judge_every, self.own.at, What::Judge);
        let remembered = self.remembered(now.mono);
        self.take(Input::Start { remembered, seeds: self.own.seeds.clone() }, world);
    }

    /// Good ones first.
    fn remembered(&self, now: Mono) -> Vec<AddrInfo> {
        let value = |peer: &PeerId| self.book.score(peer, now).map_or(0.0, |score| score.value);
        let mut known: Vec<(f64, AddrInfo)> = self
            .disk
            .remembered
            .iter()
            .map(|(peer, addrs)| (value(peer), AddrInfo { id: *peer, addrs: addrs.clone() }))
            .collect();
        known.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        known.into_iter().map(|(_, info)| info).collect()
    }

    /// Says that it goes, to all whom it serves and who serve it, and goes a moment later.
    pub(super) fn leave(&mut self, world: &mut World) {
        world.note(self.own.at, format_args!("leaves"));
        let now = self.now(world);
        let me = self.own.peer;
        let alternatives = self.host.as_ref().map(|host| host.book.pick(ALTERNATIVES, &me, now.wall, &mut self.rng));
        let alternatives = alternatives.unwrap_or_default();
        let mut told: BTreeSet<u32> = self.beats.keys().copied().collect();
        let sessions = self.host.as_mut().map(Host::leave).unwrap_or_default();
        told.extend(sessions.iter().filter_map(|peer| world.at(peer)));
        for peer in told {
            self.say_leave(peer, alternatives.clone(), world);
        }
        if self.own.is_indexer {
            world.dht.unlist(self.own.at, &world.net);
        }
        world.after(LEAVE_TAKES, self.own.at, What::End);
    }

    fn say_leave(&self, peer: u32, alternatives: Vec<AddrInfo>, world: &mut World) {
        let bytes = LEAVE_BYTES + size::alternatives(&alternatives);
        world.send(self.own.at, peer, Kind::Leave, bytes, Message::Leave { alternatives });
    }

    /// An operator lets its nodes go, or no longer.
    pub(super) fn drain(&mut self, is_on: bool, world: &World) {
        let now = self.now(world);
        if let Some(host) = &mut self.host {
            host.drain(&self.own, is_on, now, &mut self.rng);
        }
    }

    // The pool.

    /// Feeds the pool and does what it says.
    pub(super) fn take(&mut self, input: Input, world: &mut World) {
        let now = self.now(world);
        let actions = self.pool.handle(input, now.mono, &mut self.rng);
        for action in actions {
            self.act(action, world);
        }
        if !self.pool.members().eq(self.members.iter().copied()) {
            self.members = self.pool.members().collect();
            self.is_own_member = self.pool.is_member(&self.own.peer);
            self.book.set_members(&self.members.iter().map(|judged| judged.peer).collect());
        }
        let wake = self.run_time(self.pool.wake(now.mono));
        if let Some(at) = self.alarm.set(wake) {
            world.after(at.saturating_sub(world.now), self.own.at, What::Pool);
        }
    }

    fn pool_due(&mut self, world: &mut World) {
        let (is_due, again) = self.alarm.rings(world.now);
        if let Some(at) = again {
            world.after(at.saturating_sub(world.now), self.own.at, What::Pool);
        }
        if is_due {
            self.take(Input::Tick, world);
        }
    }

    fn act(&mut self, action: Action, world: &mut World) {
        match action {
            Action::Start { peer, .. } => self.start_beat(&peer, world),
            Action::Stop { peer, why } => self.stop_beat(&peer, why, world),
            Action::Nudge { peer } => self.nudge_beat(&peer, world),
            Action::SetReferent { peer, referent } => {
                if let Some(beat) = world.at(&peer).and_then(|at| self.beats.get_mut(&at)) {
                    beat.referent = referent;
                }
            }
            // Every question asks the pool for it.
            Action::SetNeed { .. } => {}
            Action::AskCandidates { members, count } => self.ask_candidates(&members, count, world),
            Action::AskDht => world.after(DHT_TAKES, self.own.at, What::Listed),
            Action::Probe { peer, .. } => self.probe(&peer, world),
            Action::Remember { peer, addrs } => {
                self.disk.disowned.remove(&peer);
                self.disk.remembered.insert(peer, addrs);
            }
            Action::Forget { peer } => drop(self.disk.remembered.remove(&peer)),
            Action::Disown { peer } => {
                self.disk.remembered.remove(&peer);
                self.disk.disowned.insert(peer);
            }
            Action::Close { peer } => {
                if let Some(peer) = world.at(&peer) {
                    world.after(Duration::ZERO, self.own.at, What::Close { peer });
                }
            }
            Action::AskOthers { about, ask } => self.ask_others(&about, ask, world),
            Action::Note(event) => self.noted(&event, world),
        }
    }

    fn noted(&mut self, event: &Event, world: &mut World) {
        if let Event::AskedOthers { peer, answered, reach } = event {
            let now = self.now(world).mono;
            self.book.asked_others(peer, *answered, *reach, now);
        }
        let peer = event.peer().map(|peer| world.name(&peer).to_owned()).unwrap_or_default();
        world.note(self.own.at, format_args!("{} {peer}: {event}", event.kind()));
    }

    fn stop_beat(&mut self, peer: &PeerId, why: Why, world: &mut World) {
        let Some(at) = world.at(peer) else { return };
        self.beats.remove(&at);
        self.unreached.remove(&at);
        // An indexer that drops another goes on serving, and does not say that it leaves.
        if why != Why::Left && !self.own.is_indexer {
            self.say_leave(at, Vec::new(), world);
        }
    }

    fn ask_candidates(&mut self, members: &[PeerId], count: u32, world: &mut World) {
        for peer in members {
            let Some(at) = world.at(peer) else { continue };
            let bytes = size::written(&CandidatesRequest { count });
            world.send(self.own.at, at, Kind::Candidates, bytes, Message::AskCandidates { count });
        }
    }

    fn listed(&mut self, world: &mut World) {
        let now = self.now(world);
        let found = look(&self.own, now, &mut self.rng, world).into_iter().map(|record| Found {
            info: AddrInfo { id: record.peer_id, addrs: record.addrs.clone() },
            fill_rate: Some(record.fill_rate),
        });
        let found = found.collect();
        self.take(Input::Dht { found }, world);
    }

    // Connections.

    /// Dials a peer, or joins the dial that is under way.
    pub(super) fn dial(&mut self, to: u32, want: Want, world: &mut World) {
        if let Some(dial) = self.dials.get_mut(&to) {
            dial.wants.push(want);
            return;
        }
        let number = world.fresh();
        let began = self.now(world).mono;
        self.dials.insert(to, Dial { number, began, wants: vec![want] });
        world.traffic.count(Kind::Hello, world.hello_bytes(self.own.is_indexer));
        world.dial(self.own.at, to, number, DIAL_WITHIN);
    }

    /// Somebody dials us: the gate is asked, as `swarm/greet.rs` does.
    fn dialled(&mut self, from: u32, dial: u64, world: &mut World) {
        let now = self.now(world);
        let subnet = Subnet::of_addr(&world.infos[from as usize].addrs[0]);
        let judged = match &mut self.host {
            Some(host) => host.greet(from, subnet, now, &mut self.rng, world),
            None => Ok(()),
        };
        let bytes = if judged.is_ok() { world.hello_bytes(self.own.is_indexer) } else { REFUSED_BYTES };
        world.traffic.count(Kind::Hello, bytes);
        let outcome = judged.map(|()| now.wall).map_err(Box::new);
        let is_met = outcome.is_ok();
        if let Err(refused) = &outcome {
            let (name, wait) = (world.names[from as usize].clone(), refused.retry_after);
            world.note(self.own.at, format_args!("refuses {name} ({:?}), to return after {wait:?} s", refused.refused));
        }
        if is_met {
            let now = world.now;
            world.net.connect(self.own.at, from, now);
        }
        if let Some(flight) = world.net.flight(self.own.at, from) {
            world.after(flight, from, What::DialEnded { to: self.own.at, dial, outcome: Some(outcome) });
        }
        if is_met {
            self.met(from, world.wall(from), Duration::ZERO, world);
        }
    }

    fn dial_ended(
        &mut self,
        to: u32,
        number: u64,
        outcome: Option<Result<Timestamp, Box<Refused>>>,
        world: &mut World,
    ) {
        if self.dials.get(&to).is_none_or(|dial| dial.number != number) {
            return;
        }
        let Some(dial) = self.dials.remove(&to) else { return };
        // It may have been closed again before we knew.
        let is_open = world.net.connection(self.own.at, to).is_some();
        if let Some(Ok(theirs)) = outcome
            && is_open
        {
            let round_trip = self.now(world).mono.since(dial.began);
            self.met(to, theirs, round_trip, world);
            for want in dial.wants {
                self.open(to, want, world);
            }
            return;
        }
        for want in dial.wants {
            let refused =
                outcome.as_ref().and_then(|outcome| outcome.as_ref().err()).map(|refused| (**refused).clone());
            match want {
                Want::Beat { stream } => self.not_opened(to, stream, refused, outcome.is_none(), world),
                Want::Probe { stream } => self.probe_ended(stream, unprobed(refused, outcome.is_none()), world),
                // It said something, which the frozen and the dead do not.
                Want::Witness { number } => self.question_ended(number, None, refused.is_some(), world),
            }
        }
    }

    /// A dial to this peer is under way.
    pub(super) fn is_dialling(&self, peer: u32) -> bool {
        self.dials.contains_key(&peer)
    }

    /// Uses a connection that is there.
    pub(super) fn open(&mut self, to: u32, want: Want, world: &mut World) {
        match want {
            Want::Beat { stream } => {
                world.send(self.own.at, to, Kind::Stream, STREAM_BYTES, Message::Open { stream });
            }
            Want::Probe { stream } => self.ask_probe(stream, world),
            Want::Witness { number } => self.ask_witness(number, world),
        }
    }

    /// A connection was made: what `peers` and `suggestions` do about it.
    fn met(&mut self, peer: u32, theirs: Timestamp, round_trip: Duration, world: &mut World) {
        if !world.is_indexer[peer as usize] {
            return;
        }
        let now = self.now(world);
        let info = world.infos[peer as usize].clone();
        self.clocks.heard(info.id, clock_offset(theirs, now.wall, round_trip));
        self.claim_within(CLAIM_TICK, world);
        if let Some(host) = &mut self.host {
            host.met(&info.id, now);
        }
        self.take(Input::Inbound { info }, world);
    }

    /// The other end closed the connection, or its machine did.
    fn closed(&mut self, peer: u32, world: &mut World) {
        // A newer connection may be there already.
        if world.net.connection(self.own.at, peer).is_none() {
            self.connection_gone(peer, world);
        }
    }

    /// Closes a connection ourselves.
    pub(super) fn close(&mut self, peer: u32, world: &mut World) {
        if world.net.connection(self.own.at, peer).is_some() {
            world.close(self.own.at, peer);
            self.connection_gone(peer, world);
        }
    }

    fn connection_gone(&mut self, peer: u32, world: &mut World) {
        if let Some(host) = &mut self.host {
            host.disconnected(peer);
        }
        self.beat_broken(peer, world);
        let cut: Vec<u64> =
            self.probes.iter().filter(|(_, probe)| probe.to == peer).map(|(stream, _)| *stream).collect();
        // A probe that is still being dialled has no stream to break.
        let is_dialled = self.dials.contains_key(&peer);
        for stream in cut.into_iter().filter(|_| !is_dialled) {
            self.probe_ended(stream, Probed::Silent, world);
        }
        if !is_dialled {
            self.questions_cut(peer, world);
        }
        let peer = world.id(peer);
        self.take(Input::Gone { peer }, world);
    }

    /// Connections over which nothing goes are closed. A candidate's is, but for the standby's, which is probed before.
    fn close_idle(&mut self, world: &mut World) {
        for peer in world.net.idle(self.own.at, world.now, IDLE_MAX) {
            self.close(peer, world);
        }
    }

    // Messages.

    fn arrived(&mut self, from: u32, connection: u64, message: Message, world: &mut World) {
        let now = self.now(world);
        match message {
            Message::Open { stream } => {
                if self.host.is_some() {
                    world.send(self.own.at, from, Kind::Stream, STREAM_BYTES, Message::Opened { stream });
                }
            }
            Message::Opened { stream } => self.beat_opened(from, stream, world),
            Message::Question { stream, heartbeat, signed } => {
                let Some(host) = &mut self.host else { return };
                let seq = heartbeat.seq;
                let signed = signed.as_deref();
                let answer = host.beat(&self.own, from, stream, *heartbeat, signed, now, &mut self.rng, world);
                self.answer(from, connection, stream, seq, answer, world);
            }
            Message::Answer { stream, answer } => self.answered(from, stream, *answer, world),
            Message::AskCandidates { count } => {
                let Some(host) = &mut self.host else { return };
                let candidates = host.candidates(&self.own, from, count, now, &mut self.rng, world);
                let bytes = size::candidates(&candidates);
                world.send(self.own.at, from, Kind::Candidates, bytes, Message::Candidates { candidates });
            }
            Message::Candidates { candidates } => {
                let from = world.id(from);
                self.take(Input::Candidates { from, candidates }, world);
            }
            Message::Leave { alternatives } => self.left(from, alternatives, world),
            Message::AskWitness { number, about, is_try } => {
                self.asked_as_witness(from, number, about, is_try, world);
            }
            Message::Witnessed { number, report } => self.witness_answered(number, report, world),
            Message::AskTokens { number, salt } => self.show_tokens(from, number, &salt, world),
            Message::Tokens { number, nodes } => self.tokens_shown(number, nodes, world),
        }
    }

    fn left(&mut self, from: u32, alternatives: Vec<AddrInfo>, world: &mut World) {
        let now = self.now(world);
        let peer = world.id(from);
        if let Some(host) = &mut self.host {
            host.left(&self.own, peer, now.mono, world);
        }
        if self.pool.is_member(&peer) {
            self.book.observe(peer, &Observation::RestartAnnounced, now.mono);
            self.take(Input::Left { peer, alternatives }, world);
        }
    }

    /// Answers a question, as a liar where it is one.
    fn answer(
        &mut self,
        to: u32,
        connection: u64,
        stream: u64,
        seq: u64,
        answer: Result<HeartbeatResponse, Refused>,
        world: &mut World,
    ) {
        let mut wait = Duration::ZERO;
        let answer = match answer {
            Err(refused) => Answer::Refused(Refused { seq: Some(seq), ..refused }),
            Ok(mut answer) => {
                for lying in self.lies.iter().filter(|lying| lying.is_on(world.now)) {
                    match lying.lie.tell(&mut answer, world.wall(self.own.at)) {
                        Some(late) => wait += late,
                        None => return,
                    }
                }
                Answer::Given(answer)
            }
        };
        if wait.is_zero() {
            self.answer_now(to, connection, stream, answer, world);
        } else {
            let answer = Box::new(answer);
            world.after(wait, self.own.at, What::Answered { to, connection, stream, answer });
        }
    }

    fn answer_now(
        &mut self,
        to: u32,
        connection: u64,
        stream: u64,
        answer: Answer<HeartbeatResponse>,
        world: &mut World,
    ) {
        if world.net.connection(self.own.at, to) == Some(connection) {
            let bytes = size::answer(&answer);
            let answer = Box::new(answer);
            world.send(self.own.at, to, Kind::Answer, bytes, Message::Answer { stream, answer });
        }
    }

    fn answered(&mut self, from: u32, stream: u64, answer: Answer<HeartbeatResponse>, world: &mut World) {
        if self.probes.contains_key(&stream) {
            self.probe_answered(stream, answer, world);
        } else {
            self.beat_answered(from, stream, answer, world);
        }
    }

    // Probes.

    fn probe(&mut self, peer: &PeerId, world: &mut World) {
        let Some(to) = world.at(peer) else { return };
        let stream = world.fresh();
        self.probes.insert(stream, Probe { to, conversation: Conversation::default() });
        world.after(world.scenario.pool.probe_within, self.own.at, What::ProbeLate { stream });
        if world.net.connection(self.own.at, to).is_some() {
            self.ask_probe(stream, world);
        } else {
            self.dial(to, Want::Probe { stream }, world);
        }
    }

    fn ask_probe(&mut self, stream: u64, world: &mut World) {
        let now = self.now(world);
        let asker = &self.own.asker;
        let Some(probe) = self.probes.get_mut(&stream) else { return };
        let ask = Ask { seq: probe.conversation.ask(), probe: true, ..Ask::default() };
        let heartbeat = asker.question(ask, None, Acked::default(), now.wall);
        probe.conversation.written(&heartbeat, None, now.mono);
        let (to, bytes) = (probe.to, size::heartbeat(&heartbeat));
        let question = Message::Question { stream, heartbeat: Box::new(heartbeat), signed: None };
        world.send(self.own.at, to, Kind::Probe, bytes, question);
    }

    fn probe_answered(&mut self, stream: u64, answer: Answer<HeartbeatResponse>, world: &mut World) {
        let now = self.now(world).mono;
        let Some(probe) = self.probes.get_mut(&stream) else { return };
        let outcome = match probe.conversation.hear(answer, now) {
            Ok(Heard::Given(given)) => Probed::Answered { rtt: given.rtt, fill_rate: Some(given.response.fill_rate) },
            Ok(Heard::Refused(refused)) => unprobed(Some(refused), false),
            Ok(Heard::Late) | Err(_) => Probed::Silent,
        };
        self.probe_ended(stream, outcome, world);
    }

    fn probe_ended(&mut self, stream: u64, outcome: Probed, world: &mut World) {
        if let Some(probe) = self.probes.remove(&stream) {
            let peer = world.id(probe.to);
            self.take(Input::Probed { peer, outcome }, world);
        }
    }

    // Scores.

    fn judge(&mut self, world: &mut World) {
        self.close_idle(world);
        self.audit(world);
        let now = self.now(world);
        for eviction in self.book.judge(&self.members, now.mono) {
            let peer = eviction.peer;
            let (name, score) = (world.name(&peer).to_owned(), &eviction.score);
            let what = format!("evicts {name}: {:.1} below {:.1}", score.high, score.threshold);
            let is_honest = world.at(&peer).is_none_or(|at| world.is_honest[at as usize]);
            if is_honest {
                world.violated(self.own.at, format!("{what}, which is honest"));
            } else {
                world.note(self.own.at, format_args!("{what}"));
            }
            self.take(Input::Evicted { peer }, world);
        }
        if world.keeps_disks {
            let Disk { rows, remembered, disowned, .. } = &mut self.disk;
            *rows = self.book.rows(now);
            rows.retain(|row| remembered.contains_key(&row.peer_id) || disowned.contains(&row.peer_id));
        }
        let ranked = self.book.peers().filter_map(|peer| {
            let is_condemned = self.book.is_condemned(&peer, now.mono);
            self.book.score(&peer, now.mono).map(|score| Ranked { peer, low: score.low, is_condemned })
        });
        let ranked = ranked.collect();
        self.take(Input::Scores(ranked), world);
        world.after(world.scenario.score.judge_every, self.own.at, What::Judge);
    }

    // The record.

    /// Signs when it is due, and looks again when it may be.
    fn claim(&mut self, world: &mut World) {
        let now = self.now(world);
        let signing = self.clocks.signing_time(now.wall);
        let rules = &world.scenario.heartbeat;
        let is_due = self.signed.as_ref().is_none_or(|signed| sign_anew_due(signed.own.expiry_date, signing, rules));
        if is_due {
            self.sign(now, world);
        }
        let half = SignedDuration::try_from(world.scenario.heartbeat.record_life / 2).unwrap_or_default();
        let left = self
            .signed
            .as_ref()
            .map_or(SignedDuration::ZERO, |signed| signed.own.expiry_date.duration_since(signing).saturating_sub(half));
        self.claim_within(Duration::try_from(left).unwrap_or_default(), world);
    }

    /// Looks at its record again by then; it looks once a second at the most.
    pub(super) fn claim_within(&mut self, wait: Duration, world: &mut World) {
        if let Some(at) = self.claim_alarm.set(world.now + wait.max(CLAIM_TICK)) {
            world.after(at.saturating_sub(world.now), self.own.at, What::Claim);
        }
    }

    fn claim_due(&mut self, world: &mut World) {
        let (is_due, again) = self.claim_alarm.rings(world.now);
        if let Some(at) = again {
            world.after(at.saturating_sub(world.now), self.own.at, What::Claim);
        }
        if is_due {
            self.claim(world);
        }
    }

    fn sign(&mut self, now: Now, world: &mut World) {
        let seq = next_seq(self.disk.seq, now);
        if seq <= self.disk.seq {
            world.violated(self.own.at, format!("its number went back from {} to {seq}", self.disk.seq));
        }
        self.disk.seq = seq;
        let signing = self.clocks.signing_time(now.wall);
        let expiry = signing.checked_add(world.scenario.heartbeat.record_life).unwrap_or(signing);
        let record = Verified::sign(&self.record(seq, expiry), &self.own.keys);
        let values = self.values(&record);
        let wire = DhtValues { pid: values.pid.to_raw(), name: values.name.to_raw() };
        let Ok(own) = OwnRecord::new(&record, Some(wire)) else { return };
        let signed = Signed { record: Arc::new(record), own, values: Arc::new(values) };
        if let Some(host) = &mut self.host {
            host.set_own(&signed, now);
        }
        self.signed = Some(Arc::new(signed));
    }

    fn record(&self, seq: u64, expiry_date: Timestamp) -> PeerRecord {
        let own = &self.own;
        PeerRecord {
            name: own.name.clone(),
            did: own.did.clone(),
            pub_key: own.keys.pub_key().to_owned(),
            peer_id: own.peer,
            api_url: String::new(),
            stream_address: crate::addr::with_peer(&own.addr, own.peer).to_string(),
            addrs: vec![own.addr.clone()],
            nats_address: String::new(),
            wallet_address: String::new(),
            capabilities: capabilities(role(own.is_indexer)).into_iter().map(str::to_owned).collect(),
            born_at: self.born_at,
            expiry_date,
            seq,
        }
    }

    fn values(&self, record: &PeerRecord) -> Values {
        let PeerRecord { name, did, pub_key, peer_id, expiry_date, seq, .. } = record.clone();
        let pid = PidValue { did: did.clone(), peer_id, seq, expiry_date, pub_key: pub_key.clone() };
        let name = NameClaim { name, did, peer_id, seq, expiry_date, pub_key };
        Values { pid: Verified::sign(&pid, &self.own.keys), name: Verified::sign(&name, &self.own.keys) }
    }

    // What must hold.

    /// What is broken of what always holds; looked at after each of its events.
    pub(super) fn broken(&self, most: usize) -> Option<String> {
        if self.members.len() > most {
            return Some(format!("{} members, expected at most {most}", self.members.len()));
        }
        if self.is_own_member {
            return Some("it is in its own pool".to_owned());
        }
        let host = self.host.as_ref()?;
        let sessions = host.registry.count();
        (sessions > self.own.max_nodes).then(|| format!("{sessions} sessions, expected at most {}", self.own.max_nodes))
    }

    /// What grew past its bound; looked at now and then.
    pub(super) fn unbounded(&self, world: &World) -> Option<String> {
        let scenario = &world.scenario;
        let known = self.pool.shown(self.now(world).mono).len();
        let bounds = [
            ("indexers scored", self.book.len(), scenario.score.indexers_max),
            ("heartbeats", self.beats.len(), self.members.len()),
            ("audits", self.audits.len(), self.members.len() + 1),
            ("probes", self.probes.len(), scenario.pool.probes_max as usize),
            ("peers shown", known, 2 * scenario.pool.candidates_max as usize + 128),
            ("remembered", self.disk.remembered.len(), scenario.pool.remembered_max as usize + self.members.len()),
        ];
        let over = bounds.into_iter().find(|(_, len, max)| len > max);
        over.map(|(what, len, max)| format!("{len} {what}, expected at most {max}"))
            .or_else(|| self.host.as_ref()?.unbounded(&self.own))
    }

    /// How many members answer.
    pub(super) fn answering(&self) -> usize {
        self.pool.answering().len()
    }

    /// Whether this peer stands in its pool as one that answers.
    pub(super) fn is_answering(&self, peer: &PeerId, now: Mono) -> bool {
        let is_it = |shown: crate::pool::Shown| shown.peer == *peer && shown.state == State::Answering;
        self.pool.is_member(peer) && self.pool.shown(now).into_iter().any(is_it)
    }
}

fn new_pool(own: &Own, world: &World) -> Pool {
    let scenario = &world.scenario;
    let owner = Owner {
        peer_id: own.peer,
        is_indexer: own.is_indexer,
        is_diverse: scenario.profile.is_diverse(),
        rule: Rule { is_local: !scenario.profile.drops_private(), private_ranges: Vec::new() },
    };
    Pool::new(scenario.pool.clone(), scenario.heartbeat.clone(), owner)
}

/// A probe that was refused or did not reach it.
fn unprobed(refused: Option<Refused>, is_unreached: bool) -> Probed {
    match refused {
        Some(Refused { retry_after: Some(secs), alternatives, .. }) => {
            Probed::Busy { retry_after: Duration::from_secs(secs), alternatives }
        }
        // Before any stream; `actors/src/probe.rs` calls every failure to open one so.
        Some(Refused { refused: RefusalCode::Network | RefusalCode::Version, .. }) => Probed::Unreachable,
        Some(_) => Probed::Silent,
        None if is_unreached => Probed::Unreachable,
        None => Probed::Silent,
    }
}
