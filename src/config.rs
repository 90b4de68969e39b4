//! Settings: the built-in defaults, then a file, then the environment, then flags; every fault is told at once.
//!
//! Each setting is defined beside its rule and composed here. `config/default.toml` is the lowest layer and the
//! documentation; tests keep it, the code's defaults and the table of what is expected the same.

mod effective;
mod excerpt;
mod expected;
mod layers;
mod schema;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    value::{Dict, Value},
};
use multiaddr::{Multiaddr, Protocol};
use protocol::{
    addr::{Range, Seed},
    profile::Profile,
    wire::Role,
};
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    effective::{Difference, Effective, as_toml, differences},
    layers::Flags,
    schema::schema,
};
use self::{
    expected::{EXPECTED, Expected},
    layers::{Layer, Part, Place},
};
use crate::{
    cli::exit::{Exit, Failure},
    traces::TraceSettings,
};

/// The documentation of every setting, and the lowest layer.
pub(crate) const DEFAULT_TOML: &str = include_str!("../config/default.toml");

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Who this member is.
    pub(crate) node: NodeSettings,
    /// The network it belongs to.
    pub(crate) network: NetworkSettings,
    /// Where its files are.
    pub(crate) files: FileSettings,
    /// Which indexers it keeps.
    pub(crate) pool: protocol::pool::Settings,
    /// How it beats to them.
    pub(crate) heartbeat: protocol::heartbeat::Settings,
    /// How it judges them.
    pub(crate) score: protocol::score::Settings,
    /// Whom it takes as an indexer, and how many.
    pub(crate) gate: protocol::gate::Settings,
    /// How much it takes from each.
    pub(crate) behaviour: protocol::behaviour::Settings,
    /// What it stores for the network.
    pub(crate) dht: protocol::dht::Settings,
    /// The bus of its organisation.
    pub(crate) bus: protocol::bus::Settings,
    /// What its database keeps.
    pub(crate) store: store::Settings,
    /// What an operator is told of.
    pub(crate) alerts: protocol::alerts::Settings,
    /// How its actors are healed.
    pub(crate) supervision: actors::supervision::Settings,
    /// Its admin endpoint.
    pub(crate) admin: AdminSettings,
    /// What it says.
    pub(crate) log: LogSettings,
    /// What it shows of the time that its work takes.
    pub(crate) traces: TraceSettings,
}

/// What a member is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// It publishes and searches.
    #[default]
    Node,
    /// It keeps sessions and answers.
    Indexer,
    /// Both.
    Both,
}

impl Mode {
    /// The same, in the words of the wire.
    pub(crate) const fn role(self) -> Role {
        match self {
            Self::Node => Role { node: true, indexer: false },
            Self::Indexer => Role { node: false, indexer: true },
            Self::Both => Role { node: true, indexer: true },
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Indexer => "indexer",
            Self::Both => "both",
        })
    }
}

/// Section `[node]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NodeSettings {
    /// Name that others see; empty for the host's.
    pub(crate) name: String,
    /// What it is.
    pub(crate) mode: Mode,
    /// Its DID; empty for the key's.
    pub(crate) did: String,
    /// Published in its record.
    pub(crate) api_url: String,
    /// Published in its record.
    pub(crate) nats_address: String,
    /// Published in its record.
    pub(crate) wallet_address: String,
    /// It neither stores nor serves for others.
    pub(crate) light: bool,
}

/// Section `[network]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NetworkSettings {
    /// Members of different networks refuse each other.
    pub(crate) id: String,
    /// Only holders of the pre-shared key can connect.
    pub(crate) private: bool,
    /// Rules about addresses.
    pub(crate) profile: Profile,
    /// TCP port where `listen` is empty; 0 takes any free one.
    pub(crate) port: u16,
    /// Addresses to listen on; empty for every interface.
    pub(crate) listen: Vec<Multiaddr>,
    /// Addresses to tell others; empty for those listened on.
    pub(crate) announce: Vec<Multiaddr>,
    /// Indexers to begin with, each ending in `/p2p/<peer id>`.
    pub(crate) seeds: Vec<Seed>,
    /// Private ranges that are believed although the profile is public.
    pub(crate) private_ranges: Vec<Range>,
    /// Look for members by multicast DNS.
    pub(crate) mdns: bool,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            id: "opencloud".to_owned(),
            private: true,
            profile: Profile::default(),
            port: 4001,
            listen: Vec::new(),
            announce: Vec::new(),
            seeds: Vec::new(),
            private_ranges: Vec::new(),
            mdns: false,
        }
    }
}

