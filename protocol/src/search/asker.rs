//! The searches of a node: whom it asks, what it takes, and when it has heard enough.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use libp2p_identity::PeerId;
use rand::Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::{HITS_MAX, OPEN_MAX, QueryId, Settings, Tally, Wanted};
use crate::{
    record::PeerRecord,
    signed::{Claimed, Verified},
    time::Mono,
    wire::SearchPeerRequest,
};

/// Indexers that a node asks at once.
pub const ASKED_MAX: usize = 3;

/// A search ends after so long in any case.
pub const TOTAL: Duration = Duration::from_secs(60);

/// Characters of the user in a search's local key.
pub const USER_CHARS_MAX: usize = 256;

/// The local name of a search: `user:uuid`. It never leaves the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    user: String,
    id: Uuid,
}

/// A text is no local name of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not of the form.
    #[error("got no search key, expected user:uuid")]
    Form,
    /// The user's name is too long.
    #[error("got a user of {got} characters, expected at most {USER_CHARS_MAX}")]
    User {
        /// Its characters.
        got: usize,
    },
}

impl Key {
    /// The search `id` of a user; an empty user stands for a request that replaces nobody's.
    ///
    /// # Errors
    /// When the user's name is too long to be kept.
    pub fn new(user: &str, id: Uuid) -> Result<Self, KeyError> {
        let got = user.chars().count();
        if got > USER_CHARS_MAX {
            return Err(KeyError::User { got });
        }
        Ok(Self { user: user.to_owned(), id })
    }

    /// The user, which may contain colons.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (user, id) = text.rsplit_once(':').ok_or(KeyError::Form)?;
        Self::new(user, Uuid::try_parse(id).map_err(|_| KeyError::Form)?)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.user, self.id)
    }
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Everybody asked said their last word.
    Complete,
    /// Nothing came for [`Settings::idle`].
    Idle,
    /// 60 s are over.
    TimedOut,
    /// More peers match than a search may find.
    Limit,
    /// Whoever wanted it closed it.
    Closed,
    /// A newer one of the same user took its place.
    Replaced,
    /// Those who had not said their last word are gone.
    Lost,
}

/// A search that ended, and how complete it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Which one.
    #[serde(serialize_with = "as_text")]
    pub key: Key,
    /// Why.
    pub end: End,
    /// Peers found.
    pub hits: usize,
    /// The widest view that a member reported; of several equally wide ones that which heard most. Views overlap, so they
    /// are not added up.
    pub tally: Tally,
    /// Members of the pool that were asked.
    pub members_asked: usize,
    /// Members that said their last word.
    pub members_answered: usize,
}

fn as_text<S: serde::Serializer>(key: &Key, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(key)
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { asked, answered, timed_out, truncated } = self.tally;
        write!(f, "answered {answered} of {asked} indexers, {timed_out} timed out")?;
        if truncated { f.write_str(", more match than are shown") } else { Ok(()) }
    }
}

/// Why a search cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SearchError {
    /// Too many are open.
    #[error("got one search more than the {OPEN_MAX} that may be open")]
    Busy,
    /// There is nobody to ask.
    #[error("got no indexer to ask")]
    Nobody,
}

/// A search that began.
#[derive(Clone, Debug)]
pub struct Started {
    /// What to send to whom; each has its own query id.
    pub asks: Vec<(PeerId, SearchPeerRequest)>,
    /// The older search of the same user that it replaced.
    pub replaced: Option<Ended>,
}

/// What came of an answer.
#[derive(Clone, Debug)]
pub struct Update {
    /// Of which search.
    pub key: Key,
    /// Peers to show: those not seen before in this search, or with a newer record.
    pub fresh: Vec<Arc<Verified<PeerRecord>>>,
    /// Records that do not answer the question; dropped, to be counted.
    pub mismatched: usize,
    /// The search ended with it.
    pub ended: Option<Ended>,
}

#[derive(Debug)]
struct Asked {
    peer: PeerId,
    query: QueryId,
    is_over: bool,
    tally: Option<Tally>,
}

#[derive(Debug)]
struct Search {
    key: Key,
    wanted: Wanted,
    asked: Vec<Asked>,
    is_dht_open: bool,
    hits: HashMap<PeerId, u64>,
    started: Mono,
    deadline: Mono,
    is_over_limit: bool,
}

