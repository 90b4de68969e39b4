//! Pool: our indexers. It feeds [`protocol::pool::Pool`] with what happens and does what that says.
//!
//! Owns the pool's state machine and supervises one heartbeat per member. Heartbeats tell it how each indexer did,
//! score whom to evict, claim what to carry, the swarm and peers whom they heard of. It tells heartbeats what to say,
//! claim, score and health who is a member, the store whom to remember. A restart begins anew from the remembered
//! members and the seeds: while the database is away from the seeds alone, and whom it remembers is taken up when it is
//! told. Before that nothing is written over it. Bounds: the state machine's; twice `max_indexer` heartbeats; `TASKS_MAX`
//! questions under way.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ::store::MemberRow;
use libp2p::Multiaddr;
use protocol::{
    PeerId, Timestamp,
    heartbeat::{Given, RESTARTS},
    pool::{Action, Event, Found, Input, Owner, Pool as Machine, Probed, Ranked, Shown, State as Life, Why},
    revocations::REVOKED_WORDS,
    score::{Decision, Judged},
    search::Wanted,
    time::Mono,
    wire::{AddrInfo, CandidatesRequest, CandidatesResponse, Protocol},
    witness::{Tries, Trying},
};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tracing::{debug, info};

use crate::{
    claim::{self, Signed},
    config::{Offered, Turn},
    context::{Context, inform},
    discover, fetch, health, heartbeat, leave, lookup, peers, presence, probe, registry, score, store, suggestions,
    supervision::{Address, ChildSpec, Children, Class, Due, Envelope, Outcome, Path, Reply, Seat, Timer},
    swarm,
    view::MemberState,
    witness,
};

/// Members and as many that are being stopped: twice the hard bound of the largest pool.
const CHILDREN_MAX: usize = 4 * protocol::pool::MAX_INDEXER_MAX as usize;

/// Evicted indexers whose evidence is kept: as many as are remembered.
const DISOWNED_MAX: usize = 32;

/// The standing of their rows.
const DISOWNED: u32 = 1;

/// Probes, questions for candidates and to others, and leaves under way at once.
const TASKS_MAX: usize = 64;

/// Messages that wait at one heartbeat.
const HEARTBEAT_BOUND: u64 = 64;

/// Until it is told whom the store remembers and that the swarm listens, it asks again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// The topic under which health says what keeps us out.
const CANNOT_JOIN: &str = "cannot join";

/// A member names candidates within this.
const CANDIDATES_WITHIN: Duration = Duration::from_secs(5);

/// The actor.
pub struct Pool;

/// What one life is given.
pub struct Args {
    /// Its seat.
    pub seat: Seat<Msg>,
    /// The daemon's.
    pub context: Context,
}

/// What is shown of a member's answers.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Round trip.
    pub rtt: Option<Duration>,
    /// As it last said.
    pub fill_rate: Option<f64>,
    /// As it last said.
    pub peer_count: Option<u32>,
    /// As it last said.
    pub max_nodes: Option<u32>,
    /// Start of its process.
    pub born_at: Option<Timestamp>,
    /// When it last answered.
    pub last_answer: Option<Timestamp>,
    /// The same, for waiting.
    pub answered_at: Option<Mono>,
    /// Beats answered.
    pub beats: u64,
    /// What the last bandwidth probe measured of the way to us.
    pub bytes_per_sec: Option<f64>,
}

/// What this pool can tell another peer of an indexer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sight {
    /// Who asks is a member of ours.
    pub is_asker_member: bool,
    /// When the indexer last answered us, and its `born_at` and fill rate then.
    pub heard: Option<(Mono, Timestamp, f64)>,
}

/// A score on its way to the pool and the store.
#[derive(Clone, Debug)]
pub struct Scored {
    /// The indexer.
    pub peer: PeerId,
    /// Lower bound, 0 to 100.
    pub low: f64,
    /// 0 to 100.
    pub value: f64,
    /// It would be evicted, were it a member.
    pub is_condemned: bool,
    /// The evidence as JSON.
    pub evidence: String,
}

/// One member as the edge sees it.
#[derive(Clone, Debug)]
pub struct MemberView {
    /// As the state machine shows it.
    pub shown: Shown,
    /// What it said.
    pub said: Said,
}

