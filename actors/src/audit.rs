//! Audit: the tokens that our nodes gave us, and what the tokens of other indexers say of their claims.
//!
//! Owns [`protocol::presence::token::Tokens`] and [`protocol::presence::audit::Evidence`]. The tasks that serve heartbeats
//! bring tokens, those that serve audits ask for some; suggestions says who there is, claim whether our clock may judge.
//! It tells score, suggestions and registry of an indexer that is exposed, and health what happened. A restart forgets
//! tokens until their nodes sign for the next epoch, and all evidence: an auditor of ours finds us short for two epochs,
//! which exposes nobody, and an indexer under suspicion begins anew. Bounds: those of the two; `AUDITS_MAX` at once.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use protocol::{
    PeerId, Timestamp,
    presence::{
        audit::{self, Evidence, Finding, SAMPLE, Salt, Verdict},
        token::{EPOCH_SECS, PresenceToken, Tokens, epoch_of},
    },
    score::Observation,
    signed::{SignedObject as _, Verified},
    time::Mono,
    wire::{AuditRequest, AuditResponse, Protocol, Refused},
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
    pool, registry, score, suggestions,
    supervision::{Class, Envelope, Reply, Seat, Timer},
};

/// How often it is seen whether an audit is due: a beat.
const TICK: Duration = Duration::from_secs(20);

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
pub struct Audit;

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
    tokens: Tokens,
    evidence: Evidence,
    /// The epoch for which audits are planned.
    planned: Option<u64>,
    due: BTreeMap<PeerId, Mono>,
    audits: JoinSet<()>,
    timer: Timer,
}

/// What it is told and asked.
pub enum Msg {
    /// A node of ours signed that we serve it.
    Presented(Box<Verified<PresenceToken>>),
    /// An auditor wants to see tokens.
    Show {
        /// Who.
        asker: PeerId,
        /// What it drew.
        salt: Salt,
        /// Which epoch is now, by its clock.
        epoch: u64,
        /// The first tokens under the salt.
        reply: Reply<Result<Vec<Verified<PresenceToken>>, Refused>>,
    },
    /// Our clock was asked for: how far the pool's is ahead, unless we had better judge nobody.
    Clock(Option<jiff::SignedDuration>),
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

impl Actor for Audit {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let tokens = Tokens::new(context.settings.gate.max_nodes);
        let timer = seat.after(TICK, Msg::Tick);
        Ok(State {
            rng: seat.rng(),
            tokens,
            evidence: Evidence::default(),
            planned: None,
            due: BTreeMap::new(),
            audits: JoinSet::new(),
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
            Msg::Presented(token) => state.presented(*token),
            Msg::Show { asker, salt, epoch, reply } => reply.send(state.show(asker, &salt, epoch)),
            Msg::Clock(offset) => state.ask_roll(offset),
            Msg::Roll { at, indexers } => state.plan(at, &indexers),
            Msg::Audited { peer, finding } => state.audited(peer, finding),
            Msg::TellExposed => state.tell_exposed(),
            Msg::Tick => state.tick(),
        }
        Ok(())
    }
}

impl State {
    // What our nodes sign.

    fn presented(&mut self, token: Verified<PresenceToken>) {
        if self.tokens.keep(token, self.seat.now().wall) {
            self.context.stats.tokens_kept.inc();
        }
    }

    fn show(&mut self, asker: PeerId, salt: &Salt, epoch: u64) -> Result<Vec<Verified<PresenceToken>>, Refused> {
        let shown = self.tokens.show(asker, salt, epoch, self.seat.now().wall);
        if shown.is_ok() {
            self.context.stats.audits_answered.inc();
        }
        shown
    }

    // What we ask others.

    fn tick(&mut self) {
        if self.planned != Some(epoch_of(self.seat.now().wall)) {
            let ask = claim::Msg::SoundClock { reply: self.seat.reply(Msg::Clock) };
            inform(&self.context.addresses.claim, Class::Control, ask);
        }
        self.begin_due();
        // Re-armed last, so that two never queue.
        self.timer = self.seat.after(TICK, Msg::Tick);
    }

    /// With a clock of which the pool thinks otherwise, honest indexers would look short: then nobody is judged.
    fn ask_roll(&self, offset: Option<jiff::SignedDuration>) {
        let now = self.seat.now().wall;
        let Some(at) = offset.and_then(|offset| now.checked_add(offset).ok()) else { return };
        let reply = self.seat.reply(move |indexers| Msg::Roll { at, indexers });
        inform(&self.context.addresses.suggestions, Class::Control, suggestions::Msg::Roll(reply));
    }

