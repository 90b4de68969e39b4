//! A member's heartbeats: what `actors/src/heartbeat.rs` and its supervisor do between the rules.

use std::time::Duration;

use jiff::Timestamp;
use libp2p_identity::PeerId;
use rand::rngs::StdRng;

use super::{
    host::DHT_TAKES,
    member::{Alarm, Member, Want},
    message::{Message, What},
    report::Kind,
    size,
    world::World,
};
use crate::{
    heartbeat::{
        self, Ask, Challenges, Conversation, DhtChallenge, Given, Heard, OwnRecordKey, RESTARTS, Rhythm, Verdict,
        judge_challenge,
    },
    offload::Load,
    pool::Input,
    restarts::{self, Restarts},
    score::Observation,
    time::{Mono, Now},
    wire::{AddrInfo, Answer, HeartbeatResponse, Refused},
};

/// From the wish for a stream to the stream: `OPEN_WITHIN` of the actor.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Closed,
    Opening { stream: u64 },
    Open { stream: u64 },
}

/// One heartbeat.
#[derive(Debug)]
pub(super) struct Beat {
    life: u64,
    is_resting: bool,
    rhythm: Rhythm,
    pub(super) referent: bool,
    conversation: Conversation,
    challenges: Challenges,
    dht: DhtChallenge,
    /// Its `born_at`, and since when it says so.
    pub(super) born: Option<(Timestamp, Mono)>,
    /// Witnesses that are being asked, one round at a time.
    pub(super) round: Option<u64>,
    /// When it last answered, and its `born_at` and fill rate then; more than one life long.
    pub(super) heard: Option<(Mono, Timestamp, f64)>,
    /// Sessions that it claims.
    pub(super) claimed: Option<u32>,
    /// The record for which an extra beat was made.
    nudged_for: Option<u64>,
    line: Line,
    /// The question whose answer is waited for.
    waiting: Option<u64>,
    alarm: Alarm,
    restarts: Restarts,
}

impl Beat {
    fn new(settings: &heartbeat::Settings, rng: &mut StdRng) -> Self {
        Self {
            life: 0,
            is_resting: false,
            rhythm: Rhythm::default(),
            referent: false,
            conversation: Conversation::default(),
            challenges: Challenges::new(settings, rng),
            dht: DhtChallenge::default(),
            born: None,
            round: None,
            heard: None,
            claimed: None,
            nudged_for: None,
            line: Line::Closed,
            waiting: None,
            alarm: Alarm::default(),
            restarts: Restarts::new(RESTARTS),
        }
    }
}

impl Member {
    pub(super) fn start_beat(&mut self, peer: &PeerId, world: &mut World) {
        let Some(at) = world.at(peer) else { return };
        let beat = Beat::new(&world.scenario.heartbeat, &mut self.rng);
        self.beats.insert(at, beat);
        self.begin_beat(at, world);
    }

    /// A life begins, with what the pool wants said.
    fn begin_beat(&mut self, peer: u32, world: &mut World) {
        let id = world.id(peer);
        let challenges = Challenges::new(&world.scenario.heartbeat, &mut self.rng);
        let mut rhythm = self.pool.rhythm(&id);
        rhythm.restarted();
        let Some(beat) = self.beats.get_mut(&peer) else { return };
        beat.life = world.fresh();
        beat.is_resting = false;
        beat.rhythm = rhythm;
        beat.referent = self.pool.referent() == Some(id);
        beat.conversation = Conversation::default();
        beat.challenges = challenges;
        beat.dht = DhtChallenge::default();
        beat.born = None;
        beat.round = None;
        beat.nudged_for = None;
        beat.line = Line::Closed;
        beat.waiting = None;
        self.arm(peer, world);
    }

    pub(super) fn nudge_beat(&mut self, peer: &PeerId, world: &mut World) {
        let Some(at) = world.at(peer) else { return };
        if let Some(beat) = self.beats.get_mut(&at) {
            beat.rhythm.nudge();
            self.arm(at, world);
        }
    }

    /// While a question is under way its answer arms the next beat.
    fn arm(&mut self, peer: u32, world: &mut World) {
        let me = self.own.at;
        let Some(beat) = self.beats.get(&peer) else { return };
        if beat.is_resting || beat.waiting.is_some() || matches!(beat.line, Line::Opening { .. }) {
            return;
        }
        let due = self.run_time(beat.rhythm.due(&world.scenario.heartbeat)).max(world.now);
        let Some(beat) = self.beats.get_mut(&peer) else { return };
        if let Some(at) = beat.alarm.set(due) {
            world.after(at.saturating_sub(world.now), me, What::Beat { peer });
        }
    }

