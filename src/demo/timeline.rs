//! What the network did about a death, told from what the survivors say; and when it is healed.
//!
//! Nothing here asks anybody: snapshots and events come in, lines go out.

use std::collections::{BTreeMap, BTreeSet};

use actors::view::{EventView, MemberState, Standing};
use jiff::Timestamp;
use serde::Serialize;

use super::{ask::Snapshot, state::Member};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Line {
    /// Since the kill, milliseconds; what an answer showed counts from when it was asked for.
    pub(crate) after_ms: i64,
    /// At whom.
    pub(crate) who: String,
    /// What: an event's kind, `standing` or `forgot`.
    pub(crate) what: String,
    /// In words, with names for peer ids.
    pub(crate) detail: String,
}

/// The story of one death.
#[derive(Debug)]
pub(crate) struct Timeline {
    dead: Member,
    killed_at: Timestamp,
    names: Vec<(String, String)>,
    /// Last event told, by survivor. The journal is asked for what came after.
    told: BTreeMap<String, u64>,
    standings: BTreeMap<String, Standing>,
    listing: BTreeSet<String>,
}

impl Timeline {
    /// The story of the death of `dead` among `members`. Events up to those in `told` and standings as in `before` are
    /// what was before it.
    pub(crate) fn new(
        dead: Member,
        killed_at: Timestamp,
        members: &[Member],
        told: BTreeMap<String, u64>,
        before: BTreeMap<String, Snapshot>,
    ) -> Self {
        let listing =
            before.iter().filter(|(_, snapshot)| lists(snapshot, &dead.peer_id)).map(|(name, _)| name.clone());
        Self {
            listing: listing.collect(),
            standings: before.into_iter().map(|(name, snapshot)| (name, snapshot.status.standing)).collect(),
            names: members.iter().map(|member| (member.peer_id.clone(), member.name.clone())).collect(),
            dead,
            killed_at,
            told,
        }
    }

    /// The last event of this survivor that was told.
    pub(crate) fn since(&self, survivor: &str) -> u64 {
        self.told.get(survivor).copied().unwrap_or(0)
    }

    /// Takes in what one survivor said at `now` and tells what is new, oldest first.
    pub(crate) fn absorb(
        &mut self,
        now: Timestamp,
        survivor: &str,
        events: &[EventView],
        snapshot: Option<&Snapshot>,
    ) -> Vec<Line> {
        let mut lines = self.absorb_events(survivor, events);
        if let Some(snapshot) = snapshot {
            lines.extend(self.absorb_snapshot(now, survivor, snapshot));
        }
        lines
    }

    fn absorb_events(&mut self, survivor: &str, events: &[EventView]) -> Vec<Line> {
        let since = self.since(survivor);
        let fresh: Vec<_> = events.iter().filter(|event| event.seq > since).collect();
        if let Some(last) = fresh.iter().map(|event| event.seq).max() {
            self.told.insert(survivor.to_owned(), last);
        }
        fresh.into_iter().filter(|event| !is_retry(event)).map(|event| self.told_event(survivor, event)).collect()
    }

    fn told_event(&self, survivor: &str, event: &EventView) -> Line {
        let subject = self.named(&event.subject);
        let detail = self.named(&event.detail);
        let detail = if detail.is_empty() || detail.contains(&subject) {
            if detail.is_empty() { subject } else { detail }
        } else {
            format!("{subject}: {detail}")
        };
        Line { after_ms: self.after(event.at), who: survivor.to_owned(), what: event.kind.clone(), detail }
    }

    fn absorb_snapshot(&mut self, now: Timestamp, survivor: &str, snapshot: &Snapshot) -> Vec<Line> {
        let mut lines = Vec::new();
        let after_ms = self.after(now);
        let standing = snapshot.status.standing;
        let before = self.standings.insert(survivor.to_owned(), standing);
        if before.is_some_and(|before| before != standing) {
            lines.push(Line {
                after_ms,
                who: survivor.to_owned(),
                what: "standing".into(),
                detail: word(standing).into(),
            });
        }
        let lists = lists(snapshot, &self.dead.peer_id);
        let listed = if lists { !self.listing.insert(survivor.to_owned()) } else { self.listing.remove(survivor) };
        if listed && !lists {
            let detail = format!("{} is no longer in its pool, sessions or connections", self.dead.name);
            lines.push(Line { after_ms, who: survivor.to_owned(), what: "forgot".into(), detail });
        }
        lines
    }

