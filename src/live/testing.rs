//! A tree that takes settings or refuses them, for tests of what stands before it.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use actors::handle::AskError;
use protocol::change::Refusal;

use super::*;

/// Does what the config actor does with nobody to ask, and writes down what it was told.
#[derive(Default)]
pub(crate) struct Willing {
    /// It refuses, before or after the file is written.
    pub(crate) refuses: Mutex<Option<When>>,
    /// What it took.
    pub(crate) taken: Mutex<Vec<ActorsSettings>>,
    /// What could not be offered.
    pub(crate) unusable: Mutex<Vec<String>>,
}

/// When it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Asked.
    Before,
    /// Told to go by them.
    After,
    /// Never: what it does with them it does not say.
    Silent,
}

impl Offers for Willing {
    fn configure(&self, change: Change) -> BoxFuture<'_, Result<(), ConfigureError>> {
        let refuses = *self.refuses.lock().unwrap();
        let refused = || Refusal { by: "root/pool".to_owned(), why: "no".to_owned(), unsure: Vec::new() };
        let outcome = match refuses {
            Some(When::Before) => Err(refused().into()),
            Some(When::After) => {
                change.outside.keep().unwrap();
                change.outside.restore().unwrap();
                Err(refused().into())
            }
            Some(When::Silent) => {
                change.outside.keep().unwrap();
                Err(AskError::Away { actor: "root/config".to_owned() }.into())
            }
            None => change.outside.keep().map_err(|why| Refusal { why, ..refused() }.into()),
        };
        if outcome.is_ok() {
            self.taken.lock().unwrap().push(change.settings);
        }
        std::future::ready(outcome).boxed()
    }

    fn note_unusable(&self, _: &str, why: &str) {
        self.unusable.lock().unwrap().push(why.to_owned());
    }
}
