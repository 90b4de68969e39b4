//! ConfigActor: offers new settings to everybody who goes by them, and sees to it that all take them or none.
//!
//! Owns the settings in force ([`Context::live`]) and the list of those who watch them. The edge brings new settings that
//! passed every check of a start; each watcher says whether it can go by them, the edge writes them down, each goes by them
//! ([`protocol::change`]). One that refuses, or is silent, sends everybody back, and whoever does not say that it went is told
//! until it does. A restart forgets a change under way: its asker hears nothing more, and every watcher is told to go by what
//! is in force. Bounds: one change at a time; the rule's own.

use std::{collections::BTreeSet, sync::Arc};

use protocol::change::{Action, Exchange, Input, Refusal, STEP_WITHIN, Step};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::{
    alerts,
    context::{Context, inform},
    gate, pool, registry, report, score, search,
    settings::Settings,
    supervision::{Address, Class, Envelope, Reply, Seat, Shed, Timer},
};

/// The actor.
pub struct Config;

/// What one life is given.
pub struct Args {
    /// Its seat.
    pub seat: Seat<Msg>,
    /// The daemon's.
    pub context: Context,
}

/// New settings.
pub struct Change {
    /// All of them; what cannot change while we run is as it was at the start.
    pub settings: Settings,
    /// What is changed, in words for the journal.
    pub what: String,
    /// What happens outside the tree.
    pub outside: Arc<dyn Outside>,
}

/// The part of a change that happens outside the tree: its file, the log. It may block.
pub trait Outside: Send + Sync + 'static {
    /// Makes it so.
    ///
    /// # Errors
    /// Why not, in words; then it may be half done, and [`Outside::restore`] is called.
    fn keep(&self) -> Result<(), String>;

    /// Makes it as it was.
    ///
    /// # Errors
    /// Why not, in words.
    fn restore(&self) -> Result<(), String>;
}

/// What a watcher is told, and where it answers.
pub struct Turn {
    /// Of which change.
    number: u64,
    told: Told,
    reply: Reply<Result<(), String>>,
}

enum Told {
    Prepare(Arc<Settings>),
    Commit,
    Back(Arc<Settings>),
}

/// What a watcher keeps between being asked and being told.
#[derive(Debug, Default)]
pub struct Offered(Option<(u64, Arc<Settings>)>);

impl Offered {
    /// Takes one turn and answers it: the settings to go by from now on, if it brings any. `check` says why new ones cannot be
    /// gone by.
    #[must_use]
    pub fn take(&mut self, turn: Turn, check: impl FnOnce(&Settings) -> Result<(), String>) -> Option<Arc<Settings>> {
        let Turn { number, told, reply } = turn;
        match told {
            Told::Prepare(settings) => {
                let checked = check(&settings);
                self.0 = checked.is_ok().then_some((number, settings));
                reply.send(checked);
                None
            }
            Told::Commit => match self.0.take_if(|(asked, _)| *asked == number) {
                Some((_, settings)) => {
                    reply.send(Ok(()));
                    Some(settings)
                }
                // A new life was never asked, and an older change may be on its way back.
                None => {
                    reply.send(Err("it began anew meanwhile".to_owned()));
                    None
                }
            },
            Told::Back(settings) => {
                self.0 = None;
                reply.send(Ok(()));
                Some(settings)
            }
        }
    }
}

/// Somebody who goes by settings.
struct Watcher {
    name: String,
    tell: Box<dyn Fn(Turn) -> Result<(), Untold> + Send + Sync>,
}

/// Why a watcher was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Untold {
    #[error("its mailbox is full")]
    Busy,
    #[error("it is being restarted")]
    Away,
}

