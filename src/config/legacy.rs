//! The predecessor's configuration: its variables, its JSON files and its `bootstrap.json`, as layers of ours.
//!
//! Each key that is found is named once with what became of it. The names are wide (`NAME`, `HOSTNAME`, `NATS_URL` are set
//! on many machines for other reasons), so among variables these count only beside one that is the predecessor's alone.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use figment::value::{Dict, Value};
use multiaddr::Multiaddr;
use serde_json::Value as Json;

use super::{
    Flags, USUAL_FILE, assemble, built_in, effective,
    expected::Expected,
    layers::{self, Layer, Place},
    nearest_of, place_of, refused,
};
use crate::cli::exit::{Exit, Failure};

/// What the predecessor calls the file of its seeds, beside its configuration.
pub(crate) const BOOTSTRAP: &str = "bootstrap.json";

/// The time over which [`protocol::gate`] counts new sessions, in seconds.
const OUR_WINDOW_SECS: u64 = protocol::gate::WINDOW.as_secs();

/// The predecessor's window where it does not say one.
const THEIR_WINDOW_SECS: u64 = 30;

/// Where the catalogue of a Mongo database went.
const NO_MONGO: &str = "there is no Mongo database: muster keeps its own among its data, or where store.url says";

/// What a key of the predecessor is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Successor {
    /// The same value under this name.
    Same(&'static str),
    /// `node.mode`, whose `native-indexer` is an indexer now.
    Mode,
    /// `network.seeds`, from a list or a text with commas.
    Seeds,
    /// `bus.url`, where a scheme may be missing.
    Bus,
    /// `node.api_url`, of which it was the host.
    Host,
    /// `search.idle`, in seconds.
    Search,
    /// `gate.sessions_in_all`, counted over another time.
    Sessions,
    /// The time over which [`Successor::Sessions`] is counted.
    Window,
    /// Nothing, for this reason.
    None(&'static str),
}

use Successor::{Bus, Host, Mode, None as Left, Same, Search, Seeds, Sessions, Window};

/// Every key that the predecessor knows.
const KEYS: [(&str, Successor); 19] = [
    ("NODE_MODE", Mode),
    ("NODE_ENDPOINT_PORT", Same("network.port")),
    ("INDEXER_ADDRESSES", Seeds),
    ("NATS_URL", Bus),
    ("PSK_PATH", Same("files.psk")),
    ("PRIVATE_KEY_PATH", Same("files.key")),
    ("NAME", Same("node.name")),
    ("HOSTNAME", Host),
    ("MIN_INDEXER", Same("pool.min_indexer")),
    ("MAX_INDEXER", Same("pool.max_indexer")),
    ("SEARCH_TIMEOUT", Search),
    ("MAX_CONN_PER_WINDOW", Sessions),
    ("CONN_WINDOW_SECS", Window),
    ("MAX_HB_PER_MINUTE", Same("behaviour.heartbeats")),
    ("MAX_PUBLISH_PER_MINUTE", Same("behaviour.publishes")),
    ("MAX_GET_PER_MINUTE", Same("behaviour.gets")),
    ("PEER_IDS", Left("partners are no setting any more: `muster partner add PEER` makes each one of ours")),
    ("MONGO_URL", Left(NO_MONGO)),
    ("MONGO_DATABASE", Left(NO_MONGO)),
];

/// Variables that many other programs set too.
const SHARED: [&str; 5] = ["NAME", "HOSTNAME", "NATS_URL", "MONGO_URL", "MONGO_DATABASE"];

/// What became of one key of the predecessor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    /// Where it stands.
    source: String,
    /// The key.
    pub(crate) key: String,
    /// What became of it.
    pub(crate) fate: Fate,
}

/// What can become of a key of the predecessor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is this setting now, with the same value.
    Taken(&'static str),
    /// It is this setting now, with another value: why.
    Changed(&'static str, String),
    /// Nothing takes its place: why.
    Left(String),
    /// The predecessor does not know it either; perhaps this one was meant.
    Unknown(Option<String>),
}

impl fmt::Display for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, key, fate } = self;
        write!(f, "{source}{key} ")?;
        match fate {
            Fate::Taken(setting) => write!(f, "is the predecessor's; it is taken as {setting}"),
            Fate::Changed(setting, why) => write!(f, "is the predecessor's; it is taken as {setting}: {why}"),
            Fate::Left(why) => write!(f, "is the predecessor's and is left out: {why}"),
            Fate::Unknown(None) => f.write_str("is no setting of the predecessor and is left out"),
            Fate::Unknown(Some(near)) => {
                write!(f, "is no setting of the predecessor and is left out; did you mean {near}?")
            }
        }
    }
}

