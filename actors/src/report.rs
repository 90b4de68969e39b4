//! Report: once a day, what this member did and what was wrong with it.
//!
//! Owns [`protocol::report::Day`]. Told by alerts what was measured and what is wrong; tells the log and the bus, and shows
//! the edge the last whole day and the running one. It has the store keep both at each look, and whoever begins anew goes on
//! with them: a restart forgets for how long something was wrong since the last look, and one of the process what was
//! counted since then. A day that ended while nobody had it is told to its last look. Bounds: one number of a kind for each
//! topic and each counter.

use std::time::Duration;

use ::store::{Destination, Outgoing};
use protocol::{
    alerts::{Alert, Change, Sample},
    bus::VerbOut,
    report::{Counts, Day, Kept, Report as Reported},
    time::Mono,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::{
    config::{Offered, Turn},
    context::{Context, inform},
    sharing,
    stats::Stats,
    store,
    supervision::{Class, Envelope, Reply, Seat, Timer},
    view::ReportView,
};

/// The actor.
pub struct Report;

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
    day: Day,
    /// Whether it is known what was kept of it. Before, nothing is: it would take that one's place.
    is_resumed: bool,
    last: Option<Reported>,
    timer: Timer,
    /// When the running day began for this life, and how much of it was over by then.
    began: Mono,
    before: Duration,
    offered: Offered,
}

/// What the store keeps.
#[derive(Serialize, Deserialize)]
struct Pages {
    running: Kept,
    last: Option<Reported>,
}

/// What it is told and asked.
pub enum Msg {
    /// A look at everything.
    Sampled {
        /// What was seen.
        sample: Sample,
        /// What is wrong after it.
        raised: Vec<Alert>,
        /// What changed by it.
        changes: Vec<Change>,
    },
    /// What was kept by the life before, or nothing while the database is away.
    Resumed(Option<Option<String>>),
    /// The last whole day and the running one are wanted.
    Look(Reply<ReportView>),
    /// Settings may change.
    Configure(Turn),
    /// A day is over.
    Tick,
}

impl Actor for Report {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let now = seat.now();
        let state = State {
            day: Day::new(now, &counts(&context.stats)),
            is_resumed: false,
            last: None,
            timer: seat.after(context.live().alerts.report_every, Msg::Tick),
            began: now.mono,
            before: Duration::ZERO,
            offered: Offered::default(),
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
            Msg::Sampled { sample, raised, changes } => state.sampled(&sample, &raised, &changes),
            Msg::Resumed(kept) => state.resumed(kept),
            Msg::Look(reply) => reply.send(state.look()),
            Msg::Configure(turn) => state.configure(turn),
            Msg::Tick => state.tick(),
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        // The store ends after us, and writes what waits for it.
        state.keep();
        Ok(())
    }
}

impl State {
    fn recall(&self) {
        let reply = self.seat.reply(Msg::Resumed);
        inform(&self.context.addresses.store, Class::Control, store::Msg::Day { reply });
    }

    fn resumed(&mut self, kept: Option<Option<String>>) {
        // While the database is away the next look asks again; two answers may be on their way then.
        let Some(kept) = kept.filter(|_| !self.is_resumed) else { return };
        self.is_resumed = true;
        let Some(pages) = kept.and_then(|text| read(&text)) else { return };
        let now = self.seat.now();
        let every = self.context.live().alerts.report_every;
        if let Some(elapsed) = pages.running.elapsed(every, now.wall) {
            self.day.resume(pages.running, self.context.own.born_at);
            self.last = self.last.take().or(pages.last);
            (self.began, self.before) = (now.mono, elapsed);
            self.timer = self.seat.after(self.rest(every), Msg::Tick);
        } else {
            let report = pages.running.report();
            self.tell(&report);
            // A day of this life that is over already is the later one.
            self.last.get_or_insert(report);
        }
        self.keep();
    }

    fn keep(&self) {
        if !self.is_resumed {
            return;
        }
        let running = self.day.keep(&counts(&self.context.stats), self.seat.now(), self.context.own.born_at);
        // Names and numbers: there is nothing in it that JSON cannot say.
        let text = serde_json::to_string(&Pages { running, last: self.last.clone() }).unwrap_or_default();
        inform(&self.context.addresses.store, Class::Control, store::Msg::KeepDay(text));
    }

    /// What is left of the running day, where one has this length.
    fn rest(&self, every: Duration) -> Duration {
        every.saturating_sub(self.before + self.seat.now().mono.since(self.began))
    }

    fn sampled(&mut self, sample: &Sample, raised: &[Alert], changes: &[Change]) {
        changes.iter().for_each(|change| self.day.told(change));
        self.day.sampled(sample, raised, self.seat.now().mono);
        if self.is_resumed { self.keep() } else { self.recall() }
    }

    fn look(&self) -> ReportView {
        let running = self.day.report(&counts(&self.context.stats), self.seat.now());
        ReportView { last: self.last.clone(), running }
    }

    fn configure(&mut self, turn: Turn) {
        if let Some(settings) = self.offered.take(turn, |_| Ok(())) {
            self.timer = self.seat.after(self.rest(settings.alerts.report_every), Msg::Tick);
        }
    }

    fn tick(&mut self) {
        let (counts, now) = (counts(&self.context.stats), self.seat.now());
        let report = self.day.report(&counts, now);
        self.day = self.day.next(now, &counts);
        self.tell(&report);
        self.last = Some(report);
        self.keep();
        // Re-armed last, so that two never queue.
        (self.began, self.before) = (now.mono, Duration::ZERO);
        self.timer = self.seat.after(self.context.live().alerts.report_every, Msg::Tick);
    }

    fn tell(&self, report: &Reported) {
        // Names and numbers: there is nothing in it that JSON cannot say.
        let text = serde_json::to_string(report).unwrap_or_default();
        info!(from = %report.from, to = %report.to, report = text, "report of the day");
        self.context.note(
            "report",
            &self.context.own.name,
            format!("{} alerts since {}", report.alerts.len(), report.from),
        );
        if !self.context.has_bus() || !self.context.own.role.node {
            return;
        }
        let outgoing = Outgoing {
            destination: Destination::Bus,
            subject: VerbOut::Report.name().to_owned(),
            user: String::new(),
            groups: [].into(),
            datatype: "report".to_owned(),
            payload: text.into_bytes().into(),
            message_id: format!("report-{}", report.from.as_millisecond()),
            // It never takes the place of a change of the catalogue.
            may_drop: true,
        };
        inform(&self.context.addresses.sharing, Class::Control, sharing::Msg::Say(vec![outgoing]));
    }
}

/// What was kept; damage of it costs the day and nothing else.
fn read(text: &str) -> Option<Pages> {
    serde_json::from_str(text).map_err(|cause| warn!(%cause, "the kept day cannot be read, and another begins")).ok()
}

/// What a report counts, by the names of the metrics.
fn counts(stats: &Stats) -> Counts {
    macro_rules! named {
        ($($name:ident),+ $(,)?) => { Counts::from([$((stringify!($name), stats.$name.get())),+]) };
    }
    named!(
        connections_opened,
        connections_denied,
        beats_answered,
        beats_missed,
        beats_served,
        beats_refused,
        searches_begun,
        searches_served,
        searches_refused,
        queries_answered,
        resource_searches_begun,
        resource_questions_answered,
        resource_questions_refused,
        changes_done,
        changes_refused,
        events_taken,
        events_refused,
        events_delivered,
        events_refused_by_peers,
        bus_orders_taken,
        bus_orders_refused,
        bus_announced,
        bad_inputs,
        records_refused,
        messages_shed,
    )
}
