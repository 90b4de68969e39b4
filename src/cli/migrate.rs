//! `muster migrate`: makes a member of what the predecessor's configuration says, and keeps who it is.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    Context,
    exit::{Exit, Failure},
    init::{self, Identity, Plan},
    shown,
};
use crate::config::{self, Fate, Noted, Predecessor};

/// Flags of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The predecessor's JSON file; without one, its variables are read. A bootstrap.json beside it is read too.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    /// The new member's folder; made where there is none [default: the folder of FILE, or this one].
    #[arg(long)]
    dir: Option<PathBuf>,

    /// The identity key, where it is no longer at PRIVATE_KEY_PATH.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// The pre-shared key, where it is no longer at PSK_PATH.
    #[arg(long, value_name = "FILE")]
    psk: Option<PathBuf>,
}

/// What was made of the predecessor's configuration.
#[derive(Debug, Serialize)]
struct Migrated {
    name: String,
    peer_id: String,
    did: String,
    config: PathBuf,
    /// Keys whose values were kept, each with the setting that it is now.
    taken: Vec<Moved>,
    /// Keys that are written otherwise now.
    changed: Vec<Moved>,
    /// Keys that have no successor, or that nobody knows.
    left: Vec<Moved>,
}

/// What became of one key.
#[derive(Debug, Serialize)]
struct Moved {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    setting: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

/// Makes the member and says what became of each key.
pub(super) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let Predecessor { settings, key, psk, noted } =
        config::predecessor(args.from.as_deref(), context.environment.variables())?;
    let missing = |what: &str, name: &str, flag: &str| {
        Failure::new(Exit::Configuration, format!("the predecessor does not say where {what} is"))
            .why(format!("{name} is not set"))
            .next(format!("name it: {flag} FILE"))
    };
    let named = |flag: &Option<PathBuf>, said: Option<PathBuf>| flag.clone().or(said);
    let key = named(&args.key, key).ok_or_else(|| missing("the identity key", "PRIVATE_KEY_PATH", "--key"))?;
    let psk = named(&args.psk, psk).ok_or_else(|| missing("the pre-shared key", "PSK_PATH", "--psk"))?;
    let beside = || args.from.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    let dir = args.dir.clone().unwrap_or_else(beside);
    let plan = Plan { dir, psk: Some(psk), identity: Identity::Of(key), settings };
    let created = init::create(&plan)?;
    let mut migrated = Migrated {
        name: created.name,
        peer_id: created.peer_id,
        did: created.did,
        config: created.config,
        taken: Vec::new(),
        changed: Vec::new(),
        left: Vec::new(),
    };
    noted.into_iter().for_each(|noted| migrated.note(noted));
    context.output.one(&migrated, Migrated::text)
}

impl Migrated {
    fn note(&mut self, Noted { key, fate, .. }: Noted) {
        let (list, setting, why) = match fate {
            Fate::Taken(setting) => (&mut self.taken, Some(setting), String::new()),
            Fate::Changed(setting, why) => (&mut self.changed, Some(setting), why),
            Fate::Left(why) => (&mut self.left, None, why),
            Fate::Unknown(None) => (&mut self.left, None, "nobody knows it".to_owned()),
            Fate::Unknown(Some(near)) => (&mut self.left, None, format!("nobody knows it; did you mean {near}?")),
        };
        list.push(Moved { key, setting: setting.map(str::to_owned), why });
    }

    fn text(&self) -> String {
        let mut lines = vec![
            format!("{} is migrated to {}", self.name, shown(&self.config)),
            format!("  peer id    {} (kept)", self.peer_id),
            format!("  did        {}", self.did),
        ];
        for (word, moved) in [("taken", &self.taken), ("changed", &self.changed), ("left", &self.left)] {
            for Moved { key, setting, why } in moved {
                let setting = setting.as_ref().map(|setting| format!(" -> {setting}")).unwrap_or_default();
                let why = if why.is_empty() { String::new() } else { format!(": {why}") };
                lines.push(format!("  {word:<10} {key}{setting}{why}"));
            }
        }
        lines.push(format!(
            "next: stop the predecessor, then muster run --config {}; two with one identity deny each other's records",
            shown(&self.config)
        ));
        lines.join("\n")
    }
}
