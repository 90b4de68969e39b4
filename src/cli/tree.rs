//! `muster tree`: every actor with its vitals, once or again and again.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use actors::view::{ActorState, ActorView};
use clap::builder::styling::AnsiColor;
use console::Term;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    Context,
    client::Client,
    exit::{Exit, Failure, unwritten},
    output::{Output, clean, colour, micros, span},
};

/// Often enough to see a restart, seldom enough to read.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The tree is four deep; what claims to be deeper is cut, so that a view can never recurse without end.
const DEPTH_MAX: usize = 16;

/// Names are cut so that the figures stay in sight on a usual terminal.
const NAME_CHARS_MAX: usize = 44;

/// Flags of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show it anew every second, until Ctrl-C.
    #[arg(long, short)]
    watch: bool,
}

/// Asks and shows.
pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    if !args.watch {
        return context.output.list(&ask(&client).await?, text);
    }
    let terminal = Term::stdout();
    let mut ticks = interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match (ask(&client).await, context.output) {
            (Ok(actors), Output::Table) => show(&terminal, &text(&actors), context.output)?,
            (Ok(actors), output) => output.step(&actors, |_| String::new())?,
            // Someone who watches wants to see it come back.
            (Err(failure), Output::Table) if failure.exit == Exit::Unreachable => {
                show(&terminal, &failure.text(), context.output)?;
            }
            (Err(failure), _) => return Err(failure),
        }
    }
}

async fn ask(client: &Client) -> Result<Vec<ActorView>, Failure> {
    client.get("/api/v1/actors").await
}

fn show(terminal: &Term, text: &str, output: Output) -> Result<(), Failure> {
    if terminal.is_term() {
        terminal.clear_screen().map_err(|cause| unwritten(&cause))?;
    }
    output.step(&(), |()| text.to_owned())
}

/// The tree, a line each, with the figures in columns.
fn text(actors: &[ActorView]) -> String {
    let mut children: BTreeMap<&str, Vec<&ActorView>> = BTreeMap::new();
    let names: Vec<&str> = actors.iter().map(|actor| actor.name.as_str()).collect();
    for actor in actors {
        // A child whose supervisor is not shown stands at the root, so that nobody is ever left out.
        let parent =
            if names.contains(&actor.parent.as_str()) && actor.parent != actor.name { &actor.parent } else { "" };
        children.entry(parent).or_default().push(actor);
    }
    let mut lines = Vec::new();
    branch("", "", 0, &children, &mut lines);
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(5);
    let mut text = format!("{:<width$}  {}\n", "actor", header());
    for (name, actor) in &lines {
        let padding = " ".repeat(width - name.chars().count());
        let _ = writeln!(text, "{name}{padding}  {}", figures(actor));
        if let Some(error) = actor.last_error.as_deref().filter(|_| actor.restarts > 0 || is_ill(actor.state)) {
            let _ = writeln!(text, "{:width$}  last error: {}", "", colour(&clean(error), AnsiColor::Yellow));
        }
    }
    let ill = actors.iter().filter(|actor| is_ill(actor.state)).count();
    let restarts: u64 = actors.iter().map(|actor| actor.restarts).sum();
    let _ = writeln!(text, "{} actors, {ill} not well, {restarts} restarts", actors.len());
    text
}

fn branch<'a>(
    parent: &str,
    indent: &str,
    depth: usize,
    children: &BTreeMap<&str, Vec<&'a ActorView>>,
    lines: &mut Vec<(String, &'a ActorView)>,
) {
    let Some(here) = children.get(parent).filter(|_| depth < DEPTH_MAX) else { return };
    for (at, actor) in here.iter().enumerate() {
        let is_last = at + 1 == here.len();
        let (fork, under) = match (depth, is_last) {
            (0, _) => ("", ""),
            (_, true) => ("└── ", "    "),
            (_, false) => ("├── ", "│   "),
        };
        lines.push((format!("{indent}{fork}{}", label(actor)), actor));
        branch(&actor.name, &format!("{indent}{under}"), depth + 1, children, lines);
    }
}

