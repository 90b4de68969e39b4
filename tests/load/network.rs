//! Three real indexers and hundreds of thin nodes: convergence, look-ups, searches, the death of an indexer.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::Multiaddr;
use rand::{Rng, RngExt};

use crate::{
    broken::{Broken, Outcome, While, within},
    crew::{Register, Sailor, each, part},
    figures::{Row, ms, p50_p99, percentile},
    member::{Member, Spec},
    thin::Link,
};

/// Indexers.
const INDEXERS: usize = 3;

/// Room in each: all nodes of all measurements could be its own.
const MAX_NODES: u32 = 2_000;

/// Nodes that begin with the federation.
const CONVERGING: usize = 100;

/// Nodes for look-ups, searches, and the death of their indexer.
const NODES: usize = 300;

/// The nodes that see their indexer die have numbers, and so keys, of their own.
const MOURNERS: usize = 10_000;

/// The same for those that know the next one only by its address.
const LONE_MOURNERS: usize = 20_000;

/// What takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at what will soon be there.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// For the indexers to become quiet before something is timed.
const SETTLE: Duration = Duration::from_millis(500);

/// A search that has not ended by then is not waited for; its first hit counts all the same.
const SEARCH_WITHIN: Duration = Duration::from_secs(1);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    lookups: usize,
    searches: usize,
    /// All searches together; those that do not fit in are left out.
    searching_max: Duration,
}

impl Plan {
    /// All of it.
    pub(crate) const WHOLE: Self = Self { lookups: 1_000, searches: 500, searching_max: Duration::from_secs(25) };

    /// Enough to see whether something is far off.
    pub(crate) const QUICK: Self = Self { lookups: 300, searches: 100, searching_max: Duration::from_secs(8) };
}

/// A node that is whole.
struct Citizen {
    /// Its place in [`Federation::indexers`] of its referent and of its other indexer.
    at: [usize; 2],
    first: Sailor,
    /// Kept so that the session lives.
    _second: Sailor,
    whole_at: Instant,
    elsewhere_at: Option<Instant>,
}

struct Federation {
    indexers: Vec<Member>,
    addrs: Arc<Vec<Multiaddr>>,
}

/// Measures, and tells all that it found.
///
/// # Errors
/// When a node is refused, an answer is lost, or a search fails.
pub(crate) async fn measure(base: &Path, register: &Register, plan: Plan, chance: &mut impl Rng) -> Outcome<Vec<Row>> {
    let began = Instant::now();
    let mut federation = Federation::start(base, register).await?;
    let up = began.elapsed();
    let outcome = federation.measure(register, plan, chance, (began, up)).await;
    outcome.map_err(|broken| {
        let words: Vec<String> = federation.indexers.iter().map(Member::last_words).collect();
        Broken::new(format!("{broken}\n{}", words.join("\n")))
    })
}

impl Federation {
    async fn start(base: &Path, register: &Register) -> Outcome<Self> {
        let names = [1, 2, 3].map(|number| format!("indexer-{number}"));
        let start =
            |name, seeds| Member::start(base, &register.network, Spec { seeds, ..Spec::indexer(name, MAX_NODES) });
        let first = start(&names[0], &[]).await?;
        let seeds = [first.addr.clone()];
        let (second, third) = futures::try_join!(start(&names[1], &seeds), start(&names[2], &seeds))?;
        let indexers = vec![first, second, third];
        let addrs = Arc::new(indexers.iter().map(|indexer| indexer.addr.clone()).collect());
        Ok(Self { indexers, addrs })
    }