impl Search {
    /// Takes in records; what is to be shown of them, and how many did not answer the question.
    fn merge(
        &mut self,
        records: impl IntoIterator<Item = Verified<PeerRecord>>,
    ) -> (Vec<Arc<Verified<PeerRecord>>>, usize, bool) {
        let (mut fresh, mut mismatched, mut has_matches) = (Vec::new(), 0, false);
        for record in records {
            if !self.wanted.matches(&record) {
                mismatched += 1;
                continue;
            }
            has_matches = true;
            match self.hits.get(&record.peer_id) {
                Some(seq) if record.seq <= *seq => continue,
                None if self.hits.len() >= HITS_MAX => {
                    self.is_over_limit = true;
                    break;
                }
                _ => self.hits.insert(record.peer_id, record.seq),
            };
            fresh.push(Arc::new(record));
        }
        (fresh, mismatched, has_matches)
    }

    /// Why it is over, if it is, apart from time.
    fn end(&self) -> Option<End> {
        if self.is_over_limit {
            return Some(End::Limit);
        }
        if self.is_dht_open || self.asked.iter().any(|asked| !asked.is_over) {
            return None;
        }
        let is_complete = self.asked.iter().all(|asked| asked.tally.is_some());
        Some(if is_complete { End::Complete } else { End::Lost })
    }

    fn timed_end(&self, now: Mono) -> Option<End> {
        let end = if now >= self.started + TOTAL { End::TimedOut } else { End::Idle };
        (now >= self.deadline).then_some(end)
    }

    fn ended(self, end: End) -> Ended {
        let tallies = || self.asked.iter().filter_map(|asked| asked.tally);
        let members_answered = tallies().count();
        // Without any view the members asked are all that is known of the network.
        let members = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let unknown = Tally {
            asked: members(self.asked.len()),
            answered: 0,
            timed_out: members(self.asked.len()),
            truncated: false,
        };
        let mut tally = tallies().max_by_key(|tally| (tally.asked, tally.answered)).unwrap_or(unknown);
        tally.truncated = self.is_over_limit || tallies().any(|tally| tally.truncated);
        Ended { end, hits: self.hits.len(), tally, members_asked: self.asked.len(), members_answered, key: self.key }
    }
}

/// The searches of a node: one kind of them.
///
/// Bounded by [`OPEN_MAX`] searches of [`HITS_MAX`] hits. A restart forgets them.
#[derive(Debug, Default)]
pub struct Searches {
    settings: Settings,
    open: HashMap<Key, Search>,
    by_user: HashMap<String, Key>,
    by_query: HashMap<QueryId, Key>,
    deadlines: BTreeSet<(Mono, Key)>,
}

impl Searches {
    /// None open.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// New rules, for what comes from now on: who waits already waits as long as it was told.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Begins a search that asks the first three of `members`, and the DHT or our own sessions if `has_own_source`, whose
    /// hits come by [`Searches::found`]. It replaces the one that this very user has open.
    ///
    /// # Errors
    /// When too many are open, or there is nobody to ask.
    pub fn start(
        &mut self,
        key: Key,
        wanted: Wanted,
        members: &[PeerId],
        has_own_source: bool,
        now: Mono,
        rng: &mut impl Rng,
    ) -> Result<Started, SearchError> {
        if members.is_empty() && !has_own_source {
            return Err(SearchError::Nobody);
        }
        // Without a user each request stands alone; the same key twice is the same request.
        let older = self.by_user.get(&key.user).cloned().unwrap_or_else(|| key.clone());
        let replaced = self.end(&older, End::Replaced);
        if self.open.len() >= OPEN_MAX {
            return Err(SearchError::Busy);
        }
        let ask = |peer: &PeerId| Asked { peer: *peer, query: QueryId::random(rng), is_over: false, tally: None };
        let asked: Vec<_> = members.iter().take(ASKED_MAX).map(ask).collect();
        let asks = asked.iter().map(|asked| (asked.peer, wanted.request(asked.query))).collect();
        self.by_query.extend(asked.iter().map(|asked| (asked.query, key.clone())));
        if !key.user.is_empty() {
            self.by_user.insert(key.user.clone(), key.clone());
        }
        let deadline = now + self.settings.idle;
        self.deadlines.insert((deadline, key.clone()));
        let search = Search {
            key: key.clone(),
            wanted,
            asked,
            is_dht_open: has_own_source,
            hits: HashMap::new(),
            started: now,
            deadline,
            is_over_limit: false,
        };
        self.open.insert(key, search);
        Ok(Started { asks, replaced })
    }

