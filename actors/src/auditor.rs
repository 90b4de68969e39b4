//! Auditor: counts the tokens of the indexers in our pool by turns, and, where we are one, of those that a hash gives us.
//!
//! Owns [`protocol::presence::audit::Evidence`] and [`protocol::presence::rounds::Rounds`]. Pool says who its members are and
//! what they claim, suggestions who there is, claim whether our clock may judge. It tells score of an indexer that is exposed
//! or cleared, suggestions and registry who all are exposed where we are an indexer, and health what happened. A restart
//! forgets the evidence, and tells those two that nobody is exposed: an indexer under suspicion begins anew, and what was
//! proved stands in the score. Bounds: those of the two; `AUDITS_MAX` at once.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use libp2p::Multiaddr;
use protocol::{
    PeerId, Timestamp,
    presence::{
        audit::{self, Evidence, Finding, SAMPLE, Salt, Verdict},
        rounds::Rounds,
        token::{EPOCH_SECS, epoch_of},
    },
    score::Observation,
    signed::Verified,
    time::Mono,
    wire::{AuditRequest, AuditResponse, Protocol, RefusalCode, Refused},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::{Rng as _, RngExt as _, rngs::StdRng};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::{
    claim,
    context::{Context, inform},
    discover,
    fetch::{self, FetchError},
    pool::{self, MemberView},
    registry, score, suggestions,
    supervision::{Class, Envelope, Seat, Timer},
};

/// How often it is seen whether an audit is due, at the least: a beat.
const TICK_MAX: Duration = Duration::from_secs(20);

/// Audits of an epoch are spread over its first two thirds, so that none runs into the next one.
const SPREAD_SECS: i64 = EPOCH_SECS * 2 / 3;

/// In the last two minutes of an epoch no audits are planned: until the last of them began it would be over.
const LATEST_SECS: i64 = EPOCH_SECS - 120;

/// Audits under way at once; each verifies 32 signatures.
const AUDITS_MAX: usize = 8;

/// An indexer shows its tokens within this.
const SHOW_WITHIN: Duration = Duration::from_secs(10);

/// The pool answers within this, or is not asked.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// The actor.
pub struct Auditor;

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
    evidence: Evidence,
    rounds: Rounds,
    /// The epoch for which the hash's audits are planned.
    planned: Option<u64>,
    due: BTreeMap<PeerId, Mono>,
    audits: JoinSet<()>,
    /// How often it is seen whether an audit is due.
    tick: Duration,
    timer: Timer,
}

/// What it is told and asked.
pub enum Msg {
    /// Our clock was asked for: how far the pool's is ahead, unless we had better judge nobody.
    Clock(Option<jiff::SignedDuration>),
    /// Our own indexers.
    Members {
        /// When they were asked for, by the clock of the pool.
        at: Timestamp,
        /// With what each claims.
        members: Vec<MemberView>,
    },
    /// Every indexer that is there now.
    Roll {
        /// When they were asked for, by the clock of the pool.
        at: Timestamp,
        /// Without ourselves.
        indexers: std::sync::Arc<[PeerId]>,
    },
    /// An audit ended.
    Audited {
        /// Whose.
        peer: PeerId,
        /// What it found; nothing when it says nothing about the indexer.
        finding: Option<Finding>,
    },
    /// Suggestions or registry began a life and want to know whom not to suggest.
    TellExposed,
    /// See whether an audit is due.
    Tick,
}

impl Actor for Auditor {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let settings = &context.settings.audit;
        let tick = settings.every.min(settings.again).min(TICK_MAX);
        let timer = seat.after(tick, Msg::Tick);
        let state = State {
            rng: seat.rng(),
            evidence: Evidence::default(),
            rounds: Rounds::new(settings.clone()),
            planned: None,
            due: BTreeMap::new(),
            audits: JoinSet::new(),
            tick,
            timer,
            seat,
            context,
        };
        // The evidence that good audits would take back went with a former life: whom that exposed, nobody would ever clear.
        state.tell_exposed();
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Clock(offset) => state.ask_around(offset),
            Msg::Members { at, members } => state.take_turns(at, members),
            Msg::Roll { at, indexers } => state.plan(at, &indexers),
            Msg::Audited { peer, finding } => state.audited(peer, finding),
            Msg::TellExposed => state.tell_exposed(),
            Msg::Tick => state.tick(),
        }
        Ok(())
    }
}

