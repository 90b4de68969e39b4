//! Alerts: looks now and then at the host and at this member, and says once what is wrong and once that it is over.
//!
//! Owns [`protocol::alerts::Alerts`] and the one task that looks. Asks pool, score, claim, health, bridge and store through the edge's
//! handle; tells health's journal, the log, the bus, the webhook and report. A restart forgets what is raised and raises it anew. Bounds: those
//! of the rules; one look at a time.

use std::time::Instant;

use ::store::{Destination, Outgoing};
use protocol::{
    alerts::{self, Alert, Change, Sample, Severity, Topic, median},
    bus::VerbOut,
    score::SILENT_SHARE_MAX,
    webhook::Notice,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::{
    claim,
    config::{Offered, Turn},
    context::{Context, inform},
    handle::{Handle, ask},
    host::Host,
    report, score, sharing, store,
    supervision::{Class, Envelope, Reply, Seat, Timer},
    view::{AlertView, BridgeState, SampleView, Standing},
    webhook,
};

/// The actor.
pub struct Alerts;

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
    alerts: alerts::Alerts,
    /// How the processors were at the last look, against which the next is measured; away while a look is under way.
    host: Option<Host>,
    look: Option<AbortOnDropHandle<()>>,
    timer: Timer,
    offered: Offered,
}

/// What it is told and asked.
pub enum Msg {
    /// Time to look.
    Tick,
    /// A look is over.
    Seen {
        /// What was seen.
        sample: Sample,
        /// For the next look.
        host: Box<Host>,
    },
    /// What is wrong now is wanted.
    Raised(Reply<Vec<AlertView>>),
    /// The samples of the last hours are wanted.
    History(Reply<Vec<SampleView>>),
    /// Settings may change.
    Configure(Turn),
}

impl Actor for Alerts {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let settings = context.live().alerts.clone();
        let host = Some(Host::of(context.settings.data.clone()));
        let timer = seat.after(settings.every, Msg::Tick);
        let (alerts, offered) = (alerts::Alerts::new(settings), Offered::default());
        Ok(State { seat, context, alerts, host, look: None, timer, offered })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Tick => state.tick(),
            Msg::Seen { sample, host } => state.seen(sample, *host),
            Msg::Raised(reply) => reply.send(state.alerts.raised().into_iter().map(AlertView::from).collect()),
            Msg::History(reply) => reply.send(state.history()),
            Msg::Configure(turn) => state.configure(turn),
        }
        Ok(())
    }
}

impl State {
    fn tick(&mut self) {
        // One that is still under way is waited for: a host that is so slow is looked at less often.
        if let Some(host) = self.host.take() {
            let (me, context) = (self.seat.me().clone(), self.context.clone());
            let look = tokio::spawn(async move {
                let (sample, host) = look(context, host).await;
                inform(&me, Class::Control, Msg::Seen { sample, host: Box::new(host) });
            });
            self.look = Some(AbortOnDropHandle::new(look));
        }
        // Re-armed last, so that two never queue.
        self.timer = self.seat.after(self.alerts.settings().every, Msg::Tick);
    }

    fn configure(&mut self, turn: Turn) {
        if let Some(settings) = self.offered.take(turn, |_| Ok(())) {
            self.alerts.set_settings(settings.alerts.clone());
            self.timer = self.seat.after(settings.alerts.every, Msg::Tick);
        }
    }

    fn seen(&mut self, sample: Sample, host: Host) {
        self.look = None;
        self.host = Some(host);
        self.measure(&sample);
        let now = self.seat.now().wall;
        let changes = self.alerts.take(sample.clone(), now);
        changes.iter().for_each(|change| self.tell(change));
        let sampled = report::Msg::Sampled { sample, raised: self.alerts.raised(), changes };
        inform(&self.context.addresses.report, Class::Control, sampled);
        self.context.stats.alerts.set(i64::try_from(self.alerts.raised().len()).unwrap_or(i64::MAX));
    }

    /// What no other actor counts, for those who watch from outside.
    fn measure(&self, sample: &Sample) {
        let stats = &self.context.stats;
        if let Some(off) = sample.figures.get(&Topic::Clock) {
            stats.clock_off_seconds.set(*off / 1_000.0);
        }
        if let Some(silent) = sample.figures.get(&Topic::SelfSuspect) {
            stats.self_suspect.set(i64::from(*silent > SILENT_SHARE_MAX));
        }
    }

