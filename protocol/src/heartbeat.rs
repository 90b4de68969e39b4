//! One heartbeat: when it may go, what it asks, and how its answer is measured and judged.
//!
//! A [`Rhythm`] says when; an [`Asker`] builds the question; a [`Conversation`] matches answers to questions on one
//! stream; [`Challenges`] draws the questions whose answers we can check.

use std::{collections::VecDeque, time::Duration};

use jiff::{SignedDuration, Timestamp};
use libp2p_identity::PeerId;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    record::PeerRecord,
    restarts,
    score::Observation,
    signed::Verified,
    time::Mono,
    trace::Traceparent,
    wire::{Answer, ChallengeAnswer, DhtValues, Heartbeat, HeartbeatResponse, Refused},
};

/// The longest silence that an answer may ask for: a ban's first length. Longer wishes are cut, so that no indexer
/// can silence a node for ever.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// A heartbeat that failed is given a new stream this soon, and thrice within 90 s; then its indexer is lost.
pub const RESTARTS: restarts::Settings = restarts::Settings {
    restarts_max: 3,
    within: Duration::from_secs(90),
    pause_first: Duration::from_secs(1),
    pause_max: Duration::from_secs(20),
    factor: 2,
    jitter: 0.1,
};

/// An indexer's own time is taken off a round trip up to this: whoever takes longer is slow, whatever he does meanwhile.
const SERVED_MAX: Duration = Duration::from_millis(500);

/// Batches that follow each other after a check failed: as many as catch one that fails them all.
const DOUBTED_BATCHES: u32 = 10;

/// Every so many batches of challenges our own record is asked for in the DHT too: some nine minutes per indexer.
pub const DHT_BATCHES: u32 = 5;

/// So many for the first time, and where we did not find it ourselves: some four minutes.
const DHT_BATCHES_FIRST: u32 = 2;

/// After an answer our session there is sure to live for so long: three quarters of its life.
const SESSION_SURE: Duration = Duration::from_secs(90);

/// Our record is sure to be found for so long after we found it: half of what we sign it for.
const RECORD_SURE: Duration = Duration::from_secs(60);

/// Answers, the wrong one among them, after which we look for the record again, to ask with the next. An honest indexer that
/// cannot see it says so one tick later, some four minutes after it said so last: the nine that convict span half an hour,
/// however often it is challenged meanwhile.
const DHT_TICKS_AGAIN: u32 = 10;

/// Answers within which a DHT challenge is answered: that to the question itself, and those of two more ticks, for the
/// indexer looks up beside its answers and not before them.
const DHT_ANSWERS_MAX: u32 = 3;

/// How far the clocks of two members may be apart without blame.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(30);

/// How heartbeats go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Time between two beats to one indexer.
    #[serde(with = "crate::time::text")]
    pub every: Duration,
    /// Share of `every` that chance adds, so that nodes do not beat in step; 0 to 1.
    pub jitter: f64,
    /// An answer that takes longer is missed.
    #[serde(with = "crate::time::text")]
    pub answer_within: Duration,
    /// After a restart the next beat waits until this long after the last one.
    #[serde(with = "crate::time::text")]
    pub gap_min: Duration,
    /// Most beats and probes to one indexer within `ceiling_within`; below the indexer's own limit of 8.
    pub ceiling: u32,
    /// The time over which `ceiling` is counted.
    #[serde(with = "crate::time::text")]
    pub ceiling_within: Duration,
    /// Least ticks from one batch of challenges to the next.
    pub challenge_every_min: u32,
    /// Most ticks from one batch of challenges to the next.
    pub challenge_every_max: u32,
    /// A challenged peer must have been seen this recently.
    #[serde(with = "crate::time::text")]
    pub seen_within: Duration,
    /// From signing a record to its expiry.
    #[serde(with = "crate::time::text")]
    pub record_life: Duration,
    /// Answered beats from one spot check of an indexer to the next.
    pub spot_every: u32,
    /// Answered beats over which the subnets of the peers that an indexer names are counted.
    pub subnets_every: u32,
    /// Answered beats from one bandwidth probe to the next.
    pub bandwidth_every: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(20),
            jitter: 0.10,
            answer_within: Duration::from_secs(5),
            gap_min: Duration::from_secs(5),
            ceiling: 5,
            ceiling_within: Duration::from_secs(60),
            challenge_every_min: 1,
            challenge_every_max: 10,
            seen_within: Duration::from_secs(120),
            record_life: Duration::from_secs(120),
            spot_every: 5,
            subnets_every: 10,
            bandwidth_every: 15,
        }
    }
}

/// When the next beat to one indexer may go.
///
/// It outlives the actor that beats: its owner keeps it over restarts, so that a crash loop cannot exceed the ceiling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rhythm {
    /// Beats and probes, oldest first; at most `ceiling` of them.
    sent: VecDeque<Mono>,
    last_beat: Option<Mono>,
    planned: Mono,
    is_nudged: bool,
    is_restarted: bool,
    not_before: Mono,
}

impl Rhythm {
    /// When the next beat goes; a point in the past means at once.
    #[must_use]
    pub fn due(&self, settings: &Settings) -> Mono {
        let wanted = if self.is_nudged || self.is_restarted { Mono::ZERO } else { self.planned };
        let gap = match self.last_beat {
            Some(last) if self.is_restarted => last + settings.gap_min,
            _ => Mono::ZERO,
        };
        wanted.max(gap).max(self.allowed_at(settings))
    }

    /// From when on the ceiling and the indexer's wish allow a beat or a probe.
    #[must_use]
    pub fn allowed_at(&self, settings: &Settings) -> Mono {
        let ceiling = settings.ceiling.max(1) as usize;
        let under_ceiling = match self.sent.len().checked_sub(ceiling).and_then(|oldest| self.sent.get(oldest)) {
            Some(oldest) => *oldest + settings.ceiling_within,
            None => Mono::ZERO,
        };
        under_ceiling.max(self.not_before)
    }

    /// Nothing was sent lately that the ceiling counts, and no silence was asked for.
    #[must_use]
    pub fn is_idle(&self, now: Mono, settings: &Settings) -> bool {
        let last = self.sent.back();
        last.is_none_or(|last| now.since(*last) >= settings.ceiling_within) && now >= self.not_before
    }

    /// A beat goes now; the next ordinary one is planned.
    pub fn sent(&mut self, now: Mono, settings: &Settings, rng: &mut impl Rng) {
        self.count(now, settings);
        self.last_beat = Some(now);
        self.planned = now + settings.every + jittered(settings.every, settings.jitter, rng);
        self.is_nudged = false;
        self.is_restarted = false;
    }

    /// A probe goes now: it counts for the ceiling, but it is no beat.
    pub fn probed(&mut self, now: Mono, settings: &Settings) {
        self.count(now, settings);
    }

    /// The next beat goes at once, as far as the ceiling and `retry_after` allow.
    pub fn nudge(&mut self) {
        self.is_nudged = true;
    }

