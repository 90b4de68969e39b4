//! `muster demo`: a local federation of real processes, until Ctrl-C or `muster --demo down`; and the verbs that only a
//! demo has.

mod down;
mod kill;
mod pause;
mod resume;
mod start;

use std::{io::IsTerminal, path::PathBuf, time::Duration};

use actors::view::StatusView;
use clap::builder::styling::AnsiColor;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{
    Context,
    exit::{Exit, Failure},
    output::{colour, say, short, table},
};
use crate::demo::{
    MEMBERS, ask,
    federation::{Federation, News, Step, Stop, unconverged},
    own_name, samples,
    state::{Folder, Life, Member, Role},
    timeline::word,
    watch,
};

/// Pause between two looks at whether the federation has converged.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// After this long it is said what is still missing.
const CONVERGE_PATIENCE: Duration = Duration::from_secs(30);

/// What only a demo can do.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Start a local federation of real processes; Ctrl-C ends it.
    Demo,
    /// Kill a member of the demo, and tell what the others do about it.
    Kill(kill::Args),
    /// Stop a member of the demo with its connections open.
    Pause(pause::Args),
    /// Let a stopped member of the demo go on.
    Resume(resume::Args),
    /// Start a member of the demo that was killed.
    Start(start::Args),
    /// End the demo.
    Down,
    /// Wait for the demo's end and clean up after it; started by the demo, not by people.
    #[command(hide = true)]
    DemoWatch {
        /// The demo's folder.
        folder: PathBuf,
    },
}

impl Verb {
    /// It is about a running demo's members, as opposed to a daemon.
    const fn needs_demo(&self) -> bool {
        !matches!(self, Self::Demo | Self::DemoWatch { .. })
    }
}

/// Does what the verb says.
///
/// To be awaited on the main thread: the members' lives are tied to the thread that starts them.
pub(super) async fn run(verb: Verb, context: &Context) -> Result<(), Failure> {
    if verb.needs_demo() && !context.at.demo {
        return Err(Failure::new(Exit::Usage, "this verb is for the members of a demo")
            .why("a daemon is ended by a signal, and started by `muster run`")
            .next("add --demo"));
    }
    match verb {
        Verb::Demo => live_and_end().await,
        Verb::Kill(args) => kill::run(&args, context.output).await,
        Verb::Pause(args) => pause::run(&args, context.output).await,
        Verb::Resume(args) => resume::run(&args, context.output).await,
        Verb::Start(args) => start::run(&args, context.output).await,
        Verb::Down => down::run().await,
        Verb::DemoWatch { folder } => Ok(watch::run(folder)?),
    }
}

/// Runs the demo in the foreground.
///
/// # Errors
/// When another demo runs, a member cannot be started, or something would be left behind.
async fn live_and_end() -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let folder = Folder::usual();
    let mut federation = Federation::begin(folder.clone())?;
    let bar = progress();
    let outcome = tokio::select! {
        outcome = live(&mut federation, folder, &bar) => outcome,
        () = signals.next() => Ok(Stop::Signal),
    };
    bar.finish_and_clear();
    if outcome.is_ok() {
        eprintln!("ending all members; Ctrl-C again to kill them");
    }
    federation.end(signals.next()).await?;
    outcome?;
    eprintln!("the demo is over; nothing is left of it");
    Ok(())
}

/// From the first key to the last verb.
async fn live(federation: &mut Federation, folder: Folder, bar: &ProgressBar) -> Result<Stop, Failure> {
    let began = Instant::now();
    say(&format!("starting {} members in {}", MEMBERS.len(), folder.path().display()))?;
    federation.bring_up(&mut rand::rng(), |step| show_step(bar, &step)).await?;
    let converging = Converging(tokio::spawn(converge(folder, bar.clone(), began)));
    let stop = federation.serve(|news| show_news(bar, &news)).await;
    drop(converging);
    Ok(stop?)
}

/// The task that waits for convergence; ends with the demo.
struct Converging(JoinHandle<Result<(), Failure>>);

