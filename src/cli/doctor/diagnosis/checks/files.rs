//! The member's folder: its configuration, its secrets, who holds it.

use super::super::{Daemon, Facts, Files, Judged, Unknown, files};
use crate::cli::doctor::facts::{DaemonFacts, Lock};

/// In these words the swarm says that a handshake failed as it does between two keys.
const KEY_MISMATCH: &str = "pre-shared key mismatch";

/// Whoever but the owner may look into the folder.
const OTHERS: u32 = 0o077;

/// Whether the settings can be used.
pub(in super::super) fn configuration(facts: &Facts) -> Result<Judged, Unknown> {
    match &facts.files {
        Files::Elsewhere => Err(Unknown("a daemon was named by its address; --config names its file".to_owned())),
        Files::Unusable(failure) => Ok(Judged::ends_a_start(failure)),
        Files::Seen(files) => {
            let evidence = format!("{} can be used: {} settings are set", files.file.display(), files.set);
            Ok(match files.warnings.as_slice() {
                [] => Judged::ok(evidence),
                warnings => Judged::warning(
                    format!("{evidence}; {}", warnings.join("; ")),
                    "correct or remove these variables; `muster config check` looks again",
                ),
            })
        }
    }
}

/// Whether the folder of data is there, ours, and nobody else's.
pub(in super::super) fn data_folder(facts: &Facts) -> Result<Judged, Unknown> {
    let data = &files(facts)?.data;
    let path = data.path.display();
    let mode = match &data.found {
        Err(why) => {
            return Ok(Judged::failed(format!("{path}: {why}"), "correct files.data or the permissions above it"));
        }
        Ok(None) => return Ok(Judged::ok(format!("{path} is made by the first start"))),
        Ok(Some(mode)) => mode,
    };
    let told = format!("{path}: owner {}, mode {:04o}", mode.owner, mode.bits);
    Ok(if !mode.is_folder {
        Judged::failed(format!("{path} is no folder"), "name another path in files.data, or move away what is there")
    } else if mode.owner != data.us {
        Judged::failed(
            format!("{told}; this is user {}", data.us),
            format!("run as its owner, or give it to us: chown -R \"$(id -u)\" {path}"),
        )
    } else if mode.bits & OTHERS != 0 {
        Judged::warning(told, format!("chmod 700 {path}"))
    } else {
        Judged::ok(told)
    })
}

/// Whether the identity can be read, and is the one that runs.
pub(in super::super) fn identity(facts: &Facts) -> Result<Judged, Unknown> {
    let files = files(facts)?;
    let own = match &files.identity {
        Ok(own) => own,
        Err(failure) => return Ok(Judged::ends_a_start(failure)),
    };
    let key = files.settings.files.key.display();
    Ok(match running(facts).and_then(|daemon| daemon.status.as_ref().ok()) {
        Some(status) if status.peer_id.to_string() != *own => Judged::failed(
            format!("{key} is {own}, and what runs is {}", status.peer_id),
            "restart the member if the key was changed on purpose; otherwise restore the key",
        ),
        Some(_) => Judged::ok(format!("{key} is {own}, as the one that runs")),
        None => Judged::ok(format!("{key} is {own}")),
    })
}

/// Whether the network's key can be read, and is the network's.
pub(in super::super) fn network_key(facts: &Facts) -> Result<Judged, Unknown> {
    // The running member's words come first: a key may be whole and yet another network's.
    let mismatch = running(facts)
        .and_then(|daemon| daemon.status.as_ref().ok())
        .and_then(|status| status.reasons.iter().find(|reason| reason.contains(KEY_MISMATCH)));
    if let Some(reason) = mismatch {
        return Ok(Judged::failed(
            reason,
            "copy swarm.key from another member of the network, and restart; `muster doctor` there shows its fingerprint",
        ));
    }
    let files = files(facts)?;
    let path = files.settings.files.psk.display();
    Ok(match &files.network_key {
        None => Judged::ok("none: network.private is off, and anybody can connect"),
        Some(Ok(fingerprint)) => Judged::ok(format!("{path} has fingerprint {fingerprint}")),
        Some(Err(failure)) => Judged::ends_a_start(failure),
    })
}

/// Whether the admin token can be read by us alone.
pub(in super::super) fn admin_token(facts: &Facts) -> Result<Judged, Unknown> {
    let files = files(facts)?;
    let path = files.data.path.join("admin.token");
    let path = path.display();
    Ok(match (&files.token, running(facts)) {
        (Err(failure), _) => Judged::ends_a_start(failure),
        (Ok(true), _) => Judged::ok(format!("{path} can be read by its owner alone")),
        (Ok(false), None) => Judged::ok(format!("{path} is made by the first start")),
        (Ok(false), Some(_)) => Judged::failed(
            format!("there is none at {path}, and a daemon runs"),
            "restart the daemon: it writes a new one",
        ),
    })
}

/// Whether the process that holds the folder is the one that answers.
pub(in super::super) fn lock(facts: &Facts) -> Result<Judged, Unknown> {
    let files = files(facts)?;
    let path = files.data.path.join("lock");
    let path = path.display();
    let process = |pid: &Option<u32>| pid.map_or("a process".to_owned(), |pid| format!("process {pid}"));
    Ok(match (&files.lock, &facts.daemon) {
        (Lock::Unknown(why), _) => Judged::failed(why, "correct the permissions of the folder"),
        (Lock::Held(pid), Daemon::Answers(daemon)) => {
            Judged::ok(format!("{} holds {path} and answers at {}", process(pid), daemon.address))
        }
        (Lock::Held(pid), _) => Judged::failed(
            format!("{} holds {path} and does not answer as this member", process(pid)),
            "wait if it is just starting; otherwise look at that process, and end it before another start",
        ),
        (Lock::Free, Daemon::Answers(daemon)) => Judged::failed(
            format!("nobody holds {path}, and yet a daemon answers at {}", daemon.address),
            "that is another member, or its folder was changed under it: compare `muster status` with `muster id`",
        ),
        (Lock::Free, _) => Judged::ok(format!("{path} is free: no daemon runs here")),
    })
}

fn running(facts: &Facts) -> Option<&DaemonFacts> {
    match &facts.daemon {
        Daemon::Answers(daemon) => Some(daemon),
        _ => None,
    }
}
