// The planner sessions of this member: with whom a plan is made, and what of it waits.

import { badge, code, Table } from "../draw.js";
import { ago, number, span, who } from "../say.js";
import { SLOWLY, watch } from "../source.js";
import { t } from "../words.js";

const WHEN = { every: SLOWLY, on: /^planner_/ };

export function show(main, signal) {
  const table = new Table(main, {
    caption: "planner",
    key: ({ peer_id }) => peer_id,
    empty: "no_plans",
    columns: [
      { head: "with", name: true, cell: ({ peer_id }) => who(peer_id) },
      { head: "opened", cell: ({ opened_at }) => ago(opened_at) },
      { head: "ends", cell: ends },
      { head: "steps_fed", number: true, cell: ({ fed }) => number(fed) },
      { head: "steps_waiting", cell: ({ waiting }) => waiting === 0 ? badge("good", t("none")) : badge("warn", number(waiting)) },
      { head: "peer_id", cell: ({ peer_id }) => code(peer_id) },
    ],
  });
  watch("/api/v1/planner", WHEN, signal, (plans) => table.show(plans), ({ message }) => table.fail(message));
}

function ends({ ends_at }) {
  const left = Date.parse(ends_at) - Date.now();
  return left > 0 ? t("in_time", span(left)) : t("over");
}
