//! A bandwidth probe: what a node of ours sends is measured and sent back.

use std::time::Duration;

use libp2p::swarm::ConnectionId;
use protocol::{
    PeerId,
    admission::Link,
    bandwidth,
    wire::{Protocol, RefusalCode, Refused},
};
use tokio::sync::oneshot;
use tracing::debug;

use super::{ASK_WITHIN, ServeError, admit, busy, refuse};
use crate::{
    context::{Context, inform},
    registry,
    supervision::Class,
    swarm::{
        self,
        streams::{Io, Patience},
    },
};

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    io.live(Some(bandwidth::TOTAL));
    if let Err(refused) = may_probe(context, peer).await {
        context.stats.bandwidth_probes_refused.inc();
        return refuse(io, &refused).await;
    }
    let first_byte = Patience::OPENING.first_byte;
    let bytes = io.read_bytes(bandwidth::PAYLOAD_BYTES, first_byte, bandwidth::WITHIN).await?;
    let bytes_per_sec = match bandwidth::throughput(bytes.came) {
        Ok(bytes_per_sec) => bytes_per_sec,
        Err(error) => {
            context.stats.bandwidth_probes_refused.inc();
            refuse(io, &error.refusal()).await?;
            return Err(error.into());
        }
    };
    let link = Link { bytes_per_sec, rtt: round_trip(context, io.connection()).await };
    debug!(%peer, ?link, "link measured");
    inform(&context.addresses.registry, Class::History, registry::Msg::Measured { peer, link });
    io.write_bytes(&bytes.taken, true, bandwidth::WITHIN).await?;
    context.stats.bandwidth_probes_served.inc();
    Ok(())
}

/// Of our last ping on this connection, which is the probe's.
async fn round_trip(context: &Context, connection: ConnectionId) -> Option<Duration> {
    let (reply, answer) = oneshot::channel();
    let ask = swarm::Command::RoundTrip { connection, reply };
    context.addresses.swarm.tell(Class::History, swarm::Msg::Do(ask)).ok()?;
    tokio::time::timeout(ASK_WITHIN, answer).await.ok()?.ok()?
}

/// G39: bytes are sent back to those that have a session here, and to nobody else.
async fn may_probe(context: &Context, peer: PeerId) -> Result<(), Refused> {
    admit(context, peer, Protocol::Bandwidth).await?;
    let ask = |reply| registry::Msg::HasSession { peer, reply };
    let has_session = context.addresses.registry.ask(Class::Search, ask, ASK_WITHIN).await;
    match has_session.map_err(|error| busy(&error))? {
        true => Ok(()),
        false => {
            Err(Refused::new(RefusalCode::UnknownPeer, "got a probe without a session, expected a heartbeat first"))
        }
    }
}
