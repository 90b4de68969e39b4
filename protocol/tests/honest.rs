//! Over 30 days an honest indexer is never evicted for its score, and no honest node is ever refused for its own, at any fill,
//! in a network of any size, while links work.
//!
//! Evidence is drawn as it comes to a node whose links work: some beats are late, some indexers restart, and of twenty others
//! who are asked about them four are in league. `PROPTEST_CASES` says how many networks are lived through.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use proptest::prelude::*;
use protocol::{
    PeerId,
    admission::{Admission, Conduct, Link},
    bandwidth,
    identity::Keys,
    score::{Book, Hold, Judged, Observation, Settings},
    time::Mono,
};
use rand::{SeedableRng as _, rngs::StdRng};

/// Days lived through.
const DAYS: u64 = 30;

/// Time between two beats, and between two judgements.
const TICK_SECS: u64 = 20;

const WEEK_TICKS: u64 = 7 * 86_400 / TICK_SECS;

/// Indexers in one pool: as many as an indexer has.
const POOL_MAX: usize = 10;

/// Other members, who are asked as witnesses, and those of them who are in league against the honest.
const OTHERS: usize = 20;
const IN_LEAGUE: usize = 4;

/// A few in the gate; as many as asked for where somebody asks.
fn cases() -> ProptestConfig {
    const USUAL: u32 = 256;
    let asked = ProptestConfig::default();
    let cases = if asked.cases == USUAL { 6 } else { asked.cases };
    ProptestConfig { cases, ..asked }
}

/// How one honest indexer does.
#[derive(Clone, Debug)]
struct Honest {
    /// Mean round trip.
    rtt_ms: u64,
    /// Its fill wanders between these, in thousandths.
    fill: (u32, u32),
    max_nodes: u32,
    /// Share of its answers that are late, in thousandths.
    late: u32,
    /// Days between two restarts of its process, announced and not.
    restart_days: (u64, u64),
    /// Tick of each week from which the DHT hides records from it.
    hidden_from: u64,
}

fn honest() -> impl Strategy<Value = Honest> {
    let fill = (0..=1_000_u32, 0..=1_000_u32).prop_map(|(one, other)| (one.min(other), one.max(other)));
    let restarts = (1..10_u64, 2..30_u64);
    (1..1_500_u64, fill, 1..=1_000_u32, 0..30_u32, restarts, 0..WEEK_TICKS).prop_map(
        |(rtt_ms, fill, max_nodes, late, restart_days, hidden_from)| Honest {
            rtt_ms,
            fill,
            max_nodes,
            late,
            restart_days,
            hidden_from,
        },
    )
}

/// How one honest node does.
#[derive(Clone, Debug)]
struct Node {
    /// What its link carries, bytes per second.
    speed: f64,
    /// Mean round trip of our pings, our own lateness included.
    rtt_ms: u64,
    /// Share of its beats that are lost, in thousandths.
    lost: u32,
    /// Days between two absences.
    away_days: u64,
}

impl Node {
    /// What a probe measures; nothing when it takes too long, or no ping was answered yet.
    fn measured(&self, rng: &mut StdRng) -> Option<Link> {
        let took = bandwidth::PAYLOAD_BYTES as f64 / (self.speed * rng.random_range(0.3..1.0));
        let came = bandwidth::Came {
            bytes: bandwidth::PAYLOAD_BYTES,
            took: Duration::from_secs_f64(took),
            end: bandwidth::End::Closed,
        };
        let rtt = Duration::from_millis(self.rtt_ms).mul_f64(rng.random_range(0.5..3.0));
        let bytes_per_sec = bandwidth::throughput(came).ok()?;
        Some(Link { bytes_per_sec, rtt: (rng.random_range(0..20) > 0).then_some(rtt) })
    }
}

fn node() -> impl Strategy<Value = Node> {
    (3.0..9.0_f64, 0..5_000_u64, 0..500_u32, 1..10_u64).prop_map(|(decades, rtt_ms, lost, away_days)| Node {
        speed: 10_f64.powf(decades),
        rtt_ms,
        lost,
        away_days,
    })
}

fn is_day_of(tick: u64, days: u64) -> bool {
    tick > 0 && tick.is_multiple_of(days * 86_400 / TICK_SECS)
}

/// A round of some of those who might be asked about an indexer: others, of whom the first ones are in league against it,
/// and the honest ones.
fn round(peer: PeerId, others: &[PeerId], members: &[PeerId], rng: &mut StdRng) -> Vec<(PeerId, bool)> {
    let all: Vec<&PeerId> = others.iter().chain(members).filter(|one| **one != peer).collect();
    let count = rng.random_range(2..=6);
    let asked = rand::seq::index::sample(rng, all.len(), count);
    // An honest one may hear of a restart, or of a crowd, later than we do.
    asked.iter().map(|at| (*all[at], at >= IN_LEAGUE && rng.random_range(0..50) > 0)).collect()
}