    async fn measure(
        &mut self,
        register: &Register,
        plan: Plan,
        chance: &mut impl Rng,
        (began, up): (Instant, Duration),
    ) -> Outcome<Vec<Row>> {
        let (mut citizens, mut rows) = self.converge(register, began, up).await?;
        citizens.extend(self.citizens(register, CONVERGING..NODES).await?);
        tokio::time::sleep(SETTLE).await;
        rows.extend(look_up(&mut citizens, plan, chance).await?);
        rows.extend(search(&citizens, plan, chance).await?);
        drop(citizens);
        tokio::time::sleep(SETTLE).await;
        rows.push(self.bereave(register).await?);
        rows.push(self.bereave_unprepared(register).await?);
        Ok(rows)
    }

    async fn converge(&self, register: &Register, began: Instant, up: Duration) -> Outcome<(Vec<Citizen>, Vec<Row>)> {
        let known = within(PATIENCE, "waiting for the indexers to know each other", self.until_acquainted());
        let (citizens, known_at) = futures::try_join!(self.citizens(register, 0..CONVERGING), known)?;
        let whole = citizens.iter().map(|citizen| citizen.whole_at).max().unwrap_or(began);
        let converged = whole.max(known_at).duration_since(began);
        let elsewhere: Option<Vec<Instant>> = citizens.iter().map(|citizen| citizen.elsewhere_at).collect();
        let nodes = format!(
            "indexers up {}, nodes whole {}, indexers acquainted {}",
            ms(up),
            ms(whole.duration_since(began)),
            ms(known_at.duration_since(began))
        );
        let last = elsewhere.and_then(|all| all.into_iter().max()).map(|last| last.duration_since(began));
        let last = last.map_or(format!("not within {PATIENCE:?}"), ms);
        let rows = vec![
            Row::new(
                format!("{CONVERGING} nodes and {INDEXERS} indexers converged, from the first process on"),
                ms(converged),
            )
            .beside(nodes)
            .goal("≤ 5 s", converged <= Duration::from_secs(5)),
            Row::new("the last of their records readable through an indexer without its session", last),
        ];
        Ok((citizens, rows))
    }

