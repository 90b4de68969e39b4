//! What `muster top` knows and what of it is looked at; no terminal, no clock.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use actors::view::{ActorState, ActorView, EventView, PeerView, StatusView};

use crate::cli::exit::Failure;

/// Events that can be scrolled back to: as many as a daemon keeps.
const EVENTS_MAX: usize = 1_000;

/// Rows that a page key moves.
const PAGE: usize = 20;

/// What is counted of searches, as `/metrics` names it, and in words.
pub(super) const SEARCHES: [(&str, &str); 8] = [
    ("muster_searches_served_total", "searches served for nodes"),
    ("muster_searches_refused_total", "searches refused: busy or over a limit"),
    ("muster_queries_answered_total", "queries of other indexers answered"),
    ("muster_results_dropped_total", "results dropped: unknown query, stranger, invalid"),
    ("muster_gets_served_total", "look-ups served"),
    ("muster_resource_searches", "searches for resources open now"),
    ("muster_resource_questions_answered_total", "questions about resources answered"),
    ("muster_resource_questions_refused_total", "questions about resources refused"),
];

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Whom the member knows.
    Peers,
    /// What runs in it.
    Actors,
    /// What it is asked.
    Searches,
    /// What happened.
    Events,
}

impl View {
    /// All of them, in the order of their tabs.
    pub(super) const ALL: [Self; 4] = [Self::Peers, Self::Actors, Self::Searches, Self::Events];

    /// Its tab.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Actors => "actors",
            Self::Searches => "searches",
            Self::Events => "events",
        }
    }

    /// Where its tab stands.
    pub(super) fn place(self) -> usize {
        Self::ALL.iter().position(|view| *view == self).unwrap_or(0)
    }

    fn at(place: usize) -> Self {
        Self::ALL.get(place % Self::ALL.len()).copied().unwrap_or(Self::Peers)
    }
}

/// A key, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// The end.
    Quit,
    /// The next view.
    Next,
    /// The one before.
    Previous,
    /// A row up.
    Up,
    /// A row down.
    Down,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// The first row.
    Top,
    /// The first letter or the number of a view.
    Letter(char),
    /// The window changed.
    Redraw,
}

/// One look at a member.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The overview.
    pub(super) status: StatusView,
    /// Every actor.
    pub(super) actors: Vec<ActorView>,
    /// Every peer.
    pub(super) peers: Vec<PeerView>,
    /// What happened since the look before.
    pub(super) events: Vec<EventView>,
    /// The numbers, as text.
    pub(super) metrics: String,
}

/// A number, and how it grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    /// What it is.
    pub(super) words: &'static str,
    /// How much.
    pub(super) now: f64,
    /// By how much in a second, between the last two looks.
    pub(super) per_second: f64,
}

/// Everything that is drawn.
#[derive(Debug)]
pub(super) struct State {
    /// What is looked at.
    pub(super) view: View,
    /// The first row that is shown.
    pub(super) offset: usize,
    /// The last look.
    pub(super) status: StatusView,
    /// The busiest and the ill first.
    pub(super) actors: Vec<ActorView>,
    /// As the daemon orders them.
    pub(super) peers: Vec<PeerView>,
    /// The newest first.
    pub(super) events: VecDeque<EventView>,
    /// Of searches.
    pub(super) figures: Vec<Figure>,
    /// Why the last look failed.
    pub(super) trouble: Option<String>,
    counted: BTreeMap<&'static str, f64>,
    counted_at: Instant,
}

impl State {
    /// After a first look.
    pub(super) fn new(seen: Seen, at: Instant) -> Self {
        let mut state = Self {
            view: View::Peers,
            offset: 0,
            status: seen.status.clone(),
            actors: Vec::new(),
            peers: Vec::new(),
            events: VecDeque::new(),
            figures: Vec::new(),
            trouble: None,
            counted: BTreeMap::new(),
            counted_at: at,
        };
        state.took(seen, at);
        state
    }

    /// The newest event that is known.
    pub(super) fn last_event(&self) -> u64 {
        self.events.front().map_or(0, |event| event.seq)
    }

