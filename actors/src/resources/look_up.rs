//! Looking our own catalogue through: the one place where a search for resources meets what is kept.

use std::sync::Arc;

use futures::future::BoxFuture;
use protocol::{
    PeerId,
    catalogue::{Asker, ResourceQuery},
};

use crate::context::Context;

/// Who looks.
#[derive(Clone, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "read by whoever has a catalogue"))]
pub(crate) enum Sight {
    /// Our own users, who see everything.
    Everything,
    /// Another member, who sees what `own` shows it.
    Of {
        /// Who shows.
        own: PeerId,
        /// Who looks.
        asker: Asker,
    },
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// As their creator signed them.
    pub(crate) texts: Vec<Arc<str>>,
    /// There are more than were asked for.
    pub(crate) is_truncated: bool,
}

/// The catalogue did not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the catalogue cannot be read: {0}")]
pub(crate) struct LookUpError(pub(crate) String);

/// Looks for at most so many resources.
pub(crate) type LookUp =
    Arc<dyn Fn(Sight, ResourceQuery, usize) -> BoxFuture<'static, Result<Found, LookUpError>> + Send + Sync>;

/// In the catalogue of this member.
pub(crate) fn of(_: &Context) -> LookUp {
    Arc::new(|_, _, _| Box::pin(async { Ok(Found::default()) }))
}
