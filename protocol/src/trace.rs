//! Traces: which pieces of work of several members belong together, and how long each took.
//!
//! A member that traces a search or a beat sends a [`TraceContext`] along, as the W3C writes it; whoever works for it says
//! so under the same trace id. Nobody has to: a context is a hint of at most 55 characters, and one that cannot be read
//! counts as none ([`Traceparent`]). It is drawn by chance for one search or one beat, tells nothing of who asked, and is
//! sent only where a user wants a waterfall or an operator samples. Contexts of others begin no more spans here than
//! [`admit`] lets them. What one search met on its way is its [`Waterfall`].

mod waterfall;

use std::{
    fmt,
    num::{NonZeroU64, NonZeroU128},
    str::FromStr,
    time::Duration,
};

use jiff::Timestamp;
use libp2p_identity::PeerId;
use rand::{Rng, RngExt};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use thiserror::Error;

pub use self::waterfall::{How, ROWS_MAX, Row, Waterfall};
use crate::{search::Tally, time::Now};

/// Characters of a trace context: `00-`, 32 of the trace, 16 of the span, two of the flags, and hyphens.
pub const CONTEXT_CHARS: usize = 55;

/// Lots into which peers fall whose contexts are heeded: a fixed table, so that no stranger makes it grow.
pub const LOTS: usize = 64;

/// Spans that the peers of one lot begin here in a minute: three beats a minute of twenty nodes that sample all of theirs.
/// In all lots together it is less than a collector takes without a word.
pub const GUEST_SPANS_PER_MINUTE: u32 = 60;

/// Which trace some work belongs to, and which span of it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace: NonZeroU128,
    span: NonZeroU64,
    is_sampled: bool,
}

/// A text is no trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "got no trace context, expected 00-, 32 and 16 and 2 lower-case hexadecimal digits with hyphens, no id of zeros"
)]
pub struct TraceContextError;

impl TraceContext {
    /// The first span of a new trace, which is sampled.
    #[must_use]
    pub fn begin(rng: &mut impl Rng) -> Self {
        Self { trace: rng.random(), span: rng.random(), is_sampled: true }
    }

    /// A new span of the same trace.
    #[must_use]
    pub fn child(self, rng: &mut impl Rng) -> Self {
        Self { span: rng.random(), ..self }
    }

    /// The trace.
    #[must_use]
    pub const fn trace_id(self) -> u128 {
        self.trace.get()
    }

    /// The span.
    #[must_use]
    pub const fn span_id(self) -> u64 {
        self.span.get()
    }

    /// Whoever sent it keeps the span.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self.is_sampled
    }

    /// The trace's id as people read it.
    #[must_use]
    pub fn trace_text(self) -> String {
        format!("{:032x}", self.trace)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }
}

impl FromStr for TraceContext {
    type Err = TraceContextError;

    fn from_str(text: &str) -> Result<Self, TraceContextError> {
        let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let parts: Vec<&str> = text.splitn(5, '-').collect();
        let [version, trace, span, flags] = parts[..] else { return Err(TraceContextError) };
        let is_formed = text.len() == CONTEXT_CHARS
            && version == "00"
            && (trace.len(), span.len(), flags.len()) == (32, 16, 2)
            && [trace, span, flags].into_iter().all(is_hex);
        if !is_formed {
            return Err(TraceContextError);
        }
        let trace = u128::from_str_radix(trace, 16).ok().and_then(NonZeroU128::new).ok_or(TraceContextError)?;
        let span = u64::from_str_radix(span, 16).ok().and_then(NonZeroU64::new).ok_or(TraceContextError)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| TraceContextError)?;
        Ok(Self { trace, span, is_sampled: flags & 1 == 1 })
    }
}

/// A trace context as a message carries it. Whatever a peer put there, the message is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traceparent {
    /// None.
    #[default]
    Absent,
    /// Something that is none: to be counted, and otherwise as if it was not there.
    Unreadable,
    /// This.
    Given(TraceContext),
}

