//! `muster --demo kill NAME`: kills a member, then tells what the network does about it until it is healed.

use std::{collections::BTreeMap, time::Duration};

use actors::view::EventView;
use clap::builder::styling::AnsiColor;
use futures::future::join_all;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::super::{
    exit::{Exit, Failure},
    output::{Output, clean, colour},
};
use crate::demo::{
    ask::{self, Snapshot},
    control::{self, Request},
    state::{Folder, Life, Member},
    timeline::{Line, Timeline, unhealed},
};

/// Pause between two rounds of questions.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// After this long the story is left: a session ends 2 min after its last heartbeat and is collected within 30 s.
const PATIENCE: Duration = Duration::from_secs(180);

/// Whom to kill.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the demo's member, for example indexer-2
    name: String,
}

/// One step of the story.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Step {
    /// Something happened.
    Line(Line),
    /// It is over.
    End {
        /// No survivor counts on the dead, and all are well.
        healed: bool,
        /// Since the kill, milliseconds.
        after_ms: u64,
        /// Why not, by survivor.
        missing: Vec<String>,
    },
}

/// Kills and tells.
///
/// # Errors
/// When no demo runs, there is no such member, it has no process, or the network is not healed in time.
pub(super) async fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let folder = Folder::usual();
    let demo = folder.find()?;
    let dead = demo.member(Some(&args.name))?.clone();
    let survivors = running_besides(&dead, demo.members.clone());
    let (told, before) = before(&survivors).await;
    let killed_at = Timestamp::now();
    let began = Instant::now();
    control::ask(&folder, &demo, &Request::Kill { name: args.name.clone() }).await?;
    let mut timeline = Timeline::new(dead.clone(), killed_at, &demo.members, told, before);
    output.step(&Step::Line(opening(&dead)), show)?;
    loop {
        // Read again each time: another terminal may have killed or stopped one meanwhile.
        let survivors = running_besides(&dead, folder.read()?.map(|demo| demo.members).unwrap_or_default());
        let round = ask_all(&survivors, &timeline).await;
        let now = Timestamp::now();
        for line in absorb(&mut timeline, now, &survivors, &round) {
            output.step(&Step::Line(line), show)?;
        }
        let snapshots: Vec<_> = survivors.iter().zip(round.into_iter().map(|(_, snapshot)| snapshot)).collect();
        let missing = unhealed(&snapshots, &dead);
        let healed = missing.is_empty();
        let late = began.elapsed() > PATIENCE;
        if healed || late {
            let after_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            output.step(&Step::End { healed, after_ms, missing }, show)?;
        }
        if healed {
            return Ok(());
        }
        if late {
            return Err(Failure::new(Exit::TimedOut, format!("not healed within {} s", PATIENCE.as_secs()))
                .next(format!("the logs are in {}", folder.path().display())));
        }
        sleep(ASK_EVERY).await;
    }
}

/// Those that can be asked what they see.
fn running_besides(dead: &Member, members: Vec<Member>) -> Vec<Member> {
    members.into_iter().filter(|member| member.name != dead.name && member.state == Life::Running).collect()
}

fn opening(dead: &Member) -> Line {
    Line {
        after_ms: 0,
        who: dead.name.clone(),
        what: "killed".into(),
        detail: format!("SIGKILL to process {}", dead.pid),
    }
}

/// How the survivors are, and the last event of each, so that only what follows is told.
async fn before(survivors: &[Member]) -> (BTreeMap<String, u64>, BTreeMap<String, Snapshot>) {
    let asked =
        join_all(survivors.iter().map(|member| async { tokio::join!(ask::events(member, 0), ask::snapshot(member)) }));
    let mut told = BTreeMap::new();
    let mut before = BTreeMap::new();
    for (member, (events, snapshot)) in survivors.iter().zip(asked.await) {
        let last = events.unwrap_or_default().iter().map(|event| event.seq).max();
        told.insert(member.name.clone(), last.unwrap_or(0));
        if let Some(snapshot) = snapshot {
            before.insert(member.name.clone(), snapshot);
        }
    }
    (told, before)
}

/// One round: what each survivor says, in their order.
async fn ask_all(survivors: &[Member], timeline: &Timeline) -> Vec<(Vec<EventView>, Option<Snapshot>)> {
    join_all(survivors.iter().map(|member| async {
        let (events, snapshot) = tokio::join!(ask::events(member, timeline.since(&member.name)), ask::snapshot(member));
        (events.unwrap_or_default(), snapshot)
    }))
    .await
}

/// All that is new in a round, oldest first.
fn absorb(
    timeline: &mut Timeline,
    now: Timestamp,
    survivors: &[Member],
    round: &[(Vec<EventView>, Option<Snapshot>)],
) -> Vec<Line> {
    let mut lines: Vec<Line> = survivors
        .iter()
        .zip(round)
        .flat_map(|(member, (events, snapshot))| timeline.absorb(now, &member.name, events, snapshot.as_ref()))
        .collect();
    lines.sort_by_key(|line| line.after_ms);
    lines
}

fn show(step: &Step) -> String {
    match step {
        Step::Line(line) => show_line(line),
        Step::End { healed: true, after_ms, .. } => colour(
            &format!("healed after {:.1} s: nobody counts on it, and all are well", seconds(*after_ms)),
            AnsiColor::Green,
        ),
        Step::End { after_ms, missing, .. } => {
            let text = format!("not healed after {:.1} s:\n  {}", seconds(*after_ms), missing.join("\n  "));
            colour(&text, AnsiColor::Red)
        }
    }
}

fn show_line(line: &Line) -> String {
    let after = i32::try_from(line.after_ms).map_or(f64::INFINITY, |ms| f64::from(ms) / 1_000.0);
    format!("{after:>+9.3} s  {:<10} {:<20} {}", line.who, line.what, clean(&line.detail))
}

fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_tells_when_who_and_what() {
        let line = Line {
            after_ms: 213,
            who: "paris".into(),
            what: "member_suspected".into(),
            detail: "indexer-2: reset".into(),
        };
        assert_eq!(show_line(&line), "   +0.213 s  paris      member_suspected     indexer-2: reset");
    }

    #[test]
    fn a_story_in_json_is_one_object_per_step() {
        let end = Step::End { healed: true, after_ms: 5, missing: vec![] };
        assert_eq!(serde_json::to_string(&end).unwrap(), r#"{"healed":true,"after_ms":5,"missing":[]}"#);
    }
}
