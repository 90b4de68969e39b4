//! A bandwidth probe to one of our indexers: a task beside its heartbeat.

use std::time::Duration;

use protocol::{
    PeerId,
    bandwidth::{self, EchoError},
    wire::Protocol,
};
use rand::Rng as _;

use crate::{
    context::Context,
    fetch,
    swarm::{OpenError, streams::IoError},
};

/// There is a connection already: only the other side has to agree.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unmeasured {
    /// No stream.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It broke.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Something else came back.
    #[error(transparent)]
    Echo(#[from] EchoError),
}

/// Bytes per second of what the indexer sends back; what we send is measured there.
pub(crate) async fn probe(context: &Context, indexer: PeerId) -> Result<f64, Unmeasured> {
    let mut io = fetch::open(context, indexer, Vec::new(), Protocol::Bandwidth, OPEN_WITHIN).await?;
    io.live(Some(bandwidth::TOTAL));
    let mut sent = vec![0; bandwidth::PAYLOAD_BYTES];
    let now = context.now().mono.since_start();
    context.tree.chance().fork("bandwidth", now.as_nanos() as u64).fill_bytes(&mut sent);
    // Whoever refuses may do so, and close, before all is written.
    match io.write_bytes(&sent, true, bandwidth::WITHIN).await {
        Ok(()) | Err(IoError::Closed) => {}
        Err(error) => return Err(error.into()),
    }
    let back = io.read_bytes(bandwidth::PAYLOAD_BYTES, bandwidth::TOTAL, bandwidth::WITHIN).await?;
    let bytes_per_sec = bandwidth::echoed(&sent, &back.taken, back.came)?;
    context.stats.bandwidth_probes_made.inc();
    Ok(bytes_per_sec)
}