impl NetworkSettings {
    /// The addresses to listen on: those set, or every interface at `port`.
    pub(crate) fn listeners(&self) -> Vec<Multiaddr> {
        if !self.listen.is_empty() {
            return self.listen.clone();
        }
        let any = |ip: Protocol<'static>| Multiaddr::empty().with(ip).with(Protocol::Tcp(self.port));
        vec![any(Protocol::Ip4([0; 4].into())), any(Protocol::Ip6([0; 16].into()))]
    }
}

/// Section `[files]`; relative to the folder of the configuration's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FileSettings {
    /// The identity key.
    pub(crate) key: PathBuf,
    /// The pre-shared key.
    pub(crate) psk: PathBuf,
    /// The folder of the database, the lock and the admin token.
    pub(crate) data: PathBuf,
}

impl Default for FileSettings {
    fn default() -> Self {
        Self { key: "identity.pem".into(), psk: "swarm.key".into(), data: "data".into() }
    }
}

/// Section `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AdminSettings {
    /// Where it listens; port 0 takes any free one.
    pub(crate) listen: SocketAddr,
    /// Host names by which it may be called.
    pub(crate) hosts: Vec<String>,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7300)), hosts: Vec::new() }
    }
}

/// Form of the log's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// For machines.
    Json,
}

/// Section `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogSettings {
    /// A level for muster, or directives.
    pub(crate) level: String,
    /// Form of the lines.
    pub(crate) format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default() }
    }
}

/// Settings that passed every check, and what they are relative to.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The settings.
    pub(crate) settings: Settings,
    /// Folder of the file.
    pub(crate) folder: PathBuf,
    /// What deserves a word in the log: variables that look like settings and are none.
    pub(crate) warnings: Vec<String>,
}

impl Config {
    /// The identity key's file.
    pub(crate) fn key(&self) -> PathBuf {
        self.folder.join(&self.settings.files.key)
    }

    /// The pre-shared key's file; none in an open network.
    pub(crate) fn psk(&self) -> Option<PathBuf> {
        self.settings.network.private.then(|| self.folder.join(&self.settings.files.psk))
    }

    /// The folder of the database, the lock and the admin token.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join(&self.settings.files.data)
    }

    /// The bus, with its files where they are.
    pub(crate) fn bus(&self) -> protocol::bus::Settings {
        let mut bus = self.settings.bus.clone();
        for file in [&mut bus.nkey_seed_file, &mut bus.creds_file, &mut bus.tls_ca] {
            if !file.as_os_str().is_empty() {
                *file = self.folder.join(&*file);
            }
        }
        bus
    }

    /// The member's name: the one set, or the host's.
    pub(crate) fn name(&self) -> String {
        match self.settings.node.name.as_str() {
            "" => host_name(),
            name => name.to_owned(),
        }
    }
}

/// The host's name up to its first dot, or `muster` where it has none that could be shown.
pub(crate) fn host_name() -> String {
    let whole = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let name = whole.split('.').next().unwrap_or_default();
    if expected::is_name(name) { name.to_owned() } else { "muster".to_owned() }
}

/// One setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    /// The setting, or nothing when the file as a whole cannot be read.
    key: String,
    /// Where it was set.
    place: Place,
    /// What was got and what was expected.
    why: String,
    /// The line of the file with what is wrong.
    excerpt: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.place, self.why),
            key => write!(f, "{key} ({}): {}", self.place, self.why),
        }?;
        match &self.excerpt {
            Some(excerpt) => write!(f, "\n{excerpt}"),
            None => Ok(()),
        }
    }
}

