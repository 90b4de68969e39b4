//! What only a server can do: go away, freeze, be locked, be another's.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use protocol::catalogue::Resource;
use tokio::time::timeout;

use crate::{
    CatalogueChange, Change, Changed, DatabaseUrl, Destination, OpenError, OutboxFilter, Settings, Store, StoreError,
    Write,
    repository::Repository as _,
    session::values,
    testing::{
        at, keys, outgoing, peer, peer_row, resource,
        server::{self, Server},
        signed,
    },
};

/// Whether an error is the one that is expected.
type Check = fn(&OpenError) -> bool;

/// Longer than any of this takes on a machine that has much else to do.
const LONG: Duration = Duration::from_secs(60);

/// A server of the test's own; none when there is none here and that was said.
fn own_server(test: &str) -> Option<Server> {
    Server::start().map_err(|why| server::skip(test, &why)).ok()
}

fn shared_server(test: &str) -> Option<&'static Server> {
    Server::shared().map_err(|why| server::skip(test, why)).ok()
}

/// So short that a test need not wait, so long that a slow machine keeps to it.
fn settings() -> Settings {
    Settings { busy_timeout: Duration::from_millis(500), ..Settings::default() }
}

async fn open(url: &str, n: u32) -> Result<Store, OpenError> {
    Store::connect(url, &peer(n), &settings(), at(0)).await.map(|opened| opened.store)
}

fn put(id: &str, version: u64) -> Change {
    let signed = signed(1, Resource { name: format!("{id} {version}"), ..resource(id, version) });
    Change {
        receipt: None,
        catalogue: Some(CatalogueChange::Put(signed)),
        told: None,
        relation: None,
        plan: None,
        outbox: vec![outgoing(Destination::Bus, id, 10)],
        at: at(1),
    }
}

/// Tries until the server is back, as every caller does.
async fn in_the_end<T>(call: impl AsyncFn() -> Result<T, StoreError>) -> T {
    let trying = async {
        loop {
            match call().await {
                Ok(value) => return value,
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, trying).await.unwrap()
}

/// Every kind of call is refused for now and not for good.
async fn all_are_away(store: &Store) {
    let errors = [
        store.apply(&[Write::Peer(peer_row(1))]).await.unwrap_err(),
        store.next_seq("did", at(0)).await.unwrap_err(),
        store.change(&[put("late", 9)]).await.unwrap_err(),
        store.peers(10).await.unwrap_err(),
        store.forget_stale(at(0), 1).await.unwrap_err(),
        store.ping().await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::Away { .. }) && error.is_transient() && !error.is_io(), "{error:?}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_the_server_died() {
    let Some(server) = own_server("store-what_was_acknowledged_is_there_after_the_server_died") else { return };
    let store = open(&server.fresh().await, 0).await.unwrap();
    for round in 1..=3 {
        assert_eq!(store.change(&[put("gpu", round)]).await.unwrap(), [Changed::Done]);
        assert_eq!(store.raise_seq("did", round).await.unwrap(), round);
        server.tell("kill");
        all_are_away(&store).await;
        server.tell("start");
        in_the_end(async || store.ping().await).await;
        assert_eq!(store.seq("did").await.unwrap(), Some(round));
        let row = store.resource(&keys(1).peer_id(), "gpu").await.unwrap().unwrap();
        assert_eq!(row.version, round);
        let rows = store.outbox(&OutboxFilter { limit: 10, ..OutboxFilter::default() }).await.unwrap().rows;
        assert_eq!(rows.len() as u64, round, "nothing of what failed is there");
    }
    store.close().await;
}

#[tokio::test]
async fn a_frozen_server_is_away_in_time_and_then_is_not() {
    let Some(server) = own_server("store-a_frozen_server_is_away_in_time_and_then_is_not") else { return };
    let store = open(&server.fresh().await, 0).await.unwrap();
    store.raise_seq("did", 5).await.unwrap();
    server.tell("freeze");
    let calls = async { [store.raise_seq("did", 9).await.unwrap_err(), store.seq("did").await.unwrap_err()] };
    for error in timeout(LONG, calls).await.unwrap() {
        assert!(matches!(error, StoreError::Away { .. }) && error.is_transient(), "{error:?}");
    }
    server.tell("thaw");
    assert_eq!(in_the_end(async || store.raise_seq("did", 6).await).await, 6);
    in_the_end(async || store.ping().await).await;
    store.close().await;
}

#[tokio::test]
async fn a_connection_that_was_cut_is_made_anew_within_the_call() {
    let test = "store-a_connection_that_was_cut_is_made_anew_within_the_call";
    let Some(server) = shared_server(test) else { return };
    let url = server.fresh().await;
    let database = url.rsplit('/').next().unwrap();
    let store = open(&url, 0).await.unwrap();
    let cut = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
    );
    for seq in 1..=3 {
        store.peers(1).await.unwrap();
        server.run("postgres", cut.clone()).await;
        assert_eq!(store.raise_seq("did", seq).await.unwrap(), seq);
        assert_eq!(store.seq("did").await.unwrap(), Some(seq));
    }
    // What came back is looked at: it may be another's by now.
    server.run(database, "UPDATE owner SET peer_id = 'somebody'".to_owned()).await;
    server.run("postgres", cut).await;
    let error = store.raise_seq("did", 9).await.unwrap_err();
    assert!(matches!(&error, StoreError::Away { detail } if detail.contains("another member")), "{error}");
}

#[tokio::test]
async fn a_locked_table_is_busy_and_then_is_not() {
    let Some(server) = shared_server("store-a_locked_table_is_busy_and_then_is_not") else { return };
    let url = server.fresh().await;
    let store = open(&url, 0).await.unwrap();
    let other = open_beside(&url).await;
    let mut other = other;
    sqlx::raw_sql("BEGIN; LOCK TABLE peers").execute(&mut other).await.unwrap();
    for error in [
        store.apply(&[Write::Peer(peer_row(1))]).await.unwrap_err(),
        store.peers(1).await.unwrap_err(),
        store.forget_stale(at(0), 1).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Busy) && error.is_transient(), "{error:?}");
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(store.apply(&[Write::Peer(peer_row(1))]).await.unwrap().written, 1);
    assert_eq!(store.peers(9).await.unwrap().rows, [peer_row(1)]);
}