    /// The actor begins anew: it beats as soon as the last beat is `gap_min` ago.
    pub fn restarted(&mut self) {
        self.is_restarted = true;
    }

    /// The indexer asks for silence, cut to [`RETRY_AFTER_MAX`].
    pub fn retry_after(&mut self, wait: Duration, now: Mono) {
        self.not_before = self.not_before.max(now + wait.min(RETRY_AFTER_MAX));
    }

    fn count(&mut self, now: Mono, settings: &Settings) {
        self.sent.push_back(now);
        while self.sent.len() > settings.ceiling.max(1) as usize {
            self.sent.pop_front();
        }
    }
}

/// A random part of `share` of `whole`; nothing when `share` is no share.
pub(crate) fn jittered(whole: Duration, share: f64, rng: &mut impl Rng) -> Duration {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    whole.mul_f64(share * rng.random::<f64>())
}

/// The node's own record as it was signed, ready for the wire.
#[derive(Clone, Debug)]
pub struct OwnRecord {
    /// Its `seq`.
    pub seq: u64,
    /// Not valid from here on.
    pub expiry_date: Timestamp,
    /// The text that was signed.
    pub text: Box<RawValue>,
    /// What the referent puts into the DHT beside it, signed at the same time.
    pub values: Option<DhtValues>,
}

/// What an indexer has of us already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acked {
    /// `seq` of the newest record that it said it holds.
    pub record: Option<u64>,
    /// `seq` of the record whose DHT values it answered to.
    pub values: Option<u64>,
}

impl OwnRecord {
    /// Makes the signed record ready, once for all heartbeats.
    ///
    /// # Errors
    /// When the signed text is not JSON, which verification rules out.
    pub fn new(record: &Verified<PeerRecord>, values: Option<DhtValues>) -> Result<Self, serde_json::Error> {
        let text = RawValue::from_string(record.text().to_string())?;
        Ok(Self { seq: record.seq, expiry_date: record.expiry_date, text, values })
    }
}

/// A record is signed anew when half its life is gone; or when it lasts longer than it can, because the clock went back.
///
/// `now` is the time that is signed with ([`crate::hello::ClockWatch::signing_time`]), or a clock that is known to be
/// behind would sign anew at every look.
#[must_use]
pub fn sign_anew_due(expiry_date: Timestamp, now: Timestamp, settings: &Settings) -> bool {
    let life = SignedDuration::try_from(settings.record_life).unwrap_or(SignedDuration::MAX);
    let left = expiry_date.duration_since(now);
    left <= life / 2 || left > life
}

/// Who asks: the same in every heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The node's name.
    pub name: String,
    /// Its DID.
    pub did: String,
    /// Its peer id.
    pub peer_id: PeerId,
}

/// What one heartbeat asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Given by [`Conversation::ask`].
    pub seq: u64,
    /// How many more indexers the pool wants.
    pub need: u32,
    /// The indexer represents the node in search.
    pub referent: bool,
    /// Given by [`Challenges::draw`]: whether it finds us is asked, too.
    pub is_challenge: bool,
    /// A DID to look up in the DHT; see [`DhtChallenge`].
    pub challenge_did: Option<String>,
    /// An answer is wanted, a session is not.
    pub probe: bool,
}

impl Asker {
    /// The heartbeat to write. The record goes along while the indexer has not acknowledged its `seq`, the DHT values
    /// with it while a referent has not; never in a probe, and never when it expired.
    #[must_use]
    pub fn question(&self, ask: Ask, record: Option<&OwnRecord>, acked: Acked, now: Timestamp) -> Heartbeat {
        let lacks = |acked: Option<u64>, record: &OwnRecord| acked.is_none_or(|acked| acked < record.seq);
        let record = record.filter(|record| !ask.probe && now < record.expiry_date);
        let values = record
            .filter(|record| ask.referent && lacks(acked.values, record))
            .and_then(|record| record.values.clone());
        let record =
            record.filter(|record| values.is_some() || lacks(acked.record, record)).map(|record| record.text.clone());
        Heartbeat {
            seq: ask.seq,
            name: self.name.clone(),
            did: self.did.clone(),
            peer_id: self.peer_id,
            timestamp: now.as_second(),
            need: ask.need,
            record,
            values,
            challenges: if ask.is_challenge { vec![self.peer_id] } else { Vec::new() },
            challenge_did: ask.challenge_did,
            referent: ask.referent,
            probe: ask.probe,
            presence: None,
            traceparent: Traceparent::Absent,
        }
    }
}

/// Why an answer is not believed; the stream is of no further use.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AnswerError {
    /// Nobody asked.
    #[error("got an answer to question {got}, expected one to {expected}")]
    Unasked {
        /// The answer's `seq`.
        got: u64,
        /// The last question's `seq`.
        expected: u64,
    },
    /// No ratio.
    #[error("got fill rate {got}, expected 0 to 1")]
    FillRate {
        /// What it said.
        got: f64,
    },
    /// More sessions than it has room for.
    #[error("got {got} peers, expected at most its {max_nodes} nodes")]
    PeerCount {
        /// What it said.
        got: u32,
        /// What it said it has room for.
        max_nodes: u32,
    },
    /// It answered other challenges than were asked.
    #[error("got {got} challenge answers, expected at most one for each of {asked} asked")]
    Challenges {
        /// How many it gave.
        got: usize,
        /// How many were asked.
        asked: usize,
    },
}

/// A measured and believable answer.
#[derive(Clone, Debug)]
pub struct Given {
    /// What the indexer said.
    pub response: HeartbeatResponse,
    /// From the last byte written to the first byte read, less the indexer's own time.
    pub rtt: Duration,
    /// It claimed to have served longer than the answer took; the claim is not taken off.
    pub is_served_time_false: bool,
    /// What was challenged.
    pub challenged: Vec<PeerId>,
    /// The question told it that it is the referent.
    pub referent: bool,
    /// The question carried our record: whether the answer says that it is held.
    pub is_recorded: Option<bool>,
}

/// What was heard on the stream.
#[derive(Clone, Debug)]
pub enum Heard {
    /// The answer that is waited for.
    Given(Box<Given>),
    /// A refusal of the question that is waited for.
    Refused(Refused),
    /// An answer to an earlier question: counted, never taken for the next.
    Late,
}

#[derive(Clone, Debug)]
struct Waiting {
    challenged: Vec<PeerId>,
    referent: bool,
    /// `seq` of the record that went along.
    record: Option<u64>,
    /// `seq` of the record whose DHT values went along.
    values: Option<u64>,
    written: Mono,
}

/// Questions and answers on one heartbeat stream.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    last_seq: u64,
    waiting: Option<Waiting>,
    /// Questions given up, whose answers may still come.
    abandoned: u64,
    late: u64,
    acked: Acked,
}

