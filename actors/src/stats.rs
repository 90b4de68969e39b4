//! Counters and gauges of one daemon: lock-free cells, registered once, read by `/metrics`.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

macro_rules! cells {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ident,)+) => {
        /// The cells; each is cheap to clone and to count with.
        #[derive(Clone, Debug, Default)]
        pub struct Stats {
            $($(#[doc = $help])+ pub $name: $kind,)+
        }

        impl Stats {
            /// Puts every cell into the registry under its own name.
            pub fn register(&self, registry: &mut Registry) {
                $(registry.register(stringify!($name), concat!($($help),+).trim().trim_end_matches('.'), self.$name.clone());)+
            }
        }
    };
}

/// A time, in the unit that Prometheus has for it.
type Seconds = Gauge<f64, AtomicU64>;

cells! {
    /// Open connections.
    connections: Gauge,
    /// Connections opened since the start.
    connections_opened: Counter,
    /// Inbound handshakes that failed below hello.
    handshakes_failed: Counter,
    /// Connections that the doors denied: a cap or a bucket was full.
    connections_denied: Counter,
    /// Streams that peers opened and that were refused or reset.
    streams_refused: Gauge,
    /// Hellos that were refused by either side, malformed or late.
    greetings_failed: Counter,
    /// Values that we put into the DHT.
    dht_puts: Counter,
    /// Values that we put and then found at two servers, or at all there are.
    dht_puts_read_back: Counter,
    /// Values that we put and did not find at enough servers: put again.
    dht_puts_lost: Counter,
    /// Look-ups that we made in the DHT.
    dht_gets: Counter,
    /// Values of others stored here.
    dht_stored: Counter,
    /// Values and providers of others refused: invalid, over quota, from strangers.
    dht_refused: Counter,
    /// Revocations held.
    revocations: Gauge,
    /// Revocations that were new.
    revocations_new: Counter,
    /// Revocations that were handed in and held already: not passed on.
    revocations_known: Counter,
    /// Revocations whose signature is not that of the key that they revoke.
    revocations_forged: Counter,
    /// Revocations that were malformed, of the future, too many or without room.
    revocations_refused: Counter,
    /// Times that a peer was refused because its key was revoked.
    revoked_refused: Counter,
    /// Gossip messages taken.
    gossip_accepted: Counter,
    /// Gossip messages refused.
    gossip_refused: Counter,
    /// Changes of the catalogue that were written down.
    changes_done: Counter,
    /// Changes that came again, or were older than what is held.
    changes_repeated: Counter,
    /// Changes that broke a rule, had no room, or came while the database was away.
    changes_refused: Counter,
    /// Events of other members that were taken.
    events_taken: Counter,
    /// Events of other members that were refused.
    events_refused: Counter,
    /// Events of ours that partners have.
    events_delivered: Counter,
    /// Events of ours that partners refused for good.
    events_refused_by_peers: Counter,
    /// Alerts that are raised now.
    alerts: Gauge,
    /// Alerts that the webhook's receiver has.
    webhook_told: Counter,
    /// Alerts that the webhook's receiver never had: refused, an hour old, or too many.
    webhook_lost: Counter,
    /// How far our clock is from the one on which our indexers agree, as it was last known.
    clock_off_seconds: Seconds,
    /// Most peers asked lately are silent: it is our own link, and nobody is judged.
    self_suspect: Gauge,
    /// Heartbeats answered.
    beats_served: Counter,
    /// Heartbeats refused.
    beats_refused: Counter,
    /// Heartbeats that we sent and that were answered.
    beats_answered: Counter,
    /// Heartbeats that we sent and that were not answered in time.
    beats_missed: Counter,
    /// Answers that came after their question was given up.
    beats_late: Counter,
    /// Presence tokens of our nodes kept.
    tokens_kept: Counter,
    /// Audits of ours by other indexers answered.
    audits_answered: Counter,
    /// Audits of other indexers that we made.
    audits_made: Counter,
    /// Peers that were asked whether they are connected to an indexer that names them.
    spot_checks_made: Counter,
    /// Bandwidth probes of ours that were sent back.
    bandwidth_probes_made: Counter,
    /// Bandwidth probes of others sent back.
    bandwidth_probes_served: Counter,
    /// Bandwidth probes of others refused: too much, too little, too slow, too often, without a session.
    bandwidth_probes_refused: Counter,
    /// Look-ups served.
    gets_served: Counter,
    /// Records published over their own stream and accepted.
    publishes_accepted: Counter,
    /// Records refused: malformed, forged, expired, replayed.
    records_refused: Counter,
    /// Searches for peers that our users began.
    searches_begun: Counter,
    /// Searches for resources that our users began.
    resource_searches_begun: Counter,
    /// Searches served for nodes.
    searches_served: Counter,
    /// Searches refused: busy or over a limit.
    searches_refused: Counter,
    /// Queries of other indexers answered.
    queries_answered: Counter,
    /// Search results dropped: unknown query, stranger, invalid record.
    results_dropped: Counter,
    /// Searches for resources that our users have open.
    resource_searches: Gauge,
    /// Questions about resources by other members answered.
    resource_questions_answered: Counter,
    /// Questions about resources by other members refused: blacklisted, over a limit, busy.
    resource_questions_refused: Counter,
    /// Resources, or answers with them, dropped: unknown search, not their creator's, invalid, of another kind.
    resources_dropped: Counter,
    /// Inputs that were malformed or over their limit.
    bad_inputs: Counter,
    /// Beacons left unanswered because their authors were not where they said.
    beacons_shunned: Counter,
    /// The bus is connected.
    bus_connected: Gauge,
    /// Orders of the bus carried out.
    bus_orders_taken: Counter,
    /// Orders of the bus that had been carried out before.
    bus_orders_repeated: Counter,
    /// Orders of the bus put off: they come again.
    bus_orders_put_off: Counter,
    /// Messages of the bus refused: malformed, forged, or against a rule.
    bus_orders_refused: Counter,
    /// Messages of the bus with an origin whose signature is not that origin's.
    bus_forged: Counter,
    /// Messages of the bus that a member signed, and that are meant for applications.
    bus_own_ignored: Counter,
    /// Messages of a bus without JetStream that were lost: they came too fast, or could not be carried out in time.
    bus_lost: Counter,
    /// Announcements that the bus has.
    bus_announced: Counter,
    /// Announcements that never can be told: too large, or against a rule.
    bus_announcements_dropped: Counter,
    /// Requests to our services on the bus answered.
    bus_requests_served: Counter,
    /// Trace contexts of others that could not be read; what they came with was served all the same.
    trace_contexts_unreadable: Counter,
    /// Spans given to whoever exports them.
    trace_spans: Counter,
    /// Spans dropped because too many waited for the collector.
    trace_spans_dropped: Counter,
    /// Actors that are started.
    actors: Gauge,
    /// Actors that have been in one handler for longer than is sane.
    actors_stuck: Gauge,
    /// Restarts of actors since the start.
    actor_restarts: Gauge,
    /// Sessions of nodes.
    sessions: Gauge,
    /// Members of the pool.
    pool_members: Gauge,
    /// Messages that found a full mailbox or nobody home.
    messages_shed: Counter,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use prometheus_client::encoding::text::encode;

    use super::*;

    /// A member is one of hundreds that a Prometheus asks: what it serves must not grow with its peers.
    const SERIES_MAX: usize = 128;

    /// What the kind of a metric, or its encoding, says already; and units that are none of the base units.
    const WORDS_REFUSED: [&str; 16] = [
        "bucket",
        "count",
        "counter",
        "created",
        "gauge",
        "histogram",
        "info",
        "kb",
        "mb",
        "milliseconds",
        "ms",
        "pct",
        "percent",
        "sum",
        "total",
        "us",
    ];

    fn text(stats: &Stats) -> String {
        let mut registry = Registry::with_prefix("muster");
        stats.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    /// Names of series with their labels.
    fn series(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect()
    }

    #[test]
    fn every_metric_has_a_name_of_its_own_as_prometheus_wants_it_and_a_word_of_help() {
        let text = text(&Stats::default());
        let told = |what: &str| -> Vec<(&str, &str)> {
            text.lines().filter_map(|line| line.strip_prefix(what)?.split_once(' ')).collect()
        };
        let (kinds, help) = (told("# TYPE "), told("# HELP "));
        let names: BTreeSet<&str> = kinds.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), kinds.len(), "each is told once");
        assert_eq!(help.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>(), names);
        for (name, words) in help {
            assert!(words.len() > 5 && words.ends_with('.'), "{name}: {words:?}");
        }
        let served = series(&text);
        for (name, kind) in kinds {
            let words: Vec<&str> =
                name.strip_prefix("muster_").unwrap_or_else(|| panic!("{name}")).split('_').collect();
            for word in words {
                assert!(
                    !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()),
                    "{name}"
                );
                assert!(!WORDS_REFUSED.contains(&word), "{name} says {word}");
            }
            let as_served = match kind {
                "counter" => format!("{name}_total"),
                "gauge" => name.to_owned(),
                other => panic!("{name} is a {other}"),
            };
            assert!(served.contains(&as_served.as_str()), "{as_served} is not served");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn series_are_bounded_and_there_from_the_first_moment_on() {
        let stats = Stats::default();
        let first = text(&stats);
        assert!(series(&first).len() <= SERIES_MAX, "{}", series(&first).len());
        stats.beats_served.inc();
        stats.sessions.set(100_000);
        let later = text(&stats);
        assert_eq!(series(&first), series(&later));
        assert_ne!(first, later);
    }
}
