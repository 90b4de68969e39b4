// Every known peer, connected ones first.

import { badge, code, filter, soft, Table } from "../draw.js";
import { ago, DASH, known, role, who } from "../say.js";
import { SLOWLY, watch } from "../source.js";
import { t } from "../words.js";

const WHEN = { every: SLOWLY, on: /^(member|indexer|peer|session)_/ };

export function show(main, signal) {
  let peers = [];
  const narrow = filter(main, () => tell());
  const table = new Table(main, {
    caption: "peers",
    key: ({ peer_id }) => peer_id,
    empty: "no_peers",
    columns: [
      { head: "name", name: true, cell: ({ peer_id, name }) => who(peer_id, name) },
      { head: "role", cell: (peer) => role(peer.role) },
      { head: "state", cell: ({ connected }) => connected ? badge("good", t("connected")) : badge("idle", t("not_connected")) },
      { head: "last_seen", cell: ({ last_seen }) => known(last_seen, ago) },
      { head: "program", cell: ({ agent }) => known(agent) },
      { head: "addresses", cell: addresses },
      { head: "peer_id", cell: ({ peer_id }) => code(peer_id) },
    ],
  });
  const tell = () => table.show(narrow.of(peers, ({ name, peer_id, did, agent }) => [name, peer_id, did, agent]));
  watch("/api/v1/peers", WHEN, signal, (now) => {
    peers = now;
    tell();
  }, ({ message }) => table.fail(message));
}

/** The best one, and how it fared. */
function addresses({ addrs: [best, ...others] }) {
  if (!best) return DASH;
  const fared = t("fared", best.succeeded, best.failed);
  return [code(best.addr), " ", soft(others.length === 0 ? fared : `${fared}, ${t("and_more", others.length)}`)];
}
