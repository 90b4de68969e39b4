//! Sharing: what our applications and our partners change in the catalogue, one after the other.
//!
//! Owns the queue of changes. The bridge and the edge order changes of ours, the serving tasks bring partners' events.
//! Of a run of them it asks the store what is held, plans what becomes of each and who hears of it, and has all of it
//! written down in one transaction; then it answers, and tells outbox, planner, policy and bridge what is new for them. A restart
//! forgets what was not yet answered: whoever ordered it orders it again, and it takes effect once. Bounds: `QUEUE_MAX`
//! changes of `QUEUE_BYTES_MAX` bytes wait, `RUN_MAX` are written at once; past them the orderer is told to come back.

mod ask;
mod plan;
mod queue;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use ::store::{Change, Changed, Destination, Outgoing, RelationRow, StandingRow};
use protocol::{
    PeerId,
    bus::{Announcement, VerbOut},
    relation::Relation,
    wire::Refused,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::rngs::StdRng;

use self::{
    ask::Asks,
    plan::{Fate, News, Plan, Planner, Sorted},
    queue::{Answer, Batch, Queue},
};
pub use self::{
    ask::Question,
    plan::{Author, Outcome, Want, Wanted},
};
use crate::{
    bridge,
    context::{Context, inform},
    outbox, planner, policy, store,
    supervision::{Class, Envelope, Reply, Seat, Timer},
};

/// What an orderer hears whose changes find no room.
const TOO_MUCH: &str = "too much waits";

/// Changes in one transaction: more would make the first wait for the last without being written any faster.
const RUN_MAX: usize = 64;

/// For the store to say what is held, or what became of a run: longer than it waits for its database. Past it the store
/// died with the run in hand; whatever it wrote is known when the orders come again.
const RUN_WITHIN: Duration = Duration::from_secs(15);

/// The actor.
pub struct Sharing;

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
    /// What peers are to us; nothing until policy has told us.
    relations: Option<Arc<[RelationRow]>>,
    asks: Asks,
    queue: Queue,
    run: Option<Run>,
    /// Counts the runs, so that a late answer is not taken for another's.
    runs: u64,
    timer: Option<Timer>,
}

/// What is being written: the first wants of the queue, however it grows meanwhile.
struct Run {
    number: u64,
    wants: usize,
    /// In their order; none before it is known what is held.
    plans: Vec<Plan>,
}

/// An order from the bus.
pub struct Ordered {
    /// The bus's own name for the message, the same when it comes again.
    pub id: String,
    /// What it asks.
    pub order: protocol::bus::Order,
}

/// What became of an order from the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is on the disk.
    Done,
    /// It came before, or is older than what is held.
    Repeated,
    /// It will never be done.
    Refused(String),
    /// Not now; it is to come again.
    NotYet(String),
}

/// What it is told and asked.
pub enum Msg {
    /// What peers are to us, all that are anything.
    Relations(Arc<[RelationRow]>),
    /// An application orders something over the bus.
    Ordered {
        /// In their order.
        orders: Vec<Ordered>,
        /// What became of each.
        reply: Reply<Vec<Verdict>>,
    },
    /// The edge orders something.
    Order {
        /// What.
        want: Box<Want>,
        /// What became of it.
        reply: Reply<Outcome>,
    },
    /// A partner's events, judged and good.
    Told {
        /// What they ask, in their order.
        wanted: Vec<Wanted>,
        /// What became of each, once it is on the disk.
        reply: Reply<Vec<Result<(), Refused>>>,
    },
    /// Something is to be said on the bus.
    Say(Vec<Outgoing>),
    /// What is held of the resources that the run is about; nothing while the database is away.
    Held {
        /// The run's number.
        run: u64,
        /// In the order of its resources.
        rows: Option<Vec<Option<StandingRow>>>,
    },
    /// What became of the run; nothing while the database is away.
    Changed {
        /// The run's number.
        run: u64,
        /// In the order of its changes.
        changed: Option<Vec<Changed>>,
    },
    /// The store has not answered in time.
    Late {
        /// The run's number.
        run: u64,
    },
    /// What waits for the bus on one subject, in order?
    NextForBus {
        /// Which.
        verb: VerbOut,
        /// Later than this.
        after: u64,
        /// At most so many.
        limit: u32,
        /// In their order.
        reply: Reply<Vec<Announcement>>,
    },
    /// The bus has these.
    Published {
        /// Their numbers.
        ids: Vec<u64>,
    },
}

