//! The connection: who we are to the server, how it is made, and what runs while it is there.

use std::{io, sync::Arc, time::Duration};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, ServerAddr, jetstream};
use protocol::bus::{JetStream, Settings};
use tokio::sync::Notify;

use super::{Msg, outlet, plain, report, stream};
use crate::{
    context::Context,
    secret_file::{self, SecretFileError},
    supervision::Address,
    view::BusMode,
};

/// A server that is silent for two of these is gone.
const PING_EVERY: Duration = Duration::from_secs(5);

/// A connection is made within this or tried again.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Pause between two attempts to connect, at most.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// An answer of JetStream.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Commands that wait for the connection, each at most as large as one message.
const COMMANDS_MAX: usize = 64;

/// Messages of one subscription that wait to be taken. Batches are pulled, so it is only core NATS that fills it.
const SUBSCRIPTION_MAX: usize = 256;

/// Where the bus has no JetStream, how often it is looked whether it has it now.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Why the bus cannot be used although it is there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SessionError {
    /// JetStream is wanted, and the server has none.
    #[error("the server has no JetStream, and bus.jetstream is \"required\"")]
    NoJetStream,
    /// JetStream says no, or nothing.
    #[error("JetStream: {0}")]
    JetStream(String),
    /// A subscription or a message could not be sent.
    #[error("the connection: {0}")]
    Connection(String),
    /// JetStream came; the session is begun again with it.
    #[error("the server has JetStream now")]
    ModeChanged,
}

/// Why a file of credentials is not used.
#[derive(Debug, thiserror::Error)]
enum SecretError {
    #[error(transparent)]
    File(#[from] SecretFileError),
    #[error("{setting}: {path} holds no credentials: {cause}")]
    Malformed { setting: &'static str, path: String, cause: io::Error },
}

/// Connects for the first time, again and again until it succeeds. From then on the client reconnects by itself, and its
/// events say so.
pub(super) async fn dial(settings: Settings, me: Address<Msg>) {
    let mut attempt = 0;
    loop {
        match connect(&settings, &me).await {
            Ok(client) => return report(&me, Msg::Dialled(client)),
            Err(cause) => report(&me, Msg::DialFailed(cause)),
        }
        attempt += 1;
        tokio::time::sleep(delay(attempt)).await;
    }
}

/// 100 ms, then twice as long each time.
fn delay(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(6);
    (Duration::from_millis(100) * 2_u32.pow(doublings)).min(RETRY_MAX)
}

async fn connect(settings: &Settings, me: &Address<Msg>) -> Result<Client, String> {
    let servers = settings.urls().into_iter().map(str::parse).collect::<Result<Vec<ServerAddr>, _>>();
    let servers = servers.map_err(|error| format!("bus.url: {error}"))?;
    let options = options(settings).await.map_err(|error| error.to_string())?;
    let me = me.clone();
    let options = options.event_callback(move |event| {
        report(&me, Msg::Happened(event));
        std::future::ready(())
    });
    options.connect(servers).await.map_err(|error| match error.kind() {
        // The source names what is missing in a certificate or a name.
        ConnectErrorKind::Tls | ConnectErrorKind::Dns | ConnectErrorKind::Io => with_sources(&error),
        _ => error.to_string(),
    })
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        source = error.source();
    }
    words
}

async fn options(settings: &Settings) -> Result<ConnectOptions, SecretError> {
    let mut options = ConnectOptions::new()
        .name("muster")
        .ping_interval(PING_EVERY)
        .connection_timeout(CONNECT_WITHIN)
        .request_timeout(Some(ANSWER_WITHIN))
        .client_capacity(COMMANDS_MAX)
        .subscription_capacity(SUBSCRIPTION_MAX)
        // Nothing means without end.
        .max_reconnects(None)
        .reconnect_delay_callback(delay)
        .require_tls(settings.tls_required);
    if !settings.user.is_empty() {
        options = options.user_and_password(settings.user.clone(), settings.password.reveal().to_owned());
    }
    if !settings.nkey_seed_file.as_os_str().is_empty() {
        let seed = secret_file::read("bus.nkey_seed_file", &settings.nkey_seed_file).await?;
        options = options.nkey(seed.trim().to_owned());
    }
    if !settings.creds_file.as_os_str().is_empty() {
        let (setting, path) = ("bus.creds_file", &settings.creds_file);
        let text = secret_file::read(setting, path).await?;
        let path = path.display().to_string();
        options = options.credentials(&text).map_err(|cause| SecretError::Malformed { setting, path, cause })?;
    }
    if !settings.tls_ca.as_os_str().is_empty() {
        options = options.add_root_certificates(settings.tls_ca.clone());
    }
    Ok(options)
}

/// What to do about it, as far as the words tell.
pub(super) fn remedy(cause: &str) -> &'static str {
    let cause = cause.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| cause.contains(word));
    if has(&["authorization", "authentication", "permissions"]) {
        "check bus.user and bus.password, bus.nkey_seed_file or bus.creds_file against the server's accounts"
    } else if has(&["0600"]) {
        "take the rights of others away: chmod 600"
    } else if has(&["tls", "certificate"]) {
        "check bus.tls_ca and the server's certificate"
    } else if has(&["bus."]) {
        "correct that setting or its file"
    } else if has(&["jetstream"]) {
        "check the server's JetStream, its room on the disk and bus.stream"
    } else {
        "it is tried again by itself; check bus.url and that the server runs; announcements wait meanwhile"
    }
}

