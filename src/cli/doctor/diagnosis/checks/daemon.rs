//! What the running member says of itself: its actors, its database, what waits, what it was alerted of.

use std::time::Duration;

use actors::view::{ActorState, ActorView, SampleView};
use protocol::alerts::{Severity, Topic};
use store::Examined;

use super::{
    super::{Daemon, Facts, Judged, Unknown, daemon, files, told},
    TOPICS, status,
};
use crate::cli::{
    doctor::facts::Database,
    output::{clean, span},
};

/// A restart is news for so long.
pub(in super::super) const RESTART_NEWS_MS: u64 = 10 * 60_000;

/// Messages that wait for one actor: more than any burst leaves behind for longer than a moment.
pub(in super::super) const IN_FLIGHT_MAX: u64 = 1_000;

/// Samples that make a trend: five minutes of one each 30 s.
pub(in super::super) const TREND_SAMPLES: usize = 10;

/// Rows by which an outbox grows within a trend before it is one.
pub(in super::super) const TREND_ROWS: f64 = 100.0;

/// Actors named in a finding; the rest is counted.
const NAMED_MAX: usize = 3;

/// Whether the database can be used.
pub(in super::super) fn database(facts: &Facts) -> Result<Judged, Unknown> {
    if let Daemon::Answers(_) = facts.daemon {
        return Ok(match status(facts)?.store_ok {
            true => Judged::ok("it answers the daemon"),
            false => Judged::failed("it does not answer the daemon", Topic::Database.remedy()),
        });
    }
    match &files(facts)?.database {
        Database::InUse => Err(Unknown("a process holds it, and does not answer".to_owned())),
        Database::File { found: Err(failure), .. } => Ok(Judged::ends_a_start(failure)),
        Database::File { path, found: Ok((found, took)) } => Ok(examined(&path.display().to_string(), found, *took)),
        Database::Server(dialled) => {
            let first =
                dialled.first().ok_or_else(|| Unknown("store.url names no host that can be dialled".to_owned()))?;
            Ok(match &first.answered {
                Ok(took) => Judged::ok(format!(
                    "{} answers in {:.1} ms; whether it lets us in is seen at the start",
                    first.address,
                    took.as_secs_f64() * 1e3
                )),
                Err(why) => {
                    Judged::failed(format!("{}: {why}", first.address), "start the server, or correct store.url")
                }
            })
        }
    }
}

fn examined(path: &str, found: &Examined, took: Duration) -> Judged {
    match found {
        Examined::Nothing => Judged::ok(format!("{path} is made by the first start")),
        Examined::Sound => Judged::ok(format!("{path} passed the quick check in {} ms", took.as_millis())),
        Examined::Damaged(damage) => Judged::failed(
            format!("{path} is damaged: {}", clean(damage)),
            "restore it from a backup; as it is, the next start sets it aside and begins a new one from the network, \
             without what only it knew: bans, partners, resources, what waits",
        ),
    }
}

/// Whether the database answers fast enough.
pub(in super::super) fn database_speed(facts: &Facts) -> Result<Judged, Unknown> {
    let millis = *last(facts)?
        .figures
        .get(Topic::DatabaseSlow.name())
        .ok_or_else(|| Unknown("the last look into it was not answered".to_owned()))?;
    // A file of our own folder tells its bound; without it the usual one is meant.
    let settings = files(facts).map_or_else(|_| Default::default(), |files| files.settings.alerts.clone());
    let bound = settings.bound(Topic::DatabaseSlow);
    let evidence = format!("the last look took {millis:.1} ms, at most {:.0} ms", bound.figure());
    Ok(match bound.judge(millis) {
        None => Judged::ok(evidence),
        Some(_) => Judged::warning(evidence, Topic::DatabaseSlow.remedy()),
    })
}

fn samples(facts: &Facts) -> Result<&[SampleView], Unknown> {
    Ok(told(&daemon(facts)?.samples)?)
}

fn last(facts: &Facts) -> Result<&SampleView, Unknown> {
    samples(facts)?.last().ok_or_else(|| Unknown("nothing was measured yet: alerts.every says how often".to_owned()))
}

/// Whether what waits for partners and the bus becomes more and more.
pub(in super::super) fn outbox(facts: &Facts) -> Result<Judged, Unknown> {
    last(facts)?;
    let name = Topic::Outbox.name();
    let figures: Vec<f64> = samples(facts)?.iter().filter_map(|sample| sample.figures.get(name).copied()).collect();
    let waiting = *figures.last().ok_or_else(|| Unknown("the database did not tell".to_owned()))?;
    let settings = files(facts).map_or_else(|_| Default::default(), |files| files.settings.alerts.clone());
    let bound = settings.bound(Topic::Outbox);
    let evidence = format!("{waiting:.0} messages wait, at most {:.0}", bound.figure());
    Ok(if bound.judge(waiting).is_some() {
        Judged::failed(evidence, Topic::Outbox.remedy())
    } else if is_growing(&figures) {
        Judged::warning(format!("{evidence}; more with each of the last {TREND_SAMPLES} looks"), Topic::Outbox.remedy())
    } else {
        Judged::ok(evidence)
    })
}

