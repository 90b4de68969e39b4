//! JetStream: the stream that keeps the messages, and the consumers that bring the orders.
//!
//! One stream holds every subject of ours, in and out. A consumer of NATS 2.9 has one subject, so there is one consumer
//! for each subject that is taken: orders of one subject come in their order, and a subject that has to wait holds no
//! other up. An order that is put off is held, with those behind it, and tried again before anything else of its subject:
//! what an application changed last must be what is changed last. For the same reason a new session waits until the bus
//! gives back what a former one held, which it does before it gives anything new, and until no former one can be given
//! anything more: a server that has not noticed that a connection is gone goes on answering it.

use std::{convert::Infallible, time::Duration};

use async_nats::jetstream::{
    self, AckKind, ErrorCode, Message,
    consumer::{AckPolicy, PullConsumer, pull},
    context::GetStreamErrorKind,
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream},
};
use futures::{StreamExt as _, future::select_all};
use protocol::bus::{ENVELOPE_BYTES_MAX, Settings, VerbIn};

use super::{
    Msg,
    intake::{self, Arrived, BATCH_MAX, Fate},
    link::{Link, SessionError},
    report,
};

/// An order that was delivered and not acknowledged comes again after this: longer than a batch may take, and no longer
/// than an application waits after a bridge has died with it.
const ACK_WITHIN: Duration = Duration::from_secs(15);

/// What a former session held is given back a little after it may be.
const GIVEN_BACK_AFTER: Duration = Duration::from_secs(16);

/// For a question of a former session to be answered or to end.
const FORMER_WITHIN: Duration = WAIT_FOR_ONE.saturating_add(Duration::from_secs(2));

/// How often it is looked whether it did.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A held order is tried again at least this often, so that the bus goes on waiting for it.
const HELD_MAX: Duration = Duration::from_secs(8);

/// How long one question for the next order waits at the server.
const WAIT_FOR_ONE: Duration = Duration::from_secs(30);

/// What is there is delivered at once; a batch that is cut short ends the session.
const REST_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of a batch, without its first order.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What headers may add to an envelope.
const HEADERS_BYTES_MAX: usize = 16 * 1024;

/// One subject that is taken.
pub(super) struct Taken {
    verb: VerbIn,
    subject: String,
    consumer: PullConsumer,
}

/// Makes the stream and its consumers where they are not there yet. A stream that somebody else made keeps its settings;
/// only subjects of ours that it does not hold are added, and repetitions are known for long enough.
pub(super) async fn prepare(streams: &jetstream::Context, settings: &Settings) -> Result<Vec<Taken>, SessionError> {
    let stream = stream(streams, settings).await?;
    let mut taken = Vec::new();
    for (name, subject, verb) in settings.taken() {
        let config = pull::Config {
            durable_name: Some(format!("{}_{name}", settings.durable)),
            filter_subject: subject.clone(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WITHIN,
            max_ack_pending: i64::from(settings.unacknowledged_max),
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(failed)?;
        taken.push(Taken { verb, subject, consumer });
    }
    Ok(taken)
}

async fn stream(streams: &jetstream::Context, settings: &Settings) -> Result<Stream, SessionError> {
    match streams.get_stream(&settings.stream).await {
        Ok(stream) => adopt(streams, settings, stream).await,
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                streams.create_stream(config(settings)).await.map_err(failed)
            }
            _ => Err(failed(error)),
        },
    }
}

fn config(settings: &Settings) -> Config {
    Config {
        name: settings.stream.clone(),
        subjects: settings.stream_subjects(),
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        // The oldest leaves first: a consumer that is away for longer than the stream keeps must not stop the others.
        discard: DiscardPolicy::Old,
        max_bytes: i64::try_from(settings.stream_bytes_max).unwrap_or(i64::MAX),
        max_age: settings.stream_age_max,
        max_message_size: i32::try_from(ENVELOPE_BYTES_MAX + HEADERS_BYTES_MAX).unwrap_or(i32::MAX),
        duplicate_window: settings.duplicate_window,
        ..Config::default()
    }
}

async fn adopt(streams: &jetstream::Context, settings: &Settings, stream: Stream) -> Result<Stream, SessionError> {
    let mut config = stream.cached_info().config.clone();
    let missing: Vec<String> = settings
        .stream_subjects()
        .into_iter()
        .filter(|subject| !config.subjects.iter().any(|held| covers(held, subject)))
        .collect();
    if missing.is_empty() && config.duplicate_window >= settings.duplicate_window {
        return Ok(stream);
    }
    config.subjects.extend(missing);
    config.duplicate_window = config.duplicate_window.max(settings.duplicate_window);
    streams.update_stream(config).await.map_err(failed)?;
    Ok(stream)
}

