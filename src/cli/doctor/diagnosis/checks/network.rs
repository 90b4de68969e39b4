//! The others: seeds, addresses, the pool, clocks, the bus.

use actors::view::{BridgeState, BusMode, Standing};
use multiaddr::{Multiaddr, Protocol};
use protocol::{
    addr::{Scope, ip_of, scope_of},
    bus::JetStream,
    profile::Profile,
};

use super::{
    super::{Daemon, Facts, Judged, Unknown, daemon, files, told},
    status, trouble,
};
use crate::cli::{doctor::facts::Dialled, output::span};

/// A member joins within a few heartbeats; until then nobody is to blame.
pub(in super::super) const JOINING_MS_MAX: u64 = 60_000;

/// Half of what the rules of the network allow between two clocks.
pub(in super::super) const CLOCK_STEP_MS_MAX: u64 = 15_000;

/// Whether the seeds answer.
pub(in super::super) fn seeds(facts: &Facts) -> Result<Judged, Unknown> {
    let files = files(facts)?;
    let role = files.settings.node.mode.role();
    let pool = status(facts).ok().map_or(0, |status| status.pool_answering);
    let away = words_of_away(&files.seeds);
    let (all, silent) = (files.seeds.len(), away.len());
    let remedy = "correct network.seeds, or start the indexers there; is a firewall between?";
    Ok(match (all, silent) {
        (0, _) if role.node && pool > 0 => Judged::warning(
            format!("none is configured; {pool} indexers are remembered and answer"),
            "name one or two in network.seeds, so that the member finds back after a long absence",
        ),
        (0, _) if !role.indexer => Judged::failed(
            "none is configured",
            "name at least one indexer in network.seeds; `muster id` there shows it",
        ),
        (0, _) => Judged::ok("none is configured: a first indexer waits for others"),
        (_, 0) => Judged::ok(format!("{all} of {all} answer: {}", quickest(&files.seeds))),
        _ if silent < all || pool > 0 => {
            Judged::warning(format!("{silent} of {all} do not answer: {}", away.join("; ")), remedy)
        }
        _ => Judged::failed(format!("none of {all} answers: {}", away.join("; ")), remedy),
    })
}

fn words_of_away(dialled: &[Dialled]) -> Vec<String> {
    let word = |dialled: &Dialled| Some(format!("{}: {}", dialled.address, dialled.answered.as_ref().err()?));
    dialled.iter().filter_map(word).collect()
}

fn quickest(dialled: &[Dialled]) -> String {
    let fastest = dialled.iter().filter_map(|it| Some((*it.answered.as_ref().ok()?, &it.address))).min();
    fastest.map_or_else(String::new, |(took, address)| format!("{address} in {:.1} ms", took.as_secs_f64() * 1e3))
}

