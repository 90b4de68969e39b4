//! A spot check of one of our indexers: a task beside its heartbeat.

use std::time::Duration;

use protocol::{
    PeerId,
    search::Wanted,
    spot::{self, Word},
};
use rand::seq::SliceRandom as _;
use tracing::debug;

use crate::{context::Context, discover, lookup, peers, pool, registry, supervision::Class, witness};

/// Our own actors answer within this, or are not asked.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// What a spot check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Who was asked.
    pub(crate) by: PeerId,
    /// It is connected to the indexer that names it.
    pub(crate) good: bool,
}

/// Looks at the indexer's record and asks one that it names and that we know; nothing when that proves nothing.
pub(crate) async fn check(context: &Context, about: PeerId) -> Option<Spot> {
    let record = discover::record(context, about).await?;
    let mut rng = context.tree.chance().fork("spot", context.now().mono.since_start().as_nanos() as u64);
    let mut known = known(context).await;
    known.shuffle(&mut rng);
    let by = spot::choose(&spot::named(&record, &known, &context.own.peer_id), &mut rng)?;
    context.stats.spot_checks_made.inc();
    let find = |reply| peers::Msg::Find { peer: by, reply };
    let whom = context.addresses.peers.ask(Class::Search, find, ASK_WITHIN).await.ok()?;
    let report = witness::ask_one(context, whom, about, false).await?;
    let word = spot::judge(&report);
    debug!(indexer = %about, %by, ?word, "spot check");
    match word {
        Word::Connected => Some(Spot { by, good: true }),
        Word::SeenLately => None,
        Word::NotSeen => remembers(context, by).await.then_some(Spot { by, good: false }),
    }
}

/// Whom we could ask: the members of our pool, other indexers that we met, and whoever has a session with us.
async fn known(context: &Context) -> Vec<PeerId> {
    let to = &context.addresses;
    let mut known =
        to.pool.ask(Class::Search, |reply| pool::Msg::Members { reply }, ASK_WITHIN).await.unwrap_or_default();
    let met = |reply| peers::Msg::Indexers { at_most: spot::KNOWN_MAX, reply };
    known.extend(to.peers.ask(Class::Search, met, ASK_WITHIN).await.unwrap_or_default());
    if context.own.role.indexer {
        known.extend(to.registry.ask(Class::Search, registry::Msg::Peers, ASK_WITHIN).await.unwrap_or_default());
    }
    known
}

/// A peer that began after the record was signed may have forgotten whom it saw; its own record says when it began.
async fn remembers(context: &Context, peer: PeerId) -> bool {
    let records = lookup::in_dht(context, &Wanted::Peer(peer)).await;
    records.iter().any(|record| spot::remembers(record.born_at, context.now().wall))
}