/// What it holds.
pub struct State {
    seat: Seat<Msg>,
    context: Context,
    rng: StdRng,
    machine: Machine,
    heartbeats: Children,
    addresses: BTreeMap<PeerId, Address<heartbeat::Msg>>,
    said: BTreeMap<PeerId, Said>,
    /// Members whose last failure was that they could not be reached.
    unreached: BTreeSet<PeerId>,
    /// Whom we tried for others.
    tries: Tries,
    kept: BTreeMap<PeerId, MemberRow>,
    signed: Option<Arc<Signed>>,
    /// Whom the store remembers, on their way to the state machine.
    remembered: Vec<AddrInfo>,
    /// The store answered, if only that the database is away.
    is_answered: bool,
    is_recalled: bool,
    is_listening: bool,
    is_started: bool,
    told: (Vec<Judged>, health::PoolFacts),
    tasks: JoinSet<()>,
    /// Asks again for what it begins with.
    asking: Option<Timer>,
    timer: Option<Timer>,
    offered: Offered,
}

/// What it is told and asked.
pub enum Msg {
    /// The swarm listens: the pool may be filled.
    Listening,
    /// What the store remembers; nothing when the database is away.
    Remembered(Option<Vec<MemberRow>>),
    /// A heartbeat begins a life and wants its orders.
    Begin {
        /// Whose.
        peer: PeerId,
        /// The orders.
        reply: Reply<heartbeat::Orders>,
    },
    /// A beat was sent.
    Sent {
        /// To whom.
        peer: PeerId,
    },
    /// A beat was answered.
    Answered {
        /// By whom.
        peer: PeerId,
        /// The answer.
        given: Box<Given>,
    },
    /// A bandwidth probe came back.
    Measured {
        /// From whom.
        peer: PeerId,
        /// How fast.
        bytes_per_sec: f64,
    },
    /// An answer did not come.
    Missed {
        /// Whose.
        peer: PeerId,
    },
    /// Others were asked whether they reach a suspected member.
    Vouched {
        /// Whom.
        peer: PeerId,
        /// How many gave an answer.
        answered: u32,
        /// How many of them reach it.
        reach: u32,
    },
    /// A peer asks what we see of an indexer.
    Sight {
        /// Who asks.
        asker: PeerId,
        /// About whom.
        indexer: PeerId,
        /// What we see.
        reply: Reply<Sight>,
    },
    /// A peer asks us to say hello to another that we know.
    MayTry {
        /// To whom.
        target: PeerId,
        /// Whether we may.
        reply: Reply<Trying>,
    },
    /// We said hello to a peer for another.
    Tried {
        /// To whom.
        target: PeerId,
        /// It answered.
        is_reached: bool,
    },
    /// The last connection to a peer closed.
    Gone {
        /// Whose.
        peer: PeerId,
    },
    /// A connection was reset or refused.
    Reset {
        /// Whose.
        peer: PeerId,
        /// It could not be reached at all.
        is_unreached: bool,
    },
    /// An indexer, or we, would not have the other: a wrong key, network, version or peer.
    TurnedAway {
        /// Who.
        peer: PeerId,
        /// Why, and what to do.
        cause: String,
    },
    /// An indexer has no room or no time.
    Busy {
        /// Who.
        peer: PeerId,
        /// When to ask again.
        retry_after: Duration,
        /// Others that may have room.
        alternatives: Vec<AddrInfo>,
    },
    /// An indexer goes.
    Left {
        /// Who.
        peer: PeerId,
        /// It says that it comes back.
        restart: bool,
        /// Others that it names.
        alternatives: Vec<AddrInfo>,
    },
    /// A member named candidates.
    Candidates {
        /// Who.
        from: PeerId,
        /// Whom.
        candidates: Vec<AddrInfo>,
    },
    /// Indexers came to us, or said to all that they are there.
    Heard {
        /// Who and where.
        candidates: Vec<AddrInfo>,
    },
    /// Members were heard of in the local network, from whomever.
    Local {
        /// Who and where.
        found: Vec<AddrInfo>,
    },
    /// The DHT named indexers.
    Listed {
        /// Whom.
        found: Vec<Found>,
    },
    /// A probe ended.
    Probed {
        /// Of whom.
        peer: PeerId,
        /// How.
        outcome: Probed,
    },
    /// The scores are new.
    Scores(Vec<Scored>),
    /// A member was judged.
    Evicted {
        /// Who.
        peer: PeerId,
    },
    /// Its key was revoked.
    Revoked {
        /// Whose.
        peer: PeerId,
    },
    /// Our record is new.
    Signed(Arc<Signed>),
    /// Score wants to know who is a member.
    TellScore,
    /// Health wants to know how many are members.
    TellHealth,
    /// Claim wants to know who is a member.
    TellClaim,
    /// Members that answer are wanted, best first.
    Members {
        /// Their ids.
        reply: Reply<Vec<PeerId>>,
    },
    /// Everything is wanted.
    Look(Reply<Vec<MemberView>>),
    /// We leave: tell every member.
    Leave(Reply<()>),
    /// Settings may change.
    Configure(Turn),
    /// Whom it asked for what it begins with may answer now.
    AskAgain,
    /// Time went by.
    Tick,
    /// A heartbeat's restart is due.
    RestartDue(Due),
}