fn observe(
    book: &mut Book,
    (peer, honest): (PeerId, &Honest),
    (others, members): (&[PeerId], &[PeerId]),
    tick: u64,
    born: &mut i64,
    rng: &mut StdRng,
) {
    let now = Mono::from_secs(tick * TICK_SECS);
    if is_day_of(tick, honest.restart_days.0) {
        book.observe(peer, &Observation::RestartAnnounced, now);
        *born += 1;
    } else if is_day_of(tick, honest.restart_days.1) {
        *born += 1;
    }
    if rng.random_range(0..1_000) < honest.late {
        book.observe(peer, &Observation::Missed, now);
        return;
    }
    let fill = f64::from(rng.random_range(honest.fill.0..=honest.fill.1)) / 1_000.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to `max_nodes`")]
    let peer_count = (fill * f64::from(honest.max_nodes)).round() as u32;
    let answered = Observation::Answered {
        rtt: Duration::from_millis(honest.rtt_ms).mul_f64(rng.random_range(0.5..1.5)),
        fill_rate: f64::from(peer_count) / f64::from(honest.max_nodes),
        peer_count,
        max_nodes: honest.max_nodes,
        born_at: Timestamp::from_second(*born).unwrap_or(Timestamp::UNIX_EPOCH),
    };
    book.observe(peer, &answered, now);
    // Half an hour each week the DHT hides records from it. It is asked every twelve ticks then, else every nine minutes.
    let is_hidden = (tick + honest.hidden_from) % WEEK_TICKS < 1_800 / TICK_SECS;
    if tick.is_multiple_of(if is_hidden { 12 } else { 540 / TICK_SECS }) {
        book.observe(peer, &Observation::Dht { good: !is_hidden }, now);
    }
    match rng.random_range(0..50) {
        0..10 => book.observe(peer, &Observation::Challenged { good: 1, bad: 0, unfound: 0 }, now),
        10..20 => book.observe(peer, &Observation::Recorded { good: rng.random_range(0..50) > 0 }, now),
        // One of five that an honest indexer names always denies it.
        20..30 => {
            let asked = rng.random_range(0..others.len());
            book.observe(peer, &Observation::Spot { by: others[asked], good: asked >= IN_LEAGUE }, now);
        }
        30..34 => book.witnessed(peer, &round(peer, others, members, rng), now),
        _ => {}
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn g14_an_honest_indexer_is_never_evicted_by_score_over_30_days(
        indexers in proptest::collection::vec(honest(), 1..=POOL_MAX),
        seed: u64,
    ) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut book = Book::new(Settings::default());
        let peers: Vec<_> = indexers.iter().map(|_| Keys::generate(&mut rng).peer_id()).collect();
        let others: Vec<_> = (0..OTHERS).map(|_| Keys::generate(&mut rng).peer_id()).collect();
        let members: Vec<Judged> = peers.iter().map(|peer| Judged { peer: *peer, hold: Hold::Loose, carries: true }).collect();
        // Strangers in league would convict nobody.
        book.set_members(&peers.iter().chain(&others).copied().collect::<BTreeSet<_>>());
        let mut born = vec![0; indexers.len()];
        for tick in 0..DAYS * 86_400 / TICK_SECS {
            for ((peer, honest), born) in peers.iter().zip(&indexers).zip(&mut born) {
                observe(&mut book, (*peer, honest), (&others, &peers), tick, born, &mut rng);
            }
            let evicted = book.judge(&members, Mono::from_secs(tick * TICK_SECS + 10));
            if let Some(eviction) = evicted.first() {
                let at = peers.iter().position(|peer| *peer == eviction.peer);
                prop_assert!(false, "{:?} after {tick} ticks: {:?}", at.map(|at| &indexers[at]), eviction.score);
            }
        }
    }

    /// The indexer's load, the size of the network and the nodes' subnets are no arguments of the rule, so that all of them
    /// may be in one /24. What load does do is to make pings late and probes slow; those that are too slow measure nothing.
    #[test]
    fn g14_an_honest_node_is_never_refused_for_its_score_over_30_days(
        nodes in proptest::collection::vec(node(), 1..=4),
        seed: u64,
    ) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut admission = Admission::new(1_000);
        let peers: Vec<_> = nodes.iter().map(|_| Keys::generate(&mut rng).peer_id()).collect();
        let mut away_until = vec![0; nodes.len()];
        for tick in 0..DAYS * 86_400 / TICK_SECS {
            let now = Mono::from_secs(tick * TICK_SECS);
            for ((peer, node), away_until) in peers.iter().zip(&nodes).zip(&mut away_until) {
                if is_day_of(tick, node.away_days) {
                    // Past 10 minutes it is an absence, as of a machine that is switched off.
                    *away_until = tick + rng.random_range(31..3 * 86_400 / TICK_SECS);
                }
                if tick < *away_until {
                    continue;
                }
                // Up to four beats in a row are late or lost: six ticks make a gap.
                if tick % 5 != 0 && rng.random_range(0..1_000) < node.lost {
                    continue;
                }
                let judged = admission.judge(peer, now);
                prop_assert!(judged.is_ok(), "{node:?} after {tick} ticks: {judged:?}");
                admission.beat(*peer, Conduct::Good, now);
                if rng.random_range(0..15) == 0
                    && let Some(link) = node.measured(&mut rng)
                {
                    admission.measured(*peer, link, now);
                }
            }
        }
    }
}
