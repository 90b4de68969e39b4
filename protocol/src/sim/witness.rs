//! Asking others what they see of an indexer, and telling it to those who ask: what `actors/src/witness.rs` and
//! `actors/src/serve/witness.rs` do between the rules.

use std::time::Duration;

use libp2p_identity::PeerId;

use super::{
    member::{Member, Want},
    message::{Message, What},
    report::Kind,
    size,
    world::World,
};
use crate::{
    heartbeat::Given,
    pool::Input,
    score::Observation,
    time::Mono,
    wire::{AddrInfo, WitnessReport, WitnessRequest},
    witness::{STEADY, Said, Trying, WITHIN, agrees, choose, may_offer_none, report},
};

/// A peer that is tried for another answers within this: `TRY_WITHIN` of the actor.
const TRY_WITHIN: Duration = Duration::from_millis(2_500);

/// Questions under way of one member, a round's and those that it is asked to try; beyond it nobody is asked.
pub(super) const QUESTIONS_MAX: usize = 256;

/// One question under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    to: u32,
    about: u32,
    is_try: bool,
    purpose: Purpose,
}

/// What an answer is for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    /// A round of this number.
    Round(u64),
    /// Somebody who asked us to try its target.
    Asker { at: u32, number: u64 },
}

/// Several are asked about one indexer.
#[derive(Debug)]
pub(super) struct Round {
    about: u32,
    /// What it said of itself; nothing where only its being reached is asked for.
    said: Option<Said>,
    /// It names no witness though it must have some.
    is_hiding: bool,
    pending: usize,
    told: Vec<(PeerId, WitnessReport)>,
}

impl Member {
    /// Others hear of a restart a tick later than we do: until then their word would be held against the honest.
    pub(super) fn ask_witnesses(&mut self, peer: u32, given: &Given, now: Mono, world: &mut World) {
        let Some(beat) = self.beats.get(&peer) else { return };
        let is_steady = beat.born.is_some_and(|(_, since)| now.since(since) >= STEADY);
        if !is_steady || beat.round.is_some() {
            return;
        }
        let (said, offered) = (Said::from(&given.response), &given.response.witnesses);
        let (members, about) = (self.pool.answering(), world.id(peer));
        let ask = choose(offered, &members, &self.own.peer, &about, &mut self.rng);
        // One that is not alone and names nobody speaks against itself, in full.
        let is_hiding = offered.is_empty() && !may_offer_none(&said);
        let round = self.begin_round(peer, Some(said), is_hiding, &ask, world);
        if let Some(beat) = self.beats.get_mut(&peer) {
            beat.round = Some(round);
        }
        self.end_round(round, world);
    }

    /// Asks these whether they reach a peer.
    pub(super) fn ask_others(&mut self, about: &PeerId, ask: Vec<PeerId>, world: &mut World) {
        let Some(at) = world.at(about) else { return };
        let ask: Vec<AddrInfo> = ask.into_iter().map(|id| AddrInfo { id, addrs: Vec::new() }).collect();
        let round = self.begin_round(at, None, false, &ask, world);
        self.end_round(round, world);
    }

    fn begin_round(
        &mut self,
        about: u32,
        said: Option<Said>,
        is_hiding: bool,
        ask: &[AddrInfo],
        world: &mut World,
    ) -> u64 {
        let round = world.fresh();
        let free = QUESTIONS_MAX.saturating_sub(self.questions.len());
        let ask: Vec<u32> = ask.iter().filter_map(|info| world.at(&info.id)).take(free).collect();
        let is_try = said.is_none();
        self.rounds.insert(round, Round { about, said, is_hiding, pending: ask.len(), told: Vec::new() });
        for to in ask {
            self.question(Question { to, about, is_try, purpose: Purpose::Round(round) }, WITHIN, world);
        }
        round
    }

    fn question(&mut self, question: Question, within: Duration, world: &mut World) {
        let number = world.fresh();
        self.questions.insert(number, question);
        world.after(within, self.own.at, What::WitnessLate { number });
        if world.net.connection(self.own.at, question.to).is_some() {
            self.ask_witness(number, world);
        } else {
            self.dial(question.to, Want::Witness { number }, world);
        }
    }

    /// Sends a question over the connection that is there.
    pub(super) fn ask_witness(&mut self, number: u64, world: &mut World) {
        let Some(Question { to, about, is_try, .. }) = self.questions.get(&number).copied() else { return };
        let bytes = size::witness_request(&WitnessRequest { indexer_peer_id: world.id(about), is_try });
        world.send(self.own.at, to, Kind::Witness, bytes, Message::AskWitness { number, about, is_try });
    }

    /// Its answer, or its refusal, which shows as well that it is there.
    pub(super) fn witness_answered(&mut self, number: u64, report: Option<WitnessReport>, world: &mut World) {
        self.question_ended(number, report, true, world);
    }