impl Actor for Pool {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let own = &context.own;
        let settings = &context.settings;
        let owner = Owner {
            peer_id: own.peer_id,
            is_indexer: own.role.indexer,
            is_diverse: own.profile.is_diverse(),
            rule: settings.network.rule(),
        };
        let machine = Machine::new(context.live().pool.clone(), settings.heartbeat.clone(), owner);
        inform(&context.addresses.claim, Class::Control, claim::Msg::TellPool);
        let mut state = State {
            rng: seat.rng(),
            machine,
            heartbeats: seat.children(CHILDREN_MAX, Msg::RestartDue),
            addresses: BTreeMap::new(),
            said: BTreeMap::new(),
            unreached: BTreeSet::new(),
            tries: Tries::default(),
            kept: BTreeMap::new(),
            signed: None,
            remembered: Vec::new(),
            is_answered: false,
            is_recalled: false,
            is_listening: false,
            is_started: false,
            told: (Vec::new(), health::PoolFacts::default()),
            tasks: JoinSet::new(),
            asking: None,
            timer: None,
            offered: Offered::default(),
            seat,
            context,
        };
        state.ask_beginnings();
        // A former life told of members that are none now.
        state.tell_all_of_members();
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Listening => state.listening().await?,
            Msg::Remembered(rows) => state.remember(rows).await?,
            Msg::Begin { peer, reply } => reply.send(state.orders(&peer)),
            Msg::Sent { peer } => state.take(Input::Sent { peer }).await?,
            Msg::Answered { peer, given } => state.answered(peer, *given).await?,
            Msg::Measured { peer, bytes_per_sec } => state.measured(&peer, bytes_per_sec),
            Msg::Missed { peer } => state.take(Input::Missed { peer }).await?,
            Msg::Vouched { peer, answered, reach } => state.take(Input::Vouched { peer, answered, reach }).await?,
            Msg::Sight { asker, indexer, reply } => reply.send(state.sight(&asker, &indexer)),
            Msg::MayTry { target, reply } => reply.send(state.tries.begin(target, state.seat.now().mono)),
            Msg::Tried { target, is_reached } => state.tries.ended(&target, is_reached),
            Msg::Gone { peer } => state.take(Input::Gone { peer }).await?,
            Msg::Reset { peer, is_unreached } => state.reset(peer, is_unreached).await?,
            Msg::TurnedAway { peer, cause } => state.turned_away(peer, &cause),
            Msg::Busy { peer, retry_after, alternatives } => {
                state.take(Input::Busy { peer, retry_after, alternatives }).await?;
            }
            Msg::Left { peer, restart, alternatives } => state.left(peer, restart, alternatives).await?,
            Msg::Candidates { from, candidates } => state.take(Input::Candidates { from, candidates }).await?,
            Msg::Heard { candidates } => state.heard(candidates).await?,
            Msg::Local { found } => state.take(Input::Local { found }).await?,
            Msg::Listed { found } => state.take(Input::Dht { found }).await?,
            Msg::Probed { peer, outcome } => state.take(Input::Probed { peer, outcome }).await?,
            Msg::Scores(scores) => state.scores(scores).await?,
            Msg::Revoked { peer } => state.take(Input::Revoked { peer }).await?,
            Msg::Evicted { peer } => state.take(Input::Evicted { peer }).await?,
            Msg::Signed(signed) => state.signed(signed),
            Msg::TellScore => state.tell_score(),
            Msg::TellHealth => state.tell_health(),
            Msg::TellClaim => state.tell_claim(),
            Msg::Members { reply } => reply.send(state.machine.answering()),
            Msg::Look(reply) => reply.send(state.look()),
            Msg::Leave(reply) => state.leave(reply),
            Msg::Configure(turn) => state.configure(turn).await?,
            Msg::AskAgain => state.ask_beginnings(),
            Msg::Tick => state.tick().await?,
            Msg::RestartDue(due) => {
                let outcome = state.heartbeats.restart_due(due).await?;
                state.became(outcome).await?;
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let outcome = state.heartbeats.on_event(event).await?;
        state.became(outcome).await?;
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.heartbeats.stop_all().await;
        Ok(())
    }
}

