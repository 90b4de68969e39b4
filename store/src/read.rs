//! How rows come back.

use tracing::warn;

use crate::session::Row;

/// Rows that could be read, and how many could not.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows<T> {
    /// In the order that the call promises.
    pub rows: Vec<T>,
    /// Rows left out because a column made no sense. They are logged, and kept in the database.
    pub skipped: usize,
}

impl<T> Rows<T> {
    /// Reads each row, and says once how many of `table` were left out.
    pub(crate) fn read(table: &'static str, rows: &[Row], read: impl Fn(&Row) -> Option<T>) -> Self {
        let read: Vec<T> = rows.iter().filter_map(read).collect();
        let skipped = rows.len() - read.len();
        if skipped > 0 {
            warn!(table, skipped, "rows of the database make no sense and were left out");
        }
        Self { rows: read, skipped }
    }
}