    pub(super) fn beat_rings(&mut self, peer: u32, world: &mut World) {
        let me = self.own.at;
        let Some(beat) = self.beats.get_mut(&peer) else { return };
        let (is_due, again) = beat.alarm.rings(world.now);
        if let Some(at) = again {
            world.after(at.saturating_sub(world.now), me, What::Beat { peer });
        }
        if !is_due || beat.is_resting || beat.waiting.is_some() {
            return;
        }
        match beat.line {
            Line::Closed => self.open_line(peer, world),
            Line::Opening { .. } => {}
            Line::Open { stream } => self.beat(peer, stream, world),
        }
    }

    fn open_line(&mut self, peer: u32, world: &mut World) {
        let stream = world.fresh();
        if let Some(beat) = self.beats.get_mut(&peer) {
            beat.line = Line::Opening { stream };
        }
        world.after(OPEN_WITHIN, self.own.at, What::OpenLate { peer, stream });
        if world.net.connection(self.own.at, peer).is_some() {
            self.open(peer, Want::Beat { stream }, world);
        } else {
            self.dial(peer, Want::Beat { stream }, world);
        }
    }

    fn is_opening(&self, peer: u32, stream: u64) -> bool {
        self.beats.get(&peer).is_some_and(|beat| beat.line == Line::Opening { stream })
    }

    pub(super) fn beat_opened(&mut self, peer: u32, stream: u64, world: &mut World) {
        if self.is_opening(peer, stream) {
            self.beat(peer, stream, world);
        }
    }

    pub(super) fn open_late(&mut self, peer: u32, stream: u64, world: &mut World) {
        if self.is_opening(peer, stream) {
            self.rest(peer);
            self.tell_missed(peer, world);
            self.beat_failed(peer, world);
        }
    }

    /// The dial for a stream came to nothing.
    pub(super) fn not_opened(
        &mut self,
        peer: u32,
        stream: u64,
        refused: Option<Refused>,
        is_unreached: bool,
        world: &mut World,
    ) {
        if !self.is_opening(peer, stream) {
            return;
        }
        if let Some(secs) = refused.as_ref().and_then(|refused| refused.retry_after) {
            let alternatives = refused.map(|refused| refused.alternatives).unwrap_or_default();
            self.wait_politely(peer, secs, alternatives, world);
            return;
        }
        self.rest(peer);
        self.tell_reset(peer, is_unreached, world);
        self.beat_failed(peer, world);
    }

    fn beat(&mut self, peer: u32, stream: u64, world: &mut World) {
        let (me, now, need) = (self.own.at, self.now(world), self.pool.need());
        let (asker, signed) = (&self.own.asker, self.signed.clone());
        let settings = &world.scenario.heartbeat;
        let Some(beat) = self.beats.get_mut(&peer) else { return };
        beat.line = Line::Open { stream };
        let is_challenge = beat.challenges.draw(settings, now.mono, &mut self.rng);
        let seq = beat.conversation.ask();
        let challenge_did = beat.dht.draw().then(|| asker.did.clone());
        let ask = Ask { seq, need, referent: beat.referent, is_challenge, challenge_did, probe: false };
        let record = signed.as_ref().map(|signed| &signed.own);
        let heartbeat = asker.question(ask, record, beat.conversation.acked(), now.wall);
        beat.rhythm.sent(now.mono, settings, &mut self.rng);
        beat.conversation.written(&heartbeat, record, now.mono);
        beat.waiting = Some(seq);
        let (life, within) = (beat.life, settings.answer_within);
        let id = world.id(peer);
        self.take(Input::Sent { peer: id }, world);
        let bytes = size::heartbeat(&heartbeat);
        let signed = signed.filter(|_| heartbeat.record.is_some());
        let heartbeat = Box::new(heartbeat);
        world.send(me, peer, Kind::Beat, bytes, Message::Question { stream, heartbeat, signed });
        world.after(within, me, What::Late { peer, life, seq });
    }

    pub(super) fn beat_late(&mut self, peer: u32, life: u64, seq: u64, world: &mut World) {
        let is_late = self.beats.get(&peer).is_some_and(|beat| beat.life == life && beat.waiting == Some(seq));
        if is_late {
            let name = world.names[peer as usize].clone();
            world.note(self.own.at, format_args!("missed {name}"));
            self.rest(peer);
            self.tell_missed(peer, world);
            self.beat_failed(peer, world);
        }
    }

