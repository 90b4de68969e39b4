//! Where settings come from; each layer knows the place of every key it sets.

use std::{
    collections::BTreeMap,
    fmt,
    io::Read as _,
    ops::Range,
    path::{Path, PathBuf},
};

use figment::{
    Error, Metadata, Provider,
    value::{Dict, Map, Value},
};
use protocol::profile::Profile;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value as Json;
use toml_edit::{Document, Item, TableLike};

use super::{
    Fault, excerpt, expected,
    legacy::{self, Noted},
};

/// Many times `config/default.toml`; what is larger is something else.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Variables of ours that are no settings.
pub(crate) const NOT_SETTINGS: [&str; 5] =
    ["MUSTER_ADMIN", "MUSTER_ADMIN_TOKEN", "MUSTER_CHAOS", "MUSTER_CONFIG", "MUSTER_LOG"];

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Built in.
    Default,
    /// Built in, for this profile.
    Profile(Profile),
    /// A file, and the line and column where they are known.
    File(PathBuf, Option<(usize, usize)>),
    /// A key of a file whose keys are not ours; boxed to keep faults small.
    Key(Box<(PathBuf, String)>),
    /// A variable.
    Variable(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built in"),
            Self::Profile(profile) => write!(f, "built in for the profile \"{}\"", profile.name()),
            Self::File(path, Some((line, column))) => write!(f, "{}:{line}:{column}", path.display()),
            Self::File(path, None) => write!(f, "{}", path.display()),
            Self::Key(of) => write!(f, "{}, {}", of.0.display(), of.1),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// What of a setting is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Its name.
    Name,
    /// Its value.
    Value,
}

/// Bytes of a file at which a setting is.
#[derive(Clone, Debug)]
struct Spans {
    name: Range<usize>,
    value: Option<Range<usize>>,
}

/// Values from one source.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// Where a key is that has no place of its own.
    source: Place,
    values: Dict,
    places: BTreeMap<String, Place>,
    /// The file's text, and where in it each key is.
    text: String,
    spans: BTreeMap<String, Spans>,
    /// What became of the predecessor's keys in it.
    pub(super) noted: Vec<Noted>,
}

impl Layer {
    /// A layer that sets nothing.
    pub(super) fn new(source: Place) -> Self {
        let (values, places, spans) = (Dict::new(), BTreeMap::new(), BTreeMap::new());
        Self { source, values, places, text: String::new(), spans, noted: Vec::new() }
    }

    /// Its value for `key`, which may be a section.
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        let mut path = key.split('.');
        let first = path.next().and_then(|name| self.values.get(name));
        path.try_fold(first, |value, name| match value? {
            Value::Dict(_, inner) => Some(inner.get(name)),
            _ => None,
        })
        .flatten()
    }

    /// It has a value for `key`, or for something in that section.
    pub(super) fn sets(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// The line in which `key` is, with carets; nothing where there is no line.
    pub(super) fn excerpt(&self, key: &str, part: Part) -> Option<String> {
        let spans = self.spans.get(key)?;
        let span = match (part, &spans.value) {
            (Part::Value, Some(value)) => value.clone(),
            _ => spans.name.clone(),
        };
        match part {
            Part::Value => Some(excerpt::excerpt(&self.text, span)),
            Part::Name => excerpt::of_name(&self.text, span),
        }
    }

    /// Where it sets `key`, or the first thing in that section.
    pub(super) fn place(&self, key: &str) -> Place {
        let within = |name: &str| name == key || name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
        let found = self.places.iter().find(|(name, _)| within(name));
        found.map_or_else(|| self.source.clone(), |(_, place)| place.clone())
    }

    /// Sets a key.
    pub(super) fn set(&mut self, key: &str, value: Value, place: Place) {
        insert(&mut self.values, key, value);
        self.places.insert(key.to_owned(), place);
    }
}

fn insert(values: &mut Dict, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(values.insert(key.to_owned(), value)),
        Some((section, rest)) => {
            let inner = values.entry(section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if !matches!(inner, Value::Dict(..)) {
                *inner = Value::from(Dict::new());
            }
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.to_string())
    }

    fn data(&self) -> Result<Map<figment::Profile, Dict>, Error> {
        Ok(figment::Profile::Default.collect(self.values.clone()))
    }
}

/// The file given by `--config`, by its ending: TOML, JSON or YAML.
pub(super) fn file(path: &Path) -> Result<Layer, Fault> {
    read(path).and_then(|text| of_text(path, &text))
}

/// The same, with the file's text at hand.
pub(super) fn of_text(path: &Path, text: &str) -> Result<Layer, Fault> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("json") => json(path, text),
        Some("yaml" | "yml") => yaml(path, text),
        Some("toml") | None => toml(path, text),
        Some(other) => {
            Err(whole(path, None, format!("its name ends in .{other}, expected .toml, .json, .yaml or .yml")))
        }
    }
}