/// Composes the settings: built in, then the file, then variables, then flags.
///
/// # Errors
/// Every fault of every layer, with code 78.
pub(crate) fn load(file: &Path, variables: &BTreeMap<String, String>, flags: &Flags) -> Result<Config, Failure> {
    Ok(assemble(file, layers::file(file), variables, flags)?.0)
}

/// What a configuration comes to.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// Every setting in force.
    pub(crate) effective: Vec<Effective>,
    /// What deserves a word.
    pub(crate) warnings: Vec<String>,
}

/// Composes the settings like [`load`], and tells of each where it comes from.
///
/// # Errors
/// Every fault of every layer, with code 78.
pub(crate) fn tell(file: &Path, variables: &BTreeMap<String, String>, flags: &Flags) -> Result<Told, Failure> {
    let (config, layers) = assemble(file, layers::file(file), variables, flags)?;
    Ok(Told { effective: effective::effective(&layers), warnings: config.warnings })
}

/// Every setting as it is where nobody sets anything.
pub(crate) fn built_in() -> Result<Vec<Effective>, Failure> {
    let layers = vec![layers::defaults().map_err(|fault| refused(&[fault]))?, layers::profile(Profile::default())];
    Ok(effective::effective(&layers))
}

/// Checks what somebody chose for a new `file`, by setting and value; `flag` names the flag of a setting.
///
/// # Errors
/// Every fault, with code 78.
pub(crate) fn check_chosen(
    file: &Path,
    settings: &[(String, toml_edit::Value)],
    flag: impl Fn(&str) -> String,
) -> Result<Config, Failure> {
    Ok(assemble(file, Ok(layers::chosen(settings, flag)), &BTreeMap::new(), &Flags::default())?.0)
}

fn assemble(
    file: &Path,
    layer: Result<Layer, Fault>,
    variables: &BTreeMap<String, String>,
    flags: &Flags,
) -> Result<(Config, Vec<Layer>), Failure> {
    let defaults = layers::defaults().map_err(|fault| refused(&[fault]))?;
    let (variables, warnings) = layers::variables(variables);
    let mut layers = vec![defaults];
    let mut faults = Vec::new();
    // A file that cannot be read does not hide the faults of the other layers.
    match layer {
        Ok(layer) => layers.push(layer),
        Err(fault) => faults.push(fault),
    }
    layers.extend([variables, flags.layer()]);
    layers.insert(1, layers::profile(profile(&layers)));
    let settings = compose(&layers, &mut faults);
    if !faults.is_empty() {
        return Err(refused(&faults));
    }
    let settings = settings.ok_or_else(|| Failure::new(Exit::Internal, "the built-in settings cannot be used"))?;
    Ok((Config { settings, folder: file.parent().unwrap_or(Path::new("")).to_owned(), warnings }, layers))
}

/// The profile that the layers choose; the default where what they say is none.
fn profile(layers: &[Layer]) -> Profile {
    let figment = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(layer.clone()));
    figment.extract_inner("network.profile").unwrap_or_default()
}

fn refused(faults: &[Fault]) -> Failure {
    let what = match faults.len() {
        1 => "a setting cannot be used".to_owned(),
        several => format!("{several} settings cannot be used"),
    };
    faults
        .iter()
        .fold(Failure::new(Exit::Configuration, what), |failure, fault| failure.why(fault.to_string()))
        .next("correct them and start again; `muster config check` looks without starting, and `muster init` writes a file that explains every setting")
}

