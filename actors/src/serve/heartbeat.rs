//! One node's heartbeats: read, verify what is new, ask the registry, answer.

use std::time::{Duration, Instant};

use protocol::{
    PeerId, json,
    record::PeerRecord,
    signed::{Claimed, SignedObject as _, Verified},
    wire::{Heartbeat, Protocol, RefusalCode, Refused},
};
use tracing::debug;

use super::{ASK_WITHIN, ServeError, WRITE_WITHIN, busy};
use crate::{
    context::{Context, inform},
    gate, peers, registry,
    supervision::Class,
    swarm::streams::{Io, Patience},
};

/// A session's life: a node silent for longer begins anew.
const SILENCE_MAX: Duration = Duration::from_secs(120);

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    // What this stream has shown to be valid: the same record is never verified twice.
    let mut held_seq = None;
    let mut patience = Patience::OPENING;
    loop {
        let Some(value) = io.read_value(patience).await? else { return Ok(()) };
        patience = Patience::idle(SILENCE_MAX);
        let read_at = Instant::now();
        let heartbeat: Heartbeat = json::parse(value.bytes, Protocol::Heartbeat.value_bytes_max())?;
        let seq = heartbeat.seq;
        let answer = match verify(context, peer, &heartbeat, held_seq) {
            Err(refused) => Err(refused),
            Ok(record) => {
                let claimed = record.as_ref().map(|record| record.seq);
                let answer = ask(context, peer, heartbeat, record).await;
                if answer.is_ok() {
                    held_seq = claimed.or(held_seq);
                }
                answer
            }
        };
        match answer {
            Ok(mut response) => {
                response.served_us = u64::try_from(read_at.elapsed().as_micros()).unwrap_or(u64::MAX);
                context.stats.beats_served.inc();
                io.write_json(&response, WRITE_WITHIN).await?;
            }
            Err(refused) => {
                context.stats.beats_refused.inc();
                io.write_json(&Refused { seq: Some(seq), ..refused }, WRITE_WITHIN).await?;
            }
        }
    }
}

async fn ask(
    context: &Context,
    from: PeerId,
    heartbeat: Heartbeat,
    record: Option<Verified<PeerRecord>>,
) -> Result<protocol::wire::HeartbeatResponse, Refused> {
    let ask = |reply| registry::Msg::Beat { from, heartbeat: Box::new(heartbeat), record: record.map(Box::new), reply };
    match context.addresses.registry.ask(Class::Heartbeat, ask, ASK_WITHIN).await {
        Ok(answer) => answer,
        Err(error) => Err(busy(&error)),
    }
}

/// Verifies the record that came along when it is news; whoever signed it is to blame for it, not the daemon's actors.
fn verify(
    context: &Context,
    peer: PeerId,
    heartbeat: &Heartbeat,
    held_seq: Option<u64>,
) -> Result<Option<Verified<PeerRecord>>, Refused> {
    let Some(text) = heartbeat.record.as_ref().map(|record| record.get()) else { return Ok(None) };
    let claimed = Claimed::peek(text, PeerRecord::BYTES_MAX).map_err(|error| {
        context.stats.records_refused.inc();
        Refused::new(RefusalCode::Invalid, error.to_string())
    })?;
    if claimed.peer_id() != peer {
        context.stats.records_refused.inc();
        return Err(Refused::new(RefusalCode::NotYours, format!("the record is of {}", claimed.peer_id())));
    }
    if !claimed.is_news_to(held_seq) {
        return Ok(None);
    }
    match Verified::<PeerRecord>::open(text, context.now().wall) {
        Ok(record) => {
            let named = peers::Msg::Named { peer, name: record.name.clone(), did: record.did.clone() };
            inform(&context.addresses.peers, Class::History, named);
            Ok(Some(record))
        }
        Err(error) => {
            context.stats.records_refused.inc();
            debug!(%peer, %error, "record refused");
            if error.is_strike() {
                inform(&context.addresses.gate, Class::Control, gate::Msg::BadSignature { peer });
            }
            Err(Refused::new(error.refusal(), error.to_string()))
        }
    }
}
