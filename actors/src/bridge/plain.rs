//! Core NATS: orders come at most once, and one that cannot be carried out at once may be lost.

use std::{convert::Infallible, time::Duration};

use async_nats::{Message, Subscriber, header::NATS_MESSAGE_ID};
use futures::{StreamExt as _, future::select_all};
use protocol::bus::{TEXT_BYTES_MAX, VerbIn};

use sha2::{Digest as _, Sha256};

use super::{
    Msg,
    intake::{self, Arrived, Fate},
    link::{Link, SessionError},
    report,
};

/// How often an order is tried that cannot be carried out yet. Those behind it wait in the subscription meanwhile.
const TRIES: u32 = 5;

/// Time between two of them: `sharing` may be in the middle of a restart.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// One subject that is taken.
pub(super) struct Taken {
    verb: VerbIn,
    subject: String,
    messages: Subscriber,
}

/// Subscribes every subject that is taken, as one of a group: members that share a bus share the orders.
pub(super) async fn subscribe(link: &Link) -> Result<Vec<Taken>, SessionError> {
    let settings = &link.context.settings.bus;
    let mut taken = Vec::new();
    for (_, subject, verb) in settings.taken() {
        let messages = link.client.queue_subscribe(subject.clone(), settings.durable.clone()).await;
        let messages = messages.map_err(|error| SessionError::Connection(error.to_string()))?;
        taken.push(Taken { verb, subject, messages });
    }
    link.client.flush().await.map_err(|error| SessionError::Connection(error.to_string()))?;
    Ok(taken)
}

/// Takes orders of every subject until the connection ends.
pub(super) async fn listen(link: &Link, mut taken: Vec<Taken>) -> Result<Infallible, SessionError> {
    let each = taken.iter_mut().map(|taken| Box::pin(listen_to(link, taken)));
    let (ended, ..) = select_all(each).await;
    Err(ended)
}

async fn listen_to(link: &Link, taken: &mut Taken) -> SessionError {
    let born = link.context.own.born_at.as_millisecond();
    let mut count: u64 = 0;
    while let Some(message) = taken.messages.next().await {
        count += 1;
        // Of an order without a name only this session knows that it came; no other may give the same name.
        let unnamed = || format!("{}:{born}:{}:{}:{count}", taken.subject, link.life, link.session);
        let id = named(&message).map_or_else(unnamed, |name| known_by(&taken.subject, &name));
        take(link, taken.verb, Arrived { id, subject: &taken.subject, payload: &message.payload }).await;
    }
    SessionError::Connection("a subscription ended".to_owned())
}

/// A name of bounded length for a message that its sender named.
fn known_by(subject: &str, name: &str) -> String {
    let hash = Sha256::digest(format!("{subject}:{name}"));
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The name that its sender gave it.
fn named(message: &Message) -> Option<String> {
    let name = message.headers.as_ref()?.get(NATS_MESSAGE_ID)?.as_str();
    (!name.is_empty() && name.len() <= TEXT_BYTES_MAX).then(|| name.to_owned())
}

async fn take(link: &Link, verb: VerbIn, arrived: Arrived<'_>) {
    let arrived = [arrived];
    for _ in 0..TRIES {
        let (fates, tally) = intake::take(link, verb, &arrived).await;
        report(&link.me, Msg::Taken(tally));
        if !fates.contains(&Fate::Again) {
            return;
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
    link.context.stats.bus_lost.inc();
}