impl Watcher {
    fn of<M: Send + 'static>(address: &Address<M>, message: fn(Turn) -> M) -> Self {
        let address = address.clone();
        let name = address.path().to_string();
        let tell = move |turn| {
            address.tell(Class::Control, message(turn)).map_err(|shed| match shed {
                Shed::Busy(_) => Untold::Busy,
                Shed::Away(_) => Untold::Away,
            })
        };
        Self { name, tell: Box::new(tell) }
    }

    /// Everybody who keeps settings of its own; who reads [`Context::live`] each time needs no word.
    fn all(context: &Context) -> Vec<Self> {
        let to = &context.addresses;
        let mut watchers = vec![
            Self::of(&to.score, score::Msg::Configure),
            Self::of(&to.search, search::Msg::Configure),
            Self::of(&to.pool, pool::Msg::Configure),
            Self::of(&to.alerts, alerts::Msg::Configure),
            Self::of(&to.report, report::Msg::Configure),
        ];
        if context.own.role.indexer {
            watchers.push(Self::of(&to.registry, registry::Msg::Configure));
            watchers.push(Self::of(&to.gate, gate::Msg::Configure));
        }
        watchers
    }
}

/// A change on its way.
struct UnderWay {
    exchange: Exchange,
    before: Arc<Settings>,
    after: Arc<Settings>,
    what: String,
    outside: Arc<dyn Outside>,
    reply: Reply<Result<(), Refusal>>,
}

/// What it holds.
pub struct State {
    seat: Seat<Msg>,
    context: Context,
    watchers: Vec<Watcher>,
    number: u64,
    under_way: Option<UnderWay>,
    /// Who has not said since the last change that it goes by what is in force.
    unsettled: BTreeSet<usize>,
    /// What is being written, which is waited for before it is taken back.
    keeping: Option<JoinHandle<()>>,
    restoring: Option<AbortOnDropHandle<()>>,
    timer: Option<Timer>,
}

/// What it is told and asked.
pub enum Msg {
    /// New settings are to be gone by.
    Change {
        /// Which.
        change: Box<Change>,
        /// When all do, or why none does.
        reply: Reply<Result<(), Refusal>>,
    },
    /// Something happened to a change.
    Happened {
        /// To which.
        number: u64,
        /// What.
        input: Input,
    },
    /// A watcher goes by what is in force.
    Settled {
        /// Since which change.
        number: u64,
        /// By its place among the watchers.
        watcher: usize,
    },
    /// See whether somebody is late.
    Tick,
}

impl Actor for Config {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let watchers = Watcher::all(&context);
        let mut state = State {
            // Our last life may have left some of them half way.
            unsettled: (0..watchers.len()).collect(),
            seat,
            context,
            watchers,
            number: 0,
            under_way: None,
            keeping: None,
            restoring: None,
            timer: None,
        };
        state.settle();
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Change { change, reply } => state.change(*change, reply),
            Msg::Happened { number, input } => state.happened(number, input),
            Msg::Settled { number, watcher } if number == state.number => drop(state.unsettled.remove(&watcher)),
            Msg::Settled { .. } => {}
            Msg::Tick if state.under_way.is_some() => state.happened(state.number, Input::Tick),
            Msg::Tick => state.settle(),
        }
        Ok(())
    }
}

impl State {
    fn change(&mut self, change: Change, reply: Reply<Result<(), Refusal>>) {
        if self.under_way.is_some() {
            let (by, why) = (self.seat.path().to_string(), "another change is under way".to_owned());
            return reply.send(Err(Refusal { by, why, unsure: Vec::new() }));
        }
        self.number += 1;
        let names = self.watchers.iter().map(|watcher| watcher.name.clone()).collect();
        let (exchange, actions) = Exchange::begin(names, self.seat.now().mono);
        let Change { settings, what, outside } = change;
        let (before, after) = (self.context.live(), Arc::new(settings));
        self.under_way = Some(UnderWay { exchange, before, after, what, outside, reply });
        self.act(actions);
    }