impl Actor for Sharing {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        inform(&context.addresses.policy, Class::Control, policy::Msg::TellRelations);
        let (rng, asks) = (seat.rng(), Asks::new(context.clone()));
        Ok(State {
            seat,
            context,
            rng,
            relations: None,
            asks,
            queue: Queue::default(),
            run: None,
            runs: 0,
            timer: None,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Relations(relations) => state.relations = Some(relations),
            Msg::Ordered { orders, reply } => state.ordered(orders, reply),
            Msg::Order { want, reply } => state.order(*want, reply),
            Msg::Told { wanted, reply } => state.take(Batch::of(wanted, Answer::Peer(reply))),
            Msg::Say(sayings) => state.take(Batch::of([Wanted::unnamed(Want::Say(sayings))], Answer::Nobody)),
            Msg::Held { run, rows } if state.is_running(run) => state.held(rows),
            Msg::Changed { run, changed } if state.is_running(run) => state.changed(changed),
            Msg::Late { run } if state.is_running(run) => state.put_off("the store does not answer"),
            Msg::Held { .. } | Msg::Changed { .. } | Msg::Late { .. } => {}
            Msg::NextForBus { verb, after, limit, reply } => state.next_for_bus(verb, after, limit, reply),
            Msg::Published { ids } => state.published(&ids),
        }
        state.begin();
        Ok(())
    }
}

impl State {
    fn ordered(&mut self, orders: Vec<Ordered>, reply: Reply<Vec<Verdict>>) {
        if let Some(why) = self.is_shut(orders.len()) {
            // Before anything is asked in their name: they come again.
            return reply.send(vec![Verdict::NotYet(why.to_owned()); orders.len()]);
        }
        let mut wants = Vec::with_capacity(orders.len());
        for Ordered { id, order } in orders {
            wants.push(match plan::sort(order) {
                Sorted::Change(want) => Wanted::of_bus(id, want),
                Sorted::Question(question) => Wanted::unnamed(Want::Ask { id, question: Box::new(question) }),
            });
        }
        self.take(Batch::of(wants, Answer::Bus(reply)));
    }

    fn order(&mut self, want: Want, reply: Reply<Outcome>) {
        self.take(Batch::of([Wanted::unnamed(want)], Answer::Edge(reply)));
    }

