//! Objects that are signed whole and kept as the text in which they came.

use std::{ops::Deref, sync::Arc};

/// A signed object whose signature and rules were checked, with the text that was signed.
///
/// It is made by verification or by signing and in no other way, so a function that asks for one cannot be given hearsay.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    text: Arc<str>,
    value: T,
}

impl<T> Verified<T> {
    /// The JSON text exactly as it was signed or came in.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The object.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.value
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