/// It is a variable that the predecessor reads.
pub(crate) fn is_variable(name: &str) -> bool {
    KEYS.iter().any(|(key, _)| *key == name)
}

/// These variables are the predecessor's: one of them is nobody else's.
pub(crate) fn speaks(variables: &BTreeMap<String, String>) -> bool {
    let mut set = variables.iter().filter(|(_, text)| !text.trim().is_empty()).map(|(name, _)| name.as_str());
    set.any(|name| is_variable(name) && !SHARED.contains(&name))
}

/// The predecessor's variables as a layer.
pub(super) fn variables(variables: &BTreeMap<String, String>) -> Layer {
    let mut reading = Reading::new(Place::Default, "variable ".to_owned());
    if speaks(variables) {
        for (name, text) in variables.iter().filter(|(name, _)| is_variable(name)) {
            reading.key(name, &Json::from(text.as_str()), Place::Variable(name.clone()));
        }
    }
    reading.layer()
}

/// A JSON file that has keys of the predecessor and no section of ours is its.
pub(super) fn is_file(values: &serde_json::Map<String, Json>) -> bool {
    values.keys().any(|key| is_variable(key)) && !values.keys().any(|key| super::is_section(key))
}

/// The predecessor's JSON file as a layer.
pub(super) fn file(path: &Path, values: &serde_json::Map<String, Json>) -> Layer {
    let mut reading = Reading::new(Place::File(path.to_owned(), None), format!("{}: ", path.display()));
    for (key, value) in values {
        reading.key(key, value, Place::Key(Box::new((path.to_owned(), key.clone()))));
    }
    reading.layer()
}

/// A `bootstrap.json`, which is a list of seeds, as a layer.
pub(super) fn bootstrap(path: &Path, seeds: &[Json]) -> Layer {
    let place = Place::File(path.to_owned(), None);
    let mut reading = Reading::new(place.clone(), String::new());
    let seeds = seeds.iter().map(value_of).collect();
    reading.seeds(seeds, place);
    let noted = Noted { source: String::new(), key: path.display().to_string(), fate: Fate::Taken("network.seeds") };
    reading.layer.noted.push(noted);
    reading.layer()
}

/// The `bootstrap.json` beside a configuration.
pub(super) fn bootstrap_beside(file: &Path) -> Option<PathBuf> {
    let path = file.with_file_name(BOOTSTRAP);
    (file.file_name() != path.file_name() && path.is_file()).then_some(path)
}

/// Says of a `bootstrap.json` that the configuration beside it names seeds of its own.
pub(super) fn outdone(bootstrap: &mut Layer, by: &Path) {
    for noted in &mut bootstrap.noted {
        noted.fate = Fate::Left(format!("{} names its own seeds", by.display()));
    }
}

/// What the predecessor's file says, for a file of ours.
#[derive(Clone, Debug)]
pub(crate) struct Predecessor {
    /// What it sets otherwise than what is built in, apart from its files.
    pub(crate) settings: Vec<(String, toml_edit::Value)>,
    /// Its identity key's file.
    pub(crate) key: Option<PathBuf>,
    /// Its pre-shared key's file.
    pub(crate) psk: Option<PathBuf>,
    /// What became of each key.
    pub(crate) noted: Vec<Noted>,
}