    /// The text with members' names in place of their peer ids.
    fn named(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (id, name)| text.replace(id.as_str(), name))
    }

    fn after(&self, at: Timestamp) -> i64 {
        at.as_millisecond().saturating_sub(self.killed_at.as_millisecond())
    }
}

/// This member still counts on the peer: in its pool, in a session, or over a connection.
///
/// A seed that is down stays in the pool to be tried again; it is listed as down, and nobody counts on it.
pub(crate) fn lists(snapshot: &Snapshot, peer_id: &str) -> bool {
    let in_pool = |indexer: &actors::view::IndexerView| {
        indexer.peer_id.to_string() == peer_id && indexer.state != MemberState::Down
    };
    snapshot.indexers.iter().any(in_pool)
        || snapshot.sessions.iter().any(|session| session.peer_id.to_string() == peer_id)
        || snapshot.peers.iter().any(|peer| peer.connected && peer.peer_id.to_string() == peer_id)
}

/// It can do its job: a node is whole, an indexer ready.
pub(crate) fn is_well(snapshot: &Snapshot) -> bool {
    let status = &snapshot.status;
    if status.role.node { status.standing == Standing::Whole } else { status.ready }
}

/// Why the network is not healed of the peer's death, by survivor; empty when it is. A survivor that does not answer is
/// none to count on.
pub(crate) fn unhealed(survivors: &[(&Member, Option<Snapshot>)], dead: &Member) -> Vec<String> {
    let reason = |(member, snapshot): &(&Member, Option<Snapshot>)| match snapshot {
        None => Some(format!("{} does not answer", member.name)),
        Some(snapshot) if lists(snapshot, &dead.peer_id) => Some(format!("{} still lists {}", member.name, dead.name)),
        Some(snapshot) if !is_well(snapshot) => Some(format!("{} is {}", member.name, word(snapshot.status.standing))),
        Some(_) => None,
    };
    survivors.iter().filter_map(reason).collect()
}

/// The standing as people and programs read it.
pub(crate) const fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Joining => "joining",
        Standing::Joined => "joined",
        Standing::Whole => "whole",
        Standing::Isolated => "isolated",
        Standing::Leaving => "leaving",
    }
}