async fn open_beside(url: &str) -> sqlx::PgConnection {
    use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};
    url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn a_database_has_one_member_and_one_process() {
    let Some(server) = shared_server("store-a_database_has_one_member_and_one_process") else { return };
    let url = server.fresh().await;
    let store = open(&url, 1).await.unwrap();
    let error = open(&url, 1).await.unwrap_err();
    assert!(matches!(error, OpenError::Busy { .. }), "{error}");
    store.close().await;
    let error = open(&url, 2).await.unwrap_err();
    assert!(
        matches!(&error, OpenError::AnotherMembers { owner, own, .. }
            if *owner == peer(1).to_string() && *own == peer(2).to_string()),
        "{error}"
    );
    open(&url, 1).await.unwrap().close().await;
}

#[tokio::test]
async fn members_may_share_a_database_when_each_has_its_schema() {
    let Some(server) = shared_server("store-members_may_share_a_database_when_each_has_its_schema") else { return };
    let url = server.fresh().await;
    server.run(url.rsplit('/').next().unwrap(), "CREATE SCHEMA one; CREATE SCHEMA two".to_owned()).await;
    let of = |schema: &str| format!("{url}?options=-c%20search_path%3D{schema}");
    let one = open(&of("one"), 1).await.unwrap();
    let two = open(&of("two"), 2).await.unwrap();
    one.raise_seq("did", 1).await.unwrap();
    assert_eq!((one.seq("did").await.unwrap(), two.seq("did").await.unwrap()), (Some(1), None));
}