    /// An answer with this query id from this peer would be taken: to be asked before anything in it is verified.
    #[must_use]
    pub fn is_open(&self, from: &PeerId, query_id: &str) -> bool {
        self.asked_by(from, query_id).is_some()
    }

    /// A record that claims this would be shown: to be asked before it is verified, since members know the same peers.
    #[must_use]
    pub fn is_news(&self, from: &PeerId, query_id: &str, claimed: &Claimed) -> bool {
        let search = self.asked_by(from, query_id).and_then(|(key, _)| self.open.get(&key));
        search.is_some_and(|search| search.hits.get(&claimed.peer_id()).is_none_or(|seq| claimed.seq() > *seq))
    }

    /// Takes the verified records of an answer, and its tally if it is the last one of its sender.
    ///
    /// Nothing comes of an answer to no open question or from somebody else than the one asked.
    pub fn answered(
        &mut self,
        from: &PeerId,
        query_id: &str,
        records: impl IntoIterator<Item = Verified<PeerRecord>>,
        last: Option<Tally>,
        now: Mono,
    ) -> Option<Update> {
        let (key, at) = self.asked_by(from, query_id)?;
        self.update(&key, records, now, |search| {
            if last.is_some() {
                search.asked[at].is_over = true;
                search.asked[at].tally = last;
            }
        })
    }

    /// Takes verified records that were found here or in the DHT; `is_last` when no more come from there.
    pub fn found(
        &mut self,
        key: &Key,
        records: impl IntoIterator<Item = Verified<PeerRecord>>,
        is_last: bool,
        now: Mono,
    ) -> Option<Update> {
        self.update(key, records, now, |search| search.is_dht_open &= !is_last)
    }

    /// A member that was asked is gone, or refused to answer.
    pub fn lost(&mut self, from: &PeerId, query_id: &str, now: Mono) -> Option<Update> {
        let (key, at) = self.asked_by(from, query_id)?;
        self.update(&key, [], now, |search| search.asked[at].is_over = true)
    }

    /// Ends a search on behalf of whoever wanted it.
    pub fn close(&mut self, key: &Key) -> Option<Ended> {
        self.end(key, End::Closed)
    }

    /// Ends the one that a user has open.
    pub fn close_of(&mut self, user: &str) -> Option<Ended> {
        let key = self.by_user.get(user)?.clone();
        self.end(&key, End::Closed)
    }

