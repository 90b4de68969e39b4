//! Revocations: whose key is to be believed no longer.
//!
//! Owns the book of revocations and the set of revoked peers that everybody who has to say no reads (`Context::revoked`).
//! Told by the tasks that serve streams, by operators, by peers of who is connected, and by whoever refused a revoked peer. It
//! tells swarm, registry, suggestions, pool, peers, outbox and planner whom to drop, passes what is handed in and new on to
//! everybody who is connected, and asks each indexer for all that it holds when it is met and once an hour; those that our own
//! operators handed in it tells it then, too. What it learns holds at once, and is written down by the store before anybody is
//! told that it is held. A restart forgets who was asked and how many news a peer brought; the book it reads back, and the set
//! stays in force meanwhile. Bounds: [`REVOCATIONS_MAX`] revocations, `WRITES_MAX` changes that wait for the database,
//! `PUSHES_MAX` that wait to be passed on, `ASKS_AT_ONCE` questions.

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use ::store::Write;
use futures::{StreamExt as _, stream};
use protocol::{
    PeerId,
    health::{Memory, REVOKED},
    revocations::{
        Full, HOLD, Held, LEFT_MIN, Learned, NEWS_PER_PEER, NEWS_WITHIN, News, REVOCATIONS_MAX, Revocations as Book,
        Revoke, Revoked, TOLD_PER_PEER, TOLD_WITHIN, Weight,
    },
    signed::Verified,
    time::Mono,
    wire::{HeldRevoke, Protocol, RefusalCode, Refused, RevocationsRequest, RevocationsResponse, RevokeAck},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::{task::JoinSet, time::timeout};
use tracing::{debug, warn};

use crate::{
    context::{Context, inform},
    fetch::{self, FetchError},
    outbox, peers, planner, pool,
    promises::{Answer, Promises},
    registry,
    store::{self, Kept},
    suggestions,
    supervision::{Class, Envelope, Reply, Seat, Timer},
    swarm::{self, OpenError},
};

/// How often it is seen whom to ask.
const TICK: Duration = Duration::from_secs(1);

/// Each connected indexer is asked for all that it holds this often: what did not reach us when it was new does by then.
const ASK_EVERY: Duration = Duration::from_secs(3_600);

/// One that did not answer is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// Indexers asked at once.
const ASKS_AT_ONCE: usize = 8;

/// For all of them to come, so that nobody who tells them slowly keeps others from being asked.
const ASKED_WITHIN: Duration = Duration::from_secs(60);

/// Of those that our operators handed in, the last of which an indexer is told when it is met: fewer than it takes at once.
const OURS_TOLD_MAX: usize = 16;

/// For one page to come.
const PAGE_WITHIN: Duration = Duration::from_secs(5);

/// Peers told at once of one that is new.
const TOLD_AT_ONCE: usize = 64;

/// For a peer to take one.
const TELL_WITHIN: Duration = Duration::from_secs(5);

/// New ones that wait to be passed on. Past it what peers brought is learned by whoever asks; what our own operators hand in
/// takes the place of that.
const PUSHES_MAX: usize = 64;

/// Changes that wait for the database: as many as there can be revocations, and some. Past it a change holds for this life.
const WRITES_MAX: usize = 2 * REVOCATIONS_MAX;

/// While the database does not answer it is asked this often.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// A change is on the disk within this, or the store died with it: setting it twice is setting it once.
const KEPT_WITHIN: Duration = Duration::from_secs(5);

/// Revocations whose hold is over that go in one collection.
const COLLECT_MAX: usize = 1_024;

/// The actor.
pub struct Revocations;

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
    book: Book,
    is_recalled: bool,
    /// What peers brought by themselves.
    news: News,
    /// What they told when they were asked.
    told: News,
    connected: BTreeMap<PeerId, Link>,
    asking: JoinSet<()>,
    pushes: VecDeque<Push>,
    pushing: JoinSet<()>,
    writes: Promises<(Told, Outcome)>,
    timer: Option<Timer>,
    tick: Timer,
}

/// A connected peer.
#[derive(Clone, Copy, Default)]
struct Link {
    is_indexer: bool,
    /// When it is asked next for what it holds.
    ask_at: Mono,
    is_asked: bool,
}

