//! `muster backup`: all that a member is in one file, also while it runs.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    Context,
    exit::{Exit, Failure},
};
use crate::{
    archive::{self, Manifest, Source},
    config::{self, Config, Flags},
    keys::{self, FileError, FolderLock, LockError, Secret},
    tree::DATABASE,
};

/// Ten times the longest settings with every explanation in them, and many times any key file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Flags of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file to write; never over another. Who reads it has the member's keys.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    file: PathBuf,
    bytes: u64,
    #[serde(flatten)]
    manifest: Manifest,
    /// Where the database is: in this file, on a server, or nowhere because the member has never run.
    database: Kept,
}

/// Where the database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    Here,
    OnServer,
    None,
}

/// Writes the backup and says what is in it.
pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    if context.at.admin.is_some() {
        return Err(Failure::new(Exit::Usage, "a backup is made of a member's folder, on its own machine")
            .next("use --config FILE as the user that runs the daemon"));
    }
    if args.to.symlink_metadata().is_ok() {
        return Err(FileError::Exists { path: args.to.clone() }.into());
    }
    let file = context.config_file()?;
    let config = context.config()?;
    // While nobody runs on the folder, nobody begins to before the copy is made.
    let _lock = match FolderLock::take(&config.data()) {
        Ok(lock) => Some(lock),
        Err(LockError::Held { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let identity = keys::identity(&config.key())?;
    let did = match config.settings.node.did.as_str() {
        "" => identity.did().to_string(),
        did => did.to_owned(),
    };
    let taken_at = Timestamp::now();
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or("muster.toml").to_owned();
    let mut manifest =
        Manifest::new(config.name(), identity.peer_id().to_string(), did.clone(), taken_at, name.clone());
    let mut files = vec![(name, Source::Bytes(plain(&file)?))];
    for (setting, path, secret) in named(&config) {
        let place = place(&config.folder, &path);
        let content = match secret {
            Some(secret) => keys::read(&path, secret)?,
            None => plain(&path)?,
        };
        files.push((place.clone(), Source::Bytes(content)));
        manifest.places.push((setting.to_owned(), place));
    }
    let data = place(&config.folder, &config.data());
    manifest.places.push(("files.data".to_owned(), data.clone()));
    check_places(&file, &manifest)?;
    let copy = Staged(beside(&args.to));
    let database = database(&config, &copy.0).await?;
    if let Some(copied) = &database.1 {
        manifest.seq = Some(copied.seq(&did));
        files.push((format!("{data}/{DATABASE}"), Source::File(copy.0.clone())));
    }
    let mut written = None;
    keys::create_with(&args.to, |out| {
        let packed = archive::pack(out, manifest, &files);
        // What went wrong is told in its own words below; here it only keeps the file from being made.
        let outcome = packed.as_ref().map(drop).map_err(|error| std::io::Error::other(error.to_string()));
        written = Some(packed);
        outcome
    })
    .map_err(|error| match error {
        error @ FileError::Exists { .. } => error.into(),
        error => Failure::new(Exit::InputOutput, "the backup could not be written").why(error.to_string()),
    })?;
    let manifest = written.transpose()?.ok_or_else(|| Failure::new(Exit::Internal, "nothing was packed"))?;
    let bytes = fs::metadata(&args.to).map_or(0, |found| found.len());
    let written = Written { file: args.to.clone(), bytes, manifest, database: database.0 };
    context.output.one(&written, text)
}

fn text(written: &Written) -> String {
    let Written { file, bytes, manifest, database } = written;
    let mut text = format!(
        "{} is in {} ({bytes} bytes)\n  peer id    {}\n  taken at   {}\n",
        manifest.name,
        file.display(),
        manifest.peer_id,
        manifest.taken_at
    );
    for listed in &manifest.files {
        text.push_str(&format!("  {:<10} {} bytes\n", listed.name, listed.bytes));
    }
    text.push_str(match database {
        Kept::Here => "whoever reads this file has the member's keys\n",
        Kept::OnServer => {
            "the database is on a server and is not in this file; keep it as well, with its own program:\n  \
             pg_dump --format=custom --file=FILE \"the URL of store.url\"\n"
        }
        Kept::None => "the member has never run: it has no database yet\n",
    });
    text.push_str("next: keep it elsewhere; `muster restore --from FILE --dir DIR` makes the member again");
    text
}

/// The files that the settings name, beside the folder of data.
fn named(config: &Config) -> Vec<(&'static str, PathBuf, Option<Secret>)> {
    let (bus, webhook) = (config.bus(), config.webhook());
    let mut named = vec![("files.key", config.key(), Some(Secret::Identity))];
    named.extend(config.psk().map(|path| ("files.psk", path, Some(Secret::NetworkKey))));
    let others = [
        ("bus.nkey_seed_file", bus.nkey_seed_file),
        ("bus.creds_file", bus.creds_file),
        ("bus.tls_ca", bus.tls_ca),
        ("webhook.secret_file", webhook.secret_file),
        ("webhook.tls_ca", webhook.tls_ca),
    ];
    named.extend(
        others.into_iter().filter(|(_, path)| !path.as_os_str().is_empty()).map(|(name, path)| (name, path, None)),
    );
    named
}

/// Where a file is in the archive: where it is below the member's folder, or else by its name alone.
fn place(folder: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(folder).ok().and_then(Path::to_str).filter(|name| archive::is_inside(name));
    inside.or_else(|| path.file_name()?.to_str()).unwrap_or("data").to_owned()
}

/// Settings in TOML are corrected when they are restored; those of other forms have to name their files as they are kept.
fn check_places(file: &Path, manifest: &Manifest) -> Result<(), Failure> {
    if file.extension().is_none_or(|extension| extension == "toml") {
        return Ok(());
    }
    let alone = config::load(file, &Default::default(), &Flags::default())?;
    let away = misplaced(&alone, &manifest.places);
    if away.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("{} names files outside of its folder", file.display()))
        .why(away.iter().map(|(setting, _)| setting.as_str()).collect::<Vec<_>>().join(", "))
        .next("put them into the folder, or the settings into a file of TOML, which is corrected when it is restored"))
}