/// Whether a stream's subject, which may have wildcards, takes this one, which has none.
fn covers(held: &str, subject: &str) -> bool {
    let mut parts = subject.split('.');
    for held in held.split('.') {
        match (held, parts.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (held, Some(part)) if held == part => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

/// Takes orders of every subject until one of the consumers fails.
pub(super) async fn consume(link: &Link, taken: Vec<Taken>) -> Result<Infallible, SessionError> {
    let each = taken.iter().map(|taken| Box::pin(consume_one(link, taken)));
    let (ended, ..) = select_all(each).await;
    ended
}

async fn consume_one(link: &Link, taken: &Taken) -> Result<Infallible, SessionError> {
    outlive_former(&taken.consumer).await?;
    loop {
        let batch = next(&taken.consumer).await?;
        let mut left = batch.as_slice();
        while !left.is_empty() {
            let done = take(link, taken, left).await?;
            left = &left[done..];
            if !left.is_empty() {
                tokio::time::sleep(link.context.settings.bus.again_after.min(HELD_MAX)).await;
            }
        }
    }
}

/// Waits until no former session can be given another order, and what one was given is given back: it would else come again
/// behind its successors. Where members share a consumer there is always somebody else, and no order among them.
async fn outlive_former(consumer: &PullConsumer) -> Result<(), SessionError> {
    let by = tokio::time::Instant::now() + FORMER_WITHIN;
    loop {
        let info = consumer.get_info().await.map_err(failed)?;
        if info.num_waiting > 0 && tokio::time::Instant::now() < by {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        if info.num_ack_pending > 0 {
            tokio::time::sleep(GIVEN_BACK_AFTER).await;
        }
        return Ok(());
    }
}

/// Has orders carried out, and tells how many of the first are done with. Those behind one that is put off are tried
/// again with it; what was done of them is known then.
async fn take(link: &Link, taken: &Taken, batch: &[Message]) -> Result<usize, SessionError> {
    let mut arrived = Vec::with_capacity(batch.len());
    for message in batch {
        arrived.push(Arrived { id: id_of(message)?, subject: &taken.subject, payload: &message.payload });
    }
    let (fates, tally) = intake::take(link, taken.verb, &arrived).await;
    let done = fates.iter().position(|fate| *fate == Fate::Again).unwrap_or(fates.len());
    for (at, (message, fate)) in batch.iter().zip(fates).enumerate() {
        let kind = match fate {
            _ if at >= done => AckKind::Progress,
            Fate::Refused => AckKind::Term,
            Fate::Over | Fate::Again => AckKind::Ack,
        };
        // What is lost on the way comes again, and is known.
        message.ack_with(kind).await.map_err(|error| SessionError::Connection(error.to_string()))?;
    }
    report(&link.me, Msg::Taken(tally));
    Ok(done)
}

/// Waits for one order, then takes what else is there. The first is taken whatever its size: one that is larger than
/// a batch may be would else stand in the way for ever.
async fn next(consumer: &PullConsumer) -> Result<Vec<Message>, SessionError> {
    let mut messages = Vec::new();
    let mut first = consumer.batch().max_messages(1).expires(WAIT_FOR_ONE).messages().await.map_err(failed)?;
    match first.next().await {
        None => return Ok(messages),
        Some(message) => messages.push(message.map_err(failed)?),
    }
    let rest = consumer.fetch().max_messages(BATCH_MAX - 1).max_bytes(BATCH_BYTES_MAX).messages();
    let mut rest = rest.await.map_err(failed)?;
    loop {
        match tokio::time::timeout(REST_WITHIN, rest.next()).await {
            Ok(Some(Ok(message))) => messages.push(message),
            // What goes wrong here goes wrong again at the next question, where it is told.
            Ok(Some(Err(_)) | None) => return Ok(messages),
            // Some may be on their way still, and would come again behind their successors. The next session waits for them.
            Err(_) => return Err(SessionError::JetStream("a batch was cut short".to_owned())),
        }
    }
}

/// Its place in the stream and when the stream took it: a stream that was made anew gives its places again, and times
/// never.
fn id_of(message: &Message) -> Result<String, SessionError> {
    let info = message.info().map_err(failed)?;
    let nanos = info.published.unix_timestamp_nanos();
    Ok(format!("{}:{}:{nanos}", info.stream, info.stream_sequence))
}

fn failed(error: impl std::fmt::Display) -> SessionError {
    SessionError::JetStream(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_takes_a_subject_by_itself_or_by_a_wildcard() {
        for (held, subject, is_covered) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.>", "a.b.c", true),
            (">", "a", true),
            ("a.b", "a.c", false),
            ("a.*", "a.b.c", false),
            ("a.>", "a", false),
            ("a.b.c", "a.b", false),
        ] {
            assert_eq!(covers(held, subject), is_covered, "{held} {subject}");
        }
    }
}
