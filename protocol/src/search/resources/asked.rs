//! The searches for resources of a member's users: whom they ask, what they take, and when they have heard enough.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use libp2p_identity::PeerId;
use rand::Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{QUESTIONS_PER_AUTHOR, Scope};
use crate::{
    behaviour::Window,
    catalogue::{Resource, ResourceQuery},
    search::{End, QueryId, USER_CHARS_MAX},
    signed::Verified,
    time::Mono,
};

/// Searches for resources that a member has open at most: together they hold what users have not yet taken.
pub const OPEN_MAX: usize = 128;

/// Peers that one search asks on streams of their own; more partners than that are asked by gossip.
pub const ASKED_MAX: usize = 256;

/// Members that are heard in one search by gossip.
pub const ANSWERERS_MAX: usize = 1_024;

/// Resources that one search finds at most.
pub const FOUND_MAX: usize = 1_000;

/// Bytes of all that one search finds: four times what a single member shows.
pub const FOUND_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A search by gossip ends when nothing new came for so long: an answer needs a look-up of where we are, and a dial.
pub const IDLE: Duration = Duration::from_secs(4);

/// A search ends after so long in any case.
pub const TOTAL: Duration = Duration::from_secs(10);

/// So much later than partners everybody else is asked. Who is near has answered by then, instead of among all the answers
/// that come at once; to whoever is far it is little beside the way.
pub const HEAD_START: Duration = Duration::from_millis(10);

/// Of ten questions by gossip that others take of one author, so many are asked; the rest is for a clock's error.
const TENTHS: u32 = 8;

/// Why a search cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CannotBegin {
    /// Too many are open.
    #[error("got one search for resources more than the {OPEN_MAX} that may be open")]
    Busy,
    /// The user's name is too long to be kept.
    #[error("got a user of {got} characters, expected at most {USER_CHARS_MAX}")]
    User {
        /// Its characters.
        got: usize,
    },
    /// Our users asked everybody often enough in the last minute.
    #[error("this node's users have asked everybody enough for this minute: try again in {secs} s")]
    Enough {
        /// Whole seconds to wait.
        secs: u64,
    },
}

/// How many were asked, and how many of them were heard.
///
/// Nobody knows how many gossip reaches, so that `asked` is 0 there, whoever is asked on a stream as well: it is answered by
/// so many, never by so many of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Peers asked on a stream of their own.
    pub asked: u32,
    /// Peers that said their last word.
    pub answered: u32,
    /// Peers that said no.
    pub refused: u32,
    /// Peers that could not be reached, or began to answer or did not, and were not heard to the end in time.
    pub timed_out: u32,
    /// Resources were left out at a limit, here or there.
    pub truncated: bool,
}

/// A search that ended, and how complete it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub id: QueryId,
    /// Why.
    pub end: End,
    /// Resources found.
    pub hits: usize,
    /// Who was heard.
    pub tally: Tally,
}

/// A search that began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its id, which nobody can guess.
    pub id: QueryId,
    /// Whom to ask on streams of their own, whether everybody is asked by gossip or not.
    pub ask: Vec<PeerId>,
    /// Whether everybody is asked by gossip, and after how long.
    pub gossip_after: Option<Duration>,
    /// The older search of the same user that it replaced.
    pub replaced: Option<Ended>,
}

/// What came of an answer.
#[derive(Clone, Debug)]
pub struct Update {
    /// Of which search.
    pub id: QueryId,
    /// What to show: resources not seen before in this search, or in a newer version.
    pub fresh: Vec<Arc<Verified<Resource>>>,
    /// Resources of somebody else than the answerer, or of another kind; dropped, to be counted.
    pub dropped: usize,
    /// The search ended with it.
    pub ended: Option<Ended>,
}

/// What is known of one who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Waiting,
    Answered,
    Refused,
    Lost,
}

#[derive(Debug)]
struct Search {
    user: String,
    scope: Scope,
    query: ResourceQuery,
    peers: HashMap<PeerId, Standing>,
    /// Our own catalogue is being looked through.
    is_own_open: bool,
    found: HashMap<(PeerId, String), u64>,
    bytes: usize,
    is_truncated: bool,
    is_over_limit: bool,
    began: Mono,
    deadline: Mono,
}