impl Conversation {
    /// The `seq` of the next question. A question still unanswered is given up: its answer will be late.
    pub fn ask(&mut self) -> u64 {
        self.missed();
        self.last_seq += 1;
        self.last_seq
    }

    /// The last byte of `question` was written, which was built from `record`.
    pub fn written(&mut self, question: &Heartbeat, record: Option<&OwnRecord>, at: Mono) {
        let values = record.filter(|_| question.values.is_some()).map(|record| record.seq);
        let carried = record.filter(|_| question.record.is_some()).map(|record| record.seq);
        let challenged = question.challenges.clone();
        self.waiting = Some(Waiting { challenged, referent: question.referent, record: carried, values, written: at });
    }

    /// From when on the answer is missed; nothing while none is waited for.
    #[must_use]
    pub fn deadline(&self, settings: &Settings) -> Option<Mono> {
        self.waiting.as_ref().map(|waiting| waiting.written + settings.answer_within)
    }

    /// The answer did not come in time.
    pub fn missed(&mut self) {
        if self.waiting.take().is_some() {
            self.abandoned += 1;
        }
    }

    /// What the indexer has of us already.
    #[must_use]
    pub fn acked(&self) -> Acked {
        self.acked
    }

    /// Answers that came too late.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Matches an answer whose first byte was read at `first_byte`.
    ///
    /// # Errors
    /// When nobody asked for it, or it says what cannot be: the answer counts as missed and the stream should end.
    pub fn hear(&mut self, answer: Answer<HeartbeatResponse>, first_byte: Mono) -> Result<Heard, AnswerError> {
        // A refusal that does not say which question it refuses can only mean the one that waits.
        let seq = match &answer {
            Answer::Refused(refused) => refused.seq.unwrap_or(self.last_seq),
            Answer::Given(response) => response.seq,
        };
        let Some(waiting) = self.waiting.take_if(|_| seq == self.last_seq) else {
            return self.hear_late(seq);
        };
        match answer {
            Answer::Refused(refused) => Ok(Heard::Refused(refused)),
            Answer::Given(response) => {
                believable(&response, &waiting.challenged)?;
                let values = waiting.values.or(self.acked.values);
                // One that lost the record lost its values too.
                let values = values.filter(|values| response.record_seq.is_some_and(|held| held >= *values));
                self.acked = Acked { record: response.record_seq, values };
                Ok(Heard::Given(Box::new(measure(response, waiting, first_byte))))
            }
        }
    }

    /// No more late answers are taken than questions were given up, so a peer cannot keep us reading.
    fn hear_late(&mut self, seq: u64) -> Result<Heard, AnswerError> {
        if seq > self.last_seq || self.late >= self.abandoned {
            return Err(AnswerError::Unasked { got: seq, expected: self.last_seq });
        }
        self.late += 1;
        Ok(Heard::Late)
    }
}

fn measure(response: HeartbeatResponse, waiting: Waiting, first_byte: Mono) -> Given {
    let elapsed = first_byte.since(waiting.written);
    let served = Duration::from_micros(response.served_us);
    let believed = served.min(SERVED_MAX);
    let is_served_time_false = served > elapsed;
    let rtt = if is_served_time_false { elapsed } else { elapsed - believed.min(elapsed) };
    let is_recorded = waiting.record.map(|carried| response.record_seq.is_some_and(|held| held >= carried));
    let Waiting { challenged, referent, .. } = waiting;
    Given { response, rtt, is_served_time_false, challenged, referent, is_recorded }
}

fn believable(response: &HeartbeatResponse, challenged: &[PeerId]) -> Result<(), AnswerError> {
    if !(0.0..=1.0).contains(&response.fill_rate) {
        return Err(AnswerError::FillRate { got: response.fill_rate });
    }
    if response.peer_count > response.max_nodes {
        return Err(AnswerError::PeerCount { got: response.peer_count, max_nodes: response.max_nodes });
    }
    let strangers = response.challenges.iter().any(|answer| !challenged.contains(&answer.peer_id));
    if strangers || response.challenges.len() > challenged.len() {
        return Err(AnswerError::Challenges { got: response.challenges.len(), asked: challenged.len() });
    }
    Ok(())
}

/// When the next batch of challenges to one indexer is drawn: by chance, and at every tick while its word is in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenges {
    ticks_left: u32,
    /// Batches that follow each other without a pause.
    doubted: u32,
    /// The last batch was not answered.
    is_owed: bool,
    /// The last answer.
    answered: Option<Mono>,
}

impl Challenges {
    /// The first batch comes after the first beat, which makes the session that the challenge asks about.
    #[must_use]
    pub fn new(settings: &Settings, rng: &mut impl Rng) -> Self {
        Self { ticks_left: draw_ticks(settings, rng), doubted: 0, is_owed: false, answered: None }
    }

    /// The batches that go now follow a failed check: they ask the indexer again, and nobody else about it.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.doubted > 0
    }

    /// A check failed: the next batches follow at once, so that an honest one is soon cleared and a liar soon caught.
    pub fn doubt(&mut self) {
        self.doubted = DOUBTED_BATCHES;
        self.ticks_left = self.ticks_left.min(1);
    }

    /// A beat was answered, with the last batch (`is_batch`) or without one.
    pub fn answered(&mut self, is_batch: bool, now: Mono) {
        self.is_owed &= !is_batch;
        self.answered = Some(now);
    }

    /// Called once a tick: whether a batch goes now; none does on most ticks. One whose beat was refused goes with the next:
    /// by refusing those alone a liar would never be asked. None goes where no session is sure to be left, for it would ask
    /// an honest one for what it cannot know.
    pub fn draw(&mut self, settings: &Settings, now: Mono, rng: &mut impl Rng) -> bool {
        if self.answered.is_none_or(|at| now.since(at) > SESSION_SURE) {
            self.is_owed = false;
            return false;
        }
        if !self.is_owed {
            self.ticks_left = self.ticks_left.saturating_sub(1);
            if self.ticks_left > 0 {
                return false;
            }
            self.ticks_left = if self.doubted > 0 { 1 } else { draw_ticks(settings, rng) };
            self.doubted = self.doubted.saturating_sub(1);
        }
        self.is_owed = true;
        true
    }
}

/// When one indexer is asked for our own record in the DHT, and what its answer is worth.
///
/// It is asked only after we found the record there ourselves: one that was not put yet is no indexer's fault. The first
/// time comes with the second batch, so that a newcomer is known early, then with every fifth; after a wrong answer ten
/// ticks later. Not sooner: a split that hides the record from the indexer should pass before it is caught for it. And not
/// by chance, as batches go: a liar would have an hour where chance is kind to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhtChallenge {
    batches: u32,
    /// Ticks until it is asked again; nothing where its last answer was right.
    again_in: Option<u32>,
    stage: DhtStage,
}

