//! Settings: the built-in defaults, then the predecessor's variables, then a file, then the environment, then flags; every
//! fault is told at once.
//!
//! Each setting is defined beside its rule and composed here. `config/default.toml` is the lowest layer and the
//! documentation; tests keep it, the code's defaults and the table of what is expected the same.

#[cfg(test)]
mod broken;
mod contradictions;
mod edit;
mod effective;
mod excerpt;
mod expected;
mod layers;
mod legacy;
mod live;
mod schema;

use std::{
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

use self::{
    contradictions::{contradictions, told},
    expected::{EXPECTED, Expected},
    layers::{Layer, Part, Place},
};
pub(crate) use self::{
    edit::{edited, wish},
    effective::{Difference, Effective, as_toml, differences},
    layers::Flags,
    legacy::{Fate, Noted, Predecessor, is_variable as is_predecessors, predecessor, speaks as predecessor_speaks},
    live::is_live,
    schema::schema,
};
use crate::{
    cli::exit::{Exit, Failure},
    traces::TraceSettings,
};

/// The file that is used when nothing else names a daemon.
pub(crate) const USUAL_FILE: &str = "muster.toml";

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
    /// How often it counts their tokens.
    pub(crate) audit: protocol::presence::rounds::Settings,
    /// Whom it takes as an indexer, and how many.
    pub(crate) gate: protocol::gate::Settings,
    /// How much it takes from each.
    pub(crate) behaviour: protocol::behaviour::Settings,
    /// How long its searches wait.
    pub(crate) search: protocol::search::Settings,
    /// What it stores for the network.
    pub(crate) dht: protocol::dht::Settings,
    /// The bus of its organisation.
    pub(crate) bus: protocol::bus::Settings,
    /// What its database keeps.
    pub(crate) store: store::Settings,
    /// What an operator is told of.
    pub(crate) alerts: protocol::alerts::Settings,
    /// Where it tells them.
    pub(crate) webhook: protocol::webhook::Settings,
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
    /// TCP port for the next pre-shared key during a rotation; 0 for the one after each that is listened on.
    pub(crate) next_port: u16,
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
            next_port: 0,
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

    /// The addresses to listen on with the next pre-shared key.
    pub(crate) fn next_listeners(&self) -> Vec<Multiaddr> {
        let listeners = self.listeners();
        let mut beside: Vec<Multiaddr> = Vec::new();
        for listener in listeners.iter().map(|listener| self.next_to(listener, &listeners)) {
            if !beside.contains(&listener) {
                beside.push(listener);
            }
        }
        beside
    }

    /// The addresses to tell others instead of those listened on; in a rotation each with the one beside it, so that of
    /// those that others keep, some are of either key.
    pub(crate) fn announced(&self, is_rotating: bool) -> Vec<Multiaddr> {
        if !is_rotating {
            return self.announce.clone();
        }
        self.announce.iter().flat_map(|told| [told.clone(), self.next_to(told, &self.announce)]).collect()
    }

    /// The address at the port of the next key: the one that is set, or the first after its own that is none of `taken`;
    /// where the system chooses the port, it chooses this one as well.
    fn next_to(&self, address: &Multiaddr, taken: &[Multiaddr]) -> Multiaddr {
        let is_taken = |port| taken.iter().any(|address| address.iter().any(|part| part == Protocol::Tcp(port)));
        let next = |port| match (port, self.next_port) {
            (0, 0) => 0,
            // Round the corner, so that the last port has one after it; of so many none is left only in theory.
            (port, 0) => (port..=u16::MAX).skip(1).chain(1024..port).find(|port| !is_taken(*port)).unwrap_or(0),
            (_, chosen) => chosen,
        };
        address
            .iter()
            .map(|part| if let Protocol::Tcp(port) = part { Protocol::Tcp(next(port)) } else { part })
            .collect()
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
    /// Where it listens on a Unix socket too; relative to the folder of the configuration's file, empty for nowhere.
    pub(crate) socket: PathBuf,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7300)), hosts: Vec::new(), socket: PathBuf::new() }
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

/// How long a file of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogRotation {
    /// A day, by UTC.
    #[default]
    Daily,
    /// An hour.
    Hourly,
}

/// Section `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogSettings {
    /// A level for muster, or directives.
    pub(crate) level: String,
    /// Form of the lines.
    pub(crate) format: LogFormat,
    /// Folder of files that are written as well; empty for none.
    pub(crate) folder: PathBuf,
    /// When a new file is begun.
    pub(crate) rotate: LogRotation,
    /// Files kept. Two weeks of days, as hosts keep their own.
    pub(crate) files_max: u32,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::default(),
            folder: PathBuf::new(),
            rotate: LogRotation::default(),
            files_max: 14,
        }
    }
}

/// Settings that passed every check, and what they are relative to.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The settings.
    pub(crate) settings: Settings,
    /// Folder of the file.
    pub(crate) folder: PathBuf,
    /// What deserves a word in the log: variables that look like settings and are none, and what became of each key of the
    /// predecessor.
    pub(crate) warnings: Vec<String>,
    /// Every setting with where it comes from.
    pub(crate) effective: Vec<Effective>,
    /// What it was composed of.
    pub(crate) source: Source,
}

/// What settings are composed of, to be read again.
#[derive(Clone, Default)]
pub(crate) struct Source {
    /// The file.
    pub(crate) file: PathBuf,
    /// The variables, which stay as they were at the start.
    pub(crate) variables: BTreeMap<String, String>,
    /// The flags.
    pub(crate) flags: Flags,
}

