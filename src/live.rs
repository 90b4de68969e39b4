//! Settings that change while a member runs: asked for at the admin endpoint, written into the file, or told by SIGHUP.
//!
//! One task owns what is in force, so that changes come one after the other. Each is composed and checked whole like at a
//! start, and offered to the tree; what the tree takes is in force, and the file says it. The file is looked at every
//! [`LOOK_EVERY`] rather than watched by the system: that sees a file replaced, linked anew by an orchestrator, or changed on
//! a network's disk alike, and costs one look at its metadata. Whoever asks what is in force is shown it without waiting.

use std::{
    collections::BTreeMap,
    fmt,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actors::{
    config::{Change, Outside},
    handle::{ConfigureError, Handle},
    settings::Settings as ActorsSettings,
};
use futures::{FutureExt as _, future::BoxFuture};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, info, warn};

use crate::{
    cli::exit::Failure,
    config::{self, Config, Effective, Settings},
    keys,
    telemetry::Log,
    tree,
};

/// How often the file's metadata are looked at; a change is taken up when two looks saw the same, so that nobody reads half
/// of what an editor writes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Changes that wait while another is under way. That takes up to 9 s where an actor is stuck, and whoever asked gives up
/// after 10 s: a second one in the queue would be made for nobody.
const ORDERS_MAX: usize = 1;

/// Whom new settings are offered to.
pub(crate) trait Offers: Send + Sync + 'static {
    /// Has them gone by, by all or by nobody.
    fn configure(&self, change: Change) -> BoxFuture<'_, Result<(), ConfigureError>>;
    /// Says that some could not even be offered.
    fn note_unusable(&self, source: &str, why: &str);
}

impl Offers for Handle {
    fn configure(&self, change: Change) -> BoxFuture<'_, Result<(), ConfigureError>> {
        Self::configure(self, change).boxed()
    }

    fn note_unusable(&self, source: &str, why: &str) {
        self.note_unusable_settings(source, why);
    }
}

/// A setting as it is shown.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "SettingView")]
pub(crate) struct Shown {
    /// As it is in force.
    #[serde(flatten)]
    in_force: Effective,
    /// What it will be after a restart, where that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    after_restart: Option<Json>,
}

/// What a change changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "SettingsChanged")]
pub(crate) struct Changed {
    /// Settings that are otherwise now.
    pub(crate) changed: Vec<One>,
    /// Those of them that are gone by after a restart.
    pub(crate) needs_restart: Vec<String>,
}

/// One setting that changed.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "SettingChanged")]
pub(crate) struct One {
    key: String,
    from: Json,
    to: Json,
    live: bool,
}

/// Why nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotChanged {
    /// What is wanted cannot be used: every reason.
    #[error("{}", .0.join("\n"))]
    Wrong(Vec<String>),
    /// Something stands against it.
    #[error("{0}")]
    Conflict(String),
    /// Other changes are under way, the tree does not answer, or we leave.
    #[error("settings cannot be changed now: try again in a moment")]
    Busy,
}

impl From<Failure> for NotChanged {
    fn from(failure: Failure) -> Self {
        Self::Wrong(failure.why)
    }
}

/// A change that is wanted, and who waits for it.
struct Order {
    wishes: BTreeMap<String, Json>,
    reply: oneshot::Sender<Result<Changed, NotChanged>>,
}

