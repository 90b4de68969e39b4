//! Where a member stands, whether it can do its job, and what happened to it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use libp2p_identity::PeerId;

use crate::{time::Mono, wire::Role};

/// Events kept; a timeline of minutes, not a history.
pub const EVENTS_MAX: usize = 1_000;

/// The trouble of a member whose own key was revoked: nobody takes it any more, so it cannot do its job.
pub const REVOKED: &str = "revoked";

/// What is read back from the database before anybody is let in: whoever is refused could slip in before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Memory {
    /// Whom this indexer banned.
    Bans,
    /// What each peer is to us.
    Relations,
    /// Whose key was revoked.
    Revocations,
}

impl Memory {
    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bans => "bans",
            Self::Relations => "relations",
            Self::Revocations => "revocations",
        }
    }

    /// All that a member of this role reads back.
    #[must_use]
    pub fn of(role: Role) -> BTreeSet<Self> {
        let bans = role.indexer.then_some(Self::Bans);
        bans.into_iter().chain([Self::Relations, Self::Revocations]).collect()
    }
}

/// What the actors told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What we are.
    pub role: Role,
    /// Listening on at least one address.
    pub is_listening: bool,
    /// The database answers.
    pub is_store_ok: bool,
    /// The last word has been said.
    pub is_leaving: bool,
    /// Some member of the pool answered, now or before.
    pub has_answered: bool,
    /// Members that answered their last beat.
    pub answering: u32,
    /// Configured least.
    pub pool_min: u32,
    /// The own record was read back through an indexer that does not represent us, where there are two.
    pub is_visible: bool,
    /// An operator lets its nodes go.
    pub is_drained: bool,
    /// What is still to be read back.
    pub unread: BTreeSet<Memory>,
    /// What is wrong, by topic, with its remedy.
    pub troubles: BTreeMap<&'static str, String>,
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No indexer has answered yet.
    Joining,
    /// Enough answer; the own record was not yet read back.
    Joined,
    /// Enough answer and the own record was read back.
    Whole,
    /// Fewer than the configured least answer.
    Isolated,
    /// On its way out.
    Leaving,
}

impl Facts {
    /// Where the member stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        if self.is_leaving {
            return Standing::Leaving;
        }
        match (self.answering >= self.pool_min.max(1), self.has_answered, self.is_visible) {
            (true, _, true) => Standing::Whole,
            (true, _, false) => Standing::Joined,
            (false, true, _) => Standing::Isolated,
            (false, false, _) => Standing::Joining,
        }
    }

    /// Why it cannot do its job; nothing when it can.
    ///
    /// A node is ready when one member has answered; an indexer when it listens and its store answers: the first indexer
    /// of a network is never unready for being alone. Neither is before it knows again whom it refuses: until then it lets
    /// nobody in.
    #[must_use]
    pub fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.is_leaving {
            reasons.push("it is leaving: start it again".to_owned());
        }
        if let Some(remedy) = self.troubles.get(REVOKED) {
            reasons.push(format!("{REVOKED}: {remedy}"));
        }
        if !self.unread.is_empty() {
            let names: Vec<&str> = self.unread.iter().map(|memory| memory.name()).collect();
            let names = names.join(", ");
            reasons.push(format!("it is still to read back its {names}: wait; if that lasts, look at the database"));
        }
        if self.role.indexer {
            if !self.is_listening {
                reasons.push("it listens on no address: check network.listen and network.port".to_owned());
            }
            if !self.is_store_ok {
                reasons.push(
                    "the database does not answer: check the disk of files.data, or the server of store.url".to_owned(),
                );
            }
            if self.is_drained {
                reasons.push("it is drained: `muster undrain` lets it take sessions again".to_owned());
            }
        } else if self.answering == 0 {
            let what =
                if self.has_answered { "isolated: no indexer answers any more" } else { "no indexer has answered yet" };
            reasons.push(format!("{what}: check network.seeds, and that an indexer runs there"));
        }
        reasons
    }

    /// Everything an operator should know, each with its remedy: what keeps it from being ready first.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = self.unready();
        if !self.role.indexer && !self.is_store_ok {
            reasons.push(
                "the database does not answer: check the disk of files.data, or the server of store.url".to_owned(),
            );
        }
        let others = self.troubles.iter().filter(|(what, _)| **what != REVOKED);
        reasons.extend(others.map(|(what, remedy)| format!("{what}: {remedy}")));
        reasons
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts from 1.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// What sort of event.
    pub kind: &'static str,
    /// The peer or actor it is about.
    pub subject: String,
    /// In words.
    pub detail: String,
}