impl fmt::Debug for Source {
    // Written by hand: variables may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Source {
    /// The file's text as it is now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn text(&self) -> Result<String, Failure> {
        layers::read(&self.file).map_err(|fault| refused(&[fault]))
    }

    /// What the settings are where the file's text is this, checked like at a start.
    ///
    /// # Errors
    /// Every fault of every layer, with code 78.
    pub(crate) fn compose(&self, text: &str) -> Result<Config, Failure> {
        Ok(assemble(&self.file, layers::of_text(&self.file, text), &self.variables, &self.flags)?.0)
    }
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

    /// The admin endpoint's Unix socket; none where it has none.
    pub(crate) fn admin_socket(&self) -> Option<PathBuf> {
        let socket = &self.settings.admin.socket;
        (!socket.as_os_str().is_empty()).then(|| self.folder.join(socket))
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

    /// The log, with its folder where it is.
    pub(crate) fn log(&self) -> LogSettings {
        let mut log = self.settings.log.clone();
        if !log.folder.as_os_str().is_empty() {
            log.folder = self.folder.join(&log.folder);
        }
        log
    }

    /// The webhook, with its files where they are.
    pub(crate) fn webhook(&self) -> protocol::webhook::Settings {
        let mut webhook = self.settings.webhook.clone();
        for file in [&mut webhook.secret_file, &mut webhook.tls_ca] {
            if !file.as_os_str().is_empty() {
                *file = self.folder.join(&*file);
            }
        }
        webhook
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

/// Composes the settings: built in, then the predecessor's variables, then the file, then variables, then flags.
///
/// # Errors
/// Every fault of every layer, with code 78.
pub(crate) fn load(file: &Path, variables: &BTreeMap<String, String>, flags: &Flags) -> Result<Config, Failure> {
    Ok(assemble(file, layer_of(file, variables), variables, flags)?.0)
}

/// The file's layer. The predecessor needs no file where its variables say everything, and so nobody misses the usual one.
fn layer_of(file: &Path, variables: &BTreeMap<String, String>) -> Result<Layer, Fault> {
    if file == Path::new(USUAL_FILE) && !file.exists() && legacy::speaks(variables) {
        return Ok(Layer::new(Place::Default));
    }
    layers::file(file)
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
    let config = load(file, variables, flags)?;
    Ok(Told { effective: config.effective, warnings: config.warnings })
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
    let source = Source { file: file.to_owned(), variables: variables.clone(), flags: flags.clone() };
    let defaults = layers::defaults().map_err(|fault| refused(&[fault]))?;
    let mut layers = vec![defaults, legacy::variables(variables)];
    let (variables, mut warnings) = layers::variables(variables);
    let mut faults = Vec::new();
    match legacy::bootstrap_beside(file).map(|seeds| layers::file(&seeds)).transpose() {
        Ok(Some(mut seeds)) => {
            if layer.as_ref().is_ok_and(|layer| layer.sets("network.seeds")) {
                legacy::outdone(&mut seeds, file);
            }
            layers.push(seeds);
        }
        Ok(None) => {}
        Err(fault) => faults.push(fault),
    }
    // A file that cannot be read does not hide the faults of the other layers.
    match layer {
        Ok(layer) => layers.push(layer),
        Err(fault) => faults.push(fault),
    }
    layers.extend([variables, flags.layer()]);
    layers.insert(1, layers::profile(profile(&layers)));
    warnings.extend(layers.iter().flat_map(|layer| &layer.noted).map(ToString::to_string));
    let settings = compose(&layers, &mut faults);
    if !faults.is_empty() {
        return Err(refused(&faults));
    }
    let settings = settings.ok_or_else(|| Failure::new(Exit::Internal, "the built-in settings cannot be used"))?;
    let folder = file.parent().unwrap_or(Path::new("")).to_owned();
    let effective = effective::effective(&layers);
    Ok((Config { settings, folder, warnings, effective, source }, layers))
}

/// The profile that the layers choose; the default where what they say is none.
fn profile(layers: &[Layer]) -> Profile {
    let figment = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(layer.clone()));
    figment.extract_inner("network.profile").unwrap_or_default()
}

fn refused(faults: &[Fault]) -> Failure {
    let what = match faults {
        [Fault { key, .. }] if key.is_empty() => "the configuration cannot be read".to_owned(),
        [_] => "a setting cannot be used".to_owned(),
        several => format!("{} settings cannot be used", several.len()),
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
    if key == "bus.url" || matches!(expected(key), Some(Expected::Secret(_) | Expected::SecretUrl | Expected::Database))
    {
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
    let near = nearest_of(key, known.iter().map(String::as_str));
    near.or_else(|| moved.map(str::to_owned))
}

/// The one of `known` that the writer of `key` probably meant.
pub(crate) fn nearest_of<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let (distance, near) = known.map(|name| (strsim::osa_distance(name, key), name)).min()?;
    (distance <= 1 + key.len() / 5).then(|| near.to_owned())
}

/// Every setting and every section.
fn known_keys() -> BTreeSet<String> {
    EXPECTED
        .iter()
        .flat_map(|(name, _)| name.match_indices('.').map(|(at, _)| name[..at].to_owned()).chain([(*name).to_owned()]))
        .collect()
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
