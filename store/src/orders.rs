//! What an operator ordered, for as long as it is in force: a crash must not take it back.

use protocol::Timestamp;

use crate::{
    StoreError,
    session::{Session, values},
};

/// The order that an indexer takes no new sessions and lets its nodes go.
const DRAIN: &str = "drain";

/// Sets or takes back the order to drain.
pub(crate) async fn write_drain(session: &mut Session<'_>, since: Option<Timestamp>) -> Result<(), StoreError> {
    match since {
        // The first time stands: saying it again is no new order.
        Some(since) => {
            let sql = "INSERT INTO orders (name, since_ms) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
            session.execute(sql, values![DRAIN, since]).await?
        }
        None => session.execute("DELETE FROM orders WHERE name = $1", values![DRAIN]).await?,
    };
    Ok(())
}

/// Since when the order to drain is in force.
pub(crate) async fn read_drain(session: &mut Session<'_>) -> Result<Option<Timestamp>, StoreError> {
    let since = session.number("SELECT since_ms AS n FROM orders WHERE name = $1", values![DRAIN]).await?;
    // A time that makes no sense takes no order back.
    Ok(since.map(|since| Timestamp::from_millisecond(since).unwrap_or(Timestamp::UNIX_EPOCH)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::{
        Write,
        testing::{at, on_both},
    };

    on_both! {
        async fn an_order_to_drain_survives_a_restart_until_it_is_taken_back(place) {
            let store = place.open().await;
            assert_eq!(store.drained_since().await.unwrap(), None);
            store.apply(&[Write::Drain(Some(at(5))), Write::Drain(Some(at(9)))]).await.unwrap();
            store.close().await;
            let store = place.open().await;
            assert_eq!(store.drained_since().await.unwrap(), Some(at(5)));
            store.apply(&[Write::Drain(None)]).await.unwrap();
            assert_eq!(store.drained_since().await.unwrap(), None);
        }
    }
}
