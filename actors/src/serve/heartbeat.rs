//! One node's heartbeats: read, verify what is new, ask the registry, answer.

use std::time::{Duration, Instant};

use protocol::{
    PeerId,
    dht::{NameClaim, PidValue},
    json,
    presence::token::PresenceToken,
    record::PeerRecord,
    session::Values,
    signed::{Claimed, SignedObject as _, Verified},
    trace::{Outcome, Work},
    wire::{DhtValues, Heartbeat, HeartbeatResponse, Protocol, RefusalCode, Refused},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::{ASK_WITHIN, ServeError, WRITE_WITHIN, blame};
use crate::{
    audit,
    context::{Context, inform},
    lookup, peers,
    registry::{self, Carried},
    supervision::{Class, Reply},
    swarm::streams::{Io, Patience},
    traces::Guest,
};

/// A session's life: a node silent for longer begins anew.
const SILENCE_MAX: Duration = Duration::from_secs(120);

pub(super) async fn serve(context: &Context, peer: PeerId, mut io: Io) -> Result<(), ServeError> {
    let ask = |reply| peers::Msg::Role { peer, reply };
    let role = context.addresses.peers.ask(Class::Control, ask, ASK_WITHIN).await.unwrap_or_default();
    // The newest record that is known to be held here: the same one is never verified twice.
    let mut held_seq = None;
    let mut looking = Looking::default();
    // The epoch of the newest token that was kept: nor is a token.
    let mut held_epoch = None;
    let mut patience = Patience::OPENING;
    // Only spans' names are drawn of it.
    let began = context.now().mono.since_start().as_nanos();
    let mut rng = context.tree.chance().fork("serve/heartbeat", began as u64);
    loop {
        let max = Protocol::Heartbeat.value_bytes_max();
        let read = io.read(patience, |value| json::parse::<Heartbeat>(value.bytes, max)).await?;
        let Some(mut heartbeat) = read.transpose()? else { return Ok(()) };
        patience = Patience::idle(SILENCE_MAX);
        let read_at = Instant::now();
        let seq = heartbeat.seq;
        let guest = Guest::of(context, heartbeat.traceparent, Work::HeartbeatServe, peer, &mut rng);
        let sought = heartbeat.challenge_did.take();
        let token = presented(context, peer, &mut heartbeat, held_epoch);
        match answer(context, peer, role.indexer, heartbeat, held_seq).await {
            Ok(mut response) => {
                if let Some(token) = token {
                    let epoch = token.epoch;
                    let presented = audit::Msg::Presented(Box::new(token));
                    // One that finds no room is taken when the node gives it again, on its next stream.
                    if context.addresses.audit.tell(Class::Heartbeat, presented).is_ok() {
                        held_epoch = Some(epoch);
                    }
                }
                held_seq = response.record_seq;
                looking.tell(&mut response).await;
                looking.begin(context, sought);
                response.served_us = u64::try_from(read_at.elapsed().as_micros()).unwrap_or(u64::MAX);
                context.stats.beats_served.inc();
                io.write(&response, WRITE_WITHIN).await?;
                guest.over(context, Outcome::Answered, None, None);
            }
            Err(refused) => {
                context.stats.beats_refused.inc();
                let is_flood = refused.refused == RefusalCode::Limit;
                io.write(&Refused { seq: Some(seq), ..refused }, WRITE_WITHIN).await?;
                guest.over(context, Outcome::Refused, None, None);
                if is_flood {
                    // Whoever means well opens another stream after its wait.
                    io.close().await;
                    return Ok(());
                }
            }
        }
    }
}

/// A look-up in the DHT for the node, beside its beats: no answer waits for it, and the next one tells its outcome.
#[derive(Default)]
struct Looking(Option<AbortOnDropHandle<Option<Verified<PeerRecord>>>>);

impl Looking {
    /// One at a time: what is asked while another look-up runs is not looked up.
    fn begin(&mut self, context: &Context, did: Option<String>) {
        let (Some(did), None) = (did, &self.0) else { return };
        let context = context.clone();
        let look = async move { lookup::record_of(&context, &did).await };
        self.0 = Some(AbortOnDropHandle::new(tokio::spawn(look)));
    }

    async fn tell(&mut self, response: &mut HeartbeatResponse) {
        let Some(look) = self.0.take_if(|look| look.is_finished()) else { return };
        let found = look.await.ok().flatten();
        response.dht_found = Some(found.is_some());
        response.dht_payload = found.map(|record| record.to_raw());
    }
}

async fn answer(
    context: &Context,
    from: PeerId,
    is_indexer: bool,
    mut heartbeat: Heartbeat,
    held_seq: Option<u64>,
) -> Result<HeartbeatResponse, Refused> {
    // A beat whose record is refused counts like any other: the registry hears of it.
    let carried = carried(context, from, &mut heartbeat, held_seq).map(|carried| carried.map(Box::new));
    let record = carried.as_ref().ok().and_then(|carried| carried.as_ref()).map(|carried| &carried.record);
    let named = record.map(|record| (record.name.clone(), record.did.clone()));
    let heartbeat = Box::new(heartbeat);
    let (reply, answer) = Reply::channel();
    let beat = registry::Msg::Beat { from, heartbeat, carried, is_indexer, reply };
    // Without a timer of its own: the registry answers or drops the reply, and the node gives up after its own deadline.
    let is_told = context.addresses.registry.tell(Class::Heartbeat, beat).is_ok();
    let asked = if is_told { answer.await.ok() } else { None };
    let busy = || Refused::new(RefusalCode::Busy, "the registry is busy or restarting").retry_after(1);
    let answer = asked.unwrap_or_else(|| Err(busy()))?;
    // Only what the registry took is told on: a name under another's DID is not.
    if let Some((name, did)) = named {
        inform(&context.addresses.peers, Class::History, peers::Msg::Named { peer: from, name, did });
    }
    Ok(answer)
}

/// Verifies the node's token when it is news. One that is not valid is left out, and the beat stands without it; a probe
/// makes no session to speak for.
fn presented(
    context: &Context,
    peer: PeerId,
    heartbeat: &mut Heartbeat,
    held_epoch: Option<u64>,
) -> Option<Verified<PresenceToken>> {
    let text = heartbeat.presence.take().filter(|_| !heartbeat.probe)?;
    let epoch = audit::claimed_epoch(text.get(), &context.own.peer_id, &peer)?;
    if held_epoch == Some(epoch) {
        return None;
    }
    match Verified::open(text.get(), context.now().wall) {
        Ok(token) => Some(token),
        Err(error) => {
            debug!(%peer, %error, "presence token refused");
            blame(context, peer, &error);
            None
        }
    }
}

/// Verifies what came along when it is news; whoever signed it is to blame for it.
fn carried(
    context: &Context,
    peer: PeerId,
    heartbeat: &mut Heartbeat,
    held_seq: Option<u64>,
) -> Result<Option<Carried>, Refused> {
    let Some(text) = heartbeat.record.take() else { return Ok(None) };
    let values = heartbeat.values.take();
    let claimed = Claimed::peek(text.get(), PeerRecord::BYTES_MAX).map_err(|error| {
        context.stats.records_refused.inc();
        Refused::new(RefusalCode::Invalid, error.to_string())
    })?;
    if claimed.peer_id() != peer {
        context.stats.records_refused.inc();
        return Err(Refused::new(RefusalCode::NotYours, format!("the record is of {}", claimed.peer_id())));
    }
    if !claimed.is_news_to(held_seq) && values.is_none() {
        return Ok(None);
    }
    match Verified::<PeerRecord>::open(text.get(), context.now().wall) {
        Ok(record) => {
            let values = values.and_then(|values| verified_values(context, &record, &values));
            Ok(Some(Carried { record, values }))
        }
        Err(error) => {
            context.stats.records_refused.inc();
            debug!(%peer, %error, "record refused");
            blame(context, peer, &error);
            Err(Refused::new(error.refusal(), error.to_string()))
        }
    }
}

/// Values that are valid and say the same as the record; others are left out, for the record stands without them.
fn verified_values(context: &Context, record: &PeerRecord, values: &DhtValues) -> Option<Values> {
    let now = context.now().wall;
    let pid = Verified::<PidValue>::open(values.pid.get(), now).ok()?;
    let name = Verified::<NameClaim>::open(values.name.get(), now).ok()?;
    let is_same = pid.peer_id == record.peer_id
        && pid.did == record.did
        && name.peer_id == record.peer_id
        && name.did == record.did
        && name.name == record.name;
    is_same.then_some(Values { pid, name })
}
