//! The searches that an indexer relays: one question in, one to all, and every answer handed on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use libp2p_identity::PeerId;
use rand::Rng;

use super::{HITS_MAX, OPEN_MAX, QueryId, Wanted, hit, split};
use crate::{
    record::PeerRecord,
    signed::Verified,
    time::Mono,
    wire::{RefusalCode, Refused, SearchHit, SearchPeerRequest, SearchPeerResult, SearchQuery},
};

/// Searches that one peer has open at an indexer at most.
pub const OPEN_PER_PEER_MAX: usize = 4;

/// The same at the indexer that relays: shorter, so that its last word arrives before the node gives up.
pub const RELAY_IDLE: Duration = Duration::from_secs(3);

/// The same at the indexer that relays.
pub const RELAY_TOTAL: Duration = Duration::from_secs(55);

/// Hits handed on for one search: they are not verified on the way, so three indexers that answer with rubbish must leave
/// room for an honest one.
pub const RELAYED_HITS_MAX: usize = 4 * HITS_MAX;

/// Answers taken from indexers that were not expected to answer: those of which no record is known yet.
pub const UNEXPECTED_MAX: usize = 16;

/// A search that an indexer relays, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(u64);

/// What to send to the peer that asked.
#[derive(Clone, Debug)]
pub struct Forward {
    /// For which search.
    pub id: RelayId,
    /// To whom.
    pub to: PeerId,
    /// Each within the limit of a value. Empty when there is nothing to say.
    pub values: Vec<SearchPeerResult>,
    /// The last of them is the last word: the search is closed here.
    pub is_over: bool,
}

/// A search that an indexer began to relay.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its number.
    pub id: RelayId,
    /// What to ask all other indexers, where that helps.
    pub gossip: Option<SearchQuery>,
    /// What is known already.
    pub forward: Forward,
}

#[derive(Debug)]
struct Answering {
    hits: usize,
    is_over: bool,
}

#[derive(Debug)]
struct Relay {
    asker: PeerId,
    asker_query: String,
    query: QueryId,
    /// Who should answer, sorted; shared by the searches of the same moment.
    expected: Arc<[PeerId]>,
    /// Those of them that answered, by their place.
    answering: BTreeMap<usize, Answering>,
    unexpected: Vec<(PeerId, Answering)>,
    is_dht_open: bool,
    hits: usize,
    is_truncated: bool,
    started: Mono,
    deadline: Mono,
}

impl Relay {
    /// Of this sender, if one more is listened to.
    fn answering(&mut self, from: &PeerId) -> Option<&mut Answering> {
        let fresh = || Answering { hits: 0, is_over: false };
        if let Ok(at) = self.expected.binary_search(from) {
            return Some(self.answering.entry(at).or_insert_with(fresh));
        }
        if let Some(at) = self.unexpected.iter().position(|(peer, _)| peer == from) {
            return Some(&mut self.unexpected[at].1);
        }
        if self.unexpected.len() >= UNEXPECTED_MAX {
            return None;
        }
        self.unexpected.push((*from, fresh()));
        self.unexpected.last_mut().map(|(_, answering)| answering)
    }

    fn answered(&self) -> usize {
        self.answering.values().filter(|answering| answering.is_over).count()
    }

    fn is_complete(&self) -> bool {
        !self.is_dht_open && self.answered() == self.expected.len()
    }

    /// Leaves out what is over the limits; whether there was anything left.
    fn bound(&mut self, hits: &mut Vec<SearchHit>, at_most: usize) -> bool {
        let room = at_most.min(RELAYED_HITS_MAX - self.hits);
        self.is_truncated |= hits.len() > room;
        hits.truncate(room);
        self.hits += hits.len();
        !hits.is_empty()
    }

    fn restart(&mut self, now: Mono) -> Mono {
        std::mem::replace(&mut self.deadline, (now + RELAY_IDLE).min(self.started + RELAY_TOTAL))
    }

    /// The line that says how complete it is; the indexer itself is one of those asked, and it answered.
    fn last_word(&self) -> SearchPeerResult {
        let (asked, answered) = (self.expected.len() as u32 + 1, self.answered() as u32 + 1);
        SearchPeerResult {
            query_id: self.asker_query.clone(),
            records: Vec::new(),
            last: true,
            asked: Some(asked),
            answered: Some(answered),
            timed_out: Some(asked - answered),
            truncated: Some(self.is_truncated),
        }
    }
}

