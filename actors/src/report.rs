//! Report: once a day, what this member did and what was wrong with it.
//!
//! Owns [`protocol::report::Day`]. Told by alerts what was measured and what is wrong; tells the log and the bus, and shows
//! the edge the last whole day and the running one. A restart forgets both and begins a day anew. Bounds: one number of a
//! kind for each topic and each counter.

use ::store::{Destination, Outgoing};
use protocol::{
    alerts::{Alert, Change, Sample},
    bus::VerbOut,
    report::{Counts, Day, Report as Reported},
    time::Mono,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::info;

use crate::{
    config::{Offered, Turn},
    context::{Context, inform},
    sharing,
    stats::Stats,
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
    last: Option<Reported>,
    timer: Timer,
    /// When the running day began.
    began: Mono,
    offered: Offered,
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
        let day = Day::new(seat.now(), counts(&context.stats));
        let timer = seat.after(context.live().alerts.report_every, Msg::Tick);
        let began = seat.now().mono;
        Ok(State { seat, context, day, last: None, timer, began, offered: Offered::default() })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Sampled { sample, raised, changes } => state.sampled(&sample, &raised, &changes),
            Msg::Look(reply) => reply.send(state.look()),
            Msg::Configure(turn) => state.configure(turn),
            Msg::Tick => state.tick(),
        }
        Ok(())
    }
}

impl State {
    fn sampled(&mut self, sample: &Sample, raised: &[Alert], changes: &[Change]) {
        changes.iter().for_each(|change| self.day.told(change));
        self.day.sampled(sample, raised, self.seat.now().mono);
    }

    fn look(&self) -> ReportView {
        let running = self.day.report(&counts(&self.context.stats), self.seat.now());
        ReportView { last: self.last.clone(), running }
    }

    fn configure(&mut self, turn: Turn) {
        if let Some(settings) = self.offered.take(turn, |_| Ok(())) {
            let wait = (self.began + settings.alerts.report_every).since(self.seat.now().mono);
            self.timer = self.seat.after(wait, Msg::Tick);
        }
    }

    fn tick(&mut self) {
        let (counts, now) = (counts(&self.context.stats), self.seat.now());
        let report = self.day.report(&counts, now);
        self.day = self.day.next(now, counts);
        self.tell(&report);
        self.last = Some(report);
        // Re-armed last, so that two never queue.
        self.began = now.mono;
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