/// The way to the settings of a running member; cheap to clone. When the last one is dropped its task ends.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    orders: mpsc::Sender<Order>,
    shown: watch::Receiver<Vec<Shown>>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl Live {
    /// Takes over the settings of a member that was just started with them, and with a network key that is being replaced or
    /// not.
    pub(crate) fn begin(
        (config, is_rotating): (&Config, bool),
        log: Log,
        offers: Arc<dyn Offers>,
        hangup: Option<Signal>,
    ) -> Self {
        let (orders, asked) = mpsc::channel(ORDERS_MAX);
        let keeper = Keeper::of((config.clone(), is_rotating), log, offers);
        let shown = keeper.shown.subscribe();
        let task = tokio::spawn(keeper.keep(asked, hangup));
        Self { orders, shown, _task: Arc::new(AbortOnDropHandle::new(task)) }
    }

    /// Every setting.
    pub(crate) fn show(&self) -> Vec<Shown> {
        self.shown.borrow().clone()
    }

    /// Changes settings, in the file too.
    ///
    /// # Errors
    /// Why nothing changed.
    pub(crate) async fn change(&self, wishes: BTreeMap<String, Json>) -> Result<Changed, NotChanged> {
        let (reply, answer) = oneshot::channel();
        self.orders.try_send(Order { wishes, reply }).map_err(|_| NotChanged::Busy)?;
        answer.await.map_err(|_| NotChanged::Busy)?
    }
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, i64, i64, u64)>);

impl Stamp {
    fn of(file: &Path) -> Self {
        let of = |found: std::fs::Metadata| (found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.size());
        Self(std::fs::metadata(file).ok().map(of))
    }
}

/// Who owns the settings.
struct Keeper {
    /// What the member was started with.
    started: Config,
    /// The network's key is being replaced.
    is_rotating: bool,
    /// What it goes by.
    in_force: Settings,
    /// What its file comes to, as it was last taken up.
    file: Vec<Effective>,
    log: Log,
    offers: Arc<dyn Offers>,
    /// The file at the last look.
    seen: Stamp,
    /// The file as it was last taken up, or refused; nothing at first, for it may have changed since it was read.
    taken: Stamp,
    /// The tree did not say what became of a change, so it is offered what is in force until it takes that.
    is_unsure: bool,
    shown: watch::Sender<Vec<Shown>>,
}

/// Reads or looks at what may wait for a disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotChanged> {
    // It fails only while the process ends, or by a panic, which the panic hook tells.
    spawn_blocking(work).await.map_err(|_| NotChanged::Busy)
}

impl Keeper {
    fn of((started, is_rotating): (Config, bool), log: Log, offers: Arc<dyn Offers>) -> Self {
        let (in_force, file) = (started.settings.clone(), started.effective.clone());
        let (seen, taken) = (Stamp::default(), Stamp::default());
        let shown = watch::Sender::new(shown(&started.effective, &file));
        Self { started, is_rotating, in_force, file, log, offers, seen, taken, is_unsure: false, shown }
    }

