//! What always holds and what must follow: looked at while a run goes on.

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use super::{
    member::Member,
    net::Up,
    report::Sample,
    scenario::{Expectation, Wanted},
    world::World,
};
use crate::pool::Reach;

/// Members whose bounds are looked at in one check: all of a large network take their turns.
const BOUNDED_AT_ONCE: usize = 64;

/// Nodes that are asked for their scores in one sample: more change its mean by nothing.
const SCORERS_MAX: usize = 100;

/// Events that wait for one member on the average: its timers, and the messages of some beats.
const QUEUED_PER_MEMBER_MAX: usize = 256;

/// How often what ended in the DHT is dropped.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub at: Duration,
    /// Whose.
    pub who: String,
    /// What.
    pub what: String,
}

/// How an expectation fared.
#[derive(Clone, Debug, PartialEq)]
pub struct Met {
    /// What was expected.
    pub expectation: Expectation,
    /// When it was true for the first time.
    pub at: Option<Duration>,
    /// When and why it was not kept.
    pub failed: Option<(Duration, String)>,
}

/// Looks on.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) met: Vec<Met>,
    /// Whom each expectation is about.
    who: Vec<Vec<u32>>,
    /// Who was in whose pool when the scenario said so.
    marked: BTreeMap<u32, Vec<PeerId>>,
    turn: usize,
    swept: Duration,
}

impl Watch {
    pub(super) fn new(expected: Vec<(Expectation, Vec<u32>)>) -> Self {
        let (met, who) =
            expected.into_iter().map(|(expectation, who)| (Met { expectation, at: None, failed: None }, who)).unzip();
        Self { met, who, marked: BTreeMap::new(), turn: 0, swept: Duration::ZERO }
    }

    pub(super) fn mark(&mut self, members: &[Member], world: &World) {
        let nodes = running(world).filter(|at| !world.is_indexer[*at as usize]);
        self.marked =
            nodes.map(|at| (at, members[at as usize].members.iter().map(|judged| judged.peer).collect())).collect();
    }

    /// One look at everything.
    pub(super) fn check(&mut self, members: &[Member], world: &mut World) {
        self.bounds(members, world);
        let now = world.now;
        for at in 0..self.met.len() {
            let Met { expectation, at: met_at, failed } = &self.met[at];
            let Expectation { from, by, until, .. } = expectation;
            let is_over = now < from.0 || until.is_some_and(|until| now > until.0);
            let is_done = by.is_some() && until.is_none() && met_at.is_some();
            if failed.is_some() || is_over || is_done {
                continue;
            }
            let (by, is_met) = (by.map(|by| by.0), met_at.is_some());
            let holds = self.holds(&expectation.what, &self.who[at], members, world);
            let met = &mut self.met[at];
            match (holds, by) {
                (Ok(()), _) => {
                    met.at.get_or_insert(now);
                }
                // Before its time it may still come, or go again.
                (Err(_), Some(by)) if now < by => {}
                (Err(why), by) => {
                    let first = if by.is_some() && !is_met { "not yet: " } else { "" };
                    world.note(0, format_args!("EXPECTATION {at} is not kept: {first}{why}"));
                    met.failed = Some((now, format!("{first}{why}")));
                }
            }
        }
    }

    /// What was never true though its time came.
    pub(super) fn end(&mut self, now: Duration) {
        for met in &mut self.met {
            let is_due = met.expectation.by.is_some_and(|by| by.0 <= now);
            if is_due && met.at.is_none() && met.failed.is_none() {
                met.failed = Some((now, "was never looked at in time".to_owned()));
            }
        }
    }

    fn bounds(&mut self, members: &[Member], world: &mut World) {
        if world.now.saturating_sub(self.swept) >= SWEEP_EVERY {
            self.swept = world.now;
            let now = world.true_time();
            world.dht.sweep(now);
        }
        if world.queued() > QUEUED_PER_MEMBER_MAX * members.len() {
            world.violated(0, format!("{} events wait", world.queued()));
        }
        for _ in 0..BOUNDED_AT_ONCE.min(members.len()) {
            let at = self.turn % members.len();
            self.turn += 1;
            if world.net.up[at] == Up::Running
                && let Some(what) = members[at].unbounded(world)
            {
                world.violated(members[at].own.at, what);
            }
        }
    }

