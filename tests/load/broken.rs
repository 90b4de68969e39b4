//! What ends a measurement.

use std::{error::Error, fmt, time::Duration};

/// Something broke: a lost beat, a refused honest node, a process that did not start. In words, for whoever runs it.
#[derive(Debug)]
pub(crate) struct Broken(String);

/// What a measurement gives.
pub(crate) type Outcome<T> = Result<T, Broken>;

impl Broken {
    /// In words.
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: Error> From<E> for Broken {
    fn from(error: E) -> Self {
        let mut words = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            words.push_str(": ");
            words.push_str(&error.to_string());
            cause = error.source();
        }
        Self(words)
    }
}

/// Says what was being done when it broke.
pub(crate) trait While<T> {
    /// `what` is in the form "connecting".
    fn when(self, what: impl fmt::Display) -> Outcome<T>;
}

impl<T, E: Into<Broken>> While<T> for Result<T, E> {
    fn when(self, what: impl fmt::Display) -> Outcome<T> {
        self.map_err(|error| Broken::new(format!("{what}: {}", error.into())))
    }
}

/// Waits for something that must come.
pub(crate) async fn within<T>(
    patience: Duration,
    what: impl fmt::Display,
    work: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    match tokio::time::timeout(patience, work).await {
        Ok(outcome) => outcome.when(what),
        Err(_) => Err(Broken::new(format!("{what}: not done within {patience:?}"))),
    }
}