impl State {
    async fn configure(&mut self, turn: Turn) -> Result<(), ActorProcessingErr> {
        if let Some(settings) = self.offered.take(turn, |_| Ok(())) {
            self.machine.set_settings(settings.pool.clone());
            // What follows is done at once, not when the next timer rings.
            self.tick().await?;
            self.tell_health();
        }
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), ActorProcessingErr> {
        self.take(Input::Tick).await
    }

    /// Asks for what the pool begins with and was not told: whom the store remembers, and that the swarm listens.
    fn ask_beginnings(&mut self) {
        let to = &self.context.addresses;
        if !self.is_recalled {
            let remembered = store::Msg::Members { reply: self.seat.reply(Msg::Remembered) };
            inform(&to.store, Class::Control, remembered);
        }
        if !self.is_listening {
            inform(&to.peers, Class::Control, peers::Msg::TellListening);
        }
        // Whoever was asked may die with the question, and the database may be away.
        let is_told = self.is_recalled && self.is_listening;
        self.asking = (!is_told).then(|| self.seat.after(ASK_AGAIN, Msg::AskAgain));
    }

    async fn listening(&mut self) -> Result<(), ActorProcessingErr> {
        self.is_listening = true;
        self.start().await
    }

    async fn remember(&mut self, rows: Option<Vec<MemberRow>>) -> Result<(), ActorProcessingErr> {
        self.is_answered = true;
        if let Some(rows) = rows.filter(|_| !self.is_recalled) {
            self.is_recalled = true;
            let to_go_back_to = rows.iter().filter(|row| row.standing == 0);
            self.remembered =
                to_go_back_to.map(|row| AddrInfo { id: row.peer, addrs: row.addresses.clone() }).collect();
            self.recall(rows);
        }
        if !self.is_started {
            return self.start().await;
        }
        let remembered = std::mem::take(&mut self.remembered);
        if remembered.is_empty() {
            return Ok(());
        }
        info!(remembered = remembered.len(), "whom the pool remembers is read back");
        self.take(Input::Remembered { remembered }).await
    }

    /// What is known of a member by now is newer. Evidence that score did not tell since then is as it was kept.
    fn recall(&mut self, rows: Vec<MemberRow>) {
        let rows = rows.into_iter().map(|row| (row.peer, row)).collect();
        for (peer, new) in std::mem::replace(&mut self.kept, rows) {
            let row = match self.kept.remove(&peer) {
                Some(old) if new.evidence.is_empty() => MemberRow {
                    score: old.score,
                    evidence: old.evidence,
                    last_answer: new.last_answer.or(old.last_answer),
                    standing: old.standing,
                    ..new
                },
                _ => new,
            };
            inform(&self.context.addresses.store, Class::Control, store::Msg::KeepMember(row.clone()));
            self.kept.insert(peer, row);
        }
    }

    /// It begins once the swarm listens and the store answered: without what is remembered rather than not at all.
    async fn start(&mut self) -> Result<(), ActorProcessingErr> {
        if self.is_started || !self.is_listening || !self.is_answered {
            return Ok(());
        }
        self.is_started = true;
        let remembered = std::mem::take(&mut self.remembered);
        let seeds = self.context.settings.network.seed_infos();
        info!(remembered = remembered.len(), seeds = seeds.len(), "filling the pool");
        self.take(Input::Start { remembered, seeds }).await
    }