    async fn keep(mut self, mut orders: mpsc::Receiver<Order>, mut hangup: Option<Signal>) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    // Who gave up was told that nothing changed.
                    Some(Order { reply, .. }) if reply.is_closed() => {}
                    Some(Order { wishes, reply }) => drop(reply.send(self.change(&wishes).await)),
                    None => return,
                },
                () = heard(&mut hangup) => {
                    info!("SIGHUP: reading the configuration again");
                    self.reload("SIGHUP").await;
                }
                _ = looks.tick() => self.look().await,
            }
        }
    }

    async fn look(&mut self) {
        if self.is_unsure {
            self.insist().await;
        }
        let now = self.stamp().await;
        let is_still = std::mem::replace(&mut self.seen, now) == now;
        if is_still && now != self.taken {
            self.reload("the file").await;
        }
    }

    async fn stamp(&self) -> Stamp {
        let file = self.started.source.file.clone();
        blocking(move || Stamp::of(&file)).await.unwrap_or_default()
    }

    async fn text(&self) -> Result<String, NotChanged> {
        let source = self.started.source.clone();
        Ok(blocking(move || source.text()).await??)
    }

    /// Has the tree go by what is in force, whatever it goes by.
    async fn insist(&mut self) {
        let level = self.in_force.log.level.clone();
        let outside = Arc::new(Taking::new(None, Some((level.clone(), level)), self.log.clone()));
        let settings = tree::settings_of(&self.started, &self.in_force, self.is_rotating);
        let what = "back to what is in force".to_owned();
        match self.offers.configure(Change { settings, what, outside }).await {
            Ok(()) => self.is_unsure = false,
            Err(cause) => debug!(%cause, "not known to go by what is in force"),
        }
    }

    /// Takes up what the file says; where it cannot be, says why, and nothing changed.
    async fn reload(&mut self, because: &str) {
        // Before it is read: what is written meanwhile is seen as another.
        let stamp = self.stamp().await;
        let outcome = match self.text().await {
            Ok(text) => self.take_up(text, None).await,
            Err(cause) => Err(cause),
        };
        // A file that was refused is not read again until it is another; one that nobody heard of is.
        if outcome != Err(NotChanged::Busy) {
            self.taken = stamp;
        }
        match outcome {
            Ok(changed) if changed.changed.is_empty() => debug!(because, "the settings are as they were"),
            Ok(changed) => {
                info!(
                    because,
                    changed = changed.keys(),
                    needs_restart = changed.needs_restart.join(", "),
                    "took the settings up"
                );
            }
            Err(NotChanged::Wrong(why)) => {
                let why = why.join("\n");
                warn!(because, why, "the configuration cannot be used, and nothing changed");
                self.offers.note_unusable(because, &why);
            }
            Err(cause) => warn!(because, why = %cause, "nothing changed; SIGHUP has it tried again"),
        }
    }

    async fn change(&mut self, wishes: &BTreeMap<String, Json>) -> Result<Changed, NotChanged> {
        let source = &self.started.source;
        let is_toml = source.file.extension().is_none_or(|ending| ending == "toml");
        if !is_toml {
            let file = source.file.display();
            let words =
                format!("{file} is no TOML file, and only that can be changed with its comments: change it by hand");
            return Err(NotChanged::Conflict(words));
        }
        let above = self.file.iter().find(|setting| setting.is_above_file && wishes.contains_key(&setting.key));
        if let Some(Effective { key, origin, .. }) = above {
            let words = format!(
                "{key} is set by the {origin}, which is stronger than the file: change it there and start again"
            );
            return Err(NotChanged::Conflict(words));
        }
        let before = self.text().await?;
        let after = config::edited(&before, wishes).map_err(NotChanged::Wrong)?;
        // What we write ourselves is taken up once more by the next look, and found to be as it is.
        self.take_up(after, Some(before)).await
    }

    /// Takes up what a text of the file says; where there is a `before`, the file does not say it yet.
    async fn take_up(&mut self, text: String, before: Option<String>) -> Result<Changed, NotChanged> {
        let (source, wanted) = (self.started.source.clone(), text.clone());
        let new = blocking(move || source.compose(&wanted)).await??;
        let changed = self.changed(&new.effective);
        let settings = self.started.settings.with_live(&new.settings);
        // What goes together after a restart need not go together with what cannot change before.
        let against = settings.contradictions();
        if !against.is_empty() {
            let told = |why: String| format!("{why}, until a restart brings the others along");
            return Err(NotChanged::Wrong(against.into_iter().map(told).collect()));
        }
        if settings != self.in_force || before.is_some() {
            let file = before.map(|before| (self.started.source.file.clone(), before, text));
            let level = (settings.log.level != self.in_force.log.level)
                .then(|| (self.in_force.log.level.clone(), settings.log.level.clone()));
            let outside = Arc::new(Taking::new(file, level, self.log.clone()));
            let actors: ActorsSettings = tree::settings_of(&self.started, &settings, self.is_rotating);
            let change = Change { settings: actors, what: changed.keys(), outside: outside.clone() };
            match self.offers.configure(change).await {
                Ok(()) => self.is_unsure = false,
                Err(ConfigureError::Refused(refusal)) => return Err(NotChanged::Conflict(refusal.to_string())),
                Err(ConfigureError::Unasked(cause)) => {
                    warn!(%cause, "the tree does not say what became of a change: taking it back");
                    self.is_unsure = true;
                    if let Err(why) = blocking(move || outside.restore()).await? {
                        error!(why, "what was written could not be taken back");
                    }
                    return Err(NotChanged::Busy);
                }
            }
        }
        self.in_force = settings;
        self.file = new.effective;
        self.shown.send_replace(shown(&self.started.effective, &self.file));
        if !changed.needs_restart.is_empty() {
            warn!(settings = changed.needs_restart.join(", "), "changed in the file; they need a restart");
        }
        Ok(changed)
    }

    fn changed(&self, new: &[Effective]) -> Changed {
        let one = |difference: config::Difference| One {
            live: config::is_live(&difference.key),
            key: difference.key,
            from: difference.from,
            to: difference.to,
        };
        let changed: Vec<One> = config::differences(&self.file, new).into_iter().map(one).collect();
        let needs_restart = changed.iter().filter(|one| !one.live).map(|one| one.key.clone()).collect();
        Changed { changed, needs_restart }
    }
}