/// The last part of the path; the end of a long one tells peers apart.
fn label(actor: &ActorView) -> String {
    let own = actor.name.strip_prefix(&actor.parent).and_then(|rest| rest.strip_prefix('/'));
    let name = clean(own.unwrap_or(&actor.name));
    let skip = name.chars().count().saturating_sub(NAME_CHARS_MAX);
    if skip == 0 { name } else { format!("…{}", name.chars().skip(skip + 1).collect::<String>()) }
}

fn header() -> String {
    format!(
        "{:<8} {:>10} {:>8} {:>10} {:>9} {:>5} {:>9} {:>9}",
        "state", "uptime", "restarts", "handled", "in flight", "shed", "p50", "p99"
    )
}

fn figures(actor: &ActorView) -> String {
    let (word, hue) = match actor.state {
        ActorState::Starting => ("starting", AnsiColor::Cyan),
        ActorState::Running => ("running", AnsiColor::Green),
        ActorState::Stuck => ("stuck", AnsiColor::Red),
        ActorState::Waiting => ("waiting", AnsiColor::Yellow),
        ActorState::Stopped => ("stopped", AnsiColor::BrightBlack),
    };
    let busy = match actor.state {
        ActorState::Stuck => format!("  busy for {}", span(actor.busy_ms)),
        _ => String::new(),
    };
    format!(
        "{} {:>10} {:>8} {:>10} {:>9} {:>5} {:>9} {:>9}{busy}",
        colour(&format!("{word:<8}"), hue),
        span(actor.uptime_ms),
        actor.restarts,
        actor.handled,
        format!("{}/{}", actor.in_flight, actor.in_flight_max),
        actor.shed,
        micros(actor.handle_p50_us),
        micros(actor.handle_p99_us),
    )
}

const fn is_ill(state: ActorState) -> bool {
    matches!(state, ActorState::Stuck | ActorState::Waiting | ActorState::Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(name: &str, parent: &str) -> ActorView {
        ActorView {
            name: name.to_owned(),
            kind: String::new(),
            parent: parent.to_owned(),
            state: ActorState::Running,
            incarnation: 1,
            uptime_ms: 0,
            restarts: 0,
            last_error: None,
            handled: 7,
            in_flight: 0,
            in_flight_max: 3,
            shed: 0,
            busy_ms: 0,
            handle_p50_us: 12,
            handle_p99_us: 1_200,
            wait_p50_us: 0,
            wait_p99_us: 0,
        }
    }

    fn names(text: &str) -> Vec<&str> {
        let before = |line: &'_ str, what: &str| line.find(what).unwrap_or(line.len());
        text.lines().map(|line| line[..before(line, "\u{1b}").min(before(line, " state"))].trim_end()).collect()
    }

    #[test]
    fn children_hang_below_their_supervisor() {
        let actors = [
            actor("root", ""),
            actor("root/store", "root"),
            actor("root/node", "root"),
            actor("root/node/pool", "root/node"),
            actor("root/swarm", "root"),
        ];
        let text = text(&actors);
        assert_eq!(
            names(&text),
            ["actor", "root", "├── store", "├── node", "│   └── pool", "└── swarm", "5 actors, 0 not well, 0 restarts"]
        );
    }

    #[test]
    fn an_orphan_is_shown_at_the_root_and_a_circle_ends() {
        let text = text(&[actor("root/a/b", "root/a"), actor("own", "own")]);
        assert_eq!(names(&text), ["actor", "b", "own", "2 actors, 0 not well, 0 restarts"]);
    }

    #[test]
    fn a_stuck_actor_says_for_how_long() {
        let stuck = ActorView { state: ActorState::Stuck, busy_ms: 65_000, ..actor("root", "") };
        let text = text(&[stuck]);
        assert!(text.contains("stuck") && text.contains("busy for 1 min"), "{text}");
    }

    #[test]
    fn the_last_error_is_shown_once_it_cost_a_life() {
        let healed = ActorView { restarts: 1, last_error: Some("reset\n".to_owned()), ..actor("root", "") };
        let text = text(&[healed]);
        assert!(text.contains("last error: ") && text.contains("reset\u{fffd}"), "{text}");
    }
}
