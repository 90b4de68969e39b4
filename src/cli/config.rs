//! `muster config`: looks at configurations without starting anything, and changes that of a running daemon.

use std::path::{Path, PathBuf};

use hyper::{Method, body::Bytes};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{
    Context, asked,
    exit::{Exit, Failure},
    output::{Output, table},
};
use crate::config::{self, Difference, Effective, Flags, Told};

/// What can be asked about configurations.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Tell everything that is wrong with a configuration, or that nothing is.
    Check {
        /// The file [default: the member's].
        file: Option<PathBuf>,
    },
    /// Show every setting in force; secrets are not shown.
    Show {
        /// Say of each where it was set.
        #[arg(long)]
        origin: bool,
    },
    /// Show what differs from what is built in, or from another configuration.
    Diff {
        /// The other configuration's file.
        other: Option<PathBuf>,
    },
    /// Write the JSON Schema of the file, for editors.
    Schema,
    /// Change a setting of a running daemon, in its file too.
    Set {
        /// The setting, as `config show` names it: pool.max_indexer.
        key: String,
        /// Its value, as a variable would have it: 7, 20s, true.
        value: String,
    },
    /// Let a setting of a running daemon be what is built in again.
    Unset {
        /// The setting, as `config show` names it: pool.max_indexer.
        key: String,
    },
}

/// What a daemon changed.
#[derive(Debug, Serialize, Deserialize)]
struct Changed {
    changed: Vec<One>,
    needs_restart: Vec<String>,
}

/// One setting that a daemon changed.
#[derive(Debug, Serialize, Deserialize)]
struct One {
    key: String,
    from: Json,
    to: Json,
    live: bool,
}

/// A configuration without faults.
#[derive(Debug, Serialize)]
struct Checked {
    file: PathBuf,
    /// Settings that are set anywhere.
    set: usize,
    warnings: Vec<String>,
}

/// Does what is asked.
pub(super) fn run(verb: &Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::Check { file } => check(file.clone(), context),
        Verb::Show { origin } => show(*origin, context),
        Verb::Diff { other } => diff(other.as_deref(), context),
        Verb::Schema => match context.output {
            // A schema is JSON, whoever reads it.
            Output::Table => Output::Json.one(&config::schema(), |_| String::new()),
            output => output.one(&config::schema(), |_| String::new()),
        },
        Verb::Set { key, value } => asked(change(key, config::wish(key, value), context)),
        Verb::Unset { key } => asked(change(key, Json::Null, context)),
    }
}

async fn change(key: &str, value: Json, context: &Context) -> Result<(), Failure> {
    let wish = Bytes::from(serde_json::json!({ key: value }).to_string());
    let client = context.client_that_changes()?;
    let changed: Changed = client.change(Method::PATCH, "/api/v1/config", Some(wish)).await?;
    context.output.one(&changed, |changed| match changed.changed.as_slice() {
        [] => format!("{key} is so already"),
        changed => changed.iter().map(One::text).collect::<Vec<_>>().join("\n"),
    })
}

impl One {
    fn text(&self) -> String {
        let Self { key, from, to, live } = self;
        let when = if *live { "from now on" } else { "after a restart: muster run again" };
        format!("{key}: {} -> {}, {when}", config::as_toml(from), config::as_toml(to))
    }
}

/// The file that is asked about: there is none behind an address.
fn file_of(context: &Context) -> Result<PathBuf, Failure> {
    if context.at.admin.is_some() {
        return Err(
            Failure::new(Exit::Usage, "`config` looks at files, and --admin names a daemon").next("add --config FILE")
        );
    }
    context.config_file()
}

fn tell(file: &Path, context: &Context) -> Result<Told, Failure> {
    config::tell(
        file,
        context.environment.variables(),
        &Flags { log: context.environment.get("MUSTER_LOG").map(str::to_owned) },
    )
}

fn check(file: Option<PathBuf>, context: &Context) -> Result<(), Failure> {
    let file = file.map_or_else(|| file_of(context), Ok)?;
    let told = tell(&file, context)?;
    let set = told.effective.iter().filter(|setting| !setting.is_default).count();
    context.output.one(&Checked { file, set, warnings: told.warnings }, |checked| {
        let settings = if checked.set == 1 { "setting is" } else { "settings are" };
        let warnings = checked.warnings.iter().map(|warning| format!("\nwarning: {warning}"));
        let first = format!("{} can be used: {} {settings} set", checked.file.display(), checked.set);
        std::iter::once(first).chain(warnings).collect()
    })
}

fn show(with_origin: bool, context: &Context) -> Result<(), Failure> {
    let settings = tell(&file_of(context)?, context)?.effective;
    match context.output {
        Output::Table => context.output.one(&settings, |settings| as_file(settings, with_origin)),
        output if with_origin => output.list(&settings, |_| String::new()),
        output => output.one(&nested(&settings), |_| String::new()),
    }
}

/// As `muster.toml` would say it; where each comes from stands behind it.
fn as_file(settings: &[Effective], with_origin: bool) -> String {
    let mut section = "";
    let mut text = String::new();
    for setting in settings {
        let (of, name) = setting.key.split_once('.').unwrap_or(("", &setting.key));
        if of != section {
            section = of;
            text.push_str(&format!("\n[{of}]\n"));
        }
        let line = format!("{name} = {}", config::as_toml(&setting.value));
        match with_origin {
            true => text.push_str(&format!("{line:<44} # {}\n", setting.origin)),
            false => text.push_str(&format!("{line}\n")),
        }
    }
    text.trim_start().to_owned()
}

fn nested(settings: &[Effective]) -> Json {
    let mut all = Map::new();
    for setting in settings {
        let (section, name) = setting.key.split_once('.').unwrap_or(("", &setting.key));
        let section = all.entry(section).or_insert_with(|| Json::Object(Map::new()));
        if let Json::Object(section) = section {
            section.insert(name.to_owned(), setting.value.clone());
        }
    }
    Json::Object(all)
}

fn diff(other: Option<&Path>, context: &Context) -> Result<(), Failure> {
    let own = tell(&file_of(context)?, context)?.effective;
    let other = match other {
        Some(file) => tell(file, context)?.effective,
        None => config::built_in()?,
    };
    let found = config::differences(&other, &own);
    context.output.list(&found, |found| {
        if found.is_empty() {
            return "nothing differs".to_owned();
        }
        let mut table = table(["setting", "there", "here", "set in"]);
        for Difference { key, from, to, origin, .. } in found {
            table.add_row([key.clone(), config::as_toml(from), config::as_toml(to), origin.clone()]);
        }
        table.to_string()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_shown_can_be_read_again() {
        let settings = config::built_in().unwrap();
        for with_origin in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("muster.toml");
            std::fs::write(&file, as_file(&settings, with_origin)).unwrap();
            let told = config::tell(&file, &Default::default(), &Flags::default()).unwrap();
            assert_eq!(config::differences(&settings, &told.effective), []);
            assert!(told.effective.iter().all(|setting| !setting.is_default), "every setting is shown");
        }
        let nested = nested(&settings);
        assert_eq!(nested["network"]["port"], Json::from(4001));
    }
}