    fn plan(&mut self, at: Timestamp, indexers: &[PeerId]) {
        let (epoch, elapsed) = (epoch_of(at), at.as_second().rem_euclid(EPOCH_SECS));
        // A question that came after its epoch would be refused, and that would look like an evasion.
        if self.planned == Some(epoch) || indexers.is_empty() || elapsed >= LATEST_SECS {
            return;
        }
        self.planned = Some(epoch);
        let mut audited = audit::audited_by(epoch, &self.context.own.peer_id, indexers);
        audited.extend(self.evidence.suspects().filter(|suspect| indexers.contains(suspect)));
        let spread = u64::try_from(SPREAD_SECS - elapsed).unwrap_or(0).max(TICK.as_secs());
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
            let mut salt = [0; 32];
            self.rng.fill_bytes(&mut salt);
            let (context, me) = (self.context.clone(), self.seat.me().clone());
            context.stats.audits_made.inc();
            self.audits.spawn(async move {
                let finding = audit(&context, peer, epoch, salt).await;
                drop(me.tell(Class::Own, Msg::Audited { peer, finding }));
            });
        }
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
                self.tell_of(peer, false);
            }
        }
    }

    /// The evidence is ours, and so is what follows: nobody else is told.
    fn exposed(&self, peer: PeerId, finding: &Finding, is_new: bool) {
        if is_new {
            warn!(indexer = %peer, ?finding, "claims far more nodes than it has tokens for");
            self.context.note("indexer_exposed", peer, in_words(finding));
        }
        self.tell_of(peer, true);
        // An audit that it passed is no new evidence against it.
        if finding.step > 0.0 {
            let observed = score::Msg::Observed { peer, observation: Observation::Exposed };
            inform(&self.context.addresses.score, Class::Control, observed);
        }
    }

    fn tell_exposed(&self) {
        for peer in self.evidence.exposed() {
            self.tell_of(peer, true);
        }
    }

    fn tell_of(&self, peer: PeerId, is_exposed: bool) {
        let to = &self.context.addresses;
        inform(&to.suggestions, Class::Control, suggestions::Msg::Exposed { peer, is_exposed });
        inform(&to.registry, Class::Control, registry::Msg::IndexerExposed { peer, is_exposed });
    }
}

fn in_words(finding: &Finding) -> String {
    let Finding { claimed, shown, estimate, .. } = finding;
    match shown {
        Some(shown) => format!("it claims {claimed} nodes; {shown} of {SAMPLE} tokens shown speak for {estimate:.0}"),
        None => format!("it claims {claimed} nodes and showed no tokens"),
    }
}

/// One audit. What never reached the indexer, or an indexer that does not know audits, says nothing about it.
async fn audit(context: &Context, peer: PeerId, epoch: u64, salt: Salt) -> Option<Finding> {
    let record = discover::record(context, peer).await?;
    let claimed = record.peer_count.max(said_to_us(context, peer).await);
    let question = AuditRequest { salt: BASE64.encode(salt), epoch };
    let addrs = record.addrs.clone();
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

/// What a heartbeat's token says of itself: enough to see whether it is worth verifying.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
struct Claimed<'a> {
    indexer: &'a str,
    node: &'a str,
    epoch: u64,
}

/// The epoch of a token that `node` seems to have signed for `indexer`; nothing is verified.
pub(crate) fn claimed_epoch(text: &str, indexer: &PeerId, node: &PeerId) -> Option<u64> {
    if text.len() > PresenceToken::BYTES_MAX {
        return None;
    }
    let claimed: Claimed<'_> = serde_json::from_str(text).ok()?;
    let is_ours = claimed.indexer.parse().ok() == Some(*indexer) && claimed.node.parse().ok() == Some(*node);
    is_ours.then_some(claimed.epoch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use protocol::identity::Keys;

    use super::*;

    #[test]
    fn a_token_for_another_indexer_or_of_another_node_is_not_worth_verifying() {
        let (indexer, node) = (Keys::from_seed([1; 32]).peer_id(), Keys::from_seed([2; 32]).peer_id());
        let text = format!(r#"{{"indexer":"{indexer}","node":"{node}","epoch":7}}"#);
        assert_eq!(claimed_epoch(&text, &indexer, &node), Some(7));
        assert_eq!(claimed_epoch(&text, &node, &node), None);
        assert_eq!(claimed_epoch(&text, &indexer, &indexer), None);
        assert_eq!(claimed_epoch(&format!("{text}{}", " ".repeat(512)), &indexer, &node), None);
        assert_eq!(claimed_epoch("{}", &indexer, &node), None);
    }
}