/// Every setting of a member that was started with these, and whose file comes to those now.
fn shown(started: &[Effective], file: &[Effective]) -> Vec<Shown> {
    let waiting = config::differences(started, file);
    let one = |(started, file): (&Effective, &Effective)| {
        let later = waiting.iter().find(|later| !file.live && later.key == file.key);
        let in_force = if file.live { file } else { started };
        Shown { in_force: in_force.clone(), after_restart: later.map(|later| later.to.clone()) }
    };
    started.iter().zip(file).map(one).collect()
}

impl Changed {
    fn keys(&self) -> String {
        self.changed.iter().map(|one| one.key.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// Waits for the signal; for ever where there is none.
async fn heard(signal: &mut Option<Signal>) {
    let is_heard = match signal {
        Some(signal) => signal.recv().await.is_some(),
        None => false,
    };
    if !is_heard {
        std::future::pending::<()>().await;
    }
}

/// What of a change happens outside the tree.
struct Taking {
    /// The file, what it says and what it is to say.
    file: Option<(PathBuf, String, String)>,
    /// How much the log tells, and is to tell.
    level: Option<(String, String)>,
    log: Log,
    /// Where its file is. Two threads may be at it when the tree is silent: one that is late with writing, and one that takes
    /// back.
    stage: Mutex<Stage>,
}

/// Where a file is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is as it was.
    Before,
    /// It was written, or nearly.
    Written,
    /// It was taken back, and stays so.
    Withdrawn,
}

impl fmt::Debug for Taking {
    // Written by hand: the file may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taking").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Taking {
    fn new(file: Option<(PathBuf, String, String)>, level: Option<(String, String)>, log: Log) -> Self {
        Self { file, level, log, stage: Mutex::new(Stage::Before) }
    }
}

/// The file still says `from` and is to be written; somebody else's words are left alone.
fn is_to_write(path: &Path, from: &str, to: &str) -> Result<bool, String> {
    let now = std::fs::read_to_string(path).map_err(|cause| format!("{}: {cause}", path.display()))?;
    match now {
        now if now == to => Ok(false),
        now if now == from => Ok(true),
        _ => Err(format!("{} was changed by somebody else meanwhile", path.display())),
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    keys::rewrite(path, text.as_bytes()).map_err(|cause| cause.to_string())
}

impl Outside for Taking {
    fn keep(&self) -> Result<(), String> {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if *stage == Stage::Withdrawn {
            return Err("it was taken back meanwhile".to_owned());
        }
        if let Some((path, before, after)) = &self.file
            && is_to_write(path, before, after)?
        {
            // A disk that fails now may have kept it all the same.
            *stage = Stage::Written;
            write(path, after)?;
        }
        *stage = Stage::Written;
        self.level.as_ref().map_or(Ok(()), |(_, level)| self.log.set_level(level))
    }

    fn restore(&self) -> Result<(), String> {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let was = std::mem::replace(&mut *stage, Stage::Withdrawn);
        if was != Stage::Written {
            return Ok(());
        }
        let log = self.level.as_ref().map_or(Ok(()), |(level, _)| self.log.set_level(level));
        if let Some((path, before, after)) = &self.file
            && is_to_write(path, after, before)?
        {
            write(path, before)?;
        }
        log
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
