//! A fourth indexer joins three that have 300 sessions of real nodes: F15 of the design.
//!
//! Every node is the real binary as a process of its own, with every setting at its default but the size of its pool, so
//! that every pool is full: 300 nodes that have one session each, or a hundred that have three.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use actors::view::SessionView;
use futures::{StreamExt, TryStreamExt, stream};
use libp2p::{Multiaddr, PeerId};

use crate::{
    broken::{Broken, Outcome, within},
    crew::Register,
    figures::{Row, secs},
    member::{Member, Spec},
};

/// Indexers before the fourth.
const INDEXERS: usize = 3;

/// Room in each indexer: two thirds of it are taken, so that none is over-full.
const MAX_NODES: u32 = 150;

/// Processes that start at the same time.
const STARTING_MAX: usize = 8;

/// For all nodes to have all their sessions.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at the sessions.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Three beats of 20 s and 10 %.
const EVEN_WITHIN: Duration = Duration::from_secs(66);

/// Most sessions of one indexer, by the mean, when the load is even.
const EVEN: f64 = 1.25;

/// Of the sessions there were, so many may have moved.
const MOVED_MAX: f64 = 0.30;

/// So many nodes, each with so many sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Processes.
    pub(crate) nodes: usize,
    /// Sessions of each; at most one with each of the three.
    pub(crate) pool: usize,
}

/// The sessions of nodes: who has one with which indexer.
type Places = BTreeSet<(PeerId, usize)>;

/// Measures, and tells all that it found.
///
/// # Errors
/// When a session is lost, more of them move than may, or the load stays uneven.
pub(crate) async fn measure(base: &Path, register: &Register, shape: Shape) -> Outcome<Vec<Row>> {
    let folder = tempfile::Builder::new().prefix("newcomer-").tempdir_in(base)?;
    let (base, names) = (folder.path(), [1, 2, 3, 4].map(|number| format!("indexer-{number}")));
    let start = |name, seeds| {
        let spec = Spec { profile: "local", seeds, ..Spec::indexer(name, MAX_NODES) };
        Member::start(base, &register.network, spec)
    };
    let first = start(&names[0], &[]).await?;
    let seeds = [first.addr.clone()];
    let (second, third) = futures::try_join!(start(&names[1], &seeds), start(&names[2], &seeds))?;
    let mut indexers = vec![first, second, third];
    let outcome = async {
        let addrs: Vec<Multiaddr> = indexers.iter().map(|indexer| indexer.addr.clone()).collect();
        // Kept: they end with this measurement.
        let crowd: Vec<Member> = stream::iter(0..shape.nodes)
            .map(|number| node(base, register, number, shape.pool, addrs[number % INDEXERS].clone()))
            .buffer_unordered(STARTING_MAX)
            .try_collect()
            .await?;
        within(PATIENCE, "waiting for every node's sessions", until_full(&indexers, shape)).await?;
        let before = look(&indexers).await?;
        indexers.push(start(&names[3], &seeds).await?);
        let rows = watch(&indexers, &before, shape).await;
        drop(crowd);
        rows
    }
    .await;
    outcome.map_err(|broken| {
        let words: Vec<String> = indexers.iter().map(Member::last_words).collect();
        Broken::new(format!("{broken}\n{}", words.join("\n")))
    })
}

async fn node(base: &Path, register: &Register, number: usize, pool: usize, seed: Multiaddr) -> Outcome<Member> {
    let (name, seeds) = (format!("node-{number:03}"), [seed]);
    let settings = format!("[pool]\nmax_indexer = {pool}\n");
    let spec = Spec { name: &name, mode: "node", profile: "local", seeds: &seeds, settings };
    Member::start(base, &register.network, spec).await
}