fn is_growing(figures: &[f64]) -> bool {
    let Some(trend) = figures.len().checked_sub(TREND_SAMPLES).and_then(|from| figures.get(from..)) else {
        return false;
    };
    let rose = trend.first().zip(trend.last()).map_or(0.0, |(first, last)| last - first);
    trend.is_sorted() && rose >= TREND_ROWS
}

/// Whether the member says that it can do its job.
pub(in super::super) fn readiness(facts: &Facts) -> Result<Judged, Unknown> {
    let status = status(facts)?;
    // Each topic has a check of its own, which says more than once would.
    let has_check = |reason: &&String| TOPICS.iter().any(|topic| reason.starts_with(&format!("{topic}: ")));
    let reasons: Vec<&str> = status.reasons.iter().filter(|reason| !has_check(reason)).map(String::as_str).collect();
    Ok(match (status.ready, reasons.as_slice()) {
        (true, []) => Judged::ok(format!("ready, up {}", span(status.uptime_ms))),
        (true, reasons) => Judged::warning(format!("ready, but {}", clean(&reasons.join("; "))), "see `muster status`"),
        (false, []) => Judged::failed("not ready", "see `muster status`"),
        (false, reasons) => Judged::failed(format!("not ready: {}", clean(&reasons.join("; "))), "see `muster status`"),
    })
}

/// Whether an actor is stuck, fell lately, or drowns.
pub(in super::super) fn actors(facts: &Facts) -> Result<Judged, Unknown> {
    let actors = &daemon(facts)?.actors;
    let of = |is: &dyn Fn(&&ActorView) -> bool, say: &dyn Fn(&ActorView) -> String| -> Option<String> {
        let found: Vec<&ActorView> = actors.iter().filter(is).collect();
        let mut words: Vec<String> = found.iter().take(NAMED_MAX).map(|actor| say(actor)).collect();
        if found.len() > NAMED_MAX {
            words.push(format!("{} more", found.len() - NAMED_MAX));
        }
        (!found.is_empty()).then(|| words.join("; "))
    };
    // A heartbeat falls with its indexer: that is the pool's to tell.
    let is_own = |actor: &ActorView| actor.kind != "heartbeat";
    let error =
        |actor: &ActorView| actor.last_error.as_deref().map(|error| format!(" ({})", clean(error))).unwrap_or_default();
    let stuck = of(&|actor| actor.state == ActorState::Stuck, &|actor| {
        format!("{} is stuck for {}, {} messages wait", actor.name, span(actor.busy_ms), actor.in_flight)
    });
    if let Some(evidence) = stuck {
        return Ok(Judged::failed(evidence, "the log says in what; if it does not come back, restart the member"));
    }
    let down =
        of(&|actor| is_own(actor) && matches!(actor.state, ActorState::Waiting | ActorState::Stopped), &|actor| {
            format!("{} is down{}", actor.name, error(actor))
        });
    let fell = of(
        &|actor| is_own(actor) && actor.restarts > 0 && actor.incarnation > 1 && actor.uptime_ms < RESTART_NEWS_MS,
        &|actor| {
            format!("{} fell {} ago, restart {}{}", actor.name, span(actor.uptime_ms), actor.restarts, error(actor))
        },
    );
    let deep = of(&|actor| actor.in_flight > IN_FLIGHT_MAX, &|actor| {
        format!("{} messages wait for {}", actor.in_flight, actor.name)
    });
    let all: Vec<String> = [down, fell, deep].into_iter().flatten().collect();
    Ok(if all.is_empty() {
        Judged::ok(format!("{} run, none is stuck, none fell in the last {}", actors.len(), span(RESTART_NEWS_MS)))
    } else {
        Judged::warning(all.join("; "), "see `muster tree` and the log; whoever falls again and again ends the member")
    })
}

/// Whether the member raised an alert.
pub(in super::super) fn alerts(facts: &Facts) -> Result<Judged, Unknown> {
    let alerts = told(&daemon(facts)?.alerts)?;
    let said: Vec<String> =
        alerts.iter().map(|alert| format!("{} is {:.2}, allowed {}", alert.topic, alert.figure, alert.bound)).collect();
    let evidence = said.join("; ");
    Ok(match alerts.iter().max_by_key(|alert| alert.severity) {
        None => Judged::ok("none is raised"),
        Some(worst) if worst.severity == Severity::Critical => Judged::failed(evidence, worst.remedy.clone()),
        Some(worst) => Judged::warning(evidence, worst.remedy.clone()),
    })
}

/// Whether this command and the daemon are of one version.
pub(in super::super) fn versions(facts: &Facts) -> Result<Judged, Unknown> {
    let (own, theirs) = (&facts.version, &status(facts)?.version);
    Ok(if own == theirs {
        Judged::ok(format!("both are {own}"))
    } else {
        Judged::warning(
            format!("the command is {own}, the daemon {theirs}"),
            "restart the daemon if it was upgraded, or call the command beside it",
        )
    })
}
