// What peers are to us, and whom an indexer refuses.

import { badge, code, english, section, Table } from "../draw.js";
import { ago, known, moment, number, who } from "../say.js";
import { SLOWLY, watch } from "../source.js";
import { named } from "../words.js";

const RELATIONS_WHEN = { every: SLOWLY, on: /^relation_/ };
const BANS_WHEN = { every: SLOWLY, on: /banned$/ };

const RELATIONS = { partner: "good", known: "idle", blacklist: "bad" };

export function show(main, signal) {
  const partners = new Table(main, {
    caption: "partners",
    key: ({ peer_id }) => peer_id,
    empty: "no_partners",
    columns: [
      { head: "name", name: true, cell: ({ peer_id, name }) => who(peer_id, name) },
      { head: "relation", cell: ({ relation }) => badge(RELATIONS[relation] ?? "idle", named("relation", relation)) },
      { head: "since", cell: ({ changed_at }) => ago(changed_at) },
      { head: "peer_id", cell: ({ peer_id }) => code(peer_id) },
    ],
  });
  watch("/api/v1/partners", RELATIONS_WHEN, signal, (now) => partners.show(now), ({ message }) => partners.fail(message));
  const bans = new Table(section(main, "bans"), {
    caption: "bans",
    key: ({ peer_id, from }) => `${peer_id} ${from}`,
    empty: "no_bans",
    columns: [
      { head: "name", name: true, cell: ({ peer_id }) => who(peer_id) },
      { head: "banned_from", cell: ({ from }) => named("ban", from) },
      { head: "since", cell: ({ since }) => ago(since) },
      { head: "until", cell: ({ until }) => known(until, moment) },
      { head: "by", cell: ({ by }) => named("by", by) },
      { head: "reason", cell: ({ reason }) => english(known(reason)) },
      { head: "offences", number: true, cell: ({ offences }) => number(offences) },
      { head: "peer_id", cell: ({ peer_id }) => code(peer_id) },
    ],
  });
  watch("/api/v1/bans", BANS_WHEN, signal, (now) => bans.show(now), ({ message }) => bans.fail(message));
}