/// The last [`EVENTS_MAX`] events; older ones are dropped.
#[derive(Debug, Default)]
pub struct Journal {
    events: VecDeque<Event>,
    last: u64,
}

impl Journal {
    /// Writes an event down.
    pub fn note(&mut self, at: Timestamp, kind: &'static str, subject: String, detail: String) {
        self.last += 1;
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(Event { seq: self.last, at, kind, subject, detail });
    }

    /// The number of the oldest event that is kept; of the next one while there is none.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.events.front().map_or(self.last + 1, |event| event.seq)
    }

    /// The number of the last event; 0 before the first.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// What came after event `seq`, oldest first.
    pub fn since(&self, seq: u64) -> impl Iterator<Item = &Event> {
        self.events.iter().skip_while(move |event| event.seq <= seq)
    }
}

/// How far somebody has read: in which journal, and to which event of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The journal: a restart begins another, which counts from 1 again.
    pub journal: u64,
    /// The last event of it that was read; 0 for none.
    pub seq: u64,
}

/// Why a reader cannot go on where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// So many events have been dropped unread.
    Dropped(u64),
    /// It read another journal, of which nobody knows any more how it ended.
    Restarted,
}

impl Seen {
    /// Where this reader goes on in a journal with these events, and what it has missed.
    #[must_use]
    pub const fn resumed(self, journal: u64, oldest: u64, last: u64) -> (Self, Option<Gap>) {
        if self.journal != journal {
            return (Self { journal, seq: 0 }, Some(Gap::Restarted));
        }
        if self.seq > last {
            // Nobody can have read what has not happened: it goes on with what happens next.
            return (Self { journal, seq: last }, None);
        }
        let dropped = oldest.saturating_sub(self.seq + 1);
        (self, if dropped == 0 { None } else { Some(Gap::Dropped(dropped)) })
    }
}

/// A peer is complained about this often at most.
pub const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Peers complained about lately; past it nobody new is named, so that strangers cannot fill the log.
pub const COMPLAINTS_MAX: usize = 1_024;

/// Who was complained about, so that each peer's faults are logged once a minute.
#[derive(Debug, Default)]
pub struct Complaints {
    said: HashMap<PeerId, (Mono, u64)>,
}