    pub(super) fn beat_answered(
        &mut self,
        peer: u32,
        stream: u64,
        answer: Answer<HeartbeatResponse>,
        world: &mut World,
    ) {
        let now = self.now(world);
        let Some(beat) = self.beats.get_mut(&peer).filter(|beat| beat.line == Line::Open { stream }) else { return };
        match beat.conversation.hear(answer, now.mono) {
            Ok(Heard::Given(given)) => self.given(peer, *given, world),
            Ok(Heard::Refused(refused)) => self.refused(peer, refused, world),
            Ok(Heard::Late) => {}
            Err(error) => {
                let name = world.names[peer as usize].clone();
                world.note(self.own.at, format_args!("does not believe {name}: {error}"));
                self.rest(peer);
                self.tell_missed(peer, world);
                self.beat_failed(peer, world);
            }
        }
    }

    fn given(&mut self, peer: u32, given: Given, world: &mut World) {
        let (now, id) = (self.now(world), world.id(peer));
        let newest = self.signed.as_ref().map(|signed| signed.own.seq);
        let response = &given.response;
        let Some(beat) = self.beats.get_mut(&peer) else { return };
        beat.waiting = None;
        let held = response.record_seq;
        // An indexer that lacks the record is given it at once, once per record.
        let lacks = newest.filter(|seq| held.is_none_or(|held| held < *seq) && beat.nudged_for != Some(*seq));
        if lacks.is_some() {
            beat.nudged_for = lacks;
            beat.rhythm.nudge();
        }
        let answered = Observation::Answered {
            rtt: given.rtt,
            fill_rate: response.fill_rate,
            peer_count: response.peer_count,
            max_nodes: response.max_nodes,
            born_at: response.born_at,
        };
        self.book.observe(id, &answered, now.mono);
        beat.challenges.answered(!given.challenged.is_empty(), now.mono);
        if !given.challenged.is_empty() {
            let settings = &world.scenario.heartbeat;
            let ahead = self.clocks.of(&id).unwrap_or_default();
            let verdict = judge_challenge(&self.own.peer, &response.challenges, ahead, now.wall, settings);
            self.book.observe(id, &verdict.into(), now.mono);
            if verdict == Verdict::Unfound {
                beat.challenges.doubt();
                let name = world.names[peer as usize].clone();
                world.note(self.own.at, format_args!("{name} answered a challenge wrongly"));
            }
        }
        if let Some(good) = given.is_recorded {
            self.book.observe(id, &Observation::Recorded { good }, now.mono);
        }
        self.judge_dht(peer, &given.response, now, world);
        self.hear_of(peer, &given, now, world);
        self.unreached.remove(&peer);
        let (rtt, name) = (given.rtt.as_micros(), &world.names[peer as usize]);
        world.log.line(world.now, self.own.at, format_args!("{name} answers {} in {rtt} us", response.seq));
        let HeartbeatResponse { suggestions, suggest_migrate, fill_rate, .. } = given.response;
        let referent = given.referent;
        self.take(Input::Answered { peer: id, referent, suggestions, suggest_migrate, fill_rate }, world);
        self.arm(peer, world);
    }

    fn judge_dht(&mut self, peer: u32, response: &HeartbeatResponse, now: Now, world: &mut World) {
        let newest_seq = self.signed.as_ref().map_or(0, |signed| signed.own.seq);
        let key = OwnRecordKey { peer_id: &self.own.peer, did: &self.own.did, newest_seq };
        let Some(beat) = self.beats.get_mut(&peer) else { return };
        let Some(good) = beat.dht.heard(response, &key, self.clocks.signing_time(now.wall)) else { return };
        self.book.observe(world.id(peer), &Observation::Dht { good }, now.mono);
        if !good {
            let name = world.names[peer as usize].clone();
            world.note(self.own.at, format_args!("{name} did not find our record in the DHT"));
        }
    }

    /// What it says of itself is kept for comparison, and compared when it was challenged.
    fn hear_of(&mut self, peer: u32, given: &Given, now: Now, world: &mut World) {
        let response = &given.response;
        let Some(beat) = self.beats.get_mut(&peer) else { return };
        beat.heard = Some((now.mono, response.born_at, response.fill_rate));
        beat.claimed = Some(response.peer_count);
        beat.born = beat.born.filter(|(born, _)| *born == response.born_at).or(Some((response.born_at, now.mono)));
        if let Some(host) = &mut self.host {
            // One that asks even an indexer to move takes nobody.
            let capacity = if response.suggest_migrate { 0 } else { response.max_nodes };
            host.loads.hear(world.id(peer), Load { sessions: response.peer_count, capacity }, now.mono);
        }
        let ahead = self.clocks.of(&world.id(peer)).unwrap_or_default();
        let is_batch = !given.challenged.is_empty() && !beat.challenges.is_doubted();
        let (life, is_time) = (beat.life, beat.dht.answered(is_batch, ahead));
        if is_batch {
            self.ask_witnesses(peer, given, now.mono, world);
        }
        if is_time {
            // Only what we found ourselves is an indexer asked to find.
            let is_there = world.dht.has_node(self.own.at, self.own.at, now.wall, &world.net);
            world.after(DHT_TAKES, self.own.at, What::Looked { peer, life, is_there });
        }
    }

