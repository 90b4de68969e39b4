//! Thousands of nodes arrive at once at one indexer with the profile `public`: F9 of the design.
//!
//! Each is a thin node on an address of its own, and does what a real one does: it waits for as long as it is told, tries
//! again after a growing pause when its connection is lost, and beats from then on.

use std::{
    net::Ipv4Addr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use actors::view::BanView;
use libp2p::Multiaddr;
use protocol::{
    gate::WINDOW,
    profile::Profile,
    wire::{HeartbeatResponse, RefusalCode},
};
use rand::RngExt;
use tokio::{
    sync::{Barrier, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    broken::{Broken, Outcome, While},
    crew::Register,
    figures::{Row, percentile, secs},
    member::{Member, Spec},
    process,
    thin::{self, Beats, Link, Signed, Thin},
};

/// The rules that they meet.
const PROFILE: Profile = Profile::Public;

/// Nodes of one /24: twice what its bucket holds.
const PER_SUBNET: usize = 20;

/// Further room in the indexer, so that capacity keeps nobody out.
const ROOM: usize = 1_000;

/// A node's pause after a lost connection, each twice the one before.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// The design's beat, and a record's life; it is signed anew when half of it is gone.
const BEAT_EVERY: Duration = Duration::from_secs(20);
const RECORD_LIFE: Duration = Duration::from_secs(120);

/// What the buckets cannot know: turns are told in whole seconds and spread over a step of a subnet's bucket, and a
/// connection is made twice.
const GRACE: Duration = Duration::from_secs(10);

/// Once all are in they are watched for so long: nobody is sent away again.
const WATCHED: Duration = Duration::from_secs(25);

/// How often their arrival went otherwise than at once.
#[derive(Debug, Default)]
struct Tally {
    /// Told to wait.
    waits: AtomicUsize,
    /// Connections that were not made, or lost before the first answer.
    lost: AtomicUsize,
}

/// Lets so many arrive, and tells how it went.
///
/// # Errors
/// When a node is refused for anything but the time, loses its session, or does not get in; when anybody is banned; when
/// the indexer takes more than its buckets allow.
pub(crate) async fn measure(base: &Path, register: &Register, nodes: usize) -> Outcome<Vec<Row>> {
    let room = u32::try_from(nodes + ROOM)?;
    let spec = Spec { profile: PROFILE.name(), ..Spec::indexer("indexer-crowd", room) };
    let indexer = Member::start(base, &register.network, spec).await?;
    let outcome = arrive(&indexer, register, nodes).await;
    outcome.map_err(|broken| Broken::new(format!("{broken}\n{}", indexer.last_words())))
}

async fn arrive(indexer: &Member, register: &Register, nodes: usize) -> Outcome<Vec<Row>> {
    let subnets = nodes.div_ceil(PER_SUBNET);
    let (all, due) = allowed(nodes);
    let (empty_kib, cpu) = (indexer.rss_kib()?, indexer.cpu()?);
    let (tally, end) = (Arc::new(Tally::default()), CancellationToken::new());
    let gun = Arc::new(Barrier::new(nodes + 1));
    let (tell, mut told) = mpsc::channel(nodes);
    let mut tasks = JoinSet::new();
    for number in 0..nodes {
        let thin = register.node_at(host(number, subnets), number)?;
        let (to, tell, gun) = (indexer.addr.clone(), tell.clone(), Arc::clone(&gun));
        let (tally, end) = (Arc::clone(&tally), end.clone());
        tasks.spawn(async move {
            gun.wait().await;
            let (link, beats, signed) = board(&thin, &to, &tally).await?;
            let _ = tell.send(Instant::now()).await;
            // One that loses its session is told to be in no more.
            end.run_until_cancelled(stay(&thin, link, beats, signed)).await.unwrap_or(Ok(()))
        });
    }
    gun.wait().await;
    let began = Instant::now();
    let mut arrived = Vec::with_capacity(nodes);
    while arrived.len() < nodes {
        tokio::select! {
            biased;
            Some(ended) = tasks.join_next() => ended?.when(format!("{} of {nodes} were in", arrived.len()))?,
            Some(at) = told.recv() => arrived.push(at.duration_since(began)),
            () = tokio::time::sleep_until((began + 2 * due).into()) => {
                let words = format!("only {} of {nodes} are in after {}, all were due after {}", arrived.len(), secs(2 * due), secs(due));
                return Err(Broken::new(words));
            }
        }
    }
    check_rate(&arrived)?;
    let used = indexer.cpu()?.saturating_sub(cpu);
    let kib = indexer.rss_kib()?.saturating_sub(empty_kib) as f64 / nodes as f64;
    tokio::select! {
        Some(ended) = tasks.join_next() => ended?.when("watching those that are in")?,
        () = tokio::time::sleep(WATCHED) => {}
    }
    let (sessions, bans) = (indexer.status().await?.sessions, indexer.get::<Vec<BanView>>("/api/v1/bans").await?);
    if sessions as usize != nodes || !bans.is_empty() {
        return Err(Broken::new(format!("{nodes} came, {sessions} have a session, {} are banned", bans.len())));
    }
    let denied = indexer.metric("muster_connections_denied_total").await?;
    let failed = indexer.metric("muster_handshakes_failed_total").await?;
    let peak = process::rss_peak_kib(indexer.pid)?.saturating_sub(empty_kib) as f64 / nodes as f64;
    end.cancel();
    let last = percentile(&arrived, 1.0);
    let (waits, lost) = (tally.waits.load(Relaxed), tally.lost.load(Relaxed));
    Ok(vec![
        Row::new(format!("{nodes} nodes of {subnets} subnets at once at one indexer, the last is in"), secs(last))
            .beside(format!("the buckets allow {}; half in after {}", secs(all), secs(percentile(&arrived, 0.5))))
            .ratio(format!("{:.2}", last.as_secs_f64() / all.as_secs_f64()))
            .goal(format!("≤ {}, none banned", secs(due)), last <= due),
        Row::new("how often one of them was told to wait", format!("{:.2}", waits as f64 / nodes as f64)).beside(
            format!("{lost} connections not made or lost; the indexer denied {denied}, gave up {failed} handshakes"),
        ),
        Row::new("memory per node, all of them in", format!("{kib:.1} KiB"))
            .beside(format!("at its highest {peak:.1} KiB"))
            .goal("≤ 80 KiB", kib <= 80.0),
        Row::new(
            "processor time per node, until all are in",
            format!("{:.1} ms", used.as_secs_f64() * 1e3 / nodes as f64),
        ),
    ])
}

/// When the last of so many gets its session by the buckets, and with what they cannot know.
fn allowed(nodes: usize) -> (Duration, Duration) {
    let wait = |count: usize, per_window: u32| {
        let beyond = count.saturating_sub(per_window as usize);
        WINDOW.mul_f64(beyond as f64 / f64::from(per_window))
    };
    // Those that their subnets keep out meanwhile only change places with others in the longer queue.
    let all = wait(nodes, PROFILE.sessions_whole()).max(wait(nodes.min(PER_SUBNET), PROFILE.sessions_per_subnet()));
    (all, all + GRACE)
}

/// Nobody is in before the bucket of the whole indexer has a session for it.
fn check_rate(arrived: &[Duration]) -> Outcome<()> {
    let per_window = PROFILE.sessions_whole() as usize;
    for (number, at) in arrived.iter().enumerate().skip(per_window) {
        let earliest = WINDOW.mul_f64((number - per_window) as f64 / per_window as f64);
        // The gate's clock began a little earlier than ours, when the first of them came.
        if *at + Duration::from_secs(1) < earliest {
            return Err(Broken::new(format!(
                "node {number} was in after {}, its turn was {}",
                secs(*at),
                secs(earliest)
            )));
        }
    }
    Ok(())
}

fn host(number: usize, subnets: usize) -> Ipv4Addr {
    let (subnet, host) = (number % subnets, number / subnets);
    Ipv4Addr::new(127, 1 + (subnet / 256) as u8, (subnet % 256) as u8, 1 + host as u8)
}

/// Until it has a session.
async fn board(thin: &Thin, to: &Multiaddr, tally: &Tally) -> Outcome<(Link, Beats, Signed)> {
    let mut pause = PAUSE_FIRST;
    loop {
        let error = match try_board(thin, to).await {
            Ok(aboard) => return Ok(aboard),
            Err(error) => error,
        };
        let wait = match error.refusal().map(|refused| (refused.refused, refused.retry_after)) {
            Some((RefusalCode::Busy, Some(secs))) => {
                tally.waits.fetch_add(1, Relaxed);
                Duration::from_secs(secs)
            }
            Some(_) => return Err(error.into()),
            None => {
                tally.lost.fetch_add(1, Relaxed);
                let wait = pause.mul_f64(rand::rng().random_range(0.5..1.0));
                pause = (pause * 2).min(PAUSE_MAX);
                wait
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn try_board(thin: &Thin, to: &Multiaddr) -> Result<(Link, Beats, Signed), thin::Error> {
    let link = thin.connect(to).await?;
    match first_beat(thin, &link).await {
        Ok((beats, signed)) => Ok((link, beats, signed)),
        Err(error) => {
            link.close().await;
            Err(error)
        }
    }
}

async fn first_beat(thin: &Thin, link: &Link) -> Result<(Beats, Signed), thin::Error> {
    let mut beats = thin.beats(link).await?;
    let signed = thin.sign(RECORD_LIFE);
    beats.beat_with(&signed, true).await?;
    Ok((beats, signed))
}

/// Beats, and has its record taken, for ever.
async fn stay(thin: &Thin, _link: Link, mut beats: Beats, mut signed: Signed) -> Outcome<()> {
    let mut signed_at = Instant::now();
    let mut is_taken = false;
    loop {
        let wait = BEAT_EVERY.mul_f64(rand::rng().random_range(1.0..1.1));
        tokio::time::sleep(wait).await;
        if signed_at.elapsed() >= RECORD_LIFE / 2 {
            if !is_taken {
                return Err(Broken::new(format!("the record of {} was not taken", thin.did)));
            }
            (signed, signed_at, is_taken) = (thin.sign(RECORD_LIFE), Instant::now(), false);
        }
        let answer: HeartbeatResponse =
            if is_taken { beats.beat().await } else { beats.beat_with(&signed, true).await }
                .when("a beat of one that was in")?;
        is_taken |= answer.record_seq.is_some();
    }
}