impl Search {
    /// Takes in what `from` created, or what our own catalogue has of anybody; what is to be shown of it, and how many are
    /// not taken.
    fn merge(
        &mut self,
        from: Option<PeerId>,
        resources: impl IntoIterator<Item = Verified<Resource>>,
    ) -> (Vec<Arc<Verified<Resource>>>, usize) {
        let (mut fresh, mut dropped) = (Vec::new(), 0);
        for resource in resources {
            let is_kind = self.query.kind().is_none_or(|kind| kind == resource.kind);
            if from.is_some_and(|from| resource.creator != from) || !is_kind {
                dropped += 1;
                continue;
            }
            let (count, bytes) = (self.found.len(), self.bytes + resource.text().len());
            let held = self.found.entry((resource.creator, resource.id.clone()));
            let is_over = match &held {
                Entry::Occupied(held) if *held.get() >= resource.version => continue,
                Entry::Occupied(_) => bytes > FOUND_BYTES_MAX,
                Entry::Vacant(_) => count >= FOUND_MAX || bytes > FOUND_BYTES_MAX,
            };
            if is_over {
                self.is_over_limit = true;
                break;
            }
            held.insert_entry(resource.version);
            self.bytes = bytes;
            fresh.push(Arc::new(resource));
        }
        (fresh, dropped)
    }

    /// An answer of this peer would be taken.
    fn expects(&self, from: &PeerId) -> bool {
        match self.peers.get(from) {
            Some(standing) => *standing == Standing::Waiting,
            None => self.scope == Scope::All && self.peers.len() < ANSWERERS_MAX,
        }
    }

    /// Why it is over, if it is, apart from time. By gossip more may always come.
    fn end(&self) -> Option<End> {
        if self.is_over_limit {
            return Some(End::Limit);
        }
        let is_open = self.is_own_open || self.peers.values().any(|standing| *standing == Standing::Waiting);
        if is_open || self.scope == Scope::All {
            return None;
        }
        let is_complete = self.peers.values().all(|standing| *standing != Standing::Lost);
        Some(if is_complete { End::Complete } else { End::Lost })
    }

    fn timed_end(&self, now: Mono) -> Option<End> {
        let end = if now >= self.began + TOTAL { End::TimedOut } else { End::Idle };
        (now >= self.deadline).then_some(end)
    }

    fn ended(self, id: QueryId, end: End) -> Ended {
        let count = |wanted: &[Standing]| {
            let count = self.peers.values().filter(|standing| wanted.contains(standing)).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        let every = [Standing::Waiting, Standing::Answered, Standing::Refused, Standing::Lost];
        let tally = Tally {
            asked: if self.scope == Scope::All { 0 } else { count(&every) },
            answered: count(&[Standing::Answered]),
            refused: count(&[Standing::Refused]),
            timed_out: count(&[Standing::Waiting, Standing::Lost]),
            truncated: self.is_truncated || self.is_over_limit,
        };
        Ended { id, end, hits: self.found.len(), tally }
    }
}

/// The searches for resources of one member, one per user.
///
/// Bounded by [`OPEN_MAX`] searches of [`FOUND_MAX`] resources. A restart forgets them.
#[derive(Debug)]
pub struct Asked {
    own: PeerId,
    gossiped_max: u32,
    open: HashMap<QueryId, Search>,
    by_user: HashMap<String, QueryId>,
    deadlines: BTreeSet<(Mono, QueryId)>,
    gossiped: Window,
}

impl Asked {
    /// None open, at the member `own`; the limit times the profile's `factor`.
    #[must_use]
    pub fn new(own: PeerId, factor: u32) -> Self {
        Self {
            own,
            gossiped_max: QUESTIONS_PER_AUTHOR.saturating_mul(factor).saturating_mul(TENTHS) / 10,
            open: HashMap::new(),
            by_user: HashMap::new(),
            deadlines: BTreeSet::new(),
            gossiped: Window::default(),
        }
    }