/// Reads the predecessor's file, or its variables where there is none, with the `bootstrap.json` beside it.
///
/// # Errors
/// When it is not the predecessor's (2), or every fault of it (78).
pub(crate) fn predecessor(file: Option<&Path>, variables: &BTreeMap<String, String>) -> Result<Predecessor, Failure> {
    let theirs = |(name, _): &(&String, &String)| file.is_none() && is_variable(name);
    let theirs = variables.iter().filter(theirs).map(|(name, text)| (name.clone(), text.clone())).collect();
    let (path, layer, is_theirs) = match file {
        Some(path) => {
            let layer = layers::file(path).map_err(|fault| refused(&[fault]))?;
            let is_theirs = !layer.noted.is_empty();
            (path, layer, is_theirs)
        }
        // Their paths are relative to this folder, as those of a file in it would be.
        None => (Path::new(USUAL_FILE), Layer::new(Place::Default), speaks(&theirs)),
    };
    if !is_theirs {
        let what = file.map_or("no variable is the predecessor's".to_owned(), |path| {
            format!("{} is not the predecessor's", path.display())
        });
        return Err(Failure::new(Exit::Usage, what)
            .why("none of its keys is there, such as NODE_MODE")
            .next("name its file by --from FILE; `muster init` makes a new member"));
    }
    let (config, layers) = assemble(path, Ok(layer), &theirs, &Flags::default())?;
    let is_set = |key: &str| !matches!(place_of(&layers, key), Place::Default | Place::Profile(_));
    let built_in = built_in()?;
    let differing = effective::differences(&built_in, &effective::effective(&layers));
    let chosen = differing.into_iter().filter(|one| is_set(&one.key) && !one.key.starts_with("files."));
    Ok(Predecessor {
        settings: chosen.filter_map(|one| Some((one.key.clone(), one.toml()?))).collect(),
        key: is_set("files.key").then(|| config.key()),
        psk: is_set("files.psk").then(|| config.psk()).flatten(),
        noted: layers.into_iter().flat_map(|layer| layer.noted).collect(),
    })
}

/// A layer while the predecessor's keys are read into it.
struct Reading {
    layer: Layer,
    source: String,
    sessions: Option<(u64, Place)>,
    window_secs: u64,
}

impl Reading {
    fn new(place: Place, source: String) -> Self {
        Self { layer: Layer::new(place), source, sessions: None, window_secs: THEIR_WINDOW_SECS }
    }

    fn key(&mut self, key: &str, value: &Json, place: Place) {
        let is_empty = |value: &Json| match value {
            Json::Null => true,
            Json::String(text) => text.trim().is_empty(),
            _ => false,
        };
        let Some((_, successor)) = KEYS.iter().find(|(known, _)| *known == key) else {
            let near = nearest_of(key, KEYS.iter().map(|(known, _)| *known));
            return self.note(key, Fate::Unknown(near));
        };
        // What it does not fill in the predecessor does not set.
        if !is_empty(value) {
            let fate = self.successor(*successor, value, place);
            self.note(key, fate);
        }
    }

    fn note(&mut self, key: &str, fate: Fate) {
        self.layer.noted.push(Noted { source: self.source.clone(), key: key.to_owned(), fate });
    }

    fn successor(&mut self, successor: Successor, value: &Json, place: Place) -> Fate {
        match successor {
            Same(setting) => {
                self.set(setting, value, place);
                Fate::Taken(setting)
            }
            Mode => self.mode(value, place),
            Seeds => {
                let seeds = match value {
                    Json::Array(list) => list.iter().map(value_of).collect(),
                    other => parts(other).map(|seed| Value::from(seed.to_owned())).collect(),
                };
                self.seeds(seeds, place);
                Fate::Taken("network.seeds")
            }
            Bus => self.bus(value, place),
            Host => self.host(value, place),
            Search => self.search(value, place),
            Sessions => {
                self.sessions = text_of(value).parse().ok().map(|most| (most, place.clone()));
                // What is no number is told as what it is.
                if self.sessions.is_none() {
                    self.set("gate.sessions_in_all", value, place);
                }
                let why = format!("counted over {OUR_WINDOW_SECS} s");
                Fate::Changed("gate.sessions_in_all", why)
            }
            Window => match text_of(value).parse() {
                Ok(secs @ 1..) => {
                    self.window_secs = secs;
                    Fate::Changed(
                        "gate.sessions_in_all",
                        format!("its window is always {OUR_WINDOW_SECS} s, and so MAX_CONN_PER_WINDOW is converted"),
                    )
                }
                _ => Fate::Left(format!("it is no number of seconds, and the window is always {OUR_WINDOW_SECS} s")),
            },
            Left(why) => Fate::Left(why.to_owned()),
        }
    }

