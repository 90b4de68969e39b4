//! What one heartbeat and one connected node cost a server, beside the floor and a bare echo, alternately in one run.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::Multiaddr;
use protocol::wire::HeartbeatResponse;

use crate::{
    broken::{Broken, Outcome, While},
    crew::{Register, Sailor, each},
    figures::{Row, median, spread},
    floor::{self, Floor},
    indexer::Indexer,
    process,
};

/// Kept streams, as many as connected nodes.
pub(crate) const NODES: usize = 1_000;

/// For a server's buffers to settle before its memory is read.
const SETTLE: Duration = Duration::from_millis(500);

/// How long it is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Rounds, each of which measures every server once.
    pub(crate) rounds: u32,
    /// Of each server in each round.
    pub(crate) each: Duration,
    /// A second floor stands in for the indexer: the ratio should be 1.
    pub(crate) sanity: bool,
}

/// The server that is measured.
enum Ours {
    Indexer(Indexer),
    Floor(Floor),
}

/// One server and its thousand nodes.
struct Ship {
    pid: u32,
    is_echo: bool,
    crew: Vec<Sailor>,
    empty_kib: u64,
    manned_kib: u64,
    us_per_beat: Vec<f64>,
    beats: usize,
    answer: Option<HeartbeatResponse>,
}

/// Measures, and tells all that it found.
///
/// # Errors
/// When a node is refused or a beat is lost.
pub(crate) async fn measure(base: &Path, register: &Register, plan: Plan) -> Outcome<Vec<Row>> {
    let network = &register.network;
    let ours = if plan.sanity {
        Ours::Floor(Floor::start(network, false, floor::usual_answer()).await?)
    } else {
        Ours::Indexer(Indexer::start(base, "indexer-beats", network, &[], 10 * NODES as u32).await?)
    };
    let outcome = compare(register, plan, &ours).await;
    outcome.map_err(|broken| match &ours {
        Ours::Indexer(indexer) => Broken::new(format!("{broken}\n{}", indexer.last_words())),
        Ours::Floor(_) => broken,
    })
}

async fn compare(register: &Register, plan: Plan, ours: &Ours) -> Outcome<Vec<Row>> {
    let (addr, pid) = match ours {
        Ours::Indexer(indexer) => (&indexer.addr, indexer.pid),
        Ours::Floor(floor) => (&floor.addr, floor.pid),
    };
    let ours = Ship::man(register, addr, pid, false).await.when("the indexer")?;
    // The floor's answers are as long as the indexer's.
    let answer = ours.answer.clone().ok_or_else(|| Broken::new("the indexer gave no answer"))?;
    let floor = Floor::start(&register.network, false, answer.clone()).await?;
    let echo = Floor::start(&register.network, true, answer).await?;
    let floor_ship = Ship::man(register, &floor.addr, floor.pid, false).await.when("the floor")?;
    let echo_ship = Ship::man(register, &echo.addr, echo.pid, true).await.when("the echo")?;
    let mut ships = [echo_ship, floor_ship, ours];
    for round in 0..plan.rounds {
        // Each takes its turn at being the first.
        ships.rotate_left(usize::from(round > 0));
        for ship in &mut ships {
            ship.sail(plan.each).await?;
        }
    }
    ships.rotate_right(plan.rounds.saturating_sub(1) as usize % 3);
    let [echo, floor, ours] = ships;
    report(&echo, &floor, &ours)
}

impl Ship {
    async fn man(register: &Register, addr: &Multiaddr, pid: u32, is_echo: bool) -> Outcome<Self> {
        tokio::time::sleep(SETTLE).await;
        let empty_kib = process::rss_kib(pid)?;
        let crew = each(0..NODES, |number| {
            let (register, addr) = (register.clone(), addr.clone());
            async move {
                let mut sailor = Sailor::aboard(number, Arc::new(register.node(number)?), &addr).await?;
                if is_echo {
                    sailor.beats.echo().await?;
                } else {
                    sailor.introduce(true).await?;
                }
                Ok(sailor)
            }
        });
        let mut crew = crew.await?;
        let answer = if is_echo { None } else { Some(crew[0].beats.beat().await?) };
        tokio::time::sleep(SETTLE).await;
        let manned_kib = process::rss_kib(pid)?;
        Ok(Self { pid, is_echo, crew, empty_kib, manned_kib, us_per_beat: Vec::new(), beats: 0, answer })
    }

