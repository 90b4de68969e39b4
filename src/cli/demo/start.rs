//! `muster --demo start NAME`: starts a member that was killed, with the same key, folder and ports.

use std::time::Duration;

use actors::view::{Standing, StatusView};
use tokio::time::{Instant, sleep};

use super::super::{
    exit::{Exit, Failure},
    output::{Output, say},
};
use crate::demo::{
    ask,
    control::{self, Request},
    own_name,
    state::{Folder, Life, Member},
    timeline::word,
};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a member may take to be back: a port still in use ends it after 10 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who comes back.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the demo's member, for example indexer-2
    name: String,
}

/// Starts the process and waits until it is back.
///
/// # Errors
/// When no demo runs, there is no such member, it runs already, or it is not back in time.
pub(super) async fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let folder = Folder::usual();
    let demo = folder.find()?;
    let name = demo.member(Some(&args.name))?.name.clone();
    let began = Instant::now();
    control::ask(&folder, &demo, &Request::Start { name: name.clone() }).await?;
    let status = back(&folder, &name, began).await?;
    output.one(&status, |status| {
        let how = if status.role.node { word(status.standing) } else { "ready" };
        format!(
            "{name} is {how} {:.1} s after its start, as the same peer {}",
            began.elapsed().as_secs_f64(),
            status.peer_id
        )
    })?;
    let next = format!("how it stands: {} --demo --on {name} status", own_name());
    if output == Output::Table { say(&next) } else { Ok(()) }
}

async fn back(folder: &Folder, name: &str, began: Instant) -> Result<StatusView, Failure> {
    loop {
        let member = folder.find()?.member(Some(name))?.clone();
        if member.state == Life::Ended {
            return Err(lost(folder, &member, "ended again"));
        }
        if let Some(status) = ask::status(&member).await.filter(is_back) {
            return Ok(status);
        }
        if began.elapsed() > PATIENCE {
            return Err(lost(folder, &member, "is not back"));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// A node is back when an indexer answers it, an indexer when it is ready.
fn is_back(status: &StatusView) -> bool {
    if status.role.node { matches!(status.standing, Standing::Joined | Standing::Whole) } else { status.ready }
}

fn lost(folder: &Folder, member: &Member, how: &str) -> Failure {
    let exit = if member.state == Life::Ended { Exit::Failed } else { Exit::TimedOut };
    Failure::new(exit, format!("{} {how}", member.name))
        .next(format!("its log says why: {}", folder.log(&member.name).display()))
}
