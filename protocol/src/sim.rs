//! Nodes and indexers in virtual time: the state machines of this crate, played over a network of chance.
//!
//! A [`Scenario`] says who is there, what happens and what must follow; a seed is all the chance there is. The same
//! scenario and seed give the same log, to the last byte, on any machine: its hash is told, and a seed that fails can be
//! played again. Between the rules stands glue that does what the actors do; a rule that they need is never written
//! twice.
//!
//! What always holds is looked at after each event: nobody is in its own pool, a pool and the sessions of an indexer
//! stay within their bounds, nobody honest is blamed, banned, evicted for its score or over a limit, no number goes
//! back.
//!
//! What it leaves out: the cost of handling, gossip and search, the routing of the DHT, reading the own record back, the
//! signatures and epochs of presence tokens, audits by the hash's choice, spot checks and bandwidth probes.

mod audit;
mod beat;
mod check;
mod dht;
mod host;
mod lie;
mod log;
mod member;
mod message;
mod net;
mod queue;
mod report;
pub mod scenario;
mod size;
#[cfg(test)]
mod tests;
mod witness;
mod world;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::SignedDuration;
use multiaddr::Multiaddr;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use self::{
    check::Watch,
    log::Log,
    member::{Member, Own},
    message::What,
    net::{Cut, Net, Up},
    scenario::{Group, Happening, Role, Step, Who},
    world::{To, World},
};
pub use self::{
    check::{Met, Violation},
    lie::{Lie, Lying},
    report::{Kind, Outcome, Sample, Traffic},
    scenario::Scenario,
};
use crate::{heartbeat::Asker, identity::Keys, wire::AddrInfo};

/// Members of one run: what fits into the memory of one machine.
pub const MEMBERS_MAX: usize = 100_000;

/// Samples of one run: as many as a plot has points.
pub const SAMPLES_MAX: u32 = 600;

/// The port of every member; the address makes the difference.
const PORT: u16 = 4_001;

/// What is wrong with a scenario.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScenarioError {
    /// Two groups have one name, or a name is not of lower-case letters.
    #[error("got the group \"{name}\", expected another name of lower-case letters for each")]
    Group {
        /// Its name.
        name: String,
    },
    /// There is nobody of that name.
    #[error("got \"{who}\", expected a group, a member or a range of members")]
    Nobody {
        /// The name.
        who: String,
    },
    /// There are too many.
    #[error("got {got} members, expected 1 to {MEMBERS_MAX}")]
    Members {
        /// How many.
        got: usize,
    },
}

/// One run of a scenario.
#[derive(Debug)]
pub struct Sim {
    seed: u64,
    world: World,
    members: Vec<Member>,
    watch: Watch,
    names: Names,
    samples: Vec<Sample>,
    events: u64,
}

impl Sim {
    /// A run that has not begun. Its log is kept as text where `keeps_log`; its hash always.
    ///
    /// # Errors
    /// When the scenario names whom it does not have, or has nobody or too many.
    pub fn new(scenario: Scenario, seed: u64, keeps_log: bool) -> Result<Self, ScenarioError> {
        let names = Names::new(&scenario.members)?;
        let scenario = Arc::new(scenario);
        let owns = owns(&scenario, &names, seed)?;
        let infos: Vec<AddrInfo> =
            owns.iter().map(|own| AddrInfo { id: own.peer, addrs: vec![own.addr.clone()] }).collect();
        let is_indexer: Vec<bool> = owns.iter().map(|own| own.is_indexer).collect();
        let peers: Vec<_> = infos.iter().map(|info| info.id).collect();
        let net = Net::new(scenario.network.clone(), owns.len(), chance(seed, "network", 0));
        let dht = dht::Dht::new(&peers, &is_indexer);
        let mut world =
            World::new(Arc::clone(&scenario), net, dht, Log::new(keeps_log), infos, chance(seed, "world", 0));
        world.is_indexer = is_indexer;
        world.names = owns.iter().map(|own| own.name.clone()).collect();
        let mut members = Vec::new();
        for own in owns {
            let rng = chance(seed, "member", u64::from(own.at));
            members.push(Member::new(own, rng, Vec::new(), &world));
        }
        let mut expected = Vec::new();
        for expectation in &scenario.expect {
            expected.push((expectation.clone(), names.all(&expectation.who)?));
        }
        for step in &scenario.then {
            names.all(&step.who)?;
        }
        let watch = Watch::new(expected);
        let mut sim = Self { seed, world, members, watch, names, samples: Vec::new(), events: 0 };
        sim.plan(&scenario, seed);
        Ok(sim)
    }

