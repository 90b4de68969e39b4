//! `muster init`: makes a member's folder, and never writes over anything.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use multiaddr::Multiaddr;
use protocol::identity::{Keys, PreSharedKey};
use serde::Serialize;
use toml_edit::Value;

use super::{
    Context,
    exit::{Exit, Failure},
    shown,
};
use crate::{
    config::{self, DEFAULT_TOML, Mode},
    keys,
};

/// Flags of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The member's folder; made where there is none.
    #[arg(long)]
    dir: PathBuf,

    /// The name that other members see [default: the host's].
    #[arg(long)]
    name: Option<String>,

    /// What the member is.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,

    /// The network's pre-shared key, to be copied [default: a new one, for a new network].
    #[arg(long, value_name = "FILE")]
    psk: Option<PathBuf>,

    /// An indexer to begin with, ending in /p2p/ and its peer id; may be given again.
    #[arg(long = "seed", value_name = "ADDR")]
    seeds: Vec<String>,

    /// TCP port to listen on; 0 takes any free one [default: 4001].
    #[arg(long)]
    port: Option<u16>,
}

/// A member to be made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// The pre-shared key to copy; nothing for a new one.
    pub(crate) psk: Option<PathBuf>,
    /// Who it is.
    pub(crate) identity: Identity,
    /// What is chosen, by the names of `config/default.toml`: `network.port`.
    pub(crate) settings: Vec<(String, Value)>,
}

/// Who a new member is.
#[derive(Clone, Debug, Default)]
pub(crate) enum Identity {
    /// Nobody yet.
    #[default]
    New,
    /// Whoever has the key in this file, which is copied.
    Of(PathBuf),
}

impl Identity {
    fn keys(&self) -> Result<Keys, Failure> {
        match self {
            Self::New => Ok(Keys::generate(&mut rand::rng())),
            Self::Of(path) => Ok(keys::identity(path)?),
        }
    }
}

/// A member that was made.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Created {
    /// Its name.
    pub(crate) name: String,
    /// Its peer id.
    pub(crate) peer_id: String,
    /// Its DID.
    pub(crate) did: String,
    /// Its configuration.
    pub(crate) config: PathBuf,
}

impl Plan {
    /// Chooses a setting.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.settings.push((key.to_owned(), value.into()));
    }
}

/// Makes a member and says who it is.
pub(super) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let mut plan = Plan { dir: args.dir.clone(), psk: args.psk.clone(), ..Plan::default() };
    plan.set("node.name", args.name.clone().unwrap_or_else(config::host_name));
    plan.set("node.mode", args.mode.to_string());
    if let Some(port) = args.port {
        plan.set("network.port", i64::from(port));
    }
    if !args.seeds.is_empty() {
        plan.set("network.seeds", args.seeds.iter().collect::<toml_edit::Array>());
    }
    if args.seeds.iter().filter_map(|seed| seed.parse::<Multiaddr>().ok()).any(|seed| config::is_loopback(&seed)) {
        // A network on one machine: the public profile would drop its loopback addresses.
        plan.set("network.profile", "local");
    }
    let created = create(&plan)?;
    context.output.one(&created, |created| {
        let network = match plan.psk {
            Some(_) => "copied",
            None => "new, for a new network: give it to its other members (--psk FILE)",
        };
        format!(
            "{} is made in {}\n  peer id    {}\n  did        {}\n  swarm.key  {network}\nnext: muster run --config {}",
            created.name,
            shown(&plan.dir),
            created.peer_id,
            created.did,
            shown(&created.config)
        )
    })
}

/// Makes a member: `muster.toml`, `identity.pem`, `swarm.key` and `data/`.
///
/// # Errors
/// When a setting cannot be used, when the key to copy cannot be trusted, or when anything of a member exists already
/// (code 8); nothing is written then.
pub(crate) fn create(plan: &Plan) -> Result<Created, Failure> {
    let text = settings_text(&plan.settings)?;
    // As a start would read it, so that `init` never writes what `run` refuses.
    let file = plan.dir.join("muster.toml");
    let config = config::check_chosen(&file, &plan.settings, flag)?;
    let network_key = match &plan.psk {
        Some(path) => keys::network_key(path)?,
        None => PreSharedKey::generate(&mut rand::rng()).into(),
    };
    let identity = plan.identity.keys()?;
    refuse_what_exists(&[file.clone(), config.key(), plan.dir.join("swarm.key"), config.data()])?;
    folder(&plan.dir)?;
    folder(&config.data())?;
    keys::create(&config.key(), identity.to_pem().as_bytes())?;
    keys::create(&plan.dir.join("swarm.key"), network_key.to_text().as_bytes())?;
    // Last, so that a folder with a configuration is a whole one.
    keys::create(&file, text.as_bytes())?;
    Ok(Created {
        name: config.name(),
        peer_id: identity.peer_id().to_string(),
        did: identity.did().to_string(),
        config: file,
    })
}

/// The flag that sets this setting, for messages.
fn flag(key: &str) -> String {
    let flag = match key {
        "node.name" => "--name",
        "node.mode" => "--mode",
        "network.port" => "--port",
        "network.seeds" => "--seed",
        key => key,
    };
    flag.to_owned()
}