    /// Begins a search that asks the first [`ASKED_MAX`] of `peers`, everybody else by gossip where the scope is all, and our
    /// own catalogue, which answers by [`Asked::found_here`]. By gossip all may answer, so that those who are asked on
    /// streams besides are neither waited for nor missed: they answer sooner, by [`HEAD_START`], and whatever the indexers
    /// pass on. It replaces the one that this very user has open; without a user it stands alone.
    ///
    /// # Errors
    /// When the user's name is too long, too many searches are open, or everybody was asked often enough.
    pub fn open(
        &mut self,
        user: &str,
        scope: Scope,
        query: ResourceQuery,
        peers: &[PeerId],
        now: Mono,
        rng: &mut impl Rng,
    ) -> Result<Begun, CannotBegin> {
        let got = user.chars().count();
        if got > USER_CHARS_MAX {
            return Err(CannotBegin::User { got });
        }
        if scope == Scope::All && self.gossiped.count(now) >= self.gossiped_max {
            return Err(CannotBegin::Enough { secs: self.gossiped.secs_until_below(self.gossiped_max, now) });
        }
        let replaced = self.close_as(user, End::Replaced);
        if self.open.len() >= OPEN_MAX {
            return Err(CannotBegin::Busy);
        }
        let is_for_all = scope == Scope::All;
        if is_for_all {
            self.gossiped.add();
        }
        let others: BTreeSet<PeerId> = peers.iter().copied().filter(|peer| *peer != self.own).collect();
        let is_truncated = !is_for_all && others.len() > ASKED_MAX;
        let ask: Vec<PeerId> = others.into_iter().take(ASKED_MAX).collect();
        let waited_for = if is_for_all { &[] } else { &ask[..] };
        let head_start = if ask.is_empty() { Duration::ZERO } else { HEAD_START };
        let gossip_after = is_for_all.then_some(head_start);
        let id = QueryId::random(rng);
        let deadline = now + if is_for_all { IDLE } else { TOTAL };
        let search = Search {
            user: user.to_owned(),
            scope,
            query,
            peers: waited_for.iter().map(|peer| (*peer, Standing::Waiting)).collect(),
            is_own_open: true,
            found: HashMap::new(),
            bytes: 0,
            is_truncated,
            is_over_limit: false,
            began: now,
            deadline,
        };
        self.open.insert(id, search);
        self.deadlines.insert((deadline, id));
        if !user.is_empty() {
            self.by_user.insert(user.to_owned(), id);
        }
        Ok(Begun { id, ask, gossip_after, replaced })
    }

    /// An answer with this query id from this peer would be taken: to be asked before anything in it is verified.
    #[must_use]
    pub fn expects(&self, from: &PeerId, id: &str) -> bool {
        self.find(from, id).is_some()
    }

    /// Takes the verified resources of an answer; `is_last` when no more come from its author.
    ///
    /// Nothing comes of an answer to no open search, or from somebody whom it did not ask or who said its last word.
    pub fn answered(
        &mut self,
        from: &PeerId,
        id: &str,
        resources: impl IntoIterator<Item = Verified<Resource>>,
        (is_last, is_truncated): (bool, bool),
        now: Mono,
    ) -> Option<Update> {
        let id = self.find(from, id)?;
        let standing = if is_last { Standing::Answered } else { Standing::Waiting };
        self.update(id, Some(*from), resources, now, |search| {
            search.peers.insert(*from, standing);
            search.is_truncated |= is_truncated;
        })
    }

    /// Takes what our own catalogue has, our own and what partners told us of, once.
    pub fn found_here(
        &mut self,
        id: QueryId,
        resources: impl IntoIterator<Item = Verified<Resource>>,
        is_truncated: bool,
        now: Mono,
    ) -> Option<Update> {
        self.open.get(&id).filter(|search| search.is_own_open)?;
        self.update(id, None, resources, now, |search| {
            search.is_own_open = false;
            search.is_truncated |= is_truncated;
        })
    }

    /// One that was asked said no.
    pub fn refused(&mut self, from: &PeerId, id: &str, now: Mono) -> Option<Update> {
        self.gone(from, id, Standing::Refused, now)
    }

    /// One that was asked cannot be reached, or did not answer to the end.
    pub fn lost(&mut self, from: &PeerId, id: &str, now: Mono) -> Option<Update> {
        self.gone(from, id, Standing::Lost, now)
    }

    /// Ends a search on behalf of whoever wanted it.
    pub fn close(&mut self, id: QueryId) -> Option<Ended> {
        self.end(id, End::Closed)
    }

    /// Ends the one that a user has open.
    pub fn close_of(&mut self, user: &str) -> Option<Ended> {
        self.close_as(user, End::Closed)
    }