#[tokio::test]
async fn a_database_that_is_newer_altered_or_foreign_is_left_as_it_is() {
    let test = "store-a_database_that_is_newer_altered_or_foreign_is_left_as_it_is";
    let Some(server) = shared_server(test) else { return };
    let is_newer: Check = |error| matches!(error, OpenError::Newer { found: 999, known: 7, .. });
    let is_altered: Check = |error| matches!(error, OpenError::Altered { version: 2, .. });
    let is_foreign: Check = |error| matches!(error, OpenError::Foreign { table, .. } if table == "bookings");
    let cases: [(&str, bool, Check); 3] = [
        ("INSERT INTO _sqlx_migrations VALUES (999, 'from the future', now(), true, '', 1)", true, is_newer),
        ("UPDATE _sqlx_migrations SET checksum = '' WHERE version = 2", true, is_altered),
        ("CREATE TABLE bookings (id BIGINT)", false, is_foreign),
    ];
    for (change, is_ours, expected) in cases {
        let url = server.fresh().await;
        if is_ours {
            open(&url, 1).await.unwrap().close().await;
        }
        let mut beside = open_beside(&url).await;
        sqlx::raw_sql(change).execute(&mut beside).await.unwrap();
        let count = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
        let before: i64 = sqlx::query_scalar(count).fetch_one(&mut beside).await.unwrap();
        let error = open(&url, 1).await.unwrap_err();
        assert!(expected(&error), "{change}: {error}");
        let after: i64 = sqlx::query_scalar(count).fetch_one(&mut beside).await.unwrap();
        assert_eq!(after, before, "{change}");
    }
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_and_never_the_password() {
    let test = "store-what_cannot_be_opened_says_why_and_never_the_password";
    let Some(server) = shared_server(test) else { return };
    let url = server.fresh().await;
    let name = url.rsplit('/').next().unwrap().to_owned();
    server.run("postgres", "CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0".to_owned()).await;
    let cases: [(String, Check); 7] = [
        ("mysql://muster:s3cret@localhost/db".to_owned(), |error| matches!(error, OpenError::BadUrl { .. })),
        ("postgresql://muster:s3cret@localhost:port/db".to_owned(), |error| matches!(error, OpenError::BadUrl { .. })),
        ("postgresql://muster:s3cret@[/db?sslmode=s3cret".to_owned(), |error| {
            matches!(error, OpenError::BadUrl { .. })
        }),
        ("postgresql://muster:s3cret@%2Fno%2Fsuch%2Ffolder/db".to_owned(), |error| {
            matches!(error, OpenError::Unreachable { .. }) && error.is_away()
        }),
        (url.replace("//muster:", "//nobody:"), |error| matches!(error, OpenError::LoginRefused { .. })),
        (
            url.replace(&name, "nowhere"),
            |error| matches!(error, OpenError::NoSuchDatabase { name, .. } if name == "nowhere"),
        ),
        (url.replace(&name, "ascii"), |error| error.to_string().contains("got the encoding SQL_ASCII")),
    ];
    for (url, expected) in cases {
        let error = open(&url, 1).await.unwrap_err();
        assert!(expected(&error), "{url}: {error:?}");
        let said = format!("{error} {error:?} {}", error.remedy());
        assert!(!said.contains("s3cret"), "{said}");
    }
    let settings = Settings { url: DatabaseUrl::from(url.as_str()), ..Settings::default() };
    let store = Store::connect(&url, &peer(1), &settings, at(0)).await.unwrap().store;
    // What is told of a store is what its errors and its settings say of themselves.
    let said = format!("{settings:?} {store:?}");
    assert!(!said.contains("s3cret"), "{said}");
}

#[tokio::test]
async fn a_promise_is_synced_and_a_memory_is_not() {
    let Some(server) = shared_server("store-postgres-a_promise_is_synced_and_a_memory_is_not") else { return };
    let store = open(&server.fresh().await, 1).await.unwrap();
    for (is_durable, expected) in [(false, "off"), (true, "on"), (false, "off")] {
        let mut turn = store.database.turn(is_durable).await.unwrap();
        let row = turn.session().fetch_first("SHOW synchronous_commit", values![]).await.unwrap().unwrap();
        assert_eq!(row.text("synchronous_commit"), Some(expected));
        let row = turn.session().fetch_first("SHOW statement_timeout", values![]).await.unwrap().unwrap();
        assert_eq!(row.text("statement_timeout"), Some("500ms"));
        turn.end(Ok(())).await.unwrap();
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_transaction_behind() {
    let test = "store-postgres-a_caller_that_goes_away_leaves_no_transaction_behind";
    let Some(server) = shared_server(test) else { return };
    let store = open(&server.fresh().await, 1).await.unwrap();
    store.apply(&[Write::Peer(peer_row(1))]).await.unwrap();
    let mut turn = store.database.turn(false).await.unwrap();
    crate::peers::write(&mut turn.session(), &peer_row(2)).await.unwrap().unwrap();
    drop(turn);
    assert_eq!(store.apply(&[Write::Peer(peer_row(3))]).await.unwrap().written, 1);
    assert_eq!(store.peers(10).await.unwrap().rows, [peer_row(3), peer_row(1)]);
}

#[tokio::test]
async fn a_closed_store_says_so_and_lets_the_next_one_in() {
    let Some(server) = shared_server("store-a_closed_store_says_so_and_lets_the_next_one_in") else { return };
    let url = server.fresh().await;
    let store = open(&url, 1).await.unwrap();
    store.close().await;
    assert!(matches!(store.ping().await.unwrap_err(), StoreError::Closed));
    assert!(matches!(store.apply(&[Write::ForgetPeer(peer(1))]).await.unwrap_err(), StoreError::Closed));
    open(&url, 1).await.unwrap();
}

#[test]
fn connecting_can_be_spawned() {
    fn is_send(_: &impl Send) {}
    let settings = Settings::default();
    is_send(&Store::connect("", &peer(1), &settings, at(0)));
}
