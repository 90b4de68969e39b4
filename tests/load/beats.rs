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
    floor::{self, Floor, Kind},
    member::{Member, Spec},
    process::{self, Cores},
};

/// Kept streams, as many as connected nodes.
pub(crate) const NODES: usize = 1_000;

/// For a server's buffers to settle before its memory is read.
const SETTLE: Duration = Duration::from_millis(500);

/// For a server to become quiet: a thousand records at 64 a second, and half as long again.
const QUIET_WITHIN: Duration = Duration::from_secs(24);

/// A server that uses no more than this part of a processor is quiet.
const QUIET_PART: u32 = 20;

/// What the floor's beat costs on a quiet machine of the kind on which the design was measured, microseconds.
const REFERENCE_US: std::ops::RangeInclusive<f64> = 14.0..=25.0;

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
    Indexer(Member),
    Floor(Floor),
}

/// One server and its thousand nodes.
struct Ship {
    pid: u32,
    kind: Option<Kind>,
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
        Ours::Floor(Floor::start(network, Kind::Floor, floor::usual_answer()).await?)
    } else {
        Ours::Indexer(Member::start(base, network, Spec::indexer("indexer-beats", 10 * NODES as u32)).await?)
    };
    let outcome = compare(register, plan, &ours).await;
    Cores::all().confine(std::process::id());
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
    let ours = Ship::man(register, addr, pid, None).await.when("the indexer")?;
    // The others' answers are as long as the indexer's.
    let answer = ours.answer.clone().ok_or_else(|| Broken::new("the indexer gave no answer"))?;
    let mut ships = vec![ours];
    let mut floors = Vec::new();
    for kind in [Kind::Floor, Kind::Stock, Kind::Echo] {
        let floor = Floor::start(&register.network, kind, answer.clone()).await?;
        ships.push(Ship::man(register, &floor.addr, floor.pid, Some(kind)).await.when(format!("{kind:?}"))?);
        floors.push(floor);
    }
    for ship in &ships {
        ship.until_quiet().await?;
    }
    let (theirs, own) = Cores::halves();
    let is_confined = ships.iter().all(|ship| theirs.confine(ship.pid)) && own.confine(std::process::id());
    if !is_confined {
        println!("there is no taskset: processes wander between processors, and figures with them");
    }
    for _ in 0..plan.rounds {
        for ship in &mut ships {
            ship.sail(plan.each).await?;
        }
        // Each takes its turn at being the first.
        ships.rotate_left(1);
    }
    report(&ships)
}

impl Ship {
    async fn man(register: &Register, addr: &Multiaddr, pid: u32, kind: Option<Kind>) -> Outcome<Self> {
        let is_echo = kind == Some(Kind::Echo);
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
        Ok(Self { pid, kind, crew, empty_kib, manned_kib, us_per_beat: Vec::new(), beats: 0, answer })
    }

    /// Waits until the server has done what the arrival of its nodes gave it to do: an indexer puts their records into
    /// the DHT, so many a second.
    async fn until_quiet(&self) -> Outcome<()> {
        let began = Instant::now();
        while began.elapsed() < QUIET_WITHIN {
            let before = process::cpu(self.pid)?;
            tokio::time::sleep(SETTLE).await;
            if process::cpu(self.pid)?.saturating_sub(before) <= SETTLE / QUIET_PART {
                return Ok(());
            }
        }
        println!(
            "process {} is still busy {QUIET_WITHIN:?} after its nodes came; what it does counts as theirs",
            self.pid
        );
        Ok(())
    }

