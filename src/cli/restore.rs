//! `muster restore`: makes a member again from its backup, in a folder that has nothing yet.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use nix::fcntl::OFlag;
use serde::Serialize;

use super::{
    Context,
    backup::misplaced,
    exit::{Exit, Failure},
    shown,
};
use crate::{
    archive::{self, Manifest},
    config::{self, Config, Flags},
    keys,
};

/// Flags of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What `muster backup` wrote.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,

    /// The member's folder; made where there is none, and empty where there is one.
    #[arg(long)]
    dir: PathBuf,
}

/// A member that was made again.
#[derive(Debug, Serialize)]
struct Restored {
    name: String,
    peer_id: String,
    did: String,
    config: PathBuf,
    taken_at: Timestamp,
    has_database: bool,
}

/// Restores and says who it is.
pub(super) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let archive = open(&args.from)?;
    refuse_what_exists(&args.dir)?;
    let staged = Staged::beside(&args.dir)?;
    let manifest = archive::unpack(archive, &staged.0)?;
    let config = settings(&staged.0, &manifest)?;
    let found = keys::identity(&config.key())?.peer_id().to_string();
    if found != manifest.peer_id {
        return Err(Failure::new(Exit::Configuration, "the backup cannot be used")
            .why(format!("its key is {found}'s, and it says to be {}'s", manifest.peer_id))
            .next("take another copy of the backup, or an older one"));
    }
    config.psk().map(|path| keys::network_key(&path)).transpose()?;
    folder(&config.data())?;
    archive::note_restored(&config.data(), manifest.taken_at)?;
    staged.become_folder(&args.dir)?;
    let restored = Restored {
        config: args.dir.join(&manifest.config),
        has_database: manifest.seq.is_some(),
        name: manifest.name,
        peer_id: manifest.peer_id,
        did: manifest.did,
        taken_at: manifest.taken_at,
    };
    context.output.one(&restored, |restored| text(restored, &config))
}

fn text(restored: &Restored, config: &Config) -> String {
    let mut text = format!(
        "{} is made again in {}\n  peer id    {}\n  taken at   {}\n",
        restored.name,
        shown(restored.config.parent().unwrap_or(Path::new(""))),
        restored.peer_id,
        restored.taken_at
    );
    if !config.settings.store.url.is_empty() {
        text.push_str("its database is on a server: restore it there first, with pg_restore\n");
    } else if !restored.has_database {
        text.push_str("it had never run: its database will be new\n");
    }
    text.push_str("the one that was lost must never run again: two with one identity deny each other's records\n");
    text.push_str(&format!("next: muster run --config {}", shown(&restored.config)));
    text
}

/// Opens a backup that nobody else can read: it holds the member's keys.
fn open(path: &Path) -> Result<File, Failure> {
    let refused = |why: String, next: String| {
        Failure::new(Exit::Configuration, format!("cannot use {}", path.display())).why(why).next(next)
    };
    // Not blocking, so that a named pipe put there cannot hang the verb.
    let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = opened.map_err(|cause| {
        let exit = if cause.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Configuration };
        Failure::new(exit, format!("cannot open {}", path.display())).why(cause.to_string())
    })?;
    let found = file.metadata().map_err(|cause| refused(cause.to_string(), "try another copy".to_owned()))?;
    if !found.is_file() {
        return Err(refused("it is no file".to_owned(), "name what `muster backup` wrote".to_owned()));
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(refused(
            format!("it can be read by others: its mode is {mode:04o}, expected 0600"),
            format!(
                "if nobody else has read it: chmod 600 {}; otherwise its keys are no longer secret",
                path.display()
            ),
        ));
    }
    Ok(file)
}

fn refuse_what_exists(dir: &Path) -> Result<(), Failure> {
    let refused = |why: String| {
        Failure::new(Exit::Refused, format!("{} is not empty, and nothing is ever overwritten", shown(dir)))
            .why(why)
            .next("choose another folder, or move this one away")
    };
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(entry) => Err(refused(match entry {
                Ok(entry) => format!("exists: {}", entry.path().display()),
                Err(cause) => cause.to_string(),
            })),
        },
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(refused(cause.to_string())),
    }
}

/// The settings as they were, naming their files where they are now.
fn settings(folder: &Path, manifest: &Manifest) -> Result<Config, Failure> {
    let file = folder.join(&manifest.config);
    let read = || config::load(&file, &Default::default(), &Flags::default());
    let config = read()?;
    let away = misplaced(&config, &manifest.places);
    if away.is_empty() {
        return Ok(config);
    }
    let unusable = |why: String| Failure::new(Exit::Configuration, "its settings cannot be corrected").why(why);
    let text = fs::read_to_string(&file).map_err(|cause| unusable(cause.to_string()))?;
    let mut document: toml_edit::DocumentMut =
        text.parse().map_err(|cause: toml_edit::TomlError| unusable(cause.to_string()))?;
    for (setting, place) in away {
        let (section, key) = setting.split_once('.').unwrap_or(("", &setting));
        let table = document.entry(section).or_insert(toml_edit::table()).as_table_mut();
        let table = table.ok_or_else(|| unusable(format!("{section} is no section")))?;
        table[key] = toml_edit::value(place);
    }
    // Not replaced but made anew, for there may be passwords in it; nobody else sees the folder yet.
    fs::remove_file(&file).map_err(|cause| unusable(cause.to_string()))?;
    keys::create(&file, document.to_string().as_bytes())?;
    read()
}

fn folder(path: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|cause| {
        Failure::new(Exit::Configuration, format!("cannot make the folder {}", path.display()))
            .why(cause.to_string())
            .next("choose another folder, or correct its permissions")
    })
}

/// The folder while it is being filled; gone when that did not work.
struct Staged(PathBuf);

impl Staged {
    fn beside(dir: &Path) -> Result<Self, Failure> {
        let dir = std::path::absolute(dir).map_err(|cause| {
            Failure::new(Exit::Usage, format!("cannot use {}", dir.display())).why(cause.to_string())
        })?;
        let parent = dir.parent().unwrap_or(&dir);
        folder(parent)?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let staged = parent.join(format!(".{name}.{}.restored", std::process::id()));
        DirBuilder::new().mode(0o700).create(&staged).map_err(|cause| {
            Failure::new(Exit::Configuration, format!("cannot make the folder {}", staged.display()))
                .why(cause.to_string())
                .next("choose another folder, or correct its permissions")
        })?;
        Ok(Self(staged))
    }

    /// All of it at once: a folder takes an empty one's place, and never that of one with anything in it.
    fn become_folder(self, dir: &Path) -> Result<(), Failure> {
        let failed = |cause: io::Error| {
            Failure::new(Exit::InputOutput, format!("cannot make {}", shown(dir))).why(cause.to_string())
        };
        File::open(&self.0).and_then(|folder| folder.sync_all()).map_err(failed)?;
        fs::rename(&self.0, dir).map_err(failed)?;
        let parent = self.0.parent().unwrap_or(&self.0);
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already when it became the folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}
