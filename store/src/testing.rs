//! Places for databases, and peers, addresses, times and resources to put there, for this crate's tests.

#![allow(clippy::unwrap_used)]

pub(crate) mod server;

use std::path::PathBuf;

use multiaddr::Multiaddr;
use protocol::{
    PeerId, Timestamp,
    catalogue::{Access, Instance, Kind, Resource},
    identity::Keys,
    signed::Verified,
    wire::Role,
};
use tempfile::TempDir;

use self::server::Server;
use crate::{
    AddressRow, Destination, Outgoing, PeerRow, Settings, Store, StoreError,
    repository::Repository as _,
    session::{Sql, values},
};

/// Where a database is, over every time that it is opened.
pub(crate) enum Place {
    File(TempDir),
    Server(String),
}

impl Place {
    pub(crate) fn file() -> Self {
        Self::File(TempDir::new().unwrap())
    }

    /// A database of the shared server; none when there is no server here and that was said to `tests/run`.
    pub(crate) async fn server(test: &str) -> Option<Self> {
        match Server::shared() {
            Ok(server) => Some(Self::Server(server.fresh().await)),
            Err(why) => {
                server::skip(test, why);
                None
            }
        }
    }

    pub(crate) async fn open(&self) -> Store {
        self.open_with(&Settings::default()).await
    }

    pub(crate) async fn open_with(&self, settings: &Settings) -> Store {
        match self {
            Self::File(folder) => Store::open(&self.path(folder), settings, at(0)).await.unwrap().store,
            Self::Server(url) => Store::connect(url, &peer(0), settings, at(0)).await.unwrap().store,
        }
    }

    fn path(&self, folder: &TempDir) -> PathBuf {
        folder.path().join("muster.db")
    }
}

/// Each test twice, for what both databases promise: `name::on_sqlite` and `name::on_postgres`. Its `place` is empty.
macro_rules! on_both {
    ($(async fn $name:ident($place:ident) $body:block)+) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn promise($place: &$crate::testing::Place) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                promise(&$crate::testing::Place::file()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                let test = concat!(module_path!(), "::on_postgres");
                if let Some(place) = $crate::testing::Place::server(test).await {
                    promise(&place).await;
                }
            }
        }
    )+};
}
pub(crate) use on_both;

/// Writes behind the store's back.
pub(crate) async fn meddle(store: &Store, statement: impl Into<Sql>) {
    let mut turn = store.database.turn(false).await.unwrap();
    let outcome = turn.session().execute(statement, values![]).await;
    turn.end(outcome).await.unwrap();
}

/// A number behind the store's back.
pub(crate) async fn number(store: &Store, sql: &'static str) -> i64 {
    let read = store.database.reader().await.unwrap().session().number(sql, values![]).await;
    read.unwrap_or_else(|error: StoreError| panic!("{error}")).unwrap()
}

pub(crate) fn keys(n: u8) -> Keys {
    Keys::from_seed([n; 32])
}

/// A private resource of member 1 without words.
pub(crate) fn resource(id: &str, version: u64) -> Resource {
    Resource {
        id: id.to_owned(),
        kind: Kind::Compute,
        name: id.to_owned(),
        type_: String::new(),
        short_description: String::new(),
        description: String::new(),
        owners: vec![],
        creator: keys(1).peer_id(),
        access: Access::Private,
        instances: vec![Instance::default()],
        version,
        updated_at: at(1_700_000_000),
    }
}

/// The resource signed by member `n`, whose it then is.
pub(crate) fn signed(n: u8, resource: Resource) -> Box<Verified<Resource>> {
    Box::new(Verified::sign(&Resource { creator: keys(n).peer_id(), ..resource }, &keys(n)))
}

/// A message of so many bytes.
pub(crate) fn outgoing(destination: Destination, id: &str, bytes: usize) -> Outgoing {
    Outgoing {
        destination,
        subject: "create".to_owned(),
        user: "ann".to_owned(),
        groups: ["ops".to_owned(), "dev \" \\".to_owned()].into(),
        datatype: "compute".to_owned(),
        payload: vec![0xfe; bytes].into(),
        message_id: id.to_owned(),
        may_drop: false,
    }
}

pub(crate) const DAY_SECS: i64 = 86_400;

pub(crate) fn at(unix_secs: i64) -> Timestamp {
    Timestamp::from_second(unix_secs).unwrap()
}

/// The `n`th peer: its key is its number.
pub(crate) fn peer(n: u32) -> PeerId {
    let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    bytes.extend([0; 28]);
    bytes.extend(n.to_be_bytes());
    PeerId::from_bytes(&bytes).unwrap()
}

pub(crate) fn address(n: u32) -> Multiaddr {
    format!("/ip4/10.0.{}.{}/tcp/4001", n / 256, n % 256).parse().unwrap()
}

pub(crate) fn address_row(n: u32) -> AddressRow {
    AddressRow { address: address(n), succeeded: n, failed: 1, last_ok: Some(at(i64::from(n))), last_failed: None }
}

/// The `n`th peer, seen `n` seconds after 1970.
pub(crate) fn peer_row(n: u32) -> PeerRow {
    PeerRow {
        peer: peer(n),
        did: format!("did:key:z{n}"),
        name: format!("paris-{n}"),
        role: Role { node: true, indexer: n.is_multiple_of(2) },
        agent: "muster/0.1.0".to_owned(),
        last_seen: Some(at(i64::from(n))),
        addresses: vec![address_row(n)],
    }
}

/// For property tests, whose bodies are not async.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
