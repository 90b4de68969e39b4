//! Fifty organisations that offer something, and one of them that searches for it: how soon the answers are there, and
//! what a search costs everybody.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, pin_mut, stream};
use libp2p::Multiaddr;
use serde_json::{Value, json};

use crate::{
    broken::{Broken, Outcome, While, within},
    crew::Register,
    figures::{Row, ms, p50_p99, percentile},
    member::{Member, Spec},
    process,
};

/// Organisations: the one that searches, and those that offer.
const ORGANISATIONS: usize = 50;

/// Of those that offer, partners of the one that searches, and it is theirs.
const PARTNERS: usize = 20;

/// Of those that offer, partners and those that it merely knows.
const KNOWN: usize = 30;

/// Indexers, by which they find each other and over which gossip goes.
const INDEXERS: usize = 3;

/// Processes that start at the same time.
const STARTING_MAX: usize = 8;

/// For everybody to be there and found.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// An answer that is not there by then is lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Between two searches before everybody answers.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Goals: the first answer, half of the time, and the last one, always.
const FIRST_WITHIN: Duration = Duration::from_millis(30);
const ALL_WITHIN: Duration = Duration::from_millis(500);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Searches of each scope.
    pub(crate) searches: usize,
    /// Nobody else is on this network, so that what goes over it is ours.
    pub(crate) is_alone: bool,
}

struct Federation {
    /// Kept, for they carry the gossip.
    indexers: Vec<Member>,
    asker: Member,
    owners: Vec<Member>,
}

/// What came of one search.
struct Found {
    first: Duration,
    last: Duration,
    creators: BTreeSet<String>,
}

/// What all have used so far.
#[derive(Clone, Copy, Default)]
struct Used {
    owners: Duration,
    asker: Duration,
    indexers: Duration,
    bytes: u64,
}

/// Measures, and tells all that it found.
///
/// # Errors
/// When a member does not start, or an answer does not come.
pub(crate) async fn measure(base: &Path, register: &Register, plan: Plan) -> Outcome<Vec<Row>> {
    let federation = Federation::start(base, register).await?;
    let outcome = federation.measure(plan).await;
    outcome.map_err(|broken| Broken::new(format!("{broken}\n{}", federation.asker.last_words())))
}

impl Federation {
    async fn start(base: &Path, register: &Register) -> Outcome<Self> {
        let max_nodes = 2 * ORGANISATIONS as u32;
        let mut indexers: Vec<Member> = Vec::with_capacity(INDEXERS);
        for number in 1..=INDEXERS {
            let seeds: Vec<Multiaddr> = indexers.iter().map(|indexer| indexer.addr.clone()).collect();
            let name = format!("indexer-{number}");
            let spec = Spec { seeds: &seeds, ..Spec::indexer(&name, max_nodes) };
            indexers.push(Member::start(base, &register.network, spec).await?);
        }
        let seeds: Vec<Multiaddr> = indexers.iter().map(|indexer| indexer.addr.clone()).collect();
        let seeds = &seeds;
        let started = stream::iter(0..ORGANISATIONS).map(|number| async move {
            let name = format!("organisation-{number}");
            Member::start(base, &register.network, Spec::node(&name, seeds)).await
        });
        let mut owners: Vec<Member> = started.buffered(STARTING_MAX).try_collect().await?;
        let asker = owners.remove(0);
        Ok(Self { indexers, asker, owners })
    }

    async fn measure(&self, plan: Plan) -> Outcome<Vec<Row>> {
        within(READY_WITHIN, "waiting for everybody to be whole", self.until_whole()).await?;
        for (number, owner) in self.owners.iter().enumerate() {
            self.offer(owner).await.when(format!("offering what {} has", owner.name))?;
            if number < KNOWN {
                self.relate(owner, if number < PARTNERS { "partner" } else { "known" }).await?;
            }
        }
        let cold = self.search("all").await?;
        let mut rows = vec![
            Row::new(
                format!(
                    "first search of {ORGANISATIONS} organisations by gossip, nobody connected: first, last answer"
                ),
                format!("{} / {}", ms(cold.first), ms(cold.last)),
            )
            .beside(format!("{} of {} answered", cold.creators.len(), self.owners.len())),
        ];
        for (scope, count) in [("all", self.owners.len()), ("known", KNOWN), ("partner", PARTNERS)] {
            let ready = format!("waiting for {count} answers to a search of scope {scope}");
            within(READY_WITHIN, ready, self.until_all_answer(scope, count)).await?;
            rows.extend(self.measure_scope(scope, count, plan).await.when(format!("searching {scope}"))?);
        }
        let left = self.asker.metric("muster_resource_searches").await?;
        if left > 0.0 {
            return Err(Broken::new(format!("{left} searches were left behind")));
        }
        Ok(rows)
    }

