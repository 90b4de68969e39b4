//! `muster rotate`: replaces the network's pre-shared key without anybody being unreachable meanwhile.
//!
//! The key's file says how far this member is; the daemon reads it when it starts. Whether the others are ready for the end
//! is known to a running daemon alone: peers say in their hellos which keys they hold.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use actors::view::{PeerView, StatusView};
use protocol::{
    identity::PreSharedKey,
    keyring::{Keyring, RotationError},
};
use serde::Serialize;

use super::{
    ADMIN_ADDRESS, Context, daemon_of,
    exit::{Exit, Failure},
    output::or_dash,
    shown,
};
use crate::{config::Config, keys};

/// Peers that are named in words; the others are counted.
const NAMED_MAX: usize = 10;

/// Flags of the verb.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("step").required(true))]
pub(super) struct Args {
    /// Give this member a next key: a new one, or with --psk that which another member has made. It speaks both from its
    /// next start on.
    #[arg(long, group = "step")]
    begin: bool,

    /// Show which keys this member holds, and which of its peers do not hold the next one yet.
    #[arg(long, group = "step")]
    status: bool,

    /// Drop the old key, once every member has the next one.
    #[arg(long, group = "step")]
    finish: bool,

    /// Drop the next key instead: the old one stays.
    #[arg(long, group = "step")]
    cancel: bool,

    /// The file of a member that has begun; whoever has read it can connect.
    #[arg(long, value_name = "FILE", requires = "begin", conflicts_with_all = ["status", "finish", "cancel"])]
    psk: Option<PathBuf>,

    /// Finish although peers do not hold the next key: they are out then.
    #[arg(long, requires = "finish", conflicts_with_all = ["begin", "status", "cancel"])]
    force: bool,
}

/// How far a member is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Shown {
    /// The key's file.
    file: PathBuf,
    /// Fingerprint of the key in force.
    current: String,
    /// Fingerprint of the next one.
    next: Option<String>,
    /// The daemon runs with other keys than those in the file: it has to be started again. Nothing where none runs.
    restart_needed: Option<bool>,
    /// Connected peers that hold the next key.
    peers_ready: usize,
    /// Connected peers that do not, or do not say so.
    peers_missing: Vec<Peer>,
}

/// A peer that lacks the next key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Peer {
    peer_id: String,
    name: String,
}

/// What a running daemon knows of the rotation.
struct Known {
    running: Vec<String>,
    peers: Vec<PeerView>,
}

/// Takes the step, and says where that leads.
pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    if context.at.admin.is_some() {
        return Err(Failure::new(Exit::Usage, "the network's key is in a member's own files")
            .next("use --config FILE as the user that runs the daemon"));
    }
    let config = context.config()?;
    let Some(file) = config.psk() else {
        return Err(Failure::new(Exit::Refused, "this member's network is open: there is no key to replace")
            .next("set network.private = true to be in a network with a key"));
    };
    let known = known(&config).await?;
    let ring = if args.begin {
        let offered = args.psk.as_deref().map(keys::network_key).transpose()?;
        keys::change_network_key(&file, |ring| {
            let next = match &offered {
                Some(file) => ring.offered(file).map_err(|error| refused(&error))?,
                None => PreSharedKey::generate(&mut rand::rng()),
            };
            ring.begin(next).map_err(|error| refused(&error))
        })?
    } else if args.finish {
        keys::change_network_key(&file, |ring| {
            let finished = ring.finish().map_err(|error| refused(&error))?;
            if !args.force {
                may_finish(&show(&file, ring, known.as_ref()))?;
            }
            Ok(finished)
        })?
    } else if args.cancel {
        keys::change_network_key(&file, |ring| ring.cancel().map_err(|error| refused(&error)))?
    } else {
        keys::network_key(&file)?
    };
    context.output.one(&show(&file, &ring, known.as_ref()), text)
}

/// What the daemon says that runs on this folder, if one does.
async fn known(config: &Config) -> Result<Option<Known>, Failure> {
    if !config.data().join(ADMIN_ADDRESS).exists() {
        return Ok(None);
    }
    let client = daemon_of(config, None)?;
    let status: StatusView = match client.get("/api/v1/status").await {
        Ok(status) => status,
        // One that was killed left its address behind.
        Err(failure) if failure.exit == Exit::Unreachable => return Ok(None),
        Err(failure) => return Err(failure),
    };
    Ok(Some(Known { running: status.network_keys, peers: client.get("/api/v1/peers").await? }))
}