    fn happened(&mut self, number: u64, input: Input) {
        let now = self.seat.now().mono;
        let actions = match &mut self.under_way {
            Some(under_way) if number == self.number => under_way.exchange.handle(input, now),
            _ => return,
        };
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Tell { watcher, step } => self.tell(watcher, step),
                Action::Keep => self.keep(),
                Action::Restore => self.restore(),
                Action::Publish => self.publish(|under_way| under_way.after.clone()),
                Action::Withdraw => self.publish(|under_way| under_way.before.clone()),
                Action::End(outcome) => self.end(outcome),
            }
        }
        self.arm();
    }

    fn arm(&mut self) {
        let now = self.seat.now().mono;
        let wait = match &self.under_way {
            Some(under_way) => Some(under_way.exchange.ends_at().since(now)),
            None => (!self.unsettled.is_empty()).then_some(STEP_WITHIN),
        };
        self.timer = wait.map(|wait| self.seat.after(wait, Msg::Tick));
    }

    /// Has everybody who may go by something else go by what is in force.
    fn settle(&mut self) {
        let Self { unsettled, watchers, seat, context, number, .. } = self;
        unsettled.retain(|watcher| {
            let settled = Msg::Settled { number: *number, watcher: *watcher };
            let turn = Turn { number: *number, told: Told::Back(context.live()), reply: seat.reply(|_| settled) };
            // Who is not there begins anew with what is in force; who has no room is told again.
            watchers.get(*watcher).is_some_and(|watcher| (watcher.tell)(turn) != Err(Untold::Away))
        });
        self.arm();
    }

    fn tell(&mut self, number: usize, step: Step) {
        let (Some(watcher), Some(under_way)) = (self.watchers.get(number), &self.under_way) else { return };
        let told = match step {
            Step::Prepare => Told::Prepare(under_way.after.clone()),
            Step::Commit => Told::Commit,
            Step::Back => Told::Back(under_way.before.clone()),
        };
        let change = self.number;
        let answered = move |outcome| {
            let input = Input::Answered { watcher: number, step, outcome };
            Msg::Happened { number: change, input }
        };
        if let Err(why) = (watcher.tell)(Turn { number: change, told, reply: self.seat.reply(answered) }) {
            let outcome = match (step, why) {
                // It begins anew, with what is in force then; should it have looked a moment too early, it is told again.
                (Step::Back, Untold::Away) => {
                    self.unsettled.insert(number);
                    Ok(())
                }
                (_, why) => Err(why.to_string()),
            };
            self.seat.reply(answered).send(outcome);
        }
    }

    fn keep(&mut self) {
        let Some(under_way) = &self.under_way else { return };
        let (outside, me, number) = (under_way.outside.clone(), self.seat.me().clone(), self.number);
        // It reads and writes files, which may wait for a disk.
        self.keeping = Some(tokio::task::spawn_blocking(move || {
            inform(&me, Class::Own, Msg::Happened { number, input: Input::Kept(outside.keep()) });
        }));
    }

    fn restore(&mut self) {
        let Some(under_way) = &self.under_way else { return };
        let (outside, me, number) = (under_way.outside.clone(), self.seat.me().clone(), self.number);
        let keeping = self.keeping.take();
        self.restoring = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            if let Some(keeping) = keeping {
                // A panic in it has been told by the panic hook.
                let _ = keeping.await;
            }
            let restored = tokio::task::spawn_blocking(move || outside.restore()).await;
            let outcome = restored.unwrap_or_else(|cause| Err(cause.to_string()));
            inform(&me, Class::Own, Msg::Happened { number, input: Input::Restored(outcome) });
        })));
    }

    fn publish(&self, which: impl FnOnce(&UnderWay) -> Arc<Settings>) {
        if let Some(under_way) = &self.under_way {
            self.context.go_by(which(under_way));
        }
    }

    fn end(&mut self, outcome: Result<(), Refusal>) {
        let Some(UnderWay { what, reply, .. }) = self.under_way.take() else { return };
        self.keeping = None;
        match &outcome {
            Ok(()) => {
                self.unsettled.clear();
                info!(what, "the settings changed");
                self.context.note("settings_changed", what, "");
            }
            Err(refusal) => {
                let unsure = |(_, watcher): &(usize, &Watcher)| refusal.unsure.contains(&watcher.name);
                let unsure = self.watchers.iter().enumerate().filter(unsure);
                self.unsettled.extend(unsure.map(|(number, _)| number));
                warn!(what, by = refusal.by, why = refusal.why, "the settings did not change");
                self.context.note("settings_refused", what, refusal);
            }
        }
        reply.send(outcome);
    }
}

#[cfg(test)]
mod tests;
