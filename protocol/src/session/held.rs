//! One session as it is held.

use std::sync::Arc;

use jiff::Timestamp;
use libp2p_identity::PeerId;

use super::{LIFE, Puts, Values};
use crate::{
    record::PeerRecord,
    signed::{CLOCK_SKEW, Verified},
    time::{Mono, Now},
};

/// A session that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    /// Whose it was.
    pub peer: PeerId,
    /// As it said last.
    pub name: String,
    /// As it said last.
    pub did: String,
    /// It was an indexer's.
    pub is_indexer: bool,
}

/// A session as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Whose.
    pub peer: PeerId,
    /// The record's name, or what the heartbeat says.
    pub name: String,
    /// The record's DID, or what the heartbeat says.
    pub did: String,
    /// The peer is an indexer.
    pub is_indexer: bool,
    /// We are its referent.
    pub is_referent: bool,
    /// When it began.
    pub since: Mono,
    /// The last heartbeat.
    pub last_seen: Mono,
    /// Heartbeats.
    pub beats: u64,
    /// Number of the record held.
    pub record_seq: Option<u64>,
    /// When that expires.
    pub record_expires: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: PeerId,
    pub(super) name: String,
    pub(super) did: String,
    pub(super) is_indexer: bool,
    pub(super) is_referent: bool,
    /// Its pool wants no more indexers.
    pub(super) is_settled: bool,
    pub(super) since: Mono,
    pub(super) last_seen: Mono,
    pub(super) beats: u64,
    pub(super) record: Option<Arc<Verified<PeerRecord>>>,
    pub(super) values: Option<Arc<Values>>,
    /// The record's name in its normal form, shared with the indexes.
    pub(super) normal_name: Option<Arc<str>>,
    /// Where it stands in the list that parts of names are looked for in.
    pub(super) named_at: Option<usize>,
    /// The record being verified, and since when.
    pub(super) asked: Option<(u64, Mono)>,
    /// Its key in `leases`, never after its end.
    pub(super) lease: Mono,
    pub(super) puts: Puts,
}

impl Session {
    pub(super) fn is_live(&self, now: Mono) -> bool {
        now < self.last_seen + LIFE
    }

    pub(super) fn record_seq(&self) -> Option<u64> {
        self.record.as_ref().map(|record| record.seq)
    }

    /// The record as a hit: the session lives and the record is not over.
    pub(super) fn hit(&self, now: Now) -> Option<&Arc<Verified<PeerRecord>>> {
        self.record.as_ref().filter(|record| self.is_live(now.mono) && is_valid(record, now.wall))
    }

    pub(super) fn departed(self) -> Departed {
        Departed { peer: self.peer, name: self.name, did: self.did, is_indexer: self.is_indexer }
    }

    pub(super) fn view(&self) -> SessionView {
        let record = self.record.as_ref();
        SessionView {
            peer: self.peer,
            name: record.map_or_else(|| self.name.clone(), |record| record.name.clone()),
            did: record.map_or_else(|| self.did.clone(), |record| record.did.clone()),
            is_indexer: self.is_indexer,
            is_referent: self.is_referent,
            since: self.since,
            last_seen: self.last_seen,
            beats: self.beats,
            record_seq: self.record_seq(),
            record_expires: record.map(|record| record.expiry_date),
        }
    }
}

/// Not over, as receivers see it: their clocks may differ.
pub(super) fn is_valid(record: &PeerRecord, now: Timestamp) -> bool {
    now.duration_since(record.expiry_date).as_millis() < CLOCK_SKEW.as_millis() as i128
}