/// One that the book has, since now or before.
struct Entered {
    held: Held,
    learned: Learned,
    is_changed: bool,
}

impl Entered {
    fn is_new(&self) -> bool {
        matches!(self.learned, Learned::New { .. })
    }
}

/// One to be passed on.
struct Push {
    revoke: Arc<Verified<Revoke>>,
    from: Source,
}

/// How one came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// It was handed in.
    Hand(Source),
    /// An indexer told it when it was asked.
    Asking,
}

/// Who handed a revocation in, and waits for what becomes of it.
pub type Told = Reply<Result<Outcome, Fault>>;

/// What became of a revocation that was handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// As it is held, on the disk.
    pub held: Held,
    /// It was not held before.
    pub is_new: bool,
}

/// Why a revocation is not taken, or not yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// What was held before is being read back.
    #[error("the revocations are being read back from the database: try again in a moment")]
    NotReady,
    /// It is in force, and not on the disk.
    #[error("it holds, but the database does not answer: it is written down as soon as that does")]
    NotWritten,
    /// There is no room for it.
    #[error(transparent)]
    Full(#[from] Full),
    /// Whoever brought it brought too many.
    #[error("{}", .0.detail)]
    TooMany(Refused),
}

impl Fault {
    /// The same in the words of the wire.
    #[must_use]
    pub fn refusal(self) -> Refused {
        match self {
            Self::TooMany(refused) => refused,
            Self::Full(full) => Refused::new(RefusalCode::Limit, full.to_string()),
            fault => Refused::new(RefusalCode::Busy, fault.to_string()).retry_after(RETRY_EVERY.as_secs()),
        }
    }
}

/// Who brings a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Our own operator.
    Operator,
    /// A peer, on a stream of its own.
    Peer(PeerId),
}

/// What it is told and asked.
pub enum Msg {
    /// Somebody hands a revocation in.
    Heard {
        /// What the key said.
        revoke: Box<Verified<Revoke>>,
        /// Who brings it.
        from: Source,
        /// Once it is on the disk.
        reply: Told,
    },
    /// An indexer told what it holds.
    Learnt {
        /// Which.
        from: PeerId,
        /// A page, each with how long it is still held there.
        page: Vec<(Verified<Revoke>, Duration)>,
    },
    /// An indexer was asked for all.
    Asked {
        /// Which.
        peer: PeerId,
        /// It answered, or never will.
        is_done: bool,
    },
    /// A page of what is held here is wanted.
    Page {
        /// Those behind this peer.
        after: Option<PeerId>,
        /// The page; nothing before the book is read back.
        reply: Reply<Option<RevocationsResponse>>,
    },
    /// A revoked peer was refused: its key is still used.
    Tried {
        /// Which.
        peer: PeerId,
    },
    /// A peer said hello.
    Met {
        /// Who.
        peer: PeerId,
        /// It is an indexer.
        is_indexer: bool,
    },
    /// Its last connection closed.
    Gone {
        /// Whose.
        peer: PeerId,
    },
    /// Every connection closed.
    AllGone,
    /// Health began a life and wants to know whether our own key is revoked.
    TellHealth,
    /// Those that are held are wanted.
    Look(Reply<Vec<Held>>),
    /// Forget a batch of those whose hold is over.
    Collect,
    /// What the store kept; nothing while the database is away.
    Recalled(Option<Vec<Held>>),
    /// What became of the change that was sent to the store with this number.
    Kept {
        /// The number.
        number: u64,
        /// What became of it.
        kept: Kept,
    },
    /// One was passed on.
    Pushed,
    /// The store may answer now.
    Retry,
    /// See whom to ask.
    Tick,
}