    async fn measure_scope(&self, scope: &str, count: usize, plan: Plan) -> Outcome<Vec<Row>> {
        let (mut firsts, mut lasts, mut asked, mut beside) = (Vec::new(), Vec::new(), 0, Vec::new());
        let (began, before) = (Instant::now(), self.used()?);
        for _ in 0..plan.searches {
            let floor = Instant::now();
            self.asker.alive().await?;
            beside.push(floor.elapsed());
            let found = self.search(scope).await?;
            asked += 1;
            if found.creators.len() < count {
                let words = format!("{} of {count} answered search {asked} in {ANSWER_WITHIN:?}", found.creators.len());
                return Err(Broken::new(words));
            }
            firsts.push(found.first);
            lasts.push(found.last);
        }
        let (took, busy) = (began.elapsed(), self.used()?.since(before));
        // What they do when nobody searches, for as long.
        let before = self.used()?;
        tokio::time::sleep(took).await;
        let idle = self.used()?.since(before);
        let (first, last) = (percentile(&firsts, 0.5), percentile(&lasts, 1.0));
        let ratio = |ours: Duration| {
            format!("{:.1}", ours.as_secs_f64() / percentile(&beside, 0.5).as_secs_f64().max(f64::EPSILON))
        };
        let floor = format!("an empty question to the same member: {}", p50_p99(&beside));
        let mut rows = vec![
            Row::new(format!("search of scope {scope}, first answer, p50 / p99 of {asked}"), p50_p99(&firsts))
                .beside(&floor)
                .ratio(ratio(first))
                .goal("p50 ≤ 30 ms", first <= FIRST_WITHIN),
            Row::new(format!("the same, all {count} answers, p50 / p99 / slowest"), {
                format!("{} / {}", p50_p99(&lasts), ms(last))
            })
            .beside(&floor)
            .ratio(ratio(percentile(&lasts, 0.5)))
            .goal("≤ 500 ms", last <= ALL_WITHIN),
        ];
        let each = |used: Duration, idle: Duration, sharers: usize| {
            let us = |time: Duration| time.as_secs_f64() * 1e6 / asked as f64 / sharers as f64;
            (format!("{:.0} µs", us(used.saturating_sub(idle))), format!("{:.0} µs", us(idle)))
        };
        // Scope all is heard by everybody, the others by those asked alone.
        let (owner, owner_idle) = each(busy.owners, idle.owners, count);
        let (asker, asker_idle) = each(busy.asker, idle.asker, 1);
        let (indexer, indexer_idle) = each(busy.indexers, idle.indexers, INDEXERS);
        rows.push(
            Row::new(
                "the same, processor time of an owner / the asker / an indexer",
                format!("{owner} / {asker} / {indexer}"),
            )
            .beside(format!("idle for as long: {owner_idle} / {asker_idle} / {indexer_idle}")),
        );
        if plan.is_alone {
            let kib = |bytes: u64| bytes as f64 / 1024.0 / asked as f64 / count as f64;
            let ours = kib(busy.bytes.saturating_sub(idle.bytes));
            rows.push(
                Row::new("the same, bytes over the network per owner", format!("{ours:.1} KiB"))
                    .beside(format!("idle for as long: {:.1} KiB", kib(idle.bytes))),
            );
        }
        Ok(rows)
    }

    fn used(&self) -> Outcome<Used> {
        let all = |members: &[Member]| members.iter().map(Member::cpu).sum::<Outcome<Duration>>();
        Ok(Used {
            owners: all(&self.owners)?,
            asker: self.asker.cpu()?,
            indexers: all(&self.indexers)?,
            bytes: process::loopback_bytes()?,
        })
    }

    async fn until_whole(&self) -> Outcome<()> {
        for member in self.owners.iter().chain([&self.asker]) {
            while member.status().await?.standing != actors::view::Standing::Whole {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    async fn until_all_answer(&self, scope: &str, count: usize) -> Outcome<()> {
        while self.search(scope).await?.creators.len() < count {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// One that is found, one that is not shown, and one that does not match.
    async fn offer(&self, owner: &Member) -> Outcome<()> {
        let offers = [("shown", "public", "archive"), ("kept", "private", "archive"), ("other", "public", "farm")];
        for (id, access, name) in offers {
            let resource = json!({ "kind": "data", "name": format!("{name} of {}", owner.name), "access": access });
            owner.put(&format!("/api/v1/resources/{id}"), &resource.to_string()).await?;
        }
        Ok(())
    }

    /// Makes them this to each other.
    async fn relate(&self, owner: &Member, relation: &str) -> Outcome<()> {
        let wish = json!({ "relation": relation }).to_string();
        for (at, to) in [(&self.asker, owner), (owner, &self.asker)] {
            at.put(&format!("/api/v1/partners/{}", to.peer_id()), &wish).await.when("making partners")?;
        }
        Ok(())
    }

    /// Searches until everybody has answered who can, or for too long.
    async fn search(&self, scope: &str) -> Outcome<Found> {
        let wanted = match scope {
            "all" => self.owners.len(),
            "known" => KNOWN,
            _ => PARTNERS,
        };
        let began = Instant::now();
        let events = self.asker.events(&format!("/api/v1/searches?scope={scope}&text=archive&user=ann")).await?;
        pin_mut!(events);
        let (mut creators, mut first, mut last) = (BTreeSet::new(), None, Duration::ZERO);
        while creators.len() < wanted
            && let Some(left) = ANSWER_WITHIN.checked_sub(began.elapsed())
            && let Ok(Some(event)) = tokio::time::timeout(left, events.next()).await
        {
            let event = event?;
            if event.event != "hit" {
                break;
            }
            let hit: Value = serde_json::from_str(&event.data)?;
            if hit["resource"]["id"] != "shown" {
                return Err(Broken::new(format!("somebody was shown {}", hit["resource"]["id"])));
            }
            if !creators.insert(hit["peer_id"].as_str().unwrap_or_default().to_owned()) {
                return Err(Broken::new(format!("{} answered twice", hit["peer_id"])));
            }
            last = began.elapsed();
            first = first.or(Some(last));
        }
        Ok(Found { first: first.unwrap_or(ANSWER_WITHIN), last, creators })
    }
}

impl Used {
    fn since(self, before: Self) -> Self {
        Self {
            owners: self.owners.saturating_sub(before.owners),
            asker: self.asker.saturating_sub(before.asker),
            indexers: self.indexers.saturating_sub(before.indexers),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}
