//! Where the bus is, which subjects carry which verb, and what a stream keeps.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{VerbIn, VerbOut};

/// Bytes of a subject. NATS asks for fewer than 256.
pub const SUBJECT_BYTES_MAX: usize = 128;

/// Addresses of one bus: a cluster has three or five.
pub const URLS_MAX: usize = 8;

/// What a repetition is known by must outlive a restart of the bus: an announcement whose acknowledgement was lost is
/// published again as soon as the bus is back.
pub const DUPLICATE_WINDOW_MIN: Duration = Duration::from_secs(600);

/// The verbs that are taken, by the last part of their subject. The predecessor's own spelling stands beside the right
/// one.
const TAKEN: [(&str, VerbIn); 4] = [
    ("create_resource", VerbIn::CreateResource),
    ("remove_resource", VerbIn::RemoveResource),
    ("propagation_event", VerbIn::PropagationEvent),
    ("propalgation_event", VerbIn::PropagationEvent),
];

/// Whether what is published outlives its subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JetStream {
    /// Where the server has it.
    #[default]
    Auto,
    /// Nothing is taken or told without it.
    Required,
    /// Never: messages may be lost.
    Off,
}

/// A password, which is never written into a log.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// What is shown to the server.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(if self.0.is_empty() { "none" } else { "hidden" })
    }
}

/// How a member is on its organisation's bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where NATS answers, several addresses of one cluster separated by commas; empty for no bus.
    pub url: String,
    /// In front of every verb.
    pub prefix: String,
    /// Subjects of verbs that are not `<prefix>.<verb>`, by verb.
    pub subjects: BTreeMap<String, String>,
    /// Whether messages outlive a restart.
    pub jetstream: JetStream,
    /// The stream that keeps them.
    pub stream: String,
    /// Begins the name of each consumer of the stream. Members with the same name share the orders between them.
    pub durable: String,
    /// Bytes that the stream keeps; the oldest messages leave first. At a thousand orders of a kilobyte in a minute it
    /// holds the orders of 17 hours.
    pub stream_bytes_max: u64,
    /// How long the stream keeps a message. An application that was away over a weekend still hears what it missed.
    #[serde(with = "crate::time::text")]
    pub stream_age_max: Duration,
    /// How long the stream knows a repetition.
    #[serde(with = "crate::time::text")]
    pub duplicate_window: Duration,
    /// Orders of one subject that were delivered and are not yet acknowledged.
    pub unacknowledged_max: u32,
    /// An order that could not be carried out yet comes again after this.
    #[serde(with = "crate::time::text")]
    pub again_after: Duration,
    /// Name of a user; empty for none.
    pub user: String,
    /// Its password.
    pub password: Password,
    /// File of an nkey's seed; empty for none.
    pub nkey_seed_file: PathBuf,
    /// File of credentials, as `nsc` writes it; empty for none.
    pub creds_file: PathBuf,
    /// File of certificates that vouch for the server, beside those of the system; empty for none.
    pub tls_ca: PathBuf,
    /// Never speak without TLS.
    pub tls_required: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: String::new(),
            prefix: "opencloud".to_owned(),
            subjects: BTreeMap::new(),
            jetstream: JetStream::default(),
            stream: "OPENCLOUD".to_owned(),
            durable: "muster".to_owned(),
            stream_bytes_max: 1024 * 1024 * 1024,
            stream_age_max: Duration::from_secs(7 * 86_400),
            duplicate_window: Duration::from_secs(1_800),
            unacknowledged_max: 256,
            again_after: Duration::from_secs(5),
            user: String::new(),
            password: Password::default(),
            nkey_seed_file: PathBuf::new(),
            creds_file: PathBuf::new(),
            tls_ca: PathBuf::new(),
            tls_required: false,
        }
    }
}

/// Why settings of the bus cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// The address is none of NATS.
    #[error("got \"{got}\" in \"url\", expected 1 to {URLS_MAX} addresses such as nats://host:4222 or tls://host:4222")]
    Url {
        /// The address, without what stands before an @.
        got: String,
    },
    /// A subject that could not be subscribed, or would take more than its own messages.
    #[error(
        "got the subject \"{got}\" for {verb}, expected 1 to {SUBJECT_BYTES_MAX} visible ASCII characters, parts that are \
         not empty between dots, no wildcard and no $ in front"
    )]
    Subject {
        /// Of which verb.
        verb: String,
        /// The subject.
        got: String,
    },
    /// A subject of a verb that there is none of.
    #[error("got a subject for \"{got}\", expected one of {}", known())]
    Verb {
        /// The verb.
        got: String,
    },
    /// Two verbs could not be told apart. One verb may go both ways on one subject: our own words are known by their
    /// signature.
    #[error("got the subject \"{subject}\" for both {one} and {other}, expected one verb on each")]
    Shared {
        /// The subject.
        subject: String,
        /// The first verb.
        one: String,
        /// The second.
        other: String,
    },
    /// A name that the server would not take.
    #[error("got \"{got}\" in \"{field}\", expected 1 to 32 letters, digits, - and _")]
    Name {
        /// Which setting.
        field: &'static str,
        /// The name.
        got: String,
    },
    /// More than one way to say who we are.
    #[error("got {got} ways to say who we are, expected one of user, nkey_seed_file and creds_file")]
    Credentials {
        /// How many.
        got: usize,
    },
    /// Repetitions would be forgotten while the bus restarts.
    #[error(
        "got {got:?} in \"duplicate_window\", expected {DUPLICATE_WINDOW_MIN:?} or more, and no more than \"stream_age_max\""
    )]
    DuplicateWindow {
        /// The window.
        got: Duration,
    },
}