    /// Why so many more cannot be taken, if they cannot.
    fn is_shut(&self, more: usize) -> Option<&'static str> {
        match self.relations {
            None => Some("the relations are being read back"),
            Some(_) if !self.queue.has_room(more) => Some(TOO_MUCH),
            Some(_) => None,
        }
    }

    fn is_running(&self, number: u64) -> bool {
        self.run.as_ref().is_some_and(|run| run.number == number)
    }

    fn take(&mut self, batch: Batch) {
        if let Some(why) = self.is_shut(0) {
            return batch.put_off(why);
        }
        if let Err(batch) = self.queue.push(batch) {
            batch.put_off(TOO_MUCH);
        }
    }

    /// Takes up the next run, unless one is under way.
    fn begin(&mut self) {
        while self.run.is_none() && self.queue.len() > 0 {
            let wants = self.queue.len().min(RUN_MAX);
            self.runs += 1;
            let number = self.runs;
            self.run = Some(Run { number, wants, plans: Vec::new() });
            self.timer = Some(self.seat.after(RUN_WITHIN, Msg::Late { run: number }));
            let own = self.context.own.peer_id;
            let ids = self.queue.first(wants).filter_map(Wanted::resource_id);
            let keys = ids.map(|id| (own, id.to_owned())).collect();
            let reply = self.seat.reply(move |rows| Msg::Held { run: number, rows });
            if self.context.addresses.store.tell(Class::Control, store::Msg::Held { keys, reply }).is_err() {
                self.put_off("the store is busy");
            }
        }
    }

    fn held(&mut self, rows: Option<Vec<Option<StandingRow>>>) {
        let Some(Run { number, wants, .. }) = self.run else { return };
        let (Some(rows), Some(relations)) = (rows, self.relations.clone()) else {
            return self.put_off("the database is away");
        };
        let now = self.seat.now().wall;
        let mut planner = Planner::new(&self.context, &relations, now);
        let mut plans = Vec::with_capacity(wants);
        let mut rows = rows.into_iter();
        for wanted in self.queue.first(wants) {
            if let Some(id) = wanted.resource_id() {
                planner.holds(id, rows.next().flatten());
            }
            plans.push(planner.plan(wanted, &mut self.rng));
        }
        let changes: Vec<Change> = plans.iter_mut().filter_map(|plan| plan.change.take()).collect();
        self.run = Some(Run { number, wants, plans });
        self.timer = Some(self.seat.after(RUN_WITHIN, Msg::Late { run: number }));
        if changes.is_empty() {
            return self.changed(Some(Vec::new()));
        }
        let reply = self.seat.reply(move |changed| Msg::Changed { run: number, changed });
        if self.context.addresses.store.tell(Class::Control, store::Msg::Change { changes, reply }).is_err() {
            self.put_off("the store is busy");
        }
    }

    fn changed(&mut self, changed: Option<Vec<Changed>>) {
        let Some(changed) = changed else { return self.put_off("the database is away") };
        let Some(run) = self.run.take() else { return };
        let mut changed = changed.into_iter();
        let mut news = News::default();
        for plan in run.plans {
            let outcome = match plan.fate {
                Fate::Refused(why) => Outcome::Refused(why),
                Fate::Ask { id, question } => match self.asks.begin(self.seat.me(), id, *question, &mut self.rng) {
                    Ok(()) => Outcome::Done { version: None },
                    Err(why) => Outcome::NotYet(why),
                },
                Fate::Written => match changed.next() {
                    Some(Changed::Done) => {
                        news.add(plan.news);
                        Outcome::Done { version: plan.version }
                    }
                    Some(Changed::Repeated) => {
                        // It may have been written by a run that was not heard to its end.
                        news.is_recalled |= !plan.news.relations.is_empty();
                        Outcome::Repeated
                    }
                    Some(Changed::Older { held }) => Outcome::Older { held },
                    // Of the catalogue nothing goes by itself, and nobody shall wait for that.
                    Some(Changed::Refused(why)) if why.is_for_now() => Outcome::Full(why.to_string()),
                    Some(Changed::Refused(why)) => Outcome::Refused(why.to_string()),
                    None => Outcome::NotYet("the store did not say".to_owned()),
                },
            };
            self.count(&outcome);
            self.queue.finish(outcome);
        }
        self.take_note(&news);
        self.tell(news);
    }

    /// The next run is planned by what this one wrote, and policy tells it again.
    fn take_note(&mut self, news: &News) {
        let Some(relations) = &self.relations else { return };
        if news.relations.is_empty() {
            return;
        }
        let changed = |peer: &PeerId| news.relations.iter().any(|row| row.peer == *peer);
        let left = relations.iter().filter(|row| !changed(&row.peer)).cloned();
        let mut rows: Vec<RelationRow> = left.collect();
        for (at, row) in news.relations.iter().enumerate() {
            let is_last = !news.relations[at + 1..].iter().any(|later| later.peer == row.peer);
            if is_last && row.relation != Relation::None {
                rows.push(row.clone());
            }
        }
        self.relations = Some(rows.into());
    }

    /// What is under way is not done; its orderers come again.
    fn put_off(&mut self, why: &str) {
        let Some(run) = self.run.take() else { return };
        for _ in 0..run.wants {
            self.queue.finish(Outcome::NotYet(why.to_owned()));
        }
        // What comes again must not find what came after it done already.
        while self.queue.is_begun() {
            self.queue.finish(Outcome::NotYet(why.to_owned()));
        }
    }

    fn count(&self, outcome: &Outcome) {
        let stats = &self.context.stats;
        match outcome {
            Outcome::Done { .. } => stats.changes_done.inc(),
            Outcome::Repeated | Outcome::Older { .. } => stats.changes_repeated.inc(),
            Outcome::Refused(_) | Outcome::Full(_) | Outcome::NotYet(_) => stats.changes_refused.inc(),
        };
    }

    fn tell(&self, news: News) {
        let to = &self.context.addresses;
        if !news.partners.is_empty() {
            inform(&to.outbox, Class::Control, outbox::Msg::Grew(news.partners));
        }
        if news.is_planned {
            inform(&to.planner, Class::Control, planner::Msg::Changed);
        }
        if news.is_for_bus {
            inform(&to.bridge, Class::Control, bridge::Msg::Waiting);
        }
        if news.is_recalled {
            inform(&to.policy, Class::Control, policy::Msg::Retry);
        }
        for row in news.relations {
            inform(&to.policy, Class::Control, policy::Msg::Kept(row));
        }
    }

    fn next_for_bus(&self, verb: VerbOut, after: u64, limit: u32, reply: Reply<Vec<Announcement>>) {
        let rows = Reply::told(move |rows: Option<Vec<::store::OutboxRow>>| {
            reply.send(rows.unwrap_or_default().into_iter().filter_map(plan::announcement).collect());
        });
        let (destination, subject) = (Destination::Bus, verb.name());
        let next = store::Msg::OutboxNext { destination, subject, after, limit, reply: rows };
        // A busy store answers nobody: the bridge hears that its reply is dropped.
        inform(&self.context.addresses.store, Class::Control, next);
    }

    fn published(&self, ids: &[u64]) {
        let at = self.seat.now().wall;
        let ended = |id: &u64| ::store::Write::OutboxEnded {
            id: *id,
            fate: ::store::Fate::Delivered,
            at,
            detail: String::new(),
        };
        let (reply, _) = Reply::channel();
        let writes = ids.iter().map(ended).collect();
        inform(&self.context.addresses.store, Class::Control, store::Msg::Promises { writes, reply });
    }
}
