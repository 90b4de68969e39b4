//! What the demo asks its members, all at once and with a short patience: one of them may be stopped.

use std::{future::Future, time::Duration};

use actors::view::{EventView, IndexerView, PeerView, SessionView, StatusView};
use futures::future::join_all;
use tokio::time::timeout;

use super::state::Member;
use crate::cli::{client::Client, exit::Failure};

/// Loopback answers in milliseconds; a member that takes longer is stopped, or as good as that.
const PATIENCE: Duration = Duration::from_secs(2);

/// What one member says of itself and of the others.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// Its overview.
    pub(crate) status: StatusView,
    /// Its pool.
    pub(crate) indexers: Vec<IndexerView>,
    /// The peers that it knows.
    pub(crate) peers: Vec<PeerView>,
    /// The sessions that it keeps.
    pub(crate) sessions: Vec<SessionView>,
}

/// A member's overview; nothing when it does not answer.
pub(crate) async fn status(member: &Member) -> Option<StatusView> {
    patient(client(member).get("/api/v1/status")).await
}

/// Every member's overview, in their order.
pub(crate) async fn statuses(members: &[Member]) -> Vec<Option<StatusView>> {
    join_all(members.iter().map(status)).await
}

/// All that one member says; nothing when it leaves any question unanswered.
pub(crate) async fn snapshot(member: &Member) -> Option<Snapshot> {
    let client = client(member);
    patient(async {
        let (status, indexers, peers, sessions) = tokio::try_join!(
            client.get("/api/v1/status"),
            client.get("/api/v1/indexers"),
            client.get("/api/v1/peers"),
            client.get("/api/v1/sessions"),
        )?;
        Ok(Snapshot { status, indexers, peers, sessions })
    })
    .await
}

/// What happened at one member after its event `since`; nothing when it does not answer.
pub(crate) async fn events(member: &Member, since: u64) -> Option<Vec<EventView>> {
    patient(client(member).get(&format!("/api/v1/events?since={since}"))).await
}

fn client(member: &Member) -> Client {
    Client::to(member.admin.to_string())
}

async fn patient<T>(answer: impl Future<Output = Result<T, Failure>>) -> Option<T> {
    timeout(PATIENCE, answer).await.ok()?.ok()
}