impl State {
    fn tick(&mut self) {
        let ask = claim::Msg::SoundClock { reply: self.seat.reply(Msg::Clock) };
        inform(&self.context.addresses.claim, Class::Control, ask);
        self.begin_due();
        // Re-armed last, so that two never queue.
        self.timer = self.seat.after(self.tick, Msg::Tick);
    }

    /// With a clock of which the pool thinks otherwise, honest indexers would look short: then nobody is judged.
    fn ask_around(&self, offset: Option<jiff::SignedDuration>) {
        let now = self.seat.now().wall;
        let Some(at) = offset.and_then(|offset| now.checked_add(offset).ok()) else { return };
        let reply = self.seat.reply(move |members| Msg::Members { at, members });
        inform(&self.context.addresses.pool, Class::Control, pool::Msg::Look(reply));
        if self.context.own.role.indexer && self.planned != Some(epoch_of(at)) {
            let reply = self.seat.reply(move |indexers| Msg::Roll { at, indexers });
            inform(&self.context.addresses.suggestions, Class::Control, suggestions::Msg::Roll(reply));
        }
    }

    /// Our own indexers, by turns.
    fn take_turns(&mut self, at: Timestamp, members: Vec<MemberView>) {
        let claims: Vec<(PeerId, u32)> =
            members.iter().filter_map(|member| Some((member.shown.peer, member.said.peer_count?))).collect();
        while self.audits.try_join_next().is_some() {}
        if self.audits.len() >= AUDITS_MAX {
            return;
        }
        let Some(peer) = self.rounds.due(&claims, &self.evidence, self.seat.now().mono) else { return };
        let member = members.into_iter().find(|member| member.shown.peer == peer);
        let Some((addrs, Some(claimed))) = member.map(|member| (member.shown.addrs, member.said.peer_count)) else {
            return;
        };
        let (context, epoch, salt) = (self.context.clone(), epoch_of(at), self.salt());
        self.begin(peer, async move { audit(&context, peer, addrs, claimed, epoch, salt).await });
    }

    /// Those that the hash gives us, and those that we suspect.
    fn plan(&mut self, at: Timestamp, indexers: &[PeerId]) {
        let (epoch, elapsed) = (epoch_of(at), at.as_second().rem_euclid(EPOCH_SECS));
        // A question that came after its epoch would be refused, and that would look like an evasion.
        if self.planned == Some(epoch) || indexers.is_empty() || elapsed >= LATEST_SECS {
            return;
        }
        self.planned = Some(epoch);
        let mut audited = audit::audited_by(epoch, &self.context.own.peer_id, indexers);
        audited.extend(self.evidence.suspects().filter(|suspect| indexers.contains(suspect)));
        let spread = u64::try_from(SPREAD_SECS - elapsed).unwrap_or(0).max(TICK_MAX.as_secs());
        let (now, rng) = (self.seat.now().mono, &mut self.rng);
        self.due =
            audited.into_iter().map(|peer| (peer, now + Duration::from_secs(rng.random_range(0..spread)))).collect();
        debug!(epoch, audits = self.due.len(), "audits planned");
    }

    fn begin_due(&mut self) {
        while self.audits.try_join_next().is_some() {}
        let now = self.seat.now().mono;
        while self.audits.len() < AUDITS_MAX {
            let next = self.due.iter().find(|(_, due)| **due <= now).map(|(peer, _)| *peer);
            let (Some(peer), Some(epoch)) = (next, self.planned) else { return };
            self.due.remove(&peer);
            if !self.rounds.may(&peer, now) {
                continue;
            }
            let (context, salt) = (self.context.clone(), self.salt());
            self.begin(peer, async move { audit_listed(&context, peer, epoch, salt).await });
        }
    }

    fn salt(&mut self) -> Salt {
        let mut salt = [0; 32];
        self.rng.fill_bytes(&mut salt);
        salt
    }

    fn begin(&mut self, peer: PeerId, audit: impl Future<Output = Option<Finding>> + Send + 'static) {
        let me = self.seat.me().clone();
        self.context.stats.audits_made.inc();
        self.audits.spawn(async move {
            let finding = audit.await;
            drop(me.tell(Class::Own, Msg::Audited { peer, finding }));
        });
    }

    // What follows.

