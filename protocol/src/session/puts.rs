//! What is put into the DHT for a session's peer, and when.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use libp2p_identity::PeerId;

use super::Registry;
use crate::{
    dht::{NameClaim, PidValue},
    names,
    record::PeerRecord,
    signed::Verified,
    time::{Mono, Now},
};

/// The shortest time between two puts of one peer, changed addresses and failures included.
pub const PUT_PAUSE: Duration = Duration::from_secs(10);

/// The values that only the peer can sign and only its referent puts, beside the record itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values {
    /// Of `/pid/<peer id>`.
    pub pid: Verified<PidValue>,
    /// The claim in `/name/<name>`.
    pub name: Verified<NameClaim>,
}

impl Values {
    /// They say of the record's peer what the record says.
    pub(super) fn belong_to(&self, record: &PeerRecord) -> bool {
        let Self { pid, name } = self;
        let is_pid = pid.peer_id == record.peer_id && pid.did == record.did;
        let is_name = name.peer_id == record.peer_id && name.did == record.did;
        is_pid && is_name && names::normal(&name.name) == names::normal(&record.name)
    }

    fn are_alive(&self, now: Timestamp) -> bool {
        now < self.pid.expiry_date && now < self.name.expiry_date
    }
}

/// One peer's values, due to be put into the DHT.
#[derive(Clone, Debug)]
pub struct Put {
    /// Of `/node/<did>`.
    pub record: Arc<Verified<PeerRecord>>,
    /// The others, if the peer sent them.
    pub values: Option<Arc<Values>>,
}

/// When a peer's values were put, and when they may be again.
#[derive(Clone, Debug, Default)]
pub(super) struct Puts {
    pub(super) seq: Option<u64>,
    pub(super) at: Option<Mono>,
    /// Half of the life that was left at the last put is over.
    not_before: Mono,
    /// More than the date changed since, or the last put failed.
    pub(super) is_urgent: bool,
    pub(super) due: Option<Mono>,
}

impl Puts {
    pub(super) fn due_for(&self, record: &PeerRecord, now: Mono) -> Option<Mono> {
        if self.seq == Some(record.seq) {
            return None;
        }
        let earliest = match self.at {
            None => now,
            Some(at) if self.is_urgent => at + PUT_PAUSE,
            Some(_) => self.not_before,
        };
        Some(earliest.max(now))
    }

    pub(super) fn done(&mut self, record: &PeerRecord, now: Now) {
        let left = Duration::try_from(record.expiry_date.duration_since(now.wall)).unwrap_or_default();
        let not_before = now.mono + left / 2;
        *self = Self { seq: Some(record.seq), at: Some(now.mono), not_before, is_urgent: false, due: None };
    }

    fn failed(&mut self, now: Mono) {
        *self = Self { seq: None, at: Some(now), not_before: now, is_urgent: true, due: self.due };
    }
}

pub(super) fn alive(values: Option<&Arc<Values>>, now: Timestamp) -> Option<Arc<Values>> {
    values.filter(|values| values.are_alive(now)).cloned()
}

/// The puts of a peer whose record becomes `new`: urgent when more changed than number and date.
pub(super) fn changed(mut puts: Puts, old: Option<&Verified<PeerRecord>>, new: &PeerRecord) -> Puts {
    puts.is_urgent |= !old.is_none_or(|old| is_dated_anew(old, new));
    puts
}

/// The two differ in nothing but number and date.
fn is_dated_anew(old: &PeerRecord, new: &PeerRecord) -> bool {
    let PeerRecord {
        name,
        did,
        pub_key,
        peer_id,
        api_url,
        stream_address,
        addrs,
        nats_address,
        wallet_address,
        capabilities,
        born_at,
        expiry_date: _,
        seq: _,
    } = new;
    old.name == *name
        && old.did == *did
        && old.pub_key == *pub_key
        && old.peer_id == *peer_id
        && old.api_url == *api_url
        && old.stream_address == *stream_address
        && old.addrs == *addrs
        && old.nats_address == *nats_address
        && old.wallet_address == *wallet_address
        && old.capabilities == *capabilities
        && old.born_at == *born_at
}

impl Registry {
    /// Values that are due to be put, the longest due first, marked as put; at most `at_most`.
    ///
    /// A peer's values are put when we become its referent or hold its first record, and then when a newer record is here
    /// and half of the life that the last put had left is over; at once, 10 s after the last put at the earliest, when
    /// more changed than number and date. The same number is never put twice unless [`Registry::put_failed`] said so.
    pub fn puts_due(&mut self, now: Now, at_most: usize) -> Vec<Put> {
        let mut due = Vec::new();
        if at_most > 0 {
            due.extend(self.own_put_due(now));
        }
        while due.len() < at_most {
            let Some((at, slot)) = self.puts.first().copied().filter(|(at, _)| *at <= now.mono) else { break };
            self.puts.remove(&(at, slot));
            let session = self.session_mut(slot);
            session.puts.due = None;
            let Some(record) = session.record.clone() else { continue };
            // What is over is not worth a put; the next record or session schedules its own.
            if session.is_live(now.mono) && now.wall < record.expiry_date {
                session.puts.done(&record, now);
                due.push(Put { record, values: alive(session.values.as_ref(), now.wall) });
            }
        }
        due
    }

    /// A put was not read back: the values are due again in 10 s.
    pub fn put_failed(&mut self, peer: &PeerId, seq: u64, now: Mono) {
        if let Some(own) = self.own.as_mut().filter(|own| own.record.peer_id == *peer && own.puts.seq == Some(seq)) {
            own.puts.failed(now);
            own.puts.due = own.puts.due_for(&own.record, now);
        }
        if let Some(slot) = self.by_peer.get(peer).copied()
            && self.session(slot).puts.seq == Some(seq)
        {
            self.session_mut(slot).puts.failed(now);
            self.schedule_put(slot, now);
        }
    }

    /// When the next put is due, if any is planned.
    #[must_use]
    pub fn next_put(&self) -> Option<Mono> {
        let own = self.own.as_ref().and_then(|own| own.puts.due);
        own.into_iter().chain(self.puts.first().map(|(due, _)| *due)).min()
    }

    pub(super) fn schedule_put(&mut self, slot: u32, now: Mono) {
        let session = self.session_mut(slot);
        let record = session.record.as_ref().filter(|_| session.is_referent);
        let due = record.and_then(|record| session.puts.due_for(record, now));
        let before = std::mem::replace(&mut session.puts.due, due);
        if let Some(before) = before {
            self.puts.remove(&(before, slot));
        }
        if let Some(due) = due {
            self.puts.insert((due, slot));
        }
    }

    fn own_put_due(&mut self, now: Now) -> Option<Put> {
        let own = self.own.as_mut().filter(|own| own.puts.due.is_some_and(|due| due <= now.mono))?;
        own.puts.due = None;
        (now.wall < own.record.expiry_date).then(|| {
            own.puts.done(&own.record, now);
            Put { record: Arc::clone(&own.record), values: alive(own.values.as_ref(), now.wall) }
        })
    }
}
