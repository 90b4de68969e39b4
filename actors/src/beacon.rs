//! Beacon: broadcasts that measure how far and how fast broadcasts travel, ours and others'.
//!
//! Owns [`protocol::beacon::Beacons`] and [`protocol::beacon::Misses`], who waits for the end of ours, and one task per answer
//! under way. The edge begins one; the swarm tells it of those heard by gossip, the tasks that serve echo streams of answers to
//! ours. It tells the swarm to gossip. A restart forgets the beacon that is out, so that who waits for it hears that nobody
//! answers, and who was not reached.
//! Bounds: the rules' own; one of ours at a time; `ANSWERS_MAX` answers under way, past which a beacon stays unanswered.

use std::time::Duration;

use protocol::{
    PeerId,
    beacon::{self, Beacons, LISTEN_FOR, Misses, Reach, TooSoon},
    relation::Relation,
    search::QueryId,
    time::{Mono, Now},
    wire::{Answer, Echo, EventAck, Protocol, Refused, TOPIC_BEACON},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::rngs::StdRng;
use tokio::{sync::oneshot, task::JoinSet};
use tracing::debug;

use crate::{
    context::{Context, inform},
    fetch::FetchError,
    policy, reach,
    supervision::{Class, Envelope, Reply, Seat, Timer},
    swarm,
};

/// Answers under way at once: to find a beacon's author and dial it takes seconds.
const ANSWERS_MAX: usize = 16;

/// To find a peer, dial it and agree on the stream.
const OPEN_WITHIN: Duration = Duration::from_secs(4);

/// Policy answers within this, or the beacon is not answered.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// For the author to take an answer.
const TAKE_WITHIN: Duration = Duration::from_secs(2);

/// The actor.
pub struct Beacon;

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
    beacons: Beacons,
    /// Who waits for the end of ours, and when that is.
    waiting: Option<(Reply<Result<Reach, TooSoon>>, Timer)>,
    misses: Misses,
    /// Whom each went to, and whether it came there; nothing where none was sent.
    answers: JoinSet<Option<(PeerId, bool)>>,
}

/// What it is told and asked.
pub enum Msg {
    /// Send one, and say whom it reached.
    Begin {
        /// The answer, once it is no longer listened for.
        reply: Reply<Result<Reach, TooSoon>>,
    },
    /// Ours is no longer listened for.
    Over,
    /// Another member's was heard.
    Heard {
        /// Whose.
        author: PeerId,
        /// Which.
        id: QueryId,
    },
    /// A member says that ours reached it.
    Echoed {
        /// Who.
        from: PeerId,
        /// What it says.
        echo: Echo,
        /// Whether it counts.
        reply: Reply<Result<(), beacon::Uncounted>>,
    },
}

impl Actor for Beacon {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let rng = seat.rng();
        let (beacons, misses, answers) = (Beacons::default(), Misses::default(), JoinSet::new());
        Ok(State { seat, context, rng, beacons, waiting: None, misses, answers })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let now = state.seat.now();
        match envelope.open() {
            Msg::Begin { reply } => state.begin(reply, now),
            Msg::Over => state.over(),
            Msg::Heard { author, id } => state.heard(author, id, now.mono),
            Msg::Echoed { from, echo, reply } => reply.send(state.beacons.echoed(from, &echo, now.mono)),
        }
        Ok(())
    }
}

impl State {
    fn begin(&mut self, reply: Reply<Result<Reach, TooSoon>>, now: Now) {
        let id = QueryId::random(&mut self.rng);
        if let Err(too_soon) = self.beacons.begin(id, now.mono) {
            return reply.send(Err(too_soon));
        }
        // A text and a time: nothing in it cannot be written.
        let text = serde_json::to_vec(&beacon::beacon(id, now.wall)).unwrap_or_default();
        let (sent, _) = oneshot::channel();
        let publish = swarm::Command::Publish { topic: TOPIC_BEACON, text, reply: sent };
        inform(&self.context.addresses.swarm, Class::Search, swarm::Msg::Do(publish));
        self.waiting = Some((reply, self.seat.after(LISTEN_FOR, Msg::Over)));
    }

