//! What members are told: by each other, and by their own clocks.

use std::sync::Arc;

use jiff::Timestamp;
use libp2p_identity::PeerId;

use crate::{
    heartbeat::OwnRecord,
    presence::audit::Salt,
    record::PeerRecord,
    session::Values,
    signed::Verified,
    wire::{AddrInfo, Answer, Heartbeat, HeartbeatResponse, Refused, WitnessReport},
};

/// A record as its owner signed it. It goes along with its text, so that it is verified once and not at every receiver;
/// what each of them checks besides the signature it checks itself.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) record: Arc<Verified<PeerRecord>>,
    pub(super) own: OwnRecord,
    pub(super) values: Arc<Values>,
}

/// What crosses the network on a connection. Many wait at a time, so what is large lies elsewhere.
#[derive(Debug)]
pub(super) enum Message {
    /// A stream is asked for.
    Open { stream: u64 },
    /// It is there.
    Opened { stream: u64 },
    /// A heartbeat or a probe.
    Question { stream: u64, heartbeat: Box<Heartbeat>, signed: Option<Arc<Signed>> },
    /// Its answer.
    Answer { stream: u64, answer: Box<Answer<HeartbeatResponse>> },
    /// Others are asked for.
    AskCandidates { count: u32 },
    /// Others.
    Candidates { candidates: Vec<AddrInfo> },
    /// The sender goes.
    Leave { alternatives: Vec<AddrInfo> },
    /// What is seen of an indexer, and of one to try, whether it is reached.
    AskWitness { number: u64, about: u32, is_try: bool },
    /// What is seen of it; nothing where the question is refused.
    Witnessed { number: u64, report: Option<WitnessReport> },
    /// An auditor wants to see tokens.
    AskTokens { number: u64, salt: Salt },
    /// The nodes whose tokens come first under its salt.
    Tokens { number: u64, nodes: Vec<PeerId> },
}

/// What a member is told.
#[derive(Debug)]
pub(super) enum What {
    /// It begins.
    Begin,
    /// It ends now; it has said that it leaves.
    End,
    /// A message.
    Arrived { from: u32, connection: u64, message: Message },
    /// Somebody dials, and says hello.
    Dialled { from: u32, dial: u64 },
    /// How a dial of ours ended: the listener's clock, or its refusal; nothing when it was not reached.
    DialEnded { to: u32, dial: u64, outcome: Option<Result<Timestamp, Box<Refused>>> },
    /// A connection was closed by the other end.
    Closed { by: u32 },
    /// An answer that was held back goes now.
    Answered { to: u32, connection: u64, stream: u64, answer: Box<Answer<HeartbeatResponse>> },
    /// The pool is due.
    Pool,
    /// A heartbeat is due.
    Beat { peer: u32 },
    /// The answer to a question is late.
    Late { peer: u32, life: u64, seq: u64 },
    /// Our own look for our record in the DHT ended.
    Looked { peer: u32, life: u64, is_there: bool },
    /// The pool wants the connection to a peer closed.
    Close { peer: u32 },
    /// A witness did not answer in time.
    WitnessLate { number: u64 },
    /// Tokens were not shown in time.
    AuditLate { number: u64 },
    /// A stream did not open in time.
    OpenLate { peer: u32, stream: u64 },
    /// A heartbeat's restart is due.
    Restart { peer: u32, life: u64 },
    /// A probe was not answered in time.
    ProbeLate { stream: u64 },
    /// The DHT answers the pool.
    Listed,
    /// Indexers are to be judged.
    Judge,
    /// The record may be due.
    Claim,
    /// The indexer's tick.
    Host,
    /// Sessions are to be collected.
    Collect,
    /// The DHT answers the indexer.
    Found,
    /// The DHT answers what a node asked for.
    Sought { by: u32, stream: u64 },
    /// A put ended.
    Put { node: u32, seq: u64, is_done: bool },
}
