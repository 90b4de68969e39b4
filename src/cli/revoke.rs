//! `muster revoke` and `muster revocations`: whose keys are to be believed no longer.

use std::path::{Path, PathBuf};

use actors::view::RevocationView;
use hyper::{Method, body::Bytes};
use jiff::Timestamp;
use protocol::{
    revocations::{REASON_BYTES_MAX, Revoke, revoke},
    signed::{SignedObject as _, Verified},
};

use super::{
    Context,
    exit::{Exit, Failure},
    output::{ago, or_dash, say, span, table},
};
use crate::keys;

/// Where revocations are handed in and listed.
const PATH: &str = "/api/v1/revocations";

/// Flags of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The key's own file: the revocation is signed with it, here; no member needs to run with it.
    #[arg(long, value_name = "FILE", required_unless_present = "file", conflicts_with = "file")]
    identity: Option<PathBuf>,

    /// Why, for the operators of other members; told to everybody.
    #[arg(long, default_value = "", conflicts_with = "file")]
    reason: String,

    /// Write the revocation into this new file and hand it to nobody: for a safe.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "yes"])]
    out: Option<PathBuf>,

    /// A revocation that was prepared with --out.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// It is meant: the key is worth nothing from then on, for ever.
    #[arg(long)]
    yes: bool,
}

/// Signs or reads it, and hands it in or writes it down.
pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let revoke = match (&args.identity, &args.file) {
        (Some(identity), _) => signed(identity, &args.reason)?,
        (None, Some(file)) => read(file)?,
        (None, None) => {
            return Err(Failure::new(Exit::Usage, "no key is named").next("add --identity FILE or --file FILE"));
        }
    };
    if let Some(out) = &args.out {
        keys::create(out, format!("{}\n", revoke.text()).as_bytes())?;
        return say(&format!(
            "{} can be revoked with {}: whoever has this file can do it, so keep it like a key\n\
             `muster revoke --file {} --yes` hands it in",
            revoke.peer_id,
            out.display(),
            out.display()
        ));
    }
    if !args.yes {
        return Err(Failure::new(
            Exit::Usage,
            format!("{} would be revoked for ever, which nobody can undo", revoke.peer_id),
        )
        .next("add --yes if it is meant, or --out FILE to prepare it for later"));
    }
    let body = Bytes::copy_from_slice(revoke.text().as_bytes());
    let held: RevocationView = context.client_that_changes()?.change(Method::POST, PATH, Some(body)).await?;
    context.output.one(&held, |held| {
        format!(
            "{} is revoked, here and from here everywhere; members that are cut off hear of it when they are back\n\
             its organisation needs a new identity: `muster init --dir DIR --name NAME`",
            held.peer_id
        )
    })
}

/// Those that the member holds.
pub(super) async fn list(context: &Context) -> Result<(), Failure> {
    let held: Vec<RevocationView> = context.client()?.get(PATH).await?;
    context.output.list(&held, |held| shown(held, Timestamp::now()))
}

fn signed(identity: &Path, reason: &str) -> Result<Verified<Revoke>, Failure> {
    if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        let why = format!("got {} bytes, expected at most {REASON_BYTES_MAX} without control characters", reason.len());
        return Err(Failure::new(Exit::Usage, "the reason cannot be used").why(why).next("shorten it"));
    }
    let keys = keys::identity(identity)?;
    Ok(revoke(&keys, &keys.did().to_string(), reason, Timestamp::now()))
}

fn read(file: &Path) -> Result<Verified<Revoke>, Failure> {
    let failed = |why: String| {
        Failure::new(Exit::Configuration, format!("{} is no revocation", file.display()))
            .why(why)
            .next("name a file that `muster revoke --out` wrote")
    };
    let size = std::fs::metadata(file).map_err(|cause| failed(cause.to_string()))?.len();
    if size > Revoke::BYTES_MAX as u64 {
        return Err(failed(format!("it has {size} bytes, expected at most {}", Revoke::BYTES_MAX)));
    }
    let text = std::fs::read_to_string(file).map_err(|cause| failed(cause.to_string()))?;
    Verified::<Revoke>::open(text.trim(), Timestamp::now()).map_err(|error| failed(error.to_string()))
}

fn shown(held: &[RevocationView], now: Timestamp) -> String {
    if held.is_empty() {
        return "nobody is revoked, as far as this member has heard".to_owned();
    }
    let mut table = table(["peer id", "signed", "heard", "held for", "by", "reason"]);
    for held in held {
        let left = held.until.as_millisecond().saturating_sub(now.as_millisecond());
        table.add_row([
            held.peer_id.to_string(),
            ago(now, held.time),
            ago(now, held.heard),
            span(u64::try_from(left).unwrap_or(0)),
            held.weight.clone(),
            or_dash(&held.reason),
        ]);
    }
    let plural = if held.len() == 1 { "" } else { "s" };
    format!("{table}\n{} revocation{plural}", held.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use protocol::identity::Keys;

    use super::*;

    fn key_file(folder: &Path) -> (Keys, PathBuf) {
        let keys = Keys::from_seed([3; 32]);
        let path = folder.join("identity.pem");
        keys::create(&path, keys.to_pem().as_bytes()).unwrap();
        (keys, path)
    }

    #[test]
    fn what_is_prepared_is_read_again_and_what_was_changed_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, identity) = key_file(folder.path());
        let revoke = signed(&identity, "stolen").unwrap();
        assert_eq!((revoke.peer_id, revoke.reason.as_str()), (keys.peer_id(), "stolen"));
        let file = folder.path().join("revoke.json");
        std::fs::write(&file, format!("{}\n", revoke.text())).unwrap();
        assert_eq!(read(&file).unwrap(), revoke);
        std::fs::write(&file, revoke.text().replace("stolen", "lost")).unwrap();
        assert!(read(&file).unwrap_err().text().contains("does not verify"));
        std::fs::write(&file, " ".repeat(Revoke::BYTES_MAX + 1)).unwrap();
        let size = format!("{} bytes", Revoke::BYTES_MAX + 1);
        assert!(read(&file).unwrap_err().text().contains(&size));
    }

    #[test]
    fn a_reason_that_others_would_refuse_is_not_signed() {
        let folder = tempfile::tempdir().unwrap();
        let (_, identity) = key_file(folder.path());
        assert!(signed(&identity, &"r".repeat(REASON_BYTES_MAX)).is_ok());
        for reason in ["r".repeat(REASON_BYTES_MAX + 1), "a\nb".to_owned()] {
            assert!(signed(&identity, &reason).is_err());
        }
    }

    #[test]
    fn the_list_says_how_long_each_is_held_and_by_whom_it_came() {
        let at = |secs| Timestamp::from_second(secs).unwrap();
        let held = RevocationView {
            peer_id: crate::admin::testing::peer(),
            did: String::new(),
            time: at(0),
            reason: "a\nb".to_owned(),
            heard: at(60),
            until: at(7_200),
            weight: "tried".to_owned(),
        };
        let text = shown(&[held], at(3_600));
        assert!(text.contains("tried") && text.ends_with("1 revocation") && !text.contains("a\nb"), "{text}");
        assert!(shown(&[], at(0)).contains("nobody is revoked"));
    }
}