/// Merges the layers and checks every leaf; settings come back only where the rest can be read.
fn compose(layers: &[Layer], faults: &mut Vec<Fault>) -> Option<Settings> {
    let figment = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(layer.clone()));
    let mut merged: Dict = figment.extract().ok()?;
    let mut checker = Checker { layers, faults, bad: BTreeSet::new() };
    checker.section("", &merged);
    let Checker { faults, bad, .. } = checker;
    // Where a value is bad its default stands in, so that the checks across settings still tell their own faults.
    let defaults: Dict = Figment::from(layers.first()?.clone()).extract().ok()?;
    bad.iter().for_each(|key| restore(&mut merged, &defaults, key));
    match Value::from(merged).deserialize::<Settings>() {
        Ok(settings) => {
            faults.extend(contradictions(&settings, &bad).iter().map(|contradiction| told(contradiction, layers)));
            Some(settings)
        }
        Err(cause) => {
            let key = cause.path.join(".");
            faults.push(Fault { place: place_of(layers, &key), key, why: cause.kind.to_string(), excerpt: None });
            None
        }
    }
}

/// Puts the default back in place of a bad value; a key without one goes.
fn restore(merged: &mut Dict, defaults: &Dict, key: &str) {
    match key.split_once('.') {
        None => match defaults.get(key) {
            Some(value) => drop(merged.insert(key.to_owned(), value.clone())),
            None => drop(merged.remove(key)),
        },
        Some((section, rest)) => {
            if let (Some(Value::Dict(_, merged)), Some(Value::Dict(_, defaults))) =
                (merged.get_mut(section), defaults.get(section))
            {
                restore(merged, defaults, rest);
            }
        }
    }
}

/// Where the value that won was set.
fn place_of(layers: &[Layer], key: &str) -> Place {
    layers.iter().rev().find(|layer| layer.sets(key)).map_or(Place::Default, |layer| layer.place(key))
}

/// The line in which the value that won was set; nothing for one that may hold a secret.
fn excerpt_of(layers: &[Layer], key: &str, part: Part) -> Option<String> {
    if key == "bus.url" || matches!(expected(key), Some(Expected::Secret(_) | Expected::Database)) {
        return None;
    }
    layers.iter().rev().find(|layer| layer.sets(key)).and_then(|layer| layer.excerpt(key, part))
}

/// Checks every leaf against what is expected of it.
struct Checker<'a> {
    layers: &'a [Layer],
    faults: &'a mut Vec<Fault>,
    bad: BTreeSet<String>,
}

impl Checker<'_> {
    fn section(&mut self, prefix: &str, section: &Dict) {
        for (name, value) in section {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match (expected(&key), value) {
                (Some(expected), value) => {
                    if let Err(why) = expected.check(value) {
                        self.fault(key, why, Part::Value);
                    }
                }
                (None, Value::Dict(_, inner)) if is_section(&key) => self.section(&key, inner),
                (None, value) if is_section(&key) => {
                    self.fault(key, format!("got {}, expected a section", expected::said(value)), Part::Value);
                }
                (None, _) => {
                    let hint = nearest(&key).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                    self.fault(key, format!("there is no such setting{hint}"), Part::Name);
                }
            }
        }
    }

    fn fault(&mut self, key: String, why: String, part: Part) {
        self.bad.insert(key.clone());
        let (place, excerpt) = (place_of(self.layers, &key), excerpt_of(self.layers, &key, part));
        self.faults.push(Fault { place, key, why, excerpt });
    }
}

fn expected(key: &str) -> Option<&'static Expected> {
    EXPECTED.iter().find(|(name, _)| *name == key).map(|(_, expected)| expected)
}

