//! A look-up for another peer: our sessions first, then the DHT.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    PeerId, json,
    search::Wanted,
    wire::{GetResponse, GetValue, Protocol},
};

use super::{ASK_WITHIN, ServeError, WRITE_WITHIN, admit, busy, known, refuse};
use crate::{
    context::{Context, inform},
    lookup, registry,
    supervision::Class,
    swarm::streams::{Io, Patience},
};

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    let max = Protocol::Get.value_bytes_max();
    let read = io.read(Patience::OPENING, |value| json::parse::<GetValue>(value.bytes, max)).await?;
    let Some(request) = read.transpose()? else { return Ok(()) };
    let wanted = match Wanted::of_get(&request) {
        Ok(wanted) => wanted,
        Err(error) => return refuse(io, &error.refusal()).await,
    };
    let admitted = match admit(context, peer, Protocol::Get).await {
        Ok(()) => known(context, peer).await,
        refused => refused,
    };
    if let Err(refused) = admitted {
        return refuse(io, &refused).await;
    }
    let ask = |reply| registry::Msg::Find { wanted: wanted.clone(), reply };
    let found = match context.addresses.registry.ask(Class::Search, ask, ASK_WITHIN).await {
        Ok(found) => found,
        Err(error) => return refuse(io, &busy(&error)).await,
    };
    let mut records = found.records;
    if records.is_empty() && !found.is_absent {
        records = lookup::in_dht(context, &wanted).await.into_iter().map(Arc::new).collect();
        if records.is_empty() {
            inform(&context.addresses.registry, Class::History, registry::Msg::Absent(wanted));
        }
    }
    let records: BTreeMap<_, _> = records.iter().map(|record| (record.peer_id.to_string(), record.to_raw())).collect();
    context.stats.gets_served.inc();
    io.write(&GetResponse { found: !records.is_empty(), records }, WRITE_WITHIN).await?;
    io.close().await;
    Ok(())
}
