//! Keeps the log from being filled: a budget for each kind of line and each peer that it is about.
//!
//! Whoever asks for `debug` or `trace` wants all of it; only what is told without being asked is limited.

use std::{
    convert::Infallible,
    fmt::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use protocol::{
    log_limit::{Limits, WITHIN},
    time::Mono,
};
use tracing::{Event, Level, Subscriber, callsite::Identifier, field::Field, warn};
use tracing_subscriber::{Layer, layer::Context};

/// Fields that name the peer a line is about, as our lines name it.
const ABOUT: [&str; 9] = ["peer", "indexer", "node", "about", "partner", "from", "by", "address", "remote"];

/// The budgets, beside the log: no actor holds them, for every thread writes.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    limits: Arc<Mutex<Limits<Identifier>>>,
    origin: Instant,
}

impl Limit {
    /// All budgets whole.
    pub(super) fn new() -> Self {
        Self { limits: Arc::default(), origin: Instant::now() }
    }

    /// Tells once a minute how many lines were left out, when any were.
    pub(super) async fn tell(self) -> Infallible {
        let mut minutes = tokio::time::interval(WITHIN);
        loop {
            minutes.tick().await;
            self.tell_once();
        }
    }

    /// Tells how many were left out since it was told last.
    pub(super) fn tell_once(&self) {
        let lines = self.limits().left_out();
        if lines > 0 {
            warn!(lines, "lines were left out of the log: too many of one kind");
        }
    }

    fn limits(&self) -> std::sync::MutexGuard<'_, Limits<Identifier>> {
        // Budgets are worth no panic of their own.
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return true;
        }
        let mut about = About::default();
        event.record(&mut about);
        let now = Mono::at(self.origin.elapsed());
        self.limits().may_say(&metadata.callsite(), about.0.as_deref(), now)
    }
}

/// The first field that names a peer.
#[derive(Default)]
struct About(Option<String>);

impl tracing::field::Visit for About {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.0.is_none() && ABOUT.contains(&field.name()) {
            let mut text = String::new();
            // Writing into a string cannot fail.
            let _ = write!(text, "{value:?}");
            self.0 = Some(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use protocol::log_limit::PER_PEER;
    use tracing::{debug, info};
    use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt as _};

    use super::*;
    use crate::telemetry::discreet::Discreet;

    /// A log that can be read.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// What is written of what is done.
    fn written(what: impl FnOnce(&Limit)) -> Vec<String> {
        let (lines, limit) = (Lines::default(), Limit::new());
        let log = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_writer(lines.clone()).without_time();
        let log = log.with_ansi(false).finish().with(Discreet).with(limit.clone());
        tracing::subscriber::with_default(log, || what(&limit));
        let bytes = lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_peer_that_makes_noise_is_written_of_so_often_and_others_are_still_heard() {
        let noise = |peer: &str, shown: u32| {
            for number in 0..shown {
                warn!(%peer, number, "bad input");
            }
        };
        let lines = written(|limit| {
            noise("loud", PER_PEER * 3);
            noise("quiet", 1);
            info!(peer = "loud", "another kind");
            limit.tell_once();
            limit.tell_once();
        });
        let of = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
        assert_eq!(of("peer=loud number="), PER_PEER as usize, "{lines:?}");
        assert_eq!((of("quiet"), of("another kind")), (1, 1), "{lines:?}");
        assert_eq!(of(&format!("left out of the log: too many of one kind lines={}", PER_PEER * 2)), 1, "{lines:?}");
    }

    #[test]
    fn a_library_that_tells_passwords_at_debug_is_not_heard_there() {
        let lines = written(|_| {
            debug!(target: "async_nats::connector", "nats://ann:geheim@host");
            tracing::trace!(target: "async_nats", "nats://ann:geheim@host");
            info!(target: "async_nats", "connected");
            debug!(target: "async_nats_of_another", "heard");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("connected") && lines[1].contains("heard"), "{lines:?}");
    }

    #[test]
    fn what_was_asked_for_is_written_however_much_it_is() {
        let lines = written(|_| {
            for _ in 0..PER_PEER * 2 {
                debug!(peer = "loud", "asked for");
            }
        });
        assert_eq!(lines.len(), (PER_PEER * 2) as usize);
    }
}