fn is_section(key: &str) -> bool {
    EXPECTED.iter().any(|(name, _)| name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// The known setting or section that the writer probably meant.
fn nearest(key: &str) -> Option<String> {
    let leaf = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    // The right name in the wrong section is the commonest slip.
    let moved = EXPECTED.iter().map(|(name, _)| *name).find(|name| leaf(name) == leaf(key));
    let known = known_keys();
    let near = known
        .iter()
        .map(|name| (strsim::osa_distance(name, key), name))
        .min()
        .filter(|(distance, _)| *distance <= 1 + key.len() / 5)
        .map(|(_, name)| name.clone());
    near.or_else(|| moved.map(str::to_owned))
}

/// Every setting and every section.
fn known_keys() -> BTreeSet<String> {
    EXPECTED
        .iter()
        .flat_map(|(name, _)| name.match_indices('.').map(|(at, _)| name[..at].to_owned()).chain([(*name).to_owned()]))
        .collect()
}

/// Settings of which each is fine alone, and which do not go together.
struct Contradiction {
    keys: &'static [&'static str],
    why: Cow<'static, str>,
}

/// What the rule of the bus looks at together.
const BUS_KEYS: &[&str] = &[
    "bus.url",
    "bus.prefix",
    "bus.subjects",
    "bus.stream",
    "bus.durable",
    "bus.duplicate_window",
    "bus.stream_age_max",
    "bus.user",
    "bus.nkey_seed_file",
    "bus.creds_file",
];

/// Contradictions among the settings; those that rest on a bad value are left out.
fn contradictions(settings: &Settings, bad: &BTreeSet<String>) -> Vec<Contradiction> {
    let mut found = Vec::new();
    let mut claim = |keys: &'static [&'static str], holds: bool, why: &'static str| {
        if !holds && !keys.iter().any(|key| bad.contains(*key)) {
            found.push(Contradiction { keys, why: Cow::Borrowed(why) });
        }
    };
    let Settings { network, pool, heartbeat, gate, behaviour, bus, store, supervision, .. } = settings;
    claim(
        &["network.profile", "network.listen", "network.port"],
        network.profile != Profile::Load || network.listeners().iter().all(is_loopback),
        "the profile \"load\" lifts the limits and is allowed only where every address of network.listen is loopback",
    );
    claim(
        &["pool.max_indexer", "pool.min_indexer"],
        pool.min_indexer <= pool.max_indexer,
        "pool.max_indexer is less than pool.min_indexer",
    );
    claim(
        &["pool.backoff_max", "pool.backoff_first"],
        pool.backoff_first <= pool.backoff_max,
        "pool.backoff_max is less than pool.backoff_first",
    );
    claim(
        &["pool.remembered_max", "store.members_max"],
        pool.remembered_max <= store.members_max,
        "pool.remembered_max is more than store.members_max",
    );
    claim(
        &["heartbeat.challenge_every_max", "heartbeat.challenge_every_min"],
        heartbeat.challenge_every_min <= heartbeat.challenge_every_max,
        "heartbeat.challenge_every_max is less than heartbeat.challenge_every_min",
    );
    claim(
        &["heartbeat.record_life", "heartbeat.every"],
        heartbeat.record_life >= 2 * heartbeat.every,
        "heartbeat.record_life is less than twice heartbeat.every: the record would expire between two beats",
    );
    claim(
        &["behaviour.peers_max", "gate.max_nodes"],
        u32::try_from(behaviour.peers_max / 2).is_ok_and(|most| most >= gate.max_nodes),
        "behaviour.peers_max is less than twice gate.max_nodes",
    );
    claim(
        &["supervision.pause_max", "supervision.pause_first"],
        supervision.pause_first <= supervision.pause_max,
        "supervision.pause_max is less than supervision.pause_first",
    );
    let keys = BUS_KEYS;
    if let Err(fault) = bus.check()
        && !keys.iter().any(|key| bad.contains(*key))
    {
        found.push(Contradiction { keys, why: Cow::Owned(fault.to_string()) });
    }
    found
}

/// A contradiction as a fault of the setting that somebody chose, since a default is nobody's fault.
fn told(contradiction: &Contradiction, layers: &[Layer]) -> Fault {
    let mut places = contradiction.keys.iter().map(|key| (*key, place_of(layers, key)));
    let first =
        contradiction.keys.first().map_or((String::new(), Place::Default), |key| ((*key).to_owned(), Place::Default));
    let chosen = places.find(|(_, place)| *place != Place::Default).map(|(key, place)| (key.to_owned(), place));
    let (key, place) = chosen.unwrap_or(first);
    let excerpt = excerpt_of(layers, &key, Part::Value);
    Fault { key, place, why: contradiction.why.to_string(), excerpt }
}

/// The address begins with a loopback IP address or `localhost`.
pub(crate) fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => name == "localhost",
        _ => false,
    }
}

#[cfg(test)]
mod tests;
