// The nodes that beat at this indexer.

import { badge, code, filter, Table } from "../draw.js";
import { ago, known, millis, number, speed, who } from "../say.js";
import { SLOWLY, watch } from "../source.js";
import { t } from "../words.js";

const WHEN = { every: SLOWLY, on: /^session_/ };

export function show(main, signal) {
  let sessions = [];
  const narrow = filter(main, () => tell());
  const table = new Table(main, {
    caption: "sessions",
    key: ({ peer_id }) => peer_id,
    empty: "no_sessions",
    columns: [
      { head: "name", name: true, cell: ({ peer_id, name }) => who(peer_id, name) },
      { head: "role", cell: ({ indexer }) => t(indexer ? "role_indexer" : "role_node") },
      { head: "represented", cell: ({ referent }) => referent ? badge("good", t("yes")) : badge("idle", t("no")) },
      { head: "since", cell: ({ since }) => ago(since) },
      { head: "last_beat", cell: ({ last_seen }) => ago(last_seen) },
      { head: "beats", number: true, cell: ({ beats }) => number(beats) },
      { head: "record_number", number: true, cell: ({ record_seq }) => known(record_seq || null) },
      { head: "speed", number: true, cell: ({ bytes_per_sec }) => known(bytes_per_sec, speed) },
      { head: "round_trip", number: true, cell: ({ rtt_ms }) => known(rtt_ms, millis) },
      { head: "peer_id", cell: ({ peer_id }) => code(peer_id) },
    ],
  });
  const tell = () => table.show(narrow.of(sessions, ({ name, peer_id, did }) => [name, peer_id, did]));
  watch("/api/v1/sessions", WHEN, signal, (now) => {
    sessions = now;
    tell();
  }, ({ message }) => table.fail(message));
}