fn show(file: &Path, ring: &Keyring, known: Option<&Known>) -> Shown {
    let current = ring.current().fingerprint();
    let next = ring.next().map(PreSharedKey::fingerprint);
    // After the end, whoever has not heard of the key in force lacks it.
    let wanted = next.as_ref().unwrap_or(&current);
    let connected = known.iter().flat_map(|known| &known.peers).filter(|peer| peer.connected);
    let (ready, missing): (Vec<&PeerView>, Vec<&PeerView>) =
        connected.partition(|peer| peer.network_keys.contains(wanted));
    let named = |peer: &PeerView| Peer { peer_id: peer.peer_id.to_string(), name: peer.name.clone() };
    Shown {
        file: file.to_owned(),
        restart_needed: known.map(|known| known.running != ring.fingerprints()),
        current,
        next,
        peers_ready: ready.len(),
        peers_missing: missing.into_iter().map(named).collect(),
    }
}

/// Nobody who is connected would be cut off.
fn may_finish(shown: &Shown) -> Result<(), Failure> {
    if shown.restart_needed == Some(true) {
        return Err(Failure::new(Exit::Refused, "this member does not speak the next key yet")
            .why("its daemon was started before the rotation began")
            .next(
                "start it again, wait until `muster rotate --status` shows no peer without the next key, and finish",
            ));
    }
    let missing = &shown.peers_missing;
    if missing.is_empty() {
        return Ok(());
    }
    let failure = Failure::new(Exit::Refused, format!("{} connected without the next key", peers(missing.len())));
    Err(named(missing)
        .into_iter()
        .fold(failure, |failure, line| failure.why(line))
        .next("give them the key first (`muster rotate --begin --psk FILE` there); `--force` leaves them out for good"))
}

fn peers(count: usize) -> String {
    if count == 1 { "1 peer is".to_owned() } else { format!("{count} peers are") }
}

fn named(missing: &[Peer]) -> Vec<String> {
    let named = missing.iter().take(NAMED_MAX).map(|peer| format!("{}  {}", peer.peer_id, or_dash(&peer.name)));
    let others = missing.len().saturating_sub(NAMED_MAX);
    named.chain((others > 0).then(|| format!("and {others} more"))).collect()
}

fn refused(error: &RotationError) -> Failure {
    let failure = Failure::new(Exit::Refused, error.to_string());
    match error {
        RotationError::Begun { .. } => {
            failure.next("`muster rotate --finish` ends it, `--cancel` takes it back; then another can begin")
        }
        RotationError::NotBegun => failure.next("muster rotate --begin"),
        RotationError::Same { .. } => failure.next("copy swarm.key from a member that has begun"),
        RotationError::OtherNetwork { .. } => {
            failure.next("compare `muster rotate --status` on both: it is another network's, or of a later rotation")
        }
    }
}