/// The text of a file.
pub(super) fn read(path: &Path) -> Result<String, Fault> {
    let unreadable = |cause: std::io::Error| match cause.kind() {
        std::io::ErrorKind::NotFound => whole(path, None, "there is no such file; `muster init` writes one".to_owned()),
        _ => whole(path, None, format!("it cannot be read: {cause}")),
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(whole(path, None, format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|cause| {
        let at = cause.utf8_error().valid_up_to();
        let place = position(&String::from_utf8_lossy(&cause.as_bytes()[..at]), at);
        whole(path, Some(place), "it is not UTF-8 text".to_owned())
    })
}

fn whole(path: &Path, at: Option<(usize, usize)>, why: String) -> Fault {
    Fault { key: String::new(), place: Place::File(path.to_owned(), at), why, excerpt: None }
}

fn json(path: &Path, text: &str) -> Result<Layer, Fault> {
    let values: Once = serde_json::from_str(text).map_err(|cause| {
        let words = cause.to_string();
        let words = words.rsplit_once(" at line ").map_or(words.as_str(), |(words, _)| words);
        unread(path, text, (cause.line(), cause.column()), &words.replace("EOF while parsing", "the text ends within"))
    })?;
    match values.0 {
        Json::Object(values) if legacy::is_file(&values) => Ok(legacy::file(path, &values)),
        Json::Object(values) => structured(path, &values),
        Json::Array(seeds) => Ok(legacy::bootstrap(path, &seeds)),
        _ => Err(whole(path, None, "it holds neither sections nor a list of seeds".to_owned())),
    }
}

fn yaml(path: &Path, text: &str) -> Result<Layer, Fault> {
    let values: Once = serde_yaml_ng::from_str(text).map_err(|cause| {
        let words = cause.to_string();
        let words = words.split(" at line ").next().unwrap_or_default();
        match cause.location() {
            Some(at) => unread(path, text, (at.line(), at.column()), words),
            None => whole(path, None, words.to_owned()),
        }
    })?;
    match values.0 {
        Json::Object(values) => structured(path, &values),
        // A file of comments alone.
        Json::Null => Ok(Layer::new(Place::File(path.to_owned(), None))),
        _ => Err(whole(path, None, "it holds no sections".to_owned())),
    }
}

/// A text that cannot be read at this line and column.
fn unread(path: &Path, text: &str, (line, column): (usize, usize), words: &str) -> Fault {
    let line = line.max(1);
    // The end of a text is told as the start of the line behind it.
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let byte = (start + column.saturating_sub(1)).min(text.len());
    let fault = whole(path, Some(position(text, byte)), words.to_owned());
    Fault { excerpt: excerpt::of_unread(text, byte..byte + 1), ..fault }
}

fn structured(path: &Path, values: &serde_json::Map<String, Json>) -> Result<Layer, Fault> {
    let mut layer = Layer::new(Place::File(path.to_owned(), None));
    let values = Value::serialize(values).map_err(|cause| whole(path, None, cause.to_string()))?;
    layer.values = values.into_dict().unwrap_or_default();
    Ok(layer)
}

/// A JSON value in which no name stands twice: the last would win in silence.
struct Once(Json);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OnceVisitor)
    }
}

struct OnceVisitor;