    async fn until_acquainted(&self) -> Outcome<Instant> {
        let others = u32::try_from(self.indexers.len())? - 1;
        for indexer in &self.indexers {
            while indexer.status().await?.indexers_known < others {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(Instant::now())
    }

    async fn citizens(&self, register: &Register, numbers: std::ops::Range<usize>) -> Outcome<Vec<Citizen>> {
        each(numbers, |number| settle(register.clone(), Arc::clone(&self.addrs), number)).await
    }

    /// Kills the second indexer, which is the referent of nodes that have another indexer beside it.
    async fn bereave(&mut self, register: &Register) -> Outcome<Row> {
        let mourners = each(MOURNERS..MOURNERS + NODES, |number| {
            let (register, addrs) = (register.clone(), Arc::clone(&self.addrs));
            async move {
                let thin = Arc::new(register.node(number)?);
                let mut dying = Sailor::aboard(number, Arc::clone(&thin), &addrs[1]).await?;
                let mut other = Sailor::aboard(number, thin, &addrs[number % 2 * 2]).await?;
                dying.introduce(true).await?;
                other.introduce(false).await?;
                Ok((dying, other))
            }
        });
        let tasks = mourners.await?.into_iter().map(|(dying, mut other)| {
            tokio::spawn(async move {
                dying.link.ended().await;
                let seen = Instant::now();
                other.introduce(true).await?;
                Ok((seen, Instant::now()))
            })
        });
        let (last, beside) = self.kill(1, tasks.collect()).await?;
        let row =
            Row::new(format!("{NODES} nodes answered by another after kill -9 of their indexer, the last"), ms(last));
        Ok(row.beside(beside).goal("≤ 1 s", last <= Duration::from_secs(1)))
    }

    /// Kills the third indexer, whose nodes have to dial, to say hello and to begin a session before they are answered.
    async fn bereave_unprepared(&mut self, register: &Register) -> Outcome<Row> {
        let mourners = each(LONE_MOURNERS..LONE_MOURNERS + NODES, |number| {
            let (register, addrs) = (register.clone(), Arc::clone(&self.addrs));
            async move {
                let mut dying = Sailor::aboard(number, Arc::new(register.node(number)?), &addrs[2]).await?;
                dying.introduce(true).await?;
                Ok(dying)
            }
        });
        let addrs = &self.addrs;
        let tasks = mourners.await?.into_iter().map(|dying| {
            let next = addrs[0].clone();
            tokio::spawn(async move {
                dying.link.ended().await;
                let seen = Instant::now();
                Sailor::aboard(dying.number, dying.thin, &next).await?.introduce(true).await?;
                Ok((seen, Instant::now()))
            })
        });
        let tasks = tasks.collect();
        let (last, beside) = self.kill(2, tasks).await?;
        Ok(Row::new("the same where the other has to be dialled first", ms(last)).beside(beside))
    }

    /// Kills, and waits until every node has seen it and was answered elsewhere.
    async fn kill(&mut self, victim: usize, tasks: Vec<Mourning>) -> Outcome<(Duration, String)> {
        tokio::time::sleep(SETTLE).await;
        let killed = Instant::now();
        self.indexers[victim].kill()?;
        let (mut seen, mut answered) = (Vec::new(), Vec::new());
        for task in tasks {
            let (saw, heard) = within(PATIENCE, "waiting for the bereaved", async { task.await? }).await?;
            seen.push(saw.duration_since(killed));
            answered.push(heard.duration_since(killed));
        }
        let beside =
            format!("seen p50 {}, answered p50 {}", ms(percentile(&seen, 0.5)), ms(percentile(&answered, 0.5)));
        Ok((percentile(&answered, 1.0), beside))
    }
}

type Mourning = tokio::task::JoinHandle<Outcome<(Instant, Instant)>>;

/// Becomes whole: answered by two indexers, the record read back through the one that is not the referent.
async fn settle(register: Register, addrs: Arc<Vec<Multiaddr>>, number: usize) -> Outcome<Citizen> {
    let at = [number % INDEXERS, (number + 1) % INDEXERS];
    let thin = Arc::new(register.node(number)?);
    let (mut first, mut second) = futures::try_join!(
        Sailor::aboard(number, Arc::clone(&thin), &addrs[at[0]]),
        Sailor::aboard(number, Arc::clone(&thin), &addrs[at[1]]),
    )?;
    futures::try_join!(first.introduce(true), second.introduce(false))?;
    let whole_at =
        until_read(&second.link, &thin.did).await.when(format!("reading back the record of node {number}"))?;
    let whole_at =
        whole_at.ok_or_else(|| Broken::new(format!("the record of node {number} was not there in {PATIENCE:?}")))?;
    let elsewhere = thin.connect(&addrs[(number + 2) % INDEXERS]).await.when("connecting to the third indexer")?;
    let elsewhere_at = until_read(&elsewhere, &thin.did).await?;
    elsewhere.close().await;
    Ok(Citizen { at, first, _second: second, whole_at, elsewhere_at })
}

/// When the record could be read; none when it could not for long. A refusal is a "not yet": the indexer does not know us.
async fn until_read(link: &Link, did: &str) -> Outcome<Option<Instant>> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        match link.get(did).await {
            Ok(Some(_)) => return Ok(Some(Instant::now())),
            Ok(None) => {}
            Err(error) if error.refusal().is_some() => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(None)
}

/// One look-up after the other, each by a random node at its referent for a random other.
async fn look_up(citizens: &mut [Citizen], plan: Plan, chance: &mut impl Rng) -> Outcome<Vec<Row>> {
    let (mut here, mut elsewhere, mut beats) = (Vec::new(), Vec::new(), Vec::new());
    let mut missed = 0;
    for _ in 0..plan.lookups {
        let (asker, target) = two(citizens.len(), chance);
        let is_here = citizens[target].at.contains(&citizens[asker].at[0]);
        let did = citizens[target].first.thin.did.clone();
        let sailor = &mut citizens[asker].first;
        let began = Instant::now();
        sailor.beats.beat().await?;
        beats.push(began.elapsed());
        let began = Instant::now();
        let found = sailor.link.get(&did).await.when("a look-up")?;
        let took = began.elapsed();
        match found {
            None => missed += 1,
            Some(_) if is_here => here.push(took),
            Some(_) => elsewhere.push(took),
        }
    }
    let row = |where_held: &str, took: &[Duration]| {
        Row::new(format!("look-up of a record held {where_held}, p50 / p99 of {}", took.len()), p50_p99(took))
            .beside(format!("a beat: {}", p50_p99(&beats)))
            .ratio(format!("{:.2}", ratio(percentile(took, 0.5), percentile(&beats, 0.5))))
    };
    let mut rows = vec![row("by the indexer asked", &here), row("by others only", &elsewhere)];
    if missed > 0 {
        rows.push(Row::new(format!("look-ups of {} that found nothing", plan.lookups), missed.to_string()));
    }
    Ok(rows)
}

/// One search after the other, each by a random node at its referent for a part of a random other's name.
async fn search(citizens: &[Citizen], plan: Plan, chance: &mut impl Rng) -> Outcome<Vec<Row>> {
    let (mut firsts, mut wholes) = (Vec::new(), Vec::new());
    let (mut trials, mut unended) = (0, 0);
    let began = Instant::now();
    while trials < plan.searches && began.elapsed() < plan.searching_max {
        trials += 1;
        let (asker, target) = two(citizens.len(), chance);
        let query_id = format!("{:032x}", chance.random::<u128>());
        let wanted = &citizens[target].first;
        let part = part(wanted.number);
        let found = search_once(&citizens[asker].first.link, query_id, &part, &wanted.thin.did);
        let (first, whole) = found.await.when("a search")?;
        firsts.extend(first);
        unended += usize::from(whole.is_none());
        wholes.extend(whole);
    }
    let p50 = percentile(&firsts, 0.5);
    let mut rows = vec![
        Row::new(format!("search for a part of a name, first hit, p50 / p99 of {trials}"), p50_p99(&firsts))
            .goal("p50 ≤ 10 ms", !firsts.is_empty() && p50 <= Duration::from_millis(10)),
        Row::new("the same until every indexer has answered", p50_p99(&wholes)),
    ];
    if firsts.len() < trials {
        rows.push(Row::new(format!("searches of {trials} without the hit"), (trials - firsts.len()).to_string()));
    }
    if unended > 0 {
        rows.push(Row::new(format!("searches of {trials} not ended in {SEARCH_WITHIN:?}"), unended.to_string()));
    }
    Ok(rows)
}

/// When the wanted one was found and when all was said, each if it was.
async fn search_once(
    link: &Link,
    query_id: String,
    part: &str,
    did: &str,
) -> Outcome<(Option<Duration>, Option<Duration>)> {
    let began = Instant::now();
    let mut search = link.search(query_id, part).await?;
    let mut first = None;
    let mut whole = None;
    while let Some(left) = SEARCH_WITHIN.checked_sub(began.elapsed()) {
        let next = tokio::time::timeout(left, search.next(SEARCH_WITHIN * 2)).await;
        let Ok(next) = next else { break };
        let Some(result) = next? else { break };
        if first.is_none() && result.records.iter().any(|hit| hit.did == did) {
            first = Some(began.elapsed());
        }
        if result.last {
            whole = Some(began.elapsed());
            break;
        }
    }
    search.close().await;
    Ok((first, whole))
}

/// Two different ones of so many.
fn two(count: usize, chance: &mut impl Rng) -> (usize, usize) {
    let one = chance.random_range(0..count);
    (one, (one + chance.random_range(1..count)) % count)
}

fn ratio(ours: Duration, beside: Duration) -> f64 {
    ours.as_secs_f64() / beside.as_secs_f64().max(f64::EPSILON)
}