    fn tell(&self, change: &Change) {
        let (alert, is_over) = match change {
            Change::Raised(alert) => (alert, false),
            Change::Cleared(alert) => (alert, true),
        };
        let Alert { topic, severity, since, figure, bound, remedy } = alert;
        match (is_over, severity) {
            (true, _) => info!(%topic, figure, bound, "alert is over"),
            (false, Severity::Warning) => warn!(%topic, figure, bound, remedy, "alert"),
            (false, Severity::Critical) => error!(%topic, figure, bound, remedy, "critical alert"),
        }
        let kind = if is_over { "alert_over" } else { "alert" };
        self.context.note(kind, topic, format!("{figure:.3}, {bound} is allowed"));
        let mut payload = serde_json::to_value(AlertView::from(alert.clone())).unwrap_or_default();
        payload["over"] = is_over.into();
        let stage = if is_over { "over".to_owned() } else { format!("{severity:?}").to_lowercase() };
        let message_id = format!("alert-{topic}-{}-{stage}", since.as_millisecond());
        self.post(&message_id, is_over, &payload);
        if !self.context.has_bus() || !self.context.own.role.node {
            return;
        }
        let outgoing = Outgoing {
            destination: Destination::Bus,
            subject: VerbOut::Alert.name().to_owned(),
            user: String::new(),
            groups: [].into(),
            datatype: "alert".to_owned(),
            payload: payload.to_string().into_bytes().into(),
            message_id,
            // It never takes the place of a change of the catalogue.
            may_drop: true,
        };
        inform(&self.context.addresses.sharing, Class::Control, sharing::Msg::Say(vec![outgoing]));
    }

    /// To the operator's own address, where there is one.
    fn post(&self, id: &str, is_over: bool, alert: &serde_json::Value) {
        if !self.context.settings.webhook.is_on() {
            return;
        }
        let own = &self.context.own;
        let body = serde_json::json!({
            "type": if is_over { "alert.cleared" } else { "alert.raised" },
            "timestamp": self.seat.now().wall,
            "data": { "member": own.name, "peer_id": own.peer_id.to_string(), "alert": alert },
        });
        // Receivers know a repetition by it, and there may be many members at one of them.
        let id = format!("{}-{id}", own.peer_id);
        let notice = Notice { id, body: body.to_string() };
        inform(&self.context.addresses.webhook, Class::Control, webhook::Msg::Tell(notice));
    }

    fn history(&self) -> Vec<SampleView> {
        let view = |(at, sample): &(_, Sample)| SampleView {
            at: *at,
            figures: sample.figures.iter().map(|(topic, figure)| (topic.name().to_owned(), *figure)).collect(),
        };
        self.alerts.history().map(view).collect()
    }
}

/// One look at everything. What does not answer in time is absent from the sample.
async fn look(context: Context, host: Host) -> (Sample, Host) {
    let handle = Handle::new(context.clone());
    let began = Instant::now();
    let waiting = ask(&context.addresses.store, |reply| store::Msg::OutboxWaiting { reply }).await.ok().flatten();
    let took = waiting.is_some().then(|| began.elapsed().as_secs_f64() * 1e3);
    // Below 2^53 by far.
    #[expect(clippy::cast_precision_loss)]
    let waiting = waiting.map(|totals| totals.iter().map(|total| total.waiting).sum::<u64>() as f64);
    let latency = handle
        .indexers()
        .await
        .ok()
        .and_then(|indexers| median(indexers.iter().filter_map(|indexer| indexer.rtt_ms).collect()));
    let status = handle.status().await.ok();
    let bus = handle.bus().await.ok().flatten();
    let to = &context.addresses;
    let clock = ask(&to.claim, claim::Msg::AgreedClock).await.ok().flatten();
    let silent = ask(&to.score, score::Msg::SilentShare).await.ok().flatten();
    let sample = Sample::default()
        .with(Topic::Outbox, waiting)
        .with(Topic::DatabaseSlow, took)
        .with(Topic::Latency, latency)
        .with(Topic::Clock, clock.map(|offset| offset.unsigned_abs().as_secs_f64() * 1e3))
        .with(Topic::SelfSuspect, silent)
        .with(Topic::Peers, status.as_ref().map(|status| f64::from(status.connections)))
        .with_away(Topic::Database, status.as_ref().map(|status| !status.store_ok))
        .with_away(Topic::Isolated, status.as_ref().map(|status| status.standing == Standing::Isolated))
        .with_away(Topic::Bus, bus.map(|bus| bus.state == BridgeState::Away));
    // It reads files, which may wait for a disk.
    let looked = tokio::task::spawn_blocking(move || {
        let mut host = host;
        let figures = host.look();
        (figures, host)
    });
    match looked.await {
        Ok((figures, host)) => {
            (figures.into_iter().fold(sample, |sample, (topic, figure)| sample.with(topic, Some(figure))), host)
        }
        Err(cause) => {
            warn!(%cause, "the host cannot be looked at");
            (sample, Host::of(context.settings.data.clone()))
        }
    }
}
