//! The answers of an indexer to queries that come by gossip.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{HITS_MAX, QueryId, QueryIdError, Wanted, WantedError, empty, hit, split};
use crate::{
    behaviour::{WINDOW, Window},
    session::Registry,
    suggestions::KNOWN_MAX,
    time::{Mono, Now},
    wire::{SearchPeerResult, SearchQuery},
};

/// How long a query is remembered so that it is answered once; gossip brings copies within seconds.
const SEEN_FOR: Duration = Duration::from_secs(120);

/// Queries remembered: as many as one indexer may relay in a minute, eight times over.
const SEEN_MAX: usize = 8192;

/// How many queries an indexer answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswererSettings {
    /// Queries of one emitter in a minute, before the profile's factor: 50 a second, what 150 busy nodes ask for.
    pub queries_per_emitter: u32,
    /// Emitters whose queries are counted; beyond them a new one is answered when another one was silent for a minute.
    pub emitters_max: usize,
}

impl Default for AnswererSettings {
    fn default() -> Self {
        Self { queries_per_emitter: 3000, emitters_max: KNOWN_MAX }
    }
}

/// Why a query that came by gossip is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Ignored {
    /// It is our own.
    #[error("got our own query")]
    Own,
    /// It asks for answers to another than its author.
    #[error("got a query that names another emitter than its author")]
    NotTheAuthor,
    /// Its query id is none.
    #[error(transparent)]
    QueryId(#[from] QueryIdError),
    /// It asks for nothing that can be answered.
    #[error(transparent)]
    Wanted(#[from] WantedError),
    /// It was answered before.
    #[error("got a query again")]
    Repeated,
    /// Its emitter asks too much.
    #[error("got too many queries of one emitter in a minute")]
    TooMany,
}

impl Ignored {
    /// Its author made it so: gossip may reject it. Otherwise it is ignored and nobody is blamed.
    #[must_use]
    pub fn is_authors_fault(&self) -> bool {
        matches!(self, Self::NotTheAuthor | Self::QueryId(_) | Self::Wanted(_))
    }
}

/// A query to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Where the answer goes.
    pub emitter: PeerId,
    /// As the emitter wrote it.
    pub query_id: String,
    /// What is looked for.
    pub wanted: Wanted,
}

impl Question {
    /// The answer from the sessions, each value within the limit, the last one marked; an empty one when nothing matches.
    #[must_use]
    pub fn answers(&self, registry: &Registry, now: Now) -> Vec<SearchPeerResult> {
        let (held, is_truncated) = self.wanted.held(registry, now, HITS_MAX);
        let mut values = split(&self.query_id, held.iter().map(|record| hit(record)).collect());
        if values.is_empty() {
            values.push(empty(&self.query_id));
        }
        if let Some(last) = values.last_mut() {
            last.last = true;
            last.truncated = is_truncated.then_some(true);
        }
        values
    }
}

/// The door for queries that come by gossip: each is answered once, and to its author alone.
#[derive(Debug)]
pub struct Answerer {
    me: PeerId,
    limit: u32,
    emitters_max: usize,
    seen: HashSet<(PeerId, QueryId)>,
    seen_order: VecDeque<(Mono, (PeerId, QueryId))>,
    emitters: HashMap<PeerId, (Window, Mono)>,
    emitters_by_age: BTreeSet<(Mono, PeerId)>,
}

impl Answerer {
    /// Nothing seen, at the indexer `me`; the limit times the profile's `factor`.
    #[must_use]
    pub fn new(me: PeerId, settings: &AnswererSettings, factor: u32) -> Self {
        Self {
            me,
            limit: settings.queries_per_emitter.saturating_mul(factor).min(u16::MAX.into()),
            emitters_max: settings.emitters_max.max(1),
            seen: HashSet::new(),
            seen_order: VecDeque::new(),
            emitters: HashMap::new(),
            emitters_by_age: BTreeSet::new(),
        }
    }