    /// Every node beats as fast as it is answered; all beats and all processor time count.
    async fn sail(&mut self, time: Duration) -> Outcome<()> {
        let before = process::cpu(self.pid)?;
        let until = Instant::now() + time;
        let is_echo = self.is_echo;
        let tasks: Vec<_> =
            self.crew.drain(..).map(|sailor| tokio::spawn(beat_until(sailor, until, is_echo))).collect();
        let mut beats = 0;
        for task in tasks {
            let (sailor, count) = task.await??;
            beats += count;
            self.crew.push(sailor);
        }
        let used = process::cpu(self.pid)?.saturating_sub(before);
        self.us_per_beat.push(used.as_secs_f64() * 1e6 / beats.max(1) as f64);
        self.beats += beats;
        Ok(())
    }

    fn kib_per_node(&self, rss_kib: u64) -> f64 {
        rss_kib.saturating_sub(self.empty_kib) as f64 / NODES as f64
    }
}

async fn beat_until(mut sailor: Sailor, until: Instant, is_echo: bool) -> Outcome<(Sailor, usize)> {
    let mut count = 0;
    while Instant::now() < until {
        if is_echo {
            sailor.beats.echo().await.when(format!("a beat of node {}", sailor.number))?;
        } else {
            sailor.beats.beat().await.when(format!("a beat of node {}", sailor.number))?;
        }
        count += 1;
    }
    Ok((sailor, count))
}

fn report(echo: &Ship, floor: &Ship, ours: &Ship) -> Outcome<Vec<Row>> {
    let ratios = |below: &Ship| -> Vec<f64> {
        ours.us_per_beat.iter().zip(&below.us_per_beat).map(|(ours, below)| ours / below).collect()
    };
    let (to_floor, to_echo) = (ratios(floor), ratios(echo));
    let us = |ship: &Ship| format!("{:.1} µs", median(&ship.us_per_beat));
    let per_core = |ship: &Ship| format!("{:.0}/s", 1e6 / median(&ship.us_per_beat));
    let answer_bytes = ours.answer.as_ref().and_then(|answer| serde_json::to_vec(answer).ok()).map_or(0, |it| it.len());
    let question_bytes = ours.crew.first().map_or(0, |sailor| sailor.beats.question_bytes());
    let laden_kib = ours.kib_per_node(process::rss_kib(ours.pid)?);
    let floor_laden_kib = floor.kib_per_node(process::rss_kib(floor.pid)?);
    let (manned, floor_manned) = (ours.kib_per_node(ours.manned_kib), floor.kib_per_node(floor.manned_kib));
    Ok(vec![
        Row::new(format!("processor time per heartbeat, {NODES} kept streams, beside the floor"), us(ours))
            .beside(us(floor))
            .ratio(spread(&to_floor))
            .goal("≤ 1.5 × floor", median(&to_floor) <= 1.5),
        Row::new(format!("the same beside an echo of {question_bytes} bytes (answers have {answer_bytes})"), us(ours))
            .beside(us(echo))
            .ratio(spread(&to_echo)),
        Row::new("heartbeats answered per core second, beside the floor", per_core(ours)).beside(per_core(floor)),
        Row::new(format!("memory per connected node at {NODES}, after their first beat"), format!("{manned:.1} KiB"))
            .beside(format!("{floor_manned:.1} KiB"))
            .ratio(format!("{:.2}", manned / floor_manned))
            .goal("≤ 80 KiB", manned <= 80.0),
        Row::new(format!("the same after {} beats", ours.beats + ours.crew.len()), format!("{laden_kib:.1} KiB"))
            .beside(format!("{floor_laden_kib:.1} KiB"))
            .ratio(format!("{:.2}", laden_kib / floor_laden_kib)),
    ])
}
