//! What all members share: time, the queue of what is to come, the network, the DHT, and what is written down.

use std::{fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use libp2p_identity::PeerId;
use rand::{RngExt, rngs::StdRng};

use super::{
    check::Violation,
    dht::Dht,
    host::role,
    log::Log,
    message::{Message, What},
    net::{Net, Up},
    queue::Queue,
    report::{Kind, Traffic},
    scenario::{Happening, Scenario},
    size,
};
use crate::wire::{self, AddrInfo};

/// True time at the start of every run: 2026-01-01.
const EPOCH_SECS: i64 = 1_767_225_600;

/// Events held for one frozen member: what its sockets take in. More is lost, as it is there.
const HELD_MAX: usize = 4_096;

/// Violations kept of one run: the first explains, the others repeat it.
const VIOLATIONS_MAX: usize = 32;

/// The number of each member.
#[expect(clippy::disallowed_types, reason = "nobody else chooses its keys")]
type Numbers = rustc_hash::FxHashMap<PeerId, u32>;

/// For whom an event is.
#[derive(Debug)]
pub(super) enum To {
    /// A member, in this life of its process.
    Member { at: u32, life: u32, what: What },
    /// A member, to begin a life of its process.
    Start(u32),
    /// The scenario's step of this number.
    Step(usize),
    /// Everybody who looks on.
    Check,
}

/// A member that stops now and then for want of processor time.
#[derive(Clone, Copy, Debug)]
struct Stall {
    every: Duration,
    length: Duration,
    next: Duration,
    until: Duration,
}

/// What all members share.
#[derive(Debug)]
pub(super) struct World {
    pub(super) scenario: Arc<Scenario>,
    pub(super) now: Duration,
    queue: Queue,
    numbered: u64,
    pub(super) net: Net,
    pub(super) dht: Dht,
    pub(super) log: Log,
    pub(super) traffic: Traffic,
    pub(super) violations: Vec<Violation>,
    /// Looked up, never walked.
    ids: Numbers,
    pub(super) infos: Vec<AddrInfo>,
    pub(super) names: Vec<String>,
    pub(super) is_indexer: Vec<bool>,
    pub(super) is_honest: Vec<bool>,
    /// How often each process began or ended.
    pub(super) lives: Vec<u32>,
    ahead: Vec<SignedDuration>,
    stalls: Vec<Option<Stall>>,
    held: Vec<Vec<What>>,
    rng: StdRng,
    epoch: Timestamp,
    hellos: Hellos,
    /// Somebody starts again, so what databases keep is needed.
    pub(super) keeps_disks: bool,
}

impl World {
    pub(super) fn new(
        scenario: Arc<Scenario>,
        net: Net,
        dht: Dht,
        log: Log,
        infos: Vec<AddrInfo>,
        rng: StdRng,
    ) -> Self {
        let members = infos.len();
        let keeps_disks = scenario.then.iter().any(|step| matches!(step.what, Happening::Start));
        Self {
            keeps_disks,
            hellos: Hellos::new(),
            scenario,
            now: Duration::ZERO,
            queue: Queue::default(),
            numbered: 0,
            net,
            dht,
            log,
            traffic: Traffic::default(),
            violations: Vec::new(),
            ids: infos.iter().zip(0..).map(|(info, at)| (info.id, at)).collect(),
            names: vec![String::new(); members],
            is_indexer: vec![false; members],
            is_honest: vec![true; members],
            lives: vec![0; members],
            ahead: vec![SignedDuration::ZERO; members],
            stalls: vec![None; members],
            held: (0..members).map(|_| Vec::new()).collect(),
            infos,
            rng,
            epoch: Timestamp::from_second(EPOCH_SECS).unwrap_or(Timestamp::UNIX_EPOCH),
        }
    }

    // Time.

    /// What a member's clock shows.
    pub(super) fn wall(&self, at: u32) -> Timestamp {
        self.true_time().checked_add(self.ahead[at as usize]).unwrap_or(self.epoch)
    }

    pub(super) fn true_time(&self) -> Timestamp {
        self.epoch.checked_add(self.now).unwrap_or(self.epoch)
    }

    pub(super) fn set_clock(&mut self, at: u32, ahead: SignedDuration) {
        self.ahead[at as usize] = ahead;
    }

    // The queue.

    pub(super) fn push(&mut self, at: Duration, to: To) {
        self.numbered += 1;
        self.queue.push(at.max(self.now), self.numbered, to);
    }

    /// A number that was never given before.
    pub(super) fn fresh(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    /// For this life of the member, after a while.
    pub(super) fn after(&mut self, wait: Duration, at: u32, what: What) {
        let life = self.lives[at as usize];
        self.push(self.now + wait, To::Member { at, life, what });
    }

    /// The next event, its time being now; nothing when the run is over.
    pub(super) fn next(&mut self, end: Duration) -> Option<To> {
        let (at, to) = self.queue.pop()?;
        if at > end {
            return None;
        }
        self.now = at;
        Some(to)
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// What a member can take in now: nothing while it is down, frozen or stalled, or of an earlier life.
    pub(super) fn admit(&mut self, at: u32, life: u32, what: What) -> Option<What> {
        let member = at as usize;
        if self.lives[member] != life {
            return None;
        }
        match self.net.up[member] {
            Up::Down => None,
            Up::Frozen => {
                if self.held[member].len() < HELD_MAX {
                    self.held[member].push(what);
                }
                None
            }
            Up::Running => self.unless_stalled(at, what),
        }
    }

    fn unless_stalled(&mut self, at: u32, what: What) -> Option<What> {
        let now = self.now;
        let Some(mut stall) = self.stalls[at as usize] else { return Some(what) };
        if now >= stall.next {
            stall.until = now + self.drawn(stall.length);
            stall.next = stall.until + self.drawn(stall.every);
            self.stalls[at as usize] = Some(stall);
        }
        if now >= stall.until {
            return Some(what);
        }
        self.after(stall.until - now, at, what);
        None
    }

    /// An exponential time with this mean.
    fn drawn(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.rng.random::<f64>()).ln())
    }

    pub(super) fn starve(&mut self, at: u32, every: Duration, length: Duration) {
        let next = self.now + self.drawn(every);
        let stall = Stall { every, length, next, until: Duration::ZERO };
        self.stalls[at as usize] = (!every.is_zero()).then_some(stall);
    }

    pub(super) fn thaw(&mut self, at: u32) {
        if self.net.up[at as usize] == Up::Frozen {
            self.net.up[at as usize] = Up::Running;
            for what in std::mem::take(&mut self.held[at as usize]) {
                self.after(Duration::ZERO, at, what);
            }
        }
    }

    /// A process ends: its connections are reset, and whoever is reached hears of it.
    pub(super) fn end(&mut self, at: u32) {
        self.net.up[at as usize] = Up::Down;
        self.lives[at as usize] += 1;
        self.held[at as usize].clear();
        self.dht.forget(at);
        let connected: Vec<u32> = self.net.connected(at).collect();
        for peer in connected {
            self.close(at, peer);
        }
    }

    pub(super) fn begin(&mut self, at: u32) {
        self.net.up[at as usize] = Up::Running;
        self.lives[at as usize] += 1;
    }

    // Messages.

    /// Bytes of a usual hello.
    pub(super) fn hello_bytes(&self, is_indexer: bool) -> usize {
        self.hellos.0[usize::from(is_indexer)]
    }

    /// Closes the connection to a peer, which hears of it when it is reached.
    pub(super) fn close(&mut self, at: u32, peer: u32) {
        if self.net.disconnect(at, peer)
            && let Some(flight) = self.net.flight(at, peer)
        {
            self.after(flight, peer, What::Closed { by: at });
        }
    }

    /// Sends over the connection to a peer; lost where there is none, or the link is cut.
    pub(super) fn send(&mut self, from: u32, to: u32, kind: Kind, bytes: usize, message: Message) {
        self.traffic.count(kind, bytes);
        let Some(connection) = self.net.connection(from, to) else { return };
        self.net.used(from, to, self.now);
        if let Some(flight) = self.net.flight(from, to) {
            self.after(flight, to, What::Arrived { from, connection, message });
        }
    }

    /// Dials a peer: it hears a hello, or the dialer that nobody is there, or nobody hears anything.
    pub(super) fn dial(&mut self, from: u32, to: u32, dial: u64, within: Duration) {
        let nobody = || What::DialEnded { to, dial, outcome: None };
        self.after(within, from, nobody());
        if self.net.up[to as usize] != Up::Down {
            if let Some(flight) = self.net.dial_flight(from, to) {
                self.after(flight, to, What::Dialled { from, dial });
            }
        } else if let (Some(there), Some(back)) = (self.net.flight(from, to), self.net.flight(to, from)) {
            // Its machine refuses for it.
            self.after(there + back, from, nobody());
        }
    }

    // Names.

    pub(super) fn at(&self, peer: &PeerId) -> Option<u32> {
        self.ids.get(peer).copied()
    }

    pub(super) fn id(&self, at: u32) -> PeerId {
        self.infos[at as usize].id
    }

    pub(super) fn name(&self, peer: &PeerId) -> &str {
        self.at(peer).map_or("?", |at| &self.names[at as usize])
    }

    // What is written down.

    pub(super) fn note(&mut self, who: u32, what: fmt::Arguments<'_>) {
        self.log.line(self.now, who, what);
    }

    pub(super) fn violated(&mut self, who: u32, what: String) {
        self.log.line(self.now, who, format_args!("VIOLATION {what}"));
        if self.violations.len() < VIOLATIONS_MAX {
            let who = self.names[who as usize].clone();
            self.violations.push(Violation { at: self.now, who, what });
        }
    }
}

/// Bytes of a usual hello: a node's, an indexer's.
#[derive(Clone, Copy, Debug)]
struct Hellos([usize; 2]);

impl Hellos {
    fn new() -> Self {
        Self([false, true].map(|is_indexer| hello_bytes(role(is_indexer))))
    }
}

fn hello_bytes(role: wire::Role) -> usize {
    let hello = wire::Hello {
        version: wire::VERSION.to_owned(),
        network_id: "opencloud".to_owned(),
        agent: "muster/0.1.0".to_owned(),
        role,
        light: false,
        capabilities: crate::hello::capabilities(role).into_iter().map(str::to_owned).collect(),
        did: "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK".to_owned(),
        network_keys: Vec::new(),
        born_at: Timestamp::UNIX_EPOCH,
        time: Timestamp::UNIX_EPOCH,
    };
    size::written(&hello)
}