fn refuse_what_exists(paths: &[PathBuf]) -> Result<(), Failure> {
    let there: Vec<String> =
        paths.iter().filter(|path| path.symlink_metadata().is_ok()).map(|path| path.display().to_string()).collect();
    if there.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "there is a member already, and nothing is ever overwritten")
        .why(format!("exists: {}", there.join(", ")))
        .next("choose another folder, or run this one: muster run --config FILE"))
}

/// Makes a folder for us alone where there is none.
fn folder(path: &Path) -> Result<(), Failure> {
    let refused = |cause: io::Error| {
        Failure::new(Exit::Configuration, format!("cannot make the folder {}", path.display()))
            .why(cause.to_string())
            .next("choose another folder, or correct its permissions")
    };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(refused)
}

/// The documentation of every setting, with those chosen set and the others commented out.
fn settings_text(chosen: &[(String, Value)]) -> Result<String, Failure> {
    let mut left: Vec<&(String, Value)> = chosen.iter().collect();
    let mut section = String::new();
    let mut text = String::new();
    for line in DEFAULT_TOML.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        }
        let key =
            line.split_once(" = ").filter(|_| !line.starts_with('#')).map(|(name, _)| format!("{section}.{name}"));
        match key.as_ref().map(|key| (key, left.iter().rposition(|(name, _)| name == key))) {
            None => text.push_str(line),
            Some((_, None)) => text.push_str(&format!("#{line}")),
            Some((key, Some(at))) => {
                let name = line.split(" = ").next().unwrap_or_default();
                text.push_str(&format!("{name} = {}", left[at].1.to_string().trim()));
                left.retain(|(name, _)| name != key);
            }
        }
        text.push('\n');
    }
    match left.first() {
        None => Ok(text),
        Some((key, _)) => Err(Failure::new(Exit::Internal, format!("there is no setting {key} to choose"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::config::Flags;

    fn plan(dir: &Path) -> Plan {
        let mut plan = Plan { dir: dir.join("paris"), ..Plan::default() };
        plan.set("node.name", "paris");
        plan.set("network.port", 4101);
        plan
    }

    #[test]
    fn a_member_is_made_whole_and_its_settings_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let created = create(&plan(folder.path())).unwrap();
        let config = config::load(&created.config, &Default::default(), &Flags::default()).unwrap();
        assert_eq!(config.name(), "paris");
        assert_eq!(config.settings.network.port, 4101);
        assert_eq!(keys::identity(&config.key()).unwrap().peer_id().to_string(), created.peer_id);
        keys::network_key(&config.psk().unwrap()).unwrap();
        assert!(config.data().is_dir());
        assert!(created.did.starts_with("did:key:z6Mk"));
    }

    #[test]
    fn what_was_not_chosen_is_commented_out() {
        let folder = tempfile::tempdir().unwrap();
        let created = create(&plan(folder.path())).unwrap();
        let text = fs::read_to_string(created.config).unwrap();
        assert!(text.contains("\nname = \"paris\"\n") && text.contains("\nport = 4101\n"), "{text}");
        assert!(text.contains("\n#mdns = false\n"), "{text}");
        let set = text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
        assert_eq!(set, 2, "{text}");
    }

    #[test]
    fn nothing_is_ever_overwritten() {
        for existing in ["muster.toml", "identity.pem", "swarm.key", "data"] {
            let folder = tempfile::tempdir().unwrap();
            let dir = folder.path().join("paris");
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join(existing), "mine").unwrap();
            let failure = create(&plan(folder.path())).unwrap_err();
            assert_eq!(failure.exit, Exit::Refused);
            assert!(failure.why[0].ends_with(existing), "{failure:?}");
            assert_eq!(fs::read_to_string(dir.join(existing)).unwrap(), "mine");
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing was written");
        }
    }

    #[test]
    fn an_existing_folder_with_other_files_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("paris")).unwrap();
        fs::write(folder.path().join("paris/notes.txt"), "mine").unwrap();
        create(&plan(folder.path())).unwrap();
    }

    #[test]
    fn a_wrong_choice_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut wrong = plan(folder.path());
        wrong.set("network.seeds", ["/ip4/127.0.0.1/tcp/4001"].into_iter().collect::<toml_edit::Array>());
        let failure = create(&wrong).unwrap_err();
        assert_eq!(failure.exit, Exit::Configuration);
        assert!(failure.why[0].starts_with("network.seeds (flag --seed): got "), "{failure:?}");
        assert!(!wrong.dir.exists());
    }

    #[test]
    fn a_network_key_that_others_can_read_is_not_copied() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("swarm.key");
        fs::write(&source, PreSharedKey::from_bytes([7; 32]).to_text().as_bytes()).unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o644)).unwrap();
        let mut with_key = plan(folder.path());
        with_key.psk = Some(source.clone());
        assert_eq!(create(&with_key).unwrap_err().exit, Exit::Configuration);
        assert!(!with_key.dir.exists());
        fs::set_permissions(&source, fs::Permissions::from_mode(0o600)).unwrap();
        create(&with_key).unwrap();
        let copied = keys::network_key(&with_key.dir.join("swarm.key")).unwrap();
        assert_eq!(copied.current().as_bytes(), &[7; 32]);
    }
}