    /// Queues what the scenario says.
    fn plan(&mut self, scenario: &Scenario, seed: u64) {
        let mut rng = chance(seed, "starts", 0);
        let mut at = 0_u32;
        for group in &scenario.members {
            for _ in 0..group.count {
                let wait = group.start_within.0.mul_f64(rng.random::<f64>());
                self.world.push(group.start.0 + wait, To::Start(at));
                self.world.set_clock(at, SignedDuration::from_secs(group.clock_ahead_secs));
                self.lie(at, group.lies.clone());
                at += 1;
            }
        }
        for (number, step) in scenario.then.iter().enumerate() {
            self.world.push(step.at.0, To::Step(number));
        }
        self.world.push(scenario.check_every.0, To::Check);
    }

    /// Plays it to its end.
    #[must_use]
    pub fn run(mut self) -> Outcome {
        let end = self.world.scenario.length.0;
        while let Some(to) = self.world.next(end) {
            self.events += 1;
            self.play(to);
        }
        self.watch.end(end);
        self.outcome()
    }

    fn play(&mut self, to: To) {
        match to {
            To::Member { at, life, what } => {
                if let Some(what) = self.world.admit(at, life, what) {
                    self.tell(at, what);
                }
            }
            To::Start(at) => self.start(at),
            To::Step(number) => {
                let scenario = Arc::clone(&self.world.scenario);
                self.happen(&scenario.then[number]);
            }
            To::Check => self.check(),
        }
    }

    fn tell(&mut self, at: u32, what: What) {
        let member = &mut self.members[at as usize];
        member.handle(what, &mut self.world);
        let most = self.world.scenario.pool.max_indexer.max(1) as usize * 2;
        if let Some(broken) = member.broken(most) {
            self.world.violated(at, broken);
        }
    }

    fn start(&mut self, at: u32) {
        if self.world.net.up[at as usize] == Up::Down {
            self.world.begin(at);
            self.tell(at, What::Begin);
        }
    }

    fn check(&mut self) {
        self.watch.check(&self.members, &mut self.world);
        let (now, scenario) = (self.world.now, &self.world.scenario);
        let every = scenario.length.0 / SAMPLES_MAX;
        if self.samples.last().is_none_or(|last| now - last.at >= every) {
            self.samples.push(check::sample(&self.members, &self.world));
        }
        self.world.push(now + scenario.check_every.0.max(Duration::from_millis(1)), To::Check);
    }

    fn happen(&mut self, step: &Step) {
        // They were looked up when the run was made.
        let who = self.names.all(&step.who).unwrap_or_default();
        let first = who.first().copied().unwrap_or_default();
        self.world.note(first, format_args!("STEP {:?} {:?}", step.who, step.what));
        match &step.what {
            Happening::Cut { name, from, one_way } => self.cut(name, &who, from, *one_way),
            Happening::Heal { name } => self.world.net.cuts.retain(|cut| cut.name != *name),
            Happening::Mark => self.watch.mark(&self.members, &self.world),
            what => who.into_iter().for_each(|at| self.happen_to(at, what)),
        }
    }

    fn happen_to(&mut self, at: u32, what: &Happening) {
        let up = self.world.net.up[at as usize];
        match what {
            Happening::Kill if up != Up::Down => self.world.end(at),
            Happening::Start => self.start(at),
            Happening::Leave if up == Up::Running => self.members[at as usize].leave(&mut self.world),
            Happening::Freeze if up == Up::Running => self.world.net.up[at as usize] = Up::Frozen,
            Happening::Thaw => self.world.thaw(at),
            Happening::Loss { share } => self.world.net.loss[at as usize] = *share,
            Happening::Clock { ahead_secs } if up == Up::Running => {
                self.world.set_clock(at, SignedDuration::from_secs(*ahead_secs));
                self.members[at as usize].claim_within(Duration::ZERO, &mut self.world);
            }
            Happening::Clock { ahead_secs } => self.world.set_clock(at, SignedDuration::from_secs(*ahead_secs)),
            Happening::Starve { every, stall } => self.world.starve(at, every.0, stall.0),
            Happening::Lie { lies } => self.lie(at, lies.clone()),
            Happening::Drain { is_on } if up == Up::Running => self.members[at as usize].drain(*is_on, &self.world),
            _ => {}
        }
    }

    fn lie(&mut self, at: u32, lies: Vec<Lying>) {
        // Once a liar, nobody's word for honesty.
        self.world.is_honest[at as usize] &= lies.is_empty();
        self.members[at as usize].lies = lies;
    }

    fn cut(&mut self, name: &str, who: &[u32], from: &[Who], one_way: bool) {
        let members = self.members.len();
        let set = |who: &[u32]| {
            let mut set = vec![false; members];
            who.iter().for_each(|at| set[*at as usize] = true);
            set
        };
        let one = set(who);
        let others = self.names.all(from).unwrap_or_default();
        let other: Vec<bool> = if from.is_empty() { one.iter().map(|is_in| !is_in).collect() } else { set(&others) };
        self.world.net.cuts.push(Cut { name: name.to_owned(), from: one.clone(), to: other.clone() });
        if !one_way {
            self.world.net.cuts.push(Cut { name: name.to_owned(), from: other, to: one });
        }
    }

