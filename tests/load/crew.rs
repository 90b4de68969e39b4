//! Many thin nodes.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use libp2p::Multiaddr;
use protocol::{identity::Keys, wire::HeartbeatResponse};

use crate::{
    broken::{Broken, Outcome, While},
    thin::{Beats, Link, Network, Signed, Thin},
};

/// Nodes that connect at the same time.
const ARRIVING_MAX: usize = 64;

/// Long enough that no record ends within a measurement; anybody may sign for twice as long.
pub(crate) const RECORD_LIFE: Duration = Duration::from_secs(300);

/// The keys and names of a run; the same chance gives the same crew.
#[derive(Clone, Debug)]
pub(crate) struct Register {
    /// The network.
    pub(crate) network: Network,
    chance: u64,
}

impl Register {
    /// The crew of this network and this chance.
    pub(crate) fn new(network: Network, chance: u64) -> Self {
        Self { network, chance }
    }

    /// A thin node; each number has its own key and name.
    ///
    /// # Errors
    /// When its transport cannot be built.
    pub(crate) fn node(&self, number: usize) -> Outcome<Thin> {
        Ok(Thin::start(self.keys(number), &name(number), &self.network)?)
    }

    /// The same on this address of the machine.
    ///
    /// # Errors
    /// As [`node`](Self::node).
    pub(crate) fn node_at(&self, host: Ipv4Addr, number: usize) -> Outcome<Thin> {
        Ok(Thin::start_at(host, self.keys(number), &name(number), &self.network)?)
    }

    fn keys(&self, number: usize) -> Keys {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.chance.to_le_bytes());
        seed[8..16].copy_from_slice(&(number as u64).to_le_bytes());
        Keys::from_seed(seed)
    }
}

/// The name of a node, in which [`part`] stands.
pub(crate) fn name(number: usize) -> String {
    format!("thin-{number:05}-node")
}

/// A part of the name of this node and of no other.
pub(crate) fn part(number: usize) -> String {
    format!("-{number:05}-")
}

/// Looks at whether a record that was sent has been taken, each with a beat, and the pause between two of them.
const LOOKS_MAX: usize = 50;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A thin node with one indexer, to which its heartbeat stream is open.
#[derive(Debug)]
pub(crate) struct Sailor {
    /// Its number.
    pub(crate) number: usize,
    /// The node.
    pub(crate) thin: Arc<Thin>,
    /// Its connection.
    pub(crate) link: Link,
    /// Its stream.
    pub(crate) beats: Beats,
    /// Its record.
    pub(crate) signed: Signed,
}

impl Sailor {
    /// Connects a node, says hello and opens its heartbeat stream; no beat is sent yet.
    ///
    /// # Errors
    /// When it is refused or cut off.
    pub(crate) async fn aboard(number: usize, thin: Arc<Thin>, to: &Multiaddr) -> Outcome<Self> {
        let link = thin.connect(to).await.when(format!("connecting node {number}"))?;
        let beats = thin.beats(&link).await.when(format!("opening the heartbeat stream of node {number}"))?;
        let signed = thin.sign(RECORD_LIFE);
        Ok(Self { number, thin, link, beats, signed })
    }

    /// The first beat, with the record, to the referent.
    ///
    /// # Errors
    /// When it is refused or lost, or the record is not acknowledged.
    pub(crate) async fn introduce(&mut self, referent: bool) -> Outcome<HeartbeatResponse> {
        let mut beat = self.beats.beat_with(&self.signed, referent).await;
        for _ in 0..LOOKS_MAX {
            let answer = beat.when(format!("the first beat of node {}", self.number))?;
            if answer.record_seq.is_some() {
                return Ok(answer);
            }
            // It is verified beside the way of the answer.
            tokio::time::sleep(LOOK_EVERY).await;
            beat = self.beats.beat().await;
        }
        Err(Broken::new(format!("the record of node {} was not acknowledged", self.number)))
    }
}

/// Does something for each number, a bounded number at the same time.
///
/// # Errors
/// The first that breaks.
pub(crate) async fn each<T: Send + 'static, Work: Future<Output = Outcome<T>> + Send + 'static>(
    numbers: impl IntoIterator<Item = usize>,
    work: impl Fn(usize) -> Work,
) -> Outcome<Vec<T>> {
    let tasks = stream::iter(numbers).map(|number| tokio::spawn(work(number)));
    let done = tasks.buffered(ARRIVING_MAX).map(|task| task.map_err(Broken::from)?);
    done.try_collect().await
}
