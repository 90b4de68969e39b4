//! `muster restart ACTOR`: has one actor restarted by its supervisor, and shows the life that it began.

use std::time::Duration;

use actors::view::{ActorState, ActorView};
use hyper::Method;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    Context,
    client::{Client, escaped},
    exit::{Exit, Failure},
    output::clean,
};
use crate::config::nearest_of;

/// The first pause before a restart, with the usual settings.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Longer than the usual settings give an actor to stop (5 s), to wait for its turn (20 s) and to start (10 s).
const SEEN_WITHIN: Duration = Duration::from_secs(40);

/// Whom.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The actor, as `muster tree --output json` names it: the way to it from the root, for example root/node/pool.
    actor: String,
}

/// Gives the order and waits for what comes of it.
pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client_that_changes()?;
    let before = ask(&client).await?;
    let Some(old) = before.iter().find(|actor| actor.name == args.actor) else {
        return Err(unknown(&args.actor, &before));
    };
    client.send(Method::POST, &format!("/api/v1/actors/{}/restart", escaped(&old.name)), None).await?;
    let new = timeout(SEEN_WITHIN, next_life(&client, old)).await.map_err(|_| unseen(&old.name))??;
    context.output.one(&new, text)
}

async fn ask(client: &Client) -> Result<Vec<ActorView>, Failure> {
    client.get("/api/v1/actors").await
}

/// The same actor in a life after `old`, once it runs.
async fn next_life(client: &Client, old: &ActorView) -> Result<ActorView, Failure> {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let now = ask(client).await?.into_iter().find(|actor| actor.name == old.name);
        if let Some(now) = now.filter(|now| is_next_life(old, now)) {
            return Ok(now);
        }
    }
}

fn is_next_life(old: &ActorView, now: &ActorView) -> bool {
    now.incarnation > old.incarnation && matches!(now.state, ActorState::Running | ActorState::Stuck)
}

fn unseen(actor: &str) -> Failure {
    let waited = SEEN_WITHIN.as_secs();
    Failure::new(Exit::TimedOut, format!("{actor} has begun no new life within {waited} s"))
        .why("the order is given; an actor that never waits for anything cannot be ended by it")
        .next("`muster tree` shows how it is; if it stays stuck, restart the process")
}

fn unknown(actor: &str, known: &[ActorView]) -> Failure {
    let near = near(actor, known).map(|near| format!("; did you mean {}?", clean(&near))).unwrap_or_default();
    Failure::new(Exit::NotFound, format!("there is no actor {}{near}", clean(actor)))
        .next("`muster tree` shows all of them")
}

/// The one that was probably meant: its last part alone, or a slip of the pen.
fn near(actor: &str, known: &[ActorView]) -> Option<String> {
    let names = || known.iter().map(|it| it.name.as_str());
    let mut ends = names().filter(|name| name.strip_suffix(actor).is_some_and(|rest| rest.ends_with('/')));
    ends.next().map(str::to_owned).or_else(|| nearest_of(actor, names()))
}

fn text(actor: &ActorView) -> String {
    let times = if actor.restarts == 1 { "restart" } else { "restarts" };
    format!("{} runs in life {} ({} {times} in all)", clean(&actor.name), actor.incarnation, actor.restarts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::admin::testing::actor;

    fn known() -> Vec<ActorView> {
        ["root", "root/node", "root/node/pool", "root/store"]
            .map(|name| ActorView { name: name.into(), ..actor() })
            .into()
    }

    #[test]
    fn an_unknown_actor_is_named_with_the_one_that_was_probably_meant() {
        for (given, meant) in [
            ("pool", "root/node/pool"),
            ("node/pool", "root/node/pool"),
            ("root/stor", "root/store"),
            ("rot/node/pool", "root/node/pool"),
        ] {
            let failure = unknown(given, &known());
            assert_eq!(failure.exit, Exit::NotFound);
            assert_eq!(failure.what, format!("there is no actor {given}; did you mean {meant}?"));
        }
        assert_eq!(unknown("nonsense", &known()).what, "there is no actor nonsense");
    }

    #[test]
    fn a_next_life_counts_once_it_runs() {
        let old = ActorView { incarnation: 1, ..actor() };
        let now = |incarnation, state| ActorView { incarnation, state, ..actor() };
        assert!(!is_next_life(&old, &now(1, ActorState::Running)));
        assert!(!is_next_life(&old, &now(2, ActorState::Starting)));
        assert!(!is_next_life(&old, &now(2, ActorState::Waiting)));
        assert!(is_next_life(&old, &now(2, ActorState::Running)));
        // It may have begun something long already.
        assert!(is_next_life(&old, &now(3, ActorState::Stuck)));
    }

    #[test]
    fn what_came_of_it_is_said_in_a_line() {
        let pool = ActorView { name: "root/node/pool".into(), incarnation: 2, restarts: 1, ..actor() };
        assert_eq!(text(&pool), "root/node/pool runs in life 2 (1 restart in all)");
    }
}