/// The settings that name their files otherwise than here.
pub(super) fn misplaced(config: &Config, places: &[(String, String)]) -> Vec<(String, String)> {
    let config::Settings { files, bus, webhook, .. } = &config.settings;
    let set = |setting: &str| match setting {
        "files.key" => Some(&files.key),
        "files.psk" => Some(&files.psk),
        "files.data" => Some(&files.data),
        "bus.nkey_seed_file" => Some(&bus.nkey_seed_file),
        "bus.creds_file" => Some(&bus.creds_file),
        "bus.tls_ca" => Some(&bus.tls_ca),
        "webhook.secret_file" => Some(&webhook.secret_file),
        "webhook.tls_ca" => Some(&webhook.tls_ca),
        _ => None,
    };
    places
        .iter()
        .filter(|(setting, place)| set(setting).is_some_and(|path| path != Path::new(place)))
        .cloned()
        .collect()
}

async fn database(config: &Config, copy: &Path) -> Result<(Kept, Option<store::Copied>), Failure> {
    let path = config.data().join(DATABASE);
    if !config.settings.store.url.is_empty() {
        return Ok((Kept::OnServer, None));
    }
    if !path.exists() {
        return Ok((Kept::None, None));
    }
    let copied = store::copy_database(&path, copy).await.map_err(|error| {
        let exit = if error.is_io() { Exit::InputOutput } else { Exit::Failed };
        Failure::new(exit, "the database could not be copied").why(error.to_string()).next(error.remedy())
    })?;
    Ok((Kept::Here, Some(copied)))
}

/// A file of settings, of the bus or the webhook, whose mode is its owner's affair.
fn plain(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let refused = |why: String| {
        Failure::new(Exit::Configuration, format!("cannot read {}", path.display()))
            .why(why)
            .next("run this as the user that runs the daemon")
    };
    let mut content = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(|cause| refused(cause.to_string()))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(|cause| refused(cause.to_string()))?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(content)
}

/// Where the copy of the database waits to be packed: on the disk that has room for it.
fn beside(to: &Path) -> PathBuf {
    let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    to.with_file_name(format!(".{name}.{}.db", std::process::id()))
}

/// Removed whatever happens.
struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_keep_their_places_below_the_folder_and_their_names_otherwise() {
        let folder = Path::new("/srv/muster");
        for (path, expected) in [
            ("/srv/muster/identity.pem", "identity.pem"),
            ("/srv/muster/keys/identity.pem", "keys/identity.pem"),
            ("/run/keys/identity.pem", "identity.pem"),
            ("/srv/muster/../keys/swarm.key", "swarm.key"),
            ("/var/lib/muster", "muster"),
        ] {
            assert_eq!(place(folder, Path::new(path)), expected, "{path}");
        }
        assert_eq!(place(Path::new(""), Path::new("identity.pem")), "identity.pem");
    }
}