impl Actor for Revocations {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        inform(&context.addresses.peers, Class::Control, peers::Msg::TellConnected);
        let mut state = State {
            book: Book::new(),
            is_recalled: false,
            news: News::new(NEWS_PER_PEER, NEWS_WITHIN),
            told: News::new(TOLD_PER_PEER, TOLD_WITHIN),
            connected: BTreeMap::new(),
            asking: JoinSet::new(),
            pushes: VecDeque::new(),
            pushing: JoinSet::new(),
            writes: Promises::new(WRITES_MAX),
            timer: None,
            tick: seat.after(TICK, Msg::Tick),
            seat,
            context,
        };
        state.recall();
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Heard { revoke, from, reply } => state.heard(*revoke, from, reply),
            Msg::Learnt { from, page } => state.learnt(from, page),
            Msg::Asked { peer, is_done } => state.asked(&peer, is_done),
            Msg::Page { after, reply } => reply.send(state.page(after.as_ref())),
            Msg::Tried { peer } => state.tried(&peer),
            Msg::Met { peer, is_indexer } => state.met(peer, is_indexer),
            Msg::Gone { peer } => drop(state.connected.remove(&peer)),
            Msg::AllGone => state.connected.clear(),
            Msg::TellHealth => state.tell_health(),
            Msg::Look(reply) => reply.send(state.book.list().cloned().collect()),
            Msg::Collect => state.collect(),
            Msg::Recalled(kept) => state.recalled(kept),
            Msg::Kept { number, kept } => state.kept(number, kept),
            Msg::Pushed => state.push_next(),
            Msg::Retry => state.retry(),
            Msg::Tick => state.tick(),
        }
        Ok(())
    }
}

impl State {
    // What is learned.

    fn heard(&mut self, revoke: Verified<Revoke>, from: Source, reply: Told) {
        if !self.is_recalled {
            return reply.send(Err(Fault::NotReady));
        }
        let now = self.seat.now();
        let weight = if from == Source::Operator { Weight::Ours } else { Weight::Heard };
        let newcomer = Held::new(revoke, HOLD, weight, now.wall);
        if let Source::Peer(by) = from
            && self.book.is_news(&newcomer)
            && let Err(refused) = self.news.admit(by, now.mono)
        {
            return reply.send(Err(Fault::TooMany(refused)));
        }
        match self.enter(newcomer) {
            Ok(entered) => {
                if entered.is_new() {
                    self.go_by();
                }
                self.entered(entered, By::Hand(from), Some(reply));
            }
            Err(full) => reply.send(Err(full.into())),
        }
    }

    fn learnt(&mut self, from: PeerId, page: Vec<(Verified<Revoke>, Duration)>) {
        // Before the book is read back nobody is asked: it was another life's question.
        if !self.is_recalled {
            return;
        }
        let now = self.seat.now();
        let page = page.into_iter().filter(|(_, left)| *left >= LEFT_MIN);
        let mut entered = Vec::new();
        for (revoke, left) in page {
            let newcomer = Held::new(revoke, left, Weight::Heard, now.wall);
            if self.book.is_news(&newcomer) && self.told.admit(from, now.mono).is_err() {
                debug!(peer = %from, "it holds more than is learned from one peer in an hour");
                break;
            }
            entered.extend(self.enter(newcomer).ok());
        }
        // Once for the page: the set is made anew each time.
        if entered.iter().any(Entered::is_new) {
            self.go_by();
        }
        for entered in entered {
            self.entered(entered, By::Asking, None);
        }
    }

    fn enter(&mut self, newcomer: Held) -> Result<Entered, Full> {
        let peer = newcomer.revoke.peer_id;
        let before = self.book.get(&peer).cloned();
        match self.book.learn(newcomer.clone()) {
            Ok(learned) => {
                let held = self.book.get(&peer).cloned().unwrap_or(newcomer);
                Ok(Entered { is_changed: before.is_none_or(|before| before != held), held, learned })
            }
            Err(full) => {
                self.context.stats.revocations_refused.inc();
                warn!(%peer, "a revocation is not held: {full}");
                Err(full)
            }
        }
    }

    /// It is in force: now it is written down, then said, then passed on.
    fn entered(&mut self, entered: Entered, by: By, told: Option<Told>) {
        let is_new = entered.is_new();
        let Entered { held, learned, is_changed } = entered;
        let told = told.map(|told| (told, Outcome { held: held.clone(), is_new }));
        let is_ours = by == By::Hand(Source::Operator);
        let mut writes = Vec::new();
        if let Learned::New { displaced } = learned {
            self.context.stats.revocations_new.inc();
            self.drop_peer(&held);
            writes.extend(displaced.map(Write::ForgetRevocation));
            writes.extend([Write::Revocation(held.clone()), Write::ForgetPeer(held.revoke.peer_id)]);
        } else {
            self.context.stats.revocations_known.inc();
            // Our operator waits for one that waits for the disk; whoever else hands it in again makes no work.
            if is_changed || (is_ours && !self.writes.is_empty()) {
                writes.push(Write::Revocation(held.clone()));
            }
        }
        self.write(writes, told);
        // What was learned by asking others learn by asking. What our operator hands in again goes out again.
        if let By::Hand(from) = by
            && (is_ours || learned != Learned::Known)
        {
            self.pass_on(held.revoke, from);
        }
    }

