// What waits for partners and the bus, and what became of what waited; newest first.

import { badge, code, english, make, Table } from "../draw.js";
import { ago, known, number, span, who } from "../say.js";
import { SLOWLY, watch } from "../source.js";
import { named, t } from "../words.js";

// What is sent is no event: there may be hundreds a second.
const WHEN = { every: SLOWLY, on: /^(bus|planner)_/ };
// A few screens; the command line has them all.
const PAGE = 100;

const FATES = { waiting: "warn", delivered: "good", refused: "bad", expired: "bad", dropped: "bad" };

export function show(main, signal, fate) {
  const links = ["", ...Object.keys(FATES)].map((name) =>
    make("a", { href: `#/outbox/${name}`, "aria-current": name === fate && "true" }, name ? named("fate", name) : t("all")));
  main.append(make("p", { class: "pages" }, ...links.flatMap((link) => [link, " "])));
  const table = new Table(main, {
    caption: "outbox",
    key: ({ id }) => id,
    empty: "no_outbox",
    columns: [
      { head: "number", number: true, name: true, cell: ({ id }) => String(id) },
      { head: "to", cell: ({ to }) => (to === "bus" ? t("bus") : who(to)) },
      { head: "verb", cell: ({ verb }) => code(verb) },
      { head: "kind", cell: ({ datatype }) => known(datatype, (kind) => named("kind", kind)) },
      { head: "user", cell: ({ user }) => known(user) },
      { head: "fate", cell: (row) => badge(FATES[row.fate] ?? "idle", named("fate", row.fate)) },
      { head: "attempts", number: true, cell: ({ attempts }) => number(attempts) },
      { head: "when", cell: when },
      { head: "reason", cell: ({ detail }) => english(known(detail)) },
    ],
  });
  const question = new URLSearchParams({ limit: PAGE });
  if (Object.hasOwn(FATES, fate)) question.set("fate", fate);
  watch(`/api/v1/outbox?${question}`, WHEN, signal, (rows) => table.show(rows), ({ message }) => table.fail(message));
}

/** When it is tried again, or how long ago it ended. */
function when({ created_at, next_at, ended_at }) {
  if (ended_at) return ago(ended_at);
  const left = next_at ? Date.parse(next_at) - Date.now() : 0;
  return left > 0 ? t("tried_in", span(left)) : t("waits_since", ago(created_at));
}