    fn audited(&mut self, peer: PeerId, finding: Option<Finding>) {
        let Some(finding) = finding else { return };
        let verdict = self.evidence.add(peer, &finding);
        let sum = self.evidence.sum(&peer);
        debug!(indexer = %peer, ?finding, ?verdict, sum, "audited");
        match verdict {
            Verdict::Clear => {}
            Verdict::Suspected => self.context.note("indexer_suspected", peer, in_words(&finding)),
            Verdict::Exposed { is_new } => self.exposed(peer, &finding, is_new),
            Verdict::Cleared => {
                info!(indexer = %peer, "its claims fit again");
                self.context.note("indexer_cleared", peer, in_words(&finding));
                self.tell_exposed();
                self.observe(peer, Observation::Cleared);
            }
        }
    }

    /// The evidence is ours, and so is what follows: nobody else is told.
    fn exposed(&self, peer: PeerId, finding: &Finding, is_new: bool) {
        if is_new {
            warn!(indexer = %peer, ?finding, "claims far more nodes than it has tokens for");
            self.context.note("indexer_exposed", peer, in_words(finding));
        }
        self.tell_exposed();
        // An audit that it passed is no new evidence against it.
        if finding.step > 0.0 {
            self.observe(peer, Observation::Exposed);
        }
    }

    fn observe(&self, peer: PeerId, observation: Observation) {
        inform(&self.context.addresses.score, Class::Control, score::Msg::Observed { peer, observation });
    }

    /// Whoever serves others suggests no exposed ones. All of them are told each time, so that nobody stays exposed of whom
    /// one word was lost.
    fn tell_exposed(&self) {
        let to = &self.context.addresses;
        if !self.context.own.role.indexer {
            return;
        }
        let exposed: Vec<PeerId> = self.evidence.exposed().collect();
        inform(&to.suggestions, Class::Control, suggestions::Msg::Exposed(exposed.clone()));
        inform(&to.registry, Class::Control, registry::Msg::IndexersExposed(exposed));
    }
}

fn in_words(finding: &Finding) -> String {
    let Finding { claimed, shown, estimate, .. } = finding;
    match shown {
        Some(shown) => format!("it claims {claimed} nodes; {shown} of {SAMPLE} tokens shown speak for {estimate:.0}"),
        None => format!("it claims {claimed} nodes and showed no tokens"),
    }
}

/// One audit of an indexer that lists itself in the DHT.
async fn audit_listed(context: &Context, peer: PeerId, epoch: u64, salt: Salt) -> Option<Finding> {
    let record = discover::record(context, peer).await?;
    let claimed = record.peer_count.max(said_to_us(context, peer).await);
    audit(context, peer, record.addrs.clone(), claimed, epoch, salt).await
}

/// One audit. What never reached the indexer, or an indexer that does not know audits, says nothing about it.
async fn audit(
    context: &Context,
    peer: PeerId,
    addrs: Vec<Multiaddr>,
    claimed: u32,
    epoch: u64,
    salt: Salt,
) -> Option<Finding> {
    let question = AuditRequest { salt: BASE64.encode(salt), epoch };
    let shown: Result<AuditResponse, _> =
        fetch::exchange(context, peer, addrs, Protocol::Audit, &question, SHOW_WITHIN).await;
    match shown {
        Ok(shown) if shown.tokens.len() <= SAMPLE => {
            let now = context.now().wall;
            let verified = shown.tokens.iter().filter_map(|token| Verified::open(token.get(), now).ok());
            audit::weigh(&peer, claimed, &salt, epoch, &verified.collect::<Vec<_>>())
        }
        Err(FetchError::Open(error)) => {
            debug!(indexer = %peer, %error, "could not be audited");
            None
        }
        // Our session there is over, or the epoch is: neither says anything about it.
        Err(FetchError::Refused(Refused { refused: RefusalCode::UnknownPeer | RefusalCode::Clock, .. })) => None,
        Ok(_) | Err(_) => audit::evaded(claimed),
    }
}

/// How many sessions it claims in its answers to our own beats, if it is in our pool: it may tell nodes another number
/// than the DHT.
async fn said_to_us(context: &Context, peer: PeerId) -> u32 {
    let members = context.addresses.pool.ask(Class::Control, pool::Msg::Look, ASK_WITHIN).await.unwrap_or_default();
    let member = members.into_iter().find(|member| member.shown.peer == peer);
    member.and_then(|member| member.said.peer_count).unwrap_or(0)
}