    /// Ends searches whose time is over, at most `at_most`.
    pub fn expire(&mut self, now: Mono, at_most: usize) -> Vec<Ended> {
        let mut ended = Vec::new();
        while ended.len() < at_most {
            let Some((_, key)) = self.deadlines.first().filter(|(due, _)| *due <= now).cloned() else { break };
            let end = self.open.get(&key).and_then(|search| search.timed_end(now)).unwrap_or(End::Idle);
            ended.extend(self.end(&key, end));
        }
        ended
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

    fn asked_by(&self, from: &PeerId, query_id: &str) -> Option<(Key, usize)> {
        let query = query_id.parse().ok()?;
        let key = self.by_query.get(&query)?;
        let at = self.open.get(key)?.asked.iter().position(|asked| asked.query == query)?;
        let asked = &self.open.get(key)?.asked[at];
        (asked.peer == *from && !asked.is_over).then(|| (key.clone(), at))
    }

    fn update(
        &mut self,
        key: &Key,
        records: impl IntoIterator<Item = Verified<PeerRecord>>,
        now: Mono,
        note: impl FnOnce(&mut Search),
    ) -> Option<Update> {
        let search = self.open.get_mut(key)?;
        let mut update = Update { key: key.clone(), fresh: Vec::new(), mismatched: 0, ended: None };
        if let Some(end) = search.timed_end(now) {
            update.ended = self.end(key, end);
            return Some(update);
        }
        note(search);
        let has_matches;
        (update.fresh, update.mismatched, has_matches) = search.merge(records);
        if let Some(end) = search.end() {
            update.ended = self.end(key, end);
        } else if has_matches {
            let later = (now + self.settings.idle).min(search.started + TOTAL);
            let before = std::mem::replace(&mut search.deadline, later);
            self.deadlines.remove(&(before, key.clone()));
            self.deadlines.insert((later, key.clone()));
        }
        Some(update)
    }

    fn end(&mut self, key: &Key, end: End) -> Option<Ended> {
        let search = self.open.remove(key)?;
        self.deadlines.remove(&(search.deadline, key.clone()));
        for asked in &search.asked {
            self.by_query.remove(&asked.query);
        }
        if self.by_user.get(&key.user) == Some(key) {
            self.by_user.remove(&key.user);
        }
        Some(search.ended(end))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rand::rngs::StdRng;

    use super::*;
    use crate::search::tests::{peer, record, rng};

    fn key(user: &str, n: u128) -> Key {
        Key::new(user, Uuid::from_u128(n)).unwrap()
    }

    fn part() -> Wanted {
        Wanted::part("par").unwrap()
    }

    fn tally(asked: u32, answered: u32) -> Tally {
        Tally { asked, answered, timed_out: asked - answered, truncated: false }
    }

    const ONE: Tally = Tally { asked: 1, answered: 1, timed_out: 0, truncated: false };

    /// Searches with their chance; one of `members` members that began at zero.
    struct Bed {
        searches: Searches,
        rng: StdRng,
        key: Key,
        queries: Vec<String>,
    }

    impl Bed {
        fn new(members: u16) -> Self {
            let mut bed = Self {
                searches: Searches::new(Settings::default()),
                rng: rng(),
                key: key("a", 1),
                queries: Vec::new(),
            };
            let started = bed.start(&bed.key.clone(), members, 0).unwrap();
            bed.queries = started.asks.into_iter().map(|(_, request)| request.query_id).collect();
            bed
        }

        fn start(&mut self, key: &Key, members: u16, at: u64) -> Result<Started, SearchError> {
            let members: Vec<_> = (0..members).map(|n| peer(100 + n)).collect();
            self.searches.start(key.clone(), part(), &members, false, Mono::from_secs(at), &mut self.rng)
        }

        /// An answer of the member at this place, at this millisecond.
        fn answer(
            &mut self,
            member: u16,
            records: Vec<Verified<PeerRecord>>,
            last: Option<Tally>,
            at: u64,
        ) -> Option<Update> {
            let query = self.queries[usize::from(member)].clone();
            self.searches.answered(&peer(100 + member), &query, records, last, Mono::from_millis(at))
        }

        fn is_spotless(&self) -> bool {
            let Searches { open, by_user, by_query, deadlines, settings: _ } = &self.searches;
            open.is_empty() && by_user.is_empty() && by_query.is_empty() && deadlines.is_empty()
        }
    }

    fn names(update: &Update) -> Vec<(&str, u64)> {
        update.fresh.iter().map(|record| (record.name.as_str(), record.seq)).collect()
    }

    #[test]
    fn three_members_are_asked_each_with_its_own_query() {
        let mut bed = Bed::new(5);
        let started = bed.start(&key("b", 1), 5, 0).unwrap();
        let peers: Vec<_> = started.asks.iter().map(|(peer, _)| *peer).collect();
        assert_eq!(peers, [peer(100), peer(101), peer(102)]);
        assert!(started.asks.iter().all(|(_, request)| request.name.as_deref() == Some("par")));
        bed.queries.extend(started.asks.into_iter().map(|(_, request)| request.query_id));
        assert_eq!(bed.queries.iter().collect::<BTreeSet<_>>().len(), 6);
        let text = bed.queries.concat();
        assert!(!text.contains(&Uuid::from_u128(1).simple().to_string()), "the local key never leaves the node");
    }

    #[test]
    fn answers_are_merged_and_the_newer_record_wins() {
        let mut bed = Bed::new(2);
        let first = bed.answer(0, vec![record(1, 1, "paris"), record(2, 1, "Parma")], None, 10).unwrap();
        assert_eq!(names(&first), [("paris", 1), ("Parma", 1)]);
        let again = bed.answer(1, vec![record(1, 1, "paris"), record(2, 2, "Parma"), record(3, 1, "par")], None, 20);
        assert_eq!(names(&again.unwrap()), [("Parma", 2), ("par", 1)]);
        let older = bed.answer(0, vec![record(2, 1, "Parma")], Some(tally(9, 7)), 30).unwrap();
        assert!(older.fresh.is_empty() && older.ended.is_none());
        let ended = bed.answer(1, vec![], Some(tally(8, 8)), 40).unwrap().ended.unwrap();
        assert_eq!((ended.end, ended.hits, ended.members_answered), (End::Complete, 3, 2));
        assert_eq!(ended.to_string(), "answered 7 of 9 indexers, 2 timed out", "the widest view");
        assert!(bed.is_spotless());
    }

    #[test]
    fn g31_results_are_taken_only_for_an_open_query_and_from_whom_it_went_to() {
        let mut bed = Bed::new(2);
        let hit = || vec![record(1, 1, "paris")];
        let at = Mono::from_millis(1);
        let (first, second) = (bed.queries[0].clone(), bed.queries[1].clone());
        assert!(bed.searches.answered(&peer(101), &first, hit(), None, at).is_none(), "another member's query");
        assert!(bed.searches.answered(&peer(7), &first, hit(), None, at).is_none());
        assert!(bed.searches.answered(&peer(100), &"0".repeat(32), hit(), None, at).is_none());
        assert!(bed.searches.answered(&peer(100), "a:uuid", hit(), None, at).is_none());
        assert!(bed.searches.is_open(&peer(101), &second) && !bed.searches.is_open(&peer(100), &second));
        assert!(bed.answer(0, vec![], Some(ONE), 2).is_some());
        assert!(bed.answer(0, hit(), None, 3).is_none(), "after its last word");
        assert!(!bed.searches.is_open(&peer(100), &first));
        assert_eq!(bed.searches.close(&bed.key.clone()).unwrap().hits, 0);
        assert!(bed.answer(1, hit(), None, 4).is_none(), "after its end");
    }

    #[test]
    fn g31_a_user_replaces_its_own_search_and_nobody_elses() {
        let mut bed = Bed::new(1);
        for user in ["a:b", "b", ":a", "A", ""] {
            assert!(bed.start(&key(user, 2), 1, 0).unwrap().replaced.is_none(), "{user}");
        }
        let replaced = bed.start(&key("a", 2), 1, 0).unwrap().replaced.unwrap();
        assert_eq!((replaced.end, replaced.key), (End::Replaced, key("a", 1)));
        assert!(
            bed.answer(0, vec![record(1, 1, "paris")], None, 1).is_none(),
            "late results of the old one are dropped"
        );
        assert_eq!(bed.searches.len(), 6);
        assert_eq!(bed.searches.close_of("a:b").unwrap().key, key("a:b", 2));
        assert_eq!(bed.searches.close_of("a").unwrap().key, key("a", 2));
        assert_eq!(bed.searches.close_of("a"), None);
    }

    #[test]
    fn without_a_user_no_search_replaces_another() {
        let mut bed = Bed::new(1);
        for n in 1..=3 {
            assert!(bed.start(&key("", n), 1, 0).unwrap().replaced.is_none());
        }
        assert_eq!(bed.searches.len(), 4);
        assert!(bed.searches.close_of("").is_none());
    }

    #[test]
    fn a_key_is_read_with_a_user_that_has_colons() {
        let check = |user: &str| {
            let key = key(user, 5);
            assert_eq!((key.to_string().parse(), key.user()), (Ok(key.clone()), user));
        };
        for user in ["", "a", "a:b", ":", "cli:4711"] {
            check(user);
        }
        assert_eq!("a".parse::<Key>(), Err(KeyError::Form));
        assert_eq!("a:b".parse::<Key>(), Err(KeyError::Form));
        check(&"x".repeat(USER_CHARS_MAX));
        let long = Key::new(&"x".repeat(USER_CHARS_MAX + 1), Uuid::nil());
        assert_eq!(long, Err(KeyError::User { got: USER_CHARS_MAX + 1 }));
    }

    #[test]
    fn silence_ends_a_search_at_five_seconds_exactly_and_each_result_starts_them_anew() {
        let mut bed = Bed::new(2);
        assert!(bed.searches.expire(Mono::from_millis(4999), 10).is_empty());
        bed.answer(0, vec![record(1, 1, "paris")], None, 4999).unwrap();
        assert!(bed.searches.expire(Mono::from_millis(9998), 10).is_empty());
        // A last word without results is none, and so is what does not match.
        bed.answer(0, vec![], Some(tally(3, 3)), 9000).unwrap();
        bed.answer(1, vec![record(2, 1, "london")], None, 9000).unwrap();
        assert_eq!(bed.searches.next_deadline(), Some(Mono::from_millis(9999)));
        let ended = bed.searches.expire(Mono::from_millis(9999), 10).remove(0);
        assert_eq!((ended.end, ended.hits, ended.members_asked, ended.members_answered), (End::Idle, 1, 2, 1));
        assert_eq!(ended.to_string(), "answered 3 of 3 indexers, 0 timed out");
        assert!(bed.is_spotless());
    }

    #[test]
    fn an_answer_after_the_end_is_late_even_if_nobody_looked_at_the_clock() {
        let mut bed = Bed::new(1);
        let late = bed.answer(0, vec![record(1, 1, "paris")], Some(ONE), 5000).unwrap();
        assert_eq!((late.fresh.len(), late.ended.unwrap().end), (0, End::Idle));
    }

    #[test]
    fn a_search_ends_after_a_minute_whatever_comes() {
        let mut bed = Bed::new(1);
        for second in 1..60 {
            let update = bed.answer(0, vec![record(1, second, "paris")], None, second * 1000).unwrap();
            assert!(update.ended.is_none());
        }
        let ended = bed.answer(0, vec![record(1, 99, "paris")], None, 60_000).unwrap().ended.unwrap();
        assert_eq!((ended.end, ended.to_string().as_str()), (End::TimedOut, "answered 0 of 1 indexers, 1 timed out"));
    }

    #[test]
    fn two_hundred_and_fifty_six_peers_are_found_and_one_more_ends_it() {
        let mut bed = Bed::new(1);
        let many: Vec<_> = (0..256).map(|n| record(n, 1, "paris")).collect();
        let update = bed.answer(0, many, None, 1).unwrap();
        assert!(update.fresh.len() == 256 && update.ended.is_none());
        let newer = bed.answer(0, vec![record(3, 2, "paris")], None, 2).unwrap();
        assert!(newer.fresh.len() == 1 && newer.ended.is_none(), "a newer record is no further peer");
        let update = bed.answer(0, vec![record(300, 1, "paris"), record(301, 1, "paris")], None, 3).unwrap();
        let ended = update.ended.unwrap();
        assert_eq!((update.fresh.len(), ended.end, ended.hits, ended.tally.truncated), (0, End::Limit, 256, true));
        assert!(bed.is_spotless());
    }

    #[test]
    fn a_thousand_searches_are_open_and_one_more_is_refused() {
        let mut bed = Bed::new(1);
        for n in 1..OPEN_MAX as u128 {
            bed.start(&key("", n), 1, 0).unwrap();
        }
        assert_eq!((bed.searches.len(), bed.start(&key("b", 1), 1, 0).unwrap_err()), (OPEN_MAX, SearchError::Busy));
        assert!(bed.start(&key("a", 2), 1, 0).unwrap().replaced.is_some(), "whoever has one may replace it");
        assert_eq!(bed.searches.expire(Mono::from_secs(5), 10).len(), 10, "no more than it may");
        assert_eq!(bed.searches.expire(Mono::from_secs(5), 2000).len(), OPEN_MAX - 10);
        assert!(bed.is_spotless());
    }

    #[test]
    fn g36_one_bad_answer_fails_nothing() {
        let mut bed = Bed::new(3);
        let update = bed.answer(0, vec![record(1, 1, "london"), record(2, 1, "paris")], Some(ONE), 1).unwrap();
        assert_eq!((names(&update), update.mismatched), (vec![("paris", 1)], 1));
        assert!(bed.answer(1, vec![], Some(ONE), 2).unwrap().ended.is_none(), "not found there is not the end");
        let update = bed.answer(2, vec![record(3, 1, "parma")], Some(ONE), 3).unwrap();
        assert_eq!(names(&update), [("parma", 1)]);
        assert_eq!(update.ended.unwrap().end, End::Complete);
    }

    #[test]
    fn what_is_known_already_need_not_be_verified_again() {
        let mut bed = Bed::new(2);
        bed.answer(0, vec![record(1, 5, "paris")], None, 1).unwrap();
        let query = bed.queries[1].clone();
        let is_news = |bed: &Bed, from, n, seq| {
            let claimed = Claimed::peek(record(n, seq, "paris").text(), 16_384).unwrap();
            bed.searches.is_news(&peer(from), &query, &claimed)
        };
        for (n, seq, expected) in [(1, 4, false), (1, 5, false), (1, 6, true), (2, 1, true)] {
            assert_eq!(is_news(&bed, 101, n, seq), expected);
        }
        assert!(!is_news(&bed, 100, 2, 1), "not whom that query went to");
    }

    #[test]
    fn g43_a_question_tells_what_is_wanted_and_nothing_else() {
        let mut bed = Bed::new(3);
        let (_, request) = bed.start(&key("alice", 2), 3, 0).unwrap().asks.remove(0);
        let expected = format!(r#"{{"query_id":"{}","name":"par"}}"#, request.query_id);
        assert_eq!(serde_json::to_string(&request).unwrap(), expected, "neither user nor pool");
    }

    #[test]
    fn members_that_are_gone_are_not_waited_for() {
        let mut bed = Bed::new(2);
        let query = bed.queries[0].clone();
        assert!(bed.searches.lost(&peer(100), &query, Mono::from_secs(1)).unwrap().ended.is_none());
        assert!(bed.searches.lost(&peer(100), &query, Mono::from_secs(1)).is_none());
        let ended = bed.answer(1, vec![], Some(ONE), 1500).unwrap().ended.unwrap();
        assert_eq!((ended.end, ended.members_asked, ended.members_answered), (End::Lost, 2, 1));
    }

    #[test]
    fn the_nodes_own_sources_are_waited_for_too() {
        let (mut bed, own) = (Bed::new(1), key("b", 1));
        let at = Mono::from_millis(1);
        let nobody = bed.searches.start(own.clone(), part(), &[], false, at, &mut bed.rng).unwrap_err();
        assert_eq!(nobody, SearchError::Nobody);
        bed.searches.start(own.clone(), part(), &[], true, at, &mut bed.rng).unwrap();
        let update = bed.searches.found(&own, vec![record(1, 1, "paris")], false, at).unwrap();
        assert!(update.fresh.len() == 1 && update.ended.is_none());
        let ended = bed.searches.found(&own, vec![], true, at).unwrap().ended.unwrap();
        assert_eq!((ended.end, ended.hits), (End::Complete, 1));
        assert!(bed.searches.found(&own, vec![], true, at).is_none());
    }

    proptest! {
        /// Whatever comes in whatever order: each peer is shown once per newer record, limits hold, nothing leaks.
        #[test]
        fn searches_stay_within_their_bounds_and_leave_nothing(
            steps in proptest::collection::vec((0u16..3, 0u16..6, 1u64..4, any::<bool>(), 0u64..3000), 1..80),
        ) {
            let mut bed = Bed::new(3);
            let mut shown = BTreeMap::<PeerId, u64>::new();
            let (mut at, mut last_hit, mut is_over) = (0, 0, false);
            for (member, n, seq, is_last, gap) in steps {
                at += gap;
                let last = is_last.then_some(ONE);
                let update = bed.answer(member, vec![record(n, seq, "paris")], last, at);
                prop_assert!(update.is_none() || !is_over);
                let Some(update) = update else { continue };
                let is_late = at - last_hit >= 5000 || at >= 60_000;
                prop_assert_eq!(is_late, update.ended.as_ref().is_some_and(|ended| matches!(ended.end, End::Idle | End::TimedOut)));
                last_hit = at;
                for record in update.fresh {
                    let before = shown.insert(record.peer_id, record.seq);
                    prop_assert!(before.is_none_or(|before| before < record.seq));
                }
                if let Some(ended) = update.ended {
                    prop_assert_eq!(ended.hits, shown.len());
                    is_over = true;
                }
            }
            bed.searches.expire(Mono::from_millis(at + 5000), 10);
            prop_assert!(bed.is_spotless());
        }
    }
}