    fn holds(&self, wanted: &Wanted, who: &[u32], members: &[Member], world: &World) -> Result<(), String> {
        let is_running = |at: &&u32| world.net.up[**at as usize] == Up::Running;
        let each = |what: &dyn Fn(u32) -> Option<String>| -> Result<(), String> {
            who.iter().filter(is_running).find_map(|at| what(*at)).map_or(Ok(()), Err)
        };
        let name = |at: u32| &world.names[at as usize];
        let ids: Vec<PeerId> = who.iter().map(|at| world.id(*at)).collect();
        match wanted {
            Wanted::Whole => each(&|at| not_whole(at, members, world)),
            Wanted::Pooled { least } => each(&|at| {
                let answering = members[at as usize].answering();
                (answering < *least as usize).then(|| format!("{} has {answering} that answer", name(at)))
            }),
            Wanted::Isolated => each(&|at| {
                let reach = members[at as usize].pool.reach();
                (reach != Reach::Isolated).then(|| format!("{} says {reach:?}", name(at)))
            }),
            Wanted::Unlisted => {
                let lists = |at: u32| {
                    let pool = &members[at as usize].pool;
                    ids.iter().find(|peer| pool.is_member(peer)).map(|peer| (at, world.name(peer)))
                };
                none(running(world).find_map(lists).map(|(at, peer)| format!("{} lists {peer}", name(at))))
            }
            Wanted::NotAnswering => {
                let counts = |at: u32| {
                    let member = &members[at as usize];
                    let now = member.now(world).mono;
                    ids.iter().find(|peer| member.is_answering(peer, now)).map(|peer| (at, world.name(peer)))
                };
                let honest = running(world).filter(|at| world.is_honest[*at as usize]);
                none(honest.into_iter().find_map(counts).map(|(at, peer)| format!("{} counts on {peer}", name(at))))
            }
            Wanted::Shunned { most, heard_for } => each(&|at| {
                let peer = world.id(at);
                let honest = || running(world).filter(|other| *other != at && world.is_honest[*other as usize]);
                let count = |other: &u32| {
                    let member = &members[*other as usize];
                    let now = member.now(world).mono;
                    let has_heard = member.book.facts(&peer, now).is_some_and(|facts| facts.online >= heard_for.0);
                    has_heard && member.is_answering(&peer, now)
                };
                let share = honest().filter(count).count() as f64 / (honest().count() as f64).max(1.0);
                (share > *most).then(|| format!("{share:.2} of the honest count on {}", name(at)))
            }),
            Wanted::Forgotten => {
                let serves = |at: u32| {
                    let member = &members[at as usize];
                    let now = member.now(world).mono;
                    let host = member.host.as_ref()?;
                    ids.iter().find(|peer| host.registry.has_session(peer, now)).map(|peer| (at, world.name(peer)))
                };
                none(running(world).find_map(serves).map(|(at, peer)| format!("{} has a session of {peer}", name(at))))
            }
            Wanted::Resolvable => each(&|at| {
                let is_held = holders(at, members, world) > 0 || world.dht.is_held(at, world.wall(at), &world.net);
                (!is_held).then(|| format!("the record of {} is nowhere", name(at)))
            }),
            Wanted::Acquainted => each(&|at| {
                let book = &members[at as usize].host.as_ref()?.book;
                let others = who.iter().filter(is_running).filter(|other| **other != at);
                let is_known = |other: u32| {
                    book.get(&world.id(other)).is_some_and(|(record, _)| record.expiry_date > world.wall(at))
                };
                let missing = others.copied().find(|other| !is_known(*other));
                missing.map(|other| format!("{} does not know {}", name(at), name(other)))
            }),
            Wanted::Balanced { most, least } => {
                let sessions = sessions(who, members, world);
                let mean = sessions.iter().sum::<f64>() / (sessions.len() as f64).max(1.0);
                let ratio = sessions.iter().copied().fold(0.0, f64::max) / mean.max(1.0);
                let lowest = sessions.iter().copied().fold(mean, f64::min) / mean.max(1.0);
                let is_apart = ratio > *most || lowest < *least;
                none(is_apart.then(|| format!("the loads are {lowest:.2} to {ratio:.2} times the mean of {mean:.0}")))
            }
            Wanted::Moved { most } => {
                let (moved, all) = self.moved(members, world);
                let share = moved as f64 / (all as f64).max(1.0);
                none((share > *most).then(|| format!("{moved} of {all} nodes moved")))
            }
            Wanted::GivenUp { most } => {
                let (given_up, all) = self.given_up(members, world);
                let share = given_up as f64 / (all as f64).max(1.0);
                none((share > *most).then(|| format!("{given_up} of {all} memberships were given up")))
            }
            Wanted::Sessions { least, most } => each(&|at| {
                let count = members[at as usize].host.as_ref()?.registry.count();
                (count < *least || count > *most).then(|| format!("{} has {count} sessions", name(at)))
            }),
            Wanted::Unblemished => {
                let blames = |at: u32| {
                    let member = &members[at as usize];
                    let now = member.now(world).mono;
                    let restarts =
                        |peer: &&PeerId| member.book.facts(peer, now).is_some_and(|facts| facts.restarts > 0.01);
                    ids.iter().find(restarts).map(|peer| (at, world.name(peer)))
                };
                none(
                    running(world)
                        .find_map(blames)
                        .map(|(at, peer)| format!("{} holds a restart against {peer}", name(at))),
                )
            }
        }
    }

    /// Of the nodes that were marked and run, those that gave up an indexer that runs.
    fn moved(&self, members: &[Member], world: &World) -> (usize, usize) {
        let gave_up = |at: u32, peers: &[PeerId]| peers.iter().any(|peer| is_given_up(at, peer, members, world));
        (self.kept(world).filter(|(at, peers)| gave_up(*at, peers)).count(), self.kept(world).count())
    }