impl Default for DhtChallenge {
    fn default() -> Self {
        Self { batches: DHT_BATCHES - DHT_BATCHES_FIRST, again_in: None, stage: DhtStage::Idle }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum DhtStage {
    #[default]
    Idle,
    /// We look it up ourselves.
    Looking,
    /// It is there: the next question asks for it.
    Due {
        answers: u32,
    },
    Asked {
        answers: u32,
    },
}

impl DhtChallenge {
    /// A beat was answered, with a batch of challenges or without (those that go at every tick, for a check that failed, are
    /// none); tells whether it is time to look our record up. It is not where the indexer's clock is apart from ours
    /// (`clock_ahead`): by that clock our record may be over.
    pub fn answered(&mut self, is_batch: bool, clock_ahead: SignedDuration) -> bool {
        self.batches = self.batches.saturating_add(u32::from(is_batch));
        self.again_in = self.again_in.map(|ticks| ticks.saturating_sub(1));
        let is_due = self.again_in.map_or(self.batches >= DHT_BATCHES, |ticks| ticks == 0);
        let is_time = is_due && self.stage == DhtStage::Idle && clock_ahead.abs() <= CLOCK_TOLERANCE;
        if is_time {
            *self = Self { batches: 0, again_in: None, stage: DhtStage::Looking };
        }
        is_time
    }

    /// Our own look-up found the record in the DHT, or did not: then nobody is asked this time, and we look again with the
    /// second batch.
    pub fn looked(&mut self, is_there: bool) {
        if self.stage != DhtStage::Looking {
            return;
        }
        self.stage = DhtStage::Due { answers: 0 };
        if !is_there {
            *self = Self::default();
        }
    }

    /// Whether the question that goes now asks for it.
    pub fn draw(&mut self) -> bool {
        let DhtStage::Due { answers } = self.stage else { return false };
        self.stage = DhtStage::Asked { answers };
        true
    }

    /// A beat was refused for so long, and with it ended what the indexer looked up for us: it is asked again. Answers without
    /// a word count on, or one would put us off by a refusal now and then. After a wait in which our record may run out we look
    /// it up again ourselves.
    pub fn refused(&mut self, wait: Duration) {
        match self.stage {
            DhtStage::Idle => {}
            _ if wait > RECORD_SURE => *self = Self { batches: DHT_BATCHES, again_in: None, stage: DhtStage::Idle },
            DhtStage::Asked { answers } => self.stage = DhtStage::Due { answers },
            DhtStage::Looking | DhtStage::Due { .. } => {}
        }
    }

    /// What an answer says to it: right, wrong, or nothing yet. Three answers without a word are wrong. Comes before
    /// [`Self::answered`] of the same answer.
    pub fn heard(&mut self, response: &HeartbeatResponse, own: &OwnRecordKey<'_>, now: Timestamp) -> Option<bool> {
        let DhtStage::Asked { answers } = self.stage else { return None };
        let verdict = match response.dht_found {
            Some(found) => Some(found && response.dht_payload.as_ref().is_some_and(|text| own.is_of(text, now))),
            None if answers + 1 >= DHT_ANSWERS_MAX => Some(false),
            None => None,
        };
        self.stage = verdict.map_or(DhtStage::Asked { answers: answers + 1 }, |_| DhtStage::Idle);
        if verdict == Some(false) {
            self.again_in = Some(DHT_TICKS_AGAIN);
        }
        verdict
    }
}

/// By what we know our own record again.
#[derive(Clone, Copy, Debug)]
pub struct OwnRecordKey<'a> {
    /// Our peer id.
    pub peer_id: &'a PeerId,
    /// Our DID.
    pub did: &'a str,
    /// `seq` of the newest that we signed.
    pub newest_seq: u64,
}

impl OwnRecordKey<'_> {
    /// A record of our key and DID that is not over. One of before the newest is right too: it is in the DHT until half
    /// its life is gone.
    fn is_of(&self, text: &RawValue, now: Timestamp) -> bool {
        Verified::<PeerRecord>::open(text.get(), now).is_ok_and(|record| {
            record.peer_id == *self.peer_id && record.did == self.did && record.seq <= self.newest_seq
        })
    }
}

fn draw_ticks(settings: &Settings, rng: &mut impl Rng) -> u32 {
    let least = settings.challenge_every_min.max(1);
    rng.random_range(least..=settings.challenge_every_max.max(least))
}

/// What the answer to a challenge says of the indexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It finds us, and saw us lately.
    Found,
    /// It does not know us, or does not say.
    Unfound,
    /// It finds us, and tells a time that cannot be: so does an honest one whose clock, or ours, was set since the hello.
    WrongTime,
}

impl From<Verdict> for Observation {
    fn from(verdict: Verdict) -> Self {
        let (good, bad) = (u32::from(verdict == Verdict::Found), u32::from(verdict != Verdict::Found));
        Self::Challenged { good, bad, unfound: u32::from(verdict == Verdict::Unfound) }
    }
}

/// Judges the answer about ourselves, whom it serves. Of others we would know nothing for sure; decision 0020.
///
/// `clock_ahead` is how far the indexer's clock is before ours, as its hello told.
#[must_use]
pub fn judge_challenge(
    own: &PeerId,
    answers: &[ChallengeAnswer],
    clock_ahead: SignedDuration,
    now: Timestamp,
    settings: &Settings,
) -> Verdict {
    let Some(answer) = answers.iter().find(|answer| answer.peer_id == *own && answer.found) else {
        return Verdict::Unfound;
    };
    let age = answer.last_seen.map(|seen| now.duration_since(seen).saturating_add(clock_ahead));
    match age.is_some_and(|age| is_recent(age, settings)) {
        true => Verdict::Found,
        false => Verdict::WrongTime,
    }
}

fn is_recent(age: SignedDuration, settings: &Settings) -> bool {
    let most = SignedDuration::try_from(settings.seen_within).unwrap_or(SignedDuration::MAX);
    age >= -CLOCK_TOLERANCE && age <= most.saturating_add(CLOCK_TOLERANCE)
}

#[cfg(test)]
pub(crate) mod testing {
    #![allow(clippy::unwrap_used)]
    use libp2p_identity::PeerId;

