//! Changes of single settings in the text of a file, whose comments and order stay.

use std::collections::BTreeMap;

use figment::value::Value;
use serde_json::Value as Json;
use toml_edit::{DocumentMut, Item, TableLike};

use super::{as_toml, expected, layers::position, nearest};

/// The value that a text means for this setting, as a variable would be read.
pub(crate) fn wish(key: &str, text: &str) -> Json {
    match expected(key) {
        Some(expected) => serde_json::to_value::<Value>(expected.read(text)).unwrap_or(Json::Null),
        // It is told to be unknown by whoever checks it.
        None => Json::from(text),
    }
}

/// A TOML text in which these settings have these values; nothing (`null`) for what is built in.
///
/// # Errors
/// What cannot be written there, in words, all of it at once.
pub(crate) fn edited(text: &str, wishes: &BTreeMap<String, Json>) -> Result<String, Vec<String>> {
    let unread = |cause: toml_edit::TomlError| {
        let (line, column) = position(text, cause.span().map_or(0, |span| span.start));
        vec![format!("line {line}, column {column} of the file as it is: {}", cause.message().replace('\n', ", "))]
    };
    let mut document: DocumentMut = text.parse().map_err(unread)?;
    let mut faults = Vec::new();
    for (key, value) in wishes {
        if let Err(fault) = set(document.as_table_mut(), key, value) {
            faults.push(fault);
        }
    }
    if faults.is_empty() { Ok(document.to_string()) } else { Err(faults) }
}

fn set(document: &mut dyn TableLike, key: &str, value: &Json) -> Result<(), String> {
    let (Some((section, name)), Some(_)) = (key.split_once('.'), expected(key)) else {
        let hint = nearest(key).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        return Err(format!("{key}: there is no such setting{hint}"));
    };
    if value.is_null() {
        let table = document.get_mut(section).and_then(Item::as_table_like_mut);
        table.map(|table| table.remove(name));
        return Ok(());
    }
    let table = document.entry(section).or_insert_with(toml_edit::table).as_table_like_mut();
    let table = table.ok_or_else(|| format!("{key}: {section} is no section in the file"))?;
    let mut new: toml_edit::Value =
        as_toml(value).parse().map_err(|_| format!("{key}: it cannot be written as TOML"))?;
    match table.get_mut(name) {
        Some(Item::Value(old)) => {
            // What stands behind it on its line stays there.
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        _ => drop(table.insert(name, Item::Value(new))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn wishes(wishes: &[(&str, Json)]) -> BTreeMap<String, Json> {
        wishes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
    }

    #[test]
    fn a_value_is_changed_and_everything_around_it_stays() {
        let text = "# mine\n[pool]\nmin_indexer = 1 # few\n# most\nmax_indexer = 5\n\n[log]\nlevel = 'info'\n";
        let new = edited(text, &wishes(&[("pool.min_indexer", json!(2)), ("log.level", json!("debug"))])).unwrap();
        assert_eq!(new, text.replace("min_indexer = 1", "min_indexer = 2").replace("'info'", "\"debug\""));
    }

    #[test]
    fn what_is_not_there_is_added_and_what_is_taken_back_goes() {
        let new = edited("[pool]\nmax_indexer = 5\n", &wishes(&[("search.idle", json!("7s"))])).unwrap();
        assert_eq!(new, "[pool]\nmax_indexer = 5\n\n[search]\nidle = \"7s\"\n");
        let back = edited(&new, &wishes(&[("search.idle", Json::Null), ("log.level", Json::Null)])).unwrap();
        assert_eq!(back, "[pool]\nmax_indexer = 5\n\n[search]\n");
        let inline = edited("bus = { url = \"\" }\n", &wishes(&[("bus.user", json!("me"))])).unwrap();
        assert!(inline.contains("user = \"me\""), "{inline}");
    }

    #[test]
    fn what_nobody_knows_is_told_all_at_once() {
        let faults = edited("", &wishes(&[("pool.max_indexr", json!(1)), ("loud", json!(true))])).unwrap_err();
        assert_eq!(
            faults,
            [
                "loud: there is no such setting",
                "pool.max_indexr: there is no such setting; did you mean pool.max_indexer?",
            ]
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_with_the_place() {
        let faults = edited("[log]\nlevel = \"in", &wishes(&[("log.level", json!("debug"))])).unwrap_err();
        assert!(faults[0].starts_with("line 2, column ") && !faults[0].contains('\n'), "{faults:?}");
    }

    #[test]
    fn texts_are_read_as_the_setting_wants_them() {
        assert_eq!(wish("pool.max_indexer", "7"), json!(7));
        assert_eq!(wish("pool.max_indexer", "many"), json!("many"));
        assert_eq!(wish("alerts.cpu_max", "0.5"), json!(0.5));
        assert_eq!(wish("node.name", "007"), json!("007"));
        assert_eq!(wish("network.mdns", "true"), json!(true));
        assert_eq!(wish("network.announce", "/ip4/192.0.2.1/tcp/1"), json!(["/ip4/192.0.2.1/tcp/1"]));
    }
}