impl Traceparent {
    /// There is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        !matches!(self, Self::Given(_))
    }

    /// The context, if there is one.
    #[must_use]
    pub const fn context(self) -> Option<TraceContext> {
        match self {
            Self::Given(context) => Some(context),
            Self::Absent | Self::Unreadable => None,
        }
    }
}

impl From<Option<TraceContext>> for Traceparent {
    fn from(context: Option<TraceContext>) -> Self {
        context.map_or(Self::Absent, Self::Given)
    }
}

impl Serialize for Traceparent {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Given(context) => to.collect_str(context),
            Self::Absent | Self::Unreadable => to.serialize_none(),
        }
    }
}

/// Takes any value, since a hint must never cost the message that it came with.
impl<'de> Deserialize<'de> for Traceparent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Traceparent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_str<E>(self, text: &str) -> Result<Traceparent, E> {
                Ok(text.parse().map_or(Traceparent::Unreadable, Traceparent::Given))
            }

            fn visit_unit<E>(self) -> Result<Traceparent, E> {
                Ok(Traceparent::Absent)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Traceparent, E> {
                Ok(Traceparent::Unreadable)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Traceparent, E> {
                Ok(Traceparent::Unreadable)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Traceparent, E> {
                Ok(Traceparent::Unreadable)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Traceparent, E> {
                Ok(Traceparent::Unreadable)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Traceparent, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Traceparent::Unreadable)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Traceparent, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Traceparent::Unreadable)
            }
        }
        from.deserialize_any(Any)
    }
}

/// The lot of a peer, below [`LOTS`].
#[must_use]
pub fn lot(peer: &PeerId) -> usize {
    // The end of a peer id is as good as chance: it is the end of a key.
    peer.to_bytes().last().map_or(0, |byte| usize::from(*byte) % LOTS)
}

/// Counts one more span of a lot in this minute: what its cell holds afterwards, or nothing when it began enough. A cell
/// holds the minute and the count, so that it is counted without a lock.
#[must_use]
pub fn admit(cell: u64, now: Duration) -> Option<u64> {
    let minute = (now.as_secs() / 60) & u64::from(u32::MAX);
    let count = if cell >> 32 == minute { cell & u64::from(u32::MAX) } else { 0 };
    (count < u64::from(GUEST_SPANS_PER_MINUTE)).then_some(minute << 32 | (count + 1))
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A search for peers of a user of ours.
    Search,
    /// One indexer was asked for it.
    SearchAsk,
    /// A node's search was passed on to the other indexers.
    SearchRelay,
    /// A query of another indexer was answered.
    SearchAnswer,
    /// A search for resources of a user of ours.
    Resources,
    /// One member was asked for it, or answered what gossip told it.
    ResourcesAsk,
    /// A question about resources was answered.
    ResourcesAnswer,
    /// A beat to an indexer.
    Heartbeat,
    /// A node's beat was answered.
    HeartbeatServe,
}

impl Work {
    /// Its name, as spans have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Search => "search",
            Self::SearchAsk => "search.ask",
            Self::SearchRelay => "search.relay",
            Self::SearchAnswer => "search.answer",
            Self::Resources => "resources",
            Self::ResourcesAsk => "resources.ask",
            Self::ResourcesAnswer => "resources.answer",
            Self::Heartbeat => "heartbeat",
            Self::HeartbeatServe => "heartbeat.serve",
        }
    }

    /// It was done for another member.
    #[must_use]
    pub const fn is_for_another(self) -> bool {
        matches!(self, Self::SearchRelay | Self::SearchAnswer | Self::ResourcesAnswer | Self::HeartbeatServe)
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The last word was said.
    Answered,
    /// No.
    Refused,
    /// It was not reached, or broke off.
    Lost,
    /// It was not over when the search was.
    #[default]
    Open,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Answered, Self::Refused, Self::Lost, Self::Open];

    /// Its name, as spans have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Open => "open",
        }
    }
}

