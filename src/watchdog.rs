//! What the service manager is told: that we are ready, that we stop, and in between, while it asks for that, that we are
//! well. It is not told so while a critical actor does not answer, and starts us again when it has waited long enough.

use std::{convert::Infallible, time::Duration};

use protocol::watchdog;
use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

/// Feels a tree.
pub(crate) trait Pulse: Send {
    /// The critical actors that have not answered since the beat before.
    fn beat(&mut self) -> Vec<String>;
}

impl<F: FnMut() -> Vec<String> + Send> Pulse for F {
    fn beat(&mut self) -> Vec<String> {
        self()
    }
}

/// Tells the service manager; nothing happens where none listens.
pub(crate) fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "the service manager could not be told");
    }
}

/// Tells that we are well for as long as we are; waits for ever where nobody wants to know.
pub(crate) async fn feed(pulse: Box<dyn Pulse>, tell: impl FnMut(&[NotifyState<'_>])) -> Infallible {
    match sd_notify::watchdog_enabled() {
        Some(patience) => beat(pulse, patience, tell).await,
        None => std::future::pending().await,
    }
}

async fn beat(mut pulse: Box<dyn Pulse>, patience: Duration, mut tell: impl FnMut(&[NotifyState<'_>])) -> Infallible {
    let mut beats = interval(watchdog::every(patience));
    // After a stretch without processors one beat is enough.
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent_before = Vec::new();
    loop {
        beats.tick().await;
        let silent = pulse.beat();
        if silent.is_empty() {
            tell(&[NotifyState::Watchdog]);
            if !silent_before.is_empty() {
                info!("every critical actor answers again");
            }
        } else if silent != silent_before {
            warn!(
                actors = silent.join(", "),
                "critical actors do not answer: the service manager is not told that we are well"
            );
        }
        silent_before = silent;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_fed_three_times_in_its_patience_and_only_while_all_answer() {
        let stuck = Arc::new(Mutex::new(Vec::<String>::new()));
        let pulse = Box::new({
            let stuck = stuck.clone();
            move || stuck.lock().unwrap().clone()
        });
        let fed = Arc::new(Mutex::new(0));
        let count = || *fed.lock().unwrap();
        let tell = {
            let fed = fed.clone();
            move |states: &[NotifyState<'_>]| {
                assert_eq!(states.iter().map(ToString::to_string).collect::<Vec<_>>(), ["WATCHDOG=1"]);
                *fed.lock().unwrap() += 1;
            }
        };
        let patience = Duration::from_secs(30);
        let feeding = tokio::spawn(beat(pulse, patience, tell));
        sleep(Duration::from_secs(29)).await;
        assert_eq!(count(), 3);
        stuck.lock().unwrap().push("root/store".to_owned());
        sleep(Duration::from_secs(300)).await;
        assert_eq!(count(), 3);
        stuck.lock().unwrap().clear();
        sleep(Duration::from_secs(10)).await;
        assert_eq!(count(), 4);
        feeding.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_told_where_nobody_asks() {
        let feeding = feed(Box::new(Vec::new), |_| panic!("there is nobody to tell"));
        assert!(timeout(Duration::from_secs(3_600), feeding).await.is_err());
    }
}