impl Settings {
    /// There is a bus.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.url.is_empty()
    }

    /// The subject of a verb.
    #[must_use]
    pub fn subject(&self, verb: &str) -> String {
        self.subjects.get(verb).cloned().unwrap_or_else(|| format!("{}.{verb}", self.prefix))
    }

    /// The subject on which this is told.
    #[must_use]
    pub fn subject_out(&self, verb: VerbOut) -> String {
        self.subject(verb.name())
    }

    /// What is taken: the name of the verb as its subject spells it, its subject, and what it means.
    #[must_use]
    pub fn taken(&self) -> Vec<(&'static str, String, VerbIn)> {
        TAKEN.into_iter().map(|(name, verb)| (name, self.subject(name), verb)).collect()
    }

    /// Every subject of the stream, once.
    #[must_use]
    pub fn stream_subjects(&self) -> Vec<String> {
        let all: BTreeSet<String> = verbs().into_iter().map(|verb| self.subject(verb)).collect();
        all.into_iter().collect()
    }

    /// In front of what the services answer to.
    #[must_use]
    pub fn service_prefix(&self) -> String {
        format!("{}.svc", self.prefix)
    }

    /// The addresses, without what they may say of a user.
    #[must_use]
    pub fn shown_url(&self) -> String {
        self.url.split(',').map(|url| shown(url.trim())).collect::<Vec<_>>().join(",")
    }

    /// The addresses, one by one.
    #[must_use]
    pub fn urls(&self) -> Vec<&str> {
        self.url.split(',').map(str::trim).collect()
    }

    /// Checks what must hold between the settings; of a bus that is off, nothing.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check(&self) -> Result<(), SettingsError> {
        if !self.is_on() {
            return Ok(());
        }
        self.check_urls()?;
        self.check_subjects()?;
        check_name("stream", &self.stream)?;
        check_name("durable", &self.durable)?;
        let named = [!self.user.is_empty(), is_set(&self.nkey_seed_file), is_set(&self.creds_file)];
        let got = named.into_iter().filter(|is_named| *is_named).count();
        if got > 1 {
            return Err(SettingsError::Credentials { got });
        }
        if self.duplicate_window < DUPLICATE_WINDOW_MIN || self.duplicate_window > self.stream_age_max {
            return Err(SettingsError::DuplicateWindow { got: self.duplicate_window });
        }
        Ok(())
    }

    fn check_urls(&self) -> Result<(), SettingsError> {
        let urls = self.urls();
        let is_good = |url: &&str| {
            let host = url.strip_prefix("nats://").or_else(|| url.strip_prefix("tls://"));
            host.is_some_and(|host| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic()))
        };
        match urls.iter().find(|url| !is_good(url)) {
            Some(bad) => Err(SettingsError::Url { got: shown(bad) }),
            None if urls.len() > URLS_MAX => Err(SettingsError::Url { got: format!("{} addresses", urls.len()) }),
            None => Ok(()),
        }
    }

    fn check_subjects(&self) -> Result<(), SettingsError> {
        let verbs = verbs();
        if let Some(unknown) = self.subjects.keys().find(|verb| !verbs.contains(verb.as_str())) {
            return Err(SettingsError::Verb { got: unknown.clone() });
        }
        check_subject("prefix", &self.prefix)?;
        let mut by_subject: BTreeMap<String, &str> = BTreeMap::new();
        for verb in verbs {
            let subject = self.subject(verb);
            check_subject(verb, &subject)?;
            if let Some(one) = by_subject.insert(subject.clone(), verb) {
                return Err(SettingsError::Shared { subject, one: one.to_owned(), other: verb.to_owned() });
            }
        }
        Ok(())
    }
}

fn is_set(path: &std::path::Path) -> bool {
    !path.as_os_str().is_empty()
}

/// The name of every verb, of both ways.
fn verbs() -> BTreeSet<&'static str> {
    TAKEN.into_iter().map(|(name, _)| name).chain(VerbOut::ALL.into_iter().map(VerbOut::name)).collect()
}

fn known() -> String {
    verbs().into_iter().collect::<Vec<_>>().join(", ")
}

/// An address as it may be shown: without user and password.
fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let shown = if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") };
    shown.chars().take(SUBJECT_BYTES_MAX).flat_map(char::escape_debug).collect()
}

fn check_subject(verb: &str, subject: &str) -> Result<(), SettingsError> {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*' && byte != b'>')
    };
    // Subjects of the server itself begin with a $, those of answers with _INBOX.
    let is_own = !subject.starts_with('$') && !subject.starts_with('_');
    if subject.len() <= SUBJECT_BYTES_MAX && is_own && subject.split('.').all(is_part) {
        return Ok(());
    }
    let got = subject.chars().take(SUBJECT_BYTES_MAX).flat_map(char::escape_debug).collect();
    Err(SettingsError::Subject { verb: verb.to_owned(), got })
}

/// The server takes longer ones; a consumer's name has a verb behind it and becomes a folder on its disk.
fn check_name(field: &'static str, name: &str) -> Result<(), SettingsError> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > 32 || !name.bytes().all(is_part) {
        return Err(SettingsError::Name { field, got: name.chars().take(64).flat_map(char::escape_debug).collect() });
    }
    Ok(())
}