    /// A look that succeeded.
    pub(super) fn took(&mut self, seen: Seen, at: Instant) {
        let Seen { status, mut actors, peers, events, metrics } = seen;
        // Another process counts its events anew.
        if status.born_at != self.status.born_at {
            self.events.clear();
            self.counted.clear();
        }
        let is_ill = |actor: &ActorView| actor.state != ActorState::Running;
        actors.sort_by_key(|actor| {
            let busy = actor.in_flight.max(u64::from(is_ill(actor)).saturating_mul(u64::MAX));
            (std::cmp::Reverse(busy), std::cmp::Reverse(actor.handled))
        });
        for event in events {
            if event.seq > self.last_event() {
                self.events.push_front(event);
            }
        }
        self.events.truncate(EVENTS_MAX);
        self.count(&metrics, at);
        (self.status, self.actors, self.peers, self.trouble) = (status, actors, peers, None);
        self.keep_in_sight();
    }

    /// A look that failed: what was seen last stays, and is said to be old.
    pub(super) fn missed(&mut self, failure: &Failure) {
        self.trouble = Some(failure.what.clone());
    }

    /// A key; false when it is the end.
    pub(super) fn press(&mut self, key: Key) -> bool {
        let turn = |view: View, by: usize| View::at(view.place() + by);
        match key {
            Key::Quit => return false,
            Key::Redraw => {}
            Key::Next => self.show(turn(self.view, 1)),
            Key::Previous => self.show(turn(self.view, View::ALL.len() - 1)),
            Key::Up => self.offset = self.offset.saturating_sub(1),
            Key::Down => self.offset = self.offset.saturating_add(1),
            Key::PageUp => self.offset = self.offset.saturating_sub(PAGE),
            Key::PageDown => self.offset = self.offset.saturating_add(PAGE),
            Key::Top => self.offset = 0,
            Key::Letter(letter) => {
                let is_meant = |(place, view): &(usize, View)| {
                    letter.to_digit(10).is_some_and(|digit| digit as usize == place + 1)
                        || view.title().starts_with(letter.to_ascii_lowercase())
                };
                if let Some((_, view)) = View::ALL.into_iter().enumerate().find(is_meant) {
                    self.show(view);
                }
            }
        }
        self.keep_in_sight();
        true
    }

    /// How many rows the view has.
    pub(super) fn rows(&self) -> usize {
        match self.view {
            View::Peers => self.peers.len(),
            View::Actors => self.actors.len(),
            View::Searches => self.figures.len(),
            View::Events => self.events.len(),
        }
    }

    fn show(&mut self, view: View) {
        if self.view != view {
            (self.view, self.offset) = (view, 0);
        }
    }

    fn keep_in_sight(&mut self) {
        self.offset = self.offset.min(self.rows().saturating_sub(1));
    }

    fn count(&mut self, metrics: &str, at: Instant) {
        let since = at.saturating_duration_since(self.counted_at).max(Duration::from_millis(1)).as_secs_f64();
        self.figures = SEARCHES
            .into_iter()
            .filter_map(|(name, words)| {
                let now = number(metrics, name)?;
                let before = self.counted.insert(name, now).unwrap_or(now);
                Some(Figure { words, now, per_second: (now - before) / since })
            })
            .collect();
        self.counted_at = at;
    }
}

