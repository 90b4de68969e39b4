//! One way to ask both databases: one text where they understand the same, two where they do not.
//!
//! Values are numbered `$1`, `$2`, … which both take. Whole numbers are 64 bits wide in both, and flags are 0 or 1.

use std::{borrow::Cow, time::Duration};

use protocol::{PeerId, Timestamp};
use sqlx::{
    Arguments, PgConnection, Row as _, SqliteConnection,
    postgres::{PgArguments, PgRow},
    sqlite::{SqliteArguments, SqliteRow},
};

use crate::{StoreError, error};

/// A question in the words of each database.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sql {
    pub(crate) sqlite: &'static str,
    pub(crate) postgres: &'static str,
}

impl From<&'static str> for Sql {
    fn from(both: &'static str) -> Self {
        Self { sqlite: both, postgres: both }
    }
}

/// What is put in the place of a `$1`.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    TextOrNone(Option<Cow<'a, str>>),
    Int(i64),
    IntOrNone(Option<i64>),
    FloatOrNone(Option<f64>),
    Bytes(&'a [u8]),
    /// An array in PostgreSQL, JSON of one in SQLite.
    Texts(&'a [String]),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<&PeerId> for Value<'_> {
    fn from(peer: &PeerId) -> Self {
        Self::Text(Cow::Owned(peer.to_string()))
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<u64> for Value<'_> {
    /// Whatever is counted here stays far below the sign.
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Self::Int(flag.into())
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(time: Timestamp) -> Self {
        Self::Int(time.as_millisecond())
    }
}

impl From<Option<Timestamp>> for Value<'_> {
    fn from(time: Option<Timestamp>) -> Self {
        Self::IntOrNone(time.map(Timestamp::as_millisecond))
    }
}

impl From<Option<f64>> for Value<'_> {
    /// What is no number is no value: SQLite says so by itself.
    fn from(number: Option<f64>) -> Self {
        Self::FloatOrNone(number.filter(|number| !number.is_nan()))
    }
}

/// The values of a question, each from what it is.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::session::Value::from($value)),*] };
}
pub(crate) use values;

/// A connection of either database.
#[derive(Debug)]
pub(crate) enum Session<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres {
        connection: &'a mut PgConnection,
        /// How long one question may take until the server is away.
        patience: Duration,
    },
}