    pub(super) fn looked(&mut self, peer: u32, life: u64, is_there: bool) {
        if let Some(beat) = self.beats.get_mut(&peer).filter(|beat| beat.life == life) {
            beat.dht.looked(is_there);
        }
    }

    fn refused(&mut self, peer: u32, refused: Refused, world: &mut World) {
        let name = world.names[peer as usize].clone();
        world.note(self.own.at, format_args!("is refused by {name}: {:?}", refused.refused));
        if let Some(secs) = refused.retry_after {
            self.wait_politely(peer, secs, refused.alternatives, world);
            return;
        }
        self.rest(peer);
        self.tell_reset(peer, false, world);
        self.beat_failed(peer, world);
    }

    /// To wait as long as one was asked to is no failure, and spends no restart.
    fn wait_politely(&mut self, peer: u32, secs: u64, alternatives: Vec<AddrInfo>, world: &mut World) {
        let (now, id, retry_after) = (self.now(world).mono, world.id(peer), Duration::from_secs(secs));
        let Some(beat) = self.beats.get_mut(&peer) else { return };
        beat.rhythm.retry_after(retry_after, now);
        beat.dht.refused(retry_after);
        beat.line = Line::Closed;
        beat.waiting = None;
        self.take(Input::Busy { peer: id, retry_after, alternatives }, world);
        self.arm(peer, world);
    }

    /// The connection is gone, and the stream with it.
    pub(super) fn beat_broken(&mut self, peer: u32, world: &mut World) {
        let Some(beat) = self.beats.get(&peer) else { return };
        let is_open = match beat.line {
            Line::Closed => false,
            Line::Open { .. } => true,
            // One that is still being dialled hears from its dial.
            Line::Opening { .. } => !self.is_dialling(peer),
        };
        if is_open {
            self.rest(peer);
            self.tell_reset(peer, false, world);
            self.beat_failed(peer, world);
        }
    }

    /// Its life is over; nothing that it waited for counts.
    fn rest(&mut self, peer: u32) {
        if let Some(beat) = self.beats.get_mut(&peer) {
            beat.is_resting = true;
            beat.round = None;
            beat.line = Line::Closed;
            beat.waiting = None;
        }
    }

    fn tell_missed(&mut self, peer: u32, world: &mut World) {
        let (now, id) = (self.now(world).mono, world.id(peer));
        self.book.observe(id, &Observation::Missed, now);
        self.take(Input::Missed { peer: id }, world);
    }

    fn tell_reset(&mut self, peer: u32, is_unreached: bool, world: &mut World) {
        let (now, id) = (self.now(world).mono, world.id(peer));
        self.book.observe(id, &Observation::Missed, now);
        if is_unreached && self.pool.is_member(&id) {
            self.unreached.insert(peer);
        }
        self.take(Input::Reset { peer: id }, world);
    }

    /// What the supervisor does: another life after a pause, or none.
    fn beat_failed(&mut self, peer: u32, world: &mut World) {
        let (now, me) = (self.now(world).mono, self.own.at);
        // The pool may have stopped it meanwhile, or begun another.
        let Some(beat) = self.beats.get_mut(&peer).filter(|beat| beat.is_resting) else { return };
        match beat.restarts.failed(now, &mut self.rng) {
            restarts::Verdict::RestartAfter(pause) => world.after(pause, me, What::Restart { peer, life: beat.life }),
            restarts::Verdict::Spent => self.beat_spent(peer, world),
        }
    }

    pub(super) fn beat_restarts(&mut self, peer: u32, life: u64, world: &mut World) {
        if self.beats.get(&peer).is_some_and(|beat| beat.life == life && beat.is_resting) {
            self.begin_beat(peer, world);
        }
    }

    fn beat_spent(&mut self, peer: u32, world: &mut World) {
        let id = world.id(peer);
        self.beats.remove(&peer);
        // Only what could not be reached is gone; one that refused us may serve others.
        if self.unreached.remove(&peer)
            && let Some(host) = &mut self.host
        {
            host.lost(&self.own, &id, world);
        }
        self.take(Input::BudgetSpent { peer: id }, world);
    }
}
