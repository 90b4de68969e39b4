//! The log: lines for people or for machines on the standard error and in files, and never a secret.

mod discreet;
mod files;
mod limit;

use std::{convert::Infallible, fmt as words, io::IsTerminal as _, sync::Arc};

use tracing::{Subscriber, error};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::{
    EnvFilter,
    filter::ParseError,
    fmt::{
        self,
        writer::{BoxMakeWriter, MakeWriterExt as _},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
    util::{SubscriberInitExt as _, TryInitError},
};

use self::{discreet::Discreet, limit::Limit};

use crate::{
    cli::exit::{Exit, Failure},
    config::{LogFormat, LogSettings},
};

/// Our own crates, as the log names them.
const OURS: [&str; 4] = ["muster", "actors", "store", "protocol"];

/// The log while it is written; cheap to clone. Its files are whole when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Log {
    filter: Refilter,
    limit: Limit,
    _files: Option<Arc<WorkerGuard>>,
}

/// Changes how much is told.
type Refilter = Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

impl Log {
    /// A log that takes every level and tells nothing.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self { filter: Arc::new(|_| Ok(())), limit: Limit::new(), _files: None }
    }

    /// From now on so much is told.
    ///
    /// # Errors
    /// When the level is none, in words.
    pub(crate) fn set_level(&self, level: &str) -> Result<(), String> {
        let filter = filter(level).map_err(|cause| format!("log.level \"{level}\": {cause}"))?;
        (self.filter)(filter).map_err(|cause| cause.to_string())
    }

    /// Tells now and then how many lines were left out.
    pub(crate) async fn tell_left_out(&self) -> Infallible {
        self.limit.clone().tell().await
    }

    /// Tells how many were left out since then, before the last one.
    pub(crate) fn tell_rest(&self) {
        self.limit.tell_once();
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
/// When the level is none, its files cannot be written, or a log was begun before.
pub(crate) fn start(settings: &LogSettings) -> Result<Log, Failure> {
    let filter = filter(&settings.level).map_err(|cause| {
        Failure::new(Exit::Configuration, format!("log.level \"{}\" cannot be used", settings.level))
            .why(cause.to_string())
    })?;
    let has_files = !settings.folder.as_os_str().is_empty();
    let opened = has_files.then(|| files::open(&settings.folder, settings)).transpose()?;
    // What is coloured for a terminal is no text for a file.
    let is_coloured = !has_files && std::io::stderr().is_terminal();
    let (writer, guard) = match opened {
        Some((files, guard)) => (BoxMakeWriter::new(std::io::stderr.and(files)), Some(guard)),
        None => (BoxMakeWriter::new(std::io::stderr), None),
    };
    let limit = Limit::new();
    let lines = fmt::fmt().with_env_filter(filter).with_writer(writer);
    let (started, refilter): (_, Refilter) = match settings.format {
        LogFormat::Human => {
            let lines = lines.with_ansi(is_coloured).with_filter_reloading();
            let handle = lines.reload_handle();
            (begin(lines.finish(), &limit), Arc::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            (begin(lines.finish(), &limit), Arc::new(move |filter| handle.reload(filter)))
        }
    };
    started.map_err(|cause| Failure::new(Exit::Internal, "cannot begin the log").why(cause.to_string()))?;
    // A panic of an actor is healed and told once, as a line of the log like any other.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        error!(place, cause = panic.payload_as_str().unwrap_or("of another kind"), "panic");
    }));
    Ok(Log { filter: refilter, limit, _files: guard.map(Arc::new) })
}

fn begin(
    lines: impl Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    limit: &Limit,
) -> Result<(), TryInitError> {
    lines.with(Discreet).with(limit.clone()).try_init()
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
