//! The settings as they are in force, each with where it comes from; secrets are not shown.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;

use super::{
    expected::{EXPECTED, Expected},
    layers::{Layer, Place},
};

/// Shown instead of a secret.
const HIDDEN: &str = "***";

/// A value that may be a secret.
#[derive(Clone, PartialEq)]
struct Whole(Json);

impl fmt::Debug for Whole {
    // Written by hand so that no secret is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// A setting in force.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Effective {
    /// Its name.
    pub(crate) key: String,
    /// Its value; what is secret is three stars.
    pub(crate) value: Json,
    /// Where it was set.
    pub(crate) origin: String,
    /// The variable that sets it.
    pub(crate) variable: String,
    /// A change of it is gone by without a restart.
    pub(crate) live: bool,
    /// Where it was set is stronger than the file.
    #[serde(skip)]
    pub(crate) is_above_file: bool,
    /// Nobody set it.
    #[serde(skip)]
    pub(crate) is_default: bool,
    /// Its value, for comparisons.
    #[serde(skip)]
    whole: Whole,
}

/// A setting that two configurations say otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Difference {
    /// Its name.
    pub(crate) key: String,
    /// What it is there.
    pub(crate) from: Json,
    /// What it is here.
    pub(crate) to: Json,
    /// Where it was set here.
    pub(crate) origin: String,
    /// What it is here, secrets too.
    #[serde(skip)]
    whole: Whole,
}

impl Difference {
    /// What it is here as TOML has it, secrets too: for a file that only we can read.
    pub(super) fn toml(&self) -> Option<toml_edit::Value> {
        as_toml(&self.whole.0).parse().ok()
    }
}

/// Every setting of the merged layers, in the order of the documentation.
pub(super) fn effective(layers: &[Layer]) -> Vec<Effective> {
    EXPECTED
        .iter()
        .map(|(key, expected)| {
            let place = super::place_of(layers, key);
            let found = layers.iter().rev().find_map(|layer| layer.value(key));
            // Whatever a layer holds is text, numbers, truth, lists and tables of these: JSON has all of them.
            let whole = found.map_or(Json::Null, |value| serde_json::to_value(value).unwrap_or(Json::Null));
            Effective {
                key: (*key).to_owned(),
                value: shown(expected, &whole),
                origin: place.to_string(),
                variable: variable(key),
                live: super::is_live(key),
                is_above_file: match &place {
                    Place::Variable(name) => name.starts_with("MUSTER_"),
                    Place::Flag(_) => true,
                    _ => false,
                },
                is_default: matches!(place, Place::Default | Place::Profile(_)),
                whole: Whole(whole),
            }
        })
        .collect()
}

/// What `to` says otherwise than `from`.
pub(crate) fn differences(from: &[Effective], to: &[Effective]) -> Vec<Difference> {
    let pairs = from.iter().zip(to).filter(|(from, to)| from.whole != to.whole);
    let difference = |(from, to): (&Effective, &Effective)| Difference {
        key: to.key.clone(),
        from: from.value.clone(),
        to: to.value.clone(),
        origin: to.origin.clone(),
        whole: to.whole.clone(),
    };
    pairs.map(difference).collect()
}

/// The variable that sets `key`.
pub(crate) fn variable(key: &str) -> String {
    let name = format!("MUSTER_{}", key.to_ascii_uppercase().replace('.', "__"));
    match super::expected(key) {
        Some(Expected::Subjects) => format!("{name}__VERB"),
        _ => name,
    }
}

fn shown(expected: &Expected, value: &Json) -> Json {
    match (expected, value) {
        (_, Json::String(text)) if text.is_empty() => value.clone(),
        (Expected::Secret(_) | Expected::SecretUrl, _) => Json::from(HIDDEN),
        (_, Json::String(text)) => Json::from(without_user(text)),
        _ => value.clone(),
    }
}

/// URLs without who they let in: `nats://me:secret@host` is `nats://***@host`, in lists with commas too.
fn without_user(text: &str) -> String {
    let one = |url: &str| match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            match authority.rsplit_once('@') {
                Some((_, host)) => format!("{scheme}://{HIDDEN}@{host}{path}"),
                None => url.to_owned(),
            }
        }
        None => url.to_owned(),
    };
    text.split(',').map(one).collect::<Vec<_>>().join(",")
}

/// A value as TOML writes it.
pub(crate) fn as_toml(value: &Json) -> String {
    match value {
        Json::Null => "\"\"".to_owned(),
        Json::Bool(truth) => truth.to_string(),
        Json::Number(number) => number.to_string(),
        Json::String(text) => toml_edit::Value::from(text.as_str()).to_string(),
        Json::Array(items) => format!("[{}]", items.iter().map(as_toml).collect::<Vec<_>>().join(", ")),
        Json::Object(inner) if inner.is_empty() => "{}".to_owned(),
        Json::Object(inner) => {
            let pairs = inner.iter().map(|(name, value)| format!("{} = {}", toml_edit::Key::new(name), as_toml(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_a_url_lets_in_is_not_shown() {
        for (url, shown) in [
            ("nats://me:secret@host:4222", "nats://***@host:4222"),
            ("nats://a,tls://me:p@ss@b/x@y", "nats://a,tls://***@b/x@y"),
            ("postgresql://muster:geheim@db/muster", "postgresql://***@db/muster"),
            ("https://cloud.example/@me", "https://cloud.example/@me"),
            ("did:key:z6Mk", "did:key:z6Mk"),
        ] {
            assert_eq!(without_user(url), shown);
        }
    }

    #[test]
    fn a_secret_is_stars_and_no_secret_is_nothing() {
        assert_eq!(shown(&Expected::Secret(9), &json!("geheim")), json!("***"));
        assert_eq!(shown(&Expected::Secret(9), &json!("")), json!(""));
    }

    #[test]
    fn values_are_written_as_toml_reads_them() {
        for (value, toml) in [
            (json!("a\"b"), "'a\"b'"),
            (json!(7), "7"),
            (json!(0.5), "0.5"),
            (json!(true), "true"),
            (json!(["a", "b"]), "[\"a\", \"b\"]"),
            (json!({"search": "x.y", "a b": "c"}), "{ \"a b\" = \"c\", search = \"x.y\" }"),
            (json!({}), "{}"),
        ] {
            assert_eq!(as_toml(&value), toml);
        }
    }

    #[test]
    fn variables_are_named_after_their_settings() {
        assert_eq!(variable("network.private_ranges"), "MUSTER_NETWORK__PRIVATE_RANGES");
        assert_eq!(variable("bus.subjects"), "MUSTER_BUS__SUBJECTS__VERB");
    }
}