impl Drop for Converging {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits until the members that run have converged, then shows who is where.
async fn converge(folder: Folder, bar: ProgressBar, began: Instant) -> Result<(), Failure> {
    let mut patient = true;
    loop {
        // Read again each time: a verb may have killed one meanwhile, for which nobody should wait.
        let members = folder.read()?.map(|state| state.members).unwrap_or_default();
        let members: Vec<Member> = members.into_iter().filter(|member| member.state == Life::Running).collect();
        let missing = unconverged(&members).await;
        if missing.is_empty() && !members.is_empty() {
            let statuses = ask::statuses(&members).await;
            bar.finish_and_clear();
            say(&format!("\nconverged {:.1} s after the start\n", began.elapsed().as_secs_f64()))?;
            say(&who_is_where(&members, &statuses))?;
            match samples::share(&members).await {
                Ok(Some(shared)) => say(&format!("\n{shared}"))?,
                Ok(None) => {}
                // The federation stands without it, and whoever looks for it shall know why it is not there.
                Err(failure) => say(&format!("\nnothing is shared yet: {failure}"))?,
            }
            return say(&try_next(&own_name(), &members));
        }
        bar.set_message(missing.first().map_or_else(|| "nobody runs".to_owned(), |first| format!("waiting: {first}")));
        if patient && began.elapsed() > CONVERGE_PATIENCE {
            patient = false;
            let missing = missing.join("\n  ");
            bar.suspend(|| {
                eprintln!(
                    "not converged after {} s:\n  {missing}\nit goes on trying; the logs are in {}",
                    CONVERGE_PATIENCE.as_secs(),
                    folder.path().display()
                )
            });
        }
        sleep(LOOK_EVERY).await;
    }
}

fn progress() -> ProgressBar {
    let steps = u64::try_from(MEMBERS.len() * 2).unwrap_or(0);
    let style = ProgressStyle::with_template("{spinner} {bar:24} {elapsed} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(steps).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(80));
    bar
}

fn show_step(bar: &ProgressBar, step: &Step) {
    bar.inc(1);
    match step {
        Step::Made(name) => bar.set_message(format!("{name} has its key")),
        Step::Up(name) => {
            bar.set_message(format!("{name} is up"));
            // Without a terminal there is no bar to look at.
            if !std::io::stderr().is_terminal() {
                eprintln!("{name} is up");
            }
        }
    }
}

fn show_news(bar: &ProgressBar, news: &News) {
    let time = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
    bar.suspend(|| match news {
        News::Did { what, name } => eprintln!("{time}  {name} {what}"),
        News::Ended { name, how, log } => {
            eprintln!("{time}  {name} ended by itself ({how}); its last words:\n{log}\nstart it again: muster --demo start {name}");
        }
    });
}

/// The table of all members.
fn who_is_where(members: &[Member], statuses: &[Option<StatusView>]) -> String {
    let mut table = table(["name", "role", "peer id", "for peers", "for you", "standing", "connected with"]);
    let has_bus = members.iter().any(|member| member.bus.is_some());
    if has_bus && let Some(head) = table.header().cloned() {
        let cells: Vec<_> = head.cell_iter().cloned().chain(["for its applications".into()]).collect();
        table.set_header(cells);
    }
    for (member, status) in members.iter().zip(statuses) {
        let bus = member.bus.map(|bus| format!("nats://{bus}")).unwrap_or_default();
        let cells = [
            member.name.clone(),
            member.role.to_string(),
            short(&member.peer_id),
            member.p2p_addr(),
            member.admin_url(),
            status.as_ref().map_or_else(|| "no answer".to_owned(), |status| standing(member.role, status)),
            status.as_ref().map_or_else(String::new, |status| connected(member.role, status)),
        ];
        table.add_row(cells.into_iter().chain(has_bus.then_some(bus)));
    }
    table.to_string()
}

fn standing(role: Role, status: &StatusView) -> String {
    match role {
        Role::Node => word(status.standing).to_owned(),
        Role::Indexer if status.ready => "ready".to_owned(),
        Role::Indexer => "not ready".to_owned(),
    }
}

fn connected(role: Role, status: &StatusView) -> String {
    match role {
        Role::Node => format!("{} of {} indexers", status.pool_answering, status.pool_members),
        Role::Indexer => format!("{} sessions, {} indexers", status.sessions, status.indexers_known),
    }
}

/// What a newcomer can do now.
fn try_next(muster: &str, members: &[Member]) -> String {
    let page = members.iter().find(|member| member.role == Role::Node).map_or_else(String::new, |member| {
        format!("\nIn a browser, http://{}/ is the dashboard of {}\n", member.admin, member.name)
    });
    let first = MEMBERS.iter().find(|(_, role)| *role == Role::Node).map_or("", |(name, _)| *name);
    let lines = [
        ("peers", format!("whom {first} knows")),
        ("indexers", "its pool, with scores".to_owned()),
        ("search par", "find by part of a name; hits stream".to_owned()),
        ("get lyon", "a signed record, by name, DID or peer id".to_owned()),
        ("resource ls", format!("what {first} offers, and what a partner offers it")),
        ("tree --watch", "its actors, live".to_owned()),
        ("--on indexer-1 sessions", "ask another member".to_owned()),
        ("kill indexer-2", "and what the network does about it".to_owned()),
        ("start indexer-2", "bring it back".to_owned()),
        ("down", "end everything (or Ctrl-C here)".to_owned()),
    ];
    let mut text = page + &colour("\nTry next, in a second terminal:", AnsiColor::Green);
    for (verb, what) in lines {
        text.push_str(&format!("\n  {muster} --demo {verb:<24} {what}"));
    }
    text.push('\n');
    text
}

/// The signals that end a demo.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|cause| Failure::new(Exit::Internal, "cannot listen to signals").why(cause.to_string()))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
