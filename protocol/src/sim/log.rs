//! What happened, in lines: the same seed gives the same lines, and their hash says so without keeping them.

use std::{fmt, fmt::Write as _, time::Duration};

use sha2::{Digest as _, Sha256};

/// Bytes that are gathered before they are hashed.
const BATCH_BYTES: usize = 64 * 1024;

/// Lines kept of a run whose log is wanted; later ones are hashed only. More than a person reads, and below 1 GiB.
const KEPT_LINES_MAX: u64 = 5_000_000;

/// The log of one run.
#[derive(Debug, Default)]
pub(super) struct Log {
    hasher: Sha256,
    batch: String,
    lines: u64,
    kept: Option<String>,
}

impl Log {
    /// An empty log; its lines are kept only where `is_kept`.
    #[must_use]
    pub(super) fn new(is_kept: bool) -> Self {
        Self { kept: is_kept.then(String::new), ..Self::default() }
    }

    /// Adds a line: when, who, what.
    pub(super) fn line(&mut self, at: Duration, who: u32, what: fmt::Arguments<'_>) {
        let start = self.batch.len();
        // Writing to a string cannot fail.
        let _ = writeln!(self.batch, "{:.6} {who} {what}", at.as_secs_f64());
        self.lines += 1;
        if let Some(kept) = self.kept.as_mut().filter(|_| self.lines <= KEPT_LINES_MAX) {
            kept.push_str(&self.batch[start..]);
        }
        if self.batch.len() >= BATCH_BYTES {
            self.hasher.update(self.batch.as_bytes());
            self.batch.clear();
        }
    }

    /// How many lines there are.
    #[must_use]
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// SHA-256 over all lines so far, in hex.
    #[must_use]
    pub(super) fn hash(&self) -> String {
        let mut hasher = self.hasher.clone();
        hasher.update(self.batch.as_bytes());
        hasher.finalize().iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// The lines, where they are kept.
    #[must_use]
    pub(super) fn text(&self) -> Option<&str> {
        self.kept.as_deref()
    }
}
