//! Announcements on their way out, in their order on each subject.
//!
//! Each subject has one announcement under way: the next goes only when JetStream has acknowledged the one before. What
//! is in the client's hands when the connection breaks may arrive or not, so with more under way a later one could
//! arrive before an earlier one that has to be sent again. Subjects do not wait for each other.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use async_nats::{
    HeaderMap,
    header::NATS_MESSAGE_ID,
    jetstream::{
        self, ErrorCode,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
    },
};
use futures::future::join_all;
use protocol::bus::{Announcement, VerbOut};

use super::{
    Msg,
    link::{Link, SessionError},
    report,
};
use crate::{sharing, supervision::Class};

/// Announcements that are asked for at once.
const WINDOW: u32 = 256;

/// What `sharing` needs to look into its table.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How often it is looked whether something waits, should nobody say so.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often everything that waits is asked for from the beginning. What was told and could not be crossed out, because the
/// database was away, is told once more while the bus still knows it as a repetition, and crossed out then.
const ANEW_EVERY: Duration = Duration::from_secs(30);

/// Pause after something failed that is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What became of the announcements of one subject.
#[derive(Default)]
struct Sent {
    /// The bus has them.
    told: Vec<u64>,
    /// They never can be told; why the last one.
    dropped: Vec<u64>,
    why: String,
    /// The rest is tried again.
    failure: Option<SessionError>,
}

/// Tells what waits, again and again. With a stream each one is acknowledged; without, it is sent and hoped for.
pub(super) async fn tell(link: &Link, streams: Option<&jetstream::Context>) -> Result<Infallible, SessionError> {
    let mut after = 0;
    let mut unsaid: Vec<u64> = Vec::new();
    let mut anew = tokio::time::Instant::now() + ANEW_EVERY;
    loop {
        unsaid = say_published(link, unsaid);
        let waiting = if unsaid.is_empty() { next(link, after).await } else { None };
        let Some(waiting) = waiting.filter(|waiting| !waiting.is_empty()) else {
            // Either is enough; a word that came while we were at work is not lost.
            drop(tokio::time::timeout(LOOK_EVERY, link.wake.notified()).await);
            if anew <= tokio::time::Instant::now() {
                anew = tokio::time::Instant::now() + ANEW_EVERY;
                after = 0;
            }
            continue;
        };
        let sent = send(link, streams, &waiting).await;
        let told = sent.iter().map(|sent| sent.told.len() as u64).sum();
        let dropped = sent.iter().map(|sent| sent.dropped.len() as u64).sum();
        let why = sent.iter().map(|sent| sent.why.as_str()).find(|why| !why.is_empty()).unwrap_or_default().to_owned();
        let rest = waiting.len() as u64 - told - dropped;
        let dropped = (dropped > 0).then_some((dropped, why));
        report(&link.me, Msg::Told { told, dropped, waiting: rest });
        for sent in &sent {
            unsaid.extend(&sent.told);
            unsaid.extend(&sent.dropped);
        }
        unsaid.sort_unstable();
        match sent.into_iter().find_map(|sent| sent.failure) {
            // Everything after the last one that all subjects have got past is asked for again.
            Some(failure) => {
                tracing::debug!(%failure, "an announcement is tried again");
                let first_missing = waiting.iter().map(|one| one.id).find(|id| !unsaid.contains(id));
                after = first_missing.map_or(after, |id| id.saturating_sub(1));
                unsaid = say_published(link, unsaid);
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            None => after = waiting.last().map_or(after, |last| last.id),
        }
    }
}

/// Gives back what could not be said, to be said again.
fn say_published(link: &Link, ids: Vec<u64>) -> Vec<u64> {
    if ids.is_empty() {
        return ids;
    }
    match link.context.addresses.sharing.tell(Class::Control, sharing::Msg::Published { ids }) {
        Err(shed) => match shed.into_message() {
            sharing::Msg::Published { ids } => ids,
            _ => Vec::new(),
        },
        Ok(()) => Vec::new(),
    }
}

async fn next(link: &Link, after: u64) -> Option<Vec<Announcement>> {
    let ask = |reply| sharing::Msg::NextForBus { after, limit: WINDOW, reply };
    link.context.addresses.sharing.ask(Class::Control, ask, ANSWER_WITHIN).await.ok()
}

async fn send(link: &Link, streams: Option<&jetstream::Context>, waiting: &[Announcement]) -> Vec<Sent> {
    let mut by_verb: BTreeMap<VerbOut, Vec<&Announcement>> = BTreeMap::new();
    for announcement in waiting {
        by_verb.entry(announcement.verb).or_default().push(announcement);
    }
    let each = by_verb.into_iter().map(|(verb, announcements)| async move {
        let subject = link.context.settings.bus.subject_out(verb);
        match streams {
            Some(streams) => send_kept(link, streams, &subject, announcements).await,
            None => send_plain(link, &subject, announcements).await,
        }
    });
    join_all(each).await
}

/// The bytes of an announcement; nothing, and counted, when it never can be told.
fn write(link: &Link, announcement: &Announcement, sent: &mut Sent) -> Option<Vec<u8>> {
    match announcement.write(&link.context.keys, link.context.now().wall) {
        Ok(bytes) if bytes.len() <= link.client.max_payload() => Some(bytes),
        Ok(bytes) => {
            let most = link.client.max_payload();
            drop_one(announcement, sent, &format!("it has {} bytes and the server takes {most}", bytes.len()));
            None
        }
        Err(error) => {
            drop_one(announcement, sent, &error.to_string());
            None
        }
    }
}

fn drop_one(announcement: &Announcement, sent: &mut Sent, why: &str) {
    sent.dropped.push(announcement.id);
    sent.why = format!("{} cannot be announced as {}: {why}", announcement.message_id, announcement.verb);
}

async fn send_kept(
    link: &Link,
    streams: &jetstream::Context,
    subject: &str,
    announcements: Vec<&Announcement>,
) -> Sent {
    let mut sent = Sent::default();
    for announcement in announcements {
        let Some(bytes) = write(link, announcement, &mut sent) else { continue };
        let message = PublishMessage::build().payload(bytes.into()).message_id(&announcement.message_id);
        let acknowledged = async { streams.send_publish(subject.to_owned(), message).await?.await };
        match acknowledged.await {
            Ok(_) => sent.told.push(announcement.id),
            Err(error) if is_final(&error) => drop_one(announcement, &mut sent, &error.to_string()),
            Err(error) => {
                sent.failure = Some(SessionError::JetStream(error.to_string()));
                return sent;
            }
        }
    }
    sent
}

/// It would be refused every time.
fn is_final(error: &PublishError) -> bool {
    let said = std::error::Error::source(error).and_then(|source| source.downcast_ref::<jetstream::Error>());
    error.kind() == PublishErrorKind::MaxPayloadExceeded
        || said.is_some_and(|said| said.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
}

async fn send_plain(link: &Link, subject: &str, announcements: Vec<&Announcement>) -> Sent {
    let mut sent = Sent::default();
    for announcement in announcements {
        let Some(bytes) = write(link, announcement, &mut sent) else { continue };
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, announcement.message_id.as_str());
        match link.client.publish_with_headers(subject.to_owned(), headers, bytes.into()).await {
            Ok(()) => sent.told.push(announcement.id),
            Err(error) => {
                sent.failure = Some(SessionError::Connection(error.to_string()));
                break;
            }
        }
    }
    if let Err(error) = link.client.flush().await {
        sent.told.clear();
        sent.failure = Some(SessionError::Connection(error.to_string()));
    }
    sent
}