    fn tried(&mut self, peer: &PeerId) {
        if let Some(held) = self.book.tried(peer, self.seat.now().wall) {
            self.write(vec![Write::Revocation(held)], None);
        }
    }

    fn collect(&mut self) {
        let over = self.book.collect(self.seat.now().wall, COLLECT_MAX);
        if !over.is_empty() {
            debug!(over = over.len(), "revocations whose keys are not used any more were let go");
            self.go_by();
            self.write(over.into_iter().map(Write::ForgetRevocation).collect(), None);
        }
    }

    /// From now on these are refused by whoever looks.
    fn go_by(&self) {
        self.context.refuse_revoked(Revoked::of(&self.book));
        self.context.stats.revocations.set(i64::try_from(self.book.len()).unwrap_or(i64::MAX));
    }

    /// Everybody who holds something of the peer lets it go.
    fn drop_peer(&self, held: &Held) {
        let peer = held.revoke.peer_id;
        let words = match held.revoke.reason.as_str() {
            "" => format!("by its own key at {}", held.revoke.time),
            reason => format!("by its own key at {}: {reason}", held.revoke.time),
        };
        warn!(%peer, words, "revoked");
        self.context.note("revoked", peer, words);
        if peer == self.context.own.peer_id {
            self.tell_own(held);
            return;
        }
        let to = &self.context.addresses;
        inform(&to.swarm, Class::Control, swarm::Msg::Do(swarm::Command::Disown { peer }));
        inform(&to.registry, Class::Control, registry::Msg::Revoked(peer));
        inform(&to.suggestions, Class::Control, suggestions::Msg::Gone { peer });
        inform(&to.pool, Class::Control, pool::Msg::Revoked { peer });
        inform(&to.outbox, Class::Control, outbox::Msg::Forget { peer });
        inform(&to.planner, Class::Control, planner::Msg::Forget { peer });
        inform(&to.peers, Class::Control, peers::Msg::Forget { peer });
    }

    fn tell_health(&self) {
        // Those of a former life are in force while they are read back.
        self.context.read_back(Memory::Revocations, self.is_recalled || !self.context.revoked.borrow().is_unknown());
        if let Some(own) = self.book.get(&self.context.own.peer_id) {
            self.tell_own(own);
        }
    }

    fn tell_own(&self, held: &Held) {
        self.context.trouble(REVOKED, Some(own_remedy(held)));
    }

    // How it spreads.

    fn pass_on(&mut self, revoke: Arc<Verified<Revoke>>, from: Source) {
        let is_full = self.pushes.len() >= PUSHES_MAX;
        if from == Source::Operator {
            if is_full {
                self.pushes.pop_back();
            }
            self.pushes.push_front(Push { revoke, from });
        } else if is_full {
            debug!(peer = %revoke.peer_id, "too many are new: others learn this one when they ask");
        } else {
            self.pushes.push_back(Push { revoke, from });
        }
        self.push_next();
    }

    /// One at a time: the next when the last one is over.
    fn push_next(&mut self) {
        while self.pushing.try_join_next().is_some() {}
        if !self.pushing.is_empty() {
            return;
        }
        let Some(Push { revoke, from }) = self.pushes.pop_front() else { return };
        let is_told = |peer: &PeerId| Source::Peer(*peer) != from && self.book.get(peer).is_none();
        let peers: Vec<PeerId> = self.connected.keys().copied().filter(is_told).collect();
        let (context, me) = (self.context.clone(), self.seat.me().clone());
        self.pushing.spawn(async move {
            let text = revoke.to_raw();
            stream::iter(peers).for_each_concurrent(TOLD_AT_ONCE, |peer| tell(&context, peer, &text)).await;
            // Should the task not be over yet when this is handled, the next tick sees that it is.
            inform(&me, Class::Own, Msg::Pushed);
        });
    }