    /// Feeds the state machine and does what it says.
    async fn take(&mut self, input: Input) -> Result<(), ActorProcessingErr> {
        let now = self.seat.now().mono;
        let actions = self.machine.handle(input, now, &mut self.rng);
        for action in actions {
            self.act(action).await?;
        }
        self.tell_members();
        // Re-armed last, so that two never queue.
        let wait = self.machine.wake(now).since(now);
        self.timer = Some(self.seat.after(wait, Msg::Tick));
        Ok(())
    }

    async fn act(&mut self, action: Action) -> Result<(), ActorProcessingErr> {
        match action {
            Action::Start { peer, addrs, .. } => self.start_heartbeat(peer, addrs).await?,
            Action::Stop { peer, why } => self.stop_heartbeat(peer, why).await,
            Action::Nudge { peer } => self.tell(&peer, heartbeat::Msg::Nudge),
            Action::SetReferent { peer, referent } => self.tell(&peer, heartbeat::Msg::Referent(referent)),
            Action::SetNeed { need } => self.tell_all(|| heartbeat::Msg::Need(need)),
            Action::Close { peer } => {
                let close = swarm::Msg::Do(swarm::Command::Close { peer });
                inform(&self.context.addresses.swarm, Class::Control, close);
            }
            Action::AskOthers { about, ask } => self.ask_others(about, ask),
            Action::AskCandidates { members, count } => self.ask_candidates(&members, count),
            Action::AskDht => self.ask_dht(),
            Action::Probe { peer, addrs } => self.probe(peer, addrs),
            Action::Remember { peer, addrs } => self.keep(peer, addrs),
            Action::Forget { peer } => {
                self.kept.remove(&peer);
                inform(&self.context.addresses.store, Class::Control, store::Msg::ForgetMember(peer));
            }
            Action::Disown { peer } => self.disown(&peer),
            Action::Note(event) => self.note(&event),
        }
        Ok(())
    }

    async fn start_heartbeat(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) -> Result<(), ActorProcessingErr> {
        let address = self.seat.address(format_args!("heartbeat/{peer}"), "heartbeat", HEARTBEAT_BOUND);
        let context = self.context.clone();
        let spec = ChildSpec::new(&address, heartbeat::Heartbeat, move |seat| heartbeat::Args {
            seat,
            context: context.clone(),
            peer,
            addrs: addrs.clone(),
        })
        .forgotten_when_spent()
        .restarts(RESTARTS);
        self.addresses.insert(peer, address);
        let outcome = self.heartbeats.start_child(spec).await?;
        debug!(indexer = %peer, ?outcome, "heartbeat");
        Ok(())
    }

    async fn stop_heartbeat(&mut self, peer: PeerId, why: Why) {
        self.said.remove(&peer);
        self.unreached.remove(&peer);
        let Some(address) = self.addresses.remove(&peer) else { return };
        self.heartbeats.stop_child(address.path()).await;
        // An indexer that drops another goes on serving: to say that it leaves would take it out of the other's searches.
        if why != Why::Left && !self.context.own.role.indexer {
            let context = self.context.clone();
            self.spawn(async move { leave::say(&context, peer, &[]).await });
        }
    }

    fn tell(&self, peer: &PeerId, message: heartbeat::Msg) {
        if let Some(address) = self.addresses.get(peer) {
            inform(address, Class::Control, message);
        }
    }

    fn tell_all(&self, message: impl Fn() -> heartbeat::Msg) {
        for address in self.addresses.values() {
            inform(address, Class::Control, message());
        }
    }

    fn orders(&self, peer: &PeerId) -> heartbeat::Orders {
        heartbeat::Orders {
            rhythm: self.machine.rhythm(peer),
            need: self.machine.need(),
            referent: self.machine.referent() == Some(*peer),
            signed: self.signed.clone(),
        }
    }

    fn measured(&mut self, peer: &PeerId, bytes_per_sec: f64) {
        if let Some(said) = self.said.get_mut(peer) {
            said.bytes_per_sec = Some(bytes_per_sec);
        }
    }

