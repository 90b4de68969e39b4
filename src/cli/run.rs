//! `muster run`: a member as a daemon, until a signal or a broken promise.

use tracing::error;

use super::{Context, exit::Failure, runtime};
use crate::{
    config::{Flags, LogFormat},
    daemon, demo, telemetry,
};

/// Flags of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How much is told and in what form: a level, `json`, or both with a comma.
    #[arg(long, env = "MUSTER_LOG", value_name = "LEVEL|json")]
    log: Option<String>,
}

/// Runs until the member ends.
pub(super) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    demo::follow_parent();
    let config = context.config_with(&Flags { log: args.log.clone() })?;
    let log = telemetry::start(&config.log())?;
    let chaos = context.environment.get("MUSTER_CHAOS") == Some("1");
    let ended = runtime()?.block_on(async {
        tokio::select! {
            never = log.tell_left_out() => match never {},
            ended = daemon::run(&config, chaos, log.clone()) => ended,
        }
    });
    log.tell_rest();
    ended.map_err(|failure| if config.settings.log.format == LogFormat::Json { logged(&failure) } else { failure })
}

/// Who reads the log by machine reads the last words there too, and nothing else.
fn logged(failure: &Failure) -> Failure {
    error!(why = failure.why.join("; "), next = failure.next, "{}", failure.what);
    Failure::new(failure.exit, String::new())
}