    /// Takes a query from gossip, whose author's signature gossip verified.
    ///
    /// # Errors
    /// When it is not to be answered.
    pub fn take(&mut self, author: PeerId, query: &SearchQuery, now: Mono) -> Result<Question, Ignored> {
        if author == self.me {
            return Err(Ignored::Own);
        }
        if query.emitter_id != author {
            return Err(Ignored::NotTheAuthor);
        }
        let id: QueryId = query.query_id.parse()?;
        let wanted = Wanted::of_query(query)?;
        self.forget(now);
        if self.seen.contains(&(author, id)) {
            return Err(Ignored::Repeated);
        }
        if !self.count(author, now) {
            return Err(Ignored::TooMany);
        }
        self.seen.insert((author, id));
        self.seen_order.push_back((now, (author, id)));
        Ok(Question { emitter: author, query_id: query.query_id.clone(), wanted })
    }

    fn forget(&mut self, now: Mono) {
        while let Some((_, query)) = self
            .seen_order
            .front()
            .copied()
            .filter(|(at, _)| now >= *at + SEEN_FOR || self.seen_order.len() >= SEEN_MAX)
        {
            self.seen_order.pop_front();
            self.seen.remove(&query);
        }
    }

    /// Counts a query of an emitter; whether it is within the limit.
    fn count(&mut self, emitter: PeerId, now: Mono) -> bool {
        if !self.emitters.contains_key(&emitter) && self.emitters.len() >= self.emitters_max {
            let idle = |(seen, _): &(Mono, PeerId)| now.since(*seen) >= WINDOW;
            let Some((_, oldest)) = self.emitters_by_age.first().copied().filter(idle) else { return false };
            self.emitters_by_age.pop_first();
            self.emitters.remove(&oldest);
        }
        let (window, seen) = self.emitters.entry(emitter).or_default();
        self.emitters_by_age.remove(&(*seen, emitter));
        self.emitters_by_age.insert((now, emitter));
        *seen = now;
        if window.count(now) >= self.limit {
            return false;
        }
        window.add();
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        search::tests::{now, peer, record, rng},
        suggestions::IndexerBook,
        trace::Traceparent,
        wire::{Heartbeat, Protocol},
    };

    fn answerer(settings: &AnswererSettings) -> Answerer {
        Answerer::new(peer(50), settings, 1)
    }

    fn query(emitter: u16, id: u128) -> SearchQuery {
        SearchQuery {
            query_id: QueryId(id).to_string(),
            peer_id: None,
            did: None,
            name: Some("par".to_owned()),
            emitter_id: peer(emitter),
            traceparent: Traceparent::Absent,
        }
    }

    #[test]
    fn g31_only_the_author_of_a_query_is_answered() {
        let mut answerer = answerer(&AnswererSettings::default());
        let ignored = answerer.take(peer(1), &query(2, 1), Mono::ZERO).unwrap_err();
        assert_eq!((ignored, ignored.is_authors_fault()), (Ignored::NotTheAuthor, true));
        let question = answerer.take(peer(1), &query(1, 1), Mono::ZERO).unwrap();
        assert_eq!((question.emitter, question.query_id), (peer(1), query(1, 1).query_id));
    }

    #[test]
    fn a_query_is_answered_once() {
        let mut answerer = answerer(&AnswererSettings::default());
        assert!(answerer.take(peer(1), &query(1, 1), Mono::ZERO).is_ok());
        let again = answerer.take(peer(1), &query(1, 1), Mono::from_millis(119_999)).unwrap_err();
        assert_eq!((again, again.is_authors_fault()), (Ignored::Repeated, false));
        assert!(answerer.take(peer(2), &query(2, 1), Mono::ZERO).is_ok(), "the same id of another is another query");
        assert!(answerer.take(peer(1), &query(1, 1), Mono::from_secs(120)).is_ok());
    }

    #[test]
    fn what_is_no_question_is_ignored() {
        let mut answerer = answerer(&AnswererSettings::default());
        assert_eq!(answerer.take(peer(50), &query(50, 1), Mono::ZERO), Err(Ignored::Own));
        let no_id = SearchQuery { query_id: "a:b".to_owned(), ..query(1, 1) };
        assert_eq!(answerer.take(peer(1), &no_id, Mono::ZERO), Err(Ignored::QueryId(QueryIdError)));
        let nothing = SearchQuery { name: None, ..query(1, 1) };
        assert_eq!(answerer.take(peer(1), &nothing, Mono::ZERO), Err(Ignored::Wanted(WantedError::NotOne(0))));
        assert!(answerer.seen.is_empty() && answerer.emitters.is_empty());
    }