    fn met(&mut self, peer: PeerId, is_indexer: bool) {
        // As many as there are connections, which the doors bound.
        self.connected.entry(peer).or_insert(Link { is_indexer, ..Link::default() }).is_indexer = is_indexer;
        // It was greeted while the book was read back.
        if let Some(held) = self.book.get(&peer) {
            self.drop_peer(held);
        }
    }

    fn tick(&mut self) {
        while self.asking.try_join_next().is_some() {}
        let now = self.seat.now().mono;
        let room = if self.is_recalled { ASKS_AT_ONCE.saturating_sub(self.asking.len()) } else { 0 };
        let is_due = |link: &Link| link.is_indexer && !link.is_asked && link.ask_at <= now;
        let due = self.connected.iter().filter(|(_, link)| is_due(link));
        let mut due: Vec<(Mono, PeerId)> = due.map(|(peer, link)| (link.ask_at, *peer)).collect();
        due.sort_unstable();
        for (_, peer) in due.into_iter().take(room) {
            self.ask(peer);
        }
        self.push_next();
        // Re-armed last, so that two never queue.
        self.tick = self.seat.after(TICK, Msg::Tick);
    }

    /// Tells an indexer what our operators handed in, and asks it for all that it holds.
    fn ask(&mut self, peer: PeerId) {
        if let Some(link) = self.connected.get_mut(&peer) {
            link.is_asked = true;
        }
        let mut ours: Vec<&Held> = self.book.list().filter(|held| held.weight == Weight::Ours).collect();
        ours.sort_by_key(|held| Reverse(held.heard));
        let ours: Vec<_> = ours.into_iter().take(OURS_TOLD_MAX).map(|held| held.revoke.to_raw()).collect();
        let (context, me) = (self.context.clone(), self.seat.me().clone());
        self.asking.spawn(async move {
            let asked = async {
                for text in &ours {
                    tell(&context, peer, text).await;
                }
                ask(&context, peer).await
            };
            let is_done = match timeout(ASKED_WITHIN, asked).await {
                Ok(Ok(()) | Err(FetchError::Open(OpenError::NotListed { .. }))) => true,
                Ok(Err(error)) => {
                    debug!(%peer, %error, "it did not tell its revocations");
                    false
                }
                Err(_) => {
                    debug!(%peer, within = ?ASKED_WITHIN, "it did not tell all of its revocations");
                    true
                }
            };
            inform(&me, Class::Own, Msg::Asked { peer, is_done });
        });
    }

    fn asked(&mut self, peer: &PeerId, is_done: bool) {
        let now = self.seat.now().mono;
        if let Some(link) = self.connected.get_mut(peer) {
            link.is_asked = false;
            link.ask_at = now + if is_done { ASK_EVERY } else { ASK_AGAIN };
        }
    }

    fn page(&self, after: Option<&PeerId>) -> Option<RevocationsResponse> {
        let now = self.seat.now().wall;
        let (page, more) = self.book.page(after);
        let told = |held: &Held| HeldRevoke { revoke: held.revoke.to_raw(), left_s: held.left(now).as_secs() };
        self.is_recalled.then(|| RevocationsResponse { revocations: page.into_iter().map(told).collect(), more })
    }

    // What a restart must not forget.

    fn recall(&mut self) {
        let ask = store::Msg::Revocations { reply: self.seat.reply(Msg::Recalled) };
        inform(&self.context.addresses.store, Class::Control, ask);
        self.timer = Some(self.seat.after(RETRY_EVERY, Msg::Retry));
    }

    fn recalled(&mut self, kept: Option<Vec<Held>>) {
        // The timer asks again where the database is away.
        let Some(kept) = kept.filter(|_| !self.is_recalled) else { return };
        self.is_recalled = true;
        self.timer = None;
        let now = self.seat.now().wall;
        let in_force: Vec<Held> = self.context.revoked.borrow().list().cloned().collect();
        let written: BTreeSet<PeerId> = kept.iter().map(|held| held.revoke.peer_id).collect();
        let unwritten: Vec<Write> = in_force
            .iter()
            .filter(|held| !written.contains(&held.revoke.peer_id))
            .map(|held| Write::Revocation(held.clone()))
            .collect();
        let over = self.book.restore(kept, now);
        // What a former life of ours could not write down holds all the same.
        self.book.restore(in_force, now);
        self.write(unwritten.into_iter().chain(over.into_iter().map(Write::ForgetRevocation)).collect(), None);
        self.go_by();
        self.tell_health();
        // Whoever came to be connected before, in a life that failed.
        for held in self.book.list().filter(|held| self.connected.contains_key(&held.revoke.peer_id)) {
            self.drop_peer(held);
        }
        self.write_next();
    }

