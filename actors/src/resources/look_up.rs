//! Looking our own catalogue through: the one place where a search for resources meets what is kept.

use std::sync::Arc;

use ::store::Sight;
use futures::future::BoxFuture;
use protocol::catalogue::ResourceQuery;

use crate::{context::Context, store::told};

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
#[error("the catalogue cannot be read: the database is away")]
pub(crate) struct LookUpError;

/// Looks for at most so many resources.
pub(crate) type LookUp =
    Arc<dyn Fn(Sight, ResourceQuery, usize) -> BoxFuture<'static, Result<Found, LookUpError>> + Send + Sync>;

/// In the catalogue of this member.
pub(crate) fn of(context: &Context) -> LookUp {
    let context = context.clone();
    Arc::new(move |sight, query, limit| Box::pin(read(context.clone(), sight, query, limit)))
}

/// One row more than is wanted tells whether there are more.
async fn read(context: Context, sight: Sight, query: ResourceQuery, limit: usize) -> Result<Found, LookUpError> {
    let limit_and_one = u32::try_from(limit.saturating_add(1)).unwrap_or(u32::MAX);
    let rows = context.database.find_resources(&sight, &query, limit_and_one).await;
    let rows = told(&context, rows).ok_or(LookUpError)?;
    let mut texts: Vec<Arc<str>> = rows.rows.into_iter().filter_map(|row| row.text).collect();
    let is_truncated = texts.len() > limit;
    texts.truncate(limit);
    Ok(Found { texts, is_truncated })
}