/// The number of this name in OpenMetrics text.
fn number(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.split(' ').next()?.parse().ok())
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;
    use protocol::wire::Role;

    use super::*;
    use crate::{admin::testing, cli::exit::Exit};

    pub(in super::super) fn actor(name: &str, state: ActorState, in_flight: u64) -> ActorView {
        ActorView {
            name: name.to_owned(),
            kind: String::new(),
            parent: "root".to_owned(),
            state,
            incarnation: 1,
            uptime_ms: 65_000,
            restarts: 0,
            last_error: None,
            handled: 7,
            in_flight,
            in_flight_max: 9,
            shed: 0,
            busy_ms: 0,
            handle_p50_us: 12,
            handle_p99_us: 1_200,
            wait_p50_us: 0,
            wait_p99_us: 0,
        }
    }

    fn event(seq: u64) -> EventView {
        let (kind, subject) = ("member_joined".to_owned(), format!("peer-{seq}\u{1b}"));
        EventView { seq, at: Timestamp::UNIX_EPOCH, kind, subject, detail: "it answers".to_owned() }
    }

    pub(in super::super) fn seen(events: std::ops::RangeInclusive<u64>) -> Seen {
        let peer = PeerView {
            peer_id: testing::peer(),
            name: "lyon\u{1b}".to_owned(),
            did: String::new(),
            role: Role { node: true, indexer: false },
            agent: String::new(),
            connected: true,
            last_seen: None,
            network_keys: Vec::new(),
            addrs: Vec::new(),
        };
        let status = StatusView {
            version: "1.2.3".to_owned(),
            profile: "local".to_owned(),
            uptime_ms: 65_000,
            pool_answering: 2,
            connections: 3,
            ..testing::status()
        };
        Seen {
            status,
            actors: vec![
                actor("root/calm", ActorState::Running, 0),
                actor("root/busy", ActorState::Running, 5),
                actor("root/stuck", ActorState::Stuck, 0),
            ],
            peers: vec![peer; 30],
            events: events.map(event).collect(),
            metrics: "# HELP x\nmuster_searches_served_total 10\nmuster_gets_served_total 4 123.5\n# EOF\n".to_owned(),
        }
    }

    fn state() -> State {
        State::new(seen(1..=3), Instant::now())
    }

    #[test]
    fn keys_switch_between_the_views_and_quit() {
        let mut state = state();
        assert_eq!(state.view, View::Peers);
        for (key, view) in [
            (Key::Next, View::Actors),
            (Key::Letter('e'), View::Events),
            (Key::Next, View::Peers),
            (Key::Previous, View::Events),
            (Key::Letter('3'), View::Searches),
            (Key::Letter('P'), View::Peers),
            (Key::Letter('z'), View::Peers),
            (Key::Letter('9'), View::Peers),
        ] {
            assert!(state.press(key), "{key:?}");
            assert_eq!(state.view, view, "{key:?}");
        }
        assert!(!state.press(Key::Quit));
    }

    #[test]
    fn rows_are_never_scrolled_out_of_sight() {
        let mut state = state();
        state.press(Key::Up);
        assert_eq!(state.offset, 0);
        for _ in 0..5 {
            state.press(Key::PageDown);
        }
        assert_eq!(state.offset, 29, "the last of thirty peers");
        state.press(Key::Letter('a'));
        assert_eq!(state.offset, 0, "another view begins at its top");
        state.press(Key::PageDown);
        let mut fewer = seen(1..=3);
        fewer.actors.truncate(1);
        state.took(fewer, Instant::now());
        assert_eq!(state.offset, 0);
    }

    #[test]
    fn the_ill_and_the_busy_are_shown_first() {
        let state = state();
        let names: Vec<&str> = state.actors.iter().map(|actor| actor.name.as_str()).collect();
        assert_eq!(names, ["root/stuck", "root/busy", "root/calm"]);
    }

    #[test]
    fn events_are_kept_once_the_newest_first_and_no_more_than_a_daemon_keeps() {
        let mut state = state();
        assert_eq!(state.last_event(), 3);
        state.took(seen(2..=5), Instant::now());
        let seqs: Vec<u64> = state.events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, [5, 4, 3, 2, 1]);
        state.took(seen(6..=2_000), Instant::now());
        assert_eq!((state.events.len(), state.last_event()), (EVENTS_MAX, 2_000));
        let mut restarted = seen(1..=1);
        restarted.status.born_at = Timestamp::from_second(1).unwrap();
        state.took(restarted, Instant::now());
        assert_eq!(state.events.len(), 1, "another process counts anew");
    }

    #[test]
    fn numbers_of_searches_grow_by_the_second() {
        let began = Instant::now();
        let mut state = State::new(seen(1..=1), began);
        let mut later = seen(1..=1);
        later.metrics = later.metrics.replace("served_total 10", "served_total 16");
        state.took(later, began + Duration::from_secs(2));
        let searches = state.figures[0];
        assert_eq!((searches.now, searches.per_second), (16.0, 3.0));
        assert_eq!(state.figures.len(), 2, "what is not counted there is not shown");
    }

    #[test]
    fn what_was_seen_last_stays_while_nobody_answers() {
        let mut state = state();
        state.missed(&Failure::new(Exit::Unreachable, "no daemon answers"));
        assert_eq!(state.trouble.as_deref(), Some("no daemon answers"));
        assert_eq!(state.peers.len(), 30);
        state.took(seen(1..=3), Instant::now());
        assert_eq!(state.trouble, None);
    }
}