/// Whether what is told to others leads to us.
pub(in super::super) fn announced(facts: &Facts) -> Result<Judged, Unknown> {
    let network = &files(facts)?.settings.network;
    let is_public = network.profile == Profile::Public;
    if network.announce.is_empty() {
        let listen = &status(facts)?.listen;
        let is_seen = |address: &Multiaddr| {
            ip_of(address).is_none_or(|ip| scope_of(ip) == Scope::Public || is_believed(ip, network))
        };
        return Ok(match listen.iter().find(|address| is_seen(address)) {
            Some(address) => Judged::ok(format!("{address}, as it is listened on")),
            None if listen.is_empty() => return Err(Unknown("the daemon listens on no address".to_owned())),
            None if is_public => Judged::warning(
                format!("the profile is public, and none of {} addresses leads here from outside", listen.len()),
                "name the address at which others reach this machine in network.announce, or private_ranges that they \
                 believe; a site of its own has network.profile = \"local\"",
            ),
            None => Judged::ok(format!("{} addresses of this site, as they are listened on", listen.len())),
        });
    }
    let astray = network.announce.iter().find(|address| leads_astray(address, is_public, network));
    Ok(match astray {
        Some(address) => Judged::failed(
            format!("network.announce has {address}, which leads nobody here"),
            "name an address and a port at which others reach this machine",
        ),
        None => Judged::ok(network.announce.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    })
}

fn is_believed(ip: std::net::IpAddr, network: &crate::config::NetworkSettings) -> bool {
    network.private_ranges.iter().any(|range| range.contains(ip))
}

fn leads_astray(address: &Multiaddr, is_public: bool, network: &crate::config::NetworkSettings) -> bool {
    if address.iter().any(|part| part == Protocol::Tcp(0)) {
        return true;
    }
    ip_of(address).is_some_and(|ip| match scope_of(ip) {
        Scope::Public => false,
        Scope::Loopback | Scope::Private | Scope::LinkLocal => is_public && !is_believed(ip, network),
        Scope::Unspecified | Scope::Multicast | Scope::Reserved => true,
    })
}

/// Whether enough indexers answer.
pub(in super::super) fn pool(facts: &Facts) -> Result<Judged, Unknown> {
    let status = status(facts)?;
    let (answering, members, least) = (status.pool_answering, status.pool_members, status.pool_min);
    let evidence = format!("{answering} of {members} indexers answer, at least {least}");
    let cause = trouble(status, "cannot join").map(|cause| format!("; {cause}")).unwrap_or_default();
    let remedy = "see `seeds` here and `muster indexers`; is this machine connected?";
    Ok(match status.standing {
        Standing::Whole | Standing::Joined => Judged::ok(evidence),
        Standing::Leaving => Judged::warning(format!("{evidence}; the member is leaving"), "start it again"),
        Standing::Isolated => Judged::failed(format!("isolated: {evidence}{cause}"), remedy),
        Standing::Joining if status.role.indexer && members == 0 => {
            Judged::ok("no other indexer is known: a first one is never wrong for being alone")
        }
        Standing::Joining if cause.is_empty() && status.uptime_ms < JOINING_MS_MAX => {
            Judged::warning(format!("joining since {}: {evidence}", span(status.uptime_ms)), "look again in a minute")
        }
        Standing::Joining => {
            Judged::failed(format!("not joined in {}: {evidence}{cause}", span(status.uptime_ms)), remedy)
        }
    })
}

/// Whether the clock is the others', and nobody set it under the member.
pub(in super::super) fn clock(facts: &Facts) -> Result<Judged, Unknown> {
    let status = status(facts)?;
    if let Some(statement) = trouble(status, "clock") {
        return Ok(Judged::failed(statement, "let the system keep the time: timedatectl set-ntp true"));
    }
    let age = facts.now.as_millisecond().saturating_sub(status.born_at.as_millisecond());
    let step = age.abs_diff(i64::try_from(status.uptime_ms).unwrap_or(i64::MAX));
    if step > CLOCK_STEP_MS_MAX {
        return Ok(Judged::warning(
            format!("this clock and the daemon's age differ by {}", span(step)),
            "the clock was set, the machine slept, or the daemon is on a machine with another time",
        ));
    }
    match status.pool_answering {
        0 => Err(Unknown("no other member answers to compare clocks with".to_owned())),
        answering => Ok(Judged::ok(format!("none of {answering} members that answer is more than 30 s off"))),
    }
}

/// Whether the bus is there and keeps what it is told.
pub(in super::super) fn bus(facts: &Facts) -> Result<Judged, Unknown> {
    if !matches!(facts.daemon, Daemon::Answers(_)) {
        return bus_from_outside(facts);
    }
    let Some(bus) = told(&daemon(facts)?.bus)? else { return Ok(Judged::ok("none is configured")) };
    let said = status(facts).ok().and_then(|status| trouble(status, "bus").or_else(|| trouble(status, "bus_server")));
    let cause = [bus.cause.as_str(), said.unwrap_or_default()].into_iter().find(|text| !text.is_empty());
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    let server = &bus.server;
    Ok(match (bus.state, bus.mode) {
        (BridgeState::Away, _) => Judged::failed(
            format!("{} is away{cause}", bus.url),
            "start the server, or correct bus.url and the credentials; what is to be announced waits",
        ),
        (BridgeState::Entering, _) => {
            Judged::warning(format!("{} is being entered{cause}", bus.url), "look again in a minute")
        }
        (BridgeState::Ready, Some(BusMode::Core)) if wants_streams(facts) => Judged::warning(
            format!("{} ({server}) has no JetStream: messages may be lost", bus.url),
            "switch JetStream on at the server, or say bus.jetstream = \"off\" if that is meant",
        ),
        (BridgeState::Ready, Some(BusMode::Core)) => {
            Judged::ok(format!("{} ({server}), core as bus.jetstream has it", bus.url))
        }
        (BridgeState::Ready, _) => Judged::ok(format!("{} ({server}), with JetStream", bus.url)),
    })
}

fn wants_streams(facts: &Facts) -> bool {
    files(facts).map_or(true, |files| files.settings.bus.jetstream != JetStream::Off)
}

fn bus_from_outside(facts: &Facts) -> Result<Judged, Unknown> {
    let servers = &files(facts)?.bus;
    let away = words_of_away(servers);
    Ok(match (servers.len(), away.len()) {
        (0, _) => Judged::ok("none is configured"),
        (all, silent) if silent < all => {
            Judged::ok(format!("{} of {all} servers answer: {}", all - silent, quickest(servers)))
        }
        (all, _) => Judged::failed(
            format!("none of {all} servers answers: {}", away.join("; ")),
            "start the server, or correct bus.url",
        ),
    })
}