    async fn answered(&mut self, peer: PeerId, given: Given) -> Result<(), ActorProcessingErr> {
        if !self.machine.is_member(&peer) {
            return Ok(());
        }
        self.unreached.remove(&peer);
        let response = given.response;
        let said = self.said.entry(peer).or_default();
        said.rtt = Some(given.rtt);
        said.fill_rate = Some(response.fill_rate);
        said.peer_count = Some(response.peer_count);
        said.max_nodes = Some(response.max_nodes);
        said.born_at = Some(response.born_at);
        let now = self.seat.now();
        said.last_answer = Some(now.wall);
        said.answered_at = Some(now.mono);
        said.beats += 1;
        if self.context.own.role.indexer {
            // One that asks even an indexer to move takes nobody.
            let capacity = if response.suggest_migrate { 0 } else { response.max_nodes };
            let load = protocol::offload::Load { sessions: response.peer_count, capacity };
            inform(&self.context.addresses.registry, Class::History, registry::Msg::Load { peer, load });
        }
        self.take(Input::Answered {
            peer,
            referent: given.referent,
            suggestions: response.suggestions,
            suggest_migrate: response.suggest_migrate,
            fill_rate: response.fill_rate,
        })
        .await
    }

    async fn reset(&mut self, peer: PeerId, is_unreached: bool) -> Result<(), ActorProcessingErr> {
        if is_unreached && self.machine.is_member(&peer) {
            self.unreached.insert(peer);
        }
        self.take(Input::Reset { peer }).await
    }

    fn sight(&self, asker: &PeerId, indexer: &PeerId) -> Sight {
        let heard = self.said.get(indexer).filter(|_| self.machine.is_member(indexer));
        let heard = heard.and_then(|said| Some((said.answered_at?, said.born_at?, said.fill_rate?)));
        Sight { is_asker_member: self.machine.is_member(asker), heard }
    }

    /// While nobody else answers, it is what keeps us out, and health says so.
    fn turned_away(&self, peer: PeerId, cause: &str) {
        if self.machine.answering().is_empty() {
            let mut remedy = format!("{peer}: {cause}");
            if cause.contains(REVOKED_WORDS) {
                remedy.push_str(
                    "; if it is so, this key is of no use any more: make a new identity with `muster init` in another folder \
                     (docs/how-to/revoke-a-key.md)",
                );
            }
            self.context.trouble(CANNOT_JOIN, Some(remedy));
        }
    }

    async fn left(
        &mut self,
        peer: PeerId,
        restart: bool,
        alternatives: Vec<AddrInfo>,
    ) -> Result<(), ActorProcessingErr> {
        if !self.machine.is_member(&peer) {
            return Ok(());
        }
        if restart {
            let announced = score::Msg::Observed { peer, observation: protocol::score::Observation::RestartAnnounced };
            inform(&self.context.addresses.score, Class::Control, announced);
        }
        self.take(Input::Left { peer, alternatives }).await
    }

    async fn heard(&mut self, candidates: Vec<AddrInfo>) -> Result<(), ActorProcessingErr> {
        for info in candidates {
            self.take(Input::Inbound { info }).await?;
        }
        Ok(())
    }

    async fn scores(&mut self, scores: Vec<Scored>) -> Result<(), ActorProcessingErr> {
        for scored in &scores {
            if let Some(row) = self.kept.get_mut(&scored.peer) {
                row.score = Some(scored.value);
                row.evidence.clone_from(&scored.evidence);
                row.last_answer = self.said.get(&scored.peer).and_then(|said| said.last_answer).or(row.last_answer);
                if self.is_recalled {
                    inform(&self.context.addresses.store, Class::History, store::Msg::KeepMember(row.clone()));
                }
            }
        }
        let ranked = scores.iter().map(|scored| {
            let Scored { peer, low, is_condemned, .. } = *scored;
            Ranked { peer, low, is_condemned }
        });
        let ranked = ranked.collect();
        self.take(Input::Scores(ranked)).await
    }

    fn keep(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) {
        let is_seed = self.context.settings.network.seed_infos().iter().any(|seed| seed.id == peer);
        let row = self.kept.entry(peer).or_insert_with(|| MemberRow {
            peer,
            addresses: Vec::new(),
            is_seed,
            score: None,
            evidence: String::new(),
            last_answer: None,
            standing: 0,
        });
        row.addresses = addrs;
        row.standing = 0;
        row.last_answer = self.said.get(&peer).and_then(|said| said.last_answer).or(row.last_answer);
        // Before that, a row without evidence would be written over the one with it.
        if self.is_recalled {
            inform(&self.context.addresses.store, Class::Control, store::Msg::KeepMember(row.clone()));
        }
    }