fn text(state: &Shown) -> String {
    let mut text = format!("{}\n  in force  {}\n", shown(&state.file), state.current);
    if let Some(next) = &state.next {
        let _ = writeln!(text, "  next      {next}");
    }
    match state.restart_needed {
        None => text.push_str("  daemon    does not run, so nobody knows what its peers hold\n"),
        Some(true) => text.push_str("  daemon    runs with other keys: start it again\n"),
        Some(false) => text.push_str("  daemon    runs with these\n"),
    }
    if state.restart_needed.is_some() {
        let which = if state.next.is_some() { "the next key" } else { "the key in force" };
        let _ = writeln!(
            text,
            "  peers     {} of {} connected hold {which}",
            state.peers_ready,
            state.peers_ready + state.peers_missing.len()
        );
        for line in named(&state.peers_missing) {
            let _ = writeln!(text, "    without  {line}");
        }
    }
    text.push_str(match (&state.next, state.restart_needed) {
        (None, Some(true)) | (Some(_), Some(true) | None) => "next: start the daemon again",
        (None, _) => "no rotation is under way",
        (Some(_), Some(false)) if state.peers_missing.is_empty() => {
            "next: once every member has the next key, muster rotate --finish"
        }
        (Some(_), Some(false)) => "next: give the others the key, muster rotate --begin --psk FILE",
    });
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;
    use protocol::wire::Role;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn key(byte: u8) -> PreSharedKey {
        PreSharedKey::from_bytes([byte; 32])
    }

    fn both() -> Keyring {
        Keyring::from(key(1)).begin(key(2)).unwrap()
    }

    fn peer(name: &str, connected: bool, holds: &[u8]) -> PeerView {
        PeerView {
            peer_id: crate::admin::testing::peer(),
            name: name.to_owned(),
            did: String::new(),
            role: Role { node: true, indexer: false },
            agent: String::new(),
            connected,
            last_seen: None,
            network_keys: holds.iter().map(|byte| key(*byte).fingerprint()).collect(),
            addrs: Vec::new(),
        }
    }

    fn of(running: &Keyring, peers: Vec<PeerView>) -> Shown {
        let known = Known { running: running.fingerprints(), peers };
        show(Path::new("swarm.key"), &both(), Some(&known))
    }

    #[test]
    fn a_verb_takes_one_step_and_not_two_or_none() {
        for (line, is_good) in [
            (&["--begin"][..], true),
            (&["--begin", "--psk", "FILE"], true),
            (&["--finish", "--force"], true),
            (&["--status"], true),
            (&["--cancel"], true),
            (&[], false),
            (&["--begin", "--finish"], false),
            (&["--psk", "FILE"], false),
            (&["--status", "--psk", "FILE"], false),
            (&["--begin", "--force"], false),
        ] {
            assert_eq!(Line::try_parse_from([&["rotate"], line].concat()).is_ok(), is_good, "{line:?}");
        }
    }

    #[test]
    fn nobody_who_is_connected_is_cut_off_unasked() {
        let ready = of(&both(), vec![peer("paris", true, &[1, 2]), peer("away", false, &[])]);
        assert_eq!((ready.peers_ready, ready.peers_missing.len()), (1, 0));
        may_finish(&ready).unwrap();

        let lacking = of(&both(), vec![peer("paris", true, &[1, 2]), peer("ly\u{1b}on", true, &[1])]);
        let failure = may_finish(&lacking).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(failure.what, "1 peer is connected without the next key");
        assert!(failure.why[0].ends_with("ly\u{fffd}on"), "{failure:?}");

        // It has the next key in its file and does not speak it: whoever finished could not reach it.
        let stale = of(&key(1).into(), Vec::new());
        assert_eq!(may_finish(&stale).unwrap_err().exit, Exit::Refused);
        // Nobody can be asked while none runs; its operator was told so.
        may_finish(&show(Path::new("swarm.key"), &both(), None)).unwrap();
    }

    #[test]
    fn many_peers_are_counted_and_few_are_named() {
        let lacking = |count| of(&both(), (0..count).map(|_| peer("lyon", true, &[])).collect());
        assert_eq!(may_finish(&lacking(NAMED_MAX)).unwrap_err().why.len(), NAMED_MAX);
        let failure = may_finish(&lacking(NAMED_MAX + 1)).unwrap_err();
        assert_eq!(failure.what, "11 peers are connected without the next key");
        assert_eq!((failure.why.len(), failure.why.last().unwrap().as_str()), (NAMED_MAX + 1, "and 1 more"));
    }

    #[test]
    fn what_is_shown_says_what_to_do_next_and_tells_no_key() {
        let last = |shown: &Shown| text(shown).lines().last().unwrap().to_owned();
        let ready = of(&both(), vec![peer("paris", true, &[2])]);
        assert!(last(&ready).contains("--finish"), "{}", text(&ready));
        assert!(last(&of(&both(), vec![peer("paris", true, &[1])])).contains("--begin --psk"));
        assert!(last(&of(&key(1).into(), Vec::new())).contains("start the daemon again"));
        let plain = show(Path::new("swarm.key"), &key(1).into(), None);
        assert_eq!(last(&plain), "no rotation is under way");
        assert!(!text(&ready).contains("0101"), "{}", text(&ready));
    }
}