    /// Every node beats as fast as it is answered; all beats and all processor time count.
    async fn sail(&mut self, time: Duration) -> Outcome<()> {
        let before = process::cpu(self.pid)?;
        let until = Instant::now() + time;
        let is_echo = self.kind == Some(Kind::Echo);
        let crew = self.crew.drain(..);
        let tasks: Vec<_> = crew.map(|sailor| tokio::spawn(beat_until(sailor, until, is_echo))).collect();
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

    fn us(&self) -> String {
        format!("{:.1} µs", median(&self.us_per_beat))
    }

    fn per_core_second(&self) -> String {
        format!("{:.0}/s", 1e6 / median(&self.us_per_beat))
    }

    /// Ours divided by this one's, round by round.
    fn ratios(&self, ours: &Self) -> Vec<f64> {
        ours.us_per_beat.iter().zip(&self.us_per_beat).map(|(ours, below)| ours / below).collect()
    }

    fn kib_per_node(&self, rss_kib: u64) -> f64 {
        rss_kib.saturating_sub(self.empty_kib) as f64 / NODES as f64
    }

    fn manned_kib_per_node(&self) -> f64 {
        self.kib_per_node(self.manned_kib)
    }

    fn laden_kib_per_node(&self) -> Outcome<f64> {
        Ok(self.kib_per_node(process::rss_kib(self.pid)?))
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

fn report(ships: &[Ship]) -> Outcome<Vec<Row>> {
    let find = |kind: Option<Kind>| {
        ships.iter().find(|ship| ship.kind == kind).ok_or_else(|| Broken::new("a server was not measured"))
    };
    let (ours, floor) = (find(None)?, find(Some(Kind::Floor))?);
    let (stock, echo) = (find(Some(Kind::Stock))?, find(Some(Kind::Echo))?);
    let answer_bytes = ours.answer.as_ref().and_then(|answer| serde_json::to_vec(answer).ok()).map_or(0, |it| it.len());
    let question_bytes = ours.crew.first().map_or(0, |sailor| sailor.beats.question_bytes());
    println!(
        "questions have {question_bytes} bytes, answers {answer_bytes}; {}",
        reference(median(&floor.us_per_beat))
    );
    let (to_floor, manned) = (floor.ratios(ours), ours.manned_kib_per_node());
    let cpu = format!("processor time per heartbeat, {NODES} kept streams");
    let beats = ours.beats + ours.crew.len();
    let memory = |what: String, of: fn(&Ship) -> Outcome<f64>| -> Outcome<Row> {
        let (ours, floor, stock) = (of(ours)?, of(floor)?, of(stock)?);
        let beside = format!("floor {floor:.1} KiB, stock {stock:.1} KiB");
        Ok(Row::new(what, format!("{ours:.1} KiB")).beside(beside).ratio(format!("{:.2}", ours / floor)))
    };
    Ok(vec![
        Row::new(format!("{cpu}, beside the floor"), ours.us())
            .beside(floor.us())
            .ratio(spread(&to_floor))
            .goal("≤ 1.5 × floor", median(&to_floor) <= 1.5),
        Row::new("the same beside the floor with libp2p's own behaviours (stock)", ours.us())
            .beside(stock.us())
            .ratio(spread(&stock.ratios(ours))),
        Row::new("the same beside a bare echo", ours.us()).beside(echo.us()).ratio(spread(&echo.ratios(ours))),
        Row::new("heartbeats answered per core second, beside the floor", ours.per_core_second())
            .beside(floor.per_core_second()),
        memory(format!("memory per connected node at {NODES}, after their first beat"), |ship| {
            Ok(ship.manned_kib_per_node())
        })?
        .goal("≤ 80 KiB", manned <= 80.0),
        memory(format!("the same after {beats} beats"), Ship::laden_kib_per_node)?,
    ])
}

/// Whether this machine is now as quick as the one on which the design's floor was measured.
fn reference(floor_us: f64) -> String {
    let is_near = REFERENCE_US.contains(&floor_us);
    let verdict = if is_near { "wall times may be quoted" } else { "wall times say little here" };
    format!("the floor's {floor_us:.1} µs against {} to {}: {verdict}", REFERENCE_US.start(), REFERENCE_US.end())
}