impl Complaints {
    /// Whether this fault of the peer may be logged now, and how many before it were not.
    pub fn may_say(&mut self, about: PeerId, now: Mono) -> Option<u64> {
        if self.said.len() >= COMPLAINTS_MAX && !self.said.contains_key(&about) {
            self.said.retain(|_, (at, _)| now.since(*at) < COMPLAIN_EVERY);
            if self.said.len() >= COMPLAINTS_MAX {
                return None;
            }
        }
        match self.said.get_mut(&about) {
            Some((at, unsaid)) if now.since(*at) < COMPLAIN_EVERY => {
                *unsaid += 1;
                None
            }
            known => {
                let unsaid = known.map_or(0, |(_, unsaid)| *unsaid);
                self.said.insert(about, (now, 0));
                Some(unsaid)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn peer(n: u16) -> PeerId {
        let mut seed = [7; 32];
        seed[..2].copy_from_slice(&n.to_le_bytes());
        libp2p_identity::Keypair::ed25519_from_bytes(seed).unwrap().public().to_peer_id()
    }

    #[test]
    fn a_reader_goes_on_where_it_was_and_is_told_what_it_missed() {
        let seen = |journal, seq| Seen { journal, seq };
        for (reader, oldest, last, expected) in [
            (seen(7, 0), 1, 0, (seen(7, 0), None)),
            (seen(7, 0), 1, 5, (seen(7, 0), None)),
            (seen(7, 4), 1, 5, (seen(7, 4), None)),
            (seen(7, 4), 5, 9, (seen(7, 4), None)),
            (seen(7, 4), 6, 9, (seen(7, 4), Some(Gap::Dropped(1)))),
            (seen(7, 9), 5, 9, (seen(7, 9), None)),
            (seen(7, 10), 5, 9, (seen(7, 9), None)),
            (seen(6, 4), 1, 5, (seen(7, 0), Some(Gap::Restarted))),
        ] {
            assert_eq!(reader.resumed(7, oldest, last), expected, "{reader:?} {oldest} {last}");
        }
    }

    #[test]
    fn a_journal_knows_its_oldest_and_its_last_event() {
        let mut journal = Journal::default();
        assert_eq!((journal.oldest(), journal.last()), (1, 0));
        for _ in 0..=EVENTS_MAX {
            journal.note(Timestamp::UNIX_EPOCH, "x", String::new(), String::new());
        }
        assert_eq!((journal.oldest(), journal.last()), (2, EVENTS_MAX as u64 + 1));
    }

    #[test]
    fn a_peers_faults_are_logged_once_a_minute_and_the_rest_counted() {
        let mut complaints = Complaints::default();
        assert_eq!(complaints.may_say(peer(1), Mono::ZERO), Some(0));
        assert_eq!(complaints.may_say(peer(1), Mono::from_secs(59)), None);
        assert_eq!(complaints.may_say(peer(2), Mono::from_secs(59)), Some(0));
        assert_eq!(complaints.may_say(peer(1), Mono::from_secs(60)), Some(1));
    }

    #[test]
    fn past_the_bound_nobody_new_is_named_until_a_minute_is_over() {
        let mut complaints = Complaints::default();
        for n in 0..COMPLAINTS_MAX as u16 {
            assert!(complaints.may_say(peer(n), Mono::ZERO).is_some());
        }
        assert_eq!(complaints.may_say(peer(9_999), Mono::from_secs(1)), None);
        assert_eq!(complaints.may_say(peer(9_999), Mono::from_secs(60)), Some(0));
    }

    fn facts(answering: u32, has_answered: bool, is_visible: bool) -> Facts {
        Facts {
            answering,
            has_answered,
            is_visible,
            pool_min: 1,
            is_listening: true,
            is_store_ok: true,
            ..Facts::default()
        }
    }

    #[test]
    fn a_member_is_whole_only_when_enough_answer_and_its_record_was_read_back() {
        assert_eq!(facts(0, false, false).standing(), Standing::Joining);
        assert_eq!(facts(1, true, false).standing(), Standing::Joined);
        assert_eq!(facts(1, true, true).standing(), Standing::Whole);
        assert_eq!(Facts { pool_min: 2, ..facts(1, true, true) }.standing(), Standing::Isolated);
        assert_eq!(facts(0, true, true).standing(), Standing::Isolated);
        assert_eq!(Facts { is_leaving: true, ..facts(1, true, true) }.standing(), Standing::Leaving);
    }

    #[test]
    fn a_first_indexer_is_ready_alone_and_a_node_is_not() {
        let indexer = Role { node: false, indexer: true };
        assert!(Facts { role: indexer, ..facts(0, false, false) }.unready().is_empty());
        assert_eq!(facts(0, false, false).unready().len(), 1);
        assert!(facts(1, true, false).unready().is_empty());
        let deaf = Facts { role: indexer, is_listening: false, is_store_ok: false, ..facts(0, false, false) };
        assert_eq!(deaf.unready().len(), 2);
    }

    #[test]
    fn a_drained_indexer_is_not_ready_and_names_its_remedy() {
        let indexer = Facts { role: Role { node: false, indexer: true }, is_drained: true, ..facts(1, true, true) };
        assert!(indexer.unready()[0].contains("muster undrain"));
        assert!(Facts { is_drained: false, ..indexer }.unready().is_empty());
    }

    #[test]
    fn a_node_whose_database_is_away_says_so_and_stays_ready() {
        let facts = Facts { is_store_ok: false, ..facts(1, true, true) };
        assert!(facts.unready().is_empty());
        assert_eq!(facts.reasons().len(), 1);
    }

    #[test]
    fn the_journal_keeps_the_newest_and_goes_on_counting() {
        let mut journal = Journal::default();
        for n in 0..EVENTS_MAX as u64 + 1 {
            journal.note(Timestamp::UNIX_EPOCH, "tested", n.to_string(), String::new());
        }
        let seqs: Vec<u64> = journal.since(0).map(|event| event.seq).collect();
        assert_eq!((seqs.len(), seqs[0]), (EVENTS_MAX, 2));
        assert_eq!(journal.since(1_000).map(|event| event.seq).collect::<Vec<_>>(), [1_001]);
        assert_eq!(journal.since(1_001).count(), 0);
    }
}