/// The restarts of one heartbeat are what "suspected" says already; the tree shows each of them.
fn is_retry(event: &EventView) -> bool {
    event.kind.starts_with("actor_") && event.subject.contains("/heartbeat/")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use serde_json::{Value, json};

    use super::*;
    use crate::demo::state::{Life, Role};

    const PARIS: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    const INDEXER: &str = "12D3KooWHHzSeKaY8xuZVzkLbKFfvNgPPeKhFBGrMbNzbm5akpqu";

    fn member(name: &str, role: Role, peer_id: &str) -> Member {
        Member {
            name: name.into(),
            role,
            peer_id: peer_id.into(),
            did: String::new(),
            admin: "127.0.0.1:1".parse().unwrap(),
            p2p_port: 2,
            bus: None,
            pid: 3,
            dir: PathBuf::new(),
            state: Life::Running,
        }
    }

    fn status(role: Value, standing: &str, ready: bool) -> Value {
        json!({
            "name": "paris", "peer_id": PARIS, "did": "did:key:z6Mk", "version": "0.1.0", "role": role,
            "network_id": "opencloud", "profile": "local", "standing": standing, "ready": ready, "reasons": [],
            "listen": [], "born_at": "2026-01-01T00:00:00Z", "uptime_ms": 1, "pool_members": 2, "pool_answering": 2,
            "pool_min": 1, "pool_max": 5, "referent": null, "sessions": 0, "max_nodes": 0, "indexers_known": 0,
            "connections": 0, "record_seq": 1, "store_ok": true,
        })
    }

    fn node(standing: &str) -> Snapshot {
        let status = serde_json::from_value(status(json!({"node": true, "indexer": false}), standing, true)).unwrap();
        Snapshot { status, indexers: vec![], peers: vec![], sessions: vec![] }
    }

    fn with_indexer(mut snapshot: Snapshot, state: &str) -> Snapshot {
        let indexer = json!({
            "peer_id": INDEXER, "name": "indexer-2", "addrs": [], "state": state, "seed": false, "sticky": false,
            "referent": false, "score": null, "threshold": 20.0, "parts": [], "rtt_ms": null, "fill_rate": null,
            "peer_count": null, "max_nodes": null, "born_at": null, "last_answer": null, "missed": 0, "beats": 0,
        });
        snapshot.indexers.push(serde_json::from_value(indexer).unwrap());
        snapshot
    }

    fn event(seq: u64, kind: &str, subject: &str, detail: &str) -> EventView {
        EventView {
            seq,
            at: Timestamp::from_millisecond(1_000 + i64::try_from(seq).unwrap()).unwrap(),
            kind: kind.into(),
            subject: subject.into(),
            detail: detail.into(),
        }
    }

    fn timeline(before: Snapshot) -> (Timeline, Member, Member) {
        let dead = member("indexer-2", Role::Indexer, INDEXER);
        let paris = member("paris", Role::Node, PARIS);
        let told = BTreeMap::from([("paris".to_owned(), 4)]);
        let at = Timestamp::from_millisecond(1_000).unwrap();
        let before = BTreeMap::from([("paris".to_owned(), before)]);
        (Timeline::new(dead.clone(), at, &[dead.clone(), paris.clone()], told, before), dead, paris)
    }

    #[test]
    fn events_are_told_once_with_names_for_ids() {
        let (mut timeline, ..) = timeline(node("whole"));
        let events = [event(4, "old", "", ""), event(5, "member_suspected", INDEXER, "connection reset")];
        let at = Timestamp::from_millisecond(1_100).unwrap();
        let lines = timeline.absorb(at, "paris", &events, None);
        let detail = "indexer-2: connection reset".to_owned();
        assert_eq!(lines, [Line { after_ms: 5, who: "paris".into(), what: "member_suspected".into(), detail }]);
        assert_eq!(timeline.since("paris"), 5);
        assert!(timeline.absorb(at, "paris", &events, None).is_empty());
    }

    #[test]
    fn a_change_of_standing_and_a_forgotten_peer_are_told() {
        let (mut timeline, ..) = timeline(with_indexer(node("whole"), "answering"));
        let at = Timestamp::from_millisecond(1_300).unwrap();
        let lines = timeline.absorb(at, "paris", &[], Some(&node("isolated")));
        let whats: Vec<_> = lines.iter().map(|line| (line.after_ms, line.what.as_str())).collect();
        assert_eq!(whats, [(300, "standing"), (300, "forgot")]);
        assert!(timeline.absorb(at, "paris", &[], Some(&node("isolated"))).is_empty());
    }

    #[test]
    fn a_network_that_lists_the_dead_is_not_healed() {
        let (_, dead, paris) = timeline(node("whole"));
        let unhealed = |snapshot| unhealed(&[(&paris, snapshot)], &dead);
        assert_eq!(unhealed(Some(with_indexer(node("whole"), "suspect"))), ["paris still lists indexer-2"]);
        assert_eq!(unhealed(Some(node("isolated"))), ["paris is isolated"]);
        assert_eq!(unhealed(None), ["paris does not answer"]);
        assert_eq!(unhealed(Some(node("whole"))), Vec::<String>::new());
    }

    #[test]
    fn a_seed_kept_as_down_is_not_counted_on() {
        assert!(!lists(&with_indexer(node("whole"), "down"), INDEXER));
        assert!(lists(&with_indexer(node("whole"), "standby"), INDEXER));
    }

    #[test]
    fn an_indexer_is_well_when_it_is_ready() {
        let mut indexer = node("joining");
        indexer.status = serde_json::from_value(status(json!({"indexer": true}), "joining", true)).unwrap();
        assert!(is_well(&indexer));
        indexer.status.ready = false;
        assert!(!is_well(&indexer));
    }
}
