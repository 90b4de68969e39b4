//! The machine: ports, disk, memory, open files, and who may knock.

use protocol::{alerts::Topic, wire::Role};

use super::{
    super::{Daemon, Facts, Judged, Unknown, files},
    bytes, percent, status,
};
use crate::{
    cli::doctor::facts::{Lock, Port, PortState},
    ports::Use,
};

/// With less than this the database cannot take a batch and fold its log into the file.
pub(in super::super) const DISK_FREE_MIN: u64 = 64_000_000;

/// Open files of a member without sessions, with room: its own files, its pool, the DHT's dials, the admin endpoint.
pub(in super::super) const DESCRIPTORS_BASE: u64 = 256;

/// A share of the limit at which little is left for a bad day.
const DESCRIPTORS_SHARE_MAX: f64 = 0.8;

/// Whether the admin port can be had, or is ours.
pub(in super::super) fn admin_port(facts: &Facts) -> Result<Judged, Unknown> {
    let files = files(facts)?;
    match &facts.daemon {
        Daemon::Answers(daemon) => Ok(Judged::ok(format!("{} is ours: the daemon answers there", daemon.address))),
        _ if !matches!(files.lock, Lock::Free) => {
            Err(Unknown("a process holds the folder, and the port may be its own".to_owned()))
        }
        _ => Ok(port(files.ports.iter().filter(|port| port.purpose == Use::Admin), "admin.listen")),
    }
}

/// Whether the ports for other members can be had, or are ours.
pub(in super::super) fn network_port(facts: &Facts) -> Result<Judged, Unknown> {
    if let Daemon::Answers(_) = &facts.daemon {
        let listen = &status(facts)?.listen;
        let all: Vec<String> = listen.iter().map(ToString::to_string).collect();
        return Ok(match all.as_slice() {
            [] => Judged::failed(
                "the daemon listens on no address",
                "check network.listen and network.port; the log says what the system refused",
            ),
            all => Judged::ok(format!("ours: {}", all.join(", "))),
        });
    }
    let files = files(facts)?;
    if !matches!(files.lock, Lock::Free) {
        return Err(Unknown("a process holds the folder, and the ports may be its own".to_owned()));
    }
    Ok(port(files.ports.iter().filter(|port| port.purpose == Use::Network), "network.port or network.listen"))
}

fn port<'a>(ports: impl Iterator<Item = &'a Port>, setting: &str) -> Judged {
    let (mut free, mut refused) = (Vec::new(), Vec::new());
    for Port { address, state, .. } in ports {
        match state {
            PortState::Taken => {
                return Judged::failed(
                    format!("{address} is in use by another process"),
                    format!("stop what uses it, or set {setting} to another port (0 takes any free one)"),
                );
            }
            PortState::Free => free.push(address.to_string()),
            PortState::Refused(why) => refused.push(format!("{address}: {why}")),
        }
    }
    match (free.as_slice(), refused.as_slice()) {
        ([], []) => Judged::ok("any free port is taken at the start"),
        // A machine without IPv6 is well with the rest of its interfaces.
        ([_, ..], _) => Judged::ok(format!("free: {}", free.join(", "))),
        ([], _) => Judged::failed(
            format!("cannot listen: {}", refused.join(", ")),
            format!("set {setting} to an address of this machine and a port we may use"),
        ),
    }
}

/// Whether there is room for the data.
pub(in super::super) fn disk(facts: &Facts) -> Result<Judged, Unknown> {
    let files = files(facts)?;
    let disk = files.disk.as_ref().map_err(|why| Unknown(format!("the file system does not tell: {why}")))?;
    if disk.total == 0 {
        return Err(Unknown("the file system tells no size".to_owned()));
    }
    // Bytes of one machine, far below 2^53.
    #[expect(clippy::cast_precision_loss)]
    let share = 1.0 - disk.free.min(disk.total) as f64 / disk.total as f64;
    let bound = files.settings.alerts.bound(Topic::Disk);
    let (path, free) = (files.data.path.display(), bytes(disk.free));
    let evidence = format!("{path}: {} in use, at most {}; {free} are free", percent(share), percent(bound.figure()));
    Ok(if disk.free < DISK_FREE_MIN {
        Judged::failed(evidence, format!("make room: the database needs {}", bytes(DISK_FREE_MIN)))
    } else if bound.judge(share).is_some() {
        Judged::warning(evidence, Topic::Disk.remedy())
    } else {
        Judged::ok(evidence)
    })
}

/// Whether there is memory left.
pub(in super::super) fn memory(facts: &Facts) -> Result<Judged, Unknown> {
    let files = files(facts)?;
    let share = files.memory.share.ok_or_else(|| Unknown("the system does not tell".to_owned()))?;
    let bound = files.settings.alerts.bound(Topic::Memory);
    let own = files.memory.own.map(|own| format!("; the daemon has {}", bytes(own))).unwrap_or_default();
    let evidence = format!("{} in use, at most {}{own}", percent(share), percent(bound.figure()));
    Ok(match bound.judge(share) {
        None => Judged::ok(evidence),
        Some(_) => Judged::warning(evidence, Topic::Memory.remedy()),
    })
}

/// Whether as many files may be open as connections are wanted.
pub(in super::super) fn descriptors(facts: &Facts) -> Result<Judged, Unknown> {
    let files = files(facts)?;
    let found = files.descriptors.as_ref().map_err(|why| Unknown(format!("the system does not tell: {why}")))?;
    let Role { indexer, .. } = files.settings.node.mode.role();
    let sessions = if indexer { u64::from(files.settings.gate.max_nodes) } else { 0 };
    let wanted = DESCRIPTORS_BASE + sessions;
    let open = found.open.map(|open| format!("{open} open, ")).unwrap_or_default();
    let evidence = format!("{open}{} allowed, {wanted} wanted", found.limit);
    // Counts of one process, far below 2^53.
    #[expect(clippy::cast_precision_loss)]
    let is_short = found.open.is_some_and(|open| open as f64 > found.limit as f64 * DESCRIPTORS_SHARE_MAX);
    let remedy = "raise the limit: LimitNOFILE= in the systemd unit, or `ulimit -n` in the shell that starts it";
    Ok(if is_short {
        Judged::failed(evidence, remedy)
    } else if found.limit < wanted {
        Judged::warning(evidence, remedy)
    } else {
        Judged::ok(evidence)
    })
}

/// Whether somebody without a token can ask from afar.
pub(in super::super) fn admin_open(facts: &Facts) -> Result<Judged, Unknown> {
    let files = files(facts)?;
    let address = files.settings.admin.listen;
    if address.ip().is_loopback() {
        return Ok(Judged::ok(format!("{address} is heard on this machine alone")));
    }
    let is_open = files.is_open.as_ref().map_err(|why| Unknown(format!("{address} was not asked: {why}")))?;
    Ok(match is_open {
        true => Judged::failed(
            format!("{address} answers whoever reaches it, without a token"),
            "set admin.listen to 127.0.0.1 at once, and report it as a defect",
        ),
        false => Judged::warning(
            format!("{address} asks for the token, which crosses the network in the clear"),
            "set admin.listen to 127.0.0.1 and reach it through a tunnel: ssh -L 7300:127.0.0.1:7300 HOST",
        ),
    })
}