/// The searches that an indexer relays for its nodes.
///
/// Bounded by [`OPEN_MAX`] in all and [`OPEN_PER_PEER_MAX`] per peer; nothing of a hit is kept once it was handed on. A
/// restart forgets them, and nodes hear the stream end.
#[derive(Debug)]
pub struct Relayed {
    me: PeerId,
    next: u64,
    open: BTreeMap<u64, Relay>,
    by_query: HashMap<QueryId, u64>,
    by_peer: BTreeSet<(PeerId, u64)>,
    deadlines: BTreeSet<(Mono, u64)>,
}

impl Relayed {
    /// None open, at the indexer `me`.
    #[must_use]
    pub fn new(me: PeerId) -> Self {
        Self {
            me,
            next: 0,
            open: BTreeMap::new(),
            by_query: HashMap::new(),
            by_peer: BTreeSet::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// Takes a search of a node. `held` is what [`Wanted::held`] found here; `roll` are those who should answer, which
    /// matters only where the question goes to all; `has_dht` when the caller looks in the DHT and will call
    /// [`Relayed::found`].
    ///
    /// # Errors
    /// When the query id is none, or too many searches are open, of this peer or in all.
    #[expect(clippy::too_many_arguments, reason = "each is one plain fact of the question")]
    pub fn open(
        &mut self,
        from: PeerId,
        request: &SearchPeerRequest,
        wanted: &Wanted,
        held: (Vec<Arc<Verified<PeerRecord>>>, bool),
        roll: Arc<[PeerId]>,
        has_dht: bool,
        now: Mono,
        rng: &mut impl Rng,
    ) -> Result<Opened, Refused> {
        if let Err(error) = request.query_id.parse::<QueryId>() {
            return Err(Refused::new(RefusalCode::Invalid, error.to_string()));
        }
        let of_peer = self.by_peer.range((from, 0)..=(from, u64::MAX)).count();
        if of_peer >= OPEN_PER_PEER_MAX || self.open.len() >= OPEN_MAX {
            let busy = Refused::new(RefusalCode::Busy, "too many searches are open");
            return Err(busy.retry_after(RELAY_IDLE.as_secs()));
        }
        let (id, query) = (self.next, QueryId::random(rng));
        self.next += 1;
        let relay = Relay {
            asker: from,
            asker_query: request.query_id.clone(),
            query,
            expected: if wanted.is_gossiped() { roll } else { Arc::new([]) },
            answering: BTreeMap::new(),
            unexpected: Vec::new(),
            is_dht_open: has_dht,
            hits: 0,
            is_truncated: held.1,
            started: now,
            deadline: now + RELAY_IDLE,
        };
        self.by_query.insert(query, id);
        self.by_peer.insert((from, id));
        self.deadlines.insert((relay.deadline, id));
        self.open.insert(id, relay);
        let hits = held.0.iter().map(|record| hit(record)).collect();
        let forward = self.forward(id, hits, HITS_MAX, now, |_| ()).expect("it was opened just now");
        let gossip = (wanted.is_gossiped() && !forward.is_over).then(|| wanted.query(query, self.me));
        Ok(Opened { id: RelayId(id), gossip, forward })
    }

    /// Takes an answer of another indexer, which said in its hello that it is one if `is_indexer`.
    ///
    /// Nothing comes of an answer to no open query, from a node, or after the last word of its sender. Hits are handed on
    /// as they came: the node that asked verifies them and blames whoever signed.
    pub fn answered(
        &mut self,
        from: &PeerId,
        is_indexer: bool,
        result: SearchPeerResult,
        now: Mono,
    ) -> Option<Forward> {
        let id = *self.by_query.get(&result.query_id.parse().ok()?)?;
        let relay = self.open.get_mut(&id).filter(|relay| is_indexer && now < relay.deadline)?;
        let room = HITS_MAX - relay.answering(from).filter(|answering| !answering.is_over)?.hits;
        let SearchPeerResult { mut records, last, truncated, .. } = result;
        records.retain(|hit| hit.record.is_some());
        let taken = records.len().min(room);
        let note = |relay: &mut Relay| {
            relay.is_truncated |= truncated.unwrap_or(false);
            if let Some(answering) = relay.answering(from) {
                answering.hits += taken;
                answering.is_over = last;
            }
        };
        self.forward(id, records, room, now, note)
    }

    /// Takes what the caller found in the DHT; nothing more comes from there.
    pub fn found(&mut self, id: RelayId, records: &[Arc<Verified<PeerRecord>>], now: Mono) -> Option<Forward> {
        let hits = records.iter().map(|record| hit(record)).collect();
        self.forward(id.0, hits, HITS_MAX, now, |relay| relay.is_dht_open = false)
    }

    /// Closes a search whose stream ended; nothing more is sent for it.
    pub fn close(&mut self, id: RelayId) {
        self.remove(id.0);
    }

    /// Closes every search of a peer that is gone.
    pub fn asker_gone(&mut self, peer: &PeerId) {
        let ids: Vec<_> = self.by_peer.range((*peer, 0)..=(*peer, u64::MAX)).map(|(_, id)| *id).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// Ends searches whose time is over, with their last word; at most `at_most`.
    pub fn expire(&mut self, now: Mono, at_most: usize) -> Vec<Forward> {
        let mut over = Vec::new();
        while over.len() < at_most {
            let Some((_, id)) = self.deadlines.first().copied().filter(|(due, _)| *due <= now) else { break };
            over.extend(self.remove(id).map(|relay| Forward {
                id: RelayId(id),
                to: relay.asker,
                values: vec![relay.last_word()],
                is_over: true,
            }));
        }
        over
    }

    /// When the next search ends if nothing comes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// Searches open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// None is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Hands hits on, and the last word with them when everybody answered.
    fn forward(
        &mut self,
        id: u64,
        mut hits: Vec<SearchHit>,
        at_most: usize,
        now: Mono,
        note: impl FnOnce(&mut Relay),
    ) -> Option<Forward> {
        let relay = self.open.get_mut(&id)?;
        let answered_before = relay.answered();
        note(relay);
        let has_hits = relay.bound(&mut hits, at_most);
        let (to, mut values) = (relay.asker, split(&relay.asker_query, hits));
        let is_over = relay.is_complete();
        if is_over {
            values.push(relay.last_word());
            self.remove(id);
        } else if has_hits || relay.answered() > answered_before {
            let before = relay.restart(now);
            let deadline = relay.deadline;
            self.deadlines.remove(&(before, id));
            self.deadlines.insert((deadline, id));
        }
        Some(Forward { id: RelayId(id), to, values, is_over })
    }

    fn remove(&mut self, id: u64) -> Option<Relay> {
        let relay = self.open.remove(&id)?;
        self.by_query.remove(&relay.query);
        self.by_peer.remove(&(relay.asker, id));
        self.deadlines.remove(&(relay.deadline, id));
        Some(relay)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::rngs::StdRng;

    use super::*;
    use crate::search::{
        empty,
        tests::{keys, peer, record, rng},
    };

    const ASKED_AS: &str = "0123456789abcdef0123456789ABCDEF";

    fn me() -> PeerId {
        peer(50)
    }

    struct Bed {
        relayed: Relayed,
        rng: StdRng,
        roll: Arc<[PeerId]>,
    }

    impl Bed {
        /// An indexer that knows so many others, which are the peers from 100 on.
        fn new(others: u16) -> Self {
            let mut roll: Vec<_> = (0..others).map(|n| peer(100 + n)).collect();
            roll.sort();
            Self { relayed: Relayed::new(me()), rng: rng(), roll: roll.into() }
        }

        fn open(&mut self, from: u16, wanted: &Wanted, held: Vec<u16>, has_dht: bool) -> Result<Opened, Refused> {
            let held = held.into_iter().map(|n| Arc::new(record(n, 1, "paris"))).collect();
            let request =
                SearchPeerRequest { query_id: ASKED_AS.to_owned(), ..wanted.request(QueryId::random(&mut rng())) };
            let (roll, now) = (Arc::clone(&self.roll), Mono::ZERO);
            self.relayed.open(peer(from), &request, wanted, (held, false), roll, has_dht, now, &mut self.rng)
        }

        fn part(&mut self, from: u16, held: Vec<u16>) -> Opened {
            self.open(from, &part(), held, false).unwrap()
        }

        fn answer(&mut self, from: u16, query: &SearchQuery, hits: &[u16], last: bool, at: u64) -> Option<Forward> {
            let records = hits.iter().map(|n| hit(&record(*n, 1, "paris"))).collect();
            let result = SearchPeerResult { records, last, ..empty(&query.query_id) };
            self.relayed.answered(&peer(from), true, result, Mono::from_millis(at))
        }

        fn is_spotless(&self) -> bool {
            let Relayed { open, by_query, by_peer, deadlines, .. } = &self.relayed;
            open.is_empty() && by_query.is_empty() && by_peer.is_empty() && deadlines.is_empty()
        }
    }

    fn part() -> Wanted {
        Wanted::part("par").unwrap()
    }

    fn hits(forward: &Forward) -> usize {
        forward.values.iter().map(|value| value.records.len()).sum()
    }

    fn last_word(forward: &Forward) -> (u32, u32, u32, bool) {
        let last = forward.values.last().unwrap();
        assert!(last.last && last.records.is_empty() && forward.is_over);
        (last.asked.unwrap(), last.answered.unwrap(), last.timed_out.unwrap(), last.truncated.unwrap())
    }

    #[test]
    fn a_question_for_a_part_goes_to_all_under_a_new_id_and_answers_go_back() {
        let mut bed = Bed::new(2);
        let opened = bed.part(1, vec![7]);
        assert_eq!((opened.forward.to, hits(&opened.forward), opened.forward.is_over), (peer(1), 1, false));
        let query = opened.gossip.unwrap();
        assert_eq!((query.emitter_id, query.name.as_deref()), (me(), Some("par")));
        assert_ne!(query.query_id, ASKED_AS);
        let forward = bed.answer(100, &query, &[8, 9], true, 10).unwrap();
        assert_eq!((forward.id, hits(&forward), forward.is_over), (opened.id, 2, false));
        assert!(forward.values.iter().all(|value| value.query_id == ASKED_AS && !value.last));
        let forward = bed.answer(101, &query, &[], true, 20).unwrap();
        assert_eq!(last_word(&forward), (3, 3, 0, false));
        assert!(bed.is_spotless());
    }

    #[test]
    fn an_indexer_that_is_alone_answers_at_once() {
        let opened = Bed::new(0).part(1, vec![7]);
        assert!(opened.gossip.is_none());
        assert_eq!((hits(&opened.forward), last_word(&opened.forward)), (1, (1, 1, 0, false)));
    }

    #[test]
    fn who_is_looked_for_by_id_or_did_is_never_asked_of_all() {
        for wanted in [Wanted::Peer(peer(7)), Wanted::Did(keys(7).did()), Wanted::exactly("paris").unwrap()] {
            let mut bed = Bed::new(5);
            let held = bed.open(1, &wanted, vec![7], false).unwrap();
            assert!(held.gossip.is_none());
            assert_eq!((hits(&held.forward), last_word(&held.forward)), (1, (1, 1, 0, false)));
            let looked_up = bed.open(1, &wanted, vec![], true).unwrap();
            assert!(looked_up.forward.values.is_empty() && !looked_up.forward.is_over);
            let forward = bed.relayed.found(looked_up.id, &[Arc::new(record(7, 1, "paris"))], Mono::ZERO).unwrap();
            assert_eq!((hits(&forward), last_word(&forward)), (1, (1, 1, 0, false)));
            assert!(bed.is_spotless());
        }
    }

    #[test]
    fn g31_answers_are_taken_only_for_an_open_query_and_from_indexers_once() {
        let mut bed = Bed::new(2);
        let query = bed.part(1, vec![]).gossip.unwrap();
        let other = SearchQuery { query_id: ASKED_AS.to_owned(), ..query.clone() };
        assert!(bed.answer(100, &other, &[7], true, 1).is_none(), "the node's id is not that of the gossip");
        let of_node = SearchPeerResult { last: true, ..empty(&query.query_id) };
        assert!(bed.relayed.answered(&peer(100), false, of_node, Mono::ZERO).is_none(), "not an indexer");
        assert!(bed.answer(100, &query, &[7], false, 1).is_some());
        assert!(bed.answer(100, &query, &[8], true, 1).is_some(), "in several values");
        assert!(bed.answer(100, &query, &[9], true, 1).is_none(), "after its last one");
        assert_eq!(last_word(&bed.answer(101, &query, &[], true, 1).unwrap()), (3, 3, 0, false));
        assert!(bed.answer(101, &query, &[9], true, 1).is_none());
    }

    #[test]
    fn an_unexpected_indexer_is_heard_but_not_counted() {
        let mut bed = Bed::new(1);
        let query = bed.part(1, vec![]).gossip.unwrap();
        for n in 0..UNEXPECTED_MAX as u16 {
            let forward = bed.answer(200 + n, &query, &[7], true, 1).unwrap();
            assert!(hits(&forward) == 1 && !forward.is_over);
        }
        assert!(bed.answer(300, &query, &[7], true, 1).is_none(), "one too many");
        assert_eq!(last_word(&bed.answer(100, &query, &[], true, 1).unwrap()), (2, 2, 0, false));
    }

    #[test]
    fn silence_ends_it_at_three_seconds_exactly_and_says_who_is_missing() {
        let mut bed = Bed::new(3);
        let query = bed.part(1, vec![]).gossip.unwrap();
        assert!(bed.relayed.expire(Mono::from_millis(2999), 10).is_empty());
        bed.answer(100, &query, &[], true, 2999).unwrap();
        bed.answer(101, &query, &[], false, 4000).unwrap();
        assert_eq!(
            bed.relayed.next_deadline(),
            Some(Mono::from_millis(5999)),
            "an answer is a sign, an empty value none"
        );
        assert!(bed.relayed.expire(Mono::from_millis(5998), 10).is_empty());
        assert!(bed.answer(102, &query, &[7], true, 5999).is_none(), "late");
        let over = bed.relayed.expire(Mono::from_millis(5999), 10);
        assert_eq!((over.len(), last_word(&over[0])), (1, (4, 2, 2, false)));
        assert!(bed.is_spotless());
    }

    #[test]
    fn it_ends_before_the_node_gives_up_whatever_comes() {
        let mut bed = Bed::new(1);
        let query = bed.part(1, vec![]).gossip.unwrap();
        for second in 1..55 {
            assert!(bed.answer(100, &query, &[7], false, second * 1000).is_some());
        }
        assert!(bed.answer(100, &query, &[7], false, 55_000).is_none());
        assert_eq!(last_word(&bed.relayed.expire(Mono::from_secs(55), 1)[0]), (2, 1, 1, false));
        assert!(RELAY_IDLE < super::super::Settings::default().idle && RELAY_TOTAL < super::super::TOTAL);
    }

    #[test]
    fn four_searches_of_a_peer_are_open_and_the_fifth_is_refused() {
        let mut bed = Bed::new(1);
        let ids: Vec<_> = (0..4).map(|_| bed.part(1, vec![]).id).collect();
        let refused = bed.open(1, &part(), vec![], false).unwrap_err();
        assert_eq!((refused.refused, refused.retry_after), (RefusalCode::Busy, Some(3)));
        bed.part(2, vec![]);
        bed.relayed.close(ids[0]);
        bed.part(1, vec![]);
        bed.relayed.asker_gone(&peer(1));
        assert_eq!(bed.relayed.len(), 1);
        bed.relayed.asker_gone(&peer(2));
        assert!(bed.is_spotless());
    }

    #[test]
    fn a_thousand_searches_are_open_and_one_more_is_refused() {
        let mut bed = Bed::new(1);
        for n in 0..1000 {
            bed.part(n / 4, vec![]);
        }
        assert_eq!(bed.relayed.len(), 1000);
        assert_eq!(bed.open(999, &part(), vec![], false).unwrap_err().refused, RefusalCode::Busy);
        assert_eq!(bed.relayed.expire(Mono::from_secs(3), 10).len(), 10, "no more than it may");
        bed.part(999, vec![]);
        assert_eq!(bed.relayed.expire(Mono::from_secs(3), 2000).len(), 991);
    }

    #[test]
    fn a_request_without_a_good_query_id_is_refused() {
        let mut bed = Bed::new(1);
        let request = SearchPeerRequest { query_id: "a:b".to_owned(), ..part().request(QueryId::random(&mut rng())) };
        let (roll, mut rng) = (Arc::clone(&bed.roll), rng());
        let refused = bed.relayed.open(peer(1), &request, &part(), (vec![], false), roll, false, Mono::ZERO, &mut rng);
        assert_eq!(refused.unwrap_err().refused, RefusalCode::Invalid);
    }

    #[test]
    fn each_answerer_and_each_search_has_room_for_so_many_hits() {
        let mut bed = Bed::new(6);
        let query = bed.part(1, vec![]).gossip.unwrap();
        let many: Vec<_> = vec![7; 200];
        assert_eq!(hits(&bed.answer(100, &query, &many, false, 1).unwrap()), 200);
        assert_eq!(hits(&bed.answer(100, &query, &many, true, 1).unwrap()), 56, "256 of one");
        let mut all = 256;
        for from in 101..105 {
            all += hits(&bed.answer(from, &query, &[many.clone(), many.clone()].concat(), true, 1).unwrap());
        }
        assert_eq!(all, RELAYED_HITS_MAX);
        assert_eq!(last_word(&bed.answer(105, &query, &[7], true, 1).unwrap()), (7, 7, 0, true));
    }

    #[test]
    fn what_others_left_out_is_told() {
        let mut bed = Bed::new(1);
        let query = bed.part(1, vec![]).gossip.unwrap();
        let result = SearchPeerResult { truncated: Some(true), last: true, ..empty(&query.query_id) };
        let forward = bed.relayed.answered(&peer(100), true, result, Mono::ZERO).unwrap();
        assert_eq!(last_word(&forward), (2, 2, 0, true));
    }

    #[test]
    fn a_hit_without_a_record_is_not_handed_on() {
        let mut bed = Bed::new(1);
        let query = bed.part(1, vec![]).gossip.unwrap();
        let records = vec![SearchHit { record: None, ..hit(&record(7, 1, "paris")) }, hit(&record(8, 1, "paris"))];
        let result = SearchPeerResult { records, ..empty(&query.query_id) };
        let forward = bed.relayed.answered(&peer(100), true, result, Mono::ZERO).unwrap();
        assert_eq!(hits(&forward), 1);
    }

    proptest! {
        /// Whatever is opened, answered, closed or waited for: bounds hold and nothing leaks.
        #[test]
        fn relayed_searches_stay_within_their_bounds_and_leave_nothing(
            steps in proptest::collection::vec((0u8..5, 0u16..3, 0usize..6, any::<bool>(), 0u64..1500), 1..120),
        ) {
            let mut bed = Bed::new(3);
            let mut queries = Vec::<(RelayId, SearchQuery)>::new();
            let mut at = 0;
            for (what, n, which, last, gap) in steps {
                at += gap;
                match (what, queries.get(which).cloned()) {
                    (0 | 1, _) => {
                        let before = bed.relayed.by_peer.range((peer(n), 0)..=(peer(n), u64::MAX)).count();
                        let request = part().request(QueryId::random(&mut bed.rng));
                        let roll = Arc::clone(&bed.roll);
                        let now = Mono::from_millis(at);
                        let opened =
                            bed.relayed.open(peer(n), &request, &part(), (vec![], false), roll, last, now, &mut bed.rng);
                        prop_assert_eq!(opened.is_ok(), before < OPEN_PER_PEER_MAX);
                        queries.extend(opened.ok().map(|opened| (opened.id, opened.gossip.unwrap())));
                    }
                    (2, Some((_, query))) => {
                        if let Some(forward) = bed.answer(100 + n, &query, &[7], last, at) {
                            prop_assert!(hits(&forward) <= 1);
                        }
                    }
                    (3, Some((id, _))) => bed.relayed.close(id),
                    _ => {
                        for forward in bed.relayed.expire(Mono::from_millis(at), which) {
                            let (asked, answered, timed_out, _) = last_word(&forward);
                            prop_assert_eq!(asked, answered + timed_out);
                        }
                    }
                }
                let Relayed { open, by_query, by_peer, deadlines, .. } = &bed.relayed;
                prop_assert!(open.len() == by_query.len() && open.len() == by_peer.len() && open.len() == deadlines.len());
            }
            bed.relayed.expire(Mono::from_millis(at + 3000), 1000);
            prop_assert!(bed.is_spotless());
        }
    }
}