    /// The row stays for its evidence; of too many the one goes that answered longest ago.
    fn disown(&mut self, peer: &PeerId) {
        let Some(row) = self.kept.get_mut(peer) else { return };
        row.standing = DISOWNED;
        if self.is_recalled {
            inform(&self.context.addresses.store, Class::Control, store::Msg::KeepMember(row.clone()));
        }
        let disowned = || self.kept.values().filter(|row| row.standing == DISOWNED);
        if disowned().count() > DISOWNED_MAX
            && let Some(peer) = disowned().min_by_key(|row| row.last_answer).map(|row| row.peer)
        {
            self.kept.remove(&peer);
            inform(&self.context.addresses.store, Class::Control, store::Msg::ForgetMember(peer));
        }
    }

    fn signed(&mut self, signed: Arc<Signed>) {
        self.tell_all(|| heartbeat::Msg::Carry(signed.clone()));
        self.signed = Some(signed);
    }

    // Questions, each in a task that tells its outcome.

    /// Beyond the bound a question is not asked; the state machine asks again in time.
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() < TASKS_MAX {
            self.tasks.spawn(task);
        }
    }

    fn ask_candidates(&mut self, members: &[PeerId], count: u32) {
        for from in members.iter().copied() {
            let (context, me) = (self.context.clone(), self.seat.me().clone());
            self.spawn(async move {
                let question = CandidatesRequest { count };
                let asked: Result<CandidatesResponse, _> =
                    fetch::exchange(&context, from, Vec::new(), Protocol::Candidates, &question, CANDIDATES_WITHIN)
                        .await;
                match asked {
                    Ok(CandidatesResponse { candidates }) => {
                        drop(me.tell(Class::Own, Msg::Candidates { from, candidates }));
                    }
                    Err(error) => debug!(%from, %error, "no candidates"),
                }
            });
        }
    }

    fn ask_others(&mut self, about: PeerId, ask: Vec<PeerId>) {
        let (context, me) = (self.context.clone(), self.seat.me().clone());
        self.spawn(async move {
            let (answered, reach) = witness::reach(&context, about, &ask).await;
            drop(me.tell(Class::Own, Msg::Vouched { peer: about, answered, reach }));
        });
    }

    fn ask_dht(&mut self) {
        let (context, me) = (self.context.clone(), self.seat.me().clone());
        self.spawn(async move {
            let found = discover::indexers(&context).await.into_iter().map(|record| Found {
                info: AddrInfo { id: record.peer_id, addrs: record.addrs.clone() },
                fill_rate: Some(record.fill_rate),
            });
            drop(me.tell(Class::Own, Msg::Listed { found: found.collect() }));
        });
    }

    fn probe(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) {
        let (context, me) = (self.context.clone(), self.seat.me().clone());
        self.spawn(async move {
            let outcome = probe::probe(&context, peer, addrs).await;
            drop(me.tell(Class::Own, Msg::Probed { peer, outcome }));
        });
    }

    fn leave(&mut self, reply: Reply<()>) {
        let context = self.context.clone();
        let members: Vec<PeerId> = self.addresses.keys().copied().collect();
        tokio::spawn(async move {
            leave::say_all(&context, &members).await;
            reply.send(());
        });
    }

    // What others want to know.

    async fn became(&mut self, outcome: Option<Outcome>) -> Result<(), ActorProcessingErr> {
        match outcome {
            Some(Outcome::Forgotten { path, cause }) => {
                let Some(peer) = self.peer_at(&path) else { return Ok(()) };
                info!(indexer = %peer, cause, "its restarts are used up");
                self.addresses.remove(&peer);
                self.said.remove(&peer);
                // Only what could not be reached is gone; one that refused us may serve others, and our own nodes.
                if self.unreached.remove(&peer) {
                    inform(&self.context.addresses.suggestions, Class::Control, suggestions::Msg::Gone { peer });
                    inform(&self.context.addresses.registry, Class::Control, registry::Msg::Lost { peer });
                    inform(&self.context.addresses.presence, Class::Control, presence::Msg::FoundDead { peer });
                }
                self.take(Input::BudgetSpent { peer }).await
            }
            _ => Ok(()),
        }
    }

    fn peer_at(&self, path: &Path) -> Option<PeerId> {
        self.addresses.iter().find(|(_, address)| address.path() == path).map(|(peer, _)| *peer)
    }

    /// What an indexer is called stands in its own record, which it serves as it serves those of others.
    fn learn_name(&mut self, peer: PeerId) {
        let context = self.context.clone();
        self.spawn(async move {
            for record in lookup::at_members(&context, &Wanted::Peer(peer), &[peer]).await {
                let named = peers::Msg::Named { peer, name: record.name.clone(), did: record.did.clone() };
                inform(&context.addresses.peers, Class::History, named);
            }
        });
    }

    fn note(&mut self, event: &Event) {
        // Where we stand is health's to say, which knows more of it.
        if matches!(event, Event::Reached(_)) {
            return;
        }
        if let Event::Joined { peer } = event {
            self.learn_name(*peer);
        }
        self.tell_decided(event);
        let subject = event.peer().map(|peer| peer.to_string()).unwrap_or_default();
        info!(kind = event.kind(), subject, %event, "pool");
        self.context.note(event.kind(), subject, event);
    }

    /// What was decided stands beside the evidence that it rested on.
    fn tell_decided(&self, event: &Event) {
        let Some(peer) = event.peer() else { return };
        let told = match *event {
            Event::AskedOthers { answered, reach, .. } => score::Msg::AskedOthers { peer, answered, reach },
            Event::Joined { .. } => score::Msg::Decided { peer, what: Decision::Joined },
            Event::Suspected { .. } => score::Msg::Decided { peer, what: Decision::Suspected },
            // The judge wrote it down itself.
            Event::Removed { why: Some(Why::Evicted), .. } => return,
            Event::Removed { .. } | Event::Down { .. } => score::Msg::Decided { peer, what: Decision::Removed },
            Event::ReferentChanged { .. } => score::Msg::Decided { peer, what: Decision::Referent },
            Event::Standby { .. } | Event::Reached(_) => return,
        };
        inform(&self.context.addresses.score, Class::Control, told);
    }

    fn tell_members(&mut self) {
        let members: Vec<Judged> = self.machine.members().collect();
        let facts = health::PoolFacts {
            members: u32::try_from(members.len()).unwrap_or(u32::MAX),
            answering: u32::try_from(self.machine.answering().len()).unwrap_or(u32::MAX),
            referent: self.machine.referent(),
        };
        if self.told.1 != facts || self.told.0 != members {
            if facts.answering > 0 {
                self.context.trouble(CANNOT_JOIN, None);
            }
            self.told = (members, facts);
            self.tell_all_of_members();
        }
    }

    fn tell_all_of_members(&self) {
        self.tell_claim();
        self.tell_health();
        self.tell_score();
    }

    fn tell_claim(&self) {
        let members = self.told.0.iter().map(|member| member.peer).collect();
        let told = claim::Msg::Members { members, referent: self.told.1.referent };
        inform(&self.context.addresses.claim, Class::Control, told);
    }

    fn tell_health(&self) {
        inform(&self.context.addresses.health, Class::Control, health::Msg::Pooled(self.told.1.clone()));
    }

    fn tell_score(&self) {
        inform(&self.context.addresses.score, Class::Control, score::Msg::Members(self.told.0.clone()));
    }

    fn look(&self) -> Vec<MemberView> {
        let now = self.seat.now().mono;
        let said = |shown: &Shown| self.said.get(&shown.peer).cloned().unwrap_or_default();
        self.machine.shown(now).into_iter().map(|shown| MemberView { said: said(&shown), shown }).collect()
    }
}

/// The same state in the words of the view.
#[must_use]
pub(crate) fn state_view(state: Life) -> MemberState {
    match state {
        Life::Joining => MemberState::Joining,
        Life::Answering => MemberState::Answering,
        Life::Suspect => MemberState::Suspect,
        Life::Down => MemberState::Down,
        Life::Standby => MemberState::Standby,
    }
}