    /// Ends searches whose time is over, at most `at_most`.
    pub fn expire(&mut self, now: Mono, at_most: usize) -> Vec<Ended> {
        let mut ended = Vec::new();
        while ended.len() < at_most {
            let Some((_, id)) = self.deadlines.first().filter(|(due, _)| *due <= now).copied() else { break };
            let end = self.open.get(&id).and_then(|search| search.timed_end(now)).unwrap_or(End::Idle);
            ended.extend(self.end(id, end));
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

    fn find(&self, from: &PeerId, id: &str) -> Option<QueryId> {
        let id = id.parse().ok()?;
        self.open.get(&id).is_some_and(|search| search.expects(from)).then_some(id)
    }

    fn gone(&mut self, from: &PeerId, id: &str, standing: Standing, now: Mono) -> Option<Update> {
        let id = self.find(from, id)?;
        self.update(id, Some(*from), [], now, |search| {
            // Where everybody is asked nobody is missed: the question may be there by gossip.
            search.peers.entry(*from).and_modify(|known| *known = standing);
        })
    }

    fn update(
        &mut self,
        id: QueryId,
        from: Option<PeerId>,
        resources: impl IntoIterator<Item = Verified<Resource>>,
        now: Mono,
        note: impl FnOnce(&mut Search),
    ) -> Option<Update> {
        let search = self.open.get_mut(&id)?;
        let mut update = Update { id, fresh: Vec::new(), dropped: 0, ended: None };
        if let Some(end) = search.timed_end(now) {
            update.ended = self.end(id, end);
            return Some(update);
        }
        note(search);
        (update.fresh, update.dropped) = search.merge(from, resources);
        if let Some(end) = search.end() {
            update.ended = self.end(id, end);
        } else if search.scope == Scope::All && !update.fresh.is_empty() {
            let later = (now + IDLE).min(search.began + TOTAL);
            let before = std::mem::replace(&mut search.deadline, later);
            self.deadlines.remove(&(before, id));
            self.deadlines.insert((later, id));
        }
        Some(update)
    }

    fn close_as(&mut self, user: &str, end: End) -> Option<Ended> {
        let id = *self.by_user.get(user)?;
        self.end(id, end)
    }

    fn end(&mut self, id: QueryId, end: End) -> Option<Ended> {
        let search = self.open.remove(&id)?;
        self.deadlines.remove(&(search.deadline, id));
        if self.by_user.get(&search.user) == Some(&id) {
            self.by_user.remove(&search.user);
        }
        Some(search.ended(id, end))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rand::rngs::StdRng;

    use super::*;
    use crate::{
        catalogue::Kind,
        search::{
            resources::tests::resource,
            tests::{peer, rng},
        },
    };

    /// Searches with their chance, at the peer 50.
    struct Bed {
        asked: Asked,
        rng: StdRng,
    }

    impl Bed {
        fn new() -> Self {
            Self { asked: Asked::new(peer(50), 1), rng: rng() }
        }

        fn open(&mut self, user: &str, scope: Scope, peers: &[u16], at: u64) -> Result<Begun, CannotBegin> {
            let peers: Vec<_> = peers.iter().map(|n| peer(*n)).collect();
            let query = ResourceQuery::new("", Some(Kind::Compute)).unwrap();
            self.asked.open(user, scope, query, &peers, Mono::from_millis(at), &mut self.rng)
        }

        fn begin(&mut self, scope: Scope, peers: &[u16]) -> QueryId {
            self.open("a", scope, peers, 0).unwrap().id
        }

        /// An answer of the peer with these of its own resources, in this version.
        fn answer(&mut self, n: u16, id: QueryId, ids: &[u16], version: u64, last: bool, at: u64) -> Option<Update> {
            let resources = ids.iter().map(|id| resource(n, *id, version));
            self.asked.answered(&peer(n), &id.to_string(), resources, (last, false), Mono::from_millis(at))
        }

        fn is_spotless(&self) -> bool {
            let Asked { open, by_user, deadlines, .. } = &self.asked;
            open.is_empty() && by_user.is_empty() && deadlines.is_empty()
        }
    }

    fn tally(asked: u32, answered: u32, refused: u32, timed_out: u32) -> Tally {
        Tally { asked, answered, refused, timed_out, truncated: false }
    }

    #[test]
    fn partners_are_asked_each_once_and_we_never_ask_ourselves() {
        let mut bed = Bed::new();
        let begun = bed.open("a", Scope::Partner, &[1, 2, 1, 50], 0).unwrap();
        assert_eq!(begun.ask.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([peer(1), peer(2)]));
        assert_eq!((begun.ask.len(), begun.gossip_after), (2, None));
    }

    #[test]
    fn partners_have_a_head_start_and_without_any_everybody_is_asked_at_once() {
        let mut bed = Bed::new();
        assert_eq!(bed.open("a", Scope::All, &[1], 0).unwrap().gossip_after, Some(HEAD_START));
        assert_eq!(bed.open("b", Scope::All, &[], 0).unwrap().gossip_after, Some(Duration::ZERO));
        assert_eq!(bed.open("c", Scope::All, &[50], 0).unwrap().gossip_after, Some(Duration::ZERO));
    }

    #[test]
    fn where_everybody_is_asked_partners_are_asked_on_streams_too_and_never_missed() {
        let mut bed = Bed::new();
        let begun = bed.open("a", Scope::All, &[1, 2, 3, 2, 50], 0).unwrap();
        assert_eq!(begun.ask.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([peer(1), peer(2), peer(3)]));
        let (id, text) = (begun.id, begun.id.to_string());
        // One answered by gossip before its stream said no, one did after, and one was never reached.
        assert_eq!(bed.answer(1, id, &[1], 1, true, 1).unwrap().fresh.len(), 1);
        drop(bed.asked.refused(&peer(1), &text, Mono::from_millis(2)));
        drop(bed.asked.refused(&peer(2), &text, Mono::from_millis(2)));
        assert_eq!(bed.answer(2, id, &[1], 1, true, 3).unwrap().fresh.len(), 1);
        drop(bed.asked.lost(&peer(3), &text, Mono::from_millis(4)));
        let ended = bed.asked.close(id).unwrap();
        assert_eq!((ended.hits, ended.tally), (2, tally(0, 2, 0, 0)));
        assert!(bed.is_spotless());
    }

    #[test]
    fn a_search_is_complete_when_everybody_asked_and_our_own_catalogue_answered() {
        let mut bed = Bed::new();
        let id = bed.begin(Scope::Known, &[1, 2, 3]);
        assert_eq!(bed.answer(1, id, &[1, 2], 1, true, 1).unwrap().fresh.len(), 2);
        assert!(bed.asked.refused(&peer(2), &id.to_string(), Mono::from_millis(2)).unwrap().ended.is_none());
        assert!(bed.answer(3, id, &[], 1, true, 3).unwrap().ended.is_none(), "ours is not there yet");
        let here = bed.asked.found_here(id, [resource(50, 1, 1)], false, Mono::from_millis(4)).unwrap();
        let ended = here.ended.unwrap();
        assert_eq!((here.fresh.len(), ended.end, ended.hits, ended.tally), (1, End::Complete, 3, tally(3, 2, 1, 0)));
        assert!(bed.is_spotless());
    }

    #[test]
    fn who_cannot_be_reached_is_not_waited_for_and_is_told() {
        let mut bed = Bed::new();
        let id = bed.begin(Scope::Partner, &[1, 2]);
        bed.asked.found_here(id, [], false, Mono::ZERO).unwrap();
        bed.asked.lost(&peer(1), &id.to_string(), Mono::ZERO).unwrap();
        let ended = bed.answer(2, id, &[], 1, true, 1).unwrap().ended.unwrap();
        assert_eq!((ended.end, ended.tally), (End::Lost, tally(2, 1, 0, 1)));
    }

    #[test]
    fn nobody_to_ask_is_no_fault_and_our_own_catalogue_answers() {
        let mut bed = Bed::new();
        let id = bed.begin(Scope::Partner, &[]);
        let ended = bed.asked.found_here(id, [resource(50, 1, 1)], false, Mono::ZERO).unwrap().ended.unwrap();
        assert_eq!((ended.end, ended.hits, ended.tally), (End::Complete, 1, tally(0, 0, 0, 0)));
        assert!(bed.asked.found_here(id, [], false, Mono::ZERO).is_none());
    }

    #[test]
    fn an_answer_is_taken_only_for_an_open_search_and_from_whom_it_asked() {
        let mut bed = Bed::new();
        let id = bed.begin(Scope::Partner, &[1]);
        assert!(bed.answer(2, id, &[1], 1, true, 1).is_none(), "not asked");
        let other = "0".repeat(32).parse().unwrap();
        assert!(bed.answer(1, other, &[1], 1, true, 1).is_none(), "no such search");
        assert!(bed.asked.answered(&peer(1), "a", [], (true, false), Mono::ZERO).is_none());
        assert!(bed.asked.expects(&peer(1), &id.to_string()) && !bed.asked.expects(&peer(2), &id.to_string()));
        assert!(bed.answer(1, id, &[1], 1, false, 1).is_some(), "in several answers");
        assert!(bed.answer(1, id, &[2], 1, true, 1).is_some());
        assert!(bed.answer(1, id, &[3], 1, true, 1).is_none(), "after its last word");
        assert_eq!(bed.asked.close(id).unwrap().hits, 2);
        assert!(bed.is_spotless());
    }

    #[test]
    fn what_the_answerer_did_not_create_or_is_of_another_kind_is_dropped() {
        let mut bed = Bed::new();
        let id = bed.begin(Scope::All, &[]);
        let texts = [resource(2, 1, 1), resource(1, 1, 1)];
        let update = bed.asked.answered(&peer(1), &id.to_string(), texts, (true, false), Mono::ZERO).unwrap();
        assert_eq!((update.fresh.len(), update.fresh[0].creator, update.dropped), (1, peer(1), 1));
        let query = ResourceQuery::new("", Some(Kind::Data)).unwrap();
        let begun = bed.asked.open("b", Scope::All, query, &[], Mono::ZERO, &mut bed.rng).unwrap();
        let update = bed.answer(1, begun.id, &[1], 1, true, 0).unwrap();
        assert_eq!((update.fresh.len(), update.dropped), (0, 1));
    }

    #[test]
    fn our_own_catalogue_answers_for_what_partners_told_us_and_the_partner_for_its_newer_version() {
        let mut bed = Bed::new();
        let id = bed.begin(Scope::Partner, &[1]);
        let here = bed.asked.found_here(id, [resource(50, 1, 1), resource(1, 7, 1)], false, Mono::ZERO).unwrap();
        assert_eq!((here.fresh.len(), here.dropped), (2, 0));
        assert_eq!(bed.answer(1, id, &[7], 1, false, 1).unwrap().fresh.len(), 0);
        let last = bed.answer(1, id, &[7], 2, true, 1).unwrap();
        assert_eq!((last.fresh.len(), last.ended.unwrap().hits), (1, 2));
    }

    #[test]
    fn the_newer_version_is_shown_once_more_and_an_older_one_is_not() {
        let mut bed = Bed::new();
        let id = bed.begin(Scope::All, &[]);
        let shown = [(2, 1), (2, 0), (1, 0), (3, 1)];
        for (version, expected) in shown {
            assert_eq!(bed.answer(1, id, &[7], version, false, 1).unwrap().fresh.len(), expected, "{version}");
        }
        assert_eq!(bed.answer(2, id, &[7], 1, false, 1).unwrap().fresh.len(), 1, "ids are their creator's");
        assert_eq!(bed.asked.close(id).unwrap().hits, 2);
    }

    #[test]
    fn a_search_by_gossip_ends_after_four_silent_seconds_and_says_how_many_answered() {
        let mut bed = Bed::new();
        let id = bed.begin(Scope::All, &[]);
        assert!(bed.asked.expire(Mono::from_millis(3_999), 10).is_empty());
        bed.answer(1, id, &[1], 1, true, 3_999).unwrap();
        bed.answer(2, id, &[], 1, true, 5_000).unwrap();
        bed.answer(3, id, &[1], 1, false, 5_000).unwrap();
        bed.asked.lost(&peer(9), &id.to_string(), Mono::from_millis(5_000));
        assert!(bed.asked.expire(Mono::from_millis(8_999), 10).is_empty());
        let ended = bed.asked.expire(Mono::from_millis(9_000), 10).remove(0);
        assert_eq!((ended.end, ended.hits, ended.tally), (End::Idle, 2, tally(0, 2, 0, 1)));
        assert!(bed.is_spotless());
    }

    #[test]
    fn every_search_ends_after_ten_seconds_whatever_comes() {
        for scope in Scope::ALL {
            let mut bed = Bed::new();
            let id = bed.begin(scope, &[1]);
            for at in 1..10 {
                let update = bed.answer(1, id, &[1], at, false, at * 1_000).unwrap();
                assert!(update.ended.is_none(), "{scope:?}");
            }
            let ended = bed.answer(1, id, &[1], 99, false, 10_000).unwrap().ended.unwrap();
            assert_eq!((ended.end, ended.tally.timed_out), (End::TimedOut, 1), "{scope:?}");
        }
    }

    #[test]
    fn a_user_replaces_its_own_search_and_nobody_elses() {
        let mut bed = Bed::new();
        let id = bed.begin(Scope::All, &[]);
        for user in ["b", "", "A"] {
            assert_eq!(bed.open(user, Scope::Partner, &[1], 0).unwrap().replaced, None);
        }
        let begun = bed.open("a", Scope::Partner, &[1], 0).unwrap();
        let replaced = begun.replaced.unwrap();
        assert_eq!((replaced.id, replaced.end), (id, End::Replaced));
        assert!(bed.answer(1, id, &[1], 1, true, 1).is_none(), "what comes late for the old one is dropped");
        assert_eq!(bed.asked.len(), 4);
        assert_eq!(bed.asked.close_of("a").unwrap().id, begun.id);
        assert_eq!((bed.asked.close_of("a"), bed.asked.close_of("")), (None, None));
    }

    #[test]
    fn a_hundred_and_twenty_eight_are_open_and_one_more_is_refused() {
        let mut bed = Bed::new();
        bed.begin(Scope::Partner, &[]);
        for _ in 1..OPEN_MAX {
            bed.open("", Scope::Partner, &[], 0).unwrap();
        }
        assert_eq!(bed.open("b", Scope::Partner, &[], 0), Err(CannotBegin::Busy));
        assert!(bed.open("a", Scope::Partner, &[], 0).unwrap().replaced.is_some(), "whoever has one may replace it");
        assert_eq!(bed.asked.expire(Mono::from_secs(10), 10).len(), 10, "no more than it may");
        assert_eq!(bed.asked.expire(Mono::from_secs(10), 1_000).len(), OPEN_MAX - 10);
        assert!(bed.is_spotless());
    }

    #[test]
    fn everybody_is_asked_24_times_a_minute_and_that_is_less_than_others_take() {
        let mut bed = Bed::new();
        for _ in 0..24 {
            bed.begin(Scope::All, &[]);
        }
        assert_eq!(bed.open("a", Scope::All, &[], 0), Err(CannotBegin::Enough { secs: 60 }));
        assert_eq!(bed.asked.len(), 1, "the last one goes on");
        bed.open("a", Scope::Partner, &[], 0).unwrap();
        bed.open("a", Scope::All, &[], 60_000).unwrap();
    }

    #[test]
    fn a_user_has_256_characters_and_no_more() {
        let mut bed = Bed::new();
        assert!(bed.open(&"u".repeat(USER_CHARS_MAX), Scope::Partner, &[], 0).is_ok());
        let error = bed.open(&"u".repeat(USER_CHARS_MAX + 1), Scope::Partner, &[], 0).unwrap_err();
        assert_eq!(error, CannotBegin::User { got: USER_CHARS_MAX + 1 });
    }

    #[test]
    fn two_hundred_and_fifty_six_peers_are_asked_and_more_are_told() {
        let mut bed = Bed::new();
        let many: Vec<_> = (100..100 + ASKED_MAX as u16).collect();
        let begun = bed.open("a", Scope::Known, &many, 0).unwrap();
        assert_eq!(begun.ask.len(), ASKED_MAX);
        assert!(!bed.asked.close(begun.id).unwrap().tally.truncated);
        let begun = bed.open("a", Scope::Known, &[&many[..], &[1]].concat(), 0).unwrap();
        assert_eq!(begun.ask.len(), ASKED_MAX);
        assert!(bed.asked.close(begun.id).unwrap().tally.truncated);
    }

    #[test]
    fn a_thousand_resources_are_found_and_one_more_ends_it() {
        let mut bed = Bed::new();
        let id = bed.begin(Scope::All, &[]);
        let many: Vec<_> = (0..FOUND_MAX as u16).collect();
        let update = bed.answer(1, id, &many, 1, false, 1).unwrap();
        assert!(update.fresh.len() == FOUND_MAX && update.ended.is_none());
        assert!(
            bed.answer(1, id, &[3], 2, false, 1).unwrap().ended.is_none(),
            "a newer version is no further resource"
        );
        let ended = bed.answer(1, id, &[5_000], 1, false, 1).unwrap().ended.unwrap();
        assert_eq!((ended.end, ended.hits, ended.tally.truncated), (End::Limit, FOUND_MAX, true));
        assert!(bed.is_spotless());
    }

    #[test]
    fn sixteen_mebibytes_are_found_and_one_more_byte_ends_it() {
        let mut bed = Bed::new();
        let id = bed.begin(Scope::All, &[]);
        let one = resource(1, 1, 1);
        bed.asked.open.get_mut(&id).unwrap().bytes = FOUND_BYTES_MAX - one.text().len();
        let ends = |bed: &mut Bed, n| bed.answer(1, id, &[n], 1, false, 1).unwrap().ended;
        assert_eq!(ends(&mut bed, 1), None);
        assert_eq!(ends(&mut bed, 2).unwrap().end, End::Limit);
    }

    #[test]
    fn a_thousand_and_twenty_four_members_are_heard_by_gossip_and_no_more() {
        let mut bed = Bed::new();
        let id = bed.begin(Scope::All, &[]);
        for n in 0..ANSWERERS_MAX as u32 {
            let from = crate::testing::peer(n);
            assert!(bed.asked.answered(&from, &id.to_string(), [], (true, false), Mono::ZERO).is_some());
        }
        assert!(!bed.asked.expects(&peer(1), &id.to_string()));
        assert_eq!(bed.asked.close(id).unwrap().tally, tally(0, ANSWERERS_MAX as u32, 0, 0));
    }

    #[test]
    fn what_others_left_out_is_told() {
        let mut bed = Bed::new();
        let id = bed.begin(Scope::All, &[]);
        bed.asked.answered(&peer(1), &id.to_string(), [], (true, true), Mono::ZERO).unwrap();
        assert!(bed.asked.close(id).unwrap().tally.truncated);
    }

    proptest! {
        /// Whatever comes in whatever order: each resource is shown once per newer version, and nothing leaks.
        #[test]
        fn searches_stay_within_their_bounds_and_leave_nothing(
            steps in proptest::collection::vec((0u8..6, 0u16..4, 0u16..4, 1u64..4, any::<bool>(), 0u64..2_000), 1..80),
            is_gossip in any::<bool>(),
        ) {
            let mut bed = Bed::new();
            let scope = if is_gossip { Scope::All } else { Scope::Partner };
            let id = bed.begin(scope, &[1, 2, 3]);
            let mut shown = BTreeMap::<(PeerId, String), u64>::new();
            let (mut at, mut is_over) = (0, false);
            for (what, n, resource_id, version, last, gap) in steps {
                at += gap;
                let now = Mono::from_millis(at);
                let update = match what {
                    0 => bed.asked.refused(&peer(n), &id.to_string(), now),
                    1 => bed.asked.lost(&peer(n), &id.to_string(), now),
                    2 => bed.asked.found_here(id, [resource(50, resource_id, version)], last, now),
                    _ => bed.answer(n, id, &[resource_id], version, last, at),
                };
                prop_assert!(update.is_none() || !is_over);
                let Some(update) = update else { continue };
                for resource in update.fresh {
                    let before = shown.insert((resource.creator, resource.id.clone()), resource.version);
                    prop_assert!(before.is_none_or(|before| before < resource.version));
                }
                if let Some(ended) = update.ended {
                    let Tally { asked, answered, refused, timed_out, .. } = ended.tally;
                    prop_assert_eq!(ended.hits, shown.len());
                    prop_assert!(is_gossip || asked == 3 && asked == answered + refused + timed_out);
                    is_over = true;
                }
                prop_assert_eq!(bed.asked.open.len(), bed.asked.deadlines.len());
            }
            bed.asked.expire(Mono::from_millis(at + 10_000), 10);
            prop_assert!(bed.is_spotless());
        }
    }
}
