//! The day that goes on, as its reporter wrote it down: a text that is its own business.

use crate::{
    Refusal, StoreError,
    session::{Session, values},
    write::check_length,
};

/// A day has a line for each topic of alerts and each counter: some 10 kB of JSON, with the last whole one beside it.
pub const DAY_BYTES_MAX: usize = 64 * 1024;

/// Takes the place of what was written before.
pub(crate) async fn write(session: &mut Session<'_>, day: &str) -> Result<Result<(), Refusal>, StoreError> {
    if let Err(refusal) = check_length("day", day, DAY_BYTES_MAX) {
        return Ok(Err(refusal));
    }
    let sql = "INSERT INTO running_day (slot, day) VALUES (1, $1) ON CONFLICT (slot) DO UPDATE SET day = excluded.day";
    session.execute(sql, values![day]).await.map(|_| Ok(()))
}

/// What was written last.
pub(crate) async fn read(session: &mut Session<'_>) -> Result<Option<String>, StoreError> {
    let row = session.fetch_first("SELECT day FROM running_day", values![]).await?;
    Ok(row.and_then(|row| row.text("day").map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{Write, testing::on_both};

    on_both! {
        async fn the_running_day_survives_a_restart_and_the_later_one_takes_its_place(place) {
            let store = place.open().await;
            assert_eq!(store.running_day().await.unwrap(), None);
            store.apply(&[Write::Day("first".into()), Write::Day("second".into())]).await.unwrap();
            store.close().await;
            let store = place.open().await;
            assert_eq!(store.running_day().await.unwrap().as_deref(), Some("second"));
        }

        async fn an_empty_or_endless_day_is_refused_and_the_one_before_stands(place) {
            let store = place.open().await;
            let longest = "d".repeat(DAY_BYTES_MAX);
            let applied = store.apply(&[Write::Day(longest.clone())]).await.unwrap();
            assert_eq!((applied.written, applied.refused.len()), (1, 0));
            for day in [String::new(), format!("{longest}d"), "a\0b".to_owned()] {
                let applied = store.apply(&[Write::Day(day)]).await.unwrap();
                assert_eq!((applied.written, applied.refused.len()), (0, 1));
            }
            assert_eq!(store.running_day().await.unwrap(), Some(longest));
        }
    }
}
