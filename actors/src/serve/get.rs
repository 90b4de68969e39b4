//! A look-up for another peer: our sessions first, then the DHT.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    PeerId, json,
    wire::{GetResponse, GetValue, Protocol},
};

use super::{ASK_WITHIN, ServeError, WRITE_WITHIN, admit, busy, refuse};
use crate::{
    context::Context,
    lookup::{self, Key},
    registry,
    supervision::Class,
    swarm::streams::{Io, Patience},
};

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    let max = Protocol::Get.value_bytes_max();
    let read = io.read(Patience::OPENING, |value| json::parse::<GetValue>(value.bytes, max)).await?;
    let Some(request) = read.transpose()? else { return Ok(()) };
    let key = match Key::of(request) {
        Ok(key) => key,
        Err(refused) => return refuse(io, &refused).await,
    };
    if let Err(refused) = admit(context, peer, Protocol::Get).await {
        return refuse(io, &refused).await;
    }
    let ask = |reply| registry::Msg::Find { key: key.clone(), reply };
    let mut found = match context.addresses.registry.ask(Class::Search, ask, ASK_WITHIN).await {
        Ok(found) => found,
        Err(error) => return refuse(io, &busy(&error)).await,
    };
    if found.is_empty() {
        found = lookup::in_dht(context, &key).await.into_iter().map(Arc::new).collect();
    }
    let records: BTreeMap<_, _> = found.iter().map(|record| (record.peer_id.to_string(), record.to_raw())).collect();
    context.stats.gets_served.inc();
    io.write(&GetResponse { found: !records.is_empty(), records }, WRITE_WITHIN).await?;
    io.close().await;
    Ok(())
}
