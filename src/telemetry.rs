//! The log: lines for people or for machines on the standard error, and never a secret.

use std::{fmt as words, io::IsTerminal as _, sync::Arc};

use tracing::error;
use tracing_subscriber::{EnvFilter, filter::ParseError, fmt, reload};

use crate::{
    cli::exit::{Exit, Failure},
    config::{LogFormat, LogSettings},
};

/// Our own crates, as the log names them.
const OURS: [&str; 4] = ["muster", "actors", "store", "protocol"];

/// Changes how much the running log tells.
#[derive(Clone)]
pub(crate) struct Log(Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl Log {
    /// A log that takes every level and tells nothing.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self(Arc::new(|_| Ok(())))
    }

    /// From now on so much is told.
    ///
    /// # Errors
    /// When the level is none, in words.
    pub(crate) fn set_level(&self, level: &str) -> Result<(), String> {
        let filter = filter(level).map_err(|cause| format!("log.level \"{level}\": {cause}"))?;
        (self.0)(filter).map_err(|cause| cause.to_string())
    }
}

impl words::Debug for Log {
    fn fmt(&self, f: &mut words::Formatter<'_>) -> words::Result {
        f.write_str("Log")
    }
}

/// Begins to write the log.
///
/// # Errors
/// When the level is none, or when a log was begun before.
pub(crate) fn start(settings: &LogSettings) -> Result<Log, Failure> {
    let filter = filter(&settings.level).map_err(|cause| {
        Failure::new(Exit::Configuration, format!("log.level \"{}\" cannot be used", settings.level))
            .why(cause.to_string())
    })?;
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let (started, log) = match settings.format {
        LogFormat::Human => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
            let handle = lines.reload_handle();
            (lines.try_init(), Log(Arc::new(move |filter| handle.reload(filter))))
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            (lines.try_init(), Log(Arc::new(move |filter| handle.reload(filter))))
        }
    };
    started.map_err(|cause| Failure::new(Exit::Internal, "cannot begin the log").why(cause.to_string()))?;
    // A panic of an actor is healed and told once, as a line of the log like any other.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        error!(place, cause = panic.payload_as_str().unwrap_or("of another kind"), "panic");
    }));
    Ok(log)
}

/// One level concerns muster, and warnings of the libraries; directives stand for themselves.
fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    if level.contains(['=', ',']) {
        return EnvFilter::try_new(level);
    }
    let ours: String = OURS.iter().map(|name| format!(",{name}={level}")).collect();
    // Kademlia warns of a bootstrap that every first indexer cannot do.
    EnvFilter::try_new(format!("warn,libp2p_kad=error{ours}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn our_crates_are_named_as_the_log_names_them() {
        let places = [
            std::any::type_name::<crate::config::Config>(),
            std::any::type_name::<actors::Handle>(),
            std::any::type_name::<::store::Store>(),
            std::any::type_name::<protocol::identity::Keys>(),
        ];
        assert_eq!(places.map(|place| place.split("::").next().unwrap()), OURS);
    }

    #[test]
    fn one_level_is_for_muster_and_directives_stand_for_themselves() {
        let ours = filter("debug").unwrap().to_string();
        assert!(ours.contains("actors=debug") && ours.contains("warn"), "{ours}");
        assert_eq!(filter("info,libp2p=debug").unwrap().to_string(), "libp2p=debug,info");
        assert!(filter("loud").is_err());
    }
}
