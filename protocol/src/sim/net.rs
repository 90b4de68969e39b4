//! The network: who reaches whom, how long a message takes, and which connections there are.
//!
//! The transport repeats what is lost, so that loss is delay; a message is lost for good only when its link is cut or
//! its connection closed. Connections are known to both ends at once when they close; whoever did not close hears of it
//! after the flight of a message, or never when the link is cut.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt, rngs::StdRng};

use super::scenario::Network;

/// The first pause before a lost packet is repeated; it doubles, as RFC 6298 has it, from Linux's least.
const REPEAT_FIRST: Duration = Duration::from_millis(200);

/// After so many losses in a row the transport gives the connection up: what was sent is lost.
const REPEATS_MAX: u32 = 12;

/// Flights from the first packet of a dial until the listener has read its hello: TCP, the pre-shared key and Noise,
/// negotiation, hello.
const DIAL_FLIGHTS: u32 = 7;

/// Whether a member runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Up {
    Down,
    Running,
    Frozen,
}

/// Nothing passes from one set to the other.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    pub(super) name: String,
    pub(super) from: Vec<bool>,
    pub(super) to: Vec<bool>,
}

#[derive(Debug)]
pub(super) struct Net {
    settings: Network,
    rng: StdRng,
    places: Vec<(f64, f64)>,
    pub(super) loss: Vec<f64>,
    pub(super) cuts: Vec<Cut>,
    pub(super) up: Vec<Up>,
    /// Each end's: its number, and when this end last sent over it.
    connections: Vec<BTreeMap<u32, (u64, Duration)>>,
    numbered: u64,
}

impl Net {
    pub(super) fn new(settings: Network, members: usize, mut rng: StdRng) -> Self {
        let places = (0..members).map(|_| (rng.random::<f64>(), rng.random::<f64>())).collect();
        Self {
            loss: vec![settings.loss; members],
            settings,
            rng,
            places,
            cuts: Vec::new(),
            up: vec![Up::Down; members],
            connections: vec![BTreeMap::new(); members],
            numbered: 0,
        }
    }

    /// A message from one to the other arrives in time.
    pub(super) fn reaches(&self, from: u32, to: u32) -> bool {
        let is_cut = |cut: &Cut| cut.from[from as usize] && cut.to[to as usize];
        !self.cuts.iter().any(is_cut)
    }

    /// Both ways.
    pub(super) fn is_linked(&self, one: u32, other: u32) -> bool {
        self.reaches(one, other) && self.reaches(other, one)
    }

    fn distance(&self, from: u32, to: u32) -> Duration {
        let ((x, y), (u, v)) = (self.places[from as usize], self.places[to as usize]);
        // The diagonal of the square is 1.
        let share = (x - u).hypot(y - v) / std::f64::consts::SQRT_2;
        self.settings.latency_min.0 + self.settings.latency_span.0.mul_f64(share)
    }

    /// How long a message takes; nothing when it never arrives.
    pub(super) fn flight(&mut self, from: u32, to: u32) -> Option<Duration> {
        if !self.reaches(from, to) {
            return None;
        }
        let jitter = self.settings.jitter.0.mul_f64(-(1.0 - self.rng.random::<f64>()).ln());
        Some(self.distance(from, to) + jitter + self.repeats(from, to)?)
    }

    /// What repeating lost packets adds.
    fn repeats(&mut self, from: u32, to: u32) -> Option<Duration> {
        let loss = self.loss[from as usize].max(self.loss[to as usize]);
        let (mut wait, mut pause) = (Duration::ZERO, REPEAT_FIRST);
        if loss <= 0.0 {
            return Some(wait);
        }
        for _ in 0..REPEATS_MAX {
            if self.rng.random::<f64>() >= loss {
                return Some(wait);
            }
            wait += pause;
            pause *= 2;
        }
        None
    }

    /// How long a dial takes until the listener has read the dialer's hello.
    pub(super) fn dial_flight(&mut self, from: u32, to: u32) -> Option<Duration> {
        let mut whole = Duration::ZERO;
        for flight in 0..DIAL_FLIGHTS {
            let (from, to) = if flight % 2 == 0 { (from, to) } else { (to, from) };
            whole += self.flight(from, to)?;
        }
        Some(whole)
    }

    /// The connection between two, if there is one.
    pub(super) fn connection(&self, one: u32, other: u32) -> Option<u64> {
        self.connections[one as usize].get(&other).map(|(number, _)| *number)
    }

    /// Makes a connection where there is none.
    pub(super) fn connect(&mut self, one: u32, other: u32, now: Duration) {
        if self.connection(one, other).is_none() {
            self.numbered += 1;
            self.connections[one as usize].insert(other, (self.numbered, now));
            self.connections[other as usize].insert(one, (self.numbered, now));
        }
    }

    /// One end sends over it.
    pub(super) fn used(&mut self, one: u32, other: u32, now: Duration) {
        if let Some((_, used)) = self.connections[one as usize].get_mut(&other) {
            *used = now;
        }
    }

    /// Those connections of one end over which neither end sent anything for so long.
    pub(super) fn idle(&self, one: u32, now: Duration, most: Duration) -> Vec<u32> {
        let is_idle = |used: Duration| now.saturating_sub(used) >= most;
        let mine = self.connections[one as usize].iter().filter(|(_, (_, used))| is_idle(*used));
        let theirs = |peer: u32| self.connections[peer as usize].get(&one).is_none_or(|(_, used)| is_idle(*used));
        mine.map(|(peer, _)| *peer).filter(|peer| theirs(*peer)).collect()
    }

    /// Closes the connection between two; tells whether there was one.
    pub(super) fn disconnect(&mut self, one: u32, other: u32) -> bool {
        self.connections[other as usize].remove(&one);
        self.connections[one as usize].remove(&other).is_some()
    }

    /// Everybody that this one is connected to.
    pub(super) fn connected(&self, one: u32) -> impl Iterator<Item = u32> + '_ {
        self.connections[one as usize].keys().copied()
    }
}
