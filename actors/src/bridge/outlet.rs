//! Announcements on their way out, in their order on each subject.
//!
//! Each subject has one announcement under way: the next goes only when JetStream has acknowledged the one before. What
//! is in the client's hands when the connection breaks may arrive or not, so with more under way a later one could
//! arrive before an earlier one that has to be sent again. Each subject is told by a loop of its own, with its own place and
//! its own pauses: one that the bus does not take holds no other up.

use std::{convert::Infallible, pin::pin, time::Duration};

use async_nats::{
    HeaderMap,
    header::NATS_MESSAGE_ID,
    jetstream::{
        self, ErrorCode,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
    },
};
use futures::future::select_all;
use protocol::bus::{Announcement, VerbOut};

use super::{
    Msg,
    link::{Link, SessionError},
    report,
};
use crate::{sharing, supervision::Class};

/// Announcements of one subject that are asked for at once. The store answers with fewer when they are long.
const WINDOW: u32 = 64;

/// What `sharing` needs to look into its table.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How often each subject is looked at, should nobody say that something waits.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How often everything that waits is asked for from the beginning. What was told and could not be crossed out, because the
/// database was away, is told once more while the bus still knows it as a repetition, and crossed out then.
const ANEW_EVERY: Duration = Duration::from_secs(30);

/// Pause after something failed that is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What became of announcements of one subject.
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
    let each = VerbOut::ALL.map(|verb| Box::pin(tell_one(link, streams, verb)));
    let (never, ..) = select_all(each).await;
    match never {}
}

/// The same of one subject.
async fn tell_one(link: &Link, streams: Option<&jetstream::Context>, verb: VerbOut) -> Infallible {
    let subject = link.context.settings.bus.subject_out(verb);
    let mut after = 0;
    let mut unsaid: Vec<u64> = Vec::new();
    let mut anew = tokio::time::Instant::now() + ANEW_EVERY;
    loop {
        // Before it is looked: a word that comes while we look is not lost.
        let mut word = pin!(link.wake.notified());
        word.as_mut().enable();
        unsaid = say_published(link, unsaid);
        let waiting = if unsaid.is_empty() { next(link, verb, after).await } else { None };
        let Some(waiting) = waiting.filter(|waiting| !waiting.is_empty()) else {
            drop(tokio::time::timeout(LOOK_EVERY, word).await);
            if anew <= tokio::time::Instant::now() {
                anew = tokio::time::Instant::now() + ANEW_EVERY;
                after = 0;
            }
            continue;
        };
        let sent = match streams {
            Some(streams) => send_kept(link, streams, &subject, &waiting).await,
            None => send_plain(link, &subject, &waiting).await,
        };
        let (told, dropped) = (sent.told.len() as u64, sent.dropped.len() as u64);
        let rest = waiting.len() as u64 - told - dropped;
        let dropped = (dropped > 0).then_some((dropped, sent.why));
        report(&link.me, Msg::Told { verb, told, dropped, waiting: rest });
        unsaid = [sent.told, sent.dropped].concat();
        unsaid.sort_unstable();
        // What is done with is its first ones, so the next place is behind the last of them.
        let done = waiting.iter().map(|one| one.id).take_while(|id| unsaid.binary_search(id).is_ok()).last();
        after = done.unwrap_or(after);
        if let Some(failure) = sent.failure {
            tracing::debug!(%failure, subject, "an announcement is tried again");
            unsaid = say_published(link, unsaid);
            tokio::time::sleep(AGAIN_AFTER).await;
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

async fn next(link: &Link, verb: VerbOut, after: u64) -> Option<Vec<Announcement>> {
    let ask = |reply| sharing::Msg::NextForBus { verb, after, limit: WINDOW, reply };
    link.context.addresses.sharing.ask(Class::Control, ask, ANSWER_WITHIN).await.ok()
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

async fn send_kept(link: &Link, streams: &jetstream::Context, subject: &str, announcements: &[Announcement]) -> Sent {
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

async fn send_plain(link: &Link, subject: &str, announcements: &[Announcement]) -> Sent {
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