    fn outcome(self) -> Outcome {
        let world = self.world;
        let indexers = world.names.iter().zip(&world.is_indexer).filter(|(_, is_indexer)| **is_indexer);
        Outcome {
            seed: self.seed,
            hash: world.log.hash(),
            lines: world.log.lines(),
            log: world.log.text().map(str::to_owned),
            events: self.events,
            members: self.members.len(),
            violations: world.violations,
            met: self.watch.met,
            indexers: indexers.map(|(name, _)| name.clone()).collect(),
            samples: self.samples,
            traffic: world.traffic,
        }
    }
}

/// Members by name.
#[derive(Clone, Debug)]
struct Names {
    /// The first of each group, and how many it has.
    groups: BTreeMap<String, (u32, u32)>,
}

impl Names {
    fn new(groups: &[Group]) -> Result<Self, ScenarioError> {
        let mut named = BTreeMap::new();
        let mut next = 0_u32;
        for group in groups {
            let name = group.name.clone();
            let is_word = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase());
            if !is_word || named.insert(name.clone(), (next, group.count)).is_some() {
                return Err(ScenarioError::Group { name });
            }
            next = next.saturating_add(group.count);
        }
        let got = next as usize;
        if (1..=MEMBERS_MAX).contains(&got) { Ok(Self { groups: named }) } else { Err(ScenarioError::Members { got }) }
    }

    fn all(&self, who: &[Who]) -> Result<Vec<u32>, ScenarioError> {
        let mut all = Vec::new();
        for who in who {
            all.extend(self.some(who).ok_or_else(|| ScenarioError::Nobody { who: who.clone() })?);
        }
        Ok(all)
    }

    fn some(&self, who: &str) -> Option<std::ops::Range<u32>> {
        let digits = who.find(|letter: char| letter.is_ascii_digit()).unwrap_or(who.len());
        let (group, numbers) = who.split_at(digits);
        let (first, count) = *self.groups.get(group)?;
        if numbers.is_empty() {
            return Some(first..first + count);
        }
        let (from, to) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        (from <= to && to < count).then(|| first + from..first + to + 1)
    }
}

/// Chance of its own for each purpose and member, so that one more draw of one changes nothing for the others.
fn chance(seed: u64, purpose: &str, number: u64) -> StdRng {
    StdRng::from_seed(drawn(seed, purpose, number))
}

fn drawn(seed: u64, purpose: &str, number: u64) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_be_bytes());
    hasher.update(purpose.as_bytes());
    hasher.update(number.to_be_bytes());
    hasher.finalize().into()
}

/// Everybody, with seeds.
fn owns(scenario: &Scenario, names: &Names, seed: u64) -> Result<Vec<Own>, ScenarioError> {
    let mut owns: Vec<Own> = Vec::new();
    for (number, group) in (0_u8..).zip(&scenario.members) {
        for in_group in 0..group.count {
            owns.push(own(owns.len(), number, in_group, group, seed));
        }
    }
    let infos: Vec<AddrInfo> =
        owns.iter().map(|own| AddrInfo { id: own.peer, addrs: vec![own.addr.clone()] }).collect();
    let mut rng = chance(seed, "seeds", 0);
    let mut at = 0;
    for group in &scenario.members {
        let all = names.all(&group.seeds)?;
        for _ in 0..group.count {
            let mut seeds = all.clone();
            if let Some(count) = group.seeds_drawn {
                seeds.shuffle(&mut rng);
                seeds.truncate(count as usize);
            }
            owns[at].seeds = seeds.into_iter().map(|seed| infos[seed as usize].clone()).collect();
            at += 1;
        }
    }
    Ok(owns)
}

fn own(at: usize, group_number: u8, in_group: u32, group: &Group, seed: u64) -> Own {
    let at = u32::try_from(at).unwrap_or(u32::MAX);
    let keys = Keys::from_seed(drawn(seed, "key", u64::from(at)));
    let (name, did) = (format!("{}{in_group}", group.name), keys.did().to_string());
    let bytes = in_group.to_be_bytes();
    // Public addresses: a subnet for each, or as many as the group has.
    let ip = match group.subnets {
        None => [11 + group_number, bytes[2], bytes[3], 1],
        Some(subnets) => {
            let [_, _, high, low] = (in_group % subnets.max(1)).to_be_bytes();
            [60 + group_number, high, low, 1 + (in_group / subnets.max(1) % 250) as u8]
        }
    };
    let addr = Multiaddr::empty().with(multiaddr::Protocol::Ip4(ip.into())).with(multiaddr::Protocol::Tcp(PORT));
    Own {
        at,
        peer: keys.peer_id(),
        asker: Asker { name: name.clone(), did: did.clone(), peer_id: keys.peer_id() },
        name,
        did,
        addr,
        is_indexer: group.role == Role::Indexer,
        max_nodes: group.max_nodes,
        seeds: Vec::new(),
        keys,
    }
}