    /// The peer with this number: an identity multihash of a made-up Ed25519 key.
    pub(crate) fn peer(number: u16) -> PeerId {
        let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
        bytes.extend([0; 30]);
        bytes.extend(number.to_be_bytes());
        PeerId::from_bytes(&bytes).unwrap()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::{testing::peer, *};

    fn rng() -> StdRng {
        StdRng::seed_from_u64(7)
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn asker() -> Asker {
        Asker { name: "paris".into(), did: "did:key:zParis".into(), peer_id: peer(1) }
    }

    fn record(seq: u64, expires: i64) -> OwnRecord {
        OwnRecord {
            seq,
            expiry_date: wall(expires),
            text: raw(seq),
            values: Some(DhtValues { pid: raw(1), name: raw(2) }),
        }
    }

    fn raw(number: u64) -> Box<RawValue> {
        RawValue::from_string(format!("{{\"seq\":{number}}}")).unwrap()
    }

    fn response(seq: u64) -> HeartbeatResponse {
        HeartbeatResponse {
            seq,
            record_seq: Some(9),
            served_us: 0,
            fill_rate: 0.5,
            peer_count: 50,
            max_nodes: 100,
            born_at: wall(-100),
            challenges: Vec::new(),
            dht_found: None,
            dht_payload: None,
            witnesses: Vec::new(),
            suggestions: Vec::new(),
            suggest_migrate: false,
        }
    }

    fn asked(conversation: &mut Conversation, at: Mono) -> u64 {
        let seq = conversation.ask();
        let question = asker().question(Ask { seq, ..Ask::default() }, None, Acked::default(), wall(0));
        conversation.written(&question, None, at);
        seq
    }

    #[test]
    fn the_first_beat_goes_at_once_and_the_next_never_before_the_tick() {
        let (settings, mut rng) = (Settings::default(), rng());
        let mut rhythm = Rhythm::default();
        assert_eq!(rhythm.due(&settings), Mono::ZERO);
        for _ in 0..1_000 {
            let now = rhythm.due(&settings);
            rhythm.sent(now, &settings, &mut rng);
            let wait = rhythm.due(&settings).since(now);
            assert!((secs(20)..=secs(22)).contains(&wait), "{wait:?}");
        }
    }

    #[test]
    fn a_nudge_goes_at_once_and_only_once() {
        let (settings, mut rng) = (Settings::default(), rng());
        let mut rhythm = Rhythm::default();
        rhythm.sent(Mono::from_secs(100), &settings, &mut rng);
        rhythm.nudge();
        rhythm.nudge();
        assert!(rhythm.due(&settings) <= Mono::from_secs(101));
        rhythm.sent(Mono::from_secs(101), &settings, &mut rng);
        assert!(rhythm.due(&settings) >= Mono::from_secs(121));
    }

    #[test]
    fn after_a_restart_the_next_beat_waits_for_the_gap_even_when_nudged() {
        let (settings, mut rng) = (Settings::default(), rng());
        let mut rhythm = Rhythm::default();
        rhythm.restarted();
        assert_eq!(rhythm.due(&settings), Mono::ZERO);
        rhythm.sent(Mono::from_secs(100), &settings, &mut rng);
        rhythm.restarted();
        rhythm.nudge();
        assert_eq!(rhythm.due(&settings), Mono::from_secs(105));
    }

    #[test]
    fn g26_own_nudges_probes_and_restarts_stay_below_the_ceiling() {
        let (settings, mut rng) = (Settings::default(), rng());
        let mut rhythm = Rhythm::default();
        for second in 0..4 {
            rhythm.sent(Mono::from_secs(100 + second), &settings, &mut rng);
            rhythm.nudge();
            assert!(rhythm.due(&settings) <= Mono::from_secs(101 + second), "the fifth is still allowed");
        }
        rhythm.probed(Mono::from_secs(104), &settings);
        assert_eq!(rhythm.due(&settings), Mono::from_secs(160), "the sixth is not");
        rhythm.sent(Mono::from_secs(160), &settings, &mut rng);
        rhythm.nudge();
        assert_eq!(rhythm.due(&settings), Mono::from_secs(161));
    }

    #[test]
    fn g27_a_probe_says_that_it_wants_no_session_and_brings_no_record() {
        let ask = Ask { seq: 1, probe: true, ..Ask::default() };
        let question = asker().question(ask, Some(&record(9, 60)), Acked::default(), wall(0));
        assert!(question.probe);
        assert!(question.record.is_none());
        assert!(serde_json::to_string(&question).unwrap().contains("\"probe\":true"));
    }

    #[test]
    fn retry_after_is_obeyed_up_to_its_most() {
        let (settings, mut rng) = (Settings::default(), rng());
        let mut rhythm = Rhythm::default();
        rhythm.sent(Mono::from_secs(0), &settings, &mut rng);
        rhythm.retry_after(secs(45), Mono::from_secs(1));
        rhythm.nudge();
        assert_eq!(rhythm.due(&settings), Mono::from_secs(46));
        rhythm.retry_after(secs(10), Mono::from_secs(2));
        assert_eq!(rhythm.due(&settings), Mono::from_secs(46), "a shorter wish does not undo a longer one");
        rhythm.retry_after(Duration::MAX, Mono::from_secs(2));
        assert_eq!(rhythm.due(&settings), Mono::from_secs(2) + RETRY_AFTER_MAX);
    }

    #[test]
    fn nonsense_settings_do_not_break_the_rhythm() {
        for jitter in [f64::NAN, -1.0, f64::INFINITY, 5.0] {
            let settings = Settings { jitter, ceiling: 0, ..Settings::default() };
            let mut rhythm = Rhythm::default();
            rhythm.sent(Mono::ZERO, &settings, &mut rng());
            assert!(rhythm.due(&settings) >= Mono::from_secs(20));
        }
    }

    #[test]
    fn the_record_goes_along_until_it_is_acknowledged() {
        let check = |acked, expected: bool| {
            let acked = Acked { record: acked, values: None };
            let question = asker().question(Ask::default(), Some(&record(9, 60)), acked, wall(0));
            assert_eq!(question.record.is_some(), expected, "{acked:?}");
            assert!(question.values.is_none(), "it is not the referent");
        };
        check(None, true);
        check(Some(8), true);
        check(Some(9), false);
        check(Some(10), false);
        assert!(
            asker().question(Ask::default(), Some(&record(9, 0)), Acked::default(), wall(0)).record.is_none(),
            "expired"
        );
    }

    #[test]
    fn a_new_referent_gets_the_dht_values_once_though_it_holds_the_record() {
        let record = record(9, 60);
        let mut conversation = Conversation::default();
        let beat = |conversation: &mut Conversation, referent, held| {
            let ask = Ask { seq: conversation.ask(), referent, ..Ask::default() };
            let seq = ask.seq;
            let question = asker().question(ask, Some(&record), conversation.acked(), wall(0));
            conversation.written(&question, Some(&record), Mono::ZERO);
            let answer = HeartbeatResponse { record_seq: held, ..response(seq) };
            conversation.hear(Answer::Given(answer), Mono::ZERO).unwrap();
            (question.record.is_some(), question.values.is_some())
        };
        assert_eq!(beat(&mut conversation, false, Some(9)), (true, false));
        assert_eq!(beat(&mut conversation, false, Some(9)), (false, false));
        assert_eq!(beat(&mut conversation, true, Some(9)), (true, true));
        assert_eq!(beat(&mut conversation, true, None), (false, false));
        assert_eq!(beat(&mut conversation, true, Some(9)), (true, true), "it lost both");
    }

    #[test]
    fn an_indexer_that_lost_the_record_gets_it_again() {
        let mut conversation = Conversation::default();
        let seq = asked(&mut conversation, Mono::ZERO);
        conversation.hear(Answer::Given(response(seq)), Mono::ZERO).unwrap();
        assert_eq!(conversation.acked().record, Some(9));
        let seq = asked(&mut conversation, Mono::ZERO);
        conversation.hear(Answer::Given(HeartbeatResponse { record_seq: None, ..response(seq) }), Mono::ZERO).unwrap();
        assert_eq!(conversation.acked().record, None);
    }

    #[test]
    fn a_record_is_signed_anew_at_half_its_life_or_when_the_clock_went_back() {
        let settings = Settings::default();
        let check = |now, expected| assert_eq!(sign_anew_due(wall(120), wall(now), &settings), expected, "{now}");
        check(0, false);
        check(59, false);
        check(60, true);
        check(500, true);
        check(-1, true);
    }

    #[test]
    fn a_clock_found_to_be_wrong_signs_anew_once_and_not_at_every_look() {
        let settings = Settings::default();
        for behind in [240, 5, -240] {
            let mut clocks = crate::hello::ClockWatch::new();
            let due = |clocks: &crate::hello::ClockWatch, expiry, now| {
                sign_anew_due(expiry, clocks.signing_time(wall(now)), &settings)
            };
            let before = wall(120);
            (1..=3).for_each(|number| clocks.heard(peer(number), SignedDuration::from_secs(behind)));
            assert_eq!(
                due(&clocks, before, 1),
                behind != 5,
                "what was signed by the wrong time is not valid elsewhere"
            );
            let after = wall(1 + behind + 120);
            assert!((1..61).all(|now| !due(&clocks, after, now)), "{behind}");
            assert!(due(&clocks, after, 61), "{behind}");
        }
    }

    #[test]
    fn g9_a_late_answer_is_counted_and_never_taken_for_the_next() {
        let mut conversation = Conversation::default();
        let first = asked(&mut conversation, Mono::from_secs(0));
        conversation.missed();
        let second = asked(&mut conversation, Mono::from_secs(20));
        let late = conversation.hear(Answer::Given(response(first)), Mono::from_secs(20)).unwrap();
        assert!(matches!(late, Heard::Late));
        assert_eq!(conversation.late(), 1);
        let given = conversation.hear(Answer::Given(response(second)), Mono::from_millis(20_040)).unwrap();
        let Heard::Given(given) = given else { panic!("{given:?}") };
        assert_eq!(given.rtt, Duration::from_millis(40));
    }

    #[test]
    fn g9_the_indexers_own_time_is_taken_off_the_round_trip() {
        let check = |served_us, expected_ms, is_false| {
            let mut conversation = Conversation::default();
            let seq = asked(&mut conversation, Mono::from_secs(1));
            let answer = Answer::Given(HeartbeatResponse { served_us, ..response(seq) });
            let Heard::Given(given) = conversation.hear(answer, Mono::from_millis(1_100)).unwrap() else { panic!() };
            assert_eq!(given.rtt, Duration::from_millis(expected_ms));
            assert_eq!(given.is_served_time_false, is_false);
        };
        check(0, 100, false);
        check(60_000, 40, false);
        check(100_000, 0, false);
        check(100_001, 100, true);
        check(u64::MAX, 100, true);
    }

    #[test]
    fn an_answer_that_nobody_asked_for_is_refused() {
        let mut conversation = Conversation::default();
        assert!(conversation.hear(Answer::Given(response(1)), Mono::ZERO).is_err());
        let seq = asked(&mut conversation, Mono::ZERO);
        let ahead = conversation.hear(Answer::Given(response(seq + 1)), Mono::ZERO);
        assert_eq!(ahead.unwrap_err(), AnswerError::Unasked { got: 2, expected: 1 });
        conversation.hear(Answer::Given(response(seq)), Mono::ZERO).unwrap();
        assert!(conversation.hear(Answer::Given(response(seq)), Mono::ZERO).is_err(), "the same answer twice");
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        let check = |change: fn(&mut HeartbeatResponse), expected: bool| {
            let mut conversation = Conversation::default();
            let mut answer = response(asked(&mut conversation, Mono::ZERO));
            change(&mut answer);
            assert_eq!(conversation.hear(Answer::Given(answer), Mono::ZERO).is_ok(), expected);
        };
        check(|answer| answer.fill_rate = 0.0, true);
        check(|answer| answer.fill_rate = 1.0, true);
        check(|answer| answer.fill_rate = 1.000_1, false);
        check(|answer| answer.fill_rate = -0.000_1, false);
        check(|answer| answer.fill_rate = f64::NAN, false);
        check(|answer| answer.peer_count = 100, true);
        check(|answer| answer.peer_count = 101, false);
        check(|answer| answer.challenges = vec![answer_of(peer(7), true, None)], false);
    }

    #[test]
    fn a_refusal_is_heard_for_the_question_that_waits() {
        let refused = |seq| {
            let no = Refused::new(crate::wire::RefusalCode::Busy, "full").retry_after(30);
            Answer::Refused(Refused { seq, ..no })
        };
        let mut conversation = Conversation::default();
        let first = asked(&mut conversation, Mono::ZERO);
        let second = asked(&mut conversation, Mono::ZERO);
        assert!(matches!(conversation.hear(refused(Some(first)), Mono::ZERO), Ok(Heard::Late)));
        assert!(matches!(conversation.hear(refused(Some(second)), Mono::ZERO), Ok(Heard::Refused(_))));
        asked(&mut conversation, Mono::ZERO);
        assert!(matches!(conversation.hear(refused(None), Mono::ZERO), Ok(Heard::Refused(_))));
    }

    #[test]
    fn the_deadline_counts_from_the_last_byte_written() {
        let settings = Settings::default();
        let mut conversation = Conversation::default();
        assert_eq!(conversation.deadline(&settings), None);
        asked(&mut conversation, Mono::from_secs(3));
        assert_eq!(conversation.deadline(&settings), Some(Mono::from_secs(8)));
    }

    fn answer_of(peer_id: PeerId, found: bool, seen: Option<i64>) -> ChallengeAnswer {
        ChallengeAnswer { peer_id, found, last_seen: seen.map(wall) }
    }

    #[test]
    fn challenges_come_every_one_to_ten_ticks_and_never_on_the_first() {
        let (settings, mut rng) = (Settings::default(), rng());
        let mut challenges = Challenges::new(&settings, &mut rng);
        assert!(!challenges.draw(&settings, Mono::ZERO, &mut rng));
        challenges.answered(false, Mono::ZERO);
        let (mut pause, mut seen) = (0, std::collections::BTreeSet::new());
        for _ in 0..2_000 {
            pause += 1;
            if !challenges.draw(&settings, Mono::ZERO, &mut rng) {
                continue;
            }
            challenges.answered(true, Mono::ZERO);
            assert!((1..=10).contains(&pause));
            seen.insert(std::mem::take(&mut pause));
        }
        assert_eq!(seen.len(), 10, "every pause occurs");
    }

    #[test]
    fn g12_our_own_presence_must_be_told_and_be_recent() {
        let settings = Settings::default();
        let (own, other) = (peer(1), peer(2));
        let check = |answers: &[ChallengeAnswer], ahead, expected| {
            let ahead = SignedDuration::from_secs(ahead);
            assert_eq!(judge_challenge(&own, answers, ahead, wall(0), &settings), expected, "{answers:?}");
        };
        check(&[answer_of(own, true, Some(0))], 0, Verdict::Found);
        check(&[answer_of(own, true, Some(-150))], 0, Verdict::Found);
        check(&[answer_of(own, true, Some(-151))], 0, Verdict::WrongTime);
        check(&[answer_of(own, true, Some(30))], 0, Verdict::Found);
        check(&[answer_of(own, true, Some(31))], 0, Verdict::WrongTime);
        check(&[answer_of(own, true, Some(300))], 300, Verdict::Found);
        check(&[answer_of(own, true, None)], 0, Verdict::WrongTime);
        check(&[answer_of(own, false, None)], 0, Verdict::Unfound);
        check(&[answer_of(own, false, Some(0))], 0, Verdict::Unfound);
        check(&[answer_of(other, true, Some(0))], 0, Verdict::Unfound);
        check(&[], 0, Verdict::Unfound);
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_beats_than_the_ceiling(
            seed: u64,
            steps in proptest::collection::vec((0u8..4, 0u64..30_000), 1..200),
        ) {
            let (settings, mut rng) = (Settings::default(), StdRng::seed_from_u64(seed));
            let (mut rhythm, mut now, mut went) = (Rhythm::default(), Mono::ZERO, Vec::new());
            for (step, wait_ms) in steps {
                now = now + Duration::from_millis(wait_ms);
                match step {
                    0 => rhythm.nudge(),
                    1 => rhythm.restarted(),
                    2 if rhythm.allowed_at(&settings) <= now => {
                        rhythm.probed(now, &settings);
                        went.push(now);
                    }
                    _ => {}
                }
                if rhythm.due(&settings) <= now {
                    rhythm.sent(now, &settings, &mut rng);
                    went.push(now);
                }
            }
            for window in went.windows(6) {
                prop_assert!(window[5].since(window[0]) >= settings.ceiling_within, "{window:?}");
            }
        }
    }

    fn dht_answer(found: Option<bool>, payload: Option<&str>) -> HeartbeatResponse {
        let payload = payload.map(|text| RawValue::from_string(text.to_owned()).unwrap());
        let born_at = wall(0);
        HeartbeatResponse {
            seq: 1,
            record_seq: None,
            served_us: 0,
            fill_rate: 0.5,
            peer_count: 1,
            max_nodes: 2,
            born_at,
            challenges: Vec::new(),
            dht_found: found,
            dht_payload: payload,
            witnesses: Vec::new(),
            suggestions: Vec::new(),
            suggest_migrate: false,
        }
    }

    fn signed_record(seed: u8, seq: u64, expires: i64) -> (PeerId, String, String) {
        let keys = crate::identity::Keys::from_seed([seed; 32]);
        let record = PeerRecord {
            name: "paris".to_owned(),
            did: keys.did().to_string(),
            pub_key: keys.pub_key().to_owned(),
            peer_id: keys.peer_id(),
            api_url: String::new(),
            stream_address: String::new(),
            addrs: Vec::new(),
            nats_address: String::new(),
            wallet_address: String::new(),
            capabilities: Vec::new(),
            born_at: wall(0),
            expiry_date: wall(expires),
            seq,
        };
        let text = Verified::sign(&record, &keys).text().to_string();
        (keys.peer_id(), record.did, text)
    }

    /// A challenge that was asked and waits for its answer.
    fn asked_dht() -> DhtChallenge {
        let mut challenge = DhtChallenge::default();
        for batch in 1..=DHT_BATCHES_FIRST {
            assert!(!challenge.answered(false, SignedDuration::ZERO), "only batches count");
            let is_time = challenge.answered(true, SignedDuration::ZERO);
            assert_eq!(is_time, batch == DHT_BATCHES_FIRST, "early for the first time");
        }
        challenge.looked(true);
        assert!(challenge.draw());
        challenge
    }

    #[test]
    fn g12_a_dht_challenge_is_answered_by_our_own_valid_record_and_nothing_else() {
        let (peer_id, did, own) = signed_record(1, 7, 60);
        let (_, _, others) = signed_record(2, 7, 60);
        let (_, _, future) = signed_record(1, 9, 60);
        let (_, _, old) = signed_record(1, 6, -10);
        let key = OwnRecordKey { peer_id: &peer_id, did: &did, newest_seq: 8 };
        let check = |found, payload: Option<&str>, at: i64, expected| {
            let said = dht_answer(found, payload);
            assert_eq!(asked_dht().heard(&said, &key, wall(at)), expected, "{found:?} {payload:?}");
        };
        check(Some(true), Some(&own), 0, Some(true));
        check(Some(true), Some(&own), 89, Some(true));
        check(Some(true), Some(&own), 91, Some(false));
        check(Some(true), Some(&old), 25, Some(false));
        check(Some(true), Some(&others), 0, Some(false));
        check(Some(true), Some(&future), 0, Some(false));
        check(Some(true), Some("{}"), 0, Some(false));
        check(Some(true), None, 0, Some(false));
        check(Some(false), Some(&own), 0, Some(false));
        check(None, None, 0, None);
    }

    #[test]
    fn an_indexer_may_answer_a_dht_challenge_two_ticks_later_and_not_three() {
        let (peer_id, did, own) = signed_record(1, 7, 60);
        let key = OwnRecordKey { peer_id: &peer_id, did: &did, newest_seq: 7 };
        let silent = dht_answer(None, None);
        let mut late = asked_dht();
        assert_eq!((late.heard(&silent, &key, wall(0)), late.heard(&silent, &key, wall(0))), (None, None));
        assert_eq!(late.heard(&dht_answer(Some(true), Some(&own)), &key, wall(0)), Some(true));
        assert_eq!(late.heard(&dht_answer(Some(false), None), &key, wall(0)), None, "nobody asked again");
        let mut never = asked_dht();
        let heard: Vec<_> = (0..4).map(|_| never.heard(&silent, &key, wall(0))).collect();
        assert_eq!(heard, [None, None, Some(false), None]);
    }

    #[test]
    fn one_whose_clock_is_apart_is_not_asked_for_what_may_be_over_by_it() {
        let mut challenge = DhtChallenge::default();
        for ahead in [31, -31, 120] {
            assert!((0..10).all(|_| !challenge.answered(true, SignedDuration::from_secs(ahead))), "{ahead}");
        }
        assert!(challenge.answered(true, SignedDuration::from_secs(-30)));
    }

    #[test]
    fn one_whose_answer_was_wrong_is_asked_again_ten_ticks_later_however_often_it_is_challenged() {
        let key = OwnRecordKey { peer_id: &peer(1), did: "did:key:zParis", newest_seq: 9 };
        let wrong = HeartbeatResponse { dht_found: Some(false), ..response(1) };
        for is_challenged in [true, false] {
            let mut challenge = asked_dht();
            assert_eq!(challenge.heard(&wrong, &key, wall(0)), Some(false));
            let mut ticks = 0;
            while !challenge.draw() {
                if challenge.answered(is_challenged, SignedDuration::ZERO) {
                    challenge.looked(true);
                }
                ticks += 1;
            }
            assert_eq!(ticks, DHT_TICKS_AGAIN, "the answer itself is the first");
        }
    }

    #[test]
    fn one_that_cannot_be_asked_again_yet_is_asked_as_soon_as_it_can() {
        let mut challenge = asked_dht();
        let key = OwnRecordKey { peer_id: &peer(1), did: "did:key:zParis", newest_seq: 9 };
        let wrong = HeartbeatResponse { dht_found: Some(false), ..response(1) };
        assert_eq!(challenge.heard(&wrong, &key, wall(0)), Some(false));
        let apart = SignedDuration::from_secs(31);
        assert!((0..2 * DHT_TICKS_AGAIN).all(|_| !challenge.answered(true, apart)));
        assert!(challenge.answered(false, SignedDuration::ZERO));
    }

    #[test]
    fn one_that_fails_a_check_is_challenged_at_every_tick_for_ten_batches() {
        let (settings, mut rng) = (Settings::default(), rng());
        let mut challenges = Challenges::new(&settings, &mut rng);
        let mut ticks = |challenges: &mut Challenges| {
            let mut ticks = 1;
            while !challenges.draw(&settings, Mono::ZERO, &mut rng) {
                challenges.answered(false, Mono::ZERO);
                ticks += 1;
            }
            challenges.answered(true, Mono::ZERO);
            ticks
        };
        ticks(&mut challenges);
        challenges.doubt();
        for batch in 1..=DOUBTED_BATCHES {
            assert_eq!(ticks(&mut challenges), 1, "batch {batch}");
        }
        let later: u32 = (0..20).map(|_| ticks(&mut challenges)).sum();
        assert!(later > 40, "{later}: chance draws again");
    }

    /// One to which a batch went, at this time.
    fn challenged(rng: &mut StdRng) -> Challenges {
        let settings = Settings::default();
        let mut challenges = Challenges::new(&settings, rng);
        while !challenges.draw(&settings, Mono::ZERO, rng) {
            challenges.answered(false, Mono::ZERO);
        }
        challenges
    }

    #[test]
    fn a_batch_whose_beat_was_refused_goes_with_the_next_one() {
        let (settings, mut rng) = (Settings::default(), rng());
        for is_doubted in [false, true] {
            let mut challenges = challenged(&mut rng);
            if is_doubted {
                challenges.answered(true, Mono::ZERO);
                challenges.doubt();
                assert!(challenges.draw(&settings, Mono::ZERO, &mut rng));
            }
            let before = challenges.clone();
            for second in 1..=SESSION_SURE.as_secs() {
                let now = Mono::from_secs(second);
                assert!(challenges.draw(&settings, now, &mut rng));
            }
            assert_eq!(challenges, before, "what is asked again is one batch");
        }
    }

    #[test]
    fn nobody_is_challenged_before_its_first_answer_or_when_the_session_may_be_over() {
        let (settings, mut rng) = (Settings::default(), rng());
        let mut newcomer = Challenges::new(&settings, &mut rng);
        assert!((0..100).all(|_| !newcomer.draw(&settings, Mono::ZERO, &mut rng)));
        let mut challenges = challenged(&mut rng);
        let late = Mono::ZERO + SESSION_SURE + Duration::from_secs(1);
        assert!(!challenges.draw(&settings, late, &mut rng));
        challenges.answered(false, late);
        let before = challenges.clone();
        assert!(!before.is_owed, "chance draws the next");
    }

    #[test]
    fn a_dht_challenge_that_a_refusal_ended_is_asked_again_and_silence_counts_on() {
        let key = OwnRecordKey { peer_id: &peer(1), did: "did:key:zParis", newest_seq: 9 };
        let silent = response(1);
        let mut challenge = asked_dht();
        for heard in [None, None, Some(false)] {
            for _ in 0..20 {
                challenge.refused(RECORD_SURE);
                assert!(challenge.draw() && !challenge.draw());
            }
            assert_eq!(challenge.heard(&silent, &key, wall(0)), heard);
        }
    }

    #[test]
    fn after_a_long_wait_we_look_for_our_record_again_before_we_ask_for_it() {
        let long = RECORD_SURE + Duration::from_secs(1);
        let mut challenge = asked_dht();
        challenge.refused(long);
        assert!(!challenge.draw());
        assert!(challenge.answered(false, SignedDuration::ZERO), "with the next answer");
        challenge.looked(true);
        assert!(challenge.draw());
        let mut idle = DhtChallenge::default();
        idle.refused(long);
        assert_eq!(idle, DhtChallenge::default(), "nothing was asked");
    }

    #[test]
    fn an_answer_says_whether_the_record_that_went_along_is_held() {
        let (own, mut conversation) = (record(5, 120), Conversation::default());
        let mut held = |with: bool, record_seq: Option<u64>| {
            let ask = Ask { seq: conversation.ask(), ..Ask::default() };
            let acked = if with { Acked::default() } else { Acked { record: Some(5), values: Some(5) } };
            let question = asker().question(ask, Some(&own), acked, wall(0));
            assert_eq!(question.record.is_some(), with);
            conversation.written(&question, Some(&own), Mono::ZERO);
            let answer = HeartbeatResponse { record_seq, ..response(question.seq) };
            match conversation.hear(Answer::Given(answer), Mono::ZERO) {
                Ok(Heard::Given(given)) => given.is_recorded,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(held(true, Some(5)), Some(true));
        assert_eq!(held(true, Some(6)), Some(true), "a newer one of another life");
        assert_eq!(held(true, Some(4)), Some(false));
        assert_eq!(held(true, None), Some(false));
        assert_eq!(held(false, None), None, "none went along");
    }

    #[test]
    fn nobody_is_asked_for_what_we_do_not_find_ourselves() {
        let mut challenge = DhtChallenge::default();
        for _ in 0..DHT_BATCHES {
            challenge.answered(true, SignedDuration::ZERO);
        }
        assert!(!challenge.draw(), "we have not looked yet");
        challenge.looked(false);
        assert!(!challenge.draw());
        assert!(!challenge.answered(true, SignedDuration::ZERO));
        assert!(challenge.answered(true, SignedDuration::ZERO), "we look again with the second batch");
        challenge.looked(true);
        assert!(challenge.draw());
    }
}