    /// Nothing to write is written already.
    fn write(&mut self, writes: Vec<Write>, told: Option<(Told, Outcome)>) {
        if writes.is_empty() {
            return say(told, true);
        }
        if let Err((writes, told)) = self.writes.push(writes, told) {
            warn!(?writes, "too much waits for the database; this holds until a restart");
            return say(told, false);
        }
        self.write_next();
    }

    fn write_next(&mut self) {
        let Some((number, writes)) = self.writes.next() else { return };
        let reply = self.seat.reply(move |kept| Msg::Kept { number, kept });
        inform(&self.context.addresses.store, Class::Control, store::Msg::Promises { writes, reply });
        self.timer = Some(self.seat.after(KEPT_WITHIN, Msg::Retry));
    }

    fn kept(&mut self, number: u64, kept: Kept) {
        match self.writes.answered(number, kept) {
            Answer::Late => return,
            Answer::Away(told) => {
                say(told, false);
                self.timer = Some(self.seat.after(RETRY_EVERY, Msg::Retry));
                return;
            }
            Answer::Written(told) => say(told, true),
            Answer::Refused { writes, why, told } => {
                warn!(?writes, ?why, "this holds until a restart");
                say(told, false);
            }
        }
        self.timer = None;
        self.write_next();
    }

    fn retry(&mut self) {
        self.writes.again();
        self.timer = None;
        if !self.is_recalled {
            self.recall();
        }
        self.write_next();
    }
}

/// Whoever handed it in hears of it.
fn say(told: Option<(Told, Outcome)>, is_written: bool) {
    if let Some((told, outcome)) = told {
        told.send(if is_written { Ok(outcome) } else { Err(Fault::NotWritten) });
    }
}

/// What an operator is told whose own key is revoked.
fn own_remedy(held: &Held) -> String {
    let time = held.revoke.time;
    format!(
        "the key of this member was revoked at {time}, and nobody takes it any more: stop it and make a new identity with \
         `muster init` in another folder (docs/how-to/revoke-a-key.md)"
    )
}

/// Tells one peer; who does not hear it now learns it when it asks.
async fn tell(context: &Context, peer: PeerId, text: &serde_json::value::RawValue) {
    let told: Result<RevokeAck, _> =
        fetch::exchange(context, peer, Vec::new(), Protocol::Revoke, &text, TELL_WITHIN).await;
    if let Err(error) = told {
        debug!(%peer, %error, "it did not take a revocation");
    }
}

/// Asks an indexer for all that it holds, page by page.
async fn ask(context: &Context, peer: PeerId) -> Result<(), FetchError> {
    let (mut after, mut left) = (None, REVOCATIONS_MAX);
    loop {
        let question = RevocationsRequest { after };
        let page: RevocationsResponse =
            fetch::exchange(context, peer, Vec::new(), Protocol::Revocations, &question, PAGE_WITHIN).await?;
        let now = context.now().wall;
        let verified = page.revocations.iter().take(left).filter_map(|told| {
            let opened = Verified::<Revoke>::open(told.revoke.get(), now);
            let opened = opened.inspect_err(|error| {
                context.stats.revocations_forged.inc();
                debug!(%peer, %error, "a revocation that it holds is not valid");
            });
            Some((opened.ok()?, Duration::from_secs(told.left_s)))
        });
        let verified: Vec<_> = verified.collect();
        let last = verified.last().map(|(revoke, _)| revoke.peer_id);
        left = left.saturating_sub(page.revocations.len());
        if !verified.is_empty() {
            let learnt = Msg::Learnt { from: peer, page: verified };
            inform(&context.addresses.revocations, Class::Control, learnt);
        }
        // Each page is behind the last: a peer that tells the same one again and again comes to no end.
        if !page.more || left == 0 || last.is_none() || last <= after {
            return Ok(());
        }
        after = last;
    }
}