    fn set(&mut self, setting: &'static str, value: &Json, place: Place) {
        let value = match (value, super::expected(setting)) {
            (Json::String(text), Some(expected)) => expected.read(text),
            (other, _) => value_of(other),
        };
        self.layer.set(setting, value, place);
    }

    fn mode(&mut self, value: &Json, place: Place) -> Fate {
        let said = text_of(value);
        let mode = match said.as_str() {
            "native-indexer" | "native_indexer" | "native" => "indexer",
            mode => mode,
        };
        self.layer.set("node.mode", Value::from(mode.to_owned()), place);
        if mode == said {
            return Fate::Taken("node.mode");
        }
        Fate::Changed("node.mode", format!("\"{mode}\", for no indexer is above the others any more"))
    }

    fn seeds(&mut self, seeds: Vec<Value>, place: Place) {
        let is_here = |seed: &Value| {
            let address = seed.as_str().and_then(|seed| seed.parse::<Multiaddr>().ok());
            address.is_some_and(|address| super::is_loopback(&address))
        };
        if seeds.iter().any(is_here) {
            // As `init` does: the public profile would drop the addresses of a network on one machine.
            self.layer.set("network.profile", Value::from("local".to_owned()), place.clone());
        }
        self.layer.set("network.seeds", Value::from(seeds), place);
    }

    fn search(&mut self, value: &Json, place: Place) -> Fate {
        let said = text_of(value);
        let (least, most) = match super::expected("search.idle") {
            Some(Expected::Span(least, most)) => (least.div_ceil(1000), most / 1000),
            _ => (0, u64::MAX),
        };
        // What is no number is told as what it is.
        let taken = said.parse::<u64>().map_or(said.clone(), |seconds| seconds.clamp(least, most).to_string());
        self.set("search.idle", &Json::from(format!("{taken}s")), place);
        let why = match taken == said {
            true => "a duration with its unit".to_owned(),
            false => format!("instead of {said} s, for indexers ask each other meanwhile: {least} s to {most} s"),
        };
        Fate::Changed("search.idle", format!("\"{taken}s\", {why}"))
    }

    fn bus(&mut self, value: &Json, place: Place) -> Fate {
        let said = text_of(value);
        let whole = |url: &str| if url.contains("://") { url.to_owned() } else { format!("nats://{url}") };
        let url = said.split(',').map(str::trim).map(whole).collect::<Vec<_>>().join(",");
        let is_same = url == said;
        self.layer.set("bus.url", Value::from(url), place);
        match is_same {
            true => Fate::Taken("bus.url"),
            false => Fate::Changed("bus.url", "with nats:// in front".to_owned()),
        }
    }

    fn host(&mut self, value: &Json, place: Place) -> Fate {
        let said = text_of(value);
        if matches!(said.as_str(), "localhost" | "127.0.0.1" | "0.0.0.0" | "::1") {
            return Fate::Left(format!(
                "\"{said}\" tells other members nothing; node.api_url says where our API answers"
            ));
        }
        let url = if said.contains("://") { said.clone() } else { format!("http://{said}") };
        let is_same = url == said;
        self.layer.set("node.api_url", Value::from(url), place);
        match is_same {
            true => Fate::Taken("node.api_url"),
            false => Fate::Changed("node.api_url", "with http:// in front".to_owned()),
        }
    }

    fn layer(mut self) -> Layer {
        if let Some((most, place)) = self.sessions.take() {
            // Rounded up: a rate above nothing stays above nothing.
            let in_all = most.saturating_mul(OUR_WINDOW_SECS).div_ceil(self.window_secs);
            self.layer.set("gate.sessions_in_all", Value::from(in_all), place);
        }
        self.layer
    }
}

/// A value as the predecessor's variables would write it.
fn text_of(value: &Json) -> String {
    match value {
        Json::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    }
}

/// The parts of a text with commas that are not empty.
fn parts(value: &Json) -> impl Iterator<Item = &str> {
    value.as_str().unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn value_of(value: &Json) -> Value {
    // JSON has nothing that a value of ours has not.
    Value::serialize(value).unwrap_or_else(|_| Value::from(Dict::new()))
}

#[cfg(test)]
mod tests;