impl<'de> Visitor<'de> for OnceVisitor {
    type Value = Once;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Once, E> {
        Ok(Once(Json::Null))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Once, E> {
        Ok(Once(truth.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Once, E> {
        Ok(Once(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Once, E> {
        Ok(Once(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Once, E> {
        Ok(Once(number.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Once, E> {
        Ok(Once(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Once, A::Error> {
        let mut list = Vec::new();
        while let Some(Once(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Once(Json::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Once, A::Error> {
        let mut table = serde_json::Map::new();
        while let Some(name) = pairs.next_key::<String>()? {
            if table.contains_key(&name) {
                return Err(A::Error::custom(format!("duplicate key `{name}`")));
            }
            let Once(value) = pairs.next_value()?;
            table.insert(name, value);
        }
        Ok(Once(Json::Object(table)))
    }
}

/// What is built in.
pub(super) fn defaults() -> Result<Layer, Fault> {
    let layer = toml(Path::new("config/default.toml"), super::DEFAULT_TOML)?;
    Ok(Layer { source: Place::Default, places: BTreeMap::new(), spans: BTreeMap::new(), ..layer })
}

/// What somebody chose on the command line, by setting, value and flag.
pub(super) fn chosen(settings: &[(String, toml_edit::Value)], flag: impl Fn(&str) -> String) -> Layer {
    let mut layer = Layer::new(Place::Default);
    for (key, value) in settings {
        layer.set(key, toml_value(value), Place::Flag(flag(key)));
    }
    layer
}

/// What a profile makes of the defaults.
pub(super) fn profile(profile: Profile) -> Layer {
    let mut layer = Layer::new(Place::Default);
    layer.set("gate.sessions_per_subnet", Value::from(profile.sessions_per_subnet()), Place::Profile(profile));
    layer.set("gate.sessions_in_all", Value::from(profile.sessions_whole()), Place::Profile(profile));
    layer
}

/// A TOML text, with the line and column of every key.
pub(super) fn toml(path: &Path, text: &str) -> Result<Layer, Fault> {
    let document = Document::parse(text).map_err(|cause| {
        let at = cause.span().map(|span| position(text, span.start));
        let rest = cause.span().and_then(|span| text.get(span.start..)).unwrap_or_default();
        let is_missing = rest.lines().next().is_none_or(|line| line.trim().is_empty())
            && text.trim_end().ends_with('=')
            || rest.starts_with('\n') && cause.message().starts_with("string values must be quoted");
        let words = match is_missing {
            true => "there is no value behind the =".to_owned(),
            false => cause.message().replace('\n', ", "),
        };
        let fault = whole(path, at, words);
        Fault { excerpt: cause.span().and_then(|span| excerpt::of_unread(text, span)), ..fault }
    })?;
    let mut layer = Layer::new(Place::File(path.to_owned(), None));
    text.clone_into(&mut layer.text);
    layer.values = table(
        document.as_table(),
        &mut |key, spans| {
            let place = Place::File(path.to_owned(), Some(position(text, spans.name.start)));
            layer.places.insert(key.to_owned(), place);
            layer.spans.insert(key.to_owned(), spans);
        },
        "",
    );
    Ok(layer)
}

fn table(table: &dyn TableLike, mark: &mut dyn FnMut(&str, Spans), prefix: &str) -> Dict {
    table
        .iter()
        .map(|(name, item)| {
            let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            if let Some(span) = table.key(name).and_then(toml_edit::Key::span) {
                let value = item.as_value().and_then(toml_edit::Value::span);
                mark(&key, Spans { name: span, value });
            }
            (name.to_owned(), item_value(item, mark, &key))
        })
        .collect()
}

fn item_value(item: &Item, mark: &mut dyn FnMut(&str, Spans), key: &str) -> Value {
    if let Some(inner) = item.as_table_like() {
        return Value::from(table(inner, mark, key));
    }
    match item {
        Item::Value(value) => toml_value(value),
        Item::ArrayOfTables(tables) => {
            Value::from(tables.iter().map(|inner| Value::from(table(inner, mark, key))).collect::<Vec<_>>())
        }
        _ => Value::from(Dict::new()),
    }
}

fn toml_value(value: &toml_edit::Value) -> Value {
    use toml_edit::Value as Toml;
    match value {
        Toml::String(text) => Value::from(text.value().clone()),
        Toml::Integer(number) => Value::from(*number.value()),
        Toml::Float(number) => Value::from(*number.value()),
        Toml::Boolean(truth) => Value::from(*truth.value()),
        Toml::Datetime(time) => Value::from(time.value().to_string()),
        Toml::Array(values) => Value::from(values.iter().map(toml_value).collect::<Vec<_>>()),
        Toml::InlineTable(inner) => {
            Value::from(inner.iter().map(|(name, value)| (name.to_owned(), toml_value(value))).collect::<Dict>())
        }
    }
}

/// Line and column, both from 1, of a byte in a text.
pub(super) fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// Variables of the form `MUSTER_SECTION__KEY`, and words about those that look like settings and are none.
pub(super) fn variables(variables: &BTreeMap<String, String>) -> (Layer, Vec<String>) {
    let mut layer = Layer::new(Place::Default);
    let mut warnings = Vec::new();
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix("MUSTER_") else { continue };
        if NOT_SETTINGS.contains(&name.as_str()) || rest.starts_with("DEMO_") {
            continue;
        }
        if !rest.contains("__") {
            warnings.push(format!("variable {name} is no setting: settings are named MUSTER_SECTION__KEY"));
            continue;
        }
        let key = rest.to_ascii_lowercase().replace("__", ".");
        let value = match super::expected(&key) {
            Some(expected) => expected.read(text),
            None => Value::from(text.clone()),
        };
        layer.set(&key, value, Place::Variable(name.clone()));
    }
    (layer, warnings)
}

/// What flags set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// `--log`: a level, `json`, or both with a comma.
    pub(crate) log: Option<String>,
}

impl Flags {
    pub(super) fn layer(&self) -> Layer {
        let mut layer = Layer::new(Place::Default);
        let Some(log) = &self.log else { return layer };
        let flag = || Place::Flag("--log or variable MUSTER_LOG".to_owned());
        let (formats, levels): (Vec<&str>, Vec<&str>) =
            log.split(',').map(str::trim).partition(|word| expected::LOG_FORMATS.contains(word));
        if let Some(format) = formats.last() {
            layer.set("log.format", Value::from(*format), flag());
        }
        if !levels.is_empty() {
            layer.set("log.level", Value::from(levels.join(",")), flag());
        }
        layer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let text = "a = 1\né = 2\n\nb";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, 6), (2, 1));
        assert_eq!(position(text, 7), (2, 1), "inside a character is that character");
        assert_eq!(position(text, 9), (2, 3));
        assert_eq!(position(text, text.len()), (4, 2));
    }

    #[test]
    fn a_scalar_and_a_section_by_one_name_do_not_panic() {
        let mut values = Dict::new();
        insert(&mut values, "a", Value::from(1));
        insert(&mut values, "a.b", Value::from(2));
        assert!(matches!(values.get("a"), Some(Value::Dict(..))));
    }
}