    /// Of their memberships in indexers that run, those that are none any more.
    fn given_up(&self, members: &[Member], world: &World) -> (usize, usize) {
        let marked = || self.kept(world).flat_map(|(at, peers)| peers.iter().map(move |peer| (at, peer)));
        let runs = |peer: &PeerId| world.at(peer).is_some_and(|at| world.net.up[at as usize] == Up::Running);
        let given_up = marked().filter(|(at, peer)| is_given_up(*at, peer, members, world)).count();
        (given_up, marked().filter(|(_, peer)| runs(peer)).count())
    }

    /// The nodes that were marked and run.
    fn kept(&self, world: &World) -> impl Iterator<Item = (u32, &Vec<PeerId>)> {
        let is_running = |at: &u32| world.net.up[*at as usize] == Up::Running;
        self.marked.iter().filter(move |(at, _)| is_running(at)).map(|(at, peers)| (*at, peers))
    }
}

/// The indexer runs, and is no member any more.
fn is_given_up(at: u32, peer: &PeerId, members: &[Member], world: &World) -> bool {
    let runs = world.at(peer).is_some_and(|at| world.net.up[at as usize] == Up::Running);
    runs && !members[at as usize].pool.is_member(peer)
}

fn none(found: Option<String>) -> Result<(), String> {
    found.map_or(Ok(()), Err)
}

/// Everybody who runs.
fn running(world: &World) -> impl Iterator<Item = u32> + '_ {
    (0_u32..).zip(&world.net.up).filter(|(_, up)| **up == Up::Running).map(|(at, _)| at)
}

/// Running indexers that serve a member's record and that it reaches.
fn holders(at: u32, members: &[Member], world: &World) -> usize {
    let me = world.id(at);
    let serves = |peer: &PeerId| {
        let Some(by) = world.at(peer).filter(|by| world.net.up[*by as usize] == Up::Running) else { return false };
        let member = &members[by as usize];
        let record = member.host.as_ref().and_then(|host| host.registry.by_peer(&me, member.now(world)));
        world.net.is_linked(at, by) && record.is_some()
    };
    members[at as usize].members.iter().filter(|judged| serves(&judged.peer)).count()
}

fn not_whole(at: u32, members: &[Member], world: &World) -> Option<String> {
    let member = &members[at as usize];
    let name = &member.own.name;
    let min = world.scenario.pool.min_indexer.max(1) as usize;
    let answering = member.answering();
    if answering < min {
        return Some(format!("{name} has {answering} that answer"));
    }
    let is_there = |other: &u32| *other != at && world.is_indexer[*other as usize] && world.net.is_linked(at, *other);
    let wanted = running(world).filter(is_there).count().min(2).min(world.scenario.pool.max_indexer as usize);
    let held = holders(at, members, world);
    (held < wanted).then(|| format!("the record of {name} is held by {held}, expected {wanted}"))
}

fn sessions(who: &[u32], members: &[Member], world: &World) -> Vec<f64> {
    let running = who.iter().filter(|at| world.net.up[**at as usize] == Up::Running);
    running.filter_map(|at| members[*at as usize].host.as_ref()).map(|host| f64::from(host.registry.count())).collect()
}

/// How everybody does now.
pub(super) fn sample(members: &[Member], world: &World) -> Sample {
    let indexers = || (0_u32..).zip(&world.is_indexer).filter(|(_, is_indexer)| **is_indexer).map(|(at, _)| at);
    let is_up = |at: u32| world.net.up[at as usize] == Up::Running;
    let sessions = indexers()
        .map(|at| members[at as usize].host.as_ref().filter(|_| is_up(at)).map(|host| host.registry.count()))
        .collect();
    let nodes = || running(world).filter(|at| !world.is_indexer[*at as usize]);
    let pooled: Vec<f64> = nodes().map(|at| members[at as usize].answering() as f64).collect();
    let mean = pooled.iter().sum::<f64>() / (pooled.len() as f64).max(1.0);
    let most = pooled.iter().copied().fold(0.0, f64::max);
    let least = pooled.iter().copied().fold(most, f64::min);
    let scores = indexers().map(|indexer| {
        let peer = world.id(indexer);
        let seen = nodes().take(SCORERS_MAX).filter_map(|at| {
            let member = &members[at as usize];
            member.book.score(&peer, member.now(world).mono).map(|score| score.value)
        });
        let seen: Vec<f64> = seen.collect();
        (!seen.is_empty()).then(|| seen.iter().sum::<f64>() / seen.len() as f64)
    });
    let scores = if world.is_indexer.len() > SCORED_NETWORK_MAX { Vec::new() } else { scores.collect() };
    Sample { at: world.now, sessions, pooled: (least, mean, most), scores, traffic: world.traffic.clone() }
}

/// In larger networks scores are not sampled: their lines could not be told apart.
const SCORED_NETWORK_MAX: usize = 2_000;
