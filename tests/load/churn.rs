//! Many connects, one after another: what they leave behind in memory and on disk.

use std::{path::Path, sync::Arc, time::Instant};

use crate::{
    broken::{Broken, Outcome, While},
    crew::{Register, Sailor, each},
    figures::Row,
    member::{Member, Spec},
};

/// Keys among which the connects are shared, so that what grows is not sessions.
const NODES: usize = 200;

/// Looks: after a tenth, a half and all of the connects.
const LOOKS: [(usize, usize); 3] = [(1, 10), (1, 2), (1, 1)];

/// Connects, beats once, goes: so many times. Tells memory and disk on the way.
///
/// # Errors
/// When a node is refused or a beat is lost.
pub(crate) async fn measure(base: &Path, register: &Register, connects: usize) -> Outcome<Vec<Row>> {
    let indexer = Member::start(base, &register.network, Spec::indexer("indexer-churn", 2 * NODES as u32)).await?;
    let outcome = churn(&indexer, register, connects).await;
    outcome.map_err(|broken| Broken::new(format!("{broken}\n{}", indexer.last_words())))
}

async fn churn(indexer: &Member, register: &Register, connects: usize) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    let (before, began) = (indexer.cpu()?, Instant::now());
    let mut done = 0;
    for (part, whole) in LOOKS {
        let until = connects * part / whole;
        each(done..until, |number| visit(register.clone(), indexer.addr.clone(), number)).await?;
        done = until;
        let what = format!("after {done} connects of {NODES} nodes: memory, data folder");
        let beside = format!("{} KiB on disk", indexer.data_kib());
        rows.push(Row::new(what, format!("{} KiB", indexer.rss_kib()?)).beside(beside));
    }
    let used = indexer.cpu()?.saturating_sub(before);
    let each_us = used.as_secs_f64() * 1e6 / connects.max(1) as f64;
    let rate = connects as f64 / began.elapsed().as_secs_f64();
    rows.push(Row::new("processor time per connect", format!("{each_us:.0} µs")).beside(format!("{rate:.0}/s")));
    Ok(rows)
}

async fn visit(register: Register, to: libp2p::Multiaddr, number: usize) -> Outcome<()> {
    let mut sailor = Sailor::aboard(number % NODES, Arc::new(register.node(number % NODES)?), &to).await?;
    sailor.introduce(true).await.when(format!("connect {number}"))?;
    sailor.link.close().await;
    Ok(())
}