    fn over(&mut self) {
        let reach = self.beacons.end();
        if let Some((reply, _)) = self.waiting.take() {
            reply.send(Ok(reach));
        }
    }

    fn heard(&mut self, author: PeerId, id: QueryId, heard_at: Mono) {
        while let Some(ended) = self.answers.try_join_next() {
            if let Ok(Some((to, is_reached))) = ended {
                self.misses.ended(to, is_reached, heard_at);
            }
        }
        if !self.misses.allow(&author, heard_at) {
            self.context.stats.beacons_shunned.inc();
            return debug!(%author, "a beacon is not answered: its author was not where it said");
        }
        if self.answers.len() >= ANSWERS_MAX {
            return debug!(%author, "a beacon is not answered: enough are being answered");
        }
        let (context, hold) = (self.context.clone(), beacon::hold_back(&mut self.rng));
        self.answers.spawn(async move {
            tokio::time::sleep(hold).await;
            if !is_answered(&context, author).await {
                return None;
            }
            let answered = answer(&context, author, id, heard_at).await;
            if let Err(error) = &answered {
                debug!(%author, %error, "a beacon could not be answered");
            }
            // Whoever refuses an answer is there.
            Some((author, !matches!(answered, Err(FetchError::Open(_)))))
        });
    }
}

/// Policy has the first word: whoever is on the blacklist learns nothing of us, and whoever may be, neither.
async fn is_answered(context: &Context, author: PeerId) -> bool {
    let ask = |reply| policy::Msg::Relation { peer: author, reply };
    let relation = context.addresses.policy.ask(Class::Search, ask, ASK_WITHIN).await;
    matches!(relation, Ok(Some(relation)) if relation != Relation::Blacklist)
}

/// Tells the author that its beacon arrived, and how long that was kept from it: all until the stream is open.
async fn answer(context: &Context, author: PeerId, id: QueryId, heard_at: Mono) -> Result<(), FetchError> {
    let mut io = reach::open(context, author, Protocol::Echo, OPEN_WITHIN).await?;
    let echo = beacon::echo(id, context.now().mono.since(heard_at));
    let max = Protocol::Echo.value_bytes_max();
    let answer =
        io.ask(&echo, TAKE_WITHIN, |value| protocol::json::parse::<Answer<EventAck>>(value.bytes, max)).await??;
    io.close().await;
    match answer {
        Answer::Given(_) => Ok(()),
        Answer::Refused(refused) => Err(FetchError::Refused(refused)),
    }
}

/// An echo that counts for nothing, in the words of the wire.
pub(crate) fn refused(uncounted: &beacon::Uncounted) -> Refused {
    let code = match uncounted {
        beacon::Uncounted::Full => protocol::wire::RefusalCode::Limit,
        beacon::Uncounted::NoBeacon | beacon::Uncounted::Impossible => protocol::wire::RefusalCode::Invalid,
    };
    Refused::new(code, uncounted.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use protocol::{beacon::MISSES_MAX, identity::Keys};

    use super::*;
    use crate::testing::{INDEXER, Member, NODE, until};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_author_who_is_never_there_is_soon_not_answered_and_others_are() {
        let indexer = Member::start(150, INDEXER, &[]).await;
        let node = Member::start(151, NODE, &[&indexer]).await;
        let nowhere = Keys::from_seed([99; 32]).peer_id();
        let shunned = || indexer.context().stats.beacons_shunned.get();
        let mut beacons = 0;
        until("its beacons are no longer answered", async || {
            let heard = Msg::Heard { author: nowhere, id: QueryId::random(&mut rand::rng()) };
            inform(&indexer.context().addresses.beacon, Class::Search, heard);
            beacons += 1;
            (shunned() > 0).then_some(())
        })
        .await;
        assert!(beacons > MISSES_MAX, "{beacons}: one may be lost");
        // One in 20 s, and the mesh of gossip takes its time as well.
        until("a node that is there is answered", async || {
            let reached = node.handle().trace().await.ok()?.reached;
            reached.iter().any(|one| one.peer_id == indexer.peer()).then_some(())
        })
        .await;
    }
}