    #[test]
    fn an_emitter_is_answered_up_to_its_limit_and_others_go_on() {
        let mut answerer = answerer(&AnswererSettings { queries_per_emitter: 5, ..AnswererSettings::default() });
        for n in 0..5 {
            assert!(answerer.take(peer(1), &query(1, n), Mono::ZERO).is_ok());
        }
        let ignored = answerer.take(peer(1), &query(1, 5), Mono::ZERO).unwrap_err();
        assert_eq!((ignored, ignored.is_authors_fault()), (Ignored::TooMany, false));
        assert!(answerer.take(peer(2), &query(2, 5), Mono::ZERO).is_ok());
        assert!(answerer.take(peer(1), &query(1, 6), Mono::from_secs(60)).is_ok());
    }

    #[test]
    fn what_is_remembered_of_queries_is_bounded() {
        let settings = AnswererSettings { emitters_max: 10, queries_per_emitter: 60_000 };
        let mut answerer = answerer(&settings);
        for n in 0..20_000 {
            assert!(answerer.take(peer(1), &query(1, n), Mono::ZERO).is_ok());
            assert!(answerer.seen.len() <= SEEN_MAX && answerer.seen.len() == answerer.seen_order.len());
        }
        for n in 2..=10 {
            assert!(answerer.take(peer(n), &query(n, 0), Mono::ZERO).is_ok());
        }
        assert_eq!(answerer.take(peer(11), &query(11, 0), Mono::from_secs(59)), Err(Ignored::TooMany));
        assert!(answerer.take(peer(11), &query(11, 0), Mono::from_secs(60)).is_ok());
        assert_eq!((answerer.emitters.len(), answerer.emitters_by_age.len()), (10, 10));
    }

    /// A registry with a session for each peer from 1 to `members`, all named alike.
    fn registry(members: u16) -> Registry {
        let mut registry = Registry::new(u32::from(members) + 1, now(0).wall);
        let book = IndexerBook::new(peer(50), false, Mono::ZERO);
        for n in 1..=members {
            let heartbeat = Heartbeat {
                seq: 1,
                name: String::new(),
                did: String::new(),
                peer_id: peer(n),
                timestamp: 0,
                need: 0,
                record: None,
                values: None,
                challenges: Vec::new(),
                challenge_did: None,
                referent: true,
                probe: false,
                presence: None,
                traceparent: Traceparent::Absent,
            };
            registry.beat(peer(n), &heartbeat, false, &book, now(0), &mut rng()).unwrap();
            registry.record_verified(&peer(n), record(n, 1, "paris"), None, now(0)).unwrap();
        }
        registry
    }

    fn question(wanted: Wanted) -> Question {
        Question { emitter: peer(1), query_id: QueryId(1).to_string(), wanted }
    }

    #[test]
    fn every_query_is_answered_empty_included_and_the_last_value_says_so() {
        let registry = registry(3);
        let answers = question(Wanted::part("lon").unwrap()).answers(&registry, now(1));
        assert_eq!((answers.len(), answers[0].records.len(), answers[0].last), (1, 0, true));
        let answers = question(Wanted::part("par").unwrap()).answers(&registry, now(1));
        assert_eq!((answers.len(), answers[0].records.len(), answers[0].truncated), (1, 3, None));
        let answers = question(Wanted::Peer(peer(2))).answers(&registry, now(1));
        assert_eq!((answers[0].records.len(), answers[0].records[0].peer_id), (1, peer(2)));
        let answers = question(Wanted::exactly("PARIS").unwrap()).answers(&registry, now(1));
        assert_eq!(answers[0].records.len(), 3);
    }

    #[test]
    fn a_long_answer_comes_in_several_values_and_is_cut_at_the_limit() {
        for (members, expected, is_truncated) in [(256, 256, None), (257, 256, Some(true))] {
            let answers = question(Wanted::part("par").unwrap()).answers(&registry(members), now(1));
            assert!(answers.len() > 1);
            assert_eq!(answers.iter().map(|value| value.records.len()).sum::<usize>(), expected);
            let (last, before) = answers.split_last().unwrap();
            assert!(last.last && last.truncated == is_truncated && before.iter().all(|value| !value.last));
            for value in &answers {
                let bytes = serde_json::to_string(value).unwrap().len();
                assert!(bytes <= Protocol::SearchResponse.value_bytes_max());
            }
        }
        let named = question(Wanted::exactly("paris").unwrap()).answers(&registry(257), now(1));
        assert_eq!(named.last().unwrap().truncated, Some(true));
    }
}
