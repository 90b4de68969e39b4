//! What is expected of every setting: its kind and its range, in code and in the words of messages.

use std::{fmt, net::SocketAddr, time::Duration};

use figment::value::{Num, Value};
use multiaddr::{Multiaddr, Protocol};
use protocol::{
    addr::{Range, Seed},
    identity::Did,
    pool::MAX_INDEXER_MAX,
    time::text,
};
use tracing_subscriber::EnvFilter;

/// Forms of the log's lines.
pub(super) const LOG_FORMATS: [&str; 2] = ["human", "json"];

/// How much can be told.
const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Kind and range of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Expected {
    /// `true` or `false`.
    Truth,
    /// A whole number from … to ….
    Whole(u64, u64),
    /// A number from … to ….
    Number(f64, f64),
    /// A duration from … to …, in milliseconds.
    Span(u64, u64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// So many characters, none a control character.
    Text(usize, usize),
    /// The member's name.
    Name,
    /// A DID or nothing.
    Identifier,
    /// A URL or nothing.
    Url,
    /// A URL or nothing. It is a secret, so what was got is never said.
    SecretUrl,
    /// A plain HTTP URL or nothing.
    Collector,
    /// A URL of a database or nothing. It may hold a password, so what was got is never said.
    Database,
    /// A path.
    Path,
    /// At most so many addresses to listen on.
    Listen(usize),
    /// At most so many addresses to tell.
    Announce(usize),
    /// At most so many addresses with a peer id.
    Seeds(usize),
    /// At most so many ranges of addresses.
    Ranges(usize),
    /// An IP address and a port.
    Socket,
    /// At most so many host names.
    Hosts(usize),
    /// A level or directives.
    Level,
    /// A path or nothing.
    File,
    /// A text that is not shown, of at most so many characters.
    Secret(usize),
    /// Subjects by verb.
    Subjects,
}

use Expected::{
    Announce, Collector, Database, File, Hosts, Identifier, Level, Listen, Name, Number, OneOf, Path, Ranges, Secret,
    SecretUrl, Seeds, Socket, Span, Subjects, Text, Truth, Url, Whole,
};

/// Every setting.
pub(super) const EXPECTED: &[(&str, Expected)] = &[
    ("node.name", Name),
    ("node.mode", OneOf(&["node", "indexer", "both"])),
    ("node.did", Identifier),
    ("node.api_url", Url),
    ("node.nats_address", Text(0, 512)),
    ("node.wallet_address", Text(0, 512)),
    ("node.light", Truth),
    ("network.id", Text(1, 64)),
    ("network.private", Truth),
    ("network.profile", OneOf(&["public", "local", "load"])),
    ("network.port", Whole(0, 65_535)),
    ("network.next_port", Whole(0, 65_535)),
    ("network.listen", Listen(16)),
    ("network.announce", Announce(8)),
    ("network.seeds", Seeds(64)),
    ("network.private_ranges", Ranges(64)),
    ("network.mdns", Truth),
    ("files.key", Path),
    ("files.psk", Path),
    ("files.data", Path),
    ("pool.min_indexer", Whole(1, 100)),
    ("pool.max_indexer", Whole(1, MAX_INDEXER_MAX as u64)),
    ("pool.joining_within", Span(10, 60_000)),
    ("pool.probe_within", Span(10, 60_000)),
    ("pool.probes_max", Whole(1, 256)),
    ("pool.settle", Span(0, 60_000)),
    ("pool.quick_score_min", Number(0.0, 100.0)),
    ("pool.standby", Whole(0, 16)),
    ("pool.standby_every", Span(1_000, 3_600_000)),
    ("pool.refresh_every", Span(1_000, 3_600_000)),
    ("pool.candidates_max", Whole(1, 10_000)),
    ("pool.candidates_per_source_max", Whole(1, 10_000)),
    ("pool.candidates_per_answer_max", Whole(1, 100)),
    ("pool.asks_per_minute", Whole(1, 1_000)),
    ("pool.remembered_max", Whole(1, 1_000)),
    ("pool.backoff_first", Span(10, 600_000)),
    ("pool.backoff_max", Span(10, 3_600_000)),
    ("pool.dht_every", Span(1_000, 3_600_000)),
    ("pool.referent_lead", Number(0.0, 100.0)),
    ("pool.referent_lead_held", Span(0, 86_400_000)),
    ("pool.referent_grace", Span(0, 60_000)),
    ("pool.excess_kept", Span(0, 86_400_000)),
    ("pool.migrated_rest", Span(0, 86_400_000)),
    ("pool.evicted_rest", Span(0, 86_400_000)),
    ("heartbeat.every", Span(100, 60_000)),
    ("heartbeat.jitter", Number(0.0, 1.0)),
    ("heartbeat.answer_within", Span(10, 60_000)),
    ("heartbeat.gap_min", Span(0, 60_000)),
    ("heartbeat.ceiling", Whole(1, 10_000)),
    ("heartbeat.ceiling_within", Span(1_000, 3_600_000)),
    ("heartbeat.challenge_every_min", Whole(1, 1_000)),
    ("heartbeat.challenge_every_max", Whole(1, 1_000)),
    ("heartbeat.seen_within", Span(1_000, 3_600_000)),
    ("heartbeat.record_life", Span(2_000, 600_000)),
    ("heartbeat.spot_every", Whole(1, 1_000)),
    ("heartbeat.subnets_every", Whole(1, 1_000)),
    ("heartbeat.bandwidth_every", Whole(1, 1_000)),
    ("score.half_life", Span(60_000, 2_592_000_000)),
    ("score.rtt_worst", Span(10, 60_000)),
    ("score.gap_max", Span(1_000, 3_600_000)),
    ("score.fill_tolerance", Number(0.0, 1.0)),
    ("score.announced_within", Span(0, 86_400_000)),
    ("score.threshold_first", Number(0.0, 100.0)),
    ("score.threshold_growth", Number(0.0, 100.0)),
    ("score.threshold_grows_over", Span(60_000, 2_592_000_000)),
    ("score.threshold_max", Number(0.0, 100.0)),
    ("score.below_flawless", Number(0.0, 100.0)),
    ("score.judge_every", Span(100, 600_000)),
    ("score.judgements", Whole(1, 100)),
    ("score.online_min", Span(0, 86_400_000)),
    ("score.suspect_window", Span(1_000, 3_600_000)),
    ("score.indexers_max", Whole(16, 100_000)),
    ("audit.every", Span(100, 86_400_000)),
    ("audit.again", Span(100, 86_400_000)),
    ("gate.sessions_per_subnet", Whole(1, 1_000_000)),
    ("gate.sessions_in_all", Whole(1, 10_000_000)),
    ("gate.max_nodes", Whole(1, 1_000_000)),
    ("behaviour.heartbeats", Whole(1, 65_535)),
    ("behaviour.publishes", Whole(1, 65_535)),
    ("behaviour.gets", Whole(1, 65_535)),
    ("behaviour.searches", Whole(1, 65_535)),
    ("behaviour.bandwidth_probes", Whole(1, 65_535)),
    ("behaviour.peers_max", Whole(16, 10_000_000)),
    // More than an indexer waits for the others, less than a search takes in all.
    ("search.idle", Span(4_000, 60_000)),
    ("dht.records_per_owner", Whole(4, 1_000)),
    ("dht.writes_per_owner", Whole(1, 100_000)),
    ("dht.writes_within", Span(1_000, 3_600_000)),
    ("dht.owners_max", Whole(16, 1_000_000)),
    ("bus.url", Text(0, 512)),
    ("bus.prefix", Text(1, 64)),
    ("bus.jetstream", OneOf(&["auto", "required", "off"])),
    ("bus.stream", Text(1, 32)),
    ("bus.durable", Text(1, 32)),
    ("bus.stream_bytes_max", Whole(16_777_216, 1_099_511_627_776)),
    ("bus.stream_age_max", Span(600_000, 2_592_000_000)),
    ("bus.duplicate_window", Span(600_000, 86_400_000)),
    ("bus.unacknowledged_max", Whole(1, 65_536)),
    ("bus.again_after", Span(10, 3_600_000)),
    ("bus.user", Text(0, 256)),
    ("bus.password", Secret(256)),
    ("bus.nkey_seed_file", File),
    ("bus.creds_file", File),
    ("bus.tls_ca", File),
    ("bus.tls_required", Truth),
    ("bus.subjects", Subjects),
    ("store.url", Database),
    ("store.peers_max", Whole(1, 1_000_000)),
    ("store.members_max", Whole(1, 1_000)),
    ("store.bindings_max", Whole(1, 1_000_000)),
    ("store.resources_max", Whole(1, 10_000_000)),
    ("store.resources_per_creator_max", Whole(1, 10_000_000)),
    ("store.outbox_max", Whole(1, 10_000_000)),
    ("store.readers", Whole(1, 64)),
    ("store.busy_timeout", Span(1, 60_000)),
    ("alerts.every", Span(1_000, 3_600_000)),
    ("alerts.report_every", Span(1_000, 604_800_000)),
    ("alerts.cpu_max", Number(0.0, 1.0)),
    ("alerts.memory_max", Number(0.0, 1.0)),
    ("alerts.disk_max", Number(0.0, 1.0)),
    ("alerts.latency_max", Span(1, 60_000)),
    ("alerts.peers_min", Whole(0, 1_000_000)),
    ("alerts.outbox_max", Whole(0, 10_000_000)),
    ("alerts.database_max", Span(1, 60_000)),
    ("alerts.clock_max", Span(1_000, 600_000)),
    ("webhook.url", SecretUrl),
    ("webhook.secret_file", File),
    ("webhook.tls_ca", File),
    ("webhook.answer_within", Span(100, 60_000)),
    ("supervision.restarts_max", Whole(0, 1_000_000)),
    ("supervision.restarts_within", Span(1_000, 86_400_000)),
    ("supervision.pause_first", Span(1, 60_000)),
    ("supervision.pause_max", Span(1, 600_000)),
    ("supervision.stuck_after", Span(10, 600_000)),
    ("supervision.start_within", Span(100, 600_000)),
    ("supervision.stop_within", Span(100, 60_000)),
    ("admin.listen", Socket),
    ("admin.hosts", Hosts(16)),
    ("admin.socket", File),
    ("log.level", Level),
    ("log.format", OneOf(&LOG_FORMATS)),
    ("log.folder", File),
    ("log.rotate", OneOf(&["daily", "hourly"])),
    ("log.files_max", Whole(1, 1_000)),
    ("traces.otlp", Collector),
    ("traces.sample", Number(0.0, 1.0)),
];

/// 1 to 64 characters that can be shown: what a record allows for a name.
pub(super) fn is_name(name: &str) -> bool {
    is_text(name, 1, 64)
}

fn is_text(text: &str, least: usize, most: usize) -> bool {
    !text.chars().any(char::is_control) && (least..=most).contains(&text.chars().count())
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |millis: u64| text::write(Duration::from_millis(millis));
        match *self {
            Self::Truth => f.write_str("true or false"),
            Self::Whole(least, most) => write!(f, "a whole number from {least} to {most}"),
            Self::Number(least, most) => write!(f, "a number from {least} to {most}"),
            Self::Span(least, most) => write!(f, "a duration from \"{}\" to \"{}\"", span(least), span(most)),
            Self::OneOf(words) => write!(f, "one of {}", quoted(words)),
            Self::Text(0, most) => write!(f, "at most {most} characters without control characters"),
            Self::Text(least, most) => write!(f, "{least} to {most} characters without control characters"),
            Self::Name => f.write_str("empty for the host's name, or 1 to 64 characters without control characters"),
            Self::Identifier => f.write_str("empty, a DID such as \"did:key:z6Mk…\", or a UUID in lower case"),
            Self::Url => f.write_str("empty, or an http or https URL of at most 512 characters"),
            Self::SecretUrl => f.write_str("empty, or an http or https URL of at most 512 characters without a user"),
            Self::Collector => f.write_str("empty, or an http:// URL of at most 512 characters"),
            Self::Database => f.write_str(
                "empty for a file among the data, or postgresql://user:password@host:port/database of at most 512 \
                 characters",
            ),
            Self::Path => f.write_str("a path of 1 to 4096 characters"),
            Self::Listen(most) => write!(f, "at most {most} addresses such as \"/ip4/192.0.2.1/tcp/4001\""),
            Self::Announce(most) => write!(
                f,
                "at most {most} addresses such as \"/ip4/192.0.2.1/tcp/4001\" or \"/dns/cloud.example/tcp/4001\""
            ),
            Self::Seeds(most) => write!(
                f,
                "at most {most} addresses that end in the peer id, such as \"/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…\""
            ),
            Self::Ranges(most) => write!(f, "at most {most} ranges such as \"10.20.0.0/16\" or \"fd00::/8\""),
            Self::Socket => f.write_str("an IP address and a port such as \"127.0.0.1:7300\""),
            Self::Hosts(most) => write!(f, "at most {most} host names without a port"),
            Self::Level => write!(f, "one of {}, or directives", quoted(&LOG_LEVELS)),
            Self::File => f.write_str("empty, or a path of at most 4096 characters"),
            Self::Secret(most) => write!(f, "at most {most} characters without control characters"),
            Self::Subjects => f.write_str("a subject of at most 128 characters for each verb"),
        }
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// A value as a person wrote it, cut where it is long.
pub(super) fn said(value: &Value) -> String {
    const SHOWN_MAX: usize = 80;
    let whole = match value {
        Value::String(_, text) => format!("\"{}\"", text.escape_debug()),
        Value::Char(_, c) => format!("\"{}\"", c.escape_debug()),
        Value::Bool(_, truth) => truth.to_string(),
        Value::Num(_, number) => number_text(*number),
        Value::Empty(..) => "nothing".to_owned(),
        Value::Dict(..) => "a section".to_owned(),
        Value::Array(_, values) => format!("[{}]", values.iter().map(said).collect::<Vec<_>>().join(", ")),
    };
    if whole.chars().count() <= SHOWN_MAX {
        return whole;
    }
    whole.chars().take(SHOWN_MAX).chain(['…']).collect()
}

fn number_text(number: Num) -> String {
    match (number.to_i128(), number.to_u128(), number.to_f64()) {
        (Some(whole), ..) => whole.to_string(),
        (_, Some(whole), _) => whole.to_string(),
        (_, _, Some(broken)) => broken.to_string(),
        _ => "a number".to_owned(),
    }
}

impl Expected {
    /// Nothing when the value is one of these, else what was got and what was expected.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        let got =
            if matches!(self, Self::Secret(_) | Self::SecretUrl) { "something else".to_owned() } else { said(value) };
        let wrong = |detail: &str| Err(format!("got {got}{detail}, expected {self}"));
        match self.flaw(value) {
            Flaw::None => Ok(()),
            Flaw::Kind => wrong(""),
            Flaw::Why(why) => wrong(&format!(" ({why})")),
            Flaw::Whole(whole) => Err(whole),
        }
    }

    fn flaw(&self, value: &Value) -> Flaw {
        match (self, value) {
            (Self::Truth, Value::Bool(..)) => Flaw::None,
            (Self::Whole(least, most), Value::Num(_, number)) => Flaw::unless(
                number.to_i128().is_some_and(|got| (i128::from(*least)..=i128::from(*most)).contains(&got))
                    || number.to_u128().is_some_and(|got| (u128::from(*least)..=u128::from(*most)).contains(&got)),
            ),
            (Self::Number(least, most), Value::Num(..)) => {
                Flaw::unless(as_f64(value).is_some_and(|got| (*least..=*most).contains(&got)))
            }
            (
                Self::Listen(most) | Self::Announce(most) | Self::Seeds(most) | Self::Ranges(most) | Self::Hosts(most),
                Value::Array(_, list),
            ) => {
                if list.len() > *most {
                    return Flaw::Why(format!("{} of them", list.len()));
                }
                list.iter().map(|item| self.item(item)).find(|flaw| *flaw != Flaw::None).unwrap_or(Flaw::None)
            }
            (Self::Subjects, Value::Dict(_, subjects)) => {
                let is_subject = |value: &Value| value.as_str().is_some_and(|subject| is_text(subject, 1, 128));
                match subjects.iter().find(|(_, subject)| !is_subject(subject)) {
                    Some((verb, subject)) => Flaw::Why(format!("{} for {verb:?}", said(subject))),
                    None => Flaw::None,
                }
            }
            (Self::Span(..), Value::Num(_, number)) => unitless(&number_text(*number)),
            (_, Value::String(_, text)) => self.text(text),
            (_, Value::Char(_, c)) => self.text(&c.to_string()),
            _ => Flaw::Kind,
        }
    }

    fn text(&self, text: &str) -> Flaw {
        match self {
            Self::Span(..) if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) => unitless(text),
            Self::Span(least, most) => Flaw::unless(
                text::read(text)
                    .is_some_and(|span| (Duration::from_millis(*least)..=Duration::from_millis(*most)).contains(&span)),
            ),
            Self::OneOf(words) => Flaw::unless(words.contains(&text)),
            Self::Text(least, most) => Flaw::unless(is_text(text, *least, *most)),
            Self::Name => Flaw::unless(text.is_empty() || is_name(text)),
            Self::Identifier => Flaw::unless(text.is_empty() || text.parse::<Did>().is_ok()),
            Self::Url => Flaw::unless(text.is_empty() || is_url(text)),
            Self::SecretUrl if text.is_empty() || (is_url(text) && !has_user(text)) => Flaw::None,
            Self::SecretUrl => Flaw::Whole(format!("got something else, expected {self}")),
            Self::Collector => Flaw::unless(text.is_empty() || (is_url(text) && text.starts_with("http://"))),
            Self::Database if text.is_empty() || is_database(text) => Flaw::None,
            Self::Database => Flaw::Whole(format!("got something else, expected {self}")),
            Self::Path => Flaw::unless(is_text(text, 1, 4096)),
            Self::File => Flaw::unless(is_text(text, 0, 4096)),
            Self::Secret(most) => Flaw::unless(is_text(text, 0, *most)),
            Self::Socket => Flaw::unless(text.parse::<SocketAddr>().is_ok()),
            // One word that is no level would be taken for the name of a module.
            Self::Level if !text.contains(['=', ',']) => Flaw::unless(LOG_LEVELS.contains(&text)),
            Self::Level => match EnvFilter::try_new(text) {
                Ok(_) => Flaw::None,
                Err(cause) => Flaw::Why(cause.to_string()),
            },
            _ => Flaw::Kind,
        }
    }

    fn item(&self, item: &Value) -> Flaw {
        let Value::String(_, text) = item else { return Flaw::Why(format!("{} is no text", said(item))) };
        if let Self::Hosts(_) = self {
            let is_name = !text.is_empty()
                && text.len() <= 253
                && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
            return if is_name { Flaw::None } else { Flaw::Why(format!("{text:?} is no host name")) };
        }
        let whole = |cause: &dyn fmt::Display| Flaw::Whole(cause.to_string());
        match self {
            Self::Seeds(_) => return text.parse::<Seed>().map_or_else(|cause| whole(&cause), |_| Flaw::None),
            Self::Ranges(_) => return text.parse::<Range>().map_or_else(|cause| whole(&cause), |_| Flaw::None),
            _ => {}
        }
        let address = match text.parse::<Multiaddr>() {
            Ok(address) => address,
            Err(cause) => return Flaw::Why(format!("{text:?} is no address: {cause}")),
        };
        let parts: Vec<_> = address.iter().collect();
        let ip = |part: &Protocol<'_>| matches!(part, Protocol::Ip4(_) | Protocol::Ip6(_));
        let named = |part: &Protocol<'_>| {
            matches!(part, Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_))
        };
        if let (Self::Announce(_), Some(Protocol::Tcp(0))) = (self, parts.get(1)) {
            return Flaw::Why(format!("{text} has port 0, which nobody can dial"));
        }
        let holds = match (self, parts.as_slice()) {
            (Self::Listen(_), [host, Protocol::Tcp(_)]) => ip(host),
            (Self::Announce(_), [host, Protocol::Tcp(port)]) => (ip(host) || named(host)) && *port != 0,
            _ => false,
        };
        if holds { Flaw::None } else { Flaw::Why(format!("{text} is of another form")) }
    }

    /// Reads a variable's text as this kind of value; what cannot be read stays text and fails the check.
    pub(super) fn read(&self, text: &str) -> Value {
        let text = text.trim();
        let plain = || Value::from(text.to_owned());
        match self {
            Self::Truth => text.parse::<bool>().map_or_else(|_| plain(), Value::from),
            Self::Whole(..) => text.parse::<i64>().map_or_else(|_| plain(), Value::from),
            Self::Number(..) => text.parse::<f64>().map_or_else(|_| plain(), Value::from),
            Self::Listen(_) | Self::Announce(_) | Self::Seeds(_) | Self::Ranges(_) | Self::Hosts(_) => {
                let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
                let items = inner.split(',').map(|item| item.trim().trim_matches('"')).filter(|item| !item.is_empty());
                Value::from(items.map(|item| Value::from(item.to_owned())).collect::<Vec<_>>())
            }
            _ => plain(),
        }
    }
}

/// How a value is not what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Flaw {
    /// It is.
    None,
    /// Another kind, or out of range.
    Kind,
    /// A part of it is wrong, in words.
    Why(String),
    /// A part of it is wrong, in words that say what was got and what was expected.
    Whole(String),
}

impl Flaw {
    fn unless(holds: bool) -> Self {
        if holds { Self::None } else { Self::Kind }
    }
}

/// A duration of which nobody knows whether it is seconds or hours.
fn unitless(number: &str) -> Flaw {
    Flaw::Why(format!("without its unit; seconds are \"{number}s\""))
}

/// Whole numbers are numbers too: `1` where `1.0` is meant.
fn as_f64(value: &Value) -> Option<f64> {
    value.deserialize::<f64>().ok()
}

fn is_database(text: &str) -> bool {
    let place = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
    place.is_some_and(|place| !place.is_empty()) && is_text(text, 1, 512) && !text.contains(char::is_whitespace)
}

/// It says before an `@` who asks.
fn has_user(url: &str) -> bool {
    let place = url.split_once("://").map_or(url, |(_, place)| place);
    place.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

fn is_url(text: &str) -> bool {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
        && is_text(text, 1, 512)
        && !text.contains(char::is_whitespace)
}
