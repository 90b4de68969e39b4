//! The door for questions about resources: who may ask how often, and what is a question at all.

use libp2p_identity::PeerId;
use thiserror::Error;

use super::{QUESTION_BYTES_MAX, Word};
use crate::{
    catalogue::{QueryError, ResourceQuery},
    event::{Event, Mark, Replay, ReplayError, Verb},
    json::JsonError,
    search::{QueryId, QueryIdError},
    shares::Shares,
    signed::{SignedError, Verified},
    time::{Mono, Now},
    trace::Traceparent,
    wire::{RefusalCode, Refused, ResourceQuestion},
};

/// Questions of one author in a minute, before the profile's factor: each may cost us a look-up and a connection.
pub const QUESTIONS_PER_AUTHOR: u32 = 30;

/// Questions of all authors together in a minute, before the profile's factor: forty busy ones.
pub const QUESTIONS_IN_ALL: u32 = 1_200;

/// Why a question is not answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unanswered {
    /// It is our own.
    #[error("got our own question")]
    Own,
    /// Too long.
    #[error("got a question of {got} bytes, expected at most {QUESTION_BYTES_MAX}")]
    TooLong {
        /// Its bytes.
        got: usize,
    },
    /// Its author, or all together, ask too much.
    #[error("got too many questions about resources in a minute")]
    TooMany {
        /// Whole seconds after which one of this author counts again.
        secs: u64,
    },
    /// Not a valid event.
    #[error(transparent)]
    Event(#[from] SignedError),
    /// It came from another than its author.
    #[error("got a question that names another author than the one it came from")]
    NotTheAuthor,
    /// An event of another protocol.
    #[error("got an event for \"{}\", expected one for \"search\"", .0.name())]
    OtherVerb(Verb),
    /// It came before, or there is no room to remember it.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Its payload is none.
    #[error("malformed payload: {0}")]
    Payload(#[from] JsonError),
    /// Its payload answers where a question is expected.
    #[error("got an answer, expected a question")]
    NoQuestion,
    /// Its query id is none.
    #[error(transparent)]
    QueryId(#[from] QueryIdError),
    /// It asks for nothing that can be answered.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Unanswered {
    /// Its author made it so: gossip may reject it. Otherwise it is ignored and nobody is blamed.
    #[must_use]
    pub fn is_authors_fault(&self) -> bool {
        match self {
            Self::Own | Self::TooMany { .. } | Self::Replay(_) => false,
            // A wrong clock is nobody's fault.
            Self::Event(error) => error.refusal() != RefusalCode::Clock,
            Self::TooLong { .. }
            | Self::NotTheAuthor
            | Self::OtherVerb(_)
            | Self::Payload(_)
            | Self::NoQuestion
            | Self::QueryId(_)
            | Self::Query(_) => true,
        }
    }

    /// The refusal in the words of the wire.
    #[must_use]
    pub fn refusal(&self) -> Refused {
        let code = match self {
            Self::TooMany { .. } | Self::TooLong { .. } => RefusalCode::Limit,
            Self::Replay(ReplayError::Full) => RefusalCode::Busy,
            Self::Event(error) => error.refusal(),
            Self::NotTheAuthor => RefusalCode::NotYours,
            _ => RefusalCode::Invalid,
        };
        let refused = Refused::new(code, self.to_string());
        match self {
            Self::TooMany { secs } => refused.retry_after(*secs),
            _ => refused,
        }
    }
}

/// A question to be answered, to its proven author and to nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub from: PeerId,
    /// The author's id of it.
    pub id: QueryId,
    /// What is looked for.
    pub query: ResourceQuery,
    /// Groups of the author's user, in the author's words.
    pub groups: Vec<String>,
    /// Its event's, by which the same question is known on another way.
    pub mark: Mark,
    /// The trace that its author made it part of.
    pub traceparent: Traceparent,
}

/// What was asked of us lately. A restart forgets it: a question of the last five minutes could be answered again.
#[derive(Debug)]
pub struct Answering {
    own: PeerId,
    shares: Shares,
    replay: Replay,
}

impl Answering {
    /// Nothing asked yet, at the member `own`; the limits times the profile's `factor`.
    #[must_use]
    pub fn new(own: PeerId, factor: u32) -> Self {
        Self { own, shares: Shares::new(QUESTIONS_PER_AUTHOR, QUESTIONS_IN_ALL, factor), replay: Replay::default() }
    }

    /// Takes the data of a gossip message, whose author's signature gossip verified.
    ///
    /// The author's share is counted before anything is verified, so that verifying costs nobody more than that.
    ///
    /// # Errors
    /// When it is not to be answered, nor passed on.
    pub fn heard(&mut self, author: PeerId, data: &[u8], now: Now) -> Result<Question, Unanswered> {
        self.count(author, data.len(), now.mono)?;
        let text = str::from_utf8(data).map_err(|error| JsonError::NotUtf8 { at: error.valid_up_to() })?;
        let event = Verified::<Event>::open(text, now.wall)?;
        if event.from != author {
            return Err(Unanswered::NotTheAuthor);
        }
        self.take(&event, now)
    }

    /// Takes an event that came on a connection of its author.
    ///
    /// # Errors
    /// When it is not to be answered.
    pub fn asked(&mut self, event: &Verified<Event>, now: Now) -> Result<Question, Unanswered> {
        self.count(event.from, event.text().len(), now.mono)?;
        self.take(event, now)
    }

    /// Takes a question that was heard where gossip comes in; false when its author asked it on a stream already. Partners
    /// are asked both ways, and answer once.
    pub fn is_first(&mut self, heard: &Question, now: Now) -> bool {
        self.replay.take_marked(heard.mark, heard.from, now.wall).is_ok()
    }

    fn count(&mut self, author: PeerId, bytes: usize, now: Mono) -> Result<(), Unanswered> {
        if author == self.own {
            return Err(Unanswered::Own);
        }
        // Before its length: who sends what is too long has asked.
        self.shares.count(author, now).map_err(|secs| Unanswered::TooMany { secs })?;
        if bytes > QUESTION_BYTES_MAX { Err(Unanswered::TooLong { got: bytes }) } else { Ok(()) }
    }

    fn take(&mut self, event: &Verified<Event>, now: Now) -> Result<Question, Unanswered> {
        if event.verb != Verb::Search {
            return Err(Unanswered::OtherVerb(event.verb));
        }
        let Word::Question(ResourceQuestion { query_id, query, traceparent }) = Word::read(&event.payload)? else {
            return Err(Unanswered::NoQuestion);
        };
        let (id, query) = (query_id.parse()?, query.again()?);
        // Last, so that only what would be answered is remembered.
        self.replay.take(event, now.wall)?;
        Ok(Question { from: event.from, id, query, groups: event.groups.clone(), mark: Mark::of(event), traceparent })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{collections::HashMap, sync::LazyLock};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        catalogue::Kind,
        search::{
            resources::{answer, question, split},
            tests::{keys, now, peer, rng},
        },
    };

    fn answering() -> Answering {
        Answering::new(peer(50), 1)
    }

    fn event(n: u16, id: u16, at: u64) -> Verified<Event> {
        let query = ResourceQuery::new("GPU", Some(Kind::Compute)).unwrap();
        let id = format!("{id:032x}").parse().unwrap();
        Verified::sign(
            &question(peer(n), id, &query, vec!["ops".to_owned()], Traceparent::Absent, now(at).wall),
            &keys(n),
        )
    }

    fn heard(answering: &mut Answering, author: u16, event: &Verified<Event>, at: u64) -> Result<Question, Unanswered> {
        answering.heard(peer(author), event.text().as_bytes(), now(at))
    }

    #[test]
    fn a_question_is_taken_once_by_gossip_and_once_on_a_stream() {
        let asked = event(1, 7, 0);
        let question = heard(&mut answering(), 1, &asked, 0).unwrap();
        assert_eq!(
            (question.from, question.query.text(), &question.groups[..]),
            (peer(1), "gpu", &["ops".to_owned()][..])
        );
        assert_eq!(answering().asked(&asked, now(0)), Ok(question));
        let mut answering = answering();
        heard(&mut answering, 1, &asked, 0).unwrap();
        let again = heard(&mut answering, 1, &asked, 1).unwrap_err();
        assert_eq!(again, Unanswered::Replay(ReplayError::Repeated));
        assert!(!again.is_authors_fault());
    }

    #[test]
    fn who_is_asked_both_ways_answers_the_first_and_knows_the_second() {
        let (asked, other) = (event(1, 7, 0), event(1, 8, 0));
        // Gossip is heard by another life of the same rules.
        let (by_gossip, later) =
            (heard(&mut answering(), 1, &asked, 0).unwrap(), heard(&mut answering(), 1, &other, 0));
        let mut answering = answering();
        answering.asked(&asked, now(0)).unwrap();
        assert!(!answering.is_first(&by_gossip, now(1)));
        assert!(answering.is_first(&later.unwrap(), now(1)));
        assert_eq!(answering.asked(&other, now(2)), Err(Unanswered::Replay(ReplayError::Repeated)));
    }

    #[test]
    fn nobody_asks_in_the_name_of_another() {
        let error = heard(&mut answering(), 2, &event(1, 7, 0), 0).unwrap_err();
        assert_eq!((error.refusal().refused, error.is_authors_fault()), (RefusalCode::NotYours, true));
        let forged = event(1, 7, 0).text().replace("\"ops\"", "\"all\"");
        let error = answering().heard(peer(1), forged.as_bytes(), now(0)).unwrap_err();
        assert_eq!(error, Unanswered::Event(SignedError::BadSignature));
        assert!(error.is_authors_fault());
    }

    #[test]
    fn a_question_by_a_wrong_clock_is_nobodys_fault() {
        let error = heard(&mut answering(), 1, &event(1, 7, 0), 301).unwrap_err();
        assert_eq!((error.refusal().refused, error.is_authors_fault()), (RefusalCode::Clock, false));
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let mut answering = answering();
        assert_eq!(answering.heard(peer(50), b"{}", now(0)), Err(Unanswered::Own));
        assert!(answering.heard(peer(1), b"\xff", now(0)).unwrap_err().is_authors_fault());
        let other = Event { verb: Verb::Create, ..event(1, 7, 0).value().clone() };
        let other = Verified::sign(&other, &keys(1));
        assert_eq!(answering.asked(&other, now(0)), Err(Unanswered::OtherVerb(Verb::Create)));
        let none = split(QueryId::random(&mut rng()), &[], false).remove(0);
        let none = Verified::sign(&answer(peer(1), &none, now(0).wall), &keys(1));
        assert_eq!(answering.asked(&none, now(0)), Err(Unanswered::NoQuestion));
        let payload = br#"{"query_id":"x","query":{"text":""}}"#.to_vec();
        let unnamed = Event { payload, ..event(1, 7, 0).value().clone() };
        let unnamed = Verified::sign(&unnamed, &keys(1));
        assert_eq!(answering.asked(&unnamed, now(0)), Err(Unanswered::QueryId(QueryIdError)));
        assert!(answering.replay.is_empty(), "nothing of it is remembered");
    }

    #[test]
    fn a_question_is_taken_at_its_limit_and_refused_past_it() {
        let sized = |bytes: usize| {
            let mut payload = br#"{"query_id":"0123456789abcdef0123456789abcdef","query":{"text":"gpu"}}"#.to_vec();
            let with = |payload: &Vec<u8>, user: usize| {
                let user = "u".repeat(user);
                Verified::sign(&Event { user, payload: payload.clone(), ..event(1, 7, 0).value().clone() }, &keys(1))
            };
            // Three bytes are four in base64; what is left is the length of the user.
            let quads = (bytes - with(&payload, 0).text().len()) / 4 - 1;
            payload.extend(b"   ".repeat(quads));
            let user = bytes - with(&payload, 0).text().len();
            with(&payload, user)
        };
        let (at, past) = (sized(QUESTION_BYTES_MAX), sized(QUESTION_BYTES_MAX + 1));
        assert_eq!((at.text().len(), past.text().len()), (QUESTION_BYTES_MAX, QUESTION_BYTES_MAX + 1));
        assert!(heard(&mut answering(), 1, &at, 0).is_ok());
        let error = heard(&mut answering(), 1, &past, 0).unwrap_err();
        assert_eq!(error, Unanswered::TooLong { got: QUESTION_BYTES_MAX + 1 });
        assert_eq!(answering().asked(&past, now(0)), Err(error));
    }

    #[test]
    fn an_author_asks_thirty_times_a_minute_and_takes_nothing_from_another() {
        let mut answering = answering();
        for n in 0..30 {
            assert!(heard(&mut answering, 1, &event(1, n, 0), 0).is_ok());
        }
        let error = heard(&mut answering, 1, &event(1, 30, 0), 0).unwrap_err();
        assert_eq!((error.refusal().refused, error.refusal().retry_after), (RefusalCode::Limit, Some(60)));
        assert!(!error.is_authors_fault());
        assert!(heard(&mut answering, 2, &event(2, 7, 0), 0).is_ok());
        assert!(heard(&mut answering, 1, &event(1, 30, 60), 60).is_ok());
    }

    #[test]
    fn all_authors_have_twelve_hundred_questions_a_minute() {
        let mut answering = answering();
        let author = crate::testing::peer;
        for n in 0..1_200 {
            assert_eq!(answering.count(author(n), 1, Mono::ZERO), Ok(()));
        }
        assert_eq!(answering.count(author(1_200), 1, Mono::ZERO), Err(Unanswered::TooMany { secs: 60 }));
    }

    proptest! {
        // Each step verifies a signature.
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Whatever bytes come, in whatever order: no panic, and each author is heard at most as often as it may be.
        #[test]
        fn nobody_is_heard_more_often_than_it_may_be(
            steps in proptest::collection::vec((0u16..2, 0u16..40, 0u64..2, proptest::bool::weighted(0.1)), 1..80),
        ) {
            static EVENTS: LazyLock<Vec<Vec<Verified<Event>>>> =
                LazyLock::new(|| (0..2).map(|n| (0..40).map(|id| event(n, id, 0)).collect()).collect());
            let mut answering = answering();
            let (mut taken, mut at) = (HashMap::<u16, u32>::new(), 0);
            for (n, id, gap, is_cut) in steps {
                at = (at + gap).min(59);
                let bytes = EVENTS[usize::from(n)][usize::from(id)].text().as_bytes();
                let bytes = if is_cut { &bytes[..bytes.len() - 1] } else { bytes };
                if answering.heard(peer(n), bytes, now(at)).is_ok() {
                    *taken.entry(n).or_default() += 1;
                }
            }
            prop_assert!(taken.values().all(|taken| *taken <= QUESTIONS_PER_AUTHOR));
        }
    }
}