impl Session<'_> {
    /// Rows that it touched.
    pub(crate) async fn execute(&mut self, sql: impl Into<Sql>, values: &[Value<'_>]) -> Result<u64, StoreError> {
        let sql = sql.into();
        match self {
            Self::Sqlite(connection) => sqlx::query_with(sql.sqlite, for_sqlite(values)?)
                .execute(&mut **connection)
                .await
                .map(|done| done.rows_affected())
                .map_err(error::of_sqlite),
            Self::Postgres { connection, patience } => {
                let query = sqlx::query_with(sql.postgres, for_postgres(values)?);
                error::in_time(*patience, query.execute(&mut **connection)).await.map(|done| done.rows_affected())
            }
        }
    }

    pub(crate) async fn fetch(&mut self, sql: impl Into<Sql>, values: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        let sql = sql.into();
        match self {
            Self::Sqlite(connection) => sqlx::query_with(sql.sqlite, for_sqlite(values)?)
                .fetch_all(&mut **connection)
                .await
                .map(|rows| rows.into_iter().map(Row::Sqlite).collect())
                .map_err(error::of_sqlite),
            Self::Postgres { connection, patience } => {
                let query = sqlx::query_with(sql.postgres, for_postgres(values)?);
                let rows = error::in_time(*patience, query.fetch_all(&mut **connection)).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// The first row, if there is any.
    pub(crate) async fn fetch_first(
        &mut self,
        sql: impl Into<Sql>,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.fetch(sql, values).await?.into_iter().next())
    }

    /// A column `n` that is a whole number in the first row, if there is a row and a number in it.
    pub(crate) async fn number(
        &mut self,
        sql: impl Into<Sql>,
        values: &[Value<'_>],
    ) -> Result<Option<i64>, StoreError> {
        Ok(self.fetch_first(sql, values).await?.and_then(|row| row.int("n")))
    }
}

fn for_sqlite(values: &[Value<'_>]) -> Result<SqliteArguments, StoreError> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        let added = match value {
            Value::Text(text) => arguments.add(&**text),
            Value::TextOrNone(text) => arguments.add(text.as_deref()),
            Value::Int(number) => arguments.add(*number),
            Value::IntOrNone(number) => arguments.add(*number),
            Value::FloatOrNone(number) => arguments.add(*number),
            Value::Bytes(bytes) => arguments.add(*bytes),
            Value::Texts(texts) => arguments.add(serde_json::Value::from(*texts).to_string()),
        };
        added.map_err(|error| StoreError::Failed { detail: error.to_string() })?;
    }
    Ok(arguments)
}

fn for_postgres(values: &[Value<'_>]) -> Result<PgArguments, StoreError> {
    let mut arguments = PgArguments::default();
    for value in values {
        let added = match value {
            Value::Text(text) => arguments.add(&**text),
            Value::TextOrNone(text) => arguments.add(text.as_deref()),
            Value::Int(number) => arguments.add(*number),
            Value::IntOrNone(number) => arguments.add(*number),
            Value::FloatOrNone(number) => arguments.add(*number),
            Value::Bytes(bytes) => arguments.add(*bytes),
            Value::Texts(texts) => arguments.add(*texts),
        };
        added.map_err(|error| StoreError::Failed { detail: error.to_string() })?;
    }
    Ok(arguments)
}

/// A row of either database. A column that is not what is asked for is none.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub(crate) fn text(&self, column: &str) -> Option<&str> {
        match self {
            Self::Sqlite(row) => row.try_get(column).ok(),
            Self::Postgres(row) => row.try_get(column).ok(),
        }
    }

    pub(crate) fn text_or_none(&self, column: &str) -> Option<Option<&str>> {
        match self {
            Self::Sqlite(row) => row.try_get(column).ok(),
            Self::Postgres(row) => row.try_get(column).ok(),
        }
    }

    pub(crate) fn int(&self, column: &str) -> Option<i64> {
        match self {
            Self::Sqlite(row) => row.try_get(column).ok(),
            Self::Postgres(row) => row.try_get(column).ok(),
        }
    }

    pub(crate) fn int_or_none(&self, column: &str) -> Option<Option<i64>> {
        match self {
            Self::Sqlite(row) => row.try_get(column).ok(),
            Self::Postgres(row) => row.try_get(column).ok(),
        }
    }

    pub(crate) fn float_or_none(&self, column: &str) -> Option<Option<f64>> {
        match self {
            Self::Sqlite(row) => row.try_get(column).ok(),
            Self::Postgres(row) => row.try_get(column).ok(),
        }
    }

    pub(crate) fn bytes(&self, column: &str) -> Option<&[u8]> {
        match self {
            Self::Sqlite(row) => row.try_get(column).ok(),
            Self::Postgres(row) => row.try_get(column).ok(),
        }
    }

    pub(crate) fn count(&self, column: &str) -> Option<u32> {
        self.int(column)?.try_into().ok()
    }

    pub(crate) fn count_wide(&self, column: &str) -> Option<u64> {
        self.int(column)?.try_into().ok()
    }

    pub(crate) fn flag(&self, column: &str) -> Option<bool> {
        match self.int(column)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn peer(&self, column: &str) -> Option<PeerId> {
        self.text(column)?.parse().ok()
    }

    /// A time of milliseconds.
    pub(crate) fn time(&self, column: &str) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.int(column)?).ok()
    }

    /// None for a column that makes no sense, `Some(None)` for one that is empty.
    pub(crate) fn time_or_none(&self, column: &str) -> Option<Option<Timestamp>> {
        match self.int_or_none(column)? {
            None => Some(None),
            Some(millis) => Timestamp::from_millisecond(millis).ok().map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// SQLite plans a statement anew at each execution where a bound value is the whole of its `LIMIT`: it plans by that
    /// value, and forgets the plan when the value is taken away. `$1 + 0` is a number like any other.
    #[test]
    fn no_statement_is_planned_anew_for_its_limit() {
        for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for (at, _) in text.match_indices(concat!("LIMIT", " $")) {
                let rest = text[at + 7..].trim_start_matches(|c: char| c.is_ascii_digit());
                assert!(
                    rest.starts_with(" + 0"),
                    "{}: {}",
                    path.display(),
                    &text[at..text.floor_char_boundary(at + 40)]
                );
            }
        }
    }
}