/// A piece of work that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its own context.
    pub context: TraceContext,
    /// The span that it belongs to; none where the trace begins.
    pub parent: Option<NonZeroU64>,
    /// What.
    pub work: Work,
    /// For whom, or whom was asked.
    pub peer: Option<PeerId>,
    /// When.
    pub at: Now,
}

impl Begun {
    /// Work for another member, as a span of the trace that it named.
    #[must_use]
    pub fn for_another(given: TraceContext, work: Work, from: PeerId, now: Now, rng: &mut impl Rng) -> Self {
        Self { context: given.child(rng), parent: Some(given.span), work, peer: Some(from), at: now }
    }

    /// The beginning of a trace.
    #[must_use]
    pub const fn first(context: TraceContext, work: Work, peer: Option<PeerId>, now: Now) -> Self {
        Self { context, parent: None, work, peer, at: now }
    }

    /// It is over.
    #[must_use]
    pub fn over(self, outcome: Outcome, hits: Option<u32>, tally: Option<Tally>, now: Now) -> Span {
        let Self { context, parent, work, peer, at } = self;
        let took = now.mono.since(at.mono);
        Span { context, parent, work, peer, began: at.wall, took, outcome, hits, tally }
    }
}

/// A piece of work that is over. Everything in it is of a fixed size: no word of a peer becomes a label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Its own context.
    pub context: TraceContext,
    /// The span that it belongs to; none where the trace begins.
    pub parent: Option<NonZeroU64>,
    /// What.
    pub work: Work,
    /// For whom, or whom was asked.
    pub peer: Option<PeerId>,
    /// When it began.
    pub began: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub outcome: Outcome,
    /// How much was found.
    pub hits: Option<u32>,
    /// How many indexers were behind it.
    pub tally: Option<Tally>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::{
        identity::Keys,
        json,
        wire::{Heartbeat, ResourceQuestion, SearchPeerRequest, SearchQuery},
    };

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[derive(Debug, Serialize, Deserialize)]
    struct Carrier {
        #[serde(default, skip_serializing_if = "Traceparent::is_empty")]
        traceparent: Traceparent,
        name: String,
    }

    fn carried(value: &str) -> Traceparent {
        let carrier: Carrier = serde_json::from_str(&format!("{{\"traceparent\":{value},\"name\":\"a\"}}")).unwrap();
        assert_eq!(carrier.name, "a", "what follows is read");
        carrier.traceparent
    }

    #[test]
    fn a_context_is_read_and_written_as_the_w3c_has_it() {
        let context: TraceContext = GOOD.parse().unwrap();
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(context.trace_text(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((context.span_id(), context.is_sampled()), (0xb7ad_6b71_6920_3331, true));
        assert_eq!(GOOD.len(), CONTEXT_CHARS);
        let unsampled: TraceContext = GOOD.replace("-01", "-02").parse().unwrap();
        assert!(!unsampled.is_sampled(), "flags that are not known mean nothing");
    }

    #[test]
    fn whatever_is_no_context_is_none() {
        for broken in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}0"),
            &format!("{GOOD}-"),
            &GOOD.to_uppercase(),
            &GOOD.replacen("00-", "01-", 1),
            &GOOD.replacen("00-", "ff-", 1),
            &GOOD.replace('-', "_"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replace("0af7", "+af7"),
            &GOOD.replace("0af7", "0ag7"),
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
            "00-é0f7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        ] {
            assert_eq!(broken.parse::<TraceContext>(), Err(TraceContextError), "{broken:?}");
        }
    }

    #[test]
    fn no_value_in_its_place_costs_the_message() {
        assert_eq!(carried(&format!("\"{GOOD}\"")), Traceparent::Given(GOOD.parse().unwrap()));
        assert_eq!(carried("null"), Traceparent::Absent);
        let unreadable =
            ["\"\"", "\"x\"", "true", "-1", "1", "1.5", "[]", "[[1,{}]]", "{\"a\":[1]}", "\"\\u0030\\u0030-\""];
        for value in unreadable {
            assert_eq!(carried(value), Traceparent::Unreadable, "{value}");
        }
        let none: Carrier = serde_json::from_str("{\"name\":\"a\"}").unwrap();
        assert_eq!(none.traceparent, Traceparent::Absent);
    }

    #[test]
    fn a_broken_context_costs_neither_a_search_nor_a_beat() {
        let peer = Keys::from_seed([1; 32]).peer_id();
        for broken in ["\"x\"", "7", "{\"a\":[1]}"] {
            let parsed = |fields: &str| format!("{{{fields},\"traceparent\":{broken}}}").into_bytes();
            let request = parsed("\"query_id\":\"a\",\"name\":\"par\"");
            let request: SearchPeerRequest = json::parse(&request, 1_024).unwrap();
            let query = parsed(&format!("\"query_id\":\"a\",\"name\":\"par\",\"emitter_id\":\"{peer}\""));
            let query: SearchQuery = json::parse(&query, 1_024).unwrap();
            let question = parsed("\"query_id\":\"a\",\"query\":{\"text\":\"gpu\"}");
            let question: ResourceQuestion = json::parse(&question, 1_024).unwrap();
            let beat: Heartbeat = json::parse(&parsed(&format!("\"seq\":1,\"peer_id\":\"{peer}\"")), 1_024).unwrap();
            let read = [request.traceparent, query.traceparent, question.traceparent, beat.traceparent];
            assert_eq!(read, [Traceparent::Unreadable; 4], "{broken}");
        }
    }

    #[test]
    fn nothing_is_written_where_nothing_is_traced() {
        let text = |traceparent| serde_json::to_string(&Carrier { traceparent, name: String::new() }).unwrap();
        assert_eq!(text(Traceparent::Absent), "{\"name\":\"\"}");
        assert_eq!(text(Traceparent::Unreadable), "{\"name\":\"\"}", "rubbish is not passed on");
        assert!(text(Traceparent::Given(GOOD.parse().unwrap())).contains(GOOD));
    }

    #[test]
    fn a_child_has_its_own_span_in_the_same_trace() {
        let mut rng = StdRng::seed_from_u64(7);
        let first = TraceContext::begin(&mut rng);
        let child = first.child(&mut rng);
        assert_eq!((first.trace_id(), first.is_sampled()), (child.trace_id(), child.is_sampled()));
        assert_ne!(first.span_id(), child.span_id());
        assert_ne!(TraceContext::begin(&mut rng).trace_id(), first.trace_id());
    }

    #[test]
    fn a_lot_begins_as_many_spans_in_a_minute_and_not_one_more() {
        let mut cell = 0;
        let now = Duration::from_secs(119);
        for _ in 0..GUEST_SPANS_PER_MINUTE {
            cell = admit(cell, now).unwrap();
        }
        assert_eq!(admit(cell, now), None);
        let next = admit(cell, Duration::from_secs(120)).unwrap();
        assert_eq!(next & 0xffff_ffff, 1, "the next minute begins with the next");
    }

    #[test]
    fn every_peer_has_a_lot() {
        for seed in 0..=255 {
            assert!(lot(&Keys::from_seed([seed; 32]).peer_id()) < LOTS);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_context_or_an_error_and_a_context_is_written_as_it_came(text in ".{0,64}") {
            if let Ok(context) = text.parse::<TraceContext>() {
                prop_assert_eq!(&context.to_string()[..53], &text[..53]);
            }
        }

        #[test]
        fn what_is_drawn_is_read_again(seed: u64) {
            let context = TraceContext::begin(&mut StdRng::seed_from_u64(seed));
            prop_assert_eq!(context.to_string().parse(), Ok(context));
        }
    }
}