    /// Those whose connection closed give no answer any more.
    pub(super) fn questions_cut(&mut self, peer: u32, world: &mut World) {
        let cut = self.questions.iter().filter(|(_, question)| question.to == peer).map(|(number, _)| *number);
        for number in cut.collect::<Vec<u64>>() {
            self.question_ended(number, None, false, world);
        }
    }

    pub(super) fn question_ended(
        &mut self,
        number: u64,
        report: Option<WitnessReport>,
        is_there: bool,
        world: &mut World,
    ) {
        let Some(Question { to, purpose, .. }) = self.questions.remove(&number) else { return };
        match purpose {
            Purpose::Round(round) => {
                let by = world.id(to);
                if let Some(round) = self.rounds.get_mut(&round) {
                    round.pending -= 1;
                    round.told.extend(report.map(|report| (by, report)));
                }
                self.end_round(round, world);
            }
            Purpose::Asker { at, number } => {
                self.tries.ended(&world.id(to), is_there);
                self.testify(at, number, to, Some(is_there), world);
            }
        }
    }

    fn end_round(&mut self, number: u64, world: &mut World) {
        if self.rounds.get(&number).is_none_or(|round| round.pending > 0) {
            return;
        }
        let Some(Round { about, said, is_hiding, told, .. }) = self.rounds.remove(&number) else { return };
        let (peer, now) = (world.id(about), self.now(world).mono);
        let Some(said) = said else {
            let told: Vec<bool> = told.iter().filter_map(|(_, report)| report.connected).collect();
            let count = |told: usize| u32::try_from(told).unwrap_or(u32::MAX);
            let reach = count(told.iter().filter(|is_reached| **is_reached).count());
            return self.take(Input::Vouched { peer, answered: count(told.len()), reach }, world);
        };
        // A round ends with the life of its heartbeat.
        let Some(beat) = self.beats.get_mut(&about).filter(|beat| beat.round == Some(number)) else { return };
        beat.round = None;
        let reports: Vec<(PeerId, bool)> =
            told.iter().filter_map(|(by, report)| Some((*by, agrees(&said, report)?))).collect();
        if reports.iter().any(|(_, agrees)| !agrees) {
            let name = world.names[about as usize].clone();
            world.note(self.own.at, format_args!("a witness speaks against {name}"));
        }
        self.book.witnessed(peer, &reports, now);
        if is_hiding {
            self.book.observe(peer, &Observation::Witness { by: peer, agrees: false, weight: 1.0 }, now);
        }
    }

    // When others ask.

    /// Tells what we see of an indexer; tries it first where that is asked and was not done a moment ago.
    pub(super) fn asked_as_witness(&mut self, from: u32, number: u64, target: u32, is_try: bool, world: &mut World) {
        let (now, asker) = (self.now(world), world.id(from));
        let is_member = self.pool.is_member(&asker);
        let may = match &mut self.host {
            Some(host) => host.may_ask(&self.own, from, is_member, now, world),
            None => is_member,
        };
        if !may {
            return self.say_report(from, number, None, world);
        }
        let about = world.id(target);
        let is_known = self.pool.is_member(&about)
            || world.net.connection(self.own.at, target).is_some()
            || self.host.as_ref().is_some_and(|host| host.book.get(&about).is_some());
        if !is_try || !is_known || target == self.own.at {
            let is_connected = world.net.connection(self.own.at, target).is_some();
            return self.testify(from, number, target, Some(is_connected), world);
        }
        match self.tries.begin(about, now.mono) {
            Trying::Lately(is_reached) => self.testify(from, number, target, Some(is_reached), world),
            Trying::NotNow => self.testify(from, number, target, None, world),
            Trying::Now if self.questions.len() >= QUESTIONS_MAX => self.testify(from, number, target, None, world),
            Trying::Now => {
                let purpose = Purpose::Asker { at: from, number };
                let about = self.own.at;
                self.question(Question { to: target, about, is_try: false, purpose }, TRY_WITHIN, world);
            }
        }
    }

    fn testify(&mut self, to: u32, number: u64, about: u32, connected: Option<bool>, world: &mut World) {
        let now = self.now(world);
        let is_connected = world.net.connection(self.own.at, about).is_some();
        let is_member = self.pool.is_member(&world.id(about));
        let heard = self.beats.get(&about).filter(|_| is_member).and_then(|beat| beat.heard);
        let mut report = report(is_connected, heard, connected, now.mono);
        for lying in self.lies.iter().filter(|lying| lying.is_on(world.now)) {
            lying.lie.testify(&mut report, world.is_honest[about as usize], now.wall);
        }
        self.say_report(to, number, Some(report), world);
    }

    fn say_report(&mut self, to: u32, number: u64, report: Option<WitnessReport>, world: &mut World) {
        let bytes = report.as_ref().map_or(64, size::witness_report);
        world.send(self.own.at, to, Kind::Witness, bytes, Message::Witnessed { number, report });
    }
}