async fn until_full(indexers: &[Member], shape: Shape) -> Outcome<()> {
    while look(indexers).await?.len() < shape.nodes * shape.pool {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// The last indexer is asked last: who moves there has its new place before it leaves the old one.
async fn look(indexers: &[Member]) -> Outcome<Places> {
    let mut places = Places::new();
    for (number, indexer) in indexers.iter().enumerate() {
        let sessions: Vec<SessionView> = indexer.get("/api/v1/sessions").await?;
        places.extend(sessions.iter().filter(|session| !session.indexer).map(|session| (session.peer_id, number)));
    }
    Ok(places)
}

/// How many sessions each node has.
fn counts(places: &Places) -> BTreeMap<PeerId, usize> {
    let mut counts = BTreeMap::new();
    places.iter().for_each(|(peer, _)| *counts.entry(*peer).or_default() += 1);
    counts
}

/// Nodes that have fewer sessions than they had, and how many fewer.
fn short(before: &Places, now: &Places) -> BTreeMap<PeerId, usize> {
    let now = counts(now);
    let lacks = |(peer, had): (PeerId, usize)| {
        let lacks = had.saturating_sub(now.get(&peer).copied().unwrap_or_default());
        (lacks > 0).then_some((peer, lacks))
    };
    counts(before).into_iter().filter_map(lacks).collect()
}

/// Sessions on their way: one of several may be left before its place is taken elsewhere, an only one never.
#[derive(Default)]
struct UnderWay {
    since: BTreeMap<PeerId, Instant>,
    longest: Duration,
}

impl UnderWay {
    async fn look(&mut self, indexers: &[Member], before: &Places, shape: Shape) -> Outcome<Places> {
        let mut now = look(indexers).await?;
        let too_short = |places: &Places| -> Vec<PeerId> {
            let lacks = short(before, places).into_iter().filter(|(_, lacks)| *lacks >= shape.pool.min(2));
            lacks.map(|(peer, _)| peer).collect()
        };
        let first = too_short(&now);
        if !first.is_empty() {
            // A look at one indexer after the other misses one that moves among those that were there.
            now = look(indexers).await?;
            let lost: Vec<PeerId> = too_short(&now).into_iter().filter(|peer| first.contains(peer)).collect();
            if !lost.is_empty() {
                return Err(Broken::new(format!("lost sessions: {lost:?}")));
            }
        }
        let (short, at) = (short(before, &now), Instant::now());
        self.since.retain(|peer, _| short.contains_key(peer));
        for peer in short.into_keys() {
            let since = *self.since.entry(peer).or_insert(at);
            self.longest = self.longest.max(at.duration_since(since));
        }
        Ok(now)
    }
}

/// Sessions of each indexer, and most of them by the mean.
fn load(places: &Places, indexers: usize) -> (Vec<usize>, f64) {
    let counts: Vec<usize> =
        (0..indexers).map(|number| places.iter().filter(|(_, place)| *place == number).count()).collect();
    let most = counts.iter().copied().max().unwrap_or_default() as f64;
    (counts, most * indexers as f64 / places.len().max(1) as f64)
}

async fn watch(indexers: &[Member], before: &Places, shape: Shape) -> Outcome<Vec<Row>> {
    let began = Instant::now();
    let (mut even_at, mut after) = (None, before.clone());
    let mut under_way = UnderWay::default();
    // As long again as it may take, to see whether it stays.
    while began.elapsed() < 2 * EVEN_WITHIN || (!under_way.since.is_empty() && began.elapsed() < 3 * EVEN_WITHIN) {
        after = under_way.look(indexers, before, shape).await?;
        if even_at.is_none() && load(&after, indexers.len()).1 <= EVEN {
            even_at = Some(began.elapsed());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let moved = before.difference(&after).count();
    let share = moved as f64 / before.len() as f64;
    let (counts, uneven) = load(&after, indexers.len());
    let lost = short(before, &after).len();
    if share > MOVED_MAX || uneven > EVEN || lost > 0 {
        let words = format!("{moved} of {} sessions moved, {lost} are lost, the load is {counts:?}", before.len());
        return Err(Broken::new(words));
    }
    let even_at = even_at.unwrap_or(2 * EVEN_WITHIN);
    let Shape { nodes, pool } = shape;
    println!("{nodes} nodes with pools of {pool}: even after {}, {moved} moved, {counts:?}", secs(even_at));
    Ok(vec![
        Row::new(
            format!(
                "{} sessions of {nodes} real nodes with pools of {pool} even after a 4th indexer came",
                before.len()
            ),
            secs(even_at),
        )
        .beside(format!("{:.0} % moved, none lost; {counts:?}", share * 100.0))
        .ratio(format!("max ÷ mean {uneven:.2}"))
        .goal(format!("≤ {}, ≤ 30 % moved", secs(EVEN_WITHIN)), even_at <= EVEN_WITHIN),
        Row::new("the same: longest that a node had one session fewer", secs(under_way.longest)),
    ])
}