/// All that a session needs. It lasts as long as one connection.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) context: Context,
    pub(super) me: Address<Msg>,
    pub(super) client: Client,
    pub(super) wake: Arc<Notify>,
    pub(super) session: u64,
    /// The actor's incarnation: with the session it makes names that no other life gives.
    pub(super) life: u64,
}

impl Link {
    /// Takes orders and tells announcements until something fails.
    pub(super) async fn run(self) {
        let session = self.session;
        let me = self.me.clone();
        let cause = match self.work().await {
            Ok(never) => match never {},
            Err(cause) => cause,
        };
        report(&me, Msg::Ended { session, cause });
    }

    async fn work(self) -> Result<std::convert::Infallible, SessionError> {
        let settings = &self.context.settings.bus;
        let streams = jetstream::ContextBuilder::new().timeout(ANSWER_WITHIN).build(self.client.clone());
        let has_streams = settings.jetstream != JetStream::Off && has_jetstream(&streams).await?;
        if has_streams {
            let consumers = stream::prepare(&streams, settings).await?;
            report(&self.me, Msg::Entered { session: self.session, mode: BusMode::JetStream });
            return tokio::select! {
                ended = stream::consume(&self, consumers) => ended,
                ended = outlet::tell(&self, Some(&streams)) => ended,
            };
        }
        if settings.jetstream == JetStream::Required {
            return Err(SessionError::NoJetStream);
        }
        let subscriptions = plain::subscribe(&self).await?;
        report(&self.me, Msg::Entered { session: self.session, mode: BusMode::Core });
        tokio::select! {
            ended = plain::listen(&self, subscriptions) => ended,
            ended = outlet::tell(&self, None) => ended,
            ended = jetstream_came(&streams, settings.jetstream) => ended,
        }
    }
}

/// What the server says of our account, as far as it matters. Older servers leave out much of the rest.
#[derive(serde::Deserialize)]
struct Account {
    error: Option<jetstream::Error>,
}

/// Whether the server has it for our account.
async fn has_jetstream(streams: &jetstream::Context) -> Result<bool, SessionError> {
    use jetstream::{ErrorCode, context::RequestErrorKind};
    let answer: Result<Account, _> = streams.request("INFO", &()).await;
    match answer {
        Ok(Account { error: None }) => Ok(true),
        Ok(Account { error: Some(said) }) => match said.error_code() {
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => Ok(false),
            _ => Err(SessionError::JetStream(said.to_string())),
        },
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(false),
        Err(error) => Err(SessionError::JetStream(with_sources(&error))),
    }
}

async fn jetstream_came(
    streams: &jetstream::Context,
    wanted: JetStream,
) -> Result<std::convert::Infallible, SessionError> {
    if wanted == JetStream::Off {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        if matches!(has_jetstream(streams).await, Ok(true)) {
            return Err(SessionError::ModeChanged);
        }
    }
}
