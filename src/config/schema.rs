//! The settings as JSON Schema, for editors and pipelines: made of the table of what is expected and of the documentation.

use std::collections::BTreeMap;

use figment::{Figment, value::Dict};
use serde_json::{Map, Value as Json, json};

use super::{
    DEFAULT_TOML,
    effective::variable,
    expected::{EXPECTED, Expected},
    layers,
};

/// The dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A duration: `90s` is one, `1m30s` is none.
const SPAN: &str = "^[0-9]+(ms|s|m|h|d)$";

/// The schema of a configuration's file.
pub(crate) fn schema() -> Json {
    let explained = explained();
    let defaults = defaults();
    let mut sections = BTreeMap::<&str, Map<String, Json>>::new();
    for (key, expected) in EXPECTED {
        let Some((section, name)) = key.split_once('.') else { continue };
        let mut setting = kind(expected);
        setting.insert("description".to_owned(), Json::from(explained.get(*key).cloned().unwrap_or_default()));
        setting.insert("x-variable".to_owned(), Json::from(variable(key)));
        setting.insert("x-live".to_owned(), Json::from(super::is_live(key)));
        if let Some(default) = defaults.get(*key) {
            setting.insert("default".to_owned(), default.clone());
        }
        sections.entry(section).or_default().insert(name.to_owned(), Json::Object(setting));
    }
    let sections: Map<String, Json> = sections
        .into_iter()
        .map(|(name, settings)| {
            let section = json!({ "type": "object", "additionalProperties": false, "properties": settings });
            (name.to_owned(), section)
        })
        .collect();
    json!({
        "$schema": DIALECT,
        "title": "The configuration of a muster member",
        "type": "object",
        "additionalProperties": false,
        "properties": sections,
    })
}

/// What the documentation says about every setting, by its key.
pub(super) fn explained() -> BTreeMap<String, String> {
    let mut section = "";
    let mut comment = Vec::new();
    let mut explained = BTreeMap::new();
    for line in DEFAULT_TOML.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment.push(text);
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((name, _)) = line.split_once(" = ") {
            // The last line names the variable, which has a place of its own.
            let text = comment.split_last().map_or(String::new(), |(_, text)| text.join(" "));
            explained.insert(format!("{section}.{name}"), text);
        }
        comment.clear();
    }
    explained
}

fn defaults() -> BTreeMap<String, Json> {
    let layer = layers::defaults().ok();
    let merged: Dict = layer.and_then(|layer| Figment::from(layer).extract().ok()).unwrap_or_default();
    let value = |key: &str| {
        let (section, name) = key.split_once('.')?;
        serde_json::to_value(merged.get(section)?.as_dict()?.get(name)?).ok()
    };
    EXPECTED.iter().filter_map(|(key, _)| Some(((*key).to_owned(), value(key)?))).collect()
}

fn kind(expected: &Expected) -> Map<String, Json> {
    let list = |most: usize| json!({ "type": "array", "maxItems": most, "items": { "type": "string" } });
    let kind = match *expected {
        Expected::Truth => json!({ "type": "boolean" }),
        Expected::Whole(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Expected::Number(least, most) => json!({ "type": "number", "minimum": least, "maximum": most }),
        Expected::Span(..) => json!({ "type": "string", "pattern": SPAN }),
        Expected::OneOf(words) => json!({ "enum": words }),
        Expected::Text(least, most) => json!({ "type": "string", "minLength": least, "maxLength": most }),
        Expected::Name => json!({ "type": "string", "maxLength": 64 }),
        Expected::Url | Expected::Collector | Expected::Database => json!({ "type": "string", "maxLength": 512 }),
        Expected::SecretUrl => json!({ "type": "string", "maxLength": 512, "writeOnly": true }),
        Expected::Path => json!({ "type": "string", "minLength": 1, "maxLength": 4096 }),
        Expected::File => json!({ "type": "string", "maxLength": 4096 }),
        Expected::Secret(most) => json!({ "type": "string", "maxLength": most, "writeOnly": true }),
        Expected::Identifier | Expected::Socket | Expected::Level => json!({ "type": "string" }),
        Expected::Listen(most)
        | Expected::Announce(most)
        | Expected::Seeds(most)
        | Expected::Ranges(most)
        | Expected::Hosts(most) => list(most),
        Expected::Subjects => json!({
            "type": "object",
            "additionalProperties": { "type": "string", "minLength": 1, "maxLength": 128 },
        }),
    };
    match kind {
        Json::Object(kind) => kind,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_setting_has_its_kind_its_default_and_its_words() {
        let schema = schema();
        for (key, _) in EXPECTED {
            let (section, name) = key.split_once('.').unwrap();
            let setting = &schema["properties"][section]["properties"][name];
            assert!(setting["description"].as_str().is_some_and(|text| text.ends_with('.')), "{key}: {setting}");
            assert!(setting.get("default").is_some(), "{key}: {setting}");
            assert!(setting.get("type").or(setting.get("enum")).is_some(), "{key}: {setting}");
            assert_eq!(setting["x-variable"], Json::from(variable(key)));
            assert_eq!(setting["x-live"], Json::from(super::super::is_live(key)));
        }
    }

    #[test]
    fn the_defaults_keep_to_the_schema() {
        let schema = schema();
        for (section, settings) in schema["properties"].as_object().unwrap() {
            for (name, setting) in settings["properties"].as_object().unwrap() {
                let default = &setting["default"];
                let holds = match setting["type"].as_str() {
                    Some("boolean") => default.is_boolean(),
                    Some("integer") => default.as_u64().is_some_and(|number| {
                        (setting["minimum"].as_u64().unwrap()..=setting["maximum"].as_u64().unwrap()).contains(&number)
                    }),
                    Some("number") => default.as_f64().is_some_and(|number| {
                        (setting["minimum"].as_f64().unwrap()..=setting["maximum"].as_f64().unwrap()).contains(&number)
                    }),
                    Some("string") => default.as_str().is_some_and(|text| match setting.get("pattern") {
                        Some(_) => text.chars().next().is_some_and(|c| c.is_ascii_digit()),
                        None => text.len() as u64 <= setting["maxLength"].as_u64().unwrap_or(u64::MAX),
                    }),
                    Some("array") => default.is_array(),
                    Some("object") => default.is_object(),
                    _ => setting["enum"].as_array().unwrap().contains(default),
                };
                assert!(holds, "{section}.{name}: {setting}");
            }
        }
    }
}
